# SPDX-License-Identifier: LGPL-2.1-or-later
"""What gst-inspect-1.0 shows: every element, every property with all that a user needs, and the
same in docs/elements.md."""

import os
import unittest

import elements
import support

DOCS = os.path.join(os.environ["OPENSORA_SOURCE_ROOT"], "docs", "elements.md")


class Inspect(unittest.TestCase):
    def test_plugin_lists_the_elements(self):
        result = support.run(["gst-inspect-1.0", "--no-colors", "opensora"])
        self.assertEqual(result.status, 0, str(result))
        for name in elements.ELEMENTS:
            self.assertIn(f"  {name}: ", result.out)
        self.assertIn(f"{len(elements.ELEMENTS)} features", result.out)

    def test_parser(self):
        """Known properties of an element that is not ours are found as they are."""
        found = {p.name: p for p in elements.inspect("videotestsrc")}
        self.assertEqual(found["flip"].default, "false")
        self.assertEqual((found["kt"].low, found["kt"].high), ("-2147483648", "2147483647"))
        self.assertIn("smpte", [nick for nick, _ in found["pattern"].values])
        self.assertNotIn("num-buffers", found)

    def test_properties_are_complete(self):
        for name in elements.ELEMENTS:
            properties = elements.inspect(name)
            self.assertGreaterEqual(len(properties), 3, name)
            for p in properties:
                what = f"{name}.{p.name}"
                self.assertGreater(len(p.blurb), 10, what)
                self.assertIsNotNone(p.kind, f"{what} has a type that is not known here")
                self.assertIsNotNone(p.default, what)
                if p.kind.startswith(("Enum", "Flags")):
                    self.assertTrue(p.values, what)
                elif p.kind not in ("Boolean", "String", "Boxed"):
                    self.assertIsNotNone(p.low, what)

    def test_bin_has_the_properties_of_its_elements(self):
        own = {p.name for p in elements.inspect("opensorasrc")}
        for child in ("opensoratextsrc", "opensoradenoise", "opensoravaedec"):
            names = {p.name for p in elements.inspect(child)}
            names = {"image" if name == "reference" else name for name in names}
            self.assertEqual(names - own, set(), child)

    def test_docs_are_the_same(self):
        with open(DOCS) as file:
            text = file.read()
        documented = [match["name"] for match in elements.TABLE.finditer(text)]
        self.assertEqual(sorted(documented), sorted(elements.ELEMENTS))
        self.maxDiff = None
        self.assertEqual(
            text.splitlines(),
            elements.fill(text).splitlines(),
            "make it anew: python3 tests/pipelines/elements.py --write docs/elements.md",
        )


if __name__ == "__main__":
    support.main()
