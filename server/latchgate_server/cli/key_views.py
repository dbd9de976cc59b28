"""What tables tell of keys."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import key_pb2
from latchgate_server.cli import text
from latchgate_server.cli.output import Column, Rows


class State(StrEnum):
    """The states of keys, as they are typed."""

    ACTIVE = "active"
    DISABLED = "disabled"
    REVOKED = "revoked"


STATES: Mapping[State, key_pb2.Key.State.ValueType] = {
    State.ACTIVE: key_pb2.Key.STATE_ACTIVE,
    State.DISABLED: key_pb2.Key.STATE_DISABLED,
    State.REVOKED: key_pb2.Key.STATE_REVOKED,
}

COLUMNS = [
    Column("key id", whole=True),
    Column("tenant"),
    Column("name"),
    Column("roles"),
    Column("state", whole=True),
    Column("created", whole=True),
    Column("last use", whole=True),
]


def row(key: key_pb2.Key, now: float) -> list[str]:
    """A key in a list. now: Unix seconds."""
    return [
        key.key_id,
        key.tenant_id,
        key.display_name,
        ", ".join(key.role_ids),
        text.state(key),
        text.distance(key.create_time, now),
        text.distance(key.last_use.time, now) if key.HasField("last_use") else "",
    ]


def details(key: key_pb2.Key, now: float) -> Rows:
    """All of a key. now: Unix seconds."""
    return [
        ("key id", key.key_id),
        ("tenant", key.tenant_id),
        ("name", key.display_name),
        ("description", key.description),
        ("owner", key.owner),
        ("default user", key.default_user),
        ("environment", key.environment),
        ("tags", text.tags(key.tags)),
        ("state", text.state(key)),
        ("expires", _when(key, "expire_time", now) or "never"),
        ("rotate by", _when(key, "rotate_by_time", now)),
        ("roles", ", ".join(key.role_ids)),
        ("permissions", ", ".join(key.permissions)),
        ("resources", ", ".join(key.resources)),
        ("claims", text.claims(key.claims)),
        ("addresses", text.allowlist(key.ip_allowlist)),
        ("limits", text.limits(key.limits)),
        ("created", f"{text.moment(key.create_time)} by {key.created_by}"),
        ("changed", text.moment(key.update_time)),
        ("revoked", _revoked(key)),
        ("last use", _last_use(key)),
        ("replaces", key.predecessor_key_id),
        ("replaced by", key.successor_key_id),
        ("etag", key.etag),
    ]


def _when(key: key_pb2.Key, name: str, now: float) -> str:
    time: Timestamp = getattr(key, name)
    return f"{text.moment(time)} ({text.distance(time, now)})" if key.HasField(name) else ""  # type: ignore[arg-type]  # a field's name


def _revoked(key: key_pb2.Key) -> str:
    if not key.HasField("revoke_time"):
        return ""
    return ": ".join(filter(None, [text.moment(key.revoke_time), key.revocation_reason]))


def _last_use(key: key_pb2.Key) -> str:
    if not key.HasField("last_use"):
        return ""
    use = key.last_use
    by = [f" from {use.client_ip}" if use.client_ip else "", f" by {use.user}" if use.user else ""]
    return text.moment(use.time) + "".join(by)
