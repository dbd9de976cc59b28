"""Interleavings in which a broken rule lets a revoked key pass in a client's own cache.

Times and leases of replicas are those of scenarios.py. A client's lease is 10 s, of which it uses 9.
"""

from __future__ import annotations

import asyncio
from typing import Any

from latchgate.cache import DecisionCache
from latchgate_server.hashing import NewCredential
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.watchers import Watchers
from tests.consistency.caching_client import CachingClient
from tests.consistency.mutants.mutant import Mutant
from tests.consistency.world import Replica, World


async def a_client_reads_nothing_any_more(world: World) -> None:
    """It is cut off, but its lease goes on."""
    _, client, key = await _client_that_knows(world)
    await _never_allowed_once_returned(world, client, key)


async def a_client_is_cut_off_and_its_replica_sees_it(world: World) -> None:
    """The client does not."""
    _, client, key = await _client_that_knows(world)
    client.break_stream()
    await _never_allowed_once_returned(world, client, key)


async def a_clients_clock_runs_slow(world: World) -> None:
    """By 5 %, so that its lease of 9 s takes 9.5."""
    _, client, key = await _client_that_knows(world, rate=0.95)
    await _never_allowed_once_returned(world, client, key, step=0.05)


async def a_client_asks_a_replica_that_was_forgotten(world: World) -> None:
    """Its row is gone, so the next mutation does not wait for it; its own lease is over by then."""
    replica, client, key = await _client_that_knows(world)
    forgetting = await world.stage.start(world.commit())
    await world.stage.advance(26.0)
    await client.exchange()
    await world.stage.advance(7.1)
    assert forgetting.done()
    assert not replica.feed.has_lease()
    await client.exchange()
    revocation = await world.stage.start(world.revoke(key))
    assert revocation.done()
    client.must_not_allow(key)


async def a_replica_connects_anew_past_a_revocation(world: World) -> None:
    """It never reads the change: it starts at the revision behind it. Its client goes on asking for leases."""
    replica, client, key = await _client_that_knows(world)
    await replica.drop()
    revocation = await world.stage.start(world.revoke(key))
    for _ in range(20):
        await world.stage.advance(2.0)
        if replica.at == "asleep":
            await replica.step()
        await replica.beat()
        await client.exchange()
        if revocation.done():
            client.must_not_allow(key)
    assert revocation.done()


async def an_answer_with_a_lease_is_under_way_for_long(world: World) -> None:
    """For more than half of the lease that it grants."""
    _, client, key = await _client_that_knows(world)
    answer = await client.answer(client.say())
    revocation = await world.stage.start(world.revoke(key))
    await world.stage.advance(6.0)
    client.cache.hear(answer)
    await _never_allowed_once_returned(world, client, key, revocation)


async def an_answer_to_a_question_is_under_way_for_long(world: World) -> None:
    """It is older than what the client is told meanwhile."""
    replica, client, key = await _client_that_knows(world)
    told = await client.told(key)
    revocation = await world.stage.start(world.revoke(key))
    for _ in range(15):
        await replica.beat()
        await client.exchange()
        await world.stage.advance(1.0)
    assert revocation.done()
    client.keep(key, told)
    client.must_not_allow(key)


async def a_client_comes_back_after_a_revocation(world: World) -> None:
    """It slept through it, and opens another stream."""
    replica, client, key = await _client_that_knows(world)
    client.break_stream()
    revocation = await world.stage.start(world.revoke(key))
    for _ in range(15):
        await replica.beat()
        await world.stage.advance(1.0)
    assert revocation.done()
    await client.open()
    client.must_not_allow(key)


async def a_replica_leaves_while_its_client_holds_a_lease(world: World) -> None:
    """Once its row is gone, nobody waits for either."""
    replica, client, key = await _client_that_knows(world)
    replica.feed.stop()
    while not replica.following.done() and replica.at != "asleep":
        await replica.step()
    world.replicas.remove(replica)
    await _never_allowed_once_returned(world, client, key)


async def _client_that_knows(world: World, rate: float = 1.0) -> tuple[Replica, CachingClient, NewCredential]:
    """A replica that has just beaten, and a client of its, with a lease and a key in its cache."""
    replica = await world.start()
    await replica.run_to("idle")
    key = await world.new_key()
    await replica.beat()
    client = CachingClient(world, replica, rate)
    await client.open()
    await client.exchange()
    await client.learn(key)
    return replica, client, key


async def _never_allowed_once_returned(
    world: World,
    client: CachingClient,
    key: NewCredential,
    revocation: asyncio.Task[Any] | None = None,
    step: float = 0.5,
) -> None:
    """Revoke, let replicas beat and time pass, and ask the client at every moment after the revocation returned."""
    revocation = revocation or await world.stage.start(world.revoke(key))
    returned_for = 0
    while returned_for < 20 / step:
        for replica in world.replicas:
            await replica.beat()
        await world.stage.advance(step)
        if revocation.done():
            returned_for += 1
            client.must_not_allow(key)


MUTANTS = (
    Mutant(
        "a replica acknowledges what its clients have followed",
        Feed,
        "_acknowledge",
        (
            (
                "followed = self._watchers.followed(self._cache.applied_revision)",
                "followed = self._cache.applied_revision",
            ),
        ),
        a_client_reads_nothing_any_more,
    ),
    Mutant(
        "a broken stream counts until its last lease ends",
        Watchers,
        "leave",
        (("self._broken.append(watcher.leases)", "pass"),),
        a_client_is_cut_off_and_its_replica_sees_it,
    ),
    Mutant(
        "a replica waits for a client's lease and a margin",
        Watchers,
        "hear",
        (
            (
                "watcher.leases.grant(watcher.told, now + granted + self._margin)",
                "watcher.leases.grant(watcher.told, now + granted)",
            ),
        ),
        a_clients_clock_runs_slow,
    ),
    Mutant(
        "no client's lease outlasts that of its replica",
        Watchers,
        "hear",
        (("granted = max(0.0, min(self._longest, lease_left))", "granted = self._longest if lease_left else 0.0"),),
        a_client_asks_a_replica_that_was_forgotten,
    ),
    Mutant(
        "a replica without a lease grants none",
        Watchers,
        "hear",
        (("granted = max(0.0, min(self._longest, lease_left))", "granted = min(self._longest, lease_left or 99.0)"),),
        a_client_asks_a_replica_that_was_forgotten,
    ),
    Mutant(
        "a new feed connection ends the streams of clients",
        Feed,
        "_follow",
        (("self._watchers.restart(revision)", "pass"),),
        a_replica_connects_anew_past_a_revocation,
    ),
    Mutant(
        "a replica that leaves waits out its clients' leases",
        Feed,
        "_leave",
        (("while (left := self._watchers.leases_end_in()) > 0:", "while (left := 0.0) > 0:"),),
        a_replica_leaves_while_its_client_holds_a_lease,
    ),
    Mutant(
        "a client's lease counts from when it asked for it",
        DecisionCache,
        "_take_lease",
        (
            (
                "self._lease_until = max(self._lease_until, sent_at + self._lease)",
                "self._lease_until = self._clock() + self._lease",
            ),
        ),
        an_answer_with_a_lease_is_under_way_for_long,
    ),
    Mutant(
        "a client keeps no answer from before what it was told",
        DecisionCache,
        "keep",
        (
            (
                "if life == self._life and self._known is not None and verification.revision >= self._known:",
                "if life == self._life and self._known is not None:",
            ),
        ),
        an_answer_to_a_question_is_under_way_for_long,
    ),
    Mutant(
        "a client drops everything on a new stream",
        DecisionCache,
        "restart",
        (("self._clear()", "pass"),),
        a_client_comes_back_after_a_revocation,
    ),
)
