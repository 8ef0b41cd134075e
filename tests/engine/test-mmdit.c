/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <math.h>

#include "cases.h"
#include "mmdit-private.h"

/* The inputs of a golden file. Every item of its batch has a time step of its own. */
typedef struct {
  OsrMmditConfig config;
  OsrMmditInput input;
  guint batch;
  float *timesteps, *guidance;
} Inputs;

static void
inputs_clear(Inputs *in)
{
  osr_tensor_unref(in->input.img);
  osr_tensor_unref(in->input.txt);
  osr_tensor_unref(in->input.vec);
  g_clear_pointer(&in->input.cond, osr_tensor_unref);
  g_free(in->timesteps);
  g_free(in->guidance);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Inputs, inputs_clear)

static Inputs
inputs_read(Golden *golden, OsrDevice *device)
{
  g_autofree float *ids = NULL;
  gsize n_ids;
  Inputs in = { .config = case_mmdit_config(golden->config) };

  in.input.img = golden_tensor(golden, "in.img", device);
  in.input.txt = golden_tensor(golden, "in.txt", device);
  in.input.vec = golden_tensor(golden, "in.y_vec", device);
  if (golden_has(golden, "in.cond"))
    in.input.cond = golden_tensor(golden, "in.cond", device);
  in.batch = (guint) in.input.img->dims[0];
  in.timesteps = golden_floats(golden, "in.timesteps", NULL);
  if (golden_has(golden, "in.guidance"))
    in.guidance = golden_floats(golden, "in.guidance", NULL);

  /* The last token is in the far corner of the grid. */
  ids = golden_floats(golden, "in.img_ids", &n_ids);
  in.input.frames = (guint) ids[n_ids - 3] + 1;
  in.input.height = (guint) ids[n_ids - 2] + 1;
  in.input.width = (guint) ids[n_ids - 1] + 1;
  return in;
}

/* One item with its own time step. */
static OsrTensor *
forward_item(OsrMmdit *mmdit, const Inputs *in, guint i)
{
  g_autoptr(OsrTensor) img = case_item(in->input.img, i), txt = case_item(in->input.txt, i);
  g_autoptr(OsrTensor) vec = case_item(in->input.vec, i);
  g_autoptr(OsrTensor) cond = in->input.cond ? case_item(in->input.cond, i) : NULL;
  g_autoptr(GError) error = NULL;
  OsrMmditInput input = in->input;
  OsrTensor *pred;

  input.img = img;
  input.txt = txt;
  input.vec = vec;
  input.cond = cond;
  input.timestep = in->timesteps[i];
  input.guidance = in->guidance ? in->guidance[i] : 0;
  pred = osr_mmdit_forward(mmdit, &input, NULL, &error);
  g_assert_no_error(error);
  return pred;
}

static void
test_golden(gconstpointer data)
{
  const Case *c = data;
  g_autoptr(Golden) golden = golden_open(c->golden);
  g_autoptr(OsrDevice) device = case_device(c->device);
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autoptr(OsrMmdit) mmdit = case_mmdit(golden, &in.config, device);
  g_autofree float *want = golden_floats(golden, "out.pred", NULL);

  for (guint i = 0; i < in.batch; i++) {
    g_autoptr(OsrTensor) pred = forward_item(mmdit, &in, i);
    double error = case_item_error(pred, want, i);

    g_test_message("item %u: relative error %.2g", i, error);
    g_assert_cmpfloat(error, <=, TOLERANCE);
  }
}

/* The items of a batch with a time each, from memory of the device. */
static void
test_timesteps(gconstpointer data)
{
  g_autoptr(Golden) golden = golden_open("mmdit-guidance");
  g_autoptr(OsrDevice) device = case_device(data);
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autoptr(OsrMmdit) mmdit = case_mmdit(golden, &in.config, device);
  g_autoptr(OsrTensor) timesteps = NULL, pred = NULL, ids = NULL;
  g_autoptr(GError) error = NULL;

  timesteps = osr_tensor_new_from_host(device, OSR_DTYPE_F32, 1, (gint64[]){ in.batch },
                                       in.timesteps, &error);
  g_assert_no_error(error);
  g_assert_cmpuint(in.batch, >, 1);
  g_assert_cmpfloat(in.timesteps[0], !=, in.timesteps[1]);
  in.input.timesteps = timesteps;
  in.input.guidance = in.guidance[0];
  pred = osr_mmdit_forward(mmdit, &in.input, NULL, &error);
  g_assert_no_error(error);
  in.input.timesteps = NULL;
  for (guint i = 0; i < in.batch; i++) {
    g_autoptr(OsrTensor) part = case_item(pred, i), one = NULL;

    in.guidance[i] = in.guidance[0];
    one = forward_item(mmdit, &in, i);
    g_assert_cmpfloat(case_difference(part, one), <=, 1e-5);
  }

  ids = osr_tensor_make(device, OSR_DTYPE_I32, &error, (int) in.batch, -1);
  in.input.timesteps = ids;
  g_assert_null(osr_mmdit_forward(mmdit, &in.input, NULL, &error));
  g_assert_error(error, OSR_ERROR, OSR_ERROR_INVALID_ARGUMENT);
  g_assert_nonnull(strstr(error->message, "timesteps is I32"));
}

/* A batch gives what its items give one by one. */
static void
test_batch(gconstpointer data)
{
  const Case *c = data;
  g_autoptr(Golden) golden = golden_open(c->golden);
  g_autoptr(OsrDevice) device = case_device(c->device);
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autoptr(OsrMmdit) mmdit = case_mmdit(golden, &in.config, device);
  g_autoptr(OsrTensor) all = NULL;
  g_autoptr(GError) error = NULL;

  for (guint i = 1; i < in.batch; i++) {
    in.timesteps[i] = in.timesteps[0];
    if (in.guidance)
      in.guidance[i] = in.guidance[0];
  }
  in.input.timestep = in.timesteps[0];
  in.input.guidance = in.guidance ? in.guidance[0] : 0;
  all = osr_mmdit_forward(mmdit, &in.input, NULL, &error);
  g_assert_no_error(error);
  for (guint i = 0; i < in.batch; i++) {
    g_autoptr(OsrTensor) one = forward_item(mmdit, &in, i), part = case_item(all, i);

    g_assert_cmpfloat(case_difference(part, one), <=, 1e-5);
  }
}

/* A config that is wrong about how the weights are stored does no harm. */
static void
test_storage(gconstpointer data)
{
  const Case *c = data;
  g_autoptr(Golden) golden = golden_open(c->golden);
  g_autoptr(OsrDevice) device = case_device(c->device);
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autofree float *want = golden_floats(golden, "out.pred", NULL);
  g_autoptr(OsrMmdit) mmdit = NULL;
  g_autoptr(OsrTensor) pred = NULL;

  in.config.fused_qkv = !in.config.fused_qkv;
  mmdit = case_mmdit(golden, &in.config, device);
  pred = forward_item(mmdit, &in, 0);
  g_assert_cmpfloat(case_item_error(pred, want, 0), <=, TOLERANCE);
}

/* Rotary tables are kept: of another geometry, and of a longer text, they must not show. */
static void
test_geometries(gconstpointer data)
{
  const Case *c = data;
  g_autoptr(Golden) golden = golden_open(c->golden);
  g_autoptr(OsrDevice) device = case_device(c->device);
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autoptr(OsrMmdit) mmdit = case_mmdit(golden, &in.config, device);
  g_autoptr(OsrMmdit) fresh = case_mmdit(golden, &in.config, device);
  g_autofree float *want = golden_floats(golden, "out.pred", NULL);
  gint64 short_dims[3] = { 1, (in.input.txt->dims[1] + 1) / 2, in.config.context_in_dim };
  g_autoptr(OsrTensor) first = forward_item(mmdit, &in, 0), again = NULL, turned = NULL;
  g_autoptr(OsrTensor) short_txt = osr_tensor_view(in.input.txt, 0, 3, short_dims);
  g_autoptr(OsrTensor) short_kept = NULL, short_fresh = NULL;
  OsrTensor *long_txt = in.input.txt;
  guint height = in.input.height;

  in.input.txt = short_txt;
  short_kept = forward_item(mmdit, &in, 0);
  short_fresh = forward_item(fresh, &in, 0);
  in.input.txt = long_txt;
  g_assert_cmpfloat(case_difference(short_kept, short_fresh), <=, 1e-6);

  /* The same tokens as one column: other positions, another result. */
  in.input.height = in.input.height * in.input.width;
  in.input.width = 1;
  turned = forward_item(mmdit, &in, 0);
  g_assert_cmpfloat(case_difference(turned, first), >, 1e-3);
  in.input.width = in.input.height / height;
  in.input.height = height;
  again = forward_item(mmdit, &in, 0);
  g_assert_cmpfloat(case_item_error(again, want, 0), <=, TOLERANCE);
}

static void
test_tables(void)
{
  g_autoptr(Golden) golden = golden_open("tables-mmdit");
  JsonArray *axes = json_object_get_array_member(golden->config, "axes_dim");
  OsrMmditConfig config = { .theta = json_object_get_double_member(golden->config, "theta") };
  g_autofree float *ids = golden_floats(golden, "in.ids", NULL);
  g_autofree double *frequencies = NULL;
  g_autofree float *row = NULL;
  guint pairs = 0;

  for (guint i = 0; i < 3; i++) {
    config.axes_dim[i] = (guint) json_array_get_int_element(axes, i);
    pairs += config.axes_dim[i] / 2;
  }
  frequencies = g_new(double, pairs);
  row = g_new(float, 2 * pairs);
  osr_mmdit_rope_frequencies(&config, frequencies);

  for (guint order = 0; order < 2; order++) {
    gsize n;
    g_autofree float *want_cos =
        golden_floats(golden, order ? "out.cos.half_split" : "out.cos.interleaved", &n);
    g_autofree float *want_sin =
        golden_floats(golden, order ? "out.sin.half_split" : "out.sin.interleaved", NULL);

    g_assert_cmpuint(n, >, 0);
    for (gsize i = 0; i < n / pairs; i++) {
      guint position[3] = { (guint) ids[3 * i], (guint) ids[3 * i + 1], (guint) ids[3 * i + 2] };

      osr_mmdit_rope_row(&config, frequencies, position, row, row + pairs);
      g_assert_cmpfloat(golden_error(row, want_cos + i * pairs, pairs), <=, 1e-7);
      g_assert_cmpfloat(golden_error(row + pairs, want_sin + i * pairs, pairs), <=, 1e-7);
    }
  }
}

/* A model with two blocks of each kind, for what does not depend on numbers. */
static void
test_cancel(void)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(Golden) golden = golden_open("mmdit-fused");
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autoptr(OsrMmdit) mmdit = case_mmdit(golden, &in.config, device);
  g_autoptr(GCancellable) cancellable = g_cancellable_new();
  guint blocks = in.config.depth + in.config.depth_single_blocks;

  g_assert_cmpuint(blocks, >=, 3);
  for (guint at = 1; at < blocks; at++) {
    g_autoptr(OsrTensor) pred = NULL;
    g_autoptr(GError) error = NULL;

    g_cancellable_reset(cancellable);
    spy_start(device);
    spy.cancellable = cancellable;
    spy.cancel_at = at;
    pred = osr_mmdit_forward(mmdit, &in.input, cancellable, &error);
    spy_stop();
    g_assert_error(error, G_IO_ERROR, G_IO_ERROR_CANCELLED);
    g_assert_null(pred);
    /* Nothing ran after the block in which it was cancelled. */
    g_assert_cmpuint(spy.n_attention, ==, at);
  }
}

/* Once the buffers of a size exist, forwards take no new memory. */
static void
test_memory(void)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(Golden) golden = golden_open("mmdit-split");
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autoptr(OsrMmdit) mmdit = case_mmdit(golden, &in.config, device);
  g_autoptr(OsrTensor) first = forward_item(mmdit, &in, 0), second = NULL;
  OsrPoolStats before, after;

  g_clear_pointer(&first, osr_tensor_unref);
  osr_pool_get_stats(osr_device_get_pool(device), &before);
  second = forward_item(mmdit, &in, 1);
  g_clear_pointer(&second, osr_tensor_unref);
  osr_pool_get_stats(osr_device_get_pool(device), &after);
  g_assert_cmpuint(after.n_allocs, >, before.n_allocs);
  g_assert_cmpuint(after.n_backend_allocs, ==, before.n_backend_allocs);
  g_assert_cmpuint(after.allocated, ==, before.allocated);
}

static void
test_op_failure(void)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(Golden) golden = golden_open("mmdit-fused");
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autoptr(OsrMmdit) mmdit = case_mmdit(golden, &in.config, device);
  g_autoptr(OsrTensor) pred = NULL;
  g_autoptr(GError) error = NULL;

  spy_start(device);
  spy.fail_at = in.config.depth + 2;
  pred = osr_mmdit_forward(mmdit, &in.input, NULL, &error);
  spy_stop();
  g_assert_error(error, OSR_ERROR, OSR_ERROR_DEVICE);
  g_assert_nonnull(strstr(error->message, "single block 1"));
  g_assert_nonnull(strstr(error->message, "as the test asked"));
  g_assert_cmpuint(spy.n_attention, ==, spy.fail_at);
}

static void
expect_failure(OsrMmdit *mmdit, const OsrMmditInput *input, int code, const char *word)
{
  g_autoptr(GError) error = NULL;

  g_assert_null(osr_mmdit_forward(mmdit, input, NULL, &error));
  g_assert_error(error, OSR_ERROR, code);
  if (!strstr(error->message, word))
    g_error("'%s' does not say '%s'", error->message, word);
}

static void
test_bad_input(void)
{
  g_autoptr(OsrDevice) device = case_device("cpu"), other = case_device("ref");
  g_autoptr(Golden) golden = golden_open("mmdit-split");
  g_auto(Inputs) in = inputs_read(golden, device);
  g_autoptr(OsrMmdit) mmdit = case_mmdit(golden, &in.config, device);
  g_autoptr(OsrTensor) elsewhere = golden_tensor(golden, "in.img", other);
  g_autoptr(OsrTensor) item = case_item(in.input.txt, 0);
  OsrMmditInput bad;

  bad = in.input, bad.img = NULL;
  expect_failure(mmdit, &bad, OSR_ERROR_INVALID_ARGUMENT, "no img");
  bad = in.input, bad.cond = NULL;
  expect_failure(mmdit, &bad, OSR_ERROR_INVALID_ARGUMENT, "no cond");
  bad = in.input, bad.txt = NULL;
  expect_failure(mmdit, &bad, OSR_ERROR_INVALID_ARGUMENT, "no txt");
  bad = in.input, bad.cond = in.input.img;
  expect_failure(mmdit, &bad, OSR_ERROR_SHAPE, "cond is [");
  bad = in.input, bad.txt = item;
  expect_failure(mmdit, &bad, OSR_ERROR_SHAPE, "txt is [1, ");
  bad = in.input, bad.vec = in.input.txt;
  expect_failure(mmdit, &bad, OSR_ERROR_SHAPE, "vec is [");
  bad = in.input, bad.width++;
  expect_failure(mmdit, &bad, OSR_ERROR_SHAPE, "img is [");
  bad = in.input, bad.width = bad.height = G_MAXUINT32;
  expect_failure(mmdit, &bad, OSR_ERROR_INVALID_ARGUMENT, "grid");
  bad = in.input, bad.img = elsewhere;
  expect_failure(mmdit, &bad, OSR_ERROR_INVALID_ARGUMENT, "ref");
}

static void
expect_no_model(const OsrMmditConfig *config, Golden *golden, int code, const char *word)
{
  g_autoptr(OsrDevice) device = case_device("cpu");
  g_autoptr(GError) error = NULL;
  OsrLoader loader;

  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  g_assert_null(osr_mmdit_load(config, &loader, &error));
  g_assert_error(error, OSR_ERROR, code);
  if (!strstr(error->message, word))
    g_error("'%s' does not say '%s'", error->message, word);
}

static void
test_bad_config(void)
{
  g_autoptr(Golden) golden = golden_open("mmdit-split");
  OsrMmditConfig good = case_mmdit_config(golden->config), bad;

  bad = good, bad.axes_dim[0] += 2;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "axes_dim");
  bad = good, bad.axes_dim[0]++, bad.axes_dim[1]--;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "axes_dim");
  bad = good, bad.hidden_size = 0;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "hidden_size");
  bad = good, bad.num_heads = 3;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "num_heads");
  bad = good, bad.in_channels = G_MAXUINT32;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "in_channels");
  bad = good, bad.patch_size = 3;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "patch_size");
  bad = good, bad.depth = G_MAXUINT32;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "blocks");
  bad = good, bad.mlp_ratio = NAN;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "mlp_ratio");
  bad = good, bad.theta = 0;
  expect_no_model(&bad, golden, OSR_ERROR_INVALID_ARGUMENT, "theta");

  bad = good, bad.depth++;
  expect_no_model(&bad, golden, OSR_ERROR_NOT_FOUND, "double_blocks.1.");
  bad = good, bad.guidance_embed = TRUE;
  expect_no_model(&bad, golden, OSR_ERROR_NOT_FOUND, "guidance_in");
  bad = good, bad.mlp_ratio = 1;
  expect_no_model(&bad, golden, OSR_ERROR_SHAPE, "mlp.0.weight");
}

int
main(int argc, char **argv)
{
  static const Case fused = { (char *) "mmdit-fused", "cpu" };
  static const Case split = { (char *) "mmdit-split", "cpu" };
  static const Case split_ref = { (char *) "mmdit-split", "ref" };
  static const Case guidance = { (char *) "mmdit-guidance", "cpu" };

  g_test_init(&argc, &argv, NULL);
  cases_add("mmdit", test_golden);
  g_test_add_data_func("/mmdit/batch/split", &split, test_batch);
  g_test_add_data_func("/mmdit/batch/split-ref", &split_ref, test_batch);
  g_test_add_data_func("/mmdit/batch/guidance", &guidance, test_batch);
  g_test_add_data_func("/mmdit/timesteps/cpu", "cpu", test_timesteps);
  g_test_add_data_func("/mmdit/timesteps/ref", "ref", test_timesteps);
  g_test_add_data_func("/mmdit/storage/fused", &fused, test_storage);
  g_test_add_data_func("/mmdit/storage/split", &split, test_storage);
  g_test_add_data_func("/mmdit/geometries/fused", &fused, test_geometries);
  g_test_add_data_func("/mmdit/geometries/split", &split, test_geometries);
  g_test_add_func("/mmdit/tables", test_tables);
  g_test_add_func("/mmdit/cancel", test_cancel);
  g_test_add_func("/mmdit/memory", test_memory);
  g_test_add_func("/mmdit/op-failure", test_op_failure);
  g_test_add_func("/mmdit/bad-input", test_bad_input);
  g_test_add_func("/mmdit/bad-config", test_bad_config);
  return g_test_run();
}
