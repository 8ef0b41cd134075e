/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "checkpoint-private.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "error.h"
#include "host-weights.h"
#include "loader-private.h"
#include "pool-private.h"
#include "quantise.h"

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

OsrLoaderCheck *
osr_loader_check_new(void)
{
  OsrLoaderCheck *check = g_new0(OsrLoaderCheck, 1);

  check->used = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
  check->missing = g_ptr_array_new_with_free_func(g_free);
  check->misfits = g_ptr_array_new_with_free_func(g_free);
  return check;
}

void
osr_loader_check_free(OsrLoaderCheck *check)
{
  if (!check)
    return;
  g_hash_table_unref(check->used);
  g_ptr_array_unref(check->missing);
  g_ptr_array_unref(check->misfits);
  g_free(check);
}

gboolean
osr_loader_finish(OsrLoader *loader, GError **error)
{
  if (!loader->error && loader->loras)
    osr_loras_check_used(loader->loras, &loader->error);
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

/* What the pool hands out for a tensor of these @dims. */
static void
count_size(OsrLoader *loader, guint n_dims, const gint64 *dims)
{
  OsrLoaderSizes *sizes = loader->sizes;
  guint64 n = 1, size, taken;

  for (guint i = 0; i < n_dims; i++)
    n *= (guint64) dims[i];
  size = n * osr_dtype_size(loader->dtype);
  taken = osr_pool_block_size(size);
  loader->n_parameters += n;
  loader->n_bytes += size;
  *(sizes->in_block ? &sizes->block_bytes : &sizes->bytes) += taken;
  if (sizes->in_block)
    sizes->block = osr_host_weights_append(sizes->block, size);
}

void
osr_loader_begin_block(OsrLoader *loader)
{
  if (!loader->sizes)
    return;
  loader->sizes->in_block = TRUE;
  loader->sizes->block = 0;
}

void
osr_loader_end_block(OsrLoader *loader)
{
  OsrLoaderSizes *sizes = loader->sizes;

  if (!sizes)
    return;
  sizes->in_block = FALSE;
  sizes->n_blocks++;
  sizes->host_bytes += sizes->block;
  sizes->largest_block = MAX(sizes->largest_block, sizes->block);
}

static OsrTensor *
random_tensor(OsrLoader *loader, guint n_dims, const gint64 *dims, const char *name)
{
  g_autoptr(OsrTensor) tensor = NULL;
  gboolean ok;

  if (loader->error || g_cancellable_set_error_if_cancelled(loader->cancellable, &loader->error))
    return NULL;
  if (loader->sizes) {
    count_size(loader, n_dims, dims);
    return NULL;
  }
  tensor = osr_tensor_new(loader->device, loader->dtype, n_dims, dims, &loader->error);
  if (!tensor)
    return NULL;
  if (loader->undefined)
    return count(loader, g_steal_pointer(&tensor));
  if (!osr_device_lock_cancellable(loader->device, loader->cancellable, &loader->error))
    return NULL;
  ok = fill_random(loader, tensor, name);
  osr_device_unlock(loader->device);
  return ok ? count(loader, g_steal_pointer(&tensor)) : NULL;
}

/* A failure of one tensor: the end of loading, or one of many that are noted. @message is
 * taken. */
static void
fail_entry(OsrLoader *loader, OsrError code, char *message)
{
  if (loader->check)
    g_ptr_array_add(loader->check->misfits, g_strdup(message));
  else
    g_set_error(&loader->error, OSR_ERROR, (gint) code, "%s: %s",
                osr_checkpoint_get_path(loader->checkpoint), message);
  g_free(message);
}

/* Of a check: that the adapters fit. */
static void
check_loras(OsrLoader *loader, const OsrCheckpointEntry *entry)
{
  g_autoptr(GError) error = NULL;

  if (loader->loras && entry->n_dims == 2 &&
      !osr_loras_apply(loader->loras, entry->name, entry->dims[0], entry->dims[1], NULL, FALSE,
                       &error))
    g_ptr_array_add(loader->check->misfits, g_strdup(error->message));
}

/* @entry as [dims], which has the same numbers if dimensions of one are the only difference: a
 * convolution over one frame or one position has those of the 2D convolution, or of the linear
 * layer, that a checkpoint may hold in its place. */
static gboolean
reshape(const OsrCheckpointEntry *entry, guint n_dims, const gint64 *dims,
        OsrCheckpointEntry *shaped)
{
  const gboolean skip_ones = entry->n_dims != n_dims;
  guint i = 0;

  *shaped = *entry;
  shaped->n_dims = n_dims;
  for (guint j = 0; j < n_dims; j++) {
    shaped->dims[j] = dims[j];
    shaped->strides[j] = 0;
    if (skip_ones && dims[j] == 1)
      continue;
    while (skip_ones && i < entry->n_dims && entry->dims[i] == 1)
      i++;
    if (i == entry->n_dims || entry->dims[i] != dims[j])
      return FALSE;
    shaped->strides[j] = entry->strides[i++];
  }
  while (skip_ones && i < entry->n_dims && entry->dims[i] == 1)
    i++;
  return i == entry->n_dims;
}

/* The entry of that name as [dims]. FALSE with loader->error set; with a check always FALSE. */
static gboolean
find_entry(OsrLoader *loader, const char *name, guint n_dims, const gint64 *dims,
           OsrCheckpointEntry *shaped)
{
  const OsrCheckpointEntry *entry;

  if (loader->error || g_cancellable_set_error_if_cancelled(loader->cancellable, &loader->error))
    return FALSE;
  entry = osr_checkpoint_lookup(loader->checkpoint, name);
  if (!entry && loader->check)
    g_ptr_array_add(loader->check->missing, g_strdup(name));
  else if (!entry)
    fail_entry(loader, OSR_ERROR_NOT_FOUND, g_strdup_printf("tensor '%s' is missing", name));
  if (!entry)
    return FALSE;
  if (loader->check)
    g_hash_table_add(loader->check->used, g_strdup(name));
  if (!reshape(entry, n_dims, dims, shaped)) {
    g_autofree char *has = osr_dims_to_string(entry->n_dims, entry->dims);
    g_autofree char *needs = osr_dims_to_string(n_dims, dims);

    fail_entry(loader, OSR_ERROR_SHAPE,
               g_strdup_printf("tensor '%s' is %s, the model needs %s", name, has, needs));
    return FALSE;
  }
  if (!loader->check)
    return TRUE;
  check_loras(loader, shaped);
  return FALSE;
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
  g_prefix_error(&loader->error, "%s: ", entry->path);
  return FALSE;
}

/* The elements as f32 (@convert) or as they are, @size bytes, to device memory: from the mapping
 * or, where they have to be made, on host devices without a copy in between. */
static gboolean
put_entry(OsrLoader *loader, const OsrCheckpointEntry *entry, gboolean convert, gpointer dst,
          gsize size)
{
  const gboolean host = osr_device_is_host(loader->device);
  g_autofree gpointer buffer = NULL;

  if (!convert && !entry->strided)
    return osr_device_upload(loader->device, dst, entry->data, size, &loader->error);
  buffer = host ? NULL : host_buffer(loader, size);
  if (!host && !buffer)
    return FALSE;
  if (!convert)
    osr_checkpoint_entry_pack(entry, host ? dst : buffer);
  else if (!entry_to_f32(loader, entry, host ? dst : buffer))
    return FALSE;
  return host || osr_device_upload(loader->device, dst, buffer, size, &loader->error);
}

static gboolean
is_target(OsrLoader *loader, const OsrCheckpointEntry *entry)
{
  return loader->loras && osr_loras_target(loader->loras, entry->name);
}

/* What adapters add to rows @row and on of @tensor, which are those of @entry. */
static gboolean
merge_loras(OsrLoader *loader, const OsrCheckpointEntry *entry, OsrTensor *tensor, gint64 row)
{
  g_autoptr(OsrTensor) rows = NULL;

  if (!is_target(loader, entry))
    return TRUE;
  if (entry->n_dims != 2) {
    fail_entry(loader, OSR_ERROR_SHAPE,
               g_strdup_printf("tensor '%s' has a LoRA adapter and is no matrix", entry->name));
    return FALSE;
  }
  rows = osr_tensor_view(tensor, row * entry->dims[1], 2, entry->dims);
  return osr_loras_apply(loader->loras, entry->name, entry->dims[0], entry->dims[1], rows,
                         loader->check_weights, &loader->error);
}

/* Entries one after the other as one tensor. Whatever is not in the loader's type already goes
 * through f32, in which scales and adapters are applied. */
static OsrTensor *
upload(OsrLoader *loader, const OsrCheckpointEntry *entries, guint n_entries, guint n_dims,
       const gint64 *dims)
{
  g_autoptr(OsrTensor) tensor = NULL;
  gboolean convert = FALSE;
  gint64 row = 0;
  gsize at = 0;

  for (guint i = 0; i < n_entries; i++) {
    const OsrCheckpointEntry *entry = &entries[i];

    if (entry->dtype != loader->dtype || entry->scale || is_target(loader, entry))
      convert = TRUE;
    if (loader->check_weights && !osr_checkpoint_entry_check_finite(entry, &loader->error))
      return NULL;
  }
  tensor = osr_tensor_new(loader->device, convert ? OSR_DTYPE_F32 : loader->dtype, n_dims, dims,
                          &loader->error);
  if (!tensor)
    return NULL;
  for (guint i = 0; i < n_entries; i++) {
    const OsrCheckpointEntry *entry = &entries[i];
    gsize size = entry->size / osr_dtype_size(entry->dtype) * osr_dtype_size(tensor->dtype);

    if (size > 0 && !put_entry(loader, entry, convert, (char *) tensor->data + at, size))
      return NULL;
    if (!merge_loras(loader, entry, tensor, row))
      return NULL;
    at += size;
    row += entry->n_dims > 0 ? entry->dims[0] : 0;
  }
  return count(loader, osr_tensor_convert(tensor, loader->device, loader->dtype, &loader->error));
}

static OsrTensor *
load(OsrLoader *loader, guint n_dims, const gint64 *dims, const char *name)
{
  OsrCheckpointEntry entry;

  if (!loader->checkpoint)
    return random_tensor(loader, n_dims, dims, name);
  return find_entry(loader, name, n_dims, dims, &entry) ? upload(loader, &entry, 1, n_dims, dims)
                                                        : NULL;
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

OsrTensor *
osr_loader_stack(OsrLoader *loader, const char *const *names, const gint64 *rows, gint64 columns)
{
  guint n_dims = columns > 0 ? 2 : 1, n = 0;
  g_autofree OsrCheckpointEntry *entries = NULL;
  gint64 dims[2] = { 0, columns };
  gboolean ok = TRUE;

  g_return_val_if_fail(names[0] != NULL, NULL);

  for (; names[n]; n++)
    dims[0] += rows[n];
  if (!loader->checkpoint)
    return random_tensor(loader, n_dims, dims, names[0]);
  entries = g_new(OsrCheckpointEntry, n);
  for (guint i = 0; i < n && (ok || loader->check); i++)
    ok = find_entry(loader, names[i], n_dims, (gint64[]){ rows[i], columns }, &entries[i]);
  return ok ? upload(loader, entries, n, n_dims, dims) : NULL;
}

/* On the host: it is done once, and no op of a device rounds to F8. */
static OsrTensor *
quantise(OsrLoader *loader, OsrTensor *weights, OsrTensor **scale)
{
  const gint64 rows = weights->dims[0], columns = weights->dims[1];
  const gboolean host = osr_device_is_host(loader->device);
  g_autofree gpointer values = host ? NULL : g_try_malloc(MAX(weights->size, 1));
  g_autofree guint8 *bytes = g_try_malloc(MAX((gsize) (rows * columns), 1));
  g_autofree float *factors = g_try_new(float, MAX(rows, 1));
  g_autoptr(OsrTensor) result = NULL;

  if ((!host && !values) || !bytes || !factors) {
    g_set_error(&loader->error, OSR_ERROR, OSR_ERROR_MEMORY,
                "%" G_GSIZE_FORMAT " bytes of host memory are needed to make a tensor F8",
                weights->size);
    return NULL;
  }
  if (!host && !osr_tensor_download(weights, values, weights->size, &loader->error))
    return NULL;
  osr_quantise_rows(host ? weights->data : values, rows, columns, bytes, factors);
  result = osr_tensor_new_from_host(loader->device, OSR_DTYPE_F8_E4M3, 2, weights->dims, bytes,
                                    &loader->error);
  if (!result)
    return NULL;
  *scale =
      osr_tensor_new_from_host(loader->device, OSR_DTYPE_F32, 1, &rows, factors, &loader->error);
  return *scale ? g_steal_pointer(&result) : NULL;
}

/* What a matrix of F8 would be counted as. */
static void
count_quantised(OsrLoader *loader, gint64 rows, gint64 columns)
{
  const OsrDType dtype = loader->dtype;

  loader->dtype = OSR_DTYPE_F8_E4M3;
  count_size(loader, 2, (gint64[]){ rows, columns });
  loader->dtype = OSR_DTYPE_F32;
  count_size(loader, 1, &rows);
  loader->dtype = dtype;
  loader->n_parameters -= (guint64) rows;
}

OsrTensor *
osr_loader_weights(OsrLoader *loader, const char *const *names, const gint64 *rows, gint64 columns,
                   OsrTensor **scale)
{
  const OsrDType dtype = loader->dtype;
  g_autoptr(OsrTensor) weights = NULL;
  OsrTensor *result;
  gint64 n = 0;

  *scale = NULL;
  if (!loader->fp8 || loader->check)
    return osr_loader_stack(loader, names, rows, columns);
  for (guint i = 0; names[i]; i++)
    n += rows[i];
  if (loader->sizes) {
    count_quantised(loader, n, columns);
    return NULL;
  }
  if (!loader->checkpoint && loader->undefined) {
    loader->dtype = OSR_DTYPE_F8_E4M3;
    result = random_tensor(loader, 2, (gint64[]){ n, columns }, names[0]);
    loader->dtype = OSR_DTYPE_F32;
    *scale = random_tensor(loader, 1, &n, names[0]);
    loader->dtype = dtype;
    return result;
  }
  loader->dtype = OSR_DTYPE_F32; /* rounded once */
  weights = osr_loader_stack(loader, names, rows, columns);
  loader->dtype = dtype;
  if (!weights)
    return NULL;
  result = quantise(loader, weights, scale);
  if (result)
    loader->n_bytes += result->size + (*scale)->size - weights->size;
  return result;
}

OsrTensor *
osr_loader_conv3d(OsrLoader *loader, gint64 c_out, gint64 c_in, gint64 k_t, gint64 k_h, gint64 k_w,
                  const char *format, ...)
{
  static const guint order[] = { 0, 2, 3, 4, 1 };
  OsrCheckpointEntry entry, permuted;
  g_autofree char *name = NULL;
  va_list args;

  va_start(args, format);
  name = g_strdup_vprintf(format, args);
  va_end(args);
  if (!loader->checkpoint)
    return random_tensor(loader, 5, (gint64[]){ c_out, k_t, k_h, k_w, c_in }, name);
  if (!find_entry(loader, name, 5, (gint64[]){ c_out, c_in, k_t, k_h, k_w }, &entry))
    return NULL;
  if (!entry.strided) {
    entry.strides[4] = 1;
    for (guint i = 4; i-- > 0;)
      entry.strides[i] = entry.strides[i + 1] * entry.dims[i + 1];
  }
  permuted = entry;
  permuted.strided = TRUE;
  for (guint i = 0; i < 5; i++) {
    permuted.dims[i] = entry.dims[order[i]];
    permuted.strides[i] = entry.strides[order[i]];
  }
  return upload(loader, &permuted, 1, 5, permuted.dims);
}
