"""Keys: AdminService's messages and the core's values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from latchgate.v1 import admin_service_pb2, key_pb2
from latchgate_server.core import bounds
from latchgate_server.core.key_format import is_prefix
from latchgate_server.core.model import Key
from latchgate_server.core.ports import KeyFilter, RepeatableCall
from latchgate_server.transport.convert_admin import limits_from, limits_to, time_to
from latchgate_server.transport.fields import Fields, set_claims
from latchgate_server.transport.repeatable_calls import repeatable_call_from

_CHANGEABLE: Mapping[str, Sequence[str]] = {
    "display_name": ["display_name"],
    "description": ["description"],
    "owner": ["owner"],
    "default_user": ["default_user"],
    "role_ids": ["role_ids"],
    "permissions": ["permissions"],
    "claims": ["claims"],
    "environment": ["environment"],
    "tags": ["tags"],
    "ip_allowlist": ["ip_allowlist_enabled", "ip_allowlist"],
    "ip_allowlist.enabled": ["ip_allowlist_enabled"],
    "ip_allowlist.ranges": ["ip_allowlist"],
    "expire_time": ["expire_time"],
    "rotate_by_time": ["rotate_by_time"],
    "limits": ["limits"],
    "resources": ["resources"],
}
"""What an update mask may name, and the fields of Key that it stands for."""


def new_key_from(request: admin_service_pb2.CreateKeyRequest) -> tuple[Key, RepeatableCall | None]:
    """The key that is asked for, with an empty key id, and the id of the request. Raises InvalidRequest."""
    fields = Fields()
    if request.prefix and not is_prefix(request.prefix):
        fields.wrong("prefix", f"a letter, then up to {bounds.KEY_PREFIX_LENGTH - 1} of a-z, 0-9 and '_'")
    repeatable = repeatable_call_from(fields, request)
    key = key_fields_from(fields, request.key)
    if request.key.tenant_id:
        fields.tenant_id("key.tenant_id", request.key.tenant_id)
    fields.check()
    return key, repeatable


def key_changes_from(request: admin_service_pb2.UpdateKeyRequest) -> Mapping[str, object]:
    """The new values of the fields of Key that an update names. Raises InvalidRequest."""
    fields = Fields()
    fields.key_id("key.key_id", request.key.key_id)
    fields.text("key.etag", request.key.etag, bounds.ETAG_LENGTH)
    paths = fields.paths(request, request.key, _CHANGEABLE)
    draft = key_fields_from(fields, request.key)
    fields.check()
    return {name: getattr(draft, name) for path in paths for name in _CHANGEABLE[path]}


def key_fields_from(fields: Fields, message: key_pb2.Key, path: str = "key") -> Key:
    """What of a key its administrator chooses; output-only fields are not looked at. path: the key's in the request."""
    return Key(
        key_id="",
        tenant_id=message.tenant_id,
        display_name=fields.text(f"{path}.display_name", message.display_name, bounds.DISPLAY_NAME_LENGTH),
        description=fields.text(f"{path}.description", message.description, bounds.DESCRIPTION_LENGTH, lines=True),
        owner=fields.text(f"{path}.owner", message.owner, bounds.USER_LENGTH),
        default_user=fields.text(f"{path}.default_user", message.default_user, bounds.USER_LENGTH),
        role_ids=fields.role_ids(f"{path}.role_ids", message.role_ids),
        permissions=fields.grants(f"{path}.permissions", message.permissions),
        claims=fields.claims(f"{path}.claims", message.claims),
        environment=fields.text(f"{path}.environment", message.environment, bounds.ENVIRONMENT_LENGTH),
        tags=fields.tags(f"{path}.tags", message.tags),
        ip_allowlist_enabled=message.ip_allowlist.enabled,
        ip_allowlist=fields.ranges(f"{path}.ip_allowlist.ranges", message.ip_allowlist.ranges),
        resources=fields.resources(f"{path}.resources", message.resources),
        expire_time=_time(fields, message, path, "expire_time"),
        rotate_by_time=_time(fields, message, path, "rotate_by_time"),
        limits=limits_from(fields, f"{path}.limits", message.limits),
    )


def _time(fields: Fields, message: key_pb2.Key, path: str, name: str) -> datetime | None:
    return fields.time(f"{path}.{name}", getattr(message, name)) if message.HasField(name) else None  # type: ignore[arg-type]  # a field's name


def key_to(key: Key, now: float) -> key_pb2.Key:
    """The message for a key. now: Unix seconds, which `expired` is told by."""
    has_expired = key.expired or (key.expire_time is not None and key.expire_time.timestamp() <= now)
    message = key_pb2.Key(
        key_id=key.key_id,
        tenant_id=key.tenant_id,
        display_name=key.display_name,
        description=key.description,
        owner=key.owner,
        default_user=key.default_user,
        role_ids=key.role_ids,
        permissions=key.permissions,
        environment=key.environment,
        tags=key.tags,
        resources=key.resources,
        expire_time=time_to(key.expire_time),
        rotate_by_time=time_to(key.rotate_by_time),
        limits=limits_to(key.limits),
        state=key_pb2.Key.State.ValueType(key.state),
        expired=has_expired,
        create_time=time_to(key.create_time),
        created_by=key.created_by,
        update_time=time_to(key.update_time),
        revoke_time=time_to(key.revoke_time),
        revocation_reason=key.revocation_reason,
        predecessor_key_id=key.predecessor_key_id,
        successor_key_id=key.successor_key_id,
        etag=key.etag,
    )
    if key.last_use is not None:
        use = key.last_use
        message.last_use.CopyFrom(
            key_pb2.LastUse(time=time_to(use.time), client_ip=use.client_ip, user=use.user, user_agent=use.user_agent)
        )
    set_claims(message.claims, key.claims)
    if key.ip_allowlist_enabled or key.ip_allowlist:
        message.ip_allowlist.enabled = key.ip_allowlist_enabled
        message.ip_allowlist.ranges.extend(key.ip_allowlist)
    return message


def filter_from(message: admin_service_pb2.KeyFilter) -> KeyFilter:
    """Which keys are asked for. Raises InvalidRequest."""
    fields = Fields()
    matching = KeyFilter(
        tenant_id=fields.tenant_id("filter.tenant_id", message.tenant_id) if message.tenant_id else None,
        owner=fields.text("filter.owner", message.owner, bounds.USER_LENGTH) or None,
        role_id=fields.id("filter.role_id", message.role_id) if message.role_id else None,
        environment=fields.text("filter.environment", message.environment, bounds.ENVIRONMENT_LENGTH) or None,
        tags=fields.tags("filter.tags", message.tags) or None,
        states=fields.states("filter.states", message.states) or None,
        expires_before=_filter_time(fields, message, "expires_before"),
        rotation_due_before=_filter_time(fields, message, "rotation_due_before"),
        unused_since=_filter_time(fields, message, "unused_since"),
        search=fields.text("filter.search", message.search, bounds.DISPLAY_NAME_LENGTH) or None,
    )
    fields.check()
    return matching


def _filter_time(fields: Fields, message: admin_service_pb2.KeyFilter, name: str) -> datetime | None:
    return fields.time(f"filter.{name}", getattr(message, name)) if message.HasField(name) else None  # type: ignore[arg-type]  # a field's name


def key_id_from(key_id: str) -> str:
    """The key id of a request that names a key. Raises InvalidRequest."""
    fields = Fields()
    fields.key_id("key_id", key_id)
    fields.check()
    return key_id
