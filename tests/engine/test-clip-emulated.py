#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A small clip on the emulated GPU, in bf16, looks as the CPU's does in f32.

usage: test-clip-emulated.py OPENSORA-TOOL
"""

import math
import pathlib
import subprocess
import sys
import tempfile

# Rounding to bf16 costs some 45 dB; a wrong kernel leaves less than 20.
WANTED = 35


def generate(tool, device, path):
    subprocess.run(
        [tool, "generate", "--device", device, "--prompt", "a red ball moves to the left"]
        + ["--width", "32", "--height", "32", "--num-frames", "5", "--steps", "2"]
        + ["--seed", "3", "--output", path],
        check=True,
    )
    return pathlib.Path(path).read_bytes()


def main():
    with tempfile.TemporaryDirectory() as folder:
        want = generate(sys.argv[1], "cpu", folder + "/cpu.rgb")
        got = generate(sys.argv[1], "cuda:0", folder + "/emulated.rgb")
    if len(want) != 5 * 32 * 32 * 3 or len(got) != len(want):
        sys.exit(f"{len(got)} and {len(want)} bytes of frames")
    if max(want) - min(want) < 64:
        sys.exit("the clip shows nothing")
    error = sum((a - b) ** 2 for a, b in zip(got, want)) / len(want)
    psnr = 10 * math.log10(255**2 / error) if error else math.inf
    print(f"{psnr:.1f} dB, at least {WANTED} are wanted")
    if psnr < WANTED:
        sys.exit(1)


if __name__ == "__main__":
    main()
