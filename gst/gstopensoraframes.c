/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoraframes.h"

#include "gstopensoravideo.h"

/* Weights are in parts of this. */
#define WHOLE 256

static GstBuffer *
new_frame(const GstVideoInfo *info)
{
  return gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(info), NULL);
}

/* A colour and a picture */

static void
fill_rgb(GstVideoFrame *frame, guint32 rgb)
{
  for (gint y = 0; y < GST_VIDEO_FRAME_HEIGHT(frame); y++) {
    guint8 *p = (guint8 *) GST_VIDEO_FRAME_PLANE_DATA(frame, 0) +
                (gsize) y * GST_VIDEO_FRAME_PLANE_STRIDE(frame, 0);

    for (gint x = 0; x < GST_VIDEO_FRAME_WIDTH(frame); x++, p += 3) {
      p[0] = (guint8) (rgb >> 16);
      p[1] = (guint8) (rgb >> 8);
      p[2] = (guint8) rgb;
    }
  }
}

/* @from in the format of @to, which are mapped already. */
static gboolean
convert(GstVideoFrame *from, GstVideoFrame *to)
{
  GstVideoConverter *converter = gst_video_converter_new(&from->info, &to->info, NULL);

  if (!converter)
    return FALSE;
  gst_video_converter_frame(converter, from, to);
  gst_video_converter_free(converter);
  return TRUE;
}

GstBuffer *
gst_opensora_frame_of_colour(const GstVideoInfo *info, guint32 rgb)
{
  g_autoptr(GstBuffer) source = NULL;
  g_autoptr(GstBuffer) buffer = new_frame(info);
  GstVideoFrame from, to;
  GstVideoInfo rgb_info;
  gboolean ok;

  gst_video_info_set_format(&rgb_info, GST_VIDEO_FORMAT_RGB, GST_VIDEO_INFO_WIDTH(info),
                            GST_VIDEO_INFO_HEIGHT(info));
  rgb_info.fps_n = info->fps_n;
  rgb_info.fps_d = info->fps_d;
  rgb_info.interlace_mode = info->interlace_mode;
  source = new_frame(&rgb_info);
  if (!buffer || !source || !gst_video_frame_map(&from, &rgb_info, source, GST_MAP_READWRITE))
    return NULL;
  fill_rgb(&from, rgb);
  ok = gst_video_frame_map(&to, info, buffer, GST_MAP_WRITE);
  if (ok) {
    ok = convert(&from, &to);
    gst_video_frame_unmap(&to);
  }
  gst_video_frame_unmap(&from);
  return ok ? g_steal_pointer(&buffer) : NULL;
}

GstBuffer *
gst_opensora_frame_of_picture(const GstVideoInfo *info, const char *location,
                              GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDevice) device = osr_device_get("cpu", error);
  g_autoptr(OsrTensor) picture = NULL;
  g_autoptr(GstBuffer) buffer = NULL;
  GstVideoFrame frame;
  gboolean ok;

  if (!device)
    return NULL;
  picture = gst_opensora_video_load(location, (guint) GST_VIDEO_INFO_WIDTH(info),
                                    (guint) GST_VIDEO_INFO_HEIGHT(info), 1, FALSE, device,
                                    OSR_DTYPE_F32, cancellable, error);
  if (!picture)
    return NULL;
  buffer = new_frame(info);
  if (!buffer || !gst_video_frame_map(&frame, info, buffer, GST_MAP_WRITE)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY, "no memory for a frame of %d x %d",
                GST_VIDEO_INFO_WIDTH(info), GST_VIDEO_INFO_HEIGHT(info));
    return NULL;
  }
  ok = gst_opensora_video_fill_frame(picture, 0, &frame, error);
  gst_video_frame_unmap(&frame);
  return ok ? g_steal_pointer(&buffer) : NULL;
}

/* Mixing */

gboolean
gst_opensora_can_mix_frames(const GstVideoInfo *a, const GstVideoInfo *b)
{
  return GST_VIDEO_INFO_FORMAT(a) == GST_VIDEO_INFO_FORMAT(b) &&
         GST_VIDEO_INFO_WIDTH(a) == GST_VIDEO_INFO_WIDTH(b) &&
         GST_VIDEO_INFO_HEIGHT(a) == GST_VIDEO_INFO_HEIGHT(b) &&
         GST_VIDEO_INFO_INTERLACE_MODE(a) == GST_VIDEO_INFO_INTERLACE_MODE(b) &&
         gst_video_colorimetry_is_equal(&a->colorimetry, &b->colorimetry);
}

/* Bytes of a row of @plane: each has components of one size only, side by side. */
static gsize
row_size(const GstVideoFrame *frame, guint plane)
{
  gint components[GST_VIDEO_MAX_COMPONENTS];

  gst_video_format_info_component(frame->info.finfo, plane, components);
  return (gsize) GST_VIDEO_FRAME_COMP_WIDTH(frame, components[0]) *
         (gsize) GST_VIDEO_FRAME_COMP_PSTRIDE(frame, components[0]);
}

static gint
row_count(const GstVideoFrame *frame, guint plane)
{
  gint components[GST_VIDEO_MAX_COMPONENTS];

  gst_video_format_info_component(frame->info.finfo, plane, components);
  return GST_VIDEO_FRAME_COMP_HEIGHT(frame, components[0]);
}

static void
mix_row(guint8 *restrict out, const guint8 *restrict a, const guint8 *restrict b, gsize n,
        guint weight)
{
  for (gsize i = 0; i < n; i++)
    out[i] = (guint8) ((a[i] * (WHOLE - weight) + b[i] * weight + WHOLE / 2) / WHOLE);
}

static const guint8 *
get_row(const GstVideoFrame *frame, guint plane, gint y)
{
  return (const guint8 *) GST_VIDEO_FRAME_PLANE_DATA(frame, plane) +
         (gssize) y * GST_VIDEO_FRAME_PLANE_STRIDE(frame, plane);
}

static void
mix(GstVideoFrame *out, const GstVideoFrame *a, const GstVideoFrame *b, guint weight)
{
  for (guint p = 0; p < GST_VIDEO_FRAME_N_PLANES(out); p++) {
    const gsize n = row_size(out, p);

    for (gint y = 0; y < row_count(out, p); y++)
      mix_row((guint8 *) get_row(out, p, y), get_row(a, p, y), get_row(b, p, y), n, weight);
  }
}

GstBuffer *
gst_opensora_mix_frames(const GstVideoInfo *info, GstBuffer *a, GstBuffer *b, double weight)
{
  g_autoptr(GstBuffer) buffer = new_frame(info);
  GstVideoFrame frame_a, frame_b, out;
  gboolean ok = FALSE;

  if (!buffer || !gst_video_frame_map(&frame_a, info, a, GST_MAP_READ))
    return NULL;
  if (gst_video_frame_map(&frame_b, info, b, GST_MAP_READ)) {
    ok = gst_video_frame_map(&out, info, buffer, GST_MAP_WRITE);
    if (ok) {
      mix(&out, &frame_a, &frame_b, (guint) (CLAMP(weight, 0.0, 1.0) * WHOLE + 0.5));
      gst_video_frame_unmap(&out);
    }
    gst_video_frame_unmap(&frame_b);
  }
  gst_video_frame_unmap(&frame_a);
  return ok ? g_steal_pointer(&buffer) : NULL;
}

/* Layouts */

gboolean
gst_opensora_frame_is_plain(const GstVideoInfo *info, GstBuffer *buffer)
{
  const GstVideoMeta *meta = gst_buffer_get_video_meta(buffer);

  if (!meta)
    return TRUE;
  for (guint p = 0; p < meta->n_planes; p++)
    if (meta->offset[p] != GST_VIDEO_INFO_PLANE_OFFSET(info, p) ||
        meta->stride[p] != GST_VIDEO_INFO_PLANE_STRIDE(info, p))
      return FALSE;
  return TRUE;
}

GstBuffer *
gst_opensora_frame_make_plain(const GstVideoInfo *info, GstBuffer *buffer)
{
  g_autoptr(GstBuffer) copy = new_frame(info);
  GstVideoFrame from, to;
  gboolean ok;

  if (!copy || !gst_video_frame_map(&from, info, buffer, GST_MAP_READ))
    return NULL;
  ok = gst_video_frame_map(&to, info, copy, GST_MAP_WRITE);
  if (ok) {
    ok = gst_video_frame_copy(&to, &from);
    gst_video_frame_unmap(&to);
  }
  gst_video_frame_unmap(&from);
  return ok ? g_steal_pointer(&copy) : NULL;
}
