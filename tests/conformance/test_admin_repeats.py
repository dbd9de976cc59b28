"""request_id: it makes a call safe to repeat, and stands for no other call."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from tests.conformance.house import House
from tests.conformance.wire import refusal
from tests.support.server import Admin

METHODS = pb.DESCRIPTOR.services_by_name["AdminService"].methods
REPEATABLE = [method.name for method in METHODS if "request_id" in method.input_type.fields_by_name]


def requests_of(house: House) -> dict[str, Callable[[], Message]]:
    """By method, what makes requests that nobody has made before; each asks for something of its own."""

    def create() -> Message:
        return pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=house.tenant()))

    def rotate() -> Message:
        return pb.RotateKeyRequest(key_id=house.key().key.key_id, grace_period=Duration(seconds=60))

    return {"CreateKey": create, "RotateKey": rotate}


def send(admin: Admin, method: str, request: Message, request_id: str) -> Message:
    request = type(request).FromString(request.SerializeToString())
    request.request_id = request_id  # type: ignore[attr-defined]  # those of REPEATABLE have one
    answer: Message = getattr(admin, method)(request)
    return answer


def assert_is_refused(admin: Admin, method: str, request: Message, request_id: str) -> None:
    refused = refusal(lambda: send(admin, method, request, request_id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refused.message.startswith("request_id: you have used it for another call")


def test_this_file_knows_every_method_that_takes_one(house: House) -> None:
    assert sorted(requests_of(house)) == sorted(REPEATABLE)


@pytest.mark.parametrize("method", REPEATABLE)
@pytest.mark.parametrize("earlier", REPEATABLE)
def test_it_stands_for_one_call_of_one_method(root: Admin, house: House, earlier: str, method: str) -> None:
    requests, request_id = requests_of(house), str(uuid.uuid4())
    first, other = requests[earlier](), requests[method]()
    made = send(root, earlier, first, request_id)
    assert_is_refused(root, method, other, request_id)
    again = send(root, earlier, first, request_id)
    assert again.key.key_id == made.key.key_id  # type: ignore[attr-defined]  # every answer of these has a key
    assert send(root, method, other, str(uuid.uuid4())).key_string, "what was refused has changed nothing"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change",
    [
        {"prefix": "other"},
        {"key": key_pb2.Key(display_name="another")},
        {"key": key_pb2.Key(permissions=["orders.write"])},
        {"key": key_pb2.Key(ip_allowlist=key_pb2.IpAllowlist(enabled=True))},
    ],
    ids=str,
)
def test_a_key_that_was_asked_for_in_other_words_is_not_taken_for_the_first(
    root: Admin, house: House, change: dict[str, object]
) -> None:
    request_id = str(uuid.uuid4())
    request = pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=house.tenant(), permissions=["orders.read"]))
    send(root, "CreateKey", request, request_id)
    request.MergeFrom(pb.CreateKeyRequest(**change))  # type: ignore[arg-type]  # its fields
    assert_is_refused(root, "CreateKey", request, request_id)


def test_a_rotation_with_another_grace_period_is_another_call(root: Admin, house: House) -> None:
    request_id, request = str(uuid.uuid4()), requests_of(house)["RotateKey"]()
    send(root, "RotateKey", request, request_id)
    request.grace_period.seconds = 0  # type: ignore[attr-defined]  # of RotateKeyRequest
    assert_is_refused(root, "RotateKey", request, request_id)
