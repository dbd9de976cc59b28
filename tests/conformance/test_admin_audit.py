"""Every change leaves its event in the audit log, in the same transaction; what changes nothing leaves none."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping

import asyncpg
import grpc
import pytest
from google.protobuf.message import Message

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import audit_pb2
from latchgate.v1.key_pb2 import Key, Limit, Quota
from latchgate.v1.tenant_pb2 import Plan, Role, Tenant
from latchgate_server.admin.audit_log import ChainCheck, check_chain
from latchgate_server.hashing import Peppers
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.store import PostgresStore
from tests.conformance.contract import BUILT
from tests.conformance.house import House
from tests.conformance.wire import code_of
from tests.support.server import PEPPER, Admin

READS = ("Get", "List", "Explain")
CHANGES = [method for method in BUILT if not method.startswith(READS)]
LEASE = 3.0


def newest(admin: Admin) -> int:
    """The sequence of the newest event."""
    return int(admin.ListAuditEvents(pb.ListAuditEventsRequest(page_size=1)).events[0].sequence)


def events_since(admin: Admin, sequence: int) -> list[audit_pb2.AuditEvent]:
    """The events after that one, oldest first."""
    events = admin.ListAuditEvents(pb.ListAuditEventsRequest(page_size=1_000)).events
    return [event for event in reversed(events) if event.sequence > sequence]


def changes(house: House) -> Mapping[str, tuple[str, Message]]:
    """For each RPC that changes something the id of what it changes, and its request; in an order that works."""
    root, plan, role, tenant, off = house.root, house.plan(), house.role(), house.tenant(), house.tenant()
    root.DisableTenant(pb.DisableTenantRequest(tenant_id=off))
    new_plan, new_role, new_tenant = house.fresh_id("plan"), house.fresh_id("role"), house.fresh_id("tenant")
    made = {method: house.key(tenant) for method in CHANGES if "Key" in method}
    ids = {method: key.key.key_id for method, key in made.items()}
    root.DisableKey(pb.DisableKeyRequest(key_id=ids["EnableKey"]))
    calls = Limit(name="calls", quota=Quota(limit=9, period=Quota.PERIOD_DAY))
    limited = house.key(tenant, limits=[calls]).key.key_id
    return {
        "CreateTenant": (new_tenant, pb.CreateTenantRequest(tenant=Tenant(tenant_id=new_tenant))),
        "UpdateTenant": (tenant, pb.UpdateTenantRequest(tenant=Tenant(tenant_id=tenant, display_name="x"))),
        "EnableTenant": (off, pb.EnableTenantRequest(tenant_id=off)),
        "DisableTenant": (new_tenant, pb.DisableTenantRequest(tenant_id=new_tenant)),
        "DeleteTenant": (new_tenant, pb.DeleteTenantRequest(tenant_id=new_tenant)),
        "CreatePlan": (new_plan, pb.CreatePlanRequest(plan=Plan(plan_id=new_plan))),
        "UpdatePlan": (plan, pb.UpdatePlanRequest(plan=Plan(plan_id=plan, display_name="x"))),
        "DeletePlan": (plan, pb.DeletePlanRequest(plan_id=plan)),
        "CreateRole": (new_role, pb.CreateRoleRequest(role=Role(role_id=new_role))),
        "UpdateRole": (role, pb.UpdateRoleRequest(role=Role(role_id=role, display_name="x"))),
        "DeleteRole": (role, pb.DeleteRoleRequest(role_id=role)),
        "CreateKey": ("", pb.CreateKeyRequest(key=Key(tenant_id=tenant))),
        "UpdateKey": (ids["UpdateKey"], pb.UpdateKeyRequest(key=Key(key_id=ids["UpdateKey"], display_name="x"))),
        "EnableKey": (ids["EnableKey"], pb.EnableKeyRequest(key_id=ids["EnableKey"])),
        "DisableKey": (ids["DisableKey"], pb.DisableKeyRequest(key_id=ids["DisableKey"])),
        "ExpireKey": (ids["ExpireKey"], pb.ExpireKeyRequest(key_id=ids["ExpireKey"])),
        "RevokeKey": (ids["RevokeKey"], pb.RevokeKeyRequest(key_id=ids["RevokeKey"])),
        "BatchRevokeKeys": (
            ids["BatchRevokeKeys"],
            pb.BatchRevokeKeysRequest(filter=pb.KeyFilter(search=ids["BatchRevokeKeys"])),
        ),
        "DeleteKey": (ids["DeleteKey"], pb.DeleteKeyRequest(key_id=ids["DeleteKey"])),
        "RotateKey": (ids["RotateKey"], pb.RotateKeyRequest(key_id=ids["RotateKey"])),
        "ResetLimit": (limited, pb.ResetLimitRequest(key_id=limited, name="calls")),
        "ImportKeys": (
            new_role,
            pb.ImportKeysRequest(
                keys=[pb.ImportedKey(key=Key(key_id=new_role, tenant_id=tenant), sha256=new_role.ljust(32).encode())]
            ),
        ),
        "ReportLeakedKeys": (
            ids["ReportLeakedKeys"],
            pb.ReportLeakedKeysRequest(key_strings=[made["ReportLeakedKeys"].key_string]),
        ),
    }


def test_every_rpc_that_changes_something_leaves_an_event_of_its_name(house: House, root: Admin, root_key: str) -> None:
    calls = changes(house)
    assert sorted(calls) == CHANGES
    for method, (target_id, request) in calls.items():
        before = newest(root)
        getattr(root, method)(request)
        events = events_since(root, before)
        assert {event.method for event in events} == {method}
        assert {event.actor for event in events} == {root_key.partition(".")[0]}
        assert {event.actor_ip for event in events} == {"127.0.0.1"}
        assert target_id in {"", *(event.target_id for event in events)}
        assert len({event.revision for event in events}) == 1


@pytest.mark.parametrize("method", ["EnableTenant", "DisableKey", "RevokeKey", "UpdateKey", "BatchRevokeKeys"])
def test_what_changes_nothing_leaves_no_event(house: House, root: Admin, method: str) -> None:
    _, request = changes(house)[method]
    getattr(root, method)(request)
    before = newest(root)
    getattr(root, method)(request)
    assert newest(root) == before


def test_neither_does_what_is_refused_or_only_read(house: House, root: Admin) -> None:
    key = house.key(house.tenant(plan_id=house.plan(max_keys=1))).key
    before = newest(root)
    assert code_of(house.key, key.tenant_id) == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert code_of(house.tenant, tenant_id=key.tenant_id) == grpc.StatusCode.ALREADY_EXISTS
    assert code_of(root.GetKey, pb.GetKeyRequest(key_id=key.key_id)) == grpc.StatusCode.OK
    assert code_of(root.ListKeys, pb.ListKeysRequest()) == grpc.StatusCode.OK
    assert newest(root) == before


# The chain.


def checked(database_url: str, pepper: bytes, anchor: tuple[int, bytes] | None = None) -> ChainCheck:
    async def check() -> ChainCheck:
        pool = await create_pool(database_url, LEASE, 1)
        try:
            return await check_chain(PostgresStore(pool, LEASE).read, Peppers([pepper]), anchor)
        finally:
            await pool.close()

    return asyncio.run(check())


def test_the_chain_of_everything_that_was_done_here_holds_and_shows_what_is_altered_by_hand(
    house: House, root: Admin, module_database: str
) -> None:
    for call in (house.tenant, house.plan, house.role, house.key):
        call()
    key = Key(tenant_id=house.tenant())
    key.claims.update({"huge": 1e300, "tiny": 5e-324, "whole": 2.0**60, "third": 1 / 3, "text": "é\u2028\U0001f511"})
    root.CreateKey(pb.CreateKeyRequest(key=key))
    pepper, count = base64.b64decode(PEPPER), newest(root)
    held = checked(module_database, pepper)
    assert (held.events, held.flaw) == (count, None)

    async def tamper(statement: str) -> ChainCheck:
        connection = await asyncpg.connect(module_database)
        pool = await create_pool(module_database, LEASE, 1)
        try:
            await connection.execute("BEGIN")
            await connection.execute("CREATE TABLE kept AS SELECT * FROM audit_events")
            await connection.execute(statement)
            await connection.execute("COMMIT")
            return await check_chain(PostgresStore(pool, LEASE).read, Peppers([pepper]), held.head)
        finally:
            await connection.execute(
                "TRUNCATE audit_events; INSERT INTO audit_events SELECT * FROM kept; DROP TABLE kept"
            )
            await connection.close()
            await pool.close()

    for statement in (
        f"UPDATE audit_events SET reason = 'x' WHERE sequence = {count - 1}",
        f"UPDATE audit_events SET actor = 'x' WHERE sequence = {count}",
        f"DELETE FROM audit_events WHERE sequence = {count - 1}",
        f"DELETE FROM audit_events WHERE sequence = {count}",
    ):
        assert asyncio.run(tamper(statement)).flaw is not None, statement
    assert checked(module_database, pepper).flaw is None
