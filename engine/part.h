/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "checkpoint.h"

G_BEGIN_DECLS

/* The networks that make a clip, and those that make its first picture. */
typedef enum {
  OSR_PART_MMDIT,
  OSR_PART_VAE,
  OSR_PART_T5,
  OSR_PART_CLIP,
  OSR_PART_FLUX,    /* FLUX.1: the same network as the first, with other dimensions */
  OSR_PART_FLUX_AE, /* its 2D autoencoder */
  OSR_N_PARTS
} OsrPart;

/* "mmdit", "vae", "t5", "clip", "flux", "flux-ae" */
OSR_API const char *osr_part_name(OsrPart part);

/**
 * osr_part_select:
 *
 * The tensors of @checkpoint that belong to @part, by the names that its load() asks for. People
 * have the same weights in several wrappings: with a prefix ("model.diffusion_model.img_in.weight",
 * "text_encoders.t5xxl.transformer.shared.weight"), without one that others write (Hugging Face
 * saved CLIP both with "text_model." and without), with more networks in one file (T5's decoder,
 * CLIP's vision). The prefix is read off a tensor that every file of the part has; what is not
 * of the part is left out, and its data never read.
 *
 * The result keeps @checkpoint alive. OSR_ERROR_INVALID_FILE says what the file is instead, as
 * far as its names tell, or that there are several copies of the part.
 */
OSR_API OsrCheckpoint *osr_part_select(OsrPart part, OsrCheckpoint *checkpoint, GError **error);
/* osr_checkpoint_open() and osr_part_select(). */
OSR_API OsrCheckpoint *osr_part_open(OsrPart part, const char *path, GError **error);

G_END_DECLS
