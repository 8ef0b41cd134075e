/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "error.h"

/* Whether @path has one of the files that make a folder a model folder. */
static gboolean
is_model_folder(const char *path)
{
  g_autofree char *own = g_build_filename(path, "config.json", NULL);
  g_autofree char *hub = g_build_filename(path, "Open_Sora_v2.safetensors", NULL);

  return g_file_test(own, G_FILE_TEST_EXISTS) || g_file_test(hub, G_FILE_TEST_EXISTS);
}

/* The model of OPENSORA_MODEL, or the one that is installed; NULL and the test skipped where
 * there is none. */
static OsrModel *
open_model(OsrDevice *device)
{
  g_autofree char *path = osr_model_dir_default_path();
  g_autoptr(GError) error = NULL;
  OsrModel *model;

  if (!is_model_folder(path)) {
    g_test_skip("there is no model folder");
    return NULL;
  }
  model = osr_model_get(NULL, device, &error);
  g_assert_no_error(error);
  return model;
}

static OsrDevice *
open_device(const char *name)
{
  g_autoptr(GError) error = NULL;
  OsrDevice *device = osr_device_get(name, &error);

  g_assert_no_error(error);
  return device;
}

static guint64
allocated(OsrDevice *device)
{
  OsrPoolStats stats;

  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  return stats.allocated;
}

/* One model a folder and device, under every name of the folder, as long as it is held. */
static void
test_shared(void)
{
  g_autoptr(OsrDevice) cpu = open_device("cpu");
  g_autoptr(OsrDevice) ref = open_device("ref");
  g_autoptr(OsrModel) model = open_model(cpu);
  g_autoptr(OsrModel) again = NULL, dotted = NULL, linked = NULL, other = NULL, f32 = NULL,
                      tf32 = NULL;
  g_autoptr(GError) error = NULL;
  g_autofree char *folder = NULL, *link = NULL, *dots = NULL, *path = NULL;

  if (!model)
    return;
  path = osr_model_dir_default_path();
  dots = g_build_filename(path, ".", NULL);
  folder = g_dir_make_tmp("opensora-model-XXXXXX", &error);
  g_assert_no_error(error);
  link = g_build_filename(folder, "link", NULL);
  g_assert_cmpint(symlink(path, link), ==, 0);

  again = osr_model_get(path, cpu, &error);
  dotted = osr_model_get(dots, cpu, &error);
  linked = osr_model_get(link, cpu, &error);
  other = osr_model_get(path, ref, &error);
  g_assert_no_error(error);
  g_assert_true(again == model);
  g_assert_true(dotted == model);
  g_assert_true(linked == model);
  g_assert_true(other != model);
  g_assert_true(osr_model_get_device(model) == cpu);
  g_assert_true(osr_model_get_device(other) == ref);
  g_assert_cmpstr(osr_model_get_dir(model)->family, ==, "open-sora-v2");

  tf32 = osr_model_get_tf32(path, cpu, &error);
  g_assert_no_error(error);
  g_assert_true(tf32 != model);
  g_assert_cmpint(osr_model_get_dtype(tf32), ==, OSR_DTYPE_F32);
  f32 = osr_model_get_as(path, cpu, OSR_DTYPE_F32, &error);
  g_assert_no_error(error);
  g_assert_true(f32 == model);
  g_assert_cmpint(osr_model_get_dtype(f32), ==, OSR_DTYPE_F32);
  g_assert_null(osr_model_get_as(path, cpu, OSR_DTYPE_BF16, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED);

  g_unlink(link);
  g_rmdir(folder);
}

/* Parts go with the last reference, and only then. */
static void
test_weak(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  guint64 before = allocated(device);
  OsrModel *model = open_model(device), *second;
  g_autoptr(GError) error = NULL;
  OsrVae *decoder;
  guint64 loaded;

  if (!model)
    return;
  g_assert_cmpuint(allocated(device), ==, before);
  decoder = osr_model_get_vae_decoder(model, NULL, &error);
  g_assert_no_error(error);
  g_assert_true(osr_model_get_vae_decoder(model, NULL, &error) == decoder);
  loaded = allocated(device);
  g_assert_cmpuint(loaded, >, before);

  second = osr_model_ref(model);
  osr_model_unref(model);
  g_assert_cmpuint(allocated(device), ==, loaded);
  osr_model_unref(second);
  g_assert_cmpuint(allocated(device), ==, before);

  model = osr_model_get(NULL, device, &error);
  g_assert_no_error(error);
  g_assert_nonnull(osr_model_get_vae_decoder(model, NULL, &error));
  g_assert_cmpuint(allocated(device), ==, loaded);
  osr_model_unref(model);
}

typedef struct {
  OsrModel *model;
  GCancellable *cancellable;
  OsrMmdit *mmdit;
  GError *error;
} Asker;

static gpointer
ask(gpointer data)
{
  Asker *asker = data;

  asker->mmdit = osr_model_get_mmdit(asker->model, asker->cancellable, &asker->error);
  return NULL;
}

/* Many threads ask for a part at once, and it is loaded once. */
static void
test_threads(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  g_autoptr(GError) error = NULL;
  guint64 before, once;
  Asker askers[6];
  GThread *threads[6];

  if (!model)
    return;
  before = allocated(device);
  g_assert_nonnull(osr_model_get_mmdit(model, NULL, &error));
  once = allocated(device) - before;
  g_clear_pointer(&model, osr_model_unref);

  model = osr_model_get(NULL, device, &error);
  g_assert_no_error(error);
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
    askers[i] = (Asker){ .model = model };
    threads[i] = g_thread_new("asker", ask, &askers[i]);
  }
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
    g_thread_join(threads[i]);
    g_assert_no_error(askers[i].error);
    g_assert_nonnull(askers[i].mmdit);
    g_assert_true(askers[i].mmdit == askers[0].mmdit);
  }
  g_assert_cmpuint(allocated(device) - before, ==, once);
}

/* A cancelled load takes nobody with it, and the part can be loaded afterwards. */
static void
test_cancelled(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  g_autoptr(GError) error = NULL;

  if (!model)
    return;
  for (guint round = 0; round < 8; round++) {
    g_autoptr(GCancellable) cancellable = g_cancellable_new();
    Asker first = { .model = model, .cancellable = cancellable };
    Asker second = { .model = model };
    guint64 before = allocated(device);
    GThread *threads[2];

    if (round == 0)
      g_cancellable_cancel(cancellable);
    threads[0] = g_thread_new("first", ask, &first);
    threads[1] = g_thread_new("second", ask, &second);
    g_usleep(round * 300); /* somewhere in the load */
    g_cancellable_cancel(cancellable);
    g_thread_join(threads[0]);
    g_thread_join(threads[1]);

    g_assert_no_error(second.error);
    g_assert_nonnull(second.mmdit);
    g_test_message("round %u: %s", round, first.mmdit ? "loaded" : "cancelled");
    if (first.mmdit)
      g_assert_true(first.mmdit == second.mmdit);
    else
      g_assert_error(first.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    g_clear_error(&first.error);

    g_clear_pointer(&model, osr_model_unref);
    g_assert_cmpuint(allocated(device), ==, before);
    model = osr_model_get(NULL, device, &error);
    g_assert_no_error(error);
  }
}

/* Cancelled before and in the middle, on one thread. */
static void
test_retry(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(OsrTensor) txt = NULL, vec = NULL;
  g_autoptr(GError) error = NULL;
  guint64 before = allocated(device);

  if (!model)
    return;
  g_cancellable_cancel(cancellable);
  g_assert_null(osr_model_get_mmdit(model, cancellable, &error));
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error(&error);
  g_assert_null(osr_model_get_vae_encoder(model, cancellable, &error));
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error(&error);
  g_assert_false(osr_model_encode_text(model, "a cube", &txt, &vec, NULL, cancellable, &error));
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_clear_error(&error);
  g_assert_cmpuint(allocated(device), ==, before);

  g_assert_nonnull(osr_model_get_mmdit(model, NULL, &error));
  g_assert_nonnull(osr_model_get_vae_encoder(model, NULL, &error));
  g_assert_true(osr_model_encode_text(model, "a cube", &txt, &vec, NULL, NULL, &error));
  g_assert_no_error(error);
}

/* Too little memory is an error that goes away with the limit. */
static void
test_memory(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  OsrPool *pool = osr_device_get_pool(device);
  g_autoptr(GError) error = NULL;
  guint64 before = allocated(device);

  if (!model)
    return;
  osr_pool_trim(pool, 0);
  osr_pool_set_limit(pool, before + (1 << 20));
  g_assert_null(osr_model_get_mmdit(model, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  g_clear_error(&error);
  g_assert_cmpuint(allocated(device), ==, before);

  osr_pool_set_limit(pool, 0);
  g_assert_nonnull(osr_model_get_mmdit(model, NULL, &error));
  g_assert_no_error(error);
}

static void
assert_shape(const OsrTensor *tensor, guint n_dims, const gint64 *dims)
{
  g_assert_cmpuint(tensor->n_dims, ==, n_dims);
  g_assert_cmpmem(tensor->dims, n_dims * sizeof *dims, dims, n_dims * sizeof *dims);
}

static OsrTensor *
encode(OsrModel *model, const char *text, guint *truncated)
{
  g_autoptr(OsrTensor) vec = NULL;
  g_autoptr(GError) error = NULL;
  OsrTensor *txt = NULL;

  g_assert_true(osr_model_encode_text(model, text, &txt, &vec, truncated, NULL, &error));
  g_assert_no_error(error);
  return txt;
}

/* Embeddings are kept, eight of them. */
static void
test_text(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  g_autoptr(OsrTensor) txt = NULL, vec = NULL, same = NULL, kept = NULL, made_again = NULL;
  g_autoptr(GError) error = NULL;
  const OsrModelDir *dir;
  guint truncated = 1;

  if (!model)
    return;
  dir = osr_model_get_dir(model);
  g_assert_true(osr_model_encode_text(model, "a red cube", &txt, &vec, &truncated, NULL, &error));
  g_assert_no_error(error);
  g_assert_cmpuint(truncated, ==, 0);
  assert_shape(txt, 3, (gint64[]){ 1, dir->t5_max_length, dir->mmdit.context_in_dim });
  assert_shape(vec, 2, (gint64[]){ 1, dir->mmdit.vec_in_dim });

  same = encode(model, "a red cube", NULL);
  g_assert_true(same == txt);
  for (guint i = 0; i < 7; i++) {
    g_autofree char *text = g_strdup_printf("cube number %u", i);
    g_autoptr(OsrTensor) other = encode(model, text, NULL);

    g_assert_true(other != txt);
  }
  kept = encode(model, "a red cube", NULL);
  g_assert_true(kept == txt);
  for (guint i = 7; i < 15; i++) {
    g_autofree char *text = g_strdup_printf("cube number %u", i);

    osr_tensor_unref(encode(model, text, NULL));
  }
  made_again = encode(model, "a red cube", NULL);
  g_assert_true(made_again != txt);
  g_assert_cmpuint(made_again->size, ==, txt->size);
  g_assert_cmpmem(made_again->data, made_again->size, txt->data, txt->size);
}

static void
test_long_text(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  g_autoptr(GString) text = g_string_new("a");
  g_autoptr(OsrTensor) txt = NULL, kept = NULL;
  guint truncated = 0, again = 0, max_length;

  if (!model)
    return;
  max_length = osr_model_get_dir(model)->t5_max_length;
  for (guint i = 0; i < max_length; i++)
    g_string_append(text, " cube");
  txt = encode(model, text->str, &truncated);
  kept = encode(model, text->str, &again);
  /* A word has at least one token, and the end of the text is one. */
  g_assert_cmpuint(truncated, >=, 2);
  g_assert_cmpuint(again, ==, truncated);
  g_assert_cmpint(txt->dims[1], ==, max_length);
}

static void
test_bad_text(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  g_autoptr(OsrTensor) txt = NULL, vec = NULL;
  g_autoptr(GError) error = NULL;

  if (!model)
    return;
  g_assert_false(osr_model_encode_text(model, "caf\xe9", &txt, &vec, NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_assert_null(txt);
  g_assert_null(vec);
}

/* Two threads and one text: both get an embedding, one of them is kept. */
static gpointer
ask_text(gpointer data)
{
  return encode(data, "a green ball", NULL);
}

static void
test_text_threads(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  g_autoptr(OsrTensor) kept = NULL;
  OsrTensor *txt[4];
  GThread *threads[4];

  if (!model)
    return;
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
    threads[i] = g_thread_new("asker", ask_text, model);
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
    txt[i] = g_thread_join(threads[i]);
  kept = encode(model, "a green ball", NULL);
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++) {
    g_assert_cmpmem(txt[i]->data, txt[i]->size, kept->data, kept->size);
    osr_tensor_unref(txt[i]);
  }
}

static void
test_latent_dims(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrModel) model = open_model(device);
  const OsrVaeConfig *vae;
  guint dims[4];

  if (!model)
    return;
  vae = &osr_model_get_dir(model)->vae;
  osr_model_latent_dims(model, 1 + 8 * vae->time_compression_ratio,
                        16 * vae->spatial_compression_ratio, 9 * vae->spatial_compression_ratio,
                        dims);
  g_assert_cmpuint(dims[0], ==, 9);
  g_assert_cmpuint(dims[1], ==, 9);
  g_assert_cmpuint(dims[2], ==, 16);
  g_assert_cmpuint(dims[3], ==, vae->latent_channels);
  osr_model_latent_dims(model, 1, 64, 64, dims);
  g_assert_cmpuint(dims[0], ==, 1);
}

/* A copy of the model's folder by links, but without @without. */
static char *
link_folder(const char *from, const char *without)
{
  static const char *const names[] = {
    "config.json",
    "mmdit.safetensors",
    "vae.safetensors",
    "t5/config.json",
    "t5/model.safetensors",
    "t5/spiece.model",
    "t5/tokenizer_config.json",
    "clip/config.json",
    "clip/merges.txt",
    "clip/model.safetensors",
    "clip/vocab.json",
  };
  g_autoptr(GError) error = NULL;
  char *folder = g_dir_make_tmp("opensora-model-XXXXXX", &error);
  g_autofree char *t5 = g_build_filename(folder, "t5", NULL);
  g_autofree char *clip = g_build_filename(folder, "clip", NULL);

  g_assert_no_error(error);
  g_assert_cmpint(g_mkdir(t5, 0700), ==, 0);
  g_assert_cmpint(g_mkdir(clip, 0700), ==, 0);
  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autofree char *target = g_build_filename(from, names[i], NULL);
    g_autofree char *link = g_build_filename(folder, names[i], NULL);

    if (!g_str_equal(names[i], without))
      g_assert_cmpint(symlink(target, link), ==, 0);
  }
  return folder;
}

static void
remove_folder(const char *folder)
{
  static const char *const parts[] = { "t5", "clip", "" };

  for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autofree char *part = g_build_filename(folder, parts[i], NULL);
    g_autoptr(GDir) dir = g_dir_open(part, 0, NULL);

    for (const char *name; (name = g_dir_read_name(dir)) != NULL;) {
      g_autofree char *path = g_build_filename(part, name, NULL);
      g_unlink(path);
    }
    g_rmdir(part);
  }
}

static void
assert_encodes_not(const char *folder, OsrDevice *device, const char *file, const char *message)
{
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrModel) model = osr_model_get(folder, device, &error);
  g_autoptr(OsrTensor) txt = NULL, vec = NULL;

  g_assert_no_error(error);
  g_assert_false(osr_model_encode_text(model, "a cube", &txt, &vec, NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
  g_assert_nonnull(strstr(error->message, folder));
  g_assert_nonnull(strstr(error->message, file));
  if (!strstr(error->message, message))
    g_error("\"%s\" does not say \"%s\"", error->message, message);
}

/* A tokenizer with more tokens than the embedding has rows: T5's sentinels if nobody says that
 * there are none, and a CLIP config of another model. */
static void
test_vocabulary(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autofree char *path = osr_model_dir_default_path();
  g_autofree char *no_sentinels = g_build_filename(path, "t5", "tokenizer_config.json", NULL);
  g_autofree char *folder = NULL, *config = NULL;
  g_autoptr(GError) error = NULL;

  if (!g_file_test(no_sentinels, G_FILE_TEST_EXISTS)) {
    g_test_skip("there is no tiny model");
    return;
  }

  folder = link_folder(path, "t5/tokenizer_config.json");
  assert_encodes_not(folder, device, "t5/spiece.model",
                     "the tokenizer has 516 tokens, T5's config.json a vocab_size of 416");
  remove_folder(folder);
  g_free(folder);

  folder = link_folder(path, "clip/config.json");
  config = g_build_filename(folder, "clip", "config.json", NULL);
  g_file_set_contents(config,
                      "{\"vocab_size\": 900, \"hidden_size\": 128, \"intermediate_size\": 256,"
                      " \"num_hidden_layers\": 3, \"num_attention_heads\": 4,"
                      " \"max_position_embeddings\": 64, \"eos_token_id\": 899}",
                      -1, &error);
  g_assert_no_error(error);
  assert_encodes_not(folder, device, "clip/vocab.json",
                     "the tokenizer has 962 tokens, CLIP's config.json a vocab_size of 900");
  remove_folder(folder);
}

static void
test_wrong_folder(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(GError) error = NULL;
  g_autofree char *folder = g_dir_make_tmp("opensora-model-XXXXXX", &error);
  g_autofree char *missing = NULL;

  g_assert_no_error(error);
  missing = g_build_filename(folder, "not-there", NULL);
  for (guint i = 0; i < 2; i++) {
    const char *path = i == 0 ? missing : folder;

    g_assert_null(osr_model_get(path, device, &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
    g_assert_nonnull(strstr(error->message, path));
    g_clear_error(&error);
  }
  g_rmdir(folder);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/model/shared", test_shared);
  g_test_add_func("/model/weak", test_weak);
  g_test_add_func("/model/threads", test_threads);
  g_test_add_func("/model/cancelled", test_cancelled);
  g_test_add_func("/model/retry", test_retry);
  g_test_add_func("/model/memory", test_memory);
  g_test_add_func("/model/text", test_text);
  g_test_add_func("/model/long-text", test_long_text);
  g_test_add_func("/model/bad-text", test_bad_text);
  g_test_add_func("/model/text-threads", test_text_threads);
  g_test_add_func("/model/latent-dims", test_latent_dims);
  g_test_add_func("/model/vocabulary", test_vocabulary);
  g_test_add_func("/model/wrong-folder", test_wrong_folder);
  return g_test_run();
}
