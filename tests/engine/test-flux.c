/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-flux.c: the first frame by FLUX.1: its autoencoder, and from noise to the picture. (The
 * denoiser and its loop alone: test-mmdit.c, test-sampler.c.)
 */
#include <string.h>

#include "aspect.h"
#include "model-config.h"
#include "model.h"
#include "sampler-run.h"
#include "vae-private.h"

static gboolean
read_config(const char *text, OsrVaeConfig *config, GError **error)
{
  g_autoptr(JsonObject) object = osr_config_read_text(text, strlen(text), "config", error);

  return object && osr_config_read_vae(&(OsrConfigSection){ "config", "", object }, config, error);
}

static OsrVae *
load_ae(Golden *golden, OsrDevice *device)
{
  const OsrConfigSection section = { "golden", "", golden->config };
  g_autoptr(GError) error = NULL;
  OsrVaeConfig config;
  OsrLoader loader;
  OsrVae *ae;

  g_assert_true(osr_config_read_ae(&section, &config, &error));
  osr_loader_init(&loader, golden->weights, device, osr_device_get_dtype(device), NULL);
  ae = osr_vae_load(&config, TRUE, TRUE, &loader, &error);
  g_assert_no_error(error);
  return ae;
}

static OsrTensor *
clip_of(Golden *golden, const char *name, OsrDevice *device)
{
  g_autoptr(OsrTensor) batch = golden_video(golden, name, device);

  g_assert_cmpint(batch->dims[0], ==, 1);
  return osr_tensor_view(batch, 0, 4, batch->dims + 1);
}

static void
assert_close(Golden *golden, const char *name, OsrTensor *got)
{
  double e = golden_video_error(golden, name, got);

  g_test_message("%s: relative error %.2g", name, e);
  g_assert_true(e <= TOLERANCE); /* false for NaN too */
}

static OsrTensor *
decode(OsrVae *ae, OsrTensor *latent, OsrVaeTiling tiling)
{
  g_autoptr(GError) error = NULL;
  OsrTensor *video = osr_vae_decode(ae, latent, tiling, NULL, NULL, NULL, &error);

  g_assert_no_error(error);
  return video;
}

/* The autoencoder against PyTorch */

static void
test_golden(gconstpointer data)
{
  const Case *c = data;
  g_autoptr(OsrDevice) device = case_device(c->device);
  g_autoptr(Golden) golden = golden_open(c->golden);
  g_autoptr(OsrVae) ae = load_ae(golden, device);
  g_autoptr(OsrTensor) video = clip_of(golden, "in.video", device);
  g_autoptr(OsrTensor) z = clip_of(golden, "in.latent", device);
  g_autoptr(OsrTensor) moments = NULL;
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(OsrTensor) decoded = NULL;
  g_autoptr(GError) error = NULL;

  latent = osr_vae_encode(ae, video, OSR_VAE_TILING_OFF, NULL, &moments, NULL, &error);
  g_assert_no_error(error);
  assert_close(golden, "out.moments", moments);
  assert_close(golden, "out.latent", latent);
  if (golden_has(golden, "in.noise")) {
    g_autoptr(OsrTensor) noise = clip_of(golden, "in.noise", device);
    g_autoptr(OsrTensor) sample = osr_vae_posterior(ae, moments, noise, &error);

    g_assert_no_error(error);
    assert_close(golden, "out.sample", sample);
  }
  decoded = decode(ae, z, OSR_VAE_TILING_OFF);
  assert_close(golden, "out.video", decoded);
}

/* Tiles in time have nothing to say to frames that are decoded one by one; tiles in space leave
 * alone what fits into one. */
static void
test_tiling(void)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(Golden) golden = golden_open("ae-frames");
  g_autoptr(OsrVae) ae = load_ae(golden, device);
  g_autoptr(OsrTensor) z = clip_of(golden, "in.latent", device);
  g_autoptr(OsrTensor) video = decode(ae, z, OSR_VAE_TILING_TEMPORAL | OSR_VAE_TILING_SPATIAL);

  assert_close(golden, "out.video", video);
}

/* What the plan says of an untiled decode is what the pool sees. */
static void
test_memory(void)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(Golden) golden = golden_open("ae-picture");
  g_autoptr(OsrVae) ae = load_ae(golden, device);
  const OsrVaeConfig *config = osr_vae_get_config(ae);
  OsrPool *pool = osr_device_get_pool(device);
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrTensor) z = osr_tensor_make(device, OSR_DTYPE_F32, &error, 2, 40, 48, 4, -1);
  g_autoptr(OsrTensor) video = NULL;
  OsrPoolStats stats;
  guint64 before, planned;

  g_assert_true(osr_tensor_zero(z, &error));
  osr_pool_reset_peak(pool);
  osr_pool_get_stats(pool, &stats);
  before = stats.allocated;
  video = decode(ae, z, OSR_VAE_TILING_OFF);
  osr_pool_get_stats(pool, &stats);
  planned = osr_vae_decode_memory(config, 2, 40, 48);
  g_test_message("planned %" G_GUINT64_FORMAT ", measured %" G_GUINT64_FORMAT, planned,
                 stats.peak_allocated - before);
  g_assert_cmpuint(stats.peak_allocated - before, >=, planned * 85 / 100);
  g_assert_cmpuint(stats.peak_allocated - before, <=, planned * 115 / 100);
  g_assert_cmpint(video->dims[0], ==, 2);
  g_assert_cmpint(video->dims[1], ==, 160);
  g_assert_cmpint(video->dims[2], ==, 192);
}

/* From noise to the picture: the loop of a distilled model, then the decoder. */
static void
test_picture(gconstpointer data)
{
  g_auto(Run) run = run_open("sampler-flux", data);
  g_autoptr(Golden) golden = golden_open("ae-flux");
  g_autoptr(OsrVae) ae = load_ae(golden, run.device);
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(OsrTensor) picture = NULL;
  guint forwards;

  g_assert_true(run.config.guidance_embed && !run.config.cond_embed);
  latent = run_latent(&run, 0, &forwards);
  /* Guidance is an input of the model: one forward a step, and no negative prompt. */
  g_assert_null(run.input.neg_txt);
  g_assert_cmpuint(forwards, ==, run.params.num_steps);
  picture = decode(ae, latent, OSR_VAE_TILING_OFF);
  assert_close(golden, "out.video", picture);
}

/* A folder of it alone, which has no text encoders. */
static void
test_model(void)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autofree char *path = golden_path("flux", NULL);
  g_autofree char *image = g_strconcat(OSR_MODEL_DIR_IMAGE, path, NULL);
  g_autofree char *other = g_strconcat(OSR_MODEL_DIR_IMAGE, path, "/../flux", NULL);
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrModel) model = osr_model_get(image, device, &error);
  g_autoptr(OsrModel) same = osr_model_get(other, device, &error);
  OsrTensor *txt = NULL, *vec = NULL;
  guint dims[4];

  g_assert_no_error(error);
  g_assert_true(model == same);
  g_assert_cmpstr(osr_model_get_dir(model)->family, ==, "flux");
  g_assert_false(osr_model_dir_has_text(osr_model_get_dir(model)));
  osr_model_latent_dims(model, 1, 64, 48, dims);
  g_assert_cmpuint(dims[0], ==, 1);
  g_assert_cmpuint(dims[1], ==, 6);
  g_assert_cmpuint(dims[2], ==, 8);
  g_assert_cmpuint(dims[3], ==, 16);
  g_assert_nonnull(osr_model_get_mmdit(model, NULL, &error));
  g_assert_no_error(error);
  g_assert_nonnull(osr_model_get_vae_decoder(model, NULL, &error));
  g_assert_no_error(error);
  g_assert_false(osr_model_encode_text(model, "a cube", &txt, &vec, NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
  if (!strstr(error->message, "t5/spiece.model"))
    g_error("'%s' does not name the file", error->message);
}

/* Sizes */

static void
test_sizes(void)
{
  g_autoptr(JsonNode) node = golden_json("sampler-picture-sizes");
  JsonArray *rows = json_node_get_array(node);
  static const struct {
    guint width, height;
    const char *name;
  } nearest[] = {
    { 336, 192, "16:9" },  { 192, 336, "9:16" },   { 256, 256, "1:1" }, { 384, 160, "2.39:1" },
    { 352, 176, "2:1" },   { 304, 208, "3:2" },    { 288, 224, "4:3" }, { 224, 288, "3:4" },
    { 128, 16, "2.39:1" }, { 16, 8192, "1:2.39" }, { 592, 992, "5:8" },
  };

  g_assert_cmpuint(json_array_get_length(rows), >=, 60);
  for (guint i = 0; i < json_array_get_length(rows); i++) {
    JsonObject *row = json_array_get_object_element(rows, i);
    g_autoptr(GError) error = NULL;
    guint width, height;

    g_assert_true(osr_aspect_picture_size(json_object_get_string_member(row, "resolution"),
                                          json_object_get_string_member(row, "ratio"), &width,
                                          &height, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(width, ==, config_uint(row, "width"));
    g_assert_cmpuint(height, ==, config_uint(row, "height"));
  }
  for (guint i = 0; i < G_N_ELEMENTS(nearest); i++)
    g_assert_cmpstr(osr_aspect_nearest(nearest[i].width, nearest[i].height), ==, nearest[i].name);
}

/* Configs */

static void
test_config(void)
{
  static const struct {
    const char *text, *reason;
  } bad[] = {
    { "{ \"type\": \"autoencoder_3d\" }", "type: \"autoencoder_3d\" is neither" },
    { "{ \"type\": \"autoencoder_2d\", \"ch_mult\": [] }", "ch_mult" },
    { "{ \"type\": \"autoencoder_2d\", \"ch_mult\": [1, 2, 4, 4, 4, 4, 4, 4, 4] }", "ch_mult" },
    { "{ \"type\": \"autoencoder_2d\", \"ch\": 0 }", "ch: 0 is not in" },
    { "{ \"type\": \"autoencoder_2d\", \"ch\": 1048576, \"ch_mult\": [1, 1000] }",
      "ch_mult: 1000 times 1048576 channels" },
    { "{ \"type\": \"autoencoder_2d\", \"ch\": 48 }", "48 channels in block 0 do not divide" },
    { "{ \"type\": \"autoencoder_2d\", \"scale_factor\": 0 }", "cannot be scaled by 0" },
  };
  OsrVaeConfig config;
  g_autoptr(GError) error = NULL;

  g_assert_true(read_config("{ \"type\": \"autoencoder_2d\" }", &config, &error));
  g_assert_no_error(error);
  g_assert_cmpint(config.type, ==, OSR_VAE_FLUX);
  g_assert_cmpuint(config.n_blocks, ==, 4);
  g_assert_cmpuint(config.block_out_channels[3], ==, 512);
  g_assert_cmpuint(config.time_compression_ratio, ==, 1);
  g_assert_cmpuint(config.spatial_compression_ratio, ==, 8);
  g_assert_cmpfloat(config.shift_factor, ==, 0.1159);

  for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
    g_assert_false(read_config(bad[i].text, &config, &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
    if (!strstr(error->message, bad[i].reason))
      g_error("'%s' does not say '%s'", error->message, bad[i].reason);
    g_clear_error(&error);
  }

  g_assert_true(read_config("{ \"type\": \"autoencoder_2d\" }", &config, &error));
  config.time_compression_ratio = 4;
  g_assert_false(osr_vae_config_check(&config, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED);
}

int
main(int argc, char *argv[])
{
  const char *const *devices = golden_devices();

  g_test_init(&argc, &argv, NULL);
  cases_add("ae", test_golden);
  for (guint i = 0; devices[i]; i++) {
    g_autofree char *path = g_strdup_printf("/flux/picture/%s", devices[i]);

    g_test_add_data_func(path, devices[i], test_picture);
  }
  g_test_add_func("/flux/tiling", test_tiling);
  g_test_add_func("/flux/memory", test_memory);
  g_test_add_func("/flux/model", test_model);
  g_test_add_func("/flux/sizes", test_sizes);
  g_test_add_func("/flux/config", test_config);
  return g_test_run();
}
