/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * group_norm: two passes over channels-last video, with a small step between them.
 *
 *   sums     each block takes a run of positions, each thread V channels of them; out come
 *            sum and sum of squares of every group, one pair a block
 *   factors  adds these up in double: y = act(x a + b) with a, b of each channel
 *   apply    the same walk as `sums`, backwards: what was read last is still in the L2
 *
 * Values are summed less the group's first one, so that a mean far from zero costs no digits.
 * Bytes moved: x twice, y once; x once when it fits into the L2. As a share of the copy
 * bandwidth for x and y alone that is 60 % at best on large tensors, 55 % expected; on
 * those of up to some 40 MB, 75 to 85 %.
 */
#include "device.cuh"

/* Loads in flight a thread. */
#define U 4
/* Blocks a multiprocessor: several waves, so that the last one is short. */
#define BLOCKS_PER_SM 16

template <typename T> struct GroupNormArgs {
  int64_t positions; /* of a batch item */
  int channels, groups;
  const T *x, *weight, *bias;
  float eps;
  OsrAct act;
  T *y;
  /* How the work is cut: `chunks` runs of `chunk` positions an item, `rows` at a time. */
  int64_t chunk;
  uint32_t chunks;
  int rows;
  float2 *sums;    /* [batch, groups, chunks] */
  float2 *factors; /* [batch, channels] */
};

/* A thread's share of a block's run of positions. */
template <typename T> struct GroupNormPlace {
  int64_t offset;     /* of the batch item */
  int64_t begin, end; /* positions */
  int64_t first;      /* this thread's first position */
  int channel;        /* this thread's first channel */
};

template <typename T, int V>
OSR_DEVICE GroupNormPlace<T>
find_place(const GroupNormArgs<T> &a, uint32_t block)
{
  const uint32_t b = block / a.chunks, i = block - b * a.chunks;
  const uint32_t across = (uint32_t) a.channels / V, row = threadIdx.x / across;
  const int64_t begin = i * a.chunk, end = min(begin + a.chunk, a.positions);

  /* Threads beyond the last row have nothing to do. */
  return { b * a.positions * a.channels, begin, end, (int) row < a.rows ? begin + row : end,
           (int) (threadIdx.x - row * across) * V };
}

/* The block's sums of each group out of its threads' sums of each channel. */
template <typename T, int V>
OSR_DEVICE void
reduce(const GroupNormArgs<T> &a, const float (&sum)[V], const float (&squares)[V], int channel)
{
  extern __shared__ float2 shared[]; /* [rows, channels] */
  const int row = (int) threadIdx.x / (a.channels / V), width = a.channels / a.groups;
  const uint32_t b = blockIdx.x / a.chunks, chunk = blockIdx.x - b * a.chunks;

  if (row < a.rows)
#pragma unroll
    for (int i = 0; i < V; i++)
      shared[row * a.channels + channel + i] = make_float2(sum[i], squares[i]);
  __syncthreads();
  for (int c = threadIdx.x; c < a.channels; c += blockDim.x) {
    float2 total = shared[c];

    for (int r = 1; r < a.rows; r++) {
      total.x += shared[r * a.channels + c].x;
      total.y += shared[r * a.channels + c].y;
    }
    shared[c] = total;
  }
  __syncthreads();
  for (int g = threadIdx.x / 32; g < a.groups; g += blockDim.x / 32) {
    float2 total = make_float2(0.0f, 0.0f);

    for (int c = threadIdx.x % 32; c < width; c += 32) {
      total.x += shared[g * width + c].x;
      total.y += shared[g * width + c].y;
    }
    total.x = osr_warp_sum(total.x);
    total.y = osr_warp_sum(total.y);
    if (threadIdx.x % 32 == 0)
      a.sums[((int64_t) b * a.groups + g) * a.chunks + chunk] = total;
  }
}

template <typename T, int V>
static __global__ void
__launch_bounds__(V == 8 ? 512 : 1024, V == 8 ? 2 : 1) sums(GroupNormArgs<T> a)
{
  const GroupNormPlace<T> place = find_place<T, V>(a, blockIdx.x);
  const int width = a.channels / a.groups;
  const T *const item = a.x + place.offset;
  const int64_t step = a.channels * (int64_t) a.rows;
  float pivot[V], sum[V] = {}, squares[V] = {};

#pragma unroll
  for (int i = 0; i < V; i++)
    pivot[i] = osr_float(item[(place.channel + i) / width * width]);

  const T *x = item + place.first * a.channels + place.channel;

  for (int64_t p = place.first; p < place.end; p += U * a.rows, x += U * step) {
    OsrPack<T, V> packs[U];

#pragma unroll
    for (int u = 0; u < U; u++)
      if (p + u * a.rows < place.end)
        packs[u] = osr_load<V>(x + u * step);
#pragma unroll
    for (int u = 0; u < U; u++)
      if (p + u * a.rows < place.end) {
        float v[V];

        osr_unpack(packs[u], v);
#pragma unroll
        for (int i = 0; i < V; i++) {
          v[i] -= pivot[i];
          sum[i] += v[i];
          squares[i] += v[i] * v[i];
        }
      }
  }
  reduce<T, V>(a, sum, squares, place.channel);
}

OSR_DEVICE double
block_sum_f64(double v, double *shared)
{
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  if (threadIdx.x % 32 == 0)
    shared[threadIdx.x / 32] = v;
  __syncthreads();
  return shared[0] + shared[1] + shared[2] + shared[3];
}

/* One block of 128 threads a group of a batch item. */
template <typename T> static __global__ void __launch_bounds__(128) factors(GroupNormArgs<T> a)
{
  __shared__ double shared[2][4];
  const uint32_t b = blockIdx.x / (uint32_t) a.groups, g = blockIdx.x - b * a.groups;
  const int width = a.channels / a.groups, first = (int) g * width;
  const float2 *const sums = a.sums + (int64_t) blockIdx.x * a.chunks;
  const double count = (double) a.positions * width;
  double sum = 0.0, squares = 0.0;

  for (uint32_t i = threadIdx.x; i < a.chunks; i += 128) {
    sum += sums[i].x;
    squares += sums[i].y;
  }
  const double shift = block_sum_f64(sum, shared[0]) / count;
  const double var = fmax(block_sum_f64(squares, shared[1]) / count - shift * shift, 0.0);
  const double mean = shift + osr_float(a.x[b * a.positions * a.channels + first]);
  const double inverse = 1.0 / sqrt(var + a.eps);

  for (int c = first + (int) threadIdx.x; c < first + width; c += 128) {
    const double factor = inverse * osr_float(a.weight[c]);

    a.factors[(int64_t) b * a.channels + c] =
        make_float2((float) factor, (float) (osr_float(a.bias[c]) - mean * factor));
  }
}

template <typename T, int V>
static __global__ void
__launch_bounds__(V == 8 ? 512 : 1024, V == 8 ? 2 : 1) apply(GroupNormArgs<T> a)
{
  const uint32_t block = gridDim.x - 1 - blockIdx.x;
  const GroupNormPlace<T> place = find_place<T, V>(a, block);
  const float2 *const item = a.factors + (int64_t) (block / a.chunks) * a.channels;
  const int64_t step = a.channels * (int64_t) a.rows;
  int64_t at = place.offset + place.first * a.channels + place.channel;
  float factor[V], offset[V];

#pragma unroll
  for (int i = 0; i < V; i++) {
    const float2 f = item[place.channel + i];

    factor[i] = f.x;
    offset[i] = f.y;
  }
  for (int64_t p = place.first; p < place.end; p += U * a.rows, at += U * step) {
    OsrPack<T, V> packs[U];

#pragma unroll
    for (int u = 0; u < U; u++)
      if (p + u * a.rows < place.end)
        packs[u] = osr_load<V>(a.x + at + u * step);
#pragma unroll
    for (int u = 0; u < U; u++)
      if (p + u * a.rows < place.end) {
        float v[V];

        osr_unpack(packs[u], v);
#pragma unroll
        for (int i = 0; i < V; i++)
          v[i] = v[i] * factor[i] + offset[i];
        osr_act(a.act, v);
        osr_store(a.y + at + u * step, v);
      }
  }
}

/* Threads of a block: as many rows of `across` threads as 256 hold, or one longer row. */
static int
block_threads(int across)
{
  return across <= 256 ? 256 : across <= 512 ? 512 : 1024;
}

template <typename T, int V>
static void
cut(const OsrCuda *cuda, const OsrGroupNorm *p, GroupNormArgs<T> *a)
{
  const int across = p->channels / V;
  const int64_t most = osr_ceil_div((int64_t) cuda->n_sms * BLOCKS_PER_SM, p->batch);
  int64_t chunks;

  a->rows = block_threads(across) / across;
  /* Below a few turns of its loop a block is not worth its sums. */
  chunks = osr_ceil_div(p->positions, 2 * U * (int64_t) a->rows);
  if (chunks > most)
    chunks = most;
  a->chunk = osr_ceil_div(p->positions, chunks);
  a->chunks = (uint32_t) osr_ceil_div(p->positions, a->chunk);
}

template <typename T, int V>
static void
launch(const OsrGroupNorm *p, const GroupNormArgs<T> &a, cudaStream_t stream)
{
  const uint32_t blocks = (uint32_t) p->batch * a.chunks;
  const int threads = block_threads(a.channels / V);
  const size_t shared = (size_t) a.rows * a.channels * sizeof(float2);

  sums<T, V><<<blocks, threads, shared, stream>>>(a);
  factors<T><<<(uint32_t) (p->batch * a.groups), 128, 0, stream>>>(a);
  apply<T, V><<<blocks, threads, 0, stream>>>(a);
}

template <typename T, int V>
static OsrResult
run(OsrOpsContext *ctx, const OsrGroupNorm *p)
{
  OsrCuda *cuda = osr_cuda(ctx);
  GroupNormArgs<T> a = { p->positions,
                         p->channels,
                         p->groups,
                         (const T *) p->x,
                         (const T *) p->weight,
                         (const T *) p->bias,
                         p->eps,
                         p->act,
                         (T *) p->y,
                         0,
                         0,
                         0,
                         nullptr,
                         nullptr };
  size_t n_sums, n_factors, size;

  cut<T, V>(cuda, p, &a);
  if (p->batch * a.chunks > INT32_MAX || p->batch * a.groups > INT32_MAX)
    return osr_too_large(ctx, "group_norm");
  n_sums = (size_t) p->batch * a.groups * a.chunks;
  n_factors = (size_t) p->batch * a.channels;
  size = (n_sums + n_factors) * sizeof(float2);
  a.sums = (float2 *) osr_scratch_alloc(ctx, size);
  if (!a.sums)
    return osr_fail(ctx, OSR_ERR_MEMORY, "group_norm: no scratch memory of %zu bytes", size);
  a.factors = a.sums + n_sums;
  launch<T, V>(p, a, cuda->stream);
  osr_scratch_free(ctx, a.sums, size);
  return osr_cuda_launched(ctx, "group_norm: batch %lld, %lld positions, %d channels in %d groups",
                           (long long) p->batch, (long long) p->positions, p->channels, p->groups);
}

template <typename T>
static OsrResult
dispatch(OsrOpsContext *ctx, const OsrGroupNorm *p)
{
  constexpr int V = osr_width<T>;

  /* A block holds all channels of a position, and their sums in its shared memory. */
  if (osr_aligned(p->x, 16) && osr_aligned(p->y, 16) && p->channels % V == 0 && p->channels <= 4096)
    return run<T, V>(ctx, p);
  if (p->channels <= 1024)
    return run<T, 1>(ctx, p);
  return osr_fail(ctx, OSR_ERR_UNSUPPORTED,
                  "group_norm: %d channels, at most 4096 if aligned to 16 bytes, else 1024",
                  p->channels);
}

extern "C" OsrResult
osr_cuda_group_norm(OsrOpsContext *ctx, const OsrGroupNorm *p)
{
  OSR_TRY(osr_cuda_begin(ctx, "group_norm"));
  OSR_TRY(osr_check_group_norm(ctx, p, OSR_CUDA_DTYPES));
  if (p->batch == 0 || p->positions == 0 || p->channels == 0)
    return OSR_OK;
  if (p->dtype == OSR_DTYPE_BF16)
    return dispatch<__nv_bfloat16>(ctx, p);
  return dispatch<float>(ctx, p);
}
