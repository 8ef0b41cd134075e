/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "t5.h"

#include <math.h>

#include "layers.h"
#include "model-limits.h"
#include "t5-private.h"

typedef struct {
  OsrTensor *norm1, *norm2; /* [D] */
  OsrDense qkv, o;          /* [3 H d, D], [D, H d] */
  OsrDense wi, wo;          /* [2 F, D]: gate, then value; [D, F] */
} Layer;

struct _OsrT5 {
  OsrT5Config config;
  OsrDevice *device;
  OsrDType dtype;
  gboolean tf32;
  OsrTensor *table; /* [vocab, D] */
  Layer *layers;
  OsrTensor *final_norm;
  float *bucket_bias; /* host, [buckets, heads] */

  /* rel_bias of the attention op for sequences of bias_length: f32 [heads, 2 L - 1]. */
  OsrTensor *bias;
  guint bias_length;
};

gboolean
osr_t5_config_check(const OsrT5Config *c, GError **error)
{
  static const char *const names[] = { "vocab_size", "d_model",    "d_kv",
                                       "d_ff",       "num_layers", "num_heads" };
  const guint values[] = {
    c->vocab_size, c->d_model, c->d_kv, c->d_ff, c->num_layers, c->num_heads
  };

  if (!osr_config_check_sizes("t5", G_N_ELEMENTS(values), names, values, error))
    return FALSE;
  if (c->num_layers > OSR_MAX_BLOCKS || (guint64) c->num_heads * c->d_kv > OSR_MAX_CHANNELS) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "t5: %u layers of %u heads of %u are more than any model has", c->num_layers,
                c->num_heads, c->d_kv);
    return FALSE;
  }
  /* Half of the buckets for each direction, half of those for single distances. */
  if (c->relative_attention_num_buckets < 4 || c->relative_attention_num_buckets > 1 << 16 ||
      c->relative_attention_num_buckets % 4 != 0 ||
      c->relative_attention_max_distance <= c->relative_attention_num_buckets / 4) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "t5: %u relative_attention_num_buckets up to distance %u are not possible",
                c->relative_attention_num_buckets, c->relative_attention_max_distance);
    return FALSE;
  }
  return TRUE;
}

/* The bias table on the host: it is gathered there for every new sequence length. */
static float *
load_bucket_bias(const OsrT5Config *c, OsrLoader *loader)
{
  g_autoptr(OsrTensor) table = NULL;
  g_autofree float *values = NULL;
  OsrDType dtype = loader->dtype;

  loader->dtype = OSR_DTYPE_F32;
  table = osr_loader_matrix(loader, c->relative_attention_num_buckets, c->num_heads,
                            "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
  loader->dtype = dtype;
  if (!table)
    return NULL;
  values = g_malloc(table->size);
  if (!osr_tensor_download(table, values, table->size, &loader->error))
    return NULL;
  return g_steal_pointer(&values);
}

static void
load_layer(Layer *l, const OsrT5Config *c, OsrLoader *loader, guint i)
{
  static const char *const qkv[] = { "SelfAttention.q", "SelfAttention.k", "SelfAttention.v",
                                     NULL };
  static const char *const wi[] = { "DenseReluDense.wi_0", "DenseReluDense.wi_1", NULL };
  gint64 d = c->d_model, f = c->d_ff, inner = (gint64) c->num_heads * c->d_kv;
  g_autofree char *attention = g_strdup_printf("encoder.block.%u.layer.0.", i);
  g_autofree char *mlp = g_strdup_printf("encoder.block.%u.layer.1.", i);

  l->norm1 = osr_loader_vector(loader, d, "%slayer_norm.weight", attention);
  l->qkv = osr_dense_stack(loader, attention, qkv, (gint64[]){ inner, inner, inner }, d, FALSE);
  l->o = osr_dense_load(loader, d, inner, FALSE, "%sSelfAttention.o", attention);
  l->norm2 = osr_loader_vector(loader, d, "%slayer_norm.weight", mlp);
  l->wi = osr_dense_stack(loader, mlp, wi, (gint64[]){ f, f }, d, FALSE);
  l->wo = osr_dense_load(loader, d, f, FALSE, "%sDenseReluDense.wo", mlp);
}

OsrT5 *
osr_t5_load(const OsrT5Config *config, OsrLoader *loader, GError **error)
{
  g_autoptr(OsrT5) t5 = NULL;
  const char *table;

  if (!osr_t5_config_check(config, error))
    return NULL;

  t5 = g_new0(OsrT5, 1);
  t5->config = *config;
  t5->device = osr_device_ref(loader->device);
  t5->dtype = loader->dtype;
  t5->tf32 = loader->tf32;
  t5->layers = g_new0(Layer, config->num_layers);

  /* Files that store shared tensors once keep either name. */
  table = osr_loader_has(loader, "shared.weight") ? "shared.weight" : "encoder.embed_tokens.weight";
  t5->table = osr_loader_matrix(loader, config->vocab_size, config->d_model, "%s", table);
  t5->bucket_bias = load_bucket_bias(config, loader);
  for (guint i = 0; i < config->num_layers; i++)
    load_layer(&t5->layers[i], config, loader, i);
  t5->final_norm = osr_loader_vector(loader, config->d_model, "encoder.final_layer_norm.weight");

  return osr_loader_finish(loader, error) ? g_steal_pointer(&t5) : NULL;
}

void
osr_t5_free(OsrT5 *t5)
{
  if (!t5)
    return;
  for (guint i = 0; i < t5->config.num_layers; i++) {
    Layer *l = &t5->layers[i];

    g_clear_pointer(&l->norm1, osr_tensor_unref);
    g_clear_pointer(&l->norm2, osr_tensor_unref);
    osr_dense_clear(&l->qkv);
    osr_dense_clear(&l->o);
    osr_dense_clear(&l->wi);
    osr_dense_clear(&l->wo);
  }
  g_free(t5->layers);
  g_clear_pointer(&t5->table, osr_tensor_unref);
  g_clear_pointer(&t5->final_norm, osr_tensor_unref);
  g_clear_pointer(&t5->bias, osr_tensor_unref);
  g_free(t5->bucket_bias);
  osr_device_unref(t5->device);
  g_free(t5);
}

/* Keys after the query take the upper half of the buckets. In each half the near distances
 * have a bucket of their own, the far ones share buckets that grow geometrically up to
 * relative_attention_max_distance. The logarithms are f32: at the bounds of the buckets the
 * rounding decides. */
guint
osr_t5_bucket(const OsrT5Config *config, gint64 offset)
{
  guint half = config->relative_attention_num_buckets / 2, exact = half / 2;
  guint base = offset > 0 ? half : 0;
  guint64 distance = offset < 0 ? -offset : offset;
  float far;

  if (distance < exact)
    return base + (guint) distance;
  far = logf((float) distance / exact) /
        (float) log((double) config->relative_attention_max_distance / exact) * (half - exact);
  return base + MIN(exact + (guint) far, half - 1);
}

/* rel_bias[h][key - query + L - 1], which all layers share. */
static gboolean
prepare_bias(OsrT5 *t5, guint length, GError **error)
{
  gint64 dims[2] = { t5->config.num_heads, 2 * (gint64) length - 1 };
  g_autofree float *values = NULL;
  OsrTensor *bias;

  if (t5->bias && t5->bias_length == length)
    return TRUE;
  values = g_new(float, dims[0] * dims[1]);
  for (gint64 i = 0; i < dims[1]; i++) {
    guint bucket = osr_t5_bucket(&t5->config, i - (length - 1));

    for (gint64 h = 0; h < dims[0]; h++)
      values[h * dims[1] + i] = t5->bucket_bias[bucket * dims[0] + h];
  }
  bias = osr_tensor_new_from_host(t5->device, OSR_DTYPE_F32, 2, dims, values, error);
  if (!bias)
    return FALSE;
  g_clear_pointer(&t5->bias, osr_tensor_unref);
  t5->bias = bias;
  t5->bias_length = length;
  return TRUE;
}

/* One sequence on its way through the layers; the buffers are [1, L, ...]. */
typedef struct {
  OsrRun run;
  const OsrT5Config *config;
  gint64 length;
  OsrTensor *x, *norm; /* D */
  OsrTensor *qkv, *o;  /* 3 H d, H d */
  OsrTensor *wide, *f; /* 2 F, F */
} Pass;

static void
rms_norm(Pass *p, OsrTensor *weight, OsrTensor *y)
{
  osr_run(&p->run, rms_norm,
          &(OsrRmsNorm){
              .dtype = p->run.dtype,
              .m = p->length,
              .n = (int) p->config->d_model,
              .eps = (float) p->config->layer_norm_epsilon,
              .x = p->x->data,
              .x_ld = p->config->d_model,
              .weight = weight->data,
              .y = y->data,
              .y_ld = p->config->d_model,
          });
}

/* T5 does not scale the scores: its initialisation does. */
static void
attention(Pass *p, OsrTensor *bias)
{
  gint64 inner = p->o->dims[2];
  OsrRows q = osr_rows(p->qkv, 0, 0), o = osr_rows(p->o, 0, 0);

  osr_run(&p->run, attention,
          &(OsrAttention){
              .dtype = p->run.dtype,
              .batch = 1,
              .lq = p->length,
              .lk = p->length,
              .heads = (int) p->config->num_heads,
              .head_dim = (int) p->config->d_kv,
              .scale = 1.0f,
              .q = q.data,
              .k = osr_rows(p->qkv, 0, inner).data,
              .v = osr_rows(p->qkv, 0, 2 * inner).data,
              .q_ld = q.ld,
              .k_ld = q.ld,
              .v_ld = q.ld,
              .q_batch = q.batch,
              .k_batch = q.batch,
              .v_batch = q.batch,
              .rel_bias = bias->data,
              .o = o.data,
              .o_ld = o.ld,
              .o_batch = o.batch,
          });
}

static void
layer(Pass *p, const Layer *l, OsrTensor *bias)
{
  OsrRun *run = &p->run;
  const OsrRows no_gate = { NULL };
  OsrRows x = osr_rows(p->x, 0, 0), norm = osr_rows(p->norm, 0, 0);

  rms_norm(p, l->norm1, p->norm);
  osr_run_linear(run, &l->qkv, OSR_ACT_NONE, 1, p->length, norm, osr_rows(p->qkv, 0, 0));
  attention(p, bias);
  osr_run_linear_add(run, &l->o, 1, p->length, osr_rows(p->o, 0, 0), no_gate, x);

  rms_norm(p, l->norm2, p->norm);
  osr_run_linear(run, &l->wi, OSR_ACT_NONE, 1, p->length, norm, osr_rows(p->wide, 0, 0));
  osr_run(run, glu,
          &(OsrGlu){
              .dtype = run->dtype,
              .m = p->length,
              .n = (int) p->config->d_ff,
              .act = OSR_ACT_GELU_TANH,
              .x = p->wide->data,
              .x_ld = p->wide->dims[2],
              .y = p->f->data,
              .y_ld = p->f->dims[2],
          });
  osr_run_linear_add(run, &l->wo, 1, p->length, osr_rows(p->f, 0, 0), no_gate, x);
}

static gboolean
check_ids(const OsrT5Config *c, const gint32 *ids, guint n_ids, GError **error)
{
  if (n_ids < 1 || n_ids > 1 << 20) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "t5: %u tokens, possible are 1 to %u",
                n_ids, 1u << 20);
    return FALSE;
  }
  for (guint i = 0; i < n_ids; i++) {
    if (ids[i] < 0 || (guint) ids[i] >= c->vocab_size) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                  "t5: token %u has id %d, the vocabulary ends at %u", i, ids[i],
                  c->vocab_size - 1);
      return FALSE;
    }
  }
  return TRUE;
}

/* What comes before the layers. @bias: the model's, a reference, as another length may come
 * between two layers. */
static gboolean
embed(Pass *p, OsrT5 *t5, const OsrTensor *ids, OsrTensor **bias, GCancellable *cancellable,
      GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(t5->device, cancellable, error);

  if (!locker || !prepare_bias(t5, (guint) p->length, error))
    return FALSE;
  *bias = osr_tensor_ref(t5->bias);
  osr_run(&p->run, embedding,
          &(OsrEmbedding){
              .dtype = t5->dtype,
              .m = p->length,
              .n = (int) t5->config.d_model,
              .vocab = (int) t5->config.vocab_size,
              .ids = ids->data,
              .table = t5->table->data,
              .y = p->x->data,
          });
  return osr_run_check(&p->run, error, "t5: embedding");
}

/* The result is in norm. */
static gboolean
finish(Pass *p, OsrT5 *t5, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(t5->device, cancellable, error);

  if (!locker)
    return FALSE;
  rms_norm(p, t5->final_norm, p->norm);
  return osr_run_check(&p->run, error, "t5: final norm");
}

OsrTensor *
osr_t5_encode(OsrT5 *t5, const gint32 *ids, guint n_ids, GCancellable *cancellable, GError **error)
{
  const OsrT5Config *c = &t5->config;
  gint64 length = n_ids, inner = (gint64) c->num_heads * c->d_kv;
  Pass p = { .run = osr_run_start(t5->device, t5->dtype), .config = c, .length = length };
  g_autoptr(OsrTensor) x = NULL, norm = NULL, qkv = NULL, o = NULL, wide = NULL, f = NULL;
  g_autoptr(OsrTensor) device_ids = NULL, bias = NULL;

  p.run.tf32 = t5->tf32;
  if (!check_ids(c, ids, n_ids, error))
    return NULL;
  device_ids = osr_tensor_new_from_host(t5->device, OSR_DTYPE_I32, 1, &length, ids, error);
  if (!device_ids || !(x = osr_tensor_new_3d(&p.run, 1, length, c->d_model, error)) ||
      !(norm = osr_tensor_new_3d(&p.run, 1, length, c->d_model, error)) ||
      !(qkv = osr_tensor_new_3d(&p.run, 1, length, 3 * inner, error)) ||
      !(o = osr_tensor_new_3d(&p.run, 1, length, inner, error)) ||
      !(wide = osr_tensor_new_3d(&p.run, 1, length, 2 * (gint64) c->d_ff, error)) ||
      !(f = osr_tensor_new_3d(&p.run, 1, length, c->d_ff, error)))
    return NULL;
  p.x = x, p.norm = norm, p.qkv = qkv, p.o = o, p.wide = wide, p.f = f;

  if (!embed(&p, t5, device_ids, &bias, cancellable, error))
    return NULL;
  for (guint i = 0; i < c->num_layers; i++) {
    g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(t5->device, cancellable, error);

    if (!locker)
      return NULL;
    layer(&p, &t5->layers[i], bias);
    if (!osr_run_check(&p.run, error, "t5: layer %u", i))
      return NULL;
  }
  return finish(&p, t5, cancellable, error) ? g_steal_pointer(&norm) : NULL;
}
