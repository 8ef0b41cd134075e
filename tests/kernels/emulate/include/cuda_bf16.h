/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* __nv_bfloat16: 8 bits of exponent, 7 of mantissa. */
#ifndef OSR_EMULATED_CUDA_BF16_H
#define OSR_EMULATED_CUDA_BF16_H

#include "small-floats.h"

struct __nv_bfloat16 {
  uint16_t bits;
};

struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

static inline float
__bfloat162float(__nv_bfloat16 v)
{
  return osr_emulated::from_bits((uint32_t) v.bits << 16);
}

static inline __nv_bfloat16
__double2bfloat16(double v)
{
  return { (uint16_t) osr_emulated::encode_float(v, 8, 7) };
}

static inline __nv_bfloat16
__float2bfloat16_rn(float v)
{
  uint32_t bits = osr_emulated::to_bits(v);

  if (v != v)
    return { 0x7FFF };
  bits += 0x7FFF + (bits >> 16 & 1);
  return { (uint16_t) (bits >> 16) };
}

static inline __nv_bfloat16
__float2bfloat16(float v)
{
  return __float2bfloat16_rn(v);
}

static inline __nv_bfloat162
__floats2bfloat162_rn(float x, float y)
{
  return { __float2bfloat16_rn(x), __float2bfloat16_rn(y) };
}

static inline unsigned short
__bfloat16_as_ushort(__nv_bfloat16 v)
{
  return v.bits;
}

#endif /* OSR_EMULATED_CUDA_BF16_H */
