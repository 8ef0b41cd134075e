/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Weights that are not on the device, or not for long; on the fake CUDA module in f32. */
#include "fake-control.h"
#include "mmdit-private.h"
#include "pool-private.h"
#include "sampler-run.h"

/* A golden forward, with its blocks on the device and streamed. */
typedef struct {
  Golden *golden;
  OsrDevice *device;
  OsrMmditConfig config;
  OsrMmdit *resident, *streamed;
  OsrMmditInput input;
  guint blocks;
} Forward;

static OsrMmdit *
load(Golden *golden, const OsrMmditConfig *config, OsrDevice *device, gboolean stream)
{
  g_autoptr(GError) error = NULL;
  OsrLoader loader;
  OsrMmdit *mmdit;

  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  loader.stream = stream;
  mmdit = osr_mmdit_load(config, &loader, &error);
  g_assert_no_error(error);
  g_assert_cmpint(mmdit->streamer != NULL, ==, stream);
  return mmdit;
}

static Forward
forward_open(void)
{
  Forward f = { .golden = golden_open("mmdit-fused"), .device = case_device("cuda:0") };
  g_autofree float *ids = NULL;
  gsize n;

  f.config = case_mmdit_config(f.golden->config);
  f.resident = load(f.golden, &f.config, f.device, FALSE);
  f.streamed = load(f.golden, &f.config, f.device, TRUE);
  f.blocks = f.config.depth + f.config.depth_single_blocks;
  f.input.img = golden_tensor(f.golden, "in.img", f.device);
  f.input.txt = golden_tensor(f.golden, "in.txt", f.device);
  f.input.vec = golden_tensor(f.golden, "in.y_vec", f.device);
  if (golden_has(f.golden, "in.cond"))
    f.input.cond = golden_tensor(f.golden, "in.cond", f.device);
  ids = golden_floats(f.golden, "in.img_ids", &n);
  f.input.frames = (guint) ids[n - 3] + 1;
  f.input.height = (guint) ids[n - 2] + 1;
  f.input.width = (guint) ids[n - 1] + 1;
  must_synchronize(f.device);
  return f;
}

static void
forward_clear(Forward *f)
{
  osr_mmdit_free(f->resident);
  osr_mmdit_free(f->streamed);
  osr_tensor_unref(f->input.img);
  osr_tensor_unref(f->input.txt);
  osr_tensor_unref(f->input.vec);
  g_clear_pointer(&f->input.cond, osr_tensor_unref);
  osr_device_unref(f->device);
  golden_free(f->golden);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Forward, forward_clear)

static OsrTensor *
must_forward(OsrMmdit *mmdit, const OsrMmditInput *input)
{
  g_autoptr(GError) error = NULL;
  OsrTensor *pred = osr_mmdit_forward(mmdit, input, NULL, &error);

  g_assert_no_error(error);
  return pred;
}

static void
assert_same(OsrTensor *a, OsrTensor *b)
{
  g_autofree float *x = golden_download(a), *y = golden_download(b);

  g_assert_cmpmem(x, a->size, y, b->size);
}

/* Fetches as early as they may run show what is overwritten too soon; as late, what is not waited
 * for. */
static void
test_same(gconstpointer data)
{
  const gboolean late = GPOINTER_TO_INT(data);
  g_auto(Forward) f = forward_open();
  g_autoptr(OsrTensor) want = must_forward(f.resident, &f.input);
  FakeCuda *fake = fake_control();

  fake->late_fetches = late;
  for (guint i = 0; i < 3; i++) {
    g_autoptr(OsrTensor) got = must_forward(f.streamed, &f.input);

    assert_same(got, want);
  }
}

/* Of each block but the last, the next one's copy is enqueued before it starts. */
static void
test_ahead(void)
{
  g_auto(Forward) f = forward_open();
  FakeCuda *fake = fake_control();
  g_autoptr(OsrTensor) pred = must_forward(f.streamed, &f.input);
  const guint64 allocs = pool_stats(f.device).n_allocs;
  const guint n = f.blocks, wraps = n % 2 == 0; /* the first block goes where the last is not */
  OsrDeviceCopies before, after;

  g_assert_cmpuint(fake->n_joins, ==, n);
  g_assert_cmpuint(fake->n_joins_ahead, ==, n - 1 + wraps);
  g_clear_pointer(&pred, osr_tensor_unref);

  /* A second one copies every block again but the middle one of three, which is still there; and
   * asks for no more memory than one that streams nothing. */
  osr_device_get_copies(f.device, &before);
  pred = must_forward(f.streamed, &f.input);
  osr_device_get_copies(f.device, &after);
  g_assert_cmpuint(after.to_device - before.to_device, ==, n == 3 ? 2 : n);
  g_clear_pointer(&pred, osr_tensor_unref);
  {
    const guint64 streamed = pool_stats(f.device).n_allocs;
    guint64 resident;

    pred = must_forward(f.resident, &f.input);
    g_clear_pointer(&pred, osr_tensor_unref);
    resident = pool_stats(f.device).n_allocs;
    pred = must_forward(f.resident, &f.input);
    resident = pool_stats(f.device).n_allocs - resident;
    g_assert_cmpuint(streamed - allocs, ==, resident);
  }
}

/* The blocks of a streamed model take the memory of two. */
static void
test_memory(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  Golden *golden = golden_open("mmdit-fused");
  OsrMmditConfig config = case_mmdit_config(golden->config);
  OsrLoaderSizes sizes = { 0 };
  g_autoptr(GError) error = NULL;
  OsrPoolStats stats;
  OsrLoader loader;
  OsrMmdit *mmdit;
  guint64 before;

  osr_loader_init(&loader, NULL, device, OSR_DTYPE_F32, NULL);
  loader.sizes = &sizes;
  osr_mmdit_free(osr_mmdit_load(&config, &loader, &error));
  g_assert_no_error(error);
  g_assert_cmpuint(sizes.n_blocks, ==, config.depth + config.depth_single_blocks);

  before = pool_stats(device).allocated;
  mmdit = load(golden, &config, device, FALSE);
  g_assert_cmpuint(pool_stats(device).allocated - before, ==, sizes.bytes + sizes.block_bytes);
  osr_mmdit_free(mmdit);

  mmdit = load(golden, &config, device, TRUE);
  stats = pool_stats(device);
  g_assert_cmpuint(stats.allocated - before, ==,
                   sizes.bytes + 2 * osr_pool_block_size(sizes.largest_block));
  g_assert_cmpuint(osr_streamer_get_host_bytes(mmdit->streamer), ==, sizes.host_bytes);
  osr_mmdit_free(mmdit);
  g_assert_cmpuint(pool_stats(device).allocated, ==, before);
  golden_free(golden);
}

/* After a forward that stopped anywhere, the next one is right. */
static void
test_cancel(gconstpointer data)
{
  g_auto(Forward) f = forward_open();
  g_autoptr(OsrTensor) want = must_forward(f.resident, &f.input);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  guint64 before = 0;

  for (guint at = 1; at < f.blocks; at++) {
    FakeCuda *fake = fake_control();
    g_autoptr(OsrTensor) got = NULL;
    g_autoptr(GError) error = NULL;

    fake->late_fetches = GPOINTER_TO_INT(data);
    g_cancellable_reset(cancellable);
    spy_start(f.device);
    spy.cancellable = cancellable;
    spy.cancel_at = at;
    g_assert_null(osr_mmdit_forward(f.streamed, &f.input, cancellable, &error));
    spy_stop();
    g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    g_assert_cmpuint(spy.n_attention, ==, at);
    if (at == 1)
      before = pool_stats(f.device).allocated;
    g_assert_cmpuint(pool_stats(f.device).allocated, ==, before);
    got = must_forward(f.streamed, &f.input);
    assert_same(got, want);
  }
}

/* A model that is freed right after a forward that was cancelled: fetches are on their way. */
static void
test_free_at_once(void)
{
  for (guint late = 0; late < 2; late++) {
    g_auto(Forward) f = forward_open();
    g_autoptr(GCancellable) cancellable = g_cancellable_new();
    g_autoptr(GError) error = NULL;

    fake_control()->late_fetches = late;
    spy_start(f.device);
    spy.cancellable = cancellable;
    spy.cancel_at = 1;
    g_assert_null(osr_mmdit_forward(f.streamed, &f.input, cancellable, &error));
    spy_stop();
    g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
  }
}

/* Each failure is found, once, and the device is closed with nothing left. */
static void
test_failures(void)
{
  guint64 n = 0;

  for (guint64 at = 1; at == 1 || at <= n; at += 5) {
    g_auto(Forward) f = forward_open();
    FakeCuda *fake = fake_control();
    g_autoptr(OsrTensor) pred = NULL;
    g_autoptr(GError) error = NULL;
    gboolean ok;

    if (n == 0) {
      osr_tensor_unref(must_forward(f.streamed, &f.input));
      must_synchronize(f.device);
      n = fake->n_run;
      fake = fake_control();
    }
    fake->fail_at = at;
    pred = osr_mmdit_forward(f.streamed, &f.input, NULL, &error);
    ok = pred && osr_device_synchronize(f.device, &error);
    g_assert_false(ok);
    assert_error_says(error, OSR_ERROR_DEVICE, ": failed, as the test asked");
    g_assert_cmpint(pred == NULL, ==, g_str_has_prefix(error->message, "mmdit: "));
  }
}

/* Two clips of one streamed model take turns at its places. */
typedef struct {
  const Forward *f;
  OsrTensor *want;
} Turn;

static gpointer
turn_thread(gpointer data)
{
  const Turn *turn = data;

  for (guint i = 0; i < 4; i++) {
    g_autoptr(OsrTensor) got = must_forward(turn->f->streamed, &turn->f->input);

    assert_same(got, turn->want);
  }
  return NULL;
}

static void
test_turns(void)
{
  g_auto(Forward) f = forward_open();
  g_autoptr(OsrTensor) want = must_forward(f.resident, &f.input);
  Turn turn = { .f = &f, .want = want };
  GThread *threads[2];

  fake_control();
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
    threads[i] = g_thread_new("turn", turn_thread, &turn);
  for (guint i = 0; i < G_N_ELEMENTS(threads); i++)
    g_thread_join(threads[i]);
}

/* A clip with the sampler's run-ahead: the same bits, and no forward is recorded. */
static void
test_sampler(void)
{
  g_auto(Run) run = run_open("sampler-t2v", "cuda:0");
  g_autoptr(OsrTensor) want = NULL, got = NULL;
  FakeCuda *fake = fake_control();

  run.params.use_graphs = TRUE;
  want = run_latent(&run, 3, NULL);
  g_assert_cmpuint(fake->n_recorded, >, 0);
  osr_mmdit_free(run.mmdit);
  run.mmdit = load(run.golden, &run.config, run.device, TRUE);
  fake = fake_control();
  got = run_latent(&run, 3, NULL);
  g_assert_cmpuint(fake->n_recorded, ==, 0);
  g_assert_cmpuint(fake->n_joins, >, 0);
  assert_same(got, want);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_data_func("/offload/layer/same/early", GINT_TO_POINTER(FALSE), test_same);
  g_test_add_data_func("/offload/layer/same/late", GINT_TO_POINTER(TRUE), test_same);
  g_test_add_func("/offload/layer/ahead", test_ahead);
  g_test_add_func("/offload/layer/memory", test_memory);
  g_test_add_data_func("/offload/layer/cancel/early", GINT_TO_POINTER(FALSE), test_cancel);
  g_test_add_data_func("/offload/layer/cancel/late", GINT_TO_POINTER(TRUE), test_cancel);
  g_test_add_func("/offload/layer/free-at-once", test_free_at_once);
  g_test_add_func("/offload/layer/failures", test_failures);
  g_test_add_func("/offload/layer/turns", test_turns);
  g_test_add_func("/offload/layer/sampler", test_sampler);
  return g_test_run();
}
