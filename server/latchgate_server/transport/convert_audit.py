"""Audit events, explanations, rotations and reports of leaks: AdminService's messages and the core's values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from latchgate.v1 import admin_service_pb2, audit_pb2, decision_pb2
from latchgate_server.admin.explain import CheckExplained
from latchgate_server.core import bounds
from latchgate_server.core.ports import AuditEvent, AuditFilter, RepeatableCall
from latchgate_server.transport.convert_admin import time_to
from latchgate_server.transport.fields import Fields, set_claims
from latchgate_server.transport.repeatable_calls import repeatable_call_from

_Explanation = admin_service_pb2.ExplainKeyResponse


def audit_filter_from(request: admin_service_pb2.ListAuditEventsRequest) -> AuditFilter:
    """Which audit events are asked for. Raises InvalidRequest."""
    fields = Fields()
    matching = AuditFilter(
        tenant_id=fields.tenant_id("tenant_id", request.tenant_id) if request.tenant_id else None,
        target_id=fields.text("target_id", request.target_id, bounds.KEY_ID_LENGTH) or None,
        actor=fields.text("actor", request.actor, bounds.KEY_ID_LENGTH) or None,
        start_time=fields.time("start_time", request.start_time) if request.HasField("start_time") else None,
        end_time=fields.time("end_time", request.end_time) if request.HasField("end_time") else None,
    )
    fields.check()
    return matching


def audit_event_to(event: AuditEvent) -> audit_pb2.AuditEvent:
    """The message for an audit event."""
    message = audit_pb2.AuditEvent(
        sequence=event.sequence,
        time=time_to(event.time),
        tenant_id=event.tenant_id,
        actor=event.actor,
        actor_ip=event.actor_ip,
        method=event.method,
        target_type=event.target_type,
        target_id=event.target_id,
        reason=event.reason,
        revision=event.revision,
        hash=event.hash,
    )
    set_claims(message.before, event.before)
    set_claims(message.after, event.after)
    return message


def explanation_to(checks: Sequence[CheckExplained]) -> _Explanation:
    """The message for how each check would go."""
    failed = next((check.denial_reason for check in checks if not check.passed), None)
    return _Explanation(
        decision=decision_pb2.DECISION_ALLOW if failed is None else decision_pb2.DECISION_DENY,
        denial_reason=decision_pb2.DenialReason.ValueType(failed or 0),
        checks=[
            _Explanation.Check(
                denial_reason=decision_pb2.DenialReason.ValueType(check.denial_reason),
                passed=check.passed,
                detail=check.detail,
            )
            for check in checks
        ],
    )


def rotation_from(request: admin_service_pb2.RotateKeyRequest) -> tuple[float, datetime | None, RepeatableCall | None]:
    """The grace period in seconds, the successor's expire_time, and the id of the request. Raises InvalidRequest."""
    fields = Fields()
    fields.key_id("key_id", request.key_id)
    grace = request.grace_period.seconds + request.grace_period.nanos / 1e9
    if not 0 <= grace <= bounds.GRACE_PERIOD_SECONDS:
        fields.wrong("grace_period", f"0 to {bounds.GRACE_PERIOD_SECONDS} seconds")
    expire_time = fields.time("expire_time", request.expire_time) if request.HasField("expire_time") else None
    repeatable = repeatable_call_from(fields, request)
    fields.check()
    return grace, expire_time, repeatable


def leaks_from(request: admin_service_pb2.ReportLeakedKeysRequest) -> tuple[Sequence[str], str]:
    """The strings that were found, and where. Raises InvalidRequest."""
    fields = Fields()
    source = fields.text("source", request.source, bounds.REASON_LENGTH)
    if not 0 < len(request.key_strings) <= bounds.LEAKED_KEYS:
        fields.wrong("key_strings", f"1 to {bounds.LEAKED_KEYS} entries, not {len(request.key_strings)}")
    fields.check()
    return request.key_strings, source
