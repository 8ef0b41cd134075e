/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where libgstcuda finds no driver: a reason instead of an assertion, and system memory.
 */
#include "fakes.h"

#define CLIP                                                                                       \
  "videotestsrc num-buffers=1 ! video/x-raw,width=48,height=32,framerate=30/1 ! "                  \
  "opensoravaeenc device=cuda:0 ! opensoravaedec device=cuda:0 ! "

GST_START_TEST(test_reason)
{
  const GstOpenSoraCudaTable *table = module_table();

  assert_equals_int(table->abi, GST_OPENSORA_CUDA_ABI);
  for (guint i = 0; i < 2; i++) {
    GError *error = NULL;

    fail_if(table->load(&error));
    g_assert_error(error, OSR_ERROR, OSR_ERROR_NOT_FOUND);
    fail_unless(strstr(error->message, "driver") != NULL, "%s", error->message);
    g_clear_error(&error);
  }
}
GST_END_TEST

GST_START_TEST(test_system_memory)
{
  g_autoptr(Run) plain = run_ok(1, CLIP "appsink name=out");
  g_autoptr(Run) filtered = run_ok(1, CLIP "video/x-raw,format=NV12 ! appsink name=out");

  fail_unless(
      gst_memory_is_type(gst_buffer_peek_memory(run_buffer(plain, 0), 0), GST_ALLOCATOR_SYSMEM));
}
GST_END_TEST

GST_START_TEST(test_cuda_memory)
{
  run_fails(GST_STREAM_ERROR, GST_STREAM_ERROR_FAILED, "",
            CLIP "video/x-raw(memory:CUDAMemory) ! appsink name=out");
}
GST_END_TEST

static Suite *
no_driver_suite(void)
{
  Suite *suite = suite_create("cuda-no-driver");
  TCase *tcase = common_case(suite, "general");

  tcase_add_test(tcase, test_reason);
  tcase_add_test(tcase, test_system_memory);
  tcase_add_test(tcase, test_cuda_memory);
  return suite;
}

int
main(int argc, char **argv)
{
  GModule *driver = g_module_open("libcuda.so.1", G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);

  if (driver) {
    g_print("skipped: there is a driver\n");
    return 77;
  }
  return common_main(argc, argv, no_driver_suite);
}
