/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What happens in the middle of long work: flush, stop, pause, EOS.
 */
#include <unistd.h>

#include "common.h"

/* Far longer than a test lasts, in steps that are quick. */
#define LONG "steps=1000 num-frames=33 width=64 height=64 "

static void
assert_quick(gint64 start, const char *what)
{
  const gint64 elapsed = g_get_monotonic_time() - start;

  fail_unless(elapsed < (gint64) (QUICK_TIME / 1000), "%s took %.1f s", what,
              (double) elapsed / G_USEC_PER_SEC);
}

static void
push_segment(GstHarness *h)
{
  GstSegment segment;

  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_segment(&segment));
}

/* Empties the bus. */
static gboolean
was_cancelled(GstBus *bus)
{
  GstMessage *message;
  gboolean cancelled = FALSE;

  while ((message = gst_bus_pop_filtered(bus, GST_MESSAGE_PROGRESS | GST_MESSAGE_ERROR))) {
    GstProgressType type;

    fail_if(GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR);
    gst_message_parse_progress(message, &type, NULL, NULL);
    cancelled |= type == GST_PROGRESS_TYPE_CANCELED;
    gst_message_unref(message);
  }
  return cancelled;
}

GST_START_TEST(test_flush_denoise)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(3, &caps);
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoradenoise " LONG);

  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  for (guint round = 0; round < 3; round++) {
    GstBuffer *latent;
    gint64 start;

    fail_if(was_cancelled(bus)); /* nothing of the clip before is left */
    g_object_set(h->element, "steps", 1000u, "width", 64u, "num-frames", 33u, NULL);
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 1))); /* waits in the queue */
    wait_progress(bus, "denoise");
    start = g_get_monotonic_time();
    gst_harness_push_event(h, gst_event_new_flush_start());
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    assert_quick(start, "flush");
    fail_unless(was_cancelled(bus));
    assert_equals_int(gst_harness_buffers_received(h), round);

    g_object_set(h->element, "steps", 1u, "width", 32u, "num-frames", 5u, NULL);
    push_segment(h);
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 2)));
    latent = gst_harness_pull(h);
    fail_unless(latent != NULL);
    assert_equals_uint64(clip_meta(latent)->seed, 44);
    assert_equals_uint64(GST_BUFFER_OFFSET(latent), 0);
    assert_equals_uint64(GST_BUFFER_PTS(latent), 0);
    gst_buffer_unref(latent);
  }
  harness_free(h, bus);
}
GST_END_TEST

/* The text alone is flushed, so that the denoiser's task goes on: each time the clip at hand is
 * dropped, however soon FLUSH_STOP follows, and the next one is made. */
GST_START_TEST(test_flush_at_once)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstCaps) latent_caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(2, &caps);
  g_autoptr(GstBuffer) reference = make_latent(64, 64, 1, "30/1", &latent_caps);
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoradenoise " LONG);
  GstHarness *ref = gst_harness_new_with_element(h->element, "reference_0", NULL);

  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  gst_harness_set_src_caps(ref, g_steal_pointer(&latent_caps));
  gst_harness_push(ref, gst_buffer_ref(reference));
  gst_harness_push_event(ref, gst_event_new_eos());
  for (guint round = 0; round < 10; round++) {
    GstBuffer *latent;
    gint64 start;

    g_object_set(h->element, "steps", 1000u, "num-frames", 33u, NULL);
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
    wait_progress(bus, "denoise");
    start = g_get_monotonic_time();
    gst_harness_push_event(h, gst_event_new_flush_start());
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    g_object_set(h->element, "steps", 1u, "num-frames", 5u, NULL);
    push_segment(h);
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 1)));
    latent = gst_harness_pull(h);
    assert_quick(start, "flush");
    fail_unless(latent != NULL);
    assert_equals_uint64(clip_meta(latent)->seed, 43);
    assert_equals_string(clip_meta(latent)->condition, "i2v-head");
    fail_unless(was_cancelled(bus));
    gst_buffer_unref(latent);
  }
  gst_harness_teardown(ref);
  harness_free(h, bus);
}
GST_END_TEST

static gpointer
stop_element(gpointer element)
{
  gst_element_set_state(element, GST_STATE_READY);
  return NULL;
}

/* A flush that ends after the element was told to stop does not take that back. Of the text
 * alone: one of all pads ends in the base class's own task. */
GST_START_TEST(test_flush_and_stop)
{
  for (guint i = 0; i < 10; i++) {
    g_autoptr(GstCaps) caps = NULL;
    g_autoptr(GstCaps) latent_caps = NULL;
    g_autoptr(GPtrArray) texts = make_conditioning(1, &caps);
    g_autoptr(GstBuffer) reference = make_latent(64, 64, 1, "30/1", &latent_caps);
    GstBus *bus;
    GstHarness *h = harness(&bus, "opensoradenoise " LONG);
    GstHarness *ref = gst_harness_new_with_element(h->element, "reference_0", NULL);
    g_autoptr(GstPad) sink = gst_element_get_static_pad(h->element, "sink");
    GThread *thread;
    gint64 start;

    gst_harness_set_src_caps(h, g_steal_pointer(&caps));
    gst_harness_set_src_caps(ref, g_steal_pointer(&latent_caps));
    gst_harness_push(ref, gst_buffer_ref(reference));
    gst_harness_push_event(ref, gst_event_new_eos());
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
    wait_progress(bus, "denoise");
    start = g_get_monotonic_time();
    thread = g_thread_new("stop", stop_element, h->element);
    while (GST_STATE_PENDING(h->element) != GST_STATE_READY &&
           GST_STATE(h->element) != GST_STATE_READY)
      g_thread_yield();
    gst_pad_send_event(sink, gst_event_new_flush_start());
    gst_pad_send_event(sink, gst_event_new_flush_stop(TRUE));
    g_thread_join(thread);
    assert_quick(start, "stop");
    g_clear_object(&sink);
    gst_harness_teardown(ref);
    harness_free(h, bus);
  }
}
GST_END_TEST

/* A flush of the text alone drops the clip at hand; the references stay. One of the
 * references alone drops nothing that is being made. */
GST_START_TEST(test_flush_branch)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstCaps) latent_caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(3, &caps);
  g_autoptr(GstBuffer) reference = make_latent(64, 64, 1, "30/1", &latent_caps);
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoradenoise " LONG);
  GstHarness *ref = gst_harness_new_with_element(h->element, "reference_0", NULL);
  GstBuffer *latent;

  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  gst_harness_set_src_caps(ref, g_steal_pointer(&latent_caps));
  gst_harness_push(ref, gst_buffer_ref(reference));
  gst_harness_push_event(ref, gst_event_new_eos());
  gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
  wait_progress(bus, "denoise");
  gst_harness_push_event(h, gst_event_new_flush_start());
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));

  g_object_set(h->element, "steps", 1u, "num-frames", 5u, NULL);
  push_segment(h);
  gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 1)));
  latent = gst_harness_pull(h);
  fail_unless(latent != NULL);
  assert_equals_uint64(clip_meta(latent)->seed, 43);
  assert_equals_string(clip_meta(latent)->condition, "i2v-head");
  gst_buffer_unref(latent);

  fail_unless(was_cancelled(bus));
  g_object_set(h->element, "steps", 20u, NULL);
  gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 2)));
  wait_progress(bus, "denoise");
  gst_harness_push_event(ref, gst_event_new_flush_start());
  gst_harness_push_event(ref, gst_event_new_flush_stop(TRUE));
  latent = gst_harness_pull(h);
  fail_if(was_cancelled(bus));
  fail_unless(latent != NULL);
  assert_equals_uint64(clip_meta(latent)->seed, 44);
  assert_equals_string(clip_meta(latent)->condition, "i2v-head");
  gst_buffer_unref(latent);

  /* What it had said is forgotten. */
  g_object_set(h->element, "steps", 1u, NULL);
  push_segment(ref);
  gst_harness_push_event(ref, gst_event_new_eos());
  gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 2)));
  latent = gst_harness_pull(h);
  fail_unless(latent != NULL);
  assert_equals_string(clip_meta(latent)->condition, "t2v");
  gst_buffer_unref(latent);
  gst_harness_teardown(ref);
  harness_free(h, bus);
}
GST_END_TEST

typedef struct {
  GstHarness *h;
  GstBuffer *buffer;
  GstFlowReturn ret;
} Push;

static gpointer
push_in_thread(gpointer user_data)
{
  Push *push = user_data;

  push->ret = gst_harness_push(push->h, push->buffer);
  return NULL;
}

GST_START_TEST(test_flush_decode)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(64, 64, 33, "30/1", &caps);
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaedec");
  Push push = { h, gst_buffer_ref(latent), GST_FLOW_OK };
  GstBuffer *frame;
  GThread *thread;
  gint64 start;

  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  thread = g_thread_new("push", push_in_thread, &push);
  wait_progress(bus, "decode");
  start = g_get_monotonic_time();
  gst_harness_push_event(h, gst_event_new_flush_start());
  g_thread_join(thread);
  assert_quick(start, "flush");
  assert_equals_int(push.ret, GST_FLOW_FLUSHING);
  assert_equals_int(gst_harness_buffers_received(h), 0);
  fail_unless(was_cancelled(bus));

  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  push_segment(h);
  assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
  assert_equals_int(gst_harness_buffers_received(h), 33);
  while ((frame = gst_harness_try_pull(h)))
    gst_buffer_unref(frame);
  harness_free(h, bus);
}
GST_END_TEST

/* Stops a pipeline while one of its elements reports progress of a stage. */
static void
stop_during(const char *stage, const char *description)
{
  GstElement *pipeline = gst_parse_launch(description, NULL);
  GstBus *bus;
  gint64 start;

  fail_unless(pipeline != NULL);
  bus = gst_element_get_bus(pipeline);
  for (guint round = 0; round < 3; round++) {
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    wait_progress(bus, stage);
    start = g_get_monotonic_time();
    assert_equals_int(
        gst_element_set_state(pipeline, round == 1 ? GST_STATE_READY : GST_STATE_NULL),
        GST_STATE_CHANGE_SUCCESS);
    assert_quick(start, stage);
    fail_if(gst_bus_have_pending(bus) && round == 0);
  }
  gst_object_unref(bus);
  gst_object_unref(pipeline);
}

GST_START_TEST(test_stop)
{
  stop_during("denoise", "opensoratextsrc prompt=x num-samples=9 ! opensoradenoise " LONG
                         "! opensoravaedec ! fakesink");
  stop_during("denoise", "opensoratextsrc prompt=x ! queue ! opensoradenoise " LONG
                         "! queue ! opensoravaedec ! queue ! fakesink");
  stop_during("denoise", "opensorasrc prompt=x " LONG "! fakesink");
  stop_during("decode", "opensorasrc prompt=x steps=1 num-frames=33 width=64 height=64 "
                        "! fakesink");
  stop_during("decode", "opensorasrc prompt=x steps=1 num-frames=33 width=64 height=64 "
                        "! queue ! fakesink");
}
GST_END_TEST

/* Pausing returns at once and loses nothing. */
GST_START_TEST(test_pause)
{
  GstElement *pipeline = gst_parse_launch("opensorasrc prompt=x num-samples=2 steps=15 "
                                          "num-frames=5 width=64 height=64 ! appsink name=out",
                                          NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  g_autoptr(Run) r = NULL;
  gint64 start;

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_progress(bus, "denoise");
  start = g_get_monotonic_time();
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  assert_quick(start, "pause");
  assert_equals_int(gst_element_get_state(pipeline, NULL, NULL, WAIT_TIME),
                    GST_STATE_CHANGE_SUCCESS);
  r = run_pipeline(pipeline);
  g_assert_no_error(r->error);
  assert_equals_int(r->samples->len, 10);
  for (guint i = 0; i < 10; i++)
    assert_equals_uint64(GST_BUFFER_OFFSET(run_buffer(r, i)), i);
}
GST_END_TEST

/* The application ends the stream: what is not done is left undone, what is done is whole. */
GST_START_TEST(test_eos)
{
  static const char *const descriptions[] = {
    "opensorasrc prompt=x num-samples=9 " LONG "! appsink name=out",
    "opensoratextsrc prompt=x num-samples=9 ! queue ! opensoradenoise " LONG
    "! queue ! opensoravaedec ! appsink name=out",
    "opensoratextsrc prompt=x ! opensoradenoise " LONG "! opensoravaedec ! appsink name=out",
  };

  for (guint i = 0; i < G_N_ELEMENTS(descriptions); i++) {
    GstElement *pipeline = gst_parse_launch(descriptions[i], NULL);
    g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
    g_autoptr(Run) r = NULL;
    gint64 start;

    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    wait_progress(bus, "denoise");
    start = g_get_monotonic_time();
    fail_unless(gst_element_send_event(pipeline, gst_event_new_eos()));
    r = run_pipeline(pipeline);
    assert_quick(start, "EOS");
    g_assert_no_error(r->error);
    fail_unless(r->eos);
    assert_equals_int(r->samples->len, 0);
  }
}
GST_END_TEST

/* Prompts from a source that is not ours and waits for the denoiser, with more of them to come
 * and with none. In one of the pipelines the bin tells the denoiser first, in the other, where
 * the source was added later, the application has to. */
GST_START_TEST(test_eos_of_texts)
{
  static const char *const descriptions[] = {
    "fdsrc fd=%d ! text/x-raw,format=utf8 ! opensoratextenc num-samples=9 ! opensoradenoise "
    "name=d " LONG "! opensoravaedec ! appsink name=out",
    "opensoradenoise name=d " LONG "! opensoravaedec ! appsink name=out "
    "fdsrc fd=%d ! text/x-raw,format=utf8 ! opensoratextenc num-samples=9 ! d.",
  };

  for (guint i = 0; i < 4; i++) {
    const gboolean open_end = i % 2 == 0;
    g_autofree char *description = NULL;
    g_autoptr(GstBus) bus = NULL;
    g_autoptr(Run) r = NULL;
    GstElement *pipeline;
    gint64 start;
    int fds[2];

    assert_equals_int(pipe(fds), 0);
    description = g_strdup_printf(descriptions[i / 2], fds[0]);
    pipeline = gst_parse_launch(description, NULL);
    bus = gst_element_get_bus(pipeline);
    assert_equals_int(write(fds[1], "a cat", 5), 5);
    if (!open_end)
      close(fds[1]);
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    wait_progress(bus, "denoise");
    start = g_get_monotonic_time();
    if (i / 2 == 1)
      fail_unless(gst_element_send_event(child(pipeline, "d"), gst_event_new_eos()));
    fail_unless(gst_element_send_event(pipeline, gst_event_new_eos()));
    r = run_pipeline(pipeline);
    assert_quick(start, "EOS");
    g_assert_no_error(r->error);
    fail_unless(r->eos);
    assert_equals_int(r->samples->len, 0);
    gst_element_set_state(pipeline, GST_STATE_NULL);
    close(fds[0]);
    if (open_end)
      close(fds[1]);
  }
}
GST_END_TEST

GST_START_TEST(test_eos_between_clips)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc prompt=x num-samples=100000 steps=2 num-frames=5 width=32 "
                       "height=32 ! appsink name=out",
                       NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  g_autoptr(Run) r = NULL;

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_progress(bus, "decode");
  fail_unless(gst_element_send_event(pipeline, gst_event_new_eos()));
  r = run_pipeline(pipeline);
  g_assert_no_error(r->error);
  fail_unless(r->eos);
  fail_unless(r->samples->len >= 5 && r->samples->len < 100 && r->samples->len % 5 == 0, "%u",
              r->samples->len);
}
GST_END_TEST

/* Nobody can seek in what is being made, and trying disturbs nothing. */
GST_START_TEST(test_seek)
{
  GstElement *pipeline = gst_parse_launch("opensorasrc prompt=x steps=15 num-frames=5 width=64 "
                                          "height=64 ! appsink name=out",
                                          NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  g_autoptr(Run) r = NULL;

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  wait_progress(bus, "denoise");
  fail_if(gst_element_seek_simple(pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
  fail_if(gst_element_seek_simple(pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_NONE, GST_SECOND));
  r = run_pipeline(pipeline);
  g_assert_no_error(r->error);
  assert_equals_int(r->samples->len, 5);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("interrupt");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_flush_denoise);
  tcase_add_test(tc, test_flush_at_once);
  tcase_add_test(tc, test_flush_and_stop);
  tcase_add_test(tc, test_flush_branch);
  tcase_add_test(tc, test_flush_decode);
  tcase_add_test(tc, test_stop);
  tcase_add_test(tc, test_pause);
  tcase_add_test(tc, test_eos);
  tcase_add_test(tc, test_eos_of_texts);
  tcase_add_test(tc, test_eos_between_clips);
  tcase_add_test(tc, test_seek);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
