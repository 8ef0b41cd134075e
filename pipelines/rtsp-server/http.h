/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * http.h: prompts by HTTP.
 */
#pragma once

#include "access.h"
#include "clips.h"
#include "playlist.h"

G_BEGIN_DECLS

/**
 * Http:
 *
 * POST /prompts: text/plain is a prompt, application/json an object with "prompt" and options.
 * 202 with {"id": N}; 400, 413, 415, 429 (too many requests), 503 (too many prompts wait).
 * GET /queue: what playlist_to_json() says, and the numbers of clients and clips.
 * DELETE /prompts/N: 204; 404.
 * Errors are {"error": "…"}.
 *
 * Requests from pages of other sites, and for other host names, are refused: browsers would send
 * them to this machine for anybody.
 */
typedef struct _Http Http;

typedef struct {
  const Options *options;
  Access *access;
  Playlist *playlist;
  Clips *clips;
  GstRTSPServer *rtsp;
} HttpParams;

/* Listens in the main context. What @params names has to outlive it. NULL with @error. */
Http *http_new(const HttpParams *params, GError **error);
void http_free(Http *self);
/* "http://127.0.0.1:8555/" (transfer full) */
char *http_get_url(Http *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Http, http_free)

G_END_DECLS
