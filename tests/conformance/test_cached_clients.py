"""Clients with a cache, several of them on several replicas, over the network: what they answer is always in force."""

from __future__ import annotations

import asyncio
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from latchgate import AsyncClient, CacheInfo, Client, Query, Verification
from latchgate.results import Question
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, tenant_pb2
from tests.conformance.house import ROOT_TENANT, House
from tests.conformance.test_usage import counted, eventually
from tests.support.server import Admin, ServerProcess
from tests.support.waiting import wait_until

TRANSPORTS = ["native", "grpcio"]
SECONDS = 20.0
ROUNDS = 15


class Asynchronous:
    """AsyncClient in a loop that runs in a thread of its own, asked as Client is."""

    def __init__(self, address: str, key: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

        async def make() -> AsyncClient:
            return AsyncClient(address, key=key, cache=True)

        self._client = self._run(make())

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def verify(self, key: str, **question: Any) -> Verification:
        return self._run(self._client.verify(key, **question))  # type: ignore[no-any-return]  # see _run

    def cache_info(self) -> CacheInfo:
        return self._client.cache_info()  # type: ignore[no-any-return]  # likewise

    def close(self) -> None:
        self._run(self._client.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


Asks = Client | Asynchronous


@pytest.fixture(scope="module")
def other(module_database: str, transport: str, server: ServerProcess) -> Iterator[ServerProcess]:
    """Another replica on the same database."""
    with ServerProcess(module_database, {"transport": transport, "lease": "2s"}) as process:
        yield process


@pytest.fixture(scope="module")
def watcher(house: House) -> str:
    """The key string of a caller that may watch."""
    return house.key(ROOT_TENANT, permissions=["latchgate.watch"]).key_string


@pytest.fixture(scope="module")
def clients(server: ServerProcess, other: ServerProcess, watcher: str) -> Iterator[Sequence[Asks]]:
    """One of each kind at each replica."""
    with ExitStack() as stack:
        made: list[Asks] = []
        for replica in (server, other):
            made.append(stack.enter_context(Client(replica.verify_address, key=watcher, cache=True)))
            made.append(Asynchronous(replica.verify_address, watcher))
            stack.callback(made[-1].close)
        yield made


def until_cached(client: Asks, key: str, **question: Any) -> Verification:
    """Ask until an answer comes from the cache."""
    ends_at = time.monotonic() + SECONDS
    while time.monotonic() < ends_at:
        before = client.cache_info()
        verification = client.verify(key, **question)
        after = client.cache_info()
        if after.hits > before.hits:
            return verification
        time.sleep(0.01)
    raise AssertionError(f"never from the cache: {client.cache_info()}")


def all_cached(clients: Sequence[Asks], key: str, **question: Any) -> None:
    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(lambda client: until_cached(client, key, **question), clients))
    assert [answer.allowed for answer in answers] == [True] * len(clients)


def test_a_revocation_has_reached_every_cache_when_it_returns(
    clients: Sequence[Asks], house: House, other: ServerProcess, root_key: str
) -> None:
    elsewhere, took = Admin(other.admin_address, root_key), []
    for turn in range(ROUNDS):
        key = house.key(permissions=["orders.read"])
        all_cached(clients, key.key_string, requires="orders.read")
        began = time.monotonic()
        (elsewhere if turn % 2 else house.root).RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
        took.append(time.monotonic() - began)
        answers = [client.verify(key.key_string, requires="orders.read") for client in clients]
        assert [answer.reason for answer in answers] == ["API_KEY_REVOKED"] * len(clients)
    assert statistics.median(took) < 0.9, "no lease had to run out"
    elsewhere.close()


@pytest.mark.parametrize("what", ["disabled", "expired", "deleted", "its tenant", "its role", "its plan", "renamed"])
def test_so_has_every_other_change(what: str, clients: Sequence[Asks], house: House) -> None:
    plan = house.plan(capabilities=["exports"])
    tenant, role = house.tenant(plan_id=plan), house.role(permissions=["orders.read"])
    key = house.key(tenant, role_ids=[role])
    key_id, question = key.key.key_id, Question(requires="orders.read", capability="exports")
    all_cached(clients, key.key_string, **question)
    root = house.root
    changes: dict[str, tuple[str, Callable[[], Any]]] = {
        "disabled": ("API_KEY_DISABLED", lambda: root.DisableKey(pb.DisableKeyRequest(key_id=key_id))),
        "expired": ("API_KEY_EXPIRED", lambda: root.ExpireKey(pb.ExpireKeyRequest(key_id=key_id))),
        "deleted": ("INVALID_API_KEY", lambda: root.DeleteKey(pb.DeleteKeyRequest(key_id=key_id))),
        "its tenant": ("TENANT_DISABLED", lambda: root.DisableTenant(pb.DisableTenantRequest(tenant_id=tenant))),
        "its role": (
            "INSUFFICIENT_PERMISSIONS",
            lambda: root.UpdateRole(_update(pb.UpdateRoleRequest(role=tenant_pb2.Role(role_id=role)), "permissions")),
        ),
        "its plan": (
            "CAPABILITY_NOT_IN_PLAN",
            lambda: root.UpdatePlan(_update(pb.UpdatePlanRequest(plan=tenant_pb2.Plan(plan_id=plan)), "capabilities")),
        ),
        "renamed": (
            "",
            lambda: root.UpdateKey(
                _update(pb.UpdateKeyRequest(key=key_pb2.Key(key_id=key_id, display_name="new")), "display_name")
            ),
        ),
    }
    reason, change = changes[what]
    change()
    answers = [client.verify(key.key_string, **question) for client in clients]
    assert [answer.reason for answer in answers] == [reason] * len(clients)
    if not reason:
        assert [answer.identity and answer.identity.name for answer in answers] == ["new"] * len(clients)


def _update(request: Any, path: str) -> Any:
    request.update_mask.paths.append(path)
    return request


def test_a_key_expires_in_every_cache_when_it_expires_at_the_server(clients: Sequence[Asks], house: House) -> None:
    all_cached(clients, house.key().key_string)  # each has a lease now
    expires = Timestamp()
    expires.FromDatetime(datetime.now(UTC) + timedelta(seconds=3))
    key = house.key(expire_time=expires).key_string
    all_cached(clients, key)
    while datetime.now(UTC) < expires.ToDatetime(UTC):
        time.sleep(0.01)
    assert [client.verify(key).reason for client in clients] == ["API_KEY_EXPIRED"] * len(clients)


def test_every_use_is_counted_once_wherever_it_was_answered(server: ServerProcess, house: House, watcher: str) -> None:
    key = house.key(permissions=["orders.read"])
    with Client(server.verify_address, key=watcher, cache=True) as client:
        asked = 0
        for question in (Question(requires="orders.read"), Question(requires="orders.write")):
            asked += _count_until_cached(client, key.key_string, question)
        for _ in range(100):
            client.verify(key.key_string, requires="orders.read")
        info = client.cache_info()
    assert info.hits >= 100
    eventually(lambda: sum(_all(counted(house.root, key_id=key.key.key_id))), asked + 100)


def _count_until_cached(client: Client, key: str, question: Question) -> int:
    ends_at = time.monotonic() + SECONDS
    for number in range(1, 100_000):
        before = client.cache_info()
        client.verify(key, **question)
        if client.cache_info().hits > before.hits:
            return number
        assert time.monotonic() < ends_at
        time.sleep(0.01)
    raise AssertionError


def _all(counts: tuple[int, dict[str, int]]) -> list[int]:
    return [counts[0], *counts[1].values()]


@pytest.mark.parametrize("kind", [0, 1], ids=["Client", "AsyncClient"])
def test_a_client_that_nobody_asks_lets_its_lease_run_out_and_gets_another_at_the_next_call(
    kind: int, clients: Sequence[Asks], house: House
) -> None:
    client = clients[kind]

    def seconds_to_revoke() -> float:
        key = house.key()
        until_cached(client, key.key_string)
        wait_until(lambda: not client.cache_info().has_lease, SECONDS)
        began = time.monotonic()
        house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
        took = time.monotonic() - began
        assert client.verify(key.key_string).reason == "API_KEY_REVOKED"
        return took

    # On a busy machine one may take as long for other reasons, and not each.
    assert any(seconds_to_revoke() < 0.9 for _ in range(3)), "nobody waits for it"
    until_cached(client, house.key().key_string)


def test_a_key_with_limits_is_asked_about_every_time(clients: Sequence[Asks], house: House) -> None:
    rate = key_pb2.RateLimit(limit=1_000, period=Duration(seconds=86_400))
    key = house.key(limits=[key_pb2.Limit(name="calls", rate_limit=rate)]).key_string
    left = [clients[0].verify(key).limits[0].remaining for _ in range(5)]
    assert left == sorted(set(left), reverse=True), "each took something"


def test_a_batch_takes_what_is_known_from_the_cache(server: ServerProcess, house: House, watcher: str) -> None:
    known = house.key().key_string
    with Client(server.verify_address, key=watcher, cache=True) as client:

        def hits() -> int:
            """Of a batch with a key that is known, and one that is not."""
            until_cached(client, known)
            queries = [Query(key=house.key().key_string), Query(key=known), Query(key="garbage")]
            before = client.cache_info().hits
            answers = client.verify_many(queries)
            assert [answer.allowed for answer in answers if isinstance(answer, Verification)] == [True, True, False]
            return client.cache_info().hits - before

        # It is 0 where a busy machine lets the lease run out in between.
        assert next(filter(None, (hits() for _ in range(3))), 0) == 1


def test_a_client_that_may_not_watch_asks_and_says_why(
    server: ServerProcess, house: House, caplog: pytest.LogCaptureFixture
) -> None:
    key = house.key(ROOT_TENANT, permissions=["latchgate.verify"]).key_string
    with Client(server.verify_address, key=key, cache=True) as client:
        ends_at = time.monotonic() + SECONDS
        while "latchgate.watch" not in (info := client.cache_info()).problem:
            assert time.monotonic() < ends_at, info
            assert client.verify(house.key().key_string).allowed
    assert "latchgate.watch" in caplog.text
    assert key.partition(".")[2] not in caplog.text
    assert info.hits == 0


def test_a_replica_that_leaves_takes_no_longer_for_its_watchers_and_they_go_elsewhere(
    module_database: str, transport: str, house: House, watcher: str
) -> None:
    replica = ServerProcess(module_database, {"transport": transport})
    replica.start()
    key = house.key()
    with Client(replica.verify_address, key=watcher, cache=True, timeout=0.5) as client:
        until_cached(client, key.key_string)
        began = time.monotonic()
        replica.signal(signal.SIGTERM)
        assert replica.stop() == 0
        assert time.monotonic() - began < 8.0
        info = client.cache_info()
        assert not info.has_lease
    propagation = house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id)).propagation
    assert propagation.leases_expired == 0, "nothing of it is left to be waited for"
