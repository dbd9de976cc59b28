"""Strangers on a gRPC port: whatever they send, the server goes on serving others, in bounded memory.

`make attack` does the same for longer, and prints what came of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from latchgate_server.system import SystemClock
from latchgate_server.transport import server as server_module
from latchgate_server.transport.server import VERIFY_SERVICE, Listener, Server, Transport
from tests.attack.attacks import ATTACKS, MALFORMED, Attack, malformed_frames
from tests.attack.bystander import Bystander
from tests.attack.tls import TLS_ATTACKS
from tests.attack.wire import DATA, END_HEADERS, END_STREAM, HEADERS, Wire, call_headers, frame, many, message
from tests.support.certificates import Authority
from tests.support.postgres import Postgres
from tests.support.server import ServerProcess, Verify, make_root_key

MEMORY_LIMIT = "320MiB"
MOST_MEBIBYTES = 250
"""By how much any attack of this size may make the server grow; several send or stand for more than that."""
LONGEST_SECONDS = 15.0
"""How long a bystander's slowest call may take, on a busy machine whose processors the attacker shares."""


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> tuple[str, str]:
    url = postgres.new_database()
    return url, make_root_key(url)


def unharmed(process: ServerProcess) -> Iterator[ServerProcess]:
    """A server that has nothing bad to tell at its end."""
    with process as server:
        yield server
        log = "".join(server.log)
    assert "Traceback" not in log
    assert '"level": "error"' not in log


@pytest.fixture(scope="module", params=["native", "grpcio"])
def attacked(request: pytest.FixtureRequest, database: tuple[str, str]) -> Iterator[ServerProcess]:
    """A server for all attacks, one after the other: what one leaves behind, the next meets."""
    yield from unharmed(ServerProcess(database[0], {"transport": request.param, "memory_limit": MEMORY_LIMIT}))


@pytest.fixture(scope="module")
def attacked_over_tls(database: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One that speaks TLS."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    settings = {**authority.issue("server").settings(), "memory_limit": MEMORY_LIMIT}
    yield from unharmed(ServerProcess(database[0], settings, authority.credentials()))


def assert_stood(server: ServerProcess, key: str, attack: Attack) -> None:
    """That somebody else is served while the attack goes on, and that it does not fill the server."""
    with Bystander(server, key) as bystander:
        assert attack(server.verify_address, 1), "the attack did not even begin"
        bystander.ask()

    assert not bystander.failed
    assert bystander.longest < LONGEST_SECONDS
    assert bystander.grown < MOST_MEBIBYTES


@pytest.mark.parametrize("name", TLS_ATTACKS)
def test_a_bystander_is_served_over_tls_during_the_attack(
    attacked_over_tls: ServerProcess, database: tuple[str, str], name: str
) -> None:
    assert_stood(attacked_over_tls, database[1], TLS_ATTACKS[name])


@pytest.mark.parametrize("name", ATTACKS)
def test_a_bystander_is_served_during_the_attack(attacked: ServerProcess, database: tuple[str, str], name: str) -> None:
    assert_stood(attacked, database[1], ATTACKS[name])


def test_the_administrators_port_stands_malformed_frames_as_well(
    attacked: ServerProcess, database: tuple[str, str]
) -> None:
    malformed_frames(attacked.admin_address, 1)

    verify = Verify(attacked.verify_address)
    assert verify(database[1]).decision
    verify.close()
    Wire(attacked.admin_address).close()


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_one_conversation_that_breaks_a_rule_breaks_nothing_else(
    attacked: ServerProcess, database: tuple[str, str], name: str
) -> None:
    """One at a time, so that a failure says which."""
    with Wire(attacked.verify_address, preface=False) as wire:
        wire.send(MALFORMED[name])
        verify = Verify(attacked.verify_address)
        assert verify(database[1]).decision
        verify.close()


def test_a_credential_among_bytes_that_are_no_text_is_not_logged(attacked: ServerProcess) -> None:
    """gRPC's library logs metadata that it cannot decode, on either transport: native has it for what it cannot do."""
    secret = "the-secret-of-somebody"
    for path in ("/latchgate.v1.AdminService/ListTenants", "/latchgate.v1.AdminService/Nothing"):
        headers = call_headers(path, ("authorization", f"Bearer lg_x.{secret}~"), ("x-more", f"{secret}~"))
        call = frame(HEADERS, END_HEADERS, 1, headers.replace(b"~", b"\xd8")) + frame(DATA, END_STREAM, 1, message(b""))
        with Wire(attacked.admin_address) as wire:
            wire.send(call)
            deadline = time.monotonic() + 10
            while b"grpc-status" not in (answer := wire.drain()) and time.monotonic() < deadline:
                if answer:
                    break
                time.sleep(0.01)

    assert secret not in "".join(attacked.log)


async def test_connections_to_grpcio_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here to a few, as thousands take their time."""
    [(name, _)] = [option for option in server_module._GRPCIO_OPTIONS if "connections" in option[0]]
    monkeypatch.setattr(server_module, "_GRPCIO_OPTIONS", ((name, 20),))
    server = Server(Listener("127.0.0.1:0", Transport.GRPCIO, reuse_port=False), VERIFY_SERVICE, clock=SystemClock())
    await server.start()

    def closed() -> int:
        until = time.monotonic() + LONGEST_SECONDS
        with many(server.address, 50) as wires:
            gone: set[Wire] = set()
            while len(gone) < 30 and time.monotonic() < until:
                gone |= {wire for wire in wires if wire not in gone and wire.is_closed(0.02)}
            return sum(wire in gone or wire.is_closed(0.02) for wire in wires)

    assert await asyncio.to_thread(closed) == 30
    await server.stop(0)


async def test_a_listener_that_ends_says_so() -> None:
    """Or else a process could go on, deaf, with a valid lease."""
    for transport in (Transport.GRPCIO, Transport.NATIVE):
        server = Server(Listener("127.0.0.1:0", transport, reuse_port=False), VERIFY_SERVICE, clock=SystemClock())
        await server.start()
        await server.stop(0)
        await server.run()
