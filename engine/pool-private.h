/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "pool.h"

G_BEGIN_DECLS

/**
 * OsrPoolArena:
 *
 * Blocks of a pool for work that comes again and again: the forwards of a clip. A recorded
 * graph has the addresses of its buffers in it, so while it lives nobody else may get them
 * and the pool may not give them back. For other work it means that its memory is there.
 *
 * Between begin and end, what the calling thread asks the pool for comes from the arena,
 * which takes from the pool what it lacks and keeps it, and what the thread releases goes to
 * the arena, wherever it came from. A request gets the smallest block that is large enough, so
 * a batch of two fits into the blocks of a batch of three. Other threads do not notice.
 *
 * A block that came from the arena goes back to it, whoever releases it and when; once the
 * arena is freed, to the pool. Blocks of an arena count as allocated, in use or not.
 */
typedef struct _OsrPoolArena OsrPoolArena;

/* What OsrPoolStats.allocated counts for a request of @size bytes; 0 on overflow. */
guint64 osr_pool_block_size(gsize size);

/* @pool is borrowed and must outlive the arena. Any thread may use an arena, even several at a
 * time. */
OsrPoolArena *osr_pool_arena_new(OsrPool *pool);
/* The pool has back all blocks that nobody holds. Not between begin and end. */
void osr_pool_arena_free(OsrPoolArena *arena);

/* A thread is in one arena at a time. */
void osr_pool_arena_begin(OsrPoolArena *arena);
void osr_pool_arena_end(OsrPoolArena *arena);

G_END_DECLS
