/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * layer_norm, rms_norm.
 *
 * Bytes moved: x once, y once; weights and modulation vectors stay in the caches. A row is
 * read once into registers, so mean and variance are taken one after the other as exactly as
 * the reference does. Short rows have a warp each, which needs no barrier; longer ones 4
 * warps. Expected: 85 to 90 % of the copy bandwidth from some 20 MB on.
 */
#include "device.cuh"

template <typename T> struct NormArgs {
  uint32_t rows, m; /* of all items, of one */
  int n;
  float eps;
  const T *x;
  int64_t x_ld, x_batch;
  const T *weight, *bias, *scale, *shift;
  int64_t mod_batch;
  T *y;
  int64_t y_ld, y_batch;
};

/* A row's place: item b, row i of it. */
template <typename T> struct NormRow {
  const T *x, *scale, *shift;
  T *y;
};

template <typename T>
OSR_DEVICE NormRow<T>
find_row(const NormArgs<T> &a, uint32_t row)
{
  const uint32_t b = row / a.m, i = row - b * a.m;
  const int64_t mod = b * a.mod_batch;

  return { a.x + b * a.x_batch + i * a.x_ld, a.scale ? a.scale + mod : nullptr,
           a.shift ? a.shift + mod : nullptr, a.y + b * a.y_batch + i * a.y_ld };
}

/* v = (x - mean) / deviation of channels c .. c + N -> y */
template <typename T, int N>
OSR_DEVICE void
finish(const NormArgs<T> &a, const NormRow<T> &row, int c, float (&v)[N])
{
  float f[N];

  if (a.weight) {
    osr_load_floats(a.weight + c, f);
#pragma unroll
    for (int i = 0; i < N; i++)
      v[i] *= f[i];
  }
  if (a.bias) {
    osr_load_floats(a.bias + c, f);
#pragma unroll
    for (int i = 0; i < N; i++)
      v[i] += f[i];
  }
  if (row.scale) {
    osr_load_floats(row.scale + c, f);
#pragma unroll
    for (int i = 0; i < N; i++)
      v[i] *= 1.0f + f[i];
  }
  if (row.shift) {
    osr_load_floats(row.shift + c, f);
#pragma unroll
    for (int i = 0; i < N; i++)
      v[i] += f[i];
  }
  osr_store(row.y + c, v);
}

/* WARPS warps a row, PARTS times 16 bytes a thread. */
template <typename T, bool RMS, int WARPS, int PARTS>
static __global__ void __launch_bounds__(128) norm_rows(NormArgs<T> a)
{
  constexpr int V = osr_width<T>, THREADS = 32 * WARPS;
  __shared__ float shared[2][WARPS];
  const int thread = threadIdx.x % THREADS;
  const uint32_t row = blockIdx.x * (128 / THREADS) + threadIdx.x / THREADS;
  float v[PARTS][V], sum = 0.0f, squares = 0.0f;

  if (row >= a.rows) /* a whole warp, or a whole block */
    return;
  const NormRow<T> at = find_row(a, row);

#pragma unroll
  for (int p = 0; p < PARTS; p++) {
    const int c = (p * THREADS + thread) * V;

#pragma unroll
    for (int i = 0; i < V; i++)
      v[p][i] = 0.0f;
    if (c < a.n)
      osr_load_floats(at.x + c, v[p]);
  }

  if (!RMS) {
#pragma unroll
    for (int p = 0; p < PARTS; p++)
#pragma unroll
      for (int i = 0; i < V; i++)
        sum += v[p][i];
    const float mean = osr_block_sum<WARPS>(sum, shared[0]) / a.n;

#pragma unroll
    for (int p = 0; p < PARTS; p++)
      if ((p * THREADS + thread) * V < a.n)
#pragma unroll
        for (int i = 0; i < V; i++)
          v[p][i] -= mean;
  }
#pragma unroll
  for (int p = 0; p < PARTS; p++)
#pragma unroll
    for (int i = 0; i < V; i++)
      squares += v[p][i] * v[p][i];
  const float inverse = rsqrtf(osr_block_sum<WARPS>(squares, shared[1]) / a.n + a.eps);

#pragma unroll
  for (int p = 0; p < PARTS; p++) {
    const int c = (p * THREADS + thread) * V;

#pragma unroll
    for (int i = 0; i < V; i++)
      v[p][i] *= inverse;
    if (c < a.n)
      finish(a, at, c, v[p]);
  }
}

/* Rows of any length and alignment: x is read three times, mostly out of the caches. A thread
 * overwrites what only it reads, after the last sum, so x may be y. */
template <typename T, bool RMS>
static __global__ void __launch_bounds__(256) norm_any(NormArgs<T> a)
{
  __shared__ float shared[2][8];
  const NormRow<T> at = find_row(a, blockIdx.x);
  float sum = 0.0f, squares = 0.0f, mean = 0.0f;

  if (!RMS) {
    for (int c = threadIdx.x; c < a.n; c += 256)
      sum += osr_float(at.x[c]);
    mean = osr_block_sum<8>(sum, shared[0]) / a.n;
  }
  for (int c = threadIdx.x; c < a.n; c += 256) {
    const float d = osr_float(at.x[c]) - mean;

    squares += d * d;
  }
  const float inverse = rsqrtf(osr_block_sum<8>(squares, shared[1]) / a.n + a.eps);

  for (int c = threadIdx.x; c < a.n; c += 256) {
    float v[1] = { (osr_float(at.x[c]) - mean) * inverse };

    finish(a, at, c, v);
  }
}

template <typename T>
static bool
is_wide(const NormArgs<T> &a, int64_t batch)
{
  const void *const pointers[] = { a.x, a.y, a.weight, a.bias, a.scale, a.shift };

  for (const void *p : pointers)
    if (!osr_aligned(p, 16))
      return false;
  return osr_multiples(osr_width<T>, a.n, osr_stride(a.m, a.x_ld), osr_stride(a.m, a.y_ld)) &&
         osr_multiples(osr_width<T>, osr_stride(batch, a.x_batch), osr_stride(batch, a.y_batch),
                       osr_stride(batch, a.mod_batch));
}

template <typename T, bool RMS>
static void
launch(const NormArgs<T> &a, int64_t batch, cudaStream_t stream)
{
  const int parts = (int) osr_ceil_div(a.n, osr_width<T>);
  const uint32_t quarter = (uint32_t) osr_ceil_div(a.rows, 4);

  if (!is_wide(a, batch) || parts > 1024)
    norm_any<T, RMS><<<a.rows, 256, 0, stream>>>(a);
  else if (parts <= 32)
    norm_rows<T, RMS, 1, 1><<<quarter, 128, 0, stream>>>(a);
  else if (parts <= 64)
    norm_rows<T, RMS, 1, 2><<<quarter, 128, 0, stream>>>(a);
  else if (parts <= 128)
    norm_rows<T, RMS, 1, 4><<<quarter, 128, 0, stream>>>(a);
  else if (parts <= 256)
    norm_rows<T, RMS, 4, 2><<<a.rows, 128, 0, stream>>>(a);
  else if (parts <= 384)
    norm_rows<T, RMS, 4, 3><<<a.rows, 128, 0, stream>>>(a);
  else if (parts <= 512)
    norm_rows<T, RMS, 4, 4><<<a.rows, 128, 0, stream>>>(a);
  else if (parts <= 768)
    norm_rows<T, RMS, 4, 6><<<a.rows, 128, 0, stream>>>(a);
  else
    norm_rows<T, RMS, 4, 8><<<a.rows, 128, 0, stream>>>(a);
}

extern "C" OsrResult
osr_cuda_layer_norm(OsrOpsContext *ctx, const OsrLayerNorm *p)
{
  OSR_TRY(osr_cuda_begin(ctx, "layer_norm"));
  OSR_TRY(osr_check_layer_norm(ctx, p, OSR_CUDA_DTYPES));
  if (p->batch == 0 || p->m == 0 || p->n == 0)
    return OSR_OK;
  if (p->m > INT32_MAX / p->batch)
    return osr_too_large(ctx, "layer_norm");

  OSR_CUDA_TYPED(p->dtype, {
    const NormArgs<T> a = { (uint32_t) (p->batch * p->m),
                            (uint32_t) p->m,
                            p->n,
                            p->eps,
                            (const T *) p->x,
                            p->x_ld,
                            p->x_batch,
                            (const T *) p->weight,
                            (const T *) p->bias,
                            (const T *) p->scale,
                            (const T *) p->shift,
                            p->mod_batch,
                            (T *) p->y,
                            p->y_ld,
                            p->y_batch };

    launch<T, false>(a, p->batch, osr_cuda(ctx)->stream);
  });
  return osr_cuda_launched(ctx, "layer_norm: batch %lld, m %lld, n %d", (long long) p->batch,
                           (long long) p->m, p->n);
}

extern "C" OsrResult
osr_cuda_rms_norm(OsrOpsContext *ctx, const OsrRmsNorm *p)
{
  OSR_TRY(osr_cuda_begin(ctx, "rms_norm"));
  OSR_TRY(osr_check_rms_norm(ctx, p, OSR_CUDA_DTYPES));
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  if (p->m > INT32_MAX)
    return osr_too_large(ctx, "rms_norm");

  OSR_CUDA_TYPED(p->dtype, {
    const NormArgs<T> a = { (uint32_t) p->m,  (uint32_t) p->m, p->n,    p->eps,
                            (const T *) p->x, p->x_ld,         0,       (const T *) p->weight,
                            nullptr,          nullptr,         nullptr, 0,
                            (T *) p->y,       p->y_ld,         0 };

    launch<T, true>(a, 1, osr_cuda(ctx)->stream);
  });
  return osr_cuda_launched(ctx, "rms_norm: m %lld, n %d", (long long) p->m, p->n);
}
