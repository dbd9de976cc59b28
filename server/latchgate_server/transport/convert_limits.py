"""Where limits stand: messages, and their serialised form on the hot path."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from latchgate.v1 import admin_service_pb2, decision_pb2
from latchgate_server.core import bounds
from latchgate_server.core.charging import HeldLimit, LimitStatus
from latchgate_server.core.model import RateLimit
from latchgate_server.core.record import Record
from latchgate_server.core.verification import Verification
from latchgate_server.transport.convert_admin import duration_to
from latchgate_server.transport.fields import Fields
from latchgate_server.transport.wire_format import delimited, duration, varint

# Tags of VerifyResponse.limits and retry_after, and of LimitStatus.remaining and reset_after.
_LIMITS, _RETRY_AFTER = b"\x2a", b"\x32"
_REMAINING, _RESET_AFTER = b"\x28", b"\x32"

# What of each limit of a record never changes, in the order of a charge's statuses.
_fixed_parts: WeakKeyDictionary[Record, list[bytes]] = WeakKeyDictionary()


def charge_part(verification: Verification) -> bytes:
    """What a serialised VerifyResponse says of a verification's limits."""
    charge, record = verification.charge, verification.record
    assert record is not None, "only a record has limits"
    fixed = _fixed_parts.get(record)
    if fixed is None:
        fixed = _fixed_parts[record] = [_fixed(status.held).SerializeToString() for status in charge.statuses]
    part = b"".join(
        delimited(_LIMITS, known + _moving_part(status)) for known, status in zip(fixed, charge.statuses, strict=True)
    )
    if charge.retry_after is not None:
        part += delimited(_RETRY_AFTER, duration(charge.retry_after))
    return part


def _moving_part(status: LimitStatus) -> bytes:
    part = _REMAINING + varint(status.remaining)
    if status.reset_after is not None:
        part += delimited(_RESET_AFTER, duration(status.reset_after))
    return part


def _fixed(held: HeldLimit) -> decision_pb2.LimitStatus:
    is_rate = isinstance(held.limit, RateLimit)
    return decision_pb2.LimitStatus(
        name=held.limit.name,
        kind=decision_pb2.LimitStatus.KIND_RATE_LIMIT if is_rate else decision_pb2.LimitStatus.KIND_QUOTA,
        holder=decision_pb2.LimitStatus.Holder.ValueType(held.holder),
        limit=held.whole,
    )


def limit_status_to(status: LimitStatus) -> decision_pb2.LimitStatus:
    """The message for where a limit stands."""
    message = _fixed(status.held)
    message.remaining = status.remaining
    if status.reset_after is not None:
        message.reset_after.CopyFrom(duration_to(status.reset_after))
    return message


def reset_from(request: admin_service_pb2.ResetLimitRequest) -> tuple[str, str, str, int | None]:
    """Key id, tenant id (one of both is empty), the limit's name, and what is to be left. Raises InvalidRequest."""
    fields = Fields()
    match request.WhichOneof("holder"):
        case "key_id":
            fields.key_id("key_id", request.key_id)
        case "tenant_id":
            fields.tenant_id("tenant_id", request.tenant_id)
        case _:
            fields.wrong("holder", "a key_id or a tenant_id")
    fields.limit_name("name", request.name)
    remaining = None
    if request.HasField("remaining"):
        remaining = fields.number("remaining", request.remaining, 0, bounds.LIMIT_VALUE)
    fields.check()
    return request.key_id, request.tenant_id, request.name, remaining
