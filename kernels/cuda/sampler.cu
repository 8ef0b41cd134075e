/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * timestep, guidance_step, randn, gaussian, blend: small tensors, at most a few MB, so what
 * these cost is mostly their launch (2 to 4 us). On tensors of some 20 MB and more, expected:
 * 85 to 90 % of the copy bandwidth, but for randn, which is 32-bit multiplications and double
 * precision throughout.
 */
#include "device.cuh"

#include "../philox.h"

/* --- timestep --- */

template <typename T>
static __global__ void __launch_bounds__(256)
    timestep(const float *t, T *y, int64_t m, int half, float factor, float max_period)
{
  const int64_t row = osr_grid_row();

  if (row >= m)
    return;
  for (OSR_GRID_ITEMS(j, half, 1)) {
    /* Rounded step by step: see osr_timestep_freq(). */
    const float phase = factor * t[row] * osr_timestep_freq(max_period, (int) j, half);

    y[row * 2 * half + j] = osr_round<T>((float) cos((double) phase));
    y[row * 2 * half + half + j] = osr_round<T>((float) sin((double) phase));
  }
}

extern "C" OsrResult
osr_cuda_timestep(OsrOpsContext *ctx, const OsrTimestep *p)
{
  OsrRowGrid g;

  OSR_TRY(osr_cuda_begin(ctx, "timestep"));
  OSR_TRY(osr_check_timestep(ctx, p, OSR_CUDA_DTYPES));
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  if (!osr_row_grid(p->m, p->n / 2, 1, &g))
    return osr_too_large(ctx, "timestep");

  OSR_CUDA_TYPED(p->dtype, {
    timestep<T><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(p->t, (T *) p->y, p->m, p->n / 2,
                                                               p->factor, p->max_period);
  });
  return osr_cuda_launched(ctx, "timestep: m %lld, n %d", (long long) p->m, p->n);
}

/* --- guidance_step --- */

/* A row of the grid is a frame. Products and sums are rounded one by one, as the CPU does. */
template <typename T, int V>
static __global__ void __launch_bounds__(256) guidance_step(OsrGuidanceStep p, int64_t frame_size)
{
  const int64_t frame = osr_grid_row();

  if (frame >= p.frames)
    return;
  for (OSR_GRID_ITEMS(item, frame_size / V, 1)) {
    const int64_t at = frame * frame_size + item * V;
    float x[V], sum[V] = {};

    osr_load_floats((const T *) p.x + at, x);
#pragma unroll
    for (int i = 0; i < 3; i++)
      if (i < p.n_preds) {
        const float weight = p.weight[i][frame];
        float pred[V];

        osr_load_floats((const T *) p.pred[i] + at, pred);
#pragma unroll
        for (int k = 0; k < V; k++)
          sum[k] = __fadd_rn(sum[k], __fmul_rn(weight, pred[k]));
      }
#pragma unroll
    for (int k = 0; k < V; k++)
      x[k] = __fadd_rn(x[k], __fmul_rn(p.dt, sum[k]));
    osr_store((T *) p.x + at, x);
  }
}

extern "C" OsrResult
osr_cuda_guidance_step(OsrOpsContext *ctx, const OsrGuidanceStep *p)
{
  OsrRowGrid g;

  OSR_TRY(osr_cuda_begin(ctx, "guidance_step"));
  OSR_TRY(osr_check_guidance_step(ctx, p, OSR_CUDA_DTYPES));
  if (p->frames == 0 || p->tokens_per_frame == 0 || p->n == 0)
    return OSR_OK;

  OSR_CUDA_TYPED(p->dtype, {
    constexpr int V = osr_width<T>;
    const int64_t frame_size = p->tokens_per_frame * p->n;
    bool wide = osr_aligned(p->x, 16) && frame_size % V == 0;

    for (int i = 0; i < p->n_preds; i++)
      wide = wide && osr_aligned(p->pred[i], 16);
    if (!osr_row_grid(p->frames, wide ? frame_size / V : frame_size, 1, &g))
      return osr_too_large(ctx, "guidance_step");
    if (wide)
      guidance_step<T, V><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(*p, frame_size);
    else
      guidance_step<T, 1><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(*p, frame_size);
  });
  return osr_cuda_launched(ctx, "guidance_step: %lld frames of %lld x %d", (long long) p->frames,
                           (long long) p->tokens_per_frame, p->n);
}

/* --- randn --- */

template <typename T>
static __global__ void __launch_bounds__(256) randn(T *y, OsrDraws draws, int64_t positions, int c)
{
  for (OSR_GRID_ITEMS(i, positions * c, 1)) {
    const int64_t position = i / c, channel = i - position * c;
    const uint64_t draw = (uint64_t) (channel * positions + position);

    y[i] = osr_round<T>(osr_draw(&draws, draw));
  }
}

extern "C" OsrResult
osr_cuda_randn(OsrOpsContext *ctx, const OsrRandn *p)
{
  const int64_t positions = (int64_t) p->t * p->h * p->w;
  OsrRowGrid g;

  OSR_TRY(osr_cuda_begin(ctx, "randn"));
  OSR_TRY(osr_check_randn(ctx, p, OSR_CUDA_DTYPES));
  if (positions == 0 || p->c == 0)
    return OSR_OK;
  osr_row_grid(1, positions * p->c, 1, &g);

  OSR_CUDA_TYPED(p->dtype, {
    randn<T><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(
        (T *) p->y, osr_draws(p, osr_cuda(ctx)->n_sms * (osr_cuda(ctx)->sm_threads / 256)),
        positions, p->c);
  });
  return osr_cuda_launched(ctx, "randn: %d x %d x %d x %d", p->t, p->h, p->w, p->c);
}

/* --- gaussian --- */

template <typename T, int V> static __global__ void __launch_bounds__(256) gaussian(OsrGaussian p)
{
  const int64_t row = osr_grid_row();
  const T *const moments = (const T *) p.moments + row * 2 * p.c;
  const T *const noise = (const T *) p.noise + row * p.c;
  T *const y = (T *) p.y + row * p.c;

  if (row >= p.m)
    return;
  for (OSR_GRID_ITEMS(item, p.c / V, 1)) {
    const int64_t j = item * V;
    float v[V], logvar[V], draw[V];

    osr_load_floats(moments + j, v);
    if (p.noise) {
      osr_load_floats(moments + p.c + j, logvar);
      osr_load_floats(noise + j, draw);
#pragma unroll
      for (int i = 0; i < V; i++)
        v[i] += expf(0.5f * fminf(fmaxf(logvar[i], -30.0f), 20.0f)) * draw[i];
    }
#pragma unroll
    for (int i = 0; i < V; i++)
      v[i] = p.scale * (v[i] - p.shift);
    osr_store(y + j, v);
  }
}

extern "C" OsrResult
osr_cuda_gaussian(OsrOpsContext *ctx, const OsrGaussian *p)
{
  OsrRowGrid g;

  OSR_TRY(osr_cuda_begin(ctx, "gaussian"));
  OSR_TRY(osr_check_gaussian(ctx, p, OSR_CUDA_DTYPES));
  if (p->m == 0 || p->c == 0)
    return OSR_OK;

  OSR_CUDA_TYPED(p->dtype, {
    constexpr int V = osr_width<T>;
    const bool wide = osr_aligned(p->moments, 16) && osr_aligned(p->noise, 16) &&
                      osr_aligned(p->y, 16) && p->c % V == 0;

    if (!osr_row_grid(p->m, wide ? p->c / V : p->c, 1, &g))
      return osr_too_large(ctx, "gaussian");
    if (wide)
      gaussian<T, V><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(*p);
    else
      gaussian<T, 1><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(*p);
  });
  return osr_cuda_launched(ctx, "gaussian: m %lld, c %d", (long long) p->m, p->c);
}

/* --- blend --- */

/* A row of the grid is an outer index: extent * inner elements of a and of b, each in one
 * piece. */
template <typename T, int V>
static __global__ void __launch_bounds__(256) blend(OsrBlend p, int64_t extent)
{
  const int64_t o = osr_grid_row();
  const T *const a = (const T *) p.a + (o * p.a_len + p.a_len - extent) * p.inner;
  T *const b = (T *) p.b + o * p.b_len * p.inner;

  if (o >= p.outer)
    return;
  for (OSR_GRID_ITEMS(item, extent * p.inner / V, 1)) {
    const int64_t at = item * V;
    const float f = (float) (at / p.inner) / (float) extent;
    float from[V], to[V];

    osr_load_floats(a + at, from);
    osr_load_floats((const T *) b + at, to);
#pragma unroll
    for (int i = 0; i < V; i++)
      to[i] = from[i] * (1.0f - f) + to[i] * f;
    osr_store(b + at, to);
  }
}

extern "C" OsrResult
osr_cuda_blend(OsrOpsContext *ctx, const OsrBlend *p)
{
  int64_t extent = p->extent;
  OsrRowGrid g;

  OSR_TRY(osr_cuda_begin(ctx, "blend"));
  OSR_TRY(osr_check_blend(ctx, p, OSR_CUDA_DTYPES));
  if (extent > p->a_len)
    extent = p->a_len;
  if (extent > p->b_len)
    extent = p->b_len;
  if (p->outer == 0 || extent == 0 || p->inner == 0)
    return OSR_OK;

  OSR_CUDA_TYPED(p->dtype, {
    constexpr int V = osr_width<T>;
    const bool wide = osr_aligned(p->a, 16) && osr_aligned(p->b, 16) && p->inner % V == 0;

    if (!osr_row_grid(p->outer, wide ? extent * p->inner / V : extent * p->inner, 1, &g))
      return osr_too_large(ctx, "blend");
    if (wide)
      blend<T, V><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(*p, extent);
    else
      blend<T, 1><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(*p, extent);
  });
  return osr_cuda_launched(ctx, "blend: %lld x (%lld, %lld) x %lld", (long long) p->outer,
                           (long long) p->a_len, (long long) p->b_len, (long long) p->inner);
}
