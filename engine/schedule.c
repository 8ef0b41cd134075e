/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * schedule.c: what the sampler knows before it runs: conditions by name, time steps,
 * guidance factors, possible sizes. Values that upstream computes in tensors are f32 here,
 * those that it computes in Python are double.
 */
#include <math.h>

#include "error.h"
#include "model-limits.h"
#include "sampler-private.h"

static const char *const condition_names[] = {
  [OSR_CONDITION_T2V] = "t2v",
  [OSR_CONDITION_I2V_HEAD] = "i2v_head",
  [OSR_CONDITION_I2V_TAIL] = "i2v_tail",
  [OSR_CONDITION_I2V_LOOP] = "i2v_loop",
  [OSR_CONDITION_V2V_HEAD] = "v2v_head",
  [OSR_CONDITION_V2V_TAIL] = "v2v_tail",
  [OSR_CONDITION_V2V_HEAD_EASY] = "v2v_head_easy",
  [OSR_CONDITION_V2V_TAIL_EASY] = "v2v_tail_easy",
};

const char *
osr_condition_name(OsrCondition condition)
{
  g_return_val_if_fail((guint) condition < G_N_ELEMENTS(condition_names), NULL);
  return condition_names[condition];
}

gboolean
osr_condition_from_name(const char *name, OsrCondition *condition)
{
  for (guint i = 0; i < G_N_ELEMENTS(condition_names); i++) {
    if (g_strcmp0(name, condition_names[i]) == 0) {
      *condition = (OsrCondition) i;
      return TRUE;
    }
  }
  return FALSE;
}

/* Entry @i of torch.linspace(start, end, n), which counts from the nearer end. */
static float
linspace(float start, float end, guint n, guint i)
{
  float step;

  if (n < 2)
    return start;
  step = (end - start) / (float) (n - 1);
  return i < n / 2 ? start + step * (float) i : end - step * (float) (n - 1 - i);
}

/* Grows along the line through 1 at 256 and 3 at 4096 tokens of a frame, and with the root
 * of the length. */
static double
estimate_shift(guint tokens_per_frame, guint latent_frames)
{
  double slope = (3.0 - 1.0) / (4096.0 - 256.0);

  return (slope * tokens_per_frame + (1.0 - slope * 256.0)) * sqrt(latent_frames);
}

float *
osr_schedule_new(const OsrSamplingParams *params, guint tokens_per_frame, guint latent_frames)
{
  guint n = params->num_steps + 1;
  float *times = g_new(float, n);
  double alpha = params->flow_shift;

  if (params->shift && alpha == 0)
    alpha = estimate_shift(tokens_per_frame, latent_frames);
  for (guint i = 0; i < n; i++) {
    times[i] = linspace(1.0f, 0.0f, n, i);
    if (params->shift)
      times[i] = (float) alpha * times[i] / (1.0f + (float) (alpha - 1.0) * times[i]);
  }
  return times;
}

/* To the nearest bf16, halves to even ones. */
static float
round_bf16(float x)
{
  union {
    float value;
    guint32 bits;
  } u = { x };

  u.bits = (u.bits + 0x7fff + (u.bits >> 16 & 1)) & 0xffff0000;
  return u.value;
}

float
osr_round_time(float time, OsrDType dtype)
{
  return dtype == OSR_DTYPE_BF16 ? round_bf16(1000.0f * round_bf16(time)) / 1000.0f : time;
}

/* From the tenth step on, every odd step goes without guidance. */
static double
oscillate(double scale, gboolean oscillating, guint step)
{
  return oscillating && step >= 10 && step % 2 == 1 ? 1.0 : scale;
}

static gboolean
condition_is_i2v(OsrCondition condition)
{
  return condition == OSR_CONDITION_I2V_HEAD || condition == OSR_CONDITION_I2V_TAIL ||
         condition == OSR_CONDITION_I2V_LOOP;
}

guint
osr_guidance_weights(const OsrSamplingParams *params, OsrCondition condition, guint step,
                     guint latent_frames, float *weights, gboolean needed[3])
{
  double text = oscillate(params->guidance, params->text_osci, step);
  double image = oscillate(params->guidance_img, params->image_osci, step);
  gboolean scaled = params->scale_temporal_osci && condition_is_i2v(condition) && image > 1.0;
  float top = scaled ? linspace((float) image, 1.0f, params->num_steps + 1, step) : 1.0f;

  needed[0] = needed[1] = needed[2] = FALSE;
  for (guint f = 0; f < latent_frames; f++) {
    /* Without a reference, forwards 1 and 2 are the same: all of it goes to forward 1. */
    double frame_image = condition == OSR_CONDITION_T2V ? 1.0
                         : scaled                       ? linspace(1.0f, top, latent_frames, f)
                                                        : image;
    float w[3] = { (float) text, (float) (frame_image - text), (float) (1.0 - frame_image) };

    for (guint i = 0; i < 3; i++) {
      weights[i * latent_frames + f] = w[i];
      needed[i] |= w[i] != 0.0f;
    }
  }
  return needed[0] + needed[1] + needed[2];
}

static gboolean
check_size(const char *what, guint size, guint unit, GError **error)
{
  const guint most = OSR_MAX_PIXELS;
  guint below = size / unit * unit;

  if (size >= unit && size <= most && size % unit == 0)
    return TRUE;
  if (size < unit || size > most)
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "%s %u is not possible: multiples of %u from %u to %u are", what, size, unit, unit,
                most / unit * unit);
  else
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "%s %u is not possible: multiples of %u are, the nearest being %u and %u", what,
                size, unit, below, below + unit);
  return FALSE;
}

static gboolean
check_frames(guint frames, guint time_ratio, GError **error)
{
  const guint most = OSR_MAX_FRAMES;
  guint below;

  if (time_ratio == 1 && frames != 1) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "%u frames are not possible: this model makes pictures, 1 frame is", frames);
    return FALSE;
  }
  if (frames >= 1 && frames <= most && (frames - 1) % time_ratio == 0)
    return TRUE;
  if (frames < 1 || frames > most) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "%u frames are not possible: 1 and multiples of %u plus 1 are, up to %u", frames,
                time_ratio, most);
    return FALSE;
  }
  below = (frames - 1) / time_ratio * time_ratio + 1;
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
              "%u frames are not possible: 1 and multiples of %u plus 1 are, the nearest being %u "
              "and %u",
              frames, time_ratio, below, below + time_ratio);
  return FALSE;
}

/* Upstream makes every size a multiple of 16, whatever the autoencoder; patches of latent
 * pixels have to fit as well. */
static guint
size_unit(guint spatial_ratio, guint patch_size)
{
  guint unit = spatial_ratio * patch_size, multiple = unit;

  while (multiple % 16 != 0)
    multiple += unit;
  return multiple;
}

gboolean
osr_sampling_params_check(const OsrSamplingParams *params, const OsrMmditConfig *mmdit,
                          guint spatial_ratio, guint time_ratio, GError **error)
{
  guint unit;
  guint64 tokens;

  g_return_val_if_fail(spatial_ratio >= 1 && spatial_ratio <= 1024, FALSE);
  g_return_val_if_fail(time_ratio >= 1 && mmdit->patch_size >= 1, FALSE);

  unit = size_unit(spatial_ratio, mmdit->patch_size);
  if (!check_size("width", params->width, unit, error) ||
      !check_size("height", params->height, unit, error) ||
      !check_frames(params->num_frames, time_ratio, error))
    return FALSE;

  tokens = (guint64) (params->width / spatial_ratio / mmdit->patch_size) *
           (params->height / spatial_ratio / mmdit->patch_size) *
           ((params->num_frames - 1) / time_ratio + 1);
  if (tokens > G_MAXINT32) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "%u frames of %u x %u are %" G_GUINT64_FORMAT " tokens, more than %d",
                params->num_frames, params->width, params->height, tokens, G_MAXINT32);
    return FALSE;
  }
  if (params->num_steps < 1 || params->num_steps > OSR_MAX_STEPS) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "%u steps are not possible: 1 to %u are", params->num_steps, OSR_MAX_STEPS);
    return FALSE;
  }
  if (!isfinite(params->guidance) || !isfinite(params->guidance_img)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "guidance %g and image guidance %g have to be finite", params->guidance,
                params->guidance_img);
    return FALSE;
  }
  if (!isfinite(params->flow_shift) || params->flow_shift < 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "flow shift %g is not possible: 0 (estimate it) and positive numbers are",
                params->flow_shift);
    return FALSE;
  }
  return TRUE;
}
