# SPDX-License-Identifier: LGPL-2.1-or-later
"""FLUX.1's autoencoder between pictures and latents.

Videos [B, 3, T, H, W] are taken too: every frame is a picture of its own.
Parameter names and shapes are those of the published checkpoint.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .config import AEConfig
from .vae import LOGVAR_RANGE, NORM_EPS


def conv(c_in, c_out, kernel=3, stride=1, padding=None):
    return nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2 if padding is None else padding)


class ResBlock(nn.Module):
    def __init__(self, c_in, c_out, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in, eps=NORM_EPS)
        self.conv1 = conv(c_in, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, eps=NORM_EPS)
        self.conv2 = conv(c_out, c_out)
        if c_in != c_out:
            self.nin_shortcut = conv(c_in, c_out, kernel=1)

    def forward(self, x):
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class Attention(nn.Module):
    """One head over all positions; its projections are stored as 1 x 1 convolutions."""

    def __init__(self, channels, groups):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.q = conv(channels, channels, kernel=1)
        self.k = conv(channels, channels, kernel=1)
        self.v = conv(channels, channels, kernel=1)
        self.proj_out = conv(channels, channels, kernel=1)

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (m(y).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2)
        return x + self.proj_out(y.reshape(x.shape))


class Middle(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.block_1 = ResBlock(channels, channels, groups)
        self.attn_1 = Attention(channels, groups)
        self.block_2 = ResBlock(channels, channels, groups)

    def forward(self, x):
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    """Padded by zeros on the right and at the bottom alone."""

    def __init__(self, channels):
        super().__init__()
        self.conv = conv(channels, channels, stride=2, padding=0)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x):
        return self.conv(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


class Stage(nn.Module):
    """Residual blocks, then at most one change of size."""

    def __init__(self, c_in, c_out, count, groups):
        super().__init__()
        self.block = nn.ModuleList(ResBlock(c_in if n == 0 else c_out, c_out, groups) for n in range(count))

    def forward(self, x):
        for block in self.block:
            x = block(x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        widths, groups = [cfg.ch * m for m in cfg.ch_mult], cfg.norm_num_groups
        self.conv_in = conv(cfg.in_channels, cfg.ch)
        self.down = nn.ModuleList()
        before = cfg.ch
        for n, width in enumerate(widths):
            stage = Stage(before, width, cfg.num_res_blocks, groups)
            if n < len(widths) - 1:
                stage.downsample = Downsample(width)
            self.down.append(stage)
            before = width
        self.mid = Middle(before, groups)
        self.norm_out = nn.GroupNorm(groups, before, eps=NORM_EPS)
        self.conv_out = conv(before, 2 * cfg.z_channels)

    def forward(self, x):
        x = self.conv_in(x)
        for stage in self.down:
            x = stage(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """Stages are numbered as the encoder's, so they run from the last to the first."""

    def __init__(self, cfg):
        super().__init__()
        widths, groups = [cfg.ch * m for m in cfg.ch_mult], cfg.norm_num_groups
        self.conv_in = conv(cfg.z_channels, widths[-1])
        self.mid = Middle(widths[-1], groups)
        stages = []
        before = widths[-1]
        for n in reversed(range(len(widths))):
            stage = Stage(before, widths[n], cfg.num_res_blocks + 1, groups)
            if n > 0:
                stage.upsample = Upsample(widths[n])
            stages.insert(0, stage)
            before = widths[n]
        self.up = nn.ModuleList(stages)
        self.norm_out = nn.GroupNorm(groups, before, eps=NORM_EPS)
        self.conv_out = conv(before, cfg.out_ch)

    def forward(self, z):
        x = self.mid(self.conv_in(z))
        for stage in reversed(self.up):
            x = stage(x)
        return self.conv_out(F.silu(self.norm_out(x)))


def by_frame(run, x):
    """[B, C, T, H, W] through ``run`` frame by frame."""
    b, _, t, _, _ = x.shape
    y = run(x.transpose(1, 2).flatten(0, 1))
    return y.unflatten(0, (b, t)).transpose(1, 2)


class AE(nn.Module):
    def __init__(self, cfg: AEConfig):
        super().__init__()
        self.cfg = cfg
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)

    def raw_moments(self, x):
        """[B, C, T, H, W] -> [B, 2 * z_channels, T, h, w], as the convolution gives them."""
        return by_frame(self.encoder, x)

    def encode_moments(self, x):
        """-> (mean, logvar) of the posterior, before scale and shift."""
        mean, logvar = self.raw_moments(x).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR_RANGE)

    def encode(self, x, sample=False, generator=None, noise=None):
        """-> the scaled latent: the posterior's mode, or a draw from it."""
        mean, logvar = self.encode_moments(x)
        if sample or noise is not None:
            if noise is None:
                noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
            mean = mean + (0.5 * logvar).exp() * noise
        return (mean - self.cfg.shift_factor) * self.cfg.scale_factor

    def decode(self, z):
        return by_frame(self.decoder, z / self.cfg.scale_factor + self.cfg.shift_factor)
