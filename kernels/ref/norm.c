/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* layer_norm, rms_norm, qk_norm_rope, group_norm */
#include "ref.h"

/* 1 / sqrt(mean(x^2) + eps) */
static double
inverse_rms(const float *x, int n, double eps)
{
  double sum = 0.0;

  for (int j = 0; j < n; j++)
    sum += (double) x[j] * x[j];
  return 1.0 / sqrt(sum / n + eps);
}

OsrResult
osr_ref_layer_norm(OsrOpsContext *ctx, const OsrLayerNorm *p)
{
  const float *weight = p->weight, *bias = p->bias;
  const int n = p->n;

  OSR_TRY(osr_check_layer_norm(ctx, p, OSR_REF_DTYPES));
  if (n == 0)
    return OSR_OK;

  for (int64_t b = 0; b < p->batch; b++) {
    const float *scale = p->scale ? (const float *) p->scale + b * p->mod_batch : NULL;
    const float *shift = p->shift ? (const float *) p->shift + b * p->mod_batch : NULL;

    for (int64_t i = 0; i < p->m; i++) {
      const float *x = (const float *) p->x + b * p->x_batch + i * p->x_ld;
      float *y = (float *) p->y + b * p->y_batch + i * p->y_ld;
      double mean = 0.0, var = 0.0, inverse;

      for (int j = 0; j < n; j++)
        mean += (double) x[j] / n;
      for (int j = 0; j < n; j++)
        var += (x[j] - mean) * (x[j] - mean) / n;
      inverse = 1.0 / sqrt(var + p->eps);

      for (int j = 0; j < n; j++) {
        double v = (x[j] - mean) * inverse;

        v = v * (weight ? weight[j] : 1.0f) + (bias ? bias[j] : 0.0f);
        v = v * (1.0 + (scale ? scale[j] : 0.0f)) + (shift ? shift[j] : 0.0f);
        y[j] = (float) v;
      }
    }
  }
  return OSR_OK;
}

OsrResult
osr_ref_rms_norm(OsrOpsContext *ctx, const OsrRmsNorm *p)
{
  const float *weight = p->weight;

  OSR_TRY(osr_check_rms_norm(ctx, p, OSR_REF_DTYPES));
  if (p->n == 0)
    return OSR_OK;

  for (int64_t i = 0; i < p->m; i++) {
    const float *x = (const float *) p->x + i * p->x_ld;
    float *y = (float *) p->y + i * p->y_ld;
    double inverse = inverse_rms(x, p->n, p->eps);

    for (int j = 0; j < p->n; j++)
      y[j] = (float) (x[j] * inverse * weight[j]);
  }
  return OSR_OK;
}

/* One head of q or k, in place: x * norm * scale, then the rotation of its pairs. */
static void
norm_rope_head(float *x, const OsrQkNormRope *p, const float *scale, const float *cos,
               const float *sin)
{
  const int half = p->head_dim / 2;
  double norm = scale ? inverse_rms(x, p->head_dim, p->eps) : 1.0;

  if (p->rope == OSR_ROPE_NONE) {
    for (int j = 0; j < p->head_dim; j++)
      x[j] = (float) (x[j] * norm * (scale ? scale[j] : 1.0f));
    return;
  }

  for (int i = 0; i < half; i++) {
    int first = p->rope == OSR_ROPE_INTERLEAVED ? 2 * i : i;
    int second = p->rope == OSR_ROPE_INTERLEAVED ? 2 * i + 1 : i + half;
    double a = x[first] * norm * (scale ? scale[first] : 1.0f);
    double b = x[second] * norm * (scale ? scale[second] : 1.0f);

    x[first] = (float) (a * cos[i] - b * sin[i]);
    x[second] = (float) (b * cos[i] + a * sin[i]);
  }
}

OsrResult
osr_ref_qk_norm_rope(OsrOpsContext *ctx, const OsrQkNormRope *p)
{
  const int64_t half = p->head_dim / 2;

  OSR_TRY(osr_check_qk_norm_rope(ctx, p, OSR_REF_DTYPES));
  if (p->heads == 0)
    return OSR_OK;

  for (int64_t b = 0; b < p->batch; b++)
    for (int64_t i = 0; i < p->m; i++) {
      const float *cos = p->rope ? p->cos + i * half : NULL;
      const float *sin = p->rope ? p->sin + i * half : NULL;

      for (int head = 0; head < p->heads; head++) {
        int64_t at = b * p->batch_stride + i * p->ld + (int64_t) head * p->head_dim;

        norm_rope_head((float *) p->q + at, p, p->q_scale, cos, sin);
        norm_rope_head((float *) p->k + at, p, p->k_scale, cos, sin);
      }
    }
  return OSR_OK;
}

OsrResult
osr_ref_group_norm(OsrOpsContext *ctx, const OsrGroupNorm *p)
{
  const float *weight = p->weight, *bias = p->bias;
  const int64_t channels = p->channels;

  OSR_TRY(osr_check_group_norm(ctx, p, OSR_REF_DTYPES));
  if (p->positions == 0 || channels == 0)
    return OSR_OK;

  for (int64_t b = 0; b < p->batch; b++)
    for (int group = 0; group < p->groups; group++) {
      const int width = p->channels / p->groups;
      const int64_t at = b * p->positions * channels + (int64_t) group * width;
      const float *x = (const float *) p->x + at;
      float *y = (float *) p->y + at;
      double count = (double) p->positions * width;
      double mean = 0.0, var = 0.0, inverse;

      for (int64_t i = 0; i < p->positions; i++)
        for (int c = 0; c < width; c++)
          mean += x[i * channels + c] / count;
      for (int64_t i = 0; i < p->positions; i++)
        for (int c = 0; c < width; c++) {
          double d = x[i * channels + c] - mean;

          var += d * d / count;
        }
      inverse = 1.0 / sqrt(var + p->eps);

      for (int64_t i = 0; i < p->positions; i++)
        for (int c = 0; c < width; c++) {
          int channel = group * width + c;
          double v = (x[i * channels + c] - mean) * inverse;

          y[i * channels + c] = (float) osr_act_f64(p->act, v * weight[channel] + bias[channel]);
        }
    }
  return OSR_OK;
}
