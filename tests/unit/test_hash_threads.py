"""The threads that hash: who is served when, how much goes to a thread at once, and who gives up."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import pytest

from latchgate_server.core.errors import CannotDecide
from latchgate_server.hash_threads import AT_ONCE, HashThreads

T = TypeVar("T")


class Pool:
    """One thread, what it worked on, and the event loop's turns in which answers came."""

    def __init__(self) -> None:
        self.threads = HashThreads(1)
        self.go_on = threading.Event()
        self.worked: list[str] = []
        self.handed_over: list[int] = []
        work_through = self.threads._work_through

        def counted(loop: asyncio.AbstractEventLoop, jobs: list[object]) -> None:
            self.handed_over.append(len(jobs))
            work_through(loop, jobs)  # type: ignore[arg-type]

        self.threads._work_through = counted  # type: ignore[method-assign,assignment]

    def ask(self, name: str, *, is_short: bool = True) -> asyncio.Task[str]:
        """Begin to wait for a piece of work, which itself waits to be told."""

        def work() -> str:
            assert self.go_on.wait(10)
            self.worked.append(name)
            return name

        return asyncio.get_running_loop().create_task(self.threads.run(work, is_short=is_short))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the threads."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    yield made
    made.go_on.set()
    made.threads.close()


async def in_time(answers: Awaitable[T]) -> T:
    async with asyncio.timeout(10):
        return await answers


async def test_work_that_comes_together_goes_to_a_thread_a_few_pieces_at_a_time_and_in_its_order(pool: Pool) -> None:
    names = [f"{number:02}" for number in range(2 * AT_ONCE + 1)]
    asked = [pool.ask(name) for name in names]
    pool.go_on.set()
    assert await in_time(asyncio.gather(*asked)) == names
    assert pool.worked == names
    assert pool.handed_over == [AT_ONCE, AT_ONCE, 1]


async def test_long_work_goes_by_itself_so_that_nothing_short_waits_for_it_in_the_same_thread(pool: Pool) -> None:
    asked = [pool.ask("a"), pool.ask("long", is_short=False), pool.ask("b"), pool.ask("c")]
    pool.go_on.set()
    await in_time(asyncio.gather(*asked))
    assert pool.worked == ["a", "long", "b", "c"]
    assert pool.handed_over == [1, 1, 2]


async def test_idle_threads_share_what_there_is() -> None:
    threads = HashThreads(2)
    both = threading.Barrier(2, timeout=10)
    try:
        asked = [threads.run(both.wait, is_short=True) for _ in range(2)]
        async with asyncio.timeout(10):
            assert sorted(await asyncio.gather(*asked)) == [0, 1], "each waits for the other, in a thread of its own"
    finally:
        threads.close()


async def test_what_somebody_gave_up_is_not_worked_on_and_takes_no_place(pool: Pool) -> None:
    first = pool.ask("first")
    await pool.until(lambda: pool.handed_over == [1])
    given_up = [pool.ask("given up") for _ in range(3)]
    last = pool.ask("last")
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    await asyncio.gather(*given_up, return_exceptions=True)
    assert pool.threads.waiting == 2
    pool.go_on.set()
    await in_time(asyncio.gather(first, last))
    assert pool.worked == ["first", "last"]
    assert pool.threads.waiting == 0


async def test_what_work_raises_meets_its_own_caller_alone(pool: Pool) -> None:
    def malformed() -> str:
        raise CannotDecide("malformed")

    asked = [pool.ask("a"), asyncio.ensure_future(pool.threads.run(malformed, is_short=True)), pool.ask("b")]
    pool.go_on.set()
    async with asyncio.timeout(10):
        one, error, other = await asyncio.gather(*asked, return_exceptions=True)
    assert (one, str(error), other) == ("a", "malformed", "b")


async def test_once_closed_nobody_waits_any_more(pool: Pool) -> None:
    busy = pool.ask("busy")
    await pool.until(lambda: pool.handed_over == [1])
    waiting = pool.ask("waiting")
    await asyncio.sleep(0)
    pool.threads.close()
    async with asyncio.timeout(10):
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(outcome, asyncio.CancelledError)
    with pytest.raises(CannotDecide, match="shutting down"):
        await pool.threads.run(str, is_short=True)
    pool.go_on.set()
    assert await in_time(busy) == "busy", "what a thread has begun it ends"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority is that of a whole process")
async def test_the_threads_give_way_to_the_event_loop() -> None:
    threads = HashThreads(1)
    try:
        async with asyncio.timeout(10):
            theirs = await threads.run(lambda: os.getpriority(os.PRIO_PROCESS, 0), is_short=True)
    finally:
        threads.close()
    assert theirs > os.getpriority(os.PRIO_PROCESS, 0), "nicer"


@pytest.mark.parametrize(("processors", "threads"), [(None, 1), (1, 1), (2, 1), (8, 7)])
def test_one_processor_is_left_to_the_event_loop(
    processors: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    made = HashThreads()
    made.close()
    assert made._idle == threads
