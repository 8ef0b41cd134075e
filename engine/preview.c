/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "preview.h"

#include <math.h>
#include <string.h>

#include "error.h"

/* HunyuanVideo's, of latents times 0.476986: the figures that ComfyUI publishes with this
 * autoencoder (comfy/latent_formats.py, latent_rgb_factors), where they are applied to what the
 * sampler has, scaled as here. */
static const OsrPreviewMap hunyuan = {
  .channels = 16,
  .factors = {
    { -0.0395f, -0.0331f, 0.0445f },  { 0.0696f, 0.0795f, 0.0518f },
    { 0.0135f, -0.0945f, -0.0282f },  { 0.0108f, -0.0250f, -0.0765f },
    { -0.0209f, 0.0032f, 0.0224f },   { -0.0804f, -0.0254f, -0.0639f },
    { -0.0991f, 0.0271f, -0.0669f },  { -0.0646f, -0.0422f, -0.0400f },
    { -0.0696f, -0.0595f, -0.0894f }, { -0.0799f, -0.0208f, -0.0375f },
    { 0.1166f, 0.1627f, 0.0962f },    { 0.1165f, 0.0432f, 0.0407f },
    { -0.2315f, -0.1920f, -0.1355f }, { -0.0270f, 0.0401f, -0.0821f },
    { -0.0616f, -0.0997f, -0.0727f }, { 0.0249f, -0.0469f, -0.1703f },
  },
  .bias = { 0.0259f, -0.0192f, -0.0761f },
};

/* FLUX.1's, of 0.3611 times (latents less 0.1159); from the same file. */
static const OsrPreviewMap flux = {
  .channels = 16,
  .factors = {
    { -0.0346f, 0.0244f, 0.0681f },   { 0.0034f, 0.0210f, 0.0687f },
    { 0.0275f, -0.0668f, -0.0433f },  { -0.0174f, 0.0160f, 0.0617f },
    { 0.0859f, 0.0721f, 0.0329f },    { 0.0004f, 0.0383f, 0.0115f },
    { 0.0405f, 0.0861f, 0.0915f },    { -0.0236f, -0.0185f, -0.0259f },
    { -0.0245f, 0.0250f, 0.1180f },   { 0.1008f, 0.0755f, -0.0421f },
    { -0.0515f, 0.0201f, 0.0011f },   { 0.0428f, -0.0012f, -0.0036f },
    { 0.0817f, 0.0765f, 0.0749f },    { -0.1264f, -0.0522f, -0.1103f },
    { -0.0280f, -0.0881f, -0.0499f }, { -0.1262f, -0.0982f, -0.0778f },
  },
  .bias = { -0.0329f, -0.0718f, -0.0851f },
};

static const struct {
  OsrVaeType type;
  double scale_factor, shift_factor;
  const OsrPreviewMap *map;
} published[] = {
  { OSR_VAE_HUNYUAN, 0.476986, 0, &hunyuan },
  { OSR_VAE_FLUX, 0.3611, 0.1159, &flux },
};

const OsrPreviewMap *
osr_preview_map_find(const OsrVaeConfig *config)
{
  for (guint i = 0; i < G_N_ELEMENTS(published); i++)
    if (config->type == published[i].type &&
        config->latent_channels == published[i].map->channels &&
        fabs(config->scale_factor - published[i].scale_factor) < 1e-6 &&
        fabs(config->shift_factor - published[i].shift_factor) < 1e-6)
      return published[i].map;
  return NULL;
}

float *
osr_preview_copy(OsrTensor *latent, GError **error)
{
  g_autoptr(OsrTensor) values = osr_tensor_convert(latent, latent->device, OSR_DTYPE_F32, error);
  g_autofree float *copy = NULL;

  if (!values)
    return NULL;
  copy = g_try_malloc(values->size);
  if (!copy) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY,
                "no memory for a preview of %" G_GSIZE_FORMAT " bytes", values->size);
    return NULL;
  }
  return osr_tensor_download(values, copy, values->size, error) ? g_steal_pointer(&copy) : NULL;
}

/* NaN becomes black: the comparisons fail. */
static guint8
to_byte(float v)
{
  const float scaled = (v + 1.0f) * 127.5f + 0.5f;

  return !(scaled > 0) ? 0 : scaled < 255 ? (guint8) scaled : 255;
}

static void
get_colour(const OsrPreviewMap *map, const float *pixel, guint8 rgb[3])
{
  for (guint i = 0; i < 3; i++) {
    float sum = map->bias[i];

    for (guint c = 0; c < map->channels; c++)
      sum += map->factors[c][i] * pixel[c];
    rgb[i] = to_byte(sum);
  }
}

gboolean
osr_preview_get_picture(const OsrPreviewMap *map, const float *frame, guint h, guint w,
                        const OsrPicture *picture, GError **error)
{
  const guint size = w > 0 ? picture->width / w : 0;
  guint8 rgb[3];

  if (size == 0 || picture->format != OSR_PIXEL_RGB || picture->width / size != w ||
      picture->width % size != 0 || picture->height / size != h || picture->height % size != 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
                "a preview of %u x %u pixels cannot fill a picture of %u x %u", w, h,
                picture->width, picture->height);
    return FALSE;
  }
  for (guint y = 0; y < h; y++) {
    guint8 *row = picture->planes[0] + (gsize) y * size * picture->strides[0];

    for (guint x = 0; x < w; x++) {
      get_colour(map, frame + ((gsize) y * w + x) * map->channels, rgb);
      for (guint i = 0; i < size; i++)
        memcpy(row + ((gsize) x * size + i) * 3, rgb, 3);
    }
    for (guint i = 1; i < size; i++)
      memcpy(row + (gsize) i * picture->strides[0], row, (gsize) picture->width * 3);
  }
  return TRUE;
}
