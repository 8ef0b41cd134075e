/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The CPU backend: the choice of loops, and its table. */
#include "cpu.h"

#include <stdlib.h>
#include <string.h>

#include "../host.h"

static int
cpu_device_count(char *why, size_t why_size)
{
  if (why && why_size > 0)
    why[0] = '\0';
  return 1;
}

#ifdef OSR_HAVE_X86_LOOPS
static bool
have_avx2(void)
{
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool
have_avx512(void)
{
  return have_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

/* The best loops of this machine; `limit` (NULL: none) names the best that may be taken. */
static const OsrLoops *
pick_loops(const char *limit)
{
#ifdef OSR_HAVE_X86_LOOPS
  const bool base = limit && strcmp(limit, "base") == 0;
  const bool avx2 = limit && strcmp(limit, "avx2") == 0;

  __builtin_cpu_init();
  if (!base && !avx2 && have_avx512())
    return &osr_loops_avx512;
  if (!base && have_avx2())
    return &osr_loops_avx2;
#else
  (void) limit;
#endif
  return &osr_loops_base;
}

static OsrResult
cpu_open(OsrOpsContext *ctx, int index)
{
  OsrCpu *cpu;

  if (index != 0)
    return osr_fail(ctx, OSR_ERR_INVALID, "cpu: no device %d, there is one", index);
  cpu = calloc(1, sizeof *cpu);
  if (!cpu)
    return osr_fail(ctx, OSR_ERR_MEMORY, "cpu: no memory");
  /* For tests and comparisons: OSR_CPU_ISA=base, avx2 or avx512 */
  cpu->loops = pick_loops(getenv("OSR_CPU_ISA"));
  cpu->n_threads = ctx->n_threads > 0 ? ctx->n_threads : osr_threads_available();
  cpu->threads = osr_threads_new(cpu->n_threads);
  if (!cpu->threads) {
    free(cpu);
    return osr_fail(ctx, OSR_ERR_MEMORY, "cpu: no memory");
  }
  ctx->backend = &osr_backend_cpu;
  ctx->stream = NULL;
  ctx->impl = cpu;
  return OSR_OK;
}

static void
cpu_close(OsrOpsContext *ctx)
{
  OsrCpu *cpu = ctx->impl;

  if (cpu)
    osr_threads_free(cpu->threads);
  free(cpu);
  ctx->impl = NULL;
}

static OsrResult
cpu_synchronize(OsrOpsContext *ctx)
{
  (void) ctx;
  return OSR_OK;
}

float *
osr_cpu_scratch(OsrOpsContext *ctx, const char *op, int64_t floats)
{
  float *scratch = NULL;

  if (floats > 0 && (uint64_t) floats <= SIZE_MAX / sizeof(float))
    scratch = osr_scratch_alloc(ctx, (size_t) floats * sizeof(float));
  if (!scratch)
    osr_fail(ctx, OSR_ERR_MEMORY, "%s: no scratch memory of %lld floats", op, (long long) floats);
  return scratch;
}

void
osr_cpu_scratch_free(OsrOpsContext *ctx, float *scratch, int64_t floats)
{
  osr_scratch_free(ctx, scratch, (size_t) floats * sizeof(float));
}

const OsrBackend osr_backend_cpu = {
    .abi = OSR_OPS_ABI,
    .name = "cpu",
    .dtypes = OSR_CPU_DTYPES,
    .device_count = cpu_device_count,
    .open = cpu_open,
    .close = cpu_close,
    .mem_info = osr_host_mem_info,
    .mem_alloc = osr_host_mem_alloc,
    .mem_free = osr_host_mem_free,
    .mem_set = osr_host_mem_set,
    .copy = osr_host_copy,
    .synchronize = cpu_synchronize,
    .mark = osr_mark_at_once,
    .wait = osr_wait_at_once,
    .ops =
        {
            .linear = osr_cpu_linear,
            .glu = osr_cpu_glu,
            .layer_norm = osr_cpu_layer_norm,
            .rms_norm = osr_cpu_rms_norm,
            .qk_norm_rope = osr_cpu_qk_norm_rope,
            .attention = osr_cpu_attention,
            .group_norm = osr_cpu_group_norm,
            .conv3d = osr_cpu_conv3d,
            .patchify = osr_cpu_patchify,
            .unpatchify = osr_cpu_unpatchify,
            .embedding = osr_cpu_embedding,
            .timestep = osr_cpu_timestep,
            .affine = osr_cpu_affine,
            .copy2d = osr_cpu_copy2d,
            .guidance_step = osr_cpu_guidance_step,
            .randn = osr_cpu_randn,
            .gaussian = osr_cpu_gaussian,
            .blend = osr_cpu_blend,
            .tensor_to_frame = osr_cpu_tensor_to_frame,
            .frame_to_tensor = osr_cpu_frame_to_tensor,
        },
};
