/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory pool, on a backend that counts, and tensors on the reference backend. */
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "pool-private.h"
#include "tensor.h"

#define MIB (G_GUINT64_CONSTANT(1) << 20)

/* A backend of `capacity` bytes. Its blocks are as large as asked for up to 64 KiB: what is
 * larger is only counted, so that tests can ask for terabytes. */
typedef struct {
  OsrOpsContext ctx;
  guint64 capacity, used;
  guint n_blocks;
} Counter;

static void *
counter_alloc(OsrOpsContext *ctx, size_t size)
{
  Counter *counter = ctx->impl;

  if (size > counter->capacity - counter->used)
    return NULL;
  __atomic_add_fetch(&counter->used, size, __ATOMIC_RELAXED);
  counter->n_blocks++;
  return aligned_alloc(64, (MIN(size, 65536) + 63) / 64 * 64);
}

static void
counter_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  Counter *counter = ctx->impl;

  g_assert_cmpuint(size, <=, counter->used);
  __atomic_sub_fetch(&counter->used, size, __ATOMIC_RELAXED);
  counter->n_blocks--;
  free(ptr);
}

/* Asked without the pool's lock. */
static OsrResult
counter_info(OsrOpsContext *ctx, size_t *free, size_t *total)
{
  Counter *counter = ctx->impl;

  *free = counter->capacity - __atomic_load_n(&counter->used, __ATOMIC_RELAXED);
  *total = counter->capacity;
  return OSR_OK;
}

static const OsrBackend counter_backend = {
  .abi = OSR_OPS_ABI,
  .name = "counter",
  .mem_info = counter_info,
  .mem_alloc = counter_alloc,
  .mem_free = counter_free,
};

static OsrPool *
counter_pool(Counter *counter, guint64 capacity)
{
  *counter = (Counter){
    .ctx = { .backend = &counter_backend, .impl = counter },
    .capacity = capacity,
  };
  return osr_pool_new(&counter->ctx);
}

static gpointer
must_alloc(OsrPool *pool, gsize size)
{
  g_autoptr(GError) error = NULL;
  gpointer ptr = osr_pool_alloc(pool, size, &error);

  g_assert_no_error(error);
  g_assert_nonnull(ptr);
  return ptr;
}

static void
assert_stats(OsrPool *pool, guint64 allocated, guint64 reserved)
{
  OsrPoolStats stats;

  osr_pool_get_stats(pool, &stats);
  g_assert_cmpuint(stats.allocated, ==, allocated);
  g_assert_cmpuint(stats.reserved, ==, reserved);
}

static void
test_pool_classes(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);

  for (guint64 size = 0; size < (G_GUINT64_CONSTANT(1) << 42); size += 1 + size / 13) {
    gpointer ptr = must_alloc(pool, size);
    OsrPoolStats stats;

    g_assert_cmpuint((guintptr) ptr % 64, ==, 0);
    osr_pool_get_stats(pool, &stats);
    g_assert_cmpuint(stats.allocated, >=, MAX(size, 512));
    g_assert_cmpuint(stats.allocated, <=, MAX(size + size / 8 + 1, 512));
    g_assert_cmpuint(stats.allocated, ==, counter.used);
    if (size >= 16 * MIB) {
      g_assert_cmpuint(stats.allocated % (2 * MIB), ==, 0);
      g_assert_cmpuint(stats.allocated - size, <, 2 * MIB);
    }
    osr_pool_release(pool, ptr, size);
    osr_pool_trim(pool, 0);
    g_assert_cmpuint(counter.n_blocks, ==, 0);
  }
  osr_pool_free(pool);
}

static void
test_pool_reuse(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);
  gpointer a = must_alloc(pool, 1000), b = must_alloc(pool, 1001);
  OsrPoolStats stats;

  assert_stats(pool, 2048, 2048);
  osr_pool_release(pool, a, 1000);
  assert_stats(pool, 1024, 2048);
  osr_pool_release(pool, b, 1001);
  assert_stats(pool, 0, 2048);

  /* The block freed last is the one that caches still know. */
  g_assert_true(must_alloc(pool, 1024) == b);
  g_assert_true(must_alloc(pool, 990) == a);
  assert_stats(pool, 2048, 2048);
  osr_pool_get_stats(pool, &stats);
  g_assert_cmpuint(stats.n_allocs, ==, 4);
  g_assert_cmpuint(stats.n_backend_allocs, ==, 2);
  osr_pool_release(pool, a, 990);
  osr_pool_release(pool, b, 1024);
  osr_pool_release(pool, NULL, 77);
  osr_pool_free(pool);
  g_assert_cmpuint(counter.n_blocks, ==, 0);
  g_assert_cmpuint(counter.used, ==, 0);
}

static void
test_pool_peak(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);
  gpointer a = must_alloc(pool, 4096), b = must_alloc(pool, 8192);
  OsrPoolStats stats;

  osr_pool_release(pool, b, 8192);
  osr_pool_get_stats(pool, &stats);
  g_assert_cmpuint(stats.peak_allocated, ==, 12288);
  g_assert_cmpuint(stats.peak_reserved, ==, 12288);
  osr_pool_trim(pool, 0);
  osr_pool_reset_peak(pool);
  osr_pool_get_stats(pool, &stats);
  g_assert_cmpuint(stats.peak_allocated, ==, 4096);
  g_assert_cmpuint(stats.peak_reserved, ==, 4096);
  osr_pool_release(pool, a, 4096);
  osr_pool_free(pool);
}

static void
test_pool_limit(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);
  gpointer kept, ptr;
  g_autoptr(GError) error = NULL;

  osr_pool_set_limit(pool, 32 * MIB);
  kept = must_alloc(pool, 10 * MIB);
  osr_pool_release(pool, must_alloc(pool, 8 * MIB), 8 * MIB);
  osr_pool_release(pool, must_alloc(pool, 12 * MIB), 12 * MIB);
  assert_stats(pool, 10 * MIB, 30 * MIB);

  /* 4 MiB do not fit beside the cache; the oldest cached block is enough to make room. */
  ptr = must_alloc(pool, 4 * MIB);
  assert_stats(pool, 14 * MIB, 26 * MIB);
  osr_pool_release(pool, ptr, 4 * MIB);

  /* The whole cache is not enough for this one, so it stays. */
  g_assert_null(osr_pool_alloc(pool, 24 * MIB, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  for (guint i = 0; i < 4; i++) {
    static const char *const parts[] = { "asked for 24.0", "10.0", "limit 32.0",
                                         "cached block 12.0" };

    g_assert_nonnull(strstr(error->message, parts[i]));
  }
  assert_stats(pool, 10 * MIB, 26 * MIB);
  g_assert_null(osr_pool_alloc(pool, 24 * MIB, NULL));

  osr_pool_set_limit(pool, 12 * MIB);
  assert_stats(pool, 10 * MIB, 10 * MIB);
  osr_pool_set_limit(pool, 5 * MIB);
  g_assert_null(osr_pool_alloc(pool, 1, NULL));
  osr_pool_set_limit(pool, 0);
  osr_pool_release(pool, must_alloc(pool, 100 * MIB), 100 * MIB);
  osr_pool_release(pool, kept, 10 * MIB);
  osr_pool_free(pool);
  g_assert_cmpuint(counter.n_blocks, ==, 0);
}

static void
test_pool_refusal(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, 32 * MIB);
  gpointer ptr;
  g_autoptr(GError) error = NULL;

  osr_pool_release(pool, must_alloc(pool, 20 * MIB), 20 * MIB);
  ptr = must_alloc(pool, 30 * MIB);
  assert_stats(pool, 30 * MIB, 30 * MIB);
  g_assert_null(osr_pool_alloc(pool, 4 * MIB, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  g_assert_nonnull(strstr(error->message, "limit none"));
  g_assert_nonnull(strstr(error->message, "; 2.0"));
  g_assert_nonnull(strstr(error->message, "free"));
  g_clear_error(&error);

  g_assert_null(osr_pool_alloc(pool, G_MAXSIZE, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  g_assert_null(osr_pool_alloc(pool, G_MAXSIZE - 2 * MIB, NULL));
  osr_pool_release(pool, ptr, 30 * MIB);
  osr_pool_free(pool);
}

/* The host hands out no memory that is not there: who wrote to it would be killed. */
static void
test_pool_host(void)
{
  g_autoptr(OsrDevice) device = osr_device_get("cpu", NULL);
  OsrOpsContext *ctx = osr_device_get_context(device);
  g_autoptr(GError) error = NULL;
  size_t free_bytes, total;

  g_assert_cmpint(ctx->backend->mem_info(ctx, &free_bytes, &total), ==, OSR_OK);
  g_assert_cmpuint(free_bytes, >, 0);
  g_assert_cmpuint(free_bytes, <=, total);
  g_assert_null(osr_pool_alloc(osr_device_get_pool(device), total, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
}

static void
test_pool_threshold(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);
  gpointer blocks[4];

  for (guint i = 0; i < G_N_ELEMENTS(blocks); i++)
    blocks[i] = must_alloc(pool, MIB);
  osr_pool_set_trim_threshold(pool, 2 * MIB);
  for (guint i = 0; i < G_N_ELEMENTS(blocks); i++)
    osr_pool_release(pool, blocks[i], MIB);
  assert_stats(pool, 0, 2 * MIB);
  osr_pool_trim(pool, MIB);
  assert_stats(pool, 0, MIB);
  osr_pool_set_trim_threshold(pool, 0);
  assert_stats(pool, 0, 0);
  osr_pool_release(pool, must_alloc(pool, MIB), MIB);
  assert_stats(pool, 0, 0);
  osr_pool_free(pool);
}

/* What an arena has had stays with it, in use or not, until the arena is freed. */
static void
test_arena_keeps(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);
  OsrPoolArena *arena = osr_pool_arena_new(pool);
  gpointer a, b, c;
  OsrPoolStats stats;

  osr_pool_release(pool, must_alloc(pool, 4096), 4096);
  osr_pool_arena_begin(arena);
  a = must_alloc(pool, 4096);
  b = must_alloc(pool, 8192);
  osr_pool_release(pool, a, 4096);
  osr_pool_release(pool, b, 8192);
  assert_stats(pool, 12288, 12288);
  g_assert_true(must_alloc(pool, 8192) == b);
  g_assert_true(must_alloc(pool, 4096) == a);
  osr_pool_release(pool, a, 4096);
  osr_pool_release(pool, b, 8192);
  osr_pool_arena_end(arena);

  /* The cache's block went into the arena, and nobody else gets it. */
  osr_pool_get_stats(pool, &stats);
  g_assert_cmpuint(stats.n_backend_allocs, ==, 2);
  c = must_alloc(pool, 4096);
  g_assert_true(c != a);
  osr_pool_release(pool, c, 4096);
  osr_pool_trim(pool, 0);
  assert_stats(pool, 12288, 12288);
  g_assert_cmpuint(counter.n_blocks, ==, 2);
  osr_pool_set_limit(pool, 12288 + 4096);
  g_assert_null(osr_pool_alloc(pool, 8192, NULL));
  osr_pool_set_limit(pool, 0);

  osr_pool_arena_free(arena);
  assert_stats(pool, 0, 12288);
  g_assert_true(must_alloc(pool, 4096) == a);
  osr_pool_release(pool, a, 4096);
  osr_pool_arena_free(NULL);
  osr_pool_free(pool);
  g_assert_cmpuint(counter.n_blocks, ==, 0);
}

/* Blocks that are held across the bounds of an arena's time. */
static void
test_arena_bounds(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);
  OsrPoolArena *arena = osr_pool_arena_new(pool);
  gpointer before = must_alloc(pool, 1024), late, later, other;

  osr_pool_arena_begin(arena);
  late = must_alloc(pool, 2048);
  later = must_alloc(pool, 4096);
  osr_pool_release(pool, before, 1024);
  osr_pool_arena_end(arena);
  assert_stats(pool, 7168, 7168);

  /* Released inside: the arena's. */
  other = must_alloc(pool, 1024);
  g_assert_true(other != before);
  osr_pool_release(pool, other, 1024);
  /* Released after the end: the arena's too. */
  osr_pool_release(pool, late, 2048);
  other = must_alloc(pool, 2048);
  g_assert_true(other != late);
  osr_pool_release(pool, other, 2048);
  osr_pool_arena_begin(arena);
  g_assert_true(must_alloc(pool, 1024) == before);
  g_assert_true(must_alloc(pool, 2048) == late);
  osr_pool_release(pool, before, 1024);
  osr_pool_release(pool, late, 2048);
  osr_pool_arena_end(arena);
  assert_stats(pool, 7168, 10240);

  /* Released after the arena is gone: the pool's. */
  osr_pool_arena_free(arena);
  assert_stats(pool, 4096, 10240);
  osr_pool_release(pool, later, 4096);
  assert_stats(pool, 0, 10240);
  g_assert_true(must_alloc(pool, 4096) == later);
  osr_pool_release(pool, later, 4096);
  osr_pool_free(pool);
  g_assert_cmpuint(counter.n_blocks, ==, 0);
}

/* The blocks of a large batch serve a smaller one, and stay as large as they are. */
static void
test_arena_fit(void)
{
  static const gsize sizes[] = { 3000, 9000, 9000, 27000, 600, 45000 };
  Counter counter;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);
  OsrPoolArena *arena = osr_pool_arena_new(pool);
  gpointer blocks[G_N_ELEMENTS(sizes)];
  OsrPoolStats first = { 0 }, stats;

  osr_pool_arena_begin(arena);
  for (guint batch = 3; batch >= 1; batch--) {
    for (guint i = 0; i < G_N_ELEMENTS(sizes); i++) {
      blocks[i] = must_alloc(pool, sizes[i] * batch / 3);
      for (guint j = 0; j < i; j++)
        g_assert_true(blocks[j] != blocks[i]);
    }
    for (guint i = 0; i < G_N_ELEMENTS(sizes); i++)
      osr_pool_release(pool, blocks[i], sizes[i] * batch / 3);
    osr_pool_get_stats(pool, &stats);
    if (batch == 3)
      first = stats;
    g_assert_cmpuint(stats.n_backend_allocs, ==, G_N_ELEMENTS(sizes));
    g_assert_cmpuint(stats.allocated, ==, first.allocated);
    g_assert_cmpuint(stats.peak_allocated, ==, first.allocated);
    g_assert_cmpuint(stats.reserved, ==, first.reserved);
  }
  osr_pool_arena_end(arena);
  osr_pool_arena_free(arena);
  assert_stats(pool, 0, first.reserved);
  osr_pool_free(pool);
  g_assert_cmpuint(counter.used, ==, 0);
}

static gpointer
alloc_in_thread(gpointer data)
{
  return must_alloc(data, 1024);
}

/* An arena is of a thread, and of a pool. */
static void
test_arena_is_local(void)
{
  Counter counter, elsewhere;
  OsrPool *pool = counter_pool(&counter, G_MAXUINT64);
  OsrPool *other = counter_pool(&elsewhere, G_MAXUINT64);
  OsrPoolArena *arena = osr_pool_arena_new(pool);
  gpointer mine, theirs;

  osr_pool_arena_begin(arena);
  mine = must_alloc(pool, 1024);
  osr_pool_release(pool, mine, 1024);
  theirs = g_thread_join(g_thread_new("other", alloc_in_thread, pool));
  g_assert_true(theirs != mine);
  osr_pool_release(other, must_alloc(other, 1024), 1024);
  assert_stats(other, 0, 1024);
  osr_pool_arena_end(arena);
  osr_pool_release(pool, theirs, 1024);
  assert_stats(pool, 1024, 2048);
  osr_pool_arena_free(arena);
  osr_pool_free(pool);
  osr_pool_free(other);
}

typedef struct {
  OsrPool *pool;
  guint32 seed;
  OsrPoolArena *arena; /* to be in every now and then, or NULL */
} Worker;

/* Fills its blocks with a pattern of its own: a block handed out twice does not survive. */
static gpointer
churn(gpointer data)
{
  Worker *worker = data;
  g_autoptr(GRand) rand = g_rand_new_with_seed(worker->seed);
  guint32 *blocks[16] = { NULL };
  gsize sizes[16] = { 0 };

  for (guint i = 0; i < 6000; i++) {
    guint at = (guint) g_rand_int_range(rand, 0, 16);

    if (worker->arena && i % 50 == 10)
      osr_pool_arena_begin(worker->arena);
    if (worker->arena && i % 50 == 40)
      osr_pool_arena_end(worker->arena);
    if (blocks[at]) {
      for (gsize j = 0; j < sizes[at] / 4; j++)
        g_assert_cmpuint(blocks[at][j], ==, worker->seed + at);
      osr_pool_release(worker->pool, blocks[at], sizes[at]);
      blocks[at] = NULL;
    } else {
      sizes[at] = (gsize) g_rand_int_range(rand, 4, 4096);
      blocks[at] = osr_pool_alloc(worker->pool, sizes[at], NULL);
      for (gsize j = 0; blocks[at] && j < sizes[at] / 4; j++)
        blocks[at][j] = worker->seed + at;
    }
    if (i % 500 == 0)
      osr_pool_trim(worker->pool, 4096);
  }
  for (guint i = 0; i < G_N_ELEMENTS(blocks); i++)
    osr_pool_release(worker->pool, blocks[i], sizes[i]);
  return NULL;
}

static void
test_pool_threads(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, 128 * 1024);
  Worker workers[4];
  GThread *threads[4];
  OsrPoolStats stats;

  osr_pool_set_limit(pool, 96 * 1024);
  for (guint i = 0; i < 4; i++) {
    workers[i] = (Worker){ .pool = pool, .seed = 1000 * (i + 1) };
    threads[i] = g_thread_new("churn", churn, &workers[i]);
  }
  for (guint i = 0; i < 4; i++)
    g_thread_join(threads[i]);
  osr_pool_get_stats(pool, &stats);
  g_assert_cmpuint(stats.allocated, ==, 0);
  g_assert_cmpuint(stats.reserved, ==, counter.used);
  g_assert_cmpuint(stats.peak_reserved, <=, 96 * 1024);
  g_assert_cmpuint(stats.peak_allocated, >, 0);
  osr_pool_free(pool);
  g_assert_cmpuint(counter.used, ==, 0);
}

/* Two threads in arenas of their own, two in one arena, two in none. */
static void
test_arena_threads(void)
{
  Counter counter;
  OsrPool *pool = counter_pool(&counter, 256 * 1024);
  OsrPoolArena *arenas[3];
  Worker workers[6];
  GThread *threads[6];
  OsrPoolStats stats;

  for (guint i = 0; i < 3; i++)
    arenas[i] = osr_pool_arena_new(pool);
  for (guint i = 0; i < 6; i++) {
    workers[i] =
        (Worker){ .pool = pool, .seed = 1000 * (i + 1), .arena = i < 4 ? arenas[MIN(i, 2)] : NULL };
    threads[i] = g_thread_new("churn", churn, &workers[i]);
  }
  for (guint i = 0; i < 6; i++)
    g_thread_join(threads[i]);
  osr_pool_get_stats(pool, &stats);
  g_assert_cmpuint(stats.allocated, >, 0);
  for (guint i = 0; i < 3; i++)
    osr_pool_arena_free(arenas[i]);
  osr_pool_get_stats(pool, &stats);
  g_assert_cmpuint(stats.allocated, ==, 0);
  g_assert_cmpuint(stats.reserved, ==, counter.used);
  osr_pool_free(pool);
  g_assert_cmpuint(counter.used, ==, 0);
}

static OsrDevice *
ref_device(void)
{
  g_autoptr(GError) error = NULL;
  OsrDevice *device = osr_device_get("ref", &error);

  g_assert_no_error(error);
  return device;
}

static guint64
allocated(OsrDevice *device)
{
  OsrPoolStats stats;

  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  return stats.allocated;
}

static void
test_tensor_new(void)
{
  g_autoptr(OsrDevice) device = ref_device();
  g_autoptr(GError) error = NULL;
  OsrTensor *tensor = osr_tensor_make(device, OSR_DTYPE_BF16, &error, 2, 3, 4, -1);
  OsrTensor *scalar = osr_tensor_new(device, OSR_DTYPE_F64, 0, NULL, &error);
  OsrTensor *empty = osr_tensor_make(device, OSR_DTYPE_F32, &error, 5, 0, -1);

  g_assert_no_error(error);
  g_assert_cmpuint(tensor->n_dims, ==, 3);
  g_assert_cmpint(tensor->dims[2], ==, 4);
  g_assert_cmpuint(tensor->size, ==, 48);
  g_assert_cmpint(osr_tensor_n_elements(tensor), ==, 24);
  g_assert_cmpuint(scalar->size, ==, 8);
  g_assert_cmpint(osr_tensor_n_elements(scalar), ==, 1);
  g_assert_cmpuint(empty->size, ==, 0);
  g_assert_cmpint(osr_tensor_n_elements(empty), ==, 0);
  g_assert_true(osr_tensor_zero(empty, &error));
  g_assert_true(osr_tensor_download(empty, NULL, 0, &error));
  osr_tensor_unref(tensor);
  osr_tensor_unref(scalar);
  osr_tensor_unref(empty);
  osr_tensor_unref(NULL);
  g_assert_cmpuint(allocated(device), ==, 0);
}

static void
test_tensor_overflow(void)
{
  static const gint64 dims[][3] = {
    { G_MAXINT64, 2, 1 },
    { G_MAXINT64, 1, 1 },
    { 1LL << 31, 1LL << 31, 4 },
    { 1LL << 40, 1LL << 40, 0 },
    { -1, 2, 2 },
    { 0, -5, 1 },
    { 1000000000000000000LL, 8, 1 },
  };
  g_autoptr(OsrDevice) device = ref_device();

  for (guint i = 0; i < G_N_ELEMENTS(dims); i++) {
    g_autoptr(GError) error = NULL;

    g_assert_null(osr_tensor_new(device, OSR_DTYPE_F32, 3, dims[i], &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
    g_assert_nonnull(strstr(error->message, "no tensor can be ["));
  }
}

static void
test_tensor_memory(void)
{
  g_autoptr(OsrDevice) device = ref_device();
  g_autoptr(GError) error = NULL;

  osr_pool_set_limit(osr_device_get_pool(device), MIB);
  g_assert_null(osr_tensor_make(device, OSR_DTYPE_F32, &error, 1024, 1024, -1));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  osr_pool_set_limit(osr_device_get_pool(device), 0);
}

static void
test_tensor_view(void)
{
  static const gint32 values[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 };
  g_autoptr(OsrDevice) device = ref_device();
  g_autoptr(GError) error = NULL;
  OsrTensor *tensor =
      osr_tensor_new_from_host(device, OSR_DTYPE_I32, 2, (gint64[]){ 3, 4 }, values, &error);
  OsrTensor *row = osr_tensor_view(tensor, 4, 1, (gint64[]){ 4 });
  OsrTensor *pair = osr_tensor_view(row, 2, 2, (gint64[]){ 2, 1 });
  OsrTensor *end = osr_tensor_view(tensor, 12, 1, (gint64[]){ 0 });
  gint32 got[2];

  g_assert_no_error(error);
  osr_tensor_unref(tensor);
  osr_tensor_unref(row);
  g_assert_cmpuint(allocated(device), ==, 512);
  g_assert_true(osr_tensor_download(pair, got, sizeof got, &error));
  g_assert_cmpint(got[0], ==, 6);
  g_assert_cmpint(got[1], ==, 7);
  g_assert_cmpuint(end->size, ==, 0);
  osr_tensor_unref(pair);
  osr_tensor_unref(end);
  g_assert_cmpuint(allocated(device), ==, 0);
}

static void
test_tensor_view_outside(void)
{
  g_autoptr(OsrDevice) device = ref_device();
  g_autoptr(OsrTensor) tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 3, 4, -1);

  g_test_expect_message("opensora", G_LOG_LEVEL_CRITICAL, "*assertion*size*failed*");
  g_assert_null(osr_tensor_view(tensor, 1, 1, (gint64[]){ 12 }));
  g_test_expect_message("opensora", G_LOG_LEVEL_CRITICAL, "*assertion*offset*failed*");
  g_assert_null(osr_tensor_view(tensor, 13, 1, (gint64[]){ 0 }));
  g_test_expect_message("opensora", G_LOG_LEVEL_CRITICAL, "*assertion*offset*failed*");
  g_assert_null(osr_tensor_view(tensor, -1, 1, (gint64[]){ 1 }));
  g_test_assert_expected_messages();
}

static void
test_tensor_convert(void)
{
  static const float values[] = { 0, 1.5f, -2, 1024, 0.1f };
  static const OsrDType dtypes[] = { OSR_DTYPE_BF16, OSR_DTYPE_F16, OSR_DTYPE_F64, OSR_DTYPE_F32 };
  g_autoptr(OsrDevice) device = ref_device();
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrTensor) tensor =
      osr_tensor_new_from_host(device, OSR_DTYPE_F32, 1, (gint64[]){ 5 }, values, &error);

  for (guint i = 0; i < G_N_ELEMENTS(dtypes); i++) {
    g_autoptr(OsrTensor) there = osr_tensor_convert(tensor, device, dtypes[i], &error);
    g_autoptr(OsrTensor) back = osr_tensor_convert(there, device, OSR_DTYPE_F32, &error);
    float got[5];

    g_assert_no_error(error);
    g_assert_cmpint(there->dtype, ==, dtypes[i]);
    g_assert_true(osr_tensor_download(back, got, sizeof got, &error));
    for (guint j = 0; j < 4; j++)
      g_assert_cmpfloat(got[j], ==, values[j]);
    g_assert_cmpfloat_with_epsilon(got[4], values[4], 1e-3);
  }
}

static void
test_tensor_names(void)
{
  g_autofree char *none = osr_dims_to_string(0, NULL);
  g_autofree char *two = osr_dims_to_string(2, (gint64[]){ 192, 64 });
  OsrDType dtype;

  g_assert_cmpstr(none, ==, "[]");
  g_assert_cmpstr(two, ==, "[192, 64]");
  for (guint i = 0; i < OSR_N_DTYPES; i++) {
    g_assert_true(osr_dtype_from_name(osr_dtype_name(i), &dtype));
    g_assert_cmpuint(dtype, ==, i);
  }
  g_assert_false(osr_dtype_from_name("F4", &dtype));
  g_assert_cmpstr(osr_dtype_name(OSR_N_DTYPES), ==, "unknown");
}

static gpointer
ref_and_unref(gpointer data)
{
  OsrTensor *tensor = data;

  for (guint i = 0; i < 2000; i++) {
    OsrTensor *view = osr_tensor_view(tensor, i % 8, 1, (gint64[]){ 1 });

    osr_tensor_unref(osr_tensor_ref(view));
    osr_tensor_unref(view);
  }
  return NULL;
}

static void
test_tensor_threads(void)
{
  g_autoptr(OsrDevice) device = ref_device();
  OsrTensor *tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 8, -1);
  GThread *threads[4];

  for (guint i = 0; i < 4; i++)
    threads[i] = g_thread_new("refs", ref_and_unref, tensor);
  for (guint i = 0; i < 4; i++)
    g_thread_join(threads[i]);
  g_assert_cmpint(tensor->ref_count, ==, 1);
  osr_tensor_unref(tensor);
  g_assert_cmpuint(allocated(device), ==, 0);
}

static void
test_tensor_boxed(void)
{
  g_autoptr(OsrDevice) device = ref_device();
  OsrTensor *tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 8, -1);
  GValue value = G_VALUE_INIT;

  g_value_init(&value, OSR_TYPE_TENSOR);
  g_value_take_boxed(&value, tensor);
  g_assert_true(g_value_get_boxed(&value) == tensor);
  g_value_unset(&value);
  g_assert_cmpuint(allocated(device), ==, 0);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/pool/classes", test_pool_classes);
  g_test_add_func("/pool/reuse", test_pool_reuse);
  g_test_add_func("/pool/peak", test_pool_peak);
  g_test_add_func("/pool/limit", test_pool_limit);
  g_test_add_func("/pool/refusal", test_pool_refusal);
  g_test_add_func("/pool/host", test_pool_host);
  g_test_add_func("/pool/threshold", test_pool_threshold);
  g_test_add_func("/pool/threads", test_pool_threads);
  g_test_add_func("/arena/keeps", test_arena_keeps);
  g_test_add_func("/arena/bounds", test_arena_bounds);
  g_test_add_func("/arena/fit", test_arena_fit);
  g_test_add_func("/arena/is-local", test_arena_is_local);
  g_test_add_func("/arena/threads", test_arena_threads);
  g_test_add_func("/tensor/new", test_tensor_new);
  g_test_add_func("/tensor/overflow", test_tensor_overflow);
  g_test_add_func("/tensor/memory", test_tensor_memory);
  g_test_add_func("/tensor/view", test_tensor_view);
  g_test_add_func("/tensor/view-outside", test_tensor_view_outside);
  g_test_add_func("/tensor/convert", test_tensor_convert);
  g_test_add_func("/tensor/names", test_tensor_names);
  g_test_add_func("/tensor/threads", test_tensor_threads);
  g_test_add_func("/tensor/boxed", test_tensor_boxed);
  return g_test_run();
}
