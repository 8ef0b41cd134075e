/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Previews: the request pad of opensoradenoise and opensorasrc. */
#include <glib/gstdio.h>
#include <gst/app/gstappsink.h>
#include <gst/video/video.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common.h"

/* Three latent frames of 8 x 6. */
#define SMALL "num-frames=9 width=64 height=48 "
#define T 3
#define PROMPT "prompt=\"a red circle moving right on a blue background\" "
/* Sinks that let the pipeline play before the clip is made. */
#define OUT " ! appsink name=out async=false sync=false wait-on-eos=false "
#define VIEW "s.preview ! appsink name=view async=false sync=false wait-on-eos=false "

/**
 * Show:
 *
 * A pipeline whose denoiser waits after each preview until it has come out, so that none gives way
 * to a newer one.
 */
typedef struct {
  GstElement *pipeline;
  GstBus *bus;
  GPtrArray *frames; /* GstSample of previews */
  guint interval;    /* of the previews; 0: nothing is waited for */
  GMutex lock;
  GCond cond;
  guint seen; /* the last step whose whole preview came out */
  gint n_warnings;
} Show;

static guint
meta_uint(GstBuffer *buffer, const char *field)
{
  GstCustomMeta *meta = gst_buffer_get_custom_meta(buffer, "GstOpenSoraClipMeta");
  guint value;

  fail_unless(meta != NULL);
  fail_unless(gst_structure_get_uint(gst_custom_meta_get_structure(meta), field, &value), "%s",
              field);
  return value;
}

static GstFlowReturn
on_frame(GstAppSink *sink, gpointer user_data)
{
  Show *self = user_data;
  GstSample *sample = gst_app_sink_pull_sample(sink);
  GstBuffer *buffer = gst_sample_get_buffer(sample);
  const GstSegment *segment = gst_sample_get_segment(sample);

  g_mutex_lock(&self->lock);
  g_ptr_array_add(self->frames, sample);
  if (GST_BUFFER_PTS(buffer) + GST_BUFFER_DURATION(buffer) >= segment->stop)
    self->seen = meta_uint(buffer, "step");
  g_cond_broadcast(&self->cond);
  g_mutex_unlock(&self->lock);
  return GST_FLOW_OK;
}

/* In the denoiser's thread, before the step's own preview. */
static GstBusSyncReply
on_message(GstBus *bus, GstMessage *message, gpointer user_data)
{
  Show *self = user_data;
  const GstStructure *s = gst_message_get_structure(message);
  const gint64 end = g_get_monotonic_time() + (gint64) (WAIT_TIME / 1000);
  guint step;

  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_WARNING)
    g_atomic_int_inc(&self->n_warnings);
  if (!gst_message_has_name(message, "opensora-progress") || self->interval == 0 ||
      !g_str_equal(gst_structure_get_string(s, "stage"), "denoise"))
    return GST_BUS_PASS;
  fail_unless(gst_structure_get_uint(s, "step", &step));
  if (step == 1 || (step - 1) % self->interval != 0)
    return GST_BUS_PASS;
  g_mutex_lock(&self->lock);
  while (self->seen != step - 1)
    fail_unless(g_cond_wait_until(&self->cond, &self->lock, end), "no preview of step %u",
                step - 1);
  g_mutex_unlock(&self->lock);
  return GST_BUS_PASS;
}

static Show *
show_new(guint interval, const char *description)
{
  Show *self = g_new0(Show, 1);
  GstAppSinkCallbacks callbacks = { .new_sample = on_frame };
  g_autoptr(GError) error = NULL;
  GstElement *view;

  self->pipeline = gst_parse_launch(description, &error);
  g_assert_no_error(error);
  self->bus = gst_element_get_bus(self->pipeline);
  self->frames = g_ptr_array_new_with_free_func((GDestroyNotify) gst_sample_unref);
  self->interval = interval;
  g_mutex_init(&self->lock);
  g_cond_init(&self->cond);
  gst_bus_set_sync_handler(self->bus, on_message, self, NULL);
  view = gst_bin_get_by_name(GST_BIN(self->pipeline), "view");
  if (view) {
    gst_app_sink_set_callbacks(GST_APP_SINK(view), &callbacks, self, NULL);
    gst_object_unref(view);
  }
  return self;
}

static void
show_free(Show *self)
{
  gst_element_set_state(self->pipeline, GST_STATE_NULL);
  gst_bus_set_sync_handler(self->bus, NULL, NULL, NULL);
  gst_object_unref(self->bus);
  gst_object_unref(self->pipeline);
  g_ptr_array_unref(self->frames);
  g_mutex_clear(&self->lock);
  g_cond_clear(&self->cond);
  g_free(self);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Show, show_free)

static void
show_play(Show *self)
{
  gst_element_set_state(self->pipeline, GST_STATE_PLAYING);
}

/* To the end of both streams. */
static void
show_end(Show *self)
{
  gst_message_unref(wait_message(self->bus, GST_MESSAGE_EOS));
}

static GstBuffer *
frame(Show *self, guint i)
{
  fail_unless(i < self->frames->len);
  return gst_sample_get_buffer(g_ptr_array_index(self->frames, i));
}

/* Waits until @n frames of previews have come. */
static void
wait_frames(Show *self, guint n)
{
  const gint64 end = g_get_monotonic_time() + (gint64) (WAIT_TIME / 1000);

  g_mutex_lock(&self->lock);
  while (self->frames->len < n)
    fail_unless(g_cond_wait_until(&self->cond, &self->lock, end), "%u frames came",
                self->frames->len);
  g_mutex_unlock(&self->lock);
}

static guint
count_out(Show *self)
{
  GstAppSink *out = GST_APP_SINK(child(self->pipeline, "out"));
  GstSample *sample;
  guint n = 0;

  while ((sample = gst_app_sink_try_pull_sample(out, 0))) {
    gst_sample_unref(sample);
    n++;
  }
  return n;
}

/* Checks one preview, the frames from @first on: n of them over the time from @start to @end. */
static void
assert_preview(Show *self, guint first, guint n, guint step, GstClockTime start, GstClockTime end)
{
  GstClockTime at = start;

  for (guint i = 0; i < n; i++) {
    GstBuffer *buffer = frame(self, first + i);
    const GstSegment *segment = gst_sample_get_segment(g_ptr_array_index(self->frames, first + i));

    assert_equals_uint64(GST_BUFFER_PTS(buffer), at);
    assert_equals_uint64(GST_BUFFER_OFFSET(buffer), i);
    assert_equals_int(GST_BUFFER_FLAG_IS_SET(buffer, GST_BUFFER_FLAG_DISCONT) != 0, i == 0);
    assert_equals_int(meta_uint(buffer, "step"), step);
    assert_equals_uint64(segment->start, start);
    assert_equals_uint64(segment->stop, end);
    at += GST_BUFFER_DURATION(buffer);
    if (first + i > 0) {
      GstSample *before = g_ptr_array_index(self->frames, first + i - 1);
      GstBuffer *last = gst_sample_get_buffer(before);
      const GstClockTime was = gst_segment_to_running_time(gst_sample_get_segment(before),
                                                           GST_FORMAT_TIME, GST_BUFFER_PTS(last)) +
                               GST_BUFFER_DURATION(last);

      fail_unless(gst_segment_to_running_time(segment, GST_FORMAT_TIME, GST_BUFFER_PTS(buffer)) >=
                  was);
    }
  }
  assert_equals_uint64(at, end);
}

GST_START_TEST(test_sequence)
{
  g_autoptr(Show) show =
      show_new(3, "opensorasrc name=s steps=7 preview-interval=3 seed=5 " PROMPT SMALL OUT VIEW);
  const GstClockTime end = gst_util_uint64_scale(9, GST_SECOND, 16);
  GstCustomMeta *meta;
  const GstStructure *clip;
  GstVideoInfo info;
  gboolean preview;

  show_play(show);
  show_end(show);
  assert_equals_int(count_out(show), 9);
  assert_equals_int(show->frames->len, 3 * T);
  assert_preview(show, 0, T, 3, 0, end);
  assert_preview(show, T, T, 6, 0, end);
  assert_preview(show, 2 * T, T, 7, 0, end);

  fail_unless(
      gst_video_info_from_caps(&info, gst_sample_get_caps(g_ptr_array_index(show->frames, 0))));
  assert_equals_int(GST_VIDEO_INFO_FORMAT(&info), GST_VIDEO_FORMAT_RGB);
  assert_equals_int(info.width, 8);
  assert_equals_int(info.height, 6);
  assert_equals_int(info.fps_n, 16);
  assert_equals_int(info.fps_d, 3);
  assert_equals_int(info.par_n, info.par_d);

  assert_equals_string(clip_meta(frame(show, 0))->prompt,
                       "a red circle moving right on a blue background");
  assert_equals_uint64(clip_meta(frame(show, 0))->seed, 5);
  assert_equals_int(clip_meta(frame(show, 0))->steps, 7);
  assert_equals_int(clip_meta(frame(show, 0))->frames, 9);
  meta = gst_buffer_get_custom_meta(frame(show, 0), "GstOpenSoraClipMeta");
  clip = gst_custom_meta_get_structure(meta);
  fail_unless(gst_structure_get_boolean(clip, "preview", &preview) && preview);
  fail_if(gst_structure_has_field(clip, "ticket"));
}
GST_END_TEST

/* Prompt after prompt, and a clip that goes on: at their times in the stream. */
GST_START_TEST(test_times)
{
  g_autoptr(Show) show = show_new(2, "opensorasrc name=s steps=2 preview-interval=2 num-samples=2 "
                                     "extend=1 " PROMPT SMALL OUT VIEW);
  const guint ends[] = { 9, 17, 26, 34 };
  const guint n[] = { T, T - 1, T, T - 1 };
  guint first = 0;

  show_play(show);
  show_end(show);
  for (guint i = 0; i < G_N_ELEMENTS(ends); i++) {
    assert_preview(show, first, n[i], 2, gst_util_uint64_scale(i ? ends[i - 1] : 0, GST_SECOND, 16),
                   gst_util_uint64_scale(ends[i], GST_SECOND, 16));
    first += n[i];
  }
  assert_equals_int(show->frames->len, first);
  assert_equals_int(count_out(show), 34);
}
GST_END_TEST

/* Colours */

/* Of 255; 7.7 was measured, 28.6 after the first step. */
#define MAX_ERROR 10.0

/* The mean difference, of 255, of a preview's colours from those of the frames it stands for. */
static double
colour_error(Show *show, guint first, GPtrArray *frames)
{
  guint64 sum = 0;
  guint n = 0;

  for (guint t = 0; t < (frames->len - 1) / 4 + 1; t++) {
    const guint from = t ? 4 * t - 3 : 0, to = 4 * t + 1;
    GstMapInfo small;

    fail_unless(gst_buffer_map(frame(show, first + t), &small, GST_MAP_READ));
    for (guint i = 0; i < 16 * 16 * 3; i++) {
      const guint y = i / 48, x = i / 3 % 16, c = i % 3;
      guint total = 0;

      for (guint f = from; f < to; f++) {
        GstMapInfo large;

        fail_unless(gst_buffer_map(gst_sample_get_buffer(g_ptr_array_index(frames, f)), &large,
                                   GST_MAP_READ));
        for (guint p = 0; p < 64; p++)
          total += large.data[((8 * y + p / 8) * 128 + 8 * x + p % 8) * 3 + c];
        gst_buffer_unmap(gst_sample_get_buffer(g_ptr_array_index(frames, f)), &large);
      }
      sum += (guint) abs((gint) small.data[i] - (gint) (total / (64 * (to - from))));
      n++;
    }
    gst_buffer_unmap(frame(show, first + t), &small);
  }
  return (double) sum / n;
}

/* The last preview has the colours of the clip, and those before come nearer to them. */
GST_START_TEST(test_colours)
{
  g_autoptr(Show) show =
      show_new(1, "opensorasrc name=s steps=8 preview-interval=1 num-frames=9 " PROMPT
                  "! video/x-raw,format=RGB,width=128,height=128" OUT VIEW);
  g_autoptr(GPtrArray) frames = g_ptr_array_new_with_free_func((GDestroyNotify) gst_sample_unref);
  GstSample *sample;
  double first, last;

  show_play(show);
  show_end(show);
  while ((sample = gst_app_sink_try_pull_sample(GST_APP_SINK(child(show->pipeline, "out")), 0)))
    g_ptr_array_add(frames, sample);
  assert_equals_int(frames->len, 9);
  assert_equals_int(show->frames->len, 8 * T);
  first = colour_error(show, 0, frames);
  last = colour_error(show, 7 * T, frames);
  fail_unless(last < MAX_ERROR, "%g", last);
  fail_unless(first > 2 * last, "%g, then %g", first, last);
}
GST_END_TEST

/* Who looks does not change the clip. */
GST_START_TEST(test_same_clip)
{
#define LATENT                                                                                     \
  "opensoratextsrc seed=3 " PROMPT "! opensoradenoise name=s steps=4 preview-interval=%d " SMALL   \
  "! appsink name=out "
  g_autoptr(Run) plain = run_ok(1, LATENT, 0);
  g_autoptr(Run) seen = run_ok(1, LATENT "s.preview ! fakesink async=false sync=false", 1);

  assert_same_tensors(run_buffer(seen, 0), run_buffer(plain, 0));
}
GST_END_TEST

/* Sizes */

/* A whole multiple of the latent's size is made if that is asked for. */
GST_START_TEST(test_size)
{
  g_autoptr(Show) show = show_new(0, "opensorasrc name=s steps=1 " PROMPT SMALL OUT
                                     "s.preview ! video/x-raw,height=24 ! "
                                     "appsink name=view async=false sync=false wait-on-eos=false");
  const GstStructure *s;
  gint width;
  GstMapInfo map;

  show_play(show);
  show_end(show);
  assert_equals_int(show->frames->len, T);
  s = gst_caps_get_structure(gst_sample_get_caps(g_ptr_array_index(show->frames, 0)), 0);
  fail_unless(gst_structure_get_int(s, "width", &width));
  assert_equals_int(width, 32);
  fail_unless(gst_buffer_map(frame(show, 0), &map, GST_MAP_READ));
  assert_equals_int(map.size, 32 * 24 * 3);
  fail_unless(memcmp(map.data, map.data + 3 * 3, 3) == 0);
  fail_unless(memcmp(map.data, map.data + 3 * 32 * 3, 32 * 3) == 0);
  gst_buffer_unmap(frame(show, 0), &map);
}
GST_END_TEST

/* What cannot be is a warning, and the clip is made. */
GST_START_TEST(test_impossible_size)
{
  g_autoptr(Show) show =
      show_new(0, "opensorasrc name=s steps=3 preview-interval=1 " PROMPT SMALL OUT
                  "s.preview ! video/x-raw,width=33 ! appsink name=view async=false sync=false");
  g_autoptr(GstMessage) warning = NULL;
  g_autoptr(GError) error = NULL;

  show_play(show);
  warning = wait_message(show->bus, GST_MESSAGE_WARNING);
  gst_message_parse_warning(warning, &error, NULL);
  fail_unless(strstr(error->message, "8 x 6") != NULL, "%s", error->message);
  show_end(show);
  assert_equals_int(g_atomic_int_get(&show->n_warnings), 1);
  assert_equals_int(show->frames->len, 0);
  assert_equals_int(count_out(show), 9);
}
GST_END_TEST

/* A model without a map says so, once. */
GST_START_TEST(test_no_map)
{
  g_autofree char *config = g_build_filename(g_getenv("OPENSORA_MODEL"), "config.json", NULL);
  g_autofree char *text = NULL;
  g_autofree char *folder = temp_path("model");
  g_autofree char *description = NULL;
  g_autoptr(Show) show = NULL;
  static const char *const parts[] = { "mmdit.safetensors", "vae.safetensors", "t5", "clip" };
  char *section;

  fail_unless(g_file_get_contents(config, &text, NULL, NULL));
  section = strstr(text, "\"preview\"");
  fail_unless(section != NULL);
  memcpy(section, "\"nothing\"", 9);
  fail_unless(g_mkdir(folder, 0700) == 0);
  for (guint i = 0; i < G_N_ELEMENTS(parts); i++) {
    g_autofree char *from = g_build_filename(g_getenv("OPENSORA_MODEL"), parts[i], NULL);
    g_autofree char *to = g_build_filename(folder, parts[i], NULL);

    fail_unless(symlink(from, to) == 0);
  }
  g_free(config);
  config = g_build_filename(folder, "config.json", NULL);
  fail_unless(g_file_set_contents(config, text, -1, NULL));

  description = g_strdup_printf(
      "opensorasrc name=s steps=2 num-samples=2 model-location=%s " PROMPT SMALL OUT VIEW, folder);
  show = show_new(0, description);
  show_play(show);
  show_end(show);
  assert_equals_int(g_atomic_int_get(&show->n_warnings), 1);
  assert_equals_int(show->frames->len, 0);
  assert_equals_int(count_out(show), 18);
}
GST_END_TEST

/* A model of pictures has a map of its own. */
GST_START_TEST(test_picture)
{
  g_autofree char *description = g_strdup_printf(
      "opensoratextsrc prompt=x ! opensoradenoise name=s steps=2 width=64 height=48 "
      "preview-interval=2 model-location=image:%s" OUT VIEW,
      g_getenv("FLUX_MODEL"));
  g_autoptr(Show) show = show_new(2, description);

  show_play(show);
  show_end(show);
  assert_equals_int(show->frames->len, 1);
  assert_preview(show, 0, 1, 2, 0, GST_BUFFER_DURATION(frame(show, 0)));
  assert_equals_int(gst_buffer_get_size(frame(show, 0)), 8 * 6 * 3);
  assert_equals_int(count_out(show), 1);
}
GST_END_TEST

/* Interval 0: nothing is shown, and the end comes all the same. */
GST_START_TEST(test_off)
{
  g_autoptr(Show) show =
      show_new(0, "opensorasrc name=s steps=2 preview-interval=0 " PROMPT SMALL OUT VIEW);

  show_play(show);
  show_end(show);
  assert_equals_int(show->frames->len, 0);
  assert_equals_int(count_out(show), 9);
}
GST_END_TEST

/* Viewers that hurt nobody */

typedef struct {
  GMutex lock;
  GCond cond;
  gboolean entered, open;
  guint n;
  guint steps[64]; /* of the frames, in order */
  guint clips[64];
} Gate;

static void
gate_frame(GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer user_data)
{
  Gate *gate = user_data;

  g_mutex_lock(&gate->lock);
  fail_unless(gate->n < G_N_ELEMENTS(gate->steps));
  gate->clips[gate->n] = meta_uint(buffer, "clip");
  gate->steps[gate->n++] = meta_uint(buffer, "step");
  gate->entered = TRUE;
  g_cond_broadcast(&gate->cond);
  while (!gate->open)
    g_cond_wait(&gate->cond, &gate->lock);
  g_mutex_unlock(&gate->lock);
}

static void
gate_init(Gate *gate, GstElement *sink)
{
  g_mutex_init(&gate->lock);
  g_cond_init(&gate->cond);
  g_signal_connect(sink, "handoff", G_CALLBACK(gate_frame), gate);
}

static void
gate_open(Gate *gate)
{
  g_mutex_lock(&gate->lock);
  fail_unless(gate->entered);
  assert_equals_int(gate->n, 1);
  gate->open = TRUE;
  g_cond_broadcast(&gate->cond);
  g_mutex_unlock(&gate->lock);
}

static void
gate_clear(Gate *gate)
{
  g_mutex_clear(&gate->lock);
  g_cond_clear(&gate->cond);
}

/* The clip does not wait for a viewer that stalls. It sees what it had begun with, then the
 * newest. */
GST_START_TEST(test_stalled)
{
  g_autoptr(Show) show =
      show_new(0, "opensorasrc name=s steps=30 preview-interval=1 " PROMPT SMALL OUT
                  "s.preview ! fakesink name=stall async=false sync=false signal-handoffs=true");
  Gate gate = { 0 };
  GstAppSink *out = GST_APP_SINK(child(show->pipeline, "out"));

  gate_init(&gate, child(show->pipeline, "stall"));
  show_play(show);
  for (guint i = 0; i < 9; i++) {
    GstSample *sample = gst_app_sink_try_pull_sample(out, WAIT_TIME);

    fail_unless(sample != NULL);
    gst_sample_unref(sample);
  }
  gate_open(&gate);
  show_end(show);

  assert_equals_int(gate.n, 2 * T);
  for (guint i = 0; i < T; i++) {
    assert_equals_int(gate.steps[i], gate.steps[0]);
    assert_equals_int(gate.steps[T + i], 30);
  }
  fail_unless(gate.steps[0] < 30);
  gst_element_set_state(show->pipeline, GST_STATE_NULL);
  gate_clear(&gate);
}
GST_END_TEST

/* The next progress of that type. */
static void
wait_progress_type(Show *show, GstProgressType wanted)
{
  GstProgressType type;

  do {
    g_autoptr(GstMessage) message = wait_message(show->bus, GST_MESSAGE_PROGRESS);

    gst_message_parse_progress(message, &type, NULL, NULL);
  } while (type != wanted);
}

/* What waited when its clip was cancelled, and the rest of what was being shown, never comes. */
GST_START_TEST(test_stale)
{
  g_autoptr(Show) show =
      show_new(0, "opensorasrc name=s is-queue=true steps=1000 preview-interval=1 " SMALL OUT
                  "s.preview ! fakesink name=stall async=false sync=false signal-handoffs=true");
  GstElement *source = child(show->pipeline, "s");
  GstStructure *options = gst_structure_new("o", "steps", G_TYPE_INT, 1, NULL);
  Gate gate = { 0 };
  gboolean cancelled;
  guint64 id;

  gate_init(&gate, child(show->pipeline, "stall"));
  g_signal_emit_by_name(source, "add-prompt", "x", NULL, &id);
  show_play(show);
  for (guint i = 0; i < 9; i++)
    wait_progress(show->bus, "denoise");
  g_signal_emit_by_name(source, "cancel", id, &cancelled);
  fail_unless(cancelled);
  wait_progress_type(show, GST_PROGRESS_TYPE_CANCELED);
  gate_open(&gate);
  g_signal_emit_by_name(source, "add-prompt", "y", options, &id);
  g_signal_emit_by_name(source, "end");
  gst_structure_free(options);
  show_end(show);

  assert_equals_int(gate.n, 1 + T);
  for (guint i = 0; i < gate.n; i++)
    assert_equals_int(gate.clips[i], i > 0);
  gst_element_set_state(show->pipeline, GST_STATE_NULL);
  gate_clear(&gate);
}
GST_END_TEST

/* A pad that nobody is linked to, and one whose viewer is shut. */
GST_START_TEST(test_nobody)
{
  g_autoptr(Show) show = show_new(0, "opensoratextsrc " PROMPT
                                     "! opensoradenoise name=s steps=3 preview-interval=1 " SMALL
                                     "! opensoravaedec" OUT);
  GstElement *denoise = child(show->pipeline, "s");
  GstPad *pad = gst_element_request_pad_simple(denoise, "preview");

  fail_unless(pad != NULL);
  fail_unless(gst_element_request_pad(denoise, GST_PAD_PAD_TEMPLATE(pad), NULL, NULL) == NULL);
  show_play(show);
  show_end(show);
  assert_equals_int(count_out(show), 9);
  gst_element_set_state(show->pipeline, GST_STATE_NULL);

  {
    GstElement *sink = gst_element_factory_make("fakesink", "shut");
    GstPad *peer = gst_element_get_static_pad(sink, "sink");

    gst_bin_add(GST_BIN(show->pipeline), sink);
    gst_element_set_locked_state(sink, TRUE);
    assert_equals_int(gst_pad_link(pad, peer), GST_PAD_LINK_OK);
    gst_object_unref(peer);
  }
  g_object_set(child(show->pipeline, "out"), "wait-on-eos", FALSE, NULL);
  show_play(show);
  for (guint i = 0; i < 9; i++) {
    GstSample *sample =
        gst_app_sink_try_pull_sample(GST_APP_SINK(child(show->pipeline, "out")), WAIT_TIME);

    fail_unless(sample != NULL, "%u", i);
    gst_sample_unref(sample);
  }
  gst_element_set_state(show->pipeline, GST_STATE_NULL);
  gst_element_release_request_pad(denoise, pad);
  gst_object_unref(pad);
}
GST_END_TEST

static void
count_frame(GstElement *sink, GstBuffer *buffer, GstPad *pad, gpointer n)
{
  g_atomic_int_inc((gint *) n);
}

/* Another viewer while clips are made. They see something, or are stuck in their preroll. */
GST_START_TEST(test_removed)
{
  g_autoptr(Show) show =
      show_new(0, __i__ ? "opensorasrc name=s is-queue=true preview-interval=1 steps=12 " SMALL OUT
                        : "opensoratextsrc name=q is-queue=true ! opensoradenoise name=s "
                          "preview-interval=1 steps=12 " SMALL "! opensoravaedec" OUT);
  GstElement *source = child(show->pipeline, "s");
  GstElement *queue = child(show->pipeline, __i__ ? "s" : "q");
  guint64 id;

  show_play(show);
  for (guint round = 0; round < 4; round++) {
    GstPad *pad = gst_element_request_pad_simple(source, "preview");
    GstElement *sink = gst_element_factory_make("fakesink", NULL);
    GstPad *peer = gst_element_get_static_pad(sink, "sink");
    GstSample *sample;
    gint n = 0;

    g_object_set(sink, "async", FALSE, "sync", FALSE, "signal-handoffs", TRUE, NULL);
    g_signal_connect(sink, "handoff", G_CALLBACK(count_frame), &n);
    g_signal_connect(sink, "preroll-handoff", G_CALLBACK(count_frame), &n);
    gst_bin_add(GST_BIN(show->pipeline), sink);
    gst_element_set_locked_state(sink, TRUE);
    gst_element_set_state(sink, round % 2 ? GST_STATE_PAUSED : GST_STATE_PLAYING);
    assert_equals_int(gst_pad_link(pad, peer), GST_PAD_LINK_OK);
    g_signal_emit_by_name(queue, "add-prompt", "x", NULL, &id);
    wait_progress(show->bus, "denoise");
    for (guint i = 0; g_atomic_int_get(&n) == 0; i++) {
      fail_unless(i < 1000, "round %u", round);
      g_usleep(10 * G_TIME_SPAN_MILLISECOND);
    }
    gst_element_release_request_pad(source, pad);
    gst_object_unref(pad);
    gst_element_set_state(sink, GST_STATE_NULL);
    gst_object_unref(peer);
    gst_bin_remove(GST_BIN(show->pipeline), sink);
    for (guint i = 0; i < 9; i++) {
      sample = gst_app_sink_try_pull_sample(GST_APP_SINK(child(show->pipeline, "out")), WAIT_TIME);
      fail_unless(sample != NULL, "%u", i);
      gst_sample_unref(sample);
    }
  }
}
GST_END_TEST

/* Who has seen enough cancels. What is shown next is of the next clip. */
typedef struct {
  Show *show;
  guint64 cancelled; /* the prompt */
  guint n[3];        /* frames of each prompt */
} Viewer;

static GstFlowReturn
cancel_first(GstAppSink *sink, gpointer user_data)
{
  Viewer *viewer = user_data;
  g_autoptr(GstSample) sample = gst_app_sink_pull_sample(sink);
  GstCustomMeta *meta =
      gst_buffer_get_custom_meta(gst_sample_get_buffer(sample), "GstOpenSoraClipMeta");
  gboolean cancelled;
  guint64 id;

  fail_unless(gst_structure_get_uint64(gst_custom_meta_get_structure(meta), "id", &id));
  fail_unless(id == 1 || id == 2);
  fail_if(id == 1 && viewer->n[2] > 0);
  viewer->n[id]++;
  if (id == 1 && !viewer->cancelled) {
    viewer->cancelled = id;
    g_signal_emit_by_name(child(viewer->show->pipeline, "s"), "cancel", id, &cancelled);
    fail_unless(cancelled);
  }
  return GST_FLOW_OK;
}

GST_START_TEST(test_cancel)
{
  g_autoptr(Show) show = show_new(0, "opensorasrc name=s is-queue=true steps=1000 "
                                     "preview-interval=1 " SMALL OUT VIEW);
  Viewer viewer = { .show = show };
  GstAppSinkCallbacks callbacks = { .new_sample = cancel_first };
  g_autoptr(GstStructure) options = gst_structure_new("o", "steps", G_TYPE_INT, 2, NULL);
  guint64 id;

  gst_app_sink_set_callbacks(GST_APP_SINK(child(show->pipeline, "view")), &callbacks, &viewer,
                             NULL);
  g_signal_emit_by_name(child(show->pipeline, "s"), "add-prompt", "first", NULL, &id);
  g_signal_emit_by_name(child(show->pipeline, "s"), "add-prompt", "second", options, &id);
  g_signal_emit_by_name(child(show->pipeline, "s"), "end");
  show_play(show);
  show_end(show);
  assert_equals_uint64(viewer.cancelled, 1);
  fail_unless(viewer.n[2] == T || viewer.n[2] == 2 * T, "%u", viewer.n[2]);
  assert_equals_int(count_out(show), 9);
}
GST_END_TEST

/* States and flushes */

GST_START_TEST(test_states)
{
  g_autoptr(Show) show =
      show_new(0, "opensorasrc name=s steps=40 preview-interval=1 " PROMPT SMALL OUT VIEW);

  for (guint round = 0; round < 4; round++) {
    show_play(show);
    wait_frames(show, show->frames->len + 1);
    gst_element_set_state(show->pipeline, round % 2 ? GST_STATE_READY : GST_STATE_NULL);
  }
  g_object_set(child(show->pipeline, "s"), "steps", 2, NULL);
  g_ptr_array_set_size(show->frames, 0);
  show_play(show);
  show_end(show);
  assert_preview(show, show->frames->len - T, T, 2, 0, gst_util_uint64_scale(9, GST_SECOND, 16));
  assert_equals_uint64(
      gst_sample_get_segment(g_ptr_array_index(show->frames, 0))->base <= 5 * GST_SECOND, TRUE);
}
GST_END_TEST

/* The type of the next event on the previews' side. */
static GstEventType
next_event(GstHarness *h)
{
  g_autoptr(GstEvent) event = gst_harness_pull_event(h);

  fail_unless(event != NULL);
  return GST_EVENT_TYPE(event);
}

static void
pull_preview(GstHarness *view)
{
  for (guint i = 0; i < T; i++) {
    GstBuffer *buffer = gst_harness_pull(view);

    fail_unless(buffer != NULL);
    assert_equals_int(GST_BUFFER_OFFSET(buffer), i);
    gst_buffer_unref(buffer);
  }
}

GST_START_TEST(test_events)
{
  GstBus *bus;
  GstHarness *h = harness(&bus, "opensoradenoise steps=1 " SMALL);
  GstHarness *view = gst_harness_new_with_element(h->element, NULL, "preview");
  GstCaps *caps;
  g_autoptr(GPtrArray) inputs = make_conditioning(2, &caps);

  gst_harness_set_src_caps(h, caps);
  gst_harness_set_sink_caps_str(h, GST_OPENSORA_LATENT "(" GST_OPENSORA_MEMORY_FEATURE ")");
  gst_harness_set_sink_caps_str(view, "video/x-raw");
  gst_harness_play(view);

  /* Seeks and the like end here. */
  fail_if(
      gst_harness_push_upstream_event(view, gst_event_new_seek(1, GST_FORMAT_TIME, 0, 0, 0, 0, 0)));
  fail_unless(gst_harness_push_upstream_event(view, gst_event_new_reconfigure()));

  assert_equals_int(gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(inputs, 0))), GST_FLOW_OK);
  pull_preview(view);
  assert_equals_int(next_event(view), GST_EVENT_STREAM_START);
  assert_equals_int(next_event(view), GST_EVENT_CAPS);
  assert_equals_int(next_event(view), GST_EVENT_SEGMENT);
  gst_buffer_unref(gst_harness_pull(h));

  fail_unless(gst_harness_push_event(h, gst_event_new_flush_start()));
  fail_unless(gst_harness_push_event(h, gst_event_new_flush_stop(TRUE)));
  assert_equals_int(next_event(view), GST_EVENT_FLUSH_START);
  assert_equals_int(next_event(view), GST_EVENT_FLUSH_STOP);
  {
    GstSegment segment;

    gst_segment_init(&segment, GST_FORMAT_TIME);
    gst_harness_push_event(h, gst_event_new_segment(&segment));
  }
  assert_equals_int(gst_harness_push(h, gst_buffer_ref(g_ptr_array_index(inputs, 1))), GST_FLOW_OK);
  pull_preview(view);
  assert_equals_int(next_event(view), GST_EVENT_SEGMENT);
  gst_buffer_unref(gst_harness_pull(h));

  fail_unless(gst_harness_push_event(h, gst_event_new_eos()));
  assert_equals_int(next_event(view), GST_EVENT_EOS);
  gst_harness_teardown(view);
  harness_free(h, bus);
}
GST_END_TEST

static Suite *
preview_suite(void)
{
  Suite *suite = suite_create("preview");
  TCase *c = common_case(suite, "previews");

  tcase_add_test(c, test_sequence);
  tcase_add_test(c, test_times);
  tcase_add_test(c, test_colours);
  tcase_add_test(c, test_same_clip);
  tcase_add_test(c, test_size);
  tcase_add_test(c, test_impossible_size);
  tcase_add_test(c, test_no_map);
  tcase_add_test(c, test_picture);
  tcase_add_test(c, test_off);
  c = common_case(suite, "viewers");
  tcase_add_test(c, test_stalled);
  tcase_add_test(c, test_stale);
  tcase_add_test(c, test_nobody);
  tcase_add_loop_test(c, test_removed, 0, 2);
  tcase_add_test(c, test_cancel);
  tcase_add_test(c, test_states);
  tcase_add_test(c, test_events);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, preview_suite);
}
