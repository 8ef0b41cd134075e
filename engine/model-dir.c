/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model-dir.h"

#include <string.h>

#include "config-section.h"

#define FAMILY "open-sora-v2"

static const Field mmdit_fields[] = {
  { UINT(OsrMmditConfig, in_channels), 1, 65536, TRUE },
  { UINT(OsrMmditConfig, vec_in_dim), 1, 65536, TRUE },
  { UINT(OsrMmditConfig, context_in_dim), 1, 65536, TRUE },
  { UINT(OsrMmditConfig, hidden_size), 1, 65536, TRUE },
  { UINT(OsrMmditConfig, num_heads), 1, 1024, TRUE },
  { UINT(OsrMmditConfig, depth), 0, 1024, TRUE },
  { UINT(OsrMmditConfig, depth_single_blocks), 0, 1024, TRUE },
  { DOUBLE(OsrMmditConfig, mlp_ratio), 0.01, 100, FALSE },
  { DOUBLE(OsrMmditConfig, theta), 1, 1e9, FALSE },
  { BOOLEAN(OsrMmditConfig, qkv_bias), 0, 1, FALSE },
  { BOOLEAN(OsrMmditConfig, guidance_embed), 0, 1, FALSE },
  { BOOLEAN(OsrMmditConfig, cond_embed), 0, 1, FALSE },
  { BOOLEAN(OsrMmditConfig, fused_qkv), 0, 1, FALSE },
  { BOOLEAN(OsrMmditConfig, use_liger_rope), 0, 1, FALSE },
  { UINT(OsrMmditConfig, patch_size), 1, 16, FALSE },
};

static const Field vae_fields[] = {
  { UINT(OsrVaeConfig, in_channels), 1, 64, FALSE },
  { UINT(OsrVaeConfig, out_channels), 1, 64, FALSE },
  { UINT(OsrVaeConfig, latent_channels), 1, 4096, FALSE },
  { UINT(OsrVaeConfig, layers_per_block), 1, 64, FALSE },
  { UINT(OsrVaeConfig, norm_num_groups), 1, 4096, FALSE },
  { UINT(OsrVaeConfig, time_compression_ratio), 1, 64, FALSE },
  { UINT(OsrVaeConfig, spatial_compression_ratio), 1, 64, FALSE },
  { BOOLEAN(OsrVaeConfig, mid_block_add_attention), 0, 1, FALSE },
  { DOUBLE(OsrVaeConfig, scale_factor), 1e-6, 1e6, FALSE },
  { DOUBLE(OsrVaeConfig, shift_factor), -1e6, 1e6, FALSE },
  { UINT(OsrVaeConfig, sample_size), 1, 65536, FALSE },
  { UINT(OsrVaeConfig, sample_tsize), 1, 65536, FALSE },
  { DOUBLE(OsrVaeConfig, tile_overlap_factor), 0, 0.99, FALSE },
};

static const Field t5_fields[] = {
  { UINT(OsrT5Config, vocab_size), 1, 1 << 24, TRUE },
  { UINT(OsrT5Config, d_model), 1, 65536, TRUE },
  { UINT(OsrT5Config, d_kv), 1, 65536, TRUE },
  { UINT(OsrT5Config, d_ff), 1, 1 << 20, TRUE },
  { UINT(OsrT5Config, num_layers), 1, 1024, TRUE },
  { UINT(OsrT5Config, num_heads), 1, 1024, TRUE },
  { UINT(OsrT5Config, relative_attention_num_buckets), 4, 65536, FALSE },
  { UINT(OsrT5Config, relative_attention_max_distance), 2, 1 << 24, FALSE },
  { DOUBLE(OsrT5Config, layer_norm_epsilon), 0, 1, FALSE },
};

static const Field clip_fields[] = {
  { UINT(OsrClipConfig, vocab_size), 1, 1 << 24, FALSE },
  { UINT(OsrClipConfig, hidden_size), 1, 65536, FALSE },
  { UINT(OsrClipConfig, intermediate_size), 1, 1 << 20, FALSE },
  { UINT(OsrClipConfig, num_hidden_layers), 1, 1024, FALSE },
  { UINT(OsrClipConfig, num_attention_heads), 1, 1024, FALSE },
  { UINT(OsrClipConfig, max_position_embeddings), 2, 65536, FALSE },
  { DOUBLE(OsrClipConfig, layer_norm_eps), 0, 1, FALSE },
  { UINT(OsrClipConfig, eos_token_id), 0, 1 << 24, FALSE },
};

static const Field sampling_fields[] = {
  { UINT(OsrSamplingParams, width), 16, 8192, FALSE },
  { UINT(OsrSamplingParams, height), 16, 8192, FALSE },
  { UINT(OsrSamplingParams, num_frames), 1, 65536, FALSE },
  { UINT(OsrSamplingParams, num_steps), 1, 10000, FALSE },
  { DOUBLE(OsrSamplingParams, guidance), 0, 1000, FALSE },
  { DOUBLE(OsrSamplingParams, guidance_img), 0, 1000, FALSE },
  { BOOLEAN(OsrSamplingParams, text_osci), 0, 1, FALSE },
  { BOOLEAN(OsrSamplingParams, image_osci), 0, 1, FALSE },
  { BOOLEAN(OsrSamplingParams, scale_temporal_osci), 0, 1, FALSE },
  { BOOLEAN(OsrSamplingParams, shift), 0, 1, FALSE },
  { DOUBLE(OsrSamplingParams, flow_shift), 0, 1000, FALSE },
};

/* Keys of "sampling" that go into the prompt. */
static const Field prompt_fields[] = {
  { UINT(OsrModelDir, fps), 1, 1000, FALSE },
  { UINT(OsrModelDir, motion_score), 0, 1000, FALSE },
};

static const Field t5_max_length_field[] = {
  { "max_length", FIELD_UINT, G_STRUCT_OFFSET(OsrModelDir, t5_max_length), 2, 65536, FALSE },
};

static const Field clip_max_length_field[] = {
  { "max_length", FIELD_UINT, G_STRUCT_OFFSET(OsrModelDir, clip_max_length), 2, 65536, FALSE },
};

/* Files */

static gboolean
is_file(const char *path)
{
  return g_file_test(path, G_FILE_TEST_IS_REGULAR);
}

/* A path of config.json: it must not lead out of the model's folder. */
static char *
resolve_path(const OsrModelDir *dir, const Section *section, const char *key, const char *fallback,
             GError **error)
{
  const char *path = read_string(section, key, fallback, error);

  if (path == NULL)
    return NULL;
  g_auto(GStrv) parts = g_strsplit(path, "/", -1);
  if (*path == '\0' || g_path_is_absolute(path) ||
      g_strv_contains((const char *const *) parts, "..")) {
    section_fail(section, key, error, "\"%s\" is not a path inside the model's folder", path);
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
  static const char *const others[] = { "feed_forward_proj", "model_type", NULL };
  g_autoptr(JsonObject) object = read_object(path, error);

  if (object == NULL)
    return FALSE;
  const Section section = { path, "", object };
  dir->t5 = (OsrT5Config){ .relative_attention_num_buckets = 32,
                           .relative_attention_max_distance = 128,
                           .layer_norm_epsilon = 1e-6 };
  const char *type = read_string(&section, "model_type", "t5", error);
  const char *mlp = type ? read_string(&section, "feed_forward_proj", "gated-gelu", error) : NULL;
  if (mlp == NULL || !read_fields(&section, t5_fields, G_N_ELEMENTS(t5_fields), &dir->t5, error))
    return FALSE;
  log_unknown(&section, t5_fields, G_N_ELEMENTS(t5_fields), others);

  if (!g_str_equal(type, "t5"))
    return section_fail(&section, "model_type", error, "\"%s\" is not \"t5\"", type);
  if (!g_str_equal(mlp, "gated-gelu"))
    return section_fail(&section, "feed_forward_proj", error,
                        "\"%s\" is not the \"gated-gelu\" of T5 v1.1", mlp);
  return TRUE;
}

static gboolean
read_clip_act(const Section *section, OsrAct *act, GError **error)
{
  const char *name = read_string(section, "hidden_act", "quick_gelu", error);

  if (name == NULL)
    return FALSE;
  if (g_str_equal(name, "quick_gelu"))
    *act = OSR_ACT_QUICK_GELU;
  else if (g_str_equal(name, "gelu"))
    *act = OSR_ACT_GELU_ERF;
  else
    return section_fail(section, "hidden_act", error, "\"%s\" is neither quick_gelu nor gelu",
                        name);
  return TRUE;
}

static gboolean
read_clip(OsrModelDir *dir, const char *path, GError **error)
{
  static const char *const others[] = { "hidden_act", "model_type", NULL };
  g_autoptr(JsonObject) object = read_object(path, error);

  if (object == NULL)
    return FALSE;
  Section section = { path, "", object };
  if (json_object_has_member(object, "text_config") &&
      !open_section(&section, "text_config", "text_config.", &section, error))
    return FALSE;

  OsrClipConfig *clip = &dir->clip;
  *clip = (OsrClipConfig){ .vocab_size = 49408,
                           .hidden_size = 512,
                           .intermediate_size = 2048,
                           .num_hidden_layers = 12,
                           .num_attention_heads = 8,
                           .max_position_embeddings = 77,
                           .layer_norm_eps = 1e-5,
                           .eos_token_id = 49407 };
  if (!read_fields(&section, clip_fields, G_N_ELEMENTS(clip_fields), clip, error) ||
      !read_clip_act(&section, &clip->hidden_act, error))
    return FALSE;
  log_unknown(&section, clip_fields, G_N_ELEMENTS(clip_fields), others);

  if (clip->hidden_size % clip->num_attention_heads != 0)
    return section_fail(&section, "hidden_size", error, "%u is not a multiple of %u heads",
                        clip->hidden_size, clip->num_attention_heads);
  return TRUE;
}

/* Our own layout */

static gboolean
read_mmdit(OsrModelDir *dir, const Section *root, GError **error)
{
  static const char *const others[] = { "weights", "axes_dim", NULL };
  OsrMmditConfig *mmdit = &dir->mmdit;
  Section section;
  guint n_axes;

  *mmdit = (OsrMmditConfig){
    .mlp_ratio = 4, .theta = 10000, .qkv_bias = TRUE, .fused_qkv = TRUE, .patch_size = 2
  };
  if (!open_section(root, "mmdit", "mmdit.", &section, error) ||
      !read_fields(&section, mmdit_fields, G_N_ELEMENTS(mmdit_fields), mmdit, error) ||
      !read_uints(&section, "axes_dim", 3, 3, mmdit->axes_dim, &n_axes, error))
    return FALSE;
  log_unknown(&section, mmdit_fields, G_N_ELEMENTS(mmdit_fields), others);
  dir->mmdit_path = resolve_path(dir, &section, "weights", "mmdit.safetensors", error);
  return dir->mmdit_path != NULL;
}

static const OsrVaeConfig hunyuan_vae = {
  .in_channels = 3,
  .out_channels = 3,
  .latent_channels = 16,
  .n_blocks = 4,
  .block_out_channels = { 128, 256, 512, 512 },
  .layers_per_block = 2,
  .norm_num_groups = 32,
  .time_compression_ratio = 4,
  .spatial_compression_ratio = 8,
  .mid_block_add_attention = TRUE,
  .scale_factor = 0.476986,
  .shift_factor = 0,
  .sample_size = 256,
  .sample_tsize = 64,
  .tile_overlap_factor = 0.25,
};

static gboolean
read_vae(OsrModelDir *dir, const Section *root, GError **error)
{
  static const char *const others[] = { "type", "weights", "block_out_channels", NULL };
  OsrVaeConfig *vae = &dir->vae;
  Section section;

  *vae = hunyuan_vae;
  if (!open_section(root, "vae", "vae.", &section, error))
    return FALSE;
  const char *type = read_string(&section, "type", "hunyuan_vae", error);
  if (type == NULL)
    return FALSE;
  if (!g_str_equal(type, "hunyuan_vae"))
    return section_fail(&section, "type", error, "\"%s\" is not \"hunyuan_vae\"", type);
  if (!read_fields(&section, vae_fields, G_N_ELEMENTS(vae_fields), vae, error))
    return FALSE;
  if (json_object_has_member(section.object, "block_out_channels") &&
      !read_uints(&section, "block_out_channels", 1, OSR_VAE_MAX_BLOCKS, vae->block_out_channels,
                  &vae->n_blocks, error))
    return FALSE;
  log_unknown(&section, vae_fields, G_N_ELEMENTS(vae_fields), others);
  dir->vae_path = resolve_path(dir, &section, "weights", "vae.safetensors", error);
  return dir->vae_path != NULL;
}

/* "t5" and "clip": where the folder is. (transfer full) */
static char *
read_text_model(OsrModelDir *dir, const Section *root, const char *key, const char *prefix,
                const Field *max_length, GError **error)
{
  static const char *const others[] = { "path", NULL };
  Section section;

  if (!open_section(root, key, prefix, &section, error) ||
      !read_fields(&section, max_length, 1, dir, error))
    return NULL;
  log_unknown(&section, max_length, 1, others);
  return resolve_path(dir, &section, "path", key, error);
}

static gboolean
read_sampling(OsrModelDir *dir, const Section *root, GError **error)
{
  static const char *const others[] = { "fps", "motion_score", NULL };
  Section section;

  if (!json_object_has_member(root->object, "sampling"))
    return TRUE;
  if (!open_section(root, "sampling", "sampling.", &section, error) ||
      !read_fields(&section, sampling_fields, G_N_ELEMENTS(sampling_fields), &dir->sampling,
                   error) ||
      !read_fields(&section, prompt_fields, G_N_ELEMENTS(prompt_fields), dir, error))
    return FALSE;
  log_unknown(&section, sampling_fields, G_N_ELEMENTS(sampling_fields), others);
  return TRUE;
}

/* What one part's numbers say about another's. */
static gboolean
check_mmdit(const OsrModelDir *dir, const Section *root, GError **error)
{
  const OsrMmditConfig *c = &dir->mmdit;
  const guint head_dim = c->hidden_size / c->num_heads;
  const guint axes = c->axes_dim[0] + c->axes_dim[1] + c->axes_dim[2];
  const guint latent = dir->vae.latent_channels * c->patch_size * c->patch_size;

  if (c->hidden_size % c->num_heads != 0)
    return section_fail(root, "mmdit.hidden_size", error, "%u is not a multiple of %u heads",
                        c->hidden_size, c->num_heads);
  for (guint i = 0; i < 3; i++) {
    if (c->axes_dim[i] % 2 != 0)
      return section_fail(root, "mmdit.axes_dim", error, "%u is odd", c->axes_dim[i]);
  }
  if (axes != head_dim)
    return section_fail(root, "mmdit.axes_dim", error,
                        "the sum is %u, hidden_size / num_heads is %u", axes, head_dim);
  if (c->in_channels != latent)
    return section_fail(root, "mmdit.in_channels", error,
                        "%u is not %u, the latent channels times patch_size squared",
                        c->in_channels, latent);
  if (c->vec_in_dim != dir->clip.hidden_size)
    return section_fail(root, "mmdit.vec_in_dim", error, "%u is not CLIP's hidden_size, %u",
                        c->vec_in_dim, dir->clip.hidden_size);
  if (c->context_in_dim != dir->t5.d_model)
    return section_fail(root, "mmdit.context_in_dim", error, "%u is not T5's d_model, %u",
                        c->context_in_dim, dir->t5.d_model);
  return TRUE;
}

/* Blocks halve space from the first on, time at the end; 8 in time goes along with space. */
static gboolean
check_vae(const OsrModelDir *dir, const Section *root, GError **error)
{
  const OsrVaeConfig *c = &dir->vae;
  const guint time = c->time_compression_ratio, space = c->spatial_compression_ratio;

  for (guint i = 0; i < c->n_blocks; i++) {
    if (c->block_out_channels[i] % c->norm_num_groups != 0)
      return section_fail(root, "vae.block_out_channels", error,
                          "%u is not a multiple of norm_num_groups, %u", c->block_out_channels[i],
                          c->norm_num_groups);
  }
  if ((space & (space - 1)) != 0 || space > 1u << c->n_blocks)
    return section_fail(root, "vae.spatial_compression_ratio", error,
                        "%u is not a power of two up to %u, what %u blocks can do", space,
                        1u << c->n_blocks, c->n_blocks);
  if (!(time == 4 && c->n_blocks >= 3) && !(time == 8 && space == 8))
    return section_fail(root, "vae.time_compression_ratio", error,
                        "%u is neither 4 with three or more blocks nor 8 with 8 in space", time);
  return TRUE;
}

static gboolean
check_parts(const OsrModelDir *dir, const char *file, GError **error)
{
  const Section root = { file, "", NULL };
  g_autoptr(GError) reason = NULL;

  if (!check_mmdit(dir, &root, error) || !check_vae(dir, &root, error))
    return FALSE;
  if (dir->clip_max_length > dir->clip.max_position_embeddings)
    return section_fail(&root, "clip.max_length", error, "%u is more than CLIP's %u positions",
                        dir->clip_max_length, dir->clip.max_position_embeddings);
  if (!osr_sampling_params_check(&dir->sampling, &dir->mmdit, dir->vae.spatial_compression_ratio,
                                 dir->vae.time_compression_ratio, &reason))
    return section_fail(&root, "sampling", error, "%s", reason->message);
  return TRUE;
}

static gboolean
open_own(OsrModelDir *dir, const char *config_path, JsonObject *object, GError **error)
{
  static const char *const known[] = { "family", "name", "mmdit",    "vae",
                                       "t5",     "clip", "sampling", NULL };
  const Section root = { config_path, "", object };

  const char *family = read_string(&root, "family", NULL, error);
  if (family == NULL)
    return FALSE;
  if (!g_str_equal(family, FAMILY)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "%s: family: \"%s\" is not known, \"" FAMILY "\" is", config_path, family);
    return FALSE;
  }
  const char *name = read_string(&root, "name", dir->name, error);
  if (name == NULL || !read_mmdit(dir, &root, error) || !read_vae(dir, &root, error))
    return FALSE;
  g_autofree char *t5 = read_text_model(dir, &root, "t5", "t5.", t5_max_length_field, error);
  if (t5 == NULL)
    return FALSE;
  g_autofree char *clip =
      read_text_model(dir, &root, "clip", "clip.", clip_max_length_field, error);
  if (clip == NULL || !read_sampling(dir, &root, error))
    return FALSE;
  log_unknown(&root, NULL, 0, known);

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
  return TRUE;
}

static gboolean
infer_vae(OsrVaeConfig *c, const char *path, GError **error)
{
  g_autoptr(OsrCheckpoint) checkpoint = osr_checkpoint_open(path, error);
  if (checkpoint == NULL)
    return FALSE;

  Shapes s = { checkpoint, NULL };
  *c = hunyuan_vae;
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
  return TRUE;
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

/* Both */

char *
osr_model_dir_default_path(void)
{
  const char *path = g_getenv("OPENSORA_MODEL");
  g_autofree char *installed = g_build_filename(OSR_TINY_MODEL_DIR, "config.json", NULL);

  if (path != NULL && *path != '\0')
    return g_strdup(path);
  return g_strdup(is_file(installed) ? OSR_TINY_MODEL_DIR : OSR_TINY_MODEL_SOURCE_DIR);
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
  g_autoptr(JsonObject) config = has_config ? read_object(config_path, error) : NULL;
  if (has_config && config == NULL)
    return FALSE;
  /* A config.json of somebody else's may lie beside a download. */
  const gboolean own = config != NULL && json_object_has_member(config, "family");
  if (!own && is_hub_folder(dir->path))
    return open_hub(dir, error);
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
  g_autoptr(OsrModelDir) dir = g_new0(OsrModelDir, 1);

  dir->path = g_canonicalize_filename(path ? path : default_path, NULL);
  dir->family = g_strdup(FAMILY);
  dir->name = g_path_get_basename(dir->path);
  dir->t5_max_length = 512;
  dir->clip_max_length = 77;
  dir->sampling = (OsrSamplingParams) OSR_SAMPLING_PARAMS_INIT;
  dir->fps = 24;
  dir->motion_score = 4;
  return fill(dir, error) ? g_steal_pointer(&dir) : NULL;
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
