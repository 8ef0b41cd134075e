/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* patchify, unpatchify, timestep, affine, copy2d, guidance_step, randn, gaussian, blend */
#include "ref.h"

#include "../philox.h"

/* Copies between latent [batch * T, H, W, C] and tokens, one element at a time. */
static void
copy_patches(const OsrPatchify *p, const float *latent_in, float *latent_out,
             const float *tokens_in, float *tokens_out)
{
  const int64_t frames = p->batch * p->t;
  const int rows = p->h / p->patch, cols = p->w / p->patch;

  for (int64_t f = 0; f < frames; f++)
    for (int h = 0; h < p->h; h++)
      for (int w = 0; w < p->w; w++)
        for (int c = 0; c < p->c; c++) {
          int64_t token = (f * rows + h / p->patch) * cols + w / p->patch;
          int64_t feature = ((int64_t) c * p->patch + h % p->patch) * p->patch + w % p->patch;
          int64_t in_tokens = token * p->ld + p->column + feature;
          int64_t in_latent = ((f * p->h + h) * p->w + w) * p->c + c;

          if (tokens_out)
            tokens_out[in_tokens] = latent_in[in_latent];
          else
            latent_out[in_latent] = tokens_in[in_tokens];
        }
}

OsrResult
osr_ref_patchify(OsrOpsContext *ctx, const OsrPatchify *p)
{
  OSR_TRY(osr_check_patchify(ctx, "patchify", p, OSR_REF_DTYPES));
  copy_patches(p, p->x, NULL, NULL, p->y);
  return OSR_OK;
}

OsrResult
osr_ref_unpatchify(OsrOpsContext *ctx, const OsrPatchify *p)
{
  OSR_TRY(osr_check_patchify(ctx, "unpatchify", p, OSR_REF_DTYPES));
  copy_patches(p, NULL, p->y, p->x, NULL);
  return OSR_OK;
}

OsrResult
osr_ref_timestep(OsrOpsContext *ctx, const OsrTimestep *p)
{
  const int half = p->n / 2;

  OSR_TRY(osr_check_timestep(ctx, p, OSR_REF_DTYPES));
  if (half == 0)
    return OSR_OK;

  for (int64_t i = 0; i < p->m; i++) {
    float *y = (float *) p->y + i * p->n;
    float t = p->factor * p->t[i];

    for (int j = 0; j < half; j++) {
      float phase = t * osr_timestep_freq(p->max_period, j, half);

      y[j] = (float) cos((double) phase);
      y[half + j] = (float) sin((double) phase);
    }
  }
  return OSR_OK;
}

OsrResult
osr_ref_affine(OsrOpsContext *ctx, const OsrAffine *p)
{
  const float *x = p->x;
  float *y = p->y;

  OSR_TRY(osr_check_affine(ctx, p, OSR_REF_DTYPES));

  for (int64_t i = 0; i < p->n; i++)
    y[i] = (float) osr_act_f64(p->act, (double) p->a * x[i] + p->b);
  return OSR_OK;
}

/* A 16-bit float: sign, exponent of `16 - 1 - fraction` bits, `fraction` bits. */
static double
from_float16(uint16_t bits, int fraction)
{
  const int exponent_bits = 15 - fraction;
  const int exponent_max = (1 << exponent_bits) - 1, exponent_bias = exponent_max / 2;
  int exponent = (bits >> fraction) & exponent_max;
  int mantissa = bits & ((1 << fraction) - 1);
  double magnitude;

  if (exponent == exponent_max)
    magnitude = mantissa ? NAN : INFINITY;
  else if (exponent == 0)
    magnitude = ldexp(mantissa, 1 - exponent_bias - fraction);
  else
    magnitude = ldexp(mantissa + (1 << fraction), exponent - exponent_bias - fraction);
  return bits & 0x8000 ? -magnitude : magnitude;
}

/* The nearest such number, ties to even, rounded once from the double. */
static uint16_t
to_float16(double x, int fraction)
{
  const int exponent_bits = 15 - fraction;
  const int exponent_max = (1 << exponent_bits) - 1, exponent_bias = exponent_max / 2;
  const uint16_t sign = signbit(x) ? 0x8000 : 0;
  int exponent, steps;

  if (isnan(x))
    return (uint16_t) (sign | exponent_max << fraction | 1 << (fraction - 1));
  if (x == 0.0 || isinf(x))
    return (uint16_t) (sign | (x == 0.0 ? 0 : exponent_max << fraction));

  /* Numbers of one binade, and all subnormal ones, are multiples of one step. */
  exponent = ilogb(x);
  if (exponent < 1 - exponent_bias)
    exponent = 1 - exponent_bias;
  if (exponent > exponent_bias)
    return (uint16_t) (sign | exponent_max << fraction);
  steps = (int) rint(ldexp(fabs(x), fraction - exponent));

  /* The implied leading bit of a normal number, and a carry out of the fraction (which may
   * end at infinity), both go into the exponent by plain addition. */
  return (uint16_t) (sign | (((exponent + exponent_bias - 1) << fraction) + steps));
}

static double
load(const void *data, OsrDType dtype, int64_t i)
{
  switch (dtype) {
  case OSR_DTYPE_BF16:
    return from_float16(((const uint16_t *) data)[i], 7);
  case OSR_DTYPE_F16:
    return from_float16(((const uint16_t *) data)[i], 10);
  case OSR_DTYPE_F64:
    return ((const double *) data)[i];
  default:
    return ((const float *) data)[i];
  }
}

static void
store(void *data, OsrDType dtype, int64_t i, double value)
{
  switch (dtype) {
  case OSR_DTYPE_BF16:
    ((uint16_t *) data)[i] = to_float16(value, 7);
    break;
  case OSR_DTYPE_F16:
    ((uint16_t *) data)[i] = to_float16(value, 10);
    break;
  case OSR_DTYPE_F64:
    ((double *) data)[i] = value;
    break;
  default:
    ((float *) data)[i] = (float) value;
    break;
  }
}

OsrResult
osr_ref_copy2d(OsrOpsContext *ctx, const OsrCopy2d *p)
{
  const size_t size = osr_dtype_size(p->x_dtype);

  OSR_TRY(osr_check_copy2d(ctx, p));

  for (int64_t i = 0; i < p->m; i++) {
    if (p->x_dtype == p->y_dtype && p->n > 0)
      memcpy((char *) p->y + (size_t) (i * p->y_ld) * size,
             (const char *) p->x + (size_t) (i * p->x_ld) * size, (size_t) p->n * size);
    else
      for (int64_t j = 0; j < p->n; j++)
        store(p->y, p->y_dtype, i * p->y_ld + j, load(p->x, p->x_dtype, i * p->x_ld + j));
  }
  return OSR_OK;
}

OsrResult
osr_ref_guidance_step(OsrOpsContext *ctx, const OsrGuidanceStep *p)
{
  const int64_t frame_size = p->tokens_per_frame * p->n;
  float *x = p->x;

  OSR_TRY(osr_check_guidance_step(ctx, p, OSR_REF_DTYPES));

  for (int64_t frame = 0; frame < p->frames; frame++)
    for (int64_t i = frame * frame_size; i < (frame + 1) * frame_size; i++) {
      float sum = 0.0f;

      for (int pred = 0; pred < p->n_preds; pred++)
        sum += p->weight[pred][frame] * ((const float *) p->pred[pred])[i];
      x[i] += p->dt * sum;
    }
  return OSR_OK;
}

OsrResult
osr_ref_randn(OsrOpsContext *ctx, const OsrRandn *p)
{
  const OsrDraws draws = osr_draws(p, OSR_RANDN_H100);
  float *y = p->y;

  OSR_TRY(osr_check_randn(ctx, p, OSR_REF_DTYPES));

  for (int t = 0; t < p->t; t++)
    for (int h = 0; h < p->h; h++)
      for (int w = 0; w < p->w; w++)
        for (int c = 0; c < p->c; c++) {
          uint64_t draw = (((uint64_t) c * p->t + t) * p->h + h) * p->w + w;

          *y++ = osr_draw(&draws, draw);
        }
  return OSR_OK;
}

OsrResult
osr_ref_gaussian(OsrOpsContext *ctx, const OsrGaussian *p)
{
  const float *noise = p->noise;
  const int64_t c = p->c;

  OSR_TRY(osr_check_gaussian(ctx, p, OSR_REF_DTYPES));
  if (c == 0)
    return OSR_OK;

  for (int64_t i = 0; i < p->m; i++) {
    const float *mean = (const float *) p->moments + i * 2 * c;
    const float *logvar = mean + c;
    float *y = (float *) p->y + i * c;

    for (int64_t j = 0; j < c; j++) {
      double v = mean[j];

      if (noise)
        v += exp(0.5 * fmin(fmax(logvar[j], -30.0), 20.0)) * noise[i * c + j];
      y[j] = (float) (p->scale * (v - p->shift));
    }
  }
  return OSR_OK;
}

OsrResult
osr_ref_blend(OsrOpsContext *ctx, const OsrBlend *p)
{
  int64_t extent = p->extent;

  OSR_TRY(osr_check_blend(ctx, p, OSR_REF_DTYPES));
  if (p->inner == 0)
    return OSR_OK;
  if (extent > p->a_len)
    extent = p->a_len;
  if (extent > p->b_len)
    extent = p->b_len;

  for (int64_t o = 0; o < p->outer; o++)
    for (int64_t i = 0; i < extent; i++) {
      const float *a = (const float *) p->a + (o * p->a_len + p->a_len - extent + i) * p->inner;
      float *b = (float *) p->b + (o * p->b_len + i) * p->inner;
      double f = (double) i / (double) extent;

      for (int64_t j = 0; j < p->inner; j++)
        b[j] = (float) (a[j] * (1.0 - f) + b[j] * f);
    }
  return OSR_OK;
}
