/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel.h"

#include "log.h"

struct _Channel {
  gatomicrefcount ref_count; /* the watch has a reference */
  gboolean live;
  GstElement *pipeline;
  GstElement *source; /* the pipeline's */
  Relay *relay;
  GSource *watch;
  ChannelMessageFunc message_func;
  gpointer user_data;
};

/* Elements alone; what they are set to are not words for a parser. */
static GstElement *
make_pipeline(const Options *options, GError **error)
{
  g_autofree char *description =
      g_strdup_printf("opensorasrc name=source ! opensoraplayout name=playout"
                      " ! video/x-raw,format=I420,width=%u,height=%u,framerate=%d/%d"
                      " ! appsink name=sink sync=false max-buffers=2 drop=true qos=false",
                      options->width, options->height, options->fps_n, options->fps_d);

  return gst_parse_launch_full(description, NULL, GST_PARSE_FLAG_FATAL_ERRORS, error);
}

static gboolean
set_nick(GstElement *element, const char *property, const char *nick, GError **error)
{
  GParamSpec *pspec = g_object_class_find_property(G_OBJECT_GET_CLASS(element), property);

  if (!g_enum_get_value_by_nick(G_PARAM_SPEC_ENUM(pspec)->enum_class, nick)) {
    g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                "--%s=%s: GStreamer's element knows no such value", property, nick);
    return FALSE;
  }
  gst_util_set_object_arg(G_OBJECT(element), property, nick);
  return TRUE;
}

static void
configure_source(GstElement *source, const Options *options, const ClipRequest *request)
{
  g_object_set(source, "seed", options->seed, NULL);
  if (options->model)
    g_object_set(source, "model-location", options->model, NULL);
  if (options->device)
    g_object_set(source, "device", options->device, NULL);
  if (options->num_frames > 0)
    g_object_set(source, "num-frames", options->num_frames, NULL);
  if (options->steps > 0)
    g_object_set(source, "steps", options->steps, NULL);
  if (request)
    g_object_set(source, "prompt", request->prompt, "negative-prompt", request->negative_prompt,
                 "seed", request->seed, NULL);
  else
    g_object_set(source, "is-queue", TRUE, "max-queue", options->max_queue, NULL);
}

static gboolean
configure_playout(GstElement *playout, const Options *options, gboolean live, GError **error)
{
  const char *repeat = live                                     ? options->repeat
                       : options->after_clip == AFTER_CLIP_LOOP ? "loop"
                                                                : "once";
  const char *at_eos = !live && options->after_clip == AFTER_CLIP_END ? "drain" : "continue";

  if (!set_nick(playout, "repeat", repeat, error) || !set_nick(playout, "at-eos", at_eos, error))
    return FALSE;
  if (options->slate) {
    gst_util_set_object_arg(G_OBJECT(playout), "slate", "picture");
    g_object_set(playout, "slate-location", options->slate, NULL);
  }
  if (live && options->transition_frames > 0) {
    gst_util_set_object_arg(G_OBJECT(playout), "transition", "cross-fade");
    g_object_set(playout, "transition-frames", options->transition_frames, NULL);
  }
  return TRUE;
}

static gboolean
on_message(GstBus *bus, GstMessage *message, gpointer channel)
{
  Channel *self = channel;

  switch (GST_MESSAGE_TYPE(message)) {
  case GST_MESSAGE_LATENCY:
    gst_bin_recalculate_latency(GST_BIN(self->pipeline));
    break;
  case GST_MESSAGE_ERROR:
  case GST_MESSAGE_WARNING:
    GST_WARNING_OBJECT(GST_MESSAGE_SRC(message), "%" GST_PTR_FORMAT, message);
    if (!self->live && GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR)
      relay_end(self->relay);
    break;
  default:
    break;
  }
  if (self->message_func)
    self->message_func(message, self->user_data);
  return G_SOURCE_CONTINUE;
}

static void
unref(gpointer channel)
{
  channel_unref(channel);
}

/* In the main context, whichever thread asks. */
static void
watch(Channel *self)
{
  g_autoptr(GstBus) bus = gst_element_get_bus(self->pipeline);

  self->watch = gst_bus_create_watch(bus);
  g_atomic_ref_count_inc(&self->ref_count);
  g_source_set_callback(self->watch, G_SOURCE_FUNC(on_message), self, unref);
  g_source_attach(self->watch, NULL);
}

Channel *
channel_new(const Options *options, const ClipRequest *request, GError **error)
{
  g_autoptr(Channel) self = g_new0(Channel, 1);
  g_autoptr(GstElement) playout = NULL, sink = NULL;
  g_autoptr(GstClock) clock = gst_system_clock_obtain();

  g_atomic_ref_count_init(&self->ref_count);
  self->live = !request;
  if (!(self->pipeline = make_pipeline(options, error)))
    return NULL;
  gst_pipeline_use_clock(GST_PIPELINE(self->pipeline), clock);
  self->source = gst_bin_get_by_name(GST_BIN(self->pipeline), "source");
  playout = gst_bin_get_by_name(GST_BIN(self->pipeline), "playout");
  sink = gst_bin_get_by_name(GST_BIN(self->pipeline), "sink");
  configure_source(self->source, options, request);
  if (!configure_playout(playout, options, self->live, error))
    return NULL;
  self->relay = relay_new(GST_APP_SINK(sink));
  return g_steal_pointer(&self);
}

void
channel_unref(Channel *self)
{
  if (!g_atomic_ref_count_dec(&self->ref_count))
    return;
  gst_clear_object(&self->source);
  gst_clear_object(&self->pipeline);
  g_clear_pointer(&self->relay, relay_unref);
  g_free(self);
}

void
channel_set_message_func(Channel *self, ChannelMessageFunc func, gpointer user_data)
{
  self->message_func = func;
  self->user_data = user_data;
}

/* The error that the bus holds, else that there is one. */
static void
take_error(GstBus *bus, GError **error)
{
  g_autoptr(GstMessage) message = gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR);
  g_autoptr(GError) found = NULL;

  if (message)
    gst_message_parse_error(message, &found, NULL);
  g_set_error(error, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED, "%s",
              found ? found->message : "the pipeline does not start");
}

gboolean
channel_start(Channel *self, GError **error)
{
  g_autoptr(GstBus) bus = gst_element_get_bus(self->pipeline);

  if (gst_element_set_state(self->pipeline, GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE) {
    take_error(bus, error);
    gst_element_set_state(self->pipeline, GST_STATE_NULL);
    return FALSE;
  }
  watch(self);
  return TRUE;
}

void
channel_stop(Channel *self)
{
  if (self->watch) {
    g_source_destroy(self->watch);
    g_clear_pointer(&self->watch, g_source_unref);
  }
  gst_element_set_state(self->pipeline, GST_STATE_NULL);
}

GstElement *
channel_get_source(Channel *self)
{
  return self->source;
}

Relay *
channel_get_relay(Channel *self)
{
  return self->relay;
}
