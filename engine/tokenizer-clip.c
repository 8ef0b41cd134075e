/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * CLIP's tokenizer: text is cleaned and lower-cased, cut into words, and each word's UTF-8
 * bytes are merged pair by pair (R. Sennrich et al., arXiv:1508.07909).
 *
 * Hugging Face's slow CLIPTokenizer cleans text with ftfy where that is installed and with
 * BERT's basic tokenizer where it is not. This is the first way, as upstream requires ftfy.
 */
#include <string.h>

#include "json-private.h"
#include "text-clean.h"
#include "text-private.h"
#include "tokenizer-private.h"

#define BOS_TOKEN "<|startoftext|>"
#define EOS_TOKEN "<|endoftext|>"
#define END_OF_WORD "</w>"
/* How many merges CLIPTokenizer reads, however many the file has. */
#define MAX_MERGES (49152 - 256 - 2)

typedef struct {
  gint64 pair; /* ids of the two symbols, see make_pair() */
  guint32 rank;
  gint32 id; /* of the two joined */
} Merge;

typedef struct {
  OsrTokenizer base;
  gint32 byte_ids[2][256]; /* of a byte inside a word, and as its last */
  Merge *merges;
  GHashTable *by_pair; /* &merge->pair -> merge */
} OsrClipTokenizer;

/* A symbol of the word that is being merged: a list in an array. */
typedef struct {
  gint32 id; /* -1: merged into the symbol before it */
  guint32 previous, next;
} Symbol;

#define NO_SYMBOL G_MAXUINT32

/* Byte-pair encoding */

static gint64
make_pair(gint32 left, gint32 right)
{
  return ((gint64) left << 32) | (guint32) right;
}

/* g_int64_hash() would fold left and right ids, both small, onto each other. */
static guint
pair_hash(gconstpointer pair)
{
  return (guint) ((*(const guint64 *) pair * G_GUINT64_CONSTANT(0x9e3779b97f4a7c15)) >> 32);
}

static const Merge *
lookup_merge(OsrClipTokenizer *self, const Symbol *symbols, guint32 left)
{
  if (symbols[left].id < 0 || symbols[left].next == NO_SYMBOL)
    return NULL;
  const gint64 pair = make_pair(symbols[left].id, symbols[symbols[left].next].id);
  return g_hash_table_lookup(self->by_pair, &pair);
}

/* A binary heap of (rank, position), least first. */
static void
heap_push(GArray *heap, guint64 value)
{
  g_array_append_val(heap, value);
  guint64 *a = (guint64 *) (gpointer) heap->data;
  guint i = heap->len - 1;
  for (; i > 0 && a[(i - 1) / 2] > value; i = (i - 1) / 2)
    a[i] = a[(i - 1) / 2];
  a[i] = value;
}

static void
heap_pop(GArray *heap)
{
  guint64 *a = (guint64 *) (gpointer) heap->data;
  const guint n = heap->len - 1;
  const guint64 value = a[n];
  guint i = 0;
  for (guint child; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && a[child + 1] < a[child])
      child++;
    if (a[child] >= value)
      break;
    a[i] = a[child];
  }
  a[i] = value;
  g_array_set_size(heap, n);
}

static void
push_pair(OsrClipTokenizer *self, const Symbol *symbols, guint32 left, GArray *values)
{
  const Merge *merge = lookup_merge(self, symbols, left);

  if (merge != NULL) {
    const guint64 value = ((guint64) merge->rank << 32) | left;
    g_array_append_val(values, value);
  }
}

static void
join(Symbol *symbols, guint32 left, gint32 id)
{
  const guint32 right = symbols[left].next;

  symbols[left].id = id;
  symbols[left].next = symbols[right].next;
  symbols[right].id = -1;
  if (symbols[left].next != NO_SYMBOL)
    symbols[symbols[left].next].previous = left;
}

/* Merges the pair of the lowest rank wherever it occurs, from left to right, then looks for
 * the lowest rank again. The pairs that a pass makes must not be merged within it: only when
 * it is over do they go into the heap. O(n log n) in the word's length. */
static void
merge_symbols(OsrClipTokenizer *self, Symbol *symbols, guint32 n)
{
  g_autoptr(GArray) heap = g_array_new(FALSE, FALSE, sizeof(guint64));
  g_autoptr(GArray) fresh = g_array_new(FALSE, FALSE, sizeof(guint64));

  for (guint32 i = 0; i < n; i++)
    push_pair(self, symbols, i, fresh);
  while (heap->len > 0 || fresh->len > 0) {
    for (guint i = 0; i < fresh->len; i++)
      heap_push(heap, g_array_index(fresh, guint64, i));
    g_array_set_size(fresh, 0);

    const guint32 rank = (guint32) (g_array_index(heap, guint64, 0) >> 32);
    while (heap->len > 0 && g_array_index(heap, guint64, 0) >> 32 == rank) {
      const guint32 left = (guint32) g_array_index(heap, guint64, 0);
      heap_pop(heap);
      const Merge *merge = lookup_merge(self, symbols, left);
      if (merge == NULL || merge->rank != rank)
        continue; /* a neighbour was merged meanwhile */
      join(symbols, left, merge->id);
      if (symbols[left].previous != NO_SYMBOL)
        push_pair(self, symbols, symbols[left].previous, fresh);
      push_pair(self, symbols, left, fresh);
    }
  }
}

static void
encode_word(OsrClipTokenizer *self, const char *word, gsize length, GArray *ids)
{
  g_autofree Symbol *symbols = g_new(Symbol, length);
  const guint32 n = (guint32) length;

  for (guint32 i = 0; i < n; i++) {
    symbols[i].id = self->byte_ids[i + 1 == n][(guchar) word[i]];
    symbols[i].previous = i == 0 ? NO_SYMBOL : i - 1;
    symbols[i].next = i + 1 == n ? NO_SYMBOL : i + 1;
  }
  merge_symbols(self, symbols, n);
  for (guint32 i = 0; i != NO_SYMBOL; i = symbols[i].next)
    g_array_append_val(ids, symbols[i].id);
}

/* Cleaning */

/* White space at the ends goes, any other becomes a space. */
static char *
clean_text(const char *text, gsize length)
{
  g_autofree char *clean = osr_text_clean(text, length);
  g_autoptr(GString) out = g_string_sized_new(strlen(clean));
  const char *end = clean + strlen(clean);

  end = osr_text_trim_end(clean, end);
  for (const char *p = osr_text_skip_space(clean, end); p < end;) {
    const char *next = osr_text_skip_space(p, end);

    if (next > p) {
      g_string_append_c(out, ' ');
    } else {
      next = g_utf8_next_char(p);
      g_string_append_len(out, p, next - p);
    }
    p = next;
  }
  return g_string_free(g_steal_pointer(&out), FALSE);
}

/* Unicode's Case_Ignorable. */
static gboolean
is_case_ignorable(gunichar c)
{
  switch (g_unichar_type(c)) {
  case G_UNICODE_NON_SPACING_MARK:
  case G_UNICODE_ENCLOSING_MARK:
  case G_UNICODE_FORMAT:
  case G_UNICODE_MODIFIER_LETTER:
  case G_UNICODE_MODIFIER_SYMBOL:
    return TRUE;
  default:
    break;
  }
  switch (c) {
  case '\'':
  case '.':
  case ':':
  case 0x00b7:
  case 0x0387:
  case 0x055f:
  case 0x05f4:
  case 0x2018:
  case 0x2019:
  case 0x2024:
  case 0x2027:
  case 0xfe13:
  case 0xfe52:
  case 0xfe55:
  case 0xff07:
  case 0xff0e:
  case 0xff1a:
    return TRUE;
  default:
    return FALSE;
  }
}

/* Unicode's Cased, less what is Case_Ignorable too. */
static gboolean
is_cased(gunichar c)
{
  switch (g_unichar_type(c)) {
  case G_UNICODE_LOWERCASE_LETTER:
  case G_UNICODE_UPPERCASE_LETTER:
  case G_UNICODE_TITLECASE_LETTER:
    return TRUE;
  default:
    return c == 0x00aa || c == 0x00ba || (c >= 0x2160 && c <= 0x217f) ||
           (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) ||
           (c >= 0x1f150 && c <= 0x1f169) || (c >= 0x1f170 && c <= 0x1f189);
  }
}

/* Whether the capital sigma at @p ends a word (Unicode's Final_Sigma). */
static gboolean
is_final_sigma(const char *text, const char *p)
{
  const char *before = p;
  gunichar c = 0;

  while (before > text) {
    before = g_utf8_prev_char(before);
    c = g_utf8_get_char(before);
    if (!is_case_ignorable(c))
      break;
  }
  if (!is_cased(c))
    return FALSE;
  const char *after = g_utf8_next_char(p);
  while (*after != '\0' && is_case_ignorable(g_utf8_get_char(after)))
    after = g_utf8_next_char(after);
  return *after == '\0' || !is_cased(g_utf8_get_char(after));
}

static gunichar
lower_char(gunichar c)
{
  /* Roman numerals and circled letters have cases, but GLib looks at letters only. */
  if (c >= 0x2160 && c <= 0x216f)
    return c + 0x10;
  if (c >= 0x24b6 && c <= 0x24cf)
    return c + 0x1a;
  return g_unichar_tolower(c);
}

/* Python's str.lower(). g_utf8_strdown() depends on the locale. */
static GString *
lower_text(const char *text)
{
  GString *out = g_string_sized_new(strlen(text));

  for (const char *p = text; *p != '\0'; p = g_utf8_next_char(p)) {
    const gunichar c = g_utf8_get_char(p);
    if (c == 0x0130) /* I with a dot above */
      g_string_append(out, "i\xcc\x87");
    else if (c == 0x03a3 && is_final_sigma(text, p))
      g_string_append_unichar(out, 0x03c2);
    else
      g_string_append_unichar(out, lower_char(c));
  }
  return out;
}

/* Words */

typedef enum {
  CLASS_NONE,
  CLASS_LETTER,
  CLASS_NUMBER,
  CLASS_OTHER,
} CharClass;

static CharClass
classify(gunichar c)
{
  switch (g_unichar_type(c)) {
  case G_UNICODE_LOWERCASE_LETTER:
  case G_UNICODE_UPPERCASE_LETTER:
  case G_UNICODE_TITLECASE_LETTER:
  case G_UNICODE_MODIFIER_LETTER:
  case G_UNICODE_OTHER_LETTER:
    return CLASS_LETTER;
  case G_UNICODE_DECIMAL_NUMBER:
  case G_UNICODE_LETTER_NUMBER:
  case G_UNICODE_OTHER_NUMBER:
    return CLASS_NUMBER;
  default:
    /* The iota subscript is no letter, but its capital is one: ignoring case, none of the
     * pattern's classes takes it. */
    return c == ' ' || c == 0x0345 ? CLASS_NONE : CLASS_OTHER;
  }
}

/* Length of @literal at the start of @text, 0 if it is not there. A long s counts as an s,
 * as it does in patterns that ignore case. */
static gsize
match_literal(const char *text, const char *literal)
{
  const char *p = text;

  for (; *literal != '\0'; literal++) {
    if (*p == *literal)
      p++;
    else if (*literal == 's' && strncmp(p, "\xc5\xbf", 2) == 0)
      p += 2;
    else
      return 0;
  }
  return p - text;
}

/* The word at the start of @text, lower case: a special token, a contraction's ending, a run
 * of letters, one digit or a run of anything else. 0: none starts here. */
static gsize
word_length(const char *text)
{
  static const char *const literals[] = { BOS_TOKEN, EOS_TOKEN, "'s",  "'t", "'re",
                                          "'ve",     "'m",      "'ll", "'d" };

  if (*text == '<' || *text == '\'') {
    for (guint i = 0; i < G_N_ELEMENTS(literals); i++) {
      const gsize length = match_literal(text, literals[i]);
      if (length > 0)
        return length;
    }
  }

  const CharClass kind = classify(g_utf8_get_char(text));
  const char *p = text;
  if (kind == CLASS_NONE)
    return 0;
  do
    p = g_utf8_next_char(p);
  while (kind != CLASS_NUMBER && *p != '\0' && classify(g_utf8_get_char(p)) == kind);
  return p - text;
}

static gint32
exact_special(OsrTokenizer *tokenizer, const char *text, gsize length)
{
  if (length == strlen(BOS_TOKEN) && memcmp(text, BOS_TOKEN, length) == 0)
    return tokenizer->bos;
  if (length == strlen(EOS_TOKEN) && memcmp(text, EOS_TOKEN, length) == 0)
    return tokenizer->eos;
  return -1;
}

static gboolean
clip_encode(OsrTokenizer *tokenizer, const char *text, gsize length, GArray *ids,
            G_GNUC_UNUSED GError **error)
{
  OsrClipTokenizer *self = (OsrClipTokenizer *) tokenizer;
  g_autofree char *clean = clean_text(text, length);
  g_autoptr(GString) lower = lower_text(clean);

  for (const char *p = lower->str; *p != '\0';) {
    const gsize n = word_length(p);
    const gint32 special = n > 0 ? exact_special(tokenizer, p, n) : -1;
    if (special >= 0)
      g_array_append_val(ids, special);
    else if (n > 0)
      encode_word(self, p, n, ids);
    p = n > 0 ? p + n : g_utf8_next_char(p);
  }
  return TRUE;
}

static gboolean
clip_match_special(OsrTokenizer *tokenizer, const char *text, OsrSpecialToken *special)
{
  if (*text != '<')
    return FALSE;
  if (g_str_has_prefix(text, BOS_TOKEN))
    *special = (OsrSpecialToken){ tokenizer->bos, strlen(BOS_TOKEN), FALSE };
  else if (g_str_has_prefix(text, EOS_TOKEN))
    *special = (OsrSpecialToken){ tokenizer->eos, strlen(EOS_TOKEN), FALSE };
  else
    return FALSE;
  return TRUE;
}

static void
clip_free(OsrTokenizer *tokenizer)
{
  OsrClipTokenizer *self = (OsrClipTokenizer *) tokenizer;

  g_clear_pointer(&self->by_pair, g_hash_table_unref);
  g_free(self->merges);
  g_free(self);
}

static const OsrTokenizerClass clip_class = { clip_match_special, clip_encode, clip_free };

/* Loading */

static gint32
lookup_token(GHashTable *vocab, const char *token)
{
  gpointer id;

  return g_hash_table_lookup_extended(vocab, token, NULL, &id) ? GPOINTER_TO_INT(id) : -1;
}

/* vocab.json: one object, token -> id. */
static void
parse_vocab(OsrJsonReader *reader, GHashTable *vocab)
{
  gboolean first;
  gint64 id;

  osr_json_begin(reader, '{', &first);
  while (osr_json_next(reader, '}', &first)) {
    g_autofree char *token = osr_json_key(reader);
    if (!osr_json_uint(reader, &id))
      break;
    if (id > G_MAXINT32)
      osr_json_fail(reader, "the id is too large");
    else if (!g_hash_table_insert(vocab, g_steal_pointer(&token), GINT_TO_POINTER((gint) id)))
      osr_json_fail(reader, "the token is there twice");
  }
  osr_json_end(reader);
}

/* Ids must be 0 to n - 1, each once: they index an embedding. */
static gboolean
check_ids(GHashTable *vocab, const char *name, GError **error)
{
  const guint n = g_hash_table_size(vocab);
  g_autofree guint8 *seen = g_malloc0(MAX(n, 1));
  GHashTableIter iter;
  gpointer token, value;

  g_hash_table_iter_init(&iter, vocab);
  while (g_hash_table_iter_next(&iter, &token, &value)) {
    const guint id = (guint) GPOINTER_TO_INT(value);
    if (id >= n || seen[id]) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: id %u of \"%s\" is %s %u tokens",
                  name, id, (const char *) token, id < n ? "there twice among" : "out of range for",
                  n);
      return FALSE;
    }
    seen[id] = 1;
  }
  return TRUE;
}

static GHashTable *
load_vocab(const char *text, gsize length, const char *name, GError **error)
{
  g_autoptr(GHashTable) vocab = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  OsrJsonReader reader;

  if (!osr_text_check_utf8(text, length, name, error))
    return NULL;
  osr_json_init(&reader, text, length);
  parse_vocab(&reader, vocab);
  if (osr_json_failed(&reader)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: offset %" G_GSIZE_FORMAT ": %s",
                name, (gsize) (reader.at - reader.start), reader.reason);
    return NULL;
  }
  return check_ids(vocab, name, error) ? g_steal_pointer(&vocab) : NULL;
}

/* Bytes stand in the vocabulary as printable characters: those of Latin-1 that are printable
 * as themselves, the others in order from U+0100 on. */
static gboolean
init_bytes(OsrClipTokenizer *self, GHashTable *vocab, const char *name, GError **error)
{
  gunichar next = 0x100;

  for (guint byte = 0; byte < 256; byte++) {
    const gboolean printable =
        (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
    char token[6 + sizeof(END_OF_WORD)] = "";
    const gint n = g_unichar_to_utf8(printable ? byte : next++, token);
    for (guint last = 0; last < 2; last++) {
      memcpy(token + n, last ? END_OF_WORD : "", last ? sizeof(END_OF_WORD) : 1);
      self->byte_ids[last][byte] = lookup_token(vocab, token);
      if (self->byte_ids[last][byte] < 0) {
        g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
                    "%s: \"%s\", the symbol of byte 0x%02x, is missing", name, token, byte);
        return FALSE;
      }
    }
  }
  return TRUE;
}

static gboolean
parse_merge(OsrClipTokenizer *self, GHashTable *vocab, const char *line, guint32 rank,
            const char **reason)
{
  g_auto(GStrv) parts = g_strsplit(line, " ", -1);

  if (g_strv_length(parts) != 2 || *parts[0] == '\0' || *parts[1] == '\0') {
    *reason = "is not two tokens";
    return FALSE;
  }

  g_autofree char *joined = g_strconcat(parts[0], parts[1], NULL);
  const gint32 left = lookup_token(vocab, parts[0]);
  const gint32 right = lookup_token(vocab, parts[1]);
  const gint32 id = lookup_token(vocab, joined);
  if (left < 0 || right < 0 || id < 0) {
    *reason = "has a token that the vocabulary lacks";
    return FALSE;
  }
  Merge *merge = &self->merges[rank];
  *merge = (Merge){ make_pair(left, right), rank, id };
  if (!g_hash_table_insert(self->by_pair, &merge->pair, merge)) {
    *reason = "is there twice";
    return FALSE;
  }
  return TRUE;
}

static gboolean
parse_merges(OsrClipTokenizer *self, GHashTable *vocab, const char *merges, gsize length,
             const char *name, GError **error)
{
  if (!osr_text_check_utf8(merges, length, name, error))
    return FALSE;

  g_autofree char *text = g_strstrip(g_strndup(merges, length));
  guint n_lines = 1;
  for (const char *p = text; *p != '\0'; p++)
    n_lines += *p == '\n';
  n_lines = MIN(n_lines, MAX_MERGES + 1);
  self->merges = g_new(Merge, n_lines);
  self->by_pair = g_hash_table_new(pair_hash, g_int64_equal);

  char *line = text;
  for (guint i = 0; i < n_lines; i++) {
    const char *reason;
    char *end = strchr(line, '\n');
    if (end)
      *end = '\0';
    /* The first line is a version, whatever it says. */
    if (i > 0 && !parse_merge(self, vocab, g_strchomp(line), i - 1, &reason)) {
      g_autofree char *shown = g_utf8_substring(line, 0, MIN(g_utf8_strlen(line, -1), 40));
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s:%u: merge \"%s\" %s", name, i + 1,
                  shown, reason);
      return FALSE;
    }
    if (end)
      line = end + 1;
  }
  return TRUE;
}

OsrTokenizer *
osr_tokenizer_new_clip_from_data(const char *vocab, gsize vocab_length, const char *vocab_name,
                                 const char *merges, gsize merges_length, const char *merges_name,
                                 GError **error)
{
  g_autoptr(GHashTable) tokens = load_vocab(vocab, vocab_length, vocab_name, error);
  if (tokens == NULL)
    return NULL;

  const gint32 bos = lookup_token(tokens, BOS_TOKEN);
  const gint32 eos = lookup_token(tokens, EOS_TOKEN);
  if (bos < 0 || eos < 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: \"%s\" is missing", vocab_name,
                bos < 0 ? BOS_TOKEN : EOS_TOKEN);
    return NULL;
  }

  OsrClipTokenizer *self = g_new0(OsrClipTokenizer, 1);
  g_autoptr(OsrTokenizer) tokenizer = &self->base;
  self->base.klass = &clip_class;
  self->base.vocab_size = g_hash_table_size(tokens);
  self->base.bos = bos;
  self->base.eos = eos;
  self->base.pad = eos; /* "<|endoftext|>" pads, too */
  if (!init_bytes(self, tokens, vocab_name, error) ||
      !parse_merges(self, tokens, merges, merges_length, merges_name, error))
    return NULL;
  return g_steal_pointer(&tokenizer);
}

OsrTokenizer *
osr_tokenizer_new_clip(const char *vocab_path, const char *merges_path, GError **error)
{
  g_autofree char *vocab = NULL;
  g_autofree char *merges = NULL;
  gsize vocab_length, merges_length;

  g_return_val_if_fail(vocab_path != NULL && merges_path != NULL, NULL);

  if (!osr_file_read(vocab_path, &vocab, &vocab_length, error) ||
      !osr_file_read(merges_path, &merges, &merges_length, error))
    return NULL;
  return osr_tokenizer_new_clip_from_data(vocab, vocab_length, vocab_path, merges, merges_length,
                                          merges_path, error);
}
