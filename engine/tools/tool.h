/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tool.h: what the commands of opensora-tool share.
 */
#pragma once

#include <stdio.h>

#include "clip.h"
#include "model-dir.h"
#include "opensora.h"
#include "t5.h"

G_BEGIN_DECLS

/* Ends in G_OPTION_ERROR for wrong usage. argv[0] is the command's name. */
typedef gboolean (*ToolCommand)(int argc, char **argv, GCancellable *cancellable, GError **error);

gboolean tool_info(int argc, char **argv, GCancellable *cancellable, GError **error);
gboolean tool_plan(int argc, char **argv, GCancellable *cancellable, GError **error);
gboolean tool_bench(int argc, char **argv, GCancellable *cancellable, GError **error);
gboolean tool_generate(int argc, char **argv, GCancellable *cancellable, GError **error);
gboolean tool_parts(int argc, char **argv, GCancellable *cancellable, GError **error);
gboolean tool_noise(int argc, char **argv, GCancellable *cancellable, GError **error);
gboolean tool_run(int argc, char **argv, GCancellable *cancellable, GError **error);

/* Parses the options of a command; --help prints and exits. @group may be NULL. @rest, if
 * not NULL, gets the one argument that may be left, or NULL. */
gboolean tool_parse(int argc, char **argv, const char *parameters, const char *summary,
                    const char *description, const GOptionEntry *entries, GOptionGroup *group,
                    char **rest, GError **error);
/* G_OPTION_ERROR_BAD_VALUE. */
void tool_usage_error(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* G_OPTION_ERROR_BAD_VALUE for a --threads outside of 0 (all) to OSR_DEVICE_MAX_THREADS. */
gboolean tool_check_threads(int threads, GError **error);

/* "12.3 MiB", newly allocated. */
char *tool_format_bytes(guint64 bytes);

/* tool-plan.c: FLOPs of one forward of one item: matrix products and attention. */
double tool_t5_flops(const OsrT5Config *config, double tokens);
double tool_clip_flops(const OsrClipConfig *config, double tokens);
double tool_mmdit_flops(const OsrMmditConfig *config, double video_tokens, double text_tokens);

/* tool-clip.c: a prompt made into a clip, for bench and generate. */
typedef struct {
  char *model, *device, *dtype, *prompt, *negative, *tiling;
  int width, height, num_frames, steps, threads; /* 0: the model's default */
  gboolean no_graphs;
  gint64 seed;     /* -1: likewise */
  double guidance; /* 0: likewise */
} ToolClip;

#define TOOL_CLIP_INIT                                                                             \
  {                                                                                                \
    .seed = -1                                                                                     \
  }

typedef enum { STAGE_LOAD, STAGE_TEXT, STAGE_DENOISE, STAGE_DECODE, STAGE_FRAMES, N_STAGES } Stage;

typedef struct {
  double seconds[N_STAGES];
  guint64 peak[N_STAGES]; /* bytes of the device's pool at most during the stage */
  guint forwards, truncated;
} ToolStats;

/* One frame in host memory. FALSE with @error set ends the clip. */
typedef gboolean (*ToolFrame)(const OsrPicture *picture, guint i, gpointer user_data,
                              GError **error);
typedef void (*ToolProgress)(Stage stage, double fraction, double remaining, gpointer user_data);

/* The options --model, --device, --prompt, ... that fill @clip, which has to stay. */
GOptionGroup *tool_clip_options(ToolClip *clip);
void tool_clip_clear(ToolClip *clip);
OsrModel *tool_clip_open(const ToolClip *clip, OsrSamplingParams *params, OsrVaeTiling *tiling,
                         GError **error);
/* The model's sampling defaults with those options that were given. */
gboolean tool_clip_params(const ToolClip *clip, const OsrModelDir *dir, OsrSamplingParams *params,
                          GError **error);
gboolean tool_tiling_from_name(const char *name, OsrVaeTiling *tiling, GError **error);
/* @prompt: decorated here, for a model of video. */
gboolean tool_clip_make(OsrModel *model, const char *prompt, const char *negative,
                        const OsrSamplingParams *params, OsrVaeTiling tiling, OsrPixelFormat format,
                        ToolFrame frame, ToolProgress progress, gpointer user_data,
                        ToolStats *stats, GCancellable *cancellable, GError **error);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(ToolClip, tool_clip_clear)

/* tool-frames.c: raw frames to a file. */
typedef struct _ToolWriter ToolWriter;

/* What frames have to be in for an output of that name. */
OsrPixelFormat tool_writer_format(const char *path);
/* "-" is standard output as YUV4MPEG2, "x.y4m", "x.rgb", else a folder for PPM files. */
ToolWriter *tool_writer_new(const char *path, guint width, guint height, guint fps, GError **error);
gboolean tool_writer_add(ToolWriter *writer, const OsrPicture *picture, GError **error);
gboolean tool_writer_finish(ToolWriter *writer, GError **error);
/* An unfinished file is removed. */
void tool_writer_free(ToolWriter *writer);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(ToolWriter, tool_writer_free)

G_END_DECLS
