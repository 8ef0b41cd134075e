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

/* N elements as they lie in memory, so that loads can be issued before anything is unpacked,
 * and held in words: 16-bit values on their own would take a register each. A pointer to them
 * is a multiple of 16 bytes or of the pack's size, whichever is less. */
template <int BYTES> struct OsrPart {
  using Type = uint4;
};
template <> struct OsrPart<8> {
  using Type = uint2;
};
template <> struct OsrPart<4> {
  using Type = uint32_t;
};
template <> struct OsrPart<2> {
  using Type = uint16_t;
};

template <typename T, int N> struct OsrPack {
  static constexpr int BYTES = N * (int) sizeof(T);
  static constexpr int PARTS = BYTES > 16 ? BYTES / 16 : 1;
  using Part = typename OsrPart<BYTES / PARTS>::Type;
  Part part[PARTS];
};

template <int N, typename T>
OSR_DEVICE OsrPack<T, N>
osr_load(const T *p)
{
  using Pack = OsrPack<T, N>;
  Pack pack;

#pragma unroll
  for (int i = 0; i < Pack::PARTS; i++)
    pack.part[i] = ((const typename Pack::Part *) p)[i];
  return pack;
}

OSR_DEVICE uint32_t
osr_word(const uint4 &part, int i)
{
  return i == 0 ? part.x : i == 1 ? part.y : i == 2 ? part.z : part.w;
}

OSR_DEVICE uint32_t
osr_word(const uint2 &part, int i)
{
  return i == 0 ? part.x : part.y;
}

OSR_DEVICE uint32_t
osr_word(const uint32_t &part, int)
{
  return part;
}

OSR_DEVICE uint32_t
osr_word(const uint16_t &part, int)
{
  return part;
}

/* Element `i` of the elements in a word. */
template <typename T> OSR_DEVICE float osr_extract(uint32_t word, int i);

template <>
__device__ __forceinline__ float
osr_extract<float>(uint32_t word, int)
{
  return __uint_as_float(word);
}

template <>
__device__ __forceinline__ float
osr_extract<__nv_bfloat16>(uint32_t word, int i)
{
  return __uint_as_float(i == 0 ? word << 16 : word & 0xFFFF0000u);
}

template <>
__device__ __forceinline__ float
osr_extract<__half>(uint32_t word, int i)
{
  return __half2float(__ushort_as_half((unsigned short) (i == 0 ? word : word >> 16)));
}

template <typename T, int N>
OSR_DEVICE void
osr_unpack(const OsrPack<T, N> &pack, float (&v)[N])
{
  constexpr int PER_WORD = 4 / (int) sizeof(T), PER_PART = N / OsrPack<T, N>::PARTS;

#pragma unroll
  for (int i = 0; i < N; i++)
    v[i] = osr_extract<T>(osr_word(pack.part[i / PER_PART], i % PER_PART / PER_WORD), i % PER_WORD);
}

/* Two floats rounded into a word of 16-bit elements, or one into a word of its own. */
template <typename T> OSR_DEVICE uint32_t osr_join(float low, float high);

template <>
__device__ __forceinline__ uint32_t
osr_join<float>(float low, float)
{
  return __float_as_uint(low);
}

template <>
__device__ __forceinline__ uint32_t
osr_join<__nv_bfloat16>(float low, float high)
{
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);

  return (uint32_t) __bfloat16_as_ushort(pair.x) | (uint32_t) __bfloat16_as_ushort(pair.y) << 16;
}

template <>
__device__ __forceinline__ uint32_t
osr_join<__half>(float low, float high)
{
  const __half2 pair = __floats2half2_rn(low, high);

  return (uint32_t) __half_as_ushort(pair.x) | (uint32_t) __half_as_ushort(pair.y) << 16;
}

/* Stores that stay in one piece: of a plain assignment that follows a branch the compiler
 * may make one store a word. */
OSR_DEVICE void
osr_store_words(void *p, uint32_t a, uint32_t b)
{
  asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(__cvta_generic_to_global(p)), "r"(a), "r"(b)
               : "memory");
}

OSR_DEVICE void
osr_store_words(void *p, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(p)),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

/* To global memory. */
template <typename T, int N>
OSR_DEVICE void
osr_store(T *p, const float (&v)[N])
{
  constexpr int PER_WORD = 4 / (int) sizeof(T), WORDS = N / PER_WORD;

  if constexpr (WORDS == 0) {
    p[0] = osr_round<T>(v[0]);
  } else {
    uint32_t words[WORDS];

#pragma unroll
    for (int i = 0; i < WORDS; i++)
      words[i] = osr_join<T>(v[i * PER_WORD], v[i * PER_WORD + PER_WORD - 1]);
    if constexpr (WORDS == 1)
      *(uint32_t *) p = words[0];
    else if constexpr (WORDS == 2)
      osr_store_words(p, words[0], words[1]);
    else
#pragma unroll
      for (int i = 0; i < WORDS; i += 4)
        osr_store_words((uint32_t *) p + i, words[i], words[i + 1], words[i + 2], words[i + 3]);
  }
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
 * holds. Narrow rows share a warp, wide ones are cut along grid.y. A single row has no threads
 * beside its own, so kernels of one row need not ask for theirs. */
static inline bool
osr_row_grid(int64_t rows, int64_t items, int u, OsrRowGrid *g)
{
  const int64_t threads = osr_ceil_div(items, u);
  int64_t across = 1, down, blocks;

  while (across < threads && across < 32)
    across *= 2;
  if (threads > 32)
    across = threads >= 256 ? 256 : osr_ceil_div(threads, 32) * 32;
  down = 256 / across < rows ? 256 / across : rows;
  g->block = dim3((unsigned) across, (unsigned) down);
  blocks = osr_ceil_div(rows, down);
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
