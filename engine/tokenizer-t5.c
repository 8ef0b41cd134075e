/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * T5's tokenizer: a SentencePiece unigram model and sentinels <extra_id_0> ... behind its
 * pieces, numbered from the end of the vocabulary backwards. The sentinels are no part of
 * the model file; how many there are is said by "extra_ids" of a tokenizer_config.json
 * beside it, 100 by default.
 */
#include <string.h>

#include "json-private.h"
#include "sentencepiece.h"
#include "text-private.h"
#include "tokenizer-private.h"

#define DEFAULT_EXTRA_IDS 100
#define MAX_EXTRA_IDS 10000
#define SENTINEL_PREFIX "<extra_id_"

typedef struct {
  OsrTokenizer base;
  OsrSentencepiece *sp;
  const char *pad_piece, *eos_piece, *unk_piece; /* of the model */
  gint32 unk;
  guint extra_ids;
} OsrT5Tokenizer;

/* The N of "<extra_id_N>", written without leading zeros; *length is that of it all. */
static gboolean
match_sentinel(const char *text, guint extra_ids, guint *number, gsize *length)
{
  if (!g_str_has_prefix(text, SENTINEL_PREFIX))
    return FALSE;

  const char *digits = text + strlen(SENTINEL_PREFIX);
  const char *p = digits;
  guint n = 0;
  while (g_ascii_isdigit(*p) && n < extra_ids)
    n = 10 * n + (guint) (*p++ - '0');
  if (p == digits || *p != '>' || n >= extra_ids || (*digits == '0' && p > digits + 1))
    return FALSE;
  *number = n;
  *length = p + 1 - text;
  return TRUE;
}

static gboolean
t5_match_special(OsrTokenizer *tokenizer, const char *text, OsrSpecialToken *special)
{
  OsrT5Tokenizer *self = (OsrT5Tokenizer *) tokenizer;
  const struct {
    const char *piece;
    gint32 id;
  } pieces[] = {
    { self->pad_piece, tokenizer->pad },
    { self->eos_piece, tokenizer->eos },
    { self->unk_piece, self->unk },
  };
  guint number;
  gsize length;

  for (guint i = 0; i < G_N_ELEMENTS(pieces); i++) {
    if (*text == *pieces[i].piece && g_str_has_prefix(text, pieces[i].piece)) {
      *special = (OsrSpecialToken){ pieces[i].id, strlen(pieces[i].piece), FALSE };
      return TRUE;
    }
  }
  if (match_sentinel(text, self->extra_ids, &number, &length)) {
    *special = (OsrSpecialToken){ (gint32) (tokenizer->vocab_size - 1 - number), length, TRUE };
    return TRUE;
  }
  return FALSE;
}

static gboolean
t5_encode(OsrTokenizer *tokenizer, const char *text, gsize length, GArray *ids, GError **error)
{
  OsrT5Tokenizer *self = (OsrT5Tokenizer *) tokenizer;
  g_autofree char *reason = NULL;

  if (!osr_sentencepiece_encode(self->sp, text, length, ids, &reason)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_FAILED, "SentencePiece cannot encode the text: %s",
                reason);
    return FALSE;
  }
  return TRUE;
}

static void
t5_free(OsrTokenizer *tokenizer)
{
  OsrT5Tokenizer *self = (OsrT5Tokenizer *) tokenizer;

  osr_sentencepiece_free(self->sp);
  g_free(self);
}

static const OsrTokenizerClass t5_class = { t5_match_special, t5_encode, t5_free };

/* libsentencepiece walks the character map of a model without looking at bounds: a double
 * array (J. Aoe, 1989, in the layout of darts-clone) from UTF-8 to offsets in a string
 * table. So the map is found in the file (protocol buffers) and walked once before. */

typedef struct {
  const guint8 *at, *end;
} Bytes;

static gboolean
read_varint(Bytes *in, guint64 *value)
{
  *value = 0;
  for (guint shift = 0; shift < 64 && in->at < in->end; shift += 7) {
    *value |= (guint64) (*in->at & 0x7f) << shift;
    if (!(*in->at++ & 0x80))
      return TRUE;
  }
  return FALSE;
}

/* The next field of a message and, of type 2, its bytes. FALSE at the end or at nonsense,
 * which the library's own parser judges. */
static gboolean
read_field(Bytes *in, guint64 *number, Bytes *content)
{
  guint64 key, size;

  if (in->at >= in->end || !read_varint(in, &key))
    return FALSE;
  *number = key >> 3;
  switch (key & 7) {
  case 0:
    size = 0;
    if (!read_varint(in, &key))
      return FALSE;
    break;
  case 1:
    size = 8;
    break;
  case 2:
    if (!read_varint(in, &size))
      return FALSE;
    break;
  case 5:
    size = 4;
    break;
  default:
    return FALSE;
  }
  if (size > (guint64) (in->end - in->at))
    return FALSE;
  *content = (Bytes){ in->at, in->at + size };
  in->at += size;
  return TRUE;
}

static guint32
get_unit(const guint8 *units, guint32 i)
{
  guint32 unit;

  memcpy(&unit, units + 4 * (gsize) i, 4);
  return GUINT32_FROM_LE(unit);
}

/* Visits every node that some text leads to. */
static gboolean
check_trie(const guint8 *units, guint32 n, const Bytes *strings)
{
  const gsize n_strings = strings->end - strings->at;
  g_autofree guint8 *seen = g_malloc0(MAX(n, 1));
  g_autoptr(GArray) todo = g_array_new(FALSE, FALSE, sizeof(guint32));
  guint32 node = 0;

  if (n == 0 || n_strings == 0 || strings->end[-1] != '\0')
    return FALSE;
  g_array_append_val(todo, node);
  while (todo->len > 0) {
    node = g_array_index(todo, guint32, todo->len - 1);
    g_array_set_size(todo, todo->len - 1);
    const guint32 unit = get_unit(units, node);
    const guint32 children = node ^ ((unit >> 10) << ((unit & 0x200) >> 6));
    if ((children | 0xff) >= n)
      return FALSE;
    if ((unit & 0x100) && (get_unit(units, children) & 0x7fffffff) >= n_strings)
      return FALSE;
    for (guint32 byte = 1; byte < 256; byte++) {
      const guint32 child = children ^ byte;
      if (seen[child] || (get_unit(units, child) & 0x800000ff) != byte)
        continue;
      seen[child] = 1;
      g_array_append_val(todo, child);
    }
  }
  return TRUE;
}

static gboolean
check_character_map(const Bytes *map)
{
  const gsize size = map->end - map->at;
  guint32 trie_size;

  if (size == 0)
    return TRUE;
  if (size < 4)
    return FALSE;
  memcpy(&trie_size, map->at, 4);
  trie_size = GUINT32_FROM_LE(trie_size);
  if (trie_size > size - 4)
    return FALSE;
  const Bytes strings = { map->at + 4 + trie_size, map->end };
  return check_trie(map->at + 4, trie_size / 4, &strings);
}

static gboolean
check_model(const char *data, gsize length)
{
  enum { NORMALIZER_SPEC = 3, PRECOMPILED_CHARSMAP = 2 };
  Bytes model = { (const guint8 *) data, (const guint8 *) data + length };
  Bytes spec, map;
  guint64 number;

  while (read_field(&model, &number, &spec)) {
    if (number != NORMALIZER_SPEC)
      continue;
    while (read_field(&spec, &number, &map)) {
      if (number == PRECOMPILED_CHARSMAP && !check_character_map(&map))
        return FALSE;
    }
  }
  return TRUE;
}

OsrTokenizer *
osr_tokenizer_new_t5_from_data(const char *data, gsize length, guint extra_ids, const char *name,
                               GError **error)
{
  g_autofree char *reason = NULL;

  if (!check_model(data, length)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
                "%s: the SentencePiece model's character map is damaged", name);
    return NULL;
  }

  OsrSentencepiece *sp = osr_sentencepiece_new(data, length, &reason);
  if (sp == NULL) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: not a SentencePiece model: %s", name,
                reason);
    return NULL;
  }

  const gint32 size = osr_sentencepiece_size(sp);
  const gint32 pad = osr_sentencepiece_pad_id(sp);
  const gint32 eos = osr_sentencepiece_eos_id(sp);
  const gint32 unk = osr_sentencepiece_unk_id(sp);
  if (pad < 0 || eos < 0 || unk < 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
                "%s: the SentencePiece model has no %s piece, T5 needs it", name,
                pad < 0 ? "padding" : (eos < 0 ? "end of sequence" : "unknown"));
    osr_sentencepiece_free(sp);
    return NULL;
  }

  OsrT5Tokenizer *self = g_new0(OsrT5Tokenizer, 1);
  self->base.klass = &t5_class;
  self->base.vocab_size = (guint) size + extra_ids;
  self->base.bos = -1;
  self->base.eos = eos;
  self->base.pad = pad;
  self->base.single_eos = TRUE;
  self->sp = sp;
  self->pad_piece = osr_sentencepiece_piece(sp, pad);
  self->eos_piece = osr_sentencepiece_piece(sp, eos);
  self->unk_piece = osr_sentencepiece_piece(sp, unk);
  self->unk = unk;
  self->extra_ids = extra_ids;
  return &self->base;
}

/* "extra_ids" of a tokenizer_config.json; the last one if there are several. */
static gboolean
parse_extra_ids(OsrJsonReader *reader, guint *extra_ids)
{
  gint64 value = *extra_ids;
  gboolean first;

  osr_json_begin(reader, '{', &first);
  while (osr_json_next(reader, '}', &first)) {
    g_autofree char *key = osr_json_key(reader);
    if (g_strcmp0(key, "extra_ids") != 0)
      osr_json_skip(reader);
    else if (osr_json_uint(reader, &value) && value > MAX_EXTRA_IDS)
      osr_json_fail(reader, "more than " G_STRINGIFY(MAX_EXTRA_IDS) " extra_ids");
  }
  *extra_ids = (guint) value;
  return osr_json_end(reader);
}

static gboolean
read_extra_ids(const char *path, guint *extra_ids, GError **error)
{
  g_autofree char *folder = g_path_get_dirname(path);
  g_autofree char *config_path = g_build_filename(folder, "tokenizer_config.json", NULL);
  g_autofree char *text = NULL;
  OsrJsonReader reader;
  gsize length;

  *extra_ids = DEFAULT_EXTRA_IDS;
  if (!g_file_test(config_path, G_FILE_TEST_EXISTS))
    return TRUE;
  if (!osr_file_read_utf8(config_path, &text, &length, error))
    return FALSE;
  osr_json_init(&reader, text, length);
  if (!parse_extra_ids(&reader, extra_ids)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: offset %" G_GSIZE_FORMAT ": %s",
                config_path, (gsize) (reader.at - reader.start), reader.reason);
    return FALSE;
  }
  return TRUE;
}

OsrTokenizer *
osr_tokenizer_new_t5(const char *path, GError **error)
{
  g_autofree char *data = NULL;
  gsize length;
  guint extra_ids;

  g_return_val_if_fail(path != NULL, NULL);

  if (!osr_file_read(path, &data, &length, error) || !read_extra_ids(path, &extra_ids, error))
    return NULL;
  return osr_tokenizer_new_t5_from_data(data, length, extra_ids, path, error);
}
