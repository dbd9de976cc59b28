"""Which keys of other systems cannot be imported, by whom, and what a refusal says."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2
from latchgate_server.core import bounds
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.imported import ALLOW, INVALID_KEY, OWN_FORM, QUICK, by_argon2, by_sha256, import_keys
from tests.conformance.wire import refusal
from tests.support.server import Admin, Verify


@pytest.fixture
def tenant_id(house: House) -> str:
    return house.tenant()


def refused_fields(admin: Admin, *keys: pb.ImportedKey) -> Sequence[str]:
    refused = refusal(lambda: import_keys(admin, *keys))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    return refused.fields


GOOD = QUICK.hash("x")


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (pb.ImportedKey(key=key_pb2.Key(key_id="x")), "keys[0]"),
        (pb.ImportedKey(sha256=bytes(31)), "keys[0].sha256"),
        (pb.ImportedKey(sha256=bytes(33)), "keys[0].sha256"),
        (pb.ImportedKey(argon2=GOOD), "keys[0].key.key_id"),
        (pb.ImportedKey(key=key_pb2.Key(key_id="with.dot"), argon2=GOOD), "keys[0].key.key_id"),
        (pb.ImportedKey(key=key_pb2.Key(key_id="a space"), argon2=GOOD), "keys[0].key.key_id"),
        (pb.ImportedKey(key=key_pb2.Key(key_id="ключ"), argon2=GOOD), "keys[0].key.key_id"),
        (pb.ImportedKey(key=key_pb2.Key(key_id="x" * 256), argon2=GOOD), "keys[0].key.key_id"),
        (pb.ImportedKey(key=key_pb2.Key(key_id=OWN_FORM), argon2=GOOD), "keys[0].key.key_id"),
        (pb.ImportedKey(key=key_pb2.Key(key_id=OWN_FORM), sha256=bytes(32)), "keys[0].key.key_id"),
        (pb.ImportedKey(key=key_pb2.Key(key_id="x"), argon2="$2b$12$bcrypt"), "keys[0].argon2"),
        (
            pb.ImportedKey(key=key_pb2.Key(key_id="x"), argon2=GOOD.replace("m=64", "m=65537")),
            "keys[0].argon2",
        ),
        (pb.ImportedKey(key=key_pb2.Key(key_id="x"), argon2=GOOD.replace("t=1", "t=17")), "keys[0].argon2"),
        (pb.ImportedKey(key=key_pb2.Key(key_id="x"), argon2=GOOD.replace("p=1", "p=5")), "keys[0].argon2"),
        (
            pb.ImportedKey(key=key_pb2.Key(key_id="x"), argon2=GOOD.replace("m=64,t=1", "m=65536,t=5")),
            "keys[0].argon2",
        ),
        (
            pb.ImportedKey(key=key_pb2.Key(tenant_id="No Tenant"), sha256=bytes(32)),
            "keys[0].key.tenant_id",
        ),
        (pb.ImportedKey(key=key_pb2.Key(permissions=["Not One!"]), sha256=bytes(32)), "keys[0].key.permissions[0]"),
    ],
)
def test_an_entry_that_is_malformed_is_refused_by_its_path(root: Admin, entry: pb.ImportedKey, field: str) -> None:
    assert refused_fields(root, entry) == (field,)


def test_a_request_is_bounded_and_says_what_repeats_itself(root: Admin, tenant_id: str) -> None:
    assert refused_fields(root) == ("keys",)
    assert refused_fields(root, *[pb.ImportedKey()] * (bounds.IMPORTED_KEYS + 1)) == ("keys",)
    twice = [by_sha256("same", tenant_id), by_argon2("twice", "a", tenant_id)]
    other = [by_sha256("same", tenant_id), by_argon2("twice", "b", tenant_id)]
    assert refused_fields(root, *twice, *other) == ("keys[2].sha256", "keys[3].key.key_id")


@pytest.mark.parametrize("permission", ["latchgate.*", "latchgate.keys.get", "latchgate.verify", "latchgate.watch"])
def test_no_imported_key_is_an_administrators(
    root: Admin, house: House, verify: Verify, tenant_id: str, permission: str
) -> None:
    role_id = house.role(tenant_id, permissions=["orders.read", permission])
    assert refused_fields(root, by_sha256("x", tenant_id, permissions=["orders.read", permission])) == (
        "keys[0].key.permissions[1]",
    )
    assert refused_fields(root, by_sha256("x", tenant_id, role_ids=[role_id])) == ("keys[0].key.role_ids[0]",)
    # Nor does it become one by a later change.
    credential = house.fresh_id("later")
    made = import_keys(root, by_sha256(credential, tenant_id)).keys[0]
    root.UpdateKey(
        pb.UpdateKeyRequest(key=key_pb2.Key(key_id=made.key_id, permissions=[permission], role_ids=[role_id]))
    )
    granted = permission.replace("*", "keys.get")
    denied = verify(credential, required_permissions=granted).denial_reason
    assert denied == decision_pb2.DENIAL_REASON_INSUFFICIENT_PERMISSIONS
    assert verify(credential, required_permissions="orders.read").denial_reason == ALLOW
    refused = refusal(lambda: house.caller(credential).GetKey(pb.GetKeyRequest(key_id=made.key_id)))
    assert refused.reason == "PERMISSION_MISSING"


def test_all_are_taken_over_or_none_and_each_that_is_refused_is_named(
    root: Admin, house: House, verify: Verify, tenant_id: str
) -> None:
    credential, taken, own = house.fresh_id("good"), house.fresh_id("taken"), house.key(tenant_id).key.key_id
    import_keys(root, by_sha256(taken, tenant_id), by_argon2(f"{taken}-id", "x", tenant_id))
    entries = [
        by_sha256(credential, tenant_id),
        by_sha256(taken, tenant_id),
        by_argon2(f"{taken}-id", "y", tenant_id),
        by_sha256(house.fresh_id("x"), "no-such-tenant"),
        by_sha256(house.fresh_id("x"), tenant_id, role_ids=["no-such-role"]),
        by_sha256(house.fresh_id("x"), tenant_id, permissions=["latchgate.keys.get"]),
        by_sha256(house.fresh_id("x")),
    ]
    for dry_run in (True, False):
        refused = refusal(lambda: import_keys(root, *entries, dry_run=dry_run))  # noqa: B023 - called at once
        assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
        assert refused.fields == (
            "keys[1]",
            "keys[2]",
            "keys[3]",
            "keys[4]",
            "keys[5].key.permissions[0]",
            "keys[6].key.tenant_id",
        )
    assert verify(credential).denial_reason == INVALID_KEY
    assert verify(f"{taken}-id.x").denial_reason == ALLOW
    assert own


def test_a_refusal_tells_ten_at_most(root: Admin, house: House) -> None:
    entries = [by_sha256(house.fresh_id("x"), "no-such-tenant", key_id=house.fresh_id("i" * 200)) for _ in range(50)]
    refused = refusal(lambda: import_keys(root, *entries))
    assert (refused.reason, len(refused.fields)) == ("RESOURCE_NOT_FOUND", bounds.VIOLATIONS)


def test_a_dry_run_checks_and_changes_nothing(root: Admin, house: House, verify: Verify, tenant_id: str) -> None:
    credential, key_id = house.fresh_id("dry"), house.fresh_id("dry")
    entries = [by_sha256(credential, tenant_id, owner="ada"), by_argon2(key_id, "x", tenant_id)]
    dry = import_keys(root, *entries, dry_run=True)
    assert [key.key_id for key in dry.keys] == ["", key_id]
    assert dry.keys[0].owner == "ada"
    assert not dry.HasField("propagation")
    assert verify(credential).denial_reason == INVALID_KEY
    import_keys(root, *entries)
    assert verify(credential).denial_reason == ALLOW


def test_a_plans_max_keys_counts_imported_ones(root: Admin, house: House) -> None:
    tenant_id = house.tenant(plan_id=house.plan(max_keys=3))
    house.key(tenant_id)
    entries = [by_sha256(house.fresh_id("x"), tenant_id) for _ in range(4)]
    refused = refusal(lambda: import_keys(root, *entries))
    assert (refused.reason, refused.metadata) == ("KEY_LIMIT_REACHED", {"limit": "3"})
    assert refused.fields == ("keys[2]", "keys[3]")
    import_keys(root, *entries[:2])


def test_administrators_of_a_tenant_import_there_alone(
    house: House, root: Admin, verify: Verify, tenant_id: str
) -> None:
    admin = house.admin(tenant_id, "latchgate.keys.import", "orders.*")
    credential, elsewhere = house.fresh_id("mine"), house.tenant()
    assert import_keys(admin, by_sha256(credential)).keys[0].tenant_id == tenant_id
    refused = refusal(lambda: import_keys(admin, by_sha256("x", elsewhere)))
    unheard_of = refusal(lambda: import_keys(admin, by_sha256("x", "never-was")))
    assert refused.reason == unheard_of.reason == "RESOURCE_NOT_FOUND"
    assert refused.message.replace(elsewhere, "never-was") == unheard_of.message
    # That a credential is somebody else's already can be told, since forms are one space; whose it is cannot.
    other = house.fresh_id("theirs")
    made = import_keys(root, by_sha256(other, elsewhere)).keys[0]
    taken = refusal(lambda: import_keys(admin, by_sha256(other)))
    assert (taken.reason, taken.metadata) == ("RESOURCE_EXISTS", {"type": "credential", "id": "of keys[0]"})
    assert made.key_id not in taken.message + taken.raw
    assert elsewhere not in taken.message + taken.raw


def test_own_keys_alone_do_not_allow_to_import(house: House, tenant_id: str) -> None:
    admin = house.admin(tenant_id, "latchgate.keys.own", owner="ada")
    assert refusal(lambda: import_keys(admin, by_sha256("x"))).reason == "PERMISSION_MISSING"
    behalf = house.key(tenant_id, permissions=["latchgate.keys.import"]).key_string
    portal = house.caller(behalf, ("x-latchgate-on-behalf-of", "ada"))
    assert refusal(lambda: import_keys(portal, by_sha256("x"))).reason == "PERMISSION_MISSING"


def test_the_root_tenant_takes_imported_keys_without_making_them_administrators(
    root: Admin, house: House, verify: Verify
) -> None:
    credential = house.fresh_id("in-root")
    import_keys(root, by_sha256(credential, ROOT_TENANT, permissions=["*"]))
    refused = refusal(lambda: house.caller(credential).ListTenants(pb.ListTenantsRequest()))
    assert refused.reason == "PERMISSION_MISSING"
