"""A beat and a glance: the order of their steps, and the lease that a beat gives."""

from __future__ import annotations

import asyncio

import pytest

from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.ports import Loaded
from latchgate_server.core.replication import Change, ChangesRead
from tests.consistency.recording_link import RecordingLink


@pytest.fixture
def link() -> RecordingLink:
    """A replica that has applied revision 1 and has a key in memory, but no lease."""
    link = RecordingLink()
    link.cache.restart(1)
    link.cache.finish_load(link.cache.begin_load(), "key", Loaded(None, 1))
    return link


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
    await link.feed.beat(link)
    del link.calls[:]
    await link.feed.glance(link)
    assert link.calls == ["read after 1: leased, in memory"]


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


async def test_a_client_that_has_not_acknowledged_holds_the_row_back_but_no_beat(link: RecordingLink) -> None:
    await link.feed.beat(link)
    watcher = link.watchers.open(sees_all=True)
    link.watchers.hear(watcher, 1, 0, link.feed.lease_left())
    del link.calls[:]
    link.changes = ChangesRead(2, [Change("key", "key")])
    link.stage.time = 5.0
    await link.feed.beat(link)
    await link.feed.beat(link)
    assert link.calls == [
        "upsert replica at 1 for 30 s: leased, in memory",
        "read after 1: leased, in memory",
        "upsert replica at 1 for 30 s: leased, evicted",
        "read after 2: leased, evicted",
    ]
    link.stage.time = 31.0
    assert link.feed.has_lease(), "the beats have renewed it"


async def test_an_acknowledgement_of_the_last_client_is_passed_on_before_the_next_beat(link: RecordingLink) -> None:
    running = await link.stage.start(link.feed.run())
    watcher = link.watchers.open(sees_all=True)
    link.watchers.hear(watcher, 1, 0, link.feed.lease_left())
    link.is_hinted = True
    link.changes = ChangesRead(2, [])
    await link.stage.resume(running)
    del link.calls[:]
    link.watchers.hear(watcher, 2, 2, link.feed.lease_left())
    await link.stage.resume(running)
    assert [call.partition(":")[0] for call in link.calls] == ["hint", "acknowledge 2", "read after 2", "idle for 10 s"]
    running.cancel()
    await asyncio.wait({running})


async def test_a_replica_that_leaves_waits_out_the_leases_of_its_clients(link: RecordingLink) -> None:
    running = await link.stage.start(link.feed.run())
    watcher = link.watchers.open(sees_all=True)
    link.watchers.hear(watcher, 1, 0, link.feed.lease_left())
    link.feed.stop()
    await link.stage.resume(running)
    assert link.calls[-1].startswith("hint")
    await link.stage.advance(9.9)
    assert link.calls[-1].startswith("hint")
    await link.stage.advance(0.1)
    assert link.calls[-1] == "deregister: no lease, evicted"
