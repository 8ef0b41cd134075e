#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Fits the map from the autoencoder's latents to colours that previews are made with.

  fit_preview.py                  prints how well it fits
  fit_preview.py --write          and writes it into config.json, as "preview"

Least squares over drawn clips: a latent pixel's channels against the mean colour of the pixels and
frames it stands for.  A processor does it in a minute.
"""
import argparse
import json
import os

import numpy as np
import torch
import torch.nn.functional as F

import evaluate
import export
import model
import render
import scene


def means(x):
    """Video [B, 3, T, H, W] -> mean colours [B, 3, t, h, w]; the first latent frame is one frame"""
    first = F.avg_pool3d(x[:, :, :1], (1, 8, 8))
    return torch.cat((first, F.avg_pool3d(x[:, :, 1:], (4, 8, 8))), 2)


@torch.no_grad()
def rows(vae, count, seed, batch=4):
    """-> latent pixels with a 1 behind [n, C + 1], their colours [n, 3]"""
    table = scene.sample(np.random.default_rng(seed), count, free_colours=0.5)
    tensors, z, c = render.to_device(table, torch.device("cpu")), [], []
    for i in range(0, count, batch):
        video = render.draw({k: v[i:i + batch] for k, v in tensors.items()}, near=None)[0]
        z.append(vae.encode_moments(video)[0].movedim(1, -1).flatten(0, -2))
        c.append(means(video).movedim(1, -1).flatten(0, -2))
    z = vae.cfg.scale_factor * (torch.cat(z).double() - vae.cfg.shift_factor)
    return torch.cat((z, torch.ones(len(z), 1)), 1), torch.cat(c).double()


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", default=model.FOLDER)
    ap.add_argument("--clips", type=int, default=48)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--write", action="store_true")
    a = ap.parse_args()
    _, vae, config = evaluate.load(a.model)
    z, c = rows(vae, a.clips, a.seed)
    solution = torch.linalg.lstsq(z, c).solution.numpy().round(4)
    seen, colours = rows(vae, max(a.clips // 4, 1), a.seed + 1)
    error = (seen @ torch.from_numpy(solution)).clamp(-1, 1) - colours
    print(f"mean error {127.5 * error.abs().mean():.2f} of 255, "
          f"root mean square {127.5 * error.square().mean().sqrt():.2f}; "
          f"colours deviate {127.5 * colours.std():.2f} from their mean")
    if a.write:
        config["preview"] = dict(factors=solution[:-1].tolist(), bias=solution[-1].tolist())
        export.write_json(os.path.join(a.model, "config.json"), config)


if __name__ == "__main__":
    main()
