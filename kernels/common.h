/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * common.h: what every backend needs besides ops.h: error messages, the activation
 * functions and the small formulas that must be the same everywhere. Argument checks are
 * in check.h. Included by C and CUDA C; no GLib.
 */
#ifndef OSR_KERNELS_COMMON_H
#define OSR_KERNELS_COMMON_H

#include "ops.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#ifdef __CUDACC__
#define OSR_FN static __host__ __device__ inline
#else
#define OSR_FN static inline
#endif

#ifdef __GNUC__
#define OSR_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define OSR_PRINTF(fmt, args)
#endif

/* Writes the message into ctx->error and gives `code` back, for `return osr_fail(...)`. */
static inline OsrResult osr_fail(OsrOpsContext *ctx, OsrResult code, const char *fmt, ...)
    OSR_PRINTF(3, 4);

static inline OsrResult
osr_fail(OsrOpsContext *ctx, OsrResult code, const char *fmt, ...)
{
  va_list args;

  va_start(args, fmt);
  vsnprintf(ctx->error, sizeof ctx->error, fmt, args);
  va_end(args);
  return code;
}

/* Scratch memory of one call, from the owner of the context or the backend itself. NULL when
 * there is none; the caller then returns OSR_ERR_MEMORY. */
static inline void *
osr_scratch_alloc(OsrOpsContext *ctx, size_t size)
{
  if (ctx->scratch_alloc)
    return ctx->scratch_alloc(ctx->user, size);
  return ctx->backend->mem_alloc(ctx, size);
}

static inline void
osr_scratch_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  if (ctx->scratch_alloc)
    ctx->scratch_free(ctx->user, ptr, size);
  else
    ctx->backend->mem_free(ctx, ptr, size);
}

/* "f32", "bf16", ... for messages. */
static inline const char *
osr_ops_dtype_name(OsrDType dtype)
{
  switch (dtype) {
  case OSR_DTYPE_F32:
    return "f32";
  case OSR_DTYPE_BF16:
    return "bf16";
  case OSR_DTYPE_F16:
    return "f16";
  case OSR_DTYPE_F64:
    return "f64";
  case OSR_DTYPE_I32:
    return "i32";
  case OSR_DTYPE_I64:
    return "i64";
  case OSR_DTYPE_U8:
    return "u8";
  case OSR_DTYPE_BOOL:
    return "bool";
  case OSR_DTYPE_F8_E4M3:
    return "f8_e4m3";
  default:
    return "unknown type";
  }
}

OSR_FN double
osr_act_f64(OsrAct act, double x)
{
  switch (act) {
  case OSR_ACT_SILU:
    return x / (1.0 + exp(-x));
  case OSR_ACT_GELU_TANH:
    /* 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u)), without the cancellation for u << 0. */
    return x / (1.0 + exp(-2.0 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
  case OSR_ACT_GELU_ERF:
    return 0.5 * x * erfc(-x * 0.70710678118654752440);
  case OSR_ACT_QUICK_GELU:
    return x / (1.0 + exp(-1.702 * x));
  default:
    return x;
  }
}

/* How many keys query `i` sees. Each mask leaves a prefix of the keys visible, and so does
 * their intersection with the padding mask: keys [0, result) are seen, the others not.
 * `kv_len` is the batch item's, or p->lk without one. */
OSR_FN int64_t
osr_attention_visible(const OsrAttention *p, int64_t i, int64_t kv_len)
{
  int64_t n = p->lk;

  if (p->mask == OSR_MASK_CAUSAL)
    n = i + 1;
  else if (p->mask == OSR_MASK_FRAME_CAUSAL)
    n = (i / p->frame_len + 1) * p->frame_len;
  if (n > p->lk)
    n = p->lk;
  if (n > kv_len)
    n = kv_len;
  return n < 0 ? 0 : n;
}

/* Frequency j of a sinusoidal embedding with `half` of them. Upstream rounds to f32 after
 * each of these steps; at t = 1000 one rounding less turns the phase by 5e-4, so the steps
 * are part of the definition. */
OSR_FN float
osr_timestep_freq(float max_period, int j, int half)
{
  float slope = (float) -log((double) max_period);
  float exponent = slope * (float) j / (float) half;

  return (float) exp((double) exponent);
}

/* Luma weights of red and blue (green has the rest): ITU-R BT.601-7 and BT.709-6. */
OSR_FN void
osr_matrix_luma(OsrMatrix matrix, double *kr, double *kb)
{
  *kr = matrix == OSR_MATRIX_BT709 ? 0.2126 : 0.299;
  *kb = matrix == OSR_MATRIX_BT709 ? 0.0722 : 0.114;
}

/* F8 e4m3: exponent and fraction in the place of an f32's, then its bias; right for subnormal
 * numbers too. */
OSR_FN float
osr_f8_to_f32(uint8_t f8)
{
  union {
    uint32_t bits;
    float f;
  } v = { (uint32_t) (f8 & 0x7F) << 20 };

  if ((f8 & 0x7F) == 0x7F)
    v.bits = 0x7FC00000u;
  else
    v.f *= 0x1p120f;
  v.bits |= (uint32_t) (f8 & 0x80) << 24;
  return v.f;
}

#endif /* OSR_KERNELS_COMMON_H */
