"""Measures a deployment's database for `latchgate doctor`, over connections of its own, and changes nothing in it."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from latchgate_server.core.diagnosis import DataFacts, ServerFacts, Watched
from latchgate_server.core.ports import Clock
from latchgate_server.core.replication import Replica
from latchgate_server.storage.failures import told_plainly, why_unreachable
from latchgate_server.storage.migrate import schema_problem
from latchgate_server.storage.pool import connect, set_up
from latchgate_server.storage.queries import SQL

_CONNECT_SECONDS = 5.0
_QUERY_SECONDS = 60.0
_WATCH_SECONDS = 0.1


class Unreachable(Exception):
    """The database gives no answer; the message says why, without any secret."""


class Examination:
    """One look at a database. Open it with `open`, and close it."""

    def __init__(self, connection: asyncpg.Connection, url: str, lease: float, clock: Clock) -> None:
        self._connection = connection
        self._url = url
        self._lease = lease
        self._clock = clock

    @classmethod
    async def open(cls, url: str, lease: float, clock: Clock) -> Examination:
        """Connect as anybody would, without our sessions' settings. Raises Unreachable."""
        try:
            connection = await asyncpg.connect(url, timeout=_CONNECT_SECONDS, command_timeout=_QUERY_SECONDS)
        except TimeoutError:
            raise Unreachable(f"no answer within {_CONNECT_SECONDS:g}s") from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
            raise Unreachable(why_unreachable(error)) from None
        await set_up(connection)
        return cls(connection, url, lease, clock)

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def server(self) -> ServerFacts:
        """What the server says of itself."""
        with told_plainly():
            before = self._clock.now()
            its_time = float(await self._connection.fetchval(SQL["examine_clock"]))
            after = self._clock.now()
            row = await self._connection.fetchrow(SQL["examine_server"])
        assert row is not None, "examine_server always returns a row"
        return ServerFacts(
            version=self._connection.get_server_version().major,
            is_standby=row["is_standby"],
            settings=dict(row["settings"]),
            own_commit=row["settings"]["synchronous_commit"] if row["is_standby"] else await self._own_commit(),
            skew=its_time - (before + after) / 2,
            uncertainty=(after - before) / 2,
            connections=row["connections"],
            taken=row["taken"],
            standbys=row["standbys"],
        )

    async def _own_commit(self) -> str:
        with told_plainly():
            own = await connect(self._url, self._lease)
            try:
                return str(await own.fetchval("SHOW synchronous_commit"))
            finally:
                await own.close()

    async def schema_problem(self) -> str:
        """What is wrong with the schema; empty where it is current."""
        with told_plainly():
            return await schema_problem(self._connection)

    async def data(self, root_tenant: str, grants: Sequence[str]) -> DataFacts:
        """What is in the database, whose schema is current. grants: what an administrator of everything holds."""
        with told_plainly():
            row = await self._connection.fetchrow(SQL["examine_data"])
            tenant = await self._connection.fetchrow(SQL["get_tenant"], root_tenant)
            administrators = await self._connection.fetch(SQL["administrators"], root_tenant, list(grants), 1_000)
        assert row is not None, "examine_data always returns a row"
        return DataFacts(
            timeline_is_trusted=row["timeline_is_trusted"],
            revision=row["revision"],
            peppers=row["peppers"],
            audit_peppers=row["audit_peppers"],
            administrators=len(administrators) if tenant else None,
            disabled_triggers=row["disabled_triggers"],
        )

    async def watch(self, revision: int) -> Sequence[Watched]:
        """Watch the replicas until each has renewed its lease and applied the revision, or for its lease."""
        first = {replica.replica_id: replica for replica in await self._replicas()}
        end = self._clock.monotonic() + max((replica.lease for replica in first.values()), default=0.0)
        while True:
            now = {replica.replica_id: replica for replica in await self._replicas()}
            # One that left meanwhile has ended in good order.
            watched = [Watched(now[name], now[name].beat != first[name].beat) for name in first if name in now]
            settled = all(entry.beats and entry.replica.applied_revision >= revision for entry in watched)
            if settled or self._clock.monotonic() >= end:
                return watched
            await self._clock.sleep(_WATCH_SECONDS)

    async def _replicas(self) -> list[Replica]:
        with told_plainly():
            rows = await self._connection.fetch(SQL["read_replicas"])
        return [
            Replica(row["replica_id"], row["applied_revision"], row["lease_seconds"], row["beat"])
            for row in rows
            if row["replica_id"] is not None
        ]
