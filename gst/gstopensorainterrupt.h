/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/**
 * GstOpenSoraReason:
 * @GST_OPENSORA_FLUSHING: from FLUSH_START to FLUSH_STOP (unlock() to unlock_stop())
 * @GST_OPENSORA_STOPPING: from PAUSED -> READY to the next start
 * @GST_OPENSORA_ENDED: the application has ended the stream
 *
 * Why nothing shall be worked on; several may hold at once.
 */
typedef enum {
  GST_OPENSORA_FLUSHING = 1 << 0,
  GST_OPENSORA_STOPPING = 1 << 1,
  GST_OPENSORA_ENDED = 1 << 2,
} GstOpenSoraReason;

#define GST_OPENSORA_ANY_REASON (GST_OPENSORA_FLUSHING | GST_OPENSORA_STOPPING | GST_OPENSORA_ENDED)

/**
 * GstOpenSoraInterrupt:
 *
 * Stops the streaming thread's work from other threads. Every piece of work has a GCancellable
 * of its own, which is cancelled once and never reset: work that was interrupted stays so,
 * however soon the reason has gone. Work that begins while there is a reason is cancelled
 * from its start.
 */
typedef struct {
  GMutex lock;
  guint reasons;
  GCancellable *work; /* of the last piece that began; NULL: none did */
} GstOpenSoraInterrupt;

void gst_opensora_interrupt_init(GstOpenSoraInterrupt *self);
void gst_opensora_interrupt_clear(GstOpenSoraInterrupt *self);

/* For the streaming thread: the next piece of work begins. (transfer full) */
GCancellable *gst_opensora_interrupt_begin(GstOpenSoraInterrupt *self);
/* The same where the caller holds @lock, which keeps reasons from coming and going while it
 * takes the piece out of a queue. (transfer full) */
GCancellable *gst_opensora_interrupt_begin_locked(GstOpenSoraInterrupt *self);

/* There is a reason from now on; what is under way is cancelled. */
void gst_opensora_interrupt_raise(GstOpenSoraInterrupt *self, GstOpenSoraReason reason);
/* These reasons are gone, for what begins from now on. */
void gst_opensora_interrupt_lower(GstOpenSoraInterrupt *self, guint reasons);
gboolean gst_opensora_interrupt_has(GstOpenSoraInterrupt *self, GstOpenSoraReason reason);

G_END_DECLS
