# SPDX-License-Identifier: LGPL-2.1-or-later
"""The RTSP server as its users meet it: what ffmpeg and rtspsrc receive, prompts from all sides,
clips by URL, users, TLS, clients that misbehave."""

import hashlib
import os
import random
import re
import signal
import socket
import ssl
import threading
import time
import unittest
import urllib.request

import rtsp
import support

OK = [200, 200, 200]


class RtspTest(support.PipelineTest):
    def start(self, *options, **kwargs):
        server = rtsp.Server(self.dir, *options, **kwargs)
        self.addCleanup(server.kill)
        return server

    def view(self, viewer):
        self.addCleanup(viewer.stop)
        return viewer

    def assert_shows(self, viewer, colour):
        if not viewer.wait_for(lambda frame: rtsp.is_colour(frame, colour)):
            seen = rtsp.corner(viewer.frames[-1]) if viewer.frames else None
            viewer.stop()
            self.fail(f"nothing {colour} in {len(viewer.frames)} frames, but {seen}")

    def assert_serves(self, server):
        with rtsp.Client(server) as client:
            self.assertEqual(client.play("live"), OK)
            client.read_packets(3)

    def assert_ends_well(self, server):
        self.assertEqual(server.interrupt(), 0, server.log[-2000:])
        self.assertNotIn("CRITICAL", server.log)


class Live(RtspTest):
    def test_prompts_from_everywhere(self):
        """Command line, HTTP and standard input, seen by clients of four kinds."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, writer)
        server = self.start(rtsp.PROMPT.format("red"), stdin=reader)
        os.close(reader)
        viewers = [
            self.view(rtsp.ffmpeg(server.url("live"), "tcp")),
            self.view(rtsp.ffmpeg(server.url("live-vp8"), "udp")),
            self.view(rtsp.rtspsrc(server.url("live-vp8"), "tcp")),
            self.view(rtsp.rtspsrc(server.url("live-vp8"), "udp")),
            self.view(rtsp.ffmpeg(server.url("live"), "udp")),
        ]
        for viewer in viewers:
            self.assert_shows(viewer, "red")

        status, answer = server.post({"prompt": rtsp.PROMPT.format("green"), "seed": 1})
        self.assertEqual((status, answer), (202, {"id": 2}))
        for viewer in viewers:
            self.assert_shows(viewer, "green")

        os.write(writer, rtsp.PROMPT.format("blue").encode() + b"\n")
        for viewer in viewers:
            self.assert_shows(viewer, "blue")

        queue = server.queue()
        self.assertEqual([prompt["id"] for prompt in queue["prompts"]], [1, 2, 3])
        self.assertEqual({prompt["state"] for prompt in queue["prompts"]}, {"done"})
        self.assertEqual(queue["on-air"]["id"], 3)
        self.assertEqual(queue["clients"], 5)
        self.assertGreater(queue["on-air"]["waited"], 0)

        # The end reaches them: none has to be killed.
        server.signal(signal.SIGINT)
        for viewer in viewers:
            self.assertIsNotNone(viewer.end(30), "a client does not end")
        self.assertIsNotNone(server.wait(30))
        self.assertEqual(server.process.returncode, 0, server.log)

    def test_slate_before_the_first_clip(self):
        server = self.start("--steps=1000", rtsp.PROMPT.format("red"))
        viewer = self.view(rtsp.ffmpeg(server.url("live"), "tcp"))
        self.assert_shows(viewer, "black")
        # As many frames as there is time for, while the clip is made.
        n, start = len(viewer.frames), time.monotonic()
        time.sleep(3)
        rate = (len(viewer.frames) - n) / (time.monotonic() - start)
        self.assertGreater(rate, 8, "16 frames a second are played")
        self.assert_ends_well(server)

    def test_picture_as_slate(self):
        made = self.launch(
            "videotestsrc num-buffers=1 pattern=solid-color foreground-color=0xff0000ff !"
            " video/x-raw,width=64,height=64 ! pngenc ! filesink location=slate.png"
        )
        self.assert_ran(made)
        server = self.start("--slate=" + self.path("slate.png"))
        self.assert_shows(self.view(rtsp.ffmpeg(server.url("live"), "tcp")), "blue")
        server.signal(signal.SIGTERM)
        self.assertIsNotNone(server.wait(30))
        self.assertEqual(server.process.returncode, 0, server.log)

    def test_prompt_that_cannot_be_made(self):
        """It fails, is told about, and the programme goes on."""
        self.write("prompts.csv", "text,ref\na red circle,missing.png\n")
        server = self.start("--prompts=" + self.path("prompts.csv"))
        item = server.wait_until(lambda queue: queue["prompts"][0]["state"] == "failed")["prompts"][0]
        self.assertEqual(item["state"], "failed")
        self.assertIn("missing.png", item["reason"])
        server.post({"prompt": rtsp.PROMPT.format("green")})
        self.assert_shows(self.view(rtsp.ffmpeg(server.url("live"), "tcp")), "green")
        self.assert_ends_well(server)

    def test_file_again_and_again(self):
        self.write("prompts.txt", "a red circle\n# not this\na blue star\n")
        server = self.start(
            "--prompts=" + self.path("prompts.txt"), "--repeat-prompts", "--steps=1", "--num-frames=5"
        )
        done = server.wait_until(
            lambda queue: sum(item["state"] == "done" for item in queue["prompts"]) >= 3
        )
        self.assertEqual(
            [item["prompt"] for item in done["prompts"]][:3],
            ["a red circle", "a blue star", "a red circle"],
        )
        self.assertLessEqual(sum(item["state"] == "queued" for item in done["prompts"]), 1)
        self.assert_ends_well(server)

    def test_more_lines_than_room(self):
        """Standard input is read as there is room, and nothing of it is lost."""
        self.write("lines", "".join(f"a red circle, number {i}\n" for i in range(12)))
        with open(self.path("lines")) as lines:
            server = self.start("--max-queue=2", "--steps=1", "--num-frames=5", stdin=lines)
        end = time.monotonic() + rtsp.SLOW
        while len(server.queue()["prompts"]) < 12 and time.monotonic() < end:
            self.assertLessEqual(
                sum(item["state"] == "queued" for item in server.queue()["prompts"]), 2
            )
            time.sleep(0.1)
        prompts = [item["prompt"] for item in server.queue()["prompts"]]
        self.assertEqual(prompts, [f"a red circle, number {i}" for i in range(12)])


class Http(RtspTest):
    def test_refusals(self):
        server = self.start("--max-queue=2", "--max-prompt=50")
        text = {"Content-Type": "text/plain"}
        port = server.http.rpartition(":")[2]
        for method, path, data, headers, status in (
            ("POST", "/prompts", b"{", {"Content-Type": "application/json"}, 400),
            ("POST", "/prompts", b"[]", {"Content-Type": "application/json"}, 400),
            ("POST", "/prompts", b'{"prompt": 7}', {"Content-Type": "application/json"}, 400),
            ("POST", "/prompts", b"{}", {"Content-Type": "application/json"}, 400),
            ("POST", "/prompts", b" \n", text, 400),
            ("POST", "/prompts", b"\xff", text, 400),
            ("POST", "/prompts", b"a\x07b", text, 400),
            ("POST", "/prompts", b"x" * 51, text, 400),
            ("POST", "/prompts", b"x" * 70000, text, 413),
            ("POST", "/prompts", b"x", {"Content-Type": "text/html"}, 415),
            ("POST", "/prompts", b"x", {**text, "Origin": "http://example.org"}, 403),
            ("POST", "/prompts", b"x", {**text, "Host": f"example.org:{port}"}, 403),
            ("GET", "/", None, {}, 404),
            ("PUT", "/prompts", b"x", text, 404),
            ("DELETE", "/prompts/1", None, {}, 404),
            ("DELETE", "/prompts/x", None, {}, 404),
        ):
            with self.subTest(data=data and data[:20], headers=headers):
                answer = server.request(method, path, data, headers)
                self.assertEqual(answer[0], status, answer)
                self.assertTrue(answer[1]["error"])
        for field in ({"image": "/etc/passwd"}, {"steps": "4"}, {"steps": 10**9}, {"seed": [1]}):
            with self.subTest(field=field):
                self.assertEqual(server.post({"prompt": "x", **field})[0], 400)
        self.assertEqual(server.queue()["prompts"], [])

    def test_cancel_and_limits(self):
        server = self.start("--max-queue=2", "--steps=1000")
        ids = [server.post({"prompt": "a red circle", "steps": 900})[1]["id"]]
        server.wait_until(lambda queue: queue["prompts"][0]["state"] == "started")
        ids += [server.post({"prompt": "a blue star", "priority": i})[1]["id"] for i in range(2)]
        self.assertEqual(server.post({"prompt": "one too many"})[0], 503)
        for number in ids[1], ids[0]:
            self.assertEqual(server.request("DELETE", f"/prompts/{number}"), (204, None))
            self.assertEqual(server.request("DELETE", f"/prompts/{number}")[0], 404)
        queue = server.wait_until(lambda queue: queue["prompts"][2]["state"] == "started")
        self.assertEqual(
            [item["state"] for item in queue["prompts"]], ["cancelled", "cancelled", "started"]
        )
        statuses = [server.post({"prompt": ""})[0] for _ in range(40)]
        self.assertIn(429, statuses)
        self.assert_ends_well(server)

    def test_connections_that_say_nothing(self):
        server = self.start()
        port = int(server.http.rpartition(":")[2])
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
        for i, connection in enumerate(idle):
            self.addCleanup(connection.close)
            connection.sendall(b"POST /prompts HTTP/1.1\r\nContent-Length: 100\r\n"[: 10 * i])
        self.assertEqual(server.queue()["prompts"], [])
        # The 33rd and later are closed, the others are not.
        idle += [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
        for connection in idle[10:]:
            self.addCleanup(connection.close)
            connection.settimeout(1)
        self.assertEqual(idle[-1].recv(1), b"")
        with self.assertRaises(TimeoutError):
            idle[10].recv(1)
        for connection in idle[5:]:
            connection.close()
        self.assertEqual(server.queue()["prompts"], [])
        self.assert_ends_well(server)


class Clip(RtspTest):
    @staticmethod
    def path_of(colour, extra=""):
        return "clip?prompt=" + rtsp.PROMPT.format(colour).replace(" ", "%20") + extra

    def test_clip_by_url(self):
        log = self.path("server.log")
        server = self.start(
            "--max-clips=2", env={"GST_DEBUG": "opensorartsp:4", "GST_DEBUG_FILE": log}
        )
        first = self.view(rtsp.ffmpeg(server.url(self.path_of("red", "&seed=7")), "tcp"))
        self.assert_shows(first, "red")
        self.assertTrue(rtsp.is_colour(first.frames[0], "black"), "the slate comes first")
        # The same by another URL: no second generation; then another, and one too many
        same = self.path_of("red", "&seed=07").replace("%20", "+")
        vp8 = server.url(same.replace("clip", "clip-vp8"))
        self.assert_shows(self.view(rtsp.rtspsrc(vp8, "udp")), "red")
        self.assertEqual(server.queue()["clips"], 1)
        with open(log) as file:
            self.assertEqual(len(re.findall(r'" *, seed 7 starts', file.read())), 1)
        other = self.view(rtsp.ffmpeg(server.url(self.path_of("green")), "udp"))
        self.assert_shows(other, "green")
        self.assertEqual(server.queue()["clips"], 2)
        with rtsp.Client(server) as client:
            path = self.path_of("blue")
            self.assertEqual(client.ask("DESCRIBE", path), 503)
            other.stop()
            server.wait_until(lambda queue: queue["clips"] == 1)
            self.assertEqual(client.play(path, path.replace("?", "/stream=0?")), OK)
            self.assertEqual(client.ask("DESCRIBE", self.path_of("green")), 455)
        # They go with who watches.
        first.stop()
        self.assert_ends_well(server)

    def test_end_after_clip(self):
        server = self.start("--after-clip=end")
        viewer = self.view(rtsp.ffmpeg(server.url(self.path_of("blue")), "tcp"))
        self.assertIsNotNone(viewer.end())
        shown = [frame for frame in viewer.frames if rtsp.is_colour(frame, "blue")]
        self.assertGreater(len(shown), 4)
        self.assertLessEqual(len(shown), 10)
        self.assertEqual(server.wait_until(lambda queue: queue["clips"] == 0)["clips"], 0)
        self.assert_ends_well(server)

    def test_refusals(self):
        server = self.start("--max-prompt=50")
        with rtsp.Client(server) as client:
            for query in (
                "",
                "?",
                "?prompt=",
                "?prompt=%20",
                "?prompt=%ff",
                "?prompt=%00",
                "?prompt=a%07",
                "?prompt=%zz",
                "?prompt=a&prompt=b",
                "?prompt=a&seed=x",
                "?prompt=a&seed=-1",
                "?prompt=a&seed=9223372036854775808",
                "?prompt=a&location=/etc/passwd",
                "?prompt=" + "x" * 51,
            ):
                with self.subTest(query=query):
                    self.assertEqual(client.ask("DESCRIBE", "clip" + query), 400)
            self.assertEqual(client.ask("DESCRIBE", "nothing"), 404)
            self.assertEqual(client.ask("DESCRIBE", "live/x"), 404)
        self.assertEqual(server.queue()["clips"], 0)
        self.assert_serves(server)


class Churn(RtspTest):
    CYCLES = int(os.environ.get("OPENSORA_TEST_CYCLES", "50"))
    CLIENTS = 20

    def cycle(self, server, i):
        """One client: it leaves politely, or hangs up at some moment."""
        path = "live" if i % 3 else "live-vp8"
        with rtsp.Client(server) as client:
            if i % 5 == 4:
                client.ask("DESCRIBE", path)
                return
            self.assertEqual(client.play(path), OK)
            client.read_packets(4)
            if i % 2:
                self.assertEqual(client.ask("TEARDOWN", path), 200)

    def test_clients_come_and_go(self):
        """Nothing stays behind of them, and generation goes on."""
        server = self.start("a red circle")
        for i in range(10):
            self.cycle(server, i)
        server.wait_until(lambda queue: queue["clients"] == 0 and queue["on-air"])
        files, threads, memory = server.count("fd"), server.count("task"), server.resident()
        for i in range(self.CYCLES):
            self.cycle(server, i)
        server.wait_until(lambda queue: queue["clients"] == 0)
        time.sleep(1)
        print(f"# memory {memory} -> {server.resident()} KiB, files {files} -> "
              f"{server.count('fd')}, threads {threads} -> {server.count('task')}")
        self.assertLessEqual(server.count("fd"), files + 4)
        self.assertLessEqual(server.count("task"), threads + 4)
        self.assertLess(server.resident() - memory, 12 * 1024)
        self.assertEqual(server.queue()["on-air"]["id"], 1)
        self.assertEqual(server.post({"prompt": "a blue star"})[0], 202)
        server.wait_until(lambda queue: queue["on-air"]["id"] == 2)
        self.assert_ends_well(server)

    def test_many_at_once(self):
        server = self.start("--max-clients=22")
        clients = [rtsp.Client(server) for _ in range(self.CLIENTS)]
        for client in clients:
            self.addCleanup(client.close)
        failures = []

        def watch(client):
            statuses = client.play("live")
            if statuses != OK:
                failures.append(statuses)
            client.read_packets(20)

        threads = [threading.Thread(target=watch, args=[client]) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(rtsp.SLOW)
        self.assertFalse(any(thread.is_alive() for thread in threads))
        self.assertEqual(failures, [])
        self.assertEqual(server.queue()["clients"], self.CLIENTS)
        # The limit: two more find a place, the next does not, and is told so by a closed connection.
        more = [rtsp.Client(server) for _ in range(3)]
        for client in more:
            self.addCleanup(client.close)
        self.assertEqual([client.ask("OPTIONS", "live") for client in more[:2]], [200, 200])
        try:
            self.assertIsNone(more[2].ask("OPTIONS", "live"))
        except (BrokenPipeError, ConnectionResetError):
            pass
        for client in clients + more:
            client.close()
        self.assertEqual(server.wait_until(lambda queue: queue["clients"] == 0)["clients"], 0)
        self.assert_ends_well(server)

    def test_client_that_does_not_read(self):
        """The others get their frames, while more is sent than fits into anybody's buffers."""
        made = self.launch(
            "videotestsrc num-buffers=1 pattern=snow ! video/x-raw,width=256,height=256 ! pngenc !"
            " filesink location=snow.png"
        )
        self.assert_ran(made)
        server = self.start(
            "--slate=" + self.path("snow.png"), "--width=256", "--height=256", "--fps=30",
            "--bitrate=100000",
        )
        with rtsp.Client(server) as stalled, rtsp.Client(server) as reader:
            self.assertEqual(stalled.play("live"), OK)
            self.assertEqual(reader.play("live"), OK)
            received, asked, gap = 0, 0, 0
            last = time.monotonic()
            end = last + 20
            play = f"PLAY {server.url('live')} RTSP/1.0\r\nCSeq: 9\r\nSession: {stalled.session}\r\n\r\n"
            while received < 15e6 and last < end:
                if last > asked + 0.03:  # a key frame: much data
                    stalled.send(play.encode())
                    asked = last
                received += reader.read_packet()
                gap = max(gap, time.monotonic() - last)
                last = time.monotonic()
            print(f"# {received} bytes, longest gap {gap:.3f} s")
            self.assertGreater(received, 5e6)
            self.assertLess(gap, 3)
            self.assertLess(server.resident(), 300 * 1024)
        self.assert_ends_well(server)

    def test_nothing_leaks(self):
        server = self.start(
            "--max-clips=3",
            "a red circle",
            env={
                "GST_TRACERS": "leaks",
                "GST_DEBUG": "GST_TRACER:7",
                "GST_DEBUG_NO_COLOR": "1",
                "GST_DEBUG_FILE": self.path("leaks.log"),
            },
        )
        for i in range(6):
            self.cycle(server, i)
        with rtsp.Client(server) as client:
            self.assertEqual(client.play("clip?prompt=a"), OK)
            client.read_packets(3)
        with rtsp.Client(server) as client:  # SETUP alone: refused by the factory
            transport = "Transport: RTP/AVP/TCP;interleaved=0-1"
            self.assertIn(client.ask("SETUP", "clip/stream=0?prompt=%ff", transport), (400, 404))
            self.assertEqual(client.ask("SETUP", "clip/stream=0?prompt=c", transport), 200)
        left = rtsp.Client(server)
        self.addCleanup(left.close)
        self.assertEqual(left.play("clip-vp8?prompt=b"), OK)
        self.assert_ends_well(server)
        with open(self.path("leaks.log")) as file:
            log = file.read()
        self.assertIn("object-alive", log)
        self.assertNotIn("object-alive, type-name=(string)Gst", log)


class Hostile(RtspTest):
    def test_malformed_requests(self):
        server = self.start("a red circle")
        rng = random.Random(5)
        url = server.url("live").encode()
        requests = [
            b"\r\n" * 1000,
            b"\0" * 1000,
            b"DESCRIBE " + url + b" RTSP/9.9\r\nCSeq: 1\r\n\r\n",
            b"DESCRIBE " + b"x" * 100000 + b" RTSP/1.0\r\nCSeq: 1\r\n\r\n",
            b"DESCRIBE " + url + b" RTSP/1.0\r\nX: " + b"y" * 1000000 + b"\r\n\r\n",
            b"DESCRIBE " + url + b" RTSP/1.0\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
            b"DESCRIBE " + url + b" RTSP/1.0\r\nCSeq: 1\r\nContent-Length: 99999999999\r\n\r\n",
            b"DESCRIBE " + url + b" RTSP/1.0\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n",
            b"SETUP " + url + b"/stream=99999999999 RTSP/1.0\r\nCSeq: 1\r\n\r\n",
            b"SETUP " + url + b"/stream=0 RTSP/1.0\r\nCSeq: 1\r\nTransport: " + b";" * 5000 + b"\r\n\r\n",
            b"PLAY " + url + b" RTSP/1.0\r\nCSeq: 1\r\nSession: nobody\r\n\r\n",
            b"TEARDOWN * RTSP/1.0\r\nCSeq: 1\r\n\r\n",
            b"ANNOUNCE " + url + b" RTSP/1.0\r\nCSeq: 1\r\nContent-Type: application/sdp\r\n"
            b"Content-Length: 5\r\n\r\nv=0\r\n",
            b"GET /live HTTP/1.0\r\nx-sessioncookie: a\r\n\r\n",
            b"$\x00\xff\xff" + b"z" * 100,
            b"DESCRIBE " + url,
        ]
        url = server.url("clip/stream=0?prompt=%41&seed=1").encode()
        transport = b"Transport: RTP/AVP/TCP;interleaved=0-1\r\n"
        valid = [
            b"DESCRIBE " + url + b" RTSP/1.0\r\nCSeq: 1\r\n\r\n",
            b"SETUP " + url + b" RTSP/1.0\r\nCSeq: 1\r\n" + transport + b"\r\n",
        ]
        for i in range(60):
            mutated = bytearray(valid[i % 2])
            for _ in range(rng.randint(1, 8)):
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
            requests.append(bytes(mutated[: rng.randint(1, len(mutated))]))
        for request in requests:
            with rtsp.Client(server) as client:
                client.socket.settimeout(0.1)
                try:
                    client.send(request)
                    client.read_answer()
                except (OSError, ValueError, IndexError):
                    pass
        self.assert_serves(server)
        self.assertEqual(server.queue()["on-air"]["id"], 1)
        self.assert_ends_well(server)

    def test_half_requests_stand_in_nobodys_way(self):
        server = self.start()
        halves = [rtsp.Client(server) for _ in range(10)]
        for client in halves:
            self.addCleanup(client.close)
            client.send(b"DESCRIBE rtsp://127.0.0.1/live RTSP/1.0\r\nCSeq")
        self.assert_serves(server)
        self.assert_ends_well(server)


def digest_handler(url, password):
    manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    manager.add_password(None, url, "ann", password)
    return urllib.request.HTTPDigestAuthHandler(manager)


class Users(RtspTest):
    def check(self, server):
        with rtsp.Client(server) as client:
            for path in ("live", "clip?prompt=x"):
                self.assertEqual(client.ask("DESCRIBE", path), 401)
                basic = "Authorization: Basic YW5uOnNlY3JldDp3b3Jk"
                self.assertEqual(client.ask("DESCRIBE", path, basic), 401, "only with TLS")
        self.assert_shows(
            self.view(rtsp.ffmpeg(server.url("live", "ann:secret%3Aword@"), "tcp")), "black"
        )
        wrong = self.view(rtsp.ffmpeg(server.url("live", "ann:wrong@"), "tcp"))
        self.assertNotEqual(wrong.end(), 0)
        self.assertEqual(wrong.frames, [])
        self.assertEqual(server.request("GET", "/queue")[0], 401)
        for password, status in ("secret:word", 200), ("wrong", 401):
            opener = urllib.request.build_opener(digest_handler(server.http, password))
            self.assertEqual(server.request("GET", "/queue", opener=opener)[0], status)
        self.assert_ends_well(server)

    def test_from_the_environment(self):
        self.check(self.start(env={"OPENSORA_RTSP_USER": "ann:secret:word"}))

    def test_from_a_file(self):
        self.write("users", "# people\nbob:x\nann:secret:word\n")
        self.check(self.start("--users=" + self.path("users")))

    def test_from_htdigest(self):
        md5 = hashlib.md5(b"ann:opensora:secret:word").hexdigest()
        self.write("users", f"ann:opensora:{md5}\n")
        self.check(self.start("--htdigest=" + self.path("users")))


class Tls(RtspTest):
    @unittest.skipUnless(support.has_programs("openssl"), "no openssl")
    def test_tls(self):
        certificate, key = self.path("certificate.pem"), self.path("key.pem")
        made = support.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
            + ["-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
            + ["-days", "2", "-keyout", key, "-out", certificate]
        )
        self.assertEqual(made.status, 0, made)
        server = self.start(
            f"--certificate={certificate}", f"--key={key}", "--user=ann:word",
            rtsp.PROMPT.format("red"),
        )
        context = ssl.create_default_context(cafile=certificate)
        with rtsp.Client(server, context) as client:
            self.assertEqual(client.ask("DESCRIBE", "live"), 401)
            basic = "Authorization: Basic YW5uOndvcmQ="
            self.assertEqual(client.ask("DESCRIBE", "live", basic), 200)
            udp = "Transport: RTP/AVP;unicast;client_port=5000-5001"
            self.assertEqual(client.ask("SETUP", "live/stream=0", basic, udp), 461, "in the clear")
        viewer = rtsp.rtspsrc(
            server.url("live-vp8"), "tcp", "tls-validation-flags=0", "user-id=ann", "user-pw=word"
        )
        self.assert_shows(self.view(viewer), "red")
        local = server.http.replace("127.0.0.1", "localhost")
        https = urllib.request.HTTPSHandler(context=context)
        with urllib.request.build_opener(https, digest_handler(local, "word")).open(
            local + "/queue", timeout=rtsp.SLOW
        ) as answer:
            self.assertEqual(answer.status, 200)
        with rtsp.Client(server) as client:  # not TLS
            client.socket.settimeout(2)
            client.send(b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n")
        self.assert_ends_well(server)


class Options(support.PipelineTest):
    def refuse(self, status, text, *options, **kwargs):
        result = support.run([rtsp.server_program(), *options], cwd=self.dir, timeout=60, **kwargs)
        self.assertEqual(result.status, status, result)
        self.assertIn(text, result.err)
        self.assertNotIn("CRITICAL", result.err)

    def test_help(self):
        result = support.run([rtsp.server_program(), "--help"])
        self.assertEqual(result.status, 0, result)
        for text in ("--port", "/live", "/clip?prompt=", "POST /prompts"):
            self.assertIn(text, result.out)

    def test_usage(self):
        for option, text in (
            ("--port=70000", "--port=70000"),
            ("--width=100", "multiples of 16"),
            ("--fps=x", "--fps=x"),
            ("--after-clip=x", "--after-clip=x"),
            ("--certificate=x", "--key"),
            ("--seed=-2", "--seed"),
            ("--steps=-1", "--steps"),
            ("--nothing", "--nothing"),
            ("--model=/nothing", "/nothing"),
        ):
            with self.subTest(option=option):
                self.refuse(2, text, option)

    def test_refusals(self):
        self.write("users", "ann\n")
        self.write("realm", "ann:elsewhere:" + "0" * 32 + "\n")
        self.write("empty", "")
        for options, text in (
            (["--users=users"], "users, line 1: not NAME:PASSWORD"),
            (["--users=empty"], "no user"),
            (["--users=nothing"], "nothing"),
            (["--htdigest=realm"], 'realm has to be "opensora"'),
            (["--certificate=users", "--key=users"], "users"),
            (["--prompts=nothing"], "nothing"),
            (["--repeat=x"], "--repeat=x"),
            (["--slate=nothing.png"], "nothing.png"),
            (["--http-address=0.0.0.0"], "--users"),
            (["--http-address=x"], "--http-address=x"),
            (["--address=192.0.2.1"], "192.0.2.1"),
        ):
            with self.subTest(options=options):
                self.refuse(1, text, "--port=0", "--http-port=0", *rtsp.SMALL, *options)

    def test_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            self.refuse(1, str(port), f"--port={port}", "--http-port=0")
            self.refuse(1, str(port), "--port=0", f"--http-port={port}")


if __name__ == "__main__":
    support.main()
