"""`AdminClient` and `AsyncAdminClient` against a real server: every call, with plain arguments and typed values."""

from __future__ import annotations

import hashlib
import inspect
import re
import time
import uuid
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from latchgate import (
    AdminClient,
    AlreadyExists,
    AsyncAdminClient,
    Client,
    Conflict,
    InvalidRequest,
    KeyStringLost,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
)
from latchgate.admin import ImportedKey, IpAllowlist, Key, Quota, RateLimit
from latchgate.v1.admin_service_pb2 import DESCRIPTOR
from tests.client.blocking import open_admin
from tests.support.server import ServerProcess

RPCS = [method.name for method in DESCRIPTOR.services_by_name["AdminService"].methods]
LATER = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
_numbers = count(1)


def fresh(prefix: str) -> str:
    return f"{prefix}-{next(_numbers)}"


@pytest.fixture
def tenant(admin: AdminClient) -> str:
    return admin.create_tenant(fresh("t")).tenant.tenant_id


def key_of(admin: AdminClient, tenant: str, **chosen: Any) -> Key:
    return admin.create_key(tenant=tenant, **chosen).key


@pytest.mark.parametrize("client", [AdminClient, AsyncAdminClient])
def test_every_rpc_has_a_method_with_documentation(client: type) -> None:
    assert len(RPCS) > 30
    for rpc in RPCS:
        method = getattr(client, re.sub(r"(?<!^)(?=[A-Z])", "_", rpc).lower(), None)
        assert method is not None, f"{client.__name__} has no method for {rpc}"
        assert inspect.getdoc(method), rpc


def test_both_clients_take_the_same_arguments() -> None:
    def public(client: type) -> dict[str, str]:
        return {name: str(inspect.signature(value)) for name, value in vars(client).items() if name[0] != "_"}

    blocking, asynchronous = public(AdminClient), public(AsyncAdminClient)
    assert {name: text.replace("Async", "") for name, text in asynchronous.items()} == blocking


def test_a_method_shows_its_own_parameters_to_those_who_ask() -> None:
    with AdminClient("127.0.0.1:1", "key") as client:
        assert list(inspect.signature(client.get_key).parameters) == ["key_id"]
        assert next(iter(inspect.signature(client.get_usage).parameters)) == "key_id"


# Every call.


def test_the_life_of_a_tenant(admin: AdminClient) -> None:
    tenant_id, plan = fresh("t"), admin.create_plan(fresh("p")).plan.plan_id
    limit = Quota(name="monthly", limit=1_000, period="month")
    made = admin.create_tenant(tenant_id, display_name="Acme", plan=plan, limits=[limit], tags={"a": "b"})
    assert (made.tenant.display_name, made.tenant.plan, made.tenant.limits) == ("Acme", plan, (limit,))
    assert made.tenant.enabled
    assert made.propagation.revision > 0
    assert admin.get_tenant(tenant_id) == made.tenant
    assert tenant_id in [tenant.tenant_id for tenant in admin.list_tenants()]
    changed = admin.update_tenant(tenant_id, limits=[], etag=made.tenant.etag).tenant
    assert (changed.limits, changed.display_name, changed.tags) == ((), "Acme", {"a": "b"})
    assert not admin.disable_tenant(tenant_id, reason="unpaid").tenant.enabled
    assert admin.enable_tenant(tenant_id).tenant.enabled
    assert admin.delete_tenant(tenant_id).revision > made.propagation.revision
    with pytest.raises(NotFound) as missing:
        admin.get_tenant(tenant_id)
    assert (missing.value.reason, missing.value.metadata) == ("RESOURCE_NOT_FOUND", {"type": "tenant", "id": tenant_id})


def test_the_life_of_a_plan(admin: AdminClient) -> None:
    plan_id = fresh("p")
    rate = RateLimit(name="calls", limit=100, period=timedelta(minutes=1), burst=20)
    lifetime = Quota(name="prepaid", limit=5, period="lifetime")
    made = admin.create_plan(
        plan_id, display_name="Pro", capabilities=["export"], key_limits=[rate], tenant_limits=[lifetime], max_keys=7
    ).plan
    assert (made.capabilities, made.key_limits, made.tenant_limits) == (("export",), (rate,), (lifetime,))
    assert admin.get_plan(plan_id) == made
    assert made in list(admin.list_plans())
    assert admin.update_plan(plan_id, max_keys=0).plan.max_keys == 0
    with pytest.raises(AlreadyExists) as taken:
        admin.create_plan(plan_id)
    assert taken.value.reason == "RESOURCE_EXISTS"
    assert admin.delete_plan(plan_id).revision


def test_the_life_of_a_role(admin: AdminClient, tenant: str) -> None:
    role_id, claims = fresh("r"), {"rows": {"max": 100, "share": 0.5}, "sites": ["berlin", None, True]}
    made = admin.create_role(role_id, tenant=tenant, permissions=["orders.*"], claims=claims, allow_act_as=True).role
    assert (made.tenant, made.permissions, made.claims, made.allow_act_as) == (tenant, ("orders.*",), claims, True)
    assert isinstance(made.claims["rows"]["max"], int)
    assert admin.get_role(role_id, tenant=tenant) == made
    assert role_id in [role.role_id for role in admin.list_roles(tenant=tenant)]
    assert admin.update_role(role_id, tenant=tenant, claims={}).role.claims == {}
    key_of(admin, tenant, roles=[role_id])
    with pytest.raises(PreconditionFailed) as used:
        admin.delete_role(role_id, tenant=tenant)
    assert used.value.reason == "RESOURCE_IN_USE"
    other = admin.create_role(fresh("r"), tenant=tenant).role.role_id
    assert admin.delete_role(other, tenant=tenant).revision


def test_a_key_with_everything_comes_back_as_it_was_asked_for(admin: AdminClient, tenant: str) -> None:
    role = admin.create_role(fresh("r"), tenant=tenant).role.role_id
    chosen: dict[str, Any] = {
        "display_name": "web shop",
        "description": "of the\nshop",
        "owner": "ada",
        "default_user": "grace",
        "roles": (role,),
        "permissions": ("orders.read",),
        "resources": ("sites/berlin/*",),
        "claims": {"region": "eu"},
        "environment": "production",
        "tags": {"team": "web"},
        "ip_allowlist": IpAllowlist(("10.0.0.0/8",), enabled=False),
        "expire_time": LATER,
        "rotate_by_time": LATER - timedelta(days=1),
        "limits": (RateLimit(name="calls", limit=5, period=timedelta(seconds=1)),),
    }
    made = admin.create_key(tenant=tenant, prefix="shop", **chosen)
    assert {name: getattr(made.key, name) for name in chosen} == chosen
    assert (made.key.state, made.key.expired, made.key.last_use) == ("active", False, None)
    assert made.key_string.startswith(made.key.key_id + ".")
    assert made.key.key_id.startswith("shop_")
    assert admin.get_key(made.key.key_id) == made.key


def test_an_update_changes_what_is_given_and_clears_what_is_given_empty(admin: AdminClient, tenant: str) -> None:
    key = key_of(
        admin, tenant, display_name="a", owner="ada", expire_time=LATER, ip_allowlist=["10.0.0.0/8"], tags={"a": "b"}
    )
    named = admin.update_key(key.key_id, display_name="b").key
    assert (named.display_name, named.owner, named.expire_time, named.tags) == ("b", "ada", LATER, {"a": "b"})
    cleared = admin.update_key(key.key_id, owner="", expire_time=None, ip_allowlist=None, tags={}).key
    assert (cleared.display_name, cleared.owner, cleared.expire_time) == ("b", "", None)
    assert (cleared.ip_allowlist, cleared.tags) == (None, {})


def test_an_update_on_old_state_is_a_conflict(admin: AdminClient, tenant: str) -> None:
    key = key_of(admin, tenant)
    current = admin.update_key(key.key_id, owner="ada", etag=key.etag).key
    with pytest.raises(Conflict) as conflict:
        admin.update_key(key.key_id, owner="eve", etag=key.etag)
    assert conflict.value.reason == "ETAG_MISMATCH"
    assert admin.get_key(key.key_id) == current


def test_the_states_of_a_key(admin: AdminClient, tenant: str) -> None:
    key_id = key_of(admin, tenant).key_id
    assert admin.disable_key(key_id, reason="lost").key.state == "disabled"
    assert admin.enable_key(key_id).key.state == "active"
    assert admin.expire_key(key_id).key.expired
    assert not admin.update_key(key_id, expire_time=None).key.expired
    revoked = admin.revoke_key(key_id, reason="gone").key
    assert (revoked.state, revoked.revocation_reason) == ("revoked", "gone")
    with pytest.raises(PreconditionFailed) as refused:
        admin.enable_key(key_id)
    assert (refused.value.reason, refused.value.metadata) == ("ILLEGAL_TRANSITION", {"state": "REVOKED"})
    assert admin.delete_key(key_id, reason="tidying").revision


def test_a_list_is_read_page_by_page_and_filtered(admin: AdminClient, tenant: str) -> None:
    keys = [key_of(admin, tenant, owner=owner).key_id for owner in ("ada", "eve", "ada", "ada", "eve")]
    admin.disable_key(keys[0])
    assert [key.key_id for key in admin.list_keys(tenant=tenant, page_size=2)] == keys[::-1]
    assert [key.key_id for key in admin.list_keys(tenant=tenant, owner="ada", states=["active"])] == [keys[3], keys[2]]
    listed = admin.list_keys(tenant=tenant, page_size=3)
    first = listed.page()
    second = listed.page(first.next_page_token)
    assert [key.key_id for key in first.entries + second.entries] == keys[::-1]
    assert (len(first.entries), second.next_page_token) == (3, "")


def test_many_keys_are_revoked_at_once(admin: AdminClient, tenant: str) -> None:
    for _ in range(3):
        key_of(admin, tenant)
    counted = admin.batch_revoke_keys(tenant=tenant, dry_run=True)
    assert (counted.revoked, counted.propagation) == (3, None)
    done = admin.batch_revoke_keys(tenant=tenant, reason="leak")
    assert done.revoked == 3
    assert done.propagation is not None
    assert {key.state for key in admin.list_keys(tenant=tenant)} == {"revoked"}


@pytest.mark.parametrize("empty", [{"owner": ""}, {"states": []}, {"unused_since": None}])
def test_an_empty_filter_revokes_nothing(admin: AdminClient, tenant: str, empty: Any) -> None:
    """What a program forgot to fill in must not make the filter wider."""
    key = key_of(admin, tenant)
    with pytest.raises(ValueError, match="would match any key"):
        admin.batch_revoke_keys(tenant=tenant, **empty)
    with pytest.raises(InvalidRequest):
        admin.batch_revoke_keys()
    assert admin.get_key(key.key_id).state == "active"


def test_a_rotation_and_how_far_it_got(admin: AdminClient, tenant: str) -> None:
    old = key_of(admin, tenant, roles=[], owner="ada")
    rotated = admin.rotate_key(old.key_id, grace_period=timedelta(days=7), expire_time=LATER)
    assert (rotated.key.owner, rotated.key.expire_time, rotated.key.predecessor_key_id) == ("ada", LATER, old.key_id)
    assert rotated.key_string.startswith(rotated.key.key_id + ".")
    assert rotated.predecessor.successor_key_id == rotated.key.key_id
    rotation = admin.get_rotation(old.key_id)
    assert (rotation.predecessor, rotation.successor) == (rotated.predecessor, rotated.key)
    assert (rotation.safe_to_revoke, rotation.predecessor_uses_day) == (False, 0)
    assert rotation.explanation


def test_keys_of_another_system_are_taken_over(admin: AdminClient, tenant: str, server: ServerProcess) -> None:
    credential = fresh("their-own-key-")
    theirs = ImportedKey(
        tenant=tenant, sha256=hashlib.sha256(credential.encode()).digest(), chosen={"permissions": ["orders.read"]}
    )
    assert admin.import_keys([theirs], dry_run=True).propagation is None
    imported = admin.import_keys([theirs])
    assert imported.keys[0].permissions == ("orders.read",)
    with Client(server.verify_address) as client:
        assert client.verify(credential, requires="orders.read").allowed
    with pytest.raises(AlreadyExists) as refused:
        admin.import_keys([theirs])
    assert "keys[0]" in refused.value.violations


def test_leaked_keys_are_disabled(admin: AdminClient, tenant: str) -> None:
    made = admin.create_key(tenant=tenant)
    report = admin.report_leaked_keys([made.key_string, "garbage"], source="a public repository")
    assert report.disabled_key_ids == (made.key.key_id, "")
    assert admin.get_key(made.key.key_id).state == "disabled"


def test_a_denial_is_explained_and_a_limit_given_back(admin: AdminClient, tenant: str, server: ServerProcess) -> None:
    limit = RateLimit(name="calls", limit=3, period=timedelta(hours=1))
    made = admin.create_key(tenant=tenant, ip_allowlist=["10.0.0.0/8"], limits=[limit])
    explained = admin.explain_key(made.key.key_id, client_ip="203.0.113.9")
    assert (explained.allowed, explained.reason) == (False, "IP_NOT_AUTHORIZED")
    assert [check.detail for check in explained.checks if not check.passed]
    with Client(server.verify_address) as client:
        assert client.verify(made.key_string, client_ip="10.1.2.3", cost=3).allowed
    assert admin.reset_limit("calls", key_id=made.key.key_id, remaining=2).limit.remaining == 2
    assert admin.reset_limit("calls", key_id=made.key.key_id, reason="sorry").limit.remaining == 3


def test_what_happened_is_told(admin: AdminClient, tenant: str, server: ServerProcess) -> None:
    made = admin.create_key(tenant=tenant)
    started = datetime.now(UTC) - timedelta(minutes=1)
    with Client(server.verify_address) as client:
        client.verify(made.key_string, client_ip="203.0.113.9", path="/orders")
    key_id = made.key.key_id
    deadline = time.monotonic() + 20  # they are written within a second
    while not (uses := admin.list_key_uses(key_id)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (uses[0].allowed, uses[0].reason, uses[0].path) == (True, "", "/orders")
    assert [(source.client_ip, source.count) for source in admin.list_key_sources(key_id)] == [("203.0.113.9", 1)]
    for subject in ({"key_id": key_id}, {"tenant": tenant}):
        buckets = admin.get_usage(**subject, start_time=started, bucket="hour")  # type: ignore[arg-type]
        assert sum(bucket.allowed for bucket in buckets) == 1
        assert buckets[0].length == timedelta(hours=1)
    (busiest,) = admin.list_busiest_keys(tenant=tenant)
    assert (busiest.key_id, busiest.tenant, busiest.uses_this_hour + busiest.uses_hour_before) == (key_id, tenant, 1)
    events = list(admin.list_audit_events(tenant=tenant, page_size=1))
    assert [event.method for event in events] == ["CreateKey", "CreateTenant"]
    assert events[0].target_id == key_id
    assert events[0].before is None
    assert events[0].after is not None
    assert len(events[0].hash) == 32


# Refusals.


def test_a_malformed_field_is_named(admin: AdminClient) -> None:
    with pytest.raises(InvalidRequest) as refused:
        admin.create_tenant("NOT AN ID", display_name="x" * 201)
    assert refused.value.reason == "INVALID_FIELD"
    assert set(refused.value.violations) == {"tenant.tenant_id", "tenant.display_name"}


def test_what_no_request_can_be_made_of_is_refused_before_it_is_sent(admin: AdminClient) -> None:
    wrong: Any = admin
    for arguments in ({"roles": "reader"}, {"ip_allowlist": "10.0.0.1"}, {"display_nam": "x"}):
        with pytest.raises(TypeError):
            wrong.create_key(**arguments)
    with pytest.raises(ValueError, match="time zone"):
        admin.create_key(expire_time=datetime(2040, 1, 1))  # noqa: DTZ001 - that is what is refused
    with pytest.raises(ValueError, match="nothing to change"):
        admin.update_key("lg_1")
    with pytest.raises(ValueError, match="either"):
        admin.get_usage(start_time=LATER)
    with pytest.raises(ValueError, match="either"):
        admin.reset_limit("calls", key_id="a", tenant="b")
    with pytest.raises(ValueError, match="either"):
        admin.import_keys([ImportedKey(tenant="acme")])


def test_values_cannot_be_changed(admin: AdminClient, tenant: str) -> None:
    with pytest.raises(FrozenInstanceError):
        key_of(admin, tenant).state = "active"  # type: ignore[misc]


def test_a_key_that_was_told_before_is_no_new_key(admin: AdminClient, tenant: str) -> None:
    request_id = str(uuid.uuid4())
    first = admin.create_key(tenant=tenant, request_id=request_id)
    with pytest.raises(KeyStringLost) as lost:
        admin.create_key(tenant=tenant, request_id=request_id)
    assert lost.value.key == first.key
    request_id = str(uuid.uuid4())
    rotated = admin.rotate_key(first.key.key_id, grace_period=timedelta(days=1), request_id=request_id)
    with pytest.raises(KeyStringLost) as lost:
        admin.rotate_key(first.key.key_id, grace_period=timedelta(days=1), request_id=request_id)
    assert lost.value.key == rotated.key
    assert first.key.key_id in [key.key_id for key in admin.list_keys(tenant=tenant)]
    assert len(list(admin.list_keys(tenant=tenant))) == 2


# On behalf of somebody.


def test_a_portal_acts_for_its_user_and_for_nobody_else(admin: AdminClient, tenant: str) -> None:
    hers, his = (key_of(admin, tenant, owner=owner) for owner in (fresh("ada"), fresh("bob")))
    for_her = admin.on_behalf_of(hers.owner)
    assert [key.key_id for key in for_her.list_keys(tenant=tenant)] == [hers.key_id]
    with pytest.raises(NotFound):
        for_her.disable_key(his.key_id)
    with pytest.raises(PermissionDenied):
        for_her.create_tenant(fresh("t"))
    for_her.close()
    assert admin.get_key(his.key_id).owner == his.owner, "the connection is not the view's to close"


@pytest.mark.parametrize("owner", ["", " ", " ada", "J\u00fcrgen", "a\nb"])
def test_a_portal_that_does_not_know_whom_it_acts_for_acts_for_nobody(owner: str) -> None:
    with AdminClient("127.0.0.1:1", "key") as client, pytest.raises(ValueError, match="on_behalf_of"):
        client.on_behalf_of(owner)
    with pytest.raises(ValueError, match="on_behalf_of"):
        AdminClient("127.0.0.1:1", "key", on_behalf_of=owner)


@pytest.mark.parametrize("kind", ["AdminClient", "AsyncAdminClient"])
def test_a_client_for_one_user_from_the_start(root_key_and_server: tuple[str, ServerProcess], kind: str) -> None:
    root_key, server = root_key_and_server
    with open_admin(kind, server.admin_address, root_key, on_behalf_of="nobody in particular") as client:
        assert list(client.list_keys()) == []


@pytest.mark.parametrize("kind", ["AdminClient", "AsyncAdminClient"])
def test_a_wrong_key_is_refused_with_the_reason(server: ServerProcess, kind: str) -> None:
    with open_admin(kind, server.admin_address, "garbage") as client, pytest.raises(NotAuthenticated) as refused:
        client.get_tenant("acme")
    assert refused.value.reason == "ADMIN_KEY_REJECTED"
    assert refused.value.metadata == {"denial_reason": "INVALID_API_KEY"}
