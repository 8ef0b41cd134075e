#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The noise of rng=torch-cuda against torch.randn() on a GPU: opensora_ref/philox.py and the engine.

    check_noise.py [--tool build/engine/tools/opensora-tool]

The engine's has to have the same bits; numpy's sine and cosine differ by some 1e-6.
"""
import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch
from safetensors.torch import load_file

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from opensora_ref import philox  # noqa: E402

# [C, T, H, W], whose noise one thread an element is enough for, or not.
SHAPES = ((4, 1, 3, 5), (16, 9, 16, 16), (16, 33, 24, 42), (16, 33, 96, 170))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--tool", help="opensora-tool of a build with CUDA")
    a = ap.parse_args()
    gpu = torch.cuda.get_device_properties(0)
    blocks = gpu.multi_processor_count * (gpu.max_threads_per_multi_processor // 256)
    failed = False
    for shape in SHAPES:
        for seed in (0, 42, 2**40 + 42):
            generator = torch.Generator("cuda").manual_seed(seed)
            for call in range(3):
                want = torch.randn((1, *shape), device="cuda", generator=generator).cpu()
                n = want.numel()
                mine = philox.torch_draws(seed, call, n, np.arange(n), blocks)
                error = float(np.abs(mine - want.flatten().numpy()).max())
                line, ok = f"{shape} seed {seed} call {call}: numpy off by {error:.1e}", error < 1e-5
                if a.tool:
                    with tempfile.TemporaryDirectory() as folder:
                        path = os.path.join(folder, "noise.safetensors")
                        c, t, h, w = (str(x) for x in shape)
                        subprocess.run([a.tool, "noise", "--device", "cuda:0", "--rng", "torch-cuda", "--seed",
                                        str(seed), "--call", str(call), "--channels", c, "--frames", t,
                                        "--height", h, "--width", w, "--output", path], check=True)
                        same = torch.equal(load_file(path)["noise"], want)
                    line += ", the engine's bits are " + ("the same" if same else "OTHERS")
                    ok = ok and same
                print(line)
                failed = failed or not ok
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
