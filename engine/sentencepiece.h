/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sentencepiece.h: the part of libsentencepiece that the T5 tokenizer needs, for C.
 */
#pragma once

#include <glib.h>

G_BEGIN_DECLS

typedef struct _OsrSentencepiece OsrSentencepiece;

/* @data: a serialized model. NULL and @reason (to be freed with g_free()) if it is none. */
OsrSentencepiece *osr_sentencepiece_new(const char *data, gsize length, char **reason);
void osr_sentencepiece_free(OsrSentencepiece *sp);

gint32 osr_sentencepiece_size(const OsrSentencepiece *sp);
/* -1 if the model has none. */
gint32 osr_sentencepiece_pad_id(const OsrSentencepiece *sp);
gint32 osr_sentencepiece_eos_id(const OsrSentencepiece *sp);
gint32 osr_sentencepiece_unk_id(const OsrSentencepiece *sp);
/* Owned by @sp. */
const char *osr_sentencepiece_piece(const OsrSentencepiece *sp, gint32 id);

/* Appends the ids (gint32) of the most likely segmentation. Thread safe. */
gboolean osr_sentencepiece_encode(const OsrSentencepiece *sp, const char *text, gsize length,
                                  GArray *ids, char **reason);

G_END_DECLS
