/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cpu.h: the CPU backend: f32, threads, vector code picked at run time.
 *
 *   loops.[ch], tile.h, vmath.h   what one core does, compiled once an instruction set
 *   linear.c, conv.c, attention.c products: they pack one operand, cut the rest into tasks
 *                                 and give these to the threads
 *   norm.c, layout.c, frame.c     the rest of the table
 *   threads.[ch]                  the threads of a context
 *   cpu.c                         the table itself, choice of loops
 *
 * Results do not depend on the number of threads: what one item of work computes does not.
 */
#ifndef OSR_CPU_H
#define OSR_CPU_H

#include "../check.h"
#include "loops.h"
#include "threads.h"

#define OSR_CPU_DTYPES OSR_MASK_OF(OSR_DTYPE_F32)

/* ctx->impl */
typedef struct OsrCpu {
  const OsrLoops *loops;
  OsrThreads *threads;
  int n_threads;
} OsrCpu;

static inline const OsrLoops *
osr_cpu_loops(const OsrOpsContext *ctx)
{
  return ((const OsrCpu *) ctx->impl)->loops;
}

/* Threads for a call of so many operations (multiply-adds, elements times some): a call that
 * is over in a few microseconds is not worth waking anybody. */
static inline int
osr_cpu_threads(const OsrOpsContext *ctx, double work)
{
  return work < 5e5 ? 1 : ((const OsrCpu *) ctx->impl)->n_threads;
}

/* Items of `n` that go together so that each thread gets about `pieces` such lots. */
static inline int64_t
osr_cpu_grain(int64_t n, int threads, int pieces)
{
  int64_t grain = n / ((int64_t) threads * pieces);

  return grain > 0 ? grain : 1;
}

/* task(data, ...) for all of [0, n), by `threads` threads: 1 or those of the context. */
static inline void
osr_cpu_run(const OsrOpsContext *ctx, int threads, int64_t n, int64_t grain, OsrTask task,
            const void *data)
{
  if (threads > 1)
    osr_threads_run(((const OsrCpu *) ctx->impl)->threads, n, grain, task, data);
  else if (n > 0)
    task(data, 0, n, 0);
}

/* The same for items that are alike and many, such as rows. */
static inline void
osr_cpu_run_rows(const OsrOpsContext *ctx, double work_a_row, int64_t n, OsrTask task,
                 const void *data)
{
  const int threads = osr_cpu_threads(ctx, work_a_row * (double) n);

  osr_cpu_run(ctx, threads, n, osr_cpu_grain(n, threads, 4), task, data);
}

static inline int64_t
osr_min64(int64_t a, int64_t b)
{
  return a < b ? a : b;
}

static inline int64_t
osr_ceil_div(int64_t a, int64_t b)
{
  return (a + b - 1) / b;
}

/* [0, n) in `parts` parts that differ by one at most: where part i starts. */
static inline int64_t
osr_part(int64_t n, int64_t parts, int64_t i)
{
  return i * (n / parts) + osr_min64(i, n % parts);
}

/* Scratch memory of `floats` floats, 64-byte aligned if the owner's memory is; NULL with an
 * error set when there is none. */
float *osr_cpu_scratch(OsrOpsContext *ctx, const char *op, int64_t floats);
void osr_cpu_scratch_free(OsrOpsContext *ctx, float *scratch, int64_t floats);

OsrResult osr_cpu_linear(OsrOpsContext *ctx, const OsrLinear *p);
OsrResult osr_cpu_glu(OsrOpsContext *ctx, const OsrGlu *p);
OsrResult osr_cpu_layer_norm(OsrOpsContext *ctx, const OsrLayerNorm *p);
OsrResult osr_cpu_rms_norm(OsrOpsContext *ctx, const OsrRmsNorm *p);
OsrResult osr_cpu_qk_norm_rope(OsrOpsContext *ctx, const OsrQkNormRope *p);
OsrResult osr_cpu_attention(OsrOpsContext *ctx, const OsrAttention *p);
OsrResult osr_cpu_group_norm(OsrOpsContext *ctx, const OsrGroupNorm *p);
OsrResult osr_cpu_conv3d(OsrOpsContext *ctx, const OsrConv3d *p);
OsrResult osr_cpu_patchify(OsrOpsContext *ctx, const OsrPatchify *p);
OsrResult osr_cpu_unpatchify(OsrOpsContext *ctx, const OsrPatchify *p);
OsrResult osr_cpu_embedding(OsrOpsContext *ctx, const OsrEmbedding *p);
OsrResult osr_cpu_timestep(OsrOpsContext *ctx, const OsrTimestep *p);
OsrResult osr_cpu_affine(OsrOpsContext *ctx, const OsrAffine *p);
OsrResult osr_cpu_copy2d(OsrOpsContext *ctx, const OsrCopy2d *p);
OsrResult osr_cpu_guidance_step(OsrOpsContext *ctx, const OsrGuidanceStep *p);
OsrResult osr_cpu_randn(OsrOpsContext *ctx, const OsrRandn *p);
OsrResult osr_cpu_gaussian(OsrOpsContext *ctx, const OsrGaussian *p);
OsrResult osr_cpu_blend(OsrOpsContext *ctx, const OsrBlend *p);
OsrResult osr_cpu_tensor_to_frame(OsrOpsContext *ctx, const OsrFrame *p);
OsrResult osr_cpu_frame_to_tensor(OsrOpsContext *ctx, const OsrFrame *p);

#endif /* OSR_CPU_H */
