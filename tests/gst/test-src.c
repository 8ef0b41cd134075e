/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensorasrc, and with it everything between a prompt and its video.
 */
#include <gst/video/video.h>
#include <string.h>

#include "common.h"

#define SMALL "steps=2 num-frames=5 width=32 height=32 "
#define OUT " ! appsink name=out"

static void
assert_same_frames(Run *a, Run *b)
{
  assert_equals_int(a->samples->len, b->samples->len);
  for (guint i = 0; i < a->samples->len; i++) {
    GstMapInfo map;

    fail_unless(gst_buffer_map(run_buffer(a, i), &map, GST_MAP_READ));
    assert_equals_int(gst_buffer_memcmp(run_buffer(b, i), 0, map.data, map.size), 0);
    assert_equals_uint64(gst_buffer_get_size(run_buffer(b, i)), map.size);
    gst_buffer_unmap(run_buffer(a, i), &map);
    assert_equals_uint64(GST_BUFFER_PTS(run_buffer(a, i)), GST_BUFFER_PTS(run_buffer(b, i)));
  }
}

/* The bin is its elements, and its own properties are theirs. */
GST_START_TEST(test_same_as_elements)
{
  g_autoptr(Run) bin = run_ok(10, "opensorasrc prompt=\"a red circle\" num-samples=2 " SMALL OUT);
  g_autoptr(Run) elements =
      run_ok(10, "opensoratextsrc prompt=\"a red circle\" num-samples=2 ! opensoradenoise " SMALL
                 "! opensoravaedec" OUT);
  g_autoptr(Run) queues =
      run_ok(10, "opensoratextsrc prompt=\"a red circle\" num-samples=2 ! queue ! tee ! queue ! "
                 "opensoradenoise " SMALL "! queue ! tee ! queue ! opensoravaedec ! queue" OUT);

  assert_same_frames(bin, elements);
  assert_same_frames(bin, queues);
}
GST_END_TEST

/* What is asked for after the bin goes all the way up. */
GST_START_TEST(test_negotiation)
{
  g_autoptr(Run) r = run_ok(5, "opensorasrc prompt=x steps=1 num-frames=5 ! "
                               "video/x-raw,format=RGBx,width=64,height=16,framerate=12/1" OUT);
  const Clip *meta = clip_meta(run_buffer(r, 0));
  GstVideoInfo info;

  fail_unless(
      gst_video_info_from_caps(&info, gst_sample_get_caps(g_ptr_array_index(r->samples, 0))));
  assert_equals_int(GST_VIDEO_INFO_FORMAT(&info), GST_VIDEO_FORMAT_RGBx);
  assert_equals_int(GST_VIDEO_INFO_WIDTH(&info), 64);
  assert_equals_int(GST_VIDEO_INFO_HEIGHT(&info), 16);
  assert_equals_int(GST_VIDEO_INFO_FPS_N(&info), 12);
  assert_equals_int(meta->fps_n, 12);
  assert_equals_int(meta->width, 64);
  for (guint i = 0; i < 5; i++)
    assert_equals_uint64(GST_BUFFER_PTS(run_buffer(r, i)),
                         gst_util_uint64_scale(i, GST_SECOND, 12));
}
GST_END_TEST

GST_START_TEST(test_queries)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc prompt=x num-samples=3 " SMALL "! fakesink", NULL);
  const gint fps = (gint) common_model_dir()->fps;
  gint64 time;

  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  assert_equals_int(gst_element_get_state(pipeline, NULL, NULL, WAIT_TIME),
                    GST_STATE_CHANGE_SUCCESS);
  fail_unless(gst_element_query_duration(pipeline, GST_FORMAT_TIME, &time));
  assert_equals_uint64(time, gst_util_uint64_scale(15, GST_SECOND, fps));
  fail_unless(gst_element_query_position(pipeline, GST_FORMAT_TIME, &time));
  assert_equals_uint64(time, 0);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* gst-launch-1.0 stays in PAUSED as long as a progress is open: none is when the first frame
 * is there. */
GST_START_TEST(test_preroll)
{
  GstElement *pipeline = gst_parse_launch("opensorasrc prompt=x " SMALL "! fakesink", NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  GstMessage *message;
  gint open = 0;
  guint stages = 0;

  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  for (;;) {
    GstMessageType seen;

    message = wait_message(bus, GST_MESSAGE_PROGRESS | GST_MESSAGE_ASYNC_DONE);
    seen = GST_MESSAGE_TYPE(message);
    if (seen == GST_MESSAGE_PROGRESS) {
      GstProgressType type;

      gst_message_parse_progress(message, &type, NULL, NULL);
      open += type == GST_PROGRESS_TYPE_START;
      open -= type == GST_PROGRESS_TYPE_COMPLETE;
      stages += type == GST_PROGRESS_TYPE_START;
    }
    gst_message_unref(message);
    if (seen == GST_MESSAGE_ASYNC_DONE)
      break;
  }
  assert_equals_int(open, 0);
  assert_equals_int(stages, 1);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* One progress a clip, whose percentages only grow; the elements' own steps are heard too. */
GST_START_TEST(test_progress)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc name=s prompt=x num-samples=3 " SMALL OUT, NULL);
  GstElement *source = child(pipeline, "s");
  g_autoptr(GString) order = g_string_new(NULL);
  g_autoptr(Run) r = NULL;
  guint steps = 0, clip;
  gint last = 0;

  r = run_pipeline(pipeline);
  for (guint i = 0; i < r->messages->len; i++) {
    GstMessage *message = g_ptr_array_index(r->messages, i);
    const GstStructure *s = gst_message_get_structure(message);
    g_autofree char *code = NULL;
    const char *stage;
    GstProgressType type;
    gint percent;

    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ELEMENT)
      steps += gst_structure_has_name(s, "opensora-progress");
    if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_PROGRESS)
      continue;
    fail_unless(GST_MESSAGE_SRC(message) == GST_OBJECT(source));
    gst_message_parse_progress(message, &type, &code, NULL);
    assert_equals_string(code, "generate");
    stage = gst_structure_get_string(s, "stage");
    fail_unless(gst_structure_get_uint(s, "clip", &clip));
    fail_unless(gst_structure_get_int(s, "percent", &percent));
    if (type == GST_PROGRESS_TYPE_START) {
      g_string_append_printf(order, "%s%u:%s", order->len ? " " : "", clip, stage);
      last = 0;
    } else if (type == GST_PROGRESS_TYPE_COMPLETE) {
      g_string_append_printf(order, "-%u:%s", clip, stage);
      assert_equals_int(percent, 100);
    } else {
      assert_equals_int(type, GST_PROGRESS_TYPE_CONTINUE);
    }
    fail_unless(percent >= last && percent <= 100, "%d after %d", percent, last);
    last = percent;
  }
  assert_equals_string(order->str, "0:text-0:decode 1:denoise-1:decode 2:denoise-2:decode");
  fail_unless(steps >= 3 * 3);
}
GST_END_TEST

/* Work that is broken off, and work that fails, end the progress as they should. */
GST_START_TEST(test_progress_ends)
{
  GstElement *pipeline = gst_parse_launch(
      "opensorasrc name=s prompt=x steps=1000 num-frames=33 width=64 height=64" OUT, NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  GstProgressType type = GST_PROGRESS_TYPE_START;

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_progress(bus, "denoise");
  gst_element_send_event(pipeline, gst_event_new_eos());
  while (type != GST_PROGRESS_TYPE_CANCELED) {
    g_autoptr(GstMessage) message = wait_message(bus, GST_MESSAGE_PROGRESS);

    gst_message_parse_progress(message, &type, NULL, NULL);
    fail_if(type == GST_PROGRESS_TYPE_COMPLETE);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);

  g_object_set(child(pipeline, "s"), "image", "/no/such/file", NULL);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "/no/such/file");
  while (type != GST_PROGRESS_TYPE_ERROR) {
    g_autoptr(GstMessage) message =
        gst_bus_timed_pop_filtered(bus, WAIT_TIME, GST_MESSAGE_PROGRESS);

    fail_unless(message != NULL);
    gst_message_parse_progress(message, &type, NULL, NULL);
    fail_if(type == GST_PROGRESS_TYPE_COMPLETE);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* The comment of a clip is what it takes to make it again. */
GST_START_TEST(test_comment)
{
  static const char *const settings[] = {
    "",
    "seed=7 num-samples=2 guidance=2.0625001 text-oscillation=off shift=off motion-score=0",
    "negative-prompt=\"a \\\"big\\\" dog\" flow-shift=3.3 decorate=false steps=12 guidance=5",
  };

  for (guint i = 0; i < G_N_ELEMENTS(settings); i++) {
    g_autoptr(Run) first = run(
        "opensorasrc prompt=\"a cat\" num-frames=5 width=32 height=32 steps=3 %s" OUT, settings[i]);
    const guint n = first->samples->len;
    g_autofree char *comment = NULL;
    g_autofree char *last = NULL;
    g_autoptr(Run) again = NULL;
    char *model, *rest;

    g_assert_no_error(first->error);
    /* Of the last clip. */
    for (guint m = 0; m < first->messages->len; m++) {
      GstMessage *message = g_ptr_array_index(first->messages, m);
      GstTagList *tags;

      if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_TAG)
        continue;
      gst_message_parse_tag(message, &tags);
      if (gst_tag_list_get_string(tags, GST_TAG_COMMENT, &last)) {
        g_free(comment);
        comment = g_steal_pointer(&last);
      }
      gst_tag_list_unref(tags);
    }
    fail_unless(comment != NULL);
    /* All of it are properties but the name of the model. */
    model = strstr(comment, "model=");
    fail_unless(model != NULL);
    rest = strchr(model, ' ');
    memset(model, ' ', (gsize) (rest - model));
    again = run("opensorasrc prompt=\"a cat\" num-frames=5 width=32 height=32 %s" OUT, comment);
    fail_unless(again->error == NULL, "%s: %s", comment,
                again->error ? again->error->message : NULL);
    assert_equals_int(again->samples->len, 5);
    for (guint f = 0; f < 5; f++) {
      GstMapInfo map;

      fail_unless(gst_buffer_map(run_buffer(again, f), &map, GST_MAP_READ));
      fail_unless(gst_buffer_memcmp(run_buffer(first, n - 5 + f), 0, map.data, map.size) == 0,
                  "not the same clip: %s", comment);
      gst_buffer_unmap(run_buffer(again, f), &map);
    }
  }
}
GST_END_TEST

static void
wait_eos(GstBus *bus)
{
  gst_message_unref(wait_message(bus, GST_MESSAGE_EOS));
}

/* Up and down, all the way and halfway, finished or not; then it still works. */
GST_START_TEST(test_states)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc name=s prompt=x " SMALL "! appsink name=out", NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  static const GstState states[] = { GST_STATE_READY, GST_STATE_PAUSED, GST_STATE_PLAYING };
  g_autoptr(Run) r = NULL;

  for (guint i = 0; i < 30; i++) {
    gst_element_set_state(pipeline, states[i % 3]);
    if (i % 7 == 0)
      gst_element_get_state(pipeline, NULL, NULL, WAIT_TIME);
    if (i % 2 == 0)
      gst_element_set_state(pipeline, i % 4 ? GST_STATE_READY : GST_STATE_NULL);
  }
  for (guint i = 0; i < 3; i++) {
    gst_element_set_state(pipeline, GST_STATE_NULL);
    g_object_set(child(pipeline, "out"), "sync", FALSE, "wait-on-eos", FALSE, NULL);
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    wait_eos(bus);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  r = run_pipeline(pipeline);
  g_assert_no_error(r->error);
  assert_equals_int(r->samples->len, 5);
  assert_equals_uint64(GST_BUFFER_PTS(run_buffer(r, 0)), 0);
}
GST_END_TEST

static void
keep_frame(GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer frames)
{
  g_ptr_array_add(frames, gst_buffer_ref(buffer));
}

/* A run after a run is as the first; what was changed in between counts. */
GST_START_TEST(test_again)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc name=s prompt=x seed=1 " SMALL "! fakesink name=f "
                       "signal-handoffs=true sync=false",
                       NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  GstElement *source = child(pipeline, "s");
  static const struct {
    gint64 seed;
    guint frames, width;
  } runs[] = { { 1, 5, 32 }, { 2, 5, 32 }, { 1, 9, 48 }, { 1, 5, 32 } };

  for (guint i = 0; i < G_N_ELEMENTS(runs); i++) {
    g_autoptr(GPtrArray) frames = g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref);
    const Clip *meta;
    gulong id;

    g_object_set(source, "seed", runs[i].seed, "num-frames", runs[i].frames, "width", runs[i].width,
                 NULL);
    id = g_signal_connect(child(pipeline, "f"), "handoff", G_CALLBACK(keep_frame), frames);
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    wait_eos(bus);
    gst_element_set_state(pipeline, i % 2 ? GST_STATE_NULL : GST_STATE_READY);
    g_signal_handler_disconnect(child(pipeline, "f"), id);

    assert_equals_int(frames->len, runs[i].frames);
    meta = clip_meta(g_ptr_array_index(frames, 0));
    assert_equals_uint64(meta->seed, (guint64) runs[i].seed);
    assert_equals_int(meta->clip, 0);
    assert_equals_int(meta->width, runs[i].width);
    assert_equals_uint64(GST_BUFFER_PTS(g_ptr_array_index(frames, 0)), 0);
    assert_equals_uint64(GST_BUFFER_OFFSET(g_ptr_array_index(frames, 0)), 0);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* An error leaves the pipeline usable once its cause is gone. */
GST_START_TEST(test_after_error)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc name=s prompt=x " SMALL "num-frames=6" OUT, NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  g_autoptr(Run) r = NULL;

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "6 frames");
  gst_element_set_state(pipeline, GST_STATE_NULL);
  g_object_set(child(pipeline, "s"), "num-frames", 5u, NULL);
  r = run_pipeline(pipeline);
  g_assert_no_error(r->error);
  assert_equals_int(r->samples->len, 5);
}
GST_END_TEST

/* Two at once, in one process, share the model and do not disturb each other. */
GST_START_TEST(test_two_at_once)
{
  g_autoptr(Run) alone = run_ok(5, "opensorasrc prompt=\"a red circle\" " SMALL OUT);
  g_autoptr(Run) both =
      run_ok(5, "opensorasrc prompt=\"a blue square\" num-samples=2 " SMALL
                "! fakesink sync=false opensorasrc prompt=\"a red circle\" " SMALL OUT);

  assert_same_frames(alone, both);
}
GST_END_TEST

/* A pipeline is thrown away in whatever state it was built. */
GST_START_TEST(test_dispose)
{
  GstElement *bin = gst_element_factory_make("opensorasrc", NULL);
  GstElement *pipeline = gst_parse_launch("opensorasrc ! fakesink", NULL);

  g_object_set(bin, "prompt", "x", "model-location", "/no/such/folder", NULL);
  gst_object_unref(gst_object_ref_sink(bin));
  assert_equals_int(gst_element_set_state(pipeline, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensorasrc");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_same_as_elements);
  tcase_add_test(tc, test_negotiation);
  tcase_add_test(tc, test_queries);
  tcase_add_test(tc, test_preroll);
  tcase_add_test(tc, test_progress);
  tcase_add_test(tc, test_progress_ends);
  tcase_add_test(tc, test_comment);
  tcase_add_test(tc, test_states);
  tcase_add_test(tc, test_again);
  tcase_add_test(tc, test_after_error);
  tcase_add_test(tc, test_two_at_once);
  tcase_add_test(tc, test_dispose);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
