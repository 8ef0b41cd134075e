#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes tests/data/tokenizer/: two small vocabularies and what Hugging Face makes of awkward text.

Needs transformers 4.39.3 (the version that ColossalAI pins, and with it Open-Sora), sentencepiece
and ftfy 6.3, which Open-Sora asks for and CLIPTokenizer then cleans text with. This project does
the same but for one thing, which is left out here, too: ftfy's guess that a text was read in a wrong
encoding. How many of the texts that would change is printed. No PyTorch. The output is the same on
every run.

  t5/spiece.model, t5/tokenizer_config.json   SentencePiece unigram, 1000 pieces, 10 sentinels
  clip/vocab.json, clip/merges.txt            byte-pair encoding, 1500 merges
  golden.tsv                                  text, T5 ids, T5 hashes, CLIP ids, CLIP hashes
  golden-clip-full.tsv                        text, CLIP ids with the published vocabulary

Texts are escaped as g_strcompress() undoes it. Ids are complete: neither truncated nor
padded. Hashes are FNV-1a over the ids as 32-bit little-endian words for max_length 8, 64,
77 and 512, truncated and padded by Hugging Face.

--clip-bpe=bpe_simple_vocab_16e6.txt.gz (from OpenAI's CLIP) writes golden-clip-full.tsv;
without it that file is left alone.
"""

import argparse
import collections
import functools
import gzip
import io
import json
import logging
import os
import random
import tempfile

import ftfy
import sentencepiece
import transformers
from transformers import CLIPTokenizer, T5Tokenizer

LENGTHS = (8, 64, 77, 512)
N_PIECES = 1000
N_SENTINELS = 10
N_MERGES = 1500

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(HERE, "..", "data", "tokenizer")
COPYING = os.path.join(HERE, "..", "..", "COPYING")

SHAPES = "circle square triangle star ring cross diamond hexagon".split()
COLOURS = "red green blue yellow orange purple white black pink cyan".split()
MOTIONS = "moving left|moving right|drifting up|bouncing|growing|spinning|standing still".split("|")
BACKGROUNDS = "plain|striped|gradient".split("|")
OTHER_LANGUAGES = [
    "ein roter Kreis bewegt sich über den blauen Hintergrund, schön und groß",
    "un cercle rouge se déplace à droite, l'été dernier, où ça",
    "красный круг движется вправо на синем фоне",
    "ένας κόκκινος κύκλος κινείται δεξιά",
    "un círculo rojo se mueve hacia la derecha ¿verdad?",
]


def corpus():
    rng = random.Random(1)
    lines = []
    for _ in range(3000):
        lines.append(
            f"A {rng.choice(COLOURS)} {rng.choice(SHAPES)} {rng.choice(MOTIONS)} on a "
            f"{rng.choice(BACKGROUNDS)} {rng.choice(COLOURS)} background, {rng.randint(1, 60)} FPS. "
            f"{rng.randint(0, 9)} motion score."
        )
    with open(COPYING, encoding="utf-8") as f:
        lines += [line.strip() for line in f if line.strip()]
    return lines + OTHER_LANGUAGES * 20


def train_t5(folder):
    os.makedirs(folder, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()),
        model_writer=model,
        vocab_size=N_PIECES,
        model_type="unigram",
        normalization_rule_name="nmt_nfkc",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    with open(os.path.join(folder, "spiece.model"), "wb") as f:
        f.write(model.getvalue())
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump({"extra_ids": N_SENTINELS, "model_max_length": 512}, f)
        f.write("\n")


def byte_symbols():
    """The printable characters that stand for the bytes 0 to 255, in the vocabulary's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    symbols = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [symbols[b] for b in printable + others], symbols


def train_clip(folder):
    """Plain byte-pair encoding: join the most frequent pair, ties by its spelling."""
    os.makedirs(folder, exist_ok=True)
    ordered, symbols = byte_symbols()
    counts = collections.Counter(w for line in corpus() for w in line.lower().split())
    words = []
    for word, count in sorted(counts.items()):
        spelled = [symbols[b] for b in word.encode()]
        spelled[-1] += "</w>"
        words.append((spelled, count))
    merges = []
    while len(merges) < N_MERGES:
        pairs = collections.Counter()
        for spelled, count in words:
            for pair in zip(spelled, spelled[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for spelled, _ in words:
            i = 0
            while i + 1 < len(spelled):
                if (spelled[i], spelled[i + 1]) == best:
                    spelled[i : i + 2] = ["".join(best)]
                i += 1
    write_clip(folder, ordered, merges)


def write_clip(folder, ordered, merges):
    tokens = ordered + [s + "</w>" for s in ordered] + ["".join(pair) for pair in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({token: i for i, token in enumerate(tokens)}, f)
        f.write("\n")
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))


FRAGMENTS = [
    # plain
    "a", "A", "red", "circle", "Moving", "RIGHT", "background", "motion score.", "24 FPS.",
    # white space
    " ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u2029", "\u1680",
    # control and format characters, replacement character, private use, noncharacter
    "\x01", "\x07", "\x0b", "\x0c", "\x1c", "\x1f", "\x7f", "\x85", "\u00ad", "\u200b", "\u200d",
    "\u200e", "\u202e", "\u2060", "\ufeff", "\ufffd", "\ue000", "\ufffe",
    # emoji: plain, joined, skin tone, flags, keycaps, variation selectors
    "🙂", "👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "1️⃣", "❤️", "❤", "🏳️‍🌈",
    # scripts
    "漢字", "日本語のテキスト", "カタカナ", "ﾊﾝｶｸ", "한국어", "ᄒ", "ᅡ", "ᆫ", "שלום", "مرحبا", "नमस्ते",
    "ไทย", "Привет", "ΟΔΥΣΣΕΥΣ", "Σ", "σς", "ΑΣ.", "ΑΣ'Α", "ქართული", "𠀀", "豈",
    # case and composition
    "İ", "ı", "ẞ", "ß", "ǅ", "Å", "Å", "e\u0301", "o\u0302\u0323", "a\u0345", "\u0345", "ﬁ",
    "ﬀ", "ﬅ", "Ⅳ", "Ⓐ", "Ａ１", "①", "½", "²", "٣", "ſ", "K",
    # contractions and punctuation
    "don't", "I'LL", "we've", "'s", "'S", "'ſ", "they're", "o'clock", "'d'm'", "...", "!?!", "--",
    "“quotes”", "it’s", "$5.00", "1,000", "50%", "a_b", "<", ">", "|", "</", "&amp;", "\\", "\"",
    # special tokens and what looks like them
    "</s>", "<pad>", "<unk>", "<s>", "</S>", "<extra_id_0>", "<extra_id_9>", "<extra_id_10>",
    "<extra_id_01>", "<extra_id_>", "<extra_id_5", "<|startoftext|>", "<|endoftext|>",
    "<|ENDOFTEXT|>", "<|ſtartoftext|>", "<|endoftext|", "\u2581", "\u2581red",
]

# What ftfy changes, and what looks like it.
MENDED = [
    # HTML: names, capitals, numbers, what is no reference, once and more often
    "&eacute;", "&EACUTE;", "&Eacute;", "&szlig;", "&SZLIG;", "&nTILDE;", "&quot;x&quot;", "&lt;b&gt;",
    "&nbsp;", "&NotEqualTilde;", "&CounterClockwiseContourIntegral;", "&hellip;", "&AMP;", "&amp",
    "&amp;amp;", "&amp;lt;", "&amp;amp;amp;eacute;", "&am&#112;;", "&&amp;amp;;", "&#38;#38;lt;", "&;",
    "&#65;", "&#x41;", "&#X1F642;", "&#x1f642;", "&#150;", "&#x85;", "&#x81;", "&#0;", "&#13;", "&#59;",
    "&#55296;", "&#1114112;", "&#99999999999999999999;", "&#12ab;", "&#;", "&#x;", "&#1;", "&#xfdd0;",
    "&#xffff;", "&nosuchname;", "&averylongnamethatisnotonexx;", "a&b;c", "R&D", "x < y &amp; z",
    "&lt;\n<\n&lt;", "&lt;\n&lt;",
    # ligatures, digraphs, widths, quotes
    "ĳs", "Ĳs", "ŉ", "Ǆ", "ǆ", "Ǉ", "ǈ", "ǌ", "Ǳ", "ǲ", "ǳ", "ﬃ", "ﬄ", "ﬆ", "ﬂuﬃeﬆ", "œuvre", "æ",
    "ＬＯＵＤ　ＮＯＩＳＥＳ", "ｱﾊﾟｰﾄ", "ﾡﾢ", "￡￥￣", "｟｠", "＆ａｍｐ；", "＂＇", "‘a’", "‚b‛", "„c‟", "«d»", "ʼn",
    # terminals, control characters, line ends, Windows-1252 in C1
    "\x1b[31mred\x1b[0m", "\x1b[1;31;42mred\x1b[m", "\x1b[٣m", "\x1b[31", "\x1b[3é", "\x1b]0;t\x07",
    "\u206a", "\ufff9a\ufffab\ufffb", "\ufffc", "a\rb", "a\r\nb", "a\u2028b\u2029c", "\x91q\x92",
    "\x93q\x94", "\x80 5", "\x99", "\x81", "\x8d\x8f", "a\x0cb", "\x1ca\x1db",
    # composition, sigma among what does not count, long chains
    "e\u0301\u0323", "\u1100\u1161\u11a8", "ΑΣ\u200d", "ΑΣ\u00adΑ", "Α\u200bΣ", "ΣΑΣ'", "&Sigma;", "Α&Sigma;",
    "&amp;" * 200, "&amp;" + "amp;" * 300 + "lt;", "ﬁ" * 100,
]  # fmt: skip


def texts():
    """At least a thousand texts; every fragment alone, in pairs, in long mixtures."""
    rng = random.Random(2)
    found = ["", " ", "   ", "\n", "\t \n"]
    found += FRAGMENTS
    found += [f"red {f} circle" for f in FRAGMENTS]
    found += [f"red{f}circle" for f in FRAGMENTS]
    found += [f"{f} {f}{f}" for f in FRAGMENTS]
    found += corpus()[:40] + OTHER_LANGUAGES
    found += MENDED
    found += [f"red {f} circle" for f in MENDED]
    found += [f"red{f}circle" for f in MENDED]
    for _ in range(420):
        n = rng.randint(2, 12)
        separator = rng.choice(["", "", " "])
        found.append(separator.join(rng.choice(FRAGMENTS) for _ in range(n)))
    # Any character of the Basic Multilingual Plane that has been there for long, and emoji.
    ranges = [(0x21, 0x250), (0x370, 0x530), (0x5D0, 0x5EB), (0x900, 0x970), (0x1E00, 0x1F00)]
    ranges += [(0x2010, 0x2030), (0x2190, 0x2200), (0x3041, 0x3100), (0x4E00, 0x4F00)]
    ranges += [(0xAC00, 0xAD00), (0xFB00, 0xFB07), (0xFF01, 0xFF60), (0x1F600, 0x1F640)]
    for _ in range(160):
        found.append("".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(rng.randint(1, 16))))
    # Around the truncation limits, and long words.
    for n in (5, 6, 7, 8, 61, 62, 63, 64, 74, 75, 76, 77, 509, 510, 511, 512):
        found.append("a " * n)
        found.append("7" * n)
        found.append("</s>" * n)
        found.append("a " * n + "</s>")
    found += ["a" * 2000, "spinning" * 300, "!" * 1500, "!?" * 500, "7" * 1000, "漢" * 600, "é" * 700]
    found += ["👍" * 300, "aB" * 500 + "'s", "\u0301" * 300, "x " * 600]
    for _ in range(200):
        parts = [rng.choice(MENDED if rng.random() < 0.6 else FRAGMENTS) for _ in range(rng.randint(2, 8))]
        found.append(rng.choice(["", "", " "]).join(parts))
    return list(dict.fromkeys(found))


def escape(text):
    out = bytearray()
    for byte in text.encode():
        if byte < 0x20 or byte == 0x7F:
            out += b"\\%03o" % byte
        elif byte == 0x5C:
            out += b"\\\\"
        else:
            out.append(byte)
    return bytes(out)


def fnv1a(ids):
    value = 0x811C9DC5
    for i in ids:
        for byte in int(i).to_bytes(4, "little"):
            value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def encode(tokenizer, text):
    full = tokenizer(text)["input_ids"]
    hashes = []
    for length in LENGTHS:
        ids = tokenizer(text, truncation=True, max_length=length, padding="max_length")["input_ids"]
        assert len(ids) == length
        hashes.append(fnv1a(ids))
    return full, hashes


def joined(numbers):
    return " ".join(map(str, numbers)).encode()


def write_golden(path, t5, clip):
    with open(path, "wb") as f:
        for text in texts():
            columns = [escape(text)]
            for tokenizer in (t5, clip):
                full, hashes = encode(tokenizer, text)
                columns += [joined(full), joined(hashes)]
            f.write(b"\t".join(columns) + b"\n")


def without_guess(clip):
    assert clip.fix_text is ftfy.fix_text
    clip.fix_text = functools.partial(ftfy.fix_text, fix_encoding=False)
    return clip


def count_guesses():
    return sum(ftfy.fix_text(text) != ftfy.fix_text(text, fix_encoding=False) for text in texts())


def write_full_clip_golden(path, bpe):
    with gzip.open(bpe, "rt", encoding="utf-8") as f:
        lines = f.read().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    with tempfile.TemporaryDirectory() as folder:
        write_clip(folder, byte_symbols()[0], merges)
        clip = without_guess(
            CLIPTokenizer(os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt"))
        )
    with open(path, "wb") as f:
        for text in texts()[::3]:
            if len(text) < 300:
                f.write(escape(text) + b"\t" + joined(clip(text)["input_ids"]) + b"\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clip-bpe", help="bpe_simple_vocab_16e6.txt.gz")
    args = parser.parse_args()

    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    t5_folder, clip_folder = (os.path.join(DATA, name) for name in ("t5", "clip"))
    train_t5(t5_folder)
    train_clip(clip_folder)
    t5 = T5Tokenizer.from_pretrained(t5_folder, legacy=True)
    clip = CLIPTokenizer(os.path.join(clip_folder, "vocab.json"), os.path.join(clip_folder, "merges.txt"))
    clip = without_guess(clip)
    assert len(t5) == N_PIECES + N_SENTINELS
    write_golden(os.path.join(DATA, "golden.tsv"), t5, clip)
    print(f"{count_guesses()} of {len(texts())} texts are guessed to be in a wrong encoding")
    if args.clip_bpe:
        write_full_clip_golden(os.path.join(DATA, "golden-clip-full.tsv"), args.clip_bpe)


if __name__ == "__main__":
    main()
