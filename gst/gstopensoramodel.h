/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensoramodel.h: the properties that name a model, and the model they name.
 */
#pragma once

#include <gst/gst.h>

#include "opensora.h"

G_BEGIN_DECLS

/**
 * GstOpenSoraModel:
 *
 * The properties model-location, device, dtype, memory-limit and memory-stats of an element and
 * the model they name. Embedded in the element's struct and guarded by the element's object lock;
 * the streaming thread may use @model without it.
 */
typedef struct {
  char *location; /* NULL: the tiny model */
  char *device;   /* "auto" */
  gint dtype;     /* OsrDType, or GST_OPENSORA_DTYPE_AUTO */
  guint64 memory_limit;
  OsrModel *model;
} GstOpenSoraModel;

#define GST_OPENSORA_DEFAULT_DEVICE "auto"
#define GST_OPENSORA_DTYPE_AUTO (-1)

enum {
  GST_OPENSORA_MODEL_PROP_LOCATION,
  GST_OPENSORA_MODEL_PROP_DEVICE,
  GST_OPENSORA_MODEL_PROP_DTYPE,
  GST_OPENSORA_MODEL_PROP_MEMORY_LIMIT,
  GST_OPENSORA_MODEL_PROP_MEMORY_STATS,
  GST_OPENSORA_MODEL_N_PROPS
};

/* Files of a model's parts. */
typedef enum {
  GST_OPENSORA_TEXT_FILES = 1 << 0,
  GST_OPENSORA_MMDIT_FILES = 1 << 1,
  GST_OPENSORA_VAE_FILES = 1 << 2,
} GstOpenSoraFiles;

void gst_opensora_model_init(GstOpenSoraModel *self);
void gst_opensora_model_clear(GstOpenSoraModel *self);
/* The properties get the ids first_id + GST_OPENSORA_MODEL_PROP_*. */
void gst_opensora_model_install_properties(GObjectClass *klass, guint first_id);
/* @id relative to first_id; FALSE if it is none of ours. */
gboolean gst_opensora_model_set_property(GstOpenSoraModel *self, GstElement *element, guint id,
                                         const GValue *value);
gboolean gst_opensora_model_get_property(GstOpenSoraModel *self, GstElement *element, guint id,
                                         GValue *value);
/* Finds device and model for the element's start(), sets the memory limit if there is one, and
 * looks at the headers of @files, so that a broken one is an error now and not when the work of
 * minutes is done. No weights are read. Posts the element error on failure. */
gboolean gst_opensora_model_open(GstOpenSoraModel *self, GstElement *element,
                                 GstOpenSoraFiles files);
/* The same with @dtype (never "auto") in place of the property's; @tf32: see
 * osr_model_get_tf32(). */
gboolean gst_opensora_model_open_as(GstOpenSoraModel *self, GstElement *element,
                                    GstOpenSoraFiles files, OsrDType dtype, gboolean tf32);
/* Drops the reference in stop(). */
void gst_opensora_model_close(GstOpenSoraModel *self, GstElement *element);
/* The open model, NULL while stopped: for queries, which come from any thread and may meet
 * stop(). (transfer full) */
OsrModel *gst_opensora_model_ref(GstOpenSoraModel *self, GstElement *element);

G_END_DECLS
