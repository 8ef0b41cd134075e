# SPDX-License-Identifier: LGPL-2.1-or-later
"""Generates clips for prompts of combinations that training never saw, and reads them."""
import os
import random
import time

import numpy as np
import torch

import captions
import classify
import fastvae
import render
import scene
from export import SAMPLING

from opensora_ref import philox, sampler

SEED = 2025


def prompts(count, seed=SEED, width=128, height=128):
    """-> table of scenes, their descriptions, sentences without decoration.

    Each held-out combination once before any comes again.  The sentence says all that is
    counted: wordings without the background are drawn again.
    """
    rng = np.random.default_rng(seed)
    combos = np.argwhere(scene.HELD_OUT)
    order = np.concatenate([rng.permutation(len(combos)) for _ in range(-(-count // len(combos)))])
    table = scene.sample(rng, count, 33, width, height, combos=combos[order[:count]])
    words, clips, texts = random.Random(seed), [], []
    for i in range(count):
        clip = captions.describe(table, i)
        while True:
            text = captions.caption(clip, words)
            way = "vertical" if clip["kind"][-1] == "v" else "horizontal"
            start, end = (" top", " bottom") if clip["kind"][-1] == "v" else (" left", " right")
            low = text.lower()
            colours = [any(w in low for w in captions.COLOUR_WORDS[c])
                       for c in (clip["c0"], clip["c1"], clip["colour"][0])]
            kind = clip["kind"].split("-")[0]
            said = kind == "plain" or (kind == "gradient" and (way in low or (start in low and end in low))) \
                or (kind == "stripes" and (("horizontal" if clip["kind"][-1] == "h" else "vertical") in low))
            if all(colours) and said and ("background" in low or kind != "plain") \
                    and ("gradient" in low or "fad" in low or kind != "gradient"):
                break
        clips.append(clip)
        texts.append(text)
    return table, clips, texts


@torch.no_grad()
def generate(net, tokenizers, texts, device, grid, steps, guidance=4.0, guidance_img=1.5, osci=True,
             refs=None, seed=42, batch=32):
    """Latents [N, C, T, H, W] by the reference sampler.  refs: latents of first frames"""
    empty = tokenizers("")
    t, h, w = grid
    out = []
    times = sampler.get_schedule(steps, h * w, t)
    for i in range(0, len(texts), batch):
        ids = [tokenizers(s) for s in texts[i:i + batch]]
        n = len(ids)
        ids += [empty] * (2 * n)
        a, b = (torch.tensor([x[k] for x in ids], device=device) for k in (0, 1))
        noise = torch.stack([philox.noise(seed, i + k, (16, t, 2 * h, 2 * w)) for k in range(n)]).to(device)
        kinds = [None] * n if refs is None else [[refs[i + k]] for k in range(n)]
        kind = "t2v" if refs is None else "i2v_head"
        masks, values = sampler.prepare_inference_condition(noise, kind, kinds)
        z = sampler.denoise(net.mmdit, noise, net.t5(a), net.clip(b)[1], times, guidance, guidance_img,
                            masks, values, osci, osci, osci and refs is not None)
        if refs is not None:
            z[:, :, :1] = values[:, :, :1]
        out.append(z)
    return torch.cat(out)


@torch.no_grad()
def decode(vae, z, batch=8):
    """-> uint8 [N, T, H, W, 3]; exact arithmetic, a norm's worth of memory at a time"""
    net = fastvae.Fast(vae, torch.float32)
    return np.concatenate([render.to_uint8(net.decode(z[i:i + batch])) for i in range(0, len(z), batch)])


def sheet(path, videos, columns=6):
    from PIL import Image
    half = -(-len(videos) // 2)
    parts = [render.contact_sheet(v, columns) for v in (videos[:half], videos[half:]) if len(v)]
    tall = max(p.shape[0] for p in parts)
    parts = [np.pad(p, ((0, tall - p.shape[0]), (0, 6), (0, 0)), constant_values=255) for p in parts]
    Image.fromarray(np.concatenate(parts, 1)).save(path, optimize=True)


def read(videos, clips, mapper):
    """-> what the classifier says, and whether that is right; mapper may use processes"""
    got = mapper(classify.classify, list(videos))
    return got, [classify.judge(classify.wanted(c), g) for c, g in zip(clips, got)]


def wrong(clips, texts, got, results):
    for c, text, g, r in zip(clips, texts, got, results):
        if not r["all"]:
            yield text, {k: (x, g[k]) for k, x in classify.wanted(c).items() if x != g[k]}


def quick(net, vae, tokenizers, device, out, log, count, steps, shape,
          mapper=lambda f, x: list(map(f, x))):
    """A short version for the end of a training run.  out: folder for a sheet, or None"""
    begin = time.time()
    # Exact arithmetic for the numbers that will be quoted.
    places = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [p.allow_tf32 for p in places]
    benchmark, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
    for p in places:
        p.allow_tf32 = False
    try:
        w, h, frames = shape
        grid = sampler.latent_frames(frames, 4), h // 16, w // 16
        table, clips, texts = prompts(count, width=w, height=h)
        full = [captions.decorate(t, SAMPLING["fps"], c["score"]) for t, c in zip(texts, clips)]
        z = generate(net, tokenizers, full, device, grid, steps, SAMPLING["guidance"])
        t1 = time.time()
        videos = decode(vae, z)
        t2 = time.time()
        got, results = read(videos, clips, mapper)
        log(f"{count} held-out prompts, {steps} steps:", classify.table_text(results))
        if out:
            for text, what in list(wrong(clips, texts, got, results))[:12]:
                log("  wrong:", text, what)
        # From a first frame: the same scenes with one picture given.
        n = max(2, count // 4)
        x, _ = render.draw(render.to_device(scene.take(table, slice(0, n)), device), w, h,
                           first=0, frames=frames)
        x = ((x + 1) * 127.5).round() / 127.5 - 1
        with torch.no_grad():
            refs = fastvae.Fast(vae).encode_moments(x[:, :, :1].contiguous())[0]
        again = decode(vae, generate(net, tokenizers, full[:n], device, grid, steps,
                                     SAMPLING["guidance"], SAMPLING["guidance_img"], refs=refs))
        _, from_frame = read(again, clips[:n], mapper)
        e = (render.to_uint8(x)[:, 0].astype(float) - again[:, 0]) ** 2
        psnr = float((10 * np.log10(255 ** 2 / e.mean((1, 2, 3)))).mean())
        log(f"{n} with a first frame ({psnr:.1f} dB):", classify.table_text(from_frame))
        if out:
            sheet(os.path.join(out, "denoiser-sheet.png"), np.concatenate([videos[:40], again[:8]]))
        log(f"sampled in {t1 - begin:.1f} s, decoded in {t2 - t1:.1f} s, all in {time.time() - begin:.1f} s")
        return dict(prompts=classify.table(results), from_frame=classify.table(from_frame),
                    frame_psnr=psnr)
    finally:
        torch.backends.cudnn.benchmark = benchmark
        for p, b in zip(places, before):
            p.allow_tf32 = b
