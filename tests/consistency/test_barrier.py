"""The wait after a mutation: for whom, for how long, and what it tells.

All leases here are 30 s, of which a replica uses 27 (the margin is a tenth) and for which a mutation waits 33.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from latchgate_server.admin.barrier import Propagation
from tests.consistency.world import World, open_deployment, open_world


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
