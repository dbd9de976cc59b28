"""One picture of a deployment: what `latchgate top` shows, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latchgate_server.cli.top_metrics import Growth, Look, longest

_METHODS = ("Verify", "BatchVerify", "Check")


@dataclass(frozen=True, slots=True)
class Replica:
    """One endpoint. problem: why it shows nothing, or empty."""

    address: str
    problem: str
    version: str
    lease_valid: bool
    beat_age_seconds: float
    applied_revision: int
    decisions_per_second: float
    cached_records: int
    usage_lag_seconds: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Of a method: calls a second, and within how many seconds half and 99 in 100 of them were answered."""

    method: str
    calls_per_second: float
    p50_seconds: float | None
    p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class Cache:
    """Records in memory of all replicas. hit_share: of lookups, from 0 to 1; None where there were none."""

    records: int
    capacity: int
    hit_share: float | None
    misses_per_second: float
    evictions_per_second: dict[str, float]
    load_p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class Changes:
    """How changes travel. slowest_seconds: since the replicas started, up to the bound of a bucket."""

    calls_per_second: float
    failed_per_second: float
    waits_per_second: float
    p50_seconds: float | None
    p99_seconds: float | None
    slowest_seconds: float | None
    leases_expired: int


@dataclass(frozen=True, slots=True)
class Resources:
    """What replicas work with. connections: by pool, busy ones and how many there may be."""

    connections: dict[str, tuple[int, int]]
    hashes_waiting: int
    hash_p99_seconds: float | None
    limit_store_up: bool
    limit_store_p99_seconds: float | None


@dataclass(frozen=True, slots=True)
class HotKey:
    """A key, and its uses since the hour began and, between two looks at them, a second."""

    key_id: str
    tenant_id: str
    this_hour: int
    per_second: float | None


@dataclass(frozen=True, slots=True)
class HotKeys:
    """The most used first. remark: why there are none, or which keys were looked at; or empty."""

    keys: Sequence[HotKey] = ()
    remark: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything at one moment. replicas_known: processes on the database, as replicas see it."""

    allowed_per_second: float
    denied_per_second: float
    undecided_per_second: float
    stale_per_second: float
    denials_per_second: dict[str, float]
    latency: Sequence[Latency]
    cache: Cache
    changes: Changes
    resources: Resources
    replicas_known: int
    replicas: Sequence[Replica]
    hottest: HotKeys


def frame(before: Sequence[Look], now: Sequence[Look], hottest: HotKeys) -> Frame:
    """What two looks tell."""
    growth = Growth.between(before, now)
    up = [look for look in now if not look.problem]
    decisions = growth.rates("decisions_total", "decision")
    denials = growth.rates("decisions_total", "denial_reason", decision="DENY")
    return Frame(
        allowed_per_second=decisions.get("ALLOW", 0.0),
        denied_per_second=decisions.get("DENY", 0.0),
        undecided_per_second=growth.rate("undecided_total"),
        stale_per_second=growth.rate("stale_decisions_total"),
        denials_per_second=_largest_first(denials),
        latency=[_latency(growth, method) for method in _METHODS],
        cache=_cache(growth, up),
        changes=_changes(growth, up),
        resources=_resources(growth, up),
        replicas_known=int(max((look.total("replicas") for look in up), default=0)),
        replicas=[_replica(before, look) for look in now],
        hottest=hottest,
    )


def _largest_first(rates: dict[str, float]) -> dict[str, float]:
    return dict(sorted(((name, rate) for name, rate in rates.items() if rate), key=lambda item: (-item[1], item[0])))


def _latency(growth: Growth, method: str) -> Latency:
    return Latency(
        method,
        growth.rate("verify_seconds_count", method=method),
        growth.quantile(0.5, "verify_seconds", method=method),
        growth.quantile(0.99, "verify_seconds", method=method),
    )


def _cache(growth: Growth, up: Sequence[Look]) -> Cache:
    lookups = growth.rates("cache_lookups_total", "outcome")
    total = sum(lookups.values())
    return Cache(
        records=int(sum(look.total("cached_records") for look in up)),
        capacity=int(sum(look.total("cache_capacity") for look in up)),
        hit_share=lookups.get("hit", 0.0) / total if total else None,
        misses_per_second=lookups.get("miss", 0.0),
        evictions_per_second=_largest_first(growth.rates("cache_evictions_total", "cause")),
        load_p99_seconds=growth.quantile(0.99, "record_load_seconds"),
    )


def _changes(growth: Growth, up: Sequence[Look]) -> Changes:
    calls = growth.rates("admin_calls_total", "code")
    return Changes(
        calls_per_second=sum(calls.values()),
        failed_per_second=sum(rate for code, rate in calls.items() if code != "OK"),
        waits_per_second=growth.rate("propagation_seconds_count"),
        p50_seconds=growth.quantile(0.5, "propagation_seconds"),
        p99_seconds=growth.quantile(0.99, "propagation_seconds"),
        slowest_seconds=longest(up, "propagation_seconds"),
        leases_expired=int(sum(look.total("leases_expired_total") for look in up)),
    )


def _resources(growth: Growth, up: Sequence[Look]) -> Resources:
    pools = sorted({labels["pool"] for look in up for labels, _ in look.each("pool_capacity")})
    return Resources(
        connections={
            pool: (
                int(sum(look.total("pool_connections", pool=pool, state="busy") for look in up)),
                int(sum(look.total("pool_capacity", pool=pool) for look in up)),
            )
            for pool in pools
        },
        hashes_waiting=int(sum(look.total("hashes_waiting") for look in up)),
        hash_p99_seconds=growth.quantile(0.99, "hash_seconds"),
        limit_store_up=all(look.total("limit_store_up") for look in up),
        limit_store_p99_seconds=growth.quantile(0.99, "limit_store_seconds"),
    )


def _replica(before: Sequence[Look], look: Look) -> Replica:
    own = [earlier for earlier in before if earlier.address == look.address]
    return Replica(
        address=look.address,
        problem=look.problem,
        version=next((labels["version"] for labels, _ in look.each("build")), ""),
        lease_valid=bool(look.total("lease_valid")),
        beat_age_seconds=look.total("beat_age_seconds"),
        applied_revision=int(look.total("applied_revision")),
        decisions_per_second=Growth.between(own, [look]).rate("decisions_total"),
        cached_records=int(look.total("cached_records")),
        usage_lag_seconds=look.total("usage_lag_seconds"),
    )
