/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>

#include "tensor.h"

G_BEGIN_DECLS

/**
 * GstOpenSoraMemory:
 *
 * A GstMemory that holds a reference to an OsrTensor. Readers map it as plain bytes: the
 * host's own memory where the tensor is on a CPU, a copy staged on the host otherwise.
 * It is read-only and cannot be shared in parts.
 */
typedef struct {
  GstMemory mem;
  OsrTensor *tensor;
  /*< private >*/
  GMutex lock;
  gpointer staging;
  guint n_maps;
} GstOpenSoraMemory;

#define GST_OPENSORA_MEMORY_TYPE "OpenSoraMemory"

/* Takes a reference to @tensor. */
GstMemory *gst_opensora_memory_new(OsrTensor *tensor);
gboolean gst_is_opensora_memory(GstMemory *mem);
/* (transfer none) */
OsrTensor *gst_opensora_memory_get_tensor(GstMemory *mem);

G_END_DECLS
