"""When nobody answers, or could not decide: what is asked again, how often, and what never is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from latchgate import (
    AsyncClient,
    CallFailed,
    Client,
    Query,
    Unavailable,
    Verification,
)
from latchgate.retries import ATTEMPTS, Retries
from latchgate.v1 import verify_service_pb2
from latchgate.v1.decision_pb2 import DECISION_ALLOW
from tests.client.acting import VERIFY_SERVICE, acting


def test_a_server_that_is_not_there_is_unavailable_in_time() -> None:
    with Client("127.0.0.1:1", timeout=0.3) as client:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            client.verify("garbage")
        assert 0.2 < time.monotonic() - began < 2


async def test_the_same_holds_for_asyncio() -> None:
    async with AsyncClient("127.0.0.1:1", timeout=0.3) as client:
        with pytest.raises(Unavailable):
            await client.verify("garbage")


class _Flaky:
    """A server whose first answers fail."""

    def __init__(self, failures: int, details: bytes) -> None:
        self.calls = 0
        self._failures, self._details = failures, details

    def answer(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls += 1
        if self.calls <= self._failures:
            context.set_trailing_metadata((("grpc-status-details-bin", self._details),) if self._details else ())
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return verify_service_pb2.VerifyResponse(decision=DECISION_ALLOW).SerializeToString()


@pytest.fixture
def flaky() -> Iterator[Callable[[int, bytes], tuple[_Flaky, str]]]:
    with ExitStack() as stack:

        def start(failures: int, details: bytes) -> tuple[_Flaky, str]:
            answers = _Flaky(failures, details)
            handler: Any = grpc.unary_unary_rpc_method_handler(answers.answer)
            return answers, stack.enter_context(acting(VERIFY_SERVICE, {"Verify": handler}))

        yield start


def _could_not_decide() -> bytes:
    from google.protobuf.any_pb2 import Any as AnyMessage
    from google.rpc import error_details_pb2, status_pb2

    detail = AnyMessage()
    detail.Pack(error_details_pb2.ErrorInfo(reason="STORE_UNAVAILABLE", domain="latchgate.v1"))
    return status_pb2.Status(code=14, details=[detail]).SerializeToString()


def test_what_a_server_could_not_decide_is_asked_again(flaky: Any) -> None:
    answers, address = flaky(ATTEMPTS - 1, _could_not_decide())
    with Client(address) as client:
        assert client.verify("key").allowed
    assert answers.calls == ATTEMPTS


def test_what_may_have_been_charged_is_not_asked_again(flaky: Any) -> None:
    answers, address = flaky(1, b"")
    with Client(address) as client, pytest.raises(Unavailable) as failed:
        client.verify("key")
    assert not failed.value.is_from_server
    assert answers.calls == 1


def test_what_takes_nothing_is_asked_again_whatever_failed(flaky: Any) -> None:
    answers, address = flaky(1, b"")
    with Client(address) as client:
        assert client.verify("key", cost=0).allowed
    assert answers.calls == 2


def test_details_that_somebody_made_up_are_no_reason_to_crash(flaky: Any) -> None:
    answers, address = flaky(1, b"\xff\xff")
    with Client(address) as client, pytest.raises(Unavailable) as failed:
        client.verify("key")
    assert failed.value.reason == ""
    assert answers.calls == 1


def test_a_broken_server_is_not_asked_three_times_as_often() -> None:
    retries = Retries()
    failed = Unavailable(grpc.StatusCode.UNAVAILABLE, "gone", reason="STORE_UNAVAILABLE")
    granted = sum(retries.pause(failed, 1, 1) is not None for _ in range(100))
    assert granted == 10
    for _ in range(10):
        retries.note_success()
    assert retries.pause(failed, 1, 1) is not None
    assert retries.pause(failed, 1, 1) is None


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_nothing_but_unavailable_is_asked_again(code: str) -> None:
    from latchgate.errors import batch_entry_failed

    failed = batch_entry_failed(grpc.StatusCode[code].value[0], "no")
    assert Retries().pause(failed, 1, 0) is None


class _Undecided:
    """A server that decides all of a batch but the keys `slow`, and those from the `after`th time on."""

    def __init__(self, after: int) -> None:
        self.batches: list[list[str]] = []
        self._after = after

    def answer(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        keys = [one.key for one in verify_service_pb2.BatchVerifyRequest.FromString(request).requests]
        self.batches.append(keys)
        response = verify_service_pb2.BatchVerifyResponse()
        for place, key in enumerate(keys):
            one = response.responses.add()
            if key == "slow" and len(self.batches) < self._after:
                response.errors[place].code = grpc.StatusCode.UNAVAILABLE.value[0]
            else:
                one.decision = DECISION_ALLOW
                one.identity.key_id = key
        return response.SerializeToString()


@pytest.fixture
def undecided() -> Iterator[Callable[[int], tuple[_Undecided, str]]]:
    with ExitStack() as stack:

        def start(after: int) -> tuple[_Undecided, str]:
            answers = _Undecided(after)
            handler: Any = grpc.unary_unary_rpc_method_handler(answers.answer)
            return answers, stack.enter_context(acting(VERIFY_SERVICE, {"BatchVerify": handler}))

        yield start


def _key_ids(answers: Iterable[Verification | CallFailed]) -> list[str]:
    return [
        answer.code.name if isinstance(answer, CallFailed) else answer.identity.key_id if answer.identity else ""
        for answer in answers
    ]


def test_of_many_those_that_were_not_decided_are_asked_again(undecided: Any) -> None:
    answers, address = undecided(3)
    with Client(address) as client:
        told = client.verify_many([Query(key="one"), Query(key="slow"), Query(key="two"), Query(key="slow")])
    assert _key_ids(told) == ["one", "slow", "two", "slow"]
    assert answers.batches == [["one", "slow", "two", "slow"], ["slow", "slow"], ["slow", "slow"]]


async def test_those_that_travel_together_are_asked_again_as_single_calls_are(undecided: Any) -> None:
    answers, address = undecided(ATTEMPTS + 1)
    async with AsyncClient(address, coalesce=True) as client:
        slow = asyncio.ensure_future(client.verify("slow"))
        quick = await asyncio.gather(client.verify("one"), client.verify("two"))
        assert not slow.done(), "who is answered does not wait for who is asked for again"
        with pytest.raises(Unavailable):
            await slow
    assert _key_ids(quick) == ["one", "two"]
    assert answers.batches == [["slow", "one", "two"], *[["slow"]] * (ATTEMPTS - 1)]
