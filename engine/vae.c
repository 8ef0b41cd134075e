/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vae-private.h"

#include <math.h>

/* Configuration */

static const OsrVaeNames hunyuan_names = {
  .conv_in = "conv_in.conv",
  .conv_out = "conv_out.conv",
  .norm_out = "conv_norm_out",
  .mid = "mid_block",
  .mid_resnets = { "resnets.0", "resnets.1" },
  .attention = "attentions.0",
  .attention_norm = "group_norm",
  .attention_qkv = { "to_q", "to_k", "to_v", NULL },
  .attention_out = "to_out.0",
  .resnets = "resnets",
  .conv1 = "conv1.conv",
  .conv2 = "conv2.conv",
  .shortcut = "conv_shortcut.conv",
  .down = "down_blocks",
  .up = "up_blocks",
  .downsample = "downsamplers.0.conv.conv",
  .upsample = "upsamplers.0.conv.conv",
};

static const OsrVaeNames flux_names = {
  .conv_in = "conv_in",
  .conv_out = "conv_out",
  .norm_out = "norm_out",
  .mid = "mid",
  .mid_resnets = { "block_1", "block_2" },
  .attention = "attn_1",
  .attention_norm = "norm",
  .attention_qkv = { "q", "k", "v", NULL },
  .attention_out = "proj_out",
  .resnets = "block",
  .conv1 = "conv1",
  .conv2 = "conv2",
  .shortcut = "nin_shortcut",
  .down = "down",
  .up = "up",
  .downsample = "downsample.conv",
  .upsample = "upsample.conv",
};

const OsrVaeNames *
osr_vae_names(const OsrVaeConfig *config)
{
  return config->type == OSR_VAE_FLUX ? &flux_names : &hunyuan_names;
}

static int
log2_of(guint n)
{
  return (int) g_bit_storage(n) - 1;
}

int
osr_vae_space_factor(const OsrVaeConfig *config, guint i)
{
  return (int) i < log2_of(config->spatial_compression_ratio) ? 2 : 1;
}

int
osr_vae_time_factor(const OsrVaeConfig *config, guint i)
{
  guint n = config->n_blocks;

  if (config->type == OSR_VAE_FLUX)
    return 1;
  if (config->time_compression_ratio == 8)
    return osr_vae_space_factor(config, i);
  return i + 3 >= n && i + 1 < n ? 2 : 1;
}

static gboolean
check_compression(const OsrVaeConfig *config, GError **error)
{
  const guint time_ratio = config->time_compression_ratio;
  const guint space_ratio = config->spatial_compression_ratio;
  guint time = 1, space = 1;

  for (guint i = 0; i < config->n_blocks; i++) {
    time *= (guint) osr_vae_time_factor(config, i);
    space *= (guint) osr_vae_space_factor(config, i);
  }
  if (config->type == OSR_VAE_FLUX) {
    if (time_ratio == 1 && space_ratio == 1u << (config->n_blocks - 1))
      return TRUE;
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "vae: compression of %u in time and %u in space is not possible with %u blocks for "
                "pictures: time takes 1, space twice as much with every block after the first",
                time_ratio, space_ratio, config->n_blocks);
    return FALSE;
  }
  if ((time_ratio == 4 || time_ratio == 8) && time == time_ratio && space == space_ratio)
    return TRUE;
  g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
              "vae: compression of %u in time and %u in space is not possible with %u blocks: "
              "time takes 4, or 8 with 8 in space; space a power of two",
              time_ratio, space_ratio, config->n_blocks);
  return FALSE;
}

gboolean
osr_vae_config_check(const OsrVaeConfig *config, GError **error)
{
  const char *names[] = { "in_channels", "out_channels", "latent_channels", "norm_num_groups",
                          "layers_per_block" };
  const guint values[] = { config->in_channels, config->out_channels, config->latent_channels,
                           config->norm_num_groups, config->layers_per_block };

  if (!osr_config_check_sizes("vae", G_N_ELEMENTS(values), names, values, error))
    return FALSE;
  if (config->n_blocks < 1 || config->n_blocks > OSR_VAE_MAX_BLOCKS ||
      config->layers_per_block > OSR_VAE_MAX_LAYERS) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "vae: %u blocks of %u layers; 1 to %d blocks of 1 to %d layers are possible",
                config->n_blocks, config->layers_per_block, OSR_VAE_MAX_BLOCKS, OSR_VAE_MAX_LAYERS);
    return FALSE;
  }
  for (guint i = 0; i < config->n_blocks; i++) {
    guint channels = config->block_out_channels[i];

    if (channels == 0 || channels > 1 << 20 || channels % config->norm_num_groups != 0) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                  "vae: %u channels in block %u do not divide into %u groups", channels, i,
                  config->norm_num_groups);
      return FALSE;
    }
  }
  if (!check_compression(config, error))
    return FALSE;
  if (!isnormal(config->scale_factor) || !isfinite(config->shift_factor)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "vae: latents cannot be scaled by %g and shifted by %g", config->scale_factor,
                config->shift_factor);
    return FALSE;
  }
  return TRUE;
}

/* The parts and their weights */

void
osr_vae_conv_init(OsrVaeConv *conv, const OsrVaeConfig *config, int c_in, int c_out, int k,
                  OsrLoader *loader, const char *format, ...)
{
  const int k_t = config->type == OSR_VAE_FLUX ? 1 : k;
  g_autofree char *name = NULL;
  va_list args;

  *conv = (OsrVaeConv){
    .c_in = c_in,
    .c_out = c_out,
    .k = k,
    .k_t = k_t,
    .stride_t = 1,
    .stride_hw = 1,
    .up_t = 1,
    .up_hw = 1,
  };
  if (!loader)
    return;
  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  conv->weight = osr_loader_conv3d(loader, c_out, c_in, k_t, k, k, "%s.weight", name);
  conv->bias = osr_loader_vector(loader, c_out, "%s.bias", name);
}

static void
conv_clear(OsrVaeConv *conv)
{
  g_clear_pointer(&conv->weight, osr_tensor_unref);
  g_clear_pointer(&conv->bias, osr_tensor_unref);
}

void
osr_vae_norm_init(OsrVaeNorm *norm, int channels, guint groups, OsrLoader *loader,
                  const char *format, ...)
{
  g_autofree char *name = NULL;
  va_list args;

  *norm = (OsrVaeNorm){ .channels = channels, .groups = (int) groups };
  if (!loader)
    return;
  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  norm->weight = osr_loader_vector(loader, channels, "%s.weight", name);
  norm->bias = osr_loader_vector(loader, channels, "%s.bias", name);
}

static void
norm_clear(OsrVaeNorm *norm)
{
  g_clear_pointer(&norm->weight, osr_tensor_unref);
  g_clear_pointer(&norm->bias, osr_tensor_unref);
}

/* The block's name has to be there. */
static void
resnet_init(OsrVaeResnet *block, const OsrVaeConfig *config, int c_in, int c_out, OsrLoader *loader)
{
  const OsrVaeNames *names = osr_vae_names(config);
  guint groups = config->norm_num_groups;

  osr_vae_norm_init(&block->norm1, c_in, groups, loader, "%s.norm1", block->name);
  osr_vae_conv_init(&block->conv1, config, c_in, c_out, 3, loader, "%s.%s", block->name,
                    names->conv1);
  osr_vae_norm_init(&block->norm2, c_out, groups, loader, "%s.norm2", block->name);
  osr_vae_conv_init(&block->conv2, config, c_out, c_out, 3, loader, "%s.%s", block->name,
                    names->conv2);
  if (c_in != c_out)
    osr_vae_conv_init(&block->shortcut, config, c_in, c_out, 1, loader, "%s.%s", block->name,
                      names->shortcut);
}

static void
resnet_clear(OsrVaeResnet *block)
{
  norm_clear(&block->norm1);
  conv_clear(&block->conv1);
  norm_clear(&block->norm2);
  conv_clear(&block->conv2);
  conv_clear(&block->shortcut);
}

void
osr_vae_stage_init(OsrVaeStage *stage, const OsrVaeConfig *config, const char *name, int c_in,
                   int c_out, guint n_resnets, OsrLoader *loader)
{
  g_strlcpy(stage->name, name, sizeof stage->name);
  stage->n_resnets = n_resnets;
  for (guint i = 0; i < n_resnets; i++) {
    OsrVaeResnet *block = &stage->resnets[i];

    g_snprintf(block->name, sizeof block->name, "%s.%s.%u", name, osr_vae_names(config)->resnets,
               i);
    resnet_init(block, config, i == 0 ? c_in : c_out, c_out, loader);
  }
}

static void
attention_init(OsrVaeAttention *block, const OsrVaeConfig *config, const char *prefix, int channels,
               OsrLoader *loader)
{
  const OsrVaeNames *names = osr_vae_names(config);
  const gint64 rows[] = { channels, channels, channels };
  g_autofree char *dotted = NULL;

  g_snprintf(block->name, sizeof block->name, "%s.%s", prefix, names->attention);
  osr_vae_norm_init(&block->norm, channels, config->norm_num_groups, loader, "%s.%s", block->name,
                    names->attention_norm);
  if (!loader)
    return;
  dotted = g_strconcat(block->name, ".", NULL);
  block->qkv = osr_dense_stack(loader, dotted, names->attention_qkv, rows, channels, TRUE);
  block->out =
      osr_dense_load(loader, channels, channels, TRUE, "%s.%s", block->name, names->attention_out);
}

void
osr_vae_mid_init(OsrVaeNet *net, const OsrVaeConfig *config, int channels, OsrLoader *loader)
{
  const OsrVaeNames *names = osr_vae_names(config);
  char prefix[32];

  g_snprintf(prefix, sizeof prefix, "%s.%s", net->name, names->mid);
  for (guint i = 0; i < G_N_ELEMENTS(net->mid); i++) {
    OsrVaeResnet *block = &net->mid[i];

    g_snprintf(block->name, sizeof block->name, "%s.%s", prefix, names->mid_resnets[i]);
    resnet_init(block, config, channels, channels, loader);
  }
  if (config->mid_block_add_attention)
    attention_init(&net->attention, config, prefix, channels, loader);
}

void
osr_vae_net_free(OsrVaeNet *net)
{
  if (!net)
    return;
  conv_clear(&net->quant);
  conv_clear(&net->conv_in);
  conv_clear(&net->conv_out);
  for (guint i = 0; i < G_N_ELEMENTS(net->mid); i++)
    resnet_clear(&net->mid[i]);
  norm_clear(&net->attention.norm);
  osr_dense_clear(&net->attention.qkv);
  osr_dense_clear(&net->attention.out);
  for (guint i = 0; i < net->n_stages; i++) {
    OsrVaeStage *stage = &net->stages[i];

    for (guint j = 0; j < stage->n_resnets; j++)
      resnet_clear(&stage->resnets[j]);
    conv_clear(&stage->resize);
  }
  norm_clear(&net->norm_out);
  g_free(net);
}

/* A pass */

OsrVaeRun
osr_vae_run_real(OsrVae *vae, GCancellable *cancellable)
{
  return (OsrVaeRun){
    .ops = osr_run_start(vae->device, vae->dtype),
    .pace = osr_pace_start(vae->device),
    .cancellable = cancellable,
  };
}

OsrVaeRun
osr_vae_run_dry(OsrDType dtype)
{
  return (OsrVaeRun){ .ops = { .dtype = dtype } };
}

gboolean
osr_vae_run_active(const OsrVaeRun *run)
{
  return run->ops.device && !run->error && run->ops.result == OSR_OK;
}

void
osr_vae_run_begin(OsrVaeRun *run, const char *block)
{
  run->block = block;
  if (!osr_vae_run_active(run) || !osr_pace_begin(&run->pace, run->cancellable, &run->error))
    return;
  if (run->progress && run->total_flops > 0) {
    double done = osr_device_is_host(run->ops.device) ? run->flops
                                                      : run->flops_at[run->pace.n % OSR_PACE_AHEAD];

    run->progress(CLAMP(done / run->total_flops, 0.0, 1.0), run->user_data);
  }
  run->locked = osr_device_lock_cancellable(run->ops.device, run->cancellable, &run->error);
}

void
osr_vae_run_end(OsrVaeRun *run)
{
  if (!run->locked)
    return;
  run->flops_at[run->pace.n % OSR_PACE_AHEAD] = run->flops;
  if (!run->error && osr_run_check(&run->ops, &run->error, "vae: %s", run->block))
    osr_pace_end(&run->pace, &run->error, "vae: %s", run->block);
  osr_device_unlock(run->ops.device);
  run->locked = FALSE;
}

void
osr_vae_run_finish(OsrVaeRun *run)
{
  if (osr_vae_run_active(run))
    osr_pace_finish(&run->pace, &run->error);
}

#define vae_op(run, op, ...)                                                                       \
  G_STMT_START                                                                                     \
  {                                                                                                \
    if (osr_vae_run_active(run))                                                                   \
      osr_run(&(run)->ops, op, __VA_ARGS__);                                                       \
  }                                                                                                \
  G_STMT_END

static double
map_bytes(const OsrVaeRun *run, const OsrVaeMap *map)
{
  return (double) map->t * map->h * map->w * map->c * osr_dtype_size(run->ops.dtype);
}

OsrVaeMap
osr_vae_map_new(OsrVaeRun *run, int t, int h, int w, int c)
{
  OsrVaeMap map = { .t = t, .h = h, .w = w, .c = c };

  run->bytes += map_bytes(run, &map);
  run->peak_bytes = MAX(run->peak_bytes, run->bytes);
  if (osr_vae_run_active(run)) {
    map.tensor =
        osr_tensor_new(run->ops.device, run->ops.dtype, 4, (gint64[]){ t, h, w, c }, &run->error);
    if (!map.tensor)
      g_prefix_error(&run->error, "vae: %s: ", run->block);
  }
  return map;
}

void
osr_vae_map_free(OsrVaeRun *run, OsrVaeMap *map)
{
  run->bytes -= map_bytes(run, map);
  g_clear_pointer(&map->tensor, osr_tensor_unref);
  *map = (OsrVaeMap){ 0 };
}

gpointer
osr_vae_map_at(const OsrVaeMap *map, int t, int y, int x)
{
  gint64 offset = (((gint64) t * map->h + y) * map->w + x) * map->c;

  return (char *) map->tensor->data + offset * osr_dtype_size(map->tensor->dtype);
}

static gint64
map_positions(const OsrVaeMap *map)
{
  return (gint64) map->t * map->h * map->w;
}

static OsrRows
map_rows(const OsrVaeMap *map)
{
  return (OsrRows){ .data = map->tensor->data, .ld = map->c };
}

/* Layers */

/* conv(x) as a new map, or added to @sum. */
static OsrVaeMap
run_conv(OsrVaeRun *run, const OsrVaeConv *conv, const OsrVaeMap *x, const OsrVaeMap *sum)
{
  const int edge = conv->k / 2;
  /* FLUX halves pictures with nothing before their first row and column. */
  const int before = run->by_frame && conv->stride_hw == 2 ? 0 : edge;
  OsrConv3d p = {
    .dtype = run->ops.dtype,
    .batch = run->by_frame ? x->t : 1,
    .t = run->by_frame ? 1 : x->t,
    .h = x->h,
    .w_in = x->w,
    .c_in = conv->c_in,
    .c_out = conv->c_out,
    .k_t = conv->k_t,
    .k_h = conv->k,
    .k_w = conv->k,
    .stride_t = conv->stride_t,
    .stride_h = conv->stride_hw,
    .stride_w = conv->stride_hw,
    .pad_t = { conv->k_t - 1, 0 },
    .pad_h = { before, edge },
    .pad_w = { before, edge },
    .pad = run->by_frame ? OSR_PAD_ZERO : OSR_PAD_REPLICATE,
    .up_t = conv->up_t,
    .up_hw = conv->up_hw,
  };
  OsrVaeMap y;
  int t, h, w;

  osr_conv3d_out(&p, &t, &h, &w);
  y = sum ? *sum : osr_vae_map_new(run, (int) p.batch * t, h, w, conv->c_out);
  run->flops += 2.0 * conv->k_t * conv->k * conv->k * conv->c_in * conv->c_out * map_positions(&y);
  if (!osr_vae_run_active(run))
    return y;
  p.w_dtype = conv->weight->dtype;
  p.x = x->tensor->data;
  p.w = conv->weight->data;
  p.bias = conv->bias->data;
  p.residual = sum ? y.tensor->data : NULL;
  p.y = y.tensor->data;
  vae_op(run, conv3d, &p);
  return y;
}

static OsrVaeMap
run_pointwise(OsrVaeRun *run, const OsrVaeConv *conv, const OsrVaeMap *x)
{
  OsrVaeMap y = osr_vae_map_new(run, x->t, x->h, x->w, conv->c_out);
  gint64 m = map_positions(x);

  run->flops += 2.0 * conv->c_in * conv->c_out * m;
  vae_op(run, linear,
         &(OsrLinear){
             .dtype = run->ops.dtype,
             .w_dtype = conv->weight->dtype,
             .batch = 1,
             .m = m,
             .n = conv->c_out,
             .k = conv->c_in,
             .x = x->tensor->data,
             .x_ld = conv->c_in,
             .w = conv->weight->data,
             .bias = conv->bias->data,
             .y = y.tensor->data,
             .y_ld = conv->c_out,
         });
  return y;
}

OsrVaeMap
osr_vae_conv(OsrVaeRun *run, const OsrVaeConv *conv, const OsrVaeMap *x)
{
  return conv->k == 1 ? run_pointwise(run, conv, x) : run_conv(run, conv, x, NULL);
}

void
osr_vae_norm(OsrVaeRun *run, const OsrVaeNorm *norm, OsrAct act, const OsrVaeMap *x,
             const OsrVaeMap *y)
{
  vae_op(run, group_norm,
         &(OsrGroupNorm){
             .dtype = run->ops.dtype,
             .batch = run->by_frame ? x->t : 1,
             .positions = map_positions(x) / (run->by_frame ? x->t : 1),
             .channels = norm->channels,
             .groups = norm->groups,
             .eps = OSR_VAE_NORM_EPS,
             .x = x->tensor->data,
             .weight = norm->weight->data,
             .bias = norm->bias->data,
             .act = act,
             .y = y->tensor->data,
         });
}

/* Blocks */

/* The sum is made in the shortcut's memory, which is the input's own if it has no
 * convolution: never more than three maps are alive. */
static OsrVaeMap
run_resnet(OsrVaeRun *run, const OsrVaeResnet *block, OsrVaeMap x)
{
  OsrVaeMap sum, n, y;

  osr_vae_run_begin(run, block->name);
  if (block->shortcut.c_in) {
    sum = osr_vae_conv(run, &block->shortcut, &x);
    n = x; /* not needed any more as it is */
    osr_vae_norm(run, &block->norm1, OSR_ACT_SILU, &n, &n);
  } else {
    sum = x;
    n = osr_vae_map_new(run, x.t, x.h, x.w, x.c);
    osr_vae_norm(run, &block->norm1, OSR_ACT_SILU, &x, &n);
  }
  y = osr_vae_conv(run, &block->conv1, &n);
  osr_vae_map_free(run, &n);
  osr_vae_norm(run, &block->norm2, OSR_ACT_SILU, &y, &y);
  run_conv(run, &block->conv2, &y, &sum);
  osr_vae_map_free(run, &y);
  osr_vae_run_end(run);
  return sum;
}

/* One head over all positions; a position sees its own frame and, if frames know of each other,
 * those before. */
static void
run_attention(OsrVaeRun *run, const OsrVaeAttention *block, const OsrVaeMap *x)
{
  const int c = x->c;
  const gint64 m = map_positions(x), frame_len = (gint64) x->h * x->w;
  const gint64 batch = run->by_frame ? x->t : 1, len = m / batch;
  OsrVaeMap n, qkv, o;

  osr_vae_run_begin(run, block->name);
  n = osr_vae_map_new(run, x->t, x->h, x->w, c);
  osr_vae_norm(run, &block->norm, OSR_ACT_NONE, x, &n);

  qkv = osr_vae_map_new(run, x->t, x->h, x->w, 3 * c);
  if (osr_vae_run_active(run))
    osr_run_linear(&run->ops, &block->qkv, OSR_ACT_NONE, 1, m, map_rows(&n), map_rows(&qkv));
  osr_vae_map_free(run, &n);

  o = osr_vae_map_new(run, x->t, x->h, x->w, c);
  vae_op(run, attention,
         &(OsrAttention){
             .dtype = run->ops.dtype,
             .batch = batch,
             .lq = len,
             .lk = len,
             .heads = 1,
             .head_dim = c,
             .scale = 1.0f / sqrtf((float) c),
             .q = osr_vae_map_at(&qkv, 0, 0, 0),
             .k = (char *) qkv.tensor->data + (gsize) c * osr_dtype_size(run->ops.dtype),
             .v = (char *) qkv.tensor->data + (gsize) 2 * c * osr_dtype_size(run->ops.dtype),
             .q_ld = 3 * (gint64) c,
             .k_ld = 3 * (gint64) c,
             .v_ld = 3 * (gint64) c,
             .q_batch = len * 3 * c,
             .k_batch = len * 3 * c,
             .v_batch = len * 3 * c,
             .mask = len > frame_len ? OSR_MASK_FRAME_CAUSAL : OSR_MASK_NONE,
             .frame_len = frame_len,
             .o = o.tensor->data,
             .o_ld = c,
             .o_batch = len * c,
         });
  osr_vae_map_free(run, &qkv);

  if (osr_vae_run_active(run))
    osr_run_linear_add(&run->ops, &block->out, 1, m, map_rows(&o), (OsrRows){ 0 }, map_rows(x));
  osr_vae_map_free(run, &o);
  /* Four projections; of all pairs of frames (t + 1) / 2t are seen. */
  run->flops += 8.0 * c * c * m + 2.0 * c * m * (len + frame_len);
  osr_vae_run_end(run);
}

OsrVaeMap
osr_vae_mid(OsrVaeRun *run, const OsrVaeNet *net, OsrVaeMap x)
{
  x = run_resnet(run, &net->mid[0], x);
  if (net->attention.norm.channels)
    run_attention(run, &net->attention, &x);
  return run_resnet(run, &net->mid[1], x);
}

OsrVaeMap
osr_vae_stage(OsrVaeRun *run, const OsrVaeStage *stage, OsrVaeMap x)
{
  OsrVaeMap y;

  for (guint i = 0; i < stage->n_resnets; i++)
    x = run_resnet(run, &stage->resnets[i], x);
  if (!stage->resize.c_in)
    return x;
  osr_vae_run_begin(run, stage->name);
  y = osr_vae_conv(run, &stage->resize, &x);
  osr_vae_map_free(run, &x);
  osr_vae_run_end(run);
  return y;
}

OsrVaeMap
osr_vae_head(OsrVaeRun *run, const OsrVaeNet *net, OsrVaeMap x)
{
  OsrVaeMap y;

  osr_vae_norm(run, &net->norm_out, OSR_ACT_SILU, &x, &x);
  y = osr_vae_conv(run, &net->conv_out, &x);
  osr_vae_map_free(run, &x);
  return y;
}

/* The model */

OsrVae *
osr_vae_load(const OsrVaeConfig *config, gboolean encoder, gboolean decoder, OsrLoader *loader,
             GError **error)
{
  g_autoptr(OsrVae) vae = g_new0(OsrVae, 1);

  vae->config = *config;
  vae->device = osr_device_ref(loader->device);
  vae->dtype = loader->dtype;
  if (!osr_vae_config_check(config, error)) {
    osr_loader_finish(loader, NULL);
    return NULL;
  }
  if (encoder)
    vae->encoder = osr_vae_encoder_new(config, loader);
  if (decoder)
    vae->decoder = osr_vae_decoder_new(config, loader);
  return osr_loader_finish(loader, error) ? g_steal_pointer(&vae) : NULL;
}

void
osr_vae_free(OsrVae *vae)
{
  if (!vae)
    return;
  osr_vae_net_free(vae->encoder);
  osr_vae_net_free(vae->decoder);
  osr_device_unref(vae->device);
  g_free(vae);
}

const OsrVaeConfig *
osr_vae_get_config(OsrVae *vae)
{
  return &vae->config;
}

OsrDevice *
osr_vae_get_device(OsrVae *vae)
{
  return vae->device;
}

gboolean
osr_vae_cost(const OsrVaeConfig *config, gboolean decode, OsrVaeTiling tiling, OsrDType dtype,
             guint t, guint h, guint w, OsrVaeCost *cost, GError **error)
{
  OsrVaeRun run = osr_vae_run_dry(dtype);
  OsrVaeMap in = {
    .t = (int) t,
    .h = (int) h,
    .w = (int) w,
    .c = (int) (decode ? config->latent_channels : config->in_channels),
  };
  OsrVaeNet *net;

  if (!osr_vae_config_check(config, error))
    return FALSE;
  if (t < 1 || t > OSR_VAE_MAX_SIZE || h < 1 || h > OSR_VAE_MAX_SIZE || w < 1 ||
      w > OSR_VAE_MAX_SIZE) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "vae: %u x %u x %u is outside of 1 to %d", t, h, w, OSR_VAE_MAX_SIZE);
    return FALSE;
  }
  net = decode ? osr_vae_decoder_new(config, NULL) : osr_vae_encoder_new(config, NULL);
  osr_vae_run_tiled(&run, config, net, decode, tiling, &in);
  osr_vae_net_free(net);
  if (run.error) {
    g_propagate_error(error, run.error);
    return FALSE;
  }
  cost->flops = run.flops;
  cost->peak_bytes = run.peak_bytes < 0x1p63 ? (guint64) run.peak_bytes : G_MAXUINT64;
  return TRUE;
}
