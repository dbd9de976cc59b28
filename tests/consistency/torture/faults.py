"""What is done to the cluster: a few faults at once at random, then rest until all is well again, and so on."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg

from tests.consistency.torture.cached_client import CachedClient
from tests.consistency.torture.cluster import Cluster, OwnPostgres, Replica

RECOVERY_SECONDS = 30.0
"""How long the cluster may take to be well again once nothing is wrong with its surroundings."""
_AT_ONCE = (1, 2, 3, 4)
_REST_SECONDS = (1.0, 2.0)

# What the feed's own connection runs; see queries.sql.
_FEEDS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'latchgate'
  AND (query LIKE 'INSERT INTO replicas%' OR query LIKE '%latchgate_acknowledge($1%' OR query LIKE '%changes_pruned%')
"""
_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = 'latchgate'
"""
PRUNE = """
WITH gone AS (DELETE FROM changes RETURNING revision)
UPDATE changes_pruned SET revision = greatest(revision, (SELECT max(revision) FROM gone))
WHERE EXISTS (SELECT FROM gone)
"""
"""What housekeeping does an hour later."""


@dataclass(slots=True)
class Fault:
    """One fault, until all is well again. replica: whose; None: the database's. ended: None while it lasts."""

    kind: str
    replica: int | None
    began: float
    ended: float | None = None

    def overlaps(self, start: float, end: float) -> bool:
        """Whether it was there at any time from start to end."""
        return self.began <= end and (self.ended is None or self.ended >= start)


class FaultLog:
    """Which faults there were, and when."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._faults: list[Fault] = []

    def begin(self, kind: str, replica: Replica | None) -> None:
        """A fault begins."""
        self._counts[kind] += 1
        self._faults.append(Fault(kind, None if replica is None else replica.number, time.monotonic()))

    def end_all(self) -> None:
        """All is well. What lies far back is forgotten."""
        now = time.monotonic()
        self._faults = [fault for fault in self._faults if fault.ended is None or fault.ended > now - 120]
        for fault in self._faults:
            fault.ended = fault.ended or now

    def active(self, start: float, end: float) -> bool:
        """Whether there was any fault."""
        return any(fault.overlaps(start, end) for fault in self._faults)

    def hinders(self, replica: int, start: float, end: float) -> bool:
        """Whether there was one of this replica or of the database."""
        return any(fault.replica in (None, replica) and fault.overlaps(start, end) for fault in self._faults)

    def describe(self, start: float, end: float) -> str:
        """The faults that there were, for people."""
        there = [f"{fault.kind} of {fault.replica}" for fault in self._faults if fault.overlaps(start, end)]
        return ", ".join(there) or "no fault"


class Faults:
    """Injects them."""

    def __init__(
        self,
        cluster: Cluster,
        postgres: OwnPostgres | None,
        log: FaultLog,
        choices: random.Random,
        check: Callable[[], Awaitable[None]],
        clients: Sequence[CachedClient] = (),
    ) -> None:
        """postgres: None where it must not be restarted. check: raises while something is not well."""
        self._cluster = cluster
        self._postgres = postgres
        self._log = log
        self._random = choices
        self._check = check
        self._clients = clients
        self._restarting = asyncio.Lock()
        self._deck: list[str] = []
        self.complaints: list[str] = []
        self.longest_recovery = 0.0
        self._kinds: Mapping[str, Callable[[], Awaitable[None]]] = {
            "replica paused": self._pause,
            "replica paused, changes pruned": self._pause_and_prune,
            "replica killed": self._kill,
            "worker killed": self._kill_worker,
            "rolling restart": self._roll,
            "feeds terminated": self._terminate_feeds,
            "sessions terminated": self._terminate_sessions,
            "connections dropped": self._drop,
            "connections refused": self._refuse,
            "connections stalled": self._stall,
            "connections half-open": self._half_open,
            "connections slow": self._delay,
            "lock held": self._hold_lock,
            **({"client paused": self._pause_client, "client cut off": self._cut_client_off} if clients else {}),
            **({"PostgreSQL restarted": self._restart, "PostgreSQL crashed": self._crash} if postgres else {}),
        }

    def choose(self, names: str) -> None:
        """Inject only some: `all`, `none`, or names with commas between. Raises KeyError for what there is not."""
        if names != "all":
            chosen = [] if names == "none" else names.split(",")
            self._kinds = {name: self._kinds[name] for name in chosen}

    async def run(self, stopping: asyncio.Event) -> None:
        """Inject faults until told to stop; then return once all is well."""
        if not self._kinds:
            await stopping.wait()
        while not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._random.uniform(*_REST_SECONDS))
                return
            kinds = [self._draw() for _ in range(self._random.choice(_AT_ONCE))]
            await asyncio.gather(*(self._kinds[kind]() for kind in kinds))
            await self._recover(kinds)
            self._log.end_all()

    async def _recover(self, kinds: Sequence[str]) -> None:
        began = time.monotonic()
        while True:
            try:
                await self._check()
                self.longest_recovery = max(self.longest_recovery, time.monotonic() - began)
                return
            except Exception as problem:  # noqa: BLE001 - whatever is wrong, it has to pass by itself
                if time.monotonic() - began > RECOVERY_SECONDS:
                    after = f"{RECOVERY_SECONDS:.0f} s after {' and '.join(kinds)}"
                    self.complaints.append(f"not well {after}: {problem!r}")
                    return
                await asyncio.sleep(0.1)

    def _draw(self) -> str:
        """The next kind: every kind once, in any order, before any comes again."""
        if not self._deck:
            self._deck = list(self._kinds)
            self._random.shuffle(self._deck)
        return self._deck.pop()

    # Processes ------------------------------------------------------------------------------------------------------

    async def _pause(self) -> None:
        async with self._paused("replica paused"):
            pass

    async def _pause_and_prune(self) -> None:
        async with self._paused("replica paused, changes pruned"):
            await self._cluster.run_sql(PRUNE)

    @asynccontextmanager
    async def _paused(self, kind: str) -> AsyncIterator[None]:
        """Pause one process, or all, of a replica for longer than its lease."""
        async with self._changing(kind) as replica:
            pids = list(replica.pids)
            if self._random.random() < 0.5:
                pids = pids[:1]
            replica.signal(signal.SIGSTOP, pids)
            try:
                await asyncio.sleep(replica.lease * self._random.uniform(1.1, 1.8))
                yield
            finally:
                replica.signal(signal.SIGCONT, pids)

    async def _kill(self) -> None:
        async with self._changing("replica killed") as replica:
            await asyncio.to_thread(replica.process.kill)
            await asyncio.sleep(self._random.uniform(0, 1))
            await asyncio.to_thread(replica.start)

    async def _kill_worker(self) -> None:
        """Kill one of several workers; its parent starts another."""
        several = [replica for replica in self._cluster.replicas if replica.workers > 1]
        if several:
            async with self._changing("worker killed", several) as replica:
                replica.signal(signal.SIGKILL, [self._random.choice(replica.pids)])

    async def _roll(self) -> None:
        for replica in self._cluster.replicas:
            async with self._changing("rolling restart", [replica]):
                await asyncio.to_thread(replica.process.stop)
                await asyncio.to_thread(replica.start)

    # Connections ----------------------------------------------------------------------------------------------------

    async def _drop(self) -> None:
        async with self._cutting("connections dropped") as replica:
            replica.proxy.drop()

    async def _refuse(self) -> None:
        async with self._cutting("connections refused") as replica:
            replica.proxy.refuse()
            replica.proxy.drop()
            await asyncio.sleep(replica.lease * self._random.uniform(0.3, 1.5))

    async def _stall(self) -> None:
        """Cut the replica off without a word; then let everything arrive late, or break."""
        async with self._cutting("connections stalled") as replica:
            replica.proxy.stall()
            await asyncio.sleep(replica.lease * self._random.uniform(0.3, 1.8))
            if self._random.random() < 0.5:
                replica.proxy.drop()

    async def _half_open(self) -> None:
        """Let its open connections be dead without a word, while new ones work."""
        async with self._cutting("connections half-open") as replica:
            replica.proxy.stall_open_ones()
            await asyncio.sleep(replica.lease * self._random.uniform(0.5, 1.8))
            if self._random.random() < 0.5:
                replica.proxy.drop()

    async def _delay(self) -> None:
        async with self._cutting("connections slow") as replica:
            replica.proxy.delay(self._random.uniform(0.005, 0.08))
            await asyncio.sleep(replica.lease)

    # Clients with a cache -------------------------------------------------------------------------------------------

    async def _pause_client(self) -> None:
        """For longer or shorter than its lease: it wakes up in the middle of whatever it was doing."""
        async with self._hindering("client paused") as client:
            client.process.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(self._random.uniform(0.3, 3))
            finally:
                client.process.signal(signal.SIGCONT)

    async def _cut_client_off(self) -> None:
        """Without a word, or with one; then let everything arrive late, or break."""
        async with self._hindering("client cut off") as client:
            if self._random.random() < 0.3:
                client.proxy.drop()
                return
            client.proxy.stall()
            try:
                await asyncio.sleep(self._random.uniform(0.3, 3))
                if self._random.random() < 0.5:
                    client.proxy.drop()
            finally:
                client.proxy.restore()

    # The database ---------------------------------------------------------------------------------------------------

    async def _terminate_feeds(self) -> None:
        self._log.begin("feeds terminated", None)
        await self._cluster.run_sql(_FEEDS)

    async def _terminate_sessions(self) -> None:
        self._log.begin("sessions terminated", None)
        await self._cluster.run_sql(_SESSIONS)

    async def _hold_lock(self) -> None:
        """Be the session of somebody who went for lunch in the middle of a change."""
        self._log.begin("lock held", None)
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            async with self._cluster.session() as connection, connection.transaction():
                await connection.execute("SELECT latchgate_begin_change()")
                await asyncio.sleep(self._random.uniform(0.3, 3))

    async def _restart(self) -> None:
        await self._restart_postgres("PostgreSQL restarted", "fast")

    async def _crash(self) -> None:
        await self._restart_postgres("PostgreSQL crashed", "immediate")

    async def _restart_postgres(self, kind: str, mode: str) -> None:
        assert self._postgres is not None
        async with self._restarting:
            self._log.begin(kind, None)
            await asyncio.to_thread(self._postgres.restart, mode)

    # Whose turn it is -----------------------------------------------------------------------------------------------

    def _changing(self, kind: str, among: Sequence[Replica] | None = None) -> AbstractAsyncContextManager[Replica]:
        @asynccontextmanager
        async def hold() -> AsyncIterator[Replica]:
            replica = self._random.choice(among or self._cluster.replicas)
            async with replica.changing:
                self._log.begin(kind, replica)
                yield replica

        return hold()

    @asynccontextmanager
    async def _hindering(self, kind: str) -> AsyncIterator[CachedClient]:
        client = self._random.choice(self._clients)
        async with client.changing:
            self._log.begin(kind, client.replica)
            yield client

    def _cutting(self, kind: str) -> AbstractAsyncContextManager[Replica]:
        @asynccontextmanager
        async def hold() -> AsyncIterator[Replica]:
            replica = self._random.choice(self._cluster.replicas)
            async with replica.cutting:
                self._log.begin(kind, replica)
                try:
                    yield replica
                finally:
                    replica.proxy.restore()

        return hold()
