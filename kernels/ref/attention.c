/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* attention */
#include "ref.h"

/* One query of one head: o = softmax(scores) v over the first `visible` keys. `p_row` holds
 * one double a key; `bias` points to the entry of key 0, or is NULL. */
static void
attend(const OsrAttention *p, const float *q, const float *k, const float *v, const float *bias,
       int64_t visible, double *p_row, float *o)
{
  double max = -INFINITY, sum = 0.0;

  for (int64_t j = 0; j < visible; j++) {
    double score = 0.0;

    for (int d = 0; d < p->head_dim; d++)
      score += (double) q[d] * k[j * p->k_ld + d];
    p_row[j] = score * p->scale + (bias ? bias[j] : 0.0f);
    max = fmax(max, p_row[j]);
  }
  for (int64_t j = 0; j < visible; j++) {
    p_row[j] = exp(p_row[j] - max);
    sum += p_row[j];
  }

  for (int d = 0; d < p->head_dim; d++) {
    double out = 0.0;

    for (int64_t j = 0; j < visible; j++)
      out += p_row[j] * v[j * p->v_ld + d];
    o[d] = visible > 0 ? (float) (out / sum) : 0.0f;
  }
}

OsrResult
osr_ref_attention(OsrOpsContext *ctx, const OsrAttention *p)
{
  size_t size = (size_t) (p->lk > 0 ? p->lk : 0) * sizeof(double);
  double *p_row;

  OSR_TRY(osr_check_attention(ctx, p, OSR_REF_DTYPES));
  if (p->batch == 0 || p->lq == 0 || p->heads == 0)
    return OSR_OK;
  p_row = osr_scratch_alloc(ctx, size);
  if (!p_row)
    return osr_fail(ctx, OSR_ERR_MEMORY, "attention: no scratch memory for %lld keys",
                    (long long) p->lk);

  for (int64_t b = 0; b < p->batch; b++)
    for (int64_t i = 0; i < p->lq; i++) {
      int64_t visible = osr_attention_visible(p, i, p->kv_len ? p->kv_len[b] : p->lk);

      for (int64_t head = 0; head < p->heads; head++) {
        int64_t at = head * p->head_dim;
        const float *bias = NULL;

        if (p->rel_bias)
          bias = p->rel_bias + head * (p->lq + p->lk - 1) + (p->lq - 1 - i);
        attend(p, (const float *) p->q + b * p->q_batch + i * p->q_ld + at,
               (const float *) p->k + b * p->k_batch + at,
               (const float *) p->v + b * p->v_batch + at, bias, visible, p_row,
               (float *) p->o + b * p->o_batch + i * p->o_ld + at);
      }
    }
  osr_scratch_free(ctx, p_row, size);
  return OSR_OK;
}
