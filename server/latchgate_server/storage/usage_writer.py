"""Writes of usage: implements usage.UsageWriter on a pool of its own."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

import asyncpg

from latchgate_server.core import bounds
from latchgate_server.core.model import DenialReason
from latchgate_server.core.usage import DORMANT_SECONDS, Awakening, KeyTally, NewSource, Written
from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.pool import Connection
from latchgate_server.storage.queries import SQL

_T = TypeVar("_T")

STRETCH = 250
"""Rows that one statement is told. To put them into the form of the wire takes the event loop about a millisecond."""


class PostgresUsageWriter:
    """Each batch is one transaction, with a few statements for each table. It locks no row of a decision table.

    Rows are locked table by table, and in each in the order of keys, so that two writers cannot wait for each other.
    """

    def __init__(self, pool: asyncpg.Pool, writer_id: str, patience: float) -> None:
        """writer_id: a random name for this process. patience: seconds for a batch."""
        self._pool = pool
        self._writer_id = writer_id
        self._patience = patience

    async def write(self, sequence: int, tallies: Sequence[KeyTally]) -> Written:
        with told_plainly():
            try:
                return await self._write(sequence, tallies)
            except asyncpg.CheckViolationError:
                # A month has no partition: nobody has made it ahead of time.
                async with self._transaction() as connection:
                    await connection.execute(SQL["make_usage_partitions"])
                return await self._write(sequence, tallies)

    async def _write(self, sequence: int, tallies: Sequence[KeyTally]) -> Written:
        async with self._transaction() as connection:
            if await connection.fetchrow(SQL["begin_usage_batch"], self._writer_id, sequence) is None:
                return Written()
            tallies = sorted(tallies, key=attrgetter("key_id"))
            await self._add_counts(connection, tallies)
            awakenings = await self._renew_last_uses(connection, tallies)
            new_sources = await self._add_sources(connection, tallies)
            await self._add_uses(connection, tallies)
            await self._add_tenant_counts(connection, tallies)
            return Written(new_sources, awakenings)

    async def trim(self, sources_of: Sequence[str], uses_of: Sequence[str]) -> None:
        with told_plainly():
            await self._trim(sources_of, uses_of)

    async def _trim(self, sources_of: Sequence[str], uses_of: Sequence[str]) -> None:
        async with self._transaction() as connection:
            if sources_of:
                await connection.execute(SQL["trim_key_sources"], sources_of, bounds.SOURCES_PER_KEY)
            if uses_of:
                await connection.execute(SQL["trim_key_uses"], uses_of, bounds.USES_PER_KEY)

    async def leave(self) -> None:
        with told_plainly():
            async with self._transaction() as connection:
                await connection.execute(SQL["forget_usage_writer"], self._writer_id)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        async with asyncio.timeout(self._patience), self._pool.acquire() as connection, connection.transaction():
            yield connection

    async def _add_counts(self, connection: Connection, tallies: Sequence[KeyTally]) -> None:
        for counts in _stretches((tally.key_id, *at, count) for tally in tallies for at, count in tally.counts.items()):
            await connection.execute(SQL["add_key_usage"], *_columns(counts))

    async def _add_tenant_counts(self, connection: Connection, tallies: Sequence[KeyTally]) -> None:
        """Last of all: many keys share the rows of their tenant, and others wait for them until the commit."""
        sums: Counter[tuple[str, int, int]] = Counter()
        for tally in tallies:
            for at, count in tally.counts.items():
                sums[tally.tenant_id, *at] += count
        for counts in _stretches((*of, count) for of, count in sorted(sums.items())):
            await connection.execute(SQL["add_tenant_usage"], *_columns(counts))

    async def _renew_last_uses(self, connection: Connection, tallies: Sequence[KeyTally]) -> Sequence[Awakening]:
        rows: list[Any] = []
        for uses in _stretches(
            (tally.key_id, tally.first_time, last.time, last.client_ip, last.user, last.user_agent, *_busy_hours(tally))
            for tally in tallies
            if (last := tally.last) is not None
        ):
            rows += await connection.fetch(SQL["renew_last_uses"], *_columns(uses), DORMANT_SECONDS)
        return [Awakening(row["key_id"], row["slept_since"]) for row in rows]

    async def _add_sources(self, connection: Connection, tallies: Sequence[KeyTally]) -> Sequence[NewSource]:
        rows: list[Any] = []
        # All of a key's in one statement, which tells its first ones from new ones.
        for some in _stretches(tally for tally in tallies if tally.sources):
            sources = [
                (tally.key_id, address, source.first_time, source.last_time, source.count)
                for tally in some
                for address, source in tally.sources.items()
            ]
            rows += await connection.fetch(SQL["add_key_sources"], *_columns(sources))
        return [NewSource(row["key_id"], row["client_ip"]) for row in rows]

    async def _add_uses(self, connection: Connection, tallies: Sequence[KeyTally]) -> None:
        for uses in _stretches((tally.key_id, *use) for tally in tallies for use in tally.uses):
            await connection.execute(SQL["add_key_uses"], *_columns(uses))


def _busy_hours(tally: KeyTally) -> tuple[int, int, int]:
    """The latest hour with a use, since 1970, and how many uses there were in it and in the one before."""
    uses: dict[int, int] = {}
    for (hour, outcome), count in tally.counts.items():
        if outcome != DenialReason.INVALID_SECRET:
            uses[hour] = uses.get(hour, 0) + count
    latest = max(uses)
    return latest, uses[latest], uses.get(latest - 1, 0)


def _stretches(rows: Iterable[_T]) -> Iterator[Sequence[_T]]:
    """The rows, as many at a time as one statement is told."""
    rows = iter(rows)
    while stretch := list(islice(rows, STRETCH)):
        yield stretch


def _columns(rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """The rows as an array for each column."""
    return list(zip(*rows, strict=True))
