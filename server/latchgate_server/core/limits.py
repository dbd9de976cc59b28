"""Which of two limits is the looser one."""

from __future__ import annotations

from collections.abc import Sequence

from latchgate_server.core.errors import EscalationRefused
from latchgate_server.core.model import Limit, Quota, QuotaPeriod, RateLimit

_SHORTEST_PERIOD_DAYS = {QuotaPeriod.DAY: 1, QuotaPeriod.MONTH: 28, QuotaPeriod.LIFETIME: 36_525}


def guard_limits(limits: Sequence[Limit], plan_limits: Sequence[Limit]) -> None:
    """Raise EscalationRefused for a limit that is looser than the plan's of the same name."""
    of_plan = {limit.name: limit for limit in plan_limits}
    for limit in limits:
        if limit.name in of_plan and is_looser(limit, of_plan[limit.name]):
            raise EscalationRefused(f"limits.{limit.name}")


def is_looser(limit: Limit, than: Limit) -> bool:
    """Whether there is a course of events that `limit` allows and `than` does not, as far as can be told.

    A rate limit against a quota counts as looser: neither bounds what the other does.
    """
    if isinstance(limit, RateLimit) and isinstance(than, RateLimit):
        faster = limit.limit * than.period > than.limit * limit.period
        return faster or (limit.burst or limit.limit) > (than.burst or than.limit)
    if isinstance(limit, Quota) and isinstance(than, Quota):
        return limit.limit > than.limit or _SHORTEST_PERIOD_DAYS[limit.period] < _SHORTEST_PERIOD_DAYS[than.period]
    return True
