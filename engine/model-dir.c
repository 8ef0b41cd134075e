/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model-dir.h"

#include <string.h>

#include "error.h"
#include "mmdit-private.h"
#include "model-config.h"
#include "model-limits.h"
#include "vae-private.h"

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

/* The weights of a Hugging Face folder: one file or an index of several. */
static char *
find_weights(const char *folder)
{
  char *single = g_build_filename(folder, "model.safetensors", NULL);
  if (is_file(single))
    return single;

  g_autofree char *index = g_build_filename(folder, "model.safetensors.index.json", NULL);
  if (is_file(index)) {
    g_free(single);
    return g_steal_pointer(&index);
  }
  return single;
}

static void
set_t5_folder(OsrModelDir *dir, const char *folder)
{
  dir->t5_weights = find_weights(folder);
  dir->t5_vocab = g_build_filename(folder, "spiece.model", NULL);
}

static void
set_clip_folder(OsrModelDir *dir, const char *folder)
{
  dir->clip_weights = find_weights(folder);
  dir->clip_vocab = g_build_filename(folder, "vocab.json", NULL);
  dir->clip_merges = g_build_filename(folder, "merges.txt", NULL);
}

/* All that is missing goes into one message. */
static gboolean
check_files(const OsrModelDir *dir, const char *t5_config, const char *clip_config, GError **error)
{
  const char *paths[] = {
    dir->mmdit_path, dir->vae_path,     t5_config,       dir->t5_weights,  dir->t5_vocab,
    clip_config,     dir->clip_weights, dir->clip_vocab, dir->clip_merges,
  };
  g_autoptr(GString) missing = g_string_new(NULL);

  for (guint i = 0; i < G_N_ELEMENTS(paths); i++) {
    if (!is_file(paths[i]))
      g_string_append_printf(missing, "%s%s", missing->len > 0 ? ", " : "",
                             paths[i] + strlen(dir->path) + 1);
  }
  if (missing->len == 0)
    return TRUE;
  g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "Model folder %s: missing %s", dir->path,
              missing->str);
  return FALSE;
}

/* Text models: Hugging Face's config.json */

static gboolean
read_t5(OsrModelDir *dir, const char *path, GError **error)
{
  g_autoptr(JsonObject) object = osr_config_read_file(path, error);

  return object && osr_config_read_t5(&(OsrConfigSection){ path, "", object }, &dir->t5, error);
}

static gboolean
read_clip(OsrModelDir *dir, const char *path, GError **error)
{
  g_autoptr(JsonObject) object = osr_config_read_file(path, error);

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

static gboolean open_own_image(OsrModelDir *dir, const OsrConfigSection *root,
                               const OsrConfigSection *image, GError **error);

static gboolean
open_own(OsrModelDir *dir, const char *config_path, JsonObject *object, GError **error)
{
  static const char *const known[] = { "family", "name",     "mmdit", "vae", "t5",
                                       "clip",   "sampling", "image", NULL };
  const OsrConfigSection root = { config_path, "", object };

  const char *family = osr_config_read_string(&root, "family", NULL, error);
  if (family == NULL)
    return FALSE;
  if (g_str_equal(family, IMAGE_FAMILY))
    return open_own_image(dir, &root, &root, error);
  if (!g_str_equal(family, FAMILY)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "%s: family: \"%s\" is not known, \"" FAMILY "\" and \"" IMAGE_FAMILY "\" are",
                config_path, family);
    return FALSE;
  }
  const char *name = osr_config_read_string(&root, "name", dir->name, error);
  if (name == NULL || !read_mmdit(dir, &root, error) || !read_vae(dir, &root, error))
    return FALSE;
  g_autofree char *t5 = read_text_model(dir, &root, "t5", "t5.", t5_max_length_field, error);
  if (t5 == NULL)
    return FALSE;
  g_autofree char *clip =
      read_text_model(dir, &root, "clip", "clip.", clip_max_length_field, error);
  if (clip == NULL || !read_sampling(dir, &root, error))
    return FALSE;
  osr_config_log_unknown(&root, NULL, 0, known);

  g_autofree char *new_name = g_strdup(name);
  g_free(dir->name);
  dir->name = g_steal_pointer(&new_name);
  set_t5_folder(dir, t5);
  set_clip_folder(dir, clip);
  g_autofree char *t5_config = g_build_filename(t5, "config.json", NULL);
  g_autofree char *clip_config = g_build_filename(clip, "config.json", NULL);
  return check_files(dir, t5_config, clip_config, error) && read_t5(dir, t5_config, error) &&
         read_clip(dir, clip_config, error) && check_parts(dir, config_path, error);
}

/* The download of hpcai-tech/Open-Sora-v2 */

#define HUB_MMDIT "Open_Sora_v2.safetensors"
#define HUB_VAE "hunyuan_vae.safetensors"
#define HUB_T5 "google/t5-v1_1-xxl"
#define HUB_CLIP "openai/clip-vit-large-patch14"
#define HUB_FLUX "flux1-dev.safetensors"
#define HUB_FLUX_AE "flux1-dev-ae.safetensors"
/* The same file as its authors name it. */
#define FLUX_AE "ae.safetensors"

/* Dimensions of tensors. The first failure sticks, and later ones read as 1. */
typedef struct {
  OsrCheckpoint *checkpoint;
  GError *error;
} Shapes;

static guint
shape_dim(Shapes *shapes, guint axis, const char *name)
{
  if (shapes->error)
    return 1;
  const OsrCheckpointEntry *entry = osr_checkpoint_lookup(shapes->checkpoint, name);
  const char *path = osr_checkpoint_get_path(shapes->checkpoint);
  if (entry == NULL)
    g_set_error(&shapes->error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "%s: tensor %s is missing", path,
                name);
  else if (axis >= entry->n_dims || entry->dims[axis] < 1 || entry->dims[axis] > 1 << 20)
    g_set_error(&shapes->error, OSR_ERROR, OSR_ERROR_SHAPE, "%s: tensor %s has no usable size %u",
                path, name, axis);
  else
    return (guint) entry->dims[axis];
  return 1;
}

static gboolean
has_tensor(const Shapes *shapes, const char *name)
{
  return osr_checkpoint_lookup(shapes->checkpoint, name) != NULL;
}

/* How many tensors there are named @prefix, a number from 0 on, @suffix. */
static guint
count_tensors(const Shapes *shapes, const char *prefix, const char *suffix)
{
  for (guint n = 0;; n++) {
    g_autofree char *name = g_strdup_printf("%s%u%s", prefix, n, suffix);
    if (!has_tensor(shapes, name))
      return n;
  }
}

static gboolean
infer_mmdit(OsrMmditConfig *c, const char *path, GError **error)
{
  g_autoptr(OsrCheckpoint) checkpoint = osr_checkpoint_open(path, error);
  if (checkpoint == NULL)
    return FALSE;

  Shapes s = { checkpoint, NULL };
  GError *reason = NULL;
  const guint head_dim = shape_dim(&s, 0, "double_blocks.0.img_attn.norm.query_norm.scale");
  const guint mlp = shape_dim(&s, 0, "double_blocks.0.img_mlp.0.weight");
  *c = (OsrMmditConfig){
    .in_channels = shape_dim(&s, 1, "img_in.weight"),
    .vec_in_dim = shape_dim(&s, 1, "vector_in.in_layer.weight"),
    .context_in_dim = shape_dim(&s, 1, "txt_in.weight"),
    .hidden_size = shape_dim(&s, 0, "img_in.weight"),
    .depth = count_tensors(&s, "double_blocks.", ".img_attn.proj.weight"),
    .depth_single_blocks = count_tensors(&s, "single_blocks.", ".linear2.weight"),
    .theta = 10000,
    .axes_dim = { 16, 56, 56 },
    .qkv_bias = has_tensor(&s, "double_blocks.0.img_attn.qkv.bias") ||
                has_tensor(&s, "double_blocks.0.img_attn.q_proj.bias"),
    .guidance_embed = has_tensor(&s, "guidance_in.in_layer.weight"),
    .cond_embed = has_tensor(&s, "cond_in.weight"),
    .fused_qkv = has_tensor(&s, "double_blocks.0.img_attn.qkv.weight"),
    .use_liger_rope = TRUE,
    .patch_size = 2,
  };
  c->num_heads = MAX(c->hidden_size / head_dim, 1);
  c->mlp_ratio = (double) mlp / c->hidden_size;
  if (s.error) {
    g_propagate_error(error, s.error);
    return FALSE;
  }
  return osr_mmdit_config_check(c, &reason) || osr_config_fail_check(path, reason, error);
}

static gboolean
infer_vae(OsrVaeConfig *c, const char *path, GError **error)
{
  g_autoptr(OsrCheckpoint) checkpoint = osr_checkpoint_open(path, error);
  if (checkpoint == NULL)
    return FALSE;

  Shapes s = { checkpoint, NULL };
  GError *reason = NULL;
  *c = osr_config_hunyuan_vae;
  c->in_channels = shape_dim(&s, 1, "encoder.conv_in.conv.weight");
  c->out_channels = shape_dim(&s, 0, "decoder.conv_out.conv.weight");
  c->latent_channels = shape_dim(&s, 1, "decoder.conv_in.conv.weight");
  c->layers_per_block = count_tensors(&s, "encoder.down_blocks.0.resnets.", ".conv1.conv.weight");
  c->mid_block_add_attention = has_tensor(&s, "encoder.mid_block.attentions.0.to_q.weight");
  c->n_blocks = MIN(count_tensors(&s, "encoder.down_blocks.", ".resnets.0.conv1.conv.weight"),
                    OSR_VAE_MAX_BLOCKS);
  for (guint i = 0; i < c->n_blocks; i++) {
    g_autofree char *name =
        g_strdup_printf("encoder.down_blocks.%u.resnets.0.conv1.conv.weight", i);
    c->block_out_channels[i] = shape_dim(&s, 0, name);
  }
  if (s.error) {
    g_propagate_error(error, s.error);
    return FALSE;
  }
  return osr_vae_config_check(c, &reason) || osr_config_fail_check(path, reason, error);
}

static gboolean
is_hub_folder(const char *path)
{
  static const char *const parts[] = { HUB_MMDIT, HUB_VAE, HUB_T5, HUB_CLIP };

  for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autofree char *part = g_build_filename(path, parts[i], NULL);
    if (g_file_test(part, G_FILE_TEST_EXISTS))
      return TRUE;
  }
  return FALSE;
}

/* Of nothing else, that is. */
static gboolean
is_image_folder(const char *path)
{
  g_autofree char *flux = g_build_filename(path, HUB_FLUX, NULL);

  return is_file(flux);
}

static gboolean
open_hub(OsrModelDir *dir, GError **error)
{
  g_autofree char *t5 = g_build_filename(dir->path, HUB_T5, NULL);
  g_autofree char *clip = g_build_filename(dir->path, HUB_CLIP, NULL);
  g_autofree char *t5_config = g_build_filename(t5, "config.json", NULL);
  g_autofree char *clip_config = g_build_filename(clip, "config.json", NULL);

  dir->mmdit_path = g_build_filename(dir->path, HUB_MMDIT, NULL);
  dir->vae_path = g_build_filename(dir->path, HUB_VAE, NULL);
  set_t5_folder(dir, t5);
  set_clip_folder(dir, clip);
  return check_files(dir, t5_config, clip_config, error) &&
         infer_mmdit(&dir->mmdit, dir->mmdit_path, error) &&
         infer_vae(&dir->vae, dir->vae_path, error) && read_t5(dir, t5_config, error) &&
         read_clip(dir, clip_config, error) && check_parts(dir, dir->path, error);
}

/* A model of pictures: FLUX.1-dev */

/* What upstream makes first frames with. */
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

static gboolean
infer_ae(OsrVaeConfig *c, const char *path, GError **error)
{
  g_autoptr(OsrCheckpoint) checkpoint = osr_checkpoint_open(path, error);
  if (checkpoint == NULL)
    return FALSE;

  Shapes s = { checkpoint, NULL };
  GError *reason = NULL;
  *c = osr_config_flux_ae;
  c->in_channels = shape_dim(&s, 1, "encoder.conv_in.weight");
  c->out_channels = shape_dim(&s, 0, "decoder.conv_out.weight");
  c->latent_channels = shape_dim(&s, 1, "decoder.conv_in.weight");
  c->layers_per_block = count_tensors(&s, "encoder.down.0.block.", ".conv1.weight");
  c->n_blocks =
      MIN(count_tensors(&s, "encoder.down.", ".block.0.conv1.weight"), OSR_VAE_MAX_BLOCKS);
  c->spatial_compression_ratio = 1u << (MAX(c->n_blocks, 1) - 1);
  for (guint i = 0; i < c->n_blocks; i++) {
    g_autofree char *name = g_strdup_printf("encoder.down.%u.block.0.conv1.weight", i);
    c->block_out_channels[i] = shape_dim(&s, 0, name);
  }
  if (s.error) {
    g_propagate_error(error, s.error);
    return FALSE;
  }
  return osr_vae_config_check(c, &reason) || osr_config_fail_check(path, reason, error);
}

/* The text encoders, where they are in the folder; else only what they have to give is known. */
static gboolean
read_image_text(OsrModelDir *dir, const char *t5, const char *clip, GError **error)
{
  g_autofree char *t5_config = g_build_filename(t5, "config.json", NULL);
  g_autofree char *clip_config = g_build_filename(clip, "config.json", NULL);

  set_t5_folder(dir, t5);
  set_clip_folder(dir, clip);
  if (is_file(t5_config) || is_file(clip_config))
    return check_files(dir, t5_config, clip_config, error) && read_t5(dir, t5_config, error) &&
           read_clip(dir, clip_config, error);
  if (!is_file(dir->mmdit_path) || !is_file(dir->vae_path)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "Model folder %s: missing %s", dir->path,
                (is_file(dir->mmdit_path) ? dir->vae_path : dir->mmdit_path) + strlen(dir->path) +
                    1);
    return FALSE;
  }
  dir->t5.d_model = dir->mmdit.context_in_dim;
  dir->clip.hidden_size = dir->mmdit.vec_in_dim;
  dir->clip.max_position_embeddings = dir->clip_max_length;
  return TRUE;
}

static gboolean
check_image(const OsrModelDir *dir, const char *file, GError **error)
{
  if (!osr_mmdit_config_is_distilled(&dir->mmdit) || dir->vae.type != OSR_VAE_FLUX) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "%s: a model of pictures is one like FLUX.1-dev: with guidance as an input "
                "(guidance_in), without references (cond_in), with an autoencoder_2d",
                file);
    return FALSE;
  }
  return check_parts(dir, file, error);
}

static void
set_image_defaults(OsrModelDir *dir)
{
  g_free(dir->family);
  dir->family = g_strdup(IMAGE_FAMILY);
  dir->sampling = image_sampling;
}

/* The text encoders are in @root, the rest in @image: the section "image" or @root itself. */
static gboolean
open_own_image(OsrModelDir *dir, const OsrConfigSection *root, const OsrConfigSection *image,
               GError **error)
{
  const char *name = osr_config_read_string(root, "name", dir->name, error);
  g_autofree char *t5 = NULL, *clip = NULL;

  if (name == NULL)
    return FALSE;
  char *new_name = g_strdup(name);
  g_free(dir->name);
  dir->name = new_name;
  set_image_defaults(dir);
  if (!read_mmdit(dir, image, error) || !read_vae(dir, image, error) ||
      !read_sampling(dir, image, error))
    return FALSE;
  if (json_object_has_member(root->object, "t5")) {
    t5 = read_text_model(dir, root, "t5", "t5.", t5_max_length_field, error);
    if (t5 == NULL)
      return FALSE;
  }
  if (json_object_has_member(root->object, "clip")) {
    clip = read_text_model(dir, root, "clip", "clip.", clip_max_length_field, error);
    if (clip == NULL)
      return FALSE;
  }
  if (t5 == NULL)
    t5 = g_build_filename(dir->path, "t5", NULL);
  if (clip == NULL)
    clip = g_build_filename(dir->path, "clip", NULL);
  return read_image_text(dir, t5, clip, error) && check_image(dir, image->file, error);
}

static gboolean
open_hub_image(OsrModelDir *dir, GError **error)
{
  g_autofree char *t5 = g_build_filename(dir->path, HUB_T5, NULL);
  g_autofree char *clip = g_build_filename(dir->path, HUB_CLIP, NULL);

  set_image_defaults(dir);
  dir->mmdit_path = g_build_filename(dir->path, HUB_FLUX, NULL);
  dir->vae_path = g_build_filename(dir->path, HUB_FLUX_AE, NULL);
  if (!is_file(dir->vae_path)) {
    g_autofree char *other = g_build_filename(dir->path, FLUX_AE, NULL);
    if (is_file(other)) {
      g_free(dir->vae_path);
      dir->vae_path = g_steal_pointer(&other);
    }
  }
  if (!is_file(dir->mmdit_path) || !is_file(dir->vae_path)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "Model folder %s: no model of pictures in it: missing %s", dir->path,
                is_file(dir->mmdit_path) ? HUB_FLUX_AE : HUB_FLUX);
    return FALSE;
  }
  if (!infer_mmdit(&dir->mmdit, dir->mmdit_path, error) ||
      !infer_ae(&dir->vae, dir->vae_path, error))
    return FALSE;
  dir->mmdit.use_liger_rope = FALSE;
  return read_image_text(dir, t5, clip, error) && check_image(dir, dir->path, error);
}

/* "image:" was before the folder's name. */
static gboolean
fill_image(OsrModelDir *dir, GError **error)
{
  g_autofree char *config_path = g_build_filename(dir->path, "config.json", NULL);
  g_autoptr(JsonObject) config = NULL;

  if (is_file(config_path)) {
    config = osr_config_read_file(config_path, error);
    if (config == NULL)
      return FALSE;
  }
  if (config == NULL || !json_object_has_member(config, "family"))
    return open_hub_image(dir, error);

  const OsrConfigSection root = { config_path, "", config };
  const char *family = osr_config_read_string(&root, "family", NULL, error);
  if (family == NULL)
    return FALSE;
  if (g_str_equal(family, IMAGE_FAMILY))
    return open_own(dir, config_path, config, error);

  OsrConfigSection image;
  g_autofree char *file = g_strconcat(config_path, ": image", NULL);
  if (!json_object_has_member(config, "image")) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "Model folder %s: no model of pictures in it: config.json has no section \"image\"",
                dir->path);
    return FALSE;
  }
  if (!osr_config_open(&root, "image", "", &image, error))
    return FALSE;
  image.file = file;
  return open_own_image(dir, &root, &image, error);
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

static gboolean
fill(OsrModelDir *dir, GError **error)
{
  g_autofree char *config_path = g_build_filename(dir->path, "config.json", NULL);

  if (!g_file_test(dir->path, G_FILE_TEST_IS_DIR)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "Model folder %s: there is no such folder",
                dir->path);
    return FALSE;
  }

  const gboolean has_config = is_file(config_path);
  g_autoptr(JsonObject) config = has_config ? osr_config_read_file(config_path, error) : NULL;
  if (has_config && config == NULL)
    return FALSE;
  /* A config.json of somebody else's may lie beside a download. */
  const gboolean own = config != NULL && json_object_has_member(config, "family");
  if (!own && is_hub_folder(dir->path))
    return open_hub(dir, error);
  if (!own && is_image_folder(dir->path))
    return open_hub_image(dir, error);
  if (config != NULL)
    return open_own(dir, config_path, config, error);
  g_set_error(
      error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
      "Model folder %s: missing config.json (or, for a download of Open-Sora 2.0, " HUB_MMDIT ")",
      dir->path);
  return FALSE;
}

OsrModelDir *
osr_model_dir_open(const char *path, GError **error)
{
  g_autofree char *default_path = path ? NULL : osr_model_dir_default_path();
  const char *folder = path ? path : default_path;
  const gboolean image = g_str_has_prefix(folder, OSR_MODEL_DIR_IMAGE);
  g_autoptr(OsrModelDir) dir = g_new0(OsrModelDir, 1);

  if (image)
    folder += strlen(OSR_MODEL_DIR_IMAGE);
  dir->path = g_canonicalize_filename(folder, NULL);
  dir->family = g_strdup(FAMILY);
  dir->name = g_path_get_basename(dir->path);
  dir->t5_max_length = 512;
  dir->clip_max_length = 77;
  dir->sampling = (OsrSamplingParams) OSR_SAMPLING_PARAMS_INIT;
  dir->fps = 24;
  dir->motion_score = 4;
  return (image ? fill_image(dir, error) : fill(dir, error)) ? g_steal_pointer(&dir) : NULL;
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
  g_free(dir);
}
