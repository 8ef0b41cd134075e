/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/* A member of an archive: bytes of the archive itself. */
typedef struct {
  const guint8 *data; /* NULL: compressed or encrypted */
  gsize size;         /* in the archive */
} OsrZipMember;

/*
 * Lists the members of a zip archive (PKWARE's APPNOTE.TXT, ZIP64 included) by name: char * ->
 * OsrZipMember *, both owned by the table, whose data points into @data. A place or size that
 * leaves the archive is an error. Names are UTF-8. @name stands for the archive in messages.
 */
G_GNUC_INTERNAL GHashTable *osr_zip_list(const guint8 *data, gsize size, const char *name,
                                         GError **error);

G_END_DECLS
