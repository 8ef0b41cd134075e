/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "t5.h"

G_BEGIN_DECLS

/* What load() takes. */
gboolean osr_t5_config_check(const OsrT5Config *config, GError **error);

/* Row of relative_attention_bias for a key @offset tokens after the query. */
guint osr_t5_bucket(const OsrT5Config *config, gint64 offset);

G_END_DECLS
