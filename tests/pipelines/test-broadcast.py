# SPDX-License-Identifier: LGPL-2.1-or-later
"""pipelines/broadcast.sh: received, demultiplexed, decoded and looked at by other programs."""

import os
import re
import signal
import socket
import time
import unittest

import support
import transport_stream

BROADCAST = os.path.join(support.source_root(), "pipelines", "broadcast.sh")
SMALL = ["--size=320x180", "--clip-frames=9", "--build-dir=" + os.environ["OPENSORA_BUILD_ROOT"]]
FAST = [*SMALL, "--clip-size=32x32", "--steps=1"]
NEEDED = ("x264enc", "voaacenc", "mpegtsmux", "hlssink2", "srtsink", "timeoverlay", "compositor")
H264, AAC = 0x1B, 0x0F
HAVE = support.has_elements(*NEEDED) and support.has_programs("ffmpeg", "ffprobe")


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@unittest.skipUnless(HAVE, "elements or ffmpeg are not installed")
class Broadcast(support.PipelineTest):
    def start(self, name, program, *args):
        """A program in a folder of its own, for its log."""
        os.mkdir(self.path(name))
        started = support.Launched(args, self.path(name), program=program)
        self.addCleanup(started.kill)
        return started

    def on_air(self, *args):
        started = self.start("channel", BROADCAST, *args)
        self.assertTrue(started.wait_for("On air"), started.log)
        return started

    def wait_size(self, path, size, *running):
        """Until a file has grown to size bytes."""
        end = time.monotonic() + 60
        while not os.path.exists(path) or os.path.getsize(path) < size:
            self.assertLess(time.monotonic(), end, [started.log for started in running])
            for started in running:
                self.assertIsNone(started.process.poll(), started.log)
            time.sleep(0.1)

    def end(self, started, status=130):
        """Ctrl-C."""
        started.signal(signal.SIGINT)
        self.assertIsNotNone(started.wait(30), started.log)
        self.assertEqual(started.process.returncode, status, started.log)

    def decode(self, path, *options):
        """All of it, without a complaint."""
        result = support.run(["ffmpeg", "-v", "error", "-i", path, *options])
        self.assertEqual((result.status, result.err), (0, ""), path)
        return result

    def streams(self, path, joined=False):
        ts = transport_stream.read(path, joined)
        self.assertEqual(ts.problems, [])
        return sorted(ts.streams.values())

    def mean_colors(self, path):
        """Of the middle of every picture."""
        self.decode(
            *[path, "-vf", "crop=160:160,scale=1:1:flags=area", "-pix_fmt", "rgb24", "-f", "rawvideo"],
            self.path("colors"),
        )
        with open(self.path("colors"), "rb") as file:
            data = file.read()
        return [tuple(data[i : i + 3]) for i in range(0, len(data), 3)]

    def test_file(self):
        """All there is in the picture, and the end."""
        channel = self.on_air(
            *["file", "--output", self.path("out.ts"), *FAST, "--audio=tone", "--timecode=both"],
            *["--title", 'A "third"', "--pip=test"],
        )
        self.wait_size(self.path("out.ts"), 100_000, channel)
        self.end(channel)
        self.assertEqual(self.streams(self.path("out.ts")), [AAC, H264])
        found = support.probe(self.path("out.ts"))
        self.assertEqual((found["width"], found["avg_frame_rate"]), (320, "25/1"))
        self.decode(self.path("out.ts"), "-f", "null", "-")

        result = support.run(["ffprobe", "-v", "error", "-show_frames", self.path("out.ts")])
        codes = re.findall(r"TAG:timecode=(\d+):(\d+):(\d+):(\d+)", result.out)
        self.assertGreater(len(codes), 20)
        frames = [((int(h) * 60 + int(m)) * 60 + int(s)) * 25 + int(f) for h, m, s, f in codes]
        self.assertEqual(frames, list(range(frames[0], frames[0] + len(frames))))

        result = support.run(
            ["ffmpeg", "-i", self.path("out.ts"), "-af", "volumedetect", "-f", "null", "-"]
        )
        level = float(re.search(r"max_volume: (-?[\d.]+) dB", result.err)[1])
        self.assertAlmostEqual(level, -20, delta=1)

    def test_overlays(self):
        """What is laid over the picture is in its places, and only there. Nobody types a prompt, so
        the slate stays."""
        regions = {"--timecode=burn": "120:40:0:0", "--title=A lower third": "160:40:0:140"}
        regions["--pip=test"] = "80:45:230:10"
        channels = {}
        for option in ["--timecode=none", *regions]:
            name = option.split("=")[0].strip("-") + option[-4:]
            args = ["file", "--output", self.path(name + ".ts"), *FAST, "--slate", self.slate(), "--clip-size=64x32"]
            args += ["--prompts", "-"]
            channels[option] = (name, self.start(name, BROADCAST, *args, option))
        for name, channel in channels.values():
            self.wait_size(self.path(name + ".ts"), 60_000, channel)
        for name, channel in channels.values():
            self.end(channel)
        plain = channels.pop("--timecode=none")[0]
        for option, (name, _) in channels.items():
            for region in regions.values():
                a, b = self.region(name, region), self.region(plain, region)
                difference = sum(abs(x - y) for x, y in zip(a, b)) / len(b)
                what = f"{option} at {region}: {difference}"
                self.assertEqual(difference > 4, region == regions[option], what)

    def slate(self):
        path = self.path("slate.png")
        if not os.path.exists(path):
            self.assert_ran(
                self.launch(
                    "videotestsrc num-buffers=1 pattern=green ! video/x-raw,width=64,height=36"
                    " ! pngenc ! filesink location=slate.png"
                )
            )
        return path

    def region(self, name, crop):
        """Of a picture from the middle: at either end one of several sources may be missing."""
        path = self.path("region")
        self.decode(
            *[self.path(name + ".ts"), "-frames:v", "1", "-vf", f"select=gte(n\\,25),crop={crop}", "-pix_fmt", "gray"],
            *["-f", "rawvideo", "-y", path],
        )
        with open(path, "rb") as file:
            return file.read()

    def test_udp(self):
        port = free_port(socket.SOCK_DGRAM)
        receiver = self.start(
            *["receiver", "gst-launch-1.0", "-e", "udpsrc", "address=127.0.0.1", f"port={port}"],
            *["buffer-size=2000000", "!", "filesink", f"location={self.path('udp.ts')}"],
        )
        self.assertTrue(receiver.wait_for("PLAYING"), receiver.log)
        channel = self.on_air(
            *["udp", "--port", str(port), *SMALL, "--clip-size=64x64", "--steps=12"],
            *["--prompt", "a white square on a blue background"],
        )
        self.assertTrue(channel.wait_for("Decoding  "), channel.log)
        time.sleep(3)  # of the clip on air
        self.end(channel)
        self.end(receiver, 0)
        self.assertEqual(self.streams(self.path("udp.ts")), [AAC, H264])
        colors = self.mean_colors(self.path("udp.ts"))
        self.assertLess(max(colors[0]), 20)
        self.assertTrue(any(b > 60 and b > 1.3 * max(r, g) for r, g, b in colors), colors)

    def srt(self, channel_args, uri, *properties):
        receiver = ["receiver", "gst-launch-1.0", "-e", "srtsrc", f"uri={uri}", *properties]
        receiver += ["!", "filesink", "buffer-mode=unbuffered", f"location={self.path('srt.ts')}"]
        if "listener" in uri:
            receiver = self.start(*receiver)
            channel = self.on_air("srt", *channel_args, *FAST)
        else:
            channel = self.on_air("srt", *channel_args, *FAST)
            receiver = self.start(*receiver)
        self.wait_size(self.path("srt.ts"), 60_000, channel, receiver)
        receiver.signal(signal.SIGINT)
        self.assertIsNotNone(receiver.wait(30), receiver.log)
        self.end(channel)
        self.assertEqual(self.streams(self.path("srt.ts"), joined=True), [AAC, H264])
        self.assertGreater(support.probe(self.path("srt.ts"))["frames"], 5)

    def test_srt_is_called(self):
        port = free_port(socket.SOCK_DGRAM)
        self.srt(["--port", str(port)], f"srt://127.0.0.1:{port}?mode=caller")

    def test_srt_calls(self):
        """And encrypted."""
        port = free_port(socket.SOCK_DGRAM)
        self.srt(
            ["--host", "127.0.0.1", "--port", str(port), "--passphrase=correct horse"],
            f"srt://127.0.0.1:{port}?mode=listener",
            "passphrase=correct horse",
        )

    def test_hls(self):
        folder = self.path("hls")
        channel = self.on_air("hls", "--output", folder, "--segment=1", *FAST, "--repeat=ping-pong")
        self.wait_size(f"{folder}/segment00002.ts", 1, channel)
        self.end(channel)
        with open(f"{folder}/index.m3u8") as file:
            playlist = file.read()
        self.assertTrue(playlist.startswith("#EXTM3U"), playlist)
        self.assertIn("#EXT-X-ENDLIST", playlist)
        segments = re.findall(r"^[^#\n]+$", playlist, re.MULTILINE)
        self.assertGreaterEqual(len(segments), 3)
        durations = [float(d) for d in re.findall(r"#EXTINF:([\d.]+)", playlist)]
        target = int(re.search(r"#EXT-X-TARGETDURATION:(\d+)", playlist)[1])
        self.assertLessEqual(max(durations), target + 0.5)
        frames = 0
        for segment in segments:
            self.assertEqual(self.streams(f"{folder}/{segment}"), [AAC, H264])
            self.decode(f"{folder}/{segment}", "-f", "null", "-")
            frames += support.probe(f"{folder}/{segment}")["frames"]
        self.assertEqual(support.probe(f"{folder}/index.m3u8")["frames"], frames)
        self.assertAlmostEqual(frames / 25, sum(durations), delta=0.5)

    def test_once(self):
        """All prompts of a file, then the end, also where one of them cannot be made."""
        self.write("prompts.csv", "text,ref\na red circle,\na star,gone.png\na blue star,\n")
        result = support.run(
            [BROADCAST, "file", "-o", self.path("out.ts"), "--prompts", self.path("prompts.csv")]
            + ["--once", "--audio=none", *FAST]
        )
        self.assertEqual(result.status, 0, str(result))
        self.assertIn("gone.png", result.err)
        self.assertEqual(self.streams(self.path("out.ts")), [H264])
        self.assertGreaterEqual(support.probe(self.path("out.ts"))["frames"], 2 * 9)

    def test_typed_prompts(self):
        reading, writing = os.pipe()
        os.mkdir(self.path("channel"))
        channel = support.Launched(
            ["file", "-o", self.path("out.ts"), "--prompts", "-", *FAST],
            self.path("channel"),
            program=BROADCAST,
            stdin=reading,
        )
        self.addCleanup(channel.kill)
        self.assertTrue(channel.wait_for("On air"), channel.log)
        for prompt in (b"a red circle\n", b"a blue star\n"):
            os.write(writing, prompt)
            self.assertTrue(channel.wait_for(prompt.decode().strip()), channel.log)
        self.end(channel)
        os.close(writing)
        os.close(reading)
        self.assertEqual(self.streams(self.path("out.ts")), [AAC, H264])


@unittest.skipUnless(HAVE, "elements are not installed")
class Checker(support.PipelineTest):
    """The eyes of the tests above."""

    def test_finds_what_is_wrong(self):
        self.assert_ran(
            self.launch(
                "videotestsrc num-buffers=40 ! x264enc tune=zerolatency ! mpegtsmux ! filesink"
                " location=out.ts"
            )
        )
        with open(self.path("out.ts"), "rb") as file:
            data = bytearray(file.read())
        size = transport_stream.PACKET
        check = transport_stream.TransportStream
        self.assertEqual(check(data).problems, [])
        self.assertIn("continuity", check(data[: 40 * size] + data[41 * size :]).problems[0])
        self.assertIn("number of packets", check(data[:-1]).problems[0])
        tables = [n for n in range(0, len(data), size) if data[n + 1 : n + 3] == b"\x40\0"]
        wrong = bytearray(data)
        wrong[tables[0] + size - 1] ^= 1
        self.assertIn("checksum", check(wrong).problems[0])
        wrong = bytearray(data)
        wrong[3 * size] = 0
        self.assertIn("sync", check(wrong).problems[0])
        clocks = [n for n in range(0, len(data), size) if data[n + 3] & 0x20 and data[n + 5] & 0x10]
        wrong = bytearray(data)
        wrong[clocks[3] + 8] ^= 0x10
        self.assertIn("clock after", check(wrong).problems[0])


class Options(support.PipelineTest):
    def run_with(self, *args):
        return support.run([BROADCAST, *args], cwd=self.dir)

    def test_help(self):
        result = self.run_with("--help")
        self.assertEqual((result.status, result.err), (0, ""))
        with open(BROADCAST) as file:
            options = set(re.findall(r"^    (--[a-z-]+)\) ", file.read(), re.MULTILINE))
        for option in options:
            self.assertIn(option, result.out)

    def test_refused(self):
        for args, reason in (
            ([], "where to"),
            (["tape"], "unknown target tape"),
            (["udp", "srt"], "more than one target"),
            (["udp", "--color=red"], "unknown option --color"),
            (["udp", "--port"], "--port needs a value"),
            (["udp", "--port=65536"], "65536"),
            (["udp", "--port=x y"], "not a number"),
            (["udp", "--rate=0"], "--rate 0"),
            (["udp", "--size=321x180"], "even"),
            (["srt", "--passphrase=short"], "10 to 79"),
            (["udp", "--prompts=gone.csv"], "gone.csv"),
            (["udp", "--pip=mirror"], "mirror"),
            (["udp", "--gpu", "--timecode=sei"], "needs x264enc"),
        ):
            result = self.run_with(*args)
            self.assertEqual(result.status, 2, str(result))
            self.assertIn(reason, result.err)

    def dry_run(self, *args):
        result = self.run_with(*args, "--dry-run")
        self.assertEqual((result.status, result.err), (0, ""), str(result))
        self.assertEqual(os.listdir(self.dir), [])
        return result.out

    def test_gpu(self):
        """Frames stay on the GPU from the decoder to the encoder, or are taken from it once and
        brought back once."""
        plain = self.dry_run("srt", "--gpu")
        order = ["opensorasrc", "opensoraplayout", "cudaupload", "cudascale", "nvh264enc", "srtsink"]
        self.assertNotIn("videoconvert", plain)
        self.assertNotIn("x264enc", plain)
        elements = [word for word in plain.split() if word in order]
        self.assertEqual(elements, ["srtsink", *order[:-1]])
        for option in ("--title=x", "--pip=test", "--timecode=burn"):
            line = self.dry_run("hls", "--gpu", option)
            self.assertEqual(line.count("cudaupload"), 1, line)
            self.assertLess(line.index("videoscale"), line.index("cudaupload"))
            self.assertLess(line.index("cudaupload"), line.index("nvh264enc"))

    def test_quoting(self):
        line = self.dry_run("udp", "--prompt", 'a "b" \\ ! c', "--title", "100 %")
        self.assertIn(r'prompt="a \"b\" \\ ! c"', line)
        self.assertIn('text="100 %"', line)

    def test_numbers_are_decimal(self):
        self.assertIn("bitrate=800 ", self.dry_run("udp", "--bitrate=0800"))


if __name__ == "__main__":
    support.main()
