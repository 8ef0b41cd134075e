#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Prints the table of text-clean.c: HTML's named characters, sorted by name.

Names of lower case stand for the capital where they are written in capitals, unless that is a
name of its own: "&EACUTE;".
"""

import html
import html.entities


def entities():
    found = {}
    for name, text in html.entities.html5.items():
        if not name.endswith(";"):
            continue
        found[name[:-1]] = text
        capital = name[:-1].upper()
        if name == name.lower() and html.unescape(f"&{capital};") == f"&{capital};":
            found[capital] = text.upper()
    return found


def main():
    print("/* Made by make-html-entities.py. */")
    print("static const HtmlEntity html_entities[] = {")
    for name, text in sorted(entities().items()):
        escaped = "".join(f"\\{byte:03o}" for byte in text.encode())
        print(f'  {{ "{name}", "{escaped}" }},')
    print("};")


if __name__ == "__main__":
    main()
