/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensora.h"

#include "gstopensoramemory.h"

GST_DEBUG_CATEGORY(gst_opensora_debug);
#define GST_CAT_DEFAULT gst_opensora_debug

void
gst_opensora_model_init(GstOpenSoraModel *self)
{
  self->location = NULL;
  self->device = g_strdup(GST_OPENSORA_DEFAULT_DEVICE);
  self->model = NULL;
}

void
gst_opensora_model_clear(GstOpenSoraModel *self)
{
  g_clear_pointer(&self->model, osr_model_unref);
  g_clear_pointer(&self->location, g_free);
  g_clear_pointer(&self->device, g_free);
}

void
gst_opensora_model_install_properties(GObjectClass *klass, guint prop_location, guint prop_device)
{
  g_object_class_install_property(
      klass, prop_location,
      g_param_spec_string("model-location", "Model location",
                          "Folder of the model; unset: the tiny model that is installed with the "
                          "plug-in (or the folder in the environment variable OPENSORA_MODEL)",
                          NULL,
                          G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
  g_object_class_install_property(
      klass, prop_device,
      g_param_spec_string("device", "Device",
                          "Where to compute: \"auto\" (the first GPU, else the CPU), \"cpu\" or "
                          "\"cuda:N\"",
                          GST_OPENSORA_DEFAULT_DEVICE,
                          G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
}

void
gst_opensora_model_set_location(GstOpenSoraModel *self, GstElement *element, const GValue *value)
{
  const char *location = g_value_get_string(value);

  GST_OBJECT_LOCK(element);
  g_free(self->location);
  self->location = location && *location ? g_strdup(location) : NULL;
  GST_OBJECT_UNLOCK(element);
}

void
gst_opensora_model_set_device(GstOpenSoraModel *self, GstElement *element, const GValue *value)
{
  const char *device = g_value_get_string(value);

  GST_OBJECT_LOCK(element);
  g_free(self->device);
  self->device = g_strdup(device && *device ? device : GST_OPENSORA_DEFAULT_DEVICE);
  GST_OBJECT_UNLOCK(element);
}

gboolean
gst_opensora_model_open(GstOpenSoraModel *self, GstElement *element)
{
  g_autoptr(OsrDevice) device = NULL;
  g_autofree char *location = NULL;
  g_autofree char *name = NULL;
  OsrModel *model = NULL;
  GError *error = NULL;

  GST_OBJECT_LOCK(element);
  location = g_strdup(self->location);
  name = g_strdup(self->device);
  GST_OBJECT_UNLOCK(element);

  gst_opensora_model_close(self, element);
  device = osr_device_get(name, &error);
  if (device)
    model = osr_model_get(location, device, &error);
  if (!model) {
    gst_opensora_post_error(element, error);
    return FALSE;
  }
  GST_INFO_OBJECT(element, "model %s (%s) on %s", osr_model_get_dir(model)->name,
                  osr_model_get_dir(model)->path, osr_device_get_name(device));
  GST_OBJECT_LOCK(element);
  self->model = model;
  GST_OBJECT_UNLOCK(element);
  return TRUE;
}

void
gst_opensora_model_close(GstOpenSoraModel *self, GstElement *element)
{
  OsrModel *model;

  GST_OBJECT_LOCK(element);
  model = g_steal_pointer(&self->model);
  GST_OBJECT_UNLOCK(element);
  osr_model_unref(model); /* may free gigabytes: not under the lock */
}

OsrModel *
gst_opensora_model_ref(GstOpenSoraModel *self, GstElement *element)
{
  OsrModel *model;

  GST_OBJECT_LOCK(element);
  model = self->model ? osr_model_ref(self->model) : NULL;
  GST_OBJECT_UNLOCK(element);
  return model;
}

GstFlowReturn
gst_opensora_post_error(GstElement *element, GError *error)
{
  GQuark domain = GST_STREAM_ERROR;
  int code = GST_STREAM_ERROR_FAILED;

  if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED)) {
    GST_DEBUG_OBJECT(element, "cancelled");
    g_error_free(error);
    return GST_FLOW_FLUSHING;
  }
  if (error->domain == OSR_ERROR) {
    switch ((OsrError) error->code) {
    case OSR_ERROR_NOT_FOUND:
      domain = GST_RESOURCE_ERROR;
      code = GST_RESOURCE_ERROR_NOT_FOUND;
      break;
    case OSR_ERROR_INVALID_FILE:
    case OSR_ERROR_SHAPE:
      domain = GST_RESOURCE_ERROR;
      code = GST_RESOURCE_ERROR_READ;
      break;
    case OSR_ERROR_MEMORY:
      domain = GST_RESOURCE_ERROR;
      code = GST_RESOURCE_ERROR_NO_SPACE_LEFT;
      break;
    case OSR_ERROR_DEVICE:
      domain = GST_RESOURCE_ERROR;
      code = GST_RESOURCE_ERROR_FAILED;
      break;
    case OSR_ERROR_UNSUPPORTED:
      code = GST_STREAM_ERROR_NOT_IMPLEMENTED;
      break;
    case OSR_ERROR_INVALID_ARGUMENT:
      domain = GST_RESOURCE_ERROR;
      code = GST_RESOURCE_ERROR_SETTINGS;
      break;
    case OSR_ERROR_FAILED:
      break;
    }
  }
  gst_element_message_full(
      element, GST_MESSAGE_ERROR, domain, code, g_strdup(error->message),
      g_strdup_printf("%s: %s", g_quark_to_string(error->domain), error->message), __FILE__,
      GST_FUNCTION, __LINE__);
  g_error_free(error);
  return GST_FLOW_ERROR;
}

static void
gst_opensora_progress_post(GstOpenSoraProgress *self, GstProgressType type, const char *text,
                           int percent)
{
  GstMessage *message =
      gst_message_new_progress(GST_OBJECT(self->element), type, self->stage, text);

  if (percent >= 0) {
    GstStructure *s = gst_message_writable_structure(message);

    gst_structure_set(s, "percent", G_TYPE_INT, percent, NULL);
  }
  gst_element_post_message(self->element, message);
}

void
gst_opensora_progress_start(GstOpenSoraProgress *self, GstElement *element, OsrDevice *device,
                            const char *stage, const char *text, const char *prompt, guint clip)
{
  self->element = element;
  self->device = device;
  self->stage = stage;
  self->text = text;
  self->prompt = g_strdup(prompt);
  self->clip = clip;
  self->start = g_get_monotonic_time();
  gst_opensora_progress_post(self, GST_PROGRESS_TYPE_START, text, 0);
}

void
gst_opensora_progress_step(GstOpenSoraProgress *self, guint step, guint steps, double remaining)
{
  double elapsed = (g_get_monotonic_time() - self->start) / (double) G_USEC_PER_SEC;
  double percent = steps ? 100.0 * step / steps : 0.0;
  OsrPoolStats stats;
  GstStructure *s;

  if (remaining < 0 && step > 0)
    remaining = elapsed * (steps - step) / step;
  osr_pool_get_stats(osr_device_get_pool(self->device), &stats);
  s = gst_structure_new("opensora-progress", "stage", G_TYPE_STRING, self->stage, "clip",
                        G_TYPE_UINT, self->clip, "step", G_TYPE_UINT, step, "steps", G_TYPE_UINT,
                        steps, "percent", G_TYPE_DOUBLE, percent, "elapsed", G_TYPE_DOUBLE, elapsed,
                        "remaining", G_TYPE_DOUBLE, remaining, "memory-allocated", G_TYPE_UINT64,
                        stats.allocated, "memory-peak", G_TYPE_UINT64, stats.peak_reserved,
                        "prompt", G_TYPE_STRING, self->prompt ? self->prompt : "", NULL);
  gst_element_post_message(self->element, gst_message_new_element(GST_OBJECT(self->element), s));
  gst_opensora_progress_post(self, GST_PROGRESS_TYPE_CONTINUE, self->text, (int) percent);
}

void
gst_opensora_progress_end(GstOpenSoraProgress *self, const GError *error)
{
  if (!error)
    gst_opensora_progress_post(self, GST_PROGRESS_TYPE_COMPLETE, self->text, 100);
  else if (g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED))
    gst_opensora_progress_post(self, GST_PROGRESS_TYPE_CANCELED, "Cancelled", -1);
  else
    gst_opensora_progress_post(self, GST_PROGRESS_TYPE_ERROR, error->message, -1);
  g_clear_pointer(&self->prompt, g_free);
}

GstBuffer *
gst_opensora_buffer_new(OsrTensor *const *tensors, guint n)
{
  GstBuffer *buffer = gst_buffer_new();

  for (guint i = 0; i < n; i++)
    gst_buffer_append_memory(buffer, gst_opensora_memory_new(tensors[i]));
  return buffer;
}

OsrTensor *
gst_opensora_buffer_get_tensor(GstBuffer *buffer, guint i, OsrDevice *device, OsrDType dtype,
                               GError **error)
{
  GstMemory *memory = i < gst_buffer_n_memory(buffer) ? gst_buffer_peek_memory(buffer, i) : NULL;

  if (!gst_is_opensora_memory(memory)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "the buffer has no tensor at position %u", i);
    return NULL;
  }
  return osr_tensor_convert(gst_opensora_memory_get_tensor(memory), device, dtype, error);
}
