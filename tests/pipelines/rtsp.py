# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of the RTSP server share: starting it, asking it by HTTP, clients that look at
frames, and a client of a few lines that can misbehave. Python's standard library only."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request

import support

WIDTH = HEIGHT = 64
FRAME = WIDTH * HEIGHT * 3
# Clips that take a second or less and show the colour of their background nevertheless.
SMALL = [f"--width={WIDTH}", f"--height={HEIGHT}", "--num-frames=9", "--steps=4"]
PROMPT = "a white circle moving right on a {} background"
SLOW = 60


def server_program():
    return os.path.join(os.environ["OPENSORA_BUILD_ROOT"], "pipelines", "opensora-rtsp-server")


class Server(support.Launched):
    """The server on free ports, and what it said about them."""

    def __init__(self, cwd, *options, stdin=None, env=None):
        super().__init__(
            ["--port=0", "--http-port=0", *SMALL, *options],
            cwd,
            program=server_program(),
            stdin=stdin,
            env=env,
        )
        try:
            self.find_ports()
        except BaseException:
            self.kill()
            raise

    def find_ports(self):
        match = self.wait_for("Ctrl-C ends") and re.search(
            r"^(rtsps?)://127\.0\.0\.1:(\d+)/live ", self.log, re.M
        )
        if not match:
            raise AssertionError(f"the server does not start: {self.log}")
        self.scheme, self.port = match[1], int(match[2])
        match = re.search(r"(https?://127\.0\.0\.1:\d+)/prompts", self.log)
        self.http = match and match[1]

    def url(self, path, user=""):
        return f"{self.scheme}://{user}127.0.0.1:{self.port}/{path}"

    def request(self, method, path, data=None, headers=None, opener=None):
        """Status and body, JSON if there is one."""
        request = urllib.request.Request(self.http + path, data, headers or {}, method=method)
        try:
            with (opener or urllib.request.build_opener()).open(request, timeout=SLOW) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, body = error.code, error.read()
        return status, json.loads(body) if body else None

    def post(self, fields):
        return self.request(
            "POST", "/prompts", json.dumps(fields).encode(), {"Content-Type": "application/json"}
        )

    def queue(self):
        return self.request("GET", "/queue")[1]

    def wait_until(self, predicate, seconds=SLOW):
        """Until the queue's JSON is as wanted; the last that was seen."""
        end = time.monotonic() + seconds
        while not predicate(queue := self.queue()) and time.monotonic() < end:
            time.sleep(0.1)
        return queue

    def count(self, what):
        """Files or threads of the process."""
        return len(os.listdir(f"/proc/{self.process.pid}/{what}"))

    def resident(self):
        """KiB of memory."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])

    def interrupt(self):
        """Ctrl-C; the exit status, None if it does not end."""
        self.signal(signal.SIGINT)
        return None if self.wait(30) is None else self.process.returncode


def corner(frame):
    """Mean colour of the upper left 6x6 pixels: the background."""
    pixels = [frame[3 * (WIDTH * y + x) :][:3] for y in range(6) for x in range(6)]
    return [sum(pixel[i] for pixel in pixels) / len(pixels) for i in range(3)]


def is_colour(frame, colour):
    """Whether the background is of a colour, one far from all others."""
    red, green, blue = corner(frame)
    return {
        "red": red > 150 and green < 110 and blue < 110,
        "green": green > 110 and red < 80 and blue < 100,
        "blue": blue > 150 and red < 80 and green < 130,
        "black": max(red, green, blue) < 50,
    }[colour]


class Viewer:
    """A program that writes frames as raw RGB to its standard output, in the background."""

    def __init__(self, command):
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.frames = []
        self.times = []
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        while len(frame := self.process.stdout.read(FRAME)) == FRAME:
            self.times.append(time.monotonic())
            self.frames.append(frame)

    def wait_for(self, predicate, seconds=SLOW):
        """Until a frame is as wanted; whether one was."""
        end = time.monotonic() + seconds
        seen = 0
        while True:
            ended = not self.thread.is_alive()
            while seen < len(self.frames):
                if predicate(self.frames[seen]):
                    return True
                seen += 1
            if ended or time.monotonic() > end:
                return False
            time.sleep(0.05)

    def end(self, seconds=SLOW):
        """Waits for its own end; None if there is none."""
        self.thread.join(seconds)
        return None if self.thread.is_alive() else self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.thread.join()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()


def ffmpeg(url, transport):
    return Viewer(
        ["ffmpeg", "-v", "error", "-analyzeduration", "0", "-probesize", "32"]
        + ["-rtsp_transport", transport, "-i", url, "-f", "rawvideo", "-pix_fmt", "rgb24"]
        + ["-fps_mode", "passthrough", "-"]
    )


def rtspsrc(url, transport, *properties):
    """VP8, which GStreamer decodes without other packages."""
    return Viewer(
        ["gst-launch-1.0", "-q", "rtspsrc", f"location={url}", f"protocols={transport}"]
        + ["latency=200", *properties, "!", "rtpvp8depay", "!", "vp8dec", "!", "videoconvert"]
        + ["!", f"video/x-raw,format=RGB,width={WIDTH},height={HEIGHT}", "!", "fdsink", "fd=1"]
    )


class Client:
    """RTSP over a socket, RTP interleaved."""

    def __init__(self, server, tls=None):
        self.server = server
        self.socket = socket.create_connection(("127.0.0.1", server.port), SLOW)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.file = self.socket.makefile("rb")
        self.session = None
        self.sequence = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.file.close()
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def read_answer(self):
        """Status of the next answer; RTP before it is skipped. None: the server has gone."""
        while True:
            first = self.file.read(1)
            if not first:
                return None
            if first != b"$":
                break
            self.skip_packet()
        status = int((first + self.file.readline()).split()[1])
        length = 0
        while line := self.file.readline().strip().decode("latin-1"):
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() == "session":
                self.session = value.strip().split(";")[0]
        self.file.read(length)
        return status

    def skip_packet(self):
        """After its first byte; its size."""
        header = self.file.read(3)
        return len(self.file.read(int.from_bytes(header[1:], "big")))

    def read_packet(self):
        if self.file.read(1) != b"$":
            raise AssertionError("no RTP")
        return self.skip_packet()

    def read_packets(self, n):
        for _ in range(n):
            self.read_packet()

    def ask(self, method, path, *headers, base=None):
        self.sequence += 1
        lines = [f"{method} {base or self.server.url(path)} RTSP/1.0", f"CSeq: {self.sequence}"]
        if self.session:
            lines.append(f"Session: {self.session}")
        self.send("\r\n".join([*lines, *headers, "", ""]).encode())
        return self.read_answer()

    def play(self, path, control=None):
        """DESCRIBE, SETUP and PLAY; the statuses, up to the first that is not 200."""
        statuses = []
        for method, target, header in (
            ("DESCRIBE", path, "Accept: application/sdp"),
            ("SETUP", control or f"{path}/stream=0", "Transport: RTP/AVP/TCP;interleaved=0-1"),
            ("PLAY", path, "Range: npt=now-"),
        ):
            statuses.append(self.ask(method, target, header))
            if statuses[-1] != 200:
                break
        return statuses
