/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check.h: argument checks of the ops, the same in every backend.
 *
 * osr_check_<op>(ctx, p, dtypes) returns OSR_OK or says in ctx->error what is wrong.
 * `dtypes` is the mask of activation types that the backend's op takes. Required pointers
 * are looked at only when the call has work to do: a zero-sized call needs none. Contents
 * of device memory (ids, lengths) are never looked at here.
 */
#ifndef OSR_KERNELS_CHECK_H
#define OSR_KERNELS_CHECK_H

#include "common.h"
#include "philox.h"

#define OSR_MASK_OF(dtype) (1u << (dtype))
#define OSR_FLOAT_DTYPES                                                                           \
  (OSR_MASK_OF(OSR_DTYPE_F32) | OSR_MASK_OF(OSR_DTYPE_BF16) | OSR_MASK_OF(OSR_DTYPE_F16))

/* `return` an OSR_ERR_INVALID with a message unless `cond` holds. */
#define OSR_REQUIRE(ctx, cond, ...)                                                                \
  do {                                                                                             \
    if (!(cond))                                                                                   \
      return osr_fail(ctx, OSR_ERR_INVALID, __VA_ARGS__);                                          \
  } while (0)

/* `return` the result of a nested check unless it is OSR_OK. */
#define OSR_TRY(expr)                                                                              \
  do {                                                                                             \
    OsrResult try_result_ = (expr);                                                                \
    if (try_result_ != OSR_OK)                                                                     \
      return try_result_;                                                                          \
  } while (0)

/* An activation type: f32, bf16 or f16, and one the backend has. */
static inline OsrResult
osr_check_dtype(OsrOpsContext *ctx, const char *op, OsrDType dtype, uint32_t dtypes)
{
  if ((unsigned) dtype >= OSR_N_DTYPES || !(OSR_MASK_OF(dtype) & OSR_FLOAT_DTYPES))
    return osr_fail(ctx, OSR_ERR_INVALID, "%s: %s is no activation type", op,
                    osr_ops_dtype_name(dtype));
  if (!(OSR_MASK_OF(dtype) & dtypes))
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "%s: this backend has no %s", op,
                    osr_ops_dtype_name(dtype));
  return OSR_OK;
}

static inline OsrResult
osr_check_w_dtype(OsrOpsContext *ctx, const char *op, OsrDType dtype)
{
  if ((unsigned) dtype >= OSR_N_DTYPES ||
      !(OSR_MASK_OF(dtype) & (OSR_FLOAT_DTYPES | OSR_MASK_OF(OSR_DTYPE_F8_E4M3))))
    return osr_fail(ctx, OSR_ERR_INVALID, "%s: %s is no weight type", op,
                    osr_ops_dtype_name(dtype));
  return OSR_OK;
}

static inline OsrResult
osr_check_act(OsrOpsContext *ctx, const char *op, OsrAct act)
{
  OSR_REQUIRE(ctx, (unsigned) act <= OSR_ACT_QUICK_GELU, "%s: unknown activation %d", op,
              (int) act);
  return OSR_OK;
}

/* A matrix argument [batch, rows, n] with rows `ld` and items `stride` elements apart. */
static inline OsrResult
osr_check_matrix(OsrOpsContext *ctx, const char *op, const char *name, const void *data,
                 int64_t batch, int64_t stride, int64_t rows, int64_t ld, int64_t n)
{
  int64_t items, span, end;

  OSR_REQUIRE(ctx, data != NULL, "%s: %s is NULL", op, name);
  OSR_REQUIRE(ctx, rows <= 1 || ld >= n, "%s: rows of %s are %lld elements apart but %lld long", op,
              name, (long long) ld, (long long) n);
  OSR_REQUIRE(ctx, batch <= 1 || stride >= 0, "%s: negative batch stride of %s", op, name);
  if (__builtin_mul_overflow(batch - 1, batch > 1 ? stride : 0, &items) ||
      __builtin_mul_overflow(rows - 1, rows > 1 ? ld : 0, &span) ||
      __builtin_add_overflow(items, span, &end) || __builtin_add_overflow(end, n, &end) ||
      end > INT64_MAX / 8)
    return osr_fail(ctx, OSR_ERR_INVALID, "%s: size of %s overflows", op, name);
  return OSR_OK;
}

/* A contiguous argument of a * b * c * d * e elements. */
static inline OsrResult
osr_check_array(OsrOpsContext *ctx, const char *op, const char *name, const void *data, int64_t a,
                int64_t b, int64_t c, int64_t d, int64_t e)
{
  int64_t size;

  OSR_REQUIRE(ctx, data != NULL, "%s: %s is NULL", op, name);
  if (__builtin_mul_overflow(a, b, &size) || __builtin_mul_overflow(size, c, &size) ||
      __builtin_mul_overflow(size, d, &size) || __builtin_mul_overflow(size, e, &size) ||
      size > INT64_MAX / 8)
    return osr_fail(ctx, OSR_ERR_INVALID, "%s: size of %s overflows", op, name);
  return OSR_OK;
}

static inline OsrResult
osr_check_linear(OsrOpsContext *ctx, const OsrLinear *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "linear", p->dtype, dtypes));
  OSR_TRY(osr_check_w_dtype(ctx, "linear", p->w_dtype));
  OSR_TRY(osr_check_act(ctx, "linear", p->act));
  OSR_REQUIRE(ctx, p->batch >= 0 && p->m >= 0 && p->n >= 0 && p->k > 0,
              "linear: bad size, batch %lld, m %lld, n %d, k %d", (long long) p->batch,
              (long long) p->m, p->n, p->k);
  if (p->batch == 0 || p->m == 0 || p->n == 0)
    return OSR_OK;
  OSR_TRY(osr_check_matrix(ctx, "linear", "x", p->x, p->batch, p->x_batch, p->m, p->x_ld, p->k));
  OSR_TRY(osr_check_matrix(ctx, "linear", "w", p->w, 1, 0, p->n, p->k, p->k));
  OSR_TRY(osr_check_matrix(ctx, "linear", "y", p->y, p->batch, p->y_batch, p->m, p->y_ld, p->n));
  if (p->gate)
    OSR_TRY(osr_check_matrix(ctx, "linear", "gate", p->gate, p->batch, p->gate_batch, 1, 0, p->n));
  if (p->residual)
    OSR_TRY(osr_check_matrix(ctx, "linear", "residual", p->residual, p->batch, p->residual_batch,
                             p->m, p->residual_ld, p->n));
  OSR_REQUIRE(ctx,
              p->residual != p->y || ((p->m <= 1 || p->residual_ld == p->y_ld) &&
                                      (p->batch <= 1 || p->residual_batch == p->y_batch)),
              "linear: residual is y with other strides");
  OSR_REQUIRE(ctx, p->x != p->y, "linear: x is y");
  return OSR_OK;
}

static inline OsrResult
osr_check_glu(OsrOpsContext *ctx, const OsrGlu *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "glu", p->dtype, dtypes));
  OSR_TRY(osr_check_act(ctx, "glu", p->act));
  OSR_REQUIRE(ctx, p->m >= 0 && p->n >= 0, "glu: bad size, m %lld, n %d", (long long) p->m, p->n);
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  OSR_TRY(osr_check_matrix(ctx, "glu", "x", p->x, 1, 0, p->m, p->x_ld, 2 * (int64_t) p->n));
  OSR_TRY(osr_check_matrix(ctx, "glu", "y", p->y, 1, 0, p->m, p->y_ld, p->n));
  return OSR_OK;
}

static inline OsrResult
osr_check_layer_norm(OsrOpsContext *ctx, const OsrLayerNorm *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "layer_norm", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->batch >= 0 && p->m >= 0 && p->n >= 0 && p->eps >= 0,
              "layer_norm: bad size, batch %lld, m %lld, n %d, or eps %g", (long long) p->batch,
              (long long) p->m, p->n, (double) p->eps);
  if (p->batch == 0 || p->m == 0 || p->n == 0)
    return OSR_OK;
  OSR_TRY(
      osr_check_matrix(ctx, "layer_norm", "x", p->x, p->batch, p->x_batch, p->m, p->x_ld, p->n));
  OSR_TRY(
      osr_check_matrix(ctx, "layer_norm", "y", p->y, p->batch, p->y_batch, p->m, p->y_ld, p->n));
  if (p->scale)
    OSR_TRY(
        osr_check_matrix(ctx, "layer_norm", "scale", p->scale, p->batch, p->mod_batch, 1, 0, p->n));
  if (p->shift)
    OSR_TRY(
        osr_check_matrix(ctx, "layer_norm", "shift", p->shift, p->batch, p->mod_batch, 1, 0, p->n));
  return OSR_OK;
}

static inline OsrResult
osr_check_rms_norm(OsrOpsContext *ctx, const OsrRmsNorm *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "rms_norm", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->m >= 0 && p->n >= 0 && p->eps >= 0,
              "rms_norm: bad size, m %lld, n %d, or eps %g", (long long) p->m, p->n,
              (double) p->eps);
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  OSR_TRY(osr_check_matrix(ctx, "rms_norm", "x", p->x, 1, 0, p->m, p->x_ld, p->n));
  OSR_TRY(osr_check_matrix(ctx, "rms_norm", "y", p->y, 1, 0, p->m, p->y_ld, p->n));
  OSR_REQUIRE(ctx, p->weight != NULL, "rms_norm: weight is NULL");
  return OSR_OK;
}

static inline OsrResult
osr_check_qk_norm_rope(OsrOpsContext *ctx, const OsrQkNormRope *p, uint32_t dtypes)
{
  int64_t n;

  OSR_TRY(osr_check_dtype(ctx, "qk_norm_rope", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->batch >= 0 && p->m >= 0 && p->heads >= 0 && p->head_dim > 0 && p->eps >= 0,
              "qk_norm_rope: bad size, batch %lld, m %lld, heads %d x %d, or eps %g",
              (long long) p->batch, (long long) p->m, p->heads, p->head_dim, (double) p->eps);
  OSR_REQUIRE(ctx, (unsigned) p->rope <= OSR_ROPE_HALF, "qk_norm_rope: unknown rope %d",
              (int) p->rope);
  OSR_REQUIRE(ctx, p->rope == OSR_ROPE_NONE || p->head_dim % 2 == 0,
              "qk_norm_rope: rope needs an even head_dim, not %d", p->head_dim);
  if (p->batch == 0 || p->m == 0 || p->heads == 0)
    return OSR_OK;
  n = (int64_t) p->heads * p->head_dim;
  OSR_TRY(
      osr_check_matrix(ctx, "qk_norm_rope", "q", p->q, p->batch, p->batch_stride, p->m, p->ld, n));
  OSR_TRY(
      osr_check_matrix(ctx, "qk_norm_rope", "k", p->k, p->batch, p->batch_stride, p->m, p->ld, n));
  OSR_REQUIRE(ctx, p->q != p->k, "qk_norm_rope: q is k");
  OSR_REQUIRE(ctx, p->rope == OSR_ROPE_NONE || (p->cos && p->sin),
              "qk_norm_rope: rope without cos and sin");
  return OSR_OK;
}

static inline OsrResult
osr_check_attention(OsrOpsContext *ctx, const OsrAttention *p, uint32_t dtypes)
{
  int64_t n;

  OSR_TRY(osr_check_dtype(ctx, "attention", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->batch >= 0 && p->lq >= 0 && p->lk >= 0 && p->heads >= 0 && p->head_dim > 0,
              "attention: bad size, batch %lld, %lld queries, %lld keys, heads %d x %d",
              (long long) p->batch, (long long) p->lq, (long long) p->lk, p->heads, p->head_dim);
  OSR_REQUIRE(ctx, (unsigned) p->mask <= OSR_MASK_FRAME_CAUSAL, "attention: unknown mask %d",
              (int) p->mask);
  OSR_REQUIRE(ctx, p->mask != OSR_MASK_FRAME_CAUSAL || p->frame_len > 0,
              "attention: frames of %lld tokens", (long long) p->frame_len);
  if (p->batch == 0 || p->lq == 0 || p->heads == 0)
    return OSR_OK;
  n = (int64_t) p->heads * p->head_dim;
  OSR_TRY(osr_check_matrix(ctx, "attention", "q", p->q, p->batch, p->q_batch, p->lq, p->q_ld, n));
  OSR_TRY(osr_check_matrix(ctx, "attention", "o", p->o, p->batch, p->o_batch, p->lq, p->o_ld, n));
  OSR_REQUIRE(ctx, p->o != p->q && p->o != p->k && p->o != p->v, "attention: o is q, k or v");
  if (p->lk == 0)
    return OSR_OK;
  OSR_TRY(osr_check_matrix(ctx, "attention", "k", p->k, p->batch, p->k_batch, p->lk, p->k_ld, n));
  OSR_TRY(osr_check_matrix(ctx, "attention", "v", p->v, p->batch, p->v_batch, p->lk, p->v_ld, n));
  return OSR_OK;
}

static inline OsrResult
osr_check_group_norm(OsrOpsContext *ctx, const OsrGroupNorm *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "group_norm", p->dtype, dtypes));
  OSR_TRY(osr_check_act(ctx, "group_norm", p->act));
  OSR_REQUIRE(
      ctx, p->batch >= 0 && p->positions >= 0 && p->channels >= 0 && p->groups > 0 && p->eps >= 0,
      "group_norm: bad size, batch %lld, %lld positions, %d channels in %d groups, eps %g",
      (long long) p->batch, (long long) p->positions, p->channels, p->groups, (double) p->eps);
  OSR_REQUIRE(ctx, p->channels % p->groups == 0, "group_norm: %d channels in %d groups",
              p->channels, p->groups);
  if (p->batch == 0 || p->positions == 0 || p->channels == 0)
    return OSR_OK;
  OSR_TRY(osr_check_array(ctx, "group_norm", "x", p->x, p->batch, p->positions, p->channels, 1, 1));
  OSR_REQUIRE(ctx, p->y && p->weight && p->bias, "group_norm: y, weight or bias is NULL");
  return OSR_OK;
}

/* Whether an axis of a convolution is sound: `out` = (in * 2 + pads - k) / stride + 1 with
 * nothing overflowing and at least one output. */
static inline bool
osr_check_conv_axis(int64_t in, int64_t up, int64_t k, int64_t stride, const int pad[2])
{
  int64_t padded = in * up + pad[0] + pad[1];

  return in > 0 && (up == 1 || up == 2) && k > 0 && stride > 0 && pad[0] >= 0 && pad[1] >= 0 &&
         padded >= k && padded <= INT32_MAX;
}

static inline OsrResult
osr_check_conv3d(OsrOpsContext *ctx, const OsrConv3d *p, uint32_t dtypes)
{
  int t, h, w;

  OSR_TRY(osr_check_dtype(ctx, "conv3d", p->dtype, dtypes));
  OSR_TRY(osr_check_w_dtype(ctx, "conv3d", p->w_dtype));
  OSR_REQUIRE(
      ctx, p->batch >= 0 && p->t >= 0 && p->h >= 0 && p->w_in >= 0 && p->c_in > 0 && p->c_out >= 0,
      "conv3d: bad size, input %lld x %d x %d x %d x %d, %d channels out", (long long) p->batch,
      p->t, p->h, p->w_in, p->c_in, p->c_out);
  OSR_REQUIRE(ctx, (unsigned) p->pad <= OSR_PAD_REPLICATE, "conv3d: unknown padding %d",
              (int) p->pad);
  if (p->batch == 0 || p->t == 0 || p->h == 0 || p->w_in == 0 || p->c_out == 0)
    return OSR_OK;
  OSR_REQUIRE(ctx,
              osr_check_conv_axis(p->t, p->up_t, p->k_t, p->stride_t, p->pad_t) &&
                  osr_check_conv_axis(p->h, p->up_hw, p->k_h, p->stride_h, p->pad_h) &&
                  osr_check_conv_axis(p->w_in, p->up_hw, p->k_w, p->stride_w, p->pad_w) &&
                  osr_conv3d_up_t(p) + p->pad_t[0] + p->pad_t[1] >= p->k_t,
              "conv3d: %d x %d x %d up %d, %d padded by %d+%d, %d+%d, %d+%d cannot take kernel "
              "%d x %d x %d stride %d, %d, %d",
              p->t, p->h, p->w_in, p->up_t, p->up_hw, p->pad_t[0], p->pad_t[1], p->pad_h[0],
              p->pad_h[1], p->pad_w[0], p->pad_w[1], p->k_t, p->k_h, p->k_w, p->stride_t,
              p->stride_h, p->stride_w);
  osr_conv3d_out(p, &t, &h, &w);
  OSR_TRY(osr_check_array(ctx, "conv3d", "x", p->x, p->batch, p->t, p->h, p->w_in, p->c_in));
  OSR_TRY(osr_check_array(ctx, "conv3d", "y", p->y, p->batch, t, h, w, p->c_out));
  OSR_TRY(osr_check_array(ctx, "conv3d", "w", p->w, p->c_out, p->k_t, p->k_h, p->k_w, p->c_in));
  OSR_REQUIRE(ctx, p->x != p->y, "conv3d: x is y");
  return OSR_OK;
}

/* Both ways; `op` names the one asked for. */
static inline OsrResult
osr_check_patchify(OsrOpsContext *ctx, const char *op, const OsrPatchify *p, uint32_t dtypes)
{
  int64_t features;

  OSR_TRY(osr_check_dtype(ctx, op, p->dtype, dtypes));
  OSR_REQUIRE(ctx,
              p->batch >= 0 && p->t >= 0 && p->h >= 0 && p->w >= 0 && p->c >= 0 && p->patch > 0 &&
                  p->patch <= 1024,
              "%s: bad size, %lld x %d x %d x %d x %d, patch %d", op, (long long) p->batch, p->t,
              p->h, p->w, p->c, p->patch);
  OSR_REQUIRE(ctx, p->h % p->patch == 0 && p->w % p->patch == 0,
              "%s: %d x %d is not a multiple of patch %d", op, p->h, p->w, p->patch);
  if (p->batch == 0 || p->t == 0 || p->h == 0 || p->w == 0 || p->c == 0)
    return OSR_OK;
  features = (int64_t) p->c * p->patch * p->patch;
  OSR_REQUIRE(ctx, p->column >= 0 && p->column + features <= p->ld,
              "%s: columns %d to %lld of rows of %lld", op, p->column,
              (long long) (p->column + features), (long long) p->ld);
  /* Rows are at least as long as their features: the tokens are the larger side. */
  OSR_TRY(
      osr_check_array(ctx, op, "y", p->y, p->batch, p->t, p->h / p->patch, p->w / p->patch, p->ld));
  OSR_REQUIRE(ctx, p->x != NULL && p->x != p->y, "%s: x is NULL or y", op);
  return OSR_OK;
}

static inline OsrResult
osr_check_embedding(OsrOpsContext *ctx, const OsrEmbedding *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "embedding", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->m >= 0 && p->n >= 0 && p->vocab >= 0,
              "embedding: bad size, m %lld, n %d, vocabulary %d", (long long) p->m, p->n, p->vocab);
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  OSR_TRY(osr_check_array(ctx, "embedding", "table", p->table, p->vocab, p->n, 1, 1, 1));
  OSR_TRY(osr_check_array(ctx, "embedding", "y", p->y, p->m, p->n, 1, 1, 1));
  OSR_REQUIRE(ctx, p->ids != NULL, "embedding: ids is NULL");
  OSR_REQUIRE(ctx, !p->positions || p->n_positions > 0, "embedding: %d positions", p->n_positions);
  return OSR_OK;
}

static inline OsrResult
osr_check_timestep(OsrOpsContext *ctx, const OsrTimestep *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "timestep", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->m >= 0 && p->n >= 0 && p->n % 2 == 0, "timestep: bad size, m %lld, n %d",
              (long long) p->m, p->n);
  OSR_REQUIRE(ctx, p->max_period > 0, "timestep: max_period %g", (double) p->max_period);
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  OSR_TRY(osr_check_array(ctx, "timestep", "y", p->y, p->m, p->n, 1, 1, 1));
  OSR_REQUIRE(ctx, p->t != NULL, "timestep: t is NULL");
  return OSR_OK;
}

static inline OsrResult
osr_check_affine(OsrOpsContext *ctx, const OsrAffine *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "affine", p->dtype, dtypes));
  OSR_TRY(osr_check_act(ctx, "affine", p->act));
  OSR_REQUIRE(ctx, p->n >= 0, "affine: bad size %lld", (long long) p->n);
  OSR_REQUIRE(ctx, p->n == 0 || (p->x && p->y), "affine: x or y is NULL");
  return OSR_OK;
}

/* f32, bf16, f16 and f64 convert into each other; other types are copied as they are. */
static inline OsrResult
osr_check_copy2d(OsrOpsContext *ctx, const OsrCopy2d *p)
{
  const uint32_t floats = OSR_FLOAT_DTYPES | OSR_MASK_OF(OSR_DTYPE_F64);

  OSR_REQUIRE(ctx, (unsigned) p->x_dtype < OSR_N_DTYPES && (unsigned) p->y_dtype < OSR_N_DTYPES,
              "copy2d: unknown type");
  if (p->x_dtype != p->y_dtype &&
      (!(OSR_MASK_OF(p->x_dtype) & floats) || !(OSR_MASK_OF(p->y_dtype) & floats)))
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "copy2d: no conversion from %s to %s",
                    osr_ops_dtype_name(p->x_dtype), osr_ops_dtype_name(p->y_dtype));
  OSR_REQUIRE(ctx, p->m >= 0 && p->n >= 0, "copy2d: bad size %lld x %lld", (long long) p->m,
              (long long) p->n);
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  OSR_TRY(osr_check_matrix(ctx, "copy2d", "x", p->x, 1, 0, p->m, p->x_ld, p->n));
  OSR_TRY(osr_check_matrix(ctx, "copy2d", "y", p->y, 1, 0, p->m, p->y_ld, p->n));
  return OSR_OK;
}

static inline OsrResult
osr_check_guidance_step(OsrOpsContext *ctx, const OsrGuidanceStep *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "guidance_step", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->frames >= 0 && p->tokens_per_frame >= 0 && p->n >= 0,
              "guidance_step: bad size, %lld frames of %lld x %d", (long long) p->frames,
              (long long) p->tokens_per_frame, p->n);
  OSR_REQUIRE(ctx, p->n_preds >= 1 && p->n_preds <= 3, "guidance_step: %d predictions", p->n_preds);
  if (p->frames == 0 || p->tokens_per_frame == 0 || p->n == 0)
    return OSR_OK;
  OSR_TRY(
      osr_check_array(ctx, "guidance_step", "x", p->x, p->frames, p->tokens_per_frame, p->n, 1, 1));
  for (int i = 0; i < p->n_preds; i++)
    OSR_REQUIRE(ctx, p->pred[i] && p->weight[i], "guidance_step: prediction or weight %d is NULL",
                i);
  return OSR_OK;
}

static inline OsrResult
osr_check_randn(OsrOpsContext *ctx, const OsrRandn *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "randn", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->t >= 0 && p->h >= 0 && p->w >= 0 && p->c >= 0,
              "randn: bad size %d x %d x %d x %d", p->t, p->h, p->w, p->c);
  OSR_REQUIRE(ctx, p->torch_blocks >= OSR_RANDN_THIS_GPU, "randn: %d blocks", p->torch_blocks);
  if (p->t == 0 || p->h == 0 || p->w == 0 || p->c == 0)
    return OSR_OK;
  OSR_TRY(osr_check_array(ctx, "randn", "y", p->y, p->t, p->h, p->w, p->c, 1));
  /* PyTorch draws in several pieces what it cannot index with 32 bits. */
  if (p->torch_blocks && (int64_t) p->t * p->h * p->w * p->c > INT32_MAX / 4)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "randn: %d x %d x %d x %d are too many for one call",
                    p->t, p->h, p->w, p->c);
  return OSR_OK;
}

/* For osr_draw(). @this_gpu: blocks of 256 threads that the device runs at once. */
static inline OsrDraws
osr_draws(const OsrRandn *p, int this_gpu)
{
  const uint64_t n = (uint64_t) p->t * (uint64_t) p->h * (uint64_t) p->w * (uint64_t) p->c;
  const int blocks = p->torch_blocks == OSR_RANDN_THIS_GPU ? this_gpu : p->torch_blocks;
  const OsrDraws draws = { p->seed, p->sequence, n, osr_torch_threads(n, (uint64_t) blocks) };

  return draws;
}

static inline OsrResult
osr_check_gaussian(OsrOpsContext *ctx, const OsrGaussian *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "gaussian", p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->m >= 0 && p->c >= 0, "gaussian: bad size %lld x %d", (long long) p->m, p->c);
  if (p->m == 0 || p->c == 0)
    return OSR_OK;
  OSR_TRY(osr_check_array(ctx, "gaussian", "moments", p->moments, p->m, 2, p->c, 1, 1));
  OSR_REQUIRE(ctx, p->y != NULL, "gaussian: y is NULL");
  return OSR_OK;
}

static inline OsrResult
osr_check_blend(OsrOpsContext *ctx, const OsrBlend *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, "blend", p->dtype, dtypes));
  OSR_REQUIRE(ctx,
              p->outer >= 0 && p->a_len >= 0 && p->b_len >= 0 && p->inner >= 0 && p->extent >= 0,
              "blend: bad size, %lld x (%lld, %lld) x %lld, extent %d", (long long) p->outer,
              (long long) p->a_len, (long long) p->b_len, (long long) p->inner, p->extent);
  if (p->outer == 0 || p->a_len == 0 || p->b_len == 0 || p->inner == 0 || p->extent == 0)
    return OSR_OK;
  OSR_TRY(osr_check_array(ctx, "blend", "a", p->a, p->outer, p->a_len, p->inner, 1, 1));
  OSR_TRY(osr_check_array(ctx, "blend", "b", p->b, p->outer, p->b_len, p->inner, 1, 1));
  OSR_REQUIRE(ctx, p->a != p->b, "blend: a is b");
  return OSR_OK;
}

/* Planes of a pixel format, and bytes of a row and rows of plane `i` at a width and height. */
OSR_FN int
osr_frame_planes(OsrPixelFormat format)
{
  return format == OSR_PIXEL_I420 ? 3 : format == OSR_PIXEL_NV12 ? 2 : 1;
}

OSR_FN int64_t
osr_frame_row_bytes(OsrPixelFormat format, int i, int width)
{
  int64_t half = ((int64_t) width + 1) / 2;

  switch (format) {
  case OSR_PIXEL_RGB:
    return 3 * (int64_t) width;
  case OSR_PIXEL_RGBX:
    return 4 * (int64_t) width;
  case OSR_PIXEL_NV12:
    return i == 0 ? width : 2 * half;
  default:
    return i == 0 ? width : half;
  }
}

OSR_FN int
osr_frame_rows(int i, int height)
{
  return i == 0 ? height : height / 2 + height % 2;
}

static inline OsrResult
osr_check_frame(OsrOpsContext *ctx, const char *op, const OsrFrame *p, uint32_t dtypes)
{
  OSR_TRY(osr_check_dtype(ctx, op, p->dtype, dtypes));
  OSR_REQUIRE(ctx, p->width >= 0 && p->height >= 0, "%s: bad size %d x %d", op, p->width,
              p->height);
  OSR_REQUIRE(ctx, (unsigned) p->format <= OSR_PIXEL_NV12, "%s: unknown pixel format %d", op,
              (int) p->format);
  OSR_REQUIRE(ctx, (unsigned) p->matrix <= OSR_MATRIX_BT709, "%s: unknown colour matrix %d", op,
              (int) p->matrix);
  if (p->width == 0 || p->height == 0)
    return OSR_OK;
  OSR_TRY(osr_check_array(ctx, op, "tensor", p->tensor, p->height, p->width, 3, 1, 1));
  for (int i = 0; i < osr_frame_planes(p->format); i++) {
    OSR_REQUIRE(ctx, p->planes[i] != NULL, "%s: plane %d is NULL", op, i);
    OSR_REQUIRE(ctx,
                osr_frame_rows(i, p->height) == 1 ||
                    p->strides[i] >= osr_frame_row_bytes(p->format, i, p->width),
                "%s: stride %d of plane %d is below the %lld bytes of a row", op, p->strides[i], i,
                (long long) osr_frame_row_bytes(p->format, i, p->width));
  }
  return OSR_OK;
}

#endif /* OSR_KERNELS_CHECK_H */
