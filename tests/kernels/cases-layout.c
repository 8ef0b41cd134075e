/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random calls of patchify, unpatchify, timestep, affine, copy2d, guidance_step, randn,
 * gaussian and blend. */
#include "checkops.h"

static void
draw_patches(Case *c, OsrPatchify *p)
{
  Rng *rng = &c->rng;
  int64_t features;

  p->batch = rng_range(rng, 1, 3);
  p->t = (int) rng_size(rng, 7);
  p->patch = (int) rng_range(rng, 1, 3);
  p->h = p->patch * (int) rng_size(rng, 9);
  p->w = p->patch * (int) rng_size(rng, 9);
  p->c = (int) rng_size(rng, 33);
  features = (int64_t) p->c * p->patch * p->patch;
  p->column = (int) (rng_one_in(rng, 2) ? 0 : rng_range(rng, 0, 70));
  p->ld = p->column + features + (rng_one_in(rng, 2) ? 0 : rng_range(rng, 0, 70));
  c->exact = true;
  case_dtype(c, &p->dtype, c->dtype);
  case_describe(c, "batch %lld, %d x %d x %d x %d, patch %d, columns %d of %lld",
                (long long) p->batch, p->t, p->h, p->w, p->c, p->patch, p->column,
                (long long) p->ld);
}

/* `field` points to the first column of the buffer; the features start at p->column. */
static void
case_tokens(Case *c, void *field, const char *name, Role role, const OsrPatchify *p)
{
  const int64_t rows = p->batch * p->t * (p->h / p->patch) * (p->w / p->patch);
  const int64_t features = (int64_t) p->c * p->patch * p->patch;
  Arg *tokens = case_matrix(c, field, name, role, c->dtype, 1, 0, rows, p->ld, 0, 0, 0);

  case_region(c, tokens, p->column, 1, 0, rows, p->ld, features, 0, 1);
}

void
build_patchify(Case *c)
{
  OsrPatchify p = { 0 };

  draw_patches(c, &p);
  case_array(c, &p.x, "latent", ROLE_IN, c->dtype, p.batch * p.t * p.h * p.w * p.c, 0, 1);
  case_tokens(c, &p.y, "tokens", ROLE_OUT, &p);
  case_run(c, &p);
}

void
build_unpatchify(Case *c)
{
  OsrPatchify p = { 0 };

  draw_patches(c, &p);
  case_tokens(c, &p.x, "tokens", ROLE_IN, &p);
  case_array(c, &p.y, "latent", ROLE_OUT, c->dtype, p.batch * p.t * p.h * p.w * p.c, 0, 1);
  case_run(c, &p);
}

void
build_timestep(Case *c)
{
  Rng *rng = &c->rng;
  OsrTimestep p = { 0 };
  Arg *t;

  p.m = rng_size(rng, 9);
  p.n = 2 * (int) rng_size(rng, 256);
  p.factor = rng_one_in(rng, 3) ? 1.0f : 1000.0f;
  p.max_period = rng_one_in(rng, 3) ? 100.0f : 10000.0f;
  case_dtype(c, &p.dtype, c->dtype);
  t = case_array(c, &p.t, "t", ROLE_IN, OSR_DTYPE_F32, p.m, 0, 1);
  for (int64_t i = 0; i < p.m; i++)
    arg_set(t, i, (double) rng_range(rng, 0, 1000) / 1000.0);
  case_array(c, &p.y, "y", ROLE_OUT, c->dtype, p.m * p.n, 0, 1);

  case_describe(c, "m %lld, n %d, factor %g, max_period %g", (long long) p.m, p.n,
                (double) p.factor, (double) p.max_period);
  case_run(c, &p);
}

void
build_affine(Case *c)
{
  Rng *rng = &c->rng;
  OsrAffine p = { 0 };
  bool in_place = rng_one_in(rng, 2);
  Arg *x;

  p.n = rng_size(rng, 5000);
  p.a = rng_one_in(rng, 4) ? 1.0f : (float) rng_normal(rng);
  p.b = rng_one_in(rng, 4) ? 0.0f : (float) rng_normal(rng);
  p.act = (OsrAct) rng_range(rng, OSR_ACT_NONE, OSR_ACT_QUICK_GELU);
  case_dtype(c, &p.dtype, c->dtype);
  x = case_array(c, &p.x, "x", in_place ? ROLE_INOUT : ROLE_IN, c->dtype, p.n, 0, 2);
  if (in_place)
    case_view(c, &p.y, x, 0);
  else
    case_array(c, &p.y, "y", ROLE_OUT, c->dtype, p.n, 0, 1);

  case_describe(c, "n %lld, a %g, b %g, act %d%s", (long long) p.n, (double) p.a, (double) p.b,
                (int) p.act, in_place ? ", in place" : "");
  case_run(c, &p);
}

/* What conversions get wrong: halves between two 16-bit numbers, subnormal and huge numbers,
 * infinities, NaN, signed zero. */
static double
draw_special(Rng *rng, OsrDType to)
{
  static const double specials[] = { 0.0,     -0.0,     INFINITY, -INFINITY, NAN,
                                     65504.0, 65519.99, 65520.0,  3.4e38,    -3.4e38,
                                     6e-8,    -2.98e-8, 9.2e-41,  1e-45 };
  uint16_t bits[2];
  double low, high;

  if (rng_one_in(rng, 4))
    return specials[rng_range(rng, 0, 13)];
  if (rng_one_in(rng, 2))
    return ldexp(rng_normal(rng), (int) rng_range(rng, -30, 30));
  /* Halfway between two neighbours, or next to it. */
  if (to != OSR_DTYPE_BF16)
    to = OSR_DTYPE_F16;
  bits[0] = (uint16_t) rng_range(rng, 0, to == OSR_DTYPE_BF16 ? 0x7F7E : 0x7BFE);
  bits[1] = bits[0] + 1;
  low = element_load(to, bits, 0);
  high = element_load(to, bits, 1);
  return (low + high) / 2.0 + (high - low) / 256.0 * (double) rng_range(rng, -1, 1);
}

void
build_copy2d(Case *c)
{
  static const OsrDType floats[] = { OSR_DTYPE_F32, OSR_DTYPE_BF16, OSR_DTYPE_F16, OSR_DTYPE_F64 };
  static const OsrDType others[] = { OSR_DTYPE_I32, OSR_DTYPE_I64, OSR_DTYPE_U8, OSR_DTYPE_BOOL };
  Rng *rng = &c->rng;
  OsrCopy2d p = { 0 };
  Arg *x, *y;

  /* Most of all between f32 and the 16-bit types. */
  p.x_dtype = rng_one_in(rng, 2) ? OSR_DTYPE_F32 : floats[rng_range(rng, 0, 3)];
  p.y_dtype =
      p.x_dtype == OSR_DTYPE_F32 ? floats[rng_range(rng, 1, 3)] : floats[rng_range(rng, 0, 3)];
  if (rng_one_in(rng, 8))
    p.x_dtype = p.y_dtype = floats[rng_range(rng, 0, 3)];
  if (rng_one_in(rng, 12))
    p.x_dtype = p.y_dtype = others[rng_range(rng, 0, 3)];
  c->may_lack = p.x_dtype == OSR_DTYPE_F64 || p.y_dtype == OSR_DTYPE_F64;
  c->exact = true;
  p.m = rng_size(rng, 40);
  p.n = rng_size(rng, 200);
  p.x_ld = case_ld(c, p.n);
  p.y_ld = case_ld(c, p.n);
  x = case_matrix(c, &p.x, "x", ROLE_IN, p.x_dtype, 1, 0, p.m, p.x_ld, p.n, 0, 1);
  x->ref_dtype = p.x_dtype;
  for (int64_t i = 0; i < p.m; i++)
    for (int64_t j = 0; j < p.n; j++)
      arg_set(x, i * p.x_ld + j,
              p.x_dtype >= OSR_DTYPE_I32 ? (double) rng_range(rng, 0, 200)
                                         : draw_special(rng, p.y_dtype));
  y = case_matrix(c, &p.y, "y", ROLE_OUT, p.y_dtype, 1, 0, p.m, p.y_ld, p.n, 0, 1);
  y->ref_dtype = p.y_dtype;

  case_describe(c, "%s to %s, %lld x %lld, x_ld %lld, y_ld %lld", osr_ops_dtype_name(p.x_dtype),
                osr_ops_dtype_name(p.y_dtype), (long long) p.m, (long long) p.n, (long long) p.x_ld,
                (long long) p.y_ld);
  case_run(c, &p);
}

void
build_guidance_step(Case *c)
{
  static const char *const names[] = { "pred 0", "pred 1", "pred 2" };
  static const char *const weights[] = { "weight 0", "weight 1", "weight 2" };
  Rng *rng = &c->rng;
  OsrGuidanceStep p = { 0 };
  int64_t n;

  p.frames = rng_size(rng, 9);
  p.tokens_per_frame = rng_size(rng, 70);
  p.n = (int) rng_size(rng, 70);
  p.dt = rng_one_in(rng, 2) ? -0.02f : 0.7f;
  p.n_preds = (int) rng_range(rng, 1, 3);
  n = p.frames * p.tokens_per_frame * p.n;
  case_dtype(c, &p.dtype, c->dtype);
  for (int i = 0; i < p.n_preds; i++) {
    case_array(c, &p.pred[i], names[i], ROLE_IN, c->dtype, n, 0, 1);
    case_array(c, &p.weight[i], weights[i], ROLE_IN, OSR_DTYPE_F32, p.frames, 0, 3);
  }
  case_array(c, &p.x, "x", ROLE_INOUT, c->dtype, n, 0, 1);

  case_describe(c, "%lld frames of %lld x %d, dt %g, %d predictions", (long long) p.frames,
                (long long) p.tokens_per_frame, p.n, (double) p.dt, p.n_preds);
  case_run(c, &p);
}

void
build_randn(Case *c)
{
  Rng *rng = &c->rng;
  OsrRandn p = { 0 };

  p.seed = rng_one_in(rng, 3) ? (uint64_t) rng_range(rng, 0, 100) : rng_next(rng);
  p.sequence = (uint32_t) (rng_one_in(rng, 3) ? rng_next(rng) : (uint64_t) rng_range(rng, 0, 3));
  p.t = (int) rng_size(rng, 9);
  p.h = (int) rng_size(rng, 24);
  p.w = (int) rng_size(rng, 24);
  p.c = (int) rng_size(rng, 20);
  if (rng_one_in(rng, 2))
    p.torch_blocks = (int) rng_range(rng, 1, 4);
  /* Ours are the same bits everywhere. */
  c->exact = !p.torch_blocks;
  case_dtype(c, &p.dtype, c->dtype);
  case_array(c, &p.y, "y", ROLE_OUT, c->dtype, (int64_t) p.t * p.h * p.w * p.c, 0, 1);

  case_describe(c, "seed %llu, sequence %u, torch blocks %d, %d x %d x %d x %d",
                (unsigned long long) p.seed, p.sequence, p.torch_blocks, p.t, p.h, p.w, p.c);
  case_run(c, &p);
}

void
build_gaussian(Case *c)
{
  Rng *rng = &c->rng;
  OsrGaussian p = { 0 };
  bool extreme = rng_one_in(rng, 6) && c->dtype != OSR_DTYPE_F16;
  Arg *moments;

  p.m = rng_size(rng, 200);
  p.c = (int) rng_size(rng, 33);
  p.scale = rng_one_in(rng, 3) ? 1.0f : 0.476986f;
  p.shift = rng_one_in(rng, 3) ? 0.0f : 0.1159f;
  case_dtype(c, &p.dtype, c->dtype);
  moments = case_array(c, &p.moments, "moments", ROLE_IN, c->dtype, p.m * 2 * p.c, 0, 1);
  /* exp(10) is the largest deviation: what the clamp leaves of a wild log-variance. */
  for (int64_t i = 0; extreme && i < p.m; i++)
    for (int64_t j = 0; j < p.c; j++)
      arg_set(moments, i * 2 * p.c + p.c + j, 25.0 * rng_normal(rng));
  if (!rng_one_in(rng, 4))
    case_array(c, &p.noise, "noise", ROLE_IN, c->dtype, p.m * p.c, 0, 1);
  case_array(c, &p.y, "y", ROLE_OUT, c->dtype, p.m * p.c, 0, 1);

  case_describe(c, "m %lld, c %d, scale %g, shift %g%s%s", (long long) p.m, p.c, (double) p.scale,
                (double) p.shift, p.noise ? ", noise" : "", extreme ? ", extreme" : "");
  case_run(c, &p);
}

void
build_blend(Case *c)
{
  Rng *rng = &c->rng;
  OsrBlend p = { 0 };

  p.outer = rng_size(rng, 20);
  p.a_len = rng_size(rng, 30);
  p.b_len = rng_size(rng, 30);
  p.inner = rng_size(rng, 70);
  p.extent = (int) rng_size(rng, 40);
  case_dtype(c, &p.dtype, c->dtype);
  case_array(c, &p.a, "a", ROLE_IN, c->dtype, p.outer * p.a_len * p.inner, 0, 1);
  case_array(c, &p.b, "b", ROLE_INOUT, c->dtype, p.outer * p.b_len * p.inner, 0, 1);

  case_describe(c, "outer %lld, lengths %lld and %lld, inner %lld, extent %d", (long long) p.outer,
                (long long) p.a_len, (long long) p.b_len, (long long) p.inner, p.extent);
  case_run(c, &p);
}
