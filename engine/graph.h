/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * graph.h: calls on a device that are recorded once and repeated as one. Private.
 *
 * A graph holds addresses, not tensors: whoever records one sees to it that all memory it
 * names stays what it is. See OsrPoolArena.
 */
#pragma once

#include "device.h"

G_BEGIN_DECLS

typedef struct _OsrGraph OsrGraph;

gboolean osr_graph_is_supported(OsrDevice *device);

/* What this thread calls on the device until osr_graph_end() is recorded instead of run: ops,
 * and nothing that waits, copies from or to the host, or needs memory that the pool has to get
 * from the device. The device is locked from here to osr_graph_end(). */
gboolean osr_graph_begin(OsrDevice *device, GError **error);
/* The graph of what was recorded, NULL on failure. (transfer full) */
OsrGraph *osr_graph_end(OsrDevice *device, GError **error);
/* In place of osr_graph_end(): forgets what was recorded. */
void osr_graph_abandon(OsrDevice *device);

/* Enqueues all of it. @what: see osr_device_check(). */
gboolean osr_graph_launch(OsrGraph *graph, const char *what, GError **error);
/* Launches that are enqueued still run. */
void osr_graph_free(OsrGraph *graph);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(OsrGraph, osr_graph_free)

G_END_DECLS
