/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmath.h: exp and the activations without branches, tables or calls, so that compilers
 * turn a loop over them into vector code. f32, relative error below 5e-7 (checked by
 * tests/kernels/checkops). Included by loops.c alone.
 */
#ifndef OSR_CPU_VMATH_H
#define OSR_CPU_VMATH_H

#include "../ops.h"

#include <string.h>

/* exp(x) = 2^n exp(r), |r| <= ln 2 / 2. Below the normal numbers it gives the smallest of
 * them, above the finite ones infinity; NaN stays NaN. */
static inline float
vexp(float x)
{
  const float magic = 12582912.0f; /* 1.5 2^23: adding it rounds to an integer */
  float z, n, r, p, scale;
  uint32_t bits;

  x = x < -87.3f ? -87.3f : x;
  x = x > 88.8f ? 88.8f : x;
  z = x * 1.44269504f + magic;
  n = z - magic;
  r = x - n * 0.693359375f;
  r = r + n * 2.12194440e-4f;

  /* 1 + r + r^2 q(r), q fitted for the least relative error: 3e-9. */
  p = 1.38144673e-3f;
  p = p * r + 8.36878084e-3f;
  p = p * r + 4.16683927e-2f;
  p = p * r + 1.66665196e-1f;
  p = p * r + 4.99999940e-1f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;

  /* n is in the low bits of z. */
  memcpy(&bits, &z, sizeof bits);
  bits = (bits << 23) + 0x3F800000u;
  memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

static inline float
vsilu(float x)
{
  return x / (1.0f + vexp(-x));
}

/* 0.5 (1 + tanh u) = 1 / (1 + exp(-2u)), exact where tanh is near -1. */
static inline float
vgelu_tanh(float x)
{
  float u = 1.5957691216f * (x + 0.044715f * x * x * x);

  return x / (1.0f + vexp(-u));
}

static inline float
vquick_gelu(float x)
{
  return x / (1.0f + vexp(-1.702f * x));
}

/* 0.5 (1 + erf(x / sqrt 2)) = erfc(-x / sqrt 2) / 2. For z >= 0, erfc z = t exp(-z^2 + P(t)),
 * t = 1 / (1 + z / 2), P the Chebyshev fit of Press et al., Numerical Recipes, 6.2: relative
 * error 1.2e-7 everywhere. */
static inline float
vgelu_erf(float x)
{
  float z = (x < 0.0f ? -x : x) * 0.70710678f;
  float t = 1.0f / (1.0f + 0.5f * z);
  float p, tail;

  p = 0.17087277f;
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  /* x^2 / 2 is halved exactly, z^2 would carry the rounding of sqrt(1/2). */
  tail = 0.5f * t * vexp(p) * vexp(-0.5f * x * x);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

/* Runs `loop` with ACT(x) being each activation in turn: one vector loop for each. */
#define VMATH_FOR_ACT(act, loop)                                                                   \
  switch (act) {                                                                                   \
  case OSR_ACT_SILU:                                                                               \
    loop(vsilu);                                                                                   \
    break;                                                                                         \
  case OSR_ACT_GELU_TANH:                                                                          \
    loop(vgelu_tanh);                                                                              \
    break;                                                                                         \
  case OSR_ACT_GELU_ERF:                                                                           \
    loop(vgelu_erf);                                                                               \
    break;                                                                                         \
  case OSR_ACT_QUICK_GELU:                                                                         \
    loop(vquick_gelu);                                                                             \
    break;                                                                                         \
  default:                                                                                         \
    loop();                                                                                        \
    break;                                                                                         \
  }

#endif /* OSR_CPU_VMATH_H */
