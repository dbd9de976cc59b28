"""A port that strangers fill: who is being answered stays, others go, and there is room for whoever comes."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from latchgate_server.observability import CONNECTIONS_SHED
from latchgate_server.system import SystemClock
from latchgate_server.transport import doorkeeper as doorkeeper_module
from latchgate_server.transport.doorkeeper import Doorkeeper
from latchgate_server.transport.server import VERIFY_SERVICE, Listener, Server, Transport
from tests.attack.wire import END_HEADERS, GOAWAY, HEADERS, VERIFY, Wire, call_headers, frame, many

MOST = 40
PLENTY = 2**40
SECONDS = 20.0
HALF = frame(HEADERS, 0, 1, call_headers(VERIFY) + b"\x00\x01y\x7f\x81\x77")
SERVING = health_pb2.HealthCheckResponse.SERVING


@asynccontextmanager
async def guarded(transport: str, memory: int = PLENTY) -> AsyncIterator[Server]:
    """A server with a doorkeeper that lets few in."""
    server = Server(
        Listener("127.0.0.1:0", Transport(transport), reuse_port=False), VERIFY_SERVICE, clock=SystemClock()
    )
    await server.start()
    await server.set_serving()
    keeper = Doorkeeper([server.address], SystemClock(), memory=memory, encrypted=False, connections=MOST)
    looking = asyncio.create_task(keeper.run())
    try:
        yield server
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking
        await server.stop(0)


async def is_served(channel: grpc.aio.Channel) -> bool:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    response = await stub.Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    return bool(response.status == SERVING)


async def is_cut_off(address: str) -> bool:
    """Whether a connection is that has sent much, and was told next to nothing."""
    with await asyncio.to_thread(Wire, address) as wire:
        wire.send(frame(HEADERS, END_HEADERS, 1, call_headers(VERIFY)))
        wire.send(b"".join(frame(0, 0, 1, bytes(8_000)) for _ in range(4)))
        return await asyncio.to_thread(wire.is_closed, SECONDS)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_who_says_half_of_something_goes_and_who_is_answered_stays(transport: str) -> None:
    async with guarded(transport) as server, grpc.aio.insecure_channel(server.address) as good:
        assert await is_served(good)
        with many(server.address, 2 * MOST) as wires:
            for wire in wires:
                with suppress(OSError):
                    wire.send(HALF)
            closed: set[Wire] = set()

            def are_few() -> bool:
                closed.update(wire for wire in wires if wire not in closed and wire.is_closed(0.001))
                return len(wires) - len(closed) < MOST

            gone = asyncio.create_task(until(are_few))
            while not gone.done():
                assert await is_served(good)
                await asyncio.sleep(0.02)
            await gone
            async with grpc.aio.insecure_channel(server.address) as another:
                assert await is_served(another), "there is room"


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_a_connection_that_holds_memory_for_nothing_is_cut_off_at_once(transport: str) -> None:
    async with guarded(transport, memory=1) as server, grpc.aio.insecure_channel(server.address) as good:
        assert await is_served(good)
        assert await is_cut_off(server.address)
        assert await is_served(good)


async def test_where_memory_will_be_short_in_a_moment_who_holds_it_for_nothing_is_cut_off_already(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = 2**30
    taken = itertools.cycle([mark // 2, mark * 7 // 8])
    monkeypatch.setattr(doorkeeper_module, "_taken", lambda: next(taken))
    async with guarded("native", memory=mark) as server, grpc.aio.insecure_channel(server.address) as good:
        assert await is_served(good)
        assert await is_cut_off(server.address)
        assert await is_served(good)


@pytest.mark.parametrize("transport", ["native", "grpcio"])
async def test_where_nobody_stands_out_everybody_is_sent_away_and_then_it_is_let_be(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorkeeper_module, "_PATIENCE_SECONDS", 0.5)
    taken, is_there = doorkeeper_module._taken, threading.Event()
    # Who comes after everybody was sent away is not told so.
    monkeypatch.setattr(doorkeeper_module, "_taken", lambda: taken() if is_there.is_set() else 0)
    before = CONNECTIONS_SHED.labels("memory")._value.get()
    with capture_logs() as log:
        async with guarded(transport, memory=1) as server:
            with await asyncio.to_thread(Wire, server.address) as wire:
                received = b""
                async with asyncio.timeout(SECONDS):
                    while bytes([0, 0, 8, GOAWAY]) not in received:
                        received += wire.drain()
                        if received:  # the server's settings
                            is_there.set()
                        await asyncio.sleep(0.02)
                assert await asyncio.to_thread(wire.is_closed, SECONDS), "it was told, and did not go"
            await until(lambda: any(line["event"] == "memory_short" for line in log))
            async with grpc.aio.insecure_channel(server.address) as good:
                assert await is_served(good)
    assert CONNECTIONS_SHED.labels("memory")._value.get() > before
    assert sum(line["event"] == "connections_shed" for line in log) == 1, "strangers do not fill the log"
