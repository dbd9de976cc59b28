"""What a client does when the server goes and comes back, stands still, or listens on a Unix socket."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from latchgate import AdminClient, AsyncClient, Client, Unavailable, connection
from tests.client.blocking import open_admin
from tests.support.ports import free_ports
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, make_root_key

KINDS = ["AdminClient", "AsyncAdminClient"]


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> tuple[str, str]:
    """A database, and its first administrator's key."""
    url = postgres.new_database()
    return url, make_root_key(url)


@pytest.fixture(scope="module")
def server(database: tuple[str, str]) -> Iterator[ServerProcess]:
    """A server that may be ended: it comes back where it was."""
    verify, admin = free_ports(2)
    listen = {"verify_listen": f"127.0.0.1:{verify}", "admin_listen": f"127.0.0.1:{admin}"}
    with ServerProcess(database[0], listen) as running:
        yield running


def allowed_key(database: tuple[str, str], server: ServerProcess) -> str:
    with AdminClient(server.admin_address, database[1]) as admin:
        return admin.create_key(tenant="latchgate").key_string


def test_clients_find_a_server_again_that_was_killed(database: tuple[str, str], server: ServerProcess) -> None:
    key = allowed_key(database, server)
    with Client(server.verify_address) as client, AdminClient(server.admin_address, database[1]) as admin:
        assert client.verify(key).allowed
        server.kill()
        try:
            with pytest.raises(Unavailable):
                client.verify(key)
        finally:
            server.start()
        assert client.verify(key).allowed
        # One that would not be repeated: nothing of it was sent before there was a connection.
        assert admin.create_plan("after").plan.plan_id == "after"


async def test_the_same_holds_for_asyncio(database: tuple[str, str], server: ServerProcess) -> None:
    key = allowed_key(database, server)
    async with AsyncClient(server.verify_address) as client:
        assert (await client.verify(key)).allowed
        server.kill()
        server.start()
        assert (await client.verify(key)).allowed


def test_a_server_that_stands_still_takes_no_longer_than_the_timeout(
    database: tuple[str, str], server: ServerProcess
) -> None:
    key = allowed_key(database, server)
    with (
        Client(server.verify_address, timeout=0.5) as client,
        AdminClient(server.admin_address, database[1], timeout=0.5, change_timeout=0.5) as admin,
    ):
        assert client.verify(key).allowed
        calls: list[Callable[[], object]] = [
            lambda: client.verify(key),
            lambda: client.verify(key, cost=0),
            lambda: admin.create_plan("never"),
            lambda: list(admin.list_plans()),
        ]
        server.signal(signal.SIGSTOP)
        try:
            for call in calls:
                began = time.monotonic()
                with pytest.raises(Unavailable):
                    call()
                assert time.monotonic() - began < 5
        finally:
            server.signal(signal.SIGCONT)
        with Client(server.verify_address) as patient:
            assert patient.verify(key).allowed


def test_a_unix_socket_is_as_good_as_a_port(database: tuple[str, str]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="latchgate-"))
    listen = {"verify_listen": f"unix:{folder}/verify", "admin_listen": f"unix:{folder}/admin"}
    try:
        with ServerProcess(database[0], listen):
            for kind in KINDS:
                with (
                    open_admin(kind, listen["admin_listen"], database[1]) as admin,
                    Client(listen["verify_listen"]) as client,
                ):
                    made = admin.create_key(tenant="latchgate")
                    assert client.verify(made.key_string).allowed
    finally:
        shutil.rmtree(folder)


class _Network:
    """A network that can go silent for the connections that there are; later ones pass."""

    def __init__(self, address: str) -> None:
        host, port = address.split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._silent: set[socket.socket] = set()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def fall_silent(self) -> None:
        self._silent.update(self._open)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                pair = self._listener.accept()[0], socket.create_connection(self._target)
                self._open += pair
                for source, target in (pair, pair[::-1]):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if source not in self._silent:
                    target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_connection_that_died_without_a_word_is_replaced(
    database: tuple[str, str], server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At twenty times the pace: what takes half a minute takes one and a half seconds."""
    faster = [
        (name, value // 20 if "ping_timeout" in name or "keepalive" in name else value)
        for name, value in connection._OPTIONS
    ]
    monkeypatch.setattr(connection, "_OPTIONS", faster)
    key, network = allowed_key(database, server), _Network(server.verify_address)
    try:
        with Client(network.address, timeout=0.5) as client:
            assert client.verify(key).allowed
            network.fall_silent()
            deadline = time.monotonic() + 20
            allowed = False
            while not allowed and time.monotonic() < deadline:
                with suppress(Unavailable):
                    allowed = client.verify(key).allowed
            assert allowed
    finally:
        network.close()


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_of_several_addresses_one_that_answers_is_asked(database: tuple[str, str], transport: str) -> None:
    with ServerProcess(database[0], {"transport": transport}) as replica:
        key = allowed_key(database, replica)
        several = f"ipv4:127.0.0.1:1,{replica.verify_address}"
        with Client(several) as client:
            assert client.verify(key).allowed
        async with AsyncClient(several) as aio:
            assert (await aio.verify(key)).allowed
        with AdminClient(f"ipv4:127.0.0.1:1,{replica.admin_address}", database[1]) as admin:
            assert admin.get_tenant("latchgate").tenant_id == "latchgate"
