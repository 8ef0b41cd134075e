/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * config-section.h: the objects of a JSON file, read into structs by tables of their keys.
 * Errors name the file and the key.
 */
#pragma once

#include <json-glib/json-glib.h>

#include "error.h"
#include "json-private.h"
#include "log-private.h"
#include "text-private.h"

G_BEGIN_DECLS

#define OSR_CONFIG_MAX_SIZE (16u << 20)

typedef struct {
  const char *file;
  const char *prefix; /* "mmdit." in messages, "" at the top */
  JsonObject *object;
} Section;

typedef enum {
  FIELD_UINT,
  FIELD_DOUBLE,
  FIELD_BOOLEAN,
} FieldType;

typedef struct {
  const char *key;
  FieldType type;
  gsize offset;
  double min, max;
  gboolean required; /* otherwise the struct's value stays if the key is absent */
} Field;

/* The first three members of a Field. */
#define UINT(type, member) #member, FIELD_UINT, G_STRUCT_OFFSET(type, member)
#define DOUBLE(type, member) #member, FIELD_DOUBLE, G_STRUCT_OFFSET(type, member)
#define BOOLEAN(type, member) #member, FIELD_BOOLEAN, G_STRUCT_OFFSET(type, member)

G_GNUC_PRINTF(4, 5)
static inline gboolean
section_fail(const Section *section, const char *key, GError **error, const char *format, ...)
{
  va_list args;

  va_start(args, format);
  g_autofree char *reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s%s: %s", section->file,
              section->prefix, key, reason);
  return FALSE;
}

static inline gboolean
read_number(const Section *section, JsonNode *node, const Field *field, double *value,
            GError **error)
{
  const GType type = JSON_NODE_HOLDS_VALUE(node) ? json_node_get_value_type(node) : G_TYPE_INVALID;

  if (type != G_TYPE_INT64 && (type != G_TYPE_DOUBLE || field->type == FIELD_UINT))
    return section_fail(section, field->key, error, "is not %s",
                        field->type == FIELD_UINT ? "an integer" : "a number");
  *value = json_node_get_double(node);
  if (!(*value >= field->min && *value <= field->max))
    return section_fail(section, field->key, error, "%.15g is not in %.15g to %.15g", *value,
                        field->min, field->max);
  return TRUE;
}

static inline gboolean
read_field(const Section *section, const Field *field, gpointer config, GError **error)
{
  JsonNode *node = json_object_get_member(section->object, field->key);
  gpointer member = G_STRUCT_MEMBER_P(config, field->offset);
  double number = 0;

  if (node == NULL)
    return !field->required || section_fail(section, field->key, error, "is missing");
  if (field->type == FIELD_BOOLEAN) {
    if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_BOOLEAN)
      return section_fail(section, field->key, error, "is not true or false");
    *(gboolean *) member = json_node_get_boolean(node);
    return TRUE;
  }
  if (!read_number(section, node, field, &number, error))
    return FALSE;
  if (field->type == FIELD_UINT)
    *(guint *) member = (guint) number;
  else
    *(double *) member = number;
  return TRUE;
}

static inline gboolean
read_fields(const Section *section, const Field *fields, gsize n, gpointer config, GError **error)
{
  for (gsize i = 0; i < n; i++) {
    if (!read_field(section, &fields[i], config, error))
      return FALSE;
  }
  return TRUE;
}

/* An array of @min to @max positive integers. */
static inline gboolean
read_uints(const Section *section, const char *key, guint min, guint max, guint *values, guint *n,
           GError **error)
{
  const Field element = { key, FIELD_UINT, 0, 1, 65536, FALSE };
  JsonNode *node = json_object_get_member(section->object, key);
  double value = 0;

  if (node == NULL)
    return section_fail(section, key, error, "is missing");
  if (!JSON_NODE_HOLDS_ARRAY(node))
    return section_fail(section, key, error, "is not an array");
  JsonArray *array = json_node_get_array(node);
  *n = json_array_get_length(array);
  if (*n < min || *n > max)
    return section_fail(section, key, error, "has %u elements, not %u to %u", *n, min, max);
  for (guint i = 0; i < *n; i++) {
    if (!read_number(section, json_array_get_element(array, i), &element, &value, error))
      return FALSE;
    values[i] = (guint) value;
  }
  return TRUE;
}

/* A string; @fallback NULL: it must be there. Valid as long as the section. */
static inline const char *
read_string(const Section *section, const char *key, const char *fallback, GError **error)
{
  JsonNode *node = json_object_get_member(section->object, key);

  if (node == NULL && fallback != NULL)
    return fallback;
  if (node == NULL) {
    section_fail(section, key, error, "is missing");
    return NULL;
  }
  if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_STRING) {
    section_fail(section, key, error, "is not a string");
    return NULL;
  }
  return json_node_get_string(node);
}

/* An object inside an object. @prefix is its name and a full stop. */
static inline gboolean
open_section(const Section *parent, const char *key, const char *prefix, Section *section,
             GError **error)
{
  JsonNode *node = json_object_get_member(parent->object, key);

  if (node == NULL)
    return section_fail(parent, key, error, "is missing");
  if (!JSON_NODE_HOLDS_OBJECT(node))
    return section_fail(parent, key, error, "is not an object");
  *section = (Section){ parent->file, prefix, json_node_get_object(node) };
  return TRUE;
}

static inline gboolean
is_known(const char *key, const Field *fields, gsize n, const char *const *others)
{
  for (gsize i = 0; i < n; i++) {
    if (g_str_equal(fields[i].key, key))
      return TRUE;
  }
  return g_strv_contains(others, key);
}

/* Says which keys nobody reads: a misspelt one would pass unseen. */
static inline void
log_unknown(const Section *section, const Field *fields, gsize n, const char *const *others)
{
  g_autoptr(GList) keys = json_object_get_members(section->object);

  for (GList *l = keys; l != NULL; l = l->next) {
    if (!is_known(l->data, fields, n, others))
      osr_debug("%s: unknown key %s%s", section->file, section->prefix, (const char *) l->data);
  }
}

/* The root object. json-glib takes more than JSON and recurses without limit, so the strict
 * reader goes over the text first. */
static inline JsonObject *
read_object(const char *path, GError **error)
{
  g_autoptr(JsonParser) parser = json_parser_new_immutable();
  g_autoptr(GError) reason = NULL;
  g_autofree char *text = NULL;
  OsrJsonReader reader;
  gsize length;

  if (!osr_file_read_utf8(path, &text, &length, error))
    return NULL;
  osr_json_init(&reader, text, length);
  if (length > OSR_CONFIG_MAX_SIZE)
    osr_json_fail(&reader, "the file is too large");
  else if (osr_json_skip(&reader))
    osr_json_end(&reader);
  if (osr_json_failed(&reader)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: offset %" G_GSIZE_FORMAT ": %s",
                path, (gsize) (reader.at - reader.start), reader.reason);
    return NULL;
  }
  if (!json_parser_load_from_data(parser, text, (gssize) length, &reason)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s", path, reason->message);
    return NULL;
  }
  JsonNode *root = json_parser_get_root(parser);
  if (!JSON_NODE_HOLDS_OBJECT(root)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: is not an object", path);
    return NULL;
  }
  return json_node_dup_object(root);
}

G_END_DECLS
