# SPDX-License-Identifier: LGPL-2.1-or-later
"""The engine's noise, bit for bit (kernels/philox.h has the definition).

Philox 4x32-10 over (block number, sequence) with the seed as key, then the
inverse of the normal distribution by algorithm AS 241 in double precision with
fused multiply-adds.  numpy has none, so they are made of exact sums and
products and one rounding to odd (S. Boldo, G. Melquiond, "Emulation of a FMA
and correctly rounded sums: proved algorithms using rounding to odd", 2008).
"""

import numpy as np
import torch

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
MASK = np.uint64(0xFFFFFFFF)
WORD = np.uint64(32)

# Ratios of polynomials, highest power first.
CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457)
    + (13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867)
    + (5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)
NEAR = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258)
    + (3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459)
    + (0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)
FAR = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093)
    + (0.29656057182850489123, 1.7848265399172913358, 5.4637848911641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4)
    + (0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)


def philox(counter, key):
    """counter: four uint32 arrays, key: two integers -> four uint32 arrays."""
    c = [np.asarray(x, dtype=np.uint64) for x in counter]
    k = [int(x) for x in key]
    for _ in range(ROUNDS):
        a, b = c[0] * np.uint64(MULTIPLIERS[0]), c[2] * np.uint64(MULTIPLIERS[1])
        c = [
            (b >> WORD) ^ c[1] ^ np.uint64(k[0]),
            b & MASK,
            (a >> WORD) ^ c[3] ^ np.uint64(k[1]),
            a & MASK,
        ]
        k = [(x + step) & 0xFFFFFFFF for x, step in zip(k, KEY_STEPS)]
    return [x.astype(np.uint32) for x in c]


def _sum(a, b):
    """a + b exactly, as (rounded, rest)."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _split(a):
    t = a * 134217729.0
    high = t - (t - a)
    return high, a - high


def _product(a, b):
    """a * b exactly, as (rounded, rest)."""
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _sum_to_odd(a, b):
    """a + b, inexact sums rounded to the neighbour with an odd last bit."""
    s, rest = _sum(a, b)
    bits = s.view(np.int64)
    even = (rest != 0) & (bits & 1 == 0)
    away = (rest > 0) == (s > 0)
    return np.where(even, np.where(away, bits + 1, bits - 1), bits).view(np.float64)


def fma(a, b, c):
    a, b, c = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (a, b, c)))
    high, low = _product(a, b)
    t, t_rest = _sum(c, low)
    v, v_rest = _sum(high, t)
    return v + _sum_to_odd(t_rest, v_rest)


def _horner(coefficients, x):
    y = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        y = fma(y, x, c)
    return y


def log(x):
    bits = x.view(np.int64)
    e = (bits >> 52) - 1023
    m = ((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000).view(np.float64)
    high = m > 1.4142135623730951
    m, e = np.where(high, m * 0.5, m), (e + high).astype(np.float64)
    s = (m - 1.0) / (m + 1.0)
    series = [1.0 / n for n in range(21, 1, -2)] + [1.0]
    return fma(e, 0.69314718055994530942, 2.0 * s * _horner(series, s * s))


def normal(bits):
    """uint32 -> float32 of a standard normal."""
    p = (np.atleast_1d(bits).astype(np.float64) + 0.5) * (1.0 / 4294967296.0)
    q = p - 0.5
    out = np.empty_like(p)
    centre = np.abs(q) <= 0.425
    x = q[centre]
    r = fma(-x, x, 0.180625)
    out[centre] = x * _horner(CENTRE[0], r) / _horner(CENTRE[1], r)
    x = q[~centre]
    r = np.sqrt(-log(np.where(x < 0, p[~centre], 1.0 - p[~centre])))
    y = np.empty_like(r)
    for part, (num, den), shift in ((r <= 5.0, NEAR, 1.6), (r > 5.0, FAR, 5.0)):
        t = r[part] - shift
        y[part] = _horner(num, t) / _horner(den, t)
    out[~centre] = np.where(x < 0, -y, y)
    return out.astype(np.float32)


def draws(seed, sequence, count, first=0):
    """Draws ``first`` to ``first + count`` of a stream, float32."""
    index = np.arange(first, first + count, dtype=np.uint64)
    blocks = np.unique(index >> np.uint64(2))
    counter = (blocks & MASK, blocks >> WORD, np.full_like(blocks, sequence), np.zeros_like(blocks))
    words = np.stack(philox(counter, (seed & 0xFFFFFFFF, seed >> 32)), axis=1).reshape(-1)
    start = int(first) & 3
    return normal(words[start : start + count])


def noise(seed, sequence, shape):
    """float32 noise of one clip [C, T, H, W] (any shape, in row-major order)."""
    return torch.from_numpy(draws(seed, sequence, int(np.prod(shape))).reshape(shape))


def torch_draws(seed, call, n, index, blocks=132 * 8):
    """Elements ``index`` of the ``call``-th torch.randn(n) of a CUDA generator, float32, on a GPU
    that runs ``blocks`` blocks of 256 threads at once.  check_noise.py compares with PyTorch."""
    index = np.asarray(index, dtype=np.uint64)
    threads = np.uint64(256 * min(blocks, -(-n // 256)))
    each = (n - 1) // (4 * int(threads)) + 1
    draw, subsequence = index // threads, index % threads
    block = np.uint64(call * each) + draw // np.uint64(4)
    counter = (block & MASK, block >> WORD, subsequence & MASK, subsequence >> WORD)
    words = np.stack(philox(counter, (seed & 0xFFFFFFFF, seed >> 32)))
    component = (draw % np.uint64(4)).astype(np.int64)
    pair, at = component & 2, np.arange(len(index))
    unit = np.float32(2.3283064e-10)
    turn = unit * np.float32(6.2831855)
    u = words[pair, at].astype(np.float32) * unit + unit / np.float32(2)
    v = words[pair + 1, at].astype(np.float32) * turn + turn / np.float32(2)
    side = np.where(component & 1, np.cos(v), np.sin(v))
    return (np.sqrt(np.float32(-2) * np.log(u)) * side).astype(np.float32)
