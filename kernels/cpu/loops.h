/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loops.h: the innermost loops of the CPU backend, one table an instruction set.
 *
 * loops.c is compiled once for each of them (AVX-512, AVX2 with FMA, and whatever the
 * compiler takes for granted) and cpu.c picks a table when the backend opens. Everything
 * here is single-threaded and works on data that a core has in its caches; which thread
 * does which part is decided in linear.c, conv.c, attention.c and norm.c.
 */
#ifndef OSR_CPU_LOOPS_H
#define OSR_CPU_LOOPS_H

#include "../ops.h"

/* What happens to a finished product: y = residual + gate * act(c * scale + bias). Every
 * vector is indexed by the column; a NULL one is left out. */
typedef struct OsrEpilogue {
  const float *scale, *bias, *gate;
  OsrAct act;
  const float *residual;
  ptrdiff_t residual_ld;
  float *y;
  ptrdiff_t y_ld;
} OsrEpilogue;

/*
 * A small product c[i][j] = sum_k a[i][k] b[k][j]. The sum runs over `n_segs` segments of
 * `seg_len` elements. In segment s row i of a starts at seg[s] + a_off + i * a_ld: one
 * segment is a matrix, k_t * k_h of them are what a voxel sees of the rows of a video.
 */
typedef struct OsrTile {
  int rows, cols;
  const float *const *seg;
  int n_segs, seg_len;
  ptrdiff_t a_off, a_ld;
  const float *b;
  ptrdiff_t b_ld; /* dots() alone */
  float *c;
  ptrdiff_t c_ld;
  /* tile() alone: what the sum starts from, both or NULL. */
  const float *bias; /* [cols] */
  const float *add;  /* [rows][cols], may be c */
  ptrdiff_t add_ld;
} OsrTile;

typedef struct OsrLoops {
  const char *name;
  /* Largest `rows` and `cols` of tile(). A packed panel of b is [k][tile_cols]. */
  int tile_rows, tile_cols;
  /* b is a packed panel. Reads bias and add and writes c in whole vectors: tile_cols
   * columns, or half of that if cols is no more. */
  void (*tile)(const OsrTile *t);
  /* The same for few rows or columns and b as its transpose, row j at b + j * b_ld. */
  void (*dots)(const OsrTile *t);
  /* panel[k][j] = w[j * ld + k] for j < n <= tile_cols, zeros up to tile_cols. */
  void (*pack)(const float *w, ptrdiff_t ld, int n, int k, float *panel);
  /* c is overwritten. */
  void (*epilogue)(const OsrEpilogue *e, float *c, ptrdiff_t c_ld, int rows, int cols);

  /* y = act(a x + b) */
  void (*affine)(OsrAct act, float a, float b, const float *x, float *y, int64_t n);
  /* y[j] = act(x[j]) x[n + j] */
  void (*glu)(OsrAct act, const float *x, int n, float *y);
  /* One row; any of weight, bias, scale, shift may be NULL. */
  void (*layer_norm)(const float *x, int n, float eps, const float *weight, const float *bias,
                     const float *scale, const float *shift, float *y);
  void (*rms_norm)(const float *x, int n, float eps, const float *weight, float *y);
  /* One head, in place. */
  void (*norm_rope)(float *x, int head_dim, const float *scale, float eps, OsrRope rope,
                    const float *cos, const float *sin);

  /* One row of scores of a block of keys becomes exp(s + bias - max), zeros from n to
   * `width`. *max and *sum are those of the row so far; returns the factor by which the
   * new maximum shrinks what was summed before (online softmax, arXiv:1805.02867). */
  float (*softmax)(float *s, int n, int width, const float *bias, float *max, float *sum);

  /* Sums over positions of x and of (x - mean)^2, for every channel. */
  void (*channel_sums)(const float *x, int64_t positions, int channels, float *sums);
  void (*channel_squares)(const float *x, int64_t positions, int channels, const float *mean,
                          float *sums);
  /* y = act((x - mean[channel]) * a[channel] + b[channel]) */
  void (*channel_norm)(OsrAct act, const float *x, int64_t positions, int channels,
                       const float *mean, const float *a, const float *b, float *y);
} OsrLoops;

#define OSR_MAX_TILE_ROWS 14
#define OSR_MAX_TILE_COLS 32

/* Largest `rows` of dots(). */
#define OSR_DOTS_ROWS 4

extern const OsrLoops osr_loops_base;
#ifdef OSR_HAVE_X86_LOOPS
extern const OsrLoops osr_loops_avx2, osr_loops_avx512;
#endif

#endif /* OSR_CPU_LOOPS_H */
