/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * conv.cuh: conv3d as an implicit matrix product, what its kernels share.
 *
 * M are the output voxels, N the output channels, K the taps times the input channels. Both
 * operands lie in shared memory as rows of 128 bytes, one row a voxel or an output channel,
 * and one *step* of the product is the 64 (bf16) or 32 (f32) products of K that such a row
 * holds. Rows are swizzled: the 16-byte chunk j of row r lies at place j ^ (r % 8), so that
 * eight rows of one chunk meet all 32 banks. wgmma reads that layout by itself, ldmatrix with
 * the same formula, and cp.async writes it without a conflict.
 *
 * Voxels are gathered: each thread copies 16-byte chunks, always of the same chunk column, to
 * a fixed set of rows. What lies outside the video is another voxel (replicate padding) or a
 * copy of no bytes (zeros), so there is no padded copy. The order of K is
 *
 *     k = ((tap of t and h * blocks + block of channels) * taps of w + tap of w) * block size
 *
 * with blocks of one step where the channels allow, else one block of all channels. The taps
 * of w are inside because their rows are the same voxels but for one: they come out of L1.
 *
 * Weights are packed before (conv-prepare.cu): the tiles lie in memory as they will lie in
 * shared memory, swizzle, tail zeros and summed taps of the up-sampling included. A product
 * of 10 TFLOP pays for that a copy of a few megabytes, and every kernel is spared the cases.
 *
 * Up-sampling: among 3 taps over doubled samples two read the same sample, so even and odd
 * outputs are convolutions of 2 taps with summed weights, on the stored samples: 4 phases of
 * 12 taps for doubled height and width, 8 of 8 with doubled time, for 27. All phases are one
 * launch, with weights of their own.
 */
#ifndef OSR_CUDA_CONV_CUH
#define OSR_CUDA_CONV_CUH

#include "conv-ptx.cuh"
#include "device.cuh"

#define OSR_CONV_ROW 128 /* bytes of a row in shared memory */
#define OSR_CONV_MAX_PHASES 8

/* Largest number of input voxels: offsets in voxels are 32 bit, with room for a sign. */
#define OSR_CONV_MAX_VOXELS (1 << 29)

/* What all phases have in common along one axis. Output j of a phase reads virtual samples
 * first + j * step + [0, taps); those outside [0, size) are padding, and virtual sample i is
 * stored sample (i + add) >> shift; only time adds. */
typedef struct OsrConvAxis {
  int taps, step;
  int size, add, shift;
  int out_step; /* between outputs of a phase */
} OsrConvAxis;

typedef struct OsrConvPhase {
  uint32_t m;        /* rows: batch * n_t * n_h * n_w */
  int first_tile;    /* tiles of rows in the phases before */
  int n_t, n_h, n_w; /* outputs */
  int out_t, out_h, out_w;
  int first_t, first_h, first_w;
  int cut_t, cut_h, cut_w; /* summed taps are [0, cut) and [cut, 3); 0: as they are */
} OsrConvPhase;

/* A convolution as the kernels see it. */
typedef struct OsrConvArgs {
  const void *x;     /* [in_t * batch][in_h][in_w][c] */
  const void *w;     /* [phases][n_tiles][k_steps][BN][128 bytes], swizzled */
  const float *bias; /* [n_tiles][BN] */
  const void *residual;
  void *y;
  int in_t, in_h, in_w;
  int out_t, out_h, out_w;
  int c, c_block, blocks; /* c = c_block * blocks, a multiple of 16 bytes */
  int c_out;
  int k_steps;
  int m_tiles, n_tiles;
  bool replicate;
  bool vector; /* rows of y and residual allow accesses of 4 elements */
  OsrConvAxis t, h, w_axis;
  int n_phases;
  OsrConvPhase phase[OSR_CONV_MAX_PHASES];
} OsrConvArgs;

/* A kernel of one tile size. */
typedef struct OsrConvKernel {
  const char *name;
  OsrDType dtype;
  int bm, bn;    /* rows and channels of a tile */
  int device_cc; /* 90: needs that very device; 80: that or later */
  int threads, shared;
  bool any_row;    /* OsrConvArgs.vector may be false */
  bool persistent; /* as many blocks as multiprocessors, each takes many tiles */
  bool tf32;       /* f32 products with 10 bits of mantissa */
  const void *function;
} OsrConvKernel;

/* conv-wgmma.cu and conv-mma.cu; both end with an entry without a name. */
extern const OsrConvKernel osr_conv_wgmma_kernels[];
extern const OsrConvKernel osr_conv_mma_kernels[];

/* conv-prepare.cu. Both only enqueue; the caller looks at cudaGetLastError(). */

/* Weights [c_out][k_t][k_h][k_w][c_in] and bias [c_out] or NULL to the tiles of `a`. */
typedef struct OsrConvPack {
  OsrDType dtype, w_dtype; /* of tiles and bias, and of w */
  const void *w, *bias;
  void *to;
  float *bias_to;
  int k_t, k_h, k_w, c_in;
  int bn;
} OsrConvPack;

cudaError_t osr_conv_pack(const OsrConvArgs *a, const OsrConvPack *p, cudaStream_t stream);

/* Rows of c_in elements to rows of c, the rest zeros. */
cudaError_t osr_conv_widen(OsrDType dtype, const void *x, void *to, int64_t rows, int c_in, int c,
                           cudaStream_t stream);

/* conv.cu: osr_cuda_conv3d() with a kernel of the caller's choice, for measurements. */
OsrResult osr_conv3d_with(OsrOpsContext *ctx, const OsrConv3d *p, const OsrConvKernel *kernel);

/* --- device code --- */

/* Where a row of a tile begins to read; `frame` is negative for rows after the last. */
struct OsrConvRow {
  int frame, t, h, w;
};

#define OSR_CONV_NO_VOXEL (-(1 << 30)) /* negative with any offset along a row added */

/* The phase that a tile of rows belongs to. */
static __device__ inline int
conv_find_phase(const OsrConvArgs &a, int m_tile)
{
  int i = 0;

  while (i + 1 < a.n_phases && m_tile >= a.phase[i + 1].first_tile)
    i++;
  return i;
}

/* Splits row `m` of a phase into the batch item and output (t, h, w). */
static __device__ inline int
conv_split_row(const OsrConvPhase &f, uint32_t m, int *t, int *h, int *w)
{
  const uint32_t row = m / (uint32_t) f.n_w, frame = row / (uint32_t) f.n_h;
  const uint32_t item = frame / (uint32_t) f.n_t;

  *w = (int) (m - row * (uint32_t) f.n_w);
  *h = (int) (row - frame * (uint32_t) f.n_h);
  *t = (int) (frame - item * (uint32_t) f.n_t);
  return (int) item;
}

static __device__ inline OsrConvRow
conv_row(const OsrConvArgs &a, const OsrConvPhase &f, uint32_t m)
{
  OsrConvRow r = { -1, 0, 0, 0 };
  int t, h, w;

  if (m >= f.m)
    return r;
  r.frame = conv_split_row(f, m, &t, &h, &w) * a.in_t;
  r.t = t * a.t.step + f.first_t;
  r.h = h * a.h.step + f.first_h;
  r.w = w * a.w_axis.step + f.first_w;
  return r;
}

/* The voxel of y that row `m` of a phase is. */
static __device__ inline int64_t
conv_out_voxel(const OsrConvArgs &a, const OsrConvPhase &f, uint32_t m)
{
  int t, h, w, item = conv_split_row(f, m, &t, &h, &w);

  t = t * a.t.out_step + f.out_t;
  h = h * a.h.out_step + f.out_h;
  w = w * a.w_axis.out_step + f.out_w;
  return (((int64_t) item * a.out_t + t) * a.out_h + h) * a.out_w + w;
}

/* The stored sample that virtual sample `i` is, or -1 for a zero. */
static __device__ inline int
conv_sample(const OsrConvAxis &axis, int i, bool replicate)
{
  const int inside = min(max(i, 0), axis.size - 1);

  return replicate || inside == i ? (inside + axis.add) >> axis.shift : -1;
}

/* One thread's part in gathering voxels: chunk `chunk` of rows first, first + STRIDE, ... of
 * the tile. Rows are kept as registers and only redone when the tap of t or h changes; what
 * remains for each copy is to add, clamp and multiply. */
template <typename T, int ROWS, int STRIDE, bool VIA_L1> struct OsrConvGather {
  static constexpr int CHUNK = 16 / (int) sizeof(T);
  static constexpr int STEP = OSR_CONV_ROW / (int) sizeof(T);

  const OsrConvRow *table; /* the first row */
  uint32_t place;          /* of the chunk in that row's swizzled 128 bytes, and the row */
  int base[ROWS];          /* voxel at w = 0 of the tap's row, or OSR_CONV_NO_VOXEL */
  int w0[ROWS];
  int dt, dh, dw, block, ci;

  __device__ void find_rows(const OsrConvArgs &a)
  {
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const OsrConvRow r = table[i * STRIDE];
      const int t = conv_sample(a.t, r.t + dt, a.replicate);
      const int h = conv_sample(a.h, r.h + dh, a.replicate);
      const bool outside = (r.frame | t | h) < 0 || dt >= a.t.taps;

      base[i] = outside ? OSR_CONV_NO_VOXEL : ((r.frame + t) * a.in_h + h) * a.in_w;
      w0[i] = r.w;
    }
  }

  /* ci may pass the end of a block; the end of K is dt == taps, zeros from there on. */
  __device__ void carry(const OsrConvArgs &a)
  {
    bool moved = false;

    while (ci >= a.c_block) {
      ci -= a.c_block;
      if (++dw < a.w_axis.taps)
        continue;
      dw = 0;
      if (++block < a.blocks)
        continue;
      block = 0;
      moved = true;
      if (++dh < a.h.taps)
        continue;
      dh = 0;
      dt++;
    }
    if (moved)
      find_rows(a);
  }

  /* `rows` of the tile must be in shared memory and stay until the last advance(). */
  __device__ void begin(const OsrConvArgs &a, const OsrConvRow *rows, int first, int chunk)
  {
    table = rows + first;
    place = (uint32_t) (first * OSR_CONV_ROW + ((chunk ^ (first & 7)) << 4));
    dt = dh = dw = block = 0;
    ci = chunk * CHUNK;
    find_rows(a);
    carry(a);
  }

  /* Copies the chunks of the current step to the tile at `to`. */
  __device__ void copy(const OsrConvArgs &a, uint32_t to) const
  {
    const char *x = (const char *) a.x + (uint32_t) (block * a.c_block + ci) * sizeof(T);
    const uint32_t voxel_size = (uint32_t) a.c * (uint32_t) sizeof(T);
    const int last = a.w_axis.size - 1, shift = a.w_axis.shift;

#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const int w = w0[i] + dw, inside = min(max(w, 0), last);
      const int voxel = base[i] + (inside >> shift);
      const bool zeros = voxel < 0 || !(a.replicate || inside == w);

      /* A product of 32 and 32 bits: one instruction, unlike one of 64. */
      conv_copy_async<VIA_L1>(to + place + (uint32_t) (i * STRIDE * OSR_CONV_ROW),
                              x + (uint64_t) (uint32_t) max(voxel, 0) * voxel_size, zeros);
    }
  }

  __device__ void advance(const OsrConvArgs &a)
  {
    ci += STEP;
    carry(a);
  }
};

/* Four neighbouring channels where not all four may exist or be aligned. */
template <typename T>
static __device__ inline void
conv_finish_some(const OsrConvArgs &a, int64_t at, int col, const float (&v)[4])
{
#pragma unroll
  for (int i = 0; i < 4; i++)
    if (col + i < a.c_out) {
      const float add = a.residual ? osr_float(((const T *) a.residual)[at + col + i]) : 0;

      ((T *) a.y)[at + col + i] = osr_round<T>(v[i] + add);
    }
}

/* A product of a warp is 16 rows by 8 NB columns: acc[j][0..1] are this lane's row lane / 4,
 * columns 8 j + 2 (lane % 4) and the next; acc[j][2..3] the same 8 rows below. It starts as the
 * bias: at the end each read would have to wait, there it could not pass writes of y. `col` is
 * the first column. */
template <int NB>
static __device__ inline void
conv_begin(const OsrConvArgs &a, int col, float (&acc)[NB][4])
{
  const float *bias = a.bias + col + threadIdx.x % 4 * 2;

#pragma unroll
  for (int j = 0; j < NB; j++) {
    float v[2];

    osr_load_floats(bias + 8 * j, v);
    acc[j][0] = acc[j][2] = v[0];
    acc[j][1] = acc[j][3] = v[1];
  }
}

/* Two columns of bf16 are 4 bytes, and those of four lanes half a sector of the L2. So
 * neighbouring lanes swap halves of two blocks of 8 columns: each then holds four columns in a
 * row, in acc[j][0..1] and acc[j + 1][0..1] for even j (and in [2..3]), and four lanes hold
 * whole sectors. */
template <int NB>
static __device__ inline void
conv_swap(float (&acc)[NB][4])
{
  const bool odd = threadIdx.x & 1;

#pragma unroll
  for (int j = 0; j < NB; j += 2)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const float got = __shfl_xor_sync(0xffffffffu, odd ? acc[j][i] : acc[j + 1][i], 1);

      acc[j][i] = odd ? got : acc[j][i];
      acc[j + 1][i] = odd ? acc[j + 1][i] : got;
    }
}

/* Adds the residual to a swapped product and writes it; `m` and `col` are its first row
 * and channel. Residuals are read GROUP at a time: they may be y itself, which forbids the
 * compiler to move reads up over writes, and one by one each would be waited for. */
template <typename T, int NB, bool ANY_ROW>
static __device__ inline void
conv_finish(const OsrConvArgs &a, const OsrConvPhase &f, uint32_t m, int col,
            const float (&acc)[NB][4])
{
  constexpr int PAIRS = NB / 2, GROUP = PAIRS < 8 ? PAIRS : 8;
  const int lane = (int) threadIdx.x % 32;

  col += lane % 2 * 8 + lane % 4 / 2 * 4;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    const uint32_t row = m + (uint32_t) (lane / 4 + 8 * half);
    int64_t at;

    if (row >= f.m)
      continue;
    at = conv_out_voxel(a, f, row) * a.c_out;
#pragma unroll
    for (int g = 0; g < PAIRS; g += GROUP) {
      OsrPack<T, 4> residual[GROUP];

      if (a.residual && (a.vector || !ANY_ROW)) {
#pragma unroll
        for (int i = 0; i < GROUP; i++)
          if (col + 16 * (g + i) < a.c_out)
            residual[i] = osr_load<4>((const T *) a.residual + at + col + 16 * (g + i));
      }
#pragma unroll
      for (int i = 0; i < GROUP; i++) {
        const int j = 2 * (g + i), k = 2 * half;
        float v[4] = { acc[j][k], acc[j][k + 1], acc[j + 1][k], acc[j + 1][k + 1] }, add[4];

        if (ANY_ROW && !a.vector) {
          conv_finish_some<T>(a, at, col + 8 * j, v);
        } else if (col + 8 * j < a.c_out) {
          if (a.residual) {
            osr_unpack(residual[i], add);
#pragma unroll
            for (int e = 0; e < 4; e++)
              v[e] += add[e];
          }
          osr_store((T *) a.y + at + col + 8 * j, v);
        }
      }
    }
  }
}

#endif /* OSR_CUDA_CONV_CUH */
