/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "checkpoint.h"

G_BEGIN_DECLS

/* The keys of a Hugging Face T5 config.json. */
typedef struct {
  guint vocab_size;                      /* 32128 */
  guint d_model;                         /* 4096 */
  guint d_kv;                            /* 64 */
  guint d_ff;                            /* 10240 */
  guint num_layers;                      /* 24 */
  guint num_heads;                       /* 64 */
  guint relative_attention_num_buckets;  /* 32 */
  guint relative_attention_max_distance; /* 128 */
  double layer_norm_epsilon;             /* 1e-6 */
} OsrT5Config;

/**
 * OsrT5:
 *
 * T5 v1.1 encoder (gated GELU, relative position bias, no mask): C. Raffel et al.,
 * arXiv:1910.10683, with the changes of the 1.1 checkpoints.
 */
typedef struct _OsrT5 OsrT5;

OSR_API OsrT5 *osr_t5_load(const OsrT5Config *config, OsrLoader *loader, GError **error);
OSR_API void osr_t5_free(OsrT5 *t5);

/* ids: host, [n_ids]. The last hidden state [1, n_ids, d_model] in the dtype it was
 * loaded with. (transfer full) */
OSR_API OsrTensor *osr_t5_encode(OsrT5 *t5, const gint32 *ids, guint n_ids,
                                 GCancellable *cancellable, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrT5, osr_t5_free)

G_END_DECLS
