"""What runs beside the servers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """What runs beside the servers, for as long as the process lives. Where one fails, the process ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, task: asyncio.Task[None]) -> None:
        """Watch over a task that runs already."""
        self._tasks.add(task)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task."""
        self.add(asyncio.get_running_loop().create_task(work))

    async def first_end(self, stopping: asyncio.Event) -> None:
        """Return when `stopping` is set. Raises what a task raises before."""
        waiting = asyncio.get_running_loop().create_task(stopping.wait())
        done, _ = await asyncio.wait({waiting, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        for task in done:
            task.result()

    async def cancel(self) -> None:
        """End every task."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
