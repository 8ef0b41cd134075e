/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * checkops --large: calls of the models' sizes, and calls whose elements 32 bits cannot count.
 *
 * Inputs are one long random sequence over and over, so any element is known without a copy on
 * the host. Its length is a prime, so no two rows of a matrix are alike. What 32 bits cannot
 * count is left to the 16-bit types, whose kernels are the same templates. Outputs are NaN before,
 * and are compared at some of their rows: the first and the last, those where tiles end, some
 * in between. Both sides of every output are watched.
 */
#ifndef CHECKOPS_LARGE_H
#define CHECKOPS_LARGE_H

#include "checkops.h"

#define PERIOD 1000003
#define SAMPLES 12
#define GUARD 4096 /* bytes */
#define MAX_BUFFERS 12

typedef struct Buffer {
  OsrDType dtype;
  int64_t n;
  size_t size;  /* with both guards */
  char *memory; /* of the device */
  void *data;
  double *values; /* one period of an input, as rounded to its type */
} Buffer;

typedef struct Large {
  Target *target;
  Tally *tally;
  OsrDType dtype;
  double *normal; /* one period */
  Buffer buffers[MAX_BUFFERS];
  int n_buffers;
  bool refused; /* something did not fit into memory */
  double error, norm;
  Rng rng;
  char wrong[300];
} Large;

/* New buffers of the call at hand; NULL, and l->refused, without memory for them. Elements of
 * inputs are normal with this mean and scale. */
Buffer *large_buffer(Large *l, OsrDType dtype, int64_t n);
const void *large_input(Large *l, OsrDType dtype, int64_t n, double mean, double scale,
                        Buffer **out);
void *large_output(Large *l, int64_t n, Buffer **out);
/* Elements at .. at + n of an input. */
void large_get(const Buffer *b, int64_t at, int64_t n, double *to);
void large_get_floats(const Buffer *b, int64_t at, int64_t n, float *to);
/* Zeroed memory of the host. */
void *large_allocate(size_t n, size_t size);

/* Sample `i` of SAMPLES among `rows` rows. */
int64_t large_sample(Large *l, int i, int64_t rows);
/* Runs the call; false when there is nothing to compare. */
bool large_call(Large *l, CallFn op, const void *params);
/* Compares n elements of y from `at` on; `row` is what messages call them. */
void large_compare(Large *l, const Buffer *y, int64_t row, int64_t at, int64_t n,
                   const double *want, double limit);
/* Relative error that products of matrices may have. */
double large_product_limit(const Large *l);
/* The verdict on the call that the text describes; frees its buffers. */
void large_finish(Large *l, double limit, const char *fmt, ...) OSR_PRINTF(3, 4);

/* large-attention.c, large-conv.c */
void large_attention(Large *l);
void large_conv3d(Large *l);

#endif /* CHECKOPS_LARGE_H */
