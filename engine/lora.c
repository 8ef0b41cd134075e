/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lora.h"

#include <math.h>
#include <string.h>

#include "checkpoint-private.h"
#include "config-section.h"
#include "error.h"

#define CONFIG "adapter_config.json"
#define PREFIX "base_model.model."
#define MAX_RANK 65536
#define MAX_PATTERN 256
#define MAX_WEIGHT 1000.0

/* The pair of one module: W += scale * b a. */
typedef struct {
  char *module;                /* "double_blocks.0.img_attn.qkv" */
  const OsrCheckpointEntry *a; /* [rank, columns] */
  const OsrCheckpointEntry *b; /* [rows, rank] */
  float scale;
  gint used; /* atomic: a model may be checked while it is loaded */
} Pair;

typedef struct {
  OsrCheckpoint *weights;
  GPtrArray *pairs;      /* Pair, owned, as in the file */
  GHashTable *by_module; /* pair->module -> pair */
} Adapter;

struct _OsrLoras {
  GPtrArray *adapters;
};

/* adapter_config.json */
typedef struct {
  guint r;
  double lora_alpha;
  gboolean use_rslora, use_dora, lora_bias;
  JsonObject *rank_pattern, *alpha_pattern; /* borrowed, NULL: none */
} Config;

static void
pair_free(gpointer data)
{
  Pair *pair = data;

  g_free(pair->module);
  g_free(pair);
}

static void
adapter_free(gpointer data)
{
  Adapter *adapter = data;

  g_clear_pointer(&adapter->weights, osr_checkpoint_unref);
  g_hash_table_unref(adapter->by_module);
  g_ptr_array_unref(adapter->pairs);
  g_free(adapter);
}

/* Configuration */

static gboolean
refuse(const OsrConfigSection *section, const char *key, GError **error, const char *what)
{
  g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "%s: %s: %s", section->file, key, what);
  return FALSE;
}

/* Whether the key has something in it: null, false, [], {} and "" have nothing. */
static gboolean
is_set(const OsrConfigSection *section, const char *key)
{
  JsonNode *node = json_object_get_member(section->object, key);

  if (!node || JSON_NODE_HOLDS_NULL(node))
    return FALSE;
  if (JSON_NODE_HOLDS_ARRAY(node))
    return json_array_get_length(json_node_get_array(node)) > 0;
  if (JSON_NODE_HOLDS_OBJECT(node))
    return json_object_get_size(json_node_get_object(node)) > 0;
  if (json_node_get_value_type(node) == G_TYPE_STRING)
    return *json_node_get_string(node) != '\0';
  return json_node_get_value_type(node) != G_TYPE_BOOLEAN || json_node_get_boolean(node);
}

static gboolean
check_kind(const OsrConfigSection *section, GError **error)
{
  /* These start from other weights than the model's own. */
  static const char *const starts[] = { "pissa", "olora", "corda", "loftq" };
  const char *type = osr_config_read_string(section, "peft_type", "LORA", error), *bias;
  JsonNode *start = json_object_get_member(section->object, "init_lora_weights");

  if (!type)
    return FALSE;
  if (!g_str_equal(type, "LORA"))
    return osr_config_fail(section, "peft_type", error, "\"%s\" is not \"LORA\"", type);
  bias = osr_config_read_string(section, "bias", "none", error);
  if (!bias)
    return FALSE;
  if (!g_str_equal(bias, "none"))
    return refuse(section, "bias", error, "adapters of biases cannot be merged");
  if (is_set(section, "modules_to_save"))
    return refuse(section, "modules_to_save", error, "whole modules cannot be merged");
  if (start && JSON_NODE_HOLDS_VALUE(start) && json_node_get_value_type(start) == G_TYPE_STRING)
    for (guint i = 0; i < G_N_ELEMENTS(starts); i++)
      if (g_str_has_prefix(json_node_get_string(start), starts[i]))
        return refuse(section, "init_lora_weights", error,
                      "the adapter belongs to weights that its training has changed");
  return TRUE;
}

static gboolean
read_pattern(const OsrConfigSection *section, const char *key, JsonObject **pattern, GError **error)
{
  JsonNode *node = json_object_get_member(section->object, key);

  if (!node || JSON_NODE_HOLDS_NULL(node))
    return TRUE;
  if (!JSON_NODE_HOLDS_OBJECT(node))
    return osr_config_fail(section, key, error, "is not an object");
  *pattern = json_node_get_object(node);
  return TRUE;
}

static gboolean
read_config(const OsrConfigSection *section, Config *config, GError **error)
{
  static const OsrConfigField fields[] = {
    { OSR_CONFIG_MEMBER(Config, r), OSR_CONFIG_UINT, 1, MAX_RANK, TRUE },
    { OSR_CONFIG_MEMBER(Config, lora_alpha), OSR_CONFIG_DOUBLE, -1e6, 1e6, TRUE },
    { OSR_CONFIG_MEMBER(Config, use_rslora), OSR_CONFIG_BOOLEAN, 0, 1, FALSE },
    { OSR_CONFIG_MEMBER(Config, use_dora), OSR_CONFIG_BOOLEAN, 0, 1, FALSE },
    { OSR_CONFIG_MEMBER(Config, lora_bias), OSR_CONFIG_BOOLEAN, 0, 1, FALSE },
  };

  if (!check_kind(section, error) ||
      !osr_config_read_fields(section, fields, G_N_ELEMENTS(fields), config, error) ||
      !read_pattern(section, "rank_pattern", &config->rank_pattern, error) ||
      !read_pattern(section, "alpha_pattern", &config->alpha_pattern, error))
    return FALSE;
  if (config->use_dora)
    return refuse(section, "use_dora", error, "DoRA cannot be merged");
  if (config->lora_bias)
    return refuse(section, "lora_bias", error, "adapters of biases cannot be merged");
  return TRUE;
}

/* Whether a key of a pattern is @module or, after a full stop, its end. Keys are regular
 * expressions. */
static gboolean
pattern_matches(const OsrConfigSection *section, const char *key, const char *name,
                const char *module, gboolean *matches, GError **error)
{
  g_autofree char *text = g_strdup_printf("^(?:(?:.*\\.)?(?:%s))$", name);
  g_autoptr(GError) reason = NULL;
  g_autoptr(GRegex) regex = NULL;

  if (strlen(name) > MAX_PATTERN)
    return osr_config_fail(section, key, error, "a name of more than %d characters", MAX_PATTERN);
  /* PEFT anchors names itself, newer versions take "^name" for the whole of it. */
  if (*name == '^') {
    g_free(text);
    text = g_strdup_printf("(?:%s)$", name);
  }
  regex = g_regex_new(text, 0, 0, &reason);
  *matches = regex && g_regex_match_full(regex, module, -1, 0, 0, NULL, &reason);
  if (!reason)
    return TRUE;
  return osr_config_fail(section, key, error, "\"%s\": %s", name, reason->message);
}

/* The number that the first matching key has; *value stays if none matches. */
static gboolean
look_up_pattern(const OsrConfigSection *section, const char *key, JsonObject *pattern,
                const char *module, double *value, GError **error)
{
  g_autoptr(GList) names = pattern ? json_object_get_members(pattern) : NULL;

  for (GList *l = names; l; l = l->next) {
    JsonNode *node = json_object_get_member(pattern, l->data);
    gboolean matches = FALSE;

    if (!pattern_matches(section, key, l->data, module, &matches, error))
      return FALSE;
    if (!matches)
      continue;
    if (!JSON_NODE_HOLDS_VALUE(node) || (json_node_get_value_type(node) != G_TYPE_INT64 &&
                                         json_node_get_value_type(node) != G_TYPE_DOUBLE))
      return osr_config_fail(section, key, error, "\"%s\" has no number", (const char *) l->data);
    *value = json_node_get_double(node);
    return TRUE;
  }
  return TRUE;
}

/* Pairs */

static gboolean
fail_tensor(const OsrCheckpointEntry *entry, OsrError code, GError **error, const char *reason)
{
  g_autofree char *shown = osr_printable(entry->name);

  g_set_error(error, OSR_ERROR, (gint) code, "%s: tensor '%s': %s", entry->path, shown, reason);
  return FALSE;
}

/* "base_model.model.MODULE.lora_A.weight", also with the adapter's name before "weight". */
static char *
module_of(const OsrCheckpointEntry *entry, gboolean *is_a)
{
  const char *name = entry->name, *at;

  if (g_str_has_prefix(name, PREFIX))
    name += strlen(PREFIX);
  *is_a = (at = strstr(name, ".lora_A.")) != NULL;
  if (!at)
    at = strstr(name, ".lora_B.");
  if (!at || at == name || !g_str_has_suffix(at, ".weight"))
    return NULL;
  return g_strndup(name, (gsize) (at - name));
}

static gboolean
add_tensor(Adapter *adapter, const OsrCheckpointEntry *entry, GError **error)
{
  gboolean is_a;
  g_autofree char *module = module_of(entry, &is_a);
  Pair *pair;

  if (!module)
    return fail_tensor(entry, OSR_ERROR_UNSUPPORTED, error,
                       "neither lora_A nor lora_B of a linear layer; nothing else can be merged");
  if (entry->n_dims != 2 || entry->dims[0] < 1 || entry->dims[1] < 1)
    return fail_tensor(entry, OSR_ERROR_SHAPE, error, "no matrix, as those of linear layers are");
  pair = g_hash_table_lookup(adapter->by_module, module);
  if (!pair) {
    pair = g_new0(Pair, 1);
    pair->module = g_steal_pointer(&module);
    g_ptr_array_add(adapter->pairs, pair);
    g_hash_table_insert(adapter->by_module, pair->module, pair);
  }
  if (is_a ? pair->a : pair->b)
    return fail_tensor(entry, OSR_ERROR_INVALID_FILE, error, "its module has two of them");
  if (is_a)
    pair->a = entry;
  else
    pair->b = entry;
  return TRUE;
}

static gboolean
finish_pair(Pair *pair, const OsrConfigSection *section, const Config *config, double weight,
            GError **error)
{
  double rank = config->r, alpha = config->lora_alpha;

  if (!pair->a || !pair->b)
    return fail_tensor(pair->a ? pair->a : pair->b, OSR_ERROR_INVALID_FILE, error,
                       pair->a ? "it has no lora_B beside it" : "it has no lora_A beside it");
  if (!look_up_pattern(section, "rank_pattern", config->rank_pattern, pair->module, &rank, error) ||
      !look_up_pattern(section, "alpha_pattern", config->alpha_pattern, pair->module, &alpha,
                       error))
    return FALSE;
  if (pair->a->dims[0] != (gint64) rank || pair->b->dims[1] != (gint64) rank) {
    g_autofree char *a = osr_dims_to_string(2, pair->a->dims);
    g_autofree char *b = osr_dims_to_string(2, pair->b->dims);

    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
                "%s: module '%s': lora_A is %s and lora_B %s, which is not of rank %g as " CONFIG
                " has it",
                pair->a->path, pair->module, a, b, rank);
    return FALSE;
  }
  pair->scale = (float) (weight * alpha / (config->use_rslora ? sqrt(rank) : rank));
  return TRUE;
}

static char *
find_weights(const char *folder, GError **error)
{
  static const char *const names[] = { "adapter_model.safetensors", "adapter_model.bin" };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_autofree char *path = g_build_filename(folder, names[i], NULL);

    if (g_file_test(path, G_FILE_TEST_EXISTS))
      return g_steal_pointer(&path);
  }
  g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "LoRA folder %s: missing %s (or %s)", folder,
              names[0], names[1]);
  return NULL;
}

static gboolean
open_adapter(Adapter *adapter, const OsrLoraSpec *spec, GError **error)
{
  g_autofree char *config_path = g_build_filename(spec->path, CONFIG, NULL);
  g_autofree char *weights = NULL;
  g_autoptr(JsonObject) object = NULL;
  OsrConfigSection section;
  Config config = { 0 };

  /* Written so that a NaN fails. */
  if (!(fabs(spec->weight) <= MAX_WEIGHT)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "LoRA folder %s: weight %g is not in -%g to %g", spec->path, spec->weight,
                MAX_WEIGHT, MAX_WEIGHT);
    return FALSE;
  }
  object = osr_config_read_file(config_path, error);
  if (!object)
    return FALSE;
  section = (OsrConfigSection){ config_path, "", object };
  if (!read_config(&section, &config, error))
    return FALSE;
  weights = find_weights(spec->path, error);
  adapter->weights = weights ? osr_checkpoint_open(weights, error) : NULL;
  if (!adapter->weights)
    return FALSE;
  for (guint i = 0; i < osr_checkpoint_n_entries(adapter->weights); i++)
    if (!add_tensor(adapter, osr_checkpoint_nth(adapter->weights, i), error))
      return FALSE;
  for (guint i = 0; i < adapter->pairs->len; i++)
    if (!finish_pair(g_ptr_array_index(adapter->pairs, i), &section, &config, spec->weight, error))
      return FALSE;
  return TRUE;
}

OsrLoras *
osr_loras_open(const OsrLoraSpec *specs, guint n_specs, GError **error)
{
  g_autoptr(OsrLoras) loras = g_new0(OsrLoras, 1);

  loras->adapters = g_ptr_array_new_with_free_func(adapter_free);
  for (guint i = 0; i < n_specs; i++) {
    Adapter *adapter = g_new0(Adapter, 1);

    adapter->pairs = g_ptr_array_new_with_free_func(pair_free);
    adapter->by_module = g_hash_table_new(g_str_hash, g_str_equal);
    g_ptr_array_add(loras->adapters, adapter);
    if (!open_adapter(adapter, &specs[i], error))
      return NULL;
  }
  return g_steal_pointer(&loras);
}

void
osr_loras_free(OsrLoras *loras)
{
  if (!loras)
    return;
  g_ptr_array_unref(loras->adapters);
  g_free(loras);
}

/* Which rows of which weights */

/* Projections that are stored as one layer or as several, in the order of their rows. The first
 * two have equally many; the last has the rest. */
static const struct {
  const char *whole, *parts[3];
} groups[] = {
  { "attn.qkv", { "attn.q_proj", "attn.k_proj", "attn.v_proj" } },
  { ".linear1", { ".q_proj", ".k_proj", ".v_mlp" } },
};

/* An adapter's module that changes some layer. */
typedef struct {
  char *module;
  int part;       /* of a group, -1: it is the layer itself */
  gboolean whole; /* the layer is a part of the module, else the module one of the layer */
} Candidate;

static char *
replace_end(const char *name, const char *end, const char *with)
{
  return g_strdup_printf("%.*s%s", (int) (strlen(name) - strlen(end)), name, with);
}

static void
candidate_clear(gpointer data)
{
  g_free(((Candidate *) data)->module);
}

/* All modules that would change the weights @name; empty if it is no layer's. */
static GArray *
list_candidates(const char *name)
{
  GArray *candidates = g_array_new(FALSE, FALSE, sizeof(Candidate));
  g_autofree char *layer = NULL;
  Candidate candidate;

  g_array_set_clear_func(candidates, candidate_clear);
  if (!g_str_has_suffix(name, ".weight"))
    return candidates;
  layer = replace_end(name, ".weight", "");
  candidate = (Candidate){ g_strdup(layer), -1, FALSE };
  g_array_append_val(candidates, candidate);
  for (guint i = 0; i < G_N_ELEMENTS(groups); i++) {
    for (int part = 0; part < 3; part++) {
      if (g_str_has_suffix(layer, groups[i].whole))
        candidate =
            (Candidate){ replace_end(layer, groups[i].whole, groups[i].parts[part]), part, FALSE };
      else if (g_str_has_suffix(layer, groups[i].parts[part]))
        candidate =
            (Candidate){ replace_end(layer, groups[i].parts[part], groups[i].whole), part, TRUE };
      else
        continue;
      g_array_append_val(candidates, candidate);
    }
  }
  return candidates;
}

gboolean
osr_loras_target(OsrLoras *loras, const char *name)
{
  g_autoptr(GArray) candidates = list_candidates(name);

  for (guint i = 0; i < loras->adapters->len; i++) {
    const Adapter *adapter = g_ptr_array_index(loras->adapters, i);

    for (guint j = 0; j < candidates->len; j++)
      if (g_hash_table_contains(adapter->by_module, g_array_index(candidates, Candidate, j).module))
        return TRUE;
  }
  return FALSE;
}

/* @n rows of B from @from on go to the rows of the weights from @to on. */
typedef struct {
  gint64 from, to, n;
} Rows;

static gboolean
match_rows(const Pair *pair, const Candidate *candidate, gint64 rows, Rows *match)
{
  const gint64 b_rows = pair->b->dims[0], large = MAX(rows, b_rows), small = MIN(rows, b_rows);
  gint64 first;

  if (candidate->part < 0) {
    *match = (Rows){ 0, 0, rows };
    return b_rows == rows;
  }
  if (candidate->whole ? rows > b_rows : b_rows > rows)
    return FALSE;
  first = candidate->part == 0 ? 0 : candidate->part == 1 ? small : large - small;
  *match = candidate->whole ? (Rows){ first, 0, small } : (Rows){ 0, first, small };
  return first + small <= large;
}

/* Merging */

/* f32 on @device; [n_rows, columns] from @first_row on, transposed and scaled if asked for. */
static OsrTensor *
upload_rows(const OsrCheckpointEntry *entry, gint64 first_row, gint64 n_rows, gboolean transposed,
            float scale, OsrDevice *device, GError **error)
{
  const gint64 columns = entry->dims[1], n = entry->dims[0] * columns;
  g_autofree float *values = g_try_new(float, n), *turned = NULL;
  const float *rows;

  if (!values || (transposed && !(turned = g_try_new(float, n)))) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY, "%s: no memory for tensor '%s'", entry->path,
                entry->name);
    return NULL;
  }
  if (!osr_checkpoint_entry_to_f32(entry, values, error)) {
    g_prefix_error(error, "%s: ", entry->path);
    return NULL;
  }
  rows = values + first_row * columns;
  if (!transposed)
    return osr_tensor_new_from_host(device, OSR_DTYPE_F32, 2, (gint64[]){ n_rows, columns }, rows,
                                    error);
  for (gint64 i = 0; i < n_rows; i++)
    for (gint64 j = 0; j < columns; j++)
      turned[j * n_rows + i] = scale * rows[i * columns + j];
  return osr_tensor_new_from_host(device, OSR_DTYPE_F32, 2, (gint64[]){ columns, n_rows }, turned,
                                  error);
}

/* weight[to ..] += b[from ..] (scale a), as the linear layer with weights a^T on the rows of b. */
static gboolean
merge(const Pair *pair, const Rows *rows, OsrTensor *weight, GError **error)
{
  OsrDevice *device = weight->device;
  const gint64 columns = weight->dims[1], rank = pair->a->dims[0];
  g_autoptr(OsrTensor) a = upload_rows(pair->a, 0, rank, TRUE, pair->scale, device, error);
  g_autoptr(OsrTensor) b =
      a ? upload_rows(pair->b, rows->from, rows->n, FALSE, 1.0f, device, error) : NULL;
  float *y = (float *) weight->data + rows->to * columns;
  OsrResult result;

  if (!b)
    return FALSE;
  osr_device_lock(device);
  result = osr_device_get_ops(device)->linear(osr_device_get_context(device),
                                              &(OsrLinear){
                                                  .dtype = OSR_DTYPE_F32,
                                                  .w_dtype = OSR_DTYPE_F32,
                                                  .batch = 1,
                                                  .m = rows->n,
                                                  .n = (int) columns,
                                                  .k = (int) rank,
                                                  .x = b->data,
                                                  .x_ld = rank,
                                                  .w = a->data,
                                                  .residual = y,
                                                  .residual_ld = columns,
                                                  .y = y,
                                                  .y_ld = columns,
                                              });
  osr_device_unlock(device);
  return osr_device_check(device, result, pair->module, error);
}

/* @weight [rows, columns], NULL: only whether it fits. */
static gboolean
apply_pair(Pair *pair, const Candidate *candidate, const char *name, gint64 rows, gint64 columns,
           OsrTensor *weight, gboolean check_weights, GError **error)
{
  Rows match;

  g_atomic_int_set(&pair->used, TRUE);
  if (pair->a->dims[1] != columns || !match_rows(pair, candidate, rows, &match)) {
    g_autofree char *a = osr_dims_to_string(2, pair->a->dims);
    g_autofree char *b = osr_dims_to_string(2, pair->b->dims);

    g_set_error(error, OSR_ERROR, OSR_ERROR_SHAPE,
                "%s: module '%s': lora_A is %s and lora_B %s, which does not fit '%s' of "
                "[%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT "]",
                pair->a->path, pair->module, a, b, name, rows, columns);
    return FALSE;
  }
  if (!weight)
    return TRUE;
  if (check_weights && (!osr_checkpoint_entry_check_finite(pair->a, error) ||
                        !osr_checkpoint_entry_check_finite(pair->b, error)))
    return FALSE;
  return merge(pair, &match, weight, error);
}

gboolean
osr_loras_apply(OsrLoras *loras, const char *name, gint64 rows, gint64 columns, OsrTensor *weight,
                gboolean check_weights, GError **error)
{
  g_autoptr(GArray) candidates = list_candidates(name);

  for (guint i = 0; i < loras->adapters->len; i++) {
    const Adapter *adapter = g_ptr_array_index(loras->adapters, i);

    for (guint j = 0; j < candidates->len; j++) {
      const Candidate *candidate = &g_array_index(candidates, Candidate, j);
      Pair *pair = g_hash_table_lookup(adapter->by_module, candidate->module);

      if (pair && !apply_pair(pair, candidate, name, rows, columns, weight, check_weights, error))
        return FALSE;
    }
  }
  return TRUE;
}

gboolean
osr_loras_check_used(OsrLoras *loras, GError **error)
{
  for (guint i = 0; i < loras->adapters->len; i++) {
    const Adapter *adapter = g_ptr_array_index(loras->adapters, i);

    for (guint j = 0; j < adapter->pairs->len; j++) {
      Pair *pair = g_ptr_array_index(adapter->pairs, j);

      if (!g_atomic_int_get(&pair->used))
        return fail_tensor(pair->a, OSR_ERROR_INVALID_ARGUMENT, error,
                           "the model has no linear layer of that name");
    }
  }
  return TRUE;
}
