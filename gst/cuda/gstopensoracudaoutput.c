/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoracudaoutput.h"

#include <dlfcn.h>
#include <gmodule.h>

#define MODULE_FILE "libgstopensoracuda." G_MODULE_SUFFIX

GST_DEBUG_CATEGORY_EXTERN(gst_opensora_debug);
#define GST_CAT_DEFAULT gst_opensora_debug

/* --- the module --- */

/* As for the engine's module: the folders in OPENSORA_MODULE_PATH, then that of the engine's
 * library, then where the linker looks. */
static char *
find_module(void)
{
  const char *folders = g_getenv("OPENSORA_MODULE_PATH");
  g_auto(GStrv) listed = g_strsplit(folders ? folders : "", G_SEARCHPATH_SEPARATOR_S, -1);
  g_autofree char *path = NULL;
  g_autofree char *own = NULL;
  Dl_info info;

  for (guint i = 0; listed[i]; i++) {
    g_clear_pointer(&path, g_free);
    path = g_build_filename(listed[i], MODULE_FILE, NULL);
    if (*listed[i] && g_file_test(path, G_FILE_TEST_EXISTS))
      return g_steal_pointer(&path);
  }
  if (!dladdr((void *) osr_device_get, &info) || !info.dli_fname)
    return g_strdup(MODULE_FILE);
  own = g_path_get_dirname(info.dli_fname);
  g_clear_pointer(&path, g_free);
  path = g_build_filename(own, MODULE_FILE, NULL);
  return g_file_test(path, G_FILE_TEST_EXISTS) ? g_steal_pointer(&path) : g_strdup(MODULE_FILE);
}

static const GstOpenSoraCudaTable *
open_module(GError **error)
{
  g_autofree char *path = find_module();
  GModule *module = g_module_open(path, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
  const GstOpenSoraCudaTable *table;
  gpointer symbol;

  if (!module) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "the module for CUDA memory: %s",
                g_module_error());
    return NULL;
  }
  if (!g_module_symbol(module, "gst_opensora_cuda_table", &symbol) ||
      (table = ((GstOpenSoraCudaGetTable) symbol)())->abi != GST_OPENSORA_CUDA_ABI) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "%s is not of this version",
                g_module_name(module));
    g_module_close(module);
    return NULL;
  }
  /* Types that libraries below it register stay with the process. */
  g_module_make_resident(module);
  return table;
}

/* Looked for once: what is not there at first stays away, or each query would look again. */
static const GstOpenSoraCudaTable *
get_table(void)
{
  static const GstOpenSoraCudaTable *table;
  static gsize once;

  if (g_once_init_enter(&once)) {
    g_autoptr(GError) error = NULL;

    table = open_module(&error);
    if (!table || !table->load(&error)) {
      GST_INFO("no CUDA memory: %s", error->message);
      table = NULL;
    }
    g_once_init_leave(&once, 1);
  }
  return table;
}

/* --- the element's side --- */

void
gst_opensora_cuda_output_init(GstOpenSoraCudaOutput *self, GstElement *element)
{
  *self = (GstOpenSoraCudaOutput){ .element = element };
  g_rec_mutex_init(&self->lock);
}

/* With the lock held. */
static void
set_device(GstOpenSoraCudaOutput *self, OsrDevice *device)
{
  const GstOpenSoraCudaTable *table;
  g_autoptr(GError) error = NULL;

  if (device == self->device)
    return;
  if (self->cuda)
    get_table()->close(g_steal_pointer(&self->cuda));
  g_clear_pointer(&self->device, osr_device_unref);
  if (!device)
    return;
  self->device = osr_device_ref(device);
  if (osr_device_is_host(device))
    return;
  table = get_table();
  if (table)
    self->cuda = table->open(self->element, device, &error);
  if (error)
    GST_WARNING_OBJECT(self->element, "no CUDA memory: %s", error->message);
}

void
gst_opensora_cuda_output_set_device(GstOpenSoraCudaOutput *self, OsrDevice *device)
{
  g_rec_mutex_lock(&self->lock);
  set_device(self, device);
  g_rec_mutex_unlock(&self->lock);
}

void
gst_opensora_cuda_output_clear(GstOpenSoraCudaOutput *self)
{
  set_device(self, NULL);
  g_rec_mutex_clear(&self->lock);
}

/* A device that another element asks about is one that the element is going to use. */
static void
guess_device(GstOpenSoraCudaOutput *self, const char *name)
{
  g_autoptr(OsrDevice) device = NULL;

  if (self->device || g_str_equal(name, "cpu") || !get_table())
    return;
  device = osr_device_get(name, NULL);
  if (device)
    set_device(self, device);
}

gboolean
gst_opensora_cuda_output_query(GstOpenSoraCudaOutput *self, const char *device, GstQuery *query)
{
  const char *type;
  gboolean ok;

  gst_query_parse_context_type(query, &type);
  if (!g_str_equal(type, GST_OPENSORA_CUDA_CONTEXT))
    return FALSE;
  g_rec_mutex_lock(&self->lock);
  guess_device(self, device);
  ok = self->cuda && get_table()->context_query(self->cuda, query);
  g_rec_mutex_unlock(&self->lock);
  return ok;
}

gboolean
gst_opensora_cuda_in_caps(const GstCaps *caps, guint i)
{
  const GstCapsFeatures *features = gst_caps_get_features(caps, i);

  return !gst_caps_features_is_any(features) &&
         gst_caps_features_contains(features, GST_OPENSORA_CUDA_FEATURE);
}

GstCaps *
gst_opensora_cuda_strip_caps(GstCaps *caps)
{
  caps = gst_caps_make_writable(caps);
  for (guint i = gst_caps_get_size(caps); i-- > 0;)
    if (gst_opensora_cuda_in_caps(caps, i))
      gst_caps_remove_structure(caps, i);
  return caps;
}

GstCaps *
gst_opensora_cuda_output_filter_caps(GstOpenSoraCudaOutput *self, GstCaps *caps)
{
  gboolean unable;

  g_rec_mutex_lock(&self->lock);
  unable = self->device && !self->cuda;
  g_rec_mutex_unlock(&self->lock);
  return unable ? gst_opensora_cuda_strip_caps(caps) : caps;
}

gboolean
gst_opensora_cuda_output_decide_allocation(GstOpenSoraCudaOutput *self, GstQuery *query,
                                           GError **error)
{
  if (!self->cuda) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "no CUDA memory on this device");
    return FALSE;
  }
  return get_table()->decide_allocation(self->cuda, query, error);
}

gboolean
gst_opensora_cuda_output_map(GstOpenSoraCudaOutput *self, const GstVideoInfo *info,
                             GstBuffer *buffer, GstVideoFrame *frame, GError **error)
{
  return get_table()->map(self->cuda, info, buffer, frame, error);
}

gboolean
gst_opensora_cuda_output_unmap(GstOpenSoraCudaOutput *self, GstVideoFrame *frame, GError **error)
{
  return get_table()->unmap(self->cuda, frame, error);
}
