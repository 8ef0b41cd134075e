/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensoradenoise with pictures and clips to begin, end or go on with: latents on request
 * pads. test-reference-files has those that the prompt names.
 */
#include "common.h"

#define SIZE 32
#define DENOISE "opensoradenoise name=d steps=1 num-frames=9 width=32 height=32 "

/* A denoiser in a harness with @n_texts clips to make. */
typedef struct {
  GstHarness *h;
  GstBus *bus;
  GPtrArray *texts;
} Fixture;

static Fixture
fixture_new(guint n_texts, const char *properties)
{
  Fixture f;
  GstCaps *caps;

  f.texts = make_conditioning(n_texts, &caps);
  f.h = harness(&f.bus, DENOISE "%s", properties);
  gst_harness_set_src_caps(f.h, caps);
  return f;
}

static void
fixture_free(Fixture *f)
{
  harness_free(f->h, f->bus);
  g_ptr_array_unref(f->texts);
}

static void
push_text(Fixture *f, guint i)
{
  assert_equals_int(gst_harness_push(f->h, gst_buffer_ref(g_ptr_array_index(f->texts, i))),
                    GST_FLOW_OK);
}

/* Requests a reference pad and sends what is in @latents, then EOS. */
static GstHarness *
add_references(Fixture *f, const char *pad, GPtrArray *latents, GstCaps *caps)
{
  GstHarness *ref = gst_harness_new_with_element(f->h->element, pad, NULL);

  gst_harness_set_src_caps(ref, gst_caps_ref(caps));
  for (guint i = 0; i < latents->len; i++)
    gst_harness_push(ref, gst_buffer_ref(g_ptr_array_index(latents, i)));
  return ref;
}

/* Latents of @n different pictures, or clips of @frames frames. */
static GPtrArray *
make_references(guint n, guint size, guint frames, GstCaps **caps)
{
  static const char *const patterns[] = { "smpte", "red", "checkers-8", "blue" };
  GPtrArray *latents = g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref);

  fail_unless(n <= G_N_ELEMENTS(patterns));
  *caps = NULL;
  for (guint i = 0; i < n; i++) {
    g_autoptr(Run) r =
        run_ok(1,
               "videotestsrc pattern=%s num-buffers=%u ! video/x-raw,format=RGB,"
               "width=%u,height=%u ! opensoravaeenc num-frames=%u ! appsink name=out",
               patterns[i], frames, size, size, frames);

    g_ptr_array_add(latents, gst_buffer_ref(run_buffer(r, 0)));
    gst_caps_replace(caps, gst_sample_get_caps(g_ptr_array_index(r->samples, 0)));
  }
  return latents;
}

GST_START_TEST(test_head)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(1, SIZE, 1, &caps);
  Fixture f = fixture_new(1, "");
  GstHarness *ref = add_references(&f, "reference_%u", refs, caps);
  GstBuffer *clip;

  push_text(&f, 0);
  clip = gst_harness_pull(f.h);
  fail_unless(clip != NULL);
  assert_equals_string(clip_meta(clip)->condition, "i2v-head");
  assert_equals_int(tensor_of(clip, 0)->dims[0], 3);
  fail_unless(same_frame(clip, 0, g_ptr_array_index(refs, 0), 0));
  fail_if(same_frame(clip, -1, g_ptr_array_index(refs, 0), 0));
  gst_buffer_unref(clip);
  gst_harness_teardown(ref);
  fixture_free(&f);
}
GST_END_TEST

/* What "condition" says goes before what the references look like. */
GST_START_TEST(test_forced)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(1, SIZE, 1, &caps);
  static const struct {
    const char *properties;
    const char *condition;
    gboolean head, tail;
  } cases[] = {
    { "condition=t2v", "t2v", FALSE, FALSE },
    { "condition=i2v-head", "i2v-head", TRUE, FALSE },
    { "condition=i2v-tail", "i2v-tail", FALSE, TRUE },
    { "condition=i2v-loop", "i2v-loop", TRUE, TRUE },
  };

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    Fixture f = fixture_new(1, cases[i].properties);
    GstHarness *ref = add_references(&f, "reference_0", refs, caps);
    GstBuffer *clip;

    push_text(&f, 0);
    clip = gst_harness_pull(f.h);
    fail_unless(clip != NULL, "%s", cases[i].properties);
    assert_equals_string(clip_meta(clip)->condition, cases[i].condition);
    assert_equals_int(same_frame(clip, 0, g_ptr_array_index(refs, 0), 0), cases[i].head);
    assert_equals_int(same_frame(clip, -1, g_ptr_array_index(refs, 0), 0), cases[i].tail);
    gst_buffer_unref(clip);
    gst_harness_teardown(ref);
    fixture_free(&f);
  }
}
GST_END_TEST

/* Two pictures are the ends, in the order of the pads' numbers. */
GST_START_TEST(test_loop)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(2, SIZE, 1, &caps);
  g_autoptr(GPtrArray) second = g_ptr_array_new();
  g_autoptr(GPtrArray) first = g_ptr_array_new();
  Fixture f = fixture_new(1, "");
  GstHarness *ref[2];
  GstBuffer *clip;

  g_ptr_array_add(first, g_ptr_array_index(refs, 0));
  g_ptr_array_add(second, g_ptr_array_index(refs, 1));
  ref[1] = add_references(&f, "reference_1", second, caps);
  ref[0] = add_references(&f, "reference_0", first, caps);
  push_text(&f, 0);
  clip = gst_harness_pull(f.h);
  fail_unless(clip != NULL);
  assert_equals_string(clip_meta(clip)->condition, "i2v-loop");
  fail_unless(same_frame(clip, 0, g_ptr_array_index(refs, 0), 0));
  fail_unless(same_frame(clip, -1, g_ptr_array_index(refs, 1), 0));
  gst_buffer_unref(clip);
  gst_harness_teardown(ref[0]);
  gst_harness_teardown(ref[1]);
  fixture_free(&f);
}
GST_END_TEST

/* One reference a clip; the last one of a stream that has ended serves the rest. */
GST_START_TEST(test_stream)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(2, SIZE, 1, &caps);
  g_autoptr(GPtrArray) first = g_ptr_array_new();
  Fixture f = fixture_new(4, "");
  GstHarness *ref;

  g_ptr_array_add(first, g_ptr_array_index(refs, 0));
  ref = add_references(&f, "reference_0", first, caps);
  for (guint i = 0; i < 4; i++) {
    const guint expected = MIN(i, 1);
    GstBuffer *clip;

    push_text(&f, i);
    if (i == 1) {
      gst_harness_push(ref, gst_buffer_ref(g_ptr_array_index(refs, 1)));
      gst_harness_push_event(ref, gst_event_new_eos());
    }
    clip = gst_harness_pull(f.h);
    fail_unless(clip != NULL);
    fail_unless(same_frame(clip, 0, g_ptr_array_index(refs, expected), 0), "clip %u", i);
    fail_if(same_frame(clip, 0, g_ptr_array_index(refs, 1 - expected), 0), "clip %u", i);
    gst_buffer_unref(clip);
  }
  gst_harness_teardown(ref);
  fixture_free(&f);
}
GST_END_TEST

/* The clip waits for its reference, even in a live pipeline, which a harness is. */
GST_START_TEST(test_wait)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(1, SIZE, 1, &caps);
  g_autoptr(GPtrArray) none = g_ptr_array_new();
  Fixture f = fixture_new(1, "");
  GstHarness *ref = add_references(&f, "reference_0", none, caps);
  GstBuffer *clip;

  gst_harness_use_systemclock(f.h);
  push_text(&f, 0);
  g_usleep(100 * G_TIME_SPAN_MILLISECOND);
  fail_if(gst_bus_have_pending(f.bus) && gst_bus_pop_filtered(f.bus, GST_MESSAGE_PROGRESS));
  gst_harness_push(ref, gst_buffer_ref(g_ptr_array_index(refs, 0)));
  clip = gst_harness_pull(f.h);
  fail_unless(clip != NULL);
  assert_equals_string(clip_meta(clip)->condition, "i2v-head");
  gst_buffer_unref(clip);
  gst_harness_teardown(ref);
  fixture_free(&f);
}
GST_END_TEST

/* A clip of nine latent frames goes on. */
GST_START_TEST(test_video)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(1, SIZE, 33, &caps);
  Fixture f = fixture_new(1, "");
  GstHarness *ref = add_references(&f, "reference_0", refs, caps);
  GstBuffer *clip;

  assert_equals_int(tensor_of(g_ptr_array_index(refs, 0), 0)->dims[0], 9);
  g_object_set(f.h->element, "num-frames", 49u, NULL);
  push_text(&f, 0);
  clip = gst_harness_pull(f.h);
  fail_unless(clip != NULL);
  assert_equals_string(clip_meta(clip)->condition, "v2v-head");
  assert_equals_int(tensor_of(clip, 0)->dims[0], 13);
  gst_buffer_unref(clip);
  gst_harness_teardown(ref);
  fixture_free(&f);
}
GST_END_TEST

GST_START_TEST(test_too_many)
{
  GstElement *denoise = gst_object_ref_sink(gst_element_factory_make("opensoradenoise", NULL));
  GstPad *pads[3];

  for (guint i = 0; i < 3; i++)
    pads[i] = gst_element_request_pad_simple(denoise, "reference_%u");
  fail_unless(pads[0] != NULL && pads[1] != NULL && pads[2] == NULL);
  assert_equals_string(GST_PAD_NAME(pads[0]), "reference_0");
  assert_equals_string(GST_PAD_NAME(pads[1]), "reference_1");
  gst_element_release_request_pad(denoise, pads[0]);
  gst_object_unref(pads[0]);
  pads[0] = gst_element_request_pad_simple(denoise, "reference_7");
  assert_equals_string(GST_PAD_NAME(pads[0]), "reference_7");
  for (guint i = 0; i < 2; i++) {
    gst_element_release_request_pad(denoise, pads[i]);
    gst_object_unref(pads[i]);
  }
  gst_object_unref(denoise);
}
GST_END_TEST

/* The size of the clip is heard on the reference pads, and another one is an error. */
GST_START_TEST(test_size)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(1, 2 * SIZE, 1, &caps);
  Fixture f = fixture_new(1, "");
  GstHarness *ref = add_references(&f, "reference_0", refs, caps);
  g_autoptr(GstPad) pad = gst_element_get_static_pad(f.h->element, "reference_0");
  g_autoptr(GstCaps) wanted = gst_pad_query_caps(pad, NULL);
  gint width, height;

  fail_unless(gst_structure_get_int(gst_caps_get_structure(wanted, 0), "width", &width));
  fail_unless(gst_structure_get_int(gst_caps_get_structure(wanted, 0), "height", &height));
  assert_equals_int(width, SIZE);
  assert_equals_int(height, SIZE);
  push_text(&f, 0);
  wait_error(f.bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, "[1, 8, 8, 16]");
  g_clear_object(&pad);
  gst_harness_teardown(ref);
  fixture_free(&f);
}
GST_END_TEST

/* A clip that cannot go on after the video begins with its first frame, and says so. */
GST_START_TEST(test_short_clip)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(1, SIZE, 33, &caps);
  Fixture f = fixture_new(1, "num-frames=33");
  GstHarness *ref = add_references(&f, "reference_0", refs, caps);
  GstMessage *warning;
  GstBuffer *clip;

  push_text(&f, 0);
  clip = gst_harness_pull(f.h);
  fail_unless(clip != NULL);
  assert_equals_string(clip_meta(clip)->condition, "i2v-head");
  warning = wait_message(f.bus, GST_MESSAGE_WARNING);
  gst_message_unref(warning);
  gst_buffer_unref(clip);
  gst_harness_teardown(ref);
  fixture_free(&f);
}
GST_END_TEST

/* A latent has to have the frames that the condition takes. */
GST_START_TEST(test_short_reference)
{
  static const struct {
    const char *condition, *needed;
  } cases[] = { { "v2v-head", "[9, 4, 4, 16]" },
                { "v2v-tail", "[9, 4, 4, 16]" },
                { "v2v-head-easy", "[17, 4, 4, 16]" },
                { "v2v-tail-easy", "[17, 4, 4, 16]" } };
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GPtrArray) refs = make_references(1, SIZE, 9, &caps);

  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *properties = g_strdup_printf("num-frames=73 condition=%s", cases[i].condition);
    Fixture f = fixture_new(1, properties);
    GstHarness *ref = add_references(&f, "reference_0", refs, caps);

    push_text(&f, 0);
    wait_error(f.bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_READ, cases[i].needed);
    gst_harness_teardown(ref);
    fixture_free(&f);
  }
}
GST_END_TEST

/* A condition that needs a reference does not do without. */
GST_START_TEST(test_no_reference)
{
  static const char *const conditions[] = {
    "i2v-head", "i2v-tail", "i2v-loop", "v2v-head", "v2v-tail", "v2v-head-easy", "v2v-tail-easy",
  };

  for (guint i = 0; i < G_N_ELEMENTS(conditions); i++) {
    g_autofree char *part =
        g_strdup_printf("\"%s\" needs a reference and there is none", conditions[i]);

    run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, part,
              "opensoratextsrc prompt=x ! " DENOISE "condition=%s ! appsink name=out",
              conditions[i]);
  }
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_SETTINGS, "\"image\" of opensorasrc",
            "opensorasrc prompt=x steps=1 num-frames=9 width=32 height=32 condition=i2v-head ! "
            "appsink name=out");
}
GST_END_TEST

/* Between elements: the picture takes the size of the clip by itself. */
GST_START_TEST(test_pipeline)
{
  g_autoptr(Run) r = run_ok(
      2, "videotestsrc num-buffers=1 ! video/x-raw,width=100,height=50 ! opensoravaeenc "
         "! d.reference_0 opensoratextsrc prompt=x num-samples=2 ! " DENOISE "! appsink name=out");

  for (guint i = 0; i < 2; i++)
    assert_equals_string(clip_meta(run_buffer(r, i))->condition, "i2v-head");
}
GST_END_TEST

/* What is linked goes before what the prompt names. */
GST_START_TEST(test_pad_first)
{
  g_autoptr(Run) r =
      run_ok(1, "videotestsrc pattern=red num-buffers=1 ! opensoravaeenc ! "
                "d.reference_0 opensoratextsrc prompt=x reference=/no/such/file ! " DENOISE
                "! appsink name=out");

  assert_equals_string(clip_meta(run_buffer(r, 0))->condition, "i2v-head");
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("references");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_head);
  tcase_add_test(tc, test_forced);
  tcase_add_test(tc, test_loop);
  tcase_add_test(tc, test_stream);
  tcase_add_test(tc, test_wait);
  tcase_add_test(tc, test_video);
  tcase_add_test(tc, test_short_clip);
  tcase_add_test(tc, test_short_reference);
  tcase_add_test(tc, test_no_reference);
  tcase_add_test(tc, test_too_many);
  tcase_add_test(tc, test_size);
  tcase_add_test(tc, test_pipeline);
  tcase_add_test(tc, test_pad_first);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
