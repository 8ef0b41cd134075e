/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoramemory.h"

#include "gstopensora.h"

#define GST_CAT_DEFAULT gst_opensora_debug

#define GST_TYPE_OPENSORA_ALLOCATOR (gst_opensora_allocator_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraAllocator, gst_opensora_allocator, GST, OPENSORA_ALLOCATOR,
                     GstAllocator)

struct _GstOpenSoraAllocator {
  GstAllocator parent;
};

G_DEFINE_FINAL_TYPE(GstOpenSoraAllocator, gst_opensora_allocator, GST_TYPE_ALLOCATOR)

static gpointer
gst_opensora_memory_map(GstMemory *mem, gsize maxsize, GstMapFlags flags)
{
  GstOpenSoraMemory *self = (GstOpenSoraMemory *) mem;
  OsrTensor *tensor = self->tensor;
  gpointer data = NULL;

  if (osr_device_is_host(tensor->device))
    return tensor->data;

  g_mutex_lock(&self->lock);
  if (!self->staging) {
    g_autoptr(GError) error = NULL;

    self->staging = g_try_malloc(MAX(tensor->size, 1));
    if (self->staging && !osr_tensor_download(tensor, self->staging, tensor->size, &error)) {
      GST_ERROR("cannot map a tensor of %" G_GSIZE_FORMAT " bytes: %s", tensor->size,
                error->message);
      g_clear_pointer(&self->staging, g_free);
    }
  }
  if (self->staging) {
    self->n_maps++;
    data = self->staging;
  }
  g_mutex_unlock(&self->lock);
  return data;
}

static void
gst_opensora_memory_unmap(GstMemory *mem)
{
  GstOpenSoraMemory *self = (GstOpenSoraMemory *) mem;

  if (osr_device_is_host(self->tensor->device))
    return;
  g_mutex_lock(&self->lock);
  if (--self->n_maps == 0)
    g_clear_pointer(&self->staging, g_free);
  g_mutex_unlock(&self->lock);
}

/* Tensors are immutable once they travel, so a copy may hold the same one. */
static GstMemory *
gst_opensora_memory_copy(GstMemory *mem, gssize offset, gssize size)
{
  if (offset != 0 || (size != -1 && (gsize) size != mem->size))
    return NULL;
  return gst_opensora_memory_new(((GstOpenSoraMemory *) mem)->tensor);
}

static GstMemory *
gst_opensora_memory_share(GstMemory *mem, gssize offset, gssize size)
{
  return NULL;
}

static GstMemory *
gst_opensora_allocator_alloc(GstAllocator *allocator, gsize size, GstAllocationParams *params)
{
  return NULL; /* wraps tensors only; see GST_ALLOCATOR_FLAG_CUSTOM_ALLOC */
}

static void
gst_opensora_allocator_free(GstAllocator *allocator, GstMemory *mem)
{
  GstOpenSoraMemory *self = (GstOpenSoraMemory *) mem;

  osr_tensor_unref(self->tensor);
  g_free(self->staging);
  g_mutex_clear(&self->lock);
  g_free(self);
}

static void
gst_opensora_allocator_class_init(GstOpenSoraAllocatorClass *klass)
{
  GstAllocatorClass *allocator_class = GST_ALLOCATOR_CLASS(klass);

  allocator_class->alloc = gst_opensora_allocator_alloc;
  allocator_class->free = gst_opensora_allocator_free;
}

static void
gst_opensora_allocator_init(GstOpenSoraAllocator *self)
{
  GstAllocator *allocator = GST_ALLOCATOR(self);

  allocator->mem_type = GST_OPENSORA_MEMORY_TYPE;
  allocator->mem_map = gst_opensora_memory_map;
  allocator->mem_unmap = gst_opensora_memory_unmap;
  allocator->mem_copy = gst_opensora_memory_copy;
  allocator->mem_share = gst_opensora_memory_share;
  GST_OBJECT_FLAG_SET(self, GST_ALLOCATOR_FLAG_CUSTOM_ALLOC);
}

static GstAllocator *
gst_opensora_allocator_get(void)
{
  static GstAllocator *allocator;

  if (g_once_init_enter(&allocator)) {
    GstAllocator *made = g_object_new(GST_TYPE_OPENSORA_ALLOCATOR, NULL);

    gst_object_ref_sink(made);
    /* Lives as long as the process, like the memories it may outlast elements with. */
    GST_OBJECT_FLAG_SET(made, GST_OBJECT_FLAG_MAY_BE_LEAKED);
    g_once_init_leave(&allocator, made);
  }
  return allocator;
}

GstMemory *
gst_opensora_memory_new(OsrTensor *tensor)
{
  GstOpenSoraMemory *self = g_new0(GstOpenSoraMemory, 1);

  gst_memory_init(GST_MEMORY_CAST(self), GST_MEMORY_FLAG_NO_SHARE | GST_MEMORY_FLAG_READONLY,
                  gst_opensora_allocator_get(), NULL, tensor->size, 0, 0, tensor->size);
  g_mutex_init(&self->lock);
  self->tensor = osr_tensor_ref(tensor);
  return GST_MEMORY_CAST(self);
}

gboolean
gst_is_opensora_memory(GstMemory *mem)
{
  return mem && gst_memory_is_type(mem, GST_OPENSORA_MEMORY_TYPE);
}

OsrTensor *
gst_opensora_memory_get_tensor(GstMemory *mem)
{
  g_return_val_if_fail(gst_is_opensora_memory(mem), NULL);
  return ((GstOpenSoraMemory *) mem)->tensor;
}
