/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Random numbers, and elements of every type by value. The 16-bit conversions here work on
 * the bits and share nothing with those of kernels/ref. */
#include "checkops.h"

#include <string.h>

/* SplitMix64: G. Steele, D. Lea, C. Flood, OOPSLA 2014. */
uint64_t
rng_next(Rng *rng)
{
  uint64_t z = rng->state += 0x9E3779B97F4A7C15u;

  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

int64_t
rng_range(Rng *rng, int64_t low, int64_t high)
{
  return low + (int64_t) (rng_next(rng) % (uint64_t) (high - low + 1));
}

bool
rng_one_in(Rng *rng, int n)
{
  return rng_range(rng, 1, n) == 1;
}

double
rng_normal(Rng *rng)
{
  double u = ((double) (rng_next(rng) >> 11) + 0.5) / 9007199254740992.0;
  double v = (double) (rng_next(rng) >> 11) / 9007199254740992.0;

  return sqrt(-2.0 * log(u)) * cos(6.28318530717958647692 * v);
}

int64_t
rng_size(Rng *rng, int64_t max)
{
  static const int primes[] = { 2,  3,  5,  7,  11,  13,  17,  19,  23,  29,  31,
                                37, 61, 67, 97, 127, 131, 251, 257, 509, 521, 1031 };
  int64_t size;

  if (rng_one_in(rng, 80))
    return 0;
  switch (rng_range(rng, 0, 5)) {
  case 0:
    size = 1;
    break;
  case 1:
    size = primes[rng_range(rng, 0, (int64_t) (sizeof primes / sizeof *primes) - 1)];
    break;
  case 2:
    size = (int64_t) 1 << rng_range(rng, 0, 10);
    break;
  case 3:
    size = ((int64_t) 1 << rng_range(rng, 1, 10)) + (rng_one_in(rng, 2) ? 1 : -1);
    break;
  case 4:
    size = rng_range(rng, 1, 18);
    break;
  default:
    size = rng_range(rng, 1, max);
    break;
  }
  return size > max ? rng_range(rng, 1, max) : size;
}

static uint32_t
float_bits(float f)
{
  uint32_t bits;

  memcpy(&bits, &f, sizeof bits);
  return bits;
}

static float
bits_float(uint32_t bits)
{
  float f;

  memcpy(&f, &bits, sizeof f);
  return f;
}

static uint16_t
float_to_bf16(float f)
{
  uint32_t bits = float_bits(f);

  if (isnan(f))
    return (uint16_t) (bits >> 16 | 0x40);
  return (uint16_t) ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static uint16_t
float_to_f16(float f)
{
  uint32_t bits = float_bits(f), sign = bits >> 16 & 0x8000;

  bits &= 0x7FFFFFFF;
  if (bits > 0x7F800000)
    return (uint16_t) (sign | 0x7E00);
  if (bits >= 0x477FF000) /* 65520 and above */
    return (uint16_t) (sign | 0x7C00);
  if (bits < 0x38800000) /* below 2^-14: a multiple of 2^-24 */
    return (uint16_t) (sign | (uint32_t) rintf(bits_float(bits) * 16777216.0f));
  bits += 0xFFF + (bits >> 13 & 1);
  return (uint16_t) (sign | (bits - 0x38000000) >> 13);
}

static float
f16_to_float(uint16_t half)
{
  uint32_t sign = (uint32_t) (half & 0x8000) << 16, rest = half & 0x7FFF;

  if (rest >= 0x7C00)
    return bits_float(sign | 0x7F800000 | (rest & 0x3FF) << 13);
  if (rest < 0x400)
    return sign ? -(float) rest / 16777216.0f : (float) rest / 16777216.0f;
  return bits_float(sign | (rest + 0x1C000) << 13);
}

/* FP8 E4M3FN: bias 7, no infinity, 0x7F is NaN (OCP 8-bit floating point, 2023). */
static double
f8_value(uint8_t bits)
{
  int exponent = bits >> 3 & 15, fraction = bits & 7;
  double v = exponent ? ldexp(8 + fraction, exponent - 10) : ldexp(fraction, -9);

  if ((bits & 0x7F) == 0x7F)
    return NAN;
  return bits & 0x80 ? -v : v;
}

static uint8_t
f8_nearest(double value)
{
  uint8_t best = 0;

  if (isnan(value))
    return 0x7F;
  for (uint8_t i = 1; i < 0x7F; i++) {
    double d = fabs(f8_value(i) - fabs(value)), d_best = fabs(f8_value(best) - fabs(value));

    if (d < d_best || (d == d_best && i % 2 == 0))
      best = i;
  }
  return signbit(value) ? best | 0x80 : best;
}

double
element_load(OsrDType dtype, const void *data, size_t i)
{
  switch (dtype) {
  case OSR_DTYPE_F32:
    return ((const float *) data)[i];
  case OSR_DTYPE_BF16:
    return bits_float((uint32_t) ((const uint16_t *) data)[i] << 16);
  case OSR_DTYPE_F16:
    return f16_to_float(((const uint16_t *) data)[i]);
  case OSR_DTYPE_F64:
    return ((const double *) data)[i];
  case OSR_DTYPE_I32:
    return ((const int32_t *) data)[i];
  case OSR_DTYPE_I64:
    return (double) ((const int64_t *) data)[i];
  case OSR_DTYPE_F8_E4M3:
    return f8_value(((const uint8_t *) data)[i]);
  default:
    return ((const uint8_t *) data)[i];
  }
}

void
element_store(OsrDType dtype, void *data, size_t i, double value)
{
  switch (dtype) {
  case OSR_DTYPE_F32:
    ((float *) data)[i] = (float) value;
    break;
  case OSR_DTYPE_BF16:
    ((uint16_t *) data)[i] = float_to_bf16((float) value);
    break;
  case OSR_DTYPE_F16:
    ((uint16_t *) data)[i] = float_to_f16((float) value);
    break;
  case OSR_DTYPE_F64:
    ((double *) data)[i] = value;
    break;
  case OSR_DTYPE_I32:
    ((int32_t *) data)[i] = (int32_t) value;
    break;
  case OSR_DTYPE_I64:
    ((int64_t *) data)[i] = (int64_t) value;
    break;
  case OSR_DTYPE_F8_E4M3:
    ((uint8_t *) data)[i] = f8_nearest(value);
    break;
  default:
    ((uint8_t *) data)[i] = (uint8_t) value;
    break;
  }
}
