/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensoratext.h"

#include <string.h>

#define GST_CAT_DEFAULT gst_opensora_debug

#define DEFAULT_SEED 42
#define DEFAULT_NUM_SAMPLES 1
#define DEFAULT_MOTION_SCORE (-1)
#define DEFAULT_DECORATE TRUE
#define DEFAULT_SKIP_FAILED FALSE

#define GST_TYPE_OPENSORA_TEXT_DTYPE (gst_opensora_text_dtype_get_type())
static GType
gst_opensora_text_dtype_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_TEXT_DTYPE_AUTO, "As dtype says", "auto" },
    { GST_OPENSORA_TEXT_DTYPE_F32, "32-bit floats", "f32" },
    { GST_OPENSORA_TEXT_DTYPE_TF32,
      "32-bit floats, multiplied with 10 bits of mantissa where the device does that", "tf32" },
    { GST_OPENSORA_TEXT_DTYPE_BF16, "16-bit floats with 8 bits of exponent", "bf16" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraTextDType", values));
  return type;
}

void
gst_opensora_text_init(GstOpenSoraText *self)
{
  self->negative_prompt = NULL;
  self->seed = DEFAULT_SEED;
  self->num_samples = DEFAULT_NUM_SAMPLES;
  self->motion_score = DEFAULT_MOTION_SCORE;
  self->decorate = DEFAULT_DECORATE;
  self->dtype = GST_OPENSORA_TEXT_DTYPE_AUTO;
  self->skip_failed = DEFAULT_SKIP_FAILED;
  gst_opensora_tickets_init(&self->tickets);
}

void
gst_opensora_text_clear(GstOpenSoraText *self)
{
  g_clear_pointer(&self->negative_prompt, g_free);
  gst_opensora_tickets_clear(&self->tickets);
}

void
gst_opensora_text_install_properties(GObjectClass *klass, guint first_id)
{
  const GParamFlags flags = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING;

  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_TEXT_PROP_NEGATIVE_PROMPT,
      g_param_spec_string("negative-prompt", "Negative prompt",
                          "What the clip is guided away from; unset: the empty prompt", NULL,
                          flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_TEXT_PROP_SEED,
      g_param_spec_int64("seed", "Seed",
                         "Seed of the noise; sample n of a prompt uses seed + n. -1: a random seed "
                         "for every clip, told in the tags",
                         -1, G_MAXINT64, DEFAULT_SEED, flags));
  g_object_class_install_property(klass, first_id + GST_OPENSORA_TEXT_PROP_NUM_SAMPLES,
                                  g_param_spec_uint("num-samples", "Number of samples",
                                                    "Clips made from each prompt", 1, G_MAXINT,
                                                    DEFAULT_NUM_SAMPLES, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_TEXT_PROP_MOTION_SCORE,
      g_param_spec_int("motion-score", "Motion score",
                       "How much motion the prompt asks for, 1 (little) to 7 (much). 0: the prompt "
                       "does not say, -1: the model's default",
                       -1, 100, DEFAULT_MOTION_SCORE, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_TEXT_PROP_DECORATE,
      g_param_spec_boolean("decorate", "Decorate",
                           "Complete prompts as the model was trained: full stop, frame rate, "
                           "motion score",
                           DEFAULT_DECORATE, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_TEXT_PROP_TEXT_DTYPE,
      g_param_spec_enum("text-dtype", "Text data type",
                        "What the text encoders' weights are kept and computed in",
                        GST_TYPE_OPENSORA_TEXT_DTYPE, GST_OPENSORA_TEXT_DTYPE_AUTO,
                        G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_READY));
  gst_type_mark_as_plugin_api(GST_TYPE_OPENSORA_TEXT_DTYPE, 0);
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_TEXT_PROP_SKIP_FAILED,
      g_param_spec_boolean("skip-failed", "Skip failed",
                           "Go on with the next prompt where one cannot be made (its picture is "
                           "missing, its clip takes too much memory), with a warning and a message",
                           DEFAULT_SKIP_FAILED, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_TEXT_PROP_CURRENT_ID,
      g_param_spec_uint64("current-id", "Current id",
                          "Number of the prompt whose clip is being made; 0: none is", 0,
                          G_MAXUINT64, 0, G_PARAM_READABLE | G_PARAM_STATIC_STRINGS));
}

gboolean
gst_opensora_text_set_property(GstOpenSoraText *self, GstElement *element, guint id,
                               const GValue *value)
{
  gboolean known = TRUE;

  GST_OBJECT_LOCK(element);
  switch (id) {
  case GST_OPENSORA_TEXT_PROP_NEGATIVE_PROMPT:
    g_free(self->negative_prompt);
    self->negative_prompt = g_value_dup_string(value);
    break;
  case GST_OPENSORA_TEXT_PROP_SEED:
    self->seed = g_value_get_int64(value);
    break;
  case GST_OPENSORA_TEXT_PROP_NUM_SAMPLES:
    self->num_samples = g_value_get_uint(value);
    break;
  case GST_OPENSORA_TEXT_PROP_MOTION_SCORE:
    self->motion_score = g_value_get_int(value);
    break;
  case GST_OPENSORA_TEXT_PROP_DECORATE:
    self->decorate = g_value_get_boolean(value);
    break;
  case GST_OPENSORA_TEXT_PROP_TEXT_DTYPE:
    self->dtype = g_value_get_enum(value);
    break;
  case GST_OPENSORA_TEXT_PROP_SKIP_FAILED:
    self->skip_failed = g_value_get_boolean(value);
    break;
  default:
    known = FALSE;
  }
  GST_OBJECT_UNLOCK(element);
  return known;
}

gboolean
gst_opensora_text_get_property(GstOpenSoraText *self, GstElement *element, guint id, GValue *value)
{
  gboolean known = TRUE;

  if (id == GST_OPENSORA_TEXT_PROP_CURRENT_ID) {
    g_value_set_uint64(value, gst_opensora_tickets_current(&self->tickets));
    return TRUE;
  }
  GST_OBJECT_LOCK(element);
  switch (id) {
  case GST_OPENSORA_TEXT_PROP_NEGATIVE_PROMPT:
    g_value_set_string(value, self->negative_prompt);
    break;
  case GST_OPENSORA_TEXT_PROP_SEED:
    g_value_set_int64(value, self->seed);
    break;
  case GST_OPENSORA_TEXT_PROP_NUM_SAMPLES:
    g_value_set_uint(value, self->num_samples);
    break;
  case GST_OPENSORA_TEXT_PROP_MOTION_SCORE:
    g_value_set_int(value, self->motion_score);
    break;
  case GST_OPENSORA_TEXT_PROP_DECORATE:
    g_value_set_boolean(value, self->decorate);
    break;
  case GST_OPENSORA_TEXT_PROP_TEXT_DTYPE:
    g_value_set_enum(value, self->dtype);
    break;
  case GST_OPENSORA_TEXT_PROP_SKIP_FAILED:
    g_value_set_boolean(value, self->skip_failed);
    break;
  default:
    known = FALSE;
  }
  GST_OBJECT_UNLOCK(element);
  return known;
}

gboolean
gst_opensora_text_open(GstOpenSoraText *self, GstElement *element, GstOpenSoraModel *model)
{
  GstOpenSoraTextDType dtype;

  GST_OBJECT_LOCK(element);
  dtype = self->dtype;
  GST_OBJECT_UNLOCK(element);
  if (dtype == GST_OPENSORA_TEXT_DTYPE_AUTO)
    return gst_opensora_model_open(model, element, GST_OPENSORA_TEXT_FILES);
  return gst_opensora_model_open_as(model, element, GST_OPENSORA_TEXT_FILES,
                                    dtype == GST_OPENSORA_TEXT_DTYPE_BF16 ? OSR_DTYPE_BF16
                                                                          : OSR_DTYPE_F32,
                                    dtype == GST_OPENSORA_TEXT_DTYPE_TF32);
}

/* Encodes one text as the model wants it; a text that does not fit is cut with a warning. */
static gboolean
encode_one(GstElement *element, OsrModel *model, const char *text, const char *what,
           OsrTensor *tensors[2], GCancellable *cancellable, GError **error)
{
  guint lost = 0;

  if (!osr_model_encode_text(model, text, &tensors[0], &tensors[1], &lost, cancellable, error))
    return FALSE;
  if (lost > 0) {
    GST_ELEMENT_WARNING(element, STREAM, ENCODE,
                        ("The %s is too long: its last %u tokens are not used.", what, lost),
                        ("the model takes %u tokens", osr_model_get_dir(model)->t5_max_length));
  }
  return TRUE;
}

/* Whether anybody after us wants the prompt as it is, too. */
static gboolean
wants_plain_prompt(GstElement *element)
{
  g_autoptr(GstPad) src = gst_element_get_static_pad(element, "src");
  g_autoptr(GstCaps) caps = gst_pad_get_current_caps(src);
  gboolean wanted = FALSE;

  if (caps)
    gst_structure_get_boolean(gst_caps_get_structure(caps, 0), GST_OPENSORA_PLAIN_PROMPT, &wanted);
  return wanted;
}

guint
gst_opensora_text_start(GstOpenSoraText *self, GstElement *element, const GstOpenSoraPrompt *prompt,
                        guint clip, gboolean skip_failed)
{
  guint num_samples;

  GST_OBJECT_LOCK(element);
  num_samples = self->num_samples;
  skip_failed |= self->skip_failed;
  GST_OBJECT_UNLOCK(element);
  gst_opensora_ticket_start(prompt->ticket, clip, num_samples, skip_failed);
  return num_samples;
}

/* What a clip is made from: the prompt's own options, and the properties for what they leave
 * open. */
typedef struct {
  char *text;     /* as the model wants it */
  char *negative; /* NULL: none */
  gint64 seed;
  guint motion_score; /* 0: not in the text */
  gboolean decorate;
} Wishes;

static void
wishes_clear(Wishes *self)
{
  g_free(self->text);
  g_free(self->negative);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Wishes, wishes_clear)

static void
get_wishes(GstOpenSoraText *self, GstElement *element, const OsrModelDir *dir,
           const GstOpenSoraTextClip *clip, Wishes *wishes)
{
  const GstStructure *options = clip->prompt->options;
  gint motion_score;
  gint64 seed;

  wishes->negative = g_strdup(gst_structure_get_string(options, "negative-prompt"));
  GST_OBJECT_LOCK(element);
  if (!wishes->negative)
    wishes->negative = g_strdup(self->negative_prompt);
  wishes->decorate = self->decorate;
  motion_score = self->motion_score;
  seed = self->seed;
  GST_OBJECT_UNLOCK(element);
  gst_structure_get_int(options, "motion-score", &motion_score);
  gst_structure_get_int64(options, "seed", &seed);

  if (seed < 0)
    wishes->seed = (gint64) (((guint64) g_random_int() << 32 | g_random_int()) & G_MAXINT64);
  else
    wishes->seed = (gint64) (((guint64) seed + clip->sample) & G_MAXINT64);
  wishes->motion_score = motion_score < 0 ? dir->motion_score : (guint) motion_score;
  wishes->text = wishes->decorate
                     ? osr_prompt_decorate(clip->prompt->text,
                                           (guint) ((clip->fps_n + clip->fps_d / 2) / clip->fps_d),
                                           wishes->motion_score)
                     : g_strdup(clip->prompt->text);
}

static gboolean
check_utf8(const char *text, const char *what, GError **error)
{
  if (!text || g_utf8_validate(text, -1, NULL))
    return TRUE;
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "the %s is not valid UTF-8", what);
  return FALSE;
}

static void
copy_field(const GstStructure *from, GstStructure *to, const char *field)
{
  const GValue *value = gst_structure_get_value(from, field);

  if (value)
    gst_structure_set_value(to, field, value);
}

static void
add_meta(GstBuffer *buffer, const OsrModelDir *dir, const GstOpenSoraTextClip *clip,
         const Wishes *wishes)
{
  /* For the denoiser, which goes by these before its properties, and for whoever asked. */
  static const char *const own[] = { "reference", "steps",    "frames",         "width",
                                     "height",    "guidance", "guidance-image", "tag" };
  const GstOpenSoraPrompt *prompt = clip->prompt;
  GstStructure *meta = gst_opensora_clip_meta_add(buffer, NULL);

  gst_structure_set(meta, "prompt", G_TYPE_STRING, prompt->text, "model", G_TYPE_STRING, dir->name,
                    "id", G_TYPE_UINT64, prompt->id, "clip", G_TYPE_UINT, clip->clip, "seed",
                    G_TYPE_UINT64, (guint64) wishes->seed, "framerate", GST_TYPE_FRACTION,
                    clip->fps_n, clip->fps_d, "decorate", G_TYPE_BOOLEAN, wishes->decorate,
                    "motion-score", G_TYPE_UINT, wishes->decorate ? wishes->motion_score : 0, NULL);
  if (wishes->negative && *wishes->negative)
    gst_structure_set(meta, "negative-prompt", G_TYPE_STRING, wishes->negative, NULL);
  if (clip->reference)
    gst_structure_set(meta, "reference", G_TYPE_STRING, clip->reference, NULL);
  for (guint i = 0; i < G_N_ELEMENTS(own); i++)
    copy_field(prompt->options, meta, own[i]);
  gst_opensora_clip_meta_set_ticket(meta, prompt->ticket);
  GST_BUFFER_OFFSET(buffer) = clip->clip;
  GST_BUFFER_OFFSET_END(buffer) = clip->clip + 1;
}

GstFlowReturn
gst_opensora_text_encode(GstOpenSoraText *self, GstElement *element, OsrModel *model,
                         const GstOpenSoraTextClip *clip, GCancellable *cancellable,
                         GstBuffer **buffer)
{
  const OsrModelDir *dir = osr_model_get_dir(model);
  GstOpenSoraTicket *ticket = clip->prompt->ticket;
  const gboolean plain = wants_plain_prompt(element);
  OsrTensor *tensors[GST_OPENSORA_PLAIN_PROMPT_MEMORY + 2] = { NULL };
  g_auto(Wishes) wishes = { 0 };
  GstOpenSoraProgress progress = { 0 };
  GError *error = NULL;
  gboolean ok;

  *buffer = NULL;
  get_wishes(self, element, dir, clip, &wishes);
  gst_opensora_progress_start(&progress, element, osr_model_get_device(model), "text",
                              "Encoding the prompt", gst_opensora_ticket_get_prompt(ticket),
                              clip->clip, ticket, cancellable);
  ok = check_utf8(clip->prompt->text, "prompt", &error) &&
       check_utf8(wishes.negative, "negative prompt", &error) &&
       encode_one(element, model, wishes.text, "prompt", tensors, cancellable, &error) &&
       encode_one(element, model, wishes.negative ? wishes.negative : "", "negative prompt",
                  tensors + 2, cancellable, &error) &&
       (!plain || encode_one(element, model, clip->prompt->text, "prompt",
                             tensors + GST_OPENSORA_PLAIN_PROMPT_MEMORY, cancellable, &error));
  if (ok) {
    *buffer = gst_opensora_buffer_new(tensors, GST_OPENSORA_PLAIN_PROMPT_MEMORY + (plain ? 2 : 0));
    add_meta(*buffer, dir, clip, &wishes);
  }
  for (guint i = 0; i < G_N_ELEMENTS(tensors); i++)
    g_clear_pointer(&tensors[i], osr_tensor_unref);

  if (!ok)
    return gst_opensora_progress_fail(&progress, error);
  gst_opensora_progress_complete(&progress);
  GST_INFO_OBJECT(element, "clip %u: \"%s\", seed %" G_GINT64_FORMAT, clip->clip, wishes.text,
                  wishes.seed);
  return GST_FLOW_OK;
}

GstCaps *
gst_opensora_text_caps(OsrModel *model)
{
  GstCaps *caps = gst_caps_from_string(GST_OPENSORA_CONDITIONING_CAPS
                                       ", " GST_OPENSORA_RATE_FIELD ", " GST_OPENSORA_PLAIN_PROMPT
                                       " = (boolean) { false, true }");

  if (model)
    gst_caps_set_simple(caps, "family", G_TYPE_STRING, osr_model_get_dir(model)->family, NULL);
  return caps;
}

GstCaps *
gst_opensora_text_fixate(OsrModel *model, GstCaps *caps)
{
  caps = gst_caps_make_writable(gst_caps_truncate(caps));
  gst_structure_fixate_field_nearest_fraction(gst_caps_get_structure(caps, 0), "framerate",
                                              (gint) osr_model_get_dir(model)->fps, 1);
  return gst_caps_fixate(caps);
}
