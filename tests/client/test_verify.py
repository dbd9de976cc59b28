"""`Client` and `AsyncClient`: the same questions and answers, one blocking and one not."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError, replace
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
    Verification,
)
from latchgate.v1 import admin_service_pb2 as pb
from latchgate.v1 import key_pb2
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


def test_a_revocation_that_returned_is_what_the_client_is_told(house: House, client: Any) -> None:
    key = house.key()
    assert client.verify(key.key_string).allowed
    house.root.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id))
    assert client.verify(key.key_string).reason == "API_KEY_REVOKED"
