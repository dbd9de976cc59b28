"""Interleavings in which a broken rule of the protocol lets a revoked key pass.

In each of them somebody is slow at the worst moment. All use a lease of 30 s, of which a replica uses 27 (the margin is
a tenth) and for which a mutation waits 33. `returned` lets a mutation that still waits have what it waits for, so that
the question at the end is always the same: the revocation has returned, so is the key denied?
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.model import DenialReason
from latchgate_server.core.verification import Verification
from latchgate_server.hashing import NewCredential
from tests.consistency.mutants.mutant import BrokenPromise
from tests.consistency.world import Replica, World


async def a_new_replica_beats_while_a_mutation_commits(world: World) -> None:
    """It has no row yet, so whether the mutation waits for it depends on when it writes one."""
    key = await world.new_key()
    replica = await world.start()
    await replica.run_to("after start")
    await replica.step()
    await _is_allowed(world, replica, key)
    await replica.run_to("after read")
    revocation = await world.stage.start(world.revoke(key))
    await replica.run_to("idle")
    await _is_denied_once_returned(world, revocation, replica, key)


async def a_mutation_looks_between_an_acknowledgement_and_what_follows(world: World) -> None:
    """What was acknowledged is no longer waited for."""
    replica, key = await _replica_that_knows(world)
    revocation = await world.stage.start(world.revoke(key))
    await replica.run_to("after acknowledge")
    await world.stage.advance(1.0)
    await _is_denied_once_returned(world, revocation, replica, key)


async def a_forgotten_replica_comes_back(world: World) -> None:
    """An earlier mutation waited for its lease and deleted its row, so the next one does not wait. Then it beats."""
    replica, key = await _replica_that_knows(world)
    await _forget(world, replica)
    revocation = await world.stage.start(world.revoke(key))
    await replica.run_to("before read")
    await _is_denied_once_returned(world, revocation, replica, key)


async def a_forgotten_replica_glances_at_the_changes(world: World) -> None:
    """It has no row, so the next mutation does not wait for it."""
    replica, key = await _replica_that_knows(world)
    await _forget(world, replica)
    replica.notify()
    await replica.run_to("before upsert")
    revocation = await world.stage.start(world.revoke(key))
    await _is_denied_once_returned(world, revocation, replica, key)


async def a_mutation_looks_between_the_acknowledgement_of_a_glance_and_what_follows(world: World) -> None:
    """What was acknowledged is no longer waited for."""
    replica, key = await _replica_that_knows(world)
    revocation = await world.stage.start(world.revoke(key))
    replica.notify()
    await replica.run_to("after acknowledge")
    await world.stage.advance(1.0)
    await _is_denied_once_returned(world, revocation, replica, key)


async def a_replica_is_forgotten_within_a_beat(world: World) -> None:
    """It pauses after it wrote its row, for so long that the row is deleted; then it reads, and pauses again."""
    replica, key = await _replica_that_knows(world)
    await replica.run_to("after upsert")
    await _forget(world, replica)
    await replica.run_to("after read")
    revocation = await world.stage.start(world.revoke(key))
    await replica.run_to("before acknowledge")
    await _is_denied_once_returned(world, revocation, replica, key)


async def a_load_is_under_way_during_a_revocation(world: World) -> None:
    """Its query is older than the revocation, its answer comes later than the eviction."""
    key = await world.new_key()
    replica = await world.start()
    await replica.run_to("idle")
    load = await _held_load(world, replica, key)
    revocation = await world.stage.start(world.revoke(key))
    await replica.beat()
    await world.stage.advance(1.0)
    await world.stage.resume(load)
    await _is_denied_once_returned(world, revocation, replica, key)


async def a_load_is_under_way_during_a_failover_that_loses_commits(world: World) -> None:
    """The key was enabled, but the new primary never learned; there revisions run again from a lower number."""
    key = await world.new_key()
    await world.done(world.change("disable", key.key_id))
    replica = await world.start()
    await replica.run_to("idle")
    kept = await world.sql("SELECT revision FROM revision_clock")
    await world.done(world.change("enable", key.key_id))
    load = await _held_load(world, replica, key)
    await _fail_over(world, key, kept)
    await replica.run_to("idle")
    await world.stage.resume(load)
    await _is_denied(world, replica, key, DenialReason.API_KEY_DISABLED)


async def a_failover_loses_commits_and_others_take_their_numbers(world: World) -> None:
    """The replica comes back when the new primary is past the revision that it had applied from the old one."""
    key = await world.new_key()
    await world.done(world.change("disable", key.key_id))
    replica = await world.start()
    await replica.run_to("idle")
    kept = await world.sql("SELECT revision FROM revision_clock")
    await world.done(world.change("enable", key.key_id))
    await replica.beat()
    await _is_allowed(world, replica, key)
    await _fail_over(world, key, kept)
    for _ in range(3):
        await world.sql("SELECT latchgate_begin_change()")
    await replica.run_to("idle")
    await _is_denied(world, replica, key, DenialReason.API_KEY_DISABLED)


async def a_replica_that_knows_the_key_does_nothing(world: World) -> None:
    """The plainest of all: the key in its memory, a valid lease, and no beat before the lease runs out."""
    replica, key = await _replica_that_knows(world)
    revocation = await world.stage.start(world.revoke(key))
    await world.stage.advance(26.0)
    if revocation.done():
        await _is_denied(world, replica, key)


async def a_replicas_clock_runs_slow(world: World) -> None:
    """By 15 %, and it is stuck: its lease of 27 s ends after 31.8."""
    key = await world.new_key()
    replica = await world.start(rate=0.85)
    await replica.run_to("idle")
    await _is_allowed(world, replica, key)
    revocation = await world.stage.start(world.revoke(key))
    for _ in range(34):
        await world.stage.advance(1.0)
        if revocation.done():
            await _is_denied(world, replica, key)


async def a_replica_beats_while_a_mutation_waits_for_its_lease(world: World) -> None:
    """Its acknowledgement is late, but it holds a new lease. The next mutation must find its row."""
    replica, first = await _replica_that_knows(world)
    second = await world.new_key()
    await _is_allowed(world, replica, second)
    slow = await world.stage.start(world.revoke(first))
    await world.stage.advance(20.0)
    await replica.run_to("before acknowledge")
    await world.stage.advance(13.1)
    assert slow.done()
    revocation = await world.stage.start(world.revoke(second))
    await _is_denied_once_returned(world, revocation, replica, second)


async def a_mutation_pauses_before_it_looks_at_the_rows(world: World) -> None:
    """For longer than a lease; the beat that it then finds is a fresh one. The next mutation must find its row."""
    replica, first = await _replica_that_knows(world)
    second = await world.new_key()
    await _is_allowed(world, replica, second)
    world.table.hold = True
    slow = await world.stage.start(world.revoke(first))
    await world.stage.advance(20.0)
    await replica.run_to("before acknowledge")
    await world.stage.advance(14.0)
    await world.stage.resume(slow)
    await world.stage.advance(1.0)
    revocation = await world.stage.start(world.revoke(second))
    await _is_denied_once_returned(world, revocation, replica, second)


async def a_promotion_loses_the_row_of_a_paused_replica(world: World) -> None:
    """While a mutation waits for it."""
    replica, key = await _replica_that_knows(world)
    revocation = await world.stage.start(world.revoke(key))
    await world.promote(replica)
    await world.stage.advance(0.05)
    if revocation.done() and not isinstance(revocation.exception(), StoreUnavailable):
        await _is_denied(world, replica, key)


async def a_promotion_has_lost_the_row_of_a_paused_replica(world: World) -> None:
    """Before a mutation looks."""
    replica, key = await _replica_that_knows(world)
    await world.promote(replica)
    revocation = await world.stage.start(world.revoke(key))
    await world.stage.advance(0.05)
    if revocation.done():
        await _is_denied(world, replica, key)


async def a_second_promotion_comes_while_a_mutation_waits_out_the_first(world: World) -> None:
    """It loses the row of a replica that has beaten since the first."""
    replica, key = await _replica_that_knows(world)
    await world.promote(replica)
    other = await world.stage.start(world.commit())
    await world.stage.advance(32.0)
    await replica.beat()
    await _is_allowed(world, replica, key)
    await world.promote(replica, noticed=False)
    await world.stage.advance(1.1)
    revocation = await world.stage.start(world.revoke(key))
    await _is_denied_once_returned(world, revocation, replica, key)
    with pytest.raises(StoreUnavailable):
        other.result()


async def a_revocation_is_given_up_and_repeated(world: World) -> None:
    """The first was committed, so that the second finds nothing to change."""
    replica, key = await _replica_that_knows(world)
    given_up = await world.stage.start(world.revoke(key))
    given_up.cancel()
    await asyncio.wait({given_up})
    revocation = await world.stage.start(world.revoke(key))
    await _is_denied_once_returned(world, revocation, replica, key)


async def a_lease_is_renewed_while_a_decision_is_under_way(world: World) -> None:
    """The lease had lapsed when the decision began, so that the revocation did not wait for the replica."""
    replica, key = await _replica_that_knows(world)
    await _forget(world, replica)
    await world.done(world.revoke(key))
    decision = await world.stage.start(replica.verify(key))
    await replica.run_to("idle")
    if not decision.done():
        await world.stage.resume(decision)
    _expect(await decision, DenialReason.API_KEY_REVOKED)


async def a_decision_without_lease_meets_an_older_load(world: World) -> None:
    """The load was sent before the revocation returned, the decision starts after."""
    key = await world.new_key()
    replica = await world.start()
    await replica.run_to("idle")
    load = await _held_load(world, replica, key)
    await _forget(world, replica)
    await world.done(world.revoke(key))
    decision = asyncio.get_running_loop().create_task(replica.verify(key))
    await asyncio.sleep(0)
    await world.stage.resume(load)
    _expect(await decision, DenialReason.API_KEY_REVOKED)


async def a_change_is_pruned_before_a_replica_read_it(world: World) -> None:
    """It was paused for that long, and forgotten."""
    replica, key = await _replica_that_knows(world)
    await _forget(world, replica)
    await world.done(world.revoke(key))
    await world.deployment.store.prune_changes(older_than=0.0)
    await replica.run_to("idle")
    await _is_denied(world, replica, key)


# Beginnings and ends --------------------------------------------------------------------------------------------------


async def _replica_that_knows(world: World) -> tuple[Replica, NewCredential]:
    """A replica that has just beaten, with a key in its memory."""
    replica = await world.start()
    await replica.run_to("idle")
    key = await world.new_key()
    await replica.beat()
    await _is_allowed(world, replica, key)
    return replica, key


async def _forget(world: World, replica: Replica) -> None:
    """Let another mutation find the replica silent for a lease, so that it deletes its row."""
    mutation = await world.stage.start(world.commit())
    await world.stage.advance(33.1)
    assert mutation.done()
    assert not await world.sql("SELECT count(*) FROM replicas WHERE replica_id = $1", replica.replica_id)


async def _held_load(world: World, replica: Replica, key: NewCredential) -> asyncio.Task[Any]:
    """Load the key for a verification, and stop when the database has answered."""
    replica.reader.hold = "load"
    verification = asyncio.get_running_loop().create_task(replica.verify(key))
    await world.stage.settle(verification, unless=lambda: world.stage.halted_at("load") is not None)
    load = world.stage.halted_at("load")
    assert load is not None
    return load


async def _fail_over(world: World, key: NewCredential, kept: int) -> None:
    """To a primary that knows nothing after the revision `kept`, when the key was disabled."""
    await world.promote()
    await world.sql("UPDATE keys SET state = 'DISABLED' WHERE key_id = $1", key.key_id)
    await world.sql("UPDATE revision_clock SET revision = $1", kept)
    await world.sql("DELETE FROM changes WHERE revision > $1", kept)


async def _is_allowed(world: World, replica: Replica, key: NewCredential) -> None:
    assert (await _decision(world, replica, key)).denial_reason is None


async def _is_denied_once_returned(
    world: World, revocation: asyncio.Task[Any], replica: Replica, key: NewCredential
) -> None:
    await world.returned(revocation)
    await _is_denied(world, replica, key)


async def _is_denied(
    world: World, replica: Replica, key: NewCredential, reason: DenialReason = DenialReason.API_KEY_REVOKED
) -> None:
    _expect(await _decision(world, replica, key), reason)


async def _decision(world: World, replica: Replica, key: NewCredential) -> Verification:
    """What the replica decides, without a stop."""
    decision = await world.stage.start(replica.verify(key))
    while not decision.done():
        await world.stage.resume(decision)
    return decision.result()


def _expect(verification: Verification, reason: DenialReason) -> None:
    if verification.denial_reason is None:
        raise BrokenPromise("a revoked key is allowed")
    assert verification.denial_reason is reason
