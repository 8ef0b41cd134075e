/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensorainterrupt.h"

void
gst_opensora_interrupt_init(GstOpenSoraInterrupt *self)
{
  g_mutex_init(&self->lock);
  self->reasons = 0;
  self->work = NULL;
}

void
gst_opensora_interrupt_clear(GstOpenSoraInterrupt *self)
{
  g_clear_object(&self->work);
  g_mutex_clear(&self->lock);
}

GCancellable *
gst_opensora_interrupt_begin_locked(GstOpenSoraInterrupt *self)
{
  g_clear_object(&self->work);
  self->work = g_cancellable_new();
  if (self->reasons)
    g_cancellable_cancel(self->work);
  return g_object_ref(self->work);
}

GCancellable *
gst_opensora_interrupt_begin(GstOpenSoraInterrupt *self)
{
  GCancellable *work;

  g_mutex_lock(&self->lock);
  work = gst_opensora_interrupt_begin_locked(self);
  g_mutex_unlock(&self->lock);
  return work;
}

void
gst_opensora_interrupt_raise(GstOpenSoraInterrupt *self, GstOpenSoraReason reason)
{
  g_autoptr(GCancellable) work = NULL;

  g_mutex_lock(&self->lock);
  self->reasons |= reason;
  if (self->work)
    work = g_object_ref(self->work);
  g_mutex_unlock(&self->lock);
  if (work)
    g_cancellable_cancel(work); /* has callbacks: not under the lock */
}

void
gst_opensora_interrupt_lower(GstOpenSoraInterrupt *self, guint reasons)
{
  g_mutex_lock(&self->lock);
  self->reasons &= ~reasons;
  g_mutex_unlock(&self->lock);
}

gboolean
gst_opensora_interrupt_has(GstOpenSoraInterrupt *self, GstOpenSoraReason reason)
{
  gboolean has;

  g_mutex_lock(&self->lock);
  has = (self->reasons & reason) != 0;
  g_mutex_unlock(&self->lock);
  return has;
}
