"""Rows floor, verify, denied and transport: single calls for keys in memory, and for what is no key."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks.house import Bench, decisions_are, require_allowed, sample
from benchmarks.load import framed
from benchmarks.measure import Cost, Subject, in_turn
from benchmarks.noop import NoopProcess
from benchmarks.report import Figure
from latchgate.v1 import decision_pb2
from latchgate_server.core import key_format
from tests.support.server import ServerProcess

TRANSPORTS = ("native", "grpcio")
_DENIALS = {
    "wrong secrets": "INVALID_SECRET",
    "unknown key ids": "INVALID_API_KEY",
    "malformed keys": "INVALID_API_KEY",
}


def run(bench: Bench, wanted: Collection[str]) -> Sequence[Figure]:
    """Measure these rows, all in turn."""
    with ExitStack() as stack:
        subjects: list[Subject] = []
        for transport in TRANSPORTS:
            server = stack.enter_context(bench.warm_server(transport))
            size = _answer_bytes(bench, server)
            floor = stack.enter_context(NoopProcess(transport, size))
            subjects.append(Subject(f"no-op on {transport}", floor.address, [floor.pid], bench.hot_bodies))
            subjects.append(verify_subject(server, f"Verify on {transport}", bench.hot_bodies))
            if transport == "native" and "denied" in wanted:
                subjects.extend(_denied(bench, server))
        costs = in_turn(subjects, bench.options.rounds, bench.options.seconds, bench.progress)
    return [figure for figure in _figures(costs) if figure.row in wanted]


def verify_subject(server: ServerProcess, name: str, bodies: Sequence[bytes]) -> Subject:
    """Verify of keys that are allowed, on a server that is warm for them. bodies: framed."""
    return Subject(name, server.verify_address, [server.pid], bodies, check=partial(decisions_are, server, "ALLOW"))


def _answer_bytes(bench: Bench, server: ServerProcess) -> int:
    request = bench.ask(bench.hot[0].key_string)
    answer = sample(server, request)
    require_allowed(request, answer)
    return answer.ByteSize()


def _denied(bench: Bench, server: ServerProcess) -> Sequence[Subject]:
    keys = [credential.key_string for credential in bench.hot]
    texts = {
        # Genuine in form and checksum, but another secret.
        "wrong secrets": [_other_secret(c.key_id, number) for number, c in enumerate(bench.hot)],
        "unknown key ids": [f"lg_{key[3:25][::-1]}{key[25:]}" for key in keys],
        "malformed keys": [key.replace(".", "-") for key in keys],
    }
    subjects = []
    for name, reason in _DENIALS.items():
        request = bench.ask(texts[name][0])
        answer = sample(server, request)
        assert decision_pb2.DenialReason.Name(answer.denial_reason) == f"DENIAL_REASON_{reason}", answer
        bodies = [framed(bench.ask(text)) for text in texts[name]]
        subjects.append(
            Subject(
                f"denied, {name}",
                server.verify_address,
                [server.pid],
                bodies,
                check=partial(decisions_are, server, reason),
            )
        )
    return subjects


def _other_secret(key_id: str, number: int) -> str:
    return f"{key_id}.{key_format.render_secret(key_id, number.to_bytes(32))}"


def _figures(costs: Mapping[str, Cost]) -> Sequence[Figure]:
    figures = []
    for transport in TRANSPORTS:
        floor, verify = costs[f"no-op on {transport}"], costs[f"Verify on {transport}"]
        figures.append(
            Figure("floor", f"no-op on {transport}", floor.microseconds, "µs CPU a call", beside=_rate(floor))
        )
        ratio = floor.cpu / verify.cpu
        figures.append(
            Figure(
                "verify",
                f"Verify on {transport}, rate in that of the no-op",
                ratio,
                "",
                "at least 0.80",
                ratio >= 0.80,
                f"{verify.microseconds:.1f} µs CPU a call; {_rate(verify)}",
            )
        )
    native = costs["Verify on native"]
    for name in _DENIALS:
        denied = costs.get(f"denied, {name}")
        if denied is not None:
            ratio = native.cpu / denied.cpu
            beside = f"{denied.microseconds:.1f} µs CPU a call; {_rate(denied)}"
            figures.append(
                Figure("denied", f"{name}, rate in that of Verify", ratio, "", "at least 1", ratio >= 1, beside)
            )
    ratio = costs["no-op on grpcio"].cpu / native.cpu
    what = "Verify on native, rate in that of a no-op on grpc.aio"
    figures.append(Figure("transport", what, ratio, "", "at least 6", ratio >= 6))
    return figures


def _rate(cost: Cost) -> str:
    return f"{cost.rate:,.0f} calls a second here"
