/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tokenizer-private.h"

#include <string.h>

#include "text-private.h"

/* Bytes that are looked at, far above any prompt. SentencePiece takes quadratic time on a run
 * of characters that it does not know: half a minute for a megabyte. */
#define MAX_TEXT_LENGTH (256u << 10)

void
osr_tokenizer_free(OsrTokenizer *tokenizer)
{
  if (tokenizer)
    tokenizer->klass->free(tokenizer);
}

guint
osr_tokenizer_vocab_size(OsrTokenizer *tokenizer)
{
  return tokenizer->vocab_size;
}

/* Special tokens are cut out first: what is between them is tokenized piece by piece. */
static gboolean
encode_text(OsrTokenizer *tokenizer, const char *text, GArray *ids, GError **error)
{
  gboolean strip_start = FALSE;

  while (*text != '\0') {
    OsrSpecialToken special = { .length = 0, .strip = FALSE };
    const char *end = text;
    while (*end != '\0' && !tokenizer->klass->match_special(tokenizer, end, &special))
      end++;

    const char *piece = strip_start ? osr_text_skip_space(text, end) : text;
    const char *piece_end = special.strip ? osr_text_trim_end(piece, end) : end;
    if (piece < piece_end &&
        !tokenizer->klass->encode(tokenizer, piece, piece_end - piece, ids, error))
      return FALSE;

    if (special.length > 0)
      g_array_append_val(ids, special.id);
    strip_start = special.strip;
    text = end + special.length;
  }
  return TRUE;
}

static gboolean
needs_eos(OsrTokenizer *tokenizer, GArray *ids)
{
  return !tokenizer->single_eos || ids->len == 0 ||
         g_array_index(ids, gint32, ids->len - 1) != tokenizer->eos;
}

/* What of a text is looked at, in whole characters. */
static gsize
cut_length(const char *text, gsize length)
{
  gsize cut = MIN(length, MAX_TEXT_LENGTH);

  while (cut < length && ((guchar) text[cut] & 0xc0) == 0x80)
    cut--;
  return cut;
}

/* Each has at least one token. */
static guint
count_words(const char *text, const char *end)
{
  guint n = 0;

  for (text = osr_text_skip_space(text, end); text < end; text = osr_text_skip_space(text, end)) {
    n++;
    while (text < end && !osr_unichar_is_space(g_utf8_get_char(text)))
      text = g_utf8_next_char(text);
  }
  return n;
}

gint32 *
osr_tokenizer_encode(OsrTokenizer *tokenizer, const char *text, guint max_length, guint *n_tokens,
                     GError **error)
{
  g_return_val_if_fail(tokenizer != NULL && text != NULL && max_length >= 2, NULL);

  const gsize length = strlen(text);
  const char *bad;
  if (!g_utf8_validate(text, length, &bad)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "The text is not valid UTF-8: byte 0x%02x at offset %" G_GSIZE_FORMAT,
                (guchar) *bad, (gsize) (bad - text));
    return NULL;
  }

  const gsize used = cut_length(text, length);
  g_autofree char *head = used < length ? g_strndup(text, used) : NULL;
  g_autoptr(GArray) body = g_array_new(FALSE, FALSE, sizeof(gint32));
  if (!encode_text(tokenizer, head ? head : text, body, error))
    return NULL;

  const guint n_bos = tokenizer->bos >= 0 ? 1 : 0;
  if (n_tokens) {
    const guint n_lost = count_words(text + used, text + length);
    *n_tokens = n_bos + body->len + needs_eos(tokenizer, body);
    if (n_lost > 0)
      *n_tokens = MAX(*n_tokens, max_length) + n_lost;
  }
  g_array_set_size(body, MIN(body->len, max_length - n_bos - 1));
  if (needs_eos(tokenizer, body))
    g_array_append_val(body, tokenizer->eos);

  gint32 *ids = g_new(gint32, max_length);
  guint n = 0;
  if (n_bos > 0)
    ids[n++] = tokenizer->bos;
  for (guint i = 0; i < body->len; i++)
    ids[n++] = g_array_index(body, gint32, i);
  while (n < max_length)
    ids[n++] = tokenizer->pad;
  return ids;
}
