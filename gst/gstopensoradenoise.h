/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoradenoise.h: the two sides of opensoradenoise: the element, which negotiates and is
 * asked about things (gstopensoradenoise.c), and the making of a clip (gstopensoradenoiseclip.c).
 */
#pragma once

#include <gst/base/gstaggregator.h>

#include "gstopensorainterrupt.h"
#include "gstopensorasampling.h"

G_BEGIN_DECLS

GST_DEBUG_CATEGORY_EXTERN(gst_opensora_denoise_debug);

#define GST_TYPE_OPENSORA_DENOISE (gst_opensora_denoise_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraDenoise, gst_opensora_denoise, GST, OPENSORA_DENOISE, GstAggregator)

struct _GstOpenSoraDenoise {
  GstAggregator parent;

  GstOpenSoraModel model;
  GstOpenSoraSampling sampling;

  GstOpenSoraInterrupt interrupt;
  guint next_reference;
  guint preview_interval; /* object lock */
  gboolean told_no_previews;

  /* Written by the streaming thread, with the object lock. */
  gint width, height, fps_n, fps_d; /* negotiated; fps_n 0: not yet */
  guint frames;                     /* likewise, of a clip */
  guint lead_in;                    /* of these an extension shares with what is before it */
  guint64 frames_out;
};

/* FLUX: it takes no references, and the prompt as the user wrote it. */
gboolean gst_opensora_denoise_makes_pictures(OsrModel *model);
/* What the source pad can do: of a model, sizes and rates that it was made for, its family and
 * channels. Without one, while stopped, that is not known. */
GstCaps *gst_opensora_denoise_get_possible_caps(OsrModel *model);
/* What the properties and the negotiated caps ask for. Returns the property "condition". */
gint gst_opensora_denoise_get_params(GstOpenSoraDenoise *self, guint width, guint height,
                                     guint frames, OsrSamplingParams *params);
/* When @frame of the stream begins. */
GstClockTime gst_opensora_denoise_frame_time(GstOpenSoraDenoise *self, guint64 frame);

/* Makes and sends the clip of @input, which came from @pad, and its extensions, until @cancellable
 * ends it all. (takes @input) */
GstFlowReturn gst_opensora_denoise_make_clips(GstOpenSoraDenoise *self, GstAggregatorPad *pad,
                                              GstBuffer *input, GCancellable *cancellable);

G_END_DECLS
