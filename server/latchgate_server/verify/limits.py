"""Charges a key's limits: rate limits and quotas, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from latchgate_server import observability, tracing
from latchgate_server.core.charging import Charge, HeldRate, Limits, LimitStatus
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
        """See limit_stores.ChargesLimits."""
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
        backlogs = self._rates.backlogs(limits.rates, now)
        if not (_all_admit(limits.rates, backlogs, need, share) and _all_have(held, need)):
            return _denial(limits, backlogs, held, need, share, now)
        if cost:
            self._rates.take(limits.rates, backlogs, cost, share, now)
            self._quotas.take(held, cost, now)
        return Charge(None, _statuses(limits, backlogs, held, now))

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
            return Charge(None, _statuses(limits, charged.backlogs, held, now))
        return _denial(limits, charged.backlogs, held, need, 1, now)


def _all_admit(rates: tuple[HeldRate, ...], backlogs: Sequence[float], need: int, share: int) -> bool:
    # By place, here and below: a strict `zip` is slow once it is compiled.
    for place, limit in enumerate(rates):  # noqa: SIM110 - a generator costs more than the rest
        if not admits(backlogs[place], limit.rate, need, share):
            return False
    return True


def _all_have(held: list[Borrowed], need: int) -> bool:
    for borrowed in held:  # noqa: SIM110
        if borrowed.left < need:
            return False
    return True


def _statuses(limits: Limits, backlogs: Sequence[float], held: list[Borrowed], now: float) -> tuple[LimitStatus, ...]:
    """backlogs, held: afterwards. What other processes have borrowed of a quota counts as spent."""
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
    limits: Limits, backlogs: Sequence[float], held: list[Borrowed], need: int, share: int, now: float
) -> Charge:
    """Where at least one refused, and nothing was taken of any."""
    rate_waits = [
        retry_after(backlog, limit.rate, need, share)
        for limit, backlog in zip(limits.rates, backlogs, strict=True)
        if not admits(backlog, limit.rate, need, share)
    ]
    quota_waits = [borrowed.seconds_left(now) for borrowed in held if borrowed.left < need]
    # A store that refuses may know of less than the backlogs that it told: then it is tried again at once.
    reason = DenialReason.QUOTA_EXCEEDED if quota_waits and not rate_waits else DenialReason.RATE_LIMITED
    waits = [*rate_waits, *quota_waits]
    wait = None if None in waits else max((wait for wait in waits if wait is not None), default=0.0)
    return Charge(reason, _statuses(limits, backlogs, held, now), wait)
