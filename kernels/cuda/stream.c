/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Marks, fetches, graphs.
 *
 * Ops enqueue on cuda->stream. That is the main stream, but for the time that a graph is
 * recorded a second one, which runs nothing: so copies and allocations that other threads make
 * meanwhile go on in the main stream and are no part of the recording. Fetches have a stream of
 * their own, so that a copy engine works on them while the main stream computes.
 */
#include "cuda.h"

bool
osr_cuda_recording(const OsrCuda *cuda)
{
  return __atomic_load_n(&cuda->recording, __ATOMIC_ACQUIRE) &&
         pthread_equal(cuda->recorder, pthread_self());
}

cudaStream_t
osr_cuda_stream(const OsrCuda *cuda)
{
  return osr_cuda_recording(cuda) ? cuda->record : cuda->main;
}

OsrResult
osr_cuda_not_recording(OsrOpsContext *ctx, const char *what)
{
  if (osr_cuda_recording(osr_cuda(ctx)))
    return osr_fail(ctx, OSR_ERR_INVALID, "%s: not while a graph is recorded", what);
  return OSR_OK;
}

OsrResult
osr_cuda_streams_open(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);

  OSR_TRY(osr_cuda_check(ctx, cudaStreamCreateWithFlags(&cuda->main, cudaStreamNonBlocking),
                         "cuda: stream of device %d", cuda->device));
  OSR_TRY(osr_cuda_check(ctx, cudaStreamCreateWithFlags(&cuda->record, cudaStreamNonBlocking),
                         "cuda: stream of device %d", cuda->device));
  OSR_TRY(osr_cuda_check(ctx, cudaStreamCreateWithFlags(&cuda->copies, cudaStreamNonBlocking),
                         "cuda: stream of device %d", cuda->device));
  cuda->stream = cuda->main;
  /* Who waits may wait for minutes: not in a loop. */
  for (int i = 0; i < OSR_MAX_MARKS; i++)
    OSR_TRY(osr_cuda_check(
        ctx,
        cudaEventCreateWithFlags(&cuda->marks[i], cudaEventDisableTiming | cudaEventBlockingSync),
        "cuda: event"));
  for (int i = 0; i < OSR_MAX_MARKS; i++)
    OSR_TRY(osr_cuda_check(ctx, cudaEventCreateWithFlags(&cuda->fetched[i], cudaEventDisableTiming),
                           "cuda: event"));
  return OSR_OK;
}

void
osr_cuda_streams_close(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);

  for (int i = 0; i < OSR_MAX_MARKS; i++) {
    if (cuda->marks[i])
      cudaEventDestroy(cuda->marks[i]);
    if (cuda->fetched[i])
      cudaEventDestroy(cuda->fetched[i]);
  }
  if (cuda->copies)
    cudaStreamDestroy(cuda->copies);
  if (cuda->record)
    cudaStreamDestroy(cuda->record);
  if (cuda->main)
    cudaStreamDestroy(cuda->main);
}

/* --- marks --- */

OsrResult
osr_cuda_mark(OsrOpsContext *ctx, uint64_t *mark)
{
  OsrCuda *cuda = osr_cuda(ctx);
  const uint64_t next = ctx->n_marks + 1;

  OSR_TRY(osr_cuda_begin(ctx, "mark"));
  OSR_TRY(osr_cuda_not_recording(ctx, "mark"));
  OSR_TRY(
      osr_cuda_check(ctx, cudaEventRecord(cuda->marks[next % OSR_MAX_MARKS], cuda->main), "mark"));
  /* Only now may others wait for it. */
  __atomic_store_n(&ctx->n_marks, next, __ATOMIC_RELEASE);
  *mark = next;
  return OSR_OK;
}

/* A place that is taken again meanwhile stands for a later mark, which ops.h allows. */
OsrResult
osr_cuda_wait(OsrOpsContext *ctx, uint64_t mark)
{
  OsrCuda *cuda = osr_cuda(ctx);
  const uint64_t given = __atomic_load_n(&ctx->n_marks, __ATOMIC_ACQUIRE);

  if (mark > given)
    return osr_fail(ctx, OSR_ERR_INVALID, "wait: mark %llu of %llu", (unsigned long long) mark,
                    (unsigned long long) given);
  OSR_TRY(osr_cuda_not_recording(ctx, "wait"));
  OSR_TRY(osr_cuda_begin(ctx, "wait"));
  if (mark == 0)
    return OSR_OK;
  if (given - mark >= OSR_MAX_MARKS)
    mark = given - OSR_MAX_MARKS + 1;
  return osr_cuda_check(ctx, cudaEventSynchronize(cuda->marks[mark % OSR_MAX_MARKS]), "wait");
}

OsrResult
osr_cuda_synchronize(OsrOpsContext *ctx)
{
  OSR_TRY(osr_cuda_begin(ctx, "synchronize"));
  OSR_TRY(osr_cuda_not_recording(ctx, "synchronize"));
  return osr_cuda_check(ctx, cudaStreamSynchronize(osr_cuda(ctx)->main), "synchronize");
}

/* --- fetches --- */

/* The event that stands for number `n` of `given`: its own, or the oldest that is kept. */
static uint64_t
kept(uint64_t n, uint64_t given)
{
  return (given - n >= OSR_MAX_MARKS ? given - OSR_MAX_MARKS + 1 : n) % OSR_MAX_MARKS;
}

void *
osr_cuda_host_alloc(OsrOpsContext *ctx, size_t size)
{
  OsrCuda *cuda = osr_cuda(ctx);
  void *ptr = NULL;

  if (cuda->broken || cudaSetDevice(cuda->device) != cudaSuccess)
    return NULL;
  if (cudaHostAlloc(&ptr, size ? size : 1, cudaHostAllocDefault) == cudaSuccess)
    return ptr;
  cudaGetLastError();
  return NULL;
}

void
osr_cuda_host_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  OsrCuda *cuda = osr_cuda(ctx);

  (void) size;
  if (!ptr)
    return;
  if (cudaSetDevice(cuda->device) != cudaSuccess ||
      cudaStreamSynchronize(cuda->copies) != cudaSuccess || cudaFreeHost(ptr) != cudaSuccess)
    cudaGetLastError(); /* a lost device */
}

OsrResult
osr_cuda_fetch(OsrOpsContext *ctx, void *dst, const void *src, size_t size, uint64_t after,
               uint64_t *fetch)
{
  OsrCuda *cuda = osr_cuda(ctx);
  const uint64_t given = __atomic_load_n(&ctx->n_marks, __ATOMIC_ACQUIRE);
  const uint64_t next = ctx->n_fetches + 1;

  OSR_TRY(osr_cuda_begin(ctx, "fetch"));
  OSR_TRY(osr_cuda_not_recording(ctx, "fetch"));
  if (after > given)
    return osr_fail(ctx, OSR_ERR_INVALID, "fetch: after mark %llu of %llu",
                    (unsigned long long) after, (unsigned long long) given);
  if (after > 0)
    OSR_TRY(osr_cuda_check(
        ctx, cudaStreamWaitEvent(cuda->copies, cuda->marks[kept(after, given)], 0), "fetch"));
  if (size > 0)
    OSR_TRY(osr_cuda_check(ctx,
                           cudaMemcpyAsync(dst, src, size, cudaMemcpyHostToDevice, cuda->copies),
                           "fetch: %zu bytes", size));
  OSR_TRY(osr_cuda_check(ctx, cudaEventRecord(cuda->fetched[next % OSR_MAX_MARKS], cuda->copies),
                         "fetch"));
  ctx->n_fetches = *fetch = next;
  if (size > 0)
    osr_count_copy(ctx, OSR_COPY_TO_DEVICE, size);
  return OSR_OK;
}

/* Fetches run in their order: to wait for a later one is to wait for this one too. */
OsrResult
osr_cuda_join(OsrOpsContext *ctx, uint64_t fetch)
{
  OsrCuda *cuda = osr_cuda(ctx);

  OSR_TRY(osr_cuda_begin(ctx, "join"));
  OSR_TRY(osr_cuda_not_recording(ctx, "join"));
  if (fetch > ctx->n_fetches)
    return osr_fail(ctx, OSR_ERR_INVALID, "join: fetch %llu of %llu", (unsigned long long) fetch,
                    (unsigned long long) ctx->n_fetches);
  if (fetch == 0)
    return OSR_OK;
  return osr_cuda_check(
      ctx, cudaStreamWaitEvent(cuda->main, cuda->fetched[kept(fetch, ctx->n_fetches)], 0), "join");
}

/* --- graphs --- */

OsrResult
osr_cuda_graph_begin(OsrOpsContext *ctx)
{
  OsrCuda *cuda = osr_cuda(ctx);

  OSR_TRY(osr_cuda_begin(ctx, "graph_begin"));
  if (__atomic_load_n(&cuda->recording, __ATOMIC_ACQUIRE))
    return osr_fail(ctx, OSR_ERR_INVALID, "graph_begin: a graph is being recorded");
  /* Relaxed: nothing that this or another thread does elsewhere spoils the recording. */
  OSR_TRY(osr_cuda_check(ctx, cudaStreamBeginCapture(cuda->record, cudaStreamCaptureModeRelaxed),
                         "graph_begin"));
  cuda->recorder = pthread_self();
  cuda->stream = cuda->record;
  __atomic_store_n(&cuda->recording, true, __ATOMIC_RELEASE);
  return OSR_OK;
}

OsrResult
osr_cuda_graph_end(OsrOpsContext *ctx, void **graph)
{
  OsrCuda *cuda = osr_cuda(ctx);
  cudaGraph_t recorded = NULL;
  cudaGraphExec_t exec = NULL;
  cudaError_t error;

  if (graph)
    *graph = NULL;
  if (!osr_cuda_recording(cuda))
    return osr_fail(ctx, OSR_ERR_INVALID, "graph_end: no graph is being recorded");
  __atomic_store_n(&cuda->recording, false, __ATOMIC_RELEASE);
  cuda->stream = cuda->main;
  OSR_TRY(osr_cuda_begin(ctx, "graph_end"));
  error = cudaStreamEndCapture(cuda->record, &recorded);
  if (error == cudaSuccess && graph)
    error = cudaGraphInstantiate(&exec, recorded, 0);
  if (recorded)
    cudaGraphDestroy(recorded);
  if (!graph) {
    cudaGetLastError();
    return OSR_OK;
  }
  *graph = exec;
  return osr_cuda_check(ctx, error, "graph_end");
}

OsrResult
osr_cuda_graph_launch(OsrOpsContext *ctx, void *graph)
{
  OSR_TRY(osr_cuda_begin(ctx, "graph_launch"));
  OSR_TRY(osr_cuda_not_recording(ctx, "graph_launch"));
  if (!graph)
    return osr_fail(ctx, OSR_ERR_INVALID, "graph_launch: graph is NULL");
  return osr_cuda_check(ctx, cudaGraphLaunch((cudaGraphExec_t) graph, osr_cuda(ctx)->main),
                        "graph_launch");
}

void
osr_cuda_graph_free(OsrOpsContext *ctx, void *graph)
{
  if (graph && (cudaSetDevice(osr_cuda(ctx)->device) != cudaSuccess ||
                cudaGraphExecDestroy((cudaGraphExec_t) graph) != cudaSuccess))
    cudaGetLastError(); /* a lost device: the graph is gone with it */
}
