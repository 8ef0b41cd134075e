/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * feeder.h: prompts from the command line, a file and standard input.
 */
#pragma once

#include "playlist.h"

G_BEGIN_DECLS

/**
 * Feeder:
 *
 * Adds prompts to the playlist as there is room: what stands in line is read no faster than it is
 * made. Prompts of the file give way to all others and are added one at a time.
 */
typedef struct _Feeder Feeder;

/* Reads the file. NULL with @error. Takes over the playlist's room function. Both arguments have
 * to outlive it. */
Feeder *feeder_new(Playlist *playlist, const Options *options, GError **error);
/* Begins to read standard input, and to add. */
void feeder_start(Feeder *self);
void feeder_free(Feeder *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Feeder, feeder_free)

G_END_DECLS
