"""Every metric. No secret is ever a value of a label.

docs/reference/metrics.md tells operators what each of them means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from latchgate_server.core.model import DenialReason
from latchgate_server.counting import HandsOn, PlainCounter, PlainHistogram, SummedHistogram

REGISTRY = CollectorRegistry()
"""What /metrics shows."""

_PLAIN = HandsOn(REGISTRY)
hand_on = _PLAIN.hand_on
"""Bring the metrics of the hot path up to date; a scrape of REGISTRY does it by itself."""

VERIFY_METHODS = ("Verify", "BatchVerify", "Check")
"""What the data plane is asked; Check is Envoy's."""

_FAST = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_SLOW = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 35)

DECISIONS = Counter(
    "latchgate_decisions",
    "Decisions of the data plane, by decision and reason of denial.",
    ["decision", "denial_reason"],
    registry=REGISTRY,
)
ADMIN_CALLS = Counter(
    "latchgate_admin_calls",
    "Calls of AdminService, by method and gRPC code.",
    ["method", "code"],
    registry=REGISTRY,
)
UNDECIDED = Counter(
    "latchgate_undecided",
    "Verifications that ended in an error instead of a decision, by gRPC code.",
    ["code"],
    registry=REGISTRY,
)

VERIFY_SECONDS = SummedHistogram(
    "latchgate_verify_seconds",
    "How long calls of the data plane took, by method, until they were answered: from their arrival; where memory "
    "alone does not tell, and on grpcio, from their turn.",
    ["method"],
    buckets=_FAST,
    registry=REGISTRY,
)
ADMIN_SECONDS = Histogram(
    "latchgate_admin_seconds",
    "How long calls of AdminService took, by method; those that change something wait for every replica.",
    ["method"],
    buckets=_SLOW,
    registry=REGISTRY,
)
MISCONFIGURED_CHECKS = Counter(
    "latchgate_misconfigured_checks",
    "Requests that Envoy asked about and that were denied because their route is not configured correctly.",
    registry=REGISTRY,
)
STALE_DECISIONS = Counter(
    "latchgate_stale_decisions",
    "Decisions on cached state through an outage of the database, as on_database_loss = serve_cached allows.",
    registry=REGISTRY,
)
CACHED_RECORDS = Gauge("latchgate_cached_records", "Records in memory.", registry=REGISTRY, multiprocess_mode="livesum")
CACHE_CAPACITY = Gauge(
    "latchgate_cache_capacity", "Records that fit in memory.", registry=REGISTRY, multiprocess_mode="livesum"
)
CACHE_LOOKUPS = Counter(
    "latchgate_cache_lookups",
    "Lookups of keys, by outcome: hit, known in memory; miss, asked for in the database.",
    ["outcome"],
    registry=REGISTRY,
)
CACHE_EVICTIONS = Counter(
    "latchgate_cache_evictions",
    "Records that left memory, by cause: change, of what they depend on; size, for room; restart, as the feed began "
    "anew and nothing was kept.",
    ["cause"],
    registry=REGISTRY,
)
RECORD_LOAD_SECONDS = Histogram(
    "latchgate_record_load_seconds",
    "How long the queries took by which verifications read records from the database.",
    buckets=_FAST,
    registry=REGISTRY,
)
RECORD_READS = Counter(
    "latchgate_record_reads",
    "Queries by which verifications read records, or forms of imported keys, from the database.",
    registry=REGISTRY,
)
CONNECTIONS_SHED = Counter(
    "latchgate_connections_shed",
    "Connections that were closed to keep the process from being filled, by cause: connections, too many on a port; "
    "memory, too much of it taken.",
    ["cause"],
    registry=REGISTRY,
)
LEASE_VALID = Gauge(
    "latchgate_lease_valid",
    "1 while records in memory may be decided on, else 0. With several workers, the least of them.",
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
BEAT_AGE = Gauge(
    "latchgate_beat_age_seconds",
    "Time since the last successful beat. With several workers, the longest of them.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
REPLICAS = Gauge(
    "latchgate_replicas",
    "Processes that serve this database, as of the last beat. With several workers, the most that one of them saw.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
APPLIED_REVISION = Gauge(
    "latchgate_applied_revision",
    "Up to which revision of the database changes are in force. With several workers, the least of them.",
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
PROPAGATION = Histogram(
    "latchgate_propagation_seconds",
    "How long mutations waited until every replica had them.",
    buckets=_SLOW,
    registry=REGISTRY,
)
LEASES_EXPIRED = Counter(
    "latchgate_leases_expired",
    "Replicas that did not answer a mutation, so that it waited for their leases to run out.",
    registry=REGISTRY,
)
HASHES_WAITING = Gauge(
    "latchgate_hashes_waiting",
    "Secrets that Argon2 works on or that wait for it.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
HASH_SECONDS = Histogram(
    "latchgate_hash_seconds",
    "How long secrets took to hash or to prove with Argon2, the wait for a thread included.",
    buckets=_FAST,
    registry=REGISTRY,
)
HASHES_REFUSED = Counter(
    "latchgate_hashes_refused", "Secrets that were not hashed, as too many were waiting.", registry=REGISTRY
)
POOL_CONNECTIONS = Gauge(
    "latchgate_pool_connections",
    "Connections to the database that are open, by pool (control, loads, usage) and state (busy, idle).",
    ["pool", "state"],
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
POOL_CAPACITY = Gauge(
    "latchgate_pool_capacity",
    "Connections to the database that may be open, by pool.",
    ["pool"],
    registry=REGISTRY,
    multiprocess_mode="livesum",
)

LIMIT_STORE_UP = Gauge(
    "latchgate_limit_store_up",
    "1 while every node of the store that shares rate limits answers that was asked, or none is shared, else 0. "
    "With several workers, the least.",
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
LIMIT_STORE_SECONDS = Histogram(
    "latchgate_limit_store_seconds",
    "How long calls of the store that shares rate limits took, failed ones included.",
    buckets=_FAST,
    registry=REGISTRY,
)
RATE_BUCKETS = Gauge(
    "latchgate_rate_buckets",
    "Buckets of rate limits in this process's memory.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
LIMIT_STORE_LOSSES = Counter(
    "latchgate_limit_store_losses",
    "Calls of the store that shares rate limits which failed.",
    registry=REGISTRY,
)
QUOTA_PORTIONS = Counter(
    "latchgate_quota_portions",
    "Portions of quotas that were borrowed from the database.",
    registry=REGISTRY,
)
USAGE_LAG = Gauge(
    "latchgate_usage_lag_seconds",
    "How long usage waits to be written; 0 where it was written when it was due. With several workers, the longest.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
USAGE_DROPPED = Counter(
    "latchgate_usage_dropped",
    "What of usage was given up: single uses, addresses and descriptions of requests, which show in lists alone; "
    "counters; the keys of a whole batch that could not be written; or what clients decided from their own caches.",
    ["what"],
    registry=REGISTRY,
)
AUTHENTICATION_FAILURES = Counter(
    "latchgate_authentication_failures",
    "Credentials that authenticated nobody, of clients and of administrators, by reason of denial.",
    ["denial_reason"],
    registry=REGISTRY,
)
WRONG_SECRET_BURSTS = Counter(
    "latchgate_wrong_secret_bursts",
    "How often somebody tried many wrong secrets against one key within a minute.",
    registry=REGISTRY,
)
NEW_SOURCES = Counter(
    "latchgate_new_sources",
    "Keys' first uses from an address, but for each key's very first address.",
    registry=REGISTRY,
)
DORMANT_KEYS_USED = Counter(
    "latchgate_dormant_keys_used", "Uses of keys that had not been used for 30 days.", registry=REGISTRY
)
ACCESS_LOG_DROPPED = Counter(
    "latchgate_access_log_dropped", "Lines of the access log that could not be written in time.", registry=REGISTRY
)
CERTIFICATE_EXPIRES = Gauge(
    "latchgate_certificate_expires_timestamp_seconds",
    "When the certificate in use expires, in Unix time; 0 without TLS. With several workers, the first of them.",
    registry=REGISTRY,
    multiprocess_mode="livemin",
)
WATCHERS = Gauge(
    "latchgate_watchers",
    "Clients with a cache of their own that watch this server.",
    registry=REGISTRY,
    multiprocess_mode="livesum",
)
CLIENT_DECISIONS = Counter(
    "latchgate_client_decisions",
    "Decisions that clients made from their own caches and reported, by decision and reason of denial.",
    ["decision", "denial_reason"],
    registry=REGISTRY,
)
CALLERS_REJECTED = Counter(
    "latchgate_callers_rejected",
    "Calls of the data plane from callers whose own key was missing, wrong or lacked the permission, by reason.",
    ["denial_reason"],
    registry=REGISTRY,
)

BUILD = Gauge(
    "latchgate_build",
    "Always 1; the label tells the version.",
    ["version"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)

_OUTCOMES: Sequence[PlainCounter] = [
    PlainCounter(DECISIONS.labels("DENY", reason.name) if reason else DECISIONS.labels("ALLOW", ""))
    for reason in sorted(DenialReason)
]
LATENCIES: Mapping[str, PlainHistogram] = {
    method: PlainHistogram(VERIFY_SECONDS.labels(method), _FAST) for method in VERIFY_METHODS
}
"""Where to note how long a call of the data plane took, by method."""
CACHE_HITS = PlainCounter(CACHE_LOOKUPS.labels("hit"))
CACHE_MISSES = CACHE_LOOKUPS.labels("miss")
EVICTIONS = {cause: CACHE_EVICTIONS.labels(cause) for cause in ("change", "size", "restart")}
_FAILURES = {reason: PlainCounter(AUTHENTICATION_FAILURES.labels(reason.name)) for reason in DenialReason if reason}
_PLAIN.also(
    *(plain.hand_on for plain in (*_OUTCOMES, *_FAILURES.values(), CACHE_HITS)),
    *(plain.hand_on for plain in LATENCIES.values()),
)

# A series that begins with its first event hides that event from an alert on growth.
for _what in ("use", "source", "description", "counter", "batch", "cached"):
    USAGE_DROPPED.labels(_what)
for _cause in ("connections", "memory"):
    CONNECTIONS_SHED.labels(_cause)
for _code in (
    "DEADLINE_EXCEEDED",
    "FAILED_PRECONDITION",
    "INTERNAL",
    "INVALID_ARGUMENT",
    "RESOURCE_EXHAUSTED",
    "UNAVAILABLE",
):
    UNDECIDED.labels(_code)
for _reason in filter(None, DenialReason):
    CALLERS_REJECTED.labels(_reason.name)
    CLIENT_DECISIONS.labels("DENY", _reason.name)
CLIENT_DECISIONS.labels("ALLOW", "")


def count_decision(reason: DenialReason | None) -> None:
    """Count a decision of the data plane; `reason` None: allowed."""
    _OUTCOMES[reason or 0].count += 1


def count_client_decisions(allowed: int, denied: Mapping[DenialReason, int]) -> None:
    """Count decisions that a client made from its own cache."""
    CLIENT_DECISIONS.labels("ALLOW", "").inc(allowed)
    for reason, count in denied.items():
        CLIENT_DECISIONS.labels("DENY", reason.name).inc(count)


def count_authentication_failures(reason: DenialReason, count: int) -> None:
    """Count credentials that authenticated nobody."""
    _FAILURES[reason].count += count
