"""Tenants: making, reading, listing, changing, switching and deleting them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from latchgate.admin.calls import PAGE_SIZE, Call, Listing, changes, reads
from latchgate.admin.fields import fill, mask_of, put_entries, put_plain, time_from
from latchgate.admin.values import Limit, Propagation, limits_from, propagation_from, put_limits
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A tenant as it was when it was read. plan: empty: none. limits: shared by all of its keys."""

    tenant_id: str
    display_name: str
    enabled: bool
    plan: str
    limits: tuple[Limit, ...]
    tags: Mapping[str, str]
    create_time: datetime
    update_time: datetime
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChanged:
    """A tenant after a change."""

    tenant: Tenant
    propagation: Propagation


class TenantFields(TypedDict, total=False):
    """What can be chosen about a tenant. In an update, what is left out stays; empty clears.

    plan, limits: only by administrators of the tenant `latchgate`.
    """

    display_name: str
    plan: str
    limits: Iterable[Limit]
    tags: Mapping[str, str]


def create_tenant(tenant_id: str, **chosen: Unpack[TenantFields]) -> Call[TenantChanged]:
    """Make a tenant, switched on. chosen: see TenantFields. Raises AlreadyExists."""
    tenant = tenant_pb2.Tenant(tenant_id=tenant_id)
    fill(tenant, _FIELDS, chosen)
    # Had a first try succeeded, a second one would find the id taken.
    return changes("CreateTenant", pb.CreateTenantRequest(tenant=tenant), _tenant_changed_from, repeatable=False)


def get_tenant(tenant_id: str) -> Call[Tenant]:
    """Read a tenant."""
    return reads("GetTenant", pb.GetTenantRequest(tenant_id=tenant_id), lambda response: _tenant_from(response.tenant))


def list_tenants(*, page_size: int = PAGE_SIZE) -> Listing[Tenant]:
    """The tenants that the administrator may see."""
    request = pb.ListTenantsRequest(page_size=page_size)
    return Listing(rpc="ListTenants", request=request, entries=lambda response: map(_tenant_from, response.tenants))


def update_tenant(tenant_id: str, *, etag: str = "", **chosen: Unpack[TenantFields]) -> Call[TenantChanged]:
    """Change what is given of a tenant.

    etag: only if it still has this one; else Conflict. chosen: see TenantFields.
    """
    tenant = tenant_pb2.Tenant(tenant_id=tenant_id, etag=etag)
    request = pb.UpdateTenantRequest(update_mask=mask_of(fill(tenant, _FIELDS, chosen)), tenant=tenant)
    return changes("UpdateTenant", request, _tenant_changed_from, repeatable=not etag)


def enable_tenant(tenant_id: str, *, reason: str = "") -> Call[TenantChanged]:
    """Let a disabled tenant's keys work again. reason: for the audit log."""
    request = pb.EnableTenantRequest(tenant_id=tenant_id, reason=reason)
    return changes("EnableTenant", request, _tenant_changed_from, repeatable=True)


def disable_tenant(tenant_id: str, *, reason: str = "") -> Call[TenantChanged]:
    """Deny every key of a tenant until `enable_tenant`. reason: for the audit log."""
    request = pb.DisableTenantRequest(tenant_id=tenant_id, reason=reason)
    return changes("DisableTenant", request, _tenant_changed_from, repeatable=True)


def delete_tenant(tenant_id: str, *, reason: str = "") -> Call[Propagation]:
    """Delete a tenant with its keys and roles. They cannot be recovered. reason: for the audit log."""
    request = pb.DeleteTenantRequest(tenant_id=tenant_id, reason=reason)
    return changes("DeleteTenant", request, propagation_from, repeatable=False)


def _tenant_from(message: tenant_pb2.Tenant) -> Tenant:
    return Tenant(
        tenant_id=message.tenant_id,
        display_name=message.display_name,
        enabled=message.enabled,
        plan=message.plan_id,
        limits=limits_from(message.limits),
        tags=dict(message.tags),
        create_time=time_from(message.create_time),
        update_time=time_from(message.update_time),
        etag=message.etag,
    )


def _tenant_changed_from(response: Any) -> TenantChanged:
    return TenantChanged(tenant=_tenant_from(response.tenant), propagation=propagation_from(response))


_FIELDS = {
    "display_name": ("display_name", put_plain),
    "plan": ("plan_id", put_plain),
    "limits": ("limits", put_limits),
    "tags": ("tags", put_entries),
}
