/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "clip.h"
#include "mmdit.h"
#include "part.h"
#include "preview.h"
#include "sampler.h"
#include "t5.h"
#include "vae.h"

G_BEGIN_DECLS

/**
 * OsrModelDir:
 *
 * What a model folder holds. Two layouts are known: our own, with a config.json that
 * names the parts and all their dimensions (docs/models.md), and a download of
 * hpcai-tech/Open-Sora-v2 (Open_Sora_v2.safetensors, hunyuan_vae.safetensors,
 * google/t5-v1_1-xxl, openai/clip-vit-large-patch14), whose dimensions are read off the
 * tensors' shapes. Weights are safetensors or PyTorch files, single or sharded.
 *
 * A folder may hold a model of pictures as well, FLUX.1-dev, which makes the first frame of a
 * clip: the section "image" of config.json, or flux1-dev.safetensors and
 * flux1-dev-ae.safetensors. It is a model of its own, opened as "image:FOLDER". A folder of it
 * alone (family "flux") needs no "image:". Its text encoders may be elsewhere.
 *
 * Each part may be somewhere else instead (OsrModelParts); then its dimensions are read off its
 * own config.json or shapes.
 */
typedef struct {
  char *path;   /* absolute */
  char *family; /* "open-sora-v2", "flux" */
  char *name;   /* "opensora-tiny"; the folder's name if the config has none */

  char *mmdit_path, *vae_path; /* weights */
  OsrMmditConfig mmdit;
  OsrVaeConfig vae;
  OsrPreviewMap preview; /* of latents; channels 0: none is known */

  char *t5_weights, *t5_vocab; /* model file, spiece.model */
  OsrT5Config t5;              /* num_layers 0: no text encoders here */
  guint t5_max_length;

  char *clip_weights, *clip_vocab, *clip_merges;
  OsrClipConfig clip;
  guint clip_max_length;

  /* FLUX.1-dev beside a downloaded model of video: NULL where there is none. @flux_problem says
   * why one that is there is not taken, else it is NULL. */
  char *flux_path, *flux_ae_path, *flux_problem;
  OsrMmditConfig flux;
  OsrVaeConfig flux_ae;

  OsrSamplingParams sampling; /* the model's own defaults */
  guint fps;                  /* put into the prompt, and the frame rate if caps ask for none */
  guint motion_score;         /* put into the prompt; 0: not put */
} OsrModelDir;

/**
 * OsrModelParts:
 *
 * Where parts are that are not in the model's folder, NULL: there. Each is a weights file, an
 * index of several, or a folder with one of these. Beside the weights of T5 may lie config.json
 * and spiece.model, beside those of CLIP config.json, vocab.json and merges.txt: what is not
 * there is read off the shapes, or taken from the model's folder.
 */
typedef struct {
  const char *mmdit, *vae, *t5, *clip;
} OsrModelParts;

/* The tiny model that is installed with the library; the environment variable
 * OPENSORA_MODEL overrides it. Newly allocated. */
OSR_API char *osr_model_dir_default_path(void);

#define OSR_MODEL_DIR_IMAGE "image:"

/* @path: a folder, or OSR_MODEL_DIR_IMAGE and a folder; NULL: the default. OSR_ERROR_NOT_FOUND
 * names the folder, what is missing and what is there. */
OSR_API OsrModelDir *osr_model_dir_open(const char *path, GError **error);
/* With @path NULL and all four parts given, no folder is looked at. @parts may be NULL. */
OSR_API OsrModelDir *osr_model_dir_open_with(const char *path, const OsrModelParts *parts,
                                             GError **error);
OSR_API void osr_model_dir_free(OsrModelDir *dir);

/* Whether the text encoders are there: without them the model's own part still is. */
OSR_API gboolean osr_model_dir_has_text(const OsrModelDir *dir);

/* The weights file of a part, NULL if there is none. */
OSR_API const char *osr_model_dir_get_weights(const OsrModelDir *dir, OsrPart part);

/* Its tensors, by the names that its load() asks for. */
OSR_API OsrCheckpoint *osr_model_dir_open_part(const OsrModelDir *dir, OsrPart part,
                                               GError **error);

/**
 * OsrPartInfo:
 *
 * What a part is made of, without reading weights: the tensors that are of it, and how their
 * names and shapes compare with what its config needs.
 */
typedef struct {
  OsrPart part;
  char *path;         /* of the weights or of their index */
  GPtrArray *files;   /* char *: those that have tensors of it */
  const char *format; /* "safetensors", "PyTorch" */
  guint n_tensors;
  guint64 n_parameters, n_bytes;
  guint64 by_dtype[OSR_N_DTYPES]; /* parameters */
  GPtrArray *missing, *unused;    /* char *: names of tensors */
  GPtrArray *misfits;             /* char *: "tensor 'X' is [2], the model needs [3]" */
} OsrPartInfo;

/* @loras: adapters that have to fit the part, or NULL. Fails only if the file is none; then
 * osr_part_info_check() says whether the part would load. */
OSR_API OsrPartInfo *osr_model_dir_inspect(const OsrModelDir *dir, OsrPart part, OsrLoras *loras,
                                           GError **error);
/* FALSE with all that is missing and does not fit in one message. */
OSR_API gboolean osr_part_info_check(const OsrPartInfo *info, GError **error);
OSR_API void osr_part_info_free(OsrPartInfo *info);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrModelDir, osr_model_dir_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrPartInfo, osr_part_info_free)

G_END_DECLS
