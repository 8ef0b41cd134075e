/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "clip.h"

G_BEGIN_DECLS

/* What load() takes. */
gboolean osr_clip_config_check(const OsrClipConfig *config, GError **error);

G_END_DECLS
