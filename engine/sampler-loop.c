/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sampler-loop.c: the denoising loop.
 *
 * A step launches its forwards and one guidance_step, with memory that belongs to the clip, so
 * nothing is allocated from the second step on.
 *
 * A forward of a small clip takes less time than the host needs to enqueue its thousand calls.
 * So forwards that turn out to be short are recorded as a graph the second time that they are
 * asked for. Buffers have one address for the whole clip, the time too, hence the recording
 * fits all steps.
 */
#include "sampler-loop.h"

#include "log-private.h"
#include "mmdit-private.h"

/* Forwards below this many seconds are worth recording, and cannot be cancelled then; steps
 * below it are reported while the next one is under way. */
#define SHORT_SECONDS 0.5

void
osr_sampler_kind_clear(OsrSamplerKind *kind)
{
  g_clear_pointer(&kind->graph, osr_graph_free);
  for (guint i = 0; i < G_N_ELEMENTS(kind->tables); i++)
    g_clear_pointer(&kind->tables[i], osr_tensor_unref);
}

/* The loop. Others may use the device between two blocks of a forward. */

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

/* The inputs of one forward on the @n items from @slot on; views to be released. */
static OsrMmditInput
forward_input(OsrSampler *s, guint slot, guint n)
{
  return (OsrMmditInput){
    .img = n == 1 ? osr_tensor_ref(s->x) : items(s->batch, 0, n),
    .cond = items(s->cond, slot, n),
    .txt = items(s->txt, slot, n),
    .vec = items(s->vec, slot, n),
    .frames = s->frames,
    .height = s->height / s->config->patch_size,
    .width = s->width / s->config->patch_size,
    .timesteps = items(s->clock_now, 0, n),
    .guidance = (float) s->params->guidance,
  };
}

static void
input_clear(OsrMmditInput *in)
{
  g_clear_pointer(&in->img, osr_tensor_unref);
  g_clear_pointer(&in->cond, osr_tensor_unref);
  g_clear_pointer(&in->txt, osr_tensor_unref);
  g_clear_pointer(&in->vec, osr_tensor_unref);
  g_clear_pointer(&in->timesteps, osr_tensor_unref);
}

/* Copies of x, as many as a forward takes. */
static gboolean
copy_latent(OsrSampler *s, OsrTensor *batch, guint n, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device, cancellable, error);
  gint64 size = s->tokens * s->config->in_channels;

  if (!locker)
    return FALSE;
  for (guint i = 0; i < n; i++)
    osr_run(&s->run, copy2d,
            &(OsrCopy2d){
                .x_dtype = s->run.dtype,
                .y_dtype = s->run.dtype,
                .m = 1,
                .n = size,
                .x = s->x->data,
                .x_ld = size,
                .y = (char *) batch->data + i * s->x->size,
                .y_ld = size,
            });
  return osr_run_check(&s->run, error, "copying the latent");
}

/* Runs or records a forward: copies of x, if it takes several, and the model. */
static gboolean
enqueue_forward(OsrSampler *s, const OsrMmditInput *in, guint slot, guint n, gboolean paced,
                GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrTensor) pred = items(s->preds, slot, n);
  gboolean ok;

  if (n > 1 && !copy_latent(s, in->img, n, cancellable, error))
    return FALSE;
  osr_pool_arena_begin(s->arena);
  ok = osr_mmdit_forward_into(s->mmdit, in, pred, paced, cancellable, error);
  osr_pool_arena_end(s->arena);
  return ok;
}

/* Waits until all is done that has been enqueued. */
static gboolean
wait_for_all(OsrSampler *s, GCancellable *cancellable, GError **error)
{
  guint64 mark;
  gboolean ok;

  if (!osr_device_lock_cancellable(s->run.device, cancellable, error))
    return FALSE;
  ok = osr_device_mark(s->run.device, &mark, error);
  osr_device_unlock(s->run.device);
  return ok && osr_device_wait(s->run.device, mark, "mmdit: final layer", error);
}

/* A forward call by call, measured where that decides about recording the next one. The first
 * may take longer than those after it, which are measured again then; and so may one that shares
 * the device with others. */
static gboolean
plain_forward(OsrSampler *s, const OsrMmditInput *in, guint slot, guint n,
              GCancellable *cancellable, GError **error)
{
  gint64 start;

  s->counts.plain++;
  if (!s->use_graphs)
    return enqueue_forward(s, in, slot, n, TRUE, cancellable, error);
  if (!wait_for_all(s, cancellable, error))
    return FALSE;
  start = g_get_monotonic_time();
  if (!enqueue_forward(s, in, slot, n, TRUE, cancellable, error) ||
      !wait_for_all(s, cancellable, error))
    return FALSE;
  s->kinds[slot][n - 1].seconds = (double) MAX(g_get_monotonic_time() - start, 1) / G_USEC_PER_SEC;
  return TRUE;
}

/* Under one lock from the tables on, which are the model's until the forward has taken them. */
static gboolean
record(OsrSampler *s, OsrSamplerKind *kind, const OsrMmditInput *in, guint slot, guint n,
       GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device, cancellable, error);

  if (!locker || !osr_mmdit_prepare(s->mmdit, in, kind->tables, error) ||
      !osr_graph_begin(s->run.device, error))
    return FALSE;
  if (!enqueue_forward(s, in, slot, n, FALSE, NULL, error)) {
    osr_graph_abandon(s->run.device);
    return FALSE;
  }
  kind->graph = osr_graph_end(s->run.device, error);
  return kind->graph != NULL;
}

/* Graphs are an advantage, not a need: a forward that cannot be recorded or launched is made call
 * by call, which also tells whether something else is wrong. */
static void
give_up_graphs(OsrSampler *s, const GError *why)
{
  if (why->domain != OSR_ERROR)
    return; /* cancelled */
  osr_debug("sampler: no graphs for this clip: %s", why->message);
  for (guint slot = 0; slot < 3; slot++)
    for (guint n = 0; n < 3; n++)
      osr_sampler_kind_clear(&s->kinds[slot][n]);
  s->use_graphs = FALSE;
}

static void
try_to_record(OsrSampler *s, const OsrMmditInput *in, guint slot, guint n,
              GCancellable *cancellable)
{
  OsrSamplerKind *kind = &s->kinds[slot][n - 1];
  g_autoptr(GError) why = NULL;

  if (!s->use_graphs || kind->graph || kind->seconds == 0 || kind->seconds >= SHORT_SECONDS)
    return;
  if (record(s, kind, in, slot, n, cancellable, &why)) {
    s->counts.recorded++;
    return;
  }
  osr_sampler_kind_clear(kind);
  give_up_graphs(s, why);
}

static gboolean
try_to_launch(OsrSampler *s, const OsrSamplerKind *kind, GCancellable *cancellable)
{
  g_autoptr(GError) why = NULL;
  g_autoptr(OsrDeviceLocker) locker = NULL;

  if (!kind->graph)
    return FALSE;
  locker = osr_device_locker_new(s->run.device, cancellable, &why);
  if (locker && osr_graph_launch(kind->graph, "recorded forward", &why)) {
    s->counts.launched++;
    return TRUE;
  }
  give_up_graphs(s, why);
  return FALSE;
}

/* One forward of the model on the @n items from @slot on, into as many of preds. */
static gboolean
forward(OsrSampler *s, guint slot, guint n, GCancellable *cancellable, GError **error)
{
  const OsrSamplerKind *kind = &s->kinds[slot][n - 1];
  OsrMmditInput in = forward_input(s, slot, n);
  gboolean ok;

  try_to_record(s, &in, slot, n, cancellable);
  ok = try_to_launch(s, kind, cancellable) || plain_forward(s, &in, slot, n, cancellable, error);
  input_clear(&in);
  return ok;
}

/* The predictions that @step needs. */
static gboolean
predict(OsrSampler *s, guint step, GCancellable *cancellable, GError **error)
{
  const gboolean *needed = s->needed[step];

  for (guint slot = 0, n; slot < 3; slot += n) {
    for (n = 0; n < s->max_batch && slot + n < 3 && needed[osr_sampler_forward_of_slot(slot + n)];
         n++)
      continue;
    if (n == 0) {
      n = 1;
      continue;
    }
    if (!forward(s, slot, n, cancellable, error))
      return FALSE;
    s->forwards += n;
  }
  return TRUE;
}

static gboolean
set_clock(OsrSampler *s, guint step, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device, cancellable, error);
  gint64 n = s->max_batch;

  if (!locker)
    return FALSE;
  osr_run(&s->run, copy2d,
          &(OsrCopy2d){
              .x_dtype = OSR_DTYPE_F32,
              .y_dtype = OSR_DTYPE_F32,
              .m = 1,
              .n = n,
              .x = (const float *) s->clock->data + step * n,
              .x_ld = n,
              .y = s->clock_now->data,
              .y_ld = n,
          });
  return osr_run_check(&s->run, error, "time");
}

static gboolean
has_preview(const OsrSampler *s, guint step)
{
  const guint every = s->params->preview_every, done = step + 1;

  return every > 0 && (done % every == 0 || done == s->params->num_steps);
}

/* The same step taken to the end of time at once, on a copy. @update is that of x. */
static void
make_preview(OsrSampler *s, guint step, OsrGuidanceStep update)
{
  gint64 n = osr_tensor_n_elements(s->x);

  osr_run(&s->run, copy2d,
          &(OsrCopy2d){
              .x_dtype = s->run.dtype,
              .y_dtype = s->run.dtype,
              .m = 1,
              .n = n,
              .x = s->x->data,
              .x_ld = n,
              .y = s->estimate->data,
              .y_ld = n,
          });
  update.x = s->estimate->data;
  update.dt = -s->times[step];
  if (update.n_preds > 0)
    osr_run(&s->run, guidance_step, &update);
  osr_sampler_make_latent(s, s->estimate, s->previews[step % OSR_SAMPLER_MAX_PENDING]);
}

/* x += dt * (guided prediction), which ends the step. */
static gboolean
update_x(OsrSampler *s, guint step, GCancellable *cancellable, GError **error)
{
  g_autoptr(OsrDeviceLocker) locker = osr_device_locker_new(s->run.device, cancellable, error);
  OsrGuidanceStep update = {
    .dtype = s->run.dtype,
    .frames = s->frames,
    .tokens_per_frame = s->tokens_per_frame,
    .n = (int) s->config->in_channels,
    .dt = (float) ((double) s->times[step + 1] - s->times[step]),
    .x = s->x->data,
  };

  if (!locker)
    return FALSE;
  for (guint i = 0; i < 3; i++) {
    if (!s->needed[step][i])
      continue;
    update.pred[update.n_preds] =
        (const char *) s->preds->data + osr_sampler_slot_of_forward(i) * (s->preds->size / 3);
    update.weight[update.n_preds++] =
        (const float *) s->weights->data + ((gsize) step * 3 + i) * s->frames;
  }
  if (has_preview(s, step))
    make_preview(s, step, update);
  /* All factors may be zero: then the clip stays as it is. */
  if (update.n_preds > 0)
    osr_run(&s->run, guidance_step, &update);
  s->pending[step % OSR_SAMPLER_MAX_PENDING].forwards = s->forwards;
  return osr_run_check(&s->run, error, "guidance") &&
         osr_device_mark(s->run.device, &s->pending[step % OSR_SAMPLER_MAX_PENDING].mark, error);
}

static char *
step_name(const OsrSampler *s, guint step)
{
  return g_strdup_printf("sampler: step %u of %u", step + 1, s->params->num_steps);
}

static gboolean
euler_step(OsrSampler *s, guint step, GCancellable *cancellable, GError **error)
{
  g_autofree char *name = step_name(s, step);
  GError *failure = NULL;

  if (set_clock(s, step, cancellable, &failure) && predict(s, step, cancellable, &failure) &&
      update_x(s, step, cancellable, &failure))
    return TRUE;
  if (failure->domain == OSR_ERROR)
    g_prefix_error(&failure, "%s: ", name);
  g_propagate_error(error, failure);
  return FALSE;
}

/* Waits for the next step that is pending, and reports it. */
static gboolean
finish_step(OsrSampler *s, OsrSamplerCallback callback, gpointer user_data, GError **error)
{
  guint step = s->done, forwards = s->pending[step % OSR_SAMPLER_MAX_PENDING].forwards;
  g_autofree char *name = step_name(s, step);
  gint64 now;
  double elapsed;

  if (!osr_device_wait(s->run.device, s->pending[step % OSR_SAMPLER_MAX_PENDING].mark, name, error))
    return FALSE;
  now = g_get_monotonic_time();
  s->step_seconds = (double) (now - s->last_done) / G_USEC_PER_SEC;
  s->last_done = now;
  s->done++;
  elapsed = (double) (now - s->start) / G_USEC_PER_SEC;
  if (callback)
    callback(
        &(OsrSamplerProgress){
            .step = step + 1,
            .steps = s->params->num_steps,
            .forwards = forwards,
            .elapsed = elapsed,
            .remaining = elapsed / MAX(forwards, 1) * (s->total_forwards - forwards),
            .preview = has_preview(s, step) ? s->previews[step % OSR_SAMPLER_MAX_PENDING] : NULL,
        },
        user_data);
  return TRUE;
}

/* A step may fail because the device failed in the one before, which nobody has waited for. */
static void
blame_pending_step(OsrSampler *s, guint step, GError **failure)
{
  g_autofree char *name = step_name(s, s->done);
  GError *earlier = NULL;

  if (s->done == step || !g_error_matches(*failure, OSR_ERROR, OSR_ERROR_DEVICE) ||
      osr_device_wait(s->run.device, s->pending[s->done % OSR_SAMPLER_MAX_PENDING].mark, name,
                      &earlier))
    return;
  g_clear_error(failure);
  *failure = earlier;
}

/* The device has the next step to do while the host reports a short one. Long ones are waited
 * for: a pause is nothing to them, and their reports are due. */
gboolean
osr_sampler_loop(OsrSampler *s, OsrSamplerCallback callback, gpointer user_data,
                 GCancellable *cancellable, GError **error)
{
  gboolean is_host = osr_device_is_host(s->run.device);
  guint steps = s->params->num_steps;

  s->step_seconds = SHORT_SECONDS;
  s->last_done = g_get_monotonic_time();
  for (guint i = 0; i < steps; i++) {
    GError *failure = NULL;
    guint ahead;

    if (g_cancellable_set_error_if_cancelled(cancellable, error))
      return FALSE;
    if (!euler_step(s, i, cancellable, &failure)) {
      blame_pending_step(s, i, &failure);
      g_propagate_error(error, failure);
      return FALSE;
    }
    ahead = !is_host && i + 1 < steps && s->step_seconds < SHORT_SECONDS;
    while (s->done + ahead <= i)
      if (!finish_step(s, callback, user_data, error))
        return FALSE;
  }
  return TRUE;
}
