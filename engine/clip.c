/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "clip.h"

#include <math.h>

#include "clip-private.h"
#include "layers.h"
#include "model-limits.h"

typedef struct {
  OsrTensor *weight, *bias; /* [D] */
} Norm;

typedef struct {
  Norm norm1, norm2;
  OsrDense qkv, out; /* [3 D, D], [D, D] */
  OsrDense fc1, fc2; /* [F, D], [D, F] */
} Layer;

struct _OsrClip {
  OsrClipConfig config;
  OsrDevice *device;
  OsrDType dtype;
  gboolean tf32;
  OsrTensor *tokens, *positions; /* [vocab, D], [positions, D] */
  Layer *layers;
  Norm final_norm;
};

gboolean
osr_clip_config_check(const OsrClipConfig *c, GError **error)
{
  static const char *const names[] = { "vocab_size",          "hidden_size",
                                       "intermediate_size",   "num_hidden_layers",
                                       "num_attention_heads", "max_position_embeddings" };
  const guint values[] = {
    c->vocab_size,        c->hidden_size,         c->intermediate_size,
    c->num_hidden_layers, c->num_attention_heads, c->max_position_embeddings
  };

  if (!osr_config_check_sizes("clip", G_N_ELEMENTS(values), names, values, error))
    return FALSE;
  if (c->num_hidden_layers > OSR_MAX_BLOCKS) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "clip: %u layers are more than any model has", c->num_hidden_layers);
    return FALSE;
  }
  if (c->hidden_size % c->num_attention_heads != 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "clip: hidden_size %u is not a multiple of num_attention_heads %u", c->hidden_size,
                c->num_attention_heads);
    return FALSE;
  }
  return TRUE;
}

static Norm
load_norm(OsrLoader *loader, gint64 n, const char *prefix, const char *name)
{
  return (Norm){
    .weight = osr_loader_vector(loader, n, "%s%s.weight", prefix, name),
    .bias = osr_loader_vector(loader, n, "%s%s.bias", prefix, name),
  };
}

static void
clear_norm(Norm *norm)
{
  g_clear_pointer(&norm->weight, osr_tensor_unref);
  g_clear_pointer(&norm->bias, osr_tensor_unref);
}

static void
load_layer(Layer *l, const OsrClipConfig *c, OsrLoader *loader, guint i)
{
  static const char *const qkv[] = { "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                     NULL };
  gint64 d = c->hidden_size, f = c->intermediate_size;
  g_autofree char *prefix = g_strdup_printf("text_model.encoder.layers.%u.", i);

  l->norm1 = load_norm(loader, d, prefix, "layer_norm1");
  l->qkv = osr_dense_stack(loader, prefix, qkv, (gint64[]){ d, d, d }, d, TRUE);
  l->out = osr_dense_load(loader, d, d, TRUE, "%sself_attn.out_proj", prefix);
  l->norm2 = load_norm(loader, d, prefix, "layer_norm2");
  l->fc1 = osr_dense_load(loader, f, d, TRUE, "%smlp.fc1", prefix);
  l->fc2 = osr_dense_load(loader, d, f, TRUE, "%smlp.fc2", prefix);
}

OsrClip *
osr_clip_load(const OsrClipConfig *config, OsrLoader *loader, GError **error)
{
  g_autoptr(OsrClip) clip = NULL;
  gint64 d = config->hidden_size;

  if (!osr_clip_config_check(config, error))
    return NULL;

  clip = g_new0(OsrClip, 1);
  clip->config = *config;
  clip->device = osr_device_ref(loader->device);
  clip->dtype = loader->dtype;
  clip->tf32 = loader->tf32;
  clip->layers = g_new0(Layer, config->num_hidden_layers);

  clip->tokens = osr_loader_matrix(loader, config->vocab_size, d,
                                   "text_model.embeddings.token_embedding.weight");
  clip->positions = osr_loader_matrix(loader, config->max_position_embeddings, d,
                                      "text_model.embeddings.position_embedding.weight");
  for (guint i = 0; i < config->num_hidden_layers; i++)
    load_layer(&clip->layers[i], config, loader, i);
  clip->final_norm = load_norm(loader, d, "text_model.", "final_layer_norm");

  return osr_loader_finish(loader, error) ? g_steal_pointer(&clip) : NULL;
}

void
osr_clip_free(OsrClip *clip)
{
  if (!clip)
    return;
  for (guint i = 0; i < clip->config.num_hidden_layers; i++) {
    Layer *l = &clip->layers[i];

    clear_norm(&l->norm1);
    clear_norm(&l->norm2);
    osr_dense_clear(&l->qkv);
    osr_dense_clear(&l->out);
    osr_dense_clear(&l->fc1);
    osr_dense_clear(&l->fc2);
  }
  g_free(clip->layers);
  g_clear_pointer(&clip->tokens, osr_tensor_unref);
  g_clear_pointer(&clip->positions, osr_tensor_unref);
  clear_norm(&clip->final_norm);
  osr_device_unref(clip->device);
  g_free(clip);
}

/* One sequence on its way through the layers; the buffers are [1, L, ...]. */
typedef struct {
  OsrRun run;
  const OsrClipConfig *config;
  gint64 length;
  OsrTensor *x, *norm, *qkv, *o, *wide; /* D, D, 3 D, D, F */
} Pass;

static void
layer_norm(Pass *p, const Norm *norm, gint64 row, gint64 m, OsrTensor *y)
{
  OsrRows x = osr_rows(p->x, row, 0), out = osr_rows(y, 0, 0);

  osr_run(&p->run, layer_norm,
          &(OsrLayerNorm){
              .dtype = p->run.dtype,
              .batch = 1,
              .m = m,
              .n = (int) p->config->hidden_size,
              .eps = (float) p->config->layer_norm_eps,
              .x = x.data,
              .x_ld = x.ld,
              .x_batch = x.batch,
              .weight = norm->weight->data,
              .bias = norm->bias->data,
              .y = out.data,
              .y_ld = out.ld,
              .y_batch = out.batch,
          });
}

static void
attention(Pass *p)
{
  gint64 d = p->config->hidden_size;
  int head_dim = (int) (p->config->hidden_size / p->config->num_attention_heads);
  OsrRows q = osr_rows(p->qkv, 0, 0), o = osr_rows(p->o, 0, 0);

  osr_run(&p->run, attention,
          &(OsrAttention){
              .dtype = p->run.dtype,
              .batch = 1,
              .lq = p->length,
              .lk = p->length,
              .heads = (int) p->config->num_attention_heads,
              .head_dim = head_dim,
              .scale = (float) (1.0 / sqrt(head_dim)),
              .q = q.data,
              .k = osr_rows(p->qkv, 0, d).data,
              .v = osr_rows(p->qkv, 0, 2 * d).data,
              .q_ld = q.ld,
              .k_ld = q.ld,
              .v_ld = q.ld,
              .q_batch = q.batch,
              .k_batch = q.batch,
              .v_batch = q.batch,
              .mask = OSR_MASK_CAUSAL,
              .o = o.data,
              .o_ld = o.ld,
              .o_batch = o.batch,
          });
}

static void
layer(Pass *p, const Layer *l)
{
  OsrRun *run = &p->run;
  const OsrRows no_gate = { NULL };
  OsrRows x = osr_rows(p->x, 0, 0), norm = osr_rows(p->norm, 0, 0), wide = osr_rows(p->wide, 0, 0);

  layer_norm(p, &l->norm1, 0, p->length, p->norm);
  osr_run_linear(run, &l->qkv, OSR_ACT_NONE, 1, p->length, norm, osr_rows(p->qkv, 0, 0));
  attention(p);
  osr_run_linear_add(run, &l->out, 1, p->length, osr_rows(p->o, 0, 0), no_gate, x);

  layer_norm(p, &l->norm2, 0, p->length, p->norm);
  osr_run_linear(run, &l->fc1, p->config->hidden_act, 1, p->length, norm, wide);
  osr_run_linear_add(run, &l->fc2, 1, p->length, wide, no_gate, x);
}

static gboolean
check_ids(const OsrClipConfig *c, const gint32 *ids, guint n_ids, GError **error)
{
  if (n_ids < 1 || n_ids > c->max_position_embeddings) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "clip: %u tokens, possible are 1 to %u", n_ids, c->max_position_embeddings);
    return FALSE;
  }
  for (guint i = 0; i < n_ids; i++) {
    if (ids[i] < 0 || (guint) ids[i] >= c->vocab_size) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                  "clip: token %u has id %d, the vocabulary ends at %u", i, ids[i],
                  c->vocab_size - 1);
      return FALSE;
    }
  }
  return TRUE;
}

/* The token whose hidden state stands for the text: the first end-of-text token, the first
 * token where there is none. Old configs say 2, which is wrong for their own vocabulary:
 * there the largest id marks the end. */
static guint
pooled_index(const OsrClipConfig *c, const gint32 *ids, guint n_ids)
{
  guint best = 0;

  for (guint i = 0; i < n_ids; i++) {
    if (c->eos_token_id == 2 ? ids[i] > ids[best] : ids[i] == c->eos_token_id) {
      best = i;
      if (c->eos_token_id != 2)
        break;
    }
  }
  return best;
}

/* What comes before the layers. */
static gboolean
embed(Pass *p, OsrClip *clip, const OsrTensor *ids, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(clip->device, cancellable, error);
  const OsrClipConfig *c = &clip->config;

  if (!locker)
    return FALSE;
  osr_run(&p->run, embedding,
          &(OsrEmbedding){
              .dtype = clip->dtype,
              .m = p->length,
              .n = (int) c->hidden_size,
              .vocab = (int) c->vocab_size,
              .n_positions = (int) c->max_position_embeddings,
              .ids = ids->data,
              .table = clip->tokens->data,
              .positions = clip->positions->data,
              .y = p->x->data,
          });
  return osr_run_check(&p->run, error, "clip: embedding");
}

/* What comes after them: row @end of x as @pooled, all of it as @hidden (may be NULL). */
static gboolean
finish(Pass *p, OsrClip *clip, gint64 end, OsrTensor *pooled, OsrTensor *hidden,
       GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(clip->device, cancellable, error);

  if (!locker)
    return FALSE;
  layer_norm(p, &clip->final_norm, end, 1, pooled);
  if (hidden)
    layer_norm(p, &clip->final_norm, 0, p->length, hidden);
  return osr_run_check(&p->run, error, "clip: final norm");
}

OsrTensor *
osr_clip_encode(OsrClip *clip, const gint32 *ids, guint n_ids, OsrTensor **hidden,
                GCancellable *cancellable, GError **error)
{
  const OsrClipConfig *c = &clip->config;
  gint64 d = c->hidden_size, length;
  Pass p = { .run = osr_run_start(clip->device, clip->dtype), .config = c };
  g_autoptr(OsrTensor) x = NULL, norm = NULL, qkv = NULL, o = NULL, wide = NULL;
  g_autoptr(OsrTensor) device_ids = NULL, pooled = NULL;
  guint end;

  p.run.tf32 = clip->tf32;
  if (!check_ids(c, ids, n_ids, error))
    return NULL;
  end = pooled_index(c, ids, n_ids);
  /* Attention is causal: what follows the pooled token cannot change it. */
  p.length = length = hidden ? n_ids : end + 1;

  device_ids = osr_tensor_new_from_host(clip->device, OSR_DTYPE_I32, 1, &length, ids, error);
  if (!device_ids || !(x = osr_tensor_new_3d(&p.run, 1, length, d, error)) ||
      !(norm = osr_tensor_new_3d(&p.run, 1, length, d, error)) ||
      !(qkv = osr_tensor_new_3d(&p.run, 1, length, 3 * d, error)) ||
      !(o = osr_tensor_new_3d(&p.run, 1, length, d, error)) ||
      !(wide = osr_tensor_new_3d(&p.run, 1, length, c->intermediate_size, error)) ||
      !(pooled = osr_tensor_new(clip->device, clip->dtype, 2, (gint64[]){ 1, d }, error)))
    return NULL;
  p.x = x, p.norm = norm, p.qkv = qkv, p.o = o, p.wide = wide;

  if (!embed(&p, clip, device_ids, cancellable, error))
    return NULL;
  for (guint i = 0; i < c->num_hidden_layers; i++) {
    g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(clip->device, cancellable, error);

    if (!locker)
      return NULL;
    layer(&p, &clip->layers[i]);
    if (!osr_run_check(&p.run, error, "clip: layer %u", i))
      return NULL;
  }
  if (!finish(&p, clip, end, pooled, hidden ? norm : NULL, cancellable, error))
    return NULL;
  if (hidden)
    *hidden = g_steal_pointer(&norm);
  return g_steal_pointer(&pooled);
}
