"""The wait after a mutation when a promotion, or an impatient caller, comes in between.

All leases here are 30 s, and a mutation waits for 33.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from latchgate_server.admin.barrier import Propagation
from latchgate_server.core.errors import StoreUnavailable
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
