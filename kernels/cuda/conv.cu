/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* conv3d: what a call becomes. conv.cuh tells how the kernels see it. */
#include "conv.cuh"

#include <algorithm>

/* The phases of one axis, before those of three are combined. */
typedef struct AxisPhases {
  int n;
  int outputs[2], first[2], cut[2];
} AxisPhases;

typedef struct Plan {
  OsrConvArgs args;
  OsrConvPack pack;
  const OsrConvKernel *kernel;
  int64_t in_voxels;
  bool widen; /* x is copied to rows that 16-byte chunks divide */
  int64_t w_bytes, bias_bytes, x_bytes;
} Plan;

/* Splits an axis into even and odd outputs where that saves taps. Time keeps its first sample
 * single: its pads must lie before that and repeat it, or its weights would not be summed. */
static void
plan_axis(OsrConvAxis *axis, AxisPhases *phases, int in, int up, bool single, int taps, int stride,
          const int pad[2], bool replicate, int n_out)
{
  const bool pads_fit =
      single ? pad[0] == 2 && pad[1] == 0 && replicate : pad[0] == 1 && pad[1] == 1;

  if (up == 2 && taps == 3 && stride == 1 && pads_fit) {
    *axis = { .taps = 2, .step = 1, .size = in, .add = 0, .shift = 0, .out_step = 2 };
    phases->n = 2;
    for (int i = 0; i < 2; i++) {
      phases->outputs[i] = (n_out + 1 - i) / 2;
      phases->first[i] = i - 1;
      phases->cut[i] = i + 1;
    }
    return;
  }
  *axis = { .taps = taps, .step = stride, .size = in, .add = 0, .shift = 0, .out_step = 1 };
  if (up == 2) {
    axis->size = single ? 2 * in - 1 : 2 * in;
    axis->add = single;
    axis->shift = 1;
  }
  *phases = { 1, { n_out, 0 }, { -pad[0], 0 }, { 0, 0 } };
}

/* Axes and phases; rows of a phase that do not fit 32 bits are refused. */
static OsrResult
plan_phases(OsrOpsContext *ctx, const OsrConv3d *p, OsrConvArgs *a)
{
  const bool replicate = p->pad == OSR_PAD_REPLICATE;
  AxisPhases t, h, w;

  plan_axis(&a->t, &t, p->t, p->up_t, true, p->k_t, p->stride_t, p->pad_t, replicate, a->out_t);
  plan_axis(&a->h, &h, p->h, p->up_hw, false, p->k_h, p->stride_h, p->pad_h, replicate, a->out_h);
  plan_axis(&a->w_axis, &w, p->w_in, p->up_hw, false, p->k_w, p->stride_w, p->pad_w, replicate,
            a->out_w);
  a->n_phases = 0;
  for (int i = 0; i < t.n * h.n * w.n; i++) {
    const int it = i / (h.n * w.n), ih = i / w.n % h.n, iw = i % w.n;
    OsrConvPhase f = {};
    int64_t m;

    f.n_t = t.outputs[it];
    f.n_h = h.outputs[ih];
    f.n_w = w.outputs[iw];
    f.out_t = it;
    f.out_h = ih;
    f.out_w = iw;
    f.first_t = t.first[it];
    f.first_h = h.first[ih];
    f.first_w = w.first[iw];
    f.cut_t = t.cut[it];
    f.cut_h = h.cut[ih];
    f.cut_w = w.cut[iw];
    /* The checks have seen to it that y, which is no smaller, can be counted. */
    m = p->batch * f.n_t * f.n_h * f.n_w;
    if (m > INT32_MAX)
      return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: %lld voxels at a time are too many",
                      (long long) m);
    f.m = (uint32_t) m;
    if (m > 0)
      a->phase[a->n_phases++] = f;
  }
  return OSR_OK;
}

/* Channels as the kernels want them, the order of K, and its length. */
static OsrResult
plan_channels(OsrOpsContext *ctx, const OsrConv3d *p, Plan *plan)
{
  OsrConvArgs *a = &plan->args;
  const int chunk = 16 / (int) osr_dtype_size(p->dtype), step = 8 * chunk;
  const int64_t c = osr_ceil_div(p->c_in, chunk) * chunk;
  int64_t k = (int64_t) a->t.taps * a->h.taps * a->w_axis.taps;

  if (__builtin_mul_overflow(k, c, &k) || k > INT32_MAX / 4)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: %d x %d x %d taps of %d channels", p->k_t,
                    p->k_h, p->k_w, p->c_in);
  a->c = (int) c;
  a->c_block = c % step == 0 ? step : (int) c;
  a->blocks = a->c / a->c_block;
  a->k_steps = (int) osr_ceil_div(k, step);
  plan->widen = c != p->c_in || !osr_aligned(p->x, 16);
  plan->x_bytes = plan->widen ? plan->in_voxels * c * (int64_t) osr_dtype_size(p->dtype) : 0;
  return OSR_OK;
}

/* Whether rows of y and residual are made of aligned groups of four. */
static bool
rows_of_four(const OsrConv3d *p)
{
  const size_t size = 4 * osr_dtype_size(p->dtype);

  return p->c_out % 4 == 0 && osr_aligned(p->y, size) && osr_aligned(p->residual, size);
}

/* Tiles of the chosen kernel, and what its weights take. */
static OsrResult
plan_tiles(OsrOpsContext *ctx, const OsrConv3d *p, Plan *plan)
{
  OsrConvArgs *a = &plan->args;
  const OsrConvKernel *kernel = plan->kernel;
  int64_t m_tiles = 0;

  a->n_tiles = (p->c_out - 1) / kernel->bn + 1;
  for (int i = 0; i < a->n_phases; i++) {
    a->phase[i].first_tile = (int) m_tiles;
    m_tiles += osr_ceil_div(a->phase[i].m, kernel->bm);
  }
  if (m_tiles * a->n_tiles > INT32_MAX / 2)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: %lld x %d tiles are too many",
                    (long long) m_tiles, a->n_tiles);
  a->m_tiles = (int) m_tiles;
  plan->bias_bytes = (int64_t) a->n_tiles * kernel->bn * (int64_t) sizeof(float);
  if (__builtin_mul_overflow((int64_t) a->n_phases * a->n_tiles * a->k_steps,
                             (int64_t) kernel->bn * OSR_CONV_ROW, &plan->w_bytes) ||
      plan->w_bytes > INT64_MAX / 4)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: %d channels out of %d", p->c_out, p->c_in);
  return OSR_OK;
}

/* Whether this build has code of the kernel for the device: wgmma may have been left out. */
static bool
kernel_runs(const OsrConvKernel *kernel, int cc)
{
  if (kernel->device_cc != 90)
    return cc >= kernel->device_cc;
  return cc == 90 && osr_cuda_has_kernel(kernel->function, kernel->threads);
}

/* The first of the list that will do. */
static const OsrConvKernel *
find_kernel(const OsrConvKernel *list, const OsrCuda *cuda, const OsrConv3d *p, int bn)
{
  const bool vector = rows_of_four(p), tf32 = p->dtype == OSR_DTYPE_F32 && cuda->tf32;

  for (const OsrConvKernel *i = list; i->name; i++)
    if (i->dtype == p->dtype && i->bn == bn && i->tf32 == tf32 && (vector || i->any_row) &&
        kernel_runs(i, cuda->capability))
      return i;
  return NULL;
}

/* Wide tiles for many channels. */
static const OsrConvKernel *
choose_kernel(const OsrCuda *cuda, const OsrConv3d *p)
{
  const OsrConvKernel *kernel = NULL;

  if (p->dtype == OSR_DTYPE_F32)
    return find_kernel(osr_conv_mma_kernels, cuda, p, p->c_out > 32 || cuda->tf32 ? 64 : 32);
  if (p->c_out > 32)
    kernel = find_kernel(osr_conv_wgmma_kernels, cuda, p, p->c_out % 256 == 0 ? 256 : 128);
  if (!kernel)
    kernel = find_kernel(osr_conv_wgmma_kernels, cuda, p, 32);
  return kernel ? kernel : find_kernel(osr_conv_mma_kernels, cuda, p, p->c_out > 32 ? 128 : 32);
}

static OsrResult
plan_kernel(OsrOpsContext *ctx, const OsrConv3d *p, const OsrConvKernel *kernel, Plan *plan)
{
  const OsrCuda *cuda = osr_cuda(ctx);

  plan->kernel = kernel ? kernel : choose_kernel(cuda, p);
  if (!plan->kernel || plan->kernel->dtype != p->dtype ||
      !kernel_runs(plan->kernel, cuda->capability) || !(plan->kernel->any_row || rows_of_four(p)))
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED,
                    "conv3d: no kernel for %s and %d channels out on a device of compute "
                    "capability %d",
                    osr_ops_dtype_name(p->dtype), p->c_out, cuda->capability);
  return OSR_OK;
}

static OsrResult
make_plan(OsrOpsContext *ctx, const OsrConv3d *p, const OsrConvKernel *kernel, Plan *plan)
{
  OsrConvArgs *a = &plan->args;

  plan->in_voxels = p->batch * p->t * p->h * p->w_in;
  if (plan->in_voxels > OSR_CONV_MAX_VOXELS)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: %lld x %d x %d x %d voxels are too many",
                    (long long) p->batch, p->t, p->h, p->w_in);
  a->in_t = p->t;
  a->in_h = p->h;
  a->in_w = p->w_in;
  osr_conv3d_out(p, &a->out_t, &a->out_h, &a->out_w);
  a->c_out = p->c_out;
  a->residual = p->residual;
  a->y = p->y;
  a->replicate = p->pad == OSR_PAD_REPLICATE;
  a->vector = rows_of_four(p);
  OSR_TRY(plan_kernel(ctx, p, kernel, plan));
  OSR_TRY(plan_phases(ctx, p, a));
  OSR_TRY(plan_channels(ctx, p, plan));
  OSR_TRY(plan_tiles(ctx, p, plan));
  plan->pack.dtype = p->dtype;
  plan->pack.w_dtype = p->w_dtype;
  plan->pack.w = p->w;
  plan->pack.bias = p->bias;
  plan->pack.k_t = p->k_t;
  plan->pack.k_h = p->k_h;
  plan->pack.k_w = p->k_w;
  plan->pack.c_in = p->c_in;
  plan->pack.bn = plan->kernel->bn;
  return OSR_OK;
}

/* Enqueues it all; `memory` is for weights, bias and widened x. */
static cudaError_t
run_plan(const OsrCuda *cuda, const OsrConv3d *p, Plan *plan, char *memory)
{
  OsrConvArgs *a = &plan->args;
  const OsrConvKernel *kernel = plan->kernel;
  const int tiles = a->m_tiles * a->n_tiles;
  /* Per cent of a multiprocessor's shared memory, which has 1 KiB more than a block may ask
   * for, and of that a block loses 1 KiB. What is not asked for is L1. */
  const int64_t share =
      osr_ceil_div((int64_t) (kernel->shared + 1024) * 100, (int64_t) cuda->max_shared + 1024);
  const int blocks = kernel->persistent && tiles > cuda->n_sms ? cuda->n_sms : tiles;
  void *args[] = { a };
  cudaError_t e;

  a->w = memory;
  a->bias = (const float *) (memory + plan->w_bytes);
  a->x = p->x;
  plan->pack.to = memory;
  plan->pack.bias_to = (float *) (memory + plan->w_bytes);
  e = osr_conv_pack(a, &plan->pack, cuda->stream);
  if (e == cudaSuccess && plan->widen) {
    char *x = memory + plan->w_bytes + plan->bias_bytes;

    a->x = x;
    e = osr_conv_widen(p->dtype, p->x, x, plan->in_voxels, p->c_in, a->c, cuda->stream);
  }
  if (e == cudaSuccess)
    e = cudaFuncSetAttribute(kernel->function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kernel->shared);
  if (e == cudaSuccess)
    e = cudaFuncSetAttribute(kernel->function, cudaFuncAttributePreferredSharedMemoryCarveout,
                             (int) std::min<int64_t>(share, 100));
  if (e == cudaSuccess)
    e = cudaLaunchKernel(kernel->function, dim3((unsigned) blocks),
                         dim3((unsigned) kernel->threads), args, (size_t) kernel->shared,
                         cuda->stream);
  return e;
}

/* A kernel of one voxel is a linear layer. That wants rows of whole 16-byte chunks. */
static bool
is_linear(const OsrConv3d *p)
{
  const int chunk = 16 / (int) osr_dtype_size(p->dtype);
  const uintptr_t addresses =
      (uintptr_t) p->x | (uintptr_t) p->w | (uintptr_t) p->residual | (uintptr_t) p->y;

  return p->k_t == 1 && p->k_h == 1 && p->k_w == 1 && p->stride_t == 1 && p->stride_h == 1 &&
         p->stride_w == 1 && p->up_t == 1 && p->up_hw == 1 && p->pad_t[0] + p->pad_t[1] == 0 &&
         p->pad_h[0] + p->pad_h[1] == 0 && p->pad_w[0] + p->pad_w[1] == 0 && p->c_in % chunk == 0 &&
         p->c_out % chunk == 0 && addresses % 16 == 0;
}

static OsrResult
run_linear(OsrOpsContext *ctx, const OsrConv3d *p)
{
  OsrLinear linear = {};

  linear.dtype = p->dtype;
  linear.w_dtype = p->w_dtype;
  linear.batch = 1;
  linear.m = p->batch * p->t * p->h * p->w_in;
  linear.n = p->c_out;
  linear.k = p->c_in;
  linear.x = p->x;
  linear.x_ld = p->c_in;
  linear.w = p->w;
  linear.bias = p->bias;
  linear.residual = p->residual;
  linear.residual_ld = p->c_out;
  linear.y = p->y;
  linear.y_ld = p->c_out;
  return ctx->backend->ops.linear(ctx, &linear);
}

OsrResult
osr_conv3d_with(OsrOpsContext *ctx, const OsrConv3d *p, const OsrConvKernel *kernel)
{
  Plan plan = {};
  OsrResult result;
  int64_t bytes;
  void *memory;

  OSR_TRY(osr_cuda_begin(ctx, "conv3d"));
  OSR_TRY(osr_check_conv3d(ctx, p, OSR_CUDA_DTYPES));
  if (p->w_dtype != OSR_DTYPE_F32 && p->w_dtype != OSR_DTYPE_BF16 && p->w_dtype != OSR_DTYPE_F16)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "conv3d: cuda has no %s weights",
                    osr_ops_dtype_name(p->w_dtype));
  if (p->batch == 0 || p->t == 0 || p->h == 0 || p->w_in == 0 || p->c_out == 0)
    return OSR_OK;
  if (!kernel && is_linear(p) && ctx->backend->ops.linear)
    return run_linear(ctx, p);
  OSR_TRY(make_plan(ctx, p, kernel, &plan));
  bytes = plan.w_bytes + plan.bias_bytes + plan.x_bytes;
  memory = osr_scratch_alloc(ctx, (size_t) bytes);
  if (!memory)
    return osr_fail(ctx, OSR_ERR_MEMORY, "conv3d: no %lld bytes of scratch memory",
                    (long long) bytes);
  result = osr_cuda_check(ctx, run_plan(osr_cuda(ctx), p, &plan, (char *) memory),
                          "conv3d: %d x %d x %d x %d to %d channels, %s", p->t, p->h, p->w_in,
                          p->c_in, p->c_out, plan.kernel->name);
  osr_scratch_free(ctx, memory, (size_t) bytes);
  OSR_TRY(result);
  return osr_cuda_launched(ctx, "conv3d: %d x %d x %d x %d to %d channels, %s", p->t, p->h, p->w_in,
                           p->c_in, p->c_out, plan.kernel->name);
}

OsrResult
osr_cuda_conv3d(OsrOpsContext *ctx, const OsrConv3d *p)
{
  return osr_conv3d_with(ctx, p, NULL);
}
