/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conv3d with mma.sync and cp.async, for sm_80 and later: bf16, and f32 in one or three TF32
 * products.
 *
 * A block of 8 warps makes 128 rows by BN channels, each warp 32 channels of 128, 32 or 16
 * rows. Three stages of one step are 96 KiB at BN = 128: the most that fits sm_89. With a
 * step of 128 bytes a barrier comes once in four k's of the instruction.
 */
#include "conv.cuh"

#include <type_traits>

#define THREADS 256
#define BM 128
#define STAGES 3

namespace
{

enum class Product {
  BF16,
  TF32,
  /* x = hi + lo in TF32, and all products but lo lo: the error of f32. The tensor cores cut
   * their sums off instead of rounding them, which would add up over thousands of products,
   * so each step is summed on its own and then added properly. */
  TF32_X3,
};

template <Product PRODUCT, int BN> struct Tile {
  using T = std::conditional_t<PRODUCT == Product::BF16, __nv_bfloat16, float>;
  static constexpr int WARPS_N = BN / 32;
  static constexpr int WARP_M = BM / (8 / WARPS_N);
  static constexpr int BLOCKS_M = WARP_M / 16;
  static constexpr int A_BYTES = BM * OSR_CONV_ROW, B_BYTES = BN * OSR_CONV_ROW;
  static constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
  static constexpr int SHARED = STAGES * STAGE_BYTES + BM * (int) sizeof(OsrConvRow);
};

static __device__ inline void
split(uint32_t bits, uint32_t *hi, uint32_t *lo)
{
  const float x = __uint_as_float(bits);

  *hi = conv_to_tf32(x);
  *lo = conv_to_tf32(x - __uint_as_float(*hi));
}

/* acc += a b for 16 rows and 8 columns, 32 bytes of K. */
template <Product PRODUCT>
static __device__ inline void
multiply(float (&acc)[4], const uint32_t (&a)[4], const uint32_t (&a_lo)[4], const uint32_t *b,
         const uint32_t *b_lo)
{
  if constexpr (PRODUCT == Product::BF16) {
    conv_mma_bf16(acc, a, b[0], b[1]);
  } else {
    if constexpr (PRODUCT == Product::TF32_X3) {
      conv_mma_tf32(acc, a_lo, b[0], b[1]);
      conv_mma_tf32(acc, a, b_lo[0], b_lo[1]);
    }
    conv_mma_tf32(acc, a, b[0], b[1]);
  }
}

/* acc += one step of the tiles at `a` (from the warp's first row) and `b` (first column). */
template <Product PRODUCT, int BLOCKS_M>
static __device__ inline void
multiply_step(float (&acc)[BLOCKS_M][4][4], uint32_t a, uint32_t b)
{
  const int lane = (int) threadIdx.x % 32;
  const uint32_t a_row = a + (uint32_t) (lane % 16 * OSR_CONV_ROW);
  const uint32_t b_row = b + (uint32_t) ((lane / 16 * 8 + lane % 8) * OSR_CONV_ROW);

#pragma unroll
  for (int kk = 0; kk < 4; kk++) {
    const uint32_t a_chunk = (uint32_t) ((2 * kk + lane / 16) ^ (lane % 8)) << 4;
    const uint32_t b_chunk = (uint32_t) ((2 * kk + lane / 8 % 2) ^ (lane % 8)) << 4;
    uint32_t bs[2][4], b_los[2][4];

#pragma unroll
    for (int j = 0; j < 2; j++) {
      conv_load_matrices(bs[j], b_row + b_chunk + (uint32_t) (j * 16 * OSR_CONV_ROW));
      if constexpr (PRODUCT != Product::BF16)
        for (int i = 0; i < 4; i++)
          split(bs[j][i], &bs[j][i], &b_los[j][i]);
    }
#pragma unroll
    for (int i = 0; i < BLOCKS_M; i++) {
      uint32_t as[4], a_los[4];

      conv_load_matrices(as, a_row + a_chunk + (uint32_t) (i * 16 * OSR_CONV_ROW));
      if constexpr (PRODUCT != Product::BF16)
        for (int r = 0; r < 4; r++)
          split(as[r], &as[r], &a_los[r]);
#pragma unroll
      for (int j = 0; j < 4; j++)
        multiply<PRODUCT>(acc[i][j], as, a_los, &bs[j / 2][j % 2 * 2], &b_los[j / 2][j % 2 * 2]);
    }
  }
}

/* The tile's weights of one step; they are contiguous and swizzled already. */
template <int BYTES>
static __device__ inline void
copy_weights(uint32_t to, const char *from)
{
#pragma unroll
  for (int i = 0; i < BYTES / (16 * THREADS); i++) {
    const int at = (i * THREADS + (int) threadIdx.x) * 16;

    conv_copy_async<false>(to + (uint32_t) at, from + at, false);
  }
}

template <Product PRODUCT, int BN>
static __global__ void
__launch_bounds__(THREADS, 1) conv_kernel(const __grid_constant__ OsrConvArgs a)
{
  using Sizes = Tile<PRODUCT, BN>;
  using T = typename Sizes::T;
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  OsrConvRow *rows = (OsrConvRow *) (shared_memory + STAGES * Sizes::STAGE_BYTES);
  const uint32_t stages = conv_shared(shared_memory);
  const int tid = (int) threadIdx.x, warp = tid / 32;
  const int n_tile = (int) (blockIdx.x % (unsigned) a.n_tiles);
  const int m_tile = (int) (blockIdx.x / (unsigned) a.n_tiles);
  const int phase = conv_find_phase(a, m_tile);
  const OsrConvPhase &f = a.phase[phase];
  const uint32_t m = (uint32_t) (m_tile - f.first_tile) * BM;
  const int warp_m = warp / Sizes::WARPS_N * Sizes::WARP_M, warp_n = warp % Sizes::WARPS_N * 32;
  const char *w = (const char *) a.w +
                  ((int64_t) phase * a.n_tiles + n_tile) * a.k_steps * (int64_t) Sizes::B_BYTES;
  OsrConvGather<T, BM * 8 / THREADS, THREADS / 8, true> gather;
  float acc[Sizes::BLOCKS_M][4][4];

#pragma unroll
  for (int i = 0; i < Sizes::BLOCKS_M; i++)
    conv_begin(a, n_tile * BN + warp_n, acc[i]);
  if (tid < BM)
    rows[tid] = conv_row(a, f, m + (uint32_t) tid);
  __syncthreads();
  gather.begin(a, rows, tid / 8, tid % 8);

  for (int s = 0; s < STAGES - 1; s++) {
    if (s < a.k_steps) {
      gather.copy(a, stages + (uint32_t) (s * Sizes::STAGE_BYTES));
      copy_weights<Sizes::B_BYTES>(stages + (uint32_t) (s * Sizes::STAGE_BYTES + Sizes::A_BYTES),
                                   w + (int64_t) s * Sizes::B_BYTES);
      gather.advance(a);
    }
    conv_copy_commit();
  }
  for (int s = 0, stage = 0, next = STAGES - 1; s < a.k_steps; s++) {
    const uint32_t at = stages + (uint32_t) (stage * Sizes::STAGE_BYTES);

    conv_copy_wait<STAGES - 2>();
    /* Also: all warps are done with the stage that is filled next. */
    __syncthreads();
    if (s + STAGES - 1 < a.k_steps) {
      const uint32_t to = stages + (uint32_t) (next * Sizes::STAGE_BYTES);

      gather.copy(a, to);
      copy_weights<Sizes::B_BYTES>(to + Sizes::A_BYTES,
                                   w + (int64_t) (s + STAGES - 1) * Sizes::B_BYTES);
      gather.advance(a);
    }
    conv_copy_commit();
    if constexpr (PRODUCT == Product::TF32_X3) {
      float part[Sizes::BLOCKS_M][4][4] = {};

      multiply_step<PRODUCT>(part, at + (uint32_t) (warp_m * OSR_CONV_ROW),
                             at + (uint32_t) (Sizes::A_BYTES + warp_n * OSR_CONV_ROW));
#pragma unroll
      for (int i = 0; i < Sizes::BLOCKS_M * 16; i++)
        acc[i / 16][i / 4 % 4][i % 4] += part[i / 16][i / 4 % 4][i % 4];
    } else {
      multiply_step<PRODUCT>(acc, at + (uint32_t) (warp_m * OSR_CONV_ROW),
                             at + (uint32_t) (Sizes::A_BYTES + warp_n * OSR_CONV_ROW));
    }
    stage = stage + 1 == STAGES ? 0 : stage + 1;
    next = next + 1 == STAGES ? 0 : next + 1;
  }

#pragma unroll
  for (int i = 0; i < Sizes::BLOCKS_M; i++) {
    conv_swap(acc[i]);
    conv_finish<T, 4, true>(a, f, m + (uint32_t) (warp_m + i * 16), n_tile * BN + warp_n, acc[i]);
  }
}

} /* namespace */

#define KERNEL(kernel_name, kernel_dtype, kernel_tf32, product, bn_)                               \
  {                                                                                                \
    kernel_name, kernel_dtype, BM, bn_, 80, THREADS, Tile<product, bn_>::SHARED, true, false,      \
        kernel_tf32, (const void *) conv_kernel<product, bn_>                                      \
  }

const OsrConvKernel osr_conv_mma_kernels[] = {
  KERNEL("mma bf16 128x128", OSR_DTYPE_BF16, false, Product::BF16, 128),
  KERNEL("mma bf16 128x32", OSR_DTYPE_BF16, false, Product::BF16, 32),
  KERNEL("mma f32 128x64", OSR_DTYPE_F32, false, Product::TF32_X3, 64),
  KERNEL("mma f32 128x32", OSR_DTYPE_F32, false, Product::TF32_X3, 32),
  KERNEL("mma tf32 128x64", OSR_DTYPE_F32, true, Product::TF32, 64),
  {},
};
