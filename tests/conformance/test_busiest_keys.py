"""ListBusiestKeys: which keys are used most, and who may know."""

from __future__ import annotations

import time

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import audit_pb2
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import refusal
from tests.support.server import Admin, Verify

PERMISSION = "latchgate.keys.list_busiest"


def busiest(admin: Admin, tenant_id: str = "", page_size: int = 0) -> list[audit_pb2.BusyKey]:
    return list(admin.ListBusiestKeys(pb.ListBusiestKeysRequest(tenant_id=tenant_id, page_size=page_size)).keys)


def uses(admin: Admin, tenant_id: str = "", page_size: int = 0) -> list[tuple[str, int]]:
    """Of both hours together: a test may run over the end of one."""
    found = busiest(admin, tenant_id, page_size)
    return [(key.key_id, key.uses_this_hour + key.uses_hour_before) for key in found]


def eventually(admin: Admin, tenant_id: str, expected: list[tuple[str, int]]) -> None:
    """That it comes to this, about a second late."""
    deadline = time.monotonic() + 10
    while (now := uses(admin, tenant_id)) != expected:
        assert time.monotonic() < deadline, f"{now!r} is not {expected!r}"
        time.sleep(0.05)


def test_keys_are_told_by_their_uses_the_most_used_first(root: Admin, verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    calm = house.key(tenant_id)
    busy = house.key(tenant_id, display_name="shop", permissions=["orders.read"])
    house.key(tenant_id)
    verify(calm.key_string)
    for _ in range(3):
        verify(busy.key_string)
    verify(busy.key_string, required_permissions="orders.write")  # a denial is a use as well
    eventually(root, tenant_id, [(busy.key.key_id, 4), (calm.key.key_id, 1)])
    assert [key.display_name for key in busiest(root, tenant_id)] == ["shop", ""]
    assert uses(root, tenant_id, 1) == [(busy.key.key_id, 4)]

    for _ in range(4):
        verify(calm.key_string)
    eventually(root, tenant_id, [(calm.key.key_id, 5), (busy.key.key_id, 4)])
    root.DeleteKey(pb.DeleteKeyRequest(key_id=calm.key.key_id))
    assert uses(root, tenant_id) == [(busy.key.key_id, 4)], "what is deleted is told no more"


def test_the_hour_is_told_that_the_uses_are_counted_from(root: Admin) -> None:
    before = int(time.time()) // 3_600
    told = root.ListBusiestKeys(pb.ListBusiestKeysRequest()).hour_start_time.seconds
    assert told in {before * 3_600, int(time.time()) // 3_600 * 3_600}


def test_wrong_secrets_do_not_make_a_key_look_busy(root: Admin, verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    key, other = house.key(tenant_id), house.key(tenant_id)
    for _ in range(5):
        verify(f"{key.key.key_id}.{'x' * 49}")
    verify(other.key_string)
    eventually(root, tenant_id, [(other.key.key_id, 1)])
    verify(key.key_string)
    verify(f"{key.key.key_id}.{'x' * 49}")
    verify(other.key_string)
    eventually(root, tenant_id, [(other.key.key_id, 2), (key.key.key_id, 1)])


def test_an_administrator_of_a_tenant_sees_its_keys_alone(verify: Verify, house: House, root: Admin) -> None:
    tenant_id, elsewhere = house.tenant(), house.tenant()
    admin = house.admin(tenant_id, PERMISSION)
    key, other = house.key(tenant_id), house.key(elsewhere)
    for _ in range(9):
        verify(key.key_string)
        verify(other.key_string)
    eventually(root, elsewhere, [(other.key.key_id, 9)])
    eventually(root, tenant_id, [(key.key.key_id, 9)])
    assert {found.tenant_id for found in busiest(admin)} == {tenant_id}
    assert uses(admin)[0] == (key.key.key_id, 9)
    assert busiest(admin, elsewhere) == busiest(admin, "nobody") == busiest(admin, ROOT_TENANT) == []
    assert {key.key.key_id, other.key.key_id} <= {found.key_id for found in busiest(root, page_size=100)}


def test_who_is_narrowed_to_an_owner_is_not_told(house: House) -> None:
    tenant_id = house.tenant()
    own = house.admin(tenant_id, "latchgate.keys.own", owner="ann")
    refused = refusal(lambda: busiest(own))
    assert (refused.code, refused.metadata) == (grpc.StatusCode.PERMISSION_DENIED, {"permission": PERMISSION})
    portal = house.key(tenant_id, permissions=[PERMISSION]).key_string
    refused = refusal(lambda: busiest(house.caller(portal, ("x-latchgate-on-behalf-of", "ann"))))
    assert (refused.code, refused.metadata) == (grpc.StatusCode.PERMISSION_DENIED, {"permission": PERMISSION})


@pytest.mark.parametrize(
    ("request_", "wrong"),
    [
        (pb.ListBusiestKeysRequest(tenant_id="A"), ("tenant_id",)),
        (pb.ListBusiestKeysRequest(page_size=-1), ("page_size",)),
    ],
)
def test_what_is_malformed_is_named(root: Admin, request_: pb.ListBusiestKeysRequest, wrong: tuple[str, ...]) -> None:
    refused = refusal(lambda: root.ListBusiestKeys(request_))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, wrong)
