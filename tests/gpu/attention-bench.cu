/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attention-bench: attention alone, against a plain kernel in f64, and its speed at the sizes of
 * the models. Needs nvcc and nothing else; from the top of the repository:
 *
 *   nvcc -std=c++17 -O3 -Ikernels -DOSR_ATTENTION_VARIANTS \
 *     -gencode arch=compute_90a,code=sm_90a \
 *     tests/gpu/attention-bench.cu kernels/cuda/attention*.cu -o attention-bench
 *   ./attention-bench                 checks, then times
 *   ./attention-bench check 500 7     500 random calls, seed 7
 *   ./attention-bench time            only times
 *   ./attention-bench time wgmma      only paths with this in their name
 *   ./attention-bench time wgmma 768  and only shapes with this in theirs
 *
 * Without -DOSR_ATTENTION_VARIANTS, and for other cards, the variants of the Hopper kernel are
 * left out. Every call runs on the path that the backend would choose and on each other that can
 * do it, twice: the bits must be the same. Inputs have NaN around them and behind kv_len, outputs
 * are NaN before; what is beside o must stay. Exit status 1 if anything is wrong.
 */
#include "../../kernels/cuda/attention.cuh"

#include <algorithm>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define THREADS 128
#define GUARD 64 /* elements before and after each buffer */

typedef __nv_bfloat16 bf16;

/* --- what the backend does elsewhere --- */

static OsrCuda cuda;
static OsrOpsContext context;

OsrResult
osr_cuda_begin(OsrOpsContext *, const char *)
{
  return OSR_OK;
}

static OsrResult
fail(OsrOpsContext *ctx, cudaError_t error, const char *fmt, va_list args)
{
  char text[160];

  vsnprintf(text, sizeof text, fmt, args);
  return osr_fail(ctx, OSR_ERR_DEVICE, "%s: %s", text, cudaGetErrorString(error));
}

OsrResult
osr_cuda_check(OsrOpsContext *ctx, cudaError_t error, const char *fmt, ...)
{
  OsrResult result = OSR_OK;
  va_list args;

  va_start(args, fmt);
  if (error != cudaSuccess)
    result = fail(ctx, error, fmt, args);
  va_end(args);
  return result;
}

OsrResult
osr_cuda_launched(OsrOpsContext *ctx, const char *fmt, ...)
{
  const cudaError_t error = cudaGetLastError();
  OsrResult result = OSR_OK;
  va_list args;

  va_start(args, fmt);
  if (error != cudaSuccess)
    result = fail(ctx, error, fmt, args);
  va_end(args);
  return result;
}

bool
osr_cuda_has_kernel(const void *kernel, int threads)
{
  cudaFuncAttributes attributes;

  return cudaFuncGetAttributes(&attributes, kernel) == cudaSuccess &&
         attributes.maxThreadsPerBlock >= threads;
}

static void
must(cudaError_t error, const char *what)
{
  if (error == cudaSuccess)
    return;
  fprintf(stderr, "attention-bench: %s: %s\n", what, cudaGetErrorString(error));
  exit(1);
}

static void
open_device(void)
{
  cudaDeviceProp prop;

  must(cudaSetDevice(0), "opening the device");
  must(cudaGetDeviceProperties(&prop, 0), "device properties");
  cuda.capability = 10 * prop.major + prop.minor;
  cuda.n_sms = prop.multiProcessorCount;
  cuda.max_shared = prop.sharedMemPerBlockOptin;
  must(cudaStreamCreate(&cuda.stream), "a stream");
  context.impl = &cuda;
  context.stream = cuda.stream;
  printf("%s, sm_%d, %d multiprocessors, %zu bytes of shared memory a block\n", prop.name,
         cuda.capability, cuda.n_sms, cuda.max_shared);
}

/* --- the paths --- */

typedef struct Path {
  const char *name;
  const char *(*refuses)(OsrOpsContext *, const OsrAttention *);
  OsrResult (*run)(OsrOpsContext *, const OsrAttention *);
} Path;

static const char *
takes_all(OsrOpsContext *, const OsrAttention *)
{
  return NULL;
}

template <OsrWgmmaVariant VARIANT>
static OsrResult
run_wgmma(OsrOpsContext *ctx, const OsrAttention *p)
{
  return osr_cuda_attention_wgmma(ctx, p, VARIANT);
}

#ifdef OSR_ATTENTION_VARIANTS
/* They differ from the default at 128 only. */
static const char *
variant_refuses(OsrOpsContext *ctx, const OsrAttention *p)
{
  return p->head_dim != 128 ? "head_dim is not 128" : osr_cuda_attention_wgmma_refuses(ctx, p);
}
#endif

static const Path paths[] = {
  { "chosen", takes_all, osr_cuda_attention },
  { "wgmma", osr_cuda_attention_wgmma_refuses, run_wgmma<OSR_WGMMA_DEFAULT> },
#ifdef OSR_ATTENTION_VARIANTS
  { "wgmma-128", variant_refuses, run_wgmma<OSR_WGMMA_128> },
  { "wgmma-128x3", variant_refuses, run_wgmma<OSR_WGMMA_128X3> },
  { "wgmma-no-overlap", variant_refuses, run_wgmma<OSR_WGMMA_NO_OVERLAP> },
  { "wgmma-no-turns", variant_refuses, run_wgmma<OSR_WGMMA_NO_TURNS> },
  { "wgmma-eager", variant_refuses, run_wgmma<OSR_WGMMA_EAGER> },
#endif
  { "mma", osr_cuda_attention_mma_refuses, osr_cuda_attention_mma },
  { "simt", takes_all, osr_cuda_attention_simt },
};

#define N_PATHS (sizeof paths / sizeof paths[0])

/* --- buffers --- */

/* [batch, rows, n] with `offset` more elements in front; NaN wherever nothing is drawn. */
typedef struct Matrix {
  OsrDType dtype;
  int64_t batch, rows, n, ld, stride, offset;
  unsigned char *memory;
  size_t size;
  void *data;
} Matrix;

static size_t
element_size(OsrDType dtype)
{
  return dtype == OSR_DTYPE_F32 ? 4 : 2;
}

static Matrix
matrix_new(OsrDType dtype, int64_t batch, int64_t rows, int64_t n, int64_t ld, int64_t stride,
           int64_t offset)
{
  Matrix m = { dtype, batch, rows, n, ld, stride, offset, NULL, 0, NULL };

  m.size = (size_t) (2 * GUARD + offset + (batch - 1) * stride + rows * ld) * element_size(dtype);
  must(cudaMalloc(&m.memory, m.size), "device memory");
  must(cudaMemset(m.memory, 0xff, m.size), "filling with NaN");
  m.data = m.memory + (size_t) (GUARD + offset) * element_size(dtype);
  return m;
}

static void
matrix_free(Matrix *m)
{
  must(cudaFree(m->memory), "freeing");
}

static __device__ uint32_t
mix(uint64_t x)
{
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdull;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ull;
  return (uint32_t) (x >> 32);
}

/* Standard normal. */
static __device__ float
draw(uint64_t seed, int64_t i)
{
  const float u = (mix(seed + 2 * i) + 0.5f) * 0x1p-32f, v = mix(seed + 2 * i + 1) * 0x1p-32f;

  return sqrtf(-2.0f * logf(fminf(u, 1.0f))) * cospif(2.0f * v);
}

/* Rows from kv_len (may be NULL) on stay what they are. */
static __global__ void
fill(Matrix m, const int32_t *kv_len, uint64_t seed)
{
  for (int64_t i = blockIdx.x * (int64_t) blockDim.x + threadIdx.x; i < m.batch * m.rows * m.n;
       i += (int64_t) gridDim.x * blockDim.x) {
    const int64_t column = i % m.n, row = i / m.n % m.rows, b = i / m.n / m.rows;
    const int64_t at = b * m.stride + row * m.ld + column;

    if (kv_len && row >= kv_len[b])
      continue;
    if (m.dtype == OSR_DTYPE_F32)
      ((float *) m.data)[at] = draw(seed, i);
    else
      ((bf16 *) m.data)[at] = __float2bfloat16(draw(seed, i));
  }
}

static void
matrix_fill(const Matrix &m, const int32_t *kv_len, uint64_t seed)
{
  fill<<<1024, 256, 0, cuda.stream>>>(m, kv_len, seed * 0x9e3779b97f4a7c15ull);
  must(cudaGetLastError(), "filling");
}

/* --- the reference --- */

typedef struct Tally {
  double error, norm; /* sums of squares */
  unsigned long long unwritten, spilled, changed;
} Tally;

static __device__ double
element(OsrDType dtype, const void *data, int64_t i)
{
  return dtype == OSR_DTYPE_F32 ? (double) ((const float *) data)[i]
                                : (double) __bfloat162float(((const bf16 *) data)[i]);
}

static __device__ double
block_reduce(double x, double *shared, bool maximum)
{
  __syncthreads();
  shared[threadIdx.x] = x;
  for (int n = THREADS / 2; n > 0; n /= 2) {
    __syncthreads();
    if (threadIdx.x < n) {
      const double y = shared[threadIdx.x + n];

      shared[threadIdx.x] = maximum ? fmax(shared[threadIdx.x], y) : shared[threadIdx.x] + y;
    }
  }
  __syncthreads();
  return shared[0];
}

/* One query, head and batch item a block: o in f64, compared with what p.o holds. Query i of the
 * grid is row i * step. Dynamic shared memory: head_dim doubles. */
static __global__ void
__launch_bounds__(THREADS) compare(OsrAttention p, int64_t step, Tally *tally)
{
  extern __shared__ double out[];
  __shared__ double shared[THREADS], weight[THREADS];
  const int64_t row = blockIdx.x * step, b = blockIdx.z, head = blockIdx.y;
  const int64_t visible = osr_attention_visible(&p, row, p.kv_len ? p.kv_len[b] : p.lk);
  const int64_t q = b * p.q_batch + row * p.q_ld + head * p.head_dim;
  const int64_t k = b * p.k_batch + head * p.head_dim, v = b * p.v_batch + head * p.head_dim;
  const int64_t o = b * p.o_batch + row * p.o_ld + head * p.head_dim;
  double max = -INFINITY, sum = 0.0, error = 0.0, norm = 0.0;

  auto score = [&](int64_t key) {
    double s = 0.0;

    for (int d = 0; d < p.head_dim; d++)
      s += element(p.dtype, p.q, q + d) * element(p.dtype, p.k, k + key * p.k_ld + d);
    s *= p.scale;
    return p.rel_bias ? s + p.rel_bias[head * (p.lq + p.lk - 1) + key - row + p.lq - 1] : s;
  };

  for (int d = threadIdx.x; d < p.head_dim; d += THREADS)
    out[d] = 0.0;
  for (int64_t key = threadIdx.x; key < visible; key += THREADS)
    max = fmax(max, score(key));
  max = block_reduce(max, shared, true);
  for (int64_t key0 = 0; key0 < visible; key0 += THREADS) {
    const int64_t key = key0 + threadIdx.x;

    weight[threadIdx.x] = key < visible ? exp(score(key) - max) : 0.0;
    sum += weight[threadIdx.x];
    __syncthreads();
    for (int d = threadIdx.x; d < p.head_dim; d += THREADS)
      for (int j = 0; j < THREADS && key0 + j < visible; j++)
        out[d] += weight[j] * element(p.dtype, p.v, v + (key0 + j) * p.v_ld + d);
    __syncthreads();
  }
  sum = block_reduce(sum, shared, false);
  for (int d = threadIdx.x; d < p.head_dim; d += THREADS) {
    const double want = visible > 0 ? out[d] / sum : 0.0, off = element(p.dtype, p.o, o + d) - want;

    error += off * off;
    norm += want * want;
  }
  error = block_reduce(error, shared, false);
  norm = block_reduce(norm, shared, false);
  if (threadIdx.x == 0) {
    atomicAdd(&tally->error, error);
    atomicAdd(&tally->norm, norm);
  }
}

/* Elements of o that are still NaN, and elements beside it that are no longer all ones. */
static __global__ void
scan(Matrix m, Tally *tally)
{
  const int64_t total = (int64_t) m.size / (m.dtype == OSR_DTYPE_F32 ? 4 : 2);
  unsigned long long unwritten = 0, spilled = 0;

  for (int64_t i = blockIdx.x * (int64_t) blockDim.x + threadIdx.x; i < total;
       i += (int64_t) gridDim.x * blockDim.x) {
    const int64_t at = i - GUARD - m.offset;
    const int64_t b = m.batch > 1 && at >= 0 ? min(at / m.stride, m.batch - 1) : 0;
    const int64_t row = at < 0 ? -1 : (at - b * m.stride) / m.ld;
    const int64_t column = at - b * m.stride - row * m.ld;
    const bool inside = at >= 0 && row < m.rows && column < m.n;
    const uint32_t bits = m.dtype == OSR_DTYPE_F32 ? ((const uint32_t *) m.memory)[i]
                                                   : 0xffff0000u | ((const uint16_t *) m.memory)[i];

    unwritten += inside && bits == 0xffffffffu;
    spilled += !inside && bits != 0xffffffffu;
  }
  atomicAdd(&tally->unwritten, unwritten);
  atomicAdd(&tally->spilled, spilled);
}

static __global__ void
differences(const unsigned char *a, const unsigned char *b, size_t size, Tally *tally)
{
  unsigned long long n = 0;

  for (size_t i = blockIdx.x * (size_t) blockDim.x + threadIdx.x; i < size;
       i += (size_t) gridDim.x * blockDim.x)
    n += a[i] != b[i];
  atomicAdd(&tally->changed, n);
}

/* --- one call --- */

typedef struct Call {
  OsrAttention p;
  Matrix q, k, v, o;
  int32_t *kv_len;
  float *bias;
} Call;

static void
call_free(Call *c)
{
  matrix_free(&c->q);
  matrix_free(&c->k);
  matrix_free(&c->v);
  matrix_free(&c->o);
  must(cudaFree(c->kv_len), "freeing");
  must(cudaFree(c->bias), "freeing");
}

/* Sizes, types and masks of p are set; strides, memory and contents come here. `gap` elements
 * lie between rows and items, `offset` before the first. */
static void
call_draw(Call *c, int64_t gap, int64_t offset, const int32_t *kv_len, bool bias, uint64_t seed)
{
  OsrAttention *p = &c->p;
  const int64_t n = (int64_t) p->heads * p->head_dim, ld = n + gap;

  c->q = matrix_new(p->dtype, p->batch, p->lq, n, ld, p->lq * ld + gap, offset);
  c->k = matrix_new(p->dtype, p->batch, p->lk, n, ld + gap, p->lk * (ld + gap), offset);
  c->v = matrix_new(p->dtype, p->batch, p->lk, n, ld, p->lk * ld + 2 * gap, offset);
  c->o = matrix_new(p->dtype, p->batch, p->lq, n, ld + 2 * gap, p->lq * (ld + 2 * gap), offset);
  c->kv_len = NULL;
  c->bias = NULL;
  if (kv_len) {
    must(cudaMalloc(&c->kv_len, (size_t) p->batch * 4), "device memory");
    must(cudaMemcpy(c->kv_len, kv_len, (size_t) p->batch * 4, cudaMemcpyHostToDevice), "kv_len");
  }
  if (bias) {
    Matrix table =
        matrix_new(OSR_DTYPE_F32, 1, p->heads, p->lq + p->lk - 1, p->lq + p->lk - 1, 0, -GUARD);

    matrix_fill(table, NULL, seed + 3);
    c->bias = (float *) table.memory;
  }
  matrix_fill(c->q, NULL, seed);
  matrix_fill(c->k, c->kv_len, seed + 1);
  matrix_fill(c->v, c->kv_len, seed + 2);

  p->q = c->q.data;
  p->q_ld = c->q.ld;
  p->q_batch = c->q.stride;
  p->k = c->k.data;
  p->k_ld = c->k.ld;
  p->k_batch = c->k.stride;
  p->v = c->v.data;
  p->v_ld = c->v.ld;
  p->v_batch = c->v.stride;
  p->o = c->o.data;
  p->o_ld = c->o.ld;
  p->o_batch = c->o.stride;
  p->kv_len = c->kv_len;
  p->rel_bias = c->bias;
}

static void
describe(const OsrAttention *p, char *text, size_t size)
{
  static const char *masks[] = { "", ", causal", ", frame-causal" };

  snprintf(text, size,
           "%s, %lld x %lld queries, %lld keys, %d heads of %d, scale %.3g, ld %lld%s%s%s",
           osr_ops_dtype_name(p->dtype), (long long) p->batch, (long long) p->lq, (long long) p->lk,
           p->heads, p->head_dim, (double) p->scale, (long long) p->q_ld, masks[p->mask],
           p->kv_len ? ", kv_len" : "", p->rel_bias ? ", bias" : "");
}

/* Runs the call on one path, twice. Whether all was well; the relative error in the 2-norm. */
static bool
call_check(Call *c, const Path *path, int64_t max_rows, double *relative)
{
  const double limit = c->p.dtype == OSR_DTYPE_F32 ? 2e-5 : 6e-3;
  const int64_t step = (c->p.lq + max_rows - 1) / max_rows;
  const dim3 grid((unsigned) ((c->p.lq + step - 1) / step), (unsigned) c->p.heads,
                  (unsigned) c->p.batch);
  char text[256];
  Tally tally = {}, *device;
  unsigned char *copy;
  OsrResult result = OSR_OK;
  bool good;

  must(cudaMalloc(&device, sizeof tally), "device memory");
  must(cudaMalloc(&copy, c->o.size), "device memory");
  must(cudaMemsetAsync(device, 0, sizeof tally, cuda.stream), "clearing");
  for (int i = 0; i < 2 && result == OSR_OK; i++) {
    must(cudaMemsetAsync(c->o.memory, 0xff, c->o.size, cuda.stream), "filling with NaN");
    result = path->run(&context, &c->p);
    if (result == OSR_OK && i == 0)
      must(cudaMemcpyAsync(copy, c->o.memory, c->o.size, cudaMemcpyDeviceToDevice, cuda.stream),
           "copying");
  }
  describe(&c->p, text, sizeof text);
  if (result != OSR_OK) {
    printf("FAIL %-16s %s\n     result %d: %s\n", path->name, text, result, context.error);
    must(cudaFree(device), "freeing");
    must(cudaFree(copy), "freeing");
    return false;
  }
  compare<<<grid, THREADS, (size_t) c->p.head_dim * sizeof(double), cuda.stream>>>(c->p, step,
                                                                                   device);
  must(cudaGetLastError(), "reference");
  scan<<<1024, 256, 0, cuda.stream>>>(c->o, device);
  differences<<<1024, 256, 0, cuda.stream>>>(copy, c->o.memory, c->o.size, device);
  must(cudaGetLastError(), "comparing");
  if (cudaStreamSynchronize(cuda.stream) != cudaSuccess)
    printf("FAIL %-16s %s\n", path->name, text);
  must(cudaMemcpy(&tally, device, sizeof tally, cudaMemcpyDeviceToHost), "running");
  must(cudaFree(device), "freeing");
  must(cudaFree(copy), "freeing");

  *relative = sqrt(tally.norm > 0 ? tally.error / tally.norm : tally.error);
  good = *relative <= limit && !tally.unwritten && !tally.spilled && !tally.changed;
  if (!good)
    printf("FAIL %-16s %s\n     error %.3g of %.0e, %llu elements unwritten, %llu beside o "
           "written, %llu bytes differ in a second run\n",
           path->name, text, *relative, limit, tally.unwritten, tally.spilled, tally.changed);
  return good;
}

/* --- random calls --- */

static uint64_t rng_state;

static int
rng(int low, int high)
{
  rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
  return low + (int) ((rng_state >> 33) % (uint64_t) (high - low + 1));
}

static void
draw_call(Call *c, uint64_t seed)
{
  static const int dims[] = { 1, 8, 17, 24, 32, 64, 64, 72, 80, 96, 128, 128, 128, 256, 512, 640 };
  const bool aligned = rng(0, 3) != 0;
  OsrAttention p = {};
  std::vector<int32_t> kv_len;
  bool bias;

  p.dtype = rng(0, 4) ? OSR_DTYPE_BF16 : OSR_DTYPE_F32;
  p.batch = rng(1, 3);
  p.heads = rng(1, 5);
  p.head_dim = dims[rng(0, 15)];
  p.lq = rng(0, 3) ? rng(1, 400) : rng(1, 1500);
  p.lk = rng(0, 2) ? rng(1, 1200) : p.lq;
  p.scale = (rng(0, 3) ? 1.0f : 10.0f) / sqrtf((float) p.head_dim);
  if (rng(0, 15) == 0)
    p.scale = -p.scale;
  if (rng(0, 2) == 0)
    p.mask = rng(0, 1) ? OSR_MASK_CAUSAL : OSR_MASK_FRAME_CAUSAL;
  if (p.mask == OSR_MASK_FRAME_CAUSAL)
    p.frame_len = rng(1, (int) p.lq);
  if (rng(0, 3) == 0)
    for (int64_t b = 0; b < p.batch; b++)
      kv_len.push_back(rng(0, 4) ? rng(1, (int) p.lk + 5) : 0);
  bias = rng(0, 3) == 0;
  c->p = p;
  call_draw(c, aligned ? 8 * rng(0, 3) : rng(0, 9), aligned ? 0 : rng(0, 3),
            kv_len.empty() ? NULL : kv_len.data(), bias, seed);
}

static int
check(int n, int seed)
{
  int n_calls[N_PATHS] = {}, n_bad = 0;
  double worst[N_PATHS][2] = {};

  for (int i = 0; i < n; i++) {
    Call c;

    rng_state = (uint64_t) (seed + i) * 0x9e3779b97f4a7c15ull + 1;
    draw_call(&c, (uint64_t) (seed + i));
    for (size_t j = 0; j < N_PATHS; j++) {
      double relative = 0;

      if (paths[j].refuses(&context, &c.p))
        continue;
      n_calls[j]++;
      if (!call_check(&c, &paths[j], INT32_MAX, &relative)) {
        n_bad++;
        printf("     ./attention-bench check 1 %d\n", seed + i);
      }
      worst[j][c.p.dtype == OSR_DTYPE_F32] =
          std::max(worst[j][c.p.dtype == OSR_DTYPE_F32], relative);
    }
    call_free(&c);
  }
  printf("\n%-18s %6s %12s %12s\n", "path", "calls", "worst bf16", "worst f32");
  for (size_t j = 0; j < N_PATHS; j++)
    printf("%-18s %6d %12.2e %12.2e\n", paths[j].name, n_calls[j], worst[j][0], worst[j][1]);
  printf("%d calls, %d failures\n\n", n, n_bad);
  return n_bad;
}

/* --- speed --- */

typedef struct Size {
  const char *name;
  OsrAttention p;
  int64_t gap; /* elements of a row that belong to others: QKV in one buffer */
  bool bias;
} Size;

/* Pairs of query and key, times 4 head_dim: a multiply-add each for the score and the output. */
static double
flops(const OsrAttention *p)
{
  double pairs = 0;

  for (int64_t i = 0; i < p->lq; i++)
    pairs += (double) osr_attention_visible(p, i, p->lk);
  return 4.0 * pairs * p->head_dim * p->heads * (double) p->batch;
}

/* Median seconds of one call, from 5 to 25 measurements of at least 2 ms each. */
static double
seconds(const Path *path, const OsrAttention *p)
{
  std::vector<double> times;
  cudaEvent_t start, end;
  double total = 0;
  int calls = 1;

  must(cudaEventCreate(&start), "an event");
  must(cudaEventCreate(&end), "an event");
  for (int i = 0; i < 27 && (i < 7 || total < 0.5); i++) {
    float ms;

    must(cudaEventRecord(start, cuda.stream), "an event");
    for (int j = 0; j < calls; j++)
      if (path->run(&context, p) != OSR_OK) {
        fprintf(stderr, "attention-bench: %s: %s\n", path->name, context.error);
        exit(1);
      }
    must(cudaEventRecord(end, cuda.stream), "an event");
    must(cudaEventSynchronize(end), path->name);
    must(cudaEventElapsedTime(&ms, start, end), "timing");
    if (i < 2) { /* the first loads the kernel, the second says how many to count */
      calls = ms < 2.0f ? (int) (2.0f / (ms / calls)) + 1 : calls;
      calls = std::min(calls, 200);
      continue;
    }
    times.push_back(1e-3 * ms / calls);
    total += 1e-3 * ms;
  }
  must(cudaEventDestroy(start), "an event");
  must(cudaEventDestroy(end), "an event");
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

static OsrAttention
size(OsrDType dtype, int64_t batch, int64_t len, int heads, int head_dim)
{
  OsrAttention p = {};

  p.dtype = dtype;
  p.batch = batch;
  p.lq = p.lk = len;
  p.heads = heads;
  p.head_dim = head_dim;
  p.scale = 1.0f / sqrtf((float) head_dim);
  return p;
}

static int
time_all(const char *path_name, const char *size_name)
{
  const OsrDType bf = OSR_DTYPE_BF16, f32 = OSR_DTYPE_F32;
  std::vector<Size> sizes = {
    { "MMDiT 256px", size(bf, 1, 8828, 24, 128), 2 * 3072, false },
    { "MMDiT 256px x3", size(bf, 3, 8828, 24, 128), 2 * 3072, false },
    { "MMDiT 768px", size(bf, 1, 76544, 24, 128), 2 * 3072, false },
    { "24 heads of 64", size(bf, 1, 8828, 24, 64), 2 * 1536, false },
    { "VAE mid block", size(bf, 1, 33264, 1, 512), 0, false },
    { "T5-XXL", size(bf, 1, 512, 64, 64), 2 * 4096, true },
    { "CLIP-L", size(bf, 1, 77, 12, 64), 2 * 768, false },
    { "STDiT3 space", size(bf, 30, 3600, 16, 72), 2 * 1152, false },
    { "STDiT3 time", size(bf, 3600, 30, 16, 72), 2 * 1152, false },
    { "STDiT3 text", size(bf, 2, 54000, 16, 72), 0, false },
    { "f32 of 128", size(f32, 1, 2340, 24, 128), 2 * 3072, false },
    { "f32 of 512", size(f32, 1, 4032, 1, 512), 0, false },
  };
  int n_bad = 0;

  sizes[4].p.mask = OSR_MASK_FRAME_CAUSAL;
  sizes[4].p.frame_len = 24 * 42;
  sizes[6].p.mask = OSR_MASK_CAUSAL;
  sizes[9].p.lk = 300;

  printf("%-16s %-18s %11s %9s %10s\n", "shape", "path", "ms", "TFLOP/s", "error");
  for (const Size &s : sizes) {
    const double work = flops(&s.p);
    Call c;

    if (size_name && !strstr(s.name, size_name))
      continue;
    c.p = s.p;
    call_draw(&c, s.gap, 0, NULL, s.bias, 1);
    for (size_t j = 0; j < N_PATHS; j++) {
      double relative = 0, t;

      if ((path_name && !strstr(paths[j].name, path_name)) || paths[j].refuses(&context, &c.p) ||
          (paths[j].run == osr_cuda_attention_simt && work > 2e12 && !path_name))
        continue;
      n_bad += !call_check(&c, &paths[j], 24, &relative);
      t = seconds(&paths[j], &c.p);
      printf("%-16s %-18s %11.4f %9.1f %10.1e\n", s.name, paths[j].name, 1e3 * t, 1e-12 * work / t,
             relative);
      fflush(stdout);
    }
    call_free(&c);
  }
  return n_bad;
}

int
main(int argc, char **argv)
{
  const bool only_check = argc > 1 && !strcmp(argv[1], "check");
  const bool only_time = argc > 1 && !strcmp(argv[1], "time");
  int n_bad = 0;

  if (argc > 1 && !only_check && !only_time) {
    fprintf(stderr, "usage: %s [check [N [SEED]] | time [PATH [SHAPE]]]\n", argv[0]);
    return 2;
  }
  open_device();
  if (!only_time)
    n_bad += check(only_check && argc > 2 ? atoi(argv[2]) : 150,
                   only_check && argc > 3 ? atoi(argv[3]) : 1);
  if (!only_check)
    n_bad += time_all(argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL);
  return n_bad != 0;
}
