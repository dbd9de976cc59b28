"""Row latency: of Verify against offered load, on both transports; only reported, and drawn."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

from benchmarks.house import Bench, allowed_so_far
from benchmarks.load import Load, Shape
from benchmarks.measure import VERIFY_PATH
from benchmarks.report import Figure

_TRANSPORTS = ("native", "grpcio")
_SHARES = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.2)
_PROCESSES = 4
_STREAMS = 1_000


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Find what each transport can do, then offer shares of it."""
    figures = []
    curves: dict[str, list[tuple[float, float, float]]] = {}
    for transport in _TRANSPORTS:
        with bench.warm_server(transport) as server:
            seconds = bench.options.seconds
            before = allowed_so_far(server)
            with Load(server.verify_address, VERIFY_PATH, bench.hot_bodies, seconds, Shape(_PROCESSES, 16)) as load:
                load.outcome()
            capacity = (allowed_so_far(server) - before) / seconds
            points = curves[transport] = []
            for share in _SHARES:
                bench.progress(f"{transport} at {share:.0%} of {capacity:,.0f} calls a second")
                shape = Shape(_PROCESSES, _STREAMS, share * capacity)
                with Load(
                    server.verify_address, VERIFY_PATH, bench.hot_bodies, seconds, shape, with_calls=True
                ) as load:
                    took = [1_000 * call.took for call in load.outcome().calls]
                p99 = statistics.quantiles(took, n=100, method="inclusive")[98]
                points.append((share * capacity, statistics.median(took), p99))
        half = points[_SHARES.index(0.5)]
        what = f"median on {transport} at half of what it can do"
        figures.append(Figure("latency", what, half[1], "ms", beside=f"p99 {half[2]:.1f} ms; wall clock"))
    bench.points["latency"] = curves
    return figures
