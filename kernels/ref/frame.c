/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tensor_to_frame, frame_to_tensor */
#include "ref.h"

/* [-1, 1] -> [0, 1]; what is outside is clamped, NaN becomes black. */
static double
to_unit(float v)
{
  double clamped = v > -1.0f ? (v < 1.0f ? v : 1.0) : -1.0;

  return (clamped + 1.0) / 2.0;
}

/* [0, 1] -> [-1, 1], clamped. */
static float
from_unit(double v)
{
  return (float) (fmin(fmax(v, 0.0), 1.0) * 2.0 - 1.0);
}

static uint8_t
to_byte(double v)
{
  return (uint8_t) (v + 0.5);
}

/* Where the chroma of a 4:2:0 frame is: Cb and Cr of chroma position (x, y). */
static void
chroma_at(const OsrFrame *p, int x, int y, uint8_t **cb, uint8_t **cr)
{
  if (p->format == OSR_PIXEL_NV12) {
    *cb = p->planes[1] + (ptrdiff_t) y * p->strides[1] + 2 * (ptrdiff_t) x;
    *cr = *cb + 1;
  } else {
    *cb = p->planes[1] + (ptrdiff_t) y * p->strides[1] + x;
    *cr = p->planes[2] + (ptrdiff_t) y * p->strides[2] + x;
  }
}

static void
tensor_to_rgb(const OsrFrame *p)
{
  const int bytes = p->format == OSR_PIXEL_RGB ? 3 : 4;
  const float *pixel = p->tensor;

  for (int y = 0; y < p->height; y++)
    for (int x = 0; x < p->width; x++, pixel += 3) {
      uint8_t *out = p->planes[0] + (ptrdiff_t) y * p->strides[0] + (ptrdiff_t) x * bytes;

      for (int c = 0; c < 3; c++)
        out[c] = to_byte(255.0 * to_unit(pixel[c]));
      if (bytes == 4)
        out[3] = 255;
    }
}

static double
luma(const OsrFrame *p, const float *pixel)
{
  double kr, kb;

  osr_matrix_luma(p->matrix, &kr, &kb);
  return kr * to_unit(pixel[0]) + (1.0 - kr - kb) * to_unit(pixel[1]) + kb * to_unit(pixel[2]);
}

/* Y' = 16 + 219 E'y, Cb = 128 + 224 (E'b - E'y) / (2 (1 - kb)), Cr likewise: BT.601 2.5,
 * BT.709 3 and 4. Chroma is the mean over the pixels of a 2x2 block that exist. */
static void
tensor_to_yuv(const OsrFrame *p)
{
  const float *tensor = p->tensor;
  double kr, kb;

  osr_matrix_luma(p->matrix, &kr, &kb);
  for (int y = 0; y < p->height; y++)
    for (int x = 0; x < p->width; x++)
      p->planes[0][(ptrdiff_t) y * p->strides[0] + x] =
          to_byte(16.0 + 219.0 * luma(p, tensor + ((int64_t) y * p->width + x) * 3));

  for (int y = 0; y < p->height; y += 2)
    for (int x = 0; x < p->width; x += 2) {
      double blue = 0.0, red = 0.0;
      int count = 0;
      uint8_t *cb, *cr;

      for (int yy = y; yy < p->height && yy < y + 2; yy++)
        for (int xx = x; xx < p->width && xx < x + 2; xx++, count++) {
          const float *pixel = tensor + ((int64_t) yy * p->width + xx) * 3;

          red += (to_unit(pixel[0]) - luma(p, pixel)) / (2.0 * (1.0 - kr));
          blue += (to_unit(pixel[2]) - luma(p, pixel)) / (2.0 * (1.0 - kb));
        }
      chroma_at(p, x / 2, y / 2, &cb, &cr);
      *cb = to_byte(128.0 + 224.0 * blue / count);
      *cr = to_byte(128.0 + 224.0 * red / count);
    }
}

OsrResult
osr_ref_tensor_to_frame(OsrOpsContext *ctx, const OsrFrame *p)
{
  OSR_TRY(osr_check_frame(ctx, "tensor_to_frame", p, OSR_REF_DTYPES));

  if (p->format == OSR_PIXEL_RGB || p->format == OSR_PIXEL_RGBX)
    tensor_to_rgb(p);
  else
    tensor_to_yuv(p);
  return OSR_OK;
}

static void
rgb_to_tensor(const OsrFrame *p)
{
  const int bytes = p->format == OSR_PIXEL_RGB ? 3 : 4;
  float *pixel = p->tensor;

  for (int y = 0; y < p->height; y++)
    for (int x = 0; x < p->width; x++, pixel += 3) {
      const uint8_t *in = p->planes[0] + (ptrdiff_t) y * p->strides[0] + (ptrdiff_t) x * bytes;

      for (int c = 0; c < 3; c++)
        pixel[c] = (float) (in[c] / 127.5 - 1.0);
    }
}

/* The inverse of the above; a chroma sample serves its 2x2 pixels unchanged. */
static void
yuv_to_tensor(const OsrFrame *p)
{
  float *pixel = p->tensor;
  double kr, kb, kg;

  osr_matrix_luma(p->matrix, &kr, &kb);
  kg = 1.0 - kr - kb;
  for (int y = 0; y < p->height; y++)
    for (int x = 0; x < p->width; x++, pixel += 3) {
      double grey = (p->planes[0][(ptrdiff_t) y * p->strides[0] + x] - 16) / 219.0;
      double red, blue;
      uint8_t *cb, *cr;

      chroma_at(p, x / 2, y / 2, &cb, &cr);
      red = grey + 2.0 * (1.0 - kr) * (*cr - 128) / 224.0;
      blue = grey + 2.0 * (1.0 - kb) * (*cb - 128) / 224.0;
      pixel[0] = from_unit(red);
      pixel[1] = from_unit((grey - kr * red - kb * blue) / kg);
      pixel[2] = from_unit(blue);
    }
}

OsrResult
osr_ref_frame_to_tensor(OsrOpsContext *ctx, const OsrFrame *p)
{
  OSR_TRY(osr_check_frame(ctx, "frame_to_tensor", p, OSR_REF_DTYPES));

  if (p->format == OSR_PIXEL_RGB || p->format == OSR_PIXEL_RGBX)
    rgb_to_tensor(p);
  else
    yuv_to_tensor(p);
  return OSR_OK;
}
