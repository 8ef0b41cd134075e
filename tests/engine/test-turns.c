/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several threads on one device: everything that takes long lets others in at every block, comes
 * out as it does alone, and ends where it waits when it is cancelled.
 */
#include "clip.h"
#include "device-private.h"
#include "fake-control.h"
#include "sampler-run.h"
#include "t5.h"
#include "vae.h"

#define STEPS 6
#define LAYERS 3

typedef struct {
  Run run; /* its device is that of the others */
  OsrT5 *t5;
  OsrClip *clip;
  OsrVae *vae;
  OsrTensor *latent;
} Studio;

static Studio
studio_open(const char *device)
{
  static const OsrT5Config t5 = {
    .vocab_size = 50,
    .d_model = 16,
    .d_kv = 8,
    .d_ff = 32,
    .num_layers = LAYERS,
    .num_heads = 2,
    .relative_attention_num_buckets = 8,
    .relative_attention_max_distance = 16,
    .layer_norm_epsilon = 1e-6,
  };
  static const OsrClipConfig clip = {
    .vocab_size = 50,
    .hidden_size = 16,
    .intermediate_size = 32,
    .num_hidden_layers = LAYERS,
    .num_attention_heads = 2,
    .max_position_embeddings = 16,
    .layer_norm_eps = 1e-5,
    .hidden_act = OSR_ACT_QUICK_GELU,
    .eos_token_id = 2,
  };
  static const OsrVaeConfig vae = {
    .in_channels = 3,
    .out_channels = 3,
    .latent_channels = 4,
    .n_blocks = 4,
    .block_out_channels = { 8, 8, 8, 8 },
    .layers_per_block = 1,
    .norm_num_groups = 4,
    .time_compression_ratio = 4,
    .spatial_compression_ratio = 8,
    .mid_block_add_attention = TRUE,
    .scale_factor = 0.5,
    .sample_size = 256,
    .sample_tsize = 16,
    .tile_overlap_factor = 0.25,
  };
  Studio s = { .run = run_open("sampler-t2v", device) };
  g_autoptr(GError) error = NULL;
  OsrLoader loader;

  s.run.params.num_steps = STEPS;
  osr_loader_init_random(&loader, s.run.device, OSR_DTYPE_F32, 1, NULL);
  s.t5 = osr_t5_load(&t5, &loader, &error);
  g_assert_no_error(error);
  s.clip = osr_clip_load(&clip, &loader, &error);
  g_assert_no_error(error);
  s.vae = osr_vae_load(&vae, FALSE, TRUE, &loader, &error);
  g_assert_no_error(error);
  s.latent = osr_tensor_new(s.run.device, OSR_DTYPE_F32, 4, (gint64[]){ 3, 2, 2, 4 }, &error);
  g_assert_no_error(error);
  g_assert_true(osr_tensor_zero(s.latent, NULL));
  return s;
}

static void
studio_clear(Studio *s)
{
  osr_t5_free(s->t5);
  osr_clip_free(s->clip);
  osr_vae_free(s->vae);
  osr_tensor_unref(s->latent);
  run_clear(&s->run);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Studio, studio_clear)

/* Each of these in two sizes. */

static OsrTensor *
make_clip(Studio *s, guint variant, gboolean use_graphs, GCancellable *cancellable, GError **error)
{
  Run *run = &s->run;
  OsrSamplingParams params = run->params;
  guint dims[4] = { run->dims[0] + variant, run->dims[1], run->dims[2], run->dims[3] };

  params.use_graphs = use_graphs;
  params.seed = 7;
  return osr_sampler_run(run->mmdit, &params, &run->input, dims, NULL, NULL, NULL, cancellable,
                         error);
}

static OsrTensor *
make_plain(Studio *s, guint variant, GCancellable *cancellable, GError **error)
{
  return make_clip(s, variant, FALSE, cancellable, error);
}

static OsrTensor *
make_recorded(Studio *s, guint variant, GCancellable *cancellable, GError **error)
{
  return make_clip(s, variant, TRUE, cancellable, error);
}

static const gint32 ids[] = { 5, 6, 7, 8, 9, 10, 11, 12, 49 };

static OsrTensor *
make_t5(Studio *s, guint variant, GCancellable *cancellable, GError **error)
{
  return osr_t5_encode(s->t5, ids, variant ? 9 : 5, cancellable, error);
}

static OsrTensor *
make_pooled(Studio *s, guint variant, GCancellable *cancellable, GError **error)
{
  return osr_clip_encode(s->clip, ids, variant ? 9 : 5, NULL, cancellable, error);
}

static OsrTensor *
make_video(Studio *s, guint variant, GCancellable *cancellable, GError **error)
{
  gint64 dims[4] = { variant ? 1 : 3, 2, 2, 4 };
  g_autoptr(OsrTensor) latent = osr_tensor_view(s->latent, 0, 4, dims);

  return osr_vae_decode(s->vae, latent, OSR_VAE_TILING_OFF, NULL, NULL, cancellable, error);
}

/* @n_turns: how often it takes the lock at least, so that others get it as often. A step of the
 * sampler: the time, before, in and after two blocks, guidance. Recording takes no turns. */
static const struct {
  const char *name;
  guint n_turns;
  OsrTensor *(*make)(Studio *s, guint variant, GCancellable *cancellable, GError **error);
} works[] = {
  { "sampler", STEPS * 6, make_plain },
  { "sampler-graphs", 6, make_recorded },
  { "t5", 1 + LAYERS + 1, make_t5 },
  { "clip", 1 + LAYERS + 1, make_pooled },
  { "vae", 10, make_video },
};

typedef struct {
  guint work;
  const char *device;
} Setting;

/* One of them, in a thread or not. */
typedef struct {
  Studio *studio;
  guint work, variant;
  GCancellable *cancellable;
  float *got;
  gsize size;
  GError *error;
} Job;

static void leave(void);

static gpointer
run_job(gpointer data)
{
  Job *job = data;
  g_autoptr(OsrTensor) tensor =
      works[job->work].make(job->studio, job->variant, job->cancellable, &job->error);

  leave();
  if (tensor) {
    job->got = golden_download(tensor);
    job->size = tensor->size;
  }
  return NULL;
}

static void
job_clear(Job *job)
{
  g_clear_pointer(&job->got, g_free);
  g_clear_error(&job->error);
}

/* A device whose ops, whose callers have the lock, wait until somebody else waits for it: so the
 * next block is another's. Of the lock's owner but for the atomics. */
static struct {
  OsrDevice *device;
  const OsrBackend *real;
  OsrBackend backend;
  gint n_jobs; /* atomic: that are under way */
  GThread *last;
  guint n_attention, n_turns;
  guint stop_at;    /* number of the attention that waits for the test; 0: none */
  gint has_stopped; /* atomic */
} turns;

static void
leave(void)
{
  g_atomic_int_add(&turns.n_jobs, -1);
}

static void
let_others_queue(gboolean stop)
{
  GThread *self = g_thread_self();

  turns.n_turns += self != turns.last;
  turns.last = self;
  if (stop)
    g_atomic_int_set(&turns.has_stopped, TRUE);
  while ((stop || g_atomic_int_get(&turns.n_jobs) > 1) && osr_device_n_waiters(turns.device) == 0)
    g_thread_yield();
}

static OsrResult
attention_in_turn(OsrOpsContext *ctx, const OsrAttention *p)
{
  let_others_queue(++turns.n_attention == turns.stop_at);
  return turns.real->ops.attention(ctx, p);
}

#define IN_TURN(op, Type)                                                                          \
  static OsrResult op##_in_turn(OsrOpsContext *ctx, const Type *p)                                 \
  {                                                                                                \
    let_others_queue(FALSE);                                                                       \
    return turns.real->ops.op(ctx, p);                                                             \
  }

IN_TURN(linear, OsrLinear)
IN_TURN(conv3d, OsrConv3d)
IN_TURN(copy2d, OsrCopy2d)
IN_TURN(embedding, OsrEmbedding)
IN_TURN(rms_norm, OsrRmsNorm)
IN_TURN(layer_norm, OsrLayerNorm)
IN_TURN(guidance_step, OsrGuidanceStep)

static void
turns_start(OsrDevice *device, gint n_jobs, guint stop_at)
{
  OsrOpsContext *ctx = osr_device_get_context(device);
  OsrOps *ops = &turns.backend.ops;

  memset(&turns, 0, sizeof turns);
  turns.device = device;
  turns.real = ctx->backend;
  turns.backend = *ctx->backend;
  ops->attention = attention_in_turn;
  ops->linear = linear_in_turn;
  ops->conv3d = conv3d_in_turn;
  ops->copy2d = copy2d_in_turn;
  ops->embedding = embedding_in_turn;
  ops->rms_norm = rms_norm_in_turn;
  ops->layer_norm = layer_norm_in_turn;
  ops->guidance_step = guidance_step_in_turn;
  turns.n_jobs = n_jobs;
  turns.stop_at = stop_at;
  ctx->backend = &turns.backend;
}

static void
turns_end(void)
{
  osr_device_get_context(turns.device)->backend = turns.real;
}

/* Two sizes of the same work: tables that the model keeps are replaced by each for the other. */
static void
test_turns(gconstpointer data)
{
  const Setting *setting = data;
  g_auto(Studio) studio = studio_open(setting->device);
  Job alone[2], together[2];
  GThread *threads[2];
  guint n_alone = 0;
  guint64 before;

  for (guint i = 0; i < 2; i++) {
    alone[i] = together[i] = (Job){ .studio = &studio, .work = setting->work, .variant = i };
    turns_start(studio.run.device, 1, 0);
    run_job(&alone[i]);
    turns_end();
    g_assert_no_error(alone[i].error);
    n_alone += turns.n_attention;
  }
  before = pool_stats(studio.run.device).allocated;
  turns_start(studio.run.device, 2, 0);
  for (guint i = 0; i < 2; i++)
    threads[i] = g_thread_new("job", run_job, &together[i]);
  for (guint i = 0; i < 2; i++)
    g_thread_join(threads[i]);
  turns_end();
  g_test_message("%u attentions, %u turns", turns.n_attention, turns.n_turns);
  g_assert_cmpuint(turns.n_turns, >=, 2 * works[setting->work].n_turns - 1);
  if (works[setting->work].make != make_recorded)
    g_assert_cmpuint(turns.n_attention, ==, n_alone);
  for (guint i = 0; i < 2; i++) {
    g_assert_no_error(together[i].error);
    g_assert_cmpmem(together[i].got, together[i].size, alone[i].got, alone[i].size);
    job_clear(&alone[i]);
    job_clear(&together[i]);
  }
  /* Models keep the tables of the last size. */
  g_assert_cmpuint(pool_stats(studio.run.device).allocated, <=, before + 8192);
}

/* Cancelled while somebody else has the device, it ends there and then: at its start, and in the
 * middle. */
static void
test_cancel(gconstpointer data)
{
  const Setting *setting = data;
  g_auto(Studio) studio = studio_open(setting->device);
  OsrDevice *device = studio.run.device;

  for (guint stop_at = 0; stop_at <= 1; stop_at++) {
    g_autoptr(GCancellable) cancellable = g_cancellable_new();
    Job job = { .studio = &studio, .work = setting->work, .cancellable = cancellable };
    guint64 before = pool_stats(device).allocated;
    GThread *thread;

    turns_start(device, 1, stop_at);
    if (stop_at == 0)
      osr_device_lock(device);
    thread = g_thread_new("job", run_job, &job);
    if (stop_at > 0) {
      while (!g_atomic_int_get(&turns.has_stopped))
        g_thread_yield();
      osr_device_lock(device);
    }
    while (osr_device_n_waiters(device) == 0)
      g_thread_yield();
    g_cancellable_cancel(cancellable);
    g_thread_join(thread);
    osr_device_unlock(device);
    turns_end();
    g_assert_null(job.got);
    g_assert_error(job.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    g_assert_cmpuint(turns.n_attention, ==, stop_at);
    g_assert_cmpuint(pool_stats(device).allocated, <=, before + 8192);
    job_clear(&job);
  }
}

static gpointer
load_clip(gpointer data)
{
  Job *job = data;
  static const OsrClipConfig config = {
    .vocab_size = 50,
    .hidden_size = 16,
    .intermediate_size = 32,
    .num_hidden_layers = LAYERS,
    .num_attention_heads = 2,
    .max_position_embeddings = 16,
    .layer_norm_eps = 1e-5,
    .eos_token_id = 2,
  };
  g_autoptr(OsrDevice) device = case_device("cpu");
  OsrLoader loader;

  osr_loader_init_random(&loader, device, OSR_DTYPE_F32, 1, job->cancellable);
  g_assert_null(osr_clip_load(&config, &loader, &job->error));
  return NULL;
}

static void
test_cancel_loading(void)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  Job job = { .cancellable = cancellable };
  GThread *thread;

  osr_device_lock(device);
  thread = g_thread_new("loader", load_clip, &job);
  while (osr_device_n_waiters(device) == 0)
    g_thread_yield();
  g_cancellable_cancel(cancellable);
  g_thread_join(thread);
  osr_device_unlock(device);
  g_assert_error(job.error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpuint(pool_stats(device).allocated, ==, 0);
  job_clear(&job);
}

/* Who has the lock has the reason of its failures to itself: the calls that others make without
 * it fail with reasons of their own. */
static gpointer
fail_without_lock(gpointer data)
{
  OsrTensor *tensor = data;
  OsrDevice *device = tensor->device;
  float values[4] = { 0 };

  for (guint i = 0; i < 6; i++) {
    g_autoptr(GError) error = NULL;
    gboolean ok = i == 0   ? osr_device_wait(device, 1, "waiting", &error)
                  : i == 1 ? osr_device_synchronize(device, &error)
                  : i == 2 ? osr_device_upload(device, tensor->data, values, sizeof values, &error)
                  : i == 3 ? osr_tensor_download(tensor, values, sizeof values, &error)
                  : i == 4 ? osr_tensor_zero(tensor, &error)
                           : osr_device_get_memory(device, NULL, NULL, &error);

    g_assert_false(ok);
    assert_error_says(error, OSR_ERROR_DEVICE, "failed, as the test asked (device cuda:0)");
  }
  return NULL;
}

static void
test_reasons(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  OsrTensor *tensor = osr_tensor_make(device, OSR_DTYPE_F32, NULL, 4, -1);
  OsrOpsContext *ctx = osr_device_get_context(device);
  g_autoptr(GError) error = NULL;
  guint64 mark;

  g_assert_true(osr_tensor_zero(tensor, NULL));
  fake_control()->fail_at = 1;
  g_assert_true(osr_device_mark(device, &mark, NULL));
  g_assert_cmpuint(mark, ==, 1);
  osr_device_lock(device);
  g_strlcpy(ctx->error, "mine", sizeof ctx->error);
  g_thread_join(g_thread_new("other", fail_without_lock, tensor));
  g_assert_false(osr_device_check(device, OSR_ERR_INVALID, "block 1", &error));
  osr_device_unlock(device);
  g_assert_cmpstr(error->message, ==, "block 1: mine (device cuda:0)");
  osr_tensor_unref(tensor);
}

static void
add(const char *kind, GTestDataFunc func)
{
  static const char *const devices[] = { "cpu", "cuda:0" };

  for (guint i = 0; i < G_N_ELEMENTS(works); i++) {
    for (guint j = 0; j < G_N_ELEMENTS(devices); j++) {
      g_autofree char *path = g_strdup_printf("/%s/%s/%s", kind, works[i].name, devices[j]);
      Setting *setting = g_new(Setting, 1);

      *setting = (Setting){ .work = i, .device = devices[j] };
      g_test_add_data_func_full(path, setting, func, g_free);
    }
  }
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  add("turns", test_turns);
  add("cancel-waiting", test_cancel);
  g_test_add_func("/cancel-waiting/loader", test_cancel_loading);
  g_test_add_func("/reasons", test_reasons);
  return g_test_run();
}
