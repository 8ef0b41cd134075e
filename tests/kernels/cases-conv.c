/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random calls of conv3d: the combinations of the real models, and any other. */
#include "checkops.h"

#include <string.h>

static void
set_pads(OsrConv3d *p, int t0, int t1, int hw0, int hw1)
{
  p->pad_t[0] = t0;
  p->pad_t[1] = t1;
  p->pad_h[0] = p->pad_w[0] = hw0;
  p->pad_h[1] = p->pad_w[1] = hw1;
}

static void
set_kernel(OsrConv3d *p, int t, int hw)
{
  p->k_t = t;
  p->k_h = p->k_w = hw;
}

static void
draw_kernel(Case *c, OsrConv3d *p)
{
  Rng *rng = &c->rng;

  p->stride_t = p->stride_h = p->stride_w = 1;
  p->up_t = p->up_hw = 1;
  p->pad = OSR_PAD_ZERO;
  switch (rng_range(rng, 0, 6)) {
  case 0: /* HunyuanVideo: causal, at the end of a down block with strides */
    set_kernel(p, 3, 3);
    set_pads(p, 2, 0, 1, 1);
    p->pad = OSR_PAD_REPLICATE;
    p->stride_t = (int) rng_range(rng, 1, 2);
    p->stride_h = p->stride_w = (int) rng_range(rng, 1, 2);
    break;
  case 1: /* the same after up-sampling */
    set_kernel(p, 3, 3);
    set_pads(p, 2, 0, 1, 1);
    p->pad = OSR_PAD_REPLICATE;
    p->up_t = (int) rng_range(rng, 1, 2);
    p->up_hw = (int) rng_range(rng, 1, 2);
    break;
  case 2: /* short-cuts and quantisation convolutions */
    set_kernel(p, 1, 1);
    break;
  case 3: /* 2-D convolutions of an image autoencoder */
    set_kernel(p, 1, 3);
    set_pads(p, 0, 0, 1, 1);
    p->up_hw = (int) rng_range(rng, 1, 2);
    break;
  case 4: /* its down-sampling pads right and bottom alone */
    set_kernel(p, 1, 3);
    set_pads(p, 0, 0, 0, 1);
    p->stride_h = p->stride_w = 2;
    break;
  case 5: /* patch embedding */
    set_kernel(p, 1, 2);
    p->stride_h = p->stride_w = 2;
    break;
  default:
    p->k_t = (int) rng_range(rng, 1, 4);
    p->k_h = (int) rng_range(rng, 1, 5);
    p->k_w = (int) rng_range(rng, 1, 5);
    p->stride_t = (int) rng_range(rng, 1, 3);
    p->stride_h = (int) rng_range(rng, 1, 3);
    p->stride_w = (int) rng_range(rng, 1, 3);
    for (int i = 0; i < 2; i++) {
      p->pad_t[i] = (int) rng_range(rng, 0, 3);
      p->pad_h[i] = (int) rng_range(rng, 0, 3);
      p->pad_w[i] = (int) rng_range(rng, 0, 3);
    }
    p->up_t = (int) rng_range(rng, 1, 2);
    p->up_hw = (int) rng_range(rng, 1, 2);
    p->pad = (OsrPad) rng_range(rng, OSR_PAD_ZERO, OSR_PAD_REPLICATE);
    break;
  }
}

static int64_t
work(const OsrConv3d *p)
{
  int t, h, w;

  osr_conv3d_out(p, &t, &h, &w);
  return p->batch * t * h * w * p->c_out * p->c_in * p->k_t * p->k_h * p->k_w;
}

/* The size of an axis whose padded length takes the kernel. */
static int
draw_axis(Case *c, int max, int up, const int pad[2], int k)
{
  int size = (int) rng_size(&c->rng, max);

  while (size > 0 && size * up - (up - 1) + pad[0] + pad[1] < k)
    size++;
  return size;
}

static void
shrink_axis(int *size, int up, const int pad[2], int k)
{
  const int half = (*size + 1) / 2;

  if (half * up - (up - 1) + pad[0] + pad[1] >= k)
    *size = half;
}

static void
shrink(OsrConv3d *p)
{
  shrink_axis(&p->t, p->up_t, p->pad_t, p->k_t);
  shrink_axis(&p->h, p->up_hw, p->pad_h, p->k_h);
  shrink_axis(&p->w_in, p->up_hw, p->pad_w, p->k_w);
}

void
build_conv3d(Case *c)
{
  static const int channels[] = { 1,  2,  3,  4,  5,  8,  13,  16,  17,
                                  24, 32, 48, 64, 65, 96, 128, 256, 512 };
  Rng *rng = &c->rng;
  OsrConv3d p = { 0 };
  bool in_place = rng_one_in(rng, 4);
  OsrDType w_dtype = c->dtype;
  int64_t cap = rng_one_in(rng, 12) ? 30000000 : 3000000, n_out = 0;
  Arg *y;

  draw_kernel(c, &p);
  p.batch = rng_one_in(rng, 2) ? 1 : rng_range(rng, 1, 3);
  p.t = rng_one_in(rng, 4) ? 1 : draw_axis(c, 9, p.up_t, p.pad_t, p.k_t);
  if (osr_conv3d_up_t(&p) + p.pad_t[0] + p.pad_t[1] < p.k_t)
    p.t = draw_axis(c, 9, p.up_t, p.pad_t, p.k_t);
  p.h = draw_axis(c, 33, p.up_hw, p.pad_h, p.k_h);
  p.w_in = draw_axis(c, 33, p.up_hw, p.pad_w, p.k_w);
  p.c_in = channels[rng_range(rng, 0, 17)];
  p.c_out = channels[rng_range(rng, 0, 17)];
  /* Half of the cases keep their channels, which choose the kernel, and get small. */
  for (int i = 0; c->aligned && i < 8 && work(&p) > cap; i++)
    shrink(&p);
  while (work(&p) > cap && p.c_in * p.c_out > 1) {
    if (p.c_in >= p.c_out)
      p.c_in = (p.c_in + 1) / 2;
    else
      p.c_out = (p.c_out + 1) / 2;
  }

  c->tolerance = product_tolerance(c->target, c->dtype);
  case_dtype(c, &p.dtype, c->dtype);
  if (rng_one_in(rng, 10)) {
    w_dtype = rng_one_in(rng, 2) ? OSR_DTYPE_BF16 : OSR_DTYPE_F32;
    c->may_lack = w_dtype != c->dtype;
  }
  case_dtype(c, &p.w_dtype, w_dtype);
  case_array(c, &p.x, "x", ROLE_IN, c->dtype, p.batch * p.t * p.h * p.w_in * p.c_in, 0, 1);
  case_array(c, &p.w, "w", ROLE_IN, w_dtype, (int64_t) p.c_out * p.k_t * p.k_h * p.k_w * p.c_in, 0,
             1 / sqrt((double) p.c_in * p.k_t * p.k_h * p.k_w));
  if (!rng_one_in(rng, 3))
    case_array(c, &p.bias, "bias", ROLE_IN, c->dtype, p.c_out, 0, 1);
  if (p.t > 0 && p.h > 0 && p.w_in > 0) {
    int t, h, w;

    osr_conv3d_out(&p, &t, &h, &w);
    n_out = p.batch * t * h * w * p.c_out;
  }
  y = case_array(c, &p.y, "y", in_place ? ROLE_INOUT : ROLE_OUT, c->dtype, n_out, 0, 1);
  y->ld = p.c_out; /* messages say which voxel */
  if (in_place)
    case_view(c, &p.residual, y, 0);
  else if (rng_one_in(rng, 3))
    case_array(c, &p.residual, "residual", ROLE_IN, c->dtype, n_out, 0, 1);

  case_describe(c,
                "%s weights, batch %lld, %d x %d x %d, channels %d to %d, kernel %d x %d x %d, "
                "stride %d %d %d, pad %d+%d %d+%d %d+%d %s, up %d %d%s%s",
                osr_ops_dtype_name(w_dtype), (long long) p.batch, p.t, p.h, p.w_in, p.c_in, p.c_out,
                p.k_t, p.k_h, p.k_w, p.stride_t, p.stride_h, p.stride_w, p.pad_t[0], p.pad_t[1],
                p.pad_h[0], p.pad_h[1], p.pad_w[0], p.pad_w[1],
                p.pad == OSR_PAD_ZERO ? "zero" : "replicate", p.up_t, p.up_hw,
                p.bias ? ", bias" : "",
                in_place     ? ", residual is y"
                : p.residual ? ", residual"
                             : "");
  case_run(c, &p);
}
