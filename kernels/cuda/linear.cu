/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * linear: matrix products, and what goes around them.
 *
 * Up to 4 rows (modulation and time vectors) are a walk over the weights: a kernel of our own
 * reads them once at the speed of memory. All else goes to cuBLASLt, with as much of
 * y = residual + gate act(x W^T + bias) in its epilogue as that can do:
 *
 *   bias, residual                cuBLASLt adds both
 *   bias, GELU (tanh)             cuBLASLt, in bf16
 *   bias, gate, residual          the gate is a factor of a column of the product: either
 *                                 cuBLASLt's alpha, where it takes a vector; or multiplied
 *                                 into a copy of the weights, where that is less work than
 *                                 another pass over y (more rows than k)
 *   anything else                 the product first, then one kernel: 2 reads, 1 write of y
 *
 * Shapes that cuBLASLt has no kernel for (odd pointers) have a plain tiled one.
 */
#include "device.cuh"

/* Rows that the kernel for few rows takes. */
#define FEW 4

/* What happens to a sum before it is stored. */
template <typename T> struct Epilogue {
  int n;
  uint32_t m; /* rows of a batch item */
  const float *w_scale;
  const T *bias;
  OsrAct act;
  const T *gate;
  int64_t gate_batch;
  const T *residual;
  int64_t residual_ld, residual_batch;
  T *y;
  int64_t y_ld, y_batch;
};

template <typename T, int N>
OSR_DEVICE void
multiply(float (&v)[N], const T *factors)
{
  float f[N];

  osr_load_floats(factors, f);
#pragma unroll
  for (int i = 0; i < N; i++)
    v[i] *= f[i];
}

template <typename T, int N>
OSR_DEVICE void
add(float (&v)[N], const T *terms)
{
  float f[N];

  osr_load_floats(terms, f);
#pragma unroll
  for (int i = 0; i < N; i++)
    v[i] += f[i];
}

/* Sums of columns j .. j + N, row i of item b; all but the residual. */
template <typename T, int N>
OSR_DEVICE void
finish(const Epilogue<T> &e, uint32_t b, int64_t j, float (&v)[N])
{
  if (e.w_scale)
    multiply(v, e.w_scale + j);
  if (e.bias)
    add(v, e.bias + j);
  osr_act(e.act, v);
  if (e.gate)
    multiply(v, e.gate + b * e.gate_batch + j);
}

template <typename T>
OSR_DEVICE void
finish_one(const Epilogue<T> &e, uint32_t b, uint32_t i, int64_t j, float sum)
{
  float v[1] = { sum };

  finish(e, b, j, v);
  if (e.residual)
    v[0] += osr_float(e.residual[b * e.residual_batch + i * e.residual_ld + j]);
  e.y[b * e.y_batch + i * e.y_ld + j] = osr_round<T>(v[0]);
}

/* --- after a product: y = residual + gate act(t w_scale + bias), t may be y --- */

/* Bytes moved: t, residual and y once each. Expected: 85 % of the copy bandwidth. */
template <typename T, int V>
static __global__ void __launch_bounds__(256)
    epilogue(Epilogue<T> e, const T *t, int64_t t_ld, int64_t t_batch, uint32_t rows)
{
  constexpr int U = 2;
  const int64_t row = osr_grid_row();
  const int64_t items = e.n / V;

  if (row >= rows)
    return;
  const uint32_t b = (uint32_t) row / e.m, i = (uint32_t) row - b * e.m;
  const T *const from = t + b * t_batch + i * t_ld;
  const T *const residual =
      e.residual ? e.residual + b * e.residual_batch + i * e.residual_ld : nullptr;
  T *const to = e.y + b * e.y_batch + i * e.y_ld;

  for (OSR_GRID_ITEMS(item, items, U)) {
    OsrPack<T, V> sums[U], residuals[U];

#pragma unroll
    for (int u = 0; u < U; u++) {
      const int64_t j = (item + u * blockDim.x) * V;

      if (j < e.n)
        sums[u] = osr_load<V>(from + j);
      if (j < e.n && residual)
        residuals[u] = osr_load<V>(residual + j);
    }
#pragma unroll
    for (int u = 0; u < U; u++) {
      const int64_t j = (item + u * blockDim.x) * V;
      float v[V], r[V];

      if (j >= e.n)
        continue;
      osr_unpack(sums[u], v);
      finish(e, b, j, v);
      if (residual) {
        osr_unpack(residuals[u], r);
#pragma unroll
        for (int k = 0; k < V; k++)
          v[k] += r[k];
      }
      osr_store(to + j, v);
    }
  }
}

/* --- few rows --- */

/* ROWS rows of x, of any items, times two rows of w a warp. Bytes moved: w once; x, a few KB,
 * comes out of the L1. Eight loads of w are under way in each thread, since most calls have
 * no more than two blocks a multiprocessor. Expected: 80 to 90 % of the bandwidth of reading
 * alone. */
template <typename T, int ROWS, int V>
static __global__ void __launch_bounds__(128)
    few_rows(Epilogue<T> e, const T *x, int64_t x_ld, int64_t x_batch, const T *w, int k)
{
  constexpr int F = 2, U = 4;
  const int64_t j = ((int64_t) blockIdx.x * 4 + threadIdx.x / 32) * F;
  const int lane = threadIdx.x % 32;
  const T *rows[ROWS];
  float sums[ROWS][F] = {};

  if (j >= e.n) /* a whole warp */
    return;
  const T *const w0 = w + j * k, *const w1 = j + 1 < e.n ? w0 + k : w0;

#pragma unroll
  for (int r = 0; r < ROWS; r++)
    rows[r] = x + r / e.m * x_batch + r % e.m * x_ld;

  for (int64_t c0 = lane * V; c0 < k; c0 += U * 32 * V) {
    OsrPack<T, V> packs[U][F];

#pragma unroll
    for (int u = 0; u < U; u++)
      if (c0 + u * 32 * V < k) {
        packs[u][0] = osr_load<V>(w0 + c0 + u * 32 * V);
        packs[u][1] = osr_load<V>(w1 + c0 + u * 32 * V);
      }
#pragma unroll
    for (int u = 0; u < U; u++) {
      const int64_t c = c0 + u * 32 * V;
      float f[F][V], v[V];

      if (c >= k)
        break;
      osr_unpack(packs[u][0], f[0]);
      osr_unpack(packs[u][1], f[1]);
#pragma unroll
      for (int r = 0; r < ROWS; r++) {
        osr_load_floats(rows[r] + c, v);
#pragma unroll
        for (int i = 0; i < V; i++) {
          sums[r][0] += v[i] * f[0][i];
          sums[r][1] += v[i] * f[1][i];
        }
      }
    }
  }

  /* Lane r * F + s keeps the sum of row r and column j + s. */
  float mine = 0.0f;

#pragma unroll
  for (int r = 0; r < ROWS; r++)
#pragma unroll
    for (int s = 0; s < F; s++) {
      const float sum = osr_warp_sum(sums[r][s]);

      mine = lane == r * F + s ? sum : mine;
    }
  if (lane < ROWS * F && j + lane % F < e.n)
    finish_one(e, lane / F / e.m, lane / F % e.m, j + lane % F, mine);
}

/* --- what cuBLASLt has no kernel for --- */

#define TILE 64
#define DEPTH 16

/* Not inlined sixteen times over. */
template <typename T>
static __device__ __noinline__ void
finish_call(const Epilogue<T> &e, uint32_t b, uint32_t i, int64_t j, float sum)
{
  finish_one(e, b, i, j, sum);
}

/* A tile of 64 x 64 a block, 4 x 4 a thread, any alignment. Not fast, and rarely needed. */
template <typename T>
static __global__ void __launch_bounds__(256)
    plain(Epilogue<T> e, const T *x, int64_t x_ld, int64_t x_batch, const T *w, int k)
{
  __shared__ float xs[DEPTH][TILE + 1], ws[DEPTH][TILE + 1];
  const int64_t i0 = (int64_t) blockIdx.x * TILE, j0 = (int64_t) blockIdx.y * TILE;
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  const uint32_t b = blockIdx.z;
  float sums[4][4] = {};

  for (int64_t c0 = 0; c0 < k; c0 += DEPTH) {
    for (int s = threadIdx.x; s < TILE * DEPTH; s += 256) {
      const int64_t i = i0 + s / DEPTH, j = j0 + s / DEPTH, c = c0 + s % DEPTH;

      xs[s % DEPTH][s / DEPTH] = i < e.m && c < k ? osr_float(x[b * x_batch + i * x_ld + c]) : 0.0f;
      ws[s % DEPTH][s / DEPTH] = j < e.n && c < k ? osr_float(w[j * k + c]) : 0.0f;
    }
    __syncthreads();
#pragma unroll 4
    for (int c = 0; c < DEPTH; c++)
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
          sums[i][j] += xs[c][ty + 16 * i] * ws[c][tx + 16 * j];
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (i0 + ty + 16 * i < e.m && j0 + tx + 16 * j < e.n)
        finish_call(e, b, (uint32_t) (i0 + ty + 16 * i), j0 + tx + 16 * j, sums[i][j]);
}

/* --- gates --- */

/* alpha = gate in f32, scaled bias = gate * bias: [batch, n] each. */
template <typename T>
static __global__ void __launch_bounds__(256)
    gate_vectors(const T *gate, int64_t gate_batch, const T *bias, int n, int64_t batch,
                 float *alpha, T *scaled_bias)
{
  const int64_t b = osr_grid_row();

  if (b >= batch)
    return;
  for (OSR_GRID_ITEMS(j, n, 1)) {
    const float g = osr_float(gate[b * gate_batch + j]);

    if (alpha)
      alpha[b * n + j] = g;
    if (bias)
      scaled_bias[b * n + j] = osr_round<T>(g * osr_float(bias[j]));
  }
}

/* scaled [batch, n, k] = gate [batch, n] * w [n, k]. Bytes moved: w, and once more a batch
 * item to write it. */
template <typename T, int V>
static __global__ void __launch_bounds__(256)
    gate_weights(const T *gate, int64_t gate_batch, const T *w, int n, int64_t rows, int64_t k,
                 T *scaled)
{
  constexpr int U = 2;
  const int64_t row = osr_grid_row();

  if (row >= rows)
    return;
  const int64_t b = row / n, j = row - b * n;
  const float g = osr_float(gate[b * gate_batch + j]);

  for (OSR_GRID_ITEMS(item, k / V, U)) {
    OsrPack<T, V> packs[U];

#pragma unroll
    for (int u = 0; u < U; u++)
      if (item + u * blockDim.x < k / V)
        packs[u] = osr_load<V>(w + j * k + (item + u * blockDim.x) * V);
#pragma unroll
    for (int u = 0; u < U; u++)
      if (item + u * blockDim.x < k / V) {
        float v[V];

        osr_unpack(packs[u], v);
#pragma unroll
        for (int i = 0; i < V; i++)
          v[i] *= g;
        osr_store(scaled + row * k + (item + u * blockDim.x) * V, v);
      }
  }
}

/* --- launches --- */

template <typename T>
static Epilogue<T>
make_epilogue(const OsrLinear *p)
{
  return { p->n,           (uint32_t) p->m,     p->w_scale,    (const T *) p->bias,
           p->act,         (const T *) p->gate, p->gate_batch, (const T *) p->residual,
           p->residual_ld, p->residual_batch,   (T *) p->y,    p->y_ld,
           p->y_batch };
}

static OsrResult
launched(OsrOpsContext *ctx, const OsrLinear *p)
{
  return osr_cuda_launched(ctx, "linear: batch %lld, m %lld, n %d, k %d", (long long) p->batch,
                           (long long) p->m, p->n, p->k);
}

template <typename T, int V>
static void
launch_few(const OsrLinear *p, cudaStream_t stream)
{
  const Epilogue<T> e = make_epilogue<T>(p);
  const uint32_t blocks = (uint32_t) osr_ceil_div(p->n, 8);
  const T *x = (const T *) p->x, *w = (const T *) p->w;

  switch (p->batch * p->m) {
  case 1:
    few_rows<T, 1, V><<<blocks, 128, 0, stream>>>(e, x, p->x_ld, p->x_batch, w, p->k);
    break;
  case 2:
    few_rows<T, 2, V><<<blocks, 128, 0, stream>>>(e, x, p->x_ld, p->x_batch, w, p->k);
    break;
  case 3:
    few_rows<T, 3, V><<<blocks, 128, 0, stream>>>(e, x, p->x_ld, p->x_batch, w, p->k);
    break;
  default:
    few_rows<T, 4, V><<<blocks, 128, 0, stream>>>(e, x, p->x_ld, p->x_batch, w, p->k);
    break;
  }
}

template <typename T>
static OsrResult
run_few(OsrOpsContext *ctx, const OsrLinear *p)
{
  constexpr int V = osr_width<T>;

  if (osr_aligned(p->x, 16) && osr_aligned(p->w, 16) &&
      osr_multiples(V, p->k, osr_stride(p->m, p->x_ld), osr_stride(p->batch, p->x_batch)))
    launch_few<T, V>(p, osr_cuda(ctx)->stream);
  else
    launch_few<T, 1>(p, osr_cuda(ctx)->stream);
  return launched(ctx, p);
}

template <typename T>
static OsrResult
run_plain(OsrOpsContext *ctx, const OsrLinear *p)
{
  const dim3 grid((uint32_t) osr_ceil_div(p->m, TILE), (uint32_t) osr_ceil_div(p->n, TILE),
                  (uint32_t) p->batch);

  if (p->batch > 65535 || grid.y > 65535)
    return osr_fail(ctx, OSR_ERR_UNSUPPORTED, "linear: batch %lld, n %d, k %d at this alignment",
                    (long long) p->batch, p->n, p->k);
  plain<T><<<grid, 256, 0, osr_cuda(ctx)->stream>>>(make_epilogue<T>(p), (const T *) p->x, p->x_ld,
                                                    p->x_batch, (const T *) p->w, p->k);
  return launched(ctx, p);
}

/* t, which is in y or has the layout given, through the epilogue of `p` into y. */
template <typename T>
static OsrResult
run_epilogue(OsrOpsContext *ctx, const OsrLinear *p, const T *t, int64_t t_ld, int64_t t_batch)
{
  constexpr int V = osr_width<T>;
  const void *const pointers[] = { t, p->w_scale, p->bias, p->gate, p->residual, p->y };
  const Epilogue<T> e = make_epilogue<T>(p);
  const uint32_t rows = (uint32_t) (p->batch * p->m);
  bool wide = osr_multiples(V, p->n, osr_stride(p->m, t_ld), osr_stride(p->m, p->y_ld),
                            osr_stride(p->m, p->residual ? p->residual_ld : 0)) &&
              osr_multiples(V, osr_stride(p->batch, t_batch), osr_stride(p->batch, p->y_batch),
                            osr_stride(p->batch, p->residual ? p->residual_batch : 0),
                            osr_stride(p->batch, p->gate ? p->gate_batch : 0));
  OsrRowGrid g;

  for (const void *pointer : pointers)
    wide = wide && osr_aligned(pointer, 16);
  if (!osr_row_grid(rows, wide ? p->n / V : p->n, 2, &g))
    return osr_too_large(ctx, "linear");
  if (wide)
    epilogue<T, V><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(e, t, t_ld, t_batch, rows);
  else
    epilogue<T, 1><<<g.grid, g.block, 0, osr_cuda(ctx)->stream>>>(e, t, t_ld, t_batch, rows);
  return launched(ctx, p);
}

/* The bare product of `p` into `y`. */
static OsrCudaGemm
bare_gemm(const OsrLinear *p, void *y, int64_t y_ld, int64_t y_batch)
{
  OsrCudaGemm g = {};

  g.dtype = p->dtype;
  g.tf32 = p->tf32;
  g.batch = p->batch;
  g.m = p->m;
  g.n = p->n;
  g.k = p->k;
  g.x = p->x;
  g.x_ld = p->x_ld;
  g.x_batch = p->x_batch;
  g.w = p->w;
  g.y = y;
  g.y_ld = y_ld;
  g.y_batch = y_batch;
  return g;
}

static void
add_residual(OsrCudaGemm *g, const OsrLinear *p)
{
  g->residual = p->residual;
  g->residual_ld = p->residual_ld;
  g->residual_batch = p->residual_batch;
}

static OsrResult
no_scratch(OsrOpsContext *ctx, size_t size)
{
  return osr_fail(ctx, OSR_ERR_MEMORY, "linear: no scratch memory of %zu bytes", size);
}

/* Everything in cuBLASLt's epilogue. */
static OsrResult
run_direct(OsrOpsContext *ctx, const OsrLinear *p)
{
  OsrCudaGemm g = bare_gemm(p, p->y, p->y_ld, p->y_batch);
  const bool gelu = p->act == OSR_ACT_GELU_TANH && p->dtype == OSR_DTYPE_BF16 && !p->residual;

  if (p->w_scale || p->gate || (p->act != OSR_ACT_NONE && !gelu) || !osr_aligned(p->bias, 16))
    return OSR_ERR_UNSUPPORTED;
  g.bias = p->bias;
  g.gelu = gelu;
  add_residual(&g, p);
  return osr_cuda_gemm(ctx, &g);
}

/* Product and gate in one. Scratch memory holds the gates as alpha, or the weights times the
 * gates; and then, aligned, the bias times the gates. One gate for all items is made once. */
typedef struct GatedLayout {
  bool weights;
  int64_t items;
  size_t bias_at, size;
} GatedLayout;

static GatedLayout
gated_layout(const OsrLinear *p, bool weights)
{
  GatedLayout layout = {};
  size_t n;

  layout.weights = weights;
  layout.items = p->gate_batch == 0 ? 1 : p->batch;
  n = (size_t) layout.items * p->n;
  layout.bias_at = weights ? n * p->k * osr_dtype_size(p->dtype) : n * sizeof(float);
  layout.bias_at = (layout.bias_at + 255) / 256 * 256;
  layout.size = layout.bias_at + (p->bias ? n * osr_dtype_size(p->dtype) : 0);
  return layout;
}

static OsrCudaGemm
gated_gemm(const OsrLinear *p, const GatedLayout *layout, char *gated)
{
  OsrCudaGemm g = bare_gemm(p, p->y, p->y_ld, p->y_batch);
  const bool many = layout->items > 1;

  g.bias = p->bias ? gated + layout->bias_at : nullptr;
  g.bias_batch = many ? p->n : 0;
  if (layout->weights) {
    g.w = gated;
    g.w_batch = many ? (int64_t) p->n * p->k : 0;
  } else {
    g.alpha = (const float *) gated;
    g.alpha_batch = many ? p->n : 0;
  }
  add_residual(&g, p);
  return g;
}

template <typename T>
static OsrResult
make_gated(OsrOpsContext *ctx, const OsrLinear *p, const GatedLayout *layout, char *gated)
{
  constexpr int V = osr_width<T>;
  const cudaStream_t stream = osr_cuda(ctx)->stream;
  const int64_t rows = layout->items * p->n;
  const bool wide = osr_aligned(p->w, 16) && p->k % V == 0;
  const T *const gate = (const T *) p->gate, *const w = (const T *) p->w;
  OsrRowGrid small, large;

  if (!osr_row_grid(layout->items, p->n, 1, &small) ||
      !osr_row_grid(rows, wide ? p->k / V : p->k, 2, &large))
    return osr_too_large(ctx, "linear");
  if (!layout->weights || p->bias)
    gate_vectors<T><<<small.grid, small.block, 0, stream>>>(
        gate, p->gate_batch, (const T *) p->bias, p->n, layout->items,
        layout->weights ? nullptr : (float *) gated, (T *) (gated + layout->bias_at));
  if (layout->weights && wide)
    gate_weights<T, V><<<large.grid, large.block, 0, stream>>>(gate, p->gate_batch, w, p->n, rows,
                                                               p->k, (T *) gated);
  else if (layout->weights)
    gate_weights<T, 1><<<large.grid, large.block, 0, stream>>>(gate, p->gate_batch, w, p->n, rows,
                                                               p->k, (T *) gated);
  return launched(ctx, p);
}

template <typename T>
static OsrResult
run_gated(OsrOpsContext *ctx, const OsrLinear *p, bool weights)
{
  const GatedLayout layout = gated_layout(p, weights);
  /* Asked before any work is done, with an address as aligned as that of memory. */
  OsrCudaGemm g = gated_gemm(p, &layout, (char *) (uintptr_t) 256);
  OsrResult result;
  char *gated;

  if (osr_cuda_gemm_refused(ctx, &g))
    return OSR_ERR_UNSUPPORTED;
  gated = (char *) osr_scratch_alloc(ctx, layout.size);
  if (!gated)
    return no_scratch(ctx, layout.size);
  result = make_gated<T>(ctx, p, &layout, gated);
  if (result == OSR_OK) {
    g = gated_gemm(p, &layout, gated);
    result = osr_cuda_gemm(ctx, &g);
  }
  osr_scratch_free(ctx, gated, layout.size);
  return result;
}

/* The ways that need no pass over y, where they pay. */
template <typename T>
static OsrResult
run_fused_gate(OsrOpsContext *ctx, const OsrLinear *p)
{
  const OsrCudaGate choice = osr_cuda(ctx)->gate;
  /* Copying the weights moves 4 n k bytes a gate in bf16; a pass over y would move 4 n bytes a
   * row more than the residual in cuBLASLt's epilogue. */
  const bool pays = p->batch * p->m > (p->gate_batch == 0 ? 1 : p->batch) * p->k;
  OsrResult result = OSR_ERR_UNSUPPORTED;

  if (!p->gate || p->w_scale || p->act != OSR_ACT_NONE)
    return OSR_ERR_UNSUPPORTED;
  if (choice == OSR_CUDA_GATE_VECTOR || choice == OSR_CUDA_GATE_BEST)
    result = run_gated<T>(ctx, p, false);
  if (result == OSR_ERR_UNSUPPORTED &&
      (choice == OSR_CUDA_GATE_WEIGHTS || (choice == OSR_CUDA_GATE_BEST && pays)))
    result = run_gated<T>(ctx, p, true);
  return result;
}

/* The product into y, or into memory of its own where y is still needed; then the rest. */
template <typename T>
static OsrResult
run_two_steps(OsrOpsContext *ctx, const OsrLinear *p)
{
  const bool apart = p->residual == p->y;
  const int64_t ld = apart ? p->n : p->y_ld;
  const int64_t batch = apart ? p->m * p->n : p->y_batch;
  const size_t size = (size_t) p->batch * p->m * p->n * sizeof(T);
  T *t = apart ? (T *) osr_scratch_alloc(ctx, size) : (T *) p->y;
  OsrCudaGemm g = bare_gemm(p, t, ld, batch);
  OsrResult result;

  if (!t)
    return no_scratch(ctx, size);
  result = osr_cuda_gemm(ctx, &g);
  if (result == OSR_OK)
    result = run_epilogue<T>(ctx, p, t, ld, batch);
  if (apart)
    osr_scratch_free(ctx, t, size);
  return result;
}

template <typename T>
static OsrResult
run_typed(OsrOpsContext *ctx, const OsrLinear *p)
{
  OsrResult result;

  if (p->batch <= FEW && p->m <= FEW && p->batch * p->m <= FEW)
    return run_few<T>(ctx, p);
  result = run_direct(ctx, p);
  if (result == OSR_ERR_UNSUPPORTED)
    result = run_fused_gate<T>(ctx, p);
  if (result == OSR_ERR_UNSUPPORTED)
    result = run_two_steps<T>(ctx, p);
  if (result == OSR_ERR_UNSUPPORTED)
    result = run_plain<T>(ctx, p);
  return result;
}

static OsrResult
run(OsrOpsContext *ctx, const OsrLinear *p)
{
  if (p->dtype == OSR_DTYPE_BF16)
    return run_typed<__nv_bfloat16>(ctx, p);
  return run_typed<float>(ctx, p);
}

/* Weights of another type are converted first: correct, but not for use in a loop. */
static OsrResult
run_converted(OsrOpsContext *ctx, const OsrLinear *p)
{
  const size_t size = (size_t) p->n * p->k * osr_dtype_size(p->dtype);
  void *w = osr_scratch_alloc(ctx, size);
  OsrLinear same = *p;
  OsrResult result;

  if (!w)
    return no_scratch(ctx, size);
  same.w = w;
  same.w_dtype = p->dtype;
  result = osr_cuda_convert(ctx, p->w_dtype, p->w, p->dtype, w, (int64_t) p->n * p->k);
  if (result == OSR_OK)
    result = run(ctx, &same);
  osr_scratch_free(ctx, w, size);
  return result;
}

extern "C" OsrResult
osr_cuda_linear(OsrOpsContext *ctx, const OsrLinear *p)
{
  OSR_TRY(osr_cuda_begin(ctx, "linear"));
  OSR_TRY(osr_check_linear(ctx, p, OSR_CUDA_DTYPES));
  if (p->batch == 0 || p->m == 0 || p->n == 0)
    return OSR_OK;
  if (p->m > INT32_MAX / p->batch)
    return osr_too_large(ctx, "linear");
  if (p->w_dtype != p->dtype)
    return run_converted(ctx, p);
  return run(ctx, p);
}
