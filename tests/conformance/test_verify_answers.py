"""What an answer of VerifyService.Verify tells: whom the key speaks for, and on which state it was decided."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2
from tests.conformance.house import House
from tests.conformance.wire import refusal
from tests.support.server import Verify

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=3)
    ),
    max_leaves=6,
)


def claims(**values: Any) -> Struct:
    return ParseDict(values, Struct())


# The identity.


def test_an_identity_tells_what_administrators_set(verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    expire_time = Timestamp(seconds=4_102_444_800, nanos=250_000_000)
    made = house.key(
        tenant_id,
        display_name="Nightly export ✓",
        owner="ada",
        environment="production",
        tags={"team": "data", "cost-centre": "4711"},
        resources=["sites/berlin/*", "sites/paris"],
        expire_time=expire_time,
    )
    assert verify(made.key_string).identity == decision_pb2.Identity(
        key_id=made.key.key_id,
        tenant_id=tenant_id,
        display_name="Nightly export ✓",
        owner="ada",
        user="ada",
        environment="production",
        tags={"team": "data", "cost-centre": "4711"},
        resources=["sites/berlin/*", "sites/paris"],
        expire_time=expire_time,
    )


def test_permissions_are_the_union_of_the_roles_and_the_keys_own_sorted(verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    shared = house.role(permissions=["orders.read", "stock.*"])
    own = house.role(tenant_id, permissions=["orders.read", "a.b"])
    key = house.key(tenant_id, role_ids=[shared, own], permissions=["stock.*", "z", "A"])
    identity = verify(key.key_string).identity
    assert identity.permissions == ["A", "a.b", "orders.read", "stock.*", "z"]


def test_roles_come_in_the_keys_order_each_once(verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    first, second, third = [house.role(tenant_id) for _ in range(3)]
    key = house.key(tenant_id, role_ids=[third, first, third, second])
    assert verify(key.key_string).identity.role_ids == [third, first, second]


def test_later_roles_claims_go_over_earlier_ones_and_the_keys_own_over_all(verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    first = house.role(tenant_id, claims=claims(a="first", b="first", c="first", filter={"only": "first"}))
    second = house.role(tenant_id, claims=claims(b="second", c="second"))
    key = house.key(tenant_id, role_ids=[first, second], claims=claims(c="key", filter={"site": "key"}))
    assert verify(key.key_string).identity.claims == claims(a="first", b="second", c="key", filter={"site": "key"})
    turned = house.key(tenant_id, role_ids=[second, first])
    assert verify(turned.key_string).identity.claims["b"] == "first"


@given(values=st.dictionaries(st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1), JSON))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_claims_arrive_as_they_were_set(verify: Verify, house: House, values: dict[str, Any]) -> None:
    key_id, key_string = _shared_key(house)
    key = key_pb2.Key(key_id=key_id, claims=claims(**values))
    house.root.UpdateKey(pb.UpdateKeyRequest(key=key, update_mask=FieldMask(paths=["claims"])))
    assert MessageToDict(verify(key_string).identity.claims) == MessageToDict(claims(**values))


_shared: dict[int, tuple[str, str]] = {}


def _shared_key(house: House) -> tuple[str, str]:
    if id(house) not in _shared:
        made = house.key()
        _shared[id(house)] = made.key.key_id, made.key_string
    return _shared[id(house)]


@pytest.mark.parametrize(("owner", "default_user", "user"), [("ada", "bob", "bob"), ("ada", "", "ada"), ("", "", "")])
def test_the_user_is_the_keys_default_user_else_its_owner(
    verify: Verify, house: House, owner: str, default_user: str, user: str
) -> None:
    key = house.key(owner=owner, default_user=default_user)
    assert verify(key.key_string).identity.user == user


def test_the_user_is_the_one_to_act_as_where_a_role_allows_it(verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    key = house.key(tenant_id, owner="ada", role_ids=[house.role(tenant_id, allow_act_as=True)])
    assert verify(key.key_string, act_as="bob").identity.user == "bob"
    assert verify(key.key_string).identity.user == "ada"


def test_a_user_who_may_not_be_acted_as_is_not_told_as_the_user(verify: Verify, house: House) -> None:
    denied = verify(house.key(owner="ada").key_string, act_as="bob")
    assert denied.denial_reason == decision_pb2.DENIAL_REASON_ACT_AS_NOT_ALLOWED
    assert denied.identity.user == "ada"


def test_capabilities_are_the_plans_sorted_and_none_without_a_plan(verify: Verify, house: House) -> None:
    on_plan = house.tenant(plan_id=house.plan(capabilities=["export", "audit", "sso:saml"]))
    assert verify(house.key(on_plan).key_string).identity.capabilities == ["audit", "export", "sso:saml"]
    assert verify(house.key().key_string).identity.capabilities == []


def test_a_key_of_which_nothing_is_set_has_an_empty_identity(verify: Verify, house: House) -> None:
    tenant_id = house.tenant()
    made = house.key(tenant_id)
    identity = verify(made.key_string).identity
    assert identity == decision_pb2.Identity(key_id=made.key.key_id, tenant_id=tenant_id)
    assert not identity.HasField("claims")
    assert not identity.HasField("expire_time")


# The revision.


def test_an_answer_tells_a_revision_no_older_than_the_change_before_it(verify: Verify, house: House) -> None:
    made = house.key()
    assert verify(made.key_string).revision >= made.propagation.revision
    changed = house.root.DisableKey(pb.DisableKeyRequest(key_id=made.key.key_id)).propagation
    assert changed.revision > made.propagation.revision
    assert verify(made.key_string).revision >= changed.revision


def test_an_answer_on_a_revision_that_is_reached_is_given(verify: Verify, house: House) -> None:
    made = house.key()
    for at_least in (0, 1, made.propagation.revision):
        response = verify(made.key_string, at_least_revision=at_least)
        assert response.decision == decision_pb2.DECISION_ALLOW
        assert response.revision >= at_least


@pytest.mark.parametrize("beyond", [1_000_000, 2**63 - 1])
def test_a_revision_beyond_the_databases_own_is_a_failed_precondition(
    verify: Verify, house: House, beyond: int
) -> None:
    key_string = house.key().key_string
    refused = refusal(lambda: verify(key_string, at_least_revision=beyond))
    assert refused.code == grpc.StatusCode.FAILED_PRECONDITION
    assert str(beyond) in refused.message


def test_a_decision_is_not_stale_while_the_database_is_there(verify: Verify, house: House) -> None:
    response = verify(house.key().key_string)
    assert not response.stale
    assert not response.limits
    assert not response.HasField("retry_after")
