/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gstopensora.h: what the elements share: caps, properties, errors and messages.
 */
#pragma once

#include <gst/gst.h>

#include "opensora.h"

G_BEGIN_DECLS

#define GST_OPENSORA_MEMORY_FEATURE "memory:OpenSora"

/* One buffer is what the prompt of one clip became: four tensors (one GstMemory each, in
 * this order): T5 states and CLIP vector of the prompt, then of the negative prompt.
 * Fields: family (string), framerate (fraction; the rate that the prompt names). */
#define GST_OPENSORA_CONDITIONING "application/x-opensora-conditioning"
#define GST_OPENSORA_CONDITIONING_CAPS GST_OPENSORA_CONDITIONING "(" GST_OPENSORA_MEMORY_FEATURE ")"

/* One buffer is one clip: a latent [t, h, w, channels] in one GstMemory. Fields: family,
 * channels (int), width and height (int, pixels of the decoded video), frames (int, of the
 * decoded video), framerate. */
#define GST_OPENSORA_LATENT "application/x-opensora-latent"
#define GST_OPENSORA_LATENT_CAPS GST_OPENSORA_LATENT "(" GST_OPENSORA_MEMORY_FEATURE ")"

/* Out-of-band event of the prompt source, whose stream the application ends: what has not
 * become a latent yet need not become one. EOS follows in its turn. */
#define GST_OPENSORA_END_EVENT "opensora-end"

GST_DEBUG_CATEGORY_EXTERN(gst_opensora_debug);

GST_ELEMENT_REGISTER_DECLARE(opensoratextsrc);
GST_ELEMENT_REGISTER_DECLARE(opensoratextenc);
GST_ELEMENT_REGISTER_DECLARE(opensoradenoise);
GST_ELEMENT_REGISTER_DECLARE(opensoravaedec);
GST_ELEMENT_REGISTER_DECLARE(opensoravaeenc);
GST_ELEMENT_REGISTER_DECLARE(opensorasrc);

/**
 * GstOpenSoraModel:
 *
 * The properties model-location and device of an element and the model they name. Embedded
 * in the element's struct and guarded by the element's object lock; the streaming thread may
 * use @model without it.
 */
typedef struct {
  char *location; /* NULL: the tiny model */
  char *device;   /* "auto" */
  OsrModel *model;
} GstOpenSoraModel;

#define GST_OPENSORA_DEFAULT_DEVICE "auto"

void gst_opensora_model_init(GstOpenSoraModel *self);
void gst_opensora_model_clear(GstOpenSoraModel *self);
/* Installs the two properties under the ids @prop_location and @prop_device. */
void gst_opensora_model_install_properties(GObjectClass *klass, guint prop_location,
                                           guint prop_device);
void gst_opensora_model_set_location(GstOpenSoraModel *self, GstElement *element,
                                     const GValue *value);
void gst_opensora_model_set_device(GstOpenSoraModel *self, GstElement *element,
                                   const GValue *value);
/* Finds device and model for the element's start(); posts the element error on failure.
 * No weights are read. */
gboolean gst_opensora_model_open(GstOpenSoraModel *self, GstElement *element);
/* Drops the reference in stop(). */
void gst_opensora_model_close(GstOpenSoraModel *self, GstElement *element);
/* The open model, NULL while stopped: for queries, which come from any thread and may meet
 * stop(). (transfer full) */
OsrModel *gst_opensora_model_ref(GstOpenSoraModel *self, GstElement *element);

/* Posts @error (consumed) as an element error in the domain and code that fit it, and says
 * which flow return goes with it: FLUSHING without a message for a cancellation. */
GstFlowReturn gst_opensora_post_error(GstElement *element, GError *error);

/**
 * GstOpenSoraProgress:
 *
 * One long piece of work, told to the bus as GST_MESSAGE_PROGRESS and as element messages
 * "opensora-progress" with the fields: stage (string: "text", "denoise", "decode",
 * "encode", "load"), clip (uint), step, steps (uint), percent (double), elapsed, remaining
 * (double, seconds; remaining < 0: unknown), memory-allocated, memory-peak (uint64, bytes),
 * prompt (string). COMPLETE has to be posted before the clip's first buffer leaves, or
 * gst-launch-1.0 never leaves PAUSED.
 */
typedef struct {
  GstElement *element;
  OsrDevice *device; /* borrowed */
  const char *stage;
  const char *text; /* for people: "Denoising" */
  char *prompt;
  guint clip;
  gint64 start;
} GstOpenSoraProgress;

void gst_opensora_progress_start(GstOpenSoraProgress *self, GstElement *element, OsrDevice *device,
                                 const char *stage, const char *text, const char *prompt,
                                 guint clip);
/* @remaining < 0: estimated from the fraction of steps done. */
void gst_opensora_progress_step(GstOpenSoraProgress *self, guint step, guint steps,
                                double remaining);
/* @error NULL: complete; a cancellation: canceled; else error (post the error message
 * before). Frees what the struct holds. */
void gst_opensora_progress_end(GstOpenSoraProgress *self, const GError *error);

/* Puts @tensors (not NULL, references taken) into a new buffer, one memory each. */
GstBuffer *gst_opensora_buffer_new(OsrTensor *const *tensors, guint n);
/* The tensor of memory @i of @buffer, on @device as @dtype; NULL with @error if there is
 * none. (transfer full) */
OsrTensor *gst_opensora_buffer_get_tensor(GstBuffer *buffer, guint i, OsrDevice *device,
                                          OsrDType dtype, GError **error);

G_END_DECLS
