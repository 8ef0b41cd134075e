/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "api.h"

G_BEGIN_DECLS

/* One line of a prompt file. */
typedef struct {
  char *text;
  char *neg; /* NULL: none */
  char *ref; /* path or ';'-separated paths of reference media; NULL: none */
} OsrPrompt;

OSR_API void osr_prompt_free(OsrPrompt *prompt);

/* A text file (one prompt a line; empty lines and lines that start with '#' are skipped) or
 * a CSV file (RFC 4180, header with a "text" column and optional "ref" and "neg"; other
 * columns are ignored), told apart by the name's ending ".csv". UTF-8, a byte order mark
 * and CRLF are accepted. Errors name the file and the row. Returns OsrPrompt*, never
 * empty. (transfer full) */
OSR_API GPtrArray *osr_prompts_read(const char *path, GError **error);
OSR_API GPtrArray *osr_prompts_parse(const char *data, gssize length, gboolean csv,
                                     const char *name, GError **error);

/* Upstream's decoration: trims, ends with a full stop, adds " @fps FPS." unless the text
 * ends in one already, then " @motion_score motion score.". 0 leaves a part out. Text that is not
 * UTF-8 is returned as it is. */
OSR_API char *osr_prompt_decorate(const char *text, guint fps, guint motion_score);

G_END_DECLS
