/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * playlist.h: the prompts of /live, and what became of them.
 */
#pragma once

#include <gst/gst.h>
#include <json-glib/json-glib.h>

#include "options.h"

G_BEGIN_DECLS

/**
 * Playlist:
 *
 * Adds prompts to the queue of an opensorasrc and follows them by its messages and those of the
 * playout: queued, started, done, on air, played; cancelled or failed. For one thread, the one
 * that handles the messages.
 */
typedef struct _Playlist Playlist;

/* Called when a prompt has left the queue. */
typedef void (*PlaylistFunc)(gpointer user_data);

Playlist *playlist_new(GstElement *source, const Options *options);
void playlist_free(Playlist *self);
void playlist_set_room_func(Playlist *self, PlaylistFunc func, gpointer user_data);

/* @prompt_options: as add-prompt of opensorasrc takes them, or NULL. Returns the prompt's number;
 * 0 with @error: G_IO_ERROR_INVALID_ARGUMENT, or G_IO_ERROR_BUSY if as many wait as may. */
guint64 playlist_add(Playlist *self, const char *prompt, const GstStructure *prompt_options,
                     GError **error);
/* FALSE: there is none of that number that is still to be made. */
gboolean playlist_cancel(Playlist *self, guint64 id);
/* Takes any message; those that are not about prompts are left alone. */
void playlist_handle(Playlist *self, GstMessage *message);

guint playlist_get_n_waiting(Playlist *self);
gboolean playlist_is_full(Playlist *self);
/* {"on-air": {…} or null, "prompts": [{"id", "prompt", "state", "reason"?}, …]}: all that are not
 * over, and the last that are. (transfer full) */
JsonObject *playlist_to_json(Playlist *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Playlist, playlist_free)

G_END_DECLS
