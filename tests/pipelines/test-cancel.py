# SPDX-License-Identifier: LGPL-2.1-or-later
"""Ctrl-C in the middle of the work, with and without -e."""

import os
import signal

import support

# More steps than anybody waits for.
LONG = ["steps=1000", "num-frames=33", "width=128", "height=128"]
SECONDS = 10


class Cancel(support.PipelineTest):
    def start(self, description, *options):
        launched = support.Launched(description, self.dir, ["-m", *options])
        self.addCleanup(launched.kill)
        return launched

    def assert_ends(self, launched):
        seconds = launched.wait(SECONDS)
        self.assertIsNotNone(seconds, f"still running after {SECONDS} s\n{launched.log[-2000:]}")
        self.assertGreaterEqual(launched.process.returncode, 0, launched.log[-2000:])
        self.assertNotIn("CRITICAL", launched.log)

    def test_interrupt(self):
        launched = self.start(["opensorasrc", "prompt=a red circle", *LONG, "!", "fakesink"])
        self.assertTrue(launched.wait_for("stage=(string)denoise"), launched.log[-2000:])
        launched.signal(signal.SIGINT)
        self.assert_ends(launched)

    def test_interrupt_while_models_load(self):
        launched = self.start(["opensorasrc", "prompt=a red circle", *LONG, "!", "fakesink"])
        self.assertTrue(launched.wait_for("denoise"), launched.log[-2000:])
        launched.signal(signal.SIGINT)
        self.assert_ends(launched)

    def test_clips_that_are_done_are_kept(self):
        """-e in the second of many clips: the file ends well, with the first clip in it."""
        self.write("prompts.txt", "a red circle\n" * 50)
        launched = self.start(
            "opensorasrc location=prompts.txt steps=10 num-frames=33 width=128 height=128 !"
            " videoconvert ! x264enc ! mp4mux ! filesink location=out.mp4".split(),
            "-e",
        )
        self.assertTrue(launched.wait_for("clip=(uint)1, step=(uint)1,"), launched.log[-2000:])
        launched.signal(signal.SIGINT)
        self.assert_ends(launched)
        frames = support.probe(self.path("out.mp4"))["frames"]
        self.assertGreaterEqual(frames, 33)
        self.assertEqual(frames % 33, 0)
        self.assertLessEqual(frames, 3 * 33)

    def test_end_of_stream_before_the_first_clip(self):
        launched = self.start(
            ["opensorasrc", "prompt=a red circle", *LONG, "!", "filesink", "location=out.raw"], "-e"
        )
        self.assertTrue(launched.wait_for("step=(uint)1,"), launched.log[-2000:])
        launched.signal(signal.SIGINT)
        self.assert_ends(launched)
        self.assertEqual(os.path.getsize(self.path("out.raw")), 0)

    def test_end_of_stream_of_texts(self):
        """-e where prompts come from a file that has not ended yet."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        os.write(writer, b"a red circle")
        launched = support.Launched(
            "fdsrc ! text/x-raw,format=utf8 ! opensoratextenc num-samples=5 ! opensoradenoise".split()
            + [*LONG, "!", "opensoravaedec", "!", "filesink", "location=out.raw"],
            self.dir,
            ["-m", "-e"],
            stdin=reader,
        )
        os.close(reader)
        self.addCleanup(launched.kill)
        self.assertTrue(launched.wait_for("step=(uint)1,"), launched.log[-2000:])
        launched.signal(signal.SIGINT)
        self.assert_ends(launched)
        self.assertEqual(os.path.getsize(self.path("out.raw")), 0)

    def test_end_of_a_queue(self):
        """A queue that has nothing to do waits, and ends when it is told to."""
        launched = self.start(
            "opensorasrc is-queue=true prompt=x steps=1 num-frames=5 width=32 height=32 !"
            " video/x-raw,format=RGB ! filesink location=out.raw".split(),
            "-e",
        )
        self.assertTrue(launched.wait_for("state=(string)done"), launched.log[-2000:])
        self.assertIn("opensora-waiting", launched.log)
        launched.signal(signal.SIGINT)
        self.assert_ends(launched)
        self.assertEqual(os.path.getsize(self.path("out.raw")), 5 * 32 * 32 * 3)

    def test_interrupt_of_an_empty_queue(self):
        """Nothing has come yet, and gst-launch-1.0 waits for it."""
        launched = self.start(["opensorasrc", "is-queue=true", "!", "fakesink"])
        self.assertTrue(launched.wait_for("opensora-waiting"), launched.log[-2000:])
        launched.signal(signal.SIGINT)
        self.assert_ends(launched)

    def test_downstream_ends(self):
        """A sink that has enough ends the pipeline in the middle of a clip."""
        result = self.launch(
            "opensorasrc prompt=x steps=1 num-frames=9 width=32 height=32 num-samples=100 !"
            " video/x-raw,format=RGB ! identity eos-after=3 ! filesink location=out.raw",
            timeout=60,
        )
        self.assert_ran(result)
        self.assertLessEqual(os.path.getsize(self.path("out.raw")), 3 * 32 * 32 * 3)


if __name__ == "__main__":
    support.main()
