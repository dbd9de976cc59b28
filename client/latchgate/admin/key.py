"""A key as a value, and what calls about keys answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from latchgate.admin.fields import optional_time_from, time_from
from latchgate.admin.values import (
    IpAllowlist,
    Limit,
    Propagation,
    allowlist_from,
    limits_from,
    propagation_from,
)
from latchgate.decoding import name_of, object_of
from latchgate.errors import KeyStringLost
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2

KeyState: TypeAlias = Literal["active", "disabled", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LastUse:
    """A key's latest use. client_ip, user_agent: empty where they were not told."""

    time: datetime
    client_ip: str
    user: str
    user_agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it was when it was read; never its secret.

    state: `active`, `disabled` or `revoked`; expiry is apart from it. ip_allowlist: None: any address. expire_time:
    None: never. created_by: an administrator's key id, or `system`. last_use: None: never used. predecessor_key_id,
    successor_key_id: by rotation; empty: none. etag: pass it to `update_key` to change just this state of it.
    """

    key_id: str
    tenant: str
    display_name: str
    description: str
    owner: str
    default_user: str
    roles: tuple[str, ...]
    permissions: tuple[str, ...]
    resources: tuple[str, ...]
    claims: Mapping[str, Any]
    environment: str
    tags: Mapping[str, str]
    ip_allowlist: IpAllowlist | None
    expire_time: datetime | None
    rotate_by_time: datetime | None
    limits: tuple[Limit, ...]
    state: str
    expired: bool
    create_time: datetime
    created_by: str
    update_time: datetime
    revoke_time: datetime | None
    revocation_reason: str
    last_use: LastUse | None
    predecessor_key_id: str
    successor_key_id: str
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChanged:
    """A key after a change."""

    key: Key
    propagation: Propagation


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that was made. key_string: the whole credential, told this once; it is in no `repr`."""

    key: Key
    key_string: str = field(repr=False)
    propagation: Propagation


def key_from(message: key_pb2.Key) -> Key:
    """The key that a message holds."""
    return Key(
        key_id=message.key_id,
        tenant=message.tenant_id,
        display_name=message.display_name,
        description=message.description,
        owner=message.owner,
        default_user=message.default_user,
        roles=tuple(message.role_ids),
        permissions=tuple(message.permissions),
        resources=tuple(message.resources),
        claims=object_of(message.claims),
        environment=message.environment,
        tags=dict(message.tags),
        ip_allowlist=allowlist_from(message.ip_allowlist) if message.HasField("ip_allowlist") else None,
        expire_time=optional_time_from(message, "expire_time"),
        rotate_by_time=optional_time_from(message, "rotate_by_time"),
        limits=limits_from(message.limits),
        state=name_of(key_pb2.Key.State, message.state, "STATE_").lower(),
        expired=message.expired,
        create_time=time_from(message.create_time),
        created_by=message.created_by,
        update_time=time_from(message.update_time),
        revoke_time=optional_time_from(message, "revoke_time"),
        revocation_reason=message.revocation_reason,
        last_use=_last_use_from(message.last_use) if message.HasField("last_use") else None,
        predecessor_key_id=message.predecessor_key_id,
        successor_key_id=message.successor_key_id,
        etag=message.etag,
    )


def key_changed_from(response: Any) -> KeyChanged:
    """The key and the propagation that a response holds."""
    return KeyChanged(key=key_from(response.key), propagation=propagation_from(response))


def new_key_from(response: pb.CreateKeyResponse) -> NewKey:
    """The key that was made. Raises KeyStringLost."""
    key = key_from(response.key)
    if not response.key_string:
        raise KeyStringLost(key)
    return NewKey(key=key, key_string=response.key_string, propagation=propagation_from(response))


def _last_use_from(message: key_pb2.LastUse) -> LastUse:
    return LastUse(
        time=time_from(message.time), client_ip=message.client_ip, user=message.user, user_agent=message.user_agent
    )
