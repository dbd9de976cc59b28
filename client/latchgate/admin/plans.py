"""Plans: what tenants have bought."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from latchgate.admin.calls import PAGE_SIZE, Call, Listing, changes, reads
from latchgate.admin.fields import fill, mask_of, put_plain, put_texts, time_from
from latchgate.admin.values import Limit, Propagation, limits_from, propagation_from, put_limits
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import tenant_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan as it was when it was read. key_limits, tenant_limits: of every key, of every tenant. max_keys: 0: any."""

    plan_id: str
    display_name: str
    capabilities: tuple[str, ...]
    key_limits: tuple[Limit, ...]
    tenant_limits: tuple[Limit, ...]
    max_keys: int
    create_time: datetime
    update_time: datetime
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChanged:
    """A plan after a change."""

    plan: Plan
    propagation: Propagation


class PlanFields(TypedDict, total=False):
    """What can be chosen about a plan. In an update, what is left out stays; empty, or 0, clears."""

    display_name: str
    capabilities: Iterable[str]
    key_limits: Iterable[Limit]
    tenant_limits: Iterable[Limit]
    max_keys: int


def create_plan(plan_id: str, **chosen: Unpack[PlanFields]) -> Call[PlanChanged]:
    """Make a plan. chosen: see PlanFields. Raises AlreadyExists."""
    plan = tenant_pb2.Plan(plan_id=plan_id)
    fill(plan, _FIELDS, chosen)
    return changes("CreatePlan", pb.CreatePlanRequest(plan=plan), _plan_changed_from, repeatable=False)


def get_plan(plan_id: str) -> Call[Plan]:
    """Read a plan."""
    return reads("GetPlan", pb.GetPlanRequest(plan_id=plan_id), lambda response: _plan_from(response.plan))


def list_plans(*, page_size: int = PAGE_SIZE) -> Listing[Plan]:
    """All plans."""
    request = pb.ListPlansRequest(page_size=page_size)
    return Listing(rpc="ListPlans", request=request, entries=lambda response: map(_plan_from, response.plans))


def update_plan(plan_id: str, *, etag: str = "", **chosen: Unpack[PlanFields]) -> Call[PlanChanged]:
    """Change what is given of a plan, for every tenant on it.

    etag: only if it still has this one; else Conflict. chosen: see PlanFields.
    """
    plan = tenant_pb2.Plan(plan_id=plan_id, etag=etag)
    request = pb.UpdatePlanRequest(update_mask=mask_of(fill(plan, _FIELDS, chosen)), plan=plan)
    return changes("UpdatePlan", request, _plan_changed_from, repeatable=not etag)


def delete_plan(plan_id: str) -> Call[Propagation]:
    """Delete a plan. Raises PreconditionFailed while a tenant is on it."""
    return changes("DeletePlan", pb.DeletePlanRequest(plan_id=plan_id), propagation_from, repeatable=False)


def _plan_from(message: tenant_pb2.Plan) -> Plan:
    return Plan(
        plan_id=message.plan_id,
        display_name=message.display_name,
        capabilities=tuple(message.capabilities),
        key_limits=limits_from(message.key_limits),
        tenant_limits=limits_from(message.tenant_limits),
        max_keys=message.max_keys,
        create_time=time_from(message.create_time),
        update_time=time_from(message.update_time),
        etag=message.etag,
    )


def _plan_changed_from(response: Any) -> PlanChanged:
    return PlanChanged(plan=_plan_from(response.plan), propagation=propagation_from(response))


_FIELDS = {
    "display_name": ("display_name", put_plain),
    "capabilities": ("capabilities", put_texts),
    "key_limits": ("key_limits", put_limits),
    "tenant_limits": ("tenant_limits", put_limits),
    "max_keys": ("max_keys", put_plain),
}
