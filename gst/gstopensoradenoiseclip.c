/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The making of a clip in opensoradenoise: what goes into the sampler and what comes out of it.
 */
#include "gstopensoraclipmeta.h"
#include "gstopensoradenoise.h"
#include "gstopensorapreviewpad.h"
#include "gstopensorareferences.h"

#define GST_CAT_DEFAULT gst_opensora_denoise_debug

/**
 * Job:
 *
 * A clip and its extensions: the clip itself first, then each from what was made before it.
 */
typedef struct {
  GstBuffer *input;          /* owned */
  GCancellable *cancellable; /* borrowed; of all of it */
  GstOpenSoraTicket *ticket; /* owned; NULL: none, or settled */
  guint extension;           /* 0: the clip itself */
  OsrTensor *latent;         /* made last, NULL: nothing yet */
} Job;

static void
job_clear(Job *job)
{
  gst_clear_buffer(&job->input);
  g_clear_pointer(&job->latent, osr_tensor_unref);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Job, job_clear)

/* Whether an extension is next. Without end means until another prompt waits, here or where it
 * would come from. */
static gboolean
goes_on(GstOpenSoraDenoise *self, GstAggregatorPad *pad, const Job *job)
{
  const gint extend = gst_opensora_sampling_get_extend(&self->sampling, GST_ELEMENT(self));

  if (g_cancellable_is_cancelled(job->cancellable) || gst_opensora_ticket_is_over(job->ticket))
    return FALSE;
  if (extend >= 0)
    return job->extension < (guint) extend;
  return !gst_aggregator_pad_has_buffer(pad) && !gst_opensora_ticket_is_awaited(job->ticket);
}

/* How a clip is denoised, beside what the prompt's meta says. */
static void
describe_clip(GstOpenSoraDenoise *self, GstStructure *clip, const Job *job,
              const OsrSamplingParams *params, const GstOpenSoraReferences *refs)
{
  const gint extend = gst_opensora_sampling_get_extend(&self->sampling, GST_ELEMENT(self));

  gst_opensora_sampling_describe(params, clip);
  gst_structure_set(clip, "framerate", GST_TYPE_FRACTION, self->fps_n, self->fps_d, "condition",
                    G_TYPE_STRING, gst_opensora_condition_nick((gint) refs->condition), NULL);
  /* A file that was named but not used is no part of the clip. */
  if (refs->n == 0 || refs->from_pads)
    gst_structure_remove_field(clip, "reference");
  if (job->extension)
    gst_structure_set(clip, "extension", G_TYPE_UINT, job->extension, "lead-in", G_TYPE_UINT,
                      self->lead_in, NULL);
  else if (extend)
    gst_structure_set(clip, "extend", G_TYPE_INT, extend, NULL);
}

static gboolean
get_text(GstBuffer *input, OsrModel *model, OsrTensor **text[4], GError **error)
{
  OsrDevice *device = osr_model_get_device(model);
  const guint plain = GST_OPENSORA_PLAIN_PROMPT_MEMORY;
  const gboolean use_plain =
      gst_opensora_denoise_makes_pictures(model) && gst_buffer_n_memory(input) >= plain + 2;

  for (guint i = 0; i < 4; i++) {
    *text[i] = gst_opensora_buffer_get_tensor(input, use_plain && i < 2 ? plain + i : i, device,
                                              osr_model_get_dtype(model), error);
    if (!*text[i])
      return FALSE;
  }
  return TRUE;
}

static gboolean
get_references(GstOpenSoraDenoise *self, const Job *job, gint condition,
               const OsrSamplingParams *params, GstOpenSoraReferences *refs, GError **error)
{
  const GstStructure *clip = gst_opensora_clip_meta_get(job->input);

  if (job->extension)
    return gst_opensora_references_check_extend(osr_model_get_dir(self->model.model),
                                                params->num_frames, error) &&
           gst_opensora_references_continue(refs, GST_ELEMENT(self), self->model.model, job->latent,
                                            job->cancellable, error);
  return gst_opensora_references_collect(refs, GST_ELEMENT(self), self->model.model, condition,
                                         clip ? gst_structure_get_string(clip, "reference") : NULL,
                                         params, job->cancellable, error);
}

/* Previews */

/* What the sampler's callback needs. */
typedef struct {
  GstOpenSoraDenoise *self;
  const Job *job;
  const OsrSamplingParams *params;
  const GstOpenSoraReferences *refs;
  GstOpenSoraProgress *progress;
} Work;

/* Steps from one preview to the next; 0: nobody wants any. */
static guint
get_preview_interval(GstOpenSoraDenoise *self)
{
  const OsrModelDir *dir = osr_model_get_dir(self->model.model);
  g_autoptr(GstOpenSoraPreviewPad) pad = gst_opensora_preview_pad_get(GST_ELEMENT(self));
  guint interval;

  GST_OBJECT_LOCK(self);
  interval = self->preview_interval;
  GST_OBJECT_UNLOCK(self);
  if (!pad || interval == 0 || !gst_opensora_preview_pad_is_wanted(pad))
    return 0;
  if (dir->preview.channels > 0)
    return interval;
  if (!self->told_no_previews)
    GST_ELEMENT_WARNING(self, STREAM, NOT_IMPLEMENTED,
                        ("There are no previews of the model \"%s\".", dir->name),
                        ("%s: no \"preview\" in its config.json", dir->path));
  self->told_no_previews = TRUE;
  return 0;
}

static GstStructure *
describe_preview(const Work *work, const OsrSamplerProgress *progress)
{
  const GstStructure *prompt = gst_opensora_clip_meta_get(work->job->input);
  GstStructure *clip =
      prompt ? gst_structure_copy(prompt) : gst_structure_new_empty(GST_OPENSORA_CLIP_META);

  describe_clip(work->self, clip, work->job, work->params, work->refs);
  gst_opensora_clip_meta_forget_ticket(clip);
  gst_structure_set(clip, "preview", G_TYPE_BOOLEAN, TRUE, "step", G_TYPE_UINT, progress->step,
                    NULL);
  return clip;
}

/* A preview that cannot be made is none of the clip's business. */
static void
show_preview(const Work *work, const OsrSamplerProgress *progress)
{
  GstOpenSoraDenoise *self = work->self;
  const OsrModelDir *dir = osr_model_get_dir(self->model.model);
  const guint shown = work->job->extension ? self->lead_in : 0;
  g_autoptr(GstOpenSoraPreviewPad) pad = gst_opensora_preview_pad_get(GST_ELEMENT(self));
  g_autoptr(GError) error = NULL;
  GstOpenSoraPreview *preview;
  float *latent;

  if (!pad || !gst_opensora_preview_pad_is_wanted(pad))
    return;
  latent = osr_preview_copy(progress->preview, &error);
  if (!latent) {
    GST_WARNING_OBJECT(self, "no preview after step %u: %s", progress->step, error->message);
    return;
  }
  preview = g_new(GstOpenSoraPreview, 1);
  *preview = (GstOpenSoraPreview){
    .latent = latent,
    .t = (guint) progress->preview->dims[0],
    .h = (guint) progress->preview->dims[1],
    .w = (guint) progress->preview->dims[2],
    .skip = shown ? (shown - 1) / dir->vae.time_compression_ratio + 1 : 0,
    .map = dir->preview,
    .clip = describe_preview(work, progress),
    .start = gst_opensora_denoise_frame_time(self, self->frames_out),
    .end = gst_opensora_denoise_frame_time(self, self->frames_out + self->frames - shown),
    .fps_n = self->fps_n,
    .fps_d = self->fps_d,
    .n_frames = self->frames - shown,
  };
  gst_opensora_preview_pad_offer(pad, preview);
}

static void
drop_previews(GstOpenSoraDenoise *self)
{
  g_autoptr(GstOpenSoraPreviewPad) pad = gst_opensora_preview_pad_get(GST_ELEMENT(self));

  if (pad)
    gst_opensora_preview_pad_drop(pad);
}

static void
on_step(const OsrSamplerProgress *progress, gpointer user_data)
{
  const Work *work = user_data;

  gst_opensora_progress_step(work->progress, progress->step, progress->steps, progress->remaining);
  if (progress->preview)
    show_preview(work, progress);
}

/* Clips */

/* A clip may ask for a size and length of its own: where it does, or the one before did, caps are
 * negotiated anew. What it asks for has to be possible, or the stream would end here. */
static gboolean
negotiate_clip(GstOpenSoraDenoise *self, const GstStructure *clip, GError **error)
{
  GstAggregator *agg = GST_AGGREGATOR(self);
  GstCaps *possible;

  if (!gst_opensora_sampling_set_clip(&self->sampling, GST_ELEMENT(self), clip))
    return TRUE;
  possible = gst_opensora_denoise_get_possible_caps(self->model.model);
  gst_caps_set_simple(possible, "framerate", GST_TYPE_FRACTION, self->fps_n, self->fps_d, NULL);
  if (gst_opensora_sampling_check_clip(&self->sampling, GST_ELEMENT(self),
                                       osr_model_get_dir(self->model.model), agg->srcpad, possible,
                                       error)) {
    if (gst_aggregator_negotiate(agg))
      return TRUE;
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_FAILED,
                        "the elements after the denoiser refuse the clip's size");
  }
  gst_opensora_sampling_set_clip(&self->sampling, GST_ELEMENT(self), NULL);
  gst_pad_mark_reconfigure(agg->srcpad);
  return FALSE;
}

/* One clip or extension: conditioning buffer in, latent buffer out. NULL: *ret says what to pass
 * on. What can be wrong with the input is found out before the denoiser's weights are loaded. */
static GstBuffer *
denoise(GstOpenSoraDenoise *self, Job *job, GstFlowReturn *ret)
{
  OsrModel *model = self->model.model;
  OsrDevice *device = osr_model_get_device(model);
  const GstStructure *clip = gst_opensora_clip_meta_get(job->input);
  g_auto(GstOpenSoraReferences) refs = { 0 };
  GstOpenSoraProgress progress = { .extension = job->extension };
  OsrSamplerInput sampler = { 0 };
  OsrTensor **text[] = { &sampler.txt, &sampler.vec, &sampler.neg_txt, &sampler.neg_vec };
  OsrTensor *latent = NULL;
  OsrMmdit *mmdit = NULL;
  OsrSamplingParams params;
  Work work = { self, job, &params, &refs, &progress };
  GstBuffer *output = NULL;
  GError *error = NULL;
  gint condition;
  guint number = 0, dims[4];
  gboolean ready;

  if (clip)
    gst_structure_get_uint(clip, "clip", &number);
  gst_opensora_progress_start(&progress, GST_ELEMENT(self), device, "denoise",
                              job->extension ? "Denoising an extension" : "Denoising",
                              clip ? gst_structure_get_string(clip, "prompt") : NULL, number,
                              gst_opensora_clip_meta_get_ticket(clip), job->cancellable);
  ready = !g_cancellable_set_error_if_cancelled(job->cancellable, &error) &&
          (job->extension || negotiate_clip(self, clip, &error));
  condition = gst_opensora_denoise_get_params(self, (guint) self->width, (guint) self->height,
                                              self->frames, &params);
  if (condition == GST_OPENSORA_CONDITION_AUTO && gst_opensora_denoise_makes_pictures(model))
    condition = OSR_CONDITION_T2V;
  if (clip)
    gst_structure_get_uint64(clip, "seed", &params.seed);
  params.sequence = job->extension;
  params.preview_every = get_preview_interval(self);

  if (ready && get_text(job->input, model, text, &error) &&
      get_references(self, job, condition, &params, &refs, &error)) {
    mmdit = osr_model_get_mmdit(model, job->cancellable, &error);
    progress.fatal = !mmdit;
  }
  if (mmdit) {
    sampler.condition = refs.condition;
    sampler.keep_video = job->extension > 0;
    for (guint i = 0; i < refs.n; i++)
      sampler.ref[i] = refs.latent[i];
    osr_model_latent_dims(model, params.num_frames, params.width, params.height, dims);
    latent = osr_sampler_run(mmdit, &params, &sampler, dims, NULL, on_step, &work, job->cancellable,
                             &error);
  }
  for (guint i = 0; i < G_N_ELEMENTS(text); i++)
    g_clear_pointer(text[i], osr_tensor_unref);

  if (!latent) {
    drop_previews(self);
    *ret = gst_opensora_progress_fail(&progress, error);
    return NULL;
  }
  gst_opensora_progress_complete(&progress);
  if (!gst_opensora_clip_meta_is_picture(clip))
    gst_opensora_ticket_make(job->ticket);
  output = gst_opensora_buffer_new(&latent, 1);
  describe_clip(self, gst_opensora_clip_meta_add(output, clip), job, &params, &refs);
  g_clear_pointer(&job->latent, osr_tensor_unref);
  job->latent = latent;
  return output;
}

/* Sends what has been made, which adds @n_frames to the stream. */
static GstFlowReturn
push_clip(GstOpenSoraDenoise *self, GstBuffer *output, guint n_frames)
{
  const guint64 first = self->frames_out, end = first + n_frames;

  GST_BUFFER_PTS(output) = gst_opensora_denoise_frame_time(self, first);
  GST_BUFFER_DURATION(output) = gst_opensora_denoise_frame_time(self, end) - GST_BUFFER_PTS(output);
  GST_BUFFER_OFFSET(output) = first;
  GST_BUFFER_OFFSET_END(output) = end;
  GST_OBJECT_LOCK(self);
  self->frames_out = end;
  GST_OBJECT_UNLOCK(self);
  return gst_aggregator_finish_buffer(GST_AGGREGATOR(self), output);
}

/* The clip and its extensions. */
static GstFlowReturn
make_clips(GstOpenSoraDenoise *self, GstAggregatorPad *pad, Job *job)
{
  const gint extend = gst_opensora_sampling_get_extend(&self->sampling, GST_ELEMENT(self));
  GstFlowReturn ret = GST_FLOW_OK;
  GstBuffer *output;

  gst_opensora_ticket_extend(job->ticket, extend);
  output = denoise(self, job, &ret);
  if (output)
    ret = push_clip(self, output, self->frames);
  while (output && ret == GST_FLOW_OK && goes_on(self, pad, job)) {
    job->extension++;
    output = denoise(self, job, &ret);
    if (output)
      ret = push_clip(self, output, self->frames - self->lead_in);
  }
  if (output || ret != GST_FLOW_FLUSHING)
    return ret;
  /* After a flush or a clip that was cancelled the next comes, with or without a break on the other
   * pads; and EOS where the application ends the stream. */
  return gst_opensora_interrupt_has(&self->interrupt, GST_OPENSORA_STOPPING)
             ? GST_FLOW_FLUSHING
             : GST_AGGREGATOR_FLOW_NEED_DATA;
}

GstFlowReturn
gst_opensora_denoise_make_clips(GstOpenSoraDenoise *self, GstAggregatorPad *pad, GstBuffer *input,
                                GCancellable *cancellable)
{
  g_auto(Job) job = { .input = input, .cancellable = cancellable };
  GstOpenSoraTicket *ticket = gst_opensora_clip_meta_get_ticket(gst_opensora_clip_meta_get(input));
  GstFlowReturn ret;

  job.ticket = ticket ? g_object_ref(ticket) : NULL;
  ret = make_clips(self, pad, &job);
  gst_clear_buffer(&job.input);
  gst_opensora_ticket_settle(g_steal_pointer(&job.ticket));
  return ret;
}
