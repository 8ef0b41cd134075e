/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "graph.h"

struct _OsrGraph {
  OsrDevice *device;
  void *graph; /* the backend's */
};

gboolean
osr_graph_is_supported(OsrDevice *device)
{
  return osr_device_get_context(device)->backend->graph_begin != NULL;
}

gboolean
osr_graph_begin(OsrDevice *device, GError **error)
{
  OsrOpsContext *ctx = osr_device_get_context(device);

  osr_device_lock(device);
  if (osr_device_check(device, ctx->backend->graph_begin(ctx), "recording a graph", error))
    return TRUE;
  osr_device_unlock(device);
  return FALSE;
}

OsrGraph *
osr_graph_end(OsrDevice *device, GError **error)
{
  OsrOpsContext *ctx = osr_device_get_context(device);
  OsrGraph *graph = NULL;
  void *recorded = NULL;

  if (osr_device_check(device, ctx->backend->graph_end(ctx, &recorded), "making a graph", error)) {
    graph = g_new0(OsrGraph, 1);
    graph->device = osr_device_ref(device);
    graph->graph = recorded;
  }
  osr_device_unlock(device);
  return graph;
}

void
osr_graph_abandon(OsrDevice *device)
{
  OsrOpsContext *ctx = osr_device_get_context(device);

  ctx->backend->graph_end(ctx, NULL);
  osr_device_unlock(device);
}

gboolean
osr_graph_launch(OsrGraph *graph, const char *what, GError **error)
{
  OsrOpsContext *ctx = osr_device_get_context(graph->device);
  gboolean ok;

  osr_device_lock(graph->device);
  ok = osr_device_check(graph->device, ctx->backend->graph_launch(ctx, graph->graph), what, error);
  osr_device_unlock(graph->device);
  return ok;
}

void
osr_graph_free(OsrGraph *graph)
{
  OsrOpsContext *ctx;

  if (!graph)
    return;
  ctx = osr_device_get_context(graph->device);
  osr_device_lock(graph->device);
  ctx->backend->graph_free(ctx, graph->graph);
  osr_device_unlock(graph->device);
  osr_device_unref(graph->device);
  g_free(graph);
}
