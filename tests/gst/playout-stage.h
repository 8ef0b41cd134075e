/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * playout-stage.h: opensoraplayout on a clock that the test turns by hand. The first two bytes of
 * a frame are the number of its clip and of the frame in it, so that every frame of the output
 * tells where it came from.
 */
#pragma once

#include <gst/app/gstappsink.h>
#include <gst/app/gstappsrc.h>
#include <gst/check/gsttestclock.h>
#include <gst/video/video.h>

#include "common.h"

#define WIDTH 16
#define HEIGHT 16
#define SLATE 0 /* the number of no clip: the slate's frames are black RGB */

/**
 * Stage:
 *
 * appsrc ! opensoraplayout ! caps ! appsink
 */
typedef struct {
  GstElement *pipeline, *playout, *in, *out;
  GstTestClock *clock;
  GstBus *bus;
  gint fps_n, fps_d;        /* of clips that are fed: 24 a second */
  const char *format;       /* of these: RGB */
  guint extension, lead_in; /* that they say of themselves; 0: they do not */
} Stage;

Stage *stage_new(const char *properties, const char *out_caps);
void stage_play(Stage *self);
/* One that plays 24 frames a second, 16 x 16 RGB. */
Stage *stage_started(const char *properties);
void stage_free(Stage *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Stage, stage_free)

/* Of the property stats. */
guint64 stat_of(Stage *self, const char *name);
void wait_stat(Stage *self, const char *name, guint64 wanted);

/* Caps of frames that are fed. */
GstCaps *clip_caps(Stage *self, gint width);
void add_meta(Stage *self, GstBuffer *buffer, guint clip, guint frames);
/* @n frames; @frames: as many are said to come, 0: the frames have no meta. */
void feed_frames(Stage *self, guint clip, guint first, guint n, guint frames, gint width);
/* A clip of @n frames. */
void feed(Stage *self, guint clip, guint n);
/* Frames that have been fed and whose memory has not been freed. */
guint frames_alive(void);
/* As feed(), and the clip is there when this returns. */
void feed_now(Stage *self, guint clip, guint n);
/* Straight to the element, as if appsrc had sent it. */
void send_event(Stage *self, GstEvent *event);
GstEvent *new_segment(void);

typedef struct {
  guint clip, i; /* first two bytes */
  GstClockTime pts, duration;
  guint64 offset;
  gboolean discont;
} Frame;

/* Each of these turns the clock to the next frame's time. */
GstSample *next_sample(Stage *self);
Frame next_frame(Stage *self);
/* The next frames have to be those, as "CLIP.FRAME CLIP.FRAME ...", "-" for the slate. */
void expect(Stage *self, const char *wanted);
void expect_eos(Stage *self);
/* The next message of an element has to be @name of the clip of @prompt. */
void check_clip_message(Stage *stage, const char *name, const char *prompt, GstClockTime time);
