/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-opensoratextsrc
 * @title: opensoratextsrc
 * @short_description: Encodes prompts for Open-Sora text-to-video generation
 *
 * Encodes the prompt (or every prompt of a text or CSV file) with the model's text encoders
 * and sends one buffer a clip to #opensoradenoise; EOS follows the last.
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
  PROP_TEXT, /* and the GST_OPENSORA_TEXT_N_PROPS - 1 ids after it */
};

#define GST_TYPE_OPENSORA_TEXT_SRC (gst_opensora_text_src_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraTextSrc, gst_opensora_text_src, GST, OPENSORA_TEXT_SRC, GstPushSrc)

struct _GstOpenSoraTextSrc {
  GstPushSrc parent;

  GstOpenSoraModel model;
  GstOpenSoraText text;
  char *prompt, *location, *reference;

  GstOpenSoraInterrupt interrupt;
  GPtrArray *prompts; /* OsrPrompt, from start() to stop(); object lock */
  guint next_prompt, next_sample, next_clip;
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
    replace_string(self, &self->prompt, value);
    break;
  case PROP_LOCATION:
    replace_string(self, &self->location, value);
    break;
  case PROP_REFERENCE:
    replace_string(self, &self->reference, value);
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
    g_value_set_string(value, self->prompt);
    break;
  case PROP_LOCATION:
    g_value_set_string(value, self->location);
    break;
  case PROP_REFERENCE:
    g_value_set_string(value, self->reference);
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
gst_opensora_text_src_start(GstBaseSrc *src)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);
  g_autofree char *location = NULL;
  g_autofree char *prompt = NULL;
  GPtrArray *prompts;
  GError *error = NULL;

  GST_OBJECT_LOCK(self);
  location = g_strdup(self->location);
  prompt = g_strdup(self->prompt);
  GST_OBJECT_UNLOCK(self);

  if (!location && !prompt) {
    GST_ELEMENT_ERROR(self, RESOURCE, SETTINGS, ("Neither \"prompt\" nor \"location\" is set."),
                      (NULL));
    return FALSE;
  }
  if (location && prompt) {
    GST_ELEMENT_ERROR(self, RESOURCE, SETTINGS,
                      ("Both \"prompt\" and \"location\" are set: only one can be used."), (NULL));
    return FALSE;
  }
  if (location) {
    prompts = osr_prompts_read(location, &error);
    if (!prompts) {
      gst_opensora_post_error(GST_ELEMENT(self), error);
      return FALSE;
    }
  } else {
    OsrPrompt *only = g_new0(OsrPrompt, 1);

    only->text = g_steal_pointer(&prompt);
    prompts = g_ptr_array_new_with_free_func((GDestroyNotify) osr_prompt_free);
    g_ptr_array_add(prompts, only);
  }
  if (!gst_opensora_text_open(&self->text, GST_ELEMENT(self), &self->model)) {
    g_ptr_array_unref(prompts);
    return FALSE;
  }
  GST_OBJECT_LOCK(self);
  self->prompts = prompts;
  GST_OBJECT_UNLOCK(self);
  self->next_prompt = self->next_sample = self->next_clip = 0;
  self->fps_n = (gint) osr_model_get_dir(self->model.model)->fps;
  self->fps_d = 1;
  gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_ANY_REASON);
  return TRUE;
}

static gboolean
gst_opensora_text_src_stop(GstBaseSrc *src)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);

  gst_opensora_model_close(&self->model, GST_ELEMENT(self));
  GST_OBJECT_LOCK(self);
  g_clear_pointer(&self->prompts, g_ptr_array_unref);
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
      if (self->prompts)
        n_clips = (gint64) self->prompts->len * self->text.num_samples;
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

static GstFlowReturn
gst_opensora_text_src_create(GstPushSrc *src, GstBuffer **buffer)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(src);
  g_autoptr(GCancellable) cancellable = gst_opensora_interrupt_begin(&self->interrupt);
  g_autofree char *reference = NULL;
  GstOpenSoraTextClip clip = { 0 };
  const OsrPrompt *prompt;
  GstFlowReturn ret;
  guint num_samples;

  GST_OBJECT_LOCK(self);
  num_samples = self->text.num_samples;
  reference = g_strdup(self->reference);
  GST_OBJECT_UNLOCK(self);

  if (self->next_sample >= num_samples) {
    self->next_sample = 0;
    self->next_prompt++;
  }
  if (self->next_prompt >= self->prompts->len ||
      gst_opensora_interrupt_has(&self->interrupt, GST_OPENSORA_ENDED))
    return GST_FLOW_EOS;

  prompt = g_ptr_array_index(self->prompts, self->next_prompt);
  clip.prompt = prompt->text;
  clip.negative_prompt = prompt->neg;
  clip.reference = prompt->ref ? prompt->ref : reference;
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
  if (ret == GST_FLOW_FLUSHING && gst_opensora_interrupt_has(&self->interrupt, GST_OPENSORA_ENDED))
    return GST_FLOW_EOS;
  return ret;
}

static void
gst_opensora_text_src_finalize(GObject *object)
{
  GstOpenSoraTextSrc *self = GST_OPENSORA_TEXT_SRC(object);

  gst_opensora_model_clear(&self->model);
  gst_opensora_text_clear(&self->text);
  g_free(self->prompt);
  g_free(self->location);
  g_free(self->reference);
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
  gst_opensora_text_install_properties(object_class, PROP_TEXT);

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
  gst_base_src_set_format(GST_BASE_SRC(self), GST_FORMAT_TIME);
  gst_base_src_set_live(GST_BASE_SRC(self), FALSE);
  gst_base_src_set_do_timestamp(GST_BASE_SRC(self), FALSE);
}
