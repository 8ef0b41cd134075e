/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "feeder.h"

#include <gio/gunixinputstream.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "opensora.h"

#define READ_SIZE 4096
/* Longer lines are no prompts; they are dropped, up to their end. */
#define MAX_LINE 65536
#define FILE_PRIORITY (-1)

struct _Feeder {
  Playlist *playlist; /* not owned */
  const Options *options;

  GQueue lines;    /* char *: of the command line and standard input, in line */
  GPtrArray *file; /* OsrPrompt; NULL: none */
  guint next;      /* in the file */

  GInputStream *input; /* NULL: not there, or at its end */
  GCancellable *cancellable;
  GString *line; /* its beginning */
  gboolean reading, skipping, filling;
};

static void read_more(Feeder *self);

static gboolean
is_busy(const GError *error)
{
  return g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY);
}

static void
add_lines(Feeder *self)
{
  while (!g_queue_is_empty(&self->lines) && !playlist_is_full(self->playlist)) {
    g_autofree char *text = g_queue_pop_head(&self->lines);
    g_autoptr(GError) error = NULL;
    guint64 id = playlist_add(self->playlist, text, NULL, &error);

    if (id)
      g_print("Prompt %" G_GUINT64_FORMAT ": %s\n", id, text);
    else
      g_printerr("Not queued: %s\n", error->message);
  }
}

static GstStructure *
describe(const OsrPrompt *prompt)
{
  GstStructure *s = gst_structure_new("options", "priority", G_TYPE_INT, FILE_PRIORITY, NULL);

  if (prompt->neg)
    gst_structure_set(s, "negative-prompt", G_TYPE_STRING, prompt->neg, NULL);
  if (prompt->ref)
    gst_structure_set(s, "image", G_TYPE_STRING, prompt->ref, NULL);
  return s;
}

/* One of the file's, if none waits. What is refused is told once and never tried again. */
static void
add_from_file(Feeder *self)
{
  while (self->file && self->file->len > 0 && playlist_get_n_waiting(self->playlist) == 0) {
    OsrPrompt *prompt;
    g_autoptr(GstStructure) options = NULL;
    g_autoptr(GError) error = NULL;

    if (self->next >= self->file->len) {
      if (!self->options->repeat_prompts)
        return;
      self->next = 0;
    }
    prompt = g_ptr_array_index(self->file, self->next);
    options = describe(prompt);
    if (playlist_add(self->playlist, prompt->text, options, &error)) {
      self->next++;
      return;
    }
    if (is_busy(error))
      return;
    g_printerr("%s: \"%s\" is not queued: %s\n", self->options->prompts_file, prompt->text,
               error->message);
    g_ptr_array_remove_index(self->file, self->next);
  }
}

static void
fill(Feeder *self)
{
  /* Adding may tell that there is room. */
  if (self->filling)
    return;
  self->filling = TRUE;
  add_lines(self);
  add_from_file(self);
  self->filling = FALSE;
  if (self->input && g_queue_is_empty(&self->lines))
    read_more(self);
}

static void
take_line(Feeder *self)
{
  if (self->skipping)
    g_printerr("Not queued: a line of more than %d bytes\n", MAX_LINE);
  else if (self->line->len > 0 && strspn(self->line->str, " \t\r") < self->line->len)
    g_queue_push_tail(&self->lines, g_strndup(self->line->str, self->line->len));
  self->skipping = FALSE;
  g_string_truncate(self->line, 0);
}

static void
take_bytes(Feeder *self, const char *data, gsize size)
{
  for (gsize i = 0; i < size; i++) {
    if (data[i] == '\n')
      take_line(self);
    else if (self->line->len < MAX_LINE)
      g_string_append_c(self->line, data[i]);
    else
      self->skipping = TRUE;
  }
}

static void
on_read(GObject *stream, GAsyncResult *result, gpointer feeder)
{
  g_autoptr(GError) error = NULL;
  g_autoptr(GBytes) bytes =
      g_input_stream_read_bytes_finish(G_INPUT_STREAM(stream), result, &error);
  Feeder *self = feeder;

  if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    return; /* and there is no feeder any more */
  self->reading = FALSE;
  if (!bytes || g_bytes_get_size(bytes) == 0) {
    GST_INFO("standard input ends: %s", error ? error->message : "EOF");
    take_line(self);
    g_clear_object(&self->input);
  } else {
    take_bytes(self, g_bytes_get_data(bytes, NULL), g_bytes_get_size(bytes));
  }
  fill(self);
}

static void
read_more(Feeder *self)
{
  if (self->reading)
    return;
  self->reading = TRUE;
  g_input_stream_read_bytes_async(self->input, READ_SIZE, G_PRIORITY_DEFAULT, self->cancellable,
                                  on_read, self);
}

static void
on_room(gpointer feeder)
{
  fill(feeder);
}

Feeder *
feeder_new(Playlist *playlist, const Options *options, GError **error)
{
  g_autoptr(GPtrArray) file = NULL;
  Feeder *self;

  if (options->prompts_file && !(file = osr_prompts_read(options->prompts_file, error)))
    return NULL;
  self = g_new0(Feeder, 1);
  self->playlist = playlist;
  self->options = options;
  self->file = g_steal_pointer(&file);
  g_queue_init(&self->lines);
  for (guint i = 0; options->prompts && options->prompts[i]; i++)
    g_queue_push_tail(&self->lines, g_strdup(options->prompts[i]));
  self->line = g_string_new(NULL);
  self->cancellable = g_cancellable_new();
  playlist_set_room_func(playlist, on_room, self);
  return self;
}

void
feeder_start(Feeder *self)
{
  /* In the background of a terminal reading is an error, and nothing to stop for. */
  signal(SIGTTIN, SIG_IGN);
  self->input = g_unix_input_stream_new(STDIN_FILENO, FALSE);
  fill(self);
}

void
feeder_free(Feeder *self)
{
  playlist_set_room_func(self->playlist, NULL, NULL);
  g_cancellable_cancel(self->cancellable);
  g_object_unref(self->cancellable);
  g_clear_object(&self->input);
  g_clear_pointer(&self->file, g_ptr_array_unref);
  g_queue_clear_full(&self->lines, g_free);
  g_string_free(self->line, TRUE);
  g_free(self);
}
