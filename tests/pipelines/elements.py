# SPDX-License-Identifier: LGPL-2.1-or-later
"""The properties of the elements, as gst-inspect-1.0 tells them, and the tables of them in
docs/elements.md.

    python3 tests/pipelines/elements.py --write docs/elements.md
"""

import re
import sys

import support

ELEMENTS = [
    "opensorasrc",
    "opensoratextsrc",
    "opensoratextenc",
    "opensoradenoise",
    "opensoravaedec",
    "opensoravaeenc",
    "opensoraplayout",
]

# What GObject, GstElement and the base classes bring along, up to GStreamer 1.26.
INHERITED = set(
    "name parent async-handling message-forward qos blocksize num-buffers do-timestamp typefind"
    " automatic-eos emit-signals force-live ignore-inactive-pads latency min-upstream-latency"
    " start-time start-time-selection".split()
)

TABLE = re.compile(r"(<!-- properties: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.S)
PROPERTY = re.compile(r"^  (?P<name>[a-z0-9-]+) *: (?P<blurb>.*)$")
BOXED = re.compile(r'^ {20,}Boxed pointer of type "(?P<type>\w+)"')
KIND = re.compile(
    r"^ {20,}(?P<kind>Boolean|String|Integer64|Unsigned Integer64|Integer|Unsigned Integer|Double"
    r'|Enum "\w+"|Flags "\w+")(?:\. *Range: *(?P<low>\S+) - *(?P<high>\S+))?(?:\.| ) *'
    r"Default: (?P<default>.*)$"
)
VALUE = re.compile(r"^ +\((?P<value>-?\w+)\): (?P<nick>\S+) +- (?P<text>.*)$")
TYPES = {
    "Boolean": "boolean",
    "String": "string",
    "Integer": "int",
    "Unsigned Integer": "uint",
    "Integer64": "int64",
    "Unsigned Integer64": "uint64",
    "Double": "double",
}


class Property:
    def __init__(self, name, blurb):
        self.name = name
        self.blurb = blurb
        self.flags = ""
        self.kind = self.low = self.high = self.default = None
        self.values = []  # (nick, text) of an enum or flags

    def row(self):
        return f"| `{self.name}` | {self.type()} | {self.shown_default()} | {self.meaning()} |"

    def type(self):
        if self.kind == "Boxed":
            return self.default
        if self.values:
            return "flags" if self.kind.startswith("Flags") else "enum"
        if self.low is not None:
            return f"{TYPES[self.kind]}, {number(self.low)} to {number(self.high)}"
        return TYPES[self.kind]

    def shown_default(self):
        if self.kind == "Boxed":
            return ""
        if self.kind == "String":
            return "unset" if self.default == "null" else f"`{self.default}`"
        if self.values:
            nick = re.search(r'"(.*)"', self.default)
            return f"`{nick[1].strip('()')}`"
        return f"`{number(self.default)}`"

    def meaning(self):
        text = self.blurb.replace("|", "\\|")
        if self.values:
            listed = "; ".join(f"`{nick}`: {text}" for nick, text in self.values)
            text += f". {listed}"
        if "writable" not in self.flags:
            return text + " (read only)"
        return text + ("" if "PLAYING" in self.flags else " (only while stopped)")


def number(text):
    """As a person writes it."""
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(text)) if re.fullmatch(r"-?\d+", text) else f"{value:g}"


def parse(text):
    """The properties in the output of gst-inspect-1.0 that are the element's own."""
    found = []
    current = None
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("Element Properties:"):
            break
    for line in lines:
        if line and not line.startswith(" "):
            break
        if match := PROPERTY.match(line):
            current = Property(match["name"], match["blurb"])
            found.append(current)
        elif current and line.strip().startswith("flags:"):
            current.flags = line.strip()
        elif current and (match := BOXED.match(line)):
            current.kind, current.default = "Boxed", match["type"]
        elif current and (match := KIND.match(line)):
            current.kind, current.default = match["kind"], match["default"].strip()
            current.low, current.high = match["low"], match["high"]
            if current.kind == "String":
                current.default = current.default.strip('"')
        elif current and current.kind and (match := VALUE.match(line)):
            current.values.append((match["nick"], match["text"]))
    return [p for p in found if p.name not in INHERITED]


def inspect(name):
    result = support.run(["gst-inspect-1.0", "--no-colors", name])
    if result.status != 0:
        raise AssertionError(f"gst-inspect-1.0 {name}: {result}")
    return parse(result.out)


def table(properties):
    head = "| property | type | default | |\n|---|---|---|---|\n"
    return head + "".join(p.row() + "\n" for p in properties)


def fill(text):
    """text with its tables made anew."""
    return TABLE.sub(lambda match: match[1] + table(inspect(match["name"])) + match[3], text)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "--write":
        sys.exit(__doc__)
    with open(sys.argv[2]) as file:
        old = file.read()
    with open(sys.argv[2], "w") as file:
        file.write(fill(old))
