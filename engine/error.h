/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gio/gio.h>

#include "api.h"

G_BEGIN_DECLS

/**
 * OSR_ERROR:
 *
 * Error domain of the engine. A cancelled operation ends in G_IO_ERROR_CANCELLED instead.
 */
#define OSR_ERROR (osr_error_quark())

/**
 * OsrError:
 * @OSR_ERROR_FAILED: none of the others
 * @OSR_ERROR_NOT_FOUND: a file, folder, tensor or device is not there
 * @OSR_ERROR_INVALID_FILE: a file does not hold what its format promises
 * @OSR_ERROR_UNSUPPORTED: valid, but nothing here can do it (dtype, model family, size)
 * @OSR_ERROR_SHAPE: a tensor has another shape than the model needs; both are named
 * @OSR_ERROR_INVALID_ARGUMENT: a parameter is out of its range
 * @OSR_ERROR_MEMORY: not enough memory; the message says how much was needed
 * @OSR_ERROR_DEVICE: the device or its libraries failed
 */
typedef enum {
  OSR_ERROR_FAILED,
  OSR_ERROR_NOT_FOUND,
  OSR_ERROR_INVALID_FILE,
  OSR_ERROR_UNSUPPORTED,
  OSR_ERROR_SHAPE,
  OSR_ERROR_INVALID_ARGUMENT,
  OSR_ERROR_MEMORY,
  OSR_ERROR_DEVICE,
} OsrError;

OSR_API GQuark osr_error_quark(void);

G_END_DECLS
