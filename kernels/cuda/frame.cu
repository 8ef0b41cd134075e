/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tensor_to_frame, frame_to_tensor.
 *
 * Bytes moved: the tensor once and the pixels once. One frame is some MB, so the time is that
 * of a launch and little more; at 4K, expected: 60 to 75 % of the copy bandwidth (three
 * channels do not make wide accesses).
 */
#include "device.cuh"

template <typename T> struct Frame {
  int width, height;
  T *tensor; /* [height, width, 3] */
  uint8_t *planes[3];
  int strides[3];
  bool nv12;
  float kr, kg, kb; /* luma weights */
};

/* [-1, 1] -> [0, 1]; what is outside is clamped, NaN becomes black. */
OSR_DEVICE float
to_unit(float v)
{
  v = v > -1.0f ? (v < 1.0f ? v : 1.0f) : -1.0f;
  return fmaf(0.5f, v, 0.5f);
}

/* [-1, 1] -> [0, 255]: 255 (v + 1) / 2 + 1/2, cut off. */
OSR_DEVICE uint8_t
to_byte(float v)
{
  v = v > -1.0f ? (v < 1.0f ? v : 1.0f) : -1.0f;
  return (uint8_t) fmaf(127.5f, v, 128.0f);
}

OSR_DEVICE float
from_unit(float v)
{
  return fmaf(2.0f, fminf(fmaxf(v, 0.0f), 1.0f), -1.0f);
}

/* --- RGB, RGBX --- */

/* V bytes of a row a thread. */
template <typename T, int V> static __global__ void __launch_bounds__(256) to_rgb(Frame<T> f)
{
  const int64_t y = osr_grid_row(), row = 3 * (int64_t) f.width;

  if (y >= f.height)
    return;
  for (OSR_GRID_ITEMS(item, row / V, 1)) {
    uint8_t *const out = f.planes[0] + y * f.strides[0] + item * V;
    float v[V];

    osr_load_floats((const T *) f.tensor + y * row + item * V, v);
    if constexpr (V == 4)
      *(uchar4 *) out = make_uchar4(to_byte(v[0]), to_byte(v[1]), to_byte(v[2]), to_byte(v[3]));
    else
      out[0] = to_byte(v[0]);
  }
}

template <typename T, int V> static __global__ void __launch_bounds__(256) from_rgb(Frame<T> f)
{
  const int64_t y = osr_grid_row(), row = 3 * (int64_t) f.width;

  if (y >= f.height)
    return;
  for (OSR_GRID_ITEMS(item, row / V, 1)) {
    const uint8_t *const in = f.planes[0] + y * f.strides[0] + item * V;
    float v[V];

    if constexpr (V == 4) {
      const uchar4 bytes = *(const uchar4 *) in;

      v[0] = bytes.x / 127.5f - 1.0f;
      v[1] = bytes.y / 127.5f - 1.0f;
      v[2] = bytes.z / 127.5f - 1.0f;
      v[3] = bytes.w / 127.5f - 1.0f;
    } else {
      v[0] = in[0] / 127.5f - 1.0f;
    }
    osr_store(f.tensor + y * row + item * V, v);
  }
}

/* A pixel a thread; ALIGNED: as one word. */
template <typename T, bool ALIGNED>
static __global__ void __launch_bounds__(256) to_rgbx(Frame<T> f)
{
  const int64_t y = osr_grid_row();

  if (y >= f.height)
    return;
  for (OSR_GRID_ITEMS(x, f.width, 1)) {
    const T *const pixel = f.tensor + (y * f.width + x) * 3;
    uint8_t *const out = f.planes[0] + y * f.strides[0] + 4 * x;
    const uchar4 bytes = make_uchar4(to_byte(osr_float(pixel[0])), to_byte(osr_float(pixel[1])),
                                     to_byte(osr_float(pixel[2])), 255);

    if (ALIGNED) {
      *(uchar4 *) out = bytes;
    } else {
      out[0] = bytes.x;
      out[1] = bytes.y;
      out[2] = bytes.z;
      out[3] = bytes.w;
    }
  }
}

template <typename T> static __global__ void __launch_bounds__(256) from_rgbx(Frame<T> f)
{
  const int64_t y = osr_grid_row();

  if (y >= f.height)
    return;
  for (OSR_GRID_ITEMS(x, f.width, 1)) {
    const uint8_t *const in = f.planes[0] + y * f.strides[0] + 4 * x;
    T *const pixel = f.tensor + (y * f.width + x) * 3;

#pragma unroll
    for (int c = 0; c < 3; c++)
      pixel[c] = osr_round<T>(in[c] / 127.5f - 1.0f);
  }
}

/* --- I420, NV12 --- */

template <typename T>
OSR_DEVICE void
chroma_at(const Frame<T> &f, int64_t x, int64_t y, uint8_t **cb, uint8_t **cr)
{
  if (f.nv12) {
    *cb = f.planes[1] + y * f.strides[1] + 2 * x;
    *cr = *cb + 1;
  } else {
    *cb = f.planes[1] + y * f.strides[1] + x;
    *cr = f.planes[2] + y * f.strides[2] + x;
  }
}

/* A chroma sample and its up to 2x2 pixels a thread: see kernels/ref/frame.c for the formulas. */
template <typename T> static __global__ void __launch_bounds__(256) to_yuv(Frame<T> f)
{
  const int64_t cy = osr_grid_row();
  const float red_scale = 112.0f / (1.0f - f.kr), blue_scale = 112.0f / (1.0f - f.kb);

  if (cy >= (f.height + (int64_t) 1) / 2)
    return;
  for (OSR_GRID_ITEMS(cx, (f.width + (int64_t) 1) / 2, 1)) {
    float red = 0.0f, blue = 0.0f, count = 0.0f;
    uint8_t *cb, *cr;

#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int64_t x = 2 * cx + i % 2, y = 2 * cy + i / 2;

      if (x < f.width && y < f.height) {
        const T *const pixel = f.tensor + (y * f.width + x) * 3;
        const float r = to_unit(osr_float(pixel[0])), g = to_unit(osr_float(pixel[1]));
        const float b = to_unit(osr_float(pixel[2]));
        const float luma = f.kr * r + f.kg * g + f.kb * b;

        f.planes[0][y * f.strides[0] + x] = (uint8_t) fmaf(219.0f, luma, 16.5f);
        red += r - luma;
        blue += b - luma;
        count += 1.0f;
      }
    }
    chroma_at(f, cx, cy, &cb, &cr);
    *cb = (uint8_t) (128.5f + blue_scale * blue / count);
    *cr = (uint8_t) (128.5f + red_scale * red / count);
  }
}

template <typename T> static __global__ void __launch_bounds__(256) from_yuv(Frame<T> f)
{
  const int64_t cy = osr_grid_row();

  if (cy >= (f.height + (int64_t) 1) / 2)
    return;
  for (OSR_GRID_ITEMS(cx, (f.width + (int64_t) 1) / 2, 1)) {
    uint8_t *cb, *cr;

    chroma_at(f, cx, cy, &cb, &cr);
    const float red_part = 2.0f * (1.0f - f.kr) * (*cr - 128) / 224.0f;
    const float blue_part = 2.0f * (1.0f - f.kb) * (*cb - 128) / 224.0f;

#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int64_t x = 2 * cx + i % 2, y = 2 * cy + i / 2;

      if (x < f.width && y < f.height) {
        const float grey = (f.planes[0][y * f.strides[0] + x] - 16) / 219.0f;
        const float red = grey + red_part, blue = grey + blue_part;
        T *const pixel = f.tensor + (y * f.width + x) * 3;

        pixel[0] = osr_round<T>(from_unit(red));
        pixel[1] = osr_round<T>(from_unit((grey - f.kr * red - f.kb * blue) / f.kg));
        pixel[2] = osr_round<T>(from_unit(blue));
      }
    }
  }
}

/* --- launches --- */

template <typename T>
static Frame<T>
make_frame(const OsrFrame *p)
{
  Frame<T> f = {};
  double kr, kb;

  osr_matrix_luma(p->matrix, &kr, &kb);
  f.width = p->width;
  f.height = p->height;
  f.tensor = (T *) p->tensor;
  for (int i = 0; i < osr_frame_planes(p->format); i++) {
    f.planes[i] = p->planes[i];
    f.strides[i] = p->strides[i];
  }
  f.nv12 = p->format == OSR_PIXEL_NV12;
  f.kr = (float) kr;
  f.kg = (float) (1.0 - kr - kb);
  f.kb = (float) kb;
  return f;
}

static bool
in_words(const OsrFrame *p)
{
  return osr_aligned(p->planes[0], 4) && (p->height == 1 || p->strides[0] % 4 == 0);
}

template <typename T>
static bool
to_pixels(const OsrFrame *p, cudaStream_t stream)
{
  const Frame<T> f = make_frame<T>(p);
  const bool four = in_words(p) && p->width % 4 == 0 && osr_aligned(p->tensor, 4 * sizeof(T));
  const int64_t bytes = 3 * (int64_t) p->width;
  OsrRowGrid g;

  if (p->format == OSR_PIXEL_RGB) {
    if (!osr_row_grid(p->height, four ? bytes / 4 : bytes, 1, &g))
      return false;
    if (four)
      to_rgb<T, 4><<<g.grid, g.block, 0, stream>>>(f);
    else
      to_rgb<T, 1><<<g.grid, g.block, 0, stream>>>(f);
  } else if (p->format == OSR_PIXEL_RGBX) {
    if (!osr_row_grid(p->height, p->width, 1, &g))
      return false;
    if (in_words(p))
      to_rgbx<T, true><<<g.grid, g.block, 0, stream>>>(f);
    else
      to_rgbx<T, false><<<g.grid, g.block, 0, stream>>>(f);
  } else {
    if (!osr_row_grid(osr_ceil_div(p->height, 2), osr_ceil_div(p->width, 2), 1, &g))
      return false;
    to_yuv<T><<<g.grid, g.block, 0, stream>>>(f);
  }
  return true;
}

template <typename T>
static bool
from_pixels(const OsrFrame *p, cudaStream_t stream)
{
  const Frame<T> f = make_frame<T>(p);
  const bool four = in_words(p) && p->width % 4 == 0 && osr_aligned(p->tensor, 4 * sizeof(T));
  const int64_t bytes = 3 * (int64_t) p->width;
  OsrRowGrid g;

  if (p->format == OSR_PIXEL_RGB) {
    if (!osr_row_grid(p->height, four ? bytes / 4 : bytes, 1, &g))
      return false;
    if (four)
      from_rgb<T, 4><<<g.grid, g.block, 0, stream>>>(f);
    else
      from_rgb<T, 1><<<g.grid, g.block, 0, stream>>>(f);
  } else if (p->format == OSR_PIXEL_RGBX) {
    if (!osr_row_grid(p->height, p->width, 1, &g))
      return false;
    from_rgbx<T><<<g.grid, g.block, 0, stream>>>(f);
  } else {
    if (!osr_row_grid(osr_ceil_div(p->height, 2), osr_ceil_div(p->width, 2), 1, &g))
      return false;
    from_yuv<T><<<g.grid, g.block, 0, stream>>>(f);
  }
  return true;
}

static OsrResult
run(OsrOpsContext *ctx, const char *op, const OsrFrame *p, bool to)
{
  const cudaStream_t stream = osr_cuda(ctx)->stream;
  bool fits;

  OSR_TRY(osr_cuda_begin(ctx, op));
  OSR_TRY(osr_check_frame(ctx, op, p, OSR_CUDA_DTYPES));
  if (p->width == 0 || p->height == 0)
    return OSR_OK;
  OSR_CUDA_TYPED(p->dtype, { fits = to ? to_pixels<T>(p, stream) : from_pixels<T>(p, stream); });
  if (!fits)
    return osr_too_large(ctx, op);
  return osr_cuda_launched(ctx, "%s: %d x %d, format %d", op, p->width, p->height, (int) p->format);
}

extern "C" OsrResult
osr_cuda_tensor_to_frame(OsrOpsContext *ctx, const OsrFrame *p)
{
  return run(ctx, "tensor_to_frame", p, true);
}

extern "C" OsrResult
osr_cuda_frame_to_tensor(OsrOpsContext *ctx, const OsrFrame *p)
{
  return run(ctx, "frame_to_tensor", p, false);
}
