"""The hour in which something leaks: revoking in bulk, and reports of secret scanners."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, tenant_pb2
from latchgate_server.core import bounds
from tests.conformance.wire import refusal
from tests.support.server import Admin, ServerProcess, Verify

ALLOW, REVOKED, DISABLED = (
    decision_pb2.DENIAL_REASON_UNSPECIFIED,
    decision_pb2.DENIAL_REASON_API_KEY_REVOKED,
    decision_pb2.DENIAL_REASON_API_KEY_DISABLED,
)


@pytest.fixture
def tenant_id(root: Admin, fresh_id: Callable[[str], str]) -> str:
    """A tenant of the test's own."""
    tenant_id = fresh_id("leaky")
    root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id)))
    return tenant_id


def make(root: Admin, tenant_id: str, owner: str = "", *permissions: str) -> pb.CreateKeyResponse:
    key = key_pb2.Key(tenant_id=tenant_id, owner=owner, permissions=permissions)
    made: pb.CreateKeyResponse = root.CreateKey(pb.CreateKeyRequest(key=key))
    return made


def revoke_all(admin: Admin, *, dry_run: bool = False, **fields: str) -> pb.BatchRevokeKeysResponse:
    request = pb.BatchRevokeKeysRequest(filter=pb.KeyFilter(**fields), reason="leaked", dry_run=dry_run)  # type: ignore[arg-type]  # its fields
    response: pb.BatchRevokeKeysResponse = admin.BatchRevokeKeys(request)
    return response


def test_every_key_that_matches_is_revoked_and_no_other(root: Admin, verify: Verify, tenant_id: str) -> None:
    mallory = [make(root, tenant_id, "mallory") for _ in range(3)]
    ada = make(root, tenant_id, "ada")
    assert all(verify(key.key_string).denial_reason == ALLOW for key in [*mallory, ada])
    assert revoke_all(root, tenant_id=tenant_id, owner="mallory").revoked == 3
    assert all(verify(key.key_string).denial_reason == REVOKED for key in mallory)
    assert verify(ada.key_string).denial_reason == ALLOW


def test_a_dry_run_only_counts_and_a_second_run_finds_nothing(root: Admin, verify: Verify, tenant_id: str) -> None:
    key = make(root, tenant_id)
    dry = revoke_all(root, tenant_id=tenant_id, dry_run=True)
    assert (dry.revoked, dry.HasField("propagation")) == (1, False)
    assert verify(key.key_string).denial_reason == ALLOW
    assert revoke_all(root, tenant_id=tenant_id).revoked == 1
    again = revoke_all(root, tenant_id=tenant_id)
    assert (again.revoked, again.HasField("propagation")) == (0, True)


def test_without_any_filter_nothing_is_revoked(root: Admin) -> None:
    assert refusal(lambda: revoke_all(root)).fields == ("filter",)


def test_an_administrator_of_a_tenant_revokes_there_alone_and_its_own_key_last(
    root: Admin, server: ServerProcess, verify: Verify, tenant_id: str
) -> None:
    own = make(root, tenant_id, "boss", "latchgate.keys.batch_revoke")
    others = [make(root, tenant_id) for _ in range(2)]
    admin = Admin(server.admin_address, own.key_string)
    assert revoke_all(admin, tenant_id="latchgate").revoked == 0
    states = pb.KeyFilter(states=[key_pb2.Key.STATE_ACTIVE])
    assert admin.BatchRevokeKeys(pb.BatchRevokeKeysRequest(filter=states)).revoked == 3
    assert all(verify(key.key_string).denial_reason == REVOKED for key in [own, *others])
    admin.close()


def test_a_leaked_key_is_disabled_where_the_secret_is_genuine(root: Admin, verify: Verify, tenant_id: str) -> None:
    leaked, other = make(root, tenant_id), make(root, tenant_id)
    forged = f"{other.key.key_id}.{leaked.key_string.partition('.')[2]}"
    found = ["garbage", leaked.key_string, other.key.key_id, forged, other.key_string[:-1]]
    report = pb.ReportLeakedKeysRequest(key_strings=found, source="a public repository")
    assert root.ReportLeakedKeys(report).disabled_key_ids == ["", leaked.key.key_id, "", "", ""]
    assert verify(leaked.key_string).denial_reason == DISABLED
    assert verify(other.key_string).denial_reason == ALLOW


def test_keys_of_other_tenants_are_reported_in_vain(
    root: Admin, server: ServerProcess, verify: Verify, tenant_id: str, fresh_id: Callable[[str], str]
) -> None:
    elsewhere = fresh_id("elsewhere")
    root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=elsewhere)))
    leaked = make(root, elsewhere)
    admin = Admin(server.admin_address, make(root, tenant_id, "", "latchgate.keys.report_leaked").key_string)
    report = pb.ReportLeakedKeysRequest(key_strings=[leaked.key_string])
    assert admin.ReportLeakedKeys(report).disabled_key_ids == [""]
    assert verify(leaked.key_string).denial_reason == ALLOW
    admin.close()


@pytest.mark.parametrize("count", [0, bounds.LEAKED_KEYS + 1])
def test_a_report_is_bounded(root: Admin, count: int) -> None:
    report = pb.ReportLeakedKeysRequest(key_strings=["x"] * count)
    assert refusal(lambda: root.ReportLeakedKeys(report)).fields == ("key_strings",)
    full = pb.ReportLeakedKeysRequest(key_strings=["x"] * bounds.LEAKED_KEYS)
    assert len(root.ReportLeakedKeys(full).disabled_key_ids) == bounds.LEAKED_KEYS
