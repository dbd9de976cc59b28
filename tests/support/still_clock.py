"""Time that only a test moves."""

from __future__ import annotations

import asyncio


class StillClock:
    """A Clock whose wall and monotonic time are the same; whoever sleeps moves it as well.

    start: Unix seconds.
    """

    def __init__(self, start: float = 1_800_000_000.0) -> None:
        self.time = start

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)
