/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensora://?prompt=...: what an address says, and the frames that are kept for seeks.
 */
#include <string.h>

#include "common.h"

#define SMALL "&steps=1&num-frames=9&width=32&height=32"
#define FRAMES 9

static GstElement *
make(const char *uri, GError **error)
{
  GstElement *source = gst_element_make_from_uri(GST_URI_SRC, uri, NULL, error);

  return source ? gst_object_ref_sink(source) : NULL;
}

static void
assert_refused(const char *uri, const char *part)
{
  g_autoptr(GError) error = NULL;
  GstElement *source = make(uri, &error);

  fail_unless(source == NULL, "%s is taken", uri);
  fail_unless(error->domain == GST_URI_ERROR);
  fail_unless(strstr(error->message, part) != NULL, "%s: \"%s\"", uri, error->message);
}

GST_START_TEST(test_values)
{
  static const char *const forms[] = {
    "opensora://?prompt=a%20red+circle&seed=7&guidance=2.5&text-oscillation=on&tiling=temporal",
    "opensora:prompt=a red circle&seed=7&guidance=2.5&text-oscillation=on&tiling=temporal",
    ("OpenSora:///?seed=7&tiling=temporal&text-oscillation=on&guidance=2.5&"
     "prompt=%61%20red%20circle"),
  };

  for (guint i = 0; i < G_N_ELEMENTS(forms); i++) {
    g_autoptr(GError) error = NULL;
    GstElement *source = make(forms[i], &error);
    g_autofree char *prompt = NULL;
    g_autofree char *uri = NULL;
    gint64 seed;
    gboolean seekable;
    double guidance;
    gint oscillation;
    guint tiling;

    g_assert_no_error(error);
    g_object_get(source, "prompt", &prompt, "seed", &seed, "guidance", &guidance,
                 "text-oscillation", &oscillation, "tiling", &tiling, "seekable", &seekable, NULL);
    assert_equals_string(prompt, "a red circle");
    assert_equals_int64(seed, 7);
    assert_equals_float(guidance, 2.5);
    assert_equals_int(oscillation, 2);
    assert_equals_int(tiling, 2);
    fail_unless(seekable);
    uri = gst_uri_handler_get_uri(GST_URI_HANDLER(source));
    assert_equals_string(uri, forms[i]);
    gst_object_unref(source);
  }
}
GST_END_TEST

GST_START_TEST(test_refused)
{
  assert_refused("opensora://", "what the clip shall show");
  assert_refused("opensora://?prompt=x&stepz=3", "unknown key \"stepz\"");
  assert_refused("opensora://?prompt=x&name=y", "unknown key \"name\"");
  assert_refused("opensora://host/?prompt=x", "unknown key");
  assert_refused("opensora://?prompt=x&is-queue=true", "\"is-queue\" cannot be set");
  assert_refused("opensora://?prompt=x&memory-limit=1", "\"memory-limit\" cannot be set");
  assert_refused("opensora://?prompt=x&queue-length=1", "\"queue-length\" cannot be set");
  assert_refused("opensora://?prompt=x&prompt=y", "there twice");
  assert_refused("opensora://?prompt=x&steps=1001", "\"1001\" is not possible as steps");
  assert_refused("opensora://?prompt=x&steps=-1", "\"-1\" is not possible as steps");
  assert_refused("opensora://?prompt=x&steps=", "\"\" is not possible as steps");
  assert_refused("opensora://?prompt=x&guidance=warm", "\"warm\" is not possible as guidance");
  assert_refused("opensora://?prompt=x&condition=new", "\"new\" is not possible as condition");
  assert_refused("opensora://?prompt=%ff", "UTF-8");
  assert_refused("opensora://?prompt=%f", "address");
  assert_refused("opensora://?prompt=a%00b", "address");
  assert_refused("opensora://?prompt", "address");
  assert_refused("opensora://?prompt=item #3", "%23");
}
GST_END_TEST

/* What an address leaves out is as in an element that is new; one that is refused changes
 * nothing; one that comes too late neither. */
GST_START_TEST(test_another)
{
  GstElement *source = gst_object_ref_sink(gst_element_factory_make("opensorasrc", NULL));
  GstURIHandler *handler = GST_URI_HANDLER(source);
  g_autofree char *negative = NULL;
  g_autofree char *uri = NULL;
  GError *error = NULL;
  guint steps;

  fail_unless(gst_uri_handler_get_uri(handler) == NULL);
  fail_unless(gst_uri_handler_set_uri(
      handler, "opensora://?prompt=x&steps=3&seekable=false&negative-prompt=y", NULL));
  fail_if(gst_uri_handler_set_uri(handler, "opensora://?steps=4&prompt=%ff", NULL));
  g_object_get(source, "steps", &steps, NULL);
  assert_equals_int(steps, 3);
  fail_unless(gst_uri_handler_set_uri(handler, "opensora://?prompt=z", NULL));
  g_object_get(source, "steps", &steps, "negative-prompt", &negative, NULL);
  assert_equals_int(steps, 0);
  fail_unless(negative == NULL);

  gst_element_set_state(source, GST_STATE_PAUSED);
  fail_if(gst_uri_handler_set_uri(handler, "opensora://?prompt=w", &error));
  fail_unless(g_error_matches(error, GST_URI_ERROR, GST_URI_ERROR_BAD_STATE));
  g_clear_error(&error);
  gst_element_set_state(source, GST_STATE_NULL);
  uri = gst_uri_handler_get_uri(handler);
  assert_equals_string(uri, "opensora://?prompt=z");
  gst_object_unref(source);
}
GST_END_TEST

/* A pipeline in PAUSED with the clip of @query in it. */
typedef struct {
  GstElement *pipeline, *sink;
  GstBus *bus;
  GstSegment segment; /* of the frame that came last */
} Player;

static Player
player_new(const char *query)
{
  Player self;
  g_autofree char *uri = g_strconcat("opensora://?prompt=a%20red%20circle", query, NULL);
  GstElement *source = gst_element_make_from_uri(GST_URI_SRC, uri, NULL, NULL);

  self.pipeline = gst_pipeline_new(NULL);
  self.sink =
      gst_parse_bin_from_description("capsfilter caps=video/x-raw,format=RGB,framerate=8/1 ! "
                                     "appsink name=out sync=false",
                                     TRUE, NULL);
  gst_bin_add_many(GST_BIN(self.pipeline), source, self.sink, NULL);
  fail_unless(gst_element_link(source, self.sink));
  self.sink = child(self.sink, "out");
  self.bus = gst_element_get_bus(self.pipeline);
  gst_element_set_state(self.pipeline, GST_STATE_PAUSED);
  assert_equals_int(gst_element_get_state(self.pipeline, NULL, NULL, WAIT_TIME),
                    GST_STATE_CHANGE_SUCCESS);
  return self;
}

static void
player_free(Player *self)
{
  gst_element_set_state(self->pipeline, GST_STATE_NULL);
  gst_object_unref(self->bus);
  gst_object_unref(self->pipeline);
}

/* All that is left, GstBuffer. Samples are not held: appsink of 1.22 writes into the last one
 * after a flush. */
static GPtrArray *
player_run(Player *self)
{
  GPtrArray *frames = g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref);
  GstSample *sample;

  gst_element_set_state(self->pipeline, GST_STATE_PLAYING);
  for (;;) {
    g_signal_emit_by_name(self->sink, "try-pull-sample", WAIT_TIME, &sample);
    if (!sample)
      break;
    g_ptr_array_add(frames, gst_buffer_ref(gst_sample_get_buffer(sample)));
    self->segment = *gst_sample_get_segment(sample);
    gst_sample_unref(sample);
  }
  return frames;
}

/* Up to the end if there is no @stop. */
static void
player_seek(Player *self, GstSeekFlags flags, GstClockTime start, GstClockTime stop)
{
  fail_unless(gst_element_seek(self->pipeline, 1.0, GST_FORMAT_TIME, flags, GST_SEEK_TYPE_SET,
                               start, GST_SEEK_TYPE_SET, stop));
}

#define FRAME (GST_SECOND / 8)

/* Frames @from, ... are those of @all, bit for bit, with their own times. */
static void
assert_part(GPtrArray *part, GPtrArray *all, guint from, guint n)
{
  assert_equals_int(part->len, n);
  for (guint i = 0; i < n; i++) {
    GstBuffer *buffer = g_ptr_array_index(part, i);
    GstBuffer *whole = g_ptr_array_index(all, from + i);
    GstMapInfo map;

    assert_equals_uint64(GST_BUFFER_PTS(buffer), (from + i) * FRAME);
    fail_unless(gst_buffer_get_custom_meta(buffer, "GstOpenSoraClipMeta") != NULL);
    fail_unless(gst_buffer_map(whole, &map, GST_MAP_READ));
    assert_equals_uint64(gst_buffer_get_size(buffer), map.size);
    assert_equals_int(gst_buffer_memcmp(buffer, 0, map.data, map.size), 0);
    gst_buffer_unmap(whole, &map);
  }
}

GST_START_TEST(test_seek)
{
  Player player = player_new(SMALL);
  g_autoptr(GPtrArray) all = player_run(&player);
  g_autoptr(GPtrArray) again = NULL;
  g_autoptr(GPtrArray) middle = NULL;
  g_autoptr(GPtrArray) end = NULL;
  gint64 time;

  assert_part(all, all, 0, FRAMES);
  fail_unless(gst_element_query_duration(player.pipeline, GST_FORMAT_TIME, &time));
  assert_equals_int64(time, FRAMES * FRAME);

  player_seek(&player, GST_SEEK_FLAG_FLUSH, 0, GST_CLOCK_TIME_NONE);
  again = player_run(&player);
  assert_part(again, all, 0, FRAMES);

  player_seek(&player, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_ACCURATE, 3 * FRAME, 5 * FRAME);
  middle = player_run(&player);
  assert_part(middle, all, 3, 2);
  assert_equals_uint64(player.segment.start, 3 * FRAME);
  assert_equals_uint64(player.segment.stop, 5 * FRAME);
  fail_unless(GST_BUFFER_IS_DISCONT(g_ptr_array_index(middle, 0)));

  /* In the middle of a frame, which is shown then. */
  player_seek(&player, GST_SEEK_FLAG_FLUSH, 15 * FRAME / 2, GST_CLOCK_TIME_NONE);
  end = player_run(&player);
  assert_part(end, all, 7, 2);
  player_free(&player);
}
GST_END_TEST

/* While the clip is being made, and to where it is not yet: nothing is lost, nothing made anew. */
GST_START_TEST(test_seek_early)
{
  Player player = player_new(SMALL "&num-samples=3");
  g_autoptr(GPtrArray) all = NULL;
  g_autoptr(GPtrArray) late = NULL;

  for (guint i = 0; i < 5; i++)
    player_seek(&player, GST_SEEK_FLAG_FLUSH, 20 * FRAME, GST_CLOCK_TIME_NONE);
  late = player_run(&player);
  player_seek(&player, GST_SEEK_FLAG_FLUSH, 0, GST_CLOCK_TIME_NONE);
  all = player_run(&player);
  assert_part(all, all, 0, 3 * FRAMES);
  assert_part(late, all, 20, 7);
  player_free(&player);
}
GST_END_TEST

GST_START_TEST(test_segment_seek)
{
  Player player = player_new(SMALL);
  g_autoptr(GPtrArray) frames = NULL;
  GstFormat format;
  gint64 time;

  player_seek(&player, GST_SEEK_FLAG_FLUSH | GST_SEEK_FLAG_SEGMENT, FRAME, 2 * FRAME);
  gst_element_set_state(player.pipeline, GST_STATE_PLAYING);
  for (;;) {
    GstMessage *message = wait_message(player.bus, GST_MESSAGE_SEGMENT_DONE);

    gst_message_parse_segment_done(message, &format, &time);
    gst_message_unref(message);
    break;
  }
  assert_equals_int64(time, 2 * FRAME);
  player_seek(&player, GST_SEEK_FLAG_FLUSH, 8 * FRAME, GST_CLOCK_TIME_NONE);
  frames = player_run(&player);
  assert_equals_int(frames->len, 1);
  player_free(&player);
}
GST_END_TEST

/* Backwards is not possible, nor what is not time; without "seekable" nothing is. */
GST_START_TEST(test_no_seek)
{
  Player player = player_new(SMALL);
  Player plain = player_new(SMALL "&seekable=false");
  GstQuery *seeking = gst_query_new_seeking(GST_FORMAT_TIME);
  gboolean seekable;

  fail_if(gst_element_seek(player.pipeline, -1.0, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH,
                           GST_SEEK_TYPE_SET, 0, GST_SEEK_TYPE_NONE, -1));
  fail_if(gst_element_seek_simple(player.pipeline, GST_FORMAT_BYTES, GST_SEEK_FLAG_FLUSH, 0));
  fail_if(gst_element_seek_simple(plain.pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
  fail_unless(gst_element_query(player.pipeline, seeking));
  gst_query_parse_seeking(seeking, NULL, &seekable, NULL, NULL);
  fail_unless(seekable);
  gst_query_unref(seeking);
  player_free(&player);
  player_free(&plain);
}
GST_END_TEST

/* An error downstream ends it all; a sink that has enough does, too. */
GST_START_TEST(test_downstream)
{
  run_fails(GST_CORE_ERROR, GST_CORE_ERROR_FAILED, "iterations",
            "opensorasrc prompt=x num-samples=2 seekable=true steps=1 num-frames=5 width=32 "
            "height=32 ! identity error-after=3 ! appsink name=out");
  run_free(run_ok(3, "opensorasrc prompt=x num-samples=2 seekable=true steps=1 num-frames=5 "
                     "width=32 height=32 ! identity eos-after=4 ! appsink name=out"));
}
GST_END_TEST

/* It stops in the middle of whatever it does, and starts again from nothing. */
GST_START_TEST(test_states)
{
  Player player = player_new(SMALL "&num-samples=2");
  g_autoptr(GPtrArray) frames = NULL;

  for (guint i = 0; i < 3; i++) {
    gst_element_set_state(player.pipeline, GST_STATE_READY);
    gst_element_set_state(player.pipeline, GST_STATE_PLAYING);
  }
  gst_element_set_state(player.pipeline, GST_STATE_NULL);
  frames = player_run(&player);
  assert_part(frames, frames, 0, 2 * FRAMES);
  player_free(&player);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensora: addresses");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_values);
  tcase_add_test(tc, test_refused);
  tcase_add_test(tc, test_another);
  tcase_add_test(tc, test_seek);
  tcase_add_test(tc, test_seek_early);
  tcase_add_test(tc, test_segment_seek);
  tcase_add_test(tc, test_no_seek);
  tcase_add_test(tc, test_downstream);
  tcase_add_test(tc, test_states);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
