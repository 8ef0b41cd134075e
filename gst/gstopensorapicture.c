/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensorapicture.h"

#include <math.h>

#include "gstopensoraclipmeta.h"

#define GST_CAT_DEFAULT gst_opensora_debug

/* The types of the elements inside; their files define them. */
GType gst_opensora_denoise_get_type(void);
GType gst_opensora_vae_dec_get_type(void);
GType gst_opensora_vae_enc_get_type(void);

/* What the shape of the picture is found with. */
typedef struct {
  GstElement *denoise; /* of the clip; borrowed, it lives as long as the bin that both are in */
  char *resolution;    /* of the model of pictures, by name */
} Shape;

static void
shape_free(gpointer data)
{
  Shape *shape = data;

  g_free(shape->resolution);
  g_free(shape);
}

/* The name of the clip's shape: as it was asked for, else as its size is going to be. NULL if
 * that is not known. (transfer full) */
static char *
get_aspect_ratio(const Shape *shape, GstPad *latents)
{
  g_autoptr(GstCaps) caps = NULL;
  gint width = 0, height = 0;
  char *name;

  g_object_get(shape->denoise, "aspect-ratio", &name, NULL);
  if (name)
    return name;
  caps = gst_pad_peer_query_caps(latents, NULL);
  if (gst_caps_is_any(caps) || gst_caps_is_empty(caps) ||
      !gst_structure_get_int(gst_caps_get_structure(caps, 0), "width", &width) ||
      !gst_structure_get_int(gst_caps_get_structure(caps, 0), "height", &height))
    return NULL;
  return g_strdup(osr_aspect_nearest((guint) width, (guint) height));
}

/* Sets the size of the next pictures. One that the table does not have is left to the model. */
static void
choose_size(GstElement *picture_denoise, const Shape *shape, GstPad *latents)
{
  g_autofree char *ratio = get_aspect_ratio(shape, latents);
  guint width, height;

  if (!ratio || !osr_aspect_picture_size(shape->resolution, ratio, &width, &height, NULL))
    return;
  GST_DEBUG_OBJECT(picture_denoise, "pictures of %u x %u for clips of %s", width, height, ratio);
  g_object_set(picture_denoise, "width", width, "height", height, NULL);
}

/* The conditioning's caps come before anything is negotiated for the picture. */
static GstPadProbeReturn
on_conditioning(GstPad *pad, GstPadProbeInfo *info, gpointer user_data)
{
  if (GST_PAD_PROBE_INFO_TYPE(info) & GST_PAD_PROBE_TYPE_BUFFER) {
    info->data = gst_opensora_clip_meta_for_picture(GST_PAD_PROBE_INFO_BUFFER(info));
    return GST_PAD_PROBE_OK;
  }
  if (GST_EVENT_TYPE(GST_PAD_PROBE_INFO_EVENT(info)) == GST_EVENT_CAPS) {
    g_autoptr(GstElement) denoise = gst_pad_get_parent_element(pad);
    g_autoptr(GstObject) bin = gst_object_get_parent(GST_OBJECT(denoise));
    g_autoptr(GstPad) latents = gst_element_get_static_pad(GST_ELEMENT(bin), "src");

    choose_size(denoise, user_data, latents);
  }
  return GST_PAD_PROBE_OK;
}

static GstElement *
add_child(GstElement *bin, GType type, const char *name)
{
  GstElement *element = g_object_new(type, "name", name, NULL);

  gst_bin_add(GST_BIN(bin), element);
  return element;
}

static void
follow(GstElement *element, GstElement *of, const char *const *properties)
{
  for (guint i = 0; properties[i]; i++)
    g_object_bind_property(of, properties[i], element, properties[i], G_BINDING_SYNC_CREATE);
}

static void
add_ghost_pad(GstElement *bin, GstElement *element, const char *name)
{
  g_autoptr(GstPad) pad = gst_element_get_static_pad(element, name);

  gst_element_add_pad(bin, gst_ghost_pad_new(name, pad));
}

GstElement *
gst_opensora_picture_new(const char *location, GstElement *denoise, GstElement *decode,
                         GError **error)
{
  static const char *const common[] = { "device", "memory-limit", NULL };
  static const char *const denoising[] = { "steps", NULL };
  static const char *const decoding[] = { "tiling", NULL };
  static const char *const encoding[] = { "model-location", NULL };
  const gboolean prefixed = g_str_has_prefix(location, OSR_MODEL_DIR_IMAGE);
  g_autofree char *model = g_strconcat(prefixed ? "" : OSR_MODEL_DIR_IMAGE, location, NULL);
  g_autoptr(OsrModelDir) dir = osr_model_dir_open(model, error);
  /* As in upstream's PNG file: I420 would lose colour. */
  g_autoptr(GstCaps) rgb = gst_caps_from_string("video/x-raw, format = RGB");
  GstElement *bin, *picture, *video, *latent;
  g_autoptr(GstPad) sink = NULL;
  Shape *shape;

  if (!dir)
    return NULL;
  bin = gst_bin_new("picture");
  picture = add_child(bin, gst_opensora_denoise_get_type(), "denoise");
  video = add_child(bin, gst_opensora_vae_dec_get_type(), "decode");
  latent = add_child(bin, gst_opensora_vae_enc_get_type(), "encode");
  gst_element_link(picture, video);
  if (!gst_element_link_filtered(video, latent, rgb)) {
    g_set_error_literal(
        error, OSR_ERROR, OSR_ERROR_UNSUPPORTED,
        "image-model-location needs the element \"capsfilter\" of GStreamer itself");
    gst_object_unref(gst_object_ref_sink(bin));
    return NULL;
  }
  add_ghost_pad(bin, picture, "sink");
  add_ghost_pad(bin, latent, "src");

  g_object_set(picture, "model-location", model, NULL);
  g_object_set(video, "model-location", model, NULL);
  follow(picture, denoise, common);
  follow(picture, denoise, denoising);
  follow(video, decode, common);
  follow(video, decode, decoding);
  follow(latent, decode, common);
  follow(latent, decode, encoding);

  shape = g_new(Shape, 1);
  *shape = (Shape){
    .denoise = denoise,
    .resolution = g_strdup_printf(
        "%.0fpx", floor(sqrt((double) dir->sampling.width * dir->sampling.height) + 0.5)),
  };
  sink = gst_element_get_static_pad(picture, "sink");
  gst_pad_add_probe(sink, GST_PAD_PROBE_TYPE_BUFFER | GST_PAD_PROBE_TYPE_EVENT_DOWNSTREAM,
                    on_conditioning, shape, shape_free);
  return bin;
}
