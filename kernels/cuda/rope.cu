/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qk_norm_rope: RMS norm and rotation of q and k, in place.
 *
 * Bytes moved: q and k, read and written once each; the tables are read once from memory and
 * heads times out of the caches. A few neighbouring threads share a head of a row. Each takes
 * V elements of the first half and the V that lie half a head later, so the partner of every
 * element is in the same thread, whichever elements `rope` pairs. Expected: 80 to 90 % of the
 * copy bandwidth.
 */
#include "device.cuh"

template <typename T> struct RopeArgs {
  uint32_t items, m, heads; /* rows times heads; rows of a batch item */
  int head_dim;
  T *q, *k;
  int64_t ld, batch_stride;
  const T *q_scale, *k_scale;
  float eps;
  const float *cos, *sin; /* [m, head_dim / 2] */
};

/* Where head `item` of q and k starts, and which row's angles it has. */
struct RopePlace {
  int64_t offset;
  uint32_t row;
};

template <typename T>
OSR_DEVICE RopePlace
find_head(const RopeArgs<T> &a, uint32_t item)
{
  const uint32_t row = item / a.heads, head = item - row * a.heads;
  const uint32_t b = row / a.m, i = row - b * a.m;

  return { b * a.batch_stride + i * a.ld + (int64_t) head * a.head_dim, i };
}

/* Norm of one head: first[] and second[] are this thread's elements of the two halves. All
 * lanes of the warp come here; those without elements bring zeros. */
template <typename T, int V>
OSR_DEVICE void
norm_head(const RopeArgs<T> &a, const T *scale, int at, int lanes, bool active, float (&first)[V],
          float (&second)[V])
{
  float squares = 0.0f, f[V];

#pragma unroll
  for (int i = 0; i < V; i++)
    squares += first[i] * first[i] + second[i] * second[i];
  const float norm = rsqrtf(osr_lanes_sum(squares, lanes) / a.head_dim + a.eps);

  if (!active)
    return;
  osr_load_floats(scale + at, f);
#pragma unroll
  for (int i = 0; i < V; i++)
    first[i] *= norm * f[i];
  osr_load_floats(scale + a.head_dim / 2 + at, f);
#pragma unroll
  for (int i = 0; i < V; i++)
    second[i] *= norm * f[i];
}

OSR_DEVICE void
rotate(float &a, float &b, float cos, float sin)
{
  const float turned = a * cos - b * sin;

  b = b * cos + a * sin;
  a = turned;
}

template <int V>
OSR_DEVICE void
rotate_halves(float (&first)[V], float (&second)[V], const float (&cos)[V], const float (&sin)[V])
{
#pragma unroll
  for (int i = 0; i < V; i++)
    rotate(first[i], second[i], cos[i], sin[i]);
}

template <int V>
OSR_DEVICE void
rotate_neighbours(float (&v)[V], const float *cos, const float *sin)
{
  float c[V / 2], s[V / 2];

  osr_load_floats(cos, c);
  osr_load_floats(sin, s);
#pragma unroll
  for (int i = 0; i < V / 2; i++)
    rotate(v[2 * i], v[2 * i + 1], c[i], s[i]);
}

/* `lanes` threads a head, a power of two, of which `used` have elements. */
template <typename T, int V, OsrRope ROPE>
static __global__ void __launch_bounds__(256) norm_rope(RopeArgs<T> a, int lanes, int used)
{
  const int lane = threadIdx.x % lanes, at = lane * V, half = a.head_dim / 2;
  const uint32_t item = blockIdx.x * (256 / lanes) + threadIdx.x / lanes;
  const bool active = item < a.items && lane < used;
  const RopePlace place = active ? find_head(a, item) : RopePlace{ 0, 0 };
  T *const q = a.q + place.offset + at, *const k = a.k + place.offset + at;
  const float *const cos = a.cos + (int64_t) place.row * half;
  const float *const sin = a.sin + (int64_t) place.row * half;
  float q1[V] = {}, q2[V] = {}, k1[V] = {}, k2[V] = {};

  if (active) {
    const OsrPack<T, V> packs[] = { osr_load<V>(q), osr_load<V>(q + half), osr_load<V>(k),
                                    osr_load<V>(k + half) };

    osr_unpack(packs[0], q1);
    osr_unpack(packs[1], q2);
    osr_unpack(packs[2], k1);
    osr_unpack(packs[3], k2);
  }
  if (a.q_scale)
    norm_head(a, a.q_scale, at, lanes, active, q1, q2);
  if (a.k_scale)
    norm_head(a, a.k_scale, at, lanes, active, k1, k2);
  if (!active)
    return;

  if (ROPE == OSR_ROPE_HALF) {
    float c[V], s[V];

    osr_load_floats(cos + at, c);
    osr_load_floats(sin + at, s);
    rotate_halves(q1, q2, c, s);
    rotate_halves(k1, k2, c, s);
  } else if (ROPE == OSR_ROPE_INTERLEAVED) {
    rotate_neighbours(q1, cos + at / 2, sin + at / 2);
    rotate_neighbours(q2, cos + (half + at) / 2, sin + (half + at) / 2);
    rotate_neighbours(k1, cos + at / 2, sin + at / 2);
    rotate_neighbours(k2, cos + (half + at) / 2, sin + (half + at) / 2);
  }
  osr_store(q, q1);
  osr_store(q + half, q2);
  osr_store(k, k1);
  osr_store(k + half, k2);
}

/* Any head_dim and alignment: a warp a head of q or k. A lane reads and writes the same pairs,
 * so nothing is overwritten before its last use. */
template <typename T>
static __global__ void __launch_bounds__(256) norm_rope_any(RopeArgs<T> a, OsrRope rope)
{
  const uint32_t item = blockIdx.x * 8 + threadIdx.x / 32;
  const int lane = threadIdx.x % 32, half = a.head_dim / 2;
  const T *const scale = blockIdx.y ? a.k_scale : a.q_scale;
  float squares = 0.0f, norm = 1.0f;

  if (item >= a.items) /* a whole warp */
    return;
  const RopePlace place = find_head(a, item);
  T *const x = (blockIdx.y ? a.k : a.q) + place.offset;

  if (scale) {
    for (int j = lane; j < a.head_dim; j += 32) {
      const float v = osr_float(x[j]);

      squares += v * v;
    }
    norm = rsqrtf(osr_warp_sum(squares) / a.head_dim + a.eps);
  }
  if (rope == OSR_ROPE_NONE) {
    for (int j = lane; j < a.head_dim; j += 32)
      x[j] = osr_round<T>(osr_float(x[j]) * norm * (scale ? osr_float(scale[j]) : 1.0f));
    return;
  }
  /* The sum above reads what other lanes write below; the shuffles have kept that apart. */
  for (int i = lane; i < half; i += 32) {
    const int first = rope == OSR_ROPE_INTERLEAVED ? 2 * i : i;
    const int second = rope == OSR_ROPE_INTERLEAVED ? 2 * i + 1 : i + half;
    float v = osr_float(x[first]) * norm * (scale ? osr_float(scale[first]) : 1.0f);
    float w = osr_float(x[second]) * norm * (scale ? osr_float(scale[second]) : 1.0f);

    rotate(v, w, a.cos[(int64_t) place.row * half + i], a.sin[(int64_t) place.row * half + i]);
    x[first] = osr_round<T>(v);
    x[second] = osr_round<T>(w);
  }
}

/* Whether V elements of everything can be read at once, by at most a warp a head. */
template <typename T>
static bool
fits(const OsrQkNormRope *p, int v)
{
  const void *const pointers[] = { p->q, p->k, p->q_scale, p->k_scale };

  for (const void *pointer : pointers)
    if (!osr_aligned(pointer, v * sizeof(T)))
      return false;
  return p->head_dim % (2 * v) == 0 && p->head_dim / (2 * v) <= 32 && osr_aligned(p->cos, 16) &&
         osr_aligned(p->sin, 16) &&
         osr_multiples(v, osr_stride(p->m, p->ld), osr_stride(p->batch, p->batch_stride));
}

template <typename T, int V>
static void
launch_wide(const RopeArgs<T> &a, OsrRope rope, cudaStream_t stream)
{
  const int used = a.head_dim / (2 * V);
  int lanes = 1;

  while (lanes < used)
    lanes *= 2;
  const uint32_t blocks = (uint32_t) osr_ceil_div(a.items, 256 / lanes);

  if (rope == OSR_ROPE_HALF)
    norm_rope<T, V, OSR_ROPE_HALF><<<blocks, 256, 0, stream>>>(a, lanes, used);
  else if (rope == OSR_ROPE_INTERLEAVED)
    norm_rope<T, V, OSR_ROPE_INTERLEAVED><<<blocks, 256, 0, stream>>>(a, lanes, used);
  else
    norm_rope<T, V, OSR_ROPE_NONE><<<blocks, 256, 0, stream>>>(a, lanes, used);
}

template <typename T>
static void
launch(const OsrQkNormRope *p, cudaStream_t stream)
{
  const RopeArgs<T> a = { (uint32_t) (p->batch * p->m * p->heads),
                          (uint32_t) p->m,
                          (uint32_t) p->heads,
                          p->head_dim,
                          (T *) p->q,
                          (T *) p->k,
                          p->ld,
                          p->batch_stride,
                          (const T *) p->q_scale,
                          (const T *) p->k_scale,
                          p->eps,
                          p->cos,
                          p->sin };

  if (fits<T>(p, osr_width<T>)) {
    launch_wide<T, osr_width<T>>(a, p->rope, stream);
  } else if (sizeof(T) == 2 && fits<T>(p, 4)) { /* such as 72: half a head is 36 */
    launch_wide<T, 4>(a, p->rope, stream);
  } else {
    norm_rope_any<<<dim3((uint32_t) osr_ceil_div(a.items, 8), 2), 256, 0, stream>>>(a, p->rope);
  }
}

extern "C" OsrResult
osr_cuda_qk_norm_rope(OsrOpsContext *ctx, const OsrQkNormRope *p)
{
  OSR_TRY(osr_cuda_begin(ctx, "qk_norm_rope"));
  OSR_TRY(osr_check_qk_norm_rope(ctx, p, OSR_CUDA_DTYPES));
  if (p->batch == 0 || p->m == 0 || p->heads == 0)
    return OSR_OK;
  if (p->m > INT32_MAX / p->heads || p->m * p->heads > INT32_MAX / p->batch)
    return osr_too_large(ctx, "qk_norm_rope");

  OSR_CUDA_TYPED(p->dtype, launch<T>(p, osr_cuda(ctx)->stream));
  return osr_cuda_launched(ctx, "qk_norm_rope: batch %lld, m %lld, heads %d x %d",
                           (long long) p->batch, (long long) p->m, p->heads, p->head_dim);
}
