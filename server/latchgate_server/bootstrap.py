"""The only composition root: what is built from what, and in which order it starts and stops."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import structlog

from latchgate_server import observability
from latchgate_server.admin.access import Access
from latchgate_server.admin.audit_log import AuditLog, ChainCheck, check_chain
from latchgate_server.admin.barrier import Barrier
from latchgate_server.admin.bulk import BulkRevocation
from latchgate_server.admin.explain import Explanations
from latchgate_server.admin.first_administrator import FirstAdministrator, Recovered
from latchgate_server.admin.housekeeping import forget_the_dead, keep_house, keep_usage
from latchgate_server.admin.imports import Imports
from latchgate_server.admin.keys import Keys
from latchgate_server.admin.leaks import Leaks
from latchgate_server.admin.limits import LimitResets
from latchgate_server.admin.mutations import Mutations
from latchgate_server.admin.paging import PageTokens
from latchgate_server.admin.plans import Plans
from latchgate_server.admin.renewal import HashRenewal
from latchgate_server.admin.roles import Roles
from latchgate_server.admin.rotation import Rotation
from latchgate_server.admin.tenants import Tenants
from latchgate_server.admin.usage import Usage
from latchgate_server.config import Settings, SettingsProblem
from latchgate_server.core.credential_sources import CredentialSources
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.ports import Clock
from latchgate_server.hashing import Peppers, SecretHasher
from latchgate_server.storage.feed_link import PostgresFeedLinks
from latchgate_server.storage.migrate import check_schema
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.quota_ledger import PostgresQuotaLedger
from latchgate_server.storage.reader import PostgresReader
from latchgate_server.storage.replica_table import PostgresReplicaTable
from latchgate_server.storage.store import PostgresStore
from latchgate_server.storage.usage_reader import PostgresUsageReader
from latchgate_server.storage.usage_writer import PostgresUsageWriter
from latchgate_server.system import SystemClock, SystemEntropy
from latchgate_server.transport.admin_service import AdminServicer, UseCases
from latchgate_server.transport.ext_authz import AuthorizationServicer, EnvoyOptions
from latchgate_server.transport.server import (
    Listener,
    Server,
    Transport,
    admin_server,
    choose,
    new_event_loop,
    verify_server,
)
from latchgate_server.transport.verify_service import VerifyServicer
from latchgate_server.verify.access_log import AccessLog
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.limits import LimitCharger, SharedRates
from latchgate_server.verify.loader import QUERIES_AT_ONCE, RecordLoader
from latchgate_server.verify.noticing import Noticing
from latchgate_server.verify.outage import Outage
from latchgate_server.verify.quotas import Quotas
from latchgate_server.verify.rates import LocalRates
from latchgate_server.verify.usage import UsageCollector
from latchgate_server.verify.verifier import Verifier

CONTROL_CONNECTIONS = 10
LOAD_CONNECTIONS = QUERIES_AT_ONCE + 3  # the rest lends quotas, takes them back, and reads the forms of imported keys
USAGE_CONNECTIONS = 1
CONNECTIONS = CONTROL_CONNECTIONS + LOAD_CONNECTIONS + USAGE_CONNECTIONS + 2
"""How many connections to the database a process may open: those, the feed's, and one that hears acknowledgements."""
DRAIN_SECONDS = 10.0
_GARBAGE_THRESHOLD = 20_000

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a process listens; metrics empty: nowhere."""

    verify: str
    admin: str
    metrics: str


async def initialize(settings: Settings, tell: Callable[[str], None]) -> bool:
    """Make the tenant `latchgate` and its first administrator, and `tell` its key string.

    Returns False where there is one already.
    """
    async with AsyncExitStack() as stack:
        return await (await _first_administrator(settings, stack)).create(tell)


async def recover(settings: Settings, tell: Callable[[str], None]) -> Recovered:
    """Make another administrator like the first, switch the tenant `latchgate` on, and `tell` the key string."""
    async with AsyncExitStack() as stack:
        return await (await _first_administrator(settings, stack)).recover(tell)


async def _first_administrator(settings: Settings, stack: AsyncExitStack) -> FirstAdministrator:
    peppers = settings.require_peppers()
    database = await _open_database(settings, stack)
    hasher = SecretHasher(peppers, await database.store.key_id_tag_key(), SystemEntropy())
    stack.callback(hasher.close)
    return FirstAdministrator(database.store, hasher, peppers, settings.key_prefix)


async def check_audit_log(settings: Settings, anchor: tuple[int, bytes] | None) -> ChainCheck:
    """Walk the audit log from its first event. anchor: sequence and hash that an earlier walk ended with."""
    peppers = settings.require_peppers()
    async with AsyncExitStack() as stack:
        database = await _open_database(settings, stack)
        return await check_chain(database.store.read, peppers, anchor)


def run_server(
    settings: Settings, announce: Callable[[Addresses], None] | None = None, *, as_worker: bool = False
) -> None:
    """Serve in this process until SIGINT or SIGTERM.

    announce: called once the servers are up. as_worker: other processes of ours listen on the same ports.
    Raises SettingsProblem, SchemaProblem, NoSuchTransport, StoreUnavailable or OSError where it cannot start.
    """
    transport = choose(Transport(settings.transport))
    _calm_garbage_collection()
    with asyncio.Runner(loop_factory=lambda: new_event_loop(transport)) as runner:
        runner.run(_serve(settings, transport, announce, as_worker))


def _calm_garbage_collection() -> None:
    """Look for reference cycles less often than Python does by default, and never in what was imported.

    A decision makes no cycles, and what it makes is gone when it ends: looking after every 700 objects only costs.
    """
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, *gc.get_threshold()[1:])


async def _serve(
    settings: Settings, transport: Transport, announce: Callable[[Addresses], None] | None, as_worker: bool
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    if as_worker:
        # The supervisor holds the other end: it closes when the supervisor ends, in whatever way.
        loop.add_reader(sys.stdin, stopping.set)
    _log.info(observability.STARTING)
    async with AsyncExitStack() as stack:
        process = await _start(settings, transport, stack, as_worker)
        _log.info(
            observability.WORKER_SERVING if as_worker else observability.SERVING,
            verify=process.addresses.verify,
            admin=process.addresses.admin,
            metrics=process.addresses.metrics,
        )
        if announce is not None:
            announce(process.addresses)
        await process.tasks.first_end(stopping)
        _log.info(observability.DRAINING)
        await process.drain()
    _log.info(observability.STOPPED)


@dataclass(frozen=True, slots=True)
class _Database:
    """store: for administrators. loads, quotas: for verifications, on connections that no administrator can exhaust.

    usage: what administrators read of it.
    """

    store: PostgresStore
    loads: PostgresReader
    quotas: PostgresQuotaLedger
    replicas: PostgresReplicaTable
    usage: PostgresUsageReader


async def _open_database(settings: Settings, stack: AsyncExitStack) -> _Database:
    url, lease = settings.require_database_url(), settings.lease
    control = await create_pool(url, lease, CONTROL_CONNECTIONS)
    stack.callback(control.terminate)
    await check_schema(control)
    loads = await create_pool(url, lease, LOAD_CONNECTIONS)
    stack.callback(loads.terminate)
    replicas = PostgresReplicaTable(control, url, lease)
    stack.callback(replicas.close)
    return _Database(
        PostgresStore(control, patience=lease * 0.5),
        PostgresReader(loads, patience=lease),
        PostgresQuotaLedger(loads),
        replicas,
        PostgresUsageReader(control, patience=lease),
    )


class _Tasks:
    """What runs beside the servers, for as long as the process lives. Where one fails, the process ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, task: asyncio.Task[None]) -> None:
        """Watch over a task that runs already."""
        self._tasks.add(task)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task."""
        self.add(asyncio.get_running_loop().create_task(work))

    async def first_end(self, stopping: asyncio.Event) -> None:
        """Return when `stopping` is set. Raises what a task raises before."""
        waiting = asyncio.get_running_loop().create_task(stopping.wait())
        done, _ = await asyncio.wait({waiting, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in done:
            task.result()

    async def cancel(self) -> None:
        """End every task."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _DataPlane:
    feed: Feed
    outage: Outage
    cache: RecordCache
    quotas: Quotas
    limits: LimitCharger
    verifier: Verifier


@dataclass(frozen=True, slots=True)
class _Process:
    servers: Sequence[Server]
    addresses: Addresses
    tasks: _Tasks
    feed: Feed
    quotas: Quotas
    following: asyncio.Task[None]
    usage: UsageCollector

    async def drain(self) -> None:
        """Turn health, let calls in flight finish while the feed beats, give back, write usage, deregister last."""
        for server in self.servers:
            await server.set_draining()
        await asyncio.gather(*(server.stop(DRAIN_SECONDS) for server in self.servers))
        await asyncio.gather(self.quotas.close(), self.usage.close())
        self.feed.stop()
        await asyncio.wait({self.following}, timeout=DRAIN_SECONDS)


async def _start(settings: Settings, transport: Transport, stack: AsyncExitStack, reuse_port: bool) -> _Process:
    """Build everything from the bottom up; `stack` takes it down again in reverse."""
    peppers = settings.require_peppers()
    clock, entropy = SystemClock(), SystemEntropy()
    tasks = _Tasks()

    database = await _open_database(settings, stack)
    stack.push_async_callback(tasks.cancel)
    hasher = SecretHasher(peppers, await database.store.key_id_tag_key(), entropy)
    stack.callback(hasher.close)
    renewal = HashRenewal(database.store, hasher, peppers, clock)

    usage = await _usage(settings, stack)
    data_plane = _data_plane(settings, stack, database, usage, hasher=hasher, renewal=renewal)
    access = Access(data_plane.verifier, clock)
    barrier = Barrier(database.replicas, clock)
    stack.callback(barrier.close)
    mutations = Mutations(database.store, access, peppers, barrier)
    use_cases = _use_cases(
        database,
        mutations,
        peppers,
        hasher,
        verifier=data_plane.verifier,
        limits=data_plane.limits,
        key_prefix=settings.key_prefix,
    )

    following = asyncio.get_running_loop().create_task(data_plane.feed.run())
    tasks.add(following)
    tasks.start(renewal.run())
    tasks.start(data_plane.quotas.run())
    tasks.start(keep_house(database.store, clock))
    tasks.start(forget_the_dead(database.replicas, clock))
    tasks.start(usage.run())
    tasks.start(keep_usage(database.store, clock, settings.usage_retention, settings.uses_retention))
    await _first_beat(data_plane.feed, settings.lease)

    verify = verify_server(
        Listener(settings.verify_listen, transport, reuse_port),
        VerifyServicer(data_plane.verifier),
        AuthorizationServicer(data_plane.verifier, _envoy_options(settings), clock),
        clock,
    )
    admin = admin_server(
        Listener(settings.admin_listen, transport, reuse_port), AdminServicer(access, use_cases, clock), clock
    )
    for server in (verify, admin):
        stack.push_async_callback(server.stop, 0)
        await server.start()
    metrics = ""
    if settings.metrics_listen:
        metrics = stack.enter_context(observability.metrics_server(settings.metrics_listen, observability.REGISTRY))
    for server in (verify, admin):
        await server.set_serving()
    tasks.start(_watch(verify, data_plane, clock, settings.lease))
    addresses = Addresses(verify.address, admin.address, metrics)
    return _Process((verify, admin), addresses, tasks, data_plane.feed, data_plane.quotas, following, usage)


async def _usage(settings: Settings, stack: AsyncExitStack) -> UsageCollector:
    url, lease, clock = settings.require_database_url(), settings.lease, SystemClock()
    pool = await create_pool(url, lease, USAGE_CONNECTIONS)
    stack.callback(pool.terminate)
    writer = PostgresUsageWriter(pool, SystemEntropy().bytes(16).hex(), patience=lease)
    observers = []
    if settings.access_log:
        access_log = AccessLog(settings.access_log, sys.stderr)
        stack.callback(access_log.close)
        observers.append(access_log)
    return UsageCollector(writer, clock, Noticing(clock), observers)


def _data_plane(
    settings: Settings,
    stack: AsyncExitStack,
    database: _Database,
    usage: UsageCollector,
    *,
    hasher: SecretHasher,
    renewal: HashRenewal,
) -> _DataPlane:
    clock = SystemClock()
    cache = RecordCache(settings.cache_size)
    loader = RecordLoader(database.loads, cache)
    stack.push_async_callback(loader.close)
    links = PostgresFeedLinks(settings.require_database_url(), settings.lease)
    feed = Feed(links, cache, clock, SystemEntropy().bytes(16).hex(), settings.lease)
    outage = Outage(feed, clock, settings.on_database_loss == "serve_cached", settings.max_staleness)
    quotas = Quotas(database.quotas, clock)
    limits = LimitCharger(
        LocalRates(clock), _shared_rates(settings, stack), quotas, clock, processes=lambda: feed.replicas
    )
    verifier = Verifier(
        cache=cache,
        loader=loader,
        feed=feed,
        outage=outage,
        hasher=hasher,
        renewal=renewal,
        limits=limits,
        usage=usage,
        clock=clock,
    )
    return _DataPlane(feed, outage, cache, quotas, limits, verifier)


def _shared_rates(settings: Settings, stack: AsyncExitStack) -> SharedRates | None:
    """Raises SettingsProblem where the client for the store is not installed."""
    address = settings.shared_limit_store
    if address is None:
        return None
    if find_spec("valkey") is None:
        raise SettingsProblem("LATCHGATE_LIMIT_STORE needs: pip install 'latchgate-server[valkey]'")
    from latchgate_server.storage.valkey_rates import ValkeyRates  # noqa: PLC0415 - an optional extra

    clock = SystemClock()
    store = ValkeyRates(address, clock)
    stack.push_async_callback(store.close)
    return SharedRates(store, clock, settings.on_limit_store_loss == "deny")


def _envoy_options(settings: Settings) -> EnvoyOptions:
    return EnvoyOptions(
        sources=CredentialSources.parse(settings.credential_sources),
        denials=settings.http_denials(),
        client_ip_header=settings.client_ip_header,
    )


def _use_cases(
    database: _Database,
    mutations: Mutations,
    peppers: Peppers,
    hasher: SecretHasher,
    *,
    verifier: Verifier,
    limits: LimitCharger,
    key_prefix: str,
) -> UseCases:
    store, tokens = database.store, PageTokens(peppers)
    return UseCases(
        tenants=Tenants(store.read, mutations, tokens),
        plans=Plans(store.read, mutations, tokens),
        roles=Roles(store.read, mutations, tokens),
        keys=Keys(store.read, mutations, tokens, hasher, key_prefix),
        bulk=BulkRevocation(store.read, mutations),
        rotation=Rotation(mutations, hasher, key_prefix),
        imports=Imports(store.read, mutations, hasher, SystemClock(), key_prefix),
        leaks=Leaks(verifier, mutations),
        explanations=Explanations(store.read, limits, SystemClock()),
        audit_log=AuditLog(store.read, tokens),
        limit_resets=LimitResets(mutations),
        usage=Usage(store.read, database.usage, tokens, SystemClock()),
    )


async def _first_beat(feed: Feed, lease: float) -> None:
    try:
        async with asyncio.timeout(lease * 3):
            await feed.has_beaten.wait()
    except TimeoutError:
        raise StoreUnavailable("the database does not answer in time for a lease") from None


async def _watch(server: Server, data_plane: _DataPlane, clock: Clock, lease: float) -> None:
    """Keep health and gauges true."""
    feed = data_plane.feed
    while True:
        allows_stale = data_plane.outage.allows_stale()
        can_decide = feed.has_lease() or not feed.is_lost or allows_stale
        await server.set_deciding(can_decide)
        observability.LEASE_VALID.set(feed.has_lease())
        observability.CACHED_RECORDS.set(len(data_plane.cache))
        if feed.last_beat_at is not None:
            observability.BEAT_AGE.set(clock.monotonic() - feed.last_beat_at)
        await clock.sleep(min(1.0, lease / 3))
