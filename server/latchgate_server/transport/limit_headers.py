"""Where limits stand, for HTTP clients: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).

Each is a list with an item for every limit, by its name. A tenant's is called `tenant/NAME`: its keys may have another
of that name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from latchgate_server.core.charging import HeldLimit, Holder, LimitStatus
from latchgate_server.core.model import Limit, QuotaPeriod, RateLimit

_DAY_SECONDS = 86_400


def limit_headers(statuses: Sequence[LimitStatus]) -> Mapping[str, str]:
    """The headers by name; none where no limit was asked."""
    if not statuses:
        return {}
    return {
        "ratelimit-policy": ", ".join(_policy(status.held) for status in statuses),
        "ratelimit": ", ".join(_status(status) for status in statuses),
    }


def _policy(held: HeldLimit) -> str:
    window = _window(held.limit)
    return f'"{_name(held)}";q={held.limit.limit}' + (f";w={window}" if window else "")


def _status(status: LimitStatus) -> str:
    reset = "" if status.reset_after is None else f";t={math.ceil(status.reset_after)}"
    return f'"{_name(status.held)}";r={status.remaining}{reset}'


def _name(held: HeldLimit) -> str:
    return f"tenant/{held.limit.name}" if held.holder is Holder.TENANT else held.limit.name


def _window(limit: Limit) -> int:
    """Seconds; 0 where they are no whole number, or not always the same."""
    if isinstance(limit, RateLimit):
        return int(limit.period) if limit.period == int(limit.period) else 0
    return _DAY_SECONDS if limit.period is QuotaPeriod.DAY else 0
