"""Where limits stand, for HTTP clients: `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).

Each is a list with an item for every limit, by its name. A tenant's is called `tenant/NAME`: its keys may have another
of that name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from latchgate.results import LimitStatus


class LimitItem(NamedTuple):
    """What the headers say of one limit. period, reset_after: seconds; None: nothing is said of it."""

    name: str
    is_tenants: bool
    per_period: int
    period: float | None
    remaining: int
    reset_after: float | None


def limit_headers(statuses: Sequence[LimitStatus]) -> Mapping[str, str]:
    """The headers by name; none where no limit was asked."""
    return headers_of(
        [
            LimitItem(
                name=status.name,
                is_tenants=status.holder == "tenant",
                per_period=status.per_period,
                period=status.period,
                remaining=status.remaining,
                reset_after=status.reset_after,
            )
            for status in statuses
        ]
    )


def headers_of(items: Sequence[LimitItem]) -> Mapping[str, str]:
    """The headers by name; none where there is no item."""
    if not items:
        return {}
    return {"ratelimit-policy": ", ".join(map(_policy, items)), "ratelimit": ", ".join(map(_state, items))}


def _policy(item: LimitItem) -> str:
    # A window is a whole number of seconds.
    window = item.period if item.period is not None and item.period >= 1 and item.period % 1 == 0 else None
    return f'"{_name(item)}";q={item.per_period}' + ("" if window is None else f";w={int(window)}")


def _state(item: LimitItem) -> str:
    reset = "" if item.reset_after is None else f";t={math.ceil(item.reset_after)}"
    return f'"{_name(item)}";r={item.remaining}{reset}'


def _name(item: LimitItem) -> str:
    return f"tenant/{item.name}" if item.is_tenants else item.name
