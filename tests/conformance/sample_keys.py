"""Keys of which everything is set, and how they are read and changed: what the tests about keys share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.support.server import Admin

LATER = Timestamp(seconds=4_102_444_800)
EARLIER = Timestamp(seconds=1_000_000_000)
OUTPUT_ONLY = {
    "key_id",
    "state",
    "expired",
    "create_time",
    "created_by",
    "update_time",
    "revoke_time",
    "revocation_reason",
    "last_use",
    "predecessor_key_id",
    "successor_key_id",
    "etag",
}
RATE = key_pb2.Limit(name="requests", rate_limit=key_pb2.RateLimit(limit=5, period=Duration(seconds=1)))


def claims(**values: object) -> Struct:
    return ParseDict(values, Struct())


def everything(tenant_id: str, role_id: str) -> key_pb2.Key:
    """A key of which all that an administrator chooses is set."""
    return key_pb2.Key(
        tenant_id=tenant_id,
        display_name="Nightly export",
        description="Exports orders.\nEvery night.",
        owner="ada",
        default_user="export-bot",
        role_ids=[role_id],
        permissions=["orders.read", "stock.*"],
        claims=claims(site="berlin"),
        environment="production",
        tags={"team": "data"},
        ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["192.0.2.0/24", "2001:db8::1"]),
        expire_time=LATER,
        rotate_by_time=LATER,
        limits=[RATE],
        resources=["sites/berlin/*"],
    )


def chosen(key: key_pb2.Key) -> key_pb2.Key:
    """The key without what the server adds."""
    copy = key_pb2.Key()
    copy.CopyFrom(key)
    for name in OUTPUT_ONLY:
        copy.ClearField(name)  # type: ignore[arg-type]  # a field's name
    return copy


def update(admin: Admin, key_id: str, *paths: str, etag: str = "", **fields: Any) -> key_pb2.Key:
    """UpdateKey; without paths without a mask."""
    key = key_pb2.Key(key_id=key_id, etag=etag, **fields)
    mask = FieldMask(paths=paths) if paths else None
    updated: key_pb2.Key = admin.UpdateKey(pb.UpdateKeyRequest(key=key, update_mask=mask)).key
    return updated


def read(admin: Admin, key_id: str) -> key_pb2.Key:
    key: key_pb2.Key = admin.GetKey(pb.GetKeyRequest(key_id=key_id)).key
    return key


def is_recent(time: Timestamp) -> bool:
    return abs(time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)
