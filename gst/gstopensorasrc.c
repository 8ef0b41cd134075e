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
 * With "image-model-location", a model of pictures (FLUX.1) makes the first frame of every clip
 * from its prompt. Its elements are in a child named "picture".
 *
 * Prompts come from properties, or, with "is-queue", from #opensorasrc::add-prompt for as long as
 * the stream runs: #opensoratextsrc tells more.
 *
 * What a clip looks like so far goes out on the request pad `preview`, which is the denoiser's.
 *
 * With "seekable" all frames are kept, and the stream can be seeked in. That is so for addresses,
 * `opensora://?prompt=a%20red%20circle&seed=7`, which name the properties: for #playbin,
 * #uridecodebin and GStreamer Editing Services.
 *
 * Their progress messages become one progress "generate" a clip, from the prompt (of later clips:
 * from the denoising) to the last frame. Their element messages "opensora-progress" are theirs.
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

#include "cuda/gstopensoracuda.h"
#include "gstopensorapicture.h"
#include "gstopensorapreviewpad.h"
#include "gstopensorareplay.h"
#include "gstopensorauri.h"

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
  /* Between READY and PAUSED; NULL without a model of pictures. Owned by the bin too. */
  GstElement *tee, *picture;
  GstPad *reference;  /* of the denoiser */
  GstElement *replay; /* between READY and PAUSED, if "seekable"; owned by the bin */

  /* Object lock. */
  char *image_model;
  gboolean seekable;
  char *uri;            /* set last, NULL: none */
  GArray *uri_values;   /* what it says: GstOpenSoraUriValue */
  gboolean generating;  /* a clip's progress is open, */
  guint clip;           /* this one's */
  gboolean text_counts; /* nothing has been denoised yet */
};

#define VIDEO_FIELDS ", format = { I420, NV12, RGB, RGBx }, " GST_OPENSORA_ANY_VIDEO_FIELDS

static GstStaticPadTemplate src_template =
    GST_STATIC_PAD_TEMPLATE("src", GST_PAD_SRC, GST_PAD_ALWAYS,
                            GST_STATIC_CAPS("video/x-raw(" GST_OPENSORA_CUDA_FEATURE
                                            ")" VIDEO_FIELDS "; video/x-raw" VIDEO_FIELDS));

static GstStaticPadTemplate preview_template = GST_STATIC_PAD_TEMPLATE(
    "preview", GST_PAD_SRC, GST_PAD_REQUEST, GST_STATIC_CAPS(GST_OPENSORA_PREVIEW_CAPS));

static void gst_opensora_src_uri_handler_init(gpointer iface, gpointer data);

G_DEFINE_FINAL_TYPE_WITH_CODE(GstOpenSoraSrc, gst_opensora_src, GST_TYPE_BIN,
                              G_IMPLEMENT_INTERFACE(GST_TYPE_URI_HANDLER,
                                                    gst_opensora_src_uri_handler_init)
                                  G_IMPLEMENT_INTERFACE(GST_TYPE_PRESET, NULL))
GST_ELEMENT_REGISTER_DEFINE_WITH_CODE(opensorasrc, "opensorasrc", GST_RANK_NONE,
                                      GST_TYPE_OPENSORA_SRC,
                                      GST_DEBUG_CATEGORY_INIT(gst_opensora_src_debug, "opensorasrc",
                                                              0, "Open-Sora video source"));

/* By property id, from 1; made once in class_init(). After them come our own properties. */
static GArray *proxies;
#define PROP_IMAGE_MODEL (proxies->len + 1)
#define PROP_SEEKABLE (proxies->len + 2)
#define DEFAULT_SEEKABLE FALSE

static void
gst_opensora_src_set_property(GObject *object, guint id, const GValue *value, GParamSpec *pspec)
{
  GstOpenSoraSrc *self = GST_OPENSORA_SRC(object);
  const Proxy *proxy;

  if (id == PROP_IMAGE_MODEL) {
    const char *location = g_value_get_string(value);

    GST_OBJECT_LOCK(self);
    g_free(self->image_model);
    self->image_model = location && *location ? g_strdup(location) : NULL;
    GST_OBJECT_UNLOCK(self);
    return;
  }
  if (id == PROP_SEEKABLE) {
    GST_OBJECT_LOCK(self);
    self->seekable = g_value_get_boolean(value);
    GST_OBJECT_UNLOCK(self);
    return;
  }
  proxy = &g_array_index(proxies, Proxy, id - 1);
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
  const Proxy *proxy;

  if (id == PROP_IMAGE_MODEL) {
    GST_OBJECT_LOCK(self);
    g_value_set_string(value, self->image_model);
    GST_OBJECT_UNLOCK(self);
    return;
  }
  if (id == PROP_SEEKABLE) {
    GST_OBJECT_LOCK(self);
    g_value_set_boolean(value, self->seekable);
    GST_OBJECT_UNLOCK(self);
    return;
  }
  proxy = &g_array_index(proxies, Proxy, id - 1);
  g_object_get_property(G_OBJECT(self->child[proxy->child]), proxy->child_property, value);
}

#define COPY_RANGE(NAME, Name, name_)                                                              \
  if (G_IS_PARAM_SPEC_##NAME(pspec)) {                                                             \
    GParamSpec##Name *p = G_PARAM_SPEC_##NAME(pspec);                                              \
                                                                                                   \
    return g_param_spec_##name_(name, nick, blurb, p->minimum, p->maximum, p->default_value,       \
                                flags);                                                            \
  }

/* A copy of @pspec under another name. */
static GParamSpec *
copy_pspec(GParamSpec *pspec, const char *name)
{
  const char *nick = g_param_spec_get_nick(pspec), *blurb = g_param_spec_get_blurb(pspec);
  GParamFlags flags = (pspec->flags & (G_PARAM_READWRITE | GST_PARAM_MUTABLE_READY |
                                       GST_PARAM_MUTABLE_PAUSED | GST_PARAM_MUTABLE_PLAYING));

  COPY_RANGE(INT, Int, int)
  COPY_RANGE(UINT, UInt, uint)
  COPY_RANGE(INT64, Int64, int64)
  COPY_RANGE(UINT64, UInt64, uint64)
  COPY_RANGE(DOUBLE, Double, double)
  if (G_IS_PARAM_SPEC_STRING(pspec))
    return g_param_spec_string(name, nick, blurb, G_PARAM_SPEC_STRING(pspec)->default_value, flags);
  if (G_IS_PARAM_SPEC_BOOLEAN(pspec))
    return g_param_spec_boolean(name, nick, blurb, G_PARAM_SPEC_BOOLEAN(pspec)->default_value,
                                flags);
  if (G_IS_PARAM_SPEC_ENUM(pspec))
    return g_param_spec_enum(name, nick, blurb, pspec->value_type,
                             G_PARAM_SPEC_ENUM(pspec)->default_value, flags);
  if (G_IS_PARAM_SPEC_FLAGS(pspec))
    return g_param_spec_flags(name, nick, blurb, pspec->value_type,
                              G_PARAM_SPEC_FLAGS(pspec)->default_value, flags);
  if (G_IS_PARAM_SPEC_BOXED(pspec))
    return g_param_spec_boxed(name, nick, blurb, pspec->value_type, flags);
  g_assert_not_reached(); /* a child has a property of a type that is new here */
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
      g_array_append_vals(proxies, &(Proxy){ .child = i, .child_property = name }, 1);
      g_object_class_install_property(klass, proxies->len, copy);
    }
    g_type_class_unref(child_class);
  }
}

/* One progress a clip */

/* How far a clip is when a stage begins and when it ends, in percent: nearly all time goes into
 * denoising. Without and with a picture first. */
static const struct {
  const char *stage;
  int from, to;
} shares[2][4] = {
  { { "text", 0, 5 }, { "denoise", 5, 90 }, { "decode", 90, 100 } },
  { { "text", 0, 5 }, { "picture", 5, 30 }, { "denoise", 30, 90 }, { "decode", 90, 100 } },
};

/* What a child's progress means for that of the clip: TRUE with the @type and @percent (-1: not
 * told) to post. Prompts of later clips are encoded, and their pictures made, while one is being
 * denoised: that is not told, and does not open a progress, which in PAUSED nothing might ever
 * close. */
static gboolean
merge_progress(GstOpenSoraSrc *self, const char *stage, guint clip, gint stage_percent,
               GstProgressType *type, int *percent)
{
  const gboolean decode = g_str_equal(stage, "decode");
  const gboolean early = g_str_equal(stage, "text") || g_str_equal(stage, "picture");
  const guint way = self->picture != NULL;
  gboolean ours;

  *percent = -1;
  for (guint i = 0; i < G_N_ELEMENTS(shares[way]) && shares[way][i].stage; i++)
    if (g_str_equal(stage, shares[way][i].stage))
      *percent =
          shares[way][i].from + (shares[way][i].to - shares[way][i].from) * stage_percent / 100;

  GST_OBJECT_LOCK(self);
  if (*type == GST_PROGRESS_TYPE_START && !self->generating && !decode &&
      (!early || self->text_counts)) {
    self->generating = ours = TRUE;
    self->clip = clip;
  } else {
    ours = self->generating && self->clip == clip;
    if (*type == GST_PROGRESS_TYPE_START || (*type == GST_PROGRESS_TYPE_COMPLETE && !decode))
      *type = GST_PROGRESS_TYPE_CONTINUE;
    else if (ours && *type != GST_PROGRESS_TYPE_CONTINUE)
      self->generating = FALSE;
  }
  if (!early)
    self->text_counts = FALSE;
  GST_OBJECT_UNLOCK(self);
  return ours;
}

/* (takes @message) */
static void
handle_progress(GstOpenSoraSrc *self, GstMessage *message)
{
  const GstStructure *s = gst_message_get_structure(message);
  g_autofree char *stage = NULL;
  g_autofree char *text = NULL;
  gint stage_percent = 0;
  GstProgressType type;
  GstMessage *merged;
  GstStructure *fields;
  guint clip = 0;
  guint64 id;
  int percent;

  gst_message_parse_progress(message, &type, &stage, &text);
  gst_structure_get_uint(s, "clip", &clip);
  gst_structure_get_int(s, "percent", &stage_percent);
  if (self->picture &&
      gst_object_has_as_ancestor(GST_MESSAGE_SRC(message), GST_OBJECT(self->picture))) {
    /* Of the picture's stages only the denoising takes time. */
    if (!g_str_equal(stage, "denoise"))
      stage_percent = 100;
    g_free(stage);
    stage = g_strdup("picture");
  }
  if (merge_progress(self, stage, clip, stage_percent, &type, &percent)) {
    merged = gst_message_new_progress(GST_OBJECT(self), type, "generate", text);
    fields = gst_message_writable_structure(merged);
    gst_structure_set(fields, "clip", G_TYPE_UINT, clip, "stage", G_TYPE_STRING, stage, NULL);
    if (gst_structure_get_uint64(s, "id", &id))
      gst_structure_set(fields, "id", G_TYPE_UINT64, id, NULL);
    if (gst_structure_has_field(s, "percent"))
      gst_structure_set(fields, "percent", G_TYPE_INT, percent, NULL);
    gst_element_post_message(GST_ELEMENT(self), merged);
  }
  gst_message_unref(message);
}

static void
gst_opensora_src_handle_message(GstBin *bin, GstMessage *message)
{
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_PROGRESS)
    handle_progress(GST_OPENSORA_SRC(bin), message);
  else
    GST_BIN_CLASS(gst_opensora_src_parent_class)->handle_message(bin, message);
}

/* The picture before the clip */

static void
remove_picture(GstOpenSoraSrc *self)
{
  if (!self->picture)
    return;
  gst_element_set_state(self->tee, GST_STATE_NULL);
  gst_element_set_state(self->picture, GST_STATE_NULL);
  gst_bin_remove(GST_BIN(self), self->tee);
  gst_bin_remove(GST_BIN(self), self->picture);
  gst_element_release_request_pad(self->child[DENOISE], self->reference);
  gst_clear_object(&self->reference);
  self->tee = self->picture = NULL;
  gst_element_link(self->child[TEXT], self->child[DENOISE]);
}

/* The conditioning goes to both; the picture's latent is the clip's reference. */
static gboolean
link_picture(GstOpenSoraSrc *self)
{
  g_autoptr(GstPad) latents = gst_element_get_static_pad(self->picture, "src");

  gst_element_unlink(self->child[TEXT], self->child[DENOISE]);
  self->reference = gst_element_request_pad_simple(self->child[DENOISE], "reference_%u");
  return self->reference && gst_element_link(self->child[TEXT], self->tee) &&
         gst_element_link(self->tee, self->picture) &&
         gst_element_link_pads(self->tee, NULL, self->child[DENOISE], "sink") &&
         gst_pad_link(latents, self->reference) == GST_PAD_LINK_OK;
}

/* FALSE if there is to be a picture and cannot be one: an error has been posted. */
static gboolean
add_picture(GstOpenSoraSrc *self)
{
  g_autofree char *location = NULL;
  GError *error = NULL;
  GstElement *tee;

  GST_OBJECT_LOCK(self);
  location = g_strdup(self->image_model);
  GST_OBJECT_UNLOCK(self);
  if (!location)
    return TRUE;
  tee = gst_element_factory_make("tee", NULL);
  if (!tee) {
    GST_ELEMENT_ERROR(self, CORE, MISSING_PLUGIN,
                      ("image-model-location needs the element \"tee\" of GStreamer itself."),
                      (NULL));
    return FALSE;
  }
  self->picture =
      gst_opensora_picture_new(location, self->child[DENOISE], self->child[DECODE], &error);
  if (!self->picture) {
    gst_object_unref(gst_object_ref_sink(tee));
    gst_opensora_post_error(GST_ELEMENT(self), error);
    return FALSE;
  }
  self->tee = tee;
  gst_bin_add_many(GST_BIN(self), self->tee, self->picture, NULL);
  if (link_picture(self))
    return TRUE;
  GST_ELEMENT_ERROR(self, CORE, FAILED, ("Cannot link the model of pictures."), (NULL));
  remove_picture(self);
  return FALSE;
}

/* The frames that are kept */

static void
set_output(GstOpenSoraSrc *self, GstElement *from)
{
  g_autoptr(GstPad) own = gst_element_get_static_pad(GST_ELEMENT(self), "src");
  g_autoptr(GstPad) target = gst_element_get_static_pad(from, "src");

  gst_ghost_pad_set_target(GST_GHOST_PAD(own), target);
}

static void
remove_replay(GstOpenSoraSrc *self)
{
  if (!self->replay)
    return;
  gst_element_set_state(self->replay, GST_STATE_NULL);
  gst_bin_remove(GST_BIN(self), self->replay);
  self->replay = NULL;
  set_output(self, self->child[DECODE]);
}

/* One address is always the same stream: GStreamer Editing Services find it again by its id. */
static void
add_replay(GstOpenSoraSrc *self)
{
  g_autofree char *stream_id = NULL;
  gboolean seekable;

  GST_OBJECT_LOCK(self);
  seekable = self->seekable;
  if (self->uri)
    stream_id = g_compute_checksum_for_string(G_CHECKSUM_SHA256, self->uri, -1);
  GST_OBJECT_UNLOCK(self);
  if (!seekable)
    return;
  self->replay = gst_opensora_replay_new("replay", stream_id);
  gst_bin_add(GST_BIN(self), self->replay);
  set_output(self, self->replay);
  gst_element_link(self->child[DECODE], self->replay);
}

static GstStateChangeReturn
gst_opensora_src_change_state(GstElement *element, GstStateChange transition)
{
  GstOpenSoraSrc *self = GST_OPENSORA_SRC(element);
  GstStateChangeReturn ret;

  if (transition == GST_STATE_CHANGE_READY_TO_PAUSED) {
    if (!add_picture(self))
      return GST_STATE_CHANGE_FAILURE;
    add_replay(self);
    GST_OBJECT_LOCK(self);
    self->generating = FALSE;
    self->text_counts = TRUE;
    GST_OBJECT_UNLOCK(self);
  }
  ret = GST_ELEMENT_CLASS(gst_opensora_src_parent_class)->change_state(element, transition);
  if (transition == GST_STATE_CHANGE_PAUSED_TO_READY ||
      (transition == GST_STATE_CHANGE_READY_TO_PAUSED && ret == GST_STATE_CHANGE_FAILURE)) {
    remove_replay(self);
    remove_picture(self);
  }
  return ret;
}

/* The denoiser's preview pad, seen from outside. */
static GstPad *
gst_opensora_src_request_new_pad(GstElement *element, GstPadTemplate *templ, const gchar *name,
                                 const GstCaps *caps)
{
  GstOpenSoraSrc *self = GST_OPENSORA_SRC(element);
  g_autoptr(GstPad) pad = gst_element_request_pad_simple(self->child[DENOISE], "preview");
  GstPad *ghost;

  if (!pad)
    return NULL;
  ghost = gst_ghost_pad_new_from_template("preview", pad, templ);
  if (GST_PAD_IS_ACTIVE(pad))
    gst_pad_set_active(ghost, TRUE);
  gst_element_add_pad(element, ghost);
  return ghost;
}

static void
gst_opensora_src_release_pad(GstElement *element, GstPad *ghost)
{
  g_autoptr(GstPad) pad = gst_ghost_pad_get_target(GST_GHOST_PAD(ghost));

  /* In this order: who is after the ghost has to let go of the task first. */
  if (pad)
    gst_element_release_request_pad(GST_OPENSORA_SRC(element)->child[DENOISE], pad);
  gst_pad_set_active(ghost, FALSE);
  gst_element_remove_pad(element, ghost);
}

static void
gst_opensora_src_finalize(GObject *object)
{
  GstOpenSoraSrc *self = GST_OPENSORA_SRC(object);

  g_free(self->image_model);
  g_free(self->uri);
  g_clear_pointer(&self->uri_values, g_array_unref);
  G_OBJECT_CLASS(gst_opensora_src_parent_class)->finalize(object);
}

/* Addresses */

static GstURIType
gst_opensora_src_uri_get_type(GType type)
{
  return GST_URI_SRC;
}

static const gchar *const *
gst_opensora_src_uri_get_protocols(GType type)
{
  static const gchar *const protocols[] = { GST_OPENSORA_URI_PROTOCOL, NULL };

  return protocols;
}

static gchar *
gst_opensora_src_uri_get_uri(GstURIHandler *handler)
{
  GstOpenSoraSrc *self = GST_OPENSORA_SRC(handler);
  gchar *uri;

  GST_OBJECT_LOCK(self);
  uri = g_strdup(self->uri);
  GST_OBJECT_UNLOCK(self);
  return uri;
}

/* What the address before has set goes back to its default. */
static void
reset_values(GObject *object, const GArray *values)
{
  for (guint i = 0; values && i < values->len; i++) {
    GParamSpec *pspec = g_array_index(values, GstOpenSoraUriValue, i).pspec;

    g_object_set_property(object, pspec->name, g_param_spec_get_default_value(pspec));
  }
}

static void
set_values(GObject *object, const GArray *values)
{
  for (guint i = 0; i < values->len; i++) {
    const GstOpenSoraUriValue *item = &g_array_index(values, GstOpenSoraUriValue, i);

    g_object_set_property(object, item->pspec->name, &item->value);
  }
}

/* Players seek, so what they are given an address of can be seeked in, unless it says no. */
static gboolean
gst_opensora_src_uri_set_uri(GstURIHandler *handler, const gchar *uri, GError **error)
{
  GstOpenSoraSrc *self = GST_OPENSORA_SRC(handler);
  GObject *object = G_OBJECT(handler);
  GArray *values, *before;
  gboolean stopped;

  GST_OBJECT_LOCK(self);
  stopped = GST_STATE(self) <= GST_STATE_READY;
  GST_OBJECT_UNLOCK(self);
  if (!stopped) {
    g_set_error_literal(error, GST_URI_ERROR, GST_URI_ERROR_BAD_STATE,
                        "The address of an element that runs cannot be changed.");
    return FALSE;
  }
  values = gst_opensora_uri_parse(uri, G_OBJECT_GET_CLASS(self), error);
  if (!values)
    return FALSE;

  GST_OBJECT_LOCK(self);
  before = g_steal_pointer(&self->uri_values);
  self->uri_values = g_array_ref(values);
  g_free(self->uri);
  self->uri = g_strdup(uri);
  GST_OBJECT_UNLOCK(self);
  reset_values(object, before);
  g_object_set(self, "seekable", TRUE, NULL);
  set_values(object, values);
  g_clear_pointer(&before, g_array_unref);
  g_array_unref(values);
  return TRUE;
}

static void
gst_opensora_src_uri_handler_init(gpointer iface, gpointer data)
{
  GstURIHandlerInterface *handler = iface;

  handler->get_type = gst_opensora_src_uri_get_type;
  handler->get_protocols = gst_opensora_src_uri_get_protocols;
  handler->get_uri = gst_opensora_src_uri_get_uri;
  handler->set_uri = gst_opensora_src_uri_set_uri;
}

/* What the prompt source can be told, the bin can be told */

static guint64
gst_opensora_src_add_prompt(GstOpenSoraSrc *self, const char *prompt, const GstStructure *options)
{
  guint64 id = 0;

  g_signal_emit_by_name(self->child[TEXT], "add-prompt", prompt, options, &id);
  return id;
}

static gboolean
gst_opensora_src_cancel(GstOpenSoraSrc *self, guint64 id)
{
  gboolean cancelled = FALSE;

  g_signal_emit_by_name(self->child[TEXT], "cancel", id, &cancelled);
  return cancelled;
}

static void
gst_opensora_src_end(GstOpenSoraSrc *self)
{
  g_signal_emit_by_name(self->child[TEXT], "end");
}

static void
install_signals(GstOpenSoraSrcClass *klass)
{
  const GSignalFlags flags = G_SIGNAL_RUN_LAST | G_SIGNAL_ACTION;
  const GType type = G_TYPE_FROM_CLASS(klass);

  /**
   * opensorasrc::add-prompt:
   * @object: the element
   * @prompt: what the clip shall show
   * @options: (nullable): what it shall be made with
   *
   * As #opensoratextsrc::add-prompt.
   *
   * Returns: the prompt's number; 0 if it is refused.
   *
   * Since: 0.1
   */
  g_signal_new_class_handler("add-prompt", type, flags, G_CALLBACK(gst_opensora_src_add_prompt),
                             NULL, NULL, NULL, G_TYPE_UINT64, 2, G_TYPE_STRING, GST_TYPE_STRUCTURE);
  /**
   * opensorasrc::cancel:
   * @object: the element
   * @id: number of a prompt
   *
   * As #opensoratextsrc::cancel.
   *
   * Returns: %FALSE if it is too late.
   *
   * Since: 0.1
   */
  g_signal_new_class_handler("cancel", type, flags, G_CALLBACK(gst_opensora_src_cancel), NULL, NULL,
                             NULL, G_TYPE_BOOLEAN, 1, G_TYPE_UINT64);
  /**
   * opensorasrc::end:
   * @object: the element
   *
   * As #opensoratextsrc::end.
   *
   * Since: 0.1
   */
  g_signal_new_class_handler("end", type, flags, G_CALLBACK(gst_opensora_src_end), NULL, NULL, NULL,
                             G_TYPE_NONE, 0);
}

static void
notify_too(GstOpenSoraSrc *self, GParamSpec *pspec)
{
  g_object_notify(G_OBJECT(self), pspec->name);
}

static void
gst_opensora_src_class_init(GstOpenSoraSrcClass *klass)
{
  GObjectClass *object_class = G_OBJECT_CLASS(klass);
  GstElementClass *element_class = GST_ELEMENT_CLASS(klass);

  object_class->set_property = gst_opensora_src_set_property;
  object_class->get_property = gst_opensora_src_get_property;
  object_class->finalize = gst_opensora_src_finalize;
  install_child_properties(object_class);
  g_object_class_install_property(
      object_class, PROP_IMAGE_MODEL,
      g_param_spec_string("image-model-location", "Image model location",
                          "Folder of a model of pictures (FLUX.1) that makes the first frame of "
                          "every clip from its prompt; may be that of model-location. Unset: "
                          "clips are made from text alone, or begin with \"image\"",
                          NULL,
                          G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
  g_object_class_install_property(
      object_class, PROP_SEEKABLE,
      g_param_spec_boolean("seekable", "Seekable",
                           "Keep all frames in memory, so that the stream can be seeked in; an "
                           "address (opensora:) sets it",
                           DEFAULT_SEEKABLE,
                           G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
  install_signals(klass);

  gst_element_class_set_static_metadata(element_class, "Open-Sora video source", "Source/Video",
                                        "Generates video from a prompt",
                                        "The gst-opensora authors");
  gst_element_class_add_static_pad_template(element_class, &src_template);
  gst_element_class_add_static_pad_template(element_class, &preview_template);

  element_class->request_new_pad = gst_opensora_src_request_new_pad;
  element_class->release_pad = gst_opensora_src_release_pad;
  element_class->change_state = gst_opensora_src_change_state;
  GST_BIN_CLASS(klass)->handle_message = gst_opensora_src_handle_message;
}

static void
gst_opensora_src_init(GstOpenSoraSrc *self)
{
  g_autoptr(GstPad) decoded = NULL;

  for (guint i = 0; i < N_CHILDREN; i++) {
    self->child[i] = g_object_new(children[i].get_type(), "name", children[i].name, NULL);
    gst_bin_add(GST_BIN(self), self->child[i]);
  }
  g_signal_connect_object(self->child[TEXT], "notify::queue-length", G_CALLBACK(notify_too), self,
                          G_CONNECT_SWAPPED);
  g_signal_connect_object(self->child[TEXT], "notify::current-id", G_CALLBACK(notify_too), self,
                          G_CONNECT_SWAPPED);
  gst_element_link_many(self->child[TEXT], self->child[DENOISE], self->child[DECODE], NULL);
  decoded = gst_element_get_static_pad(self->child[DECODE], "src");
  gst_element_add_pad(
      GST_ELEMENT(self),
      gst_ghost_pad_new_from_template(
          "src", decoded, gst_element_class_get_pad_template(GST_ELEMENT_GET_CLASS(self), "src")));
  GST_OBJECT_FLAG_SET(self, GST_ELEMENT_FLAG_SOURCE);
}
