// SPDX-License-Identifier: LGPL-2.1-or-later
/* The module's entry: the CUDA backend, with f32 alone if OSR_EMULATED_F32 is set. Then a model
 * computes in f32, and tests can compare with references as closely as on a CPU. */
#include "ops.h"

#include <stdlib.h>

extern "C" const OsrBackend *osr_cuda_backend(void); /* backend.c's, see meson.build */

extern "C" __attribute__((visibility("default"))) const OsrBackend *
osr_backend_module(void)
{
  static const OsrBackend backend = [] {
    OsrBackend b = *osr_cuda_backend();

    if (getenv("OSR_EMULATED_F32"))
      b.dtypes &= 1u << OSR_DTYPE_F32;
    return b;
  }();

  return &backend;
}
