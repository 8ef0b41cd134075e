/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conv3d */
#include "ref.h"

/* The index into the stored axis that position `i` of the padded, up-sampled axis reads, or
 * -1 where zero padding is read. `size` is the up-sampled length, `first_single` the rule of
 * time: frame 0 is kept once, the others twice. */
static int
source_index(int i, int size, int up, bool first_single, OsrPad pad)
{
  if (i < 0 || i >= size) {
    if (pad == OSR_PAD_ZERO)
      return -1;
    i = i < 0 ? 0 : size - 1;
  }
  if (up == 1)
    return i;
  return first_single ? (i + 1) / 2 : i / 2;
}

/* One output position (to, ho, wo), all channels. */
static void
convolve(const OsrConv3d *p, const float *x, int to, int ho, int wo, const float *residual,
         float *y)
{
  const float *w = p->w, *bias = p->bias;
  const int t_up = osr_conv3d_up_t(p), h_up = p->h * p->up_hw, w_up = p->w_in * p->up_hw;

  for (int co = 0; co < p->c_out; co++) {
    double sum = bias ? bias[co] : 0.0;

    for (int kt = 0; kt < p->k_t; kt++)
      for (int kh = 0; kh < p->k_h; kh++)
        for (int kw = 0; kw < p->k_w; kw++, w += p->c_in) {
          int ti = source_index(to * p->stride_t - p->pad_t[0] + kt, t_up, p->up_t, true, p->pad);
          int hi = source_index(ho * p->stride_h - p->pad_h[0] + kh, h_up, p->up_hw, false, p->pad);
          int wi = source_index(wo * p->stride_w - p->pad_w[0] + kw, w_up, p->up_hw, false, p->pad);
          const float *pixel;

          if (ti < 0 || hi < 0 || wi < 0)
            continue;
          pixel = x + (((int64_t) ti * p->h + hi) * p->w_in + wi) * p->c_in;
          for (int ci = 0; ci < p->c_in; ci++)
            sum += (double) pixel[ci] * w[ci];
        }
    y[co] = (float) (sum + (residual ? residual[co] : 0.0f));
  }
}

OsrResult
osr_ref_conv3d(OsrOpsContext *ctx, const OsrConv3d *p)
{
  const float *x = p->x, *residual = p->residual;
  float *y = p->y;
  int t_out, h_out, w_out;

  OSR_TRY(osr_check_conv3d(ctx, p, OSR_REF_DTYPES));
  if (p->w_dtype != OSR_DTYPE_F32)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: ref has no %s weights",
                    osr_ops_dtype_name(p->w_dtype));
  if (p->batch == 0 || p->t == 0 || p->h == 0 || p->w_in == 0 || p->c_out == 0)
    return OSR_OK;
  osr_conv3d_out(p, &t_out, &h_out, &w_out);

  for (int64_t b = 0; b < p->batch; b++, x += (int64_t) p->t * p->h * p->w_in * p->c_in)
    for (int to = 0; to < t_out; to++)
      for (int ho = 0; ho < h_out; ho++)
        for (int wo = 0; wo < w_out; wo++) {
          convolve(p, x, to, ho, wo, residual, y);
          y += p->c_out;
          residual = residual ? residual + p->c_out : NULL;
        }
  return OSR_OK;
}
