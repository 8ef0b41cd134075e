# SPDX-License-Identifier: LGPL-2.1-or-later
"""opensora-launch and pipelines/demo.sh, as they are used on a terminal and in scripts."""

import os
import pty
import signal
import subprocess
import time

import support

ROOT = os.environ["OPENSORA_SOURCE_ROOT"]
BUILD = os.environ["OPENSORA_BUILD_ROOT"]
LAUNCH = os.path.join(BUILD, "pipelines", "opensora-launch")
DEMO = os.path.join(ROOT, "pipelines", "demo.sh")
SMALL = ["steps=3", "num-frames=5", "width=32", "height=32"]


def run_on_terminal(command, cwd):
    """Status of the program and all that it wrote to its terminal."""
    master, slave = pty.openpty()
    with subprocess.Popen(command, cwd=cwd, stdin=slave, stdout=slave, stderr=slave) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                data = os.read(master, 4096)
            except OSError:  # the last writer has gone
                break
            if not data:
                break
            written += data
    os.close(master)
    return process.returncode, written.decode()


class Launch(support.PipelineTest):
    def run_launch(self, *arguments):
        return support.run([LAUNCH, *arguments], cwd=self.dir)

    def test_progress_bar(self):
        status, written = run_on_terminal(
            [LAUNCH, "opensorasrc", "prompt=a red circle", *SMALL, "!", "fakesink"], self.dir
        )
        self.assertEqual(status, 0, written)
        for text in ("Clip 1: a red circle", "Denoising", "3/3", "100 %", " left", "Decoding"):
            self.assertIn(text, written)

    def test_no_bar_in_a_log(self):
        result = self.run_launch("opensorasrc", "prompt=a red circle", *SMALL, "!", "fakesink")
        self.assertEqual(result.status, 0, str(result))
        self.assertNotIn("\r", result.err)
        self.assertIn("Denoising", result.err)

    def test_preview(self):
        """As in docs/elements.md: the clip's sink does not keep the previews waiting."""
        result = self.run_launch(
            *"opensorasrc name=s prompt=x steps=6 preview-interval=2 num-frames=5".split(),
            *"width=64 height=32 ! filesink location=clip.yuv async=false".split(),
            *"s.preview ! videoscale ! video/x-raw,width=80,height=80".split(),
            *"! filesink location=previews.rgb async=false sync=false".split(),
        )
        self.assertEqual(result.status, 0, str(result))
        self.assertEqual(os.path.getsize(os.path.join(self.dir, "clip.yuv")), 5 * 64 * 32 * 3 // 2)
        frames, rest = divmod(
            os.path.getsize(os.path.join(self.dir, "previews.rgb")), 80 * 80 * 3
        )
        self.assertEqual(rest, 0)
        self.assertIn(frames, (2, 4, 6))

    def test_quiet(self):
        result = self.run_launch("-q", "opensorasrc", "prompt=x", *SMALL, "!", "fakesink")
        self.assertEqual((result.status, result.err), (0, ""))

    def test_contact_sheet(self):
        result = self.run_launch(
            "--contact-sheet=sheet.png",
            *["opensorasrc", "prompt=x", "steps=1", "num-frames=21", "width=48", "height=32"],
            *["!", "fakesink"],
        )
        self.assertEqual(result.status, 0, str(result))
        found = support.probe(self.path("sheet.png"))
        # 4 x 3 pictures with 4 pixels around each.
        self.assertEqual((found["width"], found["height"]), (4 + 4 * 52, 4 + 3 * 36))

    def test_contact_sheet_without_a_decoder(self):
        result = self.run_launch("-s", "x.png", "videotestsrc", "num-buffers=1", "!", "fakesink")
        self.assertEqual(result.status, 2, str(result))
        self.assertIn("opensoravaedec", result.err)

    def test_error(self):
        result = self.run_launch("opensorasrc", "prompt=x", "width=500", "!", "fakesink")
        self.assertEqual(result.status, 1, str(result))
        self.assertIn("Error: ", result.err)

    def test_no_such_element(self):
        result = self.run_launch("opensorasauce", "!", "fakesink")
        self.assertEqual(result.status, 2, str(result))
        self.assertIn("opensorasauce", result.err)

    def test_no_arguments(self):
        result = self.run_launch()
        self.assertEqual(result.status, 2)
        self.assertIn("PIPELINE-DESCRIPTION", result.err)

    def test_interrupt(self):
        with subprocess.Popen(
            [LAUNCH]
            + "videotestsrc is-live=true ! x264enc ! mp4mux ! filesink location=out.mp4".split(),
            cwd=self.dir,
            stderr=subprocess.DEVNULL,
        ) as process:
            time.sleep(1.5)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(10), 130)
        self.assertGreater(support.probe(self.path("out.mp4"))["frames"], 0)

    def test_interrupt_while_the_source_waits(self):
        """The source is the last in the line, so that nothing but the program tells the denoiser."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        os.write(writer, b"a red circle")
        launched = support.Launched(
            "opensoradenoise name=d steps=1000 ! opensoravaedec ! fakesink"
            " fdsrc ! text/x-raw,format=utf8 ! opensoratextenc num-samples=5 ! d.".split(),
            self.dir,
            program=LAUNCH,
            env={"GST_DEBUG": "opensora:4"},
            stdin=reader,
        )
        os.close(reader)
        self.addCleanup(launched.kill)
        # The second clip is encoded when the first has gone to the denoiser.
        self.assertTrue(launched.wait_for("clip 1: "), launched.log)
        time.sleep(1)
        launched.signal(signal.SIGINT)
        self.assertIsNotNone(launched.wait(10), launched.log[-2000:])
        self.assertEqual(launched.process.returncode, 130)

    def test_second_interrupt(self):
        """The first one ends the stream, which this sink never hears of."""
        with subprocess.Popen(
            [LAUNCH] + "videotestsrc is-live=true ! valve drop=true ! fakesink".split(),
            stderr=subprocess.PIPE,
        ) as process:
            time.sleep(1)
            process.send_signal(signal.SIGINT)
            self.assertIn(b"again", process.stderr.readline())
            time.sleep(0.5)
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(10), 130)


class Demo(support.PipelineTest):
    def demo(self, *arguments):
        return support.run([DEMO, "--no-install", "--build-dir", BUILD, *arguments], cwd=self.dir)

    def test_demo(self):
        prompt = 'a 10" red circle \\ "right" ! x'
        result = self.demo("--steps=2", "--size", "64x48", "--seed", "11", "-o", "clip.mp4", prompt)
        self.assertEqual(result.status, 0, str(result))
        self.assertIn("clip.mp4", result.out)
        self.assertIn("clip.png", result.out)
        found = support.probe(self.path("clip.mp4"))
        self.assertEqual((found["codec_name"], found["width"], found["height"]), ("h264", 64, 48))
        self.assertEqual(found["tags"]["title"], prompt)
        self.assertIn("seed=11 ", found["tags"]["comment"])
        self.assertEqual(support.probe(self.path("clip.png"))["codec_name"], "png")

    def test_help(self):
        result = self.demo("--help")
        self.assertEqual(result.status, 0)
        self.assertIn("--steps", result.out)

    def test_wrong_options(self):
        for arguments, text in (
            (["--frobnicate"], "--frobnicate"),
            (["--seed", "x"], "--seed"),
            (["--size", "12"], "--size"),
            (["--model", "/nowhere"], "/nowhere"),
            (["a", "b"], "quotes"),
        ):
            result = self.demo(*arguments)
            self.assertEqual(result.status, 2, str(result))
            self.assertIn(text, result.err)


if __name__ == "__main__":
    support.main()
