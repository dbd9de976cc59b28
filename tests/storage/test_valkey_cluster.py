"""A cluster that keeps rate limits, while slots move and servers fail: real servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from latchgate_server.core.charging import HeldRate
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.storage.valkey_rates import ValkeyRates
from tests.support.rate_stores import GENEROUS, opened, rate, taken
from tests.support.valkey_cluster import ValkeyCluster, running_cluster

SHORT = 1.0
"""Seconds of patience where something is to fail; an answer on loopback comes long before."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with running_cluster(replica=True) as running:
        yield running


@pytest.fixture
async def rates(cluster: ValkeyCluster) -> AsyncIterator[ValkeyRates]:
    async with opened(cluster.address()) as store:
        yield store


async def test_each_tenants_limits_are_together_and_on_the_node_that_is_told(
    cluster: ValkeyCluster, rates: ValkeyRates
) -> None:
    for place in range(3):
        tenant_id = cluster.tenant_on(place)
        assert await taken(rates, rate(tenant_id, 9), rate(tenant_id, 9)) == 1
        assert len([key for key in cluster.keys_on(place) if f"{{{tenant_id}}}" in key]) == 2
        assert rates.node_of(tenant_id) == cluster.name(place)
    assert rates.nodes() == {cluster.name(place) for place in range(3)}


async def test_a_slot_that_has_moved_is_followed_to_its_new_node(cluster: ValkeyCluster, rates: ValkeyRates) -> None:
    tenant_id = cluster.tenant_on(1)
    await taken(rates, rate(cluster.tenant_on(0), 1))  # who keeps what is known by now
    _give(cluster, tenant_id, 2)
    held = rate(tenant_id, 3)
    assert await taken(rates, held, times=5) == 3
    assert rates.node_of(tenant_id) == cluster.name(2)
    assert any(held.bucket in key for key in cluster.keys_on(2))


async def test_while_a_slot_moves_its_limits_are_counted_once(cluster: ValkeyCluster, rates: ValkeyRates) -> None:
    tenant_id = cluster.tenant_on(1)
    slot, (old, new) = cluster.slot_of(tenant_id), (cluster.node_id(1), cluster.node_id(2))
    stays, moves = rate(tenant_id, 4), rate(tenant_id, 4)
    assert await taken(rates, moves) == 1
    cluster.ask(2, "CLUSTER SETSLOT", slot, "IMPORTING", old)
    cluster.ask(1, "CLUSTER SETSLOT", slot, "MIGRATING", new)
    assert await taken(rates, moves) == 1, "still at its old node"
    (key,) = [key for key in cluster.keys_on(1) if moves.bucket in key]
    cluster.ask(1, "MIGRATE", "127.0.0.1", cluster.ports[2], key, 0, 5_000)
    assert await taken(rates, moves, times=9) == 2, "at its new node, with what was taken of it"
    assert await taken(rates, stays, times=9) == 4, "a bucket that did not exist begins at the new node"
    assert rates.node_of(tenant_id) == cluster.name(1), "the slot has not moved yet"
    _give(cluster, tenant_id, 2)
    assert await taken(rates, moves, stays, times=9) == 0


def _give(cluster: ValkeyCluster, tenant_id: str, place: int) -> None:
    """Give a tenant's slot to another primary, with nobody told but the two; the new owner first, as is done."""
    for told in (place, *(other for other in range(3) if other != place)):
        cluster.ask(told, "CLUSTER SETSLOT", cluster.slot_of(tenant_id), "NODE", cluster.node_id(place))


async def test_a_node_that_is_killed_keeps_up_nobody_but_its_own_tenants_and_is_found_again(
    cluster: ValkeyCluster,
) -> None:
    lost, others = rate(cluster.tenant_on(2), 50), [rate(cluster.tenant_on(place), 50) for place in (0, 1)]
    async with opened(cluster.address(2)) as rates:
        assert [await taken(rates, held) for held in (lost, *others)] == [1, 1, 1]
        cluster.kill(2)
        with pytest.raises(StoreUnavailable, match=f"^{cluster.name(2)}: no connection$"):
            await taken(rates, lost)
        assert [await taken(rates, held, times=9) for held in others] == [9, 9]
        cluster.revive(2)
        assert await taken(rates, lost, times=9) == 9


async def test_a_node_that_hangs_is_waited_for_no_longer_than_patience_and_by_its_own_tenants_alone(
    cluster: ValkeyCluster,
) -> None:
    lost, other = rate(cluster.tenant_on(0), 50), rate(cluster.tenant_on(1), 50)
    async with opened(cluster.address(0), SHORT) as rates:
        assert (await taken(rates, lost), await taken(rates, other)) == (1, 1)
        with cluster.paused(0):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable, match=f"{cluster.name(0)}: no answer in time"):
                await taken(rates, lost, times=100)  # more than there are connections
            waited = time.monotonic() - began
            assert await taken(rates, other, times=100) == 49
        assert SHORT * 0.9 < waited < SHORT * 4
    async with opened(cluster.address(0), GENEROUS) as rates:
        assert await taken(rates, other) == 0, "each was counted once"


async def test_a_cluster_is_found_through_any_of_the_servers_that_are_named(cluster: ValkeyCluster) -> None:
    held = rate(cluster.tenant_on(1), 1)
    nobody = "127.0.0.1:1"
    async with opened(f"valkey://{nobody}") as rates:
        with pytest.raises(StoreUnavailable, match=f"^{nobody}: no connection$"):
            await taken(rates, held)
        assert rates.node_of("acme") == nobody, "what is lost has a name"
    async with opened(f"valkey://{nobody},{cluster.name(0)},{cluster.name(2)}/0") as rates:
        assert await taken(rates, held, times=2) == 1


async def test_a_replica_that_takes_over_is_found(cluster: ValkeyCluster) -> None:
    """The last test here: the cluster is another one after it."""
    held = rate(cluster.tenant_on(0), 5)
    async with opened(cluster.address(0)) as rates:
        assert await taken(rates, held, times=2) == 2
        cluster.ask(0, "WAIT", 1, 10_000)
        cluster.kill(0)
        with pytest.raises(StoreUnavailable):
            await taken(rates, held)
        cluster.ask(3, "CLUSTER FAILOVER", "TAKEOVER")
        async with asyncio.timeout(GENEROUS):
            while not await _answers(rates, held):
                await asyncio.sleep(0.02)
        assert await taken(rates, held, times=9) == 3, "the replica knew what had been taken"
        assert rates.nodes() == {cluster.name(place) for place in (1, 2, 3)}


async def _answers(rates: ValkeyRates, held: HeldRate) -> bool:
    try:
        await rates.charge([held], 1, 0)
    except StoreUnavailable:
        return False
    return True
