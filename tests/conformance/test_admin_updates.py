"""Updating and deleting tenants, plans and roles, and what holds on to what."""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, tenant_pb2
from tests.conformance.wire import refusal
from tests.support.server import Admin, ServerProcess, Verify


@pytest.fixture
def tenant_id(root: Admin, fresh_id: Callable[[str], str]) -> str:
    """A tenant of the test's own."""
    tenant_id = fresh_id("changing")
    root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id, display_name="Old")))
    return tenant_id


@pytest.fixture
def plan_id(root: Admin, fresh_id: Callable[[str], str]) -> str:
    """A plan of the test's own."""
    plan_id = fresh_id("plan")
    root.CreatePlan(pb.CreatePlanRequest(plan=tenant_pb2.Plan(plan_id=plan_id, capabilities=["export"])))
    return plan_id


def make_key(root: Admin, tenant_id: str, **fields: object) -> pb.CreateKeyResponse:
    key = key_pb2.Key(tenant_id=tenant_id, **fields)  # type: ignore[arg-type]  # fields of Key
    made: pb.CreateKeyResponse = root.CreateKey(pb.CreateKeyRequest(key=key))
    return made


def update_tenant(admin: Admin, *paths: str, **fields: object) -> tenant_pb2.Tenant:
    mask = FieldMask(paths=paths) if paths else None
    request = pb.UpdateTenantRequest(tenant=tenant_pb2.Tenant(**fields), update_mask=mask)  # type: ignore[arg-type]  # its fields
    updated: tenant_pb2.Tenant = admin.UpdateTenant(request).tenant
    return updated


def test_a_plan_given_to_a_tenant_holds_for_its_keys_at_once(
    root: Admin, verify: Verify, tenant_id: str, plan_id: str
) -> None:
    key = make_key(root, tenant_id)
    asked = {"required_capability": "export"}
    assert verify(key.key_string, **asked).denial_reason == decision_pb2.DENIAL_REASON_CAPABILITY_NOT_IN_PLAN
    update_tenant(root, tenant_id=tenant_id, plan_id=plan_id)
    assert verify(key.key_string, **asked).decision == decision_pb2.DECISION_ALLOW
    plan = tenant_pb2.Plan(plan_id=plan_id, capabilities=["import"])
    root.UpdatePlan(pb.UpdatePlanRequest(plan=plan))
    assert verify(key.key_string, **asked).denial_reason == decision_pb2.DENIAL_REASON_CAPABILITY_NOT_IN_PLAN


def test_a_field_in_the_mask_that_is_not_set_is_cleared(root: Admin, tenant_id: str) -> None:
    assert update_tenant(root, "tags", tenant_id=tenant_id, tags={"a": "b"}).display_name == "Old"
    cleared = update_tenant(root, "display_name", tenant_id=tenant_id)
    assert (cleared.display_name, dict(cleared.tags)) == ("", {"a": "b"})


def test_an_outdated_etag_stops_the_change(root: Admin, tenant_id: str) -> None:
    first = update_tenant(root, tenant_id=tenant_id, display_name="One")
    update_tenant(root, tenant_id=tenant_id, display_name="Two", etag=first.etag)
    refused = refusal(lambda: update_tenant(root, tenant_id=tenant_id, display_name="Three", etag=first.etag))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


def test_a_tenants_administrator_names_it_but_does_not_choose_its_plan(
    root: Admin, server: ServerProcess, tenant_id: str, plan_id: str
) -> None:
    key = make_key(root, tenant_id, permissions=["latchgate.tenants.*"])
    admin = Admin(server.admin_address, key.key_string)
    assert update_tenant(admin, tenant_id=tenant_id, display_name="New").display_name == "New"
    refused = refusal(lambda: update_tenant(admin, tenant_id=tenant_id, plan_id=plan_id))
    assert refused.reason == "PERMISSION_MISSING"
    assert refusal(lambda: update_tenant(admin, tenant_id="latchgate", display_name="x")).reason == "RESOURCE_NOT_FOUND"
    assert refusal(lambda: admin.DeleteTenant(pb.DeleteTenantRequest(tenant_id=tenant_id))).reason == (
        "PERMISSION_MISSING"
    )
    admin.close()


def test_deleting_a_tenant_deletes_its_keys_and_roles(root: Admin, verify: Verify, tenant_id: str) -> None:
    role = tenant_pb2.Role(role_id="reader", tenant_id=tenant_id)
    root.CreateRole(pb.CreateRoleRequest(role=role))
    key = make_key(root, tenant_id, role_ids=["reader"])
    assert verify(key.key_string).decision == decision_pb2.DECISION_ALLOW
    root.DeleteTenant(pb.DeleteTenantRequest(tenant_id=tenant_id, reason="left"))
    assert verify(key.key_string).denial_reason == decision_pb2.DENIAL_REASON_INVALID_API_KEY
    gone = refusal(lambda: root.GetTenant(pb.GetTenantRequest(tenant_id=tenant_id)))
    assert gone.reason == "RESOURCE_NOT_FOUND"


def test_the_administrators_tenant_cannot_be_deleted(root: Admin) -> None:
    refused = refusal(lambda: root.DeleteTenant(pb.DeleteTenantRequest(tenant_id="latchgate")))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "RESOURCE_IN_USE")


def test_a_plan_in_use_stays_and_the_refusal_names_a_tenant(root: Admin, tenant_id: str, plan_id: str) -> None:
    update_tenant(root, tenant_id=tenant_id, plan_id=plan_id)
    refused = refusal(lambda: root.DeletePlan(pb.DeletePlanRequest(plan_id=plan_id)))
    assert (refused.reason, refused.metadata) == ("RESOURCE_IN_USE", {"type": "tenant", "id": tenant_id})
    update_tenant(root, "plan_id", tenant_id=tenant_id)
    root.DeletePlan(pb.DeletePlanRequest(plan_id=plan_id))
    assert refusal(lambda: root.GetPlan(pb.GetPlanRequest(plan_id=plan_id))).reason == "RESOURCE_NOT_FOUND"


def test_a_role_in_use_stays_and_the_refusal_names_a_key(root: Admin, tenant_id: str) -> None:
    root.CreateRole(pb.CreateRoleRequest(role=tenant_pb2.Role(role_id="reader", tenant_id=tenant_id)))
    key = make_key(root, tenant_id, role_ids=["reader"])
    delete = pb.DeleteRoleRequest(role_id="reader", tenant_id=tenant_id)
    refused = refusal(lambda: root.DeleteRole(delete))
    assert (refused.reason, refused.metadata) == ("RESOURCE_IN_USE", {"type": "key", "id": key.key.key_id})
    root.DeleteKey(pb.DeleteKeyRequest(key_id=key.key.key_id))
    root.DeleteRole(delete)
    assert refusal(lambda: root.DeleteRole(delete)).reason == "RESOURCE_NOT_FOUND"


def test_a_changed_role_holds_for_its_keys_at_once(root: Admin, verify: Verify, tenant_id: str) -> None:
    role = tenant_pb2.Role(role_id="reader", tenant_id=tenant_id, permissions=["orders.read"])
    root.CreateRole(pb.CreateRoleRequest(role=role))
    key = make_key(root, tenant_id, role_ids=["reader"])
    asked = {"required_permissions": "orders.read"}
    assert verify(key.key_string, **asked).decision == decision_pb2.DECISION_ALLOW
    role.permissions[:] = ["lines.read"]
    root.UpdateRole(pb.UpdateRoleRequest(role=role))
    assert verify(key.key_string, **asked).denial_reason == decision_pb2.DENIAL_REASON_INSUFFICIENT_PERMISSIONS


def test_an_administrator_widens_no_role_beyond_what_it_holds_and_changes_no_shared_one(
    root: Admin, server: ServerProcess, tenant_id: str, fresh_id: Callable[[str], str]
) -> None:
    shared = fresh_id("shared")
    root.CreateRole(pb.CreateRoleRequest(role=tenant_pb2.Role(role_id=shared)))
    own = tenant_pb2.Role(role_id="own", tenant_id=tenant_id, permissions=["orders.*"])
    root.CreateRole(pb.CreateRoleRequest(role=own))
    admin = Admin(
        server.admin_address, make_key(root, tenant_id, permissions=["latchgate.roles.*", "lines.read"]).key_string
    )
    own.permissions[:] = ["orders.*", "lines.read"]
    admin.UpdateRole(pb.UpdateRoleRequest(role=own))
    own.permissions.append("lines.write")
    assert refusal(lambda: admin.UpdateRole(pb.UpdateRoleRequest(role=own))).reason == "ESCALATION_REFUSED"
    changed = tenant_pb2.Role(role_id=shared, display_name="mine")
    assert refusal(lambda: admin.UpdateRole(pb.UpdateRoleRequest(role=changed))).reason == "PERMISSION_MISSING"
    assert refusal(lambda: admin.DeleteRole(pb.DeleteRoleRequest(role_id=shared))).reason == "PERMISSION_MISSING"
    admin.close()
