/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensorapreviewpad.h: the pad on which opensoradenoise shows what a clip looks like so far.
 */
#pragma once

#include <gst/video/video.h>

#include "gstopensora.h"

G_BEGIN_DECLS

#define GST_OPENSORA_PREVIEW_CAPS                                                                  \
  "video/x-raw, format = RGB, width = (int) [ 1, 8192 ], height = (int) [ 1, 8192 ], "             \
  "framerate = (fraction) [ 1/2147483647, 2147483647/1 ]"

/**
 * GstOpenSoraPreview:
 * @latent: [@t, @h, @w, map.channels], owned
 * @skip: latent frames at the beginning that the stream has shown; fewer than @t
 * @map: of its colours
 * @clip: the fields of the buffers' meta, owned
 * @start, @end: times of the clip in the stream
 * @fps_n, @fps_d, @n_frames: of the clip; it takes that many frames at that rate
 *
 * What a clip looks like after a step.
 */
typedef struct {
  float *latent;
  guint t, h, w, skip;
  OsrPreviewMap map;
  GstStructure *clip;
  GstClockTime start, end;
  gint fps_n, fps_d;
  guint n_frames;
} GstOpenSoraPreview;

void gst_opensora_preview_free(GstOpenSoraPreview *preview);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GstOpenSoraPreview, gst_opensora_preview_free)

/**
 * GstOpenSoraPreviewPad:
 *
 * A source pad with a task of its own, which sends previews. Whoever makes them never waits for
 * it: a preview that has not begun to be sent gives way to a newer one. What goes wrong after the
 * pad is the preview's loss alone.
 *
 * A preview is a sequence of frames, one a latent frame, over the time of its clip in the stream.
 * Each has a segment of its own, which begins when it is sent or when the one before ends,
 * whatever is later, so that running times never go back.
 */
#define GST_TYPE_OPENSORA_PREVIEW_PAD (gst_opensora_preview_pad_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraPreviewPad, gst_opensora_preview_pad, GST, OPENSORA_PREVIEW_PAD,
                     GstPad)

GstPad *gst_opensora_preview_pad_new(GstPadTemplate *templ);
/* That of @element, NULL if it has none. (transfer full) */
GstOpenSoraPreviewPad *gst_opensora_preview_pad_get(GstElement *element);

/* Whether a preview would go anywhere. */
gboolean gst_opensora_preview_pad_is_wanted(GstOpenSoraPreviewPad *self);
/* @preview is the newest. (takes @preview) */
void gst_opensora_preview_pad_offer(GstOpenSoraPreviewPad *self, GstOpenSoraPreview *preview);
/* What waits is not shown: its clip is no longer made. */
void gst_opensora_preview_pad_drop(GstOpenSoraPreviewPad *self);
/* There are no more: EOS follows what waits. */
void gst_opensora_preview_pad_end(GstOpenSoraPreviewPad *self);
/* FLUSH_START and FLUSH_STOP of the stream. (take @event) */
void gst_opensora_preview_pad_flush_start(GstOpenSoraPreviewPad *self, GstEvent *event);
void gst_opensora_preview_pad_flush_stop(GstOpenSoraPreviewPad *self, GstEvent *event);
/* Before the pad is deactivated for good: who is after it lets go of the task. */
void gst_opensora_preview_pad_release(GstOpenSoraPreviewPad *self);

G_END_DECLS
