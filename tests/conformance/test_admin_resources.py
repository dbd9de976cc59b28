"""Tenants, plans and roles through AdminService: what is stored and read back, what is taken, what is missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import Refusal, refusal
from tests.support.server import Admin

LIMITS = [
    key_pb2.Limit(
        name="requests", rate_limit=key_pb2.RateLimit(limit=100, period=Duration(seconds=1, nanos=500_000_000), burst=9)
    ),
    key_pb2.Limit(name="exports", quota=key_pb2.Quota(limit=5, period=key_pb2.Quota.PERIOD_MONTH)),
]
LONG_AGO = Timestamp(seconds=1)


def missing(refused: Refusal, kind: str, id_: str) -> bool:
    return (refused.code, refused.reason, refused.metadata) == (
        grpc.StatusCode.NOT_FOUND,
        "RESOURCE_NOT_FOUND",
        {"type": kind, "id": id_},
    )


def taken(refused: Refusal, kind: str, id_: str) -> bool:
    return (refused.code, refused.reason, refused.metadata) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "RESOURCE_EXISTS",
        {"type": kind, "id": id_},
    )


def is_recent(time: Timestamp) -> bool:
    return abs(time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)


# Tenants.


def test_a_tenant_is_stored_as_asked_for_switched_on_and_with_what_the_server_adds(root: Admin, house: House) -> None:
    tenant_id, plan_id = house.fresh_id("acme"), house.plan()
    asked = tenant_pb2.Tenant(
        tenant_id=tenant_id,
        display_name="Acme ✓",
        plan_id=plan_id,
        limits=LIMITS,
        tags={"region": "eu"},
        enabled=False,
        create_time=LONG_AGO,
        update_time=LONG_AGO,
        etag="mine",
    )
    created = root.CreateTenant(pb.CreateTenantRequest(tenant=asked)).tenant
    assert (created.tenant_id, created.display_name, created.plan_id) == (tenant_id, "Acme ✓", plan_id)
    assert list(created.limits) == LIMITS
    assert created.tags == {"region": "eu"}
    assert created.enabled
    assert is_recent(created.create_time)
    assert is_recent(created.update_time)
    assert created.etag not in ("", "mine")
    assert root.GetTenant(pb.GetTenantRequest(tenant_id=tenant_id)).tenant == created


def test_a_tenants_id_can_be_taken_once(root: Admin, house: House) -> None:
    tenant_id = house.tenant(display_name="first")
    request = pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id, display_name="second"))
    assert taken(refusal(lambda: root.CreateTenant(request)), "tenant", tenant_id)
    assert root.GetTenant(pb.GetTenantRequest(tenant_id=tenant_id)).tenant.display_name == "first"


def test_a_tenant_cannot_be_on_a_plan_that_does_not_exist(root: Admin, house: House) -> None:
    tenant_id = house.fresh_id("acme")
    request = pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id, plan_id="no-such-plan"))
    assert missing(refusal(lambda: root.CreateTenant(request)), "plan", "no-such-plan")
    read = pb.GetTenantRequest(tenant_id=tenant_id)
    assert missing(refusal(lambda: root.GetTenant(read)), "tenant", tenant_id)


def test_a_tenant_is_switched_off_and_on_and_twice_is_no_error(root: Admin, house: House) -> None:
    tenant_id = house.tenant()
    off = [root.DisableTenant(pb.DisableTenantRequest(tenant_id=tenant_id, reason="unpaid")) for _ in range(2)]
    assert [response.tenant.enabled for response in off] == [False, False]
    assert off[0].tenant.etag == off[1].tenant.etag, "the second time nothing was changed"
    on = [root.EnableTenant(pb.EnableTenantRequest(tenant_id=tenant_id)) for _ in range(2)]
    assert [response.tenant.enabled for response in on] == [True, True]
    assert on[0].tenant.etag == on[1].tenant.etag != off[0].tenant.etag
    revisions = [response.propagation.revision for response in (*off, *on)]
    assert revisions == sorted(revisions)


@pytest.mark.parametrize("request_", [pb.GetTenantRequest, pb.EnableTenantRequest, pb.DisableTenantRequest])
def test_a_tenant_that_does_not_exist_is_not_found(root: Admin, request_: type) -> None:
    method = getattr(root, request_.__name__.removesuffix("Request"))
    assert missing(refusal(lambda: method(request_(tenant_id="nobody"))), "tenant", "nobody")


# Plans.


def test_a_plan_is_stored_as_asked_for_and_with_what_the_server_adds(root: Admin, house: House) -> None:
    plan_id = house.fresh_id("gold.2030_")
    asked = tenant_pb2.Plan(
        plan_id=plan_id,
        display_name="Gold",
        capabilities=["export", "audit", "export"],
        key_limits=LIMITS,
        tenant_limits=LIMITS[1:],
        max_keys=7,
        create_time=LONG_AGO,
        etag="mine",
    )
    created = root.CreatePlan(pb.CreatePlanRequest(plan=asked)).plan
    assert (created.plan_id, created.display_name, created.max_keys) == (plan_id, "Gold", 7)
    assert created.capabilities == ["export", "audit"], "each once, as they came"
    assert list(created.key_limits) == LIMITS
    assert list(created.tenant_limits) == LIMITS[1:]
    assert is_recent(created.create_time)
    assert created.etag not in ("", "mine")
    assert root.GetPlan(pb.GetPlanRequest(plan_id=plan_id)).plan == created


def test_a_plans_id_can_be_taken_once(root: Admin, house: House) -> None:
    plan_id = house.plan()
    request = pb.CreatePlanRequest(plan=tenant_pb2.Plan(plan_id=plan_id))
    assert taken(refusal(lambda: root.CreatePlan(request)), "plan", plan_id)


def test_a_plan_that_does_not_exist_is_not_found(root: Admin) -> None:
    assert missing(refusal(lambda: root.GetPlan(pb.GetPlanRequest(plan_id="nothing"))), "plan", "nothing")


# Roles.


def test_a_role_is_stored_as_asked_for_and_with_what_the_server_adds(root: Admin, house: House) -> None:
    tenant_id, role_id = house.tenant(), house.fresh_id("reader")
    claims = ParseDict({"site": "berlin"}, Struct())
    asked = tenant_pb2.Role(
        role_id=role_id,
        tenant_id=tenant_id,
        display_name="Reader",
        description="May read.\nNothing else.",
        permissions=["orders.read", "stock.*", "orders.read"],
        claims=claims,
        allow_act_as=True,
        update_time=LONG_AGO,
        etag="mine",
    )
    created = root.CreateRole(pb.CreateRoleRequest(role=asked)).role
    assert (created.role_id, created.tenant_id, created.display_name) == (role_id, tenant_id, "Reader")
    assert created.description == "May read.\nNothing else."
    assert created.permissions == ["orders.read", "stock.*"], "each once, as they came"
    assert created.claims == claims
    assert created.allow_act_as
    assert is_recent(created.update_time)
    assert created.etag not in ("", "mine")
    assert root.GetRole(pb.GetRoleRequest(role_id=role_id, tenant_id=tenant_id)).role == created


def test_roles_of_different_tenants_may_have_the_same_id(root: Admin, house: House) -> None:
    first, second = house.tenant(), house.tenant()
    house.role(first, role_id="clerk", permissions=["first"])
    house.role(second, role_id="clerk", permissions=["second"])
    for tenant_id, permission in ((first, "first"), (second, "second")):
        role = root.GetRole(pb.GetRoleRequest(role_id="clerk", tenant_id=tenant_id)).role
        assert (role.tenant_id, role.permissions) == (tenant_id, [permission])


def test_a_role_never_stands_beside_one_of_its_id_in_a_tenants_sight(root: Admin, house: House) -> None:
    tenant_id = house.tenant()
    shared, own = house.role(), house.role(tenant_id)
    for role_id, of_tenant in ((shared, ""), (shared, tenant_id), (own, tenant_id), (own, "")):
        request = pb.CreateRoleRequest(role=tenant_pb2.Role(role_id=role_id, tenant_id=of_tenant))
        assert taken(refusal(root.CreateRole, request), "role", role_id)


def test_a_role_of_a_tenant_that_does_not_exist_is_not_created(root: Admin, house: House) -> None:
    request = pb.CreateRoleRequest(role=tenant_pb2.Role(role_id=house.fresh_id("role"), tenant_id="nobody"))
    assert missing(refusal(lambda: root.CreateRole(request)), "tenant", "nobody")


def test_an_administrator_of_a_tenant_creates_roles_for_that_tenant_named_or_not(house: House) -> None:
    tenant_id = house.tenant()
    admin = house.admin(tenant_id, "latchgate.roles.*")
    for named in ("", tenant_id):
        role = tenant_pb2.Role(role_id=house.fresh_id("role"), tenant_id=named)
        assert admin.CreateRole(pb.CreateRoleRequest(role=role)).role.tenant_id == tenant_id


def test_a_role_without_a_tenant_is_the_callers_own_or_one_for_every_tenant(house: House) -> None:
    tenant_id = house.tenant()
    own, shared = house.role(tenant_id), house.role()
    admin = house.admin(tenant_id, "latchgate.roles.*")
    assert admin.GetRole(pb.GetRoleRequest(role_id=own)).role.tenant_id == tenant_id
    assert admin.GetRole(pb.GetRoleRequest(role_id=shared)).role.tenant_id == ""


def test_for_administrators_of_the_root_tenant_a_role_without_a_tenant_is_one_for_every_tenant(
    root: Admin, house: House
) -> None:
    shared, of_root, of_other = house.role(), house.role(ROOT_TENANT), house.role(house.tenant())
    assert root.GetRole(pb.GetRoleRequest(role_id=shared)).role.role_id == shared
    for role_id in (of_root, of_other):
        refused = refusal(root.GetRole, pb.GetRoleRequest(role_id=role_id))
        assert missing(refused, "role", role_id)
    assert root.GetRole(pb.GetRoleRequest(role_id=of_root, tenant_id=ROOT_TENANT)).role.role_id == of_root


def test_a_role_that_does_not_exist_is_not_found(root: Admin, house: House) -> None:
    for tenant_id in ("", house.tenant()):
        request = pb.GetRoleRequest(role_id="nothing", tenant_id=tenant_id)
        assert missing(refusal(root.GetRole, request), "role", "nothing")
