"""Limits across real processes: killed, stopped, on their own share, and without the store that they share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate.v1 import key_pb2
from latchgate.v1.admin_service_pb2 import ResetLimitRequest
from latchgate.v1.decision_pb2 import DECISION_ALLOW
from latchgate.v1.verify_service_pb2 import VerifyRequest
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub
from tests.conformance.house import House
from tests.conformance.wire import code_of
from tests.support.postgres import Postgres
from tests.support.server import PATIENT, Admin, ServerProcess, Verify, environment, make_root_key, run_command
from tests.support.valkey import valkey_server
from tests.support.valkey_cluster import ValkeyCluster, running_cluster
from tests.support.waiting import wait_until

LEASE = {"lease": "1s"}
LARGEST_PORTION = 2_000
"""What a process can have borrowed at most here, in a quota of QUOTA: half of the rest, and no more."""
QUOTA = 4_000


@dataclass
class Deployment:
    """A database, and processes on it."""

    database_url: str
    root_key: str
    stack: ExitStack = field(default_factory=ExitStack)

    def serve(self, **settings: str) -> ServerProcess:
        return self.stack.enter_context(ServerProcess(self.database_url, LEASE | settings))

    def house(self, server: ServerProcess) -> House:
        root = Admin(server.admin_address, self.root_key)
        self.stack.callback(root.close)
        return House(root)

    def verify(self, server: ServerProcess) -> Verify:
        verify = Verify(server.verify_address)
        self.stack.callback(verify.close)
        return verify


@pytest.fixture
def deployment(postgres: Postgres) -> Iterator[Deployment]:
    database_url = postgres.new_database()
    made = Deployment(database_url, make_root_key(database_url))
    with made.stack:
        yield made


def quota(limit: int) -> key_pb2.Limit:
    return key_pb2.Limit(name="prepaid", quota=key_pb2.Quota(limit=limit, period=key_pb2.Quota.PERIOD_LIFETIME))


def rate(limit: int, seconds: int = 3_600, name: str = "calls") -> key_pb2.Limit:
    return key_pb2.Limit(name=name, rate_limit=key_pb2.RateLimit(limit=limit, period=Duration(seconds=seconds)))


def _is_up(server: ServerProcess) -> bool:
    return server.metrics()["latchgate_limit_store_up"] == 1


async def _use(address: str, key: str, seconds: float) -> int:
    """Ask as fast as the server answers, and return how often it allowed. A server that is gone ends it."""
    deadline = time.monotonic() + seconds
    async with grpc.aio.insecure_channel(address) as channel:
        stub = VerifyServiceStub(channel)

        async def ask() -> int:
            mine = 0
            while time.monotonic() < deadline:
                try:
                    answer = await stub.Verify(VerifyRequest(key=key), timeout=5)
                except grpc.aio.AioRpcError:
                    break
                mine += answer.decision == DECISION_ALLOW
            return mine

        return sum(await asyncio.gather(*(ask() for _ in range(8))))


async def test_processes_that_are_killed_and_stopped_never_grant_more_than_the_quota(deployment: Deployment) -> None:
    steady, killed, stopped = (deployment.serve() for _ in range(3))
    key = deployment.house(steady).key(limits=[quota(QUOTA)]).key_string

    async def end(server: ServerProcess, after: float, how: Callable[[], object]) -> None:
        await asyncio.sleep(after)
        await asyncio.to_thread(how)

    uses = [_use(server.verify_address, key, 3.0) for server in (steady, killed, stopped)]
    ends = [end(killed, 0.7, killed.kill), end(stopped, 1.4, stopped.stop)]
    results = await asyncio.gather(*uses, *ends)
    allowed = sum(results[: len(uses)])  # type: ignore[arg-type]  # how often each was allowed
    assert allowed > 100, "they were at work"
    rest = await _drain(steady, key)
    assert allowed + rest <= QUOTA
    assert allowed + rest >= QUOTA - LARGEST_PORTION, "a crash wastes what was borrowed, no more"


async def _drain(server: ServerProcess, key: str) -> int:
    """Use what is left, until others' portions have had time to come back and nothing did."""
    allowed = rounds_without = 0
    while rounds_without < 2:
        more = await _use(server.verify_address, key, 1.0)
        allowed += more
        rounds_without = 0 if more else rounds_without + 1
        await asyncio.sleep(0.6)
    return allowed


async def test_a_process_that_stops_gives_back_what_it_had_borrowed(deployment: Deployment) -> None:
    first = deployment.serve()
    key = deployment.house(first).key(limits=[quota(100)]).key_string
    verify = deployment.verify(first)
    used = [verify(key).decision for _ in range(7)]
    assert used == [DECISION_ALLOW] * 7
    assert first.stop() == 0
    second = deployment.verify(deployment.serve())
    assert second(key, cost=93).decision == DECISION_ALLOW
    assert second(key).decision != DECISION_ALLOW


def test_without_a_shared_store_each_process_lets_through_its_share(deployment: Deployment) -> None:
    servers = [deployment.serve(), deployment.serve(workers="1")]
    key = deployment.house(servers[0]).key(limits=[rate(20)]).key_string
    wait_until(lambda: all(server.metrics()["latchgate_replicas"] == len(servers) for server in servers))
    verifies = [deployment.verify(server) for server in servers]
    allowed = [sum(verify(key).decision == DECISION_ALLOW for _ in range(20)) for verify in verifies]
    assert allowed == [10, 10]


def test_a_process_that_crashed_gives_its_share_to_the_others(deployment: Deployment) -> None:
    survivor, crashed = deployment.serve(), deployment.serve()
    house, verify = deployment.house(survivor), deployment.verify(survivor)
    crashed.kill()

    def whole() -> bool:
        key = house.key(limits=[rate(20)]).key_string
        return all(verify(key).decision == DECISION_ALLOW for _ in range(20))

    wait_until(whole)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with running_cluster() as running:
        yield running


@pytest.fixture(params=["one server", "cluster"])
def shared_store(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """A store by two of its addresses, the same for one server."""
    if request.param == "cluster":
        cluster = request.getfixturevalue("cluster")
        yield cluster.address(0), cluster.address(1, 2)
    else:
        with valkey_server() as server:
            yield server.connection_url, server.connection_url


def test_with_a_shared_store_several_processes_are_exact(deployment: Deployment, shared_store: tuple[str, str]) -> None:
    servers = [deployment.serve(limit_store=address, limit_store_timeout=PATIENT) for address in shared_store]
    house, verifies = deployment.house(servers[0]), [deployment.verify(server) for server in servers]
    for _ in range(4):  # tenants, who are on different nodes of a cluster
        tenant = house.tenant(limits=[rate(21)])
        keys = [house.key(tenant, limits=[rate(15, name="own")]).key_string for _ in range(2)]
        asked = [verify(key).decision == DECISION_ALLOW for _ in range(10) for key in keys for verify in verifies]
        assert sum(asked) == 21
        assert house.root.ResetLimit(ResetLimitRequest(tenant_id=tenant, name="calls")).limit.remaining == 21
        again = [verify(key).decision == DECISION_ALLOW for _ in range(5) for key in keys for verify in verifies]
        assert sum(again) == 30 - 21, "what is left of the keys' own limits"


@pytest.mark.parametrize(("choice", "code"), [("share", grpc.StatusCode.OK), ("deny", grpc.StatusCode.UNAVAILABLE)])
def test_without_one_node_of_a_cluster_its_own_tenants_alone_are_treated_as_is_told(
    deployment: Deployment, cluster: ValkeyCluster, choice: str, code: grpc.StatusCode
) -> None:
    settings = {"limit_store": cluster.address(1), "limit_store_timeout": PATIENT, "on_limit_store_loss": choice}
    server = deployment.serve(**settings)
    house, verify = deployment.house(server), deployment.verify(server)
    lost, kept = (house.key(house.tenant(tenant_id=cluster.tenant_on(place)), limits=[rate(3)]) for place in (1, 2))
    assert [verify(key.key_string).decision for key in (lost, kept)] == [DECISION_ALLOW] * 2
    cluster.kill(1)
    assert {code_of(verify, lost.key_string) for _ in range(10)} == {code}
    told = server.wait_for("limit_store_lost")
    assert (told["node"], told["denying"]) == (cluster.name(1), choice == "deny")
    assert not _is_up(server)
    allowed = sum(verify(kept.key_string).decision == DECISION_ALLOW for _ in range(5))
    assert allowed == 2, "counted where it was, beside what was taken before"
    cluster.revive(1)
    wait_until(lambda: code_of(verify, lost.key_string) == grpc.StatusCode.OK and _is_up(server))
    assert server.wait_for("limit_store_found")["node"] == cluster.name(1)


@pytest.mark.parametrize(("choice", "code"), [("share", grpc.StatusCode.OK), ("deny", grpc.StatusCode.UNAVAILABLE)])
def test_without_the_store_a_process_counts_its_share_or_decides_nothing_as_it_is_told(
    deployment: Deployment, choice: str, code: grpc.StatusCode
) -> None:
    valkey = valkey_server()
    valkey.start()
    port = valkey.port
    settings = {"limit_store": valkey.connection_url, "limit_store_timeout": PATIENT, "on_limit_store_loss": choice}
    server = deployment.serve(**settings)
    house, verify = deployment.house(server), deployment.verify(server)
    limited = house.key(limits=[rate(3), quota(50)]).key_string
    free = house.key().key_string
    assert verify(limited).decision == DECISION_ALLOW
    valkey.stop()
    codes = {code_of(verify, limited) for _ in range(10)}
    assert codes == {code}
    assert verify(free).decision == DECISION_ALLOW, "keys without limits need no store"
    server.wait_for("limit_store_lost")
    assert not _is_up(server)
    began = time.monotonic()
    for _ in range(20):
        code_of(verify, limited)
    assert time.monotonic() - began < 2, "nobody waits for a store that is known to be gone"
    if choice == "share":
        assert verify(limited).decision != DECISION_ALLOW, "the share is counted"

    with valkey_server(port):
        wait_until(lambda: code_of(verify, limited) == code_of(verify, free) and _is_up(server))
        server.wait_for("limit_store_found")


def test_settings_of_the_store_that_cannot_be_are_refused(deployment: Deployment) -> None:
    for value in ("", "http://x"):
        done = run_command("serve", env=environment(deployment.database_url, limit_store=value))
        assert done.returncode == 1
        assert "LATCHGATE_LIMIT_STORE" in done.stderr
    assert (
        "secret"
        not in run_command("serve", env=environment(deployment.database_url, limit_store="http://:secret@x")).stderr
    )
