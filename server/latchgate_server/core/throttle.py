"""A rate at which something may happen, with a burst: what cannot happen now may wait for its turn, or be refused.

The arithmetic is that of GCRA: one number, the time at which all that was taken will have been paid for.
"""

from __future__ import annotations


class Throttle:
    """Hands out turns at a rate."""

    __slots__ = ("_burst", "_interval", "_paid_at")

    def __init__(self, interval: float, burst: int) -> None:
        """interval: seconds for each turn in the long run. burst: how many may be taken at once."""
        self._interval = interval
        self._burst = burst
        self._paid_at = 0.0

    def delay(self, now: float) -> float:
        """Seconds until the next turn; 0 where it is now. now: on the monotonic clock."""
        return max(0.0, self._paid_at - now - self._interval * (self._burst - 1))

    def take(self, now: float) -> None:
        """Take the next turn, be it now or after `delay`."""
        self._paid_at = max(self._paid_at, now) + self._interval

    def give_back(self) -> None:
        """Give back a turn that cost nothing after all."""
        self._paid_at -= self._interval
