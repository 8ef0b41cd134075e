/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoraplayer.h"

#include "gstopensoraframes.h"

void
gst_opensora_player_init(GstOpenSoraPlayer *self, GstOpenSoraClips *clips)
{
  *self = (GstOpenSoraPlayer){ .clips = clips };
}

/* Output frames that @clip lasts. One whose frames have no rate of their own is shown one for
 * one. */
static guint
pass_length(GstOpenSoraPlayer *self, GstOpenSoraClip *clip, const GstOpenSoraPlayerParams *params)
{
  const guint frames = gst_opensora_clips_get_length(self->clips, clip);
  guint64 length = frames;

  if (clip->info.fps_n > 0)
    length = gst_util_uint64_scale_round(frames, (guint64) params->fps_n * clip->info.fps_d,
                                         (guint64) params->fps_d * clip->info.fps_n);
  return (guint) CLAMP(length, 1, G_MAXUINT);
}

/* The frame nearest to output frame @k of a pass, from middle to middle; the earlier of two. */
static GstBuffer *
get_frame(GstOpenSoraPlayer *self, GstOpenSoraClip *clip, guint k,
          const GstOpenSoraPlayerParams *params)
{
  guint64 i = k;

  if (clip->info.fps_n > 0)
    i = gst_util_uint64_scale_ceil(2 * (guint64) k + 1, (guint64) clip->info.fps_n * params->fps_d,
                                   2 * (guint64) clip->info.fps_d * params->fps_n) -
        1;
  return gst_opensora_clips_get_frame(self->clips, clip, (guint) MIN(i, G_MAXUINT));
}

/* At the end of a pass this is its last frame, again and again. */
static GstBuffer *
next_frame(GstOpenSoraPlayer *self, GstOpenSoraTrack *track, const GstOpenSoraPlayerParams *params)
{
  const guint length = pass_length(self, track->clip, params);
  const guint pos = MIN(track->pos, length - 1);
  GstBuffer *frame = get_frame(self, track->clip, track->backward ? length - 1 - pos : pos, params);

  if (track->pos < length && ++track->pos == length)
    track->plays++;
  return frame;
}

/* Whether a transition of @fade frames (0: a cut) to @next may begin with the next frame. What
 * continues the clip waits for its end, not for its beginning or for further plays. */
static gboolean
may_leave(GstOpenSoraPlayer *self, GstOpenSoraClip *next, const GstOpenSoraPlayerParams *params,
          guint fade)
{
  const GstOpenSoraTrack *track = &self->track;
  guint length, left;

  if (!track->clip)
    return TRUE;
  length = pass_length(self, track->clip, params);
  left = length - MIN(track->pos, length);
  if (next->continues)
    return left == 0 && !track->backward;
  return left <= fade && track->plays + (left > 0) >= params->min_plays;
}

static guint
fade_length(GstOpenSoraPlayer *self, GstOpenSoraClip *next, const GstOpenSoraPlayerParams *params,
            GstBuffer *slate, const GstVideoInfo *slate_info)
{
  const GstVideoInfo *info = self->track.clip ? &self->track.clip->info : slate_info;

  if (next->continues || next->in_cuda || (self->track.clip ? self->track.clip->in_cuda : !slate) ||
      !gst_opensora_can_mix_frames(info, &next->info))
    return 0;
  return MIN(params->fade_frames, pass_length(self, next, params));
}

/* The next clip goes on air, if there is one and its time has come. */
static void
change_clip(GstOpenSoraPlayer *self, const GstOpenSoraPlayerParams *params, GstBuffer *slate,
            const GstVideoInfo *slate_info, GstOpenSoraPick *pick)
{
  g_autoptr(GstOpenSoraClip) next = gst_opensora_clips_peek(self->clips);
  guint fade;

  if (!next)
    return;
  fade = fade_length(self, next, params, slate, slate_info);
  if (!may_leave(self, next, params, fade) || !gst_opensora_clips_take(self->clips, next))
    return;
  if (fade > 0) {
    self->old = self->track;
    self->fade_pos = 0;
    self->fade_len = fade;
  } else {
    pick->ended = self->track.clip;
    pick->plays = self->track.plays;
  }
  self->track = (GstOpenSoraTrack){ .clip = g_steal_pointer(&next) };
  pick->begins = TRUE;
}

/* At the end of a pass: holds, turns, begins anew, or ends the stream. */
static void
end_pass(GstOpenSoraPlayer *self, const GstOpenSoraPlayerParams *params, GstOpenSoraPick *pick)
{
  GstOpenSoraTrack *track = &self->track;
  const guint length = pass_length(self, track->clip, params);
  const gboolean enough = track->plays >= params->min_plays;

  if (track->pos < length)
    return;
  if (enough && params->drain && gst_opensora_clips_is_drained(self->clips)) {
    pick->eos = TRUE;
    return;
  }
  if (enough && params->repeat == GST_OPENSORA_REPEAT_ONCE)
    return;
  track->backward = params->repeat == GST_OPENSORA_REPEAT_PING_PONG && !track->backward;
  /* The frame at the turn is not shown twice. */
  track->pos = params->repeat == GST_OPENSORA_REPEAT_PING_PONG && length > 1 ? 1 : 0;
}

void
gst_opensora_player_pick(GstOpenSoraPlayer *self, const GstOpenSoraPlayerParams *params,
                         GstBuffer *slate, const GstVideoInfo *slate_info, GstOpenSoraPick *pick)
{
  *pick = (GstOpenSoraPick){ 0 };
  if (self->fade_len == 0)
    change_clip(self, params, slate, slate_info, pick);
  if (!self->track.clip) {
    pick->eos = params->drain && gst_opensora_clips_is_drained(self->clips);
    pick->frame = slate && !pick->eos ? gst_buffer_ref(slate) : NULL;
    return;
  }
  if (self->fade_len == 0)
    end_pass(self, params, pick);
  if (pick->eos)
    return;

  pick->clip = self->track.clip;
  pick->frame = next_frame(self, &self->track, params);
  if (self->fade_len == 0)
    return;
  pick->old_frame = self->old.clip ? next_frame(self, &self->old, params) : gst_buffer_ref(slate);
  pick->weight = (self->fade_pos + 1.0) / (self->fade_len + 1.0);
}

GstOpenSoraClip *
gst_opensora_player_shown(GstOpenSoraPlayer *self, guint *plays)
{
  GstOpenSoraClip *ended;

  if (self->fade_len == 0 || ++self->fade_pos < self->fade_len)
    return NULL;
  self->fade_pos = self->fade_len = 0;
  ended = g_steal_pointer(&self->old.clip);
  *plays = self->old.plays;
  return ended;
}

GstOpenSoraClip *
gst_opensora_player_stop(GstOpenSoraPlayer *self, guint *plays)
{
  GstOpenSoraTrack *track = self->old.clip ? &self->old : &self->track;

  self->fade_pos = self->fade_len = 0;
  *plays = track->plays;
  return g_steal_pointer(&track->clip);
}
