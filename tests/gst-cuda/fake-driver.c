/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A libcuda.so.1 for tests where there is no GPU: the driver as far as libgstcuda and our module
 * for frames in CUDA memory use it, with two devices.
 *
 * Device memory is host memory, its addresses moved as in tests/engine/fake-cuda.c, so that the
 * two understand each other and nobody else reads it by mistake. Memory belongs to the context
 * that is current when it is made: naming it in another one, popping what was not pushed, and
 * leaving the bounds of a block end the program with a message.
 */
#include "fake-driver.h"

#include <cuda.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OFFSET ((uintptr_t) 1 << 62)
#define PITCH ((size_t) 512)
#define POISON 0xff
#define N_DEVICES 2
#define MAX_PUSHED 64 /* GStreamer's nvcodec leaves one for each codec that it cannot decode */
#define EXPORT __attribute__((visibility("default")))

EXPORT FakeDriver fake_driver;
EXPORT bool fake_driver_owns(const void *ptr);

struct CUctx_st {
  int device;
};

typedef struct Block {
  struct Block *next;
  CUcontext context;
  uintptr_t start;
  size_t size;
} Block;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Block *blocks;
static struct CUctx_st primaries[N_DEVICES] = { { 0 }, { 1 } };
static __thread CUcontext pushed[MAX_PUSHED];
static __thread int n_pushed;

static void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void
die(const char *fmt, ...)
{
  va_list args;

  va_start(args, fmt);
  fprintf(stderr, "fake-driver: ");
  vfprintf(stderr, fmt, args);
  fprintf(stderr, "\n");
  va_end(args);
  abort();
}

/* --- devices --- */

CUresult
cuInit(unsigned flags)
{
  return flags == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult
cuDriverGetVersion(int *version)
{
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}

CUresult
cuGetErrorName(CUresult error, const char **name)
{
  *name = error == CUDA_SUCCESS ? "CUDA_SUCCESS" : "CUDA_ERROR";
  return CUDA_SUCCESS;
}

CUresult
cuGetErrorString(CUresult error, const char **text)
{
  *text = error == CUDA_SUCCESS ? "no error" : "failed, as the test asked";
  return CUDA_SUCCESS;
}

CUresult
cuDeviceGetCount(int *count)
{
  *count = N_DEVICES;
  return CUDA_SUCCESS;
}

CUresult
cuDeviceGet(CUdevice *device, int ordinal)
{
  if (ordinal < 0 || ordinal >= N_DEVICES)
    return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult
cuDeviceGetName(char *name, int size, CUdevice device)
{
  snprintf(name, (size_t) size, "Fake %d", device);
  return CUDA_SUCCESS;
}

CUresult
cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
  (void) device;
  switch (attribute) {
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
    *value = 9;
    return CUDA_SUCCESS;
  case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
    *value = (int) PITCH;
    return CUDA_SUCCESS;
  default:
    *value = 0;
    return CUDA_SUCCESS;
  }
}

CUresult
cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
  (void) device;
  (void) peer;
  *can = 0;
  return CUDA_SUCCESS;
}

/* --- contexts --- */

static CUcontext
current(void)
{
  if (n_pushed == 0)
    die("no context is current");
  return pushed[n_pushed - 1];
}

CUresult
cuCtxPushCurrent(CUcontext context)
{
  if (n_pushed == MAX_PUSHED)
    die("%d contexts were pushed and not popped", n_pushed);
  pushed[n_pushed++] = context;
  return CUDA_SUCCESS;
}

CUresult
cuCtxPopCurrent(CUcontext *context)
{
  CUcontext popped = current();

  n_pushed--;
  if (context)
    *context = popped;
  return CUDA_SUCCESS;
}

/* Calls that libgstcuda has under names which the headers now give to newer ones. */
EXPORT CUresult fake_ctx_create(CUcontext *context, unsigned flags,
                                CUdevice device) __asm__("cuCtxCreate_v2");

CUresult
fake_ctx_create(CUcontext *context, unsigned flags, CUdevice device)
{
  (void) flags;
  *context = calloc(1, sizeof **context);
  if (!*context)
    return CUDA_ERROR_OUT_OF_MEMORY;
  (*context)->device = device;
  __atomic_add_fetch(&fake_driver.contexts, 1, __ATOMIC_RELAXED);
  return cuCtxPushCurrent(*context);
}

static bool
is_primary(CUcontext context)
{
  return context >= primaries && context < primaries + N_DEVICES;
}

CUresult
cuCtxDestroy(CUcontext context)
{
  if (is_primary(context))
    die("a primary context is destroyed");
  pthread_mutex_lock(&lock);
  for (const Block *block = blocks; block; block = block->next)
    if (block->context == context)
      die("a context is destroyed before its memory");
  pthread_mutex_unlock(&lock);
  free(context);
  __atomic_sub_fetch(&fake_driver.contexts, 1, __ATOMIC_RELAXED);
  return CUDA_SUCCESS;
}

CUresult
cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
  *context = &primaries[device];
  __atomic_add_fetch(&fake_driver.primary_refs[device], 1, __ATOMIC_RELAXED);
  return CUDA_SUCCESS;
}

CUresult
cuDevicePrimaryCtxRelease(CUdevice device)
{
  if (__atomic_sub_fetch(&fake_driver.primary_refs[device], 1, __ATOMIC_RELAXED) < 0)
    die("a primary context is released once too often");
  return CUDA_SUCCESS;
}

CUresult
cuStreamCreate(CUstream *stream, unsigned flags)
{
  (void) flags;
  *stream = (CUstream) current();
  return CUDA_SUCCESS;
}

EXPORT CUresult fake_stream_destroy(CUstream stream) __asm__("cuStreamDestroy");

CUresult
fake_stream_destroy(CUstream stream)
{
  return (CUcontext) stream == current() ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult
cuStreamSynchronize(CUstream stream)
{
  if (stream && (CUcontext) stream != current())
    die("a stream of another context");
  return CUDA_SUCCESS;
}

/* --- memory --- */

static void *
to_host(uintptr_t address)
{
  return (void *) (address - OFFSET);
}

/* With the lock held. */
static Block *
find(uintptr_t address)
{
  for (Block *block = blocks; block; block = block->next)
    if (address >= block->start && address < block->start + block->size)
      return block;
  return NULL;
}

bool
fake_driver_owns(const void *ptr)
{
  bool found;

  pthread_mutex_lock(&lock);
  found = find((uintptr_t) ptr) != NULL;
  pthread_mutex_unlock(&lock);
  return found;
}

static CUresult
alloc_device(CUdeviceptr *ptr, size_t size)
{
  Block *block;
  void *memory;

  if (fake_driver.fail_alloc) {
    fake_driver.fail_alloc = 0;
    return CUDA_ERROR_OUT_OF_MEMORY;
  }
  block = malloc(sizeof *block);
  memory = malloc(size);
  if (!block || !memory)
    die("no memory");
  memset(memory, POISON, size);
  *block = (Block){ .context = current(), .start = (uintptr_t) memory + OFFSET, .size = size };
  pthread_mutex_lock(&lock);
  block->next = blocks;
  blocks = block;
  fake_driver.device_blocks++;
  pthread_mutex_unlock(&lock);
  *ptr = block->start;
  return CUDA_SUCCESS;
}

CUresult
cuMemAlloc(CUdeviceptr *ptr, size_t size)
{
  return alloc_device(ptr, size);
}

CUresult
cuMemAllocPitch(CUdeviceptr *ptr, size_t *pitch, size_t width, size_t height, unsigned element)
{
  (void) element;
  *pitch = (width + PITCH - 1) / PITCH * PITCH;
  return alloc_device(ptr, *pitch * height);
}

CUresult
cuMemFree(CUdeviceptr ptr)
{
  Block **at, *block;

  pthread_mutex_lock(&lock);
  for (at = &blocks; *at && (*at)->start != ptr; at = &(*at)->next)
    continue;
  block = *at;
  if (!block || block->context != current())
    die("cuMemFree: no memory of this context");
  *at = block->next;
  fake_driver.device_blocks--;
  pthread_mutex_unlock(&lock);
  memset(to_host(block->start), POISON, block->size);
  free(to_host(block->start));
  free(block);
  return CUDA_SUCCESS;
}

CUresult
cuMemAllocHost(void **ptr, size_t size)
{
  *ptr = malloc(size);
  __atomic_add_fetch(&fake_driver.host_blocks, 1, __ATOMIC_RELAXED);
  return *ptr ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult
cuMemFreeHost(void *ptr)
{
  free(ptr);
  __atomic_sub_fetch(&fake_driver.host_blocks, 1, __ATOMIC_RELAXED);
  return CUDA_SUCCESS;
}

/* Device memory that is @context's, with @height rows of it inside. */
static void *
reach(CUdeviceptr ptr, CUcontext context, size_t pitch, size_t width, size_t height)
{
  const Block *block;

  pthread_mutex_lock(&lock);
  block = find(ptr);
  if (!block || block->context != context)
    die("memory of another context, or of none");
  if (ptr + (height - 1) * pitch + width > block->start + block->size)
    die("%zu rows of %zu bytes leave a block", height, width);
  pthread_mutex_unlock(&lock);
  return to_host(ptr);
}

static void
copy_rows(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
          size_t height)
{
  if (width > dst_pitch || width > src_pitch)
    die("rows of %zu bytes are longer than their pitch", width);
  for (size_t y = 0; y < height; y++)
    memcpy((char *) dst + y * dst_pitch, (const char *) src + y * src_pitch, width);
}

CUresult
cuMemcpy2D(const CUDA_MEMCPY2D *p)
{
  const void *src = p->srcHost;
  void *dst = p->dstHost;

  if (p->srcMemoryType == CU_MEMORYTYPE_DEVICE)
    src = reach(p->srcDevice, current(), p->srcPitch, p->WidthInBytes, p->Height);
  if (p->dstMemoryType == CU_MEMORYTYPE_DEVICE)
    dst = reach(p->dstDevice, current(), p->dstPitch, p->WidthInBytes, p->Height);
  copy_rows(dst, p->dstPitch, src, p->srcPitch, p->WidthInBytes, p->Height);
  return CUDA_SUCCESS;
}

CUresult
cuMemcpy2DAsync(const CUDA_MEMCPY2D *p, CUstream stream)
{
  (void) stream;
  return cuMemcpy2D(p);
}

/* From memory of the fake engine's, which is in the primary context, to a block of ours. */
CUresult
cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *p, CUstream stream)
{
  (void) stream;
  if (fake_driver.fail_peer_copy) {
    fake_driver.fail_peer_copy = 0;
    return CUDA_ERROR_UNKNOWN;
  }
  if (!is_primary(p->srcContext) || p->dstContext != current() || p->Depth != 1)
    die("cuMemcpy3DPeerAsync: not what was expected");
  copy_rows(reach(p->dstDevice, p->dstContext, p->dstPitch, p->WidthInBytes, p->Height),
            p->dstPitch, to_host(p->srcDevice), p->srcPitch, p->WidthInBytes, p->Height);
  fake_driver.peer_copies++;
  return CUDA_SUCCESS;
}

/* --- what has to be there and is not called --- */

#define UNUSED(name)                                                                               \
  EXPORT CUresult unused_##name(void) __asm__(#name);                                              \
  CUresult unused_##name(void)                                                                     \
  {                                                                                                \
    return CUDA_ERROR_NOT_SUPPORTED;                                                               \
  }

UNUSED(cuCtxEnablePeerAccess)
UNUSED(cuCtxDisablePeerAccess)
UNUSED(cuGraphicsMapResources)
UNUSED(cuGraphicsUnmapResources)
UNUSED(cuGraphicsUnregisterResource)
UNUSED(cuGraphicsResourceSetMapFlags_v2)
UNUSED(cuGraphicsSubResourceGetMappedArray)
UNUSED(cuGraphicsResourceGetMappedPointer_v2)
UNUSED(cuGraphicsGLRegisterImage)
UNUSED(cuGraphicsGLRegisterBuffer)
UNUSED(cuGLGetDevices_v2)
UNUSED(cuModuleLoadData)
UNUSED(cuModuleUnload)
UNUSED(cuModuleGetFunction)
UNUSED(cuTexObjectCreate)
UNUSED(cuTexObjectDestroy)
UNUSED(cuLaunchKernel)
