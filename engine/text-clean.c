/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * text-clean.c: text as its writer meant it, by the rules of ftfy 6 (R. Speer, 2019), which
 * Hugging Face's CLIPTokenizer applies where it is installed, as upstream asks for: characters
 * that HTML spells out, Latin ligatures, wide and narrow forms, curly quotes, line ends, escape
 * sequences of terminals, control characters. All of these until nothing changes, a line at a time.
 *
 * What ftfy does first of all is left out: guessing from improbable letters that a text was read
 * in a wrong encoding, and in which.
 */
#include "text-clean.h"

#include <stdlib.h>
#include <string.h>

#include "text-private.h"

/* HTML */

typedef struct {
  const char *name, *text;
} HtmlEntity;

#include "html-entities.h"

#define MAX_NAME 24

/* Of 0x80 to 0x9f in Windows-1252; 0: nothing, they stay. */
static const gunichar windows_1252[32] = {
  0x20ac, 0,      0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
  0x2039, 0x0152, 0,      0x017d, 0,      0,      0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
  0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0,      0x017e, 0x0178,
};

static gunichar
from_windows_1252(gunichar c)
{
  return c >= 0x80 && c <= 0x9f && windows_1252[c - 0x80] ? windows_1252[c - 0x80] : c;
}

static int
compare_names(const void *name, const void *entity)
{
  return strcmp(name, ((const HtmlEntity *) entity)->name);
}

static gboolean
append_entity(GString *out, const char *name, gsize length)
{
  char key[MAX_NAME + 1];
  const HtmlEntity *found;

  memcpy(key, name, length);
  key[length] = '\0';
  found = bsearch(key, html_entities, G_N_ELEMENTS(html_entities), sizeof *html_entities,
                  compare_names);
  if (found)
    g_string_append(out, found->text);
  return found != NULL;
}

/* Characters that a number may not stand for vanish. */
static gboolean
is_invalid(gunichar c)
{
  return (c >= 0x01 && c <= 0x08) || c == 0x0b || (c >= 0x0e && c <= 0x1f) ||
         (c >= 0x7f && c <= 0x9f) || (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

/* @digits: "65" or "x41", to a semicolon. */
static gboolean
append_number(GString *out, const char *digits, gsize length)
{
  const gboolean hex = *digits == 'x' || *digits == 'X';
  guint64 number = 0;
  gunichar c;

  if (length == (hex ? 1 : 0))
    return FALSE;
  for (gsize i = hex ? 1 : 0; i < length; i++) {
    if (!(hex ? g_ascii_isxdigit(digits[i]) : g_ascii_isdigit(digits[i])))
      return FALSE;
    number = MIN(number * (hex ? 16 : 10) + (guint) g_ascii_xdigit_value(digits[i]), G_MAXUINT32);
  }
  if (number == ';') /* ftfy takes it for one that was left over */
    return FALSE;
  if (number >= 0x80 && number <= 0x9f)
    g_string_append_unichar(out, from_windows_1252((gunichar) number));
  else if (number == 0 || number > 0x10ffff || (number >= 0xd800 && number <= 0xdfff))
    g_string_append_unichar(out, 0xfffd);
  else if (c = (gunichar) number, !is_invalid(c))
    g_string_append_unichar(out, c);
  return TRUE;
}

/* Length of what is spelled out at @text, an ampersand; its meaning is appended. 0: nothing is. */
static gsize
append_reference(GString *out, const char *text, const char *end)
{
  const char *name = text + 1, *p;
  gboolean known;

  if (name < end && *name == '#')
    name++;
  for (p = name; p < end && p - name < MAX_NAME && g_ascii_isalnum(*p); p++)
    ;
  if (p == name || p == end || *p != ';')
    return 0;
  known = name[-1] == '#' ? append_number(out, name, (gsize) (p - name))
                          : append_entity(out, name, (gsize) (p - name));
  return known ? (gsize) (p + 1 - text) : 0;
}

/* An ampersand that comes out may begin the next reference: "&amp;amp;lt;" would else take a pass
 * over all of the text for each. */
static GString *
unescape_html(const char *text, gsize length)
{
  const char *end = text + length;
  GString *out = g_string_sized_new(length);
  g_autoptr(GString) again = g_string_new(NULL);

  while (text < end) {
    gsize n = *text == '&' ? append_reference(out, text, end) : 0;

    if (n == 0) {
      g_string_append_c(out, *text++);
      continue;
    }
    text += n;
    while (out->len > 0 && out->str[out->len - 1] == '&' && text < end) {
      const gsize rest = MIN((gsize) (end - text), MAX_NAME + 2);

      g_string_truncate(again, 0);
      g_string_append_c(again, '&');
      g_string_append_len(again, text, (gssize) rest);
      g_string_truncate(out, out->len - 1);
      n = append_reference(out, again->str, again->str + again->len);
      if (n == 0) {
        g_string_append_c(out, '&');
        break;
      }
      text += n - 1;
    }
  }
  return out;
}

/* Characters */

static const char *
split_ligature(gunichar c)
{
  static const char *const digraphs[] = { "D\xc5\xbd", "D\xc5\xbe", "d\xc5\xbe", "LJ", "Lj",
                                          "lj",        "NJ",        "Nj",        "nj" };
  static const char *const ligatures[] = { "ff", "fi", "fl", "ffi", "ffl", "\xc5\xbft", "st" };

  if (c >= 0x01c4 && c <= 0x01cc)
    return digraphs[c - 0x01c4];
  if (c >= 0xfb00 && c <= 0xfb06)
    return ligatures[c - 0xfb00];
  switch (c) {
  case 0x0132:
    return "IJ";
  case 0x0133:
    return "ij";
  case 0x0149: /* the apostrophe becomes a straight one with the quotes */
    return "'n";
  case 0x01f1:
    return "DZ";
  case 0x01f2:
    return "Dz";
  case 0x01f3:
    return "dz";
  default:
    return NULL;
  }
}

static gboolean
is_quote(gunichar c)
{
  return c == 0x02bc || (c >= 0x2018 && c <= 0x201b);
}

static gboolean
is_double_quote(gunichar c)
{
  return c >= 0x201c && c <= 0x201f;
}

static gboolean
is_line_end(gunichar c)
{
  return c == '\r' || c == 0x2028 || c == 0x2029;
}

/* What nobody types; white space, joiners and marks of direction stay. */
static gboolean
is_unwanted(gunichar c)
{
  return c <= 0x08 || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f ||
         (c >= 0x206a && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

/* A character by itself, before escape sequences are looked for. */
static void
append_fixed(GString *out, gunichar c)
{
  const char *letters;
  char utf8[6];

  c = from_windows_1252(c);
  letters = split_ligature(c);
  if (letters) {
    g_string_append(out, letters);
  } else if (c >= 0xff01 && c <= 0xffef) { /* wide and narrow forms */
    g_autofree char *normal = g_utf8_normalize(utf8, g_unichar_to_utf8(c, utf8), G_NORMALIZE_NFKC);

    g_string_append(out, normal);
  } else if (c == 0x3000) {
    g_string_append_c(out, ' ');
  } else if (is_quote(c)) {
    g_string_append_c(out, '\'');
  } else if (is_double_quote(c)) {
    g_string_append_c(out, '"');
  } else {
    g_string_append_unichar(out, is_line_end(c) ? '\n' : c);
  }
}

static GString *
fix_characters(const char *text, gsize length)
{
  GString *out = g_string_sized_new(length);
  const char *end = text + length;

  while (text < end) {
    const gunichar c = g_utf8_get_char(text);

    text = g_utf8_next_char(text);
    if (c == '\r' && text < end && *text == '\n')
      text++;
    append_fixed(out, c);
  }
  return out;
}

/* Length of an escape sequence at @text: "ESC [ 1 ; 31 m". 0: there is none. */
static gsize
escape_length(const char *text, const char *end)
{
  const char *p = text + 2;

  if (end - text < 3 || text[0] != '\033' || text[1] != '[')
    return 0;
  while (p < end && (*p == ';' || g_unichar_isdigit(g_utf8_get_char(p))))
    p = g_utf8_next_char(p);
  return p < end && g_ascii_isalpha(*p) ? (gsize) (p + 1 - text) : 0;
}

static GString *
remove_control(const char *text, gsize length)
{
  GString *out = g_string_sized_new(length);
  const char *end = text + length;

  while (text < end) {
    const char *next = g_utf8_next_char(text);
    const gsize escape = escape_length(text, end);

    if (escape > 0)
      next = text + escape;
    else if (!is_unwanted(g_utf8_get_char(text)))
      g_string_append_len(out, text, next - text);
    text = next;
  }
  return out;
}

static char *
fix_once(const char *line, gboolean html)
{
  g_autoptr(GString) plain = NULL;
  g_autoptr(GString) fixed = NULL;
  g_autoptr(GString) kept = NULL;

  plain = html ? unescape_html(line, strlen(line)) : g_string_new(line);
  fixed = fix_characters(plain->str, plain->len);
  kept = remove_control(fixed->str, fixed->len);
  return g_utf8_normalize(kept->str, (gssize) kept->len, G_NORMALIZE_NFC);
}

char *
osr_text_clean(const char *text, gsize length)
{
  g_autoptr(GString) out = g_string_sized_new(length);
  const char *end = text + length;
  gboolean html = TRUE; /* until there is a "<", which text that was spelled out does not have */

  while (text < end) {
    const char *newline = memchr(text, '\n', (gsize) (end - text));
    const char *line_end = newline ? newline + 1 : end;
    g_autofree char *line = g_strndup(text, (gsize) (line_end - text));

    html = html && !strchr(line, '<');
    for (;;) {
      char *fixed = fix_once(line, html);
      const gboolean stable = g_str_equal(fixed, line);

      g_free(line);
      line = fixed;
      if (stable)
        break;
    }
    g_string_append(out, line);
    text = line_end;
  }
  return g_string_free(g_steal_pointer(&out), FALSE);
}
