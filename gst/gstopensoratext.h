/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "gstopensora.h"
#include "gstopensoraclipmeta.h"
#include "gstopensorapromptqueue.h"

G_BEGIN_DECLS

/* What the text encoders compute in. */
typedef enum {
  GST_OPENSORA_TEXT_DTYPE_AUTO, /* as the property "dtype" says */
  GST_OPENSORA_TEXT_DTYPE_F32,
  GST_OPENSORA_TEXT_DTYPE_TF32,
  GST_OPENSORA_TEXT_DTYPE_BF16,
} GstOpenSoraTextDType;

/**
 * GstOpenSoraText:
 *
 * What opensoratextsrc and opensoratextenc have in common: the properties negative-prompt,
 * seed, num-samples, motion-score, decorate, text-dtype, skip-failed and current-id, the tickets of
 * their prompts, and the encoding of a prompt. Embedded in the element; guarded by the element's
 * object lock, but for the tickets, which have their own.
 */
typedef struct {
  char *negative_prompt;
  gint64 seed; /* < 0: a random one a clip */
  guint num_samples;
  gint motion_score; /* < 0: the model's own, 0: none */
  gboolean decorate, skip_failed;
  GstOpenSoraTickets tickets;
  GstOpenSoraTextDType dtype;
} GstOpenSoraText;

enum {
  GST_OPENSORA_TEXT_PROP_NEGATIVE_PROMPT,
  GST_OPENSORA_TEXT_PROP_SEED,
  GST_OPENSORA_TEXT_PROP_NUM_SAMPLES,
  GST_OPENSORA_TEXT_PROP_MOTION_SCORE,
  GST_OPENSORA_TEXT_PROP_DECORATE,
  GST_OPENSORA_TEXT_PROP_TEXT_DTYPE,
  GST_OPENSORA_TEXT_PROP_SKIP_FAILED,
  GST_OPENSORA_TEXT_PROP_CURRENT_ID,
  GST_OPENSORA_TEXT_N_PROPS
};

void gst_opensora_text_init(GstOpenSoraText *self);
void gst_opensora_text_clear(GstOpenSoraText *self);
/* The properties get the ids first_id + GST_OPENSORA_TEXT_PROP_*. */
void gst_opensora_text_install_properties(GObjectClass *klass, guint first_id);
/* @id relative to first_id; FALSE if it is none of ours. */
gboolean gst_opensora_text_set_property(GstOpenSoraText *self, GstElement *element, guint id,
                                        const GValue *value);
gboolean gst_opensora_text_get_property(GstOpenSoraText *self, GstElement *element, guint id,
                                        GValue *value);

/* gst_opensora_model_open() for the text encoders, in the type that is wanted. */
gboolean gst_opensora_text_open(GstOpenSoraText *self, GstElement *element,
                                GstOpenSoraModel *model);

/* The turn of @prompt has come: its first clip gets the number @clip. Returns how many clips there
 * will be. */
guint gst_opensora_text_start(GstOpenSoraText *self, GstElement *element,
                              const GstOpenSoraPrompt *prompt, guint clip, gboolean skip_failed);

/* One clip of a prompt to be encoded. */
typedef struct {
  const GstOpenSoraPrompt *prompt;
  const char *reference; /* where the prompt has none; NULL: none */
  guint clip;            /* number in the stream */
  guint sample;          /* number among the clips of this prompt */
  gint fps_n, fps_d;
} GstOpenSoraTextClip;

/* Encodes @clip into a conditioning buffer with its meta; posts progress, and a warning for
 * a prompt that is longer than the model takes. On failure *buffer is NULL, an element
 * error has been posted unless cancelled, and the return says what to pass on. It is FLUSHING,
 * too, for a prompt that was cancelled or is skipped: its ticket is over. */
GstFlowReturn gst_opensora_text_encode(GstOpenSoraText *self, GstElement *element, OsrModel *model,
                                       const GstOpenSoraTextClip *clip, GCancellable *cancellable,
                                       GstBuffer **buffer);

/* The source pad's caps for @model: its family, and @framerate if it is fixed. */
GstCaps *gst_opensora_text_caps(OsrModel *model);
/* Fixates caps on the frame rate nearest to the model's own. (takes @caps) */
GstCaps *gst_opensora_text_fixate(OsrModel *model, GstCaps *caps);

G_END_DECLS
