/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cases.h: a test for every golden file of a part on every device, and what the tests of the
 * transformers share.
 */
#pragma once

#include "error.h"
#include "golden.h"
#include "mmdit.h"

G_BEGIN_DECLS

/* Of a result against float64, in f32. */
#define TOLERANCE 1e-4

typedef struct {
  char *golden; /* "mmdit-split" */
  const char *device;
} Case;

static inline void
case_free(gpointer data)
{
  Case *c = data;

  g_free(c->golden);
  g_free(c);
}

/* Adds @func for every golden file "@part-....safetensors", under "/@part/golden/". */
static inline void
cases_add(const char *part, GTestDataFunc func)
{
  const char *const *devices = golden_devices();
  g_autofree char *folder = golden_path("golden", NULL);
  g_autofree char *prefix = g_strconcat(part, "-", NULL);
  g_autoptr(GError) error = NULL;
  g_autoptr(GDir) dir = g_dir_open(folder, 0, &error);
  const char *file;
  guint n = 0;

  g_assert_no_error(error);
  while ((file = g_dir_read_name(dir))) {
    if (!g_str_has_prefix(file, prefix) || !g_str_has_suffix(file, ".safetensors"))
      continue;
    n++;
    for (guint i = 0; devices[i]; i++) {
      Case *c = g_new0(Case, 1);
      g_autofree char *path = NULL;

      c->golden = g_strndup(file, strlen(file) - strlen(".safetensors"));
      c->device = devices[i];
      path = g_strdup_printf("/%s/golden/%s/%s", part, devices[i], c->golden + strlen(prefix));
      g_test_add_data_func_full(path, c, func, case_free);
    }
  }
  if (n == 0)
    g_error("no golden files %s*.safetensors in %s", prefix, folder);
}

static inline OsrDevice *
case_device(const char *name)
{
  g_autoptr(GError) error = NULL;
  OsrDevice *device = osr_device_get(name, &error);

  g_assert_no_error(error);
  return device;
}

/* Reading a config; a missing number ends the test. */
static inline guint
config_uint(JsonObject *o, const char *key)
{
  g_assert_true(json_object_has_member(o, key));
  return (guint) json_object_get_int_member(o, key);
}

static inline double
config_double(JsonObject *o, const char *key)
{
  g_assert_true(json_object_has_member(o, key));
  return json_object_get_double_member(o, key);
}

static inline gboolean
config_bool(JsonObject *o, const char *key)
{
  g_assert_true(json_object_has_member(o, key));
  return json_object_get_boolean_member(o, key);
}

static inline OsrMmditConfig
case_mmdit_config(JsonObject *o)
{
  JsonArray *axes = json_object_get_array_member(o, "axes_dim");
  OsrMmditConfig c = {
    .in_channels = config_uint(o, "in_channels"),
    .vec_in_dim = config_uint(o, "vec_in_dim"),
    .context_in_dim = config_uint(o, "context_in_dim"),
    .hidden_size = config_uint(o, "hidden_size"),
    .mlp_ratio = config_double(o, "mlp_ratio"),
    .num_heads = config_uint(o, "num_heads"),
    .depth = config_uint(o, "depth"),
    .depth_single_blocks = config_uint(o, "depth_single_blocks"),
    .theta = config_double(o, "theta"),
    .qkv_bias = config_bool(o, "qkv_bias"),
    .guidance_embed = config_bool(o, "guidance_embed"),
    .cond_embed = config_bool(o, "cond_embed"),
    .fused_qkv = config_bool(o, "fused_qkv"),
    .use_liger_rope = config_bool(o, "use_liger_rope"),
    .patch_size = config_uint(o, "patch_size"),
  };

  for (guint i = 0; i < 3; i++)
    c.axes_dim[i] = (guint) json_array_get_int_element(axes, i);
  return c;
}

static inline OsrMmdit *
case_mmdit(Golden *golden, const OsrMmditConfig *config, OsrDevice *device)
{
  g_autoptr(GError) error = NULL;
  OsrLoader loader;
  OsrMmdit *mmdit;

  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  mmdit = osr_mmdit_load(config, &loader, &error);
  g_assert_no_error(error);
  g_assert_nonnull(mmdit);
  return mmdit;
}

/* Item @i of a batch, as a batch of one. */
static inline OsrTensor *
case_item(OsrTensor *tensor, guint i)
{
  gint64 dims[OSR_TENSOR_MAX_DIMS];

  memcpy(dims, tensor->dims, sizeof dims);
  dims[0] = 1;
  return osr_tensor_view(tensor, i * (osr_tensor_n_elements(tensor) / tensor->dims[0]),
                         tensor->n_dims, dims);
}

/* Relative error of @got against item @i of the @n that @want holds. */
static inline double
case_item_error(OsrTensor *got, const float *want, guint i)
{
  gsize size = (gsize) osr_tensor_n_elements(got);
  g_autofree float *values = golden_download(got);

  return golden_error(values, want + i * size, size);
}

/* Relative difference of two tensors of one size. */
static inline double
case_difference(OsrTensor *a, OsrTensor *b)
{
  g_autofree float *values = golden_download(b);

  g_assert_cmpint(osr_tensor_n_elements(a), ==, osr_tensor_n_elements(b));
  return case_item_error(a, values, 0);
}

/*
 * Ops of a device, counted and made to fail or to cancel. Only what a forward calls once,
 * and what it calls once a block, is watched.
 */
static struct {
  const OsrBackend *real;
  OsrBackend backend;
  OsrDevice *device;
  guint n_timestep, n_attention;
  guint fail_at, cancel_at; /* number of an attention, from 1; 0: never */
  GCancellable *cancellable;
} spy;

static inline OsrResult
spy_timestep(OsrOpsContext *ctx, const OsrTimestep *p)
{
  spy.n_timestep++;
  return spy.real->ops.timestep(ctx, p);
}

static inline OsrResult
spy_attention(OsrOpsContext *ctx, const OsrAttention *p)
{
  spy.n_attention++;
  if (spy.n_attention == spy.fail_at) {
    g_strlcpy(ctx->error, "as the test asked", sizeof ctx->error);
    return OSR_ERR_DEVICE;
  }
  if (spy.n_attention == spy.cancel_at)
    g_cancellable_cancel(spy.cancellable);
  return spy.real->ops.attention(ctx, p);
}

static inline void
spy_start(OsrDevice *device)
{
  OsrOpsContext *ctx = osr_device_get_context(device);

  memset(&spy, 0, sizeof spy);
  spy.real = ctx->backend;
  spy.backend = *ctx->backend;
  spy.backend.ops.timestep = spy_timestep;
  spy.backend.ops.attention = spy_attention;
  spy.device = device;
  ctx->backend = &spy.backend;
}

static inline void
spy_stop(void)
{
  osr_device_get_context(spy.device)->backend = spy.real;
}

G_END_DECLS
