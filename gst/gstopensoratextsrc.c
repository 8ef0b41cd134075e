/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-opensoratextsrc
 * @title: opensoratextsrc
 * @short_description: Encodes prompts for Open-Sora text-to-video generation
 *
 * Encodes the prompt (or every prompt of a text or CSV file) with the model's text encoders
 * and sends one buffer a clip to #opensoradenoise; EOS follows the last.
 *
 * With "is-queue" it waits for more instead: #opensoratextsrc::add-prompt adds one at any time
 * and from any thread, #opensoratextsrc::cancel drops one, #opensoratextsrc::end ends the stream
 * after the last. Element messages "opensora-clip" tell what becomes of each. A prompt is taken
 * out of the queue when the denoiser is done with the clip before, no sooner: until then one of
 * higher priority goes before it. A prompt that cannot be made is skipped.
 *
 * While it waits for the first prompt no data flow, and sinks that preroll do not reach PAUSED:
 * set "async" of the sink to false, put a live element between, or go on without waiting for the
 * state. An element message "opensora-waiting" says when the queue is empty.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 opensoratextsrc prompt="a red circle moving right on a blue background" !
 * opensoradenoise ! opensoravaedec ! videoconvert ! x264enc ! mp4mux ! filesink location=out.mp4
 * ]|
 *
 * Since: 0.1
 */
#include <gst/base/gstpushsrc.h>

#include "gstopensorainterrupt.h"
#include "gstopensoratext.h"

GST_DEBUG_CATEGORY_STATIC(gst_opensora_text_src_debug);
#define GST_CAT_DEFAULT gst_opensora_text_src_debug

enum {
  PROP_0,
  PROP_MODEL, /* and the GST_OPENSORA_MODEL_N_PROPS - 1 ids after it */
  PROP_PROMPT = PROP_MODEL + GST_OPENSORA_MODEL_N_PROPS,
  PROP_LOCATION,
  PROP_REFERENCE,
  PROP_IS_QUEUE,
  PROP_MAX_QUEUE,
  PROP_QUEUE_LENGTH,
  PROP_TEXT, /* and the GST_OPENSORA_TEXT_N_PROPS - 1 ids after it */
};

#define DEFAULT_IS_QUEUE FALSE
#define DEFAULT_MAX_QUEUE 1000

#define GST_TYPE_OPENSORA_TEXT_SRC (gst_opensora_text_src_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraTextSrc, gst_opensora_text_src, GST, OPENSORA_TEXT_SRC, GstPushSrc)

struct _GstOpenSoraTextSrc {
  GstPushSrc parent;

  GstOpenSoraModel model;
  GstOpenSoraText text;
  char *prompt_text, *location, *reference;

  gboolean is_queue; /* object lock */
  guint max_queue;   /* likewise */
  guint n_prompts;   /* likewise: given by properties, from start() to stop() */

  GstOpenSoraInterrupt interrupt;
  GstOpenSoraPromptQueue queue;
  GstOpenSoraPrompt *prompt; /* at hand, NULL when all its samples are out */
  guint n_samples, next_sample, next_clip;
  gint fps_n, fps_d;
};

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_OPENSORA_CONDITIONING_CAPS ", " GST_OPENSORA_RATE_FIELD));

G_DEFINE_FINAL_TYPE(GstOpenSoraTextSrc, gst_opensora_text_src, GST_TYPE_PUSH_SRC)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(opensoratextsrc, "opensoratextsrc", GST_RANK_NONE,
                                      GST_TYPE_OPENSORA_TEXT_SRC,
                                      GST_DEBUG_CATEGORY_INIT(gst_opensora_text_src_debug,
                                                              "opensoratextsrc", 0,
                                                              "Open-Sora prompt source"));

static void
replace_string(GstOpenSoraTextSrc *self, char **field, const GValue *value)
{
  GST_OBJECT_LOCK(self);
  g_free(*field);
  *field = g_value_dup_string(value);
  GST_OBJECT_UNLOCK(self);
}

static void
gst_opensora_text_src_set_property(GObject *object, guint id, const GValue *value,
                                   GParamSpec *pspec)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(object);
  GstElement *element = GST_ELEMENT(object);

  switch (id) {
  case PROP_PROMPT:
    replace_string(self, &self->prompt_text, value);
    break;
  case PROP_LOCATION:
    replace_string(self, &self->location, value);
    break;
  case PROP_REFERENCE:
    replace_string(self, &self->reference, value);
    break;
  case PROP_IS_QUEUE:
    GST_OBJECT_LOCK(self);
    self->is_queue = g_value_get_boolean(value);
    GST_OBJECT_UNLOCK(self);
    break;
  case PROP_MAX_QUEUE:
    GST_OBJECT_LOCK(self);
    self->max_queue = g_value_get_uint(value);
    GST_OBJECT_UNLOCK(self);
    break;
  default:
    if (!gst_opensora_model_set_property(&self->model, element, id - PROP_MODEL, value) &&
        !gst_opensora_text_set_property(&self->text, element, id - PROP_TEXT, value))
      G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
}

static void
gst_opensora_text_src_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(object);
  GstElement *element = GST_ELEMENT(object);
  gboolean known = TRUE;

  GST_OBJECT_LOCK(self);
  switch (id) {
  case PROP_PROMPT:
    g_value_set_string(value, self->prompt_text);
    break;
  case PROP_LOCATION:
    g_value_set_string(value, self->location);
    break;
  case PROP_REFERENCE:
    g_value_set_string(value, self->reference);
    break;
  case PROP_IS_QUEUE:
    g_value_set_boolean(value, self->is_queue);
    break;
  case PROP_MAX_QUEUE:
    g_value_set_uint(value, self->max_queue);
    break;
  case PROP_QUEUE_LENGTH:
    g_value_set_uint(value, gst_opensora_prompt_queue_length(&self->queue));
    break;
  default:
    known = FALSE;
  }
  GST_OBJECT_UNLOCK(self);
  if (!known && !gst_opensora_model_get_property(&self->model, element, id - PROP_MODEL, value) &&
      !gst_opensora_text_get_property(&self->text, element, id - PROP_TEXT, value))
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
}

static gboolean
is_queue(GstOpenSoraTextSrc *self)
{
  gboolean queue;

  GST_OBJECT_LOCK(self);
  queue = self->is_queue;
  GST_OBJECT_UNLOCK(self);
  return queue;
}

static void
notify_length(GstOpenSoraTextSrc *self)
{
  g_object_notify(G_OBJECT(self), "queue-length");
}

/* To a place that was kept. Returns the prompt's number. (takes @options) */
static guint64
enqueue(GstOpenSoraTextSrc *self, const char *text, GstStructure *options, gint priority)
{
  const guint64 id = gst_opensora_tickets_next_id(&self->text.tickets);
  GstOpenSoraTicket *ticket = gst_opensora_ticket_new(GST_ELEMENT(self), id, text,
                                                      gst_structure_get_string(options, "tag"));

  gst_opensora_ticket_queue(ticket);
  gst_opensora_prompt_queue_add(&self->queue,
                                gst_opensora_prompt_new(ticket, text, options, priority));
  return id;
}

/* What the properties ask for goes through the queue, too, however many wait there already. */
static void
enqueue_own(GstOpenSoraTextSrc *self, const OsrPrompt *prompt)
{
  gst_opensora_prompt_queue_keep(&self->queue);
  enqueue(self, prompt->text, gst_opensora_prompt_options_new(prompt->neg, prompt->ref), 0);
}

/* Prompts of the properties; NULL with an error message if they make no sense. */
static GPtrArray *
get_own_prompts(GstOpenSoraTextSrc *self, gboolean queue)
{
  g_autofree char *location = NULL;
  g_autofree char *prompt = NULL;
  GPtrArray *prompts;
  GError *error = NULL;

  GST_OBJECT_LOCK(self);
  location = g_strdup(self->location);
  prompt = g_strdup(self->prompt_text);
  GST_OBJECT_UNLOCK(self);

  if (!location && !prompt && !queue) {
    GST_ELEMENT_ERROR(self, RESOURCE, SETTINGS, ("Neither \"prompt\" nor \"location\" is set."),
                      (NULL));
    return NULL;
  }
  if (location && prompt) {
    GST_ELEMENT_ERROR(self, RESOURCE, SETTINGS,
                      ("Both \"prompt\" and \"location\" are set: only one can be used."), (NULL));
    return NULL;
  }
  if (location) {
    prompts = osr_prompts_read(location, &error);
    if (!prompts)
      gst_opensora_post_error(GST_ELEMENT(self), error);
    return prompts;
  }
  prompts = g_ptr_array_new_with_free_func((GDestroyNotify) osr_prompt_free);
  if (prompt) {
    OsrPrompt *only = g_new0(OsrPrompt, 1);

    only->text = g_steal_pointer(&prompt);
    g_ptr_array_add(prompts, only);
  }
  return prompts;
}

static gboolean
gst_opensora_text_src_start(GstBaseSrc *src)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);
  const gboolean queue = is_queue(self);
  g_autoptr(GPtrArray) prompts = get_own_prompts(self, queue);

  if (!prompts || !gst_opensora_text_open(&self->text, GST_ELEMENT(self), &self->model))
    return FALSE;
  GST_OBJECT_LOCK(self);
  self->n_prompts = prompts->len;
  GST_OBJECT_UNLOCK(self);
  self->next_clip = 0;
  self->fps_n = (gint) osr_model_get_dir(self->model.model)->fps;
  self->fps_d = 1;
  for (guint i = 0; i < prompts->len; i++)
    enqueue_own(self, g_ptr_array_index(prompts, i));
  if (!queue)
    gst_opensora_prompt_queue_end(&self->queue);
  notify_length(self);
  gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_ANY_REASON);
  return TRUE;
}

static void
drop_prompt(gpointer prompt)
{
  gst_opensora_ticket_drop(((GstOpenSoraPrompt *) prompt)->ticket);
  gst_opensora_prompt_free(prompt);
}

/* Nothing of what waits will be made. */
static void
drop_queue(GstOpenSoraTextSrc *self)
{
  g_autoptr(GPtrArray) prompts = gst_opensora_prompt_queue_empty(&self->queue);

  g_ptr_array_set_free_func(prompts, drop_prompt);
  if (prompts->len > 0)
    notify_length(self);
}

static gboolean
gst_opensora_text_src_stop(GstBaseSrc *src)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);

  gst_opensora_model_close(&self->model, GST_ELEMENT(self));
  g_clear_pointer(&self->prompt, drop_prompt);
  drop_queue(self);
  gst_opensora_prompt_queue_reopen(&self->queue);
  GST_OBJECT_LOCK(self);
  self->n_prompts = 0;
  GST_OBJECT_UNLOCK(self);
  return TRUE;
}

/* Buffers are clips: the denoiser makes a time of their number. */
static gboolean
gst_opensora_text_src_query(GstBaseSrc *src, GstQuery *query)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);
  gint64 n_clips = -1;
  GstFormat format;
  gint num_buffers;

  if (GST_QUERY_TYPE(query) == GST_QUERY_DURATION) {
    gst_query_parse_duration(query, &format, NULL);
    if (format == GST_FORMAT_BUFFERS) {
      g_object_get(self, "num-buffers", &num_buffers, NULL);
      GST_OBJECT_LOCK(self);
      if (self->n_prompts > 0 && !self->is_queue)
        n_clips = (gint64) self->n_prompts * self->text.num_samples;
      GST_OBJECT_UNLOCK(self);
      if (n_clips < 0)
        return FALSE;
      if (num_buffers >= 0)
        n_clips = MIN(n_clips, num_buffers);
      gst_query_set_duration(query, GST_FORMAT_BUFFERS, n_clips);
      return TRUE;
    }
  }
  return GST_BASE_SRC_CLASS(gst_opensora_text_src_parent_class)->query(src, query);
}

static gboolean
gst_opensora_text_src_unlock(GstBaseSrc *src)
{
  gst_opensora_interrupt_raise(&GST_OPENSORA_TEXT_SRC(src)->interrupt, GST_OPENSORA_FLUSHING);
  return TRUE;
}

static gboolean
gst_opensora_text_src_unlock_stop(GstBaseSrc *src)
{
  gst_opensora_interrupt_lower(&GST_OPENSORA_TEXT_SRC(src)->interrupt, GST_OPENSORA_FLUSHING);
  return TRUE;
}

/* For EOS the base class waits, with the state lock held, for the streaming thread, which waits
 * in turn for the clips before its own: minutes. So the stream is ended from within, and the
 * denoiser hears of it at once. */
static gboolean
gst_opensora_text_src_send_event(GstElement *element, GstEvent *event)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(element);

  if (GST_EVENT_TYPE(event) != GST_EVENT_EOS)
    return GST_ELEMENT_CLASS(gst_opensora_text_src_parent_class)->send_event(element, event);
  gst_event_unref(event);
  gst_opensora_prompt_queue_end(&self->queue);
  gst_opensora_interrupt_raise(&self->interrupt, GST_OPENSORA_ENDED);
  gst_pad_push_event(GST_BASE_SRC_PAD(self),
                     gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM_OOB,
                                          gst_structure_new_empty(GST_OPENSORA_END_EVENT)));
  return TRUE;
}

static GstCaps *
gst_opensora_text_src_get_caps(GstBaseSrc *src, GstCaps *filter)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);
  g_autoptr(OsrModel) model = gst_opensora_model_ref(&self->model, GST_ELEMENT(self));

  return gst_opensora_filter_caps(gst_opensora_text_caps(model), filter);
}

static GstCaps *
gst_opensora_text_src_fixate(GstBaseSrc *src, GstCaps *caps)
{
  return gst_opensora_text_fixate(GST_OPENSORA_TEXT_SRC(src)->model.model, caps);
}

static gboolean
gst_opensora_text_src_set_caps(GstBaseSrc *src, GstCaps *caps)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);

  return gst_structure_get_fraction(gst_caps_get_structure(caps, 0), "framerate", &self->fps_n,
                                    &self->fps_d);
}

/* Until the denoiser is done with what it has: what is taken now would only wait there, where no
 * other can go before it. Whoever else follows has an answer of their own, or none, at once. */
static void
wait_for_denoiser(GstOpenSoraTextSrc *self)
{
  GstQuery *drain = gst_query_new_drain();

  gst_pad_peer_query(GST_BASE_SRC_PAD(self), drain);
  gst_query_unref(drain);
}

static void
tell_waiting(GstOpenSoraTextSrc *self)
{
  GST_INFO_OBJECT(self, "waiting for a prompt");
  gst_element_post_message(
      GST_ELEMENT(self),
      gst_message_new_element(GST_OBJECT(self), gst_structure_new_empty("opensora-waiting")));
}

/* Makes the next prompt the one at hand, and waits for it if need be. The one that waits when the
 * denoiser is free may be another than that which waited before, or none. */
static GstFlowReturn
next_prompt(GstOpenSoraTextSrc *self, GCancellable *cancellable)
{
  GstOpenSoraTickets *tickets = &self->text.tickets;
  const gboolean queue = is_queue(self);
  gboolean ended = FALSE;

  while (!self->prompt && !ended) {
    if (gst_opensora_prompt_queue_is_idle(&self->queue))
      tell_waiting(self);
    if (gst_opensora_prompt_queue_wait(&self->queue, cancellable) && queue && self->next_clip > 0) {
      gst_opensora_tickets_await(tickets);
      wait_for_denoiser(self);
    }
    if (g_cancellable_is_cancelled(cancellable))
      return GST_FLOW_FLUSHING;
    self->prompt = gst_opensora_prompt_queue_take(&self->queue, tickets, &ended);
  }
  if (!self->prompt)
    return GST_FLOW_EOS;

  notify_length(self);
  self->next_sample = 0;
  self->n_samples =
      gst_opensora_text_start(&self->text, GST_ELEMENT(self), self->prompt, self->next_clip, queue);
  return GST_FLOW_OK;
}

/* The next clip of the prompt at hand. */
static GstFlowReturn
encode(GstOpenSoraTextSrc *self, GCancellable *cancellable, GstBuffer **buffer)
{
  g_autofree char *reference = NULL;
  GstOpenSoraTextClip clip = { 0 };
  GstFlowReturn ret;

  GST_OBJECT_LOCK(self);
  reference = g_strdup(self->reference);
  GST_OBJECT_UNLOCK(self);
  clip.prompt = self->prompt;
  clip.reference = reference;
  clip.clip = self->next_clip;
  clip.sample = self->next_sample;
  clip.fps_n = self->fps_n;
  clip.fps_d = self->fps_d;
  ret = gst_opensora_text_encode(&self->text, GST_ELEMENT(self), self->model.model, &clip,
                                 cancellable, buffer);
  if (ret == GST_FLOW_OK) {
    self->next_sample++;
    self->next_clip++;
  }
  /* From here on the buffer alone holds the ticket. */
  if (self->next_sample >= self->n_samples || gst_opensora_ticket_is_over(self->prompt->ticket))
    g_clear_pointer(&self->prompt, gst_opensora_prompt_free);
  return ret;
}

static GstFlowReturn
gst_opensora_text_src_create(GstPushSrc *src, GstBuffer **buffer)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);
  gboolean skipped;
  GstFlowReturn ret;

  do {
    g_autoptr(GCancellable) cancellable = gst_opensora_interrupt_begin(&self->interrupt);

    skipped = FALSE;
    ret = self->prompt ? GST_FLOW_OK : next_prompt(self, cancellable);
    if (ret == GST_FLOW_OK) {
      ret = encode(self, cancellable, buffer);
      skipped = ret == GST_FLOW_FLUSHING && !self->prompt;
    }
    if (gst_opensora_interrupt_has(&self->interrupt, GST_OPENSORA_ENDED)) {
      gst_clear_buffer(buffer);
      g_clear_pointer(&self->prompt, drop_prompt);
      drop_queue(self);
      return ret == GST_FLOW_ERROR ? ret : GST_FLOW_EOS;
    }
  } while (skipped);
  return ret;
}

/* Action signals */

static guint64
gst_opensora_text_src_add_prompt(GstOpenSoraTextSrc *self, const char *text,
                                 const GstStructure *options)
{
  g_autoptr(GstStructure) parsed = NULL;
  g_autoptr(GError) error = NULL;
  gboolean queue;
  gint priority;
  guint64 id = 0;
  guint max;

  GST_OBJECT_LOCK(self);
  queue = self->is_queue;
  max = self->max_queue;
  GST_OBJECT_UNLOCK(self);

  if (!queue)
    g_set_error_literal(&error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "is-queue is not set");
  else if (!text || !g_utf8_validate(text, -1, NULL))
    g_set_error_literal(&error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "it is not valid UTF-8");
  else
    parsed = gst_opensora_prompt_options_parse(options, &priority, &error);
  if (parsed && gst_opensora_prompt_queue_reserve(&self->queue, max, &error))
    id = enqueue(self, text, g_steal_pointer(&parsed), priority);
  if (id == 0)
    GST_ELEMENT_WARNING(self, RESOURCE, SETTINGS, ("A prompt is refused: %s", error->message),
                        (NULL));
  else
    notify_length(self);
  return id;
}

static gboolean
gst_opensora_text_src_cancel(GstOpenSoraTextSrc *self, guint64 id)
{
  /* In this order: a prompt that has left the queue is under way already. */
  g_autoptr(GstOpenSoraPrompt) waiting = gst_opensora_prompt_queue_remove(&self->queue, id);
  g_autoptr(GstOpenSoraTicket) ticket = NULL;

  if (!waiting) {
    ticket = gst_opensora_tickets_find(&self->text.tickets, id);
    return ticket && gst_opensora_ticket_cancel(ticket);
  }
  notify_length(self);
  return gst_opensora_ticket_cancel(waiting->ticket);
}

static void
gst_opensora_text_src_end(GstOpenSoraTextSrc *self)
{
  gst_opensora_prompt_queue_end(&self->queue);
}

static void
install_signals(GstOpenSoraTextSrcClass *klass)
{
  const GSignalFlags flags = G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION;
  const GType type = G_TYPE_FROM_CLASS(klass);

  /**
   * opensoratextsrc::add-prompt:
   * @object: the element
   * @prompt: what the clip shall show
   * @options: (nullable): what it shall be made with
   *
   * Adds a prompt to the queue, in any state.
   *
   * Returns: the prompt's number in messages, metas and #opensoratextsrc::cancel; 0, and a warning
   * that says why, if it is refused.
   *
   * Since: 0.1
   */
  g_signal_new_class_handler("add-prompt", type, flags,
                             G_CALLBACK(gst_opensora_text_src_add_prompt), NULL, NULL, NULL,
                             G_TYPE_UINT64, 2, G_TYPE_STRING, GST_TYPE_STRUCTURE);
  /**
   * opensoratextsrc::cancel:
   * @object: the element
   * @id: number of a prompt
   *
   * Drops the prompt; what of it is under way is broken off, here or in the elements that follow.
   *
   * Returns: %FALSE if there is no such prompt, or if its frames are leaving the decoder already.
   *
   * Since: 0.1
   */
  g_signal_new_class_handler("cancel", type, flags, G_CALLBACK(gst_opensora_text_src_cancel), NULL,
                             NULL, NULL, G_TYPE_BOOLEAN, 1, G_TYPE_UINT64);
  /**
   * opensoratextsrc::end:
   * @object: the element
   *
   * No more prompts will come: EOS follows the last one. To give up those that wait, send an EOS
   * event instead.
   *
   * Since: 0.1
   */
  g_signal_new_class_handler("end", type, flags, G_CALLBACK(gst_opensora_text_src_end), NULL, NULL,
                             NULL, G_TYPE_NONE, 0);
}

static void
gst_opensora_text_src_finalize(GObject *object)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(object);

  gst_opensora_model_clear(&self->model);
  gst_opensora_text_clear(&self->text);
  g_free(self->prompt_text);
  g_free(self->location);
  g_free(self->reference);
  gst_opensora_prompt_queue_clear(&self->queue);
  gst_opensora_interrupt_clear(&self->interrupt);
  G_OBJECT_CLASS(gst_opensora_text_src_parent_class)->finalize(object);
}

static void
gst_opensora_text_src_class_init(GstOpenSoraTextSrcClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);
  GstBaseSrcClass *base_class = GST_BASE_SRC_CLASS(klass);
  const GParamFlags flags = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY;

  object_class->set_property = gst_opensora_text_src_set_property;
  object_class->get_property = gst_opensora_text_src_get_property;
  object_class->finalize = gst_opensora_text_src_finalize;

  gst_opensora_model_install_properties(object_class, PROP_MODEL);
  g_object_class_install_property(
      object_class, PROP_PROMPT,
      g_param_spec_string("prompt", "Prompt", "What the clip shall show", NULL, flags));
  g_object_class_install_property(
      object_class, PROP_LOCATION,
      g_param_spec_string("location", "Location",
                          "File of prompts instead of \"prompt\": a text file with one prompt a "
                          "line, or a .csv file with a column \"text\" and optionally \"ref\" "
                          "(reference picture or video) and \"neg\" (negative prompt)",
                          NULL, flags));
  g_object_class_install_property(
      object_class, PROP_REFERENCE,
      g_param_spec_string(
          "reference", "Reference",
          "Picture that the clip shall begin with, or video that it shall go on after, as path or "
          "URI; a \"ref\" column of a prompt file goes before it",
          NULL, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING));
  g_object_class_install_property(
      object_class, PROP_IS_QUEUE,
      g_param_spec_boolean(
          "is-queue", "Is queue",
          "Wait for prompts of the signal add-prompt instead of ending the stream; "
          "skip those that cannot be made",
          DEFAULT_IS_QUEUE, flags));
  g_object_class_install_property(
      object_class, PROP_MAX_QUEUE,
      g_param_spec_uint("max-queue", "Maximum of the queue",
                        "Prompts that may wait; more are refused", 1, G_MAXUINT, DEFAULT_MAX_QUEUE,
                        G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING));
  g_object_class_install_property(
      object_class, PROP_QUEUE_LENGTH,
      g_param_spec_uint("queue-length", "Queue length", "Prompts that wait for their turn", 0,
                        G_MAXUINT, 0, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS));
  gst_opensora_text_install_properties(object_class, PROP_TEXT);
  install_signals(klass);

  gst_element_class_set_static_metadata(element_class, "Open-Sora prompt source", "Source/Text",
                                        "Encodes prompts for text-to-video generation",
                                        "The gst-opensora authors");
  gst_element_class_add_static_pad_template(element_class, &src_template);

  element_class->send_event = gst_opensora_text_src_send_event;
  base_class->start = gst_opensora_text_src_start;
  base_class->stop = gst_opensora_text_src_stop;
  base_class->query = gst_opensora_text_src_query;
  base_class->unlock = gst_opensora_text_src_unlock;
  base_class->unlock_stop = gst_opensora_text_src_unlock_stop;
  base_class->get_caps = gst_opensora_text_src_get_caps;
  base_class->set_caps = gst_opensora_text_src_set_caps;
  base_class->fixate = gst_opensora_text_src_fixate;
  GST_PUSH_SRC_CLASS(klass)->create = gst_opensora_text_src_create;
}

static void
gst_opensora_text_src_init(GstOpenSoraTextSrc *self)
{
  gst_opensora_model_init(&self->model);
  gst_opensora_text_init(&self->text);
  gst_opensora_interrupt_init(&self->interrupt);
  gst_opensora_prompt_queue_init(&self->queue);
  self->is_queue = DEFAULT_IS_QUEUE;
  self->max_queue = DEFAULT_MAX_QUEUE;
  gst_base_src_set_format(GST_BASE_SRC(self), GST_FORMAT_TIME);
  gst_base_src_set_live(GST_BASE_SRC(self), FALSE);
  gst_base_src_set_do_timestamp(GST_BASE_SRC(self), FALSE);
}
