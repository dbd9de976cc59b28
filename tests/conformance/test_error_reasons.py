"""Every ErrorReason comes with the code and the metadata that the contract's comment says."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import decision_pb2, error_reason_pb2, key_pb2, tenant_pb2
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import Refusal, code_of, refusal
from tests.support.fault_proxy import FaultProxy
from tests.support.server import Admin, ServerProcess, Verify
from tests.support.waiting import wait_until

PROTO = Path(__file__).parents[2] / "protos/latchgate/v1/error_reason.proto"
REASONS = [value.name.removeprefix("ERROR_REASON_") for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values][1:]
LEASE = 0.9
"""Seconds; all timeouts towards the database are parts of it."""


@pytest.fixture(scope="module")
def network(module_database: str) -> Iterator[FaultProxy]:
    """What lies between the server and its database."""
    with FaultProxy(module_database) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def server(network: FaultProxy, root_key: str, transport: str) -> Iterator[ServerProcess]:
    """A server with a short lease, so that the database is soon given up."""
    with ServerProcess(network.url, {"lease": f"{LEASE}s", "transport": transport}) as process:
        yield process


def documented(reason: str) -> tuple[str, set[str], bool]:
    """The code of a reason, the names in its metadata, and whether RetryInfo comes with it, by its comment."""
    text = PROTO.read_text(encoding="utf-8")
    found = re.search(rf"((?:  // .*\n)+)  ERROR_REASON_{reason} =", text)
    assert found
    comment = " ".join(line.strip().removeprefix("// ") for line in found[1].splitlines())
    code = re.match(r"[A-Z_]+", comment)
    metadata = re.search(r"metadata: ([a-z_, ]+)\.", comment)
    assert code
    return code[0], set(metadata[1].split(", ")) if metadata else set(), "google.rpc.RetryInfo" in comment


@contextmanager
def while_locked(database_url: str) -> Iterator[None]:
    """Somebody's forgotten transaction holds the revision clock."""
    loop = asyncio.new_event_loop()

    async def lock() -> tuple[asyncpg.Connection, asyncpg.transaction.Transaction]:
        connection = await asyncpg.connect(database_url)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("SELECT latchgate_begin_change()")
        return connection, transaction

    connection, transaction = loop.run_until_complete(lock())
    try:
        yield
    finally:
        loop.run_until_complete(transaction.rollback())
        loop.run_until_complete(connection.close())
        loop.close()


def provoke(house: House, root: Admin, database_url: str) -> Mapping[str, Callable[[], Refusal]]:
    """A call for each reason, refused for it."""

    def etag_mismatch() -> Refusal:
        key = key_pb2.Key(key_id=house.key().key.key_id, etag="another", display_name="x")
        return refusal(lambda: root.UpdateKey(pb.UpdateKeyRequest(key=key)))

    def illegal_transition() -> Refusal:
        key_id = house.key().key.key_id
        root.RevokeKey(pb.RevokeKeyRequest(key_id=key_id))
        return refusal(lambda: root.EnableKey(pb.EnableKeyRequest(key_id=key_id)))

    def key_limit_reached() -> Refusal:
        tenant_id = house.tenant(plan_id=house.plan(max_keys=1))
        house.key(tenant_id)
        return refusal(lambda: house.key(tenant_id))

    def last_administrator() -> Refusal:
        return refusal(lambda: root.DisableTenant(pb.DisableTenantRequest(tenant_id=ROOT_TENANT)))

    def resource_in_use() -> Refusal:
        plan_id = house.plan()
        house.tenant(plan_id=plan_id)
        return refusal(lambda: root.DeletePlan(pb.DeletePlanRequest(plan_id=plan_id)))

    def resource_exists() -> Refusal:
        tenant_id = house.tenant()
        return refusal(lambda: house.tenant(tenant_id=tenant_id))

    def permission_missing() -> Refusal:
        admin = house.admin(house.tenant(), "latchgate.keys.get")
        return refusal(lambda: admin.ListKeys(pb.ListKeysRequest()))

    def escalation_refused() -> Refusal:
        admin = house.admin(house.tenant(), "latchgate.keys.create")
        return refusal(lambda: admin.CreateKey(pb.CreateKeyRequest(key=key_pb2.Key(permissions=["*"]))))

    def overloaded() -> Refusal:
        with while_locked(database_url):
            return refusal(lambda: root.CreateTenant(pb.CreateTenantRequest(tenant=tenant_pb2.Tenant(tenant_id="x"))))

    return {
        "ADMIN_KEY_REJECTED": lambda: refusal(lambda: house.caller("nonsense").ListKeys(pb.ListKeysRequest())),
        "PERMISSION_MISSING": permission_missing,
        "ESCALATION_REFUSED": escalation_refused,
        "RESOURCE_NOT_FOUND": lambda: refusal(lambda: root.GetKey(pb.GetKeyRequest(key_id="nothing"))),
        "RESOURCE_EXISTS": resource_exists,
        "ETAG_MISMATCH": etag_mismatch,
        "ILLEGAL_TRANSITION": illegal_transition,
        "KEY_LIMIT_REACHED": key_limit_reached,
        "RESOURCE_IN_USE": resource_in_use,
        "LAST_ADMINISTRATOR": last_administrator,
        "INVALID_FIELD": lambda: refusal(lambda: root.GetKey(pb.GetKeyRequest())),
        "OVERLOADED": overloaded,
    }


PROVOKED = [
    "ADMIN_KEY_REJECTED",
    "PERMISSION_MISSING",
    "ESCALATION_REFUSED",
    "RESOURCE_NOT_FOUND",
    "RESOURCE_EXISTS",
    "ETAG_MISMATCH",
    "ILLEGAL_TRANSITION",
    "KEY_LIMIT_REACHED",
    "RESOURCE_IN_USE",
    "LAST_ADMINISTRATOR",
    "INVALID_FIELD",
    "OVERLOADED",
]


def assert_as_documented(refused: Refusal, reason: str) -> None:
    code, metadata, retry = documented(reason)
    assert (refused.code.name, refused.reason) == (code, reason)
    assert refused.metadata.keys() == metadata
    assert all(refused.metadata.values())
    assert (refused.retry_after is not None) == retry
    assert refused.retry_after is None or 0 < refused.retry_after < 60
    assert refused.message


def test_every_reason_of_the_contract_is_provoked_here_but_for_what_callers_meet_in_their_own_file() -> None:
    assert sorted([*PROVOKED, "STORE_UNAVAILABLE", "CALLER_KEY_REJECTED"]) == sorted(REASONS)


@pytest.mark.parametrize("reason", PROVOKED)
def test_an_error_is_as_its_reason_documents_it(house: House, root: Admin, module_database: str, reason: str) -> None:
    assert_as_documented(provoke(house, root, module_database)[reason](), reason)


def test_a_lock_that_somebody_holds_delays_a_mutation_for_less_than_a_lease_and_then_no_more(
    root: Admin, house: House, module_database: str
) -> None:
    tenant_id = house.tenant()
    request = pb.DisableTenantRequest(tenant_id=tenant_id)
    with while_locked(module_database):
        began = time.monotonic()
        assert refusal(lambda: root.DisableTenant(request)).reason == "OVERLOADED"
        assert time.monotonic() - began < LEASE + 1.5
    assert not root.DisableTenant(request).tenant.enabled


def test_a_mistake_of_ours_tells_a_client_nothing_and_the_log_everything(
    root: Admin, house: House, server: ServerProcess, module_database: str
) -> None:
    def rename(old: str, new: str) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(module_database)
            try:
                await connection.execute(f"ALTER TABLE audit_events RENAME COLUMN {old} TO {new}")
            finally:
                await connection.close()

        asyncio.run(run())

    rename("reason", "motive")
    try:
        refused = refusal(house.tenant)
    finally:
        rename("motive", "reason")
    assert refused.code == grpc.StatusCode.INTERNAL
    entry = server.wait_for("internal_error")
    assert refused.message == f"internal error; the server's log has the details under request id {entry['request_id']}"
    assert (refused.reason, dict(refused.metadata), refused.retry_after) == ("", {}, None)
    assert entry["method"] == "CreateTenant"
    assert "UndefinedColumnError" in entry["exception"]
    house.tenant()


def test_without_the_database_nothing_is_decided_and_everything_works_once_it_is_back(
    root: Admin, verify: Verify, house: House, server: ServerProcess, network: FaultProxy
) -> None:
    key_string = house.key().key_string
    read = pb.GetTenantRequest(tenant_id=house.tenant())
    with grpc.insecure_channel(server.verify_address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)

        def status(service: str) -> str:
            answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=20)
            return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

        network.refuse()
        network.drop()
        assert_as_documented(refusal(lambda: root.GetTenant(read)), "STORE_UNAVAILABLE")
        assert_as_documented(refusal(house.tenant), "STORE_UNAVAILABLE")
        wait_until(lambda: code_of(lambda: verify(key_string)) == grpc.StatusCode.UNAVAILABLE)
        assert refusal(lambda: verify(key_string)).retry_after
        wait_until(lambda: status("latchgate.v1.VerifyService") == "NOT_SERVING")
        assert status("") == "SERVING", "the process is well; restarting it would not help"
        network.restore()
        wait_until(lambda: code_of(lambda: verify(key_string)) == grpc.StatusCode.OK)
        wait_until(lambda: status("latchgate.v1.VerifyService") == "SERVING")
    assert verify(key_string).decision == decision_pb2.DECISION_ALLOW
    wait_until(lambda: code_of(house.tenant) == grpc.StatusCode.OK)
