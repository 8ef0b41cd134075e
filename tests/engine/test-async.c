/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The engine on a device that does its work later: the fake CUDA module in f32. */
#include "cases.h"
#include "fake-control.h"
#include "layers.h"
#include "model.h"
#include "vae.h"

/* Marks, copies and a device that fails */

static void
test_marks(gconstpointer data)
{
  g_autoptr(OsrDevice) device = case_device(data);
  g_autoptr(GError) error = NULL;
  guint64 marks[OSR_MAX_MARKS + 10];

  for (guint i = 0; i < G_N_ELEMENTS(marks); i++) {
    g_autoptr(OsrTensor) tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 4, -1);

    g_assert_true(osr_tensor_zero(tensor, &error));
    g_assert_true(osr_device_mark(device, &marks[i], &error));
    g_assert_cmpuint(marks[i], ==, i == 0 ? marks[0] : marks[i - 1] + 1);
  }
  g_assert_cmpuint(marks[0], >=, 1);
  /* Forgotten, kept, the last, once more, and the beginning. */
  g_assert_true(osr_device_wait(device, marks[0], "one", &error));
  g_assert_true(osr_device_wait(device, marks[40], "two", &error));
  g_assert_true(osr_device_wait(device, marks[G_N_ELEMENTS(marks) - 1], "three", &error));
  g_assert_true(osr_device_wait(device, marks[5], "four", &error));
  g_assert_true(osr_device_wait(device, 0, "five", &error));
  g_assert_no_error(error);
  g_assert_false(
      osr_device_wait(device, marks[G_N_ELEMENTS(marks) - 1] + 1, "a mark to come", &error));
  assert_error_says(error, OSR_ERROR_INVALID_ARGUMENT, "a mark to come");
}

/* A wait lets what comes after the mark be. */
static void
test_wait_is_short(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  g_autoptr(OsrTensor) tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 4, -1);
  FakeCuda *fake = fake_control();
  guint64 marks[4];

  for (guint i = 0; i < G_N_ELEMENTS(marks); i++) {
    g_assert_true(osr_tensor_zero(tensor, NULL));
    g_assert_true(osr_device_mark(device, &marks[i], NULL));
  }
  g_assert_cmpuint(fake->n_run, ==, 0);
  g_assert_true(osr_device_wait(device, marks[1], "two calls", NULL));
  g_assert_cmpuint(fake->n_run, ==, 2);
  g_assert_true(osr_device_wait(device, marks[0], "one call", NULL));
  g_assert_cmpuint(fake->n_run, ==, 2);
  must_synchronize(device);
  g_assert_cmpuint(fake->n_run, ==, 4);
}

/* An upload does not wait, and has its own copy of the data. */
static void
test_copies(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  g_autoptr(OsrTensor) tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 3, -1);
  FakeCuda *fake = fake_control();
  float values[3] = { 1, 2, 3 }, got[3] = { 0 };
  const float want[3] = { 1, 2, 3 };
  OsrDeviceCopies before, after;
  g_autoptr(GError) error = NULL;

  osr_device_get_copies(device, &before);
  g_assert_true(osr_device_upload(device, tensor->data, values, sizeof values, &error));
  g_assert_no_error(error);
  g_assert_cmpuint(fake->n_run, ==, 0);
  values[0] = values[1] = values[2] = -1;
  g_assert_true(osr_tensor_download(tensor, got, sizeof got, &error));
  g_assert_no_error(error);
  g_assert_cmpmem(got, sizeof got, want, sizeof want);

  osr_device_get_copies(device, &after);
  g_assert_cmpuint(after.to_device, ==, before.to_device + 1);
  g_assert_cmpuint(after.bytes_to_device, ==, before.bytes_to_device + sizeof values);
  g_assert_cmpuint(after.to_host, ==, before.to_host + 1);
  g_assert_cmpuint(after.bytes_to_host, ==, before.bytes_to_host + sizeof values);
  g_assert_cmpuint(after.on_device, ==, before.on_device);
  g_assert_true(osr_device_upload(device, tensor->data, NULL, 0, &error));
  osr_device_get_copies(device, &before);
  g_assert_cmpmem(&after, sizeof after, &before, sizeof before);
}

static void
assert_device_works(const char *name)
{
  g_autoptr(OsrDevice) device = case_device(name);
  g_autoptr(OsrTensor) tensor = NULL;
  const float values[2] = { 5, 6 };
  float got[2];
  g_autoptr(GError) error = NULL;

  tensor = osr_tensor_new_from_host(device, OSR_DTYPE_F32, 1, (gint64[]){ 2 }, values, &error);
  g_assert_no_error(error);
  g_assert_true(osr_tensor_download(tensor, got, sizeof got, &error));
  g_assert_no_error(error);
  g_assert_cmpmem(got, sizeof got, values, sizeof values);
}

static void
test_lost_device(void)
{
  OsrDevice *device = case_device("cuda:0"), *same;
  OsrTensor *tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 4, -1);
  FakeCuda *fake = fake_control();
  g_autoptr(GError) error = NULL;
  guint64 before, after, number;
  float got[4];

  fake->fail_at = 2;
  g_assert_true(osr_tensor_zero(tensor, NULL));
  g_assert_true(osr_device_mark(device, &before, NULL));
  g_assert_true(osr_tensor_zero(tensor, NULL));
  g_assert_true(osr_tensor_zero(tensor, NULL));
  g_assert_true(osr_device_mark(device, &after, NULL));
  g_assert_false(osr_device_wait(device, after, "block 7", &error));
  assert_error_says(error, OSR_ERROR_DEVICE, "block 7: mem_set: failed, as the test asked");
  assert_error_says(error, OSR_ERROR_DEVICE, "cuda:0");
  g_assert_true(osr_device_wait(device, before, "block 6", NULL));

  /* All that is asked of it now fails at once, and says why. */
  g_clear_error(&error);
  g_assert_false(osr_device_wait(device, after, "block 8", &error));
  assert_error_says(error, OSR_ERROR_DEVICE, "block 8: mem_set: failed");
  g_clear_error(&error);
  g_assert_false(osr_device_mark(device, &number, &error));
  assert_error_says(error, OSR_ERROR_DEVICE, "mem_set: failed");
  g_clear_error(&error);
  g_assert_false(osr_device_synchronize(device, &error));
  assert_error_says(error, OSR_ERROR_DEVICE, "mem_set: failed");
  g_clear_error(&error);
  g_assert_false(osr_tensor_zero(tensor, &error));
  assert_error_says(error, OSR_ERROR_DEVICE, "mem_set: failed");
  g_clear_error(&error);
  g_assert_false(osr_tensor_download(tensor, got, sizeof got, &error));
  assert_error_says(error, OSR_ERROR_DEVICE, "mem_set: failed");
  g_clear_error(&error);
  g_assert_null(osr_tensor_make(device, OSR_DTYPE_F32, &error, 1 << 20, -1));
  assert_error_says(error, OSR_ERROR_DEVICE, "mem_set: failed");
  g_assert_cmpuint(fake->n_run, ==, 2);

  /* Others are not affected; the lost one stays lost for as long as somebody holds it. */
  assert_device_works("cuda:1");
  assert_device_works("cpu");
  same = case_device("cuda:0");
  g_assert_true(same == device);
  osr_device_unref(same);
  osr_tensor_unref(tensor);
  osr_device_unref(device);
  assert_device_works("cuda:0");
}

/* Nobody was told of this failure, so closing the device tells. Warnings end a test. */
static void
test_silent_failure_alone(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  g_autoptr(OsrTensor) tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 4, -1);

  fake_control()->fail_at = 1;
  g_assert_true(osr_tensor_zero(tensor, NULL));
}

static void
test_silent_failure(void)
{
  g_test_trap_subprocess("/async/silent-failure/subprocess/alone", 0, G_TEST_SUBPROCESS_DEFAULT);
  g_test_trap_assert_failed();
  g_test_trap_assert_stderr("*WARNING*cuda:0: mem_set: failed, as the test asked*");
}

/* The denoiser */

typedef struct {
  Golden *golden;
  OsrDevice *device;
  OsrMmditConfig config;
  OsrMmdit *mmdit;
  OsrMmditInput input;
  guint blocks;
} Denoiser;

static void
denoiser_clear(Denoiser *d)
{
  osr_mmdit_free(d->mmdit);
  osr_tensor_unref(d->input.img);
  osr_tensor_unref(d->input.txt);
  osr_tensor_unref(d->input.vec);
  g_clear_pointer(&d->input.cond, osr_tensor_unref);
  osr_device_unref(d->device);
  golden_free(d->golden);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Denoiser, denoiser_clear)

static Denoiser
denoiser_open(void)
{
  Denoiser d = { .golden = golden_open("mmdit-fused"), .device = case_device("cuda:0") };
  g_autofree float *ids = NULL;
  gsize n;

  d.config = case_mmdit_config(d.golden->config);
  d.mmdit = case_mmdit(d.golden, &d.config, d.device);
  d.blocks = d.config.depth + d.config.depth_single_blocks;
  d.input.img = golden_tensor(d.golden, "in.img", d.device);
  d.input.txt = golden_tensor(d.golden, "in.txt", d.device);
  d.input.vec = golden_tensor(d.golden, "in.y_vec", d.device);
  if (golden_has(d.golden, "in.cond"))
    d.input.cond = golden_tensor(d.golden, "in.cond", d.device);
  ids = golden_floats(d.golden, "in.img_ids", &n);
  d.input.frames = (guint) ids[n - 3] + 1;
  d.input.height = (guint) ids[n - 2] + 1;
  d.input.width = (guint) ids[n - 1] + 1;
  must_synchronize(d.device);
  g_assert_cmpuint(d.blocks, >, OSR_PACE_AHEAD);
  return d;
}

static void
test_mmdit_pace(void)
{
  g_auto(Denoiser) d = denoiser_open();
  FakeCuda *fake = fake_control();
  g_autoptr(OsrTensor) pred = NULL;
  g_autoptr(GError) error = NULL;

  pred = osr_mmdit_forward(d.mmdit, &d.input, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(fake->max_attentions_behind, ==, OSR_PACE_AHEAD);
  /* Nobody waited for the end. */
  g_assert_cmpuint(fake->attentions_behind, ==, OSR_PACE_AHEAD);
  must_synchronize(d.device);
  g_assert_cmpuint(fake->attentions_behind, ==, 0);
}

static void
test_mmdit_cancel(void)
{
  g_auto(Denoiser) d = denoiser_open();
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  guint64 before = 0;

  for (guint at = 1; at < d.blocks; at++) {
    FakeCuda *fake = fake_control();
    g_autoptr(GError) error = NULL;

    g_cancellable_reset(cancellable);
    spy_start(d.device);
    spy.cancellable = cancellable;
    spy.cancel_at = at;
    g_assert_null(osr_mmdit_forward(d.mmdit, &d.input, cancellable, &error));
    spy_stop();
    g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    g_assert_cmpuint(spy.n_attention, ==, at);
    /* At once: what was enqueued still has to run, and may. */
    g_assert_cmpuint(fake->attentions_behind, ==, MIN(at, OSR_PACE_AHEAD));
    /* The first forward makes the rotary tables, which stay. */
    if (at == 1)
      before = pool_stats(d.device).allocated;
    g_assert_cmpuint(pool_stats(d.device).allocated, ==, before);
    must_synchronize(d.device);
  }
}

/* Each failure is found, once, and said to be where it was or in the block after. */
static void
test_mmdit_failures(void)
{
  guint64 n = 0;

  for (guint64 at = 1; at == 1 || at <= n; at += 5) {
    g_auto(Denoiser) d = denoiser_open();
    FakeCuda *fake = fake_control();
    g_autoptr(OsrTensor) pred = NULL;
    g_autoptr(GError) error = NULL;
    gboolean ok;

    if (n == 0) {
      pred = osr_mmdit_forward(d.mmdit, &d.input, NULL, &error);
      must_synchronize(d.device);
      n = fake->n_run;
      g_clear_pointer(&pred, osr_tensor_unref);
      fake = fake_control();
    }
    fake->fail_at = at;
    pred = osr_mmdit_forward(d.mmdit, &d.input, NULL, &error);
    ok = pred && osr_device_synchronize(d.device, &error);
    g_assert_false(ok);
    assert_error_says(error, OSR_ERROR_DEVICE, ": failed, as the test asked");
    g_assert_cmpint(pred == NULL, ==, g_str_has_prefix(error->message, "mmdit: "));
    g_assert_cmpuint(fake->n_run, ==, at);
  }
}

/* The autoencoder */

typedef struct {
  FakeCuda *fake;
  GCancellable *cancellable;
  double cancel_at, last;
  guint64 calls_at_last, most_behind;
} Watch;

static void
watch(double fraction, gpointer user_data)
{
  Watch *w = user_data;

  g_assert_cmpfloat(fraction, >=, w->last);
  /* What is reported as done has been. */
  if (fraction > w->last)
    g_assert_cmpuint(w->fake->n_run, >, w->calls_at_last);
  w->last = fraction;
  w->calls_at_last = w->fake->n_run;
  w->most_behind = MAX(w->most_behind, w->fake->calls_behind);
  if (fraction >= w->cancel_at)
    g_cancellable_cancel(w->cancellable);
}

static OsrVae *
open_vae(OsrDevice *device, OsrTensor **latent)
{
  g_autoptr(Golden) golden = golden_open("vae-tiles-both");
  JsonObject *o = golden->config;
  JsonArray *channels = json_object_get_array_member(o, "block_out_channels");
  OsrVaeConfig config = {
    .in_channels = config_uint(o, "in_channels"),
    .out_channels = config_uint(o, "out_channels"),
    .latent_channels = config_uint(o, "latent_channels"),
    .n_blocks = json_array_get_length(channels),
    .layers_per_block = config_uint(o, "layers_per_block"),
    .norm_num_groups = config_uint(o, "norm_num_groups"),
    .time_compression_ratio = config_uint(o, "time_compression_ratio"),
    .spatial_compression_ratio = config_uint(o, "spatial_compression_ratio"),
    .mid_block_add_attention = config_bool(o, "mid_block_add_attention"),
    .scale_factor = config_double(o, "scale_factor"),
    .shift_factor = config_double(o, "shift_factor"),
    .sample_size = config_uint(o, "sample_size"),
    .sample_tsize = config_uint(o, "sample_tsize"),
    .tile_overlap_factor = config_double(o, "tile_overlap_factor"),
  };
  g_autoptr(OsrTensor) batch = golden_video(golden, "in.latent", device);
  g_autoptr(GError) error = NULL;
  OsrLoader loader;
  OsrVae *vae;

  for (guint i = 0; i < config.n_blocks; i++)
    config.block_out_channels[i] = (guint) json_array_get_int_element(channels, i);
  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  vae = osr_vae_load(&config, FALSE, TRUE, &loader, &error);
  g_assert_no_error(error);
  *latent = osr_tensor_view(batch, 0, 4, batch->dims + 1);
  must_synchronize(device);
  return vae;
}

static void
test_vae_pace(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  g_autoptr(OsrTensor) latent = NULL, video = NULL;
  g_autoptr(OsrVae) vae = open_vae(device, &latent);
  const OsrVaeTiling tiling = OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL;
  Watch w = { .fake = fake_control(), .cancel_at = 2 };
  g_autoptr(GError) error = NULL;

  video = osr_vae_decode(vae, latent, tiling, watch, &w, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpfloat(w.last, ==, 1.0);
  g_assert_cmpuint(w.fake->calls_behind, ==, 0);
  g_test_message("%" G_GUINT64_FORMAT " calls, up to %" G_GUINT64_FORMAT " behind", w.fake->n_run,
                 w.fake->max_calls_behind);
  g_assert_cmpuint(w.fake->max_calls_behind * 10, <, w.fake->n_run);
  g_assert_cmpuint(w.most_behind, >, 0);

  g_clear_pointer(&video, osr_tensor_unref);
  w = (Watch){ .fake = fake_control(), .cancel_at = 2 };
  video = osr_vae_decode(vae, latent, OSR_VAE_TILING_OFF, watch, &w, NULL, &error);
  g_assert_no_error(error);

  /* With nobody to report to, the end is not waited for. */
  g_clear_pointer(&video, osr_tensor_unref);
  video = osr_vae_decode(vae, latent, tiling, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(w.fake->calls_behind, >, 0);
}

static void
test_vae_cancel(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  g_autoptr(OsrTensor) latent = NULL, video = NULL;
  g_autoptr(OsrVae) vae = open_vae(device, &latent);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  const OsrVaeTiling tiling = OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL;
  guint64 before = pool_stats(device).allocated;
  Watch w = { .fake = fake_control(), .cancel_at = 0.4, .cancellable = cancellable };
  g_autoptr(GError) error = NULL;

  video = osr_vae_decode(vae, latent, tiling, watch, &w, cancellable, &error);
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_null(video);
  g_assert_cmpuint(w.fake->calls_behind, >, 0);
  g_assert_cmpuint(pool_stats(device).allocated, ==, before);
  /* The memory of what still runs may be given back and used again. */
  osr_pool_trim(osr_device_get_pool(device), 0);
  g_clear_error(&error);
  video = osr_vae_decode(vae, latent, tiling, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  must_synchronize(device);
}

static void
test_vae_failure(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  g_autoptr(OsrTensor) latent = NULL, video = NULL;
  g_autoptr(OsrVae) vae = open_vae(device, &latent);
  FakeCuda *fake = fake_control();
  g_autoptr(GError) error = NULL;

  fake->fail_at = 60;
  video = osr_vae_decode(vae, latent, OSR_VAE_TILING_TEMPORAL, NULL, NULL, NULL, &error);
  g_assert_null(video);
  assert_error_says(error, OSR_ERROR_DEVICE, ": failed, as the test asked");
  assert_error_says(error, OSR_ERROR_DEVICE, "vae: ");
  g_assert_cmpuint(fake->n_run, ==, 60);
}

/* Of a model in TF32 the linears of both text encoders say so, of others none. */
static void
test_text_tf32(void)
{
  g_autofree char *path = osr_model_dir_default_path();
  g_autoptr(OsrDevice) device = NULL;
  FakeCuda *fake;

  if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
    g_test_skip("there is no model folder");
    return;
  }
  device = case_device("cuda:0");
  fake = fake_control();
  for (guint tf32 = 0; tf32 < 2; tf32++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(OsrModel) model = tf32 ? osr_model_get_tf32(NULL, device, &error)
                                     : osr_model_get_as(NULL, device, OSR_DTYPE_F32, &error);
    g_autoptr(OsrTensor) txt = NULL, vec = NULL;
    const OsrModelDir *dir;

    g_assert_no_error(error);
    g_assert_true(osr_model_encode_text(model, "a red cube", &txt, &vec, NULL, NULL, &error));
    must_synchronize(device);
    dir = osr_model_get_dir(model);
    g_assert_cmpuint(fake->n_tf32, ==,
                     tf32 ? 4 * (dir->t5.num_layers + dir->clip.num_hidden_layers) : 0);
  }
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_data_func("/async/marks/cpu", "cpu", test_marks);
  g_test_add_data_func("/async/marks/cuda", "cuda:0", test_marks);
  g_test_add_func("/async/wait-is-short", test_wait_is_short);
  g_test_add_func("/async/copies", test_copies);
  g_test_add_func("/async/lost-device", test_lost_device);
  g_test_add_func("/async/silent-failure", test_silent_failure);
  g_test_add_func("/async/silent-failure/subprocess/alone", test_silent_failure_alone);
  g_test_add_func("/async/text/tf32", test_text_tf32);
  g_test_add_func("/async/mmdit/pace", test_mmdit_pace);
  g_test_add_func("/async/mmdit/cancel", test_mmdit_cancel);
  g_test_add_func("/async/mmdit/failures", test_mmdit_failures);
  g_test_add_func("/async/vae/pace", test_vae_pace);
  g_test_add_func("/async/vae/cancel", test_vae_cancel);
  g_test_add_func("/async/vae/failure", test_vae_failure);
  return g_test_run();
}
