/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Prompts that are added while the stream runs.
 */
#include <gst/app/gstappsink.h>
#include <gst/video/video.h>
#include <string.h>

#include "common.h"

#define SMALL "steps=1 num-frames=5 width=32 height=32 "
#define LONG "steps=1000 num-frames=33 width=64 height=64 "
#define OUT " ! appsink name=out sync=false"

/* A pipeline with an element "s" that takes prompts. */
typedef struct {
  GstElement *pipeline, *source;
  GstBus *bus;
  GQueue early; /* messages of prompts' ends that nobody has waited for yet */
} Queue;

static void
queue_free(Queue *self)
{
  gst_element_set_state(self->pipeline, GST_STATE_NULL);
  g_queue_clear_full(&self->early, (GDestroyNotify) gst_message_unref);
  gst_object_unref(self->bus);
  gst_object_unref(self->pipeline);
  g_free(self);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Queue, queue_free)

static Queue *
queue_new(const char *description)
{
  Queue *self = g_new0(Queue, 1);
  g_autoptr(GError) error = NULL;

  self->pipeline = gst_parse_launch(description, &error);
  g_assert_no_error(error);
  self->source = child(self->pipeline, "s");
  self->bus = gst_element_get_bus(self->pipeline);
  return self;
}

static Queue *
queue_play(const char *description)
{
  Queue *self = queue_new(description);

  gst_element_set_state(self->pipeline, GST_STATE_PLAYING);
  return self;
}

/* @options as gst_structure_from_string() takes them; NULL: none. */
static guint64
add(Queue *self, const char *prompt, const char *options)
{
  GstStructure *s = options ? gst_structure_from_string(options, NULL) : NULL;
  guint64 id = 0;

  fail_unless(!options || s, "%s", options);
  g_signal_emit_by_name(self->source, "add-prompt", prompt, s, &id);
  g_clear_pointer(&s, gst_structure_free);
  return id;
}

static gboolean
cancel(Queue *self, guint64 id)
{
  gboolean cancelled = FALSE;

  g_signal_emit_by_name(self->source, "cancel", id, &cancelled);
  return cancelled;
}

static void
end(Queue *self)
{
  g_signal_emit_by_name(self->source, "end");
}

static guint
queue_length(Queue *self)
{
  guint length;

  g_object_get(self->source, "queue-length", &length, NULL);
  return length;
}

static guint64
current_id(Queue *self)
{
  guint64 id;

  g_object_get(self->source, "current-id", &id, NULL);
  return id;
}

/* The next element message of that name. */
static GstMessage *
wait_named(Queue *self, const char *name)
{
  for (;;) {
    GstMessage *message = wait_message(self->bus, GST_MESSAGE_ELEMENT);

    if (gst_message_has_name(message, name))
      return message;
    gst_message_unref(message);
  }
}

static gboolean
is_clip(const GstStructure *s, const char *state, guint64 id)
{
  guint64 found;

  return gst_structure_get_uint64(s, "id", &found) && found == id &&
         g_str_equal(gst_structure_get_string(s, "state"), state);
}

/* Other threads than the source's may tell of the end of a clip: when that comes between what is
 * told of others is not certain. */
static gboolean
may_come_at_any_time(const char *state)
{
  return g_str_equal(state, "done") || g_str_equal(state, "cancelled");
}

/* The next that happens to a prompt has to be that. */
static GstMessage *
wait_clip(Queue *self, const char *state, guint64 id)
{
  for (GList *l = self->early.head; l; l = l->next) {
    if (is_clip(gst_message_get_structure(l->data), state, id)) {
      GstMessage *message = l->data;

      g_queue_delete_link(&self->early, l);
      return message;
    }
  }
  for (;;) {
    GstMessage *message = wait_named(self, "opensora-clip");
    const GstStructure *s = gst_message_get_structure(message);
    guint64 found = 0;

    if (is_clip(s, state, id))
      return message;
    gst_structure_get_uint64(s, "id", &found);
    fail_unless(found != id && may_come_at_any_time(gst_structure_get_string(s, "state")),
                "prompt %" G_GUINT64_FORMAT " is %s, not %" G_GUINT64_FORMAT " %s", found,
                gst_structure_get_string(s, "state"), id, state);
    g_queue_push_tail(&self->early, message);
  }
}

static void
expect_clip(Queue *self, const char *state, guint64 id)
{
  gst_message_unref(wait_clip(self, state, id));
}

static void
expect_failed(Queue *self, guint64 id, const char *part)
{
  g_autoptr(GstMessage) message = wait_clip(self, "failed", id);
  const char *reason = gst_structure_get_string(gst_message_get_structure(message), "reason");

  fail_unless(reason && strstr(reason, part), "\"%s\" is not in: %s", part, reason);
}

static GstSample *
pull(Queue *self)
{
  GstSample *sample =
      gst_app_sink_try_pull_sample(GST_APP_SINK(child(self->pipeline, "out")), WAIT_TIME);

  fail_unless(sample != NULL, "no sample came");
  return sample;
}

static const Clip *
pull_meta(Queue *self)
{
  g_autoptr(GstSample) sample = pull(self);

  return clip_meta(gst_sample_get_buffer(sample));
}

static void
expect_end(Queue *self)
{
  fail_unless(gst_app_sink_try_pull_sample(GST_APP_SINK(child(self->pipeline, "out")), WAIT_TIME) ==
              NULL);
  fail_unless(gst_app_sink_is_eos(GST_APP_SINK(child(self->pipeline, "out"))));
}

/* Higher priority first, of one priority the order of adding; a queue lasts until the start. */
GST_START_TEST(test_order)
{
  g_autoptr(Queue) q = queue_new("opensoratextsrc name=s is-queue=true prompt=own" OUT);
  static const char *const order[] = { "c", "e", "a", "b", "own", "d" };
  static const guint64 ids[] = { 3, 5, 1, 2, 6, 4 };

  assert_equals_uint64(add(q, "a", NULL), 1);
  assert_equals_uint64(add(q, "b", "o, priority=0"), 2);
  assert_equals_uint64(add(q, "c", "o, priority=7"), 3);
  assert_equals_uint64(add(q, "d", "o, priority=-1"), 4);
  assert_equals_uint64(add(q, "e", "o, priority=7, tag=mine"), 5);
  assert_equals_int(queue_length(q), 5);
  end(q);
  gst_element_set_state(q->pipeline, GST_STATE_PLAYING);
  for (guint i = 0; i < G_N_ELEMENTS(order); i++) {
    const Clip *meta = pull_meta(q);

    assert_equals_string(meta->prompt, order[i]);
    assert_equals_uint64(meta->id, ids[i]);
    assert_equals_int(meta->clip, i);
    assert_equals_string(meta->tag, i == 1 ? "mine" : NULL);
  }
  expect_end(q);
  assert_equals_int(queue_length(q), 0);
}
GST_END_TEST

/* Until the denoiser has done what it has, a prompt of higher priority goes before the others. */
GST_START_TEST(test_priority_late)
{
  g_autoptr(Queue) q = queue_play("opensoratextsrc name=s is-queue=true ! queue ! opensoradenoise "
                                  "steps=30 num-frames=5 width=64 height=64 ! opensoravaedec" OUT);
  const guint64 one = add(q, "first", NULL), two = add(q, "second", NULL);
  guint64 three;

  expect_clip(q, "queued", one);
  wait_progress(q->bus, "denoise");
  assert_equals_uint64(current_id(q), one);
  assert_equals_int(queue_length(q), 1);
  three = add(q, "third", "o, priority=1, steps=1");
  end(q);
  for (guint i = 0; i < 15; i++)
    assert_equals_uint64(pull_meta(q)->id, i < 5 ? one : i < 10 ? three : two);
  expect_end(q);
}
GST_END_TEST

/* It waits, works, waits again and ends; what becomes of a prompt is told in order. */
GST_START_TEST(test_messages)
{
  g_autoptr(Queue) q = queue_play("opensorasrc name=s is-queue=true " SMALL OUT);

  gst_message_unref(wait_named(q, "opensora-waiting"));
  assert_equals_uint64(current_id(q), 0);
  for (guint i = 0; i < 3; i++) {
    const guint64 id = add(q, "a cat", "o, tag=\"my tag\"");
    static const char *const states[] = { "queued", "started", "done" };

    assert_equals_uint64(id, i + 1);
    for (guint s = 0; s < 3; s++) {
      g_autoptr(GstMessage) message = wait_clip(q, states[s], id);
      const GstStructure *fields = gst_message_get_structure(message);
      guint clip;

      assert_equals_string(gst_structure_get_string(fields, "prompt"), "a cat");
      assert_equals_string(gst_structure_get_string(fields, "tag"), "my tag");
      assert_equals_int(gst_structure_get_uint(fields, "clip", &clip), s > 0);
      if (s > 0)
        assert_equals_int(clip, i);
    }
    assert_equals_uint64(current_id(q), 0);
  }
  end(q);
  for (guint i = 0; i < 15; i++) {
    g_autoptr(GstSample) sample = pull(q);
    GstBuffer *frame = gst_sample_get_buffer(sample);

    assert_equals_uint64(clip_meta(frame)->id, i / 5 + 1);
    assert_equals_string(clip_meta(frame)->tag, "my tag");
    assert_equals_uint64(GST_BUFFER_OFFSET(frame), i);
  }
  expect_end(q);
}
GST_END_TEST

/* Every message about work on a clip has its number; all is told before the end. */
GST_START_TEST(test_progress)
{
  Queue *q = queue_new("opensorasrc name=s is-queue=true " SMALL OUT);
  g_autoptr(Run) r = NULL;
  guint n[3] = { 0 }, completed = 0, done = 0;

  for (guint i = 0; i < 2; i++)
    add(q, "a cat", NULL);
  end(q);
  r = run_pipeline(q->pipeline);
  gst_object_unref(q->bus);
  g_free(q);
  for (guint i = 0; i < r->messages->len; i++) {
    GstMessage *message = g_ptr_array_index(r->messages, i);
    const GstStructure *s = gst_message_get_structure(message);
    const gboolean progress = GST_MESSAGE_TYPE(message) == GST_MESSAGE_PROGRESS;
    guint64 id;
    guint clip;

    if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS)
      assert_equals_int(done, 2);
    if (s && gst_structure_has_name(s, "opensora-clip"))
      done += g_str_equal(gst_structure_get_string(s, "state"), "done");
    if (!progress && !(s && gst_structure_has_name(s, "opensora-progress")))
      continue;
    fail_unless(gst_structure_get_uint64(s, "id", &id) && id >= 1 && id <= 2);
    fail_unless(gst_structure_get_uint(s, "clip", &clip));
    assert_equals_int(clip, id - 1);
    n[id]++;
    if (progress) {
      GstProgressType type;

      gst_message_parse_progress(message, &type, NULL, NULL);
      completed += type == GST_PROGRESS_TYPE_COMPLETE;
    }
  }
  fail_unless(n[1] > 3 && n[2] > 3);
  assert_equals_int(completed, 2);
}
GST_END_TEST

/* A clip has what its prompt asks for, whatever the properties say; the next has not. */
GST_START_TEST(test_options)
{
  g_autoptr(Queue) q =
      queue_new("opensorasrc name=s is-queue=true seed=5 num-samples=1 guidance=3 " SMALL OUT);
  const Clip *own = NULL, *next;

  add(q, "a",
      "o, seed=7, steps=(uint)2, guidance=4, guidance-image=(double)1.5, num-frames=9, "
      "width=(gint64)48, height=64, motion-score=6, negative-prompt=\"a dog\", tag=x");
  add(q, "b", NULL);
  add(q, "c", "o, seed=(gint64)-1, width=48");
  add(q, "d", "o, num-frames=1");
  end(q);
  gst_element_set_state(q->pipeline, GST_STATE_PLAYING);
  for (guint i = 0, frame = 0; i < 4; i++) {
    const guint lengths[] = { 9, 5, 5, 1 }, widths[] = { 48, 32, 48, 32 };
    const gint fps = (gint) common_model_dir()->fps;

    for (guint f = 0; f < lengths[i]; f++, frame++) {
      g_autoptr(GstSample) sample = pull(q);
      GstBuffer *buffer = gst_sample_get_buffer(sample);
      GstVideoInfo info;

      fail_unless(gst_video_info_from_caps(&info, gst_sample_get_caps(sample)));
      assert_equals_int(GST_VIDEO_INFO_WIDTH(&info), widths[i]);
      assert_equals_int(GST_VIDEO_INFO_HEIGHT(&info), i == 0 ? 64 : 32);
      assert_equals_uint64(GST_BUFFER_OFFSET(buffer), frame);
      assert_equals_uint64(GST_BUFFER_PTS(buffer), gst_util_uint64_scale(frame, GST_SECOND, fps));
      assert_equals_uint64(clip_meta(buffer)->id, i + 1);
      if (f > 0)
        continue;
      next = clip_meta(buffer);
      own = i == 0 ? next : own;
      assert_equals_int(next->frames, lengths[i]);
      assert_equals_int(next->width, widths[i]);
      if (i != 2)
        assert_equals_uint64(next->seed, i == 0 ? 7 : 5);
      assert_equals_int(next->steps, i == 0 ? 2 : 1);
      fail_unless(next->guidance == (i == 0 ? 4.0 : 3.0));
    }
  }
  fail_unless(own->guidance_image == 1.5);
  assert_equals_int(own->motion_score, 6);
  assert_equals_string(own->negative_prompt, "a dog");
  assert_equals_string(own->tag, "x");
  expect_end(q);
}
GST_END_TEST

/* An option is as good as the property of its name. */
GST_START_TEST(test_same_as_properties)
{
  g_autoptr(Run) r =
      run_ok(5, "opensorasrc prompt=\"a cat\" seed=9 steps=3 guidance=2 num-frames=5 "
                "width=48 height=32 negative-prompt=dogs" OUT);
  g_autoptr(Queue) q = queue_play("opensorasrc name=s is-queue=true" OUT);

  add(q, "a cat",
      "o, seed=9, steps=3, guidance=2, num-frames=5, width=48, height=32, "
      "negative-prompt=dogs");
  for (guint i = 0; i < 5; i++) {
    g_autoptr(GstSample) sample = pull(q);
    GstMapInfo map;

    fail_unless(gst_buffer_map(run_buffer(r, i), &map, GST_MAP_READ));
    assert_equals_int(gst_buffer_memcmp(gst_sample_get_buffer(sample), 0, map.data, map.size), 0);
    gst_buffer_unmap(run_buffer(r, i), &map);
  }
}
GST_END_TEST

static void
expect_warning(Queue *self, const char *part)
{
  g_autoptr(GstMessage) message = wait_message(self->bus, GST_MESSAGE_WARNING);
  g_autoptr(GError) warning = NULL;

  gst_message_parse_warning(message, &warning, NULL);
  fail_unless(strstr(warning->message, part) != NULL, "\"%s\" is not in: %s", part,
              warning->message);
}

static void
expect_refused(Queue *self, const char *prompt, const char *options, const char *part)
{
  const guint64 id = add(self, prompt, options);

  fail_unless(id == 0, "%s is taken", options);
  expect_warning(self, part);
}

GST_START_TEST(test_refused)
{
  g_autoptr(Queue) q = queue_new("opensoratextsrc name=s is-queue=true max-queue=2 ! fakesink");
  static const struct {
    const char *options, *part;
  } bad[] = {
    { "o, speed=3", "\"speed\"" },
    { "o, tag=x, Steps=3", "\"Steps\"" },
    { "o, steps=many", "\"steps\"" },
    { "o, steps=0", "\"steps\"" },
    { "o, steps=1001", "1 to 1000" },
    { "o, steps=3.5", "\"steps\"" },
    { "o, seed=-2", "\"seed\"" },
    { "o, seed=(guint64)9223372036854775808", "\"seed\"" },
    { "o, seed=(string)7", "\"seed\"" },
    { "o, priority=(gint64)3000000000", "\"priority\"" },
    { "o, guidance=-1", "\"guidance\"" },
    { "o, guidance-image=101.0", "\"guidance-image\"" },
    { "o, guidance=true", "\"guidance\"" },
    { "o, motion-score=-2", "\"motion-score\"" },
    { "o, num-frames=0", "\"num-frames\"" },
    { "o, width=40", "multiple of 16" },
    { "o, height=16000", "\"height\"" },
    { "o, negative-prompt=5", "\"negative-prompt\"" },
    { "o, image=5", "\"image\"" },
    { "o, tag=(int)5", "\"tag\"" },
  };
  GstStructure *latin1 = gst_structure_new("o", "tag", G_TYPE_STRING, NULL, NULL);
  guint64 id = 1;

  gst_element_set_state(q->pipeline, GST_STATE_READY); /* which has a bus */
  for (guint i = 0; i < G_N_ELEMENTS(bad); i++)
    expect_refused(q, "x", bad[i].options, bad[i].part);
  g_signal_emit_by_name(q->source, "add-prompt", "x", latin1, &id);
  assert_equals_uint64(id, 0);
  expect_warning(q, "\"tag\"");
  gst_structure_free(latin1);
  expect_refused(q, "B\xe4r", NULL, "UTF-8");
  expect_refused(q, NULL, NULL, "UTF-8");

  assert_equals_uint64(add(q, "one", NULL), 1);
  assert_equals_uint64(add(q, "two", NULL), 2);
  expect_refused(q, "three", NULL, "max-queue is 2");
  g_object_set(q->source, "max-queue", 3u, NULL);
  assert_equals_uint64(add(q, "three", NULL), 3);
  end(q);
  expect_refused(q, "four", NULL, "ended");
  fail_if(cancel(q, 0));
  fail_if(cancel(q, 4));

  g_object_set(q->source, "is-queue", FALSE, NULL);
  expect_refused(q, "x", NULL, "is-queue");
}
GST_END_TEST

/* A prompt that waits is taken out. */
GST_START_TEST(test_cancel_waiting)
{
  g_autoptr(Queue) q = queue_new("opensoratextsrc name=s is-queue=true" OUT);

  gst_element_set_state(q->pipeline, GST_STATE_READY);
  for (guint64 id = 1; id <= 3; id++) {
    assert_equals_uint64(add(q, "x", NULL), id);
    expect_clip(q, "queued", id);
  }
  fail_unless(cancel(q, 2));
  fail_if(cancel(q, 2));
  expect_clip(q, "cancelled", 2);
  assert_equals_int(queue_length(q), 2);
  end(q);
  gst_element_set_state(q->pipeline, GST_STATE_PLAYING);
  assert_equals_uint64(pull_meta(q)->id, 1);
  assert_equals_uint64(pull_meta(q)->id, 3);
  expect_end(q);
}
GST_END_TEST

/* One that is being denoised is broken off at once; those after it do not notice. */
GST_START_TEST(test_cancel_under_way)
{
  static const char *const descriptions[] = {
    "opensorasrc name=s is-queue=true " LONG OUT,
    "opensoratextsrc name=s is-queue=true ! queue ! opensoradenoise " LONG
    "! queue ! opensoravaedec" OUT,
    "opensoratextsrc name=s is-queue=true num-samples=3 ! opensoradenoise " LONG
    "! opensoravaedec" OUT,
  };
  g_autoptr(Queue) q = queue_play(descriptions[__i__]);

  for (guint round = 0; round < 3; round++) {
    const guint64 bad = add(q, "bad", NULL);
    const guint n_samples = __i__ == 2 ? 3 : 1;
    guint64 good;
    gint64 start;

    expect_clip(q, "queued", bad);
    expect_clip(q, "started", bad);
    good = add(q, "good", "o, steps=1, num-frames=5");
    expect_clip(q, "queued", good);
    wait_progress(q->bus, "denoise");
    assert_equals_uint64(current_id(q), bad);
    start = g_get_monotonic_time();
    fail_unless(cancel(q, bad));
    fail_if(cancel(q, bad));
    expect_clip(q, "cancelled", bad);
    expect_clip(q, "started", good);
    fail_unless(g_get_monotonic_time() - start < (gint64) (QUICK_TIME / 1000));
    for (guint i = 0; i < 5 * n_samples; i++) {
      g_autoptr(GstSample) sample = pull(q);
      GstBuffer *frame = gst_sample_get_buffer(sample);

      assert_equals_uint64(clip_meta(frame)->id, good);
      assert_equals_uint64(GST_BUFFER_OFFSET(frame), round * 5 * n_samples + i);
    }
    expect_clip(q, "done", good);
    fail_if(cancel(q, good));
  }
}
GST_END_TEST

/* A clip without end goes on until a prompt waits behind it, and can be cancelled at any time. */
GST_START_TEST(test_extend)
{
  g_autoptr(Queue) q = queue_play("opensorasrc name=s is-queue=true extend=-1 " SMALL OUT);
  const guint64 one = add(q, "a", NULL);
  guint64 two, last = one;
  guint n = 0;

  for (guint i = 0; i < 12; i++)
    assert_equals_uint64(pull_meta(q)->id, one);
  two = add(q, "b", NULL);
  while ((last = pull_meta(q)->id) == one)
    fail_unless(++n < 1000);
  assert_equals_uint64(last, two);
  for (guint i = 0; i < 12; i++)
    assert_equals_uint64(pull_meta(q)->id, two);
  fail_unless(cancel(q, two));
  end(q);
  for (n = 0; n < 1000; n++) {
    g_autoptr(GstSample) sample =
        gst_app_sink_try_pull_sample(GST_APP_SINK(child(q->pipeline, "out")), WAIT_TIME);

    if (!sample)
      break;
    assert_equals_uint64(clip_meta(gst_sample_get_buffer(sample))->id, two);
  }
  expect_end(q);
  expect_clip(q, "queued", one);
  expect_clip(q, "started", one);
  expect_clip(q, "queued", two);
  expect_clip(q, "done", one);
  expect_clip(q, "started", two);
  expect_clip(q, "cancelled", two);
}
GST_END_TEST

/* What is denoised but not decoded can still be cancelled: then nothing of it is seen, and no
 * time is left where it would have been. What leaves the decoder cannot. */
GST_START_TEST(test_cancel_latent)
{
  g_autoptr(Queue) q =
      queue_new("opensoratextsrc name=s is-queue=true ! opensoradenoise " SMALL
                "! queue ! opensoravaedec ! appsink name=out sync=false max-buffers=2");
  const gint fps = (gint) common_model_dir()->fps;
  guint64 ids[4];

  gst_element_set_state(q->pipeline, GST_STATE_READY);
  for (guint i = 0; i < 4; i++) {
    ids[i] = add(q, "x", NULL);
    expect_clip(q, "queued", ids[i]);
  }
  end(q);
  gst_element_set_state(q->pipeline, GST_STATE_PLAYING);
  /* The sink takes two frames of the first and stops there. */
  for (guint i = 0; i < 4; i++)
    expect_clip(q, "started", ids[i]);
  wait_progress(q->bus, "denoise");
  fail_unless(cancel(q, ids[1]));
  fail_unless(cancel(q, ids[2]));
  expect_clip(q, "cancelled", ids[1]);
  expect_clip(q, "cancelled", ids[2]);
  assert_equals_uint64(pull_meta(q)->id, ids[0]);
  fail_if(cancel(q, ids[0]));
  for (guint i = 1; i < 10; i++) {
    g_autoptr(GstSample) sample = pull(q);
    GstBuffer *frame = gst_sample_get_buffer(sample);

    assert_equals_uint64(clip_meta(frame)->id, ids[i < 5 ? 0 : 3]);
    assert_equals_uint64(GST_BUFFER_OFFSET(frame), i);
    assert_equals_uint64(GST_BUFFER_PTS(frame), gst_util_uint64_scale(i, GST_SECOND, fps));
  }
  expect_end(q);
  expect_clip(q, "done", ids[0]);
  expect_clip(q, "done", ids[3]);
}
GST_END_TEST

/* What cannot be made is told and left out. */
GST_START_TEST(test_failed)
{
  g_autofree char *missing = temp_path("missing.png");
  g_autofree char *broken = temp_file("broken.png", "no picture", -1);
  g_autofree char *no_file = g_strdup_printf("o, image=\"%s\"", missing);
  g_autofree char *no_picture = g_strdup_printf("o, image=\"%s\"", broken);
  g_autoptr(Queue) q =
      queue_play("opensorasrc name=s is-queue=true " SMALL "! video/x-raw,width=[32,64]" OUT);
  const char *const bad[][2] = {
    { no_file, "missing.png" },
    { no_picture, "broken.png" },
    { "o, num-frames=6", "6" },
    { "o, width=80", "80" },
    { "o, width=48, height=8192, num-frames=65533", "Not enough memory" },
  };

  for (guint i = 0; i < G_N_ELEMENTS(bad); i++) {
    const guint64 id = add(q, "bad", bad[i][0]);
    guint64 good;

    expect_clip(q, "queued", id);
    expect_clip(q, "started", id);
    expect_failed(q, id, bad[i][1]);
    good = add(q, "good", NULL);
    expect_clip(q, "queued", good);
    expect_clip(q, "started", good);
    for (guint f = 0; f < 5; f++) {
      g_autoptr(GstSample) sample = pull(q);
      GstBuffer *frame = gst_sample_get_buffer(sample);

      assert_equals_uint64(clip_meta(frame)->id, good);
      assert_equals_int(clip_meta(frame)->width, 32);
      assert_equals_uint64(GST_BUFFER_OFFSET(frame), i * 5 + f);
    }
    expect_clip(q, "done", good);
  }
}
GST_END_TEST

/* Without a queue that is the end, unless it is asked to go on. */
GST_START_TEST(test_skip_failed)
{
  g_autofree char *missing = temp_path("missing.png");
  g_autofree char *rows = g_strdup_printf("text,ref\na,\nb,%s\nc,\n", missing);
  g_autofree char *path = temp_file("p.csv", rows, -1);
  g_autoptr(Run) r = NULL;
  guint warnings = 0;

  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "missing.png",
            "opensorasrc location=%s " SMALL OUT, path);
  r = run_ok(20, "opensorasrc location=%s skip-failed=true num-samples=2 " SMALL OUT, path);
  for (guint i = 0; i < r->messages->len; i++)
    warnings += GST_MESSAGE_TYPE(g_ptr_array_index(r->messages, i)) == GST_MESSAGE_WARNING;
  assert_equals_int(warnings, 1); /* of both its clips */
  assert_equals_string(clip_meta(run_buffer(r, 9))->prompt, "a");
  assert_equals_string(clip_meta(run_buffer(r, 10))->prompt, "c");
}
GST_END_TEST

/* A model that cannot be used is nobody's prompt. */
GST_START_TEST(test_fatal)
{
  g_autoptr(Queue) q =
      queue_play("opensorasrc name=s is-queue=true memory-limit=1000000 skip-failed=true " SMALL
                 "model-location=/no/such/folder" OUT);

  wait_error(q->bus, GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NOT_FOUND, "/no/such/folder");
}
GST_END_TEST

static void
assert_quick(gint64 start)
{
  fail_unless(g_get_monotonic_time() - start < (gint64) (QUICK_TIME / 1000));
}

/* Waiting ends at once when the state, a flush or EOS wants it to. */
GST_START_TEST(test_interrupt)
{
  static const char *const descriptions[] = {
    "opensorasrc name=s is-queue=true " SMALL OUT,
    "opensoratextsrc name=s is-queue=true ! opensoradenoise " SMALL "! opensoravaedec" OUT,
  };
  g_autoptr(Queue) q = queue_new(descriptions[__i__]);

  for (guint round = 0; round < 9; round++) {
    gint64 start;
    guint64 id;

    gst_element_set_state(q->pipeline, round % 2 ? GST_STATE_PLAYING : GST_STATE_PAUSED);
    gst_message_unref(wait_named(q, "opensora-waiting"));
    start = g_get_monotonic_time();
    if (round % 3 == 1) { /* a flush leaves it waiting */
      GstElement *text = __i__ == 0 ? child(q->source, "text") : q->source;

      gst_element_send_event(text, gst_event_new_flush_start());
      gst_element_send_event(text, gst_event_new_flush_stop(TRUE));
      assert_quick(start);
      gst_element_set_state(q->pipeline, GST_STATE_PLAYING);
      id = add(q, "x", NULL);
      expect_clip(q, "queued", id);
      expect_clip(q, "started", id);
      expect_clip(q, "done", id);
      for (guint i = 0; i < 5; i++) /* the sink would keep them */
        assert_equals_uint64(pull_meta(q)->id, id);
    } else if (round % 3 == 2) {
      gst_element_set_state(q->pipeline, GST_STATE_PLAYING);
      gst_element_send_event(q->pipeline, gst_event_new_eos());
      expect_end(q);
      assert_quick(start);
      assert_equals_uint64(add(q, "x", NULL), 0);
    }
    start = g_get_monotonic_time();
    gst_element_set_state(q->pipeline, round % 4 ? GST_STATE_NULL : GST_STATE_READY);
    assert_quick(start);
    gst_bus_set_flushing(q->bus, TRUE);
    gst_bus_set_flushing(q->bus, FALSE);
  }
}
GST_END_TEST

/* EOS of the application gives up what waits, and says so. */
GST_START_TEST(test_eos)
{
  g_autoptr(Queue) q = queue_play("opensorasrc name=s is-queue=true " LONG OUT);
  const guint64 one = add(q, "x", NULL), two = add(q, "y", NULL);

  wait_progress(q->bus, "denoise");
  gst_element_send_event(q->pipeline, gst_event_new_eos());
  expect_end(q);
  /* The second by the source, the first by whoever drops it, a little later. */
  for (guint i = 0, seen = 0; i < 2; i++) {
    g_autoptr(GstMessage) message = wait_named(q, "opensora-clip");
    const GstStructure *s = gst_message_get_structure(message);
    guint64 id;

    gst_structure_get_uint64(s, "id", &id);
    assert_equals_string(gst_structure_get_string(s, "state"), "cancelled");
    fail_unless(gst_structure_has_field(s, "reason"));
    fail_unless(id == one || id == two);
    fail_if(seen & (1u << id));
    seen |= 1u << id;
  }
}
GST_END_TEST

/* What waits does not outlive the stream; numbers are never used twice. */
GST_START_TEST(test_restart)
{
  g_autoptr(Queue) q = queue_new("opensorasrc name=s is-queue=true " LONG OUT);

  for (guint round = 0; round < 3; round++) {
    const guint64 one = add(q, "x", NULL), two = add(q, "y", NULL);

    assert_equals_uint64(one, 2 * round + 1);
    gst_element_set_state(q->pipeline, GST_STATE_PLAYING);
    wait_progress(q->bus, "denoise");
    assert_equals_uint64(current_id(q), one);
    assert_equals_int(queue_length(q), 1);
    end(q); /* holds for this stream only */
    gst_element_set_state(q->pipeline, GST_STATE_NULL);
    assert_equals_int(queue_length(q), 0);
    fail_if(cancel(q, two));
  }
  assert_equals_uint64(current_id(q), 0);
}
GST_END_TEST

/* Sinks that need not preroll, and live sources, let the pipeline play before there is a clip. */
GST_START_TEST(test_states)
{
  static const char *const descriptions[] = {
    "opensorasrc name=s is-queue=true " SMALL "! fakesink async=false",
    "opensorasrc name=s is-queue=true " SMALL "! fakesink videotestsrc is-live=true ! fakesink",
  };

  for (guint i = 0; i < 2; i++) {
    g_autoptr(Queue) q = queue_play(descriptions[i]);

    gst_message_unref(wait_named(q, "opensora-waiting"));
    gst_element_get_state(q->source, NULL, NULL, WAIT_TIME);
    assert_equals_int(GST_STATE(q->source), GST_STATE_PLAYING);
    expect_clip(q, "queued", add(q, "x", NULL));
    expect_clip(q, "started", 1);
    expect_clip(q, "done", 1);
    end(q);
  }
}
GST_END_TEST

/* Handlers of messages and properties may do what they like. */
static guint notified;

static void
on_notify(GObject *object, GParamSpec *pspec, gpointer user_data)
{
  guint length;
  guint64 id;

  g_object_get(object, "queue-length", &length, "current-id", &id, NULL);
  g_atomic_int_inc(&notified);
}

static GstBusSyncReply
on_message(GstBus *bus, GstMessage *message, gpointer user_data)
{
  Queue *q = user_data;
  const GstStructure *s = gst_message_get_structure(message);
  guint64 id = 0;

  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ELEMENT && s &&
      gst_structure_has_name(s, "opensora-clip")) {
    const char *state = gst_structure_get_string(s, "state");

    queue_length(q);
    current_id(q);
    gst_structure_get_uint64(s, "id", &id);
    if (g_str_equal(state, "started") && id == 1)
      fail_unless(cancel(q, 1));
    if (g_str_equal(state, "cancelled") && id == 1)
      assert_equals_uint64(add(q, "second", NULL), 2);
    if (g_str_equal(state, "done"))
      end(q);
  }
  return GST_BUS_PASS;
}

GST_START_TEST(test_callbacks)
{
  g_autoptr(Queue) q = queue_new("opensorasrc name=s is-queue=true " SMALL OUT);

  g_signal_connect(q->source, "notify::queue-length", G_CALLBACK(on_notify), NULL);
  g_signal_connect(q->source, "notify::current-id", G_CALLBACK(on_notify), NULL);
  gst_bus_set_sync_handler(q->bus, on_message, q, NULL);
  gst_element_set_state(q->pipeline, GST_STATE_PLAYING);
  add(q, "first", NULL);
  for (guint i = 0; i < 5; i++)
    assert_equals_uint64(pull_meta(q)->id, 2);
  expect_end(q);
  fail_unless(g_atomic_int_get(&notified) >= 6);
  gst_bus_set_sync_handler(q->bus, NULL, NULL, NULL);
}
GST_END_TEST

/* Many threads add and cancel; every prompt has one beginning and one end. */
#define N_THREADS 8
#define N_PROMPTS 60

typedef struct {
  Queue *queue;
  guint seed;
} Worker;

static gpointer
work(gpointer user_data)
{
  Worker *self = user_data;
  g_autoptr(GRand) rand = g_rand_new_with_seed(self->seed);

  for (guint i = 0; i < N_PROMPTS; i++) {
    g_autofree char *options = g_strdup_printf("o, priority=%d", g_rand_int_range(rand, -2, 3));
    guint64 id = add(self->queue, "x", options);

    fail_unless(id > 0);
    if (g_rand_int_range(rand, 0, 4) > 0)
      cancel(self->queue, id);
    if (g_rand_int_range(rand, 0, 4) == 0)
      cancel(self->queue, (guint64) g_rand_int_range(rand, 1, N_THREADS * N_PROMPTS));
    queue_length(self->queue);
    current_id(self->queue);
  }
  return NULL;
}

GST_START_TEST(test_stress)
{
  static const char *const descriptions[] = {
    "opensoratextsrc name=s is-queue=true max-queue=100000 ! fakesink "
    "enable-last-sample=false",
    "opensorasrc name=s is-queue=true max-queue=100000 steps=1 num-frames=1 width=16 height=16 ! "
    "fakesink sync=false",
  };
  g_autoptr(Queue) q = queue_play(descriptions[__i__]);
  guint queued[N_THREADS * N_PROMPTS + 1] = { 0 }, ended[N_THREADS * N_PROMPTS + 1] = { 0 };
  Worker workers[N_THREADS];
  GThread *threads[N_THREADS];
  gboolean eos = FALSE;
  guint n_ended = 0;

  for (guint i = 0; i < N_THREADS; i++) {
    workers[i] = (Worker){ q, i };
    threads[i] = g_thread_new("work", work, &workers[i]);
  }
  for (guint i = 0; i < N_THREADS; i++)
    g_thread_join(threads[i]);
  end(q);
  /* Without a denoiser the last prompt may be dropped by the sink after EOS. */
  while (n_ended < N_THREADS * N_PROMPTS || !eos) {
    g_autoptr(GstMessage) message = wait_message(q->bus, GST_MESSAGE_ELEMENT | GST_MESSAGE_EOS);
    const GstStructure *s = gst_message_get_structure(message);
    const char *state;
    guint64 id = 0;

    eos |= GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS;
    if (!gst_message_has_name(message, "opensora-clip"))
      continue;
    state = gst_structure_get_string(s, "state");
    gst_structure_get_uint64(s, "id", &id);
    fail_unless(id >= 1 && id <= N_THREADS * N_PROMPTS);
    if (g_str_equal(state, "queued")) {
      assert_equals_int(queued[id]++, 0);
    } else if (!g_str_equal(state, "started")) {
      fail_if(g_str_equal(state, "failed"));
      assert_equals_int(queued[id], 1);
      assert_equals_int(ended[id]++, 0);
      n_ended++;
    }
  }
  assert_equals_int(queue_length(q), 0);
  assert_equals_uint64(current_id(q), 0);
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("queue");
  TCase *tc = common_case(suite, "general");

  tcase_add_test(tc, test_order);
  tcase_add_test(tc, test_priority_late);
  tcase_add_test(tc, test_messages);
  tcase_add_test(tc, test_progress);
  tcase_add_test(tc, test_options);
  tcase_add_test(tc, test_same_as_properties);
  tcase_add_test(tc, test_refused);
  tcase_add_test(tc, test_cancel_waiting);
  tcase_add_loop_test(tc, test_cancel_under_way, 0, 3);
  tcase_add_test(tc, test_extend);
  tcase_add_test(tc, test_cancel_latent);
  tcase_add_test(tc, test_failed);
  tcase_add_test(tc, test_skip_failed);
  tcase_add_test(tc, test_fatal);
  tcase_add_loop_test(tc, test_interrupt, 0, 2);
  tcase_add_test(tc, test_eos);
  tcase_add_test(tc, test_restart);
  tcase_add_test(tc, test_states);
  tcase_add_test(tc, test_callbacks);
  tcase_add_loop_test(tc, test_stress, 0, 2);
  return suite;
}

int
main(int argc, char **argv)
{
  return common_main(argc, argv, make_suite);
}
