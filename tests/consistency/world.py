"""Replicas and a mutator in one process, on a real PostgreSQL, in a world that only the test moves.

Time stands still until the test lets it pass. What runs is the code that serves: each replica has its own cache,
loader, feed, verifier and clock. A feed runs over a real connection, but halts before and after each of its statements
and goes on when the test says so. So a test can pause a replica anywhere, break its connection before a statement
arrives or before the answer does, hold a load, and let a mutation wait at the barrier meanwhile. Every notification is
lost here, but for those that the test lets a replica hear.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncpg

from latchgate_server.admin.access import Access, Caller
from latchgate_server.admin.barrier import Barrier, Propagation
from latchgate_server.admin.first_administrator import FirstAdministrator
from latchgate_server.admin.imports import ImportDraft, Imports
from latchgate_server.admin.keys import Keys
from latchgate_server.admin.mutations import Mutations
from latchgate_server.admin.paging import PageTokens
from latchgate_server.admin.roles import Roles
from latchgate_server.admin.tenants import Tenants
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.model import Key, Question, SecretHash, Tenant
from latchgate_server.core.permissions import parse_requirement
from latchgate_server.core.ports import FormsRead, Loaded
from latchgate_server.core.record import Record
from latchgate_server.core.replication import Acknowledgements, ChangesRead, FeedLink, FeedLinks, Replicas
from latchgate_server.core.verification import Verification
from latchgate_server.hashing import NewCredential, Peppers, SecretHasher
from latchgate_server.storage.feed_link import PostgresFeedLinks
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.quota_ledger import PostgresQuotaLedger
from latchgate_server.storage.reader import PostgresReader
from latchgate_server.storage.replica_table import PostgresReplicaTable
from latchgate_server.storage.store import PostgresStore
from latchgate_server.system import SystemEntropy
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.limits import LimitCharger
from latchgate_server.verify.loader import RecordLoader
from latchgate_server.verify.outage import Outage
from latchgate_server.verify.quotas import Quotas
from latchgate_server.verify.rates import LocalRates
from latchgate_server.verify.verifier import Verifier

LEASE = 30.0
"""Seconds of the world's time. Code that limits real time by the lease has plenty."""

READ = "orders.read"
WRITE = "orders.write"

_VERBS = ("enable", "disable", "expire", "revoke", "delete")
_METHODS = (
    "CreateTenant",
    "EnableTenant",
    "DisableTenant",
    "CreateRole",
    "CreateKey",
    "UpdateKey",
    "ImportKeys",
) + tuple(f"{verb.title()}Key" for verb in _VERBS)
_REAL_SECONDS = 30.0  # nothing takes this long, so whatever does hangs
_WALL = 1_000_000_000.0  # years before the database's: no decision here may compare the two

T = TypeVar("T")

_started: ContextVar[asyncio.Task[Any] | None] = ContextVar("_started", default=None)
"""What the test started, for all tasks that came of it."""


@dataclass(slots=True)
class _Halt:
    """Where a task stands still, and until when, unless the test lets it go on before.

    of: what the test started, and so waits for; the task itself, or one that had it do part of its work.
    """

    where: str
    until: float
    go: asyncio.Future[None]
    of: asyncio.Task[Any]


class Stage:
    """Time, and who stands still."""

    def __init__(self) -> None:
        self.time = 0.0
        self._halts: dict[asyncio.Task[Any], _Halt] = {}
        self._moved = asyncio.Event()

    async def halt(self, where: str, until: float = math.inf) -> None:
        """Called by what is tested: stand still until the test goes on, or until that time has come."""
        task = asyncio.current_task()
        assert task is not None
        halt = _Halt(where, until, asyncio.get_running_loop().create_future(), _started.get() or task)
        self._halts[task] = halt
        self._moved.set()
        try:
            await halt.go
        finally:
            if self._halts.get(task) is halt:
                del self._halts[task]

    def where(self, task: asyncio.Task[Any]) -> str:
        """Where the task stands still; empty while it moves or once it has ended."""
        halted = self._halted(task)
        return self._halts[halted].where if halted else ""

    def halted_at(self, where: str) -> asyncio.Task[Any] | None:
        """A task that stands still there."""
        return next((task for task, halt in self._halts.items() if halt.where == where), None)

    async def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work until it has ended or stands still."""

        async def started() -> T:
            _started.set(asyncio.current_task())
            return await work

        task = asyncio.get_running_loop().create_task(started())
        await self.settle(task)
        return task

    async def resume(self, task: asyncio.Task[Any], error: Exception | None = None) -> None:
        """Let a task go on, or fail where it stands, until it has ended or stands still again."""
        halted = self._halted(task)
        assert halted is not None
        halt = self._halts.pop(halted)
        if error is None:
            halt.go.set_result(None)
        else:
            halt.go.set_exception(error)
        # What was started may be cancelled, and a part of its work go on.
        await self.settle(halted if halt.of.done() else halt.of)

    def _halted(self, task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
        """The task that stands still: itself, or one that it started for a part of its work."""
        return next((halted for halted, halt in self._halts.items() if task in (halted, halt.of)), None)

    async def settle(self, task: asyncio.Task[Any], unless: Callable[[], bool] = lambda: False) -> None:
        """Return once the task has ended or stands still, or `unless` is true."""
        task.add_done_callback(lambda _: self._moved.set())
        async with asyncio.timeout(_REAL_SECONDS):
            while not (task.done() or self._halted(task) or unless()):
                self._moved.clear()
                await self._moved.wait()

    async def advance(self, seconds: float) -> None:
        """Let time pass; whoever only waited for it goes on."""
        self.time += seconds
        for task, halt in sorted(self._halts.items(), key=lambda item: item[1].until):
            if halt.until <= self.time and self._halts.get(task) is halt:
                await self.resume(task)

    async def close(self) -> None:
        """End whoever still stands."""
        tasks = list(self._halts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class MachineClock:
    """The clock of one machine: implements ports.Clock. Each begins at another time, and rates differ a little."""

    def __init__(self, stage: Stage, began: float = 1.0, rate: float = 1.0) -> None:
        self._stage, self._began, self._rate = stage, began, rate

    def now(self) -> float:
        return _WALL + self._stage.time

    def monotonic(self) -> float:
        return self._began + self._stage.time * self._rate

    async def sleep(self, seconds: float) -> None:
        await self._stage.halt("asleep", self._stage.time + seconds / self._rate)


class HaltingLink:
    """A feed connection that halts before each statement, and again before its answer is seen.

    is_cut: whether its server is gone, which its next statement will find. is_hinted: whether it ends its idling for a
    glance, rather than for the beat that is due.
    """

    def __init__(self, link: FeedLink, stage: Stage) -> None:
        self._link, self._stage = link, stage
        self.is_cut = False
        self.is_hinted = False

    async def _halting(self, name: str, statement: Coroutine[Any, Any, T]) -> T:
        try:
            await self._stage.halt(f"before {name}")
            if self.is_cut:
                raise StoreUnavailable("cut")
            answer = await statement
        finally:
            statement.close()
        await self._stage.halt(f"after {name}")
        return answer

    async def current_revision(self) -> int:
        return await self._halting("start", self._link.current_revision())

    async def beat(self, replica_id: str, applied_revision: int, lease: float) -> None:
        await self._halting("upsert", self._link.beat(replica_id, applied_revision, lease))

    async def read_changes(self, after: int) -> ChangesRead:
        return await self._halting("read", self._link.read_changes(after))

    async def acknowledge(self, replica_id: str, applied_revision: int) -> None:
        await self._halting("acknowledge", self._link.acknowledge(replica_id, applied_revision))

    async def deregister(self, replica_id: str) -> None:
        await self._halting("deregister", self._link.deregister(replica_id))

    async def changed(self, seconds: float) -> bool:
        await self._stage.halt("idle")
        hinted, self.is_hinted = self.is_hinted, False
        return hinted

    def hint(self) -> None:
        """As the verifier does, which then waits: here for a whole beat."""


class HaltingLinks:
    """Opens feed connections that halt; `current` is the newest."""

    def __init__(self, links: FeedLinks, stage: Stage) -> None:
        self._links, self._stage = links, stage
        self.current: HaltingLink | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FeedLink]:
        async with self._links.open() as link:
            self.current = HaltingLink(link, self._stage)
            yield self.current


class HeldReader(PostgresReader):
    """Halts once between a load's query and its answer, where `hold` says at which name; `hold_forms`: for forms."""

    def __init__(self, pool: asyncpg.Pool, stage: Stage) -> None:
        super().__init__(pool, LEASE)
        self._stage = stage
        self.hold = self.hold_forms = ""

    async def read_forms(self, after: tuple[int, str], limit: int) -> FormsRead:
        hold, self.hold_forms = self.hold_forms, ""
        found = await super().read_forms(after, limit)
        if hold:
            await self._stage.halt(hold)
        return found

    async def load_records(self, key_ids: Sequence[str]) -> Mapping[str, Loaded]:
        hold, self.hold = self.hold, ""
        found = await super().load_records(key_ids)
        if hold:
            await self._stage.halt(hold)
        return found


class QuickHasher(SecretHasher):
    """Takes the tag of a secret for proof enough: Argon2 has no part in this.

    It can foretell credentials before the keys are made, so that a replica may meet a key that does not exist yet.
    """

    def __init__(self, peppers: Peppers, tag_key: bytes) -> None:
        super().__init__(peppers, tag_key, SystemEntropy(), threads=1)
        self._foretold: deque[NewCredential] = deque()

    async def proves(self, key_id: str, secret: str, sealed: SecretHash) -> bool:
        return not self.refuses(key_id, secret, sealed)

    def foretell(self) -> NewCredential:
        """The credential of the next key that is made."""
        self._foretold.append(super().make_credential("lg"))
        return self._foretold[-1]

    def make_credential(self, prefix: str) -> NewCredential:
        return self._foretold.popleft() if self._foretold else super().make_credential(prefix)

    def forget(self) -> None:
        """Foretell nothing any more."""
        self._foretold.clear()


class NoRenewal:
    """Implements ports.RenewsHashes: nothing here has an old hash."""

    def renew(self, key_id: str, secret: str, sealed: SecretHash) -> None:
        raise AssertionError(key_id)


class NoUsage:
    """Implements ports.RecordsUsage: nobody here asks what keys are used for."""

    def record(self, verification: Verification, question: Question, record: Record | None) -> None:
        """Forget it."""


class HaltingTable(PostgresReplicaTable):
    """The rows of `replicas`. Whoever waits for acknowledgements hears none, and polls as the world's time passes.

    hold: whether the next mutation halts before it reads them.
    """

    def __init__(self, pool: asyncpg.Pool, url: str, clock: MachineClock, stage: Stage) -> None:
        super().__init__(pool, url, LEASE)
        self._clock, self._stage = clock, stage
        self.hold = False

    async def read(self) -> Replicas:
        hold, self.hold = self.hold, False
        if hold:
            await self._stage.halt("before rows")
        return await super().read()

    @asynccontextmanager
    async def acknowledgements(self) -> AsyncIterator[Acknowledgements]:
        yield _Deaf(self._clock)


class _Deaf:
    def __init__(self, clock: MachineClock) -> None:
        self._clock = clock

    async def wait(self, replica_ids: Collection[str], revision: int, seconds: float) -> None:
        await self._clock.sleep(seconds)


@dataclass(slots=True, kw_only=True)
class Deployment:
    """A database with its first administrator, which several worlds may use one after the other."""

    url: str
    pool: asyncpg.Pool
    store: PostgresStore
    peppers: Peppers
    hasher: QuickHasher
    callers: Mapping[str, Caller]
    numbers: itertools.count[int]


@asynccontextmanager
async def open_deployment(url: str) -> AsyncIterator[Deployment]:
    """Connect to a migrated database and make its first administrator."""
    async with AsyncExitStack() as stack:
        pool = await create_pool(url, LEASE, 8)
        stack.callback(pool.terminate)
        store = PostgresStore(pool, LEASE)
        peppers = Peppers([bytes(32)])
        hasher = QuickHasher(peppers, await store.key_id_tag_key())
        stack.callback(hasher.close)
        told: list[str] = []
        await FirstAdministrator(store, hasher, peppers, "lg").create(told.append)
        deployment = Deployment(
            url=url,
            pool=pool,
            store=store,
            peppers=peppers,
            hasher=hasher,
            callers={},
            numbers=itertools.count(1),
        )
        verifier = Replica(deployment, Stage(), LEASE, 1.0).verifier
        access = Access(verifier, MachineClock(Stage()))
        deployment.callers = {method: await access.admit(method, told[0], "", "") for method in _METHODS}
        yield deployment


class Replica:
    """One process that verifies; `at` is where its feed stands still."""

    def __init__(self, deployment: Deployment, stage: Stage, lease: float = LEASE, rate: float = 1.0) -> None:
        """rate: how fast its clock runs, in its own seconds for each second of the world."""
        number = next(deployment.numbers)
        self.replica_id, self.lease, self._stage = f"replica-{number}", lease, stage
        clock = MachineClock(stage, 100.0 * number, rate)
        self._links = HaltingLinks(PostgresFeedLinks(deployment.url, lease), stage)
        self.cache = RecordCache(100)
        self.reader = HeldReader(deployment.pool, stage)
        self.feed = Feed(self._links, self.cache, clock, self.replica_id, lease)
        self.verifier = Verifier(
            cache=self.cache,
            loader=RecordLoader(self.reader, self.cache),
            feed=self.feed,
            outage=Outage(self.feed, clock, serve_cached=False, max_staleness=0.0),
            hasher=deployment.hasher,
            renewal=NoRenewal(),
            limits=LimitCharger(
                LocalRates(clock), None, Quotas(PostgresQuotaLedger(deployment.pool), clock), clock, processes=lambda: 1
            ),
            usage=NoUsage(),
            clock=clock,
        )

    @property
    def at(self) -> str:
        return self._stage.where(self.following)

    async def open(self) -> None:
        """Start the feed; it halts before its first statement."""
        self.following = await self._stage.start(self.feed.run())

    async def step(self) -> str:
        """Let the feed go on to where it halts next."""
        await self._stage.resume(self.following)
        return self.at

    async def run_to(self, where: str) -> None:
        """Let the feed go on until it halts there."""
        for _ in range(40):
            if await self.step() == where:
                return
        raise AssertionError(f"the feed never comes to: {where}")

    async def beat(self) -> None:
        """Finish the beat that is under way, if any, and make a whole one."""
        if self.at != "idle":
            await self.run_to("idle")
        await self.run_to("idle")

    async def drop(self) -> None:
        """Break the feed's connection where it stands; the next one is opened when time passes, or by `step`."""
        if self.at != "asleep":
            await self._stage.resume(self.following, StoreUnavailable("dropped"))

    def notify(self) -> None:
        """Let it hear that something changed: when it idles, it glances at the changes before it beats."""
        if self._links.current is not None:
            self._links.current.is_hinted = True

    def cut(self) -> None:
        """Let the server of the feed's connection be gone, without a sign of it until the next statement."""
        if self._links.current is not None:
            self._links.current.is_cut = True

    async def crash(self) -> None:
        """End at once, without a word to anybody."""
        self.following.cancel()
        await asyncio.wait({self.following})

    def forget(self, credential: NewCredential) -> None:
        """Let the key's record go from memory, as one goes that others need the room of."""
        self.cache._drop(credential.key_id)

    async def stop(self) -> None:
        """End in order, as on SIGTERM."""
        self.feed.stop()
        while not self.following.done():
            await self.step()

    async def ask(self, key_string: str) -> Verification:
        """Decide about a credential of any form."""
        return await self.verifier.verify(key_string, Question())

    async def verify(self, credential: NewCredential, permission: str = READ, at_least: int = 0) -> Verification:
        """Decide about a key."""
        question = Question(requirement=parse_requirement(permission))
        return await self.verifier.verify(credential.key_string, question, at_least)


_TIMELINE = """
CREATE OR REPLACE FUNCTION latchgate_timeline() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT 'timeline {}' $$
"""


class World:
    """Replicas, a mutator on a machine of its own, and a tenant with a name of its own; made by `open_world`."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment, self.stage = deployment, Stage()
        self.replicas: list[Replica] = []
        self.tenant_id = f"tenant-{next(deployment.numbers)}"
        clock, store = MachineClock(self.stage), deployment.store
        self.table = HaltingTable(deployment.pool, deployment.url, clock, self.stage)
        self.barrier = Barrier(self.table, clock)
        access = Access(Replica(deployment, self.stage).verifier, clock)
        mutations = Mutations(store, access, deployment.peppers, self.barrier)
        tokens = PageTokens(deployment.peppers)
        self.tenants = Tenants(store.read, mutations, tokens)
        self.roles = Roles(store.read, mutations, tokens)
        self.keys = Keys(store.read, mutations, tokens, deployment.hasher, "lg")
        self.imports = Imports(store.read, mutations, deployment.hasher, clock, "lg")

    def caller(self, method: str) -> Caller:
        """The first administrator, let in to an RPC."""
        return self.deployment.callers[method]

    async def start(self, lease: float = LEASE, rate: float = 1.0) -> Replica:
        """Start another replica; its feed halts before its first statement."""
        replica = Replica(self.deployment, self.stage, lease, rate)
        self.replicas.append(replica)
        await replica.open()
        return replica

    async def sql(self, statement: str, *arguments: object) -> Any:
        """Run a statement by hand; returns its first value."""
        return await self.deployment.pool.fetchval(statement, *arguments)

    async def promote(self, *lost: Replica, noticed: bool = True) -> None:
        """Move to another primary that lacks the rows of some replicas.

        noticed: whether replicas see at once that their connections to the old one are broken.
        """
        for replica in self.replicas:
            replica.cut()
            if noticed:
                await replica.drop()
        await self.sql(_TIMELINE.format(next(self.deployment.numbers)))
        await self.sql("DELETE FROM replicas WHERE replica_id = ANY ($1)", [replica.replica_id for replica in lost])

    async def commit(self) -> Propagation:
        """Commit a change of nothing, and wait for it at the barrier."""
        revision = await self.sql("SELECT latchgate_begin_change()")
        return await self.barrier.wait(revision, await self.timeline())

    async def timeline(self) -> str:
        """The one that the database is on."""
        return str(await self.sql("SELECT latchgate_timeline()"))

    # Mutations ------------------------------------------------------------------------------------------------------

    def change(self, verb: str, key_id: str) -> Coroutine[Any, Any, Any]:
        """Enable, disable, expire, revoke or delete a key."""
        method = getattr(self.keys, verb)
        return method(self.caller(f"{verb.title()}Key"), key_id, "")  # type: ignore[no-any-return]  # by name

    def import_key(self, draft: ImportDraft) -> Coroutine[Any, Any, Any]:
        """Take over a key of another system."""
        return self.imports.run(self.caller("ImportKeys"), [draft])

    def revoke(self, credential: NewCredential) -> Coroutine[Any, Any, Any]:
        return self.change("revoke", credential.key_id)

    async def new_key(self, *, tenant_id: str = "", role_ids: tuple[str, ...] = ()) -> NewCredential:
        """A key that may read, once every replica knows."""
        draft = Key(key_id="", tenant_id=tenant_id or self.tenant_id, permissions=(READ,), role_ids=role_ids)
        _, credential, _ = await self.done(self.keys.create(self.caller("CreateKey"), draft, "", None))
        assert credential is not None
        return credential

    async def done(self, mutation: Coroutine[Any, Any, T]) -> T:
        """Start a mutation and see that it returns."""
        return await self.returned(await self.stage.start(mutation))

    async def returned(self, mutation: asyncio.Task[T]) -> T:
        """Let every replica beat, and time pass, until a mutation returns."""
        await self.come_to_an_end(mutation)
        return mutation.result()

    async def come_to_an_end(self, mutation: asyncio.Task[Any]) -> None:
        """Likewise, or until it fails."""
        if self.stage.where(mutation) == "before rows":
            await self.stage.resume(mutation)
        for _ in range(100):
            for replica in self.replicas:
                if not mutation.done():
                    await replica.beat()
            if not mutation.done():
                await self.stage.advance(1.0)
        assert mutation.done()


@asynccontextmanager
async def open_world(deployment: Deployment, replicas: int = 0) -> AsyncIterator[World]:
    """A world in which that many replicas have just beaten."""
    pool = deployment.pool
    await pool.execute("UPDATE trusted_timeline SET timeline = latchgate_timeline()")
    await pool.execute("DELETE FROM replicas")
    world = World(deployment)
    try:
        tenant = Tenant(tenant_id=world.tenant_id)
        await world.done(world.tenants.create(world.caller("CreateTenant"), tenant))
        for _ in range(replicas):
            await (await world.start()).run_to("idle")
        yield world
    finally:
        await world.stage.close()
        deployment.hasher.forget()
