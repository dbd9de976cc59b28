"""Roles: named sets of permissions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from latchgate.admin.calls import PAGE_SIZE, Call, Listing, changes, reads
from latchgate.admin.fields import fill, mask_of, put_entries, put_plain, put_texts, time_from
from latchgate.admin.values import Propagation, propagation_from
from latchgate.decoding import object_of
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """A role as it was when it was read. tenant: the only one whose keys may hold it; empty: every tenant's may."""

    role_id: str
    tenant: str
    display_name: str
    description: str
    permissions: tuple[str, ...]
    claims: Mapping[str, Any]
    allow_act_as: bool
    create_time: datetime
    update_time: datetime
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChanged:
    """A role after a change."""

    role: Role
    propagation: Propagation


class RoleFields(TypedDict, total=False):
    """What can be chosen about a role. In an update, what is left out stays; empty clears.

    allow_act_as: whether keys with this role may name the user that they act as.
    """

    display_name: str
    description: str
    permissions: Iterable[str]
    claims: Mapping[str, Any]
    allow_act_as: bool


def create_role(role_id: str, *, tenant: str = "", **chosen: Unpack[RoleFields]) -> Call[RoleChanged]:
    """Make a role. tenant: whose keys alone may hold it; empty: every tenant's. chosen: see RoleFields."""
    role = tenant_pb2.Role(role_id=role_id, tenant_id=tenant)
    fill(role, _FIELDS, chosen)
    return changes("CreateRole", pb.CreateRoleRequest(role=role), _role_changed_from, repeatable=False)


def get_role(role_id: str, *, tenant: str = "") -> Call[Role]:
    """Read a role.

    tenant: whose; empty: the administrator's own, else the one that every tenant may use. (For administrators of the
    tenant `latchgate` always the latter.)
    """
    request = pb.GetRoleRequest(role_id=role_id, tenant_id=tenant)
    return reads("GetRole", request, lambda response: _role_from(response.role))


def list_roles(*, tenant: str = "", page_size: int = PAGE_SIZE) -> Listing[Role]:
    """The roles of a tenant, with those that every tenant may use. tenant: empty: the latter and the caller's own."""
    request = pb.ListRolesRequest(tenant_id=tenant, page_size=page_size)
    return Listing(rpc="ListRoles", request=request, entries=lambda response: map(_role_from, response.roles))


def update_role(role_id: str, *, tenant: str = "", etag: str = "", **chosen: Unpack[RoleFields]) -> Call[RoleChanged]:
    """Change what is given of a role, for every key that holds it.

    tenant: whose, as with `get_role`. etag: only if it still has this one; else Conflict. chosen: see RoleFields.
    """
    role = tenant_pb2.Role(role_id=role_id, tenant_id=tenant, etag=etag)
    request = pb.UpdateRoleRequest(update_mask=mask_of(fill(role, _FIELDS, chosen)), role=role)
    return changes("UpdateRole", request, _role_changed_from, repeatable=not etag)


def delete_role(role_id: str, *, tenant: str = "") -> Call[Propagation]:
    """Delete a role. tenant: whose, as with `get_role`. Raises PreconditionFailed while a key holds it."""
    request = pb.DeleteRoleRequest(role_id=role_id, tenant_id=tenant)
    return changes("DeleteRole", request, propagation_from, repeatable=False)


def _role_from(message: tenant_pb2.Role) -> Role:
    return Role(
        role_id=message.role_id,
        tenant=message.tenant_id,
        display_name=message.display_name,
        description=message.description,
        permissions=tuple(message.permissions),
        claims=object_of(message.claims),
        allow_act_as=message.allow_act_as,
        create_time=time_from(message.create_time),
        update_time=time_from(message.update_time),
        etag=message.etag,
    )


def _role_changed_from(response: Any) -> RoleChanged:
    return RoleChanged(role=_role_from(response.role), propagation=propagation_from(response))


_FIELDS = {
    "display_name": ("display_name", put_plain),
    "description": ("description", put_plain),
    "permissions": ("permissions", put_texts),
    "claims": ("claims", put_entries),
    "allow_act_as": ("allow_act_as", put_plain),
}
