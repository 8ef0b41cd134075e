/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "json-private.h"

#include <string.h>

#define MAX_DEPTH 32

void
osr_json_init(OsrJsonReader *reader, const char *text, gsize length)
{
  reader->start = reader->at = text;
  reader->end = text + length;
  reader->reason = NULL;
}

gboolean
osr_json_fail(OsrJsonReader *reader, const char *reason)
{
  if (!reader->reason)
    reader->reason = reason;
  return FALSE;
}

gboolean
osr_json_failed(OsrJsonReader *reader)
{
  return reader->reason != NULL;
}

/* The next character that is not white space, '\0' at the end or after a failure. */
static char
peek(OsrJsonReader *reader)
{
  if (reader->reason)
    return '\0';
  while (reader->at < reader->end && *reader->at && strchr(" \t\r\n", *reader->at))
    reader->at++;
  return reader->at < reader->end ? *reader->at : '\0';
}

static gboolean
take(OsrJsonReader *reader, char c, const char *otherwise)
{
  if (peek(reader) != c)
    return osr_json_fail(reader, otherwise);
  reader->at++;
  return TRUE;
}

gboolean
osr_json_begin(OsrJsonReader *reader, char open, gboolean *first)
{
  *first = TRUE;
  return take(reader, open, open == '{' ? "expected an object" : "expected an array");
}

gboolean
osr_json_next(OsrJsonReader *reader, char close, gboolean *first)
{
  if (peek(reader) == close) {
    reader->at++;
    return FALSE;
  }
  if (!*first && !take(reader, ',', "expected ',' or the closing bracket"))
    return FALSE;
  *first = FALSE;
  return !reader->reason;
}

static gboolean
read_hex4(OsrJsonReader *reader, gunichar *value)
{
  *value = 0;
  for (int i = 0; i < 4; i++) {
    int digit = reader->at < reader->end ? g_ascii_xdigit_value(*reader->at) : -1;

    if (digit < 0)
      return osr_json_fail(reader, "bad \\u escape");
    *value = *value << 4 | (gunichar) digit;
    reader->at++;
  }
  return TRUE;
}

/* After "\u": a code point, by a surrogate pair if need be. */
static gboolean
read_unicode(OsrJsonReader *reader, GString *text)
{
  gunichar high, low;

  if (!read_hex4(reader, &high))
    return FALSE;
  if (high >= 0xD800 && high < 0xDC00) {
    if (reader->end - reader->at < 2 || reader->at[0] != '\\' || reader->at[1] != 'u')
      return osr_json_fail(reader, "half of a surrogate pair");
    reader->at += 2;
    if (!read_hex4(reader, &low))
      return FALSE;
    if (low < 0xDC00 || low > 0xDFFF)
      return osr_json_fail(reader, "half of a surrogate pair");
    high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
  }
  if (high == 0)
    return osr_json_fail(reader, "NUL in a string");
  if (!g_unichar_validate(high))
    return osr_json_fail(reader, "half of a surrogate pair");
  g_string_append_unichar(text, high);
  return TRUE;
}

static gboolean
read_escape(OsrJsonReader *reader, GString *text)
{
  static const char codes[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
  char code = reader->at < reader->end ? *reader->at : '\0';
  const char *found = code ? strchr(codes, code) : NULL;

  if (code == 'u') {
    reader->at++;
    return read_unicode(reader, text);
  }
  if (!found)
    return osr_json_fail(reader, "bad escape in a string");
  reader->at++;
  g_string_append_c(text, values[found - codes]);
  return TRUE;
}

char *
osr_json_string(OsrJsonReader *reader)
{
  g_autoptr(GString) text = NULL;

  if (!take(reader, '"', "expected a string"))
    return NULL;
  text = g_string_new(NULL);
  while (reader->at < reader->end && *reader->at != '"') {
    const char *from = reader->at;

    while (reader->at < reader->end && *reader->at != '"' && *reader->at != '\\') {
      if ((guchar) *reader->at < 0x20) {
        osr_json_fail(reader, "control character in a string");
        return NULL;
      }
      reader->at++;
    }
    g_string_append_len(text, from, reader->at - from);
    if (reader->at < reader->end && *reader->at == '\\') {
      reader->at++;
      if (!read_escape(reader, text))
        return NULL;
    }
  }
  if (reader->at == reader->end) {
    osr_json_fail(reader, "the string has no end");
    return NULL;
  }
  reader->at++;
  return g_string_free(g_steal_pointer(&text), FALSE);
}

char *
osr_json_key(OsrJsonReader *reader)
{
  g_autofree char *key = osr_json_string(reader);

  if (!take(reader, ':', "expected ':'"))
    return NULL;
  return g_steal_pointer(&key);
}

gboolean
osr_json_uint(OsrJsonReader *reader, gint64 *value)
{
  gint64 sum = 0;

  if (!g_ascii_isdigit(peek(reader)))
    return osr_json_fail(reader, "expected a non-negative integer");
  if (*reader->at == '0' && reader->at + 1 < reader->end && g_ascii_isdigit(reader->at[1]))
    return osr_json_fail(reader, "expected a non-negative integer");
  for (; reader->at < reader->end && g_ascii_isdigit(*reader->at); reader->at++) {
    int digit = *reader->at - '0';

    if (sum > (G_MAXINT64 - digit) / 10)
      return osr_json_fail(reader, "the number is too large");
    sum = sum * 10 + digit;
  }
  if (reader->at < reader->end && *reader->at && strchr(".eE", *reader->at))
    return osr_json_fail(reader, "expected a non-negative integer");
  *value = sum;
  return TRUE;
}

static gboolean
skip_digits(OsrJsonReader *reader)
{
  const char *from = reader->at;

  while (reader->at < reader->end && g_ascii_isdigit(*reader->at))
    reader->at++;
  return reader->at > from || osr_json_fail(reader, "bad number");
}

static gboolean
skip_number(OsrJsonReader *reader)
{
  if (*reader->at == '-')
    reader->at++;
  if (reader->at < reader->end && *reader->at == '0')
    reader->at++;
  else if (!skip_digits(reader))
    return FALSE;
  if (reader->at < reader->end && *reader->at == '.') {
    reader->at++;
    if (!skip_digits(reader))
      return FALSE;
  }
  if (reader->at < reader->end && (*reader->at == 'e' || *reader->at == 'E')) {
    reader->at++;
    if (reader->at < reader->end && (*reader->at == '+' || *reader->at == '-'))
      reader->at++;
    return skip_digits(reader);
  }
  return TRUE;
}

static gboolean
skip_word(OsrJsonReader *reader)
{
  static const char *const words[] = { "true", "false", "null" };

  for (guint i = 0; i < G_N_ELEMENTS(words); i++) {
    gsize length = strlen(words[i]);

    if ((gsize) (reader->end - reader->at) >= length && memcmp(reader->at, words[i], length) == 0) {
      reader->at += length;
      return TRUE;
    }
  }
  return osr_json_fail(reader, "expected a value");
}

static gboolean
skip_value(OsrJsonReader *reader, guint depth)
{
  char c = peek(reader);
  gboolean first;

  if (depth > MAX_DEPTH)
    return osr_json_fail(reader, "nested too deep");
  if (c == '"') {
    g_free(osr_json_string(reader));
  } else if (c == '{') {
    osr_json_begin(reader, '{', &first);
    while (osr_json_next(reader, '}', &first)) {
      g_free(osr_json_key(reader));
      skip_value(reader, depth + 1);
    }
  } else if (c == '[') {
    osr_json_begin(reader, '[', &first);
    while (osr_json_next(reader, ']', &first))
      skip_value(reader, depth + 1);
  } else if (c == '-' || g_ascii_isdigit(c)) {
    skip_number(reader);
  } else if (c) {
    skip_word(reader);
  } else {
    osr_json_fail(reader, "expected a value");
  }
  return !reader->reason;
}

gboolean
osr_json_skip(OsrJsonReader *reader)
{
  return skip_value(reader, 0);
}

gboolean
osr_json_end(OsrJsonReader *reader)
{
  if (peek(reader) || reader->at < reader->end)
    return osr_json_fail(reader, "something follows the value");
  return !reader->reason;
}
