"""`Client` and `AsyncClient`: the same questions and answers, one blocking and one not."""

from __future__ import annotations

import asyncio
import copy
import pickle
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import FrozenInstanceError, replace
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from latchgate import (
    AsyncClient,
    CallFailed,
    Client,
    Denied,
    InvalidRequest,
    Query,
    Unavailable,
    Verification,
)
from latchgate.retries import ATTEMPTS, Retries
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2, verify_service_pb2
from latchgate.v1.decision_pb2 import DECISION_ALLOW
from tests.client.acting import VERIFY_SERVICE, acting
from tests.conformance.house import House
from tests.support.server import ServerProcess

Ask = Callable[..., Verification]


class _Blocking:
    """AsyncClient, asked as Client is."""

    def __init__(self, loop: asyncio.Runner, client: AsyncClient) -> None:
        self._loop, self._client = loop, client

    def verify(self, key: str, **question: Any) -> Verification:
        return self._loop.run(self._client.verify(key, **question))

    def verify_many(self, queries: list[Query]) -> list[Verification | CallFailed]:
        return self._loop.run(self._client.verify_many(queries))


@pytest.fixture(params=["Client", "Client, caching", "AsyncClient", "AsyncClient, coalescing"])
def client(request: pytest.FixtureRequest, server: ServerProcess, house: House) -> Iterator[Any]:
    if request.param == "Client":
        with Client(server.verify_address) as blocking:
            yield blocking
        return
    if request.param == "Client, caching":
        key = house.key("latchgate", permissions=["latchgate.watch"]).key_string
        with Client(server.verify_address, key=key, cache=True) as blocking:
            yield blocking
        return
    with asyncio.Runner() as runner:
        runner.get_loop()

        async def make() -> AsyncClient:
            return AsyncClient(server.verify_address, coalesce="coalescing" in request.param)

        made = runner.run(make())
        yield _Blocking(runner, made)
        runner.run(made.close())


def test_an_allowed_key_tells_who_it_speaks_for(house: House, client: Any) -> None:
    tenant = house.tenant()
    key = house.key(tenant, permissions=["orders.read"], owner="ada", tags={"team": "web"}, display_name="web shop")
    verification = client.verify(key.key_string, requires="orders.read")
    assert verification.allowed
    assert verification.raise_for_denial() is verification
    identity = verification.identity
    assert (identity.key_id, identity.tenant, identity.name) == (key.key.key_id, tenant, "web shop")
    assert (identity.owner, identity.user, identity.permissions) == ("ada", "ada", ("orders.read",))
    assert (identity.tags, identity.expire_time) == ({"team": "web"}, None)
    assert verification.revision > 0


def test_a_denial_is_an_answer_and_an_error_only_on_request(house: House, client: Any) -> None:
    key = house.key().key_string
    verification = client.verify(key, requires="orders.read")
    assert (verification.allowed, verification.reason) == (False, "INSUFFICIENT_PERMISSIONS")
    with pytest.raises(Denied) as denied:
        verification.raise_for_denial()
    assert denied.value.reason == "INSUFFICIENT_PERMISSIONS"
    assert denied.value.verification is verification
    assert client.verify("garbage").reason == "INVALID_API_KEY"
    assert client.verify("").reason == "MISSING_API_KEY"


def test_limits_are_told_in_seconds(house: House, client: Any) -> None:
    rate = key_pb2.RateLimit(limit=2, period=Duration(seconds=60))
    key = house.key(limits=[key_pb2.Limit(name="calls", rate_limit=rate)]).key_string
    first = client.verify(key, cost=2).limits[0]
    assert (first.name, first.kind, first.holder, first.limit, first.remaining) == ("calls", "rate_limit", "key", 2, 0)
    assert 59 < first.reset_after <= 60.001
    denied = client.verify(key)
    assert denied.reason == "RATE_LIMITED"
    assert 0 < denied.retry_after <= 30.001


def test_a_malformed_question_names_its_field(client: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.verify("garbage", cost=-1)
    assert refused.value.code == grpc.StatusCode.INVALID_ARGUMENT
    assert "cost" in str(refused.value)


def test_one_malformed_query_of_many_fails_alone(house: House, client: Any) -> None:
    key = house.key().key_string
    answers = client.verify_many([Query(key=key), Query(key=key, requires="("), Query(key="garbage")])
    assert isinstance(answers[0], Verification)
    assert answers[0].allowed
    assert isinstance(answers[1], InvalidRequest)
    assert isinstance(answers[2], Verification)
    assert answers[2].reason == "INVALID_API_KEY"


def test_more_queries_than_fit_a_batch_come_back_in_their_order(house: House, client: Any) -> None:
    key = house.key().key_string
    answers = client.verify_many([Query(key=key if place % 7 == 0 else "garbage") for place in range(2_003)])
    assert [answer.allowed for answer in answers] == [place % 7 == 0 for place in range(2_003)]


def test_answers_and_questions_cannot_be_changed(house: House, client: Any) -> None:
    verification = client.verify("garbage")
    for value, name in ((verification, "allowed"), (Query(key="k"), "key")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, True)


def test_an_answer_is_a_value_like_any_other(house: House, client: Any) -> None:
    key = house.key(permissions=["orders.read"], claims={"region": "eu"}).key_string
    query = Query(key=key, requires="orders.read")
    told = [client.verify(key, requires="orders.read"), *client.verify_many([query] * 3)]
    copies = [copy.copy(told[1]), pickle.loads(pickle.dumps(told[2])), replace(told[3])]
    assert all(one == told[0] for one in [*told, *copies])
    assert len({repr(one) for one in [*told, *copies]}) == 1
    assert not hasattr(told[0], "nonsense")
    assert told[0].identity is told[0].identity


def test_a_key_is_in_no_text(house: House, server: ServerProcess) -> None:
    key = house.key().key_string
    secret = key.rpartition(".")[2]
    with Client(server.verify_address, key=key) as client:
        texts = [repr(client), repr(Query(key=key)), repr(client.verify(key)), str(vars(client)["_retries"])]
        with pytest.raises(InvalidRequest) as refused:
            client.verify(key, requires="(")
        with pytest.raises(InvalidRequest) as unsendable:
            client.verify(key + "\ud800")
    texts += [repr(unsendable.value), repr(unsendable.value.__context__)]
    texts += [str(refused.value), repr(refused.value), repr(refused.value.__context__), repr(refused.value.__cause__)]
    assert secret not in "".join(texts)


# When nobody answers.


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


# Together.


@pytest.fixture
async def coalescing(server: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.verify_address, coalesce=True) as client:
        yield client


async def test_calls_of_one_moment_travel_together_and_one_malformed_call_fails_alone(
    house: House, coalescing: AsyncClient
) -> None:
    key = house.key().key_string
    sent = _count_calls(coalescing)
    answers = await asyncio.gather(
        *(coalescing.verify(key) for _ in range(63)), coalescing.verify(key, requires="("), return_exceptions=True
    )
    assert [answer.allowed for answer in answers[:63] if isinstance(answer, Verification)] == [True] * 63
    assert isinstance(answers[63], InvalidRequest)
    assert sent == ["BatchVerify"] * 2


async def test_nobody_waits_for_company(house: House, coalescing: AsyncClient) -> None:
    key = house.key().key_string
    await coalescing.verify(key)
    loop, left = asyncio.get_running_loop(), []
    company = coalescing._company
    assert company is not None
    travel = company._leave
    company._leave = lambda: (left.append(loop.time()), travel())  # type: ignore[method-assign, func-returns-value, assignment]
    began = loop.time()
    await coalescing.verify(key)
    assert left[0] - began < 0.02, "it left in the same turn of the loop"


async def test_a_caller_who_gives_up_takes_nobody_along(house: House, coalescing: AsyncClient) -> None:
    key = house.key().key_string
    leaver = asyncio.create_task(coalescing.verify(key))
    stayer = asyncio.create_task(coalescing.verify(key))
    await asyncio.sleep(0)
    leaver.cancel()
    assert (await stayer).allowed
    with pytest.raises(asyncio.CancelledError):
        await leaver


@pytest.mark.parametrize("question", [{"tenant": 5}, {"cost": 2**70}, {"key": "a\ud800"}, {"nonsense": "x"}])
async def test_a_call_that_cannot_be_sent_fails_alone_and_at_once(
    house: House, coalescing: AsyncClient, question: Any
) -> None:
    key = house.key().key_string
    calls: list[Any] = [{"key": key}, {"key": key, **question}, {"key": key}]
    answers = await asyncio.gather(*(coalescing.verify(**call) for call in calls), return_exceptions=True)
    assert isinstance(answers[1], TypeError | ValueError | InvalidRequest)
    assert [isinstance(answer, Verification) and answer.allowed for answer in answers] == [True, False, True]


async def test_a_call_too_long_for_the_server_fails_alone(house: House, coalescing: AsyncClient) -> None:
    key = house.key().key_string
    keys = [key, "x" * 5_000_000, *[key] * 12]
    answers = await asyncio.gather(*map(coalescing.verify, keys), return_exceptions=True)
    assert isinstance(answers[1], CallFailed)
    assert all(isinstance(answer, Verification) and answer.allowed for answer in [answers[0], *answers[2:]])


async def test_client_and_server_work_at_the_same_time(house: House, coalescing: AsyncClient) -> None:
    key = house.key().key_string
    sent = _count_calls(coalescing)
    answers = await asyncio.gather(*(coalescing.verify(key) for _ in range(64)))
    assert all(answer.allowed for answer in answers)
    assert sent == ["BatchVerify"] * 2


async def test_calls_that_travel_together_fail_together_where_nobody_answers() -> None:
    async with AsyncClient("127.0.0.1:1", coalesce=True, timeout=0.3) as client:
        answers = await asyncio.gather(*(client.verify("garbage") for _ in range(5)), return_exceptions=True)
    assert all(isinstance(answer, Unavailable) for answer in answers)


def _count_calls(client: AsyncClient) -> list[str]:
    sent: list[str] = []
    for name in ("Verify", "BatchVerify"):
        method = getattr(client._stub, name)

        def counted(*arguments: Any, name: str = name, method: Any = method, **named: Any) -> Any:
            sent.append(name)
            return method(*arguments, **named)

        setattr(client._stub, name, counted)
    if client._company is not None:
        client._company._ask = partial(client._call, client._stub.BatchVerify)
    return sent


def test_a_revocation_that_returned_is_what_the_client_is_told(house: House, client: Any) -> None:
    key = house.key()
    assert client.verify(key.key_string).allowed
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
    assert client.verify(key.key_string).reason == "API_KEY_REVOKED"
