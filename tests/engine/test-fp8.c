/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Weights in F8 e4m3 with a factor a row. */
#include <math.h>

#include "cases.h"
#include "fake-control.h"
#include "mmdit-private.h"
#include "quantise.h"
#include "t5.h"

/* By the definition of the format: 4 bits of exponent with bias 7, 3 of mantissa. */
static double
f8_value(guint8 bits)
{
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  const double magnitude =
      exponent == 0 ? ldexp(mantissa, -9) : ldexp(8 + mantissa, exponent - 7 - 3);

  if ((bits & 0x7f) == 0x7f)
    return NAN;
  return bits & 0x80 ? -magnitude : magnitude;
}

static void
test_values(void)
{
  for (guint i = 0; i < 256; i++) {
    const double value = f8_value((guint8) i);

    if (isnan(value))
      g_assert_cmpuint(osr_f8_from_f32(NAN) & 0x7f, ==, 0x7f);
    else
      g_assert_cmpuint(osr_f8_from_f32((float) value), ==, i);
  }
  g_assert_cmpuint(osr_f8_from_f32(1e9f), ==, 0x7e);
  g_assert_cmpuint(osr_f8_from_f32(-1e9f), ==, 0xfe);
  g_assert_cmpuint(osr_f8_from_f32(INFINITY), ==, 0x7f);
}

/* Nearest, and of two that are as near the even one. */
static void
test_rounding(void)
{
  for (guint i = 0; i < 0x7e; i++) {
    const double low = f8_value((guint8) i), high = f8_value((guint8) (i + 1));
    const float middle = (float) ((low + high) / 2);

    g_assert_cmpuint(osr_f8_from_f32(middle), ==, i % 2 ? i + 1 : i);
    g_assert_cmpuint(osr_f8_from_f32(nextafterf(middle, 0.0f)), ==, i);
    g_assert_cmpuint(osr_f8_from_f32(nextafterf(middle, 1e3f)), ==, i + 1);
    g_assert_cmpuint(osr_f8_from_f32(-middle), ==, 0x80 | (i % 2 ? i + 1 : i));
  }
}

static void
test_rows(void)
{
  const float rows[4][3] = { { 1, -2, 0.5f }, { 0, 0, 0 }, { 1e-4f, NAN, 0 }, { INFINITY, 1, 2 } };
  guint8 bytes[4][3];
  float scale[4];

  osr_quantise_rows(rows[0], 4, 3, bytes[0], scale);
  g_assert_cmpfloat(scale[0], ==, 2.0f / OSR_F8_MAX);
  g_assert_cmpuint(bytes[0][0], ==, osr_f8_from_f32(224));
  g_assert_cmpuint(bytes[0][1], ==, 0xfe);
  g_assert_cmpfloat(scale[1], ==, 1);
  g_assert_cmpuint(bytes[1][2], ==, 0);
  g_assert_cmpfloat(scale[2], ==, 1e-4f / OSR_F8_MAX);
  g_assert_cmpuint(bytes[2][1] & 0x7f, ==, 0x7f); /* what is not a number stays that */
  g_assert_cmpuint(bytes[3][0], ==, 0x7f);
  g_assert_cmpuint(bytes[3][1], ==, osr_f8_from_f32(1));
}

/* Models */

static OsrMmdit *
load(Golden *golden, const OsrMmditConfig *config, OsrDevice *device, gboolean stream)
{
  g_autoptr(GError) error = NULL;
  OsrLoader loader;
  OsrMmdit *mmdit;

  osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
  loader.fp8 = TRUE;
  loader.stream = stream;
  mmdit = osr_mmdit_load(config, &loader, &error);
  g_assert_no_error(error);
  return mmdit;
}

typedef struct {
  Golden *golden;
  OsrMmditConfig config;
  OsrMmditInput input;
} Forward;

static Forward
forward_open(const char *name, OsrDevice *device)
{
  Forward f = { .golden = golden_open(name) };
  gsize n;
  g_autofree float *ids = golden_floats(f.golden, "in.img_ids", &n);
  g_autofree float *times = golden_floats(f.golden, "in.timesteps", NULL);

  f.config = case_mmdit_config(f.golden->config);
  f.input.img = golden_tensor(f.golden, "in.img", device);
  f.input.txt = golden_tensor(f.golden, "in.txt", device);
  f.input.vec = golden_tensor(f.golden, "in.y_vec", device);
  if (golden_has(f.golden, "in.cond"))
    f.input.cond = golden_tensor(f.golden, "in.cond", device);
  f.input.frames = (guint) ids[n - 3] + 1;
  f.input.height = (guint) ids[n - 2] + 1;
  f.input.width = (guint) ids[n - 1] + 1;
  f.input.timestep = times[0];
  f.input.guidance = 4;
  return f;
}

static void
forward_clear(Forward *f)
{
  osr_tensor_unref(f->input.img);
  osr_tensor_unref(f->input.txt);
  osr_tensor_unref(f->input.vec);
  g_clear_pointer(&f->input.cond, osr_tensor_unref);
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

/* A weight is off by up to 1/16 of its size, 1/28 on average; a product averages that out over
 * its inputs, and the residual path carries what has no error at all. */
#define FORWARD_ERROR 0.04
#define FORWARD_ERROR_MIN 1e-4

static void
test_mmdit(gconstpointer data)
{
  static const char *const names[] = { "mmdit-fused", "mmdit-split", "mmdit-guidance",
                                       "mmdit-patch1" };
  g_autoptr(OsrDevice) device = case_device(data);

  for (guint i = 0; i < G_N_ELEMENTS(names); i++) {
    g_auto(Forward) f = forward_open(names[i], device);
    g_autoptr(OsrMmdit) full = case_mmdit(f.golden, &f.config, device);
    g_autoptr(OsrMmdit) fp8 = load(f.golden, &f.config, device, FALSE);
    g_autoptr(OsrTensor) want = must_forward(full, &f.input), got = must_forward(fp8, &f.input);
    const double difference = case_difference(got, want);

    g_test_message("%s: relative error %.3g", names[i], difference);
    g_assert_cmpfloat(difference, <=, FORWARD_ERROR);
    g_assert_cmpfloat(difference, >=, FORWARD_ERROR_MIN);
  }
}

/* The same bits as without streaming, from a quarter of the memory. */
static void
test_streamed(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  g_auto(Forward) f = forward_open("mmdit-split", device);
  g_autoptr(OsrMmdit) resident = load(f.golden, &f.config, device, FALSE);
  g_autoptr(OsrMmdit) streamed = load(f.golden, &f.config, device, TRUE);
  g_autoptr(OsrTensor) want = must_forward(resident, &f.input);
  g_autoptr(OsrTensor) got = must_forward(streamed, &f.input);
  g_autofree float *a = golden_download(want), *b = golden_download(got);

  g_assert_nonnull(streamed->streamer);
  g_assert_cmpmem(a, want->size, b, got->size);
}

/* What is counted without weights is what the pool hands out. */
static void
test_sizes(void)
{
  g_autoptr(OsrDevice) device = case_device("cuda:0");
  g_auto(Forward) f = forward_open("mmdit-split", device);
  OsrLoaderSizes sizes = { 0 }, full = { 0 };
  guint64 before = pool_stats(device).allocated;
  OsrMmdit *fp8 = load(f.golden, &f.config, device, FALSE);
  OsrLoader loader;

  osr_loader_init(&loader, NULL, device, OSR_DTYPE_F32, NULL);
  loader.sizes = &full;
  osr_mmdit_free(osr_mmdit_load(&f.config, &loader, NULL));
  loader.sizes = &sizes;
  loader.fp8 = TRUE;
  osr_mmdit_free(osr_mmdit_load(&f.config, &loader, NULL));
  g_assert_cmpuint(pool_stats(device).allocated - before, ==, sizes.bytes + sizes.block_bytes);
  g_assert_cmpuint(sizes.host_bytes, <, full.host_bytes / 2);
  osr_mmdit_free(fp8);
}

/* With one token attention is a sum with one term. With more, its scores are not scaled and those
 * of random weights far apart, so that small errors decide which token is looked at. */
static void
test_t5(gconstpointer data)
{
  g_autoptr(Golden) golden = golden_open(data);
  const double bound = g_str_equal(data, "t5-len1") ? FORWARD_ERROR : 0.25;
  g_autoptr(OsrDevice) device = case_device("cpu");
  JsonObject *o = golden->config;
  const OsrT5Config config = {
    .vocab_size = config_uint(o, "vocab_size"),
    .d_model = config_uint(o, "d_model"),
    .d_kv = config_uint(o, "d_kv"),
    .d_ff = config_uint(o, "d_ff"),
    .num_layers = config_uint(o, "num_layers"),
    .num_heads = config_uint(o, "num_heads"),
    .relative_attention_num_buckets = config_uint(o, "relative_attention_num_buckets"),
    .relative_attention_max_distance = config_uint(o, "relative_attention_max_distance"),
    .layer_norm_epsilon = config_double(o, "layer_norm_epsilon"),
  };
  g_autofree gint32 *ids = golden_ints(golden, "in.ids", NULL);
  const guint length = (guint) golden_entry(golden, "in.ids")->dims[1];
  OsrTensor *hidden[2];
  double difference;

  for (guint fp8 = 0; fp8 < 2; fp8++) {
    g_autoptr(GError) error = NULL;
    OsrLoader loader;
    OsrT5 *t5;

    osr_loader_init(&loader, golden->weights, device, OSR_DTYPE_F32, NULL);
    loader.fp8 = fp8;
    t5 = osr_t5_load(&config, &loader, &error);
    g_assert_no_error(error);
    hidden[fp8] = osr_t5_encode(t5, ids, length, NULL, &error);
    g_assert_no_error(error);
    osr_t5_free(t5);
  }
  difference = case_difference(hidden[1], hidden[0]);
  g_test_message("relative error %.3g", difference);
  g_assert_cmpfloat(difference, <=, bound);
  g_assert_cmpfloat(difference, >=, FORWARD_ERROR_MIN);
  osr_tensor_unref(hidden[0]);
  osr_tensor_unref(hidden[1]);
}

int
main(int argc, char **argv)
{
  g_test_init(&argc, &argv, NULL);
  g_test_add_func("/fp8/values", test_values);
  g_test_add_func("/fp8/rounding", test_rounding);
  g_test_add_func("/fp8/rows", test_rows);
  g_test_add_data_func("/fp8/mmdit/cpu", "cpu", test_mmdit);
  g_test_add_data_func("/fp8/mmdit/ref", "ref", test_mmdit);
  g_test_add_data_func("/fp8/mmdit/cuda", "cuda:0", test_mmdit);
  g_test_add_func("/fp8/streamed", test_streamed);
  g_test_add_func("/fp8/sizes", test_sizes);
  g_test_add_data_func("/fp8/t5/one", "t5-len1", test_t5);
  g_test_add_data_func("/fp8/t5/many", "t5-len37", test_t5);
  return g_test_run();
}
