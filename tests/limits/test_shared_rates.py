"""A decision that asks the shared store of rate limits takes that store's word."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, cast

import pytest

from latchgate_server.core.charging import HeldRate, Limits
from latchgate_server.core.limit_stores import Charged
from latchgate_server.core.model import DenialReason
from latchgate_server.verify.limits import LimitCharger
from latchgate_server.verify.quotas import Quotas
from latchgate_server.verify.rates import LocalRates
from latchgate_server.verify.shared_rates import SharedRates
from tests.support.rate_stores import rate
from tests.support.still_clock import StillClock


class _Store:
    """A store that says what it is told to: no real one is known to contradict itself."""

    def __init__(self, says: Charged) -> None:
        self._says = says

    def node_of(self, tenant_id: str) -> str:
        return f"the node of {tenant_id}"

    def nodes(self) -> Collection[str]:
        return ()

    async def charge(self, rates: Sequence[HeldRate], need: int, take: int) -> Charged:
        assert len(rates) == need == take == 1
        return self._says


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        (Charged(True, [360.0]), None),
        (Charged(False, [3_600.0]), DenialReason.RATE_LIMITED),
        # Rounding differs between the store and here: what it refuses is refused.
        (Charged(False, [0.0]), DenialReason.RATE_LIMITED),
    ],
)
async def test_what_the_store_says_is_decided_whatever_its_backlogs_look_like(
    says: Charged, reason: DenialReason | None
) -> None:
    clock = StillClock()
    shared = SharedRates(_Store(says), clock, deny_on_loss=False)
    quotas = Quotas(cast("Any", None), clock)
    charger = LimitCharger(LocalRates(clock), shared, quotas, clock, processes=lambda: 1)
    charge = await charger.charge(Limits(rates=(rate("acme", 10),)), 1)
    assert charge.denial_reason is reason
