/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* __half: 5 bits of exponent, 10 of mantissa. */
#ifndef OSR_EMULATED_CUDA_FP16_H
#define OSR_EMULATED_CUDA_FP16_H

#include "small-floats.h"

struct __half {
  uint16_t bits;
};

struct __half2 {
  __half x, y;
};

static inline float
__half2float(__half v)
{
  return osr_emulated::decode_float(v.bits, 5, 10);
}

static inline __half
__double2half(double v)
{
  return { (uint16_t) osr_emulated::encode_float(v, 5, 10) };
}

static inline __half
__float2half_rn(float v)
{
  return __double2half(v);
}

static inline __half2
__floats2half2_rn(float x, float y)
{
  return { __float2half_rn(x), __float2half_rn(y) };
}

static inline unsigned short
__half_as_ushort(__half v)
{
  return v.bits;
}

static inline __half
__ushort_as_half(unsigned short bits)
{
  return { bits };
}

#endif /* OSR_EMULATED_CUDA_FP16_H */
