/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * checkops: runs every op of a backend against kernels/ref on random calls.
 *
 * A case is one call. Its builder (cases-*.c) draws shapes and options, registers each
 * pointer of the parameter struct as an argument, and hands over to case_run(), which
 * makes the call twice: with the reference on f32 host memory, and with the backend under
 * test on its own memory and types. Everything that the op must not read is NaN, and
 * everything that it must not write is compared afterwards.
 */
#ifndef CHECKOPS_H
#define CHECKOPS_H

#include "common.h"

#define MAX_ARGS 16
#define MAX_FIELDS 24

/* --- random numbers --- */

typedef struct Rng {
  uint64_t state;
} Rng;

uint64_t rng_next(Rng *rng);
/* Uniform in [low, high]. */
int64_t rng_range(Rng *rng, int64_t low, int64_t high);
/* True once in `n` times. */
bool rng_one_in(Rng *rng, int n);
double rng_normal(Rng *rng);
/* A size in [0, max]: rarely 0, often 1, primes, powers of two and their neighbours. */
int64_t rng_size(Rng *rng, int64_t max);

/* --- elements of any type, by value --- */

double element_load(OsrDType dtype, const void *data, size_t i);
/* Rounds to nearest, ties to even. */
void element_store(OsrDType dtype, void *data, size_t i, double value);

/* --- a backend under test --- */

typedef struct Target {
  const OsrBackend *backend;
  OsrOps ops; /* the backend's, or a sabotaged copy */
  OsrOpsContext ctx;
  int64_t scratch_live; /* scratch blocks handed out and not yet given back */
  int64_t scratch_peak; /* the most bytes of them */
  bool scratch_refuse;  /* pretend that memory is full */
  char *graph_scratch;  /* of the call that is being recorded */
  size_t graph_used;
  bool tf32; /* products of f32 matrices have 10 bits of mantissa */
} Target;

/* False with a reason on stderr when the backend cannot be opened. */
bool target_open(Target *target, const OsrBackend *backend, int n_threads);
/* Scratch memory for a recording, which has none of its own. */
#define GRAPH_SCRATCH ((size_t) 256 << 20)

/* Whether the backend still answers; an error of the device does not go away. */
bool target_alive(Target *target);
void target_close(Target *target);

/* --- arguments of a case --- */

typedef enum Role {
  ROLE_IN,   /* must come back unchanged */
  ROLE_OUT,  /* poisoned before, every element must be written */
  ROLE_INOUT /* read and written */
} Role;

/* A buffer, in the types of both sides. Elements that belong to the argument are `inside`;
 * the rest (gaps between rows, guards at both ends) is poison. */
typedef struct Arg {
  const char *name;
  Role role;
  OsrDType dtype, ref_dtype;
  size_t total, origin;      /* elements in all; element the pointer points to */
  int64_t batch, stride, ld; /* where items and rows begin, for messages */
  uint8_t *inside;
  void *ref, *image, *after; /* host memory: reference's, backend's before and after */
  void *dev;
} Arg;

/* A pointer in the parameter struct. */
typedef struct Field {
  void *address;
  int arg;
  int64_t offset;
} Field;

typedef enum Verdict { CASE_PASSED, CASE_FAILED, CASE_SKIPPED } Verdict;

typedef OsrResult (*CallFn)(const OsrOps *ops, OsrOpsContext *ctx, const void *params);

typedef struct Case {
  Target *target;
  Rng rng;
  OsrDType dtype;
  CallFn call;
  bool aligned;     /* pointers and strides are multiples of 16 bytes: the fast paths */
  bool may_lack;    /* OSR_ERR_UNSUPPORTED skips the case */
  bool exact;       /* outputs must equal the rounded reference */
  double tolerance; /* relative; 0: by type */
  char text[384];   /* what is called, for messages */
  char why[768];    /* why it failed */
  Verdict verdict;
  Arg args[MAX_ARGS];
  int n_args;
  Field fields[MAX_FIELDS];
  int n_fields;
  OsrDType *dtype_field[2], dtype_value[2];
  int n_dtypes;
} Case;

/* The types of the call: the reference gets f32 in this field, the backend `dtype`. */
void case_dtype(Case *c, OsrDType *field, OsrDType dtype);

/* A new buffer for the pointer at `field`, [batch, rows, n] with the strides given, filled
 * with normal numbers of this mean and scale (but for ROLE_OUT). */
Arg *case_matrix(Case *c, void *field, const char *name, Role role, OsrDType dtype, int64_t batch,
                 int64_t stride, int64_t rows, int64_t ld, int64_t n, double mean, double scale);
/* The same for n contiguous elements. */
Arg *case_array(Case *c, void *field, const char *name, Role role, OsrDType dtype, int64_t n,
                double mean, double scale);
/* Another pointer into the buffer of `arg`, `offset` elements on. */
void case_view(Case *c, void *field, const Arg *arg, int64_t offset);
/* Makes [batch, rows, n] at `offset` part of the argument too. */
void case_region(Case *c, Arg *arg, int64_t offset, int64_t batch, int64_t stride, int64_t rows,
                 int64_t ld, int64_t n, double mean, double scale);
/* Element `i` counted from the pointer, on both sides. */
void arg_set(Arg *arg, int64_t i, double value);
double arg_get(const Arg *arg, int64_t i);

/* The width of a matrix: rng_size(), and in aligned cases mostly a multiple of 8. */
int case_width(Case *c, int64_t max);
/* Row and batch strides: tight half of the time. */
int64_t case_ld(Case *c, int64_t n);
int64_t case_stride(Case *c, int64_t rows, int64_t ld);
void case_describe(Case *c, const char *fmt, ...) OSR_PRINTF(2, 3);

/* Makes both calls and sets verdict and why. */
void case_run(Case *c, const void *params);

/* --- the tests --- */

/* Relative error that outputs of a type may have. */
double type_tolerance(OsrDType dtype);
/* That of products of matrices, for Case.tolerance: 0 or what TF32 allows. */
double product_tolerance(const Target *target, OsrDType dtype);

typedef struct OpTest {
  const char *name;
  CallFn call;
  void (*build)(Case *c);
} OpTest;

extern const OpTest op_tests[];
extern const int n_op_tests;

/* The entry of an op that exists. */
CallFn call_of(const char *op);

void build_linear(Case *c);
void build_glu(Case *c);
void build_layer_norm(Case *c);
void build_rms_norm(Case *c);
void build_qk_norm_rope(Case *c);
void build_attention(Case *c);
void build_group_norm(Case *c);
void build_conv3d(Case *c);
void build_patchify(Case *c);
void build_unpatchify(Case *c);
void build_embedding(Case *c);
void build_timestep(Case *c);
void build_affine(Case *c);
void build_copy2d(Case *c);
void build_guidance_step(Case *c);
void build_randn(Case *c);
void build_gaussian(Case *c);
void build_blend(Case *c);
void build_tensor_to_frame(Case *c);
void build_frame_to_tensor(Case *c);

/* Whether `ops`, names between commas, NULL for all, has this one. */
bool op_wanted(const char *ops, const char *name);

typedef struct Tally {
  int passed, failed, skipped;
  bool quiet;
} Tally;

void tally_add(Tally *tally, bool ok, const char *fmt, ...) OSR_PRINTF(3, 4);

/* N random cases of one op in one type. `only` >= 0 runs that case alone. */
void run_random(Target *target, const OpTest *test, OsrDType dtype, uint64_t seed, int cases,
                int only, Tally *tally);
/* Calls that no backend can run, and calls without work. `op` NULL: all. */
void run_invalid(Target *target, const char *op, Tally *tally);
/* Philox and the reference itself against numbers from elsewhere. */
void run_known(Tally *tally);
/* Whether every deliberately wrong backend is found out. */
void run_self_test(uint64_t seed, int cases, Tally *tally);
/* Calls of the models' sizes and beyond 2^31 elements, compared at some of their rows. */
void run_large(Target *target, const char *op, OsrDType dtype, Tally *tally);
/* Times the ops in the types of the mask; false when something could not be run. */
bool run_bench(Target *target, const char *op, uint32_t dtypes, bool large);

#endif /* CHECKOPS_H */
