#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tiny model in the engine and in PyTorch, in turn, on the same number of threads.

    bench_tiny.py --tool build/engine/tools/opensora-tool [--threads 2] [--rounds 5]

Both run the model's default clip in float32: the text towers once for the prompt, the
denoiser as often as the sampler needs it, the decoder once. Each round times the one right
after the other, so that a machine whose speed drifts treats them alike; medians are printed.
PyTorch gets its better memory format for convolutions, and no gradients.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "engine", "tiny-model")


def engine(tool, model, threads):
    """-> seconds of each stage, forwards"""
    out = subprocess.run([tool, "bench", "--model", model, "--device", "cpu", "--threads",
                          str(threads)], capture_output=True, text=True, check=True).stdout
    stages = {m[1]: float(m[2]) for m in re.finditer(r"^(text|denoise|decode)\s+([\d.]+)", out, re.M)}
    return stages, int(re.search(r"(\d+) forwards", out)[1])


class Torch:
    def __init__(self, folder, threads):
        import torch
        from safetensors.torch import load_file
        sys.path.insert(0, HERE)
        import opensora_ref as ref

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch, self.sampler = torch, ref.sampler

        def path(*parts):
            return os.path.join(folder, *parts)

        def read(*parts):
            with open(path(*parts), encoding="utf-8") as f:
                return json.load(f)

        def load(cls, config, *weights):
            module = cls(config).eval()
            state = {k: v.float() for k, v in load_file(path(*weights)).items()}
            module.load_state_dict(state, strict=False)
            return module

        config = read("config.json")
        self.t5 = load(ref.T5Encoder, ref.T5Config.from_dict(read("t5", "config.json")),
                       "t5", "model.safetensors")
        self.clip = load(ref.CLIPText, ref.CLIPTextConfig.from_dict(read("clip", "config.json")),
                         "clip", "model.safetensors")
        self.mmdit = load(ref.MMDiT, ref.MMDiTConfig.from_dict(config["mmdit"]),
                          config["mmdit"]["weights"])
        self.vae = load(ref.VAE, ref.VAEConfig.from_dict(config["vae"]), config["vae"]["weights"])
        self.length = config["t5"]["max_length"], config["clip"]["max_length"]
        s, v = config["sampling"], config["vae"]
        self.size = ((s["num_frames"] - 1) // v["time_compression_ratio"] + 1,
                     s["height"] // v["spatial_compression_ratio"],
                     s["width"] // v["spatial_compression_ratio"])
        self.channels, self.patch = v["latent_channels"], config["mmdit"]["patch_size"]
        self.pick_format()

    def timed(self, f):
        t = time.perf_counter()
        f()
        return time.perf_counter() - t

    def pick_format(self):
        plain = min(self.timed(self.decode) for _ in range(2))
        self.vae.to(memory_format=self.torch.channels_last_3d)
        last = min(self.timed(self.decode) for _ in range(2))
        if plain < last:
            self.vae.to(memory_format=self.torch.contiguous_format)

    def text(self):
        ids = self.torch.arange(self.length[0])[None] % self.t5.cfg.vocab_size
        self.t5(ids)
        ids = self.torch.arange(self.length[1])[None] % self.clip.cfg.vocab_size
        self.clip(ids)

    def forward(self):
        torch, (t, h, w), p = self.torch, self.size, self.patch
        cfg = self.mmdit.cfg
        img = torch.randn(1, t * (h // p) * (w // p), cfg.in_channels)
        axes = [torch.arange(n) for n in (t, h // p, w // p)]
        ids = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 3).float()
        txt = torch.randn(1, self.length[0], cfg.context_in_dim)
        self.mmdit(img, ids, txt, torch.zeros(1, self.length[0], 3), torch.full((1,), 0.5),
                   torch.randn(1, cfg.vec_in_dim),
                   cond=torch.zeros(1, img.shape[1], cfg.in_channels + p * p))

    def decode(self):
        self.vae.decode(self.torch.randn(1, self.channels, *self.size))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    ap.add_argument("--tool", required=True, help="opensora-tool of a release build")
    ap.add_argument("--model", default=MODEL)
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--rounds", type=int, default=5)
    a = ap.parse_args()

    torch = Torch(a.model, a.threads)
    torch.text(), torch.forward()
    rows = []
    for i in range(a.rounds):
        ours, forwards = engine(a.tool, a.model, a.threads)
        one = statistics.median(torch.timed(torch.forward) for _ in range(8))
        theirs = dict(text=torch.timed(torch.text), denoise=forwards * one,
                      decode=torch.timed(torch.decode))
        for stages in (ours, theirs):
            stages["total"] = sum(stages.values())
        rows.append((ours, theirs))
        print(f"round {i + 1}: ours {ours['total']:.2f} s, PyTorch {theirs['total']:.2f} s",
              file=sys.stderr)
    print(f"{a.threads} threads, float32, {forwards} forwards, medians of {a.rounds} rounds; "
          f"PyTorch {torch.torch.__version__}")
    print(f"{'stage':<10}{'ours s':>10}{'PyTorch s':>12}{'PyTorch / ours':>17}")
    for stage in ("text", "denoise", "decode", "total"):
        x, y = ([r[k][stage] for r in rows] for k in (0, 1))
        ratio = statistics.median(b / max(a, 1e-9) for a, b in zip(x, y))
        print(f"{stage:<10}{statistics.median(x):>10.3f}{statistics.median(y):>12.3f}{ratio:>17.2f}")


if __name__ == "__main__":
    main()
