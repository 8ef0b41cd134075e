/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "relay.h"

#include <gst/app/gstappsrc.h>

#include "log.h"

struct _Relay {
  gatomicrefcount ref_count;
  GMutex lock;
  GPtrArray *outlets; /* GWeakRef of GstAppSrc */
  gboolean ended;
};

static void
outlet_free(gpointer outlet)
{
  g_weak_ref_clear(outlet);
  g_free(outlet);
}

/* The outlets that are still there; the others are forgotten. (transfer full) */
static GPtrArray *
get_outlets(Relay *self)
{
  GPtrArray *alive = g_ptr_array_new_with_free_func(gst_object_unref);

  g_mutex_lock(&self->lock);
  for (guint i = self->outlets->len; i > 0; i--) {
    gpointer src = g_weak_ref_get(g_ptr_array_index(self->outlets, i - 1));

    if (src)
      g_ptr_array_add(alive, src);
    else
      g_ptr_array_remove_index_fast(self->outlets, i - 1);
  }
  g_mutex_unlock(&self->lock);
  return alive;
}

/* @time: of the frame on the clock. An outlet that does not play yet has no time to put on it. */
static void
push(GstAppSrc *src, GstBuffer *frame, GstCaps *caps, GstClockTime time)
{
  const GstClockTime base = gst_element_get_base_time(GST_ELEMENT(src));
  GstBuffer *buffer;

  if (GST_STATE(src) != GST_STATE_PLAYING || base > time)
    return;
  buffer = gst_buffer_copy(frame);
  GST_BUFFER_PTS(buffer) = time - base;
  GST_BUFFER_DTS(buffer) = GST_CLOCK_TIME_NONE;
  gst_app_src_set_caps(src, caps);
  gst_app_src_push_buffer(src, buffer);
}

static GstFlowReturn
on_sample(GstAppSink *sink, gpointer relay)
{
  g_autoptr(GstSample) sample = gst_app_sink_pull_sample(sink);
  g_autoptr(GPtrArray) outlets = NULL;
  GstClockTime time;
  GstBuffer *frame;

  if (!sample)
    return GST_FLOW_EOS;
  frame = gst_sample_get_buffer(sample);
  time = gst_segment_to_running_time(gst_sample_get_segment(sample), GST_FORMAT_TIME,
                                     GST_BUFFER_PTS(frame));
  if (!GST_CLOCK_TIME_IS_VALID(time))
    return GST_FLOW_OK;
  time += gst_element_get_base_time(GST_ELEMENT(sink));
  outlets = get_outlets(relay);
  for (guint i = 0; i < outlets->len; i++)
    push(g_ptr_array_index(outlets, i), frame, gst_sample_get_caps(sample), time);
  return GST_FLOW_OK;
}

static void
on_eos(GstAppSink *sink, gpointer relay)
{
  relay_end(relay);
}

static void
unref(gpointer relay)
{
  relay_unref(relay);
}

Relay *
relay_new(GstAppSink *sink)
{
  GstAppSinkCallbacks callbacks = { .eos = on_eos, .new_sample = on_sample };
  Relay *self = g_new0(Relay, 1);

  g_atomic_ref_count_init(&self->ref_count);
  g_mutex_init(&self->lock);
  self->outlets = g_ptr_array_new_with_free_func(outlet_free);
  gst_app_sink_set_callbacks(sink, &callbacks, relay_ref(self), unref);
  return self;
}

Relay *
relay_ref(Relay *self)
{
  g_atomic_ref_count_inc(&self->ref_count);
  return self;
}

void
relay_unref(Relay *self)
{
  if (!g_atomic_ref_count_dec(&self->ref_count))
    return;
  g_ptr_array_unref(self->outlets);
  g_mutex_clear(&self->lock);
  g_free(self);
}

void
relay_add(Relay *self, GstElement *src)
{
  GWeakRef *outlet = g_new0(GWeakRef, 1);
  gboolean ended;

  g_weak_ref_init(outlet, src);
  g_mutex_lock(&self->lock);
  g_ptr_array_add(self->outlets, outlet);
  ended = self->ended;
  g_mutex_unlock(&self->lock);
  if (ended)
    gst_app_src_end_of_stream(GST_APP_SRC(src));
}

void
relay_end(Relay *self)
{
  g_autoptr(GPtrArray) outlets = NULL;

  g_mutex_lock(&self->lock);
  self->ended = TRUE;
  g_mutex_unlock(&self->lock);
  outlets = get_outlets(self);
  for (guint i = 0; i < outlets->len; i++)
    gst_app_src_end_of_stream(g_ptr_array_index(outlets, i));
}
