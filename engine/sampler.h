/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "mmdit.h"

G_BEGIN_DECLS

/* How references condition a clip; upstream's cond_type. */
typedef enum {
  OSR_CONDITION_T2V = 0,
  OSR_CONDITION_I2V_HEAD, /* first frame given */
  OSR_CONDITION_I2V_TAIL, /* last frame given */
  OSR_CONDITION_I2V_LOOP, /* first and last frame given */
  OSR_CONDITION_V2V_HEAD, /* first 9 latent frames given (33 pixel frames) */
  OSR_CONDITION_V2V_TAIL,
  OSR_CONDITION_V2V_HEAD_EASY, /* first 17 latent frames (65 pixel frames) */
  OSR_CONDITION_V2V_TAIL_EASY,
} OsrCondition;

/* "t2v", "i2v_head", ... */
OSR_API const char *osr_condition_name(OsrCondition condition);
OSR_API gboolean osr_condition_from_name(const char *name, OsrCondition *condition);

/* Where noise comes from. */
typedef enum {
  OSR_RNG_PHILOX = 0, /* the same on every device */
  OSR_RNG_TORCH_CUDA, /* torch.randn() of a CUDA generator with that seed, as upstream's: depends on
                       * the number of the GPU's multiprocessors; on CPUs that of an H100 or H200,
                       * to 1e-6 */
} OsrRng;

/**
 * OsrSamplingParams:
 * @width, @height: pixels, multiples of 16 (osr_sampling_params_check())
 * @num_frames: 1 or 4 k + 1
 * @num_steps: Euler steps
 * @guidance: text guidance g_t; 1 = none
 * @guidance_img: image guidance g_i; 1 = none
 * @text_osci, @image_osci: guidance drops to 1 on odd steps from step 10 on
 * @scale_temporal_osci: image guidance falls with the step and rises along the clip (i2v)
 * @shift: apply the resolution and length dependent time shift
 * @flow_shift: the shift's alpha; 0 = upstream's estimate
 * @seed: of the noise
 * @sequence: number of the clip among those with the same seed
 * @rng: where the noise comes from; the sequence-th draw of the generator
 * @use_graphs: record short forwards once and repeat them as one call, where the device can:
 *   the same clip, sooner
 * @round_times: round the time steps on their way into the model as upstream does: no difference
 *   in f32
 * @preview_every: steps from one preview to the next (OsrSamplerProgress); 0 = none. The clip is
 *   the same
 *
 * Upstream's SamplingOption, by its names. OSR_SAMPLING_PARAMS_INIT has its defaults for
 * Open-Sora 2.0 at 256px.
 */
typedef struct {
  guint width, height, num_frames, num_steps;
  double guidance, guidance_img;
  gboolean text_osci, image_osci, scale_temporal_osci;
  gboolean shift;
  double flow_shift;
  guint64 seed;
  guint32 sequence;
  gboolean use_graphs;
  gboolean round_times;
  OsrRng rng;
  guint preview_every;
} OsrSamplingParams;

#define OSR_SAMPLING_PARAMS_INIT                                                                   \
  {                                                                                                \
    .width = 336, .height = 192, .num_frames = 129, .num_steps = 50, .guidance = 7.5,              \
    .guidance_img = 3.0, .text_osci = TRUE, .image_osci = TRUE, .scale_temporal_osci = TRUE,       \
    .shift = TRUE, .flow_shift = 0.0, .seed = 42, .sequence = 0, .use_graphs = TRUE                \
  }

/* The time steps, num_steps + 1 values from 1 down to 0: get_schedule() upstream.
 * @tokens_per_frame: tokens of one latent frame, @latent_frames: T. (transfer full) */
OSR_API float *osr_schedule_new(const OsrSamplingParams *params, guint tokens_per_frame,
                                guint latent_frames);

/* The factors of the three predictions at step @step: text and image guidance as upstream
 * computes them, then pred = sum_i weight_i[frame] * forward_i, for forward 0 = prompt with
 * reference, 1 = negative prompt with reference, 2 = negative prompt without.
 * weights: 3 * latent_frames floats. needed[i] says whether forward i has any non-zero
 * weight; with OSR_CONDITION_T2V forwards 1 and 2 are the same and share weight 1.
 * Returns how many forwards are needed. */
OSR_API guint osr_guidance_weights(const OsrSamplingParams *params, OsrCondition condition,
                                   guint step, guint latent_frames, float *weights,
                                   gboolean needed[3]);

/* What text and images give the sampler. Device tensors in the model's dtype. */
typedef struct {
  OsrTensor *txt, *vec;         /* [1, L_txt, D], [1, Dv] of the prompt */
  OsrTensor *neg_txt, *neg_vec; /* of the negative prompt; NULL where guidance is 1 */
  OsrCondition condition;
  OsrTensor *ref[2];   /* latents [t, h, w, C]; I2V_LOOP takes two, or the first for both ends */
  gboolean keep_video; /* V2V: the result has the frames that were given, too, as I2V always does;
                        * upstream leaves there what the model makes of them */
} OsrSamplerInput;

/**
 * OsrSamplerProgress:
 * @step, @steps: steps done, of all
 * @forwards: transformer forwards so far
 * @elapsed, @remaining: seconds
 * @preview: what the clip would be if the model's last prediction held to the end: the latent
 *   [T, h, w, C] x - t v, with the references in place; of the last step the result itself. NULL
 *   but after every preview_every steps and the last. The sampler's, which writes over it after
 *   the call: to keep it is to copy it (osr_tensor_download(), which waits for the step that may
 *   be under way).
 */
typedef struct {
  guint step, steps;
  guint forwards;
  double elapsed, remaining;
  OsrTensor *preview;
} OsrSamplerProgress;

/* Called for every step when the device has done it, on the calling thread. The step after it
 * may be under way. */
typedef void (*OsrSamplerCallback)(const OsrSamplerProgress *progress, gpointer user_data);

/* Checks sizes against what the models can do; says which are possible. */
OSR_API gboolean osr_sampling_params_check(const OsrSamplingParams *params,
                                           const OsrMmditConfig *mmdit, guint spatial_ratio,
                                           guint time_ratio, GError **error);

/* Runs the denoising loop: a latent [T, h, w, C] ready for osr_vae_decode(). @latent_dims:
 * T, h, w, C. References replace their frames in the result as upstream does. All steps are
 * done on return. When cancelled it returns within a block of the model, or within a step
 * where that takes less than half a second, and leaves what is enqueued to run.
 * @noise: starting point [T, h, w, C] or NULL to draw it from the seed. */
OSR_API OsrTensor *osr_sampler_run(OsrMmdit *mmdit, const OsrSamplingParams *params,
                                   const OsrSamplerInput *input, const guint latent_dims[4],
                                   OsrTensor *noise, OsrSamplerCallback callback,
                                   gpointer user_data, GCancellable *cancellable, GError **error);

G_END_DECLS
