/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend module for tests where there is no GPU. It does what ops.h allows an asynchronous
 * backend to do, and that as late as possible: calls are queued, and run when somebody waits
 * for them. What then goes wrong, goes wrong on a GPU too, if not every time.
 *
 *  - "Device memory" is host memory, but the addresses are moved to where no process has any,
 *    so that code which forgets to copy crashes.
 *  - Memory is filled with a pattern when it is handed out and, in the order of the queue,
 *    when it is given back: f32 of it is NaN.
 *  - Ops ask for scratch memory as CUDA ops do, and write to it when they run.
 *  - Fetches run as soon as they may, or as late, as the test says.
 *  - A call that names memory which was given back before it, ops of two threads at once,
 *    memory or graphs that are left when a device is closed, a device that is opened before it
 *    is closed: the program ends with a message.
 *
 * Ops are the CPU's. Environment: FAKE_CUDA_ABI, FAKE_CUDA_DEVICES (default 2) and
 * FAKE_CUDA_F32 (no bf16) choose what it claims to be, FAKE_CUDA_BROKEN fails to open.
 */
#include "fake-cuda.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

#define OFFSET ((uintptr_t) 1 << 62)
#define POISON 0xff
#define EXPORT __attribute__((visibility("default")))

EXPORT FakeCuda fake_cuda;

/* Of each device. */
#define MAX_DEVICES 8
static int n_open[MAX_DEVICES];

typedef struct Block {
  struct Block *next;
  char *start; /* device address */
  size_t size;
} Block;

typedef struct Graph Graph;
typedef struct Fake Fake;
typedef OsrResult (*Op)(OsrOpsContext *ctx, const void *p);

typedef struct Call {
  struct Call *next;
  const char *name;
  OsrResult (*run)(Fake *fake, struct Call *call);
  /* An op: its parameters, with device addresses at `pointers`. */
  Op op;
  void *params;
  size_t params_size, n_pointers;
  const size_t *pointers;
  char *scratch;
  size_t scratch_size;
  /* Memory calls; src is host memory of the call's own in a copy to the device. */
  char *dst, *src;
  size_t size;
  int byte;
  uint64_t mark;
  uint64_t fetch, after; /* of a fetch; of a join, which it waits for */
  Graph *graph;
} Call;

typedef struct {
  Call *first, **end;
} Queue;

struct Graph {
  Queue calls;
  int refs;
};

struct Fake {
  OsrOpsContext cpu;
  int index;
  pthread_mutex_t lock;
  Queue queue;
  Block *blocks;
  uint64_t passed; /* the last mark that was */
  Queue fetches;
  uint64_t fetched, joined; /* the last fetch that has run, that a join was enqueued for */
  int n_host_blocks;
  bool broken;
  char reason[256];
  bool in_op;
  bool recording;
  pthread_t recorder;
  Queue recorded;
  int n_graphs;
};

static void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void
die(const char *fmt, ...)
{
  va_list args;

  va_start(args, fmt);
  fprintf(stderr, "fake-cuda: ");
  vfprintf(stderr, fmt, args);
  fprintf(stderr, "\n");
  va_end(args);
  abort();
}

static void *
to_device(void *ptr)
{
  return (void *) ((uintptr_t) ptr + OFFSET);
}

static void *
to_host(const void *ptr)
{
  return (void *) ((uintptr_t) ptr - OFFSET);
}

static Fake *
fake_of(OsrOpsContext *ctx)
{
  return ctx->impl;
}

static OsrResult
lost(OsrOpsContext *ctx)
{
  return osr_fail(ctx, OSR_ERR_DEVICE, "%s", fake_of(ctx)->reason);
}

/* Calls and their queues */

static void
queue_init(Queue *queue)
{
  queue->first = NULL;
  queue->end = &queue->first;
}

static void
queue_push(Queue *queue, Call *call)
{
  *queue->end = call;
  queue->end = &call->next;
}

static Call *
queue_pop(Queue *queue)
{
  Call *call = queue->first;

  queue->first = call->next;
  if (!queue->first)
    queue->end = &queue->first;
  return call;
}

static void graph_unref(Graph *graph);

static void
call_free(Call *call)
{
  if (call->graph)
    graph_unref(call->graph);
  free(call->params);
  free(call);
}

static void
graph_unref(Graph *graph)
{
  if (--graph->refs > 0)
    return;
  while (graph->calls.first)
    call_free(queue_pop(&graph->calls));
  free(graph);
}

static Call *
call_new(const char *name, OsrResult (*run)(Fake *fake, Call *call))
{
  Call *call = calloc(1, sizeof *call);

  if (!call)
    die("no memory");
  call->name = name;
  call->run = run;
  return call;
}

static bool
is_attention(const Call *call)
{
  return strcmp(call->name, "attention") == 0;
}

/* Counts are of all devices, and their locks are their own. */
static uint64_t
add(uint64_t *count, int change)
{
  return __atomic_add_fetch(count, (uint64_t) change, __ATOMIC_RELAXED);
}

static void
raise_to(uint64_t *most, uint64_t count)
{
  uint64_t before = __atomic_load_n(most, __ATOMIC_RELAXED);

  while (before < count && !__atomic_compare_exchange_n(most, &before, count, false,
                                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED))
    continue;
}

static void
count_behind(const Call *call, int change)
{
  if (call->graph) {
    for (const Call *c = call->graph->calls.first; c; c = c->next)
      count_behind(c, change);
    return;
  }
  raise_to(&fake_cuda.max_calls_behind, add(&fake_cuda.calls_behind, change));
  if (is_attention(call))
    raise_to(&fake_cuda.max_attentions_behind, add(&fake_cuda.attentions_behind, change));
}

static bool
is_recorder(const Fake *fake)
{
  return fake->recording && pthread_equal(fake->recorder, pthread_self());
}

/* With the lock held. */
static void
enqueue(Fake *fake, Call *call)
{
  if (is_recorder(fake)) {
    queue_push(&fake->recorded, call);
    return;
  }
  queue_push(&fake->queue, call);
  add(&fake_cuda.n_enqueued, 1);
  count_behind(call, 1);
}

/* Runs a call, unless the device is lost; that is found out here. */
static void
run_call(Fake *fake, Call *call)
{
  if (fake->broken)
    return;
  if (fake->index == 0 && add(&fake_cuda.n_run, 1) == fake_cuda.fail_at)
    snprintf(fake->reason, sizeof fake->reason, "%s: failed, as the test asked", call->name);
  else if (call->run(fake, call) != OSR_OK)
    snprintf(fake->reason, sizeof fake->reason, "%s", fake->cpu.error);
  else
    return;
  fake->broken = true;
}

static OsrResult run_free(Fake *fake, Call *call);

/* Those up to `number`; with UINT64_MAX, those that need not wait for the stream. */
static void
run_fetches(Fake *fake, uint64_t number)
{
  while (fake->fetches.first && fake->fetches.first->fetch <= number) {
    Call *call = fake->fetches.first;

    if (!fake->broken && call->after > fake->passed) {
      if (number == UINT64_MAX)
        return;
      die("join: fetch %llu waits for mark %llu, which comes after it",
          (unsigned long long) call->fetch, (unsigned long long) call->after);
    }
    queue_pop(&fake->fetches);
    run_call(fake, call);
    fake->fetched = call->fetch;
    call_free(call);
  }
}

/* Up to and with the mark; UINT64_MAX: all. With the lock held. */
static void
run_until(Fake *fake, uint64_t mark)
{
  while (fake->queue.first && fake->passed < mark) {
    Call *call = queue_pop(&fake->queue);

    count_behind(call, -1);
    if (call->graph)
      for (Call *c = call->graph->calls.first; c; c = c->next)
        run_call(fake, c);
    else if (call->run == run_free)
      run_free(fake, call);
    else if (call->fetch > 0)
      run_fetches(fake, call->fetch);
    else if (call->mark == 0)
      run_call(fake, call);
    else if (!fake->broken)
      fake->passed = call->mark;
    call_free(call);
    if (fake->broken || !fake_cuda.late_fetches)
      run_fetches(fake, UINT64_MAX);
    if (fake->broken && mark != UINT64_MAX)
      mark = UINT64_MAX; /* nothing more will run, but memory has to be freed */
  }
}

/* Memory */

static int
device_count(char *why, size_t why_size)
{
  const char *n = getenv("FAKE_CUDA_DEVICES");

  if (n && atoi(n) == 0 && why)
    snprintf(why, why_size, "the fake driver is asleep");
  return n ? atoi(n) : 2;
}

static OsrResult
mem_info(OsrOpsContext *ctx, size_t *free_bytes, size_t *total)
{
  if (fake_of(ctx)->broken)
    return lost(ctx);
  *free_bytes = *total = (size_t) 1 << 30;
  return OSR_OK;
}

static void *
mem_alloc(OsrOpsContext *ctx, size_t size)
{
  Fake *fake = fake_of(ctx);
  Block *block = NULL;
  char *ptr = NULL;

  pthread_mutex_lock(&fake->lock);
  if (!fake->broken && !is_recorder(fake)) {
    block = malloc(sizeof *block);
    ptr = malloc(size);
    if (!block || !ptr)
      die("no memory");
    memset(ptr, POISON, size);
    *block = (Block){ .next = fake->blocks, .start = to_device(ptr), .size = size };
    fake->blocks = block;
  }
  pthread_mutex_unlock(&fake->lock);
  return ptr ? to_device(ptr) : NULL;
}

static OsrResult
run_free(Fake *fake, Call *call)
{
  (void) fake;
  memset(to_host(call->dst), POISON, call->size);
  free(to_host(call->dst));
  return OSR_OK;
}

/* What comes after must not name the block any more, what came before may. */
static void
mem_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  Fake *fake = fake_of(ctx);
  Block **at, *block;
  Call *call;

  pthread_mutex_lock(&fake->lock);
  for (at = &fake->blocks; *at && (*at)->start != ptr; at = &(*at)->next)
    continue;
  block = *at;
  if (!block || block->size != size)
    die("mem_free: %zu bytes at %p were never handed out", size, ptr);
  for (call = fake->fetches.first; call; call = call->next)
    if (call->fetch > fake->joined && call->dst >= block->start &&
        call->dst < block->start + block->size)
      die("mem_free: a fetch writes to it that nobody has waited for");
  *at = block->next;
  free(block);
  call = call_new("mem_free", run_free);
  call->dst = ptr;
  call->size = size;
  queue_push(&fake->queue, call);
  count_behind(call, 1);
  pthread_mutex_unlock(&fake->lock);
}

/* Whether it is memory of the fake driver, where that is loaded (tests/gst-cuda). */
static bool
driver_owns(const void *ptr)
{
  void *driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD);
  bool (*owns)(const void *) = NULL;

  if (!driver)
    return false;
  *(void **) &owns = dlsym(driver, "fake_driver_owns");
  dlclose(driver);
  return owns && owns(ptr);
}

static void
check_alive(const Fake *fake, const char *name, const void *ptr)
{
  const char *at = ptr;

  for (const Block *block = fake->blocks; block; block = block->next)
    if (at >= block->start && at < block->start + block->size)
      return;
  if (driver_owns(ptr))
    return;
  die("%s: %p is no memory of the device, or not any more", name, ptr);
}

static void
check_call(const Fake *fake, const Call *call)
{
  for (size_t i = 0; i < call->n_pointers; i++) {
    const void *ptr;

    memcpy(&ptr, (const char *) call->params + call->pointers[i], sizeof ptr);
    if (ptr)
      check_alive(fake, call->name, ptr);
  }
  if (call->scratch)
    check_alive(fake, call->name, call->scratch);
  if (call->dst)
    check_alive(fake, call->name, call->dst);
  if (call->src && !call->params)
    check_alive(fake, call->name, call->src);
}

static OsrResult
run_set(Fake *fake, Call *call)
{
  (void) fake;
  memset(to_host(call->dst), call->byte, call->size);
  return OSR_OK;
}

static OsrResult
mem_set(OsrOpsContext *ctx, void *ptr, int byte, size_t size)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;
  Call *call;

  pthread_mutex_lock(&fake->lock);
  if (fake->broken) {
    result = lost(ctx);
  } else if (size > 0) {
    call = call_new("mem_set", run_set);
    call->dst = ptr;
    call->byte = byte;
    call->size = size;
    check_call(fake, call);
    enqueue(fake, call);
  }
  pthread_mutex_unlock(&fake->lock);
  return result;
}

static OsrResult
run_copy(Fake *fake, Call *call)
{
  (void) fake;
  memmove(to_host(call->dst), call->params ? call->params : to_host(call->src), call->size);
  return OSR_OK;
}

/* The source may be reused on return, so the call takes a copy of it along. */
static void
enqueue_copy(Fake *fake, OsrCopy kind, void *dst, const void *src, size_t size)
{
  Call *call = call_new("copy", run_copy);

  call->dst = dst;
  call->size = size;
  if (kind == OSR_COPY_TO_DEVICE) {
    call->params = malloc(size);
    if (!call->params)
      die("no memory");
    memcpy(call->params, src, size);
  } else {
    call->src = (char *) src;
  }
  check_call(fake, call);
  enqueue(fake, call);
}

static OsrResult
copy(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;

  pthread_mutex_lock(&fake->lock);
  if (fake->broken) {
    result = lost(ctx);
  } else if (is_recorder(fake) && kind != OSR_COPY_ON_DEVICE) {
    result = osr_fail(ctx, OSR_ERR_INVALID, "copy: to or from the host inside of a graph");
  } else if (size > 0 && kind == OSR_COPY_TO_HOST) {
    check_alive(fake, "copy", src);
    run_until(fake, UINT64_MAX);
    if (fake->broken)
      result = lost(ctx);
    else
      memcpy(dst, to_host(src), size);
  } else if (size > 0) {
    enqueue_copy(fake, kind, dst, src, size);
  }
  pthread_mutex_unlock(&fake->lock);
  if (result == OSR_OK && size > 0)
    osr_count_copy(ctx, kind, size);
  return result;
}

/* Marks */

static OsrResult
synchronize(OsrOpsContext *ctx)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;

  pthread_mutex_lock(&fake->lock);
  if (is_recorder(fake))
    result = osr_fail(ctx, OSR_ERR_INVALID, "synchronize: inside of a graph");
  else
    run_until(fake, UINT64_MAX);
  if (fake->broken)
    result = lost(ctx);
  pthread_mutex_unlock(&fake->lock);
  return result;
}

static OsrResult
mark(OsrOpsContext *ctx, uint64_t *number)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;
  Call *call;

  pthread_mutex_lock(&fake->lock);
  if (fake->broken) {
    result = lost(ctx);
  } else if (is_recorder(fake)) {
    result = osr_fail(ctx, OSR_ERR_INVALID, "mark: inside of a graph");
  } else {
    call = call_new("mark", NULL);
    call->mark = *number = ctx->n_marks + 1;
    __atomic_store_n(&ctx->n_marks, *number, __ATOMIC_RELEASE);
    queue_push(&fake->queue, call);
    count_behind(call, 1);
  }
  pthread_mutex_unlock(&fake->lock);
  return result;
}

static OsrResult
wait_mark(OsrOpsContext *ctx, uint64_t number)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;

  pthread_mutex_lock(&fake->lock);
  if (number > ctx->n_marks) {
    result =
        osr_fail(ctx, OSR_ERR_INVALID, "wait: there is no mark %llu", (unsigned long long) number);
  } else if (is_recorder(fake)) {
    result = osr_fail(ctx, OSR_ERR_INVALID, "wait: inside of a graph");
  } else if (number > fake->passed) {
    /* Old marks are forgotten. */
    if (number + OSR_MAX_MARKS <= ctx->n_marks)
      number = ctx->n_marks - OSR_MAX_MARKS + 1;
    add(&fake_cuda.n_waited, 1);
    run_until(fake, number);
    if (number > fake->passed)
      result = lost(ctx);
  }
  pthread_mutex_unlock(&fake->lock);
  return result;
}

/* Fetches */

static void *
host_alloc(OsrOpsContext *ctx, size_t size)
{
  Fake *fake = fake_of(ctx);
  void *ptr = fake->broken ? NULL : malloc(size ? size : 1);

  if (ptr)
    __atomic_fetch_add(&fake->n_host_blocks, 1, __ATOMIC_RELAXED);
  return ptr;
}

static void
host_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  Fake *fake = fake_of(ctx);

  if (!ptr)
    return;
  pthread_mutex_lock(&fake->lock);
  if (fake->fetches.first)
    run_until(fake, UINT64_MAX);
  run_fetches(fake, UINT64_MAX - 1);
  pthread_mutex_unlock(&fake->lock);
  memset(ptr, POISON, size);
  free(ptr);
  __atomic_fetch_sub(&fake->n_host_blocks, 1, __ATOMIC_RELAXED);
}

static OsrResult
run_fetch(Fake *fake, Call *call)
{
  (void) fake;
  memcpy(to_host(call->dst), call->src, call->size);
  return OSR_OK;
}

static OsrResult
fetch(OsrOpsContext *ctx, void *dst, const void *src, size_t size, uint64_t after, uint64_t *number)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;
  Call *call;

  pthread_mutex_lock(&fake->lock);
  if (fake->broken) {
    result = lost(ctx);
  } else if (is_recorder(fake) || after > ctx->n_marks) {
    result = osr_fail(ctx, OSR_ERR_INVALID, "fetch: inside of a graph, or after no mark");
  } else {
    call = call_new("fetch", run_fetch);
    call->dst = dst;
    call->src = (char *) src;
    call->size = size;
    call->after = after;
    call->fetch = *number = ++ctx->n_fetches;
    if (size > 0)
      check_alive(fake, call->name, dst);
    queue_push(&fake->fetches, call);
    if (!fake_cuda.late_fetches)
      run_fetches(fake, UINT64_MAX);
    if (size > 0)
      osr_count_copy(ctx, OSR_COPY_TO_DEVICE, size);
  }
  pthread_mutex_unlock(&fake->lock);
  return result;
}

static OsrResult
join(OsrOpsContext *ctx, uint64_t number)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;
  Call *call;

  pthread_mutex_lock(&fake->lock);
  if (fake->broken) {
    result = lost(ctx);
  } else if (is_recorder(fake) || number > ctx->n_fetches) {
    result = osr_fail(ctx, OSR_ERR_INVALID, "join: inside of a graph, or of no fetch");
  } else if (number > 0) {
    call = call_new("join", NULL);
    call->fetch = number;
    queue_push(&fake->queue, call);
    count_behind(call, 1);
    if (number > fake->joined)
      fake->joined = number;
    add(&fake_cuda.n_joins, 1);
    if (number < ctx->n_fetches)
      add(&fake_cuda.n_joins_ahead, 1);
  }
  pthread_mutex_unlock(&fake->lock);
  return result;
}

/* Graphs */

static OsrResult
graph_begin(OsrOpsContext *ctx)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;

  pthread_mutex_lock(&fake->lock);
  if (fake->broken) {
    result = lost(ctx);
  } else if (fake_cuda.fail_begin || fake->recording) {
    result = osr_fail(ctx, OSR_ERR_INVALID, "graph_begin: %s",
                      fake->recording ? "there is a recording" : "failed, as the test asked");
  } else {
    fake->recording = true;
    fake->recorder = pthread_self();
    queue_init(&fake->recorded);
  }
  pthread_mutex_unlock(&fake->lock);
  return result;
}

static OsrResult
graph_end(OsrOpsContext *ctx, void **graph)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;
  Graph *recorded = calloc(1, sizeof *recorded);

  pthread_mutex_lock(&fake->lock);
  if (!recorded || !is_recorder(fake))
    die("graph_end: there is no recording");
  fake->recording = false;
  recorded->refs = 1;
  recorded->calls = fake->recorded;
  if (!recorded->calls.first)
    recorded->calls.end = &recorded->calls.first;
  if (fake->broken)
    result = lost(ctx);
  else if (graph && fake_cuda.fail_end)
    result = osr_fail(ctx, OSR_ERR_UNSUPPORTED, "graph_end: failed, as the test asked");
  if (!graph || result != OSR_OK) {
    graph_unref(recorded);
    recorded = NULL;
  } else {
    add(&fake_cuda.n_recorded, 1);
    fake->n_graphs++;
  }
  if (graph)
    *graph = recorded;
  pthread_mutex_unlock(&fake->lock);
  return result;
}

static OsrResult
graph_launch(OsrOpsContext *ctx, void *graph)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;
  Call *call;

  pthread_mutex_lock(&fake->lock);
  if (fake->broken) {
    result = lost(ctx);
  } else if (is_recorder(fake)) {
    result = osr_fail(ctx, OSR_ERR_INVALID, "graph_launch: inside of a graph");
  } else if (fake_cuda.fail_launch) {
    result = osr_fail(ctx, OSR_ERR_MEMORY, "graph_launch: failed, as the test asked");
  } else {
    call = call_new("graph", NULL);
    call->graph = graph;
    call->graph->refs++;
    for (const Call *c = call->graph->calls.first; c; c = c->next)
      check_call(fake, c);
    enqueue(fake, call);
    add(&fake_cuda.n_launched, 1);
  }
  pthread_mutex_unlock(&fake->lock);
  return result;
}

static void
graph_free(OsrOpsContext *ctx, void *graph)
{
  Fake *fake = fake_of(ctx);

  if (!graph)
    return;
  pthread_mutex_lock(&fake->lock);
  fake->n_graphs--;
  graph_unref(graph);
  pthread_mutex_unlock(&fake->lock);
}

/* Ops */

static OsrResult
run_op(Fake *fake, Call *call)
{
  char params[512];

  if (call->params_size > sizeof params)
    die("%s: too many parameters", call->name);
  memcpy(params, call->params, call->params_size);
  for (size_t i = 0; i < call->n_pointers; i++) {
    void *ptr;

    memcpy(&ptr, params + call->pointers[i], sizeof ptr);
    if (ptr)
      ptr = to_host(ptr);
    memcpy(params + call->pointers[i], &ptr, sizeof ptr);
  }
  if (call->scratch)
    memset(to_host(call->scratch), POISON, call->scratch_size);
  if (is_attention(call) && fake_cuda.attention_ms > 0)
    nanosleep(&(struct timespec){ .tv_sec = fake_cuda.attention_ms / 1000,
                                  .tv_nsec = fake_cuda.attention_ms % 1000 * 1000000L },
              NULL);
  return call->op(&fake->cpu, params);
}

/* Scratch memory is given back before the op has run, as the order of the stream allows. */
static OsrResult
enqueue_op(OsrOpsContext *ctx, const char *name, Op op, const void *params, size_t size,
           const size_t *pointers, size_t n_pointers, size_t scratch_size)
{
  Fake *fake = fake_of(ctx);
  OsrResult result = OSR_OK;
  void *scratch = NULL;
  Call *call;

  if (__atomic_exchange_n(&fake->in_op, true, __ATOMIC_ACQUIRE))
    die("%s: another thread is in an op", name);
  if (is_recorder(fake) && scratch_size > 0)
    scratch_size += fake_cuda.recording_scratch;
  if (scratch_size > 0 && !(scratch = osr_scratch_alloc(ctx, scratch_size)))
    result = fake->broken ? lost(ctx) : osr_fail(ctx, OSR_ERR_MEMORY, "%s: no scratch", name);
  if (result == OSR_OK) {
    call = call_new(name, run_op);
    call->op = op;
    call->params = malloc(size);
    if (!call->params)
      die("no memory");
    memcpy(call->params, params, size);
    call->params_size = size;
    call->pointers = pointers;
    call->n_pointers = n_pointers;
    call->scratch = scratch;
    call->scratch_size = scratch_size;
    pthread_mutex_lock(&fake->lock);
    if (fake->broken) {
      call_free(call);
      result = lost(ctx);
    } else {
      check_call(fake, call);
      enqueue(fake, call);
    }
    pthread_mutex_unlock(&fake->lock);
  }
  if (scratch)
    osr_scratch_free(ctx, scratch, scratch_size);
  __atomic_store_n(&fake->in_op, false, __ATOMIC_RELEASE);
  return result;
}

/* CHECK and SCRATCH are expressions of ctx and p; then where the addresses are. */
#define OP(name, Type, CHECK, SCRATCH, ...)                                                        \
  static OsrResult run_##name(OsrOpsContext *ctx, const void *p)                                   \
  {                                                                                                \
    return osr_backend_cpu.ops.name(ctx, p);                                                       \
  }                                                                                                \
  static OsrResult fake_##name(OsrOpsContext *ctx, const Type *p)                                  \
  {                                                                                                \
    typedef Type T;                                                                                \
    static const size_t pointers[] = { __VA_ARGS__ };                                              \
                                                                                                   \
    OSR_TRY(CHECK);                                                                                \
    return enqueue_op(ctx, #name, run_##name, p, sizeof *p, pointers,                              \
                      sizeof pointers / sizeof *pointers, (size_t) (SCRATCH));                     \
  }

#define AT(field) offsetof(T, field)
#define F32 OSR_MASK_OF(OSR_DTYPE_F32)

/* f32 and bf16 alone, so that tests see a conversion refused. */
static OsrResult
check_copy2d(OsrOpsContext *ctx, const OsrCopy2d *p)
{
  const uint32_t known = ctx->backend->dtypes | F32;

  if (p->x_dtype != p->y_dtype &&
      (!(known & OSR_MASK_OF(p->x_dtype)) || !(known & OSR_MASK_OF(p->y_dtype))))
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "the fake converts f32 and bf16 alone");
  return osr_check_copy2d(ctx, p);
}

static OsrResult
check_linear(OsrOpsContext *ctx, const OsrLinear *p)
{
  fake_cuda.n_tf32 += p->tf32;
  return osr_check_linear(ctx, p, F32);
}

OP(linear, OsrLinear, check_linear(ctx, p), p->batch * p->m * 4 + 64, AT(x), AT(w), AT(bias),
   AT(w_scale), AT(gate), AT(residual), AT(y))
OP(glu, OsrGlu, osr_check_glu(ctx, p, F32), 0, AT(x), AT(y))
OP(layer_norm, OsrLayerNorm, osr_check_layer_norm(ctx, p, F32), 0, AT(x), AT(weight), AT(bias),
   AT(scale), AT(shift), AT(y))
OP(rms_norm, OsrRmsNorm, osr_check_rms_norm(ctx, p, F32), 0, AT(x), AT(weight), AT(y))
OP(qk_norm_rope, OsrQkNormRope, osr_check_qk_norm_rope(ctx, p, F32), 0, AT(q), AT(k), AT(q_scale),
   AT(k_scale), AT(cos), AT(sin))
OP(attention, OsrAttention, osr_check_attention(ctx, p, F32), (p->lq + p->lk) * p->batch * 8, AT(q),
   AT(k), AT(v), AT(rel_bias), AT(kv_len), AT(o))
OP(group_norm, OsrGroupNorm, osr_check_group_norm(ctx, p, F32), p->groups * 8, AT(x), AT(weight),
   AT(bias), AT(y))
OP(conv3d, OsrConv3d, osr_check_conv3d(ctx, p, F32), p->h * p->w_in * 4 + 64, AT(x), AT(w),
   AT(bias), AT(residual), AT(y))
OP(patchify, OsrPatchify, osr_check_patchify(ctx, "patchify", p, F32), 0, AT(x), AT(y))
OP(unpatchify, OsrPatchify, osr_check_patchify(ctx, "unpatchify", p, F32), 0, AT(x), AT(y))
OP(embedding, OsrEmbedding, osr_check_embedding(ctx, p, F32), 0, AT(ids), AT(table), AT(positions),
   AT(y))
OP(timestep, OsrTimestep, osr_check_timestep(ctx, p, F32), 0, AT(t), AT(y))
OP(affine, OsrAffine, osr_check_affine(ctx, p, F32), 0, AT(x), AT(y))
OP(copy2d, OsrCopy2d, check_copy2d(ctx, p), 0, AT(x), AT(y))
OP(guidance_step, OsrGuidanceStep, osr_check_guidance_step(ctx, p, F32), 0, AT(pred[0]),
   AT(pred[1]), AT(pred[2]), AT(weight[0]), AT(weight[1]), AT(weight[2]), AT(x))
OP(randn, OsrRandn, osr_check_randn(ctx, p, F32), 0, AT(y))
OP(gaussian, OsrGaussian, osr_check_gaussian(ctx, p, F32), 0, AT(moments), AT(noise), AT(y))
OP(blend, OsrBlend, osr_check_blend(ctx, p, F32), 0, AT(a), AT(b))
OP(tensor_to_frame, OsrFrame, osr_check_frame(ctx, "tensor_to_frame", p, F32), 0, AT(tensor),
   AT(planes[0]), AT(planes[1]), AT(planes[2]))
OP(frame_to_tensor, OsrFrame, osr_check_frame(ctx, "frame_to_tensor", p, F32), 0, AT(tensor),
   AT(planes[0]), AT(planes[1]), AT(planes[2]))

/* The device */

static OsrResult
open_device(OsrOpsContext *ctx, int index)
{
  Fake *fake;

  if (getenv("FAKE_CUDA_BROKEN"))
    return osr_fail(ctx, OSR_ERR_DEVICE, "fake device %d is broken", index);
  fake = calloc(1, sizeof *fake);
  if (!fake)
    return OSR_ERR_MEMORY;
  fake->index = index;
  fake->cpu.n_threads = 1;
  if (osr_backend_cpu.open(&fake->cpu, 0) != OSR_OK) {
    free(fake);
    return OSR_ERR_MEMORY;
  }
  if (index < MAX_DEVICES && __atomic_fetch_add(&n_open[index], 1, __ATOMIC_SEQ_CST) > 0)
    die("device %d is opened while it is open", index);
  pthread_mutex_init(&fake->lock, NULL);
  queue_init(&fake->queue);
  queue_init(&fake->fetches);
  ctx->impl = fake;
  return OSR_OK;
}

static void
close_device(OsrOpsContext *ctx)
{
  Fake *fake = fake_of(ctx);

  run_until(fake, UINT64_MAX);
  run_fetches(fake, UINT64_MAX - 1);
  if (fake->blocks || fake->n_graphs > 0 || fake->n_host_blocks > 0)
    die("device %d is closed with %d graphs, %d blocks of the host and %smemory in use",
        fake->index, fake->n_graphs, fake->n_host_blocks, fake->blocks ? "" : "no ");
  osr_backend_cpu.close(&fake->cpu);
  /* A GPU takes longer, in which others may want it. */
  nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
  if (fake->index < MAX_DEVICES)
    __atomic_fetch_sub(&n_open[fake->index], 1, __ATOMIC_SEQ_CST);
  pthread_mutex_destroy(&fake->lock);
  free(fake);
  ctx->impl = NULL;
}

static OsrBackend backend = {
  .name = "cuda",
  .device_count = device_count,
  .open = open_device,
  .close = close_device,
  .mem_info = mem_info,
  .mem_alloc = mem_alloc,
  .mem_free = mem_free,
  .mem_set = mem_set,
  .copy = copy,
  .synchronize = synchronize,
  .mark = mark,
  .wait = wait_mark,
  .host_alloc = host_alloc,
  .host_free = host_free,
  .fetch = fetch,
  .join = join,
  .graph_begin = graph_begin,
  .graph_end = graph_end,
  .graph_launch = graph_launch,
  .graph_free = graph_free,
  .ops =
      {
          .linear = fake_linear,
          .glu = fake_glu,
          .layer_norm = fake_layer_norm,
          .rms_norm = fake_rms_norm,
          .qk_norm_rope = fake_qk_norm_rope,
          .attention = fake_attention,
          .group_norm = fake_group_norm,
          .conv3d = fake_conv3d,
          .patchify = fake_patchify,
          .unpatchify = fake_unpatchify,
          .embedding = fake_embedding,
          .timestep = fake_timestep,
          .affine = fake_affine,
          .copy2d = fake_copy2d,
          .guidance_step = fake_guidance_step,
          .randn = fake_randn,
          .gaussian = fake_gaussian,
          .blend = fake_blend,
          .tensor_to_frame = fake_tensor_to_frame,
          .frame_to_tensor = fake_frame_to_tensor,
      },
};

EXPORT const OsrBackend *osr_backend_module(void);

const OsrBackend *
osr_backend_module(void)
{
  const char *abi = getenv("FAKE_CUDA_ABI");

  backend.abi = abi ? (uint32_t) atoi(abi) : OSR_OPS_ABI;
  backend.dtypes = OSR_MASK_OF(OSR_DTYPE_F32);
  if (!getenv("FAKE_CUDA_F32"))
    backend.dtypes |= OSR_MASK_OF(OSR_DTYPE_BF16);
  return &backend;
}
