/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Large calls: buffers, samples, verdicts; linear, affine and the norms. */
#include "large.h"

#include <stdlib.h>
#include <string.h>

/* --- buffers --- */

Buffer *
large_buffer(Large *l, OsrDType dtype, int64_t n)
{
  const OsrBackend *backend = l->target->backend;
  Buffer *b = &l->buffers[l->n_buffers];
  size_t free_bytes, total;

  if (l->refused)
    return NULL;
  *b = (Buffer){ .dtype = dtype, .n = n };
  b->size = (size_t) n * osr_dtype_size(dtype) + 2 * GUARD;
  if (backend->mem_info(&l->target->ctx, &free_bytes, &total) == OSR_OK &&
      b->size + (b->size >> 3) < free_bytes)
    b->memory = backend->mem_alloc(&l->target->ctx, b->size);
  l->refused = !b->memory || backend->mem_set(&l->target->ctx, b->memory, 0xFF, b->size) != OSR_OK;
  if (!b->memory)
    return NULL;
  l->n_buffers++;
  b->data = b->memory + GUARD;
  return b;
}

const void *
large_input(Large *l, OsrDType dtype, int64_t n, double mean, double scale, Buffer **out)
{
  const OsrBackend *backend = l->target->backend;
  OsrOpsContext *ctx = &l->target->ctx;
  size_t size = osr_dtype_size(dtype), end = (size_t) n * size, at = PERIOD * size;
  const size_t shift = (size_t) rng_range(&l->rng, 0, PERIOD - 1);
  Buffer *b = large_buffer(l, dtype, n);
  char *image = malloc(at);

  *out = b;
  if (!b || !image || !(b->values = malloc(PERIOD * sizeof *b->values))) {
    free(image);
    l->refused = true;
    return NULL;
  }
  for (size_t i = 0; i < PERIOD; i++) {
    element_store(dtype, image, i, mean + scale * l->normal[(i + shift) % PERIOD]);
    b->values[i] = element_load(dtype, image, i);
  }
  backend->copy(ctx, OSR_COPY_TO_DEVICE, b->data, image, at < end ? at : end);
  free(image);
  for (; at < end; at *= 2)
    backend->copy(ctx, OSR_COPY_ON_DEVICE, (char *) b->data + at, b->data,
                  end - at < at ? end - at : at);
  return b->data;
}

void *
large_output(Large *l, int64_t n, Buffer **out)
{
  *out = large_buffer(l, l->dtype, n);
  return *out ? (*out)->data : NULL;
}

void
large_get(const Buffer *b, int64_t at, int64_t n, double *to)
{
  size_t i = (size_t) (at % PERIOD);

  for (int64_t j = 0; j < n; j++) {
    to[j] = b->values[i];
    i = i + 1 == PERIOD ? 0 : i + 1;
  }
}

void
large_get_floats(const Buffer *b, int64_t at, int64_t n, float *to)
{
  size_t i = (size_t) (at % PERIOD);

  for (int64_t j = 0; j < n; j++) {
    to[j] = (float) b->values[i];
    i = i + 1 == PERIOD ? 0 : i + 1;
  }
}

void *
large_allocate(size_t n, size_t size)
{
  void *p = calloc(n ? n : 1, size);

  if (!p) {
    fprintf(stderr, "checkops: out of memory (%zu x %zu bytes)\n", n, size);
    exit(2);
  }
  return p;
}

/* --- comparison --- */

int64_t
large_sample(Large *l, int i, int64_t rows)
{
  const int64_t picks[] = { 0, rows - 1, 1, 63, 64, 127, 128, rows - 1 - rows % 128, rows / 2 };
  int64_t row =
      i < (int) (sizeof picks / sizeof *picks) ? picks[i] : rng_range(&l->rng, 0, rows - 1);

  return row < 0 ? 0 : row >= rows ? rows - 1 : row;
}

void
large_compare(Large *l, const Buffer *y, int64_t row, int64_t at, int64_t n, const double *want,
              double limit)
{
  const size_t size = osr_dtype_size(y->dtype);
  char *got = large_allocate((size_t) n, size);
  double norm = 0.0, rms;

  if (l->target->backend->copy(&l->target->ctx, OSR_COPY_TO_HOST, got,
                               (const char *) y->data + (size_t) at * size,
                               (size_t) n * size) != OSR_OK) {
    snprintf(l->wrong, sizeof l->wrong, "%.200s", l->target->ctx.error);
    free(got);
    return;
  }
  for (int64_t i = 0; i < n; i++)
    norm += want[i] * want[i];
  rms = sqrt(norm / (double) n);
  l->norm += norm;
  for (int64_t i = 0; i < n; i++) {
    double value = element_load(y->dtype, got, (size_t) i), off = value - want[i];
    size_t length = strlen(l->wrong);

    l->error += off * off;
    if (!(fabs(off) <= 5.0 * limit * (fabs(want[i]) + rms)) && length < 200)
      snprintf(l->wrong + length, sizeof l->wrong - length, "%s[row %lld, %lld] is %.5g, not %.5g",
               length ? "; " : "", (long long) row, (long long) i, value, want[i]);
  }
  free(got);
}

static void
compare_floats(Large *l, const Buffer *y, int64_t row, int64_t at, int64_t n, const float *want,
               double limit)
{
  double *exact = large_allocate((size_t) n, sizeof *exact);

  for (int64_t i = 0; i < n; i++)
    exact[i] = want[i];
  large_compare(l, y, row, at, n, exact, limit);
  free(exact);
}

static bool
guards_whole(Large *l)
{
  unsigned char guard[2 * GUARD];

  for (int i = 0; i < l->n_buffers; i++) {
    const Buffer *b = &l->buffers[i];
    OsrOpsContext *ctx = &l->target->ctx;

    if (l->target->backend->copy(ctx, OSR_COPY_TO_HOST, guard, b->memory, GUARD) != OSR_OK ||
        l->target->backend->copy(ctx, OSR_COPY_TO_HOST, guard + GUARD, b->memory + b->size - GUARD,
                                 GUARD) != OSR_OK)
      return false;
    for (int j = 0; j < 2 * GUARD; j++)
      if (guard[j] != 0xFF)
        return false;
  }
  return true;
}

bool
large_call(Large *l, CallFn op, const void *params)
{
  l->error = l->norm = 0.0;
  l->wrong[0] = l->target->ctx.error[0] = '\0';
  l->target->scratch_peak = 0;
  if (l->refused)
    return false;
  if (op(&l->target->ops, &l->target->ctx, params) == OSR_OK && target_alive(l->target))
    return true;
  snprintf(l->wrong, sizeof l->wrong, "%.250s", l->target->ctx.error);
  return false;
}

double
large_product_limit(const Large *l)
{
  const double tf32 = product_tolerance(l->target, l->dtype);

  return tf32 > 0.0 ? tf32 : type_tolerance(l->dtype);
}

void
large_finish(Large *l, double limit, const char *fmt, ...)
{
  const double relative = l->norm > 0.0 ? sqrt(l->error / l->norm) : sqrt(l->error);
  char text[160];
  va_list args;

  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  if (l->refused) {
    printf("large %-5s %-64s does not fit into memory\n", osr_ops_dtype_name(l->dtype), text);
    l->tally->skipped++;
  } else {
    if (!l->wrong[0] && !guards_whole(l))
      snprintf(l->wrong, sizeof l->wrong, "the surroundings of a buffer were written");
    tally_add(l->tally, !l->wrong[0] && relative <= limit,
              "large %s %s: relative error %.3g, limit %.3g; %s", osr_ops_dtype_name(l->dtype),
              text, relative, limit, l->wrong);
    printf("large %-5s %-64s error %.2e\n", osr_ops_dtype_name(l->dtype), text, relative);
  }
  fflush(stdout);
  for (int i = 0; i < l->n_buffers; i++) {
    l->target->backend->mem_free(&l->target->ctx, l->buffers[i].memory, l->buffers[i].size);
    free(l->buffers[i].values);
  }
  l->n_buffers = 0;
  l->refused = false;
}

static OsrOpsContext
reference(void)
{
  OsrOpsContext ctx = { .backend = &osr_backend_ref };

  return ctx;
}

/* --- linear, affine, norms: the reference on the sampled rows --- */

static void
check_linear(Large *l, int64_t m, int n, int k, OsrAct act, bool gated)
{
  const double limit = large_product_limit(l);
  OsrLinear p = { .dtype = l->dtype,
                  .w_dtype = l->dtype,
                  .batch = 1,
                  .m = m,
                  .n = n,
                  .k = k,
                  .act = act,
                  .x_ld = k,
                  .residual_ld = n,
                  .y_ld = n };
  Buffer *x, *w, *bias, *gate = NULL, *residual = NULL, *y;

  p.x = large_input(l, l->dtype, m * k, 0, 1, &x);
  p.w = large_input(l, l->dtype, (int64_t) n * k, 0, 1 / sqrt(k), &w);
  p.bias = large_input(l, l->dtype, n, 0, 1, &bias);
  if (gated) {
    p.gate = large_input(l, l->dtype, n, 0, 1, &gate);
    p.residual = large_input(l, l->dtype, m * n, 0, 1, &residual);
  }
  p.y = large_output(l, m * n, &y);
  if (large_call(l, call_of("linear"), &p)) {
    float *rows = large_allocate((size_t) SAMPLES * (size_t) k, sizeof *rows);
    float *weights = large_allocate((size_t) n * (size_t) k, sizeof *weights);
    float *vectors = large_allocate((size_t) n * 2, sizeof *vectors);
    float *out = large_allocate((size_t) SAMPLES * (size_t) n, sizeof *out);
    OsrOpsContext ctx = reference();
    int64_t at[SAMPLES];
    OsrLinear r = p;

    large_get_floats(w, 0, (int64_t) n * k, weights);
    large_get_floats(bias, 0, n, vectors);
    for (int i = 0; i < SAMPLES; i++) {
      at[i] = large_sample(l, i, m);
      large_get_floats(x, at[i] * k, k, rows + (size_t) i * (size_t) k);
      if (gated)
        large_get_floats(residual, at[i] * n, n, out + (size_t) i * (size_t) n);
    }
    r.dtype = r.w_dtype = OSR_DTYPE_F32;
    r.m = SAMPLES;
    r.x = rows;
    r.w = weights;
    r.bias = vectors;
    if (gated) {
      large_get_floats(gate, 0, n, vectors + n);
      r.gate = vectors + n;
      r.residual = out;
    }
    r.y = out;
    osr_backend_ref.ops.linear(&ctx, &r);
    for (int i = 0; i < SAMPLES; i++)
      compare_floats(l, y, at[i], at[i] * n, n, out + (size_t) i * (size_t) n, limit);
    free(rows);
    free(weights);
    free(vectors);
    free(out);
  }
  large_finish(l, limit, "linear %lld x %d x %d, act %d%s", (long long) m, n, k, (int) act,
               gated ? ", gated residual" : "");
}

static void
all_linear(Large *l)
{
  check_linear(l, 8828, 9216, 3072, OSR_ACT_NONE, false);
  check_linear(l, 8828, 12288, 3072, OSR_ACT_GELU_TANH, false);
  check_linear(l, 8828, 3072, 12288, OSR_ACT_NONE, true);
  check_linear(l, 76544, 3072, 3072, OSR_ACT_NONE, true);
  check_linear(l, 2, 18432, 3072, OSR_ACT_NONE, false);
  if (l->dtype != OSR_DTYPE_F32)
    check_linear(l, 760000, 3072, 512, OSR_ACT_SILU, false);
}

static void
all_affine(Large *l)
{
  const int64_t n = ((int64_t) 1 << (l->dtype == OSR_DTYPE_F32 ? 27 : 31)) + 12345, width = 1000;
  OsrAffine p = { .dtype = l->dtype, .n = n, .a = 0.5f, .b = 0.25f, .act = OSR_ACT_SILU };
  Buffer *x, *y;

  p.x = large_input(l, l->dtype, n, 0, 1, &x);
  p.y = large_output(l, n, &y);
  if (large_call(l, call_of("affine"), &p))
    for (int i = 0; i < SAMPLES; i++) {
      const int64_t row = large_sample(l, i, n / width);
      const int64_t at = i == 1 ? n - width : row * width;
      OsrOpsContext ctx = reference();
      float row_x[1000], row_y[1000];
      OsrAffine r = p;

      large_get_floats(x, at, width, row_x);
      r.dtype = OSR_DTYPE_F32;
      r.n = width;
      r.x = row_x;
      r.y = row_y;
      osr_backend_ref.ops.affine(&ctx, &r);
      compare_floats(l, y, row, at, width, row_y, type_tolerance(l->dtype));
    }
  large_finish(l, type_tolerance(l->dtype), "affine %lld", (long long) n);
}

static void
check_layer_norm(Large *l, int64_t m, int n)
{
  OsrLayerNorm p = {
    .dtype = l->dtype, .batch = 1, .m = m, .n = n, .eps = 1e-6f, .x_ld = n, .y_ld = n
  };
  Buffer *x, *scale, *shift, *y;

  p.x = large_input(l, l->dtype, m * n, 1, 2, &x);
  p.scale = large_input(l, l->dtype, n, 0, 1, &scale);
  p.shift = large_input(l, l->dtype, n, 0, 1, &shift);
  p.y = large_output(l, m * n, &y);
  if (large_call(l, call_of("layer_norm"), &p)) {
    float *rows = large_allocate((size_t) n * 4, sizeof *rows);

    large_get_floats(scale, 0, n, rows + n);
    large_get_floats(shift, 0, n, rows + 2 * n);
    for (int i = 0; i < SAMPLES; i++) {
      const int64_t row = large_sample(l, i, m);
      OsrOpsContext ctx = reference();
      OsrLayerNorm r = p;

      large_get_floats(x, row * n, n, rows);
      r.dtype = OSR_DTYPE_F32;
      r.m = 1;
      r.x = rows;
      r.scale = rows + n;
      r.shift = rows + 2 * n;
      r.y = rows + 3 * n;
      osr_backend_ref.ops.layer_norm(&ctx, &r);
      compare_floats(l, y, row, row * n, n, rows + 3 * n, type_tolerance(l->dtype));
    }
    free(rows);
  }
  large_finish(l, type_tolerance(l->dtype), "layer_norm %lld x %d", (long long) m, n);
}

static void
all_layer_norm(Large *l)
{
  check_layer_norm(l, 76544, 3072);
  if (l->dtype != OSR_DTYPE_F32)
    check_layer_norm(l, 760000, 3072);
}

/* q and k are columns of QKV. */
static void
check_qk_norm_rope(Large *l, int64_t m, int heads, int head_dim, OsrRope rope)
{
  const int n = heads * head_dim, half = head_dim / 2;
  OsrQkNormRope p = { .dtype = l->dtype,
                      .batch = 1,
                      .m = m,
                      .heads = heads,
                      .head_dim = head_dim,
                      .ld = 3 * (int64_t) n,
                      .eps = 1e-6f,
                      .rope = rope };
  Buffer *qkv, *scale, *cos, *sin;

  large_input(l, l->dtype, m * p.ld, 0, 1, &qkv);
  p.q_scale = p.k_scale = large_input(l, l->dtype, head_dim, 1, 0.5, &scale);
  p.cos = large_input(l, OSR_DTYPE_F32, m * half, 0, 1, &cos);
  p.sin = large_input(l, OSR_DTYPE_F32, m * half, 0, 1, &sin);
  p.q = qkv ? qkv->data : NULL;
  p.k = qkv ? (char *) qkv->data + (size_t) n * osr_dtype_size(l->dtype) : NULL;
  if (large_call(l, call_of("qk_norm_rope"), &p)) {
    float *rows = large_allocate((size_t) (3 * n + 2 * head_dim), sizeof *rows);
    float *factors = rows + 3 * n, *angles = factors + head_dim;

    large_get_floats(scale, 0, head_dim, factors);
    for (int i = 0; i < SAMPLES; i++) {
      const int64_t row = large_sample(l, i, m);
      OsrOpsContext ctx = reference();
      OsrQkNormRope r = p;

      large_get_floats(qkv, row * p.ld, 3 * n, rows);
      large_get_floats(cos, row * half, half, angles);
      large_get_floats(sin, row * half, half, angles + half);
      r.dtype = OSR_DTYPE_F32;
      r.m = 1;
      r.q = rows;
      r.k = rows + n;
      r.q_scale = r.k_scale = factors;
      r.cos = angles;
      r.sin = angles + half;
      osr_backend_ref.ops.qk_norm_rope(&ctx, &r);
      /* v, which is none of the op's business, too. */
      compare_floats(l, qkv, row, row * p.ld, 3 * n, rows, type_tolerance(l->dtype));
    }
    free(rows);
  }
  large_finish(l, type_tolerance(l->dtype), "qk_norm_rope %lld x %d x %d, rope %d", (long long) m,
               heads, head_dim, (int) rope);
}

static void
all_qk_norm_rope(Large *l)
{
  check_qk_norm_rope(l, 8828, 24, 128, OSR_ROPE_INTERLEAVED);
  check_qk_norm_rope(l, 76544, 24, 128, OSR_ROPE_HALF);
  if (l->dtype != OSR_DTYPE_F32)
    check_qk_norm_rope(l, 250000, 24, 128, OSR_ROPE_HALF);
}

static void
all_group_norm(Large *l)
{
  const int64_t positions = 9 * 192 * 336;
  const int channels = 128;
  OsrGroupNorm p = { .dtype = l->dtype,
                     .batch = 1,
                     .positions = positions,
                     .channels = channels,
                     .groups = 32,
                     .eps = 1e-6f,
                     .act = OSR_ACT_SILU };
  Buffer *x, *weight, *bias, *y;

  p.x = large_input(l, l->dtype, positions * channels, 3, 1, &x);
  p.weight = large_input(l, l->dtype, channels, 1, 0.5, &weight);
  p.bias = large_input(l, l->dtype, channels, 0, 1, &bias);
  p.y = large_output(l, positions * channels, &y);
  if (large_call(l, call_of("group_norm"), &p)) {
    float *video = large_allocate((size_t) (positions * channels), sizeof *video);
    float *vectors = large_allocate((size_t) (2 * channels), sizeof *vectors);
    OsrOpsContext ctx = reference();
    OsrGroupNorm r = p;

    large_get_floats(x, 0, positions * channels, video);
    large_get_floats(weight, 0, channels, vectors);
    large_get_floats(bias, 0, channels, vectors + channels);
    r.dtype = OSR_DTYPE_F32;
    r.x = r.y = video;
    r.weight = vectors;
    r.bias = vectors + channels;
    osr_backend_ref.ops.group_norm(&ctx, &r);
    compare_floats(l, y, 0, 0, positions * channels, video, type_tolerance(l->dtype));
    free(video);
    free(vectors);
  }
  large_finish(l, type_tolerance(l->dtype), "group_norm %lld x %d", (long long) positions,
               channels);
}

/* --- the run --- */

void
run_large(Target *target, const char *op, OsrDType dtype, Tally *tally)
{
  static const struct {
    const char *name;
    void (*run)(Large *l);
  } all[] = {
    { "linear", all_linear },         { "attention", large_attention },
    { "conv3d", large_conv3d },       { "layer_norm", all_layer_norm },
    { "group_norm", all_group_norm }, { "qk_norm_rope", all_qk_norm_rope },
    { "affine", all_affine },
  };
  Large l = { .target = target, .tally = tally, .dtype = dtype, .rng = { 1 } };

  l.normal = large_allocate(PERIOD, sizeof *l.normal);
  for (int i = 0; i < PERIOD; i++)
    l.normal[i] = rng_normal(&l.rng);
  for (size_t i = 0; i < sizeof all / sizeof *all; i++)
    if (op_wanted(op, all[i].name))
      all[i].run(&l);
  free(l.normal);
}
