"""A call whose answer is lost on its way was charged once, and is not sent again."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate import AsyncClient, Client, Query, Unavailable
from latchgate.v1 import key_pb2
from tests.conformance.house import House
from tests.support.server import ServerProcess

_ANSWER = 100  # bytes; what a server says beside answers is shorter


class _Wire:
    """A connection to a server that can be cut at the moment when an answer comes along it."""

    def __init__(self, server_address: str) -> None:
        host, _, port = server_address.rpartition(":")
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        self.cuts_next_answer = False
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                for way in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._carry, args=way, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while some := source.recv(1 << 16):
                if is_answer and self.cuts_next_answer and len(some) > _ANSWER:
                    self.cuts_next_answer = False
                    self.cuts += 1
                    break
                sink.sendall(some)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[_Wire]:
    wire = _Wire(server.verify_address)
    yield wire
    wire.close()


def _blocking(address: str, key: str, cut: Callable[[], None]) -> None:
    with Client(address) as client:
        assert client.verify(key).allowed
        cut()
        client.verify(key)


def _many(address: str, key: str, cut: Callable[[], None]) -> None:
    with Client(address) as client:
        assert client.verify(key).allowed
        cut()
        client.verify_many([Query(key=key)])


def _aio(address: str, key: str, cut: Callable[[], None]) -> None:
    asyncio.run(_for_asyncio(address, key, cut, coalesce=False))


def _coalescing(address: str, key: str, cut: Callable[[], None]) -> None:
    asyncio.run(_for_asyncio(address, key, cut, coalesce=True))


async def _for_asyncio(address: str, key: str, cut: Callable[[], None], *, coalesce: bool) -> None:
    async with AsyncClient(address, coalesce=coalesce) as client:
        assert (await client.verify(key)).allowed
        cut()
        await client.verify(key)


@pytest.mark.parametrize("ask", [_blocking, _many, _aio, _coalescing])
def test_a_lost_answer_is_charged_once(
    house: House, server: ServerProcess, wire: _Wire, ask: Callable[[str, str, Callable[[], None]], None]
) -> None:
    rate = key_pb2.RateLimit(limit=10, period=Duration(seconds=86_400))
    key = house.key(limits=[key_pb2.Limit(name="calls", rate_limit=rate)]).key_string

    def cut() -> None:
        wire.cuts_next_answer = True

    with pytest.raises(Unavailable) as lost:
        ask(wire.address, key, cut)
    assert not lost.value.is_from_server
    assert wire.cuts == 1
    with Client(server.verify_address) as direct:
        assert direct.verify(key, cost=0).limits[0].remaining == 8, "one for the call before, one for the lost one"
