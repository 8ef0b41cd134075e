/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attention-ptx.cuh: the instructions that CUDA C has no word for, one function each. Names
 * and semantics are those of the PTX ISA; register layouts are written where they are used.
 */
#ifndef OSR_CUDA_ATTENTION_PTX_CUH
#define OSR_CUDA_ATTENTION_PTX_CUH

#include <cuda.h>
#include <cuda_bf16.h>
#include <stdint.h>

#define OSR_DEV static __device__ __forceinline__

OSR_DEV uint32_t
smem_address(const void *p)
{
  return (uint32_t) __cvta_generic_to_shared(p);
}

OSR_DEV float
fast_exp2(float x)
{
  float y;

  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* Two floats rounded to bf16, `lo` in the lower half: the order of neighbours in memory. */
OSR_DEV uint32_t
pack_bf16(float lo, float hi)
{
  uint32_t y;

  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
  return y;
}

/* --- sm_80: asynchronous copies and warp-wide products --- */

/* 16 bytes to shared memory past the L1 cache; zeros when not `valid` (src is not read then). */
OSR_DEV void
cp_async_16(uint32_t dst, const void *src, bool valid)
{
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src),
               "r"(valid ? 16 : 0)
               : "memory");
}

OSR_DEV void
cp_async_commit(void)
{
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until at most N of this thread's groups are still under way. */
template <int N>
OSR_DEV void
cp_async_wait(void)
{
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Four 8x8 matrices of 16-bit elements; lane 8 i + r gives the address of row r of matrix i, and
 * gets from matrix i the elements (lane / 4, 2 (lane % 4) + {0, 1}) in r[i]. */
OSR_DEV void
ldmatrix_x4(uint32_t r[4], uint32_t address)
{
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/* The same of the transposed matrices. */
OSR_DEV void
ldmatrix_x4_trans(uint32_t r[4], uint32_t address)
{
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/* d [16, 8] += a [16, 16] b [16, 8]. With g = lane / 4 and t = lane % 4:
 * a[0..3] rows g, g + 8, g, g + 8, columns 2 t + {0, 1}, the last two 8 further right;
 * b0, b1  rows 2 t + {0, 1} and 8 below, column g;
 * d[0..3] row g columns 2 t, 2 t + 1, then row g + 8. */
OSR_DEV void
mma_16x8x16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
      "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* --- sm_90: barriers in shared memory, the copy engine --- */

OSR_DEV void
mbarrier_init(uint64_t *bar, int arrivals)
{
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(smem_address(bar)), "r"(arrivals)
               : "memory");
}

/* Makes initialised barriers visible to the copy engine. */
OSR_DEV void
mbarrier_init_fence(void)
{
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

OSR_DEV void
mbarrier_arrive(uint64_t *bar)
{
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(smem_address(bar)) : "memory");
}

/* Arrives, and keeps the phase open until `bytes` more have been copied. */
OSR_DEV void
mbarrier_arrive_expect(uint64_t *bar, uint32_t bytes)
{
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(smem_address(bar)),
               "r"(bytes)
               : "memory");
}

/* Whether the phase of this parity is complete, after a while of waiting in hardware. */
OSR_DEV bool
mbarrier_try_wait(uint64_t *bar, uint32_t parity)
{
  uint32_t done;

  asm volatile("{\n"
               ".reg .pred done;\n"
               "mbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\n"
               "selp.u32 %0, 1, 0, done;\n"
               "}"
               : "=r"(done)
               : "r"(smem_address(bar)), "r"(parity)
               : "memory");
  return done != 0;
}

/* Waits for the phase of this parity. A fresh barrier is in phase 0: parity 1 (the phase before
 * it) passes at once. */
OSR_DEV void
mbarrier_wait(uint64_t *bar, uint32_t parity)
{
  while (!mbarrier_try_wait(bar, parity)) {
  }
}

/* Copies a box, its corner at (x, y, z) with x innermost, and reports its bytes to `bar`.
 * What lies outside of the tensor arrives as zeros and counts. */
OSR_DEV void
tma_load_3d(void *dst, const CUtensorMap *map, uint64_t *bar, int x, int y, int z)
{
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1, {%3, %4, %5}], [%2];" ::"r"(smem_address(dst)),
               "l"(map), "r"(smem_address(bar)), "r"(x), "r"(y), "r"(z)
               : "memory");
}

OSR_DEV void
tma_prefetch_map(const CUtensorMap *map)
{
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

/* Orders this thread's plain stores to shared memory before later reads by wgmma. */
OSR_DEV void
fence_async_shared(void)
{
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* Named barrier `id` of `threads` threads: wait for the others, or do not. */
OSR_DEV void
named_barrier_sync(int id, int threads)
{
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

OSR_DEV void
named_barrier_arrive(int id, int threads)
{
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <int N>
OSR_DEV void
registers_raise(void)
{
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N>
OSR_DEV void
registers_lower(void)
{
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* --- sm_90a: products of a warpgroup, [64, N] += [64, 16] [16, N] ---
 *
 * Warp w of the four owns rows 16 w to 16 w + 15. In it, g = lane / 4, t = lane % 4: d[4 j + i]
 * is column 8 j + 2 t + i % 2 of row g + 8 (i / 2). A in registers has the layout of
 * mma_16x8x16's a. */

/* Orders register writes before the products that read them. */
OSR_DEV void
wgmma_fence(void)
{
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

OSR_DEV void
wgmma_commit(void)
{
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most N committed groups of products are still running. */
template <int N>
OSR_DEV void
wgmma_wait(void)
{
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* The compiler takes the result of a product as there when the product was issued. This keeps
 * it from using the registers before the wait above it, and costs nothing. */
template <int N>
OSR_DEV void
wgmma_landed(float (&d)[N])
{
#pragma unroll
  for (int i = 0; i < N; i++)
    asm volatile("" : "+f"(d[i])::"memory");
}

template <int N>
OSR_DEV void
wgmma_landed(uint32_t (&a)[N])
{
#pragma unroll
  for (int i = 0; i < N; i++)
    asm volatile("" : "+r"(a[i])::"memory");
}

/* Operand lists of 8 registers and the texts that name them. */
#define OSR_F8(d, i)                                                                               \
  "+f"((d)[8 * (i)]), "+f"((d)[8 * (i) + 1]), "+f"((d)[8 * (i) + 2]), "+f"((d)[8 * (i) + 3]),      \
      "+f"((d)[8 * (i) + 4]), "+f"((d)[8 * (i) + 5]), "+f"((d)[8 * (i) + 6]),                      \
      "+f"((d)[8 * (i) + 7])
#define OSR_F32(d, i)                                                                              \
  OSR_F8(d, 4 * (i)), OSR_F8(d, 4 * (i) + 1), OSR_F8(d, 4 * (i) + 2), OSR_F8(d, 4 * (i) + 3)
#define OSR_T32_0                                                                                  \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, "     \
  "%20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define OSR_T32_1                                                                                  \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "     \
  "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define OSR_T24_2                                                                                  \
  "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "     \
  "%82, %83, %84, %85, %86, %87"

/* A and B from shared memory, both with k along their rows. `add` false: d is overwritten. */
#define OSR_WGMMA_SS(n, regs, operands, a, b, add)                                                 \
  asm volatile("{\n"                                                                               \
               ".reg .pred add;\n"                                                                 \
               "setp.ne.b32 add, %" add ", 0;\n"                                                   \
               "wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" regs "}, "              \
               "%" a ", %" b ", add, 1, 1, 0, 0;\n"                                                \
               "}"                                                                                 \
               : operands                                                                          \
               : "l"(a_desc), "l"(b_desc), "r"((int) accumulate))

/* A from registers, B from shared memory with n along its rows (transposed). */
#define OSR_WGMMA_RS(n, regs, operands, a0, a1, a2, a3, b)                                         \
  asm volatile("wgmma.mma_async.sync.aligned.m64n" n "k16.f32.bf16.bf16 {" regs "}, "              \
               "{%" a0 ", %" a1 ", %" a2 ", %" a3 "}, %" b ", 1, 1, 1, 1;\n"                       \
               : operands                                                                          \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_desc))

#define OSR_COMMA ,

OSR_DEV void
wgmma_ss(float (&d)[64], uint64_t a_desc, uint64_t b_desc, bool accumulate)
{
  OSR_WGMMA_SS("128", OSR_T32_0 ", " OSR_T32_1, OSR_F32(d, 0) OSR_COMMA OSR_F32(d, 1), "64", "65",
               "66");
}

OSR_DEV void
wgmma_ss(float (&d)[88], uint64_t a_desc, uint64_t b_desc, bool accumulate)
{
  OSR_WGMMA_SS("176", OSR_T32_0 ", " OSR_T32_1 ", " OSR_T24_2,
               OSR_F32(d, 0) OSR_COMMA OSR_F32(d, 1) OSR_COMMA OSR_F8(d, 8) OSR_COMMA OSR_F8(d, 9)
                   OSR_COMMA OSR_F8(d, 10),
               "88", "89", "90");
}

OSR_DEV void
wgmma_rs(float (&d)[32], const uint32_t *a, uint64_t b_desc)
{
  OSR_WGMMA_RS("64", OSR_T32_0, OSR_F32(d, 0), "32", "33", "34", "35", "36");
}

OSR_DEV void
wgmma_rs(float (&d)[64], const uint32_t *a, uint64_t b_desc)
{
  OSR_WGMMA_RS("128", OSR_T32_0 ", " OSR_T32_1, OSR_F32(d, 0) OSR_COMMA OSR_F32(d, 1), "64", "65",
               "66", "67", "68");
}

#endif /* OSR_CUDA_ATTENTION_PTX_CUH */
