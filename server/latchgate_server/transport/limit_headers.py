"""Where limits stand, for HTTP clients through Envoy, in the words of the client's `latchgate.guard.limit_headers`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latchgate.guard.limit_headers import LimitItem, headers_of
from latchgate_server.core.charging import Holder, LimitStatus
from latchgate_server.core.model import Limit, QuotaPeriod, RateLimit

_DAY_SECONDS = 86_400.0


def limit_headers(statuses: Sequence[LimitStatus]) -> Mapping[str, str]:
    """The headers by name; none where no limit was asked."""
    return headers_of(tuple(map(_item, statuses)))


def period_seconds(limit: Limit) -> float | None:
    """How long each period of a limit is; None where that is not always the same."""
    if isinstance(limit, RateLimit):
        return limit.period
    return _DAY_SECONDS if limit.period is QuotaPeriod.DAY else None


def _item(status: LimitStatus) -> LimitItem:
    limit = status.held.limit
    return LimitItem(
        name=limit.name,
        is_tenants=status.held.holder is Holder.TENANT,
        per_period=limit.limit,
        period=period_seconds(limit),
        remaining=status.remaining,
        reset_after=status.reset_after,
    )
