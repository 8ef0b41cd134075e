/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gst/gst.h>

#include "sampler.h"

G_BEGIN_DECLS

/**
 * GstOpenSoraClipMeta:
 * @prompt: as the user gave it
 * @negative_prompt: likewise; NULL: none
 * @model: name of the model
 * @reference: path or URI of the reference media that the prompt file named; NULL: none
 * @clip: number of the clip in its stream, from 0
 * @seed: of the noise; @sequence: number among the clips of this seed
 * @fps_n, @fps_d: frame rate
 * @motion_score: as put into the prompt, 0: none
 * @steps, @num_frames, @width, @height, @guidance, @guidance_img, @condition: as the clip
 *   was denoised; 0 before the denoiser
 *
 * What a clip was made from. Travels with each clip from the prompt to the frames.
 */
typedef struct {
  GstMeta meta;

  char *prompt, *negative_prompt, *model, *reference;
  guint clip;
  guint64 seed;
  guint32 sequence;
  gint fps_n, fps_d;
  guint motion_score;

  guint steps, num_frames, width, height;
  double guidance, guidance_img;
  OsrCondition condition;
} GstOpenSoraClipMeta;

#define GST_OPENSORA_CLIP_META_API_TYPE (gst_opensora_clip_meta_api_get_type())
#define GST_OPENSORA_CLIP_META_INFO (gst_opensora_clip_meta_get_info())

GType gst_opensora_clip_meta_api_get_type(void);
const GstMetaInfo *gst_opensora_clip_meta_get_info(void);

/* An empty meta on a writable buffer; the strings it is given are owned by it. */
GstOpenSoraClipMeta *gst_buffer_add_opensora_clip_meta(GstBuffer *buffer);
/* NULL if there is none. */
GstOpenSoraClipMeta *gst_buffer_get_opensora_clip_meta(GstBuffer *buffer);
/* Copies @meta to another buffer. */
GstOpenSoraClipMeta *
gst_opensora_clip_meta_copy(const GstOpenSoraClipMeta *meta, GstBuffer *buffer);

/* The clip's tags: title and description hold the prompt, comment the parameters that make
 * the clip again, application-name ours. (transfer full) */
GstTagList *gst_opensora_clip_meta_to_tags(const GstOpenSoraClipMeta *meta);

G_END_DECLS
