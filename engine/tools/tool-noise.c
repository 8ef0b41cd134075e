/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tool-noise.c: the noise that a seed stands for, as a file, to compare it with others'.
 */
#include "tool.h"

typedef struct {
  char *device, *rng, *output;
  gint64 seed;
  int call, channels, frames, height, width, blocks;
} Noise;

static void
noise_clear(Noise *self)
{
  g_free(self->device);
  g_free(self->rng);
  g_free(self->output);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Noise, noise_clear)

static gboolean
check_options(const Noise *self, gboolean torch, GError **error)
{
  if (self->rng && !torch && !g_str_equal(self->rng, "philox")) {
    tool_usage_error(error, "--rng is philox or torch-cuda, not '%s'", self->rng);
    return FALSE;
  }
  if (self->seed < 0 || self->call < 0 || self->blocks < 0 || self->channels < 1 ||
      self->frames < 1 || self->height < 1 || self->width < 1) {
    tool_usage_error(error, "sizes are positive; --seed, --call and --blocks not negative");
    return FALSE;
  }
  if (!self->output) {
    tool_usage_error(error, "--output is needed");
    return FALSE;
  }
  return TRUE;
}

/* [T, H, W, C] -> [1, C, T, H, W]: the order of the draws. */
static OsrTensor *
channels_first(const Noise *self, const float *noise, GError **error)
{
  g_autoptr(OsrDevice) host = osr_device_get("cpu", error);
  const gint64 dims[] = { 1, self->channels, self->frames, self->height, self->width };
  const gint64 positions = dims[2] * dims[3] * dims[4];
  g_autofree float *sorted = g_new(float, positions *dims[1]);

  for (gint64 c = 0; c < dims[1]; c++)
    for (gint64 i = 0; i < positions; i++)
      sorted[c * positions + i] = noise[i * dims[1] + c];
  return host ? osr_tensor_new_from_host(host, OSR_DTYPE_F32, 5, dims, sorted, error) : NULL;
}

static OsrTensor *
draw(const Noise *self, gboolean torch, GError **error)
{
  g_autoptr(OsrDevice) device = osr_device_get(self->device ? self->device : "auto", error);
  const gint64 dims[] = { self->frames, self->height, self->width, self->channels };
  g_autoptr(OsrTensor) noise = NULL;
  g_autofree float *values = NULL;
  gboolean ok;

  if (!device)
    return NULL;
  noise = osr_tensor_new(device, OSR_DTYPE_F32, 4, dims, error);
  if (!noise)
    return NULL;
  osr_device_lock(device);
  ok = osr_device_check(
      device,
      osr_device_get_ops(device)->randn(osr_device_get_context(device),
                                        &(OsrRandn){
                                            .dtype = OSR_DTYPE_F32,
                                            .seed = (guint64) self->seed,
                                            .sequence = (guint32) self->call,
                                            .torch_blocks = !torch         ? 0
                                                            : self->blocks ? self->blocks
                                                                           : OSR_RANDN_THIS_GPU,
                                            .t = self->frames,
                                            .h = self->height,
                                            .w = self->width,
                                            .c = self->channels,
                                            .y = noise->data,
                                        }),
      "noise", error);
  osr_device_unlock(device);
  values = g_malloc(noise->size);
  if (!ok || !osr_tensor_download(noise, values, noise->size, error))
    return NULL;
  return channels_first(self, values, error);
}

gboolean
tool_noise(int argc, char **argv, G_GNUC_UNUSED GCancellable *cancellable, GError **error)
{
  g_auto(Noise) self = { .seed = 42, .channels = 16, .frames = 33, .height = 24, .width = 42 };
  const GOptionEntry entries[] = {
    { "device", 'd', 0, G_OPTION_ARG_STRING, &self.device, "auto (default), cpu, cuda:N or ref",
      "NAME" },
    { "rng", 0, 0, G_OPTION_ARG_STRING, &self.rng, "philox (default) or torch-cuda", "NAME" },
    { "seed", 0, 0, G_OPTION_ARG_INT64, &self.seed, "42 without it", "N" },
    { "call", 0, 0, G_OPTION_ARG_INT, &self.call, "the N-th draw of the generator, from 0", "N" },
    { "channels", 0, 0, G_OPTION_ARG_INT, &self.channels, "of the latent (16)", "N" },
    { "frames", 0, 0, G_OPTION_ARG_INT, &self.frames, "of the latent (33)", "N" },
    { "height", 0, 0, G_OPTION_ARG_INT, &self.height, "of the latent (24)", "N" },
    { "width", 0, 0, G_OPTION_ARG_INT, &self.width, "of the latent (42)", "N" },
    { "blocks", 0, 0, G_OPTION_ARG_INT, &self.blocks,
      "torch-cuda as on a GPU that runs N blocks of 256 threads at once (this one; on a CPU 1056, "
      "an H100)",
      "N" },
    { "output", 'o', 0, G_OPTION_ARG_FILENAME, &self.output,
      "safetensors file for the tensor noise, [1, C, T, H, W] in f32", "FILE" },
    G_OPTION_ENTRY_NULL,
  };
  static const char *const name = "noise";
  g_autoptr(OsrTensor) noise = NULL;
  gboolean torch;

  if (!tool_parse(argc, argv, NULL, "Writes the noise of a seed to a file.", NULL, entries, NULL,
                  NULL, error))
    return FALSE;
  torch = g_strcmp0(self.rng, "torch-cuda") == 0;
  if (!check_options(&self, torch, error))
    return FALSE;
  noise = draw(&self, torch, error);
  return noise && osr_checkpoint_write(self.output, 1, &name, &noise, NULL, error);
}
