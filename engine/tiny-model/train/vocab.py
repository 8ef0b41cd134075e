# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tiny model's vocabularies: how they are made, and a fast way to apply them to captions.

`train.py tokenizers` writes engine/tiny-model/t5/ and clip/.  Both kinds never join letters
across a space, so a caption's ids are those of its words, which are looked up; a new word is
split as the real tokenisers do it.  check() compares with them.
"""
import collections
import io
import json
import os
import random
import re
import struct

PIECES, MERGES = 416, 448
T5_LENGTH, CLIP_LENGTH = 64, 64
UNKNOWN_PENALTY = 10.0              # SentencePiece's, below the worst piece


def corpus(count, seed):
    import numpy as np

    import captions
    import scene
    table = scene.sample(np.random.default_rng([seed, 99]), count, two=0.2)
    rng = random.Random(seed)
    lines = []
    for i in range(count):
        clip = captions.describe(table, i)
        lines.append(captions.decorated(captions.caption(clip, rng), clip["score"], rng))
    # Every printable character, and numbers, so that any English text can be spelled.
    printable = [chr(c) for c in range(33, 127)]
    lines += [" ".join(printable), "".join(printable)] * 20
    lines += [f"{n} FPS. {n % 11} motion score." for n in range(61)] * 3
    # SentencePiece takes as candidates what goes on in several ways.
    words = sorted({w.strip(".,") for line in lines[:count] for w in line.split()})
    lines += [" ".join(w + mark for mark in ".,;:!?") for w in words]
    return lines


# ---- making ----

def make_t5(folder, lines):
    import sentencepiece
    os.makedirs(folder, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=model, vocab_size=PIECES,
        model_type="unigram", normalization_rule_name="nmt_nfkc", character_coverage=1.0,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=False, num_threads=1, minloglevel=2)
    with open(os.path.join(folder, "spiece.model"), "wb") as f:
        f.write(model.getvalue())
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(dict(tokenizer_class="T5Tokenizer", extra_ids=0, additional_special_tokens=[],
                       pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
                       model_max_length=T5_LENGTH), f, indent=1)
        f.write("\n")


def byte_symbols():
    """The printable characters that stand for bytes, in vocabulary order, and the map to them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    symbols = {b: chr(b) for b in printable} | {b: chr(256 + i) for i, b in enumerate(others)}
    return [symbols[b] for b in printable + others], symbols


CLIP_WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+")


def make_clip(folder, lines):
    os.makedirs(folder, exist_ok=True)
    ordered, symbols = byte_symbols()
    counts = collections.Counter(w for line in lines for w in CLIP_WORD.findall(line.lower()))
    words = []
    for word, count in sorted(counts.items()):
        spelled = [symbols[b] for b in word.encode()]
        spelled[-1] += "</w>"
        words.append((spelled, count))
    merges = []
    while len(merges) < MERGES:
        pairs = collections.Counter()
        for spelled, count in words:
            for pair in zip(spelled, spelled[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        for spelled, _ in words:
            i = 0
            while i + 1 < len(spelled):
                if (spelled[i], spelled[i + 1]) == best:
                    spelled[i:i + 2] = ["".join(best)]
                i += 1
    tokens = ordered + [s + "</w>" for s in ordered] + ["".join(p) for p in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(tokens)) == len(tokens)
    with open(os.path.join(folder, "vocab.json"), "w", encoding="utf-8") as f:
        json.dump({t: i for i, t in enumerate(tokens)}, f)
        f.write("\n")
    with open(os.path.join(folder, "merges.txt"), "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as f:
        json.dump(dict(tokenizer_class="CLIPTokenizer", do_lower_case=True,
                       bos_token="<|startoftext|>", eos_token="<|endoftext|>",
                       unk_token="<|endoftext|>", pad_token="<|endoftext|>", errors="replace",
                       model_max_length=CLIP_LENGTH), f, indent=1)
        f.write("\n")
    return len(tokens)


# ---- applying ----

def _fields(data):
    """(number, value) of a protocol buffer message"""
    at = 0

    def varint():
        nonlocal at
        value, shift = 0, 0
        while True:
            b = data[at]
            at += 1
            value |= (b & 127) << shift
            shift += 7
            if b < 128:
                return value
    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            size = varint() if kind == 2 else 8 if kind == 1 else 4
            value = data[at:at + size]
            at += size
        yield key >> 3, value


class Unigram:
    """Encodes single words with a SentencePiece unigram model."""

    def __init__(self, path):
        with open(path, "rb") as f:
            model = f.read()
        self.pieces, n, low = {}, 0, 0.0
        for number, value in _fields(model):
            if number == 1:
                entry = dict(_fields(value))
                if entry.get(3, 1) == 1:
                    score = struct.unpack("<f", entry[2])[0]
                    self.pieces[entry[1].decode()] = (n, score)
                    low = min(low, score)
                n += 1
        self.size, self.unknown = n, low - UNKNOWN_PENALTY
        self.longest = max(map(len, self.pieces))

    def word(self, word):
        text = "\u2581" + word
        best, back = [0.0] + [-1e30] * len(text), [None] * (len(text) + 1)
        for i in range(len(text)):
            for j in range(i + 1, min(i + self.longest, len(text)) + 1):
                found = self.pieces.get(text[i:j])
                if found is None:
                    if j > i + 1:
                        continue
                    found = (2, self.unknown)
                if best[i] + found[1] > best[j]:
                    best[j], back[j] = best[i] + found[1], (i, found[0])
        ids, at = [], len(text)
        while at:
            at, i = back[at]
            if i != 2 or not ids or ids[-1] != 2:         # neighbouring unknowns become one
                ids.append(i)
        return ids[::-1]


class BytePairs:
    def __init__(self, folder):
        with open(os.path.join(folder, "vocab.json"), encoding="utf-8") as f:
            self.vocab = json.load(f)
        with open(os.path.join(folder, "merges.txt"), encoding="utf-8") as f:
            lines = f.read().splitlines()[1:]
        self.ranks = {tuple(line.split()): i for i, line in enumerate(lines)}
        self.symbols = byte_symbols()[1]
        self.size = len(self.vocab)
        self.begin, self.end = self.vocab["<|startoftext|>"], self.vocab["<|endoftext|>"]

    def word(self, word):
        ids = []
        for part in CLIP_WORD.findall(word.lower()):
            spelled = [self.symbols[b] for b in part.encode()]
            spelled[-1] += "</w>"
            while len(spelled) > 1:
                pairs = list(zip(spelled, spelled[1:]))
                best = min(pairs, key=lambda p: self.ranks.get(p, 1 << 30))
                if best not in self.ranks:
                    break
                i = 0
                while i + 1 < len(spelled):
                    if (spelled[i], spelled[i + 1]) == best:
                        spelled[i:i + 2] = ["".join(best)]
                    i += 1
            ids += [self.vocab[s] for s in spelled]
        return ids


class Tokenizers:
    """Both, with a table of words seen.  __call__(text) -> padded T5 ids, padded CLIP ids"""

    def __init__(self, folder):
        self.t5 = Unigram(os.path.join(folder, "t5", "spiece.model"))
        self.clip = BytePairs(os.path.join(folder, "clip"))
        self.words = {}

    def ids(self, text):
        a, b = [], []
        for word in text.split():
            both = self.words.get(word)
            if both is None:
                both = self.words[word] = (self.t5.word(word), self.clip.word(word))
            a += both[0]
            b += both[1]
        return a, b

    def __call__(self, text):
        a, b = self.ids(text)
        a = a[:T5_LENGTH - 1] + [1]
        b = [self.clip.begin] + b[:CLIP_LENGTH - 2] + [self.clip.end]
        return (a + [0] * (T5_LENGTH - len(a)),
                b + [self.clip.end] * (CLIP_LENGTH - len(b)))


def check(folder, lines):
    """Compares with SentencePiece and transformers; returns lengths without padding"""
    import sentencepiece
    from transformers import CLIPTokenizer, T5Tokenizer
    own = Tokenizers(folder)
    sp = sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, "t5", "spiece.model"))
    t5 = T5Tokenizer.from_pretrained(os.path.join(folder, "t5"), legacy=True)
    clip = CLIPTokenizer.from_pretrained(os.path.join(folder, "clip"))
    kw = dict(truncation=True, padding="max_length")
    t5_ids = t5(lines, max_length=T5_LENGTH, **kw)["input_ids"]
    clip_ids = clip(lines, max_length=CLIP_LENGTH, **kw)["input_ids"]
    bad, lengths = [0, 0, 0], []
    for line, a, b in zip(lines, t5_ids, clip_ids):
        x, y = own.ids(line)
        lengths.append((len(x) + 1, len(y) + 2))
        bad[0] += x != sp.encode(line)
        x, y = own(line)
        bad[1] += x != list(a)
        bad[2] += y != list(b)
    return bad, lengths


def run(a):
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
    folder = a.out or here
    lines = corpus(a.lines, 5)
    make_t5(os.path.join(folder, "t5"), lines)
    n = make_clip(os.path.join(folder, "clip"), lines)
    print(PIECES, "pieces,", n, "byte-pair tokens")
    if a.check:
        lines = corpus(a.check, 6)
        bad, lengths = check(folder, lines)
        print("differ from SentencePiece, T5Tokenizer, CLIPTokenizer:", *bad, "of", len(lines))
        for i, (name, limit) in enumerate((("T5", T5_LENGTH), ("CLIP", CLIP_LENGTH))):
            n = sorted(x[i] for x in lengths)
            print(f"{name} ids: median {n[len(n) // 2]}, 99.9 % {n[int(0.999 * len(n))]}, "
                  f"most {n[-1]}, longer than {limit}: {sum(x > limit for x in n)}")
