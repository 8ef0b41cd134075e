/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command: which backend, which ops, how many cases; the list of ops. */
#include "checkops.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SKIPPED 77 /* exit status, as meson and automake have it */

#define CALL(op, Params)                                                                           \
  static OsrResult call_##op(const OsrOps *ops, OsrOpsContext *ctx, const void *params)            \
  {                                                                                                \
    return ops->op(ctx, (const Params *) params);                                                  \
  }

CALL(linear, OsrLinear)
CALL(glu, OsrGlu)
CALL(layer_norm, OsrLayerNorm)
CALL(rms_norm, OsrRmsNorm)
CALL(qk_norm_rope, OsrQkNormRope)
CALL(attention, OsrAttention)
CALL(group_norm, OsrGroupNorm)
CALL(conv3d, OsrConv3d)
CALL(patchify, OsrPatchify)
CALL(unpatchify, OsrPatchify)
CALL(embedding, OsrEmbedding)
CALL(timestep, OsrTimestep)
CALL(affine, OsrAffine)
CALL(copy2d, OsrCopy2d)
CALL(guidance_step, OsrGuidanceStep)
CALL(randn, OsrRandn)
CALL(gaussian, OsrGaussian)
CALL(blend, OsrBlend)
CALL(tensor_to_frame, OsrFrame)
CALL(frame_to_tensor, OsrFrame)

/* clang-format off */
#define TEST(op) { #op, call_##op, build_##op }
/* clang-format on */

const OpTest op_tests[] = {
  TEST(linear),    TEST(glu),        TEST(layer_norm), TEST(rms_norm),        TEST(qk_norm_rope),
  TEST(attention), TEST(group_norm), TEST(conv3d),     TEST(patchify),        TEST(unpatchify),
  TEST(embedding), TEST(timestep),   TEST(affine),     TEST(copy2d),          TEST(guidance_step),
  TEST(randn),     TEST(gaussian),   TEST(blend),      TEST(tensor_to_frame), TEST(frame_to_tensor),
};
const int n_op_tests = sizeof op_tests / sizeof *op_tests;

/* Every entry of the table has a test: the table has nothing but function pointers. */
_Static_assert(sizeof(OsrOps) == sizeof op_tests / sizeof *op_tests * sizeof(void (*)(void)),
               "an op of ops.h has no test");

CallFn
call_of(const char *op)
{
  const OpTest *test = op_tests;

  while (strcmp(test->name, op) != 0)
    test++;
  return test->call;
}

void
tally_add(Tally *tally, bool ok, const char *fmt, ...)
{
  va_list args;

  if (ok)
    tally->passed++;
  else
    tally->failed++;
  if (ok || tally->quiet)
    return;
  va_start(args, fmt);
  printf("FAIL ");
  vprintf(fmt, args);
  printf("\n");
  va_end(args);
}

/* Cases are independent of each other and of what else is run: the seed, the op, the type
 * and the index make a case. */
static uint64_t
case_seed(uint64_t seed, const char *name, OsrDType dtype, int index)
{
  uint64_t h = 0xCBF29CE484222325u; /* FNV-1a */

  for (; *name; name++)
    h = (h ^ (uint8_t) *name) * 0x100000001B3u;
  return seed ^ h ^ (uint64_t) dtype << 56 ^ (uint64_t) index * 0xD1342543DE82EF95u;
}

void
run_random(Target *target, const OpTest *test, OsrDType dtype, uint64_t seed, int cases, int only,
           Tally *tally)
{
  int before = tally->failed, skipped = 0;
  bool lost;

  for (int i = only >= 0 ? only : 0; i < (only >= 0 ? only + 1 : cases); i++) {
    Case *c = calloc(1, sizeof *c);

    if (!c) {
      tally_add(tally, false, "%s: no memory", test->name);
      return;
    }
    c->target = target;
    c->rng.state = case_seed(seed, test->name, dtype, i);
    c->dtype = dtype;
    c->call = test->call;
    c->aligned = rng_one_in(&c->rng, 2);
    test->build(c);
    if (c->verdict == CASE_SKIPPED)
      skipped++;
    else if (tally->failed - before < 8 || c->verdict == CASE_PASSED)
      tally_add(tally, c->verdict == CASE_PASSED,
                "%s %s case %d: %s\n       %s\n       again: --backend %s --op %s --seed %" PRIu64
                " --case %d",
                test->name, osr_ops_dtype_name(dtype), i, c->why, c->text, target->backend->name,
                test->name, seed, i);
    else
      tally->failed++; /* the first ones tell the story */
    lost = c->verdict == CASE_FAILED && !target_alive(target);
    free(c);
    if (lost) {
      tally_add(tally, false, "%s %s: the device is lost after case %d of %d: %s", test->name,
                osr_ops_dtype_name(dtype), i, cases, target->ctx.error);
      break;
    }
  }
  tally->skipped += skipped;
  if (!tally->quiet)
    printf("%-16s %-5s %d cases%s%.0d%s%s\n", test->name, osr_ops_dtype_name(dtype),
           only >= 0 ? 1 : cases, skipped ? ", " : "", skipped,
           skipped ? " not in this backend" : "", tally->failed > before ? ", FAILED" : "");
  fflush(stdout);
}

/* --- the backend --- */

static const OsrBackend *
load_module(const char *path)
{
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  OsrBackendModule entry;
  void *symbol;

  if (!module) {
    fprintf(stderr, "checkops: %s\n", dlerror());
    return NULL;
  }
  symbol = dlsym(module, "osr_backend_module");
  if (!symbol) {
    fprintf(stderr, "checkops: %s has no osr_backend_module\n", path);
    dlclose(module);
    return NULL;
  }
  /* The module stays open: its backend is used to the end. */
  memcpy(&entry, &symbol, sizeof entry);
  return entry();
}

/* `module` is where a backend that is no part of this program lies, or NULL. */
static const OsrBackend *
find_backend(const char *name, const char *module)
{
  if (strcmp(name, "ref") == 0)
    return &osr_backend_ref;
#ifdef CHECKOPS_CPU
  if (strcmp(name, "cpu") == 0)
    return &osr_backend_cpu;
#endif
  if (strcmp(name, "cuda") == 0)
    return load_module(module ? module : "libopensora-cuda.so");
  if (strchr(name, '/') || strstr(name, ".so"))
    return load_module(name);
  fprintf(stderr, "checkops: no backend \"%s\" in this build\n", name);
  return NULL;
}

/* --- the command line --- */

typedef struct Options {
  const char *backend, *module, *op;
  uint64_t seed;
  uint32_t dtypes; /* a mask */
  int cases, only, threads;
  bool list, bench, large, self_test, tf32;
} Options;

static int
usage(FILE *to)
{
  fprintf(to, "usage: checkops [--backend ref|cpu|cuda|MODULE.so] [--module FILE] [--op NAME,...]\n"
              "                [--dtype f32|bf16|f16] [--cases N] [--seed S] [--case I]\n"
              "                [--threads N] [--tf32] [--large] [--bench] [--self-test] [--list]\n"
              "Runs the ops of a backend on N random calls each and compares them with the\n"
              "reference. --case runs one of the N alone, --large calls of the models' sizes\n"
              "instead, which take gigabytes. --tf32 lets f32 products have 10 bits of mantissa.\n"
              "--self-test runs deliberately wrong backends and fails if one of them passes.\n"
              "--bench times the ops, with --large at the models' sizes too. --module says where\n"
              "the CUDA backend lies; without a CUDA device the exit status is 77.\n");
  return to == stdout ? 0 : 1;
}

/* The number after an option, or false. */
static bool
number(const char *text, uint64_t max, uint64_t *value)
{
  char *end;

  if (!text || *text < '0' || *text > '9')
    return false;
  *value = strtoull(text, &end, 0);
  return *end == '\0' && *value <= max;
}

/* The mask of one activation type, 0 for another name. */
static uint32_t
dtype_mask(const char *name)
{
  for (int dtype = OSR_DTYPE_F32; dtype <= OSR_DTYPE_F16; dtype++)
    if (strcmp(name, osr_ops_dtype_name((OsrDType) dtype)) == 0)
      return 1u << dtype;
  return 0;
}

static bool
parse(int argc, char **argv, Options *o)
{
  for (int i = 1; i < argc; i++) {
    const char *arg = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
    uint64_t n = 0;
    bool takes_number = strcmp(arg, "--cases") == 0 || strcmp(arg, "--seed") == 0 ||
                        strcmp(arg, "--case") == 0 || strcmp(arg, "--threads") == 0;
    bool takes_text = strcmp(arg, "--backend") == 0 || strcmp(arg, "--module") == 0 ||
                      strcmp(arg, "--op") == 0 || strcmp(arg, "--dtype") == 0;

    if (takes_number && !number(next, strcmp(arg, "--seed") == 0 ? UINT64_MAX : 1000000, &n))
      return false;
    if (strcmp(arg, "--cases") == 0)
      o->cases = (int) n;
    else if (strcmp(arg, "--seed") == 0)
      o->seed = n;
    else if (strcmp(arg, "--case") == 0)
      o->only = (int) n;
    else if (strcmp(arg, "--threads") == 0)
      o->threads = (int) n;
    else if (strcmp(arg, "--backend") == 0 && next)
      o->backend = next;
    else if (strcmp(arg, "--module") == 0 && next)
      o->module = next;
    else if (strcmp(arg, "--op") == 0 && next)
      o->op = next;
    else if (strcmp(arg, "--dtype") == 0 && next && dtype_mask(next))
      o->dtypes = dtype_mask(next);
    else if (strcmp(arg, "--list") == 0)
      o->list = true;
    else if (strcmp(arg, "--bench") == 0)
      o->bench = true;
    else if (strcmp(arg, "--large") == 0)
      o->large = true;
    else if (strcmp(arg, "--tf32") == 0)
      o->tf32 = true;
    else if (strcmp(arg, "--self-test") == 0)
      o->self_test = true;
    else
      return false;
    if (takes_number || takes_text)
      i++;
  }
  return true;
}

bool
op_wanted(const char *ops, const char *name)
{
  const size_t length = strlen(name);

  for (const char *at = ops; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
    if (strncmp(at, name, length) == 0 && (at[length] == ',' || at[length] == '\0'))
      return true;
  return !ops;
}

static bool
ops_exist(const char *ops)
{
  int named = 1, found = 0;

  for (const char *at = ops; at && *at; at++)
    named += *at == ',';
  for (int i = 0; i < n_op_tests; i++)
    found += op_wanted(ops, op_tests[i].name);
  if (!ops || found == named)
    return true;
  fprintf(stderr, "checkops: not all of \"%s\" are ops (--list names them)\n", ops);
  return false;
}

static void
run_all(Target *target, const Options *o, Tally *tally)
{
  const uint32_t dtypes = target->backend->dtypes & o->dtypes;

  if (o->large) {
    for (int dtype = 0; dtype < OSR_N_DTYPES; dtype++)
      if (dtypes & 1u << dtype)
        run_large(target, o->op, (OsrDType) dtype, tally);
    return;
  }
  for (int i = 0; i < n_op_tests; i++)
    for (int dtype = 0; dtype < OSR_N_DTYPES; dtype++)
      if (dtypes & 1u << dtype && op_wanted(o->op, op_tests[i].name))
        run_random(target, &op_tests[i], (OsrDType) dtype, o->seed, o->cases, o->only, tally);
  if (o->only >= 0)
    return;
  run_invalid(target, o->op, tally);
  if (!o->op)
    run_known(tally);
}

int
main(int argc, char **argv)
{
  Options o = { .backend = "cpu", .dtypes = UINT32_MAX, .cases = 100, .only = -1 };
  struct timespec now;
  Tally tally = { 0 };
  const OsrBackend *backend;
  char why[256] = "";
  Target target;

  clock_gettime(CLOCK_REALTIME, &now);
  o.seed = (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0)
      return usage(stdout);
  if (!parse(argc, argv, &o))
    return usage(stderr);
  if (!ops_exist(o.op))
    return 1;
  if (o.list) {
    for (int i = 0; i < n_op_tests; i++)
      printf("%s\n", op_tests[i].name);
    return 0;
  }

  if (o.self_test) {
    printf("seed %" PRIu64 "\n", o.seed);
    run_self_test(o.seed, o.cases, &tally);
  } else {
    backend = find_backend(o.backend, o.module);
    if (backend && strcmp(backend->name, "cuda") == 0 &&
        backend->device_count(why, sizeof why) < 1) {
      printf("skipped, there is no CUDA device: %s\n", why);
      return SKIPPED;
    }
    if (o.tf32)
      setenv("OSR_CUDA_TF32", "1", 1);
    if (!backend || !target_open(&target, backend, o.threads))
      return 1;
    target.tf32 = o.tf32;
    if (o.bench) {
      bool ok = run_bench(&target, o.op, o.dtypes, o.large);

      target_close(&target);
      return ok ? 0 : 1;
    }
    printf("backend %s, seed %" PRIu64 "\n", backend->name, o.seed);
    run_all(&target, &o, &tally);
    target_close(&target);
  }
  if (tally.skipped)
    printf("%d skipped\n", tally.skipped);
  printf("%d passed, %d failed\n", tally.passed, tally.failed);
  return tally.failed == 0 && tally.passed > 0 ? 0 : 1;
}
