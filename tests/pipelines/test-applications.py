# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an application sees through GStreamer's Python bindings: the clip's meta on every frame,
progress, memory statistics."""

import glob
import os
import re
import signal
import sys
import unittest

import support

try:
    import gi

    gi.require_version("Gst", "1.0")
    from gi.repository import Gst
except (ImportError, ValueError) as error:
    Gst = None
    REASON = f"no GStreamer for Python: {error}"
else:
    REASON = ""
    Gst.init(None)


@unittest.skipUnless(Gst, REASON)
class Application(support.PipelineTest):
    def run_pipeline(self, description):
        """The samples of the sink called "out" and the messages, up to EOS."""
        pipeline = Gst.parse_launch(description)
        sink = pipeline.get_by_name("out")
        messages = []
        samples = []
        pipeline.set_state(Gst.State.PLAYING)
        self.addCleanup(pipeline.set_state, Gst.State.NULL)
        while sample := sink.emit("try-pull-sample", 60 * Gst.SECOND):
            samples.append(sample)
        self.assertTrue(sink.get_property("eos"))
        while message := pipeline.get_bus().pop():
            self.assertNotEqual(message.type, Gst.MessageType.ERROR, message)
            messages.append(message)
        return pipeline, samples, messages

    def test_clip_meta(self):
        _, samples, _ = self.run_pipeline(
            'opensorasrc prompt="a red circle" negative-prompt=stripes seed=7 num-samples=2'
            " steps=3 guidance=2.5 num-frames=5 width=48 height=32 !"
            " videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false"
        )
        self.assertEqual(len(samples), 10)
        for i, sample in enumerate(samples):
            meta = sample.get_buffer().get_custom_meta("GstOpenSoraClipMeta")
            self.assertIsNotNone(meta, f"frame {i}")
            clip = meta.get_structure()
            self.assertEqual(clip.get_string("prompt"), "a red circle")
            self.assertEqual(clip.get_string("negative-prompt"), "stripes")
            self.assertEqual(clip.get_string("condition"), "t2v")
            self.assertEqual(clip.get_string("model"), support.model_config()["name"])
            self.assertIsNone(clip.get_string("reference"))
            for name, value in (
                ("clip", i // 5),
                ("steps", 3),
                ("frames", 5),
                ("width", 48),
                ("height", 32),
            ):
                self.assertEqual(clip.get_uint(name), (True, value), name)
            self.assertEqual(clip.get_uint64("seed"), (True, 7 + i // 5))
            self.assertEqual(clip.get_double("guidance"), (True, 2.5))
            self.assertEqual(clip.get_boolean("decorate"), (True, True))
            self.assertTrue(clip.get_fraction("framerate")[0])

    def test_fields_are_documented(self):
        _, samples, messages = self.run_pipeline(
            "opensorasrc prompt=x steps=1 num-frames=1 width=32 height=32"
            " ! appsink name=out sync=false"
        )
        clip = samples[0].get_buffer().get_custom_meta("GstOpenSoraClipMeta").get_structure()
        with open(f"{support.source_root()}/docs/elements.md") as file:
            text = file.read()
        for i in range(clip.n_fields()):
            self.assertIn(f"`{clip.nth_field_name(i)}`", text)
        steps = [
            message.get_structure()
            for message in messages
            if message.type == Gst.MessageType.ELEMENT
            and message.get_structure().get_name() == "opensora-progress"
        ]
        self.assertTrue(steps)
        for i in range(steps[0].n_fields()):
            self.assertIn(f"`{steps[0].nth_field_name(i)}`", text)

    def test_one_progress_a_clip(self):
        _, _, messages = self.run_pipeline(
            "opensorasrc name=s prompt=x num-samples=2 steps=2 num-frames=5 width=32 height=32"
            " ! appsink name=out sync=false"
        )
        progress = [
            message.parse_progress()
            for message in messages
            if message.type == Gst.MessageType.PROGRESS
        ]
        self.assertEqual({code for _, code, _ in progress}, {"generate"})
        kinds = [kind for kind, _, _ in progress if kind != Gst.ProgressType.CONTINUE]
        self.assertEqual(kinds, [Gst.ProgressType.START, Gst.ProgressType.COMPLETE] * 2)

    def test_memory_stats(self):
        pipeline, _, _ = self.run_pipeline(
            "opensorasrc name=s prompt=x steps=1 num-frames=1 width=32 height=32"
            " memory-limit=4000000000 ! appsink name=out sync=false"
        )
        stats = pipeline.get_by_name("s").get_property("memory-stats")
        self.assertEqual(stats.get_uint64("limit"), (True, 4000000000))
        self.assertGreater(stats.get_uint64("allocated")[1], 1 << 20)
        self.assertGreaterEqual(
            stats.get_uint64("peak-reserved")[1], stats.get_uint64("reserved")[1]
        )
        self.assertTrue(stats.get_string("device"))


class Examples(support.PipelineTest):
    """The programs that show how it is done."""

    PICTURES = os.path.join(os.environ["OPENSORA_BUILD_ROOT"], "pipelines", "opensora-frames")
    COLORS = os.path.join(support.source_root(), "pipelines", "frames.py")
    PROMPTS = ["a white square on a blue background", "a star on a red background"]

    def test_pictures(self):
        result = support.run([self.PICTURES, *self.PROMPTS], cwd=self.dir)
        self.assert_ran(result)
        self.assertIn("100 %", result.err)
        for prompt_id, more, less in ((1, 2, 0), (2, 0, 2)):
            pictures = glob.glob(self.path(f"clip-{prompt_id}-*.png"))
            self.assertEqual(len(pictures), support.model_config()["sampling"]["num_frames"])
            result = support.run(
                ["ffmpeg", "-v", "error", "-i", max(pictures), "-vf", "scale=1:1:flags=area"]
                + ["-pix_fmt", "rgb24", "-f", "rawvideo", self.path("color"), "-y"]
            )
            self.assert_ran(result)
            with open(self.path("color"), "rb") as file:
                color = file.read()
            self.assertGreater(color[more], 1.3 * color[less], self.PROMPTS[prompt_id - 1])

    @unittest.skipUnless(Gst, REASON)
    def test_colors(self):
        result = support.run([sys.executable, self.COLORS, *self.PROMPTS])
        self.assert_ran(result)
        rows = re.findall(r"^(\d+) +([\d.]+) s +([\d.]+) +([\d.]+) +([\d.]+)  (.*)$", result.out, re.M)
        self.assertEqual(len(rows), len(result.out.splitlines()))
        for i, prompt in enumerate(self.PROMPTS):
            own = [row for row in rows if row[5] == prompt]
            self.assertEqual({row[0] for row in own}, {str(i + 1)})
            red, blue = float(own[-1][2]), float(own[-1][4])
            self.assertGreater((blue, red)[i], 1.3 * (red, blue)[i], prompt)
        times = [float(row[1]) for row in rows]
        self.assertEqual(times, sorted(times))
        self.assertIn("100 %", result.err)

    def test_interrupt(self):
        """Ctrl-C ends it, whatever is under way."""
        programs = [[self.PICTURES]] + ([[sys.executable, self.COLORS]] if Gst else [])
        for program in programs:
            started = support.Launched(
                [*program[1:], *self.PROMPTS], self.dir, program=program[0]
            )
            self.addCleanup(started.kill)
            self.assertTrue(started.wait_for("Denoising"), started.log)
            started.signal(signal.SIGINT)
            self.assertIsNotNone(started.wait(30), started.log)
            self.assertEqual(started.process.returncode, 0, started.log)

    def test_errors(self):
        programs = [[self.PICTURES]] + ([[sys.executable, self.COLORS]] if Gst else [])
        for program in programs:
            result = support.run([*program, "x"], cwd=self.dir, env={"OPENSORA_MODEL": "/gone"})
            self.assertEqual(result.status, 1, str(result))
            self.assertIn("/gone", result.err)
            self.assertEqual(support.run([*program, "--help"]).status, 0)
            self.assertEqual(support.run(program).status, 2)


if __name__ == "__main__":
    support.main()
