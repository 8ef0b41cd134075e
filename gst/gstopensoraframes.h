/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoraframes.h: frames in system memory that are made from other frames, from a picture or
 * from a colour. The formats are those of opensoravaedec, 8 bits a component.
 */
#pragma once

#include <gst/video/video.h>

#include "gstopensora.h"

G_BEGIN_DECLS

/* A frame of one colour, 0xRRGGBB; NULL if there is not enough memory. */
GstBuffer *gst_opensora_frame_of_colour(const GstVideoInfo *info, guint32 rgb);
/* The picture at @location (path or URI), or the first frame of the video, scaled to fill the
 * frame and cropped at the centre. */
GstBuffer *gst_opensora_frame_of_picture(const GstVideoInfo *info, const char *location,
                                         GCancellable *cancellable, GError **error);

/* Whether frames of these kinds can be mixed: the same size, format and colours. */
gboolean gst_opensora_can_mix_frames(const GstVideoInfo *a, const GstVideoInfo *b);
/* A new frame with @weight (0 to 1) of @b and the rest of @a; NULL if one cannot be mapped. */
GstBuffer *gst_opensora_mix_frames(const GstVideoInfo *info, GstBuffer *a, GstBuffer *b,
                                   double weight);

/* Whether @buffer is laid out as @info says by itself, so that who does not know GstVideoMeta
 * can read it. */
gboolean gst_opensora_frame_is_plain(const GstVideoInfo *info, GstBuffer *buffer);
/* A copy of @buffer for which that is so; NULL if it cannot be mapped. */
GstBuffer *gst_opensora_frame_make_plain(const GstVideoInfo *info, GstBuffer *buffer);

G_END_DECLS
