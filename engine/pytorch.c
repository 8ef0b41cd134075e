/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pytorch.c: the tensors of a file that torch.save() wrote (PyTorch 1.6 and later).
 *
 *   a zip archive, nothing in it compressed, all of it in one folder of any name:
 *   data.pkl: a pickle in which storages are persistent ids ("storage", class, key, device,
 *             number of elements) and tensors are calls of torch._utils._rebuild_tensor_v2
 *             (storage, offset, size, stride, ...)
 *   data/KEY: the bytes of a storage
 *   byteorder: "little"
 */
#include "checkpoint-private.h"

#include <stdarg.h>
#include <string.h>

#include "error.h"
#include "pickle-private.h"
#include "zip-private.h"

/* Of dicts around the state dict, and of calls around a tensor. */
#define MAX_DEPTH 4

typedef struct {
  const char *path;
  GHashTable *members; /* name -> OsrZipMember */
  const char *folder;  /* "archive/" */
} Archive;

typedef struct {
  const guint8 *data;
  gsize size;
  OsrDType dtype; /* OSR_N_DTYPES: of an untyped storage, the tensor has it */
} Storage;

static const struct {
  const char *storage, *dtype;
  OsrDType ours; /* OSR_N_DTYPES: none */
} types[] = {
  { "torch.FloatStorage", "torch.float32", OSR_DTYPE_F32 },
  { "torch.BFloat16Storage", "torch.bfloat16", OSR_DTYPE_BF16 },
  { "torch.HalfStorage", "torch.float16", OSR_DTYPE_F16 },
  { "torch.DoubleStorage", "torch.float64", OSR_DTYPE_F64 },
  { "torch.IntStorage", "torch.int32", OSR_DTYPE_I32 },
  { "torch.LongStorage", "torch.int64", OSR_DTYPE_I64 },
  { "torch.ByteStorage", "torch.uint8", OSR_DTYPE_U8 },
  { "torch.BoolStorage", "torch.bool", OSR_DTYPE_BOOL },
  { "", "torch.float8_e4m3fn", OSR_DTYPE_F8_E4M3 },
  { "torch.storage.UntypedStorage", "", OSR_N_DTYPES },
};

static void
entry_free(gpointer data)
{
  OsrCheckpointEntry *entry = data;

  g_free((char *) entry->name);
  g_free(entry);
}

static gboolean G_GNUC_PRINTF(4, 5)
    fail_tensor(const char *path, const char *name, GError **error, const char *format, ...)
{
  g_autofree char *shown = osr_printable(name);
  g_autofree char *reason = NULL;
  va_list args;

  va_start(args, format);
  reason = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE, "%s: tensor '%s': %s", path, shown, reason);
  return FALSE;
}

/* Tensors */

/* The arguments of a call of that function, at least @n; NULL if it is another. */
static const OsrPickleValue *
call_arguments(const OsrPickleValue *value, const char *function, guint n)
{
  if (value->type != OSR_PICKLE_CALL ||
      !osr_pickle_is(value->items[0], OSR_PICKLE_GLOBAL, function) || value->items[1]->n_items < n)
    return NULL;
  return value->items[1];
}

/* The tensor in a parameter or a subclass of torch.Tensor: those have it as an argument. */
static const OsrPickleValue *
unwrap_tensor(const OsrPickleValue *value)
{
  for (guint depth = 0; depth < MAX_DEPTH; depth++) {
    const OsrPickleValue *args;

    if ((args = call_arguments(value, "torch._utils._rebuild_parameter", 1)) ||
        (args = call_arguments(value, "torch._utils._rebuild_parameter_with_state", 1)))
      value = args->items[0];
    else
      break;
  }
  return value;
}

/* What rebuilds the tensor @value: (storage, offset, size, stride, ...); *dtype is that of a
 * call that names one, NULL otherwise. Returns NULL if @value is no tensor. */
static const OsrPickleValue *
tensor_arguments(const OsrPickleValue *value, const OsrPickleValue **dtype)
{
  const OsrPickleValue *args, *inner = unwrap_tensor(value);

  *dtype = NULL;
  if ((args = call_arguments(inner, "torch._utils._rebuild_tensor_v2", 4)) ||
      (args = call_arguments(inner, "torch._utils._rebuild_tensor", 4)))
    return args;
  if ((args = call_arguments(inner, "torch._utils._rebuild_tensor_v3", 7))) {
    *dtype = args->items[6];
    return args;
  }
  /* (function, class, arguments, state): the same with attributes, which do not matter */
  if ((args = call_arguments(inner, "torch._tensor._rebuild_from_type_v2", 3)) &&
      osr_pickle_is(args->items[0], OSR_PICKLE_GLOBAL, "torch._utils._rebuild_tensor_v2") &&
      args->items[2]->type == OSR_PICKLE_TUPLE && args->items[2]->n_items >= 4)
    return args->items[2];
  return NULL;
}

static gboolean
is_tensor(const OsrPickleValue *value)
{
  const OsrPickleValue *dtype;

  return tensor_arguments(value, &dtype) != NULL;
}

/* ("storage", class, key, device, elements) */
static gboolean
read_storage(const Archive *archive, const char *name, const OsrPickleValue *value,
             Storage *storage, GError **error)
{
  const OsrPickleValue *id = value->type == OSR_PICKLE_PERSISTENT ? value->items[0] : NULL;
  g_autofree char *member_name = NULL, *shown = NULL;
  const OsrZipMember *member;
  const OsrPickleValue *key;
  gsize item, size;
  guint type = 0;

  if (!id || id->type != OSR_PICKLE_TUPLE || id->n_items != 5 ||
      !osr_pickle_is(id->items[0], OSR_PICKLE_TEXT, "storage") ||
      id->items[1]->type != OSR_PICKLE_GLOBAL || id->items[2]->type != OSR_PICKLE_TEXT ||
      id->items[4]->type != OSR_PICKLE_INT || id->items[4]->integer < 0)
    return fail_tensor(archive->path, name, error, "its storage is described in no known way");
  while (type < G_N_ELEMENTS(types) &&
         !osr_pickle_is(id->items[1], OSR_PICKLE_GLOBAL, types[type].storage))
    type++;
  if (type == G_N_ELEMENTS(types))
    return fail_tensor(archive->path, name, error, "%s cannot be read", id->items[1]->text);

  key = id->items[2];
  member_name =
      g_strdup_printf("%sdata/%.*s", archive->folder, (int) MIN(key->length, 1024), key->text);
  member = g_hash_table_lookup(archive->members, member_name);
  shown = osr_printable(member_name);
  if (!member)
    return fail_tensor(archive->path, name, error, "its storage '%s' is not in the file", shown);
  if (!member->data)
    return fail_tensor(archive->path, name, error, "its storage '%s' is compressed", shown);
  item = types[type].ours < OSR_N_DTYPES ? osr_dtype_size(types[type].ours) : 1;
  if (!g_size_checked_mul(&size, item, (guint64) id->items[4]->integer) || size > member->size)
    return fail_tensor(archive->path, name, error,
                       "its storage '%s' has %" G_GSIZE_FORMAT
                       " bytes, fewer than %" G_GINT64_FORMAT " elements take",
                       shown, member->size, id->items[4]->integer);
  *storage = (Storage){ member->data, size, types[type].ours };
  return TRUE;
}

/* The type of a tensor: that of its storage, or of the call. */
static gboolean
read_dtype(const Archive *archive, const char *name, const Storage *storage,
           const OsrPickleValue *named, OsrDType *dtype, GError **error)
{
  *dtype = storage->dtype;
  if (!named) {
    if (*dtype < OSR_N_DTYPES)
      return TRUE;
    return fail_tensor(archive->path, name, error, "its type is not known");
  }
  for (guint i = 0; i < G_N_ELEMENTS(types); i++) {
    if (types[i].ours < OSR_N_DTYPES && osr_pickle_is(named, OSR_PICKLE_GLOBAL, types[i].dtype)) {
      *dtype = types[i].ours;
      return TRUE;
    }
  }
  return fail_tensor(archive->path, name, error, "%s cannot be read",
                     named->type == OSR_PICKLE_GLOBAL ? named->text : "its type");
}

/* A tuple of up to OSR_TENSOR_MAX_DIMS numbers that are not negative. torch.Size is one, too. */
static gboolean
read_numbers(const OsrPickleValue *value, gint64 *numbers, guint *n)
{
  const OsrPickleValue *args = call_arguments(value, "torch.Size", 1);

  if (args)
    value = args->items[0];
  if ((value->type != OSR_PICKLE_TUPLE && value->type != OSR_PICKLE_LIST) ||
      value->n_items > OSR_TENSOR_MAX_DIMS)
    return FALSE;
  *n = value->n_items;
  for (guint i = 0; i < *n; i++) {
    if (value->items[i]->type != OSR_PICKLE_INT || value->items[i]->integer < 0)
      return FALSE;
    numbers[i] = value->items[i]->integer;
  }
  return TRUE;
}

/* Whether each dimension's stride is the size of all after it. That of a size of 1 is unused. */
static gboolean
is_contiguous(const OsrCheckpointEntry *entry)
{
  gint64 stride = 1;

  for (guint i = entry->n_dims; i-- > 0;) {
    if (entry->dims[i] != 1 && entry->strides[i] != stride)
      return FALSE;
    stride *= entry->dims[i];
  }
  return TRUE;
}

/* Size in bytes and, unless it is empty, that the last element is inside of the storage. */
static gboolean
check_extent(const Archive *archive, OsrCheckpointEntry *entry, const Storage *storage,
             gint64 offset, GError **error)
{
  const gsize item = osr_dtype_size(entry->dtype), n_stored = storage->size / item;
  g_autofree char *dims = osr_dims_to_string(entry->n_dims, entry->dims);
  guint64 n = 1, last = (guint64) offset;

  for (guint i = 0; i < entry->n_dims; i++)
    if (entry->dims[i] == 0)
      n = 0;
  for (guint i = 0; i < entry->n_dims && n > 0; i++) {
    guint64 step;

    if (!g_uint64_checked_mul(&n, n, (guint64) entry->dims[i]) ||
        !g_uint64_checked_mul(&step, (guint64) entry->dims[i] - 1, (guint64) entry->strides[i]) ||
        !g_uint64_checked_add(&last, last, step))
      return fail_tensor(archive->path, entry->name, error, "the shape %s overflows", dims);
  }
  if (n > 0 && last >= n_stored)
    return fail_tensor(archive->path, entry->name, error,
                       "its elements %s end at %" G_GUINT64_FORMAT
                       " of a storage of %" G_GSIZE_FORMAT,
                       dims, last + 1, n_stored);
  /* Else a file of some bytes could ask for any amount of memory. */
  if (n > n_stored)
    return fail_tensor(archive->path, entry->name, error,
                       "an expanded tensor: its %" G_GUINT64_FORMAT
                       " elements share a storage of %" G_GSIZE_FORMAT,
                       n, n_stored);
  entry->size = n * item;
  entry->strided = n > 0 && !is_contiguous(entry);
  entry->data = n > 0 ? storage->data + (gsize) offset * item : storage->data;
  return TRUE;
}

static gboolean
read_tensor(const Archive *archive, OsrCheckpointEntry *entry, const OsrPickleValue *value,
            GError **error)
{
  const OsrPickleValue *named, *args = tensor_arguments(value, &named);
  const OsrPickleValue *offset = args->items[1];
  Storage storage = { 0 };
  guint n_strides;

  if (!read_storage(archive, entry->name, args->items[0], &storage, error) ||
      !read_dtype(archive, entry->name, &storage, named, &entry->dtype, error))
    return FALSE;
  if (offset->type != OSR_PICKLE_INT || offset->integer < 0 ||
      !read_numbers(args->items[2], entry->dims, &entry->n_dims) ||
      !read_numbers(args->items[3], entry->strides, &n_strides) || n_strides != entry->n_dims)
    return fail_tensor(archive->path, entry->name, error,
                       "offset, size and stride are no numbers, or more than %d dimensions",
                       OSR_TENSOR_MAX_DIMS);
  return check_extent(archive, entry, &storage, offset->integer, error);
}

/* The state dict */

static gboolean
has_tensors(const OsrPickleValue *dict)
{
  for (guint i = 1; dict->type == OSR_PICKLE_DICT && i < dict->n_items; i += 2)
    if (dict->items[i - 1]->type == OSR_PICKLE_TEXT && is_tensor(dict->items[i]))
      return TRUE;
  return FALSE;
}

/* The only dict in @dict, or that of a usual name. */
static const OsrPickleValue *
inner_dict(const OsrPickleValue *dict)
{
  static const char *const usual[] = { "state_dict", "model_state_dict", "module", "model", "ema" };
  const OsrPickleValue *only = NULL;
  guint n = 0;

  for (guint i = 0; i < G_N_ELEMENTS(usual); i++) {
    const OsrPickleValue *inner = osr_pickle_dict_get(dict, usual[i]);

    if (inner && inner->type == OSR_PICKLE_DICT)
      return inner;
  }
  for (guint i = 1; i < dict->n_items; i += 2) {
    if (dict->items[i]->type == OSR_PICKLE_DICT) {
      only = dict->items[i];
      n++;
    }
  }
  return n == 1 ? only : NULL;
}

/* "'a', 'b' and 3 others" */
static char *
list_keys(const OsrPickleValue *dict)
{
  const guint most = 5, n = dict->n_items / 2;
  GString *text = g_string_new(NULL);

  for (guint i = 0; i < MIN(n, most); i++) {
    const OsrPickleValue *key = dict->items[2 * i];
    g_autofree char *name = key->type == OSR_PICKLE_TEXT ? g_strndup(key->text, key->length)
                                                         : g_strdup(osr_pickle_type_name(key));
    g_autofree char *shown = osr_printable(name);

    g_string_append_printf(text, "%s'%s'", i ? ", " : "", shown);
  }
  if (n > most)
    g_string_append_printf(text, " and %u others", n - most);
  return g_string_free(text, FALSE);
}

static const OsrPickleValue *
find_state_dict(const char *path, const OsrPickleValue *root, GError **error)
{
  const OsrPickleValue *dict = root;
  g_autofree char *keys = NULL;

  for (guint depth = 0; depth < MAX_DEPTH && dict && dict->type == OSR_PICKLE_DICT; depth++) {
    if (has_tensors(dict) || dict->n_items == 0)
      return dict;
    dict = inner_dict(dict);
  }
  if (root->type == OSR_PICKLE_DICT)
    keys = list_keys(root);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
              "%s: no state dict: it is %s%s%s, without tensors by name", path,
              osr_pickle_type_name(root), keys ? " of " : "", keys ? keys : "");
  return NULL;
}

static int
compare_places(gconstpointer a, gconstpointer b)
{
  const OsrCheckpointEntry *x = *(OsrCheckpointEntry *const *) a;
  const OsrCheckpointEntry *y = *(OsrCheckpointEntry *const *) b;

  if (x->data != y->data)
    return (const char *) x->data < (const char *) y->data ? -1 : 1;
  return strcmp(x->name, y->name);
}

/* What else a state dict has ("epoch", a nested dict) is left out. */
static gboolean
add_tensors(OsrCheckpoint *checkpoint, const Archive *archive, const OsrPickleValue *dict,
            GError **error)
{
  for (guint i = 1; i < dict->n_items; i += 2) {
    const OsrPickleValue *key = dict->items[i - 1];
    OsrCheckpointEntry *entry;

    if (key->type != OSR_PICKLE_TEXT || !is_tensor(dict->items[i]))
      continue;
    entry = g_new0(OsrCheckpointEntry, 1);
    entry->name = g_strndup(key->text, key->length);
    entry->path = checkpoint->path;
    g_ptr_array_add(checkpoint->entries, entry);
    if (g_hash_table_contains(checkpoint->by_name, entry->name))
      return fail_tensor(archive->path, entry->name, error, "the name is there twice");
    g_hash_table_insert(checkpoint->by_name, (char *) entry->name, entry);
    if (!read_tensor(archive, entry, dict->items[i], error))
      return FALSE;
  }
  g_ptr_array_sort(checkpoint->entries, compare_places);
  return TRUE;
}

/* The archive */

static const OsrZipMember *
find_member(const Archive *archive, const char *name)
{
  g_autofree char *path = g_strconcat(archive->folder, name, NULL);

  return g_hash_table_lookup(archive->members, path);
}

/* "archive/" of the member "archive/data.pkl". */
static char *
find_folder(const char *path, GHashTable *members, GError **error)
{
  GHashTableIter iter;
  gpointer name;

  g_hash_table_iter_init(&iter, members);
  while (g_hash_table_iter_next(&iter, &name, NULL)) {
    const char *slash = strchr(name, '/');

    if (slash && g_str_equal(slash, "/data.pkl"))
      return g_strndup(name, (gsize) (slash + 1 - (const char *) name));
  }
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_FILE,
              "%s: a zip archive, but no PyTorch file: there is no data.pkl in it", path);
  return NULL;
}

static gboolean
check_kind(const Archive *archive, GError **error)
{
  const OsrZipMember *order = find_member(archive, "byteorder");
  const char *reason = NULL;

  if (find_member(archive, "constants.pkl"))
    reason = "a TorchScript program; weights are what torch.save(model.state_dict()) writes";
  else if (!find_member(archive, "data.pkl")->data)
    reason = "its members are compressed, and PyTorch stores them as they are";
  else if (order && order->data && (order->size != 6 || memcmp(order->data, "little", 6) != 0))
    reason = "its numbers are big-endian";
  if (!reason)
    return TRUE;
  g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "%s: %s", archive->path, reason);
  return FALSE;
}

gboolean
osr_pytorch_parse(OsrCheckpoint *checkpoint, GError **error)
{
  g_autoptr(GHashTable) members = NULL;
  g_autoptr(OsrPickle) pickle = NULL;
  g_autofree char *folder = NULL, *pickle_name = NULL;
  const OsrPickleValue *dict;
  const OsrZipMember *data;
  Archive archive;
  gsize size;
  const guint8 *bytes = g_bytes_get_data(checkpoint->bytes, &size);

  checkpoint->format = "PyTorch";
  g_ptr_array_set_free_func(checkpoint->entries, entry_free);
  members = osr_zip_list(bytes, size, checkpoint->path, error);
  folder = members ? find_folder(checkpoint->path, members, error) : NULL;
  if (!folder)
    return FALSE;
  archive = (Archive){ checkpoint->path, members, folder };
  if (!check_kind(&archive, error))
    return FALSE;
  data = find_member(&archive, "data.pkl");
  pickle_name = g_strconcat(checkpoint->path, ": data.pkl", NULL);
  pickle = osr_pickle_read(data->data, data->size, pickle_name, error);
  dict = pickle ? find_state_dict(checkpoint->path, osr_pickle_root(pickle), error) : NULL;
  return dict && add_tensors(checkpoint, &archive, dict, error);
}
