"""The wait after a mutation when the database does not answer, and how acknowledgements are heard of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from latchgate_server.admin.barrier import Barrier
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.replication import Acknowledgements, Replica, Replicas
from latchgate_server.storage.feed_link import PostgresFeedLinks
from latchgate_server.storage.replica_table import PostgresReplicaTable
from tests.consistency.stage import MachineClock, Stage
from tests.consistency.world import World, open_deployment, open_world

TIMELINE = "the only one"


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_deployment(database_url) as deployment, open_world(deployment, replicas=2) as made:
        yield made


# Without the database -------------------------------------------------------------------------------------------------


@dataclass
class Rows:
    """A ReplicaTable in memory, on a database that can go away.

    comes_back: with the first row that is to be forgotten.
    """

    stage: Stage
    clock: MachineClock
    rows: list[Replica] = field(default_factory=list)
    expired: list[Replica] = field(default_factory=list)
    is_gone: bool = False
    comes_back: bool = False
    timeline: str = TIMELINE

    async def read(self) -> Replicas:
        self._ask()
        return Replicas(list(self.rows), self.timeline, is_complete=True)

    async def expire(self, replica: Replica, timeline: str) -> None:
        self.expired.append(replica)
        self.is_gone = self.is_gone and not self.comes_back
        self._ask()

    async def trust(self, timeline: str) -> None:
        raise AssertionError("nothing was promoted")

    @asynccontextmanager
    async def acknowledgements(self) -> AsyncIterator[Acknowledgements]:
        yield self

    async def wait(self, revision: int, seconds: float) -> None:
        await self.clock.sleep(seconds)

    def _ask(self) -> None:
        if self.is_gone:
            raise StoreUnavailable("gone")


@pytest.fixture
def table() -> Rows:
    """Two replicas that have applied revision 5."""
    stage = Stage()
    rows = [Replica("a", 5, 30.0, beat=1), Replica("b", 5, 10.0, beat=2)]
    return Rows(stage, MachineClock(stage), rows)


async def test_a_mutation_whose_database_goes_away_waits_for_the_leases_and_is_not_sure_that_it_stands(
    table: Rows,
) -> None:
    change = await table.stage.start(Barrier(table, table.clock).wait(6, TIMELINE))
    table.is_gone = True
    await table.stage.advance(11.1)
    assert not change.done()
    await table.stage.advance(21.8)
    assert not change.done()
    await table.stage.advance(0.2)
    with pytest.raises(StoreUnavailable, match="still stands; make it again"):
        change.result()
    assert [replica.replica_id for replica in table.expired] == ["b", "a"]


@pytest.mark.parametrize(("timeline", "stands"), [(TIMELINE, True), ("another one", False)])
async def test_a_mutation_whose_database_comes_back_as_the_leases_end_looks_whether_it_stands(
    timeline: str, stands: bool, table: Rows
) -> None:
    change = await table.stage.start(Barrier(table, table.clock).wait(6, TIMELINE))
    table.is_gone = True
    table.timeline = timeline
    table.comes_back = True
    await table.stage.advance(33.1)
    if stands:
        assert (change.result().replicas_confirmed, change.result().leases_expired) == (0, 2)
    else:
        with pytest.raises(StoreUnavailable, match="failed over"):
            change.result()


async def test_a_mutation_whose_database_comes_back_hears_of_acknowledgements_again(table: Rows) -> None:
    change = await table.stage.start(Barrier(table, table.clock).wait(6, TIMELINE))
    table.is_gone = True
    await table.stage.advance(5.0)
    table.is_gone = False
    table.rows = [Replica("a", 6, 30.0, beat=3)]
    await table.stage.advance(0.05)
    assert change.result().replicas_confirmed == 1


async def test_a_mutation_that_cannot_read_the_rows_does_not_return_as_if_it_had_waited(table: Rows) -> None:
    table.is_gone = True
    with pytest.raises(StoreUnavailable):
        await Barrier(table, table.clock).wait(6, TIMELINE)


# Hearing of acknowledgements ------------------------------------------------------------------------------------------


async def _hears(waiting: asyncio.Task[Any]) -> bool:
    done, _ = await asyncio.wait({waiting}, timeout=10.0)
    return bool(done)


@pytest.fixture
async def table_with_ears(world: World) -> AsyncIterator[PostgresReplicaTable]:
    """For replicas that a test makes by hand: the world's own are gone."""
    await world.sql("DELETE FROM replicas")
    table = PostgresReplicaTable(world.deployment.pool, world.deployment.url, 30.0)
    yield table
    table.close()


async def test_the_last_acknowledgement_wakes_everybody_who_waits(
    world: World, table_with_ears: PostgresReplicaTable
) -> None:
    table, links = table_with_ears, PostgresFeedLinks(world.deployment.url, 30.0)
    async with (
        links.open() as link,
        table.acknowledgements() as first,
        table.acknowledgements() as second,
    ):
        await link.beat("somebody", 6, 30.0)
        loop = asyncio.get_running_loop()
        waiting = [loop.create_task(each.wait(7, 20.0)) for each in (first, second)]
        await link.acknowledge("somebody", 7)
        assert [await _hears(task) for task in waiting] == [True, True]
    async with links.open() as link, table.acknowledgements() as again:
        leaving = asyncio.get_running_loop().create_task(again.wait(8, 20.0))
        await link.deregister("somebody")
        assert await _hears(leaving)


async def test_nobody_is_woken_before_all_replicas_have_come_far_enough(
    world: World, table_with_ears: PostgresReplicaTable
) -> None:
    """Each look costs the database a statement, and one is enough."""
    async with (
        PostgresFeedLinks(world.deployment.url, 30.0).open() as link,
        table_with_ears.acknowledgements() as acknowledgements,
    ):
        for replica_id in ("one", "two", "three"):
            await link.beat(replica_id, 5, 30.0)
        waiting = asyncio.get_running_loop().create_task(acknowledgements.wait(7, 20.0))
        for replica_id, revision in (("one", 8), ("two", 6), ("three", 9)):
            await link.acknowledge(replica_id, revision)
        heard, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not heard
        await link.acknowledge("two", 9)
        assert await _hears(waiting)


async def test_of_replicas_that_acknowledge_at_once_one_is_the_last(
    world: World, table_with_ears: PostgresReplicaTable
) -> None:
    """Each would otherwise see the other one behind, and nobody would say that all have come far enough."""
    links = PostgresFeedLinks(world.deployment.url, 30.0)
    async with links.open() as one, links.open() as two, table_with_ears.acknowledgements() as acknowledgements:
        await one.beat("one", 6, 30.0)
        await two.beat("two", 6, 30.0)
        for revision in range(7, 47):
            waiting = asyncio.get_running_loop().create_task(acknowledgements.wait(revision, 20.0))
            await asyncio.gather(one.acknowledge("one", revision), two.acknowledge("two", revision))
            assert await _hears(waiting)


async def test_what_was_said_and_is_not_so_is_looked_at_once(
    world: World, table_with_ears: PostgresReplicaTable
) -> None:
    """Whoever may connect to the database can say anything on the channel."""
    async with table_with_ears.acknowledgements() as acknowledgements:
        waiting = asyncio.get_running_loop().create_task(acknowledgements.wait(7, 20.0))
        await world.sql("SELECT pg_notify('latchgate_acknowledged', '999999999')")
        assert await _hears(waiting)
        again = asyncio.get_running_loop().create_task(acknowledgements.wait(7, 20.0))
        heard, _ = await asyncio.wait({again}, timeout=0.3)
        assert not heard
        again.cancel()
