/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What runs before a convolution: packing its weights, widening rows of odd sizes. */
#include "conv.cuh"

#define THREADS 256

static __device__ float
read_any(const void *p, OsrDType dtype, int64_t i)
{
  switch (dtype) {
  case OSR_DTYPE_BF16:
    return osr_float(((const __nv_bfloat16 *) p)[i]);
  case OSR_DTYPE_F16:
    return osr_float(((const __half *) p)[i]);
  default:
    return ((const float *) p)[i];
  }
}

/* The taps of the weights that tap `d` of a phase sums. */
static __device__ void
tap_range(int cut, int d, int *begin, int *end)
{
  *begin = cut ? (d == 0 ? 0 : cut) : d;
  *end = cut ? (d == 0 ? cut : 3) : d + 1;
}

/* The CHUNK weights of channel `co` from `k` on, in the order that conv.cuh tells. Sums are
 * f32 and rounded once. */
template <int CHUNK>
static __device__ void
sum_weights(const OsrConvArgs &a, const OsrConvPack &p, const OsrConvPhase &f, int co, int k,
            float (&sum)[CHUNK])
{
  const int ci = k % a.c_block;
  const int dw = k / a.c_block % a.w_axis.taps;
  const int channel = k / a.c_block / a.w_axis.taps % a.blocks * a.c_block + ci;
  const int row = k / a.c_block / a.w_axis.taps / a.blocks;
  const int dt = row / a.h.taps, dh = row % a.h.taps;
  int t0, t1, h0, h1, w0, w1;

  for (int i = 0; i < CHUNK; i++)
    sum[i] = 0;
  if (co >= a.c_out || dt >= a.t.taps)
    return;
  tap_range(f.cut_t, dt, &t0, &t1);
  tap_range(f.cut_h, dh, &h0, &h1);
  tap_range(f.cut_w, dw, &w0, &w1);
  for (int t = t0; t < t1; t++)
    for (int h = h0; h < h1; h++)
      for (int w = w0; w < w1; w++) {
        const int64_t tap = (((int64_t) co * p.k_t + t) * p.k_h + h) * p.k_w + w;

        for (int i = 0; i < CHUNK; i++)
          if (channel + i < p.c_in)
            sum[i] += read_any(p.w, p.w_dtype, tap * p.c_in + channel + i);
      }
}

/* One 16-byte chunk a thread. */
template <typename T>
static __global__ void
pack_kernel(const __grid_constant__ OsrConvArgs a, const __grid_constant__ OsrConvPack p)
{
  constexpr int CHUNK = 16 / (int) sizeof(T), STEP = OSR_CONV_ROW / (int) sizeof(T);
  const int64_t n = (int64_t) a.n_phases * a.n_tiles * a.k_steps * p.bn * 8;
  const int64_t channels = (int64_t) a.n_tiles * p.bn; /* less than n */

  for (int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x; i < n;
       i += (int64_t) gridDim.x * THREADS) {
    const int chunk = (int) (i % 8), row = (int) (i / 8 % p.bn);
    const int64_t step = i / 8 / p.bn, tile = step / a.k_steps;
    const int k = (int) (step % a.k_steps) * STEP + chunk * CHUNK;
    const int co = (int) (tile % a.n_tiles) * p.bn + row;
    T *to = (T *) p.to + (step * p.bn + row) * STEP + (chunk ^ (row & 7)) * CHUNK;
    float sum[CHUNK];

    sum_weights<CHUNK>(a, p, a.phase[tile / a.n_tiles], co, k, sum);
    if (i < channels)
      p.bias_to[i] = p.bias && i < a.c_out ? read_any(p.bias, p.dtype, i) : 0;
    osr_store(to, sum);
  }
}

static int
blocks_for(int64_t n)
{
  const int64_t blocks = osr_ceil_div(n, THREADS);

  return (int) (blocks < 65536 ? blocks : 65536);
}

cudaError_t
osr_conv_pack(const OsrConvArgs *a, const OsrConvPack *p, cudaStream_t stream)
{
  const int64_t n = (int64_t) a->n_phases * a->n_tiles * a->k_steps * p->bn * 8;
  const void *function = p->dtype == OSR_DTYPE_F32 ? (const void *) pack_kernel<float>
                                                   : (const void *) pack_kernel<__nv_bfloat16>;
  void *args[] = { (void *) a, (void *) p };

  return cudaLaunchKernel(function, dim3((unsigned) blocks_for(n)), dim3(THREADS), args, 0, stream);
}

typedef struct Widen {
  const void *x;
  void *to;
  int64_t n;
  int c_in, c;
} Widen;

/* Elements are moved as they are. */
template <typename T>
static __global__ void
widen_kernel(const __grid_constant__ Widen p)
{
  for (int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x; i < p.n;
       i += (int64_t) gridDim.x * THREADS) {
    const int64_t row = i / p.c;
    const int channel = (int) (i - row * p.c);

    ((T *) p.to)[i] = channel < p.c_in ? ((const T *) p.x)[row * p.c_in + channel] : (T) 0;
  }
}

cudaError_t
osr_conv_widen(OsrDType dtype, const void *x, void *to, int64_t rows, int c_in, int c,
               cudaStream_t stream)
{
  Widen p = { x, to, rows * c, c_in, c };
  void *args[] = { &p };
  const void *function = dtype == OSR_DTYPE_F32 ? (const void *) widen_kernel<uint32_t>
                                                : (const void *) widen_kernel<uint16_t>;

  return cudaLaunchKernel(function, dim3((unsigned) blocks_for(p.n)), dim3(THREADS), args, 0,
                          stream);
}
