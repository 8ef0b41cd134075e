/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoramodel.h"

#include "gstopensora.h"

#define GST_CAT_DEFAULT gst_opensora_debug

#define GST_TYPE_OPENSORA_DTYPE (gst_opensora_dtype_get_type())
static GType
gst_opensora_dtype_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_DTYPE_AUTO, "bf16 on GPUs, f32 on CPUs", "auto" },
    { OSR_DTYPE_F32, "32-bit floats", "f32" },
    { OSR_DTYPE_BF16, "16-bit floats with 8 bits of exponent", "bf16" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraDType", values));
  return type;
}

void
gst_opensora_model_init(GstOpenSoraModel *self)
{
  self->location = NULL;
  self->device = g_strdup(GST_OPENSORA_DEFAULT_DEVICE);
  self->dtype = GST_OPENSORA_DTYPE_AUTO;
  self->memory_limit = 0;
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
gst_opensora_model_install_properties(GObjectClass *klass, guint first_id)
{
  const GParamFlags flags = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS;

  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_MODEL_PROP_LOCATION,
      g_param_spec_string("model-location", "Model location",
                          "Folder of the model; unset: the tiny model that is installed with the "
                          "plug-in (or the folder in the environment variable OPENSORA_MODEL)",
                          NULL, flags | GST_PARAM_MUTABLE_READY));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_MODEL_PROP_DEVICE,
      g_param_spec_string("device", "Device",
                          "Where to compute: \"auto\" (the first GPU, else the CPU), \"cpu\" or "
                          "\"cuda:N\"",
                          GST_OPENSORA_DEFAULT_DEVICE, flags | GST_PARAM_MUTABLE_READY));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_MODEL_PROP_DTYPE,
      g_param_spec_enum("dtype", "Data type", "What weights are kept and computed in",
                        GST_TYPE_OPENSORA_DTYPE, GST_OPENSORA_DTYPE_AUTO,
                        flags | GST_PARAM_MUTABLE_READY));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_MODEL_PROP_MEMORY_LIMIT,
      g_param_spec_uint64("memory-limit", "Memory limit",
                          "Bytes that the process may take of the device's memory, by whatever "
                          "elements; 0: as much as there is",
                          0, G_MAXUINT64, 0, flags | GST_PARAM_MUTABLE_PLAYING));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_MODEL_PROP_MEMORY_STATS,
      g_param_spec_boxed("memory-stats", "Memory statistics",
                         "What the process has of the device's memory: device, allocated, "
                         "reserved, peak-allocated, peak-reserved, limit (bytes) and allocations; "
                         "NULL while stopped",
                         GST_TYPE_STRUCTURE, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS));
  gst_type_mark_as_plugin_api(GST_TYPE_OPENSORA_DTYPE, 0);
}

/* A limit is the device's, not ours: only one that was asked for is set. */
static void
set_memory_limit(GstOpenSoraModel *self, GstElement *element, guint64 limit)
{
  g_autoptr(OsrModel) model = NULL;

  GST_OBJECT_LOCK(element);
  self->memory_limit = limit;
  model = self->model ? osr_model_ref(self->model) : NULL;
  GST_OBJECT_UNLOCK(element);
  if (model)
    osr_pool_set_limit(osr_device_get_pool(osr_model_get_device(model)), limit);
}

gboolean
gst_opensora_model_set_property(GstOpenSoraModel *self, GstElement *element, guint id,
                                const GValue *value)
{
  const char *text;

  switch (id) {
  case GST_OPENSORA_MODEL_PROP_LOCATION:
    text = g_value_get_string(value);
    GST_OBJECT_LOCK(element);
    g_free(self->location);
    self->location = text && *text ? g_strdup(text) : NULL;
    GST_OBJECT_UNLOCK(element);
    return TRUE;
  case GST_OPENSORA_MODEL_PROP_DEVICE:
    text = g_value_get_string(value);
    GST_OBJECT_LOCK(element);
    g_free(self->device);
    self->device = g_strdup(text && *text ? text : GST_OPENSORA_DEFAULT_DEVICE);
    GST_OBJECT_UNLOCK(element);
    return TRUE;
  case GST_OPENSORA_MODEL_PROP_DTYPE:
    GST_OBJECT_LOCK(element);
    self->dtype = g_value_get_enum(value);
    GST_OBJECT_UNLOCK(element);
    return TRUE;
  case GST_OPENSORA_MODEL_PROP_MEMORY_LIMIT:
    set_memory_limit(self, element, g_value_get_uint64(value));
    return TRUE;
  default:
    return FALSE;
  }
}

/* NULL while there is no model. (transfer full) */
static GstStructure *
get_memory_stats(GstOpenSoraModel *self, GstElement *element)
{
  g_autoptr(OsrModel) model = gst_opensora_model_ref(self, element);
  GstStructure *stats;

  if (!model)
    return NULL;
  stats = gst_structure_new_empty("memory-stats");
  gst_opensora_set_memory_fields(stats, "", osr_model_get_device(model));
  return stats;
}

gboolean
gst_opensora_model_get_property(GstOpenSoraModel *self, GstElement *element, guint id,
                                GValue *value)
{
  switch (id) {
  case GST_OPENSORA_MODEL_PROP_LOCATION:
    GST_OBJECT_LOCK(element);
    g_value_set_string(value, self->location);
    GST_OBJECT_UNLOCK(element);
    return TRUE;
  case GST_OPENSORA_MODEL_PROP_DEVICE:
    GST_OBJECT_LOCK(element);
    g_value_set_string(value, self->device);
    GST_OBJECT_UNLOCK(element);
    return TRUE;
  case GST_OPENSORA_MODEL_PROP_DTYPE:
    GST_OBJECT_LOCK(element);
    g_value_set_enum(value, self->dtype);
    GST_OBJECT_UNLOCK(element);
    return TRUE;
  case GST_OPENSORA_MODEL_PROP_MEMORY_LIMIT:
    GST_OBJECT_LOCK(element);
    g_value_set_uint64(value, self->memory_limit);
    GST_OBJECT_UNLOCK(element);
    return TRUE;
  case GST_OPENSORA_MODEL_PROP_MEMORY_STATS:
    g_value_take_boxed(value, get_memory_stats(self, element));
    return TRUE;
  default:
    return FALSE;
  }
}

static gboolean
check_files(const OsrModelDir *dir, GstOpenSoraFiles files, GError **error)
{
  const struct {
    GstOpenSoraFiles part;
    const char *path;
  } all[] = {
    { GST_OPENSORA_TEXT_FILES, dir->t5_weights },
    { GST_OPENSORA_TEXT_FILES, dir->clip_weights },
    { GST_OPENSORA_MMDIT_FILES, dir->mmdit_path },
    { GST_OPENSORA_VAE_FILES, dir->vae_path },
  };

  for (guint i = 0; i < G_N_ELEMENTS(all); i++) {
    g_autoptr(OsrCheckpoint) checkpoint = NULL;

    if (!(files & all[i].part))
      continue;
    checkpoint = osr_checkpoint_open(all[i].path, error);
    if (!checkpoint)
      return FALSE;
  }
  return TRUE;
}

/* @dtype: an OsrDType, or GST_OPENSORA_DTYPE_AUTO. */
static OsrModel *
get_model(const char *location, OsrDevice *device, gint dtype, gboolean tf32, GError **error)
{
  if (tf32)
    return osr_model_get_tf32(location, device, error);
  if (dtype == GST_OPENSORA_DTYPE_AUTO)
    return osr_model_get(location, device, error);
  return osr_model_get_as(location, device, (OsrDType) dtype, error);
}

static gboolean
open_model(GstOpenSoraModel *self, GstElement *element, GstOpenSoraFiles files, gint dtype,
           gboolean tf32)
{
  g_autoptr(OsrDevice) device = NULL;
  g_autofree char *location = NULL;
  g_autofree char *name = NULL;
  g_autoptr(OsrModel) model = NULL;
  GError *error = NULL;
  guint64 limit;

  GST_OBJECT_LOCK(element);
  limit = self->memory_limit;
  location = g_strdup(self->location);
  name = g_strdup(self->device);
  GST_OBJECT_UNLOCK(element);

  gst_opensora_model_close(self, element);
  device = osr_device_get(name, &error);
  if (device)
    model = get_model(location, device, dtype, tf32, &error);
  if (!model || !check_files(osr_model_get_dir(model), files, &error)) {
    gst_opensora_post_error(element, error);
    return FALSE;
  }
  if (limit > 0)
    osr_pool_set_limit(osr_device_get_pool(device), limit);
  GST_INFO_OBJECT(element, "model %s (%s) on %s in %s", osr_model_get_dir(model)->name,
                  osr_model_get_dir(model)->path, osr_device_get_name(device),
                  tf32 ? "TF32" : osr_dtype_name(osr_model_get_dtype(model)));
  GST_OBJECT_LOCK(element);
  self->model = g_steal_pointer(&model);
  GST_OBJECT_UNLOCK(element);
  return TRUE;
}

gboolean
gst_opensora_model_open(GstOpenSoraModel *self, GstElement *element, GstOpenSoraFiles files)
{
  gint dtype;

  GST_OBJECT_LOCK(element);
  dtype = self->dtype;
  GST_OBJECT_UNLOCK(element);
  return open_model(self, element, files, dtype, FALSE);
}

gboolean
gst_opensora_model_open_as(GstOpenSoraModel *self, GstElement *element, GstOpenSoraFiles files,
                           OsrDType dtype, gboolean tf32)
{
  return open_model(self, element, files, (gint) dtype, tf32);
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
