#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes tests/data/golden/resize.safetensors: pictures brought to the size of a clip as upstream
does it, with Pillow where it is given pictures and with PyTorch where it is given video.

Needs numpy, PyTorch, safetensors, and Pillow up to 11, which always scales rows first (later
versions begin with columns where that is less work, and round differently then).

For each case "WxH-WxH" uint8 [height, width, 3]: in.CASE, picture.CASE, video.CASE. Values of video
are rounded.
"""

import argparse
import os

import numpy
import torch
from PIL import Image
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
PATH = os.path.join(HERE, "..", "data", "golden", "resize.safetensors")

# Smaller, larger, one way each, the same; margins that are odd.
CASES = [
    (50, 25, 16, 16),
    (25, 50, 16, 16),
    (20, 15, 32, 16),
    (33, 47, 32, 16),
    (40, 10, 16, 32),
    (16, 16, 16, 16),
    (21, 16, 16, 16),
    (3, 1, 16, 16),
]


def picture(width, height):
    """A slope, squares, and what repeats finely."""
    y, x = numpy.mgrid[0:height, 0:width]
    red = x * 255 // max(width - 1, 1)
    green = (x // 5 + y // 5) % 2 * 200 + 20
    blue = (x * x + 3 * y * y) // 7 % 256
    return numpy.stack([red, green, blue], -1).astype(numpy.uint8)


def scaled_size(width, height, to_width, to_height):
    ratio_w, ratio_h = to_width / width, to_height / height
    if ratio_h > ratio_w:
        return round(width * ratio_h), to_height
    return to_width, round(height * ratio_w)


def fill_picture(array, to_width, to_height):
    height, width, _ = array.shape
    w, h = scaled_size(width, height, to_width, to_height)
    scaled = numpy.array(Image.fromarray(array).resize((w, h), Image.BICUBIC))
    x, y = round((w - to_width) / 2), round((h - to_height) / 2)
    return scaled[y : y + to_height, x : x + to_width]


def fill_video(array, to_width, to_height):
    height, width, _ = array.shape
    w, h = scaled_size(width, height, to_width, to_height)
    frames = torch.from_numpy(array).permute(2, 0, 1)[None].double()
    scaled = torch.nn.functional.interpolate(frames, size=(h, w), mode="bilinear", align_corners=False)
    x, y = int((w - to_width) / 2), int((h - to_height) / 2)
    kept = scaled[0, :, y : y + to_height, x : x + to_width].permute(1, 2, 0)
    return (kept + 0.5).floor().to(torch.uint8).numpy()


def main():
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    tensors = {}
    for width, height, to_width, to_height in CASES:
        name = f"{width}x{height}-{to_width}x{to_height}"
        array = picture(width, height)
        tensors[f"in.{name}"] = array
        tensors[f"picture.{name}"] = fill_picture(array, to_width, to_height).copy()
        tensors[f"video.{name}"] = fill_video(array, to_width, to_height).copy()
    save_file(tensors, PATH)


if __name__ == "__main__":
    main()
