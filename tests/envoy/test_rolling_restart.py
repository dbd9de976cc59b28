"""Three replicas behind the real Envoy, restarted in turn under load: no request fails, no answer is wrong."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from latchgate.v1 import admin_service_pb2 as pb
from tests.conformance.house import House
from tests.support import envoy as support
from tests.support.certificates import Authority
from tests.support.envoy import Config, Envoy, get
from tests.support.ports import free_port
from tests.support.postgres import Postgres
from tests.support.server import Admin, ServerProcess, make_root_key
from tests.support.upstream import Upstream

REPLICAS = 3
CLIENTS = 3
SECONDS = 20.0
HEALTH_INTERVAL = "0.2s"
DRAIN_DELAY = "0.5s"
"""More than Envoy's health checks are apart: over TLS a server cannot tell it to go."""


@dataclass
class Load:
    """Requests without a pause: with a key that stays good, a secret that never was, and keys that are revoked.

    wrong: what was answered otherwise than it had to be.
    """

    port: int
    good: str
    revoked: list[str] = field(default_factory=list)
    answers: Counter[tuple[str, int]] = field(default_factory=Counter)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stopped.is_set():
            self.ask("good", self.good)
            self.ask("wrong secret", f"{self.good[:-1]}{'0' if self.good[-1] != '0' else '1'}")
            # Whatever is in the list was revoked before this request starts.
            for key in self.revoked[-2:]:
                self.ask("revoked", key)

    def ask(self, what: str, key: str) -> None:
        self.answers[what, get(self.port, "/", ("x-api-key", key)).status] += 1


def _config(upstream: Upstream, addresses: list[str], *options: str) -> Config:
    """What `latchgate envoy-config` prints, with three endpoints; health is asked for more often, to save time."""
    config = support.bootstrap(upstream.address, addresses[0], *options)
    (cluster,) = [c for c in config["static_resources"]["clusters"] if c["name"] == "latchgate"]
    cluster["health_checks"][0] |= {"interval": HEALTH_INTERVAL, "no_traffic_interval": HEALTH_INTERVAL}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": int(port)}}}}
        for port in (address.rpartition(":")[2] for address in addresses)
    ]
    (listener,) = config["static_resources"]["listeners"]
    support.ext_authz(listener)["grpc_service"]["timeout"] = "10s"  # no call is to fail for want of a processor
    return config


def _wait_until_all_are_healthy(envoy: Envoy) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        statuses = json.loads(envoy.admin("/clusters?format=json"))["cluster_statuses"]
        (hosts,) = [status["host_statuses"] for status in statuses if status["name"] == "latchgate"]
        healthy = [
            host["health_status"] for host in hosts if not host["health_status"].get("failed_active_health_check")
        ]
        if len(healthy) == REPLICAS:
            return
        assert time.monotonic() < deadline, hosts
        time.sleep(0.05)


@pytest.fixture(params=["plaintext", "tls"])
def authority(request: pytest.FixtureRequest, tmp_path: Path) -> Authority | None:
    """Who signed the replicas' certificate; None: they speak plaintext."""
    return Authority(tmp_path) if request.param == "tls" else None


@pytest.fixture
def replicas(postgres: Postgres, authority: Authority | None) -> Iterator[list[ServerProcess]]:
    database_url = postgres.new_database()
    settings = {} if authority is None else {**authority.issue("server").settings(), "drain_delay": DRAIN_DELAY}
    credentials = None if authority is None else authority.credentials()
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                ServerProcess(database_url, {**settings, "verify_listen": f"127.0.0.1:{free_port()}"}, credentials)
            )
            for _ in range(REPLICAS)
        ]


def test_a_rolling_restart_fails_no_request_and_lets_nobody_in(
    replicas: list[ServerProcess], upstream: Upstream, authority: Authority | None
) -> None:
    root_key = make_root_key(replicas[0].database_url)
    root = Admin(replicas[0].admin_address, root_key, credentials=replicas[0].credentials)
    good, *others = [House(root).key() for _ in range(1 + 2 * REPLICAS)]
    root.close()
    options = () if authority is None else ("--ca", str(authority.file), "--server-name", "latchgate.test")
    with Envoy(_config(upstream, [replica.verify_address for replica in replicas], *options)) as envoy:
        _wait_until_all_are_healthy(envoy)
        load = Load(envoy.port("api"), good.key_string)
        for key in others:  # in everybody's memory before it is revoked
            assert [get(load.port, "/", ("x-api-key", key.key_string)).status for _ in range(REPLICAS)] == [200] * 3
        clients = [threading.Thread(target=load.run) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for number, replica in enumerate(replicas):
                other = replicas[(number + 1) % REPLICAS]
                admin = Admin(other.admin_address, root_key, credentials=other.credentials)
                stopping = threading.Thread(target=replica.stop)
                stopping.start()
                for key in others[2 * number : 2 * number + 2]:  # one is likely to fall into the drain
                    admin.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id, reason="test"))
                    load.revoked.append(key.key_string)
                stopping.join()
                replica.start()
                admin.close()
                _wait_until_all_are_healthy(envoy)
        finally:
            stats = envoy.admin("/stats?usedonly&filter=cluster.latchgate.upstream_(rq|cx)")
            load.stopped.set()
            for client in clients:
                client.join()
    assert set(load.answers) == {("good", 200), ("wrong secret", 401), ("revoked", 401)}, f"{load.answers}\n{stats}"
    assert min(load.answers.values()) > REPLICAS
