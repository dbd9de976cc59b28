"""The machine's own clock and randomness: the only file that asks for either."""

from __future__ import annotations

import asyncio
import secrets
import time

_MONOTONIC = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """Implements ports.Clock. Its monotonic time is CLOCK_BOOTTIME where there is one: it runs while suspended."""

    def now(self) -> float:
        """Wall time in Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(_MONOTONIC)

    async def sleep(self, seconds: float) -> None:
        """Wait for that many seconds."""
        await asyncio.sleep(seconds)


class SystemEntropy:
    """Implements ports.Entropy with the operating system's generator."""

    def bytes(self, count: int) -> bytes:
        """That many random bytes."""
        return secrets.token_bytes(count)
