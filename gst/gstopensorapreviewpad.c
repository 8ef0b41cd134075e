/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensorapreviewpad.h"

#include "gstopensoraclipmeta.h"

#define GST_CAT_DEFAULT gst_opensora_debug

#define NAME "preview"
/* How long a frame may take to a sink, which drops what comes late. */
#define LEAD (20 * GST_MSECOND)

struct _GstOpenSoraPreviewPad {
  GstPad parent;

  GMutex lock;
  GCond cond;
  GstOpenSoraPreview *next; /* the newest, NULL: none waits */
  gboolean ended;           /* EOS follows it */
  gboolean flushing;        /* or not active */
  gboolean dropped;         /* what is being sent is not wanted any more */
  GstClockTime end;         /* running time after what was sent last */

  /* The task's own */
  gboolean begun; /* stream-start has been sent, EOS has not */
  guint w, h;     /* of the preview that caps were chosen for, 0: none */
  gint fps_n, fps_d;
  GstCaps *caps; /* NULL: who is after the pad takes none */
  GstVideoInfo info;
};

G_DEFINE_FINAL_TYPE(GstOpenSoraPreviewPad, gst_opensora_preview_pad, GST_TYPE_PAD)

void
gst_opensora_preview_free(GstOpenSoraPreview *preview)
{
  g_free(preview->latent);
  g_clear_pointer(&preview->clip, gst_structure_free);
  g_free(preview);
}

/* For those who make previews */

/* Puts @preview in the place of what waits. */
static void
replace_next(GstOpenSoraPreviewPad *self, GstOpenSoraPreview *preview, gboolean drop)
{
  GstOpenSoraPreview *old;

  g_mutex_lock(&self->lock);
  if (preview && self->flushing) {
    old = preview;
  } else {
    old = self->next;
    self->next = preview;
    self->dropped |= drop;
    if (preview)
      self->ended = FALSE;
    g_cond_signal(&self->cond);
  }
  g_mutex_unlock(&self->lock);
  g_clear_pointer(&old, gst_opensora_preview_free);
}

gboolean
gst_opensora_preview_pad_is_wanted(GstOpenSoraPreviewPad *self)
{
  return gst_pad_is_linked(GST_PAD(self)) && GST_PAD_IS_ACTIVE(self);
}

void
gst_opensora_preview_pad_offer(GstOpenSoraPreviewPad *self, GstOpenSoraPreview *preview)
{
  replace_next(self, preview, FALSE);
}

void
gst_opensora_preview_pad_drop(GstOpenSoraPreviewPad *self)
{
  replace_next(self, NULL, TRUE);
}

void
gst_opensora_preview_pad_end(GstOpenSoraPreviewPad *self)
{
  g_mutex_lock(&self->lock);
  self->ended = TRUE;
  g_cond_signal(&self->cond);
  g_mutex_unlock(&self->lock);
}

static void
set_flushing(GstOpenSoraPreviewPad *self, gboolean flushing)
{
  replace_next(self, NULL, TRUE);
  g_mutex_lock(&self->lock);
  self->flushing = flushing;
  self->ended = FALSE;
  self->end = 0;
  g_cond_signal(&self->cond);
  g_mutex_unlock(&self->lock);
}

/* Colours and caps */

/* A sequence takes as long as the clip. */
static void
get_rate(const GstOpenSoraPreview *preview, gint *fps_n, gint *fps_d)
{
  const gint n = (gint) (preview->t - preview->skip), of = (gint) preview->n_frames;

  if (!gst_util_fraction_multiply(preview->fps_n, preview->fps_d, n, of, fps_n, fps_d))
    gst_util_double_to_fraction((double) preview->fps_n / preview->fps_d * n / of, fps_n, fps_d);
}

/* The smallest whole multiple of the latent's size that downstream takes. */
static GstCaps *
choose_caps(GstOpenSoraPreviewPad *self, const GstOpenSoraPreview *preview, GstVideoInfo *info)
{
  g_autoptr(GstCaps) ours = gst_pad_get_pad_template_caps(GST_PAD(self));
  g_autoptr(GstCaps) allowed = gst_pad_peer_query_caps(GST_PAD(self), ours);
  gint fps_n, fps_d;

  get_rate(preview, &fps_n, &fps_d);
  for (guint size = 1; size * MAX(preview->w, preview->h) <= GST_OPENSORA_MAX_SIZE; size++) {
    g_autoptr(GstCaps) caps = NULL;

    gst_video_info_set_format(info, GST_VIDEO_FORMAT_RGB, preview->w * size, preview->h * size);
    info->fps_n = fps_n;
    info->fps_d = fps_d;
    caps = gst_video_info_to_caps(info);
    if (gst_caps_can_intersect(allowed, caps))
      return g_steal_pointer(&caps);
  }
  return NULL;
}

/* FALSE if nothing after the pad takes such previews. */
static gboolean
negotiate(GstOpenSoraPreviewPad *self, GstElement *element, const GstOpenSoraPreview *preview)
{
  const gboolean asked = gst_pad_check_reconfigure(GST_PAD(self));
  gint fps_n, fps_d;

  get_rate(preview, &fps_n, &fps_d);
  if (!asked && self->w == preview->w && self->h == preview->h && self->fps_n == fps_n &&
      self->fps_d == fps_d)
    return self->caps != NULL;
  gst_clear_caps(&self->caps);
  self->caps = choose_caps(self, preview, &self->info);
  self->w = preview->w;
  self->h = preview->h;
  self->fps_n = fps_n;
  self->fps_d = fps_d;
  if (self->caps)
    return gst_pad_set_caps(GST_PAD(self), self->caps);
  GST_ELEMENT_WARNING(element, CORE, NEGOTIATION,
                      ("The elements after the preview take none of RGB with whole multiples of "
                       "%u x %u pixels and %d/%d frames a second.",
                       preview->w, preview->h, fps_n, fps_d),
                      (NULL));
  return FALSE;
}

static GstBuffer *
make_frame(const GstVideoInfo *info, const GstOpenSoraPreview *preview, guint i)
{
  const gsize frame = (gsize) preview->h * preview->w * preview->map.channels;
  GstBuffer *buffer = gst_buffer_new_allocate(NULL, GST_VIDEO_INFO_SIZE(info), NULL);
  g_autoptr(GError) error = NULL;
  GstVideoFrame pixels;

  if (!buffer || !gst_video_frame_map(&pixels, info, buffer, GST_MAP_WRITE)) {
    gst_clear_buffer(&buffer);
    return NULL;
  }
  if (!osr_preview_get_picture(&preview->map, preview->latent + (preview->skip + i) * frame,
                               preview->h, preview->w,
                               &(OsrPicture){
                                   .format = OSR_PIXEL_RGB,
                                   .width = (guint) GST_VIDEO_INFO_WIDTH(info),
                                   .height = (guint) GST_VIDEO_INFO_HEIGHT(info),
                                   .planes = { GST_VIDEO_FRAME_PLANE_DATA(&pixels, 0) },
                                   .strides = { GST_VIDEO_FRAME_PLANE_STRIDE(&pixels, 0) },
                               },
                               &error))
    GST_ERROR("%s", error->message); /* cannot be: caps are chosen by the same rule */
  gst_video_frame_unmap(&pixels);
  return buffer;
}

/* The task */

static void
begin_stream(GstOpenSoraPreviewPad *self, GstElement *element)
{
  g_autoptr(GstPad) sink = gst_element_get_static_pad(element, "sink");
  g_autoptr(GstEvent) other = gst_pad_get_sticky_event(sink, GST_EVENT_STREAM_START, 0);
  g_autofree char *id = NULL;
  guint group;
  GstEvent *event;

  if (self->begun)
    return;
  if (!other || !gst_event_parse_group_id(other, &group))
    group = gst_util_group_id_next();
  id = gst_pad_create_stream_id(GST_PAD(self), element, "preview");
  event = gst_event_new_stream_start(id);
  gst_event_set_group_id(event, group);
  gst_pad_push_event(GST_PAD(self), event);
  self->begun = TRUE;
}

/* When a frame that is sent now can be shown. */
static GstClockTime
running_time(GstElement *element)
{
  GstClockTime now = gst_element_get_current_running_time(element);

  if (GST_STATE(element) == GST_STATE_PLAYING && GST_CLOCK_TIME_IS_VALID(now))
    return now + LEAD;
  now = gst_element_get_start_time(element);
  return GST_CLOCK_TIME_IS_VALID(now) ? now : 0;
}

/* The clip's times in the stream, from now on. */
static void
send_segment(GstOpenSoraPreviewPad *self, GstElement *element, const GstOpenSoraPreview *preview)
{
  GstClockTime now = running_time(element);
  GstSegment segment;

  gst_segment_init(&segment, GST_FORMAT_TIME);
  segment.start = segment.time = segment.position = preview->start;
  segment.stop = preview->end;
  g_mutex_lock(&self->lock);
  segment.base = MAX(now, self->end);
  self->end = segment.base + (preview->end - preview->start);
  g_mutex_unlock(&self->lock);
  gst_pad_push_event(GST_PAD(self), gst_event_new_segment(&segment));
}

static gboolean
is_dropped(GstOpenSoraPreviewPad *self)
{
  gboolean dropped;

  g_mutex_lock(&self->lock);
  dropped = self->dropped;
  g_mutex_unlock(&self->lock);
  return dropped;
}

/* What goes wrong ends this preview; the next may go well. */
static void
send_preview(GstOpenSoraPreviewPad *self, GstElement *element, const GstOpenSoraPreview *preview)
{
  const guint n = preview->t - preview->skip;
  const GstClockTime length = preview->end - preview->start;
  GstFlowReturn ret = GST_FLOW_OK;

  begin_stream(self, element);
  if (!negotiate(self, element, preview))
    return;
  send_segment(self, element, preview);
  for (guint i = 0; i < n && ret == GST_FLOW_OK && !is_dropped(self); i++) {
    const GstClockTime begin = gst_util_uint64_scale_int(length, (gint) i, (gint) n);
    const GstClockTime end = gst_util_uint64_scale_int(length, (gint) i + 1, (gint) n);
    GstBuffer *buffer = make_frame(&self->info, preview, i);

    if (!buffer)
      return;
    gst_opensora_clip_meta_add(buffer, preview->clip);
    GST_BUFFER_PTS(buffer) = preview->start + begin;
    GST_BUFFER_DURATION(buffer) = end - begin;
    GST_BUFFER_OFFSET(buffer) = i;
    GST_BUFFER_OFFSET_END(buffer) = i + 1;
    if (i == 0)
      GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
    ret = gst_pad_push(GST_PAD(self), buffer);
  }
  if (ret != GST_FLOW_OK)
    GST_DEBUG_OBJECT(self, "preview not shown: %s", gst_flow_get_name(ret));
}

/* Waits for something to do: a preview, or NULL for EOS. FALSE: the task has to stop. */
static gboolean
wait_for_next(GstOpenSoraPreviewPad *self, GstOpenSoraPreview **next)
{
  gboolean go;

  g_mutex_lock(&self->lock);
  while (!self->flushing && !self->next && !self->ended)
    g_cond_wait(&self->cond, &self->lock);
  go = !self->flushing;
  *next = go ? g_steal_pointer(&self->next) : NULL;
  if (!*next)
    self->ended = FALSE;
  self->dropped = FALSE;
  g_mutex_unlock(&self->lock);
  return go;
}

static void
loop(gpointer data)
{
  GstOpenSoraPreviewPad *self = data;
  g_autoptr(GstOpenSoraPreview) next = NULL;
  g_autoptr(GstElement) element = NULL;

  /* A pad that is requested while the element runs is active before it is the element's. */
  if (wait_for_next(self, &next))
    element = gst_pad_get_parent_element(GST_PAD(self));
  if (!element) {
    gst_pad_pause_task(GST_PAD(self));
    return;
  }
  if (next) {
    send_preview(self, element, next);
    return;
  }
  begin_stream(self, element);
  gst_pad_push_event(GST_PAD(self), gst_event_new_eos());
  self->begun = FALSE;
}

void
gst_opensora_preview_pad_flush_start(GstOpenSoraPreviewPad *self, GstEvent *event)
{
  set_flushing(self, TRUE);
  gst_pad_push_event(GST_PAD(self), event);
  gst_pad_pause_task(GST_PAD(self));
}

void
gst_opensora_preview_pad_flush_stop(GstOpenSoraPreviewPad *self, GstEvent *event)
{
  gst_pad_push_event(GST_PAD(self), event);
  if (!GST_PAD_IS_ACTIVE(self))
    return;
  set_flushing(self, FALSE);
  gst_pad_start_task(GST_PAD(self), loop, self, NULL);
  if (!GST_PAD_IS_ACTIVE(self)) { /* since then: nobody else stops the task */
    set_flushing(self, TRUE);
    gst_pad_stop_task(GST_PAD(self));
  }
}

void
gst_opensora_preview_pad_release(GstOpenSoraPreviewPad *self)
{
  set_flushing(self, TRUE);
  gst_pad_push_event(GST_PAD(self), gst_event_new_flush_start());
  gst_pad_set_active(GST_PAD(self), FALSE);
}

/* The pad */

static gboolean
activate_mode(GstPad *pad, GstObject *parent, GstPadMode mode, gboolean active)
{
  GstOpenSoraPreviewPad *self = GST_OPENSORA_PREVIEW_PAD(pad);
  gboolean ok;

  if (mode != GST_PAD_MODE_PUSH)
    return FALSE;
  set_flushing(self, !active);
  if (active)
    return gst_pad_start_task(pad, loop, pad, NULL);
  ok = gst_pad_stop_task(pad);
  self->begun = FALSE;
  self->w = self->h = 0;
  gst_clear_caps(&self->caps);
  return ok;
}

/* The clip hears nothing of what its viewers want. */
static gboolean
event_function(GstPad *pad, GstObject *parent, GstEvent *event)
{
  const GstEventType type = GST_EVENT_TYPE(event);
  const gboolean taken =
      type == GST_EVENT_RECONFIGURE || type == GST_EVENT_LATENCY || type == GST_EVENT_QOS;

  gst_event_unref(event);
  return taken;
}

/* Times of the clip are not the preview's. */
static gboolean
query_function(GstPad *pad, GstObject *parent, GstQuery *query)
{
  switch (GST_QUERY_TYPE(query)) {
  case GST_QUERY_DURATION:
  case GST_QUERY_POSITION:
  case GST_QUERY_SEEKING:
    return FALSE;
  default:
    return gst_pad_query_default(pad, parent, query);
  }
}

static void
gst_opensora_preview_pad_finalize(GObject *object)
{
  GstOpenSoraPreviewPad *self = GST_OPENSORA_PREVIEW_PAD(object);

  g_clear_pointer(&self->next, gst_opensora_preview_free);
  gst_clear_caps(&self->caps);
  g_cond_clear(&self->cond);
  g_mutex_clear(&self->lock);
  G_OBJECT_CLASS(gst_opensora_preview_pad_parent_class)->finalize(object);
}

static void
gst_opensora_preview_pad_class_init(GstOpenSoraPreviewPadClass *klass)
{
  G_OBJECT_CLASS(klass)->finalize = gst_opensora_preview_pad_finalize;
}

static void
gst_opensora_preview_pad_init(GstOpenSoraPreviewPad *self)
{
  g_mutex_init(&self->lock);
  g_cond_init(&self->cond);
  self->flushing = TRUE;
  gst_pad_set_activatemode_function(GST_PAD(self), activate_mode);
  gst_pad_set_event_function(GST_PAD(self), event_function);
  gst_pad_set_query_function(GST_PAD(self), query_function);
}

GstPad *
gst_opensora_preview_pad_new(GstPadTemplate *templ)
{
  return g_object_new(GST_TYPE_OPENSORA_PREVIEW_PAD, "name", NAME, "direction", GST_PAD_SRC,
                      "template", templ, NULL);
}

GstOpenSoraPreviewPad *
gst_opensora_preview_pad_get(GstElement *element)
{
  GstPad *pad = gst_element_get_static_pad(element, NAME);

  return pad ? GST_OPENSORA_PREVIEW_PAD(pad) : NULL;
}
