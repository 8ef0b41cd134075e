#!/usr/bin/python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Prompts in, frames out: frames.py PROMPT... makes a clip of each and prints the mean colour of
its frames. Shows how an application queues prompts, follows progress and takes frames."""

import sys

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

PIPELINE = (
    "opensorasrc name=source is-queue=true ! videoconvert ! video/x-raw,format=RGB !"
    " appsink name=sink sync=false emit-signals=true max-buffers=4"
)


def mean_color(sample):
    """Of the frame: rows are padded to multiples of four bytes."""
    caps = sample.get_caps().get_structure(0)
    width, height = caps.get_int("width").value, caps.get_int("height").value
    stride = (width * 3 + 3) // 4 * 4
    _, info = sample.get_buffer().map(Gst.MapFlags.READ)
    rows = [bytes(info.data[y * stride : y * stride + width * 3]) for y in range(height)]
    sample.get_buffer().unmap(info)
    return [sum(sum(row[c::3]) for row in rows) / (width * height) for c in range(3)]


def on_new_sample(sink):
    """In the streaming thread, for each frame."""
    sample = sink.emit("pull-sample")
    clip = sample.get_buffer().get_custom_meta("GstOpenSoraClipMeta").get_structure()
    color = " ".join(f"{c:5.1f}" for c in mean_color(sample))
    time = sample.get_buffer().pts / Gst.SECOND
    print(f"{clip.get_uint64('id').value} {time:6.3f} s  {color}  {clip.get_string('prompt')}")
    return Gst.FlowReturn.OK


def on_message(_bus, message, loop):
    if message.type == Gst.MessageType.EOS:
        loop.quit()
    elif message.type == Gst.MessageType.ERROR:
        print(f"Error: {message.parse_error().gerror.message}", file=sys.stderr)
        loop.failed = True
        loop.quit()
    elif message.type == Gst.MessageType.PROGRESS:
        found, percent = message.get_structure().get_int("percent")
        if found:
            print(f"{message.parse_progress().text} {percent} %", file=sys.stderr)
    elif message.has_name("opensora-clip"):
        clip = message.get_structure()
        if clip.get_string("state") == "failed":
            print(f"{clip.get_string('prompt')}: {clip.get_string('reason')}", file=sys.stderr)
            loop.failed = True
    return True


def main(prompts):
    if not prompts or prompts[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if prompts else 2
    Gst.init(None)
    pipeline = Gst.parse_launch(PIPELINE)
    source = pipeline.get_by_name("source")
    pipeline.get_by_name("sink").connect("new-sample", on_new_sample)

    loop = GLib.MainLoop()
    loop.failed = False
    pipeline.get_bus().add_signal_watch()
    pipeline.get_bus().connect("message", on_message, loop)
    GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, 2, pipeline.send_event, Gst.Event.new_eos())

    pipeline.set_state(Gst.State.PLAYING)
    for i, prompt in enumerate(prompts):
        options = Gst.Structure.new_from_string(f"options, seed=(int){i + 42}")
        source.emit("add-prompt", prompt, options)
    source.emit("end")  # after the last of them
    loop.run()
    pipeline.set_state(Gst.State.NULL)
    return 1 if loop.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
