/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-opensoravaeenc
 * @title: opensoravaeenc
 * @short_description: Encodes pictures and video to latents
 *
 * Encodes every `num-frames` frames to one latent, a reference for #opensoradenoise. Frames of
 * any size are scaled to fill the clip's size and cropped at the centre. At the end of the
 * stream, of a segment and of frames of one kind, what is left becomes a clip of fewer frames
 * (1 or 4 k + 1; up to three frames are dropped).
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 filesrc location=first.png ! pngdec ! videoconvert ! opensoravaeenc !
 * denoise.reference_0 opensoratextsrc prompt="a red circle moving right on a blue background" !
 * opensoradenoise name=denoise ! opensoravaedec ! videoconvert ! autovideosink
 * ]|
 *
 * Since: 0.1
 */
#include <gst/base/gstbasetransform.h>

#include "gstopensorainterrupt.h"
#include "gstopensoravideo.h"

GST_DEBUG_CATEGORY_STATIC(gst_opensora_vae_enc_debug);
#define GST_CAT_DEFAULT gst_opensora_vae_enc_debug

#define DEFAULT_NUM_FRAMES 1

enum {
  PROP_0,
  PROP_MODEL, /* and the GST_OPENSORA_MODEL_N_PROPS - 1 ids after it */
  PROP_NUM_FRAMES = PROP_MODEL + GST_OPENSORA_MODEL_N_PROPS,
  PROP_SAMPLE,
  PROP_SEED,
};

#define GST_TYPE_OPENSORA_VAE_ENC (gst_opensora_vae_enc_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraVaeEnc, gst_opensora_vae_enc, GST, OPENSORA_VAE_ENC,
                     GstBaseTransform)

struct _GstOpenSoraVaeEnc {
  GstBaseTransform parent;

  GstOpenSoraModel model;
  guint num_frames;
  gboolean sample;
  guint64 seed;

  GstOpenSoraInterrupt interrupt;
  GstVideoInfo info;  /* of the input */
  gint width, height; /* of the latent, in pixels */
  GstOpenSoraScaler *scaler;
  OsrTensor *video;  /* [num_frames, H, W, 3] that is being filled, or NULL */
  guint n_frames;    /* in it */
  GstClockTime pts;  /* of the first of them */
  gint fps_n, fps_d; /* of the latent */
  guint clip;
  guint64 frames_out;
};

#define LATENT_FIELDS                                                                              \
  GST_OPENSORA_SIZE_FIELDS ", frames = (int) [ 1, 65536 ], framerate = (fraction) [ 0/1, MAX ]"

/* The formats that GstVideoConverter reads. */
static GstStaticPadTemplate sink_template =
    GST_STATIC_PAD_TEMPLATE("sink", GST_PAD_SINK, GST_PAD_ALWAYS,
                            GST_STATIC_CAPS(GST_VIDEO_CAPS_MAKE(GST_VIDEO_FORMATS_ALL)));

static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS,
                            GST_STATIC_CAPS(GST_OPENSORA_LATENT_CAPS ", " LATENT_FIELDS));

G_DEFINE_FINAL_TYPE(GstOpenSoraVaeEnc, gst_opensora_vae_enc, GST_TYPE_BASE_TRANSFORM)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(opensoravaeenc, "opensoravaeenc", GST_RANK_NONE,
                                      GST_TYPE_OPENSORA_VAE_ENC,
                                      GST_DEBUG_CATEGORY_INIT(gst_opensora_vae_enc_debug,
                                                              "opensoravaeenc", 0,
                                                              "Open-Sora VAE encoder"));

static void
drop_frames(GstOpenSoraVaeEnc *self)
{
  g_clear_pointer(&self->video, osr_tensor_unref);
  self->n_frames = 0;
}

static void
gst_opensora_vae_enc_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(object);

  if (gst_opensora_model_set_property(&self->model, GST_ELEMENT(self), id - PROP_MODEL, value))
    return;
  GST_OBJECT_LOCK(self);
  switch (id) {
  case PROP_NUM_FRAMES:
    self->num_frames = g_value_get_uint(value);
    break;
  case PROP_SAMPLE:
    self->sample = g_value_get_boolean(value);
    break;
  case PROP_SEED:
    self->seed = g_value_get_uint64(value);
    break;
  default:
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
  GST_OBJECT_UNLOCK(self);
}

static void
gst_opensora_vae_enc_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(object);

  if (gst_opensora_model_get_property(&self->model, GST_ELEMENT(self), id - PROP_MODEL, value))
    return;
  GST_OBJECT_LOCK(self);
  switch (id) {
  case PROP_NUM_FRAMES:
    g_value_set_uint(value, self->num_frames);
    break;
  case PROP_SAMPLE:
    g_value_set_boolean(value, self->sample);
    break;
  case PROP_SEED:
    g_value_set_uint64(value, self->seed);
    break;
  default:
    G_OBJECT_WARN_INVALID_PROPERTY_ID(object, id, pspec);
  }
  GST_OBJECT_UNLOCK(self);
}

static gboolean
gst_opensora_vae_enc_start(GstBaseTransform *trans)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(trans);
  guint num_frames, ratio;

  GST_OBJECT_LOCK(self);
  num_frames = self->num_frames;
  GST_OBJECT_UNLOCK(self);
  if (!gst_opensora_model_open(&self->model, GST_ELEMENT(self), GST_OPENSORA_VAE_FILES))
    return FALSE;
  ratio = osr_model_get_dir(self->model.model)->vae.time_compression_ratio;
  if ((num_frames - 1) % ratio != 0) {
    GST_ELEMENT_ERROR(
        self, RESOURCE, SETTINGS,
        ("num-frames is %u, but the model encodes 1 or %u k + 1 frames.", num_frames, ratio),
        (NULL));
    gst_opensora_model_close(&self->model, GST_ELEMENT(self));
    return FALSE;
  }
  self->clip = 0;
  self->frames_out = 0;
  gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_ANY_REASON);
  return TRUE;
}

static gboolean
gst_opensora_vae_enc_stop(GstBaseTransform *trans)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(trans);

  drop_frames(self);
  g_clear_pointer(&self->scaler, gst_opensora_scaler_free);
  gst_opensora_model_close(&self->model, GST_ELEMENT(self));
  return TRUE;
}

/* @caps with the frame rates of @from, on either side: rates are the same, but a picture
 * (0/1) may become a clip of any rate. (takes @caps) */
static GstCaps *
set_frame_rates(GstCaps *caps, GstPadDirection direction, const GstCaps *from)
{
  GstCaps *result = gst_caps_new_empty();

  for (guint i = 0; i < gst_caps_get_size(from); i++) {
    const GValue *rate = gst_structure_get_value(gst_caps_get_structure(from, i), "framerate");
    GstCaps *part = gst_caps_copy(caps);

    if (rate && (direction == GST_PAD_SRC || !GST_VALUE_HOLDS_FRACTION(rate) ||
                 gst_value_get_fraction_numerator(rate) > 0))
      gst_caps_set_value(part, "framerate", rate);
    result = gst_caps_merge(result, part);
  }
  if (direction == GST_PAD_SRC && !gst_caps_is_empty(result)) {
    gst_caps_set_simple(caps = gst_caps_make_writable(caps), "framerate", GST_TYPE_FRACTION, 0, 1,
                        NULL);
    return gst_caps_merge(result, caps);
  }
  gst_caps_unref(caps);
  return result;
}

/* Any size becomes any size. */
static GstCaps *
gst_opensora_vae_enc_transform_caps(GstBaseTransform *trans, GstPadDirection direction,
                                    GstCaps *caps, GstCaps *filter)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(trans);
  g_autoptr(OsrModel) model = gst_opensora_model_ref(&self->model, GST_ELEMENT(self));
  GstCaps *other =
      gst_static_pad_template_get_caps(direction == GST_PAD_SINK ? &src_template : &sink_template);

  if (direction == GST_PAD_SINK) {
    other = gst_caps_make_writable(other);
    if (model) {
      const OsrModelDir *dir = osr_model_get_dir(model);

      gst_caps_set_simple(other, "family", G_TYPE_STRING, dir->family, "channels", G_TYPE_INT,
                          (gint) dir->vae.latent_channels, NULL);
    }
    GST_OBJECT_LOCK(self);
    gst_caps_set_simple(other, "frames", G_TYPE_INT, (gint) self->num_frames, NULL);
    GST_OBJECT_UNLOCK(self);
  }
  other = set_frame_rates(other, direction, caps);
  return gst_opensora_filter_caps(other, filter);
}

/* Nearest to the size of the input, and the model's frame rate for pictures, if nobody
 * downstream has a wish. */
static GstCaps *
gst_opensora_vae_enc_fixate_caps(GstBaseTransform *trans, GstPadDirection direction, GstCaps *caps,
                                 GstCaps *othercaps)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(trans);

  othercaps = gst_caps_make_writable(gst_caps_truncate(othercaps));
  if (direction == GST_PAD_SINK) {
    const GstStructure *in = gst_caps_get_structure(caps, 0);
    GstStructure *out = gst_caps_get_structure(othercaps, 0);
    gint width = 0, height = 0;

    gst_structure_get_int(in, "width", &width);
    gst_structure_get_int(in, "height", &height);
    gst_structure_fixate_field_nearest_int(out, "width", width);
    gst_structure_fixate_field_nearest_int(out, "height", height);
    if (gst_structure_has_field(out, "framerate"))
      gst_structure_fixate_field_nearest_fraction(
          out, "framerate", (gint) osr_model_get_dir(self->model.model)->fps, 1);
  }
  return gst_caps_fixate(othercaps);
}

/* Tells those after us that the next latent has fewer frames than the caps say. */
static void
announce_frames(GstOpenSoraVaeEnc *self, guint frames)
{
  GstPad *src = GST_BASE_TRANSFORM_SRC_PAD(self);
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(src);

  if (!caps)
    return;
  caps = gst_caps_make_writable(caps);
  gst_caps_set_simple(caps, "frames", G_TYPE_INT, (gint) frames, NULL);
  /* Marks the pad for negotiation too, which brings the old caps back. */
  gst_base_transform_update_src_caps(GST_BASE_TRANSFORM(self), caps);
}

static GstClockTime
frame_time(GstOpenSoraVaeEnc *self, guint64 frame)
{
  return gst_util_uint64_scale(frame, (guint64) self->fps_d * GST_SECOND, (guint64) self->fps_n);
}

/* The latent of the frames collected so far; NULL with *ret if that fails. */
static GstBuffer *
encode_clip(GstOpenSoraVaeEnc *self, GstFlowReturn *ret)
{
  OsrDevice *device = osr_model_get_device(self->model.model);
  const guint ratio = osr_model_get_dir(self->model.model)->vae.time_compression_ratio;
  const guint frames = (self->n_frames - 1) / ratio * ratio + 1;
  g_autoptr(GCancellable) cancellable = gst_opensora_interrupt_begin(&self->interrupt);
  g_autoptr(OsrTensor) latent = NULL;
  GstOpenSoraProgress progress = { 0 };
  GError *error = NULL;
  GstBuffer *output;
  gboolean sample;
  guint64 seed;
  OsrVae *vae;

  GST_OBJECT_LOCK(self);
  sample = self->sample;
  seed = self->seed;
  GST_OBJECT_UNLOCK(self);

  gst_opensora_progress_start(&progress, GST_ELEMENT(self), device, "encode", "Encoding", NULL,
                              self->clip, NULL, NULL);
  vae = osr_model_get_vae_encoder(self->model.model, cancellable, &error);
  if (vae) {
    const gint64 dims[4] = { frames, self->height, self->width, 3 };
    g_autoptr(OsrTensor) video = osr_tensor_view(self->video, 0, 4, dims);

    latent = osr_vae_encode(vae, video, OSR_VAE_TILING_OFF, sample ? &seed : NULL, NULL,
                            cancellable, &error);
  }
  if (frames < self->video->dims[0] && latent)
    announce_frames(self, frames);
  drop_frames(self);
  if (!latent) {
    *ret = gst_opensora_progress_fail(&progress, error);
    return NULL;
  }
  gst_opensora_progress_complete(&progress);
  *ret = GST_FLOW_OK;
  output = gst_opensora_buffer_new(&latent, 1);
  GST_BUFFER_PTS(output) = self->pts;
  GST_BUFFER_OFFSET(output) = self->frames_out;
  if (self->fps_n > 0)
    GST_BUFFER_DURATION(output) =
        frame_time(self, self->frames_out + frames) - frame_time(self, self->frames_out);
  self->frames_out += frames;
  GST_BUFFER_OFFSET_END(output) = self->frames_out;
  self->clip++;
  return output;
}

/* Encodes and sends what has been collected, before something else begins. */
static void
drain(GstOpenSoraVaeEnc *self)
{
  GstFlowReturn ret;
  GstBuffer *rest;

  if (self->n_frames == 0)
    return;
  rest = encode_clip(self, &ret);
  if (rest)
    ret = gst_pad_push(GST_BASE_TRANSFORM_SRC_PAD(self), rest);
  GST_DEBUG_OBJECT(self, "drained: %s", gst_flow_get_name(ret));
}

static gboolean
gst_opensora_vae_enc_set_caps(GstBaseTransform *trans, GstCaps *incaps, GstCaps *outcaps)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(trans);
  const GstStructure *out = gst_caps_get_structure(outcaps, 0);

  drain(self);
  g_clear_pointer(&self->scaler, gst_opensora_scaler_free);
  if (!gst_video_info_from_caps(&self->info, incaps) ||
      !gst_structure_get_int(out, "width", &self->width) ||
      !gst_structure_get_int(out, "height", &self->height) ||
      !gst_structure_get_fraction(out, "framerate", &self->fps_n, &self->fps_d))
    return FALSE;
  self->scaler = gst_opensora_scaler_new(&self->info, (guint) self->width, (guint) self->height);
  return self->scaler != NULL;
}

static gboolean
gst_opensora_vae_enc_propose_allocation(GstBaseTransform *trans, GstQuery *decide_query,
                                        GstQuery *query)
{
  gst_query_add_allocation_meta(query, GST_VIDEO_META_API_TYPE, NULL);
  return TRUE;
}

static GstFlowReturn
gst_opensora_vae_enc_submit(GstBaseTransform *trans, gboolean is_discont, GstBuffer *input)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(trans);
  OsrDevice *device = osr_model_get_device(self->model.model);
  GError *error = NULL;
  GstVideoFrame frame;
  gboolean ok = FALSE;
  GstFlowReturn ret;
  guint num_frames;

  /* Negotiates where that is due. */
  ret = GST_BASE_TRANSFORM_CLASS(gst_opensora_vae_enc_parent_class)
            ->submit_input_buffer(trans, is_discont, input);
  if (ret != GST_FLOW_OK)
    return ret;
  input = g_steal_pointer(&trans->queued_buf);

  if (!self->video) {
    GST_OBJECT_LOCK(self);
    num_frames = self->num_frames;
    GST_OBJECT_UNLOCK(self);
    self->video = osr_tensor_make(device, osr_model_get_dtype(self->model.model), &error,
                                  (int) num_frames, (int) self->height, (int) self->width, 3, -1);
    self->n_frames = 0;
    self->pts = GST_BUFFER_PTS(input);
  }
  if (self->video) {
    if (gst_video_frame_map(&frame, &self->info, input, GST_MAP_READ)) {
      ok = gst_opensora_scaler_convert(self->scaler, &frame, self->video, self->n_frames, &error);
      gst_video_frame_unmap(&frame);
    } else {
      g_set_error_literal(&error, OSR_ERROR, OSR_ERROR_FAILED, "cannot read a video buffer");
    }
  }
  gst_buffer_unref(input);
  if (!ok)
    return gst_opensora_post_error(GST_ELEMENT(self), error);
  self->n_frames++;
  return GST_FLOW_OK;
}

static GstFlowReturn
gst_opensora_vae_enc_generate(GstBaseTransform *trans, GstBuffer **output)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(trans);
  GstFlowReturn ret = GST_FLOW_OK;

  *output = NULL;
  if (self->video && self->n_frames == self->video->dims[0])
    *output = encode_clip(self, &ret);
  return ret;
}

static gboolean
gst_opensora_vae_enc_sink_event(GstBaseTransform *trans, GstEvent *event)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(trans);

  switch (GST_EVENT_TYPE(event)) {
  case GST_EVENT_FLUSH_START:
    gst_opensora_interrupt_raise(&self->interrupt, GST_OPENSORA_FLUSHING);
    break;
  case GST_EVENT_FLUSH_STOP:
    gst_opensora_interrupt_lower(&self->interrupt, GST_OPENSORA_FLUSHING);
    drop_frames(self);
    break;
  case GST_EVENT_SEGMENT:
  case GST_EVENT_EOS:
    drain(self);
    break;
  default:
    break;
  }
  return GST_BASE_TRANSFORM_CLASS(gst_opensora_vae_enc_parent_class)->sink_event(trans, event);
}

static GstStateChangeReturn
gst_opensora_vae_enc_change_state(GstElement *element, GstStateChange transition)
{
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY)
    gst_opensora_interrupt_raise(&GST_OPENSORA_VAE_ENC(element)->interrupt, GST_OPENSORA_STOPPING);
  return GST_ELEMENT_CLASS(gst_opensora_vae_enc_parent_class)->change_state(element, transition);
}

static void
gst_opensora_vae_enc_finalize(GObject *object)
{
  GstOpenSoraVaeEnc *self = GST_OPENSORA_VAE_ENC(object);

  gst_opensora_model_clear(&self->model);
  gst_opensora_interrupt_clear(&self->interrupt);
  G_OBJECT_CLASS(gst_opensora_vae_enc_parent_class)->finalize(object);
}

static void
gst_opensora_vae_enc_class_init(GstOpenSoraVaeEncClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);
  GstBaseTransformClass *trans_class = GST_BASE_TRANSFORM_CLASS(klass);

  object_class->set_property = gst_opensora_vae_enc_set_property;
  object_class->get_property = gst_opensora_vae_enc_get_property;
  object_class->finalize = gst_opensora_vae_enc_finalize;

  gst_opensora_model_install_properties(object_class, PROP_MODEL);
  g_object_class_install_property(
      object_class, PROP_NUM_FRAMES,
      g_param_spec_uint("num-frames", "Number of frames",
                        "Frames that make one latent: 1 (pictures) or 4 k + 1", 1, 65533,
                        DEFAULT_NUM_FRAMES,
                        G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
  g_object_class_install_property(
      object_class, PROP_SAMPLE,
      g_param_spec_boolean(
          "sample", "Sample", "Draw the latent from its distribution instead of taking the mean",
          FALSE, G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING));
  g_object_class_install_property(
      object_class, PROP_SEED,
      g_param_spec_uint64("seed", "Seed", "Seed of the draw, with sample", 0, G_MAXUINT64, 42,
                          G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING));

  gst_element_class_set_static_metadata(
      element_class, "Open-Sora VAE encoder", "Codec/Encoder/Video",
      "Encodes pictures and video to latents for generation", "The gst-opensora authors");
  gst_element_class_add_static_pad_template(element_class, &sink_template);
  gst_element_class_add_static_pad_template(element_class, &src_template);

  element_class->change_state = gst_opensora_vae_enc_change_state;
  trans_class->start = gst_opensora_vae_enc_start;
  trans_class->stop = gst_opensora_vae_enc_stop;
  trans_class->transform_caps = gst_opensora_vae_enc_transform_caps;
  trans_class->fixate_caps = gst_opensora_vae_enc_fixate_caps;
  trans_class->set_caps = gst_opensora_vae_enc_set_caps;
  trans_class->propose_allocation = gst_opensora_vae_enc_propose_allocation;
  trans_class->sink_event = gst_opensora_vae_enc_sink_event;
  trans_class->submit_input_buffer = gst_opensora_vae_enc_submit;
  trans_class->generate_output = gst_opensora_vae_enc_generate;
}

static void
gst_opensora_vae_enc_init(GstOpenSoraVaeEnc *self)
{
  gst_opensora_model_init(&self->model);
  self->num_frames = DEFAULT_NUM_FRAMES;
  self->seed = 42;
  gst_opensora_interrupt_init(&self->interrupt);
  gst_video_info_init(&self->info);
  /* The base class takes an element without transform() for a passthrough. */
  gst_base_transform_set_passthrough(GST_BASE_TRANSFORM(self), FALSE);
  gst_base_transform_set_qos_enabled(GST_BASE_TRANSFORM(self), FALSE);
}
