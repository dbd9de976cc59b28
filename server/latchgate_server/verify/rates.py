"""Rate limits: their backlogs in this process's memory.

Where several processes serve and no store is shared, each counts for itself, against its share.
"""

from __future__ import annotations

from typing import Final

from latchgate_server.core.charging import HeldRate, backlog_since_reset
from latchgate_server.core.ports import Clock
from latchgate_server.core.rate import admits, retry_after

_SWEEP_FROM: Final = 10_000

Wait = float | None
"""Of a bucket that does not have a cost left: the seconds until it will; None: it never will."""


class LocalRates:
    """The buckets of rate limits that are not full. A full one needs no memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # When each bucket is full again, on the monotonic clock.
        self._full_at: dict[str, float] = {}
        self._sweep_at = _SWEEP_FROM

    def __len__(self) -> int:
        return len(self._full_at)

    def charge(
        self, rates: tuple[HeldRate, ...], need: int, take: int, share: int, now: float
    ) -> tuple[list[float], list[Wait]]:
        """Take `take` units of every bucket if each has `need` left, else of none.

        share: see core/rate.py. now: on the monotonic clock. Gives the backlog of each bucket afterwards, in seconds,
        at most the capacity of a limit that was since lowered; and the waits of those that refused.
        """
        backlogs: list[float] = []
        waits: list[Wait] = []
        for each in rates:
            held, rate = each.held, each.rate
            full_at = self._full_at.get(held.bucket)
            if full_at is None:
                backlog = backlog_since_reset(held, rate, self._clock.now()) if held.reset.spent else 0.0
            else:
                backlog = full_at - now
            backlog = 0.0 if backlog <= 0.0 else min(backlog, rate.capacity)
            backlogs.append(backlog)
            if not admits(backlog, rate, need, share):
                waits.append(retry_after(backlog, rate, need, share))
        if take and not waits:
            for place, each in enumerate(rates):
                backlog = backlogs[place] + take * each.rate.interval * share
                backlogs[place] = backlog
                self._full_at[each.held.bucket] = now + backlog
            if len(self._full_at) > self._sweep_at:
                self._sweep(now)
        return backlogs, waits

    def _sweep(self, now: float) -> None:
        """Forget full buckets; so seldom that each taking pays for a constant number of them."""
        self._full_at = {bucket: full_at for bucket, full_at in self._full_at.items() if full_at > now}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._full_at))
