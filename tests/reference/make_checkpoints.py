# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes tests/data/checkpoints: weights as PyTorch, transformers and PEFT lay them out.

    python make_checkpoints.py [FOLDER]

Values are small integers that every type holds, so that the tests know them without a file:
element i of a tensor is (i * step + start) % 15 - 7 with start and step of its name.
Nothing here is executed by the tests; `evil.pt` would run a program if it were unpickled.
"""
import collections
import io
import json
import math
import os
import pathlib
import sys
import zipfile

import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent


def counted(shape, start, step=1, dtype=torch.float32):
    n = 1
    for size in shape:
        n *= size
    return ((torch.arange(n) * step + start) % 15 - 7).reshape(shape).to(dtype)


def state():
    """One tensor of every type that files have."""
    return collections.OrderedDict(
        f32=counted([2, 3], 0),
        bf16=counted([2, 3], 1, dtype=torch.bfloat16),
        f16=counted([2, 3], 2, dtype=torch.float16),
        f64=counted([2, 3], 3, dtype=torch.float64),
        i64=counted([4], 4, dtype=torch.int64),
        i32=counted([4], 5, dtype=torch.int32),
        u8=(counted([4], 6) + 7).to(torch.uint8),
        bool=torch.tensor([True, False, True]),
        scalar=torch.tensor(2.5),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(counted([2, 2], 7)),
    )


def make_types(out):
    for protocol in range(1, 6):
        torch.save(state(), out / f"types-protocol{protocol}.pt", pickle_protocol=protocol)
    torch.save({"w": counted([2, 3], 0).to(torch.float8_e4m3fn)}, out / "float8.pt")


def make_views(out):
    base = counted([4, 6], 0)
    torch.save(
        {
            "whole": base,
            "rows": base[1:3],
            "columns": base[:, 2:4],
            "every_other": base[:, ::2],
            "transposed": base.t(),
            "permuted": counted([2, 3, 4], 5).permute(2, 0, 1),
            "one_wide": base[:, 1:2],
        },
        out / "views.pt",
    )
    torch.save({"a": torch.zeros(1).expand(1000)}, out / "expanded.pt")


def make_nested(out):
    inner = {"a": counted([3], 0)}
    torch.save({"state_dict": inner, "epoch": 3, "loss": 0.5}, out / "nested-state-dict.pt")
    torch.save({"model": inner, "optimizer": {"lr": 1e-3}, "rng": b"\x01\x02"}, out / "nested-model.pt")
    torch.save({"net": {"state_dict": inner}, "step": 10**12}, out / "nested-only.pt")
    torch.save({"first": {"x": 1}, "second": {"y": 2}}, out / "nested-none.pt")
    torch.save([torch.zeros(2)], out / "list.pt")
    linear = torch.nn.Linear(2, 3)
    with torch.no_grad():
        linear.weight.copy_(counted([3, 2], 0))
        linear.bias.copy_(counted([3], 1))
    linear.weight.note = "an attribute"
    torch.save(linear.state_dict(), out / "module.pt")
    torch.save({"p": linear.weight}, out / "attribute.pt")


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/opensora-evil",)


def make_refused(out):
    torch.save({"w": torch.zeros(2), "evil": Evil()}, out / "evil.pt")
    torch.save(torch.nn.Linear(2, 2), out / "whole-module.pt")
    torch.save({"w": torch.zeros(2)}, out / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"w": torch.zeros(2, dtype=torch.int16)}, out / "int16.pt")
    torch.save({"w": torch.zeros(2, dtype=torch.float8_e5m2)}, out / "float8-e5m2.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), out / "script.pt")
    with zipfile.ZipFile(out / "compressed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + bytes(100))
    with zipfile.ZipFile(out / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "no weights")


def make_zip64(out):
    """The same archive with ZIP64 records throughout, as files of 4 GiB and more have them."""
    buffer = io.BytesIO()
    torch.save({"w": counted([2, 3], 0)}, buffer)
    source = zipfile.ZipFile(buffer)
    limits = zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT
    zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = 0, 0
    try:
        with zipfile.ZipFile(out / "zip64.pt", "w") as archive:
            for name in source.namelist():
                info = zipfile.ZipInfo(name)
                archive.writestr(info, source.read(name))
    finally:
        zipfile.ZIP64_LIMIT, zipfile.ZIP_FILECOUNT_LIMIT = limits


def make_sharded(out):
    folder = out / "sharded"
    folder.mkdir(exist_ok=True)
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    torch.save({"a": counted([3], 0), "b": counted([2, 2], 1)}, folder / names[0])
    torch.save({"c": counted([4], 2, dtype=torch.bfloat16)}, folder / names[1])
    index = {
        "metadata": {"total_size": 36},
        "weight_map": {"a": names[0], "b": names[0], "c": names[1]},
    }
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")


def make_scaled(out):
    """FP8 weights with the names that published T5 and FLUX files give to their scales."""
    weight = counted([2, 3], 0).to(torch.float8_e4m3fn)
    save_file(
        {
            "plain.weight": weight,
            "one.weight": weight.clone(),
            "one.scale_weight": torch.tensor(0.5),
            "listed.weight": weight.clone(),
            "listed.weight_scale": torch.tensor([0.25]),
            "listed.input_scale": torch.tensor([3.0]),
            "rows.weight": weight.clone(),
            "rows.weight_scale": torch.tensor([[2.0], [4.0]]),
            "blocks.weight": weight.clone(),
            "blocks.weight_scale_inv": torch.ones(1, 1),
            "columns.weight": weight.clone(),
            "columns.weight_scale": torch.ones(3),
            "scaled_fp8": torch.zeros(2).to(torch.float8_e4m3fn),
        },
        out / "fp8-scaled.safetensors",
    )


# Adapters for a denoiser of width 8 with 2 heads and an MLP of 16.
D, MLP = 8, 16


def pair(start, n_out, n_in, rank):
    return {"lora_A": counted([rank, n_in], start, 2) / 8, "lora_B": counted([n_out, rank], start + 1, 4) / 8}


def write_adapter(folder, modules, config=None, binary=False, extra=None):
    folder.mkdir(exist_ok=True, parents=True)
    tensors = {}
    for module, tensor_pair in modules.items():
        for name, tensor in tensor_pair.items():
            tensors[f"base_model.model.{module}.{name}.weight"] = tensor
    tensors.update(extra or {})
    if binary:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    full = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "init_lora_weights": True,
        "rank_pattern": {},
        "alpha_pattern": {},
        "target_modules": sorted({m.split(".")[-1] for m in modules}),
    }
    full.update(config or {})
    (folder / "adapter_config.json").write_text(json.dumps(full, indent=1) + "\n")


FUSED = {
    "double_blocks.0.img_attn.qkv": pair(0, 3 * D, D, 2),
    "double_blocks.0.img_attn.proj": pair(1, D, D, 2),
    "single_blocks.0.linear1": pair(2, 3 * D + MLP, D, 2),
    "txt_in": pair(3, D, 6, 2),
}
SPLIT = {
    "double_blocks.0.txt_attn.q_proj": pair(4, D, D, 2),
    "double_blocks.0.txt_attn.v_proj": pair(5, D, D, 2),
    "single_blocks.0.k_proj": pair(6, D, D, 2),
    "single_blocks.0.v_mlp": pair(7, D + MLP, D, 2),
}
PATTERNS = {
    "double_blocks.0.img_attn.proj": pair(8, D, D, 4),
    "double_blocks.0.txt_attn.proj": pair(9, D, D, 2),
    "single_blocks.0.linear2": pair(10, D, D + MLP, 2),
}
# Folder, modules, alpha / r of a module.
ADAPTERS = [
    ("lora-fused", FUSED, lambda module, rank: 4 / 2),
    ("lora-split", SPLIT, lambda module, rank: 4 / 2),
    ("lora-patterns", PATTERNS,
     lambda module, rank: (1 if module.endswith("linear2") else 4) / math.sqrt(rank)),
]


def make_lora(out):
    write_adapter(out / "lora-fused", FUSED)
    write_adapter(out / "lora-split", SPLIT, binary=True)
    write_adapter(
        out / "lora-patterns",
        PATTERNS,
        {
            "use_rslora": True,
            "rank_pattern": {"0.img_attn.proj": 4},
            "alpha_pattern": {"^single_blocks.*linear2": 1},
        },
    )
    proj = {"double_blocks.0.img_attn.proj": pair(0, D, D, 2)}
    write_adapter(out / "lora-stranger", {**proj, "double_blocks.7.img_attn.proj": pair(0, D, D, 2)})
    write_adapter(out / "lora-shape", {"double_blocks.0.img_attn.proj": pair(0, D, D + 1, 2)})
    write_adapter(out / "lora-dora", proj, {"use_dora": True})
    write_adapter(out / "lora-half", {"txt_in": {"lora_A": pair(0, D, 6, 2)["lora_A"]}})
    write_adapter(
        out / "lora-saved",
        proj,
        extra={"base_model.model.final_layer.linear.weight": counted([4, D], 0)},
    )


SPECS = [("lora-fused", 1.0), ("lora-split", 0.5), ("lora-patterns", -2.0)]


def make_merged(out):
    """A denoiser's linear layers, fused and split, and what the adapters in SPECS make of them."""
    fused = {"txt_in.weight": counted([D, 6], 0), "single_blocks.0.linear2.weight": counted([D, D + MLP], 1)}
    for stream in "img", "txt":
        fused[f"double_blocks.0.{stream}_attn.qkv.weight"] = counted([3 * D, D], 2)
        fused[f"double_blocks.0.{stream}_attn.proj.weight"] = counted([D, D], 3)
    fused["single_blocks.0.linear1.weight"] = counted([3 * D + MLP, D], 4)
    save_file(fused, out / "lora-base-fused.safetensors")
    split = {}
    for name, weight in fused.items():
        if name.endswith("qkv.weight"):
            names, rows = ["q_proj", "k_proj", "v_proj"], [D, D, D]
        elif name.endswith("linear1.weight"):
            names, rows = ["q_proj", "k_proj", "v_mlp"], [D, D, D + MLP]
        else:
            split[name] = weight
            continue
        stem = name.rsplit(".", 2)[0]
        for part, tensor in zip(names, weight.split(rows)):
            split[f"{stem}.{part}.weight"] = tensor.contiguous()
    save_file(split, out / "lora-base-split.safetensors")
    merged = {name: weight.double() for name, weight in fused.items()}

    def add(module, delta):
        stem, _, part = module.rpartition(".")
        first = {"q_proj": 0, "k_proj": D, "v_proj": 2 * D, "v_mlp": 2 * D}.get(part)
        if first is None:
            merged[f"{module}.weight"] += delta
            return
        whole = "linear1" if stem.startswith("single") else "qkv"
        merged[f"{stem}.{whole}.weight"][first : first + delta.shape[0]] += delta

    for (folder, modules, scale), weight in zip(ADAPTERS, [w for _, w in SPECS]):
        for module, tensors in modules.items():
            a, b = tensors["lora_A"].double(), tensors["lora_B"].double()
            add(module, weight * scale(module, a.shape[0]) * b @ a)
    save_file({name: tensor.float() for name, tensor in merged.items()}, out / "lora-merged.safetensors")


def make_text(out):
    """T5 and CLIP as transformers saves them, whole and the part that we need, and their output."""
    from transformers import CLIPConfig, CLIPModel, T5Config, T5ForConditionalGeneration

    torch.manual_seed(1)
    ids = torch.tensor([[5, 3, 17, 1, 0, 0]])
    config = T5Config(vocab_size=24, d_model=16, d_kv=4, d_ff=12, num_layers=2, num_decoder_layers=1,
                      num_heads=2, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    t5 = T5ForConditionalGeneration(config).eval()
    for parameter in t5.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    whole = t5.state_dict()
    inner = {n[len("encoder."):]: t for n, t in whole.items() if n.startswith("encoder.")}
    torch.save(whole, out / "t5-whole.bin")
    save_file({n: t.clone() for n, t in whole.items() if not n.startswith(("decoder.", "lm_head."))
               and n != "encoder.embed_tokens.weight"}, out / "t5-encoder.safetensors")
    save_file({n: t.clone() for n, t in inner.items()}, out / "t5-bare.safetensors")
    save_file({f"text_encoders.t5xxl.transformer.{n}": t.clone() for n, t in whole.items()
               if n != "shared.weight"}, out / "t5-prefixed.safetensors")
    with torch.no_grad():
        hidden = t5.double().encoder(ids).last_hidden_state
    text = dict(vocab_size=24, hidden_size=64, intermediate_size=20, num_hidden_layers=1,
                num_attention_heads=1, max_position_embeddings=8, eos_token_id=2, bos_token_id=0)
    vision = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                  image_size=8, patch_size=8)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=4)).eval()
    for parameter in clip.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    clip_ids = torch.tensor([[0, 7, 9, 23, 2, 2]])
    with torch.no_grad():
        pooled = clip.double().text_model(clip_ids).pooler_output
    state = {n: t.half() for n, t in clip.state_dict().items()}
    torch.save(state, out / "clip-whole.bin")
    bare = {n[len("text_model."):]: t.clone() for n, t in state.items() if n.startswith("text_model.")}
    save_file(bare, out / "clip-bare.safetensors")
    save_file({"t5.ids": ids.int(), "t5.hidden": hidden.float(), "clip.ids": clip_ids.int(),
               "clip.pooled": pooled.float()}, out / "text-golden.safetensors")


def main():
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "data" / "checkpoints"
    out.mkdir(parents=True, exist_ok=True)
    for make in (make_types, make_views, make_nested, make_refused, make_zip64, make_sharded,
                 make_scaled, make_lora, make_merged, make_text):
        make(out)


if __name__ == "__main__":
    main()
