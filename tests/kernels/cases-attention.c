/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random calls of attention. */
#include "checkops.h"

/* q, k and v of a self-attention are mostly columns of one buffer. `kv`: the arguments k and v
 * where they are arguments of their own. */
static void
draw_qkv(Case *c, OsrAttention *p, Arg *kv[2])
{
  const int64_t n = (int64_t) p->heads * p->head_dim;

  if (p->lq == p->lk && p->lq > 0 && rng_one_in(&c->rng, 2)) {
    Arg *qkv;

    p->q_ld = p->k_ld = p->v_ld = case_ld(c, 3 * n);
    p->q_batch = p->k_batch = p->v_batch = case_stride(c, p->lq, p->q_ld);
    qkv = case_matrix(c, &p->q, "qkv", ROLE_IN, c->dtype, p->batch, p->q_batch, p->lq, p->q_ld,
                      3 * n, 0, 1);
    case_view(c, &p->k, qkv, n);
    case_view(c, &p->v, qkv, 2 * n);
    return;
  }
  p->q_ld = case_ld(c, n);
  p->k_ld = case_ld(c, n);
  p->v_ld = case_ld(c, n);
  p->q_batch = case_stride(c, p->lq, p->q_ld);
  p->k_batch = case_stride(c, p->lk, p->k_ld);
  p->v_batch = case_stride(c, p->lk, p->v_ld);
  case_matrix(c, &p->q, "q", ROLE_IN, c->dtype, p->batch, p->q_batch, p->lq, p->q_ld, n, 0, 1);
  kv[0] =
      case_matrix(c, &p->k, "k", ROLE_IN, c->dtype, p->batch, p->k_batch, p->lk, p->k_ld, n, 0, 1);
  kv[1] =
      case_matrix(c, &p->v, "v", ROLE_IN, c->dtype, p->batch, p->v_batch, p->lk, p->v_ld, n, 0, 1);
}

/* Keys at and after kv_len: their memory may never have been written. */
static void
spoil_padding(const OsrAttention *p, Arg *kv[2], int64_t b, int64_t kv_len)
{
  const int64_t n = (int64_t) p->heads * p->head_dim;

  for (int64_t row = kv_len; row < p->lk; row++)
    for (int64_t i = 0; i < n; i++) {
      arg_set(kv[0], b * p->k_batch + row * p->k_ld + i, NAN);
      arg_set(kv[1], b * p->v_batch + row * p->v_ld + i, NAN);
    }
}

void
build_attention(Case *c)
{
  static const int head_dims[] = { 1, 2, 3, 8, 16, 17, 24, 32, 64, 64, 72, 80, 96, 128, 128, 512 };
  Rng *rng = &c->rng;
  OsrAttention p = { 0 };
  int64_t cap = rng_one_in(rng, 12) ? 20000000 : 1000000, n;
  bool plain, many;
  Arg *kv[2] = { NULL, NULL };

  p.batch = rng_one_in(rng, 2) ? 1 : rng_range(rng, 1, 3);
  p.heads = (int) (rng_one_in(rng, 4) ? 1 : rng_range(rng, 1, 7));
  p.head_dim = head_dims[rng_range(rng, 0, 15)];
  /* The case that a backend has its fastest path for. */
  plain = c->aligned && rng_one_in(rng, 2);
  if (plain)
    p.head_dim = rng_one_in(rng, 2) ? 64 : 128;
  p.lq = rng_size(rng, 800);
  p.lk = rng_one_in(rng, 2) ? p.lq : rng_size(rng, 800);
  /* Kernels for tensor cores take some hundred keys at a time: enough of them for some turns. */
  many = plain && rng_one_in(rng, 2);
  if (many)
    p.lk = rng_range(rng, 300, 900);
  while (p.batch * p.heads * p.head_dim * p.lq * p.lk > cap) {
    bool self = p.lq == p.lk, keep = many && p.lq > 1;

    if (p.lq >= p.lk || keep)
      p.lq = (p.lq + 1) / 2;
    if (!keep && (self || p.lk > p.lq))
      p.lk = (p.lk + 1) / 2;
  }
  /* T5 does not scale its scores, which makes the softmax steep. */
  p.scale = p.head_dim <= 64 && rng_one_in(rng, 4) ? 1.0f : 1.0f / sqrtf((float) p.head_dim);
  n = (int64_t) p.heads * p.head_dim;
  case_dtype(c, &p.dtype, c->dtype);
  draw_qkv(c, &p, kv);

  if (!plain && rng_one_in(rng, 3) && p.lq + p.lk > 0)
    case_array(c, &p.rel_bias, "rel_bias", ROLE_IN, OSR_DTYPE_F32, p.heads * (p.lq + p.lk - 1), 0,
               2);
  if (rng_one_in(rng, 3)) {
    Arg *kv_len = case_array(c, &p.kv_len, "kv_len", ROLE_IN, OSR_DTYPE_I32, p.batch, 0, 0);

    for (int64_t b = 0; b < p.batch; b++) {
      const int64_t len = rng_one_in(rng, 6) ? 0 : rng_range(rng, 0, p.lk);

      arg_set(kv_len, b, (double) len);
      if (kv[0])
        spoil_padding(&p, kv, b, len);
    }
  }
  if (!plain && !rng_one_in(rng, 3))
    p.mask = rng_one_in(rng, 3) ? OSR_MASK_CAUSAL : OSR_MASK_FRAME_CAUSAL;
  if (p.mask == OSR_MASK_FRAME_CAUSAL)
    p.frame_len = rng_range(rng, 1, 1 + p.lq / (rng_one_in(rng, 2) ? 1 : 4));
  p.o_ld = case_ld(c, n);
  p.o_batch = case_stride(c, p.lq, p.o_ld);
  case_matrix(c, &p.o, "o", ROLE_OUT, c->dtype, p.batch, p.o_batch, p.lq, p.o_ld, n, 0, 1);

  case_describe(c,
                "batch %lld, heads %d x %d, %lld queries, %lld keys, scale %g, q_ld %lld, "
                "mask %d of %lld%s%s",
                (long long) p.batch, p.heads, p.head_dim, (long long) p.lq, (long long) p.lk,
                (double) p.scale, (long long) p.q_ld, (int) p.mask, (long long) p.frame_len,
                p.rel_bias ? ", rel_bias" : "", p.kv_len ? ", kv_len" : "");
  case_run(c, &p);
}
