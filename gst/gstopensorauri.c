/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensorauri.h"

#include <string.h>

/* What an application decides: a stream that waits for prompts can only be ended by one, and the
 * memory of a device is the process's. */
static const char *const not_by_uri[] = { "is-queue", "max-queue", "memory-limit", NULL };

static gboolean refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static gboolean
refuse(GError **error, const char *format, ...)
{
  g_autofree char *reason = NULL;
  va_list args;

  va_start(args, format);
  reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, GST_URI_ERROR, GST_URI_ERROR_BAD_URI, "opensora: address: %s", reason);
  return FALSE;
}

/* What is behind "opensora://?". The question mark may be missing: ges-launch-1.0 does not take it.
 * GUri is too strict here: people type spaces. */
static const char *
find_query(const char *uri, GError **error)
{
  const char *p;

  if (!gst_uri_has_protocol(uri, GST_OPENSORA_URI_PROTOCOL)) {
    g_set_error(error, GST_URI_ERROR, GST_URI_ERROR_UNSUPPORTED_PROTOCOL,
                "\"%s\" does not begin with " GST_OPENSORA_URI_PROTOCOL ":", uri);
    return NULL;
  }
  p = strchr(uri, ':') + 1;
  if (g_str_has_prefix(p, "//"))
    p += 2;
  if (*p == '/')
    p++;
  if (*p == '?')
    p++;
  if (strchr(p, '#')) {
    refuse(error, "\"#\" has to be written %%23");
    return NULL;
  }
  if (!*p) {
    refuse(error, "it does not say what the clip shall show: opensora://?prompt=...");
    return NULL;
  }
  return p;
}

static GParamSpec *
find_property(const char *key, GObjectClass *klass, GError **error)
{
  GParamSpec *pspec = g_object_class_find_property(klass, key);

  if (!pspec || pspec->owner_type != G_OBJECT_CLASS_TYPE(klass)) {
    refuse(error, "unknown key \"%s\"", key);
    return NULL;
  }
  if (!(pspec->flags & G_PARAM_WRITABLE) || g_strv_contains(not_by_uri, pspec->name)) {
    refuse(error, "\"%s\" cannot be set by an address", key);
    return NULL;
  }
  return pspec;
}

/* @value is initialized if it is TRUE. */
static gboolean
parse_value(const char *text, GParamSpec *pspec, GValue *value, GError **error)
{
  g_value_init(value, pspec->value_type);
  if (pspec->value_type == G_TYPE_STRING)
    g_value_set_string(value, text);
  else if (!*text || !gst_value_deserialize_with_pspec(value, text, pspec) ||
           g_param_value_validate(pspec, value)) {
    g_value_unset(value);
    return refuse(error, "\"%s\" is not possible as %s (%s)", text, pspec->name,
                  g_param_spec_get_blurb(pspec));
  }
  return TRUE;
}

static void
clear_value(gpointer item)
{
  g_value_unset(&((GstOpenSoraUriValue *) item)->value);
}

static gboolean
add_value(GArray *values, const char *key, const char *text, GObjectClass *klass, GError **error)
{
  GstOpenSoraUriValue item = { .pspec = find_property(key, klass, error), .value = G_VALUE_INIT };

  if (!item.pspec)
    return FALSE;
  for (guint i = 0; i < values->len; i++)
    if (g_array_index(values, GstOpenSoraUriValue, i).pspec == item.pspec)
      return refuse(error, "\"%s\" is there twice", key);
  if (!parse_value(text, item.pspec, &item.value, error))
    return FALSE;
  g_array_append_val(values, item);
  return TRUE;
}

GArray *
gst_opensora_uri_parse(const char *uri, GObjectClass *klass, GError **error)
{
  g_autoptr(GArray) values = g_array_new(FALSE, TRUE, sizeof(GstOpenSoraUriValue));
  const char *query = find_query(uri, error);
  g_autoptr(GError) reason = NULL;
  GUriParamsIter iter;
  char *key, *text;

  if (!query)
    return NULL;
  g_array_set_clear_func(values, clear_value);
  g_uri_params_iter_init(&iter, query, -1, "&", G_URI_PARAMS_WWW_FORM);
  while (g_uri_params_iter_next(&iter, &key, &text, &reason)) {
    const gboolean ok = add_value(values, key, text, klass, error);

    g_free(key);
    g_free(text);
    if (!ok)
      return NULL;
  }
  if (reason) {
    refuse(error, "%s", reason->message);
    return NULL;
  }
  return g_steal_pointer(&values);
}
