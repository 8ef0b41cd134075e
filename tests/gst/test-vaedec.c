/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoravaedec: a latent in, the frames of its clip out.
 */
#include <gst/video/video.h>
#include <string.h>

#include "common.h"

static GstHarness *
decoder(GstBus **bus, const char *properties, const char *video_caps, const GstCaps *latent_caps)
{
  GstHarness *h = harness(bus, "opensoravaedec %s", properties);

  if (video_caps)
    gst_harness_set_sink_caps_str(h, video_caps);
  gst_harness_set_src_caps(h, gst_caps_copy(latent_caps));
  return h;
}

static GstVideoInfo
output_info(GstHarness *h)
{
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(h->sinkpad);
  GstVideoInfo info;

  fail_unless(caps != NULL && gst_video_info_from_caps(&info, caps));
  return info;
}

static GstBuffer *
pull(GstHarness *h)
{
  GstBuffer *buffer = gst_harness_try_pull(h);

  fail_unless(buffer != NULL);
  return buffer;
}

GST_START_TEST(test_frames)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(48, 32, 5, "30/1", &caps);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", NULL, caps);
  GstVideoInfo info;

  assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
  info = output_info(h);
  assert_equals_int(GST_VIDEO_INFO_FORMAT(&info), GST_VIDEO_FORMAT_I420);
  assert_equals_int(GST_VIDEO_INFO_WIDTH(&info), 48);
  assert_equals_int(GST_VIDEO_INFO_HEIGHT(&info), 32);
  assert_equals_int(GST_VIDEO_INFO_FPS_N(&info), 30);
  assert_equals_int(GST_VIDEO_INFO_FPS_D(&info), 1);
  assert_equals_int(gst_harness_buffers_in_queue(h), 5);
  for (guint i = 0; i < 5; i++) {
    g_autoptr(GstBuffer) frame = pull(h);

    assert_equals_uint64(gst_buffer_get_size(frame), GST_VIDEO_INFO_SIZE(&info));
    assert_equals_uint64(GST_BUFFER_OFFSET(frame), i);
    assert_equals_uint64(GST_BUFFER_OFFSET_END(frame), i + 1);
    fail_if(GST_BUFFER_DTS_IS_VALID(frame));
  }
  harness_free(h, bus);
}
GST_END_TEST

/* Everything that a player or an encoder needs to know is in the caps. */
GST_START_TEST(test_colorimetry)
{
  static const struct {
    const char *wanted, *colorimetry, *chroma_site;
    guint height;
  } cases[] = {
    { "video/x-raw,format=I420", "bt601", "jpeg", 32 },
    { "video/x-raw,format=NV12,colorimetry=bt709", "bt709", "jpeg", 32 },
    { "video/x-raw,format=I420", "bt709", "jpeg", 592 },
    { "video/x-raw,format=RGB", "sRGB", NULL, 32 },
    { "video/x-raw,format=RGBx", "sRGB", NULL, 592 },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GstCaps) caps = NULL;
    g_autoptr(GstBuffer) latent = make_latent(16, cases[i].height, 1, "30/1", &caps);
    GstBus *bus;
    GstHarness *h = decoder(&bus, "", cases[i].wanted, caps);
    g_autoptr(GstCaps) video = NULL;
    const GstStructure *s;
    gint par_n, par_d;

    assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
    video = gst_pad_get_current_caps(h->sinkpad);
    s = gst_caps_get_structure(video, 0);
    assert_equals_string(gst_structure_get_string(s, "colorimetry"), cases[i].colorimetry);
    assert_equals_string(gst_structure_get_string(s, "chroma-site"), cases[i].chroma_site);
    assert_equals_string(gst_structure_get_string(s, "interlace-mode"), "progressive");
    fail_unless(gst_structure_get_fraction(s, "pixel-aspect-ratio", &par_n, &par_d));
    assert_equals_int(par_n, 1);
    assert_equals_int(par_d, 1);
    harness_free(h, bus);
  }
}
GST_END_TEST

/* Formats: one picture in all of them. */

static GstBuffer *
decode_as(GstBuffer *latent, const GstCaps *caps, const char *format, GstVideoInfo *info)
{
  g_autofree char *video = g_strdup_printf("video/x-raw,format=%s", format);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", video, caps);
  GstBuffer *frame;

  assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
  *info = output_info(h);
  frame = pull(h);
  harness_free(h, bus);
  return frame;
}

static const guint8 *
pixel(const GstVideoFrame *frame, guint component, guint x, guint y)
{
  const GstVideoFormatInfo *info = frame->info.finfo;
  const guint8 *data = GST_VIDEO_FRAME_COMP_DATA(frame, component);

  x >>= GST_VIDEO_FORMAT_INFO_W_SUB(info, component);
  y >>= GST_VIDEO_FORMAT_INFO_H_SUB(info, component);
  return data + y * (guint) GST_VIDEO_FRAME_COMP_STRIDE(frame, component) +
         x * (guint) GST_VIDEO_FRAME_COMP_PSTRIDE(frame, component);
}

GST_START_TEST(test_formats)
{
  static const char *const formats[] = { "I420", "NV12", "RGB", "RGBx" };
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(48, 32, 1, "30/1", &caps);
  GstVideoInfo info[4];
  GstVideoFrame frame[4];
  GstBuffer *buffer[4];
  gint darkest = 255, lightest = 0;
  guint wrong = 0;

  for (guint i = 0; i < 4; i++) {
    buffer[i] = decode_as(latent, caps, formats[i], &info[i]);
    fail_unless(gst_video_frame_map(&frame[i], &info[i], buffer[i], GST_MAP_READ));
  }
  for (guint y = 0; y < 32; y++) {
    for (guint x = 0; x < 48; x++) {
      double rgb[3], luma;

      for (guint c = 0; c < 3; c++) {
        wrong += *pixel(&frame[0], c, x, y) != *pixel(&frame[1], c, x, y);
        wrong += *pixel(&frame[2], c, x, y) != *pixel(&frame[3], c, x, y);
        rgb[c] = *pixel(&frame[2], c, x, y) / 255.0;
      }
      luma = 16 + 219 * (0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]);
      wrong += ABS(luma - *pixel(&frame[0], 0, x, y)) >= 1.5;
      darkest = MIN(darkest, *pixel(&frame[2], 0, x, y));
      lightest = MAX(lightest, *pixel(&frame[2], 0, x, y));
    }
  }
  assert_equals_int(wrong, 0);
  /* There is a picture at all. */
  fail_unless(lightest > darkest);
  for (guint i = 0; i < 4; i++) {
    gst_video_frame_unmap(&frame[i]);
    gst_buffer_unref(buffer[i]);
  }
}
GST_END_TEST

/* Times */

static GstBuffer *
nth_clip(GstBuffer *latent, guint64 offset, GstClockTime pts)
{
  GstBuffer *copy = gst_buffer_copy(latent);

  GST_BUFFER_OFFSET(copy) = offset;
  GST_BUFFER_PTS(copy) = pts;
  return copy;
}

/* Clips follow each other without a gap, and roundings do not add up. */
GST_START_TEST(test_times)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(16, 16, 5, "30000/1001", &caps);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", NULL, caps);
  const guint n_clips = 20;

  for (guint i = 0; i < n_clips; i++)
    assert_equals_int(
        gst_harness_push(
            h, nth_clip(latent, 5 * i, gst_util_uint64_scale(5 * i, 1001 * GST_SECOND, 30000))),
        GST_FLOW_OK);
  for (guint64 n = 0; n < 5 * n_clips; n++) {
    g_autoptr(GstBuffer) frame = pull(h);
    const GstClockTime start = gst_util_uint64_scale(n, 1001 * GST_SECOND, 30000);

    assert_equals_uint64(GST_BUFFER_PTS(frame), start);
    assert_equals_uint64(GST_BUFFER_DURATION(frame),
                         gst_util_uint64_scale(n + 1, 1001 * GST_SECOND, 30000) - start);
    assert_equals_uint64(GST_BUFFER_OFFSET(frame), n);
  }
  harness_free(h, bus);
}
GST_END_TEST

/* Latents with a time of their own, or with none. */
GST_START_TEST(test_other_times)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(16, 16, 5, "10/1", &caps);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", NULL, caps);

  gst_harness_push(h, nth_clip(latent, GST_BUFFER_OFFSET_NONE, 7 * GST_SECOND));
  gst_harness_push(h, nth_clip(latent, 20, GST_CLOCK_TIME_NONE));
  for (guint i = 0; i < 10; i++) {
    g_autoptr(GstBuffer) frame = pull(h);

    assert_equals_uint64(GST_BUFFER_PTS(frame), (i < 5 ? 70 + i : 15 + i) * GST_SECOND / 10);
  }
  harness_free(h, bus);
}
GST_END_TEST

/* Only the first frame of a clip follows a discontinuity. */
GST_START_TEST(test_discont)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(16, 16, 5, "30/1", &caps);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", NULL, caps);

  for (guint clip = 0; clip < 3; clip++) {
    GstBuffer *copy = gst_buffer_copy(latent);

    if (clip == 1)
      GST_BUFFER_FLAG_UNSET(copy, GST_BUFFER_FLAG_DISCONT);
    else
      GST_BUFFER_FLAG_SET(copy, GST_BUFFER_FLAG_DISCONT);
    gst_harness_push(h, copy);
    for (guint i = 0; i < 5; i++) {
      g_autoptr(GstBuffer) frame = pull(h);

      assert_equals_int(GST_BUFFER_IS_DISCONT(frame), i == 0 && clip != 1);
    }
  }
  harness_free(h, bus);
}
GST_END_TEST

/* Memory */

/* A pool whose rows are longer than the picture, and whose planes lie apart. */
#define PADDING 40

typedef struct {
  GstBufferPool parent;
  GstVideoInfo info;
  guint n_allocated;
} PaddedPool;
typedef GstBufferPoolClass PaddedPoolClass;

static GType padded_pool_get_type(void);
G_DEFINE_TYPE(PaddedPool, padded_pool, GST_TYPE_BUFFER_POOL)

static const gchar **
padded_pool_get_options(GstBufferPool *pool)
{
  static const gchar *options[] = { GST_BUFFER_POOL_OPTION_VIDEO_META, NULL };

  return options;
}

static gboolean
padded_pool_set_config(GstBufferPool *pool, GstStructure *config)
{
  PaddedPool *self = (PaddedPool *) pool;
  gsize offset = PADDING;
  guint min, max;
  GstCaps *caps;

  gst_buffer_pool_config_get_params(config, &caps, NULL, &min, &max);
  fail_unless(gst_buffer_pool_config_has_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META));
  fail_unless(gst_video_info_from_caps(&self->info, caps));
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(&self->info); p++) {
    self->info.stride[p] += PADDING;
    self->info.offset[p] = offset;
    offset += (gsize) (self->info.stride[p] * GST_VIDEO_INFO_HEIGHT(&self->info) + PADDING);
  }
  self->info.size = offset;
  gst_buffer_pool_config_set_params(config, caps, (guint) offset, min, max);
  return GST_BUFFER_POOL_CLASS(padded_pool_parent_class)->set_config(pool, config);
}

static GstFlowReturn
padded_pool_alloc(GstBufferPool *pool, GstBuffer **buffer, GstBufferPoolAcquireParams *params)
{
  PaddedPool *self = (PaddedPool *) pool;

  *buffer = gst_buffer_new_allocate(NULL, self->info.size, NULL);
  gst_buffer_memset(*buffer, 0, 0xa5, self->info.size);
  gst_buffer_add_video_meta_full(
      *buffer, GST_VIDEO_FRAME_FLAG_NONE, GST_VIDEO_INFO_FORMAT(&self->info),
      (guint) GST_VIDEO_INFO_WIDTH(&self->info), (guint) GST_VIDEO_INFO_HEIGHT(&self->info),
      GST_VIDEO_INFO_N_PLANES(&self->info), self->info.offset, self->info.stride);
  self->n_allocated++;
  return GST_FLOW_OK;
}

static void
padded_pool_class_init(PaddedPoolClass *klass)
{
  klass->get_options = padded_pool_get_options;
  klass->set_config = padded_pool_set_config;
  klass->alloc_buffer = padded_pool_alloc;
}

static void
padded_pool_init(PaddedPool *self)
{
}

/* Answers ALLOCATION as an element with a pool of its own would. */
static GstPadProbeReturn
offer_pool(GstPad *pad, GstPadProbeInfo *info, gpointer pool)
{
  GstQuery *query = GST_PAD_PROBE_INFO_QUERY(info);

  if (GST_QUERY_TYPE(query) != GST_QUERY_ALLOCATION)
    return GST_PAD_PROBE_OK;
  gst_query_add_allocation_pool(query, pool, 1, 2, 0);
  gst_query_add_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL);
  return GST_PAD_PROBE_HANDLED;
}

GST_START_TEST(test_pool)
{
  static const char *const formats[] = { "I420", "NV12", "RGB", "RGBx" };
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(48, 32, 1, "30/1", &caps);

  for (guint i = 0; i < G_N_ELEMENTS(formats); i++) {
    PaddedPool *pool = gst_object_ref_sink(g_object_new(padded_pool_get_type(), NULL));
    g_autofree char *video = g_strdup_printf("video/x-raw,format=%s", formats[i]);
    GstBus *bus;
    GstHarness *h = harness(&bus, "opensoravaedec");
    GstVideoFrame padded, plain;
    GstBuffer *frame, *expected;
    GstVideoInfo info;
    guint wrong = 0;
    guint8 byte;

    gst_harness_set_sink_caps_str(h, video);
    gst_pad_add_probe(h->sinkpad, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM, offer_pool, pool, NULL);
    gst_harness_set_src_caps(h, gst_caps_copy(caps));
    assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
    frame = pull(h);
    fail_unless(frame->pool == GST_BUFFER_POOL(pool));
    assert_equals_int(pool->n_allocated, 2);

    expected = decode_as(latent, caps, formats[i], &info);
    fail_unless(gst_video_frame_map(&padded, &info, frame, GST_MAP_READ));
    fail_unless(gst_video_frame_map(&plain, &info, expected, GST_MAP_READ));
    assert_equals_int(GST_VIDEO_FRAME_PLANE_STRIDE(&padded, 0),
                      GST_VIDEO_FRAME_PLANE_STRIDE(&plain, 0) + PADDING);
    for (guint y = 0; y < 32; y++)
      for (guint x = 0; x < 48; x++)
        for (guint c = 0; c < 3; c++)
          wrong += *pixel(&padded, c, x, y) != *pixel(&plain, c, x, y);
    assert_equals_int(wrong, 0);
    gst_video_frame_unmap(&padded);
    gst_video_frame_unmap(&plain);
    /* Nothing was written between the rows. */
    gst_buffer_extract(frame, pool->info.offset[0] + (gsize) pool->info.stride[0] - 1, &byte, 1);
    assert_equals_int(byte, 0xa5);
    gst_buffer_extract(frame, 0, &byte, 1);
    assert_equals_int(byte, 0xa5);

    gst_buffer_unref(frame);
    gst_buffer_unref(expected);
    harness_free(h, bus);
    gst_object_unref(pool);
  }
}
GST_END_TEST

/* Without a word about video metas, rows are as everybody expects them. */
GST_START_TEST(test_no_video_meta)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(48, 32, 1, "30/1", &caps);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", "video/x-raw,format=RGB", caps);
  GstBuffer *frame;

  gst_harness_push(h, gst_buffer_ref(latent));
  frame = pull(h);
  assert_equals_uint64(gst_buffer_get_size(frame), 48 * 32 * 3);
  fail_unless(frame->pool != NULL);
  gst_buffer_unref(frame);
  harness_free(h, bus);
}
GST_END_TEST

/* Somebody keeps all frames, and keeps them longer than the element lives. */
GST_START_TEST(test_hold)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(16, 16, 33, "30/1", &caps);
  g_autoptr(GPtrArray) held = g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", NULL, caps);
  GstBuffer *frame;

  for (guint i = 0; i < 3; i++)
    assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
  while ((frame = gst_harness_try_pull(h)))
    g_ptr_array_add(held, frame);
  assert_equals_int(held->len, 99);
  harness_free(h, bus);
  for (guint i = 0; i < 33; i++) {
    GstMapInfo a, b;

    fail_unless(gst_buffer_map(g_ptr_array_index(held, i), &a, GST_MAP_READ));
    fail_unless(gst_buffer_map(g_ptr_array_index(held, 66 + i), &b, GST_MAP_READ));
    fail_unless(a.size == b.size && memcmp(a.data, b.data, a.size) == 0);
    gst_buffer_unmap(g_ptr_array_index(held, i), &a);
    gst_buffer_unmap(g_ptr_array_index(held, 66 + i), &b);
  }
}
GST_END_TEST

/* Tags and metas */

GST_START_TEST(test_tags)
{
  GstElement *pipeline =
      gst_parse_launch("opensoratextsrc prompt=\"a red circle\" negative-prompt=stripes "
                       "num-samples=2 ! opensoradenoise steps=2 guidance=2.5 num-frames=5 width=32 "
                       "height=32 ! opensoravaedec name=dec",
                       NULL);
  GstHarness *h = gst_harness_new_with_element(child(pipeline, "dec"), NULL, "src");
  const char *model = common_model_dir()->name;

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  for (guint clip = 0; clip < 2; clip++) {
    g_autofree char *expected = g_strdup_printf(
        "seed=%u model=%s steps=2 guidance=2.5 text-oscillation=on shift=on flow-shift=0 "
        "motion-score=%u negative-prompt=stripes",
        42 + clip, model, common_model_dir()->motion_score);
    g_autofree char *title = NULL;
    g_autofree char *comment = NULL;
    g_autofree char *application = NULL;
    GstTagList *tags = NULL;

    for (guint i = 0; i < 5; i++) {
      g_autoptr(GstBuffer) frame = gst_harness_pull(h);
      const Clip *meta;

      fail_unless(frame != NULL);
      meta = clip_meta(frame);
      assert_equals_string(meta->prompt, "a red circle");
      assert_equals_int(meta->clip, clip);
      assert_equals_uint64(meta->seed, 42 + clip);
      assert_equals_int(meta->frames, 5);
    }
    while (!tags) {
      g_autoptr(GstEvent) event = gst_harness_pull_event(h);

      fail_unless(event != NULL);
      if (GST_EVENT_TYPE(event) == GST_EVENT_TAG)
        gst_event_parse_tag(event, &tags), gst_tag_list_ref(tags);
    }
    fail_unless(gst_tag_list_get_string(tags, GST_TAG_TITLE, &title));
    fail_unless(gst_tag_list_get_string(tags, GST_TAG_COMMENT, &comment));
    fail_unless(gst_tag_list_get_string(tags, GST_TAG_APPLICATION_NAME, &application));
    assert_equals_string(title, "a red circle");
    assert_equals_string(comment, expected);
    fail_unless(g_str_has_prefix(application, "gst-opensora"));
    assert_equals_int(gst_tag_list_get_scope(tags), GST_TAG_SCOPE_STREAM);
    gst_tag_list_unref(tags);
  }
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_harness_teardown(h);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* Tags go before the first frame of their clip. */
static GstPadProbeReturn
note_order(GstPad *pad, GstPadProbeInfo *info, gpointer order)
{
  if (GST_IS_BUFFER(info->data))
    g_string_append_c(order, 'f');
  else if (GST_EVENT_TYPE(info->data) == GST_EVENT_TAG)
    g_string_append_c(order, 't');
  else if (GST_EVENT_TYPE(info->data) == GST_EVENT_EOS)
    g_string_append_c(order, '.');
  return GST_PAD_PROBE_OK;
}

GST_START_TEST(test_order)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc name=s prompt=x num-samples=2 steps=1 num-frames=5 width=32 "
                       "height=32 ! appsink name=out",
                       NULL);
  g_autoptr(GstPad) pad = gst_element_get_static_pad(child(pipeline, "s"), "src");
  g_autoptr(GString) order = g_string_new(NULL);
  Run *r;

  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM,
                    note_order, order, NULL);
  r = run_pipeline(pipeline);
  g_assert_no_error(r->error);
  run_free(r);
  assert_equals_string(order->str, "tffffftfffff.");
}
GST_END_TEST

/* Tiles are made and look like the whole. */
GST_START_TEST(test_tiling)
{
  g_autoptr(GstCaps) caps = NULL;
  const guint size = common_model_dir()->vae.sample_size + 32;
  g_autoptr(GstBuffer) latent = make_latent(size, 32, 1, "30/1", &caps);
  static const char *const tilings[] = { "tiling=0", "tiling=spatial", "tiling=temporal",
                                         "tiling=spatial+temporal" };
  GstBuffer *frames[4];
  GstMapInfo a, b;
  double difference = 0;

  for (guint i = 0; i < 4; i++) {
    GstBus *bus;
    GstHarness *h = decoder(&bus, tilings[i], "video/x-raw,format=RGB", caps);

    assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
    frames[i] = pull(h);
    harness_free(h, bus);
  }
  gst_buffer_map(frames[0], &a, GST_MAP_READ);
  gst_buffer_map(frames[1], &b, GST_MAP_READ);
  assert_equals_uint64(a.size, b.size);
  for (gsize i = 0; i < a.size; i++)
    difference += ABS(a.data[i] - b.data[i]);
  fail_unless(difference > 0);
  fail_unless(difference / (double) a.size < 32, "%f", difference / (double) a.size);
  gst_buffer_unmap(frames[1], &b);
  gst_buffer_map(frames[2], &b, GST_MAP_READ); /* of one frame there are no pieces */
  fail_unless(memcmp(a.data, b.data, a.size) == 0);
  gst_buffer_unmap(frames[2], &b);
  gst_buffer_unmap(frames[0], &a);
  for (guint i = 0; i < 4; i++)
    gst_buffer_unref(frames[i]);
}
GST_END_TEST

/* Bad input */

GST_START_TEST(test_bad_buffers)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(48, 32, 1, "30/1", &caps);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", NULL, caps);

  assert_equals_int(gst_harness_push(h, gst_buffer_new_memdup("x", 1)), GST_FLOW_ERROR);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "no tensor");
  harness_free(h, bus);

  gst_caps_set_simple(caps = gst_caps_make_writable(caps), "width", G_TYPE_INT, 64, NULL);
  h = decoder(&bus, "", NULL, caps);
  assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_ERROR);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "48 x 32");
  harness_free(h, bus);
}
GST_END_TEST

/* A clip that there is not enough memory for is refused when its caps come. What is needed, free
 * and allowed is told, and what helps. */
GST_START_TEST(test_too_large)
{
  static const struct {
    guint size, frames;
    const char *properties, *parts[4];
  } cases[] = {
    { 4096, 4097, "", { "4097 frames of 4096 x 4096 takes", "TiB", "limit none", "tiling" } },
    { 4096,
      4097,
      "tiling=temporal memory-limit=1000000000",
      { "takes 17", "GiB, and", "limit 953", "tiling" } },
    { 256, 129, "memory-limit=100000000", { "GiB", "95.4", "limit 95.4", "tiling" } },
    { 256,
      129,
      "memory-limit=10000000 tiling=spatial+temporal",
      { "takes", "9.5", "limit 9.5", "Only a smaller or shorter clip" } },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autoptr(GstCaps) caps = NULL;
    G_GNUC_UNUSED g_autoptr(GstBuffer) latent = make_latent(16, 16, 1, "30/1", &caps);
    g_autoptr(GstMessage) message = NULL;
    g_autoptr(GError) error = NULL;
    GstBus *bus;
    GstHarness *h;

    caps = gst_caps_make_writable(caps);
    gst_caps_set_simple(caps, "width", G_TYPE_INT, cases[i].size, "height", G_TYPE_INT,
                        cases[i].size, "frames", G_TYPE_INT, cases[i].frames, NULL);
    h = decoder(&bus, cases[i].properties, NULL, caps);
    message = wait_message(bus, GST_MESSAGE_ERROR);
    gst_message_parse_error(message, &error, NULL);
    fail_unless(g_error_matches(error, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT));
    for (guint p = 0; p < G_N_ELEMENTS(cases[i].parts); p++)
      fail_unless(strstr(error->message, cases[i].parts[p]) != NULL, "\"%s\" is not in: %s",
                  cases[i].parts[p], error->message);
    /* Said once, however often the caps come. */
    gst_harness_push_event(h, gst_event_new_caps(caps));
    fail_if(gst_bus_pop_filtered(bus, GST_MESSAGE_ERROR));
    osr_pool_set_limit(osr_device_get_pool(common_device()), 0);
    g_clear_pointer(&message, gst_message_unref); /* holds the element */
    harness_free(h, bus);
  }
}
GST_END_TEST

/* What works is not refused: a limit of just what a decode takes lets it through. */
GST_START_TEST(test_large_enough)
{
  static const char *const tilings[] = { "0", "spatial", "temporal", "spatial+temporal" };
  OsrPool *pool = osr_device_get_pool(common_device());

  for (guint i = 0; i < G_N_ELEMENTS(tilings); i++) {
    g_autofree char *tiling = g_strdup_printf("tiling=%s", tilings[i]);
    g_autofree char *limited = NULL;
    g_autoptr(GstCaps) caps = NULL;
    g_autoptr(GstBuffer) latent =
        make_latent(common_model_dir()->vae.sample_size + 32, 64, 17, "30/1", &caps);
    OsrPoolStats stats;

    for (guint round = 0; round < 2; round++) {
      GstBus *bus;
      GstHarness *h;
      GstBuffer *frame;

      osr_pool_set_limit(pool, 0);
      osr_pool_trim(pool, 0);
      osr_pool_reset_peak(pool);
      h = decoder(&bus, round ? limited : tiling, NULL, caps);
      assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
      assert_equals_int(gst_harness_buffers_in_queue(h), 17);
      while ((frame = gst_harness_try_pull(h)))
        gst_buffer_unref(frame);
      osr_pool_get_stats(pool, &stats);
      if (round == 0)
        limited =
            g_strdup_printf("%s memory-limit=%" G_GUINT64_FORMAT, tiling, stats.peak_allocated);
      harness_free(h, bus);
    }
    osr_pool_set_limit(pool, 0);
  }
}
GST_END_TEST

GST_START_TEST(test_no_caps)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(16, 16, 1, "30/1", &caps);
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoravaedec");
  GstSegment segment;

  gst_harness_play(h);
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_stream_start("x"));
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_NOT_NEGOTIATED);
  harness_free(h, bus);
}
GST_END_TEST

/* Somebody after us changes his mind: from the next clip on he gets what he wants. */
GST_START_TEST(test_renegotiation)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(16, 16, 5, "30/1", &caps);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", "video/x-raw,format=RGB", caps);
  GstVideoInfo info;

  gst_harness_push(h, gst_buffer_ref(latent));
  gst_harness_set_sink_caps_str(h, "video/x-raw,format=NV12");
  gst_harness_push(h, gst_buffer_ref(latent));
  for (guint i = 0; i < 10; i++) {
    g_autoptr(GstBuffer) frame = pull(h);

    assert_equals_uint64(gst_buffer_get_size(frame), i < 5 ? 16 * 16 * 3 : 16 * 16 * 3 / 2);
  }
  info = output_info(h);
  assert_equals_int(GST_VIDEO_INFO_FORMAT(&info), GST_VIDEO_FORMAT_NV12);
  harness_free(h, bus);
}
GST_END_TEST

GST_START_TEST(test_progress)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GstBuffer) latent = make_latent(32, 32, 5, "30/1", &caps);
  GstBus *bus;
  GstHarness *h = decoder(&bus, "", NULL, caps);
  GstMessage *message;
  gint last = -1, percent;
  guint starts = 0, completes = 0;

  gst_harness_push(h, gst_buffer_ref(latent));
  while ((message = gst_bus_pop_filtered(bus, GST_MESSAGE_PROGRESS))) {
    g_autofree char *code = NULL;
    GstProgressType type;

    gst_message_parse_progress(message, &type, &code, NULL);
    assert_equals_string(code, "decode");
    fail_unless(gst_structure_get_int(gst_message_get_structure(message), "percent", &percent));
    fail_unless(percent >= last && percent <= 100);
    last = percent;
    starts += type == GST_PROGRESS_TYPE_START;
    completes += type == GST_PROGRESS_TYPE_COMPLETE;
    gst_message_unref(message);
  }
  assert_equals_int(starts, 1);
  assert_equals_int(completes, 1);
  assert_equals_int(last, 100);
  harness_free(h, bus);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensoravaedec");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_frames);
  tcase_add_test(tc, test_colorimetry);
  tcase_add_test(tc, test_formats);
  tcase_add_test(tc, test_times);
  tcase_add_test(tc, test_other_times);
  tcase_add_test(tc, test_discont);
  tcase_add_test(tc, test_pool);
  tcase_add_test(tc, test_no_video_meta);
  tcase_add_test(tc, test_hold);
  tcase_add_test(tc, test_tags);
  tcase_add_test(tc, test_order);
  tcase_add_test(tc, test_tiling);
  tcase_add_test(tc, test_bad_buffers);
  tcase_add_test(tc, test_too_large);
  tcase_add_test(tc, test_large_enough);
  tcase_add_test(tc, test_no_caps);
  tcase_add_test(tc, test_renegotiation);
  tcase_add_test(tc, test_progress);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
