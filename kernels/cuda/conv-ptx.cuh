/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conv-ptx.cuh: the instructions that the convolution kernels are written in, one function
 * each. Nothing here decides anything; the PTX ISA manual has their definitions.
 */
#ifndef OSR_CUDA_CONV_PTX_CUH
#define OSR_CUDA_CONV_PTX_CUH

#include <stdint.h>

/* wgmma exists on sm_90a alone, neither on sm_90 nor on anything newer. */
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define OSR_CONV_HAVE_WGMMA 1
#else
#define OSR_CONV_HAVE_WGMMA 0
#endif

/* The address of shared memory that the instructions below take. */
static __device__ inline uint32_t
conv_shared(const void *p)
{
  return (uint32_t) __cvta_generic_to_shared(p);
}

/* 16 bytes to shared memory, or 16 zeros. The source must be a valid address either way.
 * VIA_L1 keeps the line in L1 for a later copy of the same bytes. */
template <bool VIA_L1>
static __device__ inline void
conv_copy_async(uint32_t to, const void *from, bool zeros)
{
  const uint32_t bytes = zeros ? 0 : 16;

  if (VIA_L1)
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
                 : "memory");
}

/* Ends a group of this thread's copies. */
static __device__ inline void
conv_copy_commit(void)
{
  asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Waits until all but the last N groups of this thread are there. */
template <int N>
static __device__ inline void
conv_copy_wait(void)
{
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

static __device__ inline void
conv_copy_wait_all(void)
{
  asm volatile("cp.async.wait_all;" ::: "memory");
}

/* Four matrices of 8 rows of 16 bytes; lane i has the address of row i % 8 of matrix i / 8. */
static __device__ inline void
conv_load_matrices(uint32_t (&r)[4], uint32_t address)
{
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/* d[16][8] += a[16][16] b[8][16]^T */
static __device__ inline void
conv_mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* d[16][8] += a[16][8] b[8][8]^T */
static __device__ inline void
conv_mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, "
               "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* To the 10 mantissa bits of TF32, ties away from zero. */
static __device__ inline uint32_t
conv_to_tf32(float x)
{
  uint32_t r;

  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
  return r;
}

/* Brings the line to the L2. */
static __device__ inline void
conv_prefetch(const void *p)
{
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

#if OSR_CONV_HAVE_WGMMA

/* A barrier among `threads` threads of the block; number 0 is __syncthreads(). */
static __device__ inline void
conv_named_barrier(int number, int threads)
{
  asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

static __device__ inline void
conv_mbarrier_init(uint32_t barrier, int arrivals)
{
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

/* Makes initialised barriers known to the copy engine. */
static __device__ inline void
conv_mbarrier_init_fence(void)
{
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ inline void
conv_mbarrier_arrive(uint32_t barrier)
{
  asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Arrives once all copies that this thread has begun so far are there. */
static __device__ inline void
conv_mbarrier_arrive_after_copies(uint32_t barrier)
{
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

/* Arrives, and lets the phase wait for `bytes` more bytes of bulk copies. */
static __device__ inline void
conv_mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes)
{
  asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
               "r"(bytes)
               : "memory");
}

/* Waits for the end of the phase of this parity. The loop is in the assembly because in C it
 * would look to the compiler as if threads left it one by one, and wgmma wants whole warps. */
static __device__ inline void
conv_mbarrier_wait(uint32_t barrier, uint32_t parity)
{
  asm volatile("{\n"
               ".reg .pred p;\n"
               "again:\n"
               "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%0], %1;\n"
               "@p bra done;\n"
               "bra again;\n"
               "done:\n"
               "}" ::"r"(barrier),
               "r"(parity)
               : "memory");
}

/* Contiguous bytes to shared memory by the copy engine; 16-byte aligned, a multiple of 16. */
static __device__ inline void
conv_bulk_load(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier)
{
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes "
               "[%0], [%1], %2, [%3];" ::"r"(to),
               "l"(from), "r"(bytes), "r"(barrier)
               : "memory");
}

/* Between writes to shared memory that this thread has made or seen the end of, and wgmma,
 * which reads it by another way (the async proxy). */
static __device__ inline void
conv_proxy_fence(void)
{
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* A K-major operand of wgmma at `address`: rows of 128 bytes, 8 rows make 1024 bytes in which
 * the 16-byte chunks are swizzled (chunk ^= row % 8). The pattern follows address bits, so a
 * step of 32 bytes along K is a plain addition to the address of the first row. */
static __device__ inline uint64_t
conv_wgmma_operand(uint32_t address)
{
  const uint64_t swizzle_128 = (uint64_t) 1 << 62;
  const uint64_t stride = (uint64_t) (1024 >> 4) << 32; /* from 8 rows to the next 8 */
  const uint64_t leading = (uint64_t) 1 << 16;          /* not used by swizzled layouts */

  return swizzle_128 | stride | leading | (uint64_t) ((address & 0x3ffff) >> 4);
}

static __device__ inline void
conv_wgmma_fence(void)
{
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ inline void
conv_wgmma_commit(void)
{
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int N>
static __device__ inline void
conv_wgmma_wait(void)
{
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* The register limit of this warpgroup from here on; all its warps must come by. */
template <int N>
static __device__ inline void
conv_raise_registers(void)
{
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}

template <int N>
static __device__ inline void
conv_lower_registers(void)
{
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* Products under way own their accumulators. The compiler does not know: to it a sum is there
 * when the instruction is past. This keeps its reads and moves on their side of a wait. */
template <int NB>
static __device__ inline void
conv_wgmma_settle(float (&d)[NB][4])
{
#pragma unroll
  for (int i = 0; i < NB; i++)
    asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}

#define CONV_F4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define CONV_F16(i) CONV_F4(i), CONV_F4(i + 1), CONV_F4(i + 2), CONV_F4(i + 3)
#define CONV_F64(i) CONV_F16(i), CONV_F16(i + 4), CONV_F16(i + 8), CONV_F16(i + 12)

/* d[64][8 NB] += a[64][16] b[8 NB][16]^T. Of thread i of the warpgroup,
 * d[j][0..1] are row 16 (i / 32) + i % 32 / 4, columns 8 j + 2 (i % 4) and the next, and
 * d[j][2..3] the same 8 rows below. */
static __device__ inline void
conv_wgmma(float (&d)[4][4], uint64_t a, uint64_t b)
{
  asm volatile("{\n"
               ".reg .pred p;\n"
               "setp.ne.b32 p, %18, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
               "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
               "%16, %17, p, 1, 1, 0, 0;\n"
               "}"
               : CONV_F16(0)
               : "l"(a), "l"(b), "n"(1));
}

static __device__ inline void
conv_wgmma(float (&d)[16][4], uint64_t a, uint64_t b)
{
  asm volatile("{\n"
               ".reg .pred p;\n"
               "setp.ne.b32 p, %66, 0;\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
               "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
               "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
               "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
               "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
               "%64, %65, p, 1, 1, 0, 0;\n"
               "}"
               : CONV_F64(0)
               : "l"(a), "l"(b), "n"(1));
}

static __device__ inline void
conv_wgmma(float (&d)[32][4], uint64_t a, uint64_t b)
{
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "setp.ne.b32 p, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, "
      "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, "
      "%124, %125, %126, %127}, "
      "%128, %129, p, 1, 1, 0, 0;\n"
      "}"
      : CONV_F64(0), CONV_F64(16)
      : "l"(a), "l"(b), "n"(1));
}

#undef CONV_F4
#undef CONV_F16
#undef CONV_F64

#endif /* OSR_CONV_HAVE_WGMMA */

#endif /* OSR_CUDA_CONV_PTX_CUH */
