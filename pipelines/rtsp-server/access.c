/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "access.h"

#include <string.h>

#include "mounts.h"

static gboolean
refuse(GError **error, const char *where, guint line, const char *text)
{
  g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, "%s, line %u: %s", where, line,
              text);
  return FALSE;
}

/* @entry: NAME:PASSWORD, where passwords may have colons in them. */
static gboolean
add_password(Access *self, const char *where, guint line, const char *entry, GError **error)
{
  const char *colon = strchr(entry, ':');
  g_autofree char *name = NULL;

  if (!colon || colon == entry || !colon[1])
    return refuse(error, where, line, "not NAME:PASSWORD");
  if (!g_utf8_validate(entry, -1, NULL))
    return refuse(error, where, line, "not UTF-8");
  name = g_strndup(entry, (gsize) (colon - entry));
  if (g_hash_table_contains(self->users, name))
    return refuse(error, where, line, "that user is there already");
  g_ptr_array_add(self->entries, g_strdup(entry));
  g_hash_table_insert(self->users, g_strdup(name),
                      soup_auth_domain_digest_encode_password(name, ACCESS_REALM, colon + 1));
  return TRUE;
}

/* @entry: NAME:REALM:HASH, as htdigest writes it. */
static gboolean
add_hash(Access *self, const char *where, guint line, const char *entry, GError **error)
{
  g_auto(GStrv) fields = g_strsplit(entry, ":", 3);

  if (g_strv_length(fields) != 3 || !*fields[0] || strlen(fields[2]) != 32 ||
      strspn(fields[2], "0123456789abcdef") != 32)
    return refuse(error, where, line, "not NAME:REALM:HASH");
  if (!g_str_equal(fields[1], ACCESS_REALM))
    return refuse(error, where, line, "the realm has to be \"" ACCESS_REALM "\"");
  g_hash_table_insert(self->users, g_strdup(fields[0]), g_strdup(fields[2]));
  return TRUE;
}

typedef gboolean (*AddFunc)(Access *self, const char *where, guint line, const char *entry,
                            GError **error);

static gboolean
read_users(Access *self, const char *path, AddFunc add, GError **error)
{
  g_autofree char *data = NULL;
  g_auto(GStrv) lines = NULL;

  if (!g_file_get_contents(path, &data, NULL, error))
    return FALSE;
  lines = g_strsplit(data, "\n", -1);
  for (guint i = 0; lines[i]; i++) {
    g_strchomp(lines[i]);
    if (*lines[i] && *lines[i] != '#' && !add(self, path, i + 1, lines[i], error))
      return FALSE;
  }
  if (g_hash_table_size(self->users) == 0)
    return refuse(error, path, 1, "there is no user in the file");
  return TRUE;
}

static gboolean
read_certificate(Access *self, const Options *options, GError **error)
{
  if (!options->certificate)
    return TRUE;
  if (!g_tls_backend_supports_tls(g_tls_backend_get_default())) {
    g_set_error_literal(error, G_TLS_ERROR, G_TLS_ERROR_UNAVAILABLE,
                        "there is no TLS in this GLib (Debian: package glib-networking)");
    return FALSE;
  }
  self->certificate = g_tls_certificate_new_from_files(options->certificate, options->key, error);
  if (!self->certificate)
    g_prefix_error(error, "%s, %s: ", options->certificate, options->key);
  return self->certificate != NULL;
}

Access *
access_new(const Options *options, GError **error)
{
  g_autoptr(Access) self = g_new0(Access, 1);

  self->users = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
  self->entries = g_ptr_array_new_with_free_func(g_free);
  self->htdigest = g_strdup(options->htdigest);
  if ((options->users && !read_users(self, options->users, add_password, error)) ||
      (options->htdigest && !read_users(self, options->htdigest, add_hash, error)) ||
      (options->user && !add_password(self, "--user", 1, options->user, error)) ||
      !read_certificate(self, options, error))
    return NULL;
  return g_steal_pointer(&self);
}

void
access_free(Access *self)
{
  g_hash_table_unref(self->users);
  g_ptr_array_unref(self->entries);
  g_free(self->htdigest);
  g_clear_object(&self->certificate);
  g_free(self);
}

gboolean
access_has_users(const Access *self)
{
  return g_hash_table_size(self->users) > 0;
}

/* A basic password is as good as in the clear, so it needs TLS. */
static void
add_entry(GstRTSPAuth *auth, const char *entry, gboolean basic, GstRTSPToken *token)
{
  const char *colon = strchr(entry, ':');
  g_autofree char *name = g_strndup(entry, (gsize) (colon - entry));
  g_autofree char *code = gst_rtsp_auth_make_basic(name, colon + 1);

  if (basic)
    gst_rtsp_auth_add_basic(auth, code, token);
  gst_rtsp_auth_add_digest(auth, name, colon + 1, token);
}

static gboolean
add_users(const Access *self, GstRTSPAuth *auth, GError **error)
{
  g_autoptr(GstRTSPToken) token =
      gst_rtsp_token_new(GST_RTSP_TOKEN_MEDIA_FACTORY_ROLE, G_TYPE_STRING, MOUNTS_ROLE, NULL);

  if (self->htdigest && !gst_rtsp_auth_parse_htdigest(auth, self->htdigest, token)) {
    g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                "%s: lines that htdigest does not write", self->htdigest);
    return FALSE;
  }
  for (guint i = 0; i < self->entries->len; i++)
    add_entry(auth, g_ptr_array_index(self->entries, i), self->certificate != NULL, token);
  return TRUE;
}

gboolean
access_apply_to_rtsp(const Access *self, GstRTSPServer *server, GError **error)
{
  g_autoptr(GstRTSPAuth) auth = NULL;

  if (!access_has_users(self) && !self->certificate)
    return TRUE;
  auth = gst_rtsp_auth_new();
  gst_rtsp_auth_set_realm(auth, ACCESS_REALM);
  gst_rtsp_auth_set_supported_methods(
      auth, self->certificate ? GST_RTSP_AUTH_BASIC | GST_RTSP_AUTH_DIGEST : GST_RTSP_AUTH_DIGEST);
  if (self->certificate)
    gst_rtsp_auth_set_tls_certificate(auth, self->certificate);
  if (access_has_users(self)) {
    if (!add_users(self, auth, error))
      return FALSE;
  } else {
    g_autoptr(GstRTSPToken) anybody =
        gst_rtsp_token_new(GST_RTSP_TOKEN_MEDIA_FACTORY_ROLE, G_TYPE_STRING, MOUNTS_ROLE, NULL);

    gst_rtsp_auth_set_default_token(auth, anybody);
  }
  gst_rtsp_server_set_auth(server, auth);
  return TRUE;
}

static char *
get_hash(SoupAuthDomain *domain, SoupServerMessage *message, const char *name, gpointer access)
{
  return g_strdup(g_hash_table_lookup(((Access *) access)->users, name));
}

void
access_apply_to_http(Access *self, SoupServer *server)
{
  g_autoptr(SoupAuthDomain) domain = NULL;

  if (!access_has_users(self))
    return;
  domain = soup_auth_domain_digest_new("realm", ACCESS_REALM, NULL);
  soup_auth_domain_digest_set_auth_callback(domain, get_hash, self, NULL);
  soup_auth_domain_add_path(domain, "/");
  soup_server_add_auth_domain(server, domain);
}
