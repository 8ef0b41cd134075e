/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random calls of layer_norm, rms_norm, qk_norm_rope and group_norm. */
#include "checkops.h"

/* From what models use up to one that nobody can leave out unnoticed. Where a mean is taken
 * off (`centred`), two or three elements can be nearly equal: their variance is then rounding
 * alone, and without a large eps nobody is right about it. */
static float
draw_eps(Case *c, bool centred, int64_t count)
{
  static const float eps[] = { 1e-6f, 1e-5f, 1e-3f, 0.1f };

  return centred && count < 8 ? 0.1f : eps[rng_range(&c->rng, 0, 3)];
}

static double
draw_mean(Case *c, int64_t count)
{
  return count >= 8 && rng_one_in(&c->rng, 3) ? 3.0 : 0.0;
}

void
build_layer_norm(Case *c)
{
  Rng *rng = &c->rng;
  OsrLayerNorm p = { 0 };
  bool in_place = rng_one_in(rng, 3);
  double mean;
  Arg *x;

  p.batch = rng_range(rng, 1, 3);
  p.m = rng_size(rng, 60);
  p.n = case_width(c, rng_one_in(rng, 8) ? 9000 : 1200);
  p.eps = draw_eps(c, true, p.n);
  mean = draw_mean(c, p.n);
  case_dtype(c, &p.dtype, c->dtype);
  p.x_ld = case_ld(c, p.n);
  p.x_batch = case_stride(c, p.m, p.x_ld);
  x = case_matrix(c, &p.x, "x", in_place ? ROLE_INOUT : ROLE_IN, c->dtype, p.batch, p.x_batch, p.m,
                  p.x_ld, p.n, mean, 1);
  if (in_place) {
    p.y_ld = p.x_ld;
    p.y_batch = p.x_batch;
    case_view(c, &p.y, x, 0);
  } else {
    p.y_ld = case_ld(c, p.n);
    p.y_batch = case_stride(c, p.m, p.y_ld);
    case_matrix(c, &p.y, "y", ROLE_OUT, c->dtype, p.batch, p.y_batch, p.m, p.y_ld, p.n, 0, 1);
  }
  if (rng_one_in(rng, 2))
    case_array(c, &p.weight, "weight", ROLE_IN, c->dtype, p.n, 1, 0.5);
  if (rng_one_in(rng, 2))
    case_array(c, &p.bias, "bias", ROLE_IN, c->dtype, p.n, 0, 1);
  p.mod_batch = rng_one_in(rng, 3)   ? 0
                : rng_one_in(rng, 2) ? p.n
                                     : 6 * (int64_t) p.n + (c->aligned ? 0 : 3);
  if (rng_one_in(rng, 2))
    case_matrix(c, &p.scale, "scale", ROLE_IN, c->dtype, p.batch, p.mod_batch, 1, p.n, p.n, 0, 1);
  if (rng_one_in(rng, 2))
    case_matrix(c, &p.shift, "shift", ROLE_IN, c->dtype, p.batch, p.mod_batch, 1, p.n, p.n, 0, 1);

  case_describe(c, "batch %lld, m %lld, n %d, eps %g, x_ld %lld, mod_batch %lld%s%s%s%s%s",
                (long long) p.batch, (long long) p.m, p.n, (double) p.eps, (long long) p.x_ld,
                (long long) p.mod_batch, in_place ? ", in place" : "", p.weight ? ", weight" : "",
                p.bias ? ", bias" : "", p.scale ? ", scale" : "", p.shift ? ", shift" : "");
  case_run(c, &p);
}

void
build_rms_norm(Case *c)
{
  Rng *rng = &c->rng;
  OsrRmsNorm p = { 0 };
  bool in_place = rng_one_in(rng, 3);
  Arg *x;

  p.m = rng_size(rng, 100);
  p.n = case_width(c, rng_one_in(rng, 8) ? 9000 : 1200);
  p.eps = draw_eps(c, false, p.n);
  case_dtype(c, &p.dtype, c->dtype);
  p.x_ld = case_ld(c, p.n);
  x = case_matrix(c, &p.x, "x", in_place ? ROLE_INOUT : ROLE_IN, c->dtype, 1, 0, p.m, p.x_ld, p.n,
                  0, rng_one_in(rng, 4) ? 30 : 1);
  p.y_ld = in_place ? p.x_ld : case_ld(c, p.n);
  if (in_place)
    case_view(c, &p.y, x, 0);
  else
    case_matrix(c, &p.y, "y", ROLE_OUT, c->dtype, 1, 0, p.m, p.y_ld, p.n, 0, 1);
  case_array(c, &p.weight, "weight", ROLE_IN, c->dtype, p.n, 1, 0.5);

  case_describe(c, "m %lld, n %d, eps %g, x_ld %lld, y_ld %lld%s", (long long) p.m, p.n,
                (double) p.eps, (long long) p.x_ld, (long long) p.y_ld,
                in_place ? ", in place" : "");
  case_run(c, &p);
}

void
build_qk_norm_rope(Case *c)
{
  static const int head_dims[] = { 2, 4, 6, 16, 24, 32, 64, 72, 80, 128, 130, 256 };
  Rng *rng = &c->rng;
  OsrQkNormRope p = { 0 };
  bool one_buffer = rng_one_in(rng, 2);
  int64_t n;
  Arg *q;

  p.batch = rng_range(rng, 1, 3);
  p.m = rng_size(rng, 70);
  p.heads = (int) rng_range(rng, 1, 6);
  p.rope = (OsrRope) rng_range(rng, OSR_ROPE_NONE, OSR_ROPE_HALF);
  p.head_dim = head_dims[rng_range(rng, 0, 11)];
  if (p.rope == OSR_ROPE_NONE && rng_one_in(rng, 2))
    p.head_dim--;
  p.eps = draw_eps(c, false, p.head_dim);
  n = (int64_t) p.heads * p.head_dim;
  case_dtype(c, &p.dtype, c->dtype);

  p.ld = case_ld(c, one_buffer ? 3 * n : n);
  p.batch_stride = case_stride(c, p.m, p.ld);
  q = case_matrix(c, &p.q, one_buffer ? "qkv" : "q", ROLE_INOUT, c->dtype, p.batch, p.batch_stride,
                  p.m, p.ld, n, 0, 2);
  if (one_buffer && p.m > 0) {
    /* v stays poison: it is not the op's. */
    case_region(c, q, n, p.batch, p.batch_stride, p.m, p.ld, n, 0, 2);
    case_view(c, &p.k, q, n);
  } else {
    case_matrix(c, &p.k, "k", ROLE_INOUT, c->dtype, p.batch, p.batch_stride, p.m, p.ld, n, 0, 2);
  }
  if (!rng_one_in(rng, 4))
    case_array(c, &p.q_scale, "q_scale", ROLE_IN, c->dtype, p.head_dim, 1, 0.5);
  if (!rng_one_in(rng, 4))
    case_array(c, &p.k_scale, "k_scale", ROLE_IN, c->dtype, p.head_dim, 1, 0.5);
  if (p.rope != OSR_ROPE_NONE) {
    /* Any numbers will do: that they are of one angle is the caller's affair. */
    case_array(c, &p.cos, "cos", ROLE_IN, OSR_DTYPE_F32, p.m * (p.head_dim / 2), 0, 1);
    case_array(c, &p.sin, "sin", ROLE_IN, OSR_DTYPE_F32, p.m * (p.head_dim / 2), 0, 1);
  }

  case_describe(c, "batch %lld, m %lld, heads %d x %d, ld %lld, rope %d, eps %g%s%s%s",
                (long long) p.batch, (long long) p.m, p.heads, p.head_dim, (long long) p.ld,
                (int) p.rope, (double) p.eps, one_buffer ? ", one buffer" : "",
                p.q_scale ? ", q_scale" : "", p.k_scale ? ", k_scale" : "");
  case_run(c, &p);
}

void
build_group_norm(Case *c)
{
  Rng *rng = &c->rng;
  OsrGroupNorm p = { 0 };
  bool in_place = rng_one_in(rng, 3);
  int64_t n, count;
  Arg *x;

  p.batch = rng_range(rng, 1, 3);
  p.groups =
      (int) (rng_one_in(rng, 3) ? rng_range(rng, 1, 7) : (int64_t) 1 << rng_range(rng, 0, 5));
  p.channels = p.groups * (int) rng_range(rng, 1, 9);
  p.positions = rng_size(rng, 1100);
  count = p.positions * (p.channels / p.groups);
  p.eps = draw_eps(c, true, count);
  p.act = (OsrAct) rng_range(rng, OSR_ACT_NONE, OSR_ACT_QUICK_GELU);
  n = p.batch * p.positions * p.channels;
  case_dtype(c, &p.dtype, c->dtype);
  x = case_array(c, &p.x, "x", in_place ? ROLE_INOUT : ROLE_IN, c->dtype, n, draw_mean(c, count),
                 1);
  if (in_place)
    case_view(c, &p.y, x, 0);
  else
    case_array(c, &p.y, "y", ROLE_OUT, c->dtype, n, 0, 1);
  case_array(c, &p.weight, "weight", ROLE_IN, c->dtype, p.channels, 1, 0.5);
  case_array(c, &p.bias, "bias", ROLE_IN, c->dtype, p.channels, 0, 1);

  case_describe(c, "batch %lld, %lld positions, %d channels in %d groups, eps %g, act %d%s",
                (long long) p.batch, (long long) p.positions, p.channels, p.groups, (double) p.eps,
                (int) p.act, in_place ? ", in place" : "");
  case_run(c, &p);
}
