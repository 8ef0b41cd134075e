/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host.h: memory of the host, for the backends that work in it: how much there is to be had,
 * and blocks of it. Entries of OsrBackend as they stand.
 */
#ifndef OSR_KERNELS_HOST_H
#define OSR_KERNELS_HOST_H

#include "ops.h"

OsrResult osr_host_mem_info(OsrOpsContext *ctx, size_t *free, size_t *total);
void *osr_host_mem_alloc(OsrOpsContext *ctx, size_t size);
void osr_host_mem_free(OsrOpsContext *ctx, void *ptr, size_t size);
OsrResult osr_host_mem_set(OsrOpsContext *ctx, void *ptr, int byte, size_t size);
OsrResult osr_host_copy(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size);

#endif /* OSR_KERNELS_HOST_H */
