/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The loops of one instruction set: compiled several times, OSR_LOOPS is the table's name. */
#include "loops.h"

#include "tile.h"
#include "vmath.h"

#include <math.h>

static void
affine(OsrAct act, float a, float b, const float *x, float *y, int64_t n)
{
#define LOOP(act) _Pragma("omp simd") for (int64_t i = 0; i < n; i++) y[i] = act(a * x[i] + b)
  VMATH_FOR_ACT(act, LOOP)
#undef LOOP
}

/* y = residual + gate * (c * scale + bias) for one row */
INLINE void
finish_row(const float *c, const float *scale, const float *bias, const float *gate,
           const float *residual, int cols, float *y)
{
  int j = 0;

  for (; j + LANES <= cols; j += LANES) {
    vf v = *(const vf_any *) (c + j);

    if (scale)
      v *= *(const vf_any *) (scale + j);
    if (bias)
      v += *(const vf_any *) (bias + j);
    if (gate)
      v *= *(const vf_any *) (gate + j);
    if (residual)
      v += *(const vf_any *) (residual + j);
    *(vf_any *) (y + j) = v;
  }
  for (; j < cols; j++) {
    float v = c[j] * (scale ? scale[j] : 1.0f) + (bias ? bias[j] : 0.0f);

    y[j] = v * (gate ? gate[j] : 1.0f) + (residual ? residual[j] : 0.0f);
  }
}

static void
epilogue(const OsrEpilogue *e, float *c, ptrdiff_t c_ld, int rows, int cols)
{
  const float *scale = e->scale, *bias = e->bias;

  /* An activation is a pass of its own over the product, which is in the cache. */
  if (e->act != OSR_ACT_NONE) {
    for (int i = 0; i < rows; i++) {
      float *row = c + i * c_ld;

      finish_row(row, scale, bias, NULL, NULL, cols, row);
      affine(e->act, 1.0f, 0.0f, row, row, cols);
    }
    scale = bias = NULL;
  }
  for (int i = 0; i < rows; i++)
    finish_row(c + i * c_ld, scale, bias, e->gate,
               e->residual ? e->residual + i * e->residual_ld : NULL, cols, e->y + i * e->y_ld);
}

static void
glu(OsrAct act, const float *x, int n, float *y)
{
#define LOOP(act) _Pragma("omp simd") for (int j = 0; j < n; j++) y[j] = act(x[j]) * x[n + j]
  VMATH_FOR_ACT(act, LOOP)
#undef LOOP
}

static void
layer_norm(const float *x, int n, float eps, const float *weight, const float *bias,
           const float *scale, const float *shift, float *y)
{
  float mean = 0.0f, var = 0.0f, inverse;

#pragma omp simd reduction(+ : mean)
  for (int j = 0; j < n; j++)
    mean += x[j];
  mean /= (float) n;
#pragma omp simd reduction(+ : var)
  for (int j = 0; j < n; j++)
    var += (x[j] - mean) * (x[j] - mean);
  inverse = 1.0f / sqrtf(var / (float) n + eps);

  if (!weight && !bias && scale && shift) { /* adaLN of a DiT: most calls */
#pragma omp simd
    for (int j = 0; j < n; j++)
      y[j] = (x[j] - mean) * inverse * (1.0f + scale[j]) + shift[j];
    return;
  }
#pragma omp simd
  for (int j = 0; j < n; j++)
    y[j] = (x[j] - mean) * inverse;
  if (weight)
#pragma omp simd
    for (int j = 0; j < n; j++)
      y[j] *= weight[j];
  if (bias)
#pragma omp simd
    for (int j = 0; j < n; j++)
      y[j] += bias[j];
  if (scale)
#pragma omp simd
    for (int j = 0; j < n; j++)
      y[j] *= 1.0f + scale[j];
  if (shift)
#pragma omp simd
    for (int j = 0; j < n; j++)
      y[j] += shift[j];
}

static float
inverse_rms(const float *x, int n, float eps)
{
  float sum = 0.0f;

#pragma omp simd reduction(+ : sum)
  for (int j = 0; j < n; j++)
    sum += x[j] * x[j];
  return 1.0f / sqrtf(sum / (float) n + eps);
}

static void
rms_norm(const float *x, int n, float eps, const float *weight, float *y)
{
  const float inverse = inverse_rms(x, n, eps);

#pragma omp simd
  for (int j = 0; j < n; j++)
    y[j] = x[j] * inverse * weight[j];
}

static void
norm_rope(float *x, int head_dim, const float *scale, float eps, OsrRope rope, const float *cos,
          const float *sin)
{
  const int half = head_dim / 2;

  if (scale)
    rms_norm(x, head_dim, eps, scale, x);
  if (rope == OSR_ROPE_INTERLEAVED) {
#pragma omp simd
    for (int i = 0; i < half; i++) {
      float a = x[2 * i], b = x[2 * i + 1];

      x[2 * i] = a * cos[i] - b * sin[i];
      x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
  } else if (rope == OSR_ROPE_HALF) {
#pragma omp simd
    for (int i = 0; i < half; i++) {
      float a = x[i], b = x[half + i];

      x[i] = a * cos[i] - b * sin[i];
      x[half + i] = b * cos[i] + a * sin[i];
    }
  }
}

static float
softmax(float *s, int n, int width, const float *bias, float *max, float *sum)
{
  const float before = *max;
  float top, total = 0.0f, shrink;

  if (bias) {
#pragma omp simd
    for (int j = 0; j < n; j++)
      s[j] += bias[j];
  }
  top = max_of(s, n, before);
#pragma omp simd reduction(+ : total)
  for (int j = 0; j < n; j++) {
    s[j] = vexp(s[j] - top);
    total += s[j];
  }
  for (int j = n; j < width; j++)
    s[j] = 0.0f;

  /* Nothing was summed before the first key. */
  shrink = before == -INFINITY ? 0.0f : expf(before - top);
  *max = top;
  *sum = *sum * shrink + total;
  return shrink;
}

static void
channel_sums(const float *x, int64_t positions, int channels, float *sums)
{
  int64_t p = 0;

  memset(sums, 0, (size_t) channels * sizeof *sums);
  /* Four positions a pass: a quarter of the traffic with `sums`, and pairwise addition. */
  for (; p + 4 <= positions; p += 4, x += 4 * (ptrdiff_t) channels) {
    const float *x1 = x + channels, *x2 = x1 + channels, *x3 = x2 + channels;

#pragma omp simd
    for (int c = 0; c < channels; c++)
      sums[c] += (x[c] + x1[c]) + (x2[c] + x3[c]);
  }
  for (; p < positions; p++, x += channels)
#pragma omp simd
    for (int c = 0; c < channels; c++)
      sums[c] += x[c];
}

static void
channel_squares(const float *x, int64_t positions, int channels, const float *mean, float *sums)
{
  int64_t p = 0;

  memset(sums, 0, (size_t) channels * sizeof *sums);
  for (; p + 4 <= positions; p += 4, x += 4 * (ptrdiff_t) channels) {
    const float *x1 = x + channels, *x2 = x1 + channels, *x3 = x2 + channels;

#pragma omp simd
    for (int c = 0; c < channels; c++) {
      float d0 = x[c] - mean[c], d1 = x1[c] - mean[c];
      float d2 = x2[c] - mean[c], d3 = x3[c] - mean[c];

      sums[c] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3);
    }
  }
  for (; p < positions; p++, x += channels)
#pragma omp simd
    for (int c = 0; c < channels; c++)
      sums[c] += (x[c] - mean[c]) * (x[c] - mean[c]);
}

static void
channel_norm(OsrAct act, const float *x, int64_t positions, int channels, const float *mean,
             const float *a, const float *b, float *y)
{
#define LOOP(act)                                                                                  \
  for (int64_t p = 0; p < positions; p++, x += channels, y += channels)                            \
  _Pragma("omp simd") for (int c = 0; c < channels; c++) y[c] = act((x[c] - mean[c]) * a[c] + b[c])
  VMATH_FOR_ACT(act, LOOP)
#undef LOOP
}

const OsrLoops OSR_LOOPS = {
  .name = OSR_LOOPS_LABEL,
  .tile_rows = TILE_ROWS,
  .tile_cols = TILE_COLS,
  .tile = tile,
  .dots = dots,
  .pack = pack,
  .epilogue = epilogue,
  .affine = affine,
  .glu = glu,
  .layer_norm = layer_norm,
  .rms_norm = rms_norm,
  .norm_rope = norm_rope,
  .softmax = softmax,
  .channel_sums = channel_sums,
  .channel_squares = channel_squares,
  .channel_norm = channel_norm,
};
