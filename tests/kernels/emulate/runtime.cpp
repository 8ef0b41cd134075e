// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * The CUDA runtime: one device, an H200 but for its 3 multiprocessors (so that persistent kernels
 * have more than one turn).
 *
 * Work on a stream is done when somebody waits for it, so what a call leaves behind must live
 * until then. Memory has NaN in it and red zones around it. A kernel that does what it must not
 * prints why, and the device is lost, as after a fault on a GPU.
 */
#include "runtime.h"
#include "machine.h"

#include <chrono>
#include <map>
#include <mutex>

using namespace osr_emulated;

struct cudaEvent {
  cudaStream_t stream;
  uint64_t at; /* place in the stream */
  std::chrono::steady_clock::time_point time;
};

struct cudaStream {
  std::deque<std::function<void()>> work;
  uint64_t enqueued, done;
  cudaGraph_t recording;
};

struct cudaGraph {
  std::vector<std::function<void()>> work;
};

struct cudaGraphExec {
  std::vector<std::function<void()>> work;
};

struct cudaMemPool {
  size_t used;
};

namespace
{

constexpr int N_SMS = 3;
constexpr size_t RED_ZONE = 256, TOTAL = (size_t) 8 << 30;
constexpr uint8_t RED = 0xA5;
constexpr size_t MOST_WAITING = 64; /* items on a stream before it moves by itself */

struct Allocation {
  size_t size;
  cudaMemPool_t pool;
  bool host;
};

struct Function {
  Binder binder = nullptr;
  size_t max_dynamic = MAX_STATIC;
};

std::recursive_mutex &
lock(void)
{
  static std::recursive_mutex mutex;

  return mutex;
}

std::map<uint8_t *, Allocation> allocations;

/* Kernels are remembered while the module is loaded, before this file's objects are made. */
std::map<const void *, Function> &
functions(void)
{
  static std::map<const void *, Function> all;

  return all;
}

size_t used;
bool lost;
thread_local cudaError_t last_error;

typedef std::lock_guard<std::recursive_mutex> Guard;

cudaError_t
answer(cudaError_t error)
{
  if (lost && error == cudaSuccess)
    error = cudaErrorLaunchFailure;
  if (error != cudaSuccess)
    last_error = error;
  return error;
}

void
lose(const std::string &why)
{
  fprintf(stderr, "emulator: %s\n", why.c_str());
  lost = true;
}

/* Runs a stream up to a place. */
void
advance(cudaStream_t stream, uint64_t to)
{
  while (stream->done < to && !stream->work.empty()) {
    const std::function<void()> work = std::move(stream->work.front());

    stream->work.pop_front();
    stream->done++;
    if (!lost)
      work();
  }
}

/* --- memory --- */

void *
allocate(size_t size, cudaMemPool_t pool, bool host)
{
  const size_t whole = (size + 2 * RED_ZONE + 255) / 256 * 256;
  uint8_t *p;

  if (used + size > TOTAL)
    return nullptr;
  p = (uint8_t *) aligned_alloc(256, whole);
  if (!p)
    return nullptr;
  memset(p, RED, RED_ZONE);
  memset(p + RED_ZONE + size, RED, whole - RED_ZONE - size);
  /* The large blocks that are made once, staging memory and workspace, would take time. */
  if (pool)
    memset(p + RED_ZONE, 0xFF, size);
  allocations[p + RED_ZONE] = { size, pool, host };
  used += host ? 0 : size;
  if (pool)
    pool->used += size;
  return p + RED_ZONE;
}

bool
release(void *ptr)
{
  const auto i = allocations.find((uint8_t *) ptr);

  if (i == allocations.end())
    return false;
  const Allocation a = i->second;
  uint8_t *p = i->first - RED_ZONE;

  for (size_t at = 0; at < RED_ZONE; at++)
    if (p[at] != RED || p[RED_ZONE + a.size + at] != RED) {
      lose("something wrote " + std::to_string(p[at] != RED ? RED_ZONE - at : at + 1) + " bytes " +
           (p[at] != RED ? "before" : "behind") + " a block of " + std::to_string(a.size));
      break;
    }
  used -= a.host ? 0 : a.size;
  if (a.pool)
    a.pool->used -= a.size;
  allocations.erase(i);
  free(p);
  return true;
}

/* The block that holds an address. */
const Allocation *
find_allocation(const void *ptr)
{
  auto i = allocations.upper_bound((uint8_t *) ptr);

  if (i == allocations.begin())
    return nullptr;
  --i;
  return (const uint8_t *) ptr < i->first + i->second.size ? &i->second : nullptr;
}

} // namespace

namespace osr_emulated
{

cudaError_t
enqueue(cudaStream_t stream, std::function<void()> work)
{
  Guard guard(lock());

  if (!stream)
    return answer(cudaErrorInvalidValue);
  if (stream->recording) {
    stream->recording->work.push_back(std::move(work));
    return answer(cudaSuccess);
  }
  stream->work.push_back(std::move(work));
  stream->enqueued++;
  if (stream->work.size() > MOST_WAITING)
    advance(stream, stream->enqueued);
  return answer(cudaSuccess);
}

void
enqueue_kernel(dim3 grid, dim3 block_dim, size_t shared, cudaStream_t stream,
               std::function<void()> thread_body)
{
  const uint64_t threads = (uint64_t) block_dim.x * block_dim.y * block_dim.z;

  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || threads == 0 || threads > MAX_THREADS ||
      block_dim.z > 64 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 ||
      shared > MAX_SHARED) {
    answer(cudaErrorInvalidValue);
    return;
  }
  enqueue(stream, [=] {
    std::string why;

    if (!run_grid(grid, block_dim, shared, thread_body, &why))
      lose(why);
  });
}

void
remember_kernel(const void *kernel, Binder binder)
{
  Guard guard(lock());

  functions()[kernel].binder = binder;
}

} // namespace osr_emulated

cudaError_t
cudaLaunchKernel(const void *function, dim3 grid, dim3 block_dim, void **args, size_t shared,
                 cudaStream_t stream)
{
  Guard guard(lock());
  const auto i = functions().find(function);

  if (i == functions().end() || !i->second.binder || shared > i->second.max_dynamic)
    return answer(cudaErrorInvalidValue);
  last_error = cudaSuccess;
  enqueue_kernel(grid, block_dim, shared, stream, i->second.binder(function, args));
  return last_error;
}

extern "C" {

/* --- the device --- */

cudaError_t
cudaGetDeviceCount(int *n)
{
  *n = 1;
  return cudaSuccess;
}

cudaError_t
cudaDriverGetVersion(int *version)
{
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t
cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device)
{
  if (device != 0)
    return answer(cudaErrorInvalidDevice);
  switch (attr) {
  case cudaDevAttrMultiProcessorCount:
    *value = N_SMS;
    break;
  case cudaDevAttrL2CacheSize:
    *value = 50 << 20;
    break;
  case cudaDevAttrMaxThreadsPerMultiProcessor:
    *value = 2048;
    break;
  case cudaDevAttrComputeCapabilityMajor:
    *value = 9;
    break;
  case cudaDevAttrComputeCapabilityMinor:
    *value = 0;
    break;
  case cudaDevAttrMaxSharedMemoryPerBlockOptin:
    *value = (int) MAX_SHARED;
    break;
  default:
    return answer(cudaErrorInvalidValue);
  }
  return cudaSuccess;
}

cudaError_t
cudaGetDeviceProperties(struct cudaDeviceProp *prop, int device)
{
  if (device != 0)
    return answer(cudaErrorInvalidDevice);
  snprintf(prop->name, sizeof prop->name, "Emulated H200");
  return cudaSuccess;
}

cudaError_t
cudaSetDevice(int device)
{
  return device == 0 ? cudaSuccess : answer(cudaErrorInvalidDevice);
}

cudaError_t
cudaDeviceReset(void)
{
  Guard guard(lock());

  lost = false;
  last_error = cudaSuccess;
  return cudaSuccess;
}

cudaError_t
cudaGetLastError(void)
{
  Guard guard(lock());
  const cudaError_t error = last_error;

  last_error = cudaSuccess;
  return lost && error == cudaSuccess ? cudaErrorLaunchFailure : error;
}

#define ERRORS(f)                                                                                  \
  f(cudaSuccess, "no error") f(cudaErrorInvalidValue, "invalid argument")                          \
      f(cudaErrorMemoryAllocation, "out of memory")                                                \
          f(cudaErrorInsufficientDriver, "driver too old") f(cudaErrorNoDevice, "no device")       \
              f(cudaErrorInvalidDevice, "invalid device") f(cudaErrorNotReady, "not ready")        \
                  f(cudaErrorIllegalAddress, "an illegal address")                                 \
                      f(cudaErrorLaunchOutOfResources, "too many resources")                       \
                          f(cudaErrorLaunchFailure, "the kernel failed")                           \
                              f(cudaErrorStreamCaptureUnsupported, "not while recording")

#define NAME(error, text)                                                                          \
  case error:                                                                                      \
    return #error;
#define TEXT(error, text)                                                                          \
  case error:                                                                                      \
    return text;

const char *
cudaGetErrorName(cudaError_t error)
{
  switch (error) {
    ERRORS(NAME)
  }
  return "?";
}

const char *
cudaGetErrorString(cudaError_t error)
{
  switch (error) {
    ERRORS(TEXT)
  }
  return "?";
}

cudaError_t
cudaGetDriverEntryPointByVersion(const char *symbol, void **function, unsigned, unsigned long long,
                                 cudaDriverEntryPointQueryResult *found)
{
  const bool known = strcmp(symbol, "cuTensorMapEncodeTiled") == 0;

  *function = known ? encode_tiled_address() : nullptr;
  *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

/* --- memory --- */

cudaError_t
cudaMalloc(void **ptr, size_t size)
{
  Guard guard(lock());

  *ptr = allocate(size, nullptr, false);
  return answer(*ptr ? cudaSuccess : cudaErrorMemoryAllocation);
}

/* Waits for the whole device: so nothing is left that uses the memory. */
cudaError_t
cudaFree(void *ptr)
{
  Guard guard(lock());

  return answer(!ptr || release(ptr) ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t
cudaHostAlloc(void **ptr, size_t size, unsigned)
{
  Guard guard(lock());

  *ptr = allocate(size, nullptr, true);
  return answer(*ptr ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t
cudaFreeHost(void *ptr)
{
  return cudaFree(ptr);
}

cudaError_t
cudaMemGetInfo(size_t *free, size_t *total)
{
  Guard guard(lock());

  *free = TOTAL - used;
  *total = TOTAL;
  return answer(cudaSuccess);
}

cudaError_t
cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *)
{
  *pool = new cudaMemPool();
  return answer(cudaSuccess);
}

cudaError_t
cudaMemPoolDestroy(cudaMemPool_t pool)
{
  Guard guard(lock());

  if (pool->used)
    fprintf(stderr, "emulator: a memory pool is given back with %zu bytes in use\n", pool->used);
  delete pool;
  return answer(cudaSuccess);
}

cudaError_t
cudaMemPoolSetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *)
{
  return answer(cudaSuccess);
}

cudaError_t
cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr, void *value)
{
  Guard guard(lock());

  *(uint64_t *) value = pool->used;
  return answer(cudaSuccess);
}

cudaError_t
cudaMemPoolTrimTo(cudaMemPool_t, size_t)
{
  return answer(cudaSuccess);
}

cudaError_t
cudaMallocFromPoolAsync(void **ptr, size_t size, cudaMemPool_t pool, cudaStream_t)
{
  Guard guard(lock());

  *ptr = allocate(size, pool, false);
  return answer(*ptr ? cudaSuccess : cudaErrorMemoryAllocation);
}

cudaError_t
cudaFreeAsync(void *ptr, cudaStream_t stream)
{
  Guard guard(lock());

  if (lost) {
    release(ptr);
    return answer(cudaSuccess);
  }
  if (!find_allocation(ptr))
    return answer(cudaErrorInvalidValue);
  return enqueue(stream, [=] { release(ptr); });
}

cudaError_t
cudaMemsetAsync(void *ptr, int byte, size_t size, cudaStream_t stream)
{
  return enqueue(stream, [=] { memset(ptr, byte, size); });
}

/* Pinned memory is read and written when the stream comes to it. */
cudaError_t
cudaMemcpyAsync(void *dst, const void *src, size_t size, enum cudaMemcpyKind, cudaStream_t stream)
{
  return enqueue(stream, [=] { memmove(dst, src, size); });
}

cudaError_t
cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *ptr)
{
  Guard guard(lock());
  const Allocation *a = find_allocation(ptr);

  attributes->type = !a        ? cudaMemoryTypeUnregistered
                     : a->host ? cudaMemoryTypeHost
                               : cudaMemoryTypeDevice;
  return answer(cudaSuccess);
}

/* --- streams and events --- */

cudaError_t
cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned)
{
  *stream = new cudaStream();
  return answer(cudaSuccess);
}

cudaError_t
cudaStreamDestroy(cudaStream_t stream)
{
  Guard guard(lock());

  advance(stream, stream->enqueued);
  delete stream;
  return answer(cudaSuccess);
}

cudaError_t
cudaStreamQuery(cudaStream_t stream)
{
  Guard guard(lock());

  if (lost)
    return answer(cudaSuccess);
  return stream->work.empty() ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t
cudaStreamSynchronize(cudaStream_t stream)
{
  Guard guard(lock());

  if (stream->recording)
    return answer(cudaErrorStreamCaptureUnsupported);
  advance(stream, stream->enqueued);
  return answer(cudaSuccess);
}

cudaError_t
cudaEventCreateWithFlags(cudaEvent_t *event, unsigned)
{
  *event = new cudaEvent();
  return answer(cudaSuccess);
}

cudaError_t
cudaEventCreate(cudaEvent_t *event)
{
  return cudaEventCreateWithFlags(event, 0);
}

cudaError_t
cudaEventDestroy(cudaEvent_t event)
{
  delete event;
  return answer(cudaSuccess);
}

cudaError_t
cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
  Guard guard(lock());

  if (stream->recording)
    return answer(cudaErrorStreamCaptureUnsupported);
  event->stream = stream;
  event->at = stream->enqueued;
  return answer(cudaSuccess);
}

/* Right at the mark: what comes after it has still not run. */
cudaError_t
cudaEventSynchronize(cudaEvent_t event)
{
  Guard guard(lock());

  if (event->stream)
    advance(event->stream, event->at);
  event->time = std::chrono::steady_clock::now();
  return answer(cudaSuccess);
}

/* The event as it was recorded last before this call. */
cudaError_t
cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
  Guard guard(lock());
  const cudaStream_t other = event->stream;
  const uint64_t at = event->at;

  if (!other)
    return answer(cudaSuccess);
  return enqueue(stream, [=] { advance(other, at); });
}

cudaError_t
cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to)
{
  *ms = std::chrono::duration<float, std::milli>(to->time - from->time).count();
  if (*ms < 0)
    *ms = 0;
  return answer(cudaSuccess);
}

/* --- graphs --- */

cudaError_t
cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode)
{
  Guard guard(lock());

  if (stream->recording)
    return answer(cudaErrorStreamCaptureUnsupported);
  stream->recording = new cudaGraph();
  return answer(cudaSuccess);
}

cudaError_t
cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
  Guard guard(lock());

  *graph = stream->recording;
  stream->recording = nullptr;
  return answer(*graph ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t
cudaGraphDestroy(cudaGraph_t graph)
{
  delete graph;
  return answer(cudaSuccess);
}

cudaError_t
cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
  *exec = new cudaGraphExec{ graph->work };
  return answer(cudaSuccess);
}

cudaError_t
cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
  /* A copy: the graph may be freed before it has run. */
  return enqueue(stream, [work = exec->work] {
    for (const auto &i : work)
      if (!lost)
        i();
  });
}

cudaError_t
cudaGraphExecDestroy(cudaGraphExec_t exec)
{
  delete exec;
  return answer(cudaSuccess);
}

/* --- kernels --- */

cudaError_t
cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *)
{
  attributes->maxThreadsPerBlock = MAX_THREADS;
  return answer(cudaSuccess);
}

cudaError_t
cudaFuncSetAttribute(const void *function, enum cudaFuncAttribute attr, int value)
{
  Guard guard(lock());

  if (attr == cudaFuncAttributePreferredSharedMemoryCarveout)
    return answer(value >= -1 && value <= 100 ? cudaSuccess : cudaErrorInvalidValue);
  if (value > (int) MAX_SHARED || value < 0)
    return answer(cudaErrorInvalidValue);
  functions()[function].max_dynamic = (size_t) value;
  return answer(cudaSuccess);
}

} // extern "C"
