"""The replicas as a mutator sees them: implements core.replication.ReplicaTable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.replication import Acknowledgements, Replica, Replicas
from latchgate_server.storage.failures import told_plainly
from latchgate_server.storage.pool import connect
from latchgate_server.storage.queries import SQL

_CHANNEL = "latchgate_acknowledged"
_LINGER_SECONDS = 5.0


class PostgresReplicaTable:
    """Reads rows through the pool; listens on one connection that all waiting mutators of the process share."""

    def __init__(self, pool: asyncpg.Pool, url: str, lease: float) -> None:
        self._pool = pool
        self._ear = _Ear(url, lease)

    async def read(self) -> Replicas:
        with told_plainly():
            rows = await self._pool.fetch(SQL["read_replicas"])
        replicas = [
            Replica(row["replica_id"], row["applied_revision"], row["lease_seconds"], row["beat"])
            for row in rows
            if row["replica_id"] is not None
        ]
        return Replicas(replicas, rows[0]["timeline"], is_complete=rows[0]["is_trusted"])

    async def expire(self, replica: Replica, timeline: str) -> None:
        with told_plainly():
            await self._pool.execute(SQL["expire_replica"], replica.replica_id, replica.beat, timeline)

    async def trust(self, timeline: str) -> None:
        with told_plainly():
            await self._pool.execute(SQL["trust_timeline"], timeline)

    @asynccontextmanager
    async def acknowledgements(self) -> AsyncIterator[Acknowledgements]:
        hints = _Hints()
        async with self._ear.lent_to(hints):
            yield hints

    def close(self) -> None:
        """Close the listening connection."""
        self._ear.close()


class _Hints:
    """What one waiting mutator hears: how far all replicas say that they are. The rows alone are believed."""

    def __init__(self) -> None:
        self._reached = -1
        self._somebody_left = False
        self._news = asyncio.Event()

    def hear(self, payload: str) -> None:
        """Take in a notification: a revision that all have reached; an empty one says that somebody left."""
        if payload.isdecimal():
            self._reached = int(payload)
        else:
            self._somebody_left = True
        self._news.set()

    async def wait(self, revision: int, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                while self._reached < revision and not self._somebody_left:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass
        # Each is good for one look: what was said and did not come true is no reason to look again and again.
        self._reached, self._somebody_left = -1, False


class _Ear:
    """A connection that listens while somebody waits, and for a while after, for the next one.

    Where it cannot be had, those who wait poll all the same.
    """

    def __init__(self, url: str, lease: float) -> None:
        self._url = url
        self._lease = lease
        self._connection: asyncpg.Connection | None = None
        self._listeners: set[_Hints] = set()
        self._turn = asyncio.Lock()
        self._closing: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def lent_to(self, hints: _Hints) -> AsyncIterator[None]:
        """Pass on what is heard while the context lasts."""
        self._listeners.add(hints)
        try:
            async with self._turn:
                await self._listen()
            yield
        finally:
            self._listeners.discard(hints)
            if self._closing is not None:
                self._closing.cancel()
            self._closing = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._close_if_idle)

    async def _listen(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            return
        try:
            with told_plainly():
                connection = await connect(self._url, self._lease)
                try:
                    await connection.add_listener(_CHANNEL, self._on_notify)
                except BaseException:
                    connection.terminate()
                    raise
        except CannotDecide:
            return
        self._connection = connection

    def _close_if_idle(self) -> None:
        if not self._listeners:
            self.close()

    def close(self) -> None:
        if self._closing is not None:
            self._closing.cancel()
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _on_notify(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        for hints in self._listeners:
            hints.hear(str(payload))
