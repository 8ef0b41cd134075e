/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * common.h: what the tests of the elements share. Every test runs in a process of its own
 * (check's default), is given up after CK_DEFAULT_TIMEOUT seconds, and fails if it leaves a
 * GStreamer object or a tensor behind.
 */
#pragma once

#include <gst/check/check.h>
#include <gst/check/gstharness.h>

#include "gstopensora.h"
#include "gstopensoramemory.h"

/* How long a test waits for what has to come, and for what has to be quick. */
#define WAIT_TIME (15 * GST_SECOND)
#define QUICK_TIME (2 * GST_SECOND)

/* What ends up in a test case: test_..., with the setup and the leak check around each. */
TCase *common_case(Suite *suite, const char *name);
/* Runs the suite. */
int common_main(int argc, char **argv, Suite *(*make_suite)(void) );
/* The same; 77 (skipped) where one of the elements that are needed is not installed. */
int common_main_with(int argc, char **argv, Suite *(*make_suite)(void), const char *const *needed);

/* The device that the elements use, held from before the test to its end. */
OsrDevice *common_device(void);
/* What the folder in OPENSORA_MODEL holds. */
const OsrModelDir *common_model_dir(void);
/* A file of this test, freed with g_free(). */
char *temp_path(const char *name);
char *temp_file(const char *name, const char *contents, gssize length);

/**
 * Clip:
 *
 * What the clip meta of a buffer says, read as an application does: with GStreamer's own means
 * and the names in the documentation. NULL and 0 for fields that are not there.
 */
typedef struct {
  const char *prompt, *negative_prompt, *model, *reference, *condition, *tag;
  guint64 id, seed;
  guint clip, motion_score, steps, frames, width, height, n_fields;
  gint fps_n, fps_d;
  double guidance, guidance_image, flow_shift;
  gboolean decorate, text_oscillation, image_oscillation, temporal_scaling, shift;
} Clip;

/* Fails if there is none. (transfer none; until the end of the test) */
const Clip *clip_meta(GstBuffer *buffer);
/* The tensor in memory @i, fails if there is none. (transfer none) */
OsrTensor *tensor_of(GstBuffer *buffer, guint i);
/* fails unless the tensors of both are the same, element by element. */
void assert_same_tensors(GstBuffer *a, GstBuffer *b);
gboolean same_tensors(GstBuffer *a, GstBuffer *b);
/* Latent frame @t of @clip (from the end if negative) against frame @u of @reference. */
gboolean same_frame(GstBuffer *clip, gint t, GstBuffer *reference, gint u);

/* The element of that name inside @bin. (transfer none) */
GstElement *child(GstElement *bin, const char *name);

/**
 * Run:
 *
 * A pipeline with an appsink called "out", brought to its end.
 */
typedef struct {
  GstElement *pipeline;
  GPtrArray *samples;  /* GstSample */
  GPtrArray *messages; /* GstMessage, in order */
  GError *error;       /* the first */
  gboolean eos;
} Run;

/* Builds a pipeline as gst-launch-1.0 would and runs it to its end or an error. */
Run *run(const char *format, ...) G_GNUC_PRINTF(1, 2);
Run *run_pipeline(GstElement *pipeline);
void run_free(Run *run);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Run, run_free)
/* The same, and it has to go well and give @n samples. */
Run *run_ok(guint n, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The same, and it has to fail with that error, whose message has @part in it. */
void run_fails(GQuark domain, int code, const char *part, const char *format, ...)
    G_GNUC_PRINTF(4, 5);
GstBuffer *run_buffer(Run *run, guint i);
const GstStructure *run_caps(Run *run, guint i);

/* The next message on @bus of @type; fails after WAIT_TIME or at an error message. */
GstMessage *wait_message(GstBus *bus, GstMessageType type);
/* The next error on @bus has to be that one, with @part in its message. */
void wait_error(GstBus *bus, GQuark domain, int code, const char *part);
/* Waits until an element reports a step of @stage; errors end the test. */
void wait_progress(GstBus *bus, const char *stage);

/* A harness for an element with @format's properties, and its bus. */
GstHarness *harness(GstBus **bus, const char *format, ...) G_GNUC_PRINTF(2, 3);
void harness_free(GstHarness *h, GstBus *bus);
/* Conditioning buffers (n of them, seeds counting from 42) and their caps, of textsrc. */
GPtrArray *make_conditioning(guint n, GstCaps **caps);
/* A latent of a moving test picture, from vaeenc, and its caps. */
GstBuffer *make_latent(guint width, guint height, guint frames, const char *rate, GstCaps **caps);
