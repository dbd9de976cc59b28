"""One run: start everything, let it work against itself, look whether it held, end everything."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from tests.consistency.torture.administrator import Gardens, Office, Plot, Stuck
from tests.consistency.torture.cached_client import CachedClient
from tests.consistency.torture.client import PERMISSION, ClientProcess, request_for, verify_everywhere
from tests.consistency.torture.cluster import Cluster, OwnPostgres
from tests.consistency.torture.faults import FaultLog, Faults
from tests.consistency.torture.judge import ALLOW
from tests.consistency.torture.report import Report
from tests.consistency.torture.role_keeper import RoleKeeper

_TOLD_EVERY_SECONDS = 5.0
_MORE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Options:
    """seconds: for how long faults are injected, and longer where no key was revoked by then. clients: processes.

    in_flight: calls of each at each replica. caching_clients: processes with a cache of their own, each at one replica.
    plots: administrators at work at once. faults: `all`, `none`, or the names of some, with commas between.
    """

    seconds: float = 60.0
    seed: int = 1
    replicas: int = 3
    clients: int = 1
    in_flight: int = 16
    caching_clients: int = 3
    plots: int = 5
    faults: str = "all"


async def torture(
    options: Options,
    database_url: str,
    root_key: str,
    postgres: OwnPostgres | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run it on a migrated database. postgres: its server, where that may be restarted. tell: hears of the progress.

    The seed decides what is done in which order; when it happens, and so what comes of it, is up to the machine.
    """
    async with AsyncExitStack() as stack:
        cluster = Cluster(database_url, options.replicas)
        stack.callback(cluster.stop)
        await cluster.start()
        report = Report(longest_lease=cluster.longest_lease)
        clients = [_start_client(options, number, cluster, report, stack) for number in range(options.clients)]
        proxies = stack.enter_context(ExitStack())
        log = FaultLog(report.faults)
        office = Office(cluster, root_key, log, report, random.Random(f"{options.seed}/office"))
        stack.push_async_callback(office.close)
        await office.open()
        caching = await _start_caching_clients(options, office, cluster, report, stack, proxies)
        everybody = [*clients, *(client.process for client in caching)]
        gardens = Gardens(office, cluster, report, everybody, random.Random(f"{options.seed}/gardens"))
        stack.push_async_callback(gardens.close)
        await gardens.open()
        check = HealthCheck(office, cluster)
        await check.open()
        faults = Faults(cluster, postgres, log, random.Random(f"{options.seed}/faults"), check, caching)
        faults.choose(options.faults)
        await _run_all(options, gardens, faults, report, tell)
        return report


async def _run_all(
    options: Options, gardens: Gardens, faults: Faults, report: Report, tell: Callable[[str], None]
) -> None:
    """Let administrators and faults work at the same time; the administrators until the last fault is over."""
    began = time.monotonic()
    stopping = asyncio.Event()
    works = [Plot(gardens).run() for _ in range(options.plots)] + [RoleKeeper(gardens).run()]
    working = [asyncio.create_task(work) for work in works]
    injecting = asyncio.create_task(faults.run(stopping))
    telling = asyncio.create_task(_tell(report, began, tell))
    await asyncio.wait([*working, injecting], timeout=options.seconds, return_when=asyncio.FIRST_COMPLETED)
    # On a busy machine administrators may still be planting by then, and there is nothing to judge.
    while not report.revocations and time.monotonic() - began < options.seconds + _MORE_SECONDS:
        done, _ = await asyncio.wait([*working, injecting], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        if done:
            break
    stopping.set()
    await asyncio.wait([injecting])
    for task in (*working, telling):
        task.cancel()
    for result in await asyncio.gather(*working, injecting, telling, return_exceptions=True):
        if isinstance(result, Stuck):
            report.complaints.append(str(result))
        elif isinstance(result, Exception):
            raise result
    report.complaints += faults.complaints
    report.longest_recovery = faults.longest_recovery
    report.seconds = time.monotonic() - began


class HealthCheck:
    """Whether every process beats, and every replica verifies and changes."""

    def __init__(self, office: Office, cluster: Cluster) -> None:
        self._office = office
        self._cluster = cluster
        self._request = b""

    async def open(self) -> None:
        """Make a key that nobody ever switches off."""
        tenant = tenant_pb2.Tenant(tenant_id="untouched")
        await self._office.insist("CreateTenant", pb.CreateTenantRequest(tenant=tenant))
        key = key_pb2.Key(tenant_id=tenant.tenant_id, permissions=[PERMISSION])
        made = await self._office.insist("CreateKey", pb.CreateKeyRequest(key=key))
        self._request = request_for(made.key_string)

    async def __call__(self) -> None:
        """Raise something that says what is wrong, where something is."""
        for replica, verifier in zip(self._cluster.replicas, self._office.verifiers, strict=True):
            await self._office.wait_for_replicas(replica)
            outcome = await verifier.verify(self._request)
            assert outcome == ALLOW, f"replica {replica.number} answers {outcome}"
        rows = await self._cluster.rows()
        assert rows == self._cluster.processes, f"{rows} rows in replicas, of {self._cluster.processes} processes"


def _start_client(
    options: Options, number: int, cluster: Cluster, report: Report, stack: AsyncExitStack
) -> ClientProcess:
    addresses = [replica.verify_address for replica in cluster.replicas]
    client = ClientProcess(verify_everywhere, addresses, options.in_flight, options.seed * 1_000 + number)
    _judge(client, f"client {number}", report, stack)
    return client


async def _start_caching_clients(
    options: Options, office: Office, cluster: Cluster, report: Report, stack: AsyncExitStack, proxies: ExitStack
) -> Sequence[CachedClient]:
    """Each with the key of a caller that may watch, and that nobody ever switches off."""
    watcher = key_pb2.Key(tenant_id="latchgate", permissions=["latchgate.watch"])
    made = await office.insist("CreateKey", pb.CreateKeyRequest(key=watcher))
    clients = []
    for number in range(options.caching_clients):
        replica = cluster.replicas[number % len(cluster.replicas)]
        client = CachedClient(replica, made.key_string, options.seed * 1_000 + 500 + number, proxies)
        _judge(client.process, f"client {number} with a cache", report, stack)
        clients.append(client)
    return clients


def _judge(client: ClientProcess, name: str, report: Report, stack: AsyncExitStack) -> None:
    """Have every decision judged that the client tells of."""
    loop = asyncio.get_running_loop()
    stack.callback(client.stop)

    def take() -> None:
        try:
            for decision in client.decisions():
                report.judge.judge(decision)
        except EOFError:
            report.complaints.append(f"{name} ended")
            loop.remove_reader(client.connection.fileno())

    loop.add_reader(client.connection.fileno(), take)
    stack.callback(loop.remove_reader, client.connection.fileno())


async def _tell(report: Report, began: float, tell: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_TOLD_EVERY_SECONDS)
        tell(f"{time.monotonic() - began:>6.0f} s {report.progress()}")
