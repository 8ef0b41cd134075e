# SPDX-License-Identifier: LGPL-2.1-or-later
"""Side by side with the original implementations.

    python check_upstream.py --upstream DIR

DIR is a checkout of https://github.com/hpcaitech/Open-Sora.  Its own modules
are imported as they are; stand-ins replace the packages that do no arithmetic
here, and the two GPU kernels (rotary embedding and RMS norm of liger_kernel,
flash attention) are written out from their documented formulas.  Needs
diffusers, einops and transformers.  Prints a table, exits with 1 if any
relative error is above the limit.
"""

import argparse
import contextlib
import importlib
import importlib.machinery
import os
import random
import sys
import types
from enum import Enum
from pathlib import Path

os.environ.setdefault("TORCH_COMPILE_DISABLE", "1")

import torch  # noqa: E402
from torch import nn  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent))

from opensora_ref import (  # noqa: E402
    AE,
    VAE,
    AEConfig,
    CLIPText,
    CLIPTextConfig,
    MMDiT,
    MMDiTConfig,
    T5Config,
    T5Encoder,
    VAEConfig,
    sampler,
)
from opensora_ref.t5 import relative_buckets  # noqa: E402

LIMIT = 1e-5


# Stand-ins


def put_module(name, path=None, **members):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    if path is not None:
        module.__path__ = [str(path)]
    module.__dict__.update(members)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        if parent not in sys.modules:
            put_module(parent, path=parent)
        setattr(sys.modules[parent], child, module)
    return module


class RopeKernel:
    """liger_kernel: halves rotated; only the first half of the tables counts."""

    @staticmethod
    def apply(q, k, cos, sin):
        half = q.shape[-1] // 2
        c, s = cos[:, None, :, :half].float(), sin[:, None, :, :half].float()

        def rotate(x):
            left, right = x[..., :half].float(), x[..., half:].float()
            return torch.cat((left * c - right * s, right * c + left * s), dim=-1).to(x.dtype)

        return rotate(q), rotate(k)


class RMSNormKernel:
    """liger_kernel, "llama" casting: normalise in float32, cast, then scale."""

    @staticmethod
    def apply(x, weight, eps, offset, casting, in_place):
        assert casting == "llama"
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps)
        return y.to(x.dtype) * (weight + offset)


def flash_attention(q, k, v):
    """[B, L, H, D]"""
    scores = torch.einsum("blhd,bmhd->bhlm", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("bhlm,bmhd->blhd", scores.softmax(-1), v)


class Registry:
    def __init__(self, *args, **kwargs):
        pass

    def register_module(self, *args, **kwargs):
        return lambda item: item


VIDEOS = {}


def import_upstream(root):
    root = Path(root)
    base = root / "opensora"
    if not base.is_dir():
        sys.exit(f"no opensora package in {root}")
    # diffusers looks for optional packages as it loads, so it goes before the stand-ins.
    for name in ("models.attention_processor", "models.modeling_utils", "loaders.single_file_model"):
        importlib.import_module(f"diffusers.{name}")
    # Packages without their __init__, which would import everything.
    put_module("opensora", base)
    for name in ("models", "models.mmdit", "models.hunyuan_vae", "models.vae", "models.text"):
        put_module(f"opensora.{name}", base / name.replace(".", "/"))
    put_module("opensora.utils", base / "utils")
    put_module("opensora.acceleration", base / "acceleration")
    put_module("opensora.datasets", base / "datasets", save_sample=None)
    # Parts of it that only touch files, logs and the network.
    put_module("opensora.utils.ckpt", load_checkpoint=None)
    put_module("opensora.utils.logger", log_message=lambda *a, **k: None)
    put_module("opensora.utils.prompt_refine", refine_prompts=None)
    put_module("opensora.models.text.conditioner", HFEmbedder=object)
    put_module(
        "opensora.datasets.utils",
        read_from_path=lambda path, size, transform_name: VIDEOS[path],
        rescale_image_by_path=None,
    )
    # Packages.
    put_module("mmengine", "mmengine")
    put_module("mmengine.config", Config=dict)
    put_module("mmengine.registry", Registry=Registry)
    put_module("peft", PeftModel=object)
    put_module("colossalai", "colossalai")
    put_module("colossalai.utils", get_current_device=lambda: torch.device("cpu"))
    put_module("flash_attn", flash_attn_func=flash_attention)
    put_module("liger_kernel", "liger_kernel")
    put_module("liger_kernel.ops", "liger_kernel/ops")
    put_module("liger_kernel.ops.rope", LigerRopeFunction=RopeKernel)
    put_module("liger_kernel.ops.rms_norm", LigerRMSNormFunction=RMSNormKernel)
    up = types.SimpleNamespace()
    up.mmdit = importlib.import_module("opensora.models.mmdit.model")
    up.vae = importlib.import_module("opensora.models.hunyuan_vae.autoencoder_kl_causal_3d")
    up.ae = importlib.import_module("opensora.models.vae.autoencoder_2d")
    up.aspect = importlib.import_module("opensora.datasets.aspect")
    up.inference = importlib.import_module("opensora.utils.inference")
    up.sampling = importlib.import_module("opensora.utils.sampling")
    assert issubclass(up.inference.SamplingMethod, Enum)
    return up


# The table


class Table:
    def __init__(self):
        self.failed = 0
        self.worst = {}
        print(f"{'part':<10} {'case':<66} {'error':>9}")

    def add(self, part, case, error):
        good = error <= LIMIT
        self.failed += not good
        self.worst[part] = max(self.worst.get(part, 0.0), error)
        print(f"{part:<10} {case:<66} {error:9.1e}{'' if good else '  FAILED'}", flush=True)

    def compare(self, part, case, ours, theirs):
        if ours.shape != theirs.shape:
            print(f"  shapes {tuple(ours.shape)} and {tuple(theirs.shape)}")
            return self.add(part, case, float("inf"))
        if theirs.numel() == 0:
            return self.add(part, case, float("inf"))
        diff = (ours.double() - theirs.double()).abs().max().item()
        self.add(part, case, diff / max(theirs.double().abs().max().item(), 1e-30))

    def same(self, part, case, ours, theirs):
        if ours != theirs:
            print(f"  {ours!r} and {theirs!r}")
        self.add(part, case, 0.0 if ours == theirs else float("inf"))


def randomise(model, seed):
    """Weights that keep activations of order one, with visible biases and norms."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
            if p.ndim > 1:
                p.mul_(p[0].numel() ** -0.5)
            else:
                p.mul_(0.2)
        for name, p in model.named_parameters():
            if p.ndim == 1 and ("norm" in name and not name.endswith("bias")):
                p.add_(1)
    return model.eval()


def share(ours, theirs, table, part, case):
    """Our state_dict loads into theirs; names and shapes are equal."""
    a = {k: tuple(v.shape) for k, v in ours.state_dict().items()}
    b = {k: tuple(v.shape) for k, v in theirs.state_dict().items()}
    for name in sorted(set(a) ^ set(b)):
        print(f"  only {'ours' if name in a else 'theirs'}: {name}")
    table.add(part, f"{case}: names and shapes", 0.0 if a == b else float("inf"))
    theirs.load_state_dict(ours.state_dict())
    return theirs.eval()


# The denoiser

TINY_MMDIT = dict(
    in_channels=16,
    vec_in_dim=20,
    context_in_dim=24,
    hidden_size=48,
    mlp_ratio=4.0,
    num_heads=3,
    depth=2,
    depth_single_blocks=2,
    axes_dim=[4, 6, 6],
    theta=10_000,
    qkv_bias=True,
    guidance_embed=False,
    cond_embed=True,
    fused_qkv=True,
    use_liger_rope=False,
)

MMDIT_CASES = [
    ("fused, interleaved", {}),
    ("split, half-split", dict(fused_qkv=False, use_liger_rope=True)),
    ("fused, half-split", dict(use_liger_rope=True)),
    ("split, interleaved, no qkv bias", dict(fused_qkv=False, qkv_bias=False)),
    ("guidance, no cond", dict(guidance_embed=True, cond_embed=False)),
    ("guidance and cond, patch 1", dict(guidance_embed=True, patch_size=1, in_channels=5)),
    ("mlp 2.5, theta 256, heads 4x20", dict(mlp_ratio=2.5, theta=256, hidden_size=80, num_heads=4, axes_dim=[8, 4, 8])),
    ("two-stream blocks alone", dict(depth_single_blocks=0)),
    ("one-stream blocks alone", dict(depth=0, fused_qkv=False)),
]


def mmdit_inputs(cfg, batch, frames, height, width, text, seed):
    g = torch.Generator().manual_seed(seed)
    ids = sampler.position_ids(batch, frames, height, width, 1)
    n = ids.shape[1]
    return dict(
        img=torch.randn(batch, n, cfg.in_channels, generator=g),
        img_ids=ids,
        txt=torch.randn(batch, text, cfg.context_in_dim, generator=g),
        txt_ids=torch.zeros(batch, text, 3),
        timesteps=torch.rand(batch, generator=g),
        y_vec=torch.randn(batch, cfg.vec_in_dim, generator=g),
        cond=torch.randn(batch, n, cfg.in_channels + cfg.patch_size**2, generator=g),
        guidance=torch.rand(batch, generator=g) * 5,
    )


def upstream_mmdit(up, cfg):
    return up.mmdit.MMDiTModel(up.mmdit.MMDiTConfig(from_pretrained=None, cache_dir=None, **cfg.to_dict()))


def check_mmdit(up, table):
    for n, (case, changes) in enumerate(MMDIT_CASES):
        cfg = MMDiTConfig(**{**TINY_MMDIT, **changes})
        ours = randomise(MMDiT(cfg), 100 + n)
        theirs = share(ours, upstream_mmdit(up, cfg), table, "mmdit", case)
        for shape in ((1, 1, 3, 5, 7), (3, 5, 2, 3, 13)):
            x = mmdit_inputs(cfg, *shape, seed=n)
            table.compare("mmdit", f"{case}: {shape}", ours(**x), theirs(**x))
    cfg = MMDiTConfig(**{**TINY_MMDIT, "fused_qkv": False, "use_liger_rope": True})
    ours = randomise(MMDiT(cfg), 7)
    x = mmdit_inputs(cfg, 2, 3, 4, 5, 9, seed=7)
    fine = ours.double()(**{k: v.double() for k, v in x.items()})
    table.compare("mmdit", "float64 against upstream's float32", fine, share_float(up, cfg, ours)(**x))


def share_float(up, cfg, ours):
    theirs = upstream_mmdit(up, cfg)
    theirs.load_state_dict({k: v.float() for k, v in ours.state_dict().items()})
    return theirs.eval()


# The autoencoder

TINY_VAE = dict(block_out_channels=[8, 8, 16, 16], norm_num_groups=4, latent_channels=4, layers_per_block=1)

VAE_CASES = [
    ("time 4", {}, [(1, 16, 24), (5, 17, 23), (9, 15, 40), (4, 9, 8)]),
    ("time 8", dict(time_compression_ratio=8), [(1, 16, 24), (9, 17, 23), (12, 15, 40)]),
    ("no mid attention", dict(mid_block_add_attention=False), [(1, 16, 16), (6, 19, 16)]),
    (
        "3 stages, space 4, groups 2, shift",
        dict(
            block_out_channels=[6, 8, 10],
            norm_num_groups=2,
            spatial_compression_ratio=4,
            layers_per_block=2,
            shift_factor=0.3,
            scale_factor=1.7,
        ),
        [(1, 8, 12), (7, 11, 9)],
    ),
    (
        "5 stages, space 16, time 8",
        dict(block_out_channels=[4, 8, 8, 8, 16], spatial_compression_ratio=16, time_compression_ratio=8),
        [(1, 33, 16), (17, 16, 18)],
    ),
    (
        "1 channel in, 2 out, space 8 in 4 stages, time 4",
        dict(in_channels=1, out_channels=2, block_out_channels=[4, 4, 8, 12], norm_num_groups=4),
        [(3, 21, 10)],
    ),
]

TILE_CASES = [
    # spatial, temporal, changes, video
    (True, False, dict(sample_size=32), (1, 40, 72)),
    (True, False, dict(sample_size=32), (5, 72, 33)),
    (True, False, dict(sample_size=64, tile_overlap_factor=0.5), (1, 65, 80)),
    (True, False, dict(sample_size=32), (5, 32, 32)),
    (False, True, dict(sample_tsize=16), (17, 16, 24)),
    (False, True, dict(sample_tsize=16), (25, 17, 16)),
    (False, True, dict(sample_tsize=16), (33, 16, 16)),
    (False, True, dict(sample_tsize=16), (16, 16, 16)),
    (True, True, dict(sample_size=32, sample_tsize=16), (21, 40, 33)),
    (True, True, dict(sample_size=32, sample_tsize=16, time_compression_ratio=8), (33, 33, 32)),
    (False, True, dict(sample_tsize=32, tile_overlap_factor=0.5, time_compression_ratio=8), (49, 8, 16)),
]


def upstream_vae(up, cfg):
    return up.vae.AutoencoderKLCausal3D(up.vae.AutoEncoder3DConfig(from_pretrained=None, **cfg.to_dict()))


def vae_pair(up, changes, seed, table, case):
    cfg = VAEConfig(**{**TINY_VAE, **changes})
    ours = randomise(VAE(cfg), seed)
    return cfg, ours, share(ours, upstream_vae(up, cfg), table, "vae", case)


def compare_vae(table, case, cfg, ours, theirs, shape):
    g = torch.Generator().manual_seed(sum(shape))
    x = torch.randn(2 if shape[0] == 1 else 1, cfg.in_channels, *shape, generator=g)
    z, posterior = theirs.encode(x, sample_posterior=False, return_posterior=True)
    mean, logvar = ours.encode_moments(x)
    table.compare("vae", f"{case}: {shape} mean", mean, posterior.mean)
    table.compare("vae", f"{case}: {shape} logvar", logvar, posterior.logvar)
    table.compare("vae", f"{case}: {shape} latent", ours.encode(x), z)
    z = torch.randn(z.shape, generator=g)
    table.compare("vae", f"{case}: {shape} decoded", ours.decode(z), theirs.decode(z))


def check_vae(up, table):
    for n, (case, changes, shapes) in enumerate(VAE_CASES):
        cfg, ours, theirs = vae_pair(up, changes, 200 + n, table, case)
        for shape in shapes:
            compare_vae(table, case, cfg, ours, theirs, shape)
    x = torch.randn(2, cfg.in_channels, 3, 16, 16)
    a = ours.encode(x, sample=True, generator=torch.Generator().manual_seed(5))
    b = theirs.encode(x, generator=torch.Generator().manual_seed(5))
    table.compare("vae", "a draw from the posterior", a, b)
    with torch.no_grad():
        for p in (ours.quant_conv.weight, theirs.quant_conv.weight):
            p.mul_(200)
    a, b = ours.encode_moments(x)[1], theirs.encode(x, return_posterior=True)[1].logvar
    assert a.max() == 20 and a.min() == -30
    table.compare("vae", "clamped logvar", a, b)
    for n, (space, time, changes, shape) in enumerate(TILE_CASES):
        changes = {**changes, "use_spatial_tiling": space, "use_temporal_tiling": time}
        case = f"tiles {'HW' if space else ''}{'T' if time else ''} {changes.get('time_compression_ratio', 4)}"
        cfg, ours, theirs = vae_pair(up, changes, 300 + n, table, case)
        compare_vae(table, case, cfg, ours, theirs, shape)


# FLUX.1's autoencoder

AE_CASES = [
    ("as published, narrow", dict(ch=32, ch_mult=[1, 2, 4, 4], num_res_blocks=2), [(1, 16, 24), (3, 24, 8)]),
    ("3 stages, shift", dict(ch=32, ch_mult=[2, 1, 2], num_res_blocks=1, z_channels=4), [(2, 8, 12), (1, 20, 4)]),
    ("1 stage", dict(ch=64, ch_mult=[1], num_res_blocks=1, in_channels=1, out_ch=2), [(1, 5, 7)]),
]


def check_ae(up, table):
    for n, (case, changes, shapes) in enumerate(AE_CASES):
        cfg = AEConfig(**changes)
        known = {k: v for k, v in cfg.to_dict().items() if k != "norm_num_groups"}
        ours = randomise(AE(cfg), 350 + n)
        upstream = up.ae.AutoEncoder(up.ae.AutoEncoderConfig(None, None, resolution=64, **known))
        theirs = share(ours, upstream, table, "ae", case)
        for shape in shapes:
            g = torch.Generator().manual_seed(sum(shape))
            x = torch.randn(2, cfg.in_channels, *shape, generator=g)
            theirs.sample = False
            z, posterior = theirs.encode_(x)
            mean, logvar = ours.encode_moments(x)
            table.compare("ae", f"{case}: {shape} mean", mean, posterior.mean)
            table.compare("ae", f"{case}: {shape} logvar", logvar, posterior.logvar)
            table.compare("ae", f"{case}: {shape} latent", ours.encode(x), z)
            z = torch.randn(z.shape, generator=g)
            table.compare("ae", f"{case}: {shape} decoded", ours.decode(z), theirs.decode(z))
    theirs.sample = True
    torch.manual_seed(5)
    b = theirs.encode(x)
    torch.manual_seed(5)
    table.compare("ae", "a draw from the posterior", ours.encode(x, sample=True), b)


# The text encoders


def check_text(table):
    from transformers import CLIPTextConfig as HFCLIPTextConfig
    from transformers import CLIPTextModel, T5EncoderModel
    from transformers import T5Config as HFT5Config
    from transformers.models.t5.modeling_t5 import T5Attention as HFBias

    for n, changes in enumerate(({}, dict(num_heads=5, d_kv=6, num_layers=3))):
        cfg = T5Config(**{**dict(vocab_size=90, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=3), **changes})
        ours = randomise(T5Encoder(cfg), 400 + n)
        kind = dict(feed_forward_proj="gated-gelu", attn_implementation="eager")
        theirs = T5EncoderModel(HFT5Config(**cfg.to_dict(), **kind))
        names = {k for k in theirs.state_dict() if k != "encoder.embed_tokens.weight"}
        table.same("t5", f"{changes}: names", sorted(ours.state_dict()), sorted(names))
        theirs.load_state_dict({**ours.state_dict(), "encoder.embed_tokens.weight": ours.shared.weight})
        for length in (1, 2, 37, 300):
            ids = torch.randint(0, 90, (2, length), generator=torch.Generator().manual_seed(length))
            b = theirs.eval()(input_ids=ids, attention_mask=None).last_hidden_state
            table.compare("t5", f"{changes}: {length} tokens", ours(ids), b)
    far = HFBias._relative_position_bucket(torch.arange(-999, 1000), True, 32, 128)
    near = relative_buckets(1000, 32, 128)
    table.compare("t5", "buckets of offsets up to 999", torch.cat((near[999, :999], near[0])), far)
    for n, (changes, end) in enumerate((({}, 89), (dict(eos_token_id=2), 89), (dict(hidden_act="gelu"), 89))):
        base = dict(
            vocab_size=90,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            eos_token_id=89,
            bos_token_id=88,
            max_position_embeddings=20,
        )
        cfg = CLIPTextConfig(**{**base, **changes})
        ours = randomise(CLIPText(cfg), 500 + n)
        theirs = CLIPTextModel(HFCLIPTextConfig(**cfg.to_dict(), pad_token_id=1)).eval()
        drop = [k for k in theirs.state_dict() if k.endswith("position_ids")]
        prefix = "" if any(k.startswith("text_model.") for k in theirs.state_dict()) else "text_model."
        names = sorted(prefix + k for k in theirs.state_dict() if k not in drop)
        table.same("clip", f"{changes}: names", sorted(ours.state_dict()), names)
        state = {k.removeprefix(prefix) if prefix else k: v for k, v in ours.state_dict().items()}
        theirs.load_state_dict(state, strict=not drop)
        g = torch.Generator().manual_seed(n)
        for length, ends in ((20, (19, 4)), (9, (8, 2)), (3, (2, 1))):
            ids = torch.randint(3, 80, (2, length), generator=g)
            ids[0, ends[0] :], ids[1, ends[1] :] = end, end
            b = theirs(input_ids=ids)
            hidden, pooled = ours(ids)
            table.compare("clip", f"{changes}: {length} tokens, hidden", hidden, b.last_hidden_state)
            table.compare("clip", f"{changes}: {length} tokens, pooled", pooled, b.pooler_output)


# The sampler


def ours_768(ratio):
    return sampler.picture_size_table(sampler.pixel_budget("768px"))[ratio]


def check_tables(up, table):
    wrong = 0
    cases = 0
    for steps in (1, 4, 30, 50):
        for tokens in (1, 240, 256, 1024, 3072, 5000):
            for frames in (1, 5, 33):
                for kw in ({}, {"shift": False}, {"alpha": 2.5}):
                    theirs = {("shift_alpha" if k == "alpha" else k): v for k, v in kw.items()}
                    a = sampler.get_schedule(steps, tokens, frames, **kw)
                    b = up.sampling.get_schedule(steps, tokens, frames, **theirs)
                    wrong += a != b
                    cases += 1
    table.add("sampler", f"{cases} schedules, equal", float("inf") if wrong else 0.0)
    wrong, cases = 0, 0
    for multiple in (16, 32, 64):
        os.environ["AE_SPATIAL_COMPRESSION"] = str(multiple)
        for name in ("144p", "240p", "256px", "360p", "480p", "512px", "720p", "768px", "1024px", "1080p", "333px"):
            pixels = up.aspect.get_num_pexels_from_name(name)
            theirs = up.aspect.get_aspect_ratios_dict(pixels, training=False)
            ours = sampler.size_table(sampler.pixel_budget(name), multiple)
            wrong += list(ours.items()) != list(theirs.items())
            for ratio in theirs:
                a = sampler.get_image_size(name, ratio, multiple)
                b = up.aspect.get_image_size(name, ratio, training=False)
                wrong += a != b
                cases += 1
    del os.environ["AE_SPATIAL_COMPRESSION"]
    table.add("sampler", f"{cases} sizes, equal", float("inf") if wrong else 0.0)
    wrong, cases = 0, 0
    for name in ("144p", "256px", "360p", "480p", "512px", "720p", "768px", "1080p"):
        pixels = up.aspect.get_num_pexels_from_name(name)
        ours = sampler.picture_size_table(pixels)
        # Upstream leaves out names whose size is another's already.
        for ratio, size in up.aspect.get_aspect_ratios_dict(pixels).items():
            wrong += ours[ratio] != size
            cases += 1
    table.add("sampler", f"{cases} sizes of pictures, equal", float("inf") if wrong else 0.0)
    option = up.sampling.SamplingOption
    clip = option(resolution="256px", aspect_ratio="2:1", num_frames=129, num_steps=30, guidance=7.5, seed=5)
    picture = up.inference.modify_option_to_t2i(clip, distilled=True, img_resolution="768px")
    got = (picture.height, picture.width, picture.num_frames, picture.num_steps, picture.guidance, picture.seed)
    table.same("sampler", "the option of a picture", got, (*ours_768(ratio="2:1"), 1, 30, 4.0, 5))
    table.same("sampler", "never scaled by itself", picture.resolution, picture.resized_resolution)
    wrong = 0
    for h, w in ((1, 16), (17, 256), (255, 257), (768, 300)):
        b = up.sampling.sanitize_sampling_option(option(height=h, width=w))
        wrong += sampler.round_size(h, w) != (b.height, b.width)
    table.add("sampler", "rounded sizes, equal", float("inf") if wrong else 0.0)
    x = torch.randn(2, 3, 4, 6, 10)
    table.compare("sampler", "token order", sampler.pack(x), up.sampling.pack(x))
    table.compare("sampler", "token order back", sampler.unpack(sampler.pack(x), 4, 6, 10), x)
    b = up.sampling.prepare_ids(x, torch.zeros(2, 3, 4), torch.zeros(2, 4))["img_ids"]
    table.compare("sampler", "position ids", sampler.position_ids(2, 4, 6, 10), b)
    for condition in sampler.CONDITIONS:
        for causal in (True, False):
            k = 1 if "i2v" in condition else (16 if "easy" in condition else 8) + causal
            z = torch.randn(3, 4, 19, 4, 6)
            refs = [[torch.randn(4, k, 4, 6), torch.randn(4, k, 4, 6)], None, [torch.randn(4, k + 1, 4, 6)]]
            ours = sampler.prepare_inference_condition(z, condition, refs, causal)
            with contextlib.redirect_stdout(None):  # it reports the missing reference
                theirs = up.sampling.prepare_inference_condition(z, condition, refs, causal)
            same = all(torch.equal(a, b) for a, b in zip(ours, theirs))
            case = f"condition {condition}, {'causal' if causal else 'not causal'}, equal"
            table.add("sampler", case, 0.0 if same else float("inf"))


class Pretend(nn.Module):
    """An autoencoder whose latents are the pixels, every fourth frame of them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.latent = None

    def encode(self, x):
        return torch.cat((x, x.flip(1)[:, :1]), dim=1)[:, :, ::4, ::8, ::8]

    def decode(self, z):
        self.latent = z
        return z


def check_loops(up, table):
    """The whole of upstream's sampling function, the text encoders and the
    autoencoder apart, against ours."""
    cfg = MMDiTConfig(**{**TINY_MMDIT, "fused_qkv": False, "use_liger_rope": True})
    ours = randomise(MMDiT(cfg), 600)
    theirs = share(ours, upstream_mmdit(up, cfg), table, "sampler", "loop")
    height, width, frames = 32, 64, 73
    g = torch.Generator().manual_seed(1)
    VIDEOS["a"] = torch.randn(3, 80, height, width, generator=g)
    VIDEOS["b"] = torch.randn(3, 80, height, width, generator=g)
    table_of = {t: torch.randn(7, 24, generator=g) for t in ("prompt", "other", "", "bad")}
    pool_of = {t: torch.randn(20, generator=g) for t in table_of}

    def t5(prompts, **kw):
        return torch.stack([table_of[p] for p in prompts])

    def clip(prompts):
        return torch.stack([pool_of[p] for p in prompts])

    runs = [(c, 1, dict(text_osci=True, image_osci=True, scale_temporal_osci=True), 14) for c in sampler.CONDITIONS]
    runs += [
        ("i2v_head", 1, {}, 3),
        ("i2v_tail", 1, dict(scale_temporal_osci=True, guidance_img=1.0), 3),
        ("t2v", 1, dict(shift=False, guidance=1.0), 3),
        ("t2v", 2, dict(flow_shift=5.0, text_osci=True), 12),
        ("i2v_loop", 2, dict(scale_temporal_osci=True), 3),
    ]
    for condition, batch, changes, steps in runs:
        option = up.sampling.SamplingOption(
            **{
                **dict(
                    height=height,
                    width=width,
                    num_frames=frames,
                    num_steps=steps,
                    guidance=7.5,
                    guidance_img=3.0,
                    temporal_reduction=4,
                    is_causal_vae=True,
                    method=up.inference.SamplingMethod.I2V,
                ),
                **changes,
            }
        )
        ae = Pretend()
        api = up.sampling.prepare_api(theirs, ae, t5, clip, {})
        paths = ["a;b" if condition == "i2v_loop" else "a", "b;a"][:batch]
        kw = {} if condition == "t2v" else {"ref": list(paths)}
        text, neg = ["prompt", "other"][:batch], ["bad", ""][:batch]
        api(option, cond_type=condition, seed=3, text=text, neg=neg, patch_size=2, channel=16, **kw)

        t = sampler.latent_frames(frames, 4)
        noise = up.sampling.get_noise(batch, height, width, t, "cpu", torch.float32, 3, 2, 4)
        assert noise.shape == sampler.noise_shape(batch, t, height, width, 4)
        refs = [None] * batch
        for n, path in enumerate(paths if condition != "t2v" else []):
            clips = [VIDEOS[p] for p in path.split(";")]
            if condition.startswith("v2v"):
                count = sampler.reference_pixel_frames(condition, 80)
                clips = [clips[0][:, :count] if "head" in condition else clips[0][:, -count:]]
            elif condition == "i2v_tail":
                clips = [clips[-1][:, -1:]]
            else:
                clips = [clips[0][:, :1]] + [c[:, -1:] for c in clips[1:]]
            refs[n] = [ae.encode(c.unsqueeze(0)).squeeze(0) for c in clips]
        masks, values = sampler.prepare_inference_condition(noise, condition, refs)
        prompts = text + neg + neg
        tokens = noise.shape[-1] * noise.shape[-2] // 4
        times = sampler.get_schedule(steps, tokens, t, option.flow_shift, option.shift)
        x = sampler.denoise(
            ours,
            noise,
            t5(prompts),
            clip(prompts),
            times,
            option.guidance,
            option.guidance_img,
            masks,
            values,
            text_osci=option.text_osci,
            image_osci=option.image_osci,
            scale_temporal_osci=option.scale_temporal_osci and "i2v" in condition,
        )
        x = sampler.put_reference_frames(x, condition, refs)
        short = "".join(f", {k}={v}" for k, v in changes.items())
        short = ", all oscillations" if len(changes) == 3 else short
        # What the decoder is given.
        table.compare("sampler", f"loop {condition}, batch {batch}, {steps} steps{short}", x, ae.latent)

    cfg = MMDiTConfig(**{**TINY_MMDIT, "guidance_embed": True, "cond_embed": False})
    ours = randomise(MMDiT(cfg), 601)
    theirs = share(ours, upstream_mmdit(up, cfg), table, "sampler", "distilled loop")
    ae = Pretend()
    option = up.sampling.SamplingOption(
        height=48, width=64, num_frames=1, num_steps=8, guidance=4.0, method=up.inference.SamplingMethod.DISTILLED
    )
    # Upstream's loop passes every argument on; the model ignores what it does not know.
    up.sampling.prepare_api(theirs, ae, t5, clip, {})(option, seed=4, text=["prompt", "bad"], channel=16)
    noise = up.sampling.get_noise(2, 48, 64, 1, "cpu", torch.float32, 4, 2, 4)
    times = sampler.get_schedule(8, noise.shape[-1] * noise.shape[-2] // 4, 1)
    x = sampler.denoise_distilled(ours, noise, t5(["prompt", "bad"]), clip(["prompt", "bad"]), times, 4.0)
    table.compare("sampler", "distilled loop, 8 steps, batch 2", x, ae.latent)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", required=True, metavar="DIR")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    random.seed(0)
    check = Table()
    with torch.no_grad():
        check_text(check)
        up = import_upstream(args.upstream)
        check_mmdit(up, check)
        check_vae(up, check)
        check_ae(up, check)
        check_tables(up, check)
        check_loops(up, check)
    print()
    for part, error in check.worst.items():
        print(f"{part:<10} worst {error:.1e}")
    print(f"{check.failed} failed" if check.failed else "all within the limit")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
