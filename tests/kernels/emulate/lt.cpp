// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * cuBLASLt, by its manual (cublasLtMatmul): D = epilogue(alpha op(A) op(B) + beta C), column-major,
 * strided batches, bias and GELU (tanh form) epilogues, one alpha a row of D in device memory.
 * What it has kernels for is a guess on the strict side: pointers and strides of 16 bytes.
 */
#include "machine.h"
#include "runtime.h"

#include <cublasLt.h>

#include <cuda_bf16.h>

using namespace osr_emulated;

namespace
{

struct Op {
  int32_t compute, trans_a, pointer_mode;
  uint32_t epilogue;
  const void *bias;
  int64_t bias_batch, alpha_batch;
};

struct Layout {
  int32_t type, batch;
  uint64_t rows, cols;
  int64_t ld, stride;
};

struct Preference {
  uint64_t workspace;
  uint32_t align[4];
};

static_assert(sizeof(Op) <= sizeof(cublasLtMatmulDescOpaque_t), "fits");
static_assert(sizeof(Layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "fits");
static_assert(sizeof(Preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "fits");

template <typename T, typename Opaque>
T
read(const Opaque *opaque)
{
  T v;

  memcpy(&v, opaque, sizeof v);
  return v;
}

/* Sets a field of the wanted size. */
template <typename T>
cublasStatus_t
set(T *field, const void *value, size_t size)
{
  if (size != sizeof *field)
    return CUBLAS_STATUS_INVALID_VALUE;
  memcpy(field, value, size);
  return CUBLAS_STATUS_SUCCESS;
}

size_t
element_size(int32_t type)
{
  return type == CUDA_R_16BF ? 2 : 4;
}

bool
multiple_of_16(int64_t elements, int32_t type)
{
  return elements * (int64_t) element_size(type) % 16 == 0;
}

/* Whether the matrices fit together, and then whether there is a kernel. */
cublasStatus_t
examine(const Op &op, const Layout l[4], const uint32_t *align)
{
  const bool t = op.trans_a == CUBLAS_OP_T;
  const uint64_t m = t ? l[0].cols : l[0].rows, k = t ? l[0].rows : l[0].cols;

  if (l[1].rows != k || l[3].rows != m || l[3].cols != l[1].cols || l[2].rows != m ||
      l[2].cols != l[3].cols)
    return CUBLAS_STATUS_INVALID_VALUE;
  for (int i = 0; i < 4; i++)
    if (l[i].ld < (int64_t) l[i].rows || l[i].batch != l[3].batch || l[i].batch < 1 ||
        l[i].type != l[3].type)
      return CUBLAS_STATUS_INVALID_VALUE;
  for (int i = 0; i < 4; i++)
    if (!multiple_of_16(l[i].ld, l[i].type) ||
        (l[i].batch > 1 && !multiple_of_16(l[i].stride, l[i].type)) || (align && align[i] < 16))
      return CUBLAS_STATUS_NOT_SUPPORTED;
  if (op.bias && (uintptr_t) op.bias % 16 != 0)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  return CUBLAS_STATUS_SUCCESS;
}

float
load(const void *p, int32_t type, int64_t i)
{
  return type == CUDA_R_16BF ? __bfloat162float(((const __nv_bfloat16 *) p)[i])
                             : ((const float *) p)[i];
}

void
store(void *p, int32_t type, int64_t i, float v)
{
  if (type == CUDA_R_16BF)
    ((__nv_bfloat16 *) p)[i] = __float2bfloat16_rn(v);
  else
    ((float *) p)[i] = v;
}

float
operand(const void *p, const Op &op, int32_t type, int64_t i)
{
  const float v = load(p, type, i);

  return op.compute == CUBLAS_COMPUTE_32F_FAST_TF32 ? from_bits((to_bits(v) + 0x1000) & 0xFFFFE000u)
                                                    : v;
}

float
gelu(float x)
{
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

struct Call {
  Op op;
  Layout l[4];
  const void *a, *b, *c;
  void *d;
  const float *alpha; /* a vector in device memory, or NULL */
  float alpha_value, beta;
};

void
multiply_item(const Call &call, int64_t item)
{
  const Layout *l = call.l;
  const Op &op = call.op;
  const bool t = op.trans_a == CUBLAS_OP_T;
  const int64_t m = (int64_t) l[3].rows, n = (int64_t) l[3].cols, k = (int64_t) l[1].rows;
  std::vector<float> row((size_t) k);

  for (int64_t i = 0; i < m; i++) {
    for (int64_t p = 0; p < k; p++)
      row[(size_t) p] = operand(call.a, op, l[0].type,
                                item * l[0].stride + (t ? i * l[0].ld + p : p * l[0].ld + i));
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      float v;

      for (int64_t p = 0; p < k; p++)
        sum += (double) row[(size_t) p] *
               operand(call.b, op, l[1].type, item * l[1].stride + j * l[1].ld + p);
      v = (float) sum * (call.alpha ? call.alpha[item * op.alpha_batch + i] : call.alpha_value);
      if (call.beta != 0)
        v += call.beta * load(call.c, l[2].type, item * l[2].stride + j * l[2].ld + i);
      if (op.epilogue == CUBLASLT_EPILOGUE_BIAS || op.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS)
        v += load(op.bias, l[3].type, item * op.bias_batch + i);
      if (op.epilogue == CUBLASLT_EPILOGUE_GELU || op.epilogue == CUBLASLT_EPILOGUE_GELU_BIAS)
        v = gelu(v);
      store(call.d, l[3].type, item * l[3].stride + j * l[3].ld + i, v);
    }
  }
}

} // namespace

extern "C" {

cublasStatus_t
cublasLtCreate(cublasLtHandle_t *handle)
{
  static int context;

  *handle = (cublasLtHandle_t) &context;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtDestroy(cublasLtHandle_t)
{
  return CUBLAS_STATUS_SUCCESS;
}

size_t
cublasLtGetVersion(void)
{
  return 1;
}

const char *
cublasLtGetStatusString(cublasStatus_t status)
{
  return status == CUBLAS_STATUS_SUCCESS ? "success" : "failure";
}

cublasStatus_t
cublasLtMatmulDescInit(cublasLtMatmulDesc_t desc, cublasComputeType_t compute, cudaDataType_t scale)
{
  Op op = {};

  if (scale != CUDA_R_32F)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  op.compute = compute;
  op.epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  memset(desc, 0, sizeof *desc);
  memcpy(desc, &op, sizeof op);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attr,
                               const void *value, size_t size)
{
  Op op = read<Op>(desc);
  cublasStatus_t status = CUBLAS_STATUS_INVALID_VALUE;

  switch (attr) {
  case CUBLASLT_MATMUL_DESC_POINTER_MODE:
    status = set(&op.pointer_mode, value, size);
    break;
  case CUBLASLT_MATMUL_DESC_TRANSA:
    status = set(&op.trans_a, value, size);
    break;
  case CUBLASLT_MATMUL_DESC_EPILOGUE:
    status = set(&op.epilogue, value, size);
    break;
  case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
    status = set(&op.bias, value, size);
    break;
  case CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE:
    status = set(&op.bias_batch, value, size);
    break;
  case CUBLASLT_MATMUL_DESC_ALPHA_VECTOR_BATCH_STRIDE:
    status = set(&op.alpha_batch, value, size);
    break;
  }
  memcpy(desc, &op, sizeof op);
  return status;
}

cublasStatus_t
cublasLtMatrixLayoutInit(cublasLtMatrixLayout_t layout, cudaDataType_t type, uint64_t rows,
                         uint64_t cols, int64_t ld)
{
  const Layout l = { type, 1, rows, cols, ld, 0 };

  memset(layout, 0, sizeof *layout);
  memcpy(layout, &l, sizeof l);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                 cublasLtMatrixLayoutAttribute_t attr, const void *value,
                                 size_t size)
{
  Layout l = read<Layout>(layout);
  const cublasStatus_t status = attr == CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT
                                    ? set(&l.batch, value, size)
                                    : set(&l.stride, value, size);

  memcpy(layout, &l, sizeof l);
  return status;
}

cublasStatus_t
cublasLtMatmulPreferenceInit(cublasLtMatmulPreference_t pref)
{
  memset(pref, 0, sizeof *pref);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t
cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t pref,
                                     cublasLtMatmulPreferenceAttributes_t attr, const void *value,
                                     size_t size)
{
  Preference p = read<Preference>(pref);
  const cublasStatus_t status =
      attr == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES
          ? set(&p.workspace, value, size)
          : set(&p.align[attr - CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES], value, size);

  memcpy(pref, &p, sizeof p);
  return status;
}

/* Two algorithms, which do the same, so that autotuning has a choice. */
cublasStatus_t
cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                               cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                               cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t pref, int max,
                               cublasLtMatmulHeuristicResult_t *results, int *n)
{
  const Layout l[4] = { read<Layout>(a), read<Layout>(b), read<Layout>(c), read<Layout>(d) };
  const Preference p = read<Preference>(pref);
  const cublasStatus_t status = examine(read<Op>(op), l, p.align);

  *n = 0;
  for (int i = 0; i < 2 && i < max && status == CUBLAS_STATUS_SUCCESS; i++, ++*n) {
    results[i] = {};
    results[i].algo.data[0] = (uint64_t) i + 1;
    results[i].workspaceSize = 4096;
  }
  return status;
}

cublasStatus_t
cublasLtMatmulAlgoCheck(cublasLtHandle_t, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a,
                        cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                        cublasLtMatrixLayout_t d, const cublasLtMatmulAlgo_t *algo,
                        cublasLtMatmulHeuristicResult_t *result)
{
  const Layout l[4] = { read<Layout>(a), read<Layout>(b), read<Layout>(c), read<Layout>(d) };

  *result = {};
  result->algo = *algo;
  result->workspaceSize = 4096;
  return algo->data[0] < 1 || algo->data[0] > 2 ? CUBLAS_STATUS_INVALID_VALUE
                                                : examine(read<Op>(op), l, nullptr);
}

cublasStatus_t
cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t op, const void *alpha, const void *a,
               cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
               const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *d,
               cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo, void *workspace,
               size_t workspace_size, cudaStream_t stream)
{
  Call call = { read<Op>(op),
                { read<Layout>(a_layout), read<Layout>(b_layout), read<Layout>(c_layout),
                  read<Layout>(d_layout) },
                a,
                b,
                c,
                d,
                nullptr,
                0,
                *(const float *) beta };
  cublasStatus_t status = examine(call.op, call.l, nullptr);
  const void *const pointers[] = { a, b, c, d };

  if (status != CUBLAS_STATUS_SUCCESS)
    return status;
  for (const void *p : pointers)
    if ((uintptr_t) p % 16 != 0)
      return CUBLAS_STATUS_NOT_SUPPORTED;
  if (workspace_size < 4096 || (uintptr_t) workspace % 256 != 0 || algo->data[0] < 1)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (c == d && memcmp(&call.l[2], &call.l[3], sizeof call.l[2]) != 0)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (call.op.pointer_mode == CUBLASLT_POINTER_MODE_ALPHA_DEVICE_VECTOR_BETA_HOST)
    call.alpha = (const float *) alpha;
  else
    call.alpha_value = *(const float *) alpha;
  enqueue(stream, [=] {
    memset(workspace, 0xFF, 4096);
    for (int64_t item = 0; item < call.l[3].batch; item++)
      multiply_item(call, item);
  });
  return CUBLAS_STATUS_SUCCESS;
}

} // extern "C"
