/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The reference backend: its table. */
#include "ref.h"

#include "../host.h"

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
    .mem_info = osr_host_mem_info,
    .mem_alloc = osr_host_mem_alloc,
    .mem_free = osr_host_mem_free,
    .mem_set = osr_host_mem_set,
    .copy = osr_host_copy,
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
