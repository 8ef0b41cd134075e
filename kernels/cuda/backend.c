/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The CUDA backend: devices, contexts, errors, and its table. */
#include "cuda.h"

#include <stdlib.h>
#include <string.h>

/* mma.sync on bf16 and cp.async, which every kernel may take for granted. */
#define MIN_CAPABILITY 80

/* --- errors --- */

OsrResult
osr_cuda_begin(OsrOpsContext *ctx, const char *op)
{
  OsrCuda *cuda = osr_cuda(ctx);

  if (cuda->broken) {
    memcpy(ctx->error, cuda->reason, sizeof ctx->error);
    return OSR_ERR_DEVICE;
  }
  cuda->history[__atomic_fetch_add(&cuda->n_ops, 1, __ATOMIC_RELAXED) % OSR_CUDA_HISTORY] = op;
  return osr_cuda_check(ctx, cudaSetDevice(cuda->device), "%s: selecting device %d", op,
                        cuda->device);
}

/* ": an illegal address ... (cudaErrorX); last ops: a, b, c" */
static void
append_reason(OsrCuda *cuda, cudaError_t error, char *text, size_t size)
{
  const char *separator = "; last ops: ";
  size_t at = strlen(text);

  at += (size_t) snprintf(text + at, size - at, ": %s (%s)", cudaGetErrorString(error),
                          cudaGetErrorName(error));
  for (unsigned i = cuda->n_ops < OSR_CUDA_HISTORY ? 0 : cuda->n_ops - OSR_CUDA_HISTORY;
       i < cuda->n_ops && at < size; i++, separator = ", ")
    at += (size_t) snprintf(text + at, size - at, "%s%s", separator,
                            cuda->history[i % OSR_CUDA_HISTORY]);
}

static OsrResult
fail(OsrOpsContext *ctx, cudaError_t error, const char *fmt, va_list args)
{
  OsrCuda *cuda = osr_cuda(ctx);
  cudaError_t after;

  vsnprintf(ctx->error, sizeof ctx->error, fmt, args);
  append_reason(cuda, error, ctx->error, sizeof ctx->error);

  /* An error of a call is gone once it has been read. One of the device stays, and so does
   * its first reason. */
  cudaGetLastError();
  after = cudaStreamQuery(cuda->main);
  if (after != cudaSuccess && after != cudaErrorNotReady) {
    cuda->broken = true;
    memcpy(cuda->reason, ctx->error, sizeof cuda->reason);
  }
  cudaGetLastError();
  return error == cudaErrorMemoryAllocation ? OSR_ERR_MEMORY : OSR_ERR_DEVICE;
}

OsrResult
osr_cuda_check(OsrOpsContext *ctx, cudaError_t error, const char *fmt, ...)
{
  OsrResult result;
  va_list args;

  if (error == cudaSuccess)
    return OSR_OK;
  va_start(args, fmt);
  result = fail(ctx, error, fmt, args);
  va_end(args);
  return result;
}

OsrResult
osr_cuda_launched(OsrOpsContext *ctx, const char *fmt, ...)
{
  cudaError_t error = cudaGetLastError();
  OsrResult result;
  va_list args;

  if (error == cudaSuccess && osr_cuda(ctx)->sync_each && !osr_cuda_recording(osr_cuda(ctx)))
    error = cudaStreamSynchronize(osr_cuda(ctx)->stream);
  if (error == cudaSuccess)
    return OSR_OK;
  va_start(args, fmt);
  result = fail(ctx, error, fmt, args);
  va_end(args);
  return result;
}

bool
osr_cuda_has_kernel(const void *kernel, int threads)
{
  struct cudaFuncAttributes attributes;

  if (cudaFuncGetAttributes(&attributes, kernel) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return attributes.maxThreadsPerBlock >= threads;
}

/* --- devices --- */

/* Why there is none, in words that say what to do about it. */
static void
explain(cudaError_t error, char *why, size_t size)
{
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  int driver = 0;

  if (cudaDriverGetVersion(&driver) != cudaSuccess)
    driver = 0;
  if (driver == 0)
    snprintf(why, size, "no NVIDIA driver is installed");
  else if (error == cudaErrorInsufficientDriver)
    snprintf(why, size, "the NVIDIA driver is for CUDA %d.%d, this module needs one for %d.%d",
             driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
  else if ((error == cudaSuccess || error == cudaErrorNoDevice) && visible)
    snprintf(why, size, "the driver shows no GPU (CUDA_VISIBLE_DEVICES is \"%s\")", visible);
  else if (error == cudaSuccess || error == cudaErrorNoDevice)
    snprintf(why, size, "the driver shows no GPU");
  else
    snprintf(why, size, "%s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
}

static int
cuda_device_count(char *why, size_t why_size)
{
  int n = 0;
  cudaError_t error = cudaGetDeviceCount(&n);

  if (why && why_size > 0)
    why[0] = '\0';
  if (error == cudaSuccess && n > 0)
    return n;
  cudaGetLastError();
  if (why && why_size > 0)
    explain(error, why, why_size);
  cudaGetLastError();
  return 0;
}

static int
attribute(enum cudaDeviceAttr attr, int device)
{
  int value = 0;

  if (cudaDeviceGetAttribute(&value, attr, device) != cudaSuccess)
    cudaGetLastError();
  return value;
}

static bool
flag(const char *variable)
{
  const char *value = getenv(variable);

  return value && *value && strcmp(value, "0") != 0;
}

static OsrCudaGate
gate_choice(void)
{
  const char *value = getenv("OSR_CUDA_GATE");

  if (value && strcmp(value, "vector") == 0)
    return OSR_CUDA_GATE_VECTOR;
  if (value && strcmp(value, "weights") == 0)
    return OSR_CUDA_GATE_WEIGHTS;
  if (value && strcmp(value, "none") == 0)
    return OSR_CUDA_GATE_NONE;
  return OSR_CUDA_GATE_BEST;
}

/* The lower of what the device has and what the environment asks for. */
static int
capability_choice(int capability)
{
  const char *value = getenv("OSR_CUDA_CAPABILITY");
  int asked = value ? atoi(value) : 0;

  return asked >= MIN_CAPABILITY && asked < capability ? asked : capability;
}

/* The parts of a context, in the order of their making. */
static OsrResult
start(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);
  const int device = cuda->device;
  int major = attribute(cudaDevAttrComputeCapabilityMajor, device);
  int minor = attribute(cudaDevAttrComputeCapabilityMinor, device);

  cuda->capability = 10 * major + minor;
  if (cuda->capability < MIN_CAPABILITY)
    return osr_fail(ctx, OSR_ERR_DEVICE,
                    "cuda: device %d has compute capability %d.%d, at least %d.%d is needed",
                    device, major, minor, MIN_CAPABILITY / 10, MIN_CAPABILITY % 10);
  cuda->capability = capability_choice(cuda->capability);
  cuda->n_sms = attribute(cudaDevAttrMultiProcessorCount, device);
  cuda->sm_threads = attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device);
  cuda->l2_size = (size_t) attribute(cudaDevAttrL2CacheSize, device);
  cuda->max_shared = (size_t) attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, device);

  OSR_TRY(osr_cuda_check(ctx, cudaSetDevice(device), "cuda: opening device %d", device));
  OSR_TRY(osr_cuda_streams_open(ctx));
  OSR_TRY(osr_cuda_memory_open(ctx));
  return osr_cuda_gemm_open(ctx);
}

static void
cuda_close(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);

  if (!cuda)
    return;
  /* A lost device fails all of these, and there is nobody left to tell. */
  cudaSetDevice(cuda->device);
  if (cuda->copies)
    cudaStreamSynchronize(cuda->copies);
  if (cuda->main)
    cudaStreamSynchronize(cuda->main);
  osr_cuda_gemm_close(ctx);
  osr_cuda_memory_close(ctx);
  osr_cuda_streams_close(ctx);
  /* Without this the driver would refuse the device for the rest of the process. */
  if (cuda->broken)
    cudaDeviceReset();
  cudaGetLastError();
  free(cuda);
  ctx->impl = NULL;
  ctx->stream = NULL;
}

static OsrResult
cuda_open(OsrOpsContext *ctx, int index)
{
  char why[160];
  const int n = cuda_device_count(why, sizeof why);
  OsrResult result;
  OsrCuda *cuda;

  if (n == 0)
    return osr_fail(ctx, OSR_ERR_DEVICE, "cuda: %s", why);
  if (index < 0 || index >= n)
    return osr_fail(ctx, OSR_ERR_INVALID, "cuda: no device %d, there %s %d", index,
                    n == 1 ? "is" : "are", n);
  cuda = calloc(1, sizeof *cuda);
  if (!cuda)
    return osr_fail(ctx, OSR_ERR_MEMORY, "cuda: no memory");
  cuda->device = index;
  cuda->tf32 = flag("OSR_CUDA_TF32");
  cuda->sync_each = flag("OSR_CUDA_SYNC");
  cuda->gate = gate_choice();
  pthread_mutex_init(&cuda->staging_lock, NULL);
  ctx->backend = osr_backend_module();
  ctx->impl = cuda;
  result = start(ctx);
  if (result != OSR_OK)
    cuda_close(ctx);
  else
    ctx->stream = cuda->main;
  return result;
}

static const OsrBackend osr_backend_cuda = {
  .abi = OSR_OPS_ABI,
  .name = "cuda",
  .dtypes = OSR_CUDA_DTYPES,
  .device_count = cuda_device_count,
  .open = cuda_open,
  .close = cuda_close,
  .mem_info = osr_cuda_mem_info,
  .mem_alloc = osr_cuda_mem_alloc,
  .mem_free = osr_cuda_mem_free,
  .mem_set = osr_cuda_mem_set,
  .copy = osr_cuda_copy,
  .synchronize = osr_cuda_synchronize,
  .mark = osr_cuda_mark,
  .wait = osr_cuda_wait,
  .host_alloc = osr_cuda_host_alloc,
  .host_free = osr_cuda_host_free,
  .fetch = osr_cuda_fetch,
  .join = osr_cuda_join,
  .graph_begin = osr_cuda_graph_begin,
  .graph_end = osr_cuda_graph_end,
  .graph_launch = osr_cuda_graph_launch,
  .graph_free = osr_cuda_graph_free,
  .ops =
      {
          .linear = osr_cuda_linear,
          .glu = osr_cuda_glu,
          .layer_norm = osr_cuda_layer_norm,
          .rms_norm = osr_cuda_rms_norm,
          .qk_norm_rope = osr_cuda_qk_norm_rope,
          .attention = osr_cuda_attention,
          .group_norm = osr_cuda_group_norm,
          .conv3d = osr_cuda_conv3d,
          .patchify = osr_cuda_patchify,
          .unpatchify = osr_cuda_unpatchify,
          .embedding = osr_cuda_embedding,
          .timestep = osr_cuda_timestep,
          .affine = osr_cuda_affine,
          .copy2d = osr_cuda_copy2d,
          .guidance_step = osr_cuda_guidance_step,
          .randn = osr_cuda_randn,
          .gaussian = osr_cuda_gaussian,
          .blend = osr_cuda_blend,
          .tensor_to_frame = osr_cuda_tensor_to_frame,
          .frame_to_tensor = osr_cuda_frame_to_tensor,
      },
};

const OsrBackend *
osr_backend_module(void)
{
  return &osr_backend_cuda;
}
