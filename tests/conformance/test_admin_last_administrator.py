"""Somebody is always left who can administer everything, but where a leaked key has to go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, key_pb2, tenant_pb2
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import code_of, refusal
from tests.support.server import Admin, Verify, environment, run_command

EVERYTHING = ["*", "latchgate.*"]
ELSEWHERE = key_pb2.IpAllowlist(enabled=True, ranges=["192.0.2.0/24"])
HERE = key_pb2.IpAllowlist(enabled=True, ranges=["127.0.0.0/8", "::1"])
ACTIVE = [key_pb2.Key.STATE_ACTIVE]
WAYS_OUT = [
    *("disable", "revoke", "expire", "delete", "expire in the past", "expire in the future", "no permission"),
    *("no business", "business alone", "from elsewhere alone", "a successor that expires"),
    *("disable the tenant", "revoke all of the tenant", "revoke all"),
]


def refused(call: Callable[[], object]) -> bool:
    told = refusal(call)
    assert (told.code, told.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "LAST_ADMINISTRATOR"), told
    assert "create another one first" in told.message
    return True


def update(admin: Admin, key_id: str, *paths: str, **fields: Any) -> object:
    mask = FieldMask(paths=paths or list(fields))
    return admin.UpdateKey(pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id, **fields), update_mask=mask))


def revoke_all(admin: Admin, **fields: Any) -> Callable[[], Any]:
    return lambda: admin.BatchRevokeKeys(pb.BatchRevokeKeysRequest(filter=pb.KeyFilter(**fields)))


def ways_out(admin: Admin, key_id: str) -> Mapping[str, Callable[[], object]]:
    """Every call after which nobody would be let in as this administrator any more, now or later."""
    future = Timestamp(seconds=4_000_000_000)
    return {
        "disable": lambda: admin.DisableKey(pb.DisableKeyRequest(key_id=key_id)),
        "revoke": lambda: admin.RevokeKey(pb.RevokeKeyRequest(key_id=key_id)),
        "expire": lambda: admin.ExpireKey(pb.ExpireKeyRequest(key_id=key_id)),
        "delete": lambda: admin.DeleteKey(pb.DeleteKeyRequest(key_id=key_id)),
        "expire in the past": lambda: update(admin, key_id, expire_time=Timestamp(seconds=1)),
        "expire in the future": lambda: update(admin, key_id, expire_time=future),
        "no permission": lambda: update(admin, key_id, "permissions"),
        "no business": lambda: update(admin, key_id, permissions=["latchgate.*"]),
        "business alone": lambda: update(admin, key_id, permissions=["*"]),
        "from elsewhere alone": lambda: update(admin, key_id, ip_allowlist=ELSEWHERE),
        "a successor that expires": lambda: admin.RotateKey(pb.RotateKeyRequest(key_id=key_id, expire_time=future)),
        "disable the tenant": lambda: admin.DisableTenant(pb.DisableTenantRequest(tenant_id=ROOT_TENANT)),
        "revoke all of the tenant": revoke_all(admin, tenant_id=ROOT_TENANT),
        "revoke all": revoke_all(admin, states=ACTIVE),
    }


@pytest.fixture
def root_id(root_key: str) -> str:
    """The id of the first administrator's key, between tests the only one that can do everything."""
    return root_key.partition(".")[0]


@pytest.fixture
def execute(module_database: str) -> Callable[[str], None]:
    """Runs SQL that is typed by hand."""

    def run(statement: str) -> None:
        async def connected() -> None:
            connection = await asyncpg.connect(module_database)
            await connection.execute(statement)
            await connection.close()

        asyncio.run(connected())

    return run


@pytest.fixture
def another(house: House, root: Admin, root_id: str) -> Iterator[Callable[..., pb.CreateKeyResponse]]:
    """Makes further administrators of the root tenant; they and their successors are gone after the test."""
    yield lambda **fields: house.key(ROOT_TENANT, **({"permissions": EVERYTHING} | fields))
    for key in root.ListKeys(pb.ListKeysRequest(filter=pb.KeyFilter(tenant_id=ROOT_TENANT))).keys:
        if key.key_id != root_id:
            root.DeleteKey(pb.DeleteKeyRequest(key_id=key.key_id))


def key_as_made(root: Admin, key_id: str) -> key_pb2.Key:
    """The key without what its use changes."""
    key: key_pb2.Key = root.GetKey(pb.GetKeyRequest(key_id=key_id)).key
    key.ClearField("last_use")
    return key


@pytest.mark.parametrize("way", WAYS_OUT)
def test_the_last_administrator_cannot_lock_itself_out(root: Admin, root_id: str, house: House, way: str) -> None:
    bystander = house.key().key
    before = key_as_made(root, root_id)
    assert refused(ways_out(root, root_id)[way])
    assert key_as_made(root, root_id) == before
    assert root.GetKey(pb.GetKeyRequest(key_id=bystander.key_id)).key == bystander, "nothing else went before"


@pytest.mark.parametrize("way", WAYS_OUT[:-3])
def test_who_is_not_the_last_may_go(root: Admin, another: Callable[..., Any], house: House, way: str) -> None:
    made = another()
    ways_out(house.caller(made.key_string), made.key.key_id)[way]()


@pytest.mark.parametrize(
    "lesser",
    [
        {"permissions": ["latchgate.*"]},
        {"permissions": ["*", "latchgate.keys.*", "latchgate.tenants.*"]},
        {"expire_time": Timestamp(seconds=4_000_000_000)},
        {"ip_allowlist": ELSEWHERE},
    ],
    ids=str,
)
def test_another_one_who_is_less_or_not_for_good_does_not_count(
    root: Admin, root_id: str, another: Callable[..., Any], lesser: Mapping[str, Any]
) -> None:
    another(**lesser)
    assert refused(ways_out(root, root_id)["revoke"])


def test_another_one_who_is_switched_off_does_not_count(root: Admin, root_id: str, another: Callable[..., Any]) -> None:
    for method in ("Disable", "Revoke", "Expire"):
        getattr(root, f"{method}Key")(getattr(pb, f"{method}KeyRequest")(key_id=another().key.key_id))
    assert refused(ways_out(root, root_id)["disable"])


def test_an_administrator_by_a_role_counts_until_the_role_changes(
    root: Admin, root_id: str, another: Callable[..., Any], house: House
) -> None:
    role_id = house.role(ROOT_TENANT, permissions=EVERYTHING)
    by_role = house.caller(another(permissions=[], role_ids=[role_id], ip_allowlist=HERE).key_string)
    by_role.DisableKey(pb.DisableKeyRequest(key_id=root_id))
    role = tenant_pb2.Role(role_id=role_id, tenant_id=ROOT_TENANT, permissions=["latchgate.*"])
    narrow = pb.UpdateRoleRequest(role=role, update_mask=FieldMask(paths=["permissions"]))
    assert refused(lambda: by_role.UpdateRole(narrow))
    by_role.EnableKey(pb.EnableKeyRequest(key_id=root_id))
    root.UpdateRole(narrow)


def test_two_administrators_who_disable_each_other_at_once_do_not_both_go(
    root: Admin, root_id: str, another: Callable[..., Any], house: House
) -> None:
    made = another()
    other = house.caller(made.key_string)
    with ThreadPoolExecutor(2) as threads:
        ended = [
            threads.submit(code_of, admin.DisableKey, pb.DisableKeyRequest(key_id=key_id))
            for admin, key_id in [(root, made.key.key_id), (other, root_id)]
        ]
    codes = [future.result() for future in ended]
    assert codes.count(grpc.StatusCode.OK) == 1
    if codes[1] is grpc.StatusCode.OK:
        other.EnableKey(pb.EnableKeyRequest(key_id=root_id))


@pytest.mark.parametrize("grace", [0, 60])
def test_rotating_the_last_administrator_leaves_its_successor(
    root: Admin, another: Callable[..., Any], house: House, root_id: str, grace: int
) -> None:
    made = another()
    last = house.caller(made.key_string)
    last.DisableKey(pb.DisableKeyRequest(key_id=root_id))
    rotate = pb.RotateKeyRequest(key_id=made.key.key_id, grace_period=Duration(seconds=grace))
    successor = house.caller(last.RotateKey(rotate).key_string)
    successor.EnableKey(pb.EnableKeyRequest(key_id=root_id))


def test_what_others_do_is_not_looked_at(root: Admin, house: House) -> None:
    made = house.key(permissions=EVERYTHING)
    house.caller(made.key_string).RevokeKey(pb.RevokeKeyRequest(key_id=made.key.key_id))
    lesser = house.key(ROOT_TENANT, permissions=["latchgate.keys.*"])
    house.caller(lesser.key_string).DeleteKey(pb.DeleteKeyRequest(key_id=lesser.key.key_id))
    root.UpdateTenant(pb.UpdateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id=ROOT_TENANT, display_name="Us")))


def test_a_leak_ends_the_last_administrator_and_init_recover_makes_another(
    root: Admin, root_key: str, root_id: str, verify: Verify, house: House, module_database: str
) -> None:
    tenant_id = house.tenant()
    root.ReportLeakedKeys(pb.ReportLeakedKeysRequest(key_strings=[root_key]))
    assert verify(root_key).denial_reason == decision_pb2.DENIAL_REASON_API_KEY_DISABLED
    assert refusal(house.tenant).reason == "ADMIN_KEY_REJECTED"

    done = run_command("init", "--recover", env=environment(module_database))

    assert (done.returncode, done.stdout.count("\n")) == (0, 1), done
    assert "note:" not in done.stderr, "nobody else could do anything"
    recovered = house.caller(done.stdout.strip())
    recovered.DisableTenant(pb.DisableTenantRequest(tenant_id=tenant_id))
    (event,) = recovered.ListAuditEvents(pb.ListAuditEventsRequest(actor="system", page_size=1)).events
    assert (event.method, event.target_type) == ("init --recover", "key")
    assert event.target_id == done.stdout.partition(".")[0]
    assert refused(ways_out(recovered, event.target_id)["disable"])
    recovered.EnableKey(pb.EnableKeyRequest(key_id=root_id))
    recovered.DeleteKey(pb.DeleteKeyRequest(key_id=event.target_id))


def test_recovery_tells_of_others_and_switches_the_tenant_on(
    root: Admin, root_id: str, root_key: str, verify: Verify, house: House, module_database: str, execute: Any
) -> None:
    execute(f"UPDATE tenants SET enabled = false WHERE tenant_id = '{ROOT_TENANT}'")

    done = run_command("init", "--recover", env=environment(module_database))

    assert done.returncode == 0, done
    assert "note: the tenant latchgate was disabled, and is enabled again\n" in done.stderr
    assert f"revoke those that are lost: {root_id}\n" in done.stderr
    deadline = time.monotonic() + 10
    while verify(root_key).decision != decision_pb2.DECISION_ALLOW:
        assert time.monotonic() < deadline
    recovered = house.caller(done.stdout.strip())
    listed = recovered.ListAuditEvents(pb.ListAuditEventsRequest(actor="system", page_size=2)).events
    assert [event.target_type for event in listed] == ["key", "tenant"]
    root.DeleteKey(pb.DeleteKeyRequest(key_id=done.stdout.partition(".")[0]))
