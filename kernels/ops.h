/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ops.h: the table of operations that the models are written in.
 *
 * Every entry is a fused, domain-sized operation. A backend (kernels/ref: plain C with
 * double accumulators, kernels/cpu: vectorised loops on threads, kernels/cuda) fills one OsrBackend
 * with its memory functions and its OsrOps. tests/kernels/checkops runs every entry of
 * every backend against kernels/ref.
 *
 * Conventions
 *  - Activations are row-major with the channel last: tokens [batch, rows, channels],
 *    video [batch, T, H, W, C]. A `_ld` is the distance in elements between two rows, a
 *    `_batch` that between two batch items; rows themselves are contiguous.
 *  - `dtype` is the type of all activations, biases, norm weights, gates and modulation
 *    vectors of a call. Weights of matrix products have a `w_dtype` of their own.
 *    Statistics and accumulations are f32 or better in every backend. Tables named f32
 *    are f32 in every backend.
 *  - Pointers are device pointers of the context's backend unless said otherwise. Nothing
 *    is retained after a call. On an asynchronous backend a call enqueues on ctx->stream
 *    and returns: buffers must live until the stream has passed it.
 *  - Every op returns an OsrResult; on failure ctx->error says what was asked and why it
 *    cannot be done. Outputs are then undefined. No op aborts on bad arguments.
 *  - y may equal x where the comment says "in place".
 *  - A zero-sized call (batch, rows or elements 0) succeeds and writes nothing.
 */
#ifndef OSR_OPS_H
#define OSR_OPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define OSR_OPS_ABI 3

/* Marks and fetches that a context keeps, see OsrBackend.mark and OsrBackend.fetch. */
#define OSR_MAX_MARKS 64

typedef enum OsrDType {
  OSR_DTYPE_F32 = 0,
  OSR_DTYPE_BF16,
  OSR_DTYPE_F16,
  OSR_DTYPE_F64,
  OSR_DTYPE_I32,
  OSR_DTYPE_I64,
  OSR_DTYPE_U8,
  OSR_DTYPE_BOOL,
  OSR_DTYPE_F8_E4M3,
  OSR_N_DTYPES
} OsrDType;

typedef enum OsrResult {
  OSR_OK = 0,
  OSR_ERR_INVALID = -1,     /* arguments that no backend can run */
  OSR_ERR_UNSUPPORTED = -2, /* valid, but not in this backend (dtype, size) */
  OSR_ERR_MEMORY = -3,      /* scratch memory refused */
  OSR_ERR_DEVICE = -4,      /* the device or a library it uses failed */
} OsrResult;

typedef enum OsrAct {
  OSR_ACT_NONE = 0,
  OSR_ACT_SILU,       /* x * sigmoid(x) */
  OSR_ACT_GELU_TANH,  /* 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), "gelu_new" */
  OSR_ACT_GELU_ERF,   /* 0.5 x (1 + erf(x / sqrt 2)) */
  OSR_ACT_QUICK_GELU, /* x * sigmoid(1.702 x), CLIP */
} OsrAct;

typedef enum OsrRope {
  OSR_ROPE_NONE = 0,
  OSR_ROPE_INTERLEAVED, /* rotates (2i, 2i+1): FLUX */
  OSR_ROPE_HALF,        /* rotates (i, i + head_dim/2): Open-Sora 2.0 checkpoints */
} OsrRope;

typedef enum OsrMask {
  OSR_MASK_NONE = 0,
  OSR_MASK_CAUSAL,       /* query i sees keys j <= i */
  OSR_MASK_FRAME_CAUSAL, /* query i sees keys of frames <= i / frame_len */
} OsrMask;

typedef enum OsrPad { OSR_PAD_ZERO = 0, OSR_PAD_REPLICATE } OsrPad;

typedef enum OsrPixelFormat {
  OSR_PIXEL_RGB = 0, /* one plane, 3 bytes a pixel */
  OSR_PIXEL_RGBX,    /* one plane, 4 bytes a pixel, X = 255 */
  OSR_PIXEL_I420,    /* Y, U, V planes, 4:2:0 */
  OSR_PIXEL_NV12,    /* Y plane, interleaved UV plane, 4:2:0 */
} OsrPixelFormat;

typedef enum OsrMatrix { OSR_MATRIX_BT601 = 0, OSR_MATRIX_BT709 } OsrMatrix;

typedef enum OsrCopy { OSR_COPY_TO_DEVICE, OSR_COPY_TO_HOST, OSR_COPY_ON_DEVICE } OsrCopy;
#define OSR_N_COPIES 3

typedef struct OsrOpsContext OsrOpsContext;

/* y = residual + gate * act(x W^T + bias), rows m of every batch item.
 * x [batch, m, k]; w [n, k] as PyTorch's Linear.weight; bias [n] or NULL;
 * gate [batch, n] or NULL (= 1), gate_batch elements between items;
 * residual [batch, m, n] or NULL (= 0), may equal y (same strides then). */
typedef struct OsrLinear {
  OsrDType dtype, w_dtype;
  int64_t batch, m;
  int n, k;
  const void *x;
  int64_t x_ld, x_batch;
  const void *w, *bias;
  const float *w_scale; /* f32 [n], one factor a row of w (FP8 weights); NULL = 1 */
  OsrAct act;
  const void *gate;
  int64_t gate_batch;
  const void *residual;
  int64_t residual_ld, residual_batch;
  void *y;
  int64_t y_ld, y_batch;
  bool tf32; /* f32: x and w may be rounded to 10 bits of mantissa for the product */
} OsrLinear;

/* y[j] = act(x[j]) * x[n + j] for j < n, x [m, 2n]: the gated feed-forward of T5 v1.1. */
typedef struct OsrGlu {
  OsrDType dtype;
  int64_t m;
  int n;
  OsrAct act;
  const void *x;
  int64_t x_ld;
  void *y;
  int64_t y_ld;
} OsrGlu;

/* y = ((x - mean) / sqrt(var + eps)) * weight + bias, then y * (1 + scale) + shift.
 * weight, bias [n] or NULL; scale, shift [batch, n] (mod_batch elements between items) or
 * NULL: adaLN modulation (DiT, arXiv:2212.09748). In place allowed. */
typedef struct OsrLayerNorm {
  OsrDType dtype;
  int64_t batch, m;
  int n;
  float eps;
  const void *x;
  int64_t x_ld, x_batch;
  const void *weight, *bias;
  const void *scale, *shift;
  int64_t mod_batch;
  void *y;
  int64_t y_ld, y_batch;
} OsrLayerNorm;

/* y = x / sqrt(mean(x^2) + eps) * weight. In place allowed. */
typedef struct OsrRmsNorm {
  OsrDType dtype;
  int64_t m;
  int n;
  float eps;
  const void *x;
  int64_t x_ld;
  const void *weight;
  void *y;
  int64_t y_ld;
} OsrRmsNorm;

/* In place on q and k [batch, m, heads, head_dim] (usually inside one QKV buffer):
 * RMS norm over head_dim with scale q_scale/k_scale [head_dim] (NULL: no norm), then
 * rotary embedding: (a, b) -> (a cos - b sin, b cos + a sin) for each pair of `rope`.
 * cos, sin: f32 [m, head_dim / 2], shared by all batch items and heads. */
typedef struct OsrQkNormRope {
  OsrDType dtype;
  int64_t batch, m;
  int heads, head_dim;
  void *q, *k;
  int64_t ld, batch_stride; /* of both q and k */
  const void *q_scale, *k_scale;
  float eps;
  OsrRope rope;
  const float *cos, *sin;
} OsrQkNormRope;

/* o = softmax(q k^T * scale + bias + mask) v, one head after the other inside a row.
 * q, o [batch, lq, heads, head_dim], k, v [batch, lk, heads, head_dim].
 * rel_bias: f32 [heads, lq + lk - 1] or NULL, entry (key - query + lq - 1): a bias that
 * depends on the distance only (T5), so no lq x lk matrix ever exists.
 * kv_len: int32 [batch] or NULL, keys at and after it are masked (padding); 0 gives 0.
 * o may not alias q, k or v. Memory is O(lq + lk). */
typedef struct OsrAttention {
  OsrDType dtype;
  int64_t batch, lq, lk;
  int heads, head_dim;
  float scale;
  const void *q, *k, *v;
  int64_t q_ld, q_batch, k_ld, k_batch, v_ld, v_batch;
  const float *rel_bias;
  const int32_t *kv_len;
  OsrMask mask;
  int64_t frame_len; /* OSR_MASK_FRAME_CAUSAL: tokens a frame */
  void *o;
  int64_t o_ld, o_batch;
} OsrAttention;

/* Group normalisation over (all positions, channels of the group), then act.
 * x, y [batch, positions, channels] contiguous; weight, bias [channels]. In place allowed. */
typedef struct OsrGroupNorm {
  OsrDType dtype;
  int64_t batch, positions;
  int channels, groups;
  float eps;
  const void *x, *weight, *bias;
  OsrAct act;
  void *y;
} OsrGroupNorm;

/* y = residual + conv(up(x)) + bias on contiguous channels-last video.
 * x [batch, T, H, W, c_in]; w [c_out, k_t, k_h, k_w, c_in]; y, residual
 * [batch, T', H', W', c_out]; residual may equal y.
 * up: nearest up-sampling folded into the convolution. up_hw = 2 doubles H and W;
 * up_t = 2 keeps the first frame single and doubles the others: T -> 1 + 2 (T - 1)
 * (HunyuanVideo's UpsampleCausal3D).
 * Output sizes: (up(T) + pad_t[0] + pad_t[1] - k_t) / stride_t + 1, likewise H and W;
 * osr_conv3d_out() computes them. Causal in time: pad_t = { k_t - 1, 0 }. */
typedef struct OsrConv3d {
  OsrDType dtype, w_dtype;
  int64_t batch;
  int t, h, w_in;
  int c_in, c_out;
  int k_t, k_h, k_w;
  int stride_t, stride_h, stride_w;
  int pad_t[2], pad_h[2], pad_w[2];
  OsrPad pad;
  int up_t, up_hw; /* 1 or 2 */
  const void *x, *w, *bias, *residual;
  void *y;
} OsrConv3d;

/* Latent <-> tokens, feature order (c ph pw) with the pixel innermost.
 * latent [batch, T, H, W, C]; tokens [batch, T (H/p) (W/p), ...] with rows of `ld`
 * elements of which C p p starting at `column` are used. */
typedef struct OsrPatchify {
  OsrDType dtype;
  int64_t batch;
  int t, h, w, c, patch;
  const void *x; /* patchify: latent; unpatchify: tokens */
  void *y;
  int64_t ld;
  int column;
} OsrPatchify;

/* y[i] = table[ids[i]] + positions[i % n_positions] (positions may be NULL).
 * ids: int32 [m]. An id outside [0, vocab) gives OSR_ERR_INVALID on the CPU and zeros on
 * a GPU: callers check ids before. */
typedef struct OsrEmbedding {
  OsrDType dtype;
  int64_t m;
  int n, vocab, n_positions;
  const int32_t *ids;
  const void *table, *positions;
  void *y; /* [m, n] */
} OsrEmbedding;

/* y[i] = [cos(f t_i f_0) ... , sin(f t_i f_0) ...], f_j = max_period^(-j / (n/2)).
 * t: f32 [m]; n even; factor f = 1000. Angles are f32 as upstream's: they reach 1000 rad, so
 * the features differ from exact ones by up to 1e-4. */
typedef struct OsrTimestep {
  OsrDType dtype;
  int64_t m;
  int n;
  float factor, max_period;
  const float *t;
  void *y; /* [m, n] */
} OsrTimestep;

/* y = act(a x + b), contiguous, in place allowed. */
typedef struct OsrAffine {
  OsrDType dtype;
  int64_t n;
  float a, b;
  OsrAct act;
  const void *x;
  void *y;
} OsrAffine;

/* Rows of possibly different strides and types: y[i, j] = (y_dtype) x[i, j]. */
typedef struct OsrCopy2d {
  OsrDType x_dtype, y_dtype;
  int64_t m, n;
  const void *x;
  int64_t x_ld;
  void *y;
  int64_t y_ld;
} OsrCopy2d;

/* The sampler's update on tokens: x += dt * sum_i weight_i[frame] * pred_i.
 * x, pred_i [frames * tokens_per_frame, n] contiguous; weight_i: f32 [frames].
 * With upstream's guidance the weights are text_gs, image_gs - text_gs, 1 - image_gs.
 * The sum is made in f32 in the order given. */
typedef struct OsrGuidanceStep {
  OsrDType dtype;
  int64_t frames, tokens_per_frame;
  int n;
  float dt;
  int n_preds; /* 1..3 */
  const void *pred[3];
  const float *weight[3];
  void *x;
} OsrGuidanceStep;

/* Standard normal noise, one independent stream a seed and `sequence` (clip number in a
 * batch). Element (c, t, h, w) takes draw ((c T + t) H + h) W + w, whatever the memory
 * layout, so noise does not depend on backend, threads or ranks. y [T, H, W, C].
 * philox.h has the exact definition.
 * With torch_blocks, as the sequence-th torch.randn(1, C, T, H, W) of a CUDA generator in
 * PyTorch: on a GPU that runs so many blocks of 256 threads at once, which the result depends on;
 * OSR_RANDN_THIS_GPU: on this one, or (hosts) on an H100 or H200. */
#define OSR_RANDN_THIS_GPU (-1)
#define OSR_RANDN_H100 (132 * 2048 / 256)
typedef struct OsrRandn {
  OsrDType dtype;
  uint64_t seed;
  uint32_t sequence;
  int torch_blocks; /* 0: ours */
  int t, h, w, c;
  void *y;
} OsrRandn;

/* y = scale * (mean + exp(0.5 clamp(logvar, -30, 20)) * noise - shift).
 * moments [m, 2c] (mean, then log-variance); noise [m, c] or NULL (the mode). */
typedef struct OsrGaussian {
  OsrDType dtype;
  int64_t m;
  int c;
  const void *moments, *noise;
  float scale, shift;
  void *y;
} OsrGaussian;

/* Cross-fade of overlapping tiles along one axis, as upstream's tiled VAE:
 * b[o, i, :] = a[o, a_len - extent + i, :] (1 - i / extent) + b[o, i, :] (i / extent).
 * a [outer, a_len, inner] and b [outer, b_len, inner], contiguous; extent is cut to both. */
typedef struct OsrBlend {
  OsrDType dtype;
  int64_t outer, a_len, b_len, inner;
  int extent;
  const void *a;
  void *b;
} OsrBlend;

/* One frame of video [H, W, 3] in [-1, 1] <-> 8-bit pixels.
 * To pixels: clamp, scale to [0, 255], add 0.5 and truncate (upstream's rounding) for RGB;
 * YUV is limited range by `matrix`, chroma averaged over 2x2 (sited centre), odd sizes
 * round up. planes[] are pointers, strides[] bytes. From pixels: v / 127.5 - 1.
 * width and height are those of both sides. */
typedef struct OsrFrame {
  OsrDType dtype;
  int width, height;
  OsrPixelFormat format;
  OsrMatrix matrix;
  void *tensor;
  uint8_t *planes[3];
  int strides[3];
} OsrFrame;

typedef struct OsrOps {
  OsrResult (*linear)(OsrOpsContext *ctx, const OsrLinear *p);
  OsrResult (*glu)(OsrOpsContext *ctx, const OsrGlu *p);
  OsrResult (*layer_norm)(OsrOpsContext *ctx, const OsrLayerNorm *p);
  OsrResult (*rms_norm)(OsrOpsContext *ctx, const OsrRmsNorm *p);
  OsrResult (*qk_norm_rope)(OsrOpsContext *ctx, const OsrQkNormRope *p);
  OsrResult (*attention)(OsrOpsContext *ctx, const OsrAttention *p);
  OsrResult (*group_norm)(OsrOpsContext *ctx, const OsrGroupNorm *p);
  OsrResult (*conv3d)(OsrOpsContext *ctx, const OsrConv3d *p);
  OsrResult (*patchify)(OsrOpsContext *ctx, const OsrPatchify *p);
  OsrResult (*unpatchify)(OsrOpsContext *ctx, const OsrPatchify *p);
  OsrResult (*embedding)(OsrOpsContext *ctx, const OsrEmbedding *p);
  OsrResult (*timestep)(OsrOpsContext *ctx, const OsrTimestep *p);
  OsrResult (*affine)(OsrOpsContext *ctx, const OsrAffine *p);
  OsrResult (*copy2d)(OsrOpsContext *ctx, const OsrCopy2d *p);
  OsrResult (*guidance_step)(OsrOpsContext *ctx, const OsrGuidanceStep *p);
  OsrResult (*randn)(OsrOpsContext *ctx, const OsrRandn *p);
  OsrResult (*gaussian)(OsrOpsContext *ctx, const OsrGaussian *p);
  OsrResult (*blend)(OsrOpsContext *ctx, const OsrBlend *p);
  OsrResult (*tensor_to_frame)(OsrOpsContext *ctx, const OsrFrame *p);
  OsrResult (*frame_to_tensor)(OsrOpsContext *ctx, const OsrFrame *p);
} OsrOps;

/* A backend: where the memory is, and the table. One static instance an implementation. */
typedef struct OsrBackend {
  uint32_t abi;     /* OSR_OPS_ABI */
  const char *name; /* "ref", "cpu", "cuda" */
  /* Activation types that the ops take, as a bit mask of 1 << OsrDType. */
  uint32_t dtypes;
  /* How many devices there are; 0 with a reason in `why` (may be NULL) if none. */
  int (*device_count)(char *why, size_t why_size);
  /* Fills ctx->impl and ctx->stream for device `index`. ctx is zeroed but for
   * scratch_alloc/free, user and n_threads, which the caller has set. */
  OsrResult (*open)(OsrOpsContext *ctx, int index);
  void (*close)(OsrOpsContext *ctx);
  /* Bytes free and in all on the device. */
  OsrResult (*mem_info)(OsrOpsContext *ctx, size_t *free, size_t *total);
  /* At least 64-byte aligned (256 on a GPU); NULL when there is not enough. Stream
   * ordered on asynchronous backends: what was enqueued before mem_free() may still use the
   * block. Contents are undefined. */
  void *(*mem_alloc)(OsrOpsContext *ctx, size_t size);
  void (*mem_free)(OsrOpsContext *ctx, void *ptr, size_t size);
  OsrResult (*mem_set)(OsrOpsContext *ctx, void *ptr, int byte, size_t size);
  /* Ordered with the ops. OSR_COPY_TO_DEVICE returns when the source may be reused (the
   * data need not be on the device yet), OSR_COPY_TO_HOST when the data is there. Each copy
   * of size > 0 that succeeds is counted with osr_count_copy(), on its kind. */
  OsrResult (*copy)(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size);
  /* Waits for everything enqueued so far and reports its errors. */
  OsrResult (*synchronize)(OsrOpsContext *ctx);

  /* Marks: how far the stream has come.
   *
   * mark() enqueues a mark and stores its number: 1 for the first of a context, then always
   * one more. It does not wait. It is called like an op: one call of a context at a time.
   *
   * wait() blocks until all that was enqueued before the mark is done, and not for what came
   * after it. It returns OSR_OK then, or the first error of work up to the mark (ctx->error
   * says in which op). Any thread may call it, also while another is inside of another call
   * of the context, and it must not hold up that other call. A context keeps its last
   * OSR_MAX_MARKS marks; of an older one, wait() waits for the oldest that is kept (which is
   * later) or returns at once if it knows that the old one has been passed. 0 is the start
   * of the stream: OSR_OK at once. A number that was never given: OSR_ERR_INVALID.
   *
   * Failures. Work that fails on the device after its call has returned fails the context for
   * good: every later mark, wait, synchronize, copy, mem_set, mem_info, graph and op returns
   * OSR_ERR_DEVICE at once with ctx->error naming the op that failed (the first reason stays),
   * mem_alloc returns NULL, mem_free gives back what it can, close() works. A wait() for a
   * mark that was passed before the failure may still return OSR_OK, and should where the
   * device can tell. After close(), open() of the same device starts anew where the driver is
   * able to; other devices are not affected.
   *
   * A synchronous backend: mark() counts, wait() returns at once. */
  OsrResult (*mark)(OsrOpsContext *ctx, uint64_t *mark);
  OsrResult (*wait)(OsrOpsContext *ctx, uint64_t mark);

  /* Fetches: copies to the device beside the work of the stream, for weights that do not fit. All
   * four are NULL on a backend that has none.
   *
   * host_alloc() gives host memory that the device can read on its own, NULL when there is not
   * enough; host_free() waits for the fetches that read it. Any thread may call them.
   *
   * fetch() enqueues a copy of such memory in a queue of its own and does not wait: fetches run
   * one after the other, each when the stream has passed the mark `after` (0: at once; of an old
   * mark see wait()), and beside what the stream does then. The source has to stay as it is until
   * then. dst has to be memory of the device that was handed out before that mark. The fetch's
   * number is stored: 1 for the first of a context, then always one more. Fetches count as copies.
   *
   * join() makes what is enqueued in the stream after it wait for that fetch and those before it;
   * the host does not wait. 0 is nothing to wait for. Memory that a fetch writes to is given back
   * after a join() or the source's host_free().
   *
   * Both are called like ops, not while a graph is recorded. Failures: see marks. */
  void *(*host_alloc)(OsrOpsContext *ctx, size_t size);
  void (*host_free)(OsrOpsContext *ctx, void *ptr, size_t size);
  OsrResult (*fetch)(OsrOpsContext *ctx, void *dst, const void *src, size_t size, uint64_t after,
                     uint64_t *fetch);
  OsrResult (*join)(OsrOpsContext *ctx, uint64_t fetch);

  /* Graphs: calls that are recorded once and then launched as one. All four are NULL on a
   * backend that has none.
   *
   * Between graph_begin() and graph_end() the ops, mem_set, and OSR_COPY_ON_DEVICE that the
   * calling thread makes on the context are recorded, with the addresses and numbers that
   * they are given, and are not run. Arguments are checked and errors returned as ever. Ops
   * may use scratch_alloc and scratch_free as ever: the owner sees to it that what they get
   * belongs to the graph alone for as long as it lives; a call may not keep an address that a
   * later call could free (a workspace that may grow, for instance). From that thread, mem_alloc
   * returns NULL and copy to or from the host, mark, wait, synchronize, graph_begin and
   * graph_launch fail with OSR_ERR_INVALID; mem_free works as ever and is not recorded.
   * Other threads call no ops meanwhile (the owner's lock), but mem_alloc, mem_free, mem_set,
   * mem_info, copy, wait and synchronize they may call: these run as if nothing were recorded,
   * are not recorded, and do not spoil the recording.
   *
   * graph_end() ends the recording and makes *graph of it; with graph = NULL it throws the
   * recording away and returns OSR_OK. Whatever graph_begin(), a recorded call or graph_end()
   * returns, the context works on after graph_end() (a failed graph_begin() needs none) and
   * nothing of the recording has been run, unless the device itself is lost. *graph is NULL
   * after a failure. graph_end() without graph_begin(): OSR_ERR_INVALID.
   *
   * graph_launch() enqueues all calls of the graph, in their order, behind what is enqueued
   * before, and does not wait. A graph may be launched any number of times, also while a
   * launch of it is still enqueued; launches run one after the other. All memory that it
   * names has to be alive each time. graph_free() may be called while launches are enqueued:
   * they still run. NULL is ignored. All graphs of a context are freed before close(). */
  OsrResult (*graph_begin)(OsrOpsContext *ctx);
  OsrResult (*graph_end)(OsrOpsContext *ctx, void **graph);
  OsrResult (*graph_launch)(OsrOpsContext *ctx, void *graph);
  void (*graph_free)(OsrOpsContext *ctx, void *graph);

  OsrOps ops;
} OsrBackend;

struct OsrOpsContext {
  const OsrBackend *backend;
  /* Scratch memory for one call, from the owner of the context (so that it counts against
   * its pool). NULL: the backend's own mem_alloc. scratch_alloc may return NULL. */
  void *(*scratch_alloc)(void *user, size_t size);
  void (*scratch_free)(void *user, void *ptr, size_t size);
  void *user;
  int n_threads; /* CPU threads, 0: all that the process may use; read by open() */
  void *stream;  /* cudaStream_t, NULL on CPUs */
  void *impl;    /* the backend's own */
  char error[256];
  /* Copies so far and their bytes, by OsrCopy. open() and close() leave them alone. */
  uint64_t n_copies[OSR_N_COPIES], copied_bytes[OSR_N_COPIES];
  uint64_t n_marks;   /* given so far, by mark() */
  uint64_t n_fetches; /* likewise, by fetch() */
};

/* Of copy() alone. Copies may be made by several threads at a time. */
static inline void
osr_count_copy(OsrOpsContext *ctx, OsrCopy kind, size_t size)
{
  __atomic_fetch_add(&ctx->n_copies[kind], 1, __ATOMIC_RELAXED);
  __atomic_fetch_add(&ctx->copied_bytes[kind], (uint64_t) size, __ATOMIC_RELAXED);
}

/* mark() and wait() of a synchronous backend. */
static inline OsrResult
osr_mark_at_once(OsrOpsContext *ctx, uint64_t *mark)
{
  *mark = __atomic_add_fetch(&ctx->n_marks, 1, __ATOMIC_RELAXED);
  return OSR_OK;
}

static inline OsrResult
osr_wait_at_once(OsrOpsContext *ctx, uint64_t mark)
{
  return mark <= __atomic_load_n(&ctx->n_marks, __ATOMIC_RELAXED) ? OSR_OK : OSR_ERR_INVALID;
}

/* Plain C with double accumulators, f32 in and out: the definition of every op. */
extern const OsrBackend osr_backend_ref;
/* Vectorised loops (AVX-512, AVX2 or portable, chosen at run time) on threads, f32. */
extern const OsrBackend osr_backend_cpu;

/* Entry point of a backend module (libopensora-cuda.so): symbol "osr_backend_module". */
typedef const OsrBackend *(*OsrBackendModule)(void);

/* Bytes of one element. */
static inline size_t
osr_dtype_size(OsrDType dtype)
{
  switch (dtype) {
  case OSR_DTYPE_F64:
  case OSR_DTYPE_I64:
    return 8;
  case OSR_DTYPE_F32:
  case OSR_DTYPE_I32:
    return 4;
  case OSR_DTYPE_BF16:
  case OSR_DTYPE_F16:
    return 2;
  default:
    return 1;
  }
}

/* Frames and rows after the up-sampling of `p`. */
static inline int
osr_conv3d_up_t(const OsrConv3d *p)
{
  return p->up_t == 2 ? 1 + 2 * (p->t - 1) : p->t;
}

/* Output sizes of `p`; may be <= 0 for an input smaller than the kernel. */
static inline void
osr_conv3d_out(const OsrConv3d *p, int *t, int *h, int *w)
{
  *t = (osr_conv3d_up_t(p) + p->pad_t[0] + p->pad_t[1] - p->k_t) / p->stride_t + 1;
  *h = (p->h * p->up_hw + p->pad_h[0] + p->pad_h[1] - p->k_h) / p->stride_h + 1;
  *w = (p->w_in * p->up_hw + p->pad_w[0] + p->pad_w[1] - p->k_w) / p->stride_w + 1;
}

#ifdef __cplusplus
}
#endif

#endif /* OSR_OPS_H */
