# SPDX-License-Identifier: LGPL-2.1-or-later
"""Shapes as signed distance fields, and the palette.  numpy only.

The renderer samples the fields as textures; the classifier compares what it
sees with the same fields, so both always mean the same thing by "heart".
Coordinates: x to the right, y down, unit length = the nominal radius.
"""
import functools

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "ring",
          "cross", "crescent")
ROUND = ("circle", "ring")          # a rotation of these cannot be seen

PALETTE = {
    "red": (222, 28, 36), "green": (34, 160, 56), "blue": (28, 72, 222),
    "yellow": (246, 222, 40), "orange": (250, 128, 16), "purple": (150, 44, 188),
    "pink": (250, 140, 196), "cyan": (44, 206, 226), "white": (246, 246, 246),
    "black": (18, 18, 18), "brown": (118, 68, 28), "gray": (128, 128, 128),
}
COLOURS = tuple(PALETTE)
RGB = np.array([PALETTE[c] for c in COLOURS], np.float32)

TEX_SIZE = 256                      # texels along a side of a field
TEX_HALF = 1.6                      # the field covers [-TEX_HALF, TEX_HALF]


def _star(points=5, outer=1.22, inner=0.52):
    a = np.pi * np.arange(2 * points) / points
    r = np.where(np.arange(2 * points) % 2 == 0, outer, inner)
    return np.stack([r * np.sin(a), -r * np.cos(a)], 1)


def _heart(n=160):
    t = 2 * np.pi * np.arange(n) / n
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([x, -y - 2.5], 1) * (1.12 / 16)


def _cross(w=0.38, r=1.08):
    return np.array([(-w, -r), (w, -r), (w, -w), (r, -w), (r, w), (w, w), (w, r),
                     (-w, r), (-w, w), (-r, w), (-r, -w), (-w, -w)])


def _crescent(n=96, outer=1.15, inner=0.95, shift=0.55):
    # Where the two circles meet, seen from each centre.
    xi = (outer ** 2 - inner ** 2 + shift ** 2) / (2 * shift)
    ao = np.arccos(xi / outer)
    ai = np.arccos((xi - shift) / inner)
    t = np.linspace(ao, 2 * np.pi - ao, n)
    s = np.linspace(2 * np.pi - ai, ai, n)[1:-1]
    pts = np.concatenate([np.stack([outer * np.cos(t), outer * np.sin(t)], 1),
                          np.stack([shift + inner * np.cos(s), inner * np.sin(s)], 1)])
    return pts + np.array([0.2, 0.0])       # about centred


POLYGONS = {
    "square": np.array([(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
    "triangle": np.array([(0, -1.2), (1.14, 0.78), (-1.14, 0.78)]),
    "star": _star(),
    "heart": _heart(),
    "diamond": np.array([(0, -1.3), (0.92, 0), (0, 1.3), (-0.92, 0)]),
    "cross": _cross(),
    "crescent": _crescent(),
}


def polygon_distance(v, x, y):
    """Exact signed distance (negative inside) of points to a closed polygon."""
    best = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(v, np.roll(v, -1, axis=0)):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        h = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey), 0, 1)
        best = np.minimum(best, (wx - ex * h) ** 2 + (wy - ey * h) ** 2)
        crosses = ((ay > y) != (by > y)) & (x < ex * (y - ay) / (ey if ey else 1e-12) + ax)
        inside ^= crosses
    d = np.sqrt(best)
    return np.where(inside, -d, d)


def distance(shape, x, y):
    """Signed distance of points to the named shape, in nominal radii."""
    if shape == "circle":
        return np.hypot(x, y) - 1.0
    if shape == "ring":
        return np.abs(np.hypot(x, y) - 0.82) - 0.27
    return polygon_distance(POLYGONS[shape], x, y)


@functools.lru_cache(maxsize=1)
def textures():
    """All fields sampled at texel centres: [shape, TEX_SIZE, TEX_SIZE] f32."""
    c = ((np.arange(TEX_SIZE) + 0.5) / TEX_SIZE * 2 - 1) * TEX_HALF
    x, y = np.meshgrid(c, c)
    return np.stack([distance(s, x, y) for s in SHAPES]).astype(np.float32)
