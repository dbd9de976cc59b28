"""What an administrator can find out: why a key is denied, and who changed what."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import audit_pb2, decision_pb2, key_pb2, tenant_pb2, verify_service_pb2
from tests.conformance.wire import refusal
from tests.support.server import Admin, ServerProcess, Verify


@pytest.fixture
def tenant_id(root: Admin, fresh_id: Callable[[str], str]) -> str:
    """A tenant of the test's own."""
    tenant_id = fresh_id("insight")
    root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id)))
    return tenant_id


def make(root: Admin, **fields: object) -> pb.CreateKeyResponse:
    made: pb.CreateKeyResponse = root.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(**fields)))  # type: ignore[arg-type]  # its fields
    return made


def test_an_explanation_tells_every_check_and_agrees_with_verify(root: Admin, verify: Verify, tenant_id: str) -> None:
    allowlist = key_pb2.IpAllowlist(enabled=True, ranges=["10.0.0.0/8"])
    made = make(root, tenant_id=tenant_id, permissions=["orders.read"], ip_allowlist=allowlist)
    asked = {"client_ip": "203.0.113.9", "required_permissions": "orders.write OR (a AND NOT b)"}
    request = pb.ExplainKeyRequest(key_id=made.key.key_id, request=verify_service_pb2.VerifyRequest(**asked))  # type: ignore[arg-type]  # its fields
    told = root.ExplainKey(request)

    assert told.denial_reason == verify(made.key_string, **asked).denial_reason
    assert told.denial_reason == decision_pb2.DENIAL_REASON_IP_NOT_AUTHORIZED
    assert [check.denial_reason for check in told.checks] == list(range(5, 17))
    failed = {check.denial_reason: check.detail for check in told.checks if not check.passed}
    assert failed == {
        decision_pb2.DENIAL_REASON_IP_NOT_AUTHORIZED: "203.0.113.9 is in none of 10.0.0.0/8.",
        decision_pb2.DENIAL_REASON_INSUFFICIENT_PERMISSIONS: (
            "orders.write OR (a AND NOT b) was asked for; the key holds orders.read."
        ),
    }


def test_a_key_that_would_be_allowed_is_explained_as_allowed(root: Admin, tenant_id: str) -> None:
    made = make(root, tenant_id=tenant_id)
    told = root.ExplainKey(pb.ExplainKeyRequest(key_id=made.key.key_id))
    assert told.decision == decision_pb2.DECISION_ALLOW
    assert all(check.passed and check.detail for check in told.checks)


def events(admin: Admin, **fields: object) -> list[audit_pb2.AuditEvent]:
    return list(admin.ListAuditEvents(pb.ListAuditEventsRequest(**fields)).events)  # type: ignore[arg-type]  # its fields


def test_every_change_is_told_with_who_what_before_and_after(root: Admin, root_key: str, tenant_id: str) -> None:
    made = make(root, tenant_id=tenant_id, display_name="till")
    root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id, reason="lost"))
    root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id, reason="nothing changes any more"))
    disabled, created = events(root, target_id=made.key.key_id)

    assert (created.method, disabled.method) == ("CreateKey", "DisableKey")
    assert disabled.sequence > created.sequence
    assert disabled.actor == root_key.partition(".")[0]
    assert (disabled.tenant_id, disabled.target_type, disabled.reason) == (tenant_id, "key", "lost")
    assert dict(disabled.before) == {"state": "ACTIVE"}
    assert dict(disabled.after) == {"state": "DISABLED"}
    assert created.after["display_name"] == "till"
    assert len(created.hash) == 32


def test_administrators_of_a_tenant_see_its_events_alone(root: Admin, server: ServerProcess, tenant_id: str) -> None:
    auditor = make(root, tenant_id=tenant_id, permissions=["latchgate.audit.list"])
    admin = Admin(server.admin_address, auditor.key_string)
    assert {event.tenant_id for event in events(admin)} == {tenant_id}
    assert events(admin, tenant_id="latchgate") == []
    assert events(admin, target_id="latchgate") == []
    admin.close()


def test_events_are_paged_newest_first(root: Admin, tenant_id: str) -> None:
    for _ in range(4):
        make(root, tenant_id=tenant_id)
    whole = events(root, tenant_id=tenant_id, page_size=1_000)
    paged, token = [], ""
    while True:
        page = root.ListAuditEvents(pb.ListAuditEventsRequest(tenant_id=tenant_id, page_size=2, page_token=token))
        paged += page.events
        token = page.next_page_token
        if not token:
            break
    assert paged == whole
    assert [event.sequence for event in whole] == sorted((event.sequence for event in whole), reverse=True)


def test_what_is_malformed_is_named(root: Admin) -> None:
    assert refusal(lambda: events(root, tenant_id="A")).fields == ("tenant_id",)
    assert refusal(lambda: events(root, page_token="x")).fields == ("page_token",)
