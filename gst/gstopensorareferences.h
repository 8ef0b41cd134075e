/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensorareferences.h: the pictures and videos that a clip begins with, ends with or goes
 * on from: latents on request pads of opensoradenoise, or files that the prompt names.
 */
#pragma once

#include <gst/base/gstaggregator.h>

#include "gstopensora.h"

G_BEGIN_DECLS

/* No condition takes more. */
#define GST_OPENSORA_MAX_REFERENCES 2

/**
 * GstOpenSoraReferencePad:
 *
 * A request pad that takes one latent for each clip. The last one stays for later clips until
 * the pad is flushed or stopped.
 */
#define GST_TYPE_OPENSORA_REFERENCE_PAD (gst_opensora_reference_pad_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraReferencePad, gst_opensora_reference_pad, GST,
                     OPENSORA_REFERENCE_PAD, GstAggregatorPad)

void gst_opensora_reference_pad_forget(GstOpenSoraReferencePad *self);

typedef struct {
  OsrTensor *latent[GST_OPENSORA_MAX_REFERENCES];
  guint n;
  gboolean from_pads;
  OsrCondition condition; /* what they are for: never "auto" */
} GstOpenSoraReferences;

void gst_opensora_references_clear(GstOpenSoraReferences *self);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(GstOpenSoraReferences, gst_opensora_references_clear)

/* Collects what there is for the next clip: from the request pads of @element, in the order of
 * their numbers, or where none gives anything from the files at @locations (separated by ';';
 * NULL: none). @condition is that of the property. Posts a warning when a video is used for
 * its first frame only; it is an error when the condition needs a reference and there is
 * none. */
gboolean gst_opensora_references_collect(GstOpenSoraReferences *self, GstElement *element,
                                         OsrModel *model, gint condition, const char *locations,
                                         const OsrSamplingParams *params, GCancellable *cancellable,
                                         GError **error);

/* Of a clip that goes on after one of @num_frames frames and is as long: how many of its frames
 * are the end of the one before, as many as there is a condition for that leaves something to
 * make. @ratio: frames of a latent frame. */
guint gst_opensora_references_lead_in(guint num_frames, guint ratio, OsrCondition *condition);
/* Whether a clip of @num_frames can go on at all. */
gboolean gst_opensora_references_check_extend(const OsrModelDir *dir, guint num_frames,
                                              GError **error);
/* Makes the end of what @latent decodes to the reference. It is decoded and encoded anew, since
 * the first latent frame of a clip stands for one frame and those after it for more: taken out
 * of the middle of a clip they would not be what the model was trained to go on from. */
gboolean gst_opensora_references_continue(GstOpenSoraReferences *self, GstElement *element,
                                          OsrModel *model, OsrTensor *latent,
                                          GCancellable *cancellable, GError **error);

G_END_DECLS
