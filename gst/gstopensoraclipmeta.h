/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoraclipmeta.h: what a clip was made from. A GstCustomMeta, so that applications read
 * it with gst_buffer_get_custom_meta() and need nothing of ours. docs/elements.md lists the
 * fields of its structure.
 */
#pragma once

#include "gstopensoraticket.h"

G_BEGIN_DECLS

#define GST_OPENSORA_CLIP_META "GstOpenSoraClipMeta"

/* Has to be called before any of the others, once a process. */
void gst_opensora_clip_meta_register(void);

/* Adds a meta with a copy of @fields (NULL: none) to a writable buffer, which has none yet;
 * its structure takes more fields as long as the buffer stays writable. */
GstStructure *gst_opensora_clip_meta_add(GstBuffer *buffer, const GstStructure *fields);
/* The fields of the clip in @buffer, NULL if it does not have the meta. */
const GstStructure *gst_opensora_clip_meta_get(GstBuffer *buffer);

/* The ticket of the clip's prompt is a field of the meta, too. NULL: it has none. */
void gst_opensora_clip_meta_set_ticket(GstStructure *clip, GstOpenSoraTicket *ticket);
GstOpenSoraTicket *gst_opensora_clip_meta_get_ticket(const GstStructure *clip);
void gst_opensora_clip_meta_forget_ticket(GstStructure *clip);
/* @buffer is not what the ticket is about any more. */
void gst_opensora_clip_meta_remove_ticket(GstBuffer *buffer);

/* Makes the conditioning @buffer one of a picture that the clip begins with: sizes and steps that
 * the prompt asks for are not the picture's, nor is it what the ticket waits for. (takes @buffer)
 */
GstBuffer *gst_opensora_clip_meta_for_picture(GstBuffer *buffer);
gboolean gst_opensora_clip_meta_is_picture(const GstStructure *clip);

/* The clip's tags: title and description hold the prompt, comment all parameters that make
 * the clip again, as properties of opensorasrc (and the model's name), application-name ours.
 * Size, rate and number of frames are the video's own. (transfer full) */
GstTagList *gst_opensora_clip_meta_to_tags(const GstStructure *clip);

G_END_DECLS
