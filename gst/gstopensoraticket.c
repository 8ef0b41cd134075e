/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoraticket.h"

typedef enum {
  STAGE_WAITING, /* or as text */
  STAGE_LATENT,
  STAGE_FRAMES,
  STAGE_OVER, /* and told */
} Stage;

struct _GstOpenSoraTicket {
  GObject parent;

  GWeakRef element;
  guint64 id;
  char *prompt, *tag;
  GCancellable *cancellable; /* when over */

  GMutex lock; /* of what follows */
  Stage stage;
  gboolean started, skip, awaited, endless;
  guint clip, n_clips, n_delivered;
};

G_DEFINE_FINAL_TYPE(GstOpenSoraTicket, gst_opensora_ticket, G_TYPE_OBJECT)

/* The ticket whose last reference this thread may be dropping with no lock held. */
static GPrivate settling = G_PRIVATE_INIT(NULL);

/* Telling */

static GstStructure *
describe(GstOpenSoraTicket *self, const char *state, const char *reason)
{
  GstStructure *s =
      gst_structure_new(GST_OPENSORA_CLIP_MESSAGE, "state", G_TYPE_STRING, state, "id",
                        G_TYPE_UINT64, self->id, "prompt", G_TYPE_STRING, self->prompt, NULL);

  if (self->tag)
    gst_structure_set(s, "tag", G_TYPE_STRING, self->tag, NULL);
  g_mutex_lock(&self->lock);
  if (self->started)
    gst_structure_set(s, "clip", G_TYPE_UINT, self->clip, NULL);
  g_mutex_unlock(&self->lock);
  if (reason)
    gst_structure_set(s, "reason", G_TYPE_STRING, reason, NULL);
  return s;
}

static void
post(GstElement *element, gpointer structure)
{
  gst_element_post_message(
      element, gst_message_new_element(GST_OBJECT(element), gst_structure_copy(structure)));
  g_object_notify(G_OBJECT(element), "current-id");
}

static void
free_structure(gpointer structure)
{
  gst_structure_free(structure);
}

static void
tell(GstOpenSoraTicket *self, const char *state, const char *reason)
{
  g_autoptr(GstElement) element = g_weak_ref_get(&self->element);
  g_autoptr(GstStructure) s = NULL;

  if (!element)
    return;
  s = describe(self, state, reason);
  post(element, s);
}

/* The prompt ends, unless it has ended before: TRUE once. */
static gboolean
end(GstOpenSoraTicket *self)
{
  gboolean first;

  g_mutex_lock(&self->lock);
  first = self->stage != STAGE_OVER;
  self->stage = STAGE_OVER;
  g_mutex_unlock(&self->lock);
  if (first)
    g_cancellable_cancel(self->cancellable);
  return first;
}

#define DROPPED "the stream was stopped or flushed"

/* Buffers are dropped under all sorts of locks, which handlers of messages must not meet. An
 * element in NULL has no bus that would listen, and may be about to go. */
static void
gst_opensora_ticket_dispose(GObject *object)
{
  GstOpenSoraTicket *self = GST_OPENSORA_TICKET(object);
  g_autoptr(GstElement) element = g_weak_ref_get(&self->element);
  const gboolean done = self->stage == STAGE_LATENT || self->stage == STAGE_FRAMES;
  const char *state = done ? "done" : "cancelled", *reason = done ? NULL : DROPPED;

  if (self->stage != STAGE_OVER && element && GST_STATE(element) > GST_STATE_NULL) {
    if (g_private_get(&settling) == self)
      tell(self, state, reason);
    else
      gst_element_call_async(element, post, describe(self, state, reason), free_structure);
  }
  self->stage = STAGE_OVER; /* disposing may come twice */
  G_OBJECT_CLASS(gst_opensora_ticket_parent_class)->dispose(object);
}

void
gst_opensora_ticket_settle(GstOpenSoraTicket *self)
{
  if (!self)
    return;
  g_private_set(&settling, self);
  g_object_unref(self);
  g_private_set(&settling, NULL);
}

/* Life */

static void
gst_opensora_ticket_finalize(GObject *object)
{
  GstOpenSoraTicket *self = GST_OPENSORA_TICKET(object);

  g_weak_ref_clear(&self->element);
  g_object_unref(self->cancellable);
  g_free(self->prompt);
  g_free(self->tag);
  g_mutex_clear(&self->lock);
  G_OBJECT_CLASS(gst_opensora_ticket_parent_class)->finalize(object);
}

static void
gst_opensora_ticket_class_init(GstOpenSoraTicketClass *klass)
{
  G_OBJECT_CLASS(klass)->dispose = gst_opensora_ticket_dispose;
  G_OBJECT_CLASS(klass)->finalize = gst_opensora_ticket_finalize;
}

static void
gst_opensora_ticket_init(GstOpenSoraTicket *self)
{
  g_weak_ref_init(&self->element, NULL);
  g_mutex_init(&self->lock);
  self->cancellable = g_cancellable_new();
}

GstOpenSoraTicket *
gst_opensora_ticket_new(GstElement *element, guint64 id, const char *prompt, const char *tag)
{
  GstOpenSoraTicket *self = g_object_new(GST_TYPE_OPENSORA_TICKET, NULL);

  g_weak_ref_set(&self->element, element);
  self->id = id;
  self->prompt = g_utf8_make_valid(prompt, -1);
  self->tag = g_strdup(tag);
  return self;
}

guint64
gst_opensora_ticket_get_id(const GstOpenSoraTicket *self)
{
  return self->id;
}

const char *
gst_opensora_ticket_get_prompt(const GstOpenSoraTicket *self)
{
  return self->prompt;
}

void
gst_opensora_ticket_queue(GstOpenSoraTicket *self)
{
  tell(self, "queued", NULL);
}

void
gst_opensora_ticket_start(GstOpenSoraTicket *self, guint clip, guint n_clips, gboolean skip)
{
  gboolean over;

  g_mutex_lock(&self->lock);
  self->started = TRUE;
  self->clip = clip;
  self->n_clips = n_clips;
  self->skip = skip;
  over = self->stage == STAGE_OVER;
  g_mutex_unlock(&self->lock);
  if (!over)
    tell(self, "started", NULL);
}

void
gst_opensora_ticket_extend(GstOpenSoraTicket *self, gint n)
{
  if (!self || n == 0)
    return;
  g_mutex_lock(&self->lock);
  self->endless |= n < 0;
  self->n_clips += n < 0 ? 0 : (guint) n;
  g_mutex_unlock(&self->lock);
}

gboolean
gst_opensora_ticket_is_awaited(GstOpenSoraTicket *self)
{
  gboolean awaited;

  if (!self)
    return FALSE;
  g_mutex_lock(&self->lock);
  awaited = self->awaited;
  g_mutex_unlock(&self->lock);
  return awaited;
}

void
gst_opensora_ticket_make(GstOpenSoraTicket *self)
{
  if (!self)
    return;
  g_mutex_lock(&self->lock);
  self->stage = MAX(self->stage, STAGE_LATENT);
  g_mutex_unlock(&self->lock);
}

gboolean
gst_opensora_ticket_deliver(GstOpenSoraTicket *self)
{
  gboolean wanted;

  if (!self)
    return TRUE;
  g_mutex_lock(&self->lock);
  wanted = self->stage != STAGE_OVER;
  if (wanted) {
    self->stage = STAGE_FRAMES;
    self->n_delivered++;
  }
  g_mutex_unlock(&self->lock);
  return wanted;
}

gboolean
gst_opensora_ticket_cancel(GstOpenSoraTicket *self)
{
  gboolean in_time;

  g_mutex_lock(&self->lock);
  in_time = self->stage != STAGE_OVER &&
            (self->endless || self->n_delivered == 0 || self->n_delivered < self->n_clips);
  if (in_time)
    self->stage = STAGE_OVER;
  g_mutex_unlock(&self->lock);
  if (in_time) {
    g_cancellable_cancel(self->cancellable);
    tell(self, "cancelled", NULL);
  }
  return in_time;
}

void
gst_opensora_ticket_drop(GstOpenSoraTicket *self)
{
  if (self && end(self))
    tell(self, "cancelled", DROPPED);
}

void
gst_opensora_ticket_fail(GstOpenSoraTicket *self, const char *reason)
{
  if (end(self))
    tell(self, "failed", reason);
}

gboolean
gst_opensora_ticket_is_over(GstOpenSoraTicket *self)
{
  gboolean over;

  if (!self)
    return FALSE;
  g_mutex_lock(&self->lock);
  over = self->stage == STAGE_OVER;
  g_mutex_unlock(&self->lock);
  return over;
}

gboolean
gst_opensora_ticket_is_skipped(GstOpenSoraTicket *self)
{
  gboolean skip;

  if (!self)
    return FALSE;
  g_mutex_lock(&self->lock);
  skip = self->skip;
  g_mutex_unlock(&self->lock);
  return skip;
}

static void
cancel_work(GCancellable *cancellable, gpointer work)
{
  g_cancellable_cancel(work);
}

gulong
gst_opensora_ticket_bind(GstOpenSoraTicket *self, GCancellable *work)
{
  return self ? g_cancellable_connect(self->cancellable, G_CALLBACK(cancel_work),
                                      g_object_ref(work), g_object_unref)
              : 0;
}

void
gst_opensora_ticket_unbind(GstOpenSoraTicket *self, gulong binding)
{
  if (self)
    g_cancellable_disconnect(self->cancellable, binding);
}

/* All of an element */

static void
free_weak_ref(gpointer ref)
{
  g_weak_ref_clear(ref);
  g_free(ref);
}

void
gst_opensora_tickets_init(GstOpenSoraTickets *self)
{
  g_mutex_init(&self->lock);
  self->last_id = 0;
  self->under_way = g_ptr_array_new_with_free_func(free_weak_ref);
}

void
gst_opensora_tickets_clear(GstOpenSoraTickets *self)
{
  g_ptr_array_unref(self->under_way);
  g_mutex_clear(&self->lock);
}

guint64
gst_opensora_tickets_next_id(GstOpenSoraTickets *self)
{
  guint64 id;

  g_mutex_lock(&self->lock);
  id = ++self->last_id;
  g_mutex_unlock(&self->lock);
  return id;
}

/* The first that is not over, of any number or of @id. What is gone is forgotten on the way.
 * (transfer full) */
static GstOpenSoraTicket *
search(GstOpenSoraTickets *self, guint64 id)
{
  for (guint i = 0; i < self->under_way->len;) {
    GstOpenSoraTicket *ticket = g_weak_ref_get(g_ptr_array_index(self->under_way, i));

    if (!ticket || gst_opensora_ticket_is_over(ticket))
      g_ptr_array_remove_index(self->under_way, i);
    else if (id == 0 || ticket->id == id)
      return ticket;
    else
      i++;
    g_clear_object(&ticket);
  }
  return NULL;
}

void
gst_opensora_tickets_add(GstOpenSoraTickets *self, GstOpenSoraTicket *ticket)
{
  GWeakRef *ref = g_new(GWeakRef, 1);

  g_weak_ref_init(ref, ticket);
  g_mutex_lock(&self->lock);
  g_ptr_array_add(self->under_way, ref);
  g_mutex_unlock(&self->lock);
}

GstOpenSoraTicket *
gst_opensora_tickets_find(GstOpenSoraTickets *self, guint64 id)
{
  GstOpenSoraTicket *ticket;

  if (id == 0)
    return NULL;
  g_mutex_lock(&self->lock);
  ticket = search(self, id);
  g_mutex_unlock(&self->lock);
  return ticket;
}

void
gst_opensora_tickets_await(GstOpenSoraTickets *self)
{
  g_mutex_lock(&self->lock);
  for (guint i = 0; i < self->under_way->len; i++) {
    g_autoptr(GstOpenSoraTicket) ticket = g_weak_ref_get(g_ptr_array_index(self->under_way, i));

    if (!ticket)
      continue;
    g_mutex_lock(&ticket->lock);
    ticket->awaited = TRUE;
    g_mutex_unlock(&ticket->lock);
  }
  g_mutex_unlock(&self->lock);
}

guint64
gst_opensora_tickets_current(GstOpenSoraTickets *self)
{
  g_autoptr(GstOpenSoraTicket) ticket = NULL;

  g_mutex_lock(&self->lock);
  ticket = search(self, 0);
  g_mutex_unlock(&self->lock);
  return ticket ? ticket->id : 0;
}
