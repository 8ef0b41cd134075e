/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* attention: arguments and the choice of a path. */
#include "attention.cuh"

OsrResult
osr_cuda_attention(OsrOpsContext *ctx, const OsrAttention *p)
{
  OSR_TRY(osr_cuda_begin(ctx, "attention"));
  OSR_TRY(osr_check_attention(ctx, p, OSR_CUDA_DTYPES));
  if (p->batch == 0 || p->lq == 0 || p->heads == 0)
    return OSR_OK;
  /* Kernels count tokens in 32 bits, with room for a tile on top. */
  if (p->lq > INT32_MAX - 1024 || p->lk > INT32_MAX - 1024)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "attention: %lld queries, %lld keys, at most %d each",
                    (long long) p->lq, (long long) p->lk, INT32_MAX - 1024);

  if (!osr_cuda_attention_sm90_refuses(ctx, p)) {
    OsrResult result = osr_cuda_attention_sm90(ctx, p, OSR_SM90_DEFAULT);

    if (result != OSR_ERR_UNSUPPORTED)
      return result;
  }
  if (!osr_cuda_attention_mma_refuses(ctx, p))
    return osr_cuda_attention_mma(ctx, p);
  return osr_cuda_attention_simt(ctx, p);
}
