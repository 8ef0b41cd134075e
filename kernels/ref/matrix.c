/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* linear, glu, embedding */
#include "ref.h"

/* a times row `row` of the weights. */
static double
dot(const OsrLinear *p, const float *a, int64_t row)
{
  const float *w = (const float *) p->w + row * p->k;
  const uint8_t *w8 = (const uint8_t *) p->w + row * p->k;
  double sum = 0.0;

  if (p->w_dtype == OSR_DTYPE_F8_E4M3)
    for (int i = 0; i < p->k; i++)
      sum += (double) a[i] * osr_f8_to_f32(w8[i]);
  else
    for (int i = 0; i < p->k; i++)
      sum += (double) a[i] * w[i];
  return sum;
}

OsrResult
osr_ref_linear(OsrOpsContext *ctx, const OsrLinear *p)
{
  const float *bias = p->bias;

  OSR_TRY(osr_check_linear(ctx, p, OSR_REF_DTYPES));
  if (p->w_dtype != OSR_DTYPE_F32 && p->w_dtype != OSR_DTYPE_F8_E4M3)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "linear: ref has no %s weights",
                    osr_ops_dtype_name(p->w_dtype));
  if (p->n == 0)
    return OSR_OK;

  for (int64_t b = 0; b < p->batch; b++) {
    const float *gate = p->gate ? (const float *) p->gate + b * p->gate_batch : NULL;

    for (int64_t i = 0; i < p->m; i++) {
      const float *x = (const float *) p->x + b * p->x_batch + i * p->x_ld;
      const float *residual =
          p->residual ? (const float *) p->residual + b * p->residual_batch + i * p->residual_ld
                      : NULL;
      float *y = (float *) p->y + b * p->y_batch + i * p->y_ld;

      for (int j = 0; j < p->n; j++) {
        double v = dot(p, x, j);

        v = v * (p->w_scale ? p->w_scale[j] : 1.0f) + (bias ? bias[j] : 0.0f);
        v = (gate ? gate[j] : 1.0f) * osr_act_f64(p->act, v);
        y[j] = (float) ((residual ? residual[j] : 0.0f) + v);
      }
    }
  }
  return OSR_OK;
}

OsrResult
osr_ref_glu(OsrOpsContext *ctx, const OsrGlu *p)
{
  OSR_TRY(osr_check_glu(ctx, p, OSR_REF_DTYPES));
  if (p->n == 0)
    return OSR_OK;

  for (int64_t i = 0; i < p->m; i++) {
    const float *x = (const float *) p->x + i * p->x_ld;
    float *y = (float *) p->y + i * p->y_ld;

    for (int j = 0; j < p->n; j++)
      y[j] = (float) (osr_act_f64(p->act, x[j]) * x[p->n + j]);
  }
  return OSR_OK;
}

OsrResult
osr_ref_embedding(OsrOpsContext *ctx, const OsrEmbedding *p)
{
  const int64_t n = p->n;

  OSR_TRY(osr_check_embedding(ctx, p, OSR_REF_DTYPES));
  if (n == 0)
    return OSR_OK;

  for (int64_t i = 0; i < p->m; i++)
    if (p->ids[i] < 0 || p->ids[i] >= p->vocab)
      return osr_fail(ctx, OSR_ERR_INVALID, "embedding: id %d at %lld, vocabulary of %d",
                      (int) p->ids[i], (long long) i, p->vocab);

  for (int64_t i = 0; i < p->m; i++) {
    const float *row = (const float *) p->table + p->ids[i] * n;
    const float *position =
        p->positions ? (const float *) p->positions + i % p->n_positions * n : NULL;
    float *y = (float *) p->y + i * n;

    for (int64_t j = 0; j < n; j++)
      y[j] = (float) (row[j] + (position ? (double) position[j] : 0.0));
  }
  return OSR_OK;
}
