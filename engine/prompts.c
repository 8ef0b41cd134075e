/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "prompts.h"

#include <string.h>

#include "text-private.h"

#define BYTE_ORDER_MARK "\xef\xbb\xbf"

void
osr_prompt_free(OsrPrompt *prompt)
{
  if (prompt == NULL)
    return;
  g_free(prompt->text);
  g_free(prompt->neg);
  g_free(prompt->ref);
  g_free(prompt);
}

/* Text: a prompt a line */

static void
parse_text(const char *data, GPtrArray *prompts)
{
  while (*data != '\0') {
    const char *line_end = data + strcspn(data, "\r\n");
    const char *start = osr_text_skip_space(data, line_end);
    const char *end = osr_text_trim_end(start, line_end);
    if (start < end && *start != '#') {
      OsrPrompt *prompt = g_new0(OsrPrompt, 1);
      prompt->text = g_strndup(start, end - start);
      g_ptr_array_add(prompts, prompt);
    }
    data = line_end + strspn(line_end, "\r\n");
  }
}

/* CSV: RFC 4180 */

typedef struct {
  const char *at;
  guint row; /* of the record that is read, counted as a spreadsheet does: the header is 1 */
  const char *name;
} CsvReader;

G_GNUC_PRINTF(3, 4)
static gboolean
csv_fail(const CsvReader *reader, GError **error, const char *format, ...)
{
  va_list args;

  va_start(args, format);
  g_autofree char *reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: row %u: %s", reader->name, reader->row,
              reason);
  return FALSE;
}

static gboolean
is_field_end(char c)
{
  return c == ',' || c == '\r' || c == '\n' || c == '\0';
}

/* "..." with "" for a quote inside; everything else stands for itself. */
static char *
read_quoted(CsvReader *reader, GError **error)
{
  g_autoptr(GString) field = g_string_new(NULL);

  for (;;) {
    reader->at++;
    const gsize n = strcspn(reader->at, "\"");
    g_string_append_len(field, reader->at, (gssize) n);
    reader->at += n;
    if (*reader->at == '\0') {
      csv_fail(reader, error, "a quoted field has no closing quote");
      return NULL;
    }
    reader->at++;
    if (*reader->at != '"')
      break;
    g_string_append_c(field, '"');
  }
  if (!is_field_end(*reader->at)) {
    csv_fail(reader, error, "text after the closing quote of a field");
    return NULL;
  }
  return g_string_free(g_steal_pointer(&field), FALSE);
}

static char *
read_field(CsvReader *reader, GError **error)
{
  if (*reader->at == '"')
    return read_quoted(reader, error);

  const gsize n = strcspn(reader->at, ",\r\n");
  if (memchr(reader->at, '"', n)) {
    csv_fail(reader, error, "a quote inside a field that does not start with one");
    return NULL;
  }
  char *field = g_strndup(reader->at, n);
  reader->at += n;
  return field;
}

/* The fields (char *) of the next record that is not an empty line; none at the end. */
static GPtrArray *
read_record(CsvReader *reader, GError **error)
{
  g_autoptr(GPtrArray) fields = g_ptr_array_new_with_free_func(g_free);

  for (;;) {
    reader->row++;
    if (*reader->at != '\r' && *reader->at != '\n')
      break;
    reader->at += g_str_has_prefix(reader->at, "\r\n") ? 2 : 1;
  }
  while (*reader->at != '\0') {
    char *field = read_field(reader, error);
    if (field == NULL)
      return NULL;
    g_ptr_array_add(fields, field);
    if (*reader->at != ',') {
      if (*reader->at != '\0')
        reader->at += g_str_has_prefix(reader->at, "\r\n") ? 2 : 1;
      break;
    }
    reader->at++;
    if (*reader->at == '\0') /* a comma ends the file: one more field, empty */
      g_ptr_array_add(fields, g_strdup(""));
  }
  return g_steal_pointer(&fields);
}

/* Index of a column, -1 if there is none. */
static gboolean
find_column(const CsvReader *reader, GPtrArray *header, const char *name, gint *column,
            GError **error)
{
  *column = -1;
  for (guint i = 0; i < header->len; i++) {
    g_autofree char *found = g_strstrip(g_strdup(g_ptr_array_index(header, i)));
    if (!g_str_equal(found, name))
      continue;
    if (*column >= 0)
      return csv_fail(reader, error, "two columns are named \"%s\"", name);
    *column = (gint) i;
  }
  return TRUE;
}

/* A field of nothing but white space is as good as none. */
static char *
take_field(GPtrArray *record, gint column)
{
  if (column < 0)
    return NULL;
  const char *field = g_ptr_array_index(record, column);
  const char *end = field + strlen(field);
  return osr_text_skip_space(field, end) < end ? g_strdup(field) : NULL;
}

static gboolean
parse_csv(const char *data, const char *name, GPtrArray *prompts, GError **error)
{
  CsvReader reader = { .at = data, .row = 0, .name = name };
  gint text, neg, ref;

  g_autoptr(GPtrArray) header = read_record(&reader, error);
  if (header == NULL)
    return FALSE;
  if (!find_column(&reader, header, "text", &text, error) ||
      !find_column(&reader, header, "neg", &neg, error) ||
      !find_column(&reader, header, "ref", &ref, error))
    return FALSE;
  if (text < 0)
    return csv_fail(&reader, error, "the header has no column \"text\"");

  for (;;) {
    g_autoptr(GPtrArray) record = read_record(&reader, error);
    if (record == NULL)
      return FALSE;
    if (record->len == 0)
      return TRUE;
    if (record->len != header->len)
      return csv_fail(&reader, error, "%u fields, the header has %u", record->len, header->len);

    OsrPrompt *prompt = g_new0(OsrPrompt, 1);
    g_ptr_array_add(prompts, prompt);
    prompt->text = take_field(record, text);
    prompt->neg = take_field(record, neg);
    prompt->ref = take_field(record, ref);
    if (prompt->text == NULL)
      return csv_fail(&reader, error, "the text is empty");
  }
}

GPtrArray *
osr_prompts_parse(const char *data, gssize length, gboolean csv, const char *name, GError **error)
{
  g_autoptr(GPtrArray) prompts = g_ptr_array_new_with_free_func((GDestroyNotify) osr_prompt_free);

  g_return_val_if_fail(data != NULL && name != NULL, NULL);

  const gsize size = length < 0 ? strlen(data) : (gsize) length;
  if (!osr_text_check_utf8(data, size, name, error))
    return NULL;
  g_autofree char *copy = g_strndup(data, size);
  const char *start = copy + (g_str_has_prefix(copy, BYTE_ORDER_MARK) ? 3 : 0);
  if (csv) {
    if (!parse_csv(start, name, prompts, error))
      return NULL;
  } else {
    parse_text(start, prompts);
  }
  if (prompts->len == 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: holds no prompt", name);
    return NULL;
  }
  return g_steal_pointer(&prompts);
}

GPtrArray *
osr_prompts_read(const char *path, GError **error)
{
  g_autofree char *data = NULL;
  gsize length;

  g_return_val_if_fail(path != NULL, NULL);

  const gsize n = strlen(path);
  const gboolean csv = n >= 4 && g_ascii_strcasecmp(path + n - 4, ".csv") == 0;
  if (!osr_file_read(path, &data, &length, error))
    return NULL;
  return osr_prompts_parse(data, (gssize) length, csv, path, error);
}

/* Decoration */

/* Whether the text ends in "<digit> FPS."; digits of any script count. */
static gboolean
ends_in_fps(GString *text)
{
  static const char ending[] = " FPS.";
  const gsize n = sizeof ending - 1;

  if (text->len <= n || !g_str_has_suffix(text->str, ending))
    return FALSE;
  return g_unichar_isdigit(g_utf8_get_char(g_utf8_prev_char(text->str + text->len - n)));
}

char *
osr_prompt_decorate(const char *text, guint fps, guint motion_score)
{
  g_return_val_if_fail(text != NULL, NULL);

  /* Cannot be looked into; the tokenizer will say what is wrong with it. */
  if (!g_utf8_validate(text, -1, NULL))
    return g_strdup(text);

  const char *end = text + strlen(text);
  const char *start = osr_text_skip_space(text, end);
  end = osr_text_trim_end(start, end);
  GString *out = g_string_new_len(start, end - start);
  if (!g_str_has_suffix(out->str, "."))
    g_string_append_c(out, '.');
  if (fps > 0 && !ends_in_fps(out))
    g_string_append_printf(out, " %u FPS.", fps);
  if (motion_score > 0)
    g_string_append_printf(out, " %u motion score.", motion_score);
  return g_string_free(out, FALSE);
}
