/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The readers of prompt files, text and CSV, and the decoration of prompts. See meson.build
 * for how to run it under libFuzzer.
 */
#include <stdint.h>
#include <string.h>

#include "error.h"
#include "prompts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
append_quoted(GString *csv, const char *field)
{
  g_string_append_c(csv, '"');
  for (const char *p = field ? field : ""; *p != '\0'; p++)
    g_string_append_printf(csv, *p == '"' ? "\"\"" : "%c", *p);
  g_string_append_c(csv, '"');
}

/* Written as CSV and read again they are the same. */
static void
check_round_trip(GPtrArray *prompts)
{
  g_autoptr(GString) csv = g_string_new("neg,text,ref\r\n");
  g_autoptr(GError) error = NULL;

  for (guint i = 0; i < prompts->len; i++) {
    const OsrPrompt *prompt = g_ptr_array_index(prompts, i);
    append_quoted(csv, prompt->neg);
    g_string_append_c(csv, ',');
    append_quoted(csv, prompt->text);
    g_string_append_c(csv, ',');
    append_quoted(csv, prompt->ref);
    g_string_append(csv, "\r\n");
  }
  g_autoptr(GPtrArray) again =
      osr_prompts_parse(csv->str, (gssize) csv->len, TRUE, "again", &error);
  g_assert_no_error(error);
  g_assert_cmpuint(again->len, ==, prompts->len);
  for (guint i = 0; i < prompts->len; i++) {
    const OsrPrompt *a = g_ptr_array_index(prompts, i), *b = g_ptr_array_index(again, i);
    g_assert_cmpstr(a->text, ==, b->text);
    g_assert_cmpstr(a->neg, ==, b->neg);
    g_assert_cmpstr(a->ref, ==, b->ref);
  }
}

static void
try(const char *data, gsize size, gboolean csv)
{
  g_autoptr(GError) error = NULL;
  g_autoptr(GPtrArray) prompts = osr_prompts_parse(data, (gssize) size, csv, "fuzz", &error);

  if (prompts == NULL) {
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
    g_assert_true(g_str_has_prefix(error->message, "fuzz: "));
    g_assert_true(g_utf8_validate(error->message, -1, NULL));
    return;
  }
  g_assert_no_error(error);
  g_assert_cmpuint(prompts->len, >, 0);
  for (guint i = 0; i < prompts->len; i++) {
    const OsrPrompt *prompt = g_ptr_array_index(prompts, i);
    g_assert_true(*prompt->text != '\0' && g_utf8_validate(prompt->text, -1, NULL));
    g_autofree char *decorated = osr_prompt_decorate(prompt->text, 24, 4);
    g_assert_true(g_str_has_suffix(decorated, " FPS. 4 motion score."));
    g_assert_true(g_utf8_validate(decorated, -1, NULL));
  }
  check_round_trip(prompts);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  g_autofree char *text = g_strndup((const char *) data, size);

  try((const char *) data, size, FALSE);
  try((const char *) data, size, TRUE);
  g_free(osr_prompt_decorate(text, 16, 0));
  return 0;
}
