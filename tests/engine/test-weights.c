/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Weights as people have them, from the file into a model: FP8 with scales, names with and without
 * prefixes, adapters. Files and expected values are of tests/reference/make_checkpoints.py. */
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>

#include "clip.h"
#include "error.h"
#include "model-infer.h"
#include "part.h"
#include "t5.h"

static OsrDevice *device;

static char *
data_path(const char *name)
{
  return g_test_build_filename(G_TEST_DIST, "data", "checkpoints", name, NULL);
}

static OsrCheckpoint *
open_ok(const char *name)
{
  g_autofree char *path = data_path(name);
  g_autoptr(GError) error = NULL;
  OsrCheckpoint *checkpoint = osr_checkpoint_open(path, &error);

  g_assert_no_error(error);
  return checkpoint;
}

static void
assert_says(const GError *error, OsrError code, const char *text)
{
  g_assert_error(error, OSR_ERROR, (int) code);
  if (!strstr(error->message, text))
    g_error("\"%s\" does not say \"%s\"", error->message, text);
}

/* Tensors of f32 on the host */
static void
assert_close(OsrTensor *got, const float *want, gsize n, double tolerance)
{
  g_assert_nonnull(got);
  g_assert_cmpint(got->dtype, ==, OSR_DTYPE_F32);
  g_assert_cmpuint(got->size, ==, n * sizeof(float));
  for (gsize i = 0; i < n; i++) {
    double value = ((const float *) got->data)[i];

    if (!(fabs(value - want[i]) <= tolerance))
      g_error("element %" G_GSIZE_FORMAT " is %.9g, not %.9g", i, value, want[i]);
  }
}

static float *
read_floats(OsrCheckpoint *checkpoint, const char *name, gsize *n)
{
  const OsrCheckpointEntry *entry = osr_checkpoint_lookup(checkpoint, name);
  float *values;

  g_assert_nonnull(entry);
  *n = entry->size / osr_dtype_size(entry->dtype);
  values = g_new(float, *n);
  g_assert_true(osr_checkpoint_entry_to_f32(entry, values, NULL));
  return values;
}

/* FP8 */

static void
test_scales(void)
{
  static const struct {
    const char *name;
    float rows[2];
  } cases[] = {
    { "plain", { 1, 1 } },
    { "one", { 0.5f, 0.5f } },
    { "listed", { 0.25f, 0.25f } },
    { "rows", { 2, 4 } },
  };
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("fp8-scaled.safetensors");
  g_autoptr(OsrTensor) stack = NULL;
  g_autoptr(GError) error = NULL;
  OsrLoader loader;
  float both[12];

  osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(OsrTensor) tensor = osr_loader_matrix(&loader, 2, 3, "%s.weight", cases[i].name);
    float want[6];

    for (guint j = 0; j < 6; j++)
      want[j] = ((float) j - 7) * cases[i].rows[j / 3];
    assert_close(tensor, want, 6, 0);
    if (i == 1 || i == 3)
      memcpy(both + (i == 3 ? 6 : 0), want, sizeof want);
  }
  /* Of one type, and yet each with a factor of its own. */
  stack = osr_loader_stack(&loader, (const char *const[]){ "one.weight", "rows.weight", NULL },
                           (gint64[]){ 2, 2 }, 3);
  assert_close(stack, both, 12, 0);
  g_assert_true(osr_loader_finish(&loader, &error));
}

static void
test_bad_scales(void)
{
  static const char *const names[] = { "blocks", "columns" };
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("fp8-scaled.safetensors");

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autoptr(GError) error = NULL;
    OsrLoader loader;

    osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
    g_assert_null(osr_loader_matrix(&loader, 2, 3, "%s.weight", names[i]));
    g_assert_false(osr_loader_finish(&loader, &error));
    assert_says(error, OSR_ERROR_UNSUPPORTED, "fp8-scaled.safetensors: tensor '");
    assert_says(error, OSR_ERROR_UNSUPPORTED, "one for all or one a row can be");
  }
}

/* Strided tensors, and what a convolution makes of them */

static void
test_strided(void)
{
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("views.pt");
  g_autoptr(OsrTensor) transposed = NULL, stack = NULL;
  g_autoptr(GError) error = NULL;
  OsrLoader loader;
  float want[36];

  osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
  for (guint i = 0; i < 24; i++)
    want[i] = (float) ((i % 4 * 6 + i / 4) % 15) - 7;
  transposed = osr_loader_matrix(&loader, 6, 4, "transposed");
  assert_close(transposed, want, 24, 0);
  /* [4, 6] whole and its rows 1 and 2 */
  for (guint i = 0; i < 36; i++)
    want[i] = (float) ((i < 24 ? i : i - 18) % 15) - 7;
  stack = osr_loader_stack(&loader, (const char *const[]){ "whole", "rows", NULL },
                           (gint64[]){ 4, 2 }, 6);
  assert_close(stack, want, 36, 0);
  g_assert_true(osr_loader_finish(&loader, &error));
}

/* NaN and infinity */

static void
test_check_weights(void)
{
  static const struct {
    OsrDType dtype;
    guint8 bytes[8];
    const char *what;
  } cases[] = {
    { OSR_DTYPE_F32, { 0, 0, 0xc0, 0x7f }, "NaN" },
    { OSR_DTYPE_F32, { 0, 0, 0x80, 0xff }, "minus infinity" },
    { OSR_DTYPE_BF16, { 0x80, 0x7f }, "infinity" },
    { OSR_DTYPE_F16, { 0, 0x7e }, "NaN" },
    { OSR_DTYPE_F8_E4M3, { 0xff }, "NaN" },
    { OSR_DTYPE_F64, { 0, 0, 0, 0, 0, 0, 0xf0, 0x7f }, "infinity" },
  };
  g_autofree char *path = NULL;
  int fd = g_file_open_tmp("opensora-XXXXXX.safetensors", &path, NULL);

  g_assert_true(g_close(fd, NULL));
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    const gsize item = osr_dtype_size(cases[i].dtype);
    g_autoptr(OsrTensor) tensor = osr_tensor_make(device, cases[i].dtype, NULL, 2, 3, -1);
    g_autoptr(OsrTensor) unchecked = NULL;
    g_autoptr(OsrCheckpoint) checkpoint = NULL;
    g_autoptr(GError) error = NULL;
    g_autofree char *want = g_strdup_printf(
        "tensor 'w': 1 of its 6 elements are not finite, the first, %s, is element 4",
        cases[i].what);
    OsrLoader loader;

    memset(tensor->data, 0, tensor->size);
    memcpy((char *) tensor->data + 4 * item, cases[i].bytes, item);
    g_assert_true(osr_checkpoint_write(path, 1, (const char *const[]){ "w" }, &tensor, NULL, NULL));
    checkpoint = osr_checkpoint_open(path, &error);
    g_assert_no_error(error);
    osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
    unchecked = osr_loader_matrix(&loader, 2, 3, "w");
    g_assert_nonnull(unchecked);
    loader.check_weights = TRUE;
    g_assert_null(osr_loader_matrix(&loader, 2, 3, "w"));
    g_assert_false(osr_loader_finish(&loader, &error));
    assert_says(error, OSR_ERROR_INVALID_FILE, want);
    g_assert_true(g_str_has_prefix(error->message, path));
  }
  g_unlink(path);
}

/* Names */

static void
test_t5(gconstpointer name)
{
  g_autofree char *path = data_path(name);
  g_autoptr(OsrCheckpoint) golden = open_ok("text-golden.safetensors"), checkpoint = NULL;
  g_autoptr(OsrTensor) hidden = NULL;
  g_autoptr(OsrT5) t5 = NULL;
  g_autoptr(GError) error = NULL;
  g_autofree float *want = NULL;
  OsrT5Config config;
  OsrLoader loader;
  gint32 ids[6];
  gsize n;

  checkpoint = osr_part_open(OSR_PART_T5, path, &error);
  g_assert_no_error(error);
  for (guint i = 0; i < osr_checkpoint_n_entries(checkpoint); i++)
    g_assert_null(strstr(osr_checkpoint_nth(checkpoint, i)->name, "decoder"));
  g_assert_true(osr_infer_t5(checkpoint, NULL, &config, &error));
  g_assert_cmpuint(config.vocab_size, ==, 24);
  g_assert_cmpuint(config.d_model, ==, 16);
  g_assert_cmpuint(config.d_kv, ==, 4);
  g_assert_cmpuint(config.num_heads, ==, 2);
  g_assert_cmpuint(config.num_layers, ==, 2);
  g_assert_cmpuint(config.d_ff, ==, 12);
  osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
  t5 = osr_t5_load(&config, &loader, &error);
  g_assert_no_error(error);
  memcpy(ids, osr_checkpoint_lookup(golden, "t5.ids")->data, sizeof ids);
  hidden = osr_t5_encode(t5, ids, 6, NULL, &error);
  g_assert_no_error(error);
  want = read_floats(golden, "t5.hidden", &n);
  assert_close(hidden, want, n, 1e-4);
}

static void
test_clip(gconstpointer name)
{
  g_autofree char *path = data_path(name);
  g_autoptr(OsrCheckpoint) golden = open_ok("text-golden.safetensors"), checkpoint = NULL;
  g_autoptr(OsrTensor) pooled = NULL;
  g_autoptr(OsrClip) clip = NULL;
  g_autoptr(GError) error = NULL;
  g_autofree float *want = NULL;
  OsrClipConfig config;
  OsrLoader loader;
  gint32 ids[6];
  gsize n;

  checkpoint = osr_part_open(OSR_PART_CLIP, path, &error);
  g_assert_no_error(error);
  g_assert_nonnull(
      osr_checkpoint_lookup(checkpoint, "text_model.embeddings.token_embedding.weight"));
  for (guint i = 0; i < osr_checkpoint_n_entries(checkpoint); i++)
    g_assert_null(strstr(osr_checkpoint_nth(checkpoint, i)->name, "vision"));
  g_assert_true(osr_infer_clip(checkpoint, NULL, &config, &error));
  g_assert_cmpuint(config.hidden_size, ==, 64);
  g_assert_cmpuint(config.num_attention_heads, ==, 1);
  g_assert_cmpuint(config.max_position_embeddings, ==, 8);
  osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
  clip = osr_clip_load(&config, &loader, &error);
  g_assert_no_error(error);
  memcpy(ids, osr_checkpoint_lookup(golden, "clip.ids")->data, sizeof ids);
  pooled = osr_clip_encode(clip, ids, 6, NULL, NULL, &error);
  g_assert_no_error(error);
  want = read_floats(golden, "clip.pooled", &n);
  /* The file is f16, the golden numbers are not. */
  assert_close(pooled, want, n, 0.01);
}

static void
test_wrong_part(void)
{
  static const struct {
    OsrPart part;
    const char *file, *says;
  } cases[] = {
    { OSR_PART_MMDIT, "t5-whole.bin", "not a denoiser of Open-Sora 2.0, but a T5 model" },
    { OSR_PART_VAE, "clip-whole.bin", "not an autoencoder of Open-Sora 2.0, but a CLIP model" },
    { OSR_PART_T5, "lora-base-split.safetensors", "but a denoiser of the FLUX family" },
    { OSR_PART_MMDIT, "lora-fused/adapter_model.safetensors", "but a LoRA adapter" },
    { OSR_PART_MMDIT, "float8.pt",
      "no tensor 'double_blocks.0.img_attn.qkv.weight', but 1 others" },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *path = data_path(cases[i].file);
    g_autoptr(GError) error = NULL;

    g_assert_null(osr_part_open(cases[i].part, path, &error));
    assert_says(error, OSR_ERROR_INVALID_FILE, cases[i].says);
    g_assert_true(g_str_has_prefix(error->message, path));
  }
}

/* Adapters */

static OsrLoras *
open_loras(const char *const *names, const double *weights, guint n, GError **error)
{
  OsrLoraSpec specs[3];
  OsrLoras *loras;

  for (guint i = 0; i < n; i++)
    specs[i] = (OsrLoraSpec){ data_path(names[i]), weights[i] };
  loras = osr_loras_open(specs, n, error);
  for (guint i = 0; i < n; i++)
    g_free((char *) specs[i].path);
  return loras;
}

/* A layer as models ask for it, whatever the file has. */
static OsrTensor *
load_layer(OsrLoader *loader, const char *prefix, const char *whole, const char *const parts[4],
           const gint64 *rows, gint64 columns)
{
  g_autofree char *a = g_strconcat(prefix, parts[0], ".weight", NULL);
  g_autofree char *b = g_strconcat(prefix, parts[1], ".weight", NULL);
  g_autofree char *c = g_strconcat(prefix, parts[2], ".weight", NULL);

  if (osr_loader_has(loader, "%s%s.weight", prefix, whole))
    return osr_loader_matrix(loader, rows[0] + rows[1] + rows[2], columns, "%s%s.weight", prefix,
                             whole);
  return osr_loader_stack(loader, (const char *const[]){ a, b, c, NULL }, rows, columns);
}

/* All of them, at the weights of make_checkpoints.py's SPECS. */
static void
test_lora(gconstpointer file)
{
  static const char *const names[] = { "lora-fused", "lora-split", "lora-patterns" };
  static const char *const qkv[4] = { "q_proj", "k_proj", "v_proj" };
  static const char *const linear1[4] = { "q_proj", "k_proj", "v_mlp" };
  static const gint64 qkv_rows[] = { 8, 8, 8 }, linear1_rows[] = { 8, 8, 24 };
  g_autoptr(OsrCheckpoint) checkpoint = open_ok(file), merged = open_ok("lora-merged.safetensors");
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrLoras) loras =
      open_loras(names, (double[]){ 1.0, 0.5, -2.0 }, G_N_ELEMENTS(names), &error);
  OsrLoader loader;

  g_assert_no_error(error);
  osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
  loader.loras = loras;
  loader.check_weights = TRUE;
  for (guint i = 0; i < osr_checkpoint_n_entries(merged); i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(merged, i);
    g_autoptr(OsrTensor) got = NULL;
    g_autofree float *want = NULL;
    gsize n;

    if (strstr(entry->name, "qkv"))
      got = load_layer(&loader,
                       strstr(entry->name, "img") ? "double_blocks.0.img_attn."
                                                  : "double_blocks.0.txt_attn.",
                       "qkv", qkv, qkv_rows, 8);
    else if (strstr(entry->name, "linear1"))
      got = load_layer(&loader, "single_blocks.0.", "linear1", linear1, linear1_rows, 8);
    else
      got = osr_loader_matrix(&loader, entry->dims[0], entry->dims[1], "%s", entry->name);
    want = read_floats(merged, entry->name, &n);
    assert_close(got, want, n, 1e-4);
  }
  g_assert_true(osr_loader_finish(&loader, &error));
  g_assert_no_error(error);
}

static void
test_bad_lora(void)
{
  static const struct {
    const char *name, *says;
    OsrError code;
  } cases[] = {
    { "lora-dora", "use_dora: DoRA cannot be merged", OSR_ERROR_UNSUPPORTED },
    { "lora-half", "'base_model.model.txt_in.lora_A.weight': it has no lora_B beside it",
      OSR_ERROR_INVALID_FILE },
    { "lora-saved",
      "tensor 'base_model.model.final_layer.linear.weight': neither lora_A nor lora_B",
      OSR_ERROR_UNSUPPORTED },
    { "sharded", "adapter_config.json", OSR_ERROR_NOT_FOUND },
  };
  g_autoptr(GError) error = NULL;

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GError) reason = NULL;

    g_assert_null(open_loras(&cases[i].name, (double[]){ 1 }, 1, &reason));
    assert_says(reason, cases[i].code, cases[i].says);
  }
  g_assert_null(open_loras((const char *const[]){ "lora-fused" }, (double[]){ NAN }, 1, &error));
  assert_says(error, OSR_ERROR_INVALID_ARGUMENT, "weight nan is not in");
}

/* What is not known before the model's layers are. */
static void
test_misfit_lora(void)
{
  static const struct {
    const char *name, *says;
    OsrError code;
  } cases[] = {
    { "lora-stranger",
      "'base_model.model.double_blocks.7.img_attn.proj.lora_A.weight': the model has no linear",
      OSR_ERROR_INVALID_ARGUMENT },
    { "lora-shape", "does not fit 'double_blocks.0.img_attn.proj.weight' of [8, 8]",
      OSR_ERROR_SHAPE },
  };
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("lora-base-fused.safetensors");

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(OsrLoaderCheck) check = osr_loader_check_new();
    g_autoptr(OsrTensor) tensor = NULL;
    g_autoptr(GError) error = NULL, same = NULL;
    g_autoptr(OsrLoras) loras = open_loras(&cases[i].name, (double[]){ 1 }, 1, &error);
    OsrLoader loader;

    g_assert_no_error(error);
    osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
    loader.loras = loras;
    tensor = osr_loader_matrix(&loader, 8, 8, "double_blocks.0.img_attn.proj.weight");
    g_assert_false(osr_loader_finish(&loader, &error));
    assert_says(error, cases[i].code, cases[i].says);

    osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
    loader.loras = loras;
    loader.check = check;
    g_assert_null(osr_loader_matrix(&loader, 8, 8, "double_blocks.0.img_attn.proj.weight"));
    osr_loader_finish(&loader, &same);
    if (!same) {
      g_assert_cmpuint(check->misfits->len, ==, 1);
      g_set_error_literal(&same, OSR_ERROR, (int) cases[i].code,
                          g_ptr_array_index(check->misfits, 0));
    }
    assert_says(same, cases[i].code, cases[i].says);
  }
}

/* A check notes everything and reads nothing. */
static void
test_check(void)
{
  g_autoptr(OsrCheckpoint) checkpoint = open_ok("lora-base-split.safetensors");
  g_autoptr(OsrLoaderCheck) check = osr_loader_check_new();
  g_autoptr(GError) error = NULL;
  OsrPoolStats before, after;
  OsrLoader loader;

  osr_pool_get_stats(osr_device_get_pool(device), &before);
  osr_loader_init(&loader, checkpoint, device, OSR_DTYPE_F32, NULL);
  loader.check = check;
  g_assert_null(osr_loader_matrix(&loader, 8, 6, "txt_in.weight"));
  g_assert_null(osr_loader_matrix(&loader, 8, 7, "single_blocks.0.linear2.weight"));
  g_assert_null(osr_loader_vector(&loader, 8, "txt_in.bias"));
  g_assert_null(osr_loader_stack(
      &loader,
      (const char *const[]){ "single_blocks.0.q_proj.weight", "no.weight", "nor.weight", NULL },
      (gint64[]){ 8, 8, 8 }, 8));
  g_assert_true(osr_loader_finish(&loader, &error));
  osr_pool_get_stats(osr_device_get_pool(device), &after);
  g_assert_cmpuint(after.allocated, ==, before.allocated);
  g_assert_cmpuint(g_hash_table_size(check->used), ==, 3);
  g_assert_cmpuint(check->missing->len, ==, 3);
  g_assert_cmpstr(g_ptr_array_index(check->missing, 0), ==, "txt_in.bias");
  g_assert_cmpstr(g_ptr_array_index(check->missing, 2), ==, "nor.weight");
  g_assert_cmpuint(check->misfits->len, ==, 1);
  g_assert_cmpstr(g_ptr_array_index(check->misfits, 0), ==,
                  "tensor 'single_blocks.0.linear2.weight' is [8, 24], the model needs [8, 7]");
}

int
main(int argc, char **argv)
{
  int result;

  g_test_init(&argc, &argv, NULL);
  device = osr_device_get("ref", NULL);
  g_assert_nonnull(device);
  g_test_add_func("/weights/fp8/scales", test_scales);
  g_test_add_func("/weights/fp8/bad-scales", test_bad_scales);
  g_test_add_func("/weights/strided", test_strided);
  g_test_add_func("/weights/check-weights", test_check_weights);
  g_test_add_data_func("/weights/t5/whole", "t5-whole.bin", test_t5);
  g_test_add_data_func("/weights/t5/encoder", "t5-encoder.safetensors", test_t5);
  g_test_add_data_func("/weights/t5/bare", "t5-bare.safetensors", test_t5);
  g_test_add_data_func("/weights/t5/prefixed", "t5-prefixed.safetensors", test_t5);
  g_test_add_data_func("/weights/clip/whole", "clip-whole.bin", test_clip);
  g_test_add_data_func("/weights/clip/bare", "clip-bare.safetensors", test_clip);
  g_test_add_func("/weights/wrong-part", test_wrong_part);
  g_test_add_data_func("/weights/lora/fused", "lora-base-fused.safetensors", test_lora);
  g_test_add_data_func("/weights/lora/split", "lora-base-split.safetensors", test_lora);
  g_test_add_func("/weights/lora/bad", test_bad_lora);
  g_test_add_func("/weights/lora/misfit", test_misfit_lora);
  g_test_add_func("/weights/check", test_check);
  result = g_test_run();
  osr_device_unref(device);
  return result;
}
