/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pool.h"

#include "device-private.h"
#include "error.h"
#include "pool-private.h"

#define MIN_CLASS 512
#define BIG_STEP (G_GUINT64_CONSTANT(2) << 20)
/* From here on BIG_STEP wastes less than 1/8, so classes grow by it alone. */
#define BIG_CLASS (8 * BIG_STEP)

typedef struct {
  gpointer ptr;
  guint64 size;
  GList age;           /* in OsrPool.cached: data is the block */
  GList in_class;      /* in the block's class or in OsrPoolArena.blocks, likewise */
  OsrPoolArena *arena; /* of a leased block; NULL: freed meanwhile */
} Block;

struct _OsrPool {
  OsrOpsContext *ctx;
  GMutex lock;
  GQueue cached;       /* Block, longest unused first */
  GHashTable *classes; /* class size -> GQueue of Block, last freed first */
  GHashTable *leased;  /* address -> Block that an arena has handed out */
  guint64 cached_size, trim_threshold;
  OsrPoolStats stats;
};

struct _OsrPoolArena {
  OsrPool *pool;
  GQueue blocks; /* Block that nobody holds, last freed first */
};

static GPrivate current_arena; /* of this thread */

/* The class of a request: 8 steps an octave, 2 MiB steps for big blocks; 0 on overflow. */
static guint64
class_size(gsize size)
{
  guint64 step;

  if (size <= MIN_CLASS)
    return MIN_CLASS;
  if (size > G_MAXSIZE - BIG_STEP)
    return 0;
  if (size >= BIG_CLASS)
    step = BIG_STEP;
  else
    step = G_GUINT64_CONSTANT(1) << (g_bit_storage(size - 1) - 4);
  return (size + step - 1) / step * step;
}

guint64
osr_pool_block_size(gsize size)
{
  return class_size(size);
}

OsrPool *
osr_pool_new(OsrOpsContext *ctx)
{
  OsrPool *pool = g_new0(OsrPool, 1);

  pool->ctx = ctx;
  pool->trim_threshold = G_MAXUINT64;
  pool->classes = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free,
                                        (GDestroyNotify) (void (*)(void)) g_queue_free);
  pool->leased = g_hash_table_new_full(NULL, NULL, NULL, g_free);
  g_queue_init(&pool->cached);
  g_mutex_init(&pool->lock);
  return pool;
}

static void
unlink_block(OsrPool *pool, GQueue *class, Block *block)
{
  g_queue_unlink(&pool->cached, &block->age);
  g_queue_unlink(class, &block->in_class);
  pool->cached_size -= block->size;
}

static void
trim(OsrPool *pool, guint64 keep)
{
  while (pool->cached_size > keep) {
    Block *block = g_queue_peek_head(&pool->cached);

    unlink_block(pool, g_hash_table_lookup(pool->classes, &block->size), block);
    pool->ctx->backend->mem_free(pool->ctx, block->ptr, block->size);
    pool->stats.reserved -= block->size;
    g_free(block);
  }
}

void
osr_pool_free(OsrPool *pool)
{
  if (!pool)
    return;
  if (pool->stats.allocated > 0)
    g_critical("pool of %s freed while %" G_GUINT64_FORMAT " bytes are in use",
               pool->ctx->backend->name, pool->stats.allocated);
  trim(pool, 0);
  g_hash_table_unref(pool->classes);
  g_hash_table_unref(pool->leased);
  g_mutex_clear(&pool->lock);
  g_free(pool);
}

static gpointer
take_cached(OsrPool *pool, guint64 size)
{
  GQueue *class = g_hash_table_lookup(pool->classes, &size);
  Block *block = class ? g_queue_peek_head(class) : NULL;
  gpointer ptr;

  if (!block)
    return NULL;
  unlink_block(pool, class, block);
  ptr = block->ptr;
  g_free(block);
  return ptr;
}

static gboolean
fits(OsrPool *pool, guint64 size)
{
  guint64 limit = pool->stats.limit;

  return limit == 0 || (size <= limit && pool->stats.reserved <= limit - size);
}

static gpointer
take_new(OsrPool *pool, guint64 size)
{
  const OsrBackend *backend = pool->ctx->backend;
  gpointer ptr;

  if (!fits(pool, size)) {
    guint64 limit = pool->stats.limit, others = pool->stats.reserved - pool->cached_size;

    /* What is in use stays; of the cache, keep what the limit leaves room for. */
    if (size > limit || others > limit - size)
      return NULL;
    trim(pool, limit - size - others);
  }
  ptr = backend->mem_alloc(pool->ctx, size);
  if (!ptr && pool->cached_size > 0) {
    trim(pool, 0);
    ptr = backend->mem_alloc(pool->ctx, size);
  }
  if (!ptr)
    return NULL;
  pool->stats.n_backend_allocs++;
  pool->stats.reserved += size;
  pool->stats.peak_reserved = MAX(pool->stats.peak_reserved, pool->stats.reserved);
  return ptr;
}

static guint64
largest_cached(OsrPool *pool)
{
  guint64 largest = 0;

  for (GList *l = pool->cached.head; l; l = l->next)
    largest = MAX(largest, ((Block *) l->data)->size);
  return largest;
}

static void
set_memory_error(OsrPool *pool, const OsrPoolStats *stats, gsize size, guint64 largest,
                 GError **error)
{
  OsrOpsContext ctx = osr_context_for_call(pool->ctx);
  g_autofree char *asked = g_format_size_full(size, G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *used = g_format_size_full(stats->allocated, G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *cached = g_format_size_full(largest, G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *limit =
      stats->limit ? g_format_size_full(stats->limit, G_FORMAT_SIZE_IEC_UNITS) : g_strdup("none");
  g_autofree char *left = NULL;
  size_t free_bytes, total;
  OsrResult result = ctx.backend->mem_info(&ctx, &free_bytes, &total);

  if (result == OSR_ERR_DEVICE) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_DEVICE, "no %s on %s, the device failed: %s", asked,
                ctx.backend->name, osr_context_reason(&ctx));
    return;
  }
  if (result == OSR_OK)
    left = g_format_size_full(free_bytes, G_FORMAT_SIZE_IEC_UNITS);
  g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY,
              "not enough memory on %s: asked for %s; %s free, %s in use, limit %s, largest cached "
              "block %s",
              ctx.backend->name, asked, left ? left : "unknown", used, limit, cached);
}

static Block *
block_new(gpointer ptr, guint64 size)
{
  Block *block = g_new0(Block, 1);

  block->ptr = ptr;
  block->size = size;
  block->age.data = block->in_class.data = block;
  return block;
}

/* From the cache or the backend. */
static gpointer
take(OsrPool *pool, guint64 size, guint64 *largest)
{
  gpointer ptr = take_cached(pool, size);

  if (!ptr) {
    *largest = largest_cached(pool);
    ptr = take_new(pool, size);
  }
  if (ptr) {
    pool->stats.allocated += size;
    pool->stats.peak_allocated = MAX(pool->stats.peak_allocated, pool->stats.allocated);
  }
  return ptr;
}

/* The smallest block of the arena that is large enough. */
static Block *
find_block(OsrPoolArena *arena, guint64 size)
{
  Block *best = NULL;

  for (GList *l = arena->blocks.head; l; l = l->next) {
    Block *block = l->data;

    if (block->size >= size && (!best || block->size < best->size))
      best = block;
  }
  return best;
}

static gpointer
take_in_arena(OsrPoolArena *arena, guint64 size, guint64 *largest)
{
  Block *block = find_block(arena, size);
  gpointer ptr;

  if (block) {
    g_queue_unlink(&arena->blocks, &block->in_class);
  } else {
    ptr = take(arena->pool, size, largest);
    if (!ptr)
      return NULL;
    block = block_new(ptr, size);
  }
  block->arena = arena;
  g_hash_table_insert(arena->pool->leased, block->ptr, block);
  return block->ptr;
}

/* The arena that the thread is in, if it is one of @pool. */
static OsrPoolArena *
arena_of_thread(OsrPool *pool)
{
  OsrPoolArena *arena = g_private_get(&current_arena);

  return arena && arena->pool == pool ? arena : NULL;
}

gpointer
osr_pool_alloc(OsrPool *pool, gsize size, GError **error)
{
  OsrPoolArena *arena = arena_of_thread(pool);
  guint64 class = class_size(size), largest = 0;
  OsrPoolStats stats;
  gpointer ptr = NULL;

  g_mutex_lock(&pool->lock);
  pool->stats.n_allocs++;
  if (class != 0)
    ptr = arena ? take_in_arena(arena, class, &largest) : take(pool, class, &largest);
  stats = pool->stats;
  g_mutex_unlock(&pool->lock);

  if (!ptr)
    set_memory_error(pool, &stats, size, largest, error);
  return ptr;
}

static void
put_cached(OsrPool *pool, Block *block)
{
  GQueue *class = g_hash_table_lookup(pool->classes, &block->size);

  if (!class) {
    class = g_queue_new();
    g_hash_table_insert(pool->classes, g_memdup2(&block->size, sizeof block->size), class);
  }
  g_queue_push_tail_link(&pool->cached, &block->age);
  g_queue_push_head_link(class, &block->in_class);
  pool->cached_size += block->size;
  pool->stats.allocated -= block->size;
}

void
osr_pool_release(OsrPool *pool, gpointer ptr, gsize size)
{
  OsrPoolArena *arena = arena_of_thread(pool);
  Block *block;

  if (!ptr)
    return;
  g_mutex_lock(&pool->lock);
  /* What an arena has handed out may be larger than was asked for, and is the arena's. */
  block = g_hash_table_lookup(pool->leased, ptr);
  if (block) {
    g_hash_table_steal(pool->leased, ptr);
    arena = block->arena;
  } else {
    block = block_new(ptr, class_size(size));
  }
  if (arena) {
    g_queue_push_head_link(&arena->blocks, &block->in_class);
  } else {
    put_cached(pool, block);
    trim(pool, pool->trim_threshold);
  }
  g_mutex_unlock(&pool->lock);
}

/* Arenas */

OsrPoolArena *
osr_pool_arena_new(OsrPool *pool)
{
  OsrPoolArena *arena = g_new0(OsrPoolArena, 1);

  arena->pool = pool;
  g_queue_init(&arena->blocks);
  return arena;
}

void
osr_pool_arena_free(OsrPoolArena *arena)
{
  OsrPool *pool;
  GHashTableIter iter;
  gpointer value;
  GList *link;

  if (!arena)
    return;
  g_return_if_fail(g_private_get(&current_arena) != arena);

  pool = arena->pool;
  g_mutex_lock(&pool->lock);
  while ((link = g_queue_pop_head_link(&arena->blocks)))
    put_cached(pool, link->data);
  g_hash_table_iter_init(&iter, pool->leased);
  while (g_hash_table_iter_next(&iter, NULL, &value)) {
    Block *block = value;

    if (block->arena == arena)
      block->arena = NULL;
  }
  trim(pool, pool->trim_threshold);
  g_mutex_unlock(&pool->lock);
  g_free(arena);
}

void
osr_pool_arena_begin(OsrPoolArena *arena)
{
  g_return_if_fail(g_private_get(&current_arena) == NULL);
  g_private_set(&current_arena, arena);
}

void
osr_pool_arena_end(OsrPoolArena *arena)
{
  g_return_if_fail(g_private_get(&current_arena) == arena);
  g_private_set(&current_arena, NULL);
}

/* Limits and numbers */

void
osr_pool_trim(OsrPool *pool, guint64 keep)
{
  g_mutex_lock(&pool->lock);
  trim(pool, keep);
  g_mutex_unlock(&pool->lock);
}

void
osr_pool_set_limit(OsrPool *pool, guint64 limit)
{
  g_mutex_lock(&pool->lock);
  pool->stats.limit = limit;
  if (limit > 0 && pool->stats.reserved > limit) {
    guint64 used = pool->stats.reserved - pool->cached_size;

    trim(pool, used < limit ? limit - used : 0);
  }
  g_mutex_unlock(&pool->lock);
}

void
osr_pool_set_trim_threshold(OsrPool *pool, guint64 threshold)
{
  g_mutex_lock(&pool->lock);
  pool->trim_threshold = threshold;
  trim(pool, threshold);
  g_mutex_unlock(&pool->lock);
}

void
osr_pool_get_stats(OsrPool *pool, OsrPoolStats *stats)
{
  g_mutex_lock(&pool->lock);
  *stats = pool->stats;
  g_mutex_unlock(&pool->lock);
}

void
osr_pool_reset_peak(OsrPool *pool)
{
  g_mutex_lock(&pool->lock);
  pool->stats.peak_allocated = pool->stats.allocated;
  pool->stats.peak_reserved = pool->stats.reserved;
  g_mutex_unlock(&pool->lock);
}
