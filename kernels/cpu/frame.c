/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tensor_to_frame, frame_to_tensor
 *
 * In double like the reference: the work is nothing beside making the frame, and pixels
 * that lie on a rounding boundary come out the same.
 */
#include "cpu.h"

#include <string.h>

typedef struct Pixel {
  double r, g, b, y; /* in [0, 1] */
} Pixel;

typedef struct Matrix {
  double kr, kg, kb;
} Matrix;

typedef struct Frame {
  const OsrFrame *p;
  Matrix matrix;
  bool rgb;
} Frame;

static Frame
frame_of(const OsrFrame *p)
{
  Frame f = { .p = p, .rgb = p->format == OSR_PIXEL_RGB || p->format == OSR_PIXEL_RGBX };

  osr_matrix_luma(p->matrix, &f.matrix.kr, &f.matrix.kb);
  f.matrix.kg = 1.0 - f.matrix.kr - f.matrix.kb;
  return f;
}

/* [-1, 1] -> [0, 1]; what is outside is clamped, NaN becomes black. */
static double
to_unit(float v)
{
  return v > -1.0f ? (v < 1.0f ? ((double) v + 1.0) * 0.5 : 1.0) : 0.0;
}

static uint8_t
to_byte(double v)
{
  return (uint8_t) (v + 0.5);
}

static Pixel
load_pixel(const float *rgb, const Matrix *m)
{
  Pixel p = { .r = to_unit(rgb[0]), .g = to_unit(rgb[1]), .b = to_unit(rgb[2]) };

  p.y = m->kr * p.r + m->kg * p.g + m->kb * p.b;
  return p;
}

static void
row_to_rgb(const OsrFrame *p, int row)
{
  const int bytes = p->format == OSR_PIXEL_RGB ? 3 : 4;
  const float *from = (const float *) p->tensor + (int64_t) row * p->width * 3;
  uint8_t *to = p->planes[0] + (ptrdiff_t) row * p->strides[0];

  for (int x = 0; x < p->width; x++, from += 3, to += bytes) {
    for (int c = 0; c < 3; c++)
      to[c] = to_byte(255.0 * to_unit(from[c]));
    if (bytes == 4)
      to[3] = 255;
  }
}

/* Where the chroma samples of a row of them are, and how far apart. */
static int
chroma_row(const OsrFrame *p, int row, uint8_t **cb, uint8_t **cr)
{
  *cb = p->planes[1] + (ptrdiff_t) row * p->strides[1];
  if (p->format == OSR_PIXEL_NV12) {
    *cr = *cb + 1;
    return 2;
  }
  *cr = p->planes[2] + (ptrdiff_t) row * p->strides[2];
  return 1;
}

/* Two rows of luma (one, if the height is odd, at the end) and their row of chroma, each
 * sample the mean over the pixels of its 2x2 block that exist. */
static void
rows_to_yuv(const OsrFrame *p, const Matrix *m, int row)
{
  const int height = p->height - 2 * row < 2 ? 1 : 2;
  uint8_t *cb, *cr;
  const int step = chroma_row(p, row, &cb, &cr);

  for (int x = 0; x < p->width; x += 2, cb += step, cr += step) {
    const int width = p->width - x < 2 ? 1 : 2;
    double blue = 0.0, red = 0.0;

    for (int yy = 2 * row; yy < 2 * row + height; yy++)
      for (int xx = x; xx < x + width; xx++) {
        Pixel px = load_pixel((const float *) p->tensor + ((int64_t) yy * p->width + xx) * 3, m);

        p->planes[0][(ptrdiff_t) yy * p->strides[0] + xx] = to_byte(16.0 + 219.0 * px.y);
        red += (px.r - px.y) / (2.0 * (1.0 - m->kr));
        blue += (px.b - px.y) / (2.0 * (1.0 - m->kb));
      }
    *cb = to_byte(128.0 + 224.0 * blue / (width * height));
    *cr = to_byte(128.0 + 224.0 * red / (width * height));
  }
}

static void
to_frame_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Frame *f = data;

  (void) thread;
  for (int64_t row = begin; row < end; row++) {
    if (f->rgb)
      row_to_rgb(f->p, (int) row);
    else
      rows_to_yuv(f->p, &f->matrix, (int) row);
  }
}

OsrResult
osr_cpu_tensor_to_frame(OsrOpsContext *ctx, const OsrFrame *p)
{
  Frame f;

  OSR_TRY(osr_check_frame(ctx, "tensor_to_frame", p, OSR_CPU_DTYPES));
  if (p->width == 0)
    return OSR_OK;
  f = frame_of(p);
  osr_cpu_run_rows(ctx, 40.0 * p->width, f.rgb ? p->height : osr_frame_rows(1, p->height),
                   to_frame_task, &f);
  return OSR_OK;
}

static void
row_from_rgb(const OsrFrame *p, int row)
{
  const int bytes = p->format == OSR_PIXEL_RGB ? 3 : 4;
  const uint8_t *from = p->planes[0] + (ptrdiff_t) row * p->strides[0];
  float *to = (float *) p->tensor + (int64_t) row * p->width * 3;

  for (int x = 0; x < p->width; x++, from += bytes, to += 3)
    for (int c = 0; c < 3; c++)
      to[c] = (float) (from[c] / 127.5 - 1.0);
}

/* [0, 1] -> [-1, 1], clamped. */
static float
from_unit(double v)
{
  return (float) (fmin(fmax(v, 0.0), 1.0) * 2.0 - 1.0);
}

/* The inverse of the above; a chroma sample serves its 2x2 pixels unchanged. */
static void
row_from_yuv(const OsrFrame *p, const Matrix *m, int row)
{
  const uint8_t *luma = p->planes[0] + (ptrdiff_t) row * p->strides[0];
  float *to = (float *) p->tensor + (int64_t) row * p->width * 3;
  uint8_t *cb, *cr;
  const int step = chroma_row(p, row / 2, &cb, &cr);

  for (int x = 0; x < p->width; x++, to += 3) {
    const double grey = (luma[x] - 16) / 219.0;
    const double red = grey + 2.0 * (1.0 - m->kr) * (cr[x / 2 * step] - 128) / 224.0;
    const double blue = grey + 2.0 * (1.0 - m->kb) * (cb[x / 2 * step] - 128) / 224.0;

    to[0] = from_unit(red);
    to[1] = from_unit((grey - m->kr * red - m->kb * blue) / m->kg);
    to[2] = from_unit(blue);
  }
}

static void
from_frame_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Frame *f = data;

  (void) thread;
  for (int64_t row = begin; row < end; row++) {
    if (f->rgb)
      row_from_rgb(f->p, (int) row);
    else
      row_from_yuv(f->p, &f->matrix, (int) row);
  }
}

OsrResult
osr_cpu_frame_to_tensor(OsrOpsContext *ctx, const OsrFrame *p)
{
  Frame f;

  OSR_TRY(osr_check_frame(ctx, "frame_to_tensor", p, OSR_CPU_DTYPES));
  if (p->width == 0)
    return OSR_OK;
  f = frame_of(p);
  osr_cpu_run_rows(ctx, 40.0 * p->width, p->height, from_frame_task, &f);
  return OSR_OK;
}
