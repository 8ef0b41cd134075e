/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "api.h"

G_BEGIN_DECLS

/* NULL-terminated list of upstream's aspect ratio names, "16:9", "9:16", ... */
OSR_API const char *const *osr_aspect_ratios(void);

/* Frame size of a resolution name ("256px": area of 256 x 256; "480p": 480 lines at 16:9
 * area) at an aspect ratio name (width:height), as upstream's get_image_size() for
 * inference, rounded down to multiples of 16. OSR_ERROR_INVALID_ARGUMENT lists what is known. */
OSR_API gboolean osr_aspect_size(const char *resolution, const char *aspect_ratio, guint *width,
                                 guint *height, GError **error);

/* The same for a picture that becomes a clip's first frame, as upstream's get_image_size() for
 * training: one side is 16 pixels more or less where that comes nearer to the area. */
OSR_API gboolean osr_aspect_picture_size(const char *resolution, const char *aspect_ratio,
                                         guint *width, guint *height, GError **error);

/* The name of the aspect ratio that a frame of @width x @height pixels has, or nearly has. */
OSR_API const char *osr_aspect_nearest(guint width, guint height);

G_END_DECLS
