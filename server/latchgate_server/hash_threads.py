"""The threads that hash secrets, off the event loop, and the bounded queue in front of them.

Short work is handed over a few pieces at a time. To wake a thread up and to be woken up by it costs the event loop a
tenth of what a generated secret takes to prove, and each time one of the two may have to wait for Python's lock.

The event loop goes first, since what memory can answer waits for nothing else: there is one thread less than there are
processors, and where Linux runs them, the threads give way to it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from latchgate_server import observability, tracing
from latchgate_server.core.errors import CannotDecide, Overloaded
from latchgate_server.spans import SpanName

_T = TypeVar("_T")

QUEUE_LENGTH = 1_024
AT_ONCE = 8
"""How many short pieces a thread takes at most: 2 to 6 ms, for which the first of them waits for the last."""

_NICENESS = 5
"""Enough to give way: three quarters of a contended processor go to others of the usual priority. Not so much that
one of them could lose the processor for long while it holds Python's lock."""


class _Job(NamedTuple):
    work: Callable[[], Any]
    is_short: bool


class _Outcome(NamedTuple):
    value: Any
    error: Exception | None


class HashThreads:
    """Does work in the order in which it came."""

    def __init__(self, threads: int | None = None) -> None:
        """threads: how many pieces are worked on at once; None: one less than there are processors, at least one."""
        threads = threads or max(1, (os.cpu_count() or 1) - 1)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="argon2", initializer=_give_way)
        self._idle = threads
        self._queue: dict[asyncio.Future[Any], _Job] = {}
        self._waiting = 0
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """How many callers wait for their work to be done."""
        return self._waiting

    async def run(self, work: Callable[[], _T], *, is_short: bool) -> _T:
        """What the work returns, or raises.

        is_short: whether it takes well under a millisecond.
        Raises Overloaded where the queue is full, and CannotDecide once it is closed.
        """
        if self._is_closed:
            raise CannotDecide("this server is shutting down")
        if self._waiting >= QUEUE_LENGTH:
            observability.HASHES_REFUSED.inc()
            raise Overloaded("too many secrets are being hashed at once", retry_after=1.0)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[_T] = loop.create_future()
        if not self._queue:
            loop.call_soon(self._hand_over, loop)  # and with it what comes in the same step
        self._queue[done] = _Job(work, is_short)
        self._waiting += 1
        try:
            with tracing.span(SpanName.HASH_SECRET), observability.HASH_SECONDS.time():
                return await done
        finally:
            self._waiting -= 1
            self._queue.pop(done, None)  # it is still there where the caller gave up

    def close(self) -> None:
        """Give up what waits, and let the threads end."""
        self._is_closed = True
        for done in self._queue:
            done.cancel()
        self._executor.shutdown(wait=False)

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give idle threads their shares of the queue."""
        while self._queue and self._idle and not self._is_closed:
            share = -(-len(self._queue) // self._idle)
            jobs = self._next_jobs(min(share, AT_ONCE))
            self._idle -= 1
            self._executor.submit(self._work_through, loop, jobs)

    def _next_jobs(self, count: int) -> Sequence[tuple[asyncio.Future[Any], _Job]]:
        """The first of the queue: so many short ones in a row, or a long one by itself."""
        jobs: list[tuple[asyncio.Future[Any], _Job]] = []
        for done, job in self._queue.items():
            if len(jobs) == count or (jobs and not job.is_short):
                break
            jobs.append((done, job))
            if not job.is_short:
                break
        for done, _ in jobs:
            del self._queue[done]
        return jobs

    def _work_through(self, loop: asyncio.AbstractEventLoop, jobs: Sequence[tuple[asyncio.Future[Any], _Job]]) -> None:
        """In a thread of the pool."""
        outcomes = [(done, _outcome_of(job.work)) for done, job in jobs]
        loop.call_soon_threadsafe(self._finish, loop, outcomes)

    def _finish(
        self, loop: asyncio.AbstractEventLoop, outcomes: Sequence[tuple[asyncio.Future[Any], _Outcome]]
    ) -> None:
        self._idle += 1
        self._hand_over(loop)
        for done, outcome in outcomes:
            if done.done():
                continue  # whoever asked has given up
            if outcome.error is None:
                done.set_result(outcome.value)
            else:
                done.set_exception(outcome.error)


def _give_way() -> None:
    """Lower the priority of the thread that runs this."""
    if sys.platform == "linux":  # elsewhere it is that of the whole process
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICENESS)


def _outcome_of(work: Callable[[], Any]) -> _Outcome:
    try:
        return _Outcome(work(), None)
    except Exception as error:  # noqa: BLE001 - it is raised again where the work was asked for
        return _Outcome(None, error)
