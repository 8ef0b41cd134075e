/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "api.h"
#include "tensor.h"

G_BEGIN_DECLS

/**
 * OsrPicture:
 *
 * Pixels in host memory: @planes and @strides (bytes) as @format lays them out.
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
/* Reads @picture into frame @i of @video. */
OSR_API gboolean osr_video_set_picture(OsrTensor *video, guint i, const OsrPicture *picture,
                                       GError **error);

G_END_DECLS
