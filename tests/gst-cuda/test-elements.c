/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoravaedec and opensorasrc with frames in CUDA memory, beside GStreamer's own elements
 * for that.
 */
#include "fakes.h"

#define FRAMES 5
#define CLIP                                                                                       \
  "videotestsrc num-buffers=5 ! video/x-raw,width=48,height=32,framerate=30/1 ! "                  \
  "opensoravaeenc device=cuda:0 ! opensoravaedec name=dec "
#define CUDA "video/x-raw(memory:CUDAMemory)"

static gboolean
in_cuda(GstSample *sample)
{
  return gst_is_cuda_memory(gst_buffer_peek_memory(gst_sample_get_buffer(sample), 0));
}

/* Frame @i of both has the same pixels. */
static void
assert_same(Run *a, Run *b, guint i)
{
  GstSample *one = g_ptr_array_index(a->samples, i), *two = g_ptr_array_index(b->samples, i);
  GstVideoInfo info, other;
  GstVideoFrame x, y;

  fail_unless(gst_video_info_from_caps(&info, gst_sample_get_caps(one)));
  fail_unless(gst_video_info_from_caps(&other, gst_sample_get_caps(two)));
  assert_equals_int(GST_VIDEO_INFO_FORMAT(&info), GST_VIDEO_INFO_FORMAT(&other));
  fail_unless(gst_video_colorimetry_is_equal(&info.colorimetry, &other.colorimetry));
  fail_unless(gst_video_frame_map(&x, &info, gst_sample_get_buffer(one), GST_MAP_READ));
  fail_unless(gst_video_frame_map(&y, &other, gst_sample_get_buffer(two), GST_MAP_READ));
  for (guint c = 0; c < GST_VIDEO_FRAME_N_COMPONENTS(&x); c++)
    for (gint row = 0; row < GST_VIDEO_FRAME_COMP_HEIGHT(&x, c); row++)
      for (gint at = 0; at < GST_VIDEO_FRAME_COMP_WIDTH(&x, c); at++)
        assert_equals_int(
            GST_VIDEO_FRAME_COMP_DATA(&x, c)[row * GST_VIDEO_FRAME_COMP_STRIDE(&x, c) +
                                             at * GST_VIDEO_FRAME_COMP_PSTRIDE(&x, c)],
            GST_VIDEO_FRAME_COMP_DATA(&y, c)[row * GST_VIDEO_FRAME_COMP_STRIDE(&y, c) +
                                             at * GST_VIDEO_FRAME_COMP_PSTRIDE(&y, c)]);
  gst_video_frame_unmap(&x);
  gst_video_frame_unmap(&y);
}

/* The context that the CUDA memory of @sample is in. */
static gpointer
context_of(GstSample *sample)
{
  GstMemory *memory = gst_buffer_peek_memory(gst_sample_get_buffer(sample), 0);

  return gst_cuda_context_get_handle(GST_CUDA_MEMORY_CAST(memory)->context);
}

static void
assert_frames(Run *cuda, Run *plain)
{
  for (guint i = 0; i < FRAMES; i++)
    assert_same(cuda, plain, i);
}

/* In every format a frame is the same, wherever it is made. */
GST_START_TEST(test_formats)
{
  static const char *const formats[] = { "I420", "NV12", "RGB", "RGBx" };

  for (guint i = 0; i < G_N_ELEMENTS(formats); i++) {
    Run *plain =
        run_ok(FRAMES, CLIP "device=cpu ! video/x-raw,format=%s ! appsink name=out", formats[i]);
    Run *cuda = run_ok(FRAMES,
                       CLIP "device=cuda:0 ! " CUDA ",format=%s ! "
                            "cudadownload ! capsfilter caps=video/x-raw ! appsink name=out",
                       formats[i]);

    for (guint f = 0; f < FRAMES; f++) {
      GstSample *a = g_ptr_array_index(cuda->samples, f), *b = g_ptr_array_index(plain->samples, f);
      GstBuffer *x = gst_sample_get_buffer(a), *y = gst_sample_get_buffer(b);

      assert_equals_uint64(GST_BUFFER_PTS(x), GST_BUFFER_PTS(y));
      assert_equals_uint64(GST_BUFFER_DURATION(x), GST_BUFFER_DURATION(y));
    }
    assert_frames(cuda, plain);
    run_free(plain);
    run_free(cuda);
    assert_released();
  }
}
GST_END_TEST

/* cudadownload starts first, and still both work in the engine's context. */
GST_START_TEST(test_shared_context)
{
  static const char *const devices[] = { "cuda:0", "auto" };

  for (guint i = 0; i < G_N_ELEMENTS(devices); i++) {
    Run *cuda = run_ok(
        FRAMES, CLIP "device=%s ! queue ! cudadownload ! " CUDA " ! appsink name=out", devices[i]);
    gpointer context = context_of(g_ptr_array_index(cuda->samples, 0));
    guint told = 0;

    for (guint m = 0; m < cuda->messages->len; m++) {
      GstMessage *message = g_ptr_array_index(cuda->messages, m);

      if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_HAVE_CONTEXT)
        continue;
      told++;
      assert_equals_string(GST_OBJECT_NAME(GST_MESSAGE_SRC(message)), "dec");
    }
    assert_equals_int(told, 1);
    assert_equals_int(the_driver()->peer_copies, 0);
    assert_equals_int(the_driver()->contexts, 0);
    fail_unless(context != NULL);
    run_free(cuda);
    assert_released();
  }
}
GST_END_TEST

/* The application's context is the one that the frames come in. */
GST_START_TEST(test_application_context)
{
  Run *plain = run_ok(FRAMES, CLIP "device=cpu ! video/x-raw,format=NV12 ! appsink name=out");
  GstElement *pipeline;
  GstCudaContext *context;
  GstContext *set;
  Run *cuda;

  pipeline = gst_parse_launch(CLIP "device=cuda:0 ! " CUDA ",format=NV12 ! appsink name=out", NULL);
  context = gst_cuda_context_new(0);
  set = gst_context_new_cuda_context(context);
  gst_element_set_context(pipeline, set);
  gst_context_unref(set);
  cuda = run_pipeline(pipeline);
  fail_unless(cuda->error == NULL);
  assert_equals_int(cuda->samples->len, FRAMES);
  fail_unless(context_of(g_ptr_array_index(cuda->samples, 0)) ==
              gst_cuda_context_get_handle(context));
  assert_equals_int(the_driver()->peer_copies, 2 * FRAMES);
  gst_object_unref(context);
  assert_frames(cuda, plain);
  run_free(plain);
  run_free(cuda);
  assert_released();
}
GST_END_TEST

/* Frames outlive the pipeline that they come from. */
GST_START_TEST(test_kept_frames)
{
  Run *plain = run_ok(FRAMES, CLIP "device=cpu ! video/x-raw,format=NV12 ! appsink name=out");
  Run *cuda;

  cuda = run_ok(FRAMES, CLIP "device=cuda:0 ! " CUDA ",format=NV12 ! appsink name=out");
  gst_element_set_state(cuda->pipeline, GST_STATE_NULL);
  for (guint i = 0; i < FRAMES; i++)
    fail_unless(in_cuda(g_ptr_array_index(cuda->samples, i)));
  assert_frames(cuda, plain);
  run_free(plain);
  run_free(cuda);
  assert_released();
}
GST_END_TEST

/* Who does not ask for CUDA memory gets none, and nobody opens a context for it. */
GST_START_TEST(test_system_memory)
{
  static const char *const tails[] = {
    "appsink name=out",
    "queue ! appsink name=out",
    "capsfilter caps=video/x-raw,format=NV12 ! appsink name=out",
    "videoconvert ! appsink name=out",
    "videoconvert ! tee ! appsink name=out",
  };

  for (guint i = 0; i < G_N_ELEMENTS(tails); i++) {
    Run *plain = run_ok(FRAMES, CLIP "device=cuda:0 ! %s", tails[i]);

    fail_if(in_cuda(g_ptr_array_index(plain->samples, 0)), "%s", tails[i]);
    run_free(plain);
    assert_released();
  }
}
GST_END_TEST

GST_START_TEST(test_source)
{
  Run *cuda;

  cuda = run_ok(9, "opensorasrc prompt=x num-frames=9 num-samples=1 steps=1 width=32 height=32 ! "
                   "cudadownload ! capsfilter caps=video/x-raw ! appsink name=out");
  run_free(cuda);
  assert_released();
}
GST_END_TEST

/* Short forwards are recorded, unless the user does not want it. */
GST_START_TEST(test_graphs)
{
  FakeCuda *device = the_device();
  guint64 launched = device->n_launched;
  Run *run;

  run = run_ok(1, "opensorasrc device=cuda:0 prompt=x num-frames=1 steps=4 width=32 height=32 "
                  "cuda-graphs=false ! appsink name=out");
  assert_equals_uint64(device->n_launched, launched);
  run_free(run);
  run = run_ok(1, "opensorasrc device=cuda:0 prompt=x num-frames=1 steps=4 width=32 height=32 ! "
                  "appsink name=out");
  fail_unless(device->n_launched > launched);
  run_free(run);
  assert_released();
}
GST_END_TEST

GST_START_TEST(test_cpu_has_none)
{
  run_fails(GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED, "",
            CLIP "device=cpu ! " CUDA " ! appsink name=out");
}
GST_END_TEST

GST_START_TEST(test_no_memory)
{
  the_driver()->fail_alloc = 1;
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT, "48 x 32",
            CLIP "device=cuda:0 ! " CUDA " ! appsink name=out");
  assert_released();
}
GST_END_TEST

/* One pipeline, twice. */
GST_START_TEST(test_restart)
{
  Run *cuda;

  cuda = run_ok(FRAMES, CLIP "device=cuda:0 ! cudadownload ! capsfilter caps=video/x-raw ! "
                             "appsink name=out");
  gst_element_set_state(cuda->pipeline, GST_STATE_READY);
  g_ptr_array_unref(cuda->samples);
  g_ptr_array_unref(cuda->messages);
  g_clear_error(&cuda->error);
  {
    Run *again = run_pipeline(cuda->pipeline);

    fail_unless(again->error == NULL);
    assert_equals_int(again->samples->len, FRAMES);
    assert_equals_int(the_driver()->peer_copies, 0);
    run_free(again);
  }
  g_free(cuda);
  assert_released();
}
GST_END_TEST

static Suite *
elements_suite(void)
{
  Suite *suite = suite_create("cuda-elements");
  TCase *tcase = common_case(suite, "general");

  tcase_add_test(tcase, test_formats);
  tcase_add_test(tcase, test_shared_context);
  tcase_add_test(tcase, test_application_context);
  tcase_add_test(tcase, test_kept_frames);
  tcase_add_test(tcase, test_system_memory);
  tcase_add_test(tcase, test_source);
  tcase_add_test(tcase, test_graphs);
  tcase_add_test(tcase, test_cpu_has_none);
  tcase_add_test(tcase, test_no_memory);
  tcase_add_test(tcase, test_restart);
  return suite;
}

int
main(int argc, char **argv)
{
  static const char *const needed[] = { "cudadownload", NULL };

  gst_init(&argc, &argv);
  load_nvcodec();
  return common_main_with(argc, argv, elements_suite, needed);
}
