"""Use cases of roles: named sets of permissions, of one tenant or for every tenant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from latchgate_server.admin.access import Caller
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.guard import guard_holders, guard_role
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.admin.paging import Page, PageRequest, PageTokens
from latchgate_server.core.errors import (
    EtagMismatch,
    ResourceExists,
    ResourceInUse,
    ResourceNotFound,
)
from latchgate_server.core.model import Role
from latchgate_server.core.ports import Reader


class Roles:
    """Roles.

    A role id is unique in each tenant's sight: beside a role for every tenant there is none of the same id in any
    tenant. So a tenant can choose its ids without learning which ones others have.
    """

    def __init__(self, read: Reader, mutations: Mutations, tokens: PageTokens) -> None:
        self._read = read
        self._mutations = mutations
        self._tokens = tokens

    async def create(self, caller: Caller, draft: Role) -> tuple[Role, Propagation]:
        """Create a role. An administrator of a tenant creates it for that tenant, named or not.

        Raises ResourceExists, EscalationRefused, and ResourceNotFound for its tenant.
        """
        tenant_id = draft.tenant_id or ("" if caller.is_root else caller.tenant_id)
        if tenant_id and not caller.sees_tenant(tenant_id):
            raise ResourceNotFound("tenant", tenant_id)
        role = replace(draft, tenant_id=tenant_id)

        async def change(mutation: Mutation) -> Role:
            transaction = mutation.transaction
            guard_role(mutation.caller, role)
            if tenant_id and not await transaction.read.get_tenant(tenant_id):
                raise ResourceNotFound("tenant", tenant_id)
            if await transaction.read.role_id_taken(tenant_id, role.role_id):
                raise ResourceExists("role", role.role_id)
            await transaction.insert_role(role)
            created = (await transaction.read.find_roles(tenant_id, [role.role_id]))[role.role_id]
            mutation.audit(Change(before=None, after=created))
            return created

        return await self._mutations.run(caller, change)

    async def update(
        self, caller: Caller, role: tuple[str, str], changes: Mapping[str, object], etag: str
    ) -> tuple[Role, Propagation]:
        """Give fields of a role new values; they hold for every key with it at once.

        role: its id and its tenant's, the latter empty for the caller's own (for administrators of `latchgate`: a role
        of every tenant). changes: by the field's name in Role. etag: the one that the change was made on; empty: any.
        Raises ResourceNotFound, EtagMismatch, EscalationRefused.
        """

        async def change(mutation: Mutation) -> Role:
            transaction = mutation.transaction
            before = await _changeable(mutation.caller, transaction.read, *role)
            if etag and etag != before.etag:
                raise EtagMismatch("role", before.role_id)
            after = replace(before, **changes)  # type: ignore[arg-type]  # convert_admin.py made them of the fields' types
            if after == before:
                return before
            guard_role(mutation.caller, after, before)
            await guard_holders(mutation.caller, transaction.read, before, after)
            await transaction.update_role(after)
            stored = await _changeable(mutation.caller, transaction.read, *role)
            mutation.audit(Change(before=before, after=stored))
            return stored

        return await self._mutations.run(caller, change)

    async def delete(self, caller: Caller, role_id: str, tenant_id: str) -> Propagation:
        """Remove a role; see `update` for how it is named. Raises ResourceNotFound, ResourceInUse naming a key."""

        async def change(mutation: Mutation) -> None:
            transaction = mutation.transaction
            before = await _changeable(mutation.caller, transaction.read, role_id, tenant_id)
            if key_id := await transaction.read.key_with_role(before):
                raise ResourceInUse("key", key_id)
            await transaction.delete_role(before)
            mutation.audit(Change(before=before, after=None))

        _, propagation = await self._mutations.run(caller, change)
        return propagation

    async def get(self, caller: Caller, role_id: str, tenant_id: str) -> Role:
        """A role that the tenant can use. Raises ResourceNotFound.

        tenant_id empty: the caller's own, but for administrators of `latchgate` a role for every tenant.
        """
        if tenant_id and not caller.sees_tenant(tenant_id):
            raise ResourceNotFound("role", role_id)
        found = await self._read.find_roles(tenant_id or caller.only_tenant or "", [role_id])
        if role_id not in found:
            raise ResourceNotFound("role", role_id)
        return found[role_id]

    async def list(self, caller: Caller, tenant_id: str, page: PageRequest) -> Page[Role]:
        """The roles that the tenant can use, in the order of their ids; tenant_id empty: the caller's own."""
        if tenant_id and not caller.sees_tenant(tenant_id):
            raise ResourceNotFound("tenant", tenant_id)
        tenant_id = tenant_id or caller.tenant_id
        after = self._tokens.start(caller, tenant_id, page)
        found = await self._read.list_roles(tenant_id, after, page.limit + 1)
        return self._tokens.page(caller, tenant_id, found, page.limit, lambda role: role.role_id)


async def _changeable(caller: Caller, read: Reader, role_id: str, tenant_id: str) -> Role:
    """The role, where the caller may change it. Raises ResourceNotFound, and PermissionMissing for one of all."""
    if tenant_id and not caller.sees_tenant(tenant_id):
        raise ResourceNotFound("role", role_id)
    role = (await read.find_roles(tenant_id or caller.only_tenant or "", [role_id])).get(role_id)
    if role is None or (tenant_id and role.tenant_id != tenant_id):
        raise ResourceNotFound("role", role_id)
    if not role.tenant_id:
        caller.require_root()
    return role
