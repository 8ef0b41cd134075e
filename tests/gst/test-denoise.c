/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoradenoise: negotiation, parameters, times, messages, queries, bad input. References
 * and interruptions have tests of their own.
 */
#include <string.h>

#include "common.h"

#define LATENT GST_OPENSORA_LATENT "(" GST_OPENSORA_MEMORY_FEATURE ")"
#define SRC "opensoratextsrc name=s prompt=\"a red circle\" "
#define DENOISE "! opensoradenoise name=d steps=1 "
#define SMALL "num-frames=1 width=32 height=32 "
#define OUT " ! appsink name=out"

static void
assert_size(Run *r, gint width, gint height, gint frames)
{
  const OsrTensor *latent = tensor_of(run_buffer(r, 0), 0);
  const GstStructure *s = run_caps(r, 0);
  gint value;

  fail_unless(gst_structure_get_int(s, "width", &value));
  assert_equals_int(value, width);
  fail_unless(gst_structure_get_int(s, "height", &value));
  assert_equals_int(value, height);
  fail_unless(gst_structure_get_int(s, "frames", &value));
  assert_equals_int(value, frames);
  assert_equals_int(latent->n_dims, 4);
  assert_equals_int(latent->dims[0], (frames - 1) / 4 + 1);
  assert_equals_int(latent->dims[1], height / 8);
  assert_equals_int(latent->dims[2], width / 8);
  assert_equals_int(latent->dims[3], common_model_dir()->vae.latent_channels);
  assert_equals_int(clip_meta(run_buffer(r, 0))->width, width);
  assert_equals_int(clip_meta(run_buffer(r, 0))->height, height);
  assert_equals_int(clip_meta(run_buffer(r, 0))->frames, frames);
}

GST_START_TEST(test_caps)
{
  g_autoptr(Run) r =
      run_ok(1, SRC DENOISE "num-frames=5 ! capsfilter caps=\"" LATENT ",width=48,height=32\"" OUT);
  const GstStructure *s = run_caps(r, 0);
  gint fps_n, fps_d, channels;

  assert_size(r, 48, 32, 5);
  fail_unless(gst_structure_get_fraction(s, "framerate", &fps_n, &fps_d));
  assert_equals_int(fps_n, common_model_dir()->fps);
  assert_equals_int(fps_d, 1);
  fail_unless(gst_structure_get_int(s, "channels", &channels));
  assert_equals_int(channels, common_model_dir()->vae.latent_channels);
  assert_equals_string(gst_structure_get_string(s, "family"), common_model_dir()->family);
}
GST_END_TEST

GST_START_TEST(test_default_size)
{
  const OsrSamplingParams *defaults = &common_model_dir()->sampling;
  g_autoptr(Run) r = run_ok(1, SRC DENOISE "num-frames=1" OUT);
  g_autoptr(Run) frames = run_ok(1, SRC DENOISE "width=32 height=32" OUT);

  assert_size(r, (gint) defaults->width, (gint) defaults->height, 1);
  assert_size(frames, 32, 32, (gint) defaults->num_frames);
}
GST_END_TEST

GST_START_TEST(test_size_properties)
{
  const gint height = (gint) common_model_dir()->sampling.height;
  g_autoptr(Run) both = run_ok(1, SRC DENOISE "num-frames=1 width=64 height=48" OUT);
  g_autoptr(Run) one = run_ok(1, SRC DENOISE "num-frames=1 width=64" OUT);
  g_autoptr(Run) mixed =
      run_ok(1, SRC DENOISE "num-frames=1 width=64 ! capsfilter caps=\"" LATENT ",height=48\"" OUT);

  assert_size(both, 64, 48, 1);
  assert_size(one, 64, height, 1);
  assert_size(mixed, 64, 48, 1);
}
GST_END_TEST

GST_START_TEST(test_size_names)
{
  static const char *const shapes[] = { "1:1", "9:16", "16:9" };

  for (guint i = 0; i < G_N_ELEMENTS(shapes); i++) {
    g_autoptr(Run) r =
        run_ok(1, SRC DENOISE "num-frames=1 resolution=128px aspect-ratio=%s" OUT, shapes[i]);
    guint width, height;

    fail_unless(osr_aspect_size("128px", shapes[i], &width, &height, NULL));
    assert_size(r, (gint) width, (gint) height, 1);
  }
}
GST_END_TEST

/* What the pixels after the decoder shall be is heard here. */
GST_START_TEST(test_size_from_video)
{
  GstElement *pipeline = gst_parse_launch(
      SRC DENOISE "num-frames=5 ! opensoravaedec ! video/x-raw,width=64,height=32,framerate=12/1 "
                  "! appsink name=out",
      NULL);
  g_autoptr(Run) r = run_pipeline(pipeline);
  const Clip *meta;

  g_assert_no_error(r->error);
  assert_equals_int(r->samples->len, 5);
  meta = clip_meta(run_buffer(r, 0));
  assert_equals_int(meta->width, 64);
  assert_equals_int(meta->height, 32);
  assert_equals_int(meta->fps_n, 12);
}
GST_END_TEST

#define SETTINGS GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS

GST_START_TEST(test_impossible_sizes)
{
  run_fails(SETTINGS, "either", SRC DENOISE "width=64 resolution=256px" OUT);
  run_fails(SETTINGS, "256px", SRC DENOISE "resolution=large" OUT);
  run_fails(SETTINGS, "16:9", SRC DENOISE "aspect-ratio=5:1" OUT);
  run_fails(SETTINGS, "width 50 (the nearest are 48 and 64)", SRC DENOISE "width=50 height=32" OUT);
  run_fails(SETTINGS, "height 8 (the nearest is 16)", SRC DENOISE "width=32 height=8" OUT);
  run_fails(SETTINGS, "no side can be above 8192",
            SRC DENOISE "resolution=8192px aspect-ratio=2.39:1" OUT);
  run_fails(SETTINGS, "width 64",
            SRC DENOISE "width=64 ! capsfilter caps=\"" LATENT ",width=32\"" OUT);
  run_fails(SETTINGS, "multiples of 4 plus 1", SRC DENOISE "num-frames=6 width=32 height=32" OUT);
}
GST_END_TEST

/* Asked for when everything is linked: a filter that was open at first. */
GST_START_TEST(test_impossible_video)
{
  static const char *const wanted[][2] = {
    { "video/x-raw,width=100", "width 100 (the nearest are 96 and 112)" },
    { "video/x-raw,width=8200,height=90", "width 8200 (the nearest is 8192), height 90" },
    { "video/x-raw,framerate=300/1", "1 to 240" },
  };

  for (guint i = 0; i < G_N_ELEMENTS(wanted); i++) {
    GstElement *pipeline =
        gst_parse_launch(SRC DENOISE SMALL "! opensoravaedec ! capsfilter name=c" OUT, NULL);
    g_autoptr(GstCaps) caps = gst_caps_from_string(wanted[i][0]);
    g_autoptr(Run) r = NULL;

    g_object_set(child(pipeline, "c"), "caps", caps, NULL);
    r = run_pipeline(pipeline);
    fail_unless(g_error_matches(r->error, GST_STREAM_ERROR, GST_STREAM_ERROR_FORMAT), "%s",
                r->error->message);
    fail_unless(strstr(r->error->message, wanted[i][1]) != NULL, "%s", r->error->message);
  }
}
GST_END_TEST

GST_START_TEST(test_parameters)
{
  g_autoptr(Run) r =
      run_ok(1, "opensoratextsrc prompt=\"a red circle\" ! opensoradenoise steps=3 "
                "guidance=2.5 guidance-image=1.25 num-frames=5 width=32 height=32" OUT);
  g_autoptr(Run) again = run_ok(1, "opensoratextsrc prompt=\"a red circle\" ! opensoradenoise "
                                   "steps=3 guidance=2.5 num-frames=5 width=32 height=32" OUT);
  g_autoptr(Run) other = run_ok(1, "opensoratextsrc prompt=\"a red circle\" ! opensoradenoise "
                                   "steps=3 guidance=9 num-frames=5 width=32 height=32" OUT);
  const Clip *meta = clip_meta(run_buffer(r, 0));

  assert_equals_string(meta->prompt, "a red circle");
  assert_equals_int(meta->steps, 3);
  assert_equals_float(meta->guidance, 2.5);
  assert_equals_float(meta->guidance_image, 1.25);
  assert_equals_string(meta->condition, "t2v");
  assert_same_tensors(run_buffer(r, 0), run_buffer(again, 0));
  fail_if(same_tensors(run_buffer(r, 0), run_buffer(other, 0)));
}
GST_END_TEST

GST_START_TEST(test_default_parameters)
{
  const OsrSamplingParams *defaults = &common_model_dir()->sampling;
  g_autoptr(Run) r = run_ok(1, SRC "! opensoradenoise " SMALL OUT);
  const Clip *meta = clip_meta(run_buffer(r, 0));

  assert_equals_int(meta->steps, defaults->num_steps);
  assert_equals_float(meta->guidance, defaults->guidance);
  assert_equals_float(meta->guidance_image, defaults->guidance_img);
}
GST_END_TEST

/* Each switch and number that changes the sampling changes the clip. */
GST_START_TEST(test_switches)
{
  static const char *const properties[][2] = {
    { "shift=on", "shift=off" },
    { "shift=on flow-shift=1.5", "shift=on flow-shift=9" },
    { "guidance=5 text-oscillation=on", "guidance=5 text-oscillation=off" },
  };

  for (guint i = 0; i < G_N_ELEMENTS(properties); i++) {
    g_autoptr(Run) a =
        run_ok(1, SRC "! opensoradenoise steps=12 " SMALL " %s" OUT, properties[i][0]);
    g_autoptr(Run) b =
        run_ok(1, SRC "! opensoradenoise steps=12 " SMALL " %s" OUT, properties[i][1]);

    fail_if(same_tensors(run_buffer(a, 0), run_buffer(b, 0)), "%s", properties[i][0]);
  }
}
GST_END_TEST

/* A clip is made again by its seed, whatever came before it. */
GST_START_TEST(test_seeds)
{
  g_autoptr(Run) r = run_ok(3, SRC "seed=7 num-samples=3 " DENOISE SMALL OUT);
  g_autoptr(Run) last = run_ok(1, SRC "seed=9 " DENOISE SMALL OUT);

  fail_if(same_tensors(run_buffer(r, 0), run_buffer(r, 1)));
  fail_if(same_tensors(run_buffer(r, 1), run_buffer(r, 2)));
  assert_same_tensors(run_buffer(r, 2), run_buffer(last, 0));
  assert_equals_uint64(clip_meta(run_buffer(r, 2))->seed, 9);
}
GST_END_TEST

GST_START_TEST(test_times)
{
  g_autoptr(Run) r = run_ok(3, SRC "num-samples=3 " DENOISE
                                   "num-frames=5 width=32 height=32 ! capsfilter caps=\"" LATENT
                                   ",framerate=30000/1001\"" OUT);

  for (guint64 i = 0; i < 3; i++) {
    GstBuffer *buffer = run_buffer(r, (guint) i);
    const GstClockTime start = gst_util_uint64_scale(5 * i, 1001 * GST_SECOND, 30000);
    const GstClockTime end = gst_util_uint64_scale(5 * i + 5, 1001 * GST_SECOND, 30000);

    assert_equals_uint64(GST_BUFFER_PTS(buffer), start);
    assert_equals_uint64(GST_BUFFER_DURATION(buffer), end - start);
    assert_equals_uint64(GST_BUFFER_OFFSET(buffer), 5 * i);
    assert_equals_uint64(GST_BUFFER_OFFSET_END(buffer), 5 * i + 5);
    assert_equals_int(clip_meta(buffer)->clip, i);
  }
}
GST_END_TEST

/* Messages */

static GstPadProbeReturn
note_buffer(GstPad *pad, GstPadProbeInfo *info, gpointer element)
{
  gst_element_post_message(element,
                           gst_message_new_application(element, gst_structure_new_empty("buffer")));
  return GST_PAD_PROBE_OK;
}

static void
check_step(const GstStructure *s, guint clip, guint step)
{
  guint64 allocated, reserved, peak_allocated, peak_reserved, limit, allocations;
  double percent, elapsed, remaining;
  guint value;

  fail_unless(gst_structure_has_name(s, "opensora-progress"));
  assert_equals_string(gst_structure_get_string(s, "stage"), "denoise");
  assert_equals_string(gst_structure_get_string(s, "prompt"), "a red circle");
  fail_unless(gst_structure_get_uint(s, "clip", &value) && value == clip);
  fail_unless(gst_structure_get_uint(s, "step", &value) && value == step);
  fail_unless(gst_structure_get_uint(s, "steps", &value) && value == 4);
  fail_unless(gst_structure_get_double(s, "percent", &percent));
  assert_equals_float(percent, 25.0 * step);
  fail_unless(gst_structure_get_double(s, "elapsed", &elapsed) && elapsed > 0);
  fail_unless(gst_structure_get_double(s, "remaining", &remaining) && remaining >= 0);
  if (step == 4)
    assert_equals_float(remaining, 0);
  assert_equals_string(gst_structure_get_string(s, "device"), osr_device_get_name(common_device()));
  fail_unless(gst_structure_get(s, "memory-allocated", G_TYPE_UINT64, &allocated, "memory-reserved",
                                G_TYPE_UINT64, &reserved, "memory-peak-allocated", G_TYPE_UINT64,
                                &peak_allocated, "memory-peak-reserved", G_TYPE_UINT64,
                                &peak_reserved, "memory-limit", G_TYPE_UINT64, &limit,
                                "memory-allocations", G_TYPE_UINT64, &allocations, NULL));
  fail_unless(allocated > 0 && allocations > 0);
  fail_unless(reserved >= allocated && peak_allocated >= allocated && peak_reserved >= reserved);
  assert_equals_uint64(limit, (guint64) 4 << 30);
}

/* start, steps and the percentages, complete, and only then the buffer; twice. */
GST_START_TEST(test_progress)
{
  GstElement *pipeline = gst_parse_launch(
      SRC "num-samples=2 ! opensoradenoise name=d memory-limit=4294967296 steps=4 " SMALL OUT,
      NULL);
  GstElement *element = child(pipeline, "d");
  g_autoptr(GstPad) pad = gst_element_get_static_pad(element, "src");
  g_autoptr(GString) order = g_string_new(NULL);
  g_autoptr(Run) r = NULL;
  guint clip = 0, step = 0;

  gst_pad_add_probe(pad, GST_PAD_PROBE_TYPE_BUFFER, note_buffer, element, NULL);
  r = run_pipeline(pipeline);
  for (guint i = 0; i < r->messages->len; i++) {
    GstMessage *message = g_ptr_array_index(r->messages, i);
    g_autofree char *code = NULL;
    GstProgressType type;
    gint percent;

    if (GST_MESSAGE_SRC(message) != GST_OBJECT(element))
      continue;
    switch (GST_MESSAGE_TYPE(message)) {
    case GST_MESSAGE_APPLICATION:
      g_string_append_c(order, 'b');
      clip++;
      step = 0;
      break;
    case GST_MESSAGE_ELEMENT:
      check_step(gst_message_get_structure(message), clip, ++step);
      g_string_append_c(order, 'e');
      break;
    case GST_MESSAGE_PROGRESS:
      gst_message_parse_progress(message, &type, &code, NULL);
      assert_equals_string(code, "denoise");
      fail_unless(gst_structure_get_int(gst_message_get_structure(message), "percent", &percent));
      assert_equals_int(percent, 25 * step);
      g_string_append_c(order, type == GST_PROGRESS_TYPE_START      ? 's'
                               : type == GST_PROGRESS_TYPE_CONTINUE ? 'p'
                               : type == GST_PROGRESS_TYPE_COMPLETE ? 'c'
                                                                    : '?');
      break;
    default:
      break;
    }
  }
  assert_equals_string(order->str, "sepepepepcbsepepepepcb");
}
GST_END_TEST

/* Input */

static GstHarness *
small_harness(GstBus **bus)
{
  return harness(bus, "opensoradenoise steps=1 num-frames=5 width=32 height=32");
}

/* An error is told before the progress ends in one. */
GST_START_TEST(test_progress_error)
{
  g_autoptr(GstCaps) caps = NULL;
  GstBus *bus;
  GstHarness *h = small_harness(&bus);
  gboolean told = FALSE, ended = FALSE;

  g_ptr_array_unref(make_conditioning(1, &caps));
  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  gst_harness_push(h, gst_buffer_new_memdup("no tensor", 9));
  while (!ended) {
    g_autoptr(GstMessage) message =
        gst_bus_timed_pop_filtered(bus, WAIT_TIME, GST_MESSAGE_PROGRESS | GST_MESSAGE_ERROR);
    GstProgressType type;

    fail_unless(message != NULL);
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
      told = TRUE;
      continue;
    }
    gst_message_parse_progress(message, &type, NULL, NULL);
    fail_if(type == GST_PROGRESS_TYPE_COMPLETE);
    ended = type == GST_PROGRESS_TYPE_ERROR;
    fail_unless(told || !ended);
  }
  harness_free(h, bus);
}
GST_END_TEST

/* What the model cannot do is said before anything is loaded for it. */
GST_START_TEST(test_early_errors)
{
  g_autoptr(Run) r = run(SRC "! opensoradenoise name=d num-frames=6 width=32 height=32" OUT);
  g_autoptr(OsrModel) model = osr_model_get(NULL, common_device(), NULL);
  GstElement *denoiser = child(r->pipeline, "d");
  OsrPoolStats before, after;

  fail_unless(r->error != NULL);
  fail_unless(strstr(r->error->message, "the nearest being 5 and 9") != NULL, "%s",
              r->error->message);
  for (guint i = 0; i < r->messages->len; i++)
    fail_if(GST_MESSAGE_TYPE(g_ptr_array_index(r->messages, i)) == GST_MESSAGE_PROGRESS &&
            GST_MESSAGE_SRC(g_ptr_array_index(r->messages, i)) == GST_OBJECT(denoiser));
  /* The weights were not there before now. */
  osr_pool_get_stats(osr_device_get_pool(common_device()), &before);
  fail_unless(osr_model_get_mmdit(model, NULL, NULL) != NULL);
  osr_pool_get_stats(osr_device_get_pool(common_device()), &after);
  fail_unless(after.allocated > before.allocated);
}
GST_END_TEST

GST_START_TEST(test_no_tensors)
{
  g_autoptr(GstCaps) caps = NULL;
  GstBus *bus;
  GstHarness *h = small_harness(&bus);

  g_ptr_array_unref(make_conditioning(1, &caps));
  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  gst_harness_push(h, gst_buffer_new_memdup("no tensor", 9));
  wait_error(bus, SETTINGS, "no tensor at position 0");
  harness_free(h, bus);
}
GST_END_TEST

/* Tensors of another kind than the model wants. */
GST_START_TEST(test_wrong_tensors)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(1, &caps);
  GstBus *bus;
  GstHarness *h = small_harness(&bus);
  GstBuffer *wrong = gst_buffer_new();

  for (guint i = 0; i < 4; i++)
    gst_buffer_append_memory(wrong, gst_buffer_get_memory(g_ptr_array_index(texts, 0), 3 - i));
  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  gst_harness_push(h, wrong);
  wait_error(bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "needed is");
  harness_free(h, bus);
}
GST_END_TEST

/* Without a meta the model's own seed is used. */
GST_START_TEST(test_no_meta)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(1, &caps);
  GstBus *bus;
  GstHarness *h = small_harness(&bus);
  GstBuffer *bare = gst_buffer_new();
  g_autoptr(GstBuffer) latent = NULL;

  for (guint i = 0; i < 4; i++)
    gst_buffer_append_memory(bare, gst_buffer_get_memory(g_ptr_array_index(texts, 0), i));
  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  gst_harness_push(h, bare);
  latent = gst_harness_pull(h);
  fail_unless(latent != NULL);
  assert_equals_uint64(clip_meta(latent)->seed, common_model_dir()->sampling.seed);
  fail_unless(clip_meta(latent)->prompt == NULL);
  harness_free(h, bus);
}
GST_END_TEST

GST_START_TEST(test_no_caps)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(1, &caps);
  GstBus *bus;
  GstHarness *h = small_harness(&bus);
  GstSegment segment;

  gst_harness_play(h);
  gst_segment_init(&segment, GST_FORMAT_TIME);
  gst_harness_push_event(h, gst_event_new_stream_start("text"));
  gst_harness_push_event(h, gst_event_new_segment(&segment));
  gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
  wait_error(bus, GST_CORE_ERROR, GST_CORE_ERROR_NEGOTIATION, "");
  harness_free(h, bus);
}
GST_END_TEST

static void
wait_eos(GstHarness *h)
{
  for (;;) {
    g_autoptr(GstEvent) event = gst_harness_pull_event(h);

    fail_unless(event != NULL, "no EOS came");
    if (GST_EVENT_TYPE(event) == GST_EVENT_EOS)
      return;
  }
}

GST_START_TEST(test_eos)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(1, &caps);
  GstBus *bus;
  GstHarness *h = small_harness(&bus);

  gst_harness_set_src_caps(h, g_steal_pointer(&caps));
  gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(texts, 0)));
  gst_harness_push_event(h, gst_event_new_eos());
  wait_eos(h);
  assert_equals_int(gst_harness_buffers_received(h), 1);
  harness_free(h, bus);

  /* Before anything else. */
  h = small_harness(&bus);
  gst_harness_play(h);
  gst_harness_push_event(h, gst_event_new_stream_start("text"));
  gst_harness_push_event(h, gst_event_new_eos());
  wait_eos(h);
  assert_equals_int(gst_harness_buffers_received(h), 0);
  harness_free(h, bus);
}
GST_END_TEST

static GstCaps *
with_rate(GstCaps *caps, gint fps)
{
  GstCaps *copy = gst_caps_copy(caps);

  gst_caps_set_simple(copy, "framerate", GST_TYPE_FRACTION, fps, 1, NULL);
  return copy;
}

static gint
output_rate(GstHarness *h)
{
  g_autoptr(GstPad) src = gst_element_get_static_pad(h->element, "src");
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(src);
  gint fps_n, fps_d;

  fail_unless(
      gst_structure_get_fraction(gst_caps_get_structure(caps, 0), "framerate", &fps_n, &fps_d));
  return fps_n;
}

/* New caps in the middle, and new properties. */
GST_START_TEST(test_changes)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) texts = make_conditioning(1, &caps);
  GstBuffer *text = g_ptr_array_index(texts, 0);
  GstBus *bus;
  GstHarness *h = small_harness(&bus);
  GstBuffer *latent;

  gst_harness_set_src_caps(h, with_rate(caps, 10));
  gst_harness_push(h, gst_buffer_ref(text));
  latent = gst_harness_pull(h);
  assert_equals_int(output_rate(h), 10);
  assert_equals_int(clip_meta(latent)->fps_n, 10);
  gst_buffer_unref(latent);

  gst_harness_set_src_caps(h, with_rate(caps, 20));
  gst_harness_push(h, gst_buffer_ref(text));
  latent = gst_harness_pull(h);
  assert_equals_int(output_rate(h), 20);
  assert_equals_int(clip_meta(latent)->fps_n, 20);
  gst_buffer_unref(latent);

  g_object_set(h->element, "steps", 2u, "width", 64u, NULL);
  gst_harness_push(h, gst_buffer_ref(text));
  latent = gst_harness_pull(h);
  assert_equals_int(clip_meta(latent)->steps, 2);
  assert_equals_int(clip_meta(latent)->width, 64);
  assert_equals_int(tensor_of(latent, 0)->dims[2], 8);
  gst_buffer_unref(latent);
  harness_free(h, bus);
}
GST_END_TEST

/* Queries and upstream events */

GST_START_TEST(test_queries)
{
  GstElement *pipeline = gst_parse_launch(
      SRC "num-samples=4 " DENOISE "num-frames=5 width=32 height=32 ! fakesink name=f", NULL);
  GstElement *element = child(pipeline, "d");
  g_autoptr(GstPad) src = gst_element_get_static_pad(element, "src");
  const gint fps = (gint) common_model_dir()->fps;
  gint64 time;
  gboolean seekable;
  GstQuery *query;

  fail_if(gst_pad_query_duration(src, GST_FORMAT_TIME, &time));
  fail_if(gst_pad_query_position(src, GST_FORMAT_TIME, &time));
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  assert_equals_int(gst_element_get_state(pipeline, NULL, NULL, WAIT_TIME),
                    GST_STATE_CHANGE_SUCCESS);
  fail_unless(gst_pad_query_duration(src, GST_FORMAT_TIME, &time));
  assert_equals_uint64(time, gst_util_uint64_scale(20, GST_SECOND, fps));
  fail_unless(gst_pad_query_position(src, GST_FORMAT_TIME, &time));
  fail_unless(time >= (gint64) gst_util_uint64_scale(5, GST_SECOND, fps));
  fail_unless(gst_element_query_duration(pipeline, GST_FORMAT_TIME, &time));
  fail_if(gst_pad_query_duration(src, GST_FORMAT_BYTES, &time));

  query = gst_query_new_seeking(GST_FORMAT_TIME);
  fail_unless(gst_pad_query(src, query));
  gst_query_parse_seeking(query, NULL, &seekable, NULL, NULL);
  fail_if(seekable);
  gst_query_unref(query);
  fail_if(gst_element_seek_simple(pipeline, GST_FORMAT_TIME, GST_SEEK_FLAG_FLUSH, 0));
  fail_if(gst_pad_send_event(src, gst_event_new_qos(GST_QOS_TYPE_UNDERFLOW, 0.5, 0, 0)));

  gst_element_set_state(pipeline, GST_STATE_NULL);
  fail_if(gst_pad_query_duration(src, GST_FORMAT_TIME, &time));
  g_clear_object(&src);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* The weights of two denoisers are there once, and the application's model is theirs. */
GST_START_TEST(test_shared_model)
{
  g_autoptr(OsrModel) model = osr_model_get(NULL, common_device(), NULL);
  g_autofree char *other_name = g_build_filename(common_model_dir()->path, ".", NULL);
  g_autoptr(OsrModel) same = osr_model_get(other_name, common_device(), NULL);
  OsrPoolStats one, two, after;

  fail_unless(model != NULL && model == same);
  run_free(run_ok(1, SRC DENOISE SMALL OUT));
  osr_pool_get_stats(osr_device_get_pool(common_device()), &one);
  fail_unless(one.allocated > 1000000);
  run_free(run_ok(2,
                  SRC "num-samples=2 ! tee name=t ! queue ! opensoradenoise steps=1 " SMALL
                      "model-location=%s ! fakesink async=false "
                      "t. ! queue ! opensoradenoise steps=1 " SMALL OUT,
                  other_name));
  osr_pool_get_stats(osr_device_get_pool(common_device()), &two);
  assert_equals_uint64(two.allocated, one.allocated);
  fail_unless(osr_model_get_mmdit(model, NULL, NULL) != NULL);
  osr_pool_get_stats(osr_device_get_pool(common_device()), &after);
  assert_equals_uint64(after.n_allocs, two.n_allocs);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensoradenoise");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_caps);
  tcase_add_test(tc, test_default_size);
  tcase_add_test(tc, test_size_properties);
  tcase_add_test(tc, test_size_names);
  tcase_add_test(tc, test_size_from_video);
  tcase_add_test(tc, test_impossible_sizes);
  tcase_add_test(tc, test_impossible_video);
  tcase_add_test(tc, test_parameters);
  tcase_add_test(tc, test_default_parameters);
  tcase_add_test(tc, test_switches);
  tcase_add_test(tc, test_seeds);
  tcase_add_test(tc, test_times);
  tcase_add_test(tc, test_progress);
  tcase_add_test(tc, test_progress_error);
  tcase_add_test(tc, test_early_errors);
  tcase_add_test(tc, test_no_tensors);
  tcase_add_test(tc, test_wrong_tensors);
  tcase_add_test(tc, test_no_meta);
  tcase_add_test(tc, test_no_caps);
  tcase_add_test(tc, test_eos);
  tcase_add_test(tc, test_changes);
  tcase_add_test(tc, test_queries);
  tcase_add_test(tc, test_shared_model);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
