/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tool.h"

#include <json-glib/json-glib.h>
#include <math.h>

#define MAX_NAMED 5

static char *
list_dtypes(const OsrPartInfo *info)
{
  GString *text = g_string_new(NULL);

  for (guint i = 0; i < OSR_N_DTYPES; i++)
    if (info->by_dtype[i] > 0)
      g_string_append_printf(text, "%s%s", text->len ? "+" : "", osr_dtype_name(i));
  return g_string_free(text, FALSE);
}

static void
print_names(const char *title, const GPtrArray *names)
{
  if (names->len == 0)
    return;
  printf("          %u %s: ", names->len, title);
  for (guint i = 0; i < MIN(names->len, MAX_NAMED); i++)
    printf("%s%s", i ? ", " : "", (const char *) g_ptr_array_index(names, i));
  printf(names->len > MAX_NAMED ? ", ...\n" : "\n");
}

static void
print_part(const OsrPartInfo *info)
{
  g_autofree char *size = tool_format_bytes(info->n_bytes), *dtypes = list_dtypes(info);

  printf("%-9s %14" G_GUINT64_FORMAT " %12s  %-9s %s", osr_part_name(info->part),
         info->n_parameters, size, dtypes, info->path);
  if (info->files->len > 1)
    printf(" (%s, %u files)\n", info->format, info->files->len);
  else
    printf(" (%s)\n", info->format);
  print_names("tensors are missing", info->missing);
  print_names("tensors do not fit", info->misfits);
  print_names("tensors are not used", info->unused);
}

/* Of all parts that the folder has. */
static GPtrArray *
inspect_parts(const OsrModelDir *dir, GError **error)
{
  g_autoptr(GPtrArray) infos = g_ptr_array_new_with_free_func((GDestroyNotify) osr_part_info_free);

  for (guint part = 0; part < OSR_N_PARTS; part++) {
    OsrPartInfo *info;

    if (!osr_model_dir_get_weights(dir, part))
      continue;
    info = osr_model_dir_inspect(dir, part, NULL, error);
    if (!info)
      return NULL;
    g_ptr_array_add(infos, info);
  }
  return g_steal_pointer(&infos);
}

static void
print_mmdit(const char *name, const OsrMmditConfig *c)
{
  printf("%-9s width %u, %u heads (rotary %u + %u + %u, %s), %u double and %u single blocks, "
         "MLP x %g\n",
         name, c->hidden_size, c->num_heads, c->axes_dim[0], c->axes_dim[1], c->axes_dim[2],
         c->use_liger_rope ? "halves" : "interleaved", c->depth, c->depth_single_blocks,
         c->mlp_ratio);
  printf("          tokens of %u (patches of %u x %u), text of %u, pooled text of %u%s%s\n",
         c->in_channels, c->patch_size, c->patch_size, c->context_in_dim, c->vec_in_dim,
         c->cond_embed ? ", takes references" : "", c->guidance_embed ? ", takes guidance" : "");
}

static void
print_vae(const char *name, const OsrVaeConfig *c)
{
  printf("%-9s %u latent channels, compression %u in time and %u in space, channels", name,
         c->latent_channels, c->time_compression_ratio, c->spatial_compression_ratio);
  for (guint i = 0; i < c->n_blocks; i++)
    printf("%s %u", i ? "," : "", c->block_out_channels[i]);
  printf("\n          %u layers a block, %u groups, %s, tiles of %u pixels and %u frames, "
         "z = %g (x - %g)\n",
         c->layers_per_block, c->norm_num_groups,
         c->mid_block_add_attention ? "attention in the middle" : "no attention", c->sample_size,
         c->sample_tsize, c->scale_factor, c->shift_factor);
}

static void
print_text(const OsrModelDir *dir)
{
  const OsrT5Config *t5 = &dir->t5;
  const OsrClipConfig *clip = &dir->clip;

  printf("t5        width %u, %u heads of %u, %u layers, feed-forward %u, %u words, %u tokens\n",
         t5->d_model, t5->num_heads, t5->d_kv, t5->num_layers, t5->d_ff, t5->vocab_size,
         dir->t5_max_length);
  printf("clip      width %u, %u heads, %u layers, feed-forward %u, %u words, %u tokens\n",
         clip->hidden_size, clip->num_attention_heads, clip->num_hidden_layers,
         clip->intermediate_size, clip->vocab_size, dir->clip_max_length);
}

static void
print_sampling(const OsrModelDir *dir)
{
  const OsrSamplingParams *s = &dir->sampling;

  printf("sampling  %u x %u, %u frames at %u a second, %u steps, guidance %g%s, image guidance "
         "%g%s, %s, seed %" G_GUINT64_FORMAT "\n",
         s->width, s->height, s->num_frames, dir->fps, s->num_steps, s->guidance,
         s->text_osci ? " (oscillating)" : "", s->guidance_img,
         s->image_osci ? " (oscillating)" : "", s->shift ? "time shift" : "no time shift", s->seed);
  if (dir->motion_score)
    printf("          the prompt gets motion score %u\n", dir->motion_score);
}

/* The sizes of the aspect ratios at the area of the model's default. */
static void
print_sizes(const OsrModelDir *dir)
{
  OsrSamplingParams params = dir->sampling;
  g_autofree char *resolution =
      g_strdup_printf("%.0fpx", floor(sqrt((double) params.width * params.height)));
  guint n = 0;

  for (const char *const *ratio = osr_aspect_ratios(); *ratio; ratio++) {
    if (!osr_aspect_size(resolution, *ratio, &params.width, &params.height, NULL) ||
        !osr_sampling_params_check(&params, &dir->mmdit, dir->vae.spatial_compression_ratio,
                                   dir->vae.time_compression_ratio, NULL))
      continue;
    if (n == 0)
      printf("sizes     of resolution %s: ", resolution);
    else
      printf(n % 5 == 0 ? ",\n          " : ", ");
    printf("%s %u x %u", *ratio, params.width, params.height);
    n++;
  }
  if (n > 0)
    putchar('\n');
}

static void
print_model(const OsrModelDir *dir, const GPtrArray *infos)
{
  printf("%s (%s) in %s\n\n", dir->name, dir->family, dir->path);
  printf("%-9s %14s %12s  %-9s %s\n", "part", "parameters", "size", "types", "file");
  for (guint i = 0; i < infos->len; i++)
    print_part(g_ptr_array_index(infos, i));
  if (dir->flux_problem)
    printf("          FLUX.1 is left out: %s\n", dir->flux_problem);
  putchar('\n');
  print_mmdit("mmdit", &dir->mmdit);
  print_vae("vae", &dir->vae);
  if (osr_model_dir_has_text(dir))
    print_text(dir);
  else
    puts("text      the encoders are not in this folder");
  if (dir->flux_path)
    print_mmdit("flux", &dir->flux);
  if (dir->flux_ae_path)
    print_vae("flux-ae", &dir->flux_ae);
  print_sampling(dir);
  print_sizes(dir);
}

/* JSON */

static void
add_uint(JsonBuilder *b, const char *name, guint64 value)
{
  json_builder_set_member_name(b, name);
  json_builder_add_int_value(b, (gint64) value);
}

static void
add_double(JsonBuilder *b, const char *name, double value)
{
  json_builder_set_member_name(b, name);
  json_builder_add_double_value(b, value);
}

static void
add_boolean(JsonBuilder *b, const char *name, gboolean value)
{
  json_builder_set_member_name(b, name);
  json_builder_add_boolean_value(b, value);
}

/* Paths need not be UTF-8, JSON does. */
static void
add_string(JsonBuilder *b, const char *name, const char *value)
{
  g_autofree char *valid = g_utf8_make_valid(value, -1);

  json_builder_set_member_name(b, name);
  json_builder_add_string_value(b, valid);
}

static void
add_strings(JsonBuilder *b, const char *name, const GPtrArray *strings)
{
  json_builder_set_member_name(b, name);
  json_builder_begin_array(b);
  for (guint i = 0; i < strings->len; i++) {
    g_autofree char *valid = g_utf8_make_valid(g_ptr_array_index(strings, i), -1);

    json_builder_add_string_value(b, valid);
  }
  json_builder_end_array(b);
}

static void
add_uints(JsonBuilder *b, const char *name, const guint *values, guint n)
{
  json_builder_set_member_name(b, name);
  json_builder_begin_array(b);
  for (guint i = 0; i < n; i++)
    json_builder_add_int_value(b, values[i]);
  json_builder_end_array(b);
}

/* The keys of docs/models.md. */
static void
add_mmdit(JsonBuilder *b, const OsrMmditConfig *c)
{
  add_uint(b, "in_channels", c->in_channels);
  add_uint(b, "vec_in_dim", c->vec_in_dim);
  add_uint(b, "context_in_dim", c->context_in_dim);
  add_uint(b, "hidden_size", c->hidden_size);
  add_uint(b, "num_heads", c->num_heads);
  add_uint(b, "depth", c->depth);
  add_uint(b, "depth_single_blocks", c->depth_single_blocks);
  add_uints(b, "axes_dim", c->axes_dim, G_N_ELEMENTS(c->axes_dim));
  add_double(b, "mlp_ratio", c->mlp_ratio);
  add_double(b, "theta", c->theta);
  add_boolean(b, "qkv_bias", c->qkv_bias);
  add_boolean(b, "guidance_embed", c->guidance_embed);
  add_boolean(b, "cond_embed", c->cond_embed);
  add_boolean(b, "fused_qkv", c->fused_qkv);
  add_boolean(b, "use_liger_rope", c->use_liger_rope);
  add_uint(b, "patch_size", c->patch_size);
}

static void
add_vae(JsonBuilder *b, const OsrVaeConfig *c)
{
  add_uint(b, "in_channels", c->in_channels);
  add_uint(b, "out_channels", c->out_channels);
  add_uint(b, "latent_channels", c->latent_channels);
  add_uints(b, "block_out_channels", c->block_out_channels, c->n_blocks);
  add_uint(b, "layers_per_block", c->layers_per_block);
  add_uint(b, "norm_num_groups", c->norm_num_groups);
  add_uint(b, "time_compression_ratio", c->time_compression_ratio);
  add_uint(b, "spatial_compression_ratio", c->spatial_compression_ratio);
  add_boolean(b, "mid_block_add_attention", c->mid_block_add_attention);
  add_double(b, "scale_factor", c->scale_factor);
  add_double(b, "shift_factor", c->shift_factor);
}

static void
add_t5(JsonBuilder *b, const OsrModelDir *dir)
{
  add_uint(b, "vocab_size", dir->t5.vocab_size);
  add_uint(b, "d_model", dir->t5.d_model);
  add_uint(b, "d_kv", dir->t5.d_kv);
  add_uint(b, "d_ff", dir->t5.d_ff);
  add_uint(b, "num_layers", dir->t5.num_layers);
  add_uint(b, "num_heads", dir->t5.num_heads);
  add_uint(b, "max_length", dir->t5_max_length);
}

static void
add_clip(JsonBuilder *b, const OsrModelDir *dir)
{
  add_uint(b, "vocab_size", dir->clip.vocab_size);
  add_uint(b, "hidden_size", dir->clip.hidden_size);
  add_uint(b, "intermediate_size", dir->clip.intermediate_size);
  add_uint(b, "num_hidden_layers", dir->clip.num_hidden_layers);
  add_uint(b, "num_attention_heads", dir->clip.num_attention_heads);
  add_uint(b, "max_position_embeddings", dir->clip.max_position_embeddings);
  add_uint(b, "max_length", dir->clip_max_length);
}

static void
add_config(JsonBuilder *b, const OsrModelDir *dir, OsrPart part)
{
  json_builder_set_member_name(b, "config");
  json_builder_begin_object(b);
  switch (part) {
  case OSR_PART_MMDIT:
    add_mmdit(b, &dir->mmdit);
    break;
  case OSR_PART_VAE:
    add_vae(b, &dir->vae);
    break;
  case OSR_PART_T5:
    add_t5(b, dir);
    break;
  case OSR_PART_CLIP:
    add_clip(b, dir);
    break;
  case OSR_PART_FLUX:
    add_mmdit(b, &dir->flux);
    break;
  case OSR_PART_FLUX_AE:
    add_vae(b, &dir->flux_ae);
    break;
  case OSR_N_PARTS:
    break;
  }
  json_builder_end_object(b);
}

static void
add_part(JsonBuilder *b, const OsrModelDir *dir, const OsrPartInfo *info)
{
  json_builder_set_member_name(b, osr_part_name(info->part));
  json_builder_begin_object(b);
  add_string(b, "path", info->path);
  add_string(b, "format", info->format);
  add_strings(b, "files", info->files);
  add_uint(b, "tensors", info->n_tensors);
  add_uint(b, "parameters", info->n_parameters);
  add_uint(b, "bytes", info->n_bytes);
  json_builder_set_member_name(b, "types");
  json_builder_begin_object(b);
  for (guint i = 0; i < OSR_N_DTYPES; i++)
    if (info->by_dtype[i] > 0)
      add_uint(b, osr_dtype_name(i), info->by_dtype[i]);
  json_builder_end_object(b);
  add_config(b, dir, info->part);
  add_strings(b, "missing", info->missing);
  add_strings(b, "misfits", info->misfits);
  add_strings(b, "unused", info->unused);
  json_builder_end_object(b);
}

static void
add_sampling(JsonBuilder *b, const OsrModelDir *dir)
{
  const OsrSamplingParams *s = &dir->sampling;

  json_builder_set_member_name(b, "sampling");
  json_builder_begin_object(b);
  add_uint(b, "width", s->width);
  add_uint(b, "height", s->height);
  add_uint(b, "num_frames", s->num_frames);
  add_uint(b, "num_steps", s->num_steps);
  add_double(b, "guidance", s->guidance);
  add_double(b, "guidance_img", s->guidance_img);
  add_uint(b, "fps", dir->fps);
  add_uint(b, "motion_score", dir->motion_score);
  json_builder_end_object(b);
}

static void
print_json(const OsrModelDir *dir, const GPtrArray *infos)
{
  g_autoptr(JsonBuilder) b = json_builder_new();
  g_autoptr(JsonNode) root = NULL;
  g_autofree char *text = NULL;

  json_builder_begin_object(b);
  add_string(b, "name", dir->name);
  add_string(b, "family", dir->family);
  add_string(b, "path", dir->path);
  json_builder_set_member_name(b, "parts");
  json_builder_begin_object(b);
  for (guint i = 0; i < infos->len; i++)
    add_part(b, dir, g_ptr_array_index(infos, i));
  json_builder_end_object(b);
  if (dir->flux_problem)
    add_string(b, "flux_problem", dir->flux_problem);
  add_sampling(b, dir);
  json_builder_end_object(b);
  root = json_builder_get_root(b);
  text = json_to_string(root, TRUE);
  puts(text);
}

gboolean
tool_info(int argc, char **argv, GCancellable *cancellable, GError **error)
{
  g_autofree char *mmdit = NULL, *vae = NULL, *t5 = NULL, *clip = NULL;
  g_autoptr(OsrModelDir) dir = NULL;
  g_autoptr(GPtrArray) infos = NULL;
  gboolean json = FALSE;
  char *path;
  const GOptionEntry entries[] = {
    { "json", 0, 0, G_OPTION_ARG_NONE, &json, "prints JSON, all names of tensors included", NULL },
    { "mmdit", 0, 0, G_OPTION_ARG_FILENAME, &mmdit, "denoiser from somewhere else", "PATH" },
    { "vae", 0, 0, G_OPTION_ARG_FILENAME, &vae, "autoencoder from somewhere else", "PATH" },
    { "t5", 0, 0, G_OPTION_ARG_FILENAME, &t5, "T5 from somewhere else", "PATH" },
    { "clip", 0, 0, G_OPTION_ARG_FILENAME, &clip, "CLIP from somewhere else", "PATH" },
    G_OPTION_ENTRY_NULL,
  };

  if (!tool_parse(argc, argv, "[DIR]",
                  "Shows a model folder: its parts, their sizes and dimensions, what their files "
                  "lack, the sampling defaults, and frame sizes by aspect ratio.",
                  NULL, entries, NULL, &path, error))
    return FALSE;
  dir = osr_model_dir_open_with(path, &(OsrModelParts){ mmdit, vae, t5, clip }, error);
  infos = dir ? inspect_parts(dir, error) : NULL;
  if (!infos)
    return FALSE;
  if (json)
    print_json(dir, infos);
  else
    print_model(dir, infos);
  /* Shown in full, and yet it would not load. */
  for (guint i = 0; i < infos->len; i++)
    if (!osr_part_info_check(g_ptr_array_index(infos, i), error))
      return FALSE;
  return TRUE;
}
