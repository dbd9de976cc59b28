"""The limits that hold for a key, and what a decision takes from them, as values."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Final, NamedTuple

from latchgate_server.core.model import DenialReason, Key, Limit, Plan, Quota, QuotaPeriod, RateLimit, Tenant
from latchgate_server.core.rate import Rate


class Holder(IntEnum):
    """Whose limit it is: who shares what is left of it. A key's belongs to its lineage."""

    KEY = 1
    TENANT = 2


class Reset(NamedTuple):
    """What an administrator set a limit back to.

    revision: that of the change. spent: how much counted as taken after it. time: when, in Unix seconds.
    """

    revision: int
    spent: int
    time: float


NEVER_RESET: Final = Reset(0, 0, 0.0)
NO_RESETS: Final[Mapping[tuple[Holder, str], Reset]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class HeldLimit:
    """A limit and who holds it.

    holder_id: a lineage id or a tenant id. tenant_id: the holder's tenant.
    bucket: names what has been taken of it, for as long as it is not reset.
    """

    holder: Holder
    holder_id: str
    tenant_id: str
    limit: Limit
    reset: Reset = NEVER_RESET
    bucket: str = field(init=False)

    def __post_init__(self) -> None:
        name = f"{self.holder.name.lower()}:{self.holder_id}:{self.limit.name}:{self.reset.revision}"
        object.__setattr__(self, "bucket", name)

    @property
    def whole(self) -> int:
        """The most that can be left of it."""
        return rate_of(self.limit).burst if isinstance(self.limit, RateLimit) else self.limit.limit


@dataclass(frozen=True, slots=True)
class HeldRate(HeldLimit):
    """A rate limit in its holder's hands."""

    rate: Rate = field(init=False)

    def __post_init__(self) -> None:
        HeldLimit.__post_init__(self)
        assert isinstance(self.limit, RateLimit), "else it has no rate"
        object.__setattr__(self, "rate", rate_of(self.limit))


@dataclass(frozen=True, slots=True)
class HeldQuota(HeldLimit):
    """A quota in its holder's hands."""

    quota: Quota = field(init=False)

    def __post_init__(self) -> None:
        HeldLimit.__post_init__(self)
        assert isinstance(self.limit, Quota), "else it is none"
        object.__setattr__(self, "quota", self.limit)


@dataclass(frozen=True, slots=True)
class Limits:
    """All limits that hold for a key.

    shape: the same for all keys whose limits differ in nothing but whose they are.
    """

    rates: tuple[HeldRate, ...] = ()
    quotas: tuple[HeldQuota, ...] = ()
    shape: str = ""


class LimitStatus:
    """Where one limit stands. reset_after: seconds until it is whole again; None: never."""

    __slots__ = ("held", "remaining", "reset_after")

    def __init__(self, held: HeldLimit, remaining: int, reset_after: float | None) -> None:
        self.held: Final = held
        self.remaining: Final = remaining
        self.reset_after: Final = reset_after


@dataclass(frozen=True, slots=True)
class LimitReset:
    """What an administrator does to a limit. resource_id: the key or tenant that was named. remaining: what is left."""

    holder: Holder
    resource_id: str
    tenant_id: str
    name: str
    remaining: int


class Charge:
    """What came of asking a key's limits, which give all of them or nothing.

    denial_reason: None where all gave. statuses: of all limits, afterwards.
    retry_after: seconds until those that refused may give; None where nothing is told.
    """

    __slots__ = ("denial_reason", "retry_after", "statuses")

    def __init__(
        self,
        denial_reason: DenialReason | None = None,
        statuses: tuple[LimitStatus, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        self.denial_reason: Final = denial_reason
        self.statuses: Final = statuses
        self.retry_after: Final = retry_after


NO_CHARGE: Final = Charge()


def limits_of_key(key: Key, plan: Plan | None) -> Mapping[str, Limit]:
    """The limits that a key holds, by name: its plan's, and its own over them."""
    return _by_name(plan.key_limits if plan else (), key.limits)


def limits_of_tenant(tenant: Tenant, plan: Plan | None) -> Mapping[str, Limit]:
    """The limits that a tenant holds, by name: its plan's, and its own over them."""
    return _by_name(plan.tenant_limits if plan else (), tenant.limits)


@lru_cache(maxsize=1_024)
def rate_of(limit: RateLimit) -> Rate:
    """How the bucket of a rate limit drains."""
    return Rate.of(limit.period / limit.limit, limit.burst or limit.limit)


def hold_limits(key: Key, tenant: Tenant, plan: Plan | None, resets: Mapping[tuple[Holder, str], Reset]) -> Limits:
    """All limits that hold for a key.

    resets: by holder and the limit's name.
    """
    rates: list[HeldRate] = []
    quotas: list[HeldQuota] = []
    tenant_id = sys.intern(tenant.tenant_id)
    lineage_id = key.key_id if key.lineage_id == key.key_id else key.lineage_id  # one text where both are the same
    for holder, holder_id, limits, beginning in (
        (Holder.KEY, lineage_id, limits_of_key(key, plan), NEVER_RESET),
        (Holder.TENANT, tenant_id, limits_of_tenant(tenant, plan), _beginning(tenant)),
    ):
        for name, limit in limits.items():
            reset = resets.get((holder, name), beginning)
            if isinstance(limit, RateLimit):
                rates.append(HeldRate(holder, holder_id, tenant_id, limit, reset))
            else:
                quotas.append(HeldQuota(holder, holder_id, tenant_id, limit, reset))
    shape = "|".join(f"{held.holder.name} {held.limit!r}" for held in (*rates, *quotas))
    return Limits(tuple(rates), tuple(quotas), sys.intern(shape))


def _beginning(tenant: Tenant) -> Reset:
    """A tenant's limits begin whole. One that is made anew under an old id shares nothing with the one before."""
    return Reset(int(tenant.create_time.timestamp() * 1e6), 0, 0.0) if tenant.create_time else NEVER_RESET


def _by_name(of_plan: Iterable[Limit], own: Iterable[Limit]) -> dict[str, Limit]:
    return {limit.name: limit for limits in (of_plan, own) for limit in limits}


def backlog_since_reset(held: HeldRate, now: float) -> float:
    """What a bucket that nobody has taken from since its limit was reset has to drain yet, in seconds.

    now: Unix seconds.
    """
    spent, time = held.reset.spent, held.reset.time
    return max(0.0, spent * held.rate.interval - (now - time)) if spent else 0.0


def seconds_to_end(period: QuotaPeriod, now: float) -> float | None:
    """The seconds until a period that `now` (Unix seconds) lies in ends; None for a lifetime."""
    moment = datetime.fromtimestamp(now, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    match period:
        case QuotaPeriod.DAY:
            end = midnight + timedelta(days=1)
        case QuotaPeriod.MONTH:
            end = (midnight.replace(day=1) + timedelta(days=31)).replace(day=1)
        case _:
            return None
    return (end - moment).total_seconds()
