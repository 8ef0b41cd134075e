/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fakes.h: what the tests here share: the module, and the fake driver and device below it.
 */
#pragma once

#include <gmodule.h>
#include <gst/cuda/gstcudabufferpool.h>
#include <gst/cuda/gstcudautils.h>

#include "common.h"
#include "fake-cuda.h"
#include "fake-driver.h"
#include "gstopensoracuda.h"

/* A symbol of a library that is open; it stays open. */
static inline gpointer
symbol_of(const char *library, const char *name)
{
  GModule *module = g_module_open(library, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
  gpointer symbol;

  fail_unless(module != NULL, "%s", g_module_error());
  fail_unless(g_module_symbol(module, name, &symbol), "%s", g_module_error());
  return symbol;
}

/* A file in one of the folders of OPENSORA_MODULE_PATH. */
static inline char *
module_path(const char *name)
{
  g_auto(GStrv) folders = g_strsplit(g_getenv("OPENSORA_MODULE_PATH"), ":", -1);

  for (guint i = 0; folders[i]; i++) {
    char *path = g_build_filename(folders[i], name, NULL);

    if (g_file_test(path, G_FILE_TEST_EXISTS))
      return path;
    g_free(path);
  }
  return NULL;
}

static inline const GstOpenSoraCudaTable *
module_table(void)
{
  g_autofree char *path = module_path("libgstopensoracuda.so");

  fail_unless(path != NULL);
  return ((GstOpenSoraCudaGetTable) symbol_of(path, "gst_opensora_cuda_table"))();
}

static inline FakeDriver *
the_driver(void)
{
  return symbol_of("libcuda.so.1", "fake_driver");
}

/* The engine's fake device. */
static inline FakeCuda *
the_device(void)
{
  g_autofree char *path = module_path("libopensora-cuda.so");

  return symbol_of(path, "fake_cuda");
}

/* GStreamer's elements for CUDA; made before anything is counted. */
static inline void
load_nvcodec(void)
{
  GstPlugin *plugin = gst_plugin_load_file(GST_PLUGINS_DIR "/libgstnvcodec.so", NULL);

  gst_clear_object(&plugin);
}

/* Nobody has anything left of the driver's. */
static inline void
assert_released(void)
{
  const FakeDriver *driver = the_driver();

  for (guint i = 0; i < 100 && driver->device_blocks + driver->contexts > 0; i++)
    g_usleep(10 * G_TIME_SPAN_MILLISECOND);
  assert_equals_int(driver->device_blocks, 0);
  assert_equals_int(driver->host_blocks, 0);
  assert_equals_int(driver->contexts, 0);
  assert_equals_int(driver->primary_refs[0], 0);
  assert_equals_int(driver->primary_refs[1], 0);
}
