/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "model-files.h"

#include <string.h>

#include "checkpoint-private.h"
#include "config-section.h"
#include "error.h"

#define MAX_LISTED 8

static const char *const suffixes[] = {
  ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth",
};

static gboolean
is_file(const char *path)
{
  return g_file_test(path, G_FILE_TEST_IS_REGULAR);
}

char *
osr_find_weights(const char *folder, const char *const *names)
{
  g_autofree char *first = g_strconcat(names[0], suffixes[0], NULL);

  for (guint i = 0; names[i]; i++) {
    for (guint j = 0; j < G_N_ELEMENTS(suffixes); j++) {
      g_autofree char *name = g_strconcat(names[i], suffixes[j], NULL);
      g_autofree char *path = g_build_filename(folder, name, NULL);

      if (is_file(path))
        return g_steal_pointer(&path);
    }
  }
  return g_build_filename(folder, first, NULL);
}

static gboolean
is_weights(const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS(suffixes); i++)
    if (g_str_has_suffix(name, suffixes[i]))
      return TRUE;
  return FALSE;
}

static int
compare_names(gconstpointer a, gconstpointer b)
{
  return strcmp(*(char *const *) a, *(char *const *) b);
}

/* The names in a folder in order, folders with a slash; empty if there is no such folder. */
static GPtrArray *
list_folder(const char *path)
{
  GPtrArray *names = g_ptr_array_new_with_free_func(g_free);
  g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
  const char *name;

  while (dir && (name = g_dir_read_name(dir))) {
    g_autofree char *child = g_build_filename(path, name, NULL);
    gboolean folder = g_file_test(child, G_FILE_TEST_IS_DIR);

    g_ptr_array_add(names, g_strconcat(name, folder ? "/" : "", NULL));
  }
  g_ptr_array_sort(names, compare_names);
  return names;
}

/* The only weights in a folder, or its only index. */
static char *
only_weights(const char *folder)
{
  g_autoptr(GPtrArray) names = list_folder(folder);
  const char *only = NULL, *index = NULL;
  guint n = 0, n_indices = 0;

  for (guint i = 0; i < names->len; i++) {
    const char *name = g_ptr_array_index(names, i);

    if (!is_weights(name))
      continue;
    if (g_str_has_suffix(name, ".index.json")) {
      index = name;
      n_indices++;
    } else {
      only = name;
      n++;
    }
  }
  if (n_indices == 1)
    return g_build_filename(folder, index, NULL);
  return n == 1 && n_indices == 0 ? g_build_filename(folder, only, NULL) : NULL;
}

char *
osr_find_part(const char *what, const char *place, const char *const *names, GError **error)
{
  g_autofree char *path = g_canonicalize_filename(place, NULL), *found = NULL;

  if (is_file(path))
    return g_steal_pointer(&path);
  if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "%s: %s: there is no such file or folder",
                what, path);
    return NULL;
  }
  found = osr_find_weights(path, names);
  if (!is_file(found)) {
    g_free(found);
    found = only_weights(path);
  }
  if (!found) {
    g_autofree char *has = osr_describe_folder(path);

    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                "%s: %s: no %s%s, nor a single file of weights; %s", what, path, names[0],
                suffixes[0], has);
  }
  return g_steal_pointer(&found);
}

gboolean
osr_config_is_foreign(JsonObject *config)
{
  return !json_object_has_member(config, "family") &&
         (json_object_has_member(config, "model_type") ||
          json_object_has_member(config, "architectures") ||
          json_object_has_member(config, "_class_name"));
}

/* "a folder of diffusers", NULL if it is nothing that we know. */
static char *
recognise(const char *path)
{
  g_autofree char *pipeline = g_build_filename(path, "model_index.json", NULL);
  g_autofree char *adapter = g_build_filename(path, "adapter_config.json", NULL);
  g_autofree char *config_path = g_build_filename(path, "config.json", NULL);
  g_autoptr(JsonObject) config = NULL;

  if (is_file(pipeline))
    return g_strdup("a pipeline of diffusers");
  if (is_file(adapter))
    return g_strdup("a LoRA adapter");
  config = is_file(config_path) ? osr_config_read_file(config_path, NULL) : NULL;
  if (config && osr_config_is_foreign(config)) {
    const OsrConfigSection section = { config_path, "", config };
    const char *type = osr_config_read_string(&section, "model_type", "", NULL);
    g_autofree char *shown = osr_printable(type ? type : "");

    return *shown ? g_strdup_printf("one model of type '%s'", shown)
                  : g_strdup("one model of Hugging Face's");
  }
  return NULL;
}

char *
osr_describe_folder(const char *path)
{
  g_autoptr(GPtrArray) names = list_folder(path);
  g_autofree char *is = recognise(path);
  GString *text = g_string_new(NULL);

  if (is)
    g_string_append_printf(text, "this is %s, and ", is);
  g_string_append(text, names->len > 0 ? "the folder has " : "the folder has nothing");
  for (guint i = 0; i < MIN(names->len, MAX_LISTED); i++) {
    g_autofree char *valid = g_utf8_make_valid(g_ptr_array_index(names, i), -1);
    g_autofree char *shown = osr_printable(valid);

    g_string_append_printf(text, "%s%s", i > 0 ? ", " : "", shown);
  }
  if (names->len > MAX_LISTED)
    g_string_append_printf(text, " and %u more", names->len - MAX_LISTED);
  return g_string_free(text, FALSE);
}
