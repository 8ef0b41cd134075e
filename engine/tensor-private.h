/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "tensor.h"

G_BEGIN_DECLS

/* osr_tensor_view() as another type, from byte @offset on. */
OsrTensor *osr_tensor_view_bytes(OsrTensor *tensor, gsize offset, OsrDType dtype, guint n_dims,
                                 const gint64 *dims);

G_END_DECLS
