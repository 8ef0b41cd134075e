/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensora.h"

#include "gstopensoramemory.h"

GST_DEBUG_CATEGORY(gst_opensora_debug);
#define GST_CAT_DEFAULT gst_opensora_debug

/* The line goes on to where it went before: G_MESSAGES_DEBUG and OPENSORA_LOG keep their meaning.
 */
static void
log_engine_line(const char *domain, GLogLevelFlags level, const char *message, gpointer user_data)
{
  GstDebugLevel gst_level = GST_LEVEL_DEBUG;

  if (level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL))
    gst_level = GST_LEVEL_ERROR;
  else if (level & G_LOG_LEVEL_WARNING)
    gst_level = GST_LEVEL_WARNING;
  gst_debug_log(GST_CAT_DEFAULT, gst_level, __FILE__, GST_FUNCTION, __LINE__, NULL, "%s", message);
  g_log_default_handler(domain, level, message, user_data);
}

void
gst_opensora_log_init(void)
{
  g_log_set_handler("opensora", G_LOG_LEVEL_MASK | G_LOG_FLAG_FATAL | G_LOG_FLAG_RECURSION,
                    log_engine_line, NULL);
}

GstCaps *
gst_opensora_filter_caps(GstCaps *caps, GstCaps *filter)
{
  GstCaps *filtered;

  if (!filter)
    return caps;
  filtered = gst_caps_intersect_full(filter, caps, GST_CAPS_INTERSECT_FIRST);
  gst_caps_unref(caps);
  return filtered;
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

void
gst_opensora_set_memory_fields(GstStructure *s, const char *prefix, OsrDevice *device)
{
  OsrPoolStats stats;

  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  const struct {
    const char *name;
    guint64 value;
  } fields[] = {
    { "allocated", stats.allocated },
    { "reserved", stats.reserved },
    { "peak-allocated", stats.peak_allocated },
    { "peak-reserved", stats.peak_reserved },
    { "limit", stats.limit },
    { "allocations", stats.n_allocs },
  };

  gst_structure_set(s, "device", G_TYPE_STRING, osr_device_get_name(device), NULL);
  for (guint i = 0; i < G_N_ELEMENTS(fields); i++) {
    g_autofree char *name = g_strconcat(prefix, fields[i].name, NULL);

    gst_structure_set(s, name, G_TYPE_UINT64, fields[i].value, NULL);
  }
}

gboolean
gst_opensora_get_available_memory(OsrDevice *device, guint64 *bytes)
{
  OsrPoolStats stats;

  if (!osr_device_get_memory(device, bytes, NULL, NULL))
    return FALSE;
  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  *bytes += stats.reserved - stats.allocated;
  if (stats.limit)
    *bytes = MIN(*bytes, stats.limit - MIN(stats.limit, stats.allocated));
  return TRUE;
}

static void
set_id(GstOpenSoraProgress *self, GstStructure *s)
{
  if (self->ticket)
    gst_structure_set(s, "id", G_TYPE_UINT64, gst_opensora_ticket_get_id(self->ticket), NULL);
}

static void
progress_post(GstOpenSoraProgress *self, GstProgressType type, const char *text, int percent)
{
  GstMessage *message =
      gst_message_new_progress(GST_OBJECT(self->element), type, self->stage, text);
  GstStructure *s = gst_message_writable_structure(message);

  gst_structure_set(s, "clip", G_TYPE_UINT, self->clip, NULL);
  if (self->extension)
    gst_structure_set(s, "extension", G_TYPE_UINT, self->extension, NULL);
  set_id(self, s);
  if (percent >= 0)
    gst_structure_set(s, "percent", G_TYPE_INT, percent, NULL);
  gst_element_post_message(self->element, message);
}

void
gst_opensora_progress_start(GstOpenSoraProgress *self, GstElement *element, OsrDevice *device,
                            const char *stage, const char *text, const char *prompt, guint clip,
                            GstOpenSoraTicket *ticket, GCancellable *work)
{
  self->element = element;
  self->device = device;
  self->stage = stage;
  self->text = text;
  self->prompt = g_strdup(prompt);
  self->clip = clip;
  self->ticket = ticket ? g_object_ref(ticket) : NULL;
  self->binding = gst_opensora_ticket_bind(ticket, work);
  self->fatal = FALSE;
  self->start = g_get_monotonic_time();
  progress_post(self, GST_PROGRESS_TYPE_START, text, 0);
}

void
gst_opensora_progress_step(GstOpenSoraProgress *self, guint step, guint steps, double remaining)
{
  double elapsed = (g_get_monotonic_time() - self->start) / (double) G_USEC_PER_SEC;
  double percent = steps ? 100.0 * step / steps : 0.0;
  GstStructure *s;

  if (remaining < 0 && step > 0)
    remaining = elapsed * (steps - step) / step;
  s = gst_structure_new("opensora-progress", "stage", G_TYPE_STRING, self->stage, "clip",
                        G_TYPE_UINT, self->clip, "step", G_TYPE_UINT, step, "steps", G_TYPE_UINT,
                        steps, "percent", G_TYPE_DOUBLE, percent, "elapsed", G_TYPE_DOUBLE, elapsed,
                        "remaining", G_TYPE_DOUBLE, remaining, "prompt", G_TYPE_STRING,
                        self->prompt ? self->prompt : "", NULL);
  if (self->extension)
    gst_structure_set(s, "extension", G_TYPE_UINT, self->extension, NULL);
  set_id(self, s);
  gst_opensora_set_memory_fields(s, "memory-", self->device);
  gst_element_post_message(self->element, gst_message_new_element(GST_OBJECT(self->element), s));
  progress_post(self, GST_PROGRESS_TYPE_CONTINUE, self->text, (int) percent);
}

static void
progress_end(GstOpenSoraProgress *self)
{
  gst_opensora_ticket_unbind(self->ticket, self->binding);
  g_clear_object(&self->ticket);
  g_clear_pointer(&self->prompt, g_free);
}

void
gst_opensora_progress_complete(GstOpenSoraProgress *self)
{
  progress_post(self, GST_PROGRESS_TYPE_COMPLETE, self->text, 100);
  progress_end(self);
}

/* What another prompt might not meet. Only denoising reads files that prompts name: those of the
 * other stages are the model's. */
static gboolean
is_of_the_clip(const GstOpenSoraProgress *self, const GError *error)
{
  if (self->fatal || error->domain != OSR_ERROR)
    return FALSE;
  switch ((OsrError) error->code) {
  case OSR_ERROR_INVALID_ARGUMENT:
  case OSR_ERROR_MEMORY:
  case OSR_ERROR_SHAPE:
  case OSR_ERROR_UNSUPPORTED:
    return TRUE;
  case OSR_ERROR_NOT_FOUND:
  case OSR_ERROR_INVALID_FILE:
    return g_str_equal(self->stage, "denoise");
  case OSR_ERROR_DEVICE:
  case OSR_ERROR_FAILED:
    break;
  }
  return FALSE;
}

/* (takes @error) */
static void
skip_clip(GstOpenSoraProgress *self, GError *error)
{
  gst_element_message_full(self->element, GST_MESSAGE_WARNING, GST_STREAM_ERROR,
                           GST_STREAM_ERROR_FAILED,
                           g_strdup_printf("A clip is left out: %s", error->message),
                           g_strdup_printf("prompt %" G_GUINT64_FORMAT " (\"%s\")",
                                           gst_opensora_ticket_get_id(self->ticket),
                                           gst_opensora_ticket_get_prompt(self->ticket)),
                           __FILE__, GST_FUNCTION, __LINE__);
  gst_opensora_ticket_fail(self->ticket, error->message);
  g_error_free(error);
}

GstFlowReturn
gst_opensora_progress_fail(GstOpenSoraProgress *self, GError *error)
{
  const gboolean cancelled = g_error_matches(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_autofree char *reason = g_strdup(error->message);
  GstFlowReturn ret = GST_FLOW_FLUSHING;

  if (gst_opensora_ticket_is_skipped(self->ticket) && is_of_the_clip(self, error)) {
    skip_clip(self, error);
  } else {
    if (self->ticket && !cancelled)
      gst_opensora_ticket_fail(self->ticket, reason);
    ret = gst_opensora_post_error(self->element, error);
  }
  if (cancelled)
    progress_post(self, GST_PROGRESS_TYPE_CANCELED, "Cancelled", -1);
  else
    progress_post(self, GST_PROGRESS_TYPE_ERROR, reason, -1);
  progress_end(self);
  return ret;
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
