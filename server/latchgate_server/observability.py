"""Every metric and every name of a log event or field, in one place. No secret is ever a value of any of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from latchgate_server.core.model import DenialReason

REGISTRY = CollectorRegistry()
"""What /metrics shows."""

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

_DECISIONS_BY_REASON: Mapping[DenialReason | None, Counter] = {
    None: DECISIONS.labels("ALLOW", ""),
    **{reason: DECISIONS.labels("DENY", reason.name) for reason in DenialReason if reason},
}
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
RECORD_READS = Counter(
    "latchgate_record_reads",
    "Queries by which verifications read records, or forms of imported keys, from the database.",
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
PROPAGATION = Histogram(
    "latchgate_propagation_seconds",
    "How long mutations waited until every replica had them.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 35),
    registry=REGISTRY,
)
LEASES_EXPIRED = Counter(
    "latchgate_leases_expired",
    "Replicas that did not answer a mutation, so that it waited for their leases to run out.",
    registry=REGISTRY,
)

LIMIT_STORE_UP = Gauge(
    "latchgate_limit_store_up",
    "1 while the store that shares rate limits answers, or none is shared, else 0. With several workers, the least.",
    registry=REGISTRY,
    multiprocess_mode="livemin",
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
    "counters; or the keys of a whole batch that could not be written.",
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

STARTING = "starting"
SERVING = "serving"
DRAINING = "draining"
STOPPED = "stopped"
MIGRATED = "migrated"
INTERNAL_ERROR = "internal_error"
UNDECIDED_EVENT = "undecided"
WORKER_SERVING = "worker_serving"
WORKER_ENDED = "worker_ended"
FEED_LOST = "feed_lost"
LEASE_GAINED = "lease_gained"
LEASE_EXPIRED = "replica_lease_expired"
SERVING_STALE = "serving_stale"
SERVING_FRESH = "serving_fresh"
LIMIT_STORE_LOST = "limit_store_lost"
LIMIT_STORE_FOUND = "limit_store_found"
QUOTA_PORTIONS_LOST = "quota_portions_lost"
HOUSEKEEPING_FAILED = "housekeeping_failed"
ROUTE_MISCONFIGURED = "route_misconfigured"
USAGE_DELAYED = "usage_delayed"
USAGE_CAUGHT_UP = "usage_caught_up"
USAGE_LOST = "usage_lost"
AUTHENTICATION_FAILED = "authentication_failed"
WRONG_SECRET_BURST = "wrong_secret_burst"  # noqa: S105 - the name of an event
NEW_SOURCE = "new_source"
DORMANT_KEY_USED = "dormant_key_used"
EVENTS_SUPPRESSED = "events_suppressed"
DECISION = "decision"


@contextmanager
def metrics_server(address: str, registry: CollectorRegistry) -> Iterator[str]:
    """Answer `/metrics` on `HOST:PORT` while the context lasts; gives the address with its actual port.

    Raises OSError where the address cannot be had.
    """
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry=registry)
    except OSError as error:
        raise OSError(f"cannot listen on {address} for metrics: {error.strerror}") from error
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def count_decision(reason: DenialReason | None) -> None:
    """Count a decision of the data plane; `reason` None: allowed."""
    _DECISIONS_BY_REASON[reason].inc()


def count_authentication_failure(reason: DenialReason) -> None:
    """Count a credential that authenticated nobody."""
    AUTHENTICATION_FAILURES.labels(reason.name).inc()


def configure_logging(level: str, format_: str, stream: TextIO = sys.stderr) -> None:
    """Set up the log: one line of JSON for each event, or columns for people.

    level: `debug` to `error`. format_: `json`, `console`, or `auto`, which is `console` on a terminal.
    Tracebacks never show the values of variables: one of them could be a secret.
    """
    console = format_ == "console" or (format_ == "auto" and stream.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not console:
        processors.append(structlog.processors.format_exc_info)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    # What libraries log goes the same way, from WARNING on: below that they may print what they were given.
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[_ToStructlog()], force=True)


class _ToStructlog(logging.Handler):
    """Hands the standard library's log records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record under the name of its logger."""
        log = structlog.get_logger(record.name)
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)
