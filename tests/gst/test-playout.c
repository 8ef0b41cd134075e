/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What opensoraplayout plays: clips one after the other for ten minutes, again and again, from one
 * to the next, in any rate.
 */
#include "playout-stage.h"

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
    /* What is not held is gone, but for what appsink keeps. */
    if (model.n_fed - model.n_begun < model.max_clips)
      fail_unless(frames_alive() <= stat_of(stage, "frames") + 1);
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
  send_event(stage, make_boundary((guint) __i__));
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

/* The extension of a clip follows its end, not its beginning, and is not faded; what of its latent
 * has been shown does not come. */
GST_START_TEST(test_extension)
{
  g_autoptr(Stage) stage = stage_started("slate=none repeat=ping-pong min-plays=9 "
                                         "transition=cross-fade transition-frames=2");

  feed_now(stage, 1, 3);
  expect(stage, "1.0 1.1 1.2 1.1");
  stage->extension = 1;
  stage->lead_in = 2;
  feed_frames(stage, 1, 3, 2, 4, WIDTH);
  wait_stat(stage, "clips-waiting", 1);
  expect(stage, "1.0 1.1 1.2 1.3 1.4 1.3");
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

/* Memory */

/* Frames are passed on as they are. */
GST_START_TEST(test_no_copies)
{
  g_autoptr(Stage) stage = stage_started("slate=none");
  g_autoptr(GstCaps) caps = clip_caps(stage, WIDTH);
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, WIDTH * HEIGHT * 3, NULL);
  GstMemory *memory = gst_buffer_get_memory(buffer, 0);

  add_meta(stage, buffer, 1, 1);
  g_object_set(stage->in, "caps", caps, NULL);
  gst_app_src_push_buffer(GST_APP_SRC(stage->in), buffer);
  wait_stat(stage, "clips-waiting", 1);
  for (guint n = 0; n < 3; n++) {
    GstSample *sample = next_sample(stage);

    fail_unless(gst_buffer_peek_memory(gst_sample_get_buffer(sample), 0) == memory);
    gst_sample_unref(sample);
  }
  gst_memory_unref(memory);
}
GST_END_TEST;

/* What is in the memory of a GPU is not looked into: no slate, no fade, no copy. */
GST_START_TEST(test_cuda_memory)
{
  g_autoptr(Stage) stage =
      stage_new("transition=cross-fade",
                "video/x-raw(memory:CUDAMemory),format=RGB,width=16,height=16,framerate=24/1");
  g_autoptr(GstCaps) caps = clip_caps(stage, WIDTH);

  gst_caps_set_features(caps, 0, gst_caps_features_new("memory:CUDAMemory", NULL));
  g_object_set(stage->in, "caps", caps, NULL);
  stage_play(stage);
  fail_unless(gst_test_clock_crank(stage->clock));
  gst_test_clock_wait_for_next_pending_id(stage->clock, NULL);
  for (guint clip = 1; clip <= 2; clip++)
    for (guint i = 0; i < 2; i++) {
      GstBuffer *buffer = gst_buffer_new_allocate(NULL, 8, NULL);
      const guint8 head[] = { (guint8) clip, (guint8) i };

      gst_buffer_fill(buffer, 0, head, sizeof head);
      add_meta(stage, buffer, clip, 2);
      gst_app_src_push_buffer(GST_APP_SRC(stage->in), buffer);
    }
  wait_stat(stage, "clips-waiting", 2);
  expect(stage, "1.0 1.1 2.0 2.1 2.0");
}
GST_END_TEST;

static gboolean
takes_cuda(const char *out_caps)
{
  g_autoptr(Stage) stage = stage_new("", out_caps);
  g_autoptr(GstPad) pad = gst_element_get_static_pad(stage->playout, "sink");
  g_autoptr(GstCaps) wanted =
      gst_caps_from_string("video/x-raw(memory:CUDAMemory),format=RGB,width=16,height=16");
  g_autoptr(GstCaps) caps = gst_pad_query_caps(pad, wanted);

  return !gst_caps_is_empty(caps);
}

/* Who takes anything does not get memory of a GPU. */
GST_START_TEST(test_cuda_caps)
{
  fail_unless(takes_cuda("video/x-raw(memory:CUDAMemory)"));
  fail_unless(!takes_cuda("video/x-raw(ANY)"));
  fail_unless(!takes_cuda("identity"));
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
  tcase_add_test(tcase, test_extension);
  tcase_add_test(tcase, test_new_caps);
  tcase_add_loop_test(tcase, test_cross_fade, 0, G_N_ELEMENTS(formats));
  tcase_add_test(tcase, test_late_cross_fade);
  tcase_add_test(tcase, test_no_copies);
  tcase_add_test(tcase, test_cuda_memory);
  tcase_add_test(tcase, test_cuda_caps);
  tcase_add_loop_test(tcase, test_rates, 0, G_N_ELEMENTS(rates));
  tcase_add_test(tcase, test_no_rate);
  tcase_add_test(tcase, test_rate_of_first_clip);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, playout_suite);
}
