/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tool.h"

#include <unistd.h>

static gboolean
add_frame(const OsrPicture *picture, guint i, gpointer user_data, GError **error)
{
  return tool_writer_add(user_data, picture, error);
}

static void
show_progress(Stage stage, double fraction, double remaining, gpointer user_data)
{
  if (isatty(STDERR_FILENO))
    fprintf(stderr, "\r%s %3.0f %%, %.0f s left   ", stage == STAGE_DENOISE ? "denoise" : "decode ",
            100 * fraction, remaining);
}

gboolean
tool_generate(int argc, char **argv, GCancellable *cancellable, GError **error)
{
  g_auto(ToolClip) clip = TOOL_CLIP_INIT;
  g_autofree char *output = NULL;
  const GOptionEntry entries[] = {
    { "output", 'o', 0, G_OPTION_ARG_FILENAME, &output, "where the frames go", "FILE" },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr(OsrModel) model = NULL;
  g_autoptr(ToolWriter) writer = NULL;
  OsrSamplingParams params;
  OsrVaeTiling tiling;
  ToolStats stats;
  gboolean ok;

  if (!tool_parse(argc, argv, NULL, "Makes a clip of a prompt and writes its raw frames.",
                  "The output is one of\n"
                  "  NAME.y4m  YUV4MPEG2, 4:2:0, which most players open\n"
                  "  -         the same on standard output\n"
                  "  NAME.rgb  frames of 3 bytes a pixel, one after the other\n"
                  "  NAME      a folder, which gets one PPM file a frame\n",
                  entries, tool_clip_options(&clip), NULL, error))
    return FALSE;
  if (!clip.prompt || !output) {
    tool_usage_error(error, "--prompt and --output are needed");
    return FALSE;
  }
  model = tool_clip_open(&clip, &params, &tiling, error);
  if (!model)
    return FALSE;
  writer =
      tool_writer_new(output, params.width, params.height, osr_model_get_dir(model)->fps, error);
  if (!writer)
    return FALSE;

  ok =
      tool_clip_make(model, clip.prompt, clip.negative, &params, tiling, tool_writer_format(output),
                     add_frame, show_progress, writer, &stats, cancellable, error);
  if (isatty(STDERR_FILENO))
    fputc('\n', stderr);
  if (!ok || !tool_writer_finish(writer, error))
    return FALSE;
  if (stats.truncated > 0)
    fprintf(stderr, "opensora-tool generate: the prompt is %u tokens too long, its end was cut\n",
            stats.truncated);
  return TRUE;
}
