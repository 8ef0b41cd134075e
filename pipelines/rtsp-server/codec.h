/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * codec.h: how frames are encoded and packed for RTP, with the encoders that this machine has.
 */
#pragma once

#include "options.h"

G_BEGIN_DECLS

typedef enum { CODEC_H264, CODEC_VP8, N_CODECS } Codec;

typedef struct {
  const char *name;    /* of the codec, for people */
  const char *suffix;  /* of mount points */
  const char *encoder; /* NULL: there is none that works */
  char *description;   /* from raw video to the pay-loader "pay0", for gst_parse_launch() */
} CodecChoice;

/* Tries the encoders with the video of @options; the first of each codec that gives a frame is
 * taken. */
void codecs_choose(const Options *options, CodecChoice choices[N_CODECS]);
void codecs_clear(CodecChoice choices[N_CODECS]);

G_END_DECLS
