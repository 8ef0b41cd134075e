/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "playout-stage.h"

GstCaps *
clip_caps(Stage *self, gint width)
{
  return gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, self->format, "width",
                             G_TYPE_INT, width, "height", G_TYPE_INT, HEIGHT, "framerate",
                             GST_TYPE_FRACTION, self->fps_n, self->fps_d, NULL);
}

Stage *
stage_new(const char *properties, const char *out_caps)
{
  Stage *self = g_new0(Stage, 1);
  g_autofree char *description =
      g_strdup_printf("appsrc name=in format=time max-bytes=0 ! opensoraplayout name=p %s ! %s ! "
                      "appsink name=out sync=false",
                      properties, out_caps);

  self->fps_n = 24;
  self->fps_d = 1;
  self->format = "RGB";
  self->pipeline = gst_parse_launch(description, NULL);
  fail_unless(self->pipeline != NULL, "%s", description);
  self->playout = child(self->pipeline, "p");
  self->in = child(self->pipeline, "in");
  self->out = child(self->pipeline, "out");
  self->bus = gst_element_get_bus(self->pipeline);
  self->clock = GST_TEST_CLOCK(gst_test_clock_new());
  gst_pipeline_use_clock(GST_PIPELINE(self->pipeline), GST_CLOCK(self->clock));
  return self;
}

void
stage_play(Stage *self)
{
  fail_unless(gst_element_set_state(self->pipeline, GST_STATE_PLAYING) != GST_STATE_CHANGE_FAILURE);
}

Stage *
stage_started(const char *properties)
{
  Stage *self = stage_new(properties, "video/x-raw,format=RGB,width=16,height=16,framerate=24/1");

  stage_play(self);
  return self;
}

void
stage_free(Stage *self)
{
  const gint64 start = g_get_monotonic_time();

  gst_element_set_state(self->pipeline, GST_STATE_NULL);
  fail_unless(g_get_monotonic_time() - start < (gint64) (WAIT_TIME / 1000), "stopping took long");
  gst_object_unref(self->bus);
  gst_object_unref(self->pipeline);
  gst_object_unref(self->clock);
  g_free(self);
}

guint64
stat_of(Stage *self, const char *name)
{
  GstStructure *stats;
  const GValue *value;
  guint64 number;

  g_object_get(self->playout, "stats", &stats, NULL);
  value = gst_structure_get_value(stats, name);
  fail_unless(value != NULL, "%s", name);
  number = G_VALUE_HOLDS_UINT(value) ? g_value_get_uint(value) : g_value_get_uint64(value);
  gst_structure_free(stats);
  return number;
}

void
wait_stat(Stage *self, const char *name, guint64 wanted)
{
  const gint64 end = g_get_monotonic_time() + (gint64) (WAIT_TIME / 1000);

  while (stat_of(self, name) != wanted) {
    fail_unless(g_get_monotonic_time() < end, "%s is %u, not %u", name, (guint) stat_of(self, name),
                (guint) wanted);
    g_usleep(100);
  }
}

/* Feeding */

void
add_meta(Stage *self, GstBuffer *buffer, guint clip, guint frames)
{
  GstCustomMeta *meta = gst_buffer_add_custom_meta(buffer, "GstOpenSoraClipMeta");
  g_autofree char *prompt = g_strdup_printf("prompt %u", clip);

  gst_structure_set(gst_custom_meta_get_structure(meta), "clip", G_TYPE_UINT, clip, "prompt",
                    G_TYPE_STRING, prompt, "frames", G_TYPE_UINT, frames, "framerate",
                    GST_TYPE_FRACTION, self->fps_n, self->fps_d, NULL);
  if (self->extension)
    gst_structure_set(gst_custom_meta_get_structure(meta), "extension", G_TYPE_UINT,
                      self->extension, "lead-in", G_TYPE_UINT, self->lead_in, NULL);
}

static gint alive;

static void
on_freed(gpointer data, GstMiniObject *memory)
{
  g_atomic_int_add(&alive, -1);
}

guint
frames_alive(void)
{
  return (guint) g_atomic_int_get(&alive);
}

static GstBuffer *
make_frame(guint size, guint clip, guint i)
{
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, size, NULL);
  const guint8 head[] = { (guint8) clip, (guint8) i };

  gst_buffer_memset(buffer, 0, (guint8) clip, size);
  gst_buffer_fill(buffer, 0, head, sizeof head);
  /* Copies of the buffer share the memory. */
  gst_mini_object_weak_ref(GST_MINI_OBJECT(gst_buffer_peek_memory(buffer, 0)), on_freed, NULL);
  g_atomic_int_inc(&alive);
  return buffer;
}

void
feed_frames(Stage *self, guint clip, guint first, guint n, guint frames, gint width)
{
  g_autoptr(GstCaps) caps = clip_caps(self, width);
  GstVideoInfo info;

  fail_unless(gst_video_info_from_caps(&info, caps));
  for (guint i = first; i < first + n; i++) {
    GstBuffer *buffer = make_frame((guint) GST_VIDEO_INFO_SIZE(&info), clip, i);
    GstSample *sample;

    if (frames)
      add_meta(self, buffer, clip, frames);
    sample = gst_sample_new(buffer, caps, NULL, NULL);
    assert_equals_int(gst_app_src_push_sample(GST_APP_SRC(self->in), sample), GST_FLOW_OK);
    gst_sample_unref(sample);
    gst_buffer_unref(buffer);
  }
}

void
feed(Stage *self, guint clip, guint n)
{
  feed_frames(self, clip, 0, n, n, WIDTH);
}

void
feed_now(Stage *self, guint clip, guint n)
{
  const guint64 waiting = stat_of(self, "clips-waiting");

  feed(self, clip, n);
  wait_stat(self, "clips-waiting", waiting + 1);
}

void
send_event(Stage *self, GstEvent *event)
{
  g_autoptr(GstPad) pad = gst_element_get_static_pad(self->playout, "sink");

  fail_unless(gst_pad_send_event(pad, event));
}

/* What comes out */

GstSample *
next_sample(Stage *self)
{
  GstSample *sample;

  fail_unless(gst_test_clock_crank(self->clock));
  sample = gst_app_sink_try_pull_sample(GST_APP_SINK(self->out), WAIT_TIME);
  fail_unless(sample != NULL, "no frame came");
  return sample;
}

Frame
next_frame(Stage *self)
{
  GstSample *sample = next_sample(self);
  GstBuffer *buffer = gst_sample_get_buffer(sample);
  guint8 head[2];
  Frame frame;

  assert_equals_int(gst_buffer_extract(buffer, 0, head, sizeof head), 2);
  frame = (Frame){ .clip = head[0],
                   .i = head[1],
                   .pts = GST_BUFFER_PTS(buffer),
                   .duration = GST_BUFFER_DURATION(buffer),
                   .offset = GST_BUFFER_OFFSET(buffer),
                   .discont = GST_BUFFER_IS_DISCONT(buffer) };
  gst_sample_unref(sample);
  return frame;
}

void
expect(Stage *self, const char *wanted)
{
  g_auto(GStrv) list = g_strsplit(wanted, " ", -1);

  for (guint n = 0; list[n]; n++) {
    const Frame frame = next_frame(self);
    g_autofree char *found =
        frame.clip == SLATE ? g_strdup("-") : g_strdup_printf("%u.%u", frame.clip, frame.i);

    fail_unless(g_str_equal(found, list[n]), "frame %u of \"%s\" is %s", n, wanted, found);
  }
}

/* The clock has one more turn before the end. */
void
expect_eos(Stage *self)
{
  fail_unless(gst_test_clock_crank(self->clock));
  gst_message_unref(wait_message(self->bus, GST_MESSAGE_EOS));
  fail_unless(gst_app_sink_is_eos(GST_APP_SINK(self->out)));
}

GstEvent *
new_segment(void)
{
  GstSegment segment;

  gst_segment_init(&segment, GST_FORMAT_TIME);
  return gst_event_new_segment(&segment);
}

void
check_clip_message(Stage *stage, const char *name, const char *prompt, GstClockTime time)
{
  g_autoptr(GstMessage) message = wait_message(stage->bus, GST_MESSAGE_ELEMENT);
  const GstStructure *s = gst_message_get_structure(message);
  GstStructure *clip = NULL;
  guint64 running_time = 0;

  fail_unless(gst_structure_has_name(s, name));
  assert_equals_string(gst_structure_get_string(s, "prompt"), prompt);
  fail_unless(gst_structure_get(s, "clip", GST_TYPE_STRUCTURE, &clip, "running-time", G_TYPE_UINT64,
                                &running_time, NULL));
  assert_equals_uint64(running_time, time);
  gst_structure_free(clip);
}
