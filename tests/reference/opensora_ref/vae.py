# SPDX-License-Identifier: LGPL-2.1-or-later
"""The causal 3D autoencoder between videos [B, 3, T, H, W] and latents.

Parameter names and shapes are those of the published checkpoints.  The code is
meant to be trained as well as read: no Python loop over positions, no
synchronisation with the device, and channels_last_3d survives every layer.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .config import VAEConfig

NORM_EPS = 1e-6
LOGVAR_RANGE = (-30.0, 20.0)


def pad_edges(x, time, space):
    """Repeats the first frame ``time`` times in front, every border ``space`` times."""
    # The slices are listed one by one: expanded ones would lose channels_last_3d.
    if time:
        x = torch.cat([x[:, :, :1]] * time + [x], dim=2)
    if space:
        x = torch.cat([x[:, :, :, :1]] * space + [x] + [x[:, :, :, -1:]] * space, dim=3)
        x = torch.cat([x[..., :1]] * space + [x] + [x[..., -1:]] * space, dim=4)
    return x


class CausalConv(nn.Module):
    def __init__(self, c_in, c_out, kernel=3, stride=1):
        super().__init__()
        self.kernel = kernel
        self.conv = nn.Conv3d(c_in, c_out, kernel, stride=stride)

    def forward(self, x):
        return self.conv(pad_edges(x, self.kernel - 1, self.kernel // 2))


class Downsample(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.conv = CausalConv(channels, channels, stride=stride)

    def forward(self, x):
        return self.conv(x)


def repeat_nearest(x, factors):
    """Repeats every element ``factors`` = (t, h, w) times."""
    ft, fh, fw = factors
    if ft == fh == fw == 1:
        return x
    b, c, t, h, w = x.shape
    if x.stride(1) == 1 and c > 1:  # channels last stays channels last
        y = x.permute(0, 2, 3, 4, 1)[:, :, None, :, None, :, None, :]
        y = y.expand(b, t, ft, h, fh, w, fw, c).reshape(b, t * ft, h * fh, w * fw, c)
        return y.permute(0, 4, 1, 2, 3)
    y = x[:, :, :, None, :, None, :, None].expand(b, c, t, ft, h, fh, w, fw)
    return y.reshape(b, c, t * ft, h * fh, w * fw)


class Upsample(nn.Module):
    """The first frame grows in space alone, the frames after it in time too."""

    def __init__(self, channels, factors):
        super().__init__()
        self.factors = tuple(factors)
        self.conv = CausalConv(channels, channels)

    def forward(self, x):
        ft, fh, fw = self.factors
        if ft == 1:
            return self.conv(repeat_nearest(x, self.factors))
        y = repeat_nearest(x[:, :, :1], (1, fh, fw))
        if x.shape[2] > 1:
            y = torch.cat((y, repeat_nearest(x[:, :, 1:], self.factors)), dim=2)
        return self.conv(y)


class ResBlock(nn.Module):
    def __init__(self, c_in, c_out, groups):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, c_in, eps=NORM_EPS)
        self.conv1 = CausalConv(c_in, c_out)
        self.norm2 = nn.GroupNorm(groups, c_out, eps=NORM_EPS)
        self.conv2 = CausalConv(c_out, c_out)
        if c_in != c_out:
            self.conv_shortcut = CausalConv(c_in, c_out, kernel=1)
        else:
            self.conv_shortcut = None

    def forward(self, x):
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return x + y


def frame_mask(frames, tokens, device):
    """[L, L] of bool: a position sees its own frame and the ones before it."""
    frame = torch.arange(frames * tokens, device=device) // tokens
    return frame.unsqueeze(1) >= frame.unsqueeze(0)


class MidAttention(nn.Module):
    """One head over all positions of all frames."""

    def __init__(self, channels, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x):
        _, _, t, h, w = x.shape
        y = self.group_norm(x).flatten(2).transpose(1, 2)
        q, k, v = (m(y).unsqueeze(1) for m in (self.to_q, self.to_k, self.to_v))
        mask = frame_mask(t, h * w, x.device) if t > 1 else None
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).squeeze(1)
        y = self.to_out[0](y).unflatten(1, (t, h, w)).permute(0, 4, 1, 2, 3)
        return x + y


class MidBlock(nn.Module):
    def __init__(self, channels, groups, attention):
        super().__init__()
        self.attentions = nn.ModuleList([MidAttention(channels, groups)] if attention else [])
        self.resnets = nn.ModuleList(ResBlock(channels, channels, groups) for _ in range(2))

    def forward(self, x):
        x = self.resnets[0](x)
        for attention in self.attentions:
            x = attention(x)
        return self.resnets[1](x)


class Stage(nn.Module):
    """Residual blocks, then at most one change of size."""

    def __init__(self, c_in, c_out, count, groups):
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(c_in if n == 0 else c_out, c_out, groups) for n in range(count))
        self.resize = None

    def forward(self, x):
        for block in self.resnets:
            x = block(x)
        if self.resize is not None:
            for layer in getattr(self, self.resize):
                x = layer(x)
        return x

    def add(self, name, layer):
        self.resize = name
        setattr(self, name, nn.ModuleList([layer]))


def stage_factors(cfg):
    """(time, space) factor of each stage, the same list for both directions."""
    stages = len(cfg.block_out_channels)
    space = int(math.log2(cfg.spatial_compression_ratio))
    time = int(math.log2(cfg.time_compression_ratio))
    if cfg.time_compression_ratio == 4:
        in_time = [stages - 1 - time <= n < stages - 1 for n in range(stages)]
    elif cfg.time_compression_ratio == 8:
        in_time = [n < space for n in range(stages)]
    else:
        raise ValueError("time_compression_ratio is 4 or 8")
    return [(1 + in_time[n], 1 + (n < space)) for n in range(stages)]


class Encoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        widths, groups = list(cfg.block_out_channels), cfg.norm_num_groups
        self.conv_in = CausalConv(cfg.in_channels, widths[0])
        self.down_blocks = nn.ModuleList()
        before = widths[0]
        for width, (ft, fs) in zip(widths, stage_factors(cfg)):
            stage = Stage(before, width, cfg.layers_per_block, groups)
            if ft * fs > 1:
                stage.add("downsamplers", Downsample(width, (ft, fs, fs)))
            self.down_blocks.append(stage)
            before = width
        self.mid_block = MidBlock(before, groups, cfg.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, before, eps=NORM_EPS)
        self.conv_out = CausalConv(before, 2 * cfg.latent_channels)

    def forward(self, x):
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        x = self.mid_block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Decoder(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        widths, groups = list(cfg.block_out_channels)[::-1], cfg.norm_num_groups
        self.conv_in = CausalConv(cfg.latent_channels, widths[0])
        self.mid_block = MidBlock(widths[0], groups, cfg.mid_block_add_attention)
        self.up_blocks = nn.ModuleList()
        before = widths[0]
        for width, (ft, fs) in zip(widths, stage_factors(cfg)):
            stage = Stage(before, width, cfg.layers_per_block + 1, groups)
            if ft * fs > 1:
                stage.add("upsamplers", Upsample(width, (ft, fs, fs)))
            self.up_blocks.append(stage)
            before = width
        self.conv_norm_out = nn.GroupNorm(groups, before, eps=NORM_EPS)
        self.conv_out = CausalConv(before, cfg.out_channels)

    def forward(self, z):
        x = self.mid_block(self.conv_in(z))
        for stage in self.up_blocks:
            x = stage(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


def blend(before, after, extent, dim):
    """Fades the last ``extent`` slices of ``before`` into the first of ``after``.

    Slice n of the overlap is before * (1 - n / extent) + after * (n / extent).
    """
    extent = min(before.shape[dim], after.shape[dim], extent)
    if extent <= 0:
        return after
    shape = [1] * after.ndim
    shape[dim] = extent
    ramp = (torch.arange(extent, dtype=after.dtype, device=after.device) / extent).view(shape)
    old = before.narrow(dim, before.shape[dim] - extent, extent)
    new = after.narrow(dim, 0, extent)
    rest = after.narrow(dim, extent, after.shape[dim] - extent)
    return torch.cat((old * (1 - ramp) + new * ramp, rest), dim=dim)


def tiled_in_space(x, run, step, size, extent, keep):
    """Runs ``run`` on overlapping tiles of the last two axes and joins them.

    A tile fades in from the finished tile above it, then from the finished
    one on its left, and gives its first ``keep`` rows and columns.
    """
    joined, above = [], None
    for i in range(0, x.shape[-2], step):
        row = []
        for n, j in enumerate(range(0, x.shape[-1], step)):
            tile = run(x[..., i : i + size, j : j + size])
            if above is not None:
                tile = blend(above[n], tile, extent, 3)
            if n > 0:
                tile = blend(row[n - 1], tile, extent, 4)
            row.append(tile)
        joined.append(torch.cat([tile[..., :keep, :keep] for tile in row], dim=4))
        above = row
    return torch.cat(joined, dim=3)


def tiled_in_time(x, run, step, size, extent, keep):
    """Tiles of ``size`` + 1 frames; all but the first lose their first frame."""
    parts, before = [], None
    for n, i in enumerate(range(0, x.shape[2], step)):
        tile = run(x[:, :, i : i + size + 1])
        if n > 0:
            tile = blend(before, tile[:, :, 1:], extent, 2)
        parts.append(tile[:, :, : keep + (n == 0)])
        before = tile
    return torch.cat(parts, dim=2)


class VAE(nn.Module):
    def __init__(self, cfg: VAEConfig):
        super().__init__()
        self.cfg = cfg
        self.encoder = Encoder(cfg)
        self.decoder = Decoder(cfg)
        self.quant_conv = nn.Conv3d(2 * cfg.latent_channels, 2 * cfg.latent_channels, 1)
        self.post_quant_conv = nn.Conv3d(cfg.latent_channels, cfg.latent_channels, 1)
        self.use_spatial_tiling = cfg.use_spatial_tiling
        self.use_temporal_tiling = cfg.use_temporal_tiling
        self.tile_pixels = cfg.sample_size
        self.tile_latents = int(cfg.sample_size / 2 ** (len(cfg.block_out_channels) - 1))
        self.tile_frames = cfg.sample_tsize
        self.tile_latent_frames = cfg.sample_tsize // cfg.time_compression_ratio

    # one tile

    def _encode_tile(self, x):
        return self.quant_conv(self.encoder(x))

    def _decode_tile(self, z):
        return self.decoder(self.post_quant_conv(z))

    # tiles in space, where the input is larger than one

    def _encode_space(self, x):
        size, out, f = self.tile_pixels, self.tile_latents, self.cfg.tile_overlap_factor
        if not (self.use_spatial_tiling and max(x.shape[-2:]) > size):
            return self._encode_tile(x)
        extent = int(out * f)
        return tiled_in_space(x, self._encode_tile, int(size * (1 - f)), size, extent, out - extent)

    def _decode_space(self, z):
        size, out, f = self.tile_latents, self.tile_pixels, self.cfg.tile_overlap_factor
        if not (self.use_spatial_tiling and max(z.shape[-2:]) > size):
            return self._decode_tile(z)
        extent = int(out * f)
        return tiled_in_space(z, self._decode_tile, int(size * (1 - f)), size, extent, out - extent)

    # the whole

    def raw_moments(self, x):
        """[B, C, T, H, W] -> [B, 2 * latent_channels, T', H', W'], as the convolution gives them."""
        size, out, f = self.tile_frames, self.tile_latent_frames, self.cfg.tile_overlap_factor
        if not (self.use_temporal_tiling and x.shape[2] > size):
            return self._encode_space(x)
        extent = int(out * f)
        return tiled_in_time(x, self._encode_space, int(size * (1 - f)), size, extent, out - extent)

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
        z = z / self.cfg.scale_factor + self.cfg.shift_factor
        size, out, f = self.tile_latent_frames, self.tile_frames, self.cfg.tile_overlap_factor
        if not (self.use_temporal_tiling and z.shape[2] > size):
            return self._decode_space(z)
        extent = int(out * f)
        return tiled_in_time(z, self._decode_space, int(size * (1 - f)), size, extent, out - extent)

    def forward(self, x, sample=False, generator=None, noise=None):
        """-> (reconstruction, mean, logvar)"""
        mean, logvar = self.encode_moments(x)
        z = mean
        if sample or noise is not None:
            if noise is None:
                noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
            z = mean + (0.5 * logvar).exp() * noise
        z = (z - self.cfg.shift_factor) * self.cfg.scale_factor
        return self.decode(z), mean, logvar

    def latent_size(self, frames, height, width):
        t, s = self.cfg.time_compression_ratio, self.cfg.spatial_compression_ratio
        return (frames - 1) // t + 1, (height - 1) // s + 1, (width - 1) // s + 1
