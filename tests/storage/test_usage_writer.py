"""Batches of usage: each is written once and whole, whatever others write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from latchgate_server.core.model import NOT_TOLD, DenialReason, Question
from latchgate_server.core.usage import ALLOWED, HOUR, NewSource
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.core.verification import Verification
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.usage_writer import PostgresUsageWriter
from latchgate_server.system import SystemClock
from latchgate_server.verify.tally import Tallies
from tests.storage.prompt import Prompt
from tests.support.tallies import record_of, taken

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


def batch_of(key_ids: Sequence[str], addresses: int = 1) -> UsageBatch:
    """Of each key a use from each of its addresses."""
    now = SystemClock().now()
    batch = UsageBatch()
    for key_id in key_ids:
        batch.keys += 1
        batch.count(key_id, "acme", int(now // HOUR), ALLOWED, addresses)
        for address in [f"192.0.2.{number}" for number in range(addresses)]:
            batch.sources.add(key_id, address, now, now, 1)
            batch.uses.add(key_id, time=now, outcome=ALLOWED, client_ip=address, user="ada", request=NOT_TOLD)
        busy = int(now // HOUR), addresses, 0
        batch.last_uses.add(
            key_id, first_time=now, last_time=now, client_ip=address, user="ada", user_agent="", busy=busy
        )
    return batch


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
    await PostgresUsageWriter(pool, "first", PATIENCE).write(1, batch_of(KEY_IDS[:1]))
    assert await written(pool) == (1, 1, 1, 1, 1)
    await pool.execute("TRUNCATE key_usage, tenant_usage, key_sources, key_uses")


async def test_two_writers_that_tell_of_the_same_keys_never_wait_for_each_other(pool: asyncpg.Pool) -> None:
    one, other = (PostgresUsageWriter(pool, name, PATIENCE) for name in ("one", "other"))

    async def write(writer: PostgresUsageWriter, batch: UsageBatch) -> None:
        for sequence in range(1, 11):
            await writer.write(sequence, batch)

    # A deadlock, which PostgreSQL ends after a second, would be an error of one of them.
    await asyncio.gather(write(one, batch_of(KEY_IDS)), write(other, batch_of(KEY_IDS[::-1])))
    assert await written(pool) == (800, 800, 800, 800, 40)


async def test_a_batch_that_is_told_twice_is_written_once_and_whole(pool: asyncpg.Pool) -> None:
    before = await written(pool)
    writer = PostgresUsageWriter(pool, "whole", PATIENCE)
    batch = batch_of(KEY_IDS)
    await writer.write(1, batch)
    await writer.write(1, batch)
    assert [now - then for now, then in zip(await written(pool), before, strict=True)] == [40, 40, 40, 40, 0]


async def test_plain_keys_and_others_of_one_batch_go_into_the_same_tables(pool: asyncpg.Pool) -> None:
    await pool.execute("DELETE FROM key_usage")
    await pool.execute("DELETE FROM key_sources")
    tallies, hour = Tallies(), int(SystemClock().now() // HOUR)
    plain, nowhere, both = (record_of(key_id) for key_id in KEY_IDS[:3])
    for record, reason, client_ip in (
        (plain, None, "192.0.2.1"),
        (plain, None, "192.0.2.1"),
        (nowhere, None, ""),
        (both, None, "192.0.2.1"),
        (both, DenialReason.IP_NOT_AUTHORIZED, "192.0.2.2"),
    ):
        tallies.note(hour * HOUR, Verification(reason, record, "ada"), Question(client_ip=client_ip), record)
    batch = taken(tallies)
    assert sorted(batch.plain.key_ids) == sorted(KEY_IDS[:2])
    await PostgresUsageWriter(pool, "mixed", PATIENCE).write(1, batch)
    counts = await pool.fetch(
        "SELECT key_id, outcome, count FROM key_usage JOIN keys ON number = key_number ORDER BY key_id, outcome"
    )
    denied = int(DenialReason.IP_NOT_AUTHORIZED)
    expected = [(KEY_IDS[0], 0, 2), (KEY_IDS[1], 0, 1), (KEY_IDS[2], 0, 1), (KEY_IDS[2], denied, 1)]
    assert list(map(tuple, counts)) == sorted(expected)
    sources = await pool.fetch(
        "SELECT key_id, client_ip, count FROM key_sources JOIN keys ON number = key_number ORDER BY key_id, client_ip"
    )
    found = [(KEY_IDS[0], "192.0.2.1", 2), (KEY_IDS[2], "192.0.2.1", 1), (KEY_IDS[2], "192.0.2.2", 1)]
    assert list(map(tuple, sources)) == sorted(found)


async def test_a_keys_first_addresses_are_no_news_however_many_and_its_later_ones_are(pool: asyncpg.Pool) -> None:
    await pool.execute("DELETE FROM key_sources")
    writer = PostgresUsageWriter(pool, "addresses", PATIENCE)
    first = await writer.write(1, batch_of(KEY_IDS[:2], addresses=5))
    assert first.new_sources == []
    later = await writer.write(2, batch_of(KEY_IDS[:2], addresses=6))
    assert set(later.new_sources) == {NewSource("B0", "192.0.2.5"), NewSource("a0", "192.0.2.5")}
