// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The emulator itself: small kernels, right and wrong ones. Each wrong one must be found out, or
 * the emulator's word on kernels/cuda is worth nothing.
 */
#include "attention-ptx.cuh"
#include "machine.h"

#include <cuda_fp16.h>

using osr_emulated::copy_wait_all;
using osr_emulated::encode_tiled_address;
using osr_emulated::run_grid;

static int n_tests, n_failed;

static void
result(const char *name, bool ok, const std::string &why)
{
  printf("%sok %d - %s\n", ok ? "" : "not ", ++n_tests, name);
  if (!ok)
    printf("# %s\n", why.empty() ? "nothing was found" : why.c_str());
  n_failed += !ok;
}

/* A kernel of `threads` threads ends well, or with a message that has `want` in it. */
static void
check(const char *name, const char *want, int threads, std::function<void()> kernel,
      size_t shared = 0)
{
  std::string why;
  const bool well = run_grid(dim3(1), dim3((unsigned) threads), shared, kernel, &why);

  result(name, want ? !well && why.find(want) != std::string::npos : well, why);
}

static __global__ void __launch_bounds__(64) bounded(void)
{
}

/* --- barriers --- */

static __global__ void
sums(float *out, bool wait)
{
  __shared__ float parts[128];
  float sum = 0;

  parts[threadIdx.x] = (float) threadIdx.x;
  if (wait)
    __syncthreads();
  for (int i = 0; i < 128; i++)
    sum += parts[i];
  out[threadIdx.x] = sum;
}

static bool
sums_are(bool wait)
{
  static float out[128];
  std::string why;
  bool right = run_grid(
      dim3(1), dim3(128), 0, [=] { sums(out, wait); }, &why);

  for (float sum : out)
    right = right && sum == 127 * 64;
  return right;
}

static __global__ void
half_at_barrier(void)
{
  if (threadIdx.x < 32)
    named_barrier_sync(1, 64);
}

static __global__ void
barrier_twice(void)
{
  named_barrier_arrive(1, 64);
  named_barrier_arrive(1, 64);
}

static __global__ void
half_of_a_warp(void)
{
  if (threadIdx.x < 16)
    return;
  __shfl_xor_sync(0xffffffffu, 1, 1);
}

static __global__ void
different_collectives(void)
{
  if (threadIdx.x < 16)
    __any_sync(0xffffffffu, true);
  else
    __shfl_xor_sync(0xffffffffu, 1, 1);
}

/* --- copies --- */

static __global__ void
copy(const float *from, float *to, bool commit, bool wait)
{
  extern __shared__ __align__(16) float stage[];
  const uint32_t address = smem_address(stage) + threadIdx.x * 16;

  cp_async_16(address, from + threadIdx.x * 4, true);
  if (commit)
    cp_async_commit();
  if (wait)
    cp_async_wait<0>();
  to[threadIdx.x] = stage[threadIdx.x * 4];
  if (!commit || !wait)
    copy_wait_all();
}

static bool
copied(bool commit, bool wait)
{
  alignas(16) static float from[128];
  static float to[32];
  std::string why;
  bool right = true;

  for (int i = 0; i < 128; i++)
    from[i] = (float) i;
  right = run_grid(
      dim3(1), dim3(32), 512, [=] { copy(from, to, commit, wait); }, &why);
  for (int i = 0; i < 32; i++)
    right = right && to[i] == (float) (4 * i);
  return right;
}

static __global__ void
copy_outside(const float *from)
{
  extern __shared__ __align__(16) float stage[];

  cp_async_16(smem_address(stage) + 512, from, true);
}

static __global__ void
copy_unaligned(const float *from)
{
  extern __shared__ __align__(16) float stage[];

  cp_async_16(smem_address(stage) + 4, from, true);
}

static __global__ void
copy_left_behind(const float *from)
{
  extern __shared__ __align__(16) float stage[];

  cp_async_16(smem_address(stage), from, true);
}

/* --- mbarriers, tensor maps --- */

static __global__ void
too_many_arrivals(void)
{
  __shared__ uint64_t bar;

  if (threadIdx.x == 0) {
    mbarrier_init(&bar, 2);
    mbarrier_arrive(&bar);
    mbarrier_arrive_expect(&bar, 16); /* the phase waits for bytes and has no arrival left */
    mbarrier_arrive(&bar);
  }
}

static __global__ void
not_initialised(void)
{
  __shared__ uint64_t bar;

  mbarrier_arrive(&bar);
}

static __global__ void
never_complete(void)
{
  __shared__ uint64_t bar;

  if (threadIdx.x == 0)
    mbarrier_init(&bar, 33);
  __syncthreads();
  mbarrier_arrive(&bar);
  mbarrier_wait(&bar, 0);
}

typedef CUresult (*EncodeTiled)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* A box of 64 columns and 8 rows, half outside. Element (row, column) is 64 row + column. */
static __global__ void
load_box(const CUtensorMap *map, uint16_t *to, bool wait)
{
  extern __shared__ __align__(1024) unsigned char stage[];
  __shared__ uint64_t bar;

  if (threadIdx.x == 0) {
    mbarrier_init(&bar, 1);
    mbarrier_init_fence();
    mbarrier_arrive_expect(&bar, 1024);
    tma_load_3d(stage, map, &bar, 32, 4, 0);
    if (wait)
      mbarrier_wait(&bar, 0);
    memcpy(to, stage, 1024);
    mbarrier_wait(&bar, 0);
  }
}

static bool
box_is_right(bool wait)
{
  alignas(16) static uint16_t data[8 * 64];
  static uint16_t got[8 * 64];
  static CUtensorMap map;
  const cuuint64_t sizes[3] = { 64, 8, 1 }, strides[2] = { 128, 1024 };
  const cuuint32_t box[3] = { 64, 8, 1 }, steps[3] = { 1, 1, 1 };
  std::string why;
  bool right;

  for (int i = 0; i < 8 * 64; i++)
    data[i] = (uint16_t) (i + 1);
  right = ((EncodeTiled) encode_tiled_address())(
              &map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, data, sizes, strides, box, steps,
              CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
              CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
  right = right && run_grid(
                       dim3(1), dim3(32), 2048, [=] { load_box(&map, got, wait); }, &why);
  for (int row = 0; row < 8; row++)
    for (int column = 0; column < 64; column++) {
      const int at = row * 64 + (column / 8 ^ row) * 8 + column % 8;
      const int want = row < 4 && column < 32 ? (row + 4) * 64 + column + 32 + 1 : 0;

      right = right && got[at] == want;
    }
  return right;
}

/* --- wgmma: d [64, 64] = a [64, 16] b [16, 64] with a = (row + k) % 7, b = (k - column) % 5 --- */

struct Wgmma {
  bool fence, wait, early;
};

static __global__ void __launch_bounds__(128) multiply(Wgmma how, float *out)
{
  extern __shared__ __align__(1024) unsigned char stage[];
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
  float d[32] = {};
  uint32_t a[4];

  /* b with n along its rows of 128 bytes, swizzled: 8 of k make 1024 bytes. */
  for (int i = threadIdx.x; i < 16 * 64; i += 128) {
    const int k = i / 64, n = i % 64;
    const int at = k * 128 + ((n / 8 ^ k % 8) << 4) + n % 8 * 2;
    const uint32_t word = pack_bf16((float) ((k - n + 100) % 5), 0.0f);

    *(uint16_t *) (stage + at) = (uint16_t) word;
  }
  __syncthreads();
  for (int i = 0; i < 4; i++) {
    const int r = row + i % 2 * 8, k = lane % 4 * 2 + i / 2 * 8;

    a[i] = pack_bf16((float) ((r + k) % 7), (float) ((r + k + 1) % 7));
  }
  if (how.fence)
    wgmma_fence();
  wgmma_rs(d, a,
           (uint64_t) 1 << 62 | (uint64_t) (1024 >> 4) << 32 |
               (uint64_t) (smem_address(stage) >> 4));
  wgmma_commit();
  if (how.early)
    wgmma_landed(d);
  if (how.wait)
    wgmma_wait<0>();
  for (int i = 0; i < 32; i++)
    out[(row + i / 2 % 2 * 8) * 64 + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i];
}

static bool
product_is_right(void)
{
  static float out[64 * 64];
  std::string why;
  bool right = run_grid(
      dim3(1), dim3(128), 2048,
      [=] {
        multiply({ true, true, false }, out);
      },
      &why);

  for (int row = 0; row < 64; row++)
    for (int column = 0; column < 64; column++) {
      float sum = 0;

      for (int k = 0; k < 16; k++)
        sum += (float) ((row + k) % 7) * (float) ((k - column + 100) % 5);
      right = right && out[row * 64 + column] == sum;
    }
  return right;
}

/* --- small floats --- */

static bool
halves_are_right(void)
{
  bool right = true;

  for (uint32_t bits = 0; bits < 0x10000; bits++) {
    const float v = __half2float(__ushort_as_half((unsigned short) bits));

    if (v == v)
      right = right && __half_as_ushort(__float2half_rn(v)) == bits;
  }
  /* Ties to even, carries, the smallest, and what is too large. */
  return right && __float2half_rn(1.0f + 0x1p-11f).bits == 0x3C00 &&
         __float2half_rn(1.0f + 0x3p-11f).bits == 0x3C02 &&
         __float2half_rn(65519.0f).bits == 0x7BFF && __float2half_rn(65520.0f).bits == 0x7C00 &&
         __float2half_rn(0x1p-25f).bits == 0 && __float2half_rn(0x1.8p-25f).bits == 1 &&
         __double2bfloat16(1.0 + 0x1p-8 + 0x1p-40).bits == 0x3F81;
}

int
main(void)
{
  alignas(16) static float numbers[256];
  static float out[64 * 64];

  check("launch bound", "the launch bound is 64", 96, [] { bounded(); });
  result("barrier", sums_are(true), "");
  result("barrier left out", !sums_are(false), "");
  check("who waits for ever is named", "[barrier 1: 32 of 64 are there]", 64,
        [] { half_at_barrier(); });
  check("two arrivals", "arrives twice", 32, [] { barrier_twice(); });
  check("shuffle with lanes gone", "lanes", 32, [] { half_of_a_warp(); });
  check("lanes at different places", "other lanes", 32, [] { different_collectives(); });
  result("cp.async", copied(true, true), "");
  result("cp.async, no group", !copied(false, true), "");
  result("cp.async, no wait", !copied(true, false), "");
  check(
      "cp.async past the end", "shared memory from", 32, [] { copy_outside(numbers); }, 512);
  check(
      "cp.async, alignment", "no multiple of 16", 32, [] { copy_unaligned(numbers); }, 512);
  check(
      "cp.async outlives its thread", "cp.async is under way", 32,
      [] { copy_left_behind(numbers); }, 512);
  check("mbarrier, too many arrivals", "more than 2 arrivals", 32, [] { too_many_arrivals(); });
  check("mbarrier, not initialised", "not initialised", 32, [] { not_initialised(); });
  check("mbarrier, one arrival missing", "1 arrivals and 0 bytes", 32, [] { never_complete(); });
  result("TMA", box_is_right(true), "");
  result("TMA, no wait", !box_is_right(false), "");
  result("wgmma", product_is_right(), "");
  check(
      "wgmma, no fence", "no wgmma.fence", 128,
      [] {
        multiply({ false, true, false }, out);
      },
      2048);
  check(
      "wgmma, no wait", "wgmma is under way", 128,
      [] {
        multiply({ true, false, false }, out);
      },
      2048);
  check(
      "wgmma, sums used too early", "wgmma under way owns", 128,
      [] {
        multiply({ true, true, true }, out);
      },
      2048);
  result("16-bit floats", halves_are_right(), "");
  printf("1..%d\n", n_tests);
  return n_failed ? 1 : 0;
}
