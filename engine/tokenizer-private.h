/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "error.h"
#include "tokenizer.h"

G_BEGIN_DECLS

/* A special token found in a text. */
typedef struct {
  gint32 id;
  gsize length;   /* bytes */
  gboolean strip; /* swallows the white space around it */
} OsrSpecialToken;

typedef struct {
  /* Whether a special token starts at @text (NUL-terminated). */
  gboolean (*match_special)(OsrTokenizer *tokenizer, const char *text, OsrSpecialToken *special);
  /* Appends the ids of valid UTF-8 without special tokens, @length > 0. */
  gboolean (*encode)(OsrTokenizer *tokenizer, const char *text, gsize length, GArray *ids,
                     GError **error);
  void (*free)(OsrTokenizer *tokenizer);
} OsrTokenizerClass;

struct _OsrTokenizer {
  const OsrTokenizerClass *klass;
  guint vocab_size;
  gint32 bos; /* -1: none */
  gint32 eos;
  gint32 pad;
  gboolean single_eos; /* a text that ends in eos gets no second one */
};

/* For what is not in a file: @name, @vocab_name and @merges_name stand for files in
 * messages, @extra_ids is the number of sentinels <extra_id_N>. */
OsrTokenizer *osr_tokenizer_new_t5_from_data(const char *data, gsize length, guint extra_ids,
                                             const char *name, GError **error);
OsrTokenizer *osr_tokenizer_new_clip_from_data(const char *vocab, gsize vocab_length,
                                               const char *vocab_name, const char *merges,
                                               gsize merges_length, const char *merges_name,
                                               GError **error);

G_END_DECLS
