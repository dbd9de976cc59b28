"""RotateKey: a successor alike in all but the secret, and a while in which both keys live."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, tenant_pb2
from latchgate_server.core import bounds
from tests.conformance.wire import refusal
from tests.support.server import Admin, ServerProcess, Verify

DAY = 86_400


@pytest.fixture(scope="module")
def tenant_id(root: Admin, fresh_id: Callable[[str], str]) -> str:
    """A tenant with a role."""
    tenant_id = fresh_id("rotation")
    root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id)))
    role = tenant_pb2.Role(role_id="reader", tenant_id=tenant_id, permissions=["orders.read"])
    root.CreateRole(pb.CreateRoleRequest(role=role))
    return tenant_id


def make(root: Admin, tenant_id: str, **fields: object) -> pb.CreateKeyResponse:
    key = key_pb2.Key(tenant_id=tenant_id, role_ids=["reader"], **fields)  # type: ignore[arg-type]  # fields of Key
    made: pb.CreateKeyResponse = root.CreateKey(pb.CreateKeyRequest(key=key, prefix="acme_live"))
    return made


def rotate(admin: Admin, key_id: str, grace: int = 60, **fields: object) -> pb.RotateKeyResponse:
    request = pb.RotateKeyRequest(key_id=key_id, grace_period=Duration(seconds=grace), **fields)  # type: ignore[arg-type]  # its fields
    rotated: pb.RotateKeyResponse = admin.RotateKey(request)
    return rotated


def test_a_successor_is_alike_in_all_but_the_secret(root: Admin, verify: Verify, tenant_id: str) -> None:
    fields = {"owner": "ada", "permissions": ["lines.read"], "resources": ["sites/berlin/*"], "tags": {"env": "test"}}
    made = make(root, tenant_id, **fields)
    rotated = rotate(root, made.key.key_id)

    assert rotated.key.key_id.startswith("acme_live_")
    assert rotated.key.key_id != made.key.key_id
    assert rotated.key.predecessor_key_id == made.key.key_id
    assert rotated.predecessor.successor_key_id == rotated.key.key_id
    own = verify(made.key_string).identity
    new = verify(rotated.key_string).identity
    own.key_id = new.key_id
    own.ClearField("expire_time")
    assert new == own


def test_both_keys_live_for_the_grace_period(root: Admin, verify: Verify, tenant_id: str) -> None:
    made = make(root, tenant_id)
    rotated = rotate(root, made.key.key_id, grace=1)
    end = rotated.predecessor.expire_time.ToNanoseconds() / 1e9
    assert end == pytest.approx(rotated.key.create_time.ToNanoseconds() / 1e9 + 1, abs=0.5)
    decision = verify(made.key_string).decision
    assert decision == decision_pb2.DECISION_ALLOW or time.time() > end
    assert verify(rotated.key_string).decision == decision_pb2.DECISION_ALLOW
    time.sleep(max(0.0, end - time.time()) + 0.01)
    assert verify(made.key_string).denial_reason == decision_pb2.DENIAL_REASON_API_KEY_EXPIRED
    assert verify(rotated.key_string).decision == decision_pb2.DECISION_ALLOW


def test_without_grace_the_old_key_is_revoked_at_once(root: Admin, verify: Verify, tenant_id: str) -> None:
    made = make(root, tenant_id)
    rotated = rotate(root, made.key.key_id, grace=0)
    assert rotated.predecessor.state == key_pb2.Key.STATE_REVOKED
    assert verify(made.key_string).denial_reason == decision_pb2.DENIAL_REASON_API_KEY_REVOKED


def test_the_old_key_never_lives_longer_by_a_rotation(root: Admin, tenant_id: str) -> None:
    made = make(root, tenant_id, expire_time={"seconds": int(time.time()) + 100})
    rotated = rotate(root, made.key.key_id, grace=DAY)
    assert rotated.predecessor.expire_time == made.key.expire_time


def test_the_successor_lives_as_long_as_the_old_key_was_meant_to(root: Admin, tenant_id: str) -> None:
    made = make(root, tenant_id, expire_time={"seconds": int(time.time()) + 30 * DAY})
    rotated = rotate(root, made.key.key_id)
    meant = made.key.expire_time.ToDatetime() - made.key.create_time.ToDatetime()
    lives = rotated.key.expire_time.ToDatetime() - rotated.key.create_time.ToDatetime()
    assert abs((lives - meant).total_seconds()) < 1
    assert not rotate(root, make(root, tenant_id).key.key_id).key.HasField("expire_time")


def test_a_repeated_request_creates_nothing_and_tells_no_secret(root: Admin, tenant_id: str) -> None:
    made, request_id = make(root, tenant_id), str(uuid.uuid4())
    first = rotate(root, made.key.key_id, request_id=request_id)
    second = rotate(root, made.key.key_id, request_id=request_id)
    assert second.key.key_id == first.key.key_id
    assert first.key_string
    assert not second.key_string


def test_a_chain_of_rotations_goes_on_from_its_end(root: Admin, tenant_id: str) -> None:
    made = make(root, tenant_id)
    second = rotate(root, made.key.key_id)
    third = rotate(root, second.key.key_id)
    assert third.key.predecessor_key_id == second.key.key_id
    refused = refusal(lambda: rotate(root, made.key.key_id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")


@pytest.mark.parametrize("off", ["DisableKey", "ExpireKey", "RevokeKey"])
def test_only_a_key_in_use_can_be_rotated(root: Admin, tenant_id: str, off: str) -> None:
    made = make(root, tenant_id)
    getattr(root, off)(getattr(pb, f"{off}Request")(key_id=made.key.key_id))
    refused = refusal(lambda: rotate(root, made.key.key_id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")


def test_nobody_is_told_a_secret_that_opens_more_than_their_own(
    root: Admin, server: ServerProcess, tenant_id: str
) -> None:
    rotator = make(root, tenant_id, permissions=["latchgate.keys.rotate", "orders.read"])
    mighty = make(root, tenant_id, permissions=["orders.*"])
    admin = Admin(server.admin_address, rotator.key_string)
    refused = refusal(lambda: rotate(admin, mighty.key.key_id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ESCALATION_REFUSED")
    admin.close()


def test_a_grace_period_is_bounded(root: Admin, tenant_id: str) -> None:
    made = make(root, tenant_id)
    refused = refusal(lambda: rotate(root, made.key.key_id, grace=bounds.GRACE_PERIOD_SECONDS + 1))
    assert refused.fields == ("grace_period",)
    assert rotate(root, made.key.key_id, grace=bounds.GRACE_PERIOD_SECONDS).key.key_id
