/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "config-section.h"

#include "error.h"
#include "json-private.h"
#include "log-private.h"
#include "text-private.h"

#define MAX_SIZE (16u << 20)

gboolean
osr_config_fail(const OsrConfigSection *section, const char *key, GError **error,
                const char *format, ...)
{
  g_autofree char *reason = NULL;
  va_list args;

  va_start(args, format);
  reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s%s: %s", section->file,
              section->prefix, key, reason);
  return FALSE;
}

gboolean
osr_config_fail_check(const char *file, GError *reason, GError **error)
{
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s", file, reason->message);
  g_error_free(reason);
  return FALSE;
}

/* The root */

/* json-glib takes more than JSON and recurses without limit, so the strict reader goes over
 * the text first. */
static gboolean
check_text(const char *text, gsize length, const char *name, GError **error)
{
  OsrJsonReader reader;

  if (!osr_text_check_utf8(text, length, name, error))
    return FALSE;
  osr_json_init(&reader, text, length);
  if (length > MAX_SIZE)
    osr_json_fail(&reader, "the file is too large");
  else if (osr_json_skip(&reader))
    osr_json_end(&reader);
  if (!osr_json_failed(&reader))
    return TRUE;
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: offset %" G_GSIZE_FORMAT ": %s", name,
              (gsize) (reader.at - reader.start), reader.reason);
  return FALSE;
}

JsonObject *
osr_config_read_text(const char *text, gsize length, const char *name, GError **error)
{
  g_autoptr(JsonParser) parser = json_parser_new_immutable();
  g_autoptr(GError) reason = NULL;
  JsonNode *root;

  if (!check_text(text, length, name, error))
    return NULL;
  if (!json_parser_load_from_data(parser, text, (gssize) length, &reason)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s", name, reason->message);
    return NULL;
  }
  root = json_parser_get_root(parser);
  if (!JSON_NODE_HOLDS_OBJECT(root)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: is not an object", name);
    return NULL;
  }
  return json_node_dup_object(root);
}

JsonObject *
osr_config_read_file(const char *path, GError **error)
{
  g_autofree char *text = NULL;
  gsize length;

  if (!osr_file_read(path, &text, &length, error))
    return NULL;
  return osr_config_read_text(text, length, path, error);
}

/* What is in it */

gboolean
osr_config_open(const OsrConfigSection *parent, const char *key, const char *prefix,
                OsrConfigSection *section, GError **error)
{
  JsonNode *node = json_object_get_member(parent->object, key);

  if (node == NULL)
    return osr_config_fail(parent, key, error, "is missing");
  if (!JSON_NODE_HOLDS_OBJECT(node))
    return osr_config_fail(parent, key, error, "is not an object");
  *section = (OsrConfigSection){ parent->file, prefix, json_node_get_object(node) };
  return TRUE;
}

static gboolean
read_number(const OsrConfigSection *section, JsonNode *node, const OsrConfigField *field,
            double *value, GError **error)
{
  const GType type = JSON_NODE_HOLDS_VALUE(node) ? json_node_get_value_type(node) : G_TYPE_INVALID;

  if (type != G_TYPE_INT64 && (type != G_TYPE_DOUBLE || field->type == OSR_CONFIG_UINT))
    return osr_config_fail(section, field->key, error, "is not %s",
                           field->type == OSR_CONFIG_UINT ? "an integer" : "a number");
  *value = json_node_get_double(node);
  if (!(*value >= field->min && *value <= field->max))
    return osr_config_fail(section, field->key, error, "%.15g is not in %.15g to %.15g", *value,
                           field->min, field->max);
  return TRUE;
}

static gboolean
read_field(const OsrConfigSection *section, const OsrConfigField *field, gpointer config,
           GError **error)
{
  JsonNode *node = json_object_get_member(section->object, field->key);
  gpointer member = G_STRUCT_MEMBER_P(config, field->offset);
  double number = 0;

  if (node == NULL)
    return !field->required || osr_config_fail(section, field->key, error, "is missing");
  if (field->type == OSR_CONFIG_BOOLEAN) {
    if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_BOOLEAN)
      return osr_config_fail(section, field->key, error, "is not true or false");
    *(gboolean *) member = json_node_get_boolean(node);
    return TRUE;
  }
  if (!read_number(section, node, field, &number, error))
    return FALSE;
  if (field->type == OSR_CONFIG_UINT)
    *(guint *) member = (guint) number;
  else
    *(double *) member = number;
  return TRUE;
}

gboolean
osr_config_read_fields(const OsrConfigSection *section, const OsrConfigField *fields, gsize n,
                       gpointer config, GError **error)
{
  for (gsize i = 0; i < n; i++) {
    if (!read_field(section, &fields[i], config, error))
      return FALSE;
  }
  return TRUE;
}

gboolean
osr_config_read_uints(const OsrConfigSection *section, const char *key, guint min, guint max,
                      guint most, guint *values, guint *n, GError **error)
{
  const OsrConfigField element = { key, 0, OSR_CONFIG_UINT, 1, most, FALSE };
  JsonNode *node = json_object_get_member(section->object, key);
  JsonArray *array;
  double value = 0;

  if (node == NULL)
    return osr_config_fail(section, key, error, "is missing");
  if (!JSON_NODE_HOLDS_ARRAY(node))
    return osr_config_fail(section, key, error, "is not an array");
  array = json_node_get_array(node);
  *n = json_array_get_length(array);
  if (*n < min || *n > max)
    return osr_config_fail(section, key, error, "has %u elements, not %u to %u", *n, min, max);
  for (guint i = 0; i < *n; i++) {
    if (!read_number(section, json_array_get_element(array, i), &element, &value, error))
      return FALSE;
    values[i] = (guint) value;
  }
  return TRUE;
}

/* The array @key, or what is in it; it has to have @n elements. */
static JsonArray *
get_array(const OsrConfigSection *section, const char *key, JsonNode *node, guint n, GError **error)
{
  if (node == NULL)
    osr_config_fail(section, key, error, "is missing");
  else if (!JSON_NODE_HOLDS_ARRAY(node))
    osr_config_fail(section, key, error, "is not an array");
  else if (json_array_get_length(json_node_get_array(node)) != n)
    osr_config_fail(section, key, error, "has %u elements, not %u",
                    json_array_get_length(json_node_get_array(node)), n);
  else
    return json_node_get_array(node);
  return NULL;
}

static gboolean
read_numbers(const OsrConfigSection *section, const char *key, JsonNode *node, double most, guint n,
             float *values, GError **error)
{
  const OsrConfigField element = { key, 0, OSR_CONFIG_DOUBLE, -most, most, FALSE };
  JsonArray *array = get_array(section, key, node, n, error);
  double value = 0;

  for (guint i = 0; array && i < n; i++) {
    if (!read_number(section, json_array_get_element(array, i), &element, &value, error))
      return FALSE;
    values[i] = (float) value;
  }
  return array != NULL;
}

gboolean
osr_config_read_numbers(const OsrConfigSection *section, const char *key, double most, guint n,
                        float *values, GError **error)
{
  return read_numbers(section, key, json_object_get_member(section->object, key), most, n, values,
                      error);
}

gboolean
osr_config_read_matrix(const OsrConfigSection *section, const char *key, double most, guint rows,
                       guint n, float *values, GError **error)
{
  JsonArray *array =
      get_array(section, key, json_object_get_member(section->object, key), rows, error);

  for (guint i = 0; array && i < rows; i++) {
    if (!read_numbers(section, key, json_array_get_element(array, i), most, n,
                      values + (gsize) i * n, error))
      return FALSE;
  }
  return array != NULL;
}

const char *
osr_config_read_string(const OsrConfigSection *section, const char *key, const char *fallback,
                       GError **error)
{
  JsonNode *node = json_object_get_member(section->object, key);

  if (node == NULL && fallback != NULL)
    return fallback;
  if (node == NULL) {
    osr_config_fail(section, key, error, "is missing");
    return NULL;
  }
  if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_STRING) {
    osr_config_fail(section, key, error, "is not a string");
    return NULL;
  }
  return json_node_get_string(node);
}

static gboolean
is_known(const char *key, const OsrConfigField *fields, gsize n, const char *const *others)
{
  for (gsize i = 0; i < n; i++) {
    if (g_str_equal(fields[i].key, key))
      return TRUE;
  }
  return g_strv_contains(others, key);
}

void
osr_config_log_unknown(const OsrConfigSection *section, const OsrConfigField *fields, gsize n,
                       const char *const *others)
{
  g_autoptr(GList) keys = json_object_get_members(section->object);

  for (GList *l = keys; l != NULL; l = l->next) {
    if (!is_known(l->data, fields, n, others))
      osr_debug("%s: unknown key %s%s", section->file, section->prefix, (const char *) l->data);
  }
}
