"""Keys: making, reading, listing, changing and deleting them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack

from latchgate.admin.calls import PAGE_SIZE, Call, Listing, changes, reads
from latchgate.admin.fields import fill, mask_of, put_entries, put_plain, put_texts, put_time
from latchgate.admin.key import Key, KeyChanged, KeyState, NewKey, key_changed_from, key_from, new_key_from
from latchgate.admin.values import (
    IpAllowlist,
    Limit,
    Propagation,
    propagation_from,
    put_allowlist,
    put_limits,
)
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2


class KeyFields(TypedDict, total=False):
    """What can be chosen about a key. In an update, what is left out stays; empty, or None, clears.

    What each means and its bounds are told with `Key` in latchgate/v1/key.proto.
    """

    display_name: str
    description: str
    owner: str
    default_user: str
    roles: Iterable[str]
    permissions: Iterable[str]
    resources: Iterable[str]
    claims: Mapping[str, Any]
    environment: str
    tags: Mapping[str, str]
    ip_allowlist: IpAllowlist | Iterable[str] | None
    expire_time: datetime | None
    rotate_by_time: datetime | None
    limits: Iterable[Limit]


class KeyFilter(TypedDict, total=False):
    """Which keys; all that is given must match.

    tenant, owner, role, environment: exactly these. tags: each with the same value. states: one of them.
    expires_before, rotation_due_before: those without such a time do not match. unused_since: not used since then, or
    never and created before. search: part of display_name or description, in any case, or the start of a key id.
    """

    tenant: str
    owner: str
    role: str
    environment: str
    tags: Mapping[str, str]
    states: Iterable[KeyState]
    expires_before: datetime | None
    rotation_due_before: datetime | None
    unused_since: datetime | None
    search: str


def create_key(
    *, tenant: str = "", prefix: str = "", request_id: str = "", **chosen: Unpack[KeyFields]
) -> Call[NewKey]:
    """Make a key.

    tenant: whose; empty: the administrator's own. prefix: leads its key id; empty: the server's default. request_id: a
    UUID that makes repeating the call harmless; one is made unless it is given. chosen: see KeyFields. Raises
    KeyStringLost, Overloaded with the reason `KEY_LIMIT_REACHED`.
    """
    key = key_pb2.Key(tenant_id=tenant)
    fill(key, _FIELDS, chosen)
    request = pb.CreateKeyRequest(key=key, prefix=prefix, request_id=request_id or new_request_id())
    return changes("CreateKey", request, new_key_from, repeatable=True)


def get_key(key_id: str) -> Call[Key]:
    """Read a key."""
    return reads("GetKey", pb.GetKeyRequest(key_id=key_id), lambda response: key_from(response.key))


def list_keys(*, page_size: int = PAGE_SIZE, **matching: Unpack[KeyFilter]) -> Listing[Key]:
    """The keys that match, the newest first; with a time to expire or rotate before, those whose time is the latest.

    matching: see KeyFilter.
    """
    request = pb.ListKeysRequest(filter=filter_to(matching), page_size=page_size)
    return Listing(rpc="ListKeys", request=request, entries=lambda response: map(key_from, response.keys))


def update_key(key_id: str, *, etag: str = "", **chosen: Unpack[KeyFields]) -> Call[KeyChanged]:
    """Change what is given of a key. etag: only if it still has this one; else Conflict. chosen: see KeyFields."""
    key = key_pb2.Key(key_id=key_id, etag=etag)
    request = pb.UpdateKeyRequest(update_mask=mask_of(fill(key, _FIELDS, chosen)), key=key)
    # Had a first try succeeded, a second one would find another etag.
    return changes("UpdateKey", request, key_changed_from, repeatable=not etag)


def delete_key(key_id: str, *, reason: str = "") -> Call[Propagation]:
    """Remove a key. It cannot be recovered; its audit events stay. reason: for the audit log."""
    request = pb.DeleteKeyRequest(key_id=key_id, reason=reason)
    return changes("DeleteKey", request, propagation_from, repeatable=False)


def new_request_id() -> str:
    """What tells a repeated call from another one."""
    return str(uuid.uuid4())


def fill_key(key: key_pb2.Key, chosen: KeyFields) -> None:
    """Put what is chosen into a key. Raises TypeError, ValueError."""
    fill(key, _FIELDS, chosen)


def filter_to(matching: KeyFilter) -> pb.KeyFilter:
    """The message for a filter. Raises TypeError, ValueError."""
    message = pb.KeyFilter()
    fill(message, _FILTER, matching)
    return message


def _put_states(message: Any, name: str, value: Iterable[KeyState]) -> None:
    if isinstance(value, str):
        raise TypeError(f"{name}: several states are expected, such as [{value!r}]")
    getattr(message, name).extend(key_pb2.Key.State.Value(f"STATE_{state.upper()}") for state in value)


_FIELDS = {
    "display_name": ("display_name", put_plain),
    "description": ("description", put_plain),
    "owner": ("owner", put_plain),
    "default_user": ("default_user", put_plain),
    "roles": ("role_ids", put_texts),
    "permissions": ("permissions", put_texts),
    "resources": ("resources", put_texts),
    "claims": ("claims", put_entries),
    "environment": ("environment", put_plain),
    "tags": ("tags", put_entries),
    "ip_allowlist": ("ip_allowlist", put_allowlist),
    "expire_time": ("expire_time", put_time),
    "rotate_by_time": ("rotate_by_time", put_time),
    "limits": ("limits", put_limits),
}
_FILTER = {
    "tenant": ("tenant_id", put_plain),
    "owner": ("owner", put_plain),
    "role": ("role_id", put_plain),
    "environment": ("environment", put_plain),
    "tags": ("tags", put_entries),
    "states": ("states", _put_states),
    "expires_before": ("expires_before", put_time),
    "rotation_due_before": ("rotation_due_before", put_time),
    "unused_since": ("unused_since", put_time),
    "search": ("search", put_plain),
}
