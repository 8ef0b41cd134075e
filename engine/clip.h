/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "checkpoint.h"

G_BEGIN_DECLS

/* The text part of a Hugging Face CLIP config.json (its "text_config" if there is one). */
typedef struct {
  guint vocab_size;              /* 49408 */
  guint hidden_size;             /* 768 */
  guint intermediate_size;       /* 3072 */
  guint num_hidden_layers;       /* 12 */
  guint num_attention_heads;     /* 12 */
  guint max_position_embeddings; /* 77 */
  double layer_norm_eps;         /* 1e-5 */
  OsrAct hidden_act;             /* OSR_ACT_QUICK_GELU */
  gint eos_token_id;             /* 2 means: the position of the largest id (old configs) */
} OsrClipConfig;

/**
 * OsrClip:
 *
 * CLIP's text transformer (A. Radford et al., arXiv:2103.00020): causal attention, quick
 * GELU, the pooled output is the final norm's row at the end-of-text token.
 */
typedef struct _OsrClip OsrClip;

OSR_API OsrClip *osr_clip_load(const OsrClipConfig *config, OsrLoader *loader, GError **error);
OSR_API void osr_clip_free(OsrClip *clip);

/* ids: host, [n_ids], n_ids <= max_position_embeddings. The pooled output
 * [1, hidden_size]; @hidden, if not NULL, gets [1, n_ids, hidden_size]. */
OSR_API OsrTensor *osr_clip_encode(OsrClip *clip, const gint32 *ids, guint n_ids,
                                   OsrTensor **hidden, GCancellable *cancellable, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrClip, osr_clip_free)

G_END_DECLS
