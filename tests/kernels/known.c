/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What everything else is compared with is compared here: Philox with the known answers of
 * its authors, the normals with the error function, the reference ops with small calls
 * whose results can be worked out by hand. */
#include "checkops.h"
#include "philox.h"

static void
expect_near(Tally *tally, const char *what, const float *got, const double *want, int n,
            double tolerance)
{
  for (int i = 0; i < n; i++)
    if (!(fabs(got[i] - want[i]) <= tolerance * (1.0 + fabs(want[i])))) {
      tally_add(tally, false, "%s: element %d is %.9g, not %.9g", what, i, (double) got[i],
                want[i]);
      return;
    }
  tally_add(tally, true, "%s", what);
}

static void
expect(Tally *tally, const char *what, const float *got, const double *want, int n)
{
  expect_near(tally, what, got, want, n, 1e-6);
}

/* Random123's kat_vectors for philox4x32, 10 rounds. */
static void
known_philox(Tally *tally)
{
  static const uint32_t kat[3][10] = {
    { 0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 },
    { 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
      0x41c83b0e, 0xa20bc7c6, 0x6d5451fd },
    { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
      0x94fdcceb, 0x5001e420, 0x24126ea1 },
  };

  for (int i = 0; i < 3; i++) {
    uint32_t out[4];

    osr_philox4x32_10(kat[i], kat[i] + 4, out);
    tally_add(tally, !memcmp(out, kat[i] + 6, sizeof out),
              "philox of vector %d is %08x %08x %08x %08x", i, out[0], out[1], out[2], out[3]);
  }
  for (int i = 0; i < 4; i++)
    tally_add(tally, osr_philox_randn(0, 0, (uint64_t) i) == osr_philox_normal(kat[0][6 + i]),
              "draw %d of seed 0 is not the normal of word %d", i, i);
}

/* Phi(x) must give the probability back, to the rounding of x to f32: Phi changes by
 * phi(x) dx. The smaller tail is compared, where erfc is accurate. */
static bool
round_trip(uint32_t bits)
{
  double x = osr_philox_normal(bits);
  double p = ((double) bits + 0.5) / 4294967296.0;
  double tail = bits < 0x80000000u ? p : (4294967295.5 - (double) bits) / 4294967296.0;
  double got = 0.5 * erfc(fabs(x) * 0.70710678118654752440);
  double density = exp(-0.5 * x * x) * 0.39894228040143267794;
  double rounding = fabs(x) * 0x1p-24 * 1.01;

  if ((bits < 0x80000000u) != (x < 0.0))
    return false;
  return fabs(got - tail) <= density * rounding + 1e-13 * tail;
}

static void
known_normals(Tally *tally)
{
  static const uint32_t edges[] = { 0,          1,          2,          0x7fffffff, 0x80000000,
                                    0x80000001, 0xfffffffd, 0xfffffffe, 0xffffffff };
  const int n = 1000000;
  double sum = 0.0, squares = 0.0;
  uint32_t bad = 0;
  int wrong = 0;

  for (size_t i = 0; i < sizeof edges / sizeof *edges; i++)
    tally_add(tally, round_trip(edges[i]), "normal of %08x is %.9g", edges[i],
              (double) osr_philox_normal(edges[i]));
  for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 4099)
    if (!round_trip((uint32_t) bits)) {
      bad = (uint32_t) bits;
      wrong++;
    }
  /* Far into both tails too, where the third branch of the formula is. */
  for (uint32_t bits = 0; bits < 100000; bits++)
    if (!round_trip(bits) || osr_philox_normal(bits) != -osr_philox_normal(~bits)) {
      bad = bits;
      wrong++;
    }
  tally_add(tally, wrong == 0, "%d normals are wrong, such as that of %08x: %.9g", wrong, bad,
            (double) osr_philox_normal(bad));

  for (double x = 1e-12; x < 1e12; x *= 1.37)
    if (!(fabs(osr_philox_log(x) - log(x)) <= 2e-15 * (1.0 + fabs(log(x)))))
      wrong++;
  tally_add(tally, wrong == 0, "the logarithm is inaccurate");

  for (int i = 0; i < n; i++) {
    double x = osr_philox_randn(20250307, 3, (uint64_t) i);

    sum += x;
    squares += x * x;
  }
  tally_add(tally, fabs(sum / n) < 5.0 / sqrt(n) && fabs(squares / n - 1.0) < 5.0 * sqrt(2.0 / n),
            "a million draws have mean %g and variance %g", sum / n, squares / n);
}

/* All 16-bit patterns, against the other implementation of the same conversion. */
static void
known_conversions(Tally *tally, OsrOpsContext *ctx)
{
  static const OsrDType types[] = { OSR_DTYPE_BF16, OSR_DTYPE_F16 };
  static uint16_t in[65536], out[65536];
  static float wide[65536];

  for (int type = 0; type < 2; type++) {
    OsrCopy2d p = { types[type], OSR_DTYPE_F32, 1, 65536, in, 65536, wide, 65536 };
    OsrCopy2d back = { OSR_DTYPE_F32, types[type], 1, 65536, wide, 65536, out, 65536 };
    int wrong = 0;

    for (int i = 0; i < 65536; i++)
      in[i] = (uint16_t) i;
    osr_backend_ref.ops.copy2d(ctx, &p);
    osr_backend_ref.ops.copy2d(ctx, &back);
    for (size_t i = 0; i < 65536; i++) {
      double want = element_load(types[type], in, i);

      if (isnan(want))
        wrong += !isnan(wide[i]) || !isnan(element_load(types[type], out, i));
      else
        wrong += wide[i] != want || out[i] != in[i];
    }
    tally_add(tally, wrong == 0, "%d numbers do not survive %s to f32 and back", wrong,
              osr_ops_dtype_name(types[type]));
  }
}

static void
known_activations(Tally *tally)
{
  const double x[] = { osr_act_f64(OSR_ACT_NONE, 1), osr_act_f64(OSR_ACT_SILU, 1),
                       osr_act_f64(OSR_ACT_GELU_TANH, 1), osr_act_f64(OSR_ACT_GELU_ERF, 1),
                       osr_act_f64(OSR_ACT_QUICK_GELU, 1) };
  const double want[] = { 1, 0.7310585786300049, 0.8411919906082768, 0.8413447460685429,
                          0.8457957659328212 };

  for (int i = 0; i < 5; i++)
    tally_add(tally, fabs(x[i] - want[i]) < 1e-14, "activation %d of 1 is %.17g", i, x[i]);
}

static void
known_matrix(Tally *tally, OsrOpsContext *ctx, const OsrOps *ops)
{
  static const float x[] = { 1, 2 }, w[] = { 3, 4 }, bias[] = { 5 }, gate[] = { 0.5f },
                     residual[] = { 1 };
  static const float pairs[] = { 2, 3, 5, 7 }, table[] = { 1, 2, 3, 4 }, positions[] = { 10, 20 };
  static const int32_t ids[] = { 1, 0 };
  float y[4];
  OsrLinear linear = { .batch = 1,
                       .m = 1,
                       .n = 1,
                       .k = 2,
                       .x = x,
                       .x_ld = 2,
                       .w = w,
                       .bias = bias,
                       .gate = gate,
                       .residual = residual,
                       .y = y };
  OsrGlu glu = { .m = 1, .n = 2, .x = pairs, .x_ld = 4, .y = y, .y_ld = 2 };
  OsrEmbedding embedding = { .m = 2,
                             .n = 2,
                             .vocab = 2,
                             .n_positions = 1,
                             .ids = ids,
                             .table = table,
                             .positions = positions,
                             .y = y };

  ops->linear(ctx, &linear);
  expect(tally, "linear", y, (const double[]){ 9 }, 1);
  ops->glu(ctx, &glu);
  expect(tally, "glu", y, (const double[]){ 10, 21 }, 2);
  ops->embedding(ctx, &embedding);
  expect(tally, "embedding", y, (const double[]){ 13, 24, 11, 22 }, 4);
}

static void
known_norm(Tally *tally, OsrOpsContext *ctx, const OsrOps *ops)
{
  static const float x[] = { 1, 3 }, ones[] = { 1, 1 }, half[] = { 0.5f, 0.5f }, legs[] = { 3, 4 };
  static const float video[] = { 1, 1, 3, 3 }, zeros[] = { 0, 0 }, cos[] = { 0, 1 },
                     sin[] = { 1, 0 };
  float y[4], q[] = { 1, 2, 3, 4 }, k[] = { 1, 2, 3, 4 };
  OsrLayerNorm layer = { .batch = 1, .m = 1, .n = 2, .x = x, .scale = ones, .shift = half, .y = y };
  OsrRmsNorm rms = { .m = 1, .n = 2, .x = legs, .weight = ones, .y = y };
  OsrGroupNorm group = { .batch = 1,
                         .positions = 2,
                         .channels = 2,
                         .groups = 2,
                         .x = video,
                         .weight = ones,
                         .bias = zeros,
                         .y = y };
  OsrQkNormRope rope = { .batch = 1,
                         .m = 1,
                         .heads = 1,
                         .head_dim = 4,
                         .q = q,
                         .k = k,
                         .ld = 4,
                         .rope = OSR_ROPE_INTERLEAVED,
                         .cos = cos,
                         .sin = sin };

  ops->layer_norm(ctx, &layer);
  expect(tally, "layer_norm", y, (const double[]){ -1.5, 2.5 }, 2);
  ops->rms_norm(ctx, &rms);
  expect(tally, "rms_norm", y, (const double[]){ 0.8485281374, 1.1313708499 }, 2);
  ops->group_norm(ctx, &group);
  expect(tally, "group_norm", y, (const double[]){ -1, -1, 1, 1 }, 4);
  ops->qk_norm_rope(ctx, &rope);
  expect(tally, "interleaved rope", q, (const double[]){ -2, 1, 3, 4 }, 4);
  memcpy(k, (const float[]){ 1, 2, 3, 4 }, sizeof k);
  rope.rope = OSR_ROPE_HALF;
  ops->qk_norm_rope(ctx, &rope);
  expect(tally, "half rope", k, (const double[]){ -3, 2, 1, 4 }, 4);
}

static void
known_attention(Tally *tally, OsrOpsContext *ctx, const OsrOps *ops)
{
  static const float zeros[4], v[] = { 1, 2, 3, 4 };
  /* Distance +1 wins over all others. */
  static const float next[] = { 0, 0, 0, 0, 100, 0, 0 };
  static const int32_t two[] = { 2 }, none[] = { 0 };
  float o[4];
  OsrAttention p = { .batch = 1,
                     .lq = 4,
                     .lk = 4,
                     .heads = 1,
                     .head_dim = 1,
                     .scale = 1,
                     .q = zeros,
                     .k = zeros,
                     .v = v,
                     .q_ld = 1,
                     .k_ld = 1,
                     .v_ld = 1,
                     .o = o,
                     .o_ld = 1 };

  ops->attention(ctx, &p);
  expect(tally, "attention", o, (const double[]){ 2.5, 2.5, 2.5, 2.5 }, 4);
  p.mask = OSR_MASK_CAUSAL;
  ops->attention(ctx, &p);
  expect(tally, "causal attention", o, (const double[]){ 1, 1.5, 2, 2.5 }, 4);
  p.mask = OSR_MASK_FRAME_CAUSAL;
  p.frame_len = 2;
  ops->attention(ctx, &p);
  expect(tally, "frame-causal attention", o, (const double[]){ 1.5, 1.5, 2.5, 2.5 }, 4);
  p.mask = OSR_MASK_NONE;
  p.rel_bias = next;
  ops->attention(ctx, &p);
  expect(tally, "attention with rel_bias", o, (const double[]){ 2, 3, 4, 2.5 }, 4);
  p.rel_bias = NULL;
  p.kv_len = two;
  ops->attention(ctx, &p);
  expect(tally, "attention to two keys", o, (const double[]){ 1.5, 1.5, 1.5, 1.5 }, 4);
  p.kv_len = none;
  ops->attention(ctx, &p);
  expect(tally, "attention to no keys", o, (const double[]){ 0, 0, 0, 0 }, 4);
}

static void
known_conv(Tally *tally, OsrOpsContext *ctx, const OsrOps *ops)
{
  static const float x[] = { 1, 2, 3 }, identity[] = { 1 }, oldest[] = { 1, 0, 0 },
                     sum[] = { 1, 10 };
  static const float image[] = { 1, 2, 3, 4 };
  float y[16];
  OsrConv3d p = { .batch = 1,
                  .t = 3,
                  .h = 1,
                  .w_in = 1,
                  .c_in = 1,
                  .c_out = 1,
                  .k_t = 1,
                  .k_h = 1,
                  .k_w = 1,
                  .stride_t = 1,
                  .stride_h = 1,
                  .stride_w = 1,
                  .up_t = 2,
                  .up_hw = 1,
                  .x = x,
                  .w = identity,
                  .y = y };

  ops->conv3d(ctx, &p);
  expect(tally, "up-sampling in time", y, (const double[]){ 1, 2, 2, 3, 3 }, 5);
  p.up_t = 1;
  p.k_t = 3;
  p.pad_t[0] = 2;
  p.pad = OSR_PAD_REPLICATE;
  p.w = oldest;
  ops->conv3d(ctx, &p);
  expect(tally, "causal convolution", y, (const double[]){ 1, 1, 1 }, 3);
  p.pad = OSR_PAD_ZERO;
  ops->conv3d(ctx, &p);
  expect(tally, "causal convolution, zeros", y, (const double[]){ 0, 0, 1 }, 3);

  p.t = p.k_t = 1;
  p.pad_t[0] = 0;
  p.w_in = 3;
  p.k_w = 2;
  p.pad_w[1] = 1;
  p.w = sum;
  ops->conv3d(ctx, &p);
  expect(tally, "padding on the right", y, (const double[]){ 21, 32, 3 }, 3);

  p.h = p.w_in = 2;
  p.k_w = 1;
  p.pad_w[1] = 0;
  p.up_hw = 2;
  p.x = image;
  p.w = identity;
  ops->conv3d(ctx, &p);
  expect(tally, "up-sampling in space", y,
         (const double[]){ 1, 1, 2, 2, 1, 1, 2, 2, 3, 3, 4, 4, 3, 3, 4, 4 }, 16);
}

static void
known_layout(Tally *tally, OsrOpsContext *ctx, const OsrOps *ops)
{
  /* 10 c + 2 h + w, so that tokens come out sorted. */
  static const float latent[] = { 0, 10, 1, 11, 2, 12, 3, 13 };
  static const float one[] = { 1 }, weights[2][2] = { { 1, 2 }, { -1, 0 } },
                     preds[2][2] = { { 3, 4 }, { 5, 6 } };
  static const float a[] = { 9, 1, 1, 1, 1 }, moments[] = { 2, 0 }, noise[] = { 3 };
  float y[16], x[] = { 1, 1 }, b[] = { 0, 0, 0, 0, 7 };
  OsrPatchify patches = {
    .batch = 1, .t = 1, .h = 2, .w = 2, .c = 2, .patch = 2, .x = latent, .y = y, .ld = 8
  };
  OsrTimestep timestep = { .m = 1, .n = 4, .factor = 1, .max_period = 10000, .t = one, .y = y };
  OsrAffine affine = { .n = 1, .a = 3, .b = -2, .x = one, .y = y };
  OsrGuidanceStep step = { .frames = 2,
                           .tokens_per_frame = 1,
                           .n = 1,
                           .dt = 0.5f,
                           .n_preds = 2,
                           .pred = { preds[0], preds[1] },
                           .weight = { weights[0], weights[1] },
                           .x = x };
  OsrGaussian gaussian = {
    .m = 1, .c = 1, .moments = moments, .noise = noise, .scale = 2, .shift = 1, .y = y
  };
  OsrBlend blend = { .outer = 1, .a_len = 5, .b_len = 5, .inner = 1, .extent = 4, .a = a, .b = b };
  OsrRandn randn = { .seed = 7, .sequence = 1, .t = 2, .h = 1, .w = 2, .c = 2, .y = y };
  OsrRandn torch = {
    .seed = 42, .torch_blocks = OSR_RANDN_H100, .t = 1, .h = 1, .w = 8, .c = 1, .y = y
  };

  ops->patchify(ctx, &patches);
  expect(tally, "patchify", y, (const double[]){ 0, 1, 2, 3, 10, 11, 12, 13 }, 8);
  ops->timestep(ctx, &timestep);
  expect(tally, "timestep", y, (const double[]){ cos(1), cos(0.01), sin(1), sin(0.01) }, 4);
  ops->affine(ctx, &affine);
  expect(tally, "affine", y, (const double[]){ 1 }, 1);
  ops->guidance_step(ctx, &step);
  expect(tally, "guidance_step", x, (const double[]){ 1 + 0.5 * (3 - 5), 1 + 0.5 * 2 * 4 }, 2);
  ops->gaussian(ctx, &gaussian);
  expect(tally, "gaussian", y, (const double[]){ 8 }, 1);
  ops->blend(ctx, &blend);
  expect(tally, "blend", b, (const double[]){ 1, 0.75, 0.5, 0.25, 7 }, 5);
  ops->randn(ctx, &randn);
  for (uint64_t i = 0; i < 8; i++) {
    /* y is [T, H, W, C]; draws are numbered in the order [C, T, H, W]. */
    uint64_t c = i & 1, w = i >> 1 & 1, t = i >> 2;

    tally_add(tally, y[i] == osr_philox_randn(7, 1, (c * 2 + t) * 2 + w),
              "randn: element %d has another draw", (int) i);
  }
  /* torch.manual_seed(seed); torch.randn(8, device="cuda"), as it prints them. */
  ops->randn(ctx, &torch);
  expect_near(
      tally, "randn: torch 42", y,
      (const double[]){ 0.1940, 2.1614, -0.1721, 0.8491, -1.9244, 0.6530, -0.6494, -0.8175 }, 8,
      5.1e-5);
  torch.seed = 0;
  ops->randn(ctx, &torch);
  expect_near(
      tally, "randn: torch 0", y,
      (const double[]){ -0.9247, -0.4253, -2.6438, 0.1452, -0.1209, -0.5797, -0.6229, -0.3284 }, 8,
      5.1e-5);
}

/* The colour bars of the two standards: 8-bit codes of full red and of white. */
static void
known_frame(Tally *tally, OsrOpsContext *ctx, const OsrOps *ops)
{
  static const uint8_t red[2][3] = { { 81, 90, 240 }, { 63, 102, 240 } };
  float pixels[] = { 1, -1, -1, 1, 1, 1, -1, 0, 3 };
  uint8_t y[1], u[1], v[1], rgbx[12];
  OsrFrame p = { .width = 1,
                 .height = 1,
                 .format = OSR_PIXEL_I420,
                 .tensor = pixels,
                 .planes = { y, u, v },
                 .strides = { 1, 1, 1 } };
  OsrFrame rgb = { .width = 3,
                   .height = 1,
                   .format = OSR_PIXEL_RGBX,
                   .tensor = pixels,
                   .planes = { rgbx },
                   .strides = { 12 } };

  for (int matrix = 0; matrix < 2; matrix++) {
    p.matrix = (OsrMatrix) matrix;
    p.tensor = pixels;
    ops->tensor_to_frame(ctx, &p);
    tally_add(tally, y[0] == red[matrix][0] && u[0] == red[matrix][1] && v[0] == red[matrix][2],
              "red of matrix %d is %d %d %d", matrix, y[0], u[0], v[0]);
    p.tensor = pixels + 3;
    ops->tensor_to_frame(ctx, &p);
    tally_add(tally, y[0] == 235 && u[0] == 128 && v[0] == 128, "white of matrix %d is %d %d %d",
              matrix, y[0], u[0], v[0]);
    ops->frame_to_tensor(ctx, &p);
    expect(tally, "white", pixels + 3, (const double[]){ 1, 1, 1 }, 3);
  }
  ops->tensor_to_frame(ctx, &rgb);
  tally_add(
      tally,
      !memcmp(rgbx, (const uint8_t[]){ 255, 0, 0, 255, 255, 255, 255, 255, 0, 128, 255, 255 }, 12),
      "RGBX pixels are wrong");
  ops->frame_to_tensor(ctx, &rgb);
  expect(tally, "RGBX", pixels + 6, (const double[]){ -1, 128 / 127.5 - 1, 1 }, 3);
}

void
run_known(Tally *tally)
{
  OsrOpsContext ctx = { .backend = &osr_backend_ref };
  const OsrOps *ops = &osr_backend_ref.ops;
  int before = tally->failed, checks = tally->passed + tally->failed;

  osr_backend_ref.open(&ctx, 0);
  known_philox(tally);
  known_normals(tally);
  known_activations(tally);
  known_conversions(tally, &ctx);
  known_matrix(tally, &ctx, ops);
  known_norm(tally, &ctx, ops);
  known_attention(tally, &ctx, ops);
  known_conv(tally, &ctx, ops);
  known_layout(tally, &ctx, ops);
  known_frame(tally, &ctx, ops);
  osr_backend_ref.close(&ctx);
  if (!tally->quiet)
    printf("%-22s %d checks%s\n", "known answers", tally->passed + tally->failed - checks,
           tally->failed > before ? ", FAILED" : "");
}
