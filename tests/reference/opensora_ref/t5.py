# SPDX-License-Identifier: LGPL-2.1-or-later
"""The encoder of T5 version 1.1: gated feed-forward, relative position bias,
no attention mask (padding is attended to), parameter names of the checkpoints."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from .config import T5Config


def relative_buckets(length, buckets, max_distance, device=None):
    """[L, L] of the bucket of (key - query).

    Half of the buckets for keys after the query; in each half the near
    distances have one bucket each and the far ones share buckets whose bounds
    grow geometrically up to ``max_distance``.
    """
    pos = torch.arange(length, device=device)
    offset = pos.unsqueeze(0) - pos.unsqueeze(1)
    half = buckets // 2
    exact = half // 2
    distance = offset.abs()
    far = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    far = (exact + (far * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(distance < exact, distance, far) + half * (offset > 0)


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        w = x if x.dtype == torch.float64 else x.float()
        w = w * torch.rsqrt(w.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * w.to(self.weight.dtype)


class SelfAttention(nn.Module):
    def __init__(self, cfg, with_bias):
        super().__init__()
        inner = cfg.num_heads * cfg.d_kv
        self.heads = cfg.num_heads
        self.q = nn.Linear(cfg.d_model, inner, bias=False)
        self.k = nn.Linear(cfg.d_model, inner, bias=False)
        self.v = nn.Linear(cfg.d_model, inner, bias=False)
        self.o = nn.Linear(inner, cfg.d_model, bias=False)
        if with_bias:
            self.relative_attention_bias = nn.Embedding(cfg.relative_attention_num_buckets, cfg.num_heads)

    def forward(self, x, bias):
        q, k, v = (m(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for m in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype), scale=1.0)
        return self.o(y.transpose(1, 2).flatten(2))


class AttentionLayer(nn.Module):
    def __init__(self, cfg, with_bias):
        super().__init__()
        self.SelfAttention = SelfAttention(cfg, with_bias)
        self.layer_norm = RMSNorm(cfg.d_model, cfg.layer_norm_epsilon)

    def forward(self, x, bias):
        return x + self.SelfAttention(self.layer_norm(x), bias)


class GatedFeedForward(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.wi_0 = nn.Linear(cfg.d_model, cfg.d_ff, bias=False)
        self.wi_1 = nn.Linear(cfg.d_model, cfg.d_ff, bias=False)
        self.wo = nn.Linear(cfg.d_ff, cfg.d_model, bias=False)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class FeedForwardLayer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.DenseReluDense = GatedFeedForward(cfg)
        self.layer_norm = RMSNorm(cfg.d_model, cfg.layer_norm_epsilon)

    def forward(self, x):
        return x + self.DenseReluDense(self.layer_norm(x))


class Block(nn.Module):
    def __init__(self, cfg, with_bias):
        super().__init__()
        self.layer = nn.ModuleList([AttentionLayer(cfg, with_bias), FeedForwardLayer(cfg)])

    def forward(self, x, bias):
        return self.layer[1](self.layer[0](x, bias))


class Stack(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.block = nn.ModuleList(Block(cfg, n == 0) for n in range(cfg.num_layers))
        self.final_layer_norm = RMSNorm(cfg.d_model, cfg.layer_norm_epsilon)


class T5Encoder(nn.Module):
    def __init__(self, cfg: T5Config):
        super().__init__()
        self.cfg = cfg
        self.shared = nn.Embedding(cfg.vocab_size, cfg.d_model)
        self.encoder = Stack(cfg)

    def position_bias(self, length):
        """[1, heads, L, L], added to the scores of every block."""
        table = self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
        buckets = relative_buckets(
            length,
            self.cfg.relative_attention_num_buckets,
            self.cfg.relative_attention_max_distance,
            table.weight.device,
        )
        return table(buckets).permute(2, 0, 1).unsqueeze(0)

    def forward(self, ids):
        """[B, L] -> [B, L, d_model]"""
        x = self.shared(ids)
        bias = self.position_bias(ids.shape[1])
        for block in self.encoder.block:
            x = block(x, bias)
        return self.encoder.final_layer_norm(x)
