"""Row workers: two worker processes against one, and the load from elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack

from benchmarks.house import Bench, warm
from benchmarks.load import Shape
from benchmarks.measure import Subject, in_turn
from benchmarks.report import Figure

_SHAPE = Shape(processes=16, streams=8)


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """The rate of both, in turn. Wall clock, on however many processors there are."""
    requests = [bench.ask(credential.key_string) for credential in bench.hot[:1_000]]
    bodies = bench.hot_bodies[:1_000]
    with ExitStack() as stack:
        one = stack.enter_context(bench.server("native"))
        two = stack.enter_context(bench.server("native", workers="2"))
        for server in (one, two, two, two, two):  # whichever worker a connection meets
            warm(server, requests)
        subjects = [
            Subject("one worker", one.verify_address, [one.pid], bodies, shape=_SHAPE),
            Subject("two workers", two.verify_address, two.worker_pids, bodies, shape=_SHAPE),
        ]
        costs = in_turn(subjects, bench.options.rounds, bench.options.seconds, bench.progress)
    ratio = costs["two workers"].rate / costs["one worker"].rate
    cpu = " and ".join(f"{cost.microseconds:.1f}" for cost in costs.values())
    beside = f"{cpu} µs CPU a call; the load generator shares the machine's processors"
    return [Figure("workers", "rate of two workers in that of one", ratio, "", beside=beside)]
