/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoraclips.h: the clips that an element holds until they are played: taken apart from a
 * stream of frames on one side, given out whole on the other.
 */
#pragma once

#include <gst/video/video.h>

G_BEGIN_DECLS

/**
 * GstOpenSoraClip:
 *
 * A clip, reference counted. What is in @frames belongs to the store's lock, as frames may still
 * come; all else does not change from the moment the clip can be played.
 */
typedef struct {
  GPtrArray *frames; /* GstBuffer; at least one if it is complete */
  GstCaps *caps;     /* as they came */
  GstVideoInfo info;
  gboolean in_cuda;   /* CUDA memory */
  GstStructure *meta; /* of the frames' clip meta, NULL: they have none */
  GstTagList *tags;   /* that came before the first frame, or NULL */
  guint expected;     /* frames that it has when it is complete; 0: not known */
  gboolean complete;
  gboolean continues; /* where the clip before it ends: its extension, or cut off for its length */
} GstOpenSoraClip;

/**
 * GstOpenSoraClips:
 *
 * Clips in the order in which they came. Two threads use it: one receives frames and waits where
 * there are too many clips, one plays and never waits. A clip is held from its first frame until
 * gst_opensora_clips_release().
 *
 * A clip ends with its last frame, where its meta tells how many there are; before a frame with
 * another meta, or other caps; with the stream; and after @max_frames frames.
 */
typedef struct {
  GMutex lock;
  GCond cond;

  guint max_clips, max_frames;

  GQueue waiting;            /* GstOpenSoraClip, not played yet; only the last may be incomplete */
  GstOpenSoraClip *incoming; /* that further frames belong to, waiting or played; or NULL */
  GstStructure *over;        /* frames with this meta come too late for their clip; or NULL */
  gboolean cut;              /* the last clip ended for its length, ... */
  GstStructure *cut_meta;    /* ... with this meta or none, ... */
  guint cut_left;            /* ... and that many frames of it are still to come, if not 0 */
  guint n_clips;             /* that are held */
  guint64 n_frames, n_bytes; /* of these */
  gboolean flushing;
  gboolean eos;      /* nothing else comes */
  GstFlowReturn ret; /* why nothing is played any more, else GST_FLOW_OK */

  /* Of what comes next */
  GstCaps *caps;
  GstVideoInfo info;
  GstTagList *tags;
} GstOpenSoraClips;

void gst_opensora_clip_unref(GstOpenSoraClip *clip);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GstOpenSoraClip, gst_opensora_clip_unref)

void gst_opensora_clips_init(GstOpenSoraClips *self);
void gst_opensora_clips_clear(GstOpenSoraClips *self);
/* Drops all that waits and what is known of the stream; clips that are played have been released.
 */
void gst_opensora_clips_reset(GstOpenSoraClips *self);
void gst_opensora_clips_set_limits(GstOpenSoraClips *self, guint max_clips, guint max_frames);

/* For the thread that receives */

/* Whether gst_opensora_clips_receive() returns at once with GST_FLOW_FLUSHING; from any thread. */
void gst_opensora_clips_set_flushing(GstOpenSoraClips *self, gboolean flushing);
/* FALSE if @caps are no raw video. */
gboolean gst_opensora_clips_set_caps(GstOpenSoraClips *self, GstCaps *caps);
/* (takes @tags) */
void gst_opensora_clips_set_tags(GstOpenSoraClips *self, GstTagList *tags);
/* What comes next belongs to another clip; there is more to come. */
void gst_opensora_clips_begin_stream(GstOpenSoraClips *self);
/* Nothing comes next. */
void gst_opensora_clips_end_stream(GstOpenSoraClips *self);
/* Drops what waits. */
void gst_opensora_clips_flush(GstOpenSoraClips *self);
/* Adds a frame (taken) and waits for room where it begins a clip. */
GstFlowReturn gst_opensora_clips_receive(GstOpenSoraClips *self, GstBuffer *buffer);

/* For the thread that plays */

/* The clip that is next, if it is complete. It stays where it is. (transfer full) */
GstOpenSoraClip *gst_opensora_clips_peek(GstOpenSoraClips *self);
/* The clip that gst_opensora_clips_peek() gave is the caller's to play, until it is released; FALSE
 * if it is no longer there: the stream was flushed. */
gboolean gst_opensora_clips_take(GstOpenSoraClips *self, GstOpenSoraClip *clip);
/* @clip has been played. (takes @clip) */
void gst_opensora_clips_release(GstOpenSoraClips *self, GstOpenSoraClip *clip);
guint gst_opensora_clips_get_length(GstOpenSoraClips *self, GstOpenSoraClip *clip);
/* (transfer full) */
GstBuffer *gst_opensora_clips_get_frame(GstOpenSoraClips *self, GstOpenSoraClip *clip, guint i);
/* Whether all has been taken and nothing else comes. */
gboolean gst_opensora_clips_is_drained(GstOpenSoraClips *self);
/* Nothing is played any more: who receives gets @ret. */
void gst_opensora_clips_finish(GstOpenSoraClips *self, GstFlowReturn ret);

/* Sets the fields clips, clips-waiting (complete ones), frames and bytes. */
void gst_opensora_clips_get_stats(GstOpenSoraClips *self, GstStructure *stats);

G_END_DECLS
