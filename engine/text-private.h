/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * text-private.h: what the readers of text share: tokenizers, prompts, model folders.
 */
#pragma once

#include "error.h"

G_BEGIN_DECLS

/* What Python's str.isspace(), strip() and split() take for white space; it has the four
 * information separators, which g_unichar_isspace() leaves out. */
static inline gboolean
osr_unichar_is_space(gunichar c)
{
  if (c < 0x80)
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20);
  switch (c) {
  case 0x0085:
  case 0x00a0:
  case 0x1680:
  case 0x2028:
  case 0x2029:
  case 0x202f:
  case 0x205f:
  case 0x3000:
    return TRUE;
  default:
    return c >= 0x2000 && c <= 0x200a;
  }
}

/* The first byte of [text, end) that is not white space, end if there is none. */
static inline const char *
osr_text_skip_space(const char *text, const char *end)
{
  while (text < end && osr_unichar_is_space(g_utf8_get_char(text)))
    text = g_utf8_next_char(text);
  return text;
}

/* The end of [text, end) without the white space at its end. */
static inline const char *
osr_text_trim_end(const char *text, const char *end)
{
  while (text < end) {
    const char *last = g_utf8_prev_char(end);
    if (!osr_unichar_is_space(g_utf8_get_char(last)))
      break;
    end = last;
  }
  return end;
}

/* g_file_get_contents() with errors of ours. */
static inline gboolean
osr_file_read(const char *path, char **data, gsize *length, GError **error)
{
  g_autoptr(GError) reason = NULL;

  if (g_file_get_contents(path, data, length, &reason))
    return TRUE;
  g_set_error_literal(error, OSR_ERROR,
                      g_error_matches(reason, G_FILE_ERROR, G_FILE_ERROR_NOENT)
                          ? OSR_ERROR_NOT_FOUND
                          : OSR_ERROR_INVALID_FILE,
                      reason->message);
  return FALSE;
}

/* Rejects NULs, too. @name stands for the file in messages. */
static inline gboolean
osr_text_check_utf8(const char *text, gsize length, const char *name, GError **error)
{
  const char *bad;
  gsize line = 1;

  if (g_utf8_validate(text, (gssize) length, &bad))
    return TRUE;
  for (const char *p = text; p < bad; p++)
    line += *p == '\n';
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
              "%s: line %" G_GSIZE_FORMAT ": byte 0x%02x is not UTF-8 text", name, line,
              (guchar) *bad);
  return FALSE;
}

static inline gboolean
osr_file_read_utf8(const char *path, char **text, gsize *length, GError **error)
{
  g_autofree char *data = NULL;

  if (!osr_file_read(path, &data, length, error) ||
      !osr_text_check_utf8(data, *length, path, error))
    return FALSE;
  *text = g_steal_pointer(&data);
  return TRUE;
}

G_END_DECLS
