"""Row replicas: what each replica costs the database, at rest and with each change, and how long a change waits."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from benchmarks.house import Bench
from benchmarks.machine import cpu_seconds, resident_bytes
from benchmarks.report import Figure
from latchgate.v1 import admin_service_pb2, key_pb2
from latchgate_server.embedded import running_postgres
from tests.consistency.torture.cluster import OwnPostgres
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, make_root_key

REPLICAS = (1, 3, 10, 30)
_CONNECTIONS = 400
_REST_SECONDS = 12.0
_CHANGES = 60


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one number of replicas.

    beats: transactions a second at rest, of all. rest: the database's CPU at rest, in milliseconds a second. change:
    its CPU for each change, in milliseconds. transactions: for each change. connections: open at rest. median, p99: how
    long a change takes its caller, in milliseconds. memory: resident, of one replica, in MiB.
    """

    replicas: int
    beats: float
    rest: float
    change: float
    transactions: float
    connections: int
    median: float
    p99: float
    memory: float


def run(bench: Bench, _wanted: Collection[str]) -> Sequence[Figure]:
    """On a PostgreSQL of their own, which keeps what it commits and accepts more connections than by default."""
    data = bench.folder / "replicas"
    with running_postgres(data) as url, ExitStack() as stack:
        asyncio.run(_execute(url, f"ALTER SYSTEM SET max_connections = {_CONNECTIONS}"))
        OwnPostgres(data, url).restart("fast")
        postgres = Postgres(url)
        postgres.make_template()
        asyncio.run(_execute(url, "ALTER SYSTEM RESET fsync"))
        asyncio.run(_execute(url, "SELECT pg_reload_conf()"))
        database_url = postgres.new_database()
        root_key = make_root_key(database_url)
        servers: list[ServerProcess] = []
        measured = []
        for count in REPLICAS:
            bench.progress(f"{count} replicas")
            while len(servers) < count:
                servers.append(stack.enter_context(bench.server("auto", database_url)))
            measured.append(_measure(servers, database_url, root_key, data))
    bench.points["replicas"] = {
        "CPU of the database at rest, ms a second": [(float(each.replicas), each.rest) for each in measured],
        "CPU of the database, ms a change": [(float(each.replicas), each.change) for each in measured],
        "transactions a change": [(float(each.replicas), each.transactions) for each in measured],
    }
    return [figure for each in measured for figure in _figures(each)]


def _figures(costs: Costs) -> Sequence[Figure]:
    name = f"{costs.replicas} replica{'s' if costs.replicas > 1 else ''}"
    rest = f"{costs.beats:.1f} transactions a second, {costs.connections} connections, {costs.memory:.0f} MiB a replica"
    change = f"{costs.transactions:.1f} transactions a change"
    wait = f"p99 {costs.p99:.1f} ms; wall clock"
    return [
        Figure("replicas", f"{name}, at rest: CPU of the database", costs.rest, "ms/s", "", None, rest),
        Figure("replicas", f"{name}: CPU of the database for a change", costs.change, "ms", "", None, change),
        Figure("replicas", f"{name}: a change, median", costs.median, "ms", "", None, wait),
    ]


def _measure(servers: Sequence[ServerProcess], database_url: str, root_key: str, data: Path) -> Costs:
    admin = Admin(servers[0].admin_address, root_key)
    made = admin.CreateKey(admin_service_pb2.CreateKeyRequest(key=key_pb2.Key(tenant_id="latchgate")))
    change = admin_service_pb2.DisableKeyRequest(key_id=made.key.key_id)
    back = admin_service_pb2.EnableKeyRequest(key_id=made.key.key_id)
    time.sleep(6)  # until the connection that listens while changes wait is closed again
    before, began = asyncio.run(_counted(database_url, data)), time.monotonic()
    time.sleep(_REST_SECONDS)
    after, rest_seconds = asyncio.run(_counted(database_url, data)), time.monotonic() - began
    rest = (after.cpu - before.cpu) / rest_seconds
    beats = (after.transactions - before.transactions) / rest_seconds
    took = []
    began = time.monotonic()
    for number in range(_CHANGES):
        started = time.perf_counter()
        if number % 2:
            admin.EnableKey(back)
        else:
            admin.DisableKey(change)
        took.append(1_000 * (time.perf_counter() - started))
    changed, seconds = asyncio.run(_counted(database_url, data)), time.monotonic() - began
    admin.close()
    return Costs(
        replicas=len(servers),
        beats=beats,
        rest=1_000 * rest,
        change=1_000 * (changed.cpu - after.cpu - rest * seconds) / _CHANGES,
        transactions=(changed.transactions - after.transactions - beats * seconds) / _CHANGES,
        connections=after.connections,
        median=statistics.median(took),
        p99=statistics.quantiles(took, n=100, method="inclusive")[98],
        memory=statistics.median(resident_bytes(server.pid) for server in servers) / 2**20,
    )


@dataclass(frozen=True, slots=True)
class _Counted:
    transactions: int
    connections: int
    cpu: float


async def _counted(database_url: str, data: Path) -> _Counted:
    connection = await asyncpg.connect(database_url)
    try:
        await asyncio.sleep(1.2)  # backends tell their counts once a second
        row = await connection.fetchrow(
            "SELECT xact_commit + xact_rollback AS transactions, (SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = 'latchgate') AS connections"
            " FROM pg_stat_database WHERE datname = current_database()"
        )
        cpu = cpu_seconds(_processes_of(data))
    finally:
        await connection.close()
    assert row is not None
    return _Counted(row["transactions"], row["connections"], cpu)


def _processes_of(data: Path) -> Sequence[int]:
    postmaster = int((data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split()
    return [postmaster, *map(int, children)]


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
