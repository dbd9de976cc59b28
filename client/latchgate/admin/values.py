"""What several subjects of AdminService have in common: how far a change has travelled, limits, address lists."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from latchgate.admin.fields import duration_to
from latchgate.decoding import name_of
from latchgate.errors import LatchgateError
from latchgate.v1 import admin_service_pb2, decision_pb2, key_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """How far a change has travelled: everywhere, once it returns.

    revision: of the change; `verify(…, at_least_revision=…)` takes it. replicas_confirmed: those that told.
    leases_expired: those whose right to decide had to run out instead. waited: for both, once the change was committed.
    """

    revision: int
    replicas_confirmed: int
    leases_expired: int
    waited: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `limit` per `period`, refilled steadily, with bursts of up to `burst` (0: the same as `limit`)."""

    name: str
    limit: int
    period: timedelta
    burst: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """At most `limit` per calendar period in UTC, or ever."""

    name: str
    limit: int
    period: Literal["day", "month", "lifetime"]


Limit: TypeAlias = RateLimit | Quota


@dataclass(frozen=True, slots=True)
class IpAllowlist:
    """The addresses and CIDR ranges that a key may be used from. enabled: False keeps them, and lets any address in."""

    ranges: tuple[str, ...]
    enabled: bool = True


def propagation_from(response: Any) -> Propagation:
    """How far the change that a response tells of has travelled."""
    message: admin_service_pb2.Propagation = response.propagation
    return Propagation(
        revision=message.revision,
        replicas_confirmed=message.replicas_confirmed,
        leases_expired=message.leases_expired,
        waited=message.waited.ToTimedelta(),
    )


def put_limits(message: Any, name: str, value: Iterable[Limit]) -> None:
    """Put limits into the named field of a message."""
    getattr(message, name).extend(map(_limit_to, value))


def put_allowlist(message: Any, name: str, value: IpAllowlist | Iterable[str] | None) -> None:
    """Put an allowlist into the named field of a message; None, and no ranges, leave it unset: any address."""
    if isinstance(value, str):
        raise TypeError(f"{name}: several ranges are expected, such as [{value!r}]")
    allowlist = value if isinstance(value, IpAllowlist) else IpAllowlist(tuple(value or ()))
    if allowlist.ranges:
        getattr(message, name).CopyFrom(key_pb2.IpAllowlist(enabled=allowlist.enabled, ranges=allowlist.ranges))


def allowlist_from(message: key_pb2.IpAllowlist) -> IpAllowlist:
    """The allowlist that a message holds."""
    return IpAllowlist(tuple(message.ranges), message.enabled)


def limits_from(messages: Iterable[key_pb2.Limit]) -> tuple[Limit, ...]:
    """The limits that messages hold. Raises LatchgateError for one of a sort that is newer than this client."""
    return tuple(map(_limit_from, messages))


def denial_reason_from(number: int) -> str:
    """The name of a reason; empty for none."""
    return name_of(decision_pb2.DenialReason, number, "DENIAL_REASON_") if number else ""


def _limit_to(value: Limit) -> key_pb2.Limit:
    if isinstance(value, RateLimit):
        rate = key_pb2.RateLimit(limit=value.limit, period=duration_to(value.period), burst=value.burst)
        return key_pb2.Limit(name=value.name, rate_limit=rate)
    period = key_pb2.Quota.Period.Value(f"PERIOD_{value.period.upper()}")
    return key_pb2.Limit(name=value.name, quota=key_pb2.Quota(limit=value.limit, period=period))


def _limit_from(message: key_pb2.Limit) -> Limit:
    match message.WhichOneof("kind"):
        case "rate_limit":
            rate = message.rate_limit
            return RateLimit(name=message.name, limit=rate.limit, period=rate.period.ToTimedelta(), burst=rate.burst)
        case "quota":
            period: Any = name_of(key_pb2.Quota.Period, message.quota.period, "PERIOD_").lower()
            return Quota(name=message.name, limit=message.quota.limit, period=period)
        case _:
            # To leave it out would invite somebody to write the others back without it.
            raise LatchgateError(
                f"the limit {message.name!r} is of a sort that this version of the client does not know"
            )
