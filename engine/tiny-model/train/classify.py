# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads off a clip's frames what it shows.  Plain image analysis, numpy only, nothing learnt.

  classify.py [--seed 1] [--n 500]      checks itself on drawn clips (needs torch for those)

Background: the median of each row or each column, whichever explains more pixels; even, a
line or two levels.  Object: what differs from it.  Motion: the object's centre, area and
outline over time.  Shape: the outline against the shapes' own distance fields.
"""
import argparse
import functools

import numpy as np

from scene import BACKGROUNDS, MOTIONS, VECTORS
from shapes import COLOURS, RGB, ROUND, SHAPES, TEX_HALF, TEX_SIZE, textures

DIRECTIONS = MOTIONS[:8]
DISTINCT = 48.0                     # RGB distance at which a pixel belongs to the object
EVEN = 50.0                         # range of a profile that still counts as one colour


def nearest(rgb):
    return COLOURS[int(np.argmin(((RGB - rgb) ** 2).sum(1)))]


def _profile(frames):
    """-> kind, first colour, second colour, [H, W, 3] model, axis of change"""
    some = frames[::max(1, len(frames) // 8)]
    rows, columns = np.median(some, (0, 2)), np.median(some, (0, 1))
    off = [np.minimum(np.abs(some - m).sum(-1), 150).mean() for m in (rows[:, None], columns[None])]
    vertical = off[0] <= off[1]
    p = rows if vertical else columns
    n = len(p)
    middle = p.mean(0)
    axis = np.linalg.svd(p - middle, full_matrices=False)[2][0]
    u = (p - middle) @ axis
    model = np.broadcast_to(p[:, None] if vertical else p[None], frames.shape[1:])
    lo, hi = np.percentile(u, (2, 98))
    if hi - lo < EVEN:
        m = np.median(p, 0)
        return "plain", m, m, model, 0
    x = (np.arange(n) + 0.5) / n
    # A line through the middle of the profile, where an object's shadow weighs little.
    slope, start = np.polyfit(x, u, 1)
    rest = u - (start + slope * x)
    way = "v" if vertical else "h"
    if 1 - rest.var() / u.var() > 0.8:
        line = [np.polyfit(x, p[:, c], 1) for c in range(3)]
        ends = np.array([[np.polyval(k, e) for k in line] for e in (0.0, 1.0)])
        return "gradient-" + way, ends[0], ends[1], model, 0 if vertical else 1
    high = u > (lo + hi) / 2
    return ("stripes-" + ("h" if vertical else "v"), np.median(p[high], 0), np.median(p[~high], 0),
            model, 0 if vertical else 1)


def _neighbours(mask):
    """How many of the 3x3 around a pixel are set"""
    m = np.pad(mask.astype(np.int8), ((0, 0), (1, 1), (1, 1)))
    m = m[:, :-2] + m[:, 1:-1] + m[:, 2:]
    return m[:, :, :-2] + m[:, :, 1:-1] + m[:, :, 2:]


def _object(frames, model, kind, axis):
    """-> distance from the background [T, H, W], mask"""
    d = np.linalg.norm(frames - model, axis=-1)
    if kind.startswith("stripes"):              # soft or shifted edges of stripes are no object
        for step in (-2, -1, 1, 2):
            d = np.minimum(d, np.linalg.norm(frames - np.roll(model, step, axis), axis=-1))
    mask = d > DISTINCT
    mask &= _neighbours(mask) >= 5
    # Stray specks far away do not belong to it.
    t, h, w = mask.shape
    y, x = np.mgrid[:h, :w]
    for i in range(t):
        n = mask[i].sum()
        if n:
            cy, cx = np.median(y[mask[i]]), np.median(x[mask[i]])
            mask[i] &= (y - cy) ** 2 + (x - cx) ** 2 < 2.6 ** 2 * max(n, 60) / np.pi
    return d, mask


def _track(mask):
    t, h, w = mask.shape
    y, x = np.mgrid[:h, :w] + 0.5
    area = mask.sum((1, 2)).astype(float)
    n = np.maximum(area, 1)
    c = np.stack([(mask * x).sum((1, 2)) / n, (mask * y).sum((1, 2)) / n], 1)
    return c, area


def _motion(c, area, mask, scale):
    ok = area > 20 * scale ** 2
    if ok.sum() < 3:
        return "none", np.zeros(2)
    k = np.flatnonzero(ok)
    c, size = c[ok], np.sqrt(area[ok])
    m = max(1, min(3, len(c) // 4))
    d = c[-m:].mean(0) - c[:m].mean(0)
    ratio = size[-m:].mean() / size[:m].mean()
    span = c.max(0) - c.min(0)
    if np.linalg.norm(span) < 11 * scale or (np.linalg.norm(d) < 14 * scale and (
            ratio > 1.45 or ratio < 1 / 1.45)):
        if ratio > 1.22:
            return "grow", d
        if ratio < 1 / 1.22:
            return "shrink", d
        return ("spin" if _turns(mask[k], c) else "still"), d
    back = span - np.abs(d)
    if back.max() > 5 * scale and back.max() > 0.12 * np.linalg.norm(span):
        return "bounce", d
    return DIRECTIONS[int(np.argmax(VECTORS @ d))], d


def _turns(mask, c):
    """Whether the outline leaves its first place by more than its blur explains"""
    a = mask[:2].mean(0)
    area, edge = a.sum(), (_neighbours(mask[:1])[0] < 9)[mask[0]].sum()
    away = np.array([np.abs(m - a).sum() for m in mask])
    return np.sort(away)[-max(3, len(away) // 5):].mean() > max(0.35 * edge, 0.11 * area)


@functools.lru_cache(maxsize=1)
def _templates():
    """Area and centre of each shape, in nominal radii"""
    t = textures()
    x = ((np.arange(TEX_SIZE) + 0.5) / TEX_SIZE * 2 - 1) * TEX_HALF
    step = 2 * TEX_HALF / TEX_SIZE
    inside = np.clip(0.5 - t / step, 0, 1)
    area = inside.sum((1, 2))
    centre = np.stack([(inside * x).sum((1, 2)) / area, (inside * x[:, None]).sum((1, 2)) / area], 1)
    return t, area * step * step, centre


def _shape(mask, c, area, turning):
    t, areas, centres = _templates()
    pick = np.flatnonzero(area > 20)
    if len(pick) < 1:
        return "none"
    pick = pick[np.linspace(0, len(pick) - 1, min(6, len(pick))).astype(int)]
    h, w = mask.shape[1:]
    # Like the mask's, the template's edge is where the mix is still distinct, a bit outside.
    score = np.zeros(len(SHAPES))
    for i in pick:
        half = int(np.sqrt(area[i]) * 1.5) + 3
        x0, y0 = int(c[i, 0]), int(c[i, 1])
        ys = np.arange(max(0, y0 - half), min(h, y0 + half))
        xs = np.arange(max(0, x0 - half), min(w, x0 + half))
        m = mask[i][np.ix_(ys, xs)].astype(np.float32)
        dx, dy = xs[None] + 0.5 - c[i, 0], ys[:, None] + 0.5 - c[i, 1]
        for s, name in enumerate(SHAPES):
            r = np.sqrt(area[i] / areas[s])
            angles = [0.0] if name in ROUND else np.deg2rad(
                np.arange(0, 360, 9) if turning else (-4, 0, 4))
            best = np.inf
            for a in angles:
                px = (dx * np.cos(a) + dy * np.sin(a)) / r + centres[s, 0]
                py = (dy * np.cos(a) - dx * np.sin(a)) / r + centres[s, 1]
                u = np.clip((px + TEX_HALF) * TEX_SIZE / (2 * TEX_HALF), 0, TEX_SIZE - 1).astype(int)
                v = np.clip((py + TEX_HALF) * TEX_SIZE / (2 * TEX_HALF), 0, TEX_SIZE - 1).astype(int)
                best = min(best, np.abs(np.clip(0.5 - t[s][v, u] * r, 0, 1) - m).sum() / area[i])
            score[s] += best
    return SHAPES[int(np.argmin(score))]


def classify(frames):
    """frames [T, H, W, 3] uint8 -> dict of names: colour, shape, motion, kind, c0, c1"""
    frames = np.asarray(frames, np.float32)
    scale = min(frames.shape[1:3]) / 128.0
    kind, first, second, model, axis = _profile(frames)
    d, mask = _object(frames, model, kind, axis)
    c, area = _track(mask)
    motion, moved = _motion(c, area, mask, scale)
    inner = mask & (_neighbours(mask) == 9)
    inner = inner if inner.sum() > 30 else mask
    colour = nearest(np.median(frames[inner], 0)) if inner.any() else "none"
    return dict(colour=colour, shape=_shape(mask, c, area, motion == "spin"), motion=motion,
                kind=kind, c0=nearest(first), c1=nearest(second),
                moved=[round(float(v), 1) for v in moved])


def same_background(want, got):
    """Kind and colours; stripes have no first colour"""
    a, b = (want["c0"], want["c1"]), (got["c0"], got["c1"])
    if want["kind"].startswith("stripes"):
        a, b = sorted(a), sorted(b)
    return want["kind"] == got["kind"] and tuple(a) == tuple(b)


COUNTED = ("colour", "background", "direction", "other motion", "shape", "all")


def judge(want, got):
    """-> {name: right or wrong}, of what applies to the clip"""
    r = dict(colour=want["colour"] == got["colour"], background=same_background(want, got),
             shape=want["shape"] == got["shape"])
    moves = want["motion"] in DIRECTIONS
    r["direction" if moves else "other motion"] = want["motion"] == got["motion"]
    r["all"] = all(r.values())
    return r


def table(results):
    """judge()'s answers -> {name: (right, of)}"""
    return {k: (sum(r[k] for r in results if k in r), sum(k in r for r in results)) for k in COUNTED}


def table_text(results):
    return ", ".join(f"{k} {a}/{n} = {100 * a / max(n, 1):.1f} %" for k, (a, n) in table(results).items())


def wanted(clip):
    """What classify() should say about a clip of one object; see captions.describe()"""
    return dict(colour=clip["colour"][0], shape=clip["shape"][0], motion=clip["motion"][0],
                kind=clip["kind"], c0=clip["c0"], c1=clip["c1"])


def main():
    import captions
    import render
    import scene
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--n", type=int, default=500)
    ap.add_argument("--size", default="128x128")
    a = ap.parse_args()
    w, h = map(int, a.size.split("x"))
    t = scene.sample(np.random.default_rng(a.seed), a.n, 33, w, h, two=0.0)
    results = []
    for i in range(a.n):
        x, _ = render.clips(scene.take(t, slice(i, i + 1)), w, h)
        want, got = wanted(captions.describe(t, i)), classify(render.to_uint8(x)[0])
        r = judge(want, got)
        results.append(r)
        if not r["all"]:
            print(i, {k: (v, got[k]) for k, v in want.items() if v != got[k]},
                  {k: want[k] for k in ("shape", "motion", "kind")}, got["moved"],
                  "size", t["size"][i, 0], "score", t["score"][i])
    print(a.n, "drawn clips:", table_text(results))


if __name__ == "__main__":
    main()
