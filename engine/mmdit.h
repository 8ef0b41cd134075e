/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "checkpoint.h"

G_BEGIN_DECLS

/* Upstream's MMDiTConfig. Comments: Open-Sora 2.0. */
typedef struct {
  guint in_channels;         /* 64 = latent channels * patch_size^2 */
  guint vec_in_dim;          /* 768, CLIP's pooled output */
  guint context_in_dim;      /* 4096, T5's hidden state */
  guint hidden_size;         /* 3072 */
  double mlp_ratio;          /* 4 */
  guint num_heads;           /* 24 */
  guint depth;               /* 19 double stream blocks */
  guint depth_single_blocks; /* 38 */
  guint axes_dim[3];         /* 16, 56, 56: rotary dims of T, H, W; sum = head_dim */
  double theta;              /* 10000 */
  gboolean qkv_bias;
  gboolean guidance_embed; /* FLUX-dev: a distilled guidance input */
  gboolean cond_embed;     /* image and video conditioning */
  gboolean fused_qkv;      /* how the weights are stored */
  gboolean use_liger_rope; /* half-split rotary pairs instead of interleaved ones */
  guint patch_size;        /* 2 */
} OsrMmditConfig;

/**
 * OsrMmdit:
 *
 * The denoiser of Open-Sora 2.0, a FLUX-like multi-modal diffusion transformer: double
 * stream blocks (text and video with weights of their own, joint attention), then single
 * stream blocks on the concatenation. T. Dockhorn et al. / Black Forest Labs, FLUX.1;
 * X. Peng et al., arXiv:2503.09642.
 */
typedef struct _OsrMmdit OsrMmdit;

/* A batch of inputs. All tensors on the model's device, in its dtype. B items. */
typedef struct {
  OsrTensor *img;              /* [B, L, in_channels] tokens of the noisy latent */
  OsrTensor *cond;             /* [B, L, in_channels + patch^2] or NULL without cond_embed */
  OsrTensor *txt;              /* [B, L_txt, context_in_dim] */
  OsrTensor *vec;              /* [B, vec_in_dim] */
  guint frames, height, width; /* of the token grid, L = frames * height * width */
  float timestep;              /* in [0, 1] */
  OsrTensor *timesteps;        /* f32 [B], one an item, in place of timestep; or NULL */
  float guidance;              /* used with guidance_embed */
} OsrMmditInput;

OSR_API OsrMmdit *osr_mmdit_load(const OsrMmditConfig *config, OsrLoader *loader, GError **error);
OSR_API void osr_mmdit_free(OsrMmdit *mmdit);
OSR_API const OsrMmditConfig *osr_mmdit_get_config(OsrMmdit *mmdit);
OSR_API OsrDevice *osr_mmdit_get_device(OsrMmdit *mmdit);

/* The velocity [B, L, in_channels]. Looks at @cancellable before every block, and at most two
 * blocks ahead of the device: a cancelled forward returns within a block, and leaves what is
 * enqueued to run. The last blocks may not be done when it returns. */
OSR_API OsrTensor *osr_mmdit_forward(OsrMmdit *mmdit, const OsrMmditInput *input,
                                     GCancellable *cancellable, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrMmdit, osr_mmdit_free)

G_END_DECLS
