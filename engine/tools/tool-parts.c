/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tool-parts.c: times one model alone, at the sizes of a published one and on random weights
 * that are drawn on the device. Nothing is read from files.
 */
#include "tool.h"

#include <stdlib.h>

#include "presets.h"
#include "vae-private.h"

typedef struct {
  char *preset, *model, *device, *dtype, *grid;
  int batch, tokens, repeat, warm_up, threads;
} Options;

typedef struct {
  OsrPreset preset;
  OsrDevice *device;
  OsrDType dtype;
  guint t, h, w; /* the grid */
  guint batch, tokens;

  OsrMmdit *mmdit;
  OsrVae *vae;
  OsrT5 *t5;
  OsrClip *clip;
  OsrTensor *input[4];
  gint32 *ids;
} Part;

static void
part_clear(Part *p)
{
  g_clear_pointer(&p->mmdit, osr_mmdit_free);
  g_clear_pointer(&p->vae, osr_vae_free);
  g_clear_pointer(&p->t5, osr_t5_free);
  g_clear_pointer(&p->clip, osr_clip_free);
  for (guint i = 0; i < G_N_ELEMENTS(p->input); i++)
    g_clear_pointer(&p->input[i], osr_tensor_unref);
  g_clear_pointer(&p->ids, g_free);
  g_clear_pointer(&p->device, osr_device_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Part, part_clear)

static OsrTensor *
noise(Part *p, guint sequence, guint n_dims, const gint64 *dims, GError **error)
{
  g_autoptr(OsrTensor) tensor = osr_tensor_new(p->device, p->dtype, n_dims, dims, error);
  OsrResult result;
  gboolean ok;

  if (!tensor)
    return NULL;
  osr_device_lock(p->device);
  result = osr_device_get_ops(p->device)->randn(osr_device_get_context(p->device),
                                                &(OsrRandn){
                                                    .dtype = p->dtype,
                                                    .seed = 1,
                                                    .sequence = sequence,
                                                    .t = (int) osr_tensor_n_elements(tensor),
                                                    .h = 1,
                                                    .w = 1,
                                                    .c = 1,
                                                    .y = tensor->data,
                                                });
  ok = osr_device_check(p->device, result, "parts: input", error);
  osr_device_unlock(p->device);
  return ok ? g_steal_pointer(&tensor) : NULL;
}

/* MMDiT: one forward */

static gboolean
load_mmdit(Part *p, OsrLoader *loader, GError **error)
{
  const OsrMmditConfig *c = &p->preset.mmdit;
  gint64 batch = p->batch, tokens = (gint64) p->t * p->h * p->w;
  gint64 pixels = (gint64) c->patch_size * c->patch_size;

  p->mmdit = osr_mmdit_load(c, loader, error);
  return p->mmdit &&
         (p->input[0] = noise(p, 0, 3, (gint64[]){ batch, tokens, c->in_channels }, error)) &&
         (p->input[1] =
              noise(p, 1, 3, (gint64[]){ batch, tokens, c->in_channels + pixels }, error)) &&
         (p->input[2] = noise(p, 2, 3, (gint64[]){ batch, p->tokens, c->context_in_dim }, error)) &&
         (p->input[3] = noise(p, 3, 2, (gint64[]){ batch, c->vec_in_dim }, error));
}

static OsrTensor *
run_mmdit(Part *p, GCancellable *cancellable, GError **error)
{
  return osr_mmdit_forward(p->mmdit,
                           &(OsrMmditInput){
                               .img = p->input[0],
                               .cond = p->preset.mmdit.cond_embed ? p->input[1] : NULL,
                               .txt = p->input[2],
                               .vec = p->input[3],
                               .frames = p->t,
                               .height = p->h,
                               .width = p->w,
                               .timestep = 0.5f,
                               .guidance = 4.0f,
                           },
                           cancellable, error);
}

/* VAE: an untiled decode */

static gboolean
load_vae(Part *p, OsrLoader *loader, GError **error)
{
  const OsrVaeConfig *c = &p->preset.vae;

  p->vae = osr_vae_load(c, FALSE, TRUE, loader, error);
  return p->vae &&
         (p->input[0] = noise(p, 0, 4, (gint64[]){ p->t, p->h, p->w, c->latent_channels }, error));
}

static OsrTensor *
run_vae(Part *p, GCancellable *cancellable, GError **error)
{
  return osr_vae_decode(p->vae, p->input[0], OSR_VAE_TILING_OFF, NULL, NULL, cancellable, error);
}

/* Text towers: one prompt. Any ids do that are in the vocabulary and do not end the text. */

static void
make_ids(Part *p, guint vocab_size)
{
  p->ids = g_new(gint32, p->tokens);
  for (guint i = 0; i < p->tokens; i++)
    p->ids[i] = (gint32) ((guint64) i * 7919 % (vocab_size - 4) + 3);
}

static gboolean
load_t5(Part *p, OsrLoader *loader, GError **error)
{
  make_ids(p, p->preset.t5.vocab_size);
  p->t5 = osr_t5_load(&p->preset.t5, loader, error);
  return p->t5 != NULL;
}

static OsrTensor *
run_t5(Part *p, GCancellable *cancellable, GError **error)
{
  return osr_t5_encode(p->t5, p->ids, p->tokens, cancellable, error);
}

static gboolean
load_clip(Part *p, OsrLoader *loader, GError **error)
{
  const OsrClipConfig *c = &p->preset.clip;
  gint32 end = c->eos_token_id == 2 ? (gint32) c->vocab_size - 1 : c->eos_token_id;

  p->tokens = MIN(p->tokens, c->max_position_embeddings);
  make_ids(p, c->vocab_size);
  for (guint i = 0; i < p->tokens; i++)
    p->ids[i] -= p->ids[i] == c->eos_token_id;
  p->ids[p->tokens - 1] = end;
  p->clip = osr_clip_load(&p->preset.clip, loader, error);
  return p->clip != NULL;
}

static OsrTensor *
run_clip(Part *p, GCancellable *cancellable, GError **error)
{
  return osr_clip_encode(p->clip, p->ids, p->tokens, NULL, cancellable, error);
}

static double
flops_mmdit(const Part *p)
{
  return p->batch * tool_mmdit_flops(&p->preset.mmdit, (double) p->t * p->h * p->w, p->tokens);
}

static double
flops_vae(const Part *p)
{
  OsrVaeCost cost = { 0 };

  return osr_vae_cost(&p->preset.vae, TRUE, OSR_VAE_TILING_OFF, p->dtype, p->t, p->h, p->w, &cost,
                      NULL)
             ? cost.flops
             : 0;
}

static double
flops_t5(const Part *p)
{
  return tool_t5_flops(&p->preset.t5, p->tokens);
}

static double
flops_clip(const Part *p)
{
  return tool_clip_flops(&p->preset.clip, p->tokens);
}

static const struct {
  const char *name, *preset;
  const char *grid; /* where none is asked for; NULL: has none */
  gboolean (*load)(Part *p, OsrLoader *loader, GError **error);
  OsrTensor *(*run)(Part *p, GCancellable *cancellable, GError **error);
  double (*flops)(const Part *p);
} parts[] = {
  { "mmdit", "open-sora-v2", "33x12x21", load_mmdit, run_mmdit, flops_mmdit },
  { "vae", "open-sora-v2", "33x24x42", load_vae, run_vae, flops_vae },
  { "t5", "open-sora-v2", NULL, load_t5, run_t5, flops_t5 },
  { "clip", "open-sora-v2", NULL, load_clip, run_clip, flops_clip },
  { "flux", "flux1-dev", "1x36x64", load_mmdit, run_mmdit, flops_mmdit },
  { "flux-ae", "flux1-dev", "1x72x128", load_vae, run_vae, flops_vae },
};

static gboolean
parse_grid(const char *text, Part *p, GError **error)
{
  char end;

  if (sscanf(text, "%ux%ux%u%c", &p->t, &p->h, &p->w, &end) == 3 && p->t >= 1 && p->h >= 1 &&
      p->w >= 1 && p->t <= 16384 && p->h <= 2048 && p->w <= 2048)
    return TRUE;
  tool_usage_error(error, "--grid is FRAMESxROWSxCOLUMNS, like 33x12x21, not '%s'", text);
  return FALSE;
}

static int
compare(gconstpointer a, gconstpointer b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return x < y ? -1 : x > y;
}

static gboolean
time_part(Part *p, guint which, guint repeat, guint warm_up, GCancellable *cancellable,
          GError **error)
{
  g_autofree double *seconds = g_new(double, repeat);
  OsrPool *pool = osr_device_get_pool(p->device);
  double flops = parts[which].flops(p), median;
  g_autofree char *peak = NULL;
  OsrPoolStats stats;

  for (guint i = 0; i < warm_up + repeat; i++) {
    g_autoptr(OsrTensor) out = NULL;
    gint64 start = g_get_monotonic_time();

    if (i == warm_up)
      osr_pool_reset_peak(pool);
    out = parts[which].run(p, cancellable, error);
    if (!out || !osr_device_synchronize(p->device, error))
      return FALSE;
    if (i >= warm_up)
      seconds[i - warm_up] = (double) (g_get_monotonic_time() - start) / G_USEC_PER_SEC;
  }
  qsort(seconds, repeat, sizeof *seconds, compare);
  median = seconds[repeat / 2];
  osr_pool_get_stats(pool, &stats);
  peak = tool_format_bytes(stats.peak_allocated);
  printf("%-7s", parts[which].name);
  if (parts[which].grid)
    printf(" %ux%ux%u batch %u", p->t, p->h, p->w, p->batch);
  if (parts[which].load != load_vae)
    printf(" text %u", p->tokens);
  printf(": median %.2f ms, best %.2f ms of %u; %.4g TFLOP, %.4g TFLOP/s; peak %s\n", 1e3 * median,
         1e3 * seconds[0], repeat, 1e-12 * flops, 1e-12 * flops / median, peak);
  return TRUE;
}

/* The dimensions of a published model or of a folder. */
static gboolean
find_sizes(const Options *o, guint which, OsrPreset *sizes, GError **error)
{
  const OsrPreset *preset = osr_preset_find(o->preset ? o->preset : parts[which].preset);
  g_autoptr(OsrModelDir) dir = NULL;

  if (o->preset && o->model) {
    tool_usage_error(error, "--preset and --model exclude each other");
    return FALSE;
  }
  if (!preset) {
    tool_usage_error(error, "no preset '%s': there are open-sora-v2 and flux1-dev", o->preset);
    return FALSE;
  }
  *sizes = *preset;
  if (!o->model)
    return TRUE;
  dir = osr_model_dir_open(o->model, error);
  if (!dir)
    return FALSE;
  *sizes = (OsrPreset){
    .name = "sizes of a folder",
    .mmdit = dir->mmdit,
    .vae = dir->vae,
    .t5 = dir->t5,
    .clip = dir->clip,
    .text_length = dir->t5_max_length,
  };
  return TRUE;
}

gboolean
tool_parts(int argc, char **argv, GCancellable *cancellable, GError **error)
{
  Options o = { .batch = 1, .repeat = 5, .warm_up = 2 };
  g_autofree char *preset = NULL, *model = NULL, *device = NULL, *dtype = NULL, *grid = NULL;
  const GOptionEntry entries[] = {
    { "preset", 0, 0, G_OPTION_ARG_STRING, &o.preset,
      "dimensions: open-sora-v2, or flux1-dev (default of flux and flux-ae)", "NAME" },
    { "model", 'm', 0, G_OPTION_ARG_FILENAME, &o.model, "dimensions: those of a folder", "DIR" },
    { "device", 'd', 0, G_OPTION_ARG_STRING, &o.device, "auto (default), cpu, cuda:N or ref",
      "DEVICE" },
    { "dtype", 0, 0, G_OPTION_ARG_STRING, &o.dtype, "F32 or BF16 (default: the device's)", "TYPE" },
    { "grid", 0, 0, G_OPTION_ARG_STRING, &o.grid,
      "mmdit: tokens (33x12x21); vae: latent pixels (33x24x42)", "TxHxW" },
    { "batch", 0, 0, G_OPTION_ARG_INT, &o.batch, "of mmdit: 1 (default) to 3", "N" },
    { "tokens", 0, 0, G_OPTION_ARG_INT, &o.tokens, "of text (the preset's)", "N" },
    { "repeat", 'r', 0, G_OPTION_ARG_INT, &o.repeat, "timed runs (5)", "N" },
    { "warm-up", 0, 0, G_OPTION_ARG_INT, &o.warm_up, "runs before them (2)", "N" },
    { "threads", 't', 0, G_OPTION_ARG_INT, &o.threads, "of a CPU (all)", "N" },
    G_OPTION_ENTRY_NULL,
  };
  g_auto(Part) p = { 0 };
  OsrLoader loader;
  guint which = 0;
  char *name = NULL;
  gboolean ok;

  ok =
      tool_parse(argc, argv, "PART",
                 "Times mmdit, vae (decoder), t5, clip, flux or flux-ae (decoder) alone, on random "
                 "weights.",
                 NULL, entries, NULL, &name, error);
  preset = o.preset, model = o.model, device = o.device, dtype = o.dtype, grid = o.grid;
  if (!ok)
    return FALSE;
  while (which < G_N_ELEMENTS(parts) && g_strcmp0(parts[which].name, name) != 0)
    which++;
  if (which == G_N_ELEMENTS(parts)) {
    tool_usage_error(error, "PART is mmdit, vae, t5, clip, flux or flux-ae, not '%s'",
                     name ? name : "");
    return FALSE;
  }
  if (!find_sizes(&o, which, &p.preset, error))
    return FALSE;
  if (o.batch < 1 || o.batch > 3 || o.repeat < 1 || o.repeat > 10000 || o.warm_up < 0 ||
      o.warm_up > 10000 || o.tokens < 0 || o.tokens > 65536) {
    tool_usage_error(error, "--batch is 1 to 3, --repeat 1 to 10000, --warm-up 0 to 10000, "
                            "--tokens 1 to 65536");
    return FALSE;
  }
  if (!tool_check_threads(o.threads, error))
    return FALSE;
  p.batch = (guint) o.batch;
  p.tokens = o.tokens > 0 ? (guint) o.tokens : p.preset.text_length;
  if (parts[which].grid && !parse_grid(grid ? grid : parts[which].grid, &p, error))
    return FALSE;
  p.device = osr_device_get(device ? device : "auto", error);
  if (!p.device)
    return FALSE;
  p.dtype = osr_device_get_dtype(p.device);
  if (dtype &&
      (!osr_dtype_from_name(dtype, &p.dtype) || !osr_device_supports_dtype(p.device, p.dtype))) {
    tool_usage_error(error, "%s does not compute in '%s'", osr_device_get_name(p.device), dtype);
    return FALSE;
  }
  if (o.threads > 0 && !osr_device_set_threads(p.device, o.threads, error))
    return FALSE;

  osr_loader_init_random(&loader, p.device, p.dtype, 1, cancellable);
  ok = parts[which].load(&p, &loader, error);
  if (ok)
    printf("%s: %s on %s (%s), %.3f G parameters\n", p.preset.name, parts[which].name,
           osr_device_get_name(p.device), osr_dtype_name(p.dtype), 1e-9 * loader.n_parameters);
  return ok && time_part(&p, which, (guint) o.repeat, (guint) o.warm_up, cancellable, error);
}
