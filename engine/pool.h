/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "ops.h"

G_BEGIN_DECLS

/**
 * OsrPool:
 *
 * The memory of one device: a cache of freed blocks over the backend's allocator, with a
 * limit. Thread safe. Blocks are rounded up to size classes (at most 1/8 waste), freed
 * blocks are kept for the next request of their class until trimmed; when a request does
 * not fit under the limit, cached blocks are given back first.
 */
typedef struct _OsrPool OsrPool;

/**
 * OsrPoolStats:
 * @allocated: bytes handed out now, as rounded to block sizes
 * @reserved: bytes taken from the backend now (handed out and cached)
 * @peak_allocated: largest @allocated since creation or the last reset
 * @peak_reserved: largest @reserved, likewise
 * @limit: bytes that @reserved may not pass, 0 for none
 * @n_allocs: requests so far
 * @n_backend_allocs: requests that the cache could not serve
 */
typedef struct {
  guint64 allocated, reserved, peak_allocated, peak_reserved, limit;
  guint64 n_allocs, n_backend_allocs;
} OsrPoolStats;

/* ctx is borrowed and must outlive the pool. */
OSR_API OsrPool *osr_pool_new(OsrOpsContext *ctx);
OSR_API void osr_pool_free(OsrPool *pool);

/* At least @size bytes, aligned to 64. NULL with OSR_ERROR_MEMORY, whose message has what
 * was asked, what is in use and the limit. @error may be NULL. */
OSR_API gpointer osr_pool_alloc(OsrPool *pool, gsize size, GError **error);
/* @size as given to osr_pool_alloc(). */
OSR_API void osr_pool_release(OsrPool *pool, gpointer ptr, gsize size);

/* Gives cached blocks back until at most @keep bytes are cached. */
OSR_API void osr_pool_trim(OsrPool *pool, guint64 keep);
OSR_API void osr_pool_set_limit(OsrPool *pool, guint64 limit);
/* Bytes of freed blocks that may stay cached; G_MAXUINT64 (the default): no bound. */
OSR_API void osr_pool_set_trim_threshold(OsrPool *pool, guint64 threshold);
OSR_API void osr_pool_get_stats(OsrPool *pool, OsrPoolStats *stats);
OSR_API void osr_pool_reset_peak(OsrPool *pool);

G_END_DECLS
