/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ref.h: the reference backend, which is the definition of every op.
 *
 * Inputs and outputs are f32. Everything between them is double and is rounded once, when
 * the output is stored; where ops.h asks for f32 steps (timestep, guidance_step, randn)
 * they are taken as written. One thread, no tricks: read each function beside its formula.
 */
#ifndef OSR_REF_H
#define OSR_REF_H

#include "../check.h"

#define OSR_REF_DTYPES OSR_MASK_OF(OSR_DTYPE_F32)

OsrResult osr_ref_linear(OsrOpsContext *ctx, const OsrLinear *p);
OsrResult osr_ref_glu(OsrOpsContext *ctx, const OsrGlu *p);
OsrResult osr_ref_layer_norm(OsrOpsContext *ctx, const OsrLayerNorm *p);
OsrResult osr_ref_rms_norm(OsrOpsContext *ctx, const OsrRmsNorm *p);
OsrResult osr_ref_qk_norm_rope(OsrOpsContext *ctx, const OsrQkNormRope *p);
OsrResult osr_ref_attention(OsrOpsContext *ctx, const OsrAttention *p);
OsrResult osr_ref_group_norm(OsrOpsContext *ctx, const OsrGroupNorm *p);
OsrResult osr_ref_conv3d(OsrOpsContext *ctx, const OsrConv3d *p);
OsrResult osr_ref_patchify(OsrOpsContext *ctx, const OsrPatchify *p);
OsrResult osr_ref_unpatchify(OsrOpsContext *ctx, const OsrPatchify *p);
OsrResult osr_ref_embedding(OsrOpsContext *ctx, const OsrEmbedding *p);
OsrResult osr_ref_timestep(OsrOpsContext *ctx, const OsrTimestep *p);
OsrResult osr_ref_affine(OsrOpsContext *ctx, const OsrAffine *p);
OsrResult osr_ref_copy2d(OsrOpsContext *ctx, const OsrCopy2d *p);
OsrResult osr_ref_guidance_step(OsrOpsContext *ctx, const OsrGuidanceStep *p);
OsrResult osr_ref_randn(OsrOpsContext *ctx, const OsrRandn *p);
OsrResult osr_ref_gaussian(OsrOpsContext *ctx, const OsrGaussian *p);
OsrResult osr_ref_blend(OsrOpsContext *ctx, const OsrBlend *p);
OsrResult osr_ref_tensor_to_frame(OsrOpsContext *ctx, const OsrFrame *p);
OsrResult osr_ref_frame_to_tensor(OsrOpsContext *ctx, const OsrFrame *p);

#endif /* OSR_REF_H */
