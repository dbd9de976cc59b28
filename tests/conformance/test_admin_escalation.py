"""Nobody grants or loosens what they do not hold themselves, by any path."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import refusal
from tests.support.server import Admin

SOON, LATER, LATEST = (Timestamp(seconds=seconds) for seconds in (4_000_000_000, 4_100_000_000, 4_200_000_000))
MANAGES = ("latchgate.keys.*", "latchgate.roles.*")
BERLIN = ParseDict({"site": "berlin"}, Struct())
HERE = key_pb2.IpAllowlist(enabled=True, ranges=["127.0.0.0/8", "::1"])
BEHALF = "x-latchgate-on-behalf-of"


def create(admin: Admin, tenant_id: str = "", **fields: Any) -> Callable[[], key_pb2.Key]:
    """CreateKey, not called yet."""

    def call() -> key_pb2.Key:
        key: key_pb2.Key = admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=tenant_id, **fields))).key
        return key

    return call


_credentials = itertools.count(1)


def import_key(admin: Admin, tenant_id: str = "", **fields: Any) -> Callable[[], key_pb2.Key]:
    """ImportKeys of one key, by the hash of a credential that nobody has, not called yet."""
    digest = hashlib.sha256(f"escalating {next(_credentials)}".encode()).digest()
    entry = pb.ImportedKey(key=key_pb2.Key(tenant_id=tenant_id, **fields), sha256=digest)

    def call() -> key_pb2.Key:
        key: key_pb2.Key = admin.ImportKeys(pb.ImportKeysRequest(keys=[entry])).keys[0]
        return key

    return call


def change(admin: Admin, key: key_pb2.Key, *paths: str, **fields: Any) -> Callable[[], key_pb2.Key]:
    """UpdateKey of the fields given, or of those named."""
    mask = FieldMask(paths=paths or list(fields))
    request = pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key.key_id, **fields), update_mask=mask)

    def call() -> key_pb2.Key:
        updated: key_pb2.Key = admin.UpdateKey(request).key
        return updated

    return call


def create_role(house: House, admin: Admin, **fields: Any) -> Callable[[], object]:
    """CreateRole, not called yet."""
    role = tenant_pb2.Role(role_id=house.fresh_id("role"), **fields)
    return lambda: admin.CreateRole(pb.CreateRoleRequest(role=role))


def refused_for(call: Callable[[], object]) -> str:
    """What the caller does not hold."""
    refused = refusal(call)
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ESCALATION_REFUSED")
    assert refused.metadata.keys() == {"permission"}
    return refused.metadata["permission"]


@pytest.fixture
def tenant_id(house: House) -> str:
    return house.tenant()


@pytest.fixture
def admin(house: House, tenant_id: str) -> Admin:
    """An administrator of keys and roles who may do business with orders, and nothing else."""
    return house.admin(tenant_id, *MANAGES, "orders.*")


# Permissions.


@pytest.mark.parametrize(
    "grants", [[], ["orders.read"], ["orders.*"], ["orders.lines.*"], ["latchgate.keys.create"], ["latchgate.keys.*"]]
)
def test_what_an_administrator_holds_it_can_grant(house: House, admin: Admin, grants: list[str]) -> None:
    assert create(admin, permissions=grants)().permissions == grants
    create_role(house, admin, permissions=grants)()


@pytest.mark.parametrize(
    ("grants", "missing"),
    [
        (["orders.read", "stock.read"], "stock.read"),
        (["*"], "*"),
        (["orders"], "orders"),
        (["latchgate.*"], "latchgate.*"),
        (["latchgate.tenants.list"], "latchgate.tenants.list"),
        (["latchgate.claims.set"], "latchgate.claims.set"),
        (["latchgate.verify"], "latchgate.verify"),
    ],
)
def test_what_an_administrator_does_not_hold_it_cannot_grant_by_any_path(
    house: House, tenant_id: str, admin: Admin, grants: list[str], missing: str
) -> None:
    key, role_id = house.key(tenant_id).key, house.role(tenant_id, permissions=grants)
    paths = [
        create(admin, permissions=grants),
        create(admin, role_ids=[role_id]),
        import_key(admin, permissions=grants),
        import_key(admin, role_ids=[role_id]),
        create_role(house, admin, permissions=grants),
        change(admin, key, permissions=grants),
        change(admin, key, role_ids=[role_id]),
    ]
    assert [refused_for(path) for path in paths] == [missing] * len(paths)
    assert house.root.GetKey(pb.GetKeyRequest(key_id=key.key_id)).key == key


def test_a_business_star_grants_all_but_what_is_an_administrators(house: House, tenant_id: str) -> None:
    admin = house.admin(tenant_id, "*", "latchgate.keys.create")
    create(admin, permissions=["*", "orders.*", "anything"])()
    assert refused_for(create(admin, permissions=["latchgate.keys.get"])) == "latchgate.keys.get"


def test_an_administrator_cannot_make_itself_more(house: House, tenant_id: str) -> None:
    made = house.key(tenant_id, permissions=MANAGES)
    admin = house.caller(made.key_string)
    assert refused_for(change(admin, made.key, permissions=[*MANAGES, "*"])) == "*"
    assert refused_for(change(admin, made.key, permissions=["latchgate.*"])) == "latchgate.*"


def test_what_others_granted_stays_and_can_be_taken_away(house: House, tenant_id: str, admin: Admin) -> None:
    roles = [house.role(tenant_id, permissions=["stock.write"]), house.role(tenant_id, permissions=["stock.audit"])]
    key = house.key(tenant_id, permissions=["stock.read", "stock.count"], role_ids=roles).key
    changed = change(admin, key, permissions=["stock.read", "orders.read"], role_ids=roles[:1])()
    assert changed.permissions == ["stock.read", "orders.read"]
    assert changed.role_ids == roles[:1]
    assert refused_for(change(admin, key, role_ids=roles)) == "stock.audit", "what was taken away is granted anew"
    change(admin, key, display_name="renamed")()


def test_only_the_first_administrators_like_may_grant_everything(house: House, root: Admin, tenant_id: str) -> None:
    create(root, tenant_id, permissions=["*", "latchgate.*"], expire_time=None, default_user="anybody")()
    alike = house.admin(ROOT_TENANT, "*", "latchgate.*")
    create(alike, tenant_id, permissions=["*", "latchgate.*"])()
    lesser = house.admin(ROOT_TENANT, "latchgate.*")
    assert refused_for(create(lesser, tenant_id, permissions=["orders.read"])) == "orders.read"
    of_tenant = house.admin(tenant_id, "*", "latchgate.*", resources=["sites/*"])
    assert refused_for(create(of_tenant, permissions=["*"])) == "resources"


# Acting as another user.


def test_acting_as_another_is_given_only_by_who_may_do_so(house: House, tenant_id: str, admin: Admin) -> None:
    role_id = house.role(tenant_id, allow_act_as=True)
    key = house.key(tenant_id, owner="ada").key
    assert refused_for(create_role(house, admin, allow_act_as=True)) == "allow_act_as"
    assert refused_for(create(admin, role_ids=[role_id])) == "allow_act_as"
    assert refused_for(import_key(admin, role_ids=[role_id])) == "allow_act_as"
    assert refused_for(change(admin, key, role_ids=[role_id])) == "allow_act_as"
    may = house.admin(tenant_id, *MANAGES, role_ids=[role_id])
    create_role(house, may, allow_act_as=True)()
    create(may, role_ids=[role_id])()
    change(may, key, role_ids=[role_id])()


def test_a_default_user_other_than_the_owner_is_set_only_by_who_may_act_as_others(
    house: House, tenant_id: str, admin: Admin
) -> None:
    key = create(admin, owner="ada", default_user="ada")()
    assert refused_for(create(admin, owner="ada", default_user="bob")) == "default_user"
    assert refused_for(import_key(admin, owner="ada", default_user="bob")) == "default_user"
    assert refused_for(change(admin, key, default_user="bob")) == "default_user"
    assert refused_for(change(admin, key, owner="bob")) == "default_user", "bob's key would act as ada"
    assert change(admin, key, owner="bob", default_user="")().owner == "bob"
    may = house.admin(tenant_id, *MANAGES, role_ids=[house.role(tenant_id, allow_act_as=True)])
    assert change(may, key, default_user="cleo")().default_user == "cleo"


# Claims.


def test_claims_are_changed_only_by_who_may_set_them_whatever_the_path(
    house: House, tenant_id: str, admin: Admin
) -> None:
    role_id = house.role(tenant_id, claims=BERLIN)
    plain, claiming = house.key(tenant_id).key, house.key(tenant_id, claims=BERLIN).key
    through_role = house.key(tenant_id, role_ids=[role_id]).key
    paths = [
        create(admin, claims=BERLIN),
        create(admin, role_ids=[role_id]),
        import_key(admin, claims=BERLIN),
        import_key(admin, role_ids=[role_id]),
        create_role(house, admin, claims=BERLIN),
        change(admin, plain, claims=BERLIN),
        change(admin, plain, role_ids=[role_id]),
        change(admin, claiming, "claims"),
        change(admin, claiming, claims=ParseDict({"site": "paris"}, Struct())),
        change(admin, through_role, "role_ids"),
        change(admin, through_role, claims=ParseDict({"site": "paris"}, Struct())),
    ]
    assert [refused_for(path) for path in paths] == ["latchgate.claims.set"] * len(paths)
    may = house.admin(tenant_id, *MANAGES, "latchgate.claims.set")
    for path in (
        create(may, claims=BERLIN, role_ids=[role_id]),
        import_key(may, claims=BERLIN, role_ids=[role_id]),
        create_role(house, may, claims=BERLIN),
        change(may, claiming, "claims"),
        change(may, through_role, "role_ids"),
    ):
        path()


def test_the_order_of_roles_counts_where_it_changes_a_claim(house: House, tenant_id: str, admin: Admin) -> None:
    berlin, paris = (house.role(tenant_id, claims=ParseDict({"site": site}, Struct())) for site in ("berlin", "paris"))
    plain = house.role(tenant_id)
    key = house.key(tenant_id, role_ids=[berlin, paris, plain]).key
    assert refused_for(change(admin, key, role_ids=[paris, berlin, plain])) == "latchgate.claims.set"
    assert change(admin, key, role_ids=[plain, berlin, paris])().role_ids == [plain, berlin, paris]


# Restrictions. What an administrator's own key is restricted to, the keys that it makes or widens are as well.


@pytest.fixture
def restricted(house: House, tenant_id: str) -> Admin:
    """An administrator whose own key is restricted in every way."""
    return house.admin(
        tenant_id, *MANAGES, "orders.*", resources=["sites/berlin/*"], ip_allowlist=HERE, expire_time=LATER
    )


WITHIN: dict[str, Any] = {
    "resources": ["sites/berlin/orders", "sites/berlin/stock/*"],
    "ip_allowlist": key_pb2.IpAllowlist(enabled=True, ranges=["127.0.0.1"]),
    "expire_time": SOON,
}
LOOSER: Sequence[tuple[str, Any]] = [
    ("resources", []),
    ("resources", ["sites/*"]),
    ("resources", ["sites/berlin"]),
    ("resources", ["sites/berlin/orders", "sites/paris"]),
    ("ip_allowlist", None),
    ("ip_allowlist", key_pb2.IpAllowlist(enabled=True)),
    ("ip_allowlist", key_pb2.IpAllowlist(enabled=False, ranges=["127.0.0.1"])),
    ("ip_allowlist", key_pb2.IpAllowlist(enabled=True, ranges=["127.0.0.1", "192.0.2.1"])),
    ("ip_allowlist", key_pb2.IpAllowlist(enabled=True, ranges=["0.0.0.0/0"])),
    ("expire_time", None),
    ("expire_time", LATEST),
]


def test_a_restricted_administrator_makes_keys_within_its_restrictions(restricted: Admin) -> None:
    key = create(restricted, permissions=["orders.read"], **WITHIN)()
    change(restricted, key, permissions=["orders.*"])()
    change(restricted, key, resources=["sites/berlin/orders"], expire_time=LATER)()


@pytest.mark.parametrize(("field", "value"), LOOSER, ids=str)
def test_a_restricted_administrator_makes_no_key_that_is_looser(restricted: Admin, field: str, value: Any) -> None:
    assert refused_for(create(restricted, **(WITHIN | {field: value}))) == field
    assert refused_for(import_key(restricted, **(WITHIN | {field: value}))) == field
    import_key(restricted, **WITHIN)()


@pytest.mark.parametrize(("field", "value"), LOOSER, ids=str)
def test_a_restricted_administrator_loosens_no_key(
    house: House, tenant_id: str, restricted: Admin, field: str, value: Any
) -> None:
    key = house.key(tenant_id, **WITHIN).key
    assert refused_for(change(restricted, key, field, **{field: value})) == field


@pytest.mark.parametrize("path", ["ip_allowlist.enabled", "ip_allowlist.ranges"])
def test_half_of_an_allowlist_loosens_it_as_well(house: House, tenant_id: str, restricted: Admin, path: str) -> None:
    key = house.key(tenant_id, **WITHIN).key
    assert refused_for(change(restricted, key, path)) == "ip_allowlist"


def test_an_expired_key_is_not_brought_back_for_longer_than_its_administrator_lives(
    house: House, tenant_id: str, restricted: Admin
) -> None:
    key = house.key(tenant_id, **WITHIN).key
    restricted.ExpireKey(pb.ExpireKeyRequest(key_id=key.key_id))
    assert refused_for(change(restricted, key, "expire_time")) == "expire_time"
    assert not change(restricted, key, expire_time=LATER)().expired


@pytest.mark.parametrize("field", WITHIN)
def test_a_restricted_administrator_gives_nothing_to_a_key_that_is_looser_than_its_own(
    house: House, tenant_id: str, restricted: Admin, field: str
) -> None:
    """It may do business with orders in berlin; through this key it could do so everywhere."""
    role_id = house.role(tenant_id, permissions=["orders.read"])
    looser = {name: value for name, value in WITHIN.items() if name != field}
    key = house.key(tenant_id, permissions=["orders.count"], **looser).key
    assert refused_for(change(restricted, key, permissions=["orders.count", "orders.read"])) == field
    assert refused_for(change(restricted, key, role_ids=[role_id])) == field
    change(restricted, key, "permissions")()
    change(restricted, key, display_name="renamed")()


def widen(admin: Admin, role_id: str, tenant_id: str, **fields: Any) -> Callable[[], object]:
    """UpdateRole, not called yet."""
    role = tenant_pb2.Role(role_id=role_id, tenant_id=tenant_id, **fields)
    mask = FieldMask(paths=list(fields))
    return lambda: admin.UpdateRole(pb.UpdateRoleRequest(role=role, update_mask=mask))


@pytest.mark.parametrize("field", WITHIN)
def test_a_restricted_administrator_widens_no_role_that_a_key_holds_which_is_looser_than_its_own(
    house: House, tenant_id: str, restricted: Admin, field: str
) -> None:
    role_id = house.role(tenant_id, permissions=["orders.count"])
    house.key(tenant_id, role_ids=[role_id], **WITHIN)
    widen(restricted, role_id, tenant_id, permissions=["orders.count", "orders.list"])()
    looser = {name: value for name, value in WITHIN.items() if name != field}
    key = house.key(tenant_id, role_ids=[role_id], **looser).key
    for permissions in (["orders.count", "orders.list", "orders.read"], ["orders.*"]):
        assert refused_for(widen(restricted, role_id, tenant_id, permissions=permissions)) == field
    widen(restricted, role_id, tenant_id, permissions=["orders.list"])()
    widen(restricted, role_id, tenant_id, display_name="renamed")()
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key_id))
    widen(restricted, role_id, tenant_id, permissions=["orders.*"])()


def test_acting_as_another_is_given_to_no_looser_key_by_its_role_either(house: House, tenant_id: str) -> None:
    may = house.role(tenant_id, allow_act_as=True)
    restricted = house.admin(tenant_id, *MANAGES, role_ids=[may], resources=["sites/berlin/*"])
    role_id = house.role(tenant_id)
    house.key(tenant_id, role_ids=[role_id])
    assert refused_for(widen(restricted, role_id, tenant_id, allow_act_as=True)) == "resources"
    widen(house.admin(tenant_id, *MANAGES, role_ids=[may]), role_id, tenant_id, allow_act_as=True)()


# Limits.


def limit(per_second: int, name: str = "requests") -> key_pb2.Limit:
    rate = key_pb2.RateLimit(limit=per_second, period=Duration(seconds=1))
    return key_pb2.Limit(name=name, rate_limit=rate)


def test_a_limit_looser_than_the_plans_belongs_to_administrators_of_the_root_tenant(house: House, root: Admin) -> None:
    tenant_id = house.tenant(plan_id=house.plan(key_limits=[limit(10)]))
    admin = house.admin(tenant_id, *MANAGES)
    key = create(admin, limits=[limit(10)])()
    change(admin, key, limits=[limit(5), limit(1_000, "another")])()
    assert refused_for(create(admin, limits=[limit(11)])) == "limits.requests"
    assert refused_for(change(admin, key, limits=[limit(11)])) == "limits.requests"
    as_quota = key_pb2.Limit(name="requests", quota=key_pb2.Quota(limit=1, period=key_pb2.Quota.PERIOD_DAY))
    assert refused_for(change(admin, key, limits=[as_quota])) == "limits.requests"
    assert change(root, key, limits=[limit(11)])().limits == [limit(11)]
    assert change(admin, key, display_name="renamed")().limits == [limit(11)]


def test_on_behalf_of_an_owner_nobody_is_an_administrator_of_the_root_tenant(house: House, root_key: str) -> None:
    tenant_id = house.tenant(plan_id=house.plan(key_limits=[limit(10)]))
    narrowed = house.caller(root_key, (BEHALF, "ada"))
    create(narrowed, tenant_id, limits=[limit(10)])()
    assert refused_for(create(narrowed, tenant_id, limits=[limit(11)])) == "limits.requests"
    assert refused_for(create(narrowed, tenant_id, default_user="bob")) == "default_user"
