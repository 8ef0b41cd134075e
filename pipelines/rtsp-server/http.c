/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "http.h"

#include <string.h>

#include "log.h"
#include "mounts.h"

#define MAX_BODY 65536
#define MAX_CONNECTIONS 32
/* Seconds that a connection may be silent. */
#define TIMEOUT 30
/* Prompts at once, and a second, that are taken. */
#define BURST 20.0
#define RATE 2.0

/* RFC 6585; the library of Debian 12 does not know it. */
#define STATUS_TOO_MANY_REQUESTS 429

struct _Http {
  HttpParams params;
  GSocketService *service;
  SoupServer *server;
  guint16 port;
  GHashTable *connections; /* set of GSocketConnection, not owned */
  double tokens;           /* requests that may come now */
  gint64 counted;
};

/* Answers */

static void
answer(SoupServerMessage *message, guint status, JsonObject *object)
{
  g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
  g_autofree char *text = NULL;

  json_node_take_object(node, object);
  text = json_to_string(node, FALSE);
  soup_server_message_set_status(message, status, NULL);
  soup_server_message_set_response(message, "application/json", SOUP_MEMORY_COPY, text,
                                   strlen(text));
}

static void
answer_error(SoupServerMessage *message, guint status, const char *text)
{
  JsonObject *object = json_object_new();

  GST_INFO("HTTP %u: %s", status, text);
  json_object_set_string_member(object, "error", text);
  answer(message, status, object);
}

/* Checks */

/* A bucket that is filled all the time. */
static gboolean
take_token(Http *self)
{
  const gint64 now = g_get_monotonic_time();

  self->tokens = MIN(BURST, self->tokens + RATE * (double) (now - self->counted) / G_USEC_PER_SEC);
  self->counted = now;
  if (self->tokens < 1.0)
    return FALSE;
  self->tokens -= 1.0;
  return TRUE;
}

/* @host: of the Host header, without the port. A page can make its own name lead here (DNS
 * rebinding), but neither a number nor one of ours. */
static gboolean
is_our_name(const char *host)
{
  return g_hostname_is_ip_address(host) || g_ascii_strcasecmp(host, "localhost") == 0 ||
         g_ascii_strcasecmp(host, g_get_host_name()) == 0;
}

static gboolean
check_site(SoupServerMessage *message)
{
  SoupMessageHeaders *headers = soup_server_message_get_request_headers(message);
  const char *host = soup_message_headers_get_one(headers, "Host");
  const char *origin = soup_message_headers_get_one(headers, "Origin");
  g_autofree char *url = host ? g_strconcat("http://", host, NULL) : NULL;
  g_autoptr(GUri) uri = url ? g_uri_parse(url, G_URI_FLAGS_NONE, NULL) : NULL;
  const char *after;

  if (!uri || !g_uri_get_host(uri) || !is_our_name(g_uri_get_host(uri)))
    return FALSE;
  if (!origin)
    return TRUE;
  after = strstr(origin, "://");
  return after && g_ascii_strcasecmp(after + 3, host) == 0;
}

/* Bodies: collected here, as there is no other way to limit them */

static void
free_bytes(gpointer array)
{
  g_byte_array_unref(array);
}

static void
on_chunk(SoupServerMessage *message, GBytes *chunk, GByteArray *body)
{
  const gsize room = MAX_BODY + 1 - body->len; /* one more tells that there was more */

  g_byte_array_append(body, g_bytes_get_data(chunk, NULL),
                      (guint) MIN(room, g_bytes_get_size(chunk)));
}

static void
on_headers(SoupServer *server, SoupServerMessage *message, const char *path, GHashTable *query,
           gpointer http)
{
  SoupMessageHeaders *headers = soup_server_message_get_request_headers(message);
  GByteArray *body;

  if (!check_site(message)) {
    answer_error(message, SOUP_STATUS_FORBIDDEN, "not for other sites and names");
    return;
  }
  if (soup_message_headers_get_content_length(headers) > MAX_BODY) {
    answer_error(message, SOUP_STATUS_REQUEST_ENTITY_TOO_LARGE, "the request is too large");
    return;
  }
  body = g_byte_array_new();
  soup_message_body_set_accumulate(soup_server_message_get_request_body(message), FALSE);
  g_object_set_data_full(G_OBJECT(message), "body", body, free_bytes);
  g_signal_connect(message, "got-chunk", G_CALLBACK(on_chunk), body);
}

/* (transfer full) */
static char *
get_text(SoupServerMessage *message)
{
  const GByteArray *body = g_object_get_data(G_OBJECT(message), "body");

  return g_strndup((const char *) body->data, body->len);
}

/* Prompts */

static gboolean
refuse(GError **error, const char *format, const char *name)
{
  g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT, format, name);
  return FALSE;
}

/* What may be asked for from outside: not files, and not what takes memory. */
static const struct {
  const char *name;
  GType type;
} known[] = {
  { "seed", G_TYPE_INT64 },
  { "priority", G_TYPE_INT64 },
  { "steps", G_TYPE_INT64 },
  { "guidance", G_TYPE_DOUBLE },
  { "motion-score", G_TYPE_INT64 },
  { "tag", G_TYPE_STRING },
  { "negative-prompt", G_TYPE_STRING },
};

static gboolean
add_option(GstStructure *options, const char *name, JsonNode *node, GError **error)
{
  g_auto(GValue) given = G_VALUE_INIT, value = G_VALUE_INIT;
  guint i = 0;

  while (i < G_N_ELEMENTS(known) && !g_str_equal(known[i].name, name))
    i++;
  if (i == G_N_ELEMENTS(known))
    return refuse(error, "there is no option \"%s\"", name);
  if (!JSON_NODE_HOLDS_VALUE(node))
    return refuse(error, "the option \"%s\" is no single value", name);
  json_node_get_value(node, &given);
  g_value_init(&value, known[i].type);
  if (G_VALUE_TYPE(&given) == G_TYPE_INT64 && known[i].type == G_TYPE_DOUBLE)
    g_value_set_double(&value, (double) g_value_get_int64(&given));
  else if (G_VALUE_TYPE(&given) == known[i].type)
    g_value_copy(&given, &value);
  else
    return refuse(error, "the option \"%s\" has another type", name);
  gst_structure_set_value(options, name, &value);
  return TRUE;
}

/* An object of JSON: the text, and all else as options. */
static gboolean
parse_json(const char *data, char **prompt, GstStructure *options, GError **error)
{
  g_autoptr(JsonParser) parser = json_parser_new_immutable();
  JsonNode *root, *node;
  JsonObjectIter iter;
  const char *name;

  if (!json_parser_load_from_data(parser, data, -1, error))
    return FALSE;
  root = json_parser_get_root(parser);
  if (!root || !JSON_NODE_HOLDS_OBJECT(root))
    return refuse(error, "no JSON object%s", "");
  json_object_iter_init(&iter, json_node_get_object(root));
  while (json_object_iter_next(&iter, &name, &node)) {
    if (!g_str_equal(name, "prompt")) {
      if (!add_option(options, name, node, error))
        return FALSE;
    } else if (JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING) {
      *prompt = json_node_dup_string(node);
    } else {
      return refuse(error, "\"%s\" is no string", name);
    }
  }
  return *prompt || refuse(error, "there is no \"%s\"", "prompt");
}

static guint
status_of(const GError *error)
{
  return g_error_matches(error, G_IO_ERROR, G_IO_ERROR_BUSY) ? SOUP_STATUS_SERVICE_UNAVAILABLE
                                                             : SOUP_STATUS_BAD_REQUEST;
}

static void
add(Http *self, SoupServerMessage *message, const char *text, gboolean json)
{
  g_autoptr(GstStructure) options = gst_structure_new_empty("options");
  g_autofree char *prompt = json ? NULL : g_strdup(text);
  g_autoptr(GError) error = NULL;
  JsonObject *object;
  guint64 id = 0;

  if (!json || parse_json(text, &prompt, options, &error))
    id = playlist_add(self->params.playlist, prompt, options, &error);
  if (id == 0) {
    answer_error(message, status_of(error), error->message);
    return;
  }
  object = json_object_new();
  json_object_set_int_member(object, "id", (gint64) id);
  answer(message, SOUP_STATUS_ACCEPTED, object);
}

static void
handle_post(Http *self, SoupServerMessage *message)
{
  SoupMessageHeaders *headers = soup_server_message_get_request_headers(message);
  const char *type = soup_message_headers_get_content_type(headers, NULL);
  const GByteArray *body = g_object_get_data(G_OBJECT(message), "body");
  const gboolean json = type && g_ascii_strcasecmp(type, "application/json") == 0;
  g_autofree char *text = NULL;

  if (body->len > MAX_BODY) {
    answer_error(message, SOUP_STATUS_REQUEST_ENTITY_TOO_LARGE, "the request is too large");
    return;
  }
  if (!json && (!type || g_ascii_strcasecmp(type, "text/plain") != 0)) {
    answer_error(message, SOUP_STATUS_UNSUPPORTED_MEDIA_TYPE,
                 "send text/plain or application/json");
    return;
  }
  if (!take_token(self)) {
    answer_error(message, STATUS_TOO_MANY_REQUESTS, "too many requests");
    return;
  }
  text = get_text(message);
  add(self, message, text, json);
}

static void
handle_delete(Http *self, SoupServerMessage *message, const char *number)
{
  guint64 id;

  if (g_ascii_string_to_unsigned(number, 10, 1, G_MAXUINT64, &id, NULL) &&
      playlist_cancel(self->params.playlist, id))
    soup_server_message_set_status(message, SOUP_STATUS_NO_CONTENT, NULL);
  else
    answer_error(message, SOUP_STATUS_NOT_FOUND, "there is no such prompt that is to be made");
}

static void
handle_queue(Http *self, SoupServerMessage *message)
{
  JsonObject *object = playlist_to_json(self->params.playlist);

  json_object_set_int_member(object, "clients", mounts_count_clients(self->params.rtsp));
  json_object_set_int_member(object, "clips", clips_get_n(self->params.clips));
  answer(message, SOUP_STATUS_OK, object);
}

static void
on_request(SoupServer *server, SoupServerMessage *message, const char *path, GHashTable *query,
           gpointer http)
{
  const char *method = soup_server_message_get_method(message);

  if (g_str_equal(path, "/prompts") && g_str_equal(method, SOUP_METHOD_POST))
    handle_post(http, message);
  else if (g_str_equal(path, "/queue") && g_str_equal(method, SOUP_METHOD_GET))
    handle_queue(http, message);
  else if (g_str_has_prefix(path, "/prompts/") && g_str_equal(method, SOUP_METHOD_DELETE))
    handle_delete(http, message, path + strlen("/prompts/"));
  else
    answer_error(message, SOUP_STATUS_NOT_FOUND,
                 "there are POST /prompts, GET /queue and DELETE /prompts/NUMBER");
}

/* Connections: taken here, as the library's own may be silent for ever and be as many as like */

static void
on_gone(gpointer http, GObject *connection)
{
  g_hash_table_remove(((Http *) http)->connections, connection);
}

static gboolean
on_incoming(GSocketService *service, GSocketConnection *connection, GObject *source, gpointer http)
{
  Http *self = http;
  g_autoptr(GSocketAddress) local = g_socket_connection_get_local_address(connection, NULL);
  g_autoptr(GSocketAddress) remote = g_socket_connection_get_remote_address(connection, NULL);
  g_autoptr(GIOStream) stream = G_IO_STREAM(g_object_ref(connection));
  g_autoptr(GError) error = NULL;

  if (g_hash_table_size(self->connections) >= MAX_CONNECTIONS) {
    GST_WARNING("there are %d HTTP connections: no more", MAX_CONNECTIONS);
    return TRUE;
  }
  g_socket_set_timeout(g_socket_connection_get_socket(connection), TIMEOUT);
  if (self->params.access->certificate) {
    GIOStream *tls = g_tls_server_connection_new(stream, self->params.access->certificate, &error);

    if (!tls) {
      GST_WARNING("%s", error->message);
      return TRUE;
    }
    g_object_unref(stream);
    stream = tls;
  }
  if (!soup_server_accept_iostream(self->server, stream, local, remote, &error)) {
    GST_WARNING("%s", error->message);
    return TRUE;
  }
  g_hash_table_add(self->connections, connection);
  g_object_weak_ref(G_OBJECT(connection), on_gone, self);
  return TRUE;
}

static gboolean
listen_at(Http *self, GError **error)
{
  const Options *options = self->params.options;
  g_autoptr(GSocketAddress) effective = NULL;
  g_autoptr(GSocketAddress) address =
      g_inet_socket_address_new_from_string(options->http_address, options->http_port);
  GInetAddress *inet;

  if (!address) {
    g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                "--http-address=%s is no IP address", options->http_address);
    return FALSE;
  }
  inet = g_inet_socket_address_get_address(G_INET_SOCKET_ADDRESS(address));
  if (!g_inet_address_get_is_loopback(inet) && !access_has_users(self->params.access)) {
    g_set_error(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE,
                "--http-address=%s: prompts from other machines need --users or --htdigest",
                options->http_address);
    return FALSE;
  }
  if (!g_socket_listener_add_address(G_SOCKET_LISTENER(self->service), address,
                                     G_SOCKET_TYPE_STREAM, G_SOCKET_PROTOCOL_TCP, NULL, &effective,
                                     error)) {
    g_prefix_error(error, "HTTP on %s, port %u: ", options->http_address, options->http_port);
    return FALSE;
  }
  self->port = g_inet_socket_address_get_port(G_INET_SOCKET_ADDRESS(effective));
  return TRUE;
}

Http *
http_new(const HttpParams *params, GError **error)
{
  g_autoptr(Http) self = g_new0(Http, 1);

  self->params = *params;
  self->tokens = BURST;
  self->counted = g_get_monotonic_time();
  self->connections = g_hash_table_new(NULL, NULL);
  self->service = g_socket_service_new();
  self->server = soup_server_new("server-header", "opensora-rtsp-server", NULL);
  soup_server_add_early_handler(self->server, NULL, on_headers, self, NULL);
  soup_server_add_handler(self->server, NULL, on_request, self, NULL);
  access_apply_to_http(params->access, self->server);
  if (!listen_at(self, error))
    return NULL;
  g_signal_connect(self->service, "incoming", G_CALLBACK(on_incoming), self);
  return g_steal_pointer(&self);
}

void
http_free(Http *self)
{
  GHashTableIter iter;
  gpointer connection;

  g_hash_table_iter_init(&iter, self->connections);
  while (g_hash_table_iter_next(&iter, &connection, NULL))
    g_object_weak_unref(connection, on_gone, self);
  g_hash_table_unref(self->connections);
  g_socket_service_stop(self->service);
  g_socket_listener_close(G_SOCKET_LISTENER(self->service));
  g_object_unref(self->service);
  soup_server_disconnect(self->server);
  g_object_unref(self->server);
  g_free(self);
}

char *
http_get_url(Http *self)
{
  const char *scheme = self->params.access->certificate ? "https" : "http";

  return g_uri_join(G_URI_FLAGS_NONE, scheme, NULL, self->params.options->http_address, self->port,
                    "/", NULL, NULL);
}
