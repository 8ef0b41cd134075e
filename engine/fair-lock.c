/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fair-lock.h"

/* On the stack of its thread. */
typedef struct {
  OsrFairLock *lock;
  GThread *thread;
  GCond wake;
  gboolean cancelled;
  GList link; /* in OsrFairLock.waiters */
} Waiter;

void
osr_fair_lock_init(OsrFairLock *lock)
{
  *lock = (OsrFairLock){ 0 };
  g_mutex_init(&lock->mutex);
  g_queue_init(&lock->waiters);
}

void
osr_fair_lock_clear(OsrFairLock *lock)
{
  g_return_if_fail(lock->owner == NULL);
  g_mutex_clear(&lock->mutex);
}

/* In the thread that cancels. */
static void
on_cancelled(G_GNUC_UNUSED GCancellable *cancellable, gpointer data)
{
  Waiter *waiter = data;

  g_mutex_lock(&waiter->lock->mutex);
  waiter->cancelled = TRUE;
  g_cond_signal(&waiter->wake);
  g_mutex_unlock(&waiter->lock->mutex);
}

/* Whether the lock has been handed over; if not, the thread does not wait any more. */
static gboolean
wait_for_turn(OsrFairLock *lock, Waiter *waiter, GCancellable *cancellable)
{
  gboolean taken;
  gulong id = 0;

  /* The handler takes the mutex, and both of these may wait for it to return. */
  if (cancellable)
    id = g_cancellable_connect(cancellable, G_CALLBACK(on_cancelled), waiter, NULL);
  g_mutex_lock(&lock->mutex);
  while (lock->owner != waiter->thread && !waiter->cancelled)
    g_cond_wait(&waiter->wake, &lock->mutex);
  taken = lock->owner == waiter->thread;
  if (!taken)
    g_queue_unlink(&lock->waiters, &waiter->link);
  g_mutex_unlock(&lock->mutex);
  g_cancellable_disconnect(cancellable, id);
  return taken;
}

/* Takes the lock if it is there to be taken, queues for it if not. */
static gboolean
take_or_queue(OsrFairLock *lock, Waiter *waiter)
{
  gboolean taken;

  g_mutex_lock(&lock->mutex);
  taken = !lock->owner || lock->owner == waiter->thread;
  if (taken) {
    lock->owner = waiter->thread;
    lock->depth++;
  } else {
    g_queue_push_tail_link(&lock->waiters, &waiter->link);
  }
  g_mutex_unlock(&lock->mutex);
  return taken;
}

gboolean
osr_fair_lock_take(OsrFairLock *lock, GCancellable *cancellable, GError **error)
{
  Waiter waiter = { .lock = lock, .thread = g_thread_self() };
  gboolean taken;

  if (g_cancellable_set_error_if_cancelled(cancellable, error))
    return FALSE;
  waiter.link.data = &waiter;
  g_cond_init(&waiter.wake);
  taken = take_or_queue(lock, &waiter) || wait_for_turn(lock, &waiter, cancellable);
  g_cond_clear(&waiter.wake);
  if (taken && !g_cancellable_is_cancelled(cancellable))
    return TRUE;

  /* Its turn may have come in the same moment. */
  if (taken)
    osr_fair_lock_give(lock);
  g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "cancelled");
  return FALSE;
}

void
osr_fair_lock_give(OsrFairLock *lock)
{
  GList *first;

  g_return_if_fail(lock->owner == g_thread_self());

  g_mutex_lock(&lock->mutex);
  if (--lock->depth == 0) {
    first = g_queue_pop_head_link(&lock->waiters);
    lock->owner = NULL;
    if (first) {
      Waiter *waiter = first->data;

      lock->owner = waiter->thread;
      lock->depth = 1;
      g_cond_signal(&waiter->wake);
    }
  }
  g_mutex_unlock(&lock->mutex);
}

gboolean
osr_fair_lock_is_outermost(const OsrFairLock *lock)
{
  return lock->depth == 1;
}

guint
osr_fair_lock_n_waiters(OsrFairLock *lock)
{
  guint n;

  g_mutex_lock(&lock->mutex);
  n = g_queue_get_length(&lock->waiters);
  g_mutex_unlock(&lock->mutex);
  return n;
}
