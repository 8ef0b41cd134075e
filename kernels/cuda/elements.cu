/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * glu, affine, copy2d, embedding, patchify, unpatchify: one pass, each element read once and
 * written once. Expected from some 20 MB on: 85 to 95 % of the copy bandwidth with aligned
 * rows; patchify and unpatchify, which transpose inside of rows, 70 to 80 %.
 */
#include "device.cuh"

#include <cuda_fp8.h>
#include <type_traits>

/* --- glu --- */

/* Rows of n: y[j] = act(x[j]) * x[n + j] */
template <typename T, int V>
static __global__ void __launch_bounds__(256)
    glu(const T *x, int64_t x_ld, T *y, int64_t y_ld, int64_t m, int64_t n, OsrAct act)
{
  constexpr int U = 2;
  const int64_t row = osr_grid_row();

  if (row >= m)
    return;
  x += row * x_ld;
  y += row * y_ld;
  for (OSR_GRID_ITEMS(item, n / V, U)) {
    OsrPack<T, V> a[U], b[U];

#pragma unroll
    for (int u = 0; u < U; u++) {
      const int64_t j = (item + u * blockDim.x) * V;

      if (j < n) {
        a[u] = osr_load<V>(x + j);
        b[u] = osr_load<V>(x + n + j);
      }
    }
#pragma unroll
    for (int u = 0; u < U; u++) {
      const int64_t j = (item + u * blockDim.x) * V;
      float v[V], w[V];

      if (j >= n)
        continue;
      osr_unpack(a[u], v);
      osr_unpack(b[u], w);
      osr_act(act, v);
#pragma unroll
      for (int i = 0; i < V; i++)
        v[i] *= w[i];
      osr_store(y + j, v);
    }
  }
}

extern "C" OsrResult
osr_cuda_glu(OsrOpsContext *ctx, const OsrGlu *p)
{
  OsrRowGrid g;

  OSR_TRY(osr_cuda_begin(ctx, "glu"));
  OSR_TRY(osr_check_glu(ctx, p, OSR_CUDA_DTYPES));
  if (p->m == 0 || p->n == 0)
    return OSR_OK;

  OSR_CUDA_TYPED(p->dtype, {
    constexpr int V = osr_width<T>;
    const T *x = (const T *) p->x;
    T *y = (T *) p->y;
    const bool wide = osr_aligned(x, 16) && osr_aligned(y, 16) &&
                      osr_multiples(V, p->n, osr_stride(p->m, p->x_ld), osr_stride(p->m, p->y_ld));

    if (!osr_row_grid(p->m, wide ? p->n / V : p->n, 2, &g))
      return osr_too_large(ctx, "glu");
    if (wide)
      glu<T, V><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(x, p->x_ld, y, p->y_ld, p->m, p->n,
                                                               p->act);
    else
      glu<T, 1><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(x, p->x_ld, y, p->y_ld, p->m, p->n,
                                                               p->act);
  });
  return osr_cuda_launched(ctx, "glu: m %lld, n %d", (long long) p->m, p->n);
}

/* --- affine --- */

template <typename T, int V>
static __global__ void __launch_bounds__(256)
    affine(const T *x, T *y, int64_t n, float a, float b, OsrAct act)
{
  constexpr int U = 4;

  for (OSR_GRID_ITEMS(item, n / V, U)) {
    OsrPack<T, V> packs[U];

#pragma unroll
    for (int u = 0; u < U; u++)
      if (item + u * blockDim.x < n / V)
        packs[u] = osr_load<V>(x + (item + u * blockDim.x) * V);
#pragma unroll
    for (int u = 0; u < U; u++)
      if (item + u * blockDim.x < n / V) {
        float v[V];

        osr_unpack(packs[u], v);
#pragma unroll
        for (int i = 0; i < V; i++)
          v[i] = a * v[i] + b;
        osr_act(act, v);
        osr_store(y + (item + u * blockDim.x) * V, v);
      }
  }
}

template <typename T, int V>
static void
launch_affine(const OsrAffine *p, int64_t first, int64_t n, cudaStream_t stream)
{
  OsrRowGrid g;

  if (n == 0)
    return;
  osr_row_grid(1, n / V, 4, &g);
  affine<T, V><<<g.grid, g.block, 0, stream>>>((const T *) p->x + first, (T *) p->y + first, n,
                                               p->a, p->b, p->act);
}

extern "C" OsrResult
osr_cuda_affine(OsrOpsContext *ctx, const OsrAffine *p)
{
  OSR_TRY(osr_cuda_begin(ctx, "affine"));
  OSR_TRY(osr_check_affine(ctx, p, OSR_CUDA_DTYPES));
  if (p->n == 0)
    return OSR_OK;

  OSR_CUDA_TYPED(p->dtype, {
    constexpr int V = osr_width<T>;
    const bool wide = osr_aligned(p->x, 16) && osr_aligned(p->y, 16);
    const int64_t most = wide ? p->n / V * V : 0;

    launch_affine<T, V>(p, 0, most, osr_cuda(ctx)->stream);
    launch_affine<T, 1>(p, most, p->n - most, osr_cuda(ctx)->stream);
  });
  return osr_cuda_launched(ctx, "affine: n %lld", (long long) p->n);
}

/* --- copy2d and conversions --- */

OSR_DEVICE float
osr_float(__nv_fp8_e4m3 v)
{
  return float(v);
}

/* Each conversion rounds once: doubles do not go through floats. */
template <typename Y, typename X>
OSR_DEVICE Y
convert(X x)
{
  if constexpr (std::is_same_v<X, double> && std::is_same_v<Y, __nv_bfloat16>)
    return __double2bfloat16(x);
  else if constexpr (std::is_same_v<X, double> && std::is_same_v<Y, __half>)
    return __double2half(x);
  else if constexpr (std::is_same_v<X, double>)
    return (float) x;
  else if constexpr (std::is_same_v<Y, double>)
    return osr_float(x);
  else
    return osr_round<Y>(osr_float(x));
}

/* V elements a thread at a time for the types of 16 and 32 bits, else one. */
template <typename X, typename Y, int V>
static __global__ void __launch_bounds__(256)
    convert_rows(const X *x, int64_t x_ld, Y *y, int64_t y_ld, int64_t m, int64_t n)
{
  constexpr int U = 2;
  const int64_t row = osr_grid_row();

  if (row >= m)
    return;
  x += row * x_ld;
  y += row * y_ld;
  for (OSR_GRID_ITEMS(item, n / V, U)) {
    if constexpr (V == 1) {
#pragma unroll
      for (int u = 0; u < U; u++)
        if (item + u * blockDim.x < n)
          y[item + u * blockDim.x] = convert<Y>(x[item + u * blockDim.x]);
    } else {
      OsrPack<X, V> packs[U];

#pragma unroll
      for (int u = 0; u < U; u++)
        if (item + u * blockDim.x < n / V)
          packs[u] = osr_load<V>(x + (item + u * blockDim.x) * V);
#pragma unroll
      for (int u = 0; u < U; u++)
        if (item + u * blockDim.x < n / V) {
          float v[V];

          osr_unpack(packs[u], v);
          osr_store(y + (item + u * blockDim.x) * V, v);
        }
    }
  }
}

/* Elements, or 16 bytes of them, as they are. */
template <typename E>
static __global__ void __launch_bounds__(256)
    copy_rows(const E *x, int64_t x_ld, E *y, int64_t y_ld, int64_t m, int64_t n)
{
  constexpr int U = 4;
  const int64_t row = osr_grid_row();

  if (row >= m)
    return;
  x += row * x_ld;
  y += row * y_ld;
  for (OSR_GRID_ITEMS(item, n, U)) {
    E parts[U];

#pragma unroll
    for (int u = 0; u < U; u++)
      if (item + u * blockDim.x < n)
        parts[u] = x[item + u * blockDim.x];
#pragma unroll
    for (int u = 0; u < U; u++)
      if (item + u * blockDim.x < n)
        y[item + u * blockDim.x] = parts[u];
  }
}

typedef struct Rows {
  const char *x;
  char *y;
  int64_t x_ld, y_ld, m, n; /* in elements */
} Rows;

static bool
is_wide(const Rows *r, int v)
{
  return osr_aligned(r->x, 16) && osr_aligned(r->y, 16) &&
         osr_multiples(v, osr_stride(r->m, r->x_ld), osr_stride(r->m, r->y_ld));
}

/* Columns from `first` on, which is a multiple of what a wide kernel takes. */
template <typename X, typename Y, int V>
static bool
launch_convert(const Rows *r, int64_t first, int64_t n, cudaStream_t stream)
{
  OsrRowGrid g;

  if (n == 0)
    return true;
  if (!osr_row_grid(r->m, n / V, 2, &g))
    return false;
  convert_rows<X, Y, V><<<g.grid, g.block, 0, stream>>>((const X *) r->x + first, r->x_ld,
                                                        (Y *) r->y + first, r->y_ld, r->m, n);
  return true;
}

template <typename X, typename Y>
static bool
convert_all(const Rows *r, cudaStream_t stream)
{
  constexpr int V = 8;
  int64_t most = 0;

  if constexpr ((sizeof(X) == 2 || sizeof(X) == 4) && (sizeof(Y) == 2 || sizeof(Y) == 4)) {
    most = is_wide(r, V) ? r->n / V * V : 0;
    if (!launch_convert<X, Y, V>(r, 0, most, stream))
      return false;
  }
  return launch_convert<X, Y, 1>(r, most, r->n - most, stream);
}

template <typename E>
static bool
launch_copy(const Rows *r, int64_t first, int64_t n, cudaStream_t stream)
{
  OsrRowGrid g;

  if (n == 0)
    return true;
  if (!osr_row_grid(r->m, n, 4, &g))
    return false;
  copy_rows<E><<<g.grid, g.block, 0, stream>>>((const E *) r->x + first, r->x_ld,
                                               (E *) r->y + first, r->y_ld, r->m, n);
  return true;
}

template <typename E>
static bool
copy_all(const Rows *r, cudaStream_t stream)
{
  constexpr int V = 16 / (int) sizeof(E);
  int64_t most = 0;

  if (is_wide(r, V)) {
    const Rows parts = { r->x, r->y, r->x_ld / V, r->y_ld / V, r->m, r->n / V };

    most = parts.n * V;
    if (!launch_copy<uint4>(&parts, 0, parts.n, stream))
      return false;
  }
  return launch_copy<E>(r, most, r->n - most, stream);
}

/* Into another type. */
template <typename X>
static bool
convert_from(const Rows *r, OsrDType to, cudaStream_t stream)
{
  if constexpr (!std::is_same_v<X, __nv_bfloat16>)
    if (to == OSR_DTYPE_BF16)
      return convert_all<X, __nv_bfloat16>(r, stream);
  if constexpr (!std::is_same_v<X, __half>)
    if (to == OSR_DTYPE_F16)
      return convert_all<X, __half>(r, stream);
  if constexpr (!std::is_same_v<X, double>)
    if (to == OSR_DTYPE_F64)
      return convert_all<X, double>(r, stream);
  if constexpr (!std::is_same_v<X, float>)
    if (to == OSR_DTYPE_F32)
      return convert_all<X, float>(r, stream);
  return false;
}

static bool
convert_types(const Rows *r, OsrDType from, OsrDType to, cudaStream_t stream)
{
  switch (from) {
  case OSR_DTYPE_BF16:
    return convert_from<__nv_bfloat16>(r, to, stream);
  case OSR_DTYPE_F16:
    return convert_from<__half>(r, to, stream);
  case OSR_DTYPE_F64:
    return convert_from<double>(r, to, stream);
  case OSR_DTYPE_F8_E4M3:
    return convert_from<__nv_fp8_e4m3>(r, to, stream);
  default:
    return convert_from<float>(r, to, stream);
  }
}

static bool
copy_bytes(const Rows *r, size_t size, cudaStream_t stream)
{
  switch (size) {
  case 1:
    return copy_all<uint8_t>(r, stream);
  case 2:
    return copy_all<uint16_t>(r, stream);
  case 4:
    return copy_all<uint32_t>(r, stream);
  default:
    return copy_all<uint64_t>(r, stream);
  }
}

extern "C" OsrResult
osr_cuda_copy2d(OsrOpsContext *ctx, const OsrCopy2d *p)
{
  const cudaStream_t stream = osr_cuda(ctx)->stream;
  Rows r = { (const char *) p->x, (char *) p->y, p->x_ld, p->y_ld, p->m, p->n };
  bool fits;

  OSR_TRY(osr_cuda_begin(ctx, "copy2d"));
  OSR_TRY(osr_check_copy2d(ctx, p));
  if (p->m == 0 || p->n == 0)
    return OSR_OK;
  if (p->x_ld == p->n && p->y_ld == p->n) {
    r.n *= r.m;
    r.m = 1;
  }
  fits = p->x_dtype == p->y_dtype ? copy_bytes(&r, osr_dtype_size(p->x_dtype), stream)
                                  : convert_types(&r, p->x_dtype, p->y_dtype, stream);
  if (!fits)
    return osr_too_large(ctx, "copy2d");
  return osr_cuda_launched(ctx, "copy2d: %lld x %lld, %s to %s", (long long) p->m, (long long) p->n,
                           osr_ops_dtype_name(p->x_dtype), osr_ops_dtype_name(p->y_dtype));
}

extern "C" OsrResult
osr_cuda_convert(OsrOpsContext *ctx, OsrDType from, const void *x, OsrDType to, void *y, int64_t n)
{
  const Rows r = { (const char *) x, (char *) y, n, n, 1, n };

  if (!convert_types(&r, from, to, osr_cuda(ctx)->stream))
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "no conversion from %s to %s",
                    osr_ops_dtype_name(from), osr_ops_dtype_name(to));
  return osr_cuda_launched(ctx, "conversion of %lld numbers from %s to %s", (long long) n,
                           osr_ops_dtype_name(from), osr_ops_dtype_name(to));
}

/* --- embedding --- */

/* A row of the table and a row of positions; zeros for an id that is not in the table. */
template <typename T, int V>
static __global__ void __launch_bounds__(256)
    embedding(const int32_t *ids, const T *table, const T *positions, T *y, int64_t m, int64_t n,
              int vocab, int n_positions)
{
  const int64_t row = osr_grid_row();

  if (row >= m)
    return;
  const int32_t id = ids[row];
  const bool known = id >= 0 && id < vocab;

  for (OSR_GRID_ITEMS(item, n / V, 1)) {
    const int64_t j = item * V;
    float v[V] = {}, w[V];

    if (known)
      osr_load_floats(table + id * n + j, v);
    if (known && positions) {
      osr_load_floats(positions + row % n_positions * n + j, w);
#pragma unroll
      for (int i = 0; i < V; i++)
        v[i] += w[i];
    }
    osr_store(y + row * n + j, v);
  }
}

extern "C" OsrResult
osr_cuda_embedding(OsrOpsContext *ctx, const OsrEmbedding *p)
{
  OsrRowGrid g;

  OSR_TRY(osr_cuda_begin(ctx, "embedding"));
  OSR_TRY(osr_check_embedding(ctx, p, OSR_CUDA_DTYPES));
  if (p->m == 0 || p->n == 0)
    return OSR_OK;

  OSR_CUDA_TYPED(p->dtype, {
    constexpr int V = osr_width<T>;
    const T *table = (const T *) p->table, *positions = (const T *) p->positions;
    T *y = (T *) p->y;
    const bool wide =
        osr_aligned(table, 16) && osr_aligned(positions, 16) && osr_aligned(y, 16) && p->n % V == 0;

    if (!osr_row_grid(p->m, wide ? p->n / V : p->n, 1, &g))
      return osr_too_large(ctx, "embedding");
    if (wide)
      embedding<T, V><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(
          p->ids, table, positions, y, p->m, p->n, p->vocab, p->n_positions);
    else
      embedding<T, 1><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(
          p->ids, table, positions, y, p->m, p->n, p->vocab, p->n_positions);
  });
  return osr_cuda_launched(ctx, "embedding: m %lld, n %d", (long long) p->m, p->n);
}

/* --- patchify, unpatchify --- */

/* One channel of one token a thread: neighbours have neighbouring channels, so the latent is
 * read or written in runs and each thread's patch * patch features lie in one piece. I holds
 * the number of threads; P is the patch, 0 if known only at run time. */
template <typename T, typename I, int P, bool TO_TOKENS>
static __global__ void __launch_bounds__(256) patches(OsrPatchify p, I threads)
{
  const int patch = P > 0 ? P : p.patch;
  const I i = (I) blockIdx.x * 256 + threadIdx.x;
  const I channels = (I) p.c, cols = (I) (p.w / patch), rows = (I) (p.h / patch);

  if (i >= threads)
    return;
  const I token = i / channels, c = i - token * channels;
  const I line = token / cols, col = token - line * cols;
  const I frame = line / rows, row = line - frame * rows;
  const int64_t in_tokens = (int64_t) token * p.ld + p.column + (int64_t) c * patch * patch;
  const int64_t in_latent =
      (((int64_t) frame * p.h + (int64_t) row * patch) * p.w + (int64_t) col * patch) * p.c + c;

#pragma unroll
  for (int y = 0; y < patch; y++)
#pragma unroll
    for (int x = 0; x < patch; x++) {
      const int64_t t = in_tokens + y * patch + x;
      const int64_t l = in_latent + ((int64_t) y * p.w + x) * p.c;

      if (TO_TOKENS)
        ((T *) p.y)[t] = ((const T *) p.x)[l];
      else
        ((T *) p.y)[l] = ((const T *) p.x)[t];
    }
}

template <typename T, typename I, bool TO_TOKENS>
static void
launch_patches(const OsrPatchify *p, int64_t threads, cudaStream_t stream)
{
  const uint32_t blocks = (uint32_t) osr_ceil_div(threads, 256);

  if (p->patch == 2)
    patches<T, I, 2, TO_TOKENS><<<blocks, 256, 0, stream>>>(*p, (I) threads);
  else
    patches<T, I, 0, TO_TOKENS><<<blocks, 256, 0, stream>>>(*p, (I) threads);
}

template <bool TO_TOKENS>
static OsrResult
run_patches(OsrOpsContext *ctx, const char *op, const OsrPatchify *p)
{
  int64_t threads;

  OSR_TRY(osr_cuda_begin(ctx, op));
  OSR_TRY(osr_check_patchify(ctx, op, p, OSR_CUDA_DTYPES));
  if (p->batch == 0 || p->t == 0 || p->h == 0 || p->w == 0 || p->c == 0)
    return OSR_OK;
  threads = p->batch * p->t * (p->h / p->patch) * (p->w / p->patch) * p->c;
  if (osr_ceil_div(threads, 256) > INT32_MAX)
    return osr_too_large(ctx, op);

  OSR_CUDA_TYPED(p->dtype, {
    if (threads <= INT32_MAX)
      launch_patches<T, uint32_t, TO_TOKENS>(p, threads, osr_cuda(ctx)->stream);
    else
      launch_patches<T, uint64_t, TO_TOKENS>(p, threads, osr_cuda(ctx)->stream);
  });
  return osr_cuda_launched(ctx, "%s: batch %lld, %d x %d x %d x %d", op, (long long) p->batch, p->t,
                           p->h, p->w, p->c);
}

extern "C" OsrResult
osr_cuda_patchify(OsrOpsContext *ctx, const OsrPatchify *p)
{
  return run_patches<true>(ctx, "patchify", p);
}

extern "C" OsrResult
osr_cuda_unpatchify(OsrOpsContext *ctx, const OsrPatchify *p)
{
  return run_patches<false>(ctx, "unpatchify", p);
}
