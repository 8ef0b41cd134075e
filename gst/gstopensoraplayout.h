/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoraplayout.h: the two sides of opensoraplayout: the element, which receives clips and
 * is asked about things (gstopensoraplayout.c), and the task of its source pad, which plays
 * (gstopensoraplayouttask.c).
 */
#pragma once

#include "gstopensorainterrupt.h"
#include "gstopensoraplayer.h"

G_BEGIN_DECLS

GST_DEBUG_CATEGORY_EXTERN(gst_opensora_playout_debug);

typedef enum {
  GST_OPENSORA_TRANSITION_CUT,
  GST_OPENSORA_TRANSITION_CROSS_FADE,
} GstOpenSoraTransition;

typedef enum {
  GST_OPENSORA_SLATE_COLOR,
  GST_OPENSORA_SLATE_PICTURE,
  GST_OPENSORA_SLATE_NONE,
} GstOpenSoraSlate;

typedef enum {
  GST_OPENSORA_AT_EOS_DRAIN,
  GST_OPENSORA_AT_EOS_CONTINUE,
} GstOpenSoraAtEos;

enum { GST_OPENSORA_CLIP_STARTED, GST_OPENSORA_CLIP_ENDED, GST_OPENSORA_PLAYOUT_N_SIGNALS };

extern guint gst_opensora_playout_signals[GST_OPENSORA_PLAYOUT_N_SIGNALS];

/* Frames a second before a clip or somebody downstream has decided on it. */
#define GST_OPENSORA_PLAYOUT_RATE 24

#define GST_TYPE_OPENSORA_PLAYOUT (gst_opensora_playout_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraPlayout, gst_opensora_playout, GST, OPENSORA_PLAYOUT, GstElement)

struct _GstOpenSoraPlayout {
  GstElement parent;
  GstPad *sinkpad, *srcpad;

  /* Properties, under the object lock */
  GstOpenSoraRepeat repeat;
  guint min_plays;
  GstOpenSoraTransition transition;
  guint transition_frames;
  GstOpenSoraSlate slate_kind;
  char *slate_location;
  guint slate_color;
  guint max_clips, max_frames;
  GstClockTime max_lateness;
  GstOpenSoraAtEos at_eos;

  GstOpenSoraClips clips;
  GstOpenSoraInterrupt interrupt; /* of loading the slate */

  /* What the task waits for and what others ask about, under the lock */
  GMutex lock;
  GCond cond;
  gboolean playing, flushing;
  gboolean ending; /* the application has ended the stream */
  GstClockID clock_id;
  GstClockTime position;
  gint fps_n, fps_d; /* of the output */
  guint64 rendered, dropped;
  GList *events; /* GstEvent, latest first: for the next frame */

  /* The task's own */
  GstOpenSoraPlayer player;
  gboolean begun;       /* stream-start and segment are sent */
  gboolean placed;      /* @frame is known */
  gboolean rate_agreed; /* a clip or downstream has decided on the rate */
  gboolean discont;
  GstClockTime origin; /* running time of the frame 0 at this rate */
  guint64 frame;       /* that is next */
  GstBuffer *slate;
  GstVideoInfo slate_info;
  GstCaps *slate_caps;
  GstCaps *caps;     /* sent last */
  GstVideoInfo info; /* of these */
  gboolean asked;    /* who is downstream, for: */
  gboolean takes_video_meta;
};

/* The task: plays one frame. */
void gst_opensora_playout_loop(gpointer srcpad);
/* Before the first frame, and after the last, when the task has stopped. */
void gst_opensora_playout_reset(GstOpenSoraPlayout *self);

/* @caps with any rate. (takes @caps) */
GstCaps *gst_opensora_playout_drop_rate(GstCaps *caps);

G_END_DECLS
