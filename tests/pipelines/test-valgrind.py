# SPDX-License-Identifier: LGPL-2.1-or-later
"""One short pipeline under valgrind: no invalid access, nothing of ours lost."""

import os
import unittest

import support

SUPPRESSIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "valgrind.supp")
GLIB_SUPPRESSIONS = "/usr/share/glib-2.0/valgrind/glib.supp"


class Valgrind(support.PipelineTest):
    @unittest.skipUnless(support.has_programs("valgrind"), "valgrind is not installed")
    def test_pipeline(self):
        suppressions = [f"--suppressions={SUPPRESSIONS}"]
        if os.path.exists(GLIB_SUPPRESSIONS):
            suppressions.append(f"--suppressions={GLIB_SUPPRESSIONS}")
        result = support.run(
            ["valgrind", "--error-exitcode=99", "--leak-check=full", "--show-leak-kinds=definite"]
            + ["--errors-for-leak-kinds=definite", "--num-callers=40", "--log-file=valgrind.log"]
            + suppressions
            # The plug-in scanner would be a child, and the tracer's own.
            + ["gst-launch-1.0", "opensorasrc", "prompt=a red circle", "steps=1", "num-frames=1"]
            + "width=32 height=32 ! videoconvert ! fakesink".split(),
            cwd=self.dir,
            env={"G_SLICE": "always-malloc"},
            timeout=900,
        )
        with open(self.path("valgrind.log"), errors="replace") as log:
            report = log.read()
        self.assertEqual(result.status, 0, report[-8000:])
        self.assertIn("ERROR SUMMARY: 0 errors", report)


if __name__ == "__main__":
    support.main()
