"""Writes of usage: implements usage.UsageWriter on a pool of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from latchgate_server.core import bounds
from latchgate_server.core.usage import DORMANT_SECONDS, Awakening, NewSource, Written
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.pool import Connection
from latchgate_server.storage.queries import SQL
from latchgate_server.storage.usage_columns import Columns, UsageColumns


class PostgresUsageWriter:
    """Each batch is one transaction with one statement for each table. It locks no row of a decision table."""

    def __init__(self, pool: asyncpg.Pool, writer_id: str, patience: float) -> None:
        """writer_id: a random name for this process. patience: seconds for a batch."""
        self._pool = pool
        self._writer_id = writer_id
        self._patience = patience

    async def write(self, sequence: int, batch: UsageBatch) -> Written:
        with told_plainly():
            try:
                return await self._write(sequence, batch)
            except asyncpg.CheckViolationError:
                # A month has no partition: nobody has made it ahead of time.
                async with self._transaction() as connection:
                    await connection.execute(SQL["make_usage_partitions"])
                return await self._write(sequence, batch)

    async def _write(self, sequence: int, batch: UsageBatch) -> Written:
        async with self._transaction() as connection:
            if await connection.fetchrow(SQL["begin_usage_batch"], self._writer_id, sequence) is None:
                return Written()
            columns = UsageColumns(batch)
            await _add(connection, "add_key_usage", columns.key_counts())
            slept = await _add(connection, "renew_last_uses", columns.last_uses(), DORMANT_SECONDS)
            came = await _add(connection, "add_key_sources", columns.sources())
            await _add(connection, "add_key_uses", columns.uses())
            # Last of all: many keys share the rows of their tenant, and others wait for them until the commit.
            await _add(connection, "add_tenant_usage", columns.tenant_counts())
            return Written(
                [NewSource(row["key_id"], row["client_ip"]) for row in came],
                [Awakening(row["key_id"], row["slept_since"]) for row in slept],
            )

    async def trim(self, sources_of: Sequence[str], uses_of: Sequence[str]) -> None:
        with told_plainly():
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


async def _add(connection: Connection, statement: str, columns: Columns, *more: float) -> Sequence[Any]:
    return await connection.fetch(SQL[statement], *columns, *more) if columns else ()
