"""Row growth: what a Verify costs as the database, memory and what a key holds grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial

from benchmarks.hot import verify_subject
from benchmarks.house import ADDRESS, PERMISSIONS, Bench, warm
from benchmarks.measure import in_turn
from benchmarks.report import Figure
from benchmarks.steps import Hot, microseconds, record_of
from latchgate.v1.verify_service_pb2 import VerifyRequest
from latchgate_server.core.model import Role
from latchgate_server.core.record import Record

_KEYS = 200
_FEW = 1_000
_CALLS = 3_000
# Processors and their caches are not logarithmic: what may be more than a logarithm, beside the first doubling.
_TOLERANCE = 1.5


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Each as a curve; the database's over the network, all others in this process, without the answer's size."""
    curves = {"keys in the database": _database(bench)}
    curves["cached records"] = [(float(count), _cost(record_of, count)) for count in _steps(10, bench.options.cached)]
    for name, record, most in (
        ("roles of a key", _with_roles, 100),
        ("permissions of a role", _with_permissions, 1_000),
        ("address ranges", _with_ranges, 1_000),
    ):
        bench.progress(f"growth, {name}")
        curves[name] = [(float(count), _cost(partial(record, count), _KEYS)) for count in _steps(1, most)]
    bench.points["growth"] = curves
    figures = []
    for name, points in curves.items():
        (few, first), (many, last) = points[0], points[-1]
        allowed = 1 + math.log10(many / few) * 0.5 * _TOLERANCE
        what = f"{name}, {few:,.0f} to {many:,.0f}: Verify's cost, in the first"
        beside = f"{first:.1f} to {last:.1f} µs"
        figures.append(
            Figure("growth", what, last / first, "", "no more than logarithmic", last / first <= allowed, beside)
        )
    return figures


def _steps(least: int, most: int) -> Sequence[int]:
    return [least * 10**power for power in range(round(math.log10(most / least)) + 1)]


def _database(bench: Bench) -> Sequence[tuple[float, float]]:
    apart = bench.apart(_FEW)
    requests = [apart.ask(credential.key_string) for credential in apart.hot]
    points, made = [], _FEW
    with apart.server("native") as server:
        for wanted in _steps(_FEW, bench.options.more_keys):
            made += len(apart.further_keys(wanted - made))
            warm(server, requests)
            subject = verify_subject(server, f"{made:,} keys in the database", apart.hot_bodies)
            cost = in_turn([subject], bench.options.rounds, bench.options.seconds, bench.progress)[subject.name]
            points.append((float(made), cost.microseconds))
    return points


def _cost(record: Callable[[str], Record], count: int) -> float:
    hot = Hot(record, count)
    payloads = [
        VerifyRequest(key=c.key_string, client_ip=ADDRESS, required_permissions=PERMISSIONS).SerializeToString()
        for c in hot.credentials
    ]
    assert all(hot.servicer.verify_at_once(payload) for payload in payloads[:10])
    return microseconds(hot.servicer.verify_at_once, payloads, calls=_CALLS)


def _with_roles(count: int, key_id: str) -> Record:
    roles = [Role(role_id=f"role-{number}", permissions=(f"things.{number}",)) for number in range(count - 1)]
    return record_of(key_id, [*roles, Role(role_id="last", permissions=("orders.read", "orders.export"))])


def _with_permissions(count: int, key_id: str) -> Record:
    others = tuple(f"things.{number}" for number in range(max(0, count - 2)))
    return record_of(key_id, [Role(role_id="only", permissions=(*others, "orders.read", "orders.export"))])


def _with_ranges(count: int, key_id: str) -> Record:
    others = [f"10.{number // 250}.{number % 250}.0/25" for number in range(count - 1)]
    return record_of(key_id, ranges=[*others, "203.0.113.0/24"])
