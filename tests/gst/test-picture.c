/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A first frame by a model of pictures: the elements with FLUX.1 (a small one with random
 * weights, in FLUX_MODEL), and opensorasrc with image-model-location.
 */
#include <gst/app/gstappsink.h>
#include <string.h>

#include "common.h"

#define CONDITIONING "application/x-opensora-conditioning(memory:OpenSora)"
#define CLIP "steps=2 num-frames=5 width=32 height=32 "
#define OUT " ! appsink name=out"

static const char *
flux(void)
{
  const char *path = g_getenv("FLUX_MODEL");

  fail_unless(path != NULL);
  return path;
}

static void
assert_same_frames(Run *a, Run *b)
{
  assert_equals_int(a->samples->len, b->samples->len);
  for (guint i = 0; i < a->samples->len; i++) {
    GstMapInfo map;

    fail_unless(gst_buffer_map(run_buffer(a, i), &map, GST_MAP_READ));
    assert_equals_uint64(gst_buffer_get_size(run_buffer(b, i)), map.size);
    assert_equals_int(gst_buffer_memcmp(run_buffer(b, i), 0, map.data, map.size), 0);
    gst_buffer_unmap(run_buffer(a, i), &map);
  }
}

/* The prompt as it is goes along where somebody asks for it. */
GST_START_TEST(test_plain_prompt)
{
  g_autoptr(Run) none = run_ok(1, "opensoratextsrc prompt=\"a cat\"" OUT);
  g_autoptr(Run) with =
      run_ok(1, "opensoratextsrc prompt=\"a cat\" ! " CONDITIONING ",plain-prompt=true" OUT);
  g_autoptr(Run) plain = run_ok(1, "opensoratextsrc prompt=\"a cat\" decorate=false" OUT);
  GstBuffer *buffer = run_buffer(with, 0);

  assert_equals_int(gst_buffer_n_memory(run_buffer(none, 0)), 4);
  assert_equals_int(gst_buffer_n_memory(buffer), 6);
  for (guint i = 0; i < 2; i++) {
    g_autoptr(GstBuffer) as_is = gst_buffer_new();
    g_autoptr(GstBuffer) complete = gst_buffer_new();
    g_autoptr(GstBuffer) expected = gst_buffer_new();

    gst_buffer_append_memory(as_is, gst_buffer_get_memory(buffer, 4 + i));
    gst_buffer_append_memory(complete, gst_buffer_get_memory(buffer, i));
    gst_buffer_append_memory(expected, gst_buffer_get_memory(run_buffer(plain, 0), i));
    assert_same_tensors(as_is, expected);
    fail_if(same_tensors(complete, expected));
  }
}
GST_END_TEST

/* A denoiser of pictures makes them from the prompt as it is, in its own size, without guidance
 * by a negative prompt. */
GST_START_TEST(test_denoise)
{
  g_autoptr(Run) complete = run_ok(
      1, "opensoratextsrc prompt=\"a cat\" ! opensoradenoise model-location=image:%s" OUT, flux());
  g_autoptr(Run) plain = run_ok(1,
                                "opensoratextsrc prompt=\"a cat\" decorate=false "
                                "negative-prompt=\"a dog\" ! "
                                "opensoradenoise model-location=%s" OUT,
                                flux());
  g_autoptr(Run) other = run_ok(1,
                                "opensoratextsrc prompt=\"a dog\" ! "
                                "opensoradenoise model-location=%s" OUT,
                                flux());
  const GstStructure *caps = run_caps(complete, 0);
  const OsrTensor *latent = tensor_of(run_buffer(complete, 0), 0);
  gint width, height, frames;

  assert_equals_string(gst_structure_get_string(caps, "family"), "flux");
  fail_unless(gst_structure_get_int(caps, "width", &width));
  fail_unless(gst_structure_get_int(caps, "height", &height));
  fail_unless(gst_structure_get_int(caps, "frames", &frames));
  assert_equals_int(width, 64);
  assert_equals_int(height, 64);
  assert_equals_int(frames, 1);
  assert_equals_int(latent->dims[0], 1);
  assert_equals_int(latent->dims[1], 8);
  assert_equals_int(latent->dims[3], 16);
  assert_equals_int(clip_meta(run_buffer(complete, 0))->steps, 4);
  assert_equals_float(clip_meta(run_buffer(complete, 0))->guidance, 4.0);
  assert_same_tensors(run_buffer(complete, 0), run_buffer(plain, 0));
  fail_if(same_tensors(run_buffer(complete, 0), run_buffer(other, 0)));
}
GST_END_TEST

/* A picture to look at: one frame a prompt. */
GST_START_TEST(test_pictures)
{
  g_autoptr(Run) r =
      run_ok(3,
             "opensoratextsrc prompt=\"a cat\" num-samples=3 ! "
             "opensoradenoise model-location=%s ! opensoravaedec model-location=%s ! "
             "video/x-raw,format=RGB,width=32,height=48" OUT,
             flux(), flux());

  for (guint i = 0; i < 3; i++) {
    assert_equals_uint64(gst_buffer_get_size(run_buffer(r, i)), 32 * 48 * 3);
    assert_equals_uint64(clip_meta(run_buffer(r, i))->seed, 42 + i);
  }
}
GST_END_TEST

/* A reference is for the clip, not for its picture; who insists is told. */
GST_START_TEST(test_no_references)
{
  g_autoptr(Run) r = run_ok(1,
                            "opensoratextsrc prompt=x reference=/no/such/file ! "
                            "opensoradenoise model-location=%s" OUT,
                            flux());

  assert_equals_string(clip_meta(run_buffer(r, 0))->condition, "t2v");
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "needs a reference",
            "opensoratextsrc prompt=x ! opensoradenoise condition=i2v-head model-location=%s" OUT,
            flux());
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "this model makes pictures",
            "opensoratextsrc prompt=x ! opensoradenoise num-frames=5 model-location=%s" OUT,
            flux());
}
GST_END_TEST

/* Latents of one family are nothing to the other's decoder, nor references to its denoiser. */
GST_START_TEST(test_families)
{
  run_fails(GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "take nothing that it makes",
            "opensoratextsrc prompt=x ! opensoradenoise model-location=%s ! opensoravaedec" OUT,
            flux());
  run_fails(GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT, "take nothing that it makes",
            "opensoratextsrc prompt=x ! opensoradenoise ! opensoravaedec model-location=%s" OUT,
            flux());
}
GST_END_TEST

#define ELEMENTS                                                                                   \
  "opensoratextsrc prompt=\"a cat\" num-samples=2 ! tee name=prompt "                              \
  "prompt. ! queue ! opensoradenoise name=picture steps=2 model-location=image:%s ! "              \
  "opensoravaedec model-location=image:%s ! video/x-raw,format=RGB ! opensoravaeenc ! "            \
  "clip.reference_0 prompt. ! queue ! opensoradenoise name=clip " CLIP "! opensoravaedec" OUT

/* The elements one by one, and the bin. */
GST_START_TEST(test_clip)
{
  g_autoptr(Run) elements = run_ok(10, ELEMENTS, flux(), flux());
  g_autoptr(Run) bin = run_ok(
      10, "opensorasrc prompt=\"a cat\" num-samples=2 image-model-location=%s " CLIP OUT, flux());
  g_autoptr(Run) text = run_ok(10, "opensorasrc prompt=\"a cat\" num-samples=2 " CLIP OUT);
  g_autoptr(Run) prefixed =
      run_ok(5, "opensorasrc prompt=\"a cat\" image-model-location=image:%s " CLIP OUT, flux());

  assert_same_frames(elements, bin);
  for (guint i = 0; i < 10; i++) {
    assert_equals_string(clip_meta(run_buffer(bin, i))->condition, "i2v-head");
    assert_equals_string(clip_meta(run_buffer(text, i))->condition, "t2v");
    assert_equals_uint64(clip_meta(run_buffer(bin, i))->seed, 42 + i / 5);
    assert_equals_int(clip_meta(run_buffer(bin, i))->clip, i / 5);
  }
  assert_equals_int(clip_meta(run_buffer(prefixed, 0))->frames, 5);
}
GST_END_TEST

/* The clip begins with the picture: its first latent frame is the picture's. */
GST_START_TEST(test_first_frame)
{
  g_autoptr(Run) picture =
      run_ok(1,
             "opensoratextsrc prompt=\"a cat\" ! opensoradenoise model-location=%s ! "
             "opensoravaedec model-location=%s ! opensoravaeenc ! "
             "application/x-opensora-latent(memory:OpenSora),width=32,height=32" OUT,
             flux(), flux());
  g_autoptr(Run) clip = run_ok(
      1,
      "opensoratextsrc prompt=\"a cat\" ! tee name=prompt prompt. ! queue ! "
      "opensoradenoise model-location=%s ! opensoravaedec model-location=%s ! opensoravaeenc ! "
      "clip.reference_0 prompt. ! queue ! opensoradenoise name=clip " CLIP OUT,
      flux(), flux());

  fail_unless(same_frame(run_buffer(clip, 0), 0, run_buffer(picture, 0), 0));
}
GST_END_TEST

typedef struct {
  const char *settings;
  guint width, height;
} SizeCase;

/* The picture has nearly the clip's shape, at its own model's area. */
GST_START_TEST(test_size)
{
  static const SizeCase cases[] = {
    { "width=32 height=32", 64, 64 },
    { "width=64 height=32", 0, 0 },
    { "width=32 height=64", 0, 0 },
    { "aspect-ratio=9:16 resolution=48px", 0, 0 },
  };
  static const char *const ratios[] = { "1:1", "2:1", "1:2", "9:16" };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    GstElement *pipeline, *picture;
    g_autoptr(GstBus) bus = NULL;
    g_autofree char *line =
        g_strdup_printf("opensorasrc name=s prompt=x steps=1 num-frames=5 image-model-location=%s "
                        "%s ! fakesink",
                        flux(), cases[i].settings);
    guint width, height, want_width, want_height;

    pipeline = gst_parse_launch(line, NULL);
    bus = gst_element_get_bus(pipeline);
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    gst_message_unref(wait_message(bus, GST_MESSAGE_EOS));
    picture = child(child(child(pipeline, "s"), "picture"), "denoise");
    g_object_get(picture, "width", &width, "height", &height, NULL);
    fail_unless(osr_aspect_picture_size("64px", ratios[i], &want_width, &want_height, NULL));
    assert_equals_int(width, want_width);
    assert_equals_int(height, want_height);
    if (cases[i].width)
      assert_equals_int(width, cases[i].width);
    gst_element_set_state(pipeline, GST_STATE_NULL);
    gst_object_unref(pipeline);
  }
}
GST_END_TEST

/* One progress a clip, of which the picture is a part; it only grows. */
GST_START_TEST(test_progress)
{
  g_autoptr(Run) r =
      run_ok(15, "opensorasrc prompt=x num-samples=3 image-model-location=%s " CLIP OUT, flux());
  guint starts = 0, ends = 0, pictures = 0;
  gint last = 0;

  for (guint i = 0; i < r->messages->len; i++) {
    GstMessage *message = g_ptr_array_index(r->messages, i);
    GstProgressType type;
    gint percent;

    if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_PROGRESS)
      continue;
    gst_message_parse_progress(message, &type, NULL, NULL);
    fail_unless(gst_structure_get_int(gst_message_get_structure(message), "percent", &percent));
    pictures += g_str_equal(gst_structure_get_string(gst_message_get_structure(message), "stage"),
                            "picture");
    starts += type == GST_PROGRESS_TYPE_START;
    ends += type == GST_PROGRESS_TYPE_COMPLETE;
    if (type == GST_PROGRESS_TYPE_START)
      last = 0;
    fail_unless(percent >= last && percent <= 100, "%d after %d", percent, last);
    fail_unless(starts - ends <= 1);
    last = percent;
  }
  assert_equals_int(starts, 3);
  assert_equals_int(ends, 3);
  fail_unless(pictures > 0);
}
GST_END_TEST

/* A folder that is none fails the start, and the next start is none the worse for it. */
GST_START_TEST(test_errors)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc name=s prompt=x " CLIP "! appsink name=out", NULL);
  GstElement *source = child(pipeline, "s");
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  g_autoptr(Run) r = NULL;

  g_object_set(source, "image-model-location", "/no/such/folder", NULL);
  assert_equals_int(gst_element_set_state(pipeline, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "/no/such/folder");
  gst_element_set_state(pipeline, GST_STATE_NULL);

  /* The tiny model has no pictures. */
  g_object_set(source, "image-model-location", g_getenv("OPENSORA_MODEL"), NULL);
  assert_equals_int(gst_element_set_state(pipeline, GST_STATE_PLAYING), GST_STATE_CHANGE_FAILURE);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "no model of pictures in it");
  gst_element_set_state(pipeline, GST_STATE_NULL);

  g_object_set(source, "image-model-location", flux(), NULL);
  g_object_set(child(pipeline, "out"), "sync", FALSE, "wait-on-eos", FALSE, NULL);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  gst_message_unref(wait_message(bus, GST_MESSAGE_EOS));
  gst_element_set_state(pipeline, GST_STATE_NULL);
  g_object_set(source, "image-model-location", NULL, NULL);
  r = run_pipeline(pipeline);
  g_assert_no_error(r->error);
  assert_equals_int(r->samples->len, 5);
  assert_equals_string(clip_meta(run_buffer(r, 0))->condition, "t2v");
}
GST_END_TEST

/* Work on a picture is broken off as any: by a state change, by EOS of the application. */
GST_START_TEST(test_interrupt)
{
  GstElement *pipeline = gst_parse_launch("opensorasrc name=s prompt=x num-samples=100 "
                                          "steps=1000 width=128 height=128 ! appsink name=out "
                                          "sync=false wait-on-eos=false",
                                          NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  GstClockTime start;

  g_object_set(child(pipeline, "s"), "image-model-location", flux(), NULL);
  for (guint i = 0; i < 2; i++) {
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    wait_progress(bus, "denoise"); /* of the picture */
    start = gst_util_get_timestamp();
    if (i == 0) {
      gst_element_send_event(pipeline, gst_event_new_eos());
      gst_message_unref(wait_message(bus, GST_MESSAGE_EOS));
    }
    gst_element_set_state(pipeline, GST_STATE_NULL);
    fail_unless(gst_util_get_timestamp() - start < WAIT_TIME);
  }
  gst_object_unref(pipeline);
}
GST_END_TEST

/* A prompt's own length and steps are the clip's, not the picture's; and it can be cancelled while
 * its picture is made. */
GST_START_TEST(test_queue)
{
  GstElement *pipeline = NULL, *source;
  g_autofree char *description =
      g_strdup_printf("opensorasrc name=s is-queue=true image-model-location=%s steps=1000 "
                      "num-frames=5 width=32 height=32" OUT " sync=false",
                      flux());
  g_autoptr(GstStructure) options =
      gst_structure_new("o", "steps", G_TYPE_INT, 2, "num-frames", G_TYPE_INT, 9, NULL);
  g_autoptr(GstBus) bus = NULL;
  gboolean cancelled = FALSE;
  guint64 one = 0, two = 0;

  pipeline = gst_parse_launch(description, NULL);
  bus = gst_element_get_bus(pipeline);
  source = child(pipeline, "s");
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  g_signal_emit_by_name(source, "add-prompt", "a cat", NULL, &one);
  wait_progress(bus, "denoise"); /* of the picture */
  g_signal_emit_by_name(source, "cancel", one, &cancelled);
  fail_unless(cancelled);
  g_object_set(source, "steps", 1u, NULL);
  g_signal_emit_by_name(source, "add-prompt", "a dog", options, &two);
  for (guint i = 0; i < 9; i++) {
    g_autoptr(GstSample) sample =
        gst_app_sink_try_pull_sample(GST_APP_SINK(child(pipeline, "out")), WAIT_TIME);
    const Clip *meta;

    fail_unless(sample != NULL);
    meta = clip_meta(gst_sample_get_buffer(sample));
    assert_equals_uint64(meta->id, two);
    assert_equals_uint64(GST_BUFFER_OFFSET(gst_sample_get_buffer(sample)), i);
    assert_equals_int(meta->steps, 2);
    assert_equals_string(meta->condition, "i2v-head");
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

static Suite *
picture_suite(void)
{
  Suite *suite = suite_create("picture");
  TCase *tc = common_case(suite, "elements");

  tcase_add_test(tc, test_plain_prompt);
  tcase_add_test(tc, test_denoise);
  tcase_add_test(tc, test_pictures);
  tcase_add_test(tc, test_no_references);
  tcase_add_test(tc, test_families);
  tc = common_case(suite, "clip");
  tcase_add_test(tc, test_clip);
  tcase_add_test(tc, test_first_frame);
  tcase_add_test(tc, test_size);
  tcase_add_test(tc, test_progress);
  tcase_add_test(tc, test_errors);
  tcase_add_test(tc, test_interrupt);
  tcase_add_test(tc, test_queue);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, picture_suite);
}
