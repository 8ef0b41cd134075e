/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "api.h"

G_BEGIN_DECLS

/* How upstream scales what the model is conditioned on. */
typedef enum {
  OSR_RESIZE_PICTURE, /* Pillow's bicubic: a = -1/2, over all pixels that a smaller picture's cover
                       */
  OSR_RESIZE_VIDEO,   /* bilinear between the nearest two pixels each way */
} OsrResize;

/* Scales an RGB picture (3 bytes a pixel, @stride bytes a row) so that it fills another and cuts
 * off evenly what sticks out, as upstream's resize_crop_to_fill(). @aspect: width of a pixel
 * over its height. Sizes are 1 to 65535, @aspect is finite and positive.
 * OSR_ERROR_MEMORY if there is not enough for the rows on the way. */
OSR_API gboolean osr_resize_fill(OsrResize method, const guint8 *src, guint width, guint height,
                                 gsize stride, double aspect, guint8 *dst, guint dst_width,
                                 guint dst_height, gsize dst_stride, GError **error);

G_END_DECLS
