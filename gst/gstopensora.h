/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensora.h: what the elements share: caps, errors and messages.
 */
#pragma once

#include <gst/gst.h>

#include "gstopensoramodel.h"
#include "gstopensoraticket.h"
#include "opensora.h"

G_BEGIN_DECLS

#define GST_OPENSORA_MEMORY_FEATURE "memory:OpenSora"

/* One buffer is what the prompt of one clip became: four tensors (one GstMemory each, in
 * this order): T5 states and CLIP vector of the prompt, then of the negative prompt; with
 * plain-prompt, also of the prompt as it was written, without what completes it.
 * Fields: family (string), framerate (fraction; the rate that the prompt names), plain-prompt
 * (boolean, absent: false). All families read text alike. */
#define GST_OPENSORA_CONDITIONING "application/x-opensora-conditioning"
#define GST_OPENSORA_CONDITIONING_CAPS GST_OPENSORA_CONDITIONING "(" GST_OPENSORA_MEMORY_FEATURE ")"
#define GST_OPENSORA_FAMILIES_FIELD "family = (string) { open-sora-v2, flux }"
#define GST_OPENSORA_PLAIN_PROMPT "plain-prompt"
/* Where the plain prompt's two memories are. */
#define GST_OPENSORA_PLAIN_PROMPT_MEMORY 4

/* One buffer is one clip: a latent [t, h, w, channels] in one GstMemory. Fields: family,
 * channels (int), width and height (int, pixels of the decoded video), frames (int, of the
 * decoded video), framerate. */
#define GST_OPENSORA_LATENT "application/x-opensora-latent"
#define GST_OPENSORA_LATENT_CAPS GST_OPENSORA_LATENT "(" GST_OPENSORA_MEMORY_FEATURE ")"

/* Out-of-band event of the prompt source, whose stream the application ends, or sent to the
 * denoiser by the application itself: what has not become a latent yet need not become one. */
#define GST_OPENSORA_END_EVENT "opensora-end"

/* Query of the denoiser to the decoder, before it makes a clip of a size that the prompt has asked
 * for: can latents of the field "caps" be decoded? The answer is "reason" (string), why not. */
#define GST_OPENSORA_DECODE_QUERY "opensora-decode"

GST_DEBUG_CATEGORY_EXTERN(gst_opensora_debug);

GST_ELEMENT_REGISTER_DECLARE(opensoratextsrc);
GST_ELEMENT_REGISTER_DECLARE(opensoratextenc);
GST_ELEMENT_REGISTER_DECLARE(opensoradenoise);
GST_ELEMENT_REGISTER_DECLARE(opensoravaedec);
GST_ELEMENT_REGISTER_DECLARE(opensoravaeenc);
GST_ELEMENT_REGISTER_DECLARE(opensorasrc);
GST_ELEMENT_REGISTER_DECLARE(opensoraplayout);

/* Takes the engine's lines into GST_DEBUG, as of the category "opensora"; once a process. */
void gst_opensora_log_init(void);

/* Frame sizes and rates: what can be generated, and what a decoder may be asked for (so that
 * what cannot be is an error with a reason, not a failure to link). */
#define GST_OPENSORA_SIZE_UNIT 16
#define GST_OPENSORA_MAX_SIZE 8192
#define GST_OPENSORA_SIZE_FIELDS "width = (int) [ 16, 8192, 16 ], height = (int) [ 16, 8192, 16 ]"
#define GST_OPENSORA_RATE_FIELD "framerate = (fraction) [ 1/1, 240/1 ]"
#define GST_OPENSORA_ANY_VIDEO_FIELDS                                                              \
  "width = (int) [ 1, MAX ], height = (int) [ 1, MAX ], "                                          \
  "framerate = (fraction) [ 1/2147483647, 2147483647/1 ]"

/* What of @caps @filter lets through, in the filter's order; all of it without a filter.
 * (takes @caps) */
GstCaps *gst_opensora_filter_caps(GstCaps *caps, GstCaps *filter);

/* Posts @error (consumed) as an element error in the domain and code that fit it, and says
 * which flow return goes with it: FLUSHING without a message for a cancellation. */
GstFlowReturn gst_opensora_post_error(GstElement *element, GError *error);

/* What the pool of @device does, as the fields device, allocated, reserved, peak-allocated,
 * peak-reserved, limit (0: none) and allocations with @prefix before their names. */
void gst_opensora_set_memory_fields(GstStructure *s, const char *prefix, OsrDevice *device);

/* Bytes that can be allocated yet: what the device has free, what the pool keeps, and no more than
 * its limit. FALSE if the device does not tell. */
gboolean gst_opensora_get_available_memory(OsrDevice *device, guint64 *bytes);

/**
 * GstOpenSoraProgress:
 *
 * One long piece of work on a clip, told to the bus as GST_MESSAGE_PROGRESS (whose structure has
 * the fields clip and id, too) and as element messages "opensora-progress"; docs/elements.md
 * lists their fields. COMPLETE has to be posted before the clip's first buffer leaves, or
 * gst-launch-1.0 never leaves PAUSED.
 */
typedef struct {
  GstElement *element;
  OsrDevice *device; /* borrowed */
  const char *stage;
  const char *text; /* for people: "Denoising" */
  char *prompt;
  guint clip;
  guint extension;           /* of the clip; 0: the clip itself */
  GstOpenSoraTicket *ticket; /* owned, NULL: none */
  gulong binding;
  gboolean fatal; /* what goes wrong now does so with every clip */
  gint64 start;
} GstOpenSoraProgress;

/* @self->extension has been set. @stage: "text", "denoise", "decode" or "encode". Until the work
 * completes or fails, the end of
 * @ticket (NULL: the clip has none) cancels @work. */
void gst_opensora_progress_start(GstOpenSoraProgress *self, GstElement *element, OsrDevice *device,
                                 const char *stage, const char *text, const char *prompt,
                                 guint clip, GstOpenSoraTicket *ticket, GCancellable *work);
/* @remaining < 0: estimated from the fraction of steps done. */
void gst_opensora_progress_step(GstOpenSoraProgress *self, guint step, guint steps,
                                double remaining);
/* All went well. */
void gst_opensora_progress_complete(GstOpenSoraProgress *self);
/* Posts @error (consumed) as gst_opensora_post_error() does, then ends the progress: nobody
 * takes its end for all there is to know. Where it is the clip's own and the ticket says that such
 * clips are skipped, it is a warning and the end of the ticket instead. Returns what to pass on;
 * FLUSHING for a clip that was cancelled or is skipped: its ticket is over. */
GstFlowReturn gst_opensora_progress_fail(GstOpenSoraProgress *self, GError *error);

/* Puts @tensors (not NULL, references taken) into a new buffer, one memory each. */
GstBuffer *gst_opensora_buffer_new(OsrTensor *const *tensors, guint n);
/* The tensor of memory @i of @buffer, on @device as @dtype; NULL with @error if there is
 * none. (transfer full) */
OsrTensor *gst_opensora_buffer_get_tensor(GstBuffer *buffer, guint i, OsrDevice *device,
                                          OsrDType dtype, GError **error);

G_END_DECLS
