/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * test-gpu.c: whole clips on cuda:0, against those of the CPU. Runs on a GPU (run.sh beside it),
 * and on the fakes of tests/gst-cuda where there is none.
 */
#include "common.h"

#include <math.h>

#define DEVICE "cuda:0"
#define PROMPT "prompt=\"a red circle moving right on a blue background\" "
#define RGB "video/x-raw,format=RGB ! appsink name=out"

static OsrDevice *
the_gpu(void)
{
  g_autoptr(GError) error = NULL;
  OsrDevice *device = osr_device_get(DEVICE, &error);

  fail_unless(device != NULL, "%s", error ? error->message : "");
  return device;
}

/* In dB, over all frames; infinite for equal ones. */
static double
psnr(Run *a, Run *b)
{
  double squares = 0;
  gsize n = 0;

  assert_equals_int(a->samples->len, b->samples->len);
  for (guint i = 0; i < a->samples->len; i++) {
    GstMapInfo x, y;

    fail_unless(gst_buffer_map(run_buffer(a, i), &x, GST_MAP_READ));
    fail_unless(gst_buffer_map(run_buffer(b, i), &y, GST_MAP_READ));
    assert_equals_uint64(x.size, y.size);
    for (gsize at = 0; at < x.size; at++) {
      double difference = (double) x.data[at] - y.data[at];

      squares += difference * difference;
    }
    n += x.size;
    gst_buffer_unmap(run_buffer(a, i), &x);
    gst_buffer_unmap(run_buffer(b, i), &y);
  }
  fail_unless(n > 0);
  return 10 * log10(255.0 * 255.0 * (double) n / squares);
}

/* The tiny model's own clip with OPENSORA_FULL_CLIP in the environment, else a shorter one. */
GST_START_TEST(test_parity)
{
  static const struct {
    OsrDType dtype;
    const char *properties;
    double least;
  } runs[] = {
    { OSR_DTYPE_F32, "dtype=f32", 40 },
    { OSR_DTYPE_F32, "dtype=f32 cuda-graphs=false", 40 },
    { OSR_DTYPE_BF16, "dtype=bf16", 30 },
    { OSR_DTYPE_BF16, "dtype=bf16 cuda-graphs=false", 30 },
  };
  const gboolean full = g_getenv("OPENSORA_FULL_CLIP") != NULL;
  const char *size = full ? "" : "num-frames=9 steps=8";
  const guint frames = full ? 33 : 9;
  g_autoptr(Run) cpu = run_ok(frames, "opensorasrc " PROMPT "device=cpu %s ! " RGB, size);
  g_autoptr(OsrDevice) device = the_gpu();

  for (guint i = 0; i < G_N_ELEMENTS(runs); i++) {
    g_autoptr(Run) gpu = NULL;
    double db;

    if (!osr_device_supports_dtype(device, runs[i].dtype))
      continue;
    gpu = run_ok(frames, "opensorasrc " PROMPT "device=" DEVICE " %s %s ! " RGB, size,
                 runs[i].properties);
    db = psnr(cpu, gpu);
    g_print("# %s: %.1f dB\n", runs[i].properties, db);
    fail_unless(db >= runs[i].least, "%s: %.1f dB", runs[i].properties, db);
  }
}
GST_END_TEST

/* From the prompt to the frames nothing goes through the host, and frames in its memory only
 * when they are done. (T5 looks at a table of its weights when these are loaded.) */
GST_START_TEST(test_copies)
{
  static const struct {
    const char *sink;
    guint64 to_host;
  } runs[] = {
    { "video/x-raw(memory:CUDAMemory) ! appsink name=out", 0 },
    { RGB, 9 },
  };
  g_autoptr(OsrDevice) device = the_gpu();
  g_autoptr(OsrModel) model = osr_model_get(NULL, device, NULL);

  fail_unless(model != NULL);
  run_free(run_ok(1, "opensorasrc " PROMPT "num-frames=1 device=" DEVICE " ! " RGB));
  for (guint i = 0; i < G_N_ELEMENTS(runs); i++) {
    OsrDeviceCopies before, after;
    g_autoptr(Run) clip = NULL;

    osr_device_get_copies(device, &before);
    clip = run_ok(9, "opensorasrc " PROMPT "num-frames=9 device=" DEVICE " ! %s", runs[i].sink);
    osr_device_get_copies(device, &after);
    assert_equals_uint64(after.to_host - before.to_host, runs[i].to_host);
  }
}
GST_END_TEST

/* From the second step on the pool gives out nothing more. */
GST_START_TEST(test_allocations)
{
  g_autoptr(Run) clip =
      run_ok(9, "opensorasrc " PROMPT "num-frames=9 steps=8 guidance=1 device=" DEVICE " ! " RGB);
  guint64 allocations[9] = { 0 };

  for (guint i = 0; i < clip->messages->len; i++) {
    const GstStructure *s = gst_message_get_structure(g_ptr_array_index(clip->messages, i));
    guint step;

    if (!s || !gst_structure_has_name(s, "opensora-progress") ||
        g_strcmp0(gst_structure_get_string(s, "stage"), "denoise") != 0)
      continue;
    fail_unless(gst_structure_get_uint(s, "step", &step));
    fail_unless(step < G_N_ELEMENTS(allocations));
    fail_unless(gst_structure_get_uint64(s, "memory-allocations", &allocations[step]));
  }
  /* The second is plain like the first where graphs are recorded in the third. */
  fail_unless(allocations[3] > 0);
  for (guint step = 4; step <= 8; step++)
    assert_equals_uint64(allocations[step], allocations[3]);
}
GST_END_TEST

/* GStreamer's own elements take the frames, and a file comes out. */
GST_START_TEST(test_download)
{
  g_autoptr(Run) clip = run_ok(9, "opensorasrc " PROMPT "num-frames=9 device=" DEVICE
                                  " ! video/x-raw(memory:CUDAMemory),format=NV12 ! cudadownload ! "
                                  "video/x-raw,format=NV12 ! videoconvert ! " RGB);
  g_autoptr(Run) plain = run_ok(9, "opensorasrc " PROMPT "num-frames=9 device=" DEVICE
                                   " ! video/x-raw,format=NV12 ! videoconvert ! " RGB);

  fail_unless(isinf(psnr(clip, plain)));
}
GST_END_TEST

/* What does not fit says so, and the process goes on, on the GPU and on the CPU. */
GST_START_TEST(test_memory)
{
  g_autoptr(OsrDevice) device = the_gpu();

  run_fails(GST_RESOURCE_ERROR, GST_RESOURCE_ERROR_NO_SPACE_LEFT, "limit",
            "opensorasrc " PROMPT "num-frames=9 memory-limit=4000000 device=" DEVICE " ! " RGB);
  osr_pool_set_limit(osr_device_get_pool(device), 0);
  for (guint i = 0; i < 2; i++)
    run_free(run_ok(9, "opensorasrc " PROMPT "num-frames=9 steps=2 device=%s ! " RGB,
                    i == 0 ? DEVICE : "cpu"));
}
GST_END_TEST

static Suite *
make_suite(void)
{
  Suite *suite = suite_create("opensora-gpu");
  TCase *tcase = common_case(suite, "general");

  tcase_set_timeout(tcase, 120);
  tcase_add_test(tcase, test_parity);
  tcase_add_test(tcase, test_copies);
  tcase_add_test(tcase, test_allocations);
  tcase_add_test(tcase, test_download);
  tcase_add_test(tcase, test_memory);
  return suite;
}

int
main(int argc, char **argv)
{
  static const char *const needed[] = { "cudadownload", NULL };
  g_autoptr(OsrDevice) device = NULL;
  g_autoptr(GError) error = NULL;
  GstPlugin *nvcodec;

  gst_init(&argc, &argv);
  device = osr_device_get(DEVICE, &error);
  if (!device) {
    g_print("skipped: %s\n", error->message);
    return 77;
  }
  g_clear_pointer(&device, osr_device_unref);
  nvcodec = gst_plugin_load_file(GST_PLUGINS_DIR "/libgstnvcodec.so", NULL);
  gst_clear_object(&nvcodec);
  return common_main_with(argc, argv, make_suite, needed);
}
