# SPDX-License-Identifier: LGPL-2.1-or-later
"""Everything between the noise and the finished latent: sizes, token order,
schedule, conditions on reference frames, guidance and the Euler loop.

Latents are [B, C, T, H, W]; noise and text embeddings are always given.
"""

import math

import torch

# Output sizes

# width : height, from wide to square; the turned ones follow.
RATIOS = ("2.39:1", "2:1", "16:9", "1.85:1", "9:16", "5:8", "3:2", "4:3", "1:1")


def pixel_budget(resolution):
    """"256px" is a square of that side, "720p" a 16:9 picture of that height."""
    name = resolution.split("_")[0]
    if name.endswith("px"):
        return int(name[:-2]) ** 2
    if name.endswith("p"):
        return int(int(name[:-1]) ** 2 / 9 * 16)
    raise ValueError(f"unknown resolution {resolution!r}")


def size_table(pixels, multiple=16):
    """ratio -> (height, width), both rounded down to ``multiple``.

    Turned ratios come last and replace a listed one of the same name, so that
    "16:9" is the listed "9:16" turned, and the other way round.
    """
    table, turned = {}, {}
    for ratio in RATIOS:
        w, h = ratio.split(":")
        width = int(math.sqrt(pixels * (float(w) / float(h))) // multiple) * multiple
        height = int((pixels / width) // multiple) * multiple
        table[ratio] = (height, width)
        turned[f"{h}:{w}"] = (width, height)
    table.update(turned)
    return table


def get_image_size(resolution, ratio, multiple=16):
    """-> (height, width)"""
    return size_table(pixel_budget(resolution), multiple)[ratio]


def picture_size_table(pixels, multiple=16):
    """The same for first frames: one side is moved by ``multiple`` where that
    comes nearer to the area."""
    table, turned = {}, {}
    for ratio in RATIOS:
        w, h = ratio.split(":")
        width = int(math.sqrt(pixels * (float(w) / float(h))) // multiple) * multiple
        height = int((pixels / width) // multiple) * multiple
        steps = [(0, 0), (-multiple, 0), (multiple, 0), (0, -multiple), (0, multiple)]
        sizes = [(height + y, width + x) for y, x in steps]
        # Of equal ones the first.
        size = min(sizes, key=lambda s: abs(s[0] * s[1] - pixels))
        table[ratio] = size
        turned[f"{h}:{w}"] = size[::-1]
    table.update(turned)
    return table


def round_size(height, width):
    """Rounds up to multiples of 16, whatever the autoencoder."""
    return -(-height // 16) * 16, -(-width // 16) * 16


def latent_frames(frames, time_compression, causal=True):
    if frames == 1:
        return 1
    return (frames - 1) // time_compression + 1 if causal else frames // time_compression


def noise_shape(batch, frames, height, width, channels, patch_size=2, spatial=16):
    """Shape of the initial noise for ``frames`` latent frames and a picture of
    the given size; ``spatial`` pixels make one token in each direction."""
    return (batch, channels, frames, patch_size * -(-height // spatial), patch_size * -(-width // spatial))


# Token order


def pack(x, patch_size=2):
    """[B, C, T, H, W] -> [B, T*H/p*W/p, C*p*p]; a token holds (channel, row, column)."""
    b, c, t, h, w = x.shape
    p = patch_size
    x = x.reshape(b, c, t, h // p, p, w // p, p).permute(0, 2, 3, 5, 1, 4, 6)
    return x.reshape(b, t * (h // p) * (w // p), c * p * p)


def unpack(x, frames, height, width, patch_size=2):
    """The inverse; height and width in latent pixels."""
    p = patch_size
    x = x.reshape(x.shape[0], frames, height // p, width // p, -1, p, p)
    return x.permute(0, 4, 1, 2, 5, 3, 6).reshape(x.shape[0], -1, frames, height, width)


def position_ids(batch, frames, height, width, patch_size=2, dtype=torch.float32, device=None):
    """[B, L, 3] of (frame, row, column), in tokens."""
    axes = [torch.arange(n, device=device) for n in (frames, height // patch_size, width // patch_size)]
    ids = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 3)
    return ids.expand(batch, -1, -1).to(dtype)


# Schedule


def time_shift(alpha, t):
    return alpha * t / (1 + (alpha - 1) * t)


def auto_shift(tokens, frames, base=1.0, top=3.0):
    """Grows along a line through (256, base) and (4096, top) in the tokens of
    one frame, and with the root of the number of latent frames."""
    slope = (top - base) / (4096 - 256)
    return (slope * tokens + (base - slope * 256)) * math.sqrt(frames)


def get_schedule(steps, tokens, frames, alpha=None, shift=True, base=1.0, top=3.0):
    """-> steps + 1 floats from 1 to 0, computed in float32.

    ``tokens`` counts one latent frame, ``frames`` are latent frames.
    """
    t = torch.linspace(1, 0, steps + 1)
    if shift:
        t = time_shift(auto_shift(tokens, frames, base, top) if alpha is None else alpha, t)
    return t.tolist()


# Reference frames

CONDITIONS = (
    "t2v",
    "i2v_head",
    "i2v_tail",
    "i2v_loop",
    "v2v_head",
    "v2v_tail",
    "v2v_head_easy",
    "v2v_tail_easy",
)


def reference_pixel_frames(condition, available, causal=True):
    """How many frames of a reference video are encoded for a v2v condition."""
    count = 64 if available >= 64 and "easy" in condition else 32
    count += int(causal)
    if available < count:
        raise ValueError(f"{condition} needs {count} reference frames")
    return count


def prepare_inference_condition(z, condition, references, causal=True):
    """-> (masks [B, 1, T, H, W], masked_ref [B, C, T, H, W]).

    ``references`` has one entry per sample: None, or the list of its encoded
    references [C, T', H, W].  One-frame latents are never conditioned.
    """
    if condition not in CONDITIONS:
        raise ValueError(f"unknown condition {condition!r}")
    masks = torch.zeros_like(z[:, :1])
    values = torch.zeros_like(z)
    kind, _, where = condition.partition("_")
    count = 1
    if kind == "v2v":
        count = (16 if where.endswith("easy") else 8) + int(causal)
    head = where.startswith("head") or where == "loop"
    tail = where.startswith("tail") or where == "loop"
    for n, refs in enumerate(references):
        if refs is None or z.shape[2] == 1:
            continue
        last = refs[0] if kind == "v2v" else refs[-1]
        if head:
            masks[n, :, :count] = 1
            values[n, :, :count] = refs[0][:, :count]
        if tail:
            masks[n, :, -count:] = 1
            values[n, :, -count:] = last[:, -count:]
    return masks, values


def put_reference_frames(x, condition, references):
    """Overwrites the conditioned frames of the finished latent, for the i2v
    conditions and for the first sample of the batch alone."""
    x = x.clone()
    if condition == "i2v_head":
        x[0, :, :1] = references[0][0]
    elif condition == "i2v_tail":
        x[0, :, -1:] = references[0][0]
    elif condition == "i2v_loop":
        x[0, :, :1] = references[0][0]
        x[0, :, -1:] = references[0][1]
    return x


# Guidance


def oscillate(scale, step, start=10):
    """From step ``start`` on, every odd step runs without guidance."""
    return 1.0 if step >= start and step % 2 else scale


def temporal_scale(scale, step, points, shape, patch_size):
    """Image guidance that falls over the steps and rises over the frames.

    At step n its top is linspace(scale, 1, points)[n], and frame f gets
    linspace(1, top, T)[f]; ``points`` is the length of the schedule.
    """
    b, c, t, h, w = shape
    top = torch.linspace(scale, 1.0, points)[step].item()
    frames = torch.linspace(1.0, top, t).view(1, 1, t, 1, 1)
    return pack(frames.expand(b, c, t, h, w), patch_size)


def model_inputs(noise, txt, patch_size):
    """The arguments that stay the same over all steps."""
    copies = txt.shape[0]
    _, _, t, h, w = noise.shape
    return {
        "img_ids": position_ids(copies, t, h, w, patch_size, noise.dtype, noise.device),
        "txt": txt,
        "txt_ids": torch.zeros(*txt.shape[:2], 3, dtype=txt.dtype, device=txt.device),
    }


@torch.no_grad()
def denoise(
    model,
    noise,
    txt,
    y_vec,
    timesteps,
    guidance,
    guidance_img,
    masks,
    masked_ref,
    text_osci=False,
    image_osci=False,
    scale_temporal_osci=False,
    patch_size=2,
    on_step=None,
):
    """-> the latent [B, C, T, H, W], before ``put_reference_frames``.

    ``txt`` and ``y_vec`` hold 3*B rows: the prompts, then the negative prompts
    twice.  Each step asks the model for three predictions: prompt and
    reference, reference alone, neither.  Temporal scaling is meant for the i2v
    conditions only.
    """
    b, _, t, h, w = noise.shape
    fixed = model_inputs(noise, txt, patch_size)
    cond = pack(torch.cat((masks, masked_ref), dim=1), patch_size)
    cond = torch.cat((cond, cond, torch.zeros_like(cond)))
    strength = torch.full((3 * b,), guidance, dtype=noise.dtype, device=noise.device)
    x = pack(noise, patch_size)
    for step, (now, then) in enumerate(zip(timesteps[:-1], timesteps[1:])):
        time = torch.full((3 * b,), now, dtype=noise.dtype, device=noise.device)
        pred = model(
            img=torch.cat((x, x, x)), timesteps=time, y_vec=y_vec, cond=cond, guidance=strength, **fixed
        )
        full, reference, nothing = pred.chunk(3)
        text_scale = oscillate(guidance, step) if text_osci else guidance
        image_scale = oscillate(guidance_img, step) if image_osci else guidance_img
        if scale_temporal_osci and image_scale > 1.0:
            image_scale = temporal_scale(image_scale, step, len(timesteps), masked_ref.shape, patch_size)
            image_scale = image_scale.to(pred.device, pred.dtype)
        pred = nothing + image_scale * (reference - nothing) + text_scale * (full - reference)
        x = x + (then - now) * pred
        if on_step is not None:
            on_step(step, x)
    return unpack(x, t, h, w, patch_size)


@torch.no_grad()
def denoise_distilled(model, noise, txt, y_vec, timesteps, guidance, patch_size=2, cond=None, on_step=None):
    """One prediction a step; the strength of guidance is an input of the model."""
    b, _, t, h, w = noise.shape
    fixed = model_inputs(noise, txt, patch_size)
    if cond is not None:
        fixed["cond"] = cond
    strength = torch.full((b,), guidance, dtype=noise.dtype, device=noise.device)
    x = pack(noise, patch_size)
    for step, (now, then) in enumerate(zip(timesteps[:-1], timesteps[1:])):
        time = torch.full((b,), now, dtype=noise.dtype, device=noise.device)
        pred = model(img=x, timesteps=time, y_vec=y_vec, guidance=strength, **fixed)
        x = x + (then - now) * pred
        if on_step is not None:
            on_step(step, x)
    return unpack(x, t, h, w, patch_size)
