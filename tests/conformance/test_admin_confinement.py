"""Where an administrator may look: one tenant, or in it the keys of one owner. What lies elsewhere does not exist.

test_admin_matrix.py tries every call; here is what it cannot tell: that errors tell nothing, and what lists hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import Refusal, refusal
from tests.support.server import Admin

BEHALF = "x-latchgate-on-behalf-of"


def key_calls(admin: Admin, key_id: str) -> dict[str, Callable[[], Any]]:
    """Every call about one key."""
    return {
        "GetKey": lambda: admin.GetKey(pb.GetKeyRequest(key_id=key_id)),
        "UpdateKey": lambda: admin.UpdateKey(pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id, description="x"))),
        "EnableKey": lambda: admin.EnableKey(pb.EnableKeyRequest(key_id=key_id)),
        "DisableKey": lambda: admin.DisableKey(pb.DisableKeyRequest(key_id=key_id)),
        "ExpireKey": lambda: admin.ExpireKey(pb.ExpireKeyRequest(key_id=key_id)),
        "RevokeKey": lambda: admin.RevokeKey(pb.RevokeKeyRequest(key_id=key_id)),
        "DeleteKey": lambda: admin.DeleteKey(pb.DeleteKeyRequest(key_id=key_id)),
    }


KEY_CALLS = ["GetKey", "UpdateKey", "EnableKey", "DisableKey", "ExpireKey", "RevokeKey", "DeleteKey"]


def same_but_for_the_id(first: Refusal, first_id: str, second: Refusal, second_id: str) -> bool:
    """Whether the two errors tell nothing apart but the ids that were asked for."""

    def told(refused: Refusal, id_: str) -> tuple[object, ...]:
        metadata = {name: value.replace(id_, "ID") for name, value in refused.metadata.items()}
        return refused.code, refused.reason, refused.message.replace(id_, "ID"), metadata, refused.fields

    return told(first, first_id) == told(second, second_id)


def assert_does_not_exist(first: Callable[[], object], first_id: str, second: Callable[[], object], id_: str) -> None:
    """That what lies elsewhere (first) is refused just as what is nowhere (second), as NOT_FOUND."""
    elsewhere, nowhere = refusal(first), refusal(second)
    assert elsewhere.code == grpc.StatusCode.NOT_FOUND
    assert elsewhere.reason == "RESOURCE_NOT_FOUND"
    assert same_but_for_the_id(elsewhere, first_id, nowhere, id_)


@dataclass(frozen=True)
class Two:
    """Two tenants, each with a key, a role and a plan, and an administrator of the first."""

    tenant_id: str
    other_id: str
    admin: Admin
    key_id: str
    other_key_id: str
    role_id: str
    other_role_id: str
    plan_id: str
    other_plan_id: str


@pytest.fixture
def two(house: House) -> Two:
    plan_id, other_plan_id = house.plan(), house.plan()
    tenant_id, other_id = house.tenant(plan_id=plan_id), house.tenant(plan_id=other_plan_id)
    return Two(
        tenant_id=tenant_id,
        other_id=other_id,
        admin=house.admin(tenant_id, "*", "latchgate.*", owner="boss"),
        key_id=house.key(tenant_id).key.key_id,
        other_key_id=house.key(other_id).key.key_id,
        role_id=house.role(tenant_id),
        other_role_id=house.role(other_id),
        plan_id=plan_id,
        other_plan_id=other_plan_id,
    )


# One tenant.


@pytest.mark.parametrize("call", KEY_CALLS)
def test_another_tenants_key_does_not_exist(two: Two, root: Admin, call: str) -> None:
    missing = f"{two.other_key_id[:-1]}x"
    before = root.GetKey(pb.GetKeyRequest(key_id=two.other_key_id)).key
    assert_does_not_exist(
        key_calls(two.admin, two.other_key_id)[call], two.other_key_id, key_calls(two.admin, missing)[call], missing
    )
    assert root.GetKey(pb.GetKeyRequest(key_id=two.other_key_id)).key == before
    key_calls(two.admin, two.key_id)[call]()


def test_no_key_can_be_created_in_another_tenant(two: Two) -> None:
    def create(tenant_id: str) -> Callable[[], object]:
        return lambda: two.admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id)))

    assert_does_not_exist(create(two.other_id), two.other_id, create("nobody"), "nobody")
    assert_does_not_exist(create(ROOT_TENANT), ROOT_TENANT, create("nobody"), "nobody")


def test_a_key_without_a_tenant_is_created_in_the_administrators_own(two: Two, root: Admin) -> None:
    assert two.admin.CreateKey(pb.CreateKeyRequest()).key.tenant_id == two.tenant_id
    refused = refusal(lambda: root.CreateKey(pb.CreateKeyRequest()))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ("key.tenant_id",))


def test_a_key_cannot_be_moved_to_another_tenant(two: Two, root: Admin) -> None:
    key = key_pb2.Key(key_id=two.key_id, tenant_id=two.other_id, display_name="x")
    assert root.UpdateKey(pb.UpdateKeyRequest(key=key)).key.tenant_id == two.tenant_id


def test_lists_of_keys_hold_the_administrators_tenant_alone(two: Two, root: Admin) -> None:
    def listed(admin: Admin, tenant_id: str = "") -> list[str]:
        response = admin.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=tenant_id), page_size=1_000))
        assert response.next_page_token == ""
        return [key.tenant_id for key in response.keys]

    assert set(listed(two.admin)) == {two.tenant_id}
    assert listed(two.admin, two.other_id) == listed(two.admin, "nobody") == []
    assert {two.tenant_id, two.other_id, ROOT_TENANT} <= set(listed(root))


def test_another_tenant_does_not_exist(two: Two) -> None:
    def get(tenant_id: str) -> Callable[[], object]:
        return lambda: two.admin.GetTenant(pb.GetTenantRequest(tenant_id=tenant_id))

    assert_does_not_exist(get(two.other_id), two.other_id, get("nobody"), "nobody")
    assert_does_not_exist(get(ROOT_TENANT), ROOT_TENANT, get("nobody"), "nobody")
    assert two.admin.GetTenant(pb.GetTenantRequest(tenant_id=two.tenant_id)).tenant.tenant_id == two.tenant_id
    listed = two.admin.ListTenants(pb.ListTenantsRequest())
    assert [tenant.tenant_id for tenant in listed.tenants] == [two.tenant_id]
    assert listed.next_page_token == ""


def test_another_tenants_plan_does_not_exist(two: Two) -> None:
    def get(plan_id: str) -> Callable[[], object]:
        return lambda: two.admin.GetPlan(pb.GetPlanRequest(plan_id=plan_id))

    assert_does_not_exist(get(two.other_plan_id), two.other_plan_id, get("nothing"), "nothing")
    assert two.admin.GetPlan(pb.GetPlanRequest(plan_id=two.plan_id)).plan.plan_id == two.plan_id
    assert [plan.plan_id for plan in two.admin.ListPlans(pb.ListPlansRequest()).plans] == [two.plan_id]


def test_a_tenant_without_a_plan_sees_none(house: House, two: Two) -> None:
    admin = house.admin(house.tenant(), "latchgate.plans.*")
    assert not admin.ListPlans(pb.ListPlansRequest()).plans
    assert refusal(lambda: admin.GetPlan(pb.GetPlanRequest(plan_id=two.plan_id))).code == grpc.StatusCode.NOT_FOUND


def test_another_tenants_role_does_not_exist(two: Two) -> None:
    def get(role_id: str, tenant_id: str) -> Callable[[], object]:
        return lambda: two.admin.GetRole(pb.GetRoleRequest(role_id=role_id, tenant_id=tenant_id))

    for tenant_id in ("", two.tenant_id, two.other_id):
        assert_does_not_exist(
            get(two.other_role_id, tenant_id), two.other_role_id, get("nothing", tenant_id), "nothing"
        )
    assert_does_not_exist(get(two.role_id, two.other_id), two.role_id, get("nothing", "nobody"), "nothing")

    def listed(tenant_id: str) -> Callable[[], object]:
        return lambda: two.admin.ListRoles(pb.ListRolesRequest(tenant_id=tenant_id))

    assert_does_not_exist(listed(two.other_id), two.other_id, listed("nobody"), "nobody")


def test_no_role_can_be_created_in_or_taken_from_another_tenant(two: Two) -> None:
    def create(tenant_id: str) -> Callable[[], object]:
        role = tenant_pb2.Role(role_id="new", tenant_id=tenant_id)
        return lambda: two.admin.CreateRole(pb.CreateRoleRequest(role=role))

    def create_key(role_id: str) -> Callable[[], object]:
        return lambda: two.admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(role_ids=[role_id])))

    assert_does_not_exist(create(two.other_id), two.other_id, create("nobody"), "nobody")
    assert_does_not_exist(create_key(two.other_role_id), two.other_role_id, create_key("nothing"), "nothing")


def test_a_tenant_does_not_learn_which_role_ids_others_have(two: Two) -> None:
    role = tenant_pb2.Role(role_id=two.other_role_id)
    assert two.admin.CreateRole(pb.CreateRoleRequest(role=role)).role.tenant_id == two.tenant_id


# One owner: self-service.


@dataclass(frozen=True)
class Owners:
    """A tenant with keys of two owners and of none, and callers who are narrowed to the first owner's."""

    tenant_id: str
    narrowed: Admin
    own: str
    others: str
    nobodys: str


@pytest.fixture(params=["keys.own", "on behalf", "on behalf of itself"])
def owners(house: House, request: pytest.FixtureRequest) -> Owners:
    tenant_id = house.tenant()
    if request.param == "keys.own":
        narrowed = house.admin(tenant_id, "latchgate.keys.own", owner="ada")
    elif request.param == "on behalf":
        portal = house.key(tenant_id, owner="portal", permissions=["latchgate.keys.*"])
        narrowed = house.caller(portal.key_string, (BEHALF, "ada"))
    else:
        key = house.key(tenant_id, owner="ada", permissions=["latchgate.keys.own"])
        narrowed = house.caller(key.key_string, (BEHALF, "ada"))
    return Owners(
        tenant_id=tenant_id,
        narrowed=narrowed,
        own=house.key(tenant_id, owner="ada").key.key_id,
        others=house.key(tenant_id, owner="bob").key.key_id,
        nobodys=house.key(tenant_id).key.key_id,
    )


@pytest.mark.parametrize("call", KEY_CALLS)
def test_who_is_narrowed_to_an_owner_manages_that_owners_keys_and_no_others_exist(owners: Owners, call: str) -> None:
    missing = f"{owners.others[:-1]}x"
    for elsewhere in (owners.others, owners.nobodys):
        assert_does_not_exist(
            key_calls(owners.narrowed, elsewhere)[call], elsewhere, key_calls(owners.narrowed, missing)[call], missing
        )
    key_calls(owners.narrowed, owners.own)[call]()


def test_who_is_narrowed_to_an_owner_lists_that_owners_keys(owners: Owners) -> None:
    def listed(**filter_: Any) -> set[str]:
        response = owners.narrowed.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(**filter_)))
        return {key.owner for key in response.keys}

    assert listed() == {"ada"}
    assert listed(owner="ada") == {"ada"}
    assert listed(owner="bob") == set()
    assert listed(tenant_id=owners.tenant_id) == {"ada"}
    assert listed(tenant_id="nobody") == set()


def test_who_is_narrowed_to_an_owner_creates_keys_for_that_owner_alone(owners: Owners) -> None:
    def create(owner: str) -> Any:
        return owners.narrowed.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(owner=owner)))

    assert create("").key.owner == "ada"
    assert create("ada").key.owner == "ada"
    refused = refusal(lambda: create("bob"))
    assert (refused.reason, refused.metadata) == ("ESCALATION_REFUSED", {"permission": "owner"})


def test_who_is_narrowed_to_an_owner_cannot_give_a_key_away(owners: Owners) -> None:
    for owner in ("bob", ""):
        request = pb.UpdateKeyRequest(key=key_pb2.Key(key_id=owners.own, owner=owner))
        request.update_mask.paths.append("owner")
        refused = refusal(owners.narrowed.UpdateKey, request)
        assert (refused.reason, refused.metadata) == ("ESCALATION_REFUSED", {"permission": "owner"})


def test_a_key_without_an_owner_manages_none_of_its_own(house: House) -> None:
    tenant_id = house.tenant()
    house.key(tenant_id)
    admin = house.admin(tenant_id, "latchgate.keys.own")
    refused = refusal(lambda: admin.ListKeys(pb.ListKeysRequest()))
    assert (refused.reason, refused.metadata) == ("PERMISSION_MISSING", {"permission": "latchgate.keys.list"})


def test_self_service_may_not_act_on_behalf_of_others(house: House) -> None:
    key = house.key(owner="ada", permissions=["latchgate.keys.own"])
    refused = refusal(lambda: house.caller(key.key_string, (BEHALF, "bob")).ListKeys(pb.ListKeysRequest()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_MISSING")


@pytest.mark.parametrize("values", [[""], ["x" * 201], ["ada", "ada"], ["ada", "bob"], ["", ""]])
def test_on_behalf_of_nobody_or_of_two_is_refused_and_not_taken_for_everybody(house: House, values: list[str]) -> None:
    portal = house.key(permissions=["latchgate.keys.*"]).key_string
    admin = house.caller(portal, *[(BEHALF, value) for value in values])
    refused = refusal(lambda: admin.ListKeys(pb.ListKeysRequest()))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, (BEHALF,))


def test_a_portal_of_the_root_tenant_sees_its_users_keys_in_every_tenant(house: House) -> None:
    portal = house.key(ROOT_TENANT, permissions=["latchgate.keys.*"]).key_string
    first, second = [house.key(owner="cleo").key for _ in range(2)]
    house.key(first.tenant_id, owner="dan")
    listed = house.caller(portal, (BEHALF, "cleo")).ListKeys(pb.ListKeysRequest())
    assert [key.key_id for key in listed.keys] == [second.key_id, first.key_id]
