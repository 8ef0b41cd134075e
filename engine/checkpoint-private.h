/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "checkpoint.h"

G_BEGIN_DECLS

struct _OsrCheckpoint {
  gint ref_count;
  char *path;
  const char *format;
  GBytes *bytes;        /* of a single file */
  GPtrArray *shards;    /* of an index: OsrCheckpoint, which own the entries */
  GPtrArray *entries;   /* OsrCheckpointEntry, by their place in the file */
  GHashTable *by_name;  /* entry->name -> entry */
  GHashTable *metadata; /* string -> string */
};

/* The header's length as the format has it and as indices may have it. */
#define OSR_CHECKPOINT_MAX_HEADER 100000000

G_GNUC_INTERNAL OsrCheckpoint *osr_checkpoint_new(const char *path, GBytes *bytes);

/* Each reads and checks the header of checkpoint->bytes and fills entries, by_name and
 * metadata. */
G_GNUC_INTERNAL gboolean osr_safetensors_parse(OsrCheckpoint *checkpoint, GError **error);
G_GNUC_INTERNAL gboolean osr_pytorch_parse(OsrCheckpoint *checkpoint, GError **error);

/* A name out of a file, made fit for a message: not too long, no control characters. */
G_GNUC_INTERNAL char *osr_printable(const char *name);

G_END_DECLS
