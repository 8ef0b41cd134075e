# SPDX-License-Identifier: LGPL-2.1-or-later
"""Golden tensors for the tests of the engine.

    python make_golden.py            writes tests/data/golden
    python make_golden.py --check    computes everything again and compares
    python make_golden.py --errors   what float32 and bfloat16 lose on each file
    python make_golden.py --list     names and sizes

One file a case, ``<part>-<case>.safetensors``: the weights ``w.<name>``, the
inputs ``in.<name>``, the results ``out.<name>``; the metadata has "part",
"case" and "config", a JSON object.  Weights and inputs are float32 numbers
(ids int32), the results are computed from them in float64 and stored as
float32.  Random numbers come from numpy's PCG64 with fixed seeds.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

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
    philox,
    sampler,
)
from opensora_ref.mmdit import RotaryTable, timestep_features  # noqa: E402
from opensora_ref.t5 import relative_buckets  # noqa: E402

FOLDER = Path(__file__).resolve().parent.parent / "data" / "golden"
TOLERANCE = 1e-6  # of --check, relative to the largest value of a tensor

CASES = {}


def case(name):
    """Registers a function that returns the contents of one file."""

    def register(function):
        CASES[name] = function
        return function

    return register


class Random:
    def __init__(self, seed):
        self.rng = np.random.Generator(np.random.PCG64(seed))

    def normal(self, *shape):
        """float32 values, held as float64."""
        return torch.from_numpy(self.rng.standard_normal(shape).astype(np.float32)).double()

    def uniform(self, *shape):
        return torch.from_numpy(self.rng.random(shape).astype(np.float32)).double()

    def integers(self, low, high, *shape):
        return torch.from_numpy(self.rng.integers(low, high, shape))

    def weights(self, model):
        """Fills a model so that activations stay of order one and every bias
        and norm weight counts."""
        for name, p in model.named_parameters():
            value = self.normal(*p.shape)
            if p.ndim > 1:
                value /= p[0].numel() ** 0.5
            elif "norm" in name and not name.endswith("bias"):
                value = 1 + 0.2 * value
            else:
                value *= 0.2
            p.data = value.float().double()
        return model.eval()


def golden(config, inputs, outputs, model=None):
    tensors = {f"w.{k}": v for k, v in model.state_dict().items()} if model is not None else {}
    tensors.update({f"in.{k}": v for k, v in inputs.items() if v is not None})
    tensors.update({f"out.{k}": v for k, v in outputs.items()})
    return config, {k: as_stored(v) for k, v in tensors.items()}


def as_stored(x):
    x = x.detach()
    x = x.float() if x.is_floating_point() else x.int()
    return np.ascontiguousarray(x.numpy())


# The denoiser


def mmdit_case(seed, batch, grid, text, one_time=False, **changes):
    base = dict(
        in_channels=16,
        vec_in_dim=12,
        context_in_dim=20,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        axes_dim=[4, 6, 6],
        theta=10_000,
        qkv_bias=True,
        guidance_embed=False,
        cond_embed=False,
        fused_qkv=True,
        use_liger_rope=False,
        patch_size=2,
    )
    cfg = MMDiTConfig(**{**base, **changes})
    r = Random(seed)
    model = r.weights(MMDiT(cfg).double())
    ids = sampler.position_ids(batch, *grid, patch_size=1, dtype=torch.float64)
    n = ids.shape[1]
    inputs = dict(
        img=r.normal(batch, n, cfg.in_channels),
        img_ids=ids,
        txt=r.normal(batch, text, cfg.context_in_dim),
        txt_ids=torch.zeros(batch, text, 3, dtype=torch.float64),
        timesteps=r.uniform(batch),
        y_vec=r.normal(batch, cfg.vec_in_dim),
        cond=r.normal(batch, n, cfg.in_channels + cfg.patch_size**2) if cfg.cond_embed else None,
        guidance=1 + 4 * r.uniform(batch) if cfg.guidance_embed else None,
    )
    inputs = {k: v.float().double() for k, v in inputs.items() if v is not None}
    if one_time:
        inputs["timesteps"][:] = inputs["timesteps"][0]
    trace = {}
    outputs = {"pred": model(**inputs, trace=trace), "vec": trace["vec"]}
    for b in range(cfg.depth):
        outputs[f"block.{b}.img"] = trace[f"double.{b}.img"]
        outputs[f"block.{b}.txt"] = trace[f"double.{b}.txt"]
    for b in range(cfg.depth_single_blocks):
        x = trace[f"single.{b}.x"]
        outputs[f"block.{cfg.depth + b}.txt"] = x[:, :text]
        outputs[f"block.{cfg.depth + b}.img"] = x[:, text:]
    return golden({**cfg.to_dict(), "grid": list(grid)}, inputs, outputs, model)


@case("mmdit-fused")
def _():
    return mmdit_case(11, 1, (3, 2, 5), 7, mlp_ratio=1.0, depth_single_blocks=2)


@case("mmdit-split")
def _():
    return mmdit_case(
        12, 2, (2, 3, 3), 5, one_time=True, fused_qkv=False, use_liger_rope=True, cond_embed=True, mlp_ratio=1.5
    )


@case("mmdit-guidance")
def _():
    return mmdit_case(
        13,
        3,
        (1, 3, 5),
        9,
        fused_qkv=False,
        qkv_bias=False,
        guidance_embed=True,
        hidden_size=24,
        num_heads=3,
        mlp_ratio=1.0,
        axes_dim=[2, 2, 4],
    )


@case("mmdit-patch1")
def _():
    return mmdit_case(
        14,
        1,
        (2, 5, 4),
        1,
        use_liger_rope=True,
        cond_embed=True,
        guidance_embed=True,
        patch_size=1,
        in_channels=5,
        hidden_size=16,
        num_heads=1,
        theta=256,
    )


@case("tables-mmdit")
def _():
    t = torch.tensor([0.0, 1e-3, 0.25, 0.7315, 1.0, 7.5]).double()
    ids = torch.tensor([[[0, 0, 0], [1, 2, 3], [32, 47, 84], [5, 0, 63]]]).double()
    out = {"features": timestep_features(t)}
    config = dict(axes_dim=[16, 56, 56], theta=10_000, features=256)
    for name, half in (("interleaved", False), ("half_split", True)):
        cos, sin = RotaryTable(config["axes_dim"], config["theta"], half)(ids)
        out[f"cos.{name}"], out[f"sin.{name}"] = cos[:, 0], sin[:, 0]
    return golden(config, {"t": t, "ids": ids}, out)


# The autoencoder


def vae_case(seed, video, latent, trace=False, sample=False, **changes):
    base = dict(
        block_out_channels=[4, 4, 4, 8], norm_num_groups=2, latent_channels=4, layers_per_block=1, shift_factor=0.125
    )
    cfg = VAEConfig(**{**base, **changes})
    r = Random(seed)
    model = r.weights(VAE(cfg).double())
    x = r.normal(video[0], cfg.in_channels, *video[1:])
    z = r.normal(latent[0], cfg.latent_channels, *latent[1:])
    noise = r.normal(*z.shape) if sample else None
    outputs = {}
    watched = {}
    if trace:
        for part, side in (("encoder", model.encoder), ("decoder", model.decoder)):
            watched[f"{part}.conv_in"] = side.conv_in
            watched[f"{part}.mid_block"] = side.mid_block
            stages = side.down_blocks if part == "encoder" else side.up_blocks
            word = "down_blocks" if part == "encoder" else "up_blocks"
            watched.update({f"{part}.{word}.{n}": stage for n, stage in enumerate(stages)})
    hooks = [
        m.register_forward_hook(lambda _m, _i, out, name=name: outputs.update({name: out}))
        for name, m in watched.items()
    ]
    outputs["moments"] = model.raw_moments(x)
    outputs["latent"] = model.encode(x)
    if sample:
        outputs["sample"] = model.encode(x, noise=noise)
    outputs["video"] = model.decode(z)
    for hook in hooks:
        hook.remove()
    return golden(cfg.to_dict(), {"video": x, "latent": z, "noise": noise}, outputs, model)


@case("vae-t1")
def _():
    return vae_case(21, (1, 1, 16, 24), (1, 1, 2, 3), trace=True, sample=True, block_out_channels=[4, 4, 4, 4])


@case("vae-t5")
def _():
    return vae_case(22, (1, 5, 24, 8), (1, 2, 1, 3), trace=True, block_out_channels=[4, 8, 4, 4])


@case("vae-t9-odd")
def _():
    return vae_case(23, (1, 9, 8, 24), (1, 3, 3, 1), block_out_channels=[4, 4, 4, 4], norm_num_groups=4)


@case("vae-no-attention")
def _():
    # Two layers in a stage as well.
    plain = dict(block_out_channels=[4, 4, 4, 4], layers_per_block=2, mid_block_add_attention=False)
    return vae_case(24, (1, 5, 16, 16), (1, 2, 2, 1), **plain)


@case("vae-time8")
def _():
    return vae_case(25, (1, 9, 16, 8), (1, 2, 1, 2), block_out_channels=[4, 4, 4, 4], time_compression_ratio=8)


@case("vae-stages3")
def _():
    return vae_case(27, (1, 5, 8, 12), (1, 2, 3, 2), block_out_channels=[4, 4, 4], spatial_compression_ratio=4)


TILED = dict(block_out_channels=[4, 4, 4, 4])


@case("vae-tiles-space")
def _():
    return vae_case(28, (1, 1, 40, 56), (1, 1, 7, 5), **TILED, sample_size=32, use_spatial_tiling=True)


@case("vae-tiles-time")
def _():
    return vae_case(29, (1, 29, 8, 8), (1, 8, 1, 1), **TILED, sample_tsize=16, use_temporal_tiling=True)


@case("vae-tiles-both")
def _():
    return vae_case(
        30,
        (1, 17, 24, 8),
        (1, 5, 3, 1),
        **TILED,
        sample_size=16,
        sample_tsize=16,
        tile_overlap_factor=0.5,
        use_spatial_tiling=True,
        use_temporal_tiling=True,
    )


# FLUX.1's autoencoder


def ae_case(seed, video, latent, sample=False, **changes):
    """``latent``: the latent itself, or its [N, T, H, W]."""
    base = dict(ch=4, ch_mult=[1, 2, 1], num_res_blocks=1, z_channels=4, norm_num_groups=2)
    cfg = AEConfig(**{**base, **changes})
    r = Random(seed)
    model = r.weights(AE(cfg).double())
    x = r.normal(video[0], cfg.in_channels, *video[1:])
    z = latent if torch.is_tensor(latent) else r.normal(latent[0], cfg.z_channels, *latent[1:])
    outputs = {"moments": model.raw_moments(x), "latent": model.encode(x), "video": model.decode(z)}
    noise = r.normal(*outputs["latent"].shape) if sample else None
    if sample:
        outputs["sample"] = model.encode(x, noise=noise)
    return golden(cfg.to_dict(), {"video": x, "latent": z, "noise": noise}, outputs, model)


@case("ae-picture")
def _():
    return ae_case(81, (1, 1, 12, 20), (1, 1, 3, 2), sample=True)


@case("ae-frames")
def _():
    # As deep as the published one; three frames that know nothing of each other.
    return ae_case(82, (1, 3, 16, 8), (1, 3, 2, 1), ch_mult=[1, 2, 4, 4], ch=2, in_channels=1)


@case("ae-flux")
def _():
    """The latent is the one of sampler-flux: what became of its noise as a picture."""
    _, tensors = CASES["sampler-flux"]()
    return ae_case(83, (1, 1, 8, 8), torch.from_numpy(tensors["out.latent"]).double(), out_ch=3)


# The text encoders


def t5_case(seed, batch, length, **changes):
    base = dict(vocab_size=40, d_model=24, d_kv=8, d_ff=40, num_layers=2, num_heads=3)
    cfg = T5Config(**{**base, **changes})
    r = Random(seed)
    model = r.weights(T5Encoder(cfg).double())
    ids = r.integers(0, cfg.vocab_size, batch, length)
    return golden(cfg.to_dict(), {"ids": ids}, {"hidden": model(ids)}, model)


@case("t5-len1")
def _():
    return t5_case(41, 1, 1, num_layers=1)


@case("t5-len37")
def _():
    return t5_case(42, 2, 37)


@case("t5-heads5")
def _():
    return t5_case(43, 1, 13, num_heads=5, d_kv=6, d_ff=30)


@case("tables-t5")
def _():
    """The bucket of every offset key - query from -299 to 299."""
    n = 300
    table = relative_buckets(n, 32, 128)
    row = torch.cat((table[n - 1, : n - 1], table[0]))
    return golden(dict(num_buckets=32, max_distance=128, first=1 - n, last=n - 1), {}, {"buckets": row})


def clip_case(seed, ids, **changes):
    base = dict(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
        bos_token_id=38,
        eos_token_id=39,
    )
    cfg = CLIPTextConfig(**{**base, **changes})
    model = Random(seed).weights(CLIPText(cfg).double())
    hidden, pooled = model(ids)
    return golden(cfg.to_dict(), {"ids": ids}, {"hidden": hidden, "pooled": pooled}, model)


def clip_ids(seed, ends, length, pad):
    ids = Random(seed).integers(3, 37, len(ends), length)
    for row, end in zip(ids, ends):
        row[0] = 38
        if end is not None:
            row[end] = 39
            row[end + 1 :] = pad
    return ids


@case("clip-eos")
def _():
    # The end in the middle, at the end, and missing.
    return clip_case(51, clip_ids(1, (6, 15, None), 16, 39), intermediate_size=40)


@case("clip-legacy")
def _():
    # eos_token_id 2: the largest id counts, not the id 2 before it.
    ids = clip_ids(2, (7, 11), 12, 0)
    ids[:, 3] = 2
    return clip_case(52, ids, eos_token_id=2, num_hidden_layers=1)


@case("clip-gelu")
def _():
    return clip_case(53, clip_ids(3, (3,), 5, 39), hidden_act="gelu", num_hidden_layers=1, hidden_size=24)


# The sampler


def loop_case(seed, condition, frames=5, steps=14, references=(), batch=1, **changes):
    cfg = MMDiTConfig(
        in_channels=16,
        vec_in_dim=12,
        context_in_dim=20,
        hidden_size=16,
        mlp_ratio=2.0,
        num_heads=1,
        depth=1,
        depth_single_blocks=0,
        axes_dim=[4, 6, 6],
        qkv_bias=True,
        cond_embed=True,
        fused_qkv=False,
        use_liger_rope=True,
        patch_size=2,
    )
    option = dict(
        condition=condition,
        num_steps=steps,
        guidance=7.5,
        guidance_img=3.0,
        text_osci=False,
        image_osci=False,
        scale_temporal_osci=False,
        shift=True,
        flow_shift=None,
        causal=True,
    )
    option.update(changes)
    r = Random(seed)
    model = r.weights(MMDiT(cfg).double())
    height, width, channels = 4, 6, cfg.in_channels // cfg.patch_size**2
    noise = r.normal(batch, channels, frames, height, width)
    txt, y_vec = r.normal(2 * batch, 6, cfg.context_in_dim), r.normal(2 * batch, cfg.vec_in_dim)
    txt, y_vec = (torch.cat((v, v[batch:])) for v in (txt, y_vec))
    refs = [r.normal(channels, n, height, width) for n in references]
    rows = [refs or None] + [None] * (batch - 1)
    masks, values = sampler.prepare_inference_condition(noise, condition, rows, option["causal"])
    tokens = height * width // cfg.patch_size**2
    times = sampler.get_schedule(steps, tokens, frames, option["flow_shift"], option["shift"])
    states = {}
    latent = sampler.denoise(
        model,
        noise,
        txt,
        y_vec,
        times,
        option["guidance"],
        option["guidance_img"],
        masks,
        values,
        option["text_osci"],
        option["image_osci"],
        option["scale_temporal_osci"],
        cfg.patch_size,
        on_step=lambda n, x: states.update({n: x}),
    )
    inputs = dict(noise=noise, txt=txt, y_vec=y_vec)
    for name, ref in zip(("ref", "ref_tail"), refs):
        inputs[name] = ref
    outputs = dict(
        timesteps=torch.tensor(times, dtype=torch.float64),
        masks=masks,
        masked_ref=values,
        latent=latent,
        final=sampler.put_reference_frames(latent, condition, rows),
    )
    outputs["step.0"] = states[0]
    if steps > 12:
        outputs["step.10"], outputs["step.11"] = states[10], states[11]
    return golden({"model": cfg.to_dict(), "sampling": option}, inputs, outputs, model)


EVERYTHING = dict(text_osci=True, image_osci=True, scale_temporal_osci=True)


@case("sampler-t2v")
def _():
    return loop_case(61, "t2v", frames=3, text_osci=True, image_osci=True)


@case("sampler-i2v-head")
def _():
    return loop_case(63, "i2v_head", references=(1,), **EVERYTHING)


@case("sampler-i2v-tail")
def _():
    return loop_case(64, "i2v_tail", references=(1,), flow_shift=3.0, **EVERYTHING)


@case("sampler-i2v-loop")
def _():
    return loop_case(65, "i2v_loop", references=(1, 1), **EVERYTHING)


@case("sampler-v2v-head")
def _():
    return loop_case(66, "v2v_head", frames=11, references=(9,), text_osci=True, image_osci=True)


@case("sampler-v2v-tail")
def _():
    return loop_case(67, "v2v_tail", frames=10, references=(9,), steps=4, shift=False)


@case("sampler-distilled")
def _():
    cfg = MMDiTConfig(
        in_channels=16,
        vec_in_dim=12,
        context_in_dim=20,
        hidden_size=16,
        mlp_ratio=2.0,
        num_heads=1,
        depth=0,
        depth_single_blocks=1,
        axes_dim=[4, 6, 6],
        guidance_embed=True,
        cond_embed=False,
        fused_qkv=True,
        use_liger_rope=False,
    )
    r = Random(68)
    model = r.weights(MMDiT(cfg).double())
    noise, txt, y_vec = r.normal(2, 4, 1, 4, 6), r.normal(2, 6, cfg.context_in_dim), r.normal(2, cfg.vec_in_dim)
    times = sampler.get_schedule(4, 6, 1)
    latent = sampler.denoise_distilled(model, noise, txt, y_vec, times, 4.0)
    option = dict(condition="t2v", method="distill", num_steps=4, guidance=4.0, shift=True, flow_shift=None)
    outputs = dict(timesteps=torch.tensor(times, dtype=torch.float64), latent=latent, final=latent)
    inputs = dict(noise=noise, txt=txt, y_vec=y_vec)
    return golden({"model": cfg.to_dict(), "sampling": option}, inputs, outputs, model)


@case("sampler-flux")
def _():
    """FLUX.1-dev in every respect but its size."""
    cfg = MMDiTConfig(
        in_channels=16,
        vec_in_dim=12,
        context_in_dim=20,
        hidden_size=16,
        mlp_ratio=4.0,
        num_heads=1,
        depth=1,
        depth_single_blocks=1,
        axes_dim=[4, 6, 6],
        qkv_bias=True,
        guidance_embed=True,
        cond_embed=False,
        fused_qkv=True,
        use_liger_rope=False,
    )
    r = Random(69)
    model = r.weights(MMDiT(cfg).double())
    noise, txt, y_vec = r.normal(1, 4, 1, 4, 6), r.normal(1, 6, cfg.context_in_dim), r.normal(1, cfg.vec_in_dim)
    times = sampler.get_schedule(12, 6, 1)
    latent = sampler.denoise_distilled(model, noise, txt, y_vec, times, 4.0)
    option = dict(condition="t2v", method="distill", num_steps=12, guidance=4.0, shift=True, flow_shift=None)
    outputs = dict(timesteps=torch.tensor(times, dtype=torch.float64), latent=latent, final=latent)
    inputs = dict(noise=noise, txt=txt, y_vec=y_vec)
    return golden({"model": cfg.to_dict(), "sampling": option}, inputs, outputs, model)


# The noise


@case("tables-philox")
def _():
    """Whole streams, the ends of the distribution, and every kind of block number."""
    config, out = {"streams": [], "words": []}, {}
    for n, (seed, sequence, first, count) in enumerate(
        ((42, 0, 0, 256), (0, 1, 0, 8), (2**64 - 1, 2**32 - 1, 3, 10), (0x123456789ABCDEF, 7, 2**34 - 5, 10))
    ):
        # 64-bit numbers as text: JSON readers may hold them as doubles.
        config["streams"].append(dict(seed=str(seed), sequence=sequence, first=str(first), count=count))
        out[f"stream.{n}"] = torch.from_numpy(philox.draws(seed, sequence, count, first))
    words = [0, 1, 2, 2**20, 2**29, 322122547, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 2, 2**32 - 1]
    config["words"] = words
    out["normals"] = torch.from_numpy(philox.normal(np.array(words, dtype=np.uint32)))
    config["clip"] = dict(seed="7", sequence=3, channels=4, frames=2, height=3, width=2)
    out["clip"] = philox.noise(7, 3, (1, 4, 2, 3, 2))
    # torch.randn() of 16 x 33 x 24 x 42, on GPUs that need one pass for it, or several.
    config["torch"] = dict(seed=str(2**40 + 42), channels=16, frames=33, height=24, width=42, runs=[])
    n = 16 * 33 * 24 * 42
    index = [0, 1, 255, 256, 27648, 65535, 270335, 270336, 300000, 442368, n - 2, n - 1]
    config["torch"]["index"] = index
    for blocks, call in ((1056, 0), (1056, 2), (108, 0), (7, 1)):
        config["torch"]["runs"].append(dict(blocks=blocks, call=call))
        out[f"torch.{blocks}.{call}"] = torch.from_numpy(philox.torch_draws(2**40 + 42, call, n, index, blocks))
    return golden(config, {}, out)


# Small tables in JSON


def schedules():
    rows = []
    for steps, tokens, frames, alpha, shift in (
        (1, 256, 1, None, True),
        (4, 240, 5, None, True),
        (14, 6, 5, None, True),
        (30, 256, 33, None, True),
        (50, 240, 33, None, True),
        (50, 2304, 33, None, True),
        (50, 4096, 1, None, True),
        (10, 5000, 17, None, True),
        (12, 256, 33, 3.0, True),
        (8, 256, 33, 1.0, True),
        (7, 256, 33, None, False),
    ):
        times = sampler.get_schedule(steps, tokens, frames, alpha, shift)
        rows.append(dict(num_steps=steps, tokens=tokens, frames=frames, flow_shift=alpha, shift=shift, timesteps=times))
    return rows


def sizes():
    rows = []
    names = [(name, 16) for name in ("144p", "256px", "360p", "480p", "512px", "720p", "768px", "1080p")]
    for name, multiple in names + [("768px", 32)]:
        for ratio, (height, width) in sampler.size_table(sampler.pixel_budget(name), multiple).items():
            rows.append(dict(resolution=name, ratio=ratio, multiple=multiple, height=height, width=width))
    return rows


def picture_sizes():
    rows = []
    for name in ("144p", "256px", "360p", "768px", "1080p"):
        for ratio, (height, width) in sampler.picture_size_table(sampler.pixel_budget(name)).items():
            rows.append(dict(resolution=name, ratio=ratio, height=height, width=width))
    return rows


def guidance():
    """Scales of every step: text, image, and image per frame where it is scaled over time."""
    rows = []
    for steps, frames, image in ((14, 5, 3.0), (14, 1, 3.0), (6, 9, 1.5), (3, 4, 1.0)):
        points = []
        for step in range(steps):
            scale = sampler.oscillate(image, step)
            per_frame = [scale] * frames
            if scale > 1:
                per_frame = sampler.temporal_scale(scale, step, steps + 1, (1, 1, frames, 1, 1), 1).flatten().tolist()
            points.append(dict(text=sampler.oscillate(7.5, step), image=scale, image_per_frame=per_frame))
        rows.append(dict(num_steps=steps, frames=frames, guidance=7.5, guidance_img=image, steps=points))
    return rows


def conditions():
    """Which latent frames are given; ref_frame is the frame of the reference, counted from its end if negative."""
    rows = []
    for name in sampler.CONDITIONS:
        for causal in (True, False):
            for frames in (1, 2, 19, 33):
                count = 1 if name.startswith("i2v") else (16 if name.endswith("easy") else 8) + causal
                if name.startswith("v2v") and 1 < frames < count:
                    continue
                ref = torch.arange(1.0, count + 1).view(1, count, 1, 1)
                z = torch.zeros(1, 1, frames, 1, 1)
                masks, values = sampler.prepare_inference_condition(z, name, [[ref, ref + 100]], causal)
                rows.append(
                    dict(
                        condition=name,
                        causal=causal,
                        frames=frames,
                        mask=masks.flatten().int().tolist(),
                        frame=values.flatten().int().tolist(),
                    )
                )
    return rows


TABLES = {
    "sampler-schedules": schedules,
    "sampler-sizes": sizes,
    "sampler-picture-sizes": picture_sizes,
    "sampler-guidance": guidance,
    "sampler-conditions": conditions,
}


# The files read back


def replay(path, dtype):
    """The results of a file from its own weights and inputs -> {name: (got, stored)}."""
    with safe_open(path, framework="pt") as f:
        meta = f.metadata()
        tensors = {k: f.get_tensor(k) for k in f.keys()}
    config, part = json.loads(meta["config"]), meta["part"]
    pick = lambda prefix: {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
    weights, inputs, outputs = pick("w."), pick("in."), pick("out.")
    # Times and positions stay at least float32, as they do in the engine.
    wide = torch.promote_types(dtype, torch.float32)
    for k, v in inputs.items():
        kept = k in ("timesteps", "guidance", "img_ids", "txt_ids")
        inputs[k] = v.to(wide if kept else dtype) if v.is_floating_point() else v.long()
    kinds = dict(mmdit=(MMDiT, MMDiTConfig), vae=(VAE, VAEConfig), t5=(T5Encoder, T5Config))
    kinds.update(ae=(AE, AEConfig))
    kinds.update(clip=(CLIPText, CLIPTextConfig), sampler=(MMDiT, MMDiTConfig))
    make, record = kinds[part]
    model = make(record.from_dict(config.get("model", config)))
    model.load_state_dict(weights)
    model = model.to(dtype).eval()
    if part == "mmdit":
        got = {"pred": model(**inputs)}
    elif part in ("vae", "ae"):
        x, z = inputs["video"], inputs["latent"]
        got = {"moments": model.raw_moments(x), "latent": model.encode(x), "video": model.decode(z)}
        if "noise" in inputs:
            got["sample"] = model.encode(x, noise=inputs["noise"])
    elif part == "t5":
        got = {"hidden": model(inputs["ids"])}
    elif part == "clip":
        got = dict(zip(("hidden", "pooled"), model(inputs["ids"])))
    else:
        o = config["sampling"]
        noise, txt, y_vec = inputs["noise"], inputs["txt"], inputs["y_vec"]
        times = outputs["timesteps"].tolist()
        if o.get("method") == "distill":
            latent = sampler.denoise_distilled(model, noise, txt, y_vec, times, o["guidance"])
        else:
            refs = [inputs[k] for k in ("ref", "ref_tail") if k in inputs]
            rows = [refs or None] + [None] * (noise.shape[0] - 1)
            masks, values = sampler.prepare_inference_condition(noise, o["condition"], rows, o["causal"])
            flags = (o["text_osci"], o["image_osci"], o["scale_temporal_osci"])
            fixed = (times, o["guidance"], o["guidance_img"], masks, values, *flags)
            latent = sampler.denoise(model, noise, txt, y_vec, *fixed)
        got = {"latent": latent}
    return {k: (v, outputs[k]) for k, v in got.items()}


def show_errors(folder):
    print("largest difference / largest value")
    print(f"{'file':<22} {'result':<8} {'float64':>9} {'float32':>9} {'bfloat16':>9}")
    for path in sorted(folder.glob("*.safetensors")):
        if path.stem.startswith("tables-"):
            continue
        columns = {}
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            for name, (got, stored) in replay(path, dtype).items():
                columns.setdefault(name, []).append(difference(as_stored(got), as_stored(stored)))
        for name, row in columns.items():
            print(f"{path.stem:<22} {name:<8} " + " ".join(f"{e:9.1e}" for e in row))


# Files


def names_of(name):
    part, _, rest = name.partition("-")
    return part, rest


def difference(a, b):
    if a.shape != b.shape or a.dtype != b.dtype:
        return float("inf")
    if a.dtype != np.float32:
        return 0.0 if np.array_equal(a, b) else float("inf")
    top = float(np.abs(a).max()) if a.size else 1.0
    return float(np.abs(a - b).max()) / max(top, 1e-30) if a.size else 0.0


def compare(path, config, tensors):
    """-> "" where the file holds the same, otherwise what is different."""
    if not path.exists():
        return "missing"
    with safe_open(path, framework="numpy") as f:
        meta, names = f.metadata(), set(f.keys())
        if json.loads(meta["config"]) != json.loads(json.dumps(config)):
            return "other config"
        if (meta["part"], meta["case"]) != names_of(path.stem):
            return "other part or case"
        if names != set(tensors):
            return f"other tensors: {sorted(names ^ set(tensors))}"
        worst = max((difference(f.get_tensor(k), v), k) for k, v in tensors.items())
    return f"{worst[1]} differs by {worst[0]:.1e}" if worst[0] > TOLERANCE else ""


def close(a, b):
    """JSON values, floats up to the tolerance."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(close(x, y) for x, y in zip(a, b))
    if isinstance(a, float) and isinstance(b, float):
        return abs(a - b) <= TOLERANCE
    return a == b and type(a) is type(b)


def compare_table(path, rows):
    if not path.exists():
        return "missing"
    return "" if close(json.loads(path.read_text()), json.loads(json.dumps(rows))) else "differs"


def write_table(path, rows):
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f"[\n{lines}\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the files, write nothing")
    parser.add_argument("--list", action="store_true", help="list the files")
    parser.add_argument("--errors", action="store_true", help="run the files in narrower types")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    expected = {f"{n}.safetensors" for n in CASES} | {f"{n}.json" for n in TABLES}
    present = {p.name for p in args.folder.iterdir() if p.suffix in (".safetensors", ".json")}
    if args.list:
        for name in sorted(present):
            print(f"{(args.folder / name).stat().st_size:8d}  {name}")
        print(f"{sum((args.folder / n).stat().st_size for n in present):8d}  in all")
        return 0
    if args.errors:
        with torch.no_grad():
            show_errors(args.folder)
        return 0
    bad = 0
    for name in sorted(present - expected):
        print(f"unknown file: {name}")
        bad += 1
    with torch.no_grad():
        for name, make in CASES.items():
            path = args.folder / f"{name}.safetensors"
            config, tensors = make()
            for key, value in tensors.items():
                if not np.isfinite(value).all():
                    raise ValueError(f"{name}: {key} is not finite")
            problem = compare(path, config, tensors)
            if problem and args.check:
                print(f"{name}: {problem}")
                bad += 1
            elif problem:
                part, rest = names_of(name)
                save_file(tensors, path, {"part": part, "case": rest, "config": json.dumps(config)})
                path.chmod(0o644)
                print(f"{path.stat().st_size:8d}  {path.name}")
    for name, make in TABLES.items():
        path, rows = args.folder / f"{name}.json", make()
        problem = compare_table(path, rows)
        if problem and args.check:
            print(f"{name}: {problem}")
            bad += 1
        elif problem:
            write_table(path, rows)
            print(f"{path.stat().st_size:8d}  {path.name}")
    if args.check:
        print(f"{bad} different" if bad else f"{len(expected)} files, all as committed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
