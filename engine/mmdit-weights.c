/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mmdit-weights.c: loading and freeing the denoiser of Open-Sora 2.0.
 */
#include "layers.h"
#include "loader-private.h"
#include "mmdit-private.h"
#include "model-limits.h"

gboolean
osr_mmdit_config_check(const OsrMmditConfig *c, GError **error)
{
  static const char *const names[] = { "in_channels", "vec_in_dim", "context_in_dim",
                                       "hidden_size", "num_heads",  "patch_size" };
  const guint values[] = { c->in_channels, c->vec_in_dim, c->context_in_dim,
                           c->hidden_size, c->num_heads,  c->patch_size };
  const double mlp = c->mlp_ratio * c->hidden_size;
  guint64 pairs = 0;

  if (!osr_config_check_sizes("mmdit", G_N_ELEMENTS(values), names, values, error))
    return FALSE;
  if (c->depth > OSR_MAX_BLOCKS || c->depth_single_blocks > OSR_MAX_BLOCKS) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "mmdit: %u and %u blocks are more than any model has", c->depth,
                c->depth_single_blocks);
    return FALSE;
  }
  if (c->patch_size > OSR_MAX_PATCH_SIZE || c->in_channels % (c->patch_size * c->patch_size) != 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "mmdit: in_channels %u is not a multiple of patch_size %u squared", c->in_channels,
                c->patch_size);
    return FALSE;
  }
  for (guint i = 0; i < 3; i++) {
    pairs += c->axes_dim[i] / 2;
    if (c->axes_dim[i] % 2 != 0)
      pairs = G_MAXUINT32;
  }
  if (c->hidden_size % (2 * c->num_heads) != 0 || pairs != c->hidden_size / c->num_heads / 2) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "mmdit: axes_dim %u, %u, %u have to be even and add up to hidden_size %u / "
                "num_heads %u",
                c->axes_dim[0], c->axes_dim[1], c->axes_dim[2], c->hidden_size, c->num_heads);
    return FALSE;
  }
  /* Written so that a NaN fails. */
  if (!(mlp >= 1 && mlp <= OSR_MAX_MLP_CHANNELS) || !(c->theta > 0 && c->theta <= G_MAXDOUBLE)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "mmdit: mlp_ratio %g or theta %g is out of range", c->mlp_ratio, c->theta);
    return FALSE;
  }
  return TRUE;
}

static OsrMmditEmbedder
load_embedder(OsrLoader *loader, gint64 n_in, gint64 n, const char *name)
{
  return (OsrMmditEmbedder){
    .in = osr_dense_load(loader, n, n_in, TRUE, "%s.in_layer", name),
    .out = osr_dense_load(loader, n, n, TRUE, "%s.out_layer", name),
  };
}

/* Whether the weights under @prefix are stored fused: as the config says, or the other way
 * round if the file has the other name only. */
static gboolean
is_fused(const OsrMmditConfig *c, OsrLoader *loader, const char *prefix, const char *fused,
         const char *split)
{
  return osr_loader_has(loader, "%s%s.weight", prefix, c->fused_qkv ? fused : split)
             ? c->fused_qkv
             : osr_loader_has(loader, "%s%s.weight", prefix, fused);
}

static void
load_stream(OsrMmditStream *s, const OsrMmdit *mmdit, OsrLoader *loader, const char *prefix)
{
  static const char *const names[] = { "attn.q_proj", "attn.k_proj", "attn.v_proj", NULL };
  const OsrMmditConfig *c = &mmdit->config;
  gint64 d = c->hidden_size, m = mmdit->mlp_dim, head_dim = d / c->num_heads;

  if (is_fused(c, loader, prefix, "attn.qkv", "attn.q_proj"))
    s->qkv = osr_dense_load(loader, 3 * d, d, c->qkv_bias, "%sattn.qkv", prefix);
  else
    s->qkv = osr_dense_stack(loader, prefix, names, (gint64[]){ d, d, d }, d, c->qkv_bias);
  s->q_scale = osr_loader_vector(loader, head_dim, "%sattn.norm.query_norm.scale", prefix);
  s->k_scale = osr_loader_vector(loader, head_dim, "%sattn.norm.key_norm.scale", prefix);
  s->proj = osr_dense_load(loader, d, d, TRUE, "%sattn.proj", prefix);
  s->up = osr_dense_load(loader, m, d, TRUE, "%smlp.0", prefix);
  s->down = osr_dense_load(loader, d, m, TRUE, "%smlp.2", prefix);
}

static void
load_double(OsrMmditDouble *b, const OsrMmdit *mmdit, OsrLoader *loader, guint i)
{
  static const char *const names[] = { "txt_mod.lin", "img_mod.lin", NULL };
  gint64 d = mmdit->config.hidden_size;
  g_autofree char *prefix = g_strdup_printf("double_blocks.%u.", i);
  g_autofree char *txt = g_strdup_printf("%stxt_", prefix);
  g_autofree char *img = g_strdup_printf("%simg_", prefix);

  b->modulation = osr_dense_stack(loader, prefix, names, (gint64[]){ 6 * d, 6 * d }, d, TRUE);
  load_stream(&b->streams[OSR_MMDIT_TEXT], mmdit, loader, txt);
  load_stream(&b->streams[OSR_MMDIT_VIDEO], mmdit, loader, img);
}

static void
load_single(OsrMmditSingle *b, const OsrMmdit *mmdit, OsrLoader *loader, guint i)
{
  static const char *const names[] = { "q_proj", "k_proj", "v_mlp", NULL };
  const OsrMmditConfig *c = &mmdit->config;
  gint64 d = c->hidden_size, m = mmdit->mlp_dim, head_dim = d / c->num_heads;
  g_autofree char *prefix = g_strdup_printf("single_blocks.%u.", i);
  OsrDense linear1;

  b->modulation = osr_dense_load(loader, 3 * d, d, TRUE, "%smodulation.lin", prefix);
  if (is_fused(c, loader, prefix, "linear1", "q_proj"))
    linear1 = osr_dense_load(loader, 3 * d + m, d, TRUE, "%slinear1", prefix);
  else
    linear1 = osr_dense_stack(loader, prefix, names, (gint64[]){ d, d, d + m }, d, TRUE);
  b->qkv = osr_dense_view(&linear1, 0, 3 * d);
  b->up = osr_dense_view(&linear1, 3 * d, m);
  osr_dense_clear(&linear1);
  b->q_scale = osr_loader_vector(loader, head_dim, "%snorm.query_norm.scale", prefix);
  b->k_scale = osr_loader_vector(loader, head_dim, "%snorm.key_norm.scale", prefix);
  b->down = osr_dense_load(loader, d, d + m, TRUE, "%slinear2", prefix);
}

static void
visit_stream(OsrMmditStream *s, OsrVisit visit, gpointer user_data)
{
  osr_dense_visit(&s->qkv, visit, user_data);
  osr_dense_visit(&s->proj, visit, user_data);
  osr_dense_visit(&s->up, visit, user_data);
  osr_dense_visit(&s->down, visit, user_data);
  visit(&s->q_scale, user_data);
  visit(&s->k_scale, user_data);
}

/* The weights of block @i, the double ones first. */
static void
visit_block(OsrMmdit *mmdit, guint i, OsrVisit visit, gpointer user_data)
{
  const guint n_doubles = mmdit->config.depth;

  if (i < n_doubles) {
    OsrMmditDouble *b = &mmdit->doubles[i];

    osr_dense_visit(&b->modulation, visit, user_data);
    visit_stream(&b->streams[OSR_MMDIT_TEXT], visit, user_data);
    visit_stream(&b->streams[OSR_MMDIT_VIDEO], visit, user_data);
  } else {
    OsrMmditSingle *b = &mmdit->singles[i - n_doubles];

    osr_dense_visit(&b->modulation, visit, user_data);
    visit(&b->qkv.weight, user_data);
    visit(&b->up.weight, user_data);
    visit(&b->qkv.scale, user_data);
    visit(&b->up.scale, user_data);
    visit(&b->qkv.bias, user_data);
    visit(&b->up.bias, user_data);
    osr_dense_visit(&b->down, visit, user_data);
    visit(&b->q_scale, user_data);
    visit(&b->k_scale, user_data);
  }
}

static void
add_place(OsrTensor **place, gpointer user_data)
{
  g_ptr_array_add(user_data, place);
}

/* To the host, where the next block finds the device's memory free again. */
static void
stream_block(OsrMmdit *mmdit, OsrLoader *loader, guint i)
{
  g_autoptr(GPtrArray) places = g_ptr_array_new();

  if (!mmdit->streamer || loader->error)
    return;
  visit_block(mmdit, i, add_place, places);
  osr_streamer_add(mmdit->streamer, places, &loader->error);
}

/* The linear layers of blocks are nearly all there is, so they alone may be F8. */
static void
load_blocks(OsrMmdit *mmdit, OsrLoader *loader)
{
  const guint n_doubles = mmdit->config.depth;
  const guint n = n_doubles + mmdit->config.depth_single_blocks;

  if (loader->stream && !loader->check && !loader->sizes && n > 0 &&
      osr_device_can_fetch(loader->device))
    mmdit->streamer = osr_streamer_new(loader->device, n);
  for (guint i = 0; i < n; i++) {
    osr_loader_begin_block(loader);
    if (i < n_doubles)
      load_double(&mmdit->doubles[i], mmdit, loader, i);
    else
      load_single(&mmdit->singles[i - n_doubles], mmdit, loader, i - n_doubles);
    osr_loader_end_block(loader);
    stream_block(mmdit, loader, i);
  }
  if (mmdit->streamer && !loader->error)
    osr_streamer_place(mmdit->streamer, &loader->error);
}

OsrMmdit *
osr_mmdit_load(const OsrMmditConfig *config, OsrLoader *loader, GError **error)
{
  g_autoptr(OsrMmdit) mmdit = NULL;
  gint64 d = config->hidden_size, channels = config->in_channels;
  const gboolean fp8 = loader->fp8;

  if (!osr_mmdit_config_check(config, error))
    return NULL;

  mmdit = g_new0(OsrMmdit, 1);
  mmdit->config = *config;
  mmdit->device = osr_device_ref(loader->device);
  mmdit->dtype = loader->dtype;
  mmdit->mlp_dim = (gint64) (config->hidden_size * config->mlp_ratio);
  mmdit->doubles = g_new0(OsrMmditDouble, config->depth);
  mmdit->singles = g_new0(OsrMmditSingle, config->depth_single_blocks);

  loader->fp8 = FALSE;
  mmdit->img_in = osr_dense_load(loader, d, channels, TRUE, "img_in");
  mmdit->txt_in = osr_dense_load(loader, d, config->context_in_dim, TRUE, "txt_in");
  if (config->cond_embed) {
    gint64 k = channels + (gint64) config->patch_size * config->patch_size;

    mmdit->cond_in = osr_dense_load(loader, d, k, TRUE, "cond_in");
  }
  mmdit->time_in = load_embedder(loader, OSR_MMDIT_TIME_FEATURES, d, "time_in");
  mmdit->vector_in = load_embedder(loader, config->vec_in_dim, d, "vector_in");
  if (config->guidance_embed)
    mmdit->guidance_in = load_embedder(loader, OSR_MMDIT_TIME_FEATURES, d, "guidance_in");
  loader->fp8 = fp8;
  load_blocks(mmdit, loader);
  loader->fp8 = FALSE;
  mmdit->final_modulation =
      osr_dense_load(loader, 2 * d, d, TRUE, "final_layer.adaLN_modulation.1");
  mmdit->final_linear = osr_dense_load(loader, channels, d, TRUE, "final_layer.linear");

  loader->fp8 = fp8;
  return osr_loader_finish(loader, error) ? g_steal_pointer(&mmdit) : NULL;
}

static void
clear_embedder(OsrMmditEmbedder *embedder)
{
  osr_dense_clear(&embedder->in);
  osr_dense_clear(&embedder->out);
}

void
osr_mmdit_free(OsrMmdit *mmdit)
{
  if (!mmdit)
    return;
  for (guint i = 0; i < mmdit->config.depth + mmdit->config.depth_single_blocks; i++)
    visit_block(mmdit, i, osr_visit_clear, NULL);
  osr_streamer_free(mmdit->streamer);
  g_free(mmdit->doubles);
  g_free(mmdit->singles);
  osr_dense_clear(&mmdit->img_in);
  osr_dense_clear(&mmdit->txt_in);
  osr_dense_clear(&mmdit->cond_in);
  clear_embedder(&mmdit->time_in);
  clear_embedder(&mmdit->vector_in);
  clear_embedder(&mmdit->guidance_in);
  osr_dense_clear(&mmdit->final_modulation);
  osr_dense_clear(&mmdit->final_linear);
  g_clear_pointer(&mmdit->rope_cos, osr_tensor_unref);
  g_clear_pointer(&mmdit->rope_sin, osr_tensor_unref);
  osr_device_unref(mmdit->device);
  g_free(mmdit);
}

const OsrMmditConfig *
osr_mmdit_get_config(OsrMmdit *mmdit)
{
  return &mmdit->config;
}

OsrDevice *
osr_mmdit_get_device(OsrMmdit *mmdit)
{
  return mmdit->device;
}

OsrDType
osr_mmdit_get_dtype(OsrMmdit *mmdit)
{
  return mmdit->dtype;
}
