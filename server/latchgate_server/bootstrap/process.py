"""A process from its start to its end, and the commands that need a part of one."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog

from latchgate_server import exposition, log_events, observability
from latchgate_server.admin.access import Access
from latchgate_server.admin.audit_log import ChainCheck, check_chain
from latchgate_server.admin.barrier import Barrier
from latchgate_server.admin.first_administrator import FirstAdministrator, Recovered
from latchgate_server.admin.housekeeping import forget_the_dead, keep_house, keep_usage
from latchgate_server.admin.mutations import Mutations
from latchgate_server.admin.renewal import HashRenewal
from latchgate_server.bootstrap import traces
from latchgate_server.bootstrap.access import listeners, open_tls
from latchgate_server.bootstrap.control_plane import build_use_cases
from latchgate_server.bootstrap.data_plane import (
    DataPlane,
    build_data_plane,
    callers_with_keys,
    envoy_options,
    key_watching,
    open_usage,
)
from latchgate_server.bootstrap.database import Database, open_database
from latchgate_server.bootstrap.memory import memory_share
from latchgate_server.bootstrap.reload import Reload
from latchgate_server.bootstrap.tasks import Tasks
from latchgate_server.bootstrap.watching import watch
from latchgate_server.config import Settings, SettingsProblem
from latchgate_server.core.errors import Overloaded, StoreUnavailable
from latchgate_server.core.ports import Clock
from latchgate_server.hashing import Peppers, SecretHasher
from latchgate_server.service_manager import READY, STOPPING, tell_service_manager
from latchgate_server.system import SystemClock, SystemEntropy
from latchgate_server.transport.admin_service import AdminServicer
from latchgate_server.transport.doorkeeper import Doorkeeper, allowed_connections
from latchgate_server.transport.ext_authz import AuthorizationServicer
from latchgate_server.transport.request_ids import RequestIds
from latchgate_server.transport.server import (
    Server,
    Transport,
    admin_server,
    choose,
    new_event_loop,
    verify_server,
)
from latchgate_server.transport.verify_service import VerifyServicer
from latchgate_server.verify import verifier
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.usage import UsageCollector

DRAIN_SECONDS = 10.0
_START_LEASES = 3
"""For so many leases a process that starts waits for a database that is slow."""

_START_PAUSE = 0.1  # seconds between its attempts: one that has no connection left says so at once

_WRONG_PEPPER = (
    "none of the database's keys was made under the pepper that LATCHGATE_PEPPER or LATCHGATE_PEPPER_FILE gives: put "
    "back the one from before; where it is lost, `latchgate init --recover` makes a new administrator under this one"
)

_GARBAGE_THRESHOLD = 20_000
_LOCK_SECONDS = 0.002

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
    database = await open_database(settings, stack)
    hasher = SecretHasher(peppers, await database.store.key_id_tag_key(), SystemEntropy())
    stack.callback(hasher.close)
    return FirstAdministrator(database.store, hasher, peppers, settings.key_prefix)


async def check_audit_log(settings: Settings, anchor: tuple[int, bytes] | None) -> ChainCheck:
    """Walk the audit log from its first event. anchor: sequence and hash that an earlier walk ended with."""
    peppers = settings.require_peppers()
    async with AsyncExitStack() as stack:
        database = await open_database(settings, stack)
        return await check_chain(database.store.read, peppers, anchor)


def run_server(
    settings: Settings,
    announce: Callable[[Addresses], None] | None = None,
    *,
    as_worker: bool = False,
    on_terminal: bool = False,
) -> None:
    """Serve in this process until SIGINT or SIGTERM; reload on SIGHUP.

    announce: called once the servers are up. as_worker: other processes of ours listen on the same ports. on_terminal:
    end on SIGHUP too, as when its window is closed.
    Raises SettingsProblem, SchemaProblem, NoSuchTransport, StoreUnavailable or OSError where it cannot start.
    """
    transport = choose(Transport(settings.transport), with_tls=settings.tls_cert is not None)
    _calm_garbage_collection()
    _share_pythons_lock()
    with asyncio.Runner(loop_factory=lambda: new_event_loop(transport)) as runner:
        runner.run(_serve(settings, transport, announce, as_worker=as_worker, on_terminal=on_terminal))


async def check_start(settings: Settings) -> None:
    """See what a process needs to start, before several are: each would tell of it, and be started again.

    Raises SettingsProblem, SchemaProblem, NoSuchTransport or CannotDecide.
    """
    peppers = settings.require_peppers()
    choose(Transport(settings.transport), with_tls=settings.tls_cert is not None)
    async with AsyncExitStack() as stack:
        await _open_patiently(settings, peppers, stack, SystemClock())


def _calm_garbage_collection() -> None:
    """Look for reference cycles less often than Python does by default, and never in what was imported.

    A decision makes no cycles, and what it makes is gone when it ends: looking after every 700 objects only costs.
    """
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, *gc.get_threshold()[1:])


def _share_pythons_lock() -> None:
    """Let a thread that waits for Python's lock have it after 2 ms instead of 5.

    The one that takes calls from the network needs it for microseconds only, and with it waits what memory can answer.
    """
    sys.setswitchinterval(_LOCK_SECONDS)


def _is_compiled() -> bool:
    """Whether what a decision passes through was compiled (pyproject.toml of this distribution, hooks.mypyc)."""
    return not str(verifier.__file__).endswith(".py")


async def _serve(
    settings: Settings,
    transport: Transport,
    announce: Callable[[Addresses], None] | None,
    *,
    as_worker: bool,
    on_terminal: bool,
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what is only starting reads everything anyway
    for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if on_terminal else [])):
        loop.add_signal_handler(number, stopping.set)
    if as_worker:
        # The supervisor holds the other end: it closes when the supervisor ends, in whatever way.
        loop.add_reader(sys.stdin, stopping.set)
    _log.info(log_events.STARTING, compiled=_is_compiled())
    async with AsyncExitStack() as stack:
        process = await _start(settings, transport, stack, as_worker)
        if not on_terminal:
            loop.add_signal_handler(signal.SIGHUP, process.reload.ask)
        _log.info(
            log_events.WORKER_SERVING if as_worker else log_events.SERVING,
            verify=process.addresses.verify,
            admin=process.addresses.admin,
            metrics=process.addresses.metrics,
        )
        if announce is not None:
            announce(process.addresses)
        tell_service_manager(READY)
        await process.tasks.first_end(stopping)
        tell_service_manager(STOPPING)
        _log.info(log_events.DRAINING)
        await process.drain(settings.drain_delay)
    _log.info(log_events.STOPPED)


@dataclass(frozen=True, slots=True)
class _Process:
    servers: Sequence[Server]
    addresses: Addresses
    tasks: Tasks
    data_plane: DataPlane
    following: asyncio.Task[None]
    usage: UsageCollector
    reload: Reload

    async def drain(self, delay: float) -> None:
        """Turn health, let calls in flight finish while the feed beats, give back, write usage, deregister last.

        delay: seconds for which calls are still taken once health has turned.
        """
        for server in self.servers:
            await server.set_draining()
        await asyncio.sleep(delay)
        self.data_plane.watchers.close()  # their streams would be in flight for ever
        await asyncio.gather(*(server.stop(DRAIN_SECONDS) for server in self.servers))
        await self.data_plane.cached_uses.close()
        await asyncio.gather(self.data_plane.quotas.close(), self.usage.close())
        observability.hand_on()
        self.data_plane.feed.stop()
        await asyncio.wait({self.following}, timeout=DRAIN_SECONDS)


async def _start(settings: Settings, transport: Transport, stack: AsyncExitStack, reuse_port: bool) -> _Process:
    """Build everything from the bottom up; `stack` takes it down again in reverse."""
    peppers = settings.require_peppers()
    clock, entropy = SystemClock(), SystemEntropy()
    traces.start(stack, entropy.bytes(16).hex())
    tasks = Tasks()

    database, tag_key = await _open_patiently(settings, peppers, stack, clock)
    stack.push_async_callback(tasks.cancel)
    hasher = SecretHasher(peppers, tag_key, entropy)
    stack.callback(hasher.close)
    renewal = HashRenewal(database.store, hasher, peppers, clock)

    usage = await open_usage(settings, stack, database)
    data_plane = build_data_plane(settings, stack, database, usage, hasher=hasher, renewal=renewal)
    access = Access(data_plane.verifier, clock)
    barrier = Barrier(database.replicas, clock)
    stack.callback(barrier.close)
    mutations = Mutations(database.store, access, peppers, barrier)
    use_cases = build_use_cases(
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
    tasks.start(data_plane.cached_uses.run())
    tasks.start(keep_usage(database.store, clock, settings.usage_retention, settings.uses_retention))
    await _first_beat(data_plane.feed, settings.lease)

    request_ids = RequestIds(entropy)
    admin_servicer = AdminServicer(access, use_cases, clock, request_ids)
    verify, admin, reload = await _build_servers(
        settings, transport, data_plane, admin_servicer, request_ids, tasks=tasks, reuse_port=reuse_port
    )
    for server in (verify, admin):
        stack.push_async_callback(server.stop, 0)
        await server.start()
    metrics = ""
    if settings.metrics_listen:
        metrics = stack.enter_context(exposition.metrics_server(settings.metrics_listen, observability.REGISTRY))
    for server in (verify, admin):
        await server.set_serving()
        # One that ends by itself ends the process, which others can see; a process that beats and is deaf they cannot.
        tasks.start(server.run())
    tasks.start(_doorkeeper(settings, [verify.address, admin.address], clock).run())
    tasks.start(watch(verify, data_plane, database.pools, clock, settings.lease))
    addresses = Addresses(verify.address, admin.address, metrics)
    return _Process((verify, admin), addresses, tasks, data_plane, following, usage, reload)


async def _build_servers(
    settings: Settings,
    transport: Transport,
    data_plane: DataPlane,
    admin_servicer: AdminServicer,
    request_ids: RequestIds,
    *,
    tasks: Tasks,
    reuse_port: bool,
) -> tuple[Server, Server, Reload]:
    """The servers of both ports, and what reloads their certificates and texts."""
    clock, tls = SystemClock(), await open_tls(settings)
    verify_listener, admin_listener = listeners(settings, transport, tls, reuse_port=reuse_port)
    callers = callers_with_keys(data_plane, clock) if settings.verify_auth == "key" else None
    watching = key_watching(data_plane, clock, request_ids)
    servicer = VerifyServicer(data_plane.verifier, clock, request_ids, watching, callers)
    authorization = AuthorizationServicer(data_plane.verifier, envoy_options(settings), clock, request_ids, callers)
    verify = verify_server(verify_listener, servicer, authorization, clock)
    admin = admin_server(admin_listener, admin_servicer, clock)
    reload = Reload(settings, tls, authorization)
    tasks.start(reload.run())
    if tls is not None:
        tasks.start(tls.watch(clock))
    return verify, admin, reload


def _doorkeeper(settings: Settings, addresses: Sequence[str], clock: Clock) -> Doorkeeper:
    return Doorkeeper(
        addresses,
        clock,
        memory=memory_share(settings),
        encrypted=settings.tls_cert is not None,
        connections=allowed_connections(),
    )


async def _open_patiently(
    settings: Settings, peppers: Peppers, stack: AsyncExitStack, clock: Clock
) -> tuple[Database, bytes]:
    """The database, and the key of the tags in its key ids; asked again where it is only busy.

    Raises SettingsProblem where these peppers are another deployment's: every call would end in an error.
    """
    ends_at = clock.monotonic() + settings.lease * _START_LEASES
    while True:
        async with AsyncExitStack() as attempt:
            try:
                database = await open_database(settings, attempt)
                tag_key = await database.store.key_id_tag_key()
                if await database.store.is_sealed_by_others([pepper.pepper_id for pepper in peppers]):
                    raise SettingsProblem(_WRONG_PEPPER)
            except Overloaded:
                if clock.monotonic() > ends_at:
                    raise
            else:
                stack.push_async_exit(attempt.pop_all())
                return database, tag_key
        await clock.sleep(_START_PAUSE)


async def _first_beat(feed: Feed, lease: float) -> None:
    try:
        async with asyncio.timeout(lease * _START_LEASES):
            await feed.has_beaten.wait()
    except TimeoutError:
        raise StoreUnavailable("the database does not answer in time for a lease") from None
