"""The wait after a mutation: for whom, for how long, and what it tells.

All leases here are 30 s, of which a replica uses 27 (the margin is a tenth) and for which a mutation waits 33.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from latchgate_server.admin.barrier import Barrier, Propagation
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.replication import Acknowledgements, Replica, Replicas
from latchgate_server.storage.feed_link import PostgresFeedLinks
from latchgate_server.storage.replica_table import PostgresReplicaTable
from tests.consistency.world import MachineClock, Stage, World, open_deployment, open_world

TIMELINE = "the only one"


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_deployment(database_url) as deployment, open_world(deployment, replicas=2) as made:
        yield made


async def _begin_change(world: World) -> asyncio.Task[Propagation]:
    """Commit a change, and wait for it at the barrier."""
    return await world.stage.start(world.commit())


async def _rows(world: World) -> set[str]:
    """The ids of the replicas that a mutation would find now."""
    return {replica.replica_id for replica in (await world.table.read()).rows}


# For whom -------------------------------------------------------------------------------------------------------------


async def test_nobody_is_waited_for_where_nobody_serves(database_url: str) -> None:
    async with open_deployment(database_url) as deployment, open_world(deployment) as world:
        change = await _begin_change(world)
        assert change.result().replicas_confirmed == 0
        assert change.result().waited == 0.0


async def test_every_replica_is_waited_for(world: World) -> None:
    first, second = world.replicas
    change = await _begin_change(world)
    await first.beat()
    await world.stage.advance(1.0)
    assert not change.done()
    await second.beat()
    await world.stage.advance(1.0)
    propagation = change.result()
    assert (propagation.replicas_confirmed, propagation.leases_expired) == (2, 0)
    assert propagation.waited == pytest.approx(2.0)
    assert propagation.revision == await world.sql("SELECT revision FROM revision_clock")


async def test_a_beat_alone_is_no_acknowledgement(world: World) -> None:
    """The replica's row has a new beat, and its lease is the longer, but it has not read the change yet."""
    first, second = world.replicas
    change = await _begin_change(world)
    await first.beat()
    await second.run_to("after upsert")
    await world.stage.advance(32.0)
    assert not change.done()


async def test_a_replica_that_has_the_change_already_is_not_waited_for(world: World) -> None:
    revision = await world.sql("SELECT latchgate_begin_change()")
    for replica in world.replicas:
        await replica.beat()
    change = await world.stage.start(world.barrier.wait(revision, await world.timeline()))
    assert change.result().replicas_confirmed == 2


async def test_a_replica_that_ends_in_order_is_waited_for_no_longer(world: World) -> None:
    first, second = world.replicas
    change = await _begin_change(world)
    await first.beat()
    await second.stop()
    await world.stage.advance(0.05)
    propagation = change.result()
    assert (propagation.replicas_confirmed, propagation.leases_expired) == (1, 0)


async def test_a_mutation_that_changed_nothing_waits_for_what_it_found(world: World) -> None:
    """A revocation is repeated, as after an UNAVAILABLE: its answer means as much as the first one's would have."""
    first, second = world.replicas
    key = await world.new_key()
    given_up = await world.stage.start(world.revoke(key))
    given_up.cancel()
    again = await world.stage.start(world.revoke(key))
    assert not again.done()
    for replica in (first, second):
        await replica.beat()
    await world.stage.advance(0.05)
    _, propagation = again.result()
    assert propagation.replicas_confirmed == 2


# For how long ---------------------------------------------------------------------------------------------------------


async def test_a_silent_replica_delays_one_mutation_by_its_lease_and_a_margin_and_then_nobody(world: World) -> None:
    first, second = world.replicas
    change = await _begin_change(world)
    await first.beat()
    await world.stage.advance(32.9)
    assert not change.done()
    await world.stage.advance(0.2)
    propagation = change.result()
    assert (propagation.replicas_confirmed, propagation.leases_expired) == (1, 1)
    assert await _rows(world) == {first.replica_id}
    following = await _begin_change(world)
    await first.beat()
    await world.stage.advance(0.05)
    assert following.result().waited == pytest.approx(0.05)
    await second.beat()
    assert await _rows(world) == {first.replica_id, second.replica_id}


async def test_each_replica_is_waited_for_as_long_as_its_own_lease(world: World) -> None:
    for replica in world.replicas:
        await replica.crash()
    short = await world.start(lease=10.0)
    await short.run_to("idle")
    change = await _begin_change(world)
    await world.stage.advance(11.1)
    assert not change.done()
    assert short.replica_id not in await _rows(world)
    await world.stage.advance(22.0)
    assert change.result().leases_expired == 3


async def test_leases_count_from_after_the_rows_were_read(world: World) -> None:
    """The mutator was slow after its commit, and a lease that it then finds may be fresh."""
    first, _ = world.replicas
    world.table.hold = True
    change = await _begin_change(world)
    await first.beat()
    await world.stage.advance(30.0)
    await world.stage.resume(change)
    await world.stage.advance(32.0)
    assert not change.done()
    await world.stage.advance(1.1)
    assert change.result().leases_expired == 1


async def test_a_row_with_the_same_beat_on_another_timeline_is_another_row_and_stays(world: World) -> None:
    before = await world.table.read()
    await world.promote()
    for replica in before.rows:
        await world.table.expire(replica, before.timeline)
    assert await _rows(world) == {replica.replica_id for replica in before.rows}
    for replica in before.rows:
        await world.table.expire(replica, (await world.table.read()).timeline)
    assert await _rows(world) == set()


async def test_the_row_of_a_replica_that_has_beaten_since_stays(world: World) -> None:
    """It has not acknowledged, so its lease is waited for; but it holds another one by now."""
    first, second = world.replicas
    change = await _begin_change(world)
    await first.beat()
    await world.stage.advance(20.0)
    await second.run_to("before acknowledge")
    await world.stage.advance(13.1)
    assert change.result().leases_expired == 1
    assert second.replica_id in await _rows(world)


# After a promotion ----------------------------------------------------------------------------------------------------


async def test_after_a_promotion_mutations_wait_together_as_long_as_any_lease_and_later_ones_do_not(
    world: World,
) -> None:
    await world.promote(*world.replicas)
    change = await _begin_change(world)
    await world.stage.advance(20.0)
    together = await _begin_change(world)
    await world.stage.advance(12.9)
    assert not change.done()
    assert not together.done()
    await world.stage.advance(0.2)
    assert change.result().waited == pytest.approx(33.1)
    assert together.result().waited == pytest.approx(13.1)
    assert (await _begin_change(world)).result().waited == 0.0


async def test_after_a_promotion_callers_with_less_patience_than_any_lease_get_through_in_the_end(world: World) -> None:
    await world.promote(*world.replicas)
    for _ in range(3):
        impatient = await _begin_change(world)
        await world.stage.advance(10.0)
        assert not impatient.done()
        impatient.cancel()
        await asyncio.wait({impatient})
    lucky = await _begin_change(world)
    await world.stage.advance(3.1)
    assert lucky.done()
    assert (await _begin_change(world)).result().waited == 0.0


async def test_a_change_that_a_promotion_may_have_lost_is_not_answered_as_if_it_stood(world: World) -> None:
    """Before anything of the new timeline can be read as good news."""
    change = await _begin_change(world)
    await world.promote(*world.replicas)
    await world.stage.advance(0.05)
    with pytest.raises(StoreUnavailable, match=r"failed over .* make it again"):
        change.result()


async def test_a_change_that_was_lost_before_the_rows_were_read_is_not_answered_as_if_it_stood(world: World) -> None:
    """The next primary is even known to have all rows, and nobody serves there."""
    world.table.hold = True
    change = await _begin_change(world)
    for replica in world.replicas:
        await replica.stop()
    world.replicas.clear()
    await world.promote()
    await world.sql("UPDATE trusted_timeline SET timeline = latchgate_timeline()")
    await world.stage.resume(change)
    with pytest.raises(StoreUnavailable, match="failed over"):
        change.result()


async def test_a_second_promotion_within_the_wait_for_the_first_is_waited_for_as_well(world: World) -> None:
    replica, other = world.replicas
    await other.stop()
    world.replicas.remove(other)
    key = await world.new_key()
    await world.promote(replica)
    change = await _begin_change(world)
    await world.stage.advance(32.0)
    await replica.beat()
    assert (await replica.verify(key)).denial_reason is None
    await world.promote(replica, noticed=False)
    await world.stage.advance(1.1)
    with pytest.raises(StoreUnavailable, match="failed over"):
        change.result()
    again = await _begin_change(world)
    await world.stage.advance(32.9)
    assert not again.done()
    await world.stage.advance(0.2)
    assert again.done()


# Whose callers are gone -----------------------------------------------------------------------------------------------


async def test_callers_with_less_patience_than_a_lease_wait_for_a_silent_replica_only_once(world: World) -> None:
    first, _ = world.replicas
    impatient = await _begin_change(world)
    await first.beat()
    await world.stage.advance(1.0)
    impatient.cancel()
    await asyncio.wait({impatient})
    await world.stage.advance(32.1)
    assert await _rows(world) == {first.replica_id}
    change = await _begin_change(world)
    await first.beat()
    await world.stage.advance(0.05)
    assert change.result().leases_expired == 0


async def test_a_wait_whose_caller_is_gone_ends_with_the_process(world: World) -> None:
    change = await _begin_change(world)
    change.cancel()
    await asyncio.wait({change})
    assert world.barrier._waits
    world.barrier.close()
    async with asyncio.timeout(1.0):
        while world.barrier._waits:
            await asyncio.sleep(0)


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

    async def wait(self, replica_ids: Collection[str], revision: int, seconds: float) -> None:
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
    table = PostgresReplicaTable(world.deployment.pool, world.deployment.url, 30.0)
    yield table
    table.close()


async def test_an_acknowledgement_wakes_everybody_who_waits(
    world: World, table_with_ears: PostgresReplicaTable
) -> None:
    table, links = table_with_ears, PostgresFeedLinks(world.deployment.url, 30.0)
    async with (
        links.open() as link,
        table.acknowledgements() as first,
        table.acknowledgements() as second,
    ):
        loop = asyncio.get_running_loop()
        waiting = [loop.create_task(each.wait(["somebody"], 7, 20.0)) for each in (first, second)]
        await link.acknowledge("somebody", 7)
        assert [await _hears(task) for task in waiting] == [True, True]
    async with links.open() as link, table.acknowledgements() as again:
        leaving = asyncio.get_running_loop().create_task(again.wait(["somebody"], 7, 20.0))
        await link.deregister("somebody")
        assert await _hears(leaving)


async def test_nobody_is_woken_before_all_whom_they_wait_for_have_come_far_enough(
    world: World, table_with_ears: PostgresReplicaTable
) -> None:
    """Each look costs the database a statement, and one is enough."""
    async with (
        PostgresFeedLinks(world.deployment.url, 30.0).open() as link,
        table_with_ears.acknowledgements() as acknowledgements,
    ):
        waiting = asyncio.get_running_loop().create_task(acknowledgements.wait(["one", "two"], 7, 20.0))
        for replica_id, revision in (("one", 8), ("two", 6), ("three", 9)):
            await link.acknowledge(replica_id, revision)
        heard, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert not heard
        await link.acknowledge("two", 7)
        assert await _hears(waiting)
