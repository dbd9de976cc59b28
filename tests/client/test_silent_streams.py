"""A server that takes a client's stream and never answers on it: the client opens another one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate import AsyncClient, Client
from latchgate.v1 import decision_pb2
from latchgate.v1 import verify_service_pb2 as pb
from tests.client.acting import VERIFY_SERVICE, acting
from tests.support.waiting import SECONDS, wait_until

OVERDUE = 0.3
KEY = "lg_a.secret-of-a"


class HalfDead:
    """Verifies every key. Its first stream it reads, and never answers; later ones it serves."""

    def __init__(self) -> None:
        self.streams = 0
        self.has_ended = threading.Event()

    def verify(self, _request: pb.VerifyRequest, _context: grpc.ServicerContext) -> pb.VerifyResponse:
        """Allow it."""
        identity = decision_pb2.Identity(key_id="lg_a", tenant_id="acme")
        return pb.VerifyResponse(decision=decision_pb2.DECISION_ALLOW, revision=5, identity=identity)

    def watch_keys(
        self, requests: Iterator[pb.WatchKeysRequest], _context: grpc.ServicerContext
    ) -> Iterator[pb.WatchKeysResponse]:
        """Say nothing, or grant what is asked for."""
        self.streams += 1
        is_first = self.streams == 1
        try:
            for request in requests:
                if not is_first:
                    yield pb.WatchKeysResponse(sequence=request.sequence, revision=5, lease=Duration(seconds=1))
        finally:  # however the client ends it
            if is_first:
                self.has_ended.set()


@pytest.fixture
def half_dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[HalfDead, str]]:
    """The server, and its address."""
    monkeypatch.setattr("latchgate.cache._OVERDUE_SECONDS", OVERDUE)
    service = HalfDead()
    handlers = {
        "Verify": grpc.unary_unary_rpc_method_handler(
            service.verify, pb.VerifyRequest.FromString, pb.VerifyResponse.SerializeToString
        ),
        "WatchKeys": grpc.stream_stream_rpc_method_handler(
            service.watch_keys, pb.WatchKeysRequest.FromString, pb.WatchKeysResponse.SerializeToString
        ),
    }
    with acting(VERIFY_SERVICE, handlers) as address:
        yield service, address


def test_a_stream_that_never_answers_is_replaced(half_dead: tuple[HalfDead, str]) -> None:
    service, address = half_dead
    problems: set[str] = set()
    with Client(address, key="lg_w.secret", cache=True) as client:

        def is_cached() -> bool:
            assert client.verify(KEY).allowed
            problems.add(client.cache_info().problem)
            return client.cache_info().hits > 0

        assert wait_until(is_cached) > OVERDUE
        assert service.has_ended.wait(SECONDS), "the server is told that nobody reads it any more"
        assert client.cache_info().problem == ""
    assert any("has not answered" in problem for problem in problems)


async def test_so_is_that_of_the_client_for_asyncio(half_dead: tuple[HalfDead, str]) -> None:
    service, address = half_dead
    problems: set[str] = set()
    async with AsyncClient(address, key="lg_w.secret", cache=True) as client, asyncio.timeout(SECONDS):
        began = time.monotonic()
        while not client.cache_info().hits:
            assert (await client.verify(KEY)).allowed
            problems.add(client.cache_info().problem)
            await asyncio.sleep(0.01)
        assert time.monotonic() - began > OVERDUE
        assert await asyncio.to_thread(service.has_ended.wait, SECONDS)
        assert client.cache_info().problem == ""
    assert any("has not answered" in problem for problem in problems)
