/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* patchify, unpatchify, timestep, affine, copy2d, guidance_step, randn, gaussian, blend */
#include "cpu.h"

#include "../philox.h"

#include <string.h>

/* One row of tokens: `patch` rows of the latent, [W, C] each, and (W / patch) tokens. */
static void
copy_token_row(const OsrPatchify *p, float *latent, float *tokens, bool to_tokens)
{
  const int patch = p->patch, c_n = p->c;

  for (int h = 0; h < patch; h++)
    for (int w = 0; w < p->w; w++) {
      float *pixel = latent + ((int64_t) h * p->w + w) * c_n;
      float *feature = tokens + w / patch * p->ld + p->column + (int64_t) h * patch + w % patch;

      if (to_tokens)
        for (int c = 0; c < c_n; c++)
          feature[(int64_t) c * patch * patch] = pixel[c];
      else
        for (int c = 0; c < c_n; c++)
          pixel[c] = feature[(int64_t) c * patch * patch];
    }
}

typedef struct Patches {
  const OsrPatchify *p;
  float *latent, *tokens;
  bool to_tokens;
} Patches;

static void
patches_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Patches *d = data;
  const OsrPatchify *p = d->p;
  const int64_t latent_row = (int64_t) p->patch * p->w * p->c;
  const int64_t token_row = p->w / p->patch * p->ld;

  (void) thread;
  for (int64_t i = begin; i < end; i++)
    copy_token_row(p, d->latent + i * latent_row, d->tokens + i * token_row, d->to_tokens);
}

static void
copy_patches(OsrOpsContext *ctx, const OsrPatchify *p, const Patches *d)
{
  if (p->w > 0 && p->c > 0)
    osr_cpu_run_rows(ctx, 4.0 * p->patch * p->w * p->c, p->batch * p->t * (p->h / p->patch),
                     patches_task, d);
}

OsrResult
osr_cpu_patchify(OsrOpsContext *ctx, const OsrPatchify *p)
{
  OSR_TRY(osr_check_patchify(ctx, "patchify", p, OSR_CPU_DTYPES));
  copy_patches(ctx, p, &(Patches){ p, (float *) p->x, p->y, true });
  return OSR_OK;
}

OsrResult
osr_cpu_unpatchify(OsrOpsContext *ctx, const OsrPatchify *p)
{
  OSR_TRY(osr_check_patchify(ctx, "unpatchify", p, OSR_CPU_DTYPES));
  copy_patches(ctx, p, &(Patches){ p, p->y, (float *) p->x, false });
  return OSR_OK;
}

OsrResult
osr_cpu_timestep(OsrOpsContext *ctx, const OsrTimestep *p)
{
  const int half = p->n / 2;

  OSR_TRY(osr_check_timestep(ctx, p, OSR_CPU_DTYPES));
  if (p->n == 0)
    return OSR_OK;
  for (int64_t i = 0; i < p->m; i++) {
    float *y = (float *) p->y + i * p->n;
    const float t = p->factor * p->t[i];

    for (int j = 0; j < half; j++) {
      const float phase = t * osr_timestep_freq(p->max_period, j, half);

      y[j] = (float) cos((double) phase);
      y[half + j] = (float) sin((double) phase);
    }
  }
  return OSR_OK;
}

/* Elements of a task of the flat ops below. */
#define FLAT ((int64_t) 16384)

typedef struct Affine {
  const OsrAffine *p;
  const OsrLoops *loops;
} Affine;

static void
affine_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Affine *d = data;
  const OsrAffine *p = d->p;

  (void) thread;
  d->loops->affine(p->act, p->a, p->b, (const float *) p->x + begin * FLAT,
                   (float *) p->y + begin * FLAT, osr_min64(end * FLAT, p->n) - begin * FLAT);
}

OsrResult
osr_cpu_affine(OsrOpsContext *ctx, const OsrAffine *p)
{
  const Affine d = { p, osr_cpu_loops(ctx) };

  OSR_TRY(osr_check_affine(ctx, p, OSR_CPU_DTYPES));
  osr_cpu_run_rows(ctx, 16.0 * FLAT, osr_ceil_div(p->n, FLAT), affine_task, &d);
  return OSR_OK;
}

static uint32_t
float_bits(float f)
{
  uint32_t bits;

  memcpy(&bits, &f, sizeof bits);
  return bits;
}

static float
bits_float(uint32_t bits)
{
  float f;

  memcpy(&f, &bits, sizeof f);
  return f;
}

static float
from_f16(uint16_t h)
{
  /* Exponent and fraction in the place of an f32's, then its bias: right for subnormal
   * numbers too. Infinity and NaN come out at 2^16 and above. */
  float f = bits_float((uint32_t) (h & 0x7FFF) << 13) * 0x1p112f;

  if (f >= 0x1p16f)
    f = bits_float(float_bits(f) | 0x7F800000u);
  return bits_float(float_bits(f) | (uint32_t) (h & 0x8000) << 16);
}

static uint16_t
to_f16(float f)
{
  const uint32_t bits = float_bits(f), magnitude = bits & 0x7FFFFFFFu;
  const uint32_t sign = bits >> 16 & 0x8000u;
  uint32_t h;

  if (magnitude > 0x7F800000u)
    h = 0x7E00u;
  else if (magnitude >= 0x47800000u) /* 2^16 */
    h = 0x7C00u;
  else if (magnitude < 0x38800000u) /* 2^-14: adding 1/2 rounds to a multiple of 2^-24 */
    h = float_bits(bits_float(magnitude) + 0.5f) - 0x3F000000u;
  else /* ties to even; a carry goes into the exponent */
    h = (magnitude - 0x38000000u + 0xFFFu + (magnitude >> 13 & 1)) >> 13;
  return (uint16_t) (sign | h);
}

static uint16_t
to_bf16(float f)
{
  const uint32_t bits = float_bits(f);

  if ((bits & 0x7FFFFFFFu) > 0x7F800000u)
    return (uint16_t) ((bits >> 16 & 0x8000u) | 0x7FC0u);
  return (uint16_t) ((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}

/* Rounds to odd, so that rounding the result once more equals rounding the double. */
static float
to_odd(double d)
{
  const float f = (float) d;
  uint32_t bits = float_bits(f);

  if ((double) f == d || d != d)
    return f;
  if (fabs((double) f) > fabs(d))
    bits--;
  return bits_float(bits | 1);
}

/* n elements from position `at`, in f32; `odd`: what is wider will be rounded again. */
static void
load_f32(const void *x, OsrDType dtype, int64_t at, int64_t n, bool odd, float *y)
{
  const uint16_t *x16 = (const uint16_t *) x + at;
  const double *x64 = (const double *) x + at;

  if (dtype == OSR_DTYPE_BF16)
    for (int64_t i = 0; i < n; i++)
      y[i] = bits_float((uint32_t) x16[i] << 16);
  else if (dtype == OSR_DTYPE_F16)
    for (int64_t i = 0; i < n; i++)
      y[i] = from_f16(x16[i]);
  else if (dtype == OSR_DTYPE_F64 && odd)
    for (int64_t i = 0; i < n; i++)
      y[i] = to_odd(x64[i]);
  else if (dtype == OSR_DTYPE_F64)
    for (int64_t i = 0; i < n; i++)
      y[i] = (float) x64[i];
  else
    memcpy(y, (const float *) x + at, (size_t) n * sizeof *y);
}

static void
store_f32(const float *x, int64_t n, void *y, OsrDType dtype, int64_t at)
{
  uint16_t *y16 = (uint16_t *) y + at;
  double *y64 = (double *) y + at;

  if (dtype == OSR_DTYPE_BF16)
    for (int64_t i = 0; i < n; i++)
      y16[i] = to_bf16(x[i]);
  else if (dtype == OSR_DTYPE_F16)
    for (int64_t i = 0; i < n; i++)
      y16[i] = to_f16(x[i]);
  else if (dtype == OSR_DTYPE_F64)
    for (int64_t i = 0; i < n; i++)
      y64[i] = x[i];
  else
    memcpy((float *) y + at, x, (size_t) n * sizeof *x);
}

typedef struct Copy {
  const OsrCopy2d *p;
  int64_t n, parts; /* of a row */
} Copy;

/* n elements at x_at and y_at, the pointers being those of the whole matrices. */
static void
copy_elements(const OsrCopy2d *p, int64_t x_at, int64_t y_at, int64_t n)
{
  const bool narrow = p->y_dtype == OSR_DTYPE_BF16 || p->y_dtype == OSR_DTYPE_F16;
  const int64_t size = (int64_t) osr_dtype_size(p->x_dtype);
  float part[512];

  if (p->x_dtype == p->y_dtype) {
    memcpy((char *) p->y + y_at * size, (const char *) p->x + x_at * size, (size_t) (n * size));
    return;
  }
  for (int64_t i = 0; i < n; i += 512) {
    const int64_t count = osr_min64(512, n - i);

    load_f32(p->x, p->x_dtype, x_at + i, count, narrow, part);
    store_f32(part, count, p->y, p->y_dtype, y_at + i);
  }
}

static void
copy_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Copy *d = data;
  const OsrCopy2d *p = d->p;

  (void) thread;
  for (int64_t task = begin; task < end; task++) {
    const int64_t i = task / d->parts, j = task % d->parts * FLAT;

    copy_elements(p, i * p->x_ld + j, i * p->y_ld + j, osr_min64(FLAT, d->n - j));
  }
}

OsrResult
osr_cpu_copy2d(OsrOpsContext *ctx, const OsrCopy2d *p)
{
  Copy d = { .p = p, .n = p->n };
  int64_t rows = p->m;

  OSR_TRY(osr_check_copy2d(ctx, p));
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  if (p->x_ld == p->n && p->y_ld == p->n) { /* one long row */
    d.n *= rows;
    rows = 1;
  }
  d.parts = osr_ceil_div(d.n, FLAT);
  osr_cpu_run_rows(ctx, 2.0 * (double) osr_min64(d.n, FLAT), rows * d.parts, copy_task, &d);
  return OSR_OK;
}

/* Products and sums in the order of the definition: the result is the same to the bit. */
static void
guide_frame(const OsrGuidanceStep *p, int64_t frame)
{
  const int64_t size = p->tokens_per_frame * p->n, at = frame * size;
  float *x = (float *) p->x + at;
  const float *pred[3] = { NULL };
  float weight[3] = { 0 };

  for (int i = 0; i < p->n_preds; i++) {
    pred[i] = (const float *) p->pred[i] + at;
    weight[i] = p->weight[i][frame];
  }
  for (int64_t i = 0; i < size; i++) {
    float sum = 0.0f + weight[0] * pred[0][i];

    if (p->n_preds > 1)
      sum += weight[1] * pred[1][i];
    if (p->n_preds > 2)
      sum += weight[2] * pred[2][i];
    x[i] += p->dt * sum;
  }
}

static void
guidance_task(const void *data, int64_t begin, int64_t end, int thread)
{
  (void) thread;
  for (int64_t frame = begin; frame < end; frame++)
    guide_frame(data, frame);
}

OsrResult
osr_cpu_guidance_step(OsrOpsContext *ctx, const OsrGuidanceStep *p)
{
  OSR_TRY(osr_check_guidance_step(ctx, p, OSR_CPU_DTYPES));
  if (p->tokens_per_frame > 0 && p->n > 0)
    osr_cpu_run_rows(ctx, 4.0 * (double) p->tokens_per_frame * p->n, p->frames, guidance_task, p);
  return OSR_OK;
}

/* Rows of one height and time, all channels. */
static void
randn_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const OsrRandn *p = data;
  const uint64_t rows = (uint64_t) p->t * (uint64_t) p->h;
  const OsrDraws draws = osr_draws(p, OSR_RANDN_H100);

  (void) thread;
  for (int64_t row = begin; row < end; row++) {
    float *y = (float *) p->y + row * p->w * p->c;

    for (int c = 0; c < p->c; c++) {
      const uint64_t draw = ((uint64_t) c * rows + (uint64_t) row) * (uint64_t) p->w;

      for (int w = 0; w < p->w; w++)
        y[(int64_t) w * p->c + c] = osr_draw(&draws, draw + (uint64_t) w);
    }
  }
}

OsrResult
osr_cpu_randn(OsrOpsContext *ctx, const OsrRandn *p)
{
  OSR_TRY(osr_check_randn(ctx, p, OSR_CPU_DTYPES));
  if (p->w > 0 && p->c > 0)
    osr_cpu_run_rows(ctx, 100.0 * p->w * p->c, (int64_t) p->t * p->h, randn_task, p);
  return OSR_OK;
}

static void
gaussian_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const OsrGaussian *p = data;
  const int64_t c = p->c;

  (void) thread;
  for (int64_t i = begin; i < end; i++) {
    const float *mean = (const float *) p->moments + i * 2 * c, *logvar = mean + c;
    const float *noise = p->noise ? (const float *) p->noise + i * c : NULL;
    float *y = (float *) p->y + i * c;

    for (int64_t j = 0; j < c; j++) {
      float v = mean[j];

      if (noise)
        v += expf(0.5f * fminf(fmaxf(logvar[j], -30.0f), 20.0f)) * noise[j];
      y[j] = p->scale * (v - p->shift);
    }
  }
}

OsrResult
osr_cpu_gaussian(OsrOpsContext *ctx, const OsrGaussian *p)
{
  OSR_TRY(osr_check_gaussian(ctx, p, OSR_CPU_DTYPES));
  if (p->c > 0)
    osr_cpu_run_rows(ctx, 20.0 * p->c, p->m, gaussian_task, p);
  return OSR_OK;
}

static int64_t
blend_extent(const OsrBlend *p)
{
  return osr_min64(p->extent, osr_min64(p->a_len, p->b_len));
}

/* Rows of the overlap, `outer` times `extent` of them. */
static void
blend_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const OsrBlend *p = data;
  const int64_t extent = blend_extent(p);

  (void) thread;
  for (int64_t row = begin; row < end; row++) {
    const int64_t o = row / extent, i = row % extent;
    const float *a = (const float *) p->a + (o * p->a_len + p->a_len - extent + i) * p->inner;
    float *b = (float *) p->b + (o * p->b_len + i) * p->inner;
    const float f = (float) i / (float) extent;

    for (int64_t j = 0; j < p->inner; j++)
      b[j] = a[j] * (1.0f - f) + b[j] * f;
  }
}

OsrResult
osr_cpu_blend(OsrOpsContext *ctx, const OsrBlend *p)
{
  OSR_TRY(osr_check_blend(ctx, p, OSR_CPU_DTYPES));
  if (p->inner > 0)
    osr_cpu_run_rows(ctx, 4.0 * (double) p->inner, p->outer * blend_extent(p), blend_task, p);
  return OSR_OK;
}
