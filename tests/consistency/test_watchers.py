"""What a replica knows of clients with a cache of their own, and when it may acknowledge a revision for them."""

from __future__ import annotations

import asyncio
import math

import pytest

from latchgate_server.core import bounds
from latchgate_server.core.errors import CannotDecide, Overloaded
from latchgate_server.core.replication import Change
from latchgate_server.verify.watchers import News, Watcher, Watchers
from tests.consistency.stage import CLIENT_LEASE, LEASE, MachineClock, Stage

GRANT = CLIENT_LEASE * 0.9
KEY = [Change("key", "lg_a")]


class Scene:
    """A replica at revision 1, and its clients."""

    def __init__(self) -> None:
        self.stage = Stage()
        self.watchers = Watchers(MachineClock(self.stage), CLIENT_LEASE)
        self.watchers.restart(1)
        self.progress = 0
        self.watchers.on_progress = self._note

    def _note(self) -> None:
        self.progress += 1

    def open(self, *, sees_all: bool = True) -> Watcher:
        """A client with a lease."""
        watcher = self.watchers.open(sees_all=sees_all)
        self.watchers.hear(watcher, 1, 0, LEASE)
        self.watchers.hear(watcher, 2, 1, LEASE)
        return watcher


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def _news(watcher: Watcher) -> News:
    async with asyncio.timeout(1):
        return await watcher.news()


async def test_without_clients_a_replica_acknowledges_what_it_has_applied(scene: Scene) -> None:
    scene.watchers.apply(2, KEY)
    assert scene.watchers.followed(2) == 2
    assert scene.watchers.progress_in() == math.inf


async def test_an_acknowledgement_of_every_client_is_one_of_the_replica(scene: Scene) -> None:
    first, second = scene.open(), scene.open()
    scene.watchers.apply(2, KEY)
    assert scene.watchers.followed(2) == 1
    scene.watchers.hear(first, 3, 2, LEASE)
    assert (scene.watchers.followed(2), scene.progress) == (1, 0)
    scene.watchers.hear(second, 3, 2, LEASE)
    assert (scene.watchers.followed(2), scene.progress) == (2, 1)


async def test_a_silent_client_is_waited_for_until_its_lease_ends_and_a_margin(scene: Scene) -> None:
    scene.open()
    scene.watchers.apply(2, KEY)
    scene.stage.time = CLIENT_LEASE - 0.01
    assert scene.watchers.followed(2) == 1
    assert 0 < scene.watchers.progress_in() <= 0.011
    scene.stage.time = CLIENT_LEASE
    assert scene.watchers.followed(2) == 2


async def test_a_lease_that_comes_behind_the_invalidation_needs_no_waiting_for(scene: Scene) -> None:
    watcher = scene.open()
    scene.watchers.apply(2, KEY)
    scene.stage.time = 5.0
    scene.watchers.hear(watcher, 3, 1, LEASE)
    scene.stage.time = CLIENT_LEASE
    assert scene.watchers.followed(2) == 2
    scene.watchers.apply(3, KEY)
    assert scene.watchers.followed(3) == 2, "but the next invalidation comes behind it"


async def test_a_broken_stream_counts_until_its_last_lease_ends(scene: Scene) -> None:
    scene.watchers.leave(scene.open())
    scene.watchers.apply(2, KEY)
    assert scene.watchers.followed(2) == 1
    scene.stage.time = CLIENT_LEASE
    assert scene.watchers.followed(2) == 2


async def test_a_lease_never_outlasts_the_replicas_and_is_none_without(scene: Scene) -> None:
    watcher = scene.watchers.open(sees_all=True)
    scene.watchers.hear(watcher, 1, 0, LEASE)
    assert (await _news(watcher)).lease == GRANT
    scene.watchers.hear(watcher, 2, 1, 2.0)
    assert (await _news(watcher)).lease == 2.0
    scene.watchers.hear(watcher, 3, 1, 0.0)
    assert await _news(watcher) == News(1, [], [], False, 3, 0.0)


async def test_an_acknowledgement_of_what_was_never_told_counts_for_no_more(scene: Scene) -> None:
    watcher = scene.open()
    scene.watchers.hear(watcher, 3, 1_000, LEASE)
    scene.watchers.apply(2, KEY)
    assert scene.watchers.followed(2) == 1


async def test_a_new_feed_connection_ends_every_stream_and_believes_no_acknowledgement(scene: Scene) -> None:
    watcher = scene.open()
    scene.watchers.apply(100, KEY)
    scene.watchers.hear(watcher, 3, 100, LEASE)
    scene.watchers.restart(95)
    with pytest.raises(CannotDecide):
        await watcher.ended()
    scene.watchers.hear(watcher, 4, 100, LEASE)
    assert scene.watchers.followed(95) == 0
    scene.stage.time = CLIENT_LEASE
    assert scene.watchers.followed(95) == 95


async def test_what_a_client_has_not_read_is_merged_and_at_last_all_is_dropped(scene: Scene) -> None:
    watcher = scene.open()
    scene.watchers.apply(2, KEY)
    scene.watchers.apply(3, [Change("tenant", "acme")])
    assert await _news(watcher) == News(3, ["lg_a"], ["acme"], False, 2, GRANT)
    for number in range(bounds.WATCHER_BACKLOG + 1):
        scene.watchers.apply(4 + number, [Change("key", f"lg_{number}")])
    news = await _news(watcher)
    assert (news.drop_all, news.key_ids) == (True, [])
    scene.watchers.apply(5_000, KEY)
    assert (await _news(watcher)).key_ids == ["lg_a"]


@pytest.mark.parametrize("entity", ["role", "plan", "import", "all"])
async def test_what_a_client_cannot_tell_by_ids_drops_everything(entity: str, scene: Scene) -> None:
    watcher = scene.open()
    scene.watchers.apply(2, [*KEY, Change(entity, "1")])
    news = await _news(watcher)
    assert (news.drop_all, news.key_ids, news.revision) == (True, [], 2)


async def test_changes_that_are_not_known_any_more_drop_everything(scene: Scene) -> None:
    watcher = scene.open()
    scene.watchers.apply(2, None)
    assert (await _news(watcher)).drop_all


async def test_a_client_of_another_tenant_is_told_no_ids(scene: Scene) -> None:
    watcher = scene.open(sees_all=False)
    scene.watchers.apply(2, KEY)
    news = await _news(watcher)
    assert (news.drop_all, news.key_ids) == (True, [])


async def test_streams_are_bounded_and_so_are_broken_ones_that_still_count(scene: Scene) -> None:
    for _ in range(bounds.WATCHERS):
        scene.watchers.leave(scene.open())
    with pytest.raises(Overloaded):
        scene.open()
    scene.stage.time = CLIENT_LEASE
    for _ in range(bounds.WATCHERS):
        scene.open()
    with pytest.raises(Overloaded):
        scene.open()


async def test_a_replica_that_closes_ends_streams_and_knows_how_long_their_clients_go_on(scene: Scene) -> None:
    watcher = scene.open()
    scene.watchers.close()
    with pytest.raises(CannotDecide):
        await watcher.ended()
    with pytest.raises(CannotDecide):
        scene.watchers.open(sees_all=True)
    assert scene.watchers.leases_end_in() == CLIENT_LEASE
