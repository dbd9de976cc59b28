"""Batches of usage: each is written once and whole, whatever others write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from latchgate_server.core.usage import ALLOWED, HOUR, KeyTally, NewSource, Source, Use
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.usage_writer import PostgresUsageWriter
from latchgate_server.system import SystemClock
from tests.storage.prompt import Prompt

PATIENCE = 30.0
KEY_IDS = [f"{letter}{number}" for number in range(10) for letter in "aBcD"]


@pytest.fixture
async def pool(module_database: str) -> AsyncIterator[asyncpg.Pool]:
    made = await create_pool(module_database, PATIENCE, 3)
    yield made
    made.terminate()


@pytest.fixture(scope="module", autouse=True)
async def keys(module_database: str) -> None:
    prompt = Prompt(await asyncpg.connect(module_database))
    await prompt.insert("tenants", tenant_id="acme", limits="[]")
    for key_id in KEY_IDS:
        await prompt.insert("keys", key_id=key_id, tenant_id="acme", lineage_id=key_id, state="ACTIVE", limits="[]")
    await prompt.connection.close()


def batch(key_ids: Sequence[str], addresses: int = 1) -> list[KeyTally]:
    """Of each key a use from each of its addresses."""
    now = SystemClock().now()
    tallies = []
    for key_id in key_ids:
        uses = [Use(now, ALLOWED, f"192.0.2.{number}", "ada") for number in range(addresses)]
        sources = {use.client_ip: Source(now, now, 1) for use in uses}
        counts = {(int(now // HOUR), ALLOWED): addresses}
        tallies.append(
            KeyTally(key_id, "acme", counts=counts, first_time=now, last=uses[-1], sources=sources, uses=uses)
        )
    return tallies


async def written(pool: asyncpg.Pool) -> Sequence[int]:
    """Uses as counted for keys, for tenants and by address, those kept one by one, and keys that have a latest one."""
    row = await pool.fetchrow(
        "SELECT (SELECT sum(count)::int FROM key_usage), (SELECT sum(count)::int FROM tenant_usage),"
        " (SELECT sum(count)::int FROM key_sources), (SELECT count(*)::int FROM key_uses),"
        " (SELECT count(*)::int FROM key_last_uses WHERE used)"
    )
    assert row is not None
    return tuple(row)


async def test_the_months_that_nobody_made_ahead_of_time_are_made(pool: asyncpg.Pool) -> None:
    await PostgresUsageWriter(pool, "first", PATIENCE).write(1, batch(KEY_IDS[:1]))
    assert await written(pool) == (1, 1, 1, 1, 1)
    await pool.execute("TRUNCATE key_usage, tenant_usage, key_sources, key_uses")


async def test_two_writers_that_tell_of_the_same_keys_never_wait_for_each_other(pool: asyncpg.Pool) -> None:
    one, other = (PostgresUsageWriter(pool, name, PATIENCE) for name in ("one", "other"))

    async def write(writer: PostgresUsageWriter, tallies: Sequence[KeyTally]) -> None:
        for sequence in range(1, 11):
            await writer.write(sequence, tallies)

    # A deadlock, which PostgreSQL ends after a second, would be an error of one of them.
    await asyncio.gather(write(one, batch(KEY_IDS)), write(other, batch(KEY_IDS[::-1])))
    assert await written(pool) == (800, 800, 800, 800, 40)


async def test_a_batch_that_is_told_twice_is_written_once_and_whole(pool: asyncpg.Pool) -> None:
    before = await written(pool)
    writer = PostgresUsageWriter(pool, "whole", PATIENCE)
    tallies = batch(KEY_IDS)
    await writer.write(1, tallies)
    await writer.write(1, tallies)
    assert [now - then for now, then in zip(await written(pool), before, strict=True)] == [40, 40, 40, 40, 0]


async def test_a_keys_first_addresses_are_no_news_however_many_and_its_later_ones_are(pool: asyncpg.Pool) -> None:
    await pool.execute("DELETE FROM key_sources")
    writer = PostgresUsageWriter(pool, "addresses", PATIENCE)
    first = await writer.write(1, batch(KEY_IDS[:2], addresses=5))
    assert first.new_sources == []
    later = await writer.write(2, batch(KEY_IDS[:2], addresses=6))
    assert set(later.new_sources) == {NewSource("B0", "192.0.2.5"), NewSource("a0", "192.0.2.5")}
