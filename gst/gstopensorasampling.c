/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstopensorasampling.h"

#include <math.h>

#define GST_TYPE_OPENSORA_SWITCH (gst_opensora_switch_get_type())
static GType
gst_opensora_switch_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_SWITCH_DEFAULT, "As the model's defaults say", "default" },
    { GST_OPENSORA_SWITCH_OFF, "Off", "off" },
    { GST_OPENSORA_SWITCH_ON, "On", "on" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraSwitch", values));
  return type;
}

#define GST_TYPE_OPENSORA_CONDITION (gst_opensora_condition_get_type())
static GType
gst_opensora_condition_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_CONDITION_AUTO, "Chosen by the references that are there", "auto" },
    { OSR_CONDITION_T2V, "Text only; references are ignored", "t2v" },
    { OSR_CONDITION_I2V_HEAD, "The clip begins with the picture", "i2v-head" },
    { OSR_CONDITION_I2V_TAIL, "The clip ends with the picture", "i2v-tail" },
    { OSR_CONDITION_I2V_LOOP, "The clip leads from the first to the second picture", "i2v-loop" },
    { OSR_CONDITION_V2V_HEAD, "The clip goes on after 33 frames of video", "v2v-head" },
    { OSR_CONDITION_V2V_TAIL, "The clip leads to 33 frames of video", "v2v-tail" },
    { OSR_CONDITION_V2V_HEAD_EASY, "The clip goes on after 65 frames of video", "v2v-head-easy" },
    { OSR_CONDITION_V2V_TAIL_EASY, "The clip leads to 65 frames of video", "v2v-tail-easy" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraCondition", values));
  return type;
}

#define GST_TYPE_OPENSORA_COMPAT (gst_opensora_compat_get_type())
static GType
gst_opensora_compat_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { GST_OPENSORA_COMPAT_NONE, "Time steps as they are", "none" },
    { GST_OPENSORA_COMPAT_UPSTREAM, "Time steps rounded as upstream's are", "upstream" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraCompat", values));
  return type;
}

#define GST_TYPE_OPENSORA_RNG (gst_opensora_rng_get_type())
static GType
gst_opensora_rng_get_type(void)
{
  static GType type;
  static const GEnumValue values[] = {
    { OSR_RNG_PHILOX, "The same on every device", "philox" },
    { OSR_RNG_TORCH_CUDA, "What PyTorch draws on a GPU of this model, as upstream", "torch-cuda" },
    { 0, NULL, NULL },
  };

  if (g_once_init_enter(&type))
    g_once_init_leave(&type, g_enum_register_static("GstOpenSoraRng", values));
  return type;
}

const char *
gst_opensora_condition_nick(gint condition)
{
  GEnumClass *klass = g_type_class_ref(GST_TYPE_OPENSORA_CONDITION);
  const GEnumValue *value = g_enum_get_value(klass, condition);

  g_type_class_unref(klass); /* the type and its static values stay */
  return value ? value->value_nick : NULL;
}

void
gst_opensora_sampling_init(GstOpenSoraSampling *self)
{
  memset(self, 0, sizeof *self);
  self->guidance = self->guidance_image = self->flow_shift = -1.0;
  self->clip.guidance = self->clip.guidance_image = -1.0;
  self->condition = GST_OPENSORA_CONDITION_AUTO;
  self->cuda_graphs = TRUE;
}

void
gst_opensora_sampling_clear(GstOpenSoraSampling *self)
{
  g_clear_pointer(&self->resolution, g_free);
  g_clear_pointer(&self->aspect_ratio, g_free);
}

void
gst_opensora_sampling_install_properties(GObjectClass *klass, guint first_id)
{
  const GParamFlags flags = G_PARAM_READWRITE | G_PARAM_STATIC_STRINGS | GST_PARAM_MUTABLE_PLAYING;

  g_object_class_install_property(klass, first_id + GST_OPENSORA_SAMPLING_PROP_STEPS,
                                  g_param_spec_uint("steps", "Steps",
                                                    "Denoising steps; 0: the model's default", 0,
                                                    1000, 0, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_GUIDANCE,
      g_param_spec_double("guidance", "Guidance",
                          "How closely to follow the text; 1: no guidance, -1: the model's default",
                          -1.0, 100.0, -1.0, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_GUIDANCE_IMAGE,
      g_param_spec_double("guidance-image", "Image guidance",
                          "How closely to follow references; 1: no guidance, -1: the model's "
                          "default",
                          -1.0, 100.0, -1.0, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_TEXT_OSCILLATION,
      g_param_spec_enum("text-oscillation", "Text oscillation",
                        "Leave text guidance out on every second step from the 10th on",
                        GST_TYPE_OPENSORA_SWITCH, GST_OPENSORA_SWITCH_DEFAULT, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_IMAGE_OSCILLATION,
      g_param_spec_enum("image-oscillation", "Image oscillation",
                        "Leave image guidance out on every second step from the 10th on",
                        GST_TYPE_OPENSORA_SWITCH, GST_OPENSORA_SWITCH_DEFAULT, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_TEMPORAL_SCALING,
      g_param_spec_enum("temporal-scaling", "Temporal scaling",
                        "Let image guidance fall with the steps and rise along the clip",
                        GST_TYPE_OPENSORA_SWITCH, GST_OPENSORA_SWITCH_DEFAULT, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_SHIFT,
      g_param_spec_enum("shift", "Shift",
                        "Spend more steps on high noise, the more the larger the clip",
                        GST_TYPE_OPENSORA_SWITCH, GST_OPENSORA_SWITCH_DEFAULT, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_FLOW_SHIFT,
      g_param_spec_double("flow-shift", "Flow shift",
                          "Strength of the shift; 0: from the size of the clip, -1: the model's "
                          "default",
                          -1.0, 100.0, -1.0, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_NUM_FRAMES,
      g_param_spec_uint("num-frames", "Number of frames",
                        "Frames of a clip: 1 (a picture) or 4 k + 1; 0: the model's default", 0,
                        65533, 0, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_WIDTH,
      g_param_spec_uint("width", "Width", "Width of the frames, a multiple of 16; 0: as negotiated",
                        0, 8192, 0, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_HEIGHT,
      g_param_spec_uint("height", "Height",
                        "Height of the frames, a multiple of 16; 0: as negotiated", 0, 8192, 0,
                        flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_RESOLUTION,
      g_param_spec_string("resolution", "Resolution",
                          "Area of the frames by name (\"128px\", \"256px\", \"768px\", \"480p\"), "
                          "instead of width and height; goes with aspect-ratio",
                          NULL, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_ASPECT_RATIO,
      g_param_spec_string("aspect-ratio", "Aspect ratio",
                          "Shape of the frames by name (\"16:9\", \"9:16\", \"1:1\", \"2.39:1\", "
                          "...); goes with resolution",
                          NULL, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_CONDITION,
      g_param_spec_enum("condition", "Condition",
                        "What references are for; auto: one picture begins the clip, two are its "
                        "ends, a video goes on",
                        GST_TYPE_OPENSORA_CONDITION, GST_OPENSORA_CONDITION_AUTO, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_CUDA_GRAPHS,
      g_param_spec_boolean("cuda-graphs", "CUDA graphs",
                           "On a GPU, record what takes less than half a second and repeat it as "
                           "one call: the same clip, sooner",
                           TRUE, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_EXTEND,
      g_param_spec_int("extend", "Extend",
                       "How often a clip goes on from its own last frames, each time by nearly as "
                       "many; -1: until there is another prompt, or without end",
                       -1, G_MAXINT, 0, flags));
  g_object_class_install_property(
      klass, first_id + GST_OPENSORA_SAMPLING_PROP_COMPAT,
      g_param_spec_enum("compat", "Compatibility",
                        "Whose roundings to follow; no difference where the model computes in f32",
                        GST_TYPE_OPENSORA_COMPAT, GST_OPENSORA_COMPAT_NONE, flags));
  g_object_class_install_property(klass, first_id + GST_OPENSORA_SAMPLING_PROP_RNG,
                                  g_param_spec_enum("rng", "Noise", "What noise a seed stands for",
                                                    GST_TYPE_OPENSORA_RNG, OSR_RNG_PHILOX, flags));

  gst_type_mark_as_plugin_api(GST_TYPE_OPENSORA_RNG, 0);
  gst_type_mark_as_plugin_api(GST_TYPE_OPENSORA_SWITCH, 0);
  gst_type_mark_as_plugin_api(GST_TYPE_OPENSORA_COMPAT, 0);
  gst_type_mark_as_plugin_api(GST_TYPE_OPENSORA_CONDITION, 0);
}

static void
set_string(char **field, const GValue *value)
{
  const char *s = g_value_get_string(value);

  g_free(*field);
  *field = s && *s ? g_strdup(s) : NULL;
}

gboolean
gst_opensora_sampling_set_property(GstOpenSoraSampling *self, GstElement *element, guint id,
                                   const GValue *value)
{
  gboolean known = TRUE;

  GST_OBJECT_LOCK(element);
  switch (id) {
  case GST_OPENSORA_SAMPLING_PROP_STEPS:
    self->steps = g_value_get_uint(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_GUIDANCE:
    self->guidance = g_value_get_double(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_GUIDANCE_IMAGE:
    self->guidance_image = g_value_get_double(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_TEXT_OSCILLATION:
    self->text_oscillation = g_value_get_enum(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_IMAGE_OSCILLATION:
    self->image_oscillation = g_value_get_enum(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_TEMPORAL_SCALING:
    self->temporal_scaling = g_value_get_enum(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_SHIFT:
    self->shift = g_value_get_enum(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_FLOW_SHIFT:
    self->flow_shift = g_value_get_double(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_NUM_FRAMES:
    self->num_frames = g_value_get_uint(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_WIDTH:
    self->width = g_value_get_uint(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_HEIGHT:
    self->height = g_value_get_uint(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_RESOLUTION:
    set_string(&self->resolution, value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_ASPECT_RATIO:
    set_string(&self->aspect_ratio, value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_CONDITION:
    self->condition = g_value_get_enum(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_CUDA_GRAPHS:
    self->cuda_graphs = g_value_get_boolean(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_COMPAT:
    self->compat = g_value_get_enum(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_RNG:
    self->rng = g_value_get_enum(value);
    break;
  case GST_OPENSORA_SAMPLING_PROP_EXTEND:
    self->extend = g_value_get_int(value);
    break;
  default:
    known = FALSE;
  }
  GST_OBJECT_UNLOCK(element);
  return known;
}

gboolean
gst_opensora_sampling_get_property(GstOpenSoraSampling *self, GstElement *element, guint id,
                                   GValue *value)
{
  gboolean known = TRUE;

  GST_OBJECT_LOCK(element);
  switch (id) {
  case GST_OPENSORA_SAMPLING_PROP_STEPS:
    g_value_set_uint(value, self->steps);
    break;
  case GST_OPENSORA_SAMPLING_PROP_GUIDANCE:
    g_value_set_double(value, self->guidance);
    break;
  case GST_OPENSORA_SAMPLING_PROP_GUIDANCE_IMAGE:
    g_value_set_double(value, self->guidance_image);
    break;
  case GST_OPENSORA_SAMPLING_PROP_TEXT_OSCILLATION:
    g_value_set_enum(value, self->text_oscillation);
    break;
  case GST_OPENSORA_SAMPLING_PROP_IMAGE_OSCILLATION:
    g_value_set_enum(value, self->image_oscillation);
    break;
  case GST_OPENSORA_SAMPLING_PROP_TEMPORAL_SCALING:
    g_value_set_enum(value, self->temporal_scaling);
    break;
  case GST_OPENSORA_SAMPLING_PROP_SHIFT:
    g_value_set_enum(value, self->shift);
    break;
  case GST_OPENSORA_SAMPLING_PROP_FLOW_SHIFT:
    g_value_set_double(value, self->flow_shift);
    break;
  case GST_OPENSORA_SAMPLING_PROP_NUM_FRAMES:
    g_value_set_uint(value, self->num_frames);
    break;
  case GST_OPENSORA_SAMPLING_PROP_WIDTH:
    g_value_set_uint(value, self->width);
    break;
  case GST_OPENSORA_SAMPLING_PROP_HEIGHT:
    g_value_set_uint(value, self->height);
    break;
  case GST_OPENSORA_SAMPLING_PROP_RESOLUTION:
    g_value_set_string(value, self->resolution);
    break;
  case GST_OPENSORA_SAMPLING_PROP_ASPECT_RATIO:
    g_value_set_string(value, self->aspect_ratio);
    break;
  case GST_OPENSORA_SAMPLING_PROP_CONDITION:
    g_value_set_enum(value, self->condition);
    break;
  case GST_OPENSORA_SAMPLING_PROP_CUDA_GRAPHS:
    g_value_set_boolean(value, self->cuda_graphs);
    break;
  case GST_OPENSORA_SAMPLING_PROP_COMPAT:
    g_value_set_enum(value, self->compat);
    break;
  case GST_OPENSORA_SAMPLING_PROP_RNG:
    g_value_set_enum(value, self->rng);
    break;
  case GST_OPENSORA_SAMPLING_PROP_EXTEND:
    g_value_set_int(value, self->extend);
    break;
  default:
    known = FALSE;
  }
  GST_OBJECT_UNLOCK(element);
  return known;
}

static gboolean
switch_value(GstOpenSoraSwitch value, gboolean fallback)
{
  return value == GST_OPENSORA_SWITCH_DEFAULT ? fallback : value == GST_OPENSORA_SWITCH_ON;
}

gboolean
gst_opensora_sampling_set_clip(GstOpenSoraSampling *self, GstElement *element,
                               const GstStructure *clip)
{
  guint steps = 0, num_frames = 0, width = 0, height = 0;
  double guidance = -1.0, guidance_image = -1.0;
  gboolean changed;

  if (clip) {
    gst_structure_get_uint(clip, "steps", &steps);
    gst_structure_get_uint(clip, "frames", &num_frames);
    gst_structure_get_uint(clip, "width", &width);
    gst_structure_get_uint(clip, "height", &height);
    gst_structure_get_double(clip, "guidance", &guidance);
    gst_structure_get_double(clip, "guidance-image", &guidance_image);
  }
  GST_OBJECT_LOCK(element);
  changed = num_frames != self->clip.num_frames || width != self->clip.width ||
            height != self->clip.height;
  self->clip.steps = steps;
  self->clip.num_frames = num_frames;
  self->clip.width = width;
  self->clip.height = height;
  self->clip.guidance = guidance;
  self->clip.guidance_image = guidance_image;
  GST_OBJECT_UNLOCK(element);
  return changed;
}

/* What the clip asks for, else the property, else the model's own. */
static guint
first_number(guint clip, guint property, guint own)
{
  return clip ? clip : property ? property : own;
}

static double
first_strength(double clip, double property, double own)
{
  return clip >= 0 ? clip : property >= 0 ? property : own;
}

void
gst_opensora_sampling_get_params(GstOpenSoraSampling *self, GstElement *element,
                                 const OsrModelDir *dir, OsrSamplingParams *params, gint *condition)
{
  *params = dir->sampling;

  GST_OBJECT_LOCK(element);
  params->num_steps = first_number(self->clip.steps, self->steps, params->num_steps);
  params->num_frames = first_number(self->clip.num_frames, self->num_frames, params->num_frames);
  params->guidance = first_strength(self->clip.guidance, self->guidance, params->guidance);
  params->guidance_img =
      first_strength(self->clip.guidance_image, self->guidance_image, params->guidance_img);
  if (self->flow_shift >= 0)
    params->flow_shift = self->flow_shift;
  params->text_osci = switch_value(self->text_oscillation, params->text_osci);
  params->image_osci = switch_value(self->image_oscillation, params->image_osci);
  params->scale_temporal_osci = switch_value(self->temporal_scaling, params->scale_temporal_osci);
  params->shift = switch_value(self->shift, params->shift);
  params->use_graphs = self->cuda_graphs;
  params->round_times = self->compat == GST_OPENSORA_COMPAT_UPSTREAM;
  params->rng = self->rng;
  *condition = self->condition;
  GST_OBJECT_UNLOCK(element);
}

void
gst_opensora_sampling_describe(const OsrSamplingParams *params, GstStructure *clip)
{
  gst_structure_set(clip, "seed", G_TYPE_UINT64, params->seed, "steps", G_TYPE_UINT,
                    params->num_steps, "frames", G_TYPE_UINT, params->num_frames, "width",
                    G_TYPE_UINT, params->width, "height", G_TYPE_UINT, params->height, "guidance",
                    G_TYPE_DOUBLE, params->guidance, "guidance-image", G_TYPE_DOUBLE,
                    params->guidance_img, "text-oscillation", G_TYPE_BOOLEAN, params->text_osci,
                    "image-oscillation", G_TYPE_BOOLEAN, params->image_osci, "temporal-scaling",
                    G_TYPE_BOOLEAN, params->scale_temporal_osci, "shift", G_TYPE_BOOLEAN,
                    params->shift, "flow-shift", G_TYPE_DOUBLE, params->flow_shift, NULL);
  if (params->round_times)
    gst_structure_set(clip, "compat", G_TYPE_STRING, "upstream", NULL);
  if (params->rng == OSR_RNG_TORCH_CUDA)
    gst_structure_set(clip, "rng", G_TYPE_STRING, "torch-cuda", NULL);
}

gint
gst_opensora_sampling_get_extend(GstOpenSoraSampling *self, GstElement *element)
{
  gint extend;

  GST_OBJECT_LOCK(element);
  extend = self->extend;
  GST_OBJECT_UNLOCK(element);
  return extend;
}

gboolean
gst_opensora_sampling_get_size(GstOpenSoraSampling *self, GstElement *element,
                               const OsrModelDir *dir, guint *width, guint *height, GError **error)
{
  g_autofree char *resolution = NULL;
  g_autofree char *aspect_ratio = NULL;

  GST_OBJECT_LOCK(element);
  *width = self->width;
  *height = self->height;
  resolution = g_strdup(self->resolution);
  aspect_ratio = g_strdup(self->aspect_ratio);
  GST_OBJECT_UNLOCK(element);

  if (!resolution && !aspect_ratio)
    return TRUE;
  if (*width || *height) {
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                        "set either width and height, or resolution and aspect-ratio");
    return FALSE;
  }
  if (!resolution) {
    /* The model's own area at another shape. */
    const double area = (double) dir->sampling.width * dir->sampling.height;

    resolution = g_strdup_printf("%upx", (guint) (sqrt(area) + 0.5));
  }
  return osr_aspect_size(resolution, aspect_ratio ? aspect_ratio : "16:9", width, height, error);
}

/* The possible sizes around @size, the same twice if it is too small or too large. */
static void
nearest_sizes(guint size, guint *below, guint *above)
{
  const guint unit = GST_OPENSORA_SIZE_UNIT;

  size = CLAMP(size, unit, GST_OPENSORA_MAX_SIZE);
  *below = size / unit * unit;
  *above = (size + unit - 1) / unit * unit;
}

static gboolean
size_is_possible(guint size)
{
  return size >= GST_OPENSORA_SIZE_UNIT && size <= GST_OPENSORA_MAX_SIZE &&
         size % GST_OPENSORA_SIZE_UNIT == 0;
}

/* Appends "width 500 (the nearest are 496 and 512)". */
static void
describe_size(GString *text, const char *what, guint size)
{
  guint below, above;

  nearest_sizes(size, &below, &above);
  g_string_append_printf(text, "%s%s %u (the nearest %s %u", text->len > 0 ? ", " : "", what, size,
                         below == above ? "is" : "are", below);
  if (below != above)
    g_string_append_printf(text, " and %u", above);
  g_string_append_c(text, ')');
}

#define POSSIBLE_SIZES                                                                             \
  "widths and heights are multiples of " G_STRINGIFY(                                              \
      GST_OPENSORA_SIZE_UNIT) " up to " G_STRINGIFY(GST_OPENSORA_MAX_SIZE)

char *
gst_opensora_sampling_describe_impossible(const GstCaps *caps)
{
  static const char *const names[] = { "width", "height" };
  g_autoptr(GString) text = g_string_new(NULL);
  const GstStructure *s;
  gint value, fps_n, fps_d;

  if (gst_caps_is_any(caps) || gst_caps_is_empty(caps))
    return NULL;
  s = gst_caps_get_structure(caps, 0);
  for (guint i = 0; i < G_N_ELEMENTS(names); i++)
    if (gst_structure_get_int(s, names[i], &value) && !size_is_possible((guint) MAX(value, 0)))
      describe_size(text, names[i], (guint) MAX(value, 0));
  if (text->len > 0)
    return g_strdup_printf("%s cannot be generated: " POSSIBLE_SIZES ".", text->str);
  if (gst_structure_get_fraction(s, "framerate", &fps_n, &fps_d) &&
      (gst_util_fraction_compare(fps_n, fps_d, 1, 1) < 0 ||
       gst_util_fraction_compare(fps_n, fps_d, 240, 1) > 0))
    return g_strdup_printf("%d/%d frames a second cannot be generated: 1 to 240 can.", fps_n,
                           fps_d);
  return NULL;
}

/* For sizes that the properties ask for, 0 where they do not. */
static gboolean
check_size(guint width, guint height, GError **error)
{
  g_autoptr(GString) text = g_string_new(NULL);
  const double largest = MAX(width, height);

  if (width && !size_is_possible(width))
    describe_size(text, "width", width);
  if (height && !size_is_possible(height))
    describe_size(text, "height", height);
  if (text->len == 0)
    return TRUE;
  if (width && height && largest > GST_OPENSORA_MAX_SIZE) {
    const double factor = GST_OPENSORA_MAX_SIZE / largest;
    guint w, h, unused;

    nearest_sizes((guint) (width * factor), &w, &unused);
    nearest_sizes((guint) (height * factor), &h, &unused);
    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "frames of %u x %u are too large: no side can be above %d, of this shape the "
                "largest are %u x %u",
                width, height, GST_OPENSORA_MAX_SIZE, w, h);
    return FALSE;
  }
  g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT, "%s is not possible: " POSSIBLE_SIZES,
              text->str);
  return FALSE;
}

/* "width 64", "64 x 48" */
static char *
size_to_string(guint width, guint height)
{
  if (width && height)
    return g_strdup_printf("%u x %u", width, height);
  return width ? g_strdup_printf("width %u", width) : g_strdup_printf("height %u", height);
}

/* The part of @caps that has this size, where one is given. (takes @caps) */
static GstCaps *
restrict_size(GstCaps *caps, guint width, guint height)
{
  GstCaps *wanted = gst_caps_copy(caps), *fitting;

  if (width)
    gst_caps_set_simple(wanted, "width", G_TYPE_INT, (gint) width, NULL);
  if (height)
    gst_caps_set_simple(wanted, "height", G_TYPE_INT, (gint) height, NULL);
  fitting = gst_caps_intersect(caps, wanted);
  gst_caps_unref(wanted);
  gst_caps_unref(caps);
  return fitting;
}

GstCaps *
gst_opensora_sampling_fixate_caps(GstOpenSoraSampling *self, GstElement *element,
                                  const OsrModelDir *dir, GstCaps *caps, GError **error)
{
  OsrSamplingParams params;
  guint width, height;
  gint condition;
  GstStructure *s;

  gst_opensora_sampling_get_params(self, element, dir, &params, &condition);
  if (!gst_opensora_sampling_get_size(self, element, dir, &width, &height, error) ||
      !check_size(width, height, error)) {
    gst_caps_unref(caps);
    return NULL;
  }
  GST_OBJECT_LOCK(element);
  width = first_number(self->clip.width, width, 0);
  height = first_number(self->clip.height, height, 0);
  GST_OBJECT_UNLOCK(element);
  if (width || height)
    caps = restrict_size(caps, width, height);
  if (gst_caps_is_empty(caps)) {
    g_autofree char *size = size_to_string(width, height);

    g_set_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT,
                "frames of %s were asked for, but the elements after the decoder do not take them",
                size);
    gst_caps_unref(caps);
    return NULL;
  }
  caps = gst_caps_make_writable(gst_caps_truncate(caps));
  s = gst_caps_get_structure(caps, 0);
  gst_structure_fixate_field_nearest_int(s, "width", (gint) params.width);
  gst_structure_fixate_field_nearest_int(s, "height", (gint) params.height);
  gst_structure_set(s, "frames", G_TYPE_INT, (gint) params.num_frames, NULL);
  return caps;
}

/* FALSE if the decoder says why not; others are not asked. */
static gboolean
check_decoder(GstPad *srcpad, GstCaps *caps, GError **error)
{
  GstQuery *query =
      gst_query_new_custom(GST_QUERY_CUSTOM, gst_structure_new(GST_OPENSORA_DECODE_QUERY, "caps",
                                                               GST_TYPE_CAPS, caps, NULL));
  const char *reason = NULL;

  if (gst_pad_peer_query(srcpad, query))
    reason = gst_structure_get_string(gst_query_get_structure(query), "reason");
  if (reason)
    g_set_error_literal(error, OSR_ERROR, OSR_ERROR_MEMORY, reason);
  gst_query_unref(query);
  return !reason;
}

gboolean
gst_opensora_sampling_check_clip(GstOpenSoraSampling *self, GstElement *element,
                                 const OsrModelDir *dir, GstPad *srcpad, GstCaps *possible,
                                 GError **error)
{
  g_autoptr(GstCaps) caps = gst_pad_peer_query_caps(srcpad, possible);
  gint width = 0, height = 0, frames = 0, condition;
  OsrSamplingParams params;
  const GstStructure *s;

  gst_caps_unref(possible);
  caps = gst_opensora_sampling_fixate_caps(self, element, dir, g_steal_pointer(&caps), error);
  if (!caps)
    return FALSE;
  s = gst_caps_get_structure(caps, 0);
  gst_structure_get(s, "width", G_TYPE_INT, &width, "height", G_TYPE_INT, &height, "frames",
                    G_TYPE_INT, &frames, NULL);
  gst_opensora_sampling_get_params(self, element, dir, &params, &condition);
  params.width = (guint) width;
  params.height = (guint) height;
  params.num_frames = (guint) frames;
  return osr_sampling_params_check(&params, &dir->mmdit, dir->vae.spatial_compression_ratio,
                                   dir->vae.time_compression_ratio, error) &&
         check_decoder(srcpad, caps, error);
}
