/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Deliberately wrong backends: the reference with one op replaced by one that has a bug of
 * the kind people write. Each must be found out, or the checker is worth nothing. */
#include "checkops.h"

#include <stdlib.h>
#include <string.h>

#define REF osr_backend_ref.ops

/* --- linear --- */

static OsrResult
linear_without_bias(OsrOpsContext *ctx, const OsrLinear *p)
{
  OsrLinear wrong = *p;

  wrong.bias = NULL;
  return REF.linear(ctx, &wrong);
}

static OsrResult
linear_without_tail(OsrOpsContext *ctx, const OsrLinear *p)
{
  OsrLinear wrong = *p;

  if (p->n > 8 && p->n % 8 == 1)
    wrong.n--;
  return REF.linear(ctx, &wrong);
}

static OsrResult
linear_one_gate(OsrOpsContext *ctx, const OsrLinear *p)
{
  OsrLinear wrong = *p;

  wrong.gate_batch = 0;
  return REF.linear(ctx, &wrong);
}

static OsrResult
linear_other_gelu(OsrOpsContext *ctx, const OsrLinear *p)
{
  OsrLinear wrong = *p;

  if (p->act == OSR_ACT_GELU_TANH)
    wrong.act = OSR_ACT_GELU_ERF;
  return REF.linear(ctx, &wrong);
}

static OsrResult
linear_ignores_ld(OsrOpsContext *ctx, const OsrLinear *p)
{
  OsrLinear wrong = *p;

  wrong.x_ld = p->k;
  return REF.linear(ctx, &wrong);
}

static OsrResult
linear_scratch_of_other_size(OsrOpsContext *ctx, const OsrLinear *p)
{
  void *scratch = osr_scratch_alloc(ctx, 64);

  if (!scratch)
    return osr_fail(ctx, OSR_ERR_MEMORY, "linear: no scratch memory");
  osr_scratch_free(ctx, scratch, 128);
  return REF.linear(ctx, p);
}

/* --- glu, embedding --- */

static OsrResult
glu_writes_input(OsrOpsContext *ctx, const OsrGlu *p)
{
  OsrResult result = REF.glu(ctx, p);
  float *x;

  memcpy(&x, &p->x, sizeof x);
  if (result == OSR_OK && p->m > 0 && p->n > 0)
    x[0] += 1.0f;
  return result;
}

static OsrResult
embedding_without_positions(OsrOpsContext *ctx, const OsrEmbedding *p)
{
  OsrEmbedding wrong = *p;

  wrong.positions = NULL;
  return REF.embedding(ctx, &wrong);
}

/* --- norms --- */

static OsrResult
layer_norm_without_eps(OsrOpsContext *ctx, const OsrLayerNorm *p)
{
  OsrLayerNorm wrong = *p;

  if (p->n > 1) /* one element has no variance, and 0 / 0 would be too easy */
    wrong.eps = 0;
  return REF.layer_norm(ctx, &wrong);
}

static OsrResult
layer_norm_scale_without_one(OsrOpsContext *ctx, const OsrLayerNorm *p)
{
  OsrLayerNorm wrong = *p;

  if (!p->weight && !p->bias) {
    wrong.weight = p->scale;
    wrong.scale = NULL;
  }
  return p->batch == 1 ? REF.layer_norm(ctx, &wrong) : REF.layer_norm(ctx, p);
}

static OsrResult
rms_norm_writes_beyond(OsrOpsContext *ctx, const OsrRmsNorm *p)
{
  OsrResult result = REF.rms_norm(ctx, p);

  if (result == OSR_OK && p->m > 1 && p->y_ld > p->n && p->n % 4 != 0)
    ((float *) p->y)[p->n] = 0.0f;
  return result;
}

static OsrResult
rope_other_way(OsrOpsContext *ctx, const OsrQkNormRope *p)
{
  int64_t n = p->rope && p->m > 0 && p->head_dim > 0 ? p->m * (p->head_dim / 2) : 0;
  OsrQkNormRope wrong = *p;
  float *sin = calloc((size_t) n + 1, sizeof *sin);
  OsrResult result;

  if (!sin)
    return osr_fail(ctx, OSR_ERR_MEMORY, "qk_norm_rope: no memory");
  for (int64_t i = 0; i < n && p->sin; i++)
    sin[i] = -p->sin[i];
  if (p->sin)
    wrong.sin = sin;
  result = REF.qk_norm_rope(ctx, &wrong);
  free(sin);
  return result;
}

static OsrResult
rope_other_pairs(OsrOpsContext *ctx, const OsrQkNormRope *p)
{
  OsrQkNormRope wrong = *p;

  if (p->rope == OSR_ROPE_HALF)
    wrong.rope = OSR_ROPE_INTERLEAVED;
  return REF.qk_norm_rope(ctx, &wrong);
}

static OsrResult
group_norm_unbiased(OsrOpsContext *ctx, const OsrGroupNorm *p)
{
  double n = p->groups > 0 ? (double) p->positions * (p->channels / p->groups) : 0.0;
  OsrGroupNorm wrong = *p;
  float *weight;
  OsrResult result;

  if (n < 2 || !p->weight || p->channels < 1)
    return REF.group_norm(ctx, p);
  weight = malloc((size_t) p->channels * sizeof *weight);
  if (!weight)
    return osr_fail(ctx, OSR_ERR_MEMORY, "group_norm: no memory");
  for (int i = 0; i < p->channels; i++)
    weight[i] = ((const float *) p->weight)[i] * (float) sqrt((n - 1) / n);
  wrong.weight = weight;
  result = REF.group_norm(ctx, &wrong);
  free(weight);
  return result;
}

/* --- attention --- */

/* Sees one frame too many. */
static OsrResult
attention_next_frame(OsrOpsContext *ctx, const OsrAttention *p)
{
  if (p->mask != OSR_MASK_FRAME_CAUSAL || p->frame_len < 1 || p->rel_bias)
    return REF.attention(ctx, p);
  for (int64_t first = 0; first < p->lq; first += p->frame_len) {
    OsrAttention wrong = *p;
    OsrResult result;

    wrong.mask = OSR_MASK_NONE;
    wrong.q = (const float *) p->q + first * p->q_ld;
    wrong.o = (float *) p->o + first * p->o_ld;
    wrong.lq = p->lq - first < p->frame_len ? p->lq - first : p->frame_len;
    if (wrong.lk > first + 2 * p->frame_len)
      wrong.lk = first + 2 * p->frame_len;
    result = REF.attention(ctx, &wrong);
    if (result != OSR_OK)
      return result;
  }
  return OSR_OK;
}

static OsrResult
attention_without_kv_len(OsrOpsContext *ctx, const OsrAttention *p)
{
  OsrAttention wrong = *p;

  wrong.kv_len = NULL;
  return REF.attention(ctx, &wrong);
}

/* Takes query - key for key - query. */
static OsrResult
attention_mirrored_bias(OsrOpsContext *ctx, const OsrAttention *p)
{
  int64_t n = p->lq + p->lk - 1;
  OsrAttention wrong = *p;
  float *bias;
  OsrResult result;

  if (!p->rel_bias || n < 1 || p->lq != p->lk)
    return REF.attention(ctx, p);
  bias = malloc((size_t) (n * p->heads) * sizeof *bias);
  if (!bias)
    return osr_fail(ctx, OSR_ERR_MEMORY, "attention: no memory");
  for (int64_t i = 0; i < n * p->heads; i++)
    bias[i] = p->rel_bias[i / n * n + n - 1 - i % n];
  wrong.rel_bias = bias;
  result = REF.attention(ctx, &wrong);
  free(bias);
  return result;
}

/* --- conv3d --- */

static OsrResult
conv3d_zero_padding(OsrOpsContext *ctx, const OsrConv3d *p)
{
  OsrConv3d wrong = *p;

  if (p->pad == OSR_PAD_REPLICATE)
    wrong.pad = OSR_PAD_ZERO;
  return REF.conv3d(ctx, &wrong);
}

static OsrResult
conv3d_pads_swapped(OsrOpsContext *ctx, const OsrConv3d *p)
{
  OsrConv3d wrong = *p;

  wrong.pad_w[0] = p->pad_w[1];
  wrong.pad_w[1] = p->pad_w[0];
  return REF.conv3d(ctx, &wrong);
}

static OsrResult
conv3d_without_residual(OsrOpsContext *ctx, const OsrConv3d *p)
{
  OsrConv3d wrong = *p;

  if (p->residual == p->y)
    wrong.residual = NULL;
  return REF.conv3d(ctx, &wrong);
}

/* --- layout --- */

/* Features as (ph pw c). */
static OsrResult
patchify_channel_last(OsrOpsContext *ctx, const OsrPatchify *p)
{
  OsrResult result = REF.patchify(ctx, p);
  int cells = p->patch * p->patch;
  int64_t rows, n = (int64_t) p->c * cells;
  float *row;

  if (result != OSR_OK || n == 0)
    return result;
  rows = p->batch * p->t * (p->h / p->patch) * (p->w / p->patch);
  row = malloc((size_t) n * sizeof *row);
  if (!row)
    return osr_fail(ctx, OSR_ERR_MEMORY, "patchify: no memory");
  for (int64_t i = 0; i < rows; i++) {
    float *y = (float *) p->y + i * p->ld + p->column;

    memcpy(row, y, (size_t) n * sizeof *row);
    for (int64_t j = 0; j < n; j++)
      y[j % cells * p->c + j / cells] = row[j];
  }
  free(row);
  return OSR_OK;
}

static OsrResult
unpatchify_first_column(OsrOpsContext *ctx, const OsrPatchify *p)
{
  OsrPatchify wrong = *p;

  if (p->column > 0)
    wrong.column = 0;
  return REF.unpatchify(ctx, &wrong);
}

static OsrResult
timestep_sin_first(OsrOpsContext *ctx, const OsrTimestep *p)
{
  OsrResult result = REF.timestep(ctx, p);
  int half = p->n / 2;

  for (int64_t i = 0; result == OSR_OK && i < p->m; i++)
    for (int j = 0; j < half; j++) {
      float *y = (float *) p->y + i * p->n, cos = y[j];

      y[j] = y[half + j];
      y[half + j] = cos;
    }
  return result;
}

static OsrResult
affine_without_act(OsrOpsContext *ctx, const OsrAffine *p)
{
  OsrAffine wrong = *p;

  if (p->act == OSR_ACT_SILU)
    wrong.act = OSR_ACT_NONE;
  return REF.affine(ctx, &wrong);
}

static OsrResult
affine_accepts_anything(OsrOpsContext *ctx, const OsrAffine *p)
{
  return p->n > 0 && p->x && p->y && p->dtype == OSR_DTYPE_F32 && p->act <= OSR_ACT_QUICK_GELU
             ? REF.affine(ctx, p)
             : OSR_OK;
}

static OsrResult
affine_fails_silently(OsrOpsContext *ctx, const OsrAffine *p)
{
  OsrResult result = REF.affine(ctx, p);

  ctx->error[0] = '\0';
  return result;
}

/* f32 to bf16 by dropping the low half. */
static OsrResult
copy2d_truncates(OsrOpsContext *ctx, const OsrCopy2d *p)
{
  OsrResult result = REF.copy2d(ctx, p);

  if (result != OSR_OK || p->x_dtype != OSR_DTYPE_F32 || p->y_dtype != OSR_DTYPE_BF16)
    return result;
  for (int64_t i = 0; i < p->m; i++)
    for (int64_t j = 0; j < p->n; j++) {
      const uint32_t *bits = (const uint32_t *) p->x + i * p->x_ld + j;

      if (!isnan(((const float *) p->x)[i * p->x_ld + j]))
        ((uint16_t *) p->y)[i * p->y_ld + j] = (uint16_t) (*bits >> 16);
    }
  return OSR_OK;
}

static OsrResult
guidance_step_first_frame(OsrOpsContext *ctx, const OsrGuidanceStep *p)
{
  OsrGuidanceStep wrong = *p;

  if (p->frames > 1 && p->tokens_per_frame > 0) { /* all frames as if they were one */
    wrong.tokens_per_frame *= p->frames;
    wrong.frames = 1;
  }
  return REF.guidance_step(ctx, &wrong);
}

static OsrResult
randn_without_sequence(OsrOpsContext *ctx, const OsrRandn *p)
{
  OsrRandn wrong = *p;

  wrong.sequence = 0;
  return REF.randn(ctx, &wrong);
}

/* Draws in memory order. */
static OsrResult
randn_channel_last(OsrOpsContext *ctx, const OsrRandn *p)
{
  OsrResult result = REF.randn(ctx, p);
  OsrRandn wrong = *p;

  if (result != OSR_OK)
    return result;
  wrong.t = 1;
  wrong.h = p->t * p->h;
  wrong.w = p->w * p->c;
  wrong.c = 1;
  return REF.randn(ctx, &wrong);
}

/* The deviation for the variance. */
static OsrResult
gaussian_without_clamp(OsrOpsContext *ctx, const OsrGaussian *p)
{
  OsrResult result = REF.gaussian(ctx, p);

  for (int64_t i = 0; result == OSR_OK && p->noise && i < p->m; i++)
    for (int64_t j = 0; j < p->c; j++) {
      const float *mean = (const float *) p->moments + i * 2 * p->c + j;

      ((float *) p->y)[i * p->c + j] =
          (float) (p->scale * (*mean - p->shift +
                               exp(0.5 * mean[p->c]) * ((const float *) p->noise)[i * p->c + j]));
    }
  return result;
}

static OsrResult
blend_one_less(OsrOpsContext *ctx, const OsrBlend *p)
{
  OsrBlend wrong = *p;

  if (p->extent > 2)
    wrong.extent--;
  return REF.blend(ctx, &wrong);
}

/* --- frames --- */

static OsrResult
frame_other_matrix(OsrOpsContext *ctx, const OsrFrame *p)
{
  OsrFrame wrong = *p;

  if (p->matrix == OSR_MATRIX_BT709)
    wrong.matrix = OSR_MATRIX_BT601;
  return REF.tensor_to_frame(ctx, &wrong);
}

/* NV12 chroma the other way round, NV21. */
static OsrResult
frame_chroma_swapped(OsrOpsContext *ctx, const OsrFrame *p)
{
  OsrResult result = REF.tensor_to_frame(ctx, p);

  if (result != OSR_OK || p->format != OSR_PIXEL_NV12 || p->width == 0)
    return result;
  for (int y = 0; y < (p->height + 1) / 2; y++)
    for (int x = 0; x < (p->width + 1) / 2; x++) {
      uint8_t *uv = p->planes[1] + (ptrdiff_t) y * p->strides[1] + 2 * x, u = uv[0];

      uv[0] = uv[1];
      uv[1] = u;
    }
  return OSR_OK;
}

static OsrResult
tensor_other_matrix(OsrOpsContext *ctx, const OsrFrame *p)
{
  OsrFrame wrong = *p;

  if (p->matrix == OSR_MATRIX_BT709)
    wrong.matrix = OSR_MATRIX_BT601;
  return REF.frame_to_tensor(ctx, &wrong);
}

/* --- the list --- */

#define WRONG(op, function)                                                                        \
  {                                                                                                \
#op, #function,                                                                                \
    {                                                                                              \
      .op = function                                                                               \
    }                                                                                              \
  }

static const struct {
  const char *op, *bug;
  OsrOps ops;
} saboteurs[] = {
  WRONG(linear, linear_without_bias),
  WRONG(linear, linear_without_tail),
  WRONG(linear, linear_one_gate),
  WRONG(linear, linear_other_gelu),
  WRONG(linear, linear_ignores_ld),
  WRONG(linear, linear_scratch_of_other_size),
  WRONG(glu, glu_writes_input),
  WRONG(embedding, embedding_without_positions),
  WRONG(layer_norm, layer_norm_without_eps),
  WRONG(layer_norm, layer_norm_scale_without_one),
  WRONG(rms_norm, rms_norm_writes_beyond),
  WRONG(qk_norm_rope, rope_other_way),
  WRONG(qk_norm_rope, rope_other_pairs),
  WRONG(group_norm, group_norm_unbiased),
  WRONG(attention, attention_next_frame),
  WRONG(attention, attention_without_kv_len),
  WRONG(attention, attention_mirrored_bias),
  WRONG(conv3d, conv3d_zero_padding),
  WRONG(conv3d, conv3d_pads_swapped),
  WRONG(conv3d, conv3d_without_residual),
  WRONG(patchify, patchify_channel_last),
  WRONG(unpatchify, unpatchify_first_column),
  WRONG(timestep, timestep_sin_first),
  WRONG(affine, affine_without_act),
  WRONG(affine, affine_accepts_anything),
  WRONG(affine, affine_fails_silently),
  WRONG(copy2d, copy2d_truncates),
  WRONG(guidance_step, guidance_step_first_frame),
  WRONG(randn, randn_without_sequence),
  WRONG(randn, randn_channel_last),
  WRONG(gaussian, gaussian_without_clamp),
  WRONG(blend, blend_one_less),
  WRONG(tensor_to_frame, frame_other_matrix),
  WRONG(tensor_to_frame, frame_chroma_swapped),
  WRONG(frame_to_tensor, tensor_other_matrix),
};

/* The honest table with the one entry of `wrong` that is set put in its place. */
static OsrOps
replace_op(const OsrOps *wrong)
{
  typedef OsrResult (*AnyOp)(void);
  enum { N = sizeof(OsrOps) / sizeof(AnyOp) };
  OsrOps ops = osr_backend_ref.ops;
  AnyOp from[N], to[N];

  memcpy(from, wrong, sizeof from);
  memcpy(to, &ops, sizeof to);
  for (int i = 0; i < N; i++)
    if (from[i])
      to[i] = from[i];
  memcpy(&ops, to, sizeof ops);
  return ops;
}

static const OpTest *
find_test(const char *op)
{
  const OpTest *test = op_tests;

  while (strcmp(test->name, op) != 0)
    test++;
  return test;
}

/* --- 16-bit types, which the reference has not --- */

/* y = act(a x + b) in any activation type, by way of f32; without the activation if `wrong`. */
static OsrResult
affine_any_type(OsrOpsContext *ctx, const OsrAffine *p, bool wrong)
{
  OsrAffine wide = *p;
  float *f = malloc((size_t) p->n * sizeof *f + 1);
  OsrCopy2d widen = { p->dtype, OSR_DTYPE_F32, 1, p->n, p->x, p->n, f, p->n };
  OsrCopy2d narrow = { OSR_DTYPE_F32, p->dtype, 1, p->n, f, p->n, p->y, p->n };
  OsrResult result;

  if (!f)
    return osr_fail(ctx, OSR_ERR_MEMORY, "affine: no memory");
  wide.dtype = OSR_DTYPE_F32;
  wide.x = wide.y = f;
  if (wrong)
    wide.act = OSR_ACT_NONE;
  result = REF.copy2d(ctx, &widen);
  if (result == OSR_OK)
    result = REF.affine(ctx, &wide);
  if (result == OSR_OK)
    result = REF.copy2d(ctx, &narrow);
  free(f);
  return result;
}

static OsrResult
affine_right(OsrOpsContext *ctx, const OsrAffine *p)
{
  return affine_any_type(ctx, p, false);
}

static OsrResult
affine_wrong(OsrOpsContext *ctx, const OsrAffine *p)
{
  return affine_any_type(ctx, p, true);
}

/* --- the run --- */

/* The number of random cases after which `ops` is found out; 0 if `fixed` and the calls
 * without random numbers find it; -1 if nothing does. */
static int
find_out(const OsrOps *ops, const char *op, OsrDType dtype, bool fixed, uint64_t seed, int cases)
{
  Tally found = { .quiet = true };
  Target target;
  int n = 0;

  if (!target_open(&target, &osr_backend_ref, 0))
    return -1;
  target.ops = *ops;
  if (fixed)
    run_invalid(&target, op, &found);
  for (; found.failed == 0 && n < cases; n++)
    run_random(&target, find_test(op), dtype, seed, cases, n, &found);
  target_close(&target);
  return found.failed > 0 ? n : -1;
}

static void
self_test_types(uint64_t seed, int cases, Tally *tally)
{
  const OsrOps right = { .affine = affine_right }, wrong = { .affine = affine_wrong };

  for (int dtype = OSR_DTYPE_BF16; dtype <= OSR_DTYPE_F16; dtype++) {
    tally_add(tally, find_out(&right, "affine", (OsrDType) dtype, false, seed, cases) < 0,
              "a right affine in %s fails", osr_ops_dtype_name((OsrDType) dtype));
    tally_add(tally, find_out(&wrong, "affine", (OsrDType) dtype, false, seed, 20 * cases) >= 0,
              "a wrong affine in %s is not found out", osr_ops_dtype_name((OsrDType) dtype));
  }
}

void
run_self_test(uint64_t seed, int cases, Tally *tally)
{
  for (int i = 0; i < n_op_tests; i++)
    tally_add(tally, find_out(&REF, op_tests[i].name, OSR_DTYPE_F32, true, seed, cases) < 0,
              "the reference fails its own %s", op_tests[i].name);
  for (size_t i = 0; i < sizeof saboteurs / sizeof *saboteurs; i++) {
    OsrOps ops = replace_op(&saboteurs[i].ops);
    int n = find_out(&ops, saboteurs[i].op, OSR_DTYPE_F32, true, seed, 20 * cases);

    tally_add(tally, n >= 0, "%s is not found out in %d cases", saboteurs[i].bug, 20 * cases);
    if (n >= 0 && !tally->quiet)
      printf("%-32s found after %d cases\n", saboteurs[i].bug, n);
  }
  self_test_types(seed, cases, tally);
}
