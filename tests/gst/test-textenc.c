/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoratextenc: text buffers in, one conditioning buffer a clip out.
 */
#include <gst/app/gstappsink.h>
#include <string.h>

#include "common.h"

#define TEXT_CAPS "text/x-raw,format=utf8"

static GstBuffer *
text_buffer(const char *text)
{
  return gst_buffer_new_memdup(text, strlen(text));
}

static GstHarness *
text_harness(GstBus **bus, const char *properties)
{
  GstHarness *h = harness(bus, "opensoratextenc %s", properties);

  gst_harness_set_src_caps_str(h, TEXT_CAPS);
  return h;
}

static void
pull_clip(GstHarness *h, const char *prompt, guint clip, guint64 seed)
{
  g_autoptr(GstBuffer) buffer = gst_harness_pull(h);

  fail_unless(buffer != NULL);
  assert_equals_int(gst_buffer_n_memory(buffer), 4);
  assert_equals_string(clip_meta(buffer)->prompt, prompt);
  assert_equals_int(clip_meta(buffer)->clip, clip);
  assert_equals_uint64(clip_meta(buffer)->seed, seed);
}

GST_START_TEST(test_texts)
{
  GstBus *bus;
  GstHarness *h = text_harness(&bus, "seed=3 num-samples=2");

  assert_equals_int(gst_harness_push(h, text_buffer("  a cat\n")), GST_FLOW_OK);
  assert_equals_int(gst_harness_buffers_in_queue(h), 2);
  assert_equals_int(gst_harness_push(h, text_buffer(" \t\r\n")), GST_FLOW_OK);
  assert_equals_int(gst_harness_push(h, gst_buffer_new()), GST_FLOW_OK);
  assert_equals_int(gst_harness_buffers_in_queue(h), 2);
  assert_equals_int(gst_harness_push(h, text_buffer("ein Bär")), GST_FLOW_OK);
  pull_clip(h, "a cat", 0, 3);
  pull_clip(h, "a cat", 1, 4);
  pull_clip(h, "ein Bär", 2, 3);
  pull_clip(h, "ein Bär", 3, 4);

  gst_harness_push_event(h, gst_event_new_eos());
  for (;;) {
    g_autoptr(GstEvent) event = gst_harness_pull_event(h);

    fail_unless(event != NULL);
    if (GST_EVENT_TYPE(event) == GST_EVENT_EOS)
      break;
  }
  harness_free(h, bus);
}
GST_END_TEST

/* The same text gives the same as from the source. */
GST_START_TEST(test_same_as_source)
{
  g_autoptr(Run) source = run_ok(1, "opensoratextsrc prompt=\"a red circle\" ! appsink name=out");
  GstBus *bus;
  GstHarness *h = text_harness(&bus, "");
  g_autoptr(GstBuffer) buffer = NULL;

  assert_equals_int(gst_harness_push(h, text_buffer("a red circle")), GST_FLOW_OK);
  buffer = gst_harness_pull(h);
  assert_same_tensors(buffer, run_buffer(source, 0));
  harness_free(h, bus);
}
GST_END_TEST

/* Whatever the times of the text were. */
GST_START_TEST(test_segment)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoratextenc");
  g_autoptr(GstCaps) caps = gst_caps_from_string(TEXT_CAPS);
  gboolean seen = FALSE;
  GstSegment bytes;

  gst_harness_push_event(h, gst_event_new_stream_start("text"));
  gst_harness_push_event(h, gst_event_new_caps(caps));
  gst_segment_init(&bytes, GST_FORMAT_BYTES);
  gst_harness_push_event(h, gst_event_new_segment(&bytes));
  assert_equals_int(gst_harness_push(h, text_buffer("x")), GST_FLOW_OK);
  while (gst_harness_events_in_queue(h) > 0) {
    g_autoptr(GstEvent) event = gst_harness_pull_event(h);
    const GstSegment *segment;

    if (GST_EVENT_TYPE(event) != GST_EVENT_SEGMENT)
      continue;
    gst_event_parse_segment(event, &segment);
    assert_equals_int(segment->format, GST_FORMAT_TIME);
    assert_equals_uint64(segment->start, 0);
    seen = TRUE;
  }
  fail_unless(seen);
  harness_free(h, bus);
}
GST_END_TEST

/* Like any transform, it wants caps first. */
GST_START_TEST(test_no_caps)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoratextenc");
  GstSegment segment;

  gst_harness_play(h);
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_stream_start("text"));
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  assert_equals_int(gst_harness_push(h, text_buffer("x")), GST_FLOW_NOT_NEGOTIATED);
  assert_equals_int(gst_harness_buffers_received(h), 0);
  harness_free(h, bus);
}
GST_END_TEST

/* What comes after has nothing to say about memory for text, so it is not asked. */
static GstPadProbeReturn
count_allocation(GstPad *pad, GstPadProbeInfo *info, gpointer count)
{
  if (GST_QUERY_TYPE(GST_PAD_PROBE_INFO_QUERY(info)) == GST_QUERY_ALLOCATION)
    ++*(guint *) count;
  return GST_PAD_PROBE_OK;
}

GST_START_TEST(test_allocation)
{
  GstBus *bus;
  GstHarness *h = text_harness(&bus, "");
  g_autoptr(GstPad) src = gst_element_get_static_pad(h->element, "src");
  g_autoptr(GstCaps) caps = gst_caps_from_string(TEXT_CAPS);
  GstQuery *query = gst_query_new_allocation(caps, TRUE);
  guint count = 0;

  gst_pad_add_probe(src, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM, count_allocation, &count, NULL);
  assert_equals_int(gst_harness_push(h, text_buffer("x")), GST_FLOW_OK);
  fail_if(gst_pad_peer_query(h->srcpad, query));
  assert_equals_int(count, 0);
  gst_query_unref(query);
  harness_free(h, bus);
}
GST_END_TEST

GST_START_TEST(test_flush)
{
  GstBus *bus;
  GstHarness *h = text_harness(&bus, "");
  GstSegment segment;

  assert_equals_int(gst_harness_push(h, text_buffer("one")), GST_FLOW_OK);
  pull_clip(h, "one", 0, 42);
  gst_harness_push_event(h, gst_event_new_flush_start());
  assert_equals_int(gst_harness_push(h, text_buffer("two")), GST_FLOW_FLUSHING);
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  assert_equals_int(gst_harness_push(h, text_buffer("three")), GST_FLOW_OK);
  pull_clip(h, "three", 1, 42);
  assert_equals_int(gst_harness_buffers_received(h), 2);
  harness_free(h, bus);
}
GST_END_TEST

GST_START_TEST(test_not_utf8)
{
  GstBus *bus;
  GstHarness *h = text_harness(&bus, "");

  assert_equals_int(gst_harness_push(h, text_buffer("B\xe4r")), GST_FLOW_ERROR);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "UTF-8");
  harness_free(h, bus);
}
GST_END_TEST

/* The next thing that happens to a prompt has to be that; @id 0: to any. (transfer full) */
static GstMessage *
wait_clip(GstBus *bus, const char *state, guint64 id)
{
  for (;;) {
    GstMessage *message = wait_message(bus, GST_MESSAGE_ELEMENT);
    const GstStructure *s = gst_message_get_structure(message);
    guint64 found;

    if (!gst_structure_has_name(s, "opensora-clip")) {
      gst_message_unref(message);
      continue;
    }
    fail_unless(gst_structure_get_uint64(s, "id", &found));
    if (id != 0)
      assert_equals_uint64(found, id);
    assert_equals_string(gst_structure_get_string(s, "state"), state);
    return message;
  }
}

static void
expect_clip(GstBus *bus, const char *state, guint64 id)
{
  gst_message_unref(wait_clip(bus, state, id));
}

/* Texts have numbers, too, and one that fails need not be the end. */
GST_START_TEST(test_skip_failed)
{
  GstBus *bus;
  GstHarness *h = text_harness(&bus, "skip-failed=true num-samples=2");
  GstMessage *failed;
  GstBuffer *buffer;
  guint64 ids = 0;

  assert_equals_int(gst_harness_push(h, text_buffer("one")), GST_FLOW_OK);
  expect_clip(bus, "started", 1);
  assert_equals_int(gst_harness_push(h, text_buffer("B\xe4r")), GST_FLOW_OK);
  expect_clip(bus, "started", 2);
  failed = wait_clip(bus, "failed", 2);
  fail_unless(strstr(gst_structure_get_string(gst_message_get_structure(failed), "reason"),
                     "UTF-8") != NULL);
  gst_message_unref(failed);
  assert_equals_int(gst_harness_push(h, text_buffer("three")), GST_FLOW_OK);
  expect_clip(bus, "started", 3);
  assert_equals_int(gst_harness_buffers_received(h), 4);
  for (guint i = 0; i < 4; i++) {
    buffer = gst_harness_pull(h);
    assert_equals_uint64(clip_meta(buffer)->id, i < 2 ? 1 : 3);
    assert_equals_int(clip_meta(buffer)->clip, i);
    gst_buffer_unref(buffer);
  }
  /* Nobody made a latent of them. Two threads may tell. */
  for (guint i = 0; i < 2; i++) {
    GstMessage *message = wait_clip(bus, "cancelled", 0);
    guint64 id;

    gst_structure_get_uint64(gst_message_get_structure(message), "id", &id);
    ids += id;
    gst_message_unref(message);
  }
  assert_equals_uint64(ids, 1 + 3);
  harness_free(h, bus);
}
GST_END_TEST

/* One that is being denoised is given up; the text behind it comes next. */
GST_START_TEST(test_cancel)
{
  GstElement *pipeline = gst_parse_launch(
      "appsrc name=a caps=" TEXT_CAPS " ! opensoratextenc name=t ! opensoradenoise steps=1000 "
      "num-frames=33 width=64 height=64 name=d ! opensoravaedec ! appsink name=out sync=false",
      NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  GstElement *source = child(pipeline, "a");
  gboolean cancelled = FALSE;
  GstFlowReturn ret;
  guint64 id;

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  for (guint i = 0; i < 2; i++) {
    GstBuffer *text = text_buffer(i == 0 ? "one" : "two");

    g_signal_emit_by_name(source, "push-buffer", text, &ret);
    gst_buffer_unref(text);
  }
  g_signal_emit_by_name(source, "end-of-stream", &ret);
  expect_clip(bus, "started", 1);
  wait_progress(bus, "denoise");
  g_object_get(child(pipeline, "t"), "current-id", &id, NULL);
  assert_equals_uint64(id, 1);
  g_object_set(child(pipeline, "d"), "steps", 1u, NULL);
  g_signal_emit_by_name(child(pipeline, "t"), "cancel", (guint64) 7, &cancelled);
  fail_if(cancelled);
  g_signal_emit_by_name(child(pipeline, "t"), "cancel", (guint64) 1, &cancelled);
  fail_unless(cancelled);
  for (guint i = 0; i < 33; i++) {
    g_autoptr(GstSample) sample =
        gst_app_sink_try_pull_sample(GST_APP_SINK(child(pipeline, "out")), WAIT_TIME);

    fail_unless(sample != NULL);
    assert_equals_uint64(clip_meta(gst_sample_get_buffer(sample))->id, 2);
    assert_equals_uint64(GST_BUFFER_OFFSET(gst_sample_get_buffer(sample)), i);
  }
  fail_unless(gst_app_sink_try_pull_sample(GST_APP_SINK(child(pipeline, "out")), WAIT_TIME) ==
              NULL);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* A stream without text, and one that says nothing between its texts. */
GST_START_TEST(test_nothing)
{
  GstBus *bus;
  GstHarness *h = text_harness(&bus, "");

  gst_harness_push_event(h, gst_event_new_gap(0, GST_SECOND));
  gst_harness_push_event(h, gst_event_new_eos());
  assert_equals_int(gst_harness_buffers_received(h), 0);
  harness_free(h, bus);
  run_free(run_ok(0, "fakesrc num-buffers=2 sizetype=empty ! capsfilter caps=" TEXT_CAPS
                     " ! opensoratextenc ! opensoradenoise ! opensoravaedec ! appsink name=out"));
}
GST_END_TEST

/* The denoiser gets no clip out of a gap. */
GST_START_TEST(test_gap)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoratextenc");
  GstElement *denoise = gst_object_ref_sink(gst_element_factory_make("opensoradenoise", NULL));
  g_autoptr(GstBuffer) buffer = NULL;
  GstHarness *d;

  g_object_set(denoise, "steps", 1u, "num-frames", 1u, "width", 32u, "height", 32u, NULL);
  d = gst_harness_new_with_element(denoise, "sink", "src");
  gst_harness_set_src_caps_str(h, TEXT_CAPS);
  gst_harness_push_event(h, gst_event_new_gap(0, GST_SECOND));
  assert_equals_int(gst_harness_push(h, text_buffer("x")), GST_FLOW_OK);
  buffer = gst_harness_pull(h);
  while (gst_harness_events_in_queue(h) > 0)
    gst_harness_push_event(d, gst_harness_pull_event(h));
  assert_equals_int(gst_harness_push(d, g_steal_pointer(&buffer)), GST_FLOW_OK);
  buffer = gst_harness_pull(d);
  fail_unless(buffer != NULL);
  tensor_of(buffer, 0);
  gst_harness_teardown(d);
  gst_object_unref(denoise);
  harness_free(h, bus);
}
GST_END_TEST

GST_START_TEST(test_frame_rate)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoratextenc");
  g_autoptr(GstBuffer) buffer = NULL;

  gst_harness_set_sink_caps_str(h, GST_OPENSORA_CONDITIONING "(" GST_OPENSORA_MEMORY_FEATURE
                                                             "),framerate=12/1");
  gst_harness_set_src_caps_str(h, TEXT_CAPS);
  assert_equals_int(gst_harness_push(h, text_buffer("x")), GST_FLOW_OK);
  buffer = gst_harness_pull(h);
  assert_equals_int(clip_meta(buffer)->fps_n, 12);
  harness_free(h, bus);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensoratextenc");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_texts);
  tcase_add_test(tc, test_same_as_source);
  tcase_add_test(tc, test_segment);
  tcase_add_test(tc, test_no_caps);
  tcase_add_test(tc, test_allocation);
  tcase_add_test(tc, test_flush);
  tcase_add_test(tc, test_not_utf8);
  tcase_add_test(tc, test_skip_failed);
  tcase_add_test(tc, test_cancel);
  tcase_add_test(tc, test_nothing);
  tcase_add_test(tc, test_gap);
  tcase_add_test(tc, test_frame_rate);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
