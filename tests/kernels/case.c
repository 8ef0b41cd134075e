/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One call, made twice and compared. */
#include "checkops.h"

#include <stdlib.h>
#include <string.h>

/* Elements of poison before and after every buffer; keeps the pointer aligned to 256 bytes
 * for types of 4 bytes and more, so that misalignment is only where a case asks for it. */
#define GUARD 256

static void *
must_alloc(size_t size)
{
  void *p = malloc(size ? size : 1);

  if (!p) {
    fprintf(stderr, "checkops: out of memory (%zu bytes)\n", size);
    exit(2);
  }
  return p;
}

static bool
is_float(OsrDType dtype)
{
  return dtype == OSR_DTYPE_F32 || dtype == OSR_DTYPE_BF16 || dtype == OSR_DTYPE_F16 ||
         dtype == OSR_DTYPE_F64 || dtype == OSR_DTYPE_F8_E4M3;
}

/* All bits set is NaN in every float type; integers get a pattern. */
static int
poison(OsrDType dtype)
{
  return is_float(dtype) ? 0xFF : 0xA5;
}

/* --- the backend under test --- */

static void *
scratch_alloc(void *user, size_t size)
{
  Target *target = user;
  void *p;

  if (target->scratch_refuse)
    return NULL;
  if (target->graph_scratch) {
    const size_t end = target->graph_used + (size + 255) / 256 * 256;

    p = end <= GRAPH_SCRATCH ? target->graph_scratch + target->graph_used : NULL;
    target->graph_used = p ? end : target->graph_used;
  } else {
    p = target->backend->mem_alloc(&target->ctx, size);
  }
  if (p) {
    target->backend->mem_set(&target->ctx, p, 0xFF, size);
    target->scratch_live += (int64_t) size + 1;
    if (target->scratch_live > target->scratch_peak)
      target->scratch_peak = target->scratch_live;
  }
  return p;
}

static void
scratch_free(void *user, void *ptr, size_t size)
{
  Target *target = user;

  if (!ptr)
    return;
  target->scratch_live -= (int64_t) size + 1;
  if (!target->graph_scratch)
    target->backend->mem_free(&target->ctx, ptr, size);
}

bool
target_open(Target *target, const OsrBackend *backend, int n_threads)
{
  char why[256] = "";

  memset(target, 0, sizeof *target);
  target->backend = backend;
  target->ops = backend->ops;
  target->ctx.backend = backend;
  target->ctx.n_threads = n_threads;
  target->ctx.scratch_alloc = scratch_alloc;
  target->ctx.scratch_free = scratch_free;
  target->ctx.user = target;
  if (backend->abi != OSR_OPS_ABI) {
    fprintf(stderr, "checkops: backend %s has ABI %u, not %u\n", backend->name, backend->abi,
            OSR_OPS_ABI);
    return false;
  }
  if (backend->device_count(why, sizeof why) < 1) {
    fprintf(stderr, "checkops: backend %s has no device: %s\n", backend->name, why);
    return false;
  }
  if (backend->open(&target->ctx, 0) != OSR_OK) {
    fprintf(stderr, "checkops: cannot open backend %s: %s\n", backend->name, target->ctx.error);
    return false;
  }
  return true;
}

bool
target_alive(Target *target)
{
  return target->backend->synchronize(&target->ctx) == OSR_OK;
}

void
target_close(Target *target)
{
  target->backend->close(&target->ctx);
}

/* --- arguments --- */

void
case_dtype(Case *c, OsrDType *field, OsrDType dtype)
{
  c->dtype_field[c->n_dtypes] = field;
  c->dtype_value[c->n_dtypes++] = dtype;
}

void
arg_set(Arg *arg, int64_t i, double value)
{
  size_t at = arg->origin + (size_t) i;

  element_store(arg->dtype, arg->image, at, value);
  element_store(arg->ref_dtype, arg->ref, at, element_load(arg->dtype, arg->image, at));
}

double
arg_get(const Arg *arg, int64_t i)
{
  return element_load(arg->dtype, arg->image, arg->origin + (size_t) i);
}

void
case_view(Case *c, void *field, const Arg *arg, int64_t offset)
{
  c->fields[c->n_fields++] = (Field){ field, (int) (arg - c->args), offset };
}

void
case_region(Case *c, Arg *arg, int64_t offset, int64_t batch, int64_t stride, int64_t rows,
            int64_t ld, int64_t n, double mean, double scale)
{
  for (int64_t b = 0; b < batch; b++)
    for (int64_t i = 0; i < rows; i++)
      for (int64_t j = 0; j < n; j++) {
        int64_t at = offset + b * stride + i * ld + j;

        arg->inside[arg->origin + (size_t) at] = 1;
        if (arg->role != ROLE_OUT && is_float(arg->dtype))
          arg_set(arg, at, mean + scale * rng_normal(&c->rng));
      }
}

Arg *
case_matrix(Case *c, void *field, const char *name, Role role, OsrDType dtype, int64_t batch,
            int64_t stride, int64_t rows, int64_t ld, int64_t n, double mean, double scale)
{
  Arg *arg = &c->args[c->n_args++];
  int64_t span = 0;

  /* A view or a second region may need the whole rows, hence ld and not n. */
  if (batch > 0 && rows > 0)
    span = (batch - 1) * stride + (rows - 1) * ld + (ld > n ? ld : n);

  arg->name = name;
  arg->role = role;
  arg->dtype = dtype;
  arg->ref_dtype = is_float(dtype) ? OSR_DTYPE_F32 : dtype;
  arg->origin = GUARD;
  arg->batch = batch;
  arg->stride = stride;
  arg->ld = ld;
  /* Nothing in ops.h asks for aligned pointers. */
  if (!c->aligned && rng_one_in(&c->rng, 4))
    arg->origin += (size_t) rng_range(&c->rng, 1, 7);
  arg->total = arg->origin + (size_t) span + GUARD;
  arg->inside = must_alloc(arg->total);
  arg->ref = must_alloc(arg->total * 8);
  arg->image = must_alloc(arg->total * 8);
  arg->after = must_alloc(arg->total * 8);
  memset(arg->inside, 0, arg->total);
  memset(arg->ref, poison(arg->ref_dtype), arg->total * 8);
  memset(arg->image, poison(arg->dtype), arg->total * 8);
  case_view(c, field, arg, 0);
  case_region(c, arg, 0, batch, stride, rows, ld, n, mean, scale);
  return arg;
}

Arg *
case_array(Case *c, void *field, const char *name, Role role, OsrDType dtype, int64_t n,
           double mean, double scale)
{
  return case_matrix(c, field, name, role, dtype, 1, 0, 1, n, n, mean, scale);
}

static int64_t
round_up(int64_t n)
{
  return (n + 7) / 8 * 8;
}

int
case_width(Case *c, int64_t max)
{
  int64_t n = rng_size(&c->rng, max);

  return (int) (c->aligned && !rng_one_in(&c->rng, 4) ? round_up(n) : n);
}

int64_t
case_ld(Case *c, int64_t n)
{
  if (c->aligned)
    return round_up(n) + (rng_one_in(&c->rng, 2) ? 0 : 8 * rng_range(&c->rng, 1, 4));
  return n + (rng_one_in(&c->rng, 2) ? 0 : rng_range(&c->rng, 1, 9));
}

int64_t
case_stride(Case *c, int64_t rows, int64_t ld)
{
  if (c->aligned)
    return rows * ld + (rng_one_in(&c->rng, 2) ? 0 : 8 * rng_range(&c->rng, 1, 4));
  return rows * ld + (rng_one_in(&c->rng, 2) ? 0 : rng_range(&c->rng, 1, 19));
}

void
case_describe(Case *c, const char *fmt, ...)
{
  va_list args;

  va_start(args, fmt);
  vsnprintf(c->text, sizeof c->text, fmt, args);
  va_end(args);
}

static void
case_describe_more(Case *c, const char *text)
{
  const size_t length = strlen(c->text);

  snprintf(c->text + length, sizeof c->text - length, "%s", text);
}

/* --- the two calls --- */

static void case_fail(Case *c, const char *fmt, ...) OSR_PRINTF(2, 3);

static void
case_fail(Case *c, const char *fmt, ...)
{
  va_list args;

  if (c->verdict == CASE_FAILED) /* the first reason counts */
    return;
  c->verdict = CASE_FAILED;
  va_start(args, fmt);
  vsnprintf(c->why, sizeof c->why, fmt, args);
  va_end(args);
}

static void
bind(Case *c, bool to_reference)
{
  for (int i = 0; i < c->n_fields; i++) {
    const Arg *arg = &c->args[c->fields[i].arg];
    size_t at = arg->origin + (size_t) c->fields[i].offset;
    char *base = to_reference ? arg->ref : arg->dev;
    void *p = base + at * osr_dtype_size(to_reference ? arg->ref_dtype : arg->dtype);

    memcpy(c->fields[i].address, &p, sizeof p);
  }
  for (int i = 0; i < c->n_dtypes; i++)
    *c->dtype_field[i] = to_reference ? OSR_DTYPE_F32 : c->dtype_value[i];
}

static bool
call_reference(Case *c, const void *params)
{
  OsrOpsContext ctx = { .backend = &osr_backend_ref };
  OsrResult result;

  bind(c, true);
  osr_backend_ref.open(&ctx, 0);
  result = c->call(&osr_backend_ref.ops, &ctx, params);
  osr_backend_ref.close(&ctx);
  if (result != OSR_OK)
    case_fail(c, "the reference refuses: %s", ctx.error);
  return result == OSR_OK;
}

static bool
upload(Case *c)
{
  const OsrBackend *backend = c->target->backend;

  for (int i = 0; i < c->n_args; i++) {
    Arg *arg = &c->args[i];
    size_t size = arg->total * osr_dtype_size(arg->dtype);

    if (!arg->dev)
      arg->dev = backend->mem_alloc(&c->target->ctx, size);
    if (!arg->dev ||
        backend->copy(&c->target->ctx, OSR_COPY_TO_DEVICE, arg->dev, arg->image, size) != OSR_OK) {
      case_fail(c, "no memory of %zu bytes on the device for %s", size, arg->name);
      return false;
    }
  }
  return true;
}

/* The call as a graph, which must do nothing before it is launched. */
static OsrResult
call_recorded(Target *target, CallFn call, const void *params)
{
  const OsrBackend *backend = target->backend;
  OsrOpsContext *ctx = &target->ctx;
  void *graph = NULL;
  OsrResult result, ended;

  target->graph_used = 0;
  target->graph_scratch = backend->mem_alloc(ctx, GRAPH_SCRATCH);
  if (!target->graph_scratch)
    return osr_fail(ctx, OSR_ERR_MEMORY, "no memory for a graph");
  result = backend->graph_begin(ctx);
  if (result == OSR_OK) {
    result = call(&target->ops, ctx, params);
    ended = backend->graph_end(ctx, result == OSR_OK ? &graph : NULL);
    result = result == OSR_OK ? ended : result;
  }
  if (result == OSR_OK)
    result = backend->graph_launch(ctx, graph);
  if (result == OSR_OK)
    result = backend->synchronize(ctx);
  if (graph)
    backend->graph_free(ctx, graph);
  backend->mem_free(ctx, target->graph_scratch, GRAPH_SCRATCH);
  target->graph_scratch = NULL;
  return result;
}

static OsrResult
call_target(Case *c, const void *params)
{
  Target *target = c->target;
  OsrResult result;

  target->ctx.error[0] = '\0';
  target->scratch_live = 0;
  if (target->backend->graph_begin && rng_one_in(&c->rng, 6)) {
    case_describe_more(c, ", as a graph");
    result = call_recorded(target, c->call, params);
  } else {
    result = c->call(&target->ops, &target->ctx, params);
    if (result == OSR_OK)
      result = target->backend->synchronize(&target->ctx);
  }
  if (target->scratch_live != 0)
    case_fail(c, "scratch memory is not given back, or with another size");
  if (result != OSR_OK && target->ctx.error[0] == '\0')
    case_fail(c, "result %d without a message", result);
  return result;
}

double
type_tolerance(OsrDType dtype)
{
  switch (dtype) {
  case OSR_DTYPE_BF16:
    return 1e-2;
  case OSR_DTYPE_F16:
    return 2e-3;
  default:
    return 2e-5;
  }
}

double
product_tolerance(const Target *target, OsrDType dtype)
{
  return target->tf32 && dtype == OSR_DTYPE_F32 ? 1e-3 : 0.0;
}

/* Bytes of pixels: both sides round a real number, and may fall on either side of a half. */
static void
compare_bytes(Case *c, const Arg *arg)
{
  size_t n = 0, off_by_one = 0;

  for (size_t i = 0; i < arg->total; i++) {
    double got = element_load(arg->dtype, arg->after, i), want, d;

    if (!arg->inside[i])
      continue;
    want = element_load(arg->ref_dtype, arg->ref, i);
    d = fabs(got - want);
    n++;
    if (d == 1.0 && !c->exact)
      off_by_one++;
    else if (d != 0.0)
      case_fail(c, "%s[%lld] is %g, not %g", arg->name, (long long) i - (long long) arg->origin,
                got, want);
  }
  if (off_by_one > 1 + n / 500)
    case_fail(c, "%s: %zu of %zu bytes are off by one", arg->name, off_by_one, n);
}

static void
compare_exact(Case *c, const Arg *arg)
{
  size_t size = osr_dtype_size(arg->dtype);

  for (size_t i = 0; i < arg->total; i++) {
    uint64_t want = 0, got = 0;

    if (!arg->inside[i])
      continue;
    if (arg->dtype == arg->ref_dtype)
      memcpy(&want, (const char *) arg->ref + i * size, size);
    else
      element_store(arg->dtype, &want, 0, element_load(arg->ref_dtype, arg->ref, i));
    memcpy(&got, (const char *) arg->after + i * size, size);
    /* NaN may come in any of its encodings, but only where the reference has one too. */
    if (is_float(arg->dtype) && isnan(element_load(arg->dtype, &want, 0)) &&
        isnan(element_load(arg->dtype, &got, 0)))
      continue;
    if (got != want)
      case_fail(c, "%s[%lld] is %.9g (0x%llx), not %.9g (0x%llx)", arg->name,
                (long long) i - (long long) arg->origin, element_load(arg->dtype, &got, 0),
                (unsigned long long) got, element_load(arg->dtype, &want, 0),
                (unsigned long long) want);
  }
}

/* Cases feed the ops with numbers around 1. Where the result is far below that, it is what
 * rounding and cancellation left over, and is not asked to be right to five digits. */
#define SMALL 0.02

/* What is wrong with an output: how much of it, where, and the first few elements. */
typedef struct Fault {
  size_t n;
  int64_t first[3], last[3]; /* the smallest box of item, row, column that holds them all */
  char examples[400];
} Fault;

static void
fault_add(Fault *fault, const Arg *arg, size_t i, double got, double want)
{
  const int64_t at = (int64_t) i - (int64_t) arg->origin;
  const size_t length = strlen(fault->examples);
  int64_t place[3] = { 0, 0, 0 };

  if (arg->batch > 1 && arg->stride > 0)
    place[0] = at / arg->stride < arg->batch ? at / arg->stride : arg->batch - 1;
  place[1] = arg->ld > 0 ? (at - place[0] * arg->stride) / arg->ld : 0;
  place[2] = at - place[0] * arg->stride - place[1] * arg->ld;
  for (int k = 0; k < 3; k++) {
    if (fault->n == 0 || place[k] < fault->first[k])
      fault->first[k] = place[k];
    if (fault->n == 0 || place[k] > fault->last[k])
      fault->last[k] = place[k];
  }
  if (fault->n++ < 5)
    snprintf(fault->examples + length, sizeof fault->examples - length,
             "%s[%lld, %lld, %lld] is %.6g, not %.6g", length ? "; " : "", (long long) place[0],
             (long long) place[1], (long long) place[2], got, want);
}

static void
fault_report(Case *c, const Arg *arg, const Fault *fault, size_t n, double relative)
{
  case_fail(c,
            "%s: %zu of %zu elements are wrong, items %lld-%lld, rows %lld-%lld, columns "
            "%lld-%lld, relative error %.3g: %s",
            arg->name, fault->n, n, (long long) fault->first[0], (long long) fault->last[0],
            (long long) fault->first[1], (long long) fault->last[1], (long long) fault->first[2],
            (long long) fault->last[2], relative, fault->examples);
}

/* The error of the whole in the 2-norm, and no element far off for its size. */
static void
compare_floats(Case *c, const Arg *arg)
{
  double limit = c->tolerance > 0 ? c->tolerance : type_tolerance(arg->dtype);
  double error = 0.0, norm = 0.0, rms, relative;
  Fault fault = { 0 };
  size_t n = 0;

  for (size_t i = 0; i < arg->total; i++) {
    double got, want;

    if (!arg->inside[i])
      continue;
    got = element_load(arg->dtype, arg->after, i);
    want = element_load(arg->ref_dtype, arg->ref, i);
    error += (got - want) * (got - want);
    norm += want * want;
    n++;
  }
  if (n == 0)
    return;

  rms = fmax(sqrt(norm / (double) n), SMALL);
  relative = sqrt(error / (double) n) / rms;
  for (size_t i = 0; i < arg->total; i++) {
    double got, want;

    if (!arg->inside[i])
      continue;
    got = element_load(arg->dtype, arg->after, i);
    want = element_load(arg->ref_dtype, arg->ref, i);
    /* False for NaN, and for a reference that is not finite. */
    if (!(fabs(got - want) <= 5.0 * limit * (fabs(want) + rms)) || !isfinite(want))
      fault_add(&fault, arg, i, got, want);
  }
  if (fault.n > 0)
    fault_report(c, arg, &fault, n, relative);
  else if (!(relative <= limit))
    case_fail(c, "%s: relative error %.3g, limit %.3g", arg->name, relative, limit);
}

/* Nothing but the elements of outputs may have changed. */
static void
compare_untouched(Case *c, const Arg *arg)
{
  size_t size = osr_dtype_size(arg->dtype);

  for (size_t i = 0; i < arg->total; i++) {
    if (arg->role != ROLE_IN && arg->inside[i])
      continue;
    if (memcmp((const char *) arg->image + i * size, (const char *) arg->after + i * size, size))
      case_fail(c, "%s[%lld], which is %s, was written", arg->name,
                (long long) i - (long long) arg->origin,
                arg->inside[i] ? "input" : "outside of the argument");
  }
}

static void
compare(Case *c)
{
  for (int i = 0; i < c->n_args; i++) {
    Arg *arg = &c->args[i];
    size_t size = arg->total * osr_dtype_size(arg->dtype);

    if (c->target->backend->copy(&c->target->ctx, OSR_COPY_TO_HOST, arg->after, arg->dev, size) !=
        OSR_OK) {
      case_fail(c, "copying %s back: %s", arg->name, c->target->ctx.error);
      return;
    }
    compare_untouched(c, arg);
    if (arg->role == ROLE_IN)
      continue;
    if (arg->dtype == OSR_DTYPE_U8)
      compare_bytes(c, arg);
    else if (c->exact)
      compare_exact(c, arg);
    else
      compare_floats(c, arg);
  }
}

static void
case_free(Case *c)
{
  for (int i = 0; i < c->n_args; i++) {
    Arg *arg = &c->args[i];

    if (arg->dev)
      c->target->backend->mem_free(&c->target->ctx, arg->dev,
                                   arg->total * osr_dtype_size(arg->dtype));
    free(arg->inside);
    free(arg->ref);
    free(arg->image);
    free(arg->after);
  }
}

static void
run_both(Case *c, const void *params)
{
  OsrResult result;

  if (!call_reference(c, params) || !upload(c))
    return;
  bind(c, false);

  /* Now and then memory is full: the op says so, or does without. */
  if (rng_one_in(&c->rng, 8)) {
    c->target->scratch_refuse = true;
    result = call_target(c, params);
    c->target->scratch_refuse = false;
    if (result != OSR_OK && result != OSR_ERR_MEMORY && result != OSR_ERR_UNSUPPORTED)
      case_fail(c, "result %d without scratch memory: %s", result, c->target->ctx.error);
    if (result == OSR_ERR_MEMORY && !upload(c))
      return;
    if (result == OSR_ERR_MEMORY)
      result = call_target(c, params);
  } else {
    result = call_target(c, params);
  }

  if (result == OSR_ERR_UNSUPPORTED && c->may_lack) {
    if (c->verdict != CASE_FAILED)
      c->verdict = CASE_SKIPPED;
    return;
  }
  if (result != OSR_OK)
    case_fail(c, "result %d: %s", result, c->target->ctx.error);
  else
    compare(c);
}

void
case_run(Case *c, const void *params)
{
  c->verdict = CASE_PASSED;
  run_both(c, params);
  case_free(c);
}
