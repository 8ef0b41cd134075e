/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "checkpoint-private.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "json-private.h"

#define INDEX_SUFFIX ".index.json"

OsrCheckpoint *
osr_checkpoint_new(const char *path, GBytes *bytes)
{
  OsrCheckpoint *checkpoint = g_new0(OsrCheckpoint, 1);

  checkpoint->ref_count = 1;
  checkpoint->path = g_strdup(path);
  checkpoint->bytes = bytes ? g_bytes_ref(bytes) : NULL;
  checkpoint->entries = g_ptr_array_new();
  checkpoint->by_name = g_hash_table_new(g_str_hash, g_str_equal);
  checkpoint->metadata = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
  return checkpoint;
}

OsrCheckpoint *
osr_checkpoint_ref(OsrCheckpoint *checkpoint)
{
  g_return_val_if_fail(checkpoint != NULL, NULL);
  g_atomic_int_inc(&checkpoint->ref_count);
  return checkpoint;
}

void
osr_checkpoint_unref(OsrCheckpoint *checkpoint)
{
  if (!checkpoint || !g_atomic_int_dec_and_test(&checkpoint->ref_count))
    return;
  g_hash_table_unref(checkpoint->by_name);
  g_hash_table_unref(checkpoint->metadata);
  g_ptr_array_unref(checkpoint->entries);
  g_clear_pointer(&checkpoint->shards, g_ptr_array_unref);
  g_clear_pointer(&checkpoint->bytes, g_bytes_unref);
  g_free(checkpoint->path);
  g_free(checkpoint);
}

/* Of all that open() may find at a path, maps only regular files: a folder has no bytes and
 * a FIFO would wait for a writer. */
static GBytes *
map_file(const char *path, GError **error)
{
  g_autoptr(GMappedFile) file = NULL;
  g_autoptr(GError) why = NULL;
  struct stat info;
  int fd = g_open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);

  if (fd < 0) {
    int code = errno == ENOENT || errno == ENOTDIR ? OSR_ERROR_NOT_FOUND : OSR_ERROR_FAILED;

    g_set_error(error, OSR_ERROR, code, "%s: %s", path, g_strerror(errno));
    return NULL;
  }
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s, not a file", path,
                S_ISDIR(info.st_mode) ? "a folder" : "something special");
    close(fd);
    return NULL;
  }
  file = g_mapped_file_new_from_fd(fd, FALSE, &why);
  close(fd);
  if (!file) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_FAILED, "%s: %s", path, why->message);
    return NULL;
  }
  return g_mapped_file_get_bytes(file);
}

/* The factors of F8 weights lie beside them, in an index perhaps in another shard. */
static void
link_scales(OsrCheckpoint *checkpoint)
{
  static const char *const names[] = { "scale_weight", "weight_scale", "weight_scale_inv" };

  for (guint i = 0; i < checkpoint->entries->len; i++) {
    OsrCheckpointEntry *entry = g_ptr_array_index(checkpoint->entries, i);
    gsize length = strlen(entry->name) - strlen("weight");

    if (entry->dtype != OSR_DTYPE_F8_E4M3 || !g_str_has_suffix(entry->name, "weight"))
      continue;
    for (guint j = 0; j < G_N_ELEMENTS(names) && !entry->scale; j++) {
      g_autofree char *name = g_strdup_printf("%.*s%s", (int) length, entry->name, names[j]);

      entry->scale = g_hash_table_lookup(checkpoint->by_name, name);
    }
  }
}

/* What people have in place of weights, by its first bytes. */
static const struct {
  const char *bytes;
  gsize n_bytes, at;
  OsrError code;
  const char *message;
} impostors[] = {
#define BYTES(text) text, sizeof text - 1
  { BYTES("version https://git-lfs"), 0, OSR_ERROR_INVALID_FILE,
    "a pointer of Git LFS, not the file that it stands for (\"git lfs pull\" fetches it)" },
  { BYTES("\x80\x02\x8a\x0al\xfc\x9c"), 0, OSR_ERROR_UNSUPPORTED,
    "a PyTorch file of before version 1.6 (a row of pickles, no zip archive); torch.load() and "
    "torch.save() of today make one that can be read" },
  { BYTES("ustar"), 257, OSR_ERROR_UNSUPPORTED,
    "a tar archive; the oldest PyTorch files are such and cannot be read" },
  { BYTES("GGUF"), 0, OSR_ERROR_UNSUPPORTED, "a GGUF file, which cannot be read" },
  { BYTES("<!DOCTYPE"), 0, OSR_ERROR_INVALID_FILE, "a web page, not the file asked for" },
  { BYTES("<html"), 0, OSR_ERROR_INVALID_FILE, "a web page, not the file asked for" },
#undef BYTES
};

static gboolean
check_impostor(const guint8 *data, gsize size, const char *name, GError **error)
{
  for (guint i = 0; i < G_N_ELEMENTS(impostors); i++) {
    if (size < impostors[i].at + impostors[i].n_bytes ||
        memcmp(data + impostors[i].at, impostors[i].bytes, impostors[i].n_bytes) != 0)
      continue;
    g_set_error(error, OSR_ERROR, (gint) impostors[i].code, "%s: %s", name, impostors[i].message);
    return FALSE;
  }
  /* Other pickles differ in their third byte. A safetensors header is never that long. */
  if (size >= 9 && data[0] == 0x80 && data[1] >= 2 && data[1] <= 5 && data[8] != '{') {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "%s: a bare pickle; weights are what torch.save() writes", name);
    return FALSE;
  }
  return TRUE;
}

/* The ninth byte of a safetensors file is '{', that of a zip archive a method that is none. */
static gboolean
is_zip(const guint8 *data, gsize size)
{
  return size >= 9 && memcmp(data, "PK\3\4", 4) == 0 && data[8] != '{';
}

OsrCheckpoint *
osr_checkpoint_open_bytes(GBytes *bytes, const char *name, GError **error)
{
  g_autoptr(OsrCheckpoint) checkpoint = NULL;
  const guint8 *data;
  gboolean ok;
  gsize size;

  g_return_val_if_fail(bytes != NULL && name != NULL, NULL);

  checkpoint = osr_checkpoint_new(name, bytes);
  data = g_bytes_get_data(bytes, &size);
  if (is_zip(data, size))
    ok = osr_pytorch_parse(checkpoint, error);
  else
    ok = check_impostor(data, size, name, error) && osr_safetensors_parse(checkpoint, error);
  if (!ok)
    return NULL;
  link_scales(checkpoint);
  return g_steal_pointer(&checkpoint);
}

static gboolean
fail_index(OsrCheckpoint *index, GError **error, const char *reason, const char *name)
{
  g_autofree char *shown = osr_printable(name);

  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s '%s'", index->path, reason, shown);
  return FALSE;
}

/* The shard of that file name, opened on first use. */
static OsrCheckpoint *
get_shard(OsrCheckpoint *index, GHashTable *opened, const char *name, GError **error)
{
  OsrCheckpoint *shard = g_hash_table_lookup(opened, name);
  g_autofree char *folder = NULL, *path = NULL;
  g_autoptr(GBytes) bytes = NULL;

  if (shard)
    return shard;
  if (!*name || strchr(name, '/') || strchr(name, '\\') || strstr(name, "..")) {
    fail_index(index, error, "weight_map leaves its folder with", name);
    return NULL;
  }
  folder = g_path_get_dirname(index->path);
  path = g_build_filename(folder, name, NULL);
  bytes = map_file(path, error);
  shard = bytes ? osr_checkpoint_open_bytes(bytes, path, error) : NULL;
  if (!shard) {
    g_prefix_error(error, "%s names a shard that cannot be used: ", index->path);
    return NULL;
  }
  g_ptr_array_add(index->shards, shard);
  g_hash_table_insert(opened, g_strdup(name), shard);
  return shard;
}

static gboolean
add_from_shard(OsrCheckpoint *index, GHashTable *opened, const char *name, const char *file,
               GError **error)
{
  OsrCheckpoint *shard;
  OsrCheckpointEntry *entry;

  if (g_hash_table_contains(index->by_name, name))
    return fail_index(index, error, "weight_map has twice", name);
  shard = get_shard(index, opened, file, error);
  if (!shard)
    return FALSE;
  entry = g_hash_table_lookup(shard->by_name, name);
  if (!entry) {
    g_autofree char *shown = osr_printable(name);

    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
                "%s: tensor '%s' is not in the shard that %s puts it in", shard->path, shown,
                index->path);
    return FALSE;
  }
  g_ptr_array_add(index->entries, entry);
  g_hash_table_insert(index->by_name, (char *) entry->name, entry);
  return TRUE;
}

static gboolean
read_weight_map(OsrCheckpoint *index, OsrJsonReader *reader, GError **error)
{
  g_autoptr(GHashTable) opened = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  gboolean first;

  osr_json_begin(reader, '{', &first);
  while (osr_json_next(reader, '}', &first)) {
    g_autofree char *name = osr_json_key(reader);
    g_autofree char *file = name ? osr_json_string(reader) : NULL;

    if (!file)
      break;
    if (!add_from_shard(index, opened, name, file, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
read_index(OsrCheckpoint *index, OsrJsonReader *reader, GError **error)
{
  gboolean first, has_map = FALSE;

  osr_json_begin(reader, '{', &first);
  while (osr_json_next(reader, '}', &first)) {
    g_autofree char *key = osr_json_key(reader);

    if (!key)
      break;
    if (!g_str_equal(key, "weight_map")) {
      osr_json_skip(reader);
      continue;
    }
    if (has_map)
      return fail_index(index, error, "there are two of", key);
    has_map = TRUE;
    if (!read_weight_map(index, reader, error))
      return FALSE;
  }
  if (!osr_json_failed(reader))
    osr_json_end(reader);
  if (osr_json_failed(reader)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s at byte %" G_GSIZE_FORMAT,
                index->path, reader->reason, (gsize) (reader->at - reader->start));
    return FALSE;
  }
  return has_map || fail_index(index, error, "there is no", "weight_map");
}

/* Shards repeat the same metadata; of two values the first shard's counts. */
static void
merge_metadata(OsrCheckpoint *index)
{
  for (guint i = 0; i < index->shards->len; i++) {
    OsrCheckpoint *shard = g_ptr_array_index(index->shards, i);
    GHashTableIter iter;
    gpointer key, value;

    g_hash_table_iter_init(&iter, shard->metadata);
    while (g_hash_table_iter_next(&iter, &key, &value))
      if (!g_hash_table_contains(index->metadata, key))
        g_hash_table_insert(index->metadata, g_strdup(key), g_strdup(value));
  }
}

static OsrCheckpoint *
open_index(const char *path, GBytes *bytes, GError **error)
{
  g_autoptr(OsrCheckpoint) index = osr_checkpoint_new(path, NULL);
  OsrJsonReader reader;
  const char *text;
  gsize size;

  index->shards = g_ptr_array_new_with_free_func((GDestroyNotify) osr_checkpoint_unref);
  text = g_bytes_get_data(bytes, &size);
  if (size == 0 || size > OSR_CHECKPOINT_MAX_HEADER || !g_utf8_validate_len(text, size, NULL)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: %s", path,
                size == 0                          ? "the file is empty"
                : size > OSR_CHECKPOINT_MAX_HEADER ? "too large for an index"
                                                   : "not UTF-8");
    return NULL;
  }
  osr_json_init(&reader, text, size);
  if (!read_index(index, &reader, error))
    return NULL;
  merge_metadata(index);
  link_scales(index);
  return g_steal_pointer(&index);
}

OsrCheckpoint *
osr_checkpoint_open(const char *path, GError **error)
{
  g_autoptr(GBytes) bytes = NULL;

  g_return_val_if_fail(path != NULL, NULL);

  bytes = map_file(path, error);
  if (!bytes)
    return NULL;
  if (g_str_has_suffix(path, INDEX_SUFFIX))
    return open_index(path, bytes, error);
  return osr_checkpoint_open_bytes(bytes, path, error);
}

const char *
osr_checkpoint_get_path(OsrCheckpoint *checkpoint)
{
  return checkpoint->path;
}

guint
osr_checkpoint_n_entries(OsrCheckpoint *checkpoint)
{
  return checkpoint->entries->len;
}

const OsrCheckpointEntry *
osr_checkpoint_nth(OsrCheckpoint *checkpoint, guint i)
{
  g_return_val_if_fail(i < checkpoint->entries->len, NULL);
  return g_ptr_array_index(checkpoint->entries, i);
}

const OsrCheckpointEntry *
osr_checkpoint_lookup(OsrCheckpoint *checkpoint, const char *name)
{
  return g_hash_table_lookup(checkpoint->by_name, name);
}

const char *
osr_checkpoint_get_metadata(OsrCheckpoint *checkpoint, const char *key)
{
  return g_hash_table_lookup(checkpoint->metadata, key);
}

const char *
osr_checkpoint_get_format(OsrCheckpoint *checkpoint)
{
  if (checkpoint->shards && checkpoint->shards->len > 0)
    return osr_checkpoint_get_format(g_ptr_array_index(checkpoint->shards, 0));
  return checkpoint->format ? checkpoint->format : "index";
}
