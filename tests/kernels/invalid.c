/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that no backend can run must say so; calls without work must do nothing. */
#include "check.h"
#include "checkops.h"

#include <string.h>

#define BLOCK 4096
#define BLOCKS 6

typedef struct Invalid {
  Target *target;
  Tally *tally;
  void *memory;
  OsrDType dtype, missing; /* a type the backend has, and an activation type it has not */
} Invalid;

/* Block `i` of zeroed device memory, large enough for every pointer below. */
static void *
block(const Invalid *v, int i)
{
  return (char *) v->memory + (size_t) i * BLOCK;
}

static void
expect_error(Invalid *v, const char *what, OsrResult result)
{
  const char *error = v->target->ctx.error;
  bool terminated = memchr(error, '\0', sizeof v->target->ctx.error) != NULL;

  tally_add(v->tally, result < 0, "%s is accepted", what);
  if (result < 0)
    tally_add(v->tally, terminated && error[0] != '\0', "%s: result %d without a message", what,
              result);
  v->target->ctx.error[0] = '\0';
}

static void
expect_ok(Invalid *v, const char *what, OsrResult result)
{
  if (result == OSR_OK)
    result = v->target->backend->synchronize(&v->target->ctx);
  tally_add(v->tally, result == OSR_OK, "%s: result %d, %s", what, result, v->target->ctx.error);
}

/* `change` is made to a copy of the good call `good`, called `p`. */
#define BAD(op, change)                                                                            \
  (p = good, change, expect_error(v, #op " with " #change, v->target->ops.op(&v->target->ctx, &p)))
#define GOOD(op, change)                                                                           \
  (p = good, change, expect_ok(v, #op " with " #change, v->target->ops.op(&v->target->ctx, &p)))

/* What every op with activations must refuse. */
#define BAD_DTYPE(op)                                                                              \
  do {                                                                                             \
    BAD(op, p.dtype = OSR_DTYPE_I32);                                                              \
    BAD(op, p.dtype = OSR_DTYPE_F64);                                                              \
    BAD(op, p.dtype = (OsrDType) 77);                                                              \
    if (v->missing != v->dtype)                                                                    \
      BAD(op, p.dtype = v->missing);                                                               \
  } while (0)

static void
invalid_linear(Invalid *v)
{
  const OsrLinear good = { .dtype = v->dtype,
                           .w_dtype = v->dtype,
                           .batch = 2,
                           .m = 3,
                           .n = 4,
                           .k = 5,
                           .x = block(v, 0),
                           .x_ld = 5,
                           .x_batch = 15,
                           .w = block(v, 1),
                           .y = block(v, 2),
                           .y_ld = 4,
                           .y_batch = 12 };
  const OsrLinear none = { .dtype = v->dtype, .w_dtype = v->dtype, .k = 1 };
  OsrLinear p;

  GOOD(linear, p = good);
  GOOD(linear, p = none);
  GOOD(linear, (p = none, p.batch = 3, p.m = 7));
  GOOD(linear, (p = none, p.batch = 3, p.n = 7));
  BAD_DTYPE(linear);
  BAD(linear, p.w_dtype = OSR_DTYPE_I64);
  BAD(linear, p.x = NULL);
  BAD(linear, p.w = NULL);
  BAD(linear, p.y = NULL);
  BAD(linear, p.batch = -1);
  BAD(linear, p.m = -1);
  BAD(linear, p.n = -4);
  BAD(linear, p.k = -5);
  BAD(linear, p.x_ld = 4);
  BAD(linear, p.y_ld = 3);
  BAD(linear, (p.residual = block(v, 3), p.residual_ld = 3));
  BAD(linear, (p.residual = p.y, p.residual_ld = 5, p.residual_batch = 12));
  BAD(linear, p.act = (OsrAct) 99);
  BAD(linear, (p.m = INT64_MAX / 2, p.x_ld = INT64_MAX / 2));
}

static void
invalid_glu(Invalid *v)
{
  const OsrGlu good = { .dtype = v->dtype,
                        .m = 3,
                        .n = 4,
                        .act = OSR_ACT_SILU,
                        .x = block(v, 0),
                        .x_ld = 8,
                        .y = block(v, 1),
                        .y_ld = 4 };
  const OsrGlu none = { .dtype = v->dtype };
  OsrGlu p;

  GOOD(glu, p = good);
  GOOD(glu, p = none);
  GOOD(glu, (p = none, p.m = 3));
  BAD_DTYPE(glu);
  BAD(glu, p.x = NULL);
  BAD(glu, p.y = NULL);
  BAD(glu, p.m = -1);
  BAD(glu, p.n = -1);
  BAD(glu, p.x_ld = 7);
  BAD(glu, p.y_ld = 3);
  BAD(glu, p.act = (OsrAct) -1);
}

static void
invalid_layer_norm(Invalid *v)
{
  const OsrLayerNorm good = { .dtype = v->dtype,
                              .batch = 2,
                              .m = 3,
                              .n = 4,
                              .eps = 1e-6f,
                              .x = block(v, 0),
                              .x_ld = 4,
                              .x_batch = 12,
                              .y = block(v, 1),
                              .y_ld = 4,
                              .y_batch = 12 };
  const OsrLayerNorm none = { .dtype = v->dtype };
  OsrLayerNorm p;

  GOOD(layer_norm, p = good);
  GOOD(layer_norm, p = none);
  GOOD(layer_norm, (p = none, p.batch = 2, p.m = 3));
  BAD_DTYPE(layer_norm);
  BAD(layer_norm, p.x = NULL);
  BAD(layer_norm, p.y = NULL);
  BAD(layer_norm, p.batch = -1);
  BAD(layer_norm, p.m = -1);
  BAD(layer_norm, p.n = -1);
  BAD(layer_norm, p.x_ld = 3);
  BAD(layer_norm, p.y_ld = 3);
}

static void
invalid_rms_norm(Invalid *v)
{
  const OsrRmsNorm good = { .dtype = v->dtype,
                            .m = 3,
                            .n = 4,
                            .eps = 1e-6f,
                            .x = block(v, 0),
                            .x_ld = 4,
                            .weight = block(v, 2),
                            .y = block(v, 1),
                            .y_ld = 4 };
  const OsrRmsNorm none = { .dtype = v->dtype };
  OsrRmsNorm p;

  GOOD(rms_norm, p = good);
  GOOD(rms_norm, p = none);
  GOOD(rms_norm, (p = none, p.m = 3));
  BAD_DTYPE(rms_norm);
  BAD(rms_norm, p.x = NULL);
  BAD(rms_norm, p.y = NULL);
  BAD(rms_norm, p.weight = NULL);
  BAD(rms_norm, p.m = -1);
  BAD(rms_norm, p.n = -1);
  BAD(rms_norm, p.x_ld = 3);
  BAD(rms_norm, p.y_ld = 3);
}

static void
invalid_qk_norm_rope(Invalid *v)
{
  const OsrQkNormRope good = { .dtype = v->dtype,
                               .batch = 2,
                               .m = 3,
                               .heads = 2,
                               .head_dim = 4,
                               .q = block(v, 0),
                               .k = block(v, 1),
                               .ld = 8,
                               .batch_stride = 24,
                               .eps = 1e-6f,
                               .rope = OSR_ROPE_HALF,
                               .cos = block(v, 2),
                               .sin = block(v, 3) };
  const OsrQkNormRope none = { .dtype = v->dtype, .head_dim = 2 };
  OsrQkNormRope p;

  GOOD(qk_norm_rope, p = good);
  GOOD(qk_norm_rope, p = none);
  GOOD(qk_norm_rope, (p = none, p.batch = 1, p.m = 3));
  BAD_DTYPE(qk_norm_rope);
  BAD(qk_norm_rope, p.q = NULL);
  BAD(qk_norm_rope, p.k = NULL);
  BAD(qk_norm_rope, p.cos = NULL);
  BAD(qk_norm_rope, p.sin = NULL);
  BAD(qk_norm_rope, p.head_dim = 3);
  BAD(qk_norm_rope, p.head_dim = 0);
  BAD(qk_norm_rope, p.heads = -1);
  BAD(qk_norm_rope, p.m = -1);
  BAD(qk_norm_rope, p.batch = -1);
  BAD(qk_norm_rope, p.ld = 7);
  BAD(qk_norm_rope, p.rope = (OsrRope) 9);
}

static void
invalid_attention(Invalid *v)
{
  const OsrAttention good = { .dtype = v->dtype,
                              .batch = 2,
                              .lq = 3,
                              .lk = 3,
                              .heads = 2,
                              .head_dim = 4,
                              .scale = 0.5f,
                              .q = block(v, 0),
                              .k = block(v, 1),
                              .v = block(v, 2),
                              .q_ld = 8,
                              .q_batch = 24,
                              .k_ld = 8,
                              .k_batch = 24,
                              .v_ld = 8,
                              .v_batch = 24,
                              .o = block(v, 3),
                              .o_ld = 8,
                              .o_batch = 24 };
  const OsrAttention none = { .dtype = v->dtype, .head_dim = 1 };
  OsrAttention p;

  GOOD(attention, p = good);
  GOOD(attention, p = none);
  GOOD(attention, (p = none, p.batch = 1, p.heads = 2, p.lk = 3));
  BAD_DTYPE(attention);
  BAD(attention, p.q = NULL);
  BAD(attention, p.k = NULL);
  BAD(attention, p.v = NULL);
  BAD(attention, p.o = NULL);
  BAD(attention, p.o = block(v, 0));
  BAD(attention, p.batch = -1);
  BAD(attention, p.lq = -1);
  BAD(attention, p.lk = -1);
  BAD(attention, p.heads = -1);
  BAD(attention, p.head_dim = 0);
  BAD(attention, p.q_ld = 7);
  BAD(attention, p.k_ld = 7);
  BAD(attention, p.v_ld = 7);
  BAD(attention, p.o_ld = 7);
  BAD(attention, p.mask = (OsrMask) 9);
  BAD(attention, p.mask = OSR_MASK_FRAME_CAUSAL);
}

static void
invalid_group_norm(Invalid *v)
{
  const OsrGroupNorm good = { .dtype = v->dtype,
                              .batch = 2,
                              .positions = 3,
                              .channels = 4,
                              .groups = 2,
                              .eps = 1e-6f,
                              .x = block(v, 0),
                              .weight = block(v, 1),
                              .bias = block(v, 2),
                              .y = block(v, 3) };
  const OsrGroupNorm none = { .dtype = v->dtype, .groups = 1 };
  OsrGroupNorm p;

  GOOD(group_norm, p = good);
  GOOD(group_norm, p = none);
  GOOD(group_norm, (p = none, p.batch = 1, p.channels = 3));
  BAD_DTYPE(group_norm);
  BAD(group_norm, p.x = NULL);
  BAD(group_norm, p.y = NULL);
  BAD(group_norm, p.weight = NULL);
  BAD(group_norm, p.bias = NULL);
  BAD(group_norm, p.groups = 3);
  BAD(group_norm, p.groups = 0);
  BAD(group_norm, p.groups = -2);
  BAD(group_norm, p.batch = -1);
  BAD(group_norm, p.positions = -1);
  BAD(group_norm, p.channels = -4);
  BAD(group_norm, p.act = (OsrAct) 99);
}

static void
invalid_conv3d(Invalid *v)
{
  const OsrConv3d good = { .dtype = v->dtype,
                           .w_dtype = v->dtype,
                           .batch = 1,
                           .t = 2,
                           .h = 3,
                           .w_in = 3,
                           .c_in = 2,
                           .c_out = 3,
                           .k_t = 3,
                           .k_h = 3,
                           .k_w = 3,
                           .stride_t = 1,
                           .stride_h = 1,
                           .stride_w = 1,
                           .pad_t = { 2, 0 },
                           .pad_h = { 1, 1 },
                           .pad_w = { 1, 1 },
                           .pad = OSR_PAD_REPLICATE,
                           .up_t = 1,
                           .up_hw = 1,
                           .x = block(v, 0),
                           .w = block(v, 1),
                           .y = block(v, 2) };
  OsrConv3d p;

  GOOD(conv3d, p = good);
  GOOD(conv3d, (p.batch = 0, p.x = p.w = NULL, p.y = NULL));
  GOOD(conv3d, (p.h = 0, p.x = p.w = NULL, p.y = NULL));
  BAD_DTYPE(conv3d);
  BAD(conv3d, p.w_dtype = OSR_DTYPE_U8);
  BAD(conv3d, p.x = NULL);
  BAD(conv3d, p.w = NULL);
  BAD(conv3d, p.y = NULL);
  BAD(conv3d, p.batch = -1);
  BAD(conv3d, p.t = -1);
  BAD(conv3d, p.h = -3);
  BAD(conv3d, p.w_in = -3);
  BAD(conv3d, p.c_in = -2);
  BAD(conv3d, p.c_out = -3);
  BAD(conv3d, p.k_t = 0);
  BAD(conv3d, p.k_h = 9);
  BAD(conv3d, p.k_w = -1);
  BAD(conv3d, p.stride_t = 0);
  BAD(conv3d, p.stride_h = -1);
  BAD(conv3d, p.stride_w = 0);
  BAD(conv3d, p.pad_t[0] = -1);
  BAD(conv3d, p.pad_h[1] = -1);
  BAD(conv3d, p.pad_w[1] = INT32_MAX);
  BAD(conv3d, p.pad = (OsrPad) 5);
  BAD(conv3d, p.up_t = 3);
  BAD(conv3d, p.up_hw = 0);
  BAD(conv3d, (p.pad_t[0] = 0, p.t = 1));
  BAD(conv3d, (p.batch = INT64_MAX / 4, p.c_in = INT32_MAX / 4));
}

static void
invalid_patchify(Invalid *v)
{
  const OsrPatchify good = { .dtype = v->dtype,
                             .batch = 1,
                             .t = 2,
                             .h = 4,
                             .w = 6,
                             .c = 3,
                             .patch = 2,
                             .x = block(v, 0),
                             .y = block(v, 1),
                             .ld = 15,
                             .column = 3 };
  OsrPatchify p;

  GOOD(patchify, p = good);
  GOOD(patchify, (p.batch = 0, p.x = NULL, p.y = NULL));
  GOOD(patchify, (p.h = 0, p.x = NULL, p.y = NULL));
  BAD_DTYPE(patchify);
  BAD(patchify, p.x = NULL);
  BAD(patchify, p.y = NULL);
  BAD(patchify, p.batch = -1);
  BAD(patchify, p.t = -1);
  BAD(patchify, p.patch = 0);
  BAD(patchify, p.h = 5);
  BAD(patchify, p.w = 5);
  BAD(patchify, p.c = -3);
  BAD(patchify, p.ld = 14);
  BAD(patchify, p.column = -1);
  GOOD(unpatchify, p = good);
  GOOD(unpatchify, (p.batch = 0, p.x = NULL, p.y = NULL));
  BAD_DTYPE(unpatchify);
  BAD(unpatchify, p.x = NULL);
  BAD(unpatchify, p.y = NULL);
  BAD(unpatchify, p.batch = -1);
  BAD(unpatchify, p.patch = -1);
  BAD(unpatchify, p.h = 5);
  BAD(unpatchify, p.w = 7);
  BAD(unpatchify, p.ld = 14);
  BAD(unpatchify, p.column = -1);
}

/* An id outside of the table is an error where ids can be looked at, and zeros elsewhere. */
static void
check_bad_ids(Invalid *v, OsrEmbedding p, int32_t bad)
{
  const OsrBackend *backend = v->target->backend;
  OsrOpsContext *ctx = &v->target->ctx;
  int32_t ids[3] = { 1, bad, 0 };
  size_t size = 2 * osr_dtype_size(p.dtype);
  uint8_t row[2 * 4];
  OsrResult result;

  backend->copy(ctx, OSR_COPY_TO_DEVICE, block(v, 0), ids, sizeof ids);
  backend->mem_set(ctx, p.y, 0xFF, BLOCK);
  result = v->target->ops.embedding(ctx, &p);
  if (result == OSR_OK) {
    bool zero = backend->copy(ctx, OSR_COPY_TO_HOST, row, (char *) p.y + size, size) == OSR_OK;

    for (size_t i = 0; i < size; i++)
      zero = zero && row[i] == 0;
    tally_add(v->tally, zero, "embedding of id %d gives neither an error nor zeros", (int) bad);
  } else {
    expect_error(v, "embedding with a bad id", result);
  }
  backend->mem_set(ctx, block(v, 0), 0, BLOCK);
}

static void
invalid_embedding(Invalid *v)
{
  const OsrEmbedding good = { .dtype = v->dtype,
                              .m = 3,
                              .n = 2,
                              .vocab = 4,
                              .ids = block(v, 0),
                              .table = block(v, 1),
                              .y = block(v, 2) };
  const OsrEmbedding none = { .dtype = v->dtype };
  OsrEmbedding p;

  GOOD(embedding, p = good);
  GOOD(embedding, p = none);
  GOOD(embedding, (p = none, p.m = 2));
  BAD_DTYPE(embedding);
  BAD(embedding, p.ids = NULL);
  BAD(embedding, p.table = NULL);
  BAD(embedding, p.y = NULL);
  BAD(embedding, p.m = -1);
  BAD(embedding, p.n = -1);
  BAD(embedding, p.vocab = -1);
  BAD(embedding, p.positions = block(v, 3));
  check_bad_ids(v, good, 4);
  check_bad_ids(v, good, -1);
  check_bad_ids(v, good, INT32_MIN);
}

static void
invalid_timestep(Invalid *v)
{
  const OsrTimestep good = { .dtype = v->dtype,
                             .m = 2,
                             .n = 4,
                             .factor = 1000,
                             .max_period = 10000,
                             .t = block(v, 0),
                             .y = block(v, 1) };
  const OsrTimestep none = { .dtype = v->dtype, .factor = 1000, .max_period = 10000 };
  OsrTimestep p;

  GOOD(timestep, p = good);
  GOOD(timestep, p = none);
  GOOD(timestep, (p = none, p.m = 2));
  BAD_DTYPE(timestep);
  BAD(timestep, p.t = NULL);
  BAD(timestep, p.y = NULL);
  BAD(timestep, p.m = -1);
  BAD(timestep, p.n = -2);
  BAD(timestep, p.n = 3);
}

static void
invalid_affine(Invalid *v)
{
  const OsrAffine good = { .dtype = v->dtype, .n = 4, .a = 1, .x = block(v, 0), .y = block(v, 1) };
  const OsrAffine none = { .dtype = v->dtype };
  OsrAffine p;

  GOOD(affine, p = good);
  GOOD(affine, p = none);
  BAD_DTYPE(affine);
  BAD(affine, p.x = NULL);
  BAD(affine, p.y = NULL);
  BAD(affine, p.n = -1);
  BAD(affine, p.act = (OsrAct) 99);
}

static void
invalid_copy2d(Invalid *v)
{
  const OsrCopy2d good = { .x_dtype = OSR_DTYPE_F32,
                           .y_dtype = OSR_DTYPE_BF16,
                           .m = 2,
                           .n = 3,
                           .x = block(v, 0),
                           .x_ld = 3,
                           .y = block(v, 1),
                           .y_ld = 3 };
  const OsrCopy2d none = { .x_dtype = OSR_DTYPE_F32, .y_dtype = OSR_DTYPE_BF16 };
  OsrCopy2d p;

  GOOD(copy2d, p = good);
  GOOD(copy2d, p = none);
  GOOD(copy2d, (p = none, p.m = 2));
  BAD(copy2d, p.x_dtype = (OsrDType) 77);
  BAD(copy2d, p.y_dtype = (OsrDType) -1);
  BAD(copy2d, p.x = NULL);
  BAD(copy2d, p.y = NULL);
  BAD(copy2d, p.m = -1);
  BAD(copy2d, p.n = -1);
  BAD(copy2d, p.x_ld = 2);
  BAD(copy2d, p.y_ld = 2);
}

static void
invalid_guidance_step(Invalid *v)
{
  const OsrGuidanceStep good = { .dtype = v->dtype,
                                 .frames = 2,
                                 .tokens_per_frame = 3,
                                 .n = 4,
                                 .dt = 1,
                                 .n_preds = 2,
                                 .pred = { block(v, 0), block(v, 1) },
                                 .weight = { block(v, 2), block(v, 3) },
                                 .x = block(v, 4) };
  const OsrGuidanceStep none = { .dtype = v->dtype, .n_preds = 1 };
  OsrGuidanceStep p;

  GOOD(guidance_step, p = good);
  GOOD(guidance_step, p = none);
  GOOD(guidance_step, (p = none, p.frames = 2, p.n = 3));
  BAD_DTYPE(guidance_step);
  BAD(guidance_step, p.x = NULL);
  BAD(guidance_step, p.pred[1] = NULL);
  BAD(guidance_step, p.weight[0] = NULL);
  BAD(guidance_step, p.n_preds = 0);
  BAD(guidance_step, p.n_preds = 4);
  BAD(guidance_step, p.frames = -1);
  BAD(guidance_step, p.tokens_per_frame = -1);
  BAD(guidance_step, p.n = -1);
}

static void
invalid_randn(Invalid *v)
{
  const OsrRandn good = { .dtype = v->dtype, .t = 2, .h = 2, .w = 2, .c = 2, .y = block(v, 0) };
  const OsrRandn none = { .dtype = v->dtype, .t = 2, .h = 2, .w = 2 };
  OsrRandn p;

  GOOD(randn, p = good);
  GOOD(randn, p = none);
  BAD_DTYPE(randn);
  BAD(randn, p.y = NULL);
  BAD(randn, p.t = -1);
  BAD(randn, p.h = -1);
  BAD(randn, p.w = -1);
  BAD(randn, p.c = -1);
  BAD(randn, p.t = p.h = p.w = p.c = INT32_MAX);
  BAD(randn, p.torch_blocks = -2);
}

static void
invalid_gaussian(Invalid *v)
{
  const OsrGaussian good = {
    .dtype = v->dtype, .m = 2, .c = 3, .moments = block(v, 0), .scale = 1, .y = block(v, 1)
  };
  const OsrGaussian none = { .dtype = v->dtype };
  OsrGaussian p;

  GOOD(gaussian, p = good);
  GOOD(gaussian, p = none);
  GOOD(gaussian, (p = none, p.m = 2));
  BAD_DTYPE(gaussian);
  BAD(gaussian, p.moments = NULL);
  BAD(gaussian, p.y = NULL);
  BAD(gaussian, p.m = -1);
  BAD(gaussian, p.c = -1);
}

static void
invalid_blend(Invalid *v)
{
  const OsrBlend good = { .dtype = v->dtype,
                          .outer = 2,
                          .a_len = 3,
                          .b_len = 4,
                          .inner = 5,
                          .extent = 2,
                          .a = block(v, 0),
                          .b = block(v, 1) };
  const OsrBlend none = { .dtype = v->dtype };
  OsrBlend p;

  GOOD(blend, p = good);
  GOOD(blend, p = none);
  GOOD(blend, (p.extent = 0, p.a = NULL, p.b = NULL));
  BAD_DTYPE(blend);
  BAD(blend, p.a = NULL);
  BAD(blend, p.b = NULL);
  BAD(blend, p.outer = -1);
  BAD(blend, p.a_len = -1);
  BAD(blend, p.b_len = -1);
  BAD(blend, p.inner = -1);
  BAD(blend, p.extent = -1);
}

static void
invalid_frame(Invalid *v)
{
  const OsrFrame good = { .dtype = v->dtype,
                          .width = 5,
                          .height = 3,
                          .format = OSR_PIXEL_I420,
                          .tensor = block(v, 0),
                          .planes = { block(v, 1), block(v, 2), block(v, 3) },
                          .strides = { 5, 3, 3 } };
  OsrFrame p;

  GOOD(tensor_to_frame, p = good);
  GOOD(tensor_to_frame, (p.width = 0, p.tensor = NULL, p.planes[0] = NULL));
  BAD_DTYPE(tensor_to_frame);
  BAD(tensor_to_frame, p.tensor = NULL);
  BAD(tensor_to_frame, p.planes[0] = NULL);
  BAD(tensor_to_frame, p.planes[2] = NULL);
  BAD(tensor_to_frame, p.width = -1);
  BAD(tensor_to_frame, p.height = -1);
  BAD(tensor_to_frame, p.strides[0] = 4);
  BAD(tensor_to_frame, p.strides[1] = 2);
  BAD(tensor_to_frame, p.format = (OsrPixelFormat) 9);
  BAD(tensor_to_frame, p.matrix = (OsrMatrix) 9);
  GOOD(frame_to_tensor, p = good);
  GOOD(frame_to_tensor, (p.height = 0, p.tensor = NULL, p.planes[0] = NULL));
  BAD_DTYPE(frame_to_tensor);
  BAD(frame_to_tensor, p.tensor = NULL);
  BAD(frame_to_tensor, p.planes[1] = NULL);
  BAD(frame_to_tensor, p.width = -1);
  BAD(frame_to_tensor, p.strides[2] = 2);
  BAD(frame_to_tensor, p.format = (OsrPixelFormat) 9);
  BAD(frame_to_tensor, p.matrix = (OsrMatrix) 9);
}

/* Marks are numbered, and each can be waited for. */
static void
check_marks(Invalid *v)
{
  const OsrBackend *backend = v->target->backend;
  OsrOpsContext *ctx = &v->target->ctx;
  uint64_t first = 0, last = 0;

  expect_ok(v, "mark", backend->mark(ctx, &first));
  for (int i = 0; i < 2 * OSR_MAX_MARKS; i++)
    expect_ok(v, "mark", backend->mark(ctx, &last));
  tally_add(v->tally, last == first + 2 * OSR_MAX_MARKS, "marks %llu to %llu",
            (unsigned long long) first, (unsigned long long) last);
  expect_ok(v, "wait for the start", backend->wait(ctx, 0));
  expect_ok(v, "wait for a mark long ago", backend->wait(ctx, first));
  expect_ok(v, "wait for the last mark", backend->wait(ctx, last));
  tally_add(v->tally, backend->wait(ctx, last + 1) == OSR_ERR_INVALID,
            "a mark that was never given can be waited for");
  ctx->error[0] = '\0';
}

void
run_invalid(Target *target, const char *op, Tally *tally)
{
  static const struct {
    const char *name, *also;
    void (*run)(Invalid *v);
  } tests[] = {
    { "linear", "linear", invalid_linear },
    { "glu", "glu", invalid_glu },
    { "layer_norm", "layer_norm", invalid_layer_norm },
    { "rms_norm", "rms_norm", invalid_rms_norm },
    { "qk_norm_rope", "qk_norm_rope", invalid_qk_norm_rope },
    { "attention", "attention", invalid_attention },
    { "group_norm", "group_norm", invalid_group_norm },
    { "conv3d", "conv3d", invalid_conv3d },
    { "patchify", "unpatchify", invalid_patchify },
    { "embedding", "embedding", invalid_embedding },
    { "timestep", "timestep", invalid_timestep },
    { "affine", "affine", invalid_affine },
    { "copy2d", "copy2d", invalid_copy2d },
    { "guidance_step", "guidance_step", invalid_guidance_step },
    { "randn", "randn", invalid_randn },
    { "gaussian", "gaussian", invalid_gaussian },
    { "blend", "blend", invalid_blend },
    { "tensor_to_frame", "frame_to_tensor", invalid_frame },
  };
  Invalid v = { .target = target, .tally = tally };
  int before = tally->failed, checks = tally->passed + tally->failed;

  for (int dtype = OSR_DTYPE_F16; dtype >= OSR_DTYPE_F32; dtype--)
    if (target->backend->dtypes & 1u << dtype)
      v.dtype = (OsrDType) dtype;
  v.missing = v.dtype;
  for (int dtype = OSR_DTYPE_F32; dtype <= OSR_DTYPE_F16; dtype++)
    if (!(target->backend->dtypes & 1u << dtype))
      v.missing = (OsrDType) dtype;

  v.memory = target->backend->mem_alloc(&target->ctx, BLOCK * BLOCKS);
  if (!v.memory) {
    tally_add(tally, false, "no device memory");
    return;
  }
  target->backend->mem_set(&target->ctx, v.memory, 0, BLOCK * BLOCKS);
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    if (op_wanted(op, tests[i].name) || op_wanted(op, tests[i].also))
      tests[i].run(&v);
  check_marks(&v);
  target->backend->synchronize(&target->ctx);
  target->backend->mem_free(&target->ctx, v.memory, BLOCK * BLOCKS);
  if (!tally->quiet)
    printf("%-22s %d checks%s\n", "invalid, empty", tally->passed + tally->failed - checks,
           tally->failed > before ? ", FAILED" : "");
}
