# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every pipeline of README.md runs as it is written there and makes what is said beside it.

A block of pipelines has a comment before it, which names the file that the block writes and what
ffprobe has to find in it:

    <!-- makes: out.mp4 codec=h264 frames=33 -->
"""

import glob
import os
import re
import tempfile
import unittest

import support

ROOT = os.environ["OPENSORA_SOURCE_ROOT"]
BLOCK = re.compile(r"^(?:<!--(?P<comment>[^\n]*)-->\n)?```sh\n(?P<text>.*?)^```$", re.M | re.S)
FIELDS = {"codec": "codec_name", "rate": "avg_frame_rate"}


def read_readme():
    with open(os.path.join(ROOT, "README.md")) as file:
        return file.read()


def read_pipelines():
    """(comment, text) of every block that runs a pipeline."""
    blocks = [
        ((match["comment"] or "").strip(), match["text"]) for match in BLOCK.finditer(read_readme())
    ]
    return [block for block in blocks if "gst-launch-1.0" in block[1]]


class Readme(unittest.TestCase):
    def test_scripts_can_be_run(self):
        scripts = set(re.findall(r"\b(?:pipelines|tests)/[a-z]+\.sh\b", read_readme()))
        self.assertIn("pipelines/demo.sh", scripts)
        self.assertIn("tests/run.sh", scripts)
        for script in scripts:
            self.assertTrue(os.access(os.path.join(ROOT, script), os.X_OK), script)

    def test_links_lead_somewhere(self):
        pages = [os.path.join(ROOT, "README.md"), *glob.glob(os.path.join(ROOT, "docs", "*.md"))]
        for page in pages:
            with open(page) as file:
                links = re.findall(r"\]\(([^)#]+)", file.read())
            for link in links:
                if "://" not in link:
                    target = os.path.join(os.path.dirname(page), link)
                    self.assertTrue(os.path.exists(target), f"{page}: {link}")

    def test_there_are_five_pipelines(self):
        self.assertGreaterEqual(len(read_pipelines()), 5)


class Pipelines(unittest.TestCase):
    """A method for each block is added below. All run in one folder, in the order of the page:
    some read what others wrote."""

    folder = tempfile.TemporaryDirectory(prefix="opensora-readme-")

    def check_block(self, comment, text):
        self.assertRegex(comment, r"^makes: \S", f"what does this make?\n{text}")
        result = support.run(text, cwd=self.folder.name)
        self.assertEqual(result.status, 0, f"{text}\n{result}")
        name, *wanted = comment.removeprefix("makes:").split()
        found = support.probe(os.path.join(self.folder.name, name))
        for field in wanted:
            key, value = field.split("=", 1)
            self.assertEqual(str(found[FIELDS.get(key, key)]), value, f"{name}: {key}")


for number, block in enumerate(read_pipelines(), 1):
    setattr(
        Pipelines,
        f"test_{number:02}",
        lambda self, block=block: Pipelines.check_block(self, *block),
    )


if __name__ == "__main__":
    support.main()
