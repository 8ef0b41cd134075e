/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cuda.h: the CUDA backend: bf16 and f32, one stream a context.
 *
 *   backend.c        devices, contexts, errors, the table
 *   memory.c         the memory pool, copies through pinned staging memory
 *   stream.c         marks, fetches, graphs
 *   gemm.c           cuBLASLt: plans a shape, their cache, autotuning
 *   device.cuh       what kernels share: wide loads, sums, activations, grids
 *   linear.cu        linear: what cuBLASLt leaves over, few rows, odd shapes
 *   norm.cu          layer_norm, rms_norm
 *   rope.cu          qk_norm_rope
 *   group-norm.cu    group_norm
 *   elements.cu      glu, affine, copy2d, embedding, patchify, unpatchify
 *   sampler.cu       timestep, guidance_step, randn, gaussian, blend
 *   frame.cu         tensor_to_frame, frame_to_tensor
 *   attention*.cu    attention
 *   conv*.cu         conv3d
 *
 * Sums and statistics are f32 or better, and a call gives the same bits each time: nothing
 * is summed in an order that depends on timing. (cuBLASLt may pick other algorithms, hence
 * other bits, for other shapes, versions and cards.)
 *
 * Environment, for measurements and for finding faults; read when a device is opened:
 *   OSR_CUDA_TF32=1          products of f32 matrices on tensor cores, 10 bits of mantissa
 *   OSR_CUDA_AUTOTUNE=FILE   time the algorithms of each new product once, keep them in FILE
 *   OSR_CUDA_GATE=NAME       only this way of fusing gates: vector, weights or none
 *   OSR_CUDA_CAPABILITY=80   the kernels of an older card, which newer ones run too
 *   OSR_CUDA_SYNC=1          wait after each launch, so that a fault names its own op
 *
 * Without meson, from the top of the repository:
 *   nvcc -O3 -Xcompiler -fPIC,-O2 -Ikernels -gencode arch=compute_90a,code=sm_90a \
 *     -shared kernels/cuda/[a-z]*.c kernels/cuda/[a-z]*.cu -lcublasLt -o libopensora-cuda.so
 */
#ifndef OSR_CUDA_H
#define OSR_CUDA_H

#include "../check.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <pthread.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OSR_CUDA_DTYPES (OSR_MASK_OF(OSR_DTYPE_F32) | OSR_MASK_OF(OSR_DTYPE_BF16))

/* Staging memory: slots that the copy engine and the host take in turns. */
#define OSR_CUDA_SLOTS 8
#define OSR_CUDA_SLOT_SIZE ((size_t) 4 << 20)

/* Names of the last ops, for errors that turn up long after their cause. */
#define OSR_CUDA_HISTORY 4

/* How a gate gets into a product: see osr_cuda_linear(). */
typedef enum OsrCudaGate {
  OSR_CUDA_GATE_BEST = 0,
  OSR_CUDA_GATE_VECTOR,  /* as cuBLASLt's alpha */
  OSR_CUDA_GATE_WEIGHTS, /* multiplied into a copy of the weights */
  OSR_CUDA_GATE_NONE,    /* in a kernel after the product */
} OsrCudaGate;

typedef struct OsrCudaGemms OsrCudaGemms;

/* ctx->impl */
typedef struct OsrCuda {
  int device;
  int capability;        /* 80, 89, 90 ... that kernels are chosen for */
  int n_sms, sm_threads; /* multiprocessors, threads that one runs at once */
  size_t l2_size;
  size_t max_shared; /* dynamic shared memory a block may ask for */
  bool tf32, sync_each;
  OsrCudaGate gate;

  cudaStream_t stream; /* what ops enqueue on: main, or record during a recording */
  cudaStream_t main, record;
  bool recording; /* read and written atomically */
  pthread_t recorder;
  cudaEvent_t marks[OSR_MAX_MARKS];
  cudaStream_t copies; /* of fetches */
  cudaEvent_t fetched[OSR_MAX_MARKS];
  cudaMemPool_t pool;

  cublasLtHandle_t lt;
  void *workspace; /* of cuBLASLt, in stream order */
  size_t workspace_size;
  OsrCudaGemms *gemms;

  pthread_mutex_t staging_lock;
  char *staging; /* pinned, made when first needed */
  bool staging_refused;
  cudaEvent_t staged[OSR_CUDA_SLOTS]; /* the slot has been read by the device */
  int next_slot;

  const char *history[OSR_CUDA_HISTORY];
  unsigned n_ops;
  /* After an error that CUDA does not recover from: what every later call says. */
  bool broken;
  char reason[256];
} OsrCuda;

static inline OsrCuda *
osr_cuda(const OsrOpsContext *ctx)
{
  return (OsrCuda *) ctx->impl;
}

/* --- backend.c --- */

/* What the engine looks up: OsrBackendModule. */
__attribute__((visibility("default"))) const OsrBackend *osr_backend_module(void);

/* Before anything else in an op: makes the device current in this thread (another library
 * may have made its own so), remembers the op's name, and refuses when the device is lost. */
OsrResult osr_cuda_begin(OsrOpsContext *ctx, const char *op);

/* Turns a CUDA error into a result; the message is the one given and CUDA's own. cudaSuccess
 * gives OSR_OK without a look at the rest. */
OsrResult osr_cuda_check(OsrOpsContext *ctx, cudaError_t error, const char *fmt, ...)
    OSR_PRINTF(3, 4);

/* After the launches of an op: whether they were accepted. */
OsrResult osr_cuda_launched(OsrOpsContext *ctx, const char *fmt, ...) OSR_PRINTF(2, 3);

/* Whether this build has `kernel` for the device, with `threads` threads a block. Kernels that
 * need sm_90a are compiled for other targets as well, empty and with a bound of one thread. */
bool osr_cuda_has_kernel(const void *kernel, int threads);

/* --- stream.c --- */

OsrResult osr_cuda_streams_open(OsrOpsContext *ctx);
void osr_cuda_streams_close(OsrOpsContext *ctx);
/* Whether this thread records a graph, and the stream that its memory calls belong on. */
bool osr_cuda_recording(const OsrCuda *cuda);
cudaStream_t osr_cuda_stream(const OsrCuda *cuda);
/* OSR_ERR_INVALID when it does. */
OsrResult osr_cuda_not_recording(OsrOpsContext *ctx, const char *what);
OsrResult osr_cuda_mark(OsrOpsContext *ctx, uint64_t *mark);
OsrResult osr_cuda_wait(OsrOpsContext *ctx, uint64_t mark);
OsrResult osr_cuda_synchronize(OsrOpsContext *ctx);
void *osr_cuda_host_alloc(OsrOpsContext *ctx, size_t size);
void osr_cuda_host_free(OsrOpsContext *ctx, void *ptr, size_t size);
OsrResult osr_cuda_fetch(OsrOpsContext *ctx, void *dst, const void *src, size_t size,
                         uint64_t after, uint64_t *fetch);
OsrResult osr_cuda_join(OsrOpsContext *ctx, uint64_t fetch);
OsrResult osr_cuda_graph_begin(OsrOpsContext *ctx);
OsrResult osr_cuda_graph_end(OsrOpsContext *ctx, void **graph);
OsrResult osr_cuda_graph_launch(OsrOpsContext *ctx, void *graph);
void osr_cuda_graph_free(OsrOpsContext *ctx, void *graph);

/* --- memory.c --- */

OsrResult osr_cuda_memory_open(OsrOpsContext *ctx);
void osr_cuda_memory_close(OsrOpsContext *ctx);
OsrResult osr_cuda_mem_info(OsrOpsContext *ctx, size_t *free, size_t *total);
void *osr_cuda_mem_alloc(OsrOpsContext *ctx, size_t size);
void osr_cuda_mem_free(OsrOpsContext *ctx, void *ptr, size_t size);
OsrResult osr_cuda_mem_set(OsrOpsContext *ctx, void *ptr, int byte, size_t size);
OsrResult osr_cuda_copy(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size);

/* --- gemm.c --- */

/* y = act(alpha x W^T + bias) + residual with act and residual never both: what cuBLASLt does
 * in one kernel. Row-major, strides in elements as in OsrLinear. */
typedef struct OsrCudaGemm {
  OsrDType dtype; /* of everything but alpha */
  int64_t batch, m;
  int n, k;
  const void *x;
  int64_t x_ld, x_batch;
  const void *w;
  int64_t w_batch;  /* 0: one matrix for all */
  const void *bias; /* [n] 16-byte aligned, or NULL */
  int64_t bias_batch;
  const float *alpha; /* [n], a factor a column of y, or NULL (= 1) */
  int64_t alpha_batch;
  bool tf32; /* f32 products on tensor cores */
  bool gelu; /* tanh form, bf16 only: cuBLASLt's own is not exact enough for f32 */
  const void *residual;
  int64_t residual_ld, residual_batch;
  void *y;
  int64_t y_ld, y_batch;
} OsrCudaGemm;

OsrResult osr_cuda_gemm_open(OsrOpsContext *ctx);
void osr_cuda_gemm_close(OsrOpsContext *ctx);
/* OSR_ERR_UNSUPPORTED, without a message and without work done, where cuBLASLt has no kernel. */
OsrResult osr_cuda_gemm(OsrOpsContext *ctx, const OsrCudaGemm *g);
/* Whether osr_cuda_gemm() is already known to say that; pointers are not followed. */
bool osr_cuda_gemm_refused(OsrOpsContext *ctx, const OsrCudaGemm *g);

/* --- the ops --- */

OsrResult osr_cuda_linear(OsrOpsContext *ctx, const OsrLinear *p);
OsrResult osr_cuda_glu(OsrOpsContext *ctx, const OsrGlu *p);
OsrResult osr_cuda_layer_norm(OsrOpsContext *ctx, const OsrLayerNorm *p);
OsrResult osr_cuda_rms_norm(OsrOpsContext *ctx, const OsrRmsNorm *p);
OsrResult osr_cuda_qk_norm_rope(OsrOpsContext *ctx, const OsrQkNormRope *p);
OsrResult osr_cuda_attention(OsrOpsContext *ctx, const OsrAttention *p);
OsrResult osr_cuda_group_norm(OsrOpsContext *ctx, const OsrGroupNorm *p);
OsrResult osr_cuda_conv3d(OsrOpsContext *ctx, const OsrConv3d *p);
OsrResult osr_cuda_patchify(OsrOpsContext *ctx, const OsrPatchify *p);
OsrResult osr_cuda_unpatchify(OsrOpsContext *ctx, const OsrPatchify *p);
OsrResult osr_cuda_embedding(OsrOpsContext *ctx, const OsrEmbedding *p);
OsrResult osr_cuda_timestep(OsrOpsContext *ctx, const OsrTimestep *p);
OsrResult osr_cuda_affine(OsrOpsContext *ctx, const OsrAffine *p);
OsrResult osr_cuda_copy2d(OsrOpsContext *ctx, const OsrCopy2d *p);
OsrResult osr_cuda_guidance_step(OsrOpsContext *ctx, const OsrGuidanceStep *p);
OsrResult osr_cuda_randn(OsrOpsContext *ctx, const OsrRandn *p);
OsrResult osr_cuda_gaussian(OsrOpsContext *ctx, const OsrGaussian *p);
OsrResult osr_cuda_blend(OsrOpsContext *ctx, const OsrBlend *p);
OsrResult osr_cuda_tensor_to_frame(OsrOpsContext *ctx, const OsrFrame *p);
OsrResult osr_cuda_frame_to_tensor(OsrOpsContext *ctx, const OsrFrame *p);

/* n elements of any float type, F8 too, to f32 or bf16; for weights. In elements.cu. */
OsrResult osr_cuda_convert(OsrOpsContext *ctx, OsrDType from, const void *x, OsrDType to, void *y,
                           int64_t n);

#ifdef __cplusplus
}
#endif

#endif /* OSR_CUDA_H */
