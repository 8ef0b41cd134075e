/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoraplayout on a clock that the test turns by hand. The first two bytes of a frame are the
 * number of its clip and of the frame in it, so that every frame of the output tells where it
 * came from.
 */
#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/check/gsttestclock.h>
#include <gst/video/video.h>
#include <string.h>

#include "common.h"

#define WIDTH 16
#define HEIGHT 16
#define SLATE 0 /* the number of no clip: the slate's frames are black RGB */

/* Stage: appsrc ! opensoraplayout ! caps ! appsink */

typedef struct {
  GstElement *pipeline, *playout, *in, *out;
  GstTestClock *clock;
  GstBus *bus;
  gint fps_n, fps_d; /* of clips that are fed */
  const char *format;
  guint n_fed;
} Stage;

static GstCaps *
clip_caps(Stage *self, gint width)
{
  return gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, self->format, "width",
                             G_TYPE_INT, width, "height", G_TYPE_INT, HEIGHT, "framerate",
                             GST_TYPE_FRACTION, self->fps_n, self->fps_d, NULL);
}

static Stage *
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

static void
stage_play(Stage *self)
{
  fail_unless(gst_element_set_state(self->pipeline, GST_STATE_PLAYING) != GST_STATE_CHANGE_FAILURE);
}

/* Of 24 frames a second, 16 x 16 RGB. */
static Stage *
stage_started(const char *properties)
{
  Stage *self = stage_new(properties, "video/x-raw,format=RGB,width=16,height=16,framerate=24/1");

  stage_play(self);
  return self;
}

static void
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

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Stage, stage_free)

static guint64
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

static void
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

static void
add_meta(Stage *self, GstBuffer *buffer, guint clip, guint frames)
{
  GstCustomMeta *meta = gst_buffer_add_custom_meta(buffer, "GstOpenSoraClipMeta");
  g_autofree char *prompt = g_strdup_printf("prompt %u", clip);

  gst_structure_set(gst_custom_meta_get_structure(meta), "clip", G_TYPE_UINT, clip, "prompt",
                    G_TYPE_STRING, prompt, "frames", G_TYPE_UINT, frames, "framerate",
                    GST_TYPE_FRACTION, self->fps_n, self->fps_d, NULL);
}

static GstBuffer *
make_frame(guint size, guint clip, guint i)
{
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, size, NULL);
  const guint8 head[] = { (guint8) clip, (guint8) i };

  gst_buffer_memset(buffer, 0, (guint8) clip, size);
  gst_buffer_fill(buffer, 0, head, sizeof head);
  return buffer;
}

/* @n frames; @frames: as many are said to come, 0: the frames have no meta. */
static void
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
  self->n_fed += n;
}

static void
feed(Stage *self, guint clip, guint n)
{
  feed_frames(self, clip, 0, n, n, WIDTH);
}

/* The same, and it is there when this returns. */
static void
feed_now(Stage *self, guint clip, guint n)
{
  const guint64 waiting = stat_of(self, "clips-waiting");

  feed(self, clip, n);
  wait_stat(self, "clips-waiting", waiting + 1);
}

/* Straight to the element, as if appsrc had sent it. */
static void
send(Stage *self, GstEvent *event)
{
  g_autoptr(GstPad) pad = gst_element_get_static_pad(self->playout, "sink");

  fail_unless(gst_pad_send_event(pad, event));
}

/* What comes out */

typedef struct {
  guint clip, i; /* first two bytes */
  GstClockTime pts, duration;
  guint64 offset;
  gboolean discont;
} Frame;

static GstSample *
next_sample(Stage *self)
{
  GstSample *sample;

  fail_unless(gst_test_clock_crank(self->clock));
  sample = gst_app_sink_try_pull_sample(GST_APP_SINK(self->out), WAIT_TIME);
  fail_unless(sample != NULL, "no frame came");
  return sample;
}

static Frame
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

/* The next frames have to be those, as "CLIP.FRAME CLIP.FRAME ...", "-" for the slate. */
static void
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
static void
expect_eos(Stage *self)
{
  fail_unless(gst_test_clock_crank(self->clock));
  gst_message_unref(wait_message(self->bus, GST_MESSAGE_EOS));
  fail_unless(gst_app_sink_is_eos(GST_APP_SINK(self->out)));
}

/* Ten minutes */

/* What has to be on air, by the rules: a clip is left at the end of a pass if another one is
 * there. */
typedef struct {
  guint n_fed, n_begun, max_clips;
  guint length[256], pos;
} Model;

static guint
model_waiting(const Model *self)
{
  return MIN(self->n_fed - self->n_begun, self->max_clips - (self->n_begun > 0));
}

static void
model_advance(Model *self, guint *clip, guint *i)
{
  const gboolean over = self->n_begun == 0 || self->pos == self->length[self->n_begun];

  if (over && model_waiting(self) > 0)
    self->n_begun++;
  if (over)
    self->pos = 0;
  *clip = self->n_begun;
  *i = self->n_begun ? self->pos++ : 0;
}

/* Clips come too late, many at once, and for a long time not at all. Lengths are 5 to 34. */
static guint
clips_due(guint frame)
{
  if (frame == 100 || frame == 101)
    return 1;
  if (frame == 700)
    return 9;
  if (frame > 1000 && frame < 9000)
    return frame % 97 == 0;
  return frame == 9500 || frame == 9511 ? 2 : 0;
}

GST_START_TEST(test_ten_minutes)
{
  g_autoptr(Stage) stage =
      stage_new("max-clips=4", "video/x-raw,format=RGB,width=16,height=16,framerate=30000/1001");
  const guint64 n_frames = gst_util_uint64_scale(10 * 60 + 1, 30000, 1001);
  const guint64 most = 4 * 34 * WIDTH * HEIGHT * 3;
  GstClockTime end = 0;
  Model model = { .max_clips = 4 };

  stage->fps_n = 30000;
  stage->fps_d = 1001;
  stage_play(stage);
  for (guint64 n = 0; n < n_frames; n++) {
    Frame frame;
    guint clip, i;

    for (guint due = clips_due((guint) n); due > 0; due--) {
      model.n_fed++;
      model.length[model.n_fed] = 5 + model.n_fed * 7 % 30;
      feed(stage, model.n_fed, model.length[model.n_fed]);
    }
    wait_stat(stage, "clips-waiting", model_waiting(&model));
    fail_unless(stat_of(stage, "bytes") <= most && stat_of(stage, "clips") <= 4);
    model_advance(&model, &clip, &i);

    frame = next_frame(stage);
    fail_unless(frame.clip == clip && frame.i == i, "frame %u is %u.%u, not %u.%u", (guint) n,
                frame.clip, frame.i, clip, i);
    assert_equals_uint64(frame.pts, gst_util_uint64_scale(n, 1001 * GST_SECOND, 30000));
    assert_equals_uint64(frame.pts, end);
    assert_equals_uint64(frame.offset, n);
    assert_equals_int(frame.discont, n == 0);
    end = frame.pts + frame.duration;
  }
  fail_unless(end >= 10 * 60 * GST_SECOND);
  assert_equals_int(model.n_begun, model.n_fed);
  fail_unless(model.n_fed > 80);
  assert_equals_uint64(stat_of(stage, "rendered"), n_frames);
  assert_equals_uint64(stat_of(stage, "dropped"), 0);
  assert_equals_int(stat_of(stage, "clips"), 1);
}
GST_END_TEST;

/* How clips are played */

static const struct {
  const char *properties;
  const char *alone; /* clip 1 of three frames */
  const char *then;  /* clip 2 of two frames has come meanwhile */
} repeats[] = {
  { "repeat=once", "1.0 1.1 1.2 1.2 1.2", "2.0 2.1 2.1" },
  { "repeat=once min-plays=2", "1.0 1.1 1.2 1.0", "1.1 1.2 2.0 2.1 2.0 2.1 2.1" },
  { "repeat=loop", "1.0 1.1 1.2 1.0 1.1 1.2 1.0", "1.1 1.2 2.0 2.1 2.0" },
  { "repeat=loop min-plays=3", "1.0 1.1", "1.2 1.0 1.1 1.2 1.0 1.1 1.2 2.0" },
  { "repeat=ping-pong", "1.0 1.1 1.2 1.1 1.0 1.1 1.2 1.1", "1.0 2.0 2.1 2.0 2.1" },
};

GST_START_TEST(test_repeat)
{
  g_autoptr(Stage) stage = stage_started(repeats[__i__].properties);

  expect(stage, "- -");
  feed_now(stage, 1, 3);
  expect(stage, repeats[__i__].alone);
  feed_now(stage, 2, 2);
  expect(stage, repeats[__i__].then);
}
GST_END_TEST;

GST_START_TEST(test_single_frames)
{
  g_autoptr(Stage) stage = stage_started("repeat=ping-pong");

  feed_now(stage, 1, 1);
  expect(stage, "1.0 1.0 1.0");
  feed_now(stage, 2, 1);
  expect(stage, "2.0 2.0");
}
GST_END_TEST;

/* Changed while it plays. */
GST_START_TEST(test_change_of_repeat)
{
  g_autoptr(Stage) stage = stage_started("repeat=ping-pong");

  feed_now(stage, 1, 3);
  expect(stage, "1.0 1.1 1.2 1.1");
  g_object_set(stage->playout, "repeat", 1, NULL); /* loop */
  expect(stage, "1.0 1.0 1.1 1.2 1.0");
  g_object_set(stage->playout, "repeat", 0, NULL); /* once */
  expect(stage, "1.1 1.2 1.2 1.2");
}
GST_END_TEST;

/* What a clip is */

/* It says how many frames it has, but somebody on the way repeated the last one. */
GST_START_TEST(test_more_frames_than_told)
{
  g_autoptr(Stage) stage = stage_started("");

  feed_frames(stage, 1, 0, 3, 2, WIDTH);
  wait_stat(stage, "frames", 3);
  expect(stage, "1.0 1.1 1.2 1.0 1.1");
  feed_now(stage, 2, 1);
  expect(stage, "1.2 2.0");
  feed_frames(stage, 2, 1, 1, 1, WIDTH);
  wait_stat(stage, "frames", 2);
  feed_now(stage, 3, 1);
  expect(stage, "2.1 3.0 3.0");
  assert_equals_int(stat_of(stage, "frames"), 1);
}
GST_END_TEST;

/* The same where it may not have more. */
GST_START_TEST(test_too_many_frames)
{
  g_autoptr(Stage) stage = stage_started("max-frames=2");

  feed_frames(stage, 1, 0, 3, 2, WIDTH);
  feed(stage, 2, 1);
  wait_stat(stage, "clips-waiting", 2);
  assert_equals_int(stat_of(stage, "frames"), 3);
  expect(stage, "1.0 1.1 2.0 2.0");
}
GST_END_TEST;

/* Fewer frames than it says: it ends before the next one. */
GST_START_TEST(test_fewer_frames_than_told)
{
  g_autoptr(Stage) stage = stage_started("");

  feed_frames(stage, 1, 0, 2, 3, WIDTH);
  wait_stat(stage, "frames", 2);
  expect(stage, "- -");
  feed(stage, 2, 1);
  wait_stat(stage, "clips-waiting", 2);
  expect(stage, "1.0 1.1 2.0");
}
GST_END_TEST;

static GstEvent *
new_segment(void)
{
  GstSegment segment;

  gst_segment_init(&segment, GST_FORMAT_TIME);
  return gst_event_new_segment(&segment);
}

static GstEvent *
make_boundary(guint i)
{
  switch (i) {
  case 0:
    return gst_event_new_stream_start("another");
  case 1:
    return new_segment();
  default:
    return gst_event_new_eos();
  }
}

GST_START_TEST(test_without_meta)
{
  g_autoptr(Stage) stage = stage_started("at-eos=continue");

  feed_frames(stage, 1, 0, 3, 0, WIDTH);
  wait_stat(stage, "frames", 3);
  expect(stage, "- -");
  send(stage, make_boundary((guint) __i__));
  expect(stage, "1.0 1.1 1.2 1.0");
}
GST_END_TEST;

GST_START_TEST(test_max_frames)
{
  g_autoptr(Stage) stage =
      stage_started("max-frames=2 max-clips=9 transition=cross-fade transition-frames=1");

  feed_frames(stage, 1, 0, 5, 0, WIDTH);
  wait_stat(stage, "frames", 5);
  assert_equals_int(stat_of(stage, "clips"), 3);
  assert_equals_int(stat_of(stage, "clips-waiting"), 2);
  /* parts of one clip are not faded */
  (void) next_frame(stage);
  expect(stage, "1.1 1.2 1.3 1.2");
}
GST_END_TEST;

/* Of a clip that tells its length, the last part is complete with the last frame. */
GST_START_TEST(test_parts_of_a_clip)
{
  g_autoptr(Stage) stage = stage_started("max-frames=2 max-clips=9");

  feed(stage, 1, 5);
  wait_stat(stage, "clips-waiting", 3);
  expect(stage, "1.0 1.1 1.2 1.3 1.4 1.4");
  feed_now(stage, 2, 2);
  feed_now(stage, 3, 2);
  assert_equals_int(stat_of(stage, "clips"), 3);
  expect(stage, "2.0 2.1 3.0 3.1 3.0");
}
GST_END_TEST;

GST_START_TEST(test_new_caps)
{
  g_autoptr(Stage) stage = stage_new("transition=cross-fade", "video/x-raw,framerate=24/1");
  const gint widths[] = { WIDTH, 32 };

  g_object_set(stage->playout, "slate", 2, NULL); /* none */
  stage_play(stage);
  for (guint clip = 1; clip <= 2; clip++)
    feed_frames(stage, clip, 0, 2, 2, widths[clip - 1]);
  wait_stat(stage, "clips-waiting", 2);
  for (guint n = 0; n < 4; n++) {
    GstSample *sample = next_sample(stage);
    gint width = 0;
    guint8 clip;

    gst_structure_get_int(gst_caps_get_structure(gst_sample_get_caps(sample), 0), "width", &width);
    gst_buffer_extract(gst_sample_get_buffer(sample), 0, &clip, 1);
    assert_equals_int(clip, 1 + n / 2);
    assert_equals_int(width, widths[n / 2]);
    gst_sample_unref(sample);
  }
}
GST_END_TEST;

/* Cross-fades */

static void
check_mixed(GstSample *sample, guint old, guint new, double weight)
{
  GstBuffer *buffer = gst_sample_get_buffer(sample);
  const double wanted = old + (new - (double) old) * weight;
  GstMapInfo map;

  fail_unless(gst_buffer_map(buffer, &map, GST_MAP_READ));
  for (gsize i = 2; i < map.size; i++)
    fail_unless(ABS(map.data[i] - wanted) < 1.0, "byte %u is %u, not %g", (guint) i, map.data[i],
                wanted);
  gst_buffer_unmap(buffer, &map);
  assert_equals_int(clip_meta(buffer)->clip, new);
  gst_sample_unref(sample);
}

static const char *const formats[] = { "I420", "NV12", "RGB", "RGBx" };

/* The last three frames of one clip and the first three of the next are the same ones. */
GST_START_TEST(test_cross_fade)
{
  g_autofree char *caps =
      g_strdup_printf("video/x-raw,format=%s,width=16,height=16,framerate=24/1", formats[__i__]);
  g_autoptr(Stage) stage = stage_new("slate=none transition=cross-fade transition-frames=3", caps);

  stage->format = formats[__i__];
  stage_play(stage);
  feed_now(stage, 10, 5);
  feed_now(stage, 250, 6);
  expect(stage, "10.0 10.1");
  for (guint n = 1; n <= 3; n++)
    check_mixed(next_sample(stage), 10, 250, n / 4.0);
  expect(stage, "250.3 250.4 250.5 250.0");
  assert_equals_int(stat_of(stage, "clips"), 1);
}
GST_END_TEST;

/* The next clip comes when the last frame is held, is shorter than a fade; and the slate fades. */
GST_START_TEST(test_late_cross_fade)
{
  g_autoptr(Stage) stage = stage_started("repeat=once transition=cross-fade transition-frames=3");

  expect(stage, "-");
  feed_now(stage, 100, 4);
  for (guint n = 1; n <= 3; n++)
    check_mixed(next_sample(stage), 0, 100, n / 4.0);
  expect(stage, "100.3 100.3");
  feed_now(stage, 20, 2);
  for (guint n = 1; n <= 2; n++)
    check_mixed(next_sample(stage), 100, 20, n / 3.0);
  expect(stage, "20.1 20.1");
}
GST_END_TEST;

/* Rates */

static const struct {
  gint fps_n, fps_d;
  guint n;
  const char *frames; /* at 24 frames a second */
} rates[] = {
  { 24, 1, 4, "1.0 1.1 1.2 1.3 1.0" },
  { 12, 1, 3, "1.0 1.0 1.1 1.1 1.2 1.2 1.0" },
  { 48, 1, 6, "1.0 1.2 1.4 1.0" },
  { 30, 1, 5, "1.0 1.1 1.3 1.4 1.0" },
  { 16, 1, 4, "1.0 1.0 1.1 1.2 1.2 1.3 1.0" },
  { 240, 1, 2, "1.1 1.1" },
};

GST_START_TEST(test_rates)
{
  g_autoptr(Stage) stage = stage_started("");

  stage->fps_n = rates[__i__].fps_n;
  stage->fps_d = rates[__i__].fps_d;
  feed_now(stage, 1, rates[__i__].n);
  expect(stage, rates[__i__].frames);
}
GST_END_TEST;

/* Frames of an unknown rate, as pictures are, are shown one for one. */
GST_START_TEST(test_no_rate)
{
  g_autoptr(Stage) stage = stage_started("");

  stage->fps_n = 0;
  feed_frames(stage, 1, 0, 2, 0, WIDTH);
  feed_frames(stage, 2, 0, 1, 1, WIDTH);
  wait_stat(stage, "frames", 3);
  expect(stage, "1.0 1.1 2.0 2.0");
}
GST_END_TEST;

static void
check_rate(GstSample *sample, gint fps_n, GstClockTime pts)
{
  gint n = 0, d = 1;

  gst_structure_get_fraction(gst_caps_get_structure(gst_sample_get_caps(sample), 0), "framerate",
                             &n, &d);
  assert_equals_int(n, fps_n);
  assert_equals_int(d, 1);
  assert_equals_uint64(GST_BUFFER_PTS(gst_sample_get_buffer(sample)), pts);
  gst_sample_unref(sample);
}

/* Where downstream leaves it open the first clip decides, and later ones follow. */
GST_START_TEST(test_rate_of_first_clip)
{
  g_autoptr(Stage) stage = stage_new("", "video/x-raw,format=RGB,width=16,height=16");

  stage_play(stage);
  check_rate(next_sample(stage), 24, 0);
  check_rate(next_sample(stage), 24, GST_SECOND / 24);
  stage->fps_n = 10;
  feed_now(stage, 1, 2);
  check_rate(next_sample(stage), 10, 2 * GST_SECOND / 24);
  check_rate(next_sample(stage), 10, 2 * GST_SECOND / 24 + GST_SECOND / 10);
  stage->fps_n = 20;
  feed_now(stage, 2, 4);
  check_rate(next_sample(stage), 10, 2 * GST_SECOND / 24 + 2 * GST_SECOND / 10);
  expect(stage, "2.2 2.0");
}
GST_END_TEST;

/* The slate */

static void
check_pixels(GstSample *sample, const guint8 *rgb)
{
  GstBuffer *buffer = gst_sample_get_buffer(sample);
  GstMapInfo map;

  fail_unless(gst_buffer_map(buffer, &map, GST_MAP_READ));
  assert_equals_int(map.size, WIDTH * HEIGHT * 3);
  for (gsize i = 0; i < map.size; i++)
    fail_unless(ABS(map.data[i] - rgb[i % 3]) <= 1, "byte %u is %u", (guint) i, map.data[i]);
  gst_buffer_unmap(buffer, &map);
  gst_sample_unref(sample);
}

GST_START_TEST(test_slate_color)
{
  g_autoptr(Stage) stage = stage_started("slate-color=0x20C0FF");

  check_pixels(next_sample(stage), (const guint8[]){ 0x20, 0xc0, 0xff });
}
GST_END_TEST;

GST_START_TEST(test_slate_picture)
{
  g_autofree char *path = temp_path("slate.png");
  g_autoptr(GstElement) writer = NULL;
  g_autofree char *description = g_strdup_printf(
      "videotestsrc num-buffers=1 pattern=solid-color foreground-color=0xff20C0FF ! "
      "video/x-raw,format=RGB,width=40,height=20 ! pngenc ! filesink location=%s",
      path);
  g_autofree char *properties = g_strdup_printf("slate=picture slate-location=%s", path);
  g_autoptr(Stage) stage = NULL;
  g_autoptr(GstBus) bus = NULL;

  writer = gst_parse_launch(description, NULL);
  bus = gst_element_get_bus(writer);
  gst_element_set_state(writer, GST_STATE_PLAYING);
  gst_message_unref(wait_message(bus, GST_MESSAGE_EOS));
  gst_element_set_state(writer, GST_STATE_NULL);

  stage = stage_started(properties);
  check_pixels(next_sample(stage), (const guint8[]){ 0x20, 0xc0, 0xff });
  feed_now(stage, 1, 1);
  expect(stage, "1.0");
}
GST_END_TEST;

GST_START_TEST(test_no_slate)
{
  g_autoptr(Stage) stage = stage_started("slate=none");
  Frame frame;

  for (guint n = 0; n < 10; n++)
    fail_unless(gst_test_clock_crank(stage->clock));
  gst_test_clock_wait_for_next_pending_id(stage->clock, NULL);
  fail_unless(gst_app_sink_try_pull_sample(GST_APP_SINK(stage->out), 0) == NULL);
  feed_now(stage, 1, 1);
  frame = next_frame(stage);
  assert_equals_uint64(frame.pts, gst_util_uint64_scale(10, GST_SECOND, 24));
}
GST_END_TEST;

static const struct {
  const char *properties, *part;
} bad_slates[] = {
  { "slate=picture", "slate-location" },
  { "slate=picture slate-location=/nowhere.png", "/nowhere.png" },
};

GST_START_TEST(test_bad_slate)
{
  g_autoptr(Stage) stage = stage_started(bad_slates[__i__].properties);

  wait_error(stage->bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, bad_slates[__i__].part);
  /* nothing waits for ever */
  for (guint n = 0; n < 9; n++)
    gst_app_src_push_buffer(GST_APP_SRC(stage->in), gst_buffer_new());
}
GST_END_TEST;

/* What is there before it comes does not change the caps. */
GST_START_TEST(test_caps_of_slate)
{
  g_autoptr(Stage) stage = stage_new("", "video/x-raw");
  g_autoptr(GstPad) pad = gst_element_get_static_pad(stage->playout, "sink");
  g_autoptr(GstCaps) caps = NULL;
  GstSample *slate, *frame;

  stage->format = "NV12";
  stage->fps_n = 10;
  caps = clip_caps(stage, WIDTH);
  g_object_set(stage->in, "caps", caps, NULL);
  stage_play(stage);
  while (!gst_pad_has_current_caps(pad))
    g_usleep(100);
  slate = next_sample(stage);
  feed_now(stage, 1, 1);
  frame = next_sample(stage);
  fail_unless(gst_caps_is_equal(gst_sample_get_caps(slate), caps));
  fail_unless(gst_caps_is_equal(gst_sample_get_caps(frame), caps));
  gst_sample_unref(slate);
  gst_sample_unref(frame);
}
GST_END_TEST;

/* Bounds */

/* All that is not held waits before the element, and goes on when a clip is over. */
GST_START_TEST(test_back_pressure)
{
  g_autoptr(Stage) stage = stage_started("max-clips=2");

  for (guint clip = 1; clip <= 6; clip++)
    feed(stage, clip, 2);
  wait_stat(stage, "clips-waiting", 2);
  for (guint clip = 1; clip <= 4; clip++) {
    g_autofree char *frames = g_strdup_printf("%u.0 %u.1", clip, clip);

    expect(stage, frames);
    wait_stat(stage, "clips-waiting", 1);
    assert_equals_int(stat_of(stage, "clips"), 2);
    assert_equals_uint64(stat_of(stage, "bytes"), 4 * WIDTH * HEIGHT * 3);
  }
  g_object_set(stage->playout, "max-clips", 3, NULL);
  wait_stat(stage, "clips-waiting", 2);
  expect(stage, "5.0 5.1 6.0 6.1 6.0");
}
GST_END_TEST;

/* A flush drops what waits, not what is on air; who waits for room gets FLUSHING. */
GST_START_TEST(test_flush)
{
  g_autoptr(Stage) stage = stage_started("max-clips=2");

  for (guint clip = 1; clip <= 4; clip++)
    feed(stage, clip, 2);
  wait_stat(stage, "clips-waiting", 2);
  expect(stage, "1.0");
  wait_stat(stage, "clips", 2);
  fail_unless(gst_element_send_event(stage->in, gst_event_new_flush_start()));
  fail_unless(gst_element_send_event(stage->in, gst_event_new_flush_stop(TRUE)));
  assert_equals_int(stat_of(stage, "clips"), 1);
  expect(stage, "1.1 1.0 1.1");
  feed_now(stage, 9, 1);
  expect(stage, "9.0 9.0");
}
GST_END_TEST;

/* Stopping does not wait for room: stage_free() looks at the time. */
GST_START_TEST(test_stop_while_full)
{
  g_autoptr(Stage) stage = stage_started("max-clips=2");

  for (guint clip = 1; clip <= 4; clip++)
    feed(stage, clip, 2);
  wait_stat(stage, "clips-waiting", 2);
  expect(stage, "1.0");
}
GST_END_TEST;

/* Frames of a pool with a limit go back to it although the clip is held. */
GST_START_TEST(test_limited_pool)
{
  g_autoptr(Stage) stage = stage_started("");
  g_autoptr(GstBufferPool) pool = gst_video_buffer_pool_new();
  GstBufferPoolAcquireParams params = { .flags = GST_BUFFER_POOL_ACQUIRE_FLAG_DONTWAIT };
  g_autoptr(GstCaps) caps = clip_caps(stage, WIDTH);
  GstStructure *config = gst_buffer_pool_get_config(pool);

  gst_buffer_pool_config_set_params(config, caps, WIDTH * HEIGHT * 3, 1, 1);
  fail_unless(gst_buffer_pool_set_config(pool, config));
  fail_unless(gst_buffer_pool_set_active(pool, TRUE));
  g_object_set(stage->in, "caps", caps, NULL);
  for (guint i = 0; i < 4; i++) {
    GstBuffer *buffer = NULL;
    guint8 head[] = { 1, (guint8) i };

    while (gst_buffer_pool_acquire_buffer(pool, &buffer, &params) == GST_FLOW_EOS)
      g_usleep(100);
    gst_buffer_fill(buffer, 0, head, sizeof head);
    add_meta(stage, buffer, 1, 4);
    assert_equals_int(gst_app_src_push_buffer(GST_APP_SRC(stage->in), buffer), GST_FLOW_OK);
  }
  wait_stat(stage, "clips-waiting", 1);
  gst_buffer_pool_set_active(pool, FALSE);
  expect(stage, "1.0 1.1 1.2 1.3 1.0");
}
GST_END_TEST;

/* Rows with something behind them, for somebody who does not know GstVideoMeta. */
GST_START_TEST(test_layout)
{
  g_autoptr(Stage) stage = stage_started("");
  g_autoptr(GstCaps) caps = clip_caps(stage, WIDTH);
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, 64 * HEIGHT, NULL);
  gsize offset[GST_VIDEO_MAX_PLANES] = { 0 };
  gint stride[GST_VIDEO_MAX_PLANES] = { 64 };

  gst_buffer_memset(buffer, 0, 99, 64 * HEIGHT);
  for (gsize y = 0; y < HEIGHT; y++)
    gst_buffer_memset(buffer, y * 64, 7, 3 * WIDTH);
  gst_buffer_add_video_meta_full(buffer, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_RGB, WIDTH,
                                 HEIGHT, 1, offset, stride);
  add_meta(stage, buffer, 1, 1);
  g_object_set(stage->in, "caps", caps, NULL);
  gst_app_src_push_buffer(GST_APP_SRC(stage->in), buffer);
  wait_stat(stage, "clips-waiting", 1);
  check_pixels(next_sample(stage), (const guint8[]){ 7, 7, 7 });
}
GST_END_TEST;

/* The end */

GST_START_TEST(test_drain)
{
  g_autoptr(Stage) stage = stage_started("min-plays=2");

  expect(stage, "-");
  feed_frames(stage, 1, 0, 2, 2, WIDTH);
  feed_frames(stage, 2, 0, 1, 9, WIDTH); /* is cut short */
  gst_app_src_end_of_stream(GST_APP_SRC(stage->in));
  wait_stat(stage, "clips-waiting", 2);
  expect(stage, "1.0 1.1 1.0 1.1 2.0 2.0");
  expect_eos(stage);
}
GST_END_TEST;

GST_START_TEST(test_drain_nothing)
{
  g_autoptr(Stage) stage = stage_started("");

  expect(stage, "-");
  send(stage, gst_event_new_eos());
  expect_eos(stage);
}
GST_END_TEST;

GST_START_TEST(test_continue)
{
  g_autoptr(Stage) stage = stage_started("at-eos=continue repeat=ping-pong");

  send(stage, gst_event_new_eos());
  expect(stage, "-");
  send(stage, gst_event_new_stream_start("second"));
  feed_now(stage, 1, 2);
  gst_app_src_end_of_stream(GST_APP_SRC(stage->in));
  expect(stage, "1.0 1.1 1.0 1.1");
  g_object_set(stage->playout, "at-eos", 0, NULL);
  expect_eos(stage);
}
GST_END_TEST;

/* The application ends the stream at once, in whatever state. */
GST_START_TEST(test_eos_from_application)
{
  g_autoptr(Stage) stage = stage_started("max-clips=2");
  g_autoptr(GstPad) pad = gst_element_get_static_pad(stage->in, "src");

  for (guint clip = 1; clip <= 4; clip++)
    feed(stage, clip, 2);
  wait_stat(stage, "clips-waiting", 2);
  expect(stage, "1.0");
  fail_unless(gst_element_send_event(stage->playout, gst_event_new_eos()));
  gst_message_unref(wait_message(stage->bus, GST_MESSAGE_EOS));
  while (gst_pad_get_last_flow_return(pad) != GST_FLOW_EOS)
    g_usleep(100);
}
GST_END_TEST;

/* What is told */

typedef struct {
  GString *log;
  GMutex lock;
} Log;

static void
log_clip(Log *self, const char *what, const char *prompt, GstStructure *clip)
{
  guint number = 0;

  if (!prompt)
    prompt = "none";
  gst_structure_get_uint(clip, "clip", &number);
  g_mutex_lock(&self->lock);
  g_string_append_printf(self->log, "%s %s (%u), ", what, prompt, number);
  g_mutex_unlock(&self->lock);
}

static void
on_started(GstElement *playout, const char *prompt, GstStructure *clip, gpointer log)
{
  GstStructure *stats;

  g_object_get(playout, "stats", &stats, NULL); /* no lock is held */
  gst_structure_free(stats);
  log_clip(log, "begin", prompt, clip);
}

static void
on_ended(GstElement *playout, const char *prompt, GstStructure *clip, gpointer log)
{
  log_clip(log, "end", prompt, clip);
}

static void
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

GST_START_TEST(test_signals)
{
  g_autoptr(Stage) stage = stage_started("");
  Log log = { .log = g_string_new(NULL) };

  g_mutex_init(&log.lock);
  g_signal_connect(stage->playout, "clip-started", G_CALLBACK(on_started), &log);
  g_signal_connect(stage->playout, "clip-ended", G_CALLBACK(on_ended), &log);
  expect(stage, "-");
  feed_now(stage, 1, 2);
  feed_now(stage, 2, 2);
  expect(stage, "1.0 1.1 2.0");
  feed_frames(stage, 3, 0, 1, 0, WIDTH);
  gst_app_src_end_of_stream(GST_APP_SRC(stage->in));
  wait_stat(stage, "clips-waiting", 1);
  expect(stage, "2.1 3.0");
  check_clip_message(stage, "opensora-clip-started", "prompt 1", GST_SECOND / 24);
  check_clip_message(stage, "opensora-clip-ended", "prompt 1", 3 * GST_SECOND / 24);
  check_clip_message(stage, "opensora-clip-started", "prompt 2", 3 * GST_SECOND / 24);
  check_clip_message(stage, "opensora-clip-ended", "prompt 2", 5 * GST_SECOND / 24);
  check_clip_message(stage, "opensora-clip-started", NULL, 5 * GST_SECOND / 24);
  expect_eos(stage);
  assert_equals_string(log.log->str, "begin prompt 1 (1), end prompt 1 (1), begin prompt 2 (2), "
                                     "end prompt 2 (2), begin none (0), end none (0), ");
  g_string_free(log.log, TRUE);
  g_mutex_clear(&log.lock);
}
GST_END_TEST;

/* In a cross-fade a clip ends after the other has begun. */
GST_START_TEST(test_signals_of_cross_fade)
{
  g_autoptr(Stage) stage = stage_started("slate=none transition=cross-fade transition-frames=2");

  feed_now(stage, 1, 3);
  feed_now(stage, 2, 3);
  for (guint n = 0; n < 5; n++)
    (void) next_frame(stage);
  check_clip_message(stage, "opensora-clip-started", "prompt 1", 0);
  check_clip_message(stage, "opensora-clip-started", "prompt 2", GST_SECOND / 24);
  check_clip_message(stage, "opensora-clip-ended", "prompt 1", 3 * GST_SECOND / 24);
}
GST_END_TEST;

static GstPadProbeReturn
log_event(GstPad *pad, GstPadProbeInfo *info, gpointer data)
{
  GstEvent *event = GST_PAD_PROBE_INFO_EVENT(info);
  GString *log = data;

  g_string_append_printf(log, "%s ", GST_EVENT_TYPE_NAME(event));
  return GST_PAD_PROBE_OK;
}

/* Tags go before the clip that they came before, our own stream has our own events, and events
 * that we know nothing about get through. */
GST_START_TEST(test_events)
{
  g_autoptr(Stage) stage =
      stage_new("", "video/x-raw,format=RGB,width=16,height=16,framerate=24/1");
  g_autoptr(GstPad) pad = gst_element_get_static_pad(stage->playout, "src");
  GString *log = g_string_new(NULL);
  GstTagList *tags = gst_tag_list_new(GST_TAG_TITLE, "a title", NULL);

  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM, log_event, log, NULL);
  stage_play(stage);
  expect(stage, "-");
  assert_equals_string(log->str, "stream-start caps segment ");
  g_string_truncate(log, 0);
  send(stage, gst_event_new_tag(tags));
  feed_now(stage, 1, 1);
  send(stage, gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM, gst_structure_new_empty("x")));
  send(stage, new_segment());
  send(stage, gst_event_new_gap(0, GST_SECOND));
  expect(stage, "1.0 1.0");
  assert_equals_string(log->str, "tag custom-downstream ");
  g_string_free(log, TRUE);
}
GST_END_TEST;

/* Live */

/* Downstream was stuck while the clock went on: frame times are left out, and those of the frames
 * that are sent are right. */
GST_START_TEST(test_late)
{
  g_autoptr(Stage) stage = stage_started("");
  g_autoptr(GstMessage) message = NULL;
  guint64 rendered, dropped;
  Frame frame;

  expect(stage, "-");
  feed_now(stage, 1, 9);
  expect(stage, "1.0");
  gst_test_clock_wait_for_next_pending_id(stage->clock, NULL);
  gst_test_clock_set_time(GST_TEST_CLOCK(stage->clock), 10 * GST_SECOND);
  assert_equals_uint64(next_frame(stage).pts, 2 * GST_SECOND / 24); /* was waited for */
  frame = next_frame(stage);
  assert_equals_int(frame.i, 2);
  assert_equals_uint64(frame.pts, 10 * GST_SECOND);
  fail_unless(frame.discont);
  assert_equals_uint64(stat_of(stage, "dropped"), 237);
  message = wait_message(stage->bus, GST_MESSAGE_QOS);
  gst_message_parse_qos_stats(message, NULL, &rendered, &dropped);
  assert_equals_uint64(rendered, 3);
  assert_equals_uint64(dropped, 237);
  frame = next_frame(stage);
  assert_equals_uint64(frame.pts, gst_util_uint64_scale(241, GST_SECOND, 24));
  fail_unless(!frame.discont);
}
GST_END_TEST;

GST_START_TEST(test_any_lateness)
{
  g_autoptr(Stage) stage = stage_started("max-lateness=18446744073709551615");

  expect(stage, "-");
  gst_test_clock_wait_for_next_pending_id(stage->clock, NULL);
  gst_test_clock_set_time(GST_TEST_CLOCK(stage->clock), 10 * GST_SECOND);
  for (guint64 n = 1; n < 10; n++)
    assert_equals_uint64(next_frame(stage).pts, gst_util_uint64_scale(n, GST_SECOND, 24));
  assert_equals_uint64(stat_of(stage, "dropped"), 0);
}
GST_END_TEST;

/* Put into a pipeline that has run for long. */
GST_START_TEST(test_late_start)
{
  g_autoptr(Stage) stage =
      stage_new("", "video/x-raw,format=RGB,width=16,height=16,framerate=24/1");
  Frame frame;

  gst_test_clock_set_time(GST_TEST_CLOCK(stage->clock), 1000 * GST_SECOND + 41 * GST_MSECOND);
  gst_element_set_start_time(stage->pipeline, GST_CLOCK_TIME_NONE);
  gst_element_set_base_time(stage->pipeline, 0);
  stage_play(stage);
  frame = next_frame(stage);
  assert_equals_uint64(frame.pts, 1000 * GST_SECOND);
  assert_equals_uint64(next_frame(stage).pts, frame.pts + frame.duration);
}
GST_END_TEST;

GST_START_TEST(test_states)
{
  g_autoptr(Stage) stage =
      stage_new("", "video/x-raw,format=RGB,width=16,height=16,framerate=24/1");

  assert_equals_int(gst_element_set_state(stage->pipeline, GST_STATE_PAUSED),
                    GST_STATE_CHANGE_NO_PREROLL);
  feed_now(stage, 1, 3);
  assert_equals_int(gst_test_clock_peek_id_count(stage->clock), 0);
  stage_play(stage);
  expect(stage, "1.0 1.1");

  /* running time, and the clip, stand still in PAUSED */
  gst_test_clock_wait_for_next_pending_id(stage->clock, NULL);
  assert_equals_int(gst_element_set_state(stage->pipeline, GST_STATE_PAUSED),
                    GST_STATE_CHANGE_NO_PREROLL);
  fail_unless(gst_app_sink_try_pull_sample(GST_APP_SINK(stage->out), 0) == NULL);
  gst_test_clock_advance_time(stage->clock, 100 * GST_SECOND);
  stage_play(stage);
  assert_equals_uint64(next_frame(stage).pts, 2 * GST_SECOND / 24);
  expect(stage, "1.0");

  /* nothing is left of it afterwards */
  gst_element_set_state(stage->pipeline, GST_STATE_READY);
  assert_equals_int(stat_of(stage, "clips"), 0);
  stage_play(stage);
  assert_equals_uint64(next_frame(stage).pts, 0);
  expect(stage, "-");
  feed_now(stage, 2, 1);
  expect(stage, "2.0");
}
GST_END_TEST;

GST_START_TEST(test_queries)
{
  g_autoptr(Stage) stage = stage_started("");
  g_autoptr(GstQuery) latency = gst_query_new_latency();
  g_autoptr(GstQuery) seeking = gst_query_new_seeking(GST_FORMAT_TIME);
  g_autoptr(GstPad) pad = gst_element_get_static_pad(stage->playout, "src");
  gboolean live, seekable = TRUE;
  GstClockTime min, max;
  gint64 position = 0;

  fail_unless(gst_pad_query(pad, latency));
  gst_query_parse_latency(latency, &live, &min, &max);
  fail_unless(live);
  assert_equals_uint64(min, 41666667);
  assert_equals_uint64(max, GST_CLOCK_TIME_NONE);
  fail_unless(!gst_pad_query_position(pad, GST_FORMAT_TIME, &position));
  expect(stage, "- -");
  fail_unless(gst_pad_query_position(pad, GST_FORMAT_TIME, &position));
  assert_equals_int64(position, GST_SECOND / 24);
  fail_unless(!gst_pad_query_duration(pad, GST_FORMAT_TIME, NULL));
  fail_unless(gst_pad_query(pad, seeking));
  gst_query_parse_seeking(seeking, NULL, &seekable, NULL, NULL);
  fail_unless(!seekable);
  fail_unless(!gst_element_seek_simple(stage->pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
  fail_unless(gst_pad_send_event(pad, gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 0.5, 1, 0)));
  expect(stage, "-");
}
GST_END_TEST;

/* Two sizes at once are not what a sink takes: an error, no abort. */
GST_START_TEST(test_refused_caps)
{
  g_autoptr(Stage) stage = stage_started("");

  feed_frames(stage, 1, 0, 1, 1, 32);
  wait_error(stage->bus, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED, "");
}
GST_END_TEST;

GST_START_TEST(test_no_clock)
{
  GstElement *playout = gst_object_ref_sink(gst_element_factory_make("opensoraplayout", NULL));
  GstBus *bus = gst_bus_new();

  gst_element_set_bus(playout, bus);
  gst_element_set_state(playout, GST_STATE_PLAYING);
  wait_error(bus, GST_CORE_ERROR, GST_CORE_ERROR_CLOCK, "clock");
  gst_element_set_state(playout, GST_STATE_NULL);
  gst_element_set_bus(playout, NULL);
  gst_bus_set_flushing(bus, TRUE);
  gst_object_unref(bus);
  gst_object_unref(playout);
}
GST_END_TEST;

static Suite *
playout_suite(void)
{
  Suite *suite = suite_create("opensoraplayout");
  TCase *tcase = common_case(suite, "playout");

  tcase_add_test(tcase, test_ten_minutes);
  tcase_add_loop_test(tcase, test_repeat, 0, G_N_ELEMENTS(repeats));
  tcase_add_test(tcase, test_single_frames);
  tcase_add_test(tcase, test_change_of_repeat);
  tcase_add_test(tcase, test_more_frames_than_told);
  tcase_add_test(tcase, test_too_many_frames);
  tcase_add_test(tcase, test_fewer_frames_than_told);
  tcase_add_loop_test(tcase, test_without_meta, 0, 3);
  tcase_add_test(tcase, test_max_frames);
  tcase_add_test(tcase, test_parts_of_a_clip);
  tcase_add_test(tcase, test_new_caps);
  tcase_add_loop_test(tcase, test_cross_fade, 0, G_N_ELEMENTS(formats));
  tcase_add_test(tcase, test_late_cross_fade);
  tcase_add_loop_test(tcase, test_rates, 0, G_N_ELEMENTS(rates));
  tcase_add_test(tcase, test_no_rate);
  tcase_add_test(tcase, test_rate_of_first_clip);
  tcase_add_test(tcase, test_slate_color);
  tcase_add_test(tcase, test_slate_picture);
  tcase_add_test(tcase, test_no_slate);
  tcase_add_loop_test(tcase, test_bad_slate, 0, G_N_ELEMENTS(bad_slates));
  tcase_add_test(tcase, test_caps_of_slate);
  tcase_add_test(tcase, test_back_pressure);
  tcase_add_test(tcase, test_flush);
  tcase_add_test(tcase, test_stop_while_full);
  tcase_add_test(tcase, test_limited_pool);
  tcase_add_test(tcase, test_layout);
  tcase_add_test(tcase, test_drain);
  tcase_add_test(tcase, test_drain_nothing);
  tcase_add_test(tcase, test_continue);
  tcase_add_test(tcase, test_eos_from_application);
  tcase_add_test(tcase, test_signals);
  tcase_add_test(tcase, test_signals_of_cross_fade);
  tcase_add_test(tcase, test_events);
  tcase_add_test(tcase, test_late);
  tcase_add_test(tcase, test_any_lateness);
  tcase_add_test(tcase, test_late_start);
  tcase_add_test(tcase, test_states);
  tcase_add_test(tcase, test_queries);
  tcase_add_test(tcase, test_refused_caps);
  tcase_add_test(tcase, test_no_clock);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, playout_suite);
}
