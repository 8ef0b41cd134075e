/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Presets set what docs/elements.md says, and nothing else.
 */
#include <glib/gstdio.h>
#include <string.h>

#include "common.h"

static const char *const names[] = { "fast",          "balanced",   "quality",
                                     "rtx4090-256px", "a100-768px", "h100-768px" };
#define N_NAMES G_N_ELEMENTS(names)

static const char *const elements[] = { "opensorasrc", "opensoradenoise" };

/* The properties that the row of @name in the table documents: a list of "NAME=VALUE". */
static GStrv
documented(const char *name, gboolean of_source)
{
  g_autofree char *row_start = g_strdup_printf("\n| `%s` | ", name);
  g_autofree char *text = NULL;
  g_auto(GStrv) cells = NULL;
  g_auto(GStrv) words = NULL;
  g_autofree char *line = NULL;
  g_autofree char *cell = NULL;
  GPtrArray *found = g_ptr_array_new();
  const char *row;

  fail_unless(g_file_get_contents(g_getenv("OPENSORA_ELEMENTS_MD"), &text, NULL, NULL));
  row = strstr(text, row_start);
  fail_unless(row != NULL, "%s is not documented", name);
  line = g_strndup(row + 1, strcspn(row + 1, "\n"));
  cells = g_strsplit(line, "|", -1);
  fail_unless(g_strv_length(cells) == 6);
  cell = g_strconcat(cells[3], of_source ? cells[4] : "", NULL);
  words = g_strsplit(cell, "`", -1);
  for (guint i = 0; words[i]; i++)
    if (strchr(words[i], '='))
      g_ptr_array_add(found, g_strdup(words[i]));
  g_ptr_array_add(found, NULL);
  return (GStrv) g_ptr_array_free(found, FALSE);
}

/* Whether the property of @object is what @text says, or what @fresh has if it says nothing. */
static gboolean
is_set_to(GObject *object, GParamSpec *pspec, const char *text, GObject *fresh)
{
  g_auto(GValue) value = G_VALUE_INIT;
  g_auto(GValue) wanted = G_VALUE_INIT;

  g_value_init(&value, pspec->value_type);
  g_value_init(&wanted, pspec->value_type);
  g_object_get_property(object, pspec->name, &value);
  if (text)
    fail_unless(gst_value_deserialize_with_pspec(&wanted, text, pspec));
  else
    g_object_get_property(fresh, pspec->name, &wanted);
  return g_param_values_cmp(pspec, &value, &wanted) == 0;
}

/* The value of @name in @list, NULL: it is not there. */
static const char *
lookup(const GStrv list, const char *name)
{
  for (guint i = 0; list[i]; i++)
    if (g_str_has_prefix(list[i], name) && list[i][strlen(name)] == '=')
      return list[i] + strlen(name) + 1;
  return NULL;
}

GST_START_TEST(test_values)
{
  const char *name = names[__i__ % N_NAMES];
  const char *factory = elements[__i__ / N_NAMES];
  g_auto(GStrv) wanted = documented(name, g_str_equal(factory, "opensorasrc"));
  GstElement *fresh = gst_object_ref_sink(gst_element_factory_make(factory, NULL));
  GstElement *element = gst_object_ref_sink(gst_element_factory_make(factory, NULL));
  g_autofree GParamSpec **pspecs = NULL;
  g_autofree char *comment = NULL;
  guint n, found = 0;

  fail_unless(gst_preset_load_preset(GST_PRESET(element), name));
  pspecs = g_object_class_list_properties(G_OBJECT_GET_CLASS(element), &n);
  for (guint i = 0; i < n; i++) {
    const char *value = lookup(wanted, pspecs[i]->name);

    if ((pspecs[i]->flags & G_PARAM_READWRITE) != G_PARAM_READWRITE ||
        g_str_equal(pspecs[i]->name, "name") || pspecs[i]->value_type == GST_TYPE_OBJECT)
      continue;
    found += value != NULL;
    fail_unless(is_set_to(G_OBJECT(element), pspecs[i], value, G_OBJECT(fresh)),
                "%s of %s, preset %s", pspecs[i]->name, factory, name);
  }
  assert_equals_int(found, g_strv_length(wanted));
  fail_unless(gst_preset_get_meta(GST_PRESET(element), name, "comment", &comment));
  gst_object_unref(element);
  gst_object_unref(fresh);
}
GST_END_TEST

GST_START_TEST(test_names)
{
  GstElement *element = gst_object_ref_sink(gst_element_factory_make(elements[__i__], NULL));
  g_auto(GStrv) found = gst_preset_get_preset_names(GST_PRESET(element));

  assert_equals_int(g_strv_length(found), N_NAMES);
  for (guint i = 0; i < N_NAMES; i++)
    fail_unless(g_strv_contains((const char *const *) found, names[i]), "%s", names[i]);
  gst_object_unref(element);
}
GST_END_TEST

/* Presets of one's own. */
GST_START_TEST(test_saved)
{
  GstElement *element = gst_object_ref_sink(gst_element_factory_make("opensorasrc", NULL));
  g_autofree char *file = g_build_filename(g_get_user_data_dir(), "gstreamer-1.0", "presets",
                                           "GstOpenSoraSrc.prs", NULL);
  guint steps;

  g_object_set(element, "steps", 7u, NULL);
  fail_unless(gst_preset_save_preset(GST_PRESET(element), "mine"));
  g_object_set(element, "steps", 8u, NULL);
  fail_unless(gst_preset_load_preset(GST_PRESET(element), "mine"));
  g_object_get(element, "steps", &steps, NULL);
  assert_equals_int(steps, 7);
  fail_unless(g_unlink(file) == 0); /* ours were saved with it, and would be taken for ours */
  gst_object_unref(element);
}
GST_END_TEST

/* In a description. GStreamer of 1.22 sets properties before presets, wherever they stand. */
GST_START_TEST(test_launch)
{
  g_autoptr(GError) error = NULL;
  GstElement *bin =
      gst_parse_launch("opensorasrc name=s @preset=quality num-frames=9 ! fakesink", &error);
  guint steps, frames;

  g_assert_no_error(error);
  g_object_get(child(bin, "s"), "steps", &steps, "num-frames", &frames, NULL);
  assert_equals_int(steps, 75);
  assert_equals_int(frames, 9);
  gst_object_unref(bin);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("presets");
  TCase *tc = common_case(suite, "general");

  tcase_add_loop_test(tc, test_values, 0, G_N_ELEMENTS(elements) * N_NAMES);
  tcase_add_loop_test(tc, test_names, 0, G_N_ELEMENTS(elements));
  tcase_add_test(tc, test_saved);
  tcase_add_test(tc, test_launch);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
