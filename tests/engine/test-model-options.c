/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Models by options: parts from somewhere else, adapters, checks. On the tiny model. */
#include <glib/gstdio.h>
#include <string.h>

#include "error.h"
#include "model.h"

typedef struct {
  char *folder, *model;
  OsrDevice *device;
} Fixture;

static void
set_up(Fixture *f, gconstpointer data)
{
  g_autoptr(GError) error = NULL;

  f->folder = g_dir_make_tmp("opensora-XXXXXX", &error);
  g_assert_no_error(error);
  f->model = osr_model_dir_default_path();
  f->device = osr_device_get("cpu", &error);
  g_assert_no_error(error);
}

static void
tear_down(Fixture *f, gconstpointer data)
{
  static const char *const names[] = { "adapter_config.json", "adapter_model.safetensors",
                                       "vae.safetensors" };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autofree char *path = g_build_filename(f->folder, names[i], NULL);

    g_unlink(path);
  }
  g_rmdir(f->folder);
  g_free(f->folder);
  g_free(f->model);
  osr_device_unref(f->device);
}

static gboolean
has_model(const Fixture *f)
{
  g_autofree char *config = g_build_filename(f->model, "config.json", NULL);

  if (g_file_test(config, G_FILE_TEST_EXISTS))
    return TRUE;
  g_test_skip("there is no model of our own layout");
  return FALSE;
}

static OsrModel *
get(const Fixture *f, const OsrModelOptions *options)
{
  g_autoptr(GError) error = NULL;
  OsrModel *model = osr_model_get_with(options, f->device, &error);

  g_assert_no_error(error);
  return model;
}

/* An adapter of rank 1 for @module, of @rows by @columns, all of whose numbers are 0.1. */
static void
write_adapter(const Fixture *f, const char *module, gint64 rows, gint64 columns)
{
  g_autofree char *config = g_build_filename(f->folder, "adapter_config.json", NULL);
  g_autofree char *weights = g_build_filename(f->folder, "adapter_model.safetensors", NULL);
  g_autofree char *a = g_strdup_printf("base_model.model.%s.lora_A.weight", module);
  g_autofree char *b = g_strdup_printf("base_model.model.%s.lora_B.weight", module);
  OsrTensor *tensors[2];
  g_autoptr(GError) error = NULL;

  tensors[0] = osr_tensor_new(f->device, OSR_DTYPE_F32, 2, (gint64[]){ 1, columns }, &error);
  tensors[1] = osr_tensor_new(f->device, OSR_DTYPE_F32, 2, (gint64[]){ rows, 1 }, &error);
  for (guint i = 0; i < 2; i++)
    for (gint64 j = 0; j < osr_tensor_n_elements(tensors[i]); j++)
      ((float *) tensors[i]->data)[j] = 0.1f;
  osr_checkpoint_write(weights, 2, (const char *const[]){ a, b }, tensors, NULL, &error);
  g_assert_no_error(error);
  g_assert_true(g_file_set_contents(
      config, "{\"peft_type\": \"LORA\", \"r\": 1, \"lora_alpha\": 1}", -1, NULL));
  osr_tensor_unref(tensors[0]);
  osr_tensor_unref(tensors[1]);
}

static OsrTensor *
ones(const Fixture *f, guint n_dims, const gint64 *dims)
{
  OsrTensor *tensor = osr_tensor_new(f->device, OSR_DTYPE_F32, n_dims, dims, NULL);

  for (gint64 i = 0; i < osr_tensor_n_elements(tensor); i++)
    ((float *) tensor->data)[i] = 1.0f;
  return tensor;
}

/* What the denoiser makes of ones. */
static OsrTensor *
predict(const Fixture *f, OsrModel *model)
{
  g_autoptr(GError) error = NULL;
  OsrMmdit *mmdit = osr_model_get_mmdit(model, NULL, &error);
  const OsrMmditConfig *c;
  g_autoptr(OsrTensor) img = NULL, cond = NULL, txt = NULL, vec = NULL;
  OsrTensor *pred;

  g_assert_no_error(error);
  c = osr_mmdit_get_config(mmdit);
  img = ones(f, 3, (gint64[]){ 1, 4, c->in_channels });
  cond = ones(f, 3, (gint64[]){ 1, 4, c->in_channels + c->patch_size * c->patch_size });
  txt = ones(f, 3, (gint64[]){ 1, 3, c->context_in_dim });
  vec = ones(f, 2, (gint64[]){ 1, c->vec_in_dim });
  pred = osr_mmdit_forward(mmdit,
                           &(OsrMmditInput){ .img = img,
                                             .cond = c->cond_embed ? cond : NULL,
                                             .txt = txt,
                                             .vec = vec,
                                             .frames = 1,
                                             .height = 2,
                                             .width = 2,
                                             .timestep = 0.5f },
                           NULL, &error);
  g_assert_no_error(error);
  return pred;
}

static void
test_shared(Fixture *f, gconstpointer data)
{
  g_autofree char *dotted = g_build_filename(f->model, ".", NULL);
  g_autofree char *vae = g_build_filename(f->model, "vae.safetensors", NULL);
  OsrModelOptions options = OSR_MODEL_OPTIONS_INIT;
  g_autoptr(OsrModel) plain = NULL, same = NULL, checked = NULL, placed = NULL, again = NULL;

  if (!has_model(f))
    return;
  plain = get(f, &options);
  options.path = dotted;
  same = get(f, &options);
  options.check_weights = TRUE;
  checked = get(f, &options);
  options.parts.vae = vae;
  placed = get(f, &options);
  again = get(f, &options);
  g_assert_true(same == plain);
  g_assert_true(checked != plain);
  g_assert_true(placed != checked && placed != plain);
  g_assert_true(again == placed);
  g_assert_cmpstr(osr_model_get_dir(placed)->vae_path, ==, vae);
}

/* All four: the folder is not looked at, and the model is the same. */
static void
test_all_parts(Fixture *f, gconstpointer data)
{
  g_autofree char *mmdit = g_build_filename(f->model, "mmdit.safetensors", NULL);
  g_autofree char *t5 = g_build_filename(f->model, "t5", NULL);
  g_autofree char *clip = g_build_filename(f->model, "clip", NULL);
  OsrModelOptions options = OSR_MODEL_OPTIONS_INIT;
  g_autoptr(OsrModel) model = NULL;
  g_autoptr(GError) error = NULL;

  if (!has_model(f))
    return;
  options.path = f->model;
  options.parts = (OsrModelParts){ .mmdit = mmdit, .t5 = t5, .clip = clip };
  model = get(f, &options);
  g_assert_true(osr_model_check(model, &error));
  g_assert_no_error(error);
  /* The sizes of a denoiser whose heads no published model has are not in its shapes. */
  options.path = NULL;
  options.parts.vae = f->model;
  g_assert_null(osr_model_get_with(&options, f->device, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
  g_assert_nonnull(strstr(error->message, "mmdit.safetensors: mmdit: axes_dim 16, 56, 56"));
}

static void
test_loras(Fixture *f, gconstpointer data)
{
  OsrLoraSpec lora = { f->folder, 0.0 };
  OsrModelOptions options = OSR_MODEL_OPTIONS_INIT;
  g_autoptr(OsrModel) plain = NULL, nothing = NULL, tuned = NULL;
  g_autoptr(OsrTensor) want = NULL, same = NULL, other = NULL;
  g_autoptr(GError) error = NULL;
  const OsrMmditConfig *c;

  if (!has_model(f))
    return;
  options.path = f->model;
  plain = get(f, &options);
  c = &osr_model_get_dir(plain)->mmdit;
  write_adapter(f, "double_blocks.0.img_attn.qkv", 3 * c->hidden_size, c->hidden_size);
  options.loras = &lora;
  options.n_loras = 1;
  nothing = get(f, &options);
  lora.weight = 1.0;
  tuned = get(f, &options);
  g_assert_true(nothing != plain && tuned != nothing && tuned != plain);
  g_assert_true(osr_model_check(tuned, &error));
  g_assert_no_error(error);

  want = predict(f, plain);
  same = predict(f, nothing);
  other = predict(f, tuned);
  g_assert_cmpmem(same->data, same->size, want->data, want->size);
  g_assert_cmpint(memcmp(other->data, want->data, want->size), !=, 0);
}

/* Both when the model is checked and when it is loaded. */
static void
test_stranger(Fixture *f, gconstpointer data)
{
  OsrLoraSpec lora = { f->folder, 1.0 };
  OsrModelOptions options = OSR_MODEL_OPTIONS_INIT;
  g_autoptr(OsrModel) model = NULL;
  g_autoptr(GError) check = NULL, load = NULL;

  if (!has_model(f))
    return;
  write_adapter(f, "double_blocks.99.img_attn.qkv", 3, 4);
  options.path = f->model;
  options.loras = &lora;
  options.n_loras = 1;
  model = get(f, &options);
  g_assert_false(osr_model_check(model, &check));
  g_assert_nonnull(strstr(check->message, "double_blocks.99.img_attn.qkv.lora_A.weight"));
  g_assert_null(osr_model_get_mmdit(model, NULL, &load));
  g_assert_error(load, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_assert_nonnull(strstr(load->message, "double_blocks.99.img_attn.qkv.lora_A.weight"));
}

/* A VAE with the dimensions of the model's, of which one tensor is gone and one is not finite. */
static void
test_bad_vae(Fixture *f, gconstpointer data)
{
  g_autofree char *path = g_build_filename(f->folder, "vae.safetensors", NULL);
  g_autofree char *whole_path = g_build_filename(f->model, "vae.safetensors", NULL);
  g_autoptr(OsrCheckpoint) whole = NULL;
  g_autoptr(GPtrArray) names = g_ptr_array_new();
  g_autoptr(GPtrArray) tensors = g_ptr_array_new_with_free_func((GDestroyNotify) osr_tensor_unref);
  OsrModelOptions options = OSR_MODEL_OPTIONS_INIT;
  g_autoptr(OsrModel) model = NULL;
  g_autoptr(GError) check = NULL, load = NULL;

  if (!has_model(f))
    return;
  whole = osr_checkpoint_open(whole_path, NULL);
  for (guint i = 0; i < osr_checkpoint_n_entries(whole); i++) {
    const OsrCheckpointEntry *entry = osr_checkpoint_nth(whole, i);
    OsrTensor *tensor = osr_tensor_new_from_host(f->device, entry->dtype, entry->n_dims,
                                                 entry->dims, entry->data, NULL);

    if (g_str_equal(entry->name, "decoder.conv_in.conv.bias"))
      memset(tensor->data, 0xff, osr_dtype_size(entry->dtype));
    if (g_str_equal(entry->name, "encoder.conv_in.conv.bias")) {
      osr_tensor_unref(tensor);
      continue;
    }
    g_ptr_array_add(names, (gpointer) entry->name);
    g_ptr_array_add(tensors, tensor);
  }
  g_assert_true(osr_checkpoint_write(path, names->len, (const char *const *) names->pdata,
                                     (OsrTensor *const *) tensors->pdata, NULL, NULL));
  options.path = f->model;
  options.parts.vae = path;
  options.check_weights = TRUE;
  model = get(f, &options);
  g_assert_false(osr_model_check(model, &check));
  g_assert_error(check, OSR_ERROR, OSR_ERROR_NOT_FOUND);
  g_assert_nonnull(strstr(check->message, "missing tensors: encoder.conv_in.conv.bias"));
  g_assert_null(osr_model_get_vae_decoder(model, NULL, &load));
  g_assert_error(load, OSR_ERROR, OSR_ERROR_INVALID_FILE);
  g_assert_true(g_str_has_prefix(load->message, path));
  g_assert_nonnull(strstr(load->message, "'decoder.conv_in.conv.bias': 1 of its"));
}

static void
add(const char *name, void (*test)(Fixture *, gconstpointer))
{
  g_test_add(name, Fixture, NULL, set_up, test, tear_down);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  add("/model-options/shared", test_shared);
  add("/model-options/all-parts", test_all_parts);
  add("/model-options/loras", test_loras);
  add("/model-options/stranger", test_stranger);
  add("/model-options/bad-vae", test_bad_vae);
  return g_test_run();
}
