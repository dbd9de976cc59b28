"""Every call of AdminService, by every kind of caller: who is answered, and how the others are refused.

A call that has no row in the table, or no sample request, fails here; one that this version does not offer must say so
to everybody.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from latchgate_server.admin.access import METHOD_PERMISSIONS
from tests.conformance.contract import METHODS, NOT_BUILT
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import Refusal, refusal, refusal_of
from tests.support.server import Admin

BEHALF = "x-latchgate-on-behalf-of"

# How a call ends. Each is a column's answer in the table.
OK = "ok"
NOTHING = "nothing"  # answered, and tells nothing of what was asked for
ABSENT = "absent"  # NOT_FOUND, as if it were nowhere
LACKS = "lacks"  # PERMISSION_DENIED, PERMISSION_MISSING: the permission of the call
ROOTS = "root's"  # the same, in the tenant latchgate
GUARDED = "guarded"  # PERMISSION_DENIED, ESCALATION_REFUSED

# An administrator of a tenant who holds everything, at home and elsewhere; one who is narrowed to an owner (by
# latchgate.keys.own, or on behalf), with the owner's keys and with another's.
#                     at home  elsewhere  own      another's
TABLE: Mapping[str, tuple[str, str, str, str]] = {
    "CreateTenant": (ROOTS, ROOTS, LACKS, LACKS),
    "GetTenant": (OK, ABSENT, LACKS, LACKS),
    "ListTenants": (OK, NOTHING, LACKS, LACKS),
    "UpdateTenant": (OK, ABSENT, LACKS, LACKS),
    "EnableTenant": (ROOTS, ROOTS, LACKS, LACKS),
    "DisableTenant": (ROOTS, ROOTS, LACKS, LACKS),
    "DeleteTenant": (ROOTS, ROOTS, LACKS, LACKS),
    "CreatePlan": (ROOTS, ROOTS, LACKS, LACKS),
    "GetPlan": (OK, ABSENT, LACKS, LACKS),
    "ListPlans": (OK, NOTHING, LACKS, LACKS),
    "UpdatePlan": (ROOTS, ROOTS, LACKS, LACKS),
    "DeletePlan": (ROOTS, ROOTS, LACKS, LACKS),
    "CreateRole": (OK, ABSENT, LACKS, LACKS),
    "GetRole": (OK, ABSENT, LACKS, LACKS),
    "ListRoles": (OK, ABSENT, LACKS, LACKS),
    "UpdateRole": (OK, ABSENT, LACKS, LACKS),
    "DeleteRole": (OK, ABSENT, LACKS, LACKS),
    "CreateKey": (OK, ABSENT, OK, GUARDED),
    "GetKey": (OK, ABSENT, OK, ABSENT),
    "ListKeys": (OK, NOTHING, OK, NOTHING),
    "UpdateKey": (OK, ABSENT, OK, ABSENT),
    "EnableKey": (OK, ABSENT, OK, ABSENT),
    "DisableKey": (OK, ABSENT, OK, ABSENT),
    "ExpireKey": (OK, ABSENT, OK, ABSENT),
    "RevokeKey": (OK, ABSENT, OK, ABSENT),
    "BatchRevokeKeys": (OK, NOTHING, LACKS, LACKS),
    "DeleteKey": (OK, ABSENT, OK, ABSENT),
    "RotateKey": (OK, ABSENT, OK, ABSENT),
    "GetRotation": (OK, ABSENT, OK, ABSENT),
    "ImportKeys": (OK, ABSENT, LACKS, LACKS),
    "ReportLeakedKeys": (OK, NOTHING, LACKS, LACKS),
    "ExplainKey": (OK, ABSENT, LACKS, LACKS),
    "ResetLimit": (OK, ABSENT, LACKS, LACKS),
    "GetUsage": (OK, ABSENT, LACKS, LACKS),
    "ListKeyUses": (OK, ABSENT, OK, ABSENT),
    "ListKeySources": (OK, ABSENT, OK, ABSENT),
    "ListBusiestKeys": (OK, NOTHING, LACKS, LACKS),
    "ListAuditEvents": (OK, NOTHING, LACKS, LACKS),
}


@dataclass
class Target:
    """What a call is about, in one tenant; made when a request names it."""

    house: House
    tenant_id: str
    plan_id: str
    owner: str = ""
    secrets: list[str] = field(default_factory=list)
    """Ids that nobody may be told who does not see the tenant, or the owner's keys."""

    @cached_property
    def _made(self) -> pb.CreateKeyResponse:
        quota = key_pb2.Quota(limit=9, period=key_pb2.Quota.PERIOD_DAY)
        limits = [key_pb2.Limit(name="calls", quota=quota)]
        made = self.house.key(self.tenant_id, owner=self.owner, limits=limits)
        self.secrets.append(made.key.key_id)
        return made

    @property
    def key_id(self) -> str:
        return self._made.key.key_id

    @property
    def key_string(self) -> str:
        return self._made.key_string

    @cached_property
    def rotated_key_id(self) -> str:
        rotate = pb.RotateKeyRequest(key_id=self.key_id, grace_period=Duration(seconds=60))
        self.house.root.RotateKey(rotate)
        return self.key_id

    @cached_property
    def used_tenant_id(self) -> str:
        """The tenant, once it is known that its key was used: to ask for what it may not do is a use as well."""
        refusal(lambda: self.house.caller(self.key_string).ListKeys(pb.ListKeysRequest()))
        deadline = time.monotonic() + 10
        while not self.house.root.ListBusiestKeys(pb.ListBusiestKeysRequest(tenant_id=self.tenant_id)).keys:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return self.tenant_id

    @cached_property
    def role_id(self) -> str:
        return self.house.role(self.tenant_id)

    @cached_property
    def spare_plan_id(self) -> str:
        """A plan that no tenant is on."""
        return self.house.plan()

    def fresh_id(self) -> str:
        return self.house.fresh_id("made")


_hashed = itertools.count(1)


def imported(target: Target) -> pb.ImportedKey:
    """A key of another system, by the hash of its credential."""
    key = key_pb2.Key(tenant_id=target.tenant_id, owner=target.owner)
    return pb.ImportedKey(key=key, sha256=hashlib.sha256(f"another system's {next(_hashed)}".encode()).digest())


REQUESTS: Mapping[str, Callable[[Target], Message]] = {
    "CreateTenant": lambda t: pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=t.fresh_id())),
    "GetTenant": lambda t: pb.GetTenantRequest(tenant_id=t.tenant_id),
    "ListTenants": lambda _: pb.ListTenantsRequest(page_size=1_000),
    "UpdateTenant": lambda t: pb.UpdateTenantRequest(
        tenant=tenant_pb2.Tenant(tenant_id=t.tenant_id, display_name=t.fresh_id())
    ),
    "EnableTenant": lambda t: pb.EnableTenantRequest(tenant_id=t.tenant_id),
    "DisableTenant": lambda t: pb.DisableTenantRequest(tenant_id=t.tenant_id),
    "DeleteTenant": lambda t: pb.DeleteTenantRequest(tenant_id=t.tenant_id),
    "CreatePlan": lambda t: pb.CreatePlanRequest(plan=tenant_pb2.Plan(plan_id=t.fresh_id())),
    "GetPlan": lambda t: pb.GetPlanRequest(plan_id=t.plan_id),
    "ListPlans": lambda _: pb.ListPlansRequest(page_size=1_000),
    "UpdatePlan": lambda t: pb.UpdatePlanRequest(plan=tenant_pb2.Plan(plan_id=t.plan_id, display_name=t.fresh_id())),
    "DeletePlan": lambda t: pb.DeletePlanRequest(plan_id=t.spare_plan_id),
    "CreateRole": lambda t: pb.CreateRoleRequest(role=tenant_pb2.Role(role_id=t.fresh_id(), tenant_id=t.tenant_id)),
    "GetRole": lambda t: pb.GetRoleRequest(role_id=t.role_id, tenant_id=t.tenant_id),
    "ListRoles": lambda t: pb.ListRolesRequest(tenant_id=t.role_id and t.tenant_id),
    "UpdateRole": lambda t: pb.UpdateRoleRequest(
        role=tenant_pb2.Role(role_id=t.role_id, tenant_id=t.tenant_id, display_name="new")
    ),
    "DeleteRole": lambda t: pb.DeleteRoleRequest(role_id=t.role_id, tenant_id=t.tenant_id),
    "CreateKey": lambda t: pb.CreateKeyRequest(key=key_pb2.Key(tenant_id=t.tenant_id, owner=t.owner)),
    "GetKey": lambda t: pb.GetKeyRequest(key_id=t.key_id),
    "ListKeys": lambda t: pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=t.tenant_id, owner=t.owner)),
    "UpdateKey": lambda t: pb.UpdateKeyRequest(key=key_pb2.Key(key_id=t.key_id, description="new")),
    "EnableKey": lambda t: pb.EnableKeyRequest(key_id=t.key_id),
    "DisableKey": lambda t: pb.DisableKeyRequest(key_id=t.key_id),
    "ExpireKey": lambda t: pb.ExpireKeyRequest(key_id=t.key_id),
    "RevokeKey": lambda t: pb.RevokeKeyRequest(key_id=t.key_id),
    "BatchRevokeKeys": lambda t: pb.BatchRevokeKeysRequest(filter=pb.KeyFilter(tenant_id=t.tenant_id, search=t.key_id)),
    "DeleteKey": lambda t: pb.DeleteKeyRequest(key_id=t.key_id),
    "RotateKey": lambda t: pb.RotateKeyRequest(key_id=t.key_id),
    "GetRotation": lambda t: pb.GetRotationRequest(key_id=t.rotated_key_id),
    "ImportKeys": lambda t: pb.ImportKeysRequest(keys=[imported(t)]),
    "ReportLeakedKeys": lambda t: pb.ReportLeakedKeysRequest(key_strings=[t.key_string]),
    "ExplainKey": lambda t: pb.ExplainKeyRequest(key_id=t.key_id),
    "ResetLimit": lambda t: pb.ResetLimitRequest(key_id=t.key_id, name="calls"),
    "GetUsage": lambda t: pb.GetUsageRequest(
        key_id=t.key_id, start_time=Timestamp(seconds=int(time.time()) - 60), bucket_length=Duration(seconds=3_600)
    ),
    "ListKeyUses": lambda t: pb.ListKeyUsesRequest(key_id=t.key_id),
    "ListKeySources": lambda t: pb.ListKeySourcesRequest(key_id=t.key_id),
    "ListBusiestKeys": lambda t: pb.ListBusiestKeysRequest(tenant_id=t.used_tenant_id),
    "ListAuditEvents": lambda t: pb.ListAuditEventsRequest(tenant_id=t.tenant_id),
}


SEARCHES = {method for method, row in TABLE.items() if NOTHING in row} | {"ListRoles"}
"""Calls that answer with what they find, of which there may be nothing."""


def ended(admin: Admin, method: str, target: Target) -> tuple[str, Refusal | None]:
    """How the call ends, as the table says it, and the error where it is one."""
    request = REQUESTS[method](target)
    try:
        response = getattr(admin, method)(request)
    except grpc.RpcError as error:
        refused = refusal_of(error)
        if refused.code is grpc.StatusCode.UNIMPLEMENTED:
            return "not built", refused
        if refused.reason == "PERMISSION_MISSING":
            assert (refused.code, refused.metadata) == (
                grpc.StatusCode.PERMISSION_DENIED,
                {"permission": METHOD_PERMISSIONS[method]},
            )
            return (ROOTS if f"in the tenant {ROOT_TENANT}" in refused.message else LACKS), refused
        names = {"RESOURCE_NOT_FOUND": ABSENT, "ESCALATION_REFUSED": GUARDED}
        return names.get(refused.reason, refused.reason), refused
    is_told = any(secret in str(response) for secret in target.secrets)
    is_done = bool(getattr(response, "revoked", 0))
    return (NOTHING if method in SEARCHES and not is_told and not is_done else OK), None


def expected(method: str, outcome: str) -> str:
    return "not built" if method in NOT_BUILT else outcome


# Where things happen, and who calls.


@pytest.fixture(scope="module")
def make_target(house: House) -> Callable[..., Target]:
    """Makes a tenant with a plan and gives what a call can be about there; with `like`, in the same tenant again."""

    def make(owner: str = "", like: Target | None = None) -> Target:
        plan_id = like.plan_id if like else house.plan()
        tenant_id = like.tenant_id if like else house.tenant(plan_id=plan_id)
        target = Target(house, tenant_id, plan_id, owner)
        target.secrets.extend([tenant_id, plan_id] if not owner else [])
        assert target.key_id
        return target

    return make


@pytest.fixture(scope="module")
def home(make_target: Callable[..., Target]) -> Target:
    return make_target()


@pytest.fixture(scope="module")
def callers(house: House, home: Target, root: Admin) -> Mapping[str, Callable[[str], Admin]]:
    """Each kind of caller; takes the call that is to be made."""
    tenant_id = home.tenant_id
    everything = house.admin(tenant_id, "*", "latchgate.*")
    own = house.admin(tenant_id, "latchgate.keys.own", owner="ada")
    portal = house.key(tenant_id, permissions=["*", "latchgate.*"], owner="portal").key_string
    plain = {name: house.admin(tenant_id, *held) for name, held in PLAIN.items()}
    return {
        "the first administrator": lambda _: root,
        "one permission in latchgate": lambda method: house.admin(ROOT_TENANT, METHOD_PERMISSIONS[method]),
        "all but the permission in latchgate": lambda method: house.admin(ROOT_TENANT, "*", *all_but(method)),
        "one permission in the tenant": lambda method: house.admin(tenant_id, METHOD_PERMISSIONS[method]),
        "everything in the tenant": lambda _: everything,
        "all but the permission in the tenant": lambda method: house.admin(tenant_id, "*", *all_but(method)),
        "keys.own": lambda _: own,
        "on behalf": lambda _: house.caller(portal, (BEHALF, "ada")),
        **{name: always(admin) for name, admin in plain.items()},
    }


PLAIN: Mapping[str, list[str]] = {
    "everything but latchgate": ["*"],
    "latchgate.verify": ["latchgate.verify"],
    "latchgate.watch": ["latchgate.watch"],
    "keys.own without an owner": ["latchgate.keys.own"],
    "no permission": [],
}
"""Keys that are no administrators."""


def always(admin: Admin) -> Callable[[str], Admin]:
    return lambda _: admin


def all_but(method: str) -> list[str]:
    return [permission for name, permission in METHOD_PERMISSIONS.items() if name != method]


@pytest.fixture
def nothing_changes(root: Admin) -> Iterator[None]:
    """A test that sees nothing but refusals leaves no audit event."""

    def newest() -> int:
        events = root.ListAuditEvents(pb.ListAuditEventsRequest(page_size=1)).events
        return int(events[0].sequence)

    before = newest()
    yield
    assert newest() == before


def test_the_table_and_the_requests_have_every_call_of_the_contract() -> None:
    assert list(TABLE) == list(METHODS)
    assert REQUESTS.keys() == METHODS.keys()
    for method in METHODS:
        template = REQUESTS[method].__code__.co_names
        assert METHODS[method].input_type.name in template, f"{method} is tried with another call's request"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["the first administrator", "one permission in latchgate"])
def test_administrators_of_all_reach_everything_with_the_calls_permission_alone(
    callers: Mapping[str, Callable[[str], Admin]], make_target: Callable[..., Target], method: str, kind: str
) -> None:
    outcome, refused = ended(callers[kind](method), method, make_target())
    assert outcome == expected(method, OK), refused


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["one permission in the tenant", "everything in the tenant"])
def test_administrators_of_a_tenant_reach_it_and_nothing_elsewhere(
    callers: Mapping[str, Callable[[str], Admin]],
    make_target: Callable[..., Target],
    home: Target,
    method: str,
    kind: str,
) -> None:
    admin = callers[kind](method)
    at_home, elsewhere, *_ = TABLE[method]
    outcome, refused = ended(admin, method, make_target(like=home))
    assert outcome == expected(method, at_home), refused
    outcome, refused = ended(admin, method, make_target())
    assert outcome == expected(method, elsewhere), refused


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["keys.own", "on behalf"])
def test_who_is_narrowed_to_an_owner_reaches_that_owners_keys_alone(
    callers: Mapping[str, Callable[[str], Admin]],
    make_target: Callable[..., Target],
    home: Target,
    method: str,
    kind: str,
) -> None:
    admin = callers[kind](method)
    *_, own, anothers = TABLE[method]
    outcome, refused = ended(admin, method, make_target("ada", like=home))
    assert outcome == expected(method, own), refused
    for target in (make_target("bob", like=home), make_target("", like=home)):
        if target.owner or method not in {"CreateKey", "ListKeys"}:  # where no owner means the caller's
            outcome, refused = ended(admin, method, target)
            assert outcome == expected(method, anothers), refused


@pytest.mark.parametrize("method", METHODS)
def test_whoever_lacks_the_permission_is_refused_whatever_else_it_holds(
    callers: Mapping[str, Callable[[str], Admin]], home: Target, request: pytest.FixtureRequest, method: str
) -> None:
    lacking = ["all but the permission in latchgate", "all but the permission in the tenant", *PLAIN]
    admins = {kind: callers[kind](method) for kind in lacking}
    REQUESTS[method](home)  # makes what it names before anything is counted
    request.getfixturevalue("nothing_changes")
    outcomes = {kind: ended(admin, method, home)[0] for kind, admin in admins.items()}
    assert outcomes == dict.fromkeys(lacking, expected(method, LACKS))


@pytest.fixture(scope="module")
def shut_out(house: House, root: Admin) -> Mapping[str, Admin]:
    """Administrators who hold everything and are let in no more, by the reason; and nobody."""
    made = {name: house.key(ROOT_TENANT, permissions=["*", "latchgate.*"]) for name in ("Disable", "Revoke", "Expire")}
    for name, key in made.items():
        getattr(root, f"{name}Key")(getattr(pb, f"{name}KeyRequest")(key_id=key.key.key_id))
    off = house.key(permissions=["*", "latchgate.*"])
    root.DisableTenant(pb.DisableTenantRequest(tenant_id=off.key.tenant_id))
    there = key_pb2.IpAllowlist(enabled=True, ranges=["192.0.2.0/24"])
    elsewhere = house.key(ROOT_TENANT, permissions=["*", "latchgate.*"], ip_allowlist=there).key_string
    genuine = house.key(ROOT_TENANT, permissions=["*", "latchgate.*"])
    wrong = f"{genuine.key.key_id}.{off.key_string.partition('.')[2]}"
    return {
        "API_KEY_DISABLED": house.caller(made["Disable"].key_string),
        "API_KEY_REVOKED": house.caller(made["Revoke"].key_string),
        "API_KEY_EXPIRED": house.caller(made["Expire"].key_string),
        "TENANT_DISABLED": house.caller(off.key_string),
        "IP_NOT_AUTHORIZED": house.caller(elsewhere),
        "MISSING_API_KEY": house.caller(""),
        "SECRET_REQUIRED": house.caller(genuine.key.key_id),
        "INVALID_SECRET": house.caller(wrong),
        "INVALID_API_KEY": house.caller("nonsense"),
    }


@pytest.mark.parametrize("method", METHODS)
def test_nobody_is_answered_whose_key_is_denied(
    shut_out: Mapping[str, Admin], home: Target, request: pytest.FixtureRequest, method: str
) -> None:
    REQUESTS[method](home)
    request.getfixturevalue("nothing_changes")
    told: dict[str, Any] = {}
    for reason, admin in shut_out.items():
        outcome, refused = ended(admin, method, home)
        assert refused
        told[reason] = (refused.code, outcome, refused.metadata.get("denial_reason"))
    if method in NOT_BUILT:
        assert {outcome for _, outcome, _ in told.values()} == {"not built"}
        return
    unauthenticated = grpc.StatusCode.UNAUTHENTICATED
    assert told == {reason: (unauthenticated, "ADMIN_KEY_REJECTED", reason) for reason in shut_out}
