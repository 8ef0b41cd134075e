/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * threads.h: the threads of one context.
 *
 * They are the context's own, not those of an OpenMP run-time, for two reasons. A run-time
 * keeps a set of threads for every thread that calls it, and GStreamer calls from a
 * streaming thread of each element. And its parallel regions end when every thread has come
 * by: where the cores are shared with an encoder, one that is not running just then holds up
 * the region for a scheduler's time slice, many times as long as the region itself. Here the
 * caller works on its own until somebody helps, and waits only for helpers in mid-task.
 */
#ifndef OSR_CPU_THREADS_H
#define OSR_CPU_THREADS_H

#include <stdint.h>

typedef struct OsrThreads OsrThreads;

/* Does items [begin, end); `thread` is 0 in the caller and below the number of threads. */
typedef void (*OsrTask)(const void *data, int64_t begin, int64_t end, int thread);

/* Threads that can help one caller: n - 1 of them, started when first needed. NULL when
 * there is no memory. */
OsrThreads *osr_threads_new(int n);
/* No call may be in progress. NULL is allowed. */
void osr_threads_free(OsrThreads *t);

/* Calls task(data, ...) for all of [0, n) in pieces of `grain` items, in no order, and
 * returns when all is done. A second caller at the same time does its work alone. */
void osr_threads_run(OsrThreads *t, int64_t n, int64_t grain, OsrTask task, const void *data);

/* Processors that the calling thread may run on. */
int osr_threads_available(void);

#endif /* OSR_CPU_THREADS_H */
