# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws tables of scenes as clips, in batches, on any torch device.

Shapes come from distance-field textures; an edge is a ramp one pixel wide, so
objects move by fractions of a pixel without jumping.

  render.py --out sheet.png [--seed 1] [--n 24]     a contact sheet to look at
"""
import argparse

import numpy as np
import torch

import scene
import shapes

_TEX = {}


def _texture(device):
    key = str(device)
    if key not in _TEX:
        _TEX[key] = torch.from_numpy(shapes.textures()).to(device).reshape(-1)
    return _TEX[key]


def to_device(table, device):
    """The columns that drawing needs, as tensors."""
    out = {}
    for k in scene.DRAWN:
        t = torch.from_numpy(np.ascontiguousarray(table[k]))
        out[k] = t.to(device, torch.long if k in ("shape", "kind") else torch.float32)
    return out


def _field(tex, shape, px, py):
    """Bilinear look-up of a shape's distance field at px, py (nominal radii)."""
    s = shapes.TEX_SIZE
    g = (s / (2 * shapes.TEX_HALF))
    fx = ((px + shapes.TEX_HALF) * g - 0.5).clamp(0, s - 1.001)
    fy = ((py + shapes.TEX_HALF) * g - 0.5).clamp(0, s - 1.001)
    ix, iy = fx.floor(), fy.floor()
    ax, ay = fx - ix, fy - iy
    base = (shape * (s * s) + iy.long() * s + ix.long())
    top = tex[base] * (1 - ax) + tex[base + 1] * ax
    bottom = tex[base + s] * (1 - ax) + tex[base + s + 1] * ax
    return top * (1 - ay) + bottom * ay


def draw(t, width=128, height=128, near=3.0, first=0, frames=None, objects=scene.MAX_OBJECTS):
    """Table tensors (see to_device) -> clip [B, 3, T, H, W] in [-1, 1], and a mask
    [B, 1, T, H, W] that is 1 on the objects and up to `near` pixels around them (none if
    `near` is None).  Only the first `objects` are drawn."""
    device = t["traj"].device
    tex = _texture(device)
    traj = t["traj"] if frames is None else t["traj"][:, :, first:first + frames]
    x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    y = torch.arange(height, device=device, dtype=torch.float32) + 0.5

    # Background, constant over time: how much of the second colour each pixel has.
    def along(pos, length, stripes):
        """[B, length] share of the second colour along one axis"""
        grad = (pos / length)[None].expand(len(stripes), -1)
        period = t["period"][:, None]
        u = pos[None] / period + t["phase"][:, None]
        u = u - u.floor()
        # distance in pixels to the nearest edge of the second band
        band = (0.25 - (u - 0.75).abs()) * period
        return torch.where(stripes[:, None], (0.5 + band).clamp(0, 1), grad)
    kind = t["kind"]
    my = along(y, height, kind == 3)[:, :, None]
    mx = along(x, width, kind == 4)[:, None, :]
    vertical = ((kind == 1) | (kind == 3))[:, None, None]
    mix = torch.where(vertical, my, mx) * (kind > 0)[:, None, None]         # B, H, W
    c0, c1 = t["bg_rgb"][:, 0, :, None, None], t["bg_rgb"][:, 1, :, None, None]
    img = (c0 + (c1 - c0) * mix[:, None])[:, :, None]                       # B, 3, 1, H, W
    img = img.expand(-1, -1, traj.shape[2], -1, -1)

    mask = None
    for o in range(objects):
        cx, cy, r, th = (traj[:, o, :, i][:, :, None, None] for i in range(4))
        dx, dy = x[None, None, None, :] - cx, y[None, None, :, None] - cy
        c, s = torch.cos(th), torch.sin(th)
        px, py = (dx * c + dy * s) / r, (dy * c - dx * s) / r
        dist = _field(tex, t["shape"][:, o, None, None, None], px, py) * r
        alpha = (0.5 - dist).clamp(0, 1) * t["visible"][:, o, None, None, None]
        rgb = t["obj_rgb"][:, o, :, None, None, None]
        img = img + (rgb - img) * alpha[:, None]
        if near is None:
            continue
        m = (dist < near).float() * t["visible"][:, o, None, None, None]
        mask = m if mask is None else torch.maximum(mask, m)
    return img / 127.5 - 1.0, None if mask is None else mask[:, None]


def clips(table, width=128, height=128, device="cpu", **kw):
    return draw(to_device(table, device), width, height, **kw)


def to_uint8(x):
    """[..., C, T, H, W] in [-1, 1] -> uint8 [..., T, H, W, C]"""
    x = ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return x.movedim(-4, -1).cpu().numpy()


def contact_sheet(videos, columns=6, gap=2):
    """uint8 [N, T, H, W, 3] -> one picture, a row a clip, frames over time."""
    n, t, h, w, _ = videos.shape
    pick = np.linspace(0, t - 1, min(columns, t)).round().astype(int)
    sheet = np.full((n * (h + gap) - gap, len(pick) * (w + gap) - gap, 3), 255, np.uint8)
    for i in range(n):
        for j, f in enumerate(pick):
            sheet[i * (h + gap):i * (h + gap) + h, j * (w + gap):j * (w + gap) + w] = videos[i, f]
    return sheet


def main():
    from PIL import Image
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--out", required=True)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--n", type=int, default=24)
    ap.add_argument("--size", default="128x128")
    ap.add_argument("--two", type=float, default=0.12)
    a = ap.parse_args()
    w, h = map(int, a.size.split("x"))
    table = scene.sample(np.random.default_rng(a.seed), a.n, 33, w, h, two=a.two)
    v, _ = clips(table, w, h)
    Image.fromarray(contact_sheet(to_uint8(v))).save(a.out)
    for i in range(a.n):
        print(i, *[f"{shapes.COLOURS[table['colour'][i, o]]} {shapes.SHAPES[table['shape'][i, o]]} "
                   f"{scene.MOTIONS[table['motion'][i, o]]} {scene.SIZES[table['size'][i, o]]}"
                   for o in range(table["count"][i])], "score", table["score"][i],
              scene.BACKGROUNDS[table["kind"][i]], shapes.COLOURS[table["c0"][i]],
              shapes.COLOURS[table["c1"][i]])


if __name__ == "__main__":
    main()
