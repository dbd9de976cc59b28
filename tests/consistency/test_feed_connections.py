"""What a replica forgets when it cannot be sure, and how it lives through connections that break, stall and wake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.replication import ChangesRead, FeedLink
from latchgate_server.storage.feed_link import CHANGES_AT_ONCE, PostgresFeedLinks
from latchgate_server.system import SystemClock
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.watchers import Watchers
from tests.consistency.recording_link import RecordingLink
from tests.consistency.world import World, open_deployment, open_world


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_deployment(database_url) as deployment, open_world(deployment, replicas=1) as made:
        yield made


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
    """Opens connections that take every statement and, after some, never answer: half-open ones."""

    def __init__(self, stalling: str) -> None:
        """stalling: the statement that is not answered any more, `beat` or, once the first beat has ended, `glance`."""
        self.opened = 0
        self._stalling = stalling

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FeedLink]:
        self.opened += 1
        yield _Stalled(self._stalling)


class _Stalled(RecordingLink):
    def __init__(self, stalling: str) -> None:
        self._stalling = stalling
        self._reads = 0

    async def current_revision(self) -> int:
        return 1

    async def beat(self, replica_id: str, applied_revision: int, lease: float) -> None:
        if self._stalling == "beat":
            await asyncio.Event().wait()

    async def read_changes(self, after: int) -> ChangesRead:
        self._reads += 1
        if self._reads > 1:
            await asyncio.Event().wait()
        return ChangesRead(1, [])

    async def changed(self, seconds: float) -> bool:
        return True


@pytest.mark.parametrize("stalling", ["beat", "glance"])
async def test_a_connection_that_stalls_is_given_up_within_the_lease(stalling: str) -> None:
    links = StalledLinks(stalling)
    lease = 0.3
    feed = Feed(links, RecordCache(100), Watchers(SystemClock(), 1.0), SystemClock(), replica_id="replica", lease=lease)
    running = asyncio.get_running_loop().create_task(feed.run())
    began = SystemClock().monotonic()
    async with asyncio.timeout(30.0):
        while links.opened < 2:
            await asyncio.sleep(0.01)
    assert SystemClock().monotonic() - began > lease / 2
    running.cancel()
    await asyncio.wait({running})
    if stalling == "beat":
        assert not feed.has_lease()


TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1
"""
"""Sessions of this database whose latest statement is like $1."""


async def test_a_replica_whose_connection_is_killed_goes_on_over_another(world: World) -> None:
    links = PostgresFeedLinks(world.deployment.url, 3.0)
    feed = Feed(links, RecordCache(100), Watchers(SystemClock(), 1.0), SystemClock(), replica_id="killed", lease=3.0)
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
