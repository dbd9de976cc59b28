"""Small chores of every process, at long intervals."""

from __future__ import annotations

from typing import Protocol

import structlog

from latchgate_server import observability
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.ports import Clock
from latchgate_server.core.replication import ReplicaTable, margin

KEEP_CHANGES_SECONDS = 3_600.0
_INTERVAL_SECONDS = 300.0
_ROUND_SECONDS = 10.0

_log = structlog.get_logger()


class Prunes(Protocol):
    """Forgets what nobody needs any more."""

    async def prune_limits(self) -> None:
        """Forget what was used of quotas in past periods, and of limits whose holders are gone."""
        ...

    async def prune_changes(self, older_than: float) -> None:
        """Forget changes older than that many seconds. A replica that still needs one evicts everything instead."""
        ...


async def keep_house(store: Prunes, clock: Clock) -> None:
    """Prune for as long as the process lives."""
    while True:
        await clock.sleep(_INTERVAL_SECONDS)
        try:
            await store.prune_changes(KEEP_CHANGES_SECONDS)
            await store.prune_limits()
        except CannotDecide as error:
            _log.warning(observability.HOUSEKEEPING_FAILED, task="prune", error=str(error))


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
            _log.warning(observability.HOUSEKEEPING_FAILED, task="replicas", error=str(error))
