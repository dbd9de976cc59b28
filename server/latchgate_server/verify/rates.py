"""Rate limits: their backlogs in this process's memory.

Where several processes serve and no store is shared, each counts for itself, against its share.
"""

from __future__ import annotations

from typing import Final

from latchgate_server.core.charging import HeldRate, backlog_since_reset
from latchgate_server.core.ports import Clock

_SWEEP_FROM: Final = 10_000


class LocalRates:
    """The buckets of rate limits that are not full. A full one needs no memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # When each bucket is full again, on the monotonic clock.
        self._full_at: dict[str, float] = {}
        self._sweep_at = _SWEEP_FROM

    def __len__(self) -> int:
        return len(self._full_at)

    def backlogs(self, rates: tuple[HeldRate, ...], now: float) -> list[float]:
        """What each bucket has to drain yet, in seconds; at most the capacity of a limit that was since lowered.

        now: on the monotonic clock.
        """
        return [self._backlog(held, now) for held in rates]

    def _backlog(self, held: HeldRate, now: float) -> float:
        full_at = self._full_at.get(held.bucket)
        if full_at is not None:
            backlog = full_at - now
        elif held.reset.spent:
            backlog = backlog_since_reset(held, self._clock.now())
        else:
            return 0.0
        return 0.0 if backlog <= 0.0 else min(backlog, held.rate.capacity)

    def take(self, rates: tuple[HeldRate, ...], backlogs: list[float], cost: int, share: int, now: float) -> None:
        """Take the cost of each bucket, which all admit it.

        backlogs: what `backlogs` gave in this same step; afterwards, what the buckets have to drain with the cost.
        share: see core/rate.py. now: on the monotonic clock.
        """
        for place, held in enumerate(rates):
            backlog = backlogs[place] + cost * held.rate.interval * share
            backlogs[place] = backlog
            self._full_at[held.bucket] = now + backlog
        if len(self._full_at) > self._sweep_at:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Forget full buckets; so seldom that each taking pays for a constant number of them."""
        self._full_at = {bucket: full_at for bucket, full_at in self._full_at.items() if full_at > now}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._full_at))
