/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "codec.h"

#include <gst/gst.h>

#include "log.h"

#define PROBE_TIMEOUT (10 * GST_SECOND)

typedef struct {
  Codec codec;
  const char *element;
  const char *settings;
  const char *bitrate; /* property */
  guint unit;          /* of it, in bit/s */
  const char *gop;     /* property: most frames between key frames */
} Encoder;

/* The best first. Everything is made for low delay: no B frames, no look-ahead. */
static const Encoder encoders[] = {
  { CODEC_H264, "nvh264enc", "preset=low-latency-hq zerolatency=true rc-mode=cbr", "bitrate", 1000,
    "gop-size" },
  { CODEC_H264, "x264enc", "tune=zerolatency speed-preset=veryfast", "bitrate", 1000,
    "key-int-max" },
  { CODEC_H264, "openh264enc", "usage-type=camera complexity=low rate-control=bitrate", "bitrate",
    1, "gop-size" },
  { CODEC_VP8, "vp8enc", "deadline=1 cpu-used=8 end-usage=cbr error-resilient=partitions",
    "target-bitrate", 1, "keyframe-max-dist" },
};

static const struct {
  const char *name, *suffix, *pay;
} codecs[N_CODECS] = {
  [CODEC_H264] = { "H.264", "",
                   "video/x-h264,profile=constrained-baseline ! rtph264pay name=pay0 pt=96"
                   " config-interval=-1 aggregate-mode=zero-latency" },
  [CODEC_VP8] = { "VP8", "-vp8", "rtpvp8pay name=pay0 pt=96 picture-id-mode=15-bit" },
};

static gboolean
is_there(const char *element)
{
  g_autoptr(GstElementFactory) factory = gst_element_factory_find(element);

  return factory != NULL;
}

static char *
describe(const Encoder *encoder, const Options *options)
{
  /* Whoever joins asks for a key frame; this is for who lost one. */
  const guint gop = (guint) MAX(1, 2 * options->fps_n / options->fps_d);

  return g_strdup_printf("videoconvert ! %s %s %s=%u %s=%u ! %s", encoder->element,
                         encoder->settings, encoder->bitrate,
                         options->bitrate * (1000 / encoder->unit), encoder->gop, gop,
                         codecs[encoder->codec].pay);
}

/* That an element is there does not mean that it works: there may be no hardware for it, or none
 * that takes frames of this size. */
static gboolean
works(const char *description, const Options *options)
{
  g_autofree char *text = g_strdup_printf(
      "videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=%u,height=%u,framerate=%d/%d"
      " ! %s ! fakesink async=false",
      options->width, options->height, options->fps_n, options->fps_d, description);
  g_autoptr(GError) error = NULL;
  g_autoptr(GstElement) pipeline =
      gst_parse_launch_full(text, NULL, GST_PARSE_FLAG_FATAL_ERRORS, &error);
  g_autoptr(GstMessage) message = NULL;
  g_autoptr(GstBus) bus = NULL;

  if (!pipeline) {
    GST_INFO("%s", error->message);
    return FALSE;
  }
  bus = gst_element_get_bus(pipeline);
  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  message = gst_bus_timed_pop_filtered(bus, PROBE_TIMEOUT, GST_MESSAGE_EOS | GST_MESSAGE_ERROR);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  GST_INFO("%s: %s", text, message ? GST_MESSAGE_TYPE_NAME(message) : "timeout");
  return message && GST_MESSAGE_TYPE(message) == GST_MESSAGE_EOS;
}

void
codecs_choose(const Options *options, CodecChoice choices[N_CODECS])
{
  for (guint i = 0; i < N_CODECS; i++)
    choices[i] = (CodecChoice){ .name = codecs[i].name, .suffix = codecs[i].suffix };
  for (guint i = 0; i < G_N_ELEMENTS(encoders); i++) {
    CodecChoice *choice = &choices[encoders[i].codec];
    g_autofree char *description = NULL;

    if (choice->encoder || !is_there(encoders[i].element))
      continue;
    description = describe(&encoders[i], options);
    if (works(description, options)) {
      choice->encoder = encoders[i].element;
      choice->description = g_steal_pointer(&description);
    }
  }
}

void
codecs_clear(CodecChoice choices[N_CODECS])
{
  for (guint i = 0; i < N_CODECS; i++)
    g_clear_pointer(&choices[i].description, g_free);
}
