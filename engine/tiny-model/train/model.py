# SPDX-License-Identifier: LGPL-2.1-or-later
"""The denoiser with its two text towers: sizes, first weights, and a forward pass for training.

The modules are the reference ones.  `Net.forward` does their arithmetic with two changes
that a recorded step wants: rows of embedding tables are picked by products with one-hot
rows, whose gradient needs no sorting, and the stream between blocks is kept in f32.
"""
import math
import os

import torch
import torch.nn.functional as F
from torch import nn

import vocab
from common import HERE

from opensora_ref import CLIPText, CLIPTextConfig, MMDiT, MMDiTConfig, T5Config, T5Encoder
from opensora_ref.mmdit import timestep_features
from opensora_ref.t5 import relative_buckets

FOLDER = os.path.join(HERE, "..")

MMDIT = dict(in_channels=64, vec_in_dim=128, context_in_dim=128, hidden_size=192, mlp_ratio=3.25,
             num_heads=3, depth=2, depth_single_blocks=7, axes_dim=[16, 24, 24], theta=10000,
             qkv_bias=True, guidance_embed=False, cond_embed=True, fused_qkv=False,
             use_liger_rope=True, patch_size=2)
T5 = dict(d_model=128, d_kv=32, d_ff=256, num_layers=3, num_heads=4,
          relative_attention_num_buckets=32, relative_attention_max_distance=128,
          layer_norm_epsilon=1e-6, pad_token_id=0, eos_token_id=1)
CLIP = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=vocab.CLIP_LENGTH, layer_norm_eps=1e-5, hidden_act="quick_gelu")

# To try the code: same shapes of everything else, little to compute.
TINY_MMDIT = dict(MMDIT, hidden_size=64, num_heads=1, depth=1, depth_single_blocks=2)


def configs(tokenizers, tiny=False):
    t5 = T5Config.from_dict(dict(T5, vocab_size=tokenizers.t5.size))
    clip = CLIPTextConfig.from_dict(dict(CLIP, vocab_size=tokenizers.clip.size,
                                         bos_token_id=tokenizers.clip.begin,
                                         eos_token_id=tokenizers.clip.end))
    return MMDiTConfig.from_dict(TINY_MMDIT if tiny else MMDIT), t5, clip


def _init_t5(t5):
    """As T5 does it: its attention does not scale scores, the weights do."""
    d, f = t5.cfg.d_model, t5.cfg.d_ff
    inner = t5.cfg.num_heads * t5.cfg.d_kv
    nn.init.normal_(t5.shared.weight, std=1.0)
    for name, p in t5.encoder.named_parameters():
        if name.endswith(".q.weight"):
            nn.init.normal_(p, std=(d * t5.cfg.d_kv) ** -0.5)
        elif name.endswith(".o.weight"):
            nn.init.normal_(p, std=inner ** -0.5)
        elif name.endswith("wo.weight"):
            nn.init.normal_(p, std=f ** -0.5)
        elif "layer_norm" not in name:
            nn.init.normal_(p, std=d ** -0.5)
    # Heads that look back a word or two, ahead, far back and far ahead, so that words find
    # what they belong to.  Buckets: distance back, and from the middle on distance ahead.
    table = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    half = len(table) // 2
    nn.init.zeros_(table)
    with torch.no_grad():
        for head in range(table.shape[1]):
            at = half * (head % 2)
            for n in range(1, half):
                near = 4.0 / n if head < 2 else 2.0 - 0.2 * n
                table[at + n, head] = max(near, 0.0)


def _init_clip(clip):
    """Positions are waves, and two heads of the first layer look one and two words back."""
    d, heads = clip.cfg.hidden_size, clip.cfg.num_attention_heads
    e = clip.text_model.embeddings
    nn.init.normal_(e.token_embedding.weight, std=0.3)
    for m in clip.modules():
        if isinstance(m, nn.Linear):
            nn.init.normal_(m.weight, std=d ** -0.5)
            nn.init.zeros_(m.bias)
    w = 2.0 * 100.0 ** (-torch.arange(d // 2) / (d // 2 - 1))
    angle = torch.arange(e.position_embedding.num_embeddings)[:, None] * w
    first, size, gain = clip.text_model.encoder.layers[0].self_attn, d // heads, 1.4
    with torch.no_grad():
        e.position_embedding.weight.copy_(0.42 * torch.stack((angle.cos(), angle.sin()), 2).flatten(1))
        for head in range(2):
            q, k = (m.weight[head * size:(head + 1) * size].zero_() for m in (first.q_proj, first.k_proj))
            for i, wave in enumerate(range(0, d // 2, d // size)):
                c, s = (gain * f((head + 1) * w[wave].item()) for f in (math.cos, math.sin))
                a, b = 2 * wave, 2 * wave + 1
                k[2 * i, a] = k[2 * i + 1, b] = gain
                q[2 * i, a], q[2 * i, b], q[2 * i + 1, a], q[2 * i + 1, b] = c, s, -s, c


def init_text(t5, clip):
    _init_t5(t5)
    _init_clip(clip)


def pick(weight, ids):
    """weight[ids] in f32"""
    if ids.device.type == "cpu":
        return F.embedding(ids, weight)
    hot = (ids[..., None] == torch.arange(weight.shape[0], device=ids.device)).to(weight.dtype)
    return hot @ weight


def text_states(t5, clip, t5_ids, clip_ids):
    """-> [B, L, d_model], [B, hidden_size], f32"""
    with torch.autocast(t5_ids.device.type, enabled=False):
        x = pick(t5.shared.weight, t5_ids)
        table = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
        buckets = relative_buckets(t5_ids.shape[1], table.num_embeddings,
                                   t5.cfg.relative_attention_max_distance, t5_ids.device)
        bias = pick(table.weight, buckets).permute(2, 0, 1).unsqueeze(0)
        e = clip.text_model.embeddings
        y = pick(e.token_embedding.weight, clip_ids) + e.position_embedding.weight[:clip_ids.shape[1]]
    for block in t5.encoder.block:
        x = block(x, bias)
    x = t5.encoder.final_layer_norm(x)
    for layer in clip.text_model.encoder.layers:
        y = layer(y)
    y = clip.text_model.final_layer_norm(y)
    end = clip_ids == clip.cfg.eos_token_id
    first = end & (end.cumsum(1) == 1)
    return x.float(), (y.float() * first[..., None]).sum(1)


class Net(nn.Module):
    def __init__(self, mmdit, t5, clip):
        super().__init__()
        self.mmdit, self.t5, self.clip = MMDiT(mmdit), T5Encoder(t5), CLIPText(clip)
        self.double, self.single = None, None         # compiled blocks, where there are any
        self.tables = {}

    def init(self, seed):
        torch.manual_seed(seed)
        self.mmdit.init_for_training()
        # What the text says should be heard from the first step on.
        for m in (self.mmdit.vector_in, self.mmdit.time_in):
            for layer in (m.in_layer, m.out_layer):
                nn.init.normal_(layer.weight, std=layer.in_features ** -0.5)
        init_text(self.t5, self.clip)
        return self

    def compile(self):
        """Blocks of one kind share their compiled code."""
        kw = dict(dynamic=False)
        torch._dynamo.config.recompile_limit = 64
        self.double = torch.compile(lambda b, *a: b(*a), **kw)
        self.single = torch.compile(lambda b, *a: b(*a), **kw)

    def text(self, t5_ids, clip_ids):
        return text_states(self.t5, self.clip, t5_ids, clip_ids)

    def rotary(self, grid, text_length, device):
        """cos and sin for text and a grid of (frames, rows, columns) of tokens"""
        key = (grid, text_length)
        if key not in self.tables:
            axes = [torch.arange(n, device=device) for n in grid]
            ids = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(1, -1, 3).float()
            ids = torch.cat((torch.zeros(1, text_length, 3, device=device), ids), 1)
            self.tables[key] = self.mmdit.rotary(ids)
        return self.tables[key]

    def forward(self, img, grid, txt, t, vec, cond, compiled=False):
        """img [B, L, 64] f32, txt and vec from text(), t [B] -> prediction [B, L, 64] f32"""
        m = self.mmdit
        cos, sin = self.rotary(grid, txt.shape[1], img.device)
        x = (m.img_in(img) + m.cond_in(cond)).float()
        vec = (m.time_in(timestep_features(t)) + m.vector_in(vec)).float()
        y = m.txt_in(txt).float()
        double = self.double if compiled and self.double else lambda b, *a: b(*a)
        single = self.single if compiled and self.single else lambda b, *a: b(*a)
        for b in m.double_blocks:
            x, y = double(b, x, y, vec, cos, sin)
        x = torch.cat((y, x), 1)
        for b in m.single_blocks:
            x = single(b, x, vec, cos, sin)
        return m.final_layer(x[:, y.shape[1]:], vec).float()


def new_net(tokenizers, device, seed=1, tiny=False):
    return Net(*configs(tokenizers, tiny)).init(seed).to(device)


def layers(weights, prefix):
    """How many numbered layers the names of a checkpoint have"""
    return 1 + max(int(n[len(prefix):].split(".")[0]) for n in weights if n.startswith(prefix))


def alpha(tokens, frames):
    """The sampler's time shift; tokens of one latent frame, latent frames"""
    from opensora_ref import sampler
    return sampler.auto_shift(tokens, frames)


def parameters(module):
    return sum(p.numel() for p in module.parameters())


