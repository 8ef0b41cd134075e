/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The task of opensoraplayout: waits for a frame's time, decides what is shown, sends it.
 * Frame times are counted from the pipeline's base time on, in whole frames, so that neither
 * rounding nor a late frame adds up.
 */
#include "cuda/gstopensoracudaoutput.h"
#include "gstopensora.h"
#include "gstopensoraclipmeta.h"
#include "gstopensoraframes.h"
#include "gstopensoraplayout.h"

#define GST_CAT_DEFAULT gst_opensora_playout_debug

/* The slate where neither downstream nor upstream says what size it shall have. */
#define SLATE_WIDTH 256
#define SLATE_HEIGHT 256
/* Lines from which on HD colorimetry is meant when nothing is said. */
#define HD_LINES 577

/* An error that is on the bus already. */
#define FLOW_TOLD GST_FLOW_CUSTOM_ERROR
/* The wait was for nothing: look again. */
#define FLOW_AGAIN GST_FLOW_CUSTOM_SUCCESS

void
gst_opensora_playout_reset(GstOpenSoraPlayout *self)
{
  GstOpenSoraClip *clip;
  guint plays;

  while ((clip = gst_opensora_player_stop(&self->player, &plays)))
    gst_opensora_clips_release(&self->clips, clip);
  gst_opensora_player_init(&self->player, &self->clips);

  g_mutex_lock(&self->lock);
  self->ending = FALSE;
  self->position = GST_CLOCK_TIME_NONE;
  self->fps_n = GST_OPENSORA_PLAYOUT_RATE;
  self->fps_d = 1;
  self->rendered = self->dropped = 0;
  g_list_free_full(g_steal_pointer(&self->events), (GDestroyNotify) gst_event_unref);
  g_mutex_unlock(&self->lock);

  self->begun = self->placed = self->rate_agreed = FALSE;
  self->discont = TRUE;
  self->origin = 0;
  self->frame = 0;
  gst_clear_buffer(&self->slate);
  gst_clear_caps(&self->slate_caps);
  gst_clear_caps(&self->caps);
  self->asked = FALSE;
}

/* Times */

static GstClockTime
frame_time(GstOpenSoraPlayout *self, guint64 frame)
{
  return self->origin +
         gst_util_uint64_scale(frame, (guint64) self->fps_d * GST_SECOND, (guint64) self->fps_n);
}

static guint64
count_frames(GstOpenSoraPlayout *self, GstClockTime time)
{
  return gst_util_uint64_scale(time, (guint64) self->fps_n, (guint64) self->fps_d * GST_SECOND);
}

/* From the next frame on. */
static void
set_rate(GstOpenSoraPlayout *self, gint fps_n, gint fps_d)
{
  if (fps_n == self->fps_n && fps_d == self->fps_d)
    return;
  GST_INFO_OBJECT(self, "%d/%d frames a second", fps_n, fps_d);
  self->origin = frame_time(self, self->frame);
  self->frame = 0;
  g_mutex_lock(&self->lock);
  self->fps_n = fps_n;
  self->fps_d = fps_d;
  g_mutex_unlock(&self->lock);
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_latency(GST_OBJECT(self)));
}

/* The first frame is the one whose time it is now, in a pipeline that may have run for long. */
static void
place_first_frame(GstOpenSoraPlayout *self, GstClock *clock, GstClockTime base_time)
{
  const GstClockTime now = gst_clock_get_time(clock);

  self->placed = TRUE;
  self->origin = 0;
  self->frame = now > base_time ? count_frames(self, now - base_time) : 0;
}

/* With the lock held, which is given up meanwhile. */
static GstFlowReturn
wait_once(GstOpenSoraPlayout *self, GstClockTimeDiff *late)
{
  g_autoptr(GstClock) clock = NULL;
  GstClockTime base_time;
  GstClockReturn ret;

  while (!self->playing && !self->flushing && !self->ending)
    g_cond_wait(&self->cond, &self->lock);
  if (self->flushing)
    return GST_FLOW_FLUSHING;
  if (self->ending)
    return GST_FLOW_EOS;
  clock = gst_element_get_clock(GST_ELEMENT(self));
  if (!clock)
    return FLOW_TOLD;
  base_time = gst_element_get_base_time(GST_ELEMENT(self));
  if (!self->placed)
    place_first_frame(self, clock, base_time);
  self->clock_id = gst_clock_new_single_shot_id(clock, base_time + frame_time(self, self->frame));
  g_mutex_unlock(&self->lock);
  ret = gst_clock_id_wait(self->clock_id, late);
  g_mutex_lock(&self->lock);
  gst_clock_id_unref(self->clock_id);
  self->clock_id = NULL;
  return ret == GST_CLOCK_UNSCHEDULED ? FLOW_AGAIN : GST_FLOW_OK;
}

static void
post_qos(GstOpenSoraPlayout *self, guint64 n, GstClockTimeDiff late)
{
  const GstClockTime time = frame_time(self, self->frame);
  GstMessage *message = gst_message_new_qos(GST_OBJECT(self), TRUE, time, time, time,
                                            frame_time(self, self->frame + n) - time);

  gst_message_set_qos_values(message, late, 1.0, 1000000);
  gst_message_set_qos_stats(message, GST_FORMAT_BUFFERS, self->rendered, self->dropped);
  gst_element_post_message(GST_ELEMENT(self), message);
}

/* Far behind, because downstream took too long: goes on with the frame whose time it is. */
static void
catch_up(GstOpenSoraPlayout *self, GstClockTimeDiff late)
{
  GstClockTime max_lateness;
  guint64 n;

  GST_OBJECT_LOCK(self);
  max_lateness = self->max_lateness;
  GST_OBJECT_UNLOCK(self);
  if (late <= 0 || (GstClockTime) late <= max_lateness)
    return;
  n = count_frames(self, (GstClockTime) late);
  if (n == 0)
    return;
  GST_WARNING_OBJECT(self,
                     "late by %" GST_STIME_FORMAT ", leaving %" G_GUINT64_FORMAT " frames out",
                     GST_STIME_ARGS(late), n);
  g_mutex_lock(&self->lock);
  self->dropped += n;
  g_mutex_unlock(&self->lock);
  post_qos(self, n, late);
  self->frame += n;
  self->discont = TRUE;
}

static GstFlowReturn
wait_for_frame(GstOpenSoraPlayout *self)
{
  GstClockTimeDiff late = 0;
  GstFlowReturn ret;

  g_mutex_lock(&self->lock);
  do
    ret = wait_once(self, &late);
  while (ret == FLOW_AGAIN);
  g_mutex_unlock(&self->lock);
  if (ret == FLOW_TOLD)
    GST_ELEMENT_ERROR(self, CORE, CLOCK,
                      ("There is no clock: put the element into a pipeline, or give it one."),
                      (NULL));
  else if (ret == GST_FLOW_OK)
    catch_up(self, late);
  return ret;
}

/* Negotiation */

/* The rate that downstream wants, or of those that it takes the nearest to that one. */
static void
agree_rate(GstOpenSoraPlayout *self, gint fps_n, gint fps_d)
{
  g_autoptr(GstCaps) template_caps = gst_pad_get_pad_template_caps(self->srcpad);
  g_autoptr(GstCaps) caps = gst_pad_peer_query_caps(self->srcpad, template_caps);
  GstStructure *s;

  if (gst_caps_is_empty(caps))
    return;
  caps = gst_caps_make_writable(gst_caps_truncate(g_steal_pointer(&caps)));
  s = gst_caps_get_structure(caps, 0);
  gst_structure_fixate_field_nearest_fraction(s, "framerate", fps_n, fps_d);
  if (gst_structure_get_fraction(s, "framerate", &fps_n, &fps_d) && fps_n > 0)
    set_rate(self, fps_n, fps_d);
}

/* What is known of the clips before they come. */
static GstCaps *
get_upstream_caps(GstOpenSoraPlayout *self)
{
  GstCaps *caps = gst_pad_get_current_caps(self->sinkpad);

  return caps ? caps : gst_pad_peer_query_caps(self->sinkpad, NULL);
}

static void
fixate_slate(GstStructure *s)
{
  gint height = 0;

  gst_structure_fixate_field_nearest_int(s, "width", SLATE_WIDTH);
  gst_structure_fixate_field_nearest_int(s, "height", SLATE_HEIGHT);
  gst_structure_get_int(s, "height", &height);
  if (gst_structure_has_field(s, "pixel-aspect-ratio"))
    gst_structure_fixate_field_nearest_fraction(s, "pixel-aspect-ratio", 1, 1);
  if (gst_structure_has_field(s, "interlace-mode"))
    gst_structure_fixate_field_string(s, "interlace-mode", "progressive");
  if (gst_structure_has_field(s, "colorimetry"))
    gst_structure_fixate_field_string(s, "colorimetry", height < HD_LINES ? "bt601" : "bt709");
}

/* What clips will be, as far as both sides tell already; NULL if frames in system memory cannot
 * be sent. */
static GstCaps *
find_slate_caps(GstOpenSoraPlayout *self)
{
  g_autoptr(GstCaps) own =
      gst_opensora_cuda_strip_caps(gst_pad_get_pad_template_caps(self->srcpad));
  g_autoptr(GstCaps) caps = gst_pad_peer_query_caps(self->srcpad, own);
  g_autoptr(GstCaps) upstream = gst_opensora_cuda_strip_caps(get_upstream_caps(self));
  g_autoptr(GstCaps) both = NULL;

  upstream = gst_opensora_playout_drop_rate(g_steal_pointer(&upstream));
  both = gst_caps_intersect_full(caps, upstream, GST_CAPS_INTERSECT_FIRST);
  if (gst_caps_is_empty(both))
    gst_caps_replace(&both, caps);
  if (gst_caps_is_empty(both))
    return NULL;
  both = gst_caps_make_writable(gst_caps_truncate(g_steal_pointer(&both)));
  fixate_slate(gst_caps_get_structure(both, 0));
  gst_structure_fixate_field_nearest_fraction(gst_caps_get_structure(both, 0), "framerate",
                                              self->fps_n, self->fps_d);
  return gst_caps_fixate(g_steal_pointer(&both));
}

static GstFlowReturn
make_slate(GstOpenSoraPlayout *self)
{
  g_autoptr(GstCaps) caps = NULL;
  g_autoptr(GCancellable) cancellable = NULL;
  g_autofree char *location = NULL;
  g_autoptr(GstBuffer) slate = NULL;
  GstOpenSoraSlate kind;
  GError *error = NULL;
  guint32 color;

  GST_OBJECT_LOCK(self);
  kind = self->slate_kind;
  color = self->slate_color;
  location = g_strdup(self->slate_location);
  GST_OBJECT_UNLOCK(self);
  if (kind == GST_OPENSORA_SLATE_NONE)
    return GST_FLOW_OK;
  if (kind == GST_OPENSORA_SLATE_PICTURE && (!location || !*location)) {
    GST_ELEMENT_ERROR(self, RESOURCE, NOT_FOUND,
                      ("slate=picture needs a picture: set slate-location."), (NULL));
    return FLOW_TOLD;
  }
  caps = find_slate_caps(self);
  if (!caps || !gst_video_info_from_caps(&self->slate_info, caps)) {
    GST_INFO_OBJECT(self, "no slate: downstream takes no frames in system memory");
    return GST_FLOW_OK;
  }
  if (kind == GST_OPENSORA_SLATE_PICTURE) {
    cancellable = gst_opensora_interrupt_begin(&self->interrupt);
    slate = gst_opensora_frame_of_picture(&self->slate_info, location, cancellable, &error);
  } else {
    slate = gst_opensora_frame_of_colour(&self->slate_info, color);
    if (!slate)
      g_set_error(&error, OSR_ERROR, OSR_ERROR_MEMORY, "no memory for a frame of %d x %d",
                  GST_VIDEO_INFO_WIDTH(&self->slate_info),
                  GST_VIDEO_INFO_HEIGHT(&self->slate_info));
  }
  if (!slate) {
    g_prefix_error(&error, "slate: ");
    return gst_opensora_post_error(GST_ELEMENT(self), error) == GST_FLOW_FLUSHING
               ? GST_FLOW_FLUSHING
               : FLOW_TOLD;
  }
  gst_caps_replace(&self->slate_caps, caps);
  self->slate = g_steal_pointer(&slate);
  return GST_FLOW_OK;
}

/* Before the first frame, and whenever downstream wants something else. */
static GstFlowReturn
negotiate(GstOpenSoraPlayout *self)
{
  g_autoptr(GstCaps) upstream = NULL;
  gint fps_n = self->fps_n, fps_d = self->fps_d, n, d;

  if (!gst_pad_check_reconfigure(self->srcpad))
    return GST_FLOW_OK;
  upstream = self->rate_agreed ? NULL : get_upstream_caps(self);
  if (upstream && gst_caps_get_size(upstream) > 0 &&
      gst_structure_get_fraction(gst_caps_get_structure(upstream, 0), "framerate", &n, &d) &&
      n > 0) {
    fps_n = n;
    fps_d = d;
  }
  agree_rate(self, fps_n, fps_d);
  self->asked = FALSE;
  /* A slate that fades out has to stay as it is. */
  if (self->player.track.clip)
    return GST_FLOW_OK;
  gst_clear_buffer(&self->slate);
  gst_clear_caps(&self->slate_caps);
  return make_slate(self);
}

/* The first clip says what downstream leaves open. */
static void
agree_clip_rate(GstOpenSoraPlayout *self)
{
  g_autoptr(GstOpenSoraClip) clip =
      self->rate_agreed ? NULL : gst_opensora_clips_peek(&self->clips);

  if (!clip)
    return;
  self->rate_agreed = TRUE;
  if (clip->info.fps_n > 0)
    agree_rate(self, clip->info.fps_n, clip->info.fps_d);
}

static void
begin_stream(GstOpenSoraPlayout *self)
{
  g_autofree char *id = NULL;
  GstEvent *event;

  if (self->begun)
    return;
  id = g_strdup_printf("opensoraplayout-%08x%08x", g_random_int(), g_random_int());
  event = gst_event_new_stream_start(id);
  gst_event_set_group_id(event, gst_util_group_id_next());
  gst_pad_push_event(self->srcpad, event);
  self->begun = TRUE;
}

static void
ask_for_video_meta(GstOpenSoraPlayout *self)
{
  GstQuery *query = gst_query_new_allocation(self->caps, FALSE);

  self->takes_video_meta = gst_pad_peer_query(self->srcpad, query) &&
                           gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL);
  gst_query_unref(query);
  self->asked = TRUE;
}

/* @caps in our rate go out, where they have changed, and the segment after the first. */
static GstFlowReturn
send_caps(GstOpenSoraPlayout *self, GstCaps *caps)
{
  g_autoptr(GstCaps) wanted = gst_caps_copy(caps);
  GstSegment segment;

  gst_caps_set_simple(wanted, "framerate", GST_TYPE_FRACTION, self->fps_n, self->fps_d, NULL);
  if (self->caps && gst_caps_is_equal(wanted, self->caps)) {
    if (!self->asked)
      ask_for_video_meta(self);
    return GST_FLOW_OK;
  }
  GST_INFO_OBJECT(self, "%" GST_PTR_FORMAT, wanted);
  if (!gst_pad_set_caps(self->srcpad, wanted) || !gst_video_info_from_caps(&self->info, wanted))
    return GST_PAD_IS_FLUSHING(self->srcpad) ? GST_FLOW_FLUSHING : GST_FLOW_NOT_NEGOTIATED;
  if (!self->caps) {
    gst_segment_init(&segment, GST_FORMAT_TIME);
    gst_pad_push_event(self->srcpad, gst_event_new_segment(&segment));
  }
  gst_caps_replace(&self->caps, wanted);
  ask_for_video_meta(self);
  return GST_FLOW_OK;
}

static void
send_events(GstOpenSoraPlayout *self)
{
  GList *events;

  g_mutex_lock(&self->lock);
  events = g_list_reverse(g_steal_pointer(&self->events));
  g_mutex_unlock(&self->lock);
  for (GList *l = events; l; l = l->next)
    gst_pad_push_event(self->srcpad, l->data);
  g_list_free(events);
}

/* What is told about clips */

static void
tell(GstOpenSoraPlayout *self, guint signal, GstOpenSoraClip *clip, GstStructure *message)
{
  g_autoptr(GstStructure) fields =
      clip->meta ? gst_structure_copy(clip->meta) : gst_structure_new_empty(GST_OPENSORA_CLIP_META);
  const char *prompt = gst_structure_get_string(fields, "prompt");

  gst_structure_set(message, "prompt", G_TYPE_STRING, prompt, "clip", GST_TYPE_STRUCTURE, fields,
                    "running-time", G_TYPE_UINT64, frame_time(self, self->frame), NULL);
  GST_INFO_OBJECT(self, "%" GST_PTR_FORMAT, message);
  gst_element_post_message(GST_ELEMENT(self), gst_message_new_element(GST_OBJECT(self), message));
  g_signal_emit(self, gst_opensora_playout_signals[signal], 0, prompt, fields);
}

static void
tell_started(GstOpenSoraPlayout *self, GstOpenSoraClip *clip)
{
  tell(self, GST_OPENSORA_CLIP_STARTED, clip, gst_structure_new_empty("opensora-clip-started"));
}

/* @clip may be NULL. */
static void
release_ended(GstOpenSoraPlayout *self, GstOpenSoraClip *clip, guint plays)
{
  if (!clip)
    return;
  tell(self, GST_OPENSORA_CLIP_ENDED, clip,
       gst_structure_new("opensora-clip-ended", "plays", G_TYPE_UINT, plays, NULL));
  gst_opensora_clips_release(&self->clips, clip);
}

/* Frames */

/* A buffer of our own with what is to be seen of @pick; frames of clips share their memory. */
static GstBuffer *
make_buffer(GstOpenSoraPlayout *self, const GstOpenSoraPick *pick)
{
  GstBuffer *buffer;

  if (pick->old_frame) {
    buffer = gst_opensora_mix_frames(&self->info, pick->old_frame, pick->frame, pick->weight);
    if (buffer && pick->clip->meta)
      gst_opensora_clip_meta_add(buffer, pick->clip->meta);
    return buffer;
  }
  if (!self->takes_video_meta && !(pick->clip && pick->clip->in_cuda) &&
      !gst_opensora_frame_is_plain(&self->info, pick->frame)) {
    buffer = gst_opensora_frame_make_plain(&self->info, pick->frame);
    if (buffer && pick->clip->meta)
      gst_opensora_clip_meta_add(buffer, pick->clip->meta);
    return buffer;
  }
  return gst_buffer_copy(pick->frame);
}

static void
set_times(GstOpenSoraPlayout *self, GstBuffer *buffer)
{
  GST_BUFFER_PTS(buffer) = frame_time(self, self->frame);
  GST_BUFFER_DTS(buffer) = GST_CLOCK_TIME_NONE;
  GST_BUFFER_DURATION(buffer) = frame_time(self, self->frame + 1) - GST_BUFFER_PTS(buffer);
  GST_BUFFER_OFFSET(buffer) = self->rendered;
  GST_BUFFER_OFFSET_END(buffer) = self->rendered + 1;
  if (self->discont)
    GST_BUFFER_FLAG_SET(buffer, GST_BUFFER_FLAG_DISCONT);
  else
    GST_BUFFER_FLAG_UNSET(buffer, GST_BUFFER_FLAG_DISCONT);
  self->discont = FALSE;
}

static GstFlowReturn
send_frame(GstOpenSoraPlayout *self, const GstOpenSoraPick *pick)
{
  GstFlowReturn ret = send_caps(self, pick->clip ? pick->clip->caps : self->slate_caps);
  GstBuffer *buffer;

  if (ret != GST_FLOW_OK)
    return ret;
  if (pick->begins && pick->clip->tags)
    gst_pad_push_event(self->srcpad, gst_event_new_tag(gst_tag_list_ref(pick->clip->tags)));
  send_events(self);
  buffer = make_buffer(self, pick);
  if (!buffer) {
    GST_ELEMENT_ERROR(self, RESOURCE, FAILED,
                      ("Cannot make a frame: out of memory, or a frame "
                       "that came cannot be read."),
                      (NULL));
    return FLOW_TOLD;
  }
  set_times(self, buffer);
  if (pick->begins)
    tell_started(self, pick->clip);
  g_mutex_lock(&self->lock);
  self->position = GST_BUFFER_PTS(buffer);
  self->rendered++;
  g_mutex_unlock(&self->lock);
  return gst_pad_push(self->srcpad, buffer);
}

static void
get_params(GstOpenSoraPlayout *self, GstOpenSoraPlayerParams *params)
{
  GST_OBJECT_LOCK(self);
  *params = (GstOpenSoraPlayerParams){
    .repeat = self->repeat,
    .min_plays = self->min_plays,
    .fade_frames =
        self->transition == GST_OPENSORA_TRANSITION_CROSS_FADE ? self->transition_frames : 0,
    .drain = self->at_eos == GST_OPENSORA_AT_EOS_DRAIN,
    .fps_n = self->fps_n,
    .fps_d = self->fps_d,
  };
  GST_OBJECT_UNLOCK(self);
}

static GstFlowReturn
show(GstOpenSoraPlayout *self)
{
  GstOpenSoraPlayerParams params;
  GstFlowReturn ret = GST_FLOW_OK;
  GstOpenSoraClip *faded;
  GstOpenSoraPick pick;
  guint plays;

  agree_clip_rate(self);
  get_params(self, &params);
  gst_opensora_player_pick(&self->player, &params, self->slate, &self->slate_info, &pick);
  release_ended(self, pick.ended, pick.plays);
  if (pick.eos)
    return GST_FLOW_EOS;
  if (pick.frame)
    ret = send_frame(self, &pick);
  gst_clear_buffer(&pick.frame);
  gst_clear_buffer(&pick.old_frame);
  if (ret != GST_FLOW_OK)
    return ret;

  self->frame++;
  faded = gst_opensora_player_shown(&self->player, &plays);
  release_ended(self, faded, plays);
  if (self->player.track.clip && self->player.fade_len == 0)
    gst_clear_buffer(&self->slate);
  return GST_FLOW_OK;
}

/* The task */

static void
end_stream(GstOpenSoraPlayout *self)
{
  GstOpenSoraClip *clip;
  guint plays;

  while ((clip = gst_opensora_player_stop(&self->player, &plays)))
    release_ended(self, clip, plays);
  gst_pad_push_event(self->srcpad, gst_event_new_eos());
}

static void
stop_playing(GstOpenSoraPlayout *self, GstFlowReturn ret)
{
  const gboolean told = ret == FLOW_TOLD;

  GST_DEBUG_OBJECT(self, "%s", gst_flow_get_name(ret));
  gst_pad_pause_task(self->srcpad);
  gst_opensora_clips_finish(&self->clips, told ? GST_FLOW_ERROR : ret);
  if (ret == GST_FLOW_FLUSHING)
    return;
  if (ret != GST_FLOW_EOS && !told)
    GST_ELEMENT_FLOW_ERROR(self, ret);
  end_stream(self);
}

void
gst_opensora_playout_loop(gpointer srcpad)
{
  GstOpenSoraPlayout *self = GST_OPENSORA_PLAYOUT(GST_PAD_PARENT(srcpad));
  GstFlowReturn ret;

  begin_stream(self);
  ret = negotiate(self);
  if (ret == GST_FLOW_OK)
    ret = wait_for_frame(self);
  if (ret == GST_FLOW_OK)
    ret = negotiate(self);
  if (ret == GST_FLOW_OK)
    ret = show(self);
  if (ret != GST_FLOW_OK)
    stop_playing(self, ret);
}
