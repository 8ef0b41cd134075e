/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "gstopensora.h"

G_BEGIN_DECLS

/* The property "condition" leaves the choice to the references that are there. */
#define GST_OPENSORA_CONDITION_AUTO (-1)

/**
 * GstOpenSoraSwitch:
 *
 * A boolean that can be left to the model's defaults.
 */
typedef enum {
  GST_OPENSORA_SWITCH_DEFAULT,
  GST_OPENSORA_SWITCH_OFF,
  GST_OPENSORA_SWITCH_ON,
} GstOpenSoraSwitch;

/* Whose roundings to follow. */
typedef enum {
  GST_OPENSORA_COMPAT_NONE,
  GST_OPENSORA_COMPAT_UPSTREAM,
} GstOpenSoraCompat;

/**
 * GstOpenSoraSampling:
 *
 * The sampling properties of opensoradenoise. Embedded in the element and guarded by its
 * object lock; 0 and negative values stand for the model's defaults.
 */
typedef struct {
  guint steps, num_frames, width, height;
  double guidance, guidance_image, flow_shift;
  GstOpenSoraSwitch text_oscillation, image_oscillation, temporal_scaling, shift;
  char *resolution, *aspect_ratio;
  gint condition;
  gboolean cuda_graphs;
  GstOpenSoraCompat compat;
  OsrRng rng;
  gint extend; /* < 0: without end */

  /* What the clip at hand asks for, before the properties; 0 and negative: nothing. */
  struct {
    guint steps, num_frames, width, height;
    double guidance, guidance_image;
  } clip;
} GstOpenSoraSampling;

enum {
  GST_OPENSORA_SAMPLING_PROP_STEPS,
  GST_OPENSORA_SAMPLING_PROP_GUIDANCE,
  GST_OPENSORA_SAMPLING_PROP_GUIDANCE_IMAGE,
  GST_OPENSORA_SAMPLING_PROP_TEXT_OSCILLATION,
  GST_OPENSORA_SAMPLING_PROP_IMAGE_OSCILLATION,
  GST_OPENSORA_SAMPLING_PROP_TEMPORAL_SCALING,
  GST_OPENSORA_SAMPLING_PROP_SHIFT,
  GST_OPENSORA_SAMPLING_PROP_FLOW_SHIFT,
  GST_OPENSORA_SAMPLING_PROP_CONDITION,
  GST_OPENSORA_SAMPLING_PROP_CUDA_GRAPHS,
  GST_OPENSORA_SAMPLING_PROP_COMPAT,
  GST_OPENSORA_SAMPLING_PROP_RNG,
  GST_OPENSORA_SAMPLING_PROP_EXTEND,
  GST_OPENSORA_SAMPLING_PROP_NUM_FRAMES, /* this and the rest change the caps */
  GST_OPENSORA_SAMPLING_PROP_WIDTH,
  GST_OPENSORA_SAMPLING_PROP_HEIGHT,
  GST_OPENSORA_SAMPLING_PROP_RESOLUTION,
  GST_OPENSORA_SAMPLING_PROP_ASPECT_RATIO,
  GST_OPENSORA_SAMPLING_N_PROPS
};

/* "i2v-head": the name of a value of the property "condition". */
const char *gst_opensora_condition_nick(gint condition);

void gst_opensora_sampling_init(GstOpenSoraSampling *self);
void gst_opensora_sampling_clear(GstOpenSoraSampling *self);
/* The properties get the ids first_id + GST_OPENSORA_SAMPLING_PROP_*. */
void gst_opensora_sampling_install_properties(GObjectClass *klass, guint first_id);
/* @id relative to first_id; FALSE if it is none of ours. */
gboolean gst_opensora_sampling_set_property(GstOpenSoraSampling *self, GstElement *element,
                                            guint id, const GValue *value);
gboolean gst_opensora_sampling_get_property(GstOpenSoraSampling *self, GstElement *element,
                                            guint id, GValue *value);

/* From now on what the meta @clip (NULL: nothing) asks for goes before the properties: steps,
 * frames, width, height, guidance and guidance-image. TRUE if that may change the caps. */
gboolean gst_opensora_sampling_set_clip(GstOpenSoraSampling *self, GstElement *element,
                                        const GstStructure *clip);
/* The properties over the defaults of @dir. */
void gst_opensora_sampling_get_params(GstOpenSoraSampling *self, GstElement *element,
                                      const OsrModelDir *dir, OsrSamplingParams *params,
                                      gint *condition);
/* What a clip's meta says of @params. */
void gst_opensora_sampling_describe(const OsrSamplingParams *params, GstStructure *clip);
/* How often a clip goes on; < 0: without end. */
gint gst_opensora_sampling_get_extend(GstOpenSoraSampling *self, GstElement *element);
/* The frame size that the properties ask for, 0 for what they leave open. */
gboolean gst_opensora_sampling_get_size(GstOpenSoraSampling *self, GstElement *element,
                                        const OsrModelDir *dir, guint *width, guint *height,
                                        GError **error);
/* Fixes size and number of frames in @caps, which are not empty: what the properties want, else
 * nearest to the model's own. NULL with @error if what the properties want is not possible, or
 * not in @caps. (takes @caps) */
GstCaps *gst_opensora_sampling_fixate_caps(GstOpenSoraSampling *self, GstElement *element,
                                           const OsrModelDir *dir, GstCaps *caps, GError **error);

/* Whether a clip can be made as the properties and the clip at hand want it: of all that is
 * @possible, what is after @srcpad takes some, the model can sample it, and the decoder, where it
 * is one of ours, can decode it. (takes @possible) */
gboolean gst_opensora_sampling_check_clip(GstOpenSoraSampling *self, GstElement *element,
                                          const OsrModelDir *dir, GstPad *srcpad, GstCaps *possible,
                                          GError **error);

/* Why downstream's @caps, whose size is restricted by nothing of ours, cannot be generated: the
 * widths, heights and frame rates in them that are not possible, and the nearest that are.
 * NULL: it is not for these. (transfer full) */
char *gst_opensora_sampling_describe_impossible(const GstCaps *caps);

G_END_DECLS
