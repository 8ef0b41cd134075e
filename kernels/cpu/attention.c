/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attention: blocks of queries against blocks of keys with the softmax made on the way
 * (FlashAttention, arXiv:2205.14135), so that scores live in a core's cache only.
 *
 * k is packed as the transposed operand of q k^T and v as that of p v, each once for all
 * blocks of queries. Every mask leaves a prefix of the keys visible, so a row of scores is
 * cut, never masked element by element.
 */
#include "cpu.h"

#include <string.h>

#define TILES_A_BLOCK 4
#define BLOCK_KEYS 640 /* a multiple of every tile_cols */
/* Floats between rows of scores: powers of two would share a few sets of the cache. */
#define S_LD (BLOCK_KEYS + 16)

typedef struct Attention {
  const OsrAttention *p;
  const OsrLoops *loops;
  int threads;
  int block_rows;         /* queries of a block */
  int64_t blocks;         /* of queries, of one head */
  int64_t keys;           /* lk rounded up to whole panels */
  int v_cols;             /* head_dim rounded up to whole panels */
  int64_t k_head, v_head; /* packed floats of one head */
  int64_t work_floats;    /* of one thread */
  float *k, *v, *work;
} Attention;

static int64_t
kv_len(const OsrAttention *p, int64_t b)
{
  return p->kv_len ? p->kv_len[b] : p->lk;
}

/* Panel `panel` of keys of one head of one batch item: [head_dim][tile_cols] of k,
 * [tile_cols keys][tile_cols] for every panel of columns of v. */
static void
pack_panel(const Attention *a, int64_t b, int head, int64_t panel)
{
  const OsrAttention *p = a->p;
  const int cols = a->loops->tile_cols;
  const int64_t key = panel * cols, index = b * p->heads + head;
  const int n = (int) osr_min64(cols, p->lk - key);
  const float *k = (const float *) p->k + b * p->k_batch + key * p->k_ld + head * p->head_dim;
  const float *v = (const float *) p->v + b * p->v_batch + key * p->v_ld + head * p->head_dim;
  float *to_k = a->k + index * a->k_head + key * p->head_dim;

  a->loops->pack(k, (ptrdiff_t) p->k_ld, n, p->head_dim, to_k);
  for (int col = 0; col < a->v_cols; col += cols) {
    const int width = (int) osr_min64(cols, p->head_dim - col);
    float *to = a->v + index * a->v_head + col * a->keys + key * cols;

    for (int i = 0; i < n; i++, to += cols) {
      memcpy(to, v + i * p->v_ld + col, (size_t) width * sizeof *to);
      memset(to + width, 0, (size_t) (cols - width) * sizeof *to);
    }
  }
}

/* One block of queries on its way through the keys. */
typedef struct Block {
  const float *k, *v; /* packed, of this head */
  int64_t b, query;
  int head, rows;
  float *q;         /* [rows][head_dim], scaled */
  float *s;         /* [rows][S_LD] */
  float *o;         /* [rows][v_cols] */
  float *max, *sum; /* [rows] */
} Block;

/* c [rows][c_ld] (+)= a [rows][a_ld] times the packed panel b */
static void
block_product(const OsrLoops *loops, int rows, int cols, int k, const float *a, ptrdiff_t a_ld,
              const float *b, float *c, ptrdiff_t c_ld, bool accumulate)
{
  const int tiles = (int) osr_ceil_div(rows, loops->tile_rows);

  for (int i = 0; i < tiles; i++) {
    const int first = i * rows / tiles;
    OsrTile t = {
      .rows = (i + 1) * rows / tiles - first,
      .cols = cols,
      .add = accumulate ? c + first * c_ld : NULL,
      .add_ld = c_ld,
      .seg = &a,
      .n_segs = 1,
      .seg_len = k,
      .a_off = first * a_ld,
      .a_ld = a_ld,
      .b = b,
      .c = c + first * c_ld,
      .c_ld = c_ld,
    };

    loops->tile(&t);
  }
}

/* Keys [key, key + n) into the running sums. */
static void
block_keys(const Attention *a, const Block *blk, int64_t key, int n)
{
  const OsrAttention *p = a->p;
  const OsrLoops *loops = a->loops;
  const int cols = loops->tile_cols;

  for (int j = 0; j < n; j += cols)
    block_product(loops, blk->rows, cols, p->head_dim, blk->q, p->head_dim,
                  blk->k + (key + j) * p->head_dim, blk->s + j, S_LD, false);

  for (int i = 0; i < blk->rows; i++) {
    const int64_t query = blk->query + i;
    const int64_t visible = osr_attention_visible(p, query, kv_len(p, blk->b)) - key;
    const float *bias = NULL;
    float *o = blk->o + (ptrdiff_t) i * a->v_cols;
    float shrink;

    if (p->rel_bias)
      bias = p->rel_bias + blk->head * (p->lq + p->lk - 1) + key - query + p->lq - 1;
    if (visible <= 0) {
      memset(blk->s + (ptrdiff_t) i * S_LD, 0, (size_t) n * sizeof *blk->s);
      continue;
    }
    shrink = loops->softmax(blk->s + (ptrdiff_t) i * S_LD, (int) osr_min64(visible, n), n, bias,
                            &blk->max[i], &blk->sum[i]);
    if (key > 0 && shrink != 1.0f)
      loops->affine(OSR_ACT_NONE, shrink, 0.0f, o, o, a->v_cols);
  }

  for (int col = 0; col < a->v_cols; col += cols)
    block_product(loops, blk->rows, p->head_dim - col, n, blk->s, S_LD,
                  blk->v + col * a->keys + key * cols, blk->o + col, a->v_cols, key > 0);
}

static void
block_load(const Attention *a, Block *blk)
{
  const OsrAttention *p = a->p;
  const float *q = (const float *) p->q + blk->b * p->q_batch + blk->query * p->q_ld +
                   (int64_t) blk->head * p->head_dim;

  for (int i = 0; i < blk->rows; i++) {
    a->loops->affine(OSR_ACT_NONE, p->scale, 0.0f, q + i * p->q_ld,
                     blk->q + (ptrdiff_t) i * p->head_dim, p->head_dim);
    blk->max[i] = -INFINITY;
    blk->sum[i] = 0.0f;
  }
}

static void
block_store(const Attention *a, const Block *blk)
{
  const OsrAttention *p = a->p;
  float *y = (float *) p->o + blk->b * p->o_batch + blk->query * p->o_ld +
             (int64_t) blk->head * p->head_dim;

  for (int i = 0; i < blk->rows; i++, y += p->o_ld) {
    if (blk->max[i] == -INFINITY && blk->sum[i] == 0.0f) /* a query that sees no key */
      memset(y, 0, (size_t) p->head_dim * sizeof *y);
    else
      a->loops->affine(OSR_ACT_NONE, 1.0f / blk->sum[i], 0.0f, blk->o + (ptrdiff_t) i * a->v_cols,
                       y, p->head_dim);
  }
}

/* Block `index` of all heads' queries. */
static void
attention_block(const Attention *a, int64_t index, int thread)
{
  const OsrAttention *p = a->p;
  const int64_t head = index / a->blocks; /* of all batch items' */
  Block blk = {
    .k = a->k + head * a->k_head,
    .v = a->v + head * a->v_head,
    .b = head / p->heads,
    .head = (int) (head % p->heads),
    .query = index % a->blocks * a->block_rows,
  };
  int64_t last;

  blk.rows = (int) osr_min64(a->block_rows, p->lq - blk.query);
  blk.q = a->work + thread * a->work_floats;
  blk.s = blk.q + (ptrdiff_t) a->block_rows * p->head_dim;
  blk.o = blk.s + (ptrdiff_t) a->block_rows * S_LD;
  blk.max = blk.o + (ptrdiff_t) a->block_rows * a->v_cols;
  blk.sum = blk.max + a->block_rows;

  /* Later queries see at least as many keys as earlier ones. */
  last = osr_attention_visible(p, blk.query + blk.rows - 1, kv_len(p, blk.b));
  block_load(a, &blk);
  for (int64_t key = 0; key < last; key += BLOCK_KEYS)
    block_keys(a, &blk, key, (int) osr_min64(BLOCK_KEYS, last - key));
  block_store(a, &blk);
}

static void
attention_task(const void *data, int64_t begin, int64_t end, int thread)
{
  for (int64_t i = begin; i < end; i++)
    attention_block(data, i, thread);
}

static void
pack_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Attention *a = data;
  const int64_t panels = a->keys / a->loops->tile_cols;

  (void) thread;
  for (int64_t i = begin; i < end; i++) {
    const int64_t head = i / panels;

    pack_panel(a, head / a->p->heads, (int) (head % a->p->heads), i % panels);
  }
}

OsrResult
osr_cpu_attention(OsrOpsContext *ctx, const OsrAttention *p)
{
  Attention a = { .p = p, .loops = osr_cpu_loops(ctx) };
  int64_t heads, panels, packed, total;
  int cols;

  OSR_TRY(osr_check_attention(ctx, p, OSR_CPU_DTYPES));
  if (p->batch == 0 || p->lq == 0 || p->heads == 0)
    return OSR_OK;

  cols = a.loops->tile_cols;
  heads = p->batch * p->heads;
  a.threads =
      osr_cpu_threads(ctx, 2.0 * (double) heads * p->head_dim * (double) p->lq * (double) p->lk);
  a.block_rows = TILES_A_BLOCK * a.loops->tile_rows;
  a.blocks = osr_ceil_div(p->lq, a.block_rows);
  a.keys = osr_ceil_div(p->lk, cols) * cols;
  a.v_cols = (int) osr_ceil_div(p->head_dim, cols) * cols;
  a.work_floats = (int64_t) a.block_rows * (p->head_dim + S_LD + a.v_cols + 2);

  /* k and v fit memory, but the packed v may be wider by a panel. */
  if (__builtin_mul_overflow(a.keys, (int64_t) p->head_dim + a.v_cols, &packed) ||
      __builtin_mul_overflow(heads, packed, &packed) || packed > INT64_MAX / 8)
    return osr_fail(ctx, OSR_ERR_INVALID, "attention: size overflows");
  a.k_head = a.keys * p->head_dim;
  a.v_head = a.keys * a.v_cols;
  total = packed + a.threads * a.work_floats;
  a.k = osr_cpu_scratch(ctx, "attention", total);
  if (!a.k)
    return OSR_ERR_MEMORY;
  a.v = a.k + heads * a.k_head;
  a.work = a.k + packed;
  panels = heads * (a.keys / cols);
  osr_cpu_run(ctx, a.threads, panels, osr_cpu_grain(panels, a.threads, 4), pack_task, &a);
  osr_cpu_run(ctx, a.threads, heads * a.blocks, 1, attention_task, &a);
  osr_cpu_scratch_free(ctx, a.k, total);
  return OSR_OK;
}
