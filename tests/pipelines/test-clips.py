# SPDX-License-Identifier: LGPL-2.1-or-later
"""What comes out: sizes, rates, formats, numbers of frames, tags, and the same for the same seed."""

import os

import support

PROMPT = "a red circle moving right on a blue background"
# As little work as makes a clip of several frames.
SMALL = ["steps=2", "num-frames=5", "width=32", "height=32"]


class Clips(support.PipelineTest):
    def generate(self, file, *properties, caps="video/x-raw,format=RGB"):
        """Raw frames of one clip in a file; returns its bytes."""
        self.assert_ran(
            self.launch(
                ["opensorasrc", f"prompt={PROMPT}", *SMALL, *properties]
                + ["!", caps, "!", "filesink", f"location={file}"]
            )
        )
        with open(self.path(file), "rb") as data:
            return data.read()

    def test_mp4(self):
        self.assert_ran(
            self.launch(
                ["opensoratextsrc", f"prompt={PROMPT}", "seed=7", "!", "opensoradenoise", *SMALL]
                + "! opensoravaedec ! video/x-raw,framerate=12/1 ! videoconvert ! x264enc".split()
                + "! mp4mux ! filesink location=out.mp4".split()
            )
        )
        found = support.probe(self.path("out.mp4"))
        self.assertEqual(found["codec_name"], "h264")
        self.assertEqual((found["width"], found["height"], found["frames"]), (32, 32, 5))
        self.assertEqual(found["avg_frame_rate"], "12/1")
        self.assertAlmostEqual(float(found["duration"]), 5 / 12, delta=0.001)
        self.assertEqual(found["tags"]["title"], PROMPT)
        self.assertIn("seed=7 ", found["tags"]["comment"])
        self.assertIn("steps=2 ", found["tags"]["comment"])

    def test_webm(self):
        self.assert_ran(
            self.launch(
                ["opensorasrc", f"prompt={PROMPT}", *SMALL]
                + "! videoconvert ! vp8enc ! webmmux ! filesink location=out.webm".split()
            )
        )
        found = support.probe(self.path("out.webm"))
        self.assertEqual((found["codec_name"], found["frames"]), ("vp8", 5))

    def test_size_and_rate_by_caps(self):
        self.assert_ran(
            self.launch(
                ["opensorasrc", f"prompt={PROMPT}", "steps=1", "num-frames=5", "!"]
                + "video/x-raw,width=64,height=48,framerate=10/1 ! videoconvert ! x264enc !".split()
                + "matroskamux ! filesink location=out.mkv".split()
            )
        )
        found = support.probe(self.path("out.mkv"))
        self.assertEqual((found["width"], found["height"], found["frames"]), (64, 48, 5))
        self.assertEqual(found["r_frame_rate"], "10/1")

    def test_size_by_name(self):
        self.assert_ran(
            self.launch(
                ["opensorasrc", f"prompt={PROMPT}", "steps=1", "num-frames=1", "resolution=128px"]
                + "aspect-ratio=1:1 ! videoconvert ! pngenc ! filesink location=out.png".split()
            )
        )
        found = support.probe(self.path("out.png"))
        self.assertEqual((found["codec_name"], found["width"], found["height"]), ("png", 128, 128))

    def test_formats(self):
        pixels = 32 * 32
        sizes = {
            "I420": pixels * 3 // 2,
            "NV12": pixels * 3 // 2,
            "RGB": pixels * 3,
            "RGBx": pixels * 4,
        }
        frames = {}
        for name, size in sizes.items():
            frames[name] = self.generate(f"{name}.raw", caps=f"video/x-raw,format={name}")
            self.assertEqual(len(frames[name]), 5 * size, name)
        rgbx = frames["RGBx"]
        self.assertEqual(
            frames["RGB"], b"".join(rgbx[i : i + 3] for i in range(0, len(rgbx), 4)), "RGB and RGBx"
        )
        self.assertEqual(frames["I420"][:pixels], frames["NV12"][:pixels], "luma of I420 and NV12")

    def test_same_seed_same_clip(self):
        first = self.generate("a.raw", "seed=3")
        self.assertEqual(first, self.generate("b.raw", "seed=3"))
        self.assertNotEqual(first, self.generate("c.raw", "seed=4"))

    def test_random_seed_is_told(self):
        """The seed in the tags makes the same clip again."""
        self.assert_ran(
            self.launch(
                ["opensorasrc", f"prompt={PROMPT}", "seed=-1", *SMALL]
                + "! video/x-raw,format=I420 ! tee name=t ! queue ! filesink location=i.raw".split()
                + "t. ! queue ! x264enc ! mp4mux ! filesink location=out.mp4".split()
            )
        )
        comment = support.probe(self.path("out.mp4"))["tags"]["comment"]
        seed = dict(part.split("=", 1) for part in comment.split())["seed"]
        with open(self.path("i.raw"), "rb") as file:
            self.assertEqual(
                self.generate("again.raw", f"seed={seed}", caps="video/x-raw,format=I420"),
                file.read(),
            )

    def test_bin_is_its_elements(self):
        self.assert_ran(
            self.launch(
                ["opensoratextsrc", f"prompt={PROMPT}", "!", "opensoradenoise", *SMALL]
                + "! queue ! opensoravaedec ! video/x-raw,format=RGB !".split()
                + "filesink location=elements.raw".split()
            )
        )
        with open(self.path("elements.raw"), "rb") as file:
            self.assertEqual(self.generate("bin.raw"), file.read())

    def test_text_encoder_is_text_source(self):
        self.assert_ran(
            self.launch(
                "fdsrc ! text/x-raw,format=utf8 ! opensoratextenc ! opensoradenoise".split()
                + SMALL
                + "! opensoravaedec ! video/x-raw,format=RGB ! filesink location=enc.raw".split(),
                stdin=PROMPT.encode() + b"\n",
            )
        )
        with open(self.path("enc.raw"), "rb") as file:
            self.assertEqual(self.generate("src.raw"), file.read())

    def test_tee(self):
        self.assert_ran(
            self.launch(
                ["opensoratextsrc", f"prompt={PROMPT}", "!", "opensoradenoise", *SMALL]
                + "! tee name=t ! queue ! opensoravaedec ! video/x-raw,format=RGB !".split()
                + "filesink location=a.raw  t. ! queue ! opensoravaedec !".split()
                + "video/x-raw,format=RGB ! filesink location=b.raw".split()
            )
        )
        with open(self.path("a.raw"), "rb") as a, open(self.path("b.raw"), "rb") as b:
            self.assertEqual(a.read(), b.read())
        self.assertEqual(os.path.getsize(self.path("a.raw")), 5 * 32 * 32 * 3)


if __name__ == "__main__":
    support.main()
