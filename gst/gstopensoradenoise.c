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
 * On the request pad `preview` goes out, every few steps, what the clip looks like so far: a
 * frame for each frame of the latent, as small as it is.
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
#include "gstopensoradenoise.h"

#include <stdio.h>

#include "gstopensorapreviewpad.h"
#include "gstopensorareferences.h"

GST_DEBUG_CATEGORY(gst_opensora_denoise_debug);
#define GST_CAT_DEFAULT gst_opensora_denoise_debug

#define DEFAULT_PREVIEW_INTERVAL 5
#define FRAMES_FIELD "frames = (int) [ 1, 65536 ]"

enum {
  PROP_0,
  PROP_MODEL, /* and the GST_OPENSORA_MODEL_N_PROPS - 1 ids after it */
  PROP_SAMPLING = PROP_MODEL + GST_OPENSORA_MODEL_N_PROPS, /* likewise */
  PROP_PREVIEW_INTERVAL = PROP_SAMPLING + GST_OPENSORA_SAMPLING_N_PROPS,
};

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_OPENSORA_CONDITIONING_CAPS ", " GST_OPENSORA_RATE_FIELD));

static GstStaticPadTemplate reference_template = GST_STATIC_PAD_TEMPLATE(
    "reference_%u", GST_PAD_SINK, GST_PAD_REQUEST,
    GST_STATIC_CAPS(GST_OPENSORA_LATENT_CAPS ", " GST_OPENSORA_SIZE_FIELDS ", " FRAMES_FIELD));

/* Any size and rate can be linked: see gst_opensora_denoise_get_possible_caps(). */
static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_OPENSORA_LATENT_CAPS ", " GST_OPENSORA_ANY_VIDEO_FIELDS ", " FRAMES_FIELD));

static GstStaticPadTemplate preview_template = GST_STATIC_PAD_TEMPLATE(
    "preview", GST_PAD_SRC, GST_PAD_REQUEST, GST_STATIC_CAPS(GST_OPENSORA_PREVIEW_CAPS));

G_DEFINE_FINAL_TYPE_WITH_CODE(GstOpenSoraDenoise, gst_opensora_denoise, GST_TYPE_AGGREGATOR,
                              G_IMPLEMENT_INTERFACE(GST_TYPE_PRESET, NULL))
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(opensoradenoise, "opensoradenoise", GST_RANK_NONE,
                                      GST_TYPE_OPENSORA_DENOISE,
                                      GST_DEBUG_CATEGORY_INIT(gst_opensora_denoise_debug,
                                                              "opensoradenoise", 0,
                                                              "Open-Sora denoiser"));

gboolean
gst_opensora_denoise_makes_pictures(OsrModel *model)
{
  return osr_model_get_dir(model)->vae.type == OSR_VAE_FLUX;
}

GstCaps *
gst_opensora_denoise_get_possible_caps(OsrModel *model)
{
  const OsrModelDir *dir;
  GstCaps *caps;

  if (!model)
    return gst_static_pad_template_get_caps(&src_template);
  dir = osr_model_get_dir(model);
  caps =
      gst_caps_from_string(GST_OPENSORA_LATENT_CAPS ", " GST_OPENSORA_SIZE_FIELDS ", " FRAMES_FIELD
                                                    ", " GST_OPENSORA_RATE_FIELD);
  gst_caps_set_simple(caps, "family", G_TYPE_STRING, dir->family, "channels", G_TYPE_INT,
                      (gint) dir->vae.latent_channels, NULL);
  return caps;
}

/* Nothing that we make is wanted. What is wanted is heard without the filter of our own caps. */
static void
post_impossible_caps(GstOpenSoraDenoise *self)
{
  g_autoptr(GstCaps) wanted =
      gst_pad_peer_query_caps(GST_AGGREGATOR_SRC_PAD(GST_AGGREGATOR(self)), NULL);
  g_autofree char *reason = gst_opensora_sampling_describe_impossible(wanted);

  GST_ELEMENT_ERROR(
      self, STREAM, FORMAT,
      ("%s", reason ? reason : "The elements after the denoiser take nothing that it makes."),
      ("downstream caps: %" GST_PTR_FORMAT, wanted));
}

/* The base class fails without a word when the elements after us take nothing that we make. */
static gboolean
gst_opensora_denoise_negotiate(GstAggregator *agg)
{
  g_autoptr(GstCaps) possible =
      gst_opensora_denoise_get_possible_caps(GST_OPENSORA_DENOISE(agg)->model.model);
  g_autoptr(GstCaps) downstream = gst_pad_peer_query_caps(agg->srcpad, possible);

  if (gst_caps_is_empty(downstream) && !GST_PAD_IS_FLUSHING(agg->srcpad)) {
    post_impossible_caps(GST_OPENSORA_DENOISE(agg));
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

  caps = gst_opensora_denoise_get_possible_caps(self->model.model);
  gst_caps_set_simple(caps, "framerate", GST_TYPE_FRACTION, fps_n, fps_d, NULL);
  if (downstream) {
    GstCaps *both = gst_caps_intersect(caps, downstream);

    gst_caps_unref(caps);
    caps = both;
  }
  if (gst_caps_is_empty(caps)) {
    gst_caps_unref(caps);
    post_impossible_caps(self);
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

gint
gst_opensora_denoise_get_params(GstOpenSoraDenoise *self, guint width, guint height, guint frames,
                                OsrSamplingParams *params)
{
  gint condition;

  gst_opensora_sampling_get_params(&self->sampling, GST_ELEMENT(self),
                                   osr_model_get_dir(self->model.model), params, &condition);
  params->width = width;
  params->height = height;
  params->num_frames = frames;
  return condition;
}

/* Says now, before minutes go into loading and encoding, what the model cannot do. */
static gboolean
gst_opensora_denoise_negotiated_src_caps(GstAggregator *agg, GstCaps *caps)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  const OsrModelDir *dir = osr_model_get_dir(self->model.model);
  const GstStructure *s = gst_caps_get_structure(caps, 0);
  gint width, height, frames, fps_n, fps_d;
  OsrSamplingParams params;
  OsrCondition condition;
  GError *error = NULL;

  if (!gst_structure_get_int(s, "width", &width) || !gst_structure_get_int(s, "height", &height) ||
      !gst_structure_get_int(s, "frames", &frames) ||
      !gst_structure_get_fraction(s, "framerate", &fps_n, &fps_d))
    return FALSE;
  gst_opensora_denoise_get_params(self, (guint) width, (guint) height, (guint) frames, &params);
  if (!osr_sampling_params_check(&params, &dir->mmdit, dir->vae.spatial_compression_ratio,
                                 dir->vae.time_compression_ratio, &error) ||
      (gst_opensora_sampling_get_extend(&self->sampling, GST_ELEMENT(self)) != 0 &&
       !gst_opensora_references_check_extend(dir, (guint) frames, &error))) {
    gst_opensora_post_error(GST_ELEMENT(self), error);
    return FALSE;
  }
  GST_OBJECT_LOCK(self);
  self->width = width;
  self->height = height;
  self->fps_n = fps_n;
  self->fps_d = fps_d;
  self->frames = (guint) frames;
  self->lead_in =
      gst_opensora_references_lead_in(self->frames, dir->vae.time_compression_ratio, &condition);
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
    GstCaps *possible = gst_opensora_denoise_get_possible_caps(model);
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
  g_autoptr(GstCaps) possible = NULL;
  g_autoptr(GstCaps) allowed = NULL;

  if (!model)
    return caps;
  possible = gst_opensora_denoise_get_possible_caps(model);
  allowed = gst_pad_peer_query_caps(GST_AGGREGATOR_SRC_PAD(GST_AGGREGATOR(self)), possible);
  gst_caps_unref(caps);
  caps = gst_caps_from_string(GST_OPENSORA_CONDITIONING_CAPS ", " GST_OPENSORA_RATE_FIELD
                                                             ", " GST_OPENSORA_FAMILIES_FIELD);
  if (gst_opensora_denoise_makes_pictures(model))
    gst_caps_set_simple(caps, GST_OPENSORA_PLAIN_PROMPT, G_TYPE_BOOLEAN, TRUE, NULL);
  if (!gst_caps_is_empty(allowed) && !gst_caps_is_any(allowed)) {
    const GValue *rate = gst_structure_get_value(gst_caps_get_structure(allowed, 0), "framerate");

    if (rate)
      gst_caps_set_value(caps, "framerate", rate);
  }
  return caps;
}

static gboolean
gst_opensora_denoise_sink_query(GstAggregator *agg, GstAggregatorPad *pad, GstQuery *query)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  GstCaps *filter, *caps;

  switch (GST_QUERY_TYPE(query)) {
  case GST_QUERY_CAPS:
    gst_query_parse_caps(query, &filter);
    caps = gst_opensora_filter_caps(
        GST_IS_OPENSORA_REFERENCE_PAD(pad) ? get_reference_caps(self) : get_conditioning_caps(self),
        filter);
    gst_query_set_caps_result(query, caps);
    gst_caps_unref(caps);
    return TRUE;
  case GST_QUERY_DRAIN: /* its turn comes after the clip at hand, of which it has nothing to free */
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

GstClockTime
gst_opensora_denoise_frame_time(GstOpenSoraDenoise *self, guint64 frame)
{
  return gst_util_uint64_scale(frame, (guint64) self->fps_d * GST_SECOND, (guint64) self->fps_n);
}

/* Of a clip with its extensions; call with the object lock, while frames are known. */
static guint64
clip_frames(GstOpenSoraDenoise *self)
{
  return self->frames + (guint64) self->sampling.extend * (self->frames - self->lead_in);
}

static gboolean
gst_opensora_denoise_src_query(GstAggregator *agg, GstQuery *query)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  g_autoptr(OsrModel) model = NULL;
  g_autoptr(GstPad) sink = NULL;
  gint64 n_clips = -1, time = -1;
  GstCaps *filter, *caps;
  GstFormat format;

  switch (GST_QUERY_TYPE(query)) {
  case GST_QUERY_CAPS:
    model = gst_opensora_model_ref(&self->model, GST_ELEMENT(self));
    gst_query_parse_caps(query, &filter);
    caps = gst_opensora_filter_caps(gst_opensora_denoise_get_possible_caps(model), filter);
    gst_query_set_caps_result(query, caps);
    gst_caps_unref(caps);
    return TRUE;
  case GST_QUERY_DURATION:
    sink = gst_element_get_static_pad(GST_ELEMENT(self), "sink");
    gst_query_parse_duration(query, &format, NULL);
    if (format != GST_FORMAT_TIME ||
        !gst_pad_peer_query_duration(sink, GST_FORMAT_BUFFERS, &n_clips) || n_clips < 0)
      return FALSE;
    GST_OBJECT_LOCK(self);
    if (self->fps_n > 0 && self->sampling.extend >= 0)
      time = (gint64) gst_opensora_denoise_frame_time(self, (guint64) n_clips * clip_frames(self));
    GST_OBJECT_UNLOCK(self);
    gst_query_set_duration(query, GST_FORMAT_TIME, time);
    return time >= 0;
  case GST_QUERY_POSITION:
    gst_query_parse_position(query, &format, NULL);
    if (format != GST_FORMAT_TIME)
      return FALSE;
    GST_OBJECT_LOCK(self);
    if (self->fps_n > 0)
      time = (gint64) gst_opensora_denoise_frame_time(self, self->frames_out);
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

/* The next clip's input, and what cancels the work on it. Both under the interrupt's lock: a
 * flush falls before, and the input is from after it, or after, and then it cancels. */
static GstBuffer *
next_input(GstOpenSoraDenoise *self, GstAggregatorPad *pad, GCancellable **cancellable)
{
  GstBuffer *input;

  g_mutex_lock(&self->interrupt.lock);
  *cancellable = gst_opensora_interrupt_begin_locked(&self->interrupt);
  input = gst_aggregator_pad_pop_buffer(pad);
  g_mutex_unlock(&self->interrupt.lock);
  return input;
}

/* The stream of previews ends with the clips'. */
static GstFlowReturn
end_previews(GstOpenSoraDenoise *self, GstFlowReturn ret)
{
  g_autoptr(GstOpenSoraPreviewPad) pad = gst_opensora_preview_pad_get(GST_ELEMENT(self));

  if (pad && ret != GST_FLOW_OK && ret != GST_AGGREGATOR_FLOW_NEED_DATA && ret != GST_FLOW_FLUSHING)
    gst_opensora_preview_pad_end(pad);
  return ret;
}

static GstFlowReturn
gst_opensora_denoise_aggregate(GstAggregator *agg, gboolean timeout)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  g_autoptr(GstPad) sink = gst_element_get_static_pad(GST_ELEMENT(self), "sink");
  GstAggregatorPad *pad = GST_AGGREGATOR_PAD(sink);
  g_autoptr(GCancellable) cancellable = NULL;
  g_autoptr(GstBuffer) input = next_input(self, pad, &cancellable);

  /* A stream that was ended is taken to its end all the same, for those who wait to send. */
  if (!input || gst_opensora_interrupt_has(&self->interrupt, GST_OPENSORA_ENDED))
    return end_previews(self, gst_aggregator_pad_is_eos(pad) ? GST_FLOW_EOS
                                                             : GST_AGGREGATOR_FLOW_NEED_DATA);
  if (self->fps_n == 0) {
    GST_ELEMENT_ERROR(self, CORE, NEGOTIATION, (NULL), ("a buffer came before its caps"));
    return end_previews(self, GST_FLOW_NOT_NEGOTIATED);
  }
  return end_previews(
      self, gst_opensora_denoise_make_clips(self, pad, g_steal_pointer(&input), cancellable));
}

/* The previews' pad, which the base class does not know, is flushed with the stream. */
static void
flush_previews(GstOpenSoraDenoise *self, GstEvent *event)
{
  g_autoptr(GstOpenSoraPreviewPad) pad = gst_opensora_preview_pad_get(GST_ELEMENT(self));

  if (!pad)
    return;
  if (GST_EVENT_TYPE(event) == GST_EVENT_FLUSH_START)
    gst_opensora_preview_pad_flush_start(pad, gst_event_ref(event));
  else
    gst_opensora_preview_pad_flush_stop(pad, gst_event_ref(event));
}

static gboolean
gst_opensora_denoise_sink_event(GstAggregator *agg, GstAggregatorPad *pad, GstEvent *event)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);

  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_FLUSH_START:
    /* Has to stop a clip that is being denoised before the parent waits for it. */
    if (!GST_IS_OPENSORA_REFERENCE_PAD(pad)) {
      gst_opensora_interrupt_raise(&self->interrupt, GST_OPENSORA_FLUSHING);
      flush_previews(self, event);
    }
    break;
  case GST_EVENT_FLUSH_STOP:
    if (!GST_IS_OPENSORA_REFERENCE_PAD(pad)) {
      gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_FLUSHING | GST_OPENSORA_ENDED);
      flush_previews(self, event);
    }
    break;
  case GST_EVENT_CUSTOM_DOWNSTREAM_OOB:
    if (!GST_IS_OPENSORA_REFERENCE_PAD(pad) && gst_event_has_name(event, GST_OPENSORA_END_EVENT))
      gst_opensora_interrupt_raise(&self->interrupt, GST_OPENSORA_ENDED);
    break;
  case GST_EVENT_CAPS: /* may have another frame rate */
    if (!GST_IS_OPENSORA_REFERENCE_PAD(pad))
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

  GST_OBJECT_LOCK(self);
  self->frames_out = 0;
  GST_OBJECT_UNLOCK(self);
  return GST_FLOW_OK;
}

/* What came and comes from now on is dropped until EOS: the sources before us may be waiting for us
 * to take what they have, and hear of nothing until the clip at hand is done. */
static gboolean
gst_opensora_denoise_send_event(GstElement *element, GstEvent *event)
{
  if (GST_EVENT_TYPE(event) != GST_EVENT_EOS && !gst_event_has_name(event, GST_OPENSORA_END_EVENT))
    return GST_ELEMENT_CLASS(gst_opensora_denoise_parent_class)->send_event(element, event);
  gst_event_unref(event);
  gst_opensora_interrupt_raise(&GST_OPENSORA_DENOISE(element)->interrupt, GST_OPENSORA_ENDED);
  return TRUE;
}

static gboolean
gst_opensora_denoise_start(GstAggregator *agg)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);
  GstSegment *segment = &GST_AGGREGATOR_PAD(agg->srcpad)->segment;
  GError *error = NULL;
  guint width, height;

  if (!gst_opensora_model_open(&self->model, GST_ELEMENT(self), GST_OPENSORA_MMDIT_FILES))
    return FALSE;
  if (!gst_opensora_sampling_get_size(&self->sampling, GST_ELEMENT(self),
                                      osr_model_get_dir(self->model.model), &width, &height,
                                      &error)) {
    gst_opensora_post_error(GST_ELEMENT(self), error);
    gst_opensora_model_close(&self->model, GST_ELEMENT(self));
    return FALSE;
  }
  gst_segment_init(segment, GST_FORMAT_TIME);
  gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_ANY_REASON);
  self->frames_out = 0;
  self->told_no_previews = FALSE;
  return TRUE;
}

static gboolean
forget_reference(GstElement *element, GstPad *pad, gpointer user_data)
{
  if (GST_IS_OPENSORA_REFERENCE_PAD(pad))
    gst_opensora_reference_pad_forget(GST_OPENSORA_REFERENCE_PAD(pad));
  return TRUE;
}

static gboolean
gst_opensora_denoise_stop(GstAggregator *agg)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(agg);

  gst_opensora_model_close(&self->model, GST_ELEMENT(self));
  gst_element_foreach_sink_pad(GST_ELEMENT(self), forget_reference, NULL);
  GST_OBJECT_LOCK(self);
  self->width = self->height = self->fps_n = self->fps_d = 0;
  self->frames = self->lead_in = 0;
  GST_OBJECT_UNLOCK(self);
  return TRUE;
}

static GstStateChangeReturn
gst_opensora_denoise_change_state(GstElement *element, GstStateChange transition)
{
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY)
    gst_opensora_interrupt_raise(&GST_OPENSORA_DENOISE(element)->interrupt, GST_OPENSORA_STOPPING);
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
  if (GST_ELEMENT(self)->numsinkpads > GST_OPENSORA_MAX_REFERENCES) {
    GST_OBJECT_UNLOCK(self);
    GST_WARNING_OBJECT(self, "no condition takes more than %u references",
                       GST_OPENSORA_MAX_REFERENCES);
    return NULL;
  }
  if (name && sscanf(name, "reference_%u", &n) == 1)
    self->next_reference = MAX(self->next_reference, n + 1);
  else
    n = self->next_reference++;
  GST_OBJECT_UNLOCK(self);
  pad_name = g_strdup_printf("reference_%u", n);
  return g_object_new(GST_TYPE_OPENSORA_REFERENCE_PAD, "name", pad_name, "direction", GST_PAD_SINK,
                      "template", templ, NULL);
}

static GstPad *
gst_opensora_denoise_request_new_pad(GstElement *element, GstPadTemplate *templ, const gchar *name,
                                     const GstCaps *caps)
{
  GstPad *src = GST_AGGREGATOR_SRC_PAD(GST_AGGREGATOR(element));
  g_autoptr(GstOpenSoraPreviewPad) there = gst_opensora_preview_pad_get(element);
  GstPad *pad;

  if (GST_PAD_TEMPLATE_DIRECTION(templ) != GST_PAD_SRC)
    return GST_ELEMENT_CLASS(gst_opensora_denoise_parent_class)
        ->request_new_pad(element, templ, name, caps);
  if (there) {
    GST_WARNING_OBJECT(element, "there is one preview pad only");
    return NULL;
  }
  pad = gst_opensora_preview_pad_new(templ);
  if (GST_PAD_IS_ACTIVE(src))
    gst_pad_set_active(pad, TRUE);
  gst_element_add_pad(element, pad);
  return pad;
}

static void
gst_opensora_denoise_release_pad(GstElement *element, GstPad *pad)
{
  if (!GST_IS_OPENSORA_PREVIEW_PAD(pad)) {
    GST_ELEMENT_CLASS(gst_opensora_denoise_parent_class)->release_pad(element, pad);
    return;
  }
  gst_opensora_preview_pad_release(GST_OPENSORA_PREVIEW_PAD(pad));
  gst_element_remove_pad(element, pad);
}

static void
gst_opensora_denoise_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(object);
  GstElement *element = GST_ELEMENT(object);

  if (id == PROP_PREVIEW_INTERVAL) {
    GST_OBJECT_LOCK(self);
    self->preview_interval = g_value_get_uint(value);
    GST_OBJECT_UNLOCK(self);
    return;
  }
  if (gst_opensora_model_set_property(&self->model, element, id - PROP_MODEL, value))
    return;
  if (!gst_opensora_sampling_set_property(&self->sampling, element, id - PROP_SAMPLING, value))
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  else if (id - PROP_SAMPLING >= GST_OPENSORA_SAMPLING_PROP_NUM_FRAMES)
    gst_pad_mark_reconfigure(GST_AGGREGATOR_SRC_PAD(GST_AGGREGATOR(self)));
}

static void
gst_opensora_denoise_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(object);
  GstElement *element = GST_ELEMENT(object);

  if (id == PROP_PREVIEW_INTERVAL) {
    GST_OBJECT_LOCK(self);
    g_value_set_uint(value, self->preview_interval);
    GST_OBJECT_UNLOCK(self);
    return;
  }
  if (!gst_opensora_model_get_property(&self->model, element, id - PROP_MODEL, value) &&
      !gst_opensora_sampling_get_property(&self->sampling, element, id - PROP_SAMPLING, value))
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
}

static void
gst_opensora_denoise_finalize(GObject *object)
{
  GstOpenSoraDenoise *self = GST_OPENSORA_DENOISE(object);

  gst_opensora_model_clear(&self->model);
  gst_opensora_sampling_clear(&self->sampling);
  gst_opensora_interrupt_clear(&self->interrupt);
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
  gst_opensora_model_install_properties(object_class, PROP_MODEL);
  gst_opensora_sampling_install_properties(object_class, PROP_SAMPLING);
  g_object_class_install_property(
      object_class, PROP_PREVIEW_INTERVAL,
      g_param_spec_uint("preview-interval", "Preview interval",
                        "Steps from one preview to the next on the pad \"preview\"; the last step "
                        "always has one. 0: no previews",
                        0, G_MAXINT, DEFAULT_PREVIEW_INTERVAL,
                        G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING));

  gst_element_class_set_static_metadata(element_class, "Open-Sora denoiser", "Filter/Video",
                                        "Denoises the latent of a clip that a prompt describes",
                                        "The gst-opensora authors");
  gst_element_class_add_static_pad_template_with_gtype(element_class, &sink_template,
                                                       GST_TYPE_AGGREGATOR_PAD);
  gst_element_class_add_static_pad_template_with_gtype(element_class, &reference_template,
                                                       GST_TYPE_OPENSORA_REFERENCE_PAD);
  gst_element_class_add_static_pad_template_with_gtype(element_class, &src_template,
                                                       GST_TYPE_AGGREGATOR_PAD);
  gst_element_class_add_static_pad_template_with_gtype(element_class, &preview_template,
                                                       GST_TYPE_OPENSORA_PREVIEW_PAD);

  element_class->request_new_pad = gst_opensora_denoise_request_new_pad;
  element_class->release_pad = gst_opensora_denoise_release_pad;
  element_class->send_event = gst_opensora_denoise_send_event;
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
  gst_opensora_interrupt_init(&self->interrupt);
  self->preview_interval = DEFAULT_PREVIEW_INTERVAL;
  /* Bins hand EOS of the application to their sources. The work of a clip is begun by the
   * prompt's source but done here, and here it has to be ended. */
  GST_OBJECT_FLAG_SET(self, GST_ELEMENT_FLAG_SOURCE);

  gst_element_add_pad(GST_ELEMENT(self),
                      g_object_new(GST_TYPE_AGGREGATOR_PAD, "name", "sink", "direction",
                                   GST_PAD_SINK, "template", templ, NULL));
}
