"""WatchKeys over the network: who may watch, what is told, what is granted, and what a change waits for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from latchgate.v1.verify_service_pb2 import CachedUse
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.test_usage import counted, eventually, sources
from tests.conformance.watching import SECONDS, Following, Watch
from tests.support.server import ServerProcess

TRANSPORTS = ["native", "grpcio"]
LEASE = 1.0
GRANT = 0.9


@pytest.fixture
def watch(server: ServerProcess, house: House) -> Iterator[Watch]:
    """A stream of a client that may see everything, and has been granted its first lease."""
    with Watch(server.verify_address, _watcher(house)) as watch:
        watch.answer()
        yield watch


def _watcher(house: House, tenant_id: str = ROOT_TENANT, **fields: object) -> str:
    return house.key(tenant_id, permissions=["latchgate.watch"], **fields).key_string


def _revoke(house: House, key: pb.CreateKeyResponse) -> pb.Propagation:
    revoked: pb.RevokeKeyResponse = house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
    return revoked.propagation


def _is_quick(house: House) -> bool:
    """Whether a revocation ends before a lease would."""
    key = house.key()
    began = time.monotonic()
    propagation = _revoke(house, key)
    return time.monotonic() - began < GRANT and propagation.leases_expired == 0


# Who may watch.


def test_a_stream_needs_a_key_with_the_permission(server: ServerProcess, house: House) -> None:
    for key_string, code in [
        (None, grpc.StatusCode.UNAUTHENTICATED),
        ("garbage", grpc.StatusCode.UNAUTHENTICATED),
        (house.key(permissions=["orders.read", "*"]).key_string, grpc.StatusCode.PERMISSION_DENIED),
        (house.key(permissions=["latchgate.verify"]).key_string, grpc.StatusCode.PERMISSION_DENIED),
    ]:
        with Watch(server.verify_address, key_string) as watch:
            watch.say()
            assert watch.failure()[0] is code


def test_a_callers_allowlist_holds_where_its_address_is_known(
    server: ServerProcess, house: House, transport: str
) -> None:
    allowlist = key_pb2.IpAllowlist(enabled=True, ranges=["127.0.0.0/8"])
    with Watch(server.verify_address, _watcher(house, ip_allowlist=allowlist)) as watch:
        watch.say()
        if transport == "native":
            assert watch.failure()[0] is grpc.StatusCode.UNAUTHENTICATED, "behind native nobody's address is known"
        else:
            assert watch.heard().sequence == 1
    elsewhere = key_pb2.IpAllowlist(enabled=True, ranges=["203.0.113.0/24"])
    with Watch(server.verify_address, _watcher(house, ip_allowlist=elsewhere)) as watch:
        watch.say()
        assert watch.failure()[0] is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("revoke", grpc.StatusCode.UNAUTHENTICATED),
        ("disable", grpc.StatusCode.UNAUTHENTICATED),
        ("expire", grpc.StatusCode.UNAUTHENTICATED),
        ("take the permission", grpc.StatusCode.PERMISSION_DENIED),
    ],
)
def test_a_stream_ends_when_its_callers_key_does(
    change: str, code: grpc.StatusCode, server: ServerProcess, house: House
) -> None:
    key = house.key(ROOT_TENANT, permissions=["latchgate.watch"])
    key_id = key.key.key_id
    with Watch(server.verify_address, key.key_string) as watch:
        watch.answer()
        if change == "revoke":
            house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key_id))
        elif change == "disable":
            house.root.DisableKey(pb.DisableKeyRequest(key_id=key_id))
        elif change == "expire":
            house.root.ExpireKey(pb.ExpireKeyRequest(key_id=key_id))
        else:
            update = pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id))
            update.update_mask.paths.append("permissions")
            house.root.UpdateKey(update)
        assert watch.failure()[0] is code, "without another word from the client"


def test_a_stream_ends_when_its_callers_key_expires_by_itself(server: ServerProcess, house: House) -> None:
    expires = Timestamp()
    expires.FromDatetime(datetime.now(UTC) + timedelta(seconds=1.5))
    with Watch(server.verify_address, _watcher(house, expire_time=expires)) as watch:
        ends_at = time.monotonic() + SECONDS
        while time.monotonic() < ends_at:
            watch.say()
            time.sleep(0.1)
            if not watch._call.is_active():
                break
        assert watch.failure()[0] is grpc.StatusCode.UNAUTHENTICATED


# What is granted.


def test_a_lease_answers_a_message_and_is_shorter_than_what_a_change_waits_for(watch: Watch) -> None:
    answer = watch.answer()
    assert answer.sequence == watch.sequence
    assert answer.revision > 0
    assert 0 < answer.lease.ToTimedelta().total_seconds() <= GRANT
    assert abs(answer.server_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(seconds=SECONDS)


# How fast a client is heard.


@pytest.mark.parametrize(("messages", "uses", "seconds"), [(300, 0, 2.4), (30, 1_000, 2.6)])
def test_a_client_that_never_stops_talking_is_read_at_a_pace(
    messages: int, uses: int, seconds: float, watch: Watch
) -> None:
    """A report counts as more messages than one: 50 are read at once, and 100 a second."""
    began = time.monotonic()
    for _ in range(messages - 1):
        watch.say(uses=[CachedUse(key_id="lg_nobody", allowed=1)] * uses)
    watch.answer()
    assert time.monotonic() - began > seconds


# What is told.


def test_a_changed_key_is_told_by_its_id_and_without_a_lease(watch: Watch, house: House) -> None:
    key = house.key()
    watch.say()
    _revoke(house, key)
    news = watch.told()
    while key.key.key_id not in news.key_ids:
        news = watch.told()
    assert not news.drop_all
    assert not news.HasField("lease") or news.sequence


def test_a_switched_tenant_is_told_by_its_id(watch: Watch, house: House) -> None:
    tenant = house.tenant()
    house.root.DisableTenant(pb.DisableTenantRequest(tenant_id=tenant))
    news = watch.told()
    told = set(news.tenant_ids)
    while tenant not in told:
        told |= set(watch.told().tenant_ids)


def test_a_changed_role_drops_everything(watch: Watch, house: House) -> None:
    role = house.role(permissions=["orders.read"])
    update = pb.UpdateRoleRequest(role=tenant_pb2.Role(role_id=role, permissions=["orders.write"]))
    update.update_mask.paths.append("permissions")
    house.root.UpdateRole(update)
    while not watch.told().drop_all:
        pass


def test_a_watcher_of_another_tenant_is_told_nobodys_ids(server: ServerProcess, house: House) -> None:
    tenant = house.tenant()
    key = house.key()
    with Watch(server.verify_address, _watcher(house, tenant)) as watch:
        watch.answer()
        _revoke(house, key)
        news = watch.told()
        assert news.drop_all
        assert not news.key_ids
        assert not news.tenant_ids


# What a change waits for.


def test_a_change_waits_for_a_clients_acknowledgement_no_longer_than_that_takes(watch: Watch, house: House) -> None:
    with Following(watch):
        # On a busy machine one may take as long for other reasons, and not each.
        assert any(_is_quick(house) for _ in range(3)), "it did not wait for the lease to run out"


def test_a_change_waits_out_the_lease_of_a_silent_client(watch: Watch, house: House) -> None:
    key = house.key()
    revision = watch.answer().revision
    asked_at = time.monotonic()  # which the lease counts from
    watch.answer(revision)
    propagation = _revoke(house, key)
    assert time.monotonic() - asked_at >= GRANT
    assert propagation.waited.ToTimedelta().total_seconds() < LEASE + 2.0
    assert propagation.leases_expired == 0, "the replica itself is well"


def test_a_change_waits_out_the_lease_of_a_client_whose_stream_broke(server: ServerProcess, house: House) -> None:
    key = house.key()
    with Watch(server.verify_address, _watcher(house)) as watch:
        revision = watch.answer().revision
        asked_at = time.monotonic()
        watch.answer(revision)
    _revoke(house, key)
    assert time.monotonic() - asked_at >= GRANT


def test_a_change_waits_for_nobody_without_a_lease(watch: Watch, house: House) -> None:
    def is_quick_without() -> bool:
        watch.answer()
        time.sleep(LEASE * 1.2)
        return _is_quick(house)

    assert any(is_quick_without() for _ in range(3))


def test_a_client_that_asks_for_leases_and_never_acknowledges_delays_a_change_by_one_lease(
    watch: Watch, house: House
) -> None:
    key = house.key()
    with Following(watch, acknowledges=False):
        began = time.monotonic()
        propagation = _revoke(house, key)
        assert time.monotonic() - began < LEASE + 2.0
    assert propagation.leases_expired == 0


# What it reports.


def test_reported_uses_are_counted_for_keys_that_exist(watch: Watch, house: House) -> None:
    key_id = house.key().key.key_id
    use = CachedUse(key_id=key_id, allowed=3, denied={"INSUFFICIENT_PERMISSIONS": 2, "NEWER_THAN_WE": 9})
    use.last_use_time.GetCurrentTime()
    use.last_client_ip = "203.0.113.9"
    watch.say(uses=[use, CachedUse(key_id="lg_nobody", allowed=1)])
    eventually(lambda: counted(house.root, key_id=key_id), (3, {"INSUFFICIENT_PERMISSIONS": 2}))
    assert sources(house.root, key_id) == {"203.0.113.9": 5}


def test_nobody_reports_uses_of_another_tenants_keys(server: ServerProcess, house: House) -> None:
    tenant = house.tenant()
    own, foreign = house.key(tenant).key.key_id, house.key().key.key_id
    with Watch(server.verify_address, _watcher(house, tenant)) as watch:
        watch.say(uses=[CachedUse(key_id=key_id, allowed=7) for key_id in (foreign, own)])
        eventually(lambda: counted(house.root, key_id=own), (7, {}))
    assert counted(house.root, key_id=foreign) == (0, {})


@pytest.mark.parametrize(
    "uses",
    [
        [CachedUse(key_id="lg_x")] * 1_001,
        [CachedUse(key_id="x" * 256)],
        [CachedUse(key_id="lg_x\n")],
        [CachedUse(key_id="lg_x", allowed=-1)],
        [CachedUse(key_id="lg_x", allowed=2**31)],
        [CachedUse(key_id="lg_x", denied={"API_KEY_DISABLED": -5})],
        [CachedUse(key_id="lg_x", denied={f"REASON_{number}": 1 for number in range(65)})],
        [CachedUse(key_id="lg_x", last_client_ip="1" * 65)],
    ],
)
def test_a_malformed_report_ends_the_stream(uses: list[CachedUse], watch: Watch) -> None:
    watch.say(uses=uses)
    assert watch.failure()[0] is grpc.StatusCode.INVALID_ARGUMENT
