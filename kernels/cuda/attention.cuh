/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attention.cuh: what the kernels of attention share, and their entry points.
 *
 *   attention-wgmma.cu  bf16 on Hopper: TMA, wgmma, a producer and ping-pong consumers
 *   attention-mma.cu    bf16 from sm_80 on: cp.async, mma.sync; every mask
 *   attention.cu        f32 and bf16 on plain arithmetic: any size, stride and alignment;
 *                       osr_cuda_attention, which chooses
 *
 * All keep an online softmax (arXiv:2307.08691): a block owns some queries, walks over tiles of
 * keys and carries a running maximum m, a running sum l and an unnormalised output o for each
 * query. A new maximum multiplies l and o by exp(m_old - m_new). Memory is O(1) beside the
 * arguments: no path allocates anything.
 *
 * Exponentials have base 2: exp(scale (s - m)) = exp2(c s - c m) with c = scale log2(e), one
 * multiply-add and one instruction of the special function unit.
 *
 * Each mask leaves a prefix of the keys visible, and never a shorter one for a later query
 * (osr_attention_visible). So a block reads keys [0, visible(its last query)), and tiles below
 * visible(its first query) need no mask. Key 0 is visible to every query of a batch item unless
 * its kv_len is 0, when there is no tile at all: a running maximum is finite after the tile that
 * holds key 0 and no path guards against rows without keys.
 * Keys beyond that prefix may be uninitialised memory: they are read as zeros or not at all,
 * since a weight of 0 does not take a NaN out of a sum.
 */
#ifndef OSR_CUDA_ATTENTION_CUH
#define OSR_CUDA_ATTENTION_CUH

#include "cuda.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

/* Shapes of the Hopper kernel. The default is what osr_cuda_attention uses; the others exist
 * for tests/gpu/attention-bench, compiled in with OSR_ATTENTION_VARIANTS. */
typedef enum OsrWgmmaVariant {
  OSR_WGMMA_DEFAULT = 0,
  OSR_WGMMA_128,        /* 128 keys a tile, 2 stages */
  OSR_WGMMA_128X3,      /* 128 keys a tile, 3 stages */
  OSR_WGMMA_NO_OVERLAP, /* softmax waits for both products of its own warpgroup */
  OSR_WGMMA_NO_TURNS,   /* the two consumers run freely */
  OSR_WGMMA_EAGER,      /* o is rescaled at every tile */
  OSR_WGMMA_VARIANTS
} OsrWgmmaVariant;

/* Whether a path can run a call that osr_cuda_attention has found sound and not empty. NULL: it
 * can; otherwise the first reason against it. */
const char *osr_cuda_attention_wgmma_refuses(OsrOpsContext *ctx, const OsrAttention *p);
const char *osr_cuda_attention_mma_refuses(OsrOpsContext *ctx, const OsrAttention *p);

/* Enqueue the call. The first two give OSR_ERR_UNSUPPORTED where they refuse, and
 * the Hopper path also when the driver takes no tensor map of these strides: the next path down
 * runs the call then. */
OsrResult osr_cuda_attention_wgmma(OsrOpsContext *ctx, const OsrAttention *p,
                                   OsrWgmmaVariant variant);
OsrResult osr_cuda_attention_mma(OsrOpsContext *ctx, const OsrAttention *p);
OsrResult osr_cuda_attention_simt(OsrOpsContext *ctx, const OsrAttention *p);

/* Whether all rows of a bf16 matrix begin at a multiple of `bytes`. */
static inline bool
osr_attention_aligned(const void *data, int64_t ld, int64_t rows, int64_t stride, int64_t batch,
                      int bytes)
{
  const int64_t n = bytes / 2;

  return (uintptr_t) data % (uintptr_t) bytes == 0 && (rows <= 1 || ld % n == 0) &&
         (batch <= 1 || stride % n == 0);
}

/* Launches `kernel` with `blocks` blocks in one dimension. */
template <typename... Params, typename... Args>
static OsrResult
osr_attention_launch(OsrOpsContext *ctx, const char *name, void (*kernel)(Params...),
                     int64_t blocks, int threads, size_t shared, const Args &...args)
{
  cudaLaunchConfig_t config = {};

  if (blocks > INT32_MAX)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "attention: %lld blocks, a grid has at most %d",
                    (long long) blocks, INT32_MAX);
  config.gridDim = dim3((unsigned) blocks);
  config.blockDim = dim3((unsigned) threads);
  config.dynamicSmemBytes = shared;
  config.stream = osr_cuda(ctx)->stream;
  OSR_TRY(osr_cuda_check(ctx,
                         cudaFuncSetAttribute((const void *) kernel,
                                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              (int) shared),
                         "attention: %zu bytes of shared memory for kernel %s", shared, name));
  OSR_TRY(osr_cuda_check(ctx, cudaLaunchKernelEx(&config, kernel, args...),
                         "attention: kernel %s, %lld blocks", name, (long long) blocks));
  return osr_cuda_launched(ctx, "attention: kernel %s, %lld blocks", name, (long long) blocks);
}

#endif /* OSR_CUDA_ATTENTION_CUH */
