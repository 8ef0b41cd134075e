/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sampler-loop.h: what the preparation of a clip hands to the denoising loop. Private.
 */
#pragma once

#include "graph.h"
#include "layers.h"
#include "pool-private.h"
#include "sampler-private.h"

G_BEGIN_DECLS

/* Steps that may be enqueued and not reported. */
#define OSR_SAMPLER_MAX_PENDING 2

/* Inputs and results of the forwards lie in batch buffers, in an order that makes neighbours of
 * those that steps leave over: 0 and 1 without a reference, 0 and 2 where text and image guidance
 * are equal. */
static inline guint
osr_sampler_forward_of_slot(guint slot)
{
  return slot < 2 ? 1 - slot : slot;
}

static inline guint
osr_sampler_slot_of_forward(guint forward)
{
  return forward < 2 ? 1 - forward : forward;
}

/* The forwards of a clip that start at one slot and have one number of items. */
typedef struct {
  double seconds; /* of the last one that was measured; 0: none was */
  OsrGraph *graph;
  OsrTensor *tables[2]; /* the model's, which the graph reads */
} OsrSamplerKind;

typedef struct {
  OsrMmdit *mmdit;
  const OsrMmditConfig *config;
  const OsrSamplingParams *params;
  const OsrSamplerInput *input;
  OsrRun run;
  OsrCondition condition;      /* T2V where there is but one frame */
  guint frames, height, width; /* of the latent */
  guint channels, max_batch;
  gint64 tokens_per_frame, tokens;

  OsrTensor *txt, *vec; /* [3, L_txt, D], [3, Dv], by slot */
  OsrTensor *cond;      /* [3, L, p^2 + in_channels], NULL without cond_embed */
  OsrTensor *x, *batch; /* [1, L, in_channels], copies of it [max_batch, ...] */
  OsrTensor *preds;     /* [3, L, in_channels], by slot */

  float *times;                 /* host, [steps + 1] */
  gboolean (*needed)[3];        /* host, [steps], by forward */
  OsrTensor *weights;           /* f32 [steps, 3, frames], by forward */
  OsrTensor *clock, *clock_now; /* f32 [steps, max_batch], [max_batch]: the time of a step */

  OsrTensor *estimate;                          /* as x, of the clean latent; NULL: no previews */
  OsrTensor *previews[OSR_SAMPLER_MAX_PENDING]; /* [T, h, w, C], by number of the step */

  OsrPoolArena *arena; /* what forwards use for themselves */
  gboolean use_graphs;
  OsrSamplerKind kinds[3][3]; /* by slot, by items - 1 */
  OsrSamplerCounts counts;

  struct {
    guint64 mark;
    guint forwards;
  } pending[OSR_SAMPLER_MAX_PENDING]; /* by number of the step */
  guint done;                         /* steps that were waited for */
  gint64 start, last_done;
  double step_seconds; /* of the last of them */
  guint forwards, total_forwards;
} OsrSampler;

/* Enqueues the latent of @tokens (as x) into @latent [T, h, w, C], with the references that belong
 * into a clip. Under the device's lock. */
void osr_sampler_make_latent(OsrSampler *s, const OsrTensor *tokens, OsrTensor *latent);

/* Runs all steps on s->x. */
gboolean osr_sampler_loop(OsrSampler *s, OsrSamplerCallback callback, gpointer user_data,
                          GCancellable *cancellable, GError **error);
void osr_sampler_kind_clear(OsrSamplerKind *kind);

G_END_DECLS
