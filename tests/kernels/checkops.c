/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The command: which backend, which ops, how many cases; the list of ops. */
#include "checkops.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
    test->build(c);
    if (c->verdict == CASE_SKIPPED)
      skipped++;
    else if (tally->failed - before < 8 || c->verdict == CASE_PASSED)
      tally_add(tally, c->verdict == CASE_PASSED,
                "%s %s case %d: %s\n       %s\n       again: --backend %s --op %s --seed %" PRIu64
                " --case %d",
                test->name, osr_dtype_name(dtype), i, c->why, c->text, target->backend->name,
                test->name, seed, i);
    else
      tally->failed++; /* the first ones tell the story */
    free(c);
  }
  tally->skipped += skipped;
  if (!tally->quiet)
    printf("%-16s %-5s %d cases%s%.0d%s%s\n", test->name, osr_dtype_name(dtype),
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

static const OsrBackend *
find_backend(const char *name)
{
  if (strcmp(name, "ref") == 0)
    return &osr_backend_ref;
#ifdef CHECKOPS_CPU
  if (strcmp(name, "cpu") == 0)
    return &osr_backend_cpu;
#endif
  if (strcmp(name, "cuda") == 0)
    return load_module("libopensora-cuda.so");
  if (strchr(name, '/') || strstr(name, ".so"))
    return load_module(name);
  fprintf(stderr, "checkops: no backend \"%s\" in this build\n", name);
  return NULL;
}

/* --- the command line --- */

typedef struct Options {
  const char *backend, *op;
  uint64_t seed;
  int cases, only, threads;
  bool list, bench, large, self_test;
} Options;

static int
usage(FILE *to)
{
  fprintf(to, "usage: checkops [--backend ref|cpu|cuda|MODULE.so] [--op NAME] [--cases N]\n"
              "                [--seed S] [--case I] [--threads N] [--self-test] [--list]\n"
              "                [--bench [--large]]\n"
              "Runs the ops of a backend on N random calls each and compares them with the\n"
              "reference. --case runs one of the N alone. --self-test runs deliberately wrong\n"
              "backends and fails if one of them passes. --bench times the ops.\n");
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

static bool
parse(int argc, char **argv, Options *o)
{
  for (int i = 1; i < argc; i++) {
    const char *arg = argv[i], *next = i + 1 < argc ? argv[i + 1] : NULL;
    uint64_t n = 0;
    bool takes_number = strcmp(arg, "--cases") == 0 || strcmp(arg, "--seed") == 0 ||
                        strcmp(arg, "--case") == 0 || strcmp(arg, "--threads") == 0;

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
    else if (strcmp(arg, "--op") == 0 && next)
      o->op = next;
    else if (strcmp(arg, "--list") == 0)
      o->list = true;
    else if (strcmp(arg, "--bench") == 0)
      o->bench = true;
    else if (strcmp(arg, "--large") == 0)
      o->bench = o->large = true;
    else if (strcmp(arg, "--self-test") == 0)
      o->self_test = true;
    else
      return false;
    if (takes_number || strcmp(arg, "--backend") == 0 || strcmp(arg, "--op") == 0)
      i++;
  }
  return true;
}

static bool
op_exists(const char *op)
{
  for (int i = 0; i < n_op_tests; i++)
    if (!op || strcmp(op_tests[i].name, op) == 0)
      return true;
  fprintf(stderr, "checkops: no op \"%s\" (--list names them)\n", op);
  return false;
}

static void
run_all(Target *target, const Options *o, Tally *tally)
{
  for (int i = 0; i < n_op_tests; i++)
    for (int dtype = 0; dtype < OSR_N_DTYPES; dtype++)
      if (target->backend->dtypes & 1u << dtype && (!o->op || !strcmp(o->op, op_tests[i].name)))
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
  Options o = { .backend = "cpu", .cases = 100, .only = -1 };
  struct timespec now;
  Tally tally = { 0 };
  const OsrBackend *backend;
  Target target;

  clock_gettime(CLOCK_REALTIME, &now);
  o.seed = (uint64_t) now.tv_sec * 1000000000u + (uint64_t) now.tv_nsec;
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0)
      return usage(stdout);
  if (!parse(argc, argv, &o))
    return usage(stderr);
  if (!op_exists(o.op))
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
    backend = find_backend(o.backend);
    if (!backend || !target_open(&target, backend, o.threads))
      return 1;
    if (o.bench) {
      bool ok = run_bench(&target, o.op, o.large);

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
