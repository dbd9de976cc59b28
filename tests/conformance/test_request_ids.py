"""The id that ties what a caller was told to what the server logged."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1.admin_service_pb2_grpc import AdminServiceStub
from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from tests.conformance.house import House
from tests.support.server import ServerProcess, Verify

TRANSPORTS = ["native", "grpcio"]
MADE = re.compile(r"[0-9a-f]{32}")
KEY_STRING = "lg_0000000000000000000000." + 49 * "0"


@pytest.fixture(scope="module")
def stub(server: ServerProcess) -> Any:
    with grpc.insecure_channel(server.admin_address) as channel:
        yield AdminServiceStub(channel)


def ask(rpc: Any, request: Any, key: str, *request_ids: str) -> tuple[grpc.StatusCode, str, list[str]]:
    """Code, message, and the ids that come back."""
    metadata = [("authorization", f"Bearer {key}"), *(("x-request-id", sent) for sent in request_ids)]
    try:
        _, call = rpc.with_call(request, metadata=metadata, timeout=20)
    except grpc.RpcError as error:
        call = error
    told = [str(value) for name, value in call.trailing_metadata() or () if name == "x-request-id"]
    return call.code(), call.details() or "", told


def logged(server: ServerProcess, request_id: str, count: int = 1) -> Sequence[Mapping[str, Any]]:
    """The lines with that id, once there are as many."""
    deadline = time.monotonic() + 10
    while True:
        entries = [json.loads(line) for line in list(server.log) if request_id in line]
        if len(entries) >= count:
            return entries
        assert time.monotonic() < deadline, request_id
        time.sleep(0.02)


def test_a_callers_own_id_comes_back_and_is_in_the_log(stub: Any, server: ServerProcess, root_key: str) -> None:
    sent = "req_7f3e:2026-11/a.b+c=="
    assert ask(stub.ListTenants, pb.ListTenantsRequest(), root_key, sent) == (grpc.StatusCode.OK, "", [sent])
    (entry,) = logged(server, sent)
    assert entry["event"] == "admin_call"
    assert (entry["method"], entry["code"], entry["request_id"]) == ("ListTenants", "OK", sent)
    assert entry["key_id"] == root_key.partition(".")[0]
    assert 0 < entry["seconds"] < 20


def test_a_call_without_one_gets_one_of_its_own(stub: Any, server: ServerProcess, root_key: str) -> None:
    ids = set()
    for _ in range(3):
        _, _, (made,) = ask(stub.GetTenant, pb.GetTenantRequest(tenant_id="nobody"), root_key)
        assert MADE.fullmatch(made)
        assert logged(server, made)[0]["code"] == "NOT_FOUND"
        ids.add(made)
    assert len(ids) == 3


@pytest.mark.parametrize(
    "sent",
    [
        [""],
        ["with space"],
        ["x" * 129],
        ["{}"],
        ["-leading"],
        [KEY_STRING],
        [KEY_STRING.partition(".")[2]],
        ["two", "of them"],
    ],
)
def test_an_id_that_is_not_fit_for_a_log_is_replaced(stub: Any, root_key: str, sent: Sequence[str]) -> None:
    _, _, (told,) = ask(stub.ListTenants, pb.ListTenantsRequest(), root_key, *sent)
    assert MADE.fullmatch(told)


def test_who_is_not_let_in_is_told_an_id_but_fills_no_log(stub: Any, server: ServerProcess, root_key: str) -> None:
    code, _, told = ask(stub.ListTenants, pb.ListTenantsRequest(), "nonsense", "from-a-stranger")
    assert (code, told) == (grpc.StatusCode.UNAUTHENTICATED, ["from-a-stranger"])
    ask(stub.ListTenants, pb.ListTenantsRequest(), root_key, "after-the-stranger")
    logged(server, "after-the-stranger")
    assert not any("from-a-stranger" in line for line in server.log)


def test_what_ends_in_no_decision_has_an_id_as_well(verify: Verify, house: House) -> None:
    request = VerifyRequest(key=house.key().key_string, cost=-1)
    assert ask(verify.stub.Verify, request, "", "mine")[::2] == (grpc.StatusCode.INVALID_ARGUMENT, ["mine"])
    batch = BatchVerifyRequest(requests=[request])
    assert ask(verify.stub.BatchVerify, batch, "", "all-of-mine")[::2] == (grpc.StatusCode.OK, ["all-of-mine"])
