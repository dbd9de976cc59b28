"""Charges a key's limits: rate limits and quotas, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from latchgate_server import observability
from latchgate_server.core.charging import Charge, Limits, LimitStatus
from latchgate_server.core.errors import CannotDecide, Overloaded, StoreUnavailable
from latchgate_server.core.limit_stores import Charged, RateStore
from latchgate_server.core.model import DenialReason
from latchgate_server.core.ports import Clock
from latchgate_server.core.rate import remaining
from latchgate_server.verify.quotas import Left, Quotas
from latchgate_server.verify.rates import LocalRates, refused

_ATTEMPTS = 20
_RETRY_SECONDS = 1.0

_log = structlog.get_logger()


class SharedRates:
    """A store of rate limits that all processes share, and whether it answers."""

    def __init__(self, store: RateStore, clock: Clock, deny_on_loss: bool) -> None:
        """deny_on_loss: whether nothing is decided without the store; otherwise each process counts its own share."""
        self._store = store
        self._clock = clock
        self._deny_on_loss = deny_on_loss
        self._lost_until: float | None = None

    def is_worth_asking(self) -> bool:
        """Whether to ask the store: not for a moment after it failed."""
        return self._lost_until is None or self._clock.monotonic() >= self._lost_until

    def check_loss(self) -> None:
        """Raise StoreUnavailable where nothing is to be decided without the store, and it is lost."""
        if self._deny_on_loss and not self.is_worth_asking():
            raise StoreUnavailable("the store of rate limits cannot be reached")

    async def charge(self, limits: Limits, need: int, take: int) -> Charged | None:
        """What the store says; None where it is lost and each process counts for itself."""
        try:
            charged = await self._store.charge(limits.rates, need, take)
        except CannotDecide as error:
            self._note_loss(error)
            self.check_loss()
            return None
        if self._lost_until is not None:
            self._lost_until = None
            observability.LIMIT_STORE_UP.set(1)
            _log.info(observability.LIMIT_STORE_FOUND)
        return charged

    def _note_loss(self, error: CannotDecide) -> None:
        observability.LIMIT_STORE_LOSSES.inc()
        observability.LIMIT_STORE_UP.set(0)
        if self._lost_until is None:
            _log.warning(observability.LIMIT_STORE_LOST, error=str(error), denying=self._deny_on_loss)
        self._lost_until = self._clock.monotonic() + _RETRY_SECONDS


class LimitCharger:
    """Implements ports.ChargesLimits."""

    def __init__(
        self, rates: LocalRates, shared: SharedRates | None, quotas: Quotas, processes: Callable[[], int]
    ) -> None:
        """shared: None where each process counts for itself. processes: how many there are."""
        self._rates = rates
        self._shared = shared
        self._quotas = quotas
        self._processes = processes

    def charge_from_memory(self, limits: Limits, cost: int) -> Charge | None:
        """See ports.ChargesLimits."""
        if limits.rates and self._shared is not None:
            if self._shared.is_worth_asking():
                return None
            self._shared.check_loss()
        if limits.quotas and self._quotas.missing(limits.quotas, cost or 1):
            return None
        return self._charge_here(limits, cost)

    async def charge(self, limits: Limits, cost: int) -> Charge:
        """See ports.ChargesLimits."""
        for _ in range(_ATTEMPTS):
            missing = self._quotas.missing(limits.quotas, cost or 1)
            if not missing:
                break
            await self._quotas.borrow(missing, cost or 1)
        else:
            raise Overloaded("others keep taking what is left of a quota")
        # No await since the quotas were found: what is held of them is still there.
        if limits.rates and self._shared is not None:
            self._shared.check_loss()
            if self._shared.is_worth_asking():
                return await self._charge_shared(self._shared, limits, cost)
        return self._charge_here(limits, cost)

    def _charge_here(self, limits: Limits, cost: int) -> Charge:
        need = cost or 1
        share = max(1, self._processes())
        backlogs: Sequence[float] = self._rates.backlogs(limits.rates) if limits.rates else ()
        rate_waits = refused(limits.rates, backlogs, need, share)
        lefts = self._quotas.lefts(limits.quotas)
        taken = 0 if rate_waits or _quota_waits(lefts, need) else cost
        if taken:
            backlogs = self._rates.take(limits.rates, backlogs, taken, share)
            self._quotas.take(limits.quotas, taken)
        statuses = _statuses(limits, backlogs, lefts, taken)
        return _charge_of(statuses, rate_waits, _quota_waits(lefts, need))

    async def _charge_shared(self, shared: SharedRates, limits: Limits, cost: int) -> Charge:
        need = cost or 1
        lefts = self._quotas.lefts(limits.quotas)
        take = 0 if _quota_waits(lefts, need) else cost
        # Taken before the store is asked, and put back if it refuses: meanwhile nobody else can have it.
        taken_from = self._quotas.take(limits.quotas, take) if take else ()
        charged: Charged | None = None
        try:
            charged = await shared.charge(limits, need, take)
        finally:
            if charged is None or not charged.admitted:
                self._quotas.put_back(taken_from, take)
        if charged is None:
            return await self.charge(limits, cost)  # which leaves the store alone, now that it is lost
        rate_waits = [] if charged.admitted else refused(limits.rates, charged.backlogs, need, 1)
        statuses = _statuses(limits, charged.backlogs, lefts, take if charged.admitted else 0)
        return _charge_of(statuses, rate_waits, _quota_waits(lefts, need))


def _quota_waits(lefts: Sequence[Left], need: int) -> list[float | None]:
    """For each quota that does not have `need` left: the seconds until its period ends; None: it has no end."""
    return [left.seconds for left in lefts if left.held < need]


def _statuses(limits: Limits, backlogs: Sequence[float], lefts: Sequence[Left], taken: int) -> Sequence[LimitStatus]:
    """backlogs: afterwards. lefts: of the quotas, before `taken` was taken from each."""
    statuses = [
        LimitStatus(held, remaining(backlog, rate), backlog)
        for (held, rate), backlog in zip(limits.rates, backlogs, strict=True)
    ]
    for quota, left in zip(limits.quotas, lefts, strict=True):
        statuses.append(LimitStatus(quota.held, left.held + left.elsewhere - taken, left.seconds))
    return statuses


def _charge_of(
    statuses: Sequence[LimitStatus], rate_waits: Sequence[float | None], quota_waits: Sequence[float | None]
) -> Charge:
    """waits: of the limits that refused; None: waiting does not help."""
    waits = [*rate_waits, *quota_waits]
    if not waits:
        return Charge(None, statuses)
    reason = DenialReason.RATE_LIMITED if rate_waits else DenialReason.QUOTA_EXCEEDED
    return Charge(reason, statuses, None if None in waits else max(wait for wait in waits if wait is not None))
