/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "checkpoint-private.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "error.h"

void
osr_loader_init(OsrLoader *loader, OsrCheckpoint *checkpoint, OsrDevice *device, OsrDType dtype,
                GCancellable *cancellable)
{
  *loader = (OsrLoader){
    .checkpoint = checkpoint,
    .device = device,
    .dtype = dtype,
    .cancellable = cancellable,
  };
}

void
osr_loader_init_random(OsrLoader *loader, OsrDevice *device, OsrDType dtype, guint64 seed,
                       GCancellable *cancellable)
{
  *loader = (OsrLoader){
    .device = device,
    .dtype = dtype,
    .seed = seed,
    .cancellable = cancellable,
  };
}

gboolean
osr_loader_finish(OsrLoader *loader, GError **error)
{
  if (!loader->error)
    return TRUE;
  g_propagate_error(error, g_steal_pointer(&loader->error));
  return FALSE;
}

gboolean
osr_loader_has(OsrLoader *loader, const char *format, ...)
{
  g_autofree char *name = NULL;
  va_list args;

  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  return !loader->checkpoint || osr_checkpoint_lookup(loader->checkpoint, name) != NULL;
}

static OsrTensor *
count(OsrLoader *loader, OsrTensor *tensor)
{
  if (tensor) {
    loader->n_parameters += (guint64) osr_tensor_n_elements(tensor);
    loader->n_bytes += tensor->size;
  }
  return tensor;
}

static gboolean
fill_random(OsrLoader *loader, OsrTensor *tensor, const char *name)
{
  OsrDevice *device = loader->device;
  OsrOpsContext *ctx = osr_device_get_context(device);
  const OsrOps *ops = osr_device_get_ops(device);
  gint64 n = osr_tensor_n_elements(tensor), inputs = n / MAX(tensor->dims[0], 1);
  OsrRandn noise = {
    .dtype = tensor->dtype,
    .seed = loader->seed,
    .sequence = loader->sequence++,
    .t = (int) tensor->dims[0],
    .h = 1,
    .w = 1,
    .c = (int) inputs,
    .y = tensor->data,
  };
  OsrAffine scale = {
    .dtype = tensor->dtype,
    .n = n,
    .a = tensor->n_dims > 1 ? (float) (1.0 / sqrt((double) inputs)) : 0.0f,
    .b = tensor->n_dims > 1 || g_str_has_suffix(name, ".bias") ? 0.0f : 1.0f,
    .x = tensor->data,
    .y = tensor->data,
  };

  /* Of a vector too: 0 times what the memory held before might be NaN. */
  return osr_device_check(device, ops->randn(ctx, &noise), name, &loader->error) &&
         osr_device_check(device, ops->affine(ctx, &scale), name, &loader->error);
}

static OsrTensor *
random_tensor(OsrLoader *loader, guint n_dims, const gint64 *dims, const char *name)
{
  g_autoptr(OsrTensor) tensor = NULL;
  gboolean ok;

  if (loader->error || g_cancellable_set_error_if_cancelled(loader->cancellable, &loader->error))
    return NULL;
  tensor = osr_tensor_new(loader->device, loader->dtype, n_dims, dims, &loader->error);
  if (!tensor)
    return NULL;
  if (!osr_device_lock_cancellable(loader->device, loader->cancellable, &loader->error))
    return NULL;
  ok = fill_random(loader, tensor, name);
  osr_device_unlock(loader->device);
  return ok ? count(loader, g_steal_pointer(&tensor)) : NULL;
}

/* A tensor of another number of dimensions fits if dimensions of one are the difference: a
 * convolution over one frame or one position has the numbers of the 2D convolution, or of the
 * linear layer, that a checkpoint may hold in its place. */
static gboolean
same_shape(const OsrCheckpointEntry *entry, guint n_dims, const gint64 *dims)
{
  const gboolean skip_ones = entry->n_dims != n_dims;
  guint i = 0, j = 0;

  for (;;) {
    while (skip_ones && i < entry->n_dims && entry->dims[i] == 1)
      i++;
    while (skip_ones && j < n_dims && dims[j] == 1)
      j++;
    if (i == entry->n_dims || j == n_dims)
      return i == entry->n_dims && j == n_dims;
    if (entry->dims[i++] != dims[j++])
      return FALSE;
  }
}

/* The entry of that name and shape, or NULL with loader->error set. */
static const OsrCheckpointEntry *
find_entry(OsrLoader *loader, const char *name, guint n_dims, const gint64 *dims)
{
  const char *path = osr_checkpoint_get_path(loader->checkpoint);
  const OsrCheckpointEntry *entry;

  if (loader->error || g_cancellable_set_error_if_cancelled(loader->cancellable, &loader->error))
    return NULL;
  entry = osr_checkpoint_lookup(loader->checkpoint, name);
  if (!entry) {
    g_set_error(&loader->error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "%s: tensor '%s' is missing", path,
                name);
    return NULL;
  }
  if (!same_shape(entry, n_dims, dims)) {
    g_autofree char *has = osr_dims_to_string(entry->n_dims, entry->dims);
    g_autofree char *needs = osr_dims_to_string(n_dims, dims);

    g_set_error(&loader->error, OSR_ERROR, OSR_ERROR_SHAPE,
                "%s: tensor '%s' is %s, the model needs %s", path, name, has, needs);
    return NULL;
  }
  return entry;
}

static gpointer
host_buffer(OsrLoader *loader, gsize size)
{
  gpointer buffer = g_try_malloc(MAX(size, 1));

  if (!buffer)
    g_set_error(&loader->error, OSR_ERROR, OSR_ERROR_MEMORY,
                "%s: %" G_GSIZE_FORMAT " bytes of host memory are needed to load a tensor",
                osr_checkpoint_get_path(loader->checkpoint), size);
  return buffer;
}

static gboolean
entry_to_f32(OsrLoader *loader, const OsrCheckpointEntry *entry, float *dst)
{
  if (osr_checkpoint_entry_to_f32(entry, dst, &loader->error))
    return TRUE;
  g_prefix_error(&loader->error, "%s: ", osr_checkpoint_get_path(loader->checkpoint));
  return FALSE;
}

/* An f32 tensor of the entry, on host devices without a copy in between. */
static OsrTensor *
upload_as_f32(OsrLoader *loader, const OsrCheckpointEntry *entry)
{
  OsrDevice *device = loader->device;
  g_autoptr(OsrTensor) tensor =
      osr_tensor_new(device, OSR_DTYPE_F32, entry->n_dims, entry->dims, &loader->error);
  g_autofree float *values = NULL;

  if (!tensor)
    return NULL;
  if (osr_device_is_host(device))
    return entry_to_f32(loader, entry, tensor->data) ? g_steal_pointer(&tensor) : NULL;
  values = host_buffer(loader, tensor->size);
  if (!values || !entry_to_f32(loader, entry, values) ||
      !osr_device_upload(device, tensor->data, values, tensor->size, &loader->error))
    return NULL;
  return g_steal_pointer(&tensor);
}

static OsrTensor *
upload(OsrLoader *loader, const OsrCheckpointEntry *entry)
{
  g_autoptr(OsrTensor) f32 = NULL;
  OsrTensor *tensor;

  if (entry->dtype == loader->dtype) {
    tensor = osr_tensor_new_from_host(loader->device, entry->dtype, entry->n_dims, entry->dims,
                                      entry->data, &loader->error);
  } else {
    f32 = upload_as_f32(loader, entry);
    tensor = f32 ? osr_tensor_convert(f32, loader->device, loader->dtype, &loader->error) : NULL;
  }
  return count(loader, tensor);
}

static OsrTensor *
load(OsrLoader *loader, guint n_dims, const gint64 *dims, const char *name)
{
  const OsrCheckpointEntry *entry;
  OsrCheckpointEntry shaped;

  if (!loader->checkpoint)
    return random_tensor(loader, n_dims, dims, name);
  entry = find_entry(loader, name, n_dims, dims);
  if (!entry)
    return NULL;
  shaped = *entry;
  shaped.n_dims = n_dims;
  if (n_dims > 0)
    memcpy(shaped.dims, dims, n_dims * sizeof *dims);
  return upload(loader, &shaped);
}

OsrTensor *
osr_loader_get(OsrLoader *loader, guint n_dims, const gint64 *dims, const char *format, ...)
{
  g_autofree char *name = NULL;
  va_list args;

  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  return load(loader, n_dims, dims, name);
}

OsrTensor *
osr_loader_vector(OsrLoader *loader, gint64 n, const char *format, ...)
{
  g_autofree char *name = NULL;
  va_list args;

  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  return load(loader, 1, &n, name);
}

OsrTensor *
osr_loader_matrix(OsrLoader *loader, gint64 rows, gint64 columns, const char *format, ...)
{
  g_autofree char *name = NULL;
  va_list args;

  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  return load(loader, 2, (gint64[]){ rows, columns }, name);
}

/* All parts one after the other, in their own type if that is one, else in f32. */
static gpointer
concatenate(OsrLoader *loader, GPtrArray *parts, OsrCheckpointEntry *whole)
{
  gsize at = 0, n = 0;
  char *bytes;

  whole->dtype = ((const OsrCheckpointEntry *) g_ptr_array_index(parts, 0))->dtype;
  for (guint i = 0; i < parts->len; i++) {
    const OsrCheckpointEntry *part = g_ptr_array_index(parts, i);

    n += part->size / osr_dtype_size(part->dtype);
    if (part->dtype != whole->dtype)
      whole->dtype = OSR_DTYPE_F32;
  }
  whole->size = n * osr_dtype_size(whole->dtype);
  bytes = host_buffer(loader, whole->size);
  for (guint i = 0; i < parts->len && bytes; i++) {
    const OsrCheckpointEntry *part = g_ptr_array_index(parts, i);

    if (part->dtype == whole->dtype) {
      memcpy(bytes + at, part->data, part->size);
      at += part->size;
    } else if (entry_to_f32(loader, part, (float *) (bytes + at))) {
      at += part->size / osr_dtype_size(part->dtype) * sizeof(float);
    } else {
      g_clear_pointer(&bytes, g_free);
    }
  }
  whole->data = bytes;
  return bytes;
}

OsrTensor *
osr_loader_stack(OsrLoader *loader, const char *const *names, const gint64 *rows, gint64 columns)
{
  g_autoptr(GPtrArray) parts = g_ptr_array_new();
  guint n_dims = columns > 0 ? 2 : 1;
  OsrCheckpointEntry whole = { .name = names[0], .n_dims = n_dims, .dims = { 0, columns } };
  g_autofree char *bytes = NULL;

  g_return_val_if_fail(names[0] != NULL, NULL);

  for (guint i = 0; names[i]; i++)
    whole.dims[0] += rows[i];
  if (!loader->checkpoint)
    return random_tensor(loader, n_dims, whole.dims, names[0]);
  for (guint i = 0; names[i]; i++) {
    const OsrCheckpointEntry *entry =
        find_entry(loader, names[i], n_dims, (gint64[]){ rows[i], columns });

    if (!entry)
      return NULL;
    g_ptr_array_add(parts, (gpointer) entry);
  }
  bytes = concatenate(loader, parts, &whole);
  return bytes ? upload(loader, &whole) : NULL;
}

/* [n, rows, columns] -> [n, columns, rows] of elements of @item bytes. */
static void
transpose(char *dst, const char *src, gsize n, gsize rows, gsize columns, gsize item)
{
  for (gsize i = 0; i < n; i++) {
    for (gsize r = 0; r < rows; r++)
      for (gsize c = 0; c < columns; c++)
        memcpy(dst + (c * rows + r) * item, src + (r * columns + c) * item, item);
    dst += rows * columns * item;
    src += rows * columns * item;
  }
}

OsrTensor *
osr_loader_conv3d(OsrLoader *loader, gint64 c_out, gint64 c_in, gint64 k_t, gint64 k_h, gint64 k_w,
                  const char *format, ...)
{
  const OsrCheckpointEntry *entry;
  OsrCheckpointEntry permuted;
  g_autofree char *name = NULL;
  g_autofree char *bytes = NULL;
  va_list args;

  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  if (!loader->checkpoint)
    return random_tensor(loader, 5, (gint64[]){ c_out, k_t, k_h, k_w, c_in }, name);
  entry = find_entry(loader, name, 5, (gint64[]){ c_out, c_in, k_t, k_h, k_w });
  bytes = entry ? host_buffer(loader, entry->size) : NULL;
  if (!bytes)
    return NULL;
  transpose(bytes, entry->data, (gsize) c_out, (gsize) c_in, (gsize) (k_t * k_h * k_w),
            osr_dtype_size(entry->dtype));
  permuted = *entry;
  permuted.data = bytes;
  permuted.n_dims = 5;
  memcpy(permuted.dims, (gint64[]){ c_out, k_t, k_h, k_w, c_in }, 5 * sizeof(gint64));
  return upload(loader, &permuted);
}
