/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The module for frames in CUDA memory by itself: contexts, pools, frames.
 */
#include "fakes.h"

typedef struct {
  const GstOpenSoraCudaTable *table;
  GstElement *element; /* with a pad on each side */
  GstOpenSoraCuda *cuda;
} Glue;

static Glue
glue_open(OsrDevice *device)
{
  Glue glue = { .table = module_table() };
  GError *error = NULL;

  fail_unless(glue.table->load(&error), "%s", error ? error->message : NULL);
  glue.element = gst_object_ref_sink(gst_element_factory_make("identity", NULL));
  glue.cuda = glue.table->open(glue.element, device, &error);
  g_assert_no_error(error);
  return glue;
}

static void
glue_close(Glue *glue)
{
  glue->table->close(glue->cuda);
  gst_object_unref(glue->element);
  assert_released();
}

/* --- contexts --- */

static GstCudaContext *
context_in(GstContext *context)
{
  GstCudaContext *found = NULL;

  gst_structure_get(gst_context_get_structure(context), GST_CUDA_CONTEXT_TYPE,
                    GST_TYPE_CUDA_CONTEXT, &found, NULL);
  fail_unless(found != NULL);
  return found;
}

/* What the glue answers. */
static GstCudaContext *
ask(Glue *glue)
{
  GstQuery *query = gst_query_new_context(GST_CUDA_CONTEXT_TYPE);
  GstCudaContext *found;
  GstContext *context;

  fail_unless(glue->table->context_query(glue->cuda, query));
  gst_query_parse_context(query, &context);
  found = context_in(context);
  gst_query_unref(query);
  return found;
}

static CUcontext
primary_of(CUdevice gpu)
{
  CUresult (*retain)(CUcontext *, CUdevice) = symbol_of("libcuda.so.1", "cuDevicePrimaryCtxRetain");
  CUresult (*release)(CUdevice) = symbol_of("libcuda.so.1", "cuDevicePrimaryCtxRelease_v2");
  CUcontext context;

  retain(&context, gpu);
  release(gpu);
  return context;
}

static guint
device_id(GstCudaContext *context)
{
  guint id;

  g_object_get(context, "cuda-device-id", &id, NULL);
  return id;
}

/* Whoever asks gets the engine's context, and the application hears of it, once. */
GST_START_TEST(test_own_context)
{
  static const char *const names[] = { "cuda:0", "cuda:1" };

  for (guint gpu = 0; gpu < G_N_ELEMENTS(names); gpu++) {
    g_autoptr(OsrDevice) device = osr_device_get(names[gpu], NULL);
    Glue glue = glue_open(device);
    g_autoptr(GstBus) bus = gst_bus_new();
    GstQuery *other = gst_query_new_context("gst.gl.GLDisplay");
    GstCudaContext *a, *b, *posted;
    GstContext *context;
    GstMessage *message;

    gst_element_set_bus(glue.element, bus);
    a = ask(&glue);
    b = ask(&glue);
    fail_unless(a == b);
    fail_unless(gst_cuda_context_get_handle(a) == primary_of((CUdevice) gpu));
    assert_equals_int(device_id(a), gpu);
    message = gst_bus_pop(bus);
    assert_equals_int(GST_MESSAGE_TYPE(message), GST_MESSAGE_HAVE_CONTEXT);
    gst_message_parse_have_context(message, &context);
    posted = context_in(context);
    fail_unless(posted == a);
    gst_object_unref(posted);
    gst_context_unref(context);
    gst_message_unref(message);
    fail_if(gst_bus_have_pending(bus));
    fail_if(glue.table->context_query(glue.cuda, other));
    gst_query_unref(other);

    gst_object_unref(a);
    gst_object_unref(b);
    gst_element_set_bus(glue.element, NULL);
    glue_close(&glue);
  }
}
GST_END_TEST

GST_START_TEST(test_not_a_gpu)
{
  const GstOpenSoraCudaTable *table = module_table();
  g_autoptr(OsrDevice) device = osr_device_get("cpu", NULL);
  GError *error = NULL;

  fail_unless(table->load(&error));
  fail_unless(table->open(NULL, device, &error) == NULL);
  g_assert_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED);
  g_clear_error(&error);
}
GST_END_TEST

/* An allocation query as base classes make it, for @format of 48 x 32. */
static GstQuery *
allocation(const char *format)
{
  GstCaps *caps =
      gst_caps_new_simple("video/x-raw", "format", G_TYPE_STRING, format, "width", G_TYPE_INT, 48,
                          "height", G_TYPE_INT, 32, "framerate", GST_TYPE_FRACTION, 30, 1, NULL);
  GstQuery *query;

  gst_caps_set_features(caps, 0, gst_caps_features_new(GST_CAPS_FEATURE_MEMORY_CUDA_MEMORY, NULL));
  query = gst_query_new_allocation(caps, TRUE);
  gst_caps_unref(caps);
  return query;
}

/* The pool that the glue decides for. */
static GstBufferPool *
decide(Glue *glue, GstQuery *query, guint *size)
{
  GstBufferPool *pool;
  GError *error = NULL;

  fail_unless(glue->table->decide_allocation(glue->cuda, query, &error), "%s",
              error ? error->message : NULL);
  assert_equals_int(gst_query_get_n_allocation_pools(query), 1);
  gst_query_parse_nth_allocation_pool(query, 0, &pool, size, NULL, NULL);
  fail_unless(GST_IS_CUDA_BUFFER_POOL(pool));
  return pool;
}

/* Neighbours that have a context. */

static gboolean
answer(GstPad *pad, GstObject *parent, GstQuery *query)
{
  GstCudaContext *context = g_object_get_data(G_OBJECT(pad), "context");
  GstContext *answered;

  if (GST_QUERY_TYPE(query) != GST_QUERY_CONTEXT)
    return gst_pad_query_default(pad, parent, query);
  answered = gst_context_new_cuda_context(context);
  gst_query_set_context(query, answered);
  gst_context_unref(answered);
  return TRUE;
}

static GstPad *
add_neighbour(GstElement *element, const char *name, GstCudaContext *context)
{
  g_autoptr(GstPad) pad = gst_element_get_static_pad(element, name);
  const gboolean down = GST_PAD_IS_SRC(pad);
  GstPad *peer = gst_object_ref_sink(gst_pad_new(NULL, down ? GST_PAD_SINK : GST_PAD_SRC));

  gst_pad_set_query_function(peer, answer);
  g_object_set_data(G_OBJECT(peer), "context", context);
  fail_unless(GST_PAD_LINK_SUCCESSFUL(down ? gst_pad_link(pad, peer) : gst_pad_link(peer, pad)));
  return peer;
}

static void
remove_neighbour(GstPad *peer)
{
  g_autoptr(GstPad) pad = gst_pad_get_peer(peer);

  if (GST_PAD_IS_SRC(peer))
    gst_pad_unlink(peer, pad);
  else
    gst_pad_unlink(pad, peer);
  gst_object_unref(peer);
}

/* The context that the glue settles on when it has to. */
static CUcontext
settled(Glue *glue)
{
  GstQuery *query = allocation("NV12");
  GstBufferPool *pool = decide(glue, query, NULL);
  GstCudaContext *context = ask(glue);
  CUcontext handle = gst_cuda_context_get_handle(context);

  fail_unless(GST_CUDA_BUFFER_POOL(pool)->context == context);
  gst_object_unref(context);
  gst_object_unref(pool);
  gst_query_unref(query);
  return handle;
}

GST_START_TEST(test_neighbours)
{
  static const char *const sides[] = { "src", "sink" };

  for (guint i = 0; i < G_N_ELEMENTS(sides); i++) {
    Glue glue = glue_open(common_device());
    GstCudaContext *theirs = gst_cuda_context_new(0);
    GstPad *neighbour = add_neighbour(glue.element, sides[i], theirs);

    fail_unless(settled(&glue) == gst_cuda_context_get_handle(theirs), "%s", sides[i]);
    remove_neighbour(neighbour);
    gst_object_unref(theirs);
    glue_close(&glue);
  }
}
GST_END_TEST

/* A context of another GPU is of no use; one that nobody asked about yet is. */
GST_START_TEST(test_other_gpu)
{
  Glue glue = glue_open(common_device());
  GstCudaContext *theirs = gst_cuda_context_new(1);
  GstPad *neighbour = add_neighbour(glue.element, "src", theirs);

  fail_unless(settled(&glue) == primary_of(0));
  remove_neighbour(neighbour);
  gst_object_unref(theirs);
  glue_close(&glue);
}
GST_END_TEST

static GstBusSyncReply
on_message(GstBus *bus, GstMessage *message, gpointer context)
{
  const char *type;

  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_NEED_CONTEXT &&
      gst_message_parse_context_type(message, &type) && g_str_equal(type, GST_CUDA_CONTEXT_TYPE))
    gst_element_set_context(GST_ELEMENT(GST_MESSAGE_SRC(message)), context);
  gst_message_unref(message);
  return GST_BUS_DROP;
}

/* The application's context: given when it is asked for, or set before. */
GST_START_TEST(test_application)
{
  for (guint before = 0; before < 2; before++) {
    Glue glue = glue_open(common_device());
    g_autoptr(GstBus) bus = gst_bus_new();
    GstCudaContext *theirs = gst_cuda_context_new(0);
    GstContext *context = gst_context_new_cuda_context(theirs);

    gst_bus_set_sync_handler(bus, on_message, context, NULL);
    gst_element_set_bus(glue.element, bus);
    if (before) {
      GstCudaContext *answered;

      gst_element_set_context(glue.element, context);
      answered = ask(&glue);
      fail_unless(answered == theirs);
      gst_object_unref(answered);
    }
    fail_unless(settled(&glue) == gst_cuda_context_get_handle(theirs));

    gst_element_set_bus(glue.element, NULL);
    gst_bus_set_sync_handler(bus, NULL, NULL, NULL);
    gst_context_unref(context);
    gst_object_unref(theirs);
    glue_close(&glue);
  }
}
GST_END_TEST

/* --- pools --- */

GST_START_TEST(test_own_pool)
{
  static const char *const formats[] = { "I420", "NV12", "RGB", "RGBx" };

  for (guint i = 0; i < G_N_ELEMENTS(formats); i++) {
    Glue glue = glue_open(common_device());
    GstQuery *query = allocation(formats[i]);
    GstBuffer *buffer;
    GstBufferPool *pool;
    guint size;

    pool = decide(&glue, query, &size);
    gst_buffer_pool_set_active(pool, TRUE);
    assert_equals_int(gst_buffer_pool_acquire_buffer(pool, &buffer, NULL), GST_FLOW_OK);
    /* The driver's rows are longer than the format's. */
    fail_unless(size > 48 * 32 * 4 || i == 3);
    assert_equals_uint64(gst_buffer_get_size(buffer), size);
    fail_unless(gst_buffer_get_video_meta(buffer) != NULL);
    gst_buffer_unref(buffer);
    gst_buffer_pool_set_active(pool, FALSE);
    gst_object_unref(pool);
    gst_query_unref(query);
    glue_close(&glue);
  }
}
GST_END_TEST

/* Downstream's pool if it is one of this context. */
GST_START_TEST(test_their_pools)
{
  Glue glue = glue_open(common_device());
  GstCudaContext *ours = ask(&glue), *foreign = gst_cuda_context_new(0);
  GstBufferPool *pools[] = {
    gst_cuda_buffer_pool_new(ours),
    gst_cuda_buffer_pool_new(foreign),
    gst_video_buffer_pool_new(),
  };

  for (guint i = 0; i < G_N_ELEMENTS(pools); i++) {
    GstQuery *query = allocation("NV12");
    GstBufferPool *pool;
    guint size, min, max;

    gst_query_add_allocation_pool(query, pools[i], 48 * 32 * 3 / 2, 2, 3);
    pool = decide(&glue, query, &size);
    fail_unless((pool == pools[i]) == (i == 0));
    assert_equals_int(size, 512 * 64);
    gst_object_unref(pool);
    gst_query_parse_nth_allocation_pool(query, 0, NULL, NULL, &min, &max);
    assert_equals_int(min, 2);
    assert_equals_int(max, i == 0 ? 3 : 0);
    gst_query_unref(query);
    gst_object_unref(pools[i]);
  }
  gst_object_unref(foreign);
  gst_object_unref(ours);
  glue_close(&glue);
}
GST_END_TEST

GST_START_TEST(test_no_memory)
{
  Glue glue = glue_open(common_device());
  GstQuery *query = allocation("NV12");
  GError *error = NULL;

  the_driver()->fail_alloc = 1;
  fail_if(glue.table->decide_allocation(glue.cuda, query, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_MEMORY);
  fail_unless(strstr(error->message, "48 x 32") != NULL, "%s", error->message);
  g_clear_error(&error);
  gst_query_unref(query);
  glue_close(&glue);
}
GST_END_TEST

/* --- frames --- */

static OsrPixelFormat
pixel_format(GstVideoFormat format)
{
  switch (format) {
  case GST_VIDEO_FORMAT_I420:
    return OSR_PIXEL_I420;
  case GST_VIDEO_FORMAT_NV12:
    return OSR_PIXEL_NV12;
  case GST_VIDEO_FORMAT_RGB:
    return OSR_PIXEL_RGB;
  default:
    return OSR_PIXEL_RGBX;
  }
}

static OsrPicture
picture_of(const GstVideoFrame *frame)
{
  OsrPicture picture = {
    .format = pixel_format(GST_VIDEO_FRAME_FORMAT(frame)),
    .width = (guint) GST_VIDEO_FRAME_WIDTH(frame),
    .height = (guint) GST_VIDEO_FRAME_HEIGHT(frame),
  };

  for (guint p = 0; p < GST_VIDEO_FRAME_N_PLANES(frame); p++) {
    picture.planes[p] = GST_VIDEO_FRAME_PLANE_DATA(frame, p);
    picture.strides[p] = GST_VIDEO_FRAME_PLANE_STRIDE(frame, p);
  }
  return picture;
}

/* Two frames of noise. */
static OsrTensor *
make_video(void)
{
  const gint64 dims[] = { 2, 32, 48, 3 };
  g_autofree float *pixels = g_new(float, 2 * 32 * 48 * 3);
  GError *error = NULL;
  OsrTensor *video;
  GRand *rand = g_rand_new_with_seed(1);

  for (guint i = 0; i < 2 * 32 * 48 * 3; i++)
    pixels[i] = (float) g_rand_double_range(rand, -1.0, 1.0);
  g_rand_free(rand);
  video = osr_tensor_new_from_host(common_device(), OSR_DTYPE_F32, 4, dims, pixels, &error);
  g_assert_no_error(error);
  return video;
}

/* The same pixels in both, whatever their strides. */
static void
assert_same_pixels(const GstVideoInfo *info, GstBuffer *a, GstBuffer *b)
{
  GstVideoFrame x, y;

  fail_unless(gst_video_frame_map(&x, info, a, GST_MAP_READ));
  fail_unless(gst_video_frame_map(&y, info, b, GST_MAP_READ));
  for (guint c = 0; c < GST_VIDEO_FRAME_N_COMPONENTS(&x); c++)
    for (gint row = 0; row < GST_VIDEO_FRAME_COMP_HEIGHT(&x, c); row++)
      for (gint i = 0; i < GST_VIDEO_FRAME_COMP_WIDTH(&x, c); i++)
        assert_equals_int(
            GST_VIDEO_FRAME_COMP_DATA(&x, c)[row * GST_VIDEO_FRAME_COMP_STRIDE(&x, c) +
                                             i * GST_VIDEO_FRAME_COMP_PSTRIDE(&x, c)],
            GST_VIDEO_FRAME_COMP_DATA(&y, c)[row * GST_VIDEO_FRAME_COMP_STRIDE(&y, c) +
                                             i * GST_VIDEO_FRAME_COMP_PSTRIDE(&y, c)]);
  gst_video_frame_unmap(&x);
  gst_video_frame_unmap(&y);
}

/* Frame @i of @video through the glue. */
static gboolean
write_frame(Glue *glue, OsrTensor *video, guint i, const GstVideoInfo *info, GstBuffer *buffer,
            GError **error)
{
  GstVideoFrame frame;
  OsrPicture picture;

  if (!glue->table->map(glue->cuda, info, buffer, &frame, error))
    return FALSE;
  picture = picture_of(&frame);
  fail_unless(osr_video_get_device_picture(video, i, &picture, NULL));
  return glue->table->unmap(glue->cuda, &frame, error);
}

static void
check_frames(Glue *glue, const char *format)
{
  g_autoptr(OsrTensor) video = make_video();
  GstQuery *query = allocation(format);
  GstBufferPool *pool = decide(glue, query, NULL);
  GError *error = NULL;
  GstVideoInfo info;
  GstCaps *caps;

  gst_query_parse_allocation(query, &caps, NULL);
  fail_unless(gst_video_info_from_caps(&info, caps));
  gst_buffer_pool_set_active(pool, TRUE);
  for (guint i = 0; i < 2; i++) {
    GstBuffer *expected = gst_buffer_new_allocate(NULL, info.size, NULL), *buffer;
    OsrPicture picture;
    GstVideoFrame frame;

    fail_unless(gst_video_frame_map(&frame, &info, expected, GST_MAP_WRITE));
    picture = picture_of(&frame);
    fail_unless(osr_video_get_picture(video, i, &picture, NULL));
    gst_video_frame_unmap(&frame);

    assert_equals_int(gst_buffer_pool_acquire_buffer(pool, &buffer, NULL), GST_FLOW_OK);
    fail_unless(write_frame(glue, video, i, &info, buffer, &error), "%s",
                error ? error->message : NULL);
    assert_same_pixels(&info, buffer, expected);
    /* Written again, after a map by the CPU: the second has to download again. */
    fail_unless(write_frame(glue, video, 1 - i, &info, buffer, NULL));
    fail_unless(write_frame(glue, video, i, &info, buffer, NULL));
    assert_same_pixels(&info, buffer, expected);
    gst_buffer_unref(buffer);
    gst_buffer_unref(expected);
  }
  gst_buffer_pool_set_active(pool, FALSE);
  gst_object_unref(pool);
  gst_query_unref(query);
}

/* In the engine's context nothing is copied, in another one all is. */
GST_START_TEST(test_frames)
{
  static const char *const formats[] = { "I420", "NV12", "RGB", "RGBx" };
  static const int planes[] = { 3, 2, 1, 1 };

  for (guint i = 0; i < G_N_ELEMENTS(formats); i++) {
    Glue glue = glue_open(common_device());
    GstCudaContext *theirs;
    GstPad *neighbour;

    check_frames(&glue, formats[i]);
    assert_equals_int(the_driver()->peer_copies, 0);
    glue_close(&glue);

    glue = glue_open(common_device());
    theirs = gst_cuda_context_new(0);
    neighbour = add_neighbour(glue.element, "src", theirs);
    check_frames(&glue, formats[i]);
    assert_equals_int(the_driver()->peer_copies, 2 * 3 * planes[i]);
    the_driver()->peer_copies = 0;
    remove_neighbour(neighbour);
    gst_object_unref(theirs);
    glue_close(&glue);
  }
}
GST_END_TEST

typedef enum { NOT_CUDA, PEER_COPY, DEVICE_LOST } Failure;

/* Each leaves the frame unmapped and nothing behind. */
GST_START_TEST(test_failures)
{
  const Failure failure = (Failure) __i__;
  g_autoptr(OsrTensor) video = make_video();
  Glue glue = glue_open(common_device());
  GstCudaContext *theirs = gst_cuda_context_new(0);
  GstPad *neighbour = add_neighbour(glue.element, "src", theirs);
  GstQuery *query = allocation("NV12");
  GstBufferPool *pool = decide(&glue, query, NULL);
  FakeCuda *device = the_device();
  GError *error = NULL;
  GstVideoInfo info;
  GstBuffer *buffer;
  GstCaps *caps;

  gst_query_parse_allocation(query, &caps, NULL);
  fail_unless(gst_video_info_from_caps(&info, caps));
  gst_buffer_pool_set_active(pool, TRUE);
  assert_equals_int(gst_buffer_pool_acquire_buffer(pool, &buffer, NULL), GST_FLOW_OK);
  switch (failure) {
  case NOT_CUDA:
    gst_buffer_unref(buffer);
    buffer = gst_buffer_new_allocate(NULL, info.size, NULL);
    break;
  case PEER_COPY:
    the_driver()->fail_peer_copy = 1;
    break;
  case DEVICE_LOST:
    fail_unless(osr_device_synchronize(common_device(), NULL));
    device->fail_at = device->n_run + 1;
    break;
  }
  fail_if(write_frame(&glue, video, 0, &info, buffer, &error));
  fail_unless(error != NULL && error->domain == OSR_ERROR);
  assert_equals_int(error->code, failure == NOT_CUDA ? OSR_ERROR_FAILED : OSR_ERROR_DEVICE);
  g_clear_error(&error);

  gst_buffer_unref(buffer);
  gst_buffer_pool_set_active(pool, FALSE);
  gst_object_unref(pool);
  gst_query_unref(query);
  remove_neighbour(neighbour);
  gst_object_unref(theirs);
  glue_close(&glue);
}
GST_END_TEST

static Suite *
glue_suite(void)
{
  Suite *suite = suite_create("cuda-glue");
  TCase *tcase = common_case(suite, "general");

  tcase_add_test(tcase, test_own_context);
  tcase_add_test(tcase, test_not_a_gpu);
  tcase_add_test(tcase, test_neighbours);
  tcase_add_test(tcase, test_other_gpu);
  tcase_add_test(tcase, test_application);
  tcase_add_test(tcase, test_own_pool);
  tcase_add_test(tcase, test_their_pools);
  tcase_add_test(tcase, test_no_memory);
  tcase_add_test(tcase, test_frames);
  tcase_add_loop_test(tcase, test_failures, NOT_CUDA, DEVICE_LOST + 1);
  return suite;
}

int
main(int argc, char **argv)
{
  gst_init(&argc, &argv);
  gst_cuda_load_library();
  gst_cuda_memory_init_once();
  return common_main(argc, argv, glue_suite);
}
