# SPDX-License-Identifier: LGPL-2.1-or-later
"""The denoiser: a transformer of two-stream blocks followed by one-stream ones.

Parameter names and shapes are those of the published checkpoints.  Everything
runs in the dtype of the inputs and weights (float64 included, all the way
through) and under autocast.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .config import MMDiTConfig

NORM_EPS = 1e-6
TIME_FEATURES = 256


def _wide(x):
    """The dtype the small sensitive computations are done in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def timestep_features(t, dim=TIME_FEATURES, max_period=10000.0, time_factor=1000.0):
    """[B] -> [B, dim]: all cosines first, then all sines.

    The factor is applied in the dtype of ``t`` (bfloat16 times are rounded
    after it), the angles are computed wide.
    """
    wide = _wide(t)
    t = t * time_factor
    half = dim // 2
    index = torch.arange(half, dtype=wide, device=t.device)
    freqs = torch.exp(index * (-math.log(max_period)) / half)
    angle = t.to(wide).unsqueeze(1) * freqs
    out = torch.cat((angle.cos(), angle.sin()), dim=1)
    if dim % 2:
        out = F.pad(out, (0, 1))
    return out.to(t.dtype)


class RotaryTable(nn.Module):
    """ids [B, L, A] -> (cos, sin), each [B, 1, L, head_dim / 2].

    The angle of pair p of axis a is ids[a] * theta^(-2p / axes_dim[a]); the
    axes follow one another.  The interleaved order takes its angles from
    float64, the half-split one from float32.
    """

    def __init__(self, axes_dim, theta, half_split):
        super().__init__()
        self.axes_dim = tuple(axes_dim)
        self.theta = float(theta)
        self.half_split = half_split

    def forward(self, ids):
        out = _wide(ids)
        work = out if self.half_split else torch.float64
        angles = []
        for axis, dim in enumerate(self.axes_dim):
            power = torch.arange(0, dim, 2, dtype=work, device=ids.device) / dim
            omega = 1.0 / (self.theta**power)
            angles.append(ids[..., axis].to(work).unsqueeze(-1) * omega)
        angle = torch.cat(angles, dim=-1).unsqueeze(1)
        return angle.cos().to(out), angle.sin().to(out)


def rotate_interleaved(x, cos, sin):
    """Rotates the pairs (0, 1), (2, 3), ... of the last axis."""
    w = x.to(cos.dtype)
    a, b = w[..., 0::2], w[..., 1::2]
    y = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    return y.flatten(-2).to(x.dtype)


def rotate_half_split(x, cos, sin):
    """Rotates the pairs (i, D/2 + i) of the last axis."""
    w = x.to(cos.dtype)
    a, b = w.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)


class HeadNorm(nn.Module):
    """Root mean square normalisation over one head."""

    def __init__(self, dim):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        w = x.to(_wide(x))
        w = w * torch.rsqrt(w.square().mean(dim=-1, keepdim=True) + NORM_EPS)
        return w.to(x.dtype) * self.scale


class QKNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.query_norm = HeadNorm(dim)
        self.key_norm = HeadNorm(dim)


class Embedder(nn.Module):
    def __init__(self, dim_in, dim):
        super().__init__()
        self.in_layer = nn.Linear(dim_in, dim)
        self.out_layer = nn.Linear(dim, dim)

    def forward(self, x):
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """vec [B, D] -> ``count`` tensors [B, 1, D]: shift, scale, gate, ..."""

    def __init__(self, dim, count):
        super().__init__()
        self.count = count
        self.lin = nn.Linear(dim, count * dim)

    def forward(self, vec):
        return self.lin(F.silu(vec)).unsqueeze(1).chunk(self.count, dim=-1)


def plain_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def modulate(x, shift, scale):
    return plain_norm(x) * (1 + scale) + shift


def to_heads(x, heads):
    """[B, L, H*D] -> [B, H, L, D]"""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def from_heads(x):
    return x.transpose(1, 2).flatten(2)


class StreamAttention(nn.Module):
    """The projections of one stream of a two-stream block."""

    def __init__(self, cfg):
        super().__init__()
        dim = cfg.hidden_size
        self.heads = cfg.num_heads
        self.fused = cfg.fused_qkv
        if cfg.fused_qkv:
            self.qkv = nn.Linear(dim, 3 * dim, bias=cfg.qkv_bias)
        else:
            self.q_proj = nn.Linear(dim, dim, bias=cfg.qkv_bias)
            self.k_proj = nn.Linear(dim, dim, bias=cfg.qkv_bias)
            self.v_proj = nn.Linear(dim, dim, bias=cfg.qkv_bias)
        self.norm = QKNorm(dim // cfg.num_heads)
        self.proj = nn.Linear(dim, dim)

    def project(self, x):
        if self.fused:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        q, k, v = (to_heads(y, self.heads) for y in (q, k, v))
        return self.norm.query_norm(q).to(v.dtype), self.norm.key_norm(k).to(v.dtype), v


def feed_forward(dim, hidden):
    return nn.Sequential(nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim))


class DoubleBlock(nn.Module):
    def __init__(self, cfg, rotate):
        super().__init__()
        dim, hidden = cfg.hidden_size, int(cfg.hidden_size * cfg.mlp_ratio)
        self.rotate = rotate
        self.img_mod = Modulation(dim, 6)
        self.img_attn = StreamAttention(cfg)
        self.img_mlp = feed_forward(dim, hidden)
        self.txt_mod = Modulation(dim, 6)
        self.txt_attn = StreamAttention(cfg)
        self.txt_mlp = feed_forward(dim, hidden)

    def forward(self, img, txt, vec, cos, sin):
        im, tm = self.img_mod(vec), self.txt_mod(vec)
        iq, ik, iv = self.img_attn.project(modulate(img, im[0], im[1]))
        tq, tk, tv = self.txt_attn.project(modulate(txt, tm[0], tm[1]))
        q = self.rotate(torch.cat((tq, iq), dim=2), cos, sin)
        k = self.rotate(torch.cat((tk, ik), dim=2), cos, sin)
        v = torch.cat((tv, iv), dim=2)
        y = from_heads(F.scaled_dot_product_attention(q, k, v))
        yt, yi = y[:, : txt.shape[1]], y[:, txt.shape[1] :]
        img = img + im[2] * self.img_attn.proj(yi)
        img = img + im[5] * self.img_mlp(modulate(img, im[3], im[4]))
        txt = txt + tm[2] * self.txt_attn.proj(yt)
        txt = txt + tm[5] * self.txt_mlp(modulate(txt, tm[3], tm[4]))
        return img, txt


class SingleBlock(nn.Module):
    def __init__(self, cfg, rotate):
        super().__init__()
        dim, hidden = cfg.hidden_size, int(cfg.hidden_size * cfg.mlp_ratio)
        self.heads, self.fused, self.rotate = cfg.num_heads, cfg.fused_qkv, rotate
        if cfg.fused_qkv:
            self.sizes = (dim, dim, dim, hidden)
            self.linear1 = nn.Linear(dim, 3 * dim + hidden)
        else:
            self.sizes = (dim, hidden)
            self.q_proj = nn.Linear(dim, dim)
            self.k_proj = nn.Linear(dim, dim)
            self.v_mlp = nn.Linear(dim, dim + hidden)
        self.linear2 = nn.Linear(dim + hidden, dim)
        self.norm = QKNorm(dim // cfg.num_heads)
        self.modulation = Modulation(dim, 3)

    def forward(self, x, vec, cos, sin):
        shift, scale, gate = self.modulation(vec)
        y = modulate(x, shift, scale)
        if self.fused:
            q, k, v, hidden = self.linear1(y).split(self.sizes, dim=-1)
        else:
            q, k = self.q_proj(y), self.k_proj(y)
            v, hidden = self.v_mlp(y).split(self.sizes, dim=-1)
        q, k, v = (to_heads(y, self.heads) for y in (q, k, v))
        q = self.rotate(self.norm.query_norm(q).to(v.dtype), cos, sin)
        k = self.rotate(self.norm.key_norm(k).to(v.dtype), cos, sin)
        y = from_heads(F.scaled_dot_product_attention(q, k, v))
        y = torch.cat((y, F.gelu(hidden, approximate="tanh")), dim=-1)
        return x + gate * self.linear2(y)


class FinalLayer(nn.Module):
    def __init__(self, dim, channels):
        super().__init__()
        self.linear = nn.Linear(dim, channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(dim, 2 * dim))

    def forward(self, x, vec):
        shift, scale = self.adaLN_modulation(vec).unsqueeze(1).chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))


class MMDiT(nn.Module):
    def __init__(self, cfg: MMDiTConfig):
        super().__init__()
        if cfg.hidden_size % cfg.num_heads:
            raise ValueError("hidden_size is not a multiple of num_heads")
        if sum(cfg.axes_dim) != cfg.hidden_size // cfg.num_heads:
            raise ValueError("axes_dim does not add up to the size of a head")
        self.cfg = cfg
        dim = cfg.hidden_size
        rotate = rotate_half_split if cfg.use_liger_rope else rotate_interleaved
        self.rotary = RotaryTable(cfg.axes_dim, cfg.theta, cfg.use_liger_rope)
        self.img_in = nn.Linear(cfg.in_channels, dim)
        self.time_in = Embedder(TIME_FEATURES, dim)
        self.vector_in = Embedder(cfg.vec_in_dim, dim)
        if cfg.guidance_embed:
            self.guidance_in = Embedder(TIME_FEATURES, dim)
        if cfg.cond_embed:
            self.cond_in = nn.Linear(cfg.in_channels + cfg.patch_size**2, dim)
            nn.init.zeros_(self.cond_in.weight)
            nn.init.zeros_(self.cond_in.bias)
        self.txt_in = nn.Linear(cfg.context_in_dim, dim)
        self.double_blocks = nn.ModuleList(DoubleBlock(cfg, rotate) for _ in range(cfg.depth))
        self.single_blocks = nn.ModuleList(SingleBlock(cfg, rotate) for _ in range(cfg.depth_single_blocks))
        self.final_layer = FinalLayer(dim, cfg.in_channels)

    def init_for_training(self):
        """Every block starts as the identity and the prediction as zero."""
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)
        for m in (self.time_in, self.vector_in):
            nn.init.normal_(m.in_layer.weight, std=0.02)
            nn.init.normal_(m.out_layer.weight, std=0.02)
        zero = [m.lin for m in self.modules() if isinstance(m, Modulation)]
        zero += [self.final_layer.linear, self.final_layer.adaLN_modulation[1]]
        if self.cfg.cond_embed:
            zero.append(self.cond_in)
        for m in zero:
            nn.init.zeros_(m.weight)
            nn.init.zeros_(m.bias)
        return self

    def forward(self, img, img_ids, txt, txt_ids, timesteps, y_vec, cond=None, guidance=None, trace=None):
        """-> [B, L, in_channels].

        img [B, L, in_channels], img_ids [B, L, 3], txt [B, M, context_in_dim],
        txt_ids [B, M, 3], timesteps [B], y_vec [B, vec_in_dim],
        cond [B, L, in_channels + patch_size^2], guidance [B].
        Ids, timesteps and guidance may be wider than the rest.
        ``trace`` is an optional dict that receives intermediate results.
        """
        if img.ndim != 3 or txt.ndim != 3:
            raise ValueError("img and txt have three axes")
        x = self.img_in(img)
        if self.cfg.cond_embed:
            if cond is None:
                raise ValueError("this model needs cond")
            x = x + self.cond_in(cond)
        vec = self.time_in(timestep_features(timesteps).to(img.dtype))
        if self.cfg.guidance_embed:
            if guidance is None:
                raise ValueError("this model needs guidance")
            vec = vec + self.guidance_in(timestep_features(guidance).to(img.dtype))
        vec = vec + self.vector_in(y_vec)
        t = self.txt_in(txt)
        cos, sin = self.rotary(torch.cat((txt_ids, img_ids), dim=1))
        if trace is not None:
            trace.update({"vec": vec, "embed.img": x, "embed.txt": t})
        for n, block in enumerate(self.double_blocks):
            x, t = block(x, t, vec, cos, sin)
            if trace is not None:
                trace.update({f"double.{n}.img": x, f"double.{n}.txt": t})
        x = torch.cat((t, x), dim=1)
        for n, block in enumerate(self.single_blocks):
            x = block(x, vec, cos, sin)
            if trace is not None:
                trace[f"single.{n}.x"] = x
        return self.final_layer(x[:, t.shape[1] :], vec)
