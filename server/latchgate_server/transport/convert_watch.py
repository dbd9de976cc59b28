"""WatchKeys's messages and the core's values."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import verify_service_pb2
from latchgate_server.core import bounds
from latchgate_server.core.model import DenialReason
from latchgate_server.transport.fields import Fields
from latchgate_server.verify.cached_uses import CachedUse
from latchgate_server.verify.watchers import News

_REASONS = {reason.name: reason for reason in DenialReason if reason}


def uses_from(request: verify_service_pb2.WatchKeysRequest) -> list[CachedUse]:
    """What a client reports. Raises InvalidRequest."""
    fields = Fields()
    if len(request.uses) > bounds.CACHED_USES:
        fields.wrong("uses", f"at most {bounds.CACHED_USES} entries, not {len(request.uses)}")
    fields.check()
    uses = [_use_from(fields, f"uses[{place}]", use) for place, use in enumerate(request.uses)]
    fields.check()
    return uses


def _use_from(fields: Fields, path: str, use: verify_service_pb2.CachedUse) -> CachedUse:
    fields.text(f"{path}.key_id", use.key_id, bounds.KEY_ID_LENGTH)
    fields.text(f"{path}.last_client_ip", use.last_client_ip, bounds.CLIENT_ADDRESS_LENGTH)
    counts = {name.removeprefix("DENIAL_REASON_"): count for name, count in use.denied.items()}
    if not all(0 <= count <= bounds.CACHED_USE_COUNT for count in (use.allowed, *counts.values())):
        fields.wrong(path, f"counts of 0 to {bounds.CACHED_USE_COUNT}")
    if len(counts) > bounds.CACHED_USE_REASONS:
        fields.wrong(path, f"at most {bounds.CACHED_USE_REASONS} reasons, not {len(counts)}")
    # A client that is newer than this server may know of more reasons.
    denied = {_REASONS[name]: count for name, count in counts.items() if name in _REASONS}
    time = use.last_use_time.seconds + use.last_use_time.nanos / 1e9
    return CachedUse(use.key_id, use.allowed, denied, time, use.last_client_ip)


def news_to(news: News, now: float) -> verify_service_pb2.WatchKeysResponse:
    """The message for news. now: Unix seconds."""
    message = verify_service_pb2.WatchKeysResponse(
        key_ids=news.key_ids,
        tenant_ids=news.tenant_ids,
        drop_all=news.drop_all,
        revision=news.revision,
        sequence=news.sequence,
    )
    if news.lease > 0:
        # Never longer than what was granted, and never earlier than what the clock shows.
        message.lease.CopyFrom(Duration(seconds=int(news.lease), nanos=int(news.lease % 1 * 1e9)))
        message.server_time.CopyFrom(Timestamp(seconds=int(now), nanos=int(now % 1 * 1e9)))
    return message
