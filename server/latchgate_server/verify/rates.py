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

    def backlogs(self, rates: Sequence[HeldRate]) -> list[float]:
        """The backlog of each bucket, in seconds. That of a limit which was since lowered is at most its capacity."""
        now = self._clock.monotonic()
        backlogs = []
        for held, rate in rates:
            full_at = self._full_at.get(held.bucket)
            backlog = (
                self._initial(held.reset.spent * rate.interval, held.reset.time) if full_at is None else full_at - now
            )
            backlogs.append(min(max(backlog, 0.0), rate.capacity))
        return backlogs

    def take(self, rates: Sequence[HeldRate], backlogs: Sequence[float], cost: int, share: int) -> list[float]:
        """Take the cost of every bucket and return their backlogs afterwards.

        backlogs: from `backlogs`, in this same step. share: see core/rate.py.
        """
        now = self._clock.monotonic()
        after = [backlog + cost * rate.interval * share for (_, rate), backlog in zip(rates, backlogs, strict=True)]
        for (held, _), backlog in zip(rates, after, strict=True):
            self._full_at[held.bucket] = now + backlog
        if len(self._full_at) > self._sweep_at:
            self._sweep(now)
        return after

    def _initial(self, spent: float, reset_time: float) -> float:
        """The backlog of a bucket not seen before: what its reset left, drained since."""
        return spent - (self._clock.now() - reset_time) if spent else 0.0

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
