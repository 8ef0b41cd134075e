/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * clip-request.h: what a client asks for by the query of a URL.
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

/**
 * ClipRequest:
 *
 * A clip. Two requests with the same @key are for the same clip.
 */
typedef struct {
  char *prompt;
  char *negative_prompt; /* NULL: none */
  gint64 seed;
  char *key;
} ClipRequest;

/* @query: "prompt=a%20red%20circle&seed=7", where "negative-prompt" is possible, too, and
 * percent-encoding and "+" stand for what they do in forms. Clients put "/stream=0" behind it.
 * NULL with @error, G_IO_ERROR_INVALID_ARGUMENT: encoding or UTF-8 wrong, another parameter or one
 * given twice, no prompt, texts above @max_prompt bytes or with control characters in them. */
ClipRequest *clip_request_parse(const char *query, gint64 default_seed, guint max_prompt,
                                GError **error);
void clip_request_free(ClipRequest *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(ClipRequest, clip_request_free)

/* The part of @query that names a stream: "/stream=0", or "" where there is none. */
const char *clip_request_get_control(const char *query);

/* Whether @text can be a prompt: UTF-8, some of it visible, no control characters, at most @max
 * bytes. The error says what is wrong. */
gboolean prompt_check(const char *text, guint max, GError **error);

G_END_DECLS
