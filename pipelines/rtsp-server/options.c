/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "options.h"

#include <gst/gst.h>

#include "opensora.h"

#define USER_VARIABLE "OPENSORA_RTSP_USER"
#define MAX_SIDE 8192
#define MIN_BITRATE 300
/* Bits that a pixel of generated video takes; it has neither grain nor noise. */
#define BITS_PER_PIXEL 0.1

/* As GOption reads it: numbers that are still to be checked. */
typedef struct {
  int port, http_port, max_clients, max_clips, max_queue, max_prompt;
  int width, height, num_frames, steps, bitrate, transition_frames;
  gboolean no_http;
  char *fps, *after_clip;
} Raw;

static gboolean
check(gboolean ok, GError **error, const char *format, ...)
{
  g_autofree char *text = NULL;
  va_list args;

  if (ok)
    return TRUE;
  va_start(args, format);
  text = g_strdup_vprintf(format, args);
  va_end(args);
  g_set_error_literal(error, G_OPTION_ERROR, G_OPTION_ERROR_BAD_VALUE, text);
  return FALSE;
}

static gboolean
check_range(const char *name, int value, int min, int max, GError **error)
{
  return check(value >= min && value <= max, error, "--%s=%d: %d to %d are possible", name, value,
               min, max);
}

static gboolean
check_numbers(const Raw *raw, GError **error)
{
  return check_range("port", raw->port, 0, G_MAXUINT16, error) &&
         check_range("http-port", raw->http_port, 0, G_MAXUINT16, error) &&
         check_range("max-clients", raw->max_clients, 1, 10000, error) &&
         check_range("max-clips", raw->max_clips, 0, 100, error) &&
         check_range("max-queue", raw->max_queue, 1, 100000, error) &&
         check_range("max-prompt", raw->max_prompt, 1, 100000, error) &&
         check_range("width", raw->width, 0, MAX_SIDE, error) &&
         check_range("height", raw->height, 0, MAX_SIDE, error) &&
         check_range("num-frames", raw->num_frames, 0, 100000, error) &&
         check_range("steps", raw->steps, 0, 1000, error) &&
         check_range("bitrate", raw->bitrate, 0, 1000000, error) &&
         check_range("transition-frames", raw->transition_frames, 0, 1000, error) &&
         check(raw->width % 16 == 0 && raw->height % 16 == 0, error,
               "frames of %dx%d are not possible: multiples of 16 are", raw->width, raw->height);
}

static gboolean
parse_after_clip(const char *text, AfterClip *after_clip, GError **error)
{
  static const char *const names[] = { "hold", "loop", "end" };

  for (guint i = 0; i < G_N_ELEMENTS(names); i++)
    if (g_str_equal(names[i], text)) {
      *after_clip = (AfterClip) i;
      return TRUE;
    }
  return check(FALSE, error, "--after-clip=%s: hold, loop and end are possible", text);
}

/* "24" or "30000/1001" */
static gboolean
parse_fps(const char *text, gint *fps_n, gint *fps_d, GError **error)
{
  g_auto(GValue) fraction = G_VALUE_INIT;

  g_value_init(&fraction, GST_TYPE_FRACTION);
  if (!check(gst_value_deserialize(&fraction, text), error, "--fps=%s is no frame rate", text))
    return FALSE;
  *fps_n = gst_value_get_fraction_numerator(&fraction);
  *fps_d = gst_value_get_fraction_denominator(&fraction);
  return check(*fps_n > 0 && *fps_d > 0 && *fps_n / *fps_d <= 240, error,
               "--fps=%s: up to 240 are possible", text);
}

/* The video's size and rate: they have to be known before the first clip is made. */
static gboolean
complete_video(Options *self, const Raw *raw, GError **error)
{
  g_autoptr(OsrModelDir) dir = osr_model_dir_open(self->model, error);
  double rate;

  if (!dir)
    return FALSE;
  self->width = raw->width ? (guint) raw->width : dir->sampling.width;
  self->height = raw->height ? (guint) raw->height : dir->sampling.height;
  self->fps_n = (gint) dir->fps;
  self->fps_d = 1;
  if (raw->fps && !parse_fps(raw->fps, &self->fps_n, &self->fps_d, error))
    return FALSE;
  rate = BITS_PER_PIXEL * self->width * self->height * self->fps_n / self->fps_d / 1000;
  self->bitrate = raw->bitrate ? (guint) raw->bitrate : MAX(MIN_BITRATE, (guint) rate);
  return TRUE;
}

static gboolean
complete(Options *self, const Raw *raw, GError **error)
{
  if (!check_numbers(raw, error) ||
      !check(self->seed >= -1, error, "--seed: -1 (another for every clip) or above is possible") ||
      !check(!self->certificate == !self->key, error, "--certificate and --key need each other") ||
      !check(!self->users || !self->htdigest, error, "--users and --htdigest exclude each other") ||
      (raw->after_clip && !parse_after_clip(raw->after_clip, &self->after_clip, error)))
    return FALSE;
  self->port = (guint16) raw->port;
  self->http_port = (guint16) raw->http_port;
  self->http = !raw->no_http;
  self->max_clients = (guint) raw->max_clients;
  self->max_clips = (guint) raw->max_clips;
  self->max_queue = (guint) raw->max_queue;
  self->max_prompt = (guint) raw->max_prompt;
  self->num_frames = (guint) raw->num_frames;
  self->steps = (guint) raw->steps;
  self->transition_frames = (guint) raw->transition_frames;
  if (!self->address)
    self->address = g_strdup("127.0.0.1");
  if (!self->http_address)
    self->http_address = g_strdup("127.0.0.1");
  if (!self->repeat)
    self->repeat = g_strdup("loop");
  if (!self->user)
    self->user = g_strdup(g_getenv(USER_VARIABLE));
  return complete_video(self, raw, error);
}

static const char summary[] =
    "Serves generated video by RTSP: /live is one programme for everybody, made of the prompts\n"
    "that come from the command line, a file, standard input (one a line) and HTTP;\n"
    "/clip?prompt=TEXT&seed=NUMBER is a clip for whoever asks. Both send H.264, /live-vp8 and\n"
    "/clip-vp8 send VP8.";

static const char description[] =
    "HTTP: POST /prompts (text, or JSON {\"prompt\": …, \"seed\": …}), GET /queue,\n"
    "DELETE /prompts/NUMBER.\n"
    "The environment variable " USER_VARIABLE " may hold NAME:PASSWORD in place of --user, which\n"
    "other users of the machine can see.\n";

Options *
options_parse(int *argc, char ***argv, GError **error)
{
  g_autoptr(Options) self = g_new0(Options, 1);
  g_autoptr(GOptionContext) context = g_option_context_new("[PROMPT…]");
  Raw raw = { .port = 8554,
              .http_port = 8555,
              .max_clients = 100,
              .max_clips = 2,
              .max_queue = 64,
              .max_prompt = 1000 };
  const GOptionEntry entries[] = {
    { "address", 'a', 0, G_OPTION_ARG_STRING, &self->address,
      "Where to listen; 0.0.0.0: everywhere (127.0.0.1)", "ADDRESS" },
    { "port", 'p', 0, G_OPTION_ARG_INT, &raw.port, "Port for RTSP; 0: any free one (8554)",
      "PORT" },
    { "max-clients", 0, 0, G_OPTION_ARG_INT, &raw.max_clients, "Connections at once (100)", "N" },
    { "user", 0, 0, G_OPTION_ARG_STRING, &self->user, "Only this user may watch and send prompts",
      "NAME:PASSWORD" },
    { "users", 0, 0, G_OPTION_ARG_FILENAME, &self->users, "Users, one NAME:PASSWORD a line",
      "FILE" },
    { "htdigest", 0, 0, G_OPTION_ARG_FILENAME, &self->htdigest,
      "Users, in a file made by htdigest for the realm opensora", "FILE" },
    { "certificate", 0, 0, G_OPTION_ARG_FILENAME, &self->certificate,
      "Certificate (and chain) for TLS: rtsps://, https://", "FILE.pem" },
    { "key", 0, 0, G_OPTION_ARG_FILENAME, &self->key, "Private key for TLS", "FILE.pem" },
    { "http-address", 0, 0, G_OPTION_ARG_STRING, &self->http_address,
      "Where to listen for HTTP; elsewhere than on this machine only with users (127.0.0.1)",
      "ADDRESS" },
    { "http-port", 0, 0, G_OPTION_ARG_INT, &raw.http_port, "Port for HTTP; 0: any free one (8555)",
      "PORT" },
    { "no-http", 0, 0, G_OPTION_ARG_NONE, &raw.no_http, "No prompts by HTTP", NULL },
    { "model", 'm', 0, G_OPTION_ARG_FILENAME, &self->model, "Folder of the model", "FOLDER" },
    { "device", 0, 0, G_OPTION_ARG_STRING, &self->device, "Where to compute: auto, cpu, cuda:N",
      "DEVICE" },
    { "width", 0, 0, G_OPTION_ARG_INT, &raw.width, "Width of the video (the model's)", "PIXELS" },
    { "height", 0, 0, G_OPTION_ARG_INT, &raw.height, "Height of the video (the model's)",
      "PIXELS" },
    { "fps", 0, 0, G_OPTION_ARG_STRING, &raw.fps, "Frames a second (the model's)", "RATE" },
    { "bitrate", 0, 0, G_OPTION_ARG_INT, &raw.bitrate, "Of the video, in kbit/s (from its size)",
      "N" },
    { "num-frames", 0, 0, G_OPTION_ARG_INT, &raw.num_frames, "Frames of a clip (the model's)",
      "N" },
    { "steps", 0, 0, G_OPTION_ARG_INT, &raw.steps, "Denoising steps of a clip (the model's)", "N" },
    { "seed", 0, 0, G_OPTION_ARG_INT64, &self->seed, "Seed of clips that name none (42)", "N" },
    { "prompts", 0, 0, G_OPTION_ARG_FILENAME, &self->prompts_file,
      "Prompts for /live, one a line, or .csv with columns text, ref, neg", "FILE" },
    { "repeat-prompts", 0, 0, G_OPTION_ARG_NONE, &self->repeat_prompts,
      "Begin again when the file has ended", NULL },
    { "max-queue", 0, 0, G_OPTION_ARG_INT, &raw.max_queue, "Prompts that may wait (64)", "N" },
    { "max-prompt", 0, 0, G_OPTION_ARG_INT, &raw.max_prompt, "Bytes of a prompt (1000)", "N" },
    { "repeat", 0, 0, G_OPTION_ARG_STRING, &self->repeat,
      "What /live does until the next clip is there: once, loop, ping-pong (loop)", "HOW" },
    { "transition-frames", 0, 0, G_OPTION_ARG_INT, &raw.transition_frames,
      "Length of a cross-fade between clips of /live (0)", "N" },
    { "slate", 0, 0, G_OPTION_ARG_FILENAME, &self->slate,
      "Picture that is shown until there is a clip", "FILE" },
    { "max-clips", 0, 0, G_OPTION_ARG_INT, &raw.max_clips,
      "Clips of /clip at once; 0: there is no /clip (2)", "N" },
    { "after-clip", 0, 0, G_OPTION_ARG_STRING, &raw.after_clip,
      "What follows a clip of /clip: hold, loop, end (hold)", "WHAT" },
    { G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &self->prompts, NULL, NULL },
    { NULL },
  };
  gboolean ok;

  self->seed = 42;
  g_option_context_set_summary(context, summary);
  g_option_context_set_description(context, description);
  g_option_context_add_main_entries(context, entries, NULL);
  g_option_context_add_group(context, gst_init_get_option_group());
  ok = g_option_context_parse(context, argc, argv, error) && complete(self, &raw, error);
  g_free(raw.fps);
  g_free(raw.after_clip);
  return ok ? g_steal_pointer(&self) : NULL;
}

void
options_free(Options *self)
{
  g_free(self->address);
  g_free(self->certificate);
  g_free(self->key);
  g_free(self->user);
  g_free(self->users);
  g_free(self->htdigest);
  g_free(self->http_address);
  g_free(self->model);
  g_free(self->device);
  g_strfreev(self->prompts);
  g_free(self->prompts_file);
  g_free(self->repeat);
  g_free(self->slate);
  g_free(self);
}
