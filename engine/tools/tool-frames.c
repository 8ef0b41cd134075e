/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tool.h"

#include <errno.h>
#include <glib/gstdio.h>

typedef enum { KIND_Y4M, KIND_RGB, KIND_FOLDER } Kind;

struct _ToolWriter {
  Kind kind;
  char *path;
  FILE *file; /* NULL for a folder */
  guint width, height, n_frames;
  gboolean finished;
};

static Kind
kind_of(const char *path)
{
  if (g_str_equal(path, "-") || g_str_has_suffix(path, ".y4m"))
    return KIND_Y4M;
  return g_str_has_suffix(path, ".rgb") ? KIND_RGB : KIND_FOLDER;
}

OsrPixelFormat
tool_writer_format(const char *path)
{
  return kind_of(path) == KIND_Y4M ? OSR_PIXEL_I420 : OSR_PIXEL_RGB;
}

static gboolean
fail(const char *path, GError **error)
{
  int code = errno;

  g_set_error(error, G_IO_ERROR, (int) g_io_error_from_errno(code), "cannot write %s: %s",
              g_str_equal(path, "-") ? "to standard output" : path, g_strerror(code));
  return FALSE;
}

ToolWriter *
tool_writer_new(const char *path, guint width, guint height, guint fps, GError **error)
{
  g_autoptr(ToolWriter) writer = g_new0(ToolWriter, 1);

  writer->kind = kind_of(path);
  writer->path = g_strdup(path);
  writer->width = width;
  writer->height = height;
  if (writer->kind == KIND_FOLDER) {
    if (g_mkdir_with_parents(path, 0777) != 0) {
      fail(path, error);
      return NULL;
    }
    return g_steal_pointer(&writer);
  }
  writer->file = g_str_equal(path, "-") ? stdout : g_fopen(path, "wb");
  /* C420jpeg: chroma sited in the middle of its four pixels. */
  if (!writer->file ||
      (writer->kind == KIND_Y4M &&
       fprintf(writer->file, "YUV4MPEG2 W%u H%u F%u:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n",
               width, height, fps) < 0)) {
    fail(path, error);
    return NULL;
  }
  return g_steal_pointer(&writer);
}

/* The rows of all planes; the last of the planes is the first without a pointer. */
static gboolean
write_planes(FILE *file, const OsrPicture *picture)
{
  const gboolean rgb = picture->format == OSR_PIXEL_RGB;

  for (guint p = 0; p < G_N_ELEMENTS(picture->planes) && picture->planes[p]; p++) {
    gsize rows = p == 0 ? picture->height : (picture->height + 1) / 2;
    gsize bytes =
        rgb ? (gsize) picture->width * 3 : (p == 0 ? picture->width : (picture->width + 1) / 2);

    for (gsize y = 0; y < rows; y++)
      if (fwrite(picture->planes[p] + y * picture->strides[p], 1, bytes, file) != bytes)
        return FALSE;
  }
  return TRUE;
}

static gboolean
write_ppm(ToolWriter *writer, const OsrPicture *picture, GError **error)
{
  g_autofree char *name = g_strdup_printf("frame-%05u.ppm", writer->n_frames);
  g_autofree char *path = g_build_filename(writer->path, name, NULL);
  FILE *file = g_fopen(path, "wb");
  gboolean ok;

  if (!file)
    return fail(path, error);
  ok = fprintf(file, "P6\n%u %u\n255\n", writer->width, writer->height) > 0 &&
       write_planes(file, picture);
  ok = fclose(file) == 0 && ok;
  return ok || fail(path, error);
}

gboolean
tool_writer_add(ToolWriter *writer, const OsrPicture *picture, GError **error)
{
  if (writer->kind == KIND_FOLDER) {
    if (!write_ppm(writer, picture, error))
      return FALSE;
  } else if ((writer->kind == KIND_Y4M && fputs("FRAME\n", writer->file) < 0) ||
             !write_planes(writer->file, picture)) {
    return fail(writer->path, error);
  }
  writer->n_frames++;
  return TRUE;
}

gboolean
tool_writer_finish(ToolWriter *writer, GError **error)
{
  FILE *file = g_steal_pointer(&writer->file);

  writer->finished = TRUE;
  if (!file)
    return TRUE;
  if ((file == stdout ? fflush(file) : fclose(file)) == 0)
    return TRUE;
  return fail(writer->path, error);
}

void
tool_writer_free(ToolWriter *writer)
{
  if (!writer)
    return;
  if (writer->file && writer->file != stdout) {
    fclose(writer->file);
    if (!writer->finished)
      g_unlink(writer->path);
  }
  g_free(writer->path);
  g_free(writer);
}
