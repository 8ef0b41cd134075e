/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Frames in CUDA memory: contexts, pools and mapping, for libgstcuda 1.22 and later. */
#include "gstopensoracuda.h"

#include <gmodule.h>
#include <gst/cuda/gstcudabufferpool.h>
#include <gst/cuda/gstcudaloader.h>
#include <gst/cuda/gstcudautils.h>

/* What came with 1.24 and is used where the library at hand has it. */
#if !GST_CHECK_VERSION(1, 24, 0)
typedef struct _GstCudaStream GstCudaStream;
GstCudaStream *gst_cuda_stream_new(GstCudaContext *context);
void gst_buffer_pool_config_set_cuda_stream(GstStructure *config, GstCudaStream *stream);
void gst_cuda_memory_sync(GstCudaMemory *memory);
#endif
#pragma weak gst_cuda_stream_new
#pragma weak gst_buffer_pool_config_set_cuda_stream
#pragma weak gst_cuda_memory_sync

GST_DEBUG_CATEGORY_STATIC(gst_opensora_cuda_debug);
#define GST_CAT_DEFAULT gst_opensora_cuda_debug

struct _GstOpenSoraCuda {
  GstElement *element; /* borrowed */
  OsrDevice *device;
  CUdevice gpu;
  CUcontext primary; /* retained: the engine's */

  GMutex lock;
  GstCudaContext *context; /* NULL until somebody needs one */

  /* Of the streaming thread. */
  GstCudaStream *stream; /* of the pools, from 1.24 on */
  GstVideoFrame target;  /* the buffer's, between map() and unmap() */
  OsrTensor *staging;    /* where the engine writes if it does not reach the buffer, or NULL */
};

/* The driver's functions that libgstcuda does not wrap. */
static struct {
  CUresult (*primary_retain)(CUcontext *context, CUdevice gpu);
  CUresult (*primary_release)(CUdevice gpu);
  CUresult (*copy_peer)(const CUDA_MEMCPY3D_PEER *copy, CUstream stream);
} driver;

static const struct {
  const char *name;
  gpointer *function;
} symbols[] = {
  { "cuDevicePrimaryCtxRetain", (gpointer *) &driver.primary_retain },
  { "cuDevicePrimaryCtxRelease_v2", (gpointer *) &driver.primary_release },
  { "cuMemcpy3DPeerAsync", (gpointer *) &driver.copy_peer },
};

static gboolean
check(CUresult result, const char *what, GError **error)
{
  const char *why = NULL;

  if (result == CUDA_SUCCESS)
    return TRUE;
  if (CuGetErrorString(result, &why) != CUDA_SUCCESS || !why)
    why = "unknown error";
  g_set_error(error, OSR_ERROR,
              result == CUDA_ERROR_OUT_OF_MEMORY ? OSR_ERROR_MEMORY : OSR_ERROR_DEVICE,
              "%s: %s (CUDA driver, error %d)", what, why, (int) result);
  return FALSE;
}

/* --- the driver --- */

static gboolean
load_symbols(GError **error)
{
  /* libgstcuda has opened it for good. */
  GModule *module = g_module_open("libcuda.so.1", G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
  gboolean ok = module != NULL;

  for (guint i = 0; i < G_N_ELEMENTS(symbols) && ok; i++)
    ok = g_module_symbol(module, symbols[i].name, symbols[i].function);
  if (!ok)
    g_set_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND, "the NVIDIA driver is too old: %s",
                g_module_error());
  if (module)
    g_module_close(module);
  return ok;
}

static gboolean
load_driver(GError **error)
{
  GstAllocator *allocator;

  GST_DEBUG_CATEGORY_INIT(gst_opensora_cuda_debug, "opensoracuda", 0,
                          "Open-Sora frames in CUDA memory");
  if (!gst_cuda_load_library()) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_NOT_FOUND,
                        "libgstcuda finds no NVIDIA driver that it can use");
    return FALSE;
  }
  if (!load_symbols(error) || !check(CuInit(0), "the NVIDIA driver", error))
    return FALSE;
  gst_cuda_memory_init_once();
  /* It stays to the end of the process, which is not for each leak check to find out. */
  allocator = gst_allocator_find(GST_CUDA_MEMORY_TYPE_NAME);
  GST_OBJECT_FLAG_SET(allocator, GST_OBJECT_FLAG_MAY_BE_LEAKED);
  gst_object_unref(allocator);
  return TRUE;
}

static gboolean
load(GError **error)
{
  static GMutex lock;
  static gboolean loaded;
  gboolean ok;

  g_mutex_lock(&lock);
  ok = loaded = loaded || load_driver(error);
  g_mutex_unlock(&lock);
  return ok;
}

/* --- contexts --- */

/* @gpu: one more, as the data of an object is not NULL. */
static void
release_primary(gpointer gpu)
{
  driver.primary_release((CUdevice) GPOINTER_TO_INT(gpu) - 1);
}

/* The primary context as one of libgstcuda's, which keeps it as long as anybody has that. */
static GstCudaContext *
wrap_primary(GstOpenSoraCuda *self)
{
  GstCudaContext *context;
  CUcontext primary;

  if (driver.primary_retain(&primary, self->gpu) != CUDA_SUCCESS)
    return NULL;
  context = gst_cuda_context_new_wrapped(primary, self->gpu);
  if (!context) {
    driver.primary_release(self->gpu);
    return NULL;
  }
  g_object_set_data_full(G_OBJECT(context), "opensora-primary-context",
                         GINT_TO_POINTER(self->gpu + 1), release_primary);
  return context;
}

/* What is in @context if it belongs to our GPU. (transfer full) */
static GstCudaContext *
take_context(GstOpenSoraCuda *self, GstContext *context)
{
  GstCudaContext *found = NULL;

  if (context)
    gst_cuda_handle_set_context(self->element, context, self->gpu, &found);
  return found;
}

/* The one that application or bin have set. */
static GstCudaContext *
own_context(GstOpenSoraCuda *self)
{
  GstContext *context = gst_element_get_context(self->element, GST_CUDA_CONTEXT_TYPE);
  GstCudaContext *found = take_context(self, context);

  g_clear_pointer(&context, gst_context_unref);
  return found;
}

typedef struct {
  GstOpenSoraCuda *self;
  GstCudaContext *found;
} Search;

static gboolean
ask_peer(GstElement *element, GstPad *pad, gpointer user_data)
{
  Search *search = user_data;
  GstQuery *query = gst_query_new_context(GST_CUDA_CONTEXT_TYPE);
  GstContext *context = NULL;

  if (gst_pad_peer_query(pad, query)) {
    gst_query_parse_context(query, &context);
    search->found = take_context(search->self, context);
  }
  gst_query_unref(query);
  return search->found == NULL;
}

/* Asks everybody there is. Nothing may be locked. */
static GstCudaContext *
search_context(GstOpenSoraCuda *self)
{
  Search search = { self, own_context(self) };

  if (!search.found)
    gst_element_foreach_src_pad(self->element, ask_peer, &search);
  if (!search.found)
    gst_element_foreach_sink_pad(self->element, ask_peer, &search);
  if (!search.found) {
    gst_element_post_message(
        self->element,
        gst_message_new_need_context(GST_OBJECT_CAST(self->element), GST_CUDA_CONTEXT_TYPE));
    search.found = own_context(self);
  }
  return search.found;
}

/* Makes @context (taken, may be NULL) ours, or what another thread has made it meanwhile, or the
 * primary one. (transfer full) */
static GstCudaContext *
settle_context(GstOpenSoraCuda *self, GstCudaContext *context)
{
  gboolean is_new = FALSE;

  g_mutex_lock(&self->lock);
  if (!self->context) {
    is_new = context == NULL;
    self->context = context ? g_steal_pointer(&context) : wrap_primary(self);
    if (self->context)
      GST_INFO_OBJECT(self->element, "%s context %" GST_PTR_FORMAT, is_new ? "own" : "shared",
                      self->context);
  }
  gst_clear_object(&context);
  if (self->context)
    context = gst_object_ref(self->context);
  g_mutex_unlock(&self->lock);
  if (context && is_new)
    gst_element_post_message(self->element,
                             gst_message_new_have_context(GST_OBJECT_CAST(self->element),
                                                          gst_context_new_cuda_context(context)));
  return context;
}

static GstCudaContext *
get_context(GstOpenSoraCuda *self, gboolean ask)
{
  GstCudaContext *context = NULL;

  g_mutex_lock(&self->lock);
  if (self->context)
    context = gst_object_ref(self->context);
  g_mutex_unlock(&self->lock);
  if (context)
    return context;
  return settle_context(self, ask ? search_context(self) : own_context(self));
}

static gboolean
context_query(GstOpenSoraCuda *self, GstQuery *query)
{
  GstCudaContext *context;
  const char *type;
  gboolean ok;

  gst_query_parse_context_type(query, &type);
  if (!g_str_equal(type, GST_CUDA_CONTEXT_TYPE))
    return FALSE;
  context = get_context(self, FALSE);
  ok = context && gst_cuda_handle_context_query(self->element, query, context);
  gst_clear_object(&context);
  return ok;
}

/* "cuda:1" is device 1 of the driver, too: both count what CUDA_VISIBLE_DEVICES leaves. */
static GstOpenSoraCuda *
open_cuda(GstElement *element, OsrDevice *device, GError **error)
{
  const char *name = osr_device_get_name(device);
  guint64 index;
  GstOpenSoraCuda *self;
  CUcontext primary;
  CUdevice gpu;

  if (!g_str_has_prefix(name, "cuda:") ||
      !g_ascii_string_to_unsigned(name + 5, 10, 0, G_MAXINT, &index, NULL)) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "device '%s' is no GPU", name);
    return NULL;
  }
  if (!check(CuDeviceGet(&gpu, (int) index), name, error) ||
      !check(driver.primary_retain(&primary, gpu), "the primary context", error))
    return NULL;

  self = g_new0(GstOpenSoraCuda, 1);
  self->element = element;
  self->device = osr_device_ref(device);
  self->gpu = gpu;
  self->primary = primary;
  g_mutex_init(&self->lock);
  return self;
}

static void
close_cuda(GstOpenSoraCuda *self)
{
  if (self->stream)
    gst_mini_object_unref(GST_MINI_OBJECT_CAST(self->stream));
  gst_clear_object(&self->context);
  g_mutex_clear(&self->lock);
  driver.primary_release(self->gpu);
  osr_device_unref(self->device);
  g_free(self);
}

/* --- pools --- */

/* Without a stream of its own, libgstcuda copies in the default one, for which others wait. */
static void
configure_stream(GstOpenSoraCuda *self, GstStructure *config)
{
  if (!gst_cuda_stream_new || !gst_buffer_pool_config_set_cuda_stream)
    return;
  if (!self->stream)
    self->stream = gst_cuda_stream_new(self->context);
  if (self->stream)
    gst_buffer_pool_config_set_cuda_stream(config, self->stream);
}

/* *size becomes that of the pool's buffers: rows are padded. */
static gboolean
configure_pool(GstOpenSoraCuda *self, GstBufferPool *pool, GstCaps *caps, guint *size, guint min,
               guint max)
{
  GstStructure *config = gst_buffer_pool_get_config(pool);

  gst_buffer_pool_config_set_params(config, caps, *size, min, max);
  gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  if (GST_CUDA_BUFFER_POOL_CAST(pool)->context == self->context)
    configure_stream(self, config);
  if (!gst_buffer_pool_set_config(pool, config))
    return FALSE;
  config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_get_params(config, NULL, size, NULL, NULL);
  gst_structure_free(config);
  return TRUE;
}

/* Elements may wrap one context twice, so it is the driver's that counts. */
static gboolean
same_context(GstCudaContext *a, GstCudaContext *b)
{
  return gst_cuda_context_get_handle(a) == gst_cuda_context_get_handle(b);
}

static gboolean
decide_allocation(GstOpenSoraCuda *self, GstQuery *query, GError **error)
{
  g_autoptr(GstBufferPool) pool = NULL;
  GstCudaContext *context;
  GstVideoInfo info;
  GstCaps *caps;
  guint size, min = 0, max = 0;
  gboolean update;

  gst_query_parse_allocation(query, &caps, NULL);
  if (!caps || !gst_video_info_from_caps(&info, caps)) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                        "an allocation without video caps");
    return FALSE;
  }
  context = get_context(self, TRUE);
  if (!context) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_DEVICE, "%s gives no context to share",
                osr_device_get_name(self->device));
    return FALSE;
  }

  size = (guint) GST_VIDEO_INFO_SIZE(&info);
  update = gst_query_get_n_allocation_pools(query) > 0;
  if (update)
    gst_query_parse_nth_allocation_pool(query, 0, &pool, NULL, &min, &max);
  if (pool && (!GST_IS_CUDA_BUFFER_POOL(pool) ||
               !same_context(GST_CUDA_BUFFER_POOL_CAST(pool)->context, context) ||
               !configure_pool(self, pool, caps, &size, min, max))) {
    /* How many it would have made at most was said of that pool. */
    gst_clear_object(&pool);
    max = 0;
  }
  if (!pool) {
    pool = gst_cuda_buffer_pool_new(context);
    if (!configure_pool(self, pool, caps, &size, min, max))
      gst_clear_object(&pool);
  }
  gst_object_unref(context);
  if (!pool) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY,
                "no memory on %s for frames of %d x %d (see GST_DEBUG=cuda*:4)",
                osr_device_get_name(self->device), info.width, info.height);
    return FALSE;
  }
  if (update)
    gst_query_set_nth_allocation_pool(query, 0, pool, size, min, max);
  else
    gst_query_add_allocation_pool(query, pool, size, min, max);
  return TRUE;
}

/* --- frames --- */

/* A frame like @info in memory of the engine's. */
static gboolean
stage(GstOpenSoraCuda *self, const GstVideoInfo *info, GstVideoFrame *frame, GError **error)
{
  const gint64 size = (gint64) GST_VIDEO_INFO_SIZE(info);

  self->staging = osr_tensor_new(self->device, OSR_DTYPE_U8, 1, &size, error);
  if (!self->staging)
    return FALSE;
  *frame = (GstVideoFrame){ .info = *info };
  for (guint p = 0; p < GST_VIDEO_INFO_N_PLANES(info); p++)
    frame->data[p] = (guint8 *) self->staging->data + GST_VIDEO_INFO_PLANE_OFFSET(info, p);
  return TRUE;
}

static gboolean
map(GstOpenSoraCuda *self, const GstVideoInfo *info, GstBuffer *buffer, GstVideoFrame *frame,
    GError **error)
{
  GstMemory *memory = gst_buffer_n_memory(buffer) > 0 ? gst_buffer_peek_memory(buffer, 0) : NULL;

  /* A write in device memory: the next map by a CPU downloads it. */
  if (!gst_is_cuda_memory(memory) ||
      !gst_video_frame_map(&self->target, info, buffer,
                           (GstMapFlags) (GST_MAP_WRITE | GST_MAP_CUDA))) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_FAILED, "a buffer is no writable CUDA frame");
    return FALSE;
  }
  /* Whoever had the buffer last may have left work on it. */
  if (gst_cuda_memory_sync)
    gst_cuda_memory_sync(GST_CUDA_MEMORY_CAST(memory));
  if (gst_cuda_context_get_handle(GST_CUDA_MEMORY_CAST(memory)->context) == self->primary) {
    *frame = self->target;
  } else if (!stage(self, info, frame, error)) {
    gst_video_frame_unmap(&self->target);
    return FALSE;
  }
  return TRUE;
}

static gboolean
copy_plane(GstOpenSoraCuda *self, GstCudaContext *context, const GstVideoFrame *from, guint plane,
           GError **error)
{
  gint component[GST_VIDEO_MAX_COMPONENTS];
  CUDA_MEMCPY3D_PEER copy = {
    .srcMemoryType = CU_MEMORYTYPE_DEVICE,
    .srcContext = self->primary,
    .srcDevice = (CUdeviceptr) GST_VIDEO_FRAME_PLANE_DATA(from, plane),
    .srcPitch = (size_t) GST_VIDEO_FRAME_PLANE_STRIDE(from, plane),
    .dstMemoryType = CU_MEMORYTYPE_DEVICE,
    .dstContext = gst_cuda_context_get_handle(context),
    .dstDevice = (CUdeviceptr) GST_VIDEO_FRAME_PLANE_DATA(&self->target, plane),
    .dstPitch = (size_t) GST_VIDEO_FRAME_PLANE_STRIDE(&self->target, plane),
    .Depth = 1,
  };

  gst_video_format_info_component(from->info.finfo, plane, component);
  copy.WidthInBytes = (size_t) GST_VIDEO_FRAME_COMP_WIDTH(from, component[0]) *
                      (size_t) GST_VIDEO_FRAME_COMP_PSTRIDE(from, component[0]);
  copy.Height = (size_t) GST_VIDEO_FRAME_COMP_HEIGHT(from, component[0]);
  copy.srcHeight = copy.dstHeight = copy.Height;
  return check(driver.copy_peer(&copy, NULL), "copying a frame to another context", error);
}

static gboolean
copy_staged(GstOpenSoraCuda *self, const GstVideoFrame *from, GError **error)
{
  GstMemory *memory = gst_buffer_peek_memory(self->target.buffer, 0);
  GstCudaContext *context = GST_CUDA_MEMORY_CAST(memory)->context;
  gboolean ok = TRUE;

  if (!gst_cuda_context_push(context)) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_DEVICE, "a shared CUDA context is unusable");
    return FALSE;
  }
  for (guint p = 0; p < GST_VIDEO_FRAME_N_PLANES(from) && ok; p++)
    ok = copy_plane(self, context, from, p, error);
  ok = ok && check(CuStreamSynchronize(NULL), "copying a frame to another context", error);
  gst_cuda_context_pop(NULL);
  return ok;
}

static gboolean
unmap(GstOpenSoraCuda *self, GstVideoFrame *frame, GError **error)
{
  guint64 mark;
  gboolean ok = osr_device_mark(self->device, &mark, error) &&
                osr_device_wait(self->device, mark, "writing a frame", error);

  if (self->staging) {
    ok = ok && copy_staged(self, frame, error);
    g_clear_pointer(&self->staging, osr_tensor_unref);
  }
  gst_video_frame_unmap(&self->target);
  return ok;
}

G_MODULE_EXPORT const GstOpenSoraCudaTable *gst_opensora_cuda_table(void);

const GstOpenSoraCudaTable *
gst_opensora_cuda_table(void)
{
  static const GstOpenSoraCudaTable table = {
    .abi = GST_OPENSORA_CUDA_ABI,
    .load = load,
    .open = open_cuda,
    .close = close_cuda,
    .context_query = context_query,
    .decide_allocation = decide_allocation,
    .map = map,
    .unmap = unmap,
  };

  return &table;
}
