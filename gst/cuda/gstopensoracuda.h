/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoracuda.h: what the plug-in uses of the module for frames in CUDA memory.
 *
 * The module links libgstcuda, which brings GL and Wayland libraries along: nobody needs these
 * for a pipeline on the CPU, so it is opened when the device of an element is a GPU.
 */
#pragma once

#include <gst/video/video.h>

#include "opensora.h"

G_BEGIN_DECLS

/* As libgstcuda has it; static caps are written without that library. */
#define GST_OPENSORA_CUDA_FEATURE "memory:CUDAMemory"
#define GST_OPENSORA_CUDA_CONTEXT "gst.cuda.context"

/**
 * GstOpenSoraCuda:
 *
 * The CUDA context that an element shares with its neighbours, and how frames get into memory
 * of it. That is the primary context of the GPU, in which the engine works, unless a neighbour
 * or the application has another one of the same GPU: frames are copied into that one.
 */
typedef struct _GstOpenSoraCuda GstOpenSoraCuda;

#define GST_OPENSORA_CUDA_ABI 1

/**
 * GstOpenSoraCudaTable:
 * @abi: GST_OPENSORA_CUDA_ABI
 * @load: loads the driver. FALSE with the reason where there is none; then none of the others
 *   may be called. Once it was TRUE it is at once.
 * @open: for the frames that @element makes on @device, a GPU. Borrows the element.
 * @close: drops the context. Buffers and pools live on as long as others hold them.
 * @context_query: answers a context query for GST_OPENSORA_CUDA_CONTEXT with the context that
 *   the element uses. If there is none yet it becomes, without asking anybody, the one that the
 *   application has set, else the primary one: whoever asks first would else make its own. FALSE
 *   if the query is about another type. Any thread.
 * @decide_allocation: for caps with GST_OPENSORA_CUDA_FEATURE: finds the context (asking
 *   neighbours and application if there is none yet, and telling them about the primary one if
 *   they have none) and a configured pool, which becomes the first one of @query.
 * @map: the planes of @frame become device memory that the engine may write to; @buffer comes
 *   from a pool of decide_allocation().
 * @unmap: waits until the work that was given to the device since map() is done, brings the
 *   frame to the buffer where it is not there yet, and unmaps. FALSE if any of it failed; the
 *   frame is unmapped all the same.
 *
 * decide_allocation, map and unmap are called by the streaming thread. Errors are of the
 * domain OSR_ERROR.
 */
typedef struct {
  guint abi;
  gboolean (*load)(GError **error);
  GstOpenSoraCuda *(*open)(GstElement *element, OsrDevice *device, GError **error);
  void (*close)(GstOpenSoraCuda *self);
  gboolean (*context_query)(GstOpenSoraCuda *self, GstQuery *query);
  gboolean (*decide_allocation)(GstOpenSoraCuda *self, GstQuery *query, GError **error);
  gboolean (*map)(GstOpenSoraCuda *self, const GstVideoInfo *info, GstBuffer *buffer,
                  GstVideoFrame *frame, GError **error);
  gboolean (*unmap)(GstOpenSoraCuda *self, GstVideoFrame *frame, GError **error);
} GstOpenSoraCudaTable;

/* The module's one symbol, "gst_opensora_cuda_table". */
typedef const GstOpenSoraCudaTable *(*GstOpenSoraCudaGetTable)(void);

G_END_DECLS
