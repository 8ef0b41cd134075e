/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mmdit.h"

G_BEGIN_DECLS

/* Of activations. */
OsrDType osr_mmdit_get_dtype(OsrMmdit *mmdit);

/* The angles of the rotary embedding, an axis after the other: pair j of an axis with
 * n = axes_dim / 2 pairs turns by position * theta^(-j / n). @frequencies and one row of
 * @cos and @sin have head_dim / 2 entries. */
void osr_mmdit_rope_frequencies(const OsrMmditConfig *config, double *frequencies);
void osr_mmdit_rope_row(const OsrMmditConfig *config, const double *frequencies,
                        const guint position[3], float *cos_row, float *sin_row);

G_END_DECLS
