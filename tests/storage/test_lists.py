"""Lists: each finds what its filter says, page by page, along an index, in a database with many keys."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import asyncpg
import pytest

from benchmarks.list_keys import (
    Case,
    key_cases,
    key_filters,
    key_pairs,
    measured,
    open_connection,
    other_cases,
)
from benchmarks.many_keys import fill
from latchgate_server.core.ports import KeyFilter, ListPosition
from latchgate_server.storage import lists
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.reader import PostgresReader
from tests.support.postgres import Postgres

KEYS = 10_000
LARGE = {"keys", "key_roles", "key_tags", "key_texts", "key_last_uses", "audit_events"}
FILTERS = {**key_filters(), **key_pairs()}

# What a filter means, with no thought for speed.
PLAIN = """
SELECT k.number FROM keys AS k JOIN key_last_uses AS u ON u.key_number = k.number
WHERE ($1::text IS NULL OR k.tenant_id = $1)
  AND ($2::text IS NULL OR k.owner = $2)
  AND ($3::text IS NULL OR EXISTS (SELECT FROM key_roles AS kr JOIN roles AS r ON r.number = kr.role_number
                                   WHERE kr.key_id = k.key_id AND r.role_id = $3))
  AND ($4::text IS NULL OR k.environment = $4)
  AND ($5::jsonb IS NULL OR k.tags @> $5)
  AND ($6::text[] IS NULL OR k.state = ANY ($6))
  AND ($7::timestamptz IS NULL OR k.expire_time < $7)
  AND ($8::timestamptz IS NULL OR k.rotate_by_time < $8)
  AND ($9::text IS NULL OR strpos(lower(k.display_name), lower($9)) > 0 OR strpos(lower(k.description), lower($9)) > 0
       OR starts_with(k.key_id, $9))
  AND ($10::timestamptz IS NULL OR CASE WHEN u.used THEN u.time ELSE k.create_time END < $10)
ORDER BY {order} k.number DESC
"""


@pytest.fixture(scope="module")
def many_keys(postgres: Postgres) -> str:
    """A database with so many keys that the planner has to choose."""
    url = postgres.new_database()
    asyncio.run(fill(url, KEYS, lambda _line: None))
    return url


@pytest.fixture
async def connection(many_keys: str) -> AsyncIterator[asyncpg.Connection]:
    opened = await open_connection(many_keys)
    yield opened
    await opened.close()


@pytest.fixture
async def reader(many_keys: str) -> AsyncIterator[PostgresReader]:
    pool = await create_pool(many_keys, 30.0, 1)
    yield PostgresReader(pool, 30.0)
    await pool.close()


async def plain(connection: asyncpg.Connection, matching: KeyFilter) -> Sequence[int]:
    order = lists.time_of(matching)
    states = None if matching.states is None else [state.name for state in matching.states]
    rows = await connection.fetch(
        PLAIN.format(order="" if order.startswith("NULL") else f"{order} DESC,"),
        matching.tenant_id,
        matching.owner,
        matching.role_id,
        matching.environment,
        matching.tags,
        states,
        matching.expires_before,
        matching.rotation_due_before,
        matching.search,
        matching.unused_since,
    )
    return [row["number"] for row in rows]


async def pages(reader: PostgresReader, matching: KeyFilter, size: int, most: int) -> Sequence[int]:
    """The numbers of the first `most` pages."""
    found: list[int] = []
    position: ListPosition | None = None
    for _ in range(most):
        page = await reader.list_keys(matching, position, size)
        found += [key.number for key, _ in page]
        if not page:
            break
        position = page[-1][0]
    return found


@pytest.mark.parametrize("what", FILTERS)
async def test_pages_hold_what_the_filter_means_in_order(
    connection: asyncpg.Connection, reader: PostgresReader, what: str
) -> None:
    for matching in (FILTERS[what], replace(FILTERS[what], tenant_id="t0")):
        expected = await plain(connection, matching)
        assert await pages(reader, matching, 40, 5) == expected[:200]
        assert await reader.count_keys(matching) == len(expected)
        if len(expected) > 60:
            ends = await pages(reader, matching, len(expected) // 2, 4)
            assert ends == expected


def scans(statements: Mapping[str, Sequence[str]]) -> Mapping[str, Sequence[str]]:
    return {what: tables for what, tables in statements.items() if LARGE.intersection(tables)}


@pytest.mark.parametrize("cases", [key_cases(KEYS), other_cases(KEYS)], ids=["ListKeys", "others"])
async def test_every_page_is_read_along_an_index(connection: asyncpg.Connection, cases: Sequence[Case]) -> None:
    timings = [await measured(connection, case, 1) for case in cases]
    assert scans({timing.case.what: timing.scanned_tables for timing in timings}) == {}
    assert all(timing.indexes for timing in timings if "tenants" not in timing.case.what)


async def test_a_page_by_one_filter_reads_little_however_many_keys_match(connection: asyncpg.Connection) -> None:
    timings = [await measured(connection, case, 1) for case in key_cases(KEYS) if not case.pair]
    searching = {timing.case.what for timing in timings if timing.case.what.startswith("search")}
    much = {timing.case.what: timing.pages for timing in timings if timing.pages > 1_500}
    assert much.keys() - searching == set()
