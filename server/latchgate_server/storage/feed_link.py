"""A replica's own connection for the feed: implements core.replication.FeedLinks and FeedLink."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from latchgate_server.core.replication import Change, ChangesRead, FeedLink
from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.pool import connect
from latchgate_server.storage.queries import SQL

CHANGES_AT_ONCE = 5_000
_CHANNEL = "latchgate_changes"


class PostgresFeedLinks:
    """Opens feed connections. They bypass poolers: what they LISTEN for and time belongs to one session."""

    def __init__(self, url: str, lease: float) -> None:
        self._url = url
        self._lease = lease

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FeedLink]:
        with told_plainly():
            connection = await connect(self._url, self._lease)
        link = PostgresFeedLink(connection)
        try:
            with told_plainly():
                await connection.add_listener(_CHANNEL, link.on_notify)
            # A connection that is found dead only by the next beat would cost that much of the lease.
            connection.add_termination_listener(link.on_end)
            yield link
        finally:
            # Not close(): that would wait for a peer that may be gone.
            connection.terminate()


class PostgresFeedLink:
    """One feed connection."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._hinted = asyncio.Event()

    async def current_revision(self) -> int:
        with told_plainly():
            revision: int = await self._connection.fetchval(SQL["current_revision"])
            return revision

    async def beat(self, replica_id: str, applied_revision: int, lease: float) -> None:
        with told_plainly():
            await self._connection.execute(SQL["beat"], replica_id, applied_revision, lease)

    async def read_changes(self, after: int) -> ChangesRead:
        with told_plainly():
            rows = await self._connection.fetch(SQL["read_changes"], after, CHANGES_AT_ONCE + 1)
        revision, pruned, replicas = rows[0]["revision"], rows[0]["pruned_revision"], max(1, rows[0]["replicas"])
        if after < pruned or after > revision or len(rows) > CHANGES_AT_ONCE:
            return ChangesRead(revision, None, replicas)
        changes = [Change(row["entity"], row["id"]) for row in rows if row["entity"] is not None]
        return ChangesRead(revision, changes, replicas)

    async def acknowledge(self, replica_id: str, applied_revision: int) -> None:
        with told_plainly():
            await self._connection.execute(SQL["acknowledge"], replica_id, applied_revision)

    async def deregister(self, replica_id: str) -> None:
        with told_plainly():
            await self._connection.execute(SQL["deregister"], replica_id)
            await self._connection.execute(SQL["notify_acknowledged"])

    async def changed(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._hinted.wait()
        except TimeoutError:
            return False
        self._hinted.clear()
        return True

    def hint(self) -> None:
        self._hinted.set()

    def on_notify(self, *_details: object) -> None:
        """Called by the driver for each notification."""
        self._hinted.set()

    def on_end(self, _connection: object) -> None:
        """Called by the driver when the connection is gone: the next statement finds it so."""
        self._hinted.set()
