/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * device.cuh: what the kernels share.
 *
 * Kernels come in two widths: V elements of 16 bytes a thread where pointers and strides are
 * multiples of that (osr_wide()), and one element otherwise. All arithmetic is f32.
 */
#ifndef OSR_CUDA_DEVICE_CUH
#define OSR_CUDA_DEVICE_CUH

#include "cuda.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define OSR_DEVICE static __device__ __forceinline__

/* Elements of 16 bytes. */
template <typename T> constexpr int osr_width = 16 / (int) sizeof(T);

/* Runs the statements with T as the type of `dtype`, which osr_check_dtype() has seen. */
#define OSR_CUDA_TYPED(dtype, ...)                                                                 \
  do {                                                                                             \
    if ((dtype) == OSR_DTYPE_BF16) {                                                               \
      using T = __nv_bfloat16;                                                                     \
      __VA_ARGS__;                                                                                 \
    } else {                                                                                       \
      using T = float;                                                                             \
      __VA_ARGS__;                                                                                 \
    }                                                                                              \
  } while (0)

/* --- elements --- */

OSR_DEVICE float
osr_float(float v)
{
  return v;
}

OSR_DEVICE float
osr_float(__nv_bfloat16 v)
{
  return __bfloat162float(v);
}

OSR_DEVICE float
osr_float(__half v)
{
  return __half2float(v);
}

/* Rounds to nearest, ties to even. */
template <typename T> OSR_DEVICE T osr_round(float v);

template <>
__device__ __forceinline__ float
osr_round<float>(float v)
{
  return v;
}

template <>
__device__ __forceinline__ __nv_bfloat16
osr_round<__nv_bfloat16>(float v)
{
  return __float2bfloat16_rn(v);
}

template <>
__device__ __forceinline__ __half
osr_round<__half>(float v)
{
  return __float2half_rn(v);
}

/* N elements as they lie in memory, so that loads can be issued before anything is unpacked.
 * The pointer is a multiple of 16 bytes or of the pack's size, whichever is less. */
template <typename T, int N> struct OsrPack {
  static constexpr int BYTES = N * (int) sizeof(T);
  static constexpr int ALIGN = BYTES < 16 ? BYTES : 16;
  struct __align__(ALIGN) Part {
    T v[ALIGN / (int) sizeof(T)];
  };
  Part part[BYTES / ALIGN];

  __device__ __forceinline__ T &
  operator[](int i)
  {
    return part[i / (ALIGN / (int) sizeof(T))].v[i % (ALIGN / (int) sizeof(T))];
  }
};

template <int N, typename T>
OSR_DEVICE OsrPack<T, N>
osr_load(const T *p)
{
  using Pack = OsrPack<T, N>;
  Pack pack;

#pragma unroll
  for (int i = 0; i < Pack::BYTES / Pack::ALIGN; i++)
    pack.part[i] = ((const typename Pack::Part *) p)[i];
  return pack;
}

template <typename T, int N>
OSR_DEVICE void
osr_unpack(OsrPack<T, N> pack, float (&v)[N])
{
#pragma unroll
  for (int i = 0; i < N; i++)
    v[i] = osr_float(pack[i]);
}

template <typename T, int N>
OSR_DEVICE void
osr_store(T *p, const float (&v)[N])
{
  using Pack = OsrPack<T, N>;
  Pack pack;

#pragma unroll
  for (int i = 0; i < N; i++)
    pack[i] = osr_round<T>(v[i]);
#pragma unroll
  for (int i = 0; i < Pack::BYTES / Pack::ALIGN; i++)
    ((typename Pack::Part *) p)[i] = pack.part[i];
}

template <int N, typename T>
OSR_DEVICE void
osr_load_floats(const T *p, float (&v)[N])
{
  osr_unpack(osr_load<N>(p), v);
}

/* --- sums --- */

/* Over `lanes` neighbours, a power of two up to 32; all lanes of the warp take part and each
 * gets its group's sum. */
OSR_DEVICE float
osr_lanes_sum(float v, int lanes)
{
  for (int offset = lanes / 2; offset > 0; offset /= 2)
    v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}

OSR_DEVICE float
osr_warp_sum(float v)
{
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}

/* Over a block of WARPS warps, the same bits in each thread. `shared` has WARPS floats that
 * no other sum of the kernel uses. */
template <int WARPS>
OSR_DEVICE float
osr_block_sum(float v, float *shared)
{
  v = osr_warp_sum(v);
  if (WARPS == 1)
    return v;
  if (threadIdx.x % 32 == 0)
    shared[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0.0f;
#pragma unroll
  for (int i = 0; i < WARPS; i++)
    v += shared[i];
  return v;
}

/* --- activations --- */

/* x / (1 + exp(-y)), that is x sigmoid(y): two operations of the special function unit. Off
 * by some 3 units in the last place, and more where the result vanishes. */
OSR_DEVICE float
osr_sigmoid_times(float x, float y)
{
  return __fdividef(x, 1.0f + __expf(-y));
}

/* 0.5 (1 + tanh u) is sigmoid(2 u). */
OSR_DEVICE float
osr_gelu_tanh(float x)
{
  const float u2 = 1.5957691216057308f * (x + 0.044715f * x * x * x);

  return osr_sigmoid_times(x, u2);
}

/* In place on a thread's values: the switch is made once for all of them. */
template <int N>
OSR_DEVICE void
osr_act(OsrAct act, float (&v)[N])
{
  switch (act) {
  case OSR_ACT_SILU:
#pragma unroll
    for (int i = 0; i < N; i++)
      v[i] = osr_sigmoid_times(v[i], v[i]);
    break;
  case OSR_ACT_GELU_TANH:
#pragma unroll
    for (int i = 0; i < N; i++)
      v[i] = osr_gelu_tanh(v[i]);
    break;
  case OSR_ACT_GELU_ERF:
#pragma unroll
    for (int i = 0; i < N; i++)
      v[i] *= normcdff(v[i]);
    break;
  case OSR_ACT_QUICK_GELU:
#pragma unroll
    for (int i = 0; i < N; i++)
      v[i] = osr_sigmoid_times(v[i], 1.702f * v[i]);
    break;
  default:
    break;
  }
}

/* --- grids --- */

/* Rows of items: blockDim.y rows a block, blockDim.x * U items of each at a time. */
typedef struct OsrRowGrid {
  dim3 grid, block;
} OsrRowGrid;

static inline int64_t
osr_ceil_div(int64_t a, int64_t b)
{
  return a / b + (a % b != 0);
}

/* For `rows` rows of `items` items, U of them a thread; false when that is more than a grid
 * holds. Narrow rows share a warp, wide ones share the block rows of grid.y. */
static inline bool
osr_row_grid(int64_t rows, int64_t items, int u, OsrRowGrid *g)
{
  const int64_t threads = osr_ceil_div(items, u);
  int64_t across = 1, blocks;

  while (across < threads && across < 32)
    across *= 2;
  if (threads > 32)
    across = threads >= 256 ? 256 : osr_ceil_div(threads, 32) * 32;
  g->block = dim3((unsigned) across, (unsigned) (256 / across));
  blocks = osr_ceil_div(rows, 256 / across);
  if (blocks > INT32_MAX)
    return false;
  g->grid = dim3((unsigned) blocks, (unsigned) (osr_ceil_div(items, across * u) < 65535
                                                    ? osr_ceil_div(items, across * u)
                                                    : 65535));
  return true;
}

/* This thread's row, which may be past the end. */
OSR_DEVICE int64_t
osr_grid_row(void)
{
  return (int64_t) blockIdx.x * blockDim.y + threadIdx.y;
}

/* for (OSR_GRID_ITEMS(i, items, U)): this thread's are i + u * blockDim.x, u < U, where that
 * is below `items`. */
#define OSR_GRID_ITEMS(i, items, u)                                                                \
  int64_t i = (int64_t) blockIdx.y * blockDim.x * (u) + threadIdx.x;                               \
  i < (items);                                                                                     \
  i += (int64_t) gridDim.y * blockDim.x * (u)

static inline OsrResult
osr_too_large(OsrOpsContext *ctx, const char *op)
{
  return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "%s: more rows than a grid has blocks", op);
}

/* --- alignment --- */

static inline bool
osr_aligned(const void *ptr, size_t bytes)
{
  return ((uintptr_t) ptr & (bytes - 1)) == 0;
}

/* Whether all of these element counts (widths, strides, offsets) are multiples of v. */
static inline bool
osr_multiples(int v, int64_t a, int64_t b = 0, int64_t c = 0, int64_t d = 0, int64_t e = 0)
{
  return a % v == 0 && b % v == 0 && c % v == 0 && d % v == 0 && e % v == 0;
}

/* A stride counts only if it is used: more than one row or item. */
static inline int64_t
osr_stride(int64_t count, int64_t stride)
{
  return count > 1 ? stride : 0;
}

#endif /* OSR_CUDA_DEVICE_CUH */
