/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sampler.c: the denoising loop of Open-Sora 2.0, a rectified flow by Euler steps with
 * guidance of text and image.
 *
 * Everything a step needs is on the device before the first one: embeddings, conditions and
 * the guidance factors of all steps. A step launches its forwards and one guidance_step.
 */
#include "sampler.h"

#include "layers.h"
#include "mmdit-private.h"
#include "sampler-private.h"

/* Latent frames that a v2v condition gives. */
#define V2V_FRAMES 9
#define V2V_EASY_FRAMES 17

/* Inputs of the forwards lie in batch buffers, in an order that makes neighbours of those
 * that steps leave over: 0 and 1 without a reference, 0 and 2 where text and image guidance
 * are equal. */
static const guint forward_of_slot[3] = { 1, 0, 2 };

typedef struct {
  OsrMmdit *mmdit;
  const OsrMmditConfig *config;
  const OsrSamplingParams *params;
  const OsrSamplerInput *input;
  OsrRun run;
  OsrCondition condition;      /* T2V where there is but one frame */
  guint frames, height, width; /* of the latent */
  guint channels, max_batch;
  gint64 tokens_per_frame, tokens;

  OsrTensor *txt, *vec; /* [3, L_txt, D], [3, Dv], by slot */
  OsrTensor *cond;      /* [3, L, p^2 + in_channels], NULL without cond_embed */
  OsrTensor *x, *batch; /* [1, L, in_channels], copies of it [max_batch, ...] */

  float *times;          /* host, [steps + 1] */
  gboolean (*needed)[3]; /* host, [steps], by forward */
  OsrTensor *weights;    /* f32 [steps, 3, frames], by forward */
  guint forwards, total_forwards;
} Sampler;

static void
sampler_clear(Sampler *s)
{
  g_clear_pointer(&s->txt, osr_tensor_unref);
  g_clear_pointer(&s->vec, osr_tensor_unref);
  g_clear_pointer(&s->cond, osr_tensor_unref);
  g_clear_pointer(&s->x, osr_tensor_unref);
  g_clear_pointer(&s->batch, osr_tensor_unref);
  g_clear_pointer(&s->times, g_free);
  g_clear_pointer(&s->needed, g_free);
  g_clear_pointer(&s->weights, osr_tensor_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Sampler, sampler_clear)

/* Checks */

static gboolean
check_tensor(const Sampler *s, const OsrTensor *tensor, const char *name, guint n_dims,
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
check_embedding(const Sampler *s, const OsrTensor *txt, const OsrTensor *vec, const char *whose,
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
check_reference(const Sampler *s, const OsrTensor *ref, guint frames, GError **error)
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

/* The reference of the last frames. One picture at both ends of a loop needs no second. */
static OsrTensor *
tail_reference(const OsrSamplerInput *input)
{
  return input->condition == OSR_CONDITION_I2V_LOOP && input->ref[1] ? input->ref[1]
                                                                     : input->ref[0];
}

static gboolean
check_condition(const Sampler *s, GError **error)
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
copy_frames(Sampler *s, OsrTensor *dst, gint64 to, const OsrTensor *src, gint64 from, gint64 n)
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
place_references(Sampler *s, OsrTensor *latent, guint head, guint tail)
{
  OsrTensor *last = tail_reference(s->input);

  if (head > 0)
    copy_frames(s, latent, 0, s->input->ref[0], 0, head);
  if (tail > 0)
    copy_frames(s, latent, s->frames - tail, last, last->dims[0] - tail, tail);
}

/* Latent [T, h, w, C] <-> rows of tokens. */
static OsrPatchify
patches(const Sampler *s, gconstpointer x, gpointer y, gint64 ld, int column)
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
stack(Sampler *s, OsrTensor *const parts[3], GError **error)
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
new_mask(const Sampler *s, guint head, guint tail, GError **error)
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
prepare_cond(Sampler *s, GError **error)
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

    if (forward_of_slot[slot] == 2)
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

/* A model that takes guidance as an input and no references is a distilled one (FLUX): its
 * prediction is guided already. */
static gboolean
is_distilled(const OsrMmditConfig *c)
{
  return c->guidance_embed && !c->cond_embed;
}

static gboolean
prepare_schedule(Sampler *s, GError **error)
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
  if (is_distilled(s->config))
    params.guidance = params.guidance_img = 1.0;
  s->times = osr_schedule_new(&params, (guint) s->tokens_per_frame, s->frames);
  s->needed = g_malloc_n(steps, sizeof *s->needed);
  for (guint i = 0; i < steps; i++)
    s->total_forwards += osr_guidance_weights(&params, s->condition, i, s->frames,
                                              weights + (gsize) i * 3 * s->frames, s->needed[i]);
  s->weights = osr_tensor_new_from_host(s->run.device, OSR_DTYPE_F32, 3, dims, weights, error);
  return s->weights != NULL;
}

static gboolean
prepare_text(Sampler *s, GError **error)
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
prepare_x(Sampler *s, OsrTensor *noise, GError **error)
{
  gint64 dims[4] = { s->frames, s->height, s->width, s->channels };
  gint64 ld = s->config->in_channels;
  g_autoptr(OsrTensor) latent = NULL;
  OsrPatchify tokens;

  if (noise && !check_tensor(s, noise, "the noise", 4, dims, error))
    return FALSE;
  latent =
      noise ? osr_tensor_ref(noise) : osr_tensor_new(s->run.device, s->run.dtype, 4, dims, error);
  if (!latent || !(s->x = osr_tensor_new_3d(&s->run, 1, s->tokens, ld, error)))
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

static gboolean
prepare(Sampler *s, OsrTensor *noise, GError **error)
{
  G_GNUC_UNUSED g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device);

  return prepare_schedule(s, error) && prepare_text(s, error) && prepare_cond(s, error) &&
         prepare_x(s, noise, error);
}

/* The loop. Others may use the device between two steps. */

/* Items @first to @first + @n of a batch. */
static OsrTensor *
items(OsrTensor *tensor, guint first, guint n)
{
  gint64 dims[OSR_TENSOR_MAX_DIMS];

  if (!tensor)
    return NULL;
  memcpy(dims, tensor->dims, sizeof dims);
  dims[0] = n;
  return osr_tensor_view(tensor, first * (osr_tensor_n_elements(tensor) / tensor->dims[0]),
                         tensor->n_dims, dims);
}

/* One forward of the model on the @n inputs from @slot on: [n, L, in_channels]. */
static OsrTensor *
forward(Sampler *s, guint step, guint slot, guint n, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrTensor) img = n == 1 ? osr_tensor_ref(s->x) : items(s->batch, 0, n);
  g_autoptr(OsrTensor) cond = items(s->cond, slot, n);
  g_autoptr(OsrTensor) txt = items(s->txt, slot, n);
  g_autoptr(OsrTensor) vec = items(s->vec, slot, n);
  gint64 size = s->tokens * s->config->in_channels;

  for (guint i = 0; n > 1 && i < n; i++)
    osr_run(&s->run, copy2d,
            &(OsrCopy2d){
                .x_dtype = s->run.dtype,
                .y_dtype = s->run.dtype,
                .m = 1,
                .n = size,
                .x = s->x->data,
                .x_ld = size,
                .y = (char *) img->data + i * s->x->size,
                .y_ld = size,
            });
  if (!osr_run_check(&s->run, error, "sampler: step %u", step))
    return NULL;
  return osr_mmdit_forward(s->mmdit,
                           &(OsrMmditInput){
                               .img = img,
                               .cond = cond,
                               .txt = txt,
                               .vec = vec,
                               .frames = s->frames,
                               .height = s->height / s->config->patch_size,
                               .width = s->width / s->config->patch_size,
                               .timestep = s->times[step],
                               .guidance = (float) s->params->guidance,
                           },
                           cancellable, error);
}

/* The predictions that @step needs, by forward; the others stay NULL. */
static gboolean
predict(Sampler *s, guint step, OsrTensor *pred[3], GCancellable *cancellable, GError **error)
{
  const gboolean *needed = s->needed[step];

  for (guint slot = 0, n; slot < 3; slot += n) {
    g_autoptr(OsrTensor) out = NULL;

    for (n = 0; n < s->max_batch && slot + n < 3 && needed[forward_of_slot[slot + n]]; n++)
      continue;
    if (n == 0) {
      n = 1;
      continue;
    }
    out = forward(s, step, slot, n, cancellable, error);
    if (!out)
      return FALSE;
    for (guint i = 0; i < n; i++)
      pred[forward_of_slot[slot + i]] = items(out, i, 1);
    s->forwards += n;
  }
  return TRUE;
}

/* x += dt * (guided prediction) */
static gboolean
euler_step(Sampler *s, guint step, GCancellable *cancellable, GError **error)
{
  G_GNUC_UNUSED g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device);
  OsrTensor *pred[3] = { NULL };
  OsrGuidanceStep update = {
    .dtype = s->run.dtype,
    .frames = s->frames,
    .tokens_per_frame = s->tokens_per_frame,
    .n = (int) s->config->in_channels,
    .dt = (float) ((double) s->times[step + 1] - s->times[step]),
    .x = s->x->data,
  };
  gboolean ok = predict(s, step, pred, cancellable, error);

  for (guint i = 0; i < 3; i++) {
    if (!pred[i])
      continue;
    update.pred[update.n_preds] = pred[i]->data;
    update.weight[update.n_preds++] =
        (const float *) s->weights->data + ((gsize) step * 3 + i) * s->frames;
  }
  /* All factors may be zero: then the clip stays as it is. */
  if (ok && update.n_preds > 0) {
    osr_run(&s->run, guidance_step, &update);
    ok = osr_run_check(&s->run, error, "sampler: step %u", step);
  }
  for (guint i = 0; i < 3; i++)
    g_clear_pointer(&pred[i], osr_tensor_unref);
  return ok;
}

/* The clip as a latent, with the pictures themselves where i2v has them. */
static OsrTensor *
finish(Sampler *s, GError **error)
{
  G_GNUC_UNUSED g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device);
  g_autoptr(OsrTensor) latent = NULL;
  OsrPatchify tokens;
  guint head, tail;

  latent = osr_tensor_new(s->run.device, s->run.dtype, 4,
                          (gint64[]){ s->frames, s->height, s->width, s->channels }, error);
  if (!latent)
    return NULL;
  tokens = patches(s, s->x->data, latent->data, s->config->in_channels, 0);
  osr_run(&s->run, unpatchify, &tokens);
  if (!is_v2v(s->input->condition)) {
    /* Of a single frame too, as upstream does. */
    osr_condition_frames(s->input->condition, MAX(s->frames, 2), &head, &tail);
    place_references(s, latent, head, tail);
  }
  return osr_run_check(&s->run, error, "sampler: latent") ? g_steal_pointer(&latent) : NULL;
}

static void
report(const Sampler *s, guint step, gint64 start, OsrSamplerCallback callback, gpointer user_data)
{
  double elapsed = (double) (g_get_monotonic_time() - start) / G_USEC_PER_SEC;
  OsrSamplerProgress progress = {
    .step = step + 1,
    .steps = s->params->num_steps,
    .forwards = s->forwards,
    .elapsed = elapsed,
    .remaining = elapsed / MAX(s->forwards, 1) * (s->total_forwards - s->forwards),
  };

  if (callback)
    callback(&progress, user_data);
}

OsrTensor *
osr_sampler_run_batched(OsrMmdit *mmdit, const OsrSamplingParams *params,
                        const OsrSamplerInput *input, const guint latent_dims[4], OsrTensor *noise,
                        guint max_batch, OsrSamplerCallback callback, gpointer user_data,
                        GCancellable *cancellable, GError **error)
{
  const OsrMmditConfig *c = osr_mmdit_get_config(mmdit);
  gint64 start = g_get_monotonic_time();
  g_auto(Sampler) s = {
    .mmdit = mmdit,
    .config = c,
    .params = params,
    .input = input,
    .run = osr_run_start(osr_mmdit_get_device(mmdit), osr_mmdit_get_dtype(mmdit)),
    .condition = latent_dims[0] == 1 ? OSR_CONDITION_T2V : input->condition,
    .frames = latent_dims[0],
    .height = latent_dims[1],
    .width = latent_dims[2],
    .channels = latent_dims[3],
    .max_batch = max_batch,
  };

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

  if (!prepare(&s, noise, error))
    return NULL;
  for (guint i = 0; i < params->num_steps; i++) {
    if (g_cancellable_set_error_if_cancelled(cancellable, error) ||
        !euler_step(&s, i, cancellable, error))
      return NULL;
    report(&s, i, start, callback, user_data);
  }
  return finish(&s, error);
}

OsrTensor *
osr_sampler_run(OsrMmdit *mmdit, const OsrSamplingParams *params, const OsrSamplerInput *input,
                const guint latent_dims[4], OsrTensor *noise, OsrSamplerCallback callback,
                gpointer user_data, GCancellable *cancellable, GError **error)
{
  /* A GPU wants large batches; a CPU wants a clip's activations to stay in its caches. */
  guint max_batch = osr_device_is_host(osr_mmdit_get_device(mmdit)) ? 1 : 3;

  return osr_sampler_run_batched(mmdit, params, input, latent_dims, noise, max_batch, callback,
                                 user_data, cancellable, error);
}
