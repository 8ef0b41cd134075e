/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-opensoratextenc
 * @title: opensoratextenc
 * @short_description: Encodes text buffers for Open-Sora text-to-video generation
 *
 * Every text buffer is a prompt and becomes the conditioning of one clip (of `num-samples`
 * clips). White space around it is cut off; empty buffers are skipped. Clips come in the order of
 * their texts, and a text waits in the element before this one until its turn has come. Each
 * prompt has a number; element messages "opensora-clip" tell what becomes of it, and
 * #opensoratextenc::cancel drops it.
 *
 * ## Example launch line
 * |[
 * echo "a green star spinning on a white background" | gst-launch-1.0 fdsrc !
 * text/x-raw,format=utf8 ! opensoratextenc ! opensoradenoise ! opensoravaedec ! videoconvert !
 * autovideosink
 * ]|
 *
 * Since: 0.1
 */
#include <gst/base/gstbasetransform.h>

#include "gstopensorainterrupt.h"
#include "gstopensoratext.h"

GST_DEBUG_CATEGORY_STATIC(gst_opensora_text_enc_debug);
#define GST_CAT_DEFAULT gst_opensora_text_enc_debug

enum {
  PROP_0,
  PROP_MODEL, /* and the GST_OPENSORA_MODEL_N_PROPS - 1 ids after it */
  PROP_TEXT = PROP_MODEL + GST_OPENSORA_MODEL_N_PROPS, /* likewise */
};

#define GST_TYPE_OPENSORA_TEXT_ENC (gst_opensora_text_enc_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraTextEnc, gst_opensora_text_enc, GST, OPENSORA_TEXT_ENC,
                     GstBaseTransform)

struct _GstOpenSoraTextEnc {
  GstBaseTransform parent;

  GstOpenSoraModel model;
  GstOpenSoraText text;

  GstOpenSoraInterrupt interrupt;
  GstOpenSoraPrompt *prompt; /* of the input buffer at hand, NULL when all its samples are out */
  guint n_samples, next_sample, next_clip;
  gint fps_n, fps_d;
};

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS("text/x-raw, format = (string) utf8"));

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_OPENSORA_CONDITIONING_CAPS ", " GST_OPENSORA_RATE_FIELD));

G_DEFINE_FINAL_TYPE(GstOpenSoraTextEnc, gst_opensora_text_enc, GST_TYPE_BASE_TRANSFORM)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(opensoratextenc, "opensoratextenc", GST_RANK_NONE,
                                      GST_TYPE_OPENSORA_TEXT_ENC,
                                      GST_DEBUG_CATEGORY_INIT(gst_opensora_text_enc_debug,
                                                              "opensoratextenc", 0,
                                                              "Open-Sora text encoder"));

static void
gst_opensora_text_enc_set_property(GObject *object, guint id, const GValue *value,
                                   GParamSpec *pspec)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(object);
  GstElement *element = GST_ELEMENT(object);

  if (!gst_opensora_model_set_property(&self->model, element, id - PROP_MODEL, value) &&
      !gst_opensora_text_set_property(&self->text, element, id - PROP_TEXT, value))
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
}

static void
gst_opensora_text_enc_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(object);
  GstElement *element = GST_ELEMENT(object);

  if (!gst_opensora_model_get_property(&self->model, element, id - PROP_MODEL, value) &&
      !gst_opensora_text_get_property(&self->text, element, id - PROP_TEXT, value))
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
}

static void
drop_prompt(GstOpenSoraTextEnc *self)
{
  if (!self->prompt)
    return;
  gst_opensora_ticket_drop(self->prompt->ticket);
  g_clear_pointer(&self->prompt, gst_opensora_prompt_free);
}

static gboolean
gst_opensora_text_enc_start(GstBaseTransform *trans)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(trans);

  if (!gst_opensora_text_open(&self->text, GST_ELEMENT(self), &self->model))
    return FALSE;
  self->next_sample = self->next_clip = 0;
  self->fps_n = (gint) osr_model_get_dir(self->model.model)->fps;
  self->fps_d = 1;
  gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_ANY_REASON);
  return TRUE;
}

static gboolean
gst_opensora_text_enc_stop(GstBaseTransform *trans)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(trans);

  gst_opensora_model_close(&self->model, GST_ELEMENT(self));
  drop_prompt(self);
  return TRUE;
}

static GstCaps *
gst_opensora_text_enc_transform_caps(GstBaseTransform *trans, GstPadDirection direction,
                                     GstCaps *caps, GstCaps *filter)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(trans);
  g_autoptr(OsrModel) model = gst_opensora_model_ref(&self->model, GST_ELEMENT(self));
  GstCaps *other = direction == GST_PAD_SINK ? gst_opensora_text_caps(model)
                                             : gst_static_pad_template_get_caps(&sink_template);

  return gst_opensora_filter_caps(other, filter);
}

static GstCaps *
gst_opensora_text_enc_fixate_caps(GstBaseTransform *trans, GstPadDirection direction, GstCaps *caps,
                                  GstCaps *othercaps)
{
  if (direction == GST_PAD_SINK)
    return gst_opensora_text_fixate(GST_OPENSORA_TEXT_ENC(trans)->model.model, othercaps);
  return gst_caps_fixate(othercaps);
}

static gboolean
gst_opensora_text_enc_set_caps(GstBaseTransform *trans, GstCaps *incaps, GstCaps *outcaps)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(trans);

  return gst_structure_get_fraction(gst_caps_get_structure(outcaps, 0), "framerate", &self->fps_n,
                                    &self->fps_d);
}

/* Text comes in memory of any kind; what is after us is not asked, its buffers are others. */
static gboolean
gst_opensora_text_enc_propose_allocation(GstBaseTransform *trans, GstQuery *decide_query,
                                         GstQuery *query)
{
  return FALSE;
}

/* How many clips there will be is not known: some buffers make none, some make several. */
static gboolean
gst_opensora_text_enc_query(GstBaseTransform *trans, GstPadDirection direction, GstQuery *query)
{
  if (direction == GST_PAD_SRC && GST_QUERY_TYPE(query) == GST_QUERY_DURATION)
    return FALSE;
  return GST_BASE_TRANSFORM_CLASS(gst_opensora_text_enc_parent_class)
      ->query(trans, direction, query);
}

static void
begin_prompt(GstOpenSoraTextEnc *self, const char *text)
{
  GstOpenSoraTickets *tickets = &self->text.tickets;
  GstOpenSoraTicket *ticket =
      gst_opensora_ticket_new(GST_ELEMENT(self), gst_opensora_tickets_next_id(tickets), text, NULL);

  drop_prompt(self);
  self->prompt =
      gst_opensora_prompt_new(ticket, text, gst_opensora_prompt_options_new(NULL, NULL), 0);
  self->next_sample = 0;
  gst_opensora_tickets_add(tickets, ticket);
  self->n_samples =
      gst_opensora_text_start(&self->text, GST_ELEMENT(self), self->prompt, self->next_clip, FALSE);
}

static gboolean
gst_opensora_text_enc_cancel(GstOpenSoraTextEnc *self, guint64 id)
{
  g_autoptr(GstOpenSoraTicket) ticket = gst_opensora_tickets_find(&self->text.tickets, id);

  return ticket && gst_opensora_ticket_cancel(ticket);
}

static GstFlowReturn
gst_opensora_text_enc_submit(GstBaseTransform *trans, gboolean is_discont, GstBuffer *input)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(trans);
  g_autofree char *text = NULL;
  GstFlowReturn ret;
  GstMapInfo map;

  /* Negotiates where that is due. */
  ret = GST_BASE_TRANSFORM_CLASS(gst_opensora_text_enc_parent_class)
            ->submit_input_buffer(trans, is_discont, input);
  if (ret != GST_FLOW_OK)
    return ret;
  input = g_steal_pointer(&trans->queued_buf);

  if (!gst_buffer_map(input, &map, GST_MAP_READ)) {
    GST_ELEMENT_ERROR(self, RESOURCE, READ, ("Cannot read a text buffer."), (NULL));
    gst_buffer_unref(input);
    return GST_FLOW_ERROR;
  }
  /* An empty buffer has no data at all. */
  text = g_strstrip(g_strndup(map.size > 0 ? (const char *) map.data : "", map.size));
  gst_buffer_unmap(input, &map);
  gst_buffer_unref(input);
  if (*text)
    begin_prompt(self, text);
  return GST_FLOW_OK;
}

static GstFlowReturn
gst_opensora_text_enc_generate(GstBaseTransform *trans, GstBuffer **output)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(trans);
  g_autoptr(GCancellable) cancellable = NULL;
  GstOpenSoraTextClip clip = { 0 };
  GstFlowReturn ret;

  *output = NULL;
  if (!self->prompt)
    return GST_FLOW_OK;

  cancellable = gst_opensora_interrupt_begin(&self->interrupt);
  clip.prompt = self->prompt;
  clip.clip = self->next_clip;
  clip.sample = self->next_sample;
  clip.fps_n = self->fps_n;
  clip.fps_d = self->fps_d;
  ret = gst_opensora_text_encode(&self->text, GST_ELEMENT(self), self->model.model, &clip,
                                 cancellable, output);
  if (ret == GST_FLOW_OK) {
    self->next_sample++;
    self->next_clip++;
  } else if (ret == GST_FLOW_FLUSHING && gst_opensora_ticket_is_over(self->prompt->ticket)) {
    ret = GST_FLOW_OK; /* the next text comes */
    self->next_sample = self->n_samples;
  }
  if (self->next_sample >= self->n_samples)
    g_clear_pointer(&self->prompt, gst_opensora_prompt_free);
  return ret;
}

static gboolean
gst_opensora_text_enc_sink_event(GstBaseTransform *trans, GstEvent *event)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(trans);

  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_FLUSH_START:
    gst_opensora_interrupt_raise(&self->interrupt, GST_OPENSORA_FLUSHING);
    break;
  case GST_EVENT_FLUSH_STOP:
    gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_FLUSHING);
    drop_prompt(self);
    break;
  case GST_EVENT_SEGMENT:
    /* Text has times of its own; clips follow each other from zero. */
    {
      GstSegment segment;
      GstEvent *time_segment;

      gst_segment_init(&segment, GST_FORMAT_TIME);
      time_segment = gst_event_new_segment(&segment);
      gst_event_set_seqnum(time_segment, gst_event_get_seqnum(event));
      gst_event_unref(event);
      event = time_segment;
    }
    break;
  default:
    break;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_opensora_text_enc_parent_class)->sink_event(trans, event);
}

/* PAUSED -> READY takes the stream lock in the parent's handler: what runs under it has to
 * be cancelled before. */
static GstStateChangeReturn
gst_opensora_text_enc_change_state(GstElement *element, GstStateChange transition)
{
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY)
    gst_opensora_interrupt_raise(&GST_OPENSORA_TEXT_ENC(element)->interrupt, GST_OPENSORA_STOPPING);
  return GST_ELEMENT_CLASS(gst_opensora_text_enc_parent_class)->change_state(element, transition);
}

static void
gst_opensora_text_enc_finalize(GObject *object)
{
  GstOpenSoraTextEnc *self = GST_OPENSORA_TEXT_ENC(object);

  gst_opensora_model_clear(&self->model);
  gst_opensora_text_clear(&self->text);
  gst_opensora_interrupt_clear(&self->interrupt);
  G_OBJECT_CLASS(gst_opensora_text_enc_parent_class)->finalize(object);
}

static void
gst_opensora_text_enc_class_init(GstOpenSoraTextEncClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);
  GstBaseTransformClass *trans_class = GST_BASE_TRANSFORM_CLASS(klass);

  object_class->set_property = gst_opensora_text_enc_set_property;
  object_class->get_property = gst_opensora_text_enc_get_property;
  object_class->finalize = gst_opensora_text_enc_finalize;

  gst_opensora_model_install_properties(object_class, PROP_MODEL);
  gst_opensora_text_install_properties(object_class, PROP_TEXT);

  /**
   * opensoratextenc::cancel:
   * @object: the element
   * @id: number of a prompt that has started
   *
   * Drops the prompt; what of it is under way is broken off, here or in the elements that follow.
   *
   * Returns: %FALSE if there is no such prompt, or if its frames are leaving the decoder already.
   *
   * Since: 0.1
   */
  g_signal_new_class_handler(
      "cancel", G_TYPE_FROM_CLASS(klass), G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION,
      G_CALLBACK(gst_opensora_text_enc_cancel), NULL, NULL, NULL, G_TYPE_BOOLEAN, 1, G_TYPE_UINT64);

  gst_element_class_set_static_metadata(element_class, "Open-Sora text encoder", "Encoder/Text",
                                        "Encodes text buffers for text-to-video generation",
                                        "The gst-opensora authors");
  gst_element_class_add_static_pad_template(element_class, &sink_template);
  gst_element_class_add_static_pad_template(element_class, &src_template);

  element_class->change_state = gst_opensora_text_enc_change_state;
  trans_class->start = gst_opensora_text_enc_start;
  trans_class->stop = gst_opensora_text_enc_stop;
  trans_class->transform_caps = gst_opensora_text_enc_transform_caps;
  trans_class->fixate_caps = gst_opensora_text_enc_fixate_caps;
  trans_class->set_caps = gst_opensora_text_enc_set_caps;
  trans_class->propose_allocation = gst_opensora_text_enc_propose_allocation;
  trans_class->query = gst_opensora_text_enc_query;
  trans_class->sink_event = gst_opensora_text_enc_sink_event;
  trans_class->submit_input_buffer = gst_opensora_text_enc_submit;
  trans_class->generate_output = gst_opensora_text_enc_generate;
}

static void
gst_opensora_text_enc_init(GstOpenSoraTextEnc *self)
{
  gst_opensora_model_init(&self->model);
  gst_opensora_text_init(&self->text);
  gst_opensora_interrupt_init(&self->interrupt);
  /* The base class takes an element without transform() for a passthrough. */
  gst_base_transform_set_passthrough(GST_BASE_TRANSFORM(self), FALSE);
  gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), FALSE);
}
