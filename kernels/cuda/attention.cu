/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attention.cu: the choice of a path, and the last of them: attention without tensor cores, f32
 * throughout. It is the path of f32 (which must be exact to 2e-5; TF32 products are not) and of
 * whatever the bf16 paths refuse. Any head_dim, stride, alignment, scale and mask.
 *
 * A block of 16 x 16 threads owns 64 queries and DV columns of the output, and walks over tiles
 * of 64 keys. Thread (y, x) owns queries 4 y to 4 y + 3 throughout; of the scores keys 4 x to
 * 4 x + 3, of the output columns 4 x to 4 x + 3 of each 64. Operands are staged in shared memory
 * with the summed index outside, so that each step of a sum is two or three 16-byte loads for 16
 * or 4 DV / 16 multiply-adds.
 * A head_dim above DV takes several blocks, each of which makes the scores again: for 512, the
 * VAE's, 2.5 times the arithmetic of one pass, in return for registers that suffice always.
 */
#include "attention-ptx.cuh"
#include "attention.cuh"

#define LOG2_E 1.44269504088896340736f

#define BM 64          /* queries a block */
#define BN 64          /* keys a tile */
#define DEPTH 32       /* of head_dim (scores) or keys (output) staged at a time */
#define PITCH (BM + 4) /* 4 floats of padding: rows stay 16-byte aligned, columns spread */
#define THREADS 256

namespace
{

static_assert(BM == BN, "both operands of the scores are staged alike");

OSR_DEV float
to_float(float x)
{
  return x;
}

OSR_DEV float
to_float(__nv_bfloat16 x)
{
  return __bfloat162float(x);
}

OSR_DEV void
store(float *y, float x)
{
  *y = x;
}

OSR_DEV void
store(__nv_bfloat16 *y, float x)
{
  *y = __float2bfloat16(x);
}

/* to[d][row] = from[row][d] for 64 rows and DEPTH columns, zeros beyond `rows` and `columns`.
 * A warp takes 4 rows x 8 columns at a time: whole sectors of global memory, and banks
 * 4 column + row, all different. */
template <typename T>
OSR_DEV void
stage_transposed(float (*to)[PITCH], const T *from, int64_t ld, int rows, int columns)
{
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

#pragma unroll
  for (int i = 0; i < BM * DEPTH / THREADS; i++) {
    const int piece = warp * (BM * DEPTH / THREADS) + i;
    const int d = piece % (DEPTH / 8) * 8 + lane % 8, row = piece / (DEPTH / 8) * 4 + lane / 8;

    to[d][row] = row < rows && d < columns ? to_float(from[row * ld + d]) : 0.0f;
  }
}

/* to[key][column] = from[key][column] for DEPTH keys and DV columns, zeros beyond. */
template <typename T, int DV>
OSR_DEV void
stage_values(float *to, const T *from, int64_t ld, int keys, int columns)
{
#pragma unroll 8
  for (int i = 0; i < DEPTH * DV / THREADS; i++) {
    const int at = threadIdx.x + i * THREADS, key = at / DV, column = at % DV;

    to[at] = key < keys && column < columns ? to_float(from[key * ld + column]) : 0.0f;
  }
}

/* Over the 16 lanes that share their queries. */
OSR_DEV float
max16(float x)
{
#pragma unroll
  for (int i = 8; i > 0; i /= 2)
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
  return x;
}

OSR_DEV float
sum16(float x)
{
#pragma unroll
  for (int i = 8; i > 0; i /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, i);
  return x;
}

OSR_DEV void
load4(float v[4], const float *from)
{
  const float4 x = *(const float4 *) from;

  v[0] = x.x;
  v[1] = x.y;
  v[2] = x.z;
  v[3] = x.w;
}

/* Blocks: queries fastest, then columns of the output, heads, batch items. The last queries come
 * first: under a causal mask theirs is the most work. */
template <typename T, int DV>
__global__ void
__launch_bounds__(THREADS, 2) attention_simt(const __grid_constant__ OsrAttention p)
{
  constexpr int C4 = DV / 64; /* groups of 4 columns a thread */
  constexpr int STAGE = 2 * DEPTH * PITCH > DEPTH * DV ? 2 * DEPTH * PITCH : DEPTH * DV;
  __shared__ __align__(16) float stage[STAGE];
  __shared__ __align__(16) float weights[BN][PITCH]; /* [key][query] */
  float(*const q_s)[PITCH] = (float(*)[PITCH]) stage;
  float(*const k_s)[PITCH] = q_s + DEPTH;

  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  const int q_tiles = (int) ((p.lq + BM - 1) / BM), v_tiles = (p.head_dim + DV - 1) / DV;
  int64_t work = blockIdx.x;
  const int row0 = (q_tiles - 1 - (int) (work % q_tiles)) * BM;
  work /= q_tiles;
  const int column0 = (int) (work % v_tiles) * DV;
  work /= v_tiles;
  const int head = (int) (work % p.heads);
  const int64_t b = work / p.heads;

  const int rows = (int) (p.lq - row0 < BM ? p.lq - row0 : BM);
  const int columns = p.head_dim - column0;
  const int64_t at = (int64_t) head * p.head_dim;
  const T *q = (const T *) p.q + b * p.q_batch + row0 * p.q_ld + at;
  const T *k = (const T *) p.k + b * p.k_batch + at;
  const T *v = (const T *) p.v + b * p.v_batch + at + column0;
  T *o = (T *) p.o + b * p.o_batch + row0 * p.o_ld + at + column0;

  const int64_t kv_len = p.kv_len ? p.kv_len[b] : p.lk;
  const int n_keys = (int) osr_attention_visible(&p, row0 + rows - 1, kv_len);
  const float scale = p.scale * LOG2_E;
  const float *bias[4];
  int visible[4];
  float max[4], sum[4], out[4][4 * C4];

#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int row = row0 + min(4 * y + i, rows - 1);

    visible[i] = (int) osr_attention_visible(&p, row, kv_len);
    bias[i] = p.rel_bias ? p.rel_bias + head * (p.lq + p.lk - 1) + (p.lq - 1 - row) : NULL;
    max[i] = -INFINITY;
    sum[i] = 0.0f;
#pragma unroll
    for (int c = 0; c < 4 * C4; c++)
      out[i][c] = 0.0f;
  }

  for (int key0 = 0; key0 < n_keys; key0 += BN) {
    const int keys = min(n_keys - key0, BN);
    float s[4][4] = {};

    for (int d0 = 0; d0 < p.head_dim; d0 += DEPTH) {
      __syncthreads();
      stage_transposed(q_s, q + d0, p.q_ld, rows, p.head_dim - d0);
      stage_transposed(k_s, k + key0 * p.k_ld + d0, p.k_ld, keys, p.head_dim - d0);
      __syncthreads();
#pragma unroll 4
      for (int d = 0; d < DEPTH; d++) {
        float a[4], c[4];

        load4(a, &q_s[d][4 * y]);
        load4(c, &k_s[d][4 * x]);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int j = 0; j < 4; j++)
            s[i][j] = fmaf(a[i], c[j], s[i][j]);
      }
    }

#pragma unroll
    for (int i = 0; i < 4; i++) {
      float tile_max = -INFINITY, tile_sum = 0.0f, new_max, factor;

#pragma unroll
      for (int j = 0; j < 4; j++) {
        const int key = key0 + 4 * x + j;

        s[i][j] *= scale;
        if (bias[i] && key < visible[i])
          s[i][j] = fmaf(bias[i][key], LOG2_E, s[i][j]);
        s[i][j] = key < visible[i] ? s[i][j] : -INFINITY;
        tile_max = fmaxf(tile_max, s[i][j]);
      }
      new_max = fmaxf(max[i], max16(tile_max));
      factor = fast_exp2(max[i] - new_max);
      max[i] = new_max;
#pragma unroll
      for (int j = 0; j < 4; j++) {
        s[i][j] = fast_exp2(s[i][j] - new_max);
        tile_sum += s[i][j];
      }
      sum[i] = sum[i] * factor + tile_sum;
#pragma unroll
      for (int c = 0; c < 4 * C4; c++)
        out[i][c] *= factor;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
      *(float4 *) &weights[4 * x + j][4 * y] = make_float4(s[0][j], s[1][j], s[2][j], s[3][j]);

    for (int first = 0; first < keys; first += DEPTH) {
      __syncthreads(); /* the stage is free, and on the first turn the weights are there */
      stage_values<T, DV>(stage, v + (int64_t) (key0 + first) * p.v_ld, p.v_ld, keys - first,
                          columns);
      __syncthreads();
#pragma unroll 4
      for (int key = 0; key < DEPTH; key++) {
        float w[4], c[4];

        load4(w, &weights[first + key][4 * y]);
#pragma unroll
        for (int g = 0; g < C4; g++) {
          load4(c, &stage[key * DV + 64 * g + 4 * x]);
#pragma unroll
          for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++)
              out[i][4 * g + j] = fmaf(w[i], c[j], out[i][4 * g + j]);
        }
      }
    }
  }

#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float total = sum16(sum[i]);
    const float factor = n_keys > 0 ? 1.0f / total : 0.0f;

    if (4 * y + i >= rows)
      continue;
#pragma unroll
    for (int g = 0; g < C4; g++)
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (64 * g + 4 * x + j < columns)
          store(o + (4 * y + i) * p.o_ld + 64 * g + 4 * x + j, out[i][4 * g + j] * factor);
  }
}

template <typename T, int DV>
static OsrResult
launch(OsrOpsContext *ctx, const OsrAttention *p)
{
  const int64_t q_tiles = (p->lq + BM - 1) / BM, v_tiles = (p->head_dim + DV - 1) / DV;
  int64_t blocks;

  if (__builtin_mul_overflow(q_tiles * v_tiles, (int64_t) p->heads, &blocks) ||
      __builtin_mul_overflow(blocks, p->batch, &blocks))
    blocks = INT64_MAX;
  return osr_attention_launch(ctx, "simt", attention_simt<T, DV>, blocks, THREADS, 0, *p);
}

} // namespace

OsrResult
osr_cuda_attention_simt(OsrOpsContext *ctx, const OsrAttention *p)
{
  if (p->dtype == OSR_DTYPE_BF16)
    return p->head_dim <= 64 ? launch<__nv_bfloat16, 64>(ctx, p)
                             : launch<__nv_bfloat16, 128>(ctx, p);
  return p->head_dim <= 64 ? launch<float, 64>(ctx, p) : launch<float, 128>(ctx, p);
}

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

  if (!osr_cuda_attention_wgmma_refuses(ctx, p)) {
    OsrResult result = osr_cuda_attention_wgmma(ctx, p, OSR_WGMMA_DEFAULT);

    if (result != OSR_ERR_UNSUPPORTED)
      return result;
  }
  if (!osr_cuda_attention_mma_refuses(ctx, p))
    return osr_cuda_attention_mma(ctx, p);
  return osr_cuda_attention_simt(ctx, p);
}
