/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tool.h"

#include <math.h>

static gboolean
print_part(const char *part, const char *path, GError **error)
{
  g_autoptr(OsrCheckpoint) file = osr_checkpoint_open(path, error);
  guint64 parameters = 0, bytes = 0, by_dtype[OSR_N_DTYPES] = { 0 };
  g_autoptr(GString) dtypes = g_string_new(NULL);
  g_autofree char *size = NULL;

  if (!file)
    return FALSE;
  for (guint i = 0; i < osr_checkpoint_n_entries(file); i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(file, i);
    guint64 n = entry->size / osr_dtype_size(entry->dtype);

    parameters += n;
    bytes += entry->size;
    by_dtype[entry->dtype] += n;
  }
  for (guint i = 0; i < OSR_N_DTYPES; i++)
    if (by_dtype[i] > 0)
      g_string_append_printf(dtypes, "%s%s", dtypes->len ? "+" : "", osr_dtype_name(i));
  size = tool_format_bytes(bytes);
  printf("%-9s %14" G_GUINT64_FORMAT " %12s  %-9s %s\n", part, parameters, size, dtypes->str, path);
  return TRUE;
}

static void
print_mmdit(const OsrMmditConfig *c)
{
  printf("mmdit     width %u, %u heads (rotary %u + %u + %u, %s), %u double and %u single blocks, "
         "MLP x %g\n",
         c->hidden_size, c->num_heads, c->axes_dim[0], c->axes_dim[1], c->axes_dim[2],
         c->use_liger_rope ? "halves" : "interleaved", c->depth, c->depth_single_blocks,
         c->mlp_ratio);
  printf("          tokens of %u (patches of %u x %u), text of %u, pooled text of %u%s%s\n",
         c->in_channels, c->patch_size, c->patch_size, c->context_in_dim, c->vec_in_dim,
         c->cond_embed ? ", takes references" : "", c->guidance_embed ? ", takes guidance" : "");
}

static void
print_vae(const OsrVaeConfig *c)
{
  printf("vae       %u latent channels, compression %u in time and %u in space, channels",
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

gboolean
tool_info(int argc, char **argv, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrModelDir) dir = NULL;
  char *path;

  if (!tool_parse(argc, argv, "[DIR]",
                  "Shows a model folder: its parts, their sizes and dimensions, the "
                  "sampling defaults, and frame sizes by aspect ratio.",
                  NULL, NULL, NULL, &path, error))
    return FALSE;
  dir = osr_model_dir_open(path, error);
  if (!dir)
    return FALSE;

  printf("%s (%s) in %s\n\n", dir->name, dir->family, dir->path);
  printf("%-9s %14s %12s  %-9s %s\n", "part", "parameters", "size", "types", "file");
  if (!print_part("mmdit", dir->mmdit_path, error) || !print_part("vae", dir->vae_path, error))
    return FALSE;
  if (osr_model_dir_has_text(dir) &&
      (!print_part("t5", dir->t5_weights, error) || !print_part("clip", dir->clip_weights, error)))
    return FALSE;
  putchar('\n');
  print_mmdit(&dir->mmdit);
  print_vae(&dir->vae);
  if (osr_model_dir_has_text(dir))
    print_text(dir);
  else
    puts("text      the encoders are not in this folder");
  print_sampling(dir);
  print_sizes(dir);
  return TRUE;
}
