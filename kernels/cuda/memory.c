/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Device memory from a pool of our own, and copies to and from the host.
 *
 * The pool keeps what is freed: a model asks for the same sizes over and over. Copies of
 * pageable memory go through pinned slots, because what the driver does with it depends on
 * the system: some stage it before they return, some read it while the call is over.
 */
#include "cuda.h"

#include <string.h>

OsrResult
osr_cuda_memory_open(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);
  struct cudaMemPoolProps props = { .allocType = cudaMemAllocationTypePinned,
                                    .handleTypes = cudaMemHandleTypeNone,
                                    .location = { .type = cudaMemLocationTypeDevice,
                                                  .id = cuda->device } };
  uint64_t keep = UINT64_MAX;

  OSR_TRY(osr_cuda_check(ctx, cudaMemPoolCreate(&cuda->pool, &props), "cuda: memory pool"));
  OSR_TRY(osr_cuda_check(
      ctx, cudaMemPoolSetAttribute(cuda->pool, cudaMemPoolAttrReleaseThreshold, &keep),
      "cuda: memory pool"));
  for (int i = 0; i < OSR_CUDA_SLOTS; i++)
    OSR_TRY(osr_cuda_check(ctx, cudaEventCreateWithFlags(&cuda->staged[i], cudaEventDisableTiming),
                           "cuda: event"));
  return OSR_OK;
}

void
osr_cuda_memory_close(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);

  for (int i = 0; i < OSR_CUDA_SLOTS; i++)
    if (cuda->staged[i])
      cudaEventDestroy(cuda->staged[i]);
  if (cuda->staging)
    cudaFreeHost(cuda->staging);
  if (cuda->pool)
    cudaMemPoolDestroy(cuda->pool);
  pthread_mutex_destroy(&cuda->staging_lock);
}

OsrResult
osr_cuda_mem_info(OsrOpsContext *ctx, size_t *free, size_t *total)
{
  OsrCuda *cuda = osr_cuda(ctx);
  uint64_t reserved = 0, used = 0;

  OSR_TRY(osr_cuda_begin(ctx, "mem_info"));
  OSR_TRY(osr_cuda_check(ctx, cudaMemGetInfo(free, total), "mem_info"));
  /* What the pool holds back can be had too. */
  OSR_TRY(osr_cuda_check(
      ctx, cudaMemPoolGetAttribute(cuda->pool, cudaMemPoolAttrReservedMemCurrent, &reserved),
      "mem_info"));
  OSR_TRY(osr_cuda_check(
      ctx, cudaMemPoolGetAttribute(cuda->pool, cudaMemPoolAttrUsedMemCurrent, &used), "mem_info"));
  if (reserved > used)
    *free += (size_t) (reserved - used);
  return OSR_OK;
}

/* Without a message: the owner's pool has more to say, and may call from any thread. */
void *
osr_cuda_mem_alloc(OsrOpsContext *ctx, size_t size)
{
  OsrCuda *cuda = osr_cuda(ctx);
  void *ptr = NULL;

  if (cuda->broken || osr_cuda_recording(cuda) || cudaSetDevice(cuda->device) != cudaSuccess)
    return NULL;
  if (size == 0)
    size = 1;
  if (cudaMallocFromPoolAsync(&ptr, size, cuda->pool, cuda->main) == cudaSuccess)
    return ptr;
  cudaGetLastError();
  /* What is on its way back into the pool, and the holes in it, may be enough together. */
  if (cudaStreamSynchronize(cuda->main) == cudaSuccess &&
      cudaMemPoolTrimTo(cuda->pool, 0) == cudaSuccess &&
      cudaMallocFromPoolAsync(&ptr, size, cuda->pool, cuda->main) == cudaSuccess)
    return ptr;
  cudaGetLastError();
  return NULL;
}

void
osr_cuda_mem_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  OsrCuda *cuda = osr_cuda(ctx);

  (void) size;
  if (!ptr)
    return;
  if (cudaSetDevice(cuda->device) != cudaSuccess || cudaFreeAsync(ptr, cuda->main) != cudaSuccess)
    cudaGetLastError(); /* a lost device: the memory is gone with it */
}

OsrResult
osr_cuda_mem_set(OsrOpsContext *ctx, void *ptr, int byte, size_t size)
{
  OSR_TRY(osr_cuda_begin(ctx, "mem_set"));
  if (size == 0)
    return OSR_OK;
  return osr_cuda_check(ctx, cudaMemsetAsync(ptr, byte, size, osr_cuda_stream(osr_cuda(ctx))),
                        "mem_set: %zu bytes", size);
}

/* --- copies --- */

/* Memory that CUDA knows: the device can read and write it on its own. */
static bool
is_known(const void *ptr)
{
  struct cudaPointerAttributes attributes;

  if (cudaPointerGetAttributes(&attributes, ptr) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  return attributes.type != cudaMemoryTypeUnregistered;
}

static bool
have_staging(OsrCuda *cuda)
{
  if (cuda->staging || cuda->staging_refused)
    return cuda->staging != NULL;
  if (cudaHostAlloc((void **) &cuda->staging, OSR_CUDA_SLOTS * OSR_CUDA_SLOT_SIZE,
                    cudaHostAllocDefault) != cudaSuccess) {
    cudaGetLastError();
    cuda->staging = NULL;
    cuda->staging_refused = true;
  }
  return cuda->staging != NULL;
}

/* Slots are taken in turn; one is waited for only when all have been used since. */
static cudaError_t
stage_to_device(OsrCuda *cuda, char *dst, const char *src, size_t size)
{
  cudaError_t error = cudaSuccess;

  for (size_t at = 0, part; at < size && error == cudaSuccess; at += part) {
    const int i = cuda->next_slot;
    char *slot = cuda->staging + (size_t) i * OSR_CUDA_SLOT_SIZE;

    part = size - at < OSR_CUDA_SLOT_SIZE ? size - at : OSR_CUDA_SLOT_SIZE;
    error = cudaEventSynchronize(cuda->staged[i]);
    if (error != cudaSuccess)
      break;
    memcpy(slot, src + at, part);
    error = cudaMemcpyAsync(dst + at, slot, part, cudaMemcpyHostToDevice, cuda->main);
    if (error == cudaSuccess)
      error = cudaEventRecord(cuda->staged[i], cuda->main);
    cuda->next_slot = (i + 1) % OSR_CUDA_SLOTS;
  }
  return error;
}

/* The device fills slots ahead of the host, which empties them. A slot that still waits for a
 * copy to the device is safe: the stream keeps the order. */
static cudaError_t
stage_to_host(OsrCuda *cuda, char *dst, const char *src, size_t size)
{
  const size_t n = (size - 1) / OSR_CUDA_SLOT_SIZE + 1;
  const int first = cuda->next_slot;
  cudaError_t error = cudaSuccess;

  for (size_t sent = 0, got = 0; got < n && error == cudaSuccess;) {
    const bool send = sent < n && sent < got + OSR_CUDA_SLOTS;
    const size_t at = (send ? sent : got) * OSR_CUDA_SLOT_SIZE;
    const size_t i = ((size_t) first + (send ? sent : got)) % OSR_CUDA_SLOTS;
    const size_t part = size - at < OSR_CUDA_SLOT_SIZE ? size - at : OSR_CUDA_SLOT_SIZE;
    char *slot = cuda->staging + i * OSR_CUDA_SLOT_SIZE;

    if (send) {
      error = cudaMemcpyAsync(slot, src + at, part, cudaMemcpyDeviceToHost, cuda->main);
      if (error == cudaSuccess)
        error = cudaEventRecord(cuda->staged[i], cuda->main);
      sent++;
    } else {
      error = cudaEventSynchronize(cuda->staged[i]);
      if (error == cudaSuccess)
        memcpy(dst + at, slot, part);
      got++;
    }
  }
  return error;
}

static cudaError_t
copy_host(OsrCuda *cuda, OsrCopy kind, void *dst, const void *src, size_t size)
{
  const bool up = kind == OSR_COPY_TO_DEVICE;
  cudaError_t error;

  pthread_mutex_lock(&cuda->staging_lock);
  if (!is_known(up ? src : dst) && have_staging(cuda)) {
    error = up ? stage_to_device(cuda, dst, src, size) : stage_to_host(cuda, dst, src, size);
  } else {
    error = cudaMemcpyAsync(dst, src, size, cudaMemcpyDefault, cuda->main);
    if (error == cudaSuccess)
      error = cudaStreamSynchronize(cuda->main);
  }
  pthread_mutex_unlock(&cuda->staging_lock);
  return error;
}

OsrResult
osr_cuda_copy(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size)
{
  OsrCuda *cuda = osr_cuda(ctx);
  cudaError_t error;

  OSR_TRY(osr_cuda_begin(ctx, "copy"));
  if (kind != OSR_COPY_ON_DEVICE) /* the host's part would not be in the graph */
    OSR_TRY(osr_cuda_not_recording(ctx, "copy to or from the host"));
  if (size == 0)
    return OSR_OK;
  if (kind == OSR_COPY_ON_DEVICE)
    error = cudaMemcpyAsync(dst, src, size, cudaMemcpyDeviceToDevice, osr_cuda_stream(cuda));
  else
    error = copy_host(cuda, kind, dst, src, size);
  OSR_TRY(osr_cuda_check(ctx, error, "copy: %zu bytes %s", size,
                         kind == OSR_COPY_TO_DEVICE ? "to the device"
                         : kind == OSR_COPY_TO_HOST ? "to the host"
                                                    : "on the device"));
  osr_count_copy(ctx, kind, size);
  return OSR_OK;
}
