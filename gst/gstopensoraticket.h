/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoraticket.h: what becomes of a prompt, across elements and threads.
 */
#pragma once

#include <gio/gio.h>
#include <gst/gst.h>

G_BEGIN_DECLS

/* Element message that tells it; docs/elements.md lists its fields. */
#define GST_OPENSORA_CLIP_MESSAGE "opensora-clip"

/**
 * GstOpenSoraTicket:
 *
 * Goes with a prompt from the element that took it to the last frame of its last clip: in the
 * queue, then in the clip meta of conditioning and latents (not of frames, which applications
 * keep). It says to everybody on the way whether the prompt was cancelled, and to the bus of
 * the element that took it, in its name, what becomes of it: queued, started, and exactly one of
 * done, cancelled and failed, however it ends. That nobody holds it any more is an end, too: a
 * buffer may be dropped by a flush, or by an element that is none of ours.
 *
 * All functions can be called from any thread, with no lock held that a handler of messages
 * might want. Only g_object_unref() can be called anywhere. Those that take NULL do nothing
 * then, and say that nothing was cancelled: conditioning may come without a ticket.
 */
#define GST_TYPE_OPENSORA_TICKET (gst_opensora_ticket_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraTicket, gst_opensora_ticket, GST, OPENSORA_TICKET, GObject)

/* @prompt need not be UTF-8, @tag may be NULL. @element is not kept alive. */
GstOpenSoraTicket *gst_opensora_ticket_new(GstElement *element, guint64 id, const char *prompt,
                                           const char *tag);
guint64 gst_opensora_ticket_get_id(const GstOpenSoraTicket *self);
/* As it is told in messages: valid UTF-8. */
const char *gst_opensora_ticket_get_prompt(const GstOpenSoraTicket *self);

/* It waits for its turn. */
void gst_opensora_ticket_queue(GstOpenSoraTicket *self);
/* Its turn has come: @n_clips will be made of it, the first of which has the number @clip in the
 * stream. With @skip what goes wrong with it is no end of the stream. */
void gst_opensora_ticket_start(GstOpenSoraTicket *self, guint clip, guint n_clips, gboolean skip);
/* Each of its clips will go on @n times; without end if negative. (NULL: nothing) */
void gst_opensora_ticket_extend(GstOpenSoraTicket *self, gint n);
/* Whether another prompt waits for this one to end. (NULL: FALSE) */
gboolean gst_opensora_ticket_is_awaited(GstOpenSoraTicket *self);
/* A latent was made of it; where nobody decodes latents, that was all. */
void gst_opensora_ticket_make(GstOpenSoraTicket *self);
/* The frames of one of its clips are about to leave. FALSE: they shall not. */
gboolean gst_opensora_ticket_deliver(GstOpenSoraTicket *self);
/* For who holds no lock: drops a reference, and if it was the last tells now and not from another
 * thread that the prompt is done. (takes @self, may be NULL) */
void gst_opensora_ticket_settle(GstOpenSoraTicket *self);

/* Nobody wants it any more. What of it is under way is broken off; frames of clips that have
 * begun to leave still come. FALSE: too late, nothing of it is left to be made. */
gboolean gst_opensora_ticket_cancel(GstOpenSoraTicket *self);
/* Likewise, because the stream is broken off; for whoever holds it. (NULL: nothing) */
void gst_opensora_ticket_drop(GstOpenSoraTicket *self);
/* It cannot be made, for @reason. */
void gst_opensora_ticket_fail(GstOpenSoraTicket *self, const char *reason);
/* Cancelled, dropped or failed: nothing shall be done for it. (NULL: FALSE) */
gboolean gst_opensora_ticket_is_over(GstOpenSoraTicket *self);
/* Whether the stream goes on when it fails. (NULL: FALSE) */
gboolean gst_opensora_ticket_is_skipped(GstOpenSoraTicket *self);

/* Cancels @work when the ticket is over, until it is unbound; now, if it is already. */
gulong gst_opensora_ticket_bind(GstOpenSoraTicket *self, GCancellable *work);
void gst_opensora_ticket_unbind(GstOpenSoraTicket *self, gulong binding);

/**
 * GstOpenSoraTickets:
 *
 * The tickets of an element: their numbers, and which of them are under way.
 */
typedef struct {
  GMutex lock;
  guint64 last_id;
  GPtrArray *under_way; /* GWeakRef of GstOpenSoraTicket, in the order of their starts */
} GstOpenSoraTickets;

void gst_opensora_tickets_init(GstOpenSoraTickets *self);
void gst_opensora_tickets_clear(GstOpenSoraTickets *self);
/* From 1, none twice in the element's life. */
guint64 gst_opensora_tickets_next_id(GstOpenSoraTickets *self);
/* @ticket is under way from now on. */
void gst_opensora_tickets_add(GstOpenSoraTickets *self, GstOpenSoraTicket *ticket);
/* NULL: none of that number is under way. (transfer full) */
GstOpenSoraTicket *gst_opensora_tickets_find(GstOpenSoraTickets *self, guint64 id);
/* Another prompt waits for those that are under way. */
void gst_opensora_tickets_await(GstOpenSoraTickets *self);
/* The number of that which started first; 0: none is under way. */
guint64 gst_opensora_tickets_current(GstOpenSoraTickets *self);

G_END_DECLS
