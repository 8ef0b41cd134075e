# SPDX-License-Identifier: LGPL-2.1-or-later
"""A model of pictures with random weights, for tests of whole pipelines.

    python make_flux_model.py        writes tests/data/flux

It is FLUX.1-dev in every respect but its size, and takes the text of the tiny
model.  Its pictures show nothing.  Numbers are bfloat16 and come from numpy's
PCG64 with a fixed seed.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parent))

from make_golden import Random  # noqa: E402
from opensora_ref import AE, AEConfig, MMDiT, MMDiTConfig  # noqa: E402

FOLDER = Path(__file__).resolve().parent.parent / "data" / "flux"
TINY = FOLDER.parent.parent.parent / "engine" / "tiny-model" / "config.json"


def save(model, seed, name):
    model = Random(seed).weights(model.double())
    save_file({k: v.to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}, FOLDER / name)
    (FOLDER / name).chmod(0o644)
    print(f"{(FOLDER / name).stat().st_size:8d}  {name}")


def main():
    text = json.loads(TINY.read_text())["mmdit"]
    mmdit = MMDiTConfig(
        in_channels=64,
        vec_in_dim=text["vec_in_dim"],
        context_in_dim=text["context_in_dim"],
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        axes_dim=[4, 6, 6],
        guidance_embed=True,
        cond_embed=False,
        fused_qkv=True,
        use_liger_rope=False,
    )
    ae = AEConfig(ch=4, ch_mult=[1, 2, 2, 2], num_res_blocks=1, norm_num_groups=2)
    FOLDER.mkdir(parents=True, exist_ok=True)
    save(MMDiT(mmdit), 91, "mmdit.safetensors")
    save(AE(ae), 92, "ae.safetensors")
    config = {
        "family": "flux",
        "name": "random",
        "mmdit": {"weights": "mmdit.safetensors", **mmdit.to_dict()},
        "vae": {"type": "autoencoder_2d", "weights": "ae.safetensors", **ae.to_dict()},
        "sampling": {"width": 64, "height": 64, "num_steps": 4, "fps": 16},
    }
    (FOLDER / "config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
