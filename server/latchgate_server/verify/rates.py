"""Rate limits: their backlogs in this process's memory.

Where several processes serve and no store is shared, each counts for itself, against its share.
"""

from __future__ import annotations

from collections.abc import Sequence

from latchgate_server.core.charging import HeldRate
from latchgate_server.core.ports import Clock
from latchgate_server.core.rate import admits, retry_after

_SWEEP_FROM = 10_000


class LocalRates:
    """The buckets of rate limits that are not full. A full one needs no memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # When each bucket is full again, on the monotonic clock.
        self._full_at: dict[str, float] = {}
        self._sweep_at = _SWEEP_FROM

    def __len__(self) -> int:
        return len(self._full_at)

    def backlogs(self, rates: Sequence[HeldRate], now: float) -> list[float]:
        """The backlog of each bucket, in seconds. That of a limit which was since lowered is at most its capacity.

        now: on the monotonic clock.
        """
        backlogs = []
        for held, rate in rates:
            full_at = self._full_at.get(held.bucket)
            if full_at is None:
                backlog = self._initial(held.reset.spent * rate.interval, held.reset.time) if held.reset.spent else 0.0
            else:
                backlog = full_at - now
            backlogs.append(0.0 if backlog <= 0.0 else min(backlog, rate.capacity))
        return backlogs

    def take(self, rates: Sequence[HeldRate], backlogs: list[float], cost: int, share: int, now: float) -> None:
        """Take the cost of every bucket, and bring `backlogs` up to date, which `backlogs` gave in this same step.

        share: see core/rate.py.
        """
        for place, (held, rate) in enumerate(rates):
            backlogs[place] += cost * rate.interval * share
            self._full_at[held.bucket] = now + backlogs[place]
        if len(self._full_at) > self._sweep_at:
            self._sweep(now)

    def _initial(self, spent: float, reset_time: float) -> float:
        """The backlog of a bucket not seen before: what its reset left, drained since."""
        return spent - (self._clock.now() - reset_time)

    def _sweep(self, now: float) -> None:
        """Forget full buckets; so seldom that each taking pays for a constant number of them."""
        self._full_at = {bucket: full_at for bucket, full_at in self._full_at.items() if full_at > now}
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._full_at))


def refused(rates: Sequence[HeldRate], backlogs: Sequence[float], cost: int, share: int) -> list[float | None]:
    """For each bucket that does not have the cost left: the seconds until it will; None: it never will."""
    return [
        retry_after(backlog, rate, cost, share)
        for (_, rate), backlog in zip(rates, backlogs, strict=True)
        if not admits(backlog, rate, cost, share)
    ]
