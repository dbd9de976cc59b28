"""Use cases of plans. Those that change one belong to administrators of the tenant `latchgate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from latchgate_server.admin.access import Caller
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.admin.paging import Page, PageRequest, PageTokens
from latchgate_server.core.errors import EtagMismatch, ResourceExists, ResourceInUse, ResourceNotFound
from latchgate_server.core.model import Plan
from latchgate_server.core.ports import Reader


class Plans:
    """Plans: what tenants have bought."""

    def __init__(self, read: Reader, mutations: Mutations, tokens: PageTokens) -> None:
        self._read = read
        self._mutations = mutations
        self._tokens = tokens

    async def create(self, caller: Caller, draft: Plan) -> tuple[Plan, Propagation]:
        """Create a plan. Raises ResourceExists."""
        caller.require_root()

        async def change(mutation: Mutation) -> Plan:
            transaction = mutation.transaction
            if await transaction.read.get_plan(draft.plan_id):
                raise ResourceExists("plan", draft.plan_id)
            await transaction.insert_plan(draft)
            created = await _existing(transaction.read, draft.plan_id)
            mutation.audit(Change(before=None, after=created))
            return created

        return await self._mutations.run(caller, change)

    async def update(
        self, caller: Caller, plan_id: str, changes: Mapping[str, object], etag: str
    ) -> tuple[Plan, Propagation]:
        """Give fields of the plan new values; they hold for every tenant on it at once.

        changes: by the field's name in Plan. etag: the one that the change was made on; empty: any.
        Raises ResourceNotFound, EtagMismatch.
        """
        caller.require_root()

        async def change(mutation: Mutation) -> Plan:
            transaction = mutation.transaction
            before = await _existing(transaction.read, plan_id)
            if etag and etag != before.etag:
                raise EtagMismatch("plan", plan_id)
            after = replace(before, **changes)  # type: ignore[arg-type]  # convert_admin.py made them of the fields' types
            if after == before:
                return before
            await transaction.update_plan(after)
            stored = await _existing(transaction.read, plan_id)
            mutation.audit(Change(before=before, after=stored))
            return stored

        return await self._mutations.run(caller, change)

    async def delete(self, caller: Caller, plan_id: str) -> Propagation:
        """Remove the plan. Raises ResourceNotFound, and ResourceInUse naming a tenant that is on it."""
        caller.require_root()

        async def change(mutation: Mutation) -> None:
            transaction = mutation.transaction
            before = await _existing(transaction.read, plan_id)
            if tenant_id := await transaction.read.tenant_on_plan(plan_id):
                raise ResourceInUse("tenant", tenant_id)
            await transaction.delete_plan(plan_id)
            mutation.audit(Change(before=before, after=None))

        _, propagation = await self._mutations.run(caller, change)
        return propagation

    async def get(self, caller: Caller, plan_id: str) -> Plan:
        """The plan; for an administrator of a tenant only that tenant's own. Raises ResourceNotFound."""
        if caller.only_tenant is not None:
            tenant = await self._read.get_tenant(caller.only_tenant)
            if tenant is None or tenant.plan_id != plan_id:
                raise ResourceNotFound("plan", plan_id)
        return await _existing(self._read, plan_id)

    async def list(self, caller: Caller, page: PageRequest) -> Page[Plan]:
        """The plans that the caller sees, in the order of their ids."""
        after = self._tokens.start(caller, "", page)
        found = await self._read.list_plans(after, caller.only_tenant, page.limit + 1)
        return self._tokens.page(caller, "", found, page.limit, lambda plan: plan.plan_id)


async def _existing(read: Reader, plan_id: str) -> Plan:
    plan = await read.get_plan(plan_id)
    if plan is None:
        raise ResourceNotFound("plan", plan_id)
    return plan


async def plan_of_tenant(read: Reader, tenant_id: str) -> Plan | None:
    """The plan that the tenant is on, or None. Raises ResourceNotFound for the tenant."""
    tenant = await read.get_tenant(tenant_id)
    if tenant is None:
        raise ResourceNotFound("tenant", tenant_id)
    return await read.get_plan(tenant.plan_id) if tenant.plan_id else None
