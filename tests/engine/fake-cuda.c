/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backend module for tests where there is no GPU. Its "device memory" is host memory, but
 * the addresses are moved to where no process has memory, so that code which forgets to copy
 * crashes. FAKE_CUDA_ABI and FAKE_CUDA_DEVICES (default 2) choose what it claims to be.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"

#define OFFSET ((uintptr_t) 1 << 62)

static void *
to_device(void *ptr)
{
  return (void *) ((uintptr_t) ptr + OFFSET);
}

static void *
to_host(const void *ptr)
{
  return (void *) ((uintptr_t) ptr - OFFSET);
}

static int
device_count(char *why, size_t why_size)
{
  const char *n = getenv("FAKE_CUDA_DEVICES");

  if (n && atoi(n) == 0 && why)
    snprintf(why, why_size, "the fake driver is asleep");
  return n ? atoi(n) : 2;
}

static OsrResult
open_device(OsrOpsContext *ctx, int index)
{
  if (getenv("FAKE_CUDA_BROKEN")) {
    snprintf(ctx->error, sizeof ctx->error, "fake device %d is broken", index);
    return OSR_ERR_DEVICE;
  }
  ctx->impl = malloc(1);
  return ctx->impl ? OSR_OK : OSR_ERR_MEMORY;
}

static void
close_device(OsrOpsContext *ctx)
{
  free(ctx->impl);
}

static OsrResult
mem_info(OsrOpsContext *ctx, size_t *free_bytes, size_t *total)
{
  (void) ctx;
  *free_bytes = *total = (size_t) 1 << 30;
  return OSR_OK;
}

static void *
mem_alloc(OsrOpsContext *ctx, size_t size)
{
  void *ptr = malloc(size);

  (void) ctx;
  return ptr ? to_device(ptr) : NULL;
}

static void
mem_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  (void) ctx;
  (void) size;
  free(to_host(ptr));
}

static OsrResult
mem_set(OsrOpsContext *ctx, void *ptr, int byte, size_t size)
{
  (void) ctx;
  memset(to_host(ptr), byte, size);
  return OSR_OK;
}

static OsrResult
copy(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size)
{
  (void) ctx;
  memmove(kind == OSR_COPY_TO_HOST ? dst : to_host(dst),
          kind == OSR_COPY_TO_DEVICE ? src : to_host(src), size);
  return OSR_OK;
}

static OsrResult
synchronize(OsrOpsContext *ctx)
{
  (void) ctx;
  return OSR_OK;
}

/* f32 <-> bf16 (truncated: the tests use values that fit), one row. */
static OsrResult
copy2d(OsrOpsContext *ctx, const OsrCopy2d *p)
{
  const char *x = to_host(p->x);
  char *y = to_host(p->y);

  if (p->m != 1 || !((p->x_dtype == OSR_DTYPE_F32 && p->y_dtype == OSR_DTYPE_BF16) ||
                     (p->x_dtype == OSR_DTYPE_BF16 && p->y_dtype == OSR_DTYPE_F32))) {
    snprintf(ctx->error, sizeof ctx->error, "the fake converts f32 and bf16 alone");
    return OSR_ERR_UNSUPPORTED;
  }
  for (int64_t i = 0; i < p->n; i++) {
    uint32_t bits = 0;

    if (p->x_dtype == OSR_DTYPE_F32) {
      memcpy(&bits, x + 4 * i, 4);
      memcpy(y + 2 * i, (uint16_t[]){ (uint16_t) (bits >> 16) }, 2);
    } else {
      uint16_t half;

      memcpy(&half, x + 2 * i, 2);
      bits = (uint32_t) half << 16;
      memcpy(y + 4 * i, &bits, 4);
    }
  }
  return OSR_OK;
}

static OsrBackend backend = {
  .name = "cuda",
  .dtypes = 1u << OSR_DTYPE_F32 | 1u << OSR_DTYPE_BF16,
  .device_count = device_count,
  .open = open_device,
  .close = close_device,
  .mem_info = mem_info,
  .mem_alloc = mem_alloc,
  .mem_free = mem_free,
  .mem_set = mem_set,
  .copy = copy,
  .synchronize = synchronize,
  .ops = { .copy2d = copy2d },
};

__attribute__((visibility("default"))) const OsrBackend *osr_backend_module(void);

const OsrBackend *
osr_backend_module(void)
{
  const char *abi = getenv("FAKE_CUDA_ABI");

  backend.abi = abi ? (uint32_t) atoi(abi) : OSR_OPS_ABI;
  return &backend;
}
