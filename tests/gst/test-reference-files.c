/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoradenoise with pictures and videos in files that the prompt names.
 */
#include "common.h"

#define DENOISE "opensoradenoise name=d steps=1 num-frames=9 width=32 height=32 "

static char *
write_png(const char *name, const char *pattern)
{
  g_autofree char *path = temp_path(name);
  g_autofree char *description =
      g_strdup_printf("videotestsrc pattern=%s num-buffers=1 ! video/x-raw,format=RGB,width=100,"
                      "height=50 ! pngenc ! filesink location=%s",
                      pattern, path);
  GstElement *pipeline = gst_parse_launch(description, NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  gst_message_unref(wait_message(bus, GST_MESSAGE_EOS));
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  return g_steal_pointer(&path);
}

/* A file is what the encoder makes of it in a pipeline. */
GST_START_TEST(test_file)
{
  g_autofree char *png = write_png("first.png", "smpte");
  g_autofree char *uri = gst_filename_to_uri(png, NULL);
  g_autoptr(Run) latent = run_ok(1,
                                 "filesrc location=%s ! pngdec ! opensoravaeenc ! capsfilter "
                                 "caps=\"" GST_OPENSORA_LATENT "(" GST_OPENSORA_MEMORY_FEATURE
                                 "),width=32,height=32\" ! appsink name=out",
                                 png);
  g_autoptr(Run) by_path =
      run_ok(1, "opensoratextsrc prompt=x reference=%s ! " DENOISE "! appsink name=out", png);
  g_autoptr(Run) by_uri =
      run_ok(1, "opensoratextsrc prompt=x reference=%s ! " DENOISE "! appsink name=out", uri);

  assert_equals_string(clip_meta(run_buffer(by_path, 0))->condition, "i2v-head");
  fail_unless(same_frame(run_buffer(by_path, 0), 0, run_buffer(latent, 0), 0));
  assert_same_tensors(run_buffer(by_path, 0), run_buffer(by_uri, 0));
}
GST_END_TEST

/* Frames that change. */
static char *
write_video(const char *name, guint n_frames)
{
  g_autofree char *path = temp_path(name);
  g_autofree char *description = g_strdup_printf(
      "videotestsrc pattern=ball num-buffers=%u ! video/x-raw,format=I420,width=128,height=64 ! "
      "avimux ! filesink location=%s",
      n_frames, path);
  GstElement *pipeline = gst_parse_launch(description, NULL);
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  gst_message_unref(wait_message(bus, GST_MESSAGE_EOS));
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
  return g_steal_pointer(&path);
}

static gboolean
has_warning(Run *r)
{
  for (guint i = 0; i < r->messages->len; i++)
    if (GST_MESSAGE_TYPE(g_ptr_array_index(r->messages, i)) == GST_MESSAGE_WARNING)
      return TRUE;
  return FALSE;
}

/* A video goes on, as far as the clip leaves something to make; all of its frames count: the
 * clip is that of the same frames on a pad. */
GST_START_TEST(test_video_file)
{
  static const struct {
    guint in_file, in_clip;
    const char *condition;
    guint latents;
    gboolean warning;
  } cases[] = {
    { 65, 69, "v2v-head-easy", 17, FALSE }, { 65, 65, "v2v-head", 9, FALSE },
    { 40, 69, "v2v-head", 9, FALSE },       { 65, 33, "i2v-head", 1, TRUE },
    { 20, 69, "i2v-head", 1, TRUE },        { 1, 69, "i2v-head", 1, FALSE },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *avi = write_video("clip.avi", cases[i].in_file);
    g_autofree char *csv_text = g_strdup_printf("text,ref\na,%s\n", avi);
    g_autofree char *csv = temp_file("video.csv", csv_text, -1);
    const guint frames = (cases[i].latents - 1) * 4 + 1;
    g_autoptr(Run) pad = run_ok(
        1,
        "videotestsrc pattern=ball num-buffers=%u ! video/x-raw,format=I420,width=128,height=64 ! "
        "videoconvert ! video/x-raw,format=RGB ! opensoravaeenc num-frames=%u ! d.reference_0 "
        "opensoratextsrc prompt=a ! " DENOISE "num-frames=%u condition=%s ! appsink name=out",
        frames, frames, cases[i].in_clip, cases[i].condition);
    g_autoptr(Run) property = run_ok(
        1, "opensoratextsrc prompt=a reference=%s ! " DENOISE "num-frames=%u ! appsink name=out",
        avi, cases[i].in_clip);
    g_autoptr(Run) row =
        run_ok(1, "opensoratextsrc location=%s ! " DENOISE "num-frames=%u ! appsink name=out", csv,
               cases[i].in_clip);
    GstBuffer *clip = run_buffer(property, 0);

    assert_equals_string(clip_meta(clip)->condition, cases[i].condition);
    assert_equals_int(has_warning(property), cases[i].warning);
    assert_same_tensors(clip, run_buffer(pad, 0));
    assert_same_tensors(clip, run_buffer(row, 0));
  }
}
GST_END_TEST

/* Latent of frames @first to @first + @n of the video that write_video() writes. */
static GstBuffer *
encode_frames(Run *video, guint first, guint n, GstCaps **caps)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc num-frames=%u", n);
  GstBuffer *latent;

  gst_harness_set_sink_caps_str(h, GST_OPENSORA_LATENT "(" GST_OPENSORA_MEMORY_FEATURE
                                                       "),width=32,height=32");
  gst_harness_set_src_caps(h,
                           gst_caps_ref(gst_sample_get_caps(g_ptr_array_index(video->samples, 0))));
  for (guint i = first; i < first + n; i++)
    gst_harness_push(h, gst_buffer_ref(run_buffer(video, i)));
  latent = gst_harness_pull(h);
  fail_unless(latent != NULL);
  g_clear_pointer(caps, gst_caps_unref);
  *caps = gst_pad_get_current_caps(h->sinkpad);
  harness_free(h, bus);
  return latent;
}

/* The clip with these references on pads. */
static GstBuffer *
denoise_with(GPtrArray *latents, GstCaps *caps, const char *condition)
{
  GstHarness *refs[2] = { NULL };
  GstCaps *text_caps;
  g_autoptr(GPtrArray) texts = make_conditioning(1, &text_caps);
  GstBuffer *clip;
  GstBus *bus;
  GstHarness *h = harness(&bus, DENOISE "num-frames=73 condition=%s", condition);

  gst_harness_set_src_caps(h, text_caps);
  for (guint i = 0; i < latents->len; i++) {
    refs[i] = gst_harness_new_with_element(h->element, "reference_%u", NULL);
    gst_harness_set_src_caps(refs[i], gst_caps_ref(caps));
    gst_harness_push(refs[i], gst_buffer_ref(g_ptr_array_index(latents, i)));
  }
  gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
  clip = gst_harness_pull(h);
  fail_unless(clip != NULL, "%s", condition);
  for (guint i = 0; i < latents->len; i++)
    gst_harness_teardown(refs[i]);
  harness_free(h, bus);
  return clip;
}

#define VIDEO_FRAMES 70

/* Which frames of a video a condition takes: what begins a clip from its start, what ends one from
 * its end. */
GST_START_TEST(test_conditions)
{
  static const struct {
    const char *condition;
    guint head, tail;
  } cases[] = { { "i2v-head", 1, 0 },      { "i2v-tail", 0, 1 },  { "i2v-loop", 1, 1 },
                { "v2v-head", 33, 0 },     { "v2v-tail", 0, 33 }, { "v2v-head-easy", 65, 0 },
                { "v2v-tail-easy", 0, 65 } };
  g_autofree char *avi = write_video("long.avi", VIDEO_FRAMES);
  g_autoptr(Run) video = run_ok(VIDEO_FRAMES,
                                "videotestsrc pattern=ball num-buffers=%u ! video/x-raw,"
                                "format=I420,width=128,height=64 ! videoconvert ! "
                                "video/x-raw,format=RGB ! appsink name=out",
                                VIDEO_FRAMES);

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GPtrArray) latents =
        g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref);
    g_autoptr(GstCaps) caps = NULL;
    g_autoptr(GstBuffer) expected = NULL;
    g_autoptr(Run) r = run_ok(1,
                              "opensoratextsrc prompt=\"a red circle\" reference=%s ! " DENOISE
                              "num-frames=73 condition=%s ! appsink name=out",
                              avi, cases[i].condition);

    if (cases[i].head)
      g_ptr_array_add(latents, encode_frames(video, 0, cases[i].head, &caps));
    if (cases[i].tail)
      g_ptr_array_add(latents,
                      encode_frames(video, VIDEO_FRAMES - cases[i].tail, cases[i].tail, &caps));
    expected = denoise_with(latents, caps, cases[i].condition);
    assert_equals_string(clip_meta(run_buffer(r, 0))->condition, cases[i].condition);
    fail_unless(same_tensors(run_buffer(r, 0), expected), "%s", cases[i].condition);
  }
}
GST_END_TEST

/* Of two files, the picture that ends a clip is the last. */
GST_START_TEST(test_two_files)
{
  static const struct {
    const char *condition;
    guint same; /* 0, 1: as with this one alone */
  } cases[] = { { "i2v-head", 0 }, { "i2v-tail", 1 } };
  g_autofree char *files[2] = { write_png("one.png", "smpte"), write_png("two.png", "red") };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    const char *format = "opensoratextsrc prompt=x reference=\"%s%s%s\" ! " DENOISE
                         "condition=%s ! appsink name=out";
    g_autoptr(Run) both = run_ok(1, format, files[0], ";", files[1], cases[i].condition);
    g_autoptr(Run) one = run_ok(1, format, files[cases[i].same], "", "", cases[i].condition);

    assert_same_tensors(run_buffer(both, 0), run_buffer(one, 0));
  }
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "names 3 references",
            "opensoratextsrc prompt=x reference=\"%s;%s;%s\" ! " DENOISE "! appsink name=out",
            files[0], files[1], files[0]);
}
GST_END_TEST

GST_START_TEST(test_too_short)
{
  static const struct {
    const char *condition;
    guint needed;
  } cases[] = {
    { "v2v-head", 33 }, { "v2v-tail", 33 }, { "v2v-head-easy", 65 }, { "v2v-tail-easy", 65 }
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *avi = write_video("short.avi", cases[i].needed - 1);
    g_autofree char *message =
        g_strdup_printf("short.avi\" has %u frames, the condition \"%s\" needs %u",
                        cases[i].needed - 1, cases[i].condition, cases[i].needed);

    run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, message,
              "opensoratextsrc prompt=x reference=%s ! " DENOISE
              "num-frames=73 condition=%s ! appsink name=out",
              avi, cases[i].condition);
  }
}
GST_END_TEST

/* Each row of a prompt file has its own, or none. */
GST_START_TEST(test_csv)
{
  g_autofree char *one = write_png("one.png", "smpte");
  g_autofree char *two = write_png("two.png", "red");
  g_autofree char *text =
      g_strdup_printf("text,ref\na,%s\nb,\nc,%s; %s\nd,%s\n", one, one, two, two);
  g_autofree char *csv = temp_file("prompts.csv", text, -1);
  g_autoptr(Run) r = run_ok(4, "opensoratextsrc location=%s ! " DENOISE "! appsink name=out", csv);

  assert_equals_string(clip_meta(run_buffer(r, 0))->condition, "i2v-head");
  assert_equals_string(clip_meta(run_buffer(r, 1))->condition, "t2v");
  assert_equals_string(clip_meta(run_buffer(r, 2))->condition, "i2v-loop");
  assert_equals_string(clip_meta(run_buffer(r, 3))->condition, "i2v-head");
  fail_unless(same_frame(run_buffer(r, 2), 0, run_buffer(r, 0), 0));
  fail_unless(same_frame(run_buffer(r, 2), -1, run_buffer(r, 3), 0));
}
GST_END_TEST

GST_START_TEST(test_bad_files)
{
  g_autofree char *missing = temp_path("missing.png");
  g_autofree char *text = temp_file("text.png", "this is not a picture, whatever its name", -1);
  g_autofree char *empty = temp_file("empty.png", "", 0);
  const char *format = "opensoratextsrc prompt=x reference=%s ! " DENOISE "! appsink name=out";

  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "missing.png", format, missing);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "text.png", format, text);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "empty.png", format, empty);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("reference-files");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_file);
  tcase_add_test(tc, test_video_file);
  tcase_add_test(tc, test_conditions);
  tcase_add_test(tc, test_two_files);
  tcase_add_test(tc, test_too_short);
  tcase_add_test(tc, test_csv);
  tcase_add_test(tc, test_bad_files);
  return suite;
}

int
main(int argc, char **argv)
{
  static const char *const needed[] = { "pngenc", "avimux", "avidemux", "uridecodebin", NULL };

  return common_main_with(argc, argv, make_suite, needed);
}
