"""Small chores of every process, at long intervals."""

from __future__ import annotations

from typing import Protocol

import structlog

from latchgate_server import log_events
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.ports import Clock
from latchgate_server.core.replication import ReplicaTable, margin

KEEP_CHANGES_SECONDS = 3_600.0
_INTERVAL_SECONDS = 300.0
_ROUND_SECONDS = 10.0
_PAUSE_SECONDS = 0.05

_log = structlog.get_logger()


class Prunes(Protocol):
    """Forgets what nobody needs any more."""

    async def prune_limits(self) -> None:
        """Forget what was used of quotas in past periods, and of limits whose holders are gone."""
        ...

    async def prune_changes(self, older_than: float) -> None:
        """Forget changes older than that many seconds. A replica that still needs one evicts everything instead."""
        ...


class PrunesUsage(Protocol):
    """Keeps the tables of usage in order."""

    async def prepare_usage(self) -> None:
        """Make the partitions that usage will be written to in this month and the next two."""
        ...

    async def prune_usage(self, keep_counts: float, keep_uses: float) -> None:
        """Forget counts, and single uses and addresses, that are older than so many seconds; counts by whole months."""
        ...

    async def prune_orphaned_usage(self) -> int:
        """Remove the usage of some keys and tenants that are gone; returns of how many."""
        ...


async def keep_usage(store: PrunesUsage, clock: Clock, keep_counts: float, keep_uses: float) -> None:
    """Keep the tables of usage in order for as long as the process lives. Both times in seconds."""
    while True:
        try:
            await store.prepare_usage()
            await store.prune_usage(keep_counts, keep_uses)
            while await store.prune_orphaned_usage():
                await clock.sleep(_PAUSE_SECONDS)
        except CannotDecide as error:
            _log.warning(log_events.HOUSEKEEPING_FAILED, task="usage", error=str(error))
        await clock.sleep(_INTERVAL_SECONDS)


async def keep_house(store: Prunes, clock: Clock) -> None:
    """Prune for as long as the process lives."""
    while True:
        await clock.sleep(_INTERVAL_SECONDS)
        try:
            await store.prune_changes(KEEP_CHANGES_SECONDS)
            await store.prune_limits()
        except CannotDecide as error:
            _log.warning(log_events.HOUSEKEEPING_FAILED, task="prune", error=str(error))


async def forget_the_dead(table: ReplicaTable, clock: Clock) -> None:
    """Remove the rows of processes that crashed: no mutation need wait for them, nor do they count for limits.

    As the barrier does it: a row that has not beaten since it was read, a lease ago, has no lease.
    """
    while True:
        await clock.sleep(_ROUND_SECONDS)
        try:
            before = await table.read()
            if len(before.rows) < 2:  # this process alone
                continue
            longest = max(replica.lease for replica in before.rows)
            await clock.sleep(longest + margin(longest))
            living = {(replica.replica_id, replica.beat) for replica in (await table.read()).rows}
            for replica in before.rows:
                if (replica.replica_id, replica.beat) in living:
                    await table.expire(replica, before.timeline)
        except CannotDecide as error:
            _log.warning(log_events.HOUSEKEEPING_FAILED, task="replicas", error=str(error))
