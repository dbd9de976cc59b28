"""Time that only the test moves, and tasks that stand still where it can see them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

LEASE = 30.0
"""Seconds of the world's time. Code that limits real time by the lease has plenty."""

CLIENT_LEASE = 10.0
"""Likewise, of clients with a cache of their own."""

_REAL_SECONDS = 30.0  # nothing takes this long, so whatever does hangs
_WALL = 1_000_000_000.0  # years before the database's: no decision here may compare the two

T = TypeVar("T")

_started: ContextVar[asyncio.Task[Any] | None] = ContextVar("_started", default=None)
"""What the test started, for all tasks that came of it."""


@dataclass(slots=True)
class _Halt:
    """Where a task stands still, and until when, unless the test lets it go on before.

    of: what the test started, and so waits for; the task itself, or one that had it do part of its work.
    """

    where: str
    until: float
    go: asyncio.Future[None]
    of: asyncio.Task[Any]


class Stage:
    """Time, and who stands still."""

    def __init__(self) -> None:
        self.time = 0.0
        self._halts: dict[asyncio.Task[Any], _Halt] = {}
        self._moved = asyncio.Event()

    async def halt(self, where: str, until: float = math.inf) -> None:
        """Called by what is tested: stand still until the test goes on, or until that time has come."""
        task = asyncio.current_task()
        assert task is not None
        halt = _Halt(where, until, asyncio.get_running_loop().create_future(), _started.get() or task)
        self._halts[task] = halt
        self._moved.set()
        try:
            await halt.go
        finally:
            if self._halts.get(task) is halt:
                del self._halts[task]

    def where(self, task: asyncio.Task[Any]) -> str:
        """Where the task stands still; empty while it moves or once it has ended."""
        halted = self._halted(task)
        return self._halts[halted].where if halted else ""

    def halted_at(self, where: str) -> asyncio.Task[Any] | None:
        """A task that stands still there."""
        return next((task for task, halt in self._halts.items() if halt.where == where), None)

    async def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run work until it has ended or stands still."""

        async def started() -> T:
            _started.set(asyncio.current_task())
            return await work

        task = asyncio.get_running_loop().create_task(started())
        # What nobody waits for any more would be logged when it is collected, at whatever moment that is; and Python
        # 3.11 cannot bear a traceback that is written while it parses (python/cpython#106905).
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await self.settle(task)
        return task

    async def resume(self, task: asyncio.Task[Any], error: Exception | None = None) -> None:
        """Let a task go on, or fail where it stands, until it has ended or stands still again."""
        halted = self._halted(task)
        assert halted is not None
        halt = self._halts.pop(halted)
        if error is None:
            halt.go.set_result(None)
        else:
            halt.go.set_exception(error)
        # What was started may be cancelled, and a part of its work go on.
        await self.settle(halted if halt.of.done() else halt.of)

    def _halted(self, task: asyncio.Task[Any]) -> asyncio.Task[Any] | None:
        """The task that stands still: itself, or one that it started for a part of its work."""
        return next((halted for halted, halt in self._halts.items() if task in (halted, halt.of)), None)

    async def settle(self, task: asyncio.Task[Any], unless: Callable[[], bool] = lambda: False) -> None:
        """Return once the task has ended or stands still, or `unless` is true."""
        task.add_done_callback(lambda _: self._moved.set())
        async with asyncio.timeout(_REAL_SECONDS):
            while not (task.done() or self._halted(task) or unless()):
                self._moved.clear()
                await self._moved.wait()

    async def advance(self, seconds: float) -> None:
        """Let time pass; whoever only waited for it goes on."""
        self.time += seconds
        for task, halt in sorted(self._halts.items(), key=lambda item: item[1].until):
            if halt.until <= self.time and self._halts.get(task) is halt:
                await self.resume(task)

    async def close(self) -> None:
        """End whoever still stands."""
        tasks = list(self._halts)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class MachineClock:
    """The clock of one machine: implements ports.Clock. Each begins at another time, and rates differ a little."""

    def __init__(self, stage: Stage, began: float = 1.0, rate: float = 1.0) -> None:
        self._stage, self._began, self._rate = stage, began, rate

    def now(self) -> float:
        return _WALL + self._stage.time

    def monotonic(self) -> float:
        return self._began + self._stage.time * self._rate

    async def sleep(self, seconds: float) -> None:
        await self._stage.halt("asleep", self._stage.time + seconds / self._rate)
