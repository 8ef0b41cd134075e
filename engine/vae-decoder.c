/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "vae-private.h"

OsrVaeNet *
osr_vae_decoder_new(const OsrVaeConfig *config, OsrLoader *loader)
{
  OsrVaeNet *net = g_new0(OsrVaeNet, 1);
  const guint n = config->n_blocks, groups = config->norm_num_groups;
  const OsrVaeNames *names = osr_vae_names(config);
  const int latent = (int) config->latent_channels;
  int c_in = (int) config->block_out_channels[n - 1];

  net->name = "decoder";
  net->n_stages = n;
  net->scale = (float) (1.0 / config->scale_factor);
  net->shift = (float) config->shift_factor;
  if (config->type != OSR_VAE_FLUX)
    osr_vae_conv_init(&net->quant, config, latent, latent, 1, loader, "post_quant_conv");
  osr_vae_conv_init(&net->conv_in, config, latent, c_in, 3, loader, "decoder.%s", names->conv_in);
  osr_vae_mid_init(net, config, c_in, loader);
  for (guint i = 0; i < n; i++) {
    int time = osr_vae_time_factor(config, i), space = osr_vae_space_factor(config, i);
    int c_out = (int) config->block_out_channels[n - 1 - i];
    OsrVaeStage *stage = &net->stages[i];
    char name[48];

    /* FLUX counts from the picture, HunyuanVideo from the latent. */
    g_snprintf(name, sizeof name, "decoder.%s.%u", names->up,
               config->type == OSR_VAE_FLUX ? n - 1 - i : i);
    osr_vae_stage_init(stage, config, name, c_in, c_out, config->layers_per_block + 1, loader);
    if (time * space > 1) {
      osr_vae_conv_init(&stage->resize, config, c_out, c_out, 3, loader, "%s.%s", name,
                        names->upsample);
      stage->resize.up_t = time;
      stage->resize.up_hw = space;
    }
    c_in = c_out;
  }
  osr_vae_norm_init(&net->norm_out, c_in, groups, loader, "decoder.%s", names->norm_out);
  osr_vae_conv_init(&net->conv_out, config, c_in, (int) config->out_channels, 3, loader,
                    "decoder.%s", names->conv_out);
  return net;
}

/* Latents come scaled. */
static OsrVaeMap
unscale(OsrVaeRun *run, const OsrVaeNet *net, const OsrVaeMap *latent)
{
  OsrVaeMap z = osr_vae_map_new(run, latent->t, latent->h, latent->w, latent->c);

  if (osr_vae_run_active(run))
    osr_run(&run->ops, affine,
            &(OsrAffine){
                .dtype = run->ops.dtype,
                .n = osr_tensor_n_elements(z.tensor),
                .a = net->scale,
                .b = net->shift,
                .x = latent->tensor->data,
                .y = z.tensor->data,
            });
  return z;
}

OsrVaeMap
osr_vae_decoder_forward(OsrVaeRun *run, const OsrVaeNet *net, const OsrVaeMap *latent)
{
  OsrVaeMap x, z;

  osr_vae_run_begin(run, "decoder.conv_in");
  z = unscale(run, net, latent);
  if (net->quant.c_in) {
    x = osr_vae_conv(run, &net->quant, &z);
    osr_vae_map_free(run, &z);
    z = x;
  }
  x = osr_vae_conv(run, &net->conv_in, &z);
  osr_vae_map_free(run, &z);
  osr_vae_run_end(run);

  x = osr_vae_mid(run, net, x);
  for (guint i = 0; i < net->n_stages; i++)
    x = osr_vae_stage(run, &net->stages[i], x);

  osr_vae_run_begin(run, "decoder.conv_out");
  x = osr_vae_head(run, net, x);
  osr_vae_run_end(run);
  return x;
}

/* Largest latent whose video stays within OSR_VAE_MAX_SIZE. */
static gboolean
size_is_possible(const OsrVaeConfig *config, gint64 t, gint64 h, gint64 w)
{
  const gint64 time = OSR_VAE_MAX_SIZE / config->time_compression_ratio;
  const gint64 space = OSR_VAE_MAX_SIZE / config->spatial_compression_ratio;

  return t >= 1 && t <= time && h >= 1 && h <= space && w >= 1 && w <= space;
}

static gboolean
check_latent(const OsrVae *vae, const OsrTensor *latent, GError **error)
{
  const gint64 *d = latent->dims;
  g_autofree char *text = NULL;

  if (latent->n_dims == 4 && size_is_possible(&vae->config, d[0], d[1], d[2]) &&
      d[3] == vae->config.latent_channels)
    return TRUE;
  text = osr_dims_to_string(latent->n_dims, d);
  g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
              "vae: cannot decode a latent %s: it has to be [t, h, w, %u], and no side of the "
              "video above %d",
              text, vae->config.latent_channels, OSR_VAE_MAX_SIZE);
  return FALSE;
}

OsrTensor *
osr_vae_decode(OsrVae *vae, OsrTensor *latent, OsrVaeTiling tiling, OsrProgress progress,
               gpointer user_data, GCancellable *cancellable, GError **error)
{
  OsrVaeRun run = osr_vae_run_real(vae, cancellable);
  g_autoptr(OsrTensor) input = NULL;
  g_autoptr(OsrTensor) video = NULL;
  OsrVaeCost cost;
  OsrVaeMap z;

  if (!vae->decoder) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "vae: the decoder is not loaded");
    return NULL;
  }
  if (!check_latent(vae, latent, error))
    return NULL;
  input = osr_tensor_convert(latent, vae->device, vae->dtype, error);
  if (!input)
    return NULL;

  z = (OsrVaeMap){
    .t = (int) input->dims[0],
    .h = (int) input->dims[1],
    .w = (int) input->dims[2],
    .c = (int) input->dims[3],
    .tensor = input,
  };
  if (!osr_vae_cost(&vae->config, TRUE, tiling, vae->dtype, (guint) z.t, (guint) z.h, (guint) z.w,
                    &cost, error))
    return NULL;
  run.total_flops = cost.flops;
  run.progress = progress;
  run.user_data = user_data;
  video = osr_vae_run_tiled(&run, &vae->config, vae->decoder, TRUE, tiling, &z).tensor;
  if (progress)
    osr_vae_run_finish(&run);
  if (run.error) {
    g_propagate_error(error, run.error);
    return NULL;
  }
  if (progress)
    progress(1.0, user_data);
  return g_steal_pointer(&video);
}

guint64
osr_vae_decode_memory(const OsrVaeConfig *config, guint t, guint h, guint w)
{
  OsrVaeCost cost;

  if (!size_is_possible(config, t, h, w) ||
      !osr_vae_cost(config, TRUE, OSR_VAE_TILING_OFF, OSR_DTYPE_F32, t, h, w, &cost, NULL))
    return G_MAXUINT64;
  return cost.peak_bytes;
}
