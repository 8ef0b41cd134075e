/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "api.h"
#include "tensor.h"

G_BEGIN_DECLS

/**
 * OsrPicture:
 *
 * Pixels: @planes and @strides (bytes) as @format lays them out. The planes are in host memory
 * unless a function says otherwise.
 */
typedef struct {
  OsrPixelFormat format;
  OsrMatrix matrix; /* of I420 and NV12, limited range */
  guint width, height;
  guint8 *planes[3];
  gint strides[3];
} OsrPicture;

/* Writes frame @i of @video ([T, H, W, 3] in [-1, 1], any device) to @picture, whose size
 * has to be the video's. */
OSR_API gboolean osr_video_get_picture(OsrTensor *video, guint i, const OsrPicture *picture,
                                       GError **error);
/* The same with planes in memory of @video's device. On a GPU they are written in the order of
 * the device's work: wait for that (osr_device_mark(), osr_device_wait()) before anybody else
 * reads them. */
OSR_API gboolean osr_video_get_device_picture(OsrTensor *video, guint i, const OsrPicture *picture,
                                              GError **error);
/* Reads @picture into frame @i of @video. */
OSR_API gboolean osr_video_set_picture(OsrTensor *video, guint i, const OsrPicture *picture,
                                       GError **error);

G_END_DECLS
