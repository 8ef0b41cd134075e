/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoraclips.h"

#include "cuda/gstopensoracudaoutput.h"
#include "gstopensoraclipmeta.h"

static void
clip_clear(gpointer data)
{
  GstOpenSoraClip *clip = data;

  g_ptr_array_unref(clip->frames);
  gst_caps_unref(clip->caps);
  g_clear_pointer(&clip->meta, gst_structure_free);
  g_clear_pointer(&clip->tags, gst_tag_list_unref);
}

void
gst_opensora_clip_unref(GstOpenSoraClip *clip)
{
  g_atomic_rc_box_release_full(clip, clip_clear);
}

void
gst_opensora_clips_init(GstOpenSoraClips *self)
{
  g_mutex_init(&self->lock);
  g_cond_init(&self->cond);
  g_queue_init(&self->waiting);
  self->flushing = TRUE;
}

void
gst_opensora_clips_clear(GstOpenSoraClips *self)
{
  gst_opensora_clips_reset(self);
  g_mutex_clear(&self->lock);
  g_cond_clear(&self->cond);
}

/* No clip is given more frames, and the last one may be played as it is. */
static void
close_clip(GstOpenSoraClips *self)
{
  if (self->incoming)
    self->incoming->complete = TRUE;
  self->incoming = NULL;
  self->cut = FALSE;
  g_clear_pointer(&self->cut_meta, gst_structure_free);
  g_clear_pointer(&self->over, gst_structure_free);
}

static GstStructure *
copy_meta(const GstStructure *meta)
{
  return meta ? gst_structure_copy(meta) : NULL;
}

/* @incoming has as many frames as it may have. */
static void
cut_clip(GstOpenSoraClips *self)
{
  const GstOpenSoraClip *clip = self->incoming;
  const guint length = clip->frames->len;

  close_clip(self);
  if (clip->expected && clip->expected <= length) {
    self->over = copy_meta(clip->meta);
    return;
  }
  self->cut = TRUE;
  self->cut_meta = copy_meta(clip->meta);
  self->cut_left = clip->expected ? clip->expected - length : 0;
}

static void
count_out(GstOpenSoraClips *self, GstOpenSoraClip *clip)
{
  for (guint i = 0; i < clip->frames->len; i++)
    self->n_bytes -= gst_buffer_get_size(g_ptr_array_index(clip->frames, i));
  self->n_frames -= clip->frames->len;
  self->n_clips--;
}

/* The frames are freed without the lock: their pools may have somebody waiting for them. */
static void
drop_waiting(GstOpenSoraClips *self)
{
  GQueue dropped;

  g_mutex_lock(&self->lock);
  close_clip(self);
  dropped = self->waiting;
  g_queue_init(&self->waiting);
  for (GList *l = dropped.head; l; l = l->next)
    count_out(self, l->data);
  g_cond_broadcast(&self->cond);
  g_mutex_unlock(&self->lock);
  g_queue_clear_full(&dropped, (GDestroyNotify) gst_opensora_clip_unref);
}

void
gst_opensora_clips_reset(GstOpenSoraClips *self)
{
  drop_waiting(self);
  self->eos = FALSE;
  self->ret = GST_FLOW_OK;
  gst_clear_caps(&self->caps);
  g_clear_pointer(&self->tags, gst_tag_list_unref);
}

void
gst_opensora_clips_set_limits(GstOpenSoraClips *self, guint max_clips, guint max_frames)
{
  g_mutex_lock(&self->lock);
  self->max_clips = max_clips;
  self->max_frames = max_frames;
  g_cond_broadcast(&self->cond);
  g_mutex_unlock(&self->lock);
}

/* The thread that receives */

void
gst_opensora_clips_set_flushing(GstOpenSoraClips *self, gboolean flushing)
{
  g_mutex_lock(&self->lock);
  self->flushing = flushing;
  g_cond_broadcast(&self->cond);
  g_mutex_unlock(&self->lock);
}

gboolean
gst_opensora_clips_set_caps(GstOpenSoraClips *self, GstCaps *caps)
{
  GstVideoInfo info;

  if (!gst_video_info_from_caps(&info, caps))
    return FALSE;
  if (self->caps && gst_caps_is_equal(caps, self->caps))
    return TRUE;
  g_mutex_lock(&self->lock);
  close_clip(self);
  gst_caps_replace(&self->caps, caps);
  self->info = info;
  g_mutex_unlock(&self->lock);
  return TRUE;
}

void
gst_opensora_clips_set_tags(GstOpenSoraClips *self, GstTagList *tags)
{
  g_clear_pointer(&self->tags, gst_tag_list_unref);
  self->tags = tags;
}

void
gst_opensora_clips_begin_stream(GstOpenSoraClips *self)
{
  g_mutex_lock(&self->lock);
  close_clip(self);
  self->eos = FALSE;
  g_mutex_unlock(&self->lock);
}

void
gst_opensora_clips_end_stream(GstOpenSoraClips *self)
{
  g_mutex_lock(&self->lock);
  close_clip(self);
  self->eos = TRUE;
  g_mutex_unlock(&self->lock);
}

void
gst_opensora_clips_flush(GstOpenSoraClips *self)
{
  drop_waiting(self);
  g_clear_pointer(&self->tags, gst_tag_list_unref);
  g_mutex_lock(&self->lock);
  self->eos = FALSE;
  g_mutex_unlock(&self->lock);
}

static gboolean
same_meta(const GstStructure *a, const GstStructure *b)
{
  return a == b || (a && b && gst_structure_is_equal(a, b));
}

/* An extension goes on where the clip before it ends. */
static gboolean
is_extension(const GstStructure *meta)
{
  guint extension = 0;

  return meta && gst_structure_get_uint(meta, "extension", &extension) && extension > 0;
}

/* The meta counts frames at the rate they were made in, which is not theirs any more if
 * somebody repeated or dropped some on the way; with those that the decoder leaves out. */
static guint
count_expected(const GstStructure *meta, const GstVideoInfo *info)
{
  guint frames = 0, lead_in = 0;
  gint n = 0, d = 1;
  guint64 expected;

  if (!meta || !gst_structure_get_uint(meta, "frames", &frames))
    return 0;
  gst_structure_get_uint(meta, "lead-in", &lead_in);
  frames -= MIN(frames, lead_in);
  expected = frames;
  if (gst_structure_get_fraction(meta, "framerate", &n, &d) && n > 0 && d > 0 && info->fps_n > 0)
    expected = gst_util_uint64_scale_round(frames, (guint64) info->fps_n * (guint64) d,
                                           (guint64) info->fps_d * (guint64) n);
  return (guint) MIN(expected, G_MAXUINT);
}

static GstOpenSoraClip *
clip_new(GstOpenSoraClips *self, const GstStructure *meta)
{
  GstOpenSoraClip *clip = g_atomic_rc_box_new0(GstOpenSoraClip);

  clip->frames = g_ptr_array_new_with_free_func((GDestroyNotify) gst_buffer_unref);
  clip->caps = gst_caps_ref(self->caps);
  clip->info = self->info;
  clip->in_cuda = gst_opensora_cuda_in_caps(self->caps, 0);
  clip->meta = copy_meta(meta);
  clip->tags = g_steal_pointer(&self->tags);
  clip->continues = self->cut && same_meta(self->cut_meta, meta);
  clip->expected = clip->continues ? self->cut_left : count_expected(meta, &self->info);
  clip->continues |= is_extension(meta);
  return clip;
}

/* A pool with a limit would run dry while its buffers lie here. */
static GstBuffer *
leave_pool(GstBuffer *buffer)
{
  GstStructure *config;
  GstBuffer *copy;
  guint max = 0;

  if (!buffer->pool)
    return buffer;
  config = gst_buffer_pool_get_config(buffer->pool);
  gst_buffer_pool_config_get_params(config, NULL, NULL, NULL, &max);
  gst_structure_free(config);
  if (max == 0)
    return buffer;
  copy = gst_buffer_copy_deep(buffer);
  gst_buffer_unref(buffer);
  return copy;
}

/* Waits for room; with the lock held. */
static GstFlowReturn
begin_clip(GstOpenSoraClips *self, const GstStructure *meta)
{
  while (self->n_clips >= self->max_clips && !self->flushing && self->ret == GST_FLOW_OK)
    g_cond_wait(&self->cond, &self->lock);
  if (self->flushing)
    return GST_FLOW_FLUSHING;
  if (self->ret != GST_FLOW_OK)
    return self->ret;
  self->incoming = clip_new(self, meta);
  g_queue_push_tail(&self->waiting, self->incoming);
  self->n_clips++;
  return GST_FLOW_OK;
}

static void
add_frame(GstOpenSoraClips *self, GstBuffer *buffer)
{
  GstOpenSoraClip *clip = self->incoming;

  self->n_bytes += gst_buffer_get_size(buffer);
  self->n_frames++;
  g_ptr_array_add(clip->frames, buffer);
  /* A complete clip remains incoming: a few frames more than it says do not make a clip. */
  if (clip->frames->len >= self->max_frames)
    cut_clip(self);
  else if (clip->frames->len == clip->expected)
    clip->complete = TRUE;
}

GstFlowReturn
gst_opensora_clips_receive(GstOpenSoraClips *self, GstBuffer *buffer)
{
  const GstStructure *meta;
  GstFlowReturn ret = GST_FLOW_OK;

  buffer = leave_pool(buffer);
  meta = gst_opensora_clip_meta_get(buffer);

  g_mutex_lock(&self->lock);
  if (self->flushing)
    ret = GST_FLOW_FLUSHING;
  else if (self->ret != GST_FLOW_OK)
    ret = self->ret;
  else if (!self->caps)
    ret = GST_FLOW_NOT_NEGOTIATED;
  if (ret != GST_FLOW_OK)
    goto out;
  if (self->over && same_meta(self->over, meta))
    goto out;
  if (self->over || (self->incoming && !same_meta(self->incoming->meta, meta)))
    close_clip(self);
  if (!self->incoming)
    ret = begin_clip(self, meta);
  if (ret == GST_FLOW_OK)
    add_frame(self, g_steal_pointer(&buffer));

out:
  g_mutex_unlock(&self->lock);
  gst_clear_buffer(&buffer);
  return ret;
}

/* The thread that plays */

GstOpenSoraClip *
gst_opensora_clips_peek(GstOpenSoraClips *self)
{
  GstOpenSoraClip *clip;

  g_mutex_lock(&self->lock);
  clip = g_queue_peek_head(&self->waiting);
  clip = clip && clip->complete ? g_atomic_rc_box_acquire(clip) : NULL;
  g_mutex_unlock(&self->lock);
  return clip;
}

gboolean
gst_opensora_clips_take(GstOpenSoraClips *self, GstOpenSoraClip *clip)
{
  gboolean found;

  g_mutex_lock(&self->lock);
  found = g_queue_remove(&self->waiting, clip);
  g_mutex_unlock(&self->lock);
  if (found)
    gst_opensora_clip_unref(clip); /* the queue's reference */
  return found;
}

void
gst_opensora_clips_release(GstOpenSoraClips *self, GstOpenSoraClip *clip)
{
  g_mutex_lock(&self->lock);
  if (self->incoming == clip)
    close_clip(self);
  count_out(self, clip);
  g_cond_broadcast(&self->cond);
  g_mutex_unlock(&self->lock);
  gst_opensora_clip_unref(clip);
}

guint
gst_opensora_clips_get_length(GstOpenSoraClips *self, GstOpenSoraClip *clip)
{
  guint length;

  g_mutex_lock(&self->lock);
  length = clip->frames->len;
  g_mutex_unlock(&self->lock);
  return length;
}

GstBuffer *
gst_opensora_clips_get_frame(GstOpenSoraClips *self, GstOpenSoraClip *clip, guint i)
{
  GstBuffer *frame;

  g_mutex_lock(&self->lock);
  frame = gst_buffer_ref(g_ptr_array_index(clip->frames, MIN(i, clip->frames->len - 1)));
  g_mutex_unlock(&self->lock);
  return frame;
}

gboolean
gst_opensora_clips_is_drained(GstOpenSoraClips *self)
{
  gboolean drained;

  g_mutex_lock(&self->lock);
  drained = self->eos && g_queue_is_empty(&self->waiting);
  g_mutex_unlock(&self->lock);
  return drained;
}

void
gst_opensora_clips_finish(GstOpenSoraClips *self, GstFlowReturn ret)
{
  g_mutex_lock(&self->lock);
  self->ret = ret;
  g_cond_broadcast(&self->cond);
  g_mutex_unlock(&self->lock);
}

void
gst_opensora_clips_get_stats(GstOpenSoraClips *self, GstStructure *stats)
{
  guint complete = 0;

  g_mutex_lock(&self->lock);
  for (GList *l = self->waiting.head; l; l = l->next)
    complete += ((GstOpenSoraClip *) l->data)->complete;
  gst_structure_set(stats, "clips", G_TYPE_UINT, self->n_clips, "clips-waiting", G_TYPE_UINT,
                    complete, "frames", G_TYPE_UINT64, self->n_frames, "bytes", G_TYPE_UINT64,
                    self->n_bytes, NULL);
  g_mutex_unlock(&self->lock);
}
