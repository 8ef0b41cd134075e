/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensorapromptqueue.h: prompts that wait for their turn, and what each may ask for itself.
 */
#pragma once

#include <gio/gio.h>

#include "gstopensoraticket.h"

G_BEGIN_DECLS

/* Checks the options of a prompt (NULL: none): docs/elements.md lists them. Numbers may be of any
 * type that holds them. Returns what they say in the types of the clip meta: seed (int64),
 * steps, frames, width, height (uint), motion-score (int), guidance, guidance-image (double),
 * negative-prompt, reference and tag (string); @priority (0 if not given) is returned beside it.
 * NULL with @error (OSR_ERROR_INVALID_ARGUMENT) that names the option which is unknown, or of a
 * wrong type or value. (transfer full) */
GstStructure *gst_opensora_prompt_options_parse(const GstStructure *options, gint *priority,
                                                GError **error);
/* The same for what a row of a prompt file has, each of them may be NULL. (transfer full) */
GstStructure *gst_opensora_prompt_options_new(const char *negative_prompt, const char *reference);

typedef struct {
  GstOpenSoraTicket *ticket;
  char *text;            /* need not be UTF-8 */
  GstStructure *options; /* as parsed */
  gint priority;
  guint64 id; /* of the ticket */
} GstOpenSoraPrompt;

/* (takes @ticket and @options) */
GstOpenSoraPrompt *gst_opensora_prompt_new(GstOpenSoraTicket *ticket, const char *text,
                                           GstStructure *options, gint priority);
void gst_opensora_prompt_free(GstOpenSoraPrompt *self);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(GstOpenSoraPrompt, gst_opensora_prompt_free)

/**
 * GstOpenSoraPromptQueue:
 *
 * Any number of threads add and remove, one takes: the highest priority first, of one priority
 * the lowest id.
 */
typedef struct {
  GMutex lock;
  GCond changed;
  GSequence *waiting; /* GstOpenSoraPrompt, in the order of their turns */
  GHashTable *by_id;  /* guint64 -> GSequenceIter */
  guint n_reserved;
  gboolean ended;
} GstOpenSoraPromptQueue;

void gst_opensora_prompt_queue_init(GstOpenSoraPromptQueue *self);
void gst_opensora_prompt_queue_clear(GstOpenSoraPromptQueue *self);

/* Keeps a place, so that a prompt can be announced before it is added, and with that taken. */
void gst_opensora_prompt_queue_keep(GstOpenSoraPromptQueue *self);
/* The same, but FALSE with @error if there are @max prompts already, or if the queue was ended. */
gboolean gst_opensora_prompt_queue_reserve(GstOpenSoraPromptQueue *self, guint max, GError **error);
/* To a place that was kept. (takes @prompt) */
void gst_opensora_prompt_queue_add(GstOpenSoraPromptQueue *self, GstOpenSoraPrompt *prompt);
/* Waits for a prompt until @cancellable is cancelled or the queue is ended. FALSE: there is none.
 */
gboolean gst_opensora_prompt_queue_wait(GstOpenSoraPromptQueue *self, GCancellable *cancellable);
/* Takes the next prompt, whose ticket is among those @under_way from the moment on that it is not
 * in the queue. NULL: there is none; @ended says whether there will be none. (transfer full) */
GstOpenSoraPrompt *gst_opensora_prompt_queue_take(GstOpenSoraPromptQueue *self,
                                                  GstOpenSoraTickets *under_way, gboolean *ended);
/* Takes that prompt out, NULL if it is not there. (transfer full) */
GstOpenSoraPrompt *gst_opensora_prompt_queue_remove(GstOpenSoraPromptQueue *self, guint64 id);
/* Empty, and not ended. */
gboolean gst_opensora_prompt_queue_is_idle(GstOpenSoraPromptQueue *self);
/* Prompts that wait, those announced included. */
guint gst_opensora_prompt_queue_length(GstOpenSoraPromptQueue *self);

/* Nothing can be added from now on. */
void gst_opensora_prompt_queue_end(GstOpenSoraPromptQueue *self);
/* Takes out all prompts (GstOpenSoraPrompt). (transfer full) */
GPtrArray *gst_opensora_prompt_queue_empty(GstOpenSoraPromptQueue *self);
/* The next stream may begin: prompts can be added again. */
void gst_opensora_prompt_queue_reopen(GstOpenSoraPromptQueue *self);

G_END_DECLS
