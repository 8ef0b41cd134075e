/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "playlist.h"

#include "clip-request.h"
#include "log.h"

/* Prompts that are over, which are still told about. */
#define MAX_OVER 50

typedef enum { QUEUED, STARTED, DONE, CANCELLED, FAILED } State;

static const char *const state_names[] = { "queued", "started", "done", "cancelled", "failed" };

typedef struct {
  guint64 id;
  char *prompt;
  char *reason; /* NULL: there is nothing to be said */
  State state;
  gint64 added;  /* monotonic, in us */
  double waited; /* seconds until it was on air; 0: it was not yet */
} Item;

struct _Playlist {
  const Options *options;
  GstElement *source;
  GPtrArray *items; /* Item, in the order of their ids */
  guint64 on_air;   /* id; 0: the slate */
  PlaylistFunc room_func;
  gpointer user_data;
};

static void
item_free(gpointer data)
{
  Item *item = data;

  g_free(item->prompt);
  g_free(item->reason);
  g_free(item);
}

Playlist *
playlist_new(GstElement *source, const Options *options)
{
  Playlist *self = g_new0(Playlist, 1);

  self->options = options;
  self->source = gst_object_ref(source);
  self->items = g_ptr_array_new_with_free_func(item_free);
  return self;
}

void
playlist_free(Playlist *self)
{
  gst_object_unref(self->source);
  g_ptr_array_unref(self->items);
  g_free(self);
}

void
playlist_set_room_func(Playlist *self, PlaylistFunc func, gpointer user_data)
{
  self->room_func = func;
  self->user_data = user_data;
}

static Item *
find(Playlist *self, guint64 id)
{
  for (guint i = self->items->len; i > 0; i--) {
    Item *item = g_ptr_array_index(self->items, i - 1);

    if (item->id == id)
      return item;
  }
  return NULL;
}

static gboolean
is_over(const Item *item)
{
  return item->state >= DONE;
}

/* The oldest of those that are over go. */
static void
forget(Playlist *self)
{
  guint n_over = 0;

  for (guint i = 0; i < self->items->len; i++)
    n_over += is_over(g_ptr_array_index(self->items, i));
  for (guint i = 0; i < self->items->len && n_over > MAX_OVER;) {
    const Item *item = g_ptr_array_index(self->items, i);

    if (is_over(item) && item->id != self->on_air) {
      g_ptr_array_remove_index(self->items, i);
      n_over--;
    } else {
      i++;
    }
  }
}

guint64
playlist_add(Playlist *self, const char *prompt, const GstStructure *prompt_options, GError **error)
{
  g_autofree char *text = g_strdup(prompt);
  guint64 id = 0;
  Item *item;

  g_strstrip(text);
  if (!prompt_check(text, self->options->max_prompt, error))
    return 0;
  if (playlist_is_full(self)) {
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_BUSY, "%u prompts wait already",
                self->options->max_queue);
    return 0;
  }
  g_signal_emit_by_name(self->source, "add-prompt", text, prompt_options, &id);
  if (id == 0) {
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                        "refused: an option has a value that is not possible, or there is no "
                        "generator");
    return 0;
  }
  item = g_new0(Item, 1);
  item->id = id;
  item->prompt = g_steal_pointer(&text);
  item->added = g_get_monotonic_time();
  g_ptr_array_add(self->items, item);
  GST_INFO("prompt %" G_GUINT64_FORMAT ": \"%s\"", id, item->prompt);
  return id;
}

gboolean
playlist_cancel(Playlist *self, guint64 id)
{
  gboolean cancelled = FALSE;

  g_signal_emit_by_name(self->source, "cancel", id, &cancelled);
  return cancelled;
}

static void
set_state(Playlist *self, Item *item, State state, const char *reason)
{
  const gboolean waited = item->state == QUEUED;

  if (is_over(item))
    return;
  item->state = state;
  item->reason = g_strdup(reason);
  GST_INFO("prompt %" G_GUINT64_FORMAT " is %s %s", item->id, state_names[state],
           reason ? reason : "");
  if (is_over(item))
    forget(self);
  if (waited && state != QUEUED && self->room_func)
    self->room_func(self->user_data);
}

static void
handle_state(Playlist *self, const GstStructure *s)
{
  const char *name = gst_structure_get_string(s, "state");
  guint64 id = 0;
  Item *item;

  gst_structure_get_uint64(s, "id", &id);
  item = find(self, id);
  for (guint i = 0; item && name && i < G_N_ELEMENTS(state_names); i++)
    if (g_str_equal(state_names[i], name)) {
      set_state(self, item, (State) i, gst_structure_get_string(s, "reason"));
      return;
    }
}

static void
handle_on_air(Playlist *self, const GstStructure *s)
{
  g_autoptr(GstStructure) clip = NULL;
  guint64 id = 0;
  Item *item;

  if (gst_structure_get(s, "clip", GST_TYPE_STRUCTURE, &clip, NULL))
    gst_structure_get_uint64(clip, "id", &id);
  self->on_air = id;
  item = find(self, id);
  if (!item)
    return;
  if (item->waited <= 0.0)
    item->waited = (double) (g_get_monotonic_time() - item->added) / G_USEC_PER_SEC;
  g_print("On air after %.1f s: %s\n", item->waited, item->prompt);
}

void
playlist_handle(Playlist *self, GstMessage *message)
{
  const GstStructure *s = gst_message_get_structure(message);

  if (GST_MESSAGE_TYPE(message) != GST_MESSAGE_ELEMENT)
    return;
  if (gst_structure_has_name(s, "opensora-clip"))
    handle_state(self, s);
  else if (gst_structure_has_name(s, "opensora-clip-started"))
    handle_on_air(self, s);
}

guint
playlist_get_n_waiting(Playlist *self)
{
  guint n = 0;

  for (guint i = 0; i < self->items->len; i++)
    n += ((const Item *) g_ptr_array_index(self->items, i))->state == QUEUED;
  return n;
}

gboolean
playlist_is_full(Playlist *self)
{
  return playlist_get_n_waiting(self) >= self->options->max_queue;
}

static JsonNode *
describe(const Item *item)
{
  JsonObject *object = json_object_new();
  JsonNode *node = json_node_new(JSON_NODE_OBJECT);

  json_object_set_int_member(object, "id", (gint64) item->id);
  json_object_set_string_member(object, "prompt", item->prompt);
  json_object_set_string_member(object, "state", state_names[item->state]);
  if (item->reason)
    json_object_set_string_member(object, "reason", item->reason);
  if (item->waited > 0.0)
    json_object_set_double_member(object, "waited", item->waited);
  json_node_take_object(node, object);
  return node;
}

JsonObject *
playlist_to_json(Playlist *self)
{
  JsonObject *object = json_object_new();
  JsonArray *prompts = json_array_new();
  Item *on_air = find(self, self->on_air);

  for (guint i = 0; i < self->items->len; i++)
    json_array_add_element(prompts, describe(g_ptr_array_index(self->items, i)));
  json_object_set_member(object, "on-air",
                         on_air ? describe(on_air) : json_node_new(JSON_NODE_NULL));
  json_object_set_array_member(object, "prompts", prompts);
  return object;
}
