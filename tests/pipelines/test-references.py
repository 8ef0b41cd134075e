# SPDX-License-Identifier: LGPL-2.1-or-later
"""Clips that begin, or end, with a picture."""

import struct
import zlib

import support

PROMPT = "a red circle moving right on a blue background"
SMALL = ["steps=2", "num-frames=5", "width=32", "height=32"]
RED, BLUE = (220, 40, 40), (40, 70, 210)


def png(width, height, pixel):
    """A PNG file of pixel(x, y) -> (red, green, blue)."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(
        b"\0" + bytes(value for x in range(width) for value in pixel(x, y)) for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def circle(width, height, cx=0.5):
    """A red circle on blue, centre at the fraction cx of the width."""
    radius = height / 5

    def pixel(x, y):
        inside = (x - cx * width) ** 2 + (y - height / 2) ** 2 < radius**2
        return RED if inside else BLUE

    return png(width, height, pixel)


def distance(a, b):
    return sum(abs(x - y) for x, y in zip(a, b)) / len(a)


class References(support.PipelineTest):
    def frames(self, description, size=32):
        self.assert_ran(
            self.launch([*description, "video/x-raw,format=RGB", "!", "filesink", "location=o.raw"])
        )
        return support.read_raw(self.path("o.raw"), size, size)

    def source(self, *properties, size=32):
        return self.frames(["opensorasrc", f"prompt={PROMPT}", *properties, "!"], size)

    def test_image_and_pad_are_the_same(self):
        self.write("first.png", circle(32, 32))
        by_pad = self.frames(
            "filesrc location=first.png ! pngdec ! opensoravaeenc ! denoise.reference_0".split()
            + ["opensoratextsrc", f"prompt={PROMPT}", "!", "opensoradenoise", "name=denoise"]
            + SMALL
            + "! opensoravaedec !".split()
        )
        by_property = self.source("image=first.png", *SMALL)
        self.assertEqual(len(by_pad), 5)
        self.assertEqual(by_pad, by_property)
        self.assertNotEqual(by_pad, self.source(*SMALL), "the picture has no effect")

    def test_ref_column(self):
        self.write("first.png", circle(32, 32))
        self.write("prompts.csv", f'text,ref\n"{PROMPT}",first.png\n')
        by_column = self.frames(["opensorasrc", "location=prompts.csv", *SMALL, "!"])
        self.assertEqual(by_column, self.source("image=first.png", *SMALL))

    def test_two_pictures(self):
        self.write("a.png", circle(32, 32, 0.3))
        self.write("b.png", circle(32, 32, 0.7))
        frames = self.source("image=a.png;b.png", *SMALL)
        self.assertEqual(len(frames), 5)
        self.assertNotEqual(frames, self.source("image=a.png", *SMALL))

    def test_picture_of_other_size(self):
        """The middle of a wide picture fills the frame."""
        self.write("wide.png", circle(96, 48))
        self.assertEqual(len(self.source("image=wide.png", *SMALL)), 5)

    def test_video_to_latents(self):
        result = self.launch(
            "videotestsrc num-buffers=9 ! video/x-raw,width=48,height=32 ! opensoravaeenc"
            " num-frames=5 ! opensoravaedec ! video/x-raw,width=48,height=32,format=RGB !"
            " filesink location=out.raw"
        )
        self.assert_ran(result)
        self.assertEqual(len(support.read_raw(self.path("out.raw"), 48, 32)), 5 + 1)

    def test_clip_begins_with_the_picture(self):
        picture = circle(128, 128)
        self.write("first.png", picture)
        frames = self.source("image=first.png", "width=128", "height=128", size=128)
        wanted = bytes(
            value
            for y in range(128)
            for x in range(128)
            for value in (RED if (x - 64) ** 2 + (y - 64) ** 2 < 25.6**2 else BLUE)
        )
        self.assertLess(distance(frames[0], wanted), 20.0)


if __name__ == "__main__":
    support.main()
