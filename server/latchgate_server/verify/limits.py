"""Charges a key's limits: rate limits and quotas, all of them or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from latchgate_server import observability, tracing
from latchgate_server.core.charging import Charge, Limits, LimitStatus
from latchgate_server.core.errors import Overloaded
from latchgate_server.core.limit_stores import Charged
from latchgate_server.core.model import DenialReason
from latchgate_server.core.ports import Clock
from latchgate_server.core.rate import admits, remaining, retry_after
from latchgate_server.spans import SpanName
from latchgate_server.verify.quotas import Borrowed, Quotas
from latchgate_server.verify.rates import LocalRates
from latchgate_server.verify.shared_rates import SharedRates

_ATTEMPTS: Final = 20


class LimitCharger:
    """Implements limit_stores.ChargesLimits."""

    def __init__(
        self,
        rates: LocalRates,
        shared: SharedRates | None,
        quotas: Quotas,
        clock: Clock,
        *,
        processes: Callable[[], int],
    ) -> None:
        """shared: None where each process counts for itself. processes: how many there are, 1 or more."""
        self._clock = clock
        self._rates = rates
        self._shared = shared
        self._quotas = quotas
        self._processes = processes
        observability.LIMIT_STORE_UP.set(1)

    @property
    def rate_buckets(self) -> int:
        """How many buckets of rate limits this process's memory holds."""
        return len(self._rates)

    def charge_from_memory(self, limits: Limits, cost: int) -> Charge | None:
        """The same as `charge`, but None where somebody else must be asked."""
        if limits.rates and self._shared is not None:
            if self._shared.is_worth_asking(limits):
                return None
            self._shared.check_loss(limits)
        now = self._clock.monotonic()
        held = self._quotas.known(limits.quotas, cost or 1, now)
        return None if held is None else self._charge_here(limits, held, cost, now)

    async def charge(self, limits: Limits, cost: int) -> Charge:
        """See limit_stores.ChargesLimits."""
        for _ in range(_ATTEMPTS):
            now = self._clock.monotonic()
            held = self._quotas.known(limits.quotas, cost or 1, now)
            if held is not None:
                break
            with tracing.span(SpanName.BORROW_QUOTA):
                await self._quotas.borrow(limits.quotas, cost or 1)
        else:
            raise Overloaded("others keep taking what is left of a quota")
        # No await since the quotas were found: what is held of them is still there.
        if limits.rates and self._shared is not None:
            self._shared.check_loss(limits)
            if self._shared.is_worth_asking(limits):
                return await self._charge_shared(self._shared, limits, held, cost)
        return self._charge_here(limits, held, cost, now)

    def _charge_here(self, limits: Limits, held: list[Borrowed], cost: int, now: float) -> Charge:
        need, share = cost or 1, self._processes()
        quotas_have = _all_have(held, need)
        charged = self._rates.charge(limits.rates, need, cost if quotas_have else 0, share, now)
        if not (charged.admitted and quotas_have):
            return _denial(limits, charged, held, need, share, now)
        if cost:
            self._quotas.take(held, cost, now)
        return Charge(None, _statuses(limits, charged, held, now))

    async def _charge_shared(self, shared: SharedRates, limits: Limits, held: list[Borrowed], cost: int) -> Charge:
        need, now = cost or 1, self._clock.monotonic()
        quotas_have = _all_have(held, need)
        take = cost if quotas_have else 0
        # Taken before the store is asked, and put back if it refuses: meanwhile nobody else can have it.
        self._quotas.take(held, take, now)
        charged: Charged | None = None
        try:
            charged = await shared.charge(limits, need, take)
        finally:
            if charged is None or not charged.admitted:
                self._quotas.put_back(held, take)
        if charged is None:
            return await self.charge(limits, cost)  # which leaves the store alone, now that it is lost
        if charged.admitted and quotas_have:
            return Charge(None, _statuses(limits, charged, held, now))
        return _denial(limits, charged, held, need, 1, now)


def _all_have(held: list[Borrowed], need: int) -> bool:
    for borrowed in held:  # noqa: SIM110 - a generator costs more than the rest
        if borrowed.left < need:
            return False
    return True


def _statuses(limits: Limits, charged: Charged, held: list[Borrowed], now: float) -> tuple[LimitStatus, ...]:
    """held: afterwards. What other processes have borrowed of a quota counts as spent."""
    backlogs = charged.backlogs
    assert len(backlogs) == len(limits.rates), "one of each"
    statuses = []
    for place, limit in enumerate(limits.rates):
        backlog = backlogs[place]
        statuses.append(LimitStatus(limit, remaining(backlog, limit.rate), backlog))
    for borrowed in held:
        left = borrowed.left + borrowed.elsewhere
        statuses.append(LimitStatus(borrowed.quota, left, borrowed.seconds_left(now)))
    return tuple(statuses)


def _denial(  # noqa: PLR0917 - all that was asked
    limits: Limits, charged: Charged, held: list[Borrowed], need: int, share: int, now: float
) -> Charge:
    """Where at least one refused, and nothing was taken of any."""
    rate_waits = [
        retry_after(backlog, limit.rate, need, share)
        for limit, backlog in zip(limits.rates, charged.backlogs, strict=True)
        if not admits(backlog, limit.rate, need, share)
    ]
    quota_waits = [borrowed.seconds_left(now) for borrowed in held if borrowed.left < need]
    # A store that refuses may know of less than the backlogs that it told: then it is tried again at once.
    reason = DenialReason.QUOTA_EXCEEDED if quota_waits and not rate_waits else DenialReason.RATE_LIMITED
    waits = [*rate_waits, *quota_waits]
    wait = None if None in waits else max((wait for wait in waits if wait is not None), default=0.0)
    return Charge(reason, _statuses(limits, charged, held, now), wait)
