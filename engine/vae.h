/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "checkpoint.h"

G_BEGIN_DECLS

#define OSR_VAE_MAX_BLOCKS 8

/* Whose layers, and whose names for them. */
typedef enum {
  OSR_VAE_HUNYUAN = 0, /* a video as a whole, causal in time */
  OSR_VAE_FLUX,        /* pictures: each frame for itself */
} OsrVaeType;

/* Upstream's AutoEncoder3DConfig. Comments: HunyuanVideo; FLUX.1 where it differs. */
typedef struct {
  OsrVaeType type;
  guint in_channels, out_channels;              /* 3, 3 */
  guint latent_channels;                        /* 16 */
  guint n_blocks;                               /* 4 */
  guint block_out_channels[OSR_VAE_MAX_BLOCKS]; /* 128, 256, 512, 512 */
  guint layers_per_block;                       /* 2 */
  guint norm_num_groups;                        /* 32 */
  guint time_compression_ratio;                 /* 4; 1 */
  guint spatial_compression_ratio;              /* 8 */
  gboolean mid_block_add_attention;
  double scale_factor, shift_factor; /* 0.476986, 0; 0.3611, 0.1159 */
  guint sample_size, sample_tsize;   /* 256, 64: tiles, in pixels and frames */
  double tile_overlap_factor;        /* 0.25 */
} OsrVaeConfig;

/**
 * OsrVae:
 *
 * The causal 3D autoencoder of HunyuanVideo (W. Kong et al., arXiv:2412.03603) or the 2D one
 * of FLUX.1 (Black Forest Labs; that of latent diffusion, R. Rombach et al., arXiv:2112.10752):
 * video [T, H, W, 3] in [-1, 1] <-> latent [t, h, w, C] with t = (T - 1) / time_ratio + 1,
 * h = H / spatial_ratio, w = W / spatial_ratio. Latents are scaled:
 * scale_factor * (z - shift_factor).
 */
typedef struct _OsrVae OsrVae;

typedef enum {
  OSR_VAE_TILING_OFF = 0,
  OSR_VAE_TILING_SPATIAL = 1 << 0,
  OSR_VAE_TILING_TEMPORAL = 1 << 1,
} OsrVaeTiling;

/* Fraction done in [0, 1]. */
typedef void (*OsrProgress)(double fraction, gpointer user_data);

/* Loads what is asked for: a playback pipeline needs no encoder. */
OSR_API OsrVae *osr_vae_load(const OsrVaeConfig *config, gboolean encoder, gboolean decoder,
                             OsrLoader *loader, GError **error);
OSR_API void osr_vae_free(OsrVae *vae);
OSR_API const OsrVaeConfig *osr_vae_get_config(OsrVae *vae);
OSR_API OsrDevice *osr_vae_get_device(OsrVae *vae);

/* @video [T, H, W, 3], T = 1 or time_ratio k + 1, H and W multiples of the spatial ratio.
 * @seed: NULL for the mode of the posterior, else a sample of it (what upstream does).
 * Returns [t, h, w, C]; @moments, if not NULL, gets the unscaled [t, h, w, 2 C]. */
OSR_API OsrTensor *osr_vae_encode(OsrVae *vae, OsrTensor *video, OsrVaeTiling tiling,
                                  const guint64 *seed, OsrTensor **moments,
                                  GCancellable *cancellable, GError **error);
/* @latent [t, h, w, C] -> video [T, H, W, 3], not clamped. Looks at @cancellable between
 * blocks. @progress says what the device has done; with it, all is done on return, without it
 * the last blocks may still run. */
OSR_API OsrTensor *osr_vae_decode(OsrVae *vae, OsrTensor *latent, OsrVaeTiling tiling,
                                  OsrProgress progress, gpointer user_data,
                                  GCancellable *cancellable, GError **error);
/* Bytes that an untiled decode of a t x h x w latent takes at its peak. */
OSR_API guint64 osr_vae_decode_memory(const OsrVaeConfig *config, guint t, guint h, guint w);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrVae, osr_vae_free)

G_END_DECLS
