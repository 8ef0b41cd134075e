/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoracudaoutput.h: CUDA memory for an element that makes video; the plug-in's side of
 * the module in gstopensoracuda.h.
 */
#pragma once

#include "gstopensoracuda.h"

G_BEGIN_DECLS

/**
 * GstOpenSoraCudaOutput:
 *
 * Embedded in the element's struct. Does nothing, and opens nothing, on CPUs. The element has
 * the device from its start() to its stop(); queries come earlier, too.
 */
typedef struct {
  GstElement *element; /* the owner */
  GRecMutex lock;      /* recursive: who is told of a context may ask for it */
  OsrDevice *device;   /* NULL: not known */
  GstOpenSoraCuda *cuda;
} GstOpenSoraCudaOutput;

void gst_opensora_cuda_output_init(GstOpenSoraCudaOutput *self, GstElement *element);
void gst_opensora_cuda_output_clear(GstOpenSoraCudaOutput *self);
/* In start(): the device that the frames come from. In stop(): NULL. Where CUDA memory cannot be
 * had on a GPU, the element's debug log says why. */
void gst_opensora_cuda_output_set_device(GstOpenSoraCudaOutput *self, OsrDevice *device);
/* Answers a context query. Where the device is not known yet, that of the name @device is opened
 * for it: neighbours that start before the element are to find its context, not make theirs. */
gboolean gst_opensora_cuda_output_query(GstOpenSoraCudaOutput *self, const char *device,
                                        GstQuery *query);

/* Whether caps structure @i names CUDA memory; any memory does not. */
gboolean gst_opensora_cuda_in_caps(const GstCaps *caps, guint i);
/* Without the structures with CUDA memory. (takes @caps) */
GstCaps *gst_opensora_cuda_strip_caps(GstCaps *caps);
/* Without the structures that the element cannot do on its device; all while that is not known.
 * (takes @caps) */
GstCaps *gst_opensora_cuda_output_filter_caps(GstOpenSoraCudaOutput *self, GstCaps *caps);

/* As the module's functions of these names; only for caps with CUDA memory in them, which
 * filter_caps() has let through. */
gboolean gst_opensora_cuda_output_decide_allocation(GstOpenSoraCudaOutput *self, GstQuery *query,
                                                    GError **error);
gboolean gst_opensora_cuda_output_map(GstOpenSoraCudaOutput *self, const GstVideoInfo *info,
                                      GstBuffer *buffer, GstVideoFrame *frame, GError **error);
gboolean gst_opensora_cuda_output_unmap(GstOpenSoraCudaOutput *self, GstVideoFrame *frame,
                                        GError **error);

G_END_DECLS
