/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tensor.h"

#include <stdarg.h>

#include "error.h"
#include "tensor-private.h"

G_DEFINE_BOXED_TYPE(OsrTensor, osr_tensor, osr_tensor_ref, osr_tensor_unref)

/* In the words of the safetensors format. */
static const char *const dtype_names[OSR_N_DTYPES] = {
  [OSR_DTYPE_F32] = "F32", [OSR_DTYPE_BF16] = "BF16", [OSR_DTYPE_F16] = "F16",
  [OSR_DTYPE_F64] = "F64", [OSR_DTYPE_I32] = "I32",   [OSR_DTYPE_I64] = "I64",
  [OSR_DTYPE_U8] = "U8",   [OSR_DTYPE_BOOL] = "BOOL", [OSR_DTYPE_F8_E4M3] = "F8_E4M3",
};

const char *
osr_dtype_name(OsrDType dtype)
{
  return (guint) dtype < OSR_N_DTYPES ? dtype_names[dtype] : "unknown";
}

gboolean
osr_dtype_from_name(const char *name, OsrDType *dtype)
{
  for (guint i = 0; i < OSR_N_DTYPES; i++) {
    if (g_str_equal(name, dtype_names[i])) {
      *dtype = i;
      return TRUE;
    }
  }
  return FALSE;
}

char *
osr_dims_to_string(guint n_dims, const gint64 *dims)
{
  GString *text = g_string_new("[");

  for (guint i = 0; i < n_dims; i++)
    g_string_append_printf(text, "%s%" G_GINT64_FORMAT, i ? ", " : "", dims[i]);
  g_string_append_c(text, ']');
  return g_string_free(text, FALSE);
}

static gboolean
tensor_size(OsrDType dtype, guint n_dims, const gint64 *dims, gsize *size, GError **error)
{
  gboolean fits = TRUE, empty = FALSE;
  g_autofree char *text = NULL;

  *size = osr_dtype_size(dtype);
  for (guint i = 0; i < n_dims && fits; i++) {
    empty |= dims[i] == 0;
    fits = dims[i] >= 0 && (dims[i] == 0 || g_size_checked_mul(size, *size, (gsize) dims[i]));
  }
  if (fits && *size <= G_MAXSSIZE) {
    if (empty)
      *size = 0;
    return TRUE;
  }
  text = osr_dims_to_string(n_dims, dims);
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "no tensor can be %s of %s", text,
              osr_dtype_name(dtype));
  return FALSE;
}

static OsrTensor *
alloc_header(OsrDevice *device, OsrDType dtype, guint n_dims, const gint64 *dims, gsize size)
{
  OsrTensor *tensor = g_new0(OsrTensor, 1);

  tensor->ref_count = 1;
  tensor->device = osr_device_ref(device);
  tensor->dtype = dtype;
  tensor->n_dims = n_dims;
  for (guint i = 0; i < n_dims; i++)
    tensor->dims[i] = dims[i];
  tensor->size = size;
  return tensor;
}

OsrTensor *
osr_tensor_new(OsrDevice *device, OsrDType dtype, guint n_dims, const gint64 *dims, GError **error)
{
  OsrTensor *tensor;
  gpointer data;
  gsize size;

  g_return_val_if_fail(device != NULL, NULL);
  g_return_val_if_fail((guint) dtype < OSR_N_DTYPES, NULL);
  g_return_val_if_fail(n_dims <= OSR_TENSOR_MAX_DIMS, NULL);

  if (!tensor_size(dtype, n_dims, dims, &size, error))
    return NULL;
  data = osr_pool_alloc(osr_device_get_pool(device), size, error);
  if (!data)
    return NULL;
  tensor = alloc_header(device, dtype, n_dims, dims, size);
  tensor->data = data;
  return tensor;
}

OsrTensor *
osr_tensor_make(OsrDevice *device, OsrDType dtype, GError **error, ...)
{
  gint64 dims[OSR_TENSOR_MAX_DIMS];
  guint n_dims = 0;
  va_list args;
  int dim;

  va_start(args, error);
  while ((dim = va_arg(args, int)) != -1 && n_dims < OSR_TENSOR_MAX_DIMS)
    dims[n_dims++] = dim;
  va_end(args);
  g_return_val_if_fail(dim == -1, NULL);
  return osr_tensor_new(device, dtype, n_dims, dims, error);
}

OsrTensor *
osr_tensor_new_from_host(OsrDevice *device, OsrDType dtype, guint n_dims, const gint64 *dims,
                         gconstpointer data, GError **error)
{
  g_autoptr(OsrTensor) tensor = osr_tensor_new(device, dtype, n_dims, dims, error);

  if (!tensor || !osr_device_upload(device, tensor->data, data, tensor->size, error))
    return NULL;
  return g_steal_pointer(&tensor);
}

OsrTensor *
osr_tensor_view_bytes(OsrTensor *tensor, gsize offset, OsrDType dtype, guint n_dims,
                      const gint64 *dims)
{
  OsrTensor *view;
  gsize size;

  g_return_val_if_fail(n_dims <= OSR_TENSOR_MAX_DIMS, NULL);
  g_return_val_if_fail(tensor_size(dtype, n_dims, dims, &size, NULL), NULL);
  g_return_val_if_fail(offset <= tensor->size && size <= tensor->size - offset, NULL);

  view = alloc_header(tensor->device, dtype, n_dims, dims, size);
  view->data = (char *) tensor->data + offset;
  view->parent = osr_tensor_ref(tensor);
  return view;
}

OsrTensor *
osr_tensor_view(OsrTensor *tensor, gint64 offset, guint n_dims, const gint64 *dims)
{
  g_return_val_if_fail(tensor != NULL, NULL);
  g_return_val_if_fail(offset >= 0 && offset <= osr_tensor_n_elements(tensor), NULL);
  return osr_tensor_view_bytes(tensor, (gsize) offset * osr_dtype_size(tensor->dtype),
                               tensor->dtype, n_dims, dims);
}

OsrTensor *
osr_tensor_ref(OsrTensor *tensor)
{
  g_return_val_if_fail(tensor != NULL, NULL);
  g_atomic_int_inc(&tensor->ref_count);
  return tensor;
}

void
osr_tensor_unref(OsrTensor *tensor)
{
  if (!tensor || !g_atomic_int_dec_and_test(&tensor->ref_count))
    return;
  if (tensor->parent)
    osr_tensor_unref(tensor->parent);
  else
    osr_pool_release(osr_device_get_pool(tensor->device), tensor->data, tensor->size);
  osr_device_unref(tensor->device);
  g_free(tensor);
}

gint64
osr_tensor_n_elements(const OsrTensor *tensor)
{
  return (gint64) (tensor->size / osr_dtype_size(tensor->dtype));
}

gboolean
osr_tensor_download(OsrTensor *tensor, gpointer dst, gsize size, GError **error)
{
  g_return_val_if_fail(size == tensor->size, FALSE);
  return osr_device_download(tensor->device, dst, tensor->data, size, error);
}

static OsrTensor *
convert_dtype(OsrTensor *tensor, OsrDType dtype, GError **error)
{
  OsrDevice *device = tensor->device;
  g_autoptr(OsrTensor) result = osr_tensor_new(device, dtype, tensor->n_dims, tensor->dims, error);
  g_autofree char *what = NULL;
  gint64 n = osr_tensor_n_elements(tensor);
  OsrResult status;
  gboolean ok;

  if (!result)
    return NULL;
  what =
      g_strdup_printf("converting %s to %s", osr_dtype_name(tensor->dtype), osr_dtype_name(dtype));
  osr_device_lock(device);
  status = osr_device_get_ops(device)->copy2d(osr_device_get_context(device),
                                              &(OsrCopy2d){
                                                  .x_dtype = tensor->dtype,
                                                  .y_dtype = dtype,
                                                  .m = 1,
                                                  .n = n,
                                                  .x = tensor->data,
                                                  .x_ld = n,
                                                  .y = result->data,
                                                  .y_ld = n,
                                              });
  ok = osr_device_check(device, status, what, error);
  osr_device_unlock(device);
  return ok ? g_steal_pointer(&result) : NULL;
}

static OsrTensor *
convert_device(OsrTensor *tensor, OsrDevice *device, GError **error)
{
  g_autoptr(OsrTensor) result = NULL;
  g_autofree char *bytes = NULL;

  if (osr_device_is_host(tensor->device))
    return osr_tensor_new_from_host(device, tensor->dtype, tensor->n_dims, tensor->dims,
                                    tensor->data, error);
  result = osr_tensor_new(device, tensor->dtype, tensor->n_dims, tensor->dims, error);
  if (!result)
    return NULL;
  if (osr_device_is_host(device))
    return osr_tensor_download(tensor, result->data, result->size, error) ? g_steal_pointer(&result)
                                                                          : NULL;

  bytes = g_try_malloc(MAX(tensor->size, 1));
  if (!bytes) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY,
                "%" G_GSIZE_FORMAT " bytes of host memory are needed to copy between devices",
                tensor->size);
    return NULL;
  }
  if (!osr_tensor_download(tensor, bytes, tensor->size, error) ||
      !osr_device_upload(device, result->data, bytes, result->size, error))
    return NULL;
  return g_steal_pointer(&result);
}

OsrTensor *
osr_tensor_convert(OsrTensor *tensor, OsrDevice *device, OsrDType dtype, GError **error)
{
  g_autoptr(OsrTensor) moved = NULL;

  g_return_val_if_fail(tensor != NULL && device != NULL, NULL);
  g_return_val_if_fail((guint) dtype < OSR_N_DTYPES, NULL);

  if (tensor->device == device)
    return tensor->dtype == dtype ? osr_tensor_ref(tensor) : convert_dtype(tensor, dtype, error);
  if (tensor->dtype == dtype)
    return convert_device(tensor, device, error);

  /* Of the two devices a GPU converts faster. */
  if (!osr_device_is_host(tensor->device)) {
    moved = convert_dtype(tensor, dtype, error);
    return moved ? convert_device(moved, device, error) : NULL;
  }
  moved = convert_device(tensor, device, error);
  return moved ? convert_dtype(moved, dtype, error) : NULL;
}

gboolean
osr_tensor_zero(OsrTensor *tensor, GError **error)
{
  return osr_device_clear(tensor->device, tensor->data, tensor->size, "clearing a tensor", error);
}
