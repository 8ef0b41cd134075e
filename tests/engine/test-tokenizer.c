/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <gio/gio.h>
#include <glib/gstdio.h>
#include <string.h>

#include "error.h"
#include "golden.h"
#include "tokenizer.h"

static const guint golden_lengths[] = { 8, 64, 77, 512 };

static OsrTokenizer *
open_t5(void)
{
  g_autofree char *path = golden_path("tokenizer", "t5", "spiece.model", NULL);
  g_autoptr(GError) error = NULL;
  OsrTokenizer *tokenizer = osr_tokenizer_new_t5(path, &error);

  g_assert_no_error(error);
  return tokenizer;
}

static OsrTokenizer *
open_clip(void)
{
  g_autofree char *vocab = golden_path("tokenizer", "clip", "vocab.json", NULL);
  g_autofree char *merges = golden_path("tokenizer", "clip", "merges.txt", NULL);
  g_autoptr(GError) error = NULL;
  OsrTokenizer *tokenizer = osr_tokenizer_new_clip(vocab, merges, &error);

  g_assert_no_error(error);
  return tokenizer;
}

static gint32 *
encode(OsrTokenizer *tokenizer, const char *text, guint max_length, guint *n_tokens)
{
  g_autoptr(GError) error = NULL;
  gint32 *ids = osr_tokenizer_encode(tokenizer, text, max_length, n_tokens, &error);

  g_assert_no_error(error);
  g_assert_nonnull(ids);
  return ids;
}

static GStrv
read_lines(const char *name)
{
  g_autofree char *path = golden_path("tokenizer", name, NULL);
  g_autofree char *data = NULL;
  g_autoptr(GError) error = NULL;

  g_file_get_contents(path, &data, NULL, &error);
  g_assert_no_error(error);
  g_assert_true(g_str_has_suffix(data, "\n"));
  return g_strsplit(data, "\n", -1);
}

static guint32
fnv1a(const gint32 *ids, guint n)
{
  guint32 hash = 0x811c9dc5;

  for (guint i = 0; i < n; i++) {
    for (guint shift = 0; shift < 32; shift += 8)
      hash = (hash ^ (((guint32) ids[i] >> shift) & 0xff)) * 0x01000193;
  }
  return hash;
}

static void
assert_ids(const char *escaped, const char *expected, const gint32 *ids, guint n)
{
  g_autoptr(GString) got = g_string_new(NULL);

  for (guint i = 0; i < n; i++)
    g_string_append_printf(got, "%s%d", i ? " " : "", ids[i]);
  if (strcmp(got->str, expected) != 0) {
    g_test_message("text: %s", escaped);
    g_assert_cmpstr(got->str, ==, expected);
  }
}

static guint
count_ids(const char *ids)
{
  guint n = 1;

  for (; *ids != '\0'; ids++)
    n += *ids == ' ';
  return n;
}

/* Columns @first and @first + 1 of golden.tsv: all ids, and hashes of the truncated and
 * padded ones. */
static void
check_golden(OsrTokenizer *tokenizer, guint first)
{
  g_auto(GStrv) lines = read_lines("golden.tsv");
  guint n_lines = 0;

  for (; *lines[n_lines] != '\0'; n_lines++) {
    g_auto(GStrv) columns = g_strsplit(lines[n_lines], "\t", -1);
    g_assert_cmpuint(g_strv_length(columns), ==, 5);
    g_autofree char *text = g_strcompress(columns[0]);
    const guint n = count_ids(columns[first]);
    guint n_tokens = 0;

    /* One more than needed: a text that ends in eos loses that where only n fit. */
    g_autofree gint32 *full = encode(tokenizer, text, n + 1, &n_tokens);
    assert_ids(columns[0], columns[first], full, n);
    g_assert_cmpuint(n_tokens, ==, n);

    g_auto(GStrv) hashes = g_strsplit(columns[first + 1], " ", -1);
    for (guint i = 0; i < G_N_ELEMENTS(golden_lengths); i++) {
      g_autofree gint32 *ids = encode(tokenizer, text, golden_lengths[i], &n_tokens);
      g_assert_cmpuint(n_tokens, ==, n);
      g_assert_cmpuint(fnv1a(ids, golden_lengths[i]), ==, g_ascii_strtoull(hashes[i], NULL, 10));
    }
  }
  g_assert_cmpuint(n_lines, >=, 1700);
}

static void
test_t5_golden(void)
{
  g_autoptr(OsrTokenizer) tokenizer = open_t5();

  g_assert_cmpuint(osr_tokenizer_vocab_size(tokenizer), ==, 1010);
  check_golden(tokenizer, 1);
}

static void
test_clip_golden(void)
{
  g_autoptr(OsrTokenizer) tokenizer = open_clip();

  g_assert_cmpuint(osr_tokenizer_vocab_size(tokenizer), ==, 512 + 1500 + 2);
  check_golden(tokenizer, 3);
}

/* The published vocabulary from the one file that holds it all: bytes, bytes at the end of a
 * word, the results of the merges, two special tokens. */
static void
write_full_clip(const char *bpe_path, const char *vocab_path, const char *merges_path)
{
  g_autoptr(GError) error = NULL;
  g_autoptr(GFile) file = g_file_new_for_path(bpe_path);
  g_autoptr(GFileInputStream) packed = g_file_read(file, NULL, &error);
  g_assert_no_error(error);
  g_autoptr(GZlibDecompressor) gunzip = g_zlib_decompressor_new(G_ZLIB_COMPRESSOR_FORMAT_GZIP);
  g_autoptr(GInputStream) stream =
      g_converter_input_stream_new(G_INPUT_STREAM(packed), G_CONVERTER(gunzip));
  g_autoptr(GDataInputStream) lines = g_data_input_stream_new(stream);
  g_autoptr(GString) vocab = g_string_new("{");
  g_autoptr(GString) merges = g_string_new("#version: 0.2\n");
  guint id = 0;

  for (guint last = 0; last < 2; last++) {
    for (guint pass = 0; pass < 2; pass++) { /* printable bytes first */
      gunichar other = 0x100;
      for (guint byte = 0; byte < 256; byte++) {
        const gboolean printable =
            (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
        const gunichar c = printable ? byte : other++;
        if (printable == (pass == 0))
          g_string_append_printf(vocab, "\"\\u%04x%s\":%u,", c, last ? "</w>" : "", id++);
      }
    }
  }
  g_free(g_data_input_stream_read_line(lines, NULL, NULL, NULL));
  for (guint i = 0; i < 49152 - 256 - 2; i++) {
    g_autofree char *line = g_data_input_stream_read_line(lines, NULL, NULL, &error);
    g_assert_no_error(error);
    g_assert_nonnull(line);
    g_string_append_printf(merges, "%s\n", line);
    g_auto(GStrv) parts = g_strsplit(line, " ", -1);
    g_autofree char *token = g_strjoinv(NULL, parts);
    g_string_append_c(vocab, '"');
    for (const char *p = token; *p != '\0'; p++)
      g_string_append_printf(vocab, "%s%c", *p == '"' || *p == '\\' ? "\\" : "", *p);
    g_string_append_printf(vocab, "\":%u,", id++);
  }
  g_string_append_printf(vocab, "\"<|startoftext|>\":%u,\"<|endoftext|>\":%u}", id, id + 1);
  g_file_set_contents(vocab_path, vocab->str, (gssize) vocab->len, &error);
  g_assert_no_error(error);
  g_file_set_contents(merges_path, merges->str, (gssize) merges->len, &error);
  g_assert_no_error(error);
}

static void
test_clip_full(void)
{
  const char *bpe_path = g_getenv("OSR_CLIP_BPE");

  if (bpe_path == NULL) {
    g_test_skip("OSR_CLIP_BPE does not name CLIP's bpe_simple_vocab_16e6.txt.gz");
    return;
  }

  g_autoptr(GError) error = NULL;
  g_autofree char *folder = g_dir_make_tmp("opensora-XXXXXX", &error);
  g_assert_no_error(error);
  g_autofree char *vocab = g_build_filename(folder, "vocab.json", NULL);
  g_autofree char *merges = g_build_filename(folder, "merges.txt", NULL);
  write_full_clip(bpe_path, vocab, merges);
  g_autoptr(OsrTokenizer) tokenizer = osr_tokenizer_new_clip(vocab, merges, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(osr_tokenizer_vocab_size(tokenizer), ==, 49408);

  g_auto(GStrv) lines = read_lines("golden-clip-full.tsv");
  guint n_lines = 0;
  for (; *lines[n_lines] != '\0'; n_lines++) {
    g_auto(GStrv) columns = g_strsplit(lines[n_lines], "\t", -1);
    g_autofree char *text = g_strcompress(columns[0]);
    const guint n = count_ids(columns[1]);
    g_autofree gint32 *ids = encode(tokenizer, text, MAX(n, 2), NULL);
    assert_ids(columns[0], columns[1], ids, n);
  }
  g_assert_cmpuint(n_lines, >=, 500);
  g_remove(vocab);
  g_remove(merges);
  g_rmdir(folder);
}

static void
test_bad_text(void)
{
  static const char *const texts[] = {
    "\xff", "red \xc3(", "\xed\xa0\x80", "\xc0\x80", "circle \xf0\x9f\x99",
  };
  OsrTokenizer *tokenizers[] = { open_t5(), open_clip() };
  for (guint t = 0; t < G_N_ELEMENTS(tokenizers); t++) {
    for (guint i = 0; i < G_N_ELEMENTS(texts); i++) {
      g_autoptr(GError) error = NULL;
      g_assert_null(osr_tokenizer_encode(tokenizers[t], texts[i], 16, NULL, &error));
      g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
      g_assert_nonnull(strstr(error->message, "UTF-8"));
    }
    osr_tokenizer_free(tokenizers[t]);
  }
}

/* Nobody reads the end of a text beyond 256 KiB, but that it is lost is said. */
static void
test_huge_text(void)
{
  enum { LIMIT = 256 << 10, LENGTH = 16 };
  static const char tail[] = " the end \t of it";
  OsrTokenizer *tokenizers[] = { open_t5(), open_clip() };

  for (guint t = 0; t < G_N_ELEMENTS(tokenizers); t++) {
    g_autoptr(GString) words = g_string_new(NULL);
    g_autofree char *spaces = g_strnfill(LIMIT, ' ');
    g_autofree char *lost = g_strconcat(spaces, tail, NULL);
    g_autofree char *nothing_lost = g_strconcat(spaces, "\n  ", NULL);
    guint n_within = 0, n = 0;

    while (words->len < LIMIT - 5)
      g_string_append(words, "red ");
    g_autofree gint32 *within = encode(tokenizers[t], words->str, LENGTH, &n_within);
    /* Four bytes a character, the limit in the middle of one. */
    for (guint i = 0; i < 2; i++)
      g_string_append(words, "\xf0\x9f\x99\x82");
    g_assert_cmpuint(words->len, >, LIMIT);
    g_string_append(words, tail);
    g_autofree gint32 *beyond = encode(tokenizers[t], words->str, LENGTH, &n);
    g_assert_cmpmem(beyond, LENGTH * sizeof *beyond, within, LENGTH * sizeof *within);
    g_assert_cmpuint(n, >, n_within + 4);

    /* The limit leaves almost no tokens of this one, and all of its words are lost. */
    g_free(encode(tokenizers[t], lost, LENGTH, &n));
    g_assert_cmpuint(n, ==, LENGTH + 4);
    g_free(encode(tokenizers[t], nothing_lost, LENGTH, &n));
    g_assert_cmpuint(n, <=, LENGTH);
    osr_tokenizer_free(tokenizers[t]);
  }
}

/* Merging must not be quadratic in a word's length: a naive loop takes minutes here. */
static void
test_long_words(void)
{
  static const char *const units[] = { "a", "spinning", "!?", "\xf0\x9f\x99\x82", "'" };
  g_autoptr(OsrTokenizer) tokenizer = open_clip();

  for (guint i = 0; i < G_N_ELEMENTS(units); i++) {
    g_autoptr(GString) text = g_string_new(NULL);
    while (text->len < 200000)
      g_string_append(text, units[i]);
    guint n_tokens = 0;
    const gint64 start = g_get_monotonic_time();
    g_free(encode(tokenizer, text->str, 77, &n_tokens));
    const double seconds = (double) (g_get_monotonic_time() - start) / G_USEC_PER_SEC;
    g_test_message("%s...: %u tokens, %.3f s", units[i], n_tokens, seconds);
    g_assert_cmpuint(n_tokens, >, 10000);
    g_assert_cmpfloat(seconds, <, 20);
  }
}

/* Nor must what HTML spells out, again and again, be a pass over the text each time. */
static void
test_long_references(void)
{
  g_autoptr(OsrTokenizer) tokenizer = open_clip();
  g_autoptr(GString) text = g_string_new("&");
  g_autofree gint32 *one = encode(tokenizer, "&", 8, NULL);
  guint n_tokens = 0;

  while (text->len < 200000)
    g_string_append(text, "amp;");
  g_autofree gint32 *ids = encode(tokenizer, text->str, 8, &n_tokens);
  g_assert_cmpuint(n_tokens, ==, 3);
  g_assert_cmpmem(ids, 8 * sizeof *ids, one, 8 * sizeof *one);
}

static gpointer
encode_many(gpointer tokenizer)
{
  for (guint i = 0; i < 200; i++) {
    g_autofree char *text = g_strdup_printf("a red circle number %u, moving right", i);
    g_free(encode(tokenizer, text, 64, NULL));
  }
  g_autofree gint32 *ids = encode(tokenizer, "a red circle", 64, NULL);
  return GUINT_TO_POINTER(fnv1a(ids, 64));
}

static void
test_threads(void)
{
  OsrTokenizer *tokenizers[] = { open_t5(), open_clip() };

  for (guint t = 0; t < G_N_ELEMENTS(tokenizers); t++) {
    GThread *threads[4];
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
      threads[i] = g_thread_new("encode", encode_many, tokenizers[t]);
    g_autofree gint32 *ids = encode(tokenizers[t], "a red circle", 64, NULL);
    for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
      g_assert_cmpuint(GPOINTER_TO_UINT(g_thread_join(threads[i])), ==, fnv1a(ids, 64));
    osr_tokenizer_free(tokenizers[t]);
  }
}

static char *
write_temp(const char *folder, const char *name, const char *data, gsize length)
{
  g_autoptr(GError) error = NULL;
  char *path = g_build_filename(folder, name, NULL);

  g_file_set_contents(path, data, (gssize) length, &error);
  g_assert_no_error(error);
  return path;
}

static void
assert_message(GError *error, const char *path, const char *part)
{
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE);
  if (!strstr(error->message, path) || !strstr(error->message, part))
    g_error("\"%s\" names neither %s nor \"%s\"", error->message, path, part);
}

static void
test_t5_bad_files(void)
{
  g_autoptr(GError) error = NULL;
  g_autofree char *folder = g_dir_make_tmp("opensora-XXXXXX", NULL);
  g_autofree char *source = golden_path("tokenizer", "t5", "spiece.model", NULL);
  g_autofree char *model = NULL;
  gsize length;

  g_assert_null(osr_tokenizer_new_t5("/nonexistent/spiece.model", &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
  g_clear_error(&error);

  g_assert_true(g_file_get_contents(source, &model, &length, NULL));
  for (guint cut = 0; cut < 5; cut++) {
    g_autofree char *path = write_temp(folder, "spiece.model", model, cut * length / 6);
    g_assert_null(osr_tokenizer_new_t5(path, &error));
    assert_message(error, path, "not a SentencePiece model");
    g_clear_error(&error);
  }

  /* Noise over the character map, which makes up most of the file. */
  g_autofree char *noise = g_memdup2(model, length);
  guint32 state = 1;
  for (gsize i = length / 4; i < length / 2; i++) {
    state = state * 1664525 + 1013904223;
    noise[i] = (char) (state >> 24);
  }
  g_autofree char *noise_path = write_temp(folder, "spiece.model", noise, length);
  g_assert_null(osr_tokenizer_new_t5(noise_path, &error));
  assert_message(error, noise_path, "character map is damaged");
  g_clear_error(&error);

  /* Without a padding piece. */
  char *pad = memmem(model, length, "<pad>", 5);
  g_assert_nonnull(pad);
  memcpy(pad, "<qad>", 5);
  g_autofree char *path = write_temp(folder, "spiece.model", model, length);
  g_assert_null(osr_tokenizer_new_t5(path, &error));
  assert_message(error, path, "no padding piece");
  g_clear_error(&error);
  memcpy(pad, "<pad>", 5);
  g_free(write_temp(folder, "spiece.model", model, length));

  static const struct {
    const char *config, *message;
    guint vocab_size;
  } configs[] = {
    { "{}", NULL, 1100 },
    { "{\"extra_ids\": 3, \"x\": [1, {\"extra_ids\": 9}]}", NULL, 1003 },
    { "{\"extra_ids\": -1}", "integer", 0 },
    { "{\"extra_ids\": 1000000}", "extra_ids", 0 },
    { "{\"extra_ids\": \"7\"}", "integer", 0 },
    { "[]", "object", 0 },
    { "{\"extra_ids\": 3", "", 0 },
    { "\xff", "UTF-8", 0 },
  };
  g_autofree char *config = g_build_filename(folder, "tokenizer_config.json", NULL);
  for (guint i = 0; i < G_N_ELEMENTS(configs); i++) {
    g_free(
        write_temp(folder, "tokenizer_config.json", configs[i].config, strlen(configs[i].config)));
    g_autoptr(OsrTokenizer) tokenizer = osr_tokenizer_new_t5(path, &error);
    if (configs[i].message == NULL) {
      g_assert_no_error(error);
      g_assert_cmpuint(osr_tokenizer_vocab_size(tokenizer), ==, configs[i].vocab_size);
    } else {
      g_assert_null(tokenizer);
      assert_message(error, config, configs[i].message);
      g_clear_error(&error);
    }
  }
  g_remove(config);
  g_remove(path);
  g_rmdir(folder);
}

static char *
replace(const char *text, const char *find, const char *with)
{
  g_autoptr(GString) copy = g_string_new(text);

  if (find)
    g_assert_cmpuint(g_string_replace(copy, find, with, 1), ==, 1);
  return g_string_free(g_steal_pointer(&copy), FALSE);
}

static void
test_clip_bad_files(void)
{
  static const struct {
    const char *vocab_find, *vocab_replace, *merges_find, *merges_replace, *message;
  } cases[] = {
    { "\"!\": 0", "\"!\": 1", NULL, NULL, "id 1 of" },
    { "\"!\": 0", "\"!\": 4000", NULL, NULL, "id 4000 of \"!\" is out of range" },
    { "\"!\": 0", "\"!\": -1", NULL, NULL, "integer" },
    { "\"!\": 0", "\"!\": \"0\"", NULL, NULL, "integer" },
    { "\"!\": 0", "\"!\": 99999999999", NULL, NULL, "too large" },
    { "\"!\": 0", "\"!\": 99999999999999999999999", NULL, NULL, "too large" },
    { "\"!\": 0", "\"#\": 0", NULL, NULL, "twice" },
    { "\"!\": 0", "\"!!!\": 0", NULL, NULL, "the symbol of byte 0x21" },
    { "\"A</w>\":", "\"AA</w>\":", NULL, NULL, "the symbol of byte 0x41" },
    { "<|endoftext|>", "<|end|>", NULL, NULL, "\"<|endoftext|>\" is missing" },
    { "<|startoftext|>", "<|start|>", NULL, NULL, "\"<|startoftext|>\" is missing" },
    { "{", "[", NULL, NULL, "object" },
    { "2013}", "2013", NULL, NULL, "offset" },
    { "2013}", "2013} 1", NULL, NULL, "follows" },
    { NULL, NULL, "\ng r\n", "\nt\n", ":3: merge \"t\" is not two tokens" },
    { NULL, NULL, "\ng r\n", "\nt h e\n", "is not two tokens" },
    { NULL, NULL, "\ng r\n", "\n\n", "is not two tokens" },
    { NULL, NULL, "\ng r\n", "\ng r\nt h\n", "is there twice" },
    { NULL, NULL, "\ng r\n", "\nt !\n", "that the vocabulary lacks" },
    { NULL, NULL, "\ng r\n", "\nzzz h\n", "that the vocabulary lacks" },
    { NULL, NULL, "\ng r\n", "\n\xff h\n", "UTF-8" },
  };
  g_autofree char *folder = g_dir_make_tmp("opensora-XXXXXX", NULL);
  g_autofree char *vocab_path = golden_path("tokenizer", "clip", "vocab.json", NULL);
  g_autofree char *merges_path = golden_path("tokenizer", "clip", "merges.txt", NULL);
  g_autofree char *vocab = NULL;
  g_autofree char *merges = NULL;
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_tokenizer_new_clip("/nonexistent/vocab.json", merges_path, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
  g_clear_error(&error);
  g_assert_null(osr_tokenizer_new_clip(vocab_path, "/nonexistent/merges.txt", &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
  g_clear_error(&error);

  g_assert_true(g_file_get_contents(vocab_path, &vocab, NULL, NULL));
  g_assert_true(g_file_get_contents(merges_path, &merges, NULL, NULL));
  for (guint i = 0; i < G_N_ELEMENTS(cases); i++) {
    g_autofree char *bad_vocab = replace(vocab, cases[i].vocab_find, cases[i].vocab_replace);
    g_autofree char *bad_merges = replace(merges, cases[i].merges_find, cases[i].merges_replace);
    g_autofree char *a = write_temp(folder, "vocab.json", bad_vocab, strlen(bad_vocab));
    g_autofree char *b = write_temp(folder, "merges.txt", bad_merges, strlen(bad_merges));
    g_assert_null(osr_tokenizer_new_clip(a, b, &error));
    assert_message(error, cases[i].vocab_find ? a : b, cases[i].message);
    g_clear_error(&error);
    g_remove(a);
    g_remove(b);
  }
  g_rmdir(folder);
}

/* Line ends of other systems change nothing. */
static void
test_clip_crlf(void)
{
  g_autofree char *folder = g_dir_make_tmp("opensora-XXXXXX", NULL);
  g_autofree char *vocab_path = golden_path("tokenizer", "clip", "vocab.json", NULL);
  g_autofree char *merges_path = golden_path("tokenizer", "clip", "merges.txt", NULL);
  g_autofree char *merges = NULL;
  g_autoptr(GError) error = NULL;

  g_assert_true(g_file_get_contents(merges_path, &merges, NULL, NULL));
  g_auto(GStrv) lines = g_strsplit(merges, "\n", -1);
  g_autofree char *crlf = g_strjoinv("\r\n", lines);
  g_autofree char *path = write_temp(folder, "merges.txt", crlf, strlen(crlf));
  g_autoptr(OsrTokenizer) tokenizer = osr_tokenizer_new_clip(vocab_path, path, &error);
  g_assert_no_error(error);
  g_autoptr(OsrTokenizer) plain = open_clip();
  g_autofree gint32 *a = encode(tokenizer, "a red circle, spinning", 32, NULL);
  g_autofree gint32 *b = encode(plain, "a red circle, spinning", 32, NULL);
  g_assert_cmpmem(a, 32 * sizeof *a, b, 32 * sizeof *b);
  g_remove(path);
  g_rmdir(folder);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/tokenizer/t5/golden", test_t5_golden);
  g_test_add_func("/tokenizer/t5/bad-files", test_t5_bad_files);
  g_test_add_func("/tokenizer/clip/golden", test_clip_golden);
  g_test_add_func("/tokenizer/clip/full-vocabulary", test_clip_full);
  g_test_add_func("/tokenizer/clip/bad-files", test_clip_bad_files);
  g_test_add_func("/tokenizer/clip/crlf", test_clip_crlf);
  g_test_add_func("/tokenizer/clip/long-words", test_long_words);
  g_test_add_func("/tokenizer/clip/long-references", test_long_references);
  g_test_add_func("/tokenizer/bad-text", test_bad_text);
  g_test_add_func("/tokenizer/huge-text", test_huge_text);
  g_test_add_func("/tokenizer/threads", test_threads);
  return g_test_run();
}
