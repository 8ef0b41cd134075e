/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fair-lock.h: a recursive lock that goes to those who wait in the order of their coming, and
 * that a cancellable ends the wait for. Private.
 *
 * A GRecMutex goes to whoever asks in the right moment, and that is the thread that has just
 * given it back: one that takes it again and again would leave the others waiting for good.
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

typedef struct {
  GMutex mutex;   /* of what follows; held for moments */
  GThread *owner; /* NULL: nobody, and nobody waits */
  guint depth;    /* how often the owner has taken it */
  GQueue waiters; /* longest waiting first */
} OsrFairLock;

void osr_fair_lock_init(OsrFairLock *lock);
/* Nobody has it or waits for it. */
void osr_fair_lock_clear(OsrFairLock *lock);

/* FALSE with G_IO_ERROR_CANCELLED at once when @cancellable is cancelled, before or while it
 * waits; never with @cancellable NULL. */
gboolean osr_fair_lock_take(OsrFairLock *lock, GCancellable *cancellable, GError **error);
/* Once for each time that the thread has taken it. */
void osr_fair_lock_give(OsrFairLock *lock);
/* Of the owner: whether it has taken it but once. */
gboolean osr_fair_lock_is_outermost(const OsrFairLock *lock);
/* Threads that wait now. */
guint osr_fair_lock_n_waiters(OsrFairLock *lock);

G_END_DECLS
