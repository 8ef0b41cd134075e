/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * preview.h: a latent as a small picture without its decoder, so that a clip can be looked at
 * while it is being denoised.
 */
#pragma once

#include "frames.h"
#include "vae.h"

G_BEGIN_DECLS

#define OSR_PREVIEW_MAX_CHANNELS 64

/**
 * OsrPreviewMap:
 *
 * An affine map from the C channels of a scaled latent pixel (see OsrVae) to the mean colour of the
 * pixels it stands for: R, G, B in [-1, 1] = sum_c factors[c] latent[c] + bias.
 */
typedef struct {
  guint channels; /* C; 0: there is no map */
  float factors[OSR_PREVIEW_MAX_CHANNELS][3];
  float bias[3];
} OsrPreviewMap;

/* The map for the published weights that @config is the one of, told by its type and scale; NULL
 * for others. */
OSR_API const OsrPreviewMap *osr_preview_map_find(const OsrVaeConfig *config);

/* The values of @latent [T, h, w, C], which may change after the call. NULL with OSR_ERROR_MEMORY
 * or the device's error. Free with g_free(). */
OSR_API float *osr_preview_copy(OsrTensor *latent, GError **error);

/* Colours @frame [h, w, map->channels] into @picture, RGB in host memory, whose width and height
 * are the same whole multiple of w and h: a latent pixel becomes a square. */
OSR_API gboolean osr_preview_get_picture(const OsrPreviewMap *map, const float *frame, guint h,
                                         guint w, const OsrPicture *picture, GError **error);

G_END_DECLS
