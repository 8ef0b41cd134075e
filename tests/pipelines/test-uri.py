# SPDX-License-Identifier: LGPL-2.1-or-later
"""opensora://?prompt=... in what takes any address: players, decoders, editing."""

import unittest

import support

URI = "opensora://?prompt=a%20red%20circle&steps=1&num-frames=9&width=32&height=32"
# Debian's GStreamer Editing Services, as a user has them: a program, a library and two plug-ins.
HAVE_GES = support.has_programs("ges-launch-1.0") and support.has_elements("nlecomposition")


class Addresses(support.PipelineTest):
    def test_players(self):
        for player in ("playbin", "playbin3"):
            result = self.launch(
                ["-m", player, f"uri={URI}", "video-sink=fakevideosink", "flags=video"]
            )
            self.assert_ran(result)
            self.assertIn('from element "' + player, result.out)
            self.assertIn("title", result.out)

    def test_decoders(self):
        for decoder in ("uridecodebin", "uridecodebin3"):
            self.assert_ran(
                self.launch(
                    [decoder, f"uri={URI}", "!", "videoconvert", "!", "video/x-raw,format=RGB", "!"]
                    + ["filesink", f"location={decoder}.raw"]
                )
            )
            frames = support.read_raw(self.path(f"{decoder}.raw"), 32, 32)
            self.assertEqual([len(frame) for frame in frames], 9 * [32 * 32 * 3])

    def test_refused(self):
        result = self.launch_refused(["playbin", "uri=opensora://?prompt=x&colour=red"])
        self.assert_refused(result, 'unknown key "colour"')

    def test_loops(self):
        """gst-play-1.0 asks for all that a player asks for."""
        if not support.has_programs("gst-play-1.0"):
            self.skipTest("gst-play-1.0 is not installed")
        result = support.run(
            ["gst-play-1.0", "--no-interactive", "--videosink=fakevideosink", "--start-position=0.3"]
            + [URI]
        )
        self.assert_ran(result)
        self.assertIn("Reached end of play list", result.out)

    @unittest.skipUnless(HAVE_GES, "GStreamer Editing Services are not installed")
    def test_editing(self):
        """A part of a clip, then another clip, as one film. ges-launch-1.0 takes no question
        marks."""
        uri = URI.replace("?", "")
        result = support.run(
            ["ges-launch-1.0", "+clip", uri, "inpoint=0.1", "duration=0.25", "+clip"]
            + [uri + "&seed=3", "duration=0.5", "-o", f"file://{self.path('film.mkv')}"]
            + ["-f", "video/x-matroska:video/x-vp8"]
        )
        self.assertEqual(result.status, 0, str(result))
        found = support.probe(self.path("film.mkv"))
        rate = [int(n) for n in found["avg_frame_rate"].split("/")]
        self.assertAlmostEqual(found["frames"] * rate[1] / rate[0], 0.75, delta=0.15)


if __name__ == "__main__":
    support.main()
