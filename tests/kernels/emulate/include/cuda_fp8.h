/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* __nv_fp8_e4m3: 4 bits of exponent, 3 of mantissa, no infinity; only ever read. */
#ifndef OSR_EMULATED_CUDA_FP8_H
#define OSR_EMULATED_CUDA_FP8_H

#include "small-floats.h"

struct __nv_fp8_e4m3 {
  uint8_t bits;

  explicit operator float(void) const
  {
    const uint32_t magnitude = bits & 0x7F;

    if (magnitude == 0x7F)
      return __builtin_nanf("");
    /* Exponent 15 is an ordinary one here, so it is read with a wider exponent's rules. */
    const float v = magnitude < 8 ? (float) magnitude / 512.0f
                                  : (float) (8 + magnitude % 8) / 8.0f *
                                        __builtin_ldexpf(1.0f, (int) (magnitude / 8) - 7);

    return bits & 0x80 ? -v : v;
  }
};

#endif /* OSR_EMULATED_CUDA_FP8_H */
