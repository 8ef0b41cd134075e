/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "sampler.h"

G_BEGIN_DECLS

/* How many latent frames at the start and at the end of a clip a condition gives. A single
 * frame is never conditioned. */
void osr_condition_frames(OsrCondition condition, guint latent_frames, guint *head, guint *tail);

/* What upstream's embedding of @time makes of it where the model computes in @dtype: it is rounded
 * to that, and 1000 times it once more. The same for f32. */
float osr_round_time(float time, OsrDType dtype);

/* How the forwards of a clip were made: call by call, recorded, and by launches of what was
 * recorded. A batch counts as one. */
typedef struct {
  guint plain, recorded, launched;
} OsrSamplerCounts;

/* osr_sampler_run() with up to @max_batch (1 to 3) of a step's forwards in one batch. @counts:
 * where to count, or NULL. */
OsrTensor *osr_sampler_run_batched(OsrMmdit *mmdit, const OsrSamplingParams *params,
                                   const OsrSamplerInput *input, const guint latent_dims[4],
                                   OsrTensor *noise, guint max_batch, OsrSamplerCounts *counts,
                                   OsrSamplerCallback callback, gpointer user_data,
                                   GCancellable *cancellable, GError **error);

G_END_DECLS
