#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Turns CUDA C into C++ that a host compiler takes, for the emulator.

usage: translate.py INPUT OUTPUT [NAME]

Only what C++ has no words for is changed, and no line moves:

  kernel<T><<<grid, block, shared, stream>>>(args)  a call of launch() (emulate.h)
  (const void *) kernel<T>                          address(kernel<T>), which remembers its type
  __shared__ T a[N], b;                             references into the block's shared memory
  extern __shared__ T a[];                          a pointer to the dynamic part of it
  asm volatile("..." : "=r"(x) : "r"(y) : "memory") OSR_PTX("...", OUT(x), IN(y)): the text is
                                                    interpreted when the program runs
  __global__ functions                              begin with enter(name, launch bound)
"""

import re
import sys

IDENTIFIER = re.compile(r"[A-Za-z_]\w*")


class Error(Exception):
    pass


def without_comments(text):
    """Comments become spaces, line breaks stay."""

    def blank(match):
        piece = match.group(0)
        return piece if piece[0] in "\"'" else re.sub(r"[^\n]", " ", piece)

    return re.sub(
        r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|/\*.*?\*/|//[^\n]*', blank, text, flags=re.S
    )


def skip_string(text, at):
    at += 1
    while text[at] != '"':
        at += 2 if text[at] == "\\" else 1
    return at + 1


def closing(text, at):
    """The place after what closes the bracket at `at`."""
    pairs = {"(": ")", "{": "}", "[": "]"}
    stack = [pairs[text[at]]]
    at += 1
    while stack:
        c = text[at]
        if c == '"':
            at = skip_string(text, at)
            continue
        if c in pairs:
            stack.append(pairs[c])
        elif c == stack[-1]:
            stack.pop()
        at += 1
    return at


def split(text, separators):
    """Splits at separators that are in no brackets and no string."""
    parts, begin, at = [], 0, 0
    while at < len(text):
        if text[at] == '"':
            at = skip_string(text, at)
        elif text[at] in "([{":
            at = closing(text, at)
        elif text[at] in separators:
            parts.append(text[begin:at])
            at += 1
            begin = at
        else:
            at += 1
    parts.append(text[begin:])
    return parts


def template_begin(text, at):
    """The place of the "<" that opens the template arguments before `at`."""
    depth = 0
    while True:
        at -= 1
        if text[at] == ">":
            depth += 1
        elif text[at] == "<":
            depth -= 1
            if depth == 0:
                return at
        elif text[at] in ";{}":
            raise Error("no kernel before <<<")


def template_end(text, at):
    """The place after the template arguments that begin at `at`."""
    depth = 0
    while True:
        depth += {"<": 1, ">": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return at


def breaks(text):
    """The line breaks of what is dropped, so that lines keep their numbers."""
    return "".join(re.findall(r"\\?\n", text))


def translate_asm(text):
    out, at = [], 0
    for match in re.finditer(r"\basm\b(\s+volatile)?\s*\(", text):
        if match.start() < at:
            raise Error("asm in asm")
        end = closing(text, match.end() - 1)
        inside = text[match.end() : end - 1]
        parts = split(inside, ":")
        # Template, outputs, inputs, clobbers: the last is dropped.
        used = [part for part in parts[:3] if part.strip()]
        out.append(text[at : match.start()])
        out.append("OSR_PTX(" + ",".join(used) + breaks("".join(parts[3:])) + ")")
        at = end
    text = "".join(out) + text[at:]
    text = re.sub(r'"[+=][a-z]"\s*\(', "OSR_PTX_OUT(", text)
    return re.sub(r'"[a-z]"\s*\(', "OSR_PTX_IN(", text)


def translate_shared(text):
    def replace(match):
        static = match.group(1) is None
        body = re.sub(r"__align__\s*\(([^()]*)\)", "", match.group(2))
        align = re.search(r"__align__\s*\(([^()]*)\)", match.group(2))
        declarators = split(body, ",")
        # The type is what comes before the first declared name: the last identifier that no
        # bracket follows, or the one before the first "[".
        first = re.match(r"(.*?)\b([A-Za-z_]\w*)\s*((?:\[.*\])?)\s*$", declarators[0], re.S)
        kind = first.group(1).strip()
        # Template arguments hold commas of their own.
        if kind.count("<") != kind.count(">"):
            raise Error("cannot read: " + match.group(0))
        names = [(first.group(2), first.group(3))]
        for declarator in declarators[1:]:
            other = re.match(r"\s*([A-Za-z_]\w*)\s*((?:\[.*\])?)\s*$", declarator, re.S)
            names.append((other.group(1), other.group(2)))
        done = []
        for name, dims in names:
            if static:
                done.append(
                    f"typedef {kind} {name}_shared_type{dims}; {name}_shared_type &{name} = "
                    f"osr_emulated::shared_static<{name}_shared_type>("
                    f'"{name}", {align.group(1) if align else 1});'
                )
            else:
                done.append(
                    f"{kind} *const {name} = ({kind} *) osr_emulated::shared_dynamic("
                    f"{align.group(1) if align else 1}, alignof({kind}));"
                )
        return " ".join(done) + breaks(match.group(0))

    return re.sub(r"\b(extern\s+)?__shared__\s+([^;]*);", replace, text)


def translate_launches(text):
    while "<<<" in text:
        at = text.index("<<<")
        begin = at
        if text[at - 1] == ">":
            begin = template_begin(text, at)
        begin = max(m.start() for m in IDENTIFIER.finditer(text, 0, begin) if m.end() == begin)
        end = text.index(">>>", at)
        arguments = re.compile(r"\s*\(").match(text, end + 3)
        after = closing(text, arguments.end() - 1)
        config, inside = text[at + 3 : end], text[arguments.end() : after - 1]
        text = (
            text[:begin]
            + f"osr_emulated::launch({config})([](auto... a) {{ {text[begin:at]}(a...); }}, "
            + inside
            + ")"
            + text[after:]
        )
    return text


def translate_kernels(text):
    names = []
    out, at = [], 0
    for match in re.finditer(r"\b__global__\b", text):
        body = match.end()
        bound = None
        while text[body] != "{":
            if text[body] == "(":
                end = closing(text, body)
                name = IDENTIFIER.findall(text[at:body])[-1]
                if name == "__launch_bounds__":
                    bound = split(text[body + 1 : end - 1], ",")[0].strip()
                else:
                    names.append(name)
                body = end
            elif text[body] == ";":
                raise Error("a kernel is declared without a body")
            else:
                body += 1
        out.append(text[at : body + 1])
        out.append(f' osr_emulated::enter("{names[-1]}", __PRETTY_FUNCTION__, {bound or 1024});')
        at = body + 1
    text = "".join(out) + text[at:]
    for name in set(names):
        pattern = re.compile(r"\(const void \*\)\s*" + name + r"\b\s*")
        begin = 0
        while True:
            match = pattern.search(text, begin)
            if not match:
                break
            end = match.end()
            if text[end] == "<":
                end = template_end(text, end)
            kernel = name + text[match.end() : end]
            text = text[: match.start()] + f"osr_emulated::address({kernel})" + text[end:]
            begin = match.start() + 1
    return text


def main():
    source, target = sys.argv[1:3]
    with open(source, encoding="utf-8") as f:
        text = without_comments(f.read())
    try:
        text = translate_asm(text)
        text = translate_shared(text)
        text = translate_kernels(text)
        text = translate_launches(text)
    except (Error, AttributeError, IndexError, ValueError) as error:
        sys.exit(f"translate.py: {source}: {error}")
    text = text.replace("__noinline__", "__attribute__((noinline))")
    head = '#include "emulate.h"\n' if source.endswith(".cu") else ""
    with open(target, "w", encoding="utf-8") as f:
        f.write(head + f'#line 1 "{source}"\n' + text)


if __name__ == "__main__":
    main()
