/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conv3d: an implicit matrix product on channels-last video, without a padded copy.
 *
 * What one voxel sees is k_t * k_h pieces of rows, each of k_w * c_in contiguous floats.
 * Padding in time and height is a matter of which row a piece points to (the edge row
 * again, or a row of zeros). Only the few voxels whose pieces reach over the left or right
 * border are gathered into a buffer first. The weights [c_out][k_t k_h k_w c_in] are the
 * transposed operand as they are.
 *
 * Up-sampling: among 3 taps over doubled samples two read the same sample, so even and odd
 * outputs are convolutions of 2 taps with summed weights, on the samples themselves. Doubled
 * height and width make 4 such phases of 12 taps, doubled time 8 of 8 taps, for 27.
 */
#include "cpu.h"

#include <string.h>

/* Output rows of a task: with two border voxels each they fill one tile. */
#define ROWS_A_TASK 7

/* One axis of one phase. Output j of the phase is output out + j * out_step; its tap d reads
 * position j * step + first + d of the axis, which is `in` samples long, or twice that. */
typedef struct Axis {
  int n, out, out_step;
  int first, step, taps;
  int cut; /* summed taps: [0, cut) and [cut, 3); 0: as they are */
  int in, up;
  bool single; /* the first of the doubled samples is there once */
  OsrPad pad;
} Axis;

typedef struct Conv {
  const OsrConv3d *p;
  const OsrLoops *loops;
  int threads;
  int out_t, out_h, out_w;
  Axis t, h, w;
  int n_segs, seg_len, k; /* k = n_segs * seg_len */
  bool dots;              /* few channels out: dots() instead of tile() */
  bool direct;            /* tiles go to y without a stop */
  int rows, cols, panels; /* of a product, of all channels */
  int w_begin, w_end;     /* outputs of a row that need no gathering */
  float *weights;         /* packed panels, or [c_out][k] for dots() */
  float *zeros;           /* a row of them */
  float *work;
  int64_t work_floats;
} Conv;

/* A thread's place in its task. */
typedef struct Work {
  const float **seg; /* [n_segs] rows of x */
  float *gathered;   /* [rows][k] */
  int64_t *at;       /* [rows] where they go, in voxels of y */
  int n_gathered;
} Work;

/* Taps of the weights that tap d of the axis sums. */
static void
axis_taps(const Axis *a, int d, int *begin, int *end)
{
  *begin = a->cut ? (d == 0 ? 0 : a->cut) : d;
  *end = a->cut ? (d == 0 ? a->cut : 3) : d + 1;
}

/* The sample at position `i`, or -1 for a zero. */
static int
axis_sample(const Axis *a, int i)
{
  const int size = a->up == 1 ? a->in : a->single ? 2 * a->in - 1 : 2 * a->in;

  if (i < 0 || i >= size) {
    if (a->pad == OSR_PAD_ZERO)
      return -1;
    i = i < 0 ? 0 : size - 1;
  }
  return a->up == 1 ? i : (i + a->single) / 2;
}

/* Phase `phase` of an axis; returns how many there are. */
static int
axis_phase(Axis *a, int phase, int in, int up, bool single, int taps, int stride, const int pads[2],
           OsrPad pad, int n_out)
{
  /* Time starts with a single sample, so its pads must lie before it, and be it. */
  const bool causal = pads[0] == 2 && pads[1] == 0 && pad == OSR_PAD_REPLICATE;
  const bool centred = pads[0] == 1 && pads[1] == 1;

  *a = (Axis){ .n = n_out, .out_step = 1, .first = -pads[0], .step = stride, .taps = taps };
  a->in = in;
  a->up = up;
  a->single = single;
  a->pad = pad;
  if (up == 1 || taps != 3 || stride != 1 || !(single ? causal : centred))
    return 1;
  a->n = (n_out + 1 - phase) / 2;
  a->out = phase;
  a->out_step = 2;
  a->first = phase - 1;
  a->taps = 2;
  a->cut = 1 + phase;
  a->up = 1;
  return 2;
}

/* Weights of output channels [first, first + n), taps of the phase summed: to [n][k]. */
static void
sum_weights(const Conv *cv, int first, int n, float *to)
{
  const OsrConv3d *p = cv->p;
  const int64_t w_k = (int64_t) p->k_t * p->k_h * p->k_w * p->c_in;
  int t0, t1, h0, h1, w0, w1;

  memset(to, 0, (size_t) n * (size_t) cv->k * sizeof *to);
  for (int co = first; co < first + n; co++)
    for (int dt = 0; dt < cv->t.taps; dt++)
      for (int dh = 0; dh < cv->h.taps; dh++)
        for (int dw = 0; dw < cv->w.taps; dw++, to += p->c_in) {
          axis_taps(&cv->t, dt, &t0, &t1);
          axis_taps(&cv->h, dh, &h0, &h1);
          axis_taps(&cv->w, dw, &w0, &w1);
          for (int t = t0; t < t1; t++)
            for (int h = h0; h < h1; h++)
              for (int w = w0; w < w1; w++) {
                const float *from = (const float *) p->w + co * w_k +
                                    (((int64_t) t * p->k_h + h) * p->k_w + w) * p->c_in;

                for (int ci = 0; ci < p->c_in; ci++)
                  to[ci] += from[ci];
              }
        }
}

/* Prepares the weights of one panel. `work` has room for [tile_cols][k]. */
static void
prepare_panel(const Conv *cv, int panel, float *work)
{
  const OsrConv3d *p = cv->p;
  const int first = panel * cv->cols;
  const int n = (int) osr_min64(cv->cols, p->c_out - first);
  float *to = cv->weights + (int64_t) first * cv->k;

  if (cv->dots) {
    sum_weights(cv, first, n, to);
  } else if (cv->t.cut || cv->h.cut || cv->w.cut) {
    sum_weights(cv, first, n, work);
    cv->loops->pack(work, cv->k, n, cv->k, to);
  } else {
    cv->loops->pack((const float *) p->w + (int64_t) first * cv->k, cv->k, n, cv->k, to);
  }
}

/* Panel `panel` of the rows that `t` says, of which row i is voxel at + i * step of y. */
static void
product(const Conv *cv, OsrTile *t, int panel, int64_t at, int64_t step)
{
  const OsrConv3d *p = cv->p;
  const int col = panel * cv->cols;
  float c[OSR_MAX_TILE_ROWS * OSR_MAX_TILE_COLS];
  OsrEpilogue e = {
    .bias = p->bias ? (const float *) p->bias + col : NULL,
    .residual = p->residual ? (const float *) p->residual + at * p->c_out + col : NULL,
    .residual_ld = (ptrdiff_t) step * p->c_out,
    .y = (float *) p->y + at * p->c_out + col,
    .y_ld = (ptrdiff_t) step * p->c_out,
  };

  t->cols = (int) osr_min64(cv->cols, p->c_out - col);
  t->b = cv->weights + (int64_t) col * cv->k;
  t->b_ld = cv->k;
  t->c = c;
  t->c_ld = OSR_MAX_TILE_COLS;
  if (cv->direct) {
    t->bias = e.bias;
    t->add = e.residual;
    t->add_ld = e.residual_ld;
    t->c = e.y;
    t->c_ld = e.y_ld;
    cv->loops->tile(t);
    return;
  }
  if (cv->dots)
    cv->loops->dots(t);
  else
    cv->loops->tile(t);
  cv->loops->epilogue(&e, c, t->c_ld, t->rows, t->cols);
}

/* Runs of gathered voxels that are a fixed step apart in y: from `i` on. */
static int
gathered_run(const Work *wk, int i)
{
  int n = 1;

  while (i + n < wk->n_gathered &&
         (n == 1 || wk->at[i + n] - wk->at[i + n - 1] == wk->at[i + 1] - wk->at[i]))
    n++;
  return n;
}

/* The gathered voxels, all panels. */
static void
flush_gathered(const Conv *cv, Work *wk)
{
  int n;

  for (int i = 0; i < wk->n_gathered; i += n) {
    const float *a = wk->gathered + (ptrdiff_t) i * cv->k;
    int64_t step;

    n = gathered_run(wk, i);
    step = n > 1 ? wk->at[i + 1] - wk->at[i] : 0;
    for (int panel = 0; panel < cv->panels; panel++) {
      OsrTile t = { .rows = n, .seg = &a, .n_segs = 1, .seg_len = cv->k, .a_ld = cv->k };

      product(cv, &t, panel, wk->at[i], step);
    }
  }
  wk->n_gathered = 0;
}

/* Output j of the row whose pieces are in wk->seg, `at` in y. */
static void
gather(const Conv *cv, Work *wk, int j, int64_t at)
{
  const size_t c = (size_t) cv->p->c_in;
  float *to = wk->gathered + (ptrdiff_t) wk->n_gathered * cv->k;

  for (int s = 0; s < cv->n_segs; s++)
    for (int d = 0; d < cv->w.taps; d++, to += c) {
      int sample = axis_sample(&cv->w, j * cv->w.step + cv->w.first + d);

      if (sample < 0)
        memset(to, 0, c * sizeof *to);
      else
        memcpy(to, wk->seg[s] + (size_t) sample * c, c * sizeof *to);
    }
  wk->at[wk->n_gathered++] = at;
  if (wk->n_gathered == cv->rows)
    flush_gathered(cv, wk);
}

/* Points wk->seg to the rows of x that output row (jt, jh) of batch item b sees. */
static void
find_rows(const Conv *cv, Work *wk, int64_t b, int jt, int jh)
{
  const OsrConv3d *p = cv->p;
  const float **seg = wk->seg;

  for (int dt = 0; dt < cv->t.taps; dt++) {
    const int t = axis_sample(&cv->t, jt * cv->t.step + cv->t.first + dt);

    for (int dh = 0; dh < cv->h.taps; dh++) {
      const int h = axis_sample(&cv->h, jh * cv->h.step + cv->h.first + dh);

      *seg++ = t < 0 || h < 0
                   ? cv->zeros
                   : (const float *) p->x + ((b * p->t + t) * p->h + h) * p->w_in * p->c_in;
    }
  }
}

/* The voxel in y of output (jt, jh, 0) of the phase. */
static int64_t
row_at(const Conv *cv, int64_t b, int jt, int jh)
{
  const int64_t t = cv->t.out + (int64_t) jt * cv->t.out_step;
  const int64_t h = cv->h.out + (int64_t) jh * cv->h.out_step;

  return ((b * cv->out_t + t) * cv->out_h + h) * cv->out_w + cv->w.out;
}

/* The outputs of one row that need no gathering, one panel. */
static void
row_product(const Conv *cv, Work *wk, int panel, int64_t at)
{
  const int n = cv->w_end - cv->w_begin;
  const int64_t tiles = osr_ceil_div(n, cv->rows);

  for (int64_t i = 0; i < tiles; i++) {
    const int64_t first = cv->w_begin + osr_part(n, tiles, i);
    const int64_t last = cv->w_begin + osr_part(n, tiles, i + 1);
    OsrTile t = {
      .rows = (int) (last - first),
      .seg = wk->seg,
      .n_segs = cv->n_segs,
      .seg_len = cv->seg_len,
      .a_off = ((ptrdiff_t) first * cv->w.step + cv->w.first) * cv->p->c_in,
      .a_ld = (ptrdiff_t) cv->w.step * cv->p->c_in,
    };

    product(cv, &t, panel, at + first * cv->w.out_step, cv->w.out_step);
  }
}

/* Output rows [h_begin, h_end) of frame jt of batch item b. */
static void
conv_rows(const Conv *cv, int64_t b, int jt, int h_begin, int h_end, int thread)
{
  float *memory = cv->work + thread * cv->work_floats;
  int64_t at[OSR_MAX_TILE_ROWS];
  Work wk = { .seg = (const float **) (void *) memory, .at = at };

  wk.gathered = memory + 2 * cv->n_segs;
  for (int panel = 0; panel < cv->panels; panel++)
    for (int jh = h_begin; jh < h_end; jh++) {
      find_rows(cv, &wk, b, jt, jh);
      row_product(cv, &wk, panel, row_at(cv, b, jt, jh));
    }
  /* Down the columns, for the sake of gathered_run(). */
  for (int jw = 0; jw < cv->w.n; jw++) {
    if (jw == cv->w_begin)
      jw = cv->w_end;
    for (int jh = h_begin; jh < h_end && jw < cv->w.n; jh++) {
      find_rows(cv, &wk, b, jt, jh);
      gather(cv, &wk, jw, row_at(cv, b, jt, jh) + (int64_t) jw * cv->w.out_step);
    }
  }
  flush_gathered(cv, &wk);
}

static void
conv_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Conv *cv = data;
  const int64_t bands = osr_ceil_div(cv->h.n, ROWS_A_TASK);

  for (int64_t i = begin; i < end; i++) {
    const int64_t frame = i / bands, band = i % bands;

    conv_rows(cv, frame / cv->t.n, (int) (frame % cv->t.n), (int) (band * cv->h.n / bands),
              (int) ((band + 1) * cv->h.n / bands), thread);
  }
}

static void
prepare_task(const void *data, int64_t begin, int64_t end, int thread)
{
  const Conv *cv = data;

  for (int64_t panel = begin; panel < end; panel++)
    prepare_panel(cv, (int) panel, cv->work + thread * cv->work_floats);
}

static void
conv_run(OsrOpsContext *ctx, const Conv *cv)
{
  const int64_t bands = osr_ceil_div(cv->h.n, ROWS_A_TASK);

  osr_cpu_run(ctx, cv->threads, cv->panels, 1, prepare_task, cv);
  osr_cpu_run(ctx, cv->threads, cv->p->batch * cv->t.n * bands, 1, conv_task, cv);
}

/* Outputs [*begin, *end) of a row whose pieces lie within it. */
static void
direct_range(const Axis *w, int *begin, int *end)
{
  const int room = w->in - w->taps - w->first; /* of the last first position */

  *begin = *end = 0;
  if (w->up != 1 || room < 0)
    return;
  *begin = w->first >= 0 ? 0 : (w->step - 1 - w->first) / w->step;
  *end = (int) osr_min64(w->n, room / w->step + 1);
  if (*begin > *end)
    *begin = *end = 0;
}

/* What follows from the axes. */
static void
conv_set_phase(Conv *cv)
{
  cv->n_segs = cv->t.taps * cv->h.taps;
  cv->seg_len = cv->w.taps * cv->p->c_in;
  cv->k = cv->n_segs * cv->seg_len;
  direct_range(&cv->w, &cv->w_begin, &cv->w_end);
}

static int
phase_t(Conv *cv, int phase)
{
  const OsrConv3d *p = cv->p;

  return axis_phase(&cv->t, phase, p->t, p->up_t, true, p->k_t, p->stride_t, p->pad_t, p->pad,
                    cv->out_t);
}

static int
phase_h(Conv *cv, int phase)
{
  const OsrConv3d *p = cv->p;

  return axis_phase(&cv->h, phase, p->h, p->up_hw, false, p->k_h, p->stride_h, p->pad_h, p->pad,
                    cv->out_h);
}

static int
phase_w(Conv *cv, int phase)
{
  const OsrConv3d *p = cv->p;

  return axis_phase(&cv->w, phase, p->w_in, p->up_hw, false, p->k_w, p->stride_w, p->pad_w, p->pad,
                    cv->out_w);
}

/* Each condition sets its axis to the phase that it asks about. */
static void
conv_phases(OsrOpsContext *ctx, Conv *cv)
{
  for (int t = 0; t < phase_t(cv, t); t++)
    for (int h = 0; h < phase_h(cv, h); h++)
      for (int w = 0; w < phase_w(cv, w); w++) {
        conv_set_phase(cv);
        conv_run(ctx, cv);
      }
}

/* A kernel of one voxel is a linear layer. */
static OsrResult
conv_pointwise(OsrOpsContext *ctx, const OsrConv3d *p)
{
  const int64_t voxels = p->batch * p->t * p->h * p->w_in;
  const OsrLinear linear = {
    .dtype = p->dtype,
    .w_dtype = p->w_dtype,
    .batch = 1,
    .m = voxels,
    .n = p->c_out,
    .k = p->c_in,
    .x = p->x,
    .x_ld = p->c_in,
    .w = p->w,
    .bias = p->bias,
    .residual = p->residual,
    .residual_ld = p->c_out,
    .y = p->y,
    .y_ld = p->c_out,
  };

  return osr_cpu_linear(ctx, &linear);
}

static bool
is_pointwise(const OsrConv3d *p)
{
  return p->k_t == 1 && p->k_h == 1 && p->k_w == 1 && p->stride_t == 1 && p->stride_h == 1 &&
         p->stride_w == 1 && p->up_t == 1 && p->up_hw == 1 && p->pad_t[0] + p->pad_t[1] == 0 &&
         p->pad_h[0] + p->pad_h[1] == 0 && p->pad_w[0] + p->pad_w[1] == 0;
}

OsrResult
osr_cpu_conv3d(OsrOpsContext *ctx, const OsrConv3d *p)
{
  Conv cv = { .p = p, .loops = osr_cpu_loops(ctx) };
  int64_t k, weight_floats, zero_floats, total;
  int tile_cols;

  OSR_TRY(osr_check_conv3d(ctx, p, OSR_CPU_DTYPES));
  if (p->w_dtype != OSR_DTYPE_F32)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: cpu has no %s weights",
                    osr_ops_dtype_name(p->w_dtype));
  if (p->batch == 0 || p->t == 0 || p->h == 0 || p->w_in == 0 || p->c_out == 0)
    return OSR_OK;
  if (is_pointwise(p))
    return conv_pointwise(ctx, p);
  /* The checks have seen to it that c_out * k does not overflow. */
  k = (int64_t) p->k_t * p->k_h * p->k_w * p->c_in;
  if (k > INT32_MAX / OSR_MAX_TILE_COLS)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: %lld weights for one output", (long long) k);

  osr_conv3d_out(p, &cv.out_t, &cv.out_h, &cv.out_w);
  tile_cols = cv.loops->tile_cols;
  /* A tile is half as wide at least: from a quarter of that on dots() does less. */
  cv.dots = p->c_out <= tile_cols / 4;
  cv.rows = cv.dots ? OSR_DOTS_ROWS : cv.loops->tile_rows;
  cv.cols = cv.dots ? p->c_out : tile_cols;
  cv.direct = !cv.dots && p->c_out % (tile_cols / 2) == 0;
  cv.panels = (int) osr_ceil_div(p->c_out, cv.cols);
  cv.threads = osr_cpu_threads(ctx, (double) p->batch * cv.out_t * cv.out_h * cv.out_w *
                                        (double) k * p->c_out);

  weight_floats = (int64_t) cv.panels * cv.cols * k;
  zero_floats = (int64_t) p->w_in * p->c_in;
  /* A thread sums the weights of a panel first, and gathers voxels later. */
  cv.work_floats = 2 * (int64_t) p->k_t * p->k_h + OSR_MAX_TILE_COLS * k;
  cv.work_floats = (cv.work_floats + 15) / 16 * 16;
  weight_floats = (weight_floats + 15) / 16 * 16;
  total = weight_floats + cv.threads * cv.work_floats + zero_floats;
  cv.weights = osr_cpu_scratch(ctx, "conv3d", total);
  if (!cv.weights)
    return OSR_ERR_MEMORY;
  cv.work = cv.weights + weight_floats;
  cv.zeros = cv.work + cv.threads * cv.work_floats;
  memset(cv.zeros, 0, (size_t) zero_floats * sizeof *cv.zeros);
  conv_phases(ctx, &cv);
  osr_cpu_scratch_free(ctx, cv.weights, total);
  return OSR_OK;
}
