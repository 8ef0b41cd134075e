# SPDX-License-Identifier: LGPL-2.1-or-later
"""Stage 1b: the text towers, on captions alone.

A denoiser's loss says little about single words, and towers that start from nothing do not
learn from it which word belongs to which.  So they learn that first: what a caption says of
its scene (captions.LABELS) is read off T5's states by one learned query a question, and off
CLIP's pooled vector linearly.  Those heads are thrown away.
"""
import multiprocessing
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import captions
import model
import scene
import vocab
from common import Budget, Log, Trainer, device_of

from opensora_ref import CLIPText, T5Encoder

CHUNK = 2000
TEST_SEED = 77
NAMES = tuple(captions.LABELS) + ("hues",)
CLASSES = tuple(captions.LABELS.values())

# Wordings that captions.py does not know, to see how far the towers reach beyond it.
ELSEWHERE = (
    "{c} {s} on {g}, it is going {m}", "we see a {c} {s}; it moves {m} and the background is {g}",
    "the background is {g} and the {c} {s} moves {m}", "{c} {s}, {g} background, moving {m}",
    "a {s} in {c} slides {m} with a {g} background behind it",
    "{m}-moving {c} {s} on a {g} background", "show me a {c} {s} which moves {m} over a {g} backdrop",
    "against {g}, one {c} {s} travels {m}")

_tokenizers = None                  # of a worker process


def _tokenize(folder, text):
    global _tokenizers
    if _tokenizers is None:
        _tokenizers = vocab.Tokenizers(folder)
    return _tokenizers(text), max(len(i) + k for i, k in zip(_tokenizers.ids(text), (1, 2)))


def chunk(job):
    """-> T5 ids, CLIP ids, labels, lengths without padding, texts (of tests only)"""
    folder, seed, index, count, test = job
    combos = None
    rng = np.random.default_rng([seed, 7, index])
    if test:
        held = np.argwhere(scene.HELD_OUT)
        combos = held[rng.integers(0, len(held), count)]
    table = scene.sample(rng, count, 33, two=0.0 if test == 1 else 0.22, combos=combos)
    words = random.Random(f"text {seed} {index}")
    ids, labels, lengths, texts = [], [], [], []
    for i in range(count):
        clip, said = captions.describe(table, i), {}
        text = captions.caption(clip, words, said)
        text = captions.decorated(text, clip["score"], words, said=said)
        both, length = _tokenize(folder, text)
        ids.append(both)
        lengths.append(length)
        labels.append(captions.labels(table, i, clip, said))
        texts.append(text if test else "")
    return (np.array([x[0] for x in ids], np.int16), np.array([x[1] for x in ids], np.int16),
            np.array(labels, np.int8), np.array(lengths, np.int16), texts)


def captions_of(pool, folder, seed, count, test=0):
    jobs = [(folder, seed, i, min(CHUNK, count - i * CHUNK), test) for i in range(-(-count // CHUNK))]
    parts = list((pool.imap if pool else map)(chunk, jobs))
    return [np.concatenate([p[k] for p in parts]) for k in range(4)], [t for p in parts for t in p[4]]


def elsewhere(folder, count=400):
    """Ids and labels (colour, shape, motion, c0 only) of plain scenes in foreign wordings"""
    rng, moves = random.Random(3), scene.MOTIONS[:4]
    ids, labels, texts = [], [], []
    names = list(captions.LABELS)
    for i in range(count):
        c, s, g, m = (rng.choice(v) for v in (scene.COLOURS, scene.SHAPES, scene.COLOURS, moves))
        if c == g:
            continue
        text = ELSEWHERE[i % len(ELSEWHERE)].format(c=c, s=s, g=g, m=m)
        texts.append(captions.decorate(text))
        ids.append(_tokenize(folder, texts[-1])[0])
        row = [-1] * (len(names) + captions.HUES)
        for k, v in (("colour", scene.COLOURS.index(c)), ("shape", scene.SHAPES.index(s)),
                     ("c0", scene.COLOURS.index(g)), ("motion", moves.index(m)), ("count", 0)):
            row[names.index(k)] = v
        labels.append(row)
    return [np.array([x[k] for x in ids], np.int16) for k in (0, 1)] + [np.array(labels, np.int8)], texts


class Towers(nn.Module):
    """Both towers with the heads they are taught by"""

    def __init__(self, t5, clip):
        super().__init__()
        self.t5, self.clip = T5Encoder(t5), CLIPText(clip)
        d, out = t5.d_model, sum(CLASSES) + captions.HUES
        self.query = nn.Parameter(torch.randn(len(NAMES), d) * d ** -0.5)
        self.key = nn.Linear(d, d, bias=False)
        self.read = nn.Parameter(torch.randn(d, out) * 0.02)
        self.read_bias = nn.Parameter(torch.zeros(out))
        self.pooled = nn.Linear(clip.hidden_size, out)
        sizes = CLASSES + (captions.HUES,)
        question = torch.repeat_interleave(torch.arange(len(NAMES)), torch.tensor(sizes))
        self.register_buffer("hot", F.one_hot(question, len(NAMES)).float(), persistent=False)
        model.init_text(self.t5, self.clip)

    def forward(self, a, b):
        """-> logits from T5's states, from CLIP's vector, and the states and vector themselves"""
        x, y = model.text_states(self.t5, self.clip, a, b)
        share = (self.query @ self.key(x).mT).softmax(-1)            # B, questions, L
        answers = share @ x                                         # B, questions, d
        # Each output reads the answer to its own question.
        every = answers @ self.read                                 # B, questions, outputs
        return (every * self.hot.T).sum(1) + self.read_bias, self.pooled(y), x, y


def errors(logits, labels):
    """-> sum of the questions' mean losses, [B, questions] right (1), wrong (0), not asked (-1)"""
    total, right, at = 0.0, [], 0
    for i, n in enumerate(CLASSES):
        want, part = labels[:, i], logits[:, at:at + n]
        asked = want >= 0
        each = F.cross_entropy(part, want.clamp(min=0), reduction="none")
        total = total + (each * asked).sum() / asked.sum().clamp(min=1)
        right.append(torch.where(asked, (part.argmax(1) == want).long(), -1))
        at += n
    want, part = labels[:, len(CLASSES):], logits[:, at:]
    asked = want[:, 0] >= 0
    each = F.binary_cross_entropy_with_logits(part, want.clamp(min=0).float(), reduction="none").sum(1)
    total = total + (each * asked).sum() / asked.sum().clamp(min=1)
    right.append(torch.where(asked, ((part > 0) == (want > 0)).all(1).long(), -1))
    return total, torch.stack(right, 1)


@torch.no_grad()
def measure(net, data, device, batch=500):
    """-> accuracy of each question from T5 and from CLIP, rows [captions, questions] of both"""
    rights = [[], []]
    for i in range(0, len(data[0]), batch):
        a, b, l = (torch.from_numpy(v[i:i + batch]).to(device).long() for v in data[:3])
        out = net(a, b)
        for k in (0, 1):
            rights[k].append(errors(out[k], l)[1].cpu())
    rights = [torch.cat(r) for r in rights]
    shares = [[(r[:, i] == 1).sum().item() / max(1, (r[:, i] >= 0).sum().item()) if (r[:, i] >= 0).any()
               else None for i in range(len(NAMES))] for r in rights]
    return shares, rights


def load(folder, net):
    """Trained towers into a Net"""
    state = load_file(os.path.join(folder, "text.safetensors"))
    for part in ("t5", "clip"):
        getattr(net, part).load_state_dict({k[len(part) + 1:]: v for k, v in state.items()
                                            if k.startswith(part + ".")})
    return net


def run(a):
    budget = Budget(a.minutes, reserve=a.reserve)
    os.makedirs(a.out, exist_ok=True)
    log = Log(os.path.join(a.out, "text-log.txt"), False)
    processes = max(1, min(12, (os.cpu_count() or 2) - 1))
    pool = multiprocessing.get_context("fork").Pool(processes)
    count = 4000 if a.tiny else a.captions
    train, _ = captions_of(pool, model.FOLDER, a.seed, count)
    tests = {"held out": captions_of(pool, model.FOLDER, TEST_SEED, 3000, test=1)[0],
             "two objects": captions_of(pool, model.FOLDER, TEST_SEED + 1, 3000)[0],
             "elsewhere": elsewhere(model.FOLDER)[0]}
    pool.terminate()
    device = device_of(a.device)
    if device.type == "cpu":
        torch.set_num_threads(a.threads)
    tokenizers = vocab.Tokenizers(model.FOLDER)
    torch.manual_seed(a.seed)
    _, t5, clip = model.configs(tokenizers)
    net = Towers(t5, clip).to(device)
    log(f"{len(train[0])} captions, T5 {model.parameters(net.t5) / 1e6:.3f} M, "
        f"CLIP {model.parameters(net.clip) / 1e6:.3f} M parameters, {device}")

    # Short captions cost less while most is learnt; the end trains on what inference sees.
    ids = [torch.from_numpy(v).to(device) for v in train[:3]]
    long = vocab.T5_LENGTH
    rows = {n: torch.from_numpy(np.flatnonzero((train[3] > low) & (train[3] <= n))).to(device)
            for low, n in ((0, 24), (16, 40))}
    rows[long] = torch.arange(len(train[0]), device=device)

    def loss(key):
        pick = rows[key][torch.randint(len(rows[key]), (a.batch,), device=device)]
        x, y, l = (v.index_select(0, pick).long() for v in ids)
        with torch.autocast(device.type, torch.bfloat16):
            u, v, states, vector = net(x[:, :key], y[:, :key])
        (e1, r1), (e2, r2) = (errors(z.float(), l) for z in (u, v))
        shares = [(r == 1).sum(0) / (r >= 0).sum(0).clamp(min=1) for r in (r1, r2)]
        return e1 + e2, torch.stack([e1, e2] + [s.mean() for s in shares]
                                    + [states.std(), vector.std()]).detach()

    def muon(name, p):
        return p.ndim > 1 and not any(s in name for s in (
            "embedding", "shared", "relative_attention_bias", "query", "read", "pooled"))

    trainer = Trainer(net, loss, device, log, lr=a.lr, betas=(0.9, 0.98), decay=0.0,
                      ema=a.ema, graphs=not a.no_graphs, muon=muon)

    def towers():
        averaged = {n: e for n, e in zip(trainer.named, trainer.ema)}
        return {n: e.detach().cpu().clone().contiguous() for n, e in averaged.items()
                if n.startswith(("t5.", "clip."))}

    def finish():
        kept = [p.detach().clone() for p in trainer.params]
        for p, e in zip(trainer.params, trainer.ema):
            p.data.copy_(e.half().float())
        for name, data in tests.items():
            shares, rights = measure(net, data, device)
            for k, tower in enumerate(("T5", "CLIP")):
                log(f"{name}, {tower}:", ", ".join(
                    f"{n} {100 * s:.2f}" for n, s in zip(NAMES, shares[k]) if s is not None),
                    f"| all {100 * (rights[k] != 0).all(1).float().mean().item():.2f}")
        some = [torch.from_numpy(v[:500]).to(device).long() for v in tests["held out"][:2]]
        with torch.no_grad():
            x, y = model.text_states(net.t5, net.clip, *some)
        log(f"deviation of T5's states {x.std().item():.3f} (most {x.abs().max().item():.2f}), of CLIP's "
            f"vector {y.std().item():.3f} (most {y.abs().max().item():.2f})")
        save_file(towers(), os.path.join(a.out, "text.safetensors"), {"format": "pt"})
        os.chmod(os.path.join(a.out, "text.safetensors"), 0o644)
        for p, k in zip(trainer.params, kept):
            p.data.copy_(k)

    budget.mark()
    n, n_log, t_log, t_save = 0, 0, time.time(), time.time()
    while True:
        f = n / a.steps if a.steps else budget.fraction()
        if f >= 1:
            break
        key = (24, 40)[n % 2] if f < 0.6 else long if f > 0.9 or n % 2 else 40
        lr = a.lr * min(1.0, (n + 1) / a.warmup) * (1.0 if f < 0.4 else max(0.01, (1 - f) / 0.6))
        trainer.step(key, lr)
        n += 1
        n_log += 1
        if n % 10 == 0 and time.time() - t_log > (10 if device.type == "cpu" else 3):
            for k, v in trainer.numbers().items():
                log(f"{100 * f:5.1f} % step {n} {1000 * (time.time() - t_log) / n_log:.1f} ms lr {lr:.2e} "
                    f"length {k}: " + " ".join(f"{m} {x:.4g}" for m, x in zip(
                        ("loss", "norm", "T5", "CLIP", "right", "right", "std", "std"), v)))
            n_log, t_log = 0, time.time()
        if time.time() - t_save > a.save_every:
            finish()
            t_save = time.time()
    log(f"{n} steps of {a.batch}")
    finish()
    log("done")
