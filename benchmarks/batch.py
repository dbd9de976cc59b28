"""Row batch: BatchVerify of a hundred hot keys."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks.house import Bench, decisions_are
from benchmarks.load import Shape, framed
from benchmarks.measure import BATCH_PATH, Subject, in_turn
from benchmarks.report import Figure
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest

SIZE = 100
_TRANSPORTS = ("native", "grpcio")
_REACH = 40_000
_SHAPE = Shape(processes=4, streams=2)
_BODIES = 100


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Measure it on both transports, in turn."""
    keys = [credential.key_string for credential in bench.hot]
    bodies = [
        framed(BatchVerifyRequest(requests=[bench.ask(keys[(start * SIZE + n) % len(keys)]) for n in range(SIZE)]))
        for start in range(_BODIES)
    ]
    with ExitStack() as stack:
        subjects = []
        for transport in _TRANSPORTS:
            server = stack.enter_context(bench.warm_server(transport))
            check = partial(decisions_are, server, "ALLOW", SIZE)
            name = f"BatchVerify on {transport}"
            subjects.append(
                Subject(name, server.verify_address, [server.pid], bodies, BATCH_PATH, shape=_SHAPE, check=check)
            )
        costs = in_turn(subjects, bench.options.rounds, bench.options.seconds, bench.progress)
    figures = []
    for name, cost in costs.items():
        rate = SIZE / cost.cpu
        beside = f"{cost.microseconds / SIZE:.1f} µs CPU a decision; {cost.rate * SIZE:,.0f} a second here"
        figures.append(
            Figure("batch", f"{name} of {SIZE}", rate, "decisions a second and core", "40,000", rate >= _REACH, beside)
        )
    return figures
