/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-opensoraplayout
 * @title: opensoraplayout
 * @short_description: Plays clips that come at any pace as a steady live stream
 *
 * Takes clips whenever they are made and sends a frame whenever one is due on the pipeline's
 * clock: the slate until the first clip is there, then each clip until the next is complete. A
 * clip goes on air when all of its frames are there. Where more clips come than are played, what
 * makes them has to wait.
 *
 * Clips are told apart by the meta that frames of #opensoravaedec carry. Without it a clip is what
 * lies between two STREAM_START, SEGMENT, CAPS or EOS events, or #opensoraplayout:max-frames
 * frames.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 opensorasrc prompt="a red circle moving right on a blue background" num-samples=9
 * ! opensoraplayout repeat=ping-pong transition=cross-fade ! video/x-raw,width=128,height=128 !
 * videoconvert ! autovideosink
 * ]|
 *
 * Since: 0.1
 */
#include "gstopensoraplayout.h"

#include "cuda/gstopensoracudaoutput.h"
#include "gstopensoraclipmeta.h"
#include "gstopensoravideo.h"

GST_DEBUG_CATEGORY(gst_opensora_playout_debug);
#define GST_CAT_DEFAULT gst_opensora_playout_debug

#define DEFAULT_REPEAT GST_OPENSORA_REPEAT_LOOP
#define DEFAULT_MIN_PLAYS 1
#define DEFAULT_TRANSITION GST_OPENSORA_TRANSITION_CUT
#define DEFAULT_TRANSITION_FRAMES 12
#define DEFAULT_SLATE GST_OPENSORA_SLATE_COLOR
#define DEFAULT_SLATE_COLOR 0x000000
#define DEFAULT_MAX_CLIPS 3
#define DEFAULT_MAX_FRAMES 1024
#define DEFAULT_MAX_LATENESS GST_SECOND
#define DEFAULT_AT_EOS GST_OPENSORA_AT_EOS_DRAIN

enum {
  PROP_0,
  PROP_REPEAT,
  PROP_MIN_PLAYS,
  PROP_TRANSITION,
  PROP_TRANSITION_FRAMES,
  PROP_SLATE,
  PROP_SLATE_LOCATION,
  PROP_SLATE_COLOR,
  PROP_MAX_CLIPS,
  PROP_MAX_FRAMES,
  PROP_MAX_LATENESS,
  PROP_AT_EOS,
  PROP_STATS,
};

guint gst_opensora_playout_signals[GST_OPENSORA_PLAYOUT_N_SIGNALS];

#define FORMATS ", format = { I420, NV12, RGB, RGBx }, "
#define VIDEO_CAPS(fields)                                                                         \
  "video/x-raw" FORMATS fields "; video/x-raw(" GST_OPENSORA_CUDA_FEATURE ")" FORMATS fields

/* Pictures have the rate 0/1. */
static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(VIDEO_CAPS("width = (int) [ 1, MAX ], height = (int) [ 1, MAX ], "
                               "framerate = (fraction) [ 0/1, 2147483647/1 ]")));

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS(VIDEO_CAPS(GST_OPENSORA_ANY_VIDEO_FIELDS)));

G_DEFINE_FINAL_TYPE(GstOpenSoraPlayout, gst_opensora_playout, GST_TYPE_ELEMENT)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(
    opensoraplayout, "opensoraplayout", GST_RANK_NONE, GST_TYPE_OPENSORA_PLAYOUT,
    GST_DEBUG_CATEGORY_INIT(gst_opensora_playout_debug, "opensoraplayout", 0, "Open-Sora playout"));

static GType
gst_opensora_repeat_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_REPEAT_ONCE, "Once, then its last frame is held", "once" },
    { GST_OPENSORA_REPEAT_LOOP, "Again from its beginning", "loop" },
    { GST_OPENSORA_REPEAT_PING_PONG, "Backwards, forwards, ...", "ping-pong" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraRepeat", values));
  return type;
}

static GType
gst_opensora_transition_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_TRANSITION_CUT, "At once", "cut" },
    { GST_OPENSORA_TRANSITION_CROSS_FADE, "One fades into the other", "cross-fade" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraTransition", values));
  return type;
}

static GType
gst_opensora_slate_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_SLATE_COLOR, "The colour slate-color", "color" },
    { GST_OPENSORA_SLATE_PICTURE, "The picture slate-location", "picture" },
    { GST_OPENSORA_SLATE_NONE, "Nothing: the stream begins with the first clip", "none" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraSlate", values));
  return type;
}

static GType
gst_opensora_at_eos_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_AT_EOS_DRAIN, "Play the clips that are there, then end", "drain" },
    { GST_OPENSORA_AT_EOS_CONTINUE, "Go on with the last clip", "continue" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraAtEos", values));
  return type;
}

/* Properties */

static void
gst_opensora_playout_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(object);

  GST_OBJECT_LOCK(self);
  switch (id) {
  case PROP_REPEAT:
    self->repeat = g_value_get_enum(value);
    break;
  case PROP_MIN_PLAYS:
    self->min_plays = g_value_get_uint(value);
    break;
  case PROP_TRANSITION:
    self->transition = g_value_get_enum(value);
    break;
  case PROP_TRANSITION_FRAMES:
    self->transition_frames = g_value_get_uint(value);
    break;
  case PROP_SLATE:
    self->slate_kind = g_value_get_enum(value);
    break;
  case PROP_SLATE_LOCATION:
    g_free(self->slate_location);
    self->slate_location = g_value_dup_string(value);
    break;
  case PROP_SLATE_COLOR:
    self->slate_color = g_value_get_uint(value);
    break;
  case PROP_MAX_CLIPS:
    self->max_clips = g_value_get_uint(value);
    break;
  case PROP_MAX_FRAMES:
    self->max_frames = g_value_get_uint(value);
    break;
  case PROP_MAX_LATENESS:
    self->max_lateness = g_value_get_uint64(value);
    break;
  case PROP_AT_EOS:
    self->at_eos = g_value_get_enum(value);
    break;
  default:
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
  gst_opensora_clips_set_limits(&self->clips, self->max_clips, self->max_frames);
  GST_OBJECT_UNLOCK(self);
}

/* Without the object lock, which the task may ask for with the other one held. */
static GstStructure *
get_stats(GstOpenSoraPlayout *self)
{
  GstStructure *stats = gst_structure_new_empty("opensoraplayout-stats");

  gst_opensora_clips_get_stats(&self->clips, stats);
  g_mutex_lock(&self->lock);
  gst_structure_set(stats, "rendered", G_TYPE_UINT64, self->rendered, "dropped", G_TYPE_UINT64,
                    self->dropped, NULL);
  g_mutex_unlock(&self->lock);
  return stats;
}

static void
gst_opensora_playout_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(object);

  if (id == PROP_STATS) {
    g_value_take_boxed(value, get_stats(self));
    return;
  }
  GST_OBJECT_LOCK(self);
  switch (id) {
  case PROP_REPEAT:
    g_value_set_enum(value, self->repeat);
    break;
  case PROP_MIN_PLAYS:
    g_value_set_uint(value, self->min_plays);
    break;
  case PROP_TRANSITION:
    g_value_set_enum(value, self->transition);
    break;
  case PROP_TRANSITION_FRAMES:
    g_value_set_uint(value, self->transition_frames);
    break;
  case PROP_SLATE:
    g_value_set_enum(value, self->slate_kind);
    break;
  case PROP_SLATE_LOCATION:
    g_value_set_string(value, self->slate_location);
    break;
  case PROP_SLATE_COLOR:
    g_value_set_uint(value, self->slate_color);
    break;
  case PROP_MAX_CLIPS:
    g_value_set_uint(value, self->max_clips);
    break;
  case PROP_MAX_FRAMES:
    g_value_set_uint(value, self->max_frames);
    break;
  case PROP_MAX_LATENESS:
    g_value_set_uint64(value, self->max_lateness);
    break;
  case PROP_AT_EOS:
    g_value_set_enum(value, self->at_eos);
    break;
  default:
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
  GST_OBJECT_UNLOCK(self);
}

/* Caps */

GstCaps *
gst_opensora_playout_drop_rate(GstCaps *caps)
{
  caps = gst_caps_make_writable(caps);
  for (guint i = 0; i < gst_caps_get_size(caps); i++)
    gst_structure_remove_field(gst_caps_get_structure(caps, i), "framerate");
  return caps;
}

static gboolean
asks_for_cuda(const GstCaps *caps)
{
  for (guint i = 0; i < gst_caps_get_size(caps); i++)
    if (gst_opensora_cuda_in_caps(caps, i))
      return TRUE;
  return FALSE;
}

/* What downstream takes, in its own rate first and then in any, as frames are repeated or left
 * out. Who downstream takes anything at all does not ask for memory of a GPU. */
static GstCaps *
get_sink_caps(GstOpenSoraPlayout *self, GstCaps *filter)
{
  GstCaps *caps = gst_pad_get_pad_template_caps(self->sinkpad);
  g_autoptr(GstCaps) peer = gst_pad_peer_query_caps(self->srcpad, NULL);
  GstCaps *any_rate;

  if (!asks_for_cuda(peer))
    caps = gst_opensora_cuda_strip_caps(caps);
  if (!gst_caps_is_any(peer)) {
    any_rate = gst_opensora_playout_drop_rate(gst_caps_copy(peer));
    peer = gst_caps_merge(g_steal_pointer(&peer), any_rate);
    caps = gst_opensora_filter_caps(caps, peer);
  }
  return gst_opensora_filter_caps(caps, filter);
}

/* What upstream makes, in any rate. */
static GstCaps *
get_src_caps(GstOpenSoraPlayout *self, GstCaps *filter)
{
  g_autoptr(GstCaps) peer = gst_pad_peer_query_caps(self->sinkpad, NULL);
  GstCaps *caps = gst_pad_get_pad_template_caps(self->srcpad);

  if (!gst_caps_is_any(peer)) {
    peer = gst_opensora_playout_drop_rate(g_steal_pointer(&peer));
    caps = gst_opensora_filter_caps(caps, peer);
  }
  return gst_opensora_filter_caps(caps, filter);
}

/* The sink pad */

static GstFlowReturn
gst_opensora_playout_chain(GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
  return gst_opensora_clips_receive(&GST_OPENSORA_PLAYOUT(parent)->clips, buffer);
}

/* Goes out before the next frame, or at once if it does not belong to the stream's order. */
static gboolean
pass_event(GstOpenSoraPlayout *self, GstEvent *event)
{
  if (!GST_EVENT_IS_SERIALIZED(event))
    return gst_pad_push_event(self->srcpad, event);
  g_mutex_lock(&self->lock);
  self->events = g_list_prepend(self->events, event);
  g_mutex_unlock(&self->lock);
  return TRUE;
}

/* A slate that nobody has seen is made anew, as what clips will be. */
static gboolean
take_caps(GstOpenSoraPlayout *self, GstEvent *event)
{
  guint64 rendered;
  GstCaps *caps;

  gst_event_parse_caps(event, &caps);
  if (!gst_opensora_clips_set_caps(&self->clips, caps))
    return FALSE;
  g_mutex_lock(&self->lock);
  rendered = self->rendered;
  g_mutex_unlock(&self->lock);
  if (rendered == 0)
    gst_pad_mark_reconfigure(self->srcpad);
  return TRUE;
}

/* The output is a stream of its own: what describes the streams that come in ends here. */
static gboolean
gst_opensora_playout_sink_event(GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(parent);
  gboolean ok = TRUE;
  GstTagList *tags;

  GST_DEBUG_OBJECT(self, "%" GST_PTR_FORMAT, event);
  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_STREAM_START:
  case GST_EVENT_SEGMENT:
  case GST_EVENT_SEGMENT_DONE:
    gst_opensora_clips_begin_stream(&self->clips);
    break;
  case GST_EVENT_CAPS:
    ok = take_caps(self, event);
    break;
  case GST_EVENT_TAG:
    gst_event_parse_tag(event, &tags);
    gst_opensora_clips_set_tags(&self->clips, gst_tag_list_ref(tags));
    break;
  case GST_EVENT_EOS:
    gst_opensora_clips_end_stream(&self->clips);
    break;
  case GST_EVENT_FLUSH_START:
    gst_opensora_clips_set_flushing(&self->clips, TRUE);
    break;
  case GST_EVENT_FLUSH_STOP:
    gst_opensora_clips_flush(&self->clips);
    gst_opensora_clips_set_flushing(&self->clips, FALSE);
    break;
  case GST_EVENT_GAP:
  case GST_EVENT_BUFFERSIZE:
  case GST_EVENT_STREAM_COLLECTION:
  case GST_EVENT_STREAM_GROUP_DONE:
  case GST_EVENT_TOC:
  case GST_EVENT_INSTANT_RATE_CHANGE:
    break;
  default:
    return pass_event(self, event);
  }
  gst_event_unref(event);
  return ok;
}

static gboolean
gst_opensora_playout_sink_query(GstPad *pad, GstObject *parent, GstQuery *query)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(parent);
  GstCaps *filter, *caps;

  switch (GST_QUERY_TYPE(query)) {
  case GST_QUERY_CAPS:
    gst_query_parse_caps(query, &filter);
    caps = get_sink_caps(self, filter);
    gst_query_set_caps_result(query, caps);
    gst_caps_unref(caps);
    return TRUE;
  case GST_QUERY_ALLOCATION:
    /* Downstream's pools are for frames that come back soon: no pool is proposed here. Frames with
     * a layout of their own are copied where downstream cannot read them. */
    gst_query_add_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL);
    gst_query_add_allocation_meta(query, gst_meta_get_info(GST_OPENSORA_CLIP_META)->api, NULL);
    return TRUE;
  default:
    return gst_pad_query_default(pad, parent, query);
  }
}

static gboolean
gst_opensora_playout_sink_activate_mode(GstPad *pad, GstObject *parent, GstPadMode mode,
                                        gboolean active)
{
  if (mode != GST_PAD_MODE_PUSH)
    return FALSE;
  gst_opensora_clips_set_flushing(&GST_OPENSORA_PLAYOUT(parent)->clips, !active);
  return TRUE;
}

/* The source pad */

static gboolean
gst_opensora_playout_src_event(GstPad *pad, GstObject *parent, GstEvent *event)
{
  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_SEEK: /* the stream is live */
    gst_event_unref(event);
    return FALSE;
  case GST_EVENT_QOS: /* says nothing about the clips that are being made */
    gst_event_unref(event);
    return TRUE;
  case GST_EVENT_LATENCY:
    gst_pad_event_default(pad, parent, event);
    return TRUE;
  default:
    return gst_pad_event_default(pad, parent, event);
  }
}

/* A frame leaves when its time has come, and has the length of a frame for it. Nothing is lost
 * however long the frames are kept downstream. */
static void
answer_latency(GstOpenSoraPlayout *self, GstQuery *query)
{
  GstClockTime latency;

  g_mutex_lock(&self->lock);
  latency = gst_util_uint64_scale_int_ceil(GST_SECOND, self->fps_d, self->fps_n);
  g_mutex_unlock(&self->lock);
  gst_query_set_latency(query, TRUE, latency, GST_CLOCK_TIME_NONE);
}

static gboolean
answer_position(GstOpenSoraPlayout *self, GstQuery *query)
{
  GstClockTime position;
  GstFormat format;

  gst_query_parse_position(query, &format, NULL);
  g_mutex_lock(&self->lock);
  position = self->position;
  g_mutex_unlock(&self->lock);
  if (format != GST_FORMAT_TIME || !GST_CLOCK_TIME_IS_VALID(position))
    return FALSE;
  gst_query_set_position(query, GST_FORMAT_TIME, (gint64) position);
  return TRUE;
}

static gboolean
gst_opensora_playout_src_query(GstPad *pad, GstObject *parent, GstQuery *query)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(parent);
  GstCaps *filter, *caps;
  GstFormat format;

  switch (GST_QUERY_TYPE(query)) {
  case GST_QUERY_CAPS:
    gst_query_parse_caps(query, &filter);
    caps = get_src_caps(self, filter);
    gst_query_set_caps_result(query, caps);
    gst_caps_unref(caps);
    return TRUE;
  case GST_QUERY_LATENCY:
    answer_latency(self, query);
    return TRUE;
  case GST_QUERY_POSITION:
    return answer_position(self, query);
  case GST_QUERY_DURATION:
    return FALSE;
  case GST_QUERY_SEEKING:
    gst_query_parse_seeking(query, &format, NULL, NULL, NULL);
    gst_query_set_seeking(query, format, FALSE, 0, -1);
    return TRUE;
  default:
    return gst_pad_query_default(pad, parent, query);
  }
}

/* Has the task look again at what it waits for; with the lock held. */
static void
wake_task(GstOpenSoraPlayout *self)
{
  if (self->clock_id)
    gst_clock_id_unschedule(self->clock_id);
  g_cond_broadcast(&self->cond);
}

static void
set_flag(GstOpenSoraPlayout *self, gboolean *flag, gboolean value)
{
  g_mutex_lock(&self->lock);
  *flag = value;
  wake_task(self);
  g_mutex_unlock(&self->lock);
}

static gboolean
gst_opensora_playout_src_activate_mode(GstPad *pad, GstObject *parent, GstPadMode mode,
                                       gboolean active)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(parent);

  if (mode != GST_PAD_MODE_PUSH)
    return FALSE;
  set_flag(self, &self->flushing, !active);
  if (active) {
    gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_ANY_REASON);
    return gst_pad_start_task(pad, gst_opensora_playout_loop, pad, NULL);
  }
  gst_opensora_interrupt_raise(&self->interrupt, GST_OPENSORA_STOPPING);
  return gst_pad_stop_task(pad);
}

/* The element */

/* EOS from the application ends the stream with the frame at hand. A live stream is not flushed. */
static gboolean
gst_opensora_playout_send_event(GstElement *element, GstEvent *event)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(element);
  gboolean runs;

  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_EOS:
    g_mutex_lock(&self->lock);
    runs = !self->flushing;
    self->ending = runs;
    wake_task(self);
    g_mutex_unlock(&self->lock);
    gst_event_unref(event);
    return runs;
  case GST_EVENT_FLUSH_START:
  case GST_EVENT_FLUSH_STOP:
    gst_event_unref(event);
    return FALSE;
  default:
    return GST_ELEMENT_CLASS(gst_opensora_playout_parent_class)->send_event(element, event);
  }
}

static gboolean
gst_opensora_playout_set_clock(GstElement *element, GstClock *clock)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(element);
  const gboolean ok =
      GST_ELEMENT_CLASS(gst_opensora_playout_parent_class)->set_clock(element, clock);

  g_mutex_lock(&self->lock);
  wake_task(self);
  g_mutex_unlock(&self->lock);
  return ok;
}

static void
reset(GstOpenSoraPlayout *self)
{
  gst_opensora_playout_reset(self);
  gst_opensora_clips_reset(&self->clips);
}

static GstStateChangeReturn
gst_opensora_playout_change_state(GstElement *element, GstStateChange transition)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(element);
  GstStateChangeReturn ret;

  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED)
    reset(self);
  else if (transition == GST_STATE_CHANGE_PAUSED_TO_PLAYING)
    set_flag(self, &self->playing, TRUE);
  else if (transition == GST_STATE_CHANGE_PLAYING_TO_PAUSED)
    set_flag(self, &self->playing, FALSE);

  ret = GST_ELEMENT_CLASS(gst_opensora_playout_parent_class)->change_state(element, transition);

  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
      (transition == GST_STATE_CHANGE_READY_TO_PAUSED && ret == GST_STATE_CHANGE_FAILURE))
    reset(self);
  if ((transition == GST_STATE_CHANGE_READY_TO_PAUSED ||
       transition == GST_STATE_CHANGE_PLAYING_TO_PAUSED) &&
      ret == GST_STATE_CHANGE_SUCCESS)
    return GST_STATE_CHANGE_NO_PREROLL;
  return ret;
}

static void
gst_opensora_playout_finalize(GObject *object)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(object);

  reset(self);
  gst_opensora_clips_clear(&self->clips);
  gst_opensora_interrupt_clear(&self->interrupt);
  g_mutex_clear(&self->lock);
  g_cond_clear(&self->cond);
  g_free(self->slate_location);
  G_OBJECT_CLASS(gst_opensora_playout_parent_class)->finalize(object);
}

#define FLAGS_PLAYING (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING)
#define FLAGS_READY (G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY)

static void
install_properties(GObjectClass *klass)
{
  g_object_class_install_property(
      klass, PROP_REPEAT,
      g_param_spec_enum("repeat", "Repeat", "How a clip is played until the next one is complete",
                        gst_opensora_repeat_get_type(), DEFAULT_REPEAT, FLAGS_PLAYING));
  g_object_class_install_property(
      klass, PROP_MIN_PLAYS,
      g_param_spec_uint("min-plays", "Least plays",
                        "Times that every clip is played, even if the next one is complete", 1,
                        G_MAXINT, DEFAULT_MIN_PLAYS, FLAGS_PLAYING));
  g_object_class_install_property(
      klass, PROP_TRANSITION,
      g_param_spec_enum("transition", "Transition",
                        "From one clip to the next. Clips of different sizes or formats, and those "
                        "in CUDA memory, are always cut",
                        gst_opensora_transition_get_type(), DEFAULT_TRANSITION, FLAGS_PLAYING));
  g_object_class_install_property(
      klass, PROP_TRANSITION_FRAMES,
      g_param_spec_uint("transition-frames", "Transition frames",
                        "Frames of the output that a transition takes, unless it is a cut", 1,
                        G_MAXINT, DEFAULT_TRANSITION_FRAMES, FLAGS_PLAYING));
  g_object_class_install_property(
      klass, PROP_SLATE,
      g_param_spec_enum("slate", "Slate", "What is sent until the first clip is complete",
                        gst_opensora_slate_get_type(), DEFAULT_SLATE, FLAGS_READY));
  g_object_class_install_property(
      klass, PROP_SLATE_LOCATION,
      g_param_spec_string("slate-location", "Slate location",
                          "Picture of the slate as path or URI, scaled to fill the frame and "
                          "cropped at the centre",
                          NULL, FLAGS_READY));
  g_object_class_install_property(klass, PROP_SLATE_COLOR,
                                  g_param_spec_uint("slate-color", "Slate color",
                                                    "Colour of the slate, 0xRRGGBB", 0, 0xffffff,
                                                    DEFAULT_SLATE_COLOR, FLAGS_READY));
  g_object_class_install_property(
      klass, PROP_MAX_CLIPS,
      g_param_spec_uint("max-clips", "Most clips",
                        "Clips that are held at once, with those that are played and the one that "
                        "is coming; then upstream has to wait",
                        2, G_MAXINT, DEFAULT_MAX_CLIPS, FLAGS_PLAYING));
  g_object_class_install_property(
      klass, PROP_MAX_FRAMES,
      g_param_spec_uint("max-frames", "Most frames",
                        "Frames after which a clip ends and another begins, whatever comes", 1,
                        G_MAXINT, DEFAULT_MAX_FRAMES, FLAGS_PLAYING));
  g_object_class_install_property(
      klass, PROP_MAX_LATENESS,
      g_param_spec_uint64("max-lateness", "Most lateness",
                          "Nanoseconds that the output may be late, because downstream is too "
                          "slow, before it leaves frame times out to be on time again; "
                          "18446744073709551615: any time",
                          0, G_MAXUINT64, DEFAULT_MAX_LATENESS, FLAGS_PLAYING));
  g_object_class_install_property(
      klass, PROP_AT_EOS,
      g_param_spec_enum("at-eos", "At EOS", "What to do at the end of the incoming stream",
                        gst_opensora_at_eos_get_type(), DEFAULT_AT_EOS, FLAGS_PLAYING));
  g_object_class_install_property(
      klass, PROP_STATS,
      g_param_spec_boxed("stats", "Statistics",
                         "What is held: clips, clips-waiting (complete ones), frames, bytes; and "
                         "the frame times that were sent (rendered) and left out (dropped)",
                         GST_TYPE_STRUCTURE, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS));
}

static void
install_signals(GObjectClass *klass)
{
  /**
   * GstOpenSoraPlayout::clip-started:
   * @element: the element
   * @prompt: (nullable): what the clip was made from
   * @clip: the fields of its GstOpenSoraClipMeta, none if it has none
   *
   * The first frame of a clip is about to be sent. Comes from the streaming thread.
   *
   * Since: 0.1
   */
  gst_opensora_playout_signals[GST_OPENSORA_CLIP_STARTED] =
      g_signal_new("clip-started", G_TYPE_FROM_CLASS(klass), G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL,
                   G_TYPE_NONE, 2, G_TYPE_STRING, GST_TYPE_STRUCTURE);
  /**
   * GstOpenSoraPlayout::clip-ended:
   * @element: the element
   * @prompt: (nullable): what the clip was made from
   * @clip: the fields of its GstOpenSoraClipMeta, none if it has none
   *
   * The last frame of a clip has been sent. Comes from the streaming thread.
   *
   * Since: 0.1
   */
  gst_opensora_playout_signals[GST_OPENSORA_CLIP_ENDED] =
      g_signal_new("clip-ended", G_TYPE_FROM_CLASS(klass), G_SIGNAL_RUN_LAST, 0, NULL, NULL, NULL,
                   G_TYPE_NONE, 2, G_TYPE_STRING, GST_TYPE_STRUCTURE);
}

static void
gst_opensora_playout_class_init(GstOpenSoraPlayoutClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);

  object_class->set_property = gst_opensora_playout_set_property;
  object_class->get_property = gst_opensora_playout_get_property;
  object_class->finalize = gst_opensora_playout_finalize;
  install_properties(object_class);
  install_signals(object_class);

  gst_element_class_set_static_metadata(element_class, "Open-Sora playout", "Generic/Video",
                                        "Plays clips that come at any pace as a steady live stream",
                                        "The gst-opensora authors");
  gst_element_class_add_static_pad_template(element_class, &sink_template);
  gst_element_class_add_static_pad_template(element_class, &src_template);

  element_class->change_state = gst_opensora_playout_change_state;
  element_class->send_event = gst_opensora_playout_send_event;
  element_class->set_clock = gst_opensora_playout_set_clock;

  gst_type_mark_as_plugin_api(gst_opensora_repeat_get_type(), 0);
  gst_type_mark_as_plugin_api(gst_opensora_transition_get_type(), 0);
  gst_type_mark_as_plugin_api(gst_opensora_slate_get_type(), 0);
  gst_type_mark_as_plugin_api(gst_opensora_at_eos_get_type(), 0);
}

static void
gst_opensora_playout_init(GstOpenSoraPlayout *self)
{
  self->repeat = DEFAULT_REPEAT;
  self->min_plays = DEFAULT_MIN_PLAYS;
  self->transition = DEFAULT_TRANSITION;
  self->transition_frames = DEFAULT_TRANSITION_FRAMES;
  self->slate_kind = DEFAULT_SLATE;
  self->slate_color = DEFAULT_SLATE_COLOR;
  self->max_clips = DEFAULT_MAX_CLIPS;
  self->max_frames = DEFAULT_MAX_FRAMES;
  self->max_lateness = DEFAULT_MAX_LATENESS;
  self->at_eos = DEFAULT_AT_EOS;

  g_mutex_init(&self->lock);
  g_cond_init(&self->cond);
  self->flushing = TRUE;
  gst_opensora_interrupt_init(&self->interrupt);
  gst_opensora_clips_init(&self->clips);
  gst_opensora_clips_set_limits(&self->clips, self->max_clips, self->max_frames);
  gst_opensora_player_init(&self->player, &self->clips);
  gst_opensora_playout_reset(self);

  self->sinkpad = gst_pad_new_from_static_template(&sink_template, "sink");
  gst_pad_set_chain_function(self->sinkpad, gst_opensora_playout_chain);
  gst_pad_set_event_function(self->sinkpad, gst_opensora_playout_sink_event);
  gst_pad_set_query_function(self->sinkpad, gst_opensora_playout_sink_query);
  gst_pad_set_activatemode_function(self->sinkpad, gst_opensora_playout_sink_activate_mode);
  gst_element_add_pad(GST_ELEMENT(self), self->sinkpad);

  self->srcpad = gst_pad_new_from_static_template(&src_template, "src");
  gst_pad_set_event_function(self->srcpad, gst_opensora_playout_src_event);
  gst_pad_set_query_function(self->srcpad, gst_opensora_playout_src_query);
  gst_pad_set_activatemode_function(self->srcpad, gst_opensora_playout_src_activate_mode);
  gst_element_add_pad(GST_ELEMENT(self), self->srcpad);

  /* So that bins hand it the EOS of the application, and know that it needs a clock. */
  GST_OBJECT_FLAG_SET(self, GST_ELEMENT_FLAG_SOURCE);
  GST_OBJECT_FLAG_SET(self, GST_ELEMENT_FLAG_REQUIRE_CLOCK);
}
