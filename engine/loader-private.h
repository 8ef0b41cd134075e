/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "checkpoint.h"

G_BEGIN_DECLS

/* Around the weights of a block that may be streamed, for loader->sizes. */
void osr_loader_begin_block(OsrLoader *loader);
void osr_loader_end_block(OsrLoader *loader);

G_END_DECLS
