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
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
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
from latchgate_server.core.model import Key, Question, Tenant
from latchgate_server.core.permissions import parse_requirement
from latchgate_server.core.verification import Verification
from latchgate_server.hashing import NewCredential, Peppers
from latchgate_server.storage.feed_link import PostgresFeedLinks
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.quota_ledger import PostgresQuotaLedger
from latchgate_server.storage.store import PostgresStore
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.limits import LimitCharger
from latchgate_server.verify.loader import RecordLoader
from latchgate_server.verify.outage import Outage
from latchgate_server.verify.quotas import Quotas
from latchgate_server.verify.rates import LocalRates
from latchgate_server.verify.verifier import Verifier
from latchgate_server.verify.watchers import Watchers
from tests.consistency.stage import CLIENT_LEASE, LEASE, MachineClock, Stage
from tests.consistency.stand_ins import HaltingLinks, HaltingTable, HeldReader, NoRenewal, NoUsage, QuickHasher

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
T = TypeVar("T")


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
        self.watchers = Watchers(clock, CLIENT_LEASE)
        self.reader = HeldReader(deployment.pool, stage)
        self.feed = Feed(self._links, self.cache, self.watchers, clock, replica_id=self.replica_id, lease=lease)
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
