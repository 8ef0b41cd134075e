/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tool.h"

#include <json-glib/json-glib.h>

#define MAX_BRACKETS 1000

typedef enum { FIELD_UINT, FIELD_INT, FIELD_DOUBLE, FIELD_BOOL } FieldType;

typedef struct {
  const char *key;
  FieldType type;
  gsize offset;
  gboolean optional; /* keeps its value if absent */
} Field;

#define UINT(type, field)                                                                          \
  {                                                                                                \
#field, FIELD_UINT, G_STRUCT_OFFSET(type, field), FALSE                                        \
  }
#define DOUBLE(type, field)                                                                        \
  {                                                                                                \
#field, FIELD_DOUBLE, G_STRUCT_OFFSET(type, field), FALSE                                      \
  }
#define BOOL(type, field)                                                                          \
  {                                                                                                \
#field, FIELD_BOOL, G_STRUCT_OFFSET(type, field), FALSE                                        \
  }
#define OPTIONAL(type, field, what)                                                                \
  {                                                                                                \
#field, what, G_STRUCT_OFFSET(type, field), TRUE                                               \
  }

static gboolean
bad(const char *key, const char *why, GError **error)
{
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "config: '%s' %s", key, why);
  return FALSE;
}

static gboolean
read_uint(JsonNode *node, guint *value)
{
  gint64 n;

  if (!JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_INT64)
    return FALSE;
  n = json_node_get_int(node);
  *value = (guint) n;
  return n >= 0 && n <= G_MAXINT32;
}

static gboolean
read_field(JsonNode *node, const Field *field, gpointer config, GError **error)
{
  gpointer at = (char *) config + field->offset;
  GType type = JSON_NODE_HOLDS_VALUE(node) ? json_node_get_value_type(node) : G_TYPE_INVALID;

  switch (field->type) {
  case FIELD_UINT:
    return read_uint(node, at) || bad(field->key, "is no size", error);
  case FIELD_INT:
    if (type != G_TYPE_INT64)
      return bad(field->key, "is no integer", error);
    *(gint *) at = (gint) json_node_get_int(node);
    return TRUE;
  case FIELD_DOUBLE:
    if (type != G_TYPE_INT64 && type != G_TYPE_DOUBLE)
      return bad(field->key, "is no number", error);
    *(double *) at = json_node_get_double(node);
    return TRUE;
  case FIELD_BOOL:
    if (type != G_TYPE_BOOLEAN)
      return bad(field->key, "is neither true nor false", error);
    *(gboolean *) at = json_node_get_boolean(node);
    return TRUE;
  }
  return FALSE;
}

static gboolean
read_fields(JsonObject *object, const Field *fields, guint n, gpointer config, GError **error)
{
  for (guint i = 0; i < n; i++) {
    JsonNode *node = json_object_get_member(object, fields[i].key);

    if (!node && fields[i].optional)
      continue;
    if (!node)
      return bad(fields[i].key, "is missing", error);
    if (!read_field(node, &fields[i], config, error))
      return FALSE;
  }
  return TRUE;
}

/* At most @max sizes; returns how many, 0 with @error set if there is anything else. */
static guint
read_array(JsonObject *object, const char *key, guint *values, guint max, GError **error)
{
  JsonNode *node = json_object_get_member(object, key);
  JsonArray *array = node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
  guint n = array ? json_array_get_length(array) : 0;

  if (n < 1 || n > max) {
    bad(key, "is no list of as many sizes as are possible", error);
    return 0;
  }
  for (guint i = 0; i < n; i++) {
    if (!read_uint(json_array_get_element(array, i), &values[i])) {
      bad(key, "holds something else than sizes", error);
      return 0;
    }
  }
  return n;
}

/* json-glib recurses: as many brackets as no config has would run it out of stack. */
static gboolean
is_flat(const char *json)
{
  guint brackets = 0;

  for (const char *c = json; *c && brackets <= MAX_BRACKETS; c++)
    brackets += *c == '[' || *c == '{';
  return brackets <= MAX_BRACKETS;
}

static JsonObject *
parse(const char *json, GError **error)
{
  g_autoptr(GError) reason = NULL;
  g_autoptr(JsonNode) root = is_flat(json) ? json_from_string(json, &reason) : NULL;

  if (root && JSON_NODE_HOLDS_OBJECT(root))
    return json_node_dup_object(root);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "config: %s",
              reason ? reason->message : "no JSON object");
  return NULL;
}

gboolean
tool_config_mmdit(const char *json, OsrMmditConfig *config, GError **error)
{
  static const Field fields[] = {
    UINT(OsrMmditConfig, in_channels),    UINT(OsrMmditConfig, vec_in_dim),
    UINT(OsrMmditConfig, context_in_dim), UINT(OsrMmditConfig, hidden_size),
    DOUBLE(OsrMmditConfig, mlp_ratio),    UINT(OsrMmditConfig, num_heads),
    UINT(OsrMmditConfig, depth),          UINT(OsrMmditConfig, depth_single_blocks),
    DOUBLE(OsrMmditConfig, theta),        BOOL(OsrMmditConfig, qkv_bias),
    BOOL(OsrMmditConfig, guidance_embed), BOOL(OsrMmditConfig, cond_embed),
    BOOL(OsrMmditConfig, fused_qkv),      BOOL(OsrMmditConfig, use_liger_rope),
    UINT(OsrMmditConfig, patch_size),
  };
  g_autoptr(JsonObject) object = parse(json, error);

  *config = (OsrMmditConfig){ 0 };
  if (!object || !read_fields(object, fields, G_N_ELEMENTS(fields), config, error))
    return FALSE;
  switch (read_array(object, "axes_dim", config->axes_dim, 3, error)) {
  case 0:
    return FALSE;
  case 3:
    return TRUE;
  default:
    return bad("axes_dim", "has not three sizes", error);
  }
}

gboolean
tool_config_t5(const char *json, OsrT5Config *config, GError **error)
{
  static const Field fields[] = {
    UINT(OsrT5Config, vocab_size),
    UINT(OsrT5Config, d_model),
    UINT(OsrT5Config, d_kv),
    UINT(OsrT5Config, d_ff),
    UINT(OsrT5Config, num_layers),
    UINT(OsrT5Config, num_heads),
    OPTIONAL(OsrT5Config, relative_attention_num_buckets, FIELD_UINT),
    OPTIONAL(OsrT5Config, relative_attention_max_distance, FIELD_UINT),
    OPTIONAL(OsrT5Config, layer_norm_epsilon, FIELD_DOUBLE),
  };
  g_autoptr(JsonObject) object = parse(json, error);

  *config = (OsrT5Config){
    .relative_attention_num_buckets = 32,
    .relative_attention_max_distance = 128,
    .layer_norm_epsilon = 1e-6,
  };
  return object && read_fields(object, fields, G_N_ELEMENTS(fields), config, error);
}

static gboolean
activation(JsonObject *object, OsrAct *act, GError **error)
{
  const char *name = json_object_get_string_member_with_default(object, "hidden_act", "quick_gelu");

  if (g_str_equal(name, "quick_gelu"))
    *act = OSR_ACT_QUICK_GELU;
  else if (g_str_equal(name, "gelu"))
    *act = OSR_ACT_GELU_ERF;
  else
    return bad("hidden_act", "is neither quick_gelu nor gelu", error);
  return TRUE;
}

gboolean
tool_config_clip(const char *json, OsrClipConfig *config, GError **error)
{
  static const Field fields[] = {
    UINT(OsrClipConfig, vocab_size),
    UINT(OsrClipConfig, hidden_size),
    UINT(OsrClipConfig, intermediate_size),
    UINT(OsrClipConfig, num_hidden_layers),
    UINT(OsrClipConfig, num_attention_heads),
    OPTIONAL(OsrClipConfig, max_position_embeddings, FIELD_UINT),
    OPTIONAL(OsrClipConfig, layer_norm_eps, FIELD_DOUBLE),
    OPTIONAL(OsrClipConfig, eos_token_id, FIELD_INT),
  };
  g_autoptr(JsonObject) object = parse(json, error);
  JsonObject *text = object;

  *config = (OsrClipConfig){
    .max_position_embeddings = 77,
    .layer_norm_eps = 1e-5,
    .eos_token_id = 2,
  };
  if (!object)
    return FALSE;
  if (json_object_has_member(object, "text_config")) {
    JsonNode *node = json_object_get_member(object, "text_config");

    if (!JSON_NODE_HOLDS_OBJECT(node))
      return bad("text_config", "is no object", error);
    text = json_node_get_object(node);
  }
  return read_fields(text, fields, G_N_ELEMENTS(fields), config, error) &&
         activation(text, &config->hidden_act, error);
}

gboolean
tool_config_vae(const char *json, OsrVaeConfig *config, GError **error)
{
  static const Field fields[] = {
    UINT(OsrVaeConfig, latent_channels),
    UINT(OsrVaeConfig, layers_per_block),
    UINT(OsrVaeConfig, norm_num_groups),
    UINT(OsrVaeConfig, time_compression_ratio),
    UINT(OsrVaeConfig, spatial_compression_ratio),
    DOUBLE(OsrVaeConfig, scale_factor),
    DOUBLE(OsrVaeConfig, shift_factor),
    OPTIONAL(OsrVaeConfig, in_channels, FIELD_UINT),
    OPTIONAL(OsrVaeConfig, out_channels, FIELD_UINT),
    OPTIONAL(OsrVaeConfig, mid_block_add_attention, FIELD_BOOL),
    OPTIONAL(OsrVaeConfig, sample_size, FIELD_UINT),
    OPTIONAL(OsrVaeConfig, sample_tsize, FIELD_UINT),
    OPTIONAL(OsrVaeConfig, tile_overlap_factor, FIELD_DOUBLE),
  };
  g_autoptr(JsonObject) object = parse(json, error);

  *config = (OsrVaeConfig){
    .in_channels = 3,
    .out_channels = 3,
    .mid_block_add_attention = TRUE,
    .sample_size = 256,
    .sample_tsize = 64,
    .tile_overlap_factor = 0.25,
  };
  if (!object || !read_fields(object, fields, G_N_ELEMENTS(fields), config, error))
    return FALSE;
  config->n_blocks = read_array(object, "block_out_channels", config->block_out_channels,
                                OSR_VAE_MAX_BLOCKS, error);
  return config->n_blocks > 0;
}
