/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * safetensors.c: checks a safetensors file (https://huggingface.co/docs/safetensors).
 *
 *   u64, little endian: length of the header
 *   header: JSON, { "name": { "dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24] },
 *                   ..., "__metadata__": { "key": "value", ... } }
 *   data: offsets count from here; the tensors cover all of it, without holes or overlaps
 *
 * Files come from anywhere, so nothing in a header is believed before it is checked.
 */
#include "checkpoint-private.h"

#include <string.h>

#include "error.h"
#include "json-private.h"

#define MAX_SHOWN 100

typedef struct {
  OsrCheckpointEntry entry;
  gint64 begin, end;
} Item;

char *
osr_printable(const char *name)
{
  GString *text = g_string_new(NULL);
  guint n = 0;

  for (const char *p = name; *p && n < MAX_SHOWN; p = g_utf8_next_char(p), n++) {
    gunichar c = g_utf8_get_char(p);

    g_string_append_unichar(text, g_unichar_isprint(c) ? c : '?');
  }
  if (n == MAX_SHOWN)
    g_string_append(text, "...");
  return g_string_free(text, FALSE);
}

static void
item_free(gpointer data)
{
  Item *item = data;

  g_free((char *) item->entry.name);
  g_free(item);
}

static gboolean fail(const char *path, GError **error, const char *format, ...) G_GNUC_PRINTF(3, 4);
static gboolean fail_tensor(const char *path, const char *name, OsrError code, GError **error,
                            const char *format, ...) G_GNUC_PRINTF(5, 6);

static gboolean
fail(const char *path, GError **error, const char *format, ...)
{
  g_autofree char *reason = NULL;
  va_list args;

  va_start(args, format);
  reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s", path, reason);
  return FALSE;
}

static gboolean
fail_tensor(const char *path, const char *name, OsrError code, GError **error, const char *format,
            ...)
{
  g_autofree char *shown = osr_printable(name);
  g_autofree char *reason = NULL;
  va_list args;

  va_start(args, format);
  reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, OSR_ERROR, code, "%s: tensor '%s': %s", path, shown, reason);
  return FALSE;
}

static gboolean
fail_json(const char *path, const char *name, OsrJsonReader *reader, GError **error)
{
  gsize at = (gsize) (reader->at - reader->start);

  if (name)
    return fail_tensor(path, name, OSR_ERROR_INVALID_FILE, error,
                       "%s at byte %" G_GSIZE_FORMAT " of the header", reader->reason, at);
  return fail(path, error, "%s at byte %" G_GSIZE_FORMAT " of the header", reader->reason, at);
}

/* Counts all dimensions and keeps those that there is room for. */
static gboolean
read_shape(OsrJsonReader *reader, OsrCheckpointEntry *entry)
{
  gboolean first;
  gint64 dim;

  osr_json_begin(reader, '[', &first);
  for (entry->n_dims = 0; osr_json_next(reader, ']', &first); entry->n_dims++) {
    if (!osr_json_uint(reader, &dim))
      return FALSE;
    if (entry->n_dims < OSR_TENSOR_MAX_DIMS)
      entry->dims[entry->n_dims] = dim;
  }
  return !osr_json_failed(reader);
}

static gboolean
read_offsets(OsrJsonReader *reader, Item *item)
{
  gboolean first;

  osr_json_begin(reader, '[', &first);
  if (!osr_json_next(reader, ']', &first) || !osr_json_uint(reader, &item->begin) ||
      !osr_json_next(reader, ']', &first) || !osr_json_uint(reader, &item->end) ||
      osr_json_next(reader, ']', &first))
    return osr_json_fail(reader, "data_offsets must be two numbers");
  return !osr_json_failed(reader);
}

static gboolean
check_size(const char *path, const Item *item, gsize data_size, GError **error)
{
  const OsrCheckpointEntry *entry = &item->entry;
  g_autofree char *dims = osr_dims_to_string(entry->n_dims, entry->dims);
  gsize size = osr_dtype_size(entry->dtype);

  for (guint i = 0; i < entry->n_dims; i++)
    if (!g_size_checked_mul(&size, size, (gsize) entry->dims[i]))
      return fail_tensor(path, entry->name, OSR_ERROR_INVALID_FILE, error, "the shape %s overflows",
                         dims);
  if (item->begin > item->end)
    return fail_tensor(path, entry->name, OSR_ERROR_INVALID_FILE, error,
                       "data_offsets [%" G_GINT64_FORMAT ", %" G_GINT64_FORMAT "] are reversed",
                       item->begin, item->end);
  if ((guint64) item->end > data_size)
    return fail_tensor(path, entry->name, OSR_ERROR_INVALID_FILE, error,
                       "its data ends at byte %" G_GINT64_FORMAT ", the file has %" G_GSIZE_FORMAT
                       " bytes of data (is it truncated?)",
                       item->end, data_size);
  if ((guint64) (item->end - item->begin) != size)
    return fail_tensor(path, entry->name, OSR_ERROR_INVALID_FILE, error,
                       "data_offsets span %" G_GINT64_FORMAT
                       " bytes, %s of %s needs %" G_GSIZE_FORMAT,
                       item->end - item->begin, dims, osr_dtype_name(entry->dtype), size);
  return TRUE;
}

/* The value of one tensor's key: exactly dtype, shape and data_offsets. */
static gboolean
read_item(const char *path, OsrJsonReader *reader, Item *item, gsize data_size, GError **error)
{
  enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4, ALL = 7 };
  const char *name = item->entry.name;
  g_autofree char *dtype = NULL;
  guint seen = 0;
  gboolean first;

  osr_json_begin(reader, '{', &first);
  while (osr_json_next(reader, '}', &first)) {
    g_autofree char *key = osr_json_key(reader);
    guint which = 0;

    if (!key)
      break;
    if (g_str_equal(key, "dtype")) {
      which = DTYPE;
    } else if (g_str_equal(key, "shape")) {
      which = SHAPE;
    } else if (g_str_equal(key, "data_offsets")) {
      which = OFFSETS;
    } else {
      g_autofree char *shown = osr_printable(key);

      return fail_tensor(path, name, OSR_ERROR_INVALID_FILE, error, "unknown key '%s'", shown);
    }
    if (seen & which)
      return fail_tensor(path, name, OSR_ERROR_INVALID_FILE, error, "'%s' is there twice", key);
    seen |= which;
    if (which == DTYPE)
      dtype = osr_json_string(reader);
    else if (which == SHAPE)
      read_shape(reader, &item->entry);
    else
      read_offsets(reader, item);
  }
  if (osr_json_failed(reader))
    return fail_json(path, name, reader, error);
  if (seen != ALL)
    return fail_tensor(path, name, OSR_ERROR_INVALID_FILE, error, "'%s' is missing",
                       !(seen & DTYPE)   ? "dtype"
                       : !(seen & SHAPE) ? "shape"
                                         : "data_offsets");
  if (!osr_dtype_from_name(dtype, &item->entry.dtype)) {
    g_autofree char *shown = osr_printable(dtype);

    return fail_tensor(path, name, OSR_ERROR_UNSUPPORTED, error, "unknown dtype '%s'", shown);
  }
  if (item->entry.n_dims > OSR_TENSOR_MAX_DIMS)
    return fail_tensor(path, name, OSR_ERROR_UNSUPPORTED, error, "%u dimensions, at most %d can be",
                       item->entry.n_dims, OSR_TENSOR_MAX_DIMS);
  item->entry.size = (gsize) (item->end - item->begin);
  return check_size(path, item, data_size, error);
}

static gboolean
read_metadata(OsrCheckpoint *checkpoint, OsrJsonReader *reader, GError **error)
{
  gboolean first;

  osr_json_begin(reader, '{', &first);
  while (osr_json_next(reader, '}', &first)) {
    g_autofree char *key = osr_json_key(reader);
    g_autofree char *value = key ? osr_json_string(reader) : NULL;

    if (!value)
      break;
    if (g_hash_table_contains(checkpoint->metadata, key)) {
      g_autofree char *shown = osr_printable(key);

      return fail(checkpoint->path, error, "__metadata__ has '%s' twice", shown);
    }
    g_hash_table_insert(checkpoint->metadata, g_steal_pointer(&key), g_steal_pointer(&value));
  }
  if (osr_json_failed(reader))
    return fail_json(checkpoint->path, "__metadata__", reader, error);
  return TRUE;
}

static gboolean
read_header(OsrCheckpoint *checkpoint, OsrJsonReader *reader, gsize data_size, GError **error)
{
  gboolean first, has_metadata = FALSE;

  osr_json_begin(reader, '{', &first);
  while (osr_json_next(reader, '}', &first)) {
    g_autofree char *key = osr_json_key(reader);
    Item *item;

    if (!key)
      break;
    if (g_str_equal(key, "__metadata__")) {
      if (has_metadata)
        return fail(checkpoint->path, error, "__metadata__ is there twice");
      has_metadata = TRUE;
      if (!read_metadata(checkpoint, reader, error))
        return FALSE;
      continue;
    }
    if (g_hash_table_contains(checkpoint->by_name, key))
      return fail_tensor(checkpoint->path, key, OSR_ERROR_INVALID_FILE, error,
                         "the name is there twice");
    item = g_new0(Item, 1);
    item->entry.name = g_steal_pointer(&key);
    item->entry.path = checkpoint->path;
    g_ptr_array_add(checkpoint->entries, item);
    g_hash_table_insert(checkpoint->by_name, (char *) item->entry.name, item);
    if (!read_item(checkpoint->path, reader, item, data_size, error))
      return FALSE;
  }
  if (!osr_json_failed(reader))
    osr_json_end(reader);
  if (osr_json_failed(reader))
    return fail_json(checkpoint->path, NULL, reader, error);
  return TRUE;
}

static int
compare_places(gconstpointer a, gconstpointer b)
{
  const Item *x = *(Item *const *) a, *y = *(Item *const *) b;

  if (x->begin != y->begin)
    return x->begin < y->begin ? -1 : 1;
  return (x->end > y->end) - (x->end < y->end);
}

/* Each tensor begins where the one before it ends, the last one ends with the file. */
static gboolean
check_coverage(OsrCheckpoint *checkpoint, gsize data_size, GError **error)
{
  const char *path = checkpoint->path, *before = NULL;
  gint64 end = 0;

  for (guint i = 0; i < checkpoint->entries->len; i++) {
    const Item *item = g_ptr_array_index(checkpoint->entries, i);

    if (item->begin < end) {
      g_autofree char *shown = osr_printable(before);

      return fail_tensor(path, item->entry.name, OSR_ERROR_INVALID_FILE, error,
                         "its data overlaps that of '%s'", shown);
    }
    if (item->begin > end)
      return fail_tensor(path, item->entry.name, OSR_ERROR_INVALID_FILE, error,
                         "%" G_GINT64_FORMAT " bytes before its data belong to no tensor",
                         item->begin - end);
    end = item->end;
    before = item->entry.name;
  }
  if ((guint64) end != data_size)
    return fail(path, error, "%" G_GINT64_FORMAT " bytes after the last tensor belong to no tensor",
                (gint64) data_size - end);
  return TRUE;
}

gboolean
osr_safetensors_parse(OsrCheckpoint *checkpoint, GError **error)
{
  const char *path = checkpoint->path, *data, *bad;
  guint64 length;
  gsize size;
  OsrJsonReader reader;

  checkpoint->format = "safetensors";
  data = g_bytes_get_data(checkpoint->bytes, &size);
  if (size < sizeof length)
    return fail(path, error,
                "truncated: %" G_GSIZE_FORMAT " bytes, a safetensors file begins with 8", size);
  memcpy(&length, data, sizeof length);
  length = GUINT64_FROM_LE(length);
  data += sizeof length;
  size -= sizeof length;
  if (length > OSR_CHECKPOINT_MAX_HEADER)
    return fail(path, error,
                "no safetensors file: a header of %" G_GUINT64_FORMAT
                " bytes is more than the format allows",
                length);
  if (length > size)
    return fail(path, error,
                "truncated: the header has %" G_GUINT64_FORMAT " bytes, %" G_GSIZE_FORMAT
                " are left in the file",
                length, size);
  if (length == 0 || data[0] != '{')
    return fail(path, error, "no safetensors file: the header does not begin with '{'");
  if (!g_utf8_validate_len(data, length, &bad))
    return fail(path, error, "the header is not UTF-8 at byte %" G_GSIZE_FORMAT,
                (gsize) (bad - data));

  size -= length;
  g_ptr_array_set_free_func(checkpoint->entries, item_free);
  osr_json_init(&reader, data, length);
  if (!read_header(checkpoint, &reader, size, error))
    return FALSE;
  g_ptr_array_sort(checkpoint->entries, compare_places);
  if (!check_coverage(checkpoint, size, error))
    return FALSE;
  for (guint i = 0; i < checkpoint->entries->len; i++) {
    Item *item = g_ptr_array_index(checkpoint->entries, i);

    item->entry.data = data + length + item->begin;
  }
  return TRUE;
}
