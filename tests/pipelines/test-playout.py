# SPDX-License-Identifier: LGPL-2.1-or-later
"""opensoraplayout in whole pipelines: between other elements, in front of encoders and muxers,
and behind a generator that is slower than what it plays."""

import signal
import unittest

import support

BALL = "videotestsrc pattern=ball num-buffers=20 ! video/x-raw,width=64,height=64,framerate=20/1"
OUT = "video/x-raw,width=64,height=64,framerate=20/1"
PROMPT = "a red circle moving right on a blue background"
ALIVE = "object-alive, type-name=(string)Gst"
TRACER = {"GST_TRACERS": "leaks", "GST_DEBUG": "GST_TRACER:7", "GST_DEBUG_NO_COLOR": "1"}


class Playout(support.PipelineTest):
    def test_file(self):
        """A clip played three times, in a file: no frame is missing, none is late."""
        self.assert_ran(
            self.launch(
                f"{BALL} ! opensoraplayout slate=none min-plays=3 ! {OUT}"
                " ! x264enc tune=zerolatency ! mp4mux ! filesink location=out.mp4"
            )
        )
        found = support.probe(self.path("out.mp4"))
        self.assertEqual((found["codec_name"], found["frames"]), ("h264", 60))
        self.assertEqual(found["avg_frame_rate"], "20/1")

    def test_formats(self):
        """Every format goes through, with cross-fades."""
        sizes = {"I420": 1.5, "NV12": 1.5, "RGB": 3, "RGBx": 4}
        for name, size in sizes.items():
            self.assert_ran(
                self.launch(
                    f"{BALL},format={name} ! opensoraplayout slate=none max-frames=10"
                    f" transition=cross-fade ! {OUT},format={name} ! filesink location={name}.raw"
                )
            )
            with open(self.path(f"{name}.raw"), "rb") as file:
                self.assertEqual(len(file.read()), 20 * 64 * 64 * size, name)

    def test_with_audio(self):
        """Beside live audio in a muxer, behind an encoder with a latency of many frames."""
        self.assert_ran(
            self.launch(
                f"{BALL} ! opensoraplayout min-plays=3 ! {OUT} ! queue ! x264enc ! mux."
                " audiotestsrc is-live=true num-buffers=150 ! queue ! vorbisenc ! mux."
                " matroskamux name=mux ! filesink location=out.mkv"
            )
        )
        self.assertGreaterEqual(support.probe(self.path("out.mkv"))["frames"], 60)

    def test_two_files(self):
        """Streams one after the other are clips; their caps may differ."""
        self.assert_ran(
            self.launch(
                "concat name=c ! opensoraplayout slate=none transition=cross-fade max-clips=9"
                " ! videoscale ! video/x-raw,width=64,framerate=20/1,format=I420"
                " ! filesink location=out.raw"
                " videotestsrc num-buffers=6 ! video/x-raw,width=32,height=64,framerate=10/1 ! c."
                " videotestsrc num-buffers=6 ! video/x-raw,width=64,height=64,framerate=20/1 ! c."
            )
        )
        with open(self.path("out.raw"), "rb") as file:
            self.assertEqual(len(file.read()), (12 + 6) * 64 * 64 * 3 // 2)

    @unittest.skipUnless(support.has_elements("pngenc"), "pngenc is not installed")
    def test_picture(self):
        """A picture as slate, and one as a clip; pictures have no rate."""
        self.assert_ran(
            self.launch(
                "videotestsrc num-buffers=1 ! video/x-raw,width=64,height=64 ! pngenc"
                " ! filesink location=slate.png"
            )
        )
        self.assert_ran(
            self.launch(
                "filesrc location=slate.png ! pngdec ! videoconvert ! opensoraplayout min-plays=5"
                f" slate=picture slate-location=slate.png ! {OUT} ! videoconvert ! x264enc ! mp4mux"
                " ! filesink location=out.mp4"
            )
        )
        self.assertGreaterEqual(support.probe(self.path("out.mp4"))["frames"], 5)

    def test_generator(self):
        """Behind the model: the stream begins at once, and has the clip in it afterwards. The caps
        stay what they are, or the muxer would refuse what the encoder makes."""
        self.assert_ran(
            self.launch(
                ["opensorasrc", f"prompt={PROMPT}", "steps=2", "num-frames=9", "num-samples=2"]
                + "! opensoraplayout name=p ! video/x-raw,width=32,height=32,framerate=16/1".split()
                + "! x264enc tune=zerolatency ! mp4mux ! filesink location=out.mp4".split()
            )
        )
        found = support.probe(self.path("out.mp4"))
        self.assertGreaterEqual(found["frames"], 9 + 9)
        self.assertEqual((found["r_frame_rate"], found["width"]), ("16/1", 32))
        self.assertEqual(found["tags"]["title"], PROMPT)

    def test_messages(self):
        result = self.launch(
            ["-m", "opensorasrc", f"prompt={PROMPT}", "steps=1", "num-frames=5"]
            + "! opensoraplayout ! video/x-raw,width=32,height=32 ! fakesink".split()
        )
        self.assert_ran(result)
        for name in ("opensora-clip-started", "opensora-clip-ended"):
            self.assertEqual(result.out.count(name + ","), 1, result.out)

    def test_missing_slate(self):
        self.assert_refused(
            self.launch_refused(
                f"{BALL} ! opensoraplayout slate=picture slate-location=/nowhere.png ! fakesink"
            ),
            "/nowhere.png",
        )

    def interrupt(self, description):
        """Seconds from the first Ctrl-C to the end, with -e."""
        launched = support.Launched(description.split(), self.dir, options=["-e", "-v"])
        self.addCleanup(launched.kill)
        self.assertTrue(launched.wait_for("PLAYING"), launched.log)
        self.assertTrue(launched.wait_for("GstOpenSoraPlayout:opensoraplayout0.GstPad:src: caps"))
        launched.signal(signal.SIGINT)
        return launched.wait(60)

    def test_interrupt(self):
        """Ctrl-C ends the stream at once, though the clip goes on for ever; the file is whole."""
        self.assertIsNotNone(
            self.interrupt(
                f"{BALL} ! opensoraplayout at-eos=continue ! {OUT} ! x264enc tune=zerolatency"
                " ! mp4mux ! filesink location=out.mp4"
            )
        )
        support.probe(self.path("out.mp4"))

    def test_interrupt_while_full(self):
        """The same while upstream waits for room."""
        self.assertIsNotNone(
            self.interrupt(
                "videotestsrc ! video/x-raw,width=64,height=64,framerate=20/1"
                " ! opensoraplayout max-frames=20 ! fakesink"
            )
        )

    def test_nothing_is_lost(self):
        for description in (
            f"{BALL} ! opensoraplayout transition=cross-fade max-frames=5 ! fakesink",
            f"{BALL} ! opensoraplayout at-eos=continue ! identity eos-after=30 ! fakesink",
            f"{BALL} ! opensoraplayout ! {OUT} ! identity error-after=5 ! fakesink",
            "videotestsrc ! opensoraplayout max-frames=5 ! identity eos-after=30 ! fakesink",
        ):
            result = self.launch(description, env=TRACER)
            lost = [line for line in result.err.splitlines() if ALIVE in line]
            self.assertEqual(lost, [], description)


if __name__ == "__main__":
    support.main()
