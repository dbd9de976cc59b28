"""Every name of a span, and of its attributes. No secret is ever a value of any of them.

docs/reference/traces.md tells operators what each of them means.
"""

from __future__ import annotations

from enum import StrEnum


class SpanName(StrEnum):
    """The parts of a call that have a span of their own; a call's is named for its service and method."""

    READ_RECORD = "read a record"
    HASH_SECRET = "hash a secret"  # noqa: S105 - the name of a span
    ASK_LIMIT_STORE = "ask the limit store"
    BORROW_QUOTA = "borrow of a quota"
    CHANGE = "change"
    WAIT_FOR_REPLICAS = "wait for replicas"


class TraceAttribute(StrEnum):
    """The attributes of spans. The first five are OpenTelemetry's."""

    RPC_SYSTEM = "rpc.system"
    RPC_SERVICE = "rpc.service"
    RPC_METHOD = "rpc.method"
    RPC_CODE = "rpc.grpc.status_code"
    ERROR_TYPE = "error.type"
    REQUEST_ID = "latchgate.request_id"
    DECISION = "latchgate.decision"
    DENIAL_REASON = "latchgate.denial_reason"
    KEY_ID = "latchgate.key_id"
    TENANT_ID = "latchgate.tenant_id"
    REVISION = "latchgate.revision"
    STALE = "latchgate.stale"
    CALLER = "latchgate.caller"
    REPLICAS_CONFIRMED = "latchgate.replicas_confirmed"
    LEASES_EXPIRED = "latchgate.leases_expired"
