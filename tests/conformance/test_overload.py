"""More is asked than can be done: what waits too long is refused at little cost, and health tells the truth."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latchgate.v1.verify_service_pb2 import BatchVerifyRequest, VerifyRequest
from latchgate.v1.verify_service_pb2_grpc import VerifyServiceStub
from latchgate_server.core.bounds import BATCH_SIZE
from latchgate_server.system import SystemClock
from latchgate_server.transport import native
from latchgate_server.transport.admission import LONGEST_SECONDS
from latchgate_server.transport.caller_key import Metadata
from latchgate_server.transport.server import VERIFY_SERVICE, Listener, Server, Transport
from latchgate_server.transport.verify_service import DECISIONS_AT_ONCE
from tests.conformance.wire import refusal_of
from tests.support.server import ServerProcess

CALLS = 400
SCENES = 10
"""How often a scene is set up in which the client has to be faster than the server."""
BUSY_SECONDS = 0.002
DEADLINE_SECONDS = 20.0
OVERLOADED = (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
PATH = f"/{VERIFY_SERVICE}/Verify"
REQUEST = VerifyRequest(key="x").SerializeToString()


class Slow:
    """A native server whose Verify takes the whole event loop for a while, and whose BatchVerify waits to be told."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.turn = 0
        self.worked: list[float] = []
        self.begun: list[int] = []
        self.remaining: list[float] = []
        self.server = Server(
            Listener("127.0.0.1:0", Transport.NATIVE, reuse_port=False), VERIFY_SERVICE, clock=SystemClock()
        )
        verify: Any = grpc.unary_unary_rpc_method_handler(self._verify)
        wait: Any = grpc.unary_unary_rpc_method_handler(self._wait)
        methods = {"Verify": verify, "BatchVerify": wait, "Check": wait}
        self.server.registrar.add_registered_method_handlers(VERIFY_SERVICE, methods)
        self.server.answer_at_once({PATH: self._work}, {f"/{VERIFY_SERVICE}/Check": lambda: b"refused"})

    def _work(self, request: bytes, _metadata: Metadata, _peer: str) -> bytes:
        began = time.monotonic()
        time.sleep(BUSY_SECONDS)
        self.worked.append(time.monotonic() - began)
        return request

    async def _verify(self, _request: bytes, _context: Any) -> bytes:
        raise AssertionError("it is answered at once")

    def take_turn(self) -> None:
        """Count the turns of the event loop from now on."""
        self.turn += 1
        asyncio.get_running_loop().call_soon(self.take_turn)

    async def _wait(self, request: bytes, context: Any) -> bytes:
        self.begun.append(self.turn)
        self.remaining.append(context.time_remaining())
        await self.go_on.wait()
        return request


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    slow = Slow()
    await slow.server.start()
    await slow.server.set_serving()
    try:
        yield slow
    finally:
        await slow.server.stop(0)


def offer(address: str, count: int) -> tuple[list[Any], int]:
    """Calls at once, over several connections. What each came to, and what health said meanwhile."""
    channels = [grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)]
    try:
        for channel in channels:
            grpc.channel_ready_future(channel).result(timeout=10)
        methods: list[Any] = [channel.unary_unary(PATH) for channel in channels]
        calls = [method.future(REQUEST, timeout=20) for _ in range(count // len(methods)) for method in methods]
        health: Any = health_pb2_grpc.HealthStub(channels[0])
        status = int(health.Check(health_pb2.HealthCheckRequest(service=VERIFY_SERVICE), timeout=10).status)
        ends = [call.exception(timeout=20) for call in calls]
        return ends, status
    finally:
        for channel in channels:
            channel.close()


async def test_what_waited_too_long_is_refused_with_a_time_to_come_back(slow: Slow) -> None:
    for _ in range(SCENES):
        slow.worked.clear()
        began = time.thread_time()
        ends, health = await asyncio.to_thread(offer, slow.server.address, CALLS)
        took = time.thread_time() - began  # of this thread, which is the server's: the client has others
        if any(ends):  # or else the client sent more slowly than was served
            break
    else:
        pytest.fail("there was more than could be done")

    refusals = [refusal_of(end) for end in ends if end is not None]
    assert health == health_pb2.HealthCheckResponse.SERVING
    assert len(slow.worked) == len(ends) - len(refusals), "what is refused is not worked on"
    assert sum(slow.worked) >= LONGEST_SECONDS * 0.25, "what could be done was done"
    assert took < CALLS * BUSY_SECONDS, "refusing is cheaper than serving"
    assert {(refusal.code, refusal.reason) for refusal in refusals} == {OVERLOADED}
    assert all(refusal.retry_after for refusal in refusals)


async def test_a_few_calls_are_served_after_a_pause_of_the_whole_process(slow: Slow) -> None:
    async with grpc.aio.insecure_channel(slow.server.address) as channel:
        verify: Any = channel.unary_unary(PATH)
        await verify(REQUEST, timeout=20)
        calls = [asyncio.ensure_future(verify(REQUEST, timeout=20)) for _ in range(20)]
        await asyncio.sleep(0.01)  # in which they are sent
        time.sleep(2 * LONGEST_SECONDS)

        assert await asyncio.gather(*calls) == [REQUEST] * 20


async def test_after_the_burst_everybody_is_served_again(slow: Slow) -> None:
    await asyncio.to_thread(offer, slow.server.address, CALLS)

    async with grpc.aio.insecure_channel(slow.server.address) as channel:
        verify: Any = channel.unary_unary(PATH)
        for _ in range(20):
            assert await verify(REQUEST, timeout=10) == REQUEST


def send_together(slow: Slow, channel: grpc.Channel, count: int) -> list[Any]:
    """So many calls that have to wait. All of them arrive before one is taken up, as this holds the event loop."""
    server: Any = slow.server.registrar
    wait: Any = channel.unary_unary(f"/{VERIFY_SERVICE}/BatchVerify")
    until = time.monotonic() + DEADLINE_SECONDS
    calls = [wait.future(REQUEST, timeout=DEADLINE_SECONDS) for _ in range(count)]
    while server._arrived < count:
        assert time.monotonic() < until
        time.sleep(0.001)
    return calls


async def ends(calls: Sequence[Any]) -> list[bytes]:
    """What they came to."""
    return await asyncio.to_thread(lambda: [call.result(timeout=DEADLINE_SECONDS) for call in calls])


async def test_calls_that_have_to_wait_are_begun_a_few_in_each_turn_of_the_event_loop(slow: Slow) -> None:
    slow.go_on.set()
    with grpc.insecure_channel(slow.server.address) as channel:
        calls = send_together(slow, channel, 64)
        slow.take_turn()
        assert await ends(calls) == [REQUEST] * 64
    assert max(Counter(slow.begun).values()) == native.BEGUN_AT_ONCE, "what memory can answer comes in between"


async def test_what_a_call_waited_for_its_turn_is_taken_off_its_deadline(slow: Slow) -> None:
    slow.go_on.set()
    with grpc.insecure_channel(slow.server.address) as channel:
        calls = send_together(slow, channel, 1)
        time.sleep(0.5)
        await ends(calls)
    assert slow.remaining[0] <= DEADLINE_SECONDS - 0.25, "half a second, but for what it took to arrive"


async def test_what_was_taken_up_before_the_end_is_served(slow: Slow) -> None:
    slow.go_on.set()
    with grpc.insecure_channel(slow.server.address) as channel:
        calls = send_together(slow, channel, 64)
        server: Any = slow.server.registrar
        while not server._to_begin:
            await asyncio.sleep(0)
        await server.stop(10)
        assert await ends(calls) == [REQUEST] * 64


async def test_calls_that_wait_do_not_keep_others_from_being_answered(
    slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "CALLS_AT_ONCE", 10)
    async with grpc.aio.insecure_channel(slow.server.address) as channel:
        wait: Any = channel.unary_unary(f"/{VERIFY_SERVICE}/BatchVerify")
        verify: Any = channel.unary_unary(PATH)
        waiting = [asyncio.ensure_future(wait(REQUEST, timeout=20)) for _ in range(10)]
        while len(slow.server.registrar._calls) < 10:  # type: ignore[attr-defined]  # of the native server
            await asyncio.sleep(0.01)

        with pytest.raises(grpc.RpcError) as caught:
            await wait(REQUEST, timeout=20)
        refused = refusal_of(caught.value)
        assert (refused.code, refused.reason) == OVERLOADED
        check: Any = channel.unary_unary(f"/{VERIFY_SERVICE}/Check")
        assert await check(REQUEST, timeout=20) == b"refused", "an error would let Envoy fail open"
        assert await verify(REQUEST, timeout=20) == REQUEST

        slow.go_on.set()
        assert await asyncio.gather(*waiting) == [REQUEST] * 10


def test_batches_beyond_what_is_decided_at_once_are_refused(server: ServerProcess) -> None:
    key = f"lg_{'0' * 22}.{'0' * 49}"
    request = BatchVerifyRequest(requests=[VerifyRequest(key=key, required_permissions="a.b OR c.d")] * BATCH_SIZE)
    with grpc.insecure_channel(server.verify_address) as channel:
        batch: Any = VerifyServiceStub(channel).BatchVerify
        for _ in range(SCENES):
            calls = [batch.future(request, timeout=60) for _ in range(4 * DECISIONS_AT_ONCE // BATCH_SIZE)]
            ends = [call.exception(timeout=60) for call in calls]
            refusals = [refusal_of(end) for end in ends if end is not None]
            if refusals:
                break
        else:
            pytest.fail("all batches were decided")

        assert {(refusal.code, refusal.reason) for refusal in refusals} == {OVERLOADED}
        assert all(refusal.retry_after for refusal in refusals)
        assert len(refusals) < len(calls)
        assert len(batch(request, timeout=20).responses) == BATCH_SIZE
