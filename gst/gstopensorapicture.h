/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "gstopensora.h"

G_BEGIN_DECLS

/**
 * A bin that turns the conditioning of a clip into the latent of its first frame: FLUX.1 makes a
 * picture, at its own resolution and nearly in the clip's shape, and the autoencoder of the
 * video's model encodes it in the clip's size. Its children are "denoise", "decode" and "encode".
 *
 * @location: folder of the model of pictures
 * @denoise, @decode: the elements that the clip is made by; what is set there for device, memory,
 *   steps, tiling, model and shape goes for the picture too
 *
 * NULL with @error if the folder holds no such model. (transfer floating)
 */
GstElement *gst_opensora_picture_new(const char *location, GstElement *denoise, GstElement *decode,
                                     GError **error);

G_END_DECLS
