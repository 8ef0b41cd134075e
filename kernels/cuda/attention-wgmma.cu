/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * attention-wgmma.cu: bf16 attention on Hopper (sm_90a), head_dim 64 and 128, without causal masks.
 *
 * Work. A block of three warpgroups (384 threads, one block a multiprocessor, persistent) owns
 * 128 queries of a head at a time and walks over tiles of BN keys. The first warpgroup gives its
 * registers away, and one lane of it starts all copies. The other two each have 64 queries and
 * do two products a tile, S = Q K^T and O += P V, and the softmax between them. Tiles are taken
 * from the last key to the first, so that only the first one, which is not part of the loop, can
 * be partly beyond the end and needs a mask.
 *
 * Shared memory, from a multiple of 1024 bytes on (D / 64 panels each, a panel being 64 columns
 * = 128 bytes of a number of rows, swizzled):
 *   Q  [panel][128 rows][64]       rows 0-63: first consumer, 64-127: second
 *   K  [stage][panel][BN rows][64]
 *   V  [stage][panel][BN rows][64]
 *
 * Swizzle. The copy engine stores the 16-byte piece c of row r of a panel as piece c ^ (r % 8) of
 * its row (CU_TENSOR_MAP_SWIZZLE_128B: address bits 4-6 ^= bits 7-9), so both rows and columns of
 * 8 x 8 pieces spread over all banks. The products undo it through their matrix descriptors
 * (layout 1), which look at the same address bits: that is why panels begin at multiples of 1024.
 * A descriptor holds the start address and two strides, all in 16 bytes:
 *   Q and K (k = head_dim along the rows): the strides say how far apart groups of 8 rows are
 *     (1024 bytes); the other is not used. 16 columns further is the start address + 32 bytes:
 *     inside of a swizzled row, but the XOR takes the row from the address bits above.
 *   V (k = keys down the rows, n = head_dim along them, "transposed"): groups of 8 keys are 1024
 *     bytes apart (stride field), panels of 64 columns BN * 128 bytes (leading field). 16 keys
 *     further is the start address + 2048 bytes.
 * P never leaves the registers: the accumulator layout of S is the A operand layout of O += P V.
 *
 * Barriers (mbarrier; "full" counts bytes, "empty" one arrival from each of the 8 consumer warps,
 * since a warp knows of the end of its own quarter of a product only):
 *   q_full, q_empty         one Q tile
 *   k_full[s], k_empty[s]   the ring of K tiles; v_full[s], v_empty[s] that of V
 * A stage's n-th use waits for parity n % 2. Producer order: Q, K(n-1), then K(j - 1), V(j) for
 * falling j, and V(0): the order in which the consumers want them. The rings go on across tiles
 * of queries: the next Q and K are fetched while the output of the last is stored.
 *
 * Schedule of a consumer, j falling:
 *   issue S' = Q K(j); issue O += P V(j + 1)   both asynchronous
 *   wait for S'; give K back; softmax of S'    while O += P V runs on the tensor cores
 *   wait for O; give V back; O *= factor; P = bf16(S')
 * Two named barriers make the consumers take turns in issuing: while one has its products on the
 * tensor cores the other is in its exponentials. A consumer waits for its turn before it issues
 * and passes the turn on right after. Per tile of 128 x 176 a multiprocessor's tensor cores need
 * 2816 cycles and its special function units 1408 (4 exponentials a cycle and quarter), so with
 * both busy at once the products set the pace.
 *
 * The O *= factor is left out while no row's maximum has risen by more than 2^8 over the reference
 * that its exponentials use (LAZY): the softmax does not depend on the reference, f32 sums have
 * the range, and bf16 rounds weights of up to 256 as finely as those of up to 1.
 *
 * Expected on one H200: 600 to 650 TFLOP/s at 8.8k and 76k tokens, 24 heads of 128; without the
 * overlap inside a warpgroup 550 to 580; with 128 keys a tile 560 to 620. head_dim 64: 400 to 450
 * (half the products for each exponential).
 */
#include "attention-ptx.cuh"
#include "attention.cuh"

#define LOG2_E 1.44269504088896340736f
#define LAZY_LIMIT 8.0f /* log2 of the growth that is let pass */

#define BM 128
#define THREADS 384
#define CONSUMER_THREADS 256
#define CONSUMER_WARPS 8
/* 128 x 24 + 256 x 240 registers <= 65536. */
#define PRODUCER_REGISTERS 24
#define CONSUMER_REGISTERS 240

#define ROW_BYTES 128 /* of a panel: 64 columns */
#define GROUP_BYTES 1024

/* Named barriers; 0 is __syncthreads. */
#define BARRIER_TURN 1 /* and 2: consumer 0's turn, consumer 1's */
#define BARRIER_CONSUMERS 3

/* Outside of the namespace below, so that no compiler counts the members that a pass without
 * wgmma does not use. */
template <int D_, int BN_, int STAGES_, bool OVERLAP_, bool TURNS_, bool LAZY_>
struct AttentionWgmmaShape {
  static constexpr int D = D_, BN = BN_, STAGES = STAGES_, PANELS = D / 64;
  /* OVERLAP: the softmax of a tile runs beside the second product of the one before. TURNS: the
   * consumers take turns. LAZY: see above. */
  static constexpr bool OVERLAP = OVERLAP_, TURNS = TURNS_, LAZY = LAZY_;
  static constexpr int Q_PANEL = BM * ROW_BYTES, KV_PANEL = BN * ROW_BYTES;
  static constexpr int Q_BYTES = PANELS * Q_PANEL, KV_BYTES = PANELS * KV_PANEL;
  /* A kilobyte for the alignment of the start. */
  static constexpr int SHARED = Q_BYTES + 2 * STAGES * KV_BYTES + 1024;
  static_assert(D % 64 == 0 && BN % 16 == 0 && BN <= 256, "panels, products and copies are whole");
  static_assert(SHARED <= 227 * 1024 - 256, "fits beside the barriers");
};

namespace
{

typedef __nv_bfloat16 bf16;

struct Args {
  int64_t o_ld, o_batch;
  bf16 *o;
  const int32_t *kv_len;
  int lq, lk, heads, q_tiles, n_tiles;
  float scale; /* with log2(e) */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

template <class S> struct Barriers {
  uint64_t q_full, q_empty;
  uint64_t k_full[S::STAGES], k_empty[S::STAGES];
  uint64_t v_full[S::STAGES], v_empty[S::STAGES];
};

/* A place in a ring. */
template <class S> struct Turn {
  int stage = 0;
  uint32_t parity = 0;

  __device__ __forceinline__ void next(void)
  {
    if (++stage == S::STAGES) {
      stage = 0;
      parity ^= 1;
    }
  }
};

struct Tile {
  int row, head, batch, n_keys;
};

/* Queries fastest: the blocks at work at one time mostly share K and V in the L2. */
OSR_DEV Tile
find_tile(const Args &a, int index)
{
  const int rest = index / a.q_tiles;
  Tile tile = { index % a.q_tiles * BM, rest % a.heads, rest / a.heads, a.lk };

  if (a.kv_len)
    tile.n_keys = min(max(a.kv_len[tile.batch], 0), a.lk);
  return tile;
}

/* --- the producer: one thread --- */

template <class S>
OSR_DEV void
load_panels(unsigned char *to, const CUtensorMap *map, uint64_t *full, const Tile &tile, int row,
            int panel_bytes)
{
  mbarrier_arrive_expect(full, S::PANELS * panel_bytes);
#pragma unroll
  for (int i = 0; i < S::PANELS; i++)
    tma_load_3d(to + i * panel_bytes, map, full, tile.head * S::D + 64 * i, row, tile.batch);
}

template <class S>
OSR_DEV void
produce(const CUtensorMap *q_map, const CUtensorMap *k_map, const CUtensorMap *v_map, const Args &a,
        Barriers<S> *bar, unsigned char *q_s, unsigned char *k_s, unsigned char *v_s)
{
  Turn<S> k, v;
  uint32_t q_parity = 0;

  auto load_k = [&](const Tile &tile, int j) {
    mbarrier_wait(&bar->k_empty[k.stage], k.parity ^ 1);
    load_panels<S>(k_s + k.stage * S::KV_BYTES, k_map, &bar->k_full[k.stage], tile, j * S::BN,
                   S::KV_PANEL);
    k.next();
  };
  auto load_v = [&](const Tile &tile, int j) {
    mbarrier_wait(&bar->v_empty[v.stage], v.parity ^ 1);
    load_panels<S>(v_s + v.stage * S::KV_BYTES, v_map, &bar->v_full[v.stage], tile, j * S::BN,
                   S::KV_PANEL);
    v.next();
  };

  for (int index = blockIdx.x; index < a.n_tiles; index += gridDim.x) {
    const Tile tile = find_tile(a, index);
    int j = (tile.n_keys + S::BN - 1) / S::BN - 1;

    if (j < 0)
      continue;
    mbarrier_wait(&bar->q_empty, q_parity ^ 1);
    q_parity ^= 1;
    load_panels<S>(q_s, q_map, &bar->q_full, tile, tile.row, S::Q_PANEL);
    load_k(tile, j);
    for (; j > 0; j--) {
      load_k(tile, j - 1);
      load_v(tile, j);
    }
    load_v(tile, 0);
  }
}

/* --- the consumers: a warpgroup each --- */

/* Matrix descriptors. The upper half is the same for all: layout 1 (128-byte swizzle) and 1024
 * bytes between groups of 8 rows. The lower half is the start address and, for V, the distance of
 * its panels; only it is counted up, in 32 bits. */
OSR_DEV uint32_t
descriptor(const void *start, int panel)
{
  return (smem_address(start) >> 4) | (uint32_t) (panel >> 4) << 16;
}

OSR_DEV uint64_t
descriptor_at(uint32_t lower, int bytes)
{
  return ((uint64_t) 1 << 62 | (uint64_t) (GROUP_BYTES >> 4) << 32) + (lower + bytes / 16);
}

/* s = q k^T: 64 rows of Q, BN keys. */
template <class S>
OSR_DEV void
issue_scores(float (&s)[S::BN / 2], const unsigned char *q, const unsigned char *k)
{
  const uint32_t q_desc = descriptor(q, 16), k_desc = descriptor(k, 16);

#pragma unroll
  for (int d = 0; d < S::D; d += 16)
    wgmma_ss(s, descriptor_at(q_desc, d / 64 * S::Q_PANEL + d % 64 * 2),
             descriptor_at(k_desc, d / 64 * S::KV_PANEL + d % 64 * 2), d > 0);
  wgmma_commit();
}

/* o += p v. p: the A operands of BN / 16 products. */
template <class S>
OSR_DEV void
issue_output(float (&o)[S::D / 2], const uint32_t (&p)[S::BN / 4], const unsigned char *v)
{
  const uint32_t v_desc = descriptor(v, S::KV_PANEL);

#pragma unroll
  for (int key = 0; key < S::BN; key += 16)
    wgmma_rs(o, p + key / 4, descriptor_at(v_desc, key * ROW_BYTES));
  wgmma_commit();
}

/* Scores of one parity of a thread, columns 8 j + {0, 1}: s[4 j + 2 h], s[4 j + 2 h + 1] belong to
 * its row g (h = 0) or g + 8 (h = 1). Two chains keep the latency of fmaxf and of the sums short.
 */
template <int N>
OSR_DEV float
row_max(const float (&s)[N], int h)
{
  float a = fmaxf(s[2 * h], s[2 * h + 1]), b = fmaxf(s[4 + 2 * h], s[4 + 2 * h + 1]);

#pragma unroll
  for (int j = 8; j < N; j += 8) {
    a = fmaxf(a, fmaxf(s[j + 2 * h], s[j + 2 * h + 1]));
    b = fmaxf(b, fmaxf(s[j + 4 + 2 * h], s[j + 4 + 2 * h + 1]));
  }
  a = fmaxf(a, b);
  a = fmaxf(a, __shfl_xor_sync(0xffffffffu, a, 1));
  return fmaxf(a, __shfl_xor_sync(0xffffffffu, a, 2));
}

/* s = exp2(scale s - offset), and their sum. */
template <int N>
OSR_DEV float
row_exp2(float (&s)[N], int h, float scale, float offset)
{
  float a = 0.0f, b = 0.0f;

#pragma unroll
  for (int j = 0; j < N; j += 4) {
    s[j + 2 * h] = fast_exp2(fmaf(s[j + 2 * h], scale, -offset));
    s[j + 2 * h + 1] = fast_exp2(fmaf(s[j + 2 * h + 1], scale, -offset));
    a += s[j + 2 * h];
    b += s[j + 2 * h + 1];
  }
  return a + b;
}

template <int N>
OSR_DEV void
pack_weights(uint32_t (&p)[N / 2], const float (&s)[N])
{
#pragma unroll
  for (int i = 0; i < N / 2; i++)
    p[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

/* What a thread knows of its two rows. */
struct Rows {
  float max[2]; /* the reference of the exponentials, in unscaled scores */
  float sum[2]; /* over this thread's columns */
  float factor[2];
  bool rescale; /* o has to be multiplied by factor */
};

template <class S>
OSR_DEV void
soften_first(Rows &r, float (&s)[S::BN / 2], float scale)
{
#pragma unroll
  for (int h = 0; h < 2; h++) {
    r.max[h] = row_max(s, h);
    r.sum[h] = row_exp2(s, h, scale, r.max[h] * scale);
  }
}

template <class S>
OSR_DEV void
soften(Rows &r, float (&s)[S::BN / 2], float scale)
{
  float max[2];

#pragma unroll
  for (int h = 0; h < 2; h++)
    max[h] = fmaxf(r.max[h], row_max(s, h));
  r.rescale = true;
  if (S::LAZY) {
    const float growth = fmaxf(max[0] - r.max[0], max[1] - r.max[1]) * scale;

    r.rescale = __any_sync(0xffffffffu, growth > LAZY_LIMIT);
  }
  if (r.rescale) {
#pragma unroll
    for (int h = 0; h < 2; h++) {
      r.factor[h] = fast_exp2((r.max[h] - max[h]) * scale);
      r.sum[h] *= r.factor[h];
      r.max[h] = max[h];
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++)
    r.sum[h] += row_exp2(s, h, scale, r.max[h] * scale);
}

/* Each quad of lanes has a 4 x 4 matrix, a column a lane; afterwards a row a lane. */
OSR_DEV void
transpose_quad(uint32_t (&u)[4])
{
  const int lane = threadIdx.x;

#pragma unroll
  for (int bit = 1; bit <= 2; bit *= 2) {
    const bool upper = (lane & bit) != 0;

#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (i & bit)
        continue;
      const uint32_t got = __shfl_xor_sync(0xffffffffu, upper ? u[i] : u[i + bit], bit);

      if (upper)
        u[i] = got;
      else
        u[i + bit] = got;
    }
  }
}

/* Rows row and row + 8 of o, 16 bytes a lane: four products' columns are exchanged inside of the
 * quad that holds a row. */
template <class S>
OSR_DEV void
store_output(const Args &a, const Tile &tile, int row, const float (&o)[S::D / 2],
             const float (&factor)[2])
{
  const int t = threadIdx.x % 4;

#pragma unroll
  for (int h = 0; h < 2; h++) {
    bf16 *to = a.o + tile.batch * a.o_batch + (int64_t) (row + 8 * h) * a.o_ld + tile.head * S::D;

#pragma unroll
    for (int d = 0; d < S::D; d += 32) {
      uint32_t u[4];

#pragma unroll
      for (int i = 0; i < 4; i++)
        u[i] = pack_bf16(o[d / 2 + 4 * i + 2 * h] * factor[h],
                         o[d / 2 + 4 * i + 2 * h + 1] * factor[h]);
      transpose_quad(u);
      if (row + 8 * h < a.lq)
        *(uint4 *) (to + d + 8 * t) = make_uint4(u[0], u[1], u[2], u[3]);
    }
  }
}

template <class S>
OSR_DEV void
consume(const Args &a, Barriers<S> *bar, const unsigned char *q_s, const unsigned char *k_s,
        unsigned char *v_s)
{
  const int consumer = threadIdx.x / 128 - 1, thread = threadIdx.x % 128, lane = thread % 32;
  const int my_row = 64 * consumer + thread / 32 * 16 + lane / 4, t = lane % 4;
  const int my_turn = BARRIER_TURN + consumer, other_turn = BARRIER_TURN + 1 - consumer;
  const float scale = a.scale;
  Turn<S> k, v;
  uint32_t q_parity = 0;

  auto give_back = [&](uint64_t *empty) {
    if (lane == 0)
      mbarrier_arrive(empty);
  };

  q_s += 64 * consumer * ROW_BYTES;
  if (S::TURNS && consumer == 1)
    named_barrier_arrive(other_turn, CONSUMER_THREADS); /* consumer 0 begins */

  for (int index = blockIdx.x; index < a.n_tiles; index += gridDim.x) {
    const Tile tile = find_tile(a, index);
    const int last = (tile.n_keys + S::BN - 1) / S::BN - 1, rest = tile.n_keys - last * S::BN;
    float s[S::BN / 2], o[S::D / 2], factor[2] = { 0.0f, 0.0f };
    uint32_t p[S::BN / 4];
    Rows r;

#pragma unroll
    for (int i = 0; i < S::D / 2; i++)
      o[i] = 0.0f;

    if (last >= 0) {
      /* The last keys: the only tile that may need a mask. */
      mbarrier_wait(&bar->q_full, q_parity);
      q_parity ^= 1;
      mbarrier_wait(&bar->k_full[k.stage], k.parity);
      wgmma_fence();
      issue_scores<S>(s, q_s, k_s + k.stage * S::KV_BYTES);
      wgmma_wait<0>();
      wgmma_landed(s);
      give_back(&bar->k_empty[k.stage]);
      k.next();
      if (rest < S::BN) {
#pragma unroll
        for (int i = 0; i < S::BN / 2; i++)
          if (i / 4 * 8 + i % 2 + 2 * t >= rest)
            s[i] = -INFINITY;
      }
      soften_first<S>(r, s, scale);
      pack_weights(p, s);
      if (tile.n_keys < a.lk && rest < S::BN) {
        /* Padding behind kv_len may hold NaN, and 0 * NaN is none. (The copy engine has put
         * zeros behind lk.) */
        mbarrier_wait(&bar->v_full[v.stage], v.parity);
        for (int i = 0; i < S::PANELS; i++) {
          unsigned char *panel = v_s + v.stage * S::KV_BYTES + i * S::KV_PANEL;

          for (int at = rest * ROW_BYTES + (int) (threadIdx.x - 128) * 16; at < S::KV_PANEL;
               at += CONSUMER_THREADS * 16)
            *(uint4 *) (panel + at) = make_uint4(0, 0, 0, 0);
        }
        fence_async_shared();
        named_barrier_sync(BARRIER_CONSUMERS, CONSUMER_THREADS);
      }

      if (last > 0)
        mbarrier_wait(&bar->k_full[k.stage], k.parity);
      for (int j = last; j > 0; j--) {
        if (S::TURNS)
          named_barrier_sync(my_turn, CONSUMER_THREADS);
        wgmma_fence();
        issue_scores<S>(s, q_s, k_s + k.stage * S::KV_BYTES);
        mbarrier_wait(&bar->v_full[v.stage], v.parity);
        wgmma_fence();
        issue_output<S>(o, p, v_s + v.stage * S::KV_BYTES);
        if (S::TURNS)
          named_barrier_arrive(other_turn, CONSUMER_THREADS);

        wgmma_wait<S::OVERLAP ? 1 : 0>();
        wgmma_landed(s);
        give_back(&bar->k_empty[k.stage]);
        k.next();
        soften<S>(r, s, scale);
        /* The next K is needed soon anyway. Waited for here, between the exponentials and the wait
         * for O, its branch also keeps ptxas from moving that wait up in front of them, which
         * would undo the overlap (in SASS, MUFU.EX2 belongs before WARPGROUP.DEPBAR 0). */
        wgmma_landed(s);
        if (j > 1)
          mbarrier_wait(&bar->k_full[k.stage], k.parity);

        wgmma_wait<0>();
        wgmma_landed(o);
        wgmma_landed(p);
        give_back(&bar->v_empty[v.stage]);
        v.next();
        if (r.rescale) {
#pragma unroll
          for (int i = 0; i < S::D / 2; i++)
            o[i] *= r.factor[i / 2 % 2];
        }
        pack_weights(p, s);
      }
      give_back(&bar->q_empty);

      mbarrier_wait(&bar->v_full[v.stage], v.parity);
      wgmma_fence();
      issue_output<S>(o, p, v_s + v.stage * S::KV_BYTES);
      wgmma_wait<0>();
      wgmma_landed(o);
      give_back(&bar->v_empty[v.stage]);
      v.next();

#pragma unroll
      for (int h = 0; h < 2; h++) {
        r.sum[h] += __shfl_xor_sync(0xffffffffu, r.sum[h], 1);
        r.sum[h] += __shfl_xor_sync(0xffffffffu, r.sum[h], 2);
        factor[h] = 1.0f / r.sum[h];
      }
    }
    store_output<S>(a, tile, tile.row + my_row, o, factor);
  }
}

#endif /* __CUDA_ARCH_FEAT_SM90_ALL */

/* See osr_cuda_has_kernel(). */
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define BOUND THREADS
#else
#define BOUND 1
#endif

template <class S>
__global__ void
__launch_bounds__(BOUND, 1)
    attention_wgmma(const __grid_constant__ CUtensorMap q_map,
                    const __grid_constant__ CUtensorMap k_map,
                    const __grid_constant__ CUtensorMap v_map, const __grid_constant__ Args a)
{
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ unsigned char shared[];
  __shared__ Barriers<S> bar;
  /* The swizzle looks at addresses in the window of shared memory. */
  unsigned char *const q_s = shared + (0u - smem_address(shared)) % 1024;
  unsigned char *const k_s = q_s + S::Q_BYTES, *const v_s = k_s + S::STAGES * S::KV_BYTES;

  if (threadIdx.x == 0) {
    tma_prefetch_map(&q_map);
    tma_prefetch_map(&k_map);
    tma_prefetch_map(&v_map);
    mbarrier_init(&bar.q_full, 1);
    mbarrier_init(&bar.q_empty, CONSUMER_WARPS);
    for (int i = 0; i < S::STAGES; i++) {
      mbarrier_init(&bar.k_full[i], 1);
      mbarrier_init(&bar.k_empty[i], CONSUMER_WARPS);
      mbarrier_init(&bar.v_full[i], 1);
      mbarrier_init(&bar.v_empty[i], CONSUMER_WARPS);
    }
    mbarrier_init_fence();
  }
  __syncthreads();

  if (threadIdx.x < 128) {
    registers_lower<PRODUCER_REGISTERS>();
    if (threadIdx.x == 0)
      produce<S>(&q_map, &k_map, &v_map, a, &bar, q_s, k_s, v_s);
  } else {
    registers_raise<CONSUMER_REGISTERS>();
    consume<S>(a, &bar, q_s, k_s, v_s);
  }
#endif
}

/* --- host --- */

typedef CUresult (*EncodeTiled)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *,
                                const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* The driver's function, without linking against the driver: the module is loaded where there is
 * none, too. NULL if it has none. */
static EncodeTiled
find_encode(void)
{
  cudaDriverEntryPointQueryResult found;
  void *f = NULL;

  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault,
                                       &found) != cudaSuccess ||
      found != cudaDriverEntryPointSuccess) {
    cudaGetLastError();
    return NULL;
  }
  return (EncodeTiled) f;
}

/* [batch, rows, columns] read in boxes of [1, box_rows, 64 columns]. */
static bool
encode(CUtensorMap *map, const void *data, int64_t columns, int64_t rows, int64_t ld, int64_t batch,
       int64_t stride, int box_rows)
{
  static const EncodeTiled encode_tiled = find_encode();
  /* The distance of a single row or item may be anything, but not for the driver. */
  const int64_t row = rows > 1 ? ld : columns, item = batch > 1 ? stride : rows * row;
  const cuuint64_t sizes[3] = { (cuuint64_t) columns, (cuuint64_t) rows, (cuuint64_t) batch };
  const cuuint64_t strides[2] = { (cuuint64_t) row * sizeof(bf16),
                                  (cuuint64_t) item * sizeof(bf16) };
  const cuuint32_t box[3] = { 64, (cuuint32_t) box_rows, 1 }, steps[3] = { 1, 1, 1 };

  return encode_tiled &&
         encode_tiled(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *) data, sizes, strides, box,
                      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                      CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                      CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <class S>
static OsrResult
launch(OsrOpsContext *ctx, const OsrAttention *p)
{
  const int64_t columns = (int64_t) p->heads * p->head_dim, q_tiles = (p->lq + BM - 1) / BM;
  CUtensorMap q_map, k_map, v_map;
  int64_t tiles;
  Args a = {};

  if (__builtin_mul_overflow(q_tiles * p->heads, p->batch, &tiles) || tiles > INT32_MAX / 2)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "attention: too many tiles of %d queries", BM);
  if (!osr_cuda_has_kernel((const void *) attention_wgmma<S>, THREADS))
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "attention: not built for sm_90a");
  if (!encode(&q_map, p->q, columns, p->lq, p->q_ld, p->batch, p->q_batch, BM) ||
      !encode(&k_map, p->k, columns, p->lk, p->k_ld, p->batch, p->k_batch, S::BN) ||
      !encode(&v_map, p->v, columns, p->lk, p->v_ld, p->batch, p->v_batch, S::BN))
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "attention: no tensor map of these strides");

  a.o = (bf16 *) p->o;
  a.o_ld = p->o_ld;
  a.o_batch = p->o_batch;
  a.kv_len = p->kv_len;
  a.lq = (int) p->lq;
  a.lk = (int) p->lk;
  a.heads = p->heads;
  a.q_tiles = (int) q_tiles;
  a.n_tiles = (int) tiles;
  a.scale = p->scale * LOG2_E;
  return osr_attention_launch(ctx, "wgmma", attention_wgmma<S>,
                              tiles < osr_cuda(ctx)->n_sms ? tiles : osr_cuda(ctx)->n_sms, THREADS,
                              S::SHARED, q_map, k_map, v_map, a);
}

} // namespace

const char *
osr_cuda_attention_wgmma_refuses(OsrOpsContext *ctx, const OsrAttention *p)
{
  if (p->dtype != OSR_DTYPE_BF16)
    return "not bf16";
  if (osr_cuda(ctx)->capability != 90)
    return "not sm_90";
  if (p->head_dim != 64 && p->head_dim != 128)
    return "head_dim is neither 64 nor 128";
  if (p->mask != OSR_MASK_NONE || p->rel_bias)
    return "a causal mask or a bias";
  if (p->lk == 0)
    return "no keys";
  if (!(p->scale > 0.0f && p->scale < INFINITY))
    return "the scale is not positive";
  if (!osr_attention_aligned(p->q, p->q_ld, p->lq, p->q_batch, p->batch, 16) ||
      !osr_attention_aligned(p->k, p->k_ld, p->lk, p->k_batch, p->batch, 16) ||
      !osr_attention_aligned(p->v, p->v_ld, p->lk, p->v_batch, p->batch, 16) ||
      !osr_attention_aligned(p->o, p->o_ld, p->lq, p->o_batch, p->batch, 16))
    return "rows of q, k, v or o are not aligned to 16 bytes";
  return NULL;
}

OsrResult
osr_cuda_attention_wgmma(OsrOpsContext *ctx, const OsrAttention *p, OsrWgmmaVariant variant)
{
  const char *why = osr_cuda_attention_wgmma_refuses(ctx, p);

  if (why)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "attention: Hopper kernel: %s", why);
  if (p->head_dim == 64)
    return launch<AttentionWgmmaShape<64, 128, 2, true, true, true>>(ctx, p);
  switch (variant) {
#ifdef OSR_ATTENTION_VARIANTS
  case OSR_WGMMA_128:
    return launch<AttentionWgmmaShape<128, 128, 2, true, true, true>>(ctx, p);
  case OSR_WGMMA_128X3:
    return launch<AttentionWgmmaShape<128, 128, 3, true, true, true>>(ctx, p);
  case OSR_WGMMA_NO_OVERLAP:
    return launch<AttentionWgmmaShape<128, 176, 2, false, true, true>>(ctx, p);
  case OSR_WGMMA_NO_TURNS:
    return launch<AttentionWgmmaShape<128, 176, 2, true, false, true>>(ctx, p);
  case OSR_WGMMA_EAGER:
    return launch<AttentionWgmmaShape<128, 176, 2, true, true, false>>(ctx, p);
#endif
  default:
    return launch<AttentionWgmmaShape<128, 176, 2, true, true, true>>(ctx, p);
  }
}
