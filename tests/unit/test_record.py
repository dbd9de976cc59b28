"""The record: what a key becomes once it is joined with its tenant, plan and roles."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from latchgate_server.core.model import HashProfile, Key, Plan, Role, SecretHash, Tenant
from latchgate_server.core.record import Record, build_record

TENANT = Tenant(tenant_id="acme", plan_id="gold")
SECRET = SecretHash(profile=HashProfile.GENERATED, pepper_id="1", phc="$argon2id$salt$digest", tag=b"\xde\xad\xbe\xef")


def _record(key: Key, *roles: Role, plan: Plan | None = None) -> Record:
    numbered = list(enumerate(roles, start=7))
    return build_record(key=key, secret=SECRET, tenant=TENANT, plan=plan, roles=numbered, revision=3)


def test_permissions_are_the_union_of_the_roles_and_the_keys_own_sorted() -> None:
    key = Key(key_id="k", tenant_id="acme", permissions=("orders.write", "a.*"))
    record = _record(key, Role(role_id="r", permissions=("orders.read", "a.*")), Role(role_id="s", permissions=("*",)))
    assert record.identity.permissions == ("*", "a.*", "orders.read", "orders.write")
    assert record.grants.listed == record.identity.permissions


def test_a_later_roles_claims_go_over_an_earlier_ones_and_the_keys_own_over_all() -> None:
    key = Key(key_id="k", tenant_id="acme", claims={"c": "key"})
    roles = [
        Role(role_id="r", claims={"a": "first", "b": "first", "c": "first"}),
        Role(role_id="s", claims={"b": "second", "c": "second"}),
    ]
    assert _record(key, *roles).identity.claims == {"a": "first", "b": "second", "c": "key"}
    assert roles[0].claims["b"] == "first"


@pytest.mark.parametrize(("owner", "default_user", "user"), [("ada", "bob", "bob"), ("ada", "", "ada"), ("", "", "")])
def test_a_key_speaks_for_its_default_user_else_for_its_owner(owner: str, default_user: str, user: str) -> None:
    key = Key(key_id="k", tenant_id="acme", owner=owner, default_user=default_user)
    assert _record(key).identity.user == user


def test_capabilities_are_the_plans_sorted_and_none_without_a_plan() -> None:
    key = Key(key_id="k", tenant_id="acme")
    with_plan = _record(key, plan=Plan(plan_id="gold", capabilities=("export", "audit")))
    assert with_plan.identity.capabilities == ("audit", "export")
    assert with_plan.capabilities == {"audit", "export"}
    assert not _record(key).capabilities


def test_one_role_that_allows_it_is_enough_to_act_as_another() -> None:
    key = Key(key_id="k", tenant_id="acme")
    assert _record(key, Role(role_id="r"), Role(role_id="s", allow_act_as=True)).may_act_as
    assert not _record(key, Role(role_id="r")).may_act_as
    assert not _record(key).may_act_as


def test_expiry_is_in_unix_seconds_and_infinite_for_a_key_that_never_expires() -> None:
    expire_time = datetime(2001, 9, 9, 1, 46, 40, 500_000, tzinfo=UTC)
    assert _record(Key(key_id="k", tenant_id="acme", expire_time=expire_time)).expire_at == 1_000_000_000.5
    assert _record(Key(key_id="k", tenant_id="acme")).expire_at == math.inf


def test_roles_are_known_by_their_numbers_in_the_keys_order() -> None:
    record = _record(Key(key_id="k", tenant_id="acme"), Role(role_id="r"), Role(role_id="s"))
    assert record.role_numbers == (7, 8)


def test_the_repr_of_a_record_holds_nothing_of_the_secrets_hash() -> None:
    shown = repr(_record(Key(key_id="k", tenant_id="acme")))
    assert "acme" in shown
    assert not any(kept in shown for kept in ["argon2", "salt", "digest", repr(SECRET.tag), "SecretHash"])
