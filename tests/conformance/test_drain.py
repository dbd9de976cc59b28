"""A server that ends costs nobody a call, on either transport, whether its clients look at its health or not."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latchgate.v1.decision_pb2 import DECISION_ALLOW
from latchgate.v1.verify_service_pb2 import VerifyRequest
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub
from latchgate_server.system import SystemClock
from latchgate_server.transport.server import VERIFY_SERVICE, Listener, Server, Transport
from tests.conformance.house import House
from tests.support.certificates import Authority
from tests.support.ports import free_ports
from tests.support.server import Admin, ServerProcess

TRANSPORTS = ["native", "grpcio"]
CALLERS = 6
ENOUGH = 200
RECONNECT_SECONDS = 3.0
"""More than gRPC's client waits before it tries a server again that was away."""

GOAWAY = 7
EVERY_STREAM = 2**31 - 1


@pytest.fixture
def authority(transport: str, tmp_path: Path) -> Authority:
    """Who signs the certificates of servers with TLS."""
    if transport != "grpcio":
        pytest.skip("TLS is grpcio's")
    return Authority(tmp_path)


@pytest.fixture
def key(server: ServerProcess, root_key: str) -> Iterator[str]:
    admin = Admin(server.admin_address, root_key)
    yield House(admin).key().key_string
    admin.close()


class Load:
    """Calls of Verify without a pause, over all of these addresses in turn, and how each of them ended."""

    def __init__(
        self,
        addresses: Sequence[str],
        key: str,
        credentials: grpc.ChannelCredentials | None = None,
        *,
        looks_at_health: bool = False,
    ) -> None:
        """credentials: for TLS."""
        self._credentials = credentials
        self._looks_at_health = looks_at_health
        self.ends: Counter[str] = Counter()
        self._addresses = addresses
        self._request = VerifyRequest(key=key)
        self._stopped = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        config: dict[str, Any] = {"loadBalancingConfig": [{"round_robin": {}}]}
        target = "ipv4:" + ",".join(self._addresses)
        options = [("grpc.default_authority", "latchgate.test")]
        if self._looks_at_health:
            config["healthCheckConfig"] = {"serviceName": VERIFY_SERVICE}
        options.append(("grpc.service_config", json.dumps(config)))
        made = (
            grpc.aio.secure_channel(target, self._credentials, options)
            if self._credentials
            else grpc.aio.insecure_channel(target, options)
        )
        async with made as channel:
            stub = VerifyServiceStub(channel)
            callers = [asyncio.create_task(self._call(stub)) for _ in range(CALLERS)]
            try:
                yield
            finally:
                self._stopped = True
                await asyncio.gather(*callers)

    async def more(self, calls: int = ENOUGH) -> None:
        """Return when so many more have ended."""
        goal = self.ends.total() + calls
        while self.ends.total() < goal:
            await asyncio.sleep(0.01)

    async def _call(self, stub: Any) -> None:
        while not self._stopped:
            try:
                response = await stub.Verify(self._request, timeout=20)
                self.ends["allowed" if response.decision == DECISION_ALLOW else "denied"] += 1
            except grpc.aio.AioRpcError as error:
                self.ends[f"{error.code().name}: {error.details()}"] += 1


async def test_no_call_is_lost_when_one_of_two_servers_ends_under_load(
    module_database: str, server: ServerProcess, key: str, transport: str
) -> None:
    with ServerProcess(module_database, {"transport": transport}) as ending:
        load = Load([server.verify_address, ending.verify_address], key)
        async with load.running():
            await load.more()
            assert await asyncio.to_thread(ending.stop) == 0
            await load.more()
    assert set(load.ends) == {"allowed"}


async def test_over_tls_no_call_is_lost_with_a_delay_where_clients_look_at_health(
    module_database: str, key: str, authority: Authority
) -> None:
    """Two servers restarted in turn; without TLS clients are told to go instead."""
    settings = {**authority.issue("server").settings(), "drain_delay": "1s"}
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    of_first, of_second = ({**settings, "verify_listen": address} for address in addresses)
    with ServerProcess(module_database, of_first) as first, ServerProcess(module_database, of_second) as second:
        load = Load(addresses, key, authority.credentials(), looks_at_health=True)
        async with load.running():
            for server in (first, second):
                await load.more()
                assert await asyncio.to_thread(server.stop) == 0
                await load.more()
                await asyncio.to_thread(server.start)
                await asyncio.sleep(RECONNECT_SECONDS)
            await load.more()
    assert set(load.ends) == {"allowed"}


async def test_over_tls_no_call_is_lost_of_clients_that_ignore_health_where_connections_are_renewed(
    module_database: str, key: str, authority: Authority
) -> None:
    settings = {**authority.issue("server").settings(), "tls_connection_age": "1s"}
    with ServerProcess(module_database, settings) as staying, ServerProcess(module_database, settings) as ending:
        async with AsyncExitStack() as stack:
            loads = [
                Load([staying.verify_address, ending.verify_address], key, authority.credentials()) for _ in range(3)
            ]
            for load in loads:
                await stack.enter_async_context(load.running())
            await asyncio.gather(*(load.more() for load in loads))
            assert await asyncio.to_thread(ending.stop) == 0
            await asyncio.gather(*(load.more() for load in loads))
    assert {end for load in loads for end in load.ends} == {"allowed"}


async def test_with_a_delay_health_turns_first_and_calls_are_taken_until_it_is_over(
    module_database: str, server: ServerProcess, key: str, transport: str
) -> None:
    with ServerProcess(module_database, {"transport": transport, "drain_delay": "1s"}) as ending:
        async with grpc.aio.insecure_channel(ending.verify_address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            watch = health.Watch(health_pb2.HealthCheckRequest())
            assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.SERVING
            ending.signal(signal.SIGTERM)
            assert (await anext(aiter(watch))).status == health_pb2.HealthCheckResponse.NOT_SERVING
            for _ in range(20):
                response = await VerifyServiceStub(channel).Verify(VerifyRequest(key=key), timeout=20)
                assert response.decision == DECISION_ALLOW
        assert ending.stop() == 0, ending.log


@pytest.mark.parametrize("address", ["127.0.0.1:0", "unix:{folder}/verify"])
async def test_who_is_connected_is_told_to_go_and_nobody_else_gets_in(
    transport: str, address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    listener = Listener(address.format(folder=tmp_path_factory.mktemp("s")), Transport(transport), reuse_port=False)
    server = Server(listener, VERIFY_SERVICE, clock=SystemClock())
    await server.start()
    connection = _connect(server.address)
    with connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        frames = _frames(connection)
        await asyncio.to_thread(next, frames)  # its settings: it has taken the connection up
        stopping = asyncio.create_task(server.stop(1))
        kind, payload = await asyncio.to_thread(lambda: next(frame for frame in frames if frame[0] == GOAWAY))
        assert (kind, int.from_bytes(payload[:4], "big"), payload[4:8]) == (GOAWAY, EVERY_STREAM, bytes(4))
        assert not stopping.done(), "it waits for those whom it has told"
        with pytest.raises(ConnectionRefusedError):
            _connect(server.address)
    await stopping


def _connect(address: str) -> socket.socket:
    if address.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(address.removeprefix("unix:"))
        except OSError:
            connection.close()
            raise
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=20)


def _frames(connection: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The type and the payload of each HTTP/2 frame."""
    with connection.makefile("rb") as stream:
        while header := stream.read(9):
            yield header[3], stream.read(int.from_bytes(header[:3], "big"))
