"""Usage: AdminService's messages and the core's values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2, audit_pb2, decision_pb2
from latchgate_server.admin.usage import DAY, HOUR, Bucket, RotationState, UsageQuery
from latchgate_server.core import bounds
from latchgate_server.core.usage import BusyKey, KeySource, KeyUse
from latchgate_server.transport.convert_admin import time_to
from latchgate_server.transport.convert_keys import key_to
from latchgate_server.transport.fields import Fields

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def usage_query_from(request: admin_service_pb2.GetUsageRequest, now: float) -> UsageQuery:
    """What is to be counted. now: Unix seconds. Raises InvalidRequest."""
    fields = Fields()
    subject = request.WhichOneof("subject")
    if subject == "key_id":
        fields.key_id("key_id", request.key_id)
    elif subject == "tenant_id":
        fields.tenant_id("tenant_id", request.tenant_id)
    else:
        fields.wrong("subject", "key_id or tenant_id is expected")
    length = timedelta(seconds=request.bucket_length.seconds) if _is_whole(request.bucket_length) else timedelta()
    if length not in (HOUR, DAY):
        fields.wrong("bucket_length", "one hour or one day (3600s or 86400s)")
        length = DAY
    start, end = _times(fields, request, now)
    fields.check()
    query = UsageQuery(
        key_id=request.key_id,
        tenant_id=request.tenant_id,
        start=start - (start - _EPOCH) % length,
        end=end,
        length=length,
    )
    if (query.end - query.start) / length > bounds.USAGE_BUCKETS:
        fields.wrong("start_time", f"at most {bounds.USAGE_BUCKETS} buckets before end_time")
    fields.check()
    return query


def _is_whole(value: Duration) -> bool:
    return value.nanos == 0 and 0 <= value.seconds <= DAY.total_seconds()


def _times(fields: Fields, request: admin_service_pb2.GetUsageRequest, now: float) -> tuple[datetime, datetime]:
    start = fields.time("start_time", request.start_time) if request.HasField("start_time") else None
    end = fields.time("end_time", request.end_time) if request.HasField("end_time") else None
    end = end or datetime.fromtimestamp(now, UTC)
    if not request.HasField("start_time"):
        fields.wrong("start_time", "from when on to count")
    elif start is not None and start >= end:
        fields.wrong("end_time", "later than start_time")
    return start or end, end


def bucket_to(bucket: Bucket, length: timedelta) -> audit_pb2.UsageBucket:
    """The message for the decisions of one interval."""
    return audit_pb2.UsageBucket(
        start_time=time_to(bucket.start),
        length=Duration(seconds=int(length.total_seconds())),
        allowed=bucket.allowed,
        denied=bucket.denied,
    )


def key_use_to(use: KeyUse) -> audit_pb2.KeyUse:
    """The message for one use."""
    reason = use.denial_reason
    return audit_pb2.KeyUse(
        time=time_to(use.time),
        decision=decision_pb2.DECISION_ALLOW if reason is None else decision_pb2.DECISION_DENY,
        denial_reason=decision_pb2.DenialReason.ValueType(reason or 0),
        client_ip=use.client_ip,
        user=use.user,
        method=use.method,
        host=use.host,
        path=use.path,
        user_agent=use.user_agent,
    )


def key_source_to(source: KeySource) -> audit_pb2.KeySource:
    """The message for an address."""
    return audit_pb2.KeySource(
        client_ip=source.client_ip,
        first_use_time=time_to(source.first_time),
        last_use_time=time_to(source.last_time),
        count=source.count,
    )


def busiest_to(hour: int, keys: Sequence[BusyKey]) -> admin_service_pb2.ListBusiestKeysResponse:
    """The answer with the keys that are used most. hour: the one that it is, since 1970."""
    return admin_service_pb2.ListBusiestKeysResponse(
        keys=[
            audit_pb2.BusyKey(
                key_id=key.key_id,
                tenant_id=key.tenant_id,
                display_name=key.display_name,
                uses_this_hour=key.this_hour,
                uses_hour_before=key.hour_before,
            )
            for key in keys
        ],
        hour_start_time=Timestamp(seconds=hour * 3_600),
    )


def rotation_to(state: RotationState, now: float) -> admin_service_pb2.GetRotationResponse:
    """The message for how far traffic has moved. now: Unix seconds."""
    return admin_service_pb2.GetRotationResponse(
        predecessor=key_to(state.old, now) if state.old else None,
        successor=key_to(state.new, now) if state.new else None,
        predecessor_uses_hour=state.of_old.uses_hour,
        predecessor_uses_day=state.of_old.uses_day,
        successor_uses_hour=state.of_new.uses_hour,
        successor_uses_day=state.of_new.uses_day,
        safe_to_revoke=state.retirement.safe_to_revoke,
        explanation=state.retirement.explanation,
    )
