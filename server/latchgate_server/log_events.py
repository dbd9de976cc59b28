"""Every name of a log event, and of the fields that events have. No secret is ever a value of any of them.

docs/reference/logs.md tells operators what each of them means.
"""

from __future__ import annotations

STARTING = "starting"
SERVING = "serving"
DRAINING = "draining"
NO_FAREWELL = "no_farewell"
CONNECTIONS_SHED = "connections_shed"
MEMORY_SHORT = "memory_short"
STOPPED = "stopped"
INTERNAL_ERROR = "internal_error"
UNDECIDED = "undecided"
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
CERTIFICATE_LOADED = "certificate_loaded"
CERTIFICATE_REFUSED = "certificate_refused"
CALLER_REJECTED = "caller_rejected"
RELOADED = "reloaded"
RELOAD_REFUSED = "reload_refused"
RESTART_NEEDED = "restart_needed"
ADMIN_CALL = "admin_call"
TRACES_STARTED = "traces_started"
TRACES_UNAVAILABLE = "traces_unavailable"
TRACES_LOST = "traces_lost"

FIELDS = frozenset(
    {
        "act_as",
        "address",
        "admin",
        "advice",
        "capability",
        "cause",
        "certificate",
        "client_ip",
        "code",
        "compiled",
        "count",
        "decision",
        "denial_reason",
        "denying",
        "error",
        "expires",
        "for_at_most_seconds",
        "host",
        "key_id",
        "keys",
        "lease",
        "memory",
        "method",
        "metrics",
        "name",
        "node",
        "of",
        "path",
        "pause",
        "pid",
        "replica_id",
        "request_id",
        "resource",
        "revision",
        "seconds",
        "settings",
        "slept_since",
        "stale",
        "taken",
        "task",
        "tenant_id",
        "trace_id",
        "user",
        "user_agent",
        "verify",
        "worker",
        "workers",
        "wrong_secrets",
    }
)
"""The names of the fields that events have, beside event, level, timestamp, logger and exception."""
