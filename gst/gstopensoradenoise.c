/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-opensoradenoise
 * @title: opensoradenoise
 * @short_description: Denoises the latent of a clip with Open-Sora's diffusion transformer
 *
 * For every conditioning buffer (of #opensoratextsrc or #opensoratextenc) this element draws
 * noise from the clip's seed and runs the rectified flow sampler of Open-Sora 2.0 on it. The
 * latent goes to #opensoravaedec.
 *
 * Pictures or clips that shall begin or end the clip come as latents from #opensoravaeenc
 * on the request pads `reference_%u`, one a clip; the last one of a stream that has ended
 * serves all clips that follow. A reference that the prompt's own meta names (a "ref" column
 * of a prompt file, or the property "reference" of the source) is read here when no such
 * pad is linked.
 *
 * Frame size and rate are negotiated with what comes after the decoder; the properties
 * "width" and "height", or "resolution" with "aspect-ratio", go before.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 opensoratextsrc prompt="a yellow star bouncing on a gray background" !
 * opensoradenoise steps=20 ! opensoravaedec ! video/x-raw,width=160,height=96 ! videoconvert !
 * autovideosink
 * ]|
 *
 * Since: 0.1
 */
#include <gst/base/gstaggregator.h>
#include <stdio.h>

#include "gstopensoraclipmeta.h"
#include "gstopensorasampling.h"
#include "gstopensoravideo.h"

GST_DEBUG_CATEGORY_STATIC(gst_opensora_denoise_debug);
#define GST_CAT_DEFAULT gst_opensora_denoise_debug

#define MAX_REFERENCES 2
/* Frames that a v2v_*_easy condition reads; the others need fewer. */
#define MAX_REFERENCE_FRAMES 65

#define SIZE_RANGE "width = (int) [ 16, 8192, 16 ], height = (int) [ 16, 8192, 16 ]"
#define LATENT_FIELDS                                                                              \
  ", " SIZE_RANGE ", frames = (int) [ 1, 65536 ], framerate = (fraction) [ 1/1, 240/1 ]"

enum {
  PROP_0,
  PROP_MODEL_LOCATION,
  PROP_DEVICE,
  PROP_SAMPLING, /* and the GST_OPENSORA_SAMPLING_N_PROPS - 1 ids after it */
};

#define GST_TYPE_OPENSORA_DENOISE (gst_opensora_denoise_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraDenoise, gst_opensora_denoise, GST, OPENSORA_DENOISE, GstAggregator)

struct _GstOpenSoraDenoise {
  GstAggregator parent;

  GstOpenSoraModel model;
  GstOpenSoraSampling sampling;

  GCancellable *cancellable;
  gint stopping; /* atomic; else a cancellation is for the clip at hand, not the stream */
  guint next_reference;

  /* Written by the streaming thread, with the object lock. */
  GstVideoInfo info; /* size and rate negotiated; fps_n 0: not yet */
  guint frames;      /* likewise, of a clip */
  guint64 frames_out;
};

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_OPENSORA_CONDITIONING_CAPS ", framerate = (fraction) [ 1/1, 240/1 ]"));

static GstStaticPadTemplate reference_template = GST_STATIC_PAD_TEMPLATE(
    "reference_%u", GST_PAD_SINK, GST_PAD_REQUEST,
    GST_STATIC_CAPS(GST_OPENSORA_LATENT_CAPS ", " SIZE_RANGE ", frames = (int) [ 1, 65536 ]"));

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(GST_OPENSORA_LATENT_CAPS LATENT_FIELDS));

G_DEFINE_FINAL_TYPE(GstOpenSoraDenoise, gst_opensora_denoise, GST_TYPE_AGGREGATOR)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(opensoradenoise, "opensoradenoise", GST_RANK_NONE,
                                      GST_TYPE_OPENSORA_DENOISE,
                                      GST_DEBUG_CATEGORY_INIT(gst_opensora_denoise_debug,
                                                              "opensoradenoise", 0,
                                                              "Open-Sora denoiser"));

/* What the source pad can do now: the template, the model's family and channels, and the
 * frame rate that the prompts were made for. */
static GstCaps *
get_possible_caps(OsrModel *model)
{
  GstCaps *caps = gst_static_pad_template_get_caps(&src_template);

  caps = gst_caps_make_writable(caps);
  if (model) {
    const OsrModelDir *dir = osr_model_get_dir(model);

    gst_caps_set_simple(caps, "family", G_TYPE_STRING, dir->family, "channels", G_TYPE_INT,
                        (gint) dir->vae.latent_channels, NULL);
  }
  return caps;
}

static void
post_impossible_caps(GstOpenSoraDenoise *self, GstCaps *downstream)
{
  GST_ELEMENT_ERROR(self, STREAM, FORMAT,
                    ("The size or frame rate asked for cannot be generated: width and height have "
                     "to be multiples of 16, and there are 1 to 240 frames a second."),
                    ("downstream caps: %" GST_PTR_FORMAT, downstream));
}

/* The base class fails without a word when the elements after us take nothing that we make. */
static gboolean
gst_opensora_denoise_negotiate(GstAggregator *agg)
{
  g_autoptr(GstCaps) possible = gst_static_pad_template_get_caps(&src_template);
  g_autoptr(GstCaps) downstream = gst_pad_peer_query_caps(agg->srcpad, possible);

  if (gst_caps_is_empty(downstream) && !GST_PAD_IS_FLUSHING(agg->srcpad)) {
    post_impossible_caps(GST_OPENSORA_DENOISE(agg), downstream);
    return FALSE;
  }
  return GST_AGGREGATOR_CLASS(gst_opensora_denoise_parent_class)->negotiate(agg);
}

static GstFlowReturn
gst_opensora_denoise_update_src_caps(GstAggregator *agg, GstCaps *downstream, GstCaps **ret)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  g_autoptr(GstPad) sink = gst_element_get_static_pad(GST_ELEMENT(self), "sink");
  g_autoptr(GstCaps) sink_caps = gst_pad_get_current_caps(sink);
  GError *error = NULL;
  gint fps_n, fps_d;
  GstCaps *caps;

  if (!sink_caps)
    return GST_AGGREGATOR_FLOW_NEED_DATA;
  gst_structure_get_fraction(gst_caps_get_structure(sink_caps, 0), "framerate", &fps_n, &fps_d);

  caps = get_possible_caps(self->model.model);
  gst_caps_set_simple(caps, "framerate", GST_TYPE_FRACTION, fps_n, fps_d, NULL);
  if (downstream) {
    GstCaps *both = gst_caps_intersect(caps, downstream);

    gst_caps_unref(caps);
    caps = both;
  }
  if (gst_caps_is_empty(caps)) {
    gst_caps_unref(caps);
    post_impossible_caps(self, downstream);
    return GST_FLOW_NOT_NEGOTIATED;
  }
  caps = gst_opensora_sampling_fixate_caps(&self->sampling, GST_ELEMENT(self),
                                           osr_model_get_dir(self->model.model), caps, &error);
  if (!caps) {
    gst_opensora_post_error(GST_ELEMENT(self), error);
    return GST_FLOW_NOT_NEGOTIATED;
  }
  *ret = caps;
  return GST_FLOW_OK;
}

static gboolean
gst_opensora_denoise_negotiated_src_caps(GstAggregator *agg, GstCaps *caps)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  const GstStructure *s = gst_caps_get_structure(caps, 0);
  gint width, height, frames, fps_n, fps_d;

  if (!gst_structure_get_int(s, "width", &width) || !gst_structure_get_int(s, "height", &height) ||
      !gst_structure_get_int(s, "frames", &frames) ||
      !gst_structure_get_fraction(s, "framerate", &fps_n, &fps_d))
    return FALSE;
  GST_OBJECT_LOCK(self);
  self->info.width = width;
  self->info.height = height;
  self->info.fps_n = fps_n;
  self->info.fps_d = fps_d;
  self->frames = (guint) frames;
  GST_OBJECT_UNLOCK(self);
  return TRUE;
}

/* References have the size of the clip, so what downstream asks for goes up to them too. */
static GstCaps *
get_reference_caps(GstOpenSoraDenoise *self)
{
  g_autoptr(OsrModel) model = gst_opensora_model_ref(&self->model, GST_ELEMENT(self));
  g_autoptr(GstCaps) current =
      gst_pad_get_current_caps(GST_AGGREGATOR_SRC_PAD(GST_AGGREGATOR(self)));
  GstCaps *caps = gst_static_pad_template_get_caps(&reference_template);
  gint width = 0, height = 0;

  if (!model)
    return caps;
  caps = gst_caps_make_writable(caps);
  if (!current) {
    GstCaps *possible = get_possible_caps(model);
    GstCaps *allowed =
        gst_pad_peer_query_caps(GST_AGGREGATOR_SRC_PAD(GST_AGGREGATOR(self)), possible);

    gst_caps_unref(possible);
    if (gst_caps_is_empty(allowed))
      gst_caps_unref(allowed);
    else
      current = gst_opensora_sampling_fixate_caps(&self->sampling, GST_ELEMENT(self),
                                                  osr_model_get_dir(model), allowed, NULL);
  }
  if (current) {
    gst_structure_get_int(gst_caps_get_structure(current, 0), "width", &width);
    gst_structure_get_int(gst_caps_get_structure(current, 0), "height", &height);
  }
  if (width && height)
    gst_caps_set_simple(caps, "width", G_TYPE_INT, width, "height", G_TYPE_INT, height, NULL);
  gst_caps_set_simple(caps, "family", G_TYPE_STRING, osr_model_get_dir(model)->family, NULL);
  return caps;
}

/* The frame rate is put into the prompt, so the prompt source has to hear what is wanted. */
static GstCaps *
get_conditioning_caps(GstOpenSoraDenoise *self)
{
  g_autoptr(OsrModel) model = gst_opensora_model_ref(&self->model, GST_ELEMENT(self));
  GstCaps *caps = gst_static_pad_template_get_caps(&sink_template);
  GstCaps *possible = get_possible_caps(model);
  GstCaps *allowed =
      gst_pad_peer_query_caps(GST_AGGREGATOR_SRC_PAD(GST_AGGREGATOR(self)), possible);

  caps = gst_caps_make_writable(caps);
  if (model)
    gst_caps_set_simple(caps, "family", G_TYPE_STRING, osr_model_get_dir(model)->family, NULL);
  if (!gst_caps_is_empty(allowed) && !gst_caps_is_any(allowed)) {
    const GValue *rate = gst_structure_get_value(gst_caps_get_structure(allowed, 0), "framerate");

    if (rate)
      gst_caps_set_value(caps, "framerate", rate);
  }
  gst_caps_unref(allowed);
  gst_caps_unref(possible);
  return caps;
}

static gboolean
is_reference(GstAggregatorPad *pad)
{
  return GST_PAD_PAD_TEMPLATE(pad) &&
         g_str_equal(GST_PAD_TEMPLATE_NAME_TEMPLATE(GST_PAD_PAD_TEMPLATE(pad)),
                     reference_template.name_template);
}

static gboolean
gst_opensora_denoise_sink_query(GstAggregator *agg, GstAggregatorPad *pad, GstQuery *query)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  GstCaps *filter, *caps;

  switch (GST_QUERY_TYPE(query)) {
  case GST_QUERY_CAPS:
    gst_query_parse_caps(query, &filter);
    caps = is_reference(pad) ? get_reference_caps(self) : get_conditioning_caps(self);
    if (filter) {
      GstCaps *filtered = gst_caps_intersect_full(filter, caps, GST_CAPS_INTERSECT_FIRST);

      gst_caps_unref(caps);
      caps = filtered;
    }
    gst_query_set_caps_result(query, caps);
    gst_caps_unref(caps);
    return TRUE;
  case GST_QUERY_ACCEPT_CAPS:
    gst_query_parse_accept_caps(query, &filter);
    caps = gst_pad_get_pad_template_caps(GST_PAD(pad));
    gst_query_set_accept_caps_result(query, gst_caps_is_subset(filter, caps));
    gst_caps_unref(caps);
    return TRUE;
  default:
    return GST_AGGREGATOR_CLASS(gst_opensora_denoise_parent_class)->sink_query(agg, pad, query);
  }
}

static GstClockTime
frame_time(GstOpenSoraDenoise *self, guint64 frame)
{
  return gst_util_uint64_scale(frame, self->info.fps_d * GST_SECOND, self->info.fps_n);
}

static gboolean
gst_opensora_denoise_src_query(GstAggregator *agg, GstQuery *query)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  g_autoptr(GstPad) sink = NULL;
  gint64 n_clips = -1, time = -1;
  GstFormat format;

  switch (GST_QUERY_TYPE(query)) {
  case GST_QUERY_DURATION:
    sink = gst_element_get_static_pad(GST_ELEMENT(self), "sink");
    gst_query_parse_duration(query, &format, NULL);
    if (format != GST_FORMAT_TIME ||
        !gst_pad_peer_query_duration(sink, GST_FORMAT_BUFFERS, &n_clips) || n_clips < 0)
      return FALSE;
    GST_OBJECT_LOCK(self);
    if (self->info.fps_n > 0)
      time = (gint64) frame_time(self, (guint64) n_clips * self->frames);
    GST_OBJECT_UNLOCK(self);
    gst_query_set_duration(query, GST_FORMAT_TIME, time);
    return time >= 0;
  case GST_QUERY_POSITION:
    gst_query_parse_position(query, &format, NULL);
    if (format != GST_FORMAT_TIME)
      return FALSE;
    GST_OBJECT_LOCK(self);
    if (self->info.fps_n > 0)
      time = (gint64) frame_time(self, self->frames_out);
    GST_OBJECT_UNLOCK(self);
    gst_query_set_position(query, GST_FORMAT_TIME, time);
    return time >= 0;
  default:
    return GST_AGGREGATOR_CLASS(gst_opensora_denoise_parent_class)->src_query(agg, query);
  }
}

static gboolean
gst_opensora_denoise_src_event(GstAggregator *agg, GstEvent *event)
{
  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_SEEK: /* a clip cannot be generated from its middle */
  case GST_EVENT_QOS:  /* nor faster */
    gst_event_unref(event);
    return FALSE;
  default:
    return GST_AGGREGATOR_CLASS(gst_opensora_denoise_parent_class)->src_event(agg, event);
  }
}

/* All latents that references are made of, as the engine takes them. */
typedef struct {
  OsrTensor *latent[MAX_REFERENCES];
  guint n;
} References;

static void
references_clear(References *refs)
{
  for (guint i = 0; i < refs->n; i++)
    osr_tensor_unref(refs->latent[i]);
  refs->n = 0;
}

static guint
reference_number(gconstpointer pad)
{
  guint n = 0;

  sscanf(GST_OBJECT_NAME(pad), "reference_%u", &n);
  return n;
}

static gint
compare_references(gconstpointer a, gconstpointer b)
{
  const guint n = reference_number(*(const gpointer *) a);
  const guint m = reference_number(*(const gpointer *) b);

  return (n > m) - (n < m);
}

/* The latent for the next clip that came on @pad, NULL if none ever did. The last one of a
 * stream that has ended stays. (transfer full) */
static GstBuffer *
next_reference(GstAggregatorPad *pad)
{
  GstBuffer *buffer = gst_aggregator_pad_pop_buffer(pad);

  GST_OBJECT_LOCK(pad);
  if (buffer)
    g_object_set_data_full(G_OBJECT(pad), "opensora-latent", gst_buffer_ref(buffer),
                           (GDestroyNotify) gst_buffer_unref);
  else if ((buffer = g_object_get_data(G_OBJECT(pad), "opensora-latent")))
    gst_buffer_ref(buffer);
  GST_OBJECT_UNLOCK(pad);
  return buffer;
}

static void
forget_reference(GstPad *pad)
{
  GST_OBJECT_LOCK(pad);
  g_object_set_data(G_OBJECT(pad), "opensora-latent", NULL);
  GST_OBJECT_UNLOCK(pad);
}

/* From the request pads, in the order of their numbers. */
static gboolean
collect_pad_references(GstOpenSoraDenoise *self, References *refs, GError **error)
{
  OsrDevice *device = osr_model_get_device(self->model.model);
  g_autoptr(GPtrArray) pads = g_ptr_array_new_with_free_func(gst_object_unref);
  gboolean ok = TRUE;

  GST_OBJECT_LOCK(self);
  for (GList *l = GST_ELEMENT(self)->sinkpads; l; l = l->next)
    if (is_reference(l->data))
      g_ptr_array_add(pads, gst_object_ref(l->data));
  GST_OBJECT_UNLOCK(self);
  g_ptr_array_sort(pads, compare_references);

  for (guint i = 0; i < pads->len && ok && refs->n < MAX_REFERENCES; i++) {
    GstBuffer *buffer = next_reference(g_ptr_array_index(pads, i));

    if (!buffer)
      continue;
    refs->latent[refs->n] =
        gst_opensora_buffer_get_tensor(buffer, 0, device, osr_device_get_dtype(device), error);
    ok = refs->latent[refs->n] != NULL;
    refs->n += ok;
    gst_buffer_unref(buffer);
  }
  return ok;
}

static gboolean
is_video_condition(gint condition)
{
  return condition >= OSR_CONDITION_V2V_HEAD;
}

/* From the paths in @locations, separated by ';'. */
static gboolean
load_references(GstOpenSoraDenoise *self, const char *locations, gint condition,
                const OsrSamplingParams *params, References *refs, GError **error)
{
  g_auto(GStrv) list = g_strsplit(locations, ";", MAX_REFERENCES);

  for (guint i = 0; list[i]; i++) {
    const char *location = g_strstrip(list[i]);

    if (!*location)
      continue;
    refs->latent[refs->n] = gst_opensora_video_load_latent(
        location, self->model.model, params->width, params->height,
        is_video_condition(condition) ? MAX_REFERENCE_FRAMES : 1, self->cancellable, error);
    if (!refs->latent[refs->n])
      return FALSE;
    refs->n++;
  }
  return TRUE;
}

static OsrCondition
choose_condition(gint condition, const References *refs)
{
  if (refs->n == 0)
    return OSR_CONDITION_T2V;
  if (condition != GST_OPENSORA_CONDITION_AUTO)
    return (OsrCondition) condition;
  if (refs->n == 2)
    return OSR_CONDITION_I2V_LOOP;
  if (refs->latent[0]->dims[0] >= 17)
    return OSR_CONDITION_V2V_HEAD_EASY;
  return refs->latent[0]->dims[0] >= 9 ? OSR_CONDITION_V2V_HEAD : OSR_CONDITION_I2V_HEAD;
}

static void
on_step(const OsrSamplerProgress *progress, gpointer user_data)
{
  gst_opensora_progress_step(user_data, progress->step, progress->steps, progress->remaining);
}

/* One clip: conditioning buffer in, latent buffer out. */
static GstBuffer *
denoise(GstOpenSoraDenoise *self, GstBuffer *input, GError **error)
{
  OsrModel *model = self->model.model;
  OsrDevice *device = osr_model_get_device(model);
  const OsrDType dtype = osr_device_get_dtype(device);
  const GstOpenSoraClipMeta *in_meta = gst_buffer_get_opensora_clip_meta(input);
  GstOpenSoraProgress progress;
  OsrSamplerInput sampler = { 0 };
  OsrTensor **text[] = { &sampler.txt, &sampler.vec, &sampler.neg_txt, &sampler.neg_vec };
  References refs = { 0 };
  g_autoptr(OsrTensor) latent = NULL;
  OsrSamplingParams params;
  GstOpenSoraClipMeta *meta;
  GstBuffer *output = NULL;
  GError *failure = NULL;
  OsrMmdit *mmdit = NULL;
  gint condition;
  guint dims[4];
  gboolean ok;

  gst_opensora_sampling_get_params(&self->sampling, GST_ELEMENT(self), osr_model_get_dir(model),
                                   &params, &condition);
  params.width = (guint) self->info.width;
  params.height = (guint) self->info.height;
  params.num_frames = self->frames;
  if (in_meta) {
    params.seed = in_meta->seed;
    params.sequence = in_meta->sequence;
  }

  gst_opensora_progress_start(&progress, GST_ELEMENT(self), device, "denoise", "Denoising",
                              in_meta ? in_meta->prompt : NULL, in_meta ? in_meta->clip : 0);
  ok = (mmdit = osr_model_get_mmdit(model, self->cancellable, &failure)) != NULL &&
       osr_sampling_params_check(&params, osr_mmdit_get_config(mmdit),
                                 osr_model_get_dir(model)->vae.spatial_compression_ratio,
                                 osr_model_get_dir(model)->vae.time_compression_ratio, &failure);
  for (guint i = 0; i < G_N_ELEMENTS(text) && ok; i++)
    ok = (*text[i] = gst_opensora_buffer_get_tensor(input, i, device, dtype, &failure)) != NULL;
  if (ok && condition != OSR_CONDITION_T2V) {
    ok = collect_pad_references(self, &refs, &failure);
    if (ok && refs.n == 0 && in_meta && in_meta->reference)
      ok = load_references(self, in_meta->reference, condition, &params, &refs, &failure);
  }
  if (ok) {
    sampler.condition = choose_condition(condition, &refs);
    for (guint i = 0; i < refs.n; i++)
      sampler.ref[i] = refs.latent[i];
    osr_model_latent_dims(model, params.num_frames, params.width, params.height, dims);
    latent = osr_sampler_run(mmdit, &params, &sampler, dims, NULL, on_step, &progress,
                             self->cancellable, &failure);
    ok = latent != NULL;
  }
  references_clear(&refs);
  for (guint i = 0; i < G_N_ELEMENTS(text); i++)
    g_clear_pointer(text[i], osr_tensor_unref);

  if (!ok) {
    /* The bus hears the reason before the progress ends, so that nobody takes the end of
     * the progress for all there is to know. */
    if (error)
      *error = g_error_copy(failure);
    gst_opensora_post_error(GST_ELEMENT(self), failure);
    gst_opensora_progress_end(&progress, error ? *error : NULL);
    return NULL;
  }
  gst_opensora_progress_end(&progress, NULL);

  output = gst_opensora_buffer_new(&latent, 1);
  meta = in_meta ? gst_opensora_clip_meta_copy(in_meta, output)
                 : gst_buffer_add_opensora_clip_meta(output);
  meta->fps_n = self->info.fps_n;
  meta->fps_d = self->info.fps_d;
  meta->seed = params.seed;
  meta->steps = params.num_steps;
  meta->num_frames = params.num_frames;
  meta->width = params.width;
  meta->height = params.height;
  meta->guidance = params.guidance;
  meta->guidance_img = params.guidance_img;
  meta->condition = sampler.condition;
  return output;
}

static GstFlowReturn
gst_opensora_denoise_aggregate(GstAggregator *agg, gboolean timeout)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  g_autoptr(GstPad) sink = gst_element_get_static_pad(GST_ELEMENT(self), "sink");
  GstAggregatorPad *pad = GST_AGGREGATOR_PAD(sink);
  g_autoptr(GstBuffer) input = gst_aggregator_pad_pop_buffer(pad);
  g_autoptr(GError) error = NULL;
  GstBuffer *output;

  if (!input)
    return gst_aggregator_pad_is_eos(pad) ? GST_FLOW_EOS : GST_AGGREGATOR_FLOW_NEED_DATA;
  if (self->info.fps_n == 0) {
    GST_ELEMENT_ERROR(self, CORE, NEGOTIATION, (NULL), ("a buffer came before its caps"));
    return GST_FLOW_NOT_NEGOTIATED;
  }

  output = denoise(self, input, &error);
  if (!output) {
    if (!g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
      return GST_FLOW_ERROR;
    /* After a flush the next clip comes, with or without a break on the other pads; and EOS
     * where the application ends the stream. */
    return g_atomic_int_get(&self->stopping) ? GST_FLOW_FLUSHING : GST_AGGREGATOR_FLOW_NEED_DATA;
  }

  GST_BUFFER_PTS(output) = frame_time(self, self->frames_out);
  GST_BUFFER_DURATION(output) =
      frame_time(self, self->frames_out + self->frames) - GST_BUFFER_PTS(output);
  GST_BUFFER_OFFSET(output) = self->frames_out;
  GST_OBJECT_LOCK(self);
  self->frames_out += self->frames;
  GST_OBJECT_UNLOCK(self);
  GST_BUFFER_OFFSET_END(output) = self->frames_out;
  return gst_aggregator_finish_buffer(agg, output);
}

static gboolean
gst_opensora_denoise_sink_event(GstAggregator *agg, GstAggregatorPad *pad, GstEvent *event)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);

  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_FLUSH_START:
    /* Has to stop a clip that is being denoised before the parent waits for it. */
    if (!is_reference(pad))
      g_cancellable_cancel(self->cancellable);
    break;
  case GST_EVENT_FLUSH_STOP:
    if (is_reference(pad))
      forget_reference(GST_PAD(pad));
    else
      g_cancellable_reset(self->cancellable);
    break;
  case GST_EVENT_CUSTOM_DOWNSTREAM_OOB:
    if (!is_reference(pad) && gst_event_has_name(event, GST_OPENSORA_END_EVENT))
      g_cancellable_cancel(self->cancellable); /* for the clips in the queue, too */
    break;
  case GST_EVENT_CAPS: /* may have another frame rate */
    if (!is_reference(pad))
      gst_pad_mark_reconfigure(agg->srcpad);
    break;
  case GST_EVENT_GAP: /* no clip; the parent would make an empty buffer of it */
  case GST_EVENT_TAG: /* made anew for every clip by the decoder */
    gst_event_unref(event);
    return TRUE;
  default:
    break;
  }
  return GST_AGGREGATOR_CLASS(gst_opensora_denoise_parent_class)->sink_event(agg, pad, event);
}

static GstFlowReturn
gst_opensora_denoise_flush(GstAggregator *agg)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);

  g_cancellable_reset(self->cancellable);
  GST_OBJECT_LOCK(self);
  self->frames_out = 0;
  GST_OBJECT_UNLOCK(self);
  return GST_FLOW_OK;
}

static gboolean
gst_opensora_denoise_start(GstAggregator *agg)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  GstSegment *segment = &GST_AGGREGATOR_PAD(agg->srcpad)->segment;
  GError *error = NULL;
  guint width, height;

  if (!gst_opensora_model_open(&self->model, GST_ELEMENT(self)))
    return FALSE;
  if (!gst_opensora_sampling_get_size(&self->sampling, GST_ELEMENT(self),
                                      osr_model_get_dir(self->model.model), &width, &height,
                                      &error)) {
    gst_opensora_post_error(GST_ELEMENT(self), error);
    gst_opensora_model_close(&self->model, GST_ELEMENT(self));
    return FALSE;
  }
  gst_segment_init(segment, GST_FORMAT_TIME);
  g_cancellable_reset(self->cancellable);
  g_atomic_int_set(&self->stopping, FALSE);
  self->frames_out = 0;
  return TRUE;
}

static gboolean
gst_opensora_denoise_stop(GstAggregator *agg)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);

  gst_opensora_model_close(&self->model, GST_ELEMENT(self));
  GST_OBJECT_LOCK(self);
  gst_video_info_init(&self->info);
  self->info.fps_n = 0;
  self->frames = 0;
  for (GList *l = GST_ELEMENT(self)->sinkpads; l; l = l->next)
    forget_reference(l->data);
  GST_OBJECT_UNLOCK(self);
  return TRUE;
}

static GstStateChangeReturn
gst_opensora_denoise_change_state(GstElement *element, GstStateChange transition)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(element);

  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY) {
    g_atomic_int_set(&self->stopping, TRUE);
    g_cancellable_cancel(self->cancellable);
  }
  return GST_ELEMENT_CLASS(gst_opensora_denoise_parent_class)->change_state(element, transition);
}

static GstAggregatorPad *
gst_opensora_denoise_create_new_pad(GstAggregator *agg, GstPadTemplate *templ, const gchar *name,
                                    const GstCaps *caps)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  g_autofree char *pad_name = NULL;
  guint n;

  GST_OBJECT_LOCK(self);
  if (GST_ELEMENT(self)->numsinkpads > MAX_REFERENCES) {
    GST_OBJECT_UNLOCK(self);
    GST_WARNING_OBJECT(self, "no condition takes more than %u references", MAX_REFERENCES);
    return NULL;
  }
  if (name && sscanf(name, "reference_%u", &n) == 1)
    self->next_reference = MAX(self->next_reference, n + 1);
  else
    n = self->next_reference++;
  GST_OBJECT_UNLOCK(self);
  pad_name = g_strdup_printf("reference_%u", n);
  return g_object_new(GST_TYPE_AGGREGATOR_PAD, "name", pad_name, "direction", GST_PAD_SINK,
                      "template", templ, NULL);
}

static void
gst_opensora_denoise_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(object);
  GstElement *element = GST_ELEMENT(object);

  switch (id) {
  case PROP_MODEL_LOCATION:
    gst_opensora_model_set_location(&self->model, element, value);
    break;
  case PROP_DEVICE:
    gst_opensora_model_set_device(&self->model, element, value);
    break;
  default:
    if (!gst_opensora_sampling_set_property(&self->sampling, element, id - PROP_SAMPLING, value))
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
    else if (id - PROP_SAMPLING >= GST_OPENSORA_SAMPLING_PROP_NUM_FRAMES)
      gst_pad_mark_reconfigure(GST_AGGREGATOR_SRC_PAD(GST_AGGREGATOR(self)));
  }
}

static void
gst_opensora_denoise_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(object);

  switch (id) {
  case PROP_MODEL_LOCATION:
    GST_OBJECT_LOCK(self);
    g_value_set_string(value, self->model.location);
    GST_OBJECT_UNLOCK(self);
    break;
  case PROP_DEVICE:
    GST_OBJECT_LOCK(self);
    g_value_set_string(value, self->model.device);
    GST_OBJECT_UNLOCK(self);
    break;
  default:
    if (!gst_opensora_sampling_get_property(&self->sampling, GST_ELEMENT(self), id - PROP_SAMPLING,
                                            value))
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
}

static void
gst_opensora_denoise_finalize(GObject *object)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(object);

  gst_opensora_model_clear(&self->model);
  gst_opensora_sampling_clear(&self->sampling);
  g_object_unref(self->cancellable);
  G_OBJECT_CLASS(gst_opensora_denoise_parent_class)->finalize(object);
}

static void
gst_opensora_denoise_class_init(GstOpenSoraDenoiseClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);
  GstAggregatorClass *agg_class = GST_AGGREGATOR_CLASS(klass);

  object_class->set_property = gst_opensora_denoise_set_property;
  object_class->get_property = gst_opensora_denoise_get_property;
  object_class->finalize = gst_opensora_denoise_finalize;
  gst_opensora_model_install_properties(object_class, PROP_MODEL_LOCATION, PROP_DEVICE);
  gst_opensora_sampling_install_properties(object_class, PROP_SAMPLING);

  gst_element_class_set_static_metadata(element_class, "Open-Sora denoiser", "Filter/Video",
                                        "Denoises the latent of a clip that a prompt describes",
                                        "The gst-opensora authors");
  gst_element_class_add_static_pad_template_with_gtype(element_class, &sink_template,
                                                       GST_TYPE_AGGREGATOR_PAD);
  gst_element_class_add_static_pad_template_with_gtype(element_class, &reference_template,
                                                       GST_TYPE_AGGREGATOR_PAD);
  gst_element_class_add_static_pad_template_with_gtype(element_class, &src_template,
                                                       GST_TYPE_AGGREGATOR_PAD);

  element_class->change_state = gst_opensora_denoise_change_state;
  agg_class->start = gst_opensora_denoise_start;
  agg_class->stop = gst_opensora_denoise_stop;
  agg_class->flush = gst_opensora_denoise_flush;
  agg_class->sink_event = gst_opensora_denoise_sink_event;
  agg_class->sink_query = gst_opensora_denoise_sink_query;
  agg_class->src_query = gst_opensora_denoise_src_query;
  agg_class->src_event = gst_opensora_denoise_src_event;
  agg_class->negotiate = gst_opensora_denoise_negotiate;
  agg_class->update_src_caps = gst_opensora_denoise_update_src_caps;
  agg_class->negotiated_src_caps = gst_opensora_denoise_negotiated_src_caps;
  agg_class->aggregate = gst_opensora_denoise_aggregate;
  agg_class->create_new_pad = gst_opensora_denoise_create_new_pad;
}

static void
gst_opensora_denoise_init(GstOpenSoraDenoise *self)
{
  GstPadTemplate *templ = gst_element_class_get_pad_template(GST_ELEMENT_GET_CLASS(self), "sink");

  gst_opensora_model_init(&self->model);
  gst_opensora_sampling_init(&self->sampling);
  self->cancellable = g_cancellable_new();
  gst_video_info_init(&self->info);
  self->info.fps_n = 0;

  gst_element_add_pad(GST_ELEMENT(self),
                      g_object_new(GST_TYPE_AGGREGATOR_PAD, "name", "sink", "direction",
                                   GST_PAD_SINK, "template", templ, NULL));
}
