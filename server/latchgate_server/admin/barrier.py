"""The wait after a mutation, until no replica decides on the state before it.

docs/consistency.md shows why it suffices. In short: whoever held a lease when the mutation committed has a row, and
either says that it has evicted what changed, or its lease runs out while we wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from latchgate_server import log_events, observability, tracing
from latchgate_server.core.errors import CannotDecide, StoreUnavailable
from latchgate_server.core.ports import Clock
from latchgate_server.core.replication import (
    LONGEST_LEASE,
    Acknowledgements,
    Replica,
    Replicas,
    ReplicaTable,
    margin,
)
from latchgate_server.spans import SpanName, TraceAttribute

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
        self._waits: set[asyncio.Task[Propagation]] = set()
        self._distrusted = ""
        self._distrusted_since = 0.0

    async def wait(self, revision: int, timeline: str) -> Propagation:
        """Return when no replica decides on a state before the revision, which was committed on the timeline.

        The wait goes on when its caller is cancelled: otherwise callers with less patience than a lease would each wait
        for the same silent replica, and none would come to forget it.
        Raises CannotDecide where the replicas cannot be read, or the change may be lost. Repeating it waits again.
        """
        task = asyncio.get_running_loop().create_task(self._wait(revision, timeline))
        self._waits.add(task)
        task.add_done_callback(self._ended)
        with tracing.span(SpanName.WAIT_FOR_REPLICAS):
            done = await asyncio.shield(task)
            tracing.note(
                {
                    TraceAttribute.REVISION: done.revision,
                    TraceAttribute.REPLICAS_CONFIRMED: done.replicas_confirmed,
                    TraceAttribute.LEASES_EXPIRED: done.leases_expired,
                }
            )
            return done

    def close(self) -> None:
        """End the waits whose callers are gone."""
        for task in self._waits:
            task.cancel()

    def _ended(self, task: asyncio.Task[Propagation]) -> None:
        self._waits.discard(task)
        if not task.cancelled():
            task.exception()  # nobody may be waiting any more; that is no leak worth a warning

    async def _wait(self, revision: int, timeline: str) -> Propagation:
        began = self._clock.monotonic()
        async with self._table.acknowledgements() as acknowledgements:
            rows = await self._all_rows(timeline)
            # Only now: a lease that was renewed before the rows were read must have run out by the deadline.
            read_at = self._clock.monotonic()
            lagging = {
                replica.replica_id: _Lagging(replica, read_at + replica.lease + margin(replica.lease))
                for replica in rows
                if replica.applied_revision < revision
            }
            confirmed = len(rows) - len(lagging)
            expired = 0
            while lagging:
                await self._pause(acknowledgements, lagging, revision)
                confirmed += await self._drop_confirmed(lagging, revision, timeline)
                expired += await self._drop_expired(lagging, timeline)
        if expired:
            await self._see_it_stand(timeline)  # leases end without the database, which may be another one by now
        waited = self._clock.monotonic() - began
        observability.PROPAGATION.observe(waited)
        return Propagation(revision=revision, replicas_confirmed=confirmed, leases_expired=expired, waited=waited)

    async def _all_rows(self, timeline: str) -> Sequence[Replica]:
        """Every row. After a promotion some may be lost: then it first waits out every lease there can have been.

        That wait began when the first mutation of this process met the timeline.
        """
        while not (replicas := _unless_lost(await self._table.read(), timeline)).is_complete:
            if self._distrusted != timeline:
                self._distrusted, self._distrusted_since = timeline, self._clock.monotonic()
            ends_at = self._distrusted_since + LONGEST_LEASE + margin(LONGEST_LEASE)
            await self._clock.sleep(max(0.0, ends_at - self._clock.monotonic()))
            # The one that was waited for, which another promotion may have ended meanwhile.
            await self._table.trust(timeline)
        return replicas.rows

    async def _pause(self, acknowledgements: Acknowledgements, lagging: dict[str, _Lagging], revision: int) -> None:
        soonest = min(entry.deadline for entry in lagging.values()) - self._clock.monotonic()
        await acknowledgements.wait(revision, max(0.0, min(_POLL_SECONDS, soonest)))

    async def _drop_confirmed(self, lagging: dict[str, _Lagging], revision: int, timeline: str) -> int:
        """Stop waiting for those that have acknowledged or left; returns how many acknowledged."""
        try:
            replicas = await self._table.read()
        except CannotDecide:
            return 0  # the deadlines hold without the database
        _unless_lost(replicas, timeline)
        current = {replica.replica_id: replica for replica in replicas.rows}
        confirmed = 0
        for replica_id in list(lagging):
            replica = current.get(replica_id)
            if replica is not None and replica.applied_revision >= revision:
                del lagging[replica_id]
                confirmed += 1
            elif replica is None:
                del lagging[replica_id]
        return confirmed

    async def _drop_expired(self, lagging: dict[str, _Lagging], timeline: str) -> int:
        """Stop waiting for those whose lease has run out, and forget them; returns how many."""
        now = self._clock.monotonic()
        expired = [entry.replica for entry in lagging.values() if entry.deadline <= now]
        for replica in expired:
            del lagging[replica.replica_id]
            observability.LEASES_EXPIRED.inc()
            _log.warning(log_events.LEASE_EXPIRED, replica_id=replica.replica_id, lease=replica.lease)
            try:
                await self._table.expire(replica, timeline)
            except CannotDecide:
                continue  # whether or not the row is gone, its lease is
        return len(expired)

    async def _see_it_stand(self, timeline: str) -> None:
        try:
            replicas = await self._table.read()
        except CannotDecide as error:
            raise StoreUnavailable(
                "no replica decides on the state before this change any more, but the database does not answer whether"
                " the change still stands; make it again"
            ) from error
        _unless_lost(replicas, timeline)


def _unless_lost(replicas: Replicas, timeline: str) -> Replicas:
    """What was read, if on the timeline of the commit. Raises StoreUnavailable on another one."""
    if replicas.timeline != timeline:
        raise StoreUnavailable(
            "the database failed over while this change was under way, and may have lost it; look whether it is there,"
            " and make it again"
        )
    return replicas
