/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensora-rtsp-server: generated video by RTSP. See options.c for what it does, and
 * docs/streaming.md.
 */
#include <glib-unix.h>
#include <locale.h>

#include "feeder.h"
#include "http.h"
#include "log.h"
#include "mounts.h"

#define SESSION_CLEANUP_SECONDS 2
/* How long clients get to leave by themselves; rtspsrc plays what it has first, two seconds of it.
 */
#define GOODBYE_STEP_MS 50
#define GOODBYE_STEPS 60
/* How long their threads get to come to their end. */
#define STOP_STEP_US 10000
#define STOP_STEPS 500

GST_DEBUG_CATEGORY(rtsp_server_debug);

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

typedef struct {
  GMainLoop *loop;
  Options *options;
  CodecChoice codecs[N_CODECS];
  Access *access;
  Channel *live;
  Playlist *playlist;
  Feeder *feeder;
  Clips *clips;
  GstRTSPServer *server;
  GSource *listener;
  Http *http;
  gboolean ending, failed;
  guint goodbyes; /* times that was looked whether all have left */
} App;

/* A prompt that cannot be made is told by the playlist; an error is of the pipeline, and the end.
 */
static void
on_message(GstMessage *message, gpointer user_data)
{
  App *app = user_data;
  g_autoptr(GError) error = NULL;

  playlist_handle(app->playlist, message);
  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_WARNING) {
    gst_message_parse_warning(message, &error, NULL);
    g_printerr("Warning: %s\n", error->message);
  } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR && !app->failed) {
    gst_message_parse_error(message, &error, NULL);
    g_printerr("Error: %s\n", error->message);
    app->failed = TRUE;
    g_main_loop_quit(app->loop);
  }
}

/* The end */

static gboolean
on_goodbye(gpointer user_data)
{
  App *app = user_data;

  if (mounts_count_clients(app->server) > 0 && ++app->goodbyes < GOODBYE_STEPS)
    return G_SOURCE_CONTINUE;
  g_main_loop_quit(app->loop);
  return G_SOURCE_REMOVE;
}

/* Streams end, which tells clients that it is over. Those that stay, and all the second time, are
 * disconnected. */
static gboolean
on_interrupt(gpointer user_data)
{
  App *app = user_data;

  if (app->ending) {
    g_main_loop_quit(app->loop);
    return G_SOURCE_CONTINUE;
  }
  app->ending = TRUE;
  g_print("Ending.\n");
  g_source_destroy(app->listener);
  relay_end(channel_get_relay(app->live));
  clips_end(app->clips);
  g_timeout_add(GOODBYE_STEP_MS, on_goodbye, app);
  return G_SOURCE_CONTINUE;
}

/* The beginning */

static gboolean
on_cleanup(gpointer user_data)
{
  App *app = user_data;
  g_autoptr(GstRTSPSessionPool) sessions = gst_rtsp_server_get_session_pool(app->server);

  gst_rtsp_session_pool_cleanup(sessions);
  return G_SOURCE_CONTINUE;
}

static gboolean
choose_codecs(App *app, GError **error)
{
  gboolean any = FALSE;

  codecs_choose(app->options, app->codecs);
  for (guint i = 0; i < N_CODECS; i++) {
    any |= app->codecs[i].encoder != NULL;
    if (!app->codecs[i].encoder)
      g_printerr("Warning: there is no encoder for %s that works\n", app->codecs[i].name);
  }
  if (!any)
    g_set_error_literal(error, GST_CORE_ERROR, GST_CORE_ERROR_MISSING_PLUGIN,
                        "there is neither x264enc, nvh264enc, openh264enc nor vp8enc "
                        "(Debian: gstreamer1.0-plugins-ugly, -bad, -good)");
  return any;
}

static gboolean
start_live(App *app, GError **error)
{
  if (!(app->live = channel_new(app->options, NULL, error)))
    return FALSE;
  app->playlist = playlist_new(channel_get_source(app->live), app->options);
  if (!(app->feeder = feeder_new(app->playlist, app->options, error)))
    return FALSE;
  channel_set_message_func(app->live, on_message, app);
  return channel_start(app->live, error);
}

static gboolean
start_server(App *app, GError **error)
{
  app->clips = clips_new(app->options);
  app->server = mounts_new(app->options, app->codecs, channel_get_relay(app->live), app->clips);
  if (!access_apply_to_rtsp(app->access, app->server, error))
    return FALSE;
  app->listener = gst_rtsp_server_create_source(app->server, NULL, error);
  if (!app->listener) {
    g_prefix_error(error, "RTSP on %s, port %u: ", app->options->address, app->options->port);
    return FALSE;
  }
  g_source_attach(app->listener, NULL);
  return TRUE;
}

static gboolean
start_http(App *app, GError **error)
{
  const HttpParams params = { .options = app->options,
                              .access = app->access,
                              .playlist = app->playlist,
                              .clips = app->clips,
                              .rtsp = app->server };

  return !app->options->http || (app->http = http_new(&params, error)) != NULL;
}

static void
tell(App *app)
{
  g_autofree char *base = g_uri_join(G_URI_FLAGS_NONE, app->options->certificate ? "rtsps" : "rtsp",
                                     NULL, app->options->address,
                                     gst_rtsp_server_get_bound_port(app->server), "", NULL, NULL);

  for (guint i = 0; i < N_CODECS; i++) {
    const CodecChoice *codec = &app->codecs[i];

    if (!codec->encoder)
      continue;
    g_print("%s/live%s (%s by %s)\n", base, codec->suffix, codec->name, codec->encoder);
    if (app->options->max_clips > 0)
      g_print("%s/clip%s?prompt=TEXT&seed=NUMBER\n", base, codec->suffix);
  }
  if (app->http) {
    g_autofree char *http = http_get_url(app->http);

    g_print("%sprompts takes prompts, %squeue shows them\n", http, http);
  }
  g_print("%ux%u pixels, %d/%d frames a second. Type a prompt and press Enter; Ctrl-C ends.\n",
          app->options->width, app->options->height, app->options->fps_n, app->options->fps_d);
}

static void
run(App *app)
{
  const guint sources[] = { g_unix_signal_add(SIGINT, on_interrupt, app),
                            g_unix_signal_add(SIGTERM, on_interrupt, app),
                            g_timeout_add_seconds(SESSION_CLEANUP_SECONDS, on_cleanup, app) };

  tell(app);
  feeder_start(app->feeder);
  g_main_loop_run(app->loop);
  for (guint i = 0; i < G_N_ELEMENTS(sources); i++)
    g_source_remove(sources[i]);
}

static GstRTSPFilterResult
remove_session(GstRTSPSessionPool *sessions, GstRTSPSession *session, gpointer user_data)
{
  return GST_RTSP_FILTER_REMOVE;
}

static GstRTSPFilterResult
remove_client(GstRTSPServer *server, GstRTSPClient *client, gpointer user_data)
{
  return GST_RTSP_FILTER_REMOVE;
}

/* Clips go with the last client that sees them, in threads of the library's. */
static void
stop_server(App *app)
{
  if (app->server) {
    g_autoptr(GstRTSPSessionPool) sessions = gst_rtsp_server_get_session_pool(app->server);

    gst_rtsp_server_client_filter(app->server, remove_client, NULL);
    gst_rtsp_session_pool_filter(sessions, remove_session, NULL);
    g_clear_object(&app->server);
  }
  for (guint i = 0; app->clips && clips_get_n(app->clips) > 0 && i < STOP_STEPS; i++)
    g_usleep(STOP_STEP_US);
  if (app->clips && clips_get_n(app->clips) == 0)
    g_clear_pointer(&app->clips, clips_free);
  gst_rtsp_thread_pool_cleanup();
}

static void
stop(App *app)
{
  g_clear_pointer(&app->http, http_free);
  if (app->listener) {
    g_source_destroy(app->listener);
    g_source_unref(app->listener);
  }
  stop_server(app);
  g_clear_pointer(&app->feeder, feeder_free);
  g_clear_pointer(&app->playlist, playlist_free);
  if (app->live) {
    channel_stop(app->live);
    channel_unref(app->live);
  }
  g_clear_pointer(&app->access, access_free);
  codecs_clear(app->codecs);
  g_main_loop_unref(app->loop);
}

static int
serve(Options *options)
{
  App app = { .loop = g_main_loop_new(NULL, FALSE), .options = options };
  g_autoptr(GError) error = NULL;
  const gboolean ok = (app.access = access_new(options, &error)) && choose_codecs(&app, &error) &&
                      start_live(&app, &error) && start_server(&app, &error) &&
                      start_http(&app, &error);

  if (ok)
    run(&app);
  else
    g_printerr("Error: %s\n", error->message);
  stop(&app);
  return ok && !app.failed ? STATUS_OK : STATUS_FAILED;
}

int
main(int argc, char **argv)
{
  g_autoptr(Options) options = NULL;
  g_autoptr(GError) error = NULL;
  int status;

  setlocale(LC_ALL, "");
  options = options_parse(&argc, &argv, &error);
  if (!options) {
    g_printerr("Error: %s\n", error->message);
    return STATUS_USAGE;
  }
  GST_DEBUG_CATEGORY_INIT(rtsp_server_debug, "opensorartsp", 0, "RTSP server");
  status = serve(options);
  g_clear_pointer(&options, options_free);
  gst_deinit();
  return status;
}
