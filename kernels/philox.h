/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * philox.h: the noise of the sampler, the same bits on every backend; and PyTorch's.
 *
 * Philox 4x32-10: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
 * SC 2011. Normals by the inverse cumulative distribution, algorithm AS 241 (PPND16):
 * M. J. Wichura, Applied Statistics 37 (1988), 477-484.
 *
 * For the sampler's own only +, *, /, sqrt and fma on doubles are used, all of them correctly
 * rounded by IEEE 754 on CPUs and GPUs alike, and every product that feeds a sum is an explicit
 * fma, so that no compiler contracts it in its own way. Included by C and CUDA C.
 */
#ifndef OSR_PHILOX_H
#define OSR_PHILOX_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define OSR_PHILOX_FN static __host__ __device__ inline
#else
#define OSR_PHILOX_FN static inline
#endif

/* out = Philox4x32-10(counter, key). */
OSR_PHILOX_FN void
osr_philox4x32_10(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  uint32_t k0 = key[0], k1 = key[1];

  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t) 0xD2511F53u * c0;
    uint64_t p1 = (uint64_t) 0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t) (p1 >> 32) ^ c1 ^ k0;
    uint32_t n2 = (uint32_t) (p0 >> 32) ^ c3 ^ k1;

    c0 = n0;
    c1 = (uint32_t) p1;
    c2 = n2;
    c3 = (uint32_t) p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

/* ln(x) for a normal x > 0: x = m 2^e with m in [sqrt(1/2), sqrt 2), ln m by the series of
 * 2 atanh((m - 1) / (m + 1)). Error below 1e-15 relative. */
OSR_PHILOX_FN double
osr_philox_log(double x)
{
  uint64_t bits;
  int e;
  double m, s, z, r;

  memcpy(&bits, &x, sizeof bits);
  e = (int) (bits >> 52) - 1023;
  bits = (bits & 0x000FFFFFFFFFFFFFull) | 0x3FF0000000000000ull;
  memcpy(&m, &bits, sizeof m);
  if (m > 1.4142135623730951) {
    m = m * 0.5;
    e++;
  }
  s = (m - 1.0) / (m + 1.0);
  z = s * s;
  r = 1.0 / 21.0;
  r = fma(r, z, 1.0 / 19.0);
  r = fma(r, z, 1.0 / 17.0);
  r = fma(r, z, 1.0 / 15.0);
  r = fma(r, z, 1.0 / 13.0);
  r = fma(r, z, 1.0 / 11.0);
  r = fma(r, z, 1.0 / 9.0);
  r = fma(r, z, 1.0 / 7.0);
  r = fma(r, z, 1.0 / 5.0);
  r = fma(r, z, 1.0 / 3.0);
  r = fma(r, z, 1.0);
  return fma((double) e, 0.69314718055994530942, 2.0 * s * r);
}

/* Standard normal from 32 random bits: Phi^-1((bits + 1/2) / 2^32). */
OSR_PHILOX_FN float
osr_philox_normal(uint32_t bits)
{
  double p = ((double) bits + 0.5) * (1.0 / 4294967296.0);
  double q = p - 0.5;
  double r, num, den;

  if (fabs(q) <= 0.425) {
    r = fma(-q, q, 0.180625);
    num = 2509.0809287301226727;
    num = fma(num, r, 33430.575583588128105);
    num = fma(num, r, 67265.770927008700853);
    num = fma(num, r, 45921.953931549871457);
    num = fma(num, r, 13731.693765509461125);
    num = fma(num, r, 1971.5909503065514427);
    num = fma(num, r, 133.14166789178437745);
    num = fma(num, r, 3.387132872796366608);
    den = 5226.495278852545925;
    den = fma(den, r, 28729.085735721942674);
    den = fma(den, r, 39307.89580009271061);
    den = fma(den, r, 21213.794301586595867);
    den = fma(den, r, 5394.1960214247511077);
    den = fma(den, r, 687.1870074920579083);
    den = fma(den, r, 42.313330701600911252);
    den = fma(den, r, 1.0);
    return (float) (q * num / den);
  }
  r = sqrt(-osr_philox_log(q < 0.0 ? p : 1.0 - p));
  if (r <= 5.0) {
    r = r - 1.6;
    num = 7.7454501427834140764e-4;
    num = fma(num, r, 0.0227238449892691845833);
    num = fma(num, r, 0.24178072517745061177);
    num = fma(num, r, 1.27045825245236838258);
    num = fma(num, r, 3.64784832476320460504);
    num = fma(num, r, 5.7694972214606914055);
    num = fma(num, r, 4.6303378461565452959);
    num = fma(num, r, 1.42343711074968357734);
    den = 1.05075007164441684324e-9;
    den = fma(den, r, 5.475938084995344946e-4);
    den = fma(den, r, 0.0151986665636164571966);
    den = fma(den, r, 0.14810397642748007459);
    den = fma(den, r, 0.68976733498510000455);
    den = fma(den, r, 1.6763848301838038494);
    den = fma(den, r, 2.05319162663775882187);
    den = fma(den, r, 1.0);
  } else {
    r = r - 5.0;
    num = 2.01033439929228813265e-7;
    num = fma(num, r, 2.71155556874348757815e-5);
    num = fma(num, r, 0.0012426609473880784386);
    num = fma(num, r, 0.026532189526576123093);
    num = fma(num, r, 0.29656057182850489123);
    num = fma(num, r, 1.7848265399172913358);
    num = fma(num, r, 5.4637849111641143699);
    num = fma(num, r, 6.6579046435011037772);
    den = 2.04426310338993978564e-15;
    den = fma(den, r, 1.4215117583164458887e-7);
    den = fma(den, r, 1.8463183175100546818e-5);
    den = fma(den, r, 7.868691311456132591e-4);
    den = fma(den, r, 0.0148753612908506148525);
    den = fma(den, r, 0.13692988092273580531);
    den = fma(den, r, 0.59983220655588793769);
    den = fma(den, r, 1.0);
  }
  r = num / den;
  return (float) (q < 0.0 ? -r : r);
}

/* Draw `index` of stream (seed, sequence). Four neighbours share one block. */
OSR_PHILOX_FN float
osr_philox_randn(uint64_t seed, uint32_t sequence, uint64_t index)
{
  uint64_t block = index >> 2;
  uint32_t counter[4] = { (uint32_t) block, (uint32_t) (block >> 32), sequence, 0 };
  uint32_t key[2] = { (uint32_t) seed, (uint32_t) (seed >> 32) };
  uint32_t out[4];

  osr_philox4x32_10(counter, key, out);
  return osr_philox_normal(out[index & 3]);
}

/* --- torch.randn() on a CUDA device --- */

/* Threads that PyTorch draws @n normals with on a GPU that runs @blocks of its blocks of 256
 * threads at once: multiprocessors times the threads of one / 256. */
OSR_PHILOX_FN uint64_t
osr_torch_threads(uint64_t n, uint64_t blocks)
{
  const uint64_t needed = (n + 255) / 256;

  return 256 * (needed < blocks ? needed : blocks);
}

/* Element @index of the @call-th (from 0) torch.randn() of @n elements with a generator of that
 * seed; @threads as above. Thread i has the subsequence i of cuRAND's Philox, and draws four
 * normals at a time by Box and Muller's method, for the elements i, i + threads, i + 2 threads...
 * (aten/src/ATen/native/cuda/DistributionTemplates.h of PyTorch; curand_normal.h of CUDA.)
 * On CUDA the same bits as PyTorch; elsewhere sine and cosine are better, by some 1e-6. */
OSR_PHILOX_FN float
osr_torch_randn(uint64_t seed, uint64_t call, uint64_t n, uint64_t threads, uint64_t index)
{
  const float unit = 2.3283064e-10f, turn = 2.3283064e-10f * 6.2831855f;
  const uint64_t subsequence = index % threads, draw = index / threads;
  const uint64_t block = call * ((n - 1) / (4 * threads) + 1) + draw / 4;
  const uint32_t counter[4] = { (uint32_t) block, (uint32_t) (block >> 32), (uint32_t) subsequence,
                                (uint32_t) (subsequence >> 32) };
  const uint32_t key[2] = { (uint32_t) seed, (uint32_t) (seed >> 32) };
  const int pair = draw & 2;
  uint32_t out[4];
  float u, v, r, s, c;

  osr_philox4x32_10(counter, key, out);
  u = (float) out[pair] * unit + unit / 2;
  v = (float) out[pair + 1] * turn + turn / 2;
  r = sqrtf(-2.0f * logf(u));
#ifdef __CUDA_ARCH__
  __sincosf(v, &s, &c);
#else
  s = sinf(v);
  c = cosf(v);
#endif
  return (draw & 1 ? c : s) * r;
}

/* What the draws of one op have in common. */
typedef struct OsrDraws {
  uint64_t seed;
  uint32_t sequence;
  uint64_t n, threads; /* of torch.randn(); threads 0: not its */
} OsrDraws;

OSR_PHILOX_FN float
osr_draw(const OsrDraws *d, uint64_t index)
{
  return d->threads ? osr_torch_randn(d->seed, d->sequence, d->n, d->threads, index)
                    : osr_philox_randn(d->seed, d->sequence, index);
}

#undef OSR_PHILOX_FN
#endif /* OSR_PHILOX_H */
