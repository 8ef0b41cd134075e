# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the tests of whole pipelines share: running gst-launch-1.0 as a user would, looking
into the files it wrote, and TAP output. Python's standard library only."""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

# Far more than any pipeline here takes; a run that reaches it hangs.
TIMEOUT = 240


class Result:
    """One run of a program: status (negative: the signal that killed it), out, err."""

    def __init__(self, status, out, err, seconds):
        self.status = status
        self.out = out.decode(errors="replace")
        self.err = err.decode(errors="replace")
        self.seconds = seconds

    def __str__(self):
        return f"status {self.status} after {self.seconds:.1f} s\n{self.out}\n{self.err}"


def run(command, cwd=None, env=None, stdin=None, timeout=TIMEOUT, memory=None):
    """Runs a program to its end. command: list of str or bytes, or a line for bash. memory: the
    most address space that it may have, in bytes."""
    start = time.monotonic()
    shell = isinstance(command, str)
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command] if shell else command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        timeout=timeout,
        preexec_fn=memory and (lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory))),
        check=False,
    )
    return Result(process.returncode, process.stdout, process.stderr, time.monotonic() - start)


def launch(description, **kwargs):
    """gst-launch-1.0 with a description: a string, split at spaces, or a list."""
    parts = description.split() if isinstance(description, str) else description
    return run(["gst-launch-1.0", *parts], **kwargs)


class Launched:
    """A program like gst-launch-1.0 that goes on in the background, with its output in a file."""

    def __init__(
        self, description, cwd, options=(), env=None, program="gst-launch-1.0", stdin=None
    ):
        self.log_path = os.path.join(cwd, "launched.log")
        self.start = time.monotonic()
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [program, *options, *description],
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self):
        with open(self.log_path, errors="replace") as log:
            return log.read()

    def wait_for(self, text, seconds=60):
        """Until the output has text in it; False if it ends or takes too long before."""
        end = time.monotonic() + seconds
        while text not in self.log:
            if self.process.poll() is not None or time.monotonic() > end:
                return text in self.log
            time.sleep(0.05)
        return True

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds):
        """Seconds until the end; None if it was still running and had to be killed."""
        start = time.monotonic()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        return time.monotonic() - start

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def probe(path):
    """What ffprobe finds: the first video stream's fields, with the frames counted, and
    "tags" of file and stream in one, keys in lower case."""
    result = run(
        ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_streams"]
        + ["-show_format", "-of", "json", path]
    )
    if result.status != 0:
        raise AssertionError(f"{path} cannot be read: {result.err}")
    found = json.loads(result.out)
    if not found.get("streams"):
        raise AssertionError(f"{path} has no video in it")
    stream = found["streams"][0]
    tags = {**stream.get("tags", {}), **found["format"].get("tags", {})}
    stream["tags"] = {key.lower(): value for key, value in tags.items()}
    stream["frames"] = int(stream.get("nb_read_frames", 0))
    return stream


def read_raw(path, width, height):
    """The frames of a file of raw RGB, as bytes each."""
    with open(path, "rb") as file:
        data = file.read()
    size = width * height * 3
    return [data[i : i + size] for i in range(0, len(data), size)]


def model_dir():
    """The folder of the model that the tests use."""
    return os.environ["OPENSORA_MODEL"]


def source_root():
    return os.environ["OPENSORA_SOURCE_ROOT"]


def model_config():
    with open(os.path.join(model_dir(), "config.json")) as file:
        return json.load(file)


def has_elements(*names):
    return all(run(["gst-inspect-1.0", "--exists", name]).status == 0 for name in names)


def has_programs(*names):
    return all(shutil.which(name) for name in names)


class PipelineTest(unittest.TestCase):
    """A test with a folder of its own for what its pipelines write."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="opensora-test-")
        self.addCleanup(shutil.rmtree, self.dir)

    def path(self, name):
        return os.path.join(self.dir, name)

    def write(self, name, data):
        with open(self.path(name), "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def launch(self, description, **kwargs):
        return launch(description, cwd=self.dir, **kwargs)

    def launch_refused(self, description):
        """gst-launch-1.0 with what ends in an error soon. That of 1.22 stays when the error comes
        in its first moments, whoever posts it: "fakesrc ! identity error-after=1 ! fakesink"
        hangs once in forty runs. So it gets a few tries."""
        for _ in range(3):
            try:
                return self.launch(description, timeout=20)
            except subprocess.TimeoutExpired:
                continue
        return self.launch(description, timeout=60)

    def assert_ran(self, result):
        self.assertEqual(result.status, 0, str(result))
        self.assertNotIn("CRITICAL", result.err)

    def assert_refused(self, result, *texts):
        """An error in words, not a crash; texts are in the message."""
        self.assertGreater(result.status, 0, f"not refused or crashed: {result}")
        self.assertIn("ERROR", result.out + result.err)
        self.assertNotIn("CRITICAL", result.err)
        for text in texts:
            self.assertIn(text, result.out + result.err)


class TapResult(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.failed = False

    def report(self, ok, test, directive="", details=""):
        name = test.id().removeprefix("__main__.")
        print(f"{'ok' if ok else 'not ok'} {self.testsRun} - {name}{directive}")
        for line in details.splitlines():
            print(f"# {line}")
        sys.stdout.flush()
        self.failed |= not ok

    def addSuccess(self, test):
        self.report(True, test)

    def addFailure(self, test, err):
        self.report(False, test, details=self._exc_info_to_string(err, test))

    addError = addFailure

    def addSkip(self, test, reason):
        self.report(True, test, directive=f" # SKIP {reason}")


def main():
    """Runs the tests of the calling script."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"])
    print(f"1..{suite.countTestCases()}")
    result = TapResult()
    suite.run(result)
    sys.exit(1 if result.failed else 0)
