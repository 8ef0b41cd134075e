/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The reference backend: its memory functions and its table. */
#include "ref.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ALIGNMENT 64

static int
ref_device_count(char *why, size_t why_size)
{
  if (why && why_size > 0)
    why[0] = '\0';
  return 1;
}

static OsrResult
ref_open(OsrOpsContext *ctx, int index)
{
  if (index != 0)
    return osr_fail(ctx, OSR_ERR_INVALID, "ref: no device %d, there is one", index);
  ctx->backend = &osr_backend_ref;
  ctx->stream = NULL;
  ctx->impl = NULL;
  return OSR_OK;
}

static void
ref_close(OsrOpsContext *ctx)
{
  ctx->impl = NULL;
}

static OsrResult
ref_mem_info(OsrOpsContext *ctx, size_t *free, size_t *total)
{
  long page = sysconf(_SC_PAGESIZE);
  long pages = sysconf(_SC_PHYS_PAGES);
  long free_pages = sysconf(_SC_AVPHYS_PAGES);
  unsigned long long available;
  char line[128];
  FILE *meminfo;

  if (page <= 0 || pages <= 0 || free_pages < 0)
    return osr_fail(ctx, OSR_ERR_DEVICE, "ref: the system does not tell its memory size");
  *total = (size_t) pages * (size_t) page;
  *free = (size_t) free_pages * (size_t) page;

  /* Linux: what could be had, page cache included, which counts for more than what is free. */
  meminfo = fopen("/proc/meminfo", "re");
  if (!meminfo)
    return OSR_OK;
  while (fgets(line, sizeof line, meminfo))
    if (sscanf(line, "MemAvailable: %llu kB", &available) == 1)
      *free = (size_t) available * 1024;
  fclose(meminfo);
  return OSR_OK;
}

static void *
ref_mem_alloc(OsrOpsContext *ctx, size_t size)
{
  (void) ctx;
  if (size > SIZE_MAX - ALIGNMENT)
    return NULL;
  /* aligned_alloc wants a multiple of the alignment; an empty block gets one too. */
  size = (size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
  return aligned_alloc(ALIGNMENT, size);
}

static void
ref_mem_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  (void) ctx;
  (void) size;
  free(ptr);
}

static OsrResult
ref_mem_set(OsrOpsContext *ctx, void *ptr, int byte, size_t size)
{
  (void) ctx;
  if (size > 0)
    memset(ptr, byte, size);
  return OSR_OK;
}

static OsrResult
ref_copy(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size)
{
  if (size == 0)
    return OSR_OK;
  memmove(dst, src, size);
  osr_count_copy(ctx, kind, size);
  return OSR_OK;
}

static OsrResult
ref_synchronize(OsrOpsContext *ctx)
{
  (void) ctx;
  return OSR_OK;
}

const OsrBackend osr_backend_ref = {
    .abi = OSR_OPS_ABI,
    .name = "ref",
    .dtypes = OSR_REF_DTYPES,
    .device_count = ref_device_count,
    .open = ref_open,
    .close = ref_close,
    .mem_info = ref_mem_info,
    .mem_alloc = ref_mem_alloc,
    .mem_free = ref_mem_free,
    .mem_set = ref_mem_set,
    .copy = ref_copy,
    .synchronize = ref_synchronize,
    .mark = osr_mark_at_once,
    .wait = osr_wait_at_once,
    .ops =
        {
            .linear = osr_ref_linear,
            .glu = osr_ref_glu,
            .layer_norm = osr_ref_layer_norm,
            .rms_norm = osr_ref_rms_norm,
            .qk_norm_rope = osr_ref_qk_norm_rope,
            .attention = osr_ref_attention,
            .group_norm = osr_ref_group_norm,
            .conv3d = osr_ref_conv3d,
            .patchify = osr_ref_patchify,
            .unpatchify = osr_ref_unpatchify,
            .embedding = osr_ref_embedding,
            .timestep = osr_ref_timestep,
            .affine = osr_ref_affine,
            .copy2d = osr_ref_copy2d,
            .guidance_step = osr_ref_guidance_step,
            .randn = osr_ref_randn,
            .gaussian = osr_ref_gaussian,
            .blend = osr_ref_blend,
            .tensor_to_frame = osr_ref_tensor_to_frame,
            .frame_to_tensor = osr_ref_frame_to_tensor,
        },
};
