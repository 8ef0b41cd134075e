# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads off clips, for prompts of combinations that training never saw, what they show.

  evaluate.py --write                           writes prompts-heldout.csv
  evaluate.py --frames PATH                     reads clips that something else generated for it
  evaluate.py --model DIR                       generates them in PyTorch and reads them

PATH is one file of raw RGB frames with all clips one after the other, or a folder with a clip
for each row of the table: 000.rgb (raw), 000.npy ([frames, height, width, 3]) or 000/*.png.
Reading needs numpy alone (and Pillow for PNG and --sheet).
"""
import argparse
import csv
import os
import random
import sys
import time

import numpy as np

import captions
import classify
import scene

SEED = 2025
SCORE = captions.DEFAULT_SCORE      # the one that is used where nobody sets another
TABLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "prompts-heldout.csv")
COLUMNS = ("text", "shape", "colour", "motion", "kind", "c0", "c1")


def prompts(count, seed=SEED, width=128, height=128):
    """-> table of scenes, their descriptions, sentences without decoration.

    Each held-out combination once before any comes again.  The sentence says all that is
    counted: wordings without the background, or without its axis, are drawn again.
    """
    rng = np.random.default_rng(seed)
    combos = np.argwhere(scene.HELD_OUT)
    order = np.concatenate([rng.permutation(len(combos)) for _ in range(-(-count // len(combos)))])
    table = scene.sample(rng, count, 33, width, height, combos=combos[order[:count]])
    table["score"][:] = SCORE
    words, clips, texts = random.Random(seed), [], []
    for i in range(count):
        clip, said = captions.describe(table, i), {}
        text = captions.caption(clip, words, said)
        while said["ground"] != "axis" and (clip["kind"] != "plain" or said["ground"] == "nothing"):
            text = captions.caption(clip, words, said)
        clips.append(clip)
        texts.append(text)
    return table, clips, texts


# ---- tables of prompts, and clips from elsewhere ----

def write_table(path, count):
    _, clips, texts = prompts(count)
    with open(path, "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        for clip, text in zip(clips, texts):
            out.writerow(dict(classify.wanted(clip), text=text))


def read_table(path):
    """-> descriptions (as far as classify.wanted() looks), sentences"""
    with open(path, encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    clips = [dict(colour=[r["colour"]], shape=[r["shape"]], motion=[r["motion"]], kind=r["kind"],
                  c0=r["c0"], c1=r["c1"]) for r in rows]
    return clips, [r["text"] for r in rows]


def _raw(path, width, height):
    x = np.fromfile(path, np.uint8)
    if not len(x) or len(x) % (width * height * 3):
        raise SystemExit(f"{path}: {len(x)} bytes are not whole frames of {width}x{height} RGB")
    return x.reshape(-1, height, width, 3)


def _pictures(folder):
    from PIL import Image
    names = sorted(n for n in os.listdir(folder) if n.endswith(".png"))
    return np.stack([np.asarray(Image.open(os.path.join(folder, n)).convert("RGB")) for n in names])


def read_frames(path, count, width, height, frames):
    """-> {row: uint8 [T, H, W, 3]}"""
    if os.path.isfile(path):
        x = _raw(path, width, height)
        if len(x) % frames:
            raise SystemExit(f"{path}: {len(x)} frames are not whole clips of {frames}")
        return dict(enumerate(x.reshape(-1, frames, height, width, 3)[:count]))
    found = {}
    for row in range(count):
        at = os.path.join(path, f"{row:03d}")
        if os.path.exists(at + ".npy"):
            found[row] = np.load(at + ".npy")
        elif os.path.exists(at + ".rgb"):
            found[row] = _raw(at + ".rgb", width, height)
        elif os.path.isdir(at):
            found[row] = _pictures(at)
    if not found:
        raise SystemExit(f"{path}: no clips in there (000.rgb, 000.npy or 000/*.png)")
    return found


# ---- generation with the reference modules ----

def generate(net, tokenizers, texts, device, grid, steps, guidance=4.0, guidance_img=1.5, osci=True,
             refs=None, seed=42, batch=32):
    """Latents [N, C, T, H, W] by the reference sampler.  refs: latents of first frames"""
    import torch

    import common       # noqa: F401  (knows where the reference modules are)
    from opensora_ref import philox, sampler
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
        with torch.no_grad():
            z = sampler.denoise(net.mmdit, noise, net.t5(a), net.clip(b)[1], times, guidance,
                                guidance_img, masks, values, osci, osci, osci and refs is not None)
        if refs is not None:
            z[:, :, :1] = values[:, :, :1]
        out.append(z)
    return torch.cat(out)


def decode(vae, z, batch=8):
    """-> uint8 [N, T, H, W, 3]; exact arithmetic, a norm's worth of memory at a time"""
    import torch

    import fastvae
    import render
    net = fastvae.Fast(vae, torch.float32)
    with torch.no_grad():
        return np.concatenate([render.to_uint8(net.decode(z[i:i + batch]))
                               for i in range(0, len(z), batch)])


def sheet(path, videos, columns=6):
    from PIL import Image

    import render
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
    import torch

    import fastvae
    import render
    from export import SAMPLING
    from opensora_ref import sampler
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


def load(folder):
    """An exported model -> network, autoencoder (with f32 copies of its f16 weights), config"""
    import json

    import model
    import train_vae  # noqa: F401  (as below)
    from opensora_ref import VAE, CLIPTextConfig, MMDiTConfig, T5Config, VAEConfig
    from safetensors.torch import load_file

    def config(*parts):
        with open(os.path.join(folder, *parts), encoding="utf-8") as f:
            return json.load(f)

    def fill(module, *parts):
        state = load_file(os.path.join(folder, *parts))
        module.load_state_dict({k: v.float() for k, v in state.items()})
    whole = config("config.json")
    net = model.Net(MMDiTConfig.from_dict(whole["mmdit"]), T5Config.from_dict(config("t5", "config.json")),
                    CLIPTextConfig.from_dict(config("clip", "config.json")))
    vae = VAE(VAEConfig.from_dict(whole["vae"]))
    fill(net.mmdit, "mmdit.safetensors")
    fill(net.t5, "t5", "model.safetensors")
    fill(net.clip, "clip", "model.safetensors")
    fill(vae, "vae.safetensors")
    return net.eval(), vae.eval(), whole


def generated(a, texts):
    import common  # noqa: F401
    import torch

    import vocab
    from opensora_ref import sampler
    net, vae, config = load(a.model)
    device = common.device_of(a.device)
    net, vae = net.to(device), vae.to(device)
    s = config["sampling"]
    grid = sampler.latent_frames(a.frame_count, 4), a.height // 16, a.width // 16
    full = [captions.decorate(t, s["fps"], s["motion_score"]) for t in texts]
    tokenizers, videos = vocab.Tokenizers(a.model), []
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for i in range(0, len(full), a.batch):
        z = generate(net, tokenizers, full[i:i + a.batch], device, grid, a.steps or s["num_steps"],
                     a.guidance or s["guidance"], osci=s["text_osci"], seed=a.noise_seed + i)
        videos += list(decode(vae, z))
        print(f"{len(videos)} of {len(full)}", file=sys.stderr, flush=True)
    return dict(enumerate(videos))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = ap.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write the table of prompts")
    what.add_argument("--frames", default="", metavar="PATH")
    what.add_argument("--model", default="", metavar="DIR")
    ap.add_argument("--prompts", default=TABLE, help="CSV table of prompts and what they mean")
    ap.add_argument("--count", type=int, default=100)
    ap.add_argument("--size", default="128x128")
    ap.add_argument("--frame-count", type=int, default=33)
    ap.add_argument("--steps", type=int, default=0, help="(default: the model's)")
    ap.add_argument("--guidance", type=float, default=0.0, help="(default: the model's)")
    ap.add_argument("--noise-seed", type=int, default=42)
    ap.add_argument("--batch", type=int, default=10)
    ap.add_argument("--device", default="auto")
    ap.add_argument("--sheet", default="", help="PNG of all clips")
    a = ap.parse_args()
    if a.write:
        write_table(a.prompts, a.count)
        return
    a.width, a.height = map(int, a.size.split("x"))
    clips, texts = read_table(a.prompts)
    clips, texts = clips[:a.count], texts[:a.count]
    videos = (generated(a, texts) if a.model else
              read_frames(a.frames, len(texts), a.width, a.height, a.frame_count))
    rows = sorted(videos)
    clips, texts = [clips[r] for r in rows], [texts[r] for r in rows]
    got, results = read([videos[r] for r in rows], clips, lambda f, x: list(map(f, x)))
    for row, c, text, g, r in zip(rows, clips, texts, got, results):
        if not r["all"]:
            print(f"{row:03d}", text, {k: (x, g[k]) for k, x in classify.wanted(c).items() if x != g[k]})
    print(len(rows), "clips:", classify.table_text(results))
    if a.sheet:
        sheet(a.sheet, np.stack([videos[r] for r in rows]))


if __name__ == "__main__":
    main()
