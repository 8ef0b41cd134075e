/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The registry of devices and the backend module. OPENSORA_MODULE_PATH names the folder of
 * the fake CUDA module. */
#include <glib/gstdio.h>
#include <string.h>

#include "device-private.h"
#include "error.h"
#include "fair-lock.h"
#include "tensor.h"

static void
assert_no_device(const char *name, const char *reason)
{
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_device_get(name, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
  g_assert_nonnull(strstr(error->message, name));
  g_assert_nonnull(strstr(error->message, reason));
}

static OsrDevice *
get(const char *name)
{
  g_autoptr(GError) error = NULL;
  OsrDevice *device = osr_device_get(name, &error);

  g_assert_no_error(error);
  g_assert_nonnull(device);
  return device;
}

/* Runs a test of this program again, in a process that has not loaded the module yet. */
static void
run_fresh(const char *path, const char *variable, const char *value)
{
  g_autofree char *before = g_strdup(g_getenv(variable));

  g_setenv(variable, value, TRUE);
  g_test_trap_subprocess(path, 0, G_TEST_SUBPROCESS_DEFAULT);
  if (before)
    g_setenv(variable, before, TRUE);
  else
    g_unsetenv(variable);
  g_test_trap_assert_passed();
}

static void
test_shared(void)
{
  g_autoptr(OsrDevice) a = get("ref");
  g_autoptr(OsrDevice) b = get("ref");
  g_autoptr(OsrDevice) cpu = get("cpu");

  g_assert_true(a == b);
  g_assert_true(a != cpu);
  g_assert_cmpstr(osr_device_get_name(a), ==, "ref");
  g_assert_cmpstr(osr_device_get_name(cpu), ==, "cpu");
  g_assert_true(osr_device_is_host(a));
  g_assert_true(osr_device_is_host(cpu));
  g_assert_cmpint(osr_device_get_dtype(cpu), ==, OSR_DTYPE_F32);
  g_assert_true(osr_device_supports_dtype(cpu, OSR_DTYPE_F32));
  g_assert_false(osr_device_supports_dtype(cpu, OSR_DTYPE_I64));
}

/* The registry holds no references: a device that nobody uses is closed. */
static void
test_weak(void)
{
  OsrDevice *device = get("ref");
  OsrPoolStats stats;

  osr_pool_set_limit(osr_device_get_pool(device), 12345);
  osr_device_unref(device);

  device = get("ref");
  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  g_assert_cmpuint(stats.limit, ==, 0);
  osr_device_unref(device);
}

static void
test_unknown(void)
{
  static const char *const names[] = { "", "gpu", "cuda", "cuda:", "cuda:-1", "cuda:1x", "CPU" };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++)
    assert_no_device(names[i], "the names are");
}

static void
test_missing_module_fresh(void)
{
  g_autoptr(OsrDevice) device = NULL;

  assert_no_device("cuda:0", "did not load");
  device = get("auto");
  g_assert_cmpstr(osr_device_get_name(device), ==, "cpu");
}

static void
test_missing_module(void)
{
  g_autofree char *folder = g_dir_make_tmp("opensora-XXXXXX", NULL);
  g_autofree char *file = g_build_filename(folder, "libopensora-cuda.so", NULL);

  g_assert_true(g_file_set_contents(file, "not a library", -1, NULL));
  run_fresh("/device/missing-module/subprocess/run", "OPENSORA_MODULE_PATH", folder);
  g_unlink(file);
  g_rmdir(folder);
}

static void
test_other_abi_fresh(void)
{
  assert_no_device("cuda:0", "version 77");
}

static void
test_other_abi(void)
{
  run_fresh("/device/other-abi/subprocess/run", "FAKE_CUDA_ABI", "77");
}

static GLogWriterOutput
find_reason(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer told)
{
  for (gsize i = 0; i < n; i++)
    if (g_str_equal(fields[i].key, "MESSAGE") && (level & G_LOG_LEVEL_DEBUG) &&
        strstr(fields[i].value, "the fake driver is asleep"))
      *(gboolean *) told = TRUE;
  return G_LOG_WRITER_HANDLED;
}

static void
test_no_gpu_fresh(void)
{
  g_autoptr(OsrDevice) device = NULL;
  gboolean told = FALSE;

  assert_no_device("cuda:0", "the fake driver is asleep");
  g_log_set_writer_func(find_reason, &told, NULL);
  device = get("auto");
  g_assert_true(told);
  g_assert_cmpstr(osr_device_get_name(device), ==, "cpu");
}

static void
test_no_gpu(void)
{
  run_fresh("/device/no-gpu/subprocess/run", "FAKE_CUDA_DEVICES", "0");
}

static void
test_broken_gpu_fresh(void)
{
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_device_get("cuda:1", &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_DEVICE);
  g_assert_nonnull(strstr(error->message, "fake device 1 is broken"));
}

static void
test_broken_gpu(void)
{
  run_fresh("/device/broken-gpu/subprocess/run", "FAKE_CUDA_BROKEN", "1");
}

static void
test_gpu(void)
{
  g_autoptr(OsrDevice) automatic = get("auto");
  g_autoptr(OsrDevice) first = get("cuda:0");
  g_autoptr(OsrDevice) also_first = get("cuda:00");
  g_autoptr(OsrDevice) second = get("cuda:1");

  g_assert_true(automatic == first);
  g_assert_true(also_first == first);
  g_assert_true(second != first);
  g_assert_cmpstr(osr_device_get_name(second), ==, "cuda:1");
  g_assert_false(osr_device_is_host(first));
  g_assert_cmpint(osr_device_get_dtype(first), ==, OSR_DTYPE_BF16);
  assert_no_device("cuda:2", "'cuda:1'");
}

static void
assert_values(OsrTensor *tensor, const float *want, gsize size)
{
  g_autofree float *got = g_malloc(size);
  g_autoptr(GError) error = NULL;

  g_assert_true(osr_tensor_download(tensor, got, size, &error));
  g_assert_no_error(error);
  g_assert_cmpmem(got, size, want, size);
}

/* A tensor's way over all pairs of devices, changing its type on the way. */
static void
test_convert(void)
{
  static const float values[6] = { 0, 1, -2, 0.5f, 96, -3 };
  static const gint64 dims[] = { 2, 3 };
  static const char *const names[] = { "ref", "cuda:0", "cuda:1", "cpu" };
  g_autoptr(GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    for (guint j = 0; j < G_N_ELEMENTS(names); j++) {
      g_autoptr(OsrDevice) from = get(names[i]);
      g_autoptr(OsrDevice) to = get(names[j]);
      g_autoptr(OsrTensor) a = NULL, b = NULL, c = NULL;

      a = osr_tensor_new_from_host(from, OSR_DTYPE_F32, 2, dims, values, &error);
      g_assert_no_error(error);
      b = osr_tensor_convert(a, to, OSR_DTYPE_BF16, &error);
      g_assert_no_error(error);
      g_assert_true(b->device == to);
      g_assert_cmpint(b->dtype, ==, OSR_DTYPE_BF16);
      g_assert_cmpuint(b->size, ==, 12);
      g_assert_cmpint(b->dims[1], ==, 3);
      c = osr_tensor_convert(b, from, OSR_DTYPE_F32, &error);
      g_assert_no_error(error);
      g_assert_true(c->device == from);
      assert_values(c, values, sizeof values);
      g_clear_pointer(&c, osr_tensor_unref);
      c = osr_tensor_convert(a, to, OSR_DTYPE_F32, &error);
      g_assert_no_error(error);
      g_assert_true((c == a) == (from == to));
      assert_values(c, values, sizeof values);
    }
  }
}

static void
test_unsupported(void)
{
  g_autoptr(OsrDevice) gpu = get("cuda:0");
  g_autoptr(OsrTensor) tensor = osr_tensor_make(gpu, OSR_DTYPE_F32, NULL, 4, -1);
  g_autoptr(GError) error = NULL;

  g_assert_true(osr_tensor_zero(tensor, NULL));
  g_assert_null(osr_tensor_convert(tensor, gpu, OSR_DTYPE_F64, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED);
  g_assert_nonnull(strstr(error->message, "F32 to F64"));
  g_assert_nonnull(strstr(error->message, "the fake converts"));
  g_assert_nonnull(strstr(error->message, "cuda:0"));
}

static void
test_check(void)
{
  static const struct {
    OsrResult result;
    OsrError code;
  } cases[] = {
    { OSR_ERR_INVALID, OSR_ERROR_INVALID_ARGUMENT },
    { OSR_ERR_UNSUPPORTED, OSR_ERROR_UNSUPPORTED },
    { OSR_ERR_MEMORY, OSR_ERROR_MEMORY },
    { OSR_ERR_DEVICE, OSR_ERROR_DEVICE },
    { (OsrResult) -99, OSR_ERROR_FAILED },
  };
  g_autoptr(OsrDevice) device = get("ref");
  OsrOpsContext *ctx = osr_device_get_context(device);
  g_autoptr(GError) error = NULL;

  g_assert_true(osr_device_check(device, OSR_OK, "nothing", &error));
  g_assert_no_error(error);
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_snprintf(ctx->error, sizeof ctx->error, "reason %u", i);
    g_assert_false(osr_device_check(device, cases[i].result, "block 3", &error));
    g_assert_error(error, OSR_ERROR, (int) cases[i].code);
    g_assert_true(g_str_has_prefix(error->message, "block 3: reason "));
    g_assert_cmpint(ctx->error[0], ==, '\0');
    g_clear_error(&error);
  }

  /* Scratch memory counts against the pool, and the pool's words reach the caller. */
  osr_pool_set_limit(osr_device_get_pool(device), 4096);
  g_assert_null(ctx->scratch_alloc(ctx->user, 1 << 20));
  g_assert_false(osr_device_check(device, OSR_ERR_MEMORY, "block 4", &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  g_assert_nonnull(strstr(error->message, "1.0"));
  g_assert_nonnull(strstr(error->message, "limit 4.0"));
}

/* Asked for under one lock, and not under the next. */
static void
test_unasked(void)
{
  g_autoptr(OsrDevice) device = get("ref");
  OsrOpsContext *ctx = osr_device_get_context(device);
  g_autoptr(GError) error = NULL;

  osr_device_lock(device);
  osr_device_lock(device);
  g_assert_null(ctx->scratch_alloc(ctx->user, G_MAXSIZE));
  g_strlcpy(ctx->error, "nobody asked", sizeof ctx->error);
  osr_device_unlock(device);
  osr_device_lock(device);
  g_assert_cmpstr(ctx->error, ==, "nobody asked");
  osr_device_unlock(device);
  osr_device_unlock(device);

  osr_device_lock(device);
  g_assert_false(osr_device_check(device, OSR_ERR_MEMORY, "block 5", &error));
  osr_device_unlock(device);
  g_assert_cmpstr(error->message, ==, "block 5: no reason given (device ref)");
}

static OsrResult
refuse_to_open(OsrOpsContext *ctx, int index)
{
  g_snprintf(ctx->error, sizeof ctx->error, "no threads left for %d", index);
  return OSR_ERR_MEMORY;
}

static void
assert_works(OsrDevice *device)
{
  g_autoptr(OsrTensor) tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 4, -1);
  g_autoptr(OsrTensor) other = NULL;
  g_autoptr(GError) error = NULL;

  g_assert_true(osr_tensor_zero(tensor, &error));
  other = osr_tensor_convert(tensor, device, OSR_DTYPE_BF16, &error);
  g_assert_no_error(error);
  g_assert_nonnull(other);
}

static void
test_n_threads(void)
{
  static const int wrong[] = { -1, OSR_DEVICE_MAX_THREADS + 1, G_MAXINT };
  g_autoptr(OsrDevice) cpu = get("cpu");
  g_autoptr(OsrDevice) gpu = get("cuda:0");
  OsrOpsContext *ctx = osr_device_get_context(cpu);
  const OsrBackend *backend = ctx->backend;
  OsrBackend broken = *backend;
  g_autoptr(GError) error = NULL;
  gpointer impl;

  g_assert_true(osr_device_set_threads(cpu, 3, &error));
  g_assert_cmpint(ctx->n_threads, ==, 3);
  assert_works(cpu);
  for (guint i = 0; i < G_N_ELEMENTS(wrong); i++) {
    g_assert_false(osr_device_set_threads(cpu, wrong[i], &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
    g_assert_nonnull(strstr(error->message, "1 to 1024"));
    g_clear_error(&error);
  }

  /* Without memory for others it keeps those it has. */
  broken.open = refuse_to_open;
  ctx->backend = &broken;
  impl = ctx->impl;
  g_assert_false(osr_device_set_threads(cpu, 7, &error));
  ctx->backend = backend;
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  g_assert_cmpstr(error->message, ==, "cpu cannot have 7 threads: no threads left for 0");
  g_assert_cmpint(ctx->n_threads, ==, 3);
  g_assert_true(ctx->impl == impl);
  assert_works(cpu);

  g_clear_error(&error);
  g_assert_true(osr_device_set_threads(cpu, OSR_DEVICE_MAX_THREADS, &error));
  g_assert_true(osr_device_set_threads(cpu, 0, &error));
  g_assert_cmpint(ctx->n_threads, ==, 0);
  assert_works(cpu);
  impl = osr_device_get_context(gpu)->impl;
  g_assert_true(osr_device_set_threads(gpu, 2, &error));
  g_assert_true(osr_device_get_context(gpu)->impl == impl);
}

static void
test_memory(void)
{
  static const char *const names[] = { "cpu", "ref", "cuda:0" };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autoptr(OsrDevice) device = get(names[i]);
    guint64 free_bytes = 0, total = 0, again = 0;
    g_autoptr(GError) error = NULL;

    g_assert_true(osr_device_get_memory(device, &free_bytes, &total, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(free_bytes, >, 0);
    g_assert_cmpuint(free_bytes, <=, total);
    g_assert_true(osr_device_get_memory(device, NULL, &again, NULL));
    g_assert_cmpuint(again, ==, total);
    g_assert_true(osr_device_get_memory(device, &free_bytes, NULL, NULL));
  }
}

/* The lock */

typedef struct {
  OsrFairLock lock;
  guint order[16], n; /* who had it; of the owner */
} Queue;

typedef struct {
  Queue *queue;
  guint id;
  GCancellable *cancellable;
  GThread *thread;
  gboolean taken;
  GError *error;
} Visitor;

static gpointer
visit(gpointer data)
{
  Visitor *v = data;

  v->taken = osr_fair_lock_take(&v->queue->lock, v->cancellable, &v->error);
  if (v->taken) {
    v->queue->order[v->queue->n++] = v->id;
    osr_fair_lock_give(&v->queue->lock);
  }
  return NULL;
}

/* Threads that wait in the order of their numbers. */
static void
start_visitors(Queue *queue, Visitor *visitors, guint n)
{
  for (guint i = 0; i < n; i++) {
    visitors[i] = (Visitor){ .queue = queue, .id = i, .cancellable = g_cancellable_new() };
    visitors[i].thread = g_thread_new("visitor", visit, &visitors[i]);
    while (osr_fair_lock_n_waiters(&queue->lock) <= i)
      g_thread_yield();
  }
}

static void
visitor_clear(Visitor *v)
{
  g_object_unref(v->cancellable);
  g_clear_error(&v->error);
}

/* Whoever gives it back and wants it again has to wait for those who came before. */
static void
test_lock_order(void)
{
  Queue queue = { 0 };
  Visitor visitors[6];

  osr_fair_lock_init(&queue.lock);
  g_assert_true(osr_fair_lock_take(&queue.lock, NULL, NULL));
  g_assert_true(osr_fair_lock_take(&queue.lock, NULL, NULL));
  start_visitors(&queue, visitors, G_N_ELEMENTS(visitors));
  osr_fair_lock_give(&queue.lock);
  g_assert_true(osr_fair_lock_is_outermost(&queue.lock));
  g_assert_cmpuint(osr_fair_lock_n_waiters(&queue.lock), ==, G_N_ELEMENTS(visitors));

  osr_fair_lock_give(&queue.lock);
  g_assert_true(osr_fair_lock_take(&queue.lock, NULL, NULL));
  g_assert_cmpuint(queue.n, ==, G_N_ELEMENTS(visitors));
  for (guint i = 0; i < G_N_ELEMENTS(visitors); i++)
    g_assert_cmpuint(queue.order[i], ==, i);
  osr_fair_lock_give(&queue.lock);
  for (guint i = 0; i < G_N_ELEMENTS(visitors); i++) {
    g_thread_join(visitors[i].thread);
    visitor_clear(&visitors[i]);
  }
  osr_fair_lock_clear(&queue.lock);
}

/* Who is cancelled leaves the queue at once, while somebody else has the lock. */
static void
test_lock_cancel(void)
{
  Queue queue = { 0 };
  Visitor visitors[4];

  osr_fair_lock_init(&queue.lock);
  g_assert_true(osr_fair_lock_take(&queue.lock, NULL, NULL));
  start_visitors(&queue, visitors, G_N_ELEMENTS(visitors));
  for (guint i = 0; i < G_N_ELEMENTS(visitors); i += 2) {
    g_cancellable_cancel(visitors[i].cancellable);
    g_thread_join(visitors[i].thread);
    g_assert_false(visitors[i].taken);
    g_assert_error(visitors[i].error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  }
  g_assert_cmpuint(osr_fair_lock_n_waiters(&queue.lock), ==, 2);
  osr_fair_lock_give(&queue.lock);
  g_thread_join(visitors[1].thread);
  g_thread_join(visitors[3].thread);
  g_assert_cmpuint(queue.n, ==, 2);
  g_assert_cmpuint(queue.order[0], ==, 1);
  g_assert_cmpuint(queue.order[1], ==, 3);

  /* Cancelled before, though it is there to be had. */
  g_assert_false(osr_fair_lock_take(&queue.lock, visitors[0].cancellable, NULL));
  g_assert_true(osr_fair_lock_take(&queue.lock, visitors[1].cancellable, NULL));
  osr_fair_lock_give(&queue.lock);
  for (guint i = 0; i < G_N_ELEMENTS(visitors); i++)
    visitor_clear(&visitors[i]);
  osr_fair_lock_clear(&queue.lock);
}

/* Many at a time, some of them cancelled in any moment. */
typedef struct {
  OsrFairLock *lock;
  GCancellable *cancellable;
  guint *counter; /* of the owner */
  guint n_taken;
} Worker;

static gpointer
work(gpointer data)
{
  Worker *w = data;

  for (guint i = 0; i < 2000 && osr_fair_lock_take(w->lock, w->cancellable, NULL); i++) {
    w->n_taken++;
    (*w->counter)++;
    osr_fair_lock_give(w->lock);
  }
  return NULL;
}

static void
test_lock_crowd(void)
{
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  GThread *threads[6];
  Worker workers[6];
  OsrFairLock lock;
  guint counter = 0, sum = 0;

  osr_fair_lock_init(&lock);
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
    workers[i] =
        (Worker){ .lock = &lock, .cancellable = i < 3 ? cancellable : NULL, .counter = &counter };
    threads[i] = g_thread_new("worker", work, &workers[i]);
  }
  g_usleep(2000);
  g_cancellable_cancel(cancellable);
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
    g_thread_join(threads[i]);
    sum += workers[i].n_taken;
    if (i >= 3)
      g_assert_cmpuint(workers[i].n_taken, ==, 2000);
  }
  g_assert_cmpuint(counter, ==, sum);
  g_assert_cmpuint(osr_fair_lock_n_waiters(&lock), ==, 0);
  osr_fair_lock_clear(&lock);
}

static gpointer
open_and_close(gpointer data)
{
  for (guint i = 0; i < 200; i++) {
    g_autoptr(OsrDevice) device = get(data);
    g_autoptr(OsrTensor) tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 10, -1);

    g_assert_cmpstr(osr_device_get_name(device), ==, data);
    g_clear_pointer(&device, osr_device_unref);
    g_assert_true(osr_tensor_zero(tensor, NULL));
  }
  return NULL;
}

static void
test_threads(void)
{
  static const char *const names[] = { "ref", "cuda:0", "ref", "cuda:0" };
  GThread *threads[G_N_ELEMENTS(names)];

  for (guint i = 0; i < G_N_ELEMENTS(names); i++)
    threads[i] = g_thread_new(names[i], open_and_close, (gpointer) names[i]);
  for (guint i = 0; i < G_N_ELEMENTS(names); i++)
    g_thread_join(threads[i]);
}

static void
test_boxed(void)
{
  g_autoptr(OsrDevice) device = get("ref");
  GValue value = G_VALUE_INIT;

  g_value_init(&value, OSR_TYPE_DEVICE);
  g_value_set_boxed(&value, device);
  g_assert_true(g_value_get_boxed(&value) == device);
  g_value_unset(&value);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/device/shared", test_shared);
  g_test_add_func("/device/weak", test_weak);
  g_test_add_func("/device/unknown", test_unknown);
  g_test_add_func("/device/missing-module", test_missing_module);
  g_test_add_func("/device/missing-module/subprocess/run", test_missing_module_fresh);
  g_test_add_func("/device/other-abi", test_other_abi);
  g_test_add_func("/device/other-abi/subprocess/run", test_other_abi_fresh);
  g_test_add_func("/device/no-gpu", test_no_gpu);
  g_test_add_func("/device/no-gpu/subprocess/run", test_no_gpu_fresh);
  g_test_add_func("/device/broken-gpu", test_broken_gpu);
  g_test_add_func("/device/broken-gpu/subprocess/run", test_broken_gpu_fresh);
  g_test_add_func("/device/gpu", test_gpu);
  g_test_add_func("/device/convert", test_convert);
  g_test_add_func("/device/unsupported", test_unsupported);
  g_test_add_func("/device/check", test_check);
  g_test_add_func("/device/unasked", test_unasked);
  g_test_add_func("/device/n-threads", test_n_threads);
  g_test_add_func("/device/memory", test_memory);
  g_test_add_func("/device/lock/order", test_lock_order);
  g_test_add_func("/device/lock/cancel", test_lock_cancel);
  g_test_add_func("/device/lock/crowd", test_lock_crowd);
  g_test_add_func("/device/threads", test_threads);
  g_test_add_func("/device/boxed", test_boxed);
  return g_test_run();
}
