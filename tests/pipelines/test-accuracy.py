# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clips show what their prompts say: colour of the object, background and direction are read off
the frames by plain image analysis.

OPENSORA_TEST_PROMPTS is the number of prompts (8, one for each direction, unless it is set).
"""

import os
import sys
import unittest

import support

sys.path.insert(
    0, os.path.join(os.environ["OPENSORA_SOURCE_ROOT"], "engine", "tiny-model", "train")
)
try:
    import classify
    import numpy
except ImportError:
    numpy = None

SIZE, FRAMES = 128, 33
DIRECTIONS = {
    "right": "right",
    "left": "left",
    "up": "up",
    "down": "down",
    "up-right": "to the upper right",
    "up-left": "to the upper left",
    "down-right": "to the lower right",
    "down-left": "to the lower left",
}
SHAPES = ["circle", "square", "triangle", "star", "heart", "diamond", "cross"]
# Pairs that nobody takes for each other: object, background.
COLOURS = [
    ("red", "blue"),
    ("yellow", "purple"),
    ("green", "white"),
    ("orange", "black"),
    ("blue", "yellow"),
    ("white", "green"),
    ("cyan", "brown"),
    ("purple", "white"),
    ("pink", "black"),
]
# Of all prompts; of few prompts that means every one.
TARGETS = {"colour": 0.97, "background": 0.99, "direction": 0.97}


def scenes(count):
    """(colour, shape, direction, background), the first of all being the README's."""
    directions = list(DIRECTIONS)
    return [
        (
            COLOURS[i % len(COLOURS)][0],
            SHAPES[i % len(SHAPES)],
            directions[i % len(directions)],
            COLOURS[i % len(COLOURS)][1],
        )
        for i in range(count)
    ]


def sentence(colour, shape, direction, background):
    article = "an" if colour[0] in "aeiou" else "a"
    return f"{article} {colour} {shape} moving {DIRECTIONS[direction]} on a {background} background"


def judge(scene, frames):
    """Name of what can be right or wrong -> whether it is."""
    colour, _, direction, background = scene
    found = classify.classify(frames)
    return found, {
        "colour": found["colour"] == colour,
        "background": (found["kind"], found["c0"]) == ("plain", background),
        "direction": found["motion"] == direction,
    }


@unittest.skipIf(numpy is None, "numpy is not installed")
class Accuracy(support.PipelineTest):
    def test_classifier(self):
        """A square that is drawn is read as it was drawn, and not as something else."""
        frames = numpy.empty((FRAMES, SIZE, SIZE, 3), numpy.uint8)
        frames[:] = classify.RGB[classify.COLOURS.index("white")]
        for i in range(FRAMES):
            y = 100 - 2 * i
            frames[i, y - 12 : y + 12, 50:74] = classify.RGB[classify.COLOURS.index("green")]
        found, right = judge(("green", "square", "up", "white"), frames)
        self.assertTrue(all(right.values()), found)
        _, right = judge(("red", "square", "down", "blue"), frames)
        self.assertFalse(any(right.values()))

    def test_prompts(self):
        wanted = scenes(int(os.environ.get("OPENSORA_TEST_PROMPTS", len(DIRECTIONS))))
        self.write("prompts.txt", "".join(sentence(*scene) + "\n" for scene in wanted))
        self.assert_ran(
            self.launch(
                f"opensorasrc location=prompts.txt num-frames={FRAMES} width={SIZE} height={SIZE} !"
                " video/x-raw,format=RGB ! filesink location=clips.raw",
                timeout=60 * len(wanted),
            )
        )
        clips = numpy.fromfile(self.path("clips.raw"), numpy.uint8)
        clips = clips.reshape(len(wanted), FRAMES, SIZE, SIZE, 3)
        totals = dict.fromkeys(TARGETS, 0)
        wrong = []
        for scene, frames in zip(wanted, clips):
            found, right = judge(scene, frames)
            for name in TARGETS:
                totals[name] += right[name]
            if not all(right.values()):
                wrong.append(f"{sentence(*scene)}: {found}")
        told = "\n".join([f"of {len(wanted)}: {totals}", *wrong])
        print("\n".join("# " + line for line in told.splitlines()))
        for name, target in TARGETS.items():
            self.assertGreaterEqual(totals[name] / len(wanted), target, told)


if __name__ == "__main__":
    support.main()
