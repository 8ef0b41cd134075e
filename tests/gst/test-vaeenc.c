/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoravaeenc: pictures and video in, latents out.
 */
#include <gst/video/video.h>
#include <math.h>
#include <string.h>

#include "common.h"

#define LATENT GST_OPENSORA_LATENT "(" GST_OPENSORA_MEMORY_FEATURE ")"
#define OUT " ! appsink name=out"

static void
assert_latent(Run *r, guint i, gint frames, gint width, gint height)
{
  const OsrTensor *latent = tensor_of(run_buffer(r, i), 0);
  const GstStructure *s = run_caps(r, i);
  gint value;

  assert_equals_int(latent->n_dims, 4);
  assert_equals_int(latent->dims[0], (frames - 1) / 4 + 1);
  assert_equals_int(latent->dims[1], height / 8);
  assert_equals_int(latent->dims[2], width / 8);
  assert_equals_int(latent->dims[3], common_model_dir()->vae.latent_channels);
  fail_unless(gst_structure_get_int(s, "frames", &value) && value == frames);
  fail_unless(gst_structure_get_int(s, "width", &value) && value == width);
  fail_unless(gst_structure_get_int(s, "height", &value) && value == height);
}

GST_START_TEST(test_picture)
{
  g_autoptr(Run) r =
      run_ok(1, "videotestsrc num-buffers=1 ! video/x-raw,width=64,height=48 ! opensoravaeenc" OUT);

  assert_latent(r, 0, 1, 64, 48);
  assert_equals_int(gst_buffer_n_memory(run_buffer(r, 0)), 1);
  assert_equals_string(gst_structure_get_string(run_caps(r, 0), "family"),
                       common_model_dir()->family);
}
GST_END_TEST

/* Sizes that cannot be become the nearest that can, unless downstream has a wish. */
GST_START_TEST(test_sizes)
{
  g_autoptr(Run) near =
      run_ok(1, "videotestsrc num-buffers=1 ! video/x-raw,width=67,height=45 ! opensoravaeenc" OUT);
  g_autoptr(Run) wish =
      run_ok(1, "videotestsrc num-buffers=1 ! video/x-raw,width=67,height=45 ! opensoravaeenc ! "
                "capsfilter caps=\"" LATENT ",width=32,height=96\"" OUT);
  g_autoptr(Run) tiny =
      run_ok(1, "videotestsrc num-buffers=1 ! video/x-raw,width=3,height=1 ! opensoravaeenc" OUT);

  assert_latent(near, 0, 1, 64, 48);
  assert_latent(wish, 0, 1, 32, 96);
  assert_latent(tiny, 0, 1, 16, 16);
}
GST_END_TEST

static double
difference(GstBuffer *a, GstBuffer *b)
{
  const OsrTensor *x = tensor_of(a, 0), *y = tensor_of(b, 0);
  double square = 0, power = 0;

  assert_equals_uint64(x->size, y->size);
  for (gsize i = 0; i < x->size / sizeof(float); i++) {
    const double u = ((const float *) x->data)[i], v = ((const float *) y->data)[i];

    square += (u - v) * (u - v);
    power += u * u;
  }
  return sqrt(square / power);
}

/* The same grey picture in every format that the caps promise: YUV of 8 bits rounds it. */
#define SOLID                                                                                      \
  "videotestsrc pattern=solid-color foreground-color=0xff%s num-buffers=1 ! "                      \
  "video/x-raw,format=RGB,width=32,height=32 ! "

GST_START_TEST(test_formats)
{
  GstElementFactory *factory = gst_element_factory_find("opensoravaeenc");
  const GList *templates = gst_element_factory_get_static_pad_templates(factory);
  g_autoptr(Run) grey = run_ok(1, SOLID "opensoravaeenc" OUT, "808080");
  g_autoptr(Run) lighter = run_ok(1, SOLID "opensoravaeenc" OUT, "8c8c8c");
  const double limit = difference(run_buffer(grey, 0), run_buffer(lighter, 0)) / 3;
  const GValue *formats = NULL;

  for (const GList *l = templates; l; l = l->next) {
    GstStaticPadTemplate *templ = l->data;
    GstCaps *caps;

    if (templ->direction != GST_PAD_SINK)
      continue;
    caps = gst_static_pad_template_get_caps(templ);
    formats = gst_structure_get_value(gst_caps_get_structure(caps, 0), "format");
    gst_caps_unref(caps); /* the template has it */
  }
  fail_unless(formats != NULL && gst_value_list_get_size(formats) > 50);
  for (guint i = 0; i < gst_value_list_get_size(formats); i++) {
    const char *name = g_value_get_string(gst_value_list_get_value(formats, i));
    const GstVideoFormatInfo *info = gst_video_format_get_info(gst_video_format_from_string(name));
    g_autoptr(Run) r = NULL;

    /* videotestsrc has no palettes, and no picture is the same in five bits. */
    if (GST_VIDEO_FORMAT_INFO_HAS_PALETTE(info) || GST_VIDEO_FORMAT_INFO_DEPTH(info, 0) < 8)
      continue;
    r = run_ok(1, SOLID "videoconvert ! video/x-raw,format=%s ! opensoravaeenc" OUT, "808080",
               name);
    fail_unless(difference(run_buffer(grey, 0), run_buffer(r, 0)) < limit, "%s: %f, not below %f",
                name, difference(run_buffer(grey, 0), run_buffer(r, 0)), limit);
  }
  gst_object_unref(factory);
}
GST_END_TEST

/* 96 x 32, with a pattern in the middle 40 columns. */
static GstBuffer *
wide_picture(guint8 side)
{
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, 96 * 32, NULL);
  GstMapInfo map;

  gst_buffer_map(buffer, &map, GST_MAP_WRITE);
  for (guint y = 0; y < 32; y++)
    for (guint x = 0; x < 96; x++)
      map.data[y * 96 + x] = x < 28 || x >= 68 ? side : (guint8) (x * 5 + y);
  gst_buffer_unmap(buffer, &map);
  return buffer;
}

/* What is not shown at once is read all the same. */
GST_START_TEST(test_interlaced)
{
  static const char *const modes[] = { "interleaved", "mixed", "progressive" };
  GstBuffer *latents[3];

  for (guint i = 0; i < G_N_ELEMENTS(modes); i++) {
    g_autofree char *caps =
        g_strdup_printf("video/x-raw,format=GRAY8,width=96,height=32,framerate=1/1,interlace-mode="
                        "%s",
                        modes[i]);
    GstBus *bus;
    GstHarness *h = harness(&bus, "opensoravaeenc");

    gst_harness_set_src_caps_str(h, caps);
    assert_equals_int(gst_harness_push(h, wide_picture(9)), GST_FLOW_OK);
    latents[i] = gst_harness_try_pull(h);
    harness_free(h, bus);
  }
  for (guint i = 0; i < G_N_ELEMENTS(modes); i++) {
    assert_same_tensors(latents[i], latents[2]);
    if (i < 2)
      gst_buffer_unref(latents[i]);
  }
  gst_buffer_unref(latents[2]);
}
GST_END_TEST

/* The picture is cropped at the centre, not squeezed: what is at the sides is not seen. */
GST_START_TEST(test_crop)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc");
  GstBuffer *latents[2];

  gst_harness_set_sink_caps_str(h, LATENT ",width=32,height=32");
  gst_harness_set_src_caps_str(h, "video/x-raw,format=GRAY8,width=96,height=32,framerate=1/1");
  for (guint i = 0; i < 2; i++) {
    assert_equals_int(gst_harness_push(h, wide_picture(i ? 255 : 0)), GST_FLOW_OK);
    latents[i] = gst_harness_try_pull(h);
    fail_unless(latents[i] != NULL);
  }
  assert_same_tensors(latents[0], latents[1]);
  gst_buffer_unref(latents[0]);
  gst_buffer_unref(latents[1]);
  harness_free(h, bus);
}
GST_END_TEST

/* Pixels that are not square are made so: of narrow ones less is cut off. */
GST_START_TEST(test_aspect)
{
  static const char *const ratios[] = { "1/1", "1/2", "2/1" };
  GstBuffer *latents[3][2];

  for (guint i = 0; i < G_N_ELEMENTS(ratios); i++) {
    g_autofree char *caps = g_strdup_printf(
        "video/x-raw,format=GRAY8,width=96,height=32,framerate=1/1,pixel-aspect-ratio=%s",
        ratios[i]);
    GstBus *bus;
    GstHarness *h = harness(&bus, "opensoravaeenc");

    gst_harness_set_sink_caps_str(h, LATENT ",width=32,height=32");
    gst_harness_set_src_caps_str(h, caps);
    for (guint side = 0; side < 2; side++) {
      assert_equals_int(gst_harness_push(h, wide_picture(side ? 255 : 0)), GST_FLOW_OK);
      latents[i][side] = gst_harness_try_pull(h);
    }
    harness_free(h, bus);
  }
  assert_equals_int(same_tensors(latents[0][0], latents[0][1]), TRUE);
  assert_equals_int(same_tensors(latents[1][0], latents[1][1]), FALSE);
  assert_equals_int(same_tensors(latents[2][0], latents[2][1]), TRUE);
  assert_equals_int(same_tensors(latents[0][0], latents[2][0]), FALSE);
  for (guint i = 0; i < 6; i++)
    gst_buffer_unref(latents[i / 2][i % 2]);
}
GST_END_TEST

/* Rows longer than the picture, as a video meta says. */
GST_START_TEST(test_strides)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc");
  gsize offset[GST_VIDEO_MAX_PLANES] = { 17 };
  gint stride[GST_VIDEO_MAX_PLANES] = { 120 };
  GstBuffer *padded = gst_buffer_new_allocate(NULL, 17 + 120 * 32, NULL);
  g_autoptr(GstBuffer) plain = wide_picture(9);
  GstBuffer *a, *b;
  GstMapInfo map;

  gst_buffer_memset(padded, 0, 0x77, 17 + 120 * 32);
  gst_buffer_map(plain, &map, GST_MAP_READ);
  for (guint y = 0; y < 32; y++)
    gst_buffer_fill(padded, 17 + 120 * y, map.data + 96 * y, 96);
  gst_buffer_unmap(plain, &map);
  gst_buffer_add_video_meta_full(padded, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_FORMAT_GRAY8, 96, 32,
                                 1, offset, stride);

  gst_harness_set_src_caps_str(h, "video/x-raw,format=GRAY8,width=96,height=32,framerate=1/1");
  gst_harness_push(h, padded);
  gst_harness_push(h, gst_buffer_ref(plain));
  a = gst_harness_try_pull(h);
  b = gst_harness_try_pull(h);
  assert_same_tensors(a, b);
  fail_unless(gst_buffer_get_video_meta(a) == NULL);
  gst_buffer_unref(a);
  gst_buffer_unref(b);
  harness_free(h, bus);
}
GST_END_TEST

/* Upstream hears of the video meta, and nothing of what comes after us. */
GST_START_TEST(test_allocation)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc");
  g_autoptr(GstCaps) caps =
      gst_caps_from_string("video/x-raw,format=GRAY8,width=96,height=32,framerate=1/1");
  GstQuery *query = gst_query_new_allocation(caps, TRUE);

  gst_harness_set_src_caps(h, gst_caps_ref(caps));
  fail_unless(gst_pad_peer_query(h->srcpad, query));
  fail_unless(gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL));
  assert_equals_int(gst_query_get_n_allocation_pools(query), 0);
  gst_query_unref(query);
  harness_free(h, bus);
}
GST_END_TEST

/* Clips */

GST_START_TEST(test_clips)
{
  g_autoptr(Run) r = run_ok(2, "videotestsrc num-buffers=7 ! video/x-raw,width=32,height=32,"
                               "framerate=10/1 ! opensoravaeenc num-frames=5" OUT);

  assert_latent(r, 0, 5, 32, 32);
  assert_latent(r, 1, 1, 32, 32); /* a frame was too many */
  assert_equals_uint64(GST_BUFFER_PTS(run_buffer(r, 0)), 0);
  assert_equals_uint64(GST_BUFFER_DURATION(run_buffer(r, 0)), GST_SECOND / 2);
  assert_equals_uint64(GST_BUFFER_OFFSET(run_buffer(r, 0)), 0);
  assert_equals_uint64(GST_BUFFER_PTS(run_buffer(r, 1)), GST_SECOND / 2);
  assert_equals_uint64(GST_BUFFER_DURATION(run_buffer(r, 1)), GST_SECOND / 10);
  assert_equals_uint64(GST_BUFFER_OFFSET(run_buffer(r, 1)), 5);
  assert_equals_uint64(GST_BUFFER_OFFSET_END(run_buffer(r, 1)), 6);
}
GST_END_TEST

GST_START_TEST(test_whole_clips)
{
  g_autoptr(Run) r = run_ok(2, "videotestsrc num-buffers=10 ! video/x-raw,width=32,height=32 ! "
                               "opensoravaeenc num-frames=5" OUT);

  assert_latent(r, 0, 5, 32, 32);
  assert_latent(r, 1, 5, 32, 32);
}
GST_END_TEST

GST_START_TEST(test_num_frames)
{
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "num-frames is 6",
            "videotestsrc num-buffers=1 ! opensoravaeenc num-frames=6" OUT);
}
GST_END_TEST

#define GRAY "video/x-raw,format=GRAY8,framerate=10/1,"

static void
push_gray(GstHarness *h, guint size, guint n)
{
  for (guint i = 0; i < n; i++) {
    GstBuffer *buffer = gst_buffer_new_allocate(NULL, size * size, NULL);

    gst_buffer_memset(buffer, 0, (guint8) (40 * i), size * size);
    assert_equals_int(gst_harness_push(h, buffer), GST_FLOW_OK);
  }
}

/* Frames of one kind make a clip; what is left of them is not lost. */
GST_START_TEST(test_new_caps)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc num-frames=9");
  GstBuffer *latent;

  gst_harness_set_src_caps_str(h, GRAY "width=16,height=16");
  push_gray(h, 16, 6);
  gst_harness_set_src_caps_str(h, GRAY "width=32,height=32");
  assert_equals_int(gst_harness_buffers_in_queue(h), 1);
  latent = gst_harness_try_pull(h);
  assert_equals_int(tensor_of(latent, 0)->dims[0], 2);
  assert_equals_int(tensor_of(latent, 0)->dims[1], 2);
  gst_buffer_unref(latent);
  push_gray(h, 32, 9);
  latent = gst_harness_try_pull(h);
  assert_equals_int(tensor_of(latent, 0)->dims[0], 3);
  assert_equals_int(tensor_of(latent, 0)->dims[1], 4);
  gst_buffer_unref(latent);
  harness_free(h, bus);
}
GST_END_TEST

GST_START_TEST(test_new_segment)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc num-frames=5");
  GstSegment segment;

  gst_harness_set_src_caps_str(h, GRAY "width=16,height=16");
  push_gray(h, 16, 2);
  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = GST_SECOND;
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  assert_equals_int(gst_harness_buffers_in_queue(h), 1);
  push_gray(h, 16, 4);
  assert_equals_int(gst_harness_buffers_in_queue(h), 1);
  push_gray(h, 16, 1);
  assert_equals_int(gst_harness_buffers_in_queue(h), 2);
  harness_free(h, bus);
}
GST_END_TEST

/* A flush drops what was collected. */
GST_START_TEST(test_flush)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc num-frames=5");
  GstSegment segment;

  gst_harness_set_src_caps_str(h, GRAY "width=16,height=16");
  push_gray(h, 16, 4);
  gst_harness_push_event(h, gst_event_new_flush_start());
  gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  push_gray(h, 16, 4);
  assert_equals_int(gst_harness_buffers_received(h), 0);
  push_gray(h, 16, 1);
  assert_equals_int(gst_harness_buffers_received(h), 1);
  harness_free(h, bus);
}
GST_END_TEST

/* Stopping in the middle of a clip, and beginning anew. */
GST_START_TEST(test_again)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc num-frames=5");
  GstBuffer *latent;

  for (guint round = 0; round < 3; round++) {
    gst_harness_set_src_caps_str(h, GRAY "width=16,height=16");
    push_gray(h, 16, 8);
    latent = gst_harness_try_pull(h);
    fail_unless(latent != NULL);
    assert_equals_uint64(GST_BUFFER_OFFSET(latent), 0);
    gst_buffer_unref(latent);
    fail_unless(gst_harness_try_pull(h) == NULL);
    gst_element_set_state(h->element, GST_STATE_NULL);
    gst_element_set_state(h->element, GST_STATE_PLAYING);
    gst_pad_push_event(h->srcpad, gst_event_new_flush_stop(TRUE));
    gst_harness_push_event(h, gst_event_new_stream_start("again"));
  }
  harness_free(h, bus);
}
GST_END_TEST

GST_START_TEST(test_no_caps)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc");
  GstSegment segment;

  gst_harness_play(h);
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_stream_start("x"));
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  assert_equals_int(gst_harness_push(h, gst_buffer_new_allocate(NULL, 256, NULL)),
                    GST_FLOW_NOT_NEGOTIATED);
  harness_free(h, bus);
}
GST_END_TEST

/* A buffer that is too small for its caps is an error, not a crash. */
GST_START_TEST(test_short_buffer)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaeenc");

  gst_harness_set_src_caps_str(h, GRAY "width=16,height=16");
  assert_equals_int(gst_harness_push(h, gst_buffer_new_allocate(NULL, 100, NULL)), GST_FLOW_ERROR);
  wait_error(bus, GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED, "video buffer");
  harness_free(h, bus);
}
GST_END_TEST

/* Sampling */

GST_START_TEST(test_sample)
{
  const char *format = "videotestsrc num-buffers=1 ! video/x-raw,width=32,height=32 ! "
                       "opensoravaeenc %s" OUT;
  g_autoptr(Run) mean = run_ok(1, format, "");
  g_autoptr(Run) one = run_ok(1, format, "sample=true seed=1");
  g_autoptr(Run) same = run_ok(1, format, "sample=true seed=1");
  g_autoptr(Run) other = run_ok(1, format, "sample=true seed=2");

  assert_same_tensors(run_buffer(one, 0), run_buffer(same, 0));
  fail_if(same_tensors(run_buffer(one, 0), run_buffer(other, 0)));
  fail_if(same_tensors(run_buffer(one, 0), run_buffer(mean, 0)));
}
GST_END_TEST

/* There and back: sizes, rates and times survive. */
GST_START_TEST(test_round_trip)
{
  g_autoptr(Run) r =
      run_ok(10, "videotestsrc num-buffers=10 timestamp-offset=3000000000 ! "
                 "video/x-raw,width=48,height=32,framerate=10/1 ! opensoravaeenc num-frames=5 ! "
                 "opensoravaedec" OUT);

  for (guint i = 0; i < 10; i++) {
    gint fps_n, fps_d, width;

    fail_unless(gst_structure_get_fraction(run_caps(r, i), "framerate", &fps_n, &fps_d));
    fail_unless(gst_structure_get_int(run_caps(r, i), "width", &width));
    assert_equals_int(fps_n, 10);
    assert_equals_int(fps_d, 1);
    assert_equals_int(width, 48);
    assert_equals_uint64(GST_BUFFER_PTS(run_buffer(r, i)), 3 * GST_SECOND + i * GST_SECOND / 10);
  }
}
GST_END_TEST

/* A picture has no rate: it gets the model's, or what downstream wants. */
GST_START_TEST(test_picture_rate)
{
  const char *format = "videotestsrc num-buffers=1 ! video/x-raw,width=32,height=32,framerate=0/1 "
                       "! opensoravaeenc ! opensoravaedec ! %s" OUT;
  g_autoptr(Run) any = run_ok(1, format, "video/x-raw");
  g_autoptr(Run) wish = run_ok(1, format, "video/x-raw,framerate=25/1");
  gint fps_n, fps_d;

  fail_unless(gst_structure_get_fraction(run_caps(any, 0), "framerate", &fps_n, &fps_d));
  assert_equals_int(fps_n, common_model_dir()->fps);
  fail_unless(gst_structure_get_fraction(run_caps(wish, 0), "framerate", &fps_n, &fps_d));
  assert_equals_int(fps_n, 25);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensoravaeenc");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_picture);
  tcase_add_test(tc, test_sizes);
  tcase_add_test(tc, test_formats);
  tcase_add_test(tc, test_interlaced);
  tcase_add_test(tc, test_crop);
  tcase_add_test(tc, test_aspect);
  tcase_add_test(tc, test_strides);
  tcase_add_test(tc, test_allocation);
  tcase_add_test(tc, test_clips);
  tcase_add_test(tc, test_whole_clips);
  tcase_add_test(tc, test_num_frames);
  tcase_add_test(tc, test_new_caps);
  tcase_add_test(tc, test_new_segment);
  tcase_add_test(tc, test_flush);
  tcase_add_test(tc, test_again);
  tcase_add_test(tc, test_no_caps);
  tcase_add_test(tc, test_short_buffer);
  tcase_add_test(tc, test_sample);
  tcase_add_test(tc, test_round_trip);
  tcase_add_test(tc, test_picture_rate);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
