/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"
#include "device.h"

G_BEGIN_DECLS

#define OSR_TENSOR_MAX_DIMS 6

/**
 * OsrTensor:
 *
 * Contiguous, row-major data of one type on one device, reference counted. The memory
 * comes from the device's pool and goes back to it with the last reference. A view
 * (osr_tensor_view()) keeps its parent alive. Fields are read-only after creation.
 */
typedef struct _OsrTensor OsrTensor;
struct _OsrTensor {
  OsrDevice *device;
  OsrDType dtype;
  guint n_dims;
  gint64 dims[OSR_TENSOR_MAX_DIMS];
  gpointer data; /* device memory */
  gsize size;    /* bytes */
  /*< private >*/
  gint ref_count;
  OsrTensor *parent;
};

#define OSR_TYPE_TENSOR (osr_tensor_get_type())
OSR_API GType osr_tensor_get_type(void);

/* Undefined contents. Every dim >= 0; OSR_ERROR_MEMORY when the pool refuses,
 * OSR_ERROR_INVALID_ARGUMENT when the size overflows. */
OSR_API OsrTensor *osr_tensor_new(OsrDevice *device, OsrDType dtype, guint n_dims,
                                  const gint64 *dims, GError **error);
/* The same with the dims as int arguments, ended by -1:
 * osr_tensor_make(dev, dt, &err, 4, 3, -1). */
OSR_API OsrTensor *osr_tensor_make(OsrDevice *device, OsrDType dtype, GError **error, ...);
/* Copies host data of the tensor's dtype and size. */
OSR_API OsrTensor *osr_tensor_new_from_host(OsrDevice *device, OsrDType dtype, guint n_dims,
                                            const gint64 *dims, gconstpointer data, GError **error);
/* A part of @tensor that starts @offset elements in; shares its memory. */
OSR_API OsrTensor *osr_tensor_view(OsrTensor *tensor, gint64 offset, guint n_dims,
                                   const gint64 *dims);
OSR_API OsrTensor *osr_tensor_ref(OsrTensor *tensor);
OSR_API void osr_tensor_unref(OsrTensor *tensor);

OSR_API gint64 osr_tensor_n_elements(const OsrTensor *tensor);
/* Copies everything to host memory of @size bytes (= tensor->size) and waits for it. */
OSR_API gboolean osr_tensor_download(OsrTensor *tensor, gpointer dst, gsize size, GError **error);
/* On @device as @dtype; the same tensor with a new reference if it is that already. */
OSR_API OsrTensor *osr_tensor_convert(OsrTensor *tensor, OsrDevice *device, OsrDType dtype,
                                      GError **error);
OSR_API gboolean osr_tensor_zero(OsrTensor *tensor, GError **error);

/* "[2, 3, 4]", newly allocated. */
OSR_API char *osr_dims_to_string(guint n_dims, const gint64 *dims);
/* "F32", as in safetensors. */
OSR_API const char *osr_dtype_name(OsrDType dtype);
OSR_API gboolean osr_dtype_from_name(const char *name, OsrDType *dtype);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrTensor, osr_tensor_unref)

G_END_DECLS
