"""GCRA, the arithmetic of rate limits: pure, on one number for each bucket.

The generic cell rate algorithm (ITU-T I.371, annex A) as a meter: what has been taken drains away steadily, one unit in
each `interval`. A bucket is remembered as its backlog: the seconds until all of it has drained and the bucket is full
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_ROUNDING: Final = 1.0 + 1e-9
"""Sums of many intervals may end a hair above the capacity that they make up."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How a bucket drains.

    interval: seconds for one unit. burst: the most units that it can hold. capacity: the backlog of a bucket that is
    used up, in seconds.
    """

    interval: float
    burst: int
    capacity: float

    @classmethod
    def of(cls, interval: float, burst: int) -> Rate:
        """The rate with that interval and burst."""
        return cls(interval, burst, burst * interval)


def admits(backlog: float, rate: Rate, cost: int, share: int = 1) -> bool:
    """Whether a bucket with that backlog (seconds) has `cost` units left.

    share: how many processes count for themselves, each on one such part of the rate. A part drains so many times more
    slowly and holds so many times less. What costs more than it holds, a full part admits, and then owes it.
    """
    if cost > rate.burst:
        return False
    return backlog <= 0.0 or backlog + cost * rate.interval * share <= rate.capacity * _ROUNDING


def remaining(backlog: float, rate: Rate) -> int:
    """The whole units that a bucket with that backlog (seconds) has left."""
    return max(0, int((rate.capacity * _ROUNDING - backlog) / rate.interval))


def retry_after(backlog: float, rate: Rate, cost: int, share: int = 1) -> float | None:
    """The seconds until a bucket that does not admit `cost` units will; None: it never will."""
    if cost > rate.burst:
        return None
    return min(backlog, max(0.0, backlog + cost * rate.interval * share - rate.capacity))
