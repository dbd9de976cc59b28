"""The machine's own clock and randomness: the only file that asks for either."""

from __future__ import annotations

import asyncio
import secrets
import time
from functools import partial

_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Implements ports.Clock. Its monotonic time is CLOCK_BOOTTIME where there is one: it runs while suspended."""

    def __init__(self) -> None:
        # Attributes in place of methods: each decision asks for the time, and a method around it takes twice as long.
        self.now = time.time
        self.monotonic = partial(time.clock_gettime, _MONOTONIC)

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        await asyncio.sleep(seconds)


class SystemEntropy:
    """Implements ports.Entropy with the operating system's generator."""

    def bytes(self, count: int) -> bytes:
        """That many random bytes."""
        return secrets.token_bytes(count)
