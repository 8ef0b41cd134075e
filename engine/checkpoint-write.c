/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "error.h"

static gboolean
fail(GError **error, OsrError code, const char *path, const char *reason)
{
  g_set_error(error, OSR_ERROR, code, "%s: %s", path, reason);
  return FALSE;
}

static gboolean
check_arguments(const char *path, guint n, const char *const *names, GHashTable *metadata,
                GError **error)
{
  g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
  GHashTableIter iter;
  gpointer key, value;

  for (guint i = 0; i < n; i++) {
    if (!g_utf8_validate(names[i], -1, NULL))
      return fail(error, OSR_ERROR_INVALID_ARGUMENT, path, "a tensor's name is not UTF-8");
    if (g_str_equal(names[i], "__metadata__") || !g_hash_table_add(seen, (char *) names[i])) {
      g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "%s: the name '%s' is taken", path,
                  names[i]);
      return FALSE;
    }
  }
  if (!metadata)
    return TRUE;
  g_hash_table_iter_init(&iter, metadata);
  while (g_hash_table_iter_next(&iter, &key, &value))
    if (!g_utf8_validate(key, -1, NULL) || !g_utf8_validate(value, -1, NULL))
      return fail(error, OSR_ERROR_INVALID_ARGUMENT, path, "the metadata is not UTF-8");
  return TRUE;
}

static void
add_metadata(JsonBuilder *builder, GHashTable *metadata)
{
  g_autoptr(GList) keys = g_list_sort(g_hash_table_get_keys(metadata), (GCompareFunc) strcmp);

  json_builder_set_member_name(builder, "__metadata__");
  json_builder_begin_object(builder);
  for (GList *l = keys; l; l = l->next) {
    json_builder_set_member_name(builder, l->data);
    json_builder_add_string_value(builder, g_hash_table_lookup(metadata, l->data));
  }
  json_builder_end_object(builder);
}

static void
add_tensor(JsonBuilder *builder, const char *name, const OsrTensor *tensor, gint64 begin)
{
  json_builder_set_member_name(builder, name);
  json_builder_begin_object(builder);
  json_builder_set_member_name(builder, "dtype");
  json_builder_add_string_value(builder, osr_dtype_name(tensor->dtype));
  json_builder_set_member_name(builder, "shape");
  json_builder_begin_array(builder);
  for (guint i = 0; i < tensor->n_dims; i++)
    json_builder_add_int_value(builder, tensor->dims[i]);
  json_builder_end_array(builder);
  json_builder_set_member_name(builder, "data_offsets");
  json_builder_begin_array(builder);
  json_builder_add_int_value(builder, begin);
  json_builder_add_int_value(builder, begin + (gint64) tensor->size);
  json_builder_end_array(builder);
  json_builder_end_object(builder);
}

/* Padded so that the data begins at a multiple of 8. */
static GString *
build_header(guint n, const char *const *names, OsrTensor *const *tensors, GHashTable *metadata)
{
  g_autoptr(JsonBuilder) builder = json_builder_new();
  g_autoptr(JsonNode) root = NULL;
  g_autofree char *text = NULL;
  GString *header;
  gint64 offset = 0;

  json_builder_begin_object(builder);
  if (metadata)
    add_metadata(builder, metadata);
  for (guint i = 0; i < n; i++) {
    add_tensor(builder, names[i], tensors[i], offset);
    offset += (gint64) tensors[i]->size;
  }
  json_builder_end_object(builder);
  root = json_builder_get_root(builder);
  text = json_to_string(root, FALSE);
  header = g_string_new(text);
  while (header->len % 8)
    g_string_append_c(header, ' ');
  return header;
}

static gboolean
write_bytes(FILE *file, gconstpointer data, gsize size, const char *path, GError **error)
{
  if (size == 0 || fwrite(data, 1, size, file) == size)
    return TRUE;
  return fail(error, OSR_ERROR_FAILED, path, g_strerror(errno));
}

static gboolean
write_tensor(FILE *file, OsrTensor *tensor, const char *path, GError **error)
{
  g_autofree char *bytes = NULL;

  if (osr_device_is_host(tensor->device))
    return write_bytes(file, tensor->data, tensor->size, path, error);
  bytes = g_try_malloc(MAX(tensor->size, 1));
  if (!bytes)
    return fail(error, OSR_ERROR_MEMORY, path, "no host memory for a tensor's copy");
  return osr_tensor_download(tensor, bytes, tensor->size, error) &&
         write_bytes(file, bytes, tensor->size, path, error);
}

static gboolean
write_all(FILE *file, const GString *header, guint n, OsrTensor *const *tensors, const char *path,
          GError **error)
{
  guint64 length = GUINT64_TO_LE(header->len);

  if (!write_bytes(file, &length, sizeof length, path, error) ||
      !write_bytes(file, header->str, header->len, path, error))
    return FALSE;
  for (guint i = 0; i < n; i++)
    if (!write_tensor(file, tensors[i], path, error))
      return FALSE;
  return TRUE;
}

/* Under another name first, so that nobody ever sees half a file at @path. */
gboolean
osr_checkpoint_write(const char *path, guint n, const char *const *names, OsrTensor *const *tensors,
                     GHashTable *metadata, GError **error)
{
  g_autofree char *part = NULL;
  g_autoptr(GString) header = NULL;
  gboolean ok;
  FILE *file;
  int fd;

  g_return_val_if_fail(path != NULL, FALSE);

  if (!check_arguments(path, n, names, metadata, error))
    return FALSE;
  part = g_strconcat(path, ".XXXXXX", NULL);
  fd = g_mkstemp_full(part, O_WRONLY | O_CLOEXEC, 0666);
  if (fd < 0)
    return fail(error, OSR_ERROR_FAILED, path, g_strerror(errno));
  file = fdopen(fd, "wb");
  if (!file) {
    fail(error, OSR_ERROR_FAILED, path, g_strerror(errno));
    close(fd);
    g_unlink(part);
    return FALSE;
  }

  header = build_header(n, names, tensors, metadata);
  ok = write_all(file, header, n, tensors, path, error);
  if (fclose(file) != 0 && ok)
    ok = fail(error, OSR_ERROR_FAILED, path, g_strerror(errno));
  if (ok && g_rename(part, path) != 0)
    ok = fail(error, OSR_ERROR_FAILED, path, g_strerror(errno));
  if (!ok)
    g_unlink(part);
  return ok;
}
