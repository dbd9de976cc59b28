"""What the real Envoy does while Latchgate is slow, hangs, is gone or comes back: nobody gets in who should not."""

from __future__ import annotations

import signal
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest

from tests.conformance.house import House
from tests.support import envoy as support
from tests.support.envoy import Envoy, Reply, get
from tests.support.fault_proxy import FaultProxy
from tests.support.ports import free_port
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, make_root_key
from tests.support.upstream import Upstream

# What `latchgate envoy-config` lets a check take.
TIMEOUT = 0.5
# And what it lets a connection to Latchgate take.
CONNECT_TIMEOUT = 0.25
LEASE = 1.0


@dataclass
class Site:
    """An API behind Envoy, and what it depends on."""

    proxy: FaultProxy
    latchgate: ServerProcess
    envoy: Envoy
    upstream: Upstream
    root_key: str

    def get(self, key: str, listener: str = "api") -> Reply:
        return get(self.envoy.port(listener), "/", ("x-api-key", key))

    def new_key(self) -> str:
        admin = Admin(self.latchgate.admin_address, self.root_key)
        try:
            return str(House(admin).key().key_string)
        finally:
            admin.close()

    def wait_until_allowed(self, key: str) -> None:
        """Wait until requests with this key pass again."""
        deadline = time.monotonic() + 20
        while self.get(key).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@contextmanager
def unreachable() -> Iterator[socket.socket]:
    """A port of a machine that is gone: whoever connects hears nothing."""
    with socket.socket() as listener, ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # What fills the queue of those who wait to be accepted; beyond it Linux answers nobody.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener


@pytest.fixture(scope="module")
def site(postgres: Postgres) -> Iterator[Site]:
    database_url = postgres.new_database()
    root_key = make_root_key(database_url)
    address = f"127.0.0.1:{free_port()}"
    settings = {"verify_listen": address, "lease": f"{LEASE:.0f}s"}
    with FaultProxy(database_url) as proxy, Upstream() as upstream, unreachable() as silent:
        config = support.bootstrap(upstream.address, address)
        support.ext_authz(support.add_listener(config, "open"))["failure_mode_allow"] = True
        half_dead = support.add_cluster(config, "latchgate", "half_dead", address)
        del half_dead["health_checks"]
        endpoints = half_dead["load_assignment"]["endpoints"][0]["lb_endpoints"]
        dead = {"socket_address": {"address": "127.0.0.1", "port_value": silent.getsockname()[1]}}
        endpoints.append({"endpoint": {"address": dead}})
        support.ext_authz(support.add_listener(config, "half_dead", "half_dead"))["grpc_service"]["timeout"] = "5s"
        with ServerProcess(proxy.url, settings) as latchgate, Envoy(config) as envoy:
            yield Site(proxy, latchgate, envoy, upstream, root_key)


@pytest.fixture
def key(site: Site) -> str:
    """A key that is allowed as things are."""
    made = site.new_key()
    site.wait_until_allowed(made)
    return made


ATTEMPTS = 5


def assert_undecided(site: Site, credential: str, *more: str) -> None:
    """Latchgate itself says that it cannot tell, of the first of these if not of a later one.

    On a busy machine it may say so later than the twentieth of a second that it keeps for the way back, and then Envoy
    says it in its place.
    """
    began = time.monotonic()
    reply = site.get(credential)
    assert time.monotonic() - began < TIMEOUT + 1.5
    assert reply.status == 503, reply
    if not reply.body and more:
        assert_undecided(site, *more)
    else:
        assert reply.json["Code"] == "UNAVAILABLE"
        assert reply.header("content-type") == "application/json"
        assert int(reply.header("retry-after")) >= 1


def test_a_database_that_is_slower_than_envoys_deadline_is_answered_in_time(site: Site, key: str) -> None:
    unknown_here = [site.new_key() for _ in range(ATTEMPTS)]
    before = site.upstream.requests
    site.proxy.delay(1.0)
    try:
        assert_undecided(site, *unknown_here)
    finally:
        site.proxy.delay(0.0)
        site.proxy.restore()
    assert site.upstream.requests == before
    site.wait_until_allowed(unknown_here[0])


def test_a_database_that_is_gone_is_no_reason_to_let_anybody_in(site: Site, key: str) -> None:
    site.proxy.stall()
    try:
        time.sleep(LEASE * 1.2)
        assert_undecided(site, *[key] * ATTEMPTS)
        assert_undecided(site, *["nonsense"] * ATTEMPTS)  # somebody may have imported a key of this form
        assert site.get("").status == 400
        assert site.get("", "open").status == 400
        assert site.get(key, "open").status == 200, "an operator who fails open has asked for this"
    finally:
        site.proxy.restore()
    site.wait_until_allowed(key)


def test_a_latchgate_that_hangs_lets_nobody_in(site: Site, key: str) -> None:
    before = site.upstream.requests
    site.latchgate.signal(signal.SIGSTOP)
    try:
        for credential in (key, "nonsense", ""):
            began = time.monotonic()
            assert site.get(credential).status == 503
            assert time.monotonic() - began < TIMEOUT + 1.5
    finally:
        site.latchgate.signal(signal.SIGCONT)
    assert site.upstream.requests == before
    site.wait_until_allowed(key)


def test_a_latchgate_that_is_gone_lets_nobody_in_and_one_that_comes_back_decides_again(site: Site, key: str) -> None:
    site.latchgate.stop()
    before = site.upstream.requests
    for credential in (key, "nonsense", ""):
        assert site.get(credential).status == 503
    assert site.upstream.requests == before
    site.latchgate.start()
    site.wait_until_allowed(key)
    assert site.get("nonsense").status == 401


def test_a_restart_under_load_decides_nothing_wrongly(site: Site, key: str) -> None:
    seen: set[tuple[str, int]] = set()
    site.latchgate.signal(signal.SIGTERM)
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        seen |= {("good", site.get(key).status), ("bad", site.get(f"{key}x").status)}
    site.latchgate.stop()
    site.latchgate.start()
    until = time.monotonic() + 20
    while ("back", 200) not in seen:
        assert time.monotonic() < until
        seen |= {("good", site.get(key).status), ("bad", site.get(f"{key}x").status), ("back", site.get(key).status)}
    assert seen <= {("good", 200), ("good", 503), ("bad", 401), ("bad", 503), ("back", 200), ("back", 503)}


def test_a_replica_that_is_gone_costs_a_retry_and_no_request(site: Site, key: str) -> None:
    assert {site.get(key, "half_dead").status for _ in range(6)} == {200}
    (retried,) = site.envoy.admin("/stats?filter=half_dead.upstream_rq_retry_success").splitlines()
    assert int(retried.rpartition(" ")[2]) > 0


def test_another_replica_is_asked_while_there_is_time(site: Site, key: str) -> None:
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert site.get(key, "half_dead").status == 200
        took.append(time.monotonic() - began)
    retried = [seconds for seconds in took if seconds > CONNECT_TIMEOUT]
    assert statistics.median(retried) < TIMEOUT, "else a filter as it is printed would have given most of them up"
