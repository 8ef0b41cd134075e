/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * access.h: who may use the server, and TLS, for RTSP and HTTP alike.
 */
#pragma once

#include <gst/rtsp-server/rtsp-server.h>
#include <libsoup/soup.h>

#include "options.h"

G_BEGIN_DECLS

#define ACCESS_REALM "opensora"

/**
 * Access:
 *
 * Users and the certificate. Users are told by digest authentication; RTSP with TLS offers basic
 * authentication, too, which needs passwords that are no hashes.
 */
typedef struct {
  GHashTable *users;  /* name -> MD5 of name:realm:password in hex; empty: everybody may */
  GPtrArray *entries; /* name:password, where that is known */
  char *htdigest;     /* file that @users come from, too; or NULL */
  GTlsCertificate *certificate; /* NULL: no TLS */
} Access;

/* Reads what @options name. NULL with @error that names the file and the line. */
Access *access_new(const Options *options, GError **error);
void access_free(Access *self);

gboolean access_has_users(const Access *self);
/* Before the server is attached. */
gboolean access_apply_to_rtsp(const Access *self, GstRTSPServer *server, GError **error);
/* @self has to outlive the server. */
void access_apply_to_http(Access *self, SoupServer *server);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Access, access_free)

G_END_DECLS
