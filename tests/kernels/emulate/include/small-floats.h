/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Floats of 16 bits and less, by their definition: slow and plain. */
#ifndef OSR_EMULATED_SMALL_FLOATS_H
#define OSR_EMULATED_SMALL_FLOATS_H

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace osr_emulated
{

static inline float
from_bits(uint32_t bits)
{
  float v;

  memcpy(&v, &bits, sizeof v);
  return v;
}

static inline uint32_t
to_bits(float v)
{
  uint32_t bits;

  memcpy(&bits, &v, sizeof bits);
  return bits;
}

/* Sign, `exponent` bits, `mantissa` bits; infinities and NaN as IEEE has them. */
static inline float
decode_float(uint32_t bits, int exponent, int mantissa)
{
  const int bias = (1 << (exponent - 1)) - 1;
  const int e = (int) (bits >> mantissa) & ((1 << exponent) - 1);
  const uint32_t m = bits & ((1u << mantissa) - 1);
  float v;

  if (e == (1 << exponent) - 1)
    v = m ? NAN : INFINITY;
  else if (e == 0)
    v = ldexpf((float) m, 1 - bias - mantissa);
  else
    v = ldexpf((float) (m | 1u << mantissa), e - bias - mantissa);
  return bits >> (exponent + mantissa) & 1 ? -v : v;
}

/* Rounds once, to nearest, ties to even. */
static inline uint32_t
encode_float(double v, int exponent, int mantissa)
{
  const int bias = (1 << (exponent - 1)) - 1;
  const uint32_t infinity = ((1u << exponent) - 1) << mantissa;
  const uint32_t sign = signbit(v) ? 1u << (exponent + mantissa) : 0;
  int e;
  double steps;

  if (v != v)
    return infinity | ((1u << mantissa) - 1);
  v = fabs(v);
  if (v == INFINITY)
    return sign | infinity;
  if (v == 0)
    return sign;
  e = ilogb(v);
  if (e < 1 - bias)
    e = 1 - bias;
  /* In units of the last place; rint() rounds as is wanted. */
  steps = rint(ldexp(v, mantissa - e));
  /* A carry into the next exponent comes out right by itself. */
  const uint64_t bits = (uint64_t) (e + bias - 1) * (1u << mantissa) + (uint64_t) steps;

  return sign | (bits > infinity ? infinity : (uint32_t) bits);
}

} // namespace osr_emulated

#endif /* OSR_EMULATED_SMALL_FLOATS_H */
