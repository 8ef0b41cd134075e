/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * progress.h: the progress messages of the elements as a bar on a terminal.
 */
#pragma once

#include <gst/gst.h>
#include <stdio.h>

G_BEGIN_DECLS

/**
 * Progress:
 *
 * On a terminal one line is drawn over and over: what is being done, how far it is, the time
 * left and the memory in use. Elsewhere (a log file) only what has been done is written.
 */
typedef struct _Progress Progress;

Progress *progress_new(FILE *out);
/* Ends an open line. */
void progress_free(Progress *self);

/* Takes any bus message; those that are no progress are left alone. */
void progress_handle(Progress *self, GstMessage *message);
/* Takes the bar away so that something else can be printed; the next message draws it again. */
void progress_clear(Progress *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Progress, progress_free)

G_END_DECLS
