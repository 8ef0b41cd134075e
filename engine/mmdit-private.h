/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mmdit.h"

G_BEGIN_DECLS

/* What load() takes. */
gboolean osr_mmdit_config_check(const OsrMmditConfig *config, GError **error);

/* A model that takes guidance as an input and no references is a distilled one (FLUX): its
 * prediction is guided already, one forward a step is all. */
static inline gboolean
osr_mmdit_config_is_distilled(const OsrMmditConfig *config)
{
  return config->guidance_embed && !config->cond_embed;
}

/* Of activations. */
OsrDType osr_mmdit_get_dtype(OsrMmdit *mmdit);

/* Makes the tables that forwards of @input's geometry read, and gives references to them: the
 * model drops its own when another geometry comes, a recorded forward still needs them. Rest
 * NULL on failure. */
gboolean osr_mmdit_prepare(OsrMmdit *mmdit, const OsrMmditInput *input, OsrTensor *tables[2],
                           GError **error);

/* osr_mmdit_forward() into @pred. With @paced FALSE the host does not wait for the device and
 * @cancellable is looked at all the same: for forwards that are recorded. */
gboolean osr_mmdit_forward_into(OsrMmdit *mmdit, const OsrMmditInput *input, OsrTensor *pred,
                                gboolean paced, GCancellable *cancellable, GError **error);

/* The angles of the rotary embedding, an axis after the other: pair j of an axis with
 * n = axes_dim / 2 pairs turns by position * theta^(-j / n). @frequencies and one row of
 * @cos and @sin have head_dim / 2 entries. */
void osr_mmdit_rope_frequencies(const OsrMmditConfig *config, double *frequencies);
void osr_mmdit_rope_row(const OsrMmditConfig *config, const double *frequencies,
                        const guint position[3], float *cos_row, float *sin_row);

G_END_DECLS
