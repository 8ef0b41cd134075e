/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vae-private.h"

OsrVaeNet *
osr_vae_encoder_new(const OsrVaeConfig *config, OsrLoader *loader)
{
  OsrVaeNet *net = g_new0(OsrVaeNet, 1);
  const guint n = config->n_blocks, groups = config->norm_num_groups;
  const OsrVaeNames *names = osr_vae_names(config);
  const int moments = 2 * (int) config->latent_channels;
  int c_in = (int) config->block_out_channels[0];

  net->name = "encoder";
  net->n_stages = n;
  osr_vae_conv_init(&net->conv_in, config, (int) config->in_channels, c_in, 3, loader, "encoder.%s",
                    names->conv_in);
  for (guint i = 0; i < n; i++) {
    int time = osr_vae_time_factor(config, i), space = osr_vae_space_factor(config, i);
    int c_out = (int) config->block_out_channels[i];
    OsrVaeStage *stage = &net->stages[i];
    char name[48];

    g_snprintf(name, sizeof name, "encoder.%s.%u", names->down, i);
    osr_vae_stage_init(stage, config, name, c_in, c_out, config->layers_per_block, loader);
    if (time * space > 1) {
      osr_vae_conv_init(&stage->resize, config, c_out, c_out, 3, loader, "%s.%s", name,
                        names->downsample);
      stage->resize.stride_t = time;
      stage->resize.stride_hw = space;
    }
    c_in = c_out;
  }
  osr_vae_mid_init(net, config, c_in, loader);
  osr_vae_norm_init(&net->norm_out, c_in, groups, loader, "encoder.%s", names->norm_out);
  osr_vae_conv_init(&net->conv_out, config, c_in, moments, 3, loader, "encoder.%s",
                    names->conv_out);
  if (config->type != OSR_VAE_FLUX)
    osr_vae_conv_init(&net->quant, config, moments, moments, 1, loader, "quant_conv");
  return net;
}

OsrVaeMap
osr_vae_encoder_forward(OsrVaeRun *run, const OsrVaeNet *net, const OsrVaeMap *video)
{
  OsrVaeMap x, moments;

  osr_vae_run_begin(run, "encoder.conv_in");
  x = osr_vae_conv(run, &net->conv_in, video);
  osr_vae_run_end(run);

  for (guint i = 0; i < net->n_stages; i++)
    x = osr_vae_stage(run, &net->stages[i], x);
  x = osr_vae_mid(run, net, x);

  osr_vae_run_begin(run, "encoder.conv_out");
  moments = osr_vae_head(run, net, x);
  if (net->quant.c_in) {
    x = moments;
    moments = osr_vae_conv(run, &net->quant, &x);
    osr_vae_map_free(run, &x);
  }
  osr_vae_run_end(run);
  return moments;
}

OsrTensor *
osr_vae_posterior(OsrVae *vae, OsrTensor *moments, OsrTensor *noise, GError **error)
{
  G_GNUC_UNUSED g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(vae->device, NULL, NULL);
  const gint64 *d = moments->dims;
  const gint64 dims[] = { d[0], d[1], d[2], d[3] / 2 };
  g_autoptr(OsrTensor) latent = osr_tensor_new(vae->device, vae->dtype, 4, dims, error);
  OsrRun run = osr_run_start(vae->device, vae->dtype);

  if (!latent)
    return NULL;
  osr_run(&run, gaussian,
          &(OsrGaussian){
              .dtype = vae->dtype,
              .m = d[0] * d[1] * d[2],
              .c = (int) dims[3],
              .moments = moments->data,
              .noise = osr_tensor_data(noise),
              .scale = (float) vae->config.scale_factor,
              .shift = (float) vae->config.shift_factor,
              .y = latent->data,
          });
  return osr_run_check(&run, error, "vae: posterior") ? g_steal_pointer(&latent) : NULL;
}

/* A draw from the posterior with the noise of @seed. */
static OsrTensor *
sample(OsrVae *vae, OsrTensor *moments, guint64 seed, GError **error)
{
  G_GNUC_UNUSED g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(vae->device, NULL, NULL);
  const gint64 *d = moments->dims;
  const gint64 dims[] = { d[0], d[1], d[2], d[3] / 2 };
  g_autoptr(OsrTensor) noise = osr_tensor_new(vae->device, vae->dtype, 4, dims, error);
  OsrRun run = osr_run_start(vae->device, vae->dtype);

  if (!noise)
    return NULL;
  osr_run(&run, randn,
          &(OsrRandn){
              .dtype = vae->dtype,
              .seed = seed,
              .t = (int) dims[0],
              .h = (int) dims[1],
              .w = (int) dims[2],
              .c = (int) dims[3],
              .y = noise->data,
          });
  if (!osr_run_check(&run, error, "vae: noise of the posterior"))
    return NULL;
  return osr_vae_posterior(vae, moments, noise, error);
}

static gboolean
check_video(const OsrVae *vae, const OsrTensor *video, GError **error)
{
  const guint time = vae->config.time_compression_ratio;
  const guint space = vae->config.spatial_compression_ratio;
  const gint64 *d = video->dims;
  g_autofree char *text = NULL;

  if (video->n_dims == 4 && d[0] >= 1 && d[0] <= OSR_VAE_MAX_SIZE && (d[0] - 1) % time == 0 &&
      d[1] >= 1 && d[1] <= OSR_VAE_MAX_SIZE && d[1] % space == 0 && d[2] >= 1 &&
      d[2] <= OSR_VAE_MAX_SIZE && d[2] % space == 0 && d[3] == vae->config.in_channels)
    return TRUE;
  text = osr_dims_to_string(video->n_dims, d);
  g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
              "vae: cannot encode a video %s: it has to be [T, H, W, %u], T one more than a "
              "multiple of %u, H and W multiples of %u, none above %d",
              text, vae->config.in_channels, time, space, OSR_VAE_MAX_SIZE);
  return FALSE;
}

OsrTensor *
osr_vae_encode(OsrVae *vae, OsrTensor *video, OsrVaeTiling tiling, const guint64 *seed,
               OsrTensor **moments, GCancellable *cancellable, GError **error)
{
  OsrVaeRun run = osr_vae_run_real(vae, cancellable);
  g_autoptr(OsrTensor) input = NULL;
  g_autoptr(OsrTensor) raw = NULL;
  OsrTensor *latent;
  OsrVaeMap x;

  if (!vae->encoder) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "vae: the encoder is not loaded");
    return NULL;
  }
  if (!check_video(vae, video, error))
    return NULL;
  input = osr_tensor_convert(video, vae->device, vae->dtype, error);
  if (!input)
    return NULL;

  x = (OsrVaeMap){
    .t = (int) input->dims[0],
    .h = (int) input->dims[1],
    .w = (int) input->dims[2],
    .c = (int) input->dims[3],
    .tensor = input,
  };
  raw = osr_vae_run_tiled(&run, &vae->config, vae->encoder, FALSE, tiling, &x).tensor;
  if (run.error) {
    g_propagate_error(error, run.error);
    return NULL;
  }
  latent = seed ? sample(vae, raw, *seed, error) : osr_vae_posterior(vae, raw, NULL, error);
  if (latent && moments)
    *moments = g_steal_pointer(&raw);
  return latent;
}
