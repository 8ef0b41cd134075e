# SPDX-License-Identifier: LGPL-2.1-or-later
"""What every training stage needs: time budget, log, checkpoints, fast steps."""
import json
import math
import os
import sys
import time

START = time.time()                 # before the slow imports: the budget counts them too

import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from muon import Muon  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
REFERENCE = os.path.join(HERE, "..", "..", "..", "tests", "reference")
sys.path.insert(0, REFERENCE)


class Budget:
    """Wall-clock time, counted from the start of the program."""

    def __init__(self, minutes, reserve):
        self.total = minutes * 60.0
        self.reserve = min(reserve, 0.3 * self.total)
        self.begin = 0.0

    def elapsed(self):
        return time.time() - START

    def mark(self):
        """Training proper begins now (after start-up and compilation)."""
        self.begin = self.elapsed()

    def fraction(self):
        """0 .. 1 of the training time; above 1 when it is over."""
        span = max(self.total - self.reserve - self.begin, 1e-3)
        return (self.elapsed() - self.begin) / span


class Log:
    def __init__(self, path, append):
        self.file = open(path, "a" if append else "w", encoding="utf-8")

    def __call__(self, *words):
        line = f"[{time.time() - START:7.1f}] " + " ".join(str(w) for w in words)
        print(line, flush=True)
        self.file.write(line + "\n")
        self.file.flush()


def device_of(name):
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        torch.backends.cudnn.benchmark = True
        # All work goes to one stream that can be recorded: gradient nodes remember the stream
        # they were made on, and one that remembers the default stream ends a recording.
        torch.cuda.set_stream(torch.cuda.Stream())
    return torch.device(name)


def cosine(fraction, end):
    f = min(max(fraction, 0.0), 1.0)
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * f))


class Trainer:
    """Weights, their moving average and AdamW, stepped in CUDA graphs where possible.

    loss(key) -> (scalar loss, 1-D tensor of numbers to log).  Everything it reads must
    stay at the same address: numbers that change go into `self.knobs` (device scalars).
    """

    def __init__(self, module, loss, device, log, lr, betas=(0.9, 0.99), decay=0.01,
                 ema=0.999, clip=1.0, knobs=(), graphs=True, muon=None, slow=None, share=1.0):
        """muon: function(name, parameter) -> whether Muon steps it; AdamW steps the rest.
        slow: function(name) -> whether a parameter goes only that `share` of its steps.
        Parameters that need no gradient stay as they are and are not looked after."""
        self.module, self.loss, self.device, self.log = module, loss, device, log
        self.named = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.slow = [p for n, p in self.named.items() if slow is not None and slow(n)]
        self.share = share
        self.params = list(self.named.values())
        self.ema = [p.detach().clone() for p in self.params]
        self.peak, self.ema_decay, self.clip = lr, ema, clip
        cuda = device.type == "cuda"
        self.lr = torch.tensor(0.0, device=device)
        first = [n for n, p in self.named.items() if muon is not None and muon(n, p)]
        self.muon = Muon([self.named[n] for n in first], self.lr) if first else None
        self.muon_names = first
        # Norms and biases are not decayed.
        rest = [p for n, p in self.named.items() if n not in set(first)]
        matrices = [p for p in rest if p.ndim > 1]
        vectors = [p for p in rest if p.ndim <= 1]
        groups = [dict(params=matrices, weight_decay=decay), dict(params=vectors, weight_decay=0.0)]
        kw = dict(fused=True, capturable=True) if cuda else {}
        self.opt = torch.optim.AdamW([g for g in groups if g["params"]], lr=self.lr if cuda else lr,
                                     betas=betas, eps=1e-8, **kw)
        self.knobs = {k: torch.tensor(0.0, device=device) for k in knobs}
        self.keep = torch.tensor(0.0, device=device)        # the average's weight of the new
        self.steps = 0
        self.graphs, self.pool = {}, None
        self.use_graphs = graphs and cuda
        self.sums, self.count = {}, {}
        self.good = None

    # -- one step --

    def _body(self, key):
        for p in self.params:
            p.grad = None
        loss, numbers = self.loss(key)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.params, self.clip)
        before = [p.detach().clone() for p in self.slow]
        self.opt.step()
        if self.muon is not None:
            self.muon.step()
        if before:
            with torch.no_grad():
                torch._foreach_lerp_(self.slow, before, 1 - self.share)
        # Not lerp: its weight would be read back to the host, which ends a recording.
        torch._foreach_mul_(self.ema, 1 - self.keep)
        torch._foreach_add_(self.ema, torch._foreach_mul(self.params, self.keep))
        return torch.cat([loss.detach()[None].float(), norm.detach()[None].float(),
                          numbers.detach().float()])

    def _capture(self, key):
        """Three ordinary steps choose kernels and fill caches, then the step is recorded."""
        for _ in range(3):
            out = self._body(key)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        static = torch.zeros_like(out)
        with torch.cuda.graph(graph, pool=self.pool, stream=torch.cuda.current_stream(),
                              capture_error_mode="thread_local"):
            static.copy_(self._body(key))
        if self.pool is None:
            self.pool = graph.pool()
        self.graphs[key] = (graph, static)
        self.steps += 3

    def step(self, key, lr, **knobs):
        self.lr.fill_(lr)
        if self.device.type != "cuda":
            for g in self.opt.param_groups:
                g["lr"] = lr
            if self.muon is not None:
                self.muon.lr = lr
        for k, v in knobs.items():
            self.knobs[k].fill_(v)
        n = self.steps
        self.keep.fill_(1 - min(self.ema_decay, (1 + n) / (10 + n)))
        if self.use_graphs and key not in self.graphs:
            t = time.time()
            try:
                self._capture(key)
                self.log(f"recorded step {key} in {time.time() - t:.1f} s, "
                         f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
            except Exception as e:
                self.log(f"no CUDA graph for {key}: {type(e).__name__}: {str(e)[:2000]}")
                self.use_graphs = False
                torch.cuda.synchronize()
                # A recording that failed leaves the generator waiting for its end.
                fresh = torch.Generator(self.device)
                fresh.manual_seed(self.steps + 12345)
                torch.cuda.default_generators[torch.cuda.current_device()].graphsafe_set_state(
                    fresh.graphsafe_get_state())
        if key in self.graphs and self.use_graphs:
            graph, static = self.graphs[key]
            graph.replay()
            out = static
        else:
            out = self._body(key)
        self.steps += 1
        if key not in self.sums:
            self.sums[key], self.count[key] = torch.zeros_like(out), 0
        self.sums[key] += out
        self.count[key] += 1

    def numbers(self):
        """Means of the logged numbers since the last call: {key: list}.  Waits for the device."""
        r = {k: (s / self.count[k]).tolist() for k, s in self.sums.items() if self.count[k]}
        for k in self.sums:
            self.sums[k].zero_()
            self.count[k] = 0
        if all(math.isfinite(x) for v in r.values() for x in v):
            self.good = [[t.clone() for t in ts] for ts in self._state()]
        elif self.good is not None:
            self.log("not finite: back to the last good weights, with half the step size")
            for ts, gs in zip(self._state(), self.good):
                torch._foreach_copy_(ts, gs)
            self.peak *= 0.5
        return r

    def _moments(self):
        """{name: first moment or momentum}, {name: second moment}"""
        m, v = {}, {}
        for n, p in self.named.items():
            if p in self.opt.state:
                m[n], v[n] = self.opt.state[p]["exp_avg"], self.opt.state[p]["exp_avg_sq"]
        if self.muon is not None:
            m.update(zip(self.muon_names, self.muon.buffers))
        return m, v

    def _state(self):
        m, v = self._moments()
        return [[p.data for p in self.params], self.ema, list(m.values()), list(v.values())]

    # -- checkpoints: a file each for weights, average, first and second moments --

    def save(self, folder, name, extra):
        os.makedirs(folder, exist_ok=True)
        m, v = self._moments()
        for part, tensors, dtype in (("model", self.named, torch.float32),
                                     ("ema", dict(zip(self.named, self.ema)), torch.float32),
                                     ("adam-m", m, torch.bfloat16), ("adam-v", v, torch.bfloat16)):
            save_file({n: t.detach().to("cpu", dtype).contiguous() for n, t in tensors.items()},
                      os.path.join(folder, f"{name}-{part}.safetensors"))
        with open(os.path.join(folder, f"{name}-state.json"), "w", encoding="utf-8") as f:
            json.dump(dict(steps=self.steps, **extra), f, indent=1)

    def load(self, folder, name):
        """-> what save() got as `extra`"""
        def read(part):
            path = os.path.join(folder, f"{name}-{part}.safetensors")
            return load_file(path) if os.path.exists(path) else None
        w, e, m, v = (read(p) for p in ("model", "ema", "adam-m", "adam-v"))
        with torch.no_grad():
            for (n, p), a in zip(self.named.items(), self.ema):
                p.copy_(w[n])
                a.copy_((w if e is None else e)[n])
        with open(os.path.join(folder, f"{name}-state.json"), encoding="utf-8") as f:
            extra = json.load(f)
        self.steps = extra.pop("steps", 0)
        if m is not None and v is not None:
            on = self.device if self.device.type == "cuda" else "cpu"
            if self.muon is not None:
                for n, b in zip(self.muon_names, self.muon.buffers):
                    b.copy_(m[n])
            for n in v:
                p = self.named[n]
                self.opt.state[p] = dict(step=torch.tensor(float(self.steps), device=on),
                                         exp_avg=m[n].to(p), exp_avg_sq=v[n].to(p))
        return extra


def load_average(module, folder, name, half=True):
    """The averaged weights of a checkpoint into a module, rounded as they will ship."""
    state = load_file(os.path.join(folder, f"{name}-ema.safetensors"))
    if half:
        state = {k: v.half().float() for k, v in state.items()}
    module.load_state_dict(state)
    return module
