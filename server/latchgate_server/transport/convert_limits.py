"""Where limits stand: messages, and their serialised form on the hot path."""

from __future__ import annotations

from typing import Final

from google.protobuf.duration_pb2 import Duration

from latchgate.v1 import admin_service_pb2, decision_pb2
from latchgate_server.core import bounds
from latchgate_server.core.charging import Charge, HeldLimit, LimitStatus
from latchgate_server.core.model import RateLimit
from latchgate_server.transport.convert_admin import duration_to
from latchgate_server.transport.fields import Fields
from latchgate_server.transport.limit_headers import period_seconds
from latchgate_server.transport.wire_format import varint

# On the hot path a status is put together from serialised parts, like the rest of the response (convert_verify.py).
# Tags: the field's number times 8, and how its value is written (Protocol Buffers, "Encoding").
_LIMITS_TAG: Final = b"\x2a"  # 5 of VerifyResponse, length-delimited
_REMAINING_TAG: Final = b"\x28"  # 5 of LimitStatus, a number
_RESET_TAG: Final = b"\x32"  # 6 of LimitStatus, length-delimited
_RETRY_TAG: Final = b"\x32"  # 6 of VerifyResponse, length-delimited
_SECONDS_TAG: Final = b"\x08"  # 1 of Duration, a number
_NANOS_PARTS: Final = [Duration(nanos=number * 1_000_000).SerializeToString() for number in range(1_000)]
"""What a serialised Duration says of so many milliseconds."""

_SHAPES: Final = 4_096
_fixed_parts: Final[dict[str, list[bytes]]] = {}
"""By the shape of a key's limits: of each, what no decision changes, up to the value of `remaining`."""


def charge_part(charge: Charge, shape: str) -> bytes:
    """What a serialised VerifyResponse says of limits. shape: theirs, see core/charging.py."""
    fixed = _fixed_parts.get(shape)
    if fixed is None:
        if len(_fixed_parts) >= _SHAPES:
            _fixed_parts.clear()
        fixed = _fixed_parts[shape] = [
            _fixed(status.held).SerializeToString() + _REMAINING_TAG for status in charge.statuses
        ]
    assert len(fixed) == len(charge.statuses), "limits of one shape are as many"
    parts: list[bytes] = []
    for place, status in enumerate(charge.statuses):
        remaining = varint(status.remaining)
        reset_after = b"" if status.reset_after is None else _RESET_TAG + _duration_part(status.reset_after)
        length = len(fixed[place]) + len(remaining) + len(reset_after)
        parts += [_LIMITS_TAG, varint(length), fixed[place], remaining, reset_after]
    if charge.retry_after is not None:
        parts += [_RETRY_TAG, _duration_part(charge.retry_after)]
    return b"".join(parts)


def _duration_part(seconds: float) -> bytes:
    """A serialised Duration behind its length. Rounded up to milliseconds: whoever waits for it waits long enough."""
    milliseconds = int(seconds * 1_000)
    if milliseconds < seconds * 1_000:
        milliseconds += 1
    message = _NANOS_PARTS[milliseconds % 1_000]
    if milliseconds >= 1_000:
        message = _SECONDS_TAG + varint(milliseconds // 1_000) + message
    return varint(len(message)) + message


def _fixed(held: HeldLimit) -> decision_pb2.LimitStatus:
    is_rate = isinstance(held.limit, RateLimit)
    period = period_seconds(held.limit)
    return decision_pb2.LimitStatus(
        name=held.limit.name,
        kind=decision_pb2.LimitStatus.KIND_RATE_LIMIT if is_rate else decision_pb2.LimitStatus.KIND_QUOTA,
        holder=decision_pb2.LimitStatus.Holder.ValueType(held.holder),
        limit=held.whole,
        per_period=held.limit.limit,
        period=None if period is None else duration_to(period),
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
