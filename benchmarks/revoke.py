"""Row revoke: how long RevokeKey takes with three replicas under load, and whether it holds when it returns."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack

from benchmarks.house import Bench, sample
from benchmarks.load import Load, Shape
from benchmarks.measure import VERIFY_PATH
from benchmarks.report import Figure
from benchmarks.seed import copy_key
from latchgate.v1 import admin_service_pb2, decision_pb2
from tests.support.server import Admin

_REPLICAS = 3
_REVOCATIONS = 200
_PAUSE_SECONDS = 0.01
_LOAD_SECONDS = 120.0
# Seldom switched: the threads that switch share their processor and Python's lock with the administrator who is timed.
_SHAPE = Shape(1, 4, 300.0, switch=0.02)


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """Revoke one key after the other, and ask every replica for it at once."""
    count = min(_REVOCATIONS, len(bench.hot))
    credentials = asyncio.run(copy_key(bench.database_url, bench.hot[0].key_id, count))
    took, old = [], 0
    with ExitStack() as stack:
        servers = [stack.enter_context(bench.server("native")) for _ in range(_REPLICAS)]
        for server in servers:
            stack.enter_context(Load(server.verify_address, VERIFY_PATH, bench.hot_bodies, _LOAD_SECONDS, _SHAPE))
        admin = Admin(servers[0].admin_address, bench.root_key)
        stack.callback(admin.close)
        bench.progress(f"revoking {count} keys on {_REPLICAS} replicas")
        for credential in credentials:
            request = bench.ask(credential.key_string)
            for server in servers:
                assert sample(server, request).decision == decision_pb2.DECISION_ALLOW
            time.sleep(_PAUSE_SECONDS)
            began = time.perf_counter()
            admin.RevokeKey(admin_service_pb2.RevokeKeyRequest(key_id=credential.key_id))
            took.append(time.perf_counter() - began)
            old += sum(sample(server, request).decision != decision_pb2.DECISION_DENY for server in servers)
    milliseconds = [1_000 * seconds for seconds in took]
    median, p99 = statistics.median(milliseconds), statistics.quantiles(milliseconds, n=100, method="inclusive")[98]
    beside = f"{_REPLICAS} replicas, {_SHAPE.rate:.0f} calls a second on each; wall clock"
    return [
        Figure("revoke", "RevokeKey, median", median, "ms", "10", median <= 10, beside),
        Figure("revoke", "RevokeKey, p99", p99, "ms", "50", p99 <= 50, beside),
        Figure("revoke", "decisions on old state", old, "", "0", old == 0, f"of {count * _REPLICAS} right after"),
    ]
