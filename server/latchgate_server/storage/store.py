"""The database as a whole: implements ports.Store on a pool."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from latchgate_server.core.ports import Transaction
from latchgate_server.storage.failures import StatementRefused, told_plainly
from latchgate_server.storage.pool import Connection
from latchgate_server.storage.queries import SQL
from latchgate_server.storage.reader import PostgresReader
from latchgate_server.storage.transaction import PostgresTransaction


class PostgresStore:
    """Reads through the pool, and mutations one at a time, in the order of their revisions."""

    def __init__(self, pool: asyncpg.Pool, patience: float) -> None:
        """patience: seconds to wait for a free connection, or for a read, before Overloaded."""
        self._pool = pool
        self._patience = patience
        self.read = PostgresReader(pool, patience)

    @asynccontextmanager
    async def change(self, actor_key_id: str = "", key_id: str = "") -> AsyncIterator[Transaction]:
        """A transaction that has taken the revision clock; it commits when left, and rolls back on an exception."""
        with told_plainly():
            async with self._pool.acquire(timeout=self._patience) as connection, _holding_the_clock(connection):
                # In a snapshot from after the wait for the clock, which a statement has only from its beginning.
                rows: list[Any] = await connection.fetch(SQL["change_begun"], actor_key_id, key_id)
                actor, key = rows
                yield PostgresTransaction(connection, actor, key, self._patience)

    async def key_id_tag_key(self) -> bytes:
        """The key of the tag in key ids."""
        key: bytes = await self._value("deployment")
        return key

    async def is_sealed_by_others(self, pepper_ids: Sequence[str]) -> bool:
        """Whether keys were hashed under peppers, and none of them under one of these."""
        answer: bool = await self._value("is_sealed_by_others", pepper_ids)
        return answer

    async def current_revision(self) -> int:
        """The newest committed revision."""
        revision: int = await self._value("current_revision")
        return revision

    async def prune_changes(self, older_than: float) -> None:
        """Forget changes older than that many seconds."""
        await self._execute("prune_changes", older_than)

    async def prepare_usage(self) -> None:
        """Make the partitions that usage will be written to in this month and the next two."""
        await self._execute("make_usage_partitions")

    async def prune_usage(self, keep_counts: float, keep_uses: float) -> None:
        """Forget counts, and single uses and addresses, that are older than so many seconds; counts by whole months."""
        await self._execute("drop_usage_partitions", keep_counts, keep_uses)
        await self._execute("forget_key_sources", keep_uses)
        await self._execute("forget_usage_writers")

    async def prune_orphaned_usage(self) -> int:
        """Remove the usage of some keys and tenants that are gone; returns of how many."""
        with told_plainly():
            return len(await self._pool.fetch(SQL["forget_orphaned_usage"]))

    async def _execute(self, statement: str, *arguments: object) -> None:
        with told_plainly():
            await self._pool.execute(SQL[statement], *arguments)

    async def prune_limits(self) -> None:
        """Forget what was used of quotas in past periods, and of limits whose holders are gone."""
        with told_plainly():
            await self._pool.execute(SQL["prune_quotas"])
            await self._pool.execute(SQL["prune_resets"])

    async def _value(self, statement: str, *arguments: object) -> Any:
        with told_plainly():
            return await self._pool.fetchval(SQL[statement], *arguments)


@asynccontextmanager
async def _holding_the_clock(connection: Connection) -> AsyncIterator[None]:
    """A transaction, begun in one round trip with the taking of the clock: others wait for as long as it is held."""
    try:
        await connection.execute(f"BEGIN;\n{SQL['begin_change']}")
        yield
    except BaseException:
        if not connection.is_closed():
            await connection.execute("ROLLBACK")
        raise
    if await connection.execute("COMMIT") != "COMMIT":
        raise StatementRefused("a change went on after one of its statements had failed, and was rolled back")
