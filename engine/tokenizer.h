/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <glib.h>

#include "api.h"

G_BEGIN_DECLS

/**
 * OsrTokenizer:
 *
 * Text -> ids, as Hugging Face's slow tokenizers do: T5Tokenizer(legacy=True) on a
 * SentencePiece model, or CLIPTokenizer (without ftfy) on vocab.json and merges.txt. Immutable once
 * made, so threads may share it.
 */
typedef struct _OsrTokenizer OsrTokenizer;

/* @path: spiece.model; a tokenizer_config.json beside it may set extra_ids. */
OSR_API OsrTokenizer *osr_tokenizer_new_t5(const char *path, GError **error);
OSR_API OsrTokenizer *osr_tokenizer_new_clip(const char *vocab_path, const char *merges_path,
                                             GError **error);
OSR_API void osr_tokenizer_free(OsrTokenizer *tokenizer);
OSR_API guint osr_tokenizer_vocab_size(OsrTokenizer *tokenizer);

/* Exactly @max_length ids (>= 2), special tokens included, truncated and padded as upstream
 * calls its tokenizers. @n_tokens, if not NULL, gets the count before truncation and padding, so
 * n_tokens > max_length means text was lost. Of a text above 256 KiB the first 256 are looked at,
 * and each word of the rest counts as one more token. @text must be UTF-8:
 * OSR_ERROR_INVALID_ARGUMENT otherwise. (transfer full): free with g_free(). */
OSR_API gint32 *osr_tokenizer_encode(OsrTokenizer *tokenizer, const char *text, guint max_length,
                                     guint *n_tokens, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrTokenizer, osr_tokenizer_free)

G_END_DECLS
