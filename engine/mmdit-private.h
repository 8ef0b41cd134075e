/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "host-weights.h"
#include "layers.h"
#include "mmdit.h"

G_BEGIN_DECLS

#define OSR_MMDIT_TIME_FEATURES 256

typedef struct {
  OsrDense in, out;
} OsrMmditEmbedder;

/* The weights of one stream of a double block. */
typedef struct {
  OsrDense qkv, proj;           /* [3 D, D], [D, D] */
  OsrDense up, down;            /* [M, D], [D, M] */
  OsrTensor *q_scale, *k_scale; /* [head_dim] */
} OsrMmditStream;

enum { OSR_MMDIT_TEXT, OSR_MMDIT_VIDEO, OSR_MMDIT_N_STREAMS };

typedef struct {
  OsrDense modulation; /* [12 D, D]: six vectors of the text, six of the video */
  OsrMmditStream streams[OSR_MMDIT_N_STREAMS];
} OsrMmditDouble;

typedef struct {
  OsrDense modulation;          /* [3 D, D] */
  OsrDense qkv, up;             /* [3 D, D], [M, D]: parts of linear1 */
  OsrDense down;                /* [D, D + M]: linear2 */
  OsrTensor *q_scale, *k_scale; /* [head_dim] */
} OsrMmditSingle;

struct _OsrMmdit {
  OsrMmditConfig config;
  OsrDevice *device;
  OsrDType dtype;
  gint64 mlp_dim;

  OsrDense img_in, txt_in, cond_in;
  OsrMmditEmbedder time_in, vector_in, guidance_in;
  OsrMmditDouble *doubles;
  OsrMmditSingle *singles;
  OsrStreamer *streamer; /* of all blocks, the double ones first; NULL: they are on the device */
  OsrDense final_modulation, final_linear; /* [2 D, D], [in_channels, D] */

  /* Rotary tables f32 [rope_text + frames * height * width, head_dim / 2] of the last
   * geometry. The text's rows all say "no rotation". */
  OsrTensor *rope_cos, *rope_sin;
  guint rope_frames, rope_height, rope_width;
  gint64 rope_text;
};

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
