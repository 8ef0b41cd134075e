/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "device.h"

#include <dlfcn.h>
#include <gmodule.h>
#include <string.h>

#include "device-private.h"
#include "error.h"
#include "fair-lock.h"
#include "log-private.h"

#define MODULE_FILE "libopensora-cuda." G_MODULE_SUFFIX

/* What a host pool keeps for reuse. malloc() is quick, so beyond the sizes that a model asks
 * for over and over, memory is worth more to the rest of the system. */
#define HOST_CACHE (G_GUINT64_CONSTANT(256) << 20)

struct _OsrDevice {
  gint ref_count;
  char *name;
  gboolean is_host;
  OsrDType dtype;
  OsrOpsContext ctx;
  OsrPool *pool;
  OsrFairLock lock;    /* of ctx, but for what device-private.h says */
  char *scratch_error; /* why the last scratch_alloc failed, for osr_device_check() */
  gint failed;         /* atomic: the device has, and somebody has been told so */
};

G_DEFINE_BOXED_TYPE(OsrDevice, osr_device, osr_device_ref, osr_device_unref)

/* Opening and closing a GPU takes long, so it has a lock of its own; the list's is held for
 * moments. */
static GMutex open_lock, devices_lock;
static GSList *devices; /* OsrDevice, without references */

static OsrDevice *
find_device(const char *name)
{
  OsrDevice *found = NULL;

  g_mutex_lock(&devices_lock);
  for (GSList *l = devices; l && !found; l = l->next) {
    OsrDevice *device = l->data;

    if (g_str_equal(device->name, name))
      found = osr_device_ref(device);
  }
  g_mutex_unlock(&devices_lock);
  return found;
}

OsrDevice *
osr_device_ref(OsrDevice *device)
{
  g_return_val_if_fail(device != NULL, NULL);
  g_atomic_int_inc(&device->ref_count);
  return device;
}

/* Nobody else has the device any more, so nothing here needs its lock. */
static void
close_device(OsrDevice *device)
{
  if (device->ctx.backend->synchronize(&device->ctx) != OSR_OK) {
    if (g_atomic_int_get(&device->failed))
      osr_debug("closing %s: %s", device->name, device->ctx.error);
    else
      g_warning("%s: %s", device->name, device->ctx.error);
  }
  osr_pool_free(device->pool);
  device->ctx.backend->close(&device->ctx);
  osr_fair_lock_clear(&device->lock);
  g_free(device->scratch_error);
  g_free(device->name);
  g_free(device);
}

/* FALSE if it may be the last reference, which is still there then. */
static gboolean
unref_one_of_many(OsrDevice *device)
{
  gint n = g_atomic_int_get(&device->ref_count);

  while (n > 1 && !g_atomic_int_compare_and_exchange(&device->ref_count, n, n - 1))
    n = g_atomic_int_get(&device->ref_count);
  return n > 1;
}

void
osr_device_unref(OsrDevice *device)
{
  gboolean last;

  if (!device || unref_one_of_many(device))
    return;
  /* A GPU is not opened while it is being closed: a lost one is reset then, for all. */
  g_mutex_lock(&open_lock);
  /* Under the list's lock, so that find_device() never revives a device that is going away. */
  g_mutex_lock(&devices_lock);
  last = g_atomic_int_dec_and_test(&device->ref_count);
  if (last)
    devices = g_slist_remove(devices, device);
  g_mutex_unlock(&devices_lock);
  if (last)
    close_device(device);
  g_mutex_unlock(&open_lock);
}

/* Called by ops, with the lock held. */
static void *
scratch_alloc(void *user, size_t size)
{
  OsrDevice *device = user;
  g_autoptr(GError) error = NULL;
  gpointer ptr = osr_pool_alloc(device->pool, size, &error);

  if (!ptr) {
    g_free(device->scratch_error);
    device->scratch_error = g_strdup(error->message);
  }
  return ptr;
}

static void
scratch_free(void *user, void *ptr, size_t size)
{
  OsrDevice *device = user;

  osr_pool_release(device->pool, ptr, size);
}

static OsrDType
default_dtype(const OsrBackend *backend, gboolean is_host)
{
  if (!is_host && (backend->dtypes & (1u << OSR_DTYPE_BF16)))
    return OSR_DTYPE_BF16;
  if (!is_host && (backend->dtypes & (1u << OSR_DTYPE_F16)))
    return OSR_DTYPE_F16;
  return OSR_DTYPE_F32;
}

static OsrDevice *
new_device(const OsrBackend *backend, const char *name, int index, gboolean is_host,
           guint n_threads, GError **error)
{
  OsrDevice *device = g_new0(OsrDevice, 1);

  device->ctx.backend = backend;
  device->ctx.scratch_alloc = scratch_alloc;
  device->ctx.scratch_free = scratch_free;
  device->ctx.user = device;
  device->ctx.n_threads = (int) n_threads;
  device->pool = osr_pool_new(&device->ctx);
  if (backend->open(&device->ctx, index) != OSR_OK) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_DEVICE, "cannot open device '%s': %s", name,
                device->ctx.error[0] ? device->ctx.error : "no reason given");
    osr_pool_free(device->pool);
    g_free(device);
    return NULL;
  }
  device->ref_count = 1;
  device->name = g_strdup(name);
  device->is_host = is_host;
  device->dtype = default_dtype(backend, is_host);
  osr_fair_lock_init(&device->lock);
  if (is_host)
    osr_pool_set_trim_threshold(device->pool, HOST_CACHE);
  return device;
}

OsrDevice *
osr_device_open_alone(const OsrBackend *backend, guint n_threads, GError **error)
{
  return new_device(backend, backend->name, 0, FALSE, n_threads, error);
}

static OsrDevice *
open_device(const OsrBackend *backend, const char *name, int index, gboolean is_host,
            GError **error)
{
  OsrDevice *device = new_device(backend, name, index, is_host, 0, error);

  if (!device)
    return NULL;
  g_mutex_lock(&devices_lock);
  devices = g_slist_prepend(devices, device);
  g_mutex_unlock(&devices_lock);
  return device;
}

/* The folder that this library was loaded from, NULL if the linker does not say. */
static char *
library_dir(void)
{
  Dl_info info;

  if (!dladdr((void *) osr_device_get, &info) || !info.dli_fname)
    return NULL;
  return g_path_get_dirname(info.dli_fname);
}

/* A module that is there but does not load is reported at once: another copy further down
 * the path would only hide what is wrong with this one. */
static GModule *
load_module(GError **error)
{
  const char *folders = g_getenv("OPENSORA_MODULE_PATH");
  g_auto(GStrv) listed = g_strsplit(folders ? folders : "", G_SEARCHPATH_SEPARATOR_S, -1);
  g_autofree char *own = library_dir();
  g_autofree char *path = NULL;
  GModule *module;

  for (guint i = 0; listed[i] && !path; i++) {
    path = g_build_filename(listed[i], MODULE_FILE, NULL);
    if (!*listed[i] || !g_file_test(path, G_FILE_TEST_EXISTS))
      g_clear_pointer(&path, g_free);
  }
  if (!path && own) {
    path = g_build_filename(own, MODULE_FILE, NULL);
    if (!g_file_test(path, G_FILE_TEST_EXISTS))
      g_clear_pointer(&path, g_free);
  }
  module = g_module_open(path ? path : MODULE_FILE, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
  if (!module)
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "the CUDA module did not load: %s",
                g_module_error());
  return module;
}

/* The CUDA backend, loaded once and never unloaded (CUDA does not survive that). Called
 * with open_lock held. */
static const OsrBackend *
cuda_backend(GError **error)
{
  static const OsrBackend *loaded;
  const OsrBackend *backend;
  GModule *module;
  gpointer symbol;

  if (loaded)
    return loaded;
  module = load_module(error);
  if (!module)
    return NULL;
  if (!g_module_symbol(module, "osr_backend_module", &symbol)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "%s is no backend module: %s",
                g_module_name(module), g_module_error());
    g_module_close(module);
    return NULL;
  }
  backend = ((OsrBackendModule) symbol)();
  if (!backend || backend->abi != OSR_OPS_ABI) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "%s was built for version %u of the operations, this library has %u",
                g_module_name(module), backend ? backend->abi : 0, OSR_OPS_ABI);
    g_module_close(module);
    return NULL;
  }
  g_module_make_resident(module);
  osr_debug("loaded %s", g_module_name(module));
  loaded = backend;
  return loaded;
}

static int
count_gpus(const OsrBackend **backend, GError **error)
{
  char why[256] = "";
  int n;

  *backend = cuda_backend(error);
  if (!*backend)
    return 0;
  n = (*backend)->device_count(why, sizeof why);
  if (n <= 0)
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "no CUDA device: %s",
                why[0] ? why : "no reason given");
  return MAX(n, 0);
}

static OsrDevice *
get_cuda(const char *name, guint64 index, GError **error)
{
  const OsrBackend *backend;
  OsrDevice *device = find_device(name);
  int n;

  if (device)
    return device;
  n = count_gpus(&backend, error);
  if (n == 0) {
    g_prefix_error(error, "no device '%s': ", name);
    return NULL;
  }
  if (index >= (guint64) n) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "no device '%s': the last of the %d CUDA devices is 'cuda:%d'", name, n, n - 1);
    return NULL;
  }
  return open_device(backend, name, (int) index, FALSE, error);
}

static OsrDevice *
get_host(const OsrBackend *backend, GError **error)
{
  OsrDevice *device = find_device(backend->name);

  return device ? device : open_device(backend, backend->name, 0, TRUE, error);
}

static OsrDevice *
get_auto(GError **error)
{
  g_autoptr(GError) why = NULL;
  OsrDevice *device = get_cuda("cuda:0", 0, &why);

  if (device)
    return device;
  if (g_error_matches(why, OSR_ERROR, OSR_ERROR_NOT_FOUND))
    osr_debug("using the CPU: %s", why->message);
  else
    g_warning("using the CPU: %s", why->message);
  return get_host(&osr_backend_cpu, error);
}

OsrDevice *
osr_device_get(const char *name, GError **error)
{
  OsrDevice *device = NULL;
  guint64 index;

  g_return_val_if_fail(name != NULL, NULL);

  g_mutex_lock(&open_lock);
  if (g_str_equal(name, "auto")) {
    device = get_auto(error);
  } else if (g_str_equal(name, "cpu")) {
    device = get_host(&osr_backend_cpu, error);
  } else if (g_str_equal(name, "ref")) {
    device = get_host(&osr_backend_ref, error);
  } else if (g_str_has_prefix(name, "cuda:") &&
             g_ascii_string_to_unsigned(name + 5, 10, 0, G_MAXINT, &index, NULL)) {
    /* "cuda:00" is "cuda:0": one device, one name. */
    g_autofree char *canonical = g_strdup_printf("cuda:%" G_GUINT64_FORMAT, index);

    device = get_cuda(canonical, index, error);
  } else {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "no device '%s': the names are 'auto', 'cpu', 'cuda:N' and 'ref'", name);
  }
  g_mutex_unlock(&open_lock);
  return device;
}

const char *
osr_device_get_name(OsrDevice *device)
{
  return device->name;
}

gboolean
osr_device_is_host(OsrDevice *device)
{
  return device->is_host;
}

OsrPool *
osr_device_get_pool(OsrDevice *device)
{
  return device->pool;
}

OsrDType
osr_device_get_dtype(OsrDevice *device)
{
  return device->dtype;
}

gboolean
osr_device_supports_dtype(OsrDevice *device, OsrDType dtype)
{
  return (guint) dtype < OSR_N_DTYPES && (device->ctx.backend->dtypes & (1u << dtype)) != 0;
}

gboolean
osr_device_set_threads(OsrDevice *device, int n_threads, GError **error)
{
  OsrOpsContext *ctx = &device->ctx, other = { .n_threads = n_threads };
  gboolean ok = TRUE;

  if (n_threads < 0 || n_threads > OSR_DEVICE_MAX_THREADS) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "%d threads are not possible: 1 to %d are, or 0 for all there are", n_threads,
                OSR_DEVICE_MAX_THREADS);
    return FALSE;
  }
  osr_device_lock(device);
  /* A backend makes its threads when it is opened. The one in use is closed when the other is
   * there, and lends its place. */
  if (device->is_host && n_threads != ctx->n_threads) {
    ok = ctx->backend->open(&other, 0) == OSR_OK;
    if (ok) {
      gpointer impl = ctx->impl;

      g_atomic_pointer_set(&ctx->impl, other.impl);
      ctx->n_threads = n_threads;
      other.impl = impl;
      ctx->backend->close(&other);
    } else {
      g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY, "%s cannot have %d threads: %s", device->name,
                  n_threads, osr_context_reason(&other));
    }
  }
  osr_device_unlock(device);
  return ok;
}

OsrOpsContext *
osr_device_get_context(OsrDevice *device)
{
  return &device->ctx;
}

const OsrOps *
osr_device_get_ops(OsrDevice *device)
{
  return &device->ctx.backend->ops;
}

/* Of a failure that somebody did not ask about. */
static void
forget_failure(OsrDevice *device)
{
  device->ctx.error[0] = '\0';
  g_clear_pointer(&device->scratch_error, g_free);
}

gboolean
osr_device_lock_cancellable(OsrDevice *device, GCancellable *cancellable, GError **error)
{
  if (!osr_fair_lock_take(&device->lock, cancellable, error))
    return FALSE;
  if (osr_fair_lock_is_outermost(&device->lock))
    forget_failure(device);
  return TRUE;
}

void
osr_device_lock(OsrDevice *device)
{
  osr_device_lock_cancellable(device, NULL, NULL);
}

void
osr_device_unlock(OsrDevice *device)
{
  osr_fair_lock_give(&device->lock);
}

guint
osr_device_n_waiters(OsrDevice *device)
{
  return osr_fair_lock_n_waiters(&device->lock);
}

static int
error_code(OsrResult result)
{
  switch (result) {
  case OSR_ERR_INVALID:
    return OSR_ERROR_INVALID_ARGUMENT;
  case OSR_ERR_UNSUPPORTED:
    return OSR_ERROR_UNSUPPORTED;
  case OSR_ERR_MEMORY:
    return OSR_ERROR_MEMORY;
  case OSR_ERR_DEVICE:
    return OSR_ERROR_DEVICE;
  default:
    return OSR_ERROR_FAILED;
  }
}

/* @ctx: the one that the call was made on. */
static gboolean
check_call(OsrDevice *device, const OsrOpsContext *ctx, OsrResult result, const char *what,
           GError **error)
{
  if (result == OSR_OK)
    return TRUE;
  g_set_error(error, OSR_ERROR, error_code(result), "%s: %s (device %s)", what,
              osr_context_reason(ctx), device->name);
  if (result == OSR_ERR_DEVICE)
    g_atomic_int_set(&device->failed, TRUE);
  return FALSE;
}

gboolean
osr_device_check(OsrDevice *device, OsrResult result, const char *what, GError **error)
{
  if (result == OSR_OK)
    return TRUE;
  if (result == OSR_ERR_MEMORY && device->scratch_error)
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY, "%s: %s (%s)", what,
                osr_context_reason(&device->ctx), device->scratch_error);
  else
    check_call(device, &device->ctx, result, what, error);
  /* Neither may turn up in the message of a later failure. */
  forget_failure(device);
  return FALSE;
}

gboolean
osr_device_get_memory(OsrDevice *device, guint64 *free_bytes, guint64 *total, GError **error)
{
  OsrOpsContext ctx = osr_context_for_call(&device->ctx);
  size_t n_free = 0, n_total = 0;

  if (!check_call(device, &ctx, ctx.backend->mem_info(&ctx, &n_free, &n_total),
                  "asking for the device's memory", error))
    return FALSE;
  if (free_bytes)
    *free_bytes = n_free;
  if (total)
    *total = n_total;
  return TRUE;
}

gboolean
osr_device_synchronize(OsrDevice *device, GError **error)
{
  OsrOpsContext ctx = osr_context_for_call(&device->ctx);

  return check_call(device, &ctx, ctx.backend->synchronize(&ctx), "waiting for the device", error);
}

gboolean
osr_device_mark(OsrDevice *device, guint64 *mark, GError **error)
{
  uint64_t number = 0;
  gboolean ok;

  osr_device_lock(device);
  ok = osr_device_check(device, device->ctx.backend->mark(&device->ctx, &number),
                        "marking the work of the device", error);
  osr_device_unlock(device);
  *mark = number;
  return ok;
}

gboolean
osr_device_wait(OsrDevice *device, guint64 mark, const char *what, GError **error)
{
  OsrOpsContext ctx = osr_context_for_call(&device->ctx);

  return check_call(device, &ctx, ctx.backend->wait(&ctx, mark), what, error);
}

static gboolean
copy(OsrDevice *device, OsrCopy kind, gpointer dst, gconstpointer src, gsize size, const char *what,
     GError **error)
{
  OsrOpsContext ctx = osr_context_for_call(&device->ctx);

  if (size == 0)
    return TRUE;
  if (!check_call(device, &ctx, ctx.backend->copy(&ctx, kind, dst, src, size), what, error))
    return FALSE;
  osr_count_copy(&device->ctx, kind, size);
  return TRUE;
}

gboolean
osr_device_upload(OsrDevice *device, gpointer dst, gconstpointer src, gsize size, GError **error)
{
  return copy(device, OSR_COPY_TO_DEVICE, dst, src, size, "copying to the device", error);
}

gboolean
osr_device_download(OsrDevice *device, gpointer dst, gconstpointer src, gsize size, GError **error)
{
  return copy(device, OSR_COPY_TO_HOST, dst, src, size, "copying from the device", error);
}

gboolean
osr_device_clear(OsrDevice *device, gpointer dst, gsize size, const char *what, GError **error)
{
  OsrOpsContext ctx = osr_context_for_call(&device->ctx);

  return size == 0 ||
         check_call(device, &ctx, ctx.backend->mem_set(&ctx, dst, 0, size), what, error);
}

void
osr_device_get_copies(OsrDevice *device, OsrDeviceCopies *copies)
{
  guint64 n[OSR_N_COPIES], bytes[OSR_N_COPIES];

  for (guint i = 0; i < OSR_N_COPIES; i++) {
    n[i] = __atomic_load_n(&device->ctx.n_copies[i], __ATOMIC_RELAXED);
    bytes[i] = __atomic_load_n(&device->ctx.copied_bytes[i], __ATOMIC_RELAXED);
  }
  *copies = (OsrDeviceCopies){
    .to_device = n[OSR_COPY_TO_DEVICE],
    .to_host = n[OSR_COPY_TO_HOST],
    .on_device = n[OSR_COPY_ON_DEVICE],
    .bytes_to_device = bytes[OSR_COPY_TO_DEVICE],
    .bytes_to_host = bytes[OSR_COPY_TO_HOST],
    .bytes_on_device = bytes[OSR_COPY_ON_DEVICE],
  };
}
