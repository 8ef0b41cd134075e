/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "ops.h"
#include "pool.h"

G_BEGIN_DECLS

/**
 * OsrDevice:
 *
 * One CPU or one GPU: a backend's context, its memory pool and its table of operations.
 * Reference counted; osr_device_get() returns the same device for the same name while
 * anybody holds it, so elements share pools.
 *
 * Ops of one device must not run concurrently: osr_device_lock() is held around them. Models,
 * sampler and tensor functions take it themselves. The discipline:
 *  - It is held for one block of a model, one layer, one stage of an autoencoder at most, so
 *    that all who use a device take turns within a step; for longer only while a graph is
 *    recorded, which computes nothing. It goes to those who wait in the order of their coming.
 *  - Work that can be cancelled waits for it with its GCancellable.
 *  - Nobody waits for the device's work or calls back into the application with it held.
 *  - A failed op is asked about with osr_device_check() before the lock is given back.
 *  - What a model keeps from one forward to the next (tables of positions) belongs to the lock:
 *    a forward takes references to what it reads, as another may come between its blocks.
 *
 * Calls on a GPU enqueue work and return. The order of the calls is the order of the work,
 * whoever makes them, so results may be passed on and memory released without waiting.
 * A GPU may fail after the call that caused it: then all later calls on the device fail with
 * OSR_ERROR_DEVICE. Once everybody has dropped it, osr_device_get() opens it anew.
 */
typedef struct _OsrDevice OsrDevice;

#define OSR_TYPE_DEVICE (osr_device_get_type())
OSR_API GType osr_device_get_type(void);

/* @name: "auto" (first GPU, else CPU), "cpu", "cuda:N", or "ref" (plain C, for tests).
 * OSR_ERROR_NOT_FOUND if there is no such device, with the reason. (transfer full) */
OSR_API OsrDevice *osr_device_get(const char *name, GError **error);
OSR_API OsrDevice *osr_device_ref(OsrDevice *device);
OSR_API void osr_device_unref(OsrDevice *device);

/* "cpu", "cuda:0", ... */
OSR_API const char *osr_device_get_name(OsrDevice *device);
OSR_API gboolean osr_device_is_host(OsrDevice *device);
OSR_API OsrPool *osr_device_get_pool(OsrDevice *device);
/* The type that models compute in by default on this device: f32 on CPUs. */
OSR_API OsrDType osr_device_get_dtype(OsrDevice *device);
OSR_API gboolean osr_device_supports_dtype(OsrDevice *device, OsrDType dtype);
/* The most threads that CPU ops can be told to use. */
#define OSR_DEVICE_MAX_THREADS 1024

/* Threads that CPU ops use: 1 to OSR_DEVICE_MAX_THREADS, or 0 for all the process may use. On
 * failure the device works on with those it has. Nothing to a GPU. */
OSR_API gboolean osr_device_set_threads(OsrDevice *device, int n_threads, GError **error);

OSR_API OsrOpsContext *osr_device_get_context(OsrDevice *device);
OSR_API const OsrOps *osr_device_get_ops(OsrDevice *device);

/* Recursive, fair. */
OSR_API void osr_device_lock(OsrDevice *device);
/* FALSE with G_IO_ERROR_CANCELLED at once, without the lock, when @cancellable is cancelled
 * before or while it waits. */
OSR_API gboolean osr_device_lock_cancellable(OsrDevice *device, GCancellable *cancellable,
                                             GError **error);
OSR_API void osr_device_unlock(OsrDevice *device);

/* Bytes of memory that the device could still give, to any process, and all that it has; either
 * may be NULL. What the pool has cached is not free in this sense. Needs no lock. */
OSR_API gboolean osr_device_get_memory(OsrDevice *device, guint64 *free_bytes, guint64 *total,
                                       GError **error);

/* Waits for all work of the device. FALSE if any of it failed. Needs no lock and should hold
 * none. */
OSR_API gboolean osr_device_synchronize(OsrDevice *device, GError **error);

/* A GPU is given work much faster than it does it. A mark is a point in the order of its work
 * that can be waited for: osr_device_wait() returns when all that was enqueued before the mark
 * is done, FALSE if any of that failed. @what names that work, as in osr_device_check(). The
 * last OSR_MAX_MARKS marks are told apart, waiting for an older one may take longer. Waiting
 * needs no lock and holds none while it waits. On CPUs both return at once. */
OSR_API gboolean osr_device_mark(OsrDevice *device, guint64 *mark, GError **error);
OSR_API gboolean osr_device_wait(OsrDevice *device, guint64 mark, const char *what, GError **error);

/* Host bytes -> device memory and back, in order with the device's work. Both return when the
 * host side may be reused: a download has waited for all work before it then, an upload may
 * still be on its way. Neither needs the lock. */
OSR_API gboolean osr_device_upload(OsrDevice *device, gpointer dst, gconstpointer src, gsize size,
                                   GError **error);
OSR_API gboolean osr_device_download(OsrDevice *device, gpointer dst, gconstpointer src, gsize size,
                                     GError **error);
/* Fills device memory with zeros, likewise. @what: see osr_device_check(). */
OSR_API gboolean osr_device_clear(OsrDevice *device, gpointer dst, gsize size, const char *what,
                                  GError **error);

/**
 * OsrDeviceCopies:
 * @to_device, @to_host, @on_device: copies since the device was opened
 * @bytes_to_device, @bytes_to_host, @bytes_on_device: their bytes
 */
typedef struct {
  guint64 to_device, to_host, on_device;
  guint64 bytes_to_device, bytes_to_host, bytes_on_device;
} OsrDeviceCopies;

/* Counts of plain copies; what ops move is not among them. */
OSR_API void osr_device_get_copies(OsrDevice *device, OsrDeviceCopies *copies);

/* Turns an OsrResult of an op on @device into a GError: TRUE for OSR_OK. @what names the
 * caller's step ("mmdit: double block 3"). With the lock held under which the op was called: the
 * reason is gone once others have it. */
OSR_API gboolean osr_device_check(OsrDevice *device, OsrResult result, const char *what,
                                  GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrDevice, osr_device_unref)

G_END_DECLS
