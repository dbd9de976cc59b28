"""Rate limits: their backlogs in this process's memory.

Where several processes serve and no store is shared, each counts for itself, against its share.
"""

from __future__ import annotations

from typing import Final

from latchgate_server.core.charging import HeldRate, backlog_since_reset
from latchgate_server.core.limit_stores import Charged
from latchgate_server.core.ports import Clock
from latchgate_server.core.rate import admits

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

    def charge(self, rates: tuple[HeldRate, ...], need: int, take: int, share: int, now: float) -> Charged:
        """Take `take` units of every bucket if each has `need` left, else of none.

        share: see core/rate.py. now: on the monotonic clock. A backlog is at most the capacity of a limit that was
        since lowered.
        """
        backlogs: list[float] = []
        admitted = True
        for held in rates:
            backlog = self._backlog(held, now)
            backlogs.append(backlog)
            if not admits(backlog, held.rate, need, share):
                admitted = False
        if take and admitted:
            # By place: a strict `zip` is slow once it is compiled.
            for place, held in enumerate(rates):
                backlog = backlogs[place] + take * held.rate.interval * share
                backlogs[place] = backlog
                self._full_at[held.bucket] = now + backlog
            if len(self._full_at) > self._sweep_at:
                self._sweep(now)
        return Charged(admitted, backlogs)

    def _backlog(self, held: HeldRate, now: float) -> float:
        full_at = self._full_at.get(held.bucket)
        if full_at is not None:
            backlog = full_at - now
        elif held.reset.spent:
            backlog = backlog_since_reset(held, self._clock.now())
        else:
            return 0.0
        return 0.0 if backlog <= 0.0 else min(backlog, held.rate.capacity)

    def _sweep(self, now: float) -> None:
        """Forget full buckets; so seldom that each taking pays for a constant number of them."""
        self._full_at = {bucket: full_at for bucket, full_at in self._full_at.items() if full_at > now}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._full_at))
