/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mounts.h"

#include <gst/video/video.h>

#include "log.h"

/* Frames that an encoder may be behind before it loses some. */
#define MAX_BEHIND 3
/* How often and how soon a client tries again to join others who are leaving. */
#define MAX_TRIES 100
#define TRY_AGAIN_US (10 * G_TIME_SPAN_MILLISECOND)
#define SOURCE "source"

/* Media: a pipeline of an appsrc, an encoder and what the library adds */

#define TYPE_PROGRAMME (programme_get_type())
G_DECLARE_FINAL_TYPE(Programme, programme, RTSP, PROGRAMME, GstRTSPMedia)

struct _Programme {
  GstRTSPMedia parent;
};

G_DEFINE_FINAL_TYPE(Programme, programme, GST_TYPE_RTSP_MEDIA)

/* The last client leaves. Factories share media until they hear that it is unprepared, which
 * is when its pipeline has stopped; who comes before that would get one that cannot play any more.
 * So they hear of it at the beginning, too; see viewer_hold(). */
static gboolean
programme_unprepare(GstRTSPMedia *media)
{
  g_signal_emit_by_name(media, "unprepared");
  return GST_RTSP_MEDIA_CLASS(programme_parent_class)->unprepare(media);
}

static void
programme_class_init(ProgrammeClass *klass)
{
  GST_RTSP_MEDIA_CLASS(klass)->unprepare = programme_unprepare;
}

static void
programme_init(Programme *self)
{
}

/* The factory of a mount point */

#define TYPE_MOUNT (mount_get_type())
G_DECLARE_FINAL_TYPE(Mount, mount, RTSP, MOUNT, GstRTSPMediaFactory)

struct _Mount {
  GstRTSPMediaFactory parent;

  const Options *options;
  char *description; /* of what comes after the source */
  Relay *live;       /* NULL: clips */
  Clips *clips;      /* not owned */
};

G_DEFINE_FINAL_TYPE(Mount, mount, GST_TYPE_RTSP_MEDIA_FACTORY)

static ClipRequest *
parse(Mount *self, const GstRTSPUrl *url, GError **error)
{
  return clip_request_parse(url->query, self->options->seed, self->options->max_prompt, error);
}

/* Media with the same key are shared. */
static char *
mount_gen_key(GstRTSPMediaFactory *factory, const GstRTSPUrl *url)
{
  Mount *self = RTSP_MOUNT(factory);
  g_autoptr(ClipRequest) request = NULL;

  if (self->live)
    return g_strdup("live");
  request = parse(self, url, NULL);
  return request ? g_strdup(request->key) : NULL;
}

static GstElement *
make_bin(Mount *self)
{
  g_autofree char *description = g_strdup_printf(
      "appsrc name=" SOURCE " is-live=true format=time block=false leaky-type=downstream"
      " max-buffers=%u max-bytes=0 max-time=0 ! %s",
      MAX_BEHIND, self->description);
  g_autoptr(GError) error = NULL;
  GstElement *bin = gst_parse_bin_from_description_full(description, FALSE, NULL,
                                                        GST_PARSE_FLAG_FATAL_ERRORS, &error);

  if (!bin)
    GST_ERROR("%s", error->message);
  return bin;
}

static void
unref_clip(gpointer clip)
{
  clip_unref(clip);
}

/* The clip that @url asks for; NULL if it cannot be. (transfer full) */
static Clip *
get_clip(Mount *self, const GstRTSPUrl *url)
{
  g_autoptr(GError) error = NULL;
  g_autoptr(ClipRequest) request = parse(self, url, &error);
  Clip *clip = request ? clips_get(self->clips, request, &error) : NULL;

  if (!clip)
    GST_WARNING("%s", error->message);
  return clip;
}

/* The relay that @url asks for; a clip lives as long as @bin. */
static Relay *
get_relay(Mount *self, const GstRTSPUrl *url, GstElement *bin)
{
  Clip *clip;

  if (self->live)
    return self->live;
  clip = get_clip(self, url);
  if (!clip)
    return NULL;
  g_object_set_data_full(G_OBJECT(bin), "clip", clip, unref_clip);
  return clip_get_relay(clip);
}

static GstElement *
mount_create_element(GstRTSPMediaFactory *factory, const GstRTSPUrl *url)
{
  Mount *self = RTSP_MOUNT(factory);
  g_autoptr(GstElement) bin = make_bin(self);
  g_autoptr(GstElement) source = NULL;
  Relay *relay;

  if (!bin)
    return NULL;
  relay = get_relay(self, url, bin);
  if (!relay)
    return NULL;
  source = gst_bin_get_by_name(GST_BIN(bin), SOURCE);
  relay_add(relay, source);
  return g_steal_pointer(&bin);
}

/* A client that sends SETUP without DESCRIBE comes here unchecked, and the library takes it for a
 * programmer's error if there is no element. */
static GstRTSPMedia *
mount_construct(GstRTSPMediaFactory *factory, const GstRTSPUrl *url)
{
  Mount *self = RTSP_MOUNT(factory);
  g_autoptr(Clip) clip = self->live ? NULL : get_clip(self, url);

  if (!self->live && !clip)
    return NULL;
  return GST_RTSP_MEDIA_FACTORY_CLASS(mount_parent_class)->construct(factory, url);
}

static void
mount_finalize(GObject *object)
{
  Mount *self = RTSP_MOUNT(object);

  g_free(self->description);
  g_clear_pointer(&self->live, relay_unref);
  G_OBJECT_CLASS(mount_parent_class)->finalize(object);
}

static void
mount_class_init(MountClass *klass)
{
  GstRTSPMediaFactoryClass *factory_class = GST_RTSP_MEDIA_FACTORY_CLASS(klass);

  G_OBJECT_CLASS(klass)->finalize = mount_finalize;
  factory_class->gen_key = mount_gen_key;
  factory_class->create_element = mount_create_element;
  factory_class->construct = mount_construct;
}

static void
mount_init(Mount *self)
{
}

static Mount *
mount_new(const Options *options, const char *description, Relay *live, Clips *clips)
{
  Mount *self = g_object_new(TYPE_MOUNT, NULL);
  GstRTSPMediaFactory *factory = GST_RTSP_MEDIA_FACTORY(self);
  g_autoptr(GstClock) clock = gst_system_clock_obtain();

  self->options = options;
  self->description = g_strdup(description);
  self->live = live ? relay_ref(live) : NULL;
  self->clips = clips;
  gst_rtsp_media_factory_set_media_gtype(factory, TYPE_PROGRAMME);
  gst_rtsp_media_factory_set_shared(factory, TRUE);
  gst_rtsp_media_factory_set_clock(factory, clock);
  gst_rtsp_media_factory_set_protocols(
      factory, options->certificate ? GST_RTSP_LOWER_TRANS_TCP
                                    : GST_RTSP_LOWER_TRANS_UDP | GST_RTSP_LOWER_TRANS_TCP);
  gst_rtsp_media_factory_add_role(factory, MOUNTS_ROLE, GST_RTSP_PERM_MEDIA_FACTORY_ACCESS,
                                  G_TYPE_BOOLEAN, TRUE, GST_RTSP_PERM_MEDIA_FACTORY_CONSTRUCT,
                                  G_TYPE_BOOLEAN, TRUE, NULL);
  return self;
}

/* A client */

#define TYPE_VIEWER (viewer_get_type())
G_DECLARE_FINAL_TYPE(Viewer, viewer, RTSP, VIEWER, GstRTSPClient)

struct _Viewer {
  GstRTSPClient parent;

  char *key;          /* of the clip that it has asked for; NULL: none yet */
  GstRTSPMedia *held; /* what the request at hand is about */
};

G_DEFINE_FINAL_TYPE(Viewer, viewer, GST_TYPE_RTSP_CLIENT)

/* Some clients put the name of a stream behind the path, some behind the query. The query belongs
 * to the factory, and a path is what mount points know. */
static char *
viewer_make_path(GstRTSPClient *client, const GstRTSPUrl *url)
{
  return g_strconcat(url->abspath, url->query ? clip_request_get_control(url->query) : NULL, NULL);
}

/* Answers what a factory cannot: there it would only be "not found". */
static GstRTSPStatusCode
check_clip(Viewer *self, Mount *mount, const GstRTSPUrl *url)
{
  g_autoptr(GError) error = NULL;
  g_autoptr(ClipRequest) request = parse(mount, url, &error);

  if (!request) {
    GST_WARNING("refused: %s", error->message);
    return GST_RTSP_STS_BAD_REQUEST;
  }
  /* A client keeps the media of a path, and all clips have the same. */
  if (self->key && !g_str_equal(self->key, request->key))
    return GST_RTSP_STS_METHOD_NOT_VALID_IN_THIS_STATE;
  if (!clips_has_room(mount->clips, request))
    return GST_RTSP_STS_SERVICE_UNAVAILABLE;
  if (!self->key)
    self->key = g_strdup(request->key);
  return GST_RTSP_STS_OK;
}

static void
viewer_release(Viewer *self)
{
  if (!self->held)
    return;
  gst_rtsp_media_unprepare(self->held);
  g_clear_object(&self->held);
}

/* The library looks for shared media first and prepares it then. If its last client leaves in
 * between, that fails, and the one who comes is refused. So media is found and prepared here,
 * as often as it takes, and kept until the library has it. Errors are left to the library. */
static void
viewer_hold(Viewer *self, GstRTSPMediaFactory *factory, GstRTSPContext *context)
{
  g_autoptr(GstRTSPThreadPool) threads = gst_rtsp_client_get_thread_pool(GST_RTSP_CLIENT(self));

  viewer_release(self);
  for (guint i = 0; i < MAX_TRIES; i++) {
    g_autoptr(GstRTSPMedia) media = gst_rtsp_media_factory_construct(factory, context->uri);
    GstRTSPThread *thread;

    if (!media)
      return;
    thread = gst_rtsp_thread_pool_get_thread(threads, GST_RTSP_THREAD_TYPE_MEDIA, context);
    if (gst_rtsp_media_prepare(media, thread)) {
      self->held = g_steal_pointer(&media);
      return;
    }
    g_usleep(TRY_AGAIN_US);
  }
}

static void
viewer_requested(GstRTSPClient *client, G_GNUC_UNUSED GstRTSPContext *context)
{
  viewer_release(RTSP_VIEWER(client));
}

static void
viewer_closed(GstRTSPClient *client)
{
  viewer_release(RTSP_VIEWER(client));
}

static GstRTSPStatusCode
viewer_pre_describe(GstRTSPClient *client, GstRTSPContext *context)
{
  g_autoptr(GstRTSPMountPoints) mounts = gst_rtsp_client_get_mount_points(client);
  g_autofree char *path = gst_rtsp_mount_points_make_path(mounts, context->uri);
  g_autoptr(GstRTSPMediaFactory) factory = gst_rtsp_mount_points_match(mounts, path, NULL);
  GstRTSPStatusCode status = GST_RTSP_STS_OK;

  if (factory && !RTSP_MOUNT(factory)->live)
    status = check_clip(RTSP_VIEWER(client), RTSP_MOUNT(factory), context->uri);
  if (factory && status == GST_RTSP_STS_OK)
    viewer_hold(RTSP_VIEWER(client), factory, context);
  return status;
}

/* Who comes later than others does not have to wait for the next key frame. */
static void
viewer_play(GstRTSPClient *client, GstRTSPContext *context)
{
  GstEvent *event = gst_video_event_new_upstream_force_key_unit(GST_CLOCK_TIME_NONE, TRUE, 0);
  g_autoptr(GstElement) bin = gst_rtsp_media_get_element(context->media);
  g_autoptr(GstElement) pay = gst_bin_get_by_name(GST_BIN(bin), "pay0");
  g_autoptr(GstPad) pad = gst_element_get_static_pad(pay, "sink");

  gst_pad_push_event(pad, event);
}

static void
viewer_finalize(GObject *object)
{
  viewer_release(RTSP_VIEWER(object));
  g_free(RTSP_VIEWER(object)->key);
  G_OBJECT_CLASS(viewer_parent_class)->finalize(object);
}

static void
viewer_class_init(ViewerClass *klass)
{
  GstRTSPClientClass *client_class = GST_RTSP_CLIENT_CLASS(klass);

  G_OBJECT_CLASS(klass)->finalize = viewer_finalize;
  client_class->make_path_from_uri = viewer_make_path;
  client_class->pre_describe_request = viewer_pre_describe;
  client_class->describe_request = viewer_requested;
  client_class->closed = viewer_closed;
  client_class->play_request = viewer_play;
}

static void
viewer_init(Viewer *self)
{
}

/* The server */

#define TYPE_SERVER (server_get_type())
G_DECLARE_FINAL_TYPE(Server, server, RTSP, SERVER_OF_CLIPS, GstRTSPServer)

struct _Server {
  GstRTSPServer parent;

  guint max_clients;
  guint n_clients; /* atomic */
};

G_DEFINE_FINAL_TYPE(Server, server, GST_TYPE_RTSP_SERVER)

static void
on_closed(gpointer server, GObject *client)
{
  g_atomic_int_dec_and_test(&RTSP_SERVER_OF_CLIPS(server)->n_clients);
  g_object_unref(server);
}

static GstRTSPClient *
server_create_client(GstRTSPServer *server)
{
  Server *self = RTSP_SERVER_OF_CLIPS(server);
  g_autoptr(GstRTSPSessionPool) sessions = gst_rtsp_server_get_session_pool(server);
  g_autoptr(GstRTSPMountPoints) mounts = gst_rtsp_server_get_mount_points(server);
  g_autoptr(GstRTSPThreadPool) threads = gst_rtsp_server_get_thread_pool(server);
  g_autoptr(GstRTSPAuth) auth = gst_rtsp_server_get_auth(server);
  GstRTSPClient *client;

  if ((guint) g_atomic_int_get(&self->n_clients) >= self->max_clients) {
    GST_WARNING("there are %u clients: no more", self->max_clients);
    return NULL;
  }
  client = g_object_new(TYPE_VIEWER, NULL);
  gst_rtsp_client_set_session_pool(client, sessions);
  gst_rtsp_client_set_mount_points(client, mounts);
  gst_rtsp_client_set_auth(client, auth);
  gst_rtsp_client_set_thread_pool(client, threads);
  g_atomic_int_inc(&self->n_clients);
  g_object_weak_ref(G_OBJECT(client), on_closed, g_object_ref(server));
  return client;
}

static void
server_class_init(ServerClass *klass)
{
  GST_RTSP_SERVER_CLASS(klass)->create_client = server_create_client;
}

static void
server_init(Server *self)
{
}

/* All */

static void
mount_codec(GstRTSPMountPoints *mounts, const Options *options, const CodecChoice *codec,
            Relay *live, Clips *clips)
{
  g_autofree char *live_path = g_strconcat("/live", codec->suffix, NULL);
  g_autofree char *clip_path = g_strconcat("/clip", codec->suffix, NULL);

  gst_rtsp_mount_points_add_factory(
      mounts, live_path,
      GST_RTSP_MEDIA_FACTORY(mount_new(options, codec->description, live, NULL)));
  if (options->max_clips > 0)
    gst_rtsp_mount_points_add_factory(
        mounts, clip_path,
        GST_RTSP_MEDIA_FACTORY(mount_new(options, codec->description, NULL, clips)));
}

GstRTSPServer *
mounts_new(const Options *options, const CodecChoice codecs[N_CODECS], Relay *live, Clips *clips)
{
  Server *self = g_object_new(TYPE_SERVER, NULL);
  GstRTSPServer *server = GST_RTSP_SERVER(self);
  g_autoptr(GstRTSPMountPoints) mounts = gst_rtsp_server_get_mount_points(server);
  g_autoptr(GstRTSPThreadPool) threads = gst_rtsp_server_get_thread_pool(server);
  g_autofree char *port = g_strdup_printf("%u", options->port);

  self->max_clients = options->max_clients;
  gst_rtsp_server_set_address(server, options->address);
  gst_rtsp_server_set_service(server, port);
  /* A thread each: nobody waits for the answer to another. */
  gst_rtsp_thread_pool_set_max_threads(threads, -1);
  for (guint i = 0; i < N_CODECS; i++)
    if (codecs[i].encoder)
      mount_codec(mounts, options, &codecs[i], live, clips);
  return server;
}

guint
mounts_count_clients(GstRTSPServer *server)
{
  return (guint) g_atomic_int_get(&RTSP_SERVER_OF_CLIPS(server)->n_clients);
}
