# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes a scene as a sentence, in many ways, and decorates prompts as Open-Sora does.

Only standard Python: worker processes that tokenise captions should start fast.

  captions.py [--seed 1] [--n 40]               prints some (needs numpy for the scenes)
"""
import random
import re

# A word that is not the first of its row is a synonym: used less often.
COLOUR_WORDS = {
    "red": ("red", "bright red"), "green": ("green",), "blue": ("blue",),
    "yellow": ("yellow", "bright yellow"), "orange": ("orange",), "purple": ("purple", "violet"),
    "pink": ("pink",), "cyan": ("cyan", "turquoise"), "white": ("white",), "black": ("black",),
    "brown": ("brown",), "gray": ("gray", "grey"),
}
SHAPE_WORDS = {
    "circle": ("circle", "disc", "disk", "ball", "dot"), "square": ("square", "box"),
    "triangle": ("triangle",), "star": ("star", "five-pointed star"),
    "heart": ("heart", "heart shape"), "diamond": ("diamond", "rhombus"),
    "ring": ("ring", "hoop", "donut"), "cross": ("cross", "plus sign"),
    "crescent": ("crescent", "crescent moon", "moon"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "medium": ("medium-sized", "medium"),
              "large": ("large", "big", "huge")}

SIDES = {"right": ("left", "right"), "left": ("right", "left"),
         "up": ("bottom", "top"), "down": ("top", "bottom")}

# Verbs as (moves, moving); the first is used most.
MOVE = (("moves", "moving"), ("slides", "sliding"), ("glides", "gliding"), ("travels", "traveling"),
        ("travels", "travelling"), ("goes", "going"), ("flies", "flying"), ("floats", "floating"),
        ("drifts", "drifting"))
MOVE_FAST = (("moves", "moving"), ("races", "racing"), ("dashes", "dashing"), ("shoots", "shooting"))
MOVE_SLOW = (("moves", "moving"), ("creeps", "creeping"), ("drifts", "drifting"))
RISE = (("rises", "rising"), ("climbs", "climbing"))
FALL = (("falls", "falling"), ("sinks", "sinking"), ("drops", "dropping"))
BOUNCE = (("bounces", "bouncing"),)
GROW = (("grows", "growing"), ("gets bigger", "getting bigger"), ("expands", "expanding"),
        ("grows larger", "growing larger"))
SHRINK = (("shrinks", "shrinking"), ("gets smaller", "getting smaller"),
          ("contracts", "contracting"))
SPIN = (("spins", "spinning"), ("rotates", "rotating"), ("turns around", "turning around"))
STILL = (("stands still", "standing still"), ("stays still", "staying still"),
         ("does not move", "not moving"), ("stays in place", "staying in place"),
         ("remains still", "remaining still"), ("rests", "resting"))

SLOW = ("slowly", "gently")
FAST = ("quickly", "fast", "rapidly")
EVEN = ("steadily", "smoothly")

FPS = (8, 12, 16, 24, 30)
DEFAULT_FPS, DEFAULT_SCORE = 16, 4


# ---- decoration, as upstream's opensora/utils/inference.py does it ----

def decorate(text, fps=DEFAULT_FPS, score=DEFAULT_SCORE):
    text = text.strip()
    if not text.endswith("."):
        text += "."
    if not re.search(r"\d+ FPS\.$", text):
        text += f" {fps} FPS."
    return f"{text} {score} motion score."


# ---- parts of a sentence ----

def _often_first(rng, words, first=0.6):
    return words[0] if len(words) == 1 or rng.random() < first else rng.choice(words[1:])


def _a(words):
    return ("an " if words[0] in "aeiou" and not words.startswith("uni") else "a ") + words


def _colour(name, rng):
    return _often_first(rng, COLOUR_WORDS[name], 0.85 if name != "gray" else 0.6)


def _thing(colour, shape, size, rng, said, article=True):
    c, s = _colour(colour, rng), _often_first(rng, SHAPE_WORDS[shape], 0.8)
    say_size = said["size"] = rng.random() < (0.12 if size == "medium" else 0.5)
    z = _often_first(rng, SIZE_WORDS[size], 0.7) + " " if say_size else ""
    r = rng.random()
    if r < 0.93:
        words = f"{z}{c} {s}"
    elif r < 0.965:
        words = f"{z}{s} that is {c}"
    else:
        words = f"{z}{c}-colored {s}" if rng.random() < 0.5 else f"{z}{c}-coloured {s}"
    if not article:
        return words
    r = rng.random()
    return "one " + words if r < 0.03 else "the " + words if r < 0.06 else _a(words)


def _direction(name, rng):
    """-> words that follow "moving"; True if "across" phrases the sides already"""
    if name in SIDES:
        start, end = SIDES[name]
        straight = name in ("right", "left")
        r = rng.random()
        if r < 0.34:
            return name
        if straight:
            return (f"to the {name}" if r < 0.54 else f"from {start} to {end}" if r < 0.76 else
                    f"from the {start} to the {end}" if r < 0.82 else
                    rng.choice((f"{name}ward", f"{name}wards")) if r < 0.90 else
                    rng.choice((f"towards the {name}", f"toward the {name}",
                                f"toward the {name} side", f"towards the {name} edge")))
        return (rng.choice((f"{name}ward", f"{name}wards")) if r < 0.62 else
                f"from {start} to {end}" if r < 0.80 else
                f"from the {start} to the {end}" if r < 0.88 else
                rng.choice((f"to the {end}", f"towards the {end}", f"toward the {end}")))
    v, h = name.split("-")
    top = "upper" if v == "up" else "lower"
    far = "top" if v == "up" else "bottom"
    return rng.choice((
        f"{v} and to the {h}", f"{v} and to the {h}", f"{v} and {h}", f"diagonally {v} and to the {h}",
        f"diagonally {v} and {h}", f"diagonally to the {top} {h}", f"to the {top} {h}",
        f"{v}-{h}", f"{v} {h}", f"diagonally {v}-{h}", f"toward the {far} {h}",
        f"towards the {top} {h} corner", f"toward the {far} {h} corner",
        f"{v}ward and to the {h}", f"{v} and {h}ward"))


def _adverb(score, rng):
    if score <= 2:
        return rng.choice(SLOW) if rng.random() < 0.45 else ""
    if score >= 6:
        return rng.choice(FAST) if rng.random() < 0.45 else ""
    return rng.choice(EVEN) if rng.random() < 0.05 else ""


def _motion(motion, score, axis, spin, rng, said):
    """-> (finite, participle) such as ("moves slowly right", "slowly moving right")"""
    tail, adverb = "", _adverb(score, rng)
    if motion == "bounce":
        verbs = BOUNCE
        if rng.random() < 0.6:
            tail = rng.choice((("from side to side", "left and right", "horizontally", "back and forth"),
                               ("up and down", "vertically", "up and down"),
                               ("around", "off the walls", "diagonally", "off the edges"))[axis])
    elif motion in ("grow", "shrink"):
        verbs = GROW if motion == "grow" else SHRINK
        if rng.random() < 0.1:
            tail = "in place"
    elif motion == "spin":
        verbs = SPIN
        r = rng.random()
        if r < 0.4:
            tail = "clockwise" if spin > 0 else rng.choice(("counterclockwise", "counter-clockwise",
                                                            "anticlockwise"))
        elif r < 0.5:
            tail = "in place"
    elif motion == "still":
        verbs, adverb = STILL, ""
    else:
        verbs = MOVE
        if adverb in FAST or score >= 6:
            verbs = MOVE_FAST if rng.random() < 0.25 else MOVE
        elif adverb in SLOW or score <= 2:
            verbs = MOVE_SLOW if rng.random() < 0.25 else MOVE
        tail = _direction(motion, rng)
        if motion in ("up", "down") and rng.random() < 0.2:
            verbs = RISE if motion == "up" else FALL
            if rng.random() < 0.5:
                tail = ""
    finite, participle = _often_first(rng, verbs, 0.55)
    said["way"] = bool(tail) and tail != "in place"
    fast = adverb in FAST or verbs is MOVE_FAST and finite != "moves"
    slow = adverb in SLOW or finite == "creeps"
    said["speed"] = 1 if fast else -1 if slow else 0

    def with_adverb(verb):
        if not adverb:
            return f"{verb} {tail}".strip()
        if adverb != "fast" and where < 0.4:
            return f"{adverb} {verb} {tail}".strip()
        if where < 0.75 and " " not in verb:
            return f"{verb} {adverb} {tail}".strip()
        return f"{verb} {tail} {adverb}".replace("  ", " ")
    where = rng.random()
    return with_adverb(finite), with_adverb(participle)


def _background(kind, c0, c1, rng, said):
    """-> noun phrase with article, and the same without the word "background" where it can be
    a sentence's predicate ("the background is ...")"""
    phrase, bare = _ground(kind, c0, c1, rng)
    axis = re.compile(r"horizontal|vertical| top| left")
    said["ground"] = "axis" if axis.search(phrase) else "colours"
    said["bare"] = "axis" if axis.search(bare) else "colours"
    return phrase, bare


def _ground(kind, c0, c1, rng):
    a, b = _colour(c0, rng), _colour(c1, rng)
    if kind == "plain":
        r = rng.random()
        adj = f"{a}" if r < 0.7 else f"{rng.choice(('plain', 'solid', 'uniform'))} {a}"
        return (f"a background of {a}" if r > 0.96 else _a(f"{adj} background")), adj
    if kind.startswith("gradient"):
        v = kind.endswith("v")
        start, end = ("top", "bottom") if v else ("left", "right")
        way = f"from {start} to {end}"
        axis = "vertical" if v else "horizontal"
        if rng.random() < 0.12:                 # the other way round, which has to be said
            start, end, a, b = end, start, b, a
            way = f"from {start} to {end}"
            phrase = rng.choice((f"gradient from {a} at the {start} to {b} at the {end}",
                                 f"{a} to {b} gradient {way}"))
            return _a(phrase), _a(phrase)
        if v:
            sides = f"from {a} at the {start} to {b} at the {end}"
        else:
            sides = rng.choice((f"from {a} on the {start} to {b} on the {end}",
                                f"from {a} at the {start} to {b} at the {end}"))
        choices = (f"gradient background from {a} to {b}", f"{a} to {b} gradient background",
                   f"{a}-to-{b} gradient background", f"{axis} {a} to {b} gradient background",
                   f"background that fades from {a} to {b}", f"gradient from {a} to {b}",
                   f"{axis} gradient from {a} to {b}", f"{a} to {b} gradient",
                   f"background gradient {sides}", f"gradient {sides}",
                   f"background fading from {a} to {b} {way}", f"{a} to {b} gradient {way}",
                   f"{axis} gradient background from {a} to {b}",
                   f"gradient background of {a} and {b}" if rng.random() < 0.5 else
                   f"gradient background going {sides}")
        phrase = rng.choice(choices)
        return _a(phrase), _a(phrase.replace("background ", "").replace(" background", ""))
    axis = "horizontal" if kind.endswith("h") else "vertical"
    if rng.random() < 0.5:                      # either colour may come first
        a, b = b, a
    r = rng.random()
    if r < 0.5:
        phrase = rng.choice((f"{a} and {b} striped background", f"{a} and {b} striped background",
                             f"striped {a} and {b} background", f"background striped in {a} and {b}",
                             f"{axis}ly striped {a} and {b} background",
                             f"background with {a} and {b} stripes",
                             f"background with {axis} {a} and {b} stripes",
                             f"background of {axis} {a} and {b} stripes",
                             f"background of {a} and {b} {axis} stripes"))
        return _a(phrase), rng.choice((f"striped {a} and {b}", f"{a} and {b} stripes",
                                       f"{axis} {a} and {b} stripes"))
    phrase = rng.choice((f"{a} and {b} stripes", f"{axis} {a} and {b} stripes",
                         f"{axis} stripes in {a} and {b}", f"{a} and {b} {axis} stripes",
                         f"stripes of {a} and {b}"))
    return phrase, phrase


PLACE = ("on", "on", "on", "on", "against", "over", "in front of")


def _one(c, rng, said):
    """Sentence about the clip's only object"""
    mine = {}
    said.update(order=[0], things=[mine], side=False)
    thing = _thing(c["colour"][0], c["shape"][0], c["size"][0], rng, mine)
    finite, part = _motion(c["motion"][0], c["score"], c["axis"], c["spin"], rng, mine)
    bg, bare = _background(c["kind"], c["c0"], c["c1"], rng, said)
    place = rng.choice(PLACE)
    if c["motion"][0] in SIDES and rng.random() < 0.08:
        place = "across"
    r = rng.random()
    if r < 0.34:
        return f"{thing} {part} {place} {bg}"
    if r < 0.48:
        return f"{thing} {finite} {place} {bg}"
    if r < 0.53:
        return f"{thing} is {part} {place} {bg}"
    place = "on" if place == "across" else place
    if r < 0.60:
        return f"{place} {bg}, {thing} {finite}"
    if r < 0.65:
        return f"{place} {bg}, {thing} is {part}"
    if r < 0.70:
        return f"{thing} {place} {bg} {part}" if rng.random() < 0.4 else f"{thing} {place} {bg}, {part}"
    if r < 0.75:
        what = rng.choice(("a video of", "an animation of", "a clip of", "a short video showing"))
        return f"{what} {thing} {part} {place} {bg}"
    if r < 0.79:
        return f"there is {thing} {part} {place} {bg}"
    if r < 0.82:
        return f"{thing} that {finite} {place} {bg}"
    if r < 0.85:
        return f"{bg} with {thing} {part}"
    if r < 0.88:
        said["ground"] = said["bare"]
        return f"{thing} {part}, {bare if 'background' in bare else bare + ' background'}"
    if r < 0.91:
        tag = _thing(c["colour"][0], c["shape"][0], c["size"][0], rng, mine, article=False)
        return f"{tag} {part} {place} {bg[2:] if bg.startswith('a ') else bg}"
    if r < 0.94:
        said["ground"] = said["bare"]
        return f"{thing} {finite}. the background is {bare}"
    if r < 0.96:
        return f"{thing} {place} {bg}. it {finite if rng.random() < 0.5 else 'is ' + part}"
    said["ground"] = "nothing"
    return f"{thing} {part}"                      # the background is left to chance


def _two(c, rng, said):
    mine = [{}, {}]
    things = [_thing(c["colour"][o], c["shape"][o], c["size"][o], rng, mine[o]) for o in (0, 1)]
    moves = [_motion(c["motion"][o], c["score"], c["axis"], c["spin"], rng, mine[o]) for o in (0, 1)]
    bg, bare = _background(c["kind"], c["c0"], c["c1"], rng, said)
    place = rng.choice(PLACE)
    order = [0, 1] if rng.random() < 0.5 else [1, 0]
    (a, b), (x, y) = [things[o] for o in order], [moves[o] for o in order]
    first = order[0] == c["first"]                # a is the upper one, or the left one
    r = rng.random()
    said.update(order=order, things=mine, side=0.45 <= r < 0.72)
    if r < 0.30:
        return f"{a} {x[1]} and {b} {y[1]} {place} {bg}"
    if r < 0.45:
        return f"{a} {x[0]} and {b} {y[0]} {place} {bg}"
    if r < 0.62:
        rel = (("above", "below") if c["lanes"] == 0 else ("to the left of", "to the right of"))
        return f"{a} {x[1]} {rel[0] if first else rel[1]} {b} {y[1]} {place} {bg}"
    if r < 0.72:
        at = (("at the top", "at the bottom") if c["lanes"] == 0 else ("on the left", "on the right"))
        p, q = at if first else at[::-1]
        return f"{a} {p} {x[1]} and {b} {q} {y[1]} {place} {bg}"
    if r < 0.82:
        return f"{place} {bg}, {a} {x[0]} while {b} {y[0]}"
    if r < 0.92:
        return f"{a} {x[1]}, {b} {y[1]}, {place} {bg}"
    said["ground"] = said["bare"]
    return f"{a} {x[0]} while {b} {y[0]}. the background is {bare}"


def caption(clip, rng, said=None):
    """clip: see describe(); rng: random.Random -> sentence without decoration.

    `said`, a dict, receives what of the scene the sentence tells; see labels().
    """
    said = {} if said is None else said
    text = _two(clip, rng, said) if clip["count"] > 1 else _one(clip, rng, said)
    if rng.random() < 0.4:                        # capitals at the start of sentences
        text = ". ".join(s[:1].upper() + s[1:] for s in text.split(". "))
    return text + "." if rng.random() < 0.2 else text


def decorated(text, score, rng, plain=0.12, said=None):
    """Mostly as the pipeline does it; sometimes as somebody else's might not.

    With `said` a speed that stands in words may come with the usual score, as it does
    for a user who writes "quickly" and leaves the score alone.
    """
    words = any(t["speed"] for t in said["things"]) if said else False
    if said is not None:
        said["score"] = 0
    if rng.random() < plain:
        return text
    fps = DEFAULT_FPS if rng.random() < 0.4 else rng.choice(FPS)
    if words and rng.random() < 0.4:
        score = DEFAULT_SCORE
    elif said is not None:
        said["score"] = score
    return decorate(text, fps, score)


def describe(table, row):
    """One row of a table of scenes (scene.py) in words"""
    import scene
    from shapes import COLOURS, SHAPES
    n = int(table["count"][row])
    clip = {k: int(table[k][row]) for k in ("count", "score", "axis", "spin", "lanes")}
    clip["shape"] = [SHAPES[i] for i in table["shape"][row][:n]]
    clip["colour"] = [COLOURS[i] for i in table["colour"][row][:n]]
    clip["motion"] = [scene.MOTIONS[i] for i in table["motion"][row][:n]]
    clip["size"] = [scene.SIZES[i] for i in table["size"][row][:n]]
    clip["kind"] = scene.BACKGROUNDS[table["kind"][row]]
    clip["c0"], clip["c1"] = COLOURS[table["c0"][row]], COLOURS[table["c1"][row]]
    at = table["traj"][row, :, 0, 1 if clip["lanes"] == 0 else 0]
    clip["first"] = 0 if n < 2 or at[0] < at[1] else 1
    return clip


# ---- what a caption says, as numbers to learn from ----

GROUNDS = ("nothing", "plain", "gradient-v", "gradient-h", "gradient", "stripes-h", "stripes-v",
           "stripes")
# Names of label columns and their number of classes; objects in the order of the sentence.
LABELS = {"count": 2, "colour": 12, "shape": 9, "motion": 13, "size": 4,
          "colour 2": 12, "shape 2": 9, "motion 2": 13, "size 2": 4,
          "axis": 4, "spin": 3, "speed": 10, "ground": 8, "c0": 12, "c1": 12, "side": 5}
HUES = 12                           # more columns: is that colour in the background?


def labels(table, row, clip, said):
    """-> a number for each of LABELS, -1 where there is nothing to say; then HUES times 0 or 1.

    What the sentence leaves open is a class of its own.
    """
    out = dict.fromkeys(LABELS, -1)
    out["count"] = clip["count"] - 1
    for o, mark in zip(said["order"], ("", " 2")):
        told = said["things"][o]
        for k in ("colour", "shape", "motion", "size"):
            out[k + mark] = int(table[k][row, o])
        if not told["size"]:
            out["size" + mark] = 3
        motion = clip["motion"][o]
        if motion == "bounce":
            out["axis"] = clip["axis"] if told["way"] else 3
        elif motion == "spin":
            out["spin"] = (clip["spin"] > 0) if told["way"] else 2
    speeds = [t["speed"] for t in said["things"]]
    out["speed"] = said["score"] or (9 if max(speeds) > 0 else 8 if min(speeds) < 0 else 0)
    kind, ground = clip["kind"], said["ground"]
    hues = [0] * HUES
    c0, c1 = int(table["c0"][row]), int(table["c1"][row])
    if ground == "nothing":
        out["ground"] = 0
    else:
        out["ground"] = GROUNDS.index(kind if ground == "axis" else kind.split("-")[0])
        hues[c0] = hues[c1] = 1
        if not kind.startswith("stripes"):
            out["c0"] = c0
        if kind.startswith("gradient"):
            out["c1"] = c1
    if clip["count"] > 1:
        upper = said["order"][0] == clip["first"]
        out["side"] = 0 if not said["side"] else 1 + 2 * clip["lanes"] + (not upper)
    return [int(v) for v in out.values()] + hues


def main():
    import argparse

    import numpy as np

    import scene
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--n", type=int, default=40)
    a = ap.parse_args()
    table = scene.sample(np.random.default_rng(a.seed), a.n)
    rng = random.Random(a.seed)
    for i in range(a.n):
        clip = describe(table, i)
        print(decorated(caption(clip, rng), clip["score"], rng))


if __name__ == "__main__":
    main()
