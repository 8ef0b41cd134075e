/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tool-plan.c: what a clip will take. The VAE's numbers come from a dry run of its code, the
 * others from the dimensions of the models.
 */
#include "tool.h"

#include <string.h>

#include "mmdit-private.h"
#include "vae-private.h"

typedef struct {
  double flops, weights, activations; /* bytes */
} Cost;

static gboolean
count_parameters(const OsrModelDir *dir, OsrPart part, const char *const *prefixes, double *n,
                 GError **error)
{
  g_autoptr(OsrCheckpoint) file = osr_model_dir_open_part(dir, part, error);

  if (!file)
    return FALSE;
  for (guint i = 0; i < osr_checkpoint_n_entries(file); i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(file, i);
    gboolean wanted = prefixes == NULL;

    for (guint j = 0; prefixes && prefixes[j]; j++)
      wanted |= g_str_has_prefix(entry->name, prefixes[j]);
    if (wanted)
      *n += (double) (entry->size / osr_dtype_size(entry->dtype));
  }
  return TRUE;
}

/* Matrix products and attention of @tokens through one layer with one gate or none. */
static double
transformer_flops(double tokens, double width, double inner, double ff, double n_ff)
{
  return 2 * tokens * (4 * width * inner + n_ff * width * ff) + 4 * tokens * tokens * inner;
}

double
tool_t5_flops(const OsrT5Config *c, double tokens)
{
  double inner = (double) c->num_heads * c->d_kv;

  return c->num_layers * transformer_flops(tokens, c->d_model, inner, c->d_ff, 3);
}

double
tool_clip_flops(const OsrClipConfig *c, double tokens)
{
  double width = c->hidden_size;

  return c->num_hidden_layers * transformer_flops(tokens, width, width, c->intermediate_size, 2);
}

double
tool_mmdit_flops(const OsrMmditConfig *c, double video, double text)
{
  double d = c->hidden_size, mlp = d * c->mlp_ratio, tokens = video + text;
  double block = 2 * tokens * (4 * d * d + 2 * d * mlp) + 4 * tokens * tokens * d;
  double ends = 2 * d * (video * 2 * c->in_channels + text * c->context_in_dim);
  double modulation = 2 * d * d * (12.0 * c->depth + 3.0 * c->depth_single_blocks);

  return (c->depth + c->depth_single_blocks) * block + ends + modulation;
}

static Cost
t5_cost(const OsrT5Config *c, double tokens, double item)
{
  double inner = (double) c->num_heads * c->d_kv;

  return (Cost){
    .flops = tool_t5_flops(c, tokens),
    .activations = item * tokens * (2.0 * c->d_model + 4 * inner + 3.0 * c->d_ff),
  };
}

static Cost
clip_cost(const OsrClipConfig *c, double tokens, double item)
{
  double width = c->hidden_size;

  return (Cost){
    .flops = tool_clip_flops(c, tokens),
    .activations = item * tokens * (6 * width + c->intermediate_size),
  };
}

/* One forward of one item; everything that the blocks work in is there at once. */
static Cost
mmdit_cost(const OsrMmditConfig *c, double video, double text, double item)
{
  double d = c->hidden_size, mlp = d * c->mlp_ratio, tokens = video + text;

  return (Cost){
    .flops = tool_mmdit_flops(c, video, text),
    .activations =
        item * (tokens * (6 * d + mlp) + video * (4.0 * c->in_channels) + text * c->context_in_dim),
  };
}

static guint
count_forwards(const OsrSamplingParams *params, guint latent_frames)
{
  g_autofree float *weights = g_new(float, 3 * (gsize) latent_frames);
  gboolean needed[3];
  guint n = 0;

  for (guint i = 0; i < params->num_steps; i++)
    n += osr_guidance_weights(params, OSR_CONDITION_T2V, i, latent_frames, weights, needed);
  return n;
}

static void
print_cost(const char *stage, const Cost *cost)
{
  g_autofree char *weights = tool_format_bytes((guint64) cost->weights);
  g_autofree char *activations = tool_format_bytes((guint64) cost->activations);
  g_autofree char *sum = tool_format_bytes((guint64) (cost->weights + cost->activations));

  printf("%-9s %12s %12s %12s %14.4g\n", stage, weights, activations, sum, cost->flops);
}

static gboolean
print_plan(const OsrModelDir *dir, const OsrSamplingParams *params, OsrVaeTiling tiling,
           OsrDType dtype, guint batch, GError **error)
{
  static const char *const decoder[] = { "decoder.", "post_quant_conv.", NULL };
  const OsrVaeConfig *vae = &dir->vae;
  const double item = (double) osr_dtype_size(dtype);
  const guint patch = dir->mmdit.patch_size;
  const guint t = (params->num_frames - 1) / vae->time_compression_ratio + 1;
  const guint h = params->height / vae->spatial_compression_ratio;
  const guint w = params->width / vae->spatial_compression_ratio;
  const double tokens = (double) t * (h / patch) * (w / patch);
  const guint forwards =
      osr_mmdit_config_is_distilled(&dir->mmdit) ? params->num_steps : count_forwards(params, t);
  const gboolean text = osr_model_dir_has_text(dir);
  Cost t5 = { 0 }, clip = { 0 };
  Cost mmdit = mmdit_cost(&dir->mmdit, tokens, dir->t5_max_length, item), decode = { 0 }, all;
  OsrVaeCost cost;

  if (text) {
    t5 = t5_cost(&dir->t5, dir->t5_max_length, item);
    clip = clip_cost(&dir->clip, dir->clip_max_length, item);
    if (!count_parameters(dir, OSR_PART_T5, NULL, &t5.weights, error) ||
        !count_parameters(dir, OSR_PART_CLIP, NULL, &clip.weights, error))
      return FALSE;
  }
  if (!count_parameters(dir, OSR_PART_MMDIT, NULL, &mmdit.weights, error) ||
      !count_parameters(dir, OSR_PART_VAE, decoder, &decode.weights, error) ||
      !osr_vae_cost(vae, TRUE, tiling, dtype, t, h, w, &cost, error))
    return FALSE;
  t5.weights *= item;
  clip.weights *= item;
  mmdit.weights *= item;
  decode.weights *= item;
  /* The prompt and the negative prompt. */
  t5.flops *= 2;
  clip.flops *= 2;
  mmdit.flops *= forwards;
  mmdit.activations *= batch;
  decode.flops = cost.flops;
  decode.activations = (double) cost.peak_bytes;
  all = (Cost){
    .flops = t5.flops + clip.flops + mmdit.flops + decode.flops,
    .weights = t5.weights + clip.weights + mmdit.weights + decode.weights,
    .activations =
        MAX(MAX(t5.activations, clip.activations), MAX(mmdit.activations, decode.activations)),
  };

  printf("%s: %u x %u, %u frames, %u steps, %u forwards of %.0f + %u tokens, %s\n\n", dir->name,
         params->width, params->height, params->num_frames, params->num_steps, forwards, tokens,
         dir->t5_max_length, osr_dtype_name(dtype));
  printf("%-9s %12s %12s %12s %14s\n", "stage", "weights", "activations", "sum", "FLOPs");
  if (text) {
    print_cost("t5", &t5);
    print_cost("clip", &clip);
  }
  print_cost("denoise", &mmdit);
  print_cost("decode", &decode);
  print_cost("all", &all);
  printf("\nAll numbers are estimates: FLOPs of matrix products, convolutions and attention;\n"
         "activations at a stage's peak, without the scratch memory of libraries; \"all\" keeps\n"
         "every weight loaded and takes the largest stage.\n");
  return TRUE;
}

gboolean
tool_plan(int argc, char **argv, GCancellable *cancellable, GError **error)
{
  ToolClip clip = TOOL_CLIP_INIT;
  g_autofree char *dtype_name = NULL;
  g_autofree char *tiling_name = NULL;
  int batch = 1;
  const GOptionEntry entries[] = {
    { "width", 0, 0, G_OPTION_ARG_INT, &clip.width, "pixels", "N" },
    { "height", 0, 0, G_OPTION_ARG_INT, &clip.height, "pixels", "N" },
    { "num-frames", 'n', 0, G_OPTION_ARG_INT, &clip.num_frames, "frames of the clip", "N" },
    { "steps", 's', 0, G_OPTION_ARG_INT, &clip.steps, "denoising steps", "N" },
    { "guidance", 'g', 0, G_OPTION_ARG_DOUBLE, &clip.guidance, "text guidance, 1 for none", "G" },
    { "tiling", 0, 0, G_OPTION_ARG_STRING, &tiling_name,
      "of the decoder: off (default), spatial, temporal or both", "HOW" },
    { "dtype", 0, 0, G_OPTION_ARG_STRING, &dtype_name, "F32 (default), BF16 or F16", "TYPE" },
    { "batch", 0, 0, G_OPTION_ARG_INT, &batch, "forwards at once: 1 (default, CPUs) to 3 (GPUs)",
      "N" },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr(OsrModelDir) dir = NULL;
  OsrSamplingParams params;
  OsrDType dtype = OSR_DTYPE_F32;
  OsrVaeTiling tiling;
  char *path;

  if (!tool_parse(argc, argv, "[DIR]",
                  "Estimates the memory and the FLOPs of a clip from text, stage by stage, "
                  "without loading weights.",
                  NULL, entries, NULL, &path, error) ||
      !tool_tiling_from_name(tiling_name, &tiling, error))
    return FALSE;
  if (batch < 1 || batch > 3) {
    tool_usage_error(error, "--batch is 1 to 3, not %d", batch);
    return FALSE;
  }
  if (dtype_name &&
      (!osr_dtype_from_name(dtype_name, &dtype) ||
       (dtype != OSR_DTYPE_F32 && dtype != OSR_DTYPE_BF16 && dtype != OSR_DTYPE_F16))) {
    tool_usage_error(error, "--dtype is F32, BF16 or F16, not '%s'", dtype_name);
    return FALSE;
  }
  dir = osr_model_dir_open(path, error);
  return dir && tool_clip_params(&clip, dir, &params, error) &&
         print_plan(dir, &params, tiling, dtype, (guint) batch, error);
}
