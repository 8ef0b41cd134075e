/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Both tokenizers on any text, and the readers of CLIP's vocab.json and merges.txt. An input
 * that starts with 'v' holds vocabulary entries up to a '#', then merges; any other is text.
 * See meson.build for how to run it under libFuzzer.
 */
#include <stdint.h>
#include <string.h>

#include "error.h"
#include "tokenizer-private.h"

#define N_BASE_TOKENS 514 /* of build_vocab() without entries */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* CLIP's vocab.json with the symbols of the bytes, the special tokens and @entries. */
static char *
build_vocab(const char *entries)
{
  GString *vocab = g_string_new("{");
  guint id = 0;

  for (guint last = 0; last < 2; last++) {
    gunichar next = 0x100;
    for (guint byte = 0; byte < 256; byte++) {
      const gboolean printable =
          (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
      g_string_append_printf(vocab, "\"\\u%04x%s\": %u,\n", printable ? byte : next++,
                             last ? "</w>" : "", id++);
    }
  }
  g_string_append_printf(vocab, "\"<|startoftext|>\": %u, \"<|endoftext|>\": %u", id, id + 1);
  g_string_append_printf(vocab, "%s%s}", *entries ? ", " : "", entries);
  return g_string_free(vocab, FALSE);
}

static OsrTokenizer *
make_clip(const char *entries, const char *merges, GError **error)
{
  g_autofree char *vocab = build_vocab(entries);

  return osr_tokenizer_new_clip_from_data(vocab, strlen(vocab), "vocab.json", merges,
                                          strlen(merges), "merges.txt", error);
}

/* A piece of a SentencePiece model, in protocol buffers' wire format: text, score, type. */
static void
add_piece(GByteArray *model, const char *text, float score, guint8 type)
{
  const guint8 length = (guint8) strlen(text);
  const guint8 head[] = { 0x0a, length + 9, 0x0a, length };
  const guint8 score_tag = 0x15, tail[] = { 0x18, type };
  union {
    float f;
    guint32 bits;
  } value = { .f = score };

  value.bits = GUINT32_TO_LE(value.bits);
  g_byte_array_append(model, head, sizeof head);
  g_byte_array_append(model, (const guint8 *) text, length);
  g_byte_array_append(model, &score_tag, 1);
  g_byte_array_append(model, (const guint8 *) &value.bits, 4);
  g_byte_array_append(model, tail, sizeof tail);
}

static OsrTokenizer *
make_t5(void)
{
  static const char *const pieces[] = {
    "\xe2\x96\x81", "\xe2\x96\x81the", "t", "h", "e", "th", "a", "aa", "aaa", "s", "'", "!",
    "!!",           "\xc3\xa9",        "0"
  };
  enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3 };
  g_autoptr(GByteArray) model = g_byte_array_new();
  g_autoptr(GError) error = NULL;

  add_piece(model, "<pad>", 0, CONTROL);
  add_piece(model, "</s>", 0, CONTROL);
  add_piece(model, "<unk>", 0, UNKNOWN);
  for (guint i = 0; i < G_N_ELEMENTS(pieces); i++)
    add_piece(model, pieces[i], -1 - (float) i / 8, NORMAL);
  OsrTokenizer *tokenizer =
      osr_tokenizer_new_t5_from_data((const char *) model->data, model->len, 12, "model", &error);
  g_assert_no_error(error);
  return tokenizer;
}

static void
try_text(OsrTokenizer *tokenizer, const char *text)
{
  const guint vocab_size = osr_tokenizer_vocab_size(tokenizer);
  g_autoptr(GError) error = NULL;
  guint n, again;
  g_autofree gint32 *ids = osr_tokenizer_encode(tokenizer, text, 8, &n, &error);

  if (ids == NULL) {
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
    g_assert_false(g_utf8_validate(text, -1, NULL));
    return;
  }
  g_assert_no_error(error);
  g_assert_true(g_utf8_validate(text, -1, NULL));

  /* All of it: in range, closed by eos, and what the short one starts with. */
  g_autofree gint32 *all = osr_tokenizer_encode(tokenizer, text, n + 1, &again, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(again, ==, n);
  g_assert_cmpint(all[n - 1], ==, tokenizer->eos);
  g_assert_cmpint(all[n], ==, tokenizer->pad);
  for (guint i = 0; i < n; i++)
    g_assert_true(all[i] >= 0 && (guint) all[i] < vocab_size);
  for (guint i = 0; i + 1 < MIN(n, 8); i++)
    g_assert_cmpint(ids[i], ==, all[i]);
}

static void
try_vocab(const char *text)
{
  g_auto(GStrv) parts = g_strsplit(text, "#", 2);
  g_autofree char *merges = g_strconcat("#\n", parts[0] ? parts[1] : NULL, NULL);
  const char *entries = parts[0] ? parts[0] : "";
  g_autoptr(GError) error = NULL;
  g_autoptr(OsrTokenizer) tokenizer = make_clip(entries, merges, &error);

  if (tokenizer != NULL) {
    g_assert_no_error(error);
    g_assert_cmpuint(osr_tokenizer_vocab_size(tokenizer), >=, N_BASE_TOKENS);
    try_text(tokenizer, text);
  } else {
    g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
    g_assert_true(g_utf8_validate(error->message, -1, NULL));
  }

  /* As the whole file, too, where the bytes' symbols are missing at the latest. */
  g_autoptr(GError) reason = NULL;
  g_assert_null(osr_tokenizer_new_clip_from_data(text, strlen(text), "vocab.json", "", 0,
                                                 "merges.txt", &reason));
  g_assert_error(reason, OSR_ERROR, OSR_ERROR_INVALID_FILE);
  g_assert_true(g_utf8_validate(reason->message, -1, NULL));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  static OsrTokenizer *clip, *t5;
  g_autofree char *text = g_strndup((const char *) data, size);

  if (clip == NULL) {
    g_autoptr(GError) error = NULL;
    clip = make_clip("\"th\": 514, \"the</w>\": 515, \"aa\": 516, \"aaaa\": 517, \"'s</w>\": 518,"
                     "\"!!\": 519, \"ab\": 520, \"abb\": 521, \"abb</w>\": 522, \"bb</w>\": 523",
                     "#\nt h\nth e</w>\nab b\na a\naa aa\n' s</w>\n! !\na b\nb b</w>\na bb</w>\n",
                     &error);
    g_assert_no_error(error);
    t5 = make_t5();
  }
  if (size > 0 && *data == 'v') {
    try_vocab(text + 1);
  } else {
    try_text(clip, text);
    try_text(t5, text);
  }
  return 0;
}
