/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random calls of linear, glu and embedding. */
#include "checkops.h"

/* Mostly the type of the call; sometimes another one, which a backend may lack. */
static OsrDType
draw_w_dtype(Case *c)
{
  static const OsrDType others[] = { OSR_DTYPE_F32, OSR_DTYPE_BF16, OSR_DTYPE_F16,
                                     OSR_DTYPE_F8_E4M3 };
  OsrDType dtype = rng_one_in(&c->rng, 6) ? others[rng_range(&c->rng, 0, 3)] : c->dtype;

  if (dtype != c->dtype)
    c->may_lack = true;
  return dtype;
}

void
build_linear(Case *c)
{
  Rng *rng = &c->rng;
  OsrLinear p = { 0 };
  bool in_place = rng_one_in(rng, 3);
  int64_t cap = rng_one_in(rng, 12) ? 30000000 : 1000000;
  OsrDType w_dtype = draw_w_dtype(c);
  Arg *y;

  p.batch = rng_one_in(rng, 2) ? 1 : rng_range(rng, 1, 4);
  p.m = rng_size(rng, 700);
  p.n = case_width(c, 1100);
  p.k = case_width(c, 1100);
  if (p.k == 0)
    p.k = 1;
  while (p.batch * p.m * p.n * p.k > cap) {
    if (p.m > p.n && p.m > p.k)
      p.m = (p.m + 1) / 2;
    else if (p.n > p.k)
      p.n = (p.n + 1) / 2;
    else
      p.k = (p.k + 1) / 2;
  }
  if (c->aligned && p.n > 8 && p.k > 8) {
    p.n -= p.n % 8;
    p.k -= p.k % 8;
  }
  p.act = (OsrAct) (rng_one_in(rng, 2) ? 0 : rng_range(rng, OSR_ACT_NONE, OSR_ACT_QUICK_GELU));
  c->tolerance = product_tolerance(c->target, c->dtype);

  case_dtype(c, &p.dtype, c->dtype);
  case_dtype(c, &p.w_dtype, w_dtype);
  p.x_ld = case_ld(c, p.k);
  p.x_batch = case_stride(c, p.m, p.x_ld);
  case_matrix(c, &p.x, "x", ROLE_IN, c->dtype, p.batch, p.x_batch, p.m, p.x_ld, p.k, 0, 1);
  case_array(c, &p.w, "w", ROLE_IN, w_dtype, (int64_t) p.n * p.k, 0, 1 / sqrt(p.k));
  if (rng_one_in(rng, 2))
    case_array(c, &p.bias, "bias", ROLE_IN, c->dtype, p.n, 0, 1);
  if (w_dtype == OSR_DTYPE_F8_E4M3 || rng_one_in(rng, 8)) {
    case_array(c, &p.w_scale, "w_scale", ROLE_IN, OSR_DTYPE_F32, p.n, 1, 0.3);
    c->may_lack = true;
  }
  if (rng_one_in(rng, 2)) {
    /* One gate for all, gates side by side, or one part of a longer modulation vector. */
    p.gate_batch = rng_one_in(rng, 3) ? 0 : rng_one_in(rng, 2) ? p.n : 6 * (int64_t) p.n;
    case_matrix(c, &p.gate, "gate", ROLE_IN, c->dtype, p.batch, p.gate_batch, 1, p.n, p.n, 0, 1);
  }

  p.y_ld = case_ld(c, p.n);
  p.y_batch = case_stride(c, p.m, p.y_ld);
  y = case_matrix(c, &p.y, "y", in_place ? ROLE_INOUT : ROLE_OUT, c->dtype, p.batch, p.y_batch, p.m,
                  p.y_ld, p.n, 0, 1);
  if (in_place) {
    p.residual_ld = p.y_ld;
    p.residual_batch = p.y_batch;
    case_view(c, &p.residual, y, 0);
  } else if (rng_one_in(rng, 2)) {
    p.residual_ld = case_ld(c, p.n);
    p.residual_batch = case_stride(c, p.m, p.residual_ld);
    case_matrix(c, &p.residual, "residual", ROLE_IN, c->dtype, p.batch, p.residual_batch, p.m,
                p.residual_ld, p.n, 0, 1);
  }

  case_describe(c,
                "%s weights, batch %lld, m %lld, n %d, k %d, x_ld %lld, y_ld %lld, act %d%s%s%s%s",
                osr_ops_dtype_name(w_dtype), (long long) p.batch, (long long) p.m, p.n, p.k,
                (long long) p.x_ld, (long long) p.y_ld, (int) p.act, p.bias ? ", bias" : "",
                p.gate ? ", gate" : "", p.w_scale ? ", w_scale" : "",
                in_place     ? ", residual is y"
                : p.residual ? ", residual"
                             : "");
  case_run(c, &p);
}

void
build_glu(Case *c)
{
  Rng *rng = &c->rng;
  OsrGlu p = { 0 };

  p.m = rng_size(rng, 100);
  p.n = case_width(c, 600);
  p.act = (OsrAct) rng_range(rng, OSR_ACT_NONE, OSR_ACT_QUICK_GELU);
  p.x_ld = case_ld(c, 2 * (int64_t) p.n);
  p.y_ld = case_ld(c, p.n);
  case_dtype(c, &p.dtype, c->dtype);
  case_matrix(c, &p.x, "x", ROLE_IN, c->dtype, 1, 0, p.m, p.x_ld, 2 * (int64_t) p.n, 0, 2);
  case_matrix(c, &p.y, "y", ROLE_OUT, c->dtype, 1, 0, p.m, p.y_ld, p.n, 0, 1);

  case_describe(c, "m %lld, n %d, x_ld %lld, y_ld %lld, act %d", (long long) p.m, p.n,
                (long long) p.x_ld, (long long) p.y_ld, (int) p.act);
  case_run(c, &p);
}

void
build_embedding(Case *c)
{
  Rng *rng = &c->rng;
  OsrEmbedding p = { 0 };
  Arg *ids;

  p.m = rng_size(rng, 100);
  p.n = case_width(c, 300);
  p.vocab = (int) rng_range(rng, 1, 200);
  case_dtype(c, &p.dtype, c->dtype);
  ids = case_array(c, &p.ids, "ids", ROLE_IN, OSR_DTYPE_I32, p.m, 0, 0);
  for (int64_t i = 0; i < p.m; i++)
    arg_set(ids, i, (double) rng_range(rng, 0, p.vocab - 1));
  case_array(c, &p.table, "table", ROLE_IN, c->dtype, (int64_t) p.vocab * p.n, 0, 1);
  if (rng_one_in(rng, 2)) {
    p.n_positions = (int) rng_range(rng, 1, 80);
    case_array(c, &p.positions, "positions", ROLE_IN, c->dtype, (int64_t) p.n_positions * p.n, 0,
               1);
  }
  /* A plain look-up is a copy. */
  c->exact = !p.positions;
  case_array(c, &p.y, "y", ROLE_OUT, c->dtype, p.m * p.n, 0, 1);

  case_describe(c, "m %lld, n %d, vocabulary %d, %d positions", (long long) p.m, p.n, p.vocab,
                p.n_positions);
  case_run(c, &p);
}
