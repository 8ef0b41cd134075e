/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * device-private.h: calls of a backend that need no lock. Private.
 */
#pragma once

#include "device.h"

G_BEGIN_DECLS

/* Ops.h lets any thread call mem_set, mem_info, copy, synchronize and wait at any time. What
 * such calls would have in common is ctx->error, so each is made on a context of the caller's
 * own: the same device, with a place for the reason of its failure alone. Copies are counted
 * there too, and not on the device. */
static inline OsrOpsContext
osr_context_for_call(OsrOpsContext *ctx)
{
  return (OsrOpsContext){
    .backend = ctx->backend,
    .stream = ctx->stream,
    .impl = g_atomic_pointer_get(&ctx->impl), /* osr_device_set_threads() may change it */
    .n_marks = __atomic_load_n(&ctx->n_marks, __ATOMIC_ACQUIRE),
  };
}

static inline const char *
osr_context_reason(const OsrOpsContext *ctx)
{
  return ctx->error[0] ? ctx->error : "no reason given";
}

/* A device of @backend that nobody else gets, without a place among those that have names. It is
 * no host device: its memory is not the process's. */
OsrDevice *osr_device_open_alone(const OsrBackend *backend, guint n_threads, GError **error);

/* Threads that wait for the lock just now. For tests, which make others wait on purpose. */
guint osr_device_n_waiters(OsrDevice *device);

G_END_DECLS
