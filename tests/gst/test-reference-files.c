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
