/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sampler.c: a clip by the rectified flow of Open-Sora 2.0, Euler steps with guidance of text
 * and image: checks, preparation and result. The loop is in sampler-loop.c.
 *
 * Everything a step needs is on the device before the first one: embeddings, conditions, time
 * and guidance factors of all steps.
 */
#include "sampler.h"

#include "mmdit-private.h"
#include "sampler-loop.h"

/* Latent frames that a v2v condition gives. */
#define V2V_FRAMES 9
#define V2V_EASY_FRAMES 17

static void
sampler_clear(OsrSampler *s)
{
  for (guint slot = 0; slot < 3; slot++)
    for (guint n = 0; n < 3; n++)
      osr_sampler_kind_clear(&s->kinds[slot][n]);
  g_clear_pointer(&s->arena, osr_pool_arena_free);
  g_clear_pointer(&s->txt, osr_tensor_unref);
  g_clear_pointer(&s->vec, osr_tensor_unref);
  g_clear_pointer(&s->cond, osr_tensor_unref);
  g_clear_pointer(&s->x, osr_tensor_unref);
  g_clear_pointer(&s->batch, osr_tensor_unref);
  g_clear_pointer(&s->preds, osr_tensor_unref);
  g_clear_pointer(&s->times, g_free);
  g_clear_pointer(&s->needed, g_free);
  g_clear_pointer(&s->weights, osr_tensor_unref);
  g_clear_pointer(&s->clock, osr_tensor_unref);
  g_clear_pointer(&s->clock_now, osr_tensor_unref);
  g_clear_pointer(&s->estimate, osr_tensor_unref);
  for (guint i = 0; i < OSR_SAMPLER_MAX_PENDING; i++)
    g_clear_pointer(&s->previews[i], osr_tensor_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(OsrSampler, sampler_clear)

/* Checks */

static gboolean
check_tensor(const OsrSampler *s, const OsrTensor *tensor, const char *name, guint n_dims,
             const gint64 *dims, GError **error)
{
  if (!tensor) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "sampler: %s needs %s",
                osr_condition_name(s->input->condition), name);
    return FALSE;
  }
  if (tensor->n_dims != n_dims || memcmp(tensor->dims, dims, n_dims * sizeof *dims) != 0) {
    g_autofree char *has = osr_dims_to_string(tensor->n_dims, tensor->dims);
    g_autofree char *needs = osr_dims_to_string(n_dims, dims);

    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE, "sampler: %s is %s, needed is %s", name, has,
                needs);
    return FALSE;
  }
  if (tensor->device != s->run.device || tensor->dtype != s->run.dtype) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "sampler: %s is %s on %s, the model computes in %s on %s", name,
                osr_dtype_name(tensor->dtype), osr_device_get_name(tensor->device),
                osr_dtype_name(s->run.dtype), osr_device_get_name(s->run.device));
    return FALSE;
  }
  return TRUE;
}

static gboolean
check_latent_dims(const OsrMmditConfig *c, const guint dims[4], GError **error)
{
  guint p = c->patch_size;

  for (guint i = 0; i < 4; i++) {
    if (dims[i] < 1 || dims[i] > 1 << 20) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
                  "sampler: a latent of %u x %u x %u x %u is not possible", dims[0], dims[1],
                  dims[2], dims[3]);
      return FALSE;
    }
  }
  if (dims[1] % p != 0 || dims[2] % p != 0 || (guint64) dims[3] * p * p != c->in_channels) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
                "sampler: a latent of %u frames, %u x %u pixels, %u channels is not possible: the "
                "model takes %u channels in patches of %u x %u",
                dims[0], dims[1], dims[2], dims[3], c->in_channels / (p * p), p, p);
    return FALSE;
  }
  if ((gint64) dims[0] * (dims[1] / p) > G_MAXINT32 / (dims[2] / p)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
                "sampler: a latent of %u x %u x %u has more than %d tokens", dims[0], dims[1],
                dims[2], G_MAXINT32);
    return FALSE;
  }
  return TRUE;
}

static gboolean
check_embedding(const OsrSampler *s, const OsrTensor *txt, const OsrTensor *vec, const char *whose,
                GError **error)
{
  g_autofree char *txt_name = g_strdup_printf("the text embedding of the %sprompt", whose);
  g_autofree char *vec_name = g_strdup_printf("the pooled embedding of the %sprompt", whose);
  /* Both prompts are as long as the first. */
  gint64 length = s->input->txt && s->input->txt->n_dims == 3 ? s->input->txt->dims[1] : 0;

  return check_tensor(s, txt, txt_name, 3, (gint64[]){ 1, length, s->config->context_in_dim },
                      error) &&
         check_tensor(s, vec, vec_name, 2, (gint64[]){ 1, s->config->vec_in_dim }, error);
}

/* @frames: how many of it are used. */
static gboolean
check_reference(const OsrSampler *s, const OsrTensor *ref, guint frames, GError **error)
{
  gint64 available = ref && ref->n_dims == 4 ? ref->dims[0] : frames;

  return check_tensor(s, ref, "a reference latent", 4,
                      (gint64[]){ MAX(available, frames), s->height, s->width, s->channels },
                      error);
}

static gboolean
is_v2v(OsrCondition condition)
{
  return condition >= OSR_CONDITION_V2V_HEAD;
}

void
osr_condition_frames(OsrCondition condition, guint latent_frames, guint *head, guint *tail)
{
  *head = *tail = 0;
  if (latent_frames == 1)
    return;
  switch (condition) {
  case OSR_CONDITION_T2V:
    break;
  case OSR_CONDITION_I2V_HEAD:
    *head = 1;
    break;
  case OSR_CONDITION_I2V_TAIL:
    *tail = 1;
    break;
  case OSR_CONDITION_I2V_LOOP:
    *head = *tail = 1;
    break;
  case OSR_CONDITION_V2V_HEAD:
    *head = V2V_FRAMES;
    break;
  case OSR_CONDITION_V2V_TAIL:
    *tail = V2V_FRAMES;
    break;
  case OSR_CONDITION_V2V_HEAD_EASY:
    *head = V2V_EASY_FRAMES;
    break;
  case OSR_CONDITION_V2V_TAIL_EASY:
    *tail = V2V_EASY_FRAMES;
    break;
  }
}

/* The reference of the last frames: of pictures the last. One picture at both ends of a loop needs
 * no second. */
static OsrTensor *
tail_reference(const OsrSamplerInput *input)
{
  return !is_v2v(input->condition) && input->ref[1] ? input->ref[1] : input->ref[0];
}

static gboolean
check_condition(const OsrSampler *s, GError **error)
{
  const OsrSamplerInput *in = s->input;
  guint head, tail;

  if (in->condition == OSR_CONDITION_T2V || (is_v2v(in->condition) && s->frames == 1))
    return TRUE;
  if (!s->config->cond_embed) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "sampler: %s is not possible, this model takes no reference: only t2v is",
                osr_condition_name(in->condition));
    return FALSE;
  }
  osr_condition_frames(in->condition, s->frames, &head, &tail);
  if (MAX(head, tail) > s->frames) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "sampler: %s gives %u latent frames, the clip has %u",
                osr_condition_name(in->condition), MAX(head, tail), s->frames);
    return FALSE;
  }
  return check_reference(s, in->ref[0], MAX(head, 1), error) &&
         check_reference(s, tail_reference(in), MAX(tail, 1), error);
}

/* Preparation */

/* Frames of @src from @from on, over those of @dst from @to on. */
static void
copy_frames(OsrSampler *s, OsrTensor *dst, gint64 to, const OsrTensor *src, gint64 from, gint64 n)
{
  gint64 frame = (gint64) s->height * s->width * s->channels;
  gsize item = osr_dtype_size(s->run.dtype);

  osr_run(&s->run, copy2d,
          &(OsrCopy2d){
              .x_dtype = s->run.dtype,
              .y_dtype = s->run.dtype,
              .m = n,
              .n = frame,
              .x = (const char *) src->data + from * frame * item,
              .x_ld = frame,
              .y = (char *) dst->data + to * frame * item,
              .y_ld = frame,
          });
}

/* Puts the frames that the condition gives where they belong in @latent. */
static void
place_references(OsrSampler *s, OsrTensor *latent, guint head, guint tail)
{
  OsrTensor *last = tail_reference(s->input);

  if (head > 0)
    copy_frames(s, latent, 0, s->input->ref[0], 0, head);
  if (tail > 0)
    copy_frames(s, latent, s->frames - tail, last, last->dims[0] - tail, tail);
}

/* Latent [T, h, w, C] <-> rows of tokens. */
static OsrPatchify
patches(const OsrSampler *s, gconstpointer x, gpointer y, gint64 ld, int column)
{
  return (OsrPatchify){
    .dtype = s->run.dtype,
    .batch = 1,
    .t = (int) s->frames,
    .h = (int) s->height,
    .w = (int) s->width,
    .c = (int) s->channels,
    .patch = (int) s->config->patch_size,
    .x = x,
    .y = y,
    .ld = ld,
    .column = column,
  };
}

/* Tensors of one item each, or NULL for "not used", one after the other. */
static OsrTensor *
stack(OsrSampler *s, OsrTensor *const parts[3], GError **error)
{
  const OsrTensor *like = parts[1];
  gint64 n = osr_tensor_n_elements(like), dims[OSR_TENSOR_MAX_DIMS];
  OsrTensor *all;

  memcpy(dims, like->dims, sizeof dims);
  dims[0] = 3;
  all = osr_tensor_new(s->run.device, s->run.dtype, like->n_dims, dims, error);
  for (guint i = 0; all && i < 3; i++) {
    if (parts[i])
      osr_run(&s->run, copy2d,
              &(OsrCopy2d){
                  .x_dtype = s->run.dtype,
                  .y_dtype = s->run.dtype,
                  .m = 1,
                  .n = n,
                  .x = parts[i]->data,
                  .x_ld = n,
                  .y = (char *) all->data + i * parts[i]->size,
                  .y_ld = n,
              });
  }
  return all;
}

/* The mask's columns of the cond tokens: f32 [L, p^2], ones in the frames that are given. */
static OsrTensor *
new_mask(const OsrSampler *s, guint head, guint tail, GError **error)
{
  gint64 dims[2] = { s->tokens, (gint64) s->config->patch_size * s->config->patch_size };
  gint64 frame = s->tokens_per_frame * dims[1];
  gint64 n = s->tokens * dims[1];
  g_autofree float *mask = g_try_new0(float, n);

  if (!mask) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY,
                "sampler: no memory for a mask of %" G_GINT64_FORMAT " tokens", s->tokens);
    return NULL;
  }
  for (gint64 i = 0; i < head * frame; i++)
    mask[i] = 1.0f;
  for (gint64 i = (s->frames - tail) * frame; i < s->frames * frame; i++)
    mask[i] = 1.0f;
  return osr_tensor_new_from_host(s->run.device, OSR_DTYPE_F32, 2, dims, mask, error);
}

/* cond = the mask, then the frames that are given and zeros; all zeros for forward 2, and
 * for all three without a reference. */
static gboolean
prepare_cond(OsrSampler *s, GError **error)
{
  const OsrMmditConfig *c = s->config;
  gint64 pixels = (gint64) c->patch_size * c->patch_size, ld = pixels + c->in_channels;
  g_autoptr(OsrTensor) mask = NULL, given = NULL;
  guint head, tail;

  if (!c->cond_embed)
    return TRUE;
  s->cond = osr_tensor_new_3d(&s->run, 3, s->tokens, ld, error);
  if (!s->cond || !osr_tensor_zero(s->cond, error))
    return FALSE;
  if (s->condition == OSR_CONDITION_T2V)
    return TRUE;

  osr_condition_frames(s->condition, s->frames, &head, &tail);
  mask = new_mask(s, head, tail, error);
  if (!mask)
    return FALSE;
  given = osr_tensor_new(s->run.device, s->run.dtype, 4,
                         (gint64[]){ s->frames, s->height, s->width, s->channels }, error);
  if (!given || !osr_tensor_zero(given, error))
    return FALSE;
  place_references(s, given, head, tail);

  for (guint slot = 0; slot < 3; slot++) {
    gpointer rows = (char *) s->cond->data + slot * (s->cond->size / 3);
    OsrPatchify tokens = patches(s, given->data, rows, ld, (int) pixels);

    if (osr_sampler_forward_of_slot(slot) == 2)
      continue;
    osr_run(&s->run, patchify, &tokens);
    osr_run(&s->run, copy2d,
            &(OsrCopy2d){
                .x_dtype = OSR_DTYPE_F32,
                .y_dtype = s->run.dtype,
                .m = s->tokens,
                .n = pixels,
                .x = mask->data,
                .x_ld = pixels,
                .y = rows,
                .y_ld = ld,
            });
  }
  return osr_run_check(&s->run, error, "sampler: condition");
}

/* The times of all steps, each once an item of a batch. */
static gboolean
prepare_clock(OsrSampler *s, GError **error)
{
  gint64 dims[2] = { s->params->num_steps, s->max_batch };
  g_autofree float *clock = g_new(float, dims[0] * dims[1]);

  for (gint64 i = 0; i < dims[0] * dims[1]; i++)
    clock[i] = s->params->round_times ? osr_round_time(s->times[i / s->max_batch], s->run.dtype)
                                      : s->times[i / s->max_batch];
  return (s->clock =
              osr_tensor_new_from_host(s->run.device, OSR_DTYPE_F32, 2, dims, clock, error)) &&
         (s->clock_now = osr_tensor_new(s->run.device, OSR_DTYPE_F32, 1, dims + 1, error));
}

static gboolean
prepare_schedule(OsrSampler *s, GError **error)
{
  OsrSamplingParams params = *s->params;
  guint steps = params.num_steps;
  gint64 dims[3] = { steps, 3, s->frames };
  g_autofree float *weights = g_try_new(float, dims[0] * dims[1] * dims[2]);

  if (!weights) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY, "sampler: no memory for %u steps of %u frames",
                steps, s->frames);
    return FALSE;
  }
  if (osr_mmdit_config_is_distilled(s->config))
    params.guidance = params.guidance_img = 1.0;
  s->times = osr_schedule_new(&params, (guint) s->tokens_per_frame, s->frames);
  s->needed = g_malloc_n(steps, sizeof *s->needed);
  for (guint i = 0; i < steps; i++)
    s->total_forwards += osr_guidance_weights(&params, s->condition, i, s->frames,
                                              weights + (gsize) i * 3 * s->frames, s->needed[i]);
  s->weights = osr_tensor_new_from_host(s->run.device, OSR_DTYPE_F32, 3, dims, weights, error);
  return s->weights && prepare_clock(s, error);
}

static gboolean
prepare_text(OsrSampler *s, GError **error)
{
  const OsrSamplerInput *in = s->input;
  gboolean negative = FALSE;

  for (guint i = 0; i < s->params->num_steps; i++)
    negative |= s->needed[i][1] || s->needed[i][2];
  if (!check_embedding(s, in->txt, in->vec, "", error) ||
      (negative && !check_embedding(s, in->neg_txt, in->neg_vec, "negative ", error)))
    return FALSE;

  s->txt = stack(
      s, (OsrTensor *[]){ negative ? in->neg_txt : NULL, in->txt, negative ? in->neg_txt : NULL },
      error);
  if (!s->txt)
    return FALSE;
  s->vec = stack(
      s, (OsrTensor *[]){ negative ? in->neg_vec : NULL, in->vec, negative ? in->neg_vec : NULL },
      error);
  return s->vec && osr_run_check(&s->run, error, "sampler: text");
}

/* The noise as tokens: where the loop starts. */
static gboolean
prepare_x(OsrSampler *s, OsrTensor *noise, GError **error)
{
  gint64 dims[4] = { s->frames, s->height, s->width, s->channels };
  gint64 ld = s->config->in_channels;
  g_autoptr(OsrTensor) latent = NULL;
  OsrPatchify tokens;

  if (noise && !check_tensor(s, noise, "the noise", 4, dims, error))
    return FALSE;
  latent =
      noise ? osr_tensor_ref(noise) : osr_tensor_new(s->run.device, s->run.dtype, 4, dims, error);
  if (!latent || !(s->x = osr_tensor_new_3d(&s->run, 1, s->tokens, ld, error)) ||
      !(s->preds = osr_tensor_new_3d(&s->run, 3, s->tokens, ld, error)))
    return FALSE;
  if (s->max_batch > 1 &&
      !(s->batch = osr_tensor_new_3d(&s->run, s->max_batch, s->tokens, ld, error)))
    return FALSE;

  if (!noise)
    osr_run(&s->run, randn,
            &(OsrRandn){
                .dtype = s->run.dtype,
                .seed = s->params->seed,
                .sequence = s->params->sequence,
                .torch_blocks = s->params->rng == OSR_RNG_TORCH_CUDA ? OSR_RANDN_THIS_GPU : 0,
                .t = (int) s->frames,
                .h = (int) s->height,
                .w = (int) s->width,
                .c = (int) s->channels,
                .y = latent->data,
            });
  tokens = patches(s, latent->data, s->x->data, ld, 0);
  osr_run(&s->run, patchify, &tokens);
  return osr_run_check(&s->run, error, "sampler: noise");
}

static OsrTensor *
new_latent(OsrSampler *s, GError **error)
{
  return osr_tensor_new(s->run.device, s->run.dtype, 4,
                        (gint64[]){ s->frames, s->height, s->width, s->channels }, error);
}

/* A step may write its preview while that of the step before is being looked at. */
static gboolean
prepare_previews(OsrSampler *s, GError **error)
{
  if (s->params->preview_every == 0)
    return TRUE;
  s->estimate = osr_tensor_new_3d(&s->run, 1, s->tokens, s->config->in_channels, error);
  for (guint i = 0; s->estimate && i < OSR_SAMPLER_MAX_PENDING; i++)
    if (!(s->previews[i] = new_latent(s, error)))
      return FALSE;
  return s->estimate != NULL;
}

static gboolean
prepare(OsrSampler *s, OsrTensor *noise, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device, cancellable, error);

  return locker && prepare_schedule(s, error) && prepare_text(s, error) && prepare_cond(s, error) &&
         prepare_x(s, noise, error) && prepare_previews(s, error);
}

/* The result */

/* The pictures themselves where i2v has them, and the video where it is to be kept. */
void
osr_sampler_make_latent(OsrSampler *s, const OsrTensor *tokens, OsrTensor *latent)
{
  OsrPatchify rows = patches(s, tokens->data, latent->data, s->config->in_channels, 0);
  guint head, tail;

  osr_run(&s->run, unpatchify, &rows);
  if (!is_v2v(s->input->condition) || (s->input->keep_video && s->frames > 1)) {
    /* Of a single frame too, as upstream does. */
    osr_condition_frames(s->input->condition, MAX(s->frames, 2), &head, &tail);
    place_references(s, latent, head, tail);
  }
}

static OsrTensor *
finish(OsrSampler *s, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device, cancellable, error);
  g_autoptr(OsrTensor) latent = NULL;

  if (!locker)
    return NULL;
  latent = new_latent(s, error);
  if (!latent)
    return NULL;
  osr_sampler_make_latent(s, s->x, latent);
  return osr_run_check(&s->run, error, "sampler: latent") ? g_steal_pointer(&latent) : NULL;
}

OsrTensor *
osr_sampler_run_batched(OsrMmdit *mmdit, const OsrSamplingParams *params,
                        const OsrSamplerInput *input, const guint latent_dims[4], OsrTensor *noise,
                        guint max_batch, OsrSamplerCounts *counts, OsrSamplerCallback callback,
                        gpointer user_data, GCancellable *cancellable, GError **error)
{
  const OsrMmditConfig *c = osr_mmdit_get_config(mmdit);
  OsrDevice *device = osr_mmdit_get_device(mmdit);
  g_auto(OsrSampler) s = {
    .mmdit = mmdit,
    .config = c,
    .params = params,
    .input = input,
    .run = osr_run_start(device, osr_mmdit_get_dtype(mmdit)),
    .condition = latent_dims[0] == 1 ? OSR_CONDITION_T2V : input->condition,
    .frames = latent_dims[0],
    .height = latent_dims[1],
    .width = latent_dims[2],
    .channels = latent_dims[3],
    .max_batch = max_batch,
    .use_graphs = params->use_graphs && osr_graph_is_supported(device) && !mmdit->streamer,
    .start = g_get_monotonic_time(),
  };
  OsrTensor *latent;

  g_return_val_if_fail(max_batch >= 1 && max_batch <= 3, NULL);

  if (params->num_steps < 1 || params->num_steps > 10000) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "sampler: %u steps are not possible: 1 to 10000 are", params->num_steps);
    return NULL;
  }
  if (!check_latent_dims(c, latent_dims, error) || !check_condition(&s, error))
    return NULL;
  s.tokens_per_frame = (gint64) (s.height / c->patch_size) * (s.width / c->patch_size);
  s.tokens = s.frames * s.tokens_per_frame;

  s.arena = osr_pool_arena_new(osr_device_get_pool(device));
  latent = prepare(&s, noise, cancellable, error) &&
                   osr_sampler_loop(&s, callback, user_data, cancellable, error)
               ? finish(&s, cancellable, error)
               : NULL;
  if (counts)
    *counts = s.counts;
  return latent;
}

OsrTensor *
osr_sampler_run(OsrMmdit *mmdit, const OsrSamplingParams *params, const OsrSamplerInput *input,
                const guint latent_dims[4], OsrTensor *noise, OsrSamplerCallback callback,
                gpointer user_data, GCancellable *cancellable, GError **error)
{
  /* A GPU wants large batches; a CPU wants a clip's activations to stay in its caches. */
  guint max_batch = osr_device_is_host(osr_mmdit_get_device(mmdit)) ? 1 : 3;

  return osr_sampler_run_batched(mmdit, params, input, latent_dims, noise, max_batch, NULL,
                                 callback, user_data, cancellable, error);
}
