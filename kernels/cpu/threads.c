/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A caller and its helpers: the caller opens a job, all take items, the caller closes it. */
#include "threads.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* How long a thread without work looks for more before it sleeps: longer than what lies
 * between two ops of a model, and nothing beside a time slice. */
#define SPIN_NS 50000

struct OsrThreads {
  int n_helpers;        /* wanted */
  pthread_mutex_t busy; /* held by the caller that has the helpers; also of the next two */
  bool started;
  int n_started;
  pthread_t *helpers;

  pthread_mutex_t lock; /* of what follows, but for the atomics */
  pthread_cond_t work, done;
  bool stop;
  int n_ids;
  OsrTask task;
  const void *data;
  int64_t n, grain;

  _Atomic int64_t next; /* first item that nobody has taken */
  _Atomic uint32_t job; /* odd while helpers may join */
  _Atomic int n_joined; /* helpers in the job; grows under the lock only */
  _Atomic int n_sleeping;
};

static int64_t
now_ns(void)
{
  struct timespec t;

  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

static void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void
take_items(OsrThreads *t, OsrTask task, const void *data, int64_t n, int64_t grain, int thread)
{
  int64_t begin;

  while ((begin = atomic_fetch_add_explicit(&t->next, grain, memory_order_relaxed)) < n)
    task(data, begin, begin + grain < n ? begin + grain : n, thread);
}

/* Waits for a job after `seen`: looks for it for a while, then sleeps. With the lock held on
 * return; false when the helper is to end. */
static bool
wait_for_job(OsrThreads *t, uint32_t seen)
{
  const int64_t until = now_ns() + SPIN_NS;
  uint32_t job;

  do {
    for (int i = 0; i < 32; i++)
      relax();
    job = atomic_load_explicit(&t->job, memory_order_relaxed);
  } while ((job == seen || job % 2 == 0) && now_ns() < until);

  pthread_mutex_lock(&t->lock);
  while (!t->stop) {
    job = atomic_load_explicit(&t->job, memory_order_relaxed);
    if (job != seen && job % 2 == 1)
      return true;
    atomic_fetch_add_explicit(&t->n_sleeping, 1, memory_order_relaxed);
    pthread_cond_wait(&t->work, &t->lock);
    atomic_fetch_sub_explicit(&t->n_sleeping, 1, memory_order_relaxed);
  }
  return false;
}

static void *
helper_main(void *data)
{
  OsrThreads *t = data;
  uint32_t seen = 0;
  int id;

  pthread_mutex_lock(&t->lock);
  id = ++t->n_ids;
  pthread_mutex_unlock(&t->lock);

  while (wait_for_job(t, seen)) {
    const OsrTask task = t->task;
    const void *task_data = t->data;
    const int64_t n = t->n, grain = t->grain;

    seen = atomic_load_explicit(&t->job, memory_order_relaxed);
    atomic_fetch_add_explicit(&t->n_joined, 1, memory_order_relaxed);
    pthread_mutex_unlock(&t->lock);

    take_items(t, task, task_data, n, grain, id);

    /* What the tasks wrote is the caller's once it sees the count. */
    pthread_mutex_lock(&t->lock);
    if (atomic_fetch_sub_explicit(&t->n_joined, 1, memory_order_release) == 1)
      pthread_cond_signal(&t->done);
    pthread_mutex_unlock(&t->lock);
  }
  pthread_mutex_unlock(&t->lock);
  return NULL;
}

/* Signals are for the threads of the application. */
static void
start_helpers(OsrThreads *t)
{
  sigset_t all, before;

  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (t->n_started < t->n_helpers &&
         pthread_create(&t->helpers[t->n_started], NULL, helper_main, t) == 0)
    t->n_started++;
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  /* Should the system allow no more, those that there are will do. */
  t->started = true;
}

/* A mutex that is held for moments: waiting for it is cheaper than sleeping. */
static void
init_lock(pthread_mutex_t *lock)
{
  pthread_mutexattr_t attr;

  pthread_mutexattr_init(&attr);
#ifdef __GLIBC__
  pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
#endif
  pthread_mutex_init(lock, &attr);
  pthread_mutexattr_destroy(&attr);
}

OsrThreads *
osr_threads_new(int n)
{
  OsrThreads *t = calloc(1, sizeof *t);

  if (!t)
    return NULL;
  t->n_helpers = n - 1;
  t->helpers = calloc((size_t) n, sizeof *t->helpers);
  if (!t->helpers) {
    free(t);
    return NULL;
  }
  pthread_mutex_init(&t->busy, NULL);
  init_lock(&t->lock);
  pthread_cond_init(&t->work, NULL);
  pthread_cond_init(&t->done, NULL);
  return t;
}

void
osr_threads_free(OsrThreads *t)
{
  if (!t)
    return;
  pthread_mutex_lock(&t->lock);
  t->stop = true;
  pthread_cond_broadcast(&t->work);
  pthread_mutex_unlock(&t->lock);
  for (int i = 0; i < t->n_started; i++)
    pthread_join(t->helpers[i], NULL);
  pthread_cond_destroy(&t->done);
  pthread_cond_destroy(&t->work);
  pthread_mutex_destroy(&t->lock);
  pthread_mutex_destroy(&t->busy);
  free(t->helpers);
  free(t);
}

static void
open_job(OsrThreads *t, int64_t n, int64_t grain, OsrTask task, const void *data)
{
  pthread_mutex_lock(&t->lock);
  t->task = task;
  t->data = data;
  t->n = n;
  t->grain = grain;
  atomic_store_explicit(&t->next, 0, memory_order_relaxed);
  atomic_fetch_add_explicit(&t->job, 1, memory_order_relaxed);
  if (atomic_load_explicit(&t->n_sleeping, memory_order_relaxed) > 0)
    pthread_cond_broadcast(&t->work);
  pthread_mutex_unlock(&t->lock);
}

/* Nobody joins any more; waits for those who have. */
static void
close_job(OsrThreads *t)
{
  const int64_t until = now_ns() + SPIN_NS;

  pthread_mutex_lock(&t->lock);
  atomic_fetch_add_explicit(&t->job, 1, memory_order_relaxed);
  pthread_mutex_unlock(&t->lock);

  while (atomic_load_explicit(&t->n_joined, memory_order_acquire) > 0 && now_ns() < until)
    relax();
  pthread_mutex_lock(&t->lock);
  while (atomic_load_explicit(&t->n_joined, memory_order_acquire) > 0)
    pthread_cond_wait(&t->done, &t->lock);
  pthread_mutex_unlock(&t->lock);
}

void
osr_threads_run(OsrThreads *t, int64_t n, int64_t grain, OsrTask task, const void *data)
{
  if (n <= 0)
    return;
  if (n <= grain || t->n_helpers == 0 || pthread_mutex_trylock(&t->busy) != 0) {
    task(data, 0, n, 0);
    return;
  }
  if (!t->started)
    start_helpers(t);
  open_job(t, n, grain, task, data);
  take_items(t, task, data, n, grain, 0);
  close_job(t);
  pthread_mutex_unlock(&t->busy);
}

int
osr_threads_available(void)
{
  long n;
#ifdef __linux__
  cpu_set_t set;

  if (sched_getaffinity(0, sizeof set, &set) == 0)
    return CPU_COUNT(&set);
#endif
  n = sysconf(_SC_NPROCESSORS_ONLN);
  return n > 0 ? (int) n : 1;
}
