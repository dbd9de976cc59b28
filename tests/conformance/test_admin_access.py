"""Who may call AdminService: the admin key, and the table of permissions. test_admin_matrix.py tries every call."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import grpc
import pytest

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate.v1.admin_service_pb2_grpc import AdminServiceStub
from latchgate_server.admin.access import METHOD_PERMISSIONS
from tests.conformance.contract import METHODS, NOT_BUILT
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.wire import Refusal, code_of, refusal
from tests.support.server import Admin, ServerProcess, open_channel

TRANSPORTS = ("native", "grpcio", "tls")
"""Keys come as metadata, which a transport reads."""

PROTOS = Path(__file__).parents[2] / "protos"


def call(admin: Admin, method: str) -> object:
    """The RPC with an empty request: enough to be let in or not."""
    return getattr(admin, method)(getattr(pb, METHODS[method].input_type.name)())


def permission_missing(refused: Refusal, permission: str) -> bool:
    return (refused.code, refused.reason, refused.metadata) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "PERMISSION_MISSING",
        {"permission": permission},
    )


# The table of permissions.


def test_every_rpc_of_the_contract_has_its_permission_and_no_other_has() -> None:
    assert METHOD_PERMISSIONS.keys() == METHODS.keys()


def test_no_two_rpcs_share_a_permission_and_each_is_an_administrators() -> None:
    assert len(set(METHOD_PERMISSIONS.values())) == len(METHOD_PERMISSIONS)
    assert all(permission.startswith("latchgate.") for permission in METHOD_PERMISSIONS.values())


@pytest.mark.parametrize("method", METHODS)
def test_the_contract_names_the_permission_that_the_rpc_needs(method: str) -> None:
    text = (PROTOS / "latchgate/v1/admin_service.proto").read_text(encoding="utf-8")
    before = text[: text.index(f"  rpc {method}(")]
    comment = re.sub(r"\s*//", "", before[before.rindex(";") :])
    assert f"Needs `{METHOD_PERMISSIONS[method]}`." in comment


def test_a_pattern_covers_the_permissions_below_it(house: House) -> None:
    admin = house.admin(ROOT_TENANT, "latchgate.keys.*")
    assert code_of(lambda: call(admin, "ListKeys")) == grpc.StatusCode.OK
    assert permission_missing(refusal(lambda: call(admin, "ListTenants")), "latchgate.tenants.list")


def test_a_permission_may_come_from_a_role(house: House) -> None:
    role_id = house.role(permissions=["latchgate.keys.list"])
    admin = house.admin(house.tenant(), role_ids=[role_id])
    assert code_of(lambda: call(admin, "ListKeys")) == grpc.StatusCode.OK


# What is not built yet.


@pytest.mark.parametrize("method", METHODS)
def test_an_rpc_that_is_not_built_says_so_and_every_other_answers(root: Admin, method: str) -> None:
    code = code_of(lambda: call(root, method))
    assert (code == grpc.StatusCode.UNIMPLEMENTED) == (method in NOT_BUILT)


# The admin key.


def rejected(refused: Refusal) -> str:
    """The reason for which the admin key was denied."""
    assert refused.code == grpc.StatusCode.UNAUTHENTICATED
    assert refused.reason == "ADMIN_KEY_REJECTED"
    assert refused.metadata.keys() == {"denial_reason"}
    return refused.metadata["denial_reason"]


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[AdminServiceStub]:
    """AdminService with no key."""
    with open_channel(server.admin_address, server.credentials) as channel:
        yield AdminServiceStub(channel)


def listed(stub: AdminServiceStub, *metadata: tuple[str, str]) -> object:
    return stub.ListKeys(pb.ListKeysRequest(), metadata=metadata, timeout=20)


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}"])
def test_the_key_comes_as_a_bearer_in_any_case(stub: AdminServiceStub, root_key: str, form: str) -> None:
    assert code_of(lambda: listed(stub, ("authorization", form.format(root_key)))) == grpc.StatusCode.OK


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ("{}", "INVALID_API_KEY"),
        ("Basic {}", "INVALID_API_KEY"),
        ("Bearer  {}", "INVALID_API_KEY"),
        ("Bearer{}", "INVALID_API_KEY"),
        ("Bearer {}, Bearer {}", "INVALID_SECRET"),
        ("Bearer", "INVALID_API_KEY"),
        ("Bearer x{}", "INVALID_API_KEY"),
        ("Bearer {}x", "INVALID_SECRET"),
        ("Bearer " + "k" * 10_000, "INVALID_API_KEY"),
    ],
)
def test_any_other_form_of_it_is_rejected(stub: AdminServiceStub, root_key: str, form: str, reason: str) -> None:
    header = ("authorization", form.format(root_key, root_key))
    assert rejected(refusal(lambda: listed(stub, header))) == reason


def test_a_key_under_another_name_is_none(stub: AdminServiceStub, root_key: str) -> None:
    for name in ["x-api-key", "api-key", "authorization-bin"]:
        value = root_key.encode() if name.endswith("-bin") else root_key
        header = (name, value)
        assert rejected(refusal(listed, stub, header)) == "MISSING_API_KEY"


def test_two_keys_at_once_are_rejected(stub: AdminServiceStub, root_key: str, house: House) -> None:
    header = ("authorization", f"Bearer {root_key}")
    assert rejected(refusal(lambda: listed(stub, header, header))) == "INVALID_API_KEY"


def test_an_admin_key_is_denied_for_the_same_reasons_as_any_other(house: House, root: Admin) -> None:
    def admin_of(tenant_id: str, **fields: object) -> tuple[str, Admin]:
        made = house.key(tenant_id, permissions=["latchgate.keys.list"], **fields)
        return made.key.key_id, house.caller(made.key_string)

    disabled_tenant = house.tenant()
    disabled_id, disabled = admin_of(house.tenant())
    revoked_id, revoked = admin_of(house.tenant())
    expired_id, expired = admin_of(house.tenant())
    _, switched_off = admin_of(disabled_tenant)
    _, elsewhere = admin_of(house.tenant(), ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["192.0.2.0/24"]))
    _, here = admin_of(house.tenant(), ip_allowlist=key_pb2.IpAllowlist(enabled=True, ranges=["127.0.0.0/8"]))
    root.DisableKey(pb.DisableKeyRequest(key_id=disabled_id))
    root.RevokeKey(pb.RevokeKeyRequest(key_id=revoked_id))
    root.ExpireKey(pb.ExpireKeyRequest(key_id=expired_id))
    root.DisableTenant(pb.DisableTenantRequest(tenant_id=disabled_tenant))
    assert rejected(refusal(lambda: call(disabled, "ListKeys"))) == "API_KEY_DISABLED"
    assert rejected(refusal(lambda: call(revoked, "ListKeys"))) == "API_KEY_REVOKED"
    assert rejected(refusal(lambda: call(expired, "ListKeys"))) == "API_KEY_EXPIRED"
    assert rejected(refusal(lambda: call(switched_off, "ListKeys"))) == "TENANT_DISABLED"
    assert rejected(refusal(lambda: call(elsewhere, "ListKeys"))) == "IP_NOT_AUTHORIZED"
    assert code_of(lambda: call(here, "ListKeys")) == grpc.StatusCode.OK


# A request that waits while its administrator loses what it needs.


@contextmanager
def locked_clock(database_url: str, statement: str, *arguments: str) -> Iterator[None]:
    """Hold the revision clock, so that every mutation waits, and run the statement when the context ends."""
    held, release = threading.Event(), threading.Event()

    async def hold() -> None:
        connection = await asyncpg.connect(database_url)
        async with connection.transaction():
            await connection.execute("SELECT latchgate_begin_change()")
            held.set()
            while not release.is_set():
                await asyncio.sleep(0.01)
            await connection.execute(statement, *arguments)
        await connection.close()

    thread = threading.Thread(target=lambda: asyncio.run(hold()))
    thread.start()
    held.wait()
    try:
        yield
    finally:
        release.set()
        thread.join()


@pytest.mark.parametrize(
    ("statement", "code", "reason"),
    [
        ("UPDATE keys SET state = 'REVOKED' WHERE key_id = $1", grpc.StatusCode.UNAUTHENTICATED, "ADMIN_KEY_REJECTED"),
        ("DELETE FROM keys WHERE key_id = $1", grpc.StatusCode.UNAUTHENTICATED, "ADMIN_KEY_REJECTED"),
        (
            "UPDATE keys SET permissions = '{latchgate.keys.list}' WHERE key_id = $1",
            grpc.StatusCode.PERMISSION_DENIED,
            "PERMISSION_MISSING",
        ),
    ],
)
def test_a_parked_request_of_an_administrator_who_lost_the_right_does_nothing(
    house: House, module_database: str, statement: str, code: grpc.StatusCode, reason: str
) -> None:
    victim = house.key()
    made = house.key(victim.key.tenant_id, permissions=["latchgate.keys.disable"])
    admin = house.caller(made.key_string)
    with ThreadPoolExecutor(1) as threads, locked_clock(module_database, statement, made.key.key_id):
        parked = threads.submit(admin.DisableKey, pb.DisableKeyRequest(key_id=victim.key.key_id))
        _wait_until_somebody_waits(module_database)
    refused = refusal(parked.result)
    assert (refused.code, refused.reason) == (code, reason)
    after = house.root.GetKey(pb.GetKeyRequest(key_id=victim.key.key_id)).key
    assert after.state == key_pb2.Key.STATE_ACTIVE
    assert after.etag == victim.key.etag


def _wait_until_somebody_waits(database_url: str) -> None:
    async def wait() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            while not await connection.fetchval(
                "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name = 'latchgate' AND wait_event_type = 'Lock')"
            ):
                await asyncio.sleep(0.01)
        finally:
            await connection.close()

    asyncio.run(wait())
