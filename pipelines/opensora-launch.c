/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * opensora-launch: gst-launch-1.0 for pipelines that take their time. Runs a pipeline, shows
 * how far generation is and how long it will take, and makes a contact sheet of the frames.
 */
#include <glib-unix.h>
#include <gst/gst.h>
#include <locale.h>
#include <stdlib.h>

#include "contact-sheet.h"
#include "progress.h"

#define SHEET_COLUMNS 4
#define SHEET_ROWS 3

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2, STATUS_INTERRUPTED = 130 };

typedef struct {
  GMainLoop *loop;
  GstElement *pipeline;
  Progress *progress; /* NULL: quiet */
  gboolean interrupted;
  int status;
} App;

static void
print_message(App *app, const char *severity, GstMessage *message, GError *error, const char *debug)
{
  g_autofree char *name = gst_object_get_path_string(GST_MESSAGE_SRC(message));

  if (app->progress)
    progress_clear(app->progress);
  g_printerr("%s: %s\n", severity, error->message);
  g_printerr("  from %s%s%s\n", name, debug ? ": " : "", debug ? debug : "");
}

static gboolean
on_message(GstBus *bus, GstMessage *message, gpointer user_data)
{
  g_autofree char *debug = NULL;
  g_autoptr(GError) error = NULL;
  App *app = user_data;

  if (app->progress)
    progress_handle(app->progress, message);
  switch (GST_MESSAGE_TYPE(message)) {
  case GST_MESSAGE_ERROR:
    gst_message_parse_error(message, &error, &debug);
    print_message(app, "Error", message, error, debug);
    if (app->status == STATUS_OK)
      app->status = STATUS_FAILED;
    g_main_loop_quit(app->loop);
    break;
  case GST_MESSAGE_WARNING:
    gst_message_parse_warning(message, &error, &debug);
    print_message(app, "Warning", message, error, debug);
    break;
  case GST_MESSAGE_EOS:
    g_main_loop_quit(app->loop);
    break;
  case GST_MESSAGE_LATENCY:
    gst_bin_recalculate_latency(GST_BIN(app->pipeline));
    break;
  default:
    break;
  }
  return G_SOURCE_CONTINUE;
}

static void
send_eos(const GValue *element, gpointer user_data)
{
  gst_element_send_event(g_value_get_object(element), gst_event_new_eos());
}

/* Sources before a denoiser may have to wait for it, so it has to hear of the end first. */
static void
end_stream(GstElement *pipeline)
{
  g_autoptr(GstIterator) denoisers =
      gst_bin_iterate_all_by_element_factory_name(GST_BIN(pipeline), "opensoradenoise");

  gst_iterator_foreach(denoisers, send_eos, NULL);
  gst_element_send_event(pipeline, gst_event_new_eos());
}

/* The first time the stream is ended, so that files are complete; the second time nothing is
 * waited for. */
static gboolean
on_interrupt(gpointer user_data)
{
  App *app = user_data;

  app->status = STATUS_INTERRUPTED;
  if (app->interrupted) {
    g_main_loop_quit(app->loop);
    return G_SOURCE_CONTINUE;
  }
  app->interrupted = TRUE;
  if (app->progress)
    progress_clear(app->progress);
  g_printerr("Ending the stream; interrupt again to stop at once.\n");
  end_stream(app->pipeline);
  return G_SOURCE_CONTINUE;
}

/* After the error messages that tell why, so that the loop ends even if there is none. */
static gboolean
on_refusal(gpointer user_data)
{
  App *app = user_data;

  if (app->status == STATUS_OK)
    app->status = STATUS_FAILED;
  g_main_loop_quit(app->loop);
  return G_SOURCE_REMOVE;
}

static GstElement *
make_pipeline(const char *const *description, GError **error)
{
  GstElement *element = gst_parse_launchv_full((const gchar **) description, NULL,
                                               GST_PARSE_FLAG_FATAL_ERRORS, error);
  GstElement *pipeline;

  if (!element || GST_IS_PIPELINE(element))
    return element;
  pipeline = gst_pipeline_new(NULL);
  gst_bin_add(GST_BIN(pipeline), element);
  return pipeline;
}

/* A sheet of what the first decoder in @pipeline makes. */
static ContactSheet *
make_contact_sheet(GstElement *pipeline)
{
  g_autoptr(GstIterator) decoders =
      gst_bin_iterate_all_by_element_factory_name(GST_BIN(pipeline), "opensoravaedec");
  g_auto(GValue) decoder = G_VALUE_INIT;
  g_autoptr(GstPad) pad = NULL;

  if (gst_iterator_next(decoders, &decoder) != GST_ITERATOR_OK)
    return NULL;
  pad = gst_element_get_static_pad(g_value_get_object(&decoder), "src");
  return contact_sheet_new(pad, SHEET_COLUMNS, SHEET_ROWS);
}

/* Runs the pipeline to its end, an error or an interrupt. */
static int
run(GstElement *pipeline, gboolean quiet)
{
  App app = { .pipeline = pipeline, .loop = g_main_loop_new(NULL, FALSE) };
  g_autoptr(GstBus) bus = gst_element_get_bus(pipeline);
  guint watch, on_int, on_term;

  app.progress = quiet ? NULL : progress_new(stderr);
  watch = gst_bus_add_watch(bus, on_message, &app);
  on_int = g_unix_signal_add(SIGINT, on_interrupt, &app);
  on_term = g_unix_signal_add(SIGTERM, on_interrupt, &app);

  if (gst_element_set_state(pipeline, GST_STATE_PLAYING) == GST_STATE_CHANGE_FAILURE)
    g_idle_add(on_refusal, &app);
  g_main_loop_run(app.loop);
  gst_element_set_state(pipeline, GST_STATE_NULL);

  g_source_remove(watch);
  g_source_remove(on_int);
  g_source_remove(on_term);
  g_clear_pointer(&app.progress, progress_free);
  g_main_loop_unref(app.loop);
  return app.status;
}

static int
launch(const char *const *description, const char *sheet_path, gboolean quiet)
{
  g_autoptr(ContactSheet) sheet = NULL;
  g_autoptr(GstElement) pipeline = NULL;
  g_autoptr(GError) error = NULL;
  int status;

  pipeline = make_pipeline(description, &error);
  if (!pipeline) {
    g_printerr("Error: %s\n", error->message);
    return STATUS_USAGE;
  }
  gst_object_ref_sink(pipeline);
  if (sheet_path && !(sheet = make_contact_sheet(pipeline))) {
    g_printerr("Error: a contact sheet needs opensorasrc or opensoravaedec in the pipeline\n");
    return STATUS_USAGE;
  }
  status = run(pipeline, quiet);
  if (status == STATUS_OK && sheet && !contact_sheet_write(sheet, sheet_path, &error)) {
    g_printerr("Error: no contact sheet \"%s\": %s\n", sheet_path, error->message);
    status = STATUS_FAILED;
  }
  return status;
}

int
main(int argc, char **argv)
{
  g_autoptr(GOptionContext) context = g_option_context_new("PIPELINE-DESCRIPTION");
  g_autoptr(GError) error = NULL;
  g_autofree char *sheet = NULL;
  gboolean quiet = FALSE;
  const GOptionEntry entries[] = {
    { "contact-sheet", 's', 0, G_OPTION_ARG_FILENAME, &sheet,
      "Write a picture of the clip's frames, side by side", "FILE.png" },
    { "quiet", 'q', 0, G_OPTION_ARG_NONE, &quiet, "Show no progress", NULL },
    { NULL },
  };
  int status;

  setlocale(LC_ALL, "");
  g_option_context_set_summary(
      context, "Runs a pipeline like gst-launch-1.0, with a progress bar and the time left.");
  g_option_context_set_strict_posix(context, TRUE);
  g_option_context_add_main_entries(context, entries, NULL);
  g_option_context_add_group(context, gst_init_get_option_group());
  if (!g_option_context_parse(context, &argc, &argv, &error)) {
    g_printerr("%s\n", error->message);
    return STATUS_USAGE;
  }
  if (argc < 2) {
    g_autofree char *help = g_option_context_get_help(context, TRUE, NULL);

    g_printerr("%s", help);
    return STATUS_USAGE;
  }
  status = launch((const char *const *) argv + 1, sheet, quiet);
  gst_deinit();
  return status;
}
