/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "clip.h"
#include "mmdit.h"
#include "sampler.h"
#include "t5.h"
#include "vae.h"

G_BEGIN_DECLS

/**
 * OsrModelDir:
 *
 * What a model folder holds. Two layouts are known: our own, with a config.json that
 * names the parts and all their dimensions (engine/tiny-model/README.md documents it),
 * and a download of hpcai-tech/Open-Sora-v2 (Open_Sora_v2.safetensors,
 * hunyuan_vae.safetensors, google/t5-v1_1-xxl, openai/clip-vit-large-patch14), whose
 * dimensions are read off the tensors' shapes.
 *
 * A folder may hold a model of pictures as well, FLUX.1-dev, which makes the first frame of a
 * clip: the section "image" of config.json, or flux1-dev.safetensors and
 * flux1-dev-ae.safetensors. It is a model of its own, opened as "image:FOLDER". A folder of it
 * alone (family "flux") needs no "image:". Its text encoders may be elsewhere.
 */
typedef struct {
  char *path;   /* absolute */
  char *family; /* "open-sora-v2", "flux" */
  char *name;   /* "opensora-tiny"; the folder's name if the config has none */

  char *mmdit_path, *vae_path; /* weights */
  OsrMmditConfig mmdit;
  OsrVaeConfig vae;

  char *t5_weights, *t5_vocab; /* model file, spiece.model */
  OsrT5Config t5;              /* num_layers 0: no text encoders here */
  guint t5_max_length;

  char *clip_weights, *clip_vocab, *clip_merges;
  OsrClipConfig clip;
  guint clip_max_length;

  OsrSamplingParams sampling; /* the model's own defaults */
  guint fps;                  /* put into the prompt, and the frame rate if caps ask for none */
  guint motion_score;         /* put into the prompt; 0: not put */
} OsrModelDir;

/* The tiny model that is installed with the library; the environment variable
 * OPENSORA_MODEL overrides it. Newly allocated. */
OSR_API char *osr_model_dir_default_path(void);

#define OSR_MODEL_DIR_IMAGE "image:"

/* @path: a folder, or OSR_MODEL_DIR_IMAGE and a folder; NULL: the default. OSR_ERROR_NOT_FOUND
 * names the folder and what is missing. */
OSR_API OsrModelDir *osr_model_dir_open(const char *path, GError **error);
OSR_API void osr_model_dir_free(OsrModelDir *dir);

/* Of both families. */
OSR_API gboolean osr_model_dir_has_text(const OsrModelDir *dir);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrModelDir, osr_model_dir_free)

G_END_DECLS
