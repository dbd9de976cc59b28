"""A call whose answer is lost on its way was charged once, and is not sent again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate import AsyncClient, Client, Query, Unavailable
from latchgate.v1 import key_pb2
from tests.conformance.house import House
from tests.support.fault_proxy import FaultProxy
from tests.support.server import ServerProcess

_ANSWER = 100  # bytes; what a server says beside answers is shorter


@pytest.fixture
def wire(server: ServerProcess) -> Iterator[FaultProxy]:
    with FaultProxy(f"tcp://{server.verify_address}") as proxy:
        yield proxy


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
    house: House, server: ServerProcess, wire: FaultProxy, ask: Callable[[str, str, Callable[[], None]], None]
) -> None:
    rate = key_pb2.RateLimit(limit=10, period=Duration(seconds=86_400))
    key = house.key(limits=[key_pb2.Limit(name="calls", rate_limit=rate)]).key_string

    def cut() -> None:
        wire.drop_at_next_answer(_ANSWER)

    with pytest.raises(Unavailable) as lost:
        ask(wire.address, key, cut)
    assert not lost.value.is_from_server
    assert wire.dropped_answers == 1
    with Client(server.verify_address) as direct:
        assert direct.verify(key, cost=0).limits[0].remaining == 8, "one for the call before, one for the lost one"
