"""What the answer to a verification must be, by three dictionaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from latchgate_server.core.model import DenialReason, KeyState
from tests.consistency.world import READ


@dataclass(frozen=True, slots=True)
class ModelKey:
    tenant_id: str
    permissions: tuple[str, ...]
    role_ids: tuple[str, ...] = ()
    state: KeyState = KeyState.ACTIVE
    expired: bool = False


@dataclass(frozen=True, slots=True)
class Model:
    """What the database holds: whether tenants are enabled, what roles permit, and keys by id."""

    tenants: Mapping[str, bool] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, ModelKey] = field(default_factory=dict)

    def answer(self, key_id: str) -> DenialReason | None:
        """Why the key may not read, or None where it may."""
        key = self.keys.get(key_id)
        if key is None:
            return DenialReason.INVALID_API_KEY
        if not self.tenants[key.tenant_id]:
            return DenialReason.TENANT_DISABLED
        if key.state is not KeyState.ACTIVE:
            revoked = key.state is KeyState.REVOKED
            return DenialReason.API_KEY_REVOKED if revoked else DenialReason.API_KEY_DISABLED
        if key.expired:
            return DenialReason.API_KEY_EXPIRED
        if READ in key.permissions or any(self.roles[role_id] == READ for role_id in key.role_ids):
            return None
        return DenialReason.INSUFFICIENT_PERMISSIONS

    def with_tenant(self, tenant_id: str, enabled: bool) -> Model:
        return replace(self, tenants={**self.tenants, tenant_id: enabled})

    def with_role(self, role_id: str, permission: str) -> Model:
        return replace(self, roles={**self.roles, role_id: permission})

    def with_key(self, key_id: str, key: ModelKey) -> Model:
        return replace(self, keys={**self.keys, key_id: key})

    def without_key(self, key_id: str) -> Model:
        return replace(self, keys={other: key for other, key in self.keys.items() if other != key_id})
