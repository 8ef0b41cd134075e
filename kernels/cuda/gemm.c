/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Matrix products through cuBLASLt.
 *
 * What cuBLASLt needs to know about a shape (descriptors, algorithm) is a plan; plans are
 * looked up by everything that they depend on: sizes, strides, alignment, epilogue. cuBLASLt
 * counts in columns: our row-major y [m, n] is its D [n x m], w its A, transposed, x its B.
 */
#include "cuda.h"

#include <stdlib.h>
#include <string.h>

#define WORKSPACE ((size_t) 32 << 20)
#define CANDIDATES 16 /* algorithms that autotuning times */
#define TIMED_CALLS 5
#define MAX_ALIGNMENT 256

/* Compared and hashed as bytes: all fields of 8 bytes, no holes. */
typedef struct GemmKey {
  int64_t dtype, tf32, gelu, bias, alpha, residual;
  int64_t batch, m, n, k;
  int64_t x_ld, x_batch, w_batch, bias_batch, alpha_batch;
  int64_t residual_ld, residual_batch, y_ld, y_batch;
  int64_t x_align, w_align, residual_align, y_align;
} GemmKey;

#define KEY_FIELDS (sizeof(GemmKey) / sizeof(int64_t))
#define ALGO_WORDS (sizeof((cublasLtMatmulAlgo_t *) 0)->data / sizeof(uint64_t))

typedef struct GemmPlan {
  GemmKey key;
  bool used, supported;
  cublasLtMatmulDescOpaque_t op;
  cublasLtMatrixLayoutOpaque_t a, b, c, d;
  cublasLtMatmulAlgo_t algo;
  size_t workspace;
} GemmPlan;

/* An algorithm that was timed before, from the file. */
typedef struct TunedAlgo {
  GemmKey key;
  cublasLtMatmulAlgo_t algo;
} TunedAlgo;

struct OsrCudaGemms {
  GemmPlan *plans; /* open addressing, a power of two */
  size_t size, n_plans;
  char *tune_file; /* NULL: no autotuning */
  TunedAlgo *tuned;
  size_t n_tuned;
  char machine[320]; /* what a timing is good for: library version and device, one word */
};

/* --- the cache --- */

static uint64_t
hash(const GemmKey *key)
{
  const uint8_t *bytes = (const uint8_t *) key;
  uint64_t h = 0xCBF29CE484222325u; /* FNV-1a */

  for (size_t i = 0; i < sizeof *key; i++)
    h = (h ^ bytes[i]) * 0x100000001B3u;
  return h ^ h >> 32;
}

/* The plan of `key`, or the free place for it. */
static GemmPlan *
find(GemmPlan *plans, size_t size, const GemmKey *key)
{
  size_t i = hash(key) & (size - 1);

  while (plans[i].used && memcmp(&plans[i].key, key, sizeof *key) != 0)
    i = (i + 1) & (size - 1);
  return &plans[i];
}

/* Keeps at least half of the places free. */
static bool
grow(OsrCudaGemms *gemms)
{
  const size_t size = gemms->size ? 2 * gemms->size : 64;
  GemmPlan *plans;

  if (2 * (gemms->n_plans + 1) <= gemms->size)
    return true;
  plans = calloc(size, sizeof *plans);
  if (!plans)
    return false;
  for (size_t i = 0; i < gemms->size; i++)
    if (gemms->plans[i].used)
      *find(plans, size, &gemms->plans[i].key) = gemms->plans[i];
  free(gemms->plans);
  gemms->plans = plans;
  gemms->size = size;
  return true;
}

static int64_t
alignment(const void *ptr)
{
  const uintptr_t lowest = (uintptr_t) ptr & -(uintptr_t) ptr;

  return lowest == 0 || lowest > MAX_ALIGNMENT ? MAX_ALIGNMENT : (int64_t) lowest;
}

/* Strides that nothing is read by get a value that cuBLASLt takes. */
static GemmKey
make_key(const OsrCuda *cuda, const OsrCudaGemm *g)
{
  GemmKey key = {
    .dtype = g->dtype,
    .tf32 = (cuda->tf32 || g->tf32) && g->dtype == OSR_DTYPE_F32,
    .gelu = g->gelu,
    .bias = g->bias != NULL,
    .alpha = g->alpha != NULL,
    .residual = g->residual != NULL,
    .batch = g->batch,
    .m = g->m,
    .n = g->n,
    .k = g->k,
    .x_ld = g->m > 1 ? g->x_ld : g->k,
    .y_ld = g->m > 1 ? g->y_ld : g->n,
    .x_align = alignment(g->x),
    .w_align = alignment(g->w),
    .y_align = alignment(g->y),
  };

  key.residual_ld = g->residual && g->m > 1 ? g->residual_ld : key.y_ld;
  key.residual_align = g->residual ? alignment(g->residual) : key.y_align;
  if (g->batch > 1) {
    key.x_batch = g->x_batch;
    key.w_batch = g->w_batch;
    key.bias_batch = g->bias ? g->bias_batch : 0;
    key.alpha_batch = g->alpha ? g->alpha_batch : 0;
    key.y_batch = g->y_batch;
    key.residual_batch = g->residual ? g->residual_batch : g->y_batch;
  }
  return key;
}

/* --- a plan --- */

#define SET(desc, attr, value)                                                                     \
  (cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_##attr, &(value), sizeof(value)) ==   \
   CUBLAS_STATUS_SUCCESS)

static bool
describe_op(GemmPlan *plan, const void *bias)
{
  const GemmKey *key = &plan->key;
  const cublasComputeType_t compute = key->tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  const cublasOperation_t transpose = CUBLAS_OP_T;
  const int32_t vector = CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST;
  const uint32_t epilogue = key->gelu && key->bias ? CUBLASLT_EPILOGUE_GELU_BIAS
                            : key->gelu            ? CUBLASLT_EPILOGUE_GELU
                            : key->bias            ? CUBLASLT_EPILOGUE_BIAS
                                                   : CUBLASLT_EPILOGUE_DEFAULT;

  if (cublasLtMatmulDescInit(&plan->op, compute, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS ||
      !SET(&plan->op, TRANSA, transpose) || !SET(&plan->op, EPILOGUE, epilogue))
    return false;
  /* Not read yet, but its alignment counts. */
  if (key->bias &&
      (!SET(&plan->op, BIAS_POINTER, bias) || !SET(&plan->op, BIAS_BATCH_STRIDE, key->bias_batch)))
    return false;
  return !key->alpha || (SET(&plan->op, POINTER_MODE, vector) &&
                         SET(&plan->op, ALPHA_VECTOR_BATCH_STRIDE, key->alpha_batch));
}

static bool
describe_matrix(cublasLtMatrixLayout_t layout, const GemmKey *key, int64_t rows, int64_t cols,
                int64_t ld, int64_t stride)
{
  const cudaDataType_t type = key->dtype == OSR_DTYPE_BF16 ? CUDA_R_16BF : CUDA_R_32F;
  const int32_t batch = (int32_t) key->batch;

  return cublasLtMatrixLayoutInit(layout, type, (uint64_t) rows, (uint64_t) cols, ld) ==
             CUBLAS_STATUS_SUCCESS &&
         cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch,
                                          sizeof batch) == CUBLAS_STATUS_SUCCESS &&
         cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                          &stride, sizeof stride) == CUBLAS_STATUS_SUCCESS;
}

static bool
describe(GemmPlan *plan, const void *bias)
{
  const GemmKey *key = &plan->key;

  return describe_op(plan, bias) &&
         describe_matrix(&plan->a, key, key->k, key->n, key->k, key->w_batch) &&
         describe_matrix(&plan->b, key, key->k, key->m, key->x_ld, key->x_batch) &&
         describe_matrix(&plan->c, key, key->n, key->m, key->residual_ld, key->residual_batch) &&
         describe_matrix(&plan->d, key, key->n, key->m, key->y_ld, key->y_batch);
}

/* Up to `max` algorithms, the likely best first. */
static int
ask_heuristic(const OsrCuda *cuda, GemmPlan *plan, cublasLtMatmulHeuristicResult_t *results,
              int max)
{
  const GemmKey *key = &plan->key;
  const uint32_t align[4] = { (uint32_t) key->w_align, (uint32_t) key->x_align,
                              (uint32_t) key->residual_align, (uint32_t) key->y_align };
  const cublasLtMatmulPreferenceAttributes_t attrs[4] = {
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
  };
  const uint64_t workspace = cuda->workspace_size;
  cublasLtMatmulPreferenceOpaque_t pref;
  int n = 0, good = 0;

  if (cublasLtMatmulPreferenceInit(&pref) != CUBLAS_STATUS_SUCCESS ||
      cublasLtMatmulPreferenceSetAttribute(&pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                           &workspace, sizeof workspace) != CUBLAS_STATUS_SUCCESS)
    return 0;
  for (int i = 0; i < 4; i++)
    if (cublasLtMatmulPreferenceSetAttribute(&pref, attrs[i], &align[i], sizeof align[i]) !=
        CUBLAS_STATUS_SUCCESS)
      return 0;
  if (cublasLtMatmulAlgoGetHeuristic(cuda->lt, &plan->op, &plan->a, &plan->b, &plan->c, &plan->d,
                                     &pref, max, results, &n) != CUBLAS_STATUS_SUCCESS)
    return 0;
  for (int i = 0; i < n; i++)
    if (results[i].state == CUBLAS_STATUS_SUCCESS && results[i].workspaceSize <= workspace)
      results[good++] = results[i];
  return good;
}

static cublasStatus_t
enqueue(const OsrCuda *cuda, GemmPlan *plan, const OsrCudaGemm *g, void *y)
{
  const float one = 1.0f, zero = 0.0f;

  return cublasLtMatmul(cuda->lt, &plan->op, g->alpha ? g->alpha : &one, g->w, &plan->a, g->x,
                        &plan->b, g->residual ? &one : &zero, g->residual ? g->residual : y,
                        &plan->c, y, &plan->d, &plan->algo, cuda->workspace, plan->workspace,
                        cuda->stream);
}

/* --- autotuning --- */

/* A line is the machine, the key's numbers and the algorithm's eight words in hexadecimal. One
 * of another machine, or cut short by a process that ended while it wrote, is no use. */
static bool
parse_tuned(const char *line, const char *machine, TunedAlgo *entry)
{
  int64_t *fields = (int64_t *) &entry->key;
  const size_t length = strlen(machine);
  char *end;

  if (strncmp(line, machine, length) != 0 || line[length] != ' ')
    return false;
  line += length;
  for (size_t i = 0; i < KEY_FIELDS; i++, line = end) {
    fields[i] = strtoll(line, &end, 10);
    if (end == line)
      return false;
  }
  for (size_t i = 0; i < ALGO_WORDS; i++, line = end) {
    entry->algo.data[i] = strtoull(line, &end, 16);
    if (end == line)
      return false;
  }
  return *line == '\n';
}

static void
load_tuned(OsrCudaGemms *gemms)
{
  FILE *f = fopen(gemms->tune_file, "re");
  char line[2048];
  TunedAlgo entry;

  if (!f)
    return;
  while (fgets(line, sizeof line, f)) {
    TunedAlgo *all;

    if (!parse_tuned(line, gemms->machine, &entry))
      continue;
    all = realloc(gemms->tuned, (gemms->n_tuned + 1) * sizeof *all);
    if (!all)
      break;
    gemms->tuned = all;
    gemms->tuned[gemms->n_tuned++] = entry;
  }
  fclose(f);
}

/* A file that cannot be written costs the next process some time, nothing else. */
static void
save_tuned(const OsrCudaGemms *gemms, const GemmPlan *plan)
{
  const int64_t *fields = (const int64_t *) &plan->key;
  FILE *f = fopen(gemms->tune_file, "ae");

  if (!f)
    return;
  fprintf(f, "%s", gemms->machine);
  for (size_t i = 0; i < KEY_FIELDS; i++)
    fprintf(f, " %lld", (long long) fields[i]);
  for (size_t i = 0; i < ALGO_WORDS; i++)
    fprintf(f, " %llx", (unsigned long long) plan->algo.data[i]);
  fprintf(f, "\n");
  fclose(f);
}

static bool
recall(const OsrCuda *cuda, GemmPlan *plan)
{
  const OsrCudaGemms *gemms = cuda->gemms;
  cublasLtMatmulHeuristicResult_t result;

  for (size_t i = 0; i < gemms->n_tuned; i++) {
    const TunedAlgo *entry = &gemms->tuned[i];

    if (memcmp(&entry->key, &plan->key, sizeof plan->key) != 0)
      continue;
    if (cublasLtMatmulAlgoCheck(cuda->lt, &plan->op, &plan->a, &plan->b, &plan->c, &plan->d,
                                &entry->algo, &result) != CUBLAS_STATUS_SUCCESS ||
        result.workspaceSize > cuda->workspace_size)
      return false;
    plan->algo = entry->algo;
    plan->workspace = result.workspaceSize;
    return true;
  }
  return false;
}

/* Milliseconds of one call, negative when it cannot be run. */
static float
time_algo(const OsrCuda *cuda, GemmPlan *plan, const OsrCudaGemm *g, void *y,
          const cudaEvent_t events[2])
{
  float ms = -1.0f;
  bool ok = enqueue(cuda, plan, g, y) == CUBLAS_STATUS_SUCCESS;

  ok = ok && cudaEventRecord(events[0], cuda->stream) == cudaSuccess;
  for (int i = 0; ok && i < TIMED_CALLS; i++)
    ok = enqueue(cuda, plan, g, y) == CUBLAS_STATUS_SUCCESS;
  ok = ok && cudaEventRecord(events[1], cuda->stream) == cudaSuccess &&
       cudaEventSynchronize(events[1]) == cudaSuccess &&
       cudaEventElapsedTime(&ms, events[0], events[1]) == cudaSuccess;
  return ok ? ms / TIMED_CALLS : -1.0f;
}

/* Leaves the fastest of `results` in the plan. The product goes into a y of its own, since
 * the real one may be the residual too. Without memory for it the first one stays. */
static void
tune(OsrOpsContext *ctx, GemmPlan *plan, const OsrCudaGemm *g,
     const cublasLtMatmulHeuristicResult_t *results, int n)
{
  OsrCuda *cuda = osr_cuda(ctx);
  const int64_t elements = (g->batch - 1) * plan->key.y_batch + (g->m - 1) * plan->key.y_ld + g->n;
  const size_t size = (size_t) elements * osr_dtype_size(g->dtype) + MAX_ALIGNMENT;
  /* As well aligned as the real one, and not better. */
  const size_t offset = plan->key.y_align == MAX_ALIGNMENT ? 0 : (size_t) plan->key.y_align;
  GemmPlan trial = *plan;
  cudaEvent_t events[2] = { NULL, NULL };
  char *y = osr_cuda_mem_alloc(ctx, size);
  float best = -1.0f;

  if (y && cudaEventCreate(&events[0]) == cudaSuccess && cudaEventCreate(&events[1]) == cudaSuccess)
    for (int i = 0; i < n; i++) {
      float ms;

      trial.algo = results[i].algo;
      trial.workspace = results[i].workspaceSize;
      ms = time_algo(cuda, &trial, g, y + offset, events);
      if (ms >= 0.0f && (best < 0.0f || ms < best)) {
        best = ms;
        *plan = trial;
      }
    }
  for (int i = 0; i < 2; i++)
    if (events[i])
      cudaEventDestroy(events[i]);
  osr_cuda_mem_free(ctx, y, size);
  if (best >= 0.0f)
    save_tuned(cuda->gemms, plan);
  cudaGetLastError();
}

static void
make_plan(OsrOpsContext *ctx, GemmPlan *plan, const OsrCudaGemm *g)
{
  OsrCuda *cuda = osr_cuda(ctx);
  cublasLtMatmulHeuristicResult_t results[CANDIDATES];
  const bool tuning = cuda->gemms->tune_file && !osr_cuda_recording(cuda);
  int n;

  if (g->batch > INT32_MAX || !describe(plan, g->bias))
    return;
  if (cuda->gemms->tune_file && recall(cuda, plan)) {
    plan->supported = true;
    return;
  }
  n = ask_heuristic(cuda, plan, results, tuning ? CANDIDATES : 1);
  if (n == 0)
    return;
  plan->supported = true;
  plan->algo = results[0].algo;
  plan->workspace = results[0].workspaceSize;
  if (tuning)
    tune(ctx, plan, g, results, n);
}

/* --- the product --- */

/* Items that follow each other like rows are one product. */
static void
merge_batch(OsrCudaGemm *g)
{
  if (g->batch == 1 || g->w_batch != 0 || (g->bias && g->bias_batch != 0) ||
      (g->alpha && g->alpha_batch != 0) || g->x_batch != g->m * g->x_ld ||
      g->y_batch != g->m * g->y_ld || (g->residual && g->residual_batch != g->m * g->residual_ld))
    return;
  g->m *= g->batch;
  g->batch = 1;
}

bool
osr_cuda_gemm_refused(OsrOpsContext *ctx, const OsrCudaGemm *gemm)
{
  OsrCuda *cuda = osr_cuda(ctx);
  OsrCudaGemm g = *gemm;
  const GemmPlan *plan;
  GemmKey key;

  merge_batch(&g);
  key = make_key(cuda, &g);
  if (cuda->gemms->size == 0)
    return false;
  plan = find(cuda->gemms->plans, cuda->gemms->size, &key);
  return plan->used && !plan->supported;
}

OsrResult
osr_cuda_gemm(OsrOpsContext *ctx, const OsrCudaGemm *gemm)
{
  OsrCuda *cuda = osr_cuda(ctx);
  OsrCudaGemm g = *gemm;
  GemmPlan *plan;
  cublasStatus_t status;
  GemmKey key;

  merge_batch(&g);
  key = make_key(cuda, &g);
  if (!grow(cuda->gemms))
    return osr_fail(ctx, OSR_ERR_MEMORY, "linear: no memory for plans");
  plan = find(cuda->gemms->plans, cuda->gemms->size, &key);
  if (!plan->used) {
    plan->key = key;
    plan->used = true;
    cuda->gemms->n_plans++;
    make_plan(ctx, plan, &g);
  }
  if (!plan->supported)
    return OSR_ERR_UNSUPPORTED;

  if (g.bias && !SET(&plan->op, BIAS_POINTER, g.bias))
    return OSR_ERR_UNSUPPORTED;
  status = enqueue(cuda, plan, &g, g.y);
  if (status == CUBLAS_STATUS_SUCCESS)
    return osr_cuda_launched(ctx, "linear: batch %lld, m %lld, n %d, k %d", (long long) g.batch,
                             (long long) g.m, g.n, g.k);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED || status == CUBLAS_STATUS_INVALID_VALUE) {
    plan->supported = false;
    cudaGetLastError();
    return OSR_ERR_UNSUPPORTED;
  }
  OSR_TRY(osr_cuda_launched(ctx, "linear: batch %lld, m %lld, n %d, k %d", (long long) g.batch,
                            (long long) g.m, g.n, g.k));
  return osr_fail(ctx, OSR_ERR_DEVICE, "linear: batch %lld, m %lld, n %d, k %d: cuBLASLt: %s",
                  (long long) g.batch, (long long) g.m, g.n, g.k, cublasLtGetStatusString(status));
}

/* --- the context --- */

OsrResult
osr_cuda_gemm_open(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);
  const char *file = getenv("OSR_CUDA_AUTOTUNE");
  OsrCudaGemms *gemms = calloc(1, sizeof *gemms);
  struct cudaDeviceProp prop;
  cublasStatus_t status;

  if (!gemms)
    return osr_fail(ctx, OSR_ERR_MEMORY, "cuda: no memory");
  cuda->gemms = gemms;
  status = cublasLtCreate(&cuda->lt);
  if (status != CUBLAS_STATUS_SUCCESS)
    return osr_fail(ctx, status == CUBLAS_STATUS_ALLOC_FAILED ? OSR_ERR_MEMORY : OSR_ERR_DEVICE,
                    "cuda: cuBLASLt: %s", cublasLtGetStatusString(status));
  OSR_TRY(osr_cuda_check(ctx, cudaMalloc(&cuda->workspace, WORKSPACE),
                         "cuda: %zu bytes for cuBLASLt", WORKSPACE));
  cuda->workspace_size = WORKSPACE;
  if (!file || !*file)
    return OSR_OK;

  OSR_TRY(osr_cuda_check(ctx, cudaGetDeviceProperties(&prop, cuda->device), "cuda: properties"));
  gemms->tune_file = strdup(file);
  if (!gemms->tune_file)
    return osr_fail(ctx, OSR_ERR_MEMORY, "cuda: no memory");
  snprintf(gemms->machine, sizeof gemms->machine, "%zu/%s", cublasLtGetVersion(), prop.name);
  for (char *c = gemms->machine; *c; c++)
    if (*c <= ' ')
      *c = '_';
  load_tuned(gemms);
  return OSR_OK;
}

void
osr_cuda_gemm_close(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);

  if (cuda->workspace)
    cudaFree(cuda->workspace);
  if (cuda->lt)
    cublasLtDestroy(cuda->lt);
  if (cuda->gemms) {
    free(cuda->gemms->plans);
    free(cuda->gemms->tuned);
    free(cuda->gemms->tune_file);
  }
  free(cuda->gemms);
}
