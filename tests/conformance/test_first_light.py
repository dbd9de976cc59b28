"""The path of one key, from its making to its denial, through the network."""

from __future__ import annotations

from collections.abc import Callable

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, tenant_pb2
from tests.support.server import Admin, Verify

TRANSPORTS = ("auto", "tls")


def test_a_key_is_made_verified_disabled_and_then_denied(
    root: Admin, verify: Verify, fresh_id: Callable[[str], str]
) -> None:
    tenant_id = fresh_id("acme")
    root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id)))
    role = tenant_pb2.Role(role_id="reader", tenant_id=tenant_id, permissions=["orders.*"])
    root.CreateRole(pb.CreateRoleRequest(role=role))
    made = root.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id, role_ids=["reader"])))

    allowed = verify(made.key_string, required_permissions="orders.read")
    assert allowed.decision == decision_pb2.DECISION_ALLOW
    assert allowed.identity.permissions == ["orders.*"]

    root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id, reason="left the company"))
    denied = verify(made.key_string, required_permissions="orders.read")
    assert denied.decision == decision_pb2.DECISION_DENY
    assert denied.denial_reason == decision_pb2.DENIAL_REASON_API_KEY_DISABLED
