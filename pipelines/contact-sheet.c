/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "contact-sheet.h"

#include <gst/video/video.h>

/* Pixels: the widest a picture gets, and the space around it. */
#define MAX_TILE_WIDTH 320
#define GAP 4
#define BACKGROUND 0x20

struct _ContactSheet {
  GstPad *pad;
  gulong probe;
  guint columns, rows;

  GMutex lock;
  GstCaps *caps;     /* of the first frame; frames with others are left out */
  GPtrArray *frames; /* GstBuffer, every stride-th frame of the stream */
  guint stride, n_seen;
};

/* Keeps every second frame. */
static void
thin_out(ContactSheet *self)
{
  guint kept = 0;

  for (guint i = 0; i < self->frames->len; i++) {
    if (i % 2 == 0)
      self->frames->pdata[kept++] = self->frames->pdata[i];
    else
      gst_buffer_unref(self->frames->pdata[i]);
  }
  /* What was moved must not be freed with the tail. */
  for (guint i = kept; i < self->frames->len; i++)
    self->frames->pdata[i] = NULL;
  g_ptr_array_set_size(self->frames, (gint) kept);
  self->stride *= 2;
}

static GstPadProbeReturn
on_frame(GstPad *pad, GstPadProbeInfo *info, gpointer user_data)
{
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(pad);
  ContactSheet *self = user_data;

  g_mutex_lock(&self->lock);
  if (!self->caps)
    self->caps = gst_caps_ref(caps);
  if (gst_caps_is_equal(caps, self->caps)) {
    /* A copy: the frame's own memory belongs to a pool that may be small. */
    if (self->n_seen % self->stride == 0)
      g_ptr_array_add(self->frames, gst_buffer_copy_deep(GST_PAD_PROBE_INFO_BUFFER(info)));
    self->n_seen++;
    if (self->frames->len > 4 * self->columns * self->rows)
      thin_out(self);
  }
  g_mutex_unlock(&self->lock);
  return GST_PAD_PROBE_OK;
}

static void
free_frame(gpointer frame)
{
  if (frame)
    gst_buffer_unref(frame);
}

ContactSheet *
contact_sheet_new(GstPad *pad, guint columns, guint rows)
{
  ContactSheet *self = g_new0(ContactSheet, 1);

  self->pad = gst_object_ref(pad);
  self->columns = columns;
  self->rows = rows;
  self->frames = g_ptr_array_new_with_free_func(free_frame);
  self->stride = 1;
  g_mutex_init(&self->lock);
  self->probe = gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, on_frame, self, NULL);
  return self;
}

void
contact_sheet_free(ContactSheet *self)
{
  gst_pad_remove_probe(self->pad, self->probe);
  gst_object_unref(self->pad);
  gst_clear_caps(&self->caps);
  g_ptr_array_unref(self->frames);
  g_mutex_clear(&self->lock);
  g_free(self);
}

/* Scales @buffer into the rectangle of @sheet at @x, @y. */
static gboolean
place(GstVideoFrame *sheet, const GstVideoInfo *info, GstBuffer *buffer, guint x, guint y,
      guint width, guint height)
{
  GstVideoConverter *converter;
  GstVideoFrame frame;

  converter = gst_video_converter_new(
      info, &sheet->info,
      gst_structure_new("options", GST_VIDEO_CONVERTER_OPT_DEST_X, G_TYPE_INT, (gint) x,
                        GST_VIDEO_CONVERTER_OPT_DEST_Y, G_TYPE_INT, (gint) y,
                        GST_VIDEO_CONVERTER_OPT_DEST_WIDTH, G_TYPE_INT, (gint) width,
                        GST_VIDEO_CONVERTER_OPT_DEST_HEIGHT, G_TYPE_INT, (gint) height,
                        GST_VIDEO_CONVERTER_OPT_FILL_BORDER, G_TYPE_BOOLEAN, FALSE, NULL));
  if (!converter)
    return FALSE;
  if (!gst_video_frame_map(&frame, info, buffer, GST_MAP_READ)) {
    gst_video_converter_free(converter);
    return FALSE;
  }
  gst_video_converter_frame(converter, &frame, sheet);
  gst_video_frame_unmap(&frame);
  gst_video_converter_free(converter);
  return TRUE;
}

/* The sheet as an RGB sample; the caller has checked that there are frames. */
static GstSample *
compose(ContactSheet *self, GError **error)
{
  const guint n = MIN(self->frames->len, self->columns * self->rows);
  const guint columns = MIN(self->columns, n), rows = (n + columns - 1) / columns;
  g_autoptr(GstBuffer) buffer = NULL;
  g_autoptr(GstCaps) caps = NULL;
  guint tile_width, tile_height;
  GstVideoInfo info, sheet_info;
  GstVideoFrame sheet;
  gboolean ok = TRUE;

  if (!gst_video_info_from_caps(&info, self->caps)) {
    g_set_error_literal(error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
                        "the frames are not raw video in system memory");
    return NULL;
  }
  tile_width = MIN((guint) info.width, MAX_TILE_WIDTH);
  tile_height = MAX(
      1, (guint) gst_util_uint64_scale_int((guint64) info.height, (gint) tile_width, info.width));
  gst_video_info_set_format(&sheet_info, GST_VIDEO_FORMAT_RGB, GAP + columns * (tile_width + GAP),
                            GAP + rows * (tile_height + GAP));
  /* The converter insists on it. */
  sheet_info.fps_n = info.fps_n;
  sheet_info.fps_d = info.fps_d;
  buffer = gst_buffer_new_allocate(NULL, sheet_info.size, NULL);
  gst_buffer_memset(buffer, 0, BACKGROUND, sheet_info.size);
  if (!gst_video_frame_map(&sheet, &sheet_info, buffer, GST_MAP_READWRITE)) {
    g_set_error_literal(error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED, "cannot map the picture");
    return NULL;
  }
  for (guint i = 0; i < n && ok; i++) {
    const guint frame = n > 1 ? i * (self->frames->len - 1) / (n - 1) : 0;

    ok = place(&sheet, &info, g_ptr_array_index(self->frames, frame),
               GAP + i % columns * (tile_width + GAP), GAP + i / columns * (tile_height + GAP),
               tile_width, tile_height);
  }
  gst_video_frame_unmap(&sheet);
  if (!ok) {
    g_set_error_literal(error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED,
                        "a frame cannot be converted to RGB");
    return NULL;
  }
  caps = gst_video_info_to_caps(&sheet_info);
  return gst_sample_new(buffer, caps, NULL, NULL);
}

gboolean
contact_sheet_write(ContactSheet *self, const char *path, GError **error)
{
  g_autoptr(GstCaps) png_caps = gst_caps_new_empty_simple("image/png");
  g_autoptr(GstSample) sheet = NULL;
  g_autoptr(GstSample) png = NULL;
  GstMapInfo map;
  gboolean ok;

  g_mutex_lock(&self->lock);
  if (self->frames->len > 0)
    sheet = compose(self, error);
  else
    g_set_error_literal(error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED, "there was no frame");
  g_mutex_unlock(&self->lock);
  if (!sheet)
    return FALSE;

  png = gst_video_convert_sample(sheet, png_caps, GST_CLOCK_TIME_NONE, error);
  if (!png)
    return FALSE;
  if (!gst_buffer_map(gst_sample_get_buffer(png), &map, GST_MAP_READ)) {
    g_set_error_literal(error, GST_CORE_ERROR, GST_CORE_ERROR_FAILED, "cannot map the picture");
    return FALSE;
  }
  ok = g_file_set_contents(path, (const char *) map.data, (gssize) map.size, error);
  gst_buffer_unmap(gst_sample_get_buffer(png), &map);
  return ok;
}
