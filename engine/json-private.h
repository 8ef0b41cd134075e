/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

/*
 * A pull reader of strict JSON (RFC 8259) for files that nobody has checked. Unlike
 * json-glib's parser it takes no extensions, keeps no tree, shows duplicate keys to the
 * caller and cannot be nested into a stack overflow.
 *
 * The first failure sticks: every later call fails too, so callers may look at
 * osr_json_failed() once in a while instead of after every call.
 *
 *   osr_json_begin(&r, '{', &first);
 *   while (osr_json_next(&r, '}', &first)) {
 *     g_autofree char *key = osr_json_key(&r);
 *     ...read exactly one value...
 *   }
 */
typedef struct {
  const char *start, *at, *end;
  const char *reason; /* NULL until something fails; then @at is where */
} OsrJsonReader;

/* @text must be UTF-8 without NULs. */
G_GNUC_INTERNAL void osr_json_init(OsrJsonReader *reader, const char *text, gsize length);

/* @open is '{' or '[', @close the bracket that ends it. */
G_GNUC_INTERNAL gboolean osr_json_begin(OsrJsonReader *reader, char open, gboolean *first);
G_GNUC_INTERNAL gboolean osr_json_next(OsrJsonReader *reader, char close, gboolean *first);

/* Newly allocated; NULL on failure. osr_json_key() takes the colon too. */
G_GNUC_INTERNAL char *osr_json_string(OsrJsonReader *reader);
G_GNUC_INTERNAL char *osr_json_key(OsrJsonReader *reader);
/* Digits only: no sign, fraction or exponent, up to 2^63 - 1. */
G_GNUC_INTERNAL gboolean osr_json_uint(OsrJsonReader *reader, gint64 *value);
/* Any value, nested at most 32 deep. */
G_GNUC_INTERNAL gboolean osr_json_skip(OsrJsonReader *reader);
/* Nothing but white space is left. */
G_GNUC_INTERNAL gboolean osr_json_end(OsrJsonReader *reader);

/* Makes the reader fail at the current place. Always FALSE. */
G_GNUC_INTERNAL gboolean osr_json_fail(OsrJsonReader *reader, const char *reason);
G_GNUC_INTERNAL gboolean osr_json_failed(OsrJsonReader *reader);

G_END_DECLS
