/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoradenoise extend=N: clips that go on from their own last frames.
 */
#include <gst/app/gstappsink.h>
#include <string.h>

#include "common.h"

#define SMALL "steps=1 width=32 height=32 "
#define OUT " ! appsink name=out"
/* Nine latent frames are the most that go on from a picture, ten the least that go on from video.
 */
#define SHORT 9
#define LONG 37

static guint
meta_uint(GstBuffer *buffer, const char *field)
{
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, "GstOpenSoraClipMeta");
  guint value = 0;

  fail_unless(meta != NULL);
  gst_structure_get_uint(gst_custom_meta_get_structure(meta), field, &value);
  return value;
}

/* The first @n latents of one prompt that @extend is set for. */
static GPtrArray *
make_latents(guint n, gint extend, guint frames, const char *properties, GstCaps **caps)
{
  g_autoptr(Run) r = run_ok(n,
                            "opensoratextsrc prompt=\"a red circle\" ! opensoradenoise " SMALL
                            "extend=%d num-frames=%u %s" OUT,
                            extend, frames, properties);
  GPtrArray *latents = g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref);

  for (guint i = 0; i < n; i++)
    g_ptr_array_add(latents, gst_buffer_ref(run_buffer(r, i)));
  if (caps)
    *caps = gst_caps_ref(gst_sample_get_caps(g_ptr_array_index(r->samples, 0)));
  return latents;
}

/* One stream: every frame once, times without gaps, the same clip number. */
GST_START_TEST(test_stream)
{
  static const struct {
    guint frames, added;
    const char *condition;
  } cases[] = { { 5, 4, "i2v-head" }, { 37, 4, "v2v-head" } };

  for (guint c = 0; c < G_N_ELEMENTS(cases); c++) {
    const guint total = cases[c].frames + 2 * cases[c].added;
    g_autoptr(Run) r = run_ok(2 * total,
                              "opensorasrc prompt=x num-samples=2 extend=2 " SMALL
                              "num-frames=%u ! video/x-raw,framerate=30000/1001" OUT,
                              cases[c].frames);

    for (guint i = 0; i < 2 * total; i++) {
      GstBuffer *frame = run_buffer(r, i);
      const guint nth = i % total;
      const guint extension =
          nth < cases[c].frames ? 0 : (nth - cases[c].frames) / cases[c].added + 1;
      const GstClockTime start = gst_util_uint64_scale(i, 1001 * GST_SECOND, 30000);
      const GstClockTime end = gst_util_uint64_scale(i + 1, 1001 * GST_SECOND, 30000);

      assert_equals_uint64(GST_BUFFER_OFFSET(frame), i);
      assert_equals_uint64(GST_BUFFER_PTS(frame), start);
      assert_equals_uint64(GST_BUFFER_DURATION(frame), end - start);
      fail_if(i > 0 && GST_BUFFER_FLAG_IS_SET(frame, GST_BUFFER_FLAG_DISCONT), "frame %u", i);
      assert_equals_int(clip_meta(frame)->clip, i / total);
      assert_equals_int(meta_uint(frame, "extension"), extension);
      assert_equals_string(clip_meta(frame)->condition, extension ? cases[c].condition : "t2v");
    }
  }
}
GST_END_TEST

/* [T, H, W, 3] of a latent, as one decode of all of it gives it. */
static OsrTensor *
decode(OsrModel *model, OsrTensor *latent)
{
  OsrVae *vae = osr_model_get_vae_decoder(model, NULL, NULL);
  OsrTensor *video = osr_vae_decode(vae, latent, OSR_VAE_TILING_OFF, NULL, NULL, NULL, NULL);

  fail_unless(video != NULL);
  return video;
}

static OsrTensor *
frames_of(OsrTensor *video, gint64 first, gint64 n)
{
  return osr_tensor_view(video, first * video->dims[1] * video->dims[2] * 3, 4,
                         (gint64[]){ n, video->dims[1], video->dims[2], 3 });
}

/* Each extension is what the sampler makes of the frames that its clip ended with, with noise of
 * its own. */
static void
check_latents(OsrModel *model, GstBuffer *text, GPtrArray *latents, guint frames, guint lead_in,
              OsrCondition condition)
{
  OsrMmdit *mmdit = osr_model_get_mmdit(model, NULL, NULL);
  OsrVae *encoder = osr_model_get_vae_encoder(model, NULL, NULL);
  const guint given = (lead_in - 1) / 4 + 1;
  OsrSamplingParams params = osr_model_get_dir(model)->sampling;
  guint dims[4];

  params.width = params.height = 32;
  params.num_frames = frames;
  params.num_steps = 1;
  params.seed = 42;
  osr_model_latent_dims(model, frames, 32, 32, dims);
  for (guint i = 1; i < latents->len; i++) {
    g_autoptr(OsrTensor) video = decode(model, tensor_of(g_ptr_array_index(latents, i - 1), 0));
    g_autoptr(OsrTensor) end = frames_of(video, frames - lead_in, lead_in);
    g_autoptr(OsrTensor) ref =
        osr_vae_encode(encoder, end, OSR_VAE_TILING_OFF, NULL, NULL, NULL, NULL);
    const OsrTensor *made = tensor_of(g_ptr_array_index(latents, i), 0);
    OsrSamplerInput input = {
      .txt = tensor_of(text, 0),
      .vec = tensor_of(text, 1),
      .neg_txt = tensor_of(text, 2),
      .neg_vec = tensor_of(text, 3),
      .condition = condition,
      .ref = { ref },
    };
    g_autoptr(OsrTensor) expected = NULL;
    gsize kept;

    params.sequence = i;
    expected = osr_sampler_run(mmdit, &params, &input, dims, NULL, NULL, NULL, NULL, NULL);
    fail_unless(ref != NULL && expected != NULL);
    assert_equals_int(ref->dims[0], given);
    assert_equals_uint64(made->size, expected->size);
    kept = ref->size;
    fail_unless(memcmp(made->data, ref->data, kept) == 0, "extension %u: what was given", i);
    fail_unless(
        memcmp((char *) made->data + kept, (char *) expected->data + kept, made->size - kept) == 0,
        "extension %u: what is new", i);
  }
}

GST_START_TEST(test_latents)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(1, &caps);
  g_autoptr(GPtrArray) brief = make_latents(3, 2, SHORT, "", NULL);
  g_autoptr(GPtrArray) video = make_latents(3, 2, LONG, "", NULL);
  g_autoptr(OsrModel) model = osr_model_get(NULL, common_device(), NULL);
  GstBuffer *text = g_ptr_array_index(texts, 0);

  check_latents(model, text, brief, SHORT, 1, OSR_CONDITION_I2V_HEAD);
  check_latents(model, text, video, LONG, 33, OSR_CONDITION_V2V_HEAD);
}
GST_END_TEST

static void
check_frame(OsrTensor *video, guint i, GstBuffer *buffer)
{
  g_autofree guint8 *expected = g_malloc(32 * 32 * 3);
  const OsrPicture picture = { .format = OSR_PIXEL_RGB,
                               .width = 32,
                               .height = 32,
                               .planes = { expected },
                               .strides = { 32 * 3 } };
  GstMapInfo map;

  fail_unless(osr_video_get_picture(video, i, &picture, NULL));
  fail_unless(gst_buffer_map(buffer, &map, GST_MAP_READ));
  assert_equals_uint64(map.size, 32 * 32 * 3);
  fail_unless(memcmp(map.data, expected, map.size) == 0, "frame %u", i);
  gst_buffer_unmap(buffer, &map);
}

/* Mean of squares of the difference of two stretches of video in [-1, 1]. */
static double
difference(OsrTensor *a, OsrTensor *b)
{
  const gint64 n = osr_tensor_n_elements(a);
  const float *x = a->data, *y = b->data;
  double sum = 0;

  assert_equals_int64(n, osr_tensor_n_elements(b));
  for (gint64 i = 0; i < n; i++)
    sum += (x[i] - y[i]) * (x[i] - y[i]);
  return sum / (double) n;
}

/* After the frames of the clip the decoder sends those of the extension's own decode that are
 * new; what it leaves out is what was shown, up to what the autoencoder loses. */
GST_START_TEST(test_seam)
{
  static const guint lengths[] = { SHORT, LONG };

  for (guint l = 0; l < G_N_ELEMENTS(lengths); l++) {
    const guint frames = lengths[l], lead_in = frames == LONG ? 33 : 1;
    g_autoptr(GstCaps) caps = NULL;
    g_autoptr(GPtrArray) latents = make_latents(3, 2, frames, "", &caps);
    g_autoptr(OsrModel) model = osr_model_get(NULL, common_device(), NULL);
    g_autoptr(OsrTensor) before = NULL;
    GstBus *bus;
    GstHarness *h = harness(&bus, "opensoravaedec");

    gst_harness_set_sink_caps_str(h, "video/x-raw,format=RGB");
    gst_harness_set_src_caps(h, g_steal_pointer(&caps));
    for (guint i = 0; i < latents->len; i++) {
      GstBuffer *latent = g_ptr_array_index(latents, i);
      OsrTensor *video = decode(model, tensor_of(latent, 0));

      assert_equals_int(meta_uint(latent, "lead-in"), i ? lead_in : 0);
      assert_equals_int(gst_harness_push(h, gst_buffer_ref(latent)), GST_FLOW_OK);
      for (guint f = i ? lead_in : 0; f < frames; f++) {
        g_autoptr(GstBuffer) frame = gst_harness_try_pull(h);

        fail_unless(frame != NULL);
        check_frame(video, f, frame);
      }
      assert_equals_int(gst_harness_buffers_in_queue(h), 0);
      if (before) {
        g_autoptr(OsrTensor) shown = frames_of(before, frames - lead_in, lead_in);
        g_autoptr(OsrTensor) again = frames_of(video, 0, lead_in);
        g_autoptr(OsrTensor) other = frames_of(before, 0, lead_in);

        fail_unless(difference(shown, again) < 0.01, "%g", difference(shown, again));
        fail_unless(difference(shown, again) < difference(other, again));
      }
      g_clear_pointer(&before, osr_tensor_unref);
      before = video;
    }
    harness_free(h, bus);
  }
}
GST_END_TEST

/* Without end, and no more memory for it, though the prompts have ended; until the application
 * ends it. */
GST_START_TEST(test_without_end)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(1, &caps);
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoradenoise extend=-1 num-frames=9 " SMALL);
  guint64 peak = 0;

  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
  gst_harness_push_event(h, gst_event_new_eos());
  for (guint i = 0; i < 40; i++) {
    g_autoptr(GstBuffer) latent = gst_harness_pull(h);
    OsrPoolStats stats;

    fail_unless(latent != NULL);
    assert_equals_int(meta_uint(latent, "extension"), i);
    assert_equals_uint64(GST_BUFFER_OFFSET(latent), i ? 9 + (i - 1) * 8 : 0);
    osr_pool_get_stats(osr_device_get_pool(common_device()), &stats);
    if (i == 5)
      peak = stats.peak_allocated;
    /* What a clip is ahead of us waits in the harness: a few latents of 8 KiB. */
    if (i > 5)
      fail_unless(stats.peak_allocated <= peak + (1 << 20), "%u: %" G_GUINT64_FORMAT, i,
                  stats.peak_allocated);
  }
  gst_element_send_event(h->element, gst_event_new_eos());
  for (GstEventType type = GST_EVENT_UNKNOWN; type != GST_EVENT_EOS;) {
    g_autoptr(GstEvent) event = gst_harness_pull_event(h);

    fail_unless(event != NULL, "no EOS came");
    type = GST_EVENT_TYPE(event);
  }
  harness_free(h, bus);
}
GST_END_TEST

/* A number of extensions is kept to whoever waits; without end they end for the next prompt. */
GST_START_TEST(test_next_prompt)
{
  static const gint extend[] = { 2, -1 };

  for (guint c = 0; c < G_N_ELEMENTS(extend); c++) {
    g_autoptr(GstCaps) caps = NULL;
    g_autoptr(GPtrArray) texts = make_conditioning(2, &caps);
    guint extensions = 0;
    guint64 offset;
    GstBus *bus;
    GstHarness *h = harness(&bus, "opensoradenoise extend=%d num-frames=9 " SMALL, extend[c]);

    gst_harness_set_src_caps(h, g_steal_pointer(&caps));
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 1)));
    for (;;) {
      g_autoptr(GstBuffer) latent = gst_harness_pull(h);

      fail_unless(latent != NULL);
      offset = GST_BUFFER_OFFSET(latent);
      if (clip_meta(latent)->clip == 1) {
        assert_equals_int(meta_uint(latent, "extension"), 0);
        assert_equals_string(clip_meta(latent)->condition, "t2v");
        break;
      }
      extensions = meta_uint(latent, "extension");
      fail_unless(extensions < 100);
    }
    if (extend[c] > 0)
      assert_equals_int(extensions, extend[c]);
    assert_equals_uint64(offset, 9 + extensions * 8);
    harness_free(h, bus);
  }
}
GST_END_TEST

/* Waits for a step of an extension. */
static void
wait_extension(GstBus *bus)
{
  for (;;) {
    g_autoptr(GstMessage) message = wait_message(bus, GST_MESSAGE_ELEMENT);
    const GstStructure *s = gst_message_get_structure(message);

    if (g_strcmp0(gst_structure_get_string(s, "stage"), "denoise") == 0 &&
        gst_structure_has_field(s, "extension"))
      return;
  }
}

GST_START_TEST(test_flush)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(2, &caps);
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoradenoise extend=-1 num-frames=9 " SMALL);

  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  for (guint round = 0; round < 5; round++) {
    GstBuffer *latent;
    GstSegment segment;

    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, round % 2)));
    wait_extension(bus);
    gst_harness_push_event(h, gst_event_new_flush_start());
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    while ((latent = gst_harness_try_pull(h)))
      gst_buffer_unref(latent);
    while (gst_bus_have_pending(bus))
      gst_message_unref(gst_bus_pop(bus));
    g_usleep(20000);
    assert_equals_int(gst_harness_buffers_in_queue(h), 0);

    gst_segment_init(&segment, GST_FORMAT_TIME);
    gst_harness_push_event(h, gst_event_new_segment(&segment));
    gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 1 - round % 2)));
    latent = gst_harness_pull(h);
    fail_unless(latent != NULL);
    assert_equals_int(clip_meta(latent)->clip, 1 - round % 2);
    assert_equals_int(meta_uint(latent, "extension"), 0);
    assert_equals_uint64(GST_BUFFER_OFFSET(latent), 0);
    gst_buffer_unref(latent);
    gst_harness_push_event(h, gst_event_new_flush_start());
    gst_harness_push_event(h, gst_event_new_flush_stop(TRUE));
    while ((latent = gst_harness_try_pull(h)))
      gst_buffer_unref(latent);
    gst_harness_push_event(h, gst_event_new_segment(&segment));
  }
  harness_free(h, bus);
}
GST_END_TEST

/* Whole pipelines end and stop in the middle of it, and can start again. */
GST_START_TEST(test_stop)
{
  GstElement *pipeline = gst_parse_launch(
      "opensorasrc prompt=x extend=-1 num-frames=9 " SMALL "! appsink name=out sync=false", NULL);

  for (guint round = 0; round < 3; round++) {
    gst_element_set_state(pipeline, GST_STATE_PLAYING);
    for (guint i = 0; i < 20; i++) {
      g_autoptr(GstSample) sample =
          gst_app_sink_try_pull_sample(GST_APP_SINK(child(pipeline, "out")), WAIT_TIME);

      fail_unless(sample != NULL);
      assert_equals_uint64(GST_BUFFER_OFFSET(gst_sample_get_buffer(sample)), i);
    }
    if (round < 2) {
      assert_equals_int(gst_element_set_state(pipeline, GST_STATE_NULL), GST_STATE_CHANGE_SUCCESS);
      continue;
    }
    fail_unless(gst_element_send_event(pipeline, gst_event_new_eos()));
    g_autoptr(Run) r = run_pipeline(pipeline);
    g_assert_no_error(r->error);
    fail_unless(r->eos);
    assert_equals_int((20 + r->samples->len - 9) % 8, 0); /* whole extensions */
  }
}
GST_END_TEST

/* A progress for each, told apart; tags once a clip, which say how to make it again. */
GST_START_TEST(test_messages)
{
  GstElement *pipeline = gst_parse_launch(
      "opensorasrc prompt=x num-samples=2 extend=2 compat=upstream num-frames=5 " SMALL OUT, NULL);
  g_autoptr(GString) progress = g_string_new(NULL);
  g_autoptr(Run) r = run_pipeline(pipeline);
  guint n_comments = 0;

  g_assert_no_error(r->error);
  for (guint i = 0; i < r->messages->len; i++) {
    GstMessage *message = g_ptr_array_index(r->messages, i);

    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_PROGRESS) {
      GstProgressType type;

      gst_message_parse_progress(message, &type, NULL, NULL);
      if (type == GST_PROGRESS_TYPE_START)
        g_string_append_c(progress, '<');
      if (type == GST_PROGRESS_TYPE_COMPLETE)
        g_string_append_c(progress, '>');
    } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_TAG) {
      g_autoptr(GstTagList) tags = NULL;
      g_autofree char *comment = NULL;

      gst_message_parse_tag(message, &tags);
      if (!gst_tag_list_get_string(tags, GST_TAG_COMMENT, &comment))
        continue;
      fail_unless(strstr(comment, " extend=2 compat=upstream") != NULL, "%s", comment);
      n_comments++;
    }
  }
  assert_equals_string(progress->str, "<><><><><><>");
  assert_equals_int(n_comments, 2);
}
GST_END_TEST

GST_START_TEST(test_duration)
{
  GstElement *pipeline =
      gst_parse_launch("opensorasrc prompt=x num-samples=2 extend=3 num-frames=9 " SMALL
                       "! video/x-raw,framerate=10/1 ! appsink name=out",
                       NULL);
  gint64 duration;

  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  assert_equals_int(gst_element_get_state(pipeline, NULL, NULL, WAIT_TIME),
                    GST_STATE_CHANGE_SUCCESS);
  fail_unless(gst_element_query_duration(pipeline, GST_FORMAT_TIME, &duration));
  assert_equals_int64(duration, 2 * (9 + 3 * 8) * (GST_SECOND / 10));
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* A folder with the tiny model, said to take no references. */
static char *
model_without_references(void)
{
  static const char *const parts[] = { "mmdit.safetensors", "vae.safetensors", "t5", "clip" };
  g_autofree char *config_path = g_build_filename(common_model_dir()->path, "config.json", NULL);
  g_autofree char *data = NULL;
  g_autoptr(GString) config = NULL;
  g_autofree char *path = NULL;

  for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autofree char *target = g_build_filename(common_model_dir()->path, parts[i], NULL);
    g_autoptr(GFile) link = g_file_new_build_filename(temp_path(""), parts[i], NULL);

    fail_unless(g_file_make_symbolic_link(link, target, NULL, NULL));
  }
  fail_unless(g_file_get_contents(config_path, &data, NULL, NULL));
  config = g_string_new(data);
  assert_equals_int(g_string_replace(config, "\"cond_embed\": true", "\"cond_embed\": false", 0),
                    1);
  path = temp_file("config.json", config->str, -1);
  return temp_path("");
}

GST_START_TEST(test_impossible)
{
  g_autofree char *model = model_without_references();
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) latents = make_latents(1, 0, SHORT, "", &caps);
  GstBuffer *latent = gst_buffer_copy(g_ptr_array_index(latents, 0));
  GstBus *bus;
  GstHarness *h;

  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "\"extend\" is not possible",
            "opensorasrc prompt=x extend=1 num-frames=1 " SMALL OUT);
  run_fails(GST_STREAM_ERROR, GST_STREAM_ERROR_NOT_IMPLEMENTED, "takes no references",
            "opensorasrc model-location=%s prompt=x extend=1 num-frames=5 " SMALL OUT, model);

  /* A latent whose meta leaves out all of it. */
  h = harness(&bus, "opensoravaedec");
  gst_structure_set(
      gst_custom_meta_get_structure(gst_buffer_get_custom_meta(latent, "GstOpenSoraClipMeta")),
      "lead-in", G_TYPE_UINT, SHORT, NULL);
  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  assert_equals_int(gst_harness_push(h, latent), GST_FLOW_ERROR);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "its meta leaves out 9");
  harness_free(h, bus);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("extend");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_stream);
  tcase_add_test(tc, test_latents);
  tcase_add_test(tc, test_seam);
  tcase_add_test(tc, test_without_end);
  tcase_add_test(tc, test_next_prompt);
  tcase_add_test(tc, test_flush);
  tcase_add_test(tc, test_stop);
  tcase_add_test(tc, test_messages);
  tcase_add_test(tc, test_duration);
  tcase_add_test(tc, test_impossible);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
