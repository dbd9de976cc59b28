"""Loads from the database: many callers to one query, and no caller is given what was asked before it called."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from latchgate_server.core.errors import CannotDecide, Overloaded, StoreUnavailable
from latchgate_server.core.ports import Loaded, Reader
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.reader import PostgresReader
from latchgate_server.verify import loader as loader_module
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.loader import LoadedEntry, RecordLoader


@dataclass
class Query:
    """A query under way, which the test answers."""

    key_ids: Sequence[str]
    answer: asyncio.Future[Mapping[str, Loaded]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def finish(self, revision: int = 1) -> None:
        """No such keys, says the database at that revision."""
        self.answer.set_result({key_id: Loaded(None, revision) for key_id in self.key_ids})


class Database:
    """As much of a Reader as a loader needs; it answers when the test says so."""

    def __init__(self) -> None:
        self.queries: list[Query] = []

    async def load_records(self, key_ids: Sequence[str]) -> Mapping[str, Loaded]:
        query = Query(key_ids)
        self.queries.append(query)
        return await query.answer


class World:
    """A loader on such a database."""

    def __init__(self) -> None:
        self.database = Database()
        self.loader = RecordLoader(cast(Reader, self.database), RecordCache(100))

    async def call(self, key_id: str) -> asyncio.Task[LoadedEntry]:
        """Begin a load, up to where it waits."""
        task = asyncio.get_running_loop().create_task(self.loader.load(key_id))
        await settle()
        return task

    @property
    def asked(self) -> list[list[str]]:
        """The key ids of each query so far."""
        return [list(query.key_ids) for query in self.database.queries]


async def settle() -> None:
    """Let everybody go on until they wait for the database."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(loader_module, "SECOND_QUERY_SECONDS", 0.0)
    return World()


async def test_a_hundred_calls_for_one_key_are_one_query(world: World) -> None:
    calls = [asyncio.get_running_loop().create_task(world.loader.load("a")) for _ in range(100)]
    await settle()
    assert world.asked == [["a"]]
    world.database.queries[0].finish()
    entries = await asyncio.gather(*calls)
    assert {id(loaded.entry) for loaded in entries} == {id(entries[0].entry)}


async def test_calls_for_a_hundred_keys_are_one_query(world: World) -> None:
    key_ids = [f"key-{number}" for number in range(100)]
    calls = [asyncio.get_running_loop().create_task(world.loader.load(key_id)) for key_id in key_ids]
    await settle()
    assert world.asked == [key_ids]
    world.database.queries[0].finish()
    await asyncio.gather(*calls)


async def test_a_call_never_gets_a_load_that_was_sent_before_it_began(world: World) -> None:
    early = await world.call("a")
    late = await world.call("a")
    assert world.asked == [["a"], ["a"]]
    world.database.queries[0].finish(revision=1)
    assert (await early).revision == 1
    await settle()
    assert not late.done()
    world.database.queries[1].finish(revision=2)
    assert (await late).revision == 2


async def test_a_second_query_goes_beside_one_that_takes_long_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "SECOND_QUERY_SECONDS", 0.05)
    calls = [await world.call("a"), await world.call("b"), await world.call("c")]
    assert world.asked == [["a"]]
    world.database.queries[0].finish()
    await settle()
    assert world.asked == [["a"], ["b", "c"]], "who came meanwhile shares the next"
    calls.append(await world.call("d"))
    assert len(world.asked) == 2
    async with asyncio.timeout(10):
        while len(world.asked) == 2:
            await asyncio.sleep(0.001)
    assert world.asked[2] == ["d"]
    for query in world.database.queries[1:]:
        query.finish()
    await asyncio.gather(*calls)


async def test_calls_that_come_while_two_queries_are_under_way_share_the_next(world: World) -> None:
    calls = [await world.call("a"), await world.call("b")]
    later = [await world.call("c"), await world.call("a"), await world.call("c")]
    assert world.asked == [["a"], ["b"]]
    world.database.queries[0].finish(revision=1)
    await settle()
    assert world.asked == [["a"], ["b"], ["c", "a"]]
    world.database.queries[1].finish(revision=1)
    world.database.queries[2].finish(revision=2)
    assert [(await call).revision for call in calls + later] == [1, 1, 2, 2, 2]


async def test_a_call_in_the_very_step_in_which_the_last_queries_end_is_answered(world: World) -> None:
    calls = [await world.call("a"), await world.call("b")]
    for query in world.database.queries:
        query.finish()
    calls.append(asyncio.get_running_loop().create_task(world.loader.load("c")))
    await settle()
    for query in world.database.queries[2:]:
        query.finish()
    async with asyncio.timeout(0.1):
        await asyncio.gather(*calls)


async def test_a_caller_that_gives_up_does_not_take_the_others_answer(world: World) -> None:
    impatient = await world.call("a")
    others = [asyncio.get_running_loop().create_task(world.loader.load("b")) for _ in range(2)]
    await settle()
    impatient.cancel()
    others[0].cancel()
    await settle()
    assert impatient.cancelled()
    for query in world.database.queries:
        query.finish()
    assert (await others[1]).revision == 1
    assert others[0].cancelled()


async def test_the_callers_of_one_query_go_on_a_few_at_a_time_and_others_come_in_between(world: World) -> None:
    loop, turn, went_on = asyncio.get_running_loop(), 0, list[int]()

    def take_turn() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(take_turn)

    async def call(key_id: str) -> None:
        await world.loader.load(key_id)
        went_on.append(turn)

    calls = [loop.create_task(call(f"key-{number}")) for number in range(100)]
    await settle()
    world.database.queries[0].finish()
    loop.call_soon(take_turn)
    await asyncio.gather(*calls)
    assert max(Counter(went_on).values()) == loader_module.ANSWERED_AT_ONCE


async def test_a_failure_reaches_every_caller_and_the_next_call_tries_again(world: World) -> None:
    calls = [asyncio.get_running_loop().create_task(world.loader.load(key_id)) for key_id in ["a", "a", "b"]]
    await settle()
    world.database.queries[0].answer.set_exception(StoreUnavailable("gone"))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3
    again = await world.call("a")
    world.database.queries[1].finish()
    assert (await again).revision == 1


async def test_a_stored_key_that_makes_no_sense_does_not_spoil_the_load_of_others(world: World) -> None:
    calls = [asyncio.get_running_loop().create_task(world.loader.load(key_id)) for key_id in ["bad", "good"]]
    await settle()
    bad, good = Loaded(CannotDecide("malformed"), 1), Loaded(None, 1)
    world.database.queries[0].answer.set_result({"bad": bad, "good": good})
    with pytest.raises(CannotDecide, match="malformed"):
        await calls[0]
    assert (await calls[1]).revision == 1


async def test_so_many_keys_wait_and_no_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "WAITING_KEYS", 2)
    waiting = [await world.call(key_id) for key_id in ["sent", "sent too", "a", "b"]]
    with pytest.raises(Overloaded):
        await world.loader.load("c")
    waiting.append(await world.call("a"))
    world.database.queries[0].finish()
    await settle()
    assert world.asked == [["sent"], ["sent too"], ["a", "b"]]
    waiting.append(await world.call("c"))
    world.database.queries[1].finish()
    world.database.queries[2].finish()
    await settle()
    world.database.queries[3].finish()
    assert len(await asyncio.gather(*waiting)) == 6


async def test_a_query_takes_so_many_keys_and_leaves_the_rest_to_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "BATCH", 2)
    calls = [asyncio.get_running_loop().create_task(world.loader.load(key_id)) for key_id in "abc"]
    await settle()
    for query in world.database.queries:
        query.finish()
    await settle()
    assert [key_id for key_ids in world.asked for key_id in key_ids] == ["a", "b", "c"]
    assert max(map(len, world.asked)) == 2
    for query in world.database.queries:
        if not query.answer.done():
            query.finish()
    await asyncio.gather(*calls)


async def test_the_revision_of_a_load_is_that_of_its_snapshot(database_url: str) -> None:
    pool = await create_pool(database_url, 3.0, 2)
    try:
        loader = RecordLoader(PostgresReader(pool, 3.0), RecordCache(100))
        before = await loader.load("nobody")
        revision = await pool.fetchval("SELECT latchgate_begin_change()")
        after = await loader.load("nobody")
    finally:
        pool.terminate()
    assert before.entry.record is None
    assert (before.revision, after.revision) == (revision - 1, revision)


async def test_whoever_waits_when_the_loader_closes_is_told_to_ask_elsewhere(world: World) -> None:
    calls = [await world.call(key_id) for key_id in "abc"]
    assert world.asked == [["a"], ["b"]], "the third waits for its query to be sent"
    await world.loader.close()
    async with asyncio.timeout(1.0):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CannotDecide] * 3
    with pytest.raises(CannotDecide, match="shutting down"):
        await world.loader.load("d")
    assert len(world.database.queries) == 2
