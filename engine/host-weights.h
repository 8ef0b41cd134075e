/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * host-weights.h: weights that are kept in the host's memory and are on the device for as long as
 * they are needed. Private.
 */
#pragma once

#include "tensor.h"

G_BEGIN_DECLS

/* What a model calls for each place that it keeps a tensor of its weights in, NULL or not, in the
 * same order each time. */
typedef void (*OsrVisit)(OsrTensor **place, gpointer user_data);

/* Whether a device can fetch weights beside its work: no CPU does, whose memory the host's is. */
gboolean osr_device_can_fetch(OsrDevice *device);

/**
 * OsrStreamer:
 *
 * The blocks of a transformer, which run one after the other, in the host's memory. They take
 * turns in two places on the device: while one block computes in the first, the next one is
 * copied into the second. A block is in the same place each time, so the tensors of its weights
 * never change, their contents do.
 *
 * Two forwards that share the device share the places too; both are right, and slower then.
 */
typedef struct _OsrStreamer OsrStreamer;

OsrStreamer *osr_streamer_new(OsrDevice *device, guint n_blocks);
/* NULL is ignored. After the tensors of the blocks. */
void osr_streamer_free(OsrStreamer *streamer);

/* Moves the tensors in @places to the host; they are the next block. The places are empty until
 * osr_streamer_place(), and have to stay where they are. */
gboolean osr_streamer_add(OsrStreamer *streamer, GPtrArray *places, GError **error);
/* After the last block: takes memory of the device for two blocks, and gives all places tensors
 * in it. */
gboolean osr_streamer_place(OsrStreamer *streamer, GError **error);

/* Around the calls of a block, with the device's lock from one to the other: sees to it that its
 * weights are there when it runs, and has the next block's on their way before it starts. */
gboolean osr_streamer_begin(OsrStreamer *streamer, guint block, GError **error);
gboolean osr_streamer_end(OsrStreamer *streamer, guint block, GError **error);

/* Bytes of the host's memory, and of the device's: what its pool is asked for. */
guint64 osr_streamer_get_host_bytes(OsrStreamer *streamer);
guint64 osr_streamer_get_device_bytes(OsrStreamer *streamer);

/* Where the next tensor of a block begins after one of @size bytes at @at. */
gsize osr_host_weights_append(gsize at, gsize size);

G_END_DECLS
