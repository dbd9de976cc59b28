"""BatchVerify: up to 1,000 keys in one call, each decided as Verify would."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, tenant_pb2
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, BatchVerifyResponse, VerifyRequest
from tests.support.server import Admin, Verify


@pytest.fixture(scope="module")
def keys(root: Admin, fresh_id: Callable[[str], str]) -> Sequence[str]:
    """Key strings: the first is allowed everything, the second disabled."""
    tenant_id = fresh_id("batch")
    root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=tenant_id)))
    key = key_pb2.Key(tenant_id=tenant_id, permissions=["orders.read"])
    made = [root.CreateKey(pb.CreateKeyRequest(key=key)) for _ in range(2)]
    root.DisableKey(pb.DisableKeyRequest(key_id=made[1].key.key_id))
    return [one.key_string for one in made]


def batch(verify: Verify, requests: Sequence[VerifyRequest]) -> BatchVerifyResponse:
    response: BatchVerifyResponse = verify.stub.BatchVerify(BatchVerifyRequest(requests=requests), timeout=20)
    return response


def test_each_is_decided_as_verify_would_and_in_the_order_of_the_requests(verify: Verify, keys: Sequence[str]) -> None:
    requests = [
        VerifyRequest(key=keys[0], required_permissions="orders.read"),
        VerifyRequest(key=keys[0], required_permissions="orders.write"),
        VerifyRequest(key=keys[1]),
        VerifyRequest(key=keys[0] + "x"),
        VerifyRequest(key="garbage"),
        VerifyRequest(),
    ] * 20
    alone = [verify.stub.Verify(request, timeout=20) for request in requests]
    together = batch(verify, requests)
    assert list(together.responses) == alone
    assert not together.errors


def test_one_malformed_entry_fails_alone(verify: Verify, keys: Sequence[str]) -> None:
    requests = [VerifyRequest(key=keys[0]), VerifyRequest(key=keys[0], cost=-1), VerifyRequest(key=keys[0])]
    response = batch(verify, requests)
    assert [one.decision for one in response.responses] == [
        decision_pb2.DECISION_ALLOW,
        decision_pb2.DECISION_UNSPECIFIED,
        decision_pb2.DECISION_ALLOW,
    ]
    assert list(response.errors) == [1]
    assert response.errors[1].code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert "cost" in response.errors[1].message


def test_an_empty_batch_has_an_empty_answer(verify: Verify) -> None:
    assert batch(verify, []) == BatchVerifyResponse()


def test_a_thousand_are_answered_and_more_are_refused(verify: Verify, keys: Sequence[str]) -> None:
    assert len(batch(verify, [VerifyRequest(key=keys[0])] * 1_000).responses) == 1_000
    with pytest.raises(grpc.RpcError) as caught:
        batch(verify, [VerifyRequest(key=keys[0])] * 1_001)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
