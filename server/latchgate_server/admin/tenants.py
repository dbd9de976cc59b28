"""Use cases of tenants. Those that change one belong to administrators of the tenant `latchgate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from latchgate_server.admin.access import Caller
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.admin.paging import Page, PageRequest, PageTokens
from latchgate_server.core.errors import EtagMismatch, ResourceExists, ResourceInUse, ResourceNotFound
from latchgate_server.core.model import ROOT_TENANT, Tenant
from latchgate_server.core.ports import Reader

_OWN_FIELDS = frozenset({"display_name", "tags"})
"""What administrators of a tenant may change of it."""


class Tenants:
    """Tenants: the boundary that keys never cross."""

    def __init__(self, read: Reader, mutations: Mutations, tokens: PageTokens) -> None:
        self._read = read
        self._mutations = mutations
        self._tokens = tokens

    async def create(self, caller: Caller, draft: Tenant) -> tuple[Tenant, Propagation]:
        """Create a tenant, enabled. Raises ResourceExists, and ResourceNotFound for its plan."""
        caller.require_root()

        async def change(mutation: Mutation) -> Tenant:
            transaction = mutation.transaction
            if await transaction.read.get_tenant(draft.tenant_id):
                raise ResourceExists("tenant", draft.tenant_id)
            if draft.plan_id and not await transaction.read.get_plan(draft.plan_id):
                raise ResourceNotFound("plan", draft.plan_id)
            await transaction.insert_tenant(replace(draft, enabled=True))
            created = await _existing(transaction.read, draft.tenant_id)
            mutation.audit(Change(before=None, after=created))
            return created

        return await self._mutations.run(caller, change)

    async def get(self, caller: Caller, tenant_id: str) -> Tenant:
        """The tenant. Raises ResourceNotFound."""
        if not caller.sees_tenant(tenant_id):
            raise ResourceNotFound("tenant", tenant_id)
        return await _existing(self._read, tenant_id)

    async def list(self, caller: Caller, page: PageRequest) -> Page[Tenant]:
        """The tenants that the caller sees, in the order of their ids."""
        after = self._tokens.start(caller, "", page)
        found = await self._read.list_tenants(after, caller.only_tenant, page.limit + 1)
        return self._tokens.page(caller, "", found, page.limit, lambda tenant: tenant.tenant_id)

    async def update(
        self, caller: Caller, tenant_id: str, changes: Mapping[str, object], etag: str
    ) -> tuple[Tenant, Propagation]:
        """Give fields of the tenant new values; its plan and limits only for administrators of `latchgate`.

        changes: by the field's name in Tenant. etag: the one that the change was made on; empty: any.
        Raises ResourceNotFound, also for the plan, EtagMismatch, PermissionMissing.
        """
        if not caller.sees_tenant(tenant_id):
            raise ResourceNotFound("tenant", tenant_id)
        if not _OWN_FIELDS.issuperset(changes):
            caller.require_root()

        async def change(mutation: Mutation) -> Tenant:
            transaction = mutation.transaction
            before = await _existing(transaction.read, tenant_id)
            if etag and etag != before.etag:
                raise EtagMismatch("tenant", tenant_id)
            after = replace(before, **changes)  # type: ignore[arg-type]  # convert_admin.py made them of the fields' types
            if after == before:
                return before
            if after.plan_id and not await transaction.read.get_plan(after.plan_id):
                raise ResourceNotFound("plan", after.plan_id)
            await transaction.update_tenant(after)
            stored = await _existing(transaction.read, tenant_id)
            mutation.audit(Change(before=before, after=stored))
            return stored

        return await self._mutations.run(caller, change)

    async def delete(self, caller: Caller, tenant_id: str, reason: str) -> Propagation:
        """Remove the tenant with its keys and roles. Raises ResourceNotFound, and ResourceInUse for `latchgate`."""
        caller.require_root()
        if tenant_id == ROOT_TENANT:
            raise ResourceInUse("key", caller.key_id)

        async def change(mutation: Mutation) -> None:
            before = await _existing(mutation.transaction.read, tenant_id)
            await mutation.transaction.delete_tenant(tenant_id)
            mutation.audit(Change(before=before, after=None, reason=reason))

        _, propagation = await self._mutations.run(caller, change)
        return propagation

    async def set_enabled(
        self, caller: Caller, tenant_id: str, enabled: bool, reason: str
    ) -> tuple[Tenant, Propagation]:
        """Switch the API access of all the tenant's keys on or off. Repeating it is no error."""
        caller.require_root()

        async def change(mutation: Mutation) -> Tenant:
            transaction = mutation.transaction
            before = await _existing(transaction.read, tenant_id)
            if before.enabled == enabled:
                return before
            await transaction.update_tenant(replace(before, enabled=enabled))
            after = await _existing(transaction.read, tenant_id)
            mutation.audit(Change(before=before, after=after, reason=reason))
            return after

        return await self._mutations.run(caller, change)


async def _existing(read: Reader, tenant_id: str) -> Tenant:
    tenant = await read.get_tenant(tenant_id)
    if tenant is None:
        raise ResourceNotFound("tenant", tenant_id)
    return tenant
