# SPDX-License-Identifier: LGPL-2.1-or-later
"""Counts what `meson test` has run: python3 summary.py BUILD-DIR prints the numbers of tests that
passed, failed and were skipped. A program that tells of its tests one by one (TAP) counts as these
tests, and as one failure more if it did not end well for another reason than a failed test."""

import json
import os
import re
import sys
import xml.etree.ElementTree

# What XML 1.0 cannot hold: Meson copies what a program printed as it is, colours too.
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_programs(build):
    """(name, result) of every program that was run."""
    with open(os.path.join(build, "meson-logs", "testlog.json")) as file:
        return [(entry["name"], entry["result"]) for entry in map(json.loads, file)]


def read_suites(build):
    """Name of a program that speaks TAP -> its (passed, failed, skipped)."""
    path = os.path.join(build, "meson-logs", "testlog.junit.xml")
    with open(path, encoding="utf-8", errors="replace") as file:
        text = NOT_XML.sub("", file.read())
    suites = {}
    for suite in xml.etree.ElementTree.fromstring(text):
        tests, failed, skipped = (
            int(suite.get("tests", 0)),
            int(suite.get("failures", 0)) + int(suite.get("errors", 0)),
            int(suite.get("skipped", 0)),
        )
        suites[suite.get("name")] = (tests - failed - skipped, failed, skipped)
    return suites


def count(build):
    totals = [0, 0, 0]
    suites = read_suites(build)
    for name, result in read_programs(build):
        project = name.split(":")[0]
        passed, failed, skipped = suites.get(f"{project}.{name}", (0, 0, 0))
        if result == "SKIP":
            skipped = max(skipped, 1)
        elif result not in ("OK", "EXPECTEDFAIL"):
            failed = max(failed, 1)
        elif passed + failed + skipped == 0:
            passed = 1
        for i, number in enumerate((passed, failed, skipped)):
            totals[i] += number
    return totals


if __name__ == "__main__":
    print(*count(sys.argv[1]))
