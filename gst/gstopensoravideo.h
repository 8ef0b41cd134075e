/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoravideo.h: between GstVideo frames and the engine's video tensors.
 */
#pragma once

#include <gst/video/video.h>

#include "gstopensora.h"

G_BEGIN_DECLS

/* The formats that opensoravaedec makes, best first for encoders. */
#define GST_OPENSORA_VIDEO_FORMATS_YUV "{ I420, NV12 }"
#define GST_OPENSORA_VIDEO_FORMATS_RGB "{ RGB, RGBx }"

/* Frame @i of @video ([T, H, W, 3]) into @frame, in the frame's own format and matrix. */
gboolean gst_opensora_video_fill_frame(OsrTensor *video, guint i, GstVideoFrame *frame,
                                       GError **error);
/* The same for planes in memory of @video's device; they are written in the order of its work. */
gboolean gst_opensora_video_fill_device_frame(OsrTensor *video, guint i, GstVideoFrame *frame,
                                              GError **error);

/**
 * GstOpenSoraScaler:
 *
 * Video of any size and format -> frames of a video tensor, scaled to fill the target and
 * cropped at the centre as upstream does with references: pictures, which have no frame rate,
 * in one way, video in another (osr_resize_fill()).
 */
typedef struct _GstOpenSoraScaler GstOpenSoraScaler;

GstOpenSoraScaler *gst_opensora_scaler_new(const GstVideoInfo *info, guint width, guint height);
void gst_opensora_scaler_free(GstOpenSoraScaler *self);
/* Converts @frame into frame @i of @video, whose size is the scaler's. */
gboolean gst_opensora_scaler_convert(GstOpenSoraScaler *self, GstVideoFrame *frame,
                                     OsrTensor *video, guint i, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(GstOpenSoraScaler, gst_opensora_scaler_free)

/* The picture, or up to @max_frames frames of the video, the first or the @last ones, at
 * @location (path or URI) as [T, height, width, 3] on @device as @dtype. Errors name
 * the location. */
OsrTensor *gst_opensora_video_load(const char *location, guint width, guint height,
                                   guint max_frames, gboolean last, OsrDevice *device,
                                   OsrDType dtype, GCancellable *cancellable, GError **error);

G_END_DECLS
