"""The busiest keys: counted by hour from what several writers tell, in any order, and found whatever else is used."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

import asyncpg
import pytest

from latchgate_server.core import bounds
from latchgate_server.core.model import DenialReason
from latchgate_server.core.usage import ALLOWED
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.usage_reader import PostgresUsageReader
from latchgate_server.storage.usage_writer import PostgresUsageWriter
from latchgate_server.verify.tally import Tallies
from tests.storage.prompt import Prompt
from tests.support.postgres import Postgres
from tests.support.tallies import record_of, taken

HOUR = 100_000
"""Since 1970: long ago, in a partition of usage that the fixture makes."""
PATIENCE = 30.0
Told = list[tuple[str, int, int]]


@pytest.fixture
def database(postgres: Postgres) -> str:
    return postgres.new_database()


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    made = await create_pool(database, PATIENCE, 1)
    for table in ("key_usage", "tenant_usage"):
        await made.execute(
            f"CREATE TABLE {table}_then PARTITION OF {table} FOR VALUES FROM (MINVALUE) TO ('2000-01-01')"
        )
    prompt = Prompt(await asyncpg.connect(database))
    for tenant_id in ("acme", "other"):
        await prompt.insert("tenants", tenant_id=tenant_id, limits="[]")
    yield made
    await made.close()
    await prompt.connection.close()


async def make_keys(database: str, *key_ids: str, tenant_id: str = "acme") -> None:
    prompt = Prompt(await asyncpg.connect(database))
    for key_id in key_ids:
        values = {"key_id": key_id, "tenant_id": tenant_id, "lineage_id": key_id, "state": "ACTIVE", "limits": "[]"}
        await prompt.insert("keys", **values)
    await prompt.connection.close()


@dataclass(frozen=True)
class Used:
    """What was collected about a key. counts: uses by the hour from HOUR. wrong: wrong secrets, an hour later."""

    key_id: str
    counts: Mapping[int, int]
    wrong: int = 0


def batch_of(*used: Used) -> UsageBatch:
    """The same, fit to be written."""
    tallies = Tallies()
    for each in used:
        slot = tallies.slot(record_of(each.key_id).identity)
        assert slot is not None
        for hour, count in each.counts.items():
            tallies.count(slot, HOUR + hour, ALLOWED, count)
        latest = HOUR + max(each.counts)
        if each.wrong:
            tallies.count(slot, latest + 1, int(DenialReason.INVALID_SECRET), each.wrong)
        tallies.use_cached(slot, latest * 3_600.0, "", "", each.counts[latest - HOUR])
    return taken(tallies)


async def told(pool: asyncpg.Pool, hour: int = 0, tenant_id: str | None = None, limit: int = 100) -> Told:
    found = await PostgresUsageReader(pool, PATIENCE).busiest_keys(tenant_id, HOUR + hour, limit)
    return [(key.key_id, key.this_hour, key.hour_before) for key in found]


class Writers:
    """Several processes, each with its own count of batches."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._sequence = 0

    async def write(self, *used: Used, writer: str = "a") -> None:
        self._sequence += 1
        await PostgresUsageWriter(self._pool, writer, PATIENCE).write(self._sequence, batch_of(*used))


async def test_uses_are_told_by_the_hour_and_forgotten_after_two(database: str, pool: asyncpg.Pool) -> None:
    await make_keys(database, "k")
    writers = Writers(pool)
    await writers.write(Used("k", {0: 5}))
    await writers.write(Used("k", {0: 2}))
    assert await told(pool) == [("k", 7, 0)]
    assert await told(pool, 1) == [("k", 0, 7)]
    assert await told(pool, 2) == []
    await writers.write(Used("k", {0: 1, 1: 3}))
    assert await told(pool, 1) == [("k", 3, 8)]
    await writers.write(Used("k", {4: 1}))
    assert await told(pool, 4) == [("k", 1, 0)]


async def test_what_another_writer_tells_late_is_counted_where_it_belongs(database: str, pool: asyncpg.Pool) -> None:
    await make_keys(database, "k")
    writers = Writers(pool)
    await writers.write(Used("k", {1: 3}))
    await writers.write(Used("k", {0: 4}), writer="b")
    assert await told(pool, 1) == [("k", 3, 4)]
    await writers.write(Used("k", {-1: 9}), writer="b")
    assert await told(pool, 1) == [("k", 3, 4)]
    assert await pool.fetchval("SELECT time FROM key_last_uses") == await pool.fetchval(
        "SELECT to_timestamp($1::bigint * 3600)", HOUR + 1
    ), "the latest use stays the latest"


async def test_wrong_secrets_are_no_uses(database: str, pool: asyncpg.Pool) -> None:
    await make_keys(database, "k")
    await Writers(pool).write(Used("k", {0: 2}, wrong=50))
    assert await told(pool) == [("k", 2, 0)]


async def test_both_hours_are_ranked_together_and_a_tenant_apart(database: str, pool: asyncpg.Pool) -> None:
    await make_keys(database, "steady", "ended", "began")
    await make_keys(database, "elsewhere", tenant_id="other")
    await Writers(pool).write(
        Used("steady", {0: 30, 1: 30}), Used("ended", {0: 50}), Used("began", {1: 40}), Used("elsewhere", {1: 999})
    )
    ranked = [("steady", 30, 30), ("ended", 0, 50), ("began", 40, 0)]
    assert await told(pool, 1) == [("elsewhere", 999, 0), *ranked]
    assert await told(pool, 1, "acme") == ranked
    assert await told(pool, 1, "acme", limit=2) == ranked[:2]
    assert await told(pool, 1, "nobody") == []


async def test_the_busiest_are_found_among_more_than_are_looked_at(
    database: str, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "BUSIEST_KEYS_LOOKED_AT", 20)
    calm = [f"calm-{number}" for number in range(60)]
    busy = [f"busy-{number}" for number in range(5)]
    await make_keys(database, *calm[:30], *busy, *calm[30:])
    writers = Writers(pool)
    await writers.write(*(Used(key_id, {0: 10}) for key_id in calm), *(Used(key_id, {0: 1}) for key_id in busy))
    for number, key_id in enumerate(busy):
        await writers.write(Used(key_id, {0: 100 + number}))
    assert await told(pool, limit=5) == [(f"busy-{number}", 101 + number, 0) for number in (4, 3, 2, 1, 0)]


async def test_deleted_keys_are_not_told_nor_take_the_place_of_others(database: str, pool: asyncpg.Pool) -> None:
    await make_keys(database, "gone", "left")
    await Writers(pool).write(Used("gone", {0: 9}), Used("left", {0: 1}))
    await pool.execute("DELETE FROM keys WHERE key_id = 'gone'")
    assert await told(pool, limit=1) == [("left", 1, 0)]
