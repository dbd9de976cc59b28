"""The wait after a mutation, until no replica decides on the state before it.

docs/consistency.md shows why it suffices. In short: whoever held a lease when the mutation committed has a row, and
either says that it has evicted what changed, or its lease runs out while we wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from latchgate_server import observability
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.ports import Clock
from latchgate_server.core.replication import (
    LONGEST_LEASE,
    Acknowledgements,
    Replica,
    Replicas,
    ReplicaTable,
    margin,
)

_POLL_SECONDS = 0.05

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Propagation:
    """How far a mutation has travelled. waited: seconds."""

    revision: int
    replicas_confirmed: int
    leases_expired: int
    waited: float


@dataclass(frozen=True, slots=True)
class _Lagging:
    """A replica that may still decide on the old state, until `deadline` at the latest."""

    replica: Replica
    deadline: float


class Barrier:
    """Waits for replicas."""

    def __init__(self, table: ReplicaTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    async def wait(self, revision: int) -> Propagation:
        """Return when no replica decides on a state before the revision, which is committed.

        Raises CannotDecide where the replicas cannot be read. The mutation stands all the same; repeating it waits
        again.
        """
        began = self._clock.monotonic()
        async with self._table.acknowledgements() as acknowledgements:
            replicas = await self._complete_replicas()
            # Only now: a lease that was renewed before the rows were read must have run out by the deadline.
            read_at = self._clock.monotonic()
            lagging = {
                replica.replica_id: _Lagging(replica, read_at + replica.lease + margin(replica.lease))
                for replica in replicas.rows
                if replica.applied_revision < revision
            }
            confirmed = len(replicas.rows) - len(lagging)
            expired = 0
            while lagging:
                await self._pause(acknowledgements, lagging)
                confirmed += await self._drop_confirmed(lagging, revision)
                expired += await self._drop_expired(lagging, replicas.timeline)
        waited = self._clock.monotonic() - began
        observability.PROPAGATION.observe(waited)
        return Propagation(revision=revision, replicas_confirmed=confirmed, leases_expired=expired, waited=waited)

    async def _complete_replicas(self) -> Replicas:
        """All rows. After a promotion some may be lost: then it first waits out every lease there can have been."""
        while not (replicas := await self._table.read()).is_complete:
            await self._clock.sleep(LONGEST_LEASE + margin(LONGEST_LEASE))
            # The one that was waited for, which another promotion may have ended meanwhile.
            await self._table.trust(replicas.timeline)
        return replicas

    async def _pause(self, acknowledgements: Acknowledgements, lagging: dict[str, _Lagging]) -> None:
        soonest = min(entry.deadline for entry in lagging.values()) - self._clock.monotonic()
        await acknowledgements.wait(max(0.0, min(_POLL_SECONDS, soonest)))

    async def _drop_confirmed(self, lagging: dict[str, _Lagging], revision: int) -> int:
        """Stop waiting for those that have acknowledged or left; returns how many acknowledged."""
        try:
            replicas = await self._table.read()
        except CannotDecide:
            return 0  # the deadlines hold without the database
        current = {replica.replica_id: replica for replica in replicas.rows}
        confirmed = 0
        for replica_id in list(lagging):
            replica = current.get(replica_id)
            if replica is not None and replica.applied_revision >= revision:
                del lagging[replica_id]
                confirmed += 1
            elif replica is None and replicas.is_complete:
                del lagging[replica_id]
        return confirmed

    async def _drop_expired(self, lagging: dict[str, _Lagging], timeline: str) -> int:
        """Stop waiting for those whose lease has run out, and forget them; returns how many."""
        now = self._clock.monotonic()
        expired = [entry.replica for entry in lagging.values() if entry.deadline <= now]
        for replica in expired:
            del lagging[replica.replica_id]
            observability.LEASES_EXPIRED.inc()
            _log.warning(observability.LEASE_EXPIRED, replica_id=replica.replica_id, lease=replica.lease)
            try:
                await self._table.expire(replica, timeline)
            except CannotDecide:
                continue  # whether or not the row is gone, its lease is
        return len(expired)
