# SPDX-License-Identifier: LGPL-2.1-or-later
"""What happens in a clip: seeded tables of objects, motions and backgrounds.

A table is a dict of numpy arrays, one row a clip.  Its integer columns are what
captions are written from; its float columns (colours, trajectories) are what
the renderer draws.  Everything is vectorised, so tables cost next to nothing.
"""
import numpy as np

from shapes import COLOURS, RGB, ROUND, SHAPES

MOTIONS = ("right", "left", "up", "down", "up-right", "up-left", "down-right",
           "down-left", "bounce", "grow", "shrink", "spin", "still")
VECTORS = np.array([(1, 0), (-1, 0), (0, -1), (0, 1), (1, -1), (-1, -1), (1, 1),
                    (-1, 1)], np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
BOUNCE, GROW, SHRINK, SPIN, STILL = (MOTIONS.index(m) for m in
                                     ("bounce", "grow", "shrink", "spin", "still"))
SIZES = ("small", "medium", "large")
RADII = np.array([10.5, 15.5, 21.5], np.float32)    # pixels, in a frame 128 high
BACKGROUNDS = ("plain", "gradient-v", "gradient-h", "stripes-h", "stripes-v")
FPS = (8, 12, 16, 24, 30)
MAX_OBJECTS = 2
MIN_CONTRAST = 95.0                 # RGB distance between an object and what is behind it

HELD_OUT_SEED, HELD_OUT_COUNT = 20250, 120


def _possible():
    """Mask [shape, colour, motion] of combinations that can be seen."""
    ok = np.ones((len(SHAPES), len(COLOURS), len(MOTIONS)), bool)
    for s in ROUND:
        ok[SHAPES.index(s), :, SPIN] = False
    return ok


def held_out():
    """Mask [shape, colour, motion] of the combinations that training never shows.

    The same number of each motion, shapes and colours spread by a seeded shuffle.
    The combination of the documentation's first example stays in training.
    """
    ok = _possible()
    ok[SHAPES.index("circle"), COLOURS.index("red"), MOTIONS.index("right")] = False
    rng = np.random.default_rng(HELD_OUT_SEED)
    out = np.zeros_like(ok)
    for i in range(HELD_OUT_COUNT):
        m = i % len(MOTIONS)
        # Prefer the shapes and colours that were taken least so far.
        cost = out.sum((1, 2))[:, None] + out.sum((0, 2))[None, :] * 0.75 + rng.random(ok.shape[:2])
        cost = np.where(ok[:, :, m] & ~out[:, :, m], cost, np.inf)
        s, c = np.unravel_index(np.argmin(cost), cost.shape)
        out[s, c, m] = True
    return out


def _contrast():
    """ok[colour, c0, c1]: the object colour stands out from every mix of c0 and c1."""
    t = np.linspace(0, 1, 9)[:, None, None, None]
    mix = RGB[None, :, None] * (1 - t) + RGB[None, None] * t        # t, c0, c1, rgb
    d = np.linalg.norm(RGB[:, None, None, None] - mix[None], axis=-1).min(1)
    return d >= MIN_CONTRAST


HELD_OUT = held_out()
TRAINABLE = _possible() & ~HELD_OUT
CONTRAST = _contrast()
# Two background colours must be told apart as well.
PAIR = np.linalg.norm(RGB[:, None] - RGB[None], axis=-1) >= MIN_CONTRAST


def _choose(rng, ok):
    """One random true index along the last axis of a mask, for each row."""
    return np.argmax(np.where(ok, rng.random(ok.shape), -1.0), axis=-1)


def _fold(x, lo, hi):
    """Reflect positions between two walls."""
    span = np.maximum(hi - lo, 1e-3)
    y = np.mod(x - lo, 2 * span)
    return lo + np.where(y > span, 2 * span - y, y)


def _trajectory(rng, motion, size, score, box, scale, frames, axis, spin_sign, shape):
    """Positions, radii and angles [N, frames, 4] of objects kept inside `box`.

    box [N, 4] = x0, y0, x1, y1; scale: pixels per nominal pixel.
    """
    n = len(motion)
    k = np.arange(frames, dtype=np.float32)[None]
    jit = lambda a: rng.uniform(1 - a, 1 + a, (n, 1)).astype(np.float32)
    r0 = RADII[size][:, None] * scale * jit(0.06)
    s = score[:, None].astype(np.float32)

    ratio = (1.2 + 0.3 * s) ** ((k / 32.0) - 0.5)      # 1.5x at score 1 .. 3.3x at 7
    r = np.where(motion[:, None] == GROW, r0 * ratio,
                 np.where(motion[:, None] == SHRINK, r0 / ratio, r0 + 0 * k))
    rmax = r.max(1, keepdims=True) * 1.12 + 1.0

    lo, hi = box[:, None, :2] + rmax[:, :, None], box[:, None, 2:] - rmax[:, :, None]
    mid = 0.5 * (lo + hi)
    lo, hi = np.minimum(lo, mid), np.maximum(hi, mid)

    # Straight lines: the whole path fits between the borders.
    u = np.zeros((n, 1, 2), np.float32)
    straight = motion < BOUNCE
    u[straight, 0] = VECTORS[motion[straight]]
    v = (18 + 9 * s) / 32.0 * scale * jit(0.06)
    travel = v[:, :, None] * (frames - 1)
    room = (hi - lo) / np.maximum(np.abs(u), 1e-6)
    travel = np.minimum(travel, room.min(2, keepdims=True))
    d = travel * u                                      # whole displacement
    start = lo + np.maximum(-d, 0) + rng.random((n, 1, 2)) * np.maximum(hi - lo - np.abs(d), 0)
    path = start + d * (k[:, :, None] / max(frames - 1, 1))

    # Bounces: faster, and the first wall is near enough to be reached.
    ang = np.where(axis == 0, 0.0, np.where(axis == 1, np.pi / 2,
                   rng.uniform(np.pi / 6, np.pi / 3, n)))
    w = np.stack([np.cos(ang) * rng.choice([-1, 1], n), np.sin(ang) * rng.choice([-1, 1], n)], 1)
    w = w[:, None].astype(np.float32)
    vb = ((1.6 + 0.35 * s) * scale * jit(0.06))[:, :, None]
    reach = np.minimum(0.75 * vb * 32 * np.abs(w), hi - lo)
    back = rng.random((n, 1, 2)) * reach
    b0 = np.where(w > 0, hi - back, lo + back)
    still = np.abs(w) < 1e-3                            # the axis that does not move
    b0 = np.where(still, lo + rng.random((n, 1, 2)) * (hi - lo), b0)
    bounce = _fold(b0 + w * vb * k[:, :, None], lo, hi)
    path = np.where((motion == BOUNCE)[:, None, None], bounce, path)

    turn = np.deg2rad(60 + 45 * s) / 32.0 * spin_sign[:, None]
    th0 = np.deg2rad(rng.uniform(-4, 4, (n, 1)))
    th = th0 + np.where(motion[:, None] == SPIN, turn * k, 0.0)
    return np.concatenate([path, r[:, :, None], th[:, :, None]], 2).astype(np.float32)


def sample(rng, n, frames=33, width=128, height=128, two=0.12, free_colours=0.0,
           combos=None, start=0.0):
    """A table of `n` clips.

    two           share of clips with two objects
    free_colours  share of clips whose colours come from outside the palette (for the VAE)
    combos        [n, 3] (shape, colour, motion) to use instead of drawing them
    """
    table = {}
    if combos is None:
        idx = np.argwhere(TRAINABLE)
        # Motions evenly first: rejection of trivial ones must not make them rare.
        m = rng.integers(0, len(MOTIONS), (n, MAX_OBJECTS))
        key = rng.random((n, MAX_OBJECTS))
        starts = [idx[idx[:, 2] == j] for j in range(len(MOTIONS))]
        combo = np.zeros((n, MAX_OBJECTS, 3), np.int64)
        for j, rows in enumerate(starts):
            sel = m == j
            combo[sel] = rows[(key[sel] * len(rows)).astype(int)]
        second = rng.random(n) < two
    else:
        combo = np.repeat(np.asarray(combos)[:, None], MAX_OBJECTS, 1)
        second = np.zeros(n, bool)

    # Two objects share a clip in two lanes, each moving along its lane.
    lanes = rng.integers(0, 2, n)                       # 0: above/below, 1: side by side
    if second.any():
        allowed = np.zeros((2, len(MOTIONS)), bool)
        allowed[0, [0, 1, STILL]] = True
        allowed[1, [2, 3, STILL]] = True
        for o in range(MAX_OBJECTS):
            rows = np.where(second)[0]
            mo = _choose(rng, allowed[lanes[rows]])
            combo[rows, o, 2] = mo
            ok = TRAINABLE[:, :, mo].transpose(2, 0, 1).copy()      # rows, shape, colour
            if o:       # a different colour and shape, so that captions stay clear
                ok[np.arange(len(rows)), combo[rows, 0, 0]] = False
                ok[np.arange(len(rows)), :, combo[rows, 0, 1]] = False
            flat = _choose(rng, ok.reshape(len(rows), len(SHAPES) * len(COLOURS)))
            combo[rows, o, 0], combo[rows, o, 1] = np.divmod(flat, len(COLOURS))

    shape, colour, motion = combo[..., 0], combo[..., 1], combo[..., 2]
    size = rng.choice(3, (n, MAX_OBJECTS), p=[0.25, 0.45, 0.3])
    size[second] = np.minimum(size[second], 1)
    score = rng.choice(np.arange(1, 8), n, p=[0.1, 0.1, 0.15, 0.3, 0.15, 0.1, 0.1])
    axis = rng.choice(3, n, p=[0.25, 0.25, 0.5])
    spin = rng.choice([-1, 1], n)

    kind = rng.choice(len(BACKGROUNDS), n, p=[0.5, 0.125, 0.125, 0.125, 0.125])
    ok = CONTRAST[colour[:, 0]]
    ok = np.where(second[:, None, None], ok & CONTRAST[colour[:, 1]], ok)   # n, c0, c1
    plain = kind == 0
    # Some pairs of object colours leave no two-coloured background.
    pairs = ok & PAIR[None]
    plain |= ~pairs.any((1, 2))
    kind = np.where(plain, 0, kind)
    pairs = np.where(plain[:, None, None], ok & np.eye(len(COLOURS), dtype=bool)[None], pairs)
    c0, c1 = np.divmod(_choose(rng, pairs.reshape(n, len(COLOURS) ** 2)), len(COLOURS))

    def tint(index):
        rgb = RGB[index] + rng.uniform(-7, 7, index.shape + (3,))
        return rgb
    obj_rgb, bg0, bg1 = tint(colour), tint(c0), tint(c1)
    bg1 = np.where(plain[:, None], bg0, bg1)
    if free_colours > 0:
        free = rng.random(n) < free_colours
        rnd = rng.uniform(0, 255, (4, n, 3))
        obj_rgb[free] = rnd[:2].transpose(1, 0, 2)[free]
        bg0[free] = rnd[2][free]
        bg1[free] = np.where(plain[free][:, None], rnd[2][free], rnd[3][free])

    scale = min(width, height) / 128.0
    traj = np.zeros((n, MAX_OBJECTS, frames, 4), np.float32)
    for o in range(MAX_OBJECTS):
        box = np.tile(np.array([[0, 0, width, height]], np.float32), (n, 1))
        # object 0 takes the upper or left lane in half of the clips
        if o == 0:
            flip = rng.integers(0, 2, n)
        side = (flip + o) % 2
        for ax in (0, 1):                               # lane kind
            dim = 1 - ax                                # the split coordinate
            rows = second & (lanes == ax)
            half = (height if dim == 1 else width) / 2.0
            box[rows & (side == 0), 2 + dim] = half
            box[rows & (side == 1), dim] = half
        traj[:, o] = _trajectory(rng, motion[:, o], size[:, o], score, box, scale, frames,
                                 axis, spin, shape[:, o])

    table.update(
        shape=shape, colour=colour, motion=motion, size=size, score=score, axis=axis,
        spin=spin, count=1 + second.astype(np.int64), lanes=lanes,
        kind=kind, c0=c0, c1=c1,
        obj_rgb=np.clip(obj_rgb, 0, 255).astype(np.float32),
        bg_rgb=np.clip(np.stack([bg0, bg1], 1), 0, 255).astype(np.float32),
        period=(rng.uniform(18, 36, n) * scale).astype(np.float32),
        phase=rng.random(n).astype(np.float32),
        traj=traj,
        visible=np.stack([np.ones(n), second.astype(float)], 1).astype(np.float32),
    )
    return table


DRAWN = ("shape", "obj_rgb", "bg_rgb", "kind", "period", "phase", "traj", "visible")


def take(table, rows):
    return {k: v[rows] for k, v in table.items()}


def concat(tables):
    return {k: np.concatenate([t[k] for t in tables]) for k in tables[0]}
