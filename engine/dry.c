/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "dry.h"

#include <string.h>

#include "device-private.h"

/* Of addresses: no process has memory there. */
#define FIRST_ADDRESS (G_GUINT64_CONSTANT(1) << 56)
#define ALIGNMENT 4096

typedef struct {
  GMutex lock;
  guint64 next; /* address */
  double work[OSR_N_WORK];
} Dry;

static Dry *
dry_of(OsrOpsContext *ctx)
{
  return ctx->impl;
}

/* Memory */

static int
dry_count(char *why, size_t why_size)
{
  (void) why, (void) why_size;
  return 1;
}

static OsrResult
dry_open(OsrOpsContext *ctx, int index)
{
  Dry *dry = g_new0(Dry, 1);

  (void) index;
  g_mutex_init(&dry->lock);
  dry->next = FIRST_ADDRESS;
  ctx->impl = dry;
  return OSR_OK;
}

static void
dry_close(OsrOpsContext *ctx)
{
  g_mutex_clear(&dry_of(ctx)->lock);
  g_clear_pointer(&ctx->impl, g_free);
}

static OsrResult
dry_mem_info(OsrOpsContext *ctx, size_t *free, size_t *total)
{
  (void) ctx;
  *free = *total = G_MAXSSIZE;
  return OSR_OK;
}

static void *
dry_mem_alloc(OsrOpsContext *ctx, size_t size)
{
  Dry *dry = dry_of(ctx);
  guint64 address;

  g_mutex_lock(&dry->lock);
  address = dry->next;
  if (size > G_MAXINT64 - ALIGNMENT - address)
    address = 0;
  else
    dry->next += (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  g_mutex_unlock(&dry->lock);
  return (void *) (guintptr) address;
}

static void
dry_mem_free(OsrOpsContext *ctx, void *ptr, size_t size)
{
  (void) ctx, (void) ptr, (void) size;
}

static OsrResult
dry_mem_set(OsrOpsContext *ctx, void *ptr, int byte, size_t size)
{
  (void) ctx, (void) ptr, (void) byte, (void) size;
  return OSR_OK;
}

static OsrResult
dry_copy(OsrOpsContext *ctx, OsrCopy kind, void *dst, const void *src, size_t size)
{
  (void) ctx, (void) src;
  if (kind == OSR_COPY_TO_HOST)
    memset(dst, 0, size);
  return OSR_OK;
}

static OsrResult
dry_synchronize(OsrOpsContext *ctx)
{
  (void) ctx;
  return OSR_OK;
}

/* Ops */

/* An op that does @amount of @work in @scratch bytes of memory of its own. */
static OsrResult
run(OsrOpsContext *ctx, OsrWork work, double amount, double scratch)
{
  gpointer memory;

  dry_of(ctx)->work[work] += amount;
  if (scratch <= 0)
    return OSR_OK;
  if (scratch > (double) G_MAXINT64)
    return OSR_ERR_MEMORY;
  memory = ctx->scratch_alloc(ctx->user, (size_t) scratch);
  if (!memory)
    return OSR_ERR_MEMORY;
  ctx->scratch_free(ctx->user, memory, (size_t) scratch);
  return OSR_OK;
}

static double
round_up(double n, double unit)
{
  return (double) (gint64) ((n + unit - 1) / unit) * unit;
}

static double
size_of(OsrDType dtype)
{
  return (double) osr_dtype_size(dtype);
}

/* The CPU's ops pack weights for tiles of up to 14 x 32 results. Where that differs between
 * processors, these are the largest. */
#define TILE_ROWS 14.0
#define TILE_COLS 32.0
#define CHUNK_FLOATS 2097152.0
#define FEW_ROWS 8

static double
cpu_linear_scratch(const OsrOpsContext *ctx, const OsrLinear *p)
{
  const double k = p->k, panel = k * TILE_COLS, panels = round_up(p->n, TILE_COLS) / TILE_COLS;
  double floats;

  if (p->batch * p->m <= FEW_ROWS && p->w_dtype == OSR_DTYPE_F32)
    return 0;
  floats = MIN(panels, 1 + (double) (gint64) (CHUNK_FLOATS / panel)) * panel;
  if (p->m > 1 && p->x_ld % 512 == 0)
    floats += ctx->n_threads * (round_up(k, 16) + 16) * 4 * TILE_ROWS;
  if (p->w_dtype != OSR_DTYPE_F32)
    floats += ctx->n_threads * panel;
  return floats * sizeof(float);
}

/* Weights that are converted or multiplied by a gate, and a result beside its residual. */
static double
gpu_linear_scratch(const OsrLinear *p)
{
  const double weights = (double) p->n * p->k * size_of(p->dtype);
  const gboolean two_steps = p->w_scale && p->residual == p->y && p->residual;
  double bytes = p->w_dtype != p->dtype ? weights : 0;

  if (p->gate && !p->w_scale)
    bytes += weights * (p->gate_batch == 0 ? 1 : (double) p->batch);
  if (two_steps)
    bytes += (double) p->batch * (double) p->m * p->n * size_of(p->dtype);
  return bytes;
}

static gboolean like_gpu(const OsrOpsContext *ctx);

static OsrResult
dry_linear(OsrOpsContext *ctx, const OsrLinear *p)
{
  const double flops = 2.0 * (double) p->batch * (double) p->m * p->n * p->k;

  return run(ctx, OSR_WORK_PRODUCTS, flops,
             like_gpu(ctx) ? gpu_linear_scratch(p) : cpu_linear_scratch(ctx, p));
}

static OsrResult
dry_attention(OsrOpsContext *ctx, const OsrAttention *p)
{
  const double heads = (double) p->batch * p->heads, keys = round_up((double) p->lk, TILE_COLS);
  const double v_cols = round_up(p->head_dim, TILE_COLS);
  double pairs = (double) p->lq * (double) p->lk, floats;

  if (p->mask == OSR_MASK_CAUSAL)
    pairs = (pairs + (double) p->lk) / 2;
  else if (p->mask == OSR_MASK_FRAME_CAUSAL)
    pairs = (pairs + (double) p->lk * (double) p->frame_len) / 2;
  floats = heads * keys * (p->head_dim + v_cols) +
           ctx->n_threads * 4 * TILE_ROWS * (p->head_dim + 656 + v_cols + 2);
  return run(ctx, OSR_WORK_ATTENTION, 4 * heads * pairs * p->head_dim,
             like_gpu(ctx) ? 0 : floats * sizeof(float));
}

static OsrResult
dry_conv3d(OsrOpsContext *ctx, const OsrConv3d *p)
{
  const double k = (double) p->k_t * p->k_h * p->k_w * p->c_in;
  double outputs, scratch;
  int t, h, w;

  osr_conv3d_out(p, &t, &h, &w);
  outputs = (double) p->batch * t * h * w;
  if (like_gpu(ctx)) /* weights in another order; an input whose channels do not fill a load */
    scratch = 2 * round_up(p->c_out, 128) * round_up(k, 64) * size_of(p->dtype) +
              (p->c_in % 8 ? (double) p->batch * p->t * p->h * p->w_in * round_up(p->c_in, 8) *
                                 size_of(p->dtype)
                           : 0);
  else
    scratch = (round_up(p->c_out, TILE_COLS) * k + 16 + (double) p->w_in * p->c_in +
               ctx->n_threads * (2.0 * p->k_t * p->k_h + TILE_COLS * k + 16)) *
              sizeof(float);
  return run(ctx, OSR_WORK_CONVOLUTIONS, 2 * outputs * k * p->c_out, scratch);
}

static OsrResult
dry_group_norm(OsrOpsContext *ctx, const OsrGroupNorm *p)
{
  const double n = (double) p->batch * (double) p->positions * p->channels;
  const double chunks = round_up((double) p->positions, 256) / 256;

  return run(ctx, OSR_WORK_BYTES, 3 * n * size_of(p->dtype),
             (double) p->batch * chunks * p->groups * 32 +
                 8.0 * p->channels * (double) (1 + ctx->n_threads) * (double) p->batch);
}

/* The others move their arguments through the device, and need nothing beside. */
#define MOVES(name, Type, ELEMENTS)                                                                \
  static OsrResult dry_##name(OsrOpsContext *ctx, const Type *p)                                   \
  {                                                                                                \
    return run(ctx, OSR_WORK_BYTES, (double) (ELEMENTS), 0);                                       \
  }

#define BYTES(n) ((double) (n) *size_of(p->dtype))

MOVES(glu, OsrGlu, 3 * BYTES(p->m) * p->n)
MOVES(layer_norm, OsrLayerNorm, 2 * BYTES(p->batch) * (double) p->m * p->n)
MOVES(rms_norm, OsrRmsNorm, 2 * BYTES(p->m) * p->n)
MOVES(qk_norm_rope, OsrQkNormRope, 4 * BYTES(p->batch) * (double) p->m * p->heads * p->head_dim)
MOVES(patchify, OsrPatchify, 2 * BYTES(p->batch) * p->t * p->h * p->w * p->c)
MOVES(unpatchify, OsrPatchify, 2 * BYTES(p->batch) * p->t * p->h * p->w * p->c)
MOVES(embedding, OsrEmbedding, 2 * BYTES(p->m) * p->n)
MOVES(timestep, OsrTimestep, BYTES(p->m) * p->n)
MOVES(affine, OsrAffine, 2 * BYTES(p->n))
MOVES(copy2d, OsrCopy2d, (double) p->m *(double) p->n *(size_of(p->x_dtype) + size_of(p->y_dtype)))
MOVES(guidance_step, OsrGuidanceStep,
      (2 + p->n_preds) * BYTES(p->frames) * (double) p->tokens_per_frame * p->n)
MOVES(randn, OsrRandn, BYTES(p->t) * p->h * p->w * p->c)
MOVES(gaussian, OsrGaussian, 4 * BYTES(p->m) * p->c)
MOVES(blend, OsrBlend, 3 * BYTES(p->outer) * p->extent * (double) p->inner)
MOVES(tensor_to_frame, OsrFrame, 4 * BYTES(p->width) * p->height)
MOVES(frame_to_tensor, OsrFrame, 4 * BYTES(p->width) * p->height)

#define BACKEND(NAME)                                                                              \
  {                                                                                                \
    .abi = OSR_OPS_ABI, .name = NAME,                                                              \
    .dtypes = 1u << OSR_DTYPE_F32 | 1u << OSR_DTYPE_BF16 | 1u << OSR_DTYPE_F16,                    \
    .device_count = dry_count, .open = dry_open, .close = dry_close, .mem_info = dry_mem_info,     \
    .mem_alloc = dry_mem_alloc, .mem_free = dry_mem_free, .mem_set = dry_mem_set,                  \
    .copy = dry_copy, .synchronize = dry_synchronize, .mark = osr_mark_at_once,                    \
    .wait = osr_wait_at_once,                                                                      \
    .ops = { .linear = dry_linear,                                                                 \
             .glu = dry_glu,                                                                       \
             .layer_norm = dry_layer_norm,                                                         \
             .rms_norm = dry_rms_norm,                                                             \
             .qk_norm_rope = dry_qk_norm_rope,                                                     \
             .attention = dry_attention,                                                           \
             .group_norm = dry_group_norm,                                                         \
             .conv3d = dry_conv3d,                                                                 \
             .patchify = dry_patchify,                                                             \
             .unpatchify = dry_unpatchify,                                                         \
             .embedding = dry_embedding,                                                           \
             .timestep = dry_timestep,                                                             \
             .affine = dry_affine,                                                                 \
             .copy2d = dry_copy2d,                                                                 \
             .guidance_step = dry_guidance_step,                                                   \
             .randn = dry_randn,                                                                   \
             .gaussian = dry_gaussian,                                                             \
             .blend = dry_blend,                                                                   \
             .tensor_to_frame = dry_tensor_to_frame,                                               \
             .frame_to_tensor = dry_frame_to_tensor },                                             \
  }

static const OsrBackend dry_cpu = BACKEND("dry CPU");
static const OsrBackend dry_gpu = BACKEND("dry GPU");

static gboolean
like_gpu(const OsrOpsContext *ctx)
{
  return ctx->backend == &dry_gpu;
}

OsrDevice *
osr_dry_device_new(gboolean gpu, guint n_threads, GError **error)
{
  return osr_device_open_alone(gpu ? &dry_gpu : &dry_cpu, gpu ? 0 : n_threads, error);
}

void
osr_dry_device_get_work(OsrDevice *device, double work[OSR_N_WORK])
{
  osr_device_lock(device);
  memcpy(work, dry_of(osr_device_get_context(device))->work, OSR_N_WORK * sizeof *work);
  osr_device_unlock(device);
}
