/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize.c: references brought to the size of the clip. One way after the other: columns first,
 * and of these only those that stay.
 */
#include "resize.h"

#include <math.h>

#include "error.h"

/* What of a row or column becomes one pixel. */
typedef struct {
  guint first, n;
  float *weights;
} Taps;

static double
cubic(double x)
{
  const double a = -0.5;

  x = fabs(x);
  if (x < 1)
    return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/* @at: the middle of the new pixel, in pixels of the old row. */
static void
picture_taps(Taps *taps, double at, double scale, guint size)
{
  const double stretch = MAX(scale, 1.0), support = 2 * stretch;
  double sum = 0;
  guint end;

  taps->first = (guint) MAX((gint64) (at - support + 0.5), 0);
  end = (guint) MIN((gint64) (at + support + 0.5), (gint64) size);
  taps->n = end - taps->first;
  taps->weights = g_new(float, taps->n);
  for (guint i = 0; i < taps->n; i++)
    sum += cubic((taps->first + i - at + 0.5) / stretch);
  for (guint i = 0; i < taps->n; i++)
    taps->weights[i] = (float) (cubic((taps->first + i - at + 0.5) / stretch) / sum);
}

static void
video_taps(Taps *taps, double at, guint size)
{
  const double position = MAX(at - 0.5, 0.0);

  taps->first = MIN((guint) position, size - 1);
  taps->n = taps->first + 1 < size ? 2 : 1;
  taps->weights = g_new0(float, 2);
  taps->weights[taps->n - 1] = (float) (position - taps->first);
  taps->weights[0] = taps->n == 1 ? 1.0f : 1.0f - taps->weights[1];
}

/* Of pixels @from to @from + @n of @size scaled to @scaled. */
static Taps *
taps_new(OsrResize method, guint size, double scaled, double from, guint n)
{
  const double scale = size / scaled;
  Taps *taps = g_new(Taps, n);

  for (guint i = 0; i < n; i++) {
    const double at = (from + i + 0.5) * scale;

    if (method == OSR_RESIZE_PICTURE)
      picture_taps(&taps[i], at, scale, size);
    else
      video_taps(&taps[i], at, size);
  }
  return taps;
}

static void
taps_free(Taps *taps, guint n)
{
  for (guint i = 0; i < n; i++)
    g_free(taps[i].weights);
  g_free(taps);
}

static float
round_byte(float x)
{
  return CLAMP(floorf(x + 0.5f), 0.0f, 255.0f);
}

/* A row of @n pixels. Pictures are rounded to bytes on the way, as Pillow has nothing else. */
static void
scale_row(OsrResize method, const guint8 *src, const Taps *taps, guint n, float *row)
{
  for (guint i = 0; i < n; i++) {
    for (guint c = 0; c < 3; c++) {
      const guint8 *from = src + (gsize) taps[i].first * 3 + c;
      float sum = 0;

      for (guint t = 0; t < taps[i].n; t++)
        sum += taps[i].weights[t] * from[(gsize) t * 3];
      row[(gsize) i * 3 + c] = method == OSR_RESIZE_PICTURE ? round_byte(sum) : sum;
    }
  }
}

/* @rows: from the first that @taps take. */
static void
join_rows(const float *rows, const Taps *taps, gsize row_length, guint8 *dst)
{
  for (gsize i = 0; i < row_length; i++) {
    const float *from = rows + i;
    float sum = 0;

    for (guint t = 0; t < taps->n; t++)
      sum += taps->weights[t] * from[t * row_length];
    dst[i] = (guint8) round_byte(sum);
  }
}

/* Where what stays begins. Upstream rounds halves to even numbers in pictures, down in video. */
static double
margin(OsrResize method, double scaled, guint wanted)
{
  const double half = (scaled - wanted) / 2;

  return method == OSR_RESIZE_PICTURE ? rint(half) : floor(half);
}

gboolean
osr_resize_fill(OsrResize method, const guint8 *src, guint width, guint height, gsize stride,
                double aspect, guint8 *dst, guint dst_width, guint dst_height, gsize dst_stride,
                GError **error)
{
  const double shown = width * aspect;
  const double ratio_w = dst_width / shown, ratio_h = dst_height / (double) height;
  const gboolean wide = ratio_h > ratio_w;
  const double scaled_w = wide ? MAX(rint(shown * ratio_h), dst_width) : dst_width;
  const double scaled_h = wide ? dst_height : MAX(rint(height * ratio_w), dst_height);
  const gsize row_length = (gsize) dst_width * 3;
  g_autofree float *rows = NULL;
  Taps *columns, *lines;
  guint first, n_rows;

  g_return_val_if_fail(width >= 1 && height >= 1 && dst_width >= 1 && dst_height >= 1, FALSE);
  g_return_val_if_fail(isfinite(aspect) && aspect > 0, FALSE);

  columns = taps_new(method, width, scaled_w, margin(method, scaled_w, dst_width), dst_width);
  lines = taps_new(method, height, scaled_h, margin(method, scaled_h, dst_height), dst_height);
  first = lines[0].first;
  n_rows = lines[dst_height - 1].first + lines[dst_height - 1].n - first;
  rows = g_try_new(float, row_length *n_rows);
  if (rows) {
    for (guint y = 0; y < n_rows; y++)
      scale_row(method, src + (first + y) * stride, columns, dst_width, rows + y * row_length);
    for (guint y = 0; y < dst_height; y++)
      join_rows(rows + (lines[y].first - first) * row_length, &lines[y], row_length,
                dst + y * dst_stride);
  } else {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY, "no memory to scale %u x %u pixels", width,
                height);
  }
  taps_free(columns, dst_width);
  taps_free(lines, dst_height);
  return rows != NULL;
}
