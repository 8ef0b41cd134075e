/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "error.h"
#include "golden.h"
#include "vae-private.h"

#include <string.h>

#define TOLERANCE 1e-4

/* Reading the goldens */

static guint
config_uint(Golden *golden, const char *name)
{
  g_assert_true(json_object_has_member(golden->config, name));
  return (guint) json_object_get_int_member(golden->config, name);
}

static OsrVaeConfig
config_of(Golden *golden)
{
  JsonObject *object = golden->config;
  JsonArray *channels = json_object_get_array_member(object, "block_out_channels");
  OsrVaeConfig config = {
    .in_channels = config_uint(golden, "in_channels"),
    .out_channels = config_uint(golden, "out_channels"),
    .latent_channels = config_uint(golden, "latent_channels"),
    .n_blocks = json_array_get_length(channels),
    .layers_per_block = config_uint(golden, "layers_per_block"),
    .norm_num_groups = config_uint(golden, "norm_num_groups"),
    .time_compression_ratio = config_uint(golden, "time_compression_ratio"),
    .spatial_compression_ratio = config_uint(golden, "spatial_compression_ratio"),
    .mid_block_add_attention = json_object_get_boolean_member(object, "mid_block_add_attention"),
    .scale_factor = json_object_get_double_member(object, "scale_factor"),
    .shift_factor = json_object_get_double_member(object, "shift_factor"),
    .sample_size = config_uint(golden, "sample_size"),
    .sample_tsize = config_uint(golden, "sample_tsize"),
    .tile_overlap_factor = json_object_get_double_member(object, "tile_overlap_factor"),
  };

  for (guint i = 0; i < config.n_blocks; i++)
    config.block_out_channels[i] = (guint) json_array_get_int_element(channels, i);
  return config;
}

static OsrVaeTiling
tiling_of(Golden *golden)
{
  OsrVaeTiling tiling = OSR_VAE_TILING_OFF;

  if (json_object_get_boolean_member(golden->config, "use_spatial_tiling"))
    tiling |= OSR_VAE_TILING_SPATIAL;
  if (json_object_get_boolean_member(golden->config, "use_temporal_tiling"))
    tiling |= OSR_VAE_TILING_TEMPORAL;
  return tiling;
}

static OsrDevice *
open_device(const char *name)
{
  g_autoptr(GError) error = NULL;
  OsrDevice *device = osr_device_get(name, &error);

  g_assert_no_error(error);
  return device;
}

static OsrVae *
load(Golden *golden, const OsrVaeConfig *config, OsrDevice *device, GError **error)
{
  OsrLoader loader;

  osr_loader_init(&loader, golden->weights, device, osr_device_get_dtype(device), NULL);
  return osr_vae_load(config, TRUE, TRUE, &loader, error);
}

static OsrVae *
load_golden(const char *name, OsrDevice *device)
{
  g_autoptr(Golden) golden = golden_open(name);
  g_autoptr(GError) error = NULL;
  OsrVaeConfig config = config_of(golden);
  OsrVae *vae = load(golden, &config, device, &error);

  g_assert_no_error(error);
  return vae;
}

/* The clip of a batch of one. */
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
noise_latent(OsrVae *vae, int t, int h, int w)
{
  g_autoptr(GError) error = NULL;
  const OsrVaeConfig *config = osr_vae_get_config(vae);
  OsrDevice *device = osr_vae_get_device(vae);
  int c = (int) config->latent_channels;
  OsrTensor *z = osr_tensor_make(device, osr_device_get_dtype(device), &error, t, h, w, c, -1);

  g_assert_no_error(error);
  g_assert_cmpint(osr_device_get_ops(device)->randn(osr_device_get_context(device),
                                                    &(OsrRandn){
                                                        .dtype = z->dtype,
                                                        .seed = 1,
                                                        .t = t,
                                                        .h = h,
                                                        .w = w,
                                                        .c = c,
                                                        .y = z->data,
                                                    }),
                  ==, OSR_OK);
  return z;
}

static guint64
allocated(OsrDevice *device)
{
  OsrPoolStats stats;

  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  return stats.allocated;
}

/* Against PyTorch */

typedef struct {
  const char *device;
  char *golden;
} Case;

static void
case_free(gpointer data)
{
  Case *c = data;

  g_free(c->golden);
  g_free(c);
}

static void
test_golden(gconstpointer data)
{
  const Case *c = data;
  g_autoptr(OsrDevice) device = open_device(c->device);
  g_autoptr(Golden) golden = golden_open(c->golden);
  g_autoptr(OsrVae) vae = load_golden(c->golden, device);
  g_autoptr(OsrTensor) video = clip_of(golden, "in.video", device);
  g_autoptr(OsrTensor) z = clip_of(golden, "in.latent", device);
  g_autoptr(OsrTensor) moments = NULL;
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(OsrTensor) decoded = NULL;
  g_autoptr(GError) error = NULL;
  OsrVaeTiling tiling = tiling_of(golden);

  latent = osr_vae_encode(vae, video, tiling, NULL, &moments, NULL, &error);
  g_assert_no_error(error);
  assert_close(golden, "out.moments", moments);
  assert_close(golden, "out.latent", latent);

  if (golden_has(golden, "in.noise")) {
    g_autoptr(OsrTensor) noise = clip_of(golden, "in.noise", device);
    g_autoptr(OsrTensor) sample = osr_vae_posterior(vae, moments, noise, &error);

    g_assert_no_error(error);
    assert_close(golden, "out.sample", sample);
  }

  decoded = osr_vae_decode(vae, z, tiling, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  assert_close(golden, "out.video", decoded);
}

/* A clip that fits into one tile does not change when tiling is on. */
static void
test_small_tiled(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(Golden) golden = golden_open("vae-t5");
  g_autoptr(OsrVae) vae = load_golden("vae-t5", device);
  g_autoptr(OsrTensor) z = clip_of(golden, "in.latent", device);
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(GError) error = NULL;

  video = osr_vae_decode(vae, z, OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL, NULL, NULL, NULL,
                         &error);
  g_assert_no_error(error);
  assert_close(golden, "out.video", video);
}

/* The posterior's sample: the seed decides, and it is not the mode. */
static void
test_sample(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(Golden) golden = golden_open("vae-t1");
  g_autoptr(OsrVae) vae = load_golden("vae-t1", device);
  g_autoptr(OsrTensor) video = clip_of(golden, "in.video", device);
  g_autoptr(GError) error = NULL;
  g_autofree float *values[3] = { NULL };
  gsize size = 0;
  const guint64 seeds[] = { 7, 7, 8 };

  for (guint i = 0; i < 3; i++) {
    g_autoptr(OsrTensor) latent =
        osr_vae_encode(vae, video, OSR_VAE_TILING_OFF, &seeds[i], NULL, NULL, &error);

    g_assert_no_error(error);
    values[i] = golden_download(latent);
    size = (gsize) osr_tensor_n_elements(latent) * sizeof(float);
  }
  g_assert_cmpmem(values[0], size, values[1], size);
  g_assert_true(memcmp(values[0], values[2], size) != 0);
  g_free(values[1]);
  g_free(values[2]);
}

/* Memory */

typedef struct {
  const char *device;
  const char *golden;
  int t, h, w;
  OsrVaeTiling tiling;
} MemoryCase;

static const MemoryCase memory_cases[] = {
  { "ref", "vae-t1", 1, 6, 10, OSR_VAE_TILING_OFF },
  { "cpu", "vae-t1", 1, 30, 40, OSR_VAE_TILING_OFF },
  { "cpu", "vae-t5", 5, 16, 12, OSR_VAE_TILING_OFF },
  { "cpu", "vae-t5", 9, 8, 8, OSR_VAE_TILING_OFF },
  { "cpu", "vae-time8", 3, 10, 14, OSR_VAE_TILING_OFF },
  { "cpu", "vae-tiles-time", 9, 12, 12, OSR_VAE_TILING_TEMPORAL },
  { "cpu", "vae-tiles-space", 3, 14, 10, OSR_VAE_TILING_SPATIAL },
};

/* The model's peak against the pool's, which rounds blocks up and has the scratch memory of
 * the operations. */
static void
test_memory(gconstpointer data)
{
  const MemoryCase *c = data;
  g_autoptr(OsrDevice) device = open_device(c->device);
  g_autoptr(OsrVae) vae = load_golden(c->golden, device);
  g_autoptr(OsrTensor) z = noise_latent(vae, c->t, c->h, c->w);
  const OsrVaeConfig *config = osr_vae_get_config(vae);
  OsrPool *pool = osr_device_get_pool(device);
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(GError) error = NULL;
  OsrPoolStats stats;
  OsrVaeCost cost;
  guint64 before;
  double ratio;

  g_assert_true(osr_vae_cost(config, TRUE, c->tiling, OSR_DTYPE_F32, (guint) c->t, (guint) c->h,
                             (guint) c->w, &cost, &error));
  g_assert_no_error(error);
  if (c->tiling == OSR_VAE_TILING_OFF)
    g_assert_cmpuint(osr_vae_decode_memory(config, (guint) c->t, (guint) c->h, (guint) c->w), ==,
                     cost.peak_bytes);

  osr_pool_reset_peak(pool);
  before = allocated(device);
  video = osr_vae_decode(vae, z, c->tiling, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  osr_pool_get_stats(pool, &stats);
  ratio = (double) (stats.peak_allocated - before) / (double) cost.peak_bytes;
  g_test_message("model %" G_GUINT64_FORMAT " bytes, measured %" G_GUINT64_FORMAT ", ratio %.3f",
                 cost.peak_bytes, stats.peak_allocated - before, ratio);
  g_assert_cmpfloat(ratio, >=, 0.85);
  g_assert_cmpfloat(ratio, <=, 1.15);
}

/* HunyuanVideo's decoder: the last stage's first block has its input of 256 channels, the
 * shortcut and the sum of 128, all at full size. */
static void
test_memory_hunyuan(void)
{
  const OsrVaeConfig config = {
    .in_channels = 3,
    .out_channels = 3,
    .latent_channels = 16,
    .n_blocks = 4,
    .block_out_channels = { 128, 256, 512, 512 },
    .layers_per_block = 2,
    .norm_num_groups = 32,
    .time_compression_ratio = 4,
    .spatial_compression_ratio = 8,
    .mid_block_add_attention = TRUE,
    .scale_factor = 0.476986,
    .sample_size = 256,
    .sample_tsize = 64,
    .tile_overlap_factor = 0.25,
  };
  const guint64 positions = G_GUINT64_CONSTANT(33) * 192 * 336;
  const guint all = OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL;
  g_autoptr(GError) error = NULL;
  OsrVaeCost f32, bf16, tiled;

  g_assert_true(osr_vae_cost(&config, TRUE, 0, OSR_DTYPE_F32, 9, 24, 42, &f32, &error));
  g_assert_cmpuint(f32.peak_bytes, ==, positions * (256 + 128 + 128) * 4);
  g_assert_true(osr_vae_cost(&config, TRUE, 0, OSR_DTYPE_BF16, 9, 24, 42, &bf16, &error));
  g_assert_cmpuint(bf16.peak_bytes * 2, ==, f32.peak_bytes);
  g_assert_true(osr_vae_cost(&config, TRUE, all, OSR_DTYPE_F32, 33, 96, 96, &tiled, &error));
  g_assert_true(osr_vae_cost(&config, TRUE, 0, OSR_DTYPE_F32, 33, 96, 96, &f32, &error));
  g_assert_cmpuint(tiled.peak_bytes * 5, <, f32.peak_bytes);
  g_assert_cmpfloat(tiled.flops, >, f32.flops);
  g_assert_no_error(error);

  g_assert_cmpuint(osr_vae_decode_memory(&config, 0, 1, 1), ==, G_MAXUINT64);
  g_assert_cmpuint(osr_vae_decode_memory(&config, G_MAXUINT, G_MAXUINT, G_MAXUINT), ==,
                   G_MAXUINT64);
}

/* Progress, cancellation, failures */

typedef struct {
  double last, cancel_at;
  guint calls;
  GCancellable *cancellable;
} Watch;

static void
watch(double fraction, gpointer user_data)
{
  Watch *w = user_data;

  g_assert_cmpfloat(fraction, >=, w->last);
  g_assert_cmpfloat(fraction, <=, 1.0);
  w->last = fraction;
  w->calls++;
  if (fraction >= w->cancel_at)
    g_cancellable_cancel(w->cancellable);
}

static void
test_progress(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrVae) vae = load_golden("vae-tiles-both", device);
  g_autoptr(OsrTensor) z = noise_latent(vae, 9, 4, 4);
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(GError) error = NULL;
  Watch w = { .cancel_at = 2.0 };

  video = osr_vae_decode(vae, z, OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL, watch, &w, NULL,
                         &error);
  g_assert_no_error(error);
  g_assert_cmpfloat(w.last, ==, 1.0);
  g_assert_cmpuint(w.calls, >, 20);
}

static void
test_cancel(gconstpointer data)
{
  const OsrVaeTiling tiling = GPOINTER_TO_UINT(data);
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrVae) vae = load_golden("vae-tiles-both", device);
  g_autoptr(OsrTensor) z = noise_latent(vae, 9, 4, 4);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(GError) error = NULL;
  guint64 before = allocated(device);
  Watch w = { .cancel_at = 0.4, .cancellable = cancellable };

  video = osr_vae_decode(vae, z, tiling, watch, &w, cancellable, &error);
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_null(video);
  g_assert_cmpfloat(w.last, <, 0.9);
  g_assert_cmpuint(allocated(device), ==, before);

  g_clear_error(&error);
  video = osr_vae_decode(vae, z, tiling, NULL, NULL, NULL, &error);
  g_assert_no_error(error);
  g_assert_nonnull(video);
}

static void
test_encode_cancelled(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(Golden) golden = golden_open("vae-t5");
  g_autoptr(OsrVae) vae = load_golden("vae-t5", device);
  g_autoptr(OsrTensor) video = clip_of(golden, "in.video", device);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(GError) error = NULL;
  guint64 before = allocated(device);

  g_cancellable_cancel(cancellable);
  latent = osr_vae_encode(vae, video, OSR_VAE_TILING_OFF, NULL, NULL, cancellable, &error);
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_null(latent);
  g_assert_cmpuint(allocated(device), ==, before);
}

static void
test_too_little_memory(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrVae) vae = load_golden("vae-t5", device);
  g_autoptr(OsrTensor) z = noise_latent(vae, 5, 16, 12);
  OsrPool *pool = osr_device_get_pool(device);
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(GError) error = NULL;
  guint64 before = allocated(device);
  OsrPoolStats stats;

  osr_pool_trim(pool, 0);
  osr_pool_get_stats(pool, &stats);
  osr_pool_set_limit(pool, stats.reserved +
                               osr_vae_decode_memory(osr_vae_get_config(vae), 5, 16, 12) / 2);
  video = osr_vae_decode(vae, z, OSR_VAE_TILING_OFF, NULL, NULL, NULL, &error);
  osr_pool_set_limit(pool, 0);
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  g_test_message("%s", error->message);
  g_assert_nonnull(strstr(error->message, "decoder.up_blocks."));
  g_assert_null(video);
  g_assert_cmpuint(allocated(device), ==, before);
}

static void
test_shapes(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(OsrVae) vae = load_golden("vae-t5", device);
  const gint64 videos[][4] = { { 4, 16, 16, 3 }, { 5, 20, 16, 3 }, { 5, 16, 12, 3 },
                               { 5, 16, 16, 4 }, { 0, 16, 16, 3 }, { 1, 0, 8, 3 } };
  const gint64 latents[][4] = { { 2, 2, 2, 3 }, { 0, 2, 2, 4 }, { 2, 0, 2, 4 }, { 2, 2, 0, 4 } };

  for (guint i = 0; i < G_N_ELEMENTS(videos); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(OsrTensor) video = osr_tensor_new(device, OSR_DTYPE_F32, 4, videos[i], NULL);

    g_assert_null(osr_vae_encode(vae, video, OSR_VAE_TILING_OFF, NULL, NULL, NULL, &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_SHAPE);
  }
  for (guint i = 0; i < G_N_ELEMENTS(latents); i++) {
    g_autoptr(GError) error = NULL;
    g_autoptr(OsrTensor) z = osr_tensor_new(device, OSR_DTYPE_F32, 4, latents[i], NULL);

    g_assert_null(osr_vae_decode(vae, z, OSR_VAE_TILING_OFF, NULL, NULL, NULL, &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_SHAPE);
  }
}

static void
test_half_loaded(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(Golden) golden = golden_open("vae-t5");
  OsrVaeConfig config = config_of(golden);
  g_autoptr(OsrTensor) video = clip_of(golden, "in.video", device);
  g_autoptr(OsrTensor) z = clip_of(golden, "in.latent", device);
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrVae) encoder = NULL;
  g_autoptr(OsrVae) decoder = NULL;
  OsrLoader loader;

  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  encoder = osr_vae_load(&config, TRUE, FALSE, &loader, &error);
  g_assert_no_error(error);
  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  decoder = osr_vae_load(&config, FALSE, TRUE, &loader, &error);
  g_assert_no_error(error);

  g_assert_null(osr_vae_decode(encoder, z, OSR_VAE_TILING_OFF, NULL, NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_clear_error(&error);
  g_assert_null(osr_vae_encode(decoder, video, OSR_VAE_TILING_OFF, NULL, NULL, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
}

static void
assert_load_fails(const OsrVaeConfig *config, gint code, const char *needle)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(Golden) golden = golden_open("vae-t5");
  g_autoptr(GError) error = NULL;
  guint64 before = allocated(device);

  g_assert_null(load(golden, config, device, &error));
  g_assert_error(error, OSR_ERROR, code);
  g_test_message("%s", error->message);
  g_assert_nonnull(strstr(error->message, needle));
  g_assert_cmpuint(allocated(device), ==, before);
}

static void
test_load_errors(void)
{
  g_autoptr(Golden) golden = golden_open("vae-t5");
  const OsrVaeConfig good = config_of(golden);
  OsrVaeConfig config;

  config = good;
  config.layers_per_block = 2;
  assert_load_fails(&config, OSR_ERROR_NOT_FOUND, "encoder.down_blocks.0.resnets.1.norm1.weight");
  config = good;
  config.latent_channels = 5;
  assert_load_fails(&config, OSR_ERROR_SHAPE, "encoder.conv_out.conv.weight");
  config = good;
  config.norm_num_groups = 3;
  assert_load_fails(&config, OSR_ERROR_INVALID_ARGUMENT, "groups");
  config = good;
  config.time_compression_ratio = 2;
  assert_load_fails(&config, OSR_ERROR_UNSUPPORTED, "compression");
  config = good;
  config.spatial_compression_ratio = 6;
  assert_load_fails(&config, OSR_ERROR_UNSUPPORTED, "compression");
  config = good;
  config.n_blocks = 2;
  assert_load_fails(&config, OSR_ERROR_UNSUPPORTED, "2 blocks");
  config = good;
  config.layers_per_block = 100;
  assert_load_fails(&config, OSR_ERROR_UNSUPPORTED, "100 layers");
  config = good;
  config.in_channels = 0;
  assert_load_fails(&config, OSR_ERROR_INVALID_ARGUMENT, "in_channels");
  config = good;
  config.scale_factor = 0;
  assert_load_fails(&config, OSR_ERROR_INVALID_ARGUMENT, "scaled");
}

/* Tiles whose results would not lie side by side. */
static void
test_tile_errors(void)
{
  g_autoptr(OsrDevice) device = open_device("cpu");
  g_autoptr(Golden) golden = golden_open("vae-tiles-space");
  g_autoptr(OsrTensor) z = clip_of(golden, "in.latent", device);
  const struct {
    guint size;
    double overlap;
  } bad[] = { { 32, 1.0 }, { 32, -0.5 }, { 32, 0.3 },        { 36, 0.25 },
              { 0, 0.25 }, { 4, 0.25 },  { G_MAXUINT, 0.25 } };

  for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
    OsrVaeConfig config = config_of(golden);
    g_autoptr(OsrVae) vae = NULL;
    g_autoptr(GError) error = NULL;

    config.sample_size = bad[i].size;
    config.tile_overlap_factor = bad[i].overlap;
    vae = load(golden, &config, device, &error);
    g_assert_no_error(error);
    g_assert_null(osr_vae_decode(vae, z, OSR_VAE_TILING_SPATIAL, NULL, NULL, NULL, &error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  }
}

static void
add_goldens(void)
{
  const char *const *devices = golden_devices();
  g_autofree char *folder = golden_path("golden", NULL);
  g_autoptr(GError) error = NULL;
  g_autoptr(GDir) dir = g_dir_open(folder, 0, &error);
  const char *file;
  guint n = 0;

  g_assert_no_error(error);
  while ((file = g_dir_read_name(dir))) {
    if (!g_str_has_prefix(file, "vae-") || !g_str_has_suffix(file, ".safetensors"))
      continue;
    n++;
    for (guint i = 0; devices[i]; i++) {
      Case *c = g_new(Case, 1);
      g_autofree char *path = NULL;

      c->device = devices[i];
      c->golden = g_strndup(file, strlen(file) - strlen(".safetensors"));
      path = g_strdup_printf("/vae/golden/%s/%s", c->device, c->golden);
      g_test_add_data_func_full(path, c, test_golden, case_free);
    }
  }
  g_assert_cmpuint(n, >=, 9);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  add_goldens();
  g_test_add_func("/vae/small-tiled", test_small_tiled);
  g_test_add_func("/vae/sample", test_sample);
  for (guint i = 0; i < G_N_ELEMENTS(memory_cases); i++) {
    g_autofree char *path = g_strdup_printf("/vae/memory/%u", i);

    g_test_add_data_func(path, &memory_cases[i], test_memory);
  }
  g_test_add_func("/vae/memory/hunyuan", test_memory_hunyuan);
  g_test_add_func("/vae/progress", test_progress);
  g_test_add_data_func("/vae/cancel/whole", GUINT_TO_POINTER(0), test_cancel);
  g_test_add_data_func("/vae/cancel/tiled", GUINT_TO_POINTER(3), test_cancel);
  g_test_add_func("/vae/cancel/encode", test_encode_cancelled);
  g_test_add_func("/vae/too-little-memory", test_too_little_memory);
  g_test_add_func("/vae/shapes", test_shapes);
  g_test_add_func("/vae/half-loaded", test_half_loaded);
  g_test_add_func("/vae/load-errors", test_load_errors);
  g_test_add_func("/vae/tile-errors", test_tile_errors);
  return g_test_run();
}
