/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensorapromptqueue.h"

#include "gstopensora.h"

/* Options */

typedef enum { INT, INT64, UINT, SIZE, DOUBLE, STRING } Kind;

/* Bounds are those of the properties of the same names. */
static const struct {
  const char *name, *field; /* of the option, and of the parsed options */
  Kind kind;
  gint64 min, max;
} known_options[] = {
  { "priority", NULL, INT, G_MININT, G_MAXINT },
  { "seed", "seed", INT64, -1, G_MAXINT64 },
  { "steps", "steps", UINT, 1, 1000 },
  { "guidance", "guidance", DOUBLE, 0, 100 },
  { "guidance-image", "guidance-image", DOUBLE, 0, 100 },
  { "motion-score", "motion-score", INT, -1, 100 },
  { "num-frames", "frames", UINT, 1, 65533 },
  { "width", "width", SIZE, GST_OPENSORA_SIZE_UNIT, GST_OPENSORA_MAX_SIZE },
  { "height", "height", SIZE, GST_OPENSORA_SIZE_UNIT, GST_OPENSORA_MAX_SIZE },
  { "negative-prompt", "negative-prompt", STRING, 0, 0 },
  { "image", "reference", STRING, 0, 0 },
  { "tag", "tag", STRING, 0, 0 },
};

/* FALSE if it is no whole number that an int64 holds. */
static gboolean
get_integer(const GValue *value, gint64 *integer)
{
  if (G_VALUE_HOLDS_INT(value))
    *integer = g_value_get_int(value);
  else if (G_VALUE_HOLDS_UINT(value))
    *integer = g_value_get_uint(value);
  else if (G_VALUE_HOLDS_INT64(value))
    *integer = g_value_get_int64(value);
  else if (G_VALUE_HOLDS_UINT64(value) && g_value_get_uint64(value) <= G_MAXINT64)
    *integer = (gint64) g_value_get_uint64(value);
  else
    return FALSE;
  return TRUE;
}

static gboolean
get_number(const GValue *value, double *number)
{
  gint64 integer;

  if (G_VALUE_HOLDS_DOUBLE(value))
    *number = g_value_get_double(value);
  else if (G_VALUE_HOLDS_FLOAT(value))
    *number = (double) g_value_get_float(value);
  else if (get_integer(value, &integer))
    *number = (double) integer;
  else
    return FALSE;
  return TRUE;
}

static gboolean
refuse(const char *name, const GValue *value, const char *wanted, GError **error)
{
  g_autofree char *contents = g_strdup_value_contents(value);
  g_autofree char *valid = g_utf8_make_valid(contents, -1);

  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
              "the option \"%s\" wants %s, not %s (%s)", name, wanted, valid,
              G_VALUE_TYPE_NAME(value));
  return FALSE;
}

static gboolean
parse_string(const char *name, const char *field, const GValue *value, GstStructure *parsed,
             GError **error)
{
  const char *text = G_VALUE_HOLDS_STRING(value) ? g_value_get_string(value) : NULL;

  if (!text || !g_utf8_validate(text, -1, NULL))
    return refuse(name, value, "a string of UTF-8", error);
  if (*text)
    gst_structure_set(parsed, field, G_TYPE_STRING, text, NULL);
  return TRUE;
}

static gboolean
parse_option(guint option, const GValue *value, GstStructure *parsed, gint *priority,
             GError **error)
{
  const char *name = known_options[option].name, *field = known_options[option].field;
  const Kind kind = known_options[option].kind;
  const gint64 min = known_options[option].min, max = known_options[option].max;
  g_autofree char *wanted = NULL;
  double number = 0.0;
  gint64 integer = 0;
  gboolean ok;

  if (kind == STRING)
    return parse_string(name, field, value, parsed, error);
  if (kind == DOUBLE)
    ok = get_number(value, &number) && number >= (double) min && number <= (double) max;
  else
    ok = get_integer(value, &integer) && integer >= min && integer <= max &&
         (kind != SIZE || integer % GST_OPENSORA_SIZE_UNIT == 0);
  if (!ok) {
    wanted = g_strdup_printf("a %s from %" G_GINT64_FORMAT " to %" G_GINT64_FORMAT,
                             kind == DOUBLE ? "number"
                             : kind == SIZE ? "multiple of " G_STRINGIFY(GST_OPENSORA_SIZE_UNIT)
                                            : "whole number",
                             min, max);
    return refuse(name, value, wanted, error);
  }
  if (!field)
    *priority = (gint) integer;
  else if (kind == DOUBLE)
    gst_structure_set(parsed, field, G_TYPE_DOUBLE, number, NULL);
  else if (kind == INT64)
    gst_structure_set(parsed, field, G_TYPE_INT64, integer, NULL);
  else if (kind == INT)
    gst_structure_set(parsed, field, G_TYPE_INT, (gint) integer, NULL);
  else
    gst_structure_set(parsed, field, G_TYPE_UINT, (guint) integer, NULL);
  return TRUE;
}

GstStructure *
gst_opensora_prompt_options_parse(const GstStructure *options, gint *priority, GError **error)
{
  g_autoptr(GstStructure) parsed = gst_structure_new_empty("options");
  const gint n = options ? gst_structure_n_fields(options) : 0;

  *priority = 0;
  for (gint i = 0; i < n; i++) {
    const char *name = gst_structure_nth_field_name(options, (guint) i);
    guint option = 0;

    while (option < G_N_ELEMENTS(known_options) && !g_str_equal(known_options[option].name, name))
      option++;
    if (option == G_N_ELEMENTS(known_options)) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "there is no option \"%s\"", name);
      return NULL;
    }
    if (!parse_option(option, gst_structure_get_value(options, name), parsed, priority, error))
      return NULL;
  }
  return g_steal_pointer(&parsed);
}

GstStructure *
gst_opensora_prompt_options_new(const char *negative_prompt, const char *reference)
{
  GstStructure *options = gst_structure_new_empty("options");

  if (negative_prompt)
    gst_structure_set(options, "negative-prompt", G_TYPE_STRING, negative_prompt, NULL);
  if (reference)
    gst_structure_set(options, "reference", G_TYPE_STRING, reference, NULL);
  return options;
}

/* Prompts */

GstOpenSoraPrompt *
gst_opensora_prompt_new(GstOpenSoraTicket *ticket, const char *text, GstStructure *options,
                        gint priority)
{
  GstOpenSoraPrompt *self = g_new0(GstOpenSoraPrompt, 1);

  self->ticket = ticket;
  self->text = g_strdup(text);
  self->options = options;
  self->priority = priority;
  self->id = gst_opensora_ticket_get_id(ticket);
  return self;
}

void
gst_opensora_prompt_free(GstOpenSoraPrompt *self)
{
  g_object_unref(self->ticket);
  g_free(self->text);
  gst_structure_free(self->options);
  g_free(self);
}

static gint
compare_turns(gconstpointer a, gconstpointer b, gpointer user_data)
{
  const GstOpenSoraPrompt *p = a, *q = b;

  if (p->priority != q->priority)
    return p->priority > q->priority ? -1 : 1;
  return (p->id > q->id) - (p->id < q->id);
}

/* The queue */

void
gst_opensora_prompt_queue_init(GstOpenSoraPromptQueue *self)
{
  g_mutex_init(&self->lock);
  g_cond_init(&self->changed);
  self->waiting = g_sequence_new(NULL);
  self->by_id = g_hash_table_new(g_int64_hash, g_int64_equal);
  self->n_reserved = 0;
  self->ended = FALSE;
}

void
gst_opensora_prompt_queue_clear(GstOpenSoraPromptQueue *self)
{
  g_sequence_foreach(self->waiting, (GFunc) (GCallback) gst_opensora_prompt_free, NULL);
  g_sequence_free(self->waiting);
  g_hash_table_unref(self->by_id);
  g_cond_clear(&self->changed);
  g_mutex_clear(&self->lock);
}

static guint
length_locked(GstOpenSoraPromptQueue *self)
{
  return self->n_reserved + (guint) g_sequence_get_length(self->waiting);
}

void
gst_opensora_prompt_queue_keep(GstOpenSoraPromptQueue *self)
{
  g_mutex_lock(&self->lock);
  self->n_reserved++;
  g_mutex_unlock(&self->lock);
}

gboolean
gst_opensora_prompt_queue_reserve(GstOpenSoraPromptQueue *self, guint max, GError **error)
{
  gboolean ended, full;

  g_mutex_lock(&self->lock);
  ended = self->ended;
  full = length_locked(self) >= max;
  self->n_reserved += !ended && !full;
  g_mutex_unlock(&self->lock);
  if (ended)
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                        "the stream has been ended: it takes no more prompts");
  else if (full)
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "the queue is full: max-queue is %u",
                max);
  return !ended && !full;
}

void
gst_opensora_prompt_queue_add(GstOpenSoraPromptQueue *self, GstOpenSoraPrompt *prompt)
{
  GSequenceIter *place;

  g_mutex_lock(&self->lock);
  self->n_reserved--;
  place = g_sequence_insert_sorted(self->waiting, prompt, compare_turns, NULL);
  g_hash_table_insert(self->by_id, &prompt->id, place);
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
}

/* (transfer full) */
static GstOpenSoraPrompt *
take_out(GstOpenSoraPromptQueue *self, GSequenceIter *place)
{
  GstOpenSoraPrompt *prompt = g_sequence_get(place);

  g_hash_table_remove(self->by_id, &prompt->id);
  g_sequence_remove(place);
  return prompt;
}

static void
wake(GCancellable *cancellable, gpointer user_data)
{
  GstOpenSoraPromptQueue *self = user_data;

  g_mutex_lock(&self->lock);
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
}

gboolean
gst_opensora_prompt_queue_wait(GstOpenSoraPromptQueue *self, GCancellable *cancellable)
{
  const gulong waker = g_cancellable_connect(cancellable, G_CALLBACK(wake), self, NULL);
  gboolean found;

  g_mutex_lock(&self->lock);
  /* A place that is kept is a prompt that comes. */
  while (!g_cancellable_is_cancelled(cancellable) && g_sequence_is_empty(self->waiting) &&
         !(self->ended && self->n_reserved == 0))
    g_cond_wait(&self->changed, &self->lock);
  found = !g_sequence_is_empty(self->waiting) && !g_cancellable_is_cancelled(cancellable);
  g_mutex_unlock(&self->lock);
  g_cancellable_disconnect(cancellable, waker);
  return found;
}

GstOpenSoraPrompt *
gst_opensora_prompt_queue_take(GstOpenSoraPromptQueue *self, GstOpenSoraTickets *under_way,
                               gboolean *ended)
{
  GstOpenSoraPrompt *prompt = NULL;

  g_mutex_lock(&self->lock);
  if (!g_sequence_is_empty(self->waiting)) {
    prompt = take_out(self, g_sequence_get_begin_iter(self->waiting));
    gst_opensora_tickets_add(under_way, prompt->ticket);
  }
  *ended = self->ended && length_locked(self) == 0;
  g_mutex_unlock(&self->lock);
  return prompt;
}

GstOpenSoraPrompt *
gst_opensora_prompt_queue_remove(GstOpenSoraPromptQueue *self, guint64 id)
{
  GstOpenSoraPrompt *prompt = NULL;
  GSequenceIter *place;

  g_mutex_lock(&self->lock);
  place = g_hash_table_lookup(self->by_id, &id);
  if (place)
    prompt = take_out(self, place);
  g_cond_broadcast(&self->changed); /* what was ended may be empty now */
  g_mutex_unlock(&self->lock);
  return prompt;
}

gboolean
gst_opensora_prompt_queue_is_idle(GstOpenSoraPromptQueue *self)
{
  gboolean idle;

  g_mutex_lock(&self->lock);
  idle = !self->ended && length_locked(self) == 0;
  g_mutex_unlock(&self->lock);
  return idle;
}

guint
gst_opensora_prompt_queue_length(GstOpenSoraPromptQueue *self)
{
  guint length;

  g_mutex_lock(&self->lock);
  length = length_locked(self);
  g_mutex_unlock(&self->lock);
  return length;
}

void
gst_opensora_prompt_queue_end(GstOpenSoraPromptQueue *self)
{
  g_mutex_lock(&self->lock);
  self->ended = TRUE;
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
}

GPtrArray *
gst_opensora_prompt_queue_empty(GstOpenSoraPromptQueue *self)
{
  GPtrArray *prompts = g_ptr_array_new_with_free_func((GDestroyNotify) gst_opensora_prompt_free);

  g_mutex_lock(&self->lock);
  while (!g_sequence_is_empty(self->waiting))
    g_ptr_array_add(prompts, take_out(self, g_sequence_get_begin_iter(self->waiting)));
  g_cond_broadcast(&self->changed);
  g_mutex_unlock(&self->lock);
  return prompts;
}

void
gst_opensora_prompt_queue_reopen(GstOpenSoraPromptQueue *self)
{
  g_mutex_lock(&self->lock);
  self->ended = FALSE;
  g_mutex_unlock(&self->lock);
}
