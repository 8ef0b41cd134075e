#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Models of Open-Sora 2.0's size in PyTorch and in the engine, one row after the other.

    bench_torch.py [--tool build/engine/tools/opensora-tool] [--rows mmdit-256 attention ...]
                   [--compile] [--repeat 5] [--json FILE]

Needs a GPU. Weights are random and drawn on the device. PyTorch runs in bfloat16: eager with
FlashAttention-2, eager with cuDNN's attention, and with --compile the compiled blocks with
cuDNN's attention. The engine's rows come from `opensora-tool parts` on the same GPU right
after. Medians; the last column is PyTorch's best / ours. The first rows measure what the machine
can do: a large copy and a large product.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import opensora_ref as ref  # noqa: E402

BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}
MMDIT = dict(in_channels=64, vec_in_dim=768, context_in_dim=4096, hidden_size=3072, mlp_ratio=4.0,
             num_heads=24, depth=19, depth_single_blocks=38, axes_dim=[16, 56, 56], theta=10000,
             qkv_bias=True, guidance_embed=False, cond_embed=True, fused_qkv=False,
             use_liger_rope=True, patch_size=2)
VAE = dict(in_channels=3, out_channels=3, layers_per_block=2, latent_channels=16,
           norm_num_groups=32, block_out_channels=[128, 256, 512, 512], time_compression_ratio=4,
           spatial_compression_ratio=8, mid_block_add_attention=True, scale_factor=0.476986,
           shift_factor=0.0, sample_size=256, sample_tsize=64, tile_overlap_factor=0.25)
T5 = dict(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
          relative_attention_num_buckets=32, relative_attention_max_distance=128,
          layer_norm_epsilon=1e-6, pad_token_id=0, eos_token_id=1)
TEXT = 512

# row: (part, grid or tokens, batch)
ROWS = {
    "mmdit-256-b1": ("mmdit", (33, 12, 21), 1),
    "mmdit-256-b2": ("mmdit", (33, 12, 21), 2),
    "mmdit-256-b3": ("mmdit", (33, 12, 21), 3),
    "mmdit-768-b1": ("mmdit", (33, 36, 64), 1),
    "vae": ("vae", (33, 24, 42), 1),
    "t5": ("t5", TEXT, 1),
    "attention-8828": ("attention", 8828, 1),
    "attention-76544": ("attention", 76544, 1),
}


class Clock:
    def __init__(self, repeat, warm_up):
        self.repeat, self.warm_up = repeat, warm_up

    def __call__(self, f):
        """-> median milliseconds, peak GiB"""
        with torch.no_grad():
            for _ in range(self.warm_up):
                f()
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            times = []
            for _ in range(self.repeat):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                start.record()
                f()
                end.record()
                end.synchronize()
                times.append(start.elapsed_time(end))
        return statistics.median(times), torch.cuda.max_memory_allocated() / 2**30


def on_device(cls, config):
    """A model with random bf16 weights that never were on the host"""
    with torch.device("meta"):
        module = cls(config)
    module = module.to_empty(device="cuda").bfloat16().eval()
    for name, p in module.named_parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=p[0].numel() ** -0.5)
        else:
            torch.nn.init.constant_(p, 0.0 if name.endswith("bias") else 1.0)
    return module


def mmdit_inputs(grid, batch):
    def randn(*shape):
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)
    tokens = grid[0] * grid[1] * grid[2]
    axes = torch.meshgrid(*(torch.arange(n, device="cuda") for n in grid), indexing="ij")
    ids = torch.stack(axes, -1).reshape(1, tokens, 3).float().expand(batch, -1, -1)
    return dict(img=randn(batch, tokens, 64), img_ids=ids, txt=randn(batch, TEXT, 4096),
                txt_ids=torch.zeros(batch, TEXT, 3, device="cuda"),
                timesteps=torch.full((batch,), 0.5, device="cuda", dtype=torch.bfloat16),
                y_vec=randn(batch, 768), cond=randn(batch, tokens, 68))


class Torch:
    def __init__(self, clock, compiled):
        self.clock, self.compiled, self.kept = clock, compiled, {}

    def model(self, part):
        if part not in self.kept:
            self.kept.clear()
            torch.cuda.empty_cache()
            self.kept[part] = {
                "mmdit": lambda: on_device(ref.MMDiT, ref.MMDiTConfig.from_dict(MMDIT)),
                "vae": lambda: on_device(ref.VAE, ref.VAEConfig.from_dict(VAE)),
                "t5": lambda: on_device(ref.T5Encoder, ref.T5Config.from_dict(T5)),
            }[part]()
        return self.kept[part]

    def mmdit(self, grid, batch):
        net, inputs, out = self.model("mmdit"), mmdit_inputs(grid, batch), {}
        for name, backend in BACKENDS.items():
            with sdpa_kernel(backend):
                out[name] = self.clock(lambda: net(**inputs))
        if self.compiled:
            blocks = list(net.double_blocks) + list(net.single_blocks)
            for b in blocks:
                b.compile(dynamic=False)
            with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
                out["compiled"] = self.clock(lambda: net(**inputs))
            for b in blocks:
                b._compiled_call_impl = None
        return out

    def vae(self, grid, batch):
        net = self.model("vae")
        z = torch.randn(batch, 16, *grid, device="cuda", dtype=torch.bfloat16)
        return {"eager": self.clock(lambda: net._decode_tile(z))}

    def t5(self, tokens, batch):
        net = self.model("t5")
        ids = torch.arange(tokens, device="cuda")[None] * 7919 % 32124 + 3
        return {"eager": self.clock(lambda: net(ids))}

    def attention(self, tokens, batch):
        q, k, v = (torch.randn(batch, 24, tokens, 128, device="cuda", dtype=torch.bfloat16)
                   for _ in range(3))
        out = {}
        for name, backend in BACKENDS.items():
            with sdpa_kernel(backend):
                out[name] = self.clock(lambda: F.scaled_dot_product_attention(q, k, v))
        return out


def ceilings(clock):
    x = torch.empty(2**31, dtype=torch.uint8, device="cuda")
    y = torch.empty_like(x)
    ms, _ = clock(lambda: y.copy_(x))
    print(f"copy of 2 GiB: {2 * x.numel() / ms / 1e9:.2f} TB/s read and written")
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    ms, _ = clock(lambda: a @ b)
    print(f"product of 8192^3 in bf16: {2 * 8192**3 / ms / 1e9:.0f} TFLOP/s", flush=True)


def engine(tool, part, size, batch, repeat):
    """-> median milliseconds, or None where the tool has no such part"""
    if part == "attention":
        return None
    command = [tool, "parts", part, "--device", "cuda:0", "--repeat", str(repeat), "--batch", str(batch)]
    command += ["--tokens", str(size)] if part == "t5" else ["--grid", "x".join(map(str, size))]
    r = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"median ([\d.]+) ms.*peak (.*)", r.stdout)
    if not found:
        print(f"  {' '.join(command)}: {r.returncode} {r.stderr.strip()[-400:]}")
        return None
    return float(found[1]), found[2]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tool", default="", help="opensora-tool of a build with CUDA")
    ap.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="ROW")
    ap.add_argument("--compile", action="store_true", help="compiled rows too: minutes more")
    ap.add_argument("--repeat", type=int, default=5)
    ap.add_argument("--warm-up", type=int, default=2)
    ap.add_argument("--json", default="", help="file for all numbers")
    a = ap.parse_args()
    clock = Clock(a.repeat, a.warm_up)
    print(torch.cuda.get_device_name(), "torch", torch.__version__, "cuDNN",
          torch.backends.cudnn.version(), flush=True)
    ceilings(clock)
    theirs, results = Torch(clock, a.compile), {}
    for row in a.rows:
        part, size, batch = ROWS[row]
        numbers = getattr(theirs, part)(size, batch)
        best = min(ms for ms, _ in numbers.values())
        line = ", ".join(f"{n} {ms:.1f} ms ({gib:.1f} GiB)" for n, (ms, gib) in numbers.items())
        if a.tool:
            theirs.kept.clear()
            torch.cuda.empty_cache()
            ours = engine(a.tool, part, size, batch, a.repeat)
            if ours:
                line += f", ours {ours[0]:.1f} ms ({ours[1]}): {best / ours[0]:.2f}x"
                numbers["ours"] = ours
        results[row] = numbers
        print(f"{row}: {line}", flush=True)
    if a.json:
        with open(a.json, "w", encoding="utf-8") as f:
            json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
