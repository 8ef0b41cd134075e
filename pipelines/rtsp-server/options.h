/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * options.h: the command line of the RTSP server, checked and with its defaults filled in.
 */
#pragma once

#include <gio/gio.h>

G_BEGIN_DECLS

typedef enum {
  AFTER_CLIP_HOLD, /* its last frame stays */
  AFTER_CLIP_LOOP,
  AFTER_CLIP_END, /* the stream ends */
} AfterClip;

typedef struct {
  /* RTSP */
  char *address;
  guint16 port; /* 0: any */
  guint max_clients;
  char *certificate, *key; /* PEM files; NULL: no TLS */
  char *user;              /* NAME:PASSWORD; NULL: none */
  char *users, *htdigest;  /* files; NULL: none */

  /* HTTP */
  gboolean http;
  char *http_address;
  guint16 http_port;

  /* Video: what the model does best unless said otherwise */
  guint width, height; /* multiples of 16 */
  gint fps_n, fps_d;
  guint bitrate; /* kbit/s */

  /* Generation */
  char *model, *device;    /* NULL: the element's own default */
  guint num_frames, steps; /* 0: the model's own */
  gint64 seed;             /* -1: a random one for every clip */

  /* /live */
  char **prompts;     /* from the command line; NULL: none */
  char *prompts_file; /* NULL: none */
  gboolean repeat_prompts;
  guint max_queue;
  guint max_prompt; /* bytes of UTF-8 */
  char *repeat;     /* nick of opensoraplayout's property */
  guint transition_frames;
  char *slate; /* NULL: a colour */

  /* /clip */
  guint max_clips;
  AfterClip after_clip;
} Options;

/* Returns NULL with @error for what is not understood or cannot be. Handles --help, which ends the
 * program. gst_init() is done when it returns. */
Options *options_parse(int *argc, char ***argv, GError **error);
void options_free(Options *self);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(Options, options_free)

G_END_DECLS
