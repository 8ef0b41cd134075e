/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoraplayer.h: which frame of which clip is shown next. Knows no clock: it is asked
 * once for every frame of the output.
 */
#pragma once

#include "gstopensoraclips.h"

G_BEGIN_DECLS

typedef enum {
  GST_OPENSORA_REPEAT_ONCE,
  GST_OPENSORA_REPEAT_LOOP,
  GST_OPENSORA_REPEAT_PING_PONG,
} GstOpenSoraRepeat;

/**
 * GstOpenSoraPlayerParams:
 *
 * What may change from frame to frame.
 */
typedef struct {
  GstOpenSoraRepeat repeat;
  guint min_plays;   /* passes that every clip gets */
  guint fade_frames; /* of a cross-fade; 0: clips are cut */
  gboolean drain;    /* end with the stream's last clip */
  gint fps_n, fps_d; /* of the output */
} GstOpenSoraPlayerParams;

/**
 * GstOpenSoraTrack:
 *
 * A clip while it is played. A pass has as many output frames as the clip lasts, forwards or
 * backwards.
 */
typedef struct {
  GstOpenSoraClip *clip; /* NULL: the slate */
  guint pos;             /* output frames of this pass that have been shown */
  guint plays;           /* passes that have ended */
  gboolean backward;
} GstOpenSoraTrack;

typedef struct {
  GstOpenSoraClips *clips; /* not owned */
  GstOpenSoraTrack track;  /* what is on air */
  GstOpenSoraTrack old;    /* what fades out meanwhile */
  guint fade_pos, fade_len;
} GstOpenSoraPlayer;

/**
 * GstOpenSoraPick:
 *
 * What happens with the next frame of the output.
 */
typedef struct {
  GstBuffer *frame;      /* owned; NULL: there is none to show */
  GstOpenSoraClip *clip; /* that it is of, the player's; NULL: the slate */
  gboolean begins;       /* with this frame */

  GstBuffer *old_frame; /* owned; that @frame is mixed with, or NULL */
  double weight;        /* of @frame then, between 0 and 1 */

  GstOpenSoraClip *ended; /* before this frame, or NULL; the caller releases it */
  guint plays;            /* passes of @ended */
  gboolean eos;           /* the stream ends, with what is on air */
} GstOpenSoraPick;

void gst_opensora_player_init(GstOpenSoraPlayer *self, GstOpenSoraClips *clips);
/* Decides on the next frame, which is then taken for shown. @slate: what to show before the first
 * clip, of the kind @slate_info, or NULL. */
void gst_opensora_player_pick(GstOpenSoraPlayer *self, const GstOpenSoraPlayerParams *params,
                              GstBuffer *slate, const GstVideoInfo *slate_info,
                              GstOpenSoraPick *pick);
/* After a frame was shown: the clip that has faded out with it, which the caller releases, and its
 * passes; or NULL. */
GstOpenSoraClip *gst_opensora_player_shown(GstOpenSoraPlayer *self, guint *plays);
/* Takes a clip off the air, which the caller releases; NULL if there is none (any more). */
GstOpenSoraClip *gst_opensora_player_stop(GstOpenSoraPlayer *self, guint *plays);

G_END_DECLS
