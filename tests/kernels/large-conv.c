/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Large calls of conv3d, against double at some voxels. */
#include "large.h"

#include <stdlib.h>
#include <string.h>

/* Sample of an axis that padded, up-sampled position `i` reads, -1 for a zero. */
static int
source(int i, int size, int up, bool first_single, OsrPad pad)
{
  const int length = up == 1 ? size : first_single ? 2 * size - 1 : 2 * size;

  if ((i < 0 || i >= length) && pad == OSR_PAD_ZERO)
    return -1;
  i = i < 0 ? 0 : i >= length ? length - 1 : i;
  return up == 1 ? i : first_single ? (i + 1) / 2 : i / 2;
}

/* What tap `tap` of output voxel `at` [t, h, w] reads, c_in numbers. */
static void
read_tap(const OsrConv3d *p, const Buffer *x, const int at[3], int tap, double *to)
{
  const int dt = tap / (p->k_h * p->k_w), dh = tap / p->k_w % p->k_h, dw = tap % p->k_w;
  const int t = source(at[0] * p->stride_t - p->pad_t[0] + dt, p->t, p->up_t, true, p->pad);
  const int h = source(at[1] * p->stride_h - p->pad_h[0] + dh, p->h, p->up_hw, false, p->pad);
  const int w = source(at[2] * p->stride_w - p->pad_w[0] + dw, p->w_in, p->up_hw, false, p->pad);

  if (t < 0 || h < 0 || w < 0)
    memset(to, 0, (size_t) p->c_in * sizeof *to);
  else
    large_get(x, (((int64_t) t * p->h + h) * p->w_in + w) * p->c_in, p->c_in, to);
}

static void
compare_conv(Large *l, const OsrConv3d *p, const Buffer *bufs[5], double limit)
{
  const int taps = p->k_t * p->k_h * p->k_w;
  const size_t k = (size_t) taps * (size_t) p->c_in, c_out = (size_t) p->c_out;
  double *patches = large_allocate(SAMPLES * k, sizeof *patches);
  double *weights = large_allocate(k, sizeof *weights);
  double *out = large_allocate(SAMPLES * c_out, sizeof *out);
  int64_t rows[SAMPLES];
  int t, h, w;

  osr_conv3d_out(p, &t, &h, &w);
  for (int i = 0; i < SAMPLES; i++) {
    int at[3];

    rows[i] = large_sample(l, i, (int64_t) t * h * w);
    at[0] = (int) (rows[i] / ((int64_t) h * w));
    at[1] = (int) (rows[i] / w % h);
    at[2] = (int) (rows[i] % w);
    for (int tap = 0; tap < taps; tap++)
      read_tap(p, bufs[0], at, tap, patches + (size_t) i * k + (size_t) tap * (size_t) p->c_in);
    if (bufs[3])
      large_get(bufs[3], rows[i] * p->c_out, p->c_out, out + (size_t) i * c_out);
  }
  for (size_t co = 0; co < c_out; co++) {
    large_get(bufs[1], (int64_t) (co * k), (int64_t) k, weights);
    for (int i = 0; i < SAMPLES; i++) {
      double sum = bufs[2]->values[co];

      for (size_t j = 0; j < k; j++)
        sum += weights[j] * patches[(size_t) i * k + j];
      out[(size_t) i * c_out + co] += sum;
    }
  }
  for (int i = 0; i < SAMPLES; i++)
    large_compare(l, bufs[4], rows[i], rows[i] * p->c_out, p->c_out, out + (size_t) i * c_out,
                  limit);
  free(patches);
  free(weights);
  free(out);
}

static void
check_conv3d(Large *l, int t, int h, int w, int c_in, int c_out, int up_t, int up_hw, int stride,
             bool residual)
{
  const double limit = large_product_limit(l);
  const Buffer *bufs[5] = { NULL };
  Buffer *x, *weights, *bias, *res = NULL, *y;
  OsrConv3d p = { .dtype = l->dtype,
                  .w_dtype = l->dtype,
                  .batch = 1,
                  .t = t,
                  .h = h,
                  .w_in = w,
                  .c_in = c_in,
                  .c_out = c_out,
                  .k_t = 3,
                  .k_h = 3,
                  .k_w = 3,
                  .stride_t = stride,
                  .stride_h = stride,
                  .stride_w = stride,
                  .pad_t = { 2, 0 },
                  .pad_h = { 1, 1 },
                  .pad_w = { 1, 1 },
                  .pad = OSR_PAD_REPLICATE,
                  .up_t = up_t,
                  .up_hw = up_hw };
  int64_t n_out;
  int to, ho, wo;

  osr_conv3d_out(&p, &to, &ho, &wo);
  n_out = (int64_t) to * ho * wo * c_out;
  p.x = large_input(l, l->dtype, (int64_t) t * h * w * c_in, 0, 1, &x);
  p.w = large_input(l, l->dtype, (int64_t) c_out * 27 * c_in, 0, 1 / sqrt(27.0 * c_in), &weights);
  p.bias = large_input(l, l->dtype, c_out, 0, 1, &bias);
  if (residual)
    p.residual = large_input(l, l->dtype, n_out, 0, 1, &res);
  p.y = large_output(l, n_out, &y);
  if (large_call(l, call_of("conv3d"), &p)) {
    bufs[0] = x;
    bufs[1] = weights;
    bufs[2] = bias;
    bufs[3] = res;
    bufs[4] = y;
    compare_conv(l, &p, bufs, limit);
  }
  large_finish(l, limit, "conv3d %d x %d x %d, %d to %d, up %d %d, stride %d%s", t, h, w, c_in,
               c_out, up_t, up_hw, stride, residual ? ", residual" : "");
}

void
large_conv3d(Large *l)
{
  check_conv3d(l, 33, 24, 42, 16, 512, 1, 1, 1, false);
  check_conv3d(l, 33, 24, 42, 512, 512, 1, 1, 1, true);
  check_conv3d(l, 33, 24, 42, 512, 512, 1, 2, 1, false);
  check_conv3d(l, 17, 48, 84, 512, 512, 2, 2, 1, false);
  check_conv3d(l, 17, 96, 168, 256, 128, 1, 1, 1, true);
  check_conv3d(l, 17, 96, 168, 128, 128, 1, 1, 2, false);
  check_conv3d(l, 17, 192, 336, 128, 3, 1, 1, 1, false);
  check_conv3d(l, 17, 192, 336, 3, 128, 1, 1, 1, false);
  if (l->dtype != OSR_DTYPE_F32)
    check_conv3d(l, 17, 768, 1360, 128, 128, 1, 1, 1, false);
}
