/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tool.h"

GOptionGroup *
tool_clip_options(ToolClip *clip)
{
  /* Prompts are taken as file names are, as the bytes they come in: UTF-8 in any locale. */
  const GOptionEntry entries[] = {
    { "model", 'm', 0, G_OPTION_ARG_FILENAME, &clip->model, "model folder", "DIR" },
    { "device", 'd', 0, G_OPTION_ARG_STRING, &clip->device, "auto (default), cpu, cuda:N or ref",
      "NAME" },
    { "dtype", 0, 0, G_OPTION_ARG_STRING, &clip->dtype, "F32 or BF16 (default: the device's)",
      "TYPE" },
    { "prompt", 'p', 0, G_OPTION_ARG_FILENAME, &clip->prompt, "what the clip shows", "TEXT" },
    { "negative-prompt", 0, 0, G_OPTION_ARG_FILENAME, &clip->negative, "what it does not show",
      "TEXT" },
    { "width", 0, 0, G_OPTION_ARG_INT, &clip->width, "pixels", "N" },
    { "height", 0, 0, G_OPTION_ARG_INT, &clip->height, "pixels", "N" },
    { "num-frames", 'n', 0, G_OPTION_ARG_INT, &clip->num_frames, "frames of the clip", "N" },
    { "steps", 's', 0, G_OPTION_ARG_INT, &clip->steps, "denoising steps", "N" },
    { "guidance", 'g', 0, G_OPTION_ARG_DOUBLE, &clip->guidance, "text guidance, 1 for none", "G" },
    { "seed", 0, 0, G_OPTION_ARG_INT64, &clip->seed, "of the noise", "N" },
    { "tiling", 0, 0, G_OPTION_ARG_STRING, &clip->tiling,
      "of the decoder: off (default), spatial, temporal or both", "HOW" },
    { "no-graphs", 0, 0, G_OPTION_ARG_NONE, &clip->no_graphs,
      "on a GPU: make every forward call by call, without CUDA graphs", NULL },
    { "threads", 't', 0, G_OPTION_ARG_INT, &clip->threads,
      "CPU threads, 1 to " G_STRINGIFY(OSR_DEVICE_MAX_THREADS) " (default: all)", "N" },
    G_OPTION_ENTRY_NULL,
  };
  GOptionGroup *group = g_option_group_new(
      "clip", "Clip (defaults are the model's):", "Options of the clip", NULL, NULL);

  g_option_group_add_entries(group, entries);
  return group;
}

void
tool_clip_clear(ToolClip *clip)
{
  g_free(clip->model);
  g_free(clip->device);
  g_free(clip->dtype);
  g_free(clip->prompt);
  g_free(clip->negative);
  g_free(clip->tiling);
}

gboolean
tool_tiling_from_name(const char *name, OsrVaeTiling *tiling, GError **error)
{
  const struct {
    const char *name;
    OsrVaeTiling tiling;
  } names[] = {
    { "off", OSR_VAE_TILING_OFF },
    { "spatial", OSR_VAE_TILING_SPATIAL },
    { "temporal", OSR_VAE_TILING_TEMPORAL },
    { "both", OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL },
  };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    if (!name || g_str_equal(name, names[i].name)) {
      *tiling = names[i].tiling;
      return TRUE;
    }
  }
  tool_usage_error(error, "--tiling is off, spatial, temporal or both, not '%s'", name);
  return FALSE;
}

gboolean
tool_check_threads(int threads, GError **error)
{
  if (threads >= 0 && threads <= OSR_DEVICE_MAX_THREADS)
    return TRUE;
  tool_usage_error(error, "--threads is 1 to %d, not %d", OSR_DEVICE_MAX_THREADS, threads);
  return FALSE;
}

static gboolean
check_options(const ToolClip *clip, GError **error)
{
  const struct {
    const char *name;
    double value, least;
  } numbers[] = {
    { "width", clip->width, 0 },           { "height", clip->height, 0 },
    { "num-frames", clip->num_frames, 0 }, { "steps", clip->steps, 0 },
    { "guidance", clip->guidance, 0 },     { "seed", (double) clip->seed, -1 },
  };

  for (guint i = 0; i < G_N_ELEMENTS(numbers); i++) {
    if (!(numbers[i].value >= numbers[i].least)) {
      tool_usage_error(error, "--%s cannot be %g", numbers[i].name, numbers[i].value);
      return FALSE;
    }
  }
  return tool_check_threads(clip->threads, error);
}

gboolean
tool_clip_params(const ToolClip *clip, const OsrModelDir *dir, OsrSamplingParams *params,
                 GError **error)
{
  if (!check_options(clip, error))
    return FALSE;
  *params = dir->sampling;
  if (clip->width > 0)
    params->width = (guint) clip->width;
  if (clip->height > 0)
    params->height = (guint) clip->height;
  if (clip->num_frames > 0)
    params->num_frames = (guint) clip->num_frames;
  if (clip->steps > 0)
    params->num_steps = (guint) clip->steps;
  if (clip->guidance > 0)
    params->guidance = clip->guidance;
  if (clip->seed >= 0)
    params->seed = (guint64) clip->seed;
  params->use_graphs = !clip->no_graphs;
  return osr_sampling_params_check(params, &dir->mmdit, dir->vae.spatial_compression_ratio,
                                   dir->vae.time_compression_ratio, error);
}

OsrModel *
tool_clip_open(const ToolClip *clip, OsrSamplingParams *params, OsrVaeTiling *tiling,
               GError **error)
{
  g_autoptr(OsrDevice) device = NULL;
  g_autoptr(OsrModel) model = NULL;
  OsrDType dtype;

  if (!tool_tiling_from_name(clip->tiling, tiling, error) || !check_options(clip, error))
    return NULL;
  device = osr_device_get(clip->device ? clip->device : "auto", error);
  if (!device)
    return NULL;
  if (!osr_device_set_threads(device, clip->threads, error))
    return NULL;
  dtype = osr_device_get_dtype(device);
  if (clip->dtype && !osr_dtype_from_name(clip->dtype, &dtype)) {
    tool_usage_error(error, "--dtype is F32 or BF16, not '%s'", clip->dtype);
    return NULL;
  }
  model = osr_model_get_as(clip->model, device, dtype, error);
  if (!model || !tool_clip_params(clip, osr_model_get_dir(model), params, error))
    return NULL;
  return g_steal_pointer(&model);
}

/* The clip's way through the stages. */
typedef struct {
  OsrModel *model;
  ToolProgress progress;
  gpointer user_data;
  ToolStats *stats;
  Stage stage;
  gint64 start;
} Way;

static void
begin(Way *way, Stage stage)
{
  way->stage = stage;
  osr_pool_reset_peak(osr_device_get_pool(osr_model_get_device(way->model)));
  way->start = g_get_monotonic_time();
}

static gboolean
end(Way *way, GError **error)
{
  OsrDevice *device = osr_model_get_device(way->model);
  OsrPoolStats stats;

  if (!osr_device_synchronize(device, error))
    return FALSE;
  way->stats->seconds[way->stage] += (double) (g_get_monotonic_time() - way->start) * 1e-6;
  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  way->stats->peak[way->stage] = MAX(way->stats->peak[way->stage], stats.peak_allocated);
  return TRUE;
}

static void
on_step(const OsrSamplerProgress *progress, gpointer user_data)
{
  Way *way = user_data;

  way->stats->forwards = progress->forwards;
  if (way->progress)
    way->progress(STAGE_DENOISE, (double) progress->step / progress->steps, progress->remaining,
                  way->user_data);
}

static void
on_decoded(double fraction, gpointer user_data)
{
  Way *way = user_data;
  double elapsed = (double) (g_get_monotonic_time() - way->start) * 1e-6;

  if (way->progress)
    way->progress(STAGE_DECODE, fraction, fraction > 0 ? elapsed * (1 / fraction - 1) : 0,
                  way->user_data);
}

/* All parts that a clip from text needs. The text encoders are loaded by a first text. */
static gboolean
load(Way *way, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrTensor) txt = NULL;
  g_autoptr(OsrTensor) vec = NULL;

  begin(way, STAGE_LOAD);
  return osr_model_encode_text(way->model, "", &txt, &vec, NULL, cancellable, error) &&
         osr_model_get_mmdit(way->model, cancellable, error) &&
         osr_model_get_vae_decoder(way->model, cancellable, error) && end(way, error);
}

static void
input_clear(OsrSamplerInput *input)
{
  g_clear_pointer(&input->txt, osr_tensor_unref);
  g_clear_pointer(&input->vec, osr_tensor_unref);
  g_clear_pointer(&input->neg_txt, osr_tensor_unref);
  g_clear_pointer(&input->neg_vec, osr_tensor_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(OsrSamplerInput, input_clear)

static gboolean
encode(Way *way, const char *prompt, const char *negative, OsrSamplerInput *input,
       GCancellable *cancellable, GError **error)
{
  const OsrModelDir *dir = osr_model_get_dir(way->model);
  /* Pictures neither move nor follow each other. */
  g_autofree char *text = dir->vae.type == OSR_VAE_FLUX
                              ? g_strdup(prompt)
                              : osr_prompt_decorate(prompt, dir->fps, dir->motion_score);

  begin(way, STAGE_TEXT);
  return osr_model_encode_text(way->model, text, &input->txt, &input->vec, &way->stats->truncated,
                               cancellable, error) &&
         osr_model_encode_text(way->model, negative ? negative : "", &input->neg_txt,
                               &input->neg_vec, NULL, cancellable, error) &&
         end(way, error);
}

static OsrTensor *
denoise(Way *way, const OsrSamplingParams *params, const OsrSamplerInput *input,
        GCancellable *cancellable, GError **error)
{
  OsrMmdit *mmdit = osr_model_get_mmdit(way->model, cancellable, error);
  g_autoptr(OsrTensor) latent = NULL;
  guint dims[4];

  if (!mmdit)
    return NULL;
  osr_model_latent_dims(way->model, params->num_frames, params->width, params->height, dims);
  begin(way, STAGE_DENOISE);
  latent = osr_sampler_run(mmdit, params, input, dims, NULL, on_step, way, cancellable, error);
  return latent && end(way, error) ? g_steal_pointer(&latent) : NULL;
}

static OsrTensor *
decode(Way *way, OsrTensor *latent, OsrVaeTiling tiling, GCancellable *cancellable, GError **error)
{
  OsrVae *vae = osr_model_get_vae_decoder(way->model, cancellable, error);
  g_autoptr(OsrTensor) video = NULL;

  if (!vae)
    return NULL;
  begin(way, STAGE_DECODE);
  video = osr_vae_decode(vae, latent, tiling, on_decoded, way, cancellable, error);
  return video && end(way, error) ? g_steal_pointer(&video) : NULL;
}

/* Packed planes of one frame in one allocation. */
static guint8 *
picture_init(OsrPicture *picture, OsrPixelFormat format, guint width, guint height)
{
  gsize w = width, h = height, half_w = (w + 1) / 2, half_h = (h + 1) / 2;
  guint8 *data;

  *picture = (OsrPicture){
    .format = format,
    .matrix = OSR_MATRIX_BT601,
    .width = width,
    .height = height,
  };
  if (format == OSR_PIXEL_RGB) {
    picture->planes[0] = data = g_malloc(w * h * 3);
    picture->strides[0] = (int) w * 3;
    return data;
  }
  picture->planes[0] = data = g_malloc(w * h + 2 * half_w * half_h);
  picture->planes[1] = data + w * h;
  picture->planes[2] = picture->planes[1] + half_w * half_h;
  picture->strides[0] = (int) w;
  picture->strides[1] = picture->strides[2] = (int) half_w;
  return data;
}

static gboolean
convert(Way *way, OsrTensor *video, OsrPixelFormat format, ToolFrame frame,
        GCancellable *cancellable, GError **error)
{
  OsrPicture picture;
  G_GNUC_UNUSED g_autofree guint8 *data =
      picture_init(&picture, format, (guint) video->dims[2], (guint) video->dims[1]);

  begin(way, STAGE_FRAMES);
  for (guint i = 0; i < video->dims[0]; i++) {
    if (g_cancellable_set_error_if_cancelled(cancellable, error) ||
        !osr_video_get_picture(video, i, &picture, error) ||
        (frame && !frame(&picture, i, way->user_data, error)))
      return FALSE;
  }
  return end(way, error);
}

gboolean
tool_clip_make(OsrModel *model, const char *prompt, const char *negative,
               const OsrSamplingParams *params, OsrVaeTiling tiling, OsrPixelFormat format,
               ToolFrame frame, ToolProgress progress, gpointer user_data, ToolStats *stats,
               GCancellable *cancellable, GError **error)
{
  Way way = { .model = model, .progress = progress, .user_data = user_data, .stats = stats };
  g_auto(OsrSamplerInput) input = { .condition = OSR_CONDITION_T2V };
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(OsrTensor) video = NULL;

  *stats = (ToolStats){ 0 };
  if (!load(&way, cancellable, error) ||
      !encode(&way, prompt, negative, &input, cancellable, error))
    return FALSE;
  latent = denoise(&way, params, &input, cancellable, error);
  if (!latent)
    return FALSE;
  video = decode(&way, latent, tiling, cancellable, error);
  return video && convert(&way, video, format, frame, cancellable, error);
}
