/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dry.h: a device that computes nothing. Private.
 *
 * Its memory is addresses without anything behind them, its ops ask for scratch memory as those of
 * a real backend do and count their work. What a model does on it takes no time, and its pool
 * says what memory the same takes on a real device, to the block.
 */
#pragma once

#include "device.h"

G_BEGIN_DECLS

/* Work that devices do at different speeds. */
typedef enum {
  OSR_WORK_PRODUCTS, /* of matrices: FLOPs */
  OSR_WORK_ATTENTION,
  OSR_WORK_CONVOLUTIONS,
  OSR_WORK_BYTES, /* read and written by all other ops */
  OSR_N_WORK
} OsrWork;

/* @like_gpu: ops want the scratch memory of the CUDA backend's, else of the CPU's on @n_threads
 * threads. The device is not to be had by name, and its tensors are not to be looked at. */
OsrDevice *osr_dry_device_new(gboolean like_gpu, guint n_threads, GError **error);

/* Work so far. */
void osr_dry_device_get_work(OsrDevice *device, double work[OSR_N_WORK]);

G_END_DECLS
