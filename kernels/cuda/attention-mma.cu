/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attention-mma.cu: bf16 attention on sm_80 and later, cp.async and mma.sync.m16n8k16.
 *
 * Four warps. Warp w owns MT tiles of 16 queries (rows 16 (MT w + i) of the block) over the whole
 * width: scores, softmax and output of a query stay in the four lanes that hold its row, so a
 * block synchronises for the shared copies of K and V only.
 *
 * K and V come through a ring of STAGES slabs, [BN keys, DC columns] each. For every tile of BN
 * keys the ring carries the K slabs of head_dim in pieces of DC (one, but for head dims above
 * 256), then the V slab with the DC output columns of this block. While slab t is worked on, the
 * copies of the next STAGES - 1 are under way:
 *
 *   wait for this thread's part of slab t; __syncthreads (everyone's part is there, and everyone
 *   is done with slab t - 1); start copying slab t + STAGES - 1 into the place of slab t - 1;
 *   work on slab t.
 *
 * A head_dim above 256 makes ceil(head_dim / 256) blocks for the same queries, each of which
 * repeats the scores and has its own columns of the output: 1.5 times the arithmetic for 512, in
 * return for an output that fits in registers (128 floats a thread). Q stays in shared memory.
 *
 * Rows in shared memory are DC + 8 elements apart. That is an odd number of 16-byte pieces, so 8
 * neighbouring rows of one column lie in 8 different bank groups and ldmatrix runs without
 * conflicts, also for DC = 80 where an XOR swizzle of 128-byte rows would not do.
 * Columns from head_dim to DC (72 in 80) and keys that nobody sees are filled with zeros by the
 * copy itself.
 *
 * Expected on an H200, where this path is for what the Hopper kernel refuses: 250 to 350 TFLOP/s
 * at head_dim 128, 200 to 300 at 64; FlashAttention-2 does 267 to 354 there. On an A100 150 to
 * 190.
 */
#include "attention-ptx.cuh"
#include "attention.cuh"

#define LOG2_E 1.44269504088896340736f
#define THREADS 128

namespace
{

typedef __nv_bfloat16 bf16;

/* DC: columns of a slab. MT: 16-query tiles a warp. BN: keys a tile. BIAS: with rel_bias. */
template <int DC_, int MT_, int BN_, int STAGES_, bool BIAS_> struct Shape {
  static constexpr int DC = DC_, MT = MT_, BN = BN_, STAGES = STAGES_;
  static constexpr bool BIAS = BIAS_;
  static constexpr int BM = 64 * MT, PITCH = DC + 8;
  static constexpr bool WIDE = DC == 256; /* takes head dims above DC, in chunks */
  static_assert(DC % 16 == 0 && BN % 16 == 0 && STAGES >= 2, "whole products, a ring");

  static size_t shared(int chunks)
  {
    return ((size_t) chunks * BM + (size_t) STAGES * BN) * PITCH * sizeof(bf16);
  }
};

/* Starts copying [ROWS, DC] to shared memory; zeros from row `rows` and column `columns` on.
 * The addresses follow from one another: computed apart, they would take registers that the
 * output needs. */
template <class S, int ROWS>
OSR_DEV void
copy_slab(uint32_t to, const bf16 *from, int64_t ld, int rows, int columns)
{
  constexpr int PIECES = S::DC / 8, STEP = THREADS / PIECES; /* rows between a thread's pieces */
  constexpr bool EVEN = ROWS % STEP == 0 && THREADS % PIECES == 0; /* not with 80 columns */
  int row = threadIdx.x / PIECES;
  const int column = threadIdx.x % PIECES * 8;
  const bf16 *src = from + row * ld + column;

  to += (row * S::PITCH + column) * (int) sizeof(bf16);
  if (!EVEN && row >= STEP)
    return;
#pragma unroll
  for (int i = 0; i < (ROWS + STEP - 1) / STEP; i++, row += STEP, src += STEP * ld) {
    const bool valid = row < rows && column < columns;

    if (EVEN || row < ROWS)
      cp_async_16(to + i * STEP * S::PITCH * (int) sizeof(bf16), valid ? src : from, valid);
  }
}

/* s += q k^T over one slab. q: this lane's address for the A operand of the warp's first rows,
 * k: for the B operand of the slab's first keys. */
template <class S>
OSR_DEV void
add_scores(float (&s)[S::MT][S::BN / 8][4], uint32_t q, uint32_t k)
{
#pragma unroll
  for (int d = 0; d < S::DC; d += 16) {
    uint32_t a[S::MT][4], b[4];

#pragma unroll
    for (int i = 0; i < S::MT; i++)
      ldmatrix_x4(a[i], q + (16 * i * S::PITCH + d) * (int) sizeof(bf16));
#pragma unroll
    for (int n = 0; n < S::BN; n += 16) {
      ldmatrix_x4(b, k + (n * S::PITCH + d) * (int) sizeof(bf16));
#pragma unroll
      for (int i = 0; i < S::MT; i++) {
        mma_16x8x16(s[i][n / 8], a[i], b[0], b[1]);
        mma_16x8x16(s[i][n / 8 + 1], a[i], b[2], b[3]);
      }
    }
  }
}

/* o += s v over one tile. The lanes hold scores as the products left them, which is how an A
 * operand wants them. */
template <class S>
OSR_DEV void
add_output(float (&o)[S::MT][S::DC / 8][4], const float (&s)[S::MT][S::BN / 8][4], uint32_t v)
{
#pragma unroll
  for (int n = 0; n < S::BN; n += 16) {
    uint32_t a[S::MT][4], b[4];

#pragma unroll
    for (int i = 0; i < S::MT; i++) {
      a[i][0] = pack_bf16(s[i][n / 8][0], s[i][n / 8][1]);
      a[i][1] = pack_bf16(s[i][n / 8][2], s[i][n / 8][3]);
      a[i][2] = pack_bf16(s[i][n / 8 + 1][0], s[i][n / 8 + 1][1]);
      a[i][3] = pack_bf16(s[i][n / 8 + 1][2], s[i][n / 8 + 1][3]);
    }
#pragma unroll
    for (int d = 0; d < S::DC; d += 16) {
      ldmatrix_x4_trans(b, v + (n * S::PITCH + d) * (int) sizeof(bf16));
#pragma unroll
      for (int i = 0; i < S::MT; i++) {
        mma_16x8x16(o[i][d / 8], a[i], b[0], b[1]);
        mma_16x8x16(o[i][d / 8 + 1], a[i], b[2], b[3]);
      }
    }
  }
}

OSR_DEV float
max4(float x)
{
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

OSR_DEV float
sum4(float x)
{
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

/* The rows of a thread: row g (h = 0) and g + 8 (h = 1) of each of its tiles. Accumulators
 * 2 h and 2 h + 1 of each product belong to row h. */
template <class S> struct Rows {
  float max[S::MT][2], sum[S::MT][2];
  int visible[S::MT][2];
  const float *bias[S::MT][2];
};

/* s from raw scores to weights; o and the sums to the new maxima. `key` is that of s[0][0][0]. */
template <class S>
OSR_DEV void
soften(Rows<S> &r, float (&s)[S::MT][S::BN / 8][4], float (&o)[S::MT][S::DC / 8][4], float scale,
       int key, bool masked)
{
#pragma unroll
  for (int i = 0; i < S::MT; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      float tile_max = -INFINITY, tile_sum = 0.0f, new_max, factor, offset;

      if (S::BIAS) {
        /* Keys that the row does not see may lie outside of the table. */
#pragma unroll
        for (int n = 0; n < S::BN; n += 8)
#pragma unroll
          for (int e = 0; e < 2; e++) {
            const float bias = r.bias[i][h][min(key + n + e, r.visible[i][h] - 1)];

            s[i][n / 8][2 * h + e] = fmaf(s[i][n / 8][2 * h + e], scale, bias * LOG2_E);
          }
      }
      if (masked) {
#pragma unroll
        for (int n = 0; n < S::BN; n += 8)
#pragma unroll
          for (int e = 0; e < 2; e++)
            if (key + n + e >= r.visible[i][h])
              s[i][n / 8][2 * h + e] = -INFINITY;
      }
#pragma unroll
      for (int n = 0; n < S::BN / 8; n++)
        tile_max = fmaxf(tile_max, fmaxf(s[i][n][2 * h], s[i][n][2 * h + 1]));
      new_max = fmaxf(r.max[i][h], max4(tile_max));

      /* With a bias the scores have their scale already. */
      const float c = S::BIAS ? 1.0f : scale;

      factor = fast_exp2((r.max[i][h] - new_max) * c);
      offset = new_max * c;
      r.max[i][h] = new_max;
#pragma unroll
      for (int n = 0; n < S::BN / 8; n++)
#pragma unroll
        for (int e = 2 * h; e < 2 * h + 2; e++) {
          s[i][n][e] = fast_exp2(fmaf(s[i][n][e], c, -offset));
          tile_sum += s[i][n][e];
        }
      r.sum[i][h] = r.sum[i][h] * factor + tile_sum;
#pragma unroll
      for (int d = 0; d < S::DC / 8; d++) {
        o[i][d][2 * h] *= factor;
        o[i][d][2 * h + 1] *= factor;
      }
    }
}

/* Blocks as in attention_simt: queries fastest and last first, output columns, heads, batch. */
template <class S>
__global__ void
__launch_bounds__(THREADS) attention_mma(const __grid_constant__ OsrAttention p)
{
  extern __shared__ __align__(16) unsigned char shared[];
  constexpr int BM = S::BM, BN = S::BN, DC = S::DC;
  constexpr int SLAB = BN * S::PITCH * (int) sizeof(bf16);

  const int q_tiles = (int) ((p.lq + BM - 1) / BM);
  const int chunks = S::WIDE ? (p.head_dim + DC - 1) / DC : 1;
  int64_t work = blockIdx.x;
  const int row0 = (q_tiles - 1 - (int) (work % q_tiles)) * BM;
  work /= q_tiles;
  const int column0 = (int) (work % chunks) * DC;
  work /= chunks;
  const int head = (int) (work % p.heads);
  const int64_t b = work / p.heads;

  const int rows = (int) (p.lq - row0 < BM ? p.lq - row0 : BM);
  const int64_t at = (int64_t) head * p.head_dim;
  const bf16 *q = (const bf16 *) p.q + b * p.q_batch + row0 * p.q_ld + at;
  const bf16 *k = (const bf16 *) p.k + b * p.k_batch + at;
  const bf16 *v = (const bf16 *) p.v + b * p.v_batch + at + column0;

  const int64_t kv_len = p.kv_len ? p.kv_len[b] : p.lk;
  const int n_keys = (int) osr_attention_visible(&p, row0 + rows - 1, kv_len);
  const int n_open = (int) osr_attention_visible(&p, row0, kv_len); /* seen by all rows */
  const float scale = p.scale * LOG2_E;

  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int warp_row = 16 * S::MT * warp;
  const uint32_t q_s = smem_address(shared);
  const uint32_t ring = q_s + chunks * BM * S::PITCH * (int) sizeof(bf16);

  /* Lane addresses for ldmatrix: lane 8 i + r has row r of matrix i. A operand: matrices go down
   * 8 rows, then 8 columns right. K: 8 columns right, then down 8 keys. V, transposed: down 8
   * keys, then 8 columns right. */
  const uint32_t q_lane =
      q_s + ((warp_row + lane % 16) * S::PITCH + lane / 16 * 8) * (int) sizeof(bf16);
  const uint32_t k_lane =
      ring + ((lane / 16 * 8 + lane % 8) * S::PITCH + lane / 8 % 2 * 8) * (int) sizeof(bf16);
  const uint32_t v_lane = ring + (lane % 16 * S::PITCH + lane / 16 * 8) * (int) sizeof(bf16);

  Rows<S> r;
  float o[S::MT][DC / 8][4] = {};

#pragma unroll
  for (int i = 0; i < S::MT; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int row = row0 + min(warp_row + 16 * i + 8 * h + g, rows - 1);

      r.visible[i][h] = (int) osr_attention_visible(&p, row, kv_len);
      r.bias[i][h] = S::BIAS ? p.rel_bias + head * (p.lq + p.lk - 1) + (p.lq - 1 - row) : NULL;
      r.max[i][h] = -INFINITY;
      r.sum[i][h] = 0.0f;
    }

  /* The next slab to copy: piece `next_chunk` of K, or V where it equals `chunks`. */
  int next_key = 0, next_chunk = 0, next_stage = 0;
  auto copy_next = [&]() {
    if (next_key < n_keys) {
      const bool is_v = next_chunk == chunks;
      const int64_t ld = is_v ? p.v_ld : p.k_ld;
      const bf16 *from = (is_v ? v : k + next_chunk * DC) + next_key * ld;

      copy_slab<S, BN>(ring + next_stage * SLAB, from, ld, n_keys - next_key,
                       p.head_dim - (is_v ? column0 : next_chunk * DC));
      next_chunk = is_v ? 0 : next_chunk + 1;
      next_key += is_v ? BN : 0;
      next_stage = next_stage + 1 == S::STAGES ? 0 : next_stage + 1;
    }
    cp_async_commit(); /* empty at the end, so that counts of groups stay right */
  };
  int stage = S::STAGES - 1;
  auto next_slab = [&]() { /* where it lies, from the start of the ring */
                           cp_async_wait<S::STAGES - 2>();
                           __syncthreads();
                           copy_next();
                           stage = stage + 1 == S::STAGES ? 0 : stage + 1;
                           return stage * SLAB;
  };

  if (n_keys > 0)
    for (int c = 0; c < chunks; c++)
      copy_slab<S, BM>(q_s + c * BM * S::PITCH * (int) sizeof(bf16), q + c * DC, p.q_ld, rows,
                       p.head_dim - c * DC);
      /* Q belongs to the group of the first slab. */
#pragma unroll
  for (int i = 0; i < S::STAGES - 1; i++)
    copy_next();

  for (int key0 = 0; key0 < n_keys; key0 += BN) {
    float s[S::MT][BN / 8][4] = {};

    for (int c = 0; c < chunks; c++) {
      const int slab = next_slab();

      add_scores<S>(s, q_lane + c * BM * S::PITCH * (int) sizeof(bf16), k_lane + slab);
    }
    soften<S>(r, s, o, scale, key0 + 2 * t, key0 + BN > n_open);
    add_output<S>(o, s, v_lane + next_slab());
  }

  bf16 *to = (bf16 *) p.o + b * p.o_batch + row0 * p.o_ld + at + column0;

#pragma unroll
  for (int i = 0; i < S::MT; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int row = warp_row + 16 * i + 8 * h + g;
      const float total = sum4(r.sum[i][h]), factor = n_keys > 0 ? 1.0f / total : 0.0f;

      if (row >= rows)
        continue;
#pragma unroll
      for (int d = 0; d < DC; d += 8)
        if (column0 + d < p.head_dim)
          *(uint32_t *) (to + row * p.o_ld + d + 2 * t) =
              pack_bf16(o[i][d / 8][2 * h] * factor, o[i][d / 8][2 * h + 1] * factor);
    }
}

template <class S>
static OsrResult
launch(OsrOpsContext *ctx, const OsrAttention *p)
{
  const int chunks = (p->head_dim + S::DC - 1) / S::DC;
  const int64_t q_tiles = (p->lq + S::BM - 1) / S::BM;
  int64_t blocks;

  if (__builtin_mul_overflow(q_tiles * chunks, (int64_t) p->heads, &blocks) ||
      __builtin_mul_overflow(blocks, p->batch, &blocks))
    blocks = INT64_MAX;
  return osr_attention_launch(ctx, "mma", attention_mma<S>, blocks, THREADS, S::shared(chunks), *p);
}

typedef Shape<64, 2, 64, 3, false> Shape64;
typedef Shape<64, 2, 32, 3, true> Shape64Bias;
typedef Shape<80, 2, 64, 3, false> Shape80;
typedef Shape<128, 2, 48, 2, false> Shape128;
typedef Shape<256, 1, 32, 2, false> Shape256;

} // namespace

const char *
osr_cuda_attention_mma_refuses(OsrOpsContext *ctx, const OsrAttention *p)
{
  const OsrCuda *cuda = osr_cuda(ctx);

  if (p->dtype != OSR_DTYPE_BF16)
    return "not bf16";
  if (cuda->capability < 80)
    return "older than sm_80";
  if (!(p->scale > 0.0f && p->scale < INFINITY))
    return "the scale is not positive";
  if (p->head_dim % 8 != 0)
    return "head_dim is not a multiple of 8";
  if (p->rel_bias && p->head_dim > 64)
    return "a bias with a head_dim above 64";
  if (p->head_dim > 128 && Shape256::shared((p->head_dim + 255) / 256) > cuda->max_shared)
    return "the queries of a block do not fit in shared memory";
  if (!osr_attention_aligned(p->q, p->q_ld, p->lq, p->q_batch, p->batch, 16) ||
      !osr_attention_aligned(p->k, p->k_ld, p->lk, p->k_batch, p->batch, 16) ||
      !osr_attention_aligned(p->v, p->v_ld, p->lk, p->v_batch, p->batch, 16))
    return "rows of q, k or v are not aligned to 16 bytes";
  if (!osr_attention_aligned(p->o, p->o_ld, p->lq, p->o_batch, p->batch, 4))
    return "rows of o are not aligned to 4 bytes";
  return NULL;
}

OsrResult
osr_cuda_attention_mma(OsrOpsContext *ctx, const OsrAttention *p)
{
  const char *why = osr_cuda_attention_mma_refuses(ctx, p);

  if (why)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "attention: mma.sync: %s", why);
  if (p->rel_bias)
    return launch<Shape64Bias>(ctx, p);
  if (p->head_dim <= 64)
    return launch<Shape64>(ctx, p);
  if (p->head_dim <= 80)
    return launch<Shape80>(ctx, p);
  if (p->head_dim <= 128)
    return launch<Shape128>(ctx, p);
  return launch<Shape256>(ctx, p);
}
