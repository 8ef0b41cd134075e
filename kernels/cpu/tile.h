/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tile.h: the matrix product that everything heavy is made of, in the compiler's vector
 * extension (gcc and clang), so that one text serves every instruction set.
 *
 * A tile of up to TILE_ROWS x (2 vectors) of c is held in registers. One step of k loads
 * the two vectors of b and multiplies them by one broadcast element of each row of a. a is
 * read where it lies; b comes from a packed panel, read once front to back, which the
 * prefetcher brings from the second-level cache. Included by loops.c alone.
 */
#ifndef OSR_CPU_TILE_H
#define OSR_CPU_TILE_H

#include "loops.h"

#include <string.h>

/* As many rows as leave registers for b and the broadcast element. */
#if defined(__AVX512F__)
#define LANES 16
#define TILE_ROWS 14
#elif defined(__AVX__)
#define LANES 8
#define TILE_ROWS 6
#elif defined(__aarch64__)
#define LANES 4
#define TILE_ROWS 14
#else
#define LANES 4
#define TILE_ROWS 6
#endif
#define TILE_COLS (2 * LANES)

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
/* A loop that must unroll: what it indexes is to live in registers. */
#define foreach(i, n) UNROLL for (int i = 0; i < (n); i++)
#define INLINE static inline __attribute__((always_inline))

typedef float vf __attribute__((vector_size(4 * LANES)));
/* The same at any address of floats. */
typedef float vf_any __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* rows and vectors are constants in every call, so that all loops over them unroll and acc
 * lives in registers. */
INLINE void
tile_body(const OsrTile *t, const int rows, const int vectors)
{
  const ptrdiff_t ld = t->a_ld;
  const float *b = t->b;
  vf acc[TILE_ROWS][2];

  foreach (i, rows)
    foreach (j, vectors) {
      acc[i][j] = (vf){ 0 };
      if (t->bias)
        acc[i][j] = *(const vf_any *) (t->bias + j * LANES);
      if (t->add)
        acc[i][j] += *(const vf_any *) (t->add + i * t->add_ld + j * LANES);
    }

  for (int s = 0; s < t->n_segs; s++) {
    /* One pointer for three rows: x86 has 16 registers for addresses. */
    const float *third[(TILE_ROWS + 2) / 3];

    foreach (i, (rows + 2) / 3)
      third[i] = t->seg[s] + t->a_off + 3 * i * ld;

    for (int k = 0; k < t->seg_len; k++, b += TILE_COLS) {
      vf b0 = *(const vf_any *) b, b1 = b0;

      if (vectors > 1)
        b1 = *(const vf_any *) (b + LANES);
      foreach (i, rows) {
        vf a = third[i / 3][k + i % 3 * ld] - (vf){ 0 };

        acc[i][0] += a * b0;
        if (vectors > 1)
          acc[i][1] += a * b1;
      }
    }
  }

  foreach (i, rows)
    foreach (j, vectors)
      *(vf_any *) (t->c + i * t->c_ld + j * LANES) = acc[i][j];
}

#define TILE_CASE(n)                                                                               \
  case n:                                                                                          \
    if (t->cols <= LANES)                                                                          \
      tile_body(t, n, 1);                                                                          \
    else                                                                                           \
      tile_body(t, n, 2);                                                                          \
    break;

static void
tile(const OsrTile *t)
{
  switch (t->rows) {
    TILE_CASE(1)
    TILE_CASE(2)
    TILE_CASE(3)
    TILE_CASE(4)
    TILE_CASE(5)
    TILE_CASE(6)
#if TILE_ROWS > 6
    TILE_CASE(7)
    TILE_CASE(8)
    TILE_CASE(9)
    TILE_CASE(10)
    TILE_CASE(11)
    TILE_CASE(12)
    TILE_CASE(13)
    TILE_CASE(14)
#endif
  }
}

typedef int32_t vi __attribute__((vector_size(4 * LANES)));

INLINE vf
vf_max(vf a, vf b)
{
  vi more = a > b;

  return (vf) (((vi) a & more) | ((vi) b & ~more));
}

/* Written out because compilers vectorise no maximum that has to mind NaN. */
INLINE float
max_of(const float *x, int n, float max)
{
  vf top[4];
  int j = 0;

  foreach (i, 4)
    top[i] = max - (vf){ 0 };
  for (; j + 4 * LANES <= n; j += 4 * LANES)
    foreach (i, 4)
      top[i] = vf_max(*(const vf_any *) (x + j + i * LANES), top[i]);
  for (; j + LANES <= n; j += LANES)
    top[0] = vf_max(*(const vf_any *) (x + j), top[0]);
  top[0] = vf_max(vf_max(top[0], top[1]), vf_max(top[2], top[3]));
  for (; j < n; j++)
    max = x[j] > max ? x[j] : max;
  foreach (i, LANES)
    max = top[0][i] > max ? top[0][i] : max;
  return max;
}

/* Halves onto halves: log2(LANES) steps that overlap with those of other vectors. */
INLINE float
sum_lanes(vf v)
{
#if LANES == 16
  v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
#elif LANES == 8
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3);
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5);
#else
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1);
#endif
  return v[0] + v[1];
}

/* Two columns at a time: rows * 2 sums run side by side, enough to hide the latency of an
 * addition and to read every row of b once. */
INLINE void
dots_body(const OsrTile *t, const int rows, const int cols, int first)
{
  vf acc[OSR_DOTS_ROWS][2];
  float rest[OSR_DOTS_ROWS][2];
  const float *b[2] = { t->b + first * t->b_ld, t->b + (first + cols - 1) * t->b_ld };

  foreach (i, rows)
    foreach (j, cols) {
      acc[i][j] = (vf){ 0 };
      rest[i][j] = 0.0f;
    }

  for (int s = 0; s < t->n_segs; s++) {
    const float *a = t->seg[s] + t->a_off;
    int k = 0;

    for (; k + LANES <= t->seg_len; k += LANES)
      foreach (i, rows)
        foreach (j, cols)
          acc[i][j] += *(const vf_any *) (a + i * t->a_ld + k) * *(const vf_any *) (b[j] + k);
    for (; k < t->seg_len; k++)
      foreach (i, rows)
        foreach (j, cols)
          rest[i][j] += a[i * t->a_ld + k] * b[j][k];
    foreach (j, cols)
      b[j] += t->seg_len;
  }

  foreach (i, rows)
    foreach (j, cols) {
      float *c = t->c + i * t->c_ld + first + j;

      *c = rest[i][j] + sum_lanes(acc[i][j]);
    }
}

#define DOTS_CASE(n)                                                                               \
  case n:                                                                                          \
    for (j = 0; j + 2 <= t->cols; j += 2)                                                          \
      dots_body(t, n, 2, j);                                                                       \
    if (j < t->cols)                                                                               \
      dots_body(t, n, 1, j);                                                                       \
    break;

static void
dots(const OsrTile *t)
{
  int j;

  switch (t->rows) {
    DOTS_CASE(1)
    DOTS_CASE(2)
    DOTS_CASE(3)
    DOTS_CASE(4)
  }
}

typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));

/* out[k][j] = in[j][k] for a block of 4 x 4 */
INLINE void
transpose4(const float *in, ptrdiff_t in_ld, float *out, ptrdiff_t out_ld)
{
  v4 r0 = *(const v4 *) in, r1 = *(const v4 *) (in + in_ld);
  v4 r2 = *(const v4 *) (in + 2 * in_ld), r3 = *(const v4 *) (in + 3 * in_ld);
  v4 lo01 = __builtin_shufflevector(r0, r1, 0, 4, 1, 5);
  v4 hi01 = __builtin_shufflevector(r0, r1, 2, 6, 3, 7);
  v4 lo23 = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
  v4 hi23 = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);

  *(v4 *) out = __builtin_shufflevector(lo01, lo23, 0, 1, 4, 5);
  *(v4 *) (out + out_ld) = __builtin_shufflevector(lo01, lo23, 2, 3, 6, 7);
  *(v4 *) (out + 2 * out_ld) = __builtin_shufflevector(hi01, hi23, 0, 1, 4, 5);
  *(v4 *) (out + 3 * out_ld) = __builtin_shufflevector(hi01, hi23, 2, 3, 6, 7);
}

static void
pack(const float *w, ptrdiff_t ld, int n, int k, float *panel)
{
  const int n4 = n / 4 * 4, k4 = k / 4 * 4;

  if (n < TILE_COLS)
    memset(panel, 0, (size_t) k * TILE_COLS * sizeof *panel);
  for (int i = 0; i < k4; i += 4)
    for (int j = 0; j < n4; j += 4)
      transpose4(w + j * ld + i, ld, panel + (ptrdiff_t) i * TILE_COLS + j, TILE_COLS);
  for (int j = 0; j < n; j++)
    for (int i = j < n4 ? k4 : 0; i < k; i++)
      panel[(ptrdiff_t) i * TILE_COLS + j] = w[j * ld + i];
}

#endif /* OSR_CPU_TILE_H */
