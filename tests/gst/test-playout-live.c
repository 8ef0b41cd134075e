/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoraplayout as an element of a live pipeline: the slate, bounds, ends, messages, times.
 */
#include "playout-stage.h"

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
  send_event(stage, gst_event_new_eos());
  expect_eos(stage);
}
GST_END_TEST;

GST_START_TEST(test_continue)
{
  g_autoptr(Stage) stage = stage_started("at-eos=continue repeat=ping-pong");

  send_event(stage, gst_event_new_eos());
  expect(stage, "-");
  send_event(stage, gst_event_new_stream_start("second"));
  feed_now(stage, 1, 2);
  send_event(stage, gst_event_new_eos());
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
  send_event(stage, gst_event_new_tag(tags));
  feed_now(stage, 1, 1);
  send_event(stage,
             gst_event_new_custom(GST_EVENT_CUSTOM_DOWNSTREAM, gst_structure_new_empty("x")));
  send_event(stage, new_segment());
  send_event(stage, gst_event_new_gap(0, GST_SECOND));
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
  assert_equals_uint64(stat_of(stage, "dropped"), 0);
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
  Suite *suite = suite_create("opensoraplayout, live");
  TCase *tcase = common_case(suite, "playout");

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
