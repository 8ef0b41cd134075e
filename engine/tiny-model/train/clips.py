# SPDX-License-Identifier: LGPL-2.1-or-later
"""The denoiser's material: clips as packed latents, with the ids of several captions each.

Worker processes draw up scenes, write captions and tokenise them; the device draws and
encodes.  First and last frames are encoded a second time, alone, because that is how a
reference picture is encoded (a norm over one frame differs from one over all).
"""
import multiprocessing
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F

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
CAPTIONS = 4                        # captions a clip
NEAR = 2.0                          # pixels around an object that still count as it

_tokenizers = None                  # of a worker process


def chunk(job):
    """-> table of scenes, T5 ids, CLIP ids [CHUNK, CAPTIONS, length]; clips of one object first"""
    folder, seed, name, index, (w, h, frames), count = job
    global _tokenizers
    if _tokenizers is None:
        _tokenizers = vocab.Tokenizers(folder)
    number = sorted(SHAPES).index(name)
    table = scene.sample(np.random.default_rng([seed, number, index]), count, 33, w, h, two=0.15)
    if frames < 33:                 # a part may end before it bounces
        keep = np.flatnonzero(~(table["motion"][:, 0] == scene.BOUNCE))
        table = scene.take(table, np.resize(keep, count))
    table = scene.take(table, np.argsort(table["count"], kind="stable"))
    rng = random.Random(f"{seed} {name} {index}")
    a = np.zeros((count, CAPTIONS, vocab.T5_LENGTH), np.int16)
    b = np.zeros((count, CAPTIONS, vocab.CLIP_LENGTH), np.int16)
    for i in range(count):
        clip = captions.describe(table, i)
        for k in range(CAPTIONS):
            said = {}
            text = captions.caption(clip, rng, said)
            a[i, k], b[i, k] = _tokenizers(captions.decorated(text, clip["score"], rng, said=said))
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


def touched(mask):
    """[B, 1, T, H, W] -> [B, tokens] uint8: which tokens have a pixel of an object or near it"""
    first = F.max_pool2d(mask[:, 0, :1], 16)
    rest = F.max_pool3d(mask[:, :, 1:], (4, 16, 16))[:, 0] if mask.shape[2] > 1 else first[:, :0]
    return torch.cat((first, rest), 1).flatten(1).byte()


class Recorder:
    """Draws and encodes clips of one shape; batches of the full size run as a recorded graph."""

    def __init__(self, encode, shape, batch, device, log):
        self.encode, self.shape, self.batch, self.log = encode, shape, batch, log
        self.graphs = {} if device.type == "cuda" else None

    def _latents(self, t, objects):
        w, h, frames = self.shape
        x, mask = render.draw(t, w, h, near=NEAR, frames=frames, objects=objects)
        x = ((x + 1) * 127.5).round() / 127.5 - 1
        ends = self.encode(torch.cat([x[:, :, :1], x[:, :, -1:]]))
        first, last = ends.chunk(2)
        return [sampler.pack(v).bfloat16() for v in (self.encode(x), first, last)] + [touched(mask)]

    def _record(self, t, objects):
        still = {k: v.clone() for k, v in t.items()}
        for _ in range(2):                      # chooses kernels
            truth = self._latents(still, objects)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream(),
                              capture_error_mode="thread_local"):
            out = self._latents(still, objects)
        graph.replay()
        if not all((a - b).float().norm() < 0.03 * b.float().norm() for a, b in zip(out, truth)):
            raise ValueError("the recorded encoder computes something else")
        self.graphs[objects] = graph, still, out

    def __call__(self, t, objects):
        if self.graphs is None or len(t["kind"]) != self.batch:
            return self._latents(t, objects)
        if objects not in self.graphs:
            try:
                self._record(t, objects)
            except Exception as e:
                self.log(f"encoding unrecorded: {type(e).__name__}: {str(e)[:300]}")
                torch.cuda.synchronize()
                self.graphs = None
                return self._latents(t, objects)
        graph, still, out = self.graphs[objects]
        for k, v in still.items():
            v.copy_(t[k])
        graph.replay()
        return [v.clone() for v in out]


class Pool:
    """Encoded clips on the device, by shape."""

    def __init__(self):
        self.data = {}

    @torch.no_grad()
    def fill(self, workers, encode, device, shapes, counts, seconds, log, batch=32):
        """Shapes in the order of `counts`, the last one until the time is over"""
        begin = time.time()
        for name in counts:
            parts, n, t = [], 0, time.time()
            record = Recorder(encode, shapes[name], batch, device, log)
            for table, a, b in workers.results[name]:
                d = render.to_device(table, device)
                rows = []
                for i in range(0, len(a), batch):
                    objects = 1 + int(table["visible"][i:i + batch, 1].any())
                    rows.append(record({k: v[i:i + batch] for k, v in d.items()}, objects))
                parts.append([torch.cat(r) for r in zip(*rows)]
                             + [torch.from_numpy(v).to(device) for v in (a, b)])
                n += len(a)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if time.time() - begin > seconds:
                    break
            fresh = [torch.cat(v) for v in zip(*parts)]
            old = self.data.get(name)
            self.data[name] = fresh if old is None else [torch.cat(v) for v in zip(old, fresh)]
            took = time.time() - t
            log(f"{n} clips {name} {'x'.join(map(str, shapes[name]))} in {took:.1f} s, "
                f"{1000 * took / n:.2f} ms each; {len(self.data[name][0])} in all")
        return self

    def load(self, path, device, log):
        """What an earlier run on the same machine encoded, if there is such a file"""
        if path and os.path.exists(path):
            t = time.time()
            try:
                self.data = torch.load(path, map_location=device, weights_only=True)
            except Exception as e:
                log(f"{path} is of no use: {type(e).__name__}: {str(e)[:200]}")
            log(f"{len(self.data.get('clip', [()])[0])} clips loaded in {time.time() - t:.1f} s")
        return self

    def save(self, path, log):
        if path:
            t = time.time()
            try:
                torch.save(self.data, path + ".part")
                os.replace(path + ".part", path)
                log(f"pool saved in {time.time() - t:.1f} s, {os.path.getsize(path) / 2**30:.1f} GiB")
            except OSError as e:
                log("pool not saved:", e)

    def grid(self, name, shapes):
        if name == "picture":
            w, h, frames = shapes["clip"][:2] + (1,)
        else:
            w, h, frames = shapes[name]
        return sampler.latent_frames(frames, 4), h // 16, w // 16

    def draw(self, name, batch):
        """-> latents, first and last frame's latents, tokens with an object, T5 ids, CLIP ids of
        random clips"""
        z, head, tail, near, a, b = self.data["clip" if name == "picture" else name]
        device = z.device
        rows = torch.randint(z.shape[0], (batch,), device=device)
        which = rows * a.shape[1] + torch.randint(a.shape[1], (batch,), device=device)
        if name == "picture":
            z, near = head, near[:, :head.shape[1]]
        return (z.index_select(0, rows).float(), head.index_select(0, rows).float(),
                tail.index_select(0, rows).float(), near.index_select(0, rows).float(),
                a.flatten(0, 1).index_select(0, which).long(),
                b.flatten(0, 1).index_select(0, which).long())
