/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Prompts in, pictures out. Shows how an application queues prompts, follows progress and takes
 * frames.
 */
#include <glib-unix.h>
#include <gst/app/gstappsink.h>

static gboolean failed;

/* In the streaming thread, for each frame. */
static GstFlowReturn
on_new_sample(GstAppSink *sink, gpointer user_data)
{
  g_autoptr(GstSample) sample = gst_app_sink_pull_sample(sink);
  GstBuffer *buffer = gst_sample_get_buffer(sample);
  GstCustomMeta *clip = gst_buffer_get_custom_meta(buffer, "GstOpenSoraClipMeta");
  g_autoptr(GError) error = NULL;
  g_autofree char *path = NULL;
  guint64 id = 0;
  gpointer data;
  gsize size;

  gst_structure_get_uint64(gst_custom_meta_get_structure(clip), "id", &id);
  path = g_strdup_printf("clip-%" G_GUINT64_FORMAT "-%05.2f.png", id,
                         (double) GST_BUFFER_PTS(buffer) / GST_SECOND);
  gst_buffer_extract_dup(buffer, 0, -1, &data, &size);
  failed |= !g_file_set_contents(path, data, size, &error);
  if (error)
    g_printerr("%s\n", error->message);
  g_free(data);
  return error ? GST_FLOW_ERROR : GST_FLOW_OK;
}

static gboolean
on_message(GstBus *bus, GstMessage *message, gpointer loop)
{
  const GstStructure *s = gst_message_get_structure(message);
  g_autoptr(GError) error = NULL;
  int percent;

  if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_ERROR) {
    gst_message_parse_error(message, &error, NULL);
    g_printerr("Error: %s\n", error->message);
    failed = TRUE;
  } else if (GST_MESSAGE_TYPE(message) == GST_MESSAGE_PROGRESS) {
    if (gst_structure_get_int(s, "percent", &percent))
      g_printerr("%s %d %%\n", gst_structure_get_string(s, "text"), percent);
  } else if (gst_message_has_name(message, "opensora-clip") &&
             g_str_equal(gst_structure_get_string(s, "state"), "failed")) {
    g_printerr("%s: %s\n", gst_structure_get_string(s, "prompt"),
               gst_structure_get_string(s, "reason"));
    failed = TRUE;
  }
  if (GST_MESSAGE_TYPE(message) & (GST_MESSAGE_ERROR | GST_MESSAGE_EOS))
    g_main_loop_quit(loop);
  return G_SOURCE_CONTINUE;
}

static gboolean
on_interrupt(gpointer pipeline)
{
  return gst_element_send_event(pipeline, gst_event_new_eos());
}

int
main(int argc, char **argv)
{
  GstAppSinkCallbacks callbacks = { .new_sample = on_new_sample };
  g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
  g_autoptr(GstElement) pipeline = NULL, source = NULL, sink = NULL;
  g_autoptr(GError) error = NULL;
  g_autoptr(GstBus) bus = NULL;

  gst_init(&argc, &argv);
  if (argc < 2 || g_str_equal(argv[1], "--help")) {
    g_print("Usage: opensora-frames PROMPT...\nWrites all frames as clip-ID-TIME.png\n");
    return argc < 2 ? 2 : 0;
  }
  pipeline = gst_parse_launch("opensorasrc name=source is-queue=true ! videoconvert ! pngenc ! "
                              "appsink name=sink sync=false max-buffers=4",
                              &error);
  if (error) {
    g_printerr("Error: %s\n", error->message);
    return 1;
  }
  source = gst_bin_get_by_name(GST_BIN(pipeline), "source");
  sink = gst_bin_get_by_name(GST_BIN(pipeline), "sink");
  gst_app_sink_set_callbacks(GST_APP_SINK(sink), &callbacks, NULL, NULL);
  bus = gst_element_get_bus(pipeline);
  gst_bus_add_watch(bus, on_message, loop);
  g_unix_signal_add(SIGINT, on_interrupt, pipeline);

  gst_element_set_state(pipeline, GST_STATE_PLAYING);
  for (int i = 1; i < argc; i++) {
    GstStructure *options = gst_structure_new("options", "seed", G_TYPE_INT, i + 41, NULL);
    guint64 id;

    g_signal_emit_by_name(source, "add-prompt", argv[i], options, &id);
    gst_structure_free(options);
  }
  g_signal_emit_by_name(source, "end"); /* after the last of them */
  g_main_loop_run(loop);
  gst_element_set_state(pipeline, GST_STATE_NULL);
  gst_bus_remove_watch(bus);
  return failed;
}
