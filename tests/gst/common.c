/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common.h"

#include <glib/gstdio.h>
#include <gst/app/gstappsink.h>
#include <string.h>

/* Where each test finds what it holds from setup() to teardown(). */
static struct {
  GstTracer *leaks;
  OsrDevice *device;
  OsrModelDir *dir;
  char *folder;
  GPtrArray *clips; /* Clip */
} state;

/* Elements of other plug-ins that the tests use, by the plug-in that has them. Loading them
 * by name keeps the registry, and the tests, independent of what else is installed. */
static const char *const plugins[] = {
  "app",         "avi", "coreelements",      "coretracers",
  "playback",    "png", "typefindfunctions", "videoconvertscale",
  "videotestsrc"
};

static void
load_plugins(void)
{
  GstPlugin *own;

  for (guint i = 0; i < G_N_ELEMENTS(plugins); i++) {
    g_autofree char *path = g_strdup_printf("%s/libgst%s.so", GST_PLUGINS_DIR, plugins[i]);
    GstPlugin *plugin = gst_plugin_load_file(path, NULL);

    /* Where the tests were brought along they are elsewhere, and in the registry. */
    if (!plugin)
      plugin = gst_plugin_load_by_name(plugins[i]);
    gst_clear_object(&plugin);
  }
  own = gst_plugin_load_by_name("opensora");
  if (!own)
    g_error("the plug-in is not in GST_PLUGIN_PATH_1_0");
  gst_object_unref(own);
}

/* From here on objects are counted. */
static void
setup(void)
{
  GstPluginFeature *feature = gst_registry_lookup_feature(gst_registry_get(), "leaks");
  GError *error = NULL;

  fail_unless(feature != NULL);
  state.leaks = g_object_new(gst_tracer_factory_get_tracer_type(GST_TRACER_FACTORY(feature)), NULL);
  gst_object_unref(feature);

  state.device = osr_device_get("auto", &error);
  g_assert_no_error(error);
  state.dir = osr_model_dir_open(NULL, &error);
  g_assert_no_error(error);
  state.folder = g_dir_make_tmp("opensora-XXXXXX", &error);
  g_assert_no_error(error);
  state.clips = g_ptr_array_new_with_free_func(g_free);
}

/* The structure is not freed: it holds the only references, as it were, to what it lists. */
static char *
list_live_objects(void)
{
  GstStructure *info = NULL;
  const GValue *list;
  GString *text = g_string_new(NULL);

  g_signal_emit_by_name(state.leaks, "get-live-objects", &info);
  list = gst_structure_get_value(info, "live-objects-list");
  for (guint i = 0; i < gst_value_list_get_size(list); i++) {
    g_autofree char *object = gst_value_serialize(gst_value_list_get_value(list, i));

    g_string_append_printf(text, "\n  %s", object);
  }
  return g_string_free(text, FALSE);
}

static void
remove_folder(void)
{
  GDir *dir = g_dir_open(state.folder, 0, NULL);
  const char *name;

  while ((name = g_dir_read_name(dir))) {
    g_autofree char *path = g_build_filename(state.folder, name, NULL);

    g_unlink(path);
  }
  g_dir_close(dir);
  g_rmdir(state.folder);
}

/* Threads that end on their own may still hold something for a moment. */
static void
teardown(void)
{
  g_autofree char *alive = NULL;
  OsrPoolStats stats;

  for (guint i = 0; i < 100; i++) {
    g_free(alive);
    alive = list_live_objects();
    osr_pool_get_stats(osr_device_get_pool(state.device), &stats);
    if (!*alive && stats.allocated == 0)
      break;
    g_usleep(20 * G_TIME_SPAN_MILLISECOND);
  }
  fail_unless(*alive == '\0', "leaked objects:%.1000s", alive);
  fail_unless(stats.allocated == 0, "leaked tensors of %" G_GUINT64_FORMAT " bytes",
              stats.allocated);
  remove_folder();
  g_ptr_array_unref(state.clips);
  g_free(state.folder);
  osr_model_dir_free(state.dir);
  osr_device_unref(state.device);
}

TCase *
common_case(Suite *suite, const char *name)
{
  TCase *tcase = tcase_create(name);

  tcase_add_checked_fixture(tcase, setup, teardown);
  suite_add_tcase(suite, tcase);
  return tcase;
}

int
common_main_with(int argc, char **argv, Suite *(*make_suite)(void), const char *const *needed)
{
  gst_check_init(&argc, &argv);
  load_plugins();
  for (guint i = 0; needed[i]; i++) {
    GstElementFactory *factory = gst_element_factory_find(needed[i]);

    if (!factory) {
      g_print("skipped: there is no element %s\n", needed[i]);
      return 77;
    }
    gst_object_unref(factory);
  }
  return gst_check_run_suite(make_suite(), argv[0], argv[0]);
}

int
common_main(int argc, char **argv, Suite *(*make_suite)(void) )
{
  static const char *const nothing[] = { NULL };

  return common_main_with(argc, argv, make_suite, nothing);
}

OsrDevice *
common_device(void)
{
  return state.device;
}

const OsrModelDir *
common_model_dir(void)
{
  return state.dir;
}

char *
temp_path(const char *name)
{
  return g_build_filename(state.folder, name, NULL);
}

char *
temp_file(const char *name, const char *contents, gssize length)
{
  char *path = temp_path(name);

  fail_unless(g_file_set_contents(path, contents, length, NULL));
  return path;
}

/* Buffers */

static const char *
get_string(const GstStructure *s, const char *field)
{
  return g_intern_string(gst_structure_get_string(s, field));
}

const Clip *
clip_meta(GstBuffer *buffer)
{
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, "GstOpenSoraClipMeta");
  Clip *clip = g_new0(Clip, 1);
  const GstStructure *s;

  g_ptr_array_add(state.clips, clip);
  fail_unless(meta != NULL);
  s = gst_custom_meta_get_structure(meta);
  clip->n_fields = (guint) gst_structure_n_fields(s);
  clip->prompt = get_string(s, "prompt");
  clip->negative_prompt = get_string(s, "negative-prompt");
  clip->model = get_string(s, "model");
  clip->reference = get_string(s, "reference");
  clip->condition = get_string(s, "condition");
  clip->tag = get_string(s, "tag");
  gst_structure_get_uint64(s, "id", &clip->id);
  gst_structure_get_uint64(s, "seed", &clip->seed);
  gst_structure_get_uint(s, "clip", &clip->clip);
  gst_structure_get_uint(s, "motion-score", &clip->motion_score);
  gst_structure_get_uint(s, "steps", &clip->steps);
  gst_structure_get_uint(s, "frames", &clip->frames);
  gst_structure_get_uint(s, "width", &clip->width);
  gst_structure_get_uint(s, "height", &clip->height);
  gst_structure_get_fraction(s, "framerate", &clip->fps_n, &clip->fps_d);
  gst_structure_get_double(s, "guidance", &clip->guidance);
  gst_structure_get_double(s, "guidance-image", &clip->guidance_image);
  gst_structure_get_double(s, "flow-shift", &clip->flow_shift);
  gst_structure_get_boolean(s, "decorate", &clip->decorate);
  gst_structure_get_boolean(s, "text-oscillation", &clip->text_oscillation);
  gst_structure_get_boolean(s, "image-oscillation", &clip->image_oscillation);
  gst_structure_get_boolean(s, "temporal-scaling", &clip->temporal_scaling);
  gst_structure_get_boolean(s, "shift", &clip->shift);
  return clip;
}

OsrTensor *
tensor_of(GstBuffer *buffer, guint i)
{
  GstMemory *memory;

  fail_unless(i < gst_buffer_n_memory(buffer));
  memory = gst_buffer_peek_memory(buffer, i);
  fail_unless(gst_memory_is_type(memory, GST_OPENSORA_MEMORY_TYPE));
  return ((GstOpenSoraMemory *) memory)->tensor;
}

gboolean
same_tensors(GstBuffer *a, GstBuffer *b)
{
  if (gst_buffer_n_memory(a) != gst_buffer_n_memory(b))
    return FALSE;
  for (guint i = 0; i < gst_buffer_n_memory(a); i++) {
    const OsrTensor *x = tensor_of(a, i), *y = tensor_of(b, i);
    GstMapInfo map_x, map_y;
    gboolean same;

    if (x->n_dims != y->n_dims || memcmp(x->dims, y->dims, x->n_dims * sizeof *x->dims) != 0)
      return FALSE;
    fail_unless(gst_memory_map(gst_buffer_peek_memory(a, i), &map_x, GST_MAP_READ));
    fail_unless(gst_memory_map(gst_buffer_peek_memory(b, i), &map_y, GST_MAP_READ));
    same = map_x.size == map_y.size && memcmp(map_x.data, map_y.data, map_x.size) == 0;
    gst_memory_unmap(map_x.memory, &map_x);
    gst_memory_unmap(map_y.memory, &map_y);
    if (!same)
      return FALSE;
  }
  return TRUE;
}

void
assert_same_tensors(GstBuffer *a, GstBuffer *b)
{
  fail_unless(same_tensors(a, b));
}

gboolean
same_frame(GstBuffer *clip, gint t, GstBuffer *reference, gint u)
{
  const OsrTensor *a = tensor_of(clip, 0), *b = tensor_of(reference, 0);
  const gsize size = (gsize) (a->dims[1] * a->dims[2] * a->dims[3]) * sizeof(float);

  assert_equals_int(a->dims[1], b->dims[1]);
  assert_equals_int(a->dims[2], b->dims[2]);
  t = t < 0 ? (gint) a->dims[0] + t : t;
  return memcmp((const guint8 *) a->data + (gsize) t * size,
                (const guint8 *) b->data + (gsize) u * size, size) == 0;
}

/* Pipelines */

static void
count_down(gpointer alive, GObject *object)
{
  g_atomic_int_add((gint *) alive, -1);
}

/* A message that is on its way in a thread of its own holds its element for a moment. */
static void
assert_gone(guint *alive)
{
  for (guint i = 0; i < 100 && g_atomic_int_get(alive) > 0; i++)
    g_usleep(20 * G_TIME_SPAN_MILLISECOND);
  fail_unless(g_atomic_int_get(alive) == 0, "%d elements are still alive", g_atomic_int_get(alive));
}

GstElement *
child(GstElement *bin, const char *name)
{
  GstElement *element = gst_bin_get_by_name(GST_BIN(bin), name);

  fail_unless(element != NULL, "%s", name);
  gst_object_unref(element); /* the bin has it */
  return element;
}

static void
check_error(const GError *error, GQuark domain, int code, const char *part)
{
  fail_unless(g_error_matches(error, domain, code), "%s %d: %s", g_quark_to_string(error->domain),
              error->code, error->message);
  fail_unless(strstr(error->message, part) != NULL, "\"%s\" is not in: %s", part, error->message);
}

static void
take_messages(Run *self)
{
  g_autoptr(GstBus) bus = gst_element_get_bus(self->pipeline);
  GstMessage *message;

  while ((message = gst_bus_pop(bus))) {
    g_ptr_array_add(self->messages, message);
    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR && !self->error)
      gst_message_parse_error(message, &self->error, NULL);
    self->eos |= GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS;
  }
}

Run *
run_pipeline(GstElement *pipeline)
{
  Run *self = g_new0(Run, 1);
  GstElement *out = child(pipeline, "out");
  const gint64 end = g_get_monotonic_time() + (gint64) (WAIT_TIME / 1000);

  fail_unless(GST_IS_APP_SINK(out));
  self->pipeline = pipeline;
  self->samples = g_ptr_array_new_with_free_func((GDestroyNotify) gst_sample_unref);
  self->messages = g_ptr_array_new_with_free_func((GDestroyNotify) gst_message_unref);
  g_object_set(out, "sync", FALSE, NULL);

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  while (!self->error && !self->eos) {
    GstSample *sample = gst_app_sink_try_pull_sample(GST_APP_SINK(out), 10 * (guint64) GST_MSECOND);

    if (sample)
      g_ptr_array_add(self->samples, sample);
    else
      take_messages(self);
    fail_unless(g_get_monotonic_time() < end, "the pipeline did not end");
  }
  return self;
}

static Run *
run_va(const char *format, va_list args)
{
  g_autofree char *description = g_strdup_vprintf(format, args);
  g_autoptr(GError) error = NULL;
  GstElement *pipeline = gst_parse_launch(description, &error);

  fail_unless(error == NULL, "%s: %s", description, error ? error->message : NULL);
  return run_pipeline(pipeline);
}

Run *
run(const char *format, ...)
{
  va_list args;
  Run *self;

  va_start(args, format);
  self = run_va(format, args);
  va_end(args);
  return self;
}

Run *
run_ok(guint n, const char *format, ...)
{
  va_list args;
  Run *self;

  va_start(args, format);
  self = run_va(format, args);
  va_end(args);
  fail_unless(self->error == NULL, "%s", self->error ? self->error->message : NULL);
  assert_equals_int(self->samples->len, n);
  return self;
}

void
run_fails(GQuark domain, int code, const char *part, const char *format, ...)
{
  g_autoptr(Run) self = NULL;
  va_list args;

  va_start(args, format);
  self = run_va(format, args);
  va_end(args);
  fail_unless(self->error != NULL, "%s: no error", format);
  check_error(self->error, domain, code, part);
}

/* The tracer does not see aggregators, which hide their making from it, so: by hand. */
static void
watch_element(const GValue *item, gpointer alive)
{
  g_object_weak_ref(g_value_get_object(item), count_down, alive);
  ++*(guint *) alive;
}

void
run_free(Run *self)
{
  GstIterator *elements = gst_bin_iterate_recurse(GST_BIN(self->pipeline));
  guint alive = 0;

  gst_iterator_foreach(elements, watch_element, &alive);
  gst_iterator_free(elements);
  gst_element_set_state(self->pipeline, GST_STATE_NULL);
  gst_object_unref(self->pipeline);
  g_ptr_array_unref(self->messages);
  assert_gone(&alive);
  g_ptr_array_unref(self->samples);
  g_clear_error(&self->error);
  g_free(self);
}

GstBuffer *
run_buffer(Run *self, guint i)
{
  fail_unless(i < self->samples->len);
  return gst_sample_get_buffer(g_ptr_array_index(self->samples, i));
}

const GstStructure *
run_caps(Run *self, guint i)
{
  fail_unless(i < self->samples->len);
  return gst_caps_get_structure(gst_sample_get_caps(g_ptr_array_index(self->samples, i)), 0);
}

GstMessage *
wait_message(GstBus *bus, GstMessageType type)
{
  GstMessage *message = gst_bus_timed_pop_filtered(bus, WAIT_TIME, type | GST_MESSAGE_ERROR);

  fail_unless(message != NULL, "no message came");
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR && !(type & GST_MESSAGE_ERROR)) {
    g_autoptr(GError) error = NULL;

    gst_message_parse_error(message, &error, NULL);
    fail("%s", error->message);
  }
  return message;
}

void
wait_error(GstBus *bus, GQuark domain, int code, const char *part)
{
  g_autoptr(GstMessage) message = wait_message(bus, GST_MESSAGE_ERROR);
  g_autoptr(GError) error = NULL;

  gst_message_parse_error(message, &error, NULL);
  check_error(error, domain, code, part);
}

void
wait_progress(GstBus *bus, const char *stage)
{
  for (;;) {
    g_autoptr(GstMessage) message = wait_message(bus, GST_MESSAGE_ELEMENT);
    const GstStructure *s = gst_message_get_structure(message);

    if (gst_structure_has_name(s, "opensora-progress") &&
        g_str_equal(gst_structure_get_string(s, "stage"), stage))
      return;
  }
}

/* Harnesses */

GstHarness *
harness(GstBus **bus, const char *format, ...)
{
  g_autofree char *description = NULL;
  GstElement *element;
  GstHarness *h;
  va_list args;

  va_start(args, format);
  description = g_strdup_vprintf(format, args);
  va_end(args);
  element = gst_parse_launch(description, NULL);
  fail_unless(element != NULL, "%s", description);
  gst_object_ref_sink(element);
  *bus = gst_bus_new();
  gst_element_set_bus(element, *bus);
  h = gst_harness_new_with_element(element, "sink", "src");
  gst_object_unref(element);
  return h;
}

void
harness_free(GstHarness *h, GstBus *bus)
{
  guint alive = 1;

  g_object_weak_ref(G_OBJECT(h->element), count_down, &alive);
  gst_element_set_bus(h->element, NULL);
  gst_bus_set_flushing(bus, TRUE);
  gst_object_unref(bus);
  gst_harness_teardown(h);
  assert_gone(&alive);
}

GPtrArray *
make_conditioning(guint n, GstCaps **caps)
{
  g_autoptr(Run) source =
      run_ok(n, "opensoratextsrc prompt=\"a red circle\" num-samples=%u ! appsink name=out", n);
  GPtrArray *buffers = g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref);

  for (guint i = 0; i < n; i++)
    g_ptr_array_add(buffers, gst_buffer_ref(run_buffer(source, i)));
  *caps = gst_caps_ref(gst_sample_get_caps(g_ptr_array_index(source->samples, 0)));
  return buffers;
}

GstBuffer *
make_latent(guint width, guint height, guint frames, const char *rate, GstCaps **caps)
{
  g_autoptr(Run) source =
      run_ok(1,
             "videotestsrc pattern=ball num-buffers=%u ! video/x-raw,format=RGB,width=%u,height=%u,"
             "framerate=%s ! opensoravaeenc num-frames=%u ! appsink name=out",
             frames, width, height, rate, frames);

  *caps = gst_caps_ref(gst_sample_get_caps(g_ptr_array_index(source->samples, 0)));
  return gst_buffer_ref(run_buffer(source, 0));
}
