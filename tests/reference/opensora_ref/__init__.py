# SPDX-License-Identifier: LGPL-2.1-or-later
"""Plain PyTorch versions of every model part of Open-Sora 2.0."""

from . import philox, sampler
from .ae import AE
from .clip import CLIPText
from .config import AEConfig, CLIPTextConfig, MMDiTConfig, T5Config, VAEConfig
from .mmdit import MMDiT
from .t5 import T5Encoder
from .vae import VAE

__all__ = [
    "AE",
    "AEConfig",
    "CLIPText",
    "CLIPTextConfig",
    "MMDiT",
    "MMDiTConfig",
    "T5Config",
    "T5Encoder",
    "VAE",
    "VAEConfig",
    "philox",
    "sampler",
]
