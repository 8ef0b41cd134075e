/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * contact-sheet.h: frames of a stream, side by side in one picture.
 */
#pragma once

#include <gst/gst.h>

G_BEGIN_DECLS

/**
 * ContactSheet:
 *
 * Copies frames as they pass a pad and lays some of them out in a PNG file. However long the
 * stream is, no more than four times the frames of the picture are kept: past that, every
 * second one is forgotten and only every second one of those that come is taken.
 */
typedef struct _ContactSheet ContactSheet;

/* @pad: of raw video. The sheet has @columns x @rows pictures, fewer if the stream is short. */
ContactSheet *contact_sheet_new(GstPad *pad, guint columns, guint rows);
void contact_sheet_free(ContactSheet *self);

/* FALSE if there was no frame or @path cannot be written. */
gboolean contact_sheet_write(ContactSheet *self, const char *path, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(ContactSheet, contact_sheet_free)

G_END_DECLS
