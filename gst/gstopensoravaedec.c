/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-opensoravaedec
 * @title: opensoravaedec
 * @short_description: Decodes latents to video frames
 *
 * Decodes each latent of #opensoradenoise to the frames of its clip, one buffer a frame. The
 * clip's prompt, seed and model go before its first frame as tags, and every frame carries
 * the clip's meta.
 *
 * On a GPU the frames may stay there, in `video/x-raw(memory:CUDAMemory)`, where downstream asks
 * for that; elements that take whatever memory there is get the system's.
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 opensoratextsrc prompt="a blue square growing on a white background" !
 * opensoradenoise ! opensoravaedec ! video/x-raw,framerate=12/1 ! videoconvert ! vp8enc ! webmmux !
 * filesink location=out.webm
 * ]|
 *
 * Since: 0.1
 */
#include <gst/base/gstbasetransform.h>

#include "cuda/gstopensoracudaoutput.h"
#include "gstopensoraclipmeta.h"
#include "gstopensorainterrupt.h"
#include "gstopensoravideo.h"

GST_DEBUG_CATEGORY_STATIC(gst_opensora_vae_dec_debug);
#define GST_CAT_DEFAULT gst_opensora_vae_dec_debug

/* Lines from which on HD colorimetry is meant when nothing is said. */
#define HD_LINES 577

enum {
  PROP_0,
  PROP_MODEL, /* and the GST_OPENSORA_MODEL_N_PROPS - 1 ids after it */
  PROP_TILING = PROP_MODEL + GST_OPENSORA_MODEL_N_PROPS,
};

#define GST_TYPE_OPENSORA_VAE_DEC (gst_opensora_vae_dec_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraVaeDec, gst_opensora_vae_dec, GST, OPENSORA_VAE_DEC,
                     GstBaseTransform)

struct _GstOpenSoraVaeDec {
  GstBaseTransform parent;

  GstOpenSoraModel model;
  guint tiling; /* OsrVaeTiling */

  GstOpenSoraInterrupt interrupt;
  GstOpenSoraCudaOutput cuda;
  GstVideoInfo info;
  gboolean in_cuda;  /* what the caps of @info say */
  OsrTensor *video;  /* [T, H, W, 3] of the clip that is being sent, or NULL */
  GstBuffer *latent; /* what it was decoded from: times and meta */
  guint next_frame, n_frames;
  guint lead_in;    /* frames that the clip before it has shown */
  guint64 skipped;  /* frames of clips that were given up after they had got their times */
  GstCaps *refused; /* for want of memory, and told: they come again with the next event */
};

#define VIDEO_FIELDS                                                                               \
  GST_OPENSORA_ANY_VIDEO_FIELDS                                                                    \
  ", pixel-aspect-ratio = (fraction) 1/1, interlace-mode = progressive"

#define VIDEO_CAPS(media)                                                                          \
  media ", format = " GST_OPENSORA_VIDEO_FORMATS_YUV ", " VIDEO_FIELDS                             \
        ", colorimetry = { bt601, bt709 }, chroma-site = jpeg; " media                             \
        ", format = " GST_OPENSORA_VIDEO_FORMATS_RGB ", " VIDEO_FIELDS ", colorimetry = sRGB"

static GstStaticPadTemplate sink_template = GST_STATIC_PAD_TEMPLATE(
    "sink", GST_PAD_SINK, GST_PAD_ALWAYS,
    GST_STATIC_CAPS(GST_OPENSORA_LATENT_CAPS ", " GST_OPENSORA_ANY_VIDEO_FIELDS));

static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS,
                            GST_STATIC_CAPS(VIDEO_CAPS("video/x-raw(" GST_OPENSORA_CUDA_FEATURE
                                                       ")") "; " VIDEO_CAPS("video/x-raw")));

G_DEFINE_FINAL_TYPE(GstOpenSoraVaeDec, gst_opensora_vae_dec, GST_TYPE_BASE_TRANSFORM)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(opensoravaedec, "opensoravaedec", GST_RANK_NONE,
                                      GST_TYPE_OPENSORA_VAE_DEC,
                                      GST_DEBUG_CATEGORY_INIT(gst_opensora_vae_dec_debug,
                                                              "opensoravaedec", 0,
                                                              "Open-Sora VAE decoder"));

#define GST_TYPE_OPENSORA_TILING (gst_opensora_tiling_get_type())
static GType
gst_opensora_tiling_get_type(void)
{
  static GType type;
  static const GFlagsValue values[] = {
    { OSR_VAE_TILING_SPATIAL, "Tiles of the frame", "spatial" },
    { OSR_VAE_TILING_TEMPORAL, "Pieces of the clip", "temporal" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_flags_register_static("GstOpenSoraTiling", values));
  return type;
}

static GstOpenSoraTicket *
ticket_of(GstBuffer *latent)
{
  return gst_opensora_clip_meta_get_ticket(gst_opensora_clip_meta_get(latent));
}

/* The clip is not ours any more, whether all of it was sent or not. */
static void
drop_clip(GstOpenSoraVaeDec *self)
{
  GstOpenSoraTicket *ticket = self->latent ? ticket_of(self->latent) : NULL;

  if (self->next_frame < self->n_frames)
    gst_opensora_ticket_drop(ticket);
  ticket = ticket ? g_object_ref(ticket) : NULL;
  g_clear_pointer(&self->video, osr_tensor_unref);
  gst_clear_buffer(&self->latent);
  gst_opensora_ticket_settle(ticket);
  self->next_frame = self->n_frames = self->lead_in = 0;
}

static void
gst_opensora_vae_dec_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(object);

  if (gst_opensora_model_set_property(&self->model, GST_ELEMENT(self), id - PROP_MODEL, value))
    return;
  switch (id) {
  case PROP_TILING:
    GST_OBJECT_LOCK(self);
    self->tiling = g_value_get_flags(value);
    GST_OBJECT_UNLOCK(self);
    break;
  default:
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
}

static void
gst_opensora_vae_dec_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(object);

  if (gst_opensora_model_get_property(&self->model, GST_ELEMENT(self), id - PROP_MODEL, value))
    return;
  switch (id) {
  case PROP_TILING:
    GST_OBJECT_LOCK(self);
    g_value_set_flags(value, self->tiling);
    GST_OBJECT_UNLOCK(self);
    break;
  default:
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
}

static gboolean
gst_opensora_vae_dec_start(GstBaseTransform *trans)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);

  gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_ANY_REASON);
  if (!gst_opensora_model_open(&self->model, GST_ELEMENT(self), GST_OPENSORA_VAE_FILES))
    return FALSE;
  gst_opensora_cuda_output_set_device(&self->cuda, osr_model_get_device(self->model.model));
  return TRUE;
}

static gboolean
gst_opensora_vae_dec_stop(GstBaseTransform *trans)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);

  drop_clip(self);
  self->skipped = 0;
  gst_clear_caps(&self->refused);
  gst_opensora_cuda_output_set_device(&self->cuda, NULL);
  gst_opensora_model_close(&self->model, GST_ELEMENT(self));
  return TRUE;
}

static void
copy_field(const GstStructure *from, GstStructure *to, const char *field)
{
  const GValue *value = gst_structure_get_value(from, field);

  if (value)
    gst_structure_set_value(to, field, value);
}

/* Size and rate are the same on both sides. */
static GstCaps *
gst_opensora_vae_dec_transform_caps(GstBaseTransform *trans, GstPadDirection direction,
                                    GstCaps *caps, GstCaps *filter)
{
  static const char *const fields[] = { "width", "height", "framerate" };
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);
  g_autoptr(OsrModel) model = gst_opensora_model_ref(&self->model, GST_ELEMENT(self));
  GstCaps *other = gst_caps_new_empty();

  caps = gst_caps_ref(caps);
  if (direction == GST_PAD_SRC)
    caps = gst_opensora_cuda_output_filter_caps(&self->cuda, caps);
  for (guint i = 0; i < gst_caps_get_size(caps); i++) {
    const GstStructure *s = gst_caps_get_structure(caps, i);
    GstCaps *part = gst_static_pad_template_get_caps(direction == GST_PAD_SINK ? &src_template
                                                                               : &sink_template);

    part = gst_caps_make_writable(part);
    for (guint j = 0; j < gst_caps_get_size(part); j++)
      for (guint f = 0; f < G_N_ELEMENTS(fields); f++)
        copy_field(s, gst_caps_get_structure(part, j), fields[f]);
    if (direction == GST_PAD_SRC && model)
      gst_caps_set_simple(part, "family", G_TYPE_STRING, osr_model_get_dir(model)->family, NULL);
    other = gst_caps_merge(other, part);
  }
  if (direction == GST_PAD_SINK)
    other = gst_opensora_cuda_output_filter_caps(&self->cuda, other);
  gst_caps_unref(caps);
  return gst_opensora_filter_caps(other, filter);
}

/* Who takes anything at all, as sinks and converters do, does not ask for memory of a GPU. */
static gboolean
downstream_asks_for_cuda(GstBaseTransform *trans)
{
  GstCaps *caps = gst_pad_peer_query_caps(GST_BASE_TRANSFORM_SRC_PAD(trans), NULL);
  gboolean asks = FALSE;

  for (guint i = 0; i < gst_caps_get_size(caps) && !asks; i++)
    asks = gst_opensora_cuda_in_caps(caps, i);
  gst_caps_unref(caps);
  return asks;
}

static GstCaps *
gst_opensora_vae_dec_fixate_caps(GstBaseTransform *trans, GstPadDirection direction, GstCaps *caps,
                                 GstCaps *othercaps)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);
  GstStructure *s;
  gint height = 0;

  if (direction == GST_PAD_SINK && !downstream_asks_for_cuda(trans))
    othercaps = gst_opensora_cuda_strip_caps(othercaps);
  if (gst_caps_is_empty(othercaps))
    return othercaps;
  othercaps = gst_caps_make_writable(gst_caps_truncate(othercaps));
  s = gst_caps_get_structure(othercaps, 0);
  gst_structure_get_int(s, "height", &height);
  if (gst_structure_has_field(s, "framerate"))
    gst_structure_fixate_field_nearest_fraction(
        s, "framerate", (gint) osr_model_get_dir(self->model.model)->fps, 1);
  if (direction == GST_PAD_SINK && gst_structure_has_field(s, "colorimetry"))
    gst_structure_fixate_field_string(s, "colorimetry", height < HD_LINES ? "bt601" : "bt709");
  return gst_caps_fixate(othercaps);
}

static void
set_too_large(GError **error, OsrDevice *device, const char *clip, guint64 needed,
              guint64 available, guint64 free_bytes, guint64 limit, gboolean can_tile)
{
  g_autofree char *needed_text = g_format_size_full(needed, G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *available_text = g_format_size_full(available, G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *free_text = g_format_size_full(free_bytes, G_FORMAT_SIZE_IEC_UNITS);
  g_autofree char *limit_text =
      limit ? g_format_size_full(limit, G_FORMAT_SIZE_IEC_UNITS) : g_strdup("none");

  g_set_error(error, OSR_ERROR, OSR_ERROR_MEMORY,
              "Not enough memory on %s: to decode %s takes %s, and there are %s (%s free, limit "
              "%s). %s a smaller or shorter clip takes less.",
              osr_device_get_name(device), clip, needed_text, available_text, free_text, limit_text,
              can_tile ? "The property tiling of the decoder helps, and" : "Only");
}

/* Whether clips of the latents @caps can be decoded at all, before minutes go into making them.
 * What tiles take is counted without what holds them together: nothing that works is refused. */
static gboolean
check_memory(GstOpenSoraVaeDec *self, OsrModel *model, GstCaps *caps, GError **error)
{
  const OsrModelDir *dir = osr_model_get_dir(model);
  OsrDevice *device = osr_model_get_device(model);
  const GstStructure *s = gst_caps_get_structure(caps, 0);
  guint64 needed, available, free_bytes;
  gint width = 0, height = 0, frames = 1;
  g_autofree char *clip = NULL;
  guint t, h, w, tiling;
  OsrPoolStats stats;

  gst_structure_get_int(s, "width", &width);
  gst_structure_get_int(s, "height", &height);
  gst_structure_get_int(s, "frames", &frames);
  t = (guint) (frames - 1) / dir->vae.time_compression_ratio + 1;
  h = (guint) height / dir->vae.spatial_compression_ratio;
  w = (guint) width / dir->vae.spatial_compression_ratio;
  GST_OBJECT_LOCK(self);
  tiling = self->tiling;
  GST_OBJECT_UNLOCK(self);
  if (tiling & OSR_VAE_TILING_TEMPORAL)
    t = MIN(t, MAX(dir->vae.sample_tsize / dir->vae.time_compression_ratio, 1));
  if (tiling & OSR_VAE_TILING_SPATIAL) {
    h = MIN(h, MAX(dir->vae.sample_size / dir->vae.spatial_compression_ratio, 1));
    w = MIN(w, MAX(dir->vae.sample_size / dir->vae.spatial_compression_ratio, 1));
  }

  clip = g_strdup_printf("%d frames of %d x %d", frames, width, height);
  needed = osr_vae_decode_memory(&dir->vae, t, h, w);
  if (needed == G_MAXUINT64) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED, "Cannot decode %s.", clip);
    return FALSE;
  }
  /* The engine counts in f32. */
  needed = needed / sizeof(float) * osr_dtype_size(osr_model_get_dtype(self->model.model));
  if (!osr_device_get_memory(device, &free_bytes, NULL, NULL))
    return TRUE;
  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  available = free_bytes + stats.reserved - stats.allocated;
  if (stats.limit)
    available = MIN(available, stats.limit - MIN(stats.limit, stats.allocated));
  GST_DEBUG_OBJECT(self, "%s: %" G_GUINT64_FORMAT " bytes of %" G_GUINT64_FORMAT, clip, needed,
                   available);
  if (needed <= available)
    return TRUE;
  set_too_large(error, device, clip, needed, available, free_bytes, stats.limit,
                tiling != (OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL));
  return FALSE;
}

/* @caps that were refused are not refused again with a message: they come with every event. */
static gboolean
accept_memory(GstOpenSoraVaeDec *self, GstCaps *caps)
{
  GError *error = NULL;

  if (check_memory(self, self->model.model, caps, &error))
    return TRUE;
  if (!self->refused || !gst_caps_is_equal(caps, self->refused))
    gst_opensora_post_error(GST_ELEMENT(self), error);
  else
    g_error_free(error);
  gst_caps_replace(&self->refused, caps);
  return FALSE;
}

static gboolean
gst_opensora_vae_dec_set_caps(GstBaseTransform *trans, GstCaps *incaps, GstCaps *outcaps)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);

  drop_clip(self);
  self->in_cuda = gst_opensora_cuda_in_caps(outcaps, 0);
  return gst_video_info_from_caps(&self->info, outcaps) && accept_memory(self, incaps);
}

static gboolean
gst_opensora_vae_dec_get_unit_size(GstBaseTransform *trans, GstCaps *caps, gsize *size)
{
  GstVideoInfo info;

  /* Latents have no size that caps would tell. */
  if (!gst_video_info_from_caps(&info, caps))
    return FALSE;
  *size = GST_VIDEO_INFO_SIZE(&info);
  return TRUE;
}

static gboolean
gst_opensora_vae_dec_propose_allocation(GstBaseTransform *trans, GstQuery *decide_query,
                                        GstQuery *query)
{
  gst_query_add_allocation_meta(query, gst_meta_get_info(GST_OPENSORA_CLIP_META)->api, NULL);
  return TRUE;
}

/* FALSE if @pool cannot do it. *size becomes that of the pool's buffers. */
static gboolean
configure_pool(GstBufferPool *pool, GstQuery *query, GstCaps *caps, guint *size, guint min,
               guint max)
{
  GstStructure *config = gst_buffer_pool_get_config(pool);
  GstAllocator *allocator = NULL;
  GstAllocationParams params;

  gst_buffer_pool_config_set_params(config, caps, *size, min, max);
  if (gst_query_get_n_allocation_params(query) > 0) {
    gst_query_parse_nth_allocation_param(query, 0, &allocator, &params);
    gst_buffer_pool_config_set_allocator(config, allocator, &params);
    gst_clear_object(&allocator);
  }
  if (gst_query_find_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL))
    gst_buffer_pool_config_add_option(config, GST_BUFFER_POOL_OPTION_VIDEO_META);
  if (!gst_buffer_pool_set_config(pool, config)) {
    /* The pool changed what we asked for; its own way is fine if the size still is. */
    config = gst_buffer_pool_get_config(pool);
    if (!gst_buffer_pool_config_validate_params(config, caps, *size, min, max)) {
      gst_structure_free(config);
      return FALSE;
    }
    if (!gst_buffer_pool_set_config(pool, config))
      return FALSE;
  }
  config = gst_buffer_pool_get_config(pool);
  gst_buffer_pool_config_get_params(config, NULL, size, NULL, NULL);
  gst_structure_free(config);
  return TRUE;
}

static gboolean
decide_cuda_allocation(GstOpenSoraVaeDec *self, GstQuery *query)
{
  GError *error = NULL;

  if (gst_opensora_cuda_output_decide_allocation(&self->cuda, query, &error))
    return TRUE;
  gst_opensora_post_error(GST_ELEMENT(self), error);
  return FALSE;
}

static gboolean
gst_opensora_vae_dec_decide_allocation(GstBaseTransform *trans, GstQuery *query)
{
  g_autoptr(GstBufferPool) pool = NULL;
  guint size, min = 0, max = 0;
  gboolean update;
  GstVideoInfo info;
  GstCaps *caps;

  gst_query_parse_allocation(query, &caps, NULL);
  if (!caps || !gst_video_info_from_caps(&info, caps))
    return FALSE;
  if (gst_opensora_cuda_in_caps(caps, 0))
    return decide_cuda_allocation(GST_OPENSORA_VAE_DEC(trans), query);

  size = (guint) GST_VIDEO_INFO_SIZE(&info);
  update = gst_query_get_n_allocation_pools(query) > 0;
  if (update) {
    guint wanted;

    gst_query_parse_nth_allocation_pool(query, 0, &pool, &wanted, &min, &max);
    size = MAX(size, wanted);
  }
  if (pool && !configure_pool(pool, query, caps, &size, min, max))
    gst_clear_object(&pool);
  if (!pool) {
    pool = gst_video_buffer_pool_new();
    if (!configure_pool(pool, query, caps, &size, min, max))
      return FALSE;
  }
  if (update)
    gst_query_set_nth_allocation_pool(query, 0, pool, size, min, max);
  else
    gst_query_add_allocation_pool(query, pool, size, min, max);
  return TRUE;
}

typedef struct {
  GstOpenSoraProgress *progress;
  guint last;
} DecodeProgress;

/* Steps are percent here. */
static void
on_decode_progress(double fraction, gpointer user_data)
{
  DecodeProgress *decode = user_data;
  guint percent = (guint) (CLAMP(fraction, 0.0, 1.0) * 100.0);

  if (percent == decode->last)
    return;
  decode->last = percent;
  gst_opensora_progress_step(decode->progress, percent, 100, -1.0);
}

/* Of a clip that nobody wants the stream hears nothing, and those after it move up; whatever else
 * @ret was for is passed on. (takes @latent) */
static GstFlowReturn
skip_clip(GstOpenSoraVaeDec *self, GstBuffer *latent, GstFlowReturn ret)
{
  const gboolean skip = ret == GST_FLOW_FLUSHING && gst_opensora_ticket_is_over(ticket_of(latent));

  if (skip && GST_BUFFER_OFFSET_IS_VALID(latent) && GST_BUFFER_OFFSET_END_IS_VALID(latent))
    self->skipped += GST_BUFFER_OFFSET_END(latent) - GST_BUFFER_OFFSET(latent);
  gst_buffer_unref(latent);
  return skip ? GST_FLOW_OK : ret;
}

static GstFlowReturn
gst_opensora_vae_dec_submit(GstBaseTransform *trans, gboolean is_discont, GstBuffer *input)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);
  OsrDevice *device = osr_model_get_device(self->model.model);
  g_autoptr(GCancellable) cancellable = NULL;
  const GstStructure *clip;
  guint lead_in = 0;
  g_autoptr(OsrTensor) latent = NULL;
  GstOpenSoraProgress progress = { 0 };
  DecodeProgress decode = { &progress, 0 };
  GError *error = NULL;
  OsrVaeTiling tiling;
  GstFlowReturn ret;
  guint number = 0;
  OsrVae *vae;

  /* Negotiates where that is due, which has to be between two clips. */
  ret = GST_BASE_TRANSFORM_CLASS(gst_opensora_vae_dec_parent_class)
            ->submit_input_buffer(trans, is_discont, input);
  if (ret != GST_FLOW_OK)
    return ret;
  input = g_steal_pointer(&trans->queued_buf);
  clip = gst_opensora_clip_meta_get(input);
  if (clip) {
    gst_structure_get_uint(clip, "clip", &number);
    gst_structure_get_uint(clip, "extension", &progress.extension);
    gst_structure_get_uint(clip, "lead-in", &lead_in);
  }

  drop_clip(self);
  GST_OBJECT_LOCK(self);
  tiling = (OsrVaeTiling) self->tiling;
  GST_OBJECT_UNLOCK(self);

  cancellable = gst_opensora_interrupt_begin(&self->interrupt);
  gst_opensora_progress_start(&progress, GST_ELEMENT(self), device, "decode", "Decoding",
                              clip ? gst_structure_get_string(clip, "prompt") : NULL, number,
                              ticket_of(input), cancellable);
  vae = osr_model_get_vae_decoder(self->model.model, cancellable, &error);
  if (vae)
    latent = gst_opensora_buffer_get_tensor(input, 0, device,
                                            osr_model_get_dtype(self->model.model), &error);
  if (latent)
    self->video =
        osr_vae_decode(vae, latent, tiling, on_decode_progress, &decode, cancellable, &error);
  if (self->video && (self->video->dims[1] != GST_VIDEO_INFO_HEIGHT(&self->info) ||
                      self->video->dims[2] != GST_VIDEO_INFO_WIDTH(&self->info))) {
    g_set_error(&error, OSR_ERROR, OSR_ERROR_SHAPE,
                "the latent decodes to %" G_GINT64_FORMAT " x %" G_GINT64_FORMAT
                " pixels, its caps say %d x %d",
                self->video->dims[2], self->video->dims[1], GST_VIDEO_INFO_WIDTH(&self->info),
                GST_VIDEO_INFO_HEIGHT(&self->info));
    g_clear_pointer(&self->video, osr_tensor_unref);
  }
  if (self->video && lead_in >= self->video->dims[0]) {
    g_set_error(&error, OSR_ERROR, OSR_ERROR_SHAPE,
                "the latent decodes to %" G_GINT64_FORMAT " frames, its meta leaves out %u",
                self->video->dims[0], lead_in);
    g_clear_pointer(&self->video, osr_tensor_unref);
  }
  if (!self->video) {
    ret = gst_opensora_progress_fail(&progress, error);
    return skip_clip(self, input, ret);
  }
  gst_opensora_progress_complete(&progress);
  if (!gst_opensora_clip_meta_is_picture(clip) && !gst_opensora_ticket_deliver(ticket_of(input))) {
    g_clear_pointer(&self->video, osr_tensor_unref);
    return skip_clip(self, input, GST_FLOW_FLUSHING);
  }

  self->n_frames = (guint) self->video->dims[0];
  self->next_frame = self->lead_in = lead_in;
  self->latent = input;
  /* An extension is told by the tags of its clip. */
  if (clip && !progress.extension)
    gst_pad_push_event(GST_BASE_TRANSFORM_SRC_PAD(trans),
                       gst_event_new_tag(gst_opensora_clip_meta_to_tags(clip)));
  return GST_FLOW_OK;
}

static GstClockTime
frame_time(GstOpenSoraVaeDec *self, guint64 frame)
{
  return gst_util_uint64_scale(frame, (guint64) self->info.fps_d * GST_SECOND, self->info.fps_n);
}

/* The next frame into @buffer, in whichever memory that is. */
static gboolean
write_frame(GstOpenSoraVaeDec *self, GstBuffer *buffer, GError **error)
{
  GstVideoFrame frame;
  gboolean ok;

  if (self->in_cuda) {
    if (!gst_opensora_cuda_output_map(&self->cuda, &self->info, buffer, &frame, error))
      return FALSE;
    ok = gst_opensora_video_fill_device_frame(self->video, self->next_frame, &frame, error);
    return gst_opensora_cuda_output_unmap(&self->cuda, &frame, ok ? error : NULL) && ok;
  }
  if (!gst_video_frame_map(&frame, &self->info, buffer, GST_MAP_WRITE)) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_FAILED, "a video buffer is not writable");
    return FALSE;
  }
  ok = gst_opensora_video_fill_frame(self->video, self->next_frame, &frame, error);
  gst_video_frame_unmap(&frame);
  return ok;
}

/* Writes the next frame of the clip that @latent was decoded to. */
static GstFlowReturn
gst_opensora_vae_dec_transform(GstBaseTransform *trans, GstBuffer *latent, GstBuffer *buffer)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);
  GError *error = NULL;
  const guint frame = self->next_frame - self->lead_in;
  GstClockTime start;
  guint64 first;

  if (!write_frame(self, buffer, &error))
    return gst_opensora_post_error(GST_ELEMENT(self), error);

  /* From the number of the frame in the stream, so that rounding never adds up. */
  first = GST_BUFFER_OFFSET_IS_VALID(latent) ? GST_BUFFER_OFFSET(latent) : 0;
  start = GST_BUFFER_PTS_IS_VALID(latent) ? GST_BUFFER_PTS(latent) : frame_time(self, first);
  start -=
      MIN(start, frame_time(self, first) - frame_time(self, first - MIN(first, self->skipped)));
  first -= MIN(first, self->skipped);
  GST_BUFFER_PTS(buffer) = start + frame_time(self, first + frame) - frame_time(self, first);
  GST_BUFFER_DTS(buffer) = GST_CLOCK_TIME_NONE;
  GST_BUFFER_DURATION(buffer) = start + frame_time(self, first + frame + 1) -
                                frame_time(self, first) - GST_BUFFER_PTS(buffer);
  GST_BUFFER_OFFSET(buffer) = first + frame;
  GST_BUFFER_OFFSET_END(buffer) = first + frame + 1;
  /* A discontinuity of the clip is one before its first frame only. */
  if (frame > 0)
    GST_BUFFER_FLAG_UNSET(buffer, GST_BUFFER_FLAG_DISCONT);
  self->next_frame++;
  return GST_FLOW_OK;
}

static GstFlowReturn
gst_opensora_vae_dec_generate(GstBaseTransform *trans, GstBuffer **output)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);
  GstBuffer *buffer = NULL;
  GstFlowReturn ret;

  *output = NULL;
  if (!self->video || self->next_frame >= self->n_frames) {
    drop_clip(self);
    return GST_FLOW_OK;
  }
  /* Copies the clip's meta to the frame. */
  ret = GST_BASE_TRANSFORM_CLASS(gst_opensora_vae_dec_parent_class)
            ->prepare_output_buffer(trans, self->latent, &buffer);
  if (ret != GST_FLOW_OK)
    return ret;
  gst_opensora_clip_meta_remove_ticket(buffer);
  ret = gst_opensora_vae_dec_transform(trans, self->latent, buffer);
  if (ret != GST_FLOW_OK) {
    gst_buffer_unref(buffer);
    return ret;
  }
  *output = buffer;
  return GST_FLOW_OK;
}

/* FALSE while stopped. */
static gboolean
answer_decode_query(GstOpenSoraVaeDec *self, GstQuery *query)
{
  g_autoptr(OsrModel) model = gst_opensora_model_ref(&self->model, GST_ELEMENT(self));
  GstStructure *s = gst_query_writable_structure(query);
  g_autoptr(GError) error = NULL;
  g_autoptr(GstCaps) caps = NULL;

  if (!model || !gst_structure_get(s, "caps", GST_TYPE_CAPS, &caps, NULL))
    return FALSE;
  if (!check_memory(self, model, caps, &error))
    gst_structure_set(s, "reason", G_TYPE_STRING, error->message, NULL);
  return TRUE;
}

static gboolean
gst_opensora_vae_dec_query(GstBaseTransform *trans, GstPadDirection direction, GstQuery *query)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);
  g_autofree char *device = NULL;

  if (GST_QUERY_TYPE(query) == GST_QUERY_CUSTOM &&
      gst_structure_has_name(gst_query_get_structure(query), GST_OPENSORA_DECODE_QUERY))
    return answer_decode_query(self, query);
  if (GST_QUERY_TYPE(query) == GST_QUERY_CONTEXT) {
    GST_OBJECT_LOCK(self);
    device = g_strdup(self->model.device);
    GST_OBJECT_UNLOCK(self);
    if (gst_opensora_cuda_output_query(&self->cuda, device, query))
      return TRUE;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_opensora_vae_dec_parent_class)
      ->query(trans, direction, query);
}

static gboolean
gst_opensora_vae_dec_sink_event(GstBaseTransform *trans, GstEvent *event)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(trans);

  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_FLUSH_START:
    gst_opensora_interrupt_raise(&self->interrupt, GST_OPENSORA_FLUSHING);
    break;
  case GST_EVENT_FLUSH_STOP:
    gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_FLUSHING);
    drop_clip(self);
    self->skipped = 0;
    break;
  default:
    break;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_opensora_vae_dec_parent_class)->sink_event(trans, event);
}

static GstStateChangeReturn
gst_opensora_vae_dec_change_state(GstElement *element, GstStateChange transition)
{
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY)
    gst_opensora_interrupt_raise(&GST_OPENSORA_VAE_DEC(element)->interrupt, GST_OPENSORA_STOPPING);
  return GST_ELEMENT_CLASS(gst_opensora_vae_dec_parent_class)->change_state(element, transition);
}

static void
gst_opensora_vae_dec_finalize(GObject *object)
{
  GstOpenSoraVaeDec *self = GST_OPENSORA_VAE_DEC(object);

  gst_opensora_cuda_output_clear(&self->cuda);
  gst_opensora_model_clear(&self->model);
  gst_opensora_interrupt_clear(&self->interrupt);
  G_OBJECT_CLASS(gst_opensora_vae_dec_parent_class)->finalize(object);
}

static void
gst_opensora_vae_dec_class_init(GstOpenSoraVaeDecClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);
  GstBaseTransformClass *trans_class = GST_BASE_TRANSFORM_CLASS(klass);

  object_class->set_property = gst_opensora_vae_dec_set_property;
  object_class->get_property = gst_opensora_vae_dec_get_property;
  object_class->finalize = gst_opensora_vae_dec_finalize;

  gst_opensora_model_install_properties(object_class, PROP_MODEL);
  g_object_class_install_property(
      object_class, PROP_TILING,
      g_param_spec_flags("tiling", "Tiling",
                         "Decode in overlapping parts, which takes less memory and changes the "
                         "picture a little",
                         GST_TYPE_OPENSORA_TILING, 0,
                         G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING));

  gst_element_class_set_static_metadata(
      element_class, "Open-Sora VAE decoder", "Codec/Decoder/Video",
      "Decodes the latents of generated clips to video frames", "The gst-opensora authors");
  gst_element_class_add_static_pad_template(element_class, &sink_template);
  gst_element_class_add_static_pad_template(element_class, &src_template);

  element_class->change_state = gst_opensora_vae_dec_change_state;
  trans_class->start = gst_opensora_vae_dec_start;
  trans_class->stop = gst_opensora_vae_dec_stop;
  trans_class->transform_caps = gst_opensora_vae_dec_transform_caps;
  trans_class->fixate_caps = gst_opensora_vae_dec_fixate_caps;
  trans_class->set_caps = gst_opensora_vae_dec_set_caps;
  trans_class->get_unit_size = gst_opensora_vae_dec_get_unit_size;
  trans_class->propose_allocation = gst_opensora_vae_dec_propose_allocation;
  trans_class->decide_allocation = gst_opensora_vae_dec_decide_allocation;
  trans_class->query = gst_opensora_vae_dec_query;
  trans_class->sink_event = gst_opensora_vae_dec_sink_event;
  trans_class->submit_input_buffer = gst_opensora_vae_dec_submit;
  trans_class->generate_output = gst_opensora_vae_dec_generate;
  trans_class->transform = gst_opensora_vae_dec_transform;

  gst_type_mark_as_plugin_api(GST_TYPE_OPENSORA_TILING, 0);
}

static void
gst_opensora_vae_dec_init(GstOpenSoraVaeDec *self)
{
  gst_opensora_model_init(&self->model);
  gst_opensora_cuda_output_init(&self->cuda, GST_ELEMENT(self));
  gst_opensora_interrupt_init(&self->interrupt);
  gst_video_info_init(&self->info);
  gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), FALSE);
}
