/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conv-bench: conv3d alone, against a plain kernel in f64, and its speed at the sizes of the
 * Hunyuan VAE. Needs nvcc and nothing else; from the top of the repository:
 *
 *   nvcc -std=c++17 -O3 -Ikernels -gencode arch=compute_90a,code=sm_90a \
 *     tests/gpu/conv-bench.cu kernels/cuda/conv*.cu -o conv-bench
 *   ./conv-bench                checks, then times
 *   ./conv-bench check 500 7    500 random calls, seed 7
 *   ./conv-bench time           only times
 *   ./conv-bench time wgmma     only kernels with this in their name
 *
 * Every call runs with the kernel that the backend would choose and with each other that can
 * do it. Inputs have NaN around them, outputs are NaN before; what is beside y must stay.
 */
#include "../../kernels/cuda/conv.cuh"

#include <algorithm>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define THREADS 256
#define GUARD 64 /* elements before and after each buffer */

/* --- what the backend does elsewhere --- */

static OsrCuda cuda;
static OsrBackend backend;
static OsrOpsContext context;

OsrResult
osr_cuda_begin(OsrOpsContext *, const char *)
{
  return OSR_OK;
}

OsrResult
osr_cuda_check(OsrOpsContext *ctx, cudaError_t error, const char *fmt, ...)
{
  if (error == cudaSuccess)
    return OSR_OK;
  return osr_fail(ctx, OSR_ERR_DEVICE, "%s: %s", fmt, cudaGetErrorString(error));
}

OsrResult
osr_cuda_launched(OsrOpsContext *ctx, const char *fmt, ...)
{
  return osr_cuda_check(ctx, cudaGetLastError(), fmt);
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
  fprintf(stderr, "conv-bench: %s: %s\n", what, cudaGetErrorString(error));
  exit(1);
}

static void *
device_alloc(size_t size)
{
  void *p;

  must(cudaMalloc(&p, size), "cudaMalloc");
  return p;
}

/* One piece of scratch memory at a time, kept for the next call. */
static char *scratch;
static size_t scratch_size;
static bool scratch_taken;

static void *
scratch_alloc(void *, size_t size)
{
  if (scratch_taken)
    return NULL;
  if (size > scratch_size) {
    must(cudaDeviceSynchronize(), "before new scratch memory");
    if (scratch)
      must(cudaFree(scratch), "cudaFree");
    scratch = (char *) device_alloc(size);
    scratch_size = size;
  }
  scratch_taken = true;
  return scratch;
}

static void
scratch_free(void *, void *, size_t)
{
  scratch_taken = false;
}

static void
launch(const void *function, int64_t n, void *args)
{
  void *list[] = { args };
  const int64_t blocks = osr_ceil_div(n, THREADS);

  must(cudaLaunchKernel(function, dim3((unsigned) std::min<int64_t>(blocks, 65536)), dim3(THREADS),
                        list, 0, NULL),
       "launch");
}

/* --- data --- */

static __host__ __device__ inline uint32_t
mix(uint64_t x)
{
  x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdull;
  x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ull;
  return (uint32_t) (x >> 32);
}

typedef struct Fill {
  void *to;
  int64_t n;
  uint64_t seed;
  float scale;
  bool bf16;
} Fill;

/* Uniform in (-scale, scale). */
static __global__ void
fill_kernel(const __grid_constant__ Fill p)
{
  for (int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x; i < p.n;
       i += (int64_t) gridDim.x * THREADS) {
    const float v =
        p.scale * ((float) (mix(p.seed + (uint64_t) i) >> 8) * (2.0f / 16777216.0f) - 1.0f);

    if (p.bf16)
      ((__nv_bfloat16 *) p.to)[i] = __float2bfloat16_rn(v);
    else
      ((float *) p.to)[i] = v;
  }
}

static void
fill(OsrDType dtype, void *to, int64_t n, uint64_t seed, float scale)
{
  Fill p = { to, n, seed << 36, scale, dtype == OSR_DTYPE_BF16 };

  launch((const void *) fill_kernel, n, &p);
}

typedef struct Plain {
  OsrConv3d p;
  const void *residual; /* before the call, which may have overwritten it */
  int out_t, out_h, out_w;
  int64_t n, stride; /* output elements i * stride, i < n */
  double *sum;       /* [n] */
} Plain;

static __device__ double
plain_read(const void *p, OsrDType dtype, int64_t i)
{
  return dtype == OSR_DTYPE_BF16 ? (double) __bfloat162float(((const __nv_bfloat16 *) p)[i])
                                 : (double) ((const float *) p)[i];
}

/* As ops.h has it: the sample that position i of an up-sampled, padded axis is, or -1. */
static __device__ int
plain_sample(int i, int size, int up, bool first_single, OsrPad pad)
{
  if (i < 0 || i >= size) {
    if (pad == OSR_PAD_ZERO)
      return -1;
    i = i < 0 ? 0 : size - 1;
  }
  if (up == 1)
    return i;
  return first_single ? (i + 1) / 2 : i / 2;
}

static __global__ void
plain_kernel(const __grid_constant__ Plain q)
{
  const OsrConv3d &p = q.p;
  const int t_up = p.up_t == 2 ? 2 * p.t - 1 : p.t;

  for (int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x; i < q.n;
       i += (int64_t) gridDim.x * THREADS) {
    const int64_t at = i * q.stride, voxel = at / p.c_out, row = voxel / q.out_w;
    const int64_t frame = row / q.out_h, b = frame / q.out_t;
    const int co = (int) (at % p.c_out), wo = (int) (voxel % q.out_w);
    const int ho = (int) (row % q.out_h), to = (int) (frame % q.out_t);
    double sum = p.bias ? plain_read(p.bias, p.dtype, co) : 0;

    for (int kt = 0; kt < p.k_t; kt++)
      for (int kh = 0; kh < p.k_h; kh++)
        for (int kw = 0; kw < p.k_w; kw++) {
          const int t = plain_sample(to * p.stride_t - p.pad_t[0] + kt, t_up, p.up_t, true, p.pad);
          const int h =
              plain_sample(ho * p.stride_h - p.pad_h[0] + kh, p.h * p.up_hw, p.up_hw, false, p.pad);
          const int w = plain_sample(wo * p.stride_w - p.pad_w[0] + kw, p.w_in * p.up_hw, p.up_hw,
                                     false, p.pad);
          const int64_t x = (((b * p.t + t) * p.h + h) * p.w_in + w) * p.c_in;
          const int64_t tap = ((((int64_t) co * p.k_t + kt) * p.k_h + kh) * p.k_w + kw) * p.c_in;

          if (t < 0 || h < 0 || w < 0)
            continue;
          for (int c = 0; c < p.c_in; c++)
            sum += plain_read(p.x, p.dtype, x + c) * plain_read(p.w, p.w_dtype, tap + c);
        }
    if (q.residual)
      sum += plain_read(q.residual, p.dtype, at);
    q.sum[i] = sum;
  }
}

/* A buffer with NaN before and after its elements; `shift` elements off alignment. */
typedef struct Buffer {
  char *memory;
  size_t size, element;
  char *data;
} Buffer;

static Buffer
buffer_new(OsrDType dtype, int64_t n, int shift)
{
  Buffer b;

  b.element = osr_dtype_size(dtype);
  b.size = (size_t) (n + 2 * GUARD + shift) * b.element;
  b.memory = (char *) device_alloc(b.size);
  b.data = b.memory + (size_t) (GUARD + shift) * b.element;
  must(cudaMemset(b.memory, 0xff, b.size), "cudaMemset");
  return b;
}

static void
buffer_free(Buffer *b)
{
  if (b->memory)
    must(cudaFree(b->memory), "cudaFree");
  b->memory = NULL;
}

/* --- checks --- */

static uint64_t random_state;

static int
random_below(int n)
{
  return (int) (mix(++random_state * 0x9e3779b97f4a7c15ull) % (uint32_t) n);
}

template <int N>
static int
random_of(const int (&list)[N])
{
  return list[random_below(N)];
}

static const char *
describe(const OsrConv3d *p)
{
  static char text[256];

  snprintf(text, sizeof text,
           "%s w %s, %lldx%dx%dx%dx%d to %d, k %d%d%d s %d%d%d pad %d+%d %d+%d %d+%d %s up %d %d"
           "%s%s",
           osr_ops_dtype_name(p->dtype), osr_ops_dtype_name(p->w_dtype), (long long) p->batch, p->t,
           p->h, p->w_in, p->c_in, p->c_out, p->k_t, p->k_h, p->k_w, p->stride_t, p->stride_h,
           p->stride_w, p->pad_t[0], p->pad_t[1], p->pad_h[0], p->pad_h[1], p->pad_w[0],
           p->pad_w[1], p->pad == OSR_PAD_ZERO ? "zero" : "replicate", p->up_t, p->up_hw,
           p->bias ? ", bias" : "",
           p->residual ? p->residual == p->y ? ", in place" : ", residual" : "");
  return text;
}

static std::vector<const OsrConvKernel *>
all_kernels(void)
{
  std::vector<const OsrConvKernel *> list;

  for (const OsrConvKernel *k = osr_conv_wgmma_kernels; k->name; k++)
    list.push_back(k);
  for (const OsrConvKernel *k = osr_conv_mma_kernels; k->name; k++)
    list.push_back(k);
  return list;
}

static double
limit_of(const OsrConv3d *p, const OsrConvKernel *kernel)
{
  if (p->dtype == OSR_DTYPE_BF16)
    return 1e-2;
  return kernel && kernel->tf32 ? 1e-3 : 2e-5;
}

/* The element of y, rounded as it is stored. */
static double
host_read(const char *y, OsrDType dtype, int64_t i)
{
  uint32_t bits;
  float f;

  if (dtype == OSR_DTYPE_BF16) {
    bits = (uint32_t) ((const uint16_t *) y)[i] << 16;
    memcpy(&f, &bits, 4);
    return f;
  }
  return ((const float *) y)[i];
}

/* Compares elements i * stride of y with the sums; what is wrong, or NULL. */
static const char *
compare(const char *y, OsrDType dtype, const std::vector<double> &sum, int64_t stride, double limit,
        double *error)
{
  static char text[160];
  double square = 0, difference = 0, rms;

  for (double s : sum)
    square += s * s;
  rms = sqrt(square / (double) sum.size());
  for (size_t i = 0; i < sum.size(); i++) {
    const double v = host_read(y, dtype, (int64_t) i * stride), d = fabs(v - sum[i]);

    if (!(d <= 5 * limit * (fabs(sum[i]) + rms))) {
      snprintf(text, sizeof text, "element %lld is %g instead of %g",
               (long long) ((int64_t) i * stride), v, sum[i]);
      return text;
    }
    difference += d * d;
  }
  *error = square > 0 ? sqrt(difference / square) : 0;
  if (*error <= limit)
    return NULL;
  snprintf(text, sizeof text, "error %g", *error);
  return text;
}

static bool
guards_hold(const char *memory, const Buffer *b)
{
  const size_t before = (size_t) (b->data - b->memory), after = GUARD * b->element;

  for (size_t i = 0; i < before; i++)
    if ((unsigned char) memory[i] != 0xff)
      return false;
  for (size_t i = 0; i < after; i++)
    if ((unsigned char) memory[b->size - 1 - i] != 0xff)
      return false;
  return true;
}

typedef struct Case {
  OsrConv3d p;
  Buffer x, w, bias, residual, y;
  int64_t n; /* elements of y */
  int y_shift;
  bool in_place;
} Case;

static void
random_call(OsrConv3d *p, int out[3])
{
  static const int c_in[] = { 1, 3, 4, 5, 7, 8, 12, 16, 17, 24, 32, 64, 64, 72, 128, 128, 192 };
  static const int c_out[] = { 1, 3, 4, 6, 8, 16, 31, 32, 33, 36, 64, 96, 128, 130, 132, 256, 260 };

  for (;;) {
    *p = {};
    p->dtype = random_below(3) ? OSR_DTYPE_BF16 : OSR_DTYPE_F32;
    p->w_dtype = random_below(4) ? p->dtype : random_below(2) ? OSR_DTYPE_F32 : OSR_DTYPE_BF16;
    p->batch = 1 + random_below(2);
    p->t = 1 + random_below(6);
    p->h = 1 + random_below(11);
    p->w_in = 1 + random_below(13);
    p->c_in = random_of(c_in);
    p->c_out = random_of(c_out);
    p->pad = random_below(2) ? OSR_PAD_REPLICATE : OSR_PAD_ZERO;
    p->up_t = 1 + (random_below(3) == 0);
    p->up_hw = 1 + (random_below(3) == 0);
    p->stride_t = 1 + (random_below(4) == 0);
    p->stride_h = 1 + (random_below(4) == 0);
    p->stride_w = 1 + (random_below(4) == 0);
    p->k_t = p->k_h = p->k_w = 3;
    p->pad_t[0] = 2;
    p->pad_h[0] = p->pad_h[1] = p->pad_w[0] = p->pad_w[1] = 1;
    if (random_below(3) == 0) {
      p->k_t = 1 + random_below(4);
      p->k_h = 1 + random_below(4);
      p->k_w = 1 + random_below(4);
      for (int i = 0; i < 2; i++) {
        p->pad_t[i] = random_below(p->k_t + 1);
        p->pad_h[i] = random_below(p->k_h + 1);
        p->pad_w[i] = random_below(p->k_w + 1);
      }
    }
    if (osr_conv3d_up_t(p) + p->pad_t[0] + p->pad_t[1] < p->k_t ||
        p->h * p->up_hw + p->pad_h[0] + p->pad_h[1] < p->k_h ||
        p->w_in * p->up_hw + p->pad_w[0] + p->pad_w[1] < p->k_w)
      continue;
    osr_conv3d_out(p, &out[0], &out[1], &out[2]);
    return;
  }
}

static void
case_new(Case *c)
{
  OsrConv3d *p = &c->p;
  int out[3];

  random_call(p, out);
  const int64_t n_x = p->batch * p->t * p->h * p->w_in * p->c_in;
  const int64_t n_w = (int64_t) p->k_t * p->k_h * p->k_w * p->c_in * p->c_out;
  const int residual = random_below(3);

  c->n = p->batch * out[0] * out[1] * out[2] * p->c_out;
  c->y_shift = random_below(5) == 0;
  c->in_place = residual == 2;
  c->x = buffer_new(p->dtype, n_x, random_below(5) == 0);
  c->w = buffer_new(p->w_dtype, n_w, random_below(5) == 0);
  c->bias = {};
  c->residual = {};
  fill(p->dtype, c->x.data, n_x, random_state + 1, 1);
  fill(p->w_dtype, c->w.data, n_w, random_state + 2, 1);
  p->x = c->x.data;
  p->w = c->w.data;
  if (random_below(3)) {
    c->bias = buffer_new(p->dtype, p->c_out, random_below(5) == 0);
    fill(p->dtype, c->bias.data, p->c_out, random_state + 3, 4);
    p->bias = c->bias.data;
  }
  if (residual) {
    c->residual = buffer_new(p->dtype, c->n, c->y_shift);
    fill(p->dtype, c->residual.data, c->n, random_state + 4, 4);
  }
  c->y = buffer_new(p->dtype, c->n, c->y_shift);
  p->y = c->y.data;
  p->residual = residual == 0 ? NULL : c->in_place ? c->y.data : c->residual.data;
}

static void
case_free(Case *c)
{
  buffer_free(&c->x);
  buffer_free(&c->w);
  buffer_free(&c->bias);
  buffer_free(&c->residual);
  buffer_free(&c->y);
}

static std::vector<double>
plain_sums(const OsrConv3d *p, const void *residual, int64_t n, int64_t stride)
{
  std::vector<double> sum((size_t) n);
  Plain q = { *p, residual, 0, 0, 0, n, stride, NULL };

  osr_conv3d_out(p, &q.out_t, &q.out_h, &q.out_w);
  q.sum = (double *) device_alloc((size_t) n * sizeof(double));
  launch((const void *) plain_kernel, n, &q);
  must(cudaMemcpy(sum.data(), q.sum, (size_t) n * sizeof(double), cudaMemcpyDeviceToHost),
       "plain kernel");
  must(cudaFree(q.sum), "cudaFree");
  return sum;
}

/* Runs the case with one kernel; false if it went wrong, and `ran` tells whether it could. */
static bool
case_run(Case *c, const OsrConvKernel *kernel, const std::vector<double> &sum, bool *ran,
         double *error)
{
  std::vector<char> memory(c->y.size);
  const char *wrong;
  OsrResult result;

  must(cudaMemset(c->y.memory, 0xff, c->y.size), "cudaMemset");
  if (c->in_place)
    must(cudaMemcpy(c->y.data, c->residual.data, (size_t) c->n * c->y.element,
                    cudaMemcpyDeviceToDevice),
         "cudaMemcpy");
  result = osr_conv3d_with(&context, &c->p, kernel);
  must(cudaDeviceSynchronize(), kernel ? kernel->name : "chosen kernel");
  *ran = result == OSR_OK;
  if (scratch_taken) {
    printf("FAIL %s: scratch memory kept\n", kernel ? kernel->name : "chosen");
    return false;
  }
  if (result != OSR_OK) {
    if (kernel && result == OSR_ERR_UNSUPPORTED)
      return true;
    printf("FAIL %s: %s\n     %s\n", kernel ? kernel->name : "chosen", describe(&c->p),
           context.error);
    return false;
  }
  must(cudaMemcpy(memory.data(), c->y.memory, c->y.size, cudaMemcpyDeviceToHost), "cudaMemcpy");
  wrong = compare(memory.data() + (c->y.data - c->y.memory), c->p.dtype, sum, 1,
                  limit_of(&c->p, kernel), error);
  if (!wrong && !guards_hold(memory.data(), &c->y))
    wrong = "wrote beside y";
  if (!wrong)
    return true;
  printf("FAIL %s: %s: %s\n", kernel ? kernel->name : "chosen", describe(&c->p), wrong);
  return false;
}

static int
check(int cases, uint64_t seed)
{
  const std::vector<const OsrConvKernel *> kernels = all_kernels();
  std::vector<double> worst(kernels.size() + 1, 0);
  std::vector<int> runs(kernels.size() + 1, 0);
  int failures = 0;

  for (int i = 0; i < cases; i++) {
    std::vector<double> sum;
    Case c;

    random_state = (seed << 32) + (uint64_t) i * 1000;
    case_new(&c);
    sum = plain_sums(&c.p, c.p.residual ? c.residual.data : NULL, c.n, 1);
    for (size_t k = 0; k <= kernels.size(); k++) {
      double error = 0;
      bool ran;

      failures += !case_run(&c, k ? kernels[k - 1] : NULL, sum, &ran, &error);
      runs[k] += ran;
      worst[k] = std::max(worst[k], error);
    }
    case_free(&c);
  }
  for (size_t k = 0; k <= kernels.size(); k++)
    printf("check %-28s %4d calls, largest error %.1e\n", k ? kernels[k - 1]->name : "chosen",
           runs[k], worst[k]);
  printf("check: %d calls, %d failures\n", cases, failures);
  return failures;
}

/* --- times --- */

typedef struct Layer {
  const char *name;
  int decode; /* how often in a decode */
  int t, h, w, c_in, c_out;
  int stride_t, stride_hw, up_t, up_hw;
  bool residual;
} Layer;

static const Layer layers[] = {
  { "decoder in", 1, 33, 24, 42, 16, 512, 1, 1, 1, 1, false },
  { "512, block 0", 10, 33, 24, 42, 512, 512, 1, 1, 1, 1, true },
  { "512, up space", 1, 33, 24, 42, 512, 512, 1, 1, 1, 2, false },
  { "512, block 1", 6, 33, 48, 84, 512, 512, 1, 1, 1, 1, true },
  { "512, up space and time", 1, 33, 48, 84, 512, 512, 1, 1, 2, 2, false },
  { "512 to 256", 1, 65, 96, 168, 512, 256, 1, 1, 1, 1, false },
  { "256, block 2", 5, 65, 96, 168, 256, 256, 1, 1, 1, 1, true },
  { "256, up space and time", 1, 65, 96, 168, 256, 256, 1, 1, 2, 2, false },
  { "256 to 128", 1, 129, 192, 336, 256, 128, 1, 1, 1, 1, false },
  { "128, block 3", 5, 129, 192, 336, 128, 128, 1, 1, 1, 1, true },
  { "decoder out", 1, 129, 192, 336, 128, 3, 1, 1, 1, 1, false },
  { "encoder in", 0, 129, 192, 336, 3, 128, 1, 1, 1, 1, false },
  { "128, down space", 0, 129, 192, 336, 128, 128, 1, 2, 1, 1, false },
  { "256, down space and time", 0, 129, 96, 168, 256, 256, 2, 2, 1, 1, false },
  { "512, down space and time", 0, 65, 48, 84, 512, 512, 2, 2, 1, 1, false },
  { "encoder out", 0, 33, 24, 42, 512, 32, 1, 1, 1, 1, false },
};

static OsrConv3d
layer_call(const Layer *l)
{
  OsrConv3d p = {};

  p.dtype = p.w_dtype = OSR_DTYPE_BF16;
  p.batch = 1;
  p.t = l->t;
  p.h = l->h;
  p.w_in = l->w;
  p.c_in = l->c_in;
  p.c_out = l->c_out;
  p.k_t = p.k_h = p.k_w = 3;
  p.stride_t = l->stride_t;
  p.stride_h = p.stride_w = l->stride_hw;
  p.pad_t[0] = 2;
  p.pad_h[0] = p.pad_h[1] = p.pad_w[0] = p.pad_w[1] = 1;
  p.pad = OSR_PAD_REPLICATE;
  p.up_t = l->up_t;
  p.up_hw = l->up_hw;
  return p;
}

/* Median over launches, in ms; negative if the kernel cannot do it. */
static double
time_call(const OsrConv3d *p, const OsrConvKernel *kernel)
{
  cudaEvent_t begin, end;
  std::vector<float> times;
  float total = 0;

  if (osr_conv3d_with(&context, p, kernel) != OSR_OK)
    return -1;
  must(cudaDeviceSynchronize(), kernel ? kernel->name : "chosen kernel");
  must(cudaEventCreate(&begin), "cudaEventCreate");
  must(cudaEventCreate(&end), "cudaEventCreate");
  while (times.size() < 5 || (total < 150 && times.size() < 50)) {
    float ms;

    must(cudaEventRecord(begin), "cudaEventRecord");
    if (osr_conv3d_with(&context, p, kernel) != OSR_OK)
      return -1;
    must(cudaEventRecord(end), "cudaEventRecord");
    must(cudaEventSynchronize(end), "cudaEventSynchronize");
    must(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
    times.push_back(ms);
    total += ms;
  }
  must(cudaEventDestroy(begin), "cudaEventDestroy");
  must(cudaEventDestroy(end), "cudaEventDestroy");
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

/* Some thousand elements of a large result, spread over all of it. */
static bool
check_some(const OsrConv3d *p, const void *residual, int64_t n)
{
  const int64_t count = std::min<int64_t>(n, 4096), stride = n / count;
  const std::vector<double> sum = plain_sums(p, residual, count, stride);
  std::vector<char> y(sum.size() * 2);
  const char *wrong;
  double error;

  must(cudaMemcpy2D(y.data(), 2, p->y, (size_t) stride * 2, 2, sum.size(), cudaMemcpyDeviceToHost),
       "cudaMemcpy2D");
  wrong = compare(y.data(), OSR_DTYPE_BF16, sum, 1, 1e-2, &error);
  if (wrong)
    printf("FAIL %s: %s\n", describe(p), wrong);
  return !wrong;
}

/* Products that must be made (summed taps count once), and those of all 27 taps. */
static void
count_flops(const Layer *l, int64_t voxels, double *done, double *nominal)
{
  const double pair = 2.0 * (double) voxels * l->c_in * l->c_out;

  *nominal = 27 * pair;
  *done = (l->up_t == 2 ? 8 : l->up_hw == 2 ? 12 : 27) * pair;
}

static int
time_layer(const Layer *l, const char *filter, double *decode_ms, double *decode_flops)
{
  OsrConv3d p = layer_call(l);
  Buffer x, w, bias, residual = {}, y;
  double done, nominal;
  int out[3], failures = 0;
  int64_t voxels, n_x, n_w;

  osr_conv3d_out(&p, &out[0], &out[1], &out[2]);
  voxels = (int64_t) out[0] * out[1] * out[2];
  n_x = (int64_t) p.t * p.h * p.w_in * p.c_in;
  n_w = (int64_t) 27 * p.c_in * p.c_out;
  count_flops(l, voxels, &done, &nominal);
  x = buffer_new(p.dtype, n_x, 0);
  w = buffer_new(p.dtype, n_w, 0);
  bias = buffer_new(p.dtype, p.c_out, 0);
  y = buffer_new(p.dtype, voxels * p.c_out, 0);
  fill(p.dtype, x.data, n_x, 1, 1);
  fill(p.dtype, w.data, n_w, 2, 1);
  fill(p.dtype, bias.data, p.c_out, 3, 1);
  if (l->residual) {
    residual = buffer_new(p.dtype, voxels * p.c_out, 0);
    fill(p.dtype, residual.data, voxels * p.c_out, 4, 1);
  }
  p.x = x.data;
  p.w = w.data;
  p.bias = bias.data;
  p.residual = residual.data;
  p.y = y.data;

  printf("%-26s %3dx%3dx%3d %3d to %3d%s, %.3f TFLOP of %.3f\n", l->name, p.t, p.h, p.w_in, p.c_in,
         p.c_out, l->residual ? " + residual" : "", done * 1e-12, nominal * 1e-12);
  const std::vector<const OsrConvKernel *> kernels = all_kernels();
  for (size_t k = 0; k <= kernels.size(); k++) {
    const OsrConvKernel *kernel = k ? kernels[k - 1] : NULL;
    double ms;

    if (kernel && (kernel->dtype != p.dtype || (filter && !strstr(kernel->name, filter))))
      continue;
    must(cudaMemset(y.memory, 0xff, y.size), "cudaMemset");
    ms = time_call(&p, kernel);
    if (ms < 0) {
      if (!kernel) {
        printf("FAIL %s: %s\n", describe(&p), context.error);
        failures++;
      }
      continue;
    }
    printf("    %-30s %9.3f ms %8.1f TFLOP/s, %8.1f of 27 taps\n", kernel ? kernel->name : "chosen",
           ms, done / ms * 1e-9, nominal / ms * 1e-9);
    failures += !check_some(&p, residual.data, voxels * p.c_out);
    if (!kernel) {
      *decode_ms += ms * l->decode;
      *decode_flops += done * l->decode;
    }
  }
  fflush(stdout);
  buffer_free(&x);
  buffer_free(&w);
  buffer_free(&bias);
  buffer_free(&residual);
  buffer_free(&y);
  return failures;
}

static int
time_layers(const char *filter)
{
  double ms = 0, flops = 0;
  int failures = 0;

  for (const Layer &l : layers)
    failures += time_layer(&l, filter, &ms, &flops);
  printf("convolutions of a decode of 33x24x42 latents: %.1f ms, %.1f TFLOP, %.1f TFLOP/s\n", ms,
         flops * 1e-12, flops / ms * 1e-9);
  return failures;
}

int
main(int argc, char **argv)
{
  const char *what = argc > 1 ? argv[1] : "all";
  int failures = 0, major, minor, shared;

  must(cudaSetDevice(0), "cudaSetDevice");
  must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "device");
  must(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "device");
  must(cudaDeviceGetAttribute(&cuda.n_sms, cudaDevAttrMultiProcessorCount, 0), "device");
  must(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "device");
  cuda.max_shared = (size_t) shared;
  cuda.capability = 10 * major + minor;
  context.backend = &backend;
  context.impl = &cuda;
  context.scratch_alloc = scratch_alloc;
  context.scratch_free = scratch_free;
  if (!strcmp(what, "check") || !strcmp(what, "all"))
    failures += check(argc > 2 ? atoi(argv[2]) : 300, argc > 3 ? strtoull(argv[3], NULL, 10) : 1);
  if (!strcmp(what, "time") || !strcmp(what, "all"))
    failures += time_layers(!strcmp(what, "time") && argc > 2 ? argv[2] : NULL);
  return failures != 0;
}
