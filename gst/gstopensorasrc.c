/* SPDX-License-Identifier: LGPL-2.1-or-later */
/**
 * SECTION:element-opensorasrc
 * @title: opensorasrc
 * @short_description: Generates video from a prompt
 *
 * #opensoratextsrc, #opensoradenoise and #opensoravaedec in one bin: a prompt in, video out.
 * Their properties are the bin's own; "model-location" and "device" go to all three. "image"
 * is a picture that the clip begins with. The elements inside are children named "text",
 * "denoise" and "decode" (see #GstChildProxy).
 *
 * ## Example launch line
 * |[
 * gst-launch-1.0 opensorasrc prompt="an orange triangle moving up on a black background" !
 * videoconvert ! x264enc ! mp4mux ! filesink location=out.mp4
 * ]|
 *
 * Since: 0.1
 */
#include <gst/gst.h>

#include "gstopensora.h"

GST_DEBUG_CATEGORY_STATIC(gst_opensora_src_debug);
#define GST_CAT_DEFAULT gst_opensora_src_debug

/* The types of the elements inside; their files define them. */
GType gst_opensora_text_src_get_type(void);
GType gst_opensora_denoise_get_type(void);
GType gst_opensora_vae_dec_get_type(void);

enum { TEXT, DENOISE, DECODE, N_CHILDREN };

static const struct {
  GType (*get_type)(void);
  const char *name;
} children[N_CHILDREN] = {
  { gst_opensora_text_src_get_type, "text" },
  { gst_opensora_denoise_get_type, "denoise" },
  { gst_opensora_vae_dec_get_type, "decode" },
};

/* A property of the bin: the first child that has it, the child's name for it, and whether
 * all children have it. */
typedef struct {
  guint child;
  const char *child_property;
  gboolean all;
} Proxy;

#define GST_TYPE_OPENSORA_SRC (gst_opensora_src_get_type())
G_DECLARE_FINAL_TYPE(GstOpenSoraSrc, gst_opensora_src, GST, OPENSORA_SRC, GstBin)

struct _GstOpenSoraSrc {
  GstBin parent;

  GstElement *child[N_CHILDREN]; /* owned by the bin */
};

static GstStaticPadTemplate src_template = GST_STATIC_PAD_TEMPLATE(
    "src", GST_PAD_SRC, GST_PAD_ALWAYS,
    GST_STATIC_CAPS("video/x-raw, format = { I420, NV12, RGB, RGBx }, "
                    "width = (int) [ 16, 8192, 16 ], height = (int) [ 16, 8192, 16 ], "
                    "framerate = (fraction) [ 1/1, 240/1 ]"));

G_DEFINE_FINAL_TYPE(GstOpenSoraSrc, gst_opensora_src, GST_TYPE_BIN)
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(opensorasrc, "opensorasrc", GST_RANK_NONE,
                                      GST_TYPE_OPENSORA_SRC,
                                      GST_DEBUG_CATEGORY_INIT(gst_opensora_src_debug, "opensorasrc",
                                                              0, "Open-Sora video source"));

/* By property id, from 1; made once in class_init(). */
static GArray *proxies;

static void
gst_opensora_src_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstOpenSoraSrc *self = GST_OPENSORA_SRC(object);
  const Proxy *proxy = &g_array_index(proxies, Proxy, id - 1);

  if (!proxy->all) {
    g_object_set_property(G_OBJECT(self->child[proxy->child]), proxy->child_property, value);
    return;
  }
  for (guint i = 0; i < N_CHILDREN; i++)
    g_object_set_property(G_OBJECT(self->child[i]), proxy->child_property, value);
}

static void
gst_opensora_src_get_property(GObject *object, guint id, GValue *value, GParamSpec *pspec)
{
  GstOpenSoraSrc *self = GST_OPENSORA_SRC(object);
  const Proxy *proxy = &g_array_index(proxies, Proxy, id - 1);

  g_object_get_property(G_OBJECT(self->child[proxy->child]), proxy->child_property, value);
}

/* A copy of @pspec under another name. */
static GParamSpec *
copy_pspec(GParamSpec *pspec, const char *name)
{
  const char *nick = g_param_spec_get_nick(pspec), *blurb = g_param_spec_get_blurb(pspec);
  GParamFlags flags = (pspec->flags & (G_PARAM_READWRITE | GST_PARAM_MUTABLE_READY |
                                       GST_PARAM_MUTABLE_PAUSED | GST_PARAM_MUTABLE_PLAYING));

  if (G_IS_PARAM_SPEC_STRING(pspec))
    return g_param_spec_string(name, nick, blurb, G_PARAM_SPEC_STRING(pspec)->default_value, flags);
  if (G_IS_PARAM_SPEC_BOOLEAN(pspec))
    return g_param_spec_boolean(name, nick, blurb, G_PARAM_SPEC_BOOLEAN(pspec)->default_value,
                                flags);
  if (G_IS_PARAM_SPEC_INT(pspec)) {
    GParamSpecInt *p = G_PARAM_SPEC_INT(pspec);

    return g_param_spec_int(name, nick, blurb, p->minimum, p->maximum, p->default_value, flags);
  }
  if (G_IS_PARAM_SPEC_UINT(pspec)) {
    GParamSpecUInt *p = G_PARAM_SPEC_UINT(pspec);

    return g_param_spec_uint(name, nick, blurb, p->minimum, p->maximum, p->default_value, flags);
  }
  if (G_IS_PARAM_SPEC_INT64(pspec)) {
    GParamSpecInt64 *p = G_PARAM_SPEC_INT64(pspec);

    return g_param_spec_int64(name, nick, blurb, p->minimum, p->maximum, p->default_value, flags);
  }
  if (G_IS_PARAM_SPEC_DOUBLE(pspec)) {
    GParamSpecDouble *p = G_PARAM_SPEC_DOUBLE(pspec);

    return g_param_spec_double(name, nick, blurb, p->minimum, p->maximum, p->default_value, flags);
  }
  if (G_IS_PARAM_SPEC_ENUM(pspec))
    return g_param_spec_enum(name, nick, blurb, pspec->value_type,
                             G_PARAM_SPEC_ENUM(pspec)->default_value, flags);
  if (G_IS_PARAM_SPEC_FLAGS(pspec))
    return g_param_spec_flags(name, nick, blurb, pspec->value_type,
                              G_PARAM_SPEC_FLAGS(pspec)->default_value, flags);
  return NULL;
}

/* Installs every property that a child's own class has. One that a child before it has too
 * is shared by all; "reference" is called "image" here. */
static void
install_child_properties(GObjectClass *klass)
{
  proxies = g_array_new(FALSE, FALSE, sizeof(Proxy));
  for (guint i = 0; i < N_CHILDREN; i++) {
    const GType type = children[i].get_type();
    gpointer child_class = g_type_class_ref(type);
    g_autofree GParamSpec **pspecs = NULL;
    guint n;

    pspecs = g_object_class_list_properties(child_class, &n);
    for (guint p = 0; p < n; p++) {
      const char *name = pspecs[p]->name;
      const char *own_name = g_str_equal(name, "reference") ? "image" : name;
      GParamSpec *copy;
      guint before;

      if (pspecs[p]->owner_type != type)
        continue;
      for (before = 0; before < proxies->len; before++)
        if (g_str_equal(g_array_index(proxies, Proxy, before).child_property, name))
          break;
      if (before < proxies->len) {
        g_array_index(proxies, Proxy, before).all = TRUE;
        continue;
      }
      copy = copy_pspec(pspecs[p], own_name);
      if (!copy)
        continue;
      g_array_append_vals(proxies, &(Proxy){ .child = i, .child_property = name }, 1);
      g_object_class_install_property(klass, proxies->len, copy);
    }
    g_type_class_unref(child_class);
  }
}

static void
gst_opensora_src_class_init(GstOpenSoraSrcClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);

  object_class->set_property = gst_opensora_src_set_property;
  object_class->get_property = gst_opensora_src_get_property;
  install_child_properties(object_class);

  gst_element_class_set_static_metadata(element_class, "Open-Sora video source", "Source/Video",
                                        "Generates video from a prompt",
                                        "The gst-opensora authors");
  gst_element_class_add_static_pad_template(element_class, &src_template);
}

static void
gst_opensora_src_init(GstOpenSoraSrc *self)
{
  g_autoptr(GstPad) decoded = NULL;

  for (guint i = 0; i < N_CHILDREN; i++) {
    self->child[i] = g_object_new(children[i].get_type(), "name", children[i].name, NULL);
    gst_bin_add(GST_BIN(self), self->child[i]);
  }
  gst_element_link_many(self->child[TEXT], self->child[DENOISE], self->child[DECODE], NULL);
  decoded = gst_element_get_static_pad(self->child[DECODE], "src");
  gst_element_add_pad(
      GST_ELEMENT(self),
      gst_ghost_pad_new_from_template(
          "src", decoded, gst_element_class_get_pad_template(GST_ELEMENT_GET_CLASS(self), "src")));
  GST_OBJECT_FLAG_SET(self, GST_ELEMENT_FLAG_SOURCE);
}
