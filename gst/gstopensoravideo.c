/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoravideo.h"

#include <gst/app/gstappsink.h>

#define GST_CAT_DEFAULT gst_opensora_debug

/* How long one look at the bus or the sink of a reference's pipeline waits. */
#define POLL_INTERVAL (50 * GST_MSECOND)

struct _GstOpenSoraScaler {
  OsrResize method;
  double aspect;                /* of a pixel */
  GstVideoConverter *converter; /* of colours */
  GstVideoInfo rgb;             /* as large as what comes */
  GstBuffer *whole;             /* of that */
  GstVideoInfo info;            /* RGB, the target size */
  GstBuffer *buffer;            /* of that, for gst_opensora_scaler_convert() */
};

static gboolean
picture_from_frame(const GstVideoFrame *frame, OsrPicture *picture)
{
  picture->width = (guint) GST_VIDEO_FRAME_WIDTH(frame);
  picture->height = (guint) GST_VIDEO_FRAME_HEIGHT(frame);
  picture->matrix = frame->info.colorimetry.matrix == GST_VIDEO_COLOR_MATRIX_BT709
                        ? OSR_MATRIX_BT709
                        : OSR_MATRIX_BT601;
  switch (GST_VIDEO_FRAME_FORMAT(frame)) {
  case GST_VIDEO_FORMAT_RGB:
    picture->format = OSR_PIXEL_RGB;
    break;
  case GST_VIDEO_FORMAT_RGBx:
    picture->format = OSR_PIXEL_RGBX;
    break;
  case GST_VIDEO_FORMAT_I420:
    picture->format = OSR_PIXEL_I420;
    break;
  case GST_VIDEO_FORMAT_NV12:
    picture->format = OSR_PIXEL_NV12;
    break;
  default:
    return FALSE;
  }
  for (guint p = 0; p < GST_VIDEO_FRAME_N_PLANES(frame); p++) {
    picture->planes[p] = GST_VIDEO_FRAME_PLANE_DATA(frame, p);
    picture->strides[p] = GST_VIDEO_FRAME_PLANE_STRIDE(frame, p);
  }
  return TRUE;
}

typedef gboolean (*GetPicture)(OsrTensor *video, guint i, const OsrPicture *picture,
                               GError **error);

static gboolean
fill_frame(OsrTensor *video, guint i, GstVideoFrame *frame, GetPicture get_picture, GError **error)
{
  OsrPicture picture = { 0 };

  if (!picture_from_frame(frame, &picture)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "cannot write frames of format %s",
                gst_video_format_to_string(GST_VIDEO_FRAME_FORMAT(frame)));
    return FALSE;
  }
  return get_picture(video, i, &picture, error);
}

gboolean
gst_opensora_video_fill_frame(OsrTensor *video, guint i, GstVideoFrame *frame, GError **error)
{
  return fill_frame(video, i, frame, osr_video_get_picture, error);
}

gboolean
gst_opensora_video_fill_device_frame(OsrTensor *video, guint i, GstVideoFrame *frame,
                                     GError **error)
{
  return fill_frame(video, i, frame, osr_video_get_device_picture, error);
}

GstOpenSoraScaler *
gst_opensora_scaler_new(const GstVideoInfo *info, guint width, guint height)
{
  GstOpenSoraScaler *self = g_new0(GstOpenSoraScaler, 1);
  GstVideoInfo in = *info;

  self->method = GST_VIDEO_INFO_FPS_N(info) > 0 ? OSR_RESIZE_VIDEO : OSR_RESIZE_PICTURE;
  self->aspect = (double) in.par_n / MAX(in.par_d, 1);
  if (!(self->aspect > 0)) /* square ones, as upstream takes all for */
    self->aspect = 1.0;
  gst_video_info_set_format(&self->info, GST_VIDEO_FORMAT_RGB, width, height);
  gst_video_info_set_format(&self->rgb, GST_VIDEO_FORMAT_RGB, (guint) in.width, (guint) in.height);
  /* The converter wants these to be the same: it changes neither. */
  self->rgb.fps_n = in.fps_n;
  self->rgb.fps_d = in.fps_d;
  self->rgb.interlace_mode = in.interlace_mode;
  self->converter = gst_video_converter_new(&in, &self->rgb, NULL);
  self->whole = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&self->rgb), NULL);
  self->buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&self->info), NULL);
  if (!self->converter || !self->whole || !self->buffer) {
    gst_opensora_scaler_free(self);
    return NULL;
  }
  return self;
}

void
gst_opensora_scaler_free(GstOpenSoraScaler *self)
{
  if (self->converter)
    gst_video_converter_free(self->converter);
  gst_clear_buffer(&self->whole);
  gst_clear_buffer(&self->buffer);
  g_free(self);
}

static gboolean
cannot_map(GError **error)
{
  g_set_error_literal(error, OSR_ERROR, OSR_ERROR_FAILED, "cannot map a frame");
  return FALSE;
}

static gboolean
scale(GstOpenSoraScaler *self, GstVideoFrame *frame, GstBuffer *buffer, GError **error)
{
  GstVideoFrame whole, out;
  gboolean ok;

  if (!gst_video_frame_map(&whole, &self->rgb, self->whole, GST_MAP_READWRITE))
    return cannot_map(error);
  if (!gst_video_frame_map(&out, &self->info, buffer, GST_MAP_WRITE)) {
    gst_video_frame_unmap(&whole);
    return cannot_map(error);
  }
  gst_video_converter_frame(self->converter, frame, &whole);
  ok = osr_resize_fill(
      self->method, GST_VIDEO_FRAME_PLANE_DATA(&whole, 0), (guint) GST_VIDEO_FRAME_WIDTH(&whole),
      (guint) GST_VIDEO_FRAME_HEIGHT(&whole), (gsize) GST_VIDEO_FRAME_PLANE_STRIDE(&whole, 0),
      self->aspect, GST_VIDEO_FRAME_PLANE_DATA(&out, 0), (guint) GST_VIDEO_FRAME_WIDTH(&out),
      (guint) GST_VIDEO_FRAME_HEIGHT(&out), (gsize) GST_VIDEO_FRAME_PLANE_STRIDE(&out, 0), error);
  gst_video_frame_unmap(&out);
  gst_video_frame_unmap(&whole);
  return ok;
}

/* @buffer, of the format @info, into frame @i of @video. */
static gboolean
set_frame(OsrTensor *video, guint i, const GstVideoInfo *info, GstBuffer *buffer, GError **error)
{
  OsrPicture picture = { 0 };
  GstVideoFrame frame;
  gboolean ok;

  if (!gst_video_frame_map(&frame, info, buffer, GST_MAP_READ))
    return cannot_map(error);
  ok = picture_from_frame(&frame, &picture) && osr_video_set_picture(video, i, &picture, error);
  gst_video_frame_unmap(&frame);
  return ok;
}

gboolean
gst_opensora_scaler_convert(GstOpenSoraScaler *self, GstVideoFrame *frame, OsrTensor *video,
                            guint i, GError **error)
{
  return scale(self, frame, self->buffer, error) &&
         set_frame(video, i, &self->info, self->buffer, error);
}

/* Loading */

/* Frames of the target size as RGB, a quarter of what they take as floats: how many there
 * will be is known at the end, and then they go into one tensor. */
typedef struct {
  guint width, height;
  GPtrArray *frames;         /* GstBuffer */
  GstOpenSoraScaler *scaler; /* for @caps, which seldom change */
  GstCaps *caps;
  GstVideoInfo info; /* of @caps */
} Loader;

static void
loader_clear(Loader *self)
{
  g_ptr_array_unref(self->frames);
  g_clear_pointer(&self->scaler, gst_opensora_scaler_free);
  gst_clear_caps(&self->caps);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Loader, loader_clear)

static gboolean
loader_add(Loader *self, GstSample *sample, GError **error)
{
  GstCaps *caps = gst_sample_get_caps(sample);
  g_autoptr(GstBuffer) buffer = NULL;
  GstVideoFrame frame;
  gboolean ok;

  if (!self->caps || !gst_caps_is_equal(caps, self->caps)) {
    g_clear_pointer(&self->scaler, gst_opensora_scaler_free);
    gst_caps_replace(&self->caps, caps);
    if (gst_video_info_from_caps(&self->info, caps))
      self->scaler = gst_opensora_scaler_new(&self->info, self->width, self->height);
  }
  if (!self->scaler ||
      !gst_video_frame_map(&frame, &self->info, gst_sample_get_buffer(sample), GST_MAP_READ)) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                        "a frame of the reference has a format that cannot be read");
    return FALSE;
  }
  buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(&self->scaler->info), NULL);
  ok = scale(self->scaler, &frame, buffer, error);
  gst_video_frame_unmap(&frame);
  if (ok)
    g_ptr_array_add(self->frames, g_steal_pointer(&buffer));
  return ok;
}

static OsrTensor *
loader_finish(Loader *self, OsrDevice *device, OsrDType dtype, GError **error)
{
  g_autoptr(OsrTensor) video = osr_tensor_make(device, dtype, error, (int) self->frames->len,
                                               (int) self->height, (int) self->width, 3, -1);

  for (guint i = 0; video && i < self->frames->len; i++)
    if (!set_frame(video, i, &self->scaler->info, g_ptr_array_index(self->frames, i), error))
      return NULL;
  return g_steal_pointer(&video);
}

static char *
location_to_uri(const char *location, GError **error)
{
  if (gst_uri_is_valid(location))
    return g_strdup(location);
  return gst_filename_to_uri(location, error);
}

static gboolean
load_failed(GstElement *pipeline, const char *location, GError **error)
{
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  g_autoptr(GstMessage) message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  g_autoptr(GError) reason = NULL;

  if (!message)
    return FALSE;
  gst_message_parse_error(message, &reason, NULL);
  g_set_error(error, OSR_ERROR,
              g_error_matches(reason, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND)
                  ? OSR_ERROR_NOT_FOUND
                  : OSR_ERROR_INVALID_FILE,
              "cannot read the reference \"%s\": %s", location, reason->message);
  return TRUE;
}

/* Links the first video stream; one that ended before it had caps, too, so that its end
 * arrives. */
static void
on_pad_added(GstElement *decoder, GstPad *pad, gpointer convert)
{
  g_autoptr(GstPad) sink = gst_element_get_static_pad(convert, "sink");
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(pad);

  if (caps && !g_str_has_prefix(gst_structure_get_name(gst_caps_get_structure(caps, 0)), "video/"))
    return;
  if (!gst_pad_is_linked(sink))
    gst_pad_link(pad, sink);
}

/* Nothing ends at the sink if no stream was a video. */
static void
on_no_more_pads(GstElement *decoder, gpointer convert)
{
  g_autoptr(GstPad) sink = gst_element_get_static_pad(convert, "sink");

  if (!gst_pad_is_linked(sink))
    gst_pad_send_event(sink, gst_event_new_eos());
}

OsrTensor *
gst_opensora_video_load(const char *location, guint width, guint height, guint max_frames,
                        gboolean last, OsrDevice *device, OsrDType dtype, GCancellable *cancellable,
                        GError **error)
{
  g_auto(Loader) loader = {
    .width = width,
    .height = height,
    .frames = g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref),
  };
  g_autoptr(GstElement) pipeline = NULL;
  g_autofree char *uri = location_to_uri(location, error);
  GstElement *decoder, *convert, *sink;
  g_autoptr(GstCaps) caps = NULL;
  gboolean failed = FALSE;

  if (!uri)
    return NULL;
  pipeline = gst_object_ref_sink(gst_pipeline_new("opensora-reference"));
  decoder = gst_element_factory_make("uridecodebin", NULL);
  convert = gst_element_factory_make("videoconvert", NULL);
  sink = gst_element_factory_make("appsink", NULL);
  if (!decoder || !convert || !sink) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "cannot read the reference \"%s\": GStreamer's base plug-ins are not installed",
                location);
    g_clear_pointer(&decoder, gst_object_unref);
    g_clear_pointer(&convert, gst_object_unref);
    g_clear_pointer(&sink, gst_object_unref);
    return NULL;
  }
  caps = gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, "RGB", NULL);
  g_object_set(decoder, "uri", uri, NULL);
  g_object_set(sink, "caps", caps, "sync", FALSE, "max-buffers", 4, NULL);
  gst_bin_add_many(GST_BIN(pipeline), decoder, convert, sink, NULL);
  gst_element_link(convert, sink);
  g_signal_connect_object(decoder, "pad-added", G_CALLBACK(on_pad_added), convert, 0);
  g_signal_connect_object(decoder, "no-more-pads", G_CALLBACK(on_no_more_pads), convert, 0);

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  while ((last || loader.frames->len < max_frames) && !failed) {
    g_autoptr(GstSample) sample = gst_app_sink_try_pull_sample(GST_APP_SINK(sink), POLL_INTERVAL);

    failed = g_cancellable_set_error_if_cancelled(cancellable, error) ||
             load_failed(pipeline, location, error);
    if (failed || (!sample && gst_app_sink_is_eos(GST_APP_SINK(sink))))
      break;
    if (sample)
      failed = !loader_add(&loader, sample, error);
    if (loader.frames->len > max_frames)
      g_ptr_array_remove_index(loader.frames, 0);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);

  if (failed)
    return NULL;
  if (loader.frames->len == 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
                "the reference \"%s\" has no picture in it", location);
    return NULL;
  }
  return loader_finish(&loader, device, dtype, error);
}
