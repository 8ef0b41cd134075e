/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tool.h"

#include <sys/resource.h>

#define DEFAULT_PROMPT "a red circle moving right on a blue background"

static const char *const stage_names[N_STAGES] = { "load", "text", "denoise", "decode", "frames" };

/* Peak of the resident set. */
static guint64
process_peak(void)
{
  struct rusage usage;

  if (getrusage(RUSAGE_SELF, &usage) != 0)
    return 0;
  return (guint64) usage.ru_maxrss * 1024;
}

/* Without loading, which happens in the first run only. */
static double
total(const ToolStats *stats)
{
  double sum = 0;

  for (guint i = STAGE_TEXT; i < N_STAGES; i++)
    sum += stats->seconds[i];
  return sum;
}

static void
print_row(const char *name, const double *seconds, guint n, double share, guint64 peak)
{
  double best = seconds[0], sum = 0;

  for (guint i = 0; i < n; i++) {
    best = MIN(best, seconds[i]);
    sum += seconds[i];
  }
  printf("%-9s %10.3f %10.3f ", name, best, sum / n);
  if (share >= 0)
    printf("%6.1f %% ", 100 * share);
  else
    printf("%8s ", "");
  if (peak > 0) {
    g_autofree char *text = tool_format_bytes(peak);

    printf("%12s", text);
  }
  putchar('\n');
}

static void
print_table(const ToolStats *runs, guint n, guint num_frames, OsrPool *pool)
{
  g_autofree double *seconds = g_new(double, n);
  double best = G_MAXDOUBLE, mean = 0, denoise = G_MAXDOUBLE;
  g_autofree char *allocated = NULL, *reserved = NULL, *process = NULL;
  guint64 peak = 0;
  OsrPoolStats stats;

  for (guint i = 0; i < n; i++) {
    best = MIN(best, total(&runs[i]));
    denoise = MIN(denoise, runs[i].seconds[STAGE_DENOISE]);
    mean += total(&runs[i]) / n;
  }
  printf("%-9s %10s %10s %8s %12s\n", "stage", "best s", "mean s", "share", "pool peak");
  for (guint s = 0; s < N_STAGES; s++) {
    guint64 stage_peak = 0;
    double sum = 0;

    for (guint i = 0; i < n; i++) {
      seconds[i] = runs[i].seconds[s];
      sum += seconds[i] / n;
      stage_peak = MAX(stage_peak, runs[i].peak[s]);
    }
    peak = MAX(peak, stage_peak);
    print_row(stage_names[s], seconds, s == STAGE_LOAD ? 1 : n, s == STAGE_LOAD ? -1 : sum / mean,
              stage_peak);
  }
  for (guint i = 0; i < n; i++)
    seconds[i] = total(&runs[i]);
  print_row("total", seconds, n, 1, peak);

  osr_pool_get_stats(pool, &stats);
  allocated = tool_format_bytes(peak);
  reserved = tool_format_bytes(stats.peak_reserved);
  process = tool_format_bytes(process_peak());
  printf("\ntotal is without load; %u forwards of %.3f s; %u frames, %.2f a second\n",
         runs[0].forwards, denoise / runs[0].forwards, num_frames, num_frames / best);
  printf("memory: pool %s (reserved %s), process %s\n", allocated, reserved, process);
}

static void
print_header(const ToolClip *clip, OsrModel *model, const OsrSamplingParams *params)
{
  OsrDevice *device = osr_model_get_device(model);
  guint threads = clip->threads > 0 ? (guint) clip->threads : g_get_num_processors();

  printf("%s on %s (%s", osr_model_get_dir(model)->name, osr_device_get_name(device),
         osr_dtype_name(osr_model_get_dtype(model)));
  if (osr_device_is_host(device))
    printf(", %u threads", threads);
  printf("): %u x %u, %u frames, %u steps, guidance %g, seed %" G_GUINT64_FORMAT "\n\n",
         params->width, params->height, params->num_frames, params->num_steps, params->guidance,
         params->seed);
  fflush(stdout);
}

gboolean
tool_bench(int argc, char **argv, GCancellable *cancellable, GError **error)
{
  g_auto(ToolClip) clip = TOOL_CLIP_INIT;
  gboolean tiny = FALSE;
  int repeat = 1;
  const GOptionEntry entries[] = {
    { "tiny", 0, 0, G_OPTION_ARG_NONE, &tiny, "the installed tiny model (the default)", NULL },
    { "repeat", 'r', 0, G_OPTION_ARG_INT, &repeat, "so many clips, each timed", "N" },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr(GString) prompt = NULL;
  g_autofree ToolStats *runs = NULL;
  g_autoptr(OsrModel) model = NULL;
  OsrSamplingParams params;
  OsrVaeTiling tiling;

  if (!tool_parse(argc, argv, NULL,
                  "Runs prompt, conditioning, denoising, decoding and conversion to RGB frames "
                  "in memory, and prints the seconds and the memory of each.",
                  NULL, entries, tool_clip_options(&clip), NULL, error))
    return FALSE;
  if (tiny && clip.model) {
    tool_usage_error(error, "--tiny and --model exclude each other");
    return FALSE;
  }
  if (repeat < 1 || repeat > 10000) {
    tool_usage_error(error, "--repeat is 1 to 10000, not %d", repeat);
    return FALSE;
  }
  model = tool_clip_open(&clip, &params, &tiling, error);
  if (!model)
    return FALSE;
  print_header(&clip, model, &params);

  runs = g_new0(ToolStats, (gsize) repeat);
  prompt = g_string_new(clip.prompt ? clip.prompt : DEFAULT_PROMPT);
  for (int i = 0; i < repeat; i++) {
    if (!tool_clip_make(model, prompt->str, clip.negative, &params, tiling, OSR_PIXEL_RGB, NULL,
                        NULL, NULL, &runs[i], cancellable, error))
      return FALSE;
    /* Another text of as many tokens, whose embedding is not kept yet. */
    g_string_append(prompt, " again");
  }
  print_table(runs, (guint) repeat, params.num_frames,
              osr_device_get_pool(osr_model_get_device(model)));
  return TRUE;
}
