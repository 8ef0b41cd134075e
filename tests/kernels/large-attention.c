/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Large calls of attention, against double at some queries and heads. */
#include "large.h"

#include <stdlib.h>

/* o of one query and head in double; `scores` has room for all keys. */
static void
attend(const OsrAttention *p, const Buffer *bufs[4], int64_t row, int64_t b, int head,
       int64_t kv_len, double *scores, double *o)
{
  const int64_t seen = osr_attention_visible(p, row, kv_len);
  const int64_t at = (int64_t) head * p->head_dim;
  double *q = o + p->head_dim, *line = q + p->head_dim, max = -INFINITY, sum = 0.0;
  /* Where in their buffers q, k and v begin: they may be columns of one. */
  const int64_t first[3] = {
    ((const char *) p->q - (const char *) bufs[0]->data) / (int64_t) osr_dtype_size(p->dtype),
    ((const char *) p->k - (const char *) bufs[1]->data) / (int64_t) osr_dtype_size(p->dtype),
    ((const char *) p->v - (const char *) bufs[2]->data) / (int64_t) osr_dtype_size(p->dtype)
  };

  large_get(bufs[0], first[0] + b * p->q_batch + row * p->q_ld + at, p->head_dim, q);
  for (int64_t key = 0; key < seen; key++) {
    double s = 0.0;

    large_get(bufs[1], first[1] + b * p->k_batch + key * p->k_ld + at, p->head_dim, line);
    for (int d = 0; d < p->head_dim; d++)
      s += q[d] * line[d];
    scores[key] = s * p->scale;
    if (bufs[3])
      scores[key] += bufs[3]->values[(head * (p->lq + p->lk - 1) + key - row + p->lq - 1) % PERIOD];
    max = fmax(max, scores[key]);
  }
  for (int d = 0; d < p->head_dim; d++)
    o[d] = 0.0;
  for (int64_t key = 0; key < seen; key++) {
    const double weight = exp(scores[key] - max);

    sum += weight;
    large_get(bufs[2], first[2] + b * p->v_batch + key * p->v_ld + at, p->head_dim, line);
    for (int d = 0; d < p->head_dim; d++)
      o[d] += weight * line[d];
  }
  for (int d = 0; d < p->head_dim && seen > 0; d++)
    o[d] /= sum;
}

typedef struct AttentionSize {
  int64_t batch, lq, lk;
  int heads, head_dim;
  int64_t frame_len;
  bool bias, padded;
} AttentionSize;

/* Keys of item b that are no padding. What lies behind them is NaN. */
static int64_t
keys_of(const AttentionSize *size, int64_t b)
{
  return size->padded ? size->lk * (size->batch - 1 - b) / (size->batch - 1) : size->lk;
}

static const int32_t *
pad_keys(Large *l, const OsrAttention *p, const AttentionSize *size)
{
  const OsrBackend *backend = l->target->backend;
  const size_t row = (size_t) p->k_ld * osr_dtype_size(p->dtype);
  Buffer *lengths = large_buffer(l, OSR_DTYPE_I32, p->batch);

  if (!lengths)
    return NULL;
  for (int64_t b = 0; b < p->batch; b++) {
    const int64_t n = keys_of(size, b);
    const int32_t n32 = (int32_t) n;
    const size_t at = (size_t) (b * p->k_batch) * osr_dtype_size(p->dtype) + (size_t) n * row;
    const size_t bytes = (size_t) (p->lk - n) * row;

    backend->copy(&l->target->ctx, OSR_COPY_TO_DEVICE, (int32_t *) lengths->data + b, &n32, 4);
    backend->mem_set(&l->target->ctx, (char *) (uintptr_t) p->k + at, 0xFF, bytes);
    backend->mem_set(&l->target->ctx, (char *) (uintptr_t) p->v + at, 0xFF, bytes);
  }
  return lengths->data;
}

static void
check_attention(Large *l, AttentionSize size)
{
  const int64_t n = (int64_t) size.heads * size.head_dim;
  const bool one = size.lq == size.lk && !size.padded; /* QKV in one buffer */
  const double limit = type_tolerance(l->dtype);
  const size_t element = osr_dtype_size(l->dtype);
  Buffer *q, *k, *v, *bias = NULL, *o;
  OsrAttention p = { .dtype = l->dtype,
                     .batch = size.batch,
                     .lq = size.lq,
                     .lk = size.lk,
                     .heads = size.heads,
                     .head_dim = size.head_dim,
                     .scale = size.bias ? 0.5f : 1.0f / sqrtf((float) size.head_dim),
                     .mask = size.frame_len ? OSR_MASK_FRAME_CAUSAL : OSR_MASK_NONE,
                     .frame_len = size.frame_len };

  p.q_ld = p.k_ld = p.v_ld = one ? 3 * n : n;
  p.o_ld = n;
  p.q_batch = p.lq * p.q_ld;
  p.k_batch = p.v_batch = p.lk * p.k_ld;
  p.o_batch = p.lq * n;
  p.q = large_input(l, l->dtype, p.batch * p.q_batch, 0, 1, &q);
  if (one) {
    k = v = q;
    p.k = (const char *) p.q + (size_t) n * element;
    p.v = (const char *) p.q + (size_t) (2 * n) * element;
  } else {
    p.k = large_input(l, l->dtype, p.batch * p.k_batch, 0, 1, &k);
    p.v = large_input(l, l->dtype, p.batch * p.v_batch, 0, 1, &v);
  }
  if (size.bias)
    p.rel_bias = large_input(l, OSR_DTYPE_F32, p.heads * (p.lq + p.lk - 1), 0, 2, &bias);
  if (size.padded && !l->refused)
    p.kv_len = pad_keys(l, &p, &size);
  p.o = large_output(l, p.batch * p.o_batch, &o);
  if (large_call(l, call_of("attention"), &p)) {
    const Buffer *bufs[4] = { q, k, v, bias };
    double *scores = large_allocate((size_t) p.lk, sizeof *scores);
    double *lines = large_allocate((size_t) (3 * p.head_dim), sizeof *lines);

    for (int i = 0; i < 2 * SAMPLES; i++) {
      const int64_t row = large_sample(l, i % SAMPLES, p.lq), b = i % p.batch;
      const int head = i < 2 ? i * (p.heads - 1) : (int) rng_range(&l->rng, 0, p.heads - 1);

      attend(&p, bufs, row, b, head, keys_of(&size, b), scores, lines);
      large_compare(l, o, row, b * p.o_batch + row * p.o_ld + (int64_t) head * p.head_dim,
                    p.head_dim, lines, limit);
    }
    free(scores);
    free(lines);
    /* Nothing of the size of lq x lk: no more than what the arguments take. */
    if (!l->wrong[0] &&
        l->target->scratch_peak > 2 * p.batch * n * (p.lq + p.lk) * (int64_t) element)
      snprintf(l->wrong, sizeof l->wrong, "%lld bytes of scratch memory",
               (long long) l->target->scratch_peak);
  }
  large_finish(l, limit, "attention %lld x %lld x %lld, heads %d x %d%s%s%s", (long long) p.batch,
               (long long) p.lq, (long long) p.lk, p.heads, p.head_dim,
               p.frame_len ? ", frame-causal" : "", p.kv_len ? ", kv_len" : "",
               p.rel_bias ? ", rel_bias" : "");
}

void
large_attention(Large *l)
{
  const bool small = l->dtype == OSR_DTYPE_F32; /* no tensor cores, twice the memory */
  const int64_t video = small ? 4032 : 33264;

  check_attention(l, (AttentionSize){ 1, 8828, 8828, 24, 128, 0, false, false });
  check_attention(l, (AttentionSize){ 1, 3600, 3600, 24, 64, 0, false, false });
  check_attention(l, (AttentionSize){ 4, 900, 1999, 5, 128, 0, false, true });
  check_attention(l, (AttentionSize){ 4, 900, 1999, 5, 64, 0, false, true });
  check_attention(l, (AttentionSize){ 4, 900, 1999, 5, 72, 0, false, true });
  check_attention(l, (AttentionSize){ 1, 512, 512, 64, 64, 0, true, false });
  check_attention(l, (AttentionSize){ 6, 3600, 3600, 16, 72, 0, false, false });
  check_attention(l, (AttentionSize){ 1, video, video, 1, 512, 1008, false, false });
  if (small)
    return;
  check_attention(l, (AttentionSize){ 1, 900000, 64, 24, 128, 0, false, false });
  check_attention(l, (AttentionSize){ 1, 76544, 76544, 24, 128, 0, false, false });
}
