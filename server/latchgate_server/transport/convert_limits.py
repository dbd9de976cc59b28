"""Where limits stand: messages, and their serialised form on the hot path."""

from __future__ import annotations

import math

from google.protobuf.duration_pb2 import Duration

from latchgate.v1 import admin_service_pb2, decision_pb2, verify_service_pb2
from latchgate_server.core import bounds
from latchgate_server.core.charging import Charge, HeldLimit, LimitStatus
from latchgate_server.core.model import RateLimit
from latchgate_server.core.verification import Verification
from latchgate_server.transport.convert_admin import duration_to
from latchgate_server.transport.fields import Fields
from latchgate_server.transport.limit_headers import period_seconds

# A response with limits and nothing else, in which each decision changes a few numbers: that costs less than to make it
# anew. Keys with the same limits share it, so that it stays in the processor's cache. Nobody else sees it between its
# change and its serialisation.
_drafts: dict[str, _Draft] = {}
_DRAFTS = 4_096


class _Draft:
    def __init__(self, charge: Charge) -> None:
        self.response = verify_service_pb2.VerifyResponse(limits=[_fixed(status.held) for status in charge.statuses])
        self.limits = list(self.response.limits)


def charge_part(verification: Verification) -> bytes:
    """What a serialised VerifyResponse says of a verification's limits."""
    charge, record = verification.charge, verification.record
    assert record is not None, "only a record has limits"
    shape = record.limits.shape
    draft = _drafts.get(shape)
    if draft is None:
        if len(_drafts) >= _DRAFTS:
            _drafts.clear()
        draft = _drafts[shape] = _Draft(charge)
    for message, (_, remaining, reset_after) in zip(draft.limits, charge.statuses, strict=True):
        message.remaining = remaining
        if reset_after is not None:
            _set(message.reset_after, reset_after)
    part = draft.response.SerializeToString()
    if charge.retry_after is not None:
        response = verify_service_pb2.VerifyResponse()
        _set(response.retry_after, charge.retry_after)
        part += response.SerializeToString()
    return part


def _set(message: Duration, seconds: float) -> None:
    """Give a duration its value, rounded up to milliseconds: whoever waits for it waits long enough."""
    milliseconds = math.ceil(seconds * 1_000)
    message.seconds = milliseconds // 1_000
    message.nanos = milliseconds % 1_000 * 1_000_000


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
