# SPDX-License-Identifier: LGPL-2.1-or-later
"""The denoiser's material: clips as packed latents, with the ids of several captions each.

Worker processes draw up scenes, write captions and tokenise them; the device draws and
encodes.  First and last frames are encoded a second time, alone, because that is how a
reference picture is encoded (a norm over one frame differs from one over all).
"""
import multiprocessing
import random
import time

import numpy as np
import torch

import captions
import fastvae
import render
import scene
import vocab

from opensora_ref import sampler

# name: width, height, frames
SHAPES = {"clip": (128, 128, 33), "wide": (160, 96, 33), "tall": (96, 160, 33),
          "half": (128, 128, 17)}
TINY_SHAPES = {"clip": (32, 32, 9), "wide": (32, 16, 9), "tall": (16, 32, 9), "half": (32, 32, 5)}
CHUNK = 256                         # clips a job
CAPTIONS = 6                        # captions a clip

_tokenizers = None                  # of a worker process


def chunk(job):
    """-> table of scenes, T5 ids, CLIP ids [CHUNK, CAPTIONS, length]"""
    folder, seed, name, index, (w, h, frames), count = job
    global _tokenizers
    if _tokenizers is None:
        _tokenizers = vocab.Tokenizers(folder)
    number = sorted(SHAPES).index(name)
    table = scene.sample(np.random.default_rng([seed, number, index]), count, 33, w, h, two=0.15)
    if frames < 33:                 # a part may end before it bounces
        keep = np.flatnonzero(~(table["motion"][:, 0] == scene.BOUNCE))
        table = scene.take(table, np.resize(keep, count))
    rng = random.Random(f"{seed} {name} {index}")
    a = np.zeros((count, CAPTIONS, vocab.T5_LENGTH), np.int16)
    b = np.zeros((count, CAPTIONS, vocab.CLIP_LENGTH), np.int16)
    for i in range(count):
        clip = captions.describe(table, i)
        for k in range(CAPTIONS):
            text = captions.decorated(captions.caption(clip, rng), clip["score"], rng)
            a[i, k], b[i, k] = _tokenizers(text)
    return {k: table[k] for k in scene.DRAWN}, a, b


class Workers:
    """Starts drawing up scenes at once.  Make it before the device is touched: it forks."""

    def __init__(self, folder, seed, shapes, counts, processes, size=CHUNK):
        self.jobs = {name: [(folder, seed, name, i, shapes[name], min(size, n))
                            for i in range(-(-n // size))] for name, n in counts.items()}
        self.pool = multiprocessing.get_context("fork").Pool(processes) if processes else None
        self.results = {name: (self.pool.imap(chunk, jobs) if self.pool else map(chunk, jobs))
                        for name, jobs in self.jobs.items()}
        self.map = self.pool.map if self.pool else (lambda f, x: list(map(f, x)))

    def close(self):
        if self.pool:
            self.pool.terminate()


def encoder(vae, device, log):
    """-> function: video [B, 3, T, H, W] to latents, in bf16 where that is fast"""
    if device.type != "cuda":
        net = fastvae.Fast(vae, torch.float32)
        return lambda x: net.encode_moments(x)[0]
    try:
        fastvae.use_kernels(True)
    except Exception as e:
        log("no Triton kernels:", e)
    fast, exact = fastvae.Fast(vae, torch.bfloat16), fastvae.Fast(vae, torch.float32)
    table = scene.sample(np.random.default_rng(5), 4)
    x, _ = render.draw(render.to_device(table, device))
    try:
        with torch.no_grad():
            a = fast.encode_moments(x)[0]
            fastvae.use_kernels(False)
            b = exact.encode_moments(x)[0]
        fastvae.use_kernels(True)
        error = ((a - b).norm() / b.norm()).item()
        log(f"fast encoder's error {error:.4f}")
    except Exception as e:
        log(f"the fast encoder does not run: {type(e).__name__}: {str(e)[:300]}")
        error = 1.0
    if error > 0.05:
        log("the fast encoder is WRONG here: plain formulas")
        fastvae.use_kernels(False)
        fast = fastvae.Fast(vae, torch.bfloat16)
    return lambda x: fast.encode_moments(x)[0]


class Pool:
    """Encoded clips on the device, by shape."""

    def __init__(self):
        self.data = {}

    @torch.no_grad()
    def fill(self, workers, encode, device, shapes, counts, seconds, log, batch=32):
        """Shapes in the order of `counts`, the last one until the time is over"""
        begin = time.time()
        for name in counts:
            w, h, frames = shapes[name]
            parts, n, t = [], 0, time.time()
            for table, a, b in workers.results[name]:
                d = render.to_device(table, device)
                rows = []
                for i in range(0, len(a), batch):
                    x, _ = render.draw({k: v[i:i + batch] for k, v in d.items()}, w, h,
                                       first=0, frames=frames)
                    x = ((x + 1) * 127.5).round() / 127.5 - 1
                    z = [encode(v) for v in (x, x[:, :, :1].contiguous(), x[:, :, -1:].contiguous())]
                    rows.append([sampler.pack(v).bfloat16() for v in z])
                parts.append([torch.cat(r) for r in zip(*rows)]
                             + [torch.from_numpy(v).to(device) for v in (a, b)])
                n += len(a)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if time.time() - begin > seconds:
                    break
            self.data[name] = [torch.cat(v) for v in zip(*parts)]
            took = time.time() - t
            log(f"{n} clips {name} {w}x{h}x{frames} in {took:.1f} s, {1000 * took / n:.2f} ms each")
        return self

    def grid(self, name, shapes):
        if name == "picture":
            w, h, frames = shapes["clip"][:2] + (1,)
        else:
            w, h, frames = shapes[name]
        return sampler.latent_frames(frames, 4), h // 16, w // 16

    def draw(self, name, batch):
        """-> latents, first and last frame's latents, T5 ids, CLIP ids of random clips"""
        z, head, tail, a, b = self.data["clip" if name == "picture" else name]
        device = z.device
        rows = torch.randint(z.shape[0], (batch,), device=device)
        which = rows * a.shape[1] + torch.randint(a.shape[1], (batch,), device=device)
        z = head if name == "picture" else z
        return (z.index_select(0, rows).float(), head.index_select(0, rows).float(),
                tail.index_select(0, rows).float(),
                a.flatten(0, 1).index_select(0, which).long(),
                b.flatten(0, 1).index_select(0, which).long())
