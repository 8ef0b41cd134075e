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
collect_from_pads(GstOpenSoraReferences *self, GstElement *element, OsrModel *model, GError **error)
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
    self->latent[self->n] = gst_opensora_buffer_get_tensor(buffer, 0, osr_model_get_device(model),
                                                           osr_model_get_dtype(model), error);
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

/* Latent frames of video that a condition takes; 1: a picture. */
static guint
needed_latents(gint condition)
{
  switch (condition) {
  case OSR_CONDITION_V2V_HEAD:
  case OSR_CONDITION_V2V_TAIL:
    return SHORT_VIDEO;
  case OSR_CONDITION_V2V_HEAD_EASY:
  case OSR_CONDITION_V2V_TAIL_EASY:
    return LONG_VIDEO;
  default:
    return 1;
  }
}

static gboolean
is_tail(gint condition)
{
  return condition == OSR_CONDITION_I2V_TAIL || condition == OSR_CONDITION_V2V_TAIL ||
         condition == OSR_CONDITION_V2V_TAIL_EASY;
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

typedef struct {
  GstElement *element;
  OsrModel *model;
  gint condition;
  guint clip; /* its latent frames */
  const OsrSamplingParams *params;
} Files;

/* The video at @location, as much of it as is of use: its first frames or, with @last, its last
 * ones. With @alone and "auto" that is as many as a clip may go on after, and one latent frame
 * more than a picture has, to know it for a video. */
static OsrTensor *
load_video(const Files *files, const char *location, gboolean alone, gboolean last,
           GCancellable *cancellable, GError **error)
{
  const guint ratio = osr_model_get_dir(files->model)->vae.time_compression_ratio;
  const gboolean open = alone && files->condition == GST_OPENSORA_CONDITION_AUTO;
  const guint needed = needed_latents(files->condition);
  const guint most = open ? MAX(lead_in(LONG_VIDEO, files->clip), 2) : needed;
  OsrTensor *video = gst_opensora_video_load(
      location, files->params->width, files->params->height, (most - 1) * ratio + 1, last,
      osr_model_get_device(files->model), osr_model_get_dtype(files->model), cancellable, error);

  if (video && (video->dims[0] - 1) / ratio + 1 < needed) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "the reference \"%s\" has %" G_GINT64_FORMAT
                " frames, the condition \"%s\" needs %u",
                location, video->dims[0], gst_opensora_condition_nick(files->condition),
                (needed - 1) * ratio + 1);
    g_clear_pointer(&video, osr_tensor_unref);
  }
  return video;
}

/* The latent of that. */
static OsrTensor *
load_latent(const Files *files, const char *location, gboolean alone, gboolean last,
            GCancellable *cancellable, GError **error)
{
  const guint ratio = osr_model_get_dir(files->model)->vae.time_compression_ratio;
  OsrVae *vae = osr_model_get_vae_encoder(files->model, cancellable, error);
  g_autoptr(OsrTensor) video = NULL;
  g_autoptr(OsrTensor) used = NULL;
  guint latents;

  if (!vae)
    return NULL;
  video = load_video(files, location, alone, last, cancellable, error);
  if (!video)
    return NULL;
  latents = ((guint) video->dims[0] - 1) / ratio + 1;
  if (files->condition == GST_OPENSORA_CONDITION_AUTO) {
    latents = lead_in(latents, files->clip);
    if (latents == 1 && video->dims[0] > 1)
      warn_of_first_frame(files->element, ratio);
  }
  used = osr_tensor_view(
      video, 0, 4, (gint64[]){ (latents - 1) * ratio + 1, video->dims[1], video->dims[2], 3 });
  return osr_vae_encode(vae, used, OSR_VAE_TILING_OFF, NULL, NULL, cancellable, error);
}

/* The names in @locations, one or more; NULL with @error if there are too many. */
static GPtrArray *
split_locations(const char *locations, GError **error)
{
  g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
  g_auto(GStrv) list = g_strsplit(locations, ";", -1);

  for (guint i = 0; list[i]; i++)
    if (*g_strstrip(list[i]))
      g_ptr_array_add(names, g_strdup(list[i]));
  if (names->len > GST_OPENSORA_MAX_REFERENCES) {
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "\"%s\" names %u references: no condition takes more than %d", locations,
                names->len, GST_OPENSORA_MAX_REFERENCES);
    return NULL;
  }
  return g_steal_pointer(&names);
}

static gboolean
add_latent(GstOpenSoraReferences *self, OsrTensor *latent)
{
  if (latent)
    self->latent[self->n++] = latent;
  return latent != NULL;
}

/* What begins the clip is in the first file; the picture that ends it is the last frame of the last
 * one, and a video that ends it the end of the first. */
static gboolean
collect_from_files(GstOpenSoraReferences *self, const Files *files, const char *locations,
                   GCancellable *cancellable, GError **error)
{
  g_autoptr(GPtrArray) names = split_locations(locations, error);
  const char *first, *last;
  gboolean head, tail, alone;

  if (!names)
    return FALSE;
  if (names->len == 0)
    return TRUE;
  alone = names->len == 1;
  head = !is_tail(files->condition);
  tail = !head || files->condition == OSR_CONDITION_I2V_LOOP ||
         (files->condition == GST_OPENSORA_CONDITION_AUTO && !alone);
  first = g_ptr_array_index(names, 0);
  last = g_ptr_array_index(names, needed_latents(files->condition) == 1 ? names->len - 1 : 0);
  return (!head || add_latent(self, load_latent(files, first, alone, FALSE, cancellable, error))) &&
         (!tail || add_latent(self, load_latent(files, last, alone, TRUE, cancellable, error)));
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
  if (!collect_from_pads(self, element, model, error))
    return FALSE;
  if (self->n == 0 && locations &&
      !collect_from_files(self,
                          &(Files){ .element = element,
                                    .model = model,
                                    .condition = condition,
                                    .clip = clip,
                                    .params = params },
                          locations, cancellable, error))
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

  needed = needed / sizeof(float) * osr_dtype_size(osr_model_get_dtype(model));
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
