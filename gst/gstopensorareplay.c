/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensorareplay.h"

GST_DEBUG_CATEGORY_STATIC(gst_opensora_replay_debug);
#define GST_CAT_DEFAULT gst_opensora_replay_debug

struct _GstOpenSoraReplay {
  GstElement parent;
  GstPad *sinkpad, *srcpad;
  char *stream_id; /* NULL: as it comes */

  GMutex lock;
  GCond cond;
  /* Under the lock */
  GPtrArray *items;  /* GstBuffer and GstEvent (in band, but for SEGMENT), as they came */
  gboolean complete; /* upstream has ended */
  gboolean flushing;
  gboolean failed;    /* downstream; an error has been posted */
  GstClockTime end;   /* of what is held */
  GstSegment segment; /* that is played; its position: of the last frame that was sent */
  guint32 seqnum;
  guint next; /* item to play */
  guint told; /* items before this one have been played once */
  gboolean segment_is_new, discont;
};

static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);
static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS, GST_STATIC_CAPS_ANY);

G_DEFINE_FINAL_TYPE_WITH_CODE(GstOpenSoraReplay, gst_opensora_replay, GST_TYPE_ELEMENT,
                              GST_DEBUG_CATEGORY_INIT(gst_opensora_replay_debug, "opensorareplay",
                                                      0, "Open-Sora replay"))

/* What comes */

static void
append(GstOpenSoraReplay *self, gpointer item)
{
  g_mutex_lock(&self->lock);
  g_ptr_array_add(self->items, item);
  if (GST_IS_BUFFER(item) && GST_BUFFER_PTS_IS_VALID(item))
    self->end =
        GST_BUFFER_PTS(item) + (GST_BUFFER_DURATION_IS_VALID(item) ? GST_BUFFER_DURATION(item) : 0);
  g_cond_signal(&self->cond);
  g_mutex_unlock(&self->lock);
}

/* Never waits: what is not wanted now is wanted later. */
static GstFlowReturn
gst_opensora_replay_chain(GstPad *pad, GstObject *parent, GstBuffer *buffer)
{
  GstOpenSoraReplay *self = GST_OPENSORA_REPLAY(parent);
  gboolean failed;

  g_mutex_lock(&self->lock);
  failed = self->failed;
  g_mutex_unlock(&self->lock);
  if (failed) {
    gst_buffer_unref(buffer);
    return GST_FLOW_FLUSHING;
  }
  append(self, buffer);
  return GST_FLOW_OK;
}

/* (takes @event) */
static GstEvent *
rename_stream(GstOpenSoraReplay *self, GstEvent *event)
{
  GstEvent *renamed;
  guint group;

  if (!self->stream_id)
    return event;
  renamed = gst_event_new_stream_start(self->stream_id);
  gst_event_set_seqnum(renamed, gst_event_get_seqnum(event));
  if (gst_event_parse_group_id(event, &group))
    gst_event_set_group_id(renamed, group);
  gst_event_unref(event);
  return renamed;
}

static gboolean
gst_opensora_replay_sink_event(GstPad *pad, GstObject *parent, GstEvent *event)
{
  GstOpenSoraReplay *self = GST_OPENSORA_REPLAY(parent);

  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_STREAM_START:
    append(self, rename_stream(self, event));
    return TRUE;
  case GST_EVENT_SEGMENT: /* the seeks decide */
    gst_event_unref(event);
    return TRUE;
  case GST_EVENT_EOS:
    gst_event_unref(event);
    g_mutex_lock(&self->lock);
    self->complete = TRUE;
    g_cond_signal(&self->cond);
    g_mutex_unlock(&self->lock);
    return TRUE;
  default:
    if (!GST_EVENT_IS_SERIALIZED(event))
      return gst_pad_event_default(pad, parent, event);
    append(self, event);
    return TRUE;
  }
}

/* What waits for the data before it cannot be answered here. That includes ALLOCATION: a pool of
 * those downstream may run dry, as frames are kept. */
static gboolean
gst_opensora_replay_sink_query(GstPad *pad, GstObject *parent, GstQuery *query)
{
  return !GST_QUERY_IS_SERIALIZED(query) && gst_pad_query_default(pad, parent, query);
}

/* What goes */

static gboolean
is_done(GstOpenSoraReplay *self)
{
  return self->complete && self->next == self->items->len;
}

/* The next item to send, NULL at the end of the segment or with @flushing. Frames before the
 * segment are passed over, and so is what has been told before. Takes the lock. */
static gpointer
take_item(GstOpenSoraReplay *self, gboolean *flushing)
{
  gpointer item = NULL;

  g_mutex_lock(&self->lock);
  while (!item && !self->flushing && !is_done(self)) {
    const guint i = self->next;

    if (i == self->items->len) {
      g_cond_wait(&self->cond, &self->lock);
      continue;
    }
    item = g_ptr_array_index(self->items, i);
    self->next++;
    if (GST_IS_EVENT(item)) {
      if (i < self->told && GST_EVENT_TYPE(item) != GST_EVENT_CAPS)
        item = NULL;
    } else if (GST_CLOCK_TIME_IS_VALID(self->segment.stop) &&
               GST_BUFFER_PTS(item) >= self->segment.stop) {
      self->next = i; /* for the seek that comes after */
      item = NULL;
      break;
    } else if (GST_BUFFER_PTS(item) + GST_BUFFER_DURATION(item) <= self->segment.start) {
      item = NULL;
    }
    self->told = MAX(self->told, self->next);
  }
  *flushing = self->flushing;
  if (item)
    gst_mini_object_ref(item);
  g_mutex_unlock(&self->lock);
  return item;
}

/* The event that has to go before the next frame, NULL if none has. */
static GstEvent *
take_segment(GstOpenSoraReplay *self)
{
  GstEvent *event = NULL;

  g_mutex_lock(&self->lock);
  if (self->segment_is_new) {
    event = gst_event_new_segment(&self->segment);
    gst_event_set_seqnum(event, self->seqnum);
  }
  self->segment_is_new = FALSE;
  g_mutex_unlock(&self->lock);
  return event;
}

/* (takes @buffer) */
static GstFlowReturn
send_frame(GstOpenSoraReplay *self, GstBuffer *buffer)
{
  GstEvent *segment = take_segment(self);

  if (segment)
    gst_pad_push_event(self->srcpad, segment);
  g_mutex_lock(&self->lock);
  self->segment.position = GST_BUFFER_PTS(buffer);
  if (self->discont) {
    buffer = gst_buffer_make_writable(buffer);
    GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
  }
  self->discont = FALSE;
  g_mutex_unlock(&self->lock);
  return gst_pad_push(self->srcpad, buffer);
}

/* The segment is over. */
static void
send_end(GstOpenSoraReplay *self)
{
  GstEvent *segment = take_segment(self), *event;
  GstClockTime stop;
  guint32 seqnum;
  gboolean loop;

  g_mutex_lock(&self->lock);
  stop = MIN(self->segment.stop, self->end);
  seqnum = self->seqnum;
  loop = (self->segment.flags & GST_SEGMENT_FLAG_SEGMENT) != 0;
  g_mutex_unlock(&self->lock);

  if (segment)
    gst_pad_push_event(self->srcpad, segment);
  if (loop) {
    GstMessage *message = gst_message_new_segment_done(GST_OBJECT(self), GST_FORMAT_TIME, stop);

    gst_message_set_seqnum(message, seqnum);
    gst_element_post_message(GST_ELEMENT(self), message);
    event = gst_event_new_segment_done(GST_FORMAT_TIME, stop);
  } else {
    event = gst_event_new_eos();
  }
  gst_event_set_seqnum(event, seqnum);
  gst_pad_push_event(self->srcpad, event);
}

/* Caps that are played again are left out where they are those in force. (takes @event) */
static void
send_event(GstOpenSoraReplay *self, GstEvent *event)
{
  g_autoptr(GstCaps) current = gst_pad_get_current_caps(self->srcpad);
  GstCaps *caps;

  if (current && GST_EVENT_TYPE(event) == GST_EVENT_CAPS) {
    gst_event_parse_caps(event, &caps);
    if (gst_caps_is_equal(caps, current)) {
      gst_event_unref(event);
      return;
    }
  }
  gst_pad_push_event(self->srcpad, event);
}

static void
gst_opensora_replay_loop(gpointer pad)
{
  GstOpenSoraReplay *self = GST_OPENSORA_REPLAY(GST_PAD_PARENT(pad));
  GstFlowReturn ret = GST_FLOW_OK;
  gboolean flushing;
  gpointer item = take_item(self, &flushing);

  if (item && GST_IS_EVENT(item))
    send_event(self, item);
  else if (item)
    ret = send_frame(self, item);
  else
    ret = flushing ? GST_FLOW_FLUSHING : GST_FLOW_EOS;
  if (ret == GST_FLOW_OK)
    return;

  GST_DEBUG_OBJECT(self, "pausing: %s", gst_flow_get_name(ret));
  gst_pad_pause_task(self->srcpad);
  if (ret == GST_FLOW_EOS) {
    send_end(self);
  } else if (ret != GST_FLOW_FLUSHING) {
    g_mutex_lock(&self->lock);
    self->failed = TRUE;
    g_mutex_unlock(&self->lock);
    GST_ELEMENT_FLOW_ERROR(self, ret);
    gst_pad_push_event(self->srcpad, gst_event_new_eos());
  }
}

/* The task stops before the next frame, and is waited for if it does not wait itself. */
static void
set_flushing(GstOpenSoraReplay *self, gboolean flushing)
{
  g_mutex_lock(&self->lock);
  self->flushing = flushing;
  g_cond_signal(&self->cond);
  g_mutex_unlock(&self->lock);
}

static gboolean
place(GstOpenSoraReplay *self, GstEvent *seek)
{
  GstSeekType start_type, stop_type;
  gint64 start, stop;
  GstSeekFlags flags;
  GstSegment segment;
  GstFormat format;
  gboolean ok;
  double rate;

  gst_event_parse_seek(seek, &rate, &format, &flags, &start_type, &start, &stop_type, &stop);
  g_mutex_lock(&self->lock);
  segment = self->segment;
  if (self->complete)
    segment.duration = self->end;
  ok = gst_segment_do_seek(&segment, rate, format, flags, start_type, start, stop_type, stop, NULL);
  if (ok) {
    self->segment = segment;
    self->next = 0;
    self->segment_is_new = self->discont = TRUE;
    self->seqnum = gst_event_get_seqnum(seek);
  }
  g_mutex_unlock(&self->lock);
  return ok;
}

static gboolean
seek(GstOpenSoraReplay *self, GstEvent *event)
{
  const guint32 seqnum = gst_event_get_seqnum(event);
  GstSeekFlags flags;
  GstFormat format;
  GstEvent *flush;
  double rate;
  gboolean ok;

  gst_event_parse_seek(event, &rate, &format, &flags, NULL, NULL, NULL, NULL);
  if (format != GST_FORMAT_TIME || rate <= 0 || (flags & GST_SEEK_FLAG_INSTANT_RATE_CHANGE))
    return FALSE;
  if (flags & GST_SEEK_FLAG_FLUSH) {
    flush = gst_event_new_flush_start();
    gst_event_set_seqnum(flush, seqnum);
    gst_pad_push_event(self->srcpad, flush);
  }
  set_flushing(self, TRUE);
  GST_PAD_STREAM_LOCK(self->srcpad);
  ok = place(self, event);
  if (flags & GST_SEEK_FLAG_FLUSH) {
    flush = gst_event_new_flush_stop(TRUE);
    gst_event_set_seqnum(flush, seqnum);
    gst_pad_push_event(self->srcpad, flush);
  }
  set_flushing(self, FALSE);
  gst_pad_start_task(self->srcpad, gst_opensora_replay_loop, self->srcpad, NULL);
  GST_PAD_STREAM_UNLOCK(self->srcpad);
  return ok;
}

static gboolean
gst_opensora_replay_src_event(GstPad *pad, GstObject *parent, GstEvent *event)
{
  gboolean ok;

  if (GST_EVENT_TYPE(event) != GST_EVENT_SEEK)
    return gst_pad_event_default(pad, parent, event);
  ok = seek(GST_OPENSORA_REPLAY(parent), event);
  gst_event_unref(event);
  return ok;
}

static gboolean
gst_opensora_replay_src_query(GstPad *pad, GstObject *parent, GstQuery *query)
{
  GstOpenSoraReplay *self = GST_OPENSORA_REPLAY(parent);
  GstFormat format;
  gint64 time = -1;

  switch (GST_QUERY_TYPE(query)) {
  case GST_QUERY_POSITION:
    gst_query_parse_position(query, &format, NULL);
    if (format != GST_FORMAT_TIME)
      return FALSE;
    g_mutex_lock(&self->lock);
    time = gst_segment_to_stream_time(&self->segment, format, self->segment.position);
    g_mutex_unlock(&self->lock);
    gst_query_set_position(query, format, time);
    return TRUE;
  case GST_QUERY_DURATION:
    gst_query_parse_duration(query, &format, NULL);
    g_mutex_lock(&self->lock);
    if (self->complete && format == GST_FORMAT_TIME)
      time = self->end;
    g_mutex_unlock(&self->lock);
    if (time < 0)
      return gst_pad_query_default(pad, parent, query);
    gst_query_set_duration(query, format, time);
    return TRUE;
  case GST_QUERY_SEEKING:
    gst_query_parse_seeking(query, &format, NULL, NULL, NULL);
    if (format != GST_FORMAT_TIME)
      return FALSE;
    gst_pad_query_duration(pad, format, &time);
    gst_query_set_seeking(query, format, TRUE, 0, time);
    return TRUE;
  default:
    return gst_pad_query_default(pad, parent, query);
  }
}

/* States */

static void
reset(GstOpenSoraReplay *self)
{
  g_mutex_lock(&self->lock);
  g_ptr_array_set_size(self->items, 0);
  self->complete = self->failed = FALSE;
  self->end = 0;
  self->next = self->told = 0;
  gst_segment_init(&self->segment, GST_FORMAT_TIME);
  self->seqnum = gst_util_seqnum_next();
  self->segment_is_new = self->discont = TRUE;
  g_mutex_unlock(&self->lock);
}

static gboolean
gst_opensora_replay_activate(GstPad *pad, GstObject *parent, GstPadMode mode, gboolean active)
{
  GstOpenSoraReplay *self = GST_OPENSORA_REPLAY(parent);

  if (mode != GST_PAD_MODE_PUSH)
    return FALSE;
  set_flushing(self, !active);
  if (active)
    return gst_pad_start_task(pad, gst_opensora_replay_loop, pad, NULL);
  return gst_pad_stop_task(pad);
}

static GstStateChangeReturn
gst_opensora_replay_change_state(GstElement *element, GstStateChange transition)
{
  GstStateChangeReturn ret =
      GST_ELEMENT_CLASS(gst_opensora_replay_parent_class)->change_state(element, transition);

  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY)
    reset(GST_OPENSORA_REPLAY(element));
  return ret;
}

static void
gst_opensora_replay_finalize(GObject *object)
{
  GstOpenSoraReplay *self = GST_OPENSORA_REPLAY(object);

  g_free(self->stream_id);
  g_ptr_array_unref(self->items);
  g_mutex_clear(&self->lock);
  g_cond_clear(&self->cond);
  G_OBJECT_CLASS(gst_opensora_replay_parent_class)->finalize(object);
}

static void
gst_opensora_replay_class_init(GstOpenSoraReplayClass *klass)
{
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);

  G_OBJECT_CLASS(klass)->finalize = gst_opensora_replay_finalize;
  gst_element_class_set_static_metadata(element_class, "Open-Sora replay", "Generic",
                                        "Keeps a stream, so that it can be seeked in",
                                        "The gst-opensora authors");
  gst_element_class_add_static_pad_template(element_class, &sink_template);
  gst_element_class_add_static_pad_template(element_class, &src_template);
  element_class->change_state = gst_opensora_replay_change_state;
}

static void
gst_opensora_replay_init(GstOpenSoraReplay *self)
{
  g_mutex_init(&self->lock);
  g_cond_init(&self->cond);
  self->items = g_ptr_array_new_with_free_func((GDestroyNotify) gst_mini_object_unref);
  reset(self);

  self->sinkpad = gst_pad_new_from_static_template(&sink_template, "sink");
  gst_pad_set_chain_function(self->sinkpad, gst_opensora_replay_chain);
  gst_pad_set_event_function(self->sinkpad, gst_opensora_replay_sink_event);
  gst_pad_set_query_function(self->sinkpad, gst_opensora_replay_sink_query);
  GST_PAD_SET_PROXY_CAPS(self->sinkpad);
  gst_element_add_pad(GST_ELEMENT(self), self->sinkpad);

  self->srcpad = gst_pad_new_from_static_template(&src_template, "src");
  gst_pad_set_event_function(self->srcpad, gst_opensora_replay_src_event);
  gst_pad_set_query_function(self->srcpad, gst_opensora_replay_src_query);
  gst_pad_set_activatemode_function(self->srcpad, gst_opensora_replay_activate);
  GST_PAD_SET_PROXY_CAPS(self->srcpad);
  gst_element_add_pad(GST_ELEMENT(self), self->srcpad);
}

GstElement *
gst_opensora_replay_new(const char *name, const char *stream_id)
{
  GstOpenSoraReplay *self = g_object_new(GST_TYPE_OPENSORA_REPLAY, "name", name, NULL);

  self->stream_id = g_strdup(stream_id);
  return GST_ELEMENT(self);
}
