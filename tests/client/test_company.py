"""`AsyncClient(coalesce=True)`: calls of one moment travel together, and each ends as it would have alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from latchgate import (
    AsyncClient,
    CallFailed,
    InvalidRequest,
    Unavailable,
    Verification,
)
from tests.conformance.house import House
from tests.support.server import ServerProcess


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
    left = []
    company = coalescing._company
    assert company is not None
    travel = company._leave
    company._leave = lambda: (left.append(key), travel())  # type: ignore[method-assign, func-returns-value, assignment]
    asking = asyncio.ensure_future(coalescing.verify(key))
    for _ in range(3):
        await asyncio.sleep(0)
    assert left, "it left within the turns of the loop that it takes to ask"
    assert (await asking).allowed


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
