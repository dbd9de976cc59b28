"""A beat: the order of its steps, the lease that it gives, and what a replica forgets when it cannot be sure.

Where the moment matters, the feed runs over a link that records; else over a real connection in a world of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.ports import Loaded
from latchgate_server.core.replication import Change, ChangesRead, FeedLink
from latchgate_server.storage.feed_link import CHANGES_AT_ONCE, PostgresFeedLinks
from latchgate_server.system import SystemClock
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.feed import Feed
from tests.consistency.world import MachineClock, Stage, World, open_deployment, open_world


class RecordingLink:
    """A FeedLink and the only one of its FeedLinks: notes each call, and what was true of the replica at its time.

    changes: what each read of changes finds. on_call: done at each call, before its answer.
    """

    def __init__(self) -> None:
        self.stage = Stage()
        self.cache = RecordCache(100)
        self.feed = Feed(self, self.cache, MachineClock(self.stage), "replica", 30.0)
        self.changes = ChangesRead(1, [])
        self.calls: list[str] = []
        self.is_hinted = False
        self.on_call: Callable[[str], None] = lambda _: None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FeedLink]:
        yield self

    def note(self, call: str) -> None:
        lease = "leased" if self.feed.has_lease() else "no lease"
        known = "in memory" if self.cache.get("key") else "evicted"
        self.calls.append(f"{call}: {lease}, {known}")
        self.on_call(call)

    async def current_revision(self) -> int:
        self.note("current revision")
        return 1

    async def beat(self, replica_id: str, applied_revision: int, lease: float) -> None:
        self.note(f"upsert {replica_id} at {applied_revision} for {lease:.0f} s")

    async def read_changes(self, after: int) -> ChangesRead:
        self.note(f"read after {after}")
        return self.changes

    async def acknowledge(self, replica_id: str, applied_revision: int) -> None:
        self.note(f"acknowledge {applied_revision}")

    async def deregister(self, replica_id: str) -> None:
        self.note("deregister")

    async def changed(self, seconds: float) -> bool:
        self.note(f"idle for {seconds:.0f} s")
        await self.stage.halt("idle")
        return self.is_hinted

    def hint(self) -> None:
        self.note("hint")


@pytest.fixture
def link() -> RecordingLink:
    """A replica that has applied revision 1 and has a key in memory, but no lease."""
    link = RecordingLink()
    link.cache.restart(1)
    link.cache.finish_load(link.cache.begin_load(), "key", Loaded(None, 1))
    return link


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_deployment(database_url) as deployment, open_world(deployment, replicas=1) as made:
        yield made


# The order of the steps -----------------------------------------------------------------------------------------------


async def test_a_beat_upserts_reads_evicts_takes_the_lease_and_acknowledges_in_this_order(link: RecordingLink) -> None:
    link.changes = ChangesRead(3, [Change("key", "key")])
    await link.feed.beat(link)
    assert link.calls == [
        "upsert replica at 1 for 30 s: no lease, in memory",
        "read after 1: no lease, in memory",
        "acknowledge 3: leased, evicted",
    ]
    assert link.cache.applied_revision == 3


async def test_a_beat_that_found_nothing_new_has_said_so_already(link: RecordingLink) -> None:
    await link.feed.beat(link)
    assert link.calls == [
        "upsert replica at 1 for 30 s: no lease, in memory",
        "read after 1: no lease, in memory",
    ]
    assert link.feed.has_lease()


@pytest.mark.parametrize("failing", ["upsert replica at 1 for 30 s", "read after 1"])
async def test_a_beat_that_fails_gives_no_lease_and_acknowledges_nothing(failing: str, link: RecordingLink) -> None:
    def fail(call: str) -> None:
        if call == failing:
            raise StoreUnavailable("gone")

    link.on_call = fail
    with pytest.raises(StoreUnavailable):
        await link.feed.beat(link)
    assert link.calls[-1].startswith(failing)
    assert not link.feed.has_lease()
    assert link.cache.applied_revision == 1


async def test_a_beat_whose_acknowledgement_fails_has_given_the_lease_all_the_same(link: RecordingLink) -> None:
    def fail(call: str) -> None:
        if call.startswith("acknowledge"):
            raise StoreUnavailable("gone")

    link.on_call = fail
    link.changes = ChangesRead(2, [])
    with pytest.raises(StoreUnavailable):
        await link.feed.beat(link)
    assert link.feed.has_lease()


@pytest.mark.parametrize("slow", ["upsert", "read", "acknowledge"])
async def test_a_lease_counts_from_before_the_upsert_and_ends_a_margin_early(slow: str, link: RecordingLink) -> None:
    def take_long(call: str) -> None:
        if call.startswith(slow):
            link.stage.time += 20.0

    link.on_call = take_long
    link.changes = ChangesRead(2, [])
    await link.feed.beat(link)
    link.stage.time = 26.9
    assert link.feed.has_lease()
    link.stage.time = 27.0
    assert not link.feed.has_lease()


async def test_a_beat_that_took_longer_than_the_lease_gives_none(link: RecordingLink) -> None:
    def take_long(call: str) -> None:
        if call.startswith("read"):
            link.stage.time += 27.1

    link.on_call = take_long
    await link.feed.beat(link)
    assert not link.feed.has_lease()


async def test_a_glance_reads_evicts_and_acknowledges_and_leaves_the_lease_as_it_is(link: RecordingLink) -> None:
    link.changes = ChangesRead(3, [Change("key", "key")])
    await link.feed.glance(link)
    assert link.calls == ["read after 1: no lease, in memory", "acknowledge 3: no lease, evicted"]
    await link.feed.beat(link)
    link.stage.time = 26.9
    await link.feed.glance(link)
    assert link.feed.has_lease()
    link.stage.time = 27.0
    assert not link.feed.has_lease()


async def test_a_glance_that_found_nothing_new_says_nothing(link: RecordingLink) -> None:
    await link.feed.glance(link)
    assert link.calls == ["read after 1: no lease, in memory"]


async def test_hints_are_followed_by_glances_and_put_no_beat_off(link: RecordingLink) -> None:
    running = await link.stage.start(link.feed.run())
    link.is_hinted = True
    for _ in range(3):
        link.stage.time += 4.0
        await link.stage.resume(running)
    assert [call.partition(":")[0] for call in link.calls[3:]] == [
        "idle for 10 s",
        "read after 1",
        "idle for 6 s",
        "read after 1",
        "idle for 2 s",
        "read after 1",
        "upsert replica at 1 for 30 s",
        "read after 1",
        "idle for 10 s",
    ]
    running.cancel()
    await asyncio.wait({running})


async def test_a_replica_beats_three_times_in_a_lease_and_leaves_in_order(link: RecordingLink) -> None:
    running = await link.stage.start(link.feed.run())
    await link.stage.resume(running)
    link.feed.stop()
    await link.stage.resume(running)
    assert link.calls == [
        "current revision: no lease, in memory",
        "upsert replica at 1 for 30 s: no lease, evicted",
        "read after 1: no lease, evicted",
        "idle for 10 s: leased, evicted",
        "upsert replica at 1 for 30 s: leased, evicted",
        "read after 1: leased, evicted",
        "idle for 10 s: leased, evicted",
        "hint: leased, evicted",
        "deregister: no lease, evicted",
    ]
    assert running.done()


# What is forgotten ----------------------------------------------------------------------------------------------------


async def test_a_new_connection_evicts_everything_and_begins_without_lease(world: World) -> None:
    (replica,) = world.replicas
    key = await world.new_key()
    await replica.beat()
    await replica.verify(key)
    await replica.drop()
    assert replica.feed.is_lost
    assert replica.feed.has_lease()
    assert replica.cache.get(key.key_id)
    await replica.run_to("before start")
    assert not replica.feed.has_lease()
    await replica.run_to("before upsert")
    assert not replica.cache.get(key.key_id)
    assert replica.cache.applied_revision == await world.sql("SELECT revision FROM revision_clock")
    await replica.run_to("idle")
    assert replica.feed.has_lease()
    assert not replica.feed.is_lost


async def test_revisions_may_run_lower_after_a_failover(world: World) -> None:
    (replica,) = world.replicas
    await world.sql("SELECT latchgate_begin_change()")
    before = await world.sql("SELECT latchgate_begin_change()")
    await replica.beat()
    assert replica.cache.applied_revision == before
    await world.promote()
    await world.sql("UPDATE revision_clock SET revision = revision - 1")
    await replica.run_to("idle")
    assert replica.cache.applied_revision == before - 1
    assert replica.feed.has_lease()


async def test_a_pruned_change_is_made_up_for_by_evicting_everything(world: World) -> None:
    (replica,) = world.replicas
    key, other = await world.new_key(), await world.new_key()
    await replica.beat()
    await replica.verify(key)
    await world.sql("UPDATE keys SET description = 'new' WHERE key_id = $1", other.key_id)
    await world.deployment.store.prune_changes(older_than=0.0)
    await replica.beat()
    assert not replica.cache.get(key.key_id)


async def test_pruning_what_a_replica_has_read_evicts_nothing(world: World) -> None:
    (replica,) = world.replicas
    key = await world.new_key()
    await replica.beat()
    await replica.verify(key)
    await world.deployment.store.prune_changes(older_than=0.0)
    await replica.beat()
    assert replica.cache.get(key.key_id)


@pytest.mark.parametrize(("count", "stays"), [(CHANGES_AT_ONCE, True), (CHANGES_AT_ONCE + 1, False)])
async def test_up_to_5_000_changes_are_evicted_one_by_one(count: int, stays: bool, world: World) -> None:
    (replica,) = world.replicas
    key = await world.new_key()
    await replica.beat()
    await replica.verify(key)
    statement = "INSERT INTO changes (revision, entity, id) SELECT $1, 'key', n::text FROM generate_series(1, $2) AS n"
    await world.sql(statement, await world.sql("SELECT latchgate_begin_change()"), count)
    await replica.beat()
    assert (replica.cache.get(key.key_id) is not None) is stays


async def test_a_statement_by_hand_on_more_than_1_000_rows_evicts_everything(world: World) -> None:
    (replica,) = world.replicas
    key = await world.new_key()
    await replica.beat()
    await replica.verify(key)
    roles = "INSERT INTO roles (role_id, display_name, description, permissions, claims, allow_act_as)"
    await world.sql(f"{roles} SELECT 'role-' || n, '', '', '{{}}', '{{}}', false FROM generate_series(1, 1001) AS n")
    await replica.beat()
    assert not replica.cache.get(key.key_id)


# One beat for all who need a fresh one --------------------------------------------------------------------------------


async def test_everybody_who_asks_during_a_beat_shares_the_next(world: World) -> None:
    (replica,) = world.replicas
    await replica.run_to("after read")
    waiting = [asyncio.get_running_loop().create_task(replica.feed.next_look()) for _ in range(3)]
    await asyncio.sleep(0)
    await replica.run_to("idle")
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    await replica.run_to("idle")
    await asyncio.gather(*waiting)


async def test_who_asks_for_a_beat_that_fails_is_told_all_the_same(world: World) -> None:
    (replica,) = world.replicas
    waiting = asyncio.get_running_loop().create_task(replica.feed.next_look())
    await asyncio.sleep(0)
    await replica.run_to("before upsert")
    await replica.drop()
    await waiting


async def test_who_asks_for_a_beat_without_connection_does_not_wait(world: World) -> None:
    (replica,) = world.replicas
    await replica.drop()
    await replica.feed.next_look()


# Real connections that break, stall and wake --------------------------------------------------------------------------


class StalledLinks:
    """Opens connections that take every statement and never answer: half-open ones."""

    def __init__(self) -> None:
        self.opened = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FeedLink]:
        self.opened += 1
        yield _Stalled()


class _Stalled(RecordingLink):
    def __init__(self) -> None:
        pass

    async def current_revision(self) -> int:
        return 1

    async def beat(self, replica_id: str, applied_revision: int, lease: float) -> None:
        await asyncio.Event().wait()


async def test_a_connection_that_stalls_is_given_up_within_the_lease() -> None:
    links = StalledLinks()
    lease = 0.3
    feed = Feed(links, RecordCache(100), SystemClock(), "replica", lease)
    running = asyncio.get_running_loop().create_task(feed.run())
    began = SystemClock().monotonic()
    while links.opened < 2:
        await asyncio.sleep(0.01)
    assert SystemClock().monotonic() - began > lease / 2
    assert not feed.has_lease()
    running.cancel()
    await asyncio.wait({running})


TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1
"""
"""Sessions of this database whose latest statement is like $1."""


async def test_a_replica_whose_connection_is_killed_goes_on_over_another(world: World) -> None:
    links = PostgresFeedLinks(world.deployment.url, 3.0)
    feed = Feed(links, RecordCache(100), SystemClock(), "killed", 3.0)
    running = asyncio.get_running_loop().create_task(feed.run())
    await feed.has_beaten.wait()
    first = feed.last_beat_at
    await world.sql(TERMINATE, "%pruned_revision%")
    async with asyncio.timeout(30.0):
        while feed.last_beat_at == first:
            await asyncio.sleep(0.01)
    assert feed.has_lease()
    feed.stop()
    await running


async def test_a_commit_wakes_a_replica_that_idles(world: World) -> None:
    async with PostgresFeedLinks(world.deployment.url, 30.0).open() as link:
        idling = asyncio.get_running_loop().create_task(link.changed(60.0))
        await world.sql("UPDATE tenants SET display_name = 'new'")
        async with asyncio.timeout(30.0):
            await idling


async def test_the_end_of_its_connection_wakes_a_replica_that_idles(world: World) -> None:
    """The next beat would find it as well, a third of a lease later."""
    async with PostgresFeedLinks(world.deployment.url, 30.0).open() as link:
        idling = asyncio.get_running_loop().create_task(link.changed(60.0))
        await world.sql(TERMINATE, "LISTEN %")
        async with asyncio.timeout(30.0):
            await idling
        with pytest.raises(StoreUnavailable):
            await link.current_revision()
