"""Load from h2load (nghttp2): gRPC calls whose messages change while it runs.

h2load posts one file again and again, and reads it anew for each request. So several h2load processes each get a file,
and a thread here writes another message of the same length into each of them every millisecond.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from google.protobuf.message import Message

_MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - each run makes a folder of its own in it
_HOW_TO_GET_IT = "h2load is missing: apt-get install nghttp2-client, dnf install nghttp2, or brew install nghttp2"
_DONE = re.compile(r"requests: \d+ total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored")


class H2loadMissing(Exception):
    """h2load is not installed, or does not say what it did; the message says what to do."""


def find_h2load() -> str:
    """The program that makes the load. Raises H2loadMissing."""
    h2load = shutil.which("h2load")
    if h2load is None:
        raise H2loadMissing(_HOW_TO_GET_IT)
    return h2load


def framed(message: Message) -> bytes:
    """A message as gRPC carries it: no compression, its length, itself."""
    body = message.SerializeToString()
    return b"\0" + len(body).to_bytes(4) + body


@dataclass(frozen=True, slots=True)
class Shape:
    """How a load is offered.

    processes: h2load processes, each with one connection. streams: calls in flight on each. rate: calls a second of all
    processes together, None for as many as are answered. headers: of each call, in place of those of gRPC. switch: how
    often each process gets another message, in seconds; it costs this process a little every time.
    """

    processes: int = 8
    streams: int = 8
    rate: float | None = None
    switch: float = 0.001
    headers: Sequence[str] = ("content-type: application/grpc", "te: trailers")


@dataclass(frozen=True, slots=True)
class Call:
    """One of the calls of a load: when it began, as Unix time, and how long it took, in seconds."""

    began: float
    took: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """done: calls with an answer, whatever gRPC's status. failed: those without. calls: where they were asked for."""

    done: int
    failed: int
    seconds: float
    calls: Sequence[Call]

    @property
    def rate(self) -> float:
        """Answered calls a second."""
        return self.done / self.seconds


class Load:
    """A load under way; `outcome` waits for its end. Use as a context, which ends it."""

    def __init__(
        self,
        address: str,
        path: str,
        bodies: Sequence[bytes],
        seconds: float,
        shape: Shape,
        *,
        with_calls: bool = False,
    ) -> None:
        """path: of the RPC. bodies: framed messages, of one length. with_calls: keep each call's latency."""
        self._url = f"http://{address}{path}"
        self._bodies = bodies
        self._seconds = seconds
        self._shape = shape
        self._with_calls = with_calls
        self._stack = ExitStack()
        self._processes: list[subprocess.Popen[str]] = []
        self._ended = threading.Event()

    def __enter__(self) -> Load:
        if len({len(body) for body in self._bodies}) != 1:
            raise ValueError("the messages of one load have one length")
        h2load = find_h2load()
        parent = _MEMORY_FOLDER if _MEMORY_FOLDER.is_dir() else None
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="latchgate-", dir=parent)))
        self._stack.callback(self._end)
        files = [self._body_file(number) for number in range(self._shape.processes)]
        if len(self._bodies) > 1:
            switching = threading.Thread(target=self._switch, args=(files,), daemon=True)
            switching.start()
            self._stack.callback(switching.join)
        self._stack.callback(self._ended.set)
        for number in range(self._shape.processes):
            self._processes.append(self._start(h2load, number))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def calls_so_far(self) -> Sequence[Call]:
        """The calls that were answered so far, where they are kept."""
        return [call for number in range(self._shape.processes) for call in _calls(self._log(number))]

    def outcome(self) -> Outcome:
        """Wait for the end, and tell what came of it. Raises H2loadMissing."""
        done = failed = 0
        for process in self._processes:
            text, errors = process.communicate(timeout=self._seconds + 60)
            found = _DONE.search(text)
            if process.returncode != 0 or found is None:
                raise H2loadMissing(f"h2load (nghttp2 1.40 or newer is needed) ended with:\n{text}{errors}")
            done += int(found[1]) - int(found[3])
            failed += int(found[3])
        return Outcome(done, failed, self._seconds, self.calls_so_far() if self._with_calls else ())

    def _start(self, h2load: str, number: int) -> subprocess.Popen[str]:
        options = ["-D", f"{round(self._seconds * 1_000)}ms", "-c1", "-t1", f"-m{self._shape.streams}"]
        if self._shape.rate is not None:
            options.append(f"--rps={max(1, round(self._shape.rate / self._shape.processes))}")
        if self._with_calls:
            options.append(f"--log-file={self._log(number)}")
        for header in self._shape.headers:
            options += ["-H", header]
        options += ["-d", str(self._body(number))]
        return subprocess.Popen(
            [h2load, *options, self._url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def _body(self, number: int) -> Path:
        return self._folder / f"body-{number}"

    def _log(self, number: int) -> Path:
        return self._folder / f"log-{number}"

    def _body_file(self, number: int) -> int:
        self._body(number).write_bytes(self._bodies[number % len(self._bodies)])
        descriptor = os.open(self._body(number), os.O_WRONLY)
        self._stack.callback(os.close, descriptor)
        return descriptor

    def _switch(self, files: Sequence[int]) -> None:
        # A step that shares no factor with how many there are, and so comes past all of them.
        places = itertools.count(len(files), 7_919)
        while not self._ended.wait(self._shape.switch):
            for file in files:
                os.pwrite(file, self._bodies[next(places) % len(self._bodies)], 0)

    def _end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
            process.communicate()


def _calls(log: Path) -> list[Call]:
    """h2load's log: when each call began, its HTTP status, how long it took, all times in microseconds."""
    calls = []
    for line in log.read_text(encoding="ascii").splitlines():
        fields = line.split("\t")
        # The last line may be under way.
        if len(fields) == 3 and fields[1] == "200" and fields[2]:
            calls.append(Call(int(fields[0]) / 1e6, int(fields[2]) / 1e6))
    return calls
