/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conv3d with wgmma, for Hopper (sm_90a), bf16.
 *
 * Three warpgroups: one loads, two multiply, each half of the tile's rows. The loading one
 * gathers voxels with cp.async, which can repeat and leave out voxels as the copy engine
 * (TMA) cannot, and lets the copy engine fetch the packed weights in one piece a step. A
 * ring of STAGES steps is between them, with a pair of mbarriers a stage; it runs on across
 * tiles, so while the two write a tile out the ring fills up for the next one. Blocks are
 * persistent, one a multiprocessor; tiles of neighbouring blocks share voxels or weights.
 *
 * Sizes. 128 accumulators a thread are a tile of 256 x 128 or 128 x 256. One step of either
 * takes 1024 cycles of the tensor cores and 48 KiB of loads. Per 16 of K and 256 cycles, in
 * cycles of shared memory (128 bytes each):
 *
 *     256 x 128: operands 4 (2 KiB + 4 KiB) = 192, loads 8 KiB + 4 KiB = 96
 *     128 x 256: operands 2 (2 KiB + 8 KiB) = 160, loads 4 KiB + 8 KiB = 96
 *
 * so both are near what shared memory bears, and 128 x 128 would be beyond (192 + 128). From
 * the L2 come 48 bytes a cycle, too much for it at full rate; but three taps in a row read
 * the same voxels, so with room for a step of them in L1 (what the stages leave of 256 KiB)
 * these drop to about 27 (256 x 128) or 37. Three stages leave more room than four.
 */
#include "conv.cuh"

#define THREADS 384
#define LOADERS 128

#define LOADER_BARRIER 1

/* Rows of odd lengths cost code and registers; only the narrow tile has them. */
#define ANY_ROW(bn) ((bn) == 32)

/* Of the 168 a thread that 384 threads can have at the start, those who load hand some on. */
#define LOADER_REGISTERS 120
#define MULTIPLIER_REGISTERS 192

namespace
{

template <int BM, int BN, int STAGES> struct Tile {
  static constexpr int A_BYTES = BM * OSR_CONV_ROW, B_BYTES = BN * OSR_CONV_ROW;
  static constexpr int STAGE_BYTES = A_BYTES + B_BYTES;
  static constexpr int ROWS = STAGES * STAGE_BYTES;
  static constexpr int BARRIERS = ROWS + BM * (int) sizeof(OsrConvRow);
  /* The swizzle counts from multiples of 1024 bytes. */
  static constexpr int SHARED = BARRIERS + STAGES * 16 + 1024;
};

#if OSR_CONV_HAVE_WGMMA

template <int STAGES> struct Ring {
  uint32_t barriers;
  int stage;
  uint32_t round; /* parity of this pass over the stages */

  __device__ Ring(uint32_t barriers_) : barriers(barriers_), stage(0), round(0)
  {
  }

  __device__ uint32_t full(int i) const
  {
    return barriers + (uint32_t) i * 16;
  }

  __device__ uint32_t empty(int i) const
  {
    return barriers + (uint32_t) i * 16 + 8;
  }

  __device__ int previous(void) const
  {
    return stage == 0 ? STAGES - 1 : stage - 1;
  }

  __device__ void advance(void)
  {
    if (++stage == STAGES) {
      stage = 0;
      round ^= 1;
    }
  }
};

/* Which tile: channels vary fastest, so that blocks beside each other read the same voxels. */
struct Place {
  int phase, n_tile;
  uint32_t m;

  __device__ Place(const OsrConvArgs &a, int tile, int bm)
  {
    const int m_tile = tile / a.n_tiles;

    n_tile = tile % a.n_tiles;
    phase = conv_find_phase(a, m_tile);
    m = (uint32_t) (m_tile - a.phase[phase].first_tile) * (uint32_t) bm;
  }
};

/* The two who multiply need the residual at the end of the tile and would wait for memory. */
template <int BN>
static __device__ inline void
prefetch_residual(const OsrConvArgs &a, const Place &place, uint32_t row)
{
  const OsrConvPhase &f = a.phase[place.phase];
  const int first = place.n_tile * BN, end = min(first + BN, a.c_out);
  const __nv_bfloat16 *p = (const __nv_bfloat16 *) a.residual;

  if (row >= f.m)
    return;
  p += conv_out_voxel(a, f, row) * a.c_out;
  for (int i = first; i < end; i += 128 / (int) sizeof *p)
    conv_prefetch(p + i);
}

template <int BM, int BN, int STAGES, bool VIA_L1>
static __device__ inline void
load_tiles(const OsrConvArgs &a, OsrConvRow *rows, uint32_t stages, uint32_t barriers)
{
  using Sizes = Tile<BM, BN, STAGES>;
  const int tid = (int) threadIdx.x, tiles = a.m_tiles * a.n_tiles;
  OsrConvGather<__nv_bfloat16, BM * 8 / LOADERS, LOADERS / 8, VIA_L1> gather;
  Ring<STAGES> ring(barriers);

  for (int tile = (int) blockIdx.x; tile < tiles; tile += (int) gridDim.x) {
    const Place place(a, tile, BM);
    const char *w = (const char *) a.w + ((int64_t) place.phase * a.n_tiles + place.n_tile) *
                                             a.k_steps * (int64_t) Sizes::B_BYTES;

    /* Nobody reads the rows of the last tile any more; then, the new ones are there. */
    conv_named_barrier(LOADER_BARRIER, LOADERS);
    for (int i = tid; i < BM; i += LOADERS) {
      rows[i] = conv_row(a, a.phase[place.phase], place.m + (uint32_t) i);
      if (a.residual)
        prefetch_residual<BN>(a, place, place.m + (uint32_t) i);
    }
    conv_named_barrier(LOADER_BARRIER, LOADERS);
    gather.begin(a, rows, tid / 8, tid % 8);

    for (int s = 0; s < a.k_steps; s++) {
      const uint32_t to = stages + (uint32_t) (ring.stage * Sizes::STAGE_BYTES);

      conv_mbarrier_wait(ring.empty(ring.stage), ring.round ^ 1);
      if (tid == 0) {
        conv_mbarrier_arrive_expect(ring.full(ring.stage), Sizes::B_BYTES);
        conv_bulk_load(to + Sizes::A_BYTES, w + (int64_t) s * Sizes::B_BYTES, Sizes::B_BYTES,
                       ring.full(ring.stage));
      }
      gather.copy(a, to);
      conv_mbarrier_arrive_after_copies(ring.full(ring.stage));
      gather.advance(a);
      ring.advance();
    }
  }
  /* Copies must not outlive the block. */
  conv_copy_wait_all();
}

/* acc += the step that lies at `at`; waits for it to lie there, and not for
 * the products. */
template <int BM, int BN, int STAGES>
static __device__ inline void
multiply_step(float (&acc)[BM / 128][BN / 8][4], uint32_t at, uint32_t a_offset, uint32_t full,
              uint32_t round)
{
  const uint64_t a = conv_wgmma_operand(at + a_offset);
  const uint64_t b = conv_wgmma_operand(at + Tile<BM, BN, STAGES>::A_BYTES);

  conv_mbarrier_wait(full, round);
  conv_proxy_fence();
  conv_wgmma_fence();
#pragma unroll
  for (int kk = 0; kk < 4; kk++)
#pragma unroll
    for (int i = 0; i < BM / 128; i++)
      /* 32 bytes along K, 64 rows along M, in units of 16 bytes. */
      conv_wgmma(acc[i], a + (uint64_t) (2 * kk + i * 64 * OSR_CONV_ROW / 16),
                 b + (uint64_t) (2 * kk));
  conv_wgmma_commit();
}

/* Says for this warp that a stage is no longer read. */
static __device__ inline void
used(uint32_t empty)
{
  if (threadIdx.x % 32 == 0)
    conv_mbarrier_arrive(empty);
}

template <int BM, int BN, int STAGES>
static __device__ inline void
multiply_tiles(const OsrConvArgs &a, uint32_t stages, uint32_t barriers)
{
  constexpr int ROWS = BM / 2, BLOCKS = ROWS / 64, STAGE = Tile<BM, BN, STAGES>::STAGE_BYTES;
  const int tid = (int) threadIdx.x - LOADERS, tiles = a.m_tiles * a.n_tiles;
  const int warpgroup = __shfl_sync(0xffffffffu, tid / 128, 0), warp = tid / 32 % 4;
  const uint32_t a_offset = (uint32_t) (warpgroup * ROWS * OSR_CONV_ROW);
  float acc[BLOCKS][BN / 8][4];
  Ring<STAGES> ring(barriers);

  for (int tile = (int) blockIdx.x; tile < tiles; tile += (int) gridDim.x) {
    const Place place(a, tile, BM);

#pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
      conv_begin(a, place.n_tile * BN, acc[i]);
      conv_wgmma_settle(acc[i]);
    }
    /* The first step on its own: with a condition in the loop the compiler waits for all
     * products in each turn. */
    multiply_step<BM, BN, STAGES>(acc, stages + (uint32_t) (ring.stage * STAGE), a_offset,
                                  ring.full(ring.stage), ring.round);
    ring.advance();
#pragma unroll 1
    for (int s = 1; s < a.k_steps; s++) {
      multiply_step<BM, BN, STAGES>(acc, stages + (uint32_t) (ring.stage * STAGE), a_offset,
                                    ring.full(ring.stage), ring.round);
      /* One step stays under way, so that the tensor cores need not wait for the next. */
      conv_wgmma_wait<1>();
      used(ring.empty(ring.previous()));
      ring.advance();
    }
    conv_wgmma_wait<0>();
#pragma unroll
    for (int i = 0; i < BLOCKS; i++)
      conv_wgmma_settle(acc[i]);
    used(ring.empty(ring.previous()));

#pragma unroll
    for (int i = 0; i < BLOCKS; i++) {
      conv_swap(acc[i]);
      conv_finish<__nv_bfloat16, BN / 8, ANY_ROW(BN)>(
          a, a.phase[place.phase], place.m + (uint32_t) (warpgroup * ROWS + i * 64 + warp * 16),
          place.n_tile * BN, acc[i]);
    }
  }
}

#endif /* OSR_CONV_HAVE_WGMMA */

/* See osr_cuda_has_kernel(). */
#if OSR_CONV_HAVE_WGMMA
#define BOUND THREADS
#else
#define BOUND 1
#endif

template <int BM, int BN, int STAGES, bool VIA_L1>
static __global__ void
__launch_bounds__(BOUND, 1) conv_kernel(const __grid_constant__ OsrConvArgs a)
{
#if OSR_CONV_HAVE_WGMMA
  using Sizes = Tile<BM, BN, STAGES>;
  extern __shared__ __align__(1024) unsigned char shared_memory[];
  const uint32_t unaligned = conv_shared(shared_memory);
  const uint32_t stages = (unaligned + 1023) & ~1023u, barriers = stages + Sizes::BARRIERS;
  OsrConvRow *rows = (OsrConvRow *) (shared_memory + (stages - unaligned) + Sizes::ROWS);

  if (threadIdx.x == 0) {
    for (int i = 0; i < STAGES; i++) {
      conv_mbarrier_init(barriers + (uint32_t) i * 16, LOADERS + 1);
      conv_mbarrier_init(barriers + (uint32_t) i * 16 + 8, (THREADS - LOADERS) / 32);
    }
    conv_mbarrier_init_fence();
  }
  __syncthreads();
  /* A whole warp takes one way, and is to be seen to. */
  if (__shfl_sync(0xffffffffu, (int) threadIdx.x / LOADERS, 0) == 0) {
    conv_lower_registers<LOADER_REGISTERS>();
    load_tiles<BM, BN, STAGES, VIA_L1>(a, rows, stages, barriers);
  } else {
    conv_raise_registers<MULTIPLIER_REGISTERS>();
    multiply_tiles<BM, BN, STAGES>(a, stages, barriers);
  }
#endif
}

} /* namespace */

#define KERNEL(kernel_name, bm_, bn_, stages_, via_l1)                                             \
  {                                                                                                \
    kernel_name, OSR_DTYPE_BF16, bm_, bn_, 90, THREADS, Tile<bm_, bn_, stages_>::SHARED,           \
        ANY_ROW(bn_), true, false, (const void *) conv_kernel<bm_, bn_, stages_, via_l1>           \
  }

const OsrConvKernel osr_conv_wgmma_kernels[] = {
  KERNEL("wgmma 256x128, 3 stages, L1", 256, 128, 3, true),
  KERNEL("wgmma 128x256, 4 stages, L1", 128, 256, 4, true),
  KERNEL("wgmma 256x32, 4 stages, L1", 256, 32, 4, true),
  KERNEL("wgmma 256x128, 4 stages", 256, 128, 4, false),
  KERNEL("wgmma 128x256, 3 stages, L1", 128, 256, 3, true),
  {},
};
