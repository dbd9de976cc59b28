"""Row overload: twice what a server can do is offered for a while."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Collection, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.house import Bench, allowed_so_far
from benchmarks.load import Load, Shape
from benchmarks.machine import resident_bytes
from benchmarks.measure import VERIFY_PATH
from benchmarks.report import Figure
from tests.support.server import ServerProcess

_TRANSPORTS = ("native", "grpcio")
_PROCESSES = 4
_CAPACITY = Shape(_PROCESSES, 16)
_STREAMS = 1_000
_WARM_SECONDS = 3.0
_GROWTH_BYTES = 64 * 1024 * 1024


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Goodput against capacity, latency, memory, and what health says."""
    figures: list[Figure] = []
    for transport in _TRANSPORTS:
        with bench.warm_server(transport) as server:
            figures.extend(_overload(bench, server, transport))
    return figures


def _overload(bench: Bench, server: ServerProcess, transport: str) -> Sequence[Figure]:
    seconds = bench.options.overload_seconds
    bench.progress(f"what {transport} can do")
    before_rates = [_goodput(bench, server, bench.options.seconds, _CAPACITY)[0] for _ in range(3)]
    _goodput(bench, server, _WARM_SECONDS, Shape(_PROCESSES, _STREAMS, 2 * before_rates[-1]))
    before = resident_bytes(server.pid)
    watch = _HealthWatch(server.verify_address)
    bench.progress(f"twice that for {seconds:.0f} s")
    goodput, p99 = _goodput(bench, server, seconds, Shape(_PROCESSES, _STREAMS, 2 * statistics.median(before_rates)))
    serving, asked = watch.stop()
    grown = resident_bytes(server.pid) - before
    # The machine may be busier or less so than before.
    after_rates = [_goodput(bench, server, bench.options.seconds, _CAPACITY)[0] for _ in range(3)]
    capacity = statistics.median(before_rates + after_rates)
    ratio = goodput / capacity
    beside = f"{goodput:,.0f} of {capacity:,.0f} a second; p99 of all answers {p99 * 1e3:.0f} ms; wall clock"
    return [
        Figure("overload", f"goodput on {transport} in capacity", ratio, "", "at least 0.80", ratio >= 0.80, beside),
        Figure("overload", f"memory grown on {transport}", grown / 1e6, "MB", "flat", grown <= _GROWTH_BYTES),
        Figure("overload", f"health checks SERVING on {transport}", serving / asked, "", "1", serving == asked),
    ]


def _goodput(bench: Bench, server: ServerProcess, seconds: float, shape: Shape) -> tuple[float, float]:
    """Keys allowed a second, by the server's own count, and the p99 of all calls' latencies."""
    before = allowed_so_far(server)
    with Load(server.verify_address, VERIFY_PATH, bench.hot_bodies, seconds, shape, with_calls=True) as load:
        calls = load.outcome().calls
    p99 = statistics.quantiles([call.took for call in calls], n=100, method="inclusive")[98]
    return (allowed_so_far(server) - before) / seconds, p99


class _HealthWatch:
    """Asks for the server's health a few times a second, in a thread."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ended = threading.Event()
        self._serving = self._asked = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[int, int]:
        """How often it was SERVING, and how often it was asked."""
        self._ended.set()
        self._thread.join()
        return self._serving, max(1, self._asked)

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            while not self._ended.is_set():
                self._asked += 1
                try:
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
                    self._serving += answer.status == health_pb2.HealthCheckResponse.SERVING
                except grpc.RpcError:
                    pass
                time.sleep(0.3)
