"""Setting a limit back: what has been used of it counts no more, or counts as this much."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from latchgate_server.admin.access import Caller, require_visible
from latchgate_server.admin.audit import Change
from latchgate_server.admin.barrier import Propagation
from latchgate_server.admin.mutations import Mutation, Mutations
from latchgate_server.admin.plans import plan_of_tenant
from latchgate_server.core.charging import (
    HeldLimit,
    Holder,
    LimitReset,
    LimitStatus,
    Reset,
    limits_of_key,
    limits_of_tenant,
    rate_of,
    seconds_to_end,
)
from latchgate_server.core.errors import EscalationRefused, InvalidRequest, ResourceNotFound
from latchgate_server.core.model import Limit, RateLimit
from latchgate_server.core.ports import Reader


@dataclass(frozen=True, slots=True)
class _Target:
    """Whose limit it is. holder_id: a lineage id or tenant id. resource_id: as the administrator named it."""

    holder: Holder
    holder_id: str
    resource_id: str
    tenant_id: str
    limit: Limit


_Find = Callable[[Reader, Caller], Awaitable[_Target]]


class LimitResets:
    """Sets limits back."""

    def __init__(self, mutations: Mutations) -> None:
        self._mutations = mutations

    async def reset_keys(
        self, caller: Caller, key_id: str, name: str, remaining: int | None, reason: str
    ) -> tuple[LimitStatus, Propagation]:
        """Set back a limit of a key's lineage. remaining: what is to be left; None: all of it.

        Raises ResourceNotFound for the key or the limit, InvalidRequest where less than `remaining` is the whole, and
        EscalationRefused for a limit that the plan gives, unless the caller administers every tenant.
        """

        async def find(read: Reader, admitted: Caller) -> _Target:
            key = require_visible(await read.get_key(key_id), key_id, admitted)
            plan = await plan_of_tenant(read, key.tenant_id)
            limit = limits_of_key(key, plan).get(name)
            if limit is None:
                raise ResourceNotFound("limit", name)
            if plan and name in {of_plan.name for of_plan in plan.key_limits} and not admitted.is_root:
                raise EscalationRefused(f"limits.{name}")
            return _Target(Holder.KEY, key.lineage_id, key_id, key.tenant_id, limit)

        return await self._reset(caller, find, remaining, reason)

    async def reset_tenants(
        self, caller: Caller, tenant_id: str, name: str, remaining: int | None, reason: str
    ) -> tuple[LimitStatus, Propagation]:
        """Set back a limit of a tenant; only for administrators of every tenant. As `reset_keys`."""
        if not caller.sees_tenant(tenant_id):
            raise ResourceNotFound("tenant", tenant_id)
        caller.require_root()

        async def find(read: Reader, _admitted: Caller) -> _Target:
            tenant = await read.get_tenant(tenant_id)
            if tenant is None:
                raise ResourceNotFound("tenant", tenant_id)
            limit = limits_of_tenant(tenant, await plan_of_tenant(read, tenant_id)).get(name)
            if limit is None:
                raise ResourceNotFound("limit", name)
            return _Target(Holder.TENANT, tenant_id, tenant_id, tenant_id, limit)

        return await self._reset(caller, find, remaining, reason)

    async def _reset(
        self, caller: Caller, find: _Find, remaining: int | None, reason: str
    ) -> tuple[LimitStatus, Propagation]:
        async def change(mutation: Mutation) -> LimitStatus:
            transaction = mutation.transaction
            target = await find(transaction.read, mutation.caller)
            held = HeldLimit(target.holder, target.holder_id, target.tenant_id, target.limit)
            left = held.whole if remaining is None else remaining
            if left > held.whole:
                raise InvalidRequest.of("remaining", f"at most {held.whole}, which is the whole of {held.limit.name}")
            now = transaction.time.timestamp()
            reset = Reset(transaction.revision, held.whole - left, now)
            await transaction.set_limit(held, reset.spent)
            set_back = LimitReset(target.holder, target.resource_id, target.tenant_id, held.limit.name, left)
            mutation.audit(Change(before=None, after=set_back, reason=reason))
            return LimitStatus(held, left, _reset_after(held.limit, reset.spent, now))

        return await self._mutations.run(caller, change)


def _reset_after(limit: Limit, spent: int, now: float) -> float | None:
    if isinstance(limit, RateLimit):
        return spent * rate_of(limit).interval
    return seconds_to_end(limit.period, now)
