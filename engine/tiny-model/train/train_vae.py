# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stage 1: the autoencoder.  Pictures first, then short clips, then whole clips.

The clips are drawn on the device while training, from tables of scenes that are made
once; frames, positions and crops in time vary from step to step.
"""
import json
import os
import time

import numpy as np
import torch
import torch.nn.functional as F

import fastvae
import render
import scene
from common import Budget, Log, Trainer, cosine, device_of, load_average

from opensora_ref import VAE, VAEConfig

CONFIG = dict(in_channels=3, out_channels=3, latent_channels=16,
              block_out_channels=[32, 32, 64, 64], layers_per_block=2, norm_num_groups=8,
              scale_factor=1.0, shift_factor=0.0, time_compression_ratio=4,
              spatial_compression_ratio=8, mid_block_add_attention=True,
              sample_size=128, sample_tsize=32, tile_overlap_factor=0.25)
TINY = dict(CONFIG, block_out_channels=[8, 8, 16, 16], norm_num_groups=4)

# name: width, height, frames, relative batch
SHAPES = {
    "picture": (128, 128, 1, 8.0), "short": (128, 128, 9, 2.0), "half": (128, 128, 17, 1.5),
    "clip": (128, 128, 33, 1.0), "wide": (160, 96, 33, 1.0), "tall": (96, 160, 33, 1.0),
}
TINY_SHAPES = {k: (w // 4, h // 4, min(t, 9), n / 2) for k, (w, h, t, n) in SHAPES.items()}
CYCLE = ("clip", "clip", "clip", "picture", "clip", "clip", "wide", "clip", "half", "clip",
         "clip", "picture", "clip", "clip", "tall", "clip")
LOGGED = ("loss", "norm", "psnr", "object-psnr", "kl", "sigma/std", "std")


class Pool:
    """Scenes on the device, by frame size; clips are drawn from random rows of it."""

    def __init__(self, rows, seed, device, shapes=SHAPES):
        self.tables = {}
        sizes = list(dict.fromkeys((w, h) for w, h, _, _ in shapes.values()))
        for i, (w, h) in enumerate(sizes):
            n = rows if i == 0 else rows // 4
            table = scene.sample(np.random.default_rng([seed, i]), n, 33, w, h, two=0.2,
                                 free_colours=0.2)
            self.tables[w, h] = render.to_device(table, device)

    def draw(self, width, height, frames, batch):
        t = self.tables[width, height]
        traj = t["traj"]
        dev = traj.device
        rows = torch.randint(traj.shape[0], (batch,), device=dev)
        pick = {k: v.index_select(0, rows) for k, v in t.items()}
        first = torch.randint(33 - frames + 1, (batch, 1), device=dev)
        at = (first + torch.arange(frames, device=dev))[:, None, :, None]
        pick["traj"] = pick["traj"].gather(2, at.expand(-1, traj.shape[1], -1, 4)).clone()
        # Shifted by up to four pixels, so that no scene comes twice.
        pick["traj"][..., :2] += (torch.rand(batch, traj.shape[1], 1, 2, device=dev) - 0.5) * 8
        pick["phase"] = torch.rand(batch, device=dev)
        return render.draw(pick, width, height)


def differences(e):
    return e[..., :, 1:] - e[..., :, :-1], e[..., 1:, :] - e[..., :-1, :]


def make_loss(net, pool, trainer_knobs, batch, weight, shapes=SHAPES):
    def loss(key):
        w, h, frames, share = shapes[key]
        with torch.no_grad():
            x, mask = pool.draw(w, h, frames, max(1, round(batch * share)))
        k = trainer_knobs
        mean, logvar = net.encode_moments(x)
        std = mean.detach().std((0, 2, 3, 4), keepdim=True)
        # A share of the latents gets extra noise, so that decoding forgives a denoiser's errors.
        extra = torch.rand(x.shape[0], 1, 1, 1, 1, device=x.device)
        extra = (extra * 2 - 1).clamp(min=0) * k["noise"] * std
        sigma = (0.5 * logvar).exp()
        z = mean + torch.randn_like(mean) * (sigma * sigma + extra * extra).sqrt()
        y = net.decode(z)
        e = y - x
        wt = 1 + (weight - 1) * mask
        wt = wt / wt.mean()
        gx, gy = differences(e)
        recon = (wt * (e.abs() + 2 * e * e)).mean()
        edges = (wt[..., 1:] * gx.abs()).mean() + (wt[..., 1:, :] * gy.abs()).mean()
        kl = 0.5 * (mean * mean + logvar.exp() - 1 - logvar).mean()
        total = recon + 0.5 * edges + k["kl"] * kl
        with torch.no_grad():
            d2 = e.detach() ** 2
            psnr = -10 * torch.log10(d2.mean((1, 2, 3, 4)) / 4 + 1e-9).mean()
            on = (d2 * mask).sum() / (3 * mask.sum() + 1)
            numbers = torch.stack([psnr, -10 * torch.log10(on / 4 + 1e-9), kl.detach(),
                                   (sigma.detach().mean((0, 2, 3, 4), keepdim=True)
                                    / (std + 1e-6)).mean(), std.mean()])
        return total, numbers
    return loss


def psnr(x, y):
    """Per clip, after clamping: decibels of 8-bit range"""
    e = (x.clamp(-1, 1) - y.clamp(-1, 1)).double() ** 2
    return -10 * torch.log10(e.flatten(1).mean(1) / 4 + 1e-12)


@torch.no_grad()
def evaluate(net, device, count, frames=33, width=128, height=128, seed=777, batch=4):
    """Reconstruction of unseen clips -> dict, originals, reconstructions"""
    rng = np.random.default_rng(seed)
    # Half from the combinations that training never shows.
    combos = np.argwhere(scene.HELD_OUT)
    a = scene.sample(rng, count - count // 2, 33, width, height)
    b = scene.sample(rng, count // 2, 33, width, height,
                     combos=combos[rng.permutation(len(combos))[:max(count // 2, 0)]])
    table = scene.concat([a, b])
    t = render.to_device(table, device)
    rows, objs, keep = [], [], []
    for i in range(0, count, batch):
        x, mask = render.draw({k: v[i:i + batch] for k, v in t.items()}, width, height,
                              first=0, frames=frames)
        x = (((x + 1) * 127.5).round() / 127.5) - 1
        y = net.decode(net.encode_moments(x)[0])
        rows.append(psnr(x, y))
        e = (x - y.clamp(-1, 1)) ** 2
        objs.append(-10 * torch.log10((e * mask).flatten(1).sum(1) / (3 * mask.flatten(1).sum(1)) / 4))
        if len(keep) < 2:
            keep.append((x[:4].cpu(), y[:4].cpu()))
    p, o = torch.cat(rows), torch.cat(objs)
    r = dict(psnr=p.mean().item(), worst=p.min().item(), objects=o.mean().item(), clips=count)
    return r, torch.cat([k[0] for k in keep]), torch.cat([k[1] for k in keep])


@torch.no_grad()
def latent_statistics(net, pool, batches, batch, shape):
    zs = []
    for _ in range(batches):
        x, _ = pool.draw(*shape[:3], batch)
        zs.append(net.encode_moments(x)[0])
    z = torch.cat(zs)
    return dict(mean=z.mean().item(), std=z.std().item(),
                channels=[round(v, 5) for v in z.std((0, 2, 3, 4)).tolist()],
                channel_means=[round(v, 5) for v in z.mean((0, 2, 3, 4)).tolist()])


def choose(vae, device, log, wanted, batch=4):
    """The fastest way to run the network here, measured and compared with the module itself."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    ways = {}
    if wanted in ("auto", "fast"):
        ways["fast"] = fastvae.Fast(vae, dtype)
    if wanted in ("auto", "plain-last"):
        ways["plain-last"] = fastvae.Plain(vae, dtype, True)
    if wanted == "plain":
        ways["plain"] = fastvae.Plain(vae, dtype, False)
    if device.type != "cuda":
        return next(iter(ways.values())), next(iter(ways))
    try:
        fastvae.use_kernels(True)
    except Exception as e:
        log("no Triton kernels:", e)
    x = torch.rand(batch, 3, 33, 128, 128, device=device) * 2 - 1
    times, grads = {}, {}
    queue = list(ways)
    for name in queue:                  # grows by one when the kernels fail
        net = ways[name]
        try:
            torch.backends.cudnn.benchmark = name == "fast"
            for i in range(4):
                if i == 2:
                    torch.cuda.synchronize()
                    t = time.time()
                vae.zero_grad(set_to_none=True)
                mean, logvar = net.encode_moments(x)
                y = net.decode(mean)
                ((y - x) ** 2).mean().backward()
            torch.cuda.synchronize()
            times[name] = (time.time() - t) / 2
            grads[name] = torch.cat([p.grad.flatten() for p in vae.parameters() if p.grad is not None])
            log(f"{name}: {1000 * times[name] / batch:.1f} ms a clip, eager, "
                f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
        except Exception as e:
            log(f"{name} does not run: {type(e).__name__}: {str(e)[:400]}")
            if name == "fast" and fastvae._kernels is not None:
                log("without its kernels then")
                fastvae.use_kernels(False)
                queue.append(name)
    torch.backends.cudnn.benchmark = True
    vae.zero_grad(set_to_none=True)
    if len(grads) == 2:
        a, b = grads["fast"], grads["plain-last"]
        log(f"gradients agree to cosine {F.cosine_similarity(a, b, 0).item():.5f}, "
            f"size ratio {(a.norm() / b.norm()).item():.4f}")
        if not F.cosine_similarity(a, b, 0) > 0.95:
            log("the fast way is WRONG here, not used")
            times.pop("fast")
    best = min(times, key=times.get)
    torch.cuda.reset_peak_memory_stats()
    return ways[best], best


def save_sheet(path, x, y):
    from PIL import Image
    a, b = render.to_uint8(x), render.to_uint8(y)
    rows = np.stack([v for pair in zip(a, b) for v in pair])
    Image.fromarray(render.contact_sheet(rows)).save(path)


def new_vae(config, device, seed):
    torch.manual_seed(seed)
    vae = VAE(VAEConfig.from_dict(config)).to(device)
    with torch.no_grad():
        # A posterior that starts narrow: its noise would otherwise drown the signal.
        c = config["latent_channels"]
        vae.quant_conv.weight[c:] *= 0.1
        vae.quant_conv.bias[c:] = -6.0
        # Residual branches start small, so that depth does not hurt at first.
        for m in vae.modules():
            if hasattr(m, "conv2"):
                m.conv2.conv.weight *= 0.3
    return vae


@torch.no_grad()
def level_latents(vae, pool, shape):
    """Scales the encoder's last layer so that each latent channel starts with unit deviation.

    Otherwise the latents start an order of magnitude below the posterior's noise.
    """
    x, _ = pool.draw(*shape[:3], 16)
    c = vae.cfg.latent_channels
    mean = fastvae.Fast(vae).encode_moments(x)[0]
    m, s = mean.mean((0, 2, 3, 4)), mean.std((0, 2, 3, 4)) + 1e-4
    vae.quant_conv.weight[:c] /= s[:, None, None, None, None]
    vae.quant_conv.bias[:c] = (vae.quant_conv.bias[:c] - m) / s


@torch.no_grad()
def normalise(vae, mean, std):
    """Rewrites the 1x1x1 convolutions around the latent so that each of its channels has mean 0
    and deviation 1; what is decoded does not change.  (scale_factor and shift_factor are one
    number for all channels, which is too little: channels differ.)"""
    c = vae.cfg.latent_channels
    q, p = vae.quant_conv, vae.post_quant_conv
    m = torch.tensor(mean, device=q.weight.device)
    s = torch.tensor(std, device=q.weight.device)
    s = torch.maximum(s, 0.25 * s.median())             # a channel that means nothing stays small
    q.weight[:c] /= s[:, None, None, None, None]
    q.bias[:c] = (q.bias[:c] - m) / s
    q.bias[c:] -= 2 * s.log()
    p.bias += (p.weight[:, :, 0, 0, 0] * m).sum(1)
    p.weight *= s[None, :, None, None, None]


def finished(folder, device):
    """The autoencoder as it ships: averaged weights, normalised latents, rounded to f16."""
    with open(os.path.join(folder, "vae-state.json"), encoding="utf-8") as f:
        state = json.load(f)
    vae = VAE(VAEConfig.from_dict(state["config"]))
    load_average(vae, folder, "vae", half=False)
    normalise(vae, state["latents"]["channel_means"], state["latents"]["channels"])
    for p in vae.parameters():
        p.data = p.data.half().float()
    return vae.to(device).eval()


def run(a):
    device = device_of(a.device)
    os.makedirs(a.out, exist_ok=True)
    log = Log(os.path.join(a.out, "vae-log.txt"), False)
    budget = Budget(a.minutes, reserve=a.reserve)
    config = dict(TINY if a.tiny else CONFIG)
    vae = new_vae(config, device, a.seed)
    log(f"VAE {sum(p.numel() for p in vae.parameters()) / 1e6:.3f} M parameters, {device}, "
        f"torch {torch.__version__}")
    net, way = choose(vae, device, log, a.backend, a.batch)
    log("runs as:", way)

    t = time.time()
    shapes = TINY_SHAPES if a.tiny else SHAPES
    pool = Pool(a.pool, a.seed + (1 if a.resume else 0), device, shapes)
    log(f"{a.pool} scenes in {time.time() - t:.1f} s")
    torch.manual_seed(a.seed + 100)

    if not a.resume:
        level_latents(vae, pool, shapes["picture"])

    def muon(name, p):
        """Muon steps all matrices but the ones at either end, where single rows matter."""
        return a.optim == "muon" and p.ndim > 1 and "conv_in" not in name \
            and "decoder.conv_out" not in name

    knobs = {}
    trainer = Trainer(vae, make_loss(net, pool, knobs, a.batch, a.object_weight, shapes), device, log,
                      lr=a.lr, betas=(0.9, 0.99), decay=a.decay, ema=a.ema,
                      knobs=("kl", "noise"), graphs=not a.no_graphs, muon=muon)
    knobs.update(trainer.knobs)
    done = 0.0                          # how far the earlier runs came, 0 .. 1
    if a.resume:
        extra = trainer.load(a.resume, "vae")
        trainer.steps = max(trainer.steps, 1)
        done = 1.0
        log(f"resumed at step {trainer.steps}:", {k: extra[k] for k in ("evaluation",) if k in extra})
    if a.pictures is None:
        a.pictures = 0.0 if a.resume else 0.10
    if a.shorts is None:
        a.shorts = 0.0 if a.resume else 0.20

    def finish(final):
        """Averaged weights, rounded to f16, through the module itself."""
        t = time.time()
        test = VAE(VAEConfig.from_dict(config)).to(device).eval()
        trainer.save(a.out, "vae", dict(config=config, evaluation={}))
        load_average(test, a.out, "vae", half=False)
        extra = dict(config=config, backend=way, seed=a.seed)
        if final:
            count = 2 if a.tiny else 64
            # Exact arithmetic for the numbers that will be quoted.
            stats = latent_statistics(fastvae.Fast(test, torch.float32), pool, 1 if a.tiny else 16,
                                      2 if a.tiny else 16, shapes["clip"])
            log("latents:", stats)
            extra["latents"] = stats
            trainer.save(a.out, "vae", extra)
            test = finished(a.out, device)
            fast = fastvae.Fast(test, torch.float32)
            tf32 = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cudnn.benchmark = False
            w, h, frames, _ = shapes["clip"]
            ww, wh, _, _ = shapes["wide"]
            r, x, y = evaluate(fast, device, count, frames, w, h)
            extra["evaluation"] = r
            log(f"clips {frames}x{h}x{w}, averaged weights in f16:", r)
            save_sheet(os.path.join(a.out, "vae-sheet.png"), x[:6], y[:6])
            r1, _, _ = evaluate(fast, device, count, 1, w, h)
            log("pictures:", r1)
            r2, _, _ = evaluate(fast, device, count // 2, frames, ww, wh)
            log(f"{ww}x{wh}:", r2)
            extra.update(pictures=r1, wide=r2)
            plain = fastvae.Plain(test)
            one, _, ys = evaluate(plain, device, 2, frames, w, h)
            two, _, yt = evaluate(fast, device, 2, frames, w, h)
            log(f"module itself against the fast way: {one['psnr']:.3f} and {two['psnr']:.3f} dB, "
                f"largest difference {(ys - yt).abs().max().item():.2e}")
            torch.backends.cudnn.allow_tf32 = tf32
            log("normalised:", latent_statistics(fast, pool, 1 if a.tiny else 8, 2 if a.tiny else 16,
                                                 shapes["clip"]))
            torch.backends.cudnn.benchmark = True
        else:
            w, h, frames, _ = shapes["clip"]
            r, _, _ = evaluate(type(net)(test, net.dtype), device, 2 if a.tiny else 16, frames, w, h)
            log("so far:", r)
            extra["evaluation"] = r
        trainer.save(a.out, "vae", extra)
        log(f"saved in {time.time() - t:.1f} s")

    budget.mark()
    last_log, last_save, n, phase = time.time(), time.time(), 0, ""
    t_log, n_log = time.time(), 0
    while True:
        f = budget.fraction()
        if f >= 1 or (a.steps and n >= a.steps):
            break
        if a.steps:
            f = n / a.steps
        if f < a.pictures:
            key, now = "picture", "pictures"
        elif f < a.pictures + a.shorts:
            key, now = ("short", "short clips") if n % 8 else ("picture", "short clips")
        else:
            key, now = CYCLE[n % len(CYCLE)], "clips"
        if now != phase:
            phase = now
            log("phase:", phase)
        lr = trainer.peak * cosine(f, a.end_lr) * min(1.0, (n + 1) / a.warmup)
        # Resumed runs keep the final KL weight; a first run raises it in its second half.
        ramp = 1.0 if done else min(max((f - 0.3) / 0.4, 0.0), 1.0)
        kl = 10 ** (-6 + ramp * (np.log10(a.kl) + 6))
        noise = a.noise * (1.0 if done else min(max((f - 0.4) / 0.3, 0.0), 1.0))
        trainer.step(key, lr, kl=kl, noise=noise)
        n += 1
        n_log += 1
        if n % 25 == 0 and time.time() - last_log > (2 if a.tiny else 10):
            r = trainer.numbers()
            ms = 1000 * (time.time() - t_log) / n_log
            for k, v in r.items():
                log(f"{100 * f:5.1f} % step {n} {ms:.1f} ms lr {lr:.2e} kl-weight {kl:.1e} {k}: "
                    + " ".join(f"{name} {x:.4g}" for name, x in zip(LOGGED, v)))
            last_log, t_log, n_log = time.time(), time.time(), 0
        if time.time() - last_save > a.save_every:
            finish(False)
            last_save = t_log = time.time()
            n_log = 0
    if device.type == "cuda":
        torch.cuda.synchronize()
    log(f"{n} steps done, {trainer.steps} in all")
    finish(True)
    log("done")


def bench(a):
    """Times step variants; prints one line each."""
    device = device_of(a.device)
    os.makedirs(a.out, exist_ok=True)
    log = Log(os.path.join(a.out, "bench-log.txt"), False)
    config = dict(TINY if a.tiny else CONFIG)
    vae = new_vae(config, device, 1)
    shapes = TINY_SHAPES if a.tiny else SHAPES
    pool = Pool(200 if a.tiny else 4000, 1, device, shapes)
    net, way = choose(vae, device, log, a.backend)
    results = {}
    for batch in ((1,) if a.tiny else (4, 8, 16)):
        knobs = {}
        tr = Trainer(vae, make_loss(net, pool, knobs, batch, 5.0, shapes), device, log, 1e-4,
                     knobs=("kl", "noise"), muon=lambda n, p: p.ndim > 1)
        knobs.update(tr.knobs)
        for key in (("picture", "short") if a.tiny else ("picture", "clip")):
            tr.step(key, 1e-5)
            if device.type == "cuda":
                torch.cuda.synchronize()
            t = time.time()
            reps = 2 if a.tiny else 10
            for _ in range(reps):
                tr.step(key, 1e-5)
            tr.numbers()
            results[f"{key} {batch}"] = 1000 * (time.time() - t) / reps
            log(f"{way} {key} batch {round(batch * SHAPES[key][3])}: "
                f"{results[f'{key} {batch}']:.1f} ms a step")
        if device.type == "cuda":
            del tr
            torch.cuda.empty_cache()
    print(json.dumps(results))
