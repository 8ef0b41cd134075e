# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stage 2: the denoiser, on encoded clips, with the text towers of stage 1b.

Rectified flow: x_t = (1 - t) x_0 + t noise, and the network says noise - x_0.  One network
learns all three predictions that guidance combines: prompt and reference picture, reference
alone, neither.
"""
import json
import os
import time

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import clips
import model
import vocab
from common import Budget, Log, Trainer, device_of

from opensora_ref import MMDiTConfig

CYCLE = ("clip", "clip", "clip", "clip", "picture", "clip", "clip", "clip", "wide", "clip", "clip",
         "clip", "half", "clip", "clip", "clip", "clip", "tall", "clip", "clip")
BINS = 4
LOGGED = ("loss", "norm") + tuple(f"t<{(i + 1) / BINS:g}" for i in range(BINS)) \
    + ("t>0.97", "no text", "with frame", "objects")

HEAD, TAIL, LOOP = 0.30, 0.03, 0.04         # shares of clips with reference frames
NO_TEXT = 0.08
# Shares of times: evenly, near the sampler's middle, where shapes form, and at the very start,
# where there is nothing but the text to go by.  The rest are where the sampler takes its steps.
EVEN, MIDDLE, FORMING, START = 0.1, 0.15, 0.25, 0.1
FORMING_RANGE = 0.8, 0.97
START_WIDTH = 0.04
# Tokens that show an object count more below time KNOWN, not above UNKNOWN, where its place is
# still open: the best answer there would be an object in too many places.
KNOWN, UNKNOWN = 0.93, 0.985
REFERENCE_NOISE = 0.02                      # a user's picture is not quite one of ours


# ---- checkpoints: no file above 16 MB ----

def _split(tensors):
    """Two parts of about the same size"""
    total, sofar, parts = sum(t.numel() for t in tensors.values()), 0, ({}, {})
    for n, t in tensors.items():
        parts[sofar * 2 >= total][n] = t
        sofar += t.numel()
    return parts


class DenoiserTrainer(Trainer):
    """Saves weights in f32 in two files, the average as its f16 distance from them, moments
    in bf16, and what else there is as metadata."""

    def save(self, folder, name, extra):
        everything = dict(self.module.named_parameters())

        def cpu(tensors, dtype):
            return {n: t.detach().to("cpu", dtype).contiguous() for n, t in tensors.items()}
        m, v = self._moments()
        for i, part in enumerate(_split(everything)):
            save_file(cpu(part, torch.float32), os.path.join(folder, f"{name}-model-{i + 1}.safetensors"))
        apart = {n: a - p.detach() for (n, p), a in zip(self.named.items(), self.ema)}
        save_file(cpu(apart, torch.float16), os.path.join(folder, f"{name}-average.safetensors"))
        save_file(cpu(m, torch.bfloat16), os.path.join(folder, f"{name}-m.safetensors"))
        save_file(cpu(v, torch.bfloat16), os.path.join(folder, f"{name}-v.safetensors"),
                  {"state": json.dumps(dict(extra, steps=self.steps))})

    def load(self, folder, name):
        weights, average, extra = read(folder, name)
        m, v = (load_file(os.path.join(folder, f"{name}-{x}.safetensors")) for x in "mv")
        with torch.no_grad():
            for n, p in self.module.named_parameters():
                p.copy_(weights[n])
            for n, a in zip(self.named, self.ema):
                a.copy_(average[n])
        self.steps = extra["steps"]
        on = self.device if self.device.type == "cuda" else "cpu"
        if self.muon is not None:
            for n, b in zip(self.muon_names, self.muon.buffers):
                if n in m:
                    b.copy_(m[n])
        muon = set(self.muon_names)
        for n in v:
            if n not in muon and n in self.named:
                p = self.named[n]
                self.opt.state[p] = dict(step=torch.tensor(float(self.steps), device=on),
                                         exp_avg=m[n].to(p), exp_avg_sq=v[n].to(p))
        return extra


    def start_from(self, weights):
        """Weights without moments, for the average too"""
        with torch.no_grad():
            for n, p in self.module.named_parameters():
                p.copy_(weights[n])
            for n, a in zip(self.named, self.ema):
                a.copy_(weights[n])


def exported(folder):
    """-> weights of the denoiser and the towers in a model folder"""
    files = {"mmdit": "mmdit.safetensors", "t5": "t5/model.safetensors", "clip": "clip/model.safetensors"}
    return {f"{part}.{n}": w.float() for part, file in files.items()
            for n, w in load_file(os.path.join(folder, file)).items()}


def read(folder, name="denoiser"):
    """-> weights, averaged weights, what save() got as `extra`"""
    def path(part):
        return os.path.join(folder, f"{name}-{part}.safetensors")
    weights = {**load_file(path("model-1")), **load_file(path("model-2"))}
    apart = load_file(path("average"))
    with safe_open(path("v"), "pt") as f:
        extra = json.loads(f.metadata()["state"])
    return weights, {n: w + apart[n].float() if n in apart else w for n, w in weights.items()}, extra


def finished(folder, tokenizers, device):
    """The network as it ships: averaged weights rounded to f16"""
    _, average, extra = read(folder)
    _, t5, clip = model.configs(tokenizers)
    t5.num_layers = model.layers(average, "t5.encoder.block.")
    clip.num_hidden_layers = model.layers(average, "clip.text_model.encoder.layers.")
    net = model.Net(MMDiTConfig.from_dict(extra["config"]), t5, clip)
    net.load_state_dict({n: a.half().float() for n, a in average.items()})
    return net.to(device).eval()


def averaged(trainer, net):
    """The same from a trainer's memory, into another network"""
    average = dict(zip(trainer.named, trainer.ema))
    whole = dict(trainer.module.named_parameters())
    for n, p in net.named_parameters():
        p.data.copy_(average.get(n, whole[n]).half())
    return net


# ---- training ----

def make_loss(net, pool, shapes, batches, tokenizers, device, weight, compiled=("clip",)):
    """weight: of tokens that show an object, against 1 of others"""
    nothing = [torch.tensor(v, device=device) for v in tokenizers("")]
    grids = {name: pool.grid(name, shapes) for name in batches}
    alphas = {name: model.alpha(g[1] * g[2], g[0]) for name, g in grids.items()}
    bf16 = device.type == "cuda"
    learns_text = any(p.requires_grad for m in (net.t5, net.clip) for p in m.parameters())

    def loss(key):
        grid, alpha, n = grids[key], alphas[key], batches[key]
        frame = grid[1] * grid[2]
        with torch.no_grad():
            x, head, tail, near, a, b = pool.draw(key, n)
            drop = torch.rand(n, 1, device=device) < NO_TEXT
            a, b = torch.where(drop, nothing[0], a), torch.where(drop, nothing[1], b)
            # Strata keep a batch's times apart; its rows are in random order anyway.
            u = (torch.arange(n, device=device) + torch.rand(n, device=device)) / n
            kind = torch.rand(n, device=device)
            middle = torch.sigmoid(2 ** 0.5 * torch.erfinv((2 * u - 1).clamp(-0.9999, 0.9999)))
            s = torch.where(kind < MIDDLE, middle, u)
            t = alpha * s / (1 + (alpha - 1) * s)
            t = torch.where(kind > 1 - EVEN, u, t)
            t = torch.where((kind > 1 - EVEN - START) & (kind <= 1 - EVEN), 1 - START_WIDTH * u, t)
            low, high = FORMING_RANGE
            t = torch.where((kind > MIDDLE) & (kind <= MIDDLE + FORMING), low + (high - low) * u, t)
            noise = torch.randn_like(x)
            target = noise - x
            xt = torch.lerp(x, noise, t[:, None, None])
            cond = torch.zeros(n, x.shape[1], x.shape[2] + 4, device=device)
            with_frame = torch.zeros(n, device=device)
            if grid[0] > 1:
                u = torch.rand(n, device=device)
                first = ((u < HEAD) | ((u > HEAD + TAIL) & (u < HEAD + TAIL + LOOP))).float()
                last = ((u > HEAD) & (u < HEAD + TAIL + LOOP)).float()
                for on, ref, at in ((first, head, slice(0, frame)),
                                    (last, tail, slice(x.shape[1] - frame, None))):
                    ref = ref + REFERENCE_NOISE * torch.randn_like(ref)
                    cond[:, at, :4] = on[:, None, None]
                    cond[:, at, 4:] = ref * on[:, None, None]
                with_frame = first
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            with torch.set_grad_enabled(learns_text and torch.is_grad_enabled()):
                txt, vec = net.text(a, b)
            y = net(xt, grid, txt, t, vec, cond, key in compiled)
        token = ((y - target) ** 2).mean(2)
        known = ((UNKNOWN - t) / (UNKNOWN - KNOWN)).clamp(0, 1)
        each = (token * (1 + (weight - 1) * near * known[:, None])).mean(1)
        with torch.no_grad():
            e = token.detach().mean(1)
            where = [((t * BINS).floor().clamp(max=BINS - 1) == i) for i in range(BINS)]
            where += [t > 0.97, drop[:, 0], with_frame > 0]
            numbers = [(e * m).sum() / m.sum().clamp(min=1) for m in where]
            numbers = torch.stack(numbers + [(token * near).sum() / near.sum().clamp(min=1)])
        return each.mean(), numbers
    return loss


def try_compiled(net, loss, log):
    """Compiled blocks where they work and agree; plain ones elsewhere"""
    t = time.time()
    # What starts at zero would hide every difference.
    zeros = [p for p in net.parameters() if p.count_nonzero() == 0]
    for p in zeros:
        torch.nn.init.normal_(p, std=0.02)
    try:
        def run(seed):
            torch.manual_seed(seed)
            for p in net.parameters():
                p.grad = None
            value = loss("clip")[0]
            value.backward()
            grads = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
            for p in net.parameters():
                p.grad = None
            return value.item(), torch.cat(grads)
        a, ga = run(1)
        net.compile()
        b, gb = run(1)
        same = torch.nn.functional.cosine_similarity(ga, gb, 0).item()
        log(f"compiled blocks in {time.time() - t:.1f} s: loss {b:.5f}, plain {a:.5f}, "
            f"gradients' cosine {same:.5f}")
        if abs(a - b) > 0.02 * abs(a) or not same > 0.97:
            raise ValueError("compiled blocks compute something else")
    except Exception as e:
        log(f"no compiled blocks: {type(e).__name__}: {str(e)[:600]}")
        net.double = net.single = None
    for p in net.parameters():
        p.grad = None
    for p in zeros:
        torch.nn.init.zeros_(p)


def rate(f, end, steps, warmup):
    """Constant, and over the last 40 % down along a line"""
    return min(1.0, (steps + 1) / warmup) * (1.0 if f < 0.6 else end + (1 - end) * max(1 - f, 0) / 0.4)


def run(a):
    # Before anything touches the device, since processes are forked here.
    shapes = clips.TINY_SHAPES if a.tiny else clips.SHAPES
    few = max(a.clips // 24, 8)
    counts = dict(wide=few, tall=few, half=few, clip=a.clips)
    os.makedirs(a.out, exist_ok=True)
    log = Log(os.path.join(a.out, "denoiser-log.txt"), False)
    budget = Budget(a.minutes, reserve=a.reserve)
    processes = max(1, min(12, (os.cpu_count() or 2) - 3))
    workers = clips.Workers(model.FOLDER, a.seed, shapes, counts, processes, 64 if a.tiny else clips.CHUNK)

    import train_vae
    device = device_of(a.device)
    torch.backends.cuda.matmul.allow_tf32 = True        # for Muon's matrices
    tokenizers = vocab.Tokenizers(model.FOLDER)
    vae = train_vae.finished(a.vae, device)
    net = model.new_net(tokenizers, device, a.seed, a.tiny)
    if a.text:
        import train_text
        train_text.load(a.text, net)
    if a.text_lr == 0:
        for tower in (net.t5, net.clip):
            tower.requires_grad_(False)
    for part in ("mmdit", "t5", "clip"):
        log(part, f"{model.parameters(getattr(net, part)) / 1e6:.3f} M parameters")
    log(f"{model.parameters(net) / 1e6:.3f} M in all, {device}, torch {torch.__version__}, "
        f"{processes} workers")

    pool = clips.Pool().load(a.pool, device, log)
    pool.fill(workers, clips.encoder(vae, device, log), device, shapes, counts, a.encode, log,
              8 if a.tiny else 32)
    pool.save(a.pool, log)
    z = pool.data["clip"][0][:2000].float()
    log(f"latents: mean {z.mean().item():.4f}, deviation {z.std().item():.4f}; "
        f"alone, first frame {pool.data['clip'][1][:2000].float().std().item():.4f}")
    del z
    if device.type == "cuda":
        torch.cuda.empty_cache()
    torch.manual_seed(a.seed + 1000)

    batches = {name: a.batch for name in ("clip", "wide", "tall", "half", "picture")}
    loss = make_loss(net, pool, shapes, batches, tokenizers, device, a.object_weight)
    if device.type == "cuda" and not a.no_compile:
        try_compiled(net, loss, log)

    def muon(name, p):
        """Matrices between hidden states; what is looked up or read out row by row is not one"""
        return a.optim == "muon" and p.ndim > 1 and not any(
            s in name for s in ("embedding", "shared", "_in.", "final_layer", "modulation",
                                "_mod.", "relative_attention_bias"))

    trainer = DenoiserTrainer(net, loss, device, log, lr=a.lr, betas=(0.9, 0.99), decay=a.decay,
                              ema=a.ema, graphs=not a.no_graphs, muon=muon, share=a.text_lr,
                              slow=lambda name: a.text_lr < 1 and name.startswith(("t5.", "clip.")))
    log(f"Muon steps {sum(trainer.named[n].numel() for n in trainer.muon_names) / 1e6:.3f} M of them")
    if os.path.exists(os.path.join(a.resume, "config.json")):
        trainer.start_from(exported(a.resume))
        log("goes on from the weights of an exported model")
    elif a.resume:
        extra = trainer.load(a.resume, "denoiser")
        log(f"resumed at step {trainer.steps}:", extra.get("evaluation", {}))
    test = model.Net(*model.configs(tokenizers, a.tiny)).to(device).eval()
    test.requires_grad_(False)
    net_config = net.mmdit.cfg.to_dict()

    def finish(final):
        t = time.time()
        extra = dict(config=net_config, seed=a.seed, evaluation={})
        if final:
            trainer.save(a.out, "denoiser", extra)
        import evaluate
        averaged(trainer, test)
        try:
            extra["evaluation"] = evaluate.quick(
                test, vae, tokenizers, device, a.out if final else None, log,
                count=4 if a.tiny else 64 if final else 16, steps=3 if a.tiny else 25,
                shape=shapes["clip"], mapper=workers.map)
        except Exception as e:                  # an hour's work must not hang on this
            log(f"no evaluation: {type(e).__name__}: {str(e)[:600]}")
            import traceback
            traceback.print_exc()
        trainer.save(a.out, "denoiser", extra)
        log(f"saved in {time.time() - t:.1f} s")

    # Everything is recorded before the clock of the schedule starts.
    rng = torch.get_rng_state()
    for key in dict.fromkeys(CYCLE):
        trainer.step(key, 1e-6)
    trainer.numbers()
    torch.set_rng_state(rng)
    budget.mark()
    first, last = a.span
    last_log, last_save, n = time.time(), time.time(), 0
    t_log, n_log = time.time(), 0
    while True:
        f = n / a.steps if a.steps else budget.fraction()
        if f >= 1:
            break
        f = first + (last - first) * f
        trainer.step(CYCLE[n % len(CYCLE)], trainer.peak * rate(f, a.end_lr, n, a.warmup))
        n += 1
        n_log += 1
        if n % 20 == 0 and time.time() - last_log > (2 if a.tiny else 10):
            r = trainer.numbers()
            ms = 1000 * (time.time() - t_log) / n_log
            lr = trainer.peak * rate(f, a.end_lr, n, a.warmup)
            for k, v in r.items():
                if k == "clip" or n % 500 < 20:
                    log(f"{100 * f:5.1f} % step {n} {ms:.2f} ms lr {lr:.2e} {k}: "
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
    workers.close()
    log("done")
