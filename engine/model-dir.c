/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model-dir.h"

#include <string.h>

#include "error.h"
#include "mmdit-private.h"
#include "model-config.h"
#include "model-files.h"
#include "model-infer.h"
#include "model-limits.h"

#define FAMILY "open-sora-v2"
#define IMAGE_FAMILY "flux"

#define MEMBER OSR_CONFIG_MEMBER
#define UINT OSR_CONFIG_UINT
#define NUMBER OSR_CONFIG_DOUBLE, 0, 1000
#define BOOLEAN OSR_CONFIG_BOOLEAN, 0, 1

static const OsrConfigField sampling_fields[] = {
  { MEMBER(OsrSamplingParams, width), UINT, 16, OSR_MAX_PIXELS, FALSE },
  { MEMBER(OsrSamplingParams, height), UINT, 16, OSR_MAX_PIXELS, FALSE },
  { MEMBER(OsrSamplingParams, num_frames), UINT, 1, OSR_MAX_FRAMES, FALSE },
  { MEMBER(OsrSamplingParams, num_steps), UINT, 1, OSR_MAX_STEPS, FALSE },
  { MEMBER(OsrSamplingParams, guidance), NUMBER, FALSE },
  { MEMBER(OsrSamplingParams, guidance_img), NUMBER, FALSE },
  { MEMBER(OsrSamplingParams, text_osci), BOOLEAN, FALSE },
  { MEMBER(OsrSamplingParams, image_osci), BOOLEAN, FALSE },
  { MEMBER(OsrSamplingParams, scale_temporal_osci), BOOLEAN, FALSE },
  { MEMBER(OsrSamplingParams, shift), BOOLEAN, FALSE },
  { MEMBER(OsrSamplingParams, flow_shift), NUMBER, FALSE },
};

/* Keys of "sampling" that go into the prompt. */
static const OsrConfigField prompt_fields[] = {
  { MEMBER(OsrModelDir, fps), UINT, 1, 1000, FALSE },
  { MEMBER(OsrModelDir, motion_score), UINT, 0, 1000, FALSE },
};

static const OsrConfigField t5_max_length_field[] = {
  { "max_length", G_STRUCT_OFFSET(OsrModelDir, t5_max_length), UINT, 2, OSR_MAX_TOKENS, FALSE },
};

static const OsrConfigField clip_max_length_field[] = {
  { "max_length", G_STRUCT_OFFSET(OsrModelDir, clip_max_length), UINT, 2, OSR_MAX_TOKENS, FALSE },
};

/* Files */

static gboolean
is_file(const char *path)
{
  return g_file_test(path, G_FILE_TEST_IS_REGULAR);
}

/* A path of config.json: it must not lead out of the model's folder. */
static char *
resolve_path(const OsrModelDir *dir, const OsrConfigSection *section, const char *key,
             const char *fallback, GError **error)
{
  const char *path = osr_config_read_string(section, key, fallback, error);

  if (path == NULL)
    return NULL;
  g_auto(GStrv) parts = g_strsplit(path, "/", -1);
  if (*path == '\0' || g_path_is_absolute(path) ||
      g_strv_contains((const char *const *) parts, "..")) {
    osr_config_fail(section, key, error, "\"%s\" is not a path inside the model's folder", path);
    return NULL;
  }
  return g_build_filename(dir->path, path, NULL);
}

static const char *const text_names[] = { "model", "pytorch_model", NULL };

static void
replace(char **path, char *with)
{
  g_free(*path);
  *path = with;
}

static void
set_t5_folder(OsrModelDir *dir, const char *folder)
{
  replace(&dir->t5_weights, osr_find_weights(folder, text_names));
  replace(&dir->t5_vocab, g_build_filename(folder, "spiece.model", NULL));
}

static void
set_clip_folder(OsrModelDir *dir, const char *folder)
{
  replace(&dir->clip_weights, osr_find_weights(folder, text_names));
  replace(&dir->clip_vocab, g_build_filename(folder, "vocab.json", NULL));
  replace(&dir->clip_merges, g_build_filename(folder, "merges.txt", NULL));
}

/* What is known of a folder before its parts are looked at. */
typedef struct {
  gboolean own;                  /* a config.json of ours has the configs of mmdit and vae */
  gboolean image;                /* a model of pictures; its text encoders may be elsewhere */
  char *config;                  /* in messages: what says how the parts belong together */
  char *t5_config, *clip_config; /* NULL: they are read off the shapes */
} Layout;

static void
layout_clear(Layout *layout)
{
  g_free(layout->config);
  g_free(layout->t5_config);
  g_free(layout->clip_config);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Layout, layout_clear)

static gboolean
has_text(const Layout *layout)
{
  return !layout->image || !layout->t5_config || !layout->clip_config ||
         is_file(layout->t5_config) || is_file(layout->clip_config);
}

/* All that is missing goes into one message, and what is there beside it. */
static gboolean
check_files(const OsrModelDir *dir, const Layout *layout, GError **error)
{
  const char *const paths[] = {
    dir->mmdit_path,     dir->vae_path,     layout->t5_config, dir->t5_weights,  dir->t5_vocab,
    layout->clip_config, dir->clip_weights, dir->clip_vocab,   dir->clip_merges,
  };
  g_autoptr(GString) missing = g_string_new(NULL);
  g_autofree char *inside = g_strconcat(dir->path, "/", NULL), *found = NULL;

  for (guint i = 0; i < (has_text(layout) ? G_N_ELEMENTS(paths) : 2); i++) {
    if (paths[i] && !is_file(paths[i]))
      g_string_append_printf(missing, "%s%s", missing->len > 0 ? ", " : "",
                             g_str_has_prefix(paths[i], inside) ? paths[i] + strlen(inside)
                                                                : paths[i]);
  }
  if (missing->len == 0)
    return TRUE;
  found = osr_describe_folder(dir->path);
  g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "Model folder %s: missing %s; %s", dir->path,
              missing->str, found);
  return FALSE;
}

/* Text models: Hugging Face's config.json */

static gboolean
read_t5(OsrModelDir *dir, const char *path, GError **error)
{
  g_autoptr(OsrCheckpoint) weights = NULL;
  g_autoptr(JsonObject) object = NULL;

  if (!path) {
    weights = osr_part_open(OSR_PART_T5, dir->t5_weights, error);
    return weights && osr_infer_t5(weights, NULL, &dir->t5, error);
  }
  object = osr_config_read_file(path, error);
  return object && osr_config_read_t5(&(OsrConfigSection){ path, "", object }, &dir->t5, error);
}

static gboolean
read_clip(OsrModelDir *dir, const char *path, GError **error)
{
  g_autoptr(OsrCheckpoint) weights = NULL;
  g_autoptr(JsonObject) object = NULL;

  if (!path) {
    weights = osr_part_open(OSR_PART_CLIP, dir->clip_weights, error);
    return weights && osr_infer_clip(weights, NULL, &dir->clip, error);
  }
  object = osr_config_read_file(path, error);
  return object && osr_config_read_clip(&(OsrConfigSection){ path, "", object }, &dir->clip, error);
}

/* Our own layout */

static gboolean
read_mmdit(OsrModelDir *dir, const OsrConfigSection *root, GError **error)
{
  OsrConfigSection section;

  if (!osr_config_open(root, "mmdit", "mmdit.", &section, error) ||
      !osr_config_read_mmdit(&section, &dir->mmdit, error))
    return FALSE;
  dir->mmdit_path = resolve_path(dir, &section, "weights", "mmdit.safetensors", error);
  return dir->mmdit_path != NULL;
}

static gboolean
read_vae(OsrModelDir *dir, const OsrConfigSection *root, GError **error)
{
  OsrConfigSection section;

  if (!osr_config_open(root, "vae", "vae.", &section, error) ||
      !osr_config_read_vae(&section, &dir->vae, error))
    return FALSE;
  dir->vae_path = resolve_path(dir, &section, "weights", "vae.safetensors", error);
  return dir->vae_path != NULL;
}

static gboolean
read_preview(OsrModelDir *dir, const OsrConfigSection *root, GError **error)
{
  OsrConfigSection section;

  return !json_object_has_member(root->object, "preview") ||
         (osr_config_open(root, "preview", "preview.", &section, error) &&
          osr_config_read_preview(&section, dir->vae.latent_channels, &dir->preview, error));
}

/* "t5" and "clip": where the folder is. (transfer full) */
static char *
read_text_model(OsrModelDir *dir, const OsrConfigSection *root, const char *key, const char *prefix,
                const OsrConfigField *max_length, GError **error)
{
  static const char *const others[] = { "path", NULL };
  OsrConfigSection section;

  if (!osr_config_open(root, key, prefix, &section, error) ||
      !osr_config_read_fields(&section, max_length, 1, dir, error))
    return NULL;
  osr_config_log_unknown(&section, max_length, 1, others);
  return resolve_path(dir, &section, "path", key, error);
}

static gboolean
read_sampling(OsrModelDir *dir, const OsrConfigSection *root, GError **error)
{
  static const char *const others[] = { "fps", "motion_score", NULL };
  OsrConfigSection section;

  if (!json_object_has_member(root->object, "sampling"))
    return TRUE;
  if (!osr_config_open(root, "sampling", "sampling.", &section, error) ||
      !osr_config_read_fields(&section, sampling_fields, G_N_ELEMENTS(sampling_fields),
                              &dir->sampling, error) ||
      !osr_config_read_fields(&section, prompt_fields, G_N_ELEMENTS(prompt_fields), dir, error))
    return FALSE;
  osr_config_log_unknown(&section, sampling_fields, G_N_ELEMENTS(sampling_fields), others);
  return TRUE;
}

/* What one part's numbers say about another's. */
static gboolean
check_parts(const OsrModelDir *dir, const char *file, GError **error)
{
  const OsrConfigSection root = { file, "", NULL };
  const OsrMmditConfig *c = &dir->mmdit;
  const guint64 latent = (guint64) dir->vae.latent_channels * c->patch_size * c->patch_size;
  g_autoptr(GError) reason = NULL;

  if (c->in_channels != latent)
    return osr_config_fail(&root, "mmdit.in_channels", error,
                           "%u is not %" G_GUINT64_FORMAT
                           ", the latent channels times patch_size squared",
                           c->in_channels, latent);
  if (c->vec_in_dim != dir->clip.hidden_size)
    return osr_config_fail(&root, "mmdit.vec_in_dim", error, "%u is not CLIP's hidden_size, %u",
                           c->vec_in_dim, dir->clip.hidden_size);
  if (c->context_in_dim != dir->t5.d_model)
    return osr_config_fail(&root, "mmdit.context_in_dim", error, "%u is not T5's d_model, %u",
                           c->context_in_dim, dir->t5.d_model);
  if (dir->clip_max_length > dir->clip.max_position_embeddings)
    return osr_config_fail(&root, "clip.max_length", error, "%u is more than CLIP's %u positions",
                           dir->clip_max_length, dir->clip.max_position_embeddings);
  if (!osr_sampling_params_check(&dir->sampling, c, dir->vae.spatial_compression_ratio,
                                 dir->vae.time_compression_ratio, &reason))
    return osr_config_fail(&root, "sampling", error, "%s", reason->message);
  return TRUE;
}

static const OsrSamplingParams image_sampling = {
  .width = 1024,
  .height = 576,
  .num_frames = 1,
  .num_steps = 50,
  .guidance = 4.0,
  .guidance_img = 1.0,
  .shift = TRUE,
  .seed = 42,
  .use_graphs = TRUE,
};

/* What upstream makes first frames with. */
static void
set_image_defaults(OsrModelDir *dir, Layout *layout)
{
  replace(&dir->family, g_strdup(IMAGE_FAMILY));
  dir->sampling = image_sampling;
  layout->image = TRUE;
}

/* The folders of the text encoders, of which a model of pictures may have none. */
static gboolean
read_text_folders(OsrModelDir *dir, const OsrConfigSection *root, Layout *layout, GError **error)
{
  const gboolean any = !layout->image;
  g_autofree char *t5 = NULL, *clip = NULL;

  if (any || json_object_has_member(root->object, "t5"))
    t5 = read_text_model(dir, root, "t5", "t5.", t5_max_length_field, error);
  else
    t5 = g_build_filename(dir->path, "t5", NULL);
  if (t5 == NULL)
    return FALSE;
  if (any || json_object_has_member(root->object, "clip"))
    clip = read_text_model(dir, root, "clip", "clip.", clip_max_length_field, error);
  else
    clip = g_build_filename(dir->path, "clip", NULL);
  if (clip == NULL)
    return FALSE;
  set_t5_folder(dir, t5);
  set_clip_folder(dir, clip);
  layout->t5_config = g_build_filename(t5, "config.json", NULL);
  layout->clip_config = g_build_filename(clip, "config.json", NULL);
  return TRUE;
}

/* Name and text encoders are in @root, the rest in @section: the section "image" or @root
 * itself. */
static gboolean
read_own_parts(OsrModelDir *dir, const OsrConfigSection *root, const OsrConfigSection *section,
               Layout *layout, GError **error)
{
  const char *name = osr_config_read_string(root, "name", dir->name, error);
  g_autofree char *new_name = g_strdup(name);

  if (name == NULL || !read_mmdit(dir, section, error) || !read_vae(dir, section, error) ||
      !read_preview(dir, section, error) || !read_text_folders(dir, root, layout, error) ||
      !read_sampling(dir, section, error))
    return FALSE;
  replace(&dir->name, g_steal_pointer(&new_name));
  replace(&layout->config, g_strdup(section->file));
  layout->own = TRUE;
  return TRUE;
}

static gboolean
read_own(OsrModelDir *dir, const char *config_path, JsonObject *object, Layout *layout,
         GError **error)
{
  static const char *const known[] = { "family", "name",     "mmdit",   "vae",   "t5",
                                       "clip",   "sampling", "preview", "image", NULL };
  const OsrConfigSection root = { config_path, "", object };
  const char *family = osr_config_read_string(&root, "family", NULL, error);

  if (family == NULL)
    return FALSE;
  if (g_str_equal(family, IMAGE_FAMILY)) {
    set_image_defaults(dir, layout);
  } else if (!g_str_equal(family, FAMILY)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "%s: family: \"%s\" is not known, \"" FAMILY "\" and \"" IMAGE_FAMILY "\" are",
                config_path, family);
    return FALSE;
  }
  osr_config_log_unknown(&root, NULL, 0, known);
  return read_own_parts(dir, &root, &root, layout, error);
}

/* The model of pictures beside one of video. */
static gboolean
read_own_image(OsrModelDir *dir, const char *config_path, JsonObject *object, Layout *layout,
               GError **error)
{
  const OsrConfigSection root = { config_path, "", object };
  const char *family = osr_config_read_string(&root, "family", NULL, error);
  g_autofree char *file = g_strconcat(config_path, ": image", NULL);
  OsrConfigSection image;

  if (family == NULL)
    return FALSE;
  if (g_str_equal(family, IMAGE_FAMILY))
    return read_own(dir, config_path, object, layout, error);
  if (!json_object_has_member(object, "image")) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "Model folder %s: no model of pictures in it: config.json has no section \"image\"",
                dir->path);
    return FALSE;
  }
  if (!osr_config_open(&root, "image", "", &image, error))
    return FALSE;
  image.file = file;
  set_image_defaults(dir, layout);
  return read_own_parts(dir, &root, &image, layout, error);
}

/* The download of hpcai-tech/Open-Sora-v2 */

#define HUB_MMDIT "Open_Sora_v2"
#define HUB_VAE "hunyuan_vae"
#define HUB_T5 "google/t5-v1_1-xxl"
#define HUB_CLIP "openai/clip-vit-large-patch14"
#define HUB_FLUX "flux1-dev"
#define HUB_FLUX_AE "flux1-dev-ae"

static char *
find_named(const OsrModelDir *dir, const char *name)
{
  return osr_find_weights(dir->path, (const char *const[]){ name, NULL });
}

static gboolean
is_hub_folder(const OsrModelDir *dir)
{
  static const char *const folders[] = { HUB_T5, HUB_CLIP };
  g_autofree char *mmdit = find_named(dir, HUB_MMDIT), *vae = find_named(dir, HUB_VAE);

  for (guint i = 0; i < G_N_ELEMENTS(folders); i++) {
    g_autofree char *folder = g_build_filename(dir->path, folders[i], NULL);

    if (g_file_test(folder, G_FILE_TEST_IS_DIR))
      return TRUE;
  }
  return is_file(mmdit) || is_file(vae);
}

static const char *const flux_ae_names[] = { HUB_FLUX_AE, "ae", NULL };

/* Of nothing else, that is. */
static gboolean
is_image_folder(const OsrModelDir *dir)
{
  g_autofree char *flux = find_named(dir, HUB_FLUX);

  return is_file(flux);
}

static void
read_hub_text(OsrModelDir *dir, Layout *layout)
{
  g_autofree char *t5 = g_build_filename(dir->path, HUB_T5, NULL);
  g_autofree char *clip = g_build_filename(dir->path, HUB_CLIP, NULL);

  set_t5_folder(dir, t5);
  set_clip_folder(dir, clip);
  layout->t5_config = g_build_filename(t5, "config.json", NULL);
  layout->clip_config = g_build_filename(clip, "config.json", NULL);
}

static void
read_hub(OsrModelDir *dir, Layout *layout)
{
  dir->mmdit_path = find_named(dir, HUB_MMDIT);
  dir->vae_path = find_named(dir, HUB_VAE);
  read_hub_text(dir, layout);
}

static gboolean
read_hub_image(OsrModelDir *dir, const OsrModelParts *parts, Layout *layout, GError **error)
{
  set_image_defaults(dir, layout);
  dir->mmdit_path = find_named(dir, HUB_FLUX);
  dir->vae_path = osr_find_weights(dir->path, flux_ae_names);
  read_hub_text(dir, layout);
  if ((parts->mmdit || is_file(dir->mmdit_path)) && (parts->vae || is_file(dir->vae_path)))
    return TRUE;
  g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
              "Model folder %s: no model of pictures in it: missing %s.safetensors", dir->path,
              parts->mmdit || is_file(dir->mmdit_path) ? HUB_FLUX_AE : HUB_FLUX);
  return FALSE;
}

static gboolean
infer_mmdit(OsrModelDir *dir, const OsrMmditConfig *base, OsrPart part, GError **error)
{
  g_autoptr(OsrCheckpoint) weights = osr_part_open(part, dir->mmdit_path, error);

  return weights && osr_infer_mmdit(weights, base, &dir->mmdit, error);
}

static gboolean
infer_vae(OsrModelDir *dir, const OsrVaeConfig *base, gboolean image, GError **error)
{
  g_autoptr(OsrCheckpoint) weights =
      osr_part_open(image ? OSR_PART_FLUX_AE : OSR_PART_VAE, dir->vae_path, error);

  if (weights == NULL)
    return FALSE;
  return image ? osr_infer_flux_ae(weights, &dir->vae, error)
               : osr_infer_vae(weights, base, &dir->vae, error);
}

/* FLUX.1 is taken by name and shape, each part for itself. Whoever does without it is not
 * bothered by one that is broken. */
static void
find_flux(OsrModelDir *dir)
{
  g_autofree char *path = find_named(dir, HUB_FLUX);
  g_autofree char *ae_path = osr_find_weights(dir->path, flux_ae_names);
  g_autoptr(OsrCheckpoint) flux = NULL, ae = NULL;
  g_autoptr(GError) problem = NULL, ae_problem = NULL;

  if (is_file(path) && (flux = osr_part_open(OSR_PART_FLUX, path, &problem)) &&
      osr_infer_mmdit(flux, NULL, &dir->flux, &problem))
    dir->flux_path = g_steal_pointer(&path);
  if (is_file(ae_path) && (ae = osr_part_open(OSR_PART_FLUX_AE, ae_path, &ae_problem)) &&
      osr_infer_flux_ae(ae, &dir->flux_ae, &ae_problem))
    dir->flux_ae_path = g_steal_pointer(&ae_path);
  if (problem || ae_problem)
    dir->flux_problem = g_strdup((problem ? problem : ae_problem)->message);
}

/* Parts from somewhere else */

static gboolean
place_text(const char *what, const char *place, char **weights, char **config, GError **error)
{
  g_autofree char *folder = NULL, *beside = NULL;
  char *found = osr_find_part(what, place, text_names, error);

  if (!found)
    return FALSE;
  folder = g_path_get_dirname(found);
  beside = g_build_filename(folder, "config.json", NULL);
  replace(weights, found);
  replace(config, is_file(beside) ? g_steal_pointer(&beside) : NULL);
  return TRUE;
}

/* A file beside the weights takes the place of the folder's. */
static void
place_beside(const char *weights, const char *name, char **path)
{
  g_autofree char *folder = g_path_get_dirname(weights);
  g_autofree char *beside = g_build_filename(folder, name, NULL);

  if (!*path || is_file(beside))
    replace(path, g_steal_pointer(&beside));
}

static gboolean
place_parts(OsrModelDir *dir, const OsrModelParts *parts, Layout *layout, GError **error)
{
  static const char *const mmdit_names[] = { HUB_MMDIT, "mmdit",         "diffusion_pytorch_model",
                                             "model",   "pytorch_model", NULL };
  static const char *const vae_names[] = { HUB_VAE, "vae",           "diffusion_pytorch_model",
                                           "model", "pytorch_model", NULL };

  if (parts->mmdit) {
    replace(&dir->mmdit_path, osr_find_part("mmdit", parts->mmdit, mmdit_names, error));
    if (!dir->mmdit_path)
      return FALSE;
  }
  if (parts->vae) {
    replace(&dir->vae_path, osr_find_part("vae", parts->vae, vae_names, error));
    if (!dir->vae_path)
      return FALSE;
  }
  if (parts->t5) {
    if (!place_text("t5", parts->t5, &dir->t5_weights, &layout->t5_config, error))
      return FALSE;
    place_beside(dir->t5_weights, "spiece.model", &dir->t5_vocab);
  }
  if (parts->clip) {
    if (!place_text("clip", parts->clip, &dir->clip_weights, &layout->clip_config, error))
      return FALSE;
    place_beside(dir->clip_weights, "vocab.json", &dir->clip_vocab);
    place_beside(dir->clip_weights, "merges.txt", &dir->clip_merges);
  }
  return TRUE;
}

/* The folder's map is that of its own autoencoder; published ones have theirs. */
static void
choose_preview(OsrModelDir *dir, const OsrModelParts *parts)
{
  const OsrPreviewMap *map = osr_preview_map_find(&dir->vae);

  if (dir->preview.channels == 0 || parts->vae)
    dir->preview = map ? *map : (OsrPreviewMap){ 0 };
}

/* What a model of pictures makes of texts that are encoded elsewhere. */
static void
expect_text(OsrModelDir *dir)
{
  dir->t5.d_model = dir->mmdit.context_in_dim;
  dir->clip.hidden_size = dir->mmdit.vec_in_dim;
  dir->clip.max_position_embeddings = dir->clip_max_length;
}

/* The configs of what only shapes tell: all parts of a download, and those from somewhere
 * else. */
static gboolean
read_configs(OsrModelDir *dir, const OsrModelParts *parts, const Layout *layout, GError **error)
{
  const OsrMmditConfig mmdit = dir->mmdit;
  const OsrVaeConfig vae = dir->vae;
  const OsrPart denoiser = layout->image ? OSR_PART_FLUX : OSR_PART_MMDIT;

  if ((!layout->own || parts->mmdit) &&
      !infer_mmdit(dir, layout->own ? &mmdit : NULL, denoiser, error))
    return FALSE;
  if ((!layout->own || parts->vae) &&
      !infer_vae(dir, layout->own ? &vae : NULL, layout->image, error))
    return FALSE;
  if (!has_text(layout)) {
    expect_text(dir);
    return TRUE;
  }
  return read_t5(dir, layout->t5_config, error) && read_clip(dir, layout->clip_config, error);
}

static gboolean
check_image(const OsrModelDir *dir, const char *file, GError **error)
{
  if (osr_mmdit_config_is_distilled(&dir->mmdit) && dir->vae.type == OSR_VAE_FLUX)
    return TRUE;
  g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
              "%s: a model of pictures is one like FLUX.1-dev: with guidance as an input "
              "(guidance_in), without references (cond_in), with an autoencoder_2d",
              file);
  return FALSE;
}

/* Both */

gboolean
osr_model_dir_has_text(const OsrModelDir *dir)
{
  return dir->t5.num_layers > 0;
}

char *
osr_model_dir_default_path(void)
{
  const char *path = g_getenv("OPENSORA_MODEL");

  return g_strdup(path != NULL && *path != '\0' ? path : OSR_TINY_MODEL_DIR);
}

/* What the folder says, before parts from somewhere else take their places. @image: its model
 * of pictures is asked for. */
static gboolean
read_folder(OsrModelDir *dir, gboolean image, const OsrModelParts *parts, Layout *layout,
            GError **error)
{
  g_autofree char *config_path = g_build_filename(dir->path, "config.json", NULL), *found = NULL;
  g_autoptr(JsonObject) config = NULL;
  gboolean own;

  if (!g_file_test(dir->path, G_FILE_TEST_IS_DIR)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "Model folder %s: %s", dir->path,
                is_file(dir->path) ? "a file; the folder of a whole model is needed"
                                   : "there is no such folder");
    return FALSE;
  }
  if (is_file(config_path)) {
    config = osr_config_read_file(config_path, error);
    if (config == NULL)
      return FALSE;
  }
  /* A config.json of somebody else's may lie beside a download. */
  own = config != NULL && json_object_has_member(config, "family");
  if (own && image)
    return read_own_image(dir, config_path, config, layout, error);
  if (!own && !image && is_hub_folder(dir)) {
    read_hub(dir, layout);
    return TRUE;
  }
  if (!own && (image || is_image_folder(dir)))
    return read_hub_image(dir, parts, layout, error);
  if (config != NULL && !osr_config_is_foreign(config))
    return read_own(dir, config_path, config, layout, error);
  found = osr_describe_folder(dir->path);
  g_set_error(
      error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
      "Model folder %s: missing config.json%s (or, for a download of Open-Sora 2.0, " HUB_MMDIT
      ".safetensors); %s",
      dir->path, config ? " with a \"family\"" : "", found);
  return FALSE;
}

static gboolean
fill(OsrModelDir *dir, gboolean folder, gboolean image, const OsrModelParts *parts, GError **error)
{
  g_auto(Layout) layout = { .config = g_strdup(dir->path) };

  if (folder && !read_folder(dir, image, parts, &layout, error))
    return FALSE;
  if (!place_parts(dir, parts, &layout, error) || !check_files(dir, &layout, error) ||
      !read_configs(dir, parts, &layout, error))
    return FALSE;
  choose_preview(dir, parts);
  if (layout.image)
    return check_image(dir, layout.config, error) && check_parts(dir, layout.config, error);
  if (folder && !layout.own)
    find_flux(dir);
  return check_parts(dir, layout.config, error);
}

OsrModelDir *
osr_model_dir_open_with(const char *path, const OsrModelParts *parts, GError **error)
{
  static const OsrModelParts none = { NULL };
  g_autofree char *default_path = path ? NULL : osr_model_dir_default_path();
  const char *place = path ? path : default_path;
  const gboolean image = g_str_has_prefix(place, OSR_MODEL_DIR_IMAGE);
  g_autoptr(OsrModelDir) dir = g_new0(OsrModelDir, 1);
  gboolean folder;

  if (!parts)
    parts = &none;
  folder = path || !(parts->mmdit && parts->vae && parts->t5 && parts->clip);
  if (!folder)
    place = parts->mmdit;
  else if (image)
    place += strlen(OSR_MODEL_DIR_IMAGE);
  dir->path = g_canonicalize_filename(place, NULL);
  dir->family = g_strdup(FAMILY);
  dir->name = g_path_get_basename(dir->path);
  dir->t5_max_length = 512;
  dir->clip_max_length = 77;
  dir->sampling = (OsrSamplingParams) OSR_SAMPLING_PARAMS_INIT;
  dir->fps = 24;
  dir->motion_score = 4;
  return fill(dir, folder, image, parts, error) ? g_steal_pointer(&dir) : NULL;
}

OsrModelDir *
osr_model_dir_open(const char *path, GError **error)
{
  return osr_model_dir_open_with(path, NULL, error);
}

void
osr_model_dir_free(OsrModelDir *dir)
{
  if (dir == NULL)
    return;
  g_free(dir->path);
  g_free(dir->family);
  g_free(dir->name);
  g_free(dir->mmdit_path);
  g_free(dir->vae_path);
  g_free(dir->t5_weights);
  g_free(dir->t5_vocab);
  g_free(dir->clip_weights);
  g_free(dir->clip_vocab);
  g_free(dir->clip_merges);
  g_free(dir->flux_path);
  g_free(dir->flux_ae_path);
  g_free(dir->flux_problem);
  g_free(dir);
}
