/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoratextsrc: prompts in, one conditioning buffer a clip out.
 */
#include <math.h>
#include <string.h>

#include "common.h"

#define SRC "opensoratextsrc "
#define OUT " ! appsink name=out"

GST_START_TEST(test_prompt)
{
  g_autoptr(Run) r = run_ok(1, SRC "prompt=\"a red circle\" negative-prompt=stripes" OUT);
  GstBuffer *buffer = run_buffer(r, 0);
  const Clip *meta = clip_meta(buffer);
  const OsrModelDir *dir = common_model_dir();

  assert_equals_string(meta->prompt, "a red circle");
  assert_equals_string(meta->negative_prompt, "stripes");
  assert_equals_string(meta->model, dir->name);
  fail_unless(meta->reference == NULL);
  assert_equals_int(meta->clip, 0);
  assert_equals_uint64(meta->seed, 42);
  assert_equals_int(meta->motion_score, dir->motion_score);
  assert_equals_int(meta->fps_n, dir->fps);
  assert_equals_int(meta->fps_d, 1);
  assert_equals_int(meta->steps, 0);
  assert_equals_uint64(GST_BUFFER_OFFSET(buffer), 0);
  assert_equals_uint64(GST_BUFFER_OFFSET_END(buffer), 1);
}
GST_END_TEST

GST_START_TEST(test_caps)
{
  g_autoptr(Run) r = run_ok(1, SRC "prompt=x" OUT);
  const GstCapsFeatures *features =
      gst_caps_get_features(gst_sample_get_caps(g_ptr_array_index(r->samples, 0)), 0);
  const GstStructure *s = run_caps(r, 0);
  gint fps_n, fps_d;

  fail_unless(gst_structure_has_name(s, GST_OPENSORA_CONDITIONING));
  fail_unless(gst_caps_features_contains(features, GST_OPENSORA_MEMORY_FEATURE));
  assert_equals_string(gst_structure_get_string(s, "family"), common_model_dir()->family);
  fail_unless(gst_structure_get_fraction(s, "framerate", &fps_n, &fps_d));
  assert_equals_int(fps_n, common_model_dir()->fps);
  assert_equals_int(fps_d, 1);
}
GST_END_TEST

/* The four tensors, what can be done with their memory, and what cannot. */
GST_START_TEST(test_memory)
{
  g_autoptr(Run) r = run_ok(1, SRC "prompt=\"a red circle\"" OUT);
  const OsrModelDir *dir = common_model_dir();
  GstBuffer *buffer = run_buffer(r, 0);
  g_autoptr(GstBuffer) shallow = gst_buffer_copy(buffer);
  g_autoptr(GstBuffer) deep = gst_buffer_copy_deep(buffer);
  GstMapInfo map;

  assert_equals_int(gst_buffer_n_memory(buffer), 4);
  for (guint i = 0; i < 4; i++) {
    GstMemory *memory = gst_buffer_peek_memory(buffer, i);
    const OsrTensor *tensor = tensor_of(buffer, i);
    gsize finite = 0;

    if (i % 2 == 0) {
      assert_equals_int(tensor->n_dims, 3);
      assert_equals_int(tensor->dims[0], 1);
      assert_equals_int(tensor->dims[1], dir->t5_max_length);
      assert_equals_int(tensor->dims[2], dir->mmdit.context_in_dim);
    } else {
      assert_equals_int(tensor->n_dims, 2);
      assert_equals_int(tensor->dims[0], 1);
      assert_equals_int(tensor->dims[1], dir->mmdit.vec_in_dim);
    }
    fail_unless(gst_memory_map(memory, &map, GST_MAP_READ));
    assert_equals_uint64(map.size, tensor->size);
    for (gsize k = 0; k < map.size / sizeof(float); k++)
      finite += isfinite(((const float *) map.data)[k]) != 0;
    assert_equals_uint64(finite, map.size / sizeof(float));
    gst_memory_unmap(memory, &map);
    fail_if(gst_memory_map(memory, &map, GST_MAP_WRITE));
    fail_unless(GST_MEMORY_IS_NO_SHARE(memory));
    fail_unless(gst_memory_copy(memory, 4, 4) == NULL);

    fail_unless(tensor_of(shallow, i) == tensor);
    fail_unless(gst_buffer_peek_memory(deep, i) != memory);
    fail_unless(tensor_of(deep, i) == tensor);
  }
  /* Prompt and negative prompt are not the same. */
  fail_unless(tensor_of(buffer, 0)->data != tensor_of(buffer, 2)->data);

  /* The bytes of all of them, for those who know nothing of tensors. */
  gst_buffer_ref(buffer);
  fail_unless(gst_buffer_map(buffer, &map, GST_MAP_READ));
  assert_equals_uint64(map.size, 2 * (tensor_of(deep, 0)->size + tensor_of(deep, 1)->size));
  gst_buffer_unmap(buffer, &map);
  gst_buffer_unref(buffer);
  assert_equals_int(gst_buffer_n_memory(buffer), 4);

  /* What was made from the prompt goes with the copies. */
  assert_equals_string(clip_meta(shallow)->prompt, "a red circle");
  assert_equals_string(clip_meta(deep)->prompt, "a red circle");
  fail_unless(
      gst_custom_meta_get_structure(gst_buffer_get_custom_meta(deep, "GstOpenSoraClipMeta")) !=
      gst_custom_meta_get_structure(gst_buffer_get_custom_meta(buffer, "GstOpenSoraClipMeta")));
}
GST_END_TEST

static void
find_line(GstDebugCategory *category, GstDebugLevel level, const gchar *file, const gchar *function,
          gint line, GObject *object, GstDebugMessage *message, gpointer found)
{
  if (g_str_equal(gst_debug_category_get_name(category), "opensora") && level == GST_LEVEL_DEBUG &&
      strstr(gst_debug_message_get(message), " parameters, "))
    g_atomic_int_inc((gint *) found);
}

/* What the engine has to say is seen with GST_DEBUG=opensora:5. */
GST_START_TEST(test_engine_log)
{
  g_autoptr(Run) r = NULL;
  gint found = 0;

  gst_debug_set_active(TRUE);
  gst_debug_set_threshold_for_name("opensora", GST_LEVEL_DEBUG);
  gst_debug_add_log_function(find_line, &found, NULL);
  r = run_ok(1, SRC "prompt=x" OUT);
  gst_debug_remove_log_function(find_line);
  assert_equals_int(g_atomic_int_get(&found), 2); /* the weights of T5 and CLIP */
}
GST_END_TEST

/* Both branches see the same clip at the same time. */
GST_START_TEST(test_tee)
{
  g_autoptr(Run) r =
      run_ok(2, SRC "prompt=x num-samples=2 ! tee name=t ! queue ! opensoradenoise steps=1 "
                    "num-frames=1 width=32 height=32 ! fakesink async=false "
                    "t. ! queue ! appsink name=out");

  tensor_of(run_buffer(r, 1), 3);
}
GST_END_TEST

static guint64
seed_of(Run *r, guint i)
{
  return clip_meta(run_buffer(r, i))->seed;
}

GST_START_TEST(test_seeds)
{
  g_autoptr(Run) fixed = run_ok(3, SRC "prompt=x seed=7 num-samples=3" OUT);
  g_autoptr(Run) random = run_ok(3, SRC "prompt=x seed=-1 num-samples=3" OUT);
  g_autoptr(Run) last =
      run_ok(2, SRC "prompt=x seed=%" G_GINT64_FORMAT " num-samples=2" OUT, G_MAXINT64);

  for (guint i = 0; i < 3; i++) {
    assert_equals_uint64(seed_of(fixed, i), 7 + i);
    assert_equals_int(clip_meta(run_buffer(fixed, i))->clip, i);
    assert_equals_uint64(GST_BUFFER_OFFSET(run_buffer(fixed, i)), i);
    assert_same_tensors(run_buffer(fixed, 0), run_buffer(fixed, i));
  }
  fail_unless(seed_of(random, 0) != seed_of(random, 1));
  fail_unless(seed_of(random, 1) != seed_of(random, 2));
  fail_unless(seed_of(random, 0) != seed_of(random, 2));
  assert_equals_uint64(seed_of(last, 0), G_MAXINT64);
  assert_equals_uint64(seed_of(last, 1), 0);
}
GST_END_TEST

GST_START_TEST(test_text_file)
{
  g_autofree char *path = temp_file("prompts.txt", "a cat\n\n# no prompt\nein Bär\r\n", -1);
  g_autoptr(Run) r = run_ok(4, SRC "location=%s num-samples=2 reference=r.png" OUT, path);

  for (guint i = 0; i < 4; i++) {
    const Clip *meta = clip_meta(run_buffer(r, i));

    assert_equals_string(meta->prompt, i < 2 ? "a cat" : "ein Bär");
    assert_equals_string(meta->reference, "r.png");
    assert_equals_int(meta->clip, i);
    assert_equals_uint64(meta->seed, 42 + i % 2);
  }
}
GST_END_TEST

GST_START_TEST(test_csv_file)
{
  g_autofree char *path = temp_file(
      "prompts.csv", "id,ref,text,neg\n1,a.png;b.png,\"a cat, \"\"big\"\"\",dogs\n2,,a dog,\n", -1);
  g_autoptr(Run) r = run_ok(2, SRC "location=%s negative-prompt=birds reference=own.png" OUT, path);
  const Clip *meta = clip_meta(run_buffer(r, 0));

  assert_equals_string(meta->prompt, "a cat, \"big\"");
  assert_equals_string(meta->negative_prompt, "dogs");
  assert_equals_string(meta->reference, "a.png;b.png");
  meta = clip_meta(run_buffer(r, 1));
  assert_equals_string(meta->prompt, "a dog");
  assert_equals_string(meta->negative_prompt, "birds");
  assert_equals_string(meta->reference, "own.png");
}
GST_END_TEST

GST_START_TEST(test_num_buffers)
{
  g_autoptr(Run) r = run_ok(3, SRC "prompt=x num-samples=5 num-buffers=3" OUT);

  fail_unless(r->eos);
}
GST_END_TEST

GST_START_TEST(test_bad_settings)
{
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "Neither", SRC OUT);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "Both", SRC "prompt=x location=y" OUT);
}
GST_END_TEST

GST_START_TEST(test_bad_files)
{
  g_autofree char *missing = temp_path("missing.txt");
  g_autofree char *empty = temp_file("empty.txt", "# nothing\n\n", -1);
  g_autofree char *bad_row = temp_file("bad.csv", "text,neg\na,b\nc,\"d\n", -1);
  g_autofree char *no_text = temp_file("no-text.csv", "prompt\na\n", -1);
  g_autofree char *not_utf8 = temp_file("latin1.txt", "good\nB\xe4r\n", -1);

  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, missing, SRC "location=%s" OUT,
            missing);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, empty, SRC "location=%s" OUT, empty);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "row 3", SRC "location=%s" OUT, bad_row);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "text", SRC "location=%s" OUT, no_text);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "UTF-8", SRC "location=%s" OUT, not_utf8);
}
GST_END_TEST

GST_START_TEST(test_not_utf8)
{
  static const char *const names[] = { "prompt", "negative-prompt" };

  for (guint i = 0; i < 2; i++) {
    GstElement *pipeline = gst_parse_launch(SRC "name=s prompt=x" OUT, NULL);
    GstElement *source = child(pipeline, "s");
    g_autoptr(Run) r = NULL;

    g_object_set(source, names[i], "B\xe4r", NULL);
    r = run_pipeline(pipeline);
    fail_unless(g_error_matches(r->error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS));
    fail_unless(strstr(r->error->message, "UTF-8") != NULL);
    fail_unless((strstr(r->error->message, "negative") != NULL) == (i == 1));
    assert_equals_int(r->samples->len, 0);
  }
}
GST_END_TEST

static GstMessage *
find_message(Run *r, GstMessageType type)
{
  for (guint i = 0; i < r->messages->len; i++)
    if (GST_MESSAGE_TYPE(g_ptr_array_index(r->messages, i)) == type)
      return g_ptr_array_index(r->messages, i);
  return NULL;
}

/* What does not fit is cut off, and said. */
GST_START_TEST(test_long_prompt)
{
  g_autoptr(GString) prompt = g_string_new(NULL);
  g_autoptr(GError) warning = NULL;
  g_autoptr(Run) r = NULL;

  for (guint i = 0; i < 2 * common_model_dir()->t5_max_length; i++)
    g_string_append(prompt, "circle ");
  r = run_ok(1, SRC "prompt=\"%s\"" OUT, prompt->str);
  fail_unless(find_message(r, GST_MESSAGE_WARNING) != NULL);
  gst_message_parse_warning(find_message(r, GST_MESSAGE_WARNING), &warning, NULL);
  fail_unless(strstr(warning->message, "too long") != NULL, "%s", warning->message);
  assert_equals_string(clip_meta(run_buffer(r, 0))->prompt, prompt->str);
}
GST_END_TEST

GST_START_TEST(test_no_warning)
{
  g_autoptr(Run) r = run_ok(1, SRC "prompt=\"a red circle\"" OUT);

  fail_unless(find_message(r, GST_MESSAGE_WARNING) == NULL);
}
GST_END_TEST

/* The rate that downstream wants goes into the prompt, unless prompts are left alone. */
GST_START_TEST(test_frame_rate)
{
  const char *format = SRC "prompt=x decorate=%s ! capsfilter caps=\"" GST_OPENSORA_CONDITIONING
                           "(" GST_OPENSORA_MEMORY_FEATURE "),framerate=%s\"" OUT;
  g_autoptr(Run) slow = run_ok(1, format, "true", "8/1");
  g_autoptr(Run) fast = run_ok(1, format, "true", "30000/1001");
  g_autoptr(Run) plain_slow = run_ok(1, format, "false", "8/1");
  g_autoptr(Run) plain_fast = run_ok(1, format, "false", "30000/1001");

  assert_equals_int(clip_meta(run_buffer(slow, 0))->fps_n, 8);
  assert_equals_int(clip_meta(run_buffer(fast, 0))->fps_n, 30000);
  assert_equals_int(clip_meta(run_buffer(fast, 0))->fps_d, 1001);
  fail_if(same_tensors(run_buffer(slow, 0), run_buffer(fast, 0)));
  assert_same_tensors(run_buffer(plain_slow, 0), run_buffer(plain_fast, 0));
  assert_equals_int(clip_meta(run_buffer(plain_slow, 0))->motion_score, 0);
}
GST_END_TEST

GST_START_TEST(test_motion_score)
{
  g_autoptr(Run) little = run_ok(1, SRC "prompt=x motion-score=1" OUT);
  g_autoptr(Run) much = run_ok(1, SRC "prompt=x motion-score=7" OUT);
  g_autoptr(Run) own =
      run_ok(1, SRC "prompt=x motion-score=%u" OUT, common_model_dir()->motion_score);
  g_autoptr(Run) unset = run_ok(1, SRC "prompt=x" OUT);

  assert_equals_int(clip_meta(run_buffer(little, 0))->motion_score, 1);
  fail_if(same_tensors(run_buffer(little, 0), run_buffer(much, 0)));
  assert_same_tensors(run_buffer(own, 0), run_buffer(unset, 0));
}
GST_END_TEST

GST_START_TEST(test_stream)
{
  GstHarness *h = gst_harness_new_parse(SRC "prompt=x num-samples=2");
  const GstEventType expected[] = { GST_EVENT_STREAM_START, GST_EVENT_CAPS, GST_EVENT_SEGMENT };
  gint64 n_clips;
  GstEvent *event;
  GstBuffer *buffer;
  gboolean seekable;
  GstQuery *query;

  gst_harness_play(h);
  buffer = gst_harness_pull(h);
  fail_unless(buffer != NULL);
  gst_buffer_unref(buffer);
  for (guint i = 0; i < G_N_ELEMENTS(expected); i++) {
    event = gst_harness_pull_event(h);
    fail_unless(event != NULL);
    assert_equals_int(GST_EVENT_TYPE(event), expected[i]);
    if (expected[i] == GST_EVENT_SEGMENT) {
      const GstSegment *segment;

      gst_event_parse_segment(event, &segment);
      assert_equals_int(segment->format, GST_FORMAT_TIME);
      assert_equals_uint64(segment->start, 0);
    }
    gst_event_unref(event);
  }

  /* The number of clips is known, a place to seek to there is none. */
  fail_unless(gst_element_query_duration(h->element, GST_FORMAT_BUFFERS, &n_clips));
  assert_equals_int64(n_clips, 2);
  query = gst_query_new_seeking(GST_FORMAT_TIME);
  fail_unless(gst_element_query(h->element, query));
  gst_query_parse_seeking(query, NULL, &seekable, NULL, NULL);
  fail_if(seekable);
  gst_query_unref(query);
  fail_if(gst_element_seek_simple(h->element, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));

  buffer = gst_harness_pull(h);
  fail_unless(buffer != NULL);
  gst_buffer_unref(buffer);
  event = gst_harness_pull_event(h);
  assert_equals_int(GST_EVENT_TYPE(event), GST_EVENT_EOS);
  gst_event_unref(event);
  gst_harness_teardown(h);
}
GST_END_TEST

GST_START_TEST(test_duration)
{
  GstElement *source = gst_object_ref_sink(gst_element_factory_make("opensoratextsrc", NULL));
  g_autofree char *path = temp_file("p.txt", "a\nb\nc\n", -1);
  gint64 n_clips;

  g_object_set(source, "location", path, "num-samples", 4u, NULL);
  fail_if(gst_element_query_duration(source, GST_FORMAT_BUFFERS, &n_clips));
  gst_element_set_state(source, GST_STATE_PAUSED);
  fail_unless(gst_element_query_duration(source, GST_FORMAT_BUFFERS, &n_clips));
  assert_equals_int64(n_clips, 12);
  g_object_set(source, "num-buffers", 5, NULL);
  fail_unless(gst_element_query_duration(source, GST_FORMAT_BUFFERS, &n_clips));
  assert_equals_int64(n_clips, 5);
  gst_element_set_state(source, GST_STATE_NULL);
  fail_if(gst_element_query_duration(source, GST_FORMAT_BUFFERS, &n_clips));
  gst_object_unref(source);
}
GST_END_TEST

/* Progress of a clip is complete before its buffer leaves. */
static GstPadProbeReturn
note_buffer(GstPad *pad, GstPadProbeInfo *info, gpointer element)
{
  gst_element_post_message(element,
                           gst_message_new_application(element, gst_structure_new_empty("buffer")));
  return GST_PAD_PROBE_OK;
}

GST_START_TEST(test_progress)
{
  GstElement *pipeline = gst_parse_launch(SRC "name=s prompt=x num-samples=2" OUT, NULL);
  GstElement *source = child(pipeline, "s");
  g_autoptr(GstPad) pad = gst_element_get_static_pad(source, "src");
  GString *order = g_string_new(NULL);
  g_autoptr(Run) r = NULL;

  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, note_buffer, source, NULL);
  r = run_pipeline(pipeline);
  for (guint i = 0; i < r->messages->len; i++) {
    GstMessage *message = g_ptr_array_index(r->messages, i);
    g_autofree char *code = NULL;
    GstProgressType type;

    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_APPLICATION)
      g_string_append_c(order, 'b');
    if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_PROGRESS)
      continue;
    gst_message_parse_progress(message, &type, &code, NULL);
    assert_equals_string(code, "text");
    g_string_append_c(order, type == GST_PROGRESS_TYPE_START      ? 's'
                             : type == GST_PROGRESS_TYPE_COMPLETE ? 'c'
                                                                  : '?');
  }
  assert_equals_string(order->str, "scbscb");
  g_string_free(order, TRUE);
}
GST_END_TEST

/* A second run begins anew, with what was changed in between. */
GST_START_TEST(test_again)
{
  GstHarness *h = gst_harness_new_parse(SRC "prompt=one num-samples=3");
  GstElement *source = gst_harness_find_element(h, "opensoratextsrc");

  for (guint round = 0; round < 3; round++) {
    const char *const prompts[] = { "one", "two", "three" };
    GstBuffer *buffer;

    g_object_set(source, "prompt", prompts[round], "seed", (gint64) round, NULL);
    gst_harness_play(h);
    buffer = gst_harness_pull(h);
    assert_equals_string(clip_meta(buffer)->prompt, prompts[round]);
    assert_equals_int(clip_meta(buffer)->clip, 0);
    assert_equals_uint64(clip_meta(buffer)->seed, round);
    gst_buffer_unref(buffer);
    gst_element_set_state(h->element, GST_STATE_NULL);
    while ((buffer = gst_harness_try_pull(h)))
      gst_buffer_unref(buffer);
  }
  gst_object_unref(source);
  gst_harness_teardown(h);
}
GST_END_TEST

/* On a CPU, f32 is what there is: TF32 is the same there, and bf16 an error that says so. */
GST_START_TEST(test_dtype)
{
  g_autoptr(Run) r = run_ok(1, SRC "device=cpu prompt=x" OUT);
  g_autoptr(Run) f32 = run_ok(1, SRC "device=cpu prompt=x text-dtype=f32" OUT);
  g_autoptr(Run) tf32 = run_ok(1, SRC "device=cpu prompt=x text-dtype=tf32" OUT);

  assert_same_tensors(run_buffer(r, 0), run_buffer(f32, 0));
  assert_same_tensors(run_buffer(r, 0), run_buffer(tf32, 0));
  run_fails(GST_STREAM_ERROR, GST_STREAM_ERROR_NOT_IMPLEMENTED, "cpu does not compute in BF16",
            SRC "device=cpu prompt=x text-dtype=bf16" OUT);
  run_fails(GST_STREAM_ERROR, GST_STREAM_ERROR_NOT_IMPLEMENTED, "cpu does not compute in BF16",
            "fdsrc ! text/x-raw,format=utf8 ! opensoratextenc device=cpu text-dtype=bf16" OUT);
}
GST_END_TEST

/* A prompt is encoded once, and the empty one that all are guided away from is too. */
GST_START_TEST(test_encoded_once)
{
  g_autofree char *path = temp_file("prompts.txt", "a red circle\na blue square\n", -1);
  g_autoptr(Run) r = run_ok(4, SRC "num-samples=2 location=%s" OUT, path);

  for (guint i = 0; i < 4; i++) {
    const gboolean same_prompt = i < 2;

    for (guint t = 0; t < 2; t++) {
      assert_equals_int(tensor_of(run_buffer(r, i), t) == tensor_of(run_buffer(r, 0), t),
                        same_prompt);
      fail_unless(tensor_of(run_buffer(r, i), 2 + t) == tensor_of(run_buffer(r, 0), 2 + t));
    }
  }
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensoratextsrc");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_prompt);
  tcase_add_test(tc, test_caps);
  tcase_add_test(tc, test_memory);
  tcase_add_test(tc, test_tee);
  tcase_add_test(tc, test_engine_log);
  tcase_add_test(tc, test_seeds);
  tcase_add_test(tc, test_text_file);
  tcase_add_test(tc, test_csv_file);
  tcase_add_test(tc, test_num_buffers);
  tcase_add_test(tc, test_bad_settings);
  tcase_add_test(tc, test_bad_files);
  tcase_add_test(tc, test_not_utf8);
  tcase_add_test(tc, test_long_prompt);
  tcase_add_test(tc, test_no_warning);
  tcase_add_test(tc, test_frame_rate);
  tcase_add_test(tc, test_motion_score);
  tcase_add_test(tc, test_stream);
  tcase_add_test(tc, test_duration);
  tcase_add_test(tc, test_progress);
  tcase_add_test(tc, test_again);
  tcase_add_test(tc, test_dtype);
  tcase_add_test(tc, test_encoded_once);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
