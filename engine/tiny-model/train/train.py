#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Trains the tiny model.

  train.py bench --out DIR                     times a few ways to run the autoencoder
  train.py vae   --out DIR --minutes 9.4       stage 1, from nothing
  train.py vae   --out DIR --resume DIR ...    stage 1, on from a checkpoint
  train.py tokenizers                          makes the two vocabularies
  train.py text  --out DIR                     stage 1b, the text towers alone
  train.py denoiser --vae DIR --text DIR --out DIR --minutes 9.3
                                               stage 2, from nothing (--resume DIR: on)
  train.py export --vae DIR --denoiser DIR --out DIR
                                               the folder that the engine reads

A run ends inside its budget, with its learning rate annealed and its files written.
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common  # noqa: E402  (starts the clock)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    sub = ap.add_subparsers(dest="command", required=True)

    def stage(name, minutes):
        p = sub.add_parser(name)
        p.add_argument("--out", required=True, help="folder for checkpoints and logs")
        p.add_argument("--minutes", type=float, default=minutes, help="wall-clock budget of this run")
        p.add_argument("--device", default="auto")
        p.add_argument("--seed", type=int, default=1)
        p.add_argument("--resume", default="", help="folder of a checkpoint; denoiser: or an exported model")
        p.add_argument("--tiny", action="store_true", help="small sizes, to try the code")
        p.add_argument("--steps", type=int, default=0, help="end after so many steps")
        p.add_argument("--no-graphs", action="store_true")
        return p

    for name in ("vae", "bench"):
        p = stage(name, 9.4)
        p.add_argument("--backend", default="auto", choices=("auto", "fast", "plain-last", "plain"))
        p.add_argument("--batch", type=int, default=8, help="whole clips a step")
        p.add_argument("--optim", default="muon", choices=("muon", "adamw"))
        p.add_argument("--lr", type=float, default=2e-3)
        p.add_argument("--end-lr", type=float, default=0.02, help="last learning rate / first")
        p.add_argument("--warmup", type=int, default=200)
        p.add_argument("--decay", type=float, default=0.01)
        p.add_argument("--ema", type=float, default=0.998)
        p.add_argument("--kl", type=float, default=2e-4)
        p.add_argument("--noise", type=float, default=0.1)
        p.add_argument("--object-weight", type=float, default=6.0)
        p.add_argument("--pictures", type=float, default=None, help="share of the time")
        p.add_argument("--shorts", type=float, default=None, help="share of the time")
        p.add_argument("--pool", type=int, default=100000)
        p.add_argument("--reserve", type=float, default=40.0, help="seconds kept for the end")
        p.add_argument("--save-every", type=float, default=150.0)

    p = stage("denoiser", 9.3)
    p.add_argument("--vae", required=True, help="folder of the autoencoder's checkpoint")
    p.add_argument("--clips", type=int, default=40000, help="clips to encode at most")
    p.add_argument("--encode", type=float, default=45.0, help="seconds to encode them in")
    p.add_argument("--pool", default="", help="file of encoded clips, to read, add to and write")
    p.add_argument("--text", default="", help="folder of trained text towers (none: random ones)")
    p.add_argument("--text-lr", type=float, default=0.0,
                   help="the towers' share of the learning rate; 0: they stay as they are")
    p.add_argument("--object-weight", type=float, default=4.0)
    p.add_argument("--batch", type=int, default=96)
    p.add_argument("--optim", default="muon", choices=("muon", "adamw"))
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--end-lr", type=float, default=0.01, help="last learning rate / first")
    p.add_argument("--span", type=float, nargs=2, default=(0.0, 1.0), metavar=("FROM", "TO"),
                   help="part of the learning rate's schedule that this run is")
    p.add_argument("--warmup", type=int, default=300)
    p.add_argument("--decay", type=float, default=0.01)
    p.add_argument("--ema", type=float, default=0.9995)
    p.add_argument("--reserve", type=float, default=45.0, help="seconds kept for the end")
    p.add_argument("--save-every", type=float, default=150.0)
    p.add_argument("--no-compile", action="store_true")

    p = stage("text", 20)
    p.add_argument("--captions", type=int, default=300000)
    p.add_argument("--threads", type=int, default=2, help="of a processor, where that does the work")
    p.add_argument("--batch", type=int, default=128)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--warmup", type=int, default=50)
    p.add_argument("--ema", type=float, default=0.99)
    p.add_argument("--reserve", type=float, default=40.0, help="seconds kept for the end")
    p.add_argument("--save-every", type=float, default=240.0)

    p = sub.add_parser("tokenizers")
    p.add_argument("--out", default="", help="model folder (default: this one)")
    p.add_argument("--lines", type=int, default=20000, help="captions to learn from")
    p.add_argument("--check", type=int, default=0,
                   help="compare so many captions with transformers' tokenizers")

    p = sub.add_parser("export")
    p.add_argument("--vae", default="", help="checkpoint folder (none: random weights)")
    p.add_argument("--denoiser", default="", help="checkpoint folder (none: random weights)")
    p.add_argument("--text", default="", help="checkpoint folder, where there is no denoiser yet")
    p.add_argument("--out", required=True)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--sampling", nargs="*", default=[], metavar="KEY=VALUE")

    a = ap.parse_args()
    if a.command == "tokenizers":
        import vocab
        vocab.run(a)
    elif a.command == "export":
        import export
        export.run(a)
    elif a.command == "denoiser":
        import train_denoiser
        train_denoiser.run(a)
    elif a.command == "text":
        import train_text
        train_text.run(a)
    elif a.command == "vae":
        import train_vae
        train_vae.run(a)
    elif a.command == "bench":
        import train_vae
        train_vae.bench(a)


if __name__ == "__main__":
    main()
