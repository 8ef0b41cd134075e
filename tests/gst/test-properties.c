/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every element promises before it runs: factory, pad templates, properties.
 */
#include <string.h>

#include "common.h"

typedef struct {
  const char *name, *klass;
  const char *sink, *src; /* media types of the always pads, NULL: there is none */
  guint n_templates;
} Element;

static const Element elements[] = {
  { "opensoratextsrc", "Source/Text", NULL, GST_OPENSORA_CONDITIONING, 1 },
  { "opensoratextenc", "Encoder/Text", "text/x-raw", GST_OPENSORA_CONDITIONING, 2 },
  { "opensoradenoise", "Filter/Video", GST_OPENSORA_CONDITIONING, GST_OPENSORA_LATENT, 4 },
  { "opensoravaedec", "Codec/Decoder/Video", GST_OPENSORA_LATENT, "video/x-raw", 2 },
  { "opensoravaeenc", "Codec/Encoder/Video", "video/x-raw", GST_OPENSORA_LATENT, 2 },
  { "opensorasrc", "Source/Video", NULL, "video/x-raw", 2 },
  { "opensoraplayout", "Generic/Video", "video/x-raw", "video/x-raw", 2 },
};

static void
check_template(GstElementFactory *factory, const char *name, GstPadDirection direction,
               GstPadPresence presence, const char *media)
{
  const GList *templates = gst_element_factory_get_static_pad_templates(factory);

  for (const GList *l = templates; l; l = l->next) {
    GstStaticPadTemplate *templ = l->data;
    g_autoptr(GstCaps) caps = NULL;

    if (!g_str_equal(templ->name_template, name))
      continue;
    assert_equals_int(templ->direction, direction);
    assert_equals_int(templ->presence, presence);
    caps = gst_static_pad_template_get_caps(templ);
    fail_unless(!gst_caps_is_empty(caps) && !gst_caps_is_any(caps));
    for (guint i = 0; i < gst_caps_get_size(caps); i++)
      assert_equals_string(gst_structure_get_name(gst_caps_get_structure(caps, i)), media);
    if (!g_str_has_prefix(media, "application/x-opensora"))
      return;
    fail_unless(
        gst_caps_features_contains(gst_caps_get_features(caps, 0), GST_OPENSORA_MEMORY_FEATURE));
    return;
  }
  fail("no pad template %s", name);
}

GST_START_TEST(test_factory)
{
  const Element *e = &elements[__i__];
  GstElementFactory *factory = gst_element_factory_find(e->name);

  fail_unless(factory != NULL);
  assert_equals_string(gst_element_factory_get_metadata(factory, GST_ELEMENT_METADATA_KLASS),
                       e->klass);
  fail_unless(strlen(gst_element_factory_get_metadata(factory, GST_ELEMENT_METADATA_LONGNAME)) > 0);
  fail_unless(strlen(gst_element_factory_get_metadata(factory, GST_ELEMENT_METADATA_DESCRIPTION)) >
              0);
  assert_equals_int(gst_plugin_feature_get_rank(GST_PLUGIN_FEATURE(factory)), GST_RANK_NONE);
  assert_equals_int(gst_element_factory_get_num_pad_templates(factory), e->n_templates);
  if (e->sink)
    check_template(factory, "sink", GST_PAD_SINK, GST_PAD_ALWAYS, e->sink);
  check_template(factory, "src", GST_PAD_SRC, GST_PAD_ALWAYS, e->src);
  if (e->n_templates == 3)
    check_template(factory, "reference_%u", GST_PAD_SINK, GST_PAD_REQUEST, GST_OPENSORA_LATENT);
  gst_object_unref(factory);
}
GST_END_TEST

/* Sets @value and reads it back. */
static void
check_value(GObject *object, GParamSpec *pspec, const GValue *value)
{
  g_auto(GValue) back = G_VALUE_INIT;

  g_object_set_property(object, pspec->name, value);
  g_value_init(&back, G_PARAM_SPEC_VALUE_TYPE(pspec));
  g_object_get_property(object, pspec->name, &back);
  fail_unless(g_param_values_cmp(pspec, value, &back) == 0, "%s: %s", G_OBJECT_TYPE_NAME(object),
              pspec->name);
}

#define CHECK_RANGE(NAME, Name, type)                                                              \
  if (G_IS_PARAM_SPEC_##NAME(pspec)) {                                                             \
    GParamSpec##Name *p = G_PARAM_SPEC_##NAME(pspec);                                              \
                                                                                                   \
    fail_unless(p->minimum < p->maximum);                                                          \
    g_value_set_##type(&value, p->minimum);                                                        \
    check_value(object, pspec, &value);                                                            \
    g_value_set_##type(&value, p->maximum);                                                        \
    check_value(object, pspec, &value);                                                            \
    return;                                                                                        \
  }

static void
check_range(GObject *object, GParamSpec *pspec)
{
  g_auto(GValue) value = G_VALUE_INIT;

  g_value_init(&value, G_PARAM_SPEC_VALUE_TYPE(pspec));
  CHECK_RANGE(INT, Int, int)
  CHECK_RANGE(UINT, UInt, uint)
  CHECK_RANGE(INT64, Int64, int64)
  CHECK_RANGE(UINT64, UInt64, uint64)
  CHECK_RANGE(DOUBLE, Double, double)
  if (G_IS_PARAM_SPEC_BOOLEAN(pspec)) {
    g_value_set_boolean(&value, TRUE);
    check_value(object, pspec, &value);
    g_value_set_boolean(&value, FALSE);
  } else if (G_IS_PARAM_SPEC_ENUM(pspec)) {
    GEnumClass *klass = G_PARAM_SPEC_ENUM(pspec)->enum_class;

    for (guint i = 0; i < klass->n_values; i++) {
      fail_unless(strlen(klass->values[i].value_name) > 0);
      fail_unless(strlen(klass->values[i].value_nick) > 0);
      g_value_set_enum(&value, klass->values[i].value);
      check_value(object, pspec, &value);
    }
    g_value_set_enum(&value, G_PARAM_SPEC_ENUM(pspec)->default_value);
  } else if (G_IS_PARAM_SPEC_FLAGS(pspec)) {
    g_value_set_flags(&value, G_PARAM_SPEC_FLAGS(pspec)->flags_class->mask);
    check_value(object, pspec, &value);
    g_value_set_flags(&value, 0);
  } else if (G_IS_PARAM_SPEC_STRING(pspec)) {
    g_value_set_static_string(&value, "ein Wert: äöü");
    check_value(object, pspec, &value);
    g_value_set_string(&value, G_PARAM_SPEC_STRING(pspec)->default_value);
  } else {
    fail("%s: a property of type %s", pspec->name, G_PARAM_SPEC_TYPE_NAME(pspec));
  }
  check_value(object, pspec, &value);
}

GST_START_TEST(test_properties)
{
  GstElement *element = gst_element_factory_make(elements[__i__].name, NULL);
  g_autofree GParamSpec **pspecs = NULL;
  guint n, own = 0;

  fail_unless(element != NULL);
  gst_object_ref_sink(element);
  pspecs = g_object_class_list_properties(G_OBJECT_GET_CLASS(element), &n);
  for (guint i = 0; i < n; i++) {
    g_auto(GValue) value = G_VALUE_INIT;
    const char *blurb = g_param_spec_get_blurb(pspecs[i]);

    if (pspecs[i]->owner_type != G_OBJECT_TYPE(element))
      continue;
    own++;
    fail_unless(strlen(g_param_spec_get_nick(pspecs[i])) > 0, "%s", pspecs[i]->name);
    fail_unless(blurb && g_ascii_isupper(*blurb) && !g_str_has_suffix(blurb, "."), "%s: %s",
                pspecs[i]->name, blurb);
    fail_unless(pspecs[i]->flags & G_PARAM_READABLE);
    if (!(pspecs[i]->flags & G_PARAM_WRITABLE)) {
      static const char *const told[] = { "memory-stats", "stats", "queue-length", "current-id",
                                          NULL };

      fail_unless(g_strv_contains(told, pspecs[i]->name), "%s", pspecs[i]->name);
      continue;
    }
    fail_unless(pspecs[i]->flags & (GST_PARAM_MUTABLE_READY | GST_PARAM_MUTABLE_PLAYING), "%s",
                pspecs[i]->name);

    g_value_init(&value, G_PARAM_SPEC_VALUE_TYPE(pspecs[i]));
    g_object_get_property(G_OBJECT(element), pspecs[i]->name, &value);
    fail_unless(g_param_value_defaults(pspecs[i], &value), "%s is not at its default",
                pspecs[i]->name);
    check_range(G_OBJECT(element), pspecs[i]);
    check_value(G_OBJECT(element), pspecs[i], &value);
  }
  fail_unless(own >= 3);
  gst_object_unref(element);
}
GST_END_TEST

/* The bin has every property of the elements inside, with the same range and default. */
GST_START_TEST(test_bin_properties)
{
  static const char *const children[] = { "text", "denoise", "decode" };
  GstElement *bin = gst_object_ref_sink(gst_element_factory_make("opensorasrc", NULL));
  guint shared = 0;

  assert_equals_int(gst_child_proxy_get_children_count(GST_CHILD_PROXY(bin)), 3);
  for (guint c = 0; c < G_N_ELEMENTS(children); c++) {
    g_autoptr(GObject) child = gst_child_proxy_get_child_by_name(GST_CHILD_PROXY(bin), children[c]);
    g_autofree GParamSpec **pspecs = NULL;
    guint n;

    fail_unless(child != NULL);
    pspecs = g_object_class_list_properties(G_OBJECT_GET_CLASS(child), &n);
    for (guint i = 0; i < n; i++) {
      const gboolean image = g_str_equal(pspecs[i]->name, "reference");
      const char *name = image ? "image" : pspecs[i]->name;
      GParamSpec *own;

      if (pspecs[i]->owner_type != G_OBJECT_TYPE(child))
        continue;
      own = g_object_class_find_property(G_OBJECT_GET_CLASS(bin), name);
      fail_unless(own != NULL, "%s", name);
      assert_equals_string(g_type_name(G_PARAM_SPEC_TYPE(own)),
                           g_type_name(G_PARAM_SPEC_TYPE(pspecs[i])));
      assert_equals_string(g_param_spec_get_blurb(own), g_param_spec_get_blurb(pspecs[i]));
      fail_unless(g_param_values_cmp(own, g_param_spec_get_default_value(own),
                                     g_param_spec_get_default_value(pspecs[i])) == 0);
      /* What the bin is told reaches the child. */
      if (G_IS_PARAM_SPEC_STRING(own)) {
        g_autofree char *value = NULL;

        g_object_set(bin, name, name, NULL);
        g_object_get(child, pspecs[i]->name, &value, NULL);
        assert_equals_string(value, name);
        shared += g_str_equal(name, "model-location") || g_str_equal(name, "device");
      } else if (G_IS_PARAM_SPEC_UINT(own) && (own->flags & G_PARAM_WRITABLE)) {
        guint value;

        g_object_set(bin, name, 7u, NULL);
        g_object_get(child, name, &value, NULL);
        assert_equals_int(value, 7);
      }
    }
  }
  assert_equals_int(shared, 6); /* two of all three */
  gst_object_unref(bin);
}
GST_END_TEST

GST_START_TEST(test_child_proxy)
{
  GstElement *bin = gst_object_ref_sink(gst_element_factory_make("opensorasrc", NULL));
  g_autofree char *prompt = NULL;
  guint steps, tiling;

  gst_child_proxy_set(GST_CHILD_PROXY(bin), "text::prompt", "a cat", "denoise::steps", 3u,
                      "decode::tiling", 1u, NULL);
  g_object_get(bin, "prompt", &prompt, "steps", &steps, "tiling", &tiling, NULL);
  assert_equals_string(prompt, "a cat");
  assert_equals_int(steps, 3);
  assert_equals_int(tiling, 1);
  fail_unless(GST_OBJECT_FLAG_IS_SET(bin, GST_ELEMENT_FLAG_SOURCE));
  gst_object_unref(bin);
}
GST_END_TEST

static guint64
stat_of(GstElement *element, const char *name)
{
  GstStructure *stats = NULL;
  guint64 value;

  g_object_get(element, "memory-stats", &stats, NULL);
  fail_unless(stats != NULL);
  assert_equals_string(gst_structure_get_string(stats, "device"),
                       osr_device_get_name(common_device()));
  fail_unless(gst_structure_get_uint64(stats, name, &value), "%s", name);
  gst_structure_free(stats);
  return value;
}

#define LIMITED "memory-limit=3000000000 "
#define DENOISE "opensoradenoise steps=1 num-frames=1 width=32 height=32 "

/* Each element has its device's memory, and sets the limit that it is told to set. */
GST_START_TEST(test_memory)
{
  static const char *const pipelines[] = {
    "opensoratextsrc name=e prompt=x " LIMITED "! fakesink",
    "opensoratextsrc prompt=x ! " DENOISE "name=e " LIMITED "! fakesink",
    "opensoratextsrc prompt=x ! " DENOISE "! opensoravaedec name=e " LIMITED "! fakesink",
    "videotestsrc num-buffers=1 ! opensoravaeenc name=e " LIMITED "! fakesink",
    "opensorasrc name=e prompt=x steps=1 num-frames=1 width=32 height=32 " LIMITED "! fakesink",
    "fakesrc num-buffers=1 ! text/x-raw,format=utf8 ! opensoratextenc name=e " LIMITED "! fakesink",
  };
  GstElement *pipeline = gst_parse_launch(pipelines[__i__], NULL);
  GstElement *element = child(pipeline, "e");
  OsrPool *pool = osr_device_get_pool(common_device());
  GstStructure *stats = NULL;
  OsrPoolStats before;
  guint64 limit;

  g_object_get(element, "memory-stats", &stats, "memory-limit", &limit, NULL);
  fail_unless(stats == NULL);
  assert_equals_uint64(limit, 3000000000);
  osr_pool_get_stats(pool, &before);
  assert_equals_uint64(before.limit, 0);
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  assert_equals_uint64(stat_of(element, "limit"), 3000000000);
  gst_element_set_state(pipeline, GST_STATE_READY);

  /* Without a wish of its own it leaves the device as others have set it. */
  g_object_set(element, "memory-limit", (guint64) 0, NULL);
  osr_pool_set_limit(pool, 2000000000);
  gst_element_set_state(pipeline, GST_STATE_PAUSED);
  assert_equals_uint64(stat_of(element, "limit"), 2000000000);
  fail_unless(stat_of(element, "reserved") >= stat_of(element, "allocated"));
  fail_unless(stat_of(element, "peak-reserved") >= stat_of(element, "peak-allocated"));
  fail_unless(stat_of(element, "allocations") >= before.n_allocs);
  g_object_set(element, "memory-limit", (guint64) 1 << 40, NULL);
  assert_equals_uint64(stat_of(element, "limit"), (guint64) 1 << 40);
  g_object_set(element, "memory-limit", (guint64) 0, NULL);
  assert_equals_uint64(stat_of(element, "limit"), 0);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_object_unref(pipeline);
}
GST_END_TEST

/* A limit that is too low for the model's weights. */
GST_START_TEST(test_memory_limit)
{
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT, ", limit 97",
            "opensorasrc prompt=x steps=1 num-frames=1 width=32 height=32 memory-limit=1000000 ! "
            "appsink name=out");
}
GST_END_TEST

/* An empty string is no value. */
GST_START_TEST(test_empty_strings)
{
  GstElement *denoise = gst_object_ref_sink(gst_element_factory_make("opensoradenoise", NULL));
  g_autofree char *location = NULL;
  g_autofree char *device = NULL;
  g_autofree char *resolution = NULL;

  g_object_set(denoise, "model-location", "", "device", "", "resolution", "", NULL);
  g_object_get(denoise, "model-location", &location, "device", &device, "resolution", &resolution,
               NULL);
  fail_unless(location == NULL);
  assert_equals_string(device, "auto");
  fail_unless(resolution == NULL);
  gst_object_unref(denoise);
}
GST_END_TEST

/* A missing model folder, a missing device and what a device cannot do are errors of the element
 * that wants them. */
GST_START_TEST(test_start_errors)
{
  static const char *const pipelines[] = {
    "opensoratextsrc prompt=x %s ! appsink name=out",
    "opensoratextsrc prompt=x ! opensoradenoise %s ! appsink name=out",
    "opensoratextsrc prompt=x ! opensoradenoise ! opensoravaedec %s ! appsink name=out",
    "videotestsrc num-buffers=1 ! opensoravaeenc %s ! appsink name=out",
    "opensorasrc prompt=x %s ! appsink name=out",
    "fakesrc num-buffers=1 ! text/x-raw,format=utf8 ! opensoratextenc %s ! appsink name=out",
  };
  g_autofree char *no_folder = g_strdup_printf(pipelines[__i__], "model-location=/no/such/folder");
  g_autofree char *no_device = g_strdup_printf(pipelines[__i__], "device=cuda:99");
  g_autofree char *bad_device = g_strdup_printf(pipelines[__i__], "device=abacus");
  g_autofree char *bad_dtype = g_strdup_printf(pipelines[__i__], "device=cpu dtype=bf16");

  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "/no/such/folder", "%s", no_folder);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "cuda:99", "%s", no_device);
  run_fails(GST_STREAM_ERROR, GST_STREAM_ERROR_NOT_IMPLEMENTED, "BF16", "%s", bad_dtype);
  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "abacus", "%s", bad_device);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensora-properties");
  TCase *tc = common_case(suite, "general");

  tcase_add_loop_test(tc, test_factory, 0, G_N_ELEMENTS(elements));
  tcase_add_loop_test(tc, test_properties, 0, G_N_ELEMENTS(elements));
  tcase_add_test(tc, test_bin_properties);
  tcase_add_test(tc, test_child_proxy);
  tcase_add_loop_test(tc, test_memory, 0, 6);
  tcase_add_test(tc, test_memory_limit);
  tcase_add_test(tc, test_empty_strings);
  tcase_add_loop_test(tc, test_start_errors, 0, 6);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
