/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * checkops --bench: the time of each op at the shapes of the tiny model, with --large at
 * those of Open-Sora 2.0, and its share of what the machine can do: the larger of
 * arithmetic over the speed of a large linear, and traffic over that of a large copy, both
 * measured in the same run, over the time taken. Small data stays in caches, so a share of
 * a memory-bound op can pass 100 %. A large one below 75 % is marked.
 */
#include "check.h"
#include "checkops.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_BUFFERS 12
#define PATTERN (1 << 18) /* elements */
#define RUNS 5
#define LARGE_BYTES 5e7 /* beyond these, launches and caches do not matter */

typedef struct Bench {
  Target *target;
  const char *op;
  bool ok, refused; /* refused: the row at hand does not fit into memory */
  OsrDType dtype;
  void *pattern; /* host: random elements of `dtype` */
  void *buffers[MAX_BUFFERS];
  size_t sizes[MAX_BUFFERS];
  int n_buffers;
  double bytes;                  /* of the buffers of the row at hand, each once */
  double peak_flops, peak_bytes; /* a second */
  double best;                   /* seconds of the best run of the last row */
} Bench;

static double
now(void)
{
  struct timespec t;

  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double) t.tv_sec + 1e-9 * (double) t.tv_nsec;
}

static int
compare_doubles(const void *a, const void *b)
{
  double x = *(const double *) a, y = *(const double *) b;

  return (x > y) - (x < y);
}

/* Device memory of n elements. Zeros would be unfair to the op (no subnormal, no carry, less
 * power drawn), so it holds normal numbers over and over. */
static void *
buffer(Bench *b, OsrDType dtype, int64_t n)
{
  const OsrBackend *backend = b->target->backend;
  OsrOpsContext *ctx = &b->target->ctx;
  size_t size = (size_t) n * osr_dtype_size(dtype), free_bytes, total;
  size_t block = PATTERN * osr_dtype_size(b->dtype);
  char *p;

  if (b->refused)
    return NULL;
  if (backend->mem_info(ctx, &free_bytes, &total) != OSR_OK || size + (size >> 3) > free_bytes ||
      !(p = backend->mem_alloc(ctx, size))) {
    b->refused = true;
    return NULL;
  }
  b->buffers[b->n_buffers] = p;
  b->sizes[b->n_buffers++] = size;
  b->bytes += (double) size;
  if (dtype != b->dtype && dtype != OSR_DTYPE_F32)
    backend->mem_set(ctx, p, 0, size);
  else {
    backend->copy(ctx, OSR_COPY_TO_DEVICE, p, b->pattern, size < block ? size : block);
    for (size_t at = block; at < size; at *= 2)
      backend->copy(ctx, OSR_COPY_ON_DEVICE, p + at, p, size - at < at ? size - at : at);
  }
  return p;
}

static void *
activations(Bench *b, int64_t n)
{
  return buffer(b, b->dtype, n);
}

/* Median seconds of a call; negative when it fails. */
static double
measure(Bench *b, CallFn call, const void *params)
{
  const OsrBackend *backend = b->target->backend;
  OsrOpsContext *ctx = &b->target->ctx;
  double times[RUNS], start = now();
  int runs = RUNS, calls = 1;

  if (call(&b->target->ops, ctx, params) != OSR_OK || backend->synchronize(ctx) != OSR_OK)
    return -1.0;
  /* The first call pays for set-up; the second tells how many make a run of 20 ms. */
  start = now();
  call(&b->target->ops, ctx, params);
  backend->synchronize(ctx);
  times[0] = b->best = now() - start;
  if (times[0] > 5.0)
    return times[0];
  if (times[0] < 0.02)
    calls = (int) (0.02 / (times[0] + 1e-7)) + 1;
  else if (times[0] > 1.0)
    runs = 3;

  for (int run = 0; run < runs; run++) {
    start = now();
    for (int i = 0; i < calls; i++)
      call(&b->target->ops, ctx, params);
    backend->synchronize(ctx);
    times[run] = (now() - start) / calls;
  }
  qsort(times, (size_t) runs, sizeof *times, compare_doubles);
  b->best = times[0];
  return times[runs / 2];
}

static void
release(Bench *b)
{
  for (int i = 0; i < b->n_buffers; i++)
    b->target->backend->mem_free(&b->target->ctx, b->buffers[i], b->sizes[i]);
  b->n_buffers = 0;
  b->bytes = 0.0;
  b->refused = false;
}

/* One row of the table; frees the row's buffers. Returns the seconds, negative without. */
static double row(Bench *b, const char *op, const void *params, double flops, const char *fmt, ...)
    OSR_PRINTF(5, 6);

static double
row(Bench *b, const char *op, const void *params, double flops, const char *fmt, ...)
{
  char shape[96];
  double seconds, bytes = b->bytes, limit;
  va_list args;

  va_start(args, fmt);
  vsnprintf(shape, sizeof shape, fmt, args);
  va_end(args);
  printf("%-16s %-5s %-44s", op, osr_ops_dtype_name(b->dtype), shape);
  fflush(stdout);
  if (b->refused) {
    printf(" does not fit into memory\n");
    release(b);
    return -1.0;
  }

  seconds = measure(b, call_of(op), params);
  release(b);
  if (seconds < 0.0) {
    printf(" %s\n", b->target->ctx.error);
    b->ok = false;
    return seconds;
  }
  printf(" %10.3f ms", seconds * 1e3);
  if (flops / seconds >= 1e12)
    printf(" %9.1f TFLOP/s", flops / seconds * 1e-12);
  else if (flops > 0.0)
    printf(" %9.1f GFLOP/s", flops / seconds * 1e-9);
  else
    printf(" %9.2f GB/s   ", bytes / seconds * 1e-9);
  if (b->peak_flops > 0.0) {
    limit = fmax(flops / b->peak_flops, bytes / b->peak_bytes);
    printf(" %6.1f %%%s", 100.0 * limit / seconds,
           flops == 0.0 && bytes >= LARGE_BYTES && limit < 0.75 * seconds ? " low" : "");
  }
  printf("\n");
  return seconds;
}

/* --- matrices and norms --- */

static double
time_linear(Bench *b, int64_t m, int n, int k, OsrAct act, bool gated)
{
  OsrLinear p = { .dtype = b->dtype,
                  .w_dtype = b->dtype,
                  .batch = 1,
                  .m = m,
                  .n = n,
                  .k = k,
                  .act = act,
                  .x_ld = k,
                  .y_ld = n,
                  .residual_ld = n };

  p.x = activations(b, m * k);
  p.w = activations(b, (int64_t) n * k);
  p.bias = activations(b, n);
  p.y = activations(b, m * n);
  if (gated) {
    p.gate = activations(b, n);
    p.residual = activations(b, m * n);
  }
  return row(b, "linear", &p, 2.0 * (double) m * n * k, "%lld x %d x %d%s%s", (long long) m, n, k,
             act ? ", act" : "", gated ? ", gated residual" : "");
}

static void
bench_linear(Bench *b, bool large)
{
  time_linear(b, 640, 576, 192, OSR_ACT_NONE, false);
  time_linear(b, 640, 768, 192, OSR_ACT_GELU_TANH, false);
  time_linear(b, 640, 192, 768, OSR_ACT_NONE, true);
  time_linear(b, 1, 1152, 192, OSR_ACT_NONE, false);
  if (!large)
    return;
  for (int i = 0; i < 2; i++) {
    const int64_t m = i ? 76544 : 8828;

    time_linear(b, m, 9216, 3072, OSR_ACT_NONE, false);
    time_linear(b, m, 3072, 3072, OSR_ACT_NONE, true);
    time_linear(b, m, 12288, 3072, OSR_ACT_GELU_TANH, false);
    time_linear(b, m, 3072, 12288, OSR_ACT_NONE, true);
    time_linear(b, m, 21504, 3072, OSR_ACT_NONE, false);
    time_linear(b, m, 3072, 15360, OSR_ACT_NONE, true);
  }
  time_linear(b, 512, 10240, 4096, OSR_ACT_NONE, false);
  time_linear(b, 1, 18432, 3072, OSR_ACT_NONE, false);
}

static void
bench_glu(Bench *b, bool large)
{
  for (int i = 0; i < (large ? 3 : 1); i++) {
    OsrGlu p = { .dtype = b->dtype,
                 .m = i == 0   ? 64
                      : i == 1 ? 512
                               : 8192,
                 .n = i ? 10240 : 512,
                 .act = OSR_ACT_GELU_TANH };

    p.x_ld = 2 * (int64_t) p.n;
    p.y_ld = p.n;
    p.x = activations(b, p.m * p.x_ld);
    p.y = activations(b, p.m * p.y_ld);
    row(b, "glu", &p, 0, "%lld x %d", (long long) p.m, p.n);
  }
}

static void
bench_layer_norm(Bench *b, bool large)
{
  static const int64_t rows[] = { 640, 8828, 76544 };

  for (int i = 0; i < (large ? 3 : 1); i++) {
    OsrLayerNorm p = {
      .dtype = b->dtype, .batch = 1, .m = rows[i], .n = i ? 3072 : 192, .eps = 1e-6f
    };

    p.x_ld = p.y_ld = p.n;
    p.x = activations(b, p.m * p.n);
    p.scale = activations(b, p.n);
    p.shift = activations(b, p.n);
    p.y = activations(b, p.m * p.n);
    row(b, "layer_norm", &p, 0, "%lld x %d, modulated", (long long) p.m, p.n);
  }
}

static void
bench_rms_norm(Bench *b, bool large)
{
  for (int i = 0; i < (large ? 3 : 1); i++) {
    OsrRmsNorm p = { .dtype = b->dtype,
                     .m = i == 0   ? 64
                          : i == 1 ? 512
                                   : 32768,
                     .n = i ? 4096 : 192,
                     .eps = 1e-6f };

    p.x_ld = p.y_ld = p.n;
    p.x = activations(b, p.m * p.n);
    p.weight = activations(b, p.n);
    p.y = activations(b, p.m * p.n);
    row(b, "rms_norm", &p, 0, "%lld x %d", (long long) p.m, p.n);
  }
}

static void
bench_qk_norm_rope(Bench *b, bool large)
{
  static const int64_t rows[] = { 640, 8828, 76544 };

  for (int i = 0; i < (large ? 3 : 1); i++) {
    OsrQkNormRope p = { .dtype = b->dtype,
                        .batch = 1,
                        .m = rows[i],
                        .heads = i ? 24 : 3,
                        .head_dim = i ? 128 : 64,
                        .eps = 1e-6f,
                        .rope = OSR_ROPE_HALF };
    int64_t n = (int64_t) p.heads * p.head_dim;

    p.ld = n;
    p.q = activations(b, p.m * n);
    p.k = activations(b, p.m * n);
    b->bytes *= 2; /* read and written */
    p.q_scale = activations(b, p.head_dim);
    p.k_scale = activations(b, p.head_dim);
    p.cos = buffer(b, OSR_DTYPE_F32, p.m * p.head_dim / 2);
    p.sin = buffer(b, OSR_DTYPE_F32, p.m * p.head_dim / 2);
    row(b, "qk_norm_rope", &p, 0, "%lld x %d x %d", (long long) p.m, p.heads, p.head_dim);
  }
}

static void
time_attention(Bench *b, int64_t lq, int64_t lk, int heads, int head_dim, int64_t frame_len)
{
  OsrAttention p = { .dtype = b->dtype,
                     .batch = 1,
                     .lq = lq,
                     .lk = lk,
                     .heads = heads,
                     .head_dim = head_dim,
                     .scale = 1.0f / sqrtf((float) head_dim),
                     .mask = frame_len ? OSR_MASK_FRAME_CAUSAL : OSR_MASK_NONE,
                     .frame_len = frame_len };
  int64_t n = (int64_t) heads * head_dim;
  double pairs = (double) lq * (double) lk;

  if (frame_len) /* the lower triangle of frames, diagonal included */
    pairs = ((double) lq + (double) frame_len) * (double) lk / 2.0;
  p.q_ld = p.k_ld = p.v_ld = p.o_ld = n;
  p.q = activations(b, lq * n);
  p.k = activations(b, lk * n);
  p.v = activations(b, lk * n);
  p.o = activations(b, lq * n);
  row(b, "attention", &p, 4.0 * pairs * (double) n, "%lld x %lld, heads %d x %d%s", (long long) lq,
      (long long) lk, heads, head_dim, frame_len ? ", frame-causal" : "");
}

static void
bench_attention(Bench *b, bool large)
{
  time_attention(b, 640, 640, 3, 64, 0);
  time_attention(b, 2304, 2304, 1, 64, 256);
  if (!large)
    return;
  time_attention(b, 8828, 8828, 24, 128, 0);
  if (b->dtype != OSR_DTYPE_F32)
    time_attention(b, 76544, 76544, 24, 128, 0);
  time_attention(b, 8828, 8828, 24, 64, 0);
  time_attention(b, 3600, 3600, 16, 72, 0);
  time_attention(b, 9 * 1008, 9 * 1008, 1, 512, 1008);
  if (b->dtype != OSR_DTYPE_F32)
    time_attention(b, 33 * 1008, 33 * 1008, 1, 512, 1008);
}

static void
bench_group_norm(Bench *b, bool large)
{
  static const struct {
    int64_t positions;
    int channels, groups;
  } sizes[] = {
    { 9 * 16 * 16, 64, 8 },    { 33 * 128 * 128, 16, 8 },  { 33 * 24 * 42, 512, 32 },
    { 33 * 48 * 84, 512, 32 }, { 65 * 96 * 168, 256, 32 }, { 129 * 192 * 336, 128, 32 }
  };

  for (int i = 0; i < (large ? 6 : 2); i++) {
    OsrGroupNorm p = { .dtype = b->dtype,
                       .batch = 1,
                       .positions = sizes[i].positions,
                       .channels = sizes[i].channels,
                       .groups = sizes[i].groups,
                       .eps = 1e-6f,
                       .act = OSR_ACT_SILU };
    int64_t n = p.positions * p.channels;

    p.x = activations(b, n);
    b->bytes *= 2; /* once for the statistics, which are of all of it */
    p.weight = activations(b, p.channels);
    p.bias = activations(b, p.channels);
    p.y = activations(b, n);
    row(b, "group_norm", &p, 0, "%lld x %d, silu", (long long) p.positions, p.channels);
  }
}

/* --- convolutions --- */

static void
time_conv3d(Bench *b, int t, int h, int w, int c_in, int c_out, int k, int stride, int up_t,
            int up_hw)
{
  OsrConv3d p = { .dtype = b->dtype,
                  .w_dtype = b->dtype,
                  .batch = 1,
                  .t = t,
                  .h = h,
                  .w_in = w,
                  .c_in = c_in,
                  .c_out = c_out,
                  .k_t = k,
                  .k_h = k,
                  .k_w = k,
                  .stride_t = stride,
                  .stride_h = stride,
                  .stride_w = stride,
                  .pad_t = { k - 1, 0 },
                  .pad_h = { k / 2, k / 2 },
                  .pad_w = { k / 2, k / 2 },
                  .pad = OSR_PAD_REPLICATE,
                  .up_t = up_t,
                  .up_hw = up_hw };
  int64_t n_out;
  int to, ho, wo, taps;

  osr_conv3d_out(&p, &to, &ho, &wo);
  n_out = (int64_t) to * ho * wo * c_out;
  p.x = activations(b, (int64_t) t * h * w * c_in);
  p.w = activations(b, (int64_t) c_out * k * k * k * c_in);
  p.bias = activations(b, c_out);
  p.y = activations(b, n_out);
  /* Taps that remain when those that read the same sample are summed. */
  taps = k == 3 && up_hw == 2 ? (up_t == 2 ? 2 : 3) * 4 : k * k * k;
  row(b, "conv3d", &p, 2.0 * (double) n_out * c_in * taps, "%d x %d x %d x %d to %d, %d^3%s%s%s", t,
      h, w, c_in, c_out, k, stride > 1 ? ", stride 2" : "", up_hw > 1 ? ", up 2" : "",
      up_hw > 1 && up_t > 1 ? ", time too" : "");
}

static void
bench_conv3d(Bench *b, bool large)
{
  time_conv3d(b, 33, 128, 128, 3, 16, 3, 1, 1, 1);
  time_conv3d(b, 33, 128, 128, 16, 16, 3, 1, 1, 1);
  time_conv3d(b, 33, 64, 64, 32, 32, 3, 1, 1, 1);
  time_conv3d(b, 17, 64, 64, 32, 32, 3, 2, 1, 1);
  time_conv3d(b, 9, 32, 32, 64, 64, 3, 1, 2, 2);
  time_conv3d(b, 9, 16, 16, 64, 64, 3, 1, 1, 1);
  time_conv3d(b, 9, 16, 16, 64, 64, 1, 1, 1, 1);
  time_conv3d(b, 33, 128, 128, 16, 3, 3, 1, 1, 1);
  if (!large)
    return;
  /* HunyuanVideo's decoder of 33 x 24 x 42 latents, from one end to the other. */
  time_conv3d(b, 33, 24, 42, 16, 512, 3, 1, 1, 1);
  time_conv3d(b, 33, 24, 42, 512, 512, 3, 1, 1, 1);
  time_conv3d(b, 33, 24, 42, 512, 512, 3, 1, 1, 2);
  time_conv3d(b, 33, 48, 84, 512, 512, 3, 1, 1, 1);
  time_conv3d(b, 33, 48, 84, 512, 512, 3, 1, 2, 2);
  time_conv3d(b, 65, 96, 168, 512, 256, 3, 1, 1, 1);
  time_conv3d(b, 65, 96, 168, 256, 256, 3, 1, 1, 1);
  time_conv3d(b, 65, 96, 168, 512, 256, 1, 1, 1, 1);
  time_conv3d(b, 65, 96, 168, 256, 256, 3, 1, 2, 2);
  time_conv3d(b, 129, 192, 336, 256, 128, 3, 1, 1, 1);
  time_conv3d(b, 129, 192, 336, 128, 128, 3, 1, 1, 1);
  time_conv3d(b, 129, 192, 336, 256, 128, 1, 1, 1, 1);
  time_conv3d(b, 129, 192, 336, 128, 3, 3, 1, 1, 1);
}

/* --- layout, sampler, frames --- */

static void
bench_patchify(Bench *b, bool large)
{
  OsrPatchify p = { .dtype = b->dtype,
                    .batch = 1,
                    .t = large ? 33 : 9,
                    .h = large ? 64 : 16,
                    .w = large ? 64 : 16,
                    .c = 16,
                    .patch = 2,
                    .ld = 64 };
  int64_t n = (int64_t) p.t * p.h * p.w * p.c;

  for (int back = 0; back < 2; back++) {
    p.x = activations(b, n);
    p.y = activations(b, n);
    row(b, back ? "unpatchify" : "patchify", &p, 0, "%d x %d x %d x %d, patch 2", p.t, p.h, p.w,
        p.c);
  }
}

static void
bench_embedding(Bench *b, bool large)
{
  OsrEmbedding p = {
    .dtype = b->dtype, .m = large ? 512 : 64, .n = large ? 4096 : 192, .vocab = large ? 32128 : 1024
  };

  /* Ids of zero; what counts is the rows read, not the table. */
  p.ids = buffer(b, OSR_DTYPE_I32, p.m);
  p.table = activations(b, (int64_t) p.vocab * p.n);
  p.y = activations(b, p.m * p.n);
  b->bytes = 2.0 * (double) p.m * p.n * (double) osr_dtype_size(b->dtype);
  row(b, "embedding", &p, 0, "%lld x %d of %d", (long long) p.m, p.n, p.vocab);
}

static void
bench_timestep(Bench *b, bool large)
{
  OsrTimestep p = { .dtype = b->dtype, .m = 3, .n = 256, .factor = 1000, .max_period = 10000 };

  (void) large;
  p.t = buffer(b, OSR_DTYPE_F32, p.m);
  p.y = activations(b, p.m * p.n);
  row(b, "timestep", &p, 0, "%lld x %d", (long long) p.m, p.n);
}

static void
bench_affine(Bench *b, bool large)
{
  for (int i = 0; i < (large ? 2 : 1); i++) {
    OsrAffine p = {
      .dtype = b->dtype, .n = i ? 76544 * 3072 : 6 * 192, .a = 1, .act = OSR_ACT_SILU
    };

    p.x = activations(b, p.n);
    p.y = activations(b, p.n);
    row(b, "affine", &p, 0, "%lld, silu", (long long) p.n);
  }
}

static double
time_copy2d(Bench *b, OsrDType to, int64_t m, int64_t n)
{
  OsrCopy2d p = { .x_dtype = b->dtype, .y_dtype = to, .m = m, .n = n, .x_ld = n, .y_ld = n };

  p.x = activations(b, m * n);
  p.y = buffer(b, to, m * n);
  return row(b, "copy2d", &p, 0, "%lld x %lld to %s", (long long) m, (long long) n,
             osr_ops_dtype_name(to));
}

static void
bench_copy2d(Bench *b, bool large)
{
  time_copy2d(b, b->dtype, 640, 192);
  time_copy2d(b, b->dtype == OSR_DTYPE_F32 ? OSR_DTYPE_BF16 : OSR_DTYPE_F32, 640, 192);
  if (large)
    time_copy2d(b, b->dtype == OSR_DTYPE_F32 ? OSR_DTYPE_BF16 : OSR_DTYPE_F32, 76544, 3072);
}

static void
bench_guidance_step(Bench *b, bool large)
{
  OsrGuidanceStep p = { .dtype = b->dtype,
                        .frames = large ? 33 : 9,
                        .tokens_per_frame = large ? 36 * 64 : 64,
                        .n = 64,
                        .dt = -1e-9f,
                        .n_preds = 3 };
  int64_t n = p.frames * p.tokens_per_frame * p.n;

  p.x = activations(b, n);
  b->bytes *= 2;
  for (int i = 0; i < 3; i++) {
    p.pred[i] = activations(b, n);
    p.weight[i] = buffer(b, OSR_DTYPE_F32, p.frames);
  }
  row(b, "guidance_step", &p, 0, "%lld x %lld x %d, 3 predictions", (long long) p.frames,
      (long long) p.tokens_per_frame, p.n);
}

static void
bench_randn(Bench *b, bool large)
{
  OsrRandn p = { .dtype = b->dtype,
                 .seed = 1,
                 .t = large ? 33 : 9,
                 .h = large ? 64 : 16,
                 .w = large ? 64 : 16,
                 .c = 16 };

  p.y = activations(b, (int64_t) p.t * p.h * p.w * p.c);
  row(b, "randn", &p, 0, "%d x %d x %d x %d", p.t, p.h, p.w, p.c);
}

static void
bench_gaussian(Bench *b, bool large)
{
  OsrGaussian p = {
    .dtype = b->dtype, .m = large ? 33 * 64 * 64 : 9 * 16 * 16, .c = 16, .scale = 1
  };

  p.moments = activations(b, p.m * 2 * p.c);
  p.noise = activations(b, p.m * p.c);
  p.y = activations(b, p.m * p.c);
  row(b, "gaussian", &p, 0, "%lld x %d", (long long) p.m, p.c);
}

static void
bench_blend(Bench *b, bool large)
{
  OsrBlend p = { .dtype = b->dtype,
                 .outer = large ? 17 : 9,
                 .a_len = large ? 256 : 32,
                 .b_len = large ? 256 : 32,
                 .inner = large ? 256 * 3 : 32 * 3,
                 .extent = large ? 64 : 8 };

  p.a = activations(b, p.outer * p.a_len * p.inner);
  p.b = activations(b, p.outer * p.b_len * p.inner);
  b->bytes =
      3.0 * (double) p.outer * p.extent * (double) p.inner * (double) osr_dtype_size(b->dtype);
  row(b, "blend", &p, 0, "%lld x %lld x %lld, %d of them", (long long) p.outer, (long long) p.b_len,
      (long long) p.inner, p.extent);
}

static void
bench_frame(Bench *b, bool large)
{
  static const char *const names[] = { "RGB", "RGBX", "I420", "NV12" };

  for (int format = OSR_PIXEL_RGB; format <= OSR_PIXEL_NV12; format++)
    for (int back = 0; back < 2; back++) {
      const char *op = back ? "frame_to_tensor" : "tensor_to_frame";
      OsrFrame p = { .dtype = b->dtype,
                     .width = large ? 1024 : 128,
                     .height = large ? 576 : 128,
                     .format = (OsrPixelFormat) format,
                     .matrix = OSR_MATRIX_BT709 };

      if (!op_wanted(b->op, op))
        continue;
      p.tensor = activations(b, (int64_t) p.width * p.height * 3);
      for (int i = 0; i < osr_frame_planes(p.format); i++) {
        p.strides[i] = (int) osr_frame_row_bytes(p.format, i, p.width);
        p.planes[i] = buffer(b, OSR_DTYPE_U8, (int64_t) p.strides[i] * osr_frame_rows(i, p.height));
      }
      row(b, op, &p, 0, "%d x %d, %s", p.width, p.height, names[format]);
    }
}

/* --- the run --- */

/* Seconds of the backend's own copy of n elements, the best of some; negative without memory. */
static double
time_plain_copy(Bench *b, int64_t n)
{
  const OsrBackend *backend = b->target->backend;
  OsrOpsContext *ctx = &b->target->ctx;
  const size_t size = (size_t) n * osr_dtype_size(b->dtype);
  void *x = activations(b, n), *y = activations(b, n);
  double best = -1.0;

  for (int run = 0; run < 2 * RUNS && !b->refused; run++) {
    double start, seconds;

    backend->synchronize(ctx);
    start = now();
    for (int i = 0; i < 4; i++)
      if (backend->copy(ctx, OSR_COPY_ON_DEVICE, y, x, size) != OSR_OK)
        b->refused = true;
    backend->synchronize(ctx);
    seconds = (now() - start) / 4;
    best = best < 0.0 || seconds < best ? seconds : best;
  }
  best = b->refused ? -1.0 : best;
  release(b);
  return best;
}

/* What shares are of: the best run of an op, or of a plain copy, at a size where nothing but
 * the machine should limit it. */
static bool
measure_ceiling(Bench *b, bool large)
{
  int64_t side = large ? 8192 : 1024, rows = large ? 1 << 18 : 1 << 14;
  double linear, copy, plain;

  b->peak_flops = b->peak_bytes = 0.0;
  linear = time_linear(b, side, (int) side, (int) side, OSR_ACT_NONE, false);
  linear = linear > 0.0 ? b->best : linear;
  copy = time_copy2d(b, b->dtype, rows, 2048);
  copy = copy > 0.0 ? b->best : copy;
  plain = time_plain_copy(b, rows * 2048);
  if (plain > 0.0 && plain < copy)
    copy = plain;
  if (linear <= 0.0 || copy <= 0.0) {
    printf("no ceiling to compare with\n");
    return false;
  }
  b->peak_flops = 2.0 * (double) side * (double) side * (double) side / linear;
  b->peak_bytes = 2.0 * (double) rows * 2048.0 * (double) osr_dtype_size(b->dtype) / copy;
  printf("ceiling %s: %.1f GFLOP/s, %.1f GB/s\n", osr_ops_dtype_name(b->dtype),
         b->peak_flops * 1e-9, b->peak_bytes * 1e-9);
  return true;
}

bool
run_bench(Target *target, const char *op, uint32_t dtypes, bool large)
{
  static const struct {
    const char *name, *also;
    void (*run)(Bench *b, bool large);
  } benches[] = {
    { "linear", "linear", bench_linear },
    { "glu", "glu", bench_glu },
    { "layer_norm", "layer_norm", bench_layer_norm },
    { "rms_norm", "rms_norm", bench_rms_norm },
    { "qk_norm_rope", "qk_norm_rope", bench_qk_norm_rope },
    { "attention", "attention", bench_attention },
    { "group_norm", "group_norm", bench_group_norm },
    { "conv3d", "conv3d", bench_conv3d },
    { "patchify", "unpatchify", bench_patchify },
    { "embedding", "embedding", bench_embedding },
    { "timestep", "timestep", bench_timestep },
    { "affine", "affine", bench_affine },
    { "copy2d", "copy2d", bench_copy2d },
    { "guidance_step", "guidance_step", bench_guidance_step },
    { "randn", "randn", bench_randn },
    { "gaussian", "gaussian", bench_gaussian },
    { "blend", "blend", bench_blend },
    { "tensor_to_frame", "frame_to_tensor", bench_frame },
  };
  Bench b = { .target = target, .op = op, .ok = true };
  Rng rng = { 1 };

  /* The checks' own scratch memory is filled with NaN, which takes time. */
  target->ctx.scratch_alloc = NULL;
  printf("backend %s, %s shapes\n", target->backend->name, large ? "tiny and large" : "tiny");
  for (int dtype = OSR_DTYPE_F32; dtype <= OSR_DTYPE_F16; dtype++) {
    if (!(target->backend->dtypes & dtypes & 1u << dtype))
      continue;
    b.dtype = (OsrDType) dtype;
    b.pattern = malloc(PATTERN * osr_dtype_size(b.dtype));
    if (!b.pattern)
      return false;
    for (size_t i = 0; i < PATTERN; i++)
      element_store(b.dtype, b.pattern, i, rng_normal(&rng));
    b.ok = measure_ceiling(&b, large) && b.ok;
    for (size_t i = 0; i < sizeof benches / sizeof *benches; i++)
      if (op_wanted(op, benches[i].name) || op_wanted(op, benches[i].also))
        benches[i].run(&b, large);
    free(b.pattern);
  }
  return b.ok;
}
