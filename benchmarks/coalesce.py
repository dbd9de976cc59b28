"""Row coalesce: 64 callers of an AsyncClient, each call on its own against calls that travel together.

The clients' processes are what is measured: in one, `verify` is a call; in the other, all that are made in one turn of
the event loop are one. The server is the same, and so are the questions.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.house import ADDRESS, PERMISSIONS, Bench
from benchmarks.machine import cpu_seconds
from benchmarks.measure import WrongAnswers
from benchmarks.report import Figure
from latchgate import AsyncClient

CALLERS = 64
_REACH = 4.0
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class _Slice:
    """Decisions a second, and CPU seconds of client and server for each of them."""

    rate: float
    client: float
    server: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} a second here, {self.client * 1e6:.0f} + {self.server * 1e6:.0f} µs CPU a decision"


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """The rate of both kinds of calls, in turn, by the wall clock, and what a decision costs client and server."""
    keys = [credential.key_string for credential in bench.hot]
    single: list[_Slice] = []
    together: list[_Slice] = []
    with bench.warm_server("native") as server:
        for number in range(bench.options.rounds):
            for slices, coalesce in ((single, False), (together, True)):
                bench.progress(f"coalesce={coalesce}, {number + 1} of {bench.options.rounds}")
                before = cpu_seconds([server.pid])
                asked, seconds, spent = _client(server.verify_address, keys, coalesce, bench.options.seconds)
                slices.append(_Slice(asked / seconds, spent / asked, (cpu_seconds([server.pid]) - before) / asked))
    one, many = _median(single), _median(together)
    ratio = many.rate / one.rate
    what = f"rate of {CALLERS} callers together in that of single calls"
    beside = f"together {many}; single {one}"
    return [Figure("coalesce", what, ratio, "", "at least 4", ratio >= _REACH, beside)]


def _median(slices: Sequence[_Slice]) -> _Slice:
    return _Slice(
        statistics.median(one.rate for one in slices),
        statistics.median(one.client for one in slices),
        statistics.median(one.server for one in slices),
    )


def _client(address: str, keys: Sequence[str], coalesce: bool, seconds: float) -> tuple[int, float, float]:
    """Decisions, seconds and CPU seconds of a client in a process of its own."""
    command = [sys.executable, "-m", __name__, address, str(int(coalesce)), str(seconds)]
    done = subprocess.run(command, input=json.dumps(keys), cwd=_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise WrongAnswers(done.stderr)
    asked, took, spent = json.loads(done.stdout)
    return asked, took, spent


async def _ask(address: str, keys: Sequence[str], coalesce: bool, seconds: float) -> tuple[int, float, float]:
    asked = 0

    async def caller(number: int) -> None:
        nonlocal asked
        while time.monotonic() < until:
            number = (number + CALLERS) % len(keys)
            answer = await client.verify(keys[number], requires=PERMISSIONS, client_ip=ADDRESS)
            if not answer.allowed:
                raise WrongAnswers(f"a hot key was not allowed: {answer}")
            asked += 1

    async with AsyncClient(address, coalesce=coalesce, timeout=30) as client:
        await client.verify(keys[0], requires=PERMISSIONS, client_ip=ADDRESS)
        began, spent = time.monotonic(), time.process_time()
        until = began + seconds
        await asyncio.gather(*map(caller, range(CALLERS)))
        return asked, time.monotonic() - began, time.process_time() - spent


if __name__ == "__main__":
    _address, _coalesce, _seconds = sys.argv[1:]
    told = asyncio.run(_ask(_address, json.load(sys.stdin), _coalesce == "1", float(_seconds)))
    print(json.dumps(told))  # noqa: T201 - it reports to the process that measures
