/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mmdit.c: the denoiser of Open-Sora 2.0.
 *
 * Text and video share one token buffer x [B, L, D], L = text + video, the text's rows
 * first. Double blocks give each row range its own weights, single blocks treat all rows
 * alike, so nothing is ever concatenated. qkv [B, L, 3, heads, head_dim] is joint as well:
 * attention reads q, k and v out of it by strides. Block outputs are added to x in place,
 * by the last matrix product of each branch.
 */
#include "mmdit.h"

#include <math.h>

#include "layers.h"
#include "mmdit-private.h"

#define TIME_FACTOR 1000.0f
#define TIME_MAX_PERIOD 10000.0f
#define NORM_EPS 1e-6f

/* Rotary embedding */

void
osr_mmdit_rope_frequencies(const OsrMmditConfig *config, double *frequencies)
{
  for (guint axis = 0; axis < 3; axis++)
    for (guint j = 0; j < config->axes_dim[axis]; j += 2)
      *frequencies++ = pow(config->theta, -(double) j / config->axes_dim[axis]);
}

void
osr_mmdit_rope_row(const OsrMmditConfig *config, const double *frequencies, const guint position[3],
                   float *cos_row, float *sin_row)
{
  for (guint axis = 0; axis < 3; axis++) {
    for (guint j = 0; j < config->axes_dim[axis] / 2; j++) {
      double angle = position[axis] * *frequencies++;

      *cos_row++ = (float) cos(angle);
      *sin_row++ = (float) sin(angle);
    }
  }
}

static gboolean
prepare_rope(OsrMmdit *mmdit, const OsrMmditInput *in, gint64 text, GError **error)
{
  gint64 pairs = mmdit->config.hidden_size / mmdit->config.num_heads / 2;
  gint64 dims[2] = { text + (gint64) in->frames * in->height * in->width, pairs };
  g_autofree double *frequencies = NULL;
  g_autofree float *cos_table = NULL, *sin_table = NULL;
  g_autoptr(OsrTensor) cos_tensor = NULL, sin_tensor = NULL;
  gint64 row = 0;

  if (mmdit->rope_cos && mmdit->rope_frames == in->frames && mmdit->rope_height == in->height &&
      mmdit->rope_width == in->width && mmdit->rope_text >= text)
    return TRUE;

  frequencies = g_new(double, pairs);
  cos_table = g_try_new(float, dims[0] * pairs);
  sin_table = g_try_new(float, dims[0] * pairs);
  if (!cos_table || !sin_table) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY,
                "mmdit: no memory for the rotary tables of %" G_GINT64_FORMAT " tokens", dims[0]);
    return FALSE;
  }
  osr_mmdit_rope_frequencies(&mmdit->config, frequencies);
  for (; row < text; row++)
    osr_mmdit_rope_row(&mmdit->config, frequencies, (guint[]){ 0, 0, 0 }, cos_table + row * pairs,
                       sin_table + row * pairs);
  for (guint t = 0; t < in->frames; t++)
    for (guint h = 0; h < in->height; h++)
      for (guint w = 0; w < in->width; w++, row++)
        osr_mmdit_rope_row(&mmdit->config, frequencies, (guint[]){ t, h, w },
                           cos_table + row * pairs, sin_table + row * pairs);

  cos_tensor = osr_tensor_new_from_host(mmdit->device, OSR_DTYPE_F32, 2, dims, cos_table, error);
  if (!cos_tensor)
    return FALSE;
  sin_tensor = osr_tensor_new_from_host(mmdit->device, OSR_DTYPE_F32, 2, dims, sin_table, error);
  if (!sin_tensor)
    return FALSE;
  g_clear_pointer(&mmdit->rope_cos, osr_tensor_unref);
  g_clear_pointer(&mmdit->rope_sin, osr_tensor_unref);
  mmdit->rope_cos = g_steal_pointer(&cos_tensor);
  mmdit->rope_sin = g_steal_pointer(&sin_tensor);
  mmdit->rope_frames = in->frames;
  mmdit->rope_height = in->height;
  mmdit->rope_width = in->width;
  mmdit->rope_text = text;
  return TRUE;
}

/* The forward pass */

/* One batch on its way through the blocks: D = hidden_size, M = mlp_dim. */
typedef struct {
  OsrRun run;
  const OsrMmdit *mmdit;
  gint64 batch, len;
  gint64 first[OSR_MMDIT_N_STREAMS], rows[OSR_MMDIT_N_STREAMS]; /* of len, by stream */
  OsrTensor *x, *norm;                                          /* [B, L, D] */
  OsrTensor *qkv;                                               /* [B, L, 3 D] */
  OsrTensor *wide;      /* [B, L, D + M]: attention's output, MLP's middle */
  OsrTensor *vec;       /* [B, D], after SiLU in the blocks */
  OsrTensor *mod;       /* [B, 12 D] */
  OsrTensor *cos, *sin; /* the model's tables, for texts of table_text */
  gint64 table_text;
} Pass;

/* vec (+)= out(silu(in(x))) */
static void
embed(Pass *p, const OsrMmditEmbedder *e, OsrTensor *x, gboolean add)
{
  OsrRun *run = &p->run;
  const OsrRows no_gate = { NULL };
  OsrRows hidden = osr_rows(p->mod, 0, 0), vec = osr_rows(p->vec, 0, 0);

  osr_run_linear(run, &e->in, OSR_ACT_SILU, 1, p->batch, osr_rows(x, 0, 0), hidden);
  if (add)
    osr_run_linear_add(run, &e->out, 1, p->batch, hidden, no_gate, vec);
  else
    osr_run_linear(run, &e->out, OSR_ACT_NONE, 1, p->batch, hidden, vec);
}

/* @value: f32 [B], @features: [B, OSR_MMDIT_TIME_FEATURES], scratch. */
static void
embed_value(Pass *p, const OsrMmditEmbedder *e, const OsrTensor *value, OsrTensor *features,
            gboolean add)
{
  OsrRun *run = &p->run;

  osr_run(run, timestep,
          &(OsrTimestep){
              .dtype = run->dtype,
              .m = p->batch,
              .n = OSR_MMDIT_TIME_FEATURES,
              .factor = TIME_FACTOR,
              .max_period = TIME_MAX_PERIOD,
              .t = value->data,
              .y = features->data,
          });
  embed(p, e, features, add);
}

/* @scalar: f32 [B], scratch. */
static void
embed_number(Pass *p, const OsrMmditEmbedder *e, float value, OsrTensor *scalar,
             OsrTensor *features, gboolean add)
{
  /* 0 x + value: the number goes along as an argument, so nothing waits for a copy. */
  osr_run(&p->run, affine,
          &(OsrAffine){
              .dtype = OSR_DTYPE_F32,
              .n = p->batch,
              .a = 0.0f,
              .b = value,
              .x = scalar->data,
              .y = scalar->data,
          });
  embed_value(p, e, scalar, features, add);
}

/* x from tokens, vec from time, guidance and the pooled text. */
static gboolean
embed_inputs(Pass *p, const OsrMmditInput *in, GError **error)
{
  const OsrMmdit *mmdit = p->mmdit;
  OsrRun *run = &p->run;
  const OsrRows no_gate = { NULL };
  OsrRows img = osr_rows(p->x, p->first[OSR_MMDIT_VIDEO], 0),
          txt = osr_rows(p->x, p->first[OSR_MMDIT_TEXT], 0);
  g_autoptr(OsrTensor) scalar = NULL, features = NULL;

  if (!(scalar = osr_tensor_new(run->device, OSR_DTYPE_F32, 1, &p->batch, error)) ||
      !(features = osr_tensor_new(run->device, run->dtype, 2,
                                  (gint64[]){ p->batch, OSR_MMDIT_TIME_FEATURES }, error)) ||
      !osr_tensor_zero(scalar, error))
    return FALSE;

  osr_run_linear(run, &mmdit->img_in, OSR_ACT_NONE, p->batch, p->rows[OSR_MMDIT_VIDEO],
                 osr_rows(in->img, 0, 0), img);
  if (mmdit->config.cond_embed)
    osr_run_linear_add(run, &mmdit->cond_in, p->batch, p->rows[OSR_MMDIT_VIDEO],
                       osr_rows(in->cond, 0, 0), no_gate, img);
  osr_run_linear(run, &mmdit->txt_in, OSR_ACT_NONE, p->batch, p->rows[OSR_MMDIT_TEXT],
                 osr_rows(in->txt, 0, 0), txt);

  if (in->timesteps)
    embed_value(p, &mmdit->time_in, in->timesteps, features, FALSE);
  else
    embed_number(p, &mmdit->time_in, in->timestep, scalar, features, FALSE);
  if (mmdit->config.guidance_embed)
    embed_number(p, &mmdit->guidance_in, in->guidance, scalar, features, TRUE);
  embed(p, &mmdit->vector_in, in->vec, TRUE);
  /* Every modulation starts with the SiLU of vec. */
  osr_run(run, affine,
          &(OsrAffine){
              .dtype = run->dtype,
              .n = osr_tensor_n_elements(p->vec),
              .a = 1.0f,
              .b = 0.0f,
              .act = OSR_ACT_SILU,
              .x = p->vec->data,
              .y = p->vec->data,
          });
  return osr_run_check(run, error, "mmdit: embedding");
}

static void
modulation(Pass *p, const OsrDense *dense)
{
  osr_run_linear(&p->run, dense, OSR_ACT_NONE, 1, p->batch, osr_rows(p->vec, 0, 0),
                 osr_rows(p->mod, 0, 0));
}

/* Vector @i of the block's modulation. */
static OsrRows
mod_vector(const Pass *p, guint i)
{
  return osr_rows(p->mod, 0, (gint64) i * p->mmdit->config.hidden_size);
}

/* norm = layer_norm(x) * (1 + scale) + shift; shift is vector @i, scale the next. */
static void
modulated_norm(Pass *p, gint64 row, gint64 rows, guint i)
{
  OsrRows x = osr_rows(p->x, row, 0), y = osr_rows(p->norm, row, 0), shift = mod_vector(p, i);

  osr_run(&p->run, layer_norm,
          &(OsrLayerNorm){
              .dtype = p->run.dtype,
              .batch = p->batch,
              .m = rows,
              .n = (int) p->mmdit->config.hidden_size,
              .eps = NORM_EPS,
              .x = x.data,
              .x_ld = x.ld,
              .x_batch = x.batch,
              .scale = mod_vector(p, i + 1).data,
              .shift = shift.data,
              .mod_batch = shift.batch,
              .y = y.data,
              .y_ld = y.ld,
              .y_batch = y.batch,
          });
}

/* norm -> qkv, with normed and rotated q and k. */
static void
project_qkv(Pass *p, const OsrDense *dense, const OsrTensor *q_scale, const OsrTensor *k_scale,
            gint64 row, gint64 rows)
{
  const OsrMmdit *mmdit = p->mmdit;
  gint64 d = mmdit->config.hidden_size, head_dim = d / mmdit->config.num_heads;
  /* The tables may have been made for a longer text. */
  gint64 table = (p->table_text - p->rows[OSR_MMDIT_TEXT] + row) * (head_dim / 2);
  OsrRows q = osr_rows(p->qkv, row, 0);

  osr_run_linear(&p->run, dense, OSR_ACT_NONE, p->batch, rows, osr_rows(p->norm, row, 0), q);
  osr_run(&p->run, qk_norm_rope,
          &(OsrQkNormRope){
              .dtype = p->run.dtype,
              .batch = p->batch,
              .m = rows,
              .heads = (int) mmdit->config.num_heads,
              .head_dim = (int) head_dim,
              .q = q.data,
              .k = osr_rows(p->qkv, row, d).data,
              .ld = q.ld,
              .batch_stride = q.batch,
              .q_scale = q_scale->data,
              .k_scale = k_scale->data,
              .eps = NORM_EPS,
              .rope = mmdit->config.use_liger_rope ? OSR_ROPE_HALF : OSR_ROPE_INTERLEAVED,
              .cos = (const float *) p->cos->data + table,
              .sin = (const float *) p->sin->data + table,
          });
}

/* Queries from row @row on, all keys; into the first D columns of wide. */
static void
attention(Pass *p, gint64 row)
{
  const OsrMmditConfig *c = &p->mmdit->config;
  gint64 d = c->hidden_size;
  OsrRows q = osr_rows(p->qkv, row, 0), k = osr_rows(p->qkv, 0, d), v = osr_rows(p->qkv, 0, 2 * d);
  OsrRows o = osr_rows(p->wide, row, 0);

  osr_run(&p->run, attention,
          &(OsrAttention){
              .dtype = p->run.dtype,
              .batch = p->batch,
              .lq = p->len - row,
              .lk = p->len,
              .heads = (int) c->num_heads,
              .head_dim = (int) (d / c->num_heads),
              .scale = (float) (1.0 / sqrt((double) d / c->num_heads)),
              .q = q.data,
              .k = k.data,
              .v = v.data,
              .q_ld = q.ld,
              .q_batch = q.batch,
              .k_ld = k.ld,
              .k_batch = k.batch,
              .v_ld = v.ld,
              .v_batch = v.batch,
              .o = o.data,
              .o_ld = o.ld,
              .o_batch = o.batch,
          });
}

/* Modulation vectors of a stream, from 6 * stream on: shift, scale, gate of the attention,
 * shift, scale, gate of the MLP. */
static void
double_block(Pass *p, const OsrMmditDouble *b, gboolean last)
{
  OsrRun *run = &p->run;
  gint64 d = p->mmdit->config.hidden_size;
  /* Nobody reads the text after the last block. */
  guint first = last ? OSR_MMDIT_VIDEO : OSR_MMDIT_TEXT;

  modulation(p, &b->modulation);
  for (guint i = OSR_MMDIT_TEXT; i < OSR_MMDIT_N_STREAMS; i++) {
    const OsrMmditStream *s = &b->streams[i];

    modulated_norm(p, p->first[i], p->rows[i], 6 * i);
    project_qkv(p, &s->qkv, s->q_scale, s->k_scale, p->first[i], p->rows[i]);
  }
  attention(p, p->first[first]);
  for (guint i = first; i < OSR_MMDIT_N_STREAMS; i++) {
    const OsrMmditStream *s = &b->streams[i];
    gint64 row = p->first[i], rows = p->rows[i];
    OsrRows x = osr_rows(p->x, row, 0), hidden = osr_rows(p->wide, row, d);

    osr_run_linear_add(run, &s->proj, p->batch, rows, osr_rows(p->wide, row, 0),
                       mod_vector(p, 6 * i + 2), x);
    modulated_norm(p, row, rows, 6 * i + 3);
    osr_run_linear(run, &s->up, OSR_ACT_GELU_TANH, p->batch, rows, osr_rows(p->norm, row, 0),
                   hidden);
    osr_run_linear_add(run, &s->down, p->batch, rows, hidden, mod_vector(p, 6 * i + 5), x);
  }
}

/* Attention and MLP side by side on one norm: linear2 reads both out of wide. */
static void
single_block(Pass *p, const OsrMmditSingle *b, gboolean last)
{
  OsrRun *run = &p->run;
  gint64 d = p->mmdit->config.hidden_size;
  gint64 row = last ? p->first[OSR_MMDIT_VIDEO] : 0, rows = p->len - row;

  modulation(p, &b->modulation);
  modulated_norm(p, 0, p->len, 0);
  project_qkv(p, &b->qkv, b->q_scale, b->k_scale, 0, p->len);
  attention(p, row);
  osr_run_linear(run, &b->up, OSR_ACT_GELU_TANH, p->batch, rows, osr_rows(p->norm, row, 0),
                 osr_rows(p->wide, row, d));
  osr_run_linear_add(run, &b->down, p->batch, rows, osr_rows(p->wide, row, 0), mod_vector(p, 2),
                     osr_rows(p->x, row, 0));
}

static void
run_block(Pass *p, guint i)
{
  const OsrMmdit *mmdit = p->mmdit;
  const guint n_doubles = mmdit->config.depth, n_singles = mmdit->config.depth_single_blocks;
  const gboolean last = i + 1 == n_doubles + n_singles;

  if (i < n_doubles)
    double_block(p, &mmdit->doubles[i], last);
  else
    single_block(p, &mmdit->singles[i - n_doubles], last);
}

/* Block @i under its lock, with its weights where they are streamed. */
static gboolean
enqueue_block(Pass *p, guint i, const char *name, GError **error)
{
  OsrStreamer *streamer = p->mmdit->streamer;

  if (streamer && !osr_streamer_begin(streamer, i, error)) {
    g_prefix_error(error, "%s: ", name);
    return FALSE;
  }
  run_block(p, i);
  return osr_run_check(&p->run, error, "%s", name) &&
         (!streamer || osr_streamer_end(streamer, i, error));
}

static gboolean
run_blocks(Pass *p, OsrPace *pace, GCancellable *cancellable, GError **error)
{
  const OsrMmdit *mmdit = p->mmdit;
  const guint n_doubles = mmdit->config.depth;

  for (guint i = 0; i < n_doubles + mmdit->config.depth_single_blocks; i++) {
    g_autoptr(OsrDeviceLocker) locker = osr_pace_lock(pace, mmdit->device, cancellable, error);
    char name[64];

    g_snprintf(name, sizeof name, "mmdit: %s block %u", i < n_doubles ? "double" : "single",
               i < n_doubles ? i : i - n_doubles);
    if (!locker || !enqueue_block(p, i, name, error) || !osr_pace_end(pace, error, "%s", name))
      return FALSE;
  }
  return TRUE;
}

static gboolean
check_tensor(const OsrMmdit *mmdit, const OsrTensor *tensor, const char *name, OsrDType dtype,
             guint n_dims, const gint64 *dims, GError **error)
{
  if (!tensor) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "mmdit: the input has no %s", name);
    return FALSE;
  }
  if (tensor->n_dims != n_dims || memcmp(tensor->dims, dims, n_dims * sizeof *dims) != 0) {
    g_autofree char *has = osr_dims_to_string(tensor->n_dims, tensor->dims);
    g_autofree char *needs = osr_dims_to_string(n_dims, dims);

    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE, "mmdit: %s is %s, the model needs %s", name, has,
                needs);
    return FALSE;
  }
  if (tensor->device != mmdit->device || tensor->dtype != dtype) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "mmdit: %s is %s on %s, the model needs %s on %s", name,
                osr_dtype_name(tensor->dtype), osr_device_get_name(tensor->device),
                osr_dtype_name(dtype), osr_device_get_name(mmdit->device));
    return FALSE;
  }
  return TRUE;
}

static gboolean
check_input(const OsrMmdit *mmdit, const OsrMmditInput *in, GError **error)
{
  const OsrMmditConfig *c = &mmdit->config;
  gint64 batch = in->img ? in->img->dims[0] : 0, tokens, text;
  gint64 patch = (gint64) c->patch_size * c->patch_size;

  if (in->frames > 1 << 20 || in->height > 1 << 20 || in->width > 1 << 20) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "mmdit: a grid of %u x %u x %u tokens is out of range", in->frames, in->height,
                in->width);
    return FALSE;
  }
  tokens = (gint64) in->frames * in->height * in->width;
  text = in->txt && in->txt->n_dims == 3 ? in->txt->dims[1] : 0;
  return check_tensor(mmdit, in->img, "img", mmdit->dtype, 3,
                      (gint64[]){ batch, tokens, c->in_channels }, error) &&
         (!c->cond_embed ||
          check_tensor(mmdit, in->cond, "cond", mmdit->dtype, 3,
                       (gint64[]){ batch, tokens, c->in_channels + patch }, error)) &&
         check_tensor(mmdit, in->txt, "txt", mmdit->dtype, 3,
                      (gint64[]){ batch, text, c->context_in_dim }, error) &&
         check_tensor(mmdit, in->vec, "vec", mmdit->dtype, 2, (gint64[]){ batch, c->vec_in_dim },
                      error) &&
         (!in->timesteps ||
          check_tensor(mmdit, in->timesteps, "timesteps", OSR_DTYPE_F32, 1, &batch, error));
}

gboolean
osr_mmdit_prepare(OsrMmdit *mmdit, const OsrMmditInput *input, OsrTensor *tables[2], GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(mmdit->device, NULL, error);

  if (!locker || !check_input(mmdit, input, error) ||
      !prepare_rope(mmdit, input, input->txt->dims[1], error))
    return FALSE;
  tables[0] = osr_tensor_ref(mmdit->rope_cos);
  tables[1] = osr_tensor_ref(mmdit->rope_sin);
  return TRUE;
}

/* What comes before the blocks. The tables stay the pass's if another geometry comes meanwhile. */
static gboolean
begin_pass(Pass *p, OsrMmdit *mmdit, const OsrMmditInput *in, GCancellable *cancellable,
           GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(mmdit->device, cancellable, error);

  if (!locker || !prepare_rope(mmdit, in, in->txt->dims[1], error))
    return FALSE;
  p->cos = osr_tensor_ref(mmdit->rope_cos);
  p->sin = osr_tensor_ref(mmdit->rope_sin);
  p->table_text = mmdit->rope_text;
  return embed_inputs(p, in, error);
}

static gboolean
end_pass(Pass *p, OsrTensor *pred, GCancellable *cancellable, GError **error)
{
  const OsrMmdit *mmdit = p->mmdit;
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(mmdit->device, cancellable, error);

  if (!locker)
    return FALSE;
  modulation(p, &mmdit->final_modulation);
  modulated_norm(p, p->first[OSR_MMDIT_VIDEO], p->rows[OSR_MMDIT_VIDEO], 0);
  osr_run_linear(&p->run, &mmdit->final_linear, OSR_ACT_NONE, p->batch, p->rows[OSR_MMDIT_VIDEO],
                 osr_rows(p->norm, p->first[OSR_MMDIT_VIDEO], 0), osr_rows(pred, 0, 0));
  return osr_run_check(&p->run, error, "mmdit: final layer");
}

gboolean
osr_mmdit_forward_into(OsrMmdit *mmdit, const OsrMmditInput *input, OsrTensor *pred, gboolean paced,
                       GCancellable *cancellable, GError **error)
{
  gint64 d = mmdit->config.hidden_size;
  Pass p = { .run = osr_run_start(mmdit->device, mmdit->dtype), .mmdit = mmdit };
  OsrPace pace = osr_pace_start(paced ? mmdit->device : NULL);
  g_autoptr(OsrTensor) x = NULL, norm = NULL, qkv = NULL, wide = NULL, vec = NULL, mod = NULL;
  gboolean ok;

  if (!check_input(mmdit, input, error) ||
      !check_tensor(mmdit, pred, "the prediction", mmdit->dtype, 3, input->img->dims, error))
    return FALSE;
  p.batch = input->img->dims[0];
  p.rows[OSR_MMDIT_TEXT] = p.first[OSR_MMDIT_VIDEO] = input->txt->dims[1];
  p.rows[OSR_MMDIT_VIDEO] = input->img->dims[1];
  p.len = p.rows[OSR_MMDIT_TEXT] + p.rows[OSR_MMDIT_VIDEO];

  if (!(x = osr_tensor_new_3d(&p.run, p.batch, p.len, d, error)) ||
      !(norm = osr_tensor_new_3d(&p.run, p.batch, p.len, d, error)) ||
      !(qkv = osr_tensor_new_3d(&p.run, p.batch, p.len, 3 * d, error)) ||
      !(wide = osr_tensor_new_3d(&p.run, p.batch, p.len, d + mmdit->mlp_dim, error)) ||
      !(vec = osr_tensor_new(mmdit->device, mmdit->dtype, 2, (gint64[]){ p.batch, d }, error)) ||
      !(mod = osr_tensor_new(mmdit->device, mmdit->dtype, 2, (gint64[]){ p.batch, 12 * d }, error)))
    return FALSE;
  p.x = x, p.norm = norm, p.qkv = qkv, p.wide = wide, p.vec = vec, p.mod = mod;

  ok = begin_pass(&p, mmdit, input, cancellable, error) &&
       run_blocks(&p, &pace, cancellable, error) && end_pass(&p, pred, cancellable, error);
  g_clear_pointer(&p.cos, osr_tensor_unref);
  g_clear_pointer(&p.sin, osr_tensor_unref);
  return ok;
}

OsrTensor *
osr_mmdit_forward(OsrMmdit *mmdit, const OsrMmditInput *input, GCancellable *cancellable,
                  GError **error)
{
  g_autoptr(OsrTensor) pred = NULL;

  if (!check_input(mmdit, input, error))
    return NULL;
  pred = osr_tensor_new(mmdit->device, mmdit->dtype, 3, input->img->dims, error);
  if (!pred || !osr_mmdit_forward_into(mmdit, input, pred, TRUE, cancellable, error))
    return NULL;
  return g_steal_pointer(&pred);
}
