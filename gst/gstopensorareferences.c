/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensorareferences.h"

#include <stdio.h>

#include "gstopensorasampling.h"
#include "gstopensoravideo.h"

#define GST_CAT_DEFAULT gst_opensora_debug

/* Latent frames that the conditions take from a video: v2v-*-easy and v2v-*. */
#define LONG_VIDEO 17
#define SHORT_VIDEO 9

/* The pad */

struct _GstOpenSoraReferencePad {
  GstAggregatorPad parent;

  GstBuffer *latent; /* the last that came; object lock */
};

G_DEFINE_FINAL_TYPE(GstOpenSoraReferencePad, gst_opensora_reference_pad, GST_TYPE_AGGREGATOR_PAD)

/* What is replaced may be the last reference to a tensor: it goes without the lock. */
static void
remember(GstOpenSoraReferencePad *self, GstBuffer *latent)
{
  GstBuffer *old;

  GST_OBJECT_LOCK(self);
  old = self->latent;
  self->latent = latent;
  GST_OBJECT_UNLOCK(self);
  if (old)
    gst_buffer_unref(old);
}

void
gst_opensora_reference_pad_forget(GstOpenSoraReferencePad *self)
{
  remember(self, NULL);
}

/* The latent for the next clip, NULL if none ever came. (transfer full) */
static GstBuffer *
next_latent(GstOpenSoraReferencePad *self)
{
  GstBuffer *buffer = gst_aggregator_pad_pop_buffer(GST_AGGREGATOR_PAD(self));

  if (buffer) {
    remember(self, gst_buffer_ref(buffer));
    return buffer;
  }
  GST_OBJECT_LOCK(self);
  buffer = self->latent ? gst_buffer_ref(self->latent) : NULL;
  GST_OBJECT_UNLOCK(self);
  return buffer;
}

static GstFlowReturn
gst_opensora_reference_pad_flush(GstAggregatorPad *pad, GstAggregator *aggregator)
{
  gst_opensora_reference_pad_forget(GST_OPENSORA_REFERENCE_PAD(pad));
  return GST_FLOW_OK;
}

static void
gst_opensora_reference_pad_finalize(GObject *object)
{
  gst_clear_buffer(&GST_OPENSORA_REFERENCE_PAD(object)->latent);
  G_OBJECT_CLASS(gst_opensora_reference_pad_parent_class)->finalize(object);
}

static void
gst_opensora_reference_pad_class_init(GstOpenSoraReferencePadClass *klass)
{
  G_OBJECT_CLASS(klass)->finalize = gst_opensora_reference_pad_finalize;
  GST_AGGREGATOR_PAD_CLASS(klass)->flush = gst_opensora_reference_pad_flush;
}

static void
gst_opensora_reference_pad_init(GstOpenSoraReferencePad *self)
{
}

/* From pads */

void
gst_opensora_references_clear(GstOpenSoraReferences *self)
{
  for (guint i = 0; i < self->n; i++)
    osr_tensor_unref(self->latent[i]);
  self->n = 0;
}

static guint
pad_number(gconstpointer pad)
{
  guint n = 0;

  sscanf(GST_OBJECT_NAME(pad), "reference_%u", &n);
  return n;
}

static gint
compare_pads(gconstpointer a, gconstpointer b)
{
  const guint n = pad_number(*(const gpointer *) a), m = pad_number(*(const gpointer *) b);

  return (n > m) - (n < m);
}

static gboolean
collect_from_pads(GstOpenSoraReferences *self, GstElement *element, OsrDevice *device,
                  GError **error)
{
  g_autoptr(GPtrArray) pads = g_ptr_array_new_with_free_func(gst_object_unref);

  GST_OBJECT_LOCK(element);
  for (GList *l = element->sinkpads; l; l = l->next)
    if (GST_IS_OPENSORA_REFERENCE_PAD(l->data))
      g_ptr_array_add(pads, gst_object_ref(l->data));
  GST_OBJECT_UNLOCK(element);
  g_ptr_array_sort(pads, compare_pads);

  for (guint i = 0; i < pads->len && self->n < GST_OPENSORA_MAX_REFERENCES; i++) {
    g_autoptr(GstBuffer) buffer = next_latent(g_ptr_array_index(pads, i));

    if (!buffer)
      continue;
    self->latent[self->n] =
        gst_opensora_buffer_get_tensor(buffer, 0, device, osr_device_get_dtype(device), error);
    if (!self->latent[self->n])
      return FALSE;
    self->n++;
  }
  self->from_pads = self->n > 0;
  return TRUE;
}

/* From files */

/* How much of a video of @latents latent frames a clip of @clip can go on after: as much as
 * there is a condition for that leaves something to make. */
static guint
lead_in(guint latents, guint clip)
{
  if (latents >= LONG_VIDEO && clip > LONG_VIDEO)
    return LONG_VIDEO;
  return latents >= SHORT_VIDEO && clip > SHORT_VIDEO ? SHORT_VIDEO : 1;
}

/* Latent frames of a file that are of use; with "auto" as many as a video may need, and one
 * more than a picture has, to know it for a video. */
static guint
wanted_latents(gint condition, guint n_files, guint clip)
{
  if (condition >= OSR_CONDITION_V2V_HEAD)
    return LONG_VIDEO;
  if (condition != GST_OPENSORA_CONDITION_AUTO || n_files > 1)
    return 1;
  return MAX(lead_in(LONG_VIDEO, clip), 2);
}

static void
warn_of_first_frame(GstElement *element, guint ratio)
{
  GST_ELEMENT_WARNING(
      element, RESOURCE, SETTINGS,
      ("Only the first frame of the reference video is used: a clip that goes on after a video "
       "needs at least %u frames of it, and has to be longer than they are.",
       (SHORT_VIDEO - 1) * ratio + 1),
      (NULL));
}

/* The latent of the picture or video at @location. */
static OsrTensor *
load_latent(const char *location, GstElement *element, OsrModel *model, gint condition,
            guint n_files, guint clip, const OsrSamplingParams *params, GCancellable *cancellable,
            GError **error)
{
  const guint ratio = osr_model_get_dir(model)->vae.time_compression_ratio;
  const guint most = wanted_latents(condition, n_files, clip);
  OsrVae *vae = osr_model_get_vae_encoder(model, cancellable, error);
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(OsrTensor) used = NULL;
  guint latents;

  if (!vae)
    return NULL;
  video = gst_opensora_video_load(location, params->width, params->height, (most - 1) * ratio + 1,
                                  osr_model_get_device(model), cancellable, error);
  if (!video)
    return NULL;
  latents = ((guint) video->dims[0] - 1) / ratio + 1;
  if (condition == GST_OPENSORA_CONDITION_AUTO) {
    latents = lead_in(latents, clip);
    if (latents == 1 && video->dims[0] > 1)
      warn_of_first_frame(element, ratio);
  }
  used = osr_tensor_view(
      video, 0, 4, (gint64[]){ (latents - 1) * ratio + 1, video->dims[1], video->dims[2], 3 });
  return osr_vae_encode(vae, used, OSR_VAE_TILING_OFF, NULL, NULL, cancellable, error);
}

static gboolean
collect_from_files(GstOpenSoraReferences *self, GstElement *element, OsrModel *model,
                   gint condition, const char *locations, guint clip,
                   const OsrSamplingParams *params, GCancellable *cancellable, GError **error)
{
  g_auto(GStrv) list = g_strsplit(locations, ";", GST_OPENSORA_MAX_REFERENCES);
  guint n_files = 0;

  for (guint i = 0; list[i]; i++)
    n_files += *g_strstrip(list[i]) != '\0';
  for (guint i = 0; list[i]; i++) {
    if (!*list[i])
      continue;
    self->latent[self->n] =
        load_latent(list[i], element, model, condition, n_files, clip, params, cancellable, error);
    if (!self->latent[self->n])
      return FALSE;
    self->n++;
  }
  return TRUE;
}

/* Both */

static OsrCondition
choose_condition(const GstOpenSoraReferences *self, guint clip)
{
  if (self->n == 0)
    return OSR_CONDITION_T2V;
  if (self->n == 2)
    return OSR_CONDITION_I2V_LOOP;
  switch (lead_in((guint) self->latent[0]->dims[0], clip)) {
  case LONG_VIDEO:
    return OSR_CONDITION_V2V_HEAD_EASY;
  case SHORT_VIDEO:
    return OSR_CONDITION_V2V_HEAD;
  default:
    return OSR_CONDITION_I2V_HEAD;
  }
}

gboolean
gst_opensora_references_collect(GstOpenSoraReferences *self, GstElement *element, OsrModel *model,
                                gint condition, const char *locations,
                                const OsrSamplingParams *params, GCancellable *cancellable,
                                GError **error)
{
  const guint ratio = osr_model_get_dir(model)->vae.time_compression_ratio;
  const guint clip = (params->num_frames - 1) / ratio + 1;

  *self = (GstOpenSoraReferences){ .condition = OSR_CONDITION_T2V };
  if (condition == OSR_CONDITION_T2V)
    return TRUE;
  if (!collect_from_pads(self, element, osr_model_get_device(model), error))
    return FALSE;
  if (self->n == 0 && locations &&
      !collect_from_files(self, element, model, condition, locations, clip, params, cancellable,
                          error))
    return FALSE;
  if (condition == GST_OPENSORA_CONDITION_AUTO) {
    self->condition = choose_condition(self, clip);
    if (self->from_pads && self->condition == OSR_CONDITION_I2V_HEAD &&
        self->latent[0]->dims[0] > 1)
      warn_of_first_frame(element, ratio);
    return TRUE;
  }
  self->condition = (OsrCondition) condition;
  if (self->n == 0) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "the condition \"%s\" needs a reference and there is none: link opensoravaeenc to "
                "the pad reference_%%u, or name a file with \"reference\" of opensoratextsrc "
                "(\"image\" of opensorasrc) or in the column \"ref\" of a prompt file",
                gst_opensora_condition_nick(condition));
    return FALSE;
  }
  return TRUE;
}

/* Going on */

guint
gst_opensora_references_lead_in(guint num_frames, guint ratio, OsrCondition *condition)
{
  const gboolean video = (num_frames - 1) / ratio + 1 > SHORT_VIDEO;

  *condition = video ? OSR_CONDITION_V2V_HEAD : OSR_CONDITION_I2V_HEAD;
  return video ? (SHORT_VIDEO - 1) * ratio + 1 : 1;
}

gboolean
gst_opensora_references_check_extend(const OsrModelDir *dir, guint frames, GError **error)
{
  if (!dir->mmdit.cond_embed) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
                "\"extend\" is not possible: %s takes no references to go on from", dir->name);
    return FALSE;
  }
  if (frames == 1) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                        "\"extend\" is not possible with one frame: a clip has to be longer to go "
                        "on");
    return FALSE;
  }
  return TRUE;
}

/* Tiles where the whole does not fit, as whoever decodes it for the viewer has to do then. */
static OsrVaeTiling
choose_tiling(OsrModel *model, const OsrTensor *latent)
{
  OsrDevice *device = osr_model_get_device(model);
  guint64 needed = osr_vae_decode_memory(&osr_model_get_dir(model)->vae, (guint) latent->dims[0],
                                         (guint) latent->dims[1], (guint) latent->dims[2]);
  guint64 available;

  needed = needed / sizeof(float) * osr_dtype_size(osr_device_get_dtype(device));
  return gst_opensora_get_available_memory(device, &available) && needed > available
             ? OSR_VAE_TILING_SPATIAL | OSR_VAE_TILING_TEMPORAL
             : OSR_VAE_TILING_OFF;
}

gboolean
gst_opensora_references_continue(GstOpenSoraReferences *self, GstElement *element, OsrModel *model,
                                 OsrTensor *latent, GCancellable *cancellable, GError **error)
{
  const guint ratio = osr_model_get_dir(model)->vae.time_compression_ratio;
  const guint frames = ((guint) latent->dims[0] - 1) * ratio + 1;
  const OsrVaeTiling tiling = choose_tiling(model, latent);
  OsrVae *decoder = osr_model_get_vae_decoder(model, cancellable, error);
  OsrVae *encoder = decoder ? osr_model_get_vae_encoder(model, cancellable, error) : NULL;
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(OsrTensor) end = NULL;
  gint64 lead_in, frame;

  *self = (GstOpenSoraReferences){ .from_pads = TRUE };
  lead_in = gst_opensora_references_lead_in(frames, ratio, &self->condition);
  if (!encoder)
    return FALSE;
  GST_DEBUG_OBJECT(element, "going on after %" G_GINT64_FORMAT " frames%s", lead_in,
                   tiling ? ", decoded in tiles" : "");
  video = osr_vae_decode(decoder, latent, tiling, NULL, NULL, cancellable, error);
  if (!video)
    return FALSE;
  frame = video->dims[1] * video->dims[2] * 3;
  end = osr_tensor_view(video, (video->dims[0] - lead_in) * frame, 4,
                        (gint64[]){ lead_in, video->dims[1], video->dims[2], 3 });
  self->latent[0] = osr_vae_encode(encoder, end, tiling, NULL, NULL, cancellable, error);
  self->n = self->latent[0] ? 1 : 0;
  return self->n == 1;
}
