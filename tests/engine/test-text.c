/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <glib/gstdio.h>

#include "cases.h"
#include "clip.h"
#include "t5-private.h"
#include "t5.h"

static OsrT5Config
t5_config(JsonObject *o)
{
  return (OsrT5Config){
    .vocab_size = config_uint(o, "vocab_size"),
    .d_model = config_uint(o, "d_model"),
    .d_kv = config_uint(o, "d_kv"),
    .d_ff = config_uint(o, "d_ff"),
    .num_layers = config_uint(o, "num_layers"),
    .num_heads = config_uint(o, "num_heads"),
    .relative_attention_num_buckets = config_uint(o, "relative_attention_num_buckets"),
    .relative_attention_max_distance = config_uint(o, "relative_attention_max_distance"),
    .layer_norm_epsilon = config_double(o, "layer_norm_epsilon"),
  };
}

static OsrT5 *
t5_load(OsrCheckpoint *weights, const OsrT5Config *config, OsrDevice *device)
{
  g_autoptr(GError) error = NULL;
  OsrLoader loader;
  OsrT5 *t5;

  osr_loader_init(&loader, weights, device, OSR_DTYPE_F32, NULL);
  t5 = osr_t5_load(config, &loader, &error);
  g_assert_no_error(error);
  return t5;
}

static OsrTensor *
t5_encode(OsrT5 *t5, const gint32 *ids, guint n)
{
  g_autoptr(GError) error = NULL;
  OsrTensor *hidden = osr_t5_encode(t5, ids, n, NULL, &error);

  g_assert_no_error(error);
  g_assert_cmpuint(hidden->n_dims, ==, 3);
  g_assert_cmpint(hidden->dims[0], ==, 1);
  g_assert_cmpint(hidden->dims[1], ==, n);
  return hidden;
}

static void
test_t5_golden(gconstpointer data)
{
  const Case *c = data;
  g_autoptr(Golden) golden = golden_open(c->golden);
  g_autoptr(OsrDevice) device = case_device(c->device);
  OsrT5Config config = t5_config(golden->config);
  g_autoptr(OsrT5) t5 = t5_load(golden->weights, &config, device);
  const OsrCheckpointEntry *entry = golden_entry(golden, "in.ids");
  g_autofree gint32 *ids = golden_ints(golden, "in.ids", NULL);
  g_autofree float *want = golden_floats(golden, "out.hidden", NULL);
  guint length = (guint) entry->dims[1];

  for (guint i = 0; i < entry->dims[0]; i++) {
    g_autoptr(OsrTensor) hidden = t5_encode(t5, ids + i * length, length);
    double error = case_item_error(hidden, want, i);

    g_test_message("item %u: relative error %.2g", i, error);
    g_assert_cmpfloat(error, <=, TOLERANCE);
  }
}

static void
test_t5_buckets(void)
{
  g_autoptr(Golden) golden = golden_open("tables-t5");
  OsrT5Config config = {
    .relative_attention_num_buckets = config_uint(golden->config, "num_buckets"),
    .relative_attention_max_distance = config_uint(golden->config, "max_distance"),
  };
  gint64 first = json_object_get_int_member(golden->config, "first");
  g_autofree gint32 *want = NULL;
  gsize n;

  want = golden_ints(golden, "out.buckets", &n);
  g_assert_cmpuint(n, >, 0);
  for (gsize i = 0; i < n; i++)
    g_assert_cmpuint(osr_t5_bucket(&config, first + (gint64) i), ==, (guint) want[i]);
}

/* The bias of one length must not be used for another. */
static void
test_t5_lengths(void)
{
  g_autoptr(Golden) golden = golden_open("t5-len37");
  g_autoptr(OsrDevice) device = case_device("cpu");
  OsrT5Config config = t5_config(golden->config);
  g_autoptr(OsrT5) t5 = t5_load(golden->weights, &config, device);
  g_autoptr(OsrT5) fresh = t5_load(golden->weights, &config, device);
  g_autofree gint32 *ids = golden_ints(golden, "in.ids", NULL);
  g_autoptr(OsrTensor) before = t5_encode(t5, ids, 20), other = t5_encode(t5, ids, 7);
  g_autoptr(OsrTensor) after = t5_encode(t5, ids, 20), alone = t5_encode(fresh, ids, 7);

  g_assert_cmpfloat(case_difference(before, after), ==, 0);
  g_assert_cmpfloat(case_difference(other, alone), ==, 0);
}

/* Some files have the embedding under its second name alone. */
static void
test_t5_embed_tokens(void)
{
  g_autoptr(Golden) golden = golden_open("t5-heads5");
  g_autoptr(OsrDevice) device = case_device("cpu");
  OsrT5Config config = t5_config(golden->config);
  g_autoptr(GPtrArray) names = g_ptr_array_new();
  g_autoptr(GPtrArray) tensors = g_ptr_array_new_with_free_func((GDestroyNotify) osr_tensor_unref);
  g_autoptr(GError) error = NULL;
  g_autofree char *folder = g_dir_make_tmp("test-text-XXXXXX", &error);
  g_autofree char *path = g_build_filename(folder, "t5.safetensors", NULL);
  g_autofree gint32 *ids = NULL;
  gsize n_ids;

  for (guint i = 0; i < osr_checkpoint_n_entries(golden->file); i++) {
    const char *name = osr_checkpoint_nth(golden->file, i)->name;

    if (!g_str_has_prefix(name, "w."))
      continue;
    g_ptr_array_add(tensors, golden_tensor(golden, name, device));
    g_ptr_array_add(
        names,
        (char *) (g_str_equal(name, "w.shared.weight") ? "encoder.embed_tokens.weight" : name + 2));
  }
  osr_checkpoint_write(path, names->len, (const char *const *) names->pdata,
                       (OsrTensor *const *) tensors->pdata, NULL, &error);
  g_assert_no_error(error);

  {
    g_autoptr(OsrCheckpoint) renamed = osr_checkpoint_open(path, &error);
    g_autoptr(OsrT5) t5 = NULL;
    g_autoptr(OsrTensor) hidden = NULL;

    g_assert_no_error(error);
    t5 = t5_load(renamed, &config, device);
    ids = golden_ints(golden, "in.ids", &n_ids);
    hidden = t5_encode(t5, ids, (guint) n_ids);
    g_assert_cmpfloat(golden_tensor_error(golden, "out.hidden", hidden), <=, TOLERANCE);
  }
  g_unlink(path);
  g_rmdir(folder);
}

static void
expect_t5_failure(OsrT5 *t5, const gint32 *ids, guint n, const char *word)
{
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_t5_encode(t5, ids, n, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_assert_nonnull(strstr(error->message, word));
}

static void
expect_no_t5(const OsrT5Config *config, Golden *golden, int code, const char *word)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(GError) error = NULL;
  OsrLoader loader;

  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  g_assert_null(osr_t5_load(config, &loader, &error));
  g_assert_error(error, OSR_ERROR, code);
  if (!strstr(error->message, word))
    g_error("'%s' does not say '%s'", error->message, word);
}

static void
test_t5_bad_input(void)
{
  g_autoptr(Golden) golden = golden_open("t5-len37");
  g_autoptr(OsrDevice) device = case_device("cpu");
  OsrT5Config good = t5_config(golden->config), bad;
  g_autoptr(OsrT5) t5 = t5_load(golden->weights, &good, device);
  gint32 ids[3] = { 1, (gint32) good.vocab_size, 2 };

  expect_t5_failure(t5, ids, 3, "token 1");
  ids[1] = -1;
  expect_t5_failure(t5, ids, 3, "-1");
  expect_t5_failure(t5, ids, 0, "0 tokens");

  bad = good, bad.num_layers++;
  expect_no_t5(&bad, golden, OSR_ERROR_NOT_FOUND, "encoder.block.2.");
  bad = good, bad.num_layers = G_MAXUINT32;
  expect_no_t5(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "num_layers");
  bad = good, bad.d_ff = 0;
  expect_no_t5(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "d_ff");
  bad = good, bad.vocab_size--;
  expect_no_t5(&bad, golden, OSR_ERROR_SHAPE, "shared.weight");
  bad = good, bad.relative_attention_num_buckets = 30;
  expect_no_t5(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "relative_attention_num_buckets");
  bad = good, bad.relative_attention_max_distance = 8;
  expect_no_t5(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "distance 8");
  bad = good, bad.relative_attention_num_buckets = 64;
  expect_no_t5(&bad, golden, OSR_ERROR_SHAPE, "relative_attention_bias");
}

static void
test_t5_cancel(void)
{
  g_autoptr(Golden) golden = golden_open("t5-len37");
  g_autoptr(OsrDevice) device = case_device("cpu");
  OsrT5Config config = t5_config(golden->config);
  g_autoptr(OsrT5) t5 = t5_load(golden->weights, &config, device);
  g_autofree gint32 *ids = golden_ints(golden, "in.ids", NULL);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(GError) error = NULL;
  OsrTensor *hidden;

  spy_start(device);
  spy.cancellable = cancellable;
  spy.cancel_at = 1;
  hidden = osr_t5_encode(t5, ids, 37, cancellable, &error);
  spy_stop();
  g_assert_null(hidden);
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpuint(spy.n_attention, ==, 1);
}

static OsrClipConfig
clip_config(JsonObject *o)
{
  const char *act = json_object_get_string_member(o, "hidden_act");

  return (OsrClipConfig){
    .vocab_size = config_uint(o, "vocab_size"),
    .hidden_size = config_uint(o, "hidden_size"),
    .intermediate_size = config_uint(o, "intermediate_size"),
    .num_hidden_layers = config_uint(o, "num_hidden_layers"),
    .num_attention_heads = config_uint(o, "num_attention_heads"),
    .max_position_embeddings = config_uint(o, "max_position_embeddings"),
    .layer_norm_eps = config_double(o, "layer_norm_eps"),
    .hidden_act = g_str_equal(act, "quick_gelu") ? OSR_ACT_QUICK_GELU : OSR_ACT_GELU_ERF,
    .eos_token_id = (gint) config_uint(o, "eos_token_id"),
  };
}

static OsrClip *
clip_load(Golden *golden, OsrDevice *device)
{
  OsrClipConfig config = clip_config(golden->config);
  g_autoptr(GError) error = NULL;
  OsrLoader loader;
  OsrClip *clip;

  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  clip = osr_clip_load(&config, &loader, &error);
  g_assert_no_error(error);
  return clip;
}

/* Both ways: with the hidden states, and without, when tokens after the end are left out. */
static void
test_clip_golden(gconstpointer data)
{
  const Case *c = data;
  g_autoptr(Golden) golden = golden_open(c->golden);
  g_autoptr(OsrDevice) device = case_device(c->device);
  g_autoptr(OsrClip) clip = clip_load(golden, device);
  const OsrCheckpointEntry *entry = golden_entry(golden, "in.ids");
  g_autofree gint32 *ids = golden_ints(golden, "in.ids", NULL);
  g_autofree float *want_hidden = golden_floats(golden, "out.hidden", NULL);
  g_autofree float *want_pooled = golden_floats(golden, "out.pooled", NULL);
  guint length = (guint) entry->dims[1];

  for (guint i = 0; i < entry->dims[0]; i++) {
    g_autoptr(OsrTensor) hidden = NULL, pooled = NULL, alone = NULL;
    g_autoptr(GError) error = NULL;

    pooled = osr_clip_encode(clip, ids + i * length, length, &hidden, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(hidden->n_dims, ==, 3);
    g_assert_cmpint(hidden->dims[1], ==, length);
    g_assert_cmpuint(pooled->n_dims, ==, 2);
    g_assert_cmpint(pooled->dims[0], ==, 1);
    g_test_message("item %u: relative errors %.2g, %.2g", i,
                   case_item_error(hidden, want_hidden, i),
                   case_item_error(pooled, want_pooled, i));
    g_assert_cmpfloat(case_item_error(hidden, want_hidden, i), <=, TOLERANCE);
    g_assert_cmpfloat(case_item_error(pooled, want_pooled, i), <=, TOLERANCE);

    alone = osr_clip_encode(clip, ids + i * length, length, NULL, NULL, &error);
    g_assert_no_error(error);
    g_assert_cmpfloat(case_item_error(alone, want_pooled, i), <=, TOLERANCE);
  }
}

static void
test_clip_bad_input(void)
{
  g_autoptr(Golden) golden = golden_open("clip-eos");
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(OsrClip) clip = clip_load(golden, device);
  OsrClipConfig good = clip_config(golden->config), bad;
  g_autofree gint32 *ids = g_new0(gint32, good.max_position_embeddings + 1);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(GError) error = NULL;
  OsrLoader loader;

  g_assert_null(osr_clip_encode(clip, ids, good.max_position_embeddings + 1, NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_clear_error(&error);
  g_assert_null(osr_clip_encode(clip, ids, 0, NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_clear_error(&error);
  ids[2] = (gint32) good.vocab_size;
  g_assert_null(osr_clip_encode(clip, ids, 5, NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_assert_nonnull(strstr(error->message, "token 2"));
  g_clear_error(&error);
  ids[2] = 1;
  g_cancellable_cancel(cancellable);
  g_assert_null(osr_clip_encode(clip, ids, 5, NULL, cancellable, &error));
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error(&error);

  bad = good, bad.num_attention_heads = 3;
  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  g_assert_null(osr_clip_load(&bad, &loader, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_clear_error(&error);
  bad = good, bad.num_hidden_layers++;
  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  g_assert_null(osr_clip_load(&bad, &loader, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  cases_add("t5", test_t5_golden);
  cases_add("clip", test_clip_golden);
  g_test_add_func("/t5/buckets", test_t5_buckets);
  g_test_add_func("/t5/lengths", test_t5_lengths);
  g_test_add_func("/t5/embed-tokens", test_t5_embed_tokens);
  g_test_add_func("/t5/bad-input", test_t5_bad_input);
  g_test_add_func("/t5/cancel", test_t5_cancel);
  g_test_add_func("/clip/bad-input", test_clip_bad_input);
  return g_test_run();
}
