# SPDX-License-Identifier: LGPL-2.1-or-later
"""Triton versions of fastvae's memory passes: one program a row of pixels.

Same results as the formulas in fastvae.py (which are the truth: see check()).
"""
import torch
import triton
import triton.language as tl


@triton.jit
def _sums(x, s1, s2, W: tl.constexpr, C: tl.constexpr, BW: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    w = tl.arange(0, BW)[:, None]
    c = tl.arange(0, C)[None, :]
    v = tl.load(x + row * W * C + w * C + c, mask=w < W, other=0.0).to(tl.float32)
    o = row * C + tl.arange(0, C)
    tl.store(s1 + o, tl.sum(v, axis=0))
    tl.store(s2 + o, tl.sum(v * v, axis=0))


@triton.jit
def _gather(x, ca, cc, y, T, TO, H, HO, W: tl.constexpr, WO: tl.constexpr, C: tl.constexpr,
            BW: tl.constexpr, TAPS: tl.constexpr, ST: tl.constexpr, FT: tl.constexpr,
            FS: tl.constexpr, NORM: tl.constexpr):
    """y [B, TO, HO, WO, TAPS, C]; HO, WO include the border"""
    row = tl.program_id(0).to(tl.int64)
    hp = row % HO
    t = (row // HO) % TO
    b = row // (HO * TO)
    hs = tl.minimum(tl.maximum(hp - 1, 0), H * FS - 1) // FS
    wp = tl.arange(0, BW)[:, None]
    ws = tl.minimum(tl.maximum(wp - 1, 0), W * FS - 1) // FS
    c = tl.arange(0, C)[None, :]
    ok = wp < WO
    if NORM:
        a = tl.load(ca + b * C + c)
        s = tl.load(cc + b * C + c)
    for k in tl.static_range(TAPS):
        ts = tl.maximum(t * ST + k - (TAPS - 1), 0)
        if FT == 2:
            ts = (ts + 1) // 2
        v = tl.load(x + ((b * T + ts) * H + hs) * W * C + ws * C + c, mask=ok & (c < C), other=0.0)
        if NORM:
            u = v.to(tl.float32) * a + s
            v = u * tl.sigmoid(u)
        tl.store(y + ((row * WO + wp) * TAPS + k) * C + c, v.to(y.dtype.element_ty), mask=ok & (c < C))


@triton.jit
def _frame(g, base, w, c, W: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr, k: tl.constexpr):
    """One padded row of one tap's gradient, its borders folded in: [BW, C] f32"""
    p = g + base * (W + 2) * TAPS * C + k * C + c
    v = tl.load(p + (w + 1) * (TAPS * C), mask=w < W, other=0.0).to(tl.float32)
    v += tl.load(p + 0 * w, mask=w == 0, other=0.0).to(tl.float32)
    v += tl.load(p + (W + 1) * (TAPS * C) + 0 * w, mask=w == W - 1, other=0.0).to(tl.float32)
    return v


@triton.jit
def _rows(g, frame, h, H, w, c, W: tl.constexpr, C: tl.constexpr, TAPS: tl.constexpr,
          k: tl.constexpr):
    base = frame * (H + 2)
    v = _frame(g, base + h + 1, w, c, W, C, TAPS, k)
    if h == 0:
        v += _frame(g, base, w, c, W, C, TAPS, k)
    if h == H - 1:
        v += _frame(g, base + H + 1, w, c, W, C, TAPS, k)
    return v


@triton.jit
def _fold(g, x, ca, cc, dy, s1, s2, T, TO, H, W: tl.constexpr, C: tl.constexpr, BW: tl.constexpr,
          TAPS: tl.constexpr, ST: tl.constexpr, NORM: tl.constexpr):
    """Gradient of the gathered frames -> gradient of the frames [B, T, H, W, C]; with NORM
    it is taken back through SiLU, and its row sums (alone, times x) come out as well."""
    row = tl.program_id(0).to(tl.int64)
    h = row % H
    t = (row // H) % T
    b = row // (H * T)
    w = tl.arange(0, BW)[:, None]
    c = tl.arange(0, C)[None, :]
    acc = tl.zeros([BW, C], tl.float32)
    for k in tl.static_range(TAPS):
        n = t + (TAPS - 1) - k
        if (n % ST == 0) & (n // ST < TO):
            acc += _rows(g, b * TO + n // ST, h, H, w, c, W, C, TAPS, k)
        for p in tl.static_range(1, TAPS):          # the frames repeated before frame 0
            if TAPS - 1 - k - p >= 0:
                if (TAPS - 1 - k - p) % ST == 0:
                    if (t == 0) & ((TAPS - 1 - k - p) // ST < TO):
                        acc += _rows(g, b * TO + (TAPS - 1 - k - p) // ST, h, H, w, c, W, C, TAPS, k)
    o = row * W * C + w * C + c
    if NORM:
        v = tl.load(x + o, mask=w < W, other=0.0).to(tl.float32)
        u = v * tl.load(ca + b * C + c) + tl.load(cc + b * C + c)
        s = tl.sigmoid(u)
        acc = acc * s * (1 + u * (1 - s))
        r = row * C + tl.arange(0, C)
        tl.store(s1 + r, tl.sum(acc, axis=0))
        tl.store(s2 + r, tl.sum(acc * v, axis=0))
    tl.store(dy + o, acc.to(dy.dtype.element_ty), mask=w < W)


@triton.jit
def _norm_back(dy, x, ca, ce, cf, dx, TH, W: tl.constexpr, C: tl.constexpr, BW: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    b = row // TH
    w = tl.arange(0, BW)[:, None]
    c = tl.arange(0, C)[None, :]
    o = row * W * C + w * C + c
    g = tl.load(dy + o, mask=w < W, other=0.0).to(tl.float32)
    v = tl.load(x + o, mask=w < W, other=0.0).to(tl.float32)
    r = (tl.load(ca + b * C + c) * g + tl.load(ce + b * C + c) * v + tl.load(cf + b * C + c))
    tl.store(dx + o, r.to(dx.dtype.element_ty), mask=w < W)


def _warps(bw, c):
    return 4 if bw * c <= 8192 else 8


def usable(x):
    return (x.shape[4] & (x.shape[4] - 1)) == 0


def norm_sums(x):
    b, t, h, w, c = x.shape
    s = torch.empty(2, b, t * h, c, device=x.device, dtype=torch.float32)
    bw = triton.next_power_of_2(w)
    _sums[(b * t * h,)](x, s[0], s[1], w, c, bw, num_warps=_warps(bw, c))
    return s[0], s[1]


def gather(x, taps, st, up, a=None, shift=None):
    b, t, h, w, c = x.shape
    tu = t if up[0] == 1 else 2 * t - 1
    to = (tu - 1) // st + 1
    ho, wo = h * up[1] + 2, w * up[1] + 2
    y = torch.empty(b, to, ho, wo, taps * c, device=x.device, dtype=x.dtype)
    bw = triton.next_power_of_2(wo)
    norm = a is not None
    _gather[(b * to * ho,)](x, a if norm else x, shift if norm else x, y, t, to, h, ho, w, wo, c, bw,
                            taps, st, up[0], up[1], norm, num_warps=_warps(bw, c))
    return y


def fold(g, c, taps, st, t, x=None, a=None, shift=None):
    """-> dy, and with x the row sums of dy and dy * x: [B, T*H, C] f32"""
    b, to, hp, wp, _ = g.shape
    h, w = hp - 2, wp - 2
    norm = x is not None
    dy = torch.empty(b, t, h, w, c, device=g.device, dtype=g.dtype)
    s = torch.empty(2, b, t * h, c, device=g.device, dtype=torch.float32) if norm else dy
    bw = triton.next_power_of_2(w)
    _fold[(b * t * h,)](g, x if norm else g, a if norm else g, shift if norm else g, dy,
                        s[0], s[1] if norm else dy, t, to, h, w, c, bw, taps, st, norm,
                        num_warps=_warps(bw, c))
    return (dy, s[0], s[1]) if norm else dy


def norm_back(dy, x, a, e, f):
    b, t, h, w, c = x.shape
    dx = torch.empty_like(x)
    bw = triton.next_power_of_2(w)
    _norm_back[(b * t * h,)](dy, x, a, e, f, dx, t * h, w, c, bw, num_warps=_warps(bw, c))
    return dx
