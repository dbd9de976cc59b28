"""Health and reflection on both ports, and how a server comes and goes."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
from latchgate_server.system import SystemClock
from latchgate_server.transport.server import VERIFY_SERVICE, Listener, Server, Transport
from tests.conformance.wire import refusal
from tests.support.server import Admin, ServerProcess

PORTS = ["verify", "admin"]
SERVICES = {"verify": "latchgate.v1.VerifyService", "admin": "latchgate.v1.AdminService"}
ENVOYS = "envoy.service.auth.v3.Authorization"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def address(server: ServerProcess, port: str) -> str:
    return server.verify_address if port == "verify" else server.admin_address


class Health:
    """The health service at an address."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub: Any = health_pb2_grpc.HealthStub(channel)

    def check(self, service: str = "") -> int:
        return int(self._stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=20).status)

    def watch(self, service: str = "") -> Iterator[int]:
        for answer in self._stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60):
            yield int(answer.status)


# While it serves.


@pytest.mark.parametrize("port", PORTS)
def test_a_port_is_healthy_as_a_whole_and_for_its_own_service(server: ServerProcess, port: str) -> None:
    with grpc.insecure_channel(address(server, port)) as channel:
        health = Health(channel)
        assert health.check("") == SERVING
        assert health.check(SERVICES[port]) == SERVING
        assert next(health.watch("")) == SERVING


@pytest.mark.parametrize("port", PORTS)
def test_what_a_port_does_not_serve_is_not_found_and_unknown_to_those_who_watch(
    server: ServerProcess, port: str
) -> None:
    other = SERVICES["admin" if port == "verify" else "verify"]
    with grpc.insecure_channel(address(server, port)) as channel:
        health = Health(channel)
        for service in (other, "nonsense", "\0"):
            assert refusal(health.check, service).code == grpc.StatusCode.NOT_FOUND
            assert next(health.watch(service)) == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


@pytest.mark.parametrize("port", PORTS)
def test_a_port_offers_its_service_alone(server: ServerProcess, port: str) -> None:
    other = SERVICES["admin" if port == "verify" else "verify"]
    method = "/ListKeys" if port == "verify" else "/Verify"
    with grpc.insecure_channel(address(server, port)) as channel:
        call: Any = channel.unary_unary(f"/{other}{method}")
        assert refusal(lambda: call(b"", timeout=20)).code == grpc.StatusCode.UNIMPLEMENTED


def reflected(channel: grpc.Channel, **request: Any) -> Any:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = iter([reflection_pb2.ServerReflectionRequest(**request)])
    return next(iter(stub.ServerReflectionInfo(requests, timeout=20)))


@pytest.mark.parametrize("port", PORTS)
def test_reflection_lists_the_services_of_a_port_and_describes_them(server: ServerProcess, port: str) -> None:
    with grpc.insecure_channel(address(server, port)) as channel:
        listed = reflected(channel, list_services="").list_services_response.service
        assert {service.name for service in listed} == {
            SERVICES[port],
            *([ENVOYS] if port == "verify" else []),
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        found = reflected(channel, file_containing_symbol=SERVICES[port]).file_descriptor_response
        files = [FileDescriptorProto.FromString(file) for file in found.file_descriptor_proto]
        assert SERVICES[port].rpartition(".")[2] in {service.name for file in files for service in file.service}


def test_reflection_describes_envoys_service(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.verify_address) as channel:
        found = reflected(channel, file_containing_symbol=ENVOYS).file_descriptor_response
        files = [FileDescriptorProto.FromString(file) for file in found.file_descriptor_proto]
        (service,) = [service for file in files for service in file.service]
        assert [(method.name, method.input_type) for method in service.method] == [
            ("Check", ".latchgate.envoy.v1.CheckRequest")
        ]


def test_envoys_service_is_healthy_as_well(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.verify_address) as channel:
        assert Health(channel).check(ENVOYS) == SERVING


# How it comes.


@pytest.mark.parametrize("transport", [Transport.NATIVE, Transport.GRPCIO])
async def test_a_server_answers_before_it_serves_and_says_that_it_does_not(transport: Transport) -> None:
    server = Server(Listener("127.0.0.1:0", transport, reuse_port=False), VERIFY_SERVICE, clock=SystemClock())
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watched = _statuses(stub)
            for service in ("", VERIFY_SERVICE):
                assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == NOT_SERVING
            assert await anext(watched) == NOT_SERVING
            await server.set_serving()
            for service in ("", VERIFY_SERVICE):
                assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
            assert await anext(watched) == SERVING
            await server.set_deciding(can_decide=False)
            assert (await stub.Check(health_pb2.HealthCheckRequest())).status == SERVING
            assert (await stub.Check(health_pb2.HealthCheckRequest(service=VERIFY_SERVICE))).status == NOT_SERVING
            await server.set_draining()
            await server.set_serving()
            assert await anext(watched) == NOT_SERVING
            stopping = asyncio.create_task(server.stop(10))
            assert [status async for status in watched] == [], "the drain is not held up by those who watch"
            await stopping
    finally:
        await server.stop(0)


async def _statuses(stub: Any) -> AsyncIterator[int]:
    async for answer in stub.Watch(health_pb2.HealthCheckRequest()):
        yield answer.status


async def test_a_second_server_on_the_same_port_is_an_error() -> None:
    first = Server(Listener("127.0.0.1:0", Transport.NATIVE, reuse_port=False), VERIFY_SERVICE, clock=SystemClock())
    await first.start()
    try:
        for transport in (Transport.NATIVE, Transport.GRPCIO):
            second = Server(Listener(first.address, transport, reuse_port=False), VERIFY_SERVICE, clock=SystemClock())
            with pytest.raises(OSError, match="cannot listen on"):
                await second.start()
    finally:
        await first.stop(0)


# How it goes.


@pytest.mark.parametrize(
    ("transport", "number"), [("native", signal.SIGTERM), ("grpcio", signal.SIGTERM), ("native", signal.SIGINT)]
)
def test_a_server_that_is_told_to_stop_turns_its_health_finishes_what_it_has_begun_and_exits_in_order(
    module_database: str, root_key: str, transport: str, number: signal.Signals
) -> None:
    # A change waits for a lock for half a lease: long enough for everything that happens below before its release.
    settings = {"transport": transport, "lease": "16s"}
    with ServerProcess(module_database, settings) as server, ThreadPoolExecutor(2) as threads:
        root = Admin(server.admin_address, root_key)
        channels = [grpc.insecure_channel(address(server, port)) for port in PORTS]
        watched = [Health(channel).watch() for channel in channels]
        assert [next(statuses) for statuses in watched] == [SERVING, SERVING]
        locked = _Locked(module_database)
        parked = threads.submit(root.CreateKey, pb.CreateKeyRequest(key=key_pb2.Key(tenant_id="latchgate")))
        locked.wait_until_somebody_waits()

        began = time.monotonic()
        server.signal(number)
        assert [list(statuses) for statuses in watched] == [[NOT_SERVING], [NOT_SERVING]]
        locked.release()
        assert parked.result().key_string
        assert server.stop() == 0
        assert time.monotonic() - began < 9, "no time runs out"
        assert "stopped" in server.log[-1]
        root.close()
        for channel in channels:
            channel.close()


async def test_an_answer_that_was_given_while_the_native_server_stops_reaches_its_caller() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def answer(request: bytes, context: Any) -> bytes:
        begun.set()
        await go_on.wait()
        return bytes(3_000_000)

    server = Server(Listener("127.0.0.1:0", Transport.NATIVE, reuse_port=False), VERIFY_SERVICE, clock=SystemClock())
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    server.registrar.add_registered_method_handlers("test.Slow", {"Call": handler})
    await server.start()
    async with grpc.aio.insecure_channel(server.address) as channel:
        method: Any = channel.unary_unary("/test.Slow/Call")
        call = method(b"", timeout=20)
        await begun.wait()
        stopping = asyncio.create_task(server.stop(10))
        await asyncio.sleep(0.01)
        go_on.set()
        assert len(await call) == 3_000_000
        await stopping


class _Locked:
    """Somebody else's change, which every other one waits for until `release`."""

    def __init__(self, database_url: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._connection: asyncpg.Connection = self._loop.run_until_complete(asyncpg.connect(database_url))
        self._run("BEGIN")
        self._run("SELECT latchgate_begin_change()")

    def wait_until_somebody_waits(self) -> None:
        waiting = (
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'latchgate' AND wait_event_type = 'Lock')"
        )
        # The view is read once for each transaction unless told otherwise.
        while not self._loop.run_until_complete(self._fresh(waiting)):
            time.sleep(0.01)

    async def _fresh(self, query: str) -> bool:
        await self._connection.execute("SELECT pg_stat_clear_snapshot()")
        return bool(await self._connection.fetchval(query))

    def release(self) -> None:
        self._run("ROLLBACK")
        self._loop.run_until_complete(self._connection.close())
        self._loop.close()

    def _run(self, statement: str) -> None:
        self._loop.run_until_complete(self._connection.execute(statement))
