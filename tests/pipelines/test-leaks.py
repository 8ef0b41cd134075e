# SPDX-License-Identifier: LGPL-2.1-or-later
"""Nothing is lost: GStreamer's leaks tracer over pipelines that end, fail or are interrupted."""

import signal

import support

SMALL = ["steps=1", "num-frames=5", "width=32", "height=32"]
ALIVE = "object-alive, type-name=(string)Gst"
TRACER = {"GST_TRACERS": "leaks", "GST_DEBUG": "GST_TRACER:7", "GST_DEBUG_NO_COLOR": "1"}


class Leaks(support.PipelineTest):
    def check(self, description, fails=False, **kwargs):
        result = self.launch(description, env=TRACER, **kwargs)
        self.assertEqual(result.status > 0, fails, str(result))
        lost = [line for line in result.err.splitlines() if ALIVE in line]
        self.assertEqual(lost, [])

    def test_tracer_sees_objects(self):
        """The check itself: objects of a pipeline that runs are alive."""
        launched = support.Launched(
            "videotestsrc is-live=true ! fakesink".split(),
            self.dir,
            env={**TRACER, "GST_LEAKS_TRACER_SIG": "1"},
        )
        self.addCleanup(launched.kill)
        self.assertTrue(launched.wait_for("PLAYING"), launched.log)
        launched.signal(signal.SIGUSR1)
        self.assertTrue(launched.wait_for(ALIVE, 10), launched.log)

    def test_bin(self):
        self.check(["opensorasrc", "prompt=a red circle", *SMALL, "!", "fakesink"])

    def test_elements(self):
        self.write("prompts.txt", "a red circle\na green square\n")
        self.check(
            ["opensoratextsrc", "location=prompts.txt", "!", "opensoradenoise", *SMALL]
            + "! queue ! opensoravaedec ! videoconvert ! x264enc ! mp4mux".split()
            + "! filesink location=out.mp4".split()
        )

    def test_text_encoder(self):
        self.check(
            "fdsrc ! text/x-raw,format=utf8 ! opensoratextenc ! opensoradenoise".split()
            + SMALL
            + "! opensoravaedec ! fakesink".split(),
            stdin=b"a red circle",
        )

    def test_reference_pad(self):
        self.check(
            "videotestsrc num-buffers=1 ! opensoravaeenc ! d.reference_0 opensoratextsrc".split()
            + ["prompt=a red circle", "!", "opensoradenoise", "name=d", *SMALL]
            + "! opensoravaedec ! fakesink".split()
        )

    def test_preview(self):
        self.check(
            ["opensorasrc", "name=s", "prompt=x", "steps=4", "preview-interval=1", *SMALL[1:]]
            + "! fakesink s.preview ! fakesink".split()
        )

    def test_picture(self):
        pictures = f"image-model-location={support.source_root()}/tests/data/flux"
        self.check(["opensorasrc", "prompt=a red circle", pictures, *SMALL, "!", "fakesink"])
        self.check(["opensorasrc", "prompt=x", "image-model-location=/nowhere", "!", "fakesink"], fails=True)

    def test_no_model(self):
        self.check("opensorasrc prompt=x model-location=/nowhere ! fakesink", fails=True)

    def test_refused_size(self):
        self.check("opensorasrc prompt=x width=500 ! fakesink", fails=True)

    def test_early_end(self):
        self.check(
            ["opensorasrc", "prompt=x", "num-samples=9", *SMALL]
            + "! identity eos-after=2 ! fakesink".split()
        )


if __name__ == "__main__":
    support.main()
