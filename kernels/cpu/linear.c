/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* linear, glu, embedding */
#include "cpu.h"

#include <string.h>

/* Tiles that share a trip through the weights: their rows of x stay in the second-level
 * cache, a panel of weights is read from beyond it once for all of them. */
#define TILES_A_TASK 4
/* Packed weights at a time; wider layers go in several chunks. */
#define CHUNK_FLOATS ((int64_t) 2 << 20)

typedef struct Linear {
  const OsrLinear *p;
  const OsrLoops *loops;
  int threads;
  int panels, chunk_panels; /* in all, packed at a time */
  int chunk, packed_panels; /* the first of those packed now, and how many */
  int group_panels;         /* of one task */
  int64_t tiles, blocks;    /* of one batch item: of tile_rows rows at most, of tasks */
  bool direct;              /* tiles go to y without a stop; an activation follows there */
  bool copy_rows;
  ptrdiff_t copy_ld;
  float *packed, *copies, *widened;
} Linear;

static OsrEpilogue
linear_epilogue(const OsrLinear *p, int64_t b, int64_t row, int col)
{
  OsrEpilogue e = {
    .scale = p->w_scale ? p->w_scale + col : NULL,
    .bias = p->bias ? (const float *) p->bias + col : NULL,
    .act = p->act,
    .gate = p->gate ? (const float *) p->gate + b * p->gate_batch + col : NULL,
    .residual_ld = p->residual_ld,
    .y = (float *) p->y + b * p->y_batch + row * p->y_ld + col,
    .y_ld = p->y_ld,
  };

  if (p->residual)
    e.residual = (const float *) p->residual + b * p->residual_batch + row * p->residual_ld + col;
  return e;
}

/* Rows of x from `begin` on, or their copy. */
static const float *
linear_rows(const Linear *l, int64_t b, int64_t begin, int64_t end, int thread)
{
  const OsrLinear *p = l->p;
  const float *x = (const float *) p->x + b * p->x_batch + begin * p->x_ld;
  float *copy;

  if (!l->copy_rows)
    return x;
  copy = l->copies + thread * l->copy_ld * TILES_A_TASK * l->loops->tile_rows;
  for (int64_t i = begin; i < end; i++, x += p->x_ld)
    memcpy(copy + (i - begin) * l->copy_ld, x, (size_t) p->k * sizeof *x);
  return copy;
}

/* Rows [row, row + rows) times one panel, whole. `a` are the rows of x or of their copy. */
static void
linear_tile(const Linear *l, int64_t b, int64_t row, int rows, int panel, const float *a)
{
  const OsrLinear *p = l->p;
  const int cols = l->loops->tile_cols, col = (l->chunk + panel) * cols;
  float c[OSR_MAX_TILE_ROWS * OSR_MAX_TILE_COLS];
  OsrEpilogue e = linear_epilogue(p, b, row, col);
  OsrTile t = {
    .rows = rows,
    .cols = (int) osr_min64(cols, p->n - col),
    .seg = &a,
    .n_segs = 1,
    .seg_len = p->k,
    .a_ld = l->copy_rows ? l->copy_ld : (ptrdiff_t) p->x_ld,
    .b = l->packed + (int64_t) panel * p->k * cols,
    .c = c,
    .c_ld = OSR_MAX_TILE_COLS,
  };

  if (l->direct) {
    t.bias = e.bias;
    t.add = e.residual;
    t.add_ld = e.residual_ld;
    t.c = e.y;
    t.c_ld = e.y_ld;
    l->loops->tile(&t);
  } else {
    l->loops->tile(&t);
    l->loops->epilogue(&e, c, t.c_ld, t.rows, t.cols);
  }
}

/* Block `block` of all batch items' rows times panels [first, last) of the chunk. */
static void
linear_block(const Linear *l, int64_t block, int first, int last, int thread)
{
  const OsrLinear *p = l->p;
  const int64_t b = block / l->blocks, t0 = block % l->blocks * TILES_A_TASK;
  const int64_t t1 = osr_min64(t0 + TILES_A_TASK, l->tiles);
  const int64_t begin = osr_part(p->m, l->tiles, t0), end = osr_part(p->m, l->tiles, t1);
  const float *x = linear_rows(l, b, begin, end, thread);
  const ptrdiff_t ld = l->copy_rows ? l->copy_ld : (ptrdiff_t) p->x_ld;

  for (int panel = first; panel < last; panel++)
    for (int64_t i = t0; i < t1; i++) {
      const int64_t row = osr_part(p->m, l->tiles, i);

      linear_tile(l, b, row, (int) (osr_part(p->m, l->tiles, i + 1) - row), panel,
                  x + (row - begin) * ld);
    }

  if (l->direct && p->act != OSR_ACT_NONE) {
    const int64_t col = (int64_t) (l->chunk + first) * l->loops->tile_cols;
    const int64_t cols = osr_min64((int64_t) (last - first) * l->loops->tile_cols, p->n - col);

    for (int64_t row = begin; row < end; row++) {
      float *y = (float *) p->y + b * p->y_batch + row * p->y_ld + col;

      l->loops->affine(p->act, 1.0f, 0.0f, y, y, cols);
    }
  }
}

static void
multiply_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Linear *l = data;
  const int groups = (int) osr_ceil_div(l->packed_panels, l->group_panels);

  for (int64_t i = begin; i < end; i++) {
    const int first = (int) (i % groups) * l->group_panels;

    linear_block(l, i / groups, first, (int) osr_min64(first + l->group_panels, l->packed_panels),
                 thread);
  }
}

/* Rows [col, col + cols) of the weights in f32, where they lie or in the thread's own memory. */
static const float *
linear_weights(const Linear *l, int64_t col, int cols, int thread)
{
  const OsrLinear *p = l->p;
  const uint8_t *w8 = (const uint8_t *) p->w + col * p->k;
  float *w;

  if (p->w_dtype == OSR_DTYPE_F32)
    return (const float *) p->w + col * p->k;
  w = l->widened + (int64_t) thread * l->loops->tile_cols * p->k;
  for (int64_t i = 0; i < (int64_t) cols * p->k; i++)
    w[i] = osr_f8_to_f32(w8[i]);
  return w;
}

static void
pack_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Linear *l = data;
  const OsrLinear *p = l->p;
  const int cols = l->loops->tile_cols;

  for (int64_t i = begin; i < end; i++) {
    const int64_t col = (l->chunk + i) * cols;
    const int n = (int) osr_min64(cols, p->n - col);

    l->loops->pack(linear_weights(l, col, n, thread), p->k, n, p->k, l->packed + i * p->k * cols);
  }
}

static void
linear_run(OsrOpsContext *ctx, Linear *l)
{
  const int64_t blocks = l->p->batch * l->blocks;

  for (l->chunk = 0; l->chunk < l->panels; l->chunk += l->chunk_panels) {
    l->packed_panels = (int) osr_min64(l->chunk_panels, l->panels - l->chunk);
    osr_cpu_run(ctx, l->threads, l->packed_panels, osr_cpu_grain(l->packed_panels, l->threads, 4),
                pack_task, l);
    osr_cpu_run(ctx, l->threads, blocks * osr_ceil_div(l->packed_panels, l->group_panels), 1,
                multiply_task, l);
  }
}

static OsrResult
linear_tiled(OsrOpsContext *ctx, const OsrLinear *p)
{
  const OsrLoops *loops = osr_cpu_loops(ctx);
  const int64_t panel_floats = (int64_t) p->k * loops->tile_cols;
  Linear l = { .p = p, .loops = loops };
  int64_t packed_floats, copy_floats = 0, wide_floats = 0;

  l.threads = osr_cpu_threads(ctx, (double) p->batch * (double) p->m * p->n * p->k);
  l.panels = (int) osr_ceil_div(p->n, loops->tile_cols);
  l.chunk_panels = (int) osr_min64(l.panels, 1 + CHUNK_FLOATS / panel_floats);
  l.tiles = osr_ceil_div(p->m, loops->tile_rows);
  l.blocks = osr_ceil_div(l.tiles, TILES_A_TASK);
  l.group_panels = (int) osr_min64(
      l.chunk_panels, osr_cpu_grain(p->batch * l.blocks * l.chunk_panels, l.threads, 32));

  l.direct = p->n % (loops->tile_cols / 2) == 0 && !p->w_scale && !p->gate &&
             (p->act == OSR_ACT_NONE || !p->residual);

  /* Rows a multiple of 2 KiB apart fall into the same few sets of the first-level cache. */
  l.copy_rows = p->m > 1 && p->x_ld % 512 == 0;
  packed_floats = l.chunk_panels * panel_floats;
  if (l.copy_rows) {
    l.copy_ld = (p->k + 15) / 16 * 16 + 16;
    copy_floats = l.threads * l.copy_ld * TILES_A_TASK * loops->tile_rows;
  }
  if (p->w_dtype != OSR_DTYPE_F32)
    wide_floats = l.threads * panel_floats;
  l.packed = osr_cpu_scratch(ctx, "linear", packed_floats + copy_floats + wide_floats);
  if (!l.packed)
    return OSR_ERR_MEMORY;
  l.copies = l.packed + packed_floats;
  l.widened = l.copies + copy_floats;
  linear_run(ctx, &l);
  osr_cpu_scratch_free(ctx, l.packed, packed_floats + copy_floats + wide_floats);
  return OSR_OK;
}

/* Outputs of a task of few_rows(). */
#define FEW_COLS 64

/* So few rows that packing would cost more than the product: every weight is read once,
 * where it lies. Rows of different batch items are separate products (their distance need
 * not be the one between rows) that find the weights in the cache. */
static void
few_rows(const Linear *l, int col, int cols)
{
  const OsrLinear *p = l->p;

  for (int64_t b = 0; b < p->batch; b++)
    for (int64_t row = 0; row < p->m; row += OSR_DOTS_ROWS) {
      const float *x = (const float *) p->x + b * p->x_batch + row * p->x_ld;
      float c[OSR_DOTS_ROWS * FEW_COLS];
      OsrTile t = {
        .rows = (int) osr_min64(OSR_DOTS_ROWS, p->m - row),
        .cols = cols,
        .seg = &x,
        .n_segs = 1,
        .seg_len = p->k,
        .a_ld = (ptrdiff_t) p->x_ld,
        .b = (const float *) p->w + (int64_t) col * p->k,
        .b_ld = p->k,
        .c = c,
        .c_ld = FEW_COLS,
      };
      OsrEpilogue e = linear_epilogue(p, b, row, col);

      l->loops->dots(&t);
      l->loops->epilogue(&e, c, FEW_COLS, t.rows, cols);
    }
}

static void
few_rows_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Linear *l = data;

  (void) thread;
  for (int64_t i = begin; i < end; i++)
    few_rows(l, (int) i * FEW_COLS, (int) osr_min64(FEW_COLS, l->p->n - i * FEW_COLS));
}

static OsrResult
linear_few_rows(OsrOpsContext *ctx, const OsrLinear *p)
{
  const Linear l = { .p = p, .loops = osr_cpu_loops(ctx) };
  const double rows = (double) p->batch * (double) p->m;

  osr_cpu_run_rows(ctx, rows * FEW_COLS * p->k, osr_ceil_div(p->n, FEW_COLS), few_rows_task, &l);
  return OSR_OK;
}

OsrResult
osr_cpu_linear(OsrOpsContext *ctx, const OsrLinear *p)
{
  OSR_TRY(osr_check_linear(ctx, p, OSR_CPU_DTYPES));
  if (p->w_dtype != OSR_DTYPE_F32 && p->w_dtype != OSR_DTYPE_F8_E4M3)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "linear: cpu has no %s weights",
                    osr_ops_dtype_name(p->w_dtype));
  if (p->batch == 0 || p->m == 0 || p->n == 0)
    return OSR_OK;
  return p->batch * p->m <= 2 * OSR_DOTS_ROWS && p->w_dtype == OSR_DTYPE_F32
             ? linear_few_rows(ctx, p)
             : linear_tiled(ctx, p);
}

typedef struct Glu {
  const OsrGlu *p;
  const OsrLoops *loops;
} Glu;

static void
glu_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Glu *g = data;
  const OsrGlu *p = g->p;

  (void) thread;
  for (int64_t i = begin; i < end; i++)
    g->loops->glu(p->act, (const float *) p->x + i * p->x_ld, p->n, (float *) p->y + i * p->y_ld);
}

OsrResult
osr_cpu_glu(OsrOpsContext *ctx, const OsrGlu *p)
{
  const Glu g = { p, osr_cpu_loops(ctx) };

  OSR_TRY(osr_check_glu(ctx, p, OSR_CPU_DTYPES));
  if (p->n > 0)
    osr_cpu_run_rows(ctx, 20.0 * p->n, p->m, glu_task, &g);
  return OSR_OK;
}

OsrResult
osr_cpu_embedding(OsrOpsContext *ctx, const OsrEmbedding *p)
{
  OSR_TRY(osr_check_embedding(ctx, p, OSR_CPU_DTYPES));
  if (p->n == 0)
    return OSR_OK;
  for (int64_t i = 0; i < p->m; i++)
    if (p->ids[i] < 0 || p->ids[i] >= p->vocab)
      return osr_fail(ctx, OSR_ERR_INVALID, "embedding: id %d at %lld, vocabulary of %d",
                      (int) p->ids[i], (long long) i, p->vocab);

  for (int64_t i = 0; i < p->m; i++) {
    const float *row = (const float *) p->table + (int64_t) p->ids[i] * p->n;
    float *y = (float *) p->y + i * p->n;

    memcpy(y, row, (size_t) p->n * sizeof *y);
    if (p->positions) {
      const float *position = (const float *) p->positions + i % p->n_positions * p->n;

      for (int j = 0; j < p->n; j++)
        y[j] += position[j];
    }
  }
  return OSR_OK;
}
