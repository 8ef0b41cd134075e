/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <gmodule.h>

#include "error.h"
#include "fake-cuda.h"
#include "tensor.h"

G_BEGIN_DECLS

/* The fake CUDA module's controls, as they are. */
static inline FakeCuda *
fake_control_now(void)
{
  static FakeCuda *fake;

  if (!fake) {
    g_autofree char *path =
        g_build_filename(g_getenv("OPENSORA_MODULE_PATH"), "libopensora-cuda.so", NULL);
    GModule *module = g_module_open(path, G_MODULE_BIND_LAZY | G_MODULE_BIND_LOCAL);
    gpointer symbol = NULL;

    if (!module || !g_module_symbol(module, "fake_cuda", &symbol))
      g_error("%s", g_module_error());
    fake = symbol;
  }
  return fake;
}

/* The same, all counts and orders at zero. What is on its way counts on. */
static inline FakeCuda *
fake_control(void)
{
  FakeCuda *fake = fake_control_now();
  guint64 attentions, calls;

  attentions = fake->attentions_behind;
  calls = fake->calls_behind;
  *fake = (FakeCuda){ .attentions_behind = attentions,
                      .max_attentions_behind = attentions,
                      .calls_behind = calls,
                      .max_calls_behind = calls };
  return fake;
}

static inline void
assert_error_says(const GError *error, int code, const char *word)
{
  g_assert_error(error, OSR_ERROR, code);
  if (!strstr(error->message, word))
    g_error("'%s' does not say '%s'", error->message, word);
}

static inline void
must_synchronize(OsrDevice *device)
{
  g_autoptr(GError) error = NULL;

  osr_device_synchronize(device, &error);
  g_assert_no_error(error);
}

static inline OsrPoolStats
pool_stats(OsrDevice *device)
{
  OsrPoolStats stats;

  osr_pool_get_stats(osr_device_get_pool(device), &stats);
  return stats;
}

G_END_DECLS
