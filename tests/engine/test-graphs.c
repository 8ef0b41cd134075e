/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The denoising loop on the fake CUDA module: recorded forwards, memory, steps under way. */
#include "fake-control.h"
#include "sampler-run.h"

/* What a run reported, and what its callback is to do. */
typedef struct {
  const Run *run;
  FakeCuda *fake;
  OsrSamplerProgress last;
  OsrSamplerCounts counts;
  OsrDeviceCopies copies[2];       /* at the first and the last step */
  OsrPoolStats first, second, end; /* after these steps */
  guint64 n_run[64];               /* calls that have run, after each step */
  guint64 behind;                  /* most attentions behind at a report */
  GCancellable *cancellable;
  guint cancel_at;
  void (*meddle)(const Run *run);
} Trace;

static void
on_step(const OsrSamplerProgress *progress, gpointer user_data)
{
  Trace *t = user_data;
  OsrDevice *device = t->run->device;

  keep_progress(progress, &t->last);
  g_assert_cmpuint(progress->step, <, G_N_ELEMENTS(t->n_run));
  t->n_run[progress->step] = t->fake->n_run;
  t->behind = MAX(t->behind, t->fake->attentions_behind);
  if (progress->step == 1) {
    t->first = pool_stats(device);
    osr_device_get_copies(device, &t->copies[0]);
  }
  if (progress->step == 2)
    t->second = pool_stats(device);
  if (progress->step == progress->steps) {
    t->end = pool_stats(device);
    osr_device_get_copies(device, &t->copies[1]);
  }
  if (t->meddle)
    t->meddle(t->run);
  if (progress->step == t->cancel_at)
    g_cancellable_cancel(t->cancellable);
}

static OsrTensor *
sample(Run *run, guint max_batch, gboolean use_graphs, Trace *t, GError **error)
{
  OsrTensor *latent;

  t->run = run;
  must_synchronize(run->device);
  t->fake = fake_control();
  run->params.use_graphs = use_graphs;
  latent = osr_sampler_run_batched(run->mmdit, &run->params, &run->input, run->dims, run->noise,
                                   max_batch, &t->counts, on_step, t, t->cancellable, error);
  g_assert_cmpuint(t->fake->n_recorded, ==, t->counts.recorded);
  return latent;
}

static float *
must_sample(Run *run, guint max_batch, gboolean use_graphs, Trace *t)
{
  g_autoptr(GError) error = NULL;
  guint64 before = pool_stats(run->device).allocated;
  g_autoptr(OsrTensor) latent = sample(run, max_batch, use_graphs, t, &error);
  float *values;

  g_assert_no_error(error);
  g_assert_cmpuint(t->last.step, ==, run->params.num_steps);
  values = golden_download(latent);
  g_clear_pointer(&latent, osr_tensor_unref);
  /* The model keeps its rotary tables, of the last geometry. */
  g_assert_cmpuint(pool_stats(run->device).allocated, <=, before + 4096);
  return values;
}

static gsize
latent_size(const Run *run)
{
  return (gsize) run->dims[0] * run->dims[1] * run->dims[2] * run->dims[3] * sizeof(float);
}

/* A clip long enough for guidance to come and go: 3 forwards, then 1 in every other step. */
static Run
open_run(const char *name)
{
  Run run = run_open(name, "cuda:0");

  run.params.num_steps = 16;
  run.params.text_osci = run.params.image_osci = TRUE;
  return run;
}

/* Graphs change nothing but the number of calls. */
static void
test_identical(gconstpointer data)
{
  g_auto(Run) run = open_run(data);

  for (guint max_batch = 1; max_batch <= 3; max_batch++) {
    Trace plain = { 0 }, graphs = { 0 };
    g_autofree float *want = must_sample(&run, max_batch, FALSE, &plain);
    g_autofree float *got = must_sample(&run, max_batch, TRUE, &graphs);
    guint kinds = graphs.counts.recorded;

    g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
    g_assert_cmpuint(plain.counts.recorded, ==, 0);
    g_assert_cmpuint(plain.counts.launched, ==, 0);
    g_test_message("batch %u: %u plain forwards, or %u, %u graphs, %u launches", max_batch,
                   plain.counts.plain, graphs.counts.plain, kinds, graphs.counts.launched);
    /* Each kind of forward runs plainly once. */
    g_assert_cmpuint(kinds, >=, max_batch == 1 ? 2 : 1);
    g_assert_cmpuint(graphs.counts.plain, ==, kinds);
    g_assert_cmpuint(graphs.counts.plain + graphs.counts.launched, ==, plain.counts.plain);
    g_assert_cmpuint(graphs.fake->n_launched, ==, graphs.counts.launched);
    g_assert_cmpuint(graphs.last.forwards, ==, plain.last.forwards);
  }
}

/* Fills what the pool would give to others, as others do between two steps. */
static void
scribble(const Run *run)
{
  OsrTensor *taken[64];
  guint n = 0;

  for (guint size = 16; n < G_N_ELEMENTS(taken); n++, size += size / 6) {
    taken[n] = osr_tensor_make(run->device, OSR_DTYPE_F32, NULL, size, -1);
    g_assert_nonnull(taken[n]);
    g_assert_cmpint(
        osr_device_get_ops(run->device)
            ->affine(
                osr_device_get_context(run->device),
                &(OsrAffine){ .n = size, .b = 1e30f, .x = taken[n]->data, .y = taken[n]->data }),
        ==, OSR_OK);
  }
  while (n > 0)
    osr_tensor_unref(taken[--n]);
  osr_pool_trim(osr_device_get_pool(run->device), 0);
}

/* Another clip on the same model: the tables of this one's geometry are replaced. */
static void
use_model(const Run *run)
{
  gint64 txt[3] = { 1, 3, run->config.context_in_dim };
  gint64 img[3] = { 1, 2, run->config.in_channels }, cond[3] = { 1, 2, 0 };
  g_autoptr(OsrTensor) x = osr_tensor_new(run->device, OSR_DTYPE_F32, 3, img, NULL);
  g_autoptr(OsrTensor) t = osr_tensor_new(run->device, OSR_DTYPE_F32, 3, txt, NULL);
  g_autoptr(OsrTensor) c = NULL, pred = NULL;
  g_autoptr(GError) error = NULL;

  cond[2] = run->config.in_channels + run->config.patch_size * run->config.patch_size;
  c = osr_tensor_new(run->device, OSR_DTYPE_F32, 3, cond, NULL);
  g_assert_true(osr_tensor_zero(x, NULL) && osr_tensor_zero(t, NULL) && osr_tensor_zero(c, NULL));
  pred = osr_mmdit_forward(run->mmdit,
                           &(OsrMmditInput){
                               .img = x,
                               .cond = c,
                               .txt = t,
                               .vec = run->input.vec,
                               .frames = 1,
                               .height = 1,
                               .width = 2,
                               .timestep = 0.5f,
                               .guidance = 1.0f,
                           },
                           NULL, &error);
  g_assert_no_error(error);
}

static void
meddle(const Run *run)
{
  use_model(run);
  scribble(run);
}

static void
test_others(gconstpointer data)
{
  g_auto(Run) run = open_run(data);

  for (guint max_batch = 1; max_batch <= 3; max_batch++) {
    Trace alone = { 0 }, plain = { .meddle = meddle }, graphs = { .meddle = meddle };
    g_autofree float *want = must_sample(&run, max_batch, TRUE, &alone);
    g_autofree float *got = must_sample(&run, max_batch, TRUE, &graphs);
    g_autofree float *also = must_sample(&run, max_batch, FALSE, &plain);

    g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
    g_assert_cmpmem(also, latent_size(&run), want, latent_size(&run));
    g_assert_cmpuint(graphs.counts.recorded, ==, alone.counts.recorded);
    g_assert_cmpuint(graphs.counts.launched, ==, alone.counts.launched);
  }
}

/* Where recording or launching fails, the clip is made without. */
static void
test_fallback(void)
{
  g_auto(Run) run = open_run("sampler-i2v-head");
  Trace first = { 0 };
  g_autofree float *want = must_sample(&run, 2, FALSE, &first);

  for (guint way = 0; way < 4; way++) {
    Trace t = { .run = &run, .fake = fake_control() };
    g_autoptr(OsrTensor) latent = NULL;
    g_autofree float *got = NULL;
    g_autoptr(GError) error = NULL;

    t.fake->fail_begin = way == 0;
    t.fake->fail_end = way == 1;
    /* More than there is, and the device gives none to who records. */
    t.fake->recording_scratch = way == 2 ? (guint64) 1 << 40 : 0;
    t.fake->fail_launch = way == 3;
    run.params.use_graphs = TRUE;
    latent = osr_sampler_run_batched(run.mmdit, &run.params, &run.input, run.dims, run.noise, 2,
                                     &t.counts, on_step, &t, NULL, &error);
    g_assert_no_error(error);
    got = golden_download(latent);
    g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
    g_assert_cmpuint(t.counts.recorded, ==, (way == 3 ? 1 : 0));
    g_assert_cmpuint(t.counts.plain, ==, first.counts.plain);
  }
}

/* In the middle of the clip: those that were launched stay. */
static void
forbid_later(G_GNUC_UNUSED const Run *run)
{
  static guint step;

  if (++step == 6)
    fake_control_now()->fail_launch = TRUE;
}

static void
test_launch_fails_later(void)
{
  g_auto(Run) run = open_run("sampler-t2v");
  Trace plain = { 0 }, graphs = { .meddle = forbid_later };
  g_autofree float *want = must_sample(&run, 3, FALSE, &plain);
  g_autofree float *got = must_sample(&run, 3, TRUE, &graphs);

  g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
  g_assert_cmpuint(graphs.counts.launched, >, 0);
  g_assert_cmpuint(graphs.counts.plain + graphs.counts.launched, ==, plain.counts.plain);
  g_assert_cmpuint(graphs.counts.launched, <=, 8);
}

/* Between two steps somebody lowers the limit. What the clip has it keeps; what it would need
 * beyond that is an error, also in a forward that is recorded. */
static void
limit_to_present(const Run *run)
{
  OsrPoolStats stats = pool_stats(run->device);

  if (stats.limit == 0)
    osr_pool_set_limit(osr_device_get_pool(run->device), stats.reserved + 65536);
}

static void
limit_to_nothing(const Run *run)
{
  osr_pool_set_limit(osr_device_get_pool(run->device), 1);
}

static void
test_limit(void)
{
  g_auto(Run) run = open_run("sampler-t2v");
  OsrPool *pool = osr_device_get_pool(run.device);
  Trace free_run = { 0 }, bounded = { .meddle = limit_to_present };
  Trace starved = { .meddle = limit_to_nothing };
  g_autofree float *want = NULL, *got = NULL;
  g_autoptr(GError) error = NULL;
  guint64 before;

  want = must_sample(&run, 3, TRUE, &free_run);
  got = must_sample(&run, 3, TRUE, &bounded);
  g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
  g_assert_cmpuint(bounded.counts.recorded, ==, free_run.counts.recorded);

  osr_pool_set_limit(pool, 0);
  osr_pool_trim(pool, 0);
  before = pool_stats(run.device).allocated;
  g_assert_null(sample(&run, 3, TRUE, &starved, &error));
  assert_error_says(error, OSR_ERROR_MEMORY, "limit 1 byte");
  g_assert_cmpuint(starved.last.step, >, 2);
  g_assert_cmpuint(starved.counts.recorded, >, 0);
  g_assert_cmpuint(pool_stats(run.device).allocated, ==, before);
  osr_pool_set_limit(pool, 0);
  g_free(got);
  free_run = (Trace){ 0 };
  got = must_sample(&run, 3, TRUE, &free_run);
  g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
}

/* A forward of more than half a second is not recorded: it could not be cancelled. */
static void
test_long_forwards(void)
{
  g_auto(Run) run = open_run("sampler-t2v");
  guint blocks = run.config.depth + run.config.depth_single_blocks;
  Trace t = { .run = &run, .fake = fake_control() };
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(GError) error = NULL;

  t.fake->attention_ms = 600 / blocks + 1;
  run.params.num_steps = 3;
  run.params.use_graphs = TRUE;
  latent = osr_sampler_run_batched(run.mmdit, &run.params, &run.input, run.dims, run.noise, 3,
                                   &t.counts, on_step, &t, NULL, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(t.counts.recorded, ==, 0);
  g_assert_cmpuint(t.counts.plain, ==, 3);
  /* Each was reported when it was done, with nothing after it under way. */
  g_assert_cmpuint(t.behind, ==, 0);
  g_assert_cmpfloat(t.last.elapsed, >=, 1.8);
}

/* From the second step on the device is asked for nothing, and with graphs nor is the pool once
 * all is recorded. No data goes to the host. */
static void
test_memory(gconstpointer data)
{
  for (guint max_batch = 1; max_batch <= 3; max_batch++) {
    for (guint use_graphs = 0; use_graphs < 2; use_graphs++) {
      g_auto(Run) run = open_run(data);
      Trace t = { 0 };
      G_GNUC_UNUSED g_autofree float *latent = must_sample(&run, max_batch, use_graphs, &t);

      g_assert_cmpuint(t.end.n_backend_allocs, ==, t.first.n_backend_allocs);
      g_assert_cmpuint(t.end.allocated, ==, t.first.allocated);
      g_assert_cmpuint(t.end.reserved, ==, t.first.reserved);
      if (use_graphs == 0)
        g_assert_cmpuint(t.end.n_allocs, >, t.second.n_allocs);
      g_assert_cmpuint(t.copies[1].to_host, ==, t.copies[0].to_host);
      g_assert_cmpuint(t.copies[1].to_device, ==, t.copies[0].to_device);
    }
  }
}

static void
test_no_requests(void)
{
  g_auto(Run) run = open_run("sampler-t2v");
  Trace t = { 0 };
  g_autofree float *latent = NULL;

  /* One kind of forward. */
  run.params.text_osci = run.params.image_osci = FALSE;
  latent = must_sample(&run, 3, TRUE, &t);
  g_assert_cmpuint(t.counts.recorded, ==, 1);
  g_assert_cmpuint(t.second.n_allocs, >, t.first.n_allocs);
  g_assert_cmpuint(t.end.n_allocs, ==, t.second.n_allocs);
}

/* The device has one more step to do while one is reported, not more. */
static void
test_one_ahead(void)
{
  g_auto(Run) run = open_run("sampler-t2v");
  guint blocks = run.config.depth + run.config.depth_single_blocks;
  Trace t = { 0 };
  g_autofree float *latent = NULL;

  run.params.text_osci = run.params.image_osci = FALSE;
  latent = must_sample(&run, 3, TRUE, &t);
  g_assert_cmpuint(t.behind, ==, blocks);
  g_assert_cmpuint(t.fake->max_attentions_behind, ==, 2 * blocks);
}

/* A failure is one error, which names the step that had it and the op. */
static void
test_failure(gconstpointer data)
{
  const gboolean use_graphs = GPOINTER_TO_INT(data);
  guint64 n_run[G_N_ELEMENTS(((Trace *) NULL)->n_run)];
  g_autofree float *want = NULL;

  {
    g_auto(Run) run = open_run("sampler-t2v");
    Trace t = { 0 };

    want = must_sample(&run, 2, use_graphs, &t);
    memcpy(n_run, t.n_run, sizeof n_run);
  }
  for (guint step = 2; step <= 14; step += 3) {
    g_auto(Run) run = open_run("sampler-t2v");
    Trace t = { .run = &run };
    g_autofree char *name = g_strdup_printf("sampler: step %u of 16: ", step);
    g_autoptr(OsrTensor) latent = NULL;
    g_autoptr(GError) error = NULL;

    must_synchronize(run.device);
    t.fake = fake_control();
    t.fake->fail_at = (n_run[step - 1] + n_run[step]) / 2;
    run.params.use_graphs = use_graphs;
    latent = osr_sampler_run_batched(run.mmdit, &run.params, &run.input, run.dims, run.noise, 2,
                                     &t.counts, on_step, &t, NULL, &error);
    g_assert_null(latent);
    g_test_message("%s", error->message);
    assert_error_says(error, OSR_ERROR_DEVICE, name);
    assert_error_says(error, OSR_ERROR_DEVICE, ": failed, as the test asked");
    g_assert_cmpuint(t.last.step, ==, step - 1);
    g_assert_cmpuint(t.fake->n_run, ==, t.fake->fail_at);

    /* Once more, while the device is lost: at once. */
    g_clear_error(&error);
    latent = osr_sampler_run(run.mmdit, &run.params, &run.input, run.dims, run.noise, NULL, NULL,
                             NULL, &error);
    assert_error_says(error, OSR_ERROR_DEVICE, ": failed, as the test asked");
    g_assert_cmpuint(t.fake->n_run, ==, t.fake->fail_at);
  }
  {
    g_auto(Run) run = open_run("sampler-t2v");
    Trace t = { 0 };
    g_autofree float *got = must_sample(&run, 2, use_graphs, &t);

    g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
  }
}

/* Cancelled, it returns with work under way, and gives back the memory of that. */
static void
test_cancel(gconstpointer data)
{
  const gboolean use_graphs = GPOINTER_TO_INT(data);
  g_auto(Run) run = open_run("sampler-i2v-head");
  Trace whole = { 0 };
  g_autofree float *want = must_sample(&run, 3, use_graphs, &whole), *got = NULL;
  guint64 before = pool_stats(run.device).allocated;

  for (guint step = 1; step <= 12; step++) {
    g_autoptr(GCancellable) cancellable = g_cancellable_new();
    Trace t = { .cancellable = cancellable, .cancel_at = step };
    g_autoptr(GError) error = NULL;

    g_assert_null(sample(&run, 3, use_graphs, &t, &error));
    g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    g_assert_cmpuint(t.last.step, ==, step);
    /* Step 12 brings a kind of forward that is new, and measured. */
    if (step >= 2 && step < 11)
      g_assert_cmpuint(t.fake->attentions_behind, >, 0);
    g_assert_cmpuint(pool_stats(run.device).allocated, ==, before);
    osr_pool_trim(osr_device_get_pool(run.device), 0);
  }
  whole = (Trace){ 0 };
  got = must_sample(&run, 3, use_graphs, &whole);
  g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
}

/* Cancelled while a forward is recorded, which is finished and then not launched. */
static void
test_cancel_recording(void)
{
  g_auto(Run) run = open_run("sampler-t2v");
  guint blocks = run.config.depth + run.config.depth_single_blocks;
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  Trace whole = { 0 }, t = { .cancellable = cancellable };
  g_autofree float *want = NULL, *got = NULL;
  g_autoptr(GError) error = NULL;
  guint64 before;

  run.params.text_osci = run.params.image_osci = FALSE;
  want = must_sample(&run, 3, TRUE, &whole);
  before = pool_stats(run.device).allocated;
  spy_start(run.device);
  spy.cancellable = cancellable;
  spy.cancel_at = blocks + 1;
  g_assert_null(sample(&run, 3, TRUE, &t, &error));
  spy_stop();
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  g_assert_cmpuint(spy.n_attention, ==, 2 * blocks);
  g_assert_cmpuint(t.counts.recorded, ==, 1);
  g_assert_cmpuint(t.counts.launched, ==, 0);
  g_assert_cmpuint(t.fake->n_launched, ==, 0);
  g_assert_cmpuint(pool_stats(run.device).allocated, ==, before);

  whole = (Trace){ 0 };
  got = must_sample(&run, 3, TRUE, &whole);
  g_assert_cmpmem(got, latent_size(&run), want, latent_size(&run));
}

/* Model, embeddings and device are dropped while launches are enqueued, which still run. */
static void
test_dropped(void)
{
  Run run = open_run("sampler-t2v");
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  Trace t = { .cancellable = cancellable, .cancel_at = 6 };
  g_autoptr(GError) error = NULL;
  guint64 behind, n_run;

  g_assert_null(sample(&run, 3, TRUE, &t, &error));
  g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  behind = t.fake->attentions_behind;
  n_run = t.fake->n_run;
  g_assert_cmpuint(behind, >, 0);
  g_assert_cmpuint(t.counts.launched, >, 0);
  run_clear(&run);
  g_assert_cmpuint(t.fake->attentions_behind, ==, 0);
  g_assert_cmpuint(t.fake->n_run, >=, n_run + behind);
}

/* Two clips of one model at the same time: each thread has its graphs and its memory. */
typedef struct {
  Run *run;
  gboolean use_graphs;
  float *got;
} Job;

static gpointer
sample_in_thread(gpointer data)
{
  Job *job = data;
  Run run = *job->run;
  g_autoptr(OsrTensor) latent = NULL;
  g_autoptr(GError) error = NULL;

  run.params.use_graphs = job->use_graphs;
  latent = osr_sampler_run(run.mmdit, &run.params, &run.input, run.dims, run.noise, NULL, NULL,
                           NULL, &error);
  g_assert_no_error(error);
  job->got = golden_download(latent);
  return NULL;
}

static void
test_threads(void)
{
  g_auto(Run) run = open_run("sampler-t2v");
  Trace t = { 0 };
  g_autofree float *want = must_sample(&run, 3, FALSE, &t);
  Job jobs[4];
  GThread *threads[4];

  for (guint i = 0; i < G_N_ELEMENTS(jobs); i++) {
    jobs[i] = (Job){ .run = &run, .use_graphs = i != 2 };
    threads[i] = g_thread_new("clip", sample_in_thread, &jobs[i]);
  }
  for (guint i = 0; i < G_N_ELEMENTS(jobs); i++) {
    g_thread_join(threads[i]);
    g_assert_cmpmem(jobs[i].got, latent_size(&run), want, latent_size(&run));
    g_free(jobs[i].got);
  }
}

int
main(int argc, char **argv)
{
  static const char *const clips[] = { "sampler-t2v", "sampler-i2v-head", "sampler-i2v-loop" };

  g_test_init(&argc, &argv, NULL);
  for (guint i = 0; i < G_N_ELEMENTS(clips); i++) {
    g_autofree char *identical = g_strconcat("/graphs/identical/", clips[i], NULL);
    g_autofree char *others = g_strconcat("/graphs/others/", clips[i], NULL);
    g_autofree char *memory = g_strconcat("/graphs/memory/", clips[i], NULL);

    g_test_add_data_func(identical, clips[i], test_identical);
    g_test_add_data_func(others, clips[i], test_others);
    g_test_add_data_func(memory, clips[i], test_memory);
  }
  g_test_add_func("/graphs/no-requests", test_no_requests);
  g_test_add_func("/graphs/one-ahead", test_one_ahead);
  g_test_add_func("/graphs/fallback", test_fallback);
  g_test_add_func("/graphs/long-forwards", test_long_forwards);
  g_test_add_data_func("/graphs/failure/plain", GINT_TO_POINTER(FALSE), test_failure);
  g_test_add_data_func("/graphs/failure/graphs", GINT_TO_POINTER(TRUE), test_failure);
  g_test_add_data_func("/graphs/cancel/plain", GINT_TO_POINTER(FALSE), test_cancel);
  g_test_add_data_func("/graphs/cancel/graphs", GINT_TO_POINTER(TRUE), test_cancel);
  g_test_add_func("/graphs/cancel/recording", test_cancel_recording);
  g_test_add_func("/graphs/launch-fails-later", test_launch_fails_later);
  g_test_add_func("/graphs/limit", test_limit);
  g_test_add_func("/graphs/dropped", test_dropped);
  g_test_add_func("/graphs/threads", test_threads);
  return g_test_run();
}
