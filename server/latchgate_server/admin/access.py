"""Who may administer what: authentication, the permission of each RPC, and what exists for whom."""

from __future__ import annotations

from dataclasses import dataclass

from latchgate_server.core.errors import (
    AdminKeyRejected,
    InvalidRequest,
    PermissionMissing,
    ResourceNotFound,
)
from latchgate_server.core.model import ROOT_TENANT, DenialReason, Key, Question
from latchgate_server.core.permissions import Grants
from latchgate_server.core.policy import decide
from latchgate_server.core.ports import Clock, KeyVerifier, Transaction
from latchgate_server.core.record import Record

OWN_KEYS = "latchgate.keys.own"
"""Lets a key manage the keys of its own owner."""

METHOD_PERMISSIONS = {
    "CreateTenant": "latchgate.tenants.create",
    "GetTenant": "latchgate.tenants.get",
    "ListTenants": "latchgate.tenants.list",
    "UpdateTenant": "latchgate.tenants.update",
    "EnableTenant": "latchgate.tenants.enable",
    "DisableTenant": "latchgate.tenants.disable",
    "DeleteTenant": "latchgate.tenants.delete",
    "CreatePlan": "latchgate.plans.create",
    "GetPlan": "latchgate.plans.get",
    "ListPlans": "latchgate.plans.list",
    "UpdatePlan": "latchgate.plans.update",
    "DeletePlan": "latchgate.plans.delete",
    "CreateRole": "latchgate.roles.create",
    "GetRole": "latchgate.roles.get",
    "ListRoles": "latchgate.roles.list",
    "UpdateRole": "latchgate.roles.update",
    "DeleteRole": "latchgate.roles.delete",
    "CreateKey": "latchgate.keys.create",
    "GetKey": "latchgate.keys.get",
    "ListKeys": "latchgate.keys.list",
    "UpdateKey": "latchgate.keys.update",
    "EnableKey": "latchgate.keys.enable",
    "DisableKey": "latchgate.keys.disable",
    "ExpireKey": "latchgate.keys.expire",
    "RevokeKey": "latchgate.keys.revoke",
    "BatchRevokeKeys": "latchgate.keys.batch_revoke",
    "DeleteKey": "latchgate.keys.delete",
    "RotateKey": "latchgate.keys.rotate",
    "GetRotation": "latchgate.keys.get_rotation",
    "ImportKeys": "latchgate.keys.import",
    "ReportLeakedKeys": "latchgate.keys.report_leaked",
    "ExplainKey": "latchgate.keys.explain",
    "ResetLimit": "latchgate.limits.reset",
    "GetUsage": "latchgate.usage.get",
    "ListKeyUses": "latchgate.keys.list_uses",
    "ListKeySources": "latchgate.keys.list_sources",
    "ListBusiestKeys": "latchgate.keys.list_busiest",
    "ListAuditEvents": "latchgate.audit.list",
}
"""The one permission that each RPC needs. An RPC without a row is refused to everybody."""

_OWN_METHODS = frozenset(
    {
        "CreateKey",
        "GetKey",
        "ListKeys",
        "UpdateKey",
        "EnableKey",
        "DisableKey",
        "ExpireKey",
        "RevokeKey",
        "DeleteKey",
        "RotateKey",
        "GetRotation",
        "ListKeyUses",
        "ListKeySources",
    }
)
"""What OWN_KEYS lets a key call, for keys of its own owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An administrator who has been let in to one RPC.

    address: where it calls from, for the audit log.
    on_behalf_of: the owner that the caller asked to be narrowed to; empty: none.
    only_owner: where set, the caller manages keys of this owner alone.
    """

    record: Record
    method: str
    address: str
    on_behalf_of: str
    only_owner: str | None

    @property
    def key_id(self) -> str:
        """Who acts, in the audit log."""
        return self.record.identity.key_id

    @property
    def tenant_id(self) -> str:
        """The tenant that the caller belongs to."""
        return self.record.identity.tenant_id

    @property
    def is_root(self) -> bool:
        """Whether the caller administers every tenant."""
        return self.tenant_id == ROOT_TENANT

    @property
    def is_narrowed(self) -> bool:
        """Whether the caller manages keys of one owner alone, whatever else its key may do."""
        return self.only_owner is not None

    @property
    def only_tenant(self) -> str | None:
        """The one tenant that exists for this caller, or None for all."""
        return None if self.is_root else self.tenant_id

    @property
    def grants(self) -> Grants:
        """What the caller holds itself."""
        return self.record.grants

    def sees_tenant(self, tenant_id: str) -> bool:
        """Whether the tenant exists for this caller."""
        return self.is_root or tenant_id == self.tenant_id

    def sees_key(self, key: Key) -> bool:
        """Whether the key exists for this caller."""
        return self.sees_tenant(key.tenant_id) and self.only_owner in (None, key.owner)

    def require_root(self) -> None:
        """Raise PermissionMissing unless the caller administers every tenant."""
        if not self.is_root:
            raise PermissionMissing(METHOD_PERMISSIONS[self.method], ROOT_TENANT)


def require_visible(key: Key | None, key_id: str, caller: Caller) -> Key:
    """The key, where it exists for this caller. Raises ResourceNotFound."""
    if key is None or not caller.sees_key(key):
        raise ResourceNotFound("key", key_id)
    return key


class Access:
    """Lets administrators in."""

    def __init__(self, verifier: KeyVerifier, clock: Clock) -> None:
        self._verifier = verifier
        self._clock = clock

    async def admit(self, method: str, key_string: str, address: str, on_behalf_of: str) -> Caller:
        """Authenticate and authorize the caller of an RPC.

        Raises AdminKeyRejected, PermissionMissing, and CannotDecide where there is no telling.
        """
        verification = await self._verifier.verify(key_string, Question(client_ip=address, cost=None))
        if verification.denial_reason is not None or verification.record is None:
            raise AdminKeyRejected(verification.denial_reason or DenialReason.INVALID_API_KEY)
        return _authorize(verification.record, method, address, on_behalf_of)

    async def admit_again(self, caller: Caller, transaction: Transaction) -> Caller:
        """The same caller as the transaction sees it, under the revision lock.

        A request that was parked while its administrator was revoked ends here.
        """
        record = transaction.actor.record
        if not isinstance(record, Record):
            raise AdminKeyRejected(DenialReason.INVALID_API_KEY)
        denial_reason = decide(record, Question(client_ip=caller.address), self._clock.now())
        if denial_reason is not None:
            raise AdminKeyRejected(denial_reason)
        return _authorize(record, caller.method, caller.address, caller.on_behalf_of)


def _authorize(record: Record, method: str, address: str, on_behalf_of: str) -> Caller:
    only_owner = _only_owner(record, method, on_behalf_of)
    return Caller(record=record, method=method, address=address, on_behalf_of=on_behalf_of, only_owner=only_owner)


def _only_owner(record: Record, method: str, on_behalf_of: str) -> str | None:
    """The owner that the caller is narrowed to, or None. Raises PermissionMissing."""
    permission = METHOD_PERMISSIONS.get(method)
    owner = record.identity.owner
    if permission is None:
        raise PermissionMissing(f"one for {method}, which nobody can hold")
    if record.grants.covers(permission) and (not on_behalf_of or method in _OWN_METHODS):
        return on_behalf_of or None
    if method in _OWN_METHODS and owner and on_behalf_of in ("", owner) and record.grants.covers(OWN_KEYS):
        return owner
    raise PermissionMissing(permission)


def tenant_of_new_key(caller: Caller, tenant_id: str) -> str:
    """The tenant that a new key goes to. Raises InvalidRequest and ResourceNotFound."""
    if not tenant_id:
        if caller.is_root:
            raise InvalidRequest.of("key.tenant_id", f"administrators of {ROOT_TENANT} say which tenant")
        return caller.tenant_id
    if not caller.sees_tenant(tenant_id):
        raise ResourceNotFound("tenant", tenant_id)
    return tenant_id
