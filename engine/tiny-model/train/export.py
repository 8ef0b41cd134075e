# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the model folder that the engine reads: f16 weights, configurations, tokenizers."""
import json
import os
import shutil

import torch
from safetensors.torch import save_file

import model
import vocab
from common import device_of

# What the engine does when it is asked for nothing else.
SAMPLING = dict(width=128, height=128, num_frames=33, num_steps=30, guidance=4.0, guidance_img=1.5,
                text_osci=True, image_osci=True, scale_temporal_osci=True, shift=True,
                flow_shift=0.0, fps=16, motion_score=4)


def half(module):
    """Its weights as they ship; checks that none gets lost on the way"""
    out = {}
    for k, v in module.state_dict().items():
        h = v.detach().cpu().half().contiguous()
        assert torch.isfinite(h).all(), k
        out[k] = h
    return out


def write_json(path, values):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(values, f, indent=2)
        f.write("\n")


def write(folder, net, vae, sampling=SAMPLING, tokenizers=model.FOLDER):
    for part in ("t5", "clip"):
        os.makedirs(os.path.join(folder, part), exist_ok=True)
        for name in ("spiece.model", "vocab.json", "merges.txt", "tokenizer_config.json"):
            a, b = (os.path.join(f, part, name) for f in (tokenizers, folder))
            if os.path.exists(a) and os.path.realpath(a) != os.path.realpath(b):
                shutil.copyfile(a, b)
    meta = {"format": "pt"}
    save_file(half(net.mmdit), os.path.join(folder, "mmdit.safetensors"), meta)
    save_file(half(vae), os.path.join(folder, "vae.safetensors"), meta)
    save_file(half(net.t5), os.path.join(folder, "t5", "model.safetensors"), meta)
    save_file(half(net.clip), os.path.join(folder, "clip", "model.safetensors"), meta)

    t5, clip = net.t5.cfg.to_dict(), net.clip.cfg.to_dict()
    write_json(os.path.join(folder, "t5", "config.json"), dict(
        architectures=["T5EncoderModel"], model_type="t5", feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False, dropout_rate=0.0, tie_word_embeddings=False,
        num_decoder_layers=0, decoder_start_token_id=0, **t5))
    write_json(os.path.join(folder, "clip", "config.json"), dict(
        architectures=["CLIPTextModel"], model_type="clip_text_model", attention_dropout=0.0,
        pad_token_id=clip["eos_token_id"], projection_dim=clip["hidden_size"], **clip))
    write_json(os.path.join(folder, "config.json"), dict(
        family="open-sora-v2", name="tiny",
        mmdit=dict(weights="mmdit.safetensors", **net.mmdit.cfg.to_dict()),
        vae=dict(type="hunyuan_vae", weights="vae.safetensors",
                 **{k: v for k, v in vae.cfg.to_dict().items()
                    if not k.startswith("use_")}),
        t5=dict(path="t5", max_length=vocab.T5_LENGTH),
        clip=dict(path="clip", max_length=vocab.CLIP_LENGTH),
        sampling=sampling))
    for at, _, files in os.walk(folder):        # the library makes its files private
        for f in files:
            if f.endswith(".safetensors"):
                os.chmod(os.path.join(at, f), 0o644)
    return size(folder)


def size(folder):
    """Bytes of all files, generated ones of Python aside"""
    n = 0
    for at, dirs, files in os.walk(folder):
        dirs[:] = [d for d in dirs if d != "__pycache__"]
        n += sum(os.path.getsize(os.path.join(at, f)) for f in files)
    return n


def run(a):
    import train_vae
    device = device_of("cpu")
    tokenizers = vocab.Tokenizers(model.FOLDER)
    if a.vae:
        vae = train_vae.finished(a.vae, device)
    else:
        vae = train_vae.new_vae(train_vae.CONFIG, device, a.seed)
    if a.denoiser:
        import train_denoiser
        net = train_denoiser.finished(a.denoiser, tokenizers, device)
    else:                               # to try an engine before anything is trained
        net = model.new_net(tokenizers, device, a.seed)
        if a.text:
            import train_text
            train_text.load(a.text, net)
        torch.manual_seed(a.seed)
        for p in net.parameters():
            if p.count_nonzero() == 0:
                torch.nn.init.normal_(p, std=0.02)
    sampling = dict(SAMPLING)
    for item in a.sampling:
        key, _, value = item.partition("=")
        sampling[key] = json.loads(value)
    print(write(a.out, net, vae, sampling), "bytes in", a.out)
