"""Small chores of every process, at long intervals."""

from __future__ import annotations

from typing import Protocol

import structlog

from latchgate_server import observability
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.ports import Clock

KEEP_CHANGES_SECONDS = 3_600.0
_INTERVAL_SECONDS = 300.0

_log = structlog.get_logger()


class PrunesChanges(Protocol):
    """Forgets changes that every replica has long applied."""

    async def prune_changes(self, older_than: float) -> None:
        """Forget changes older than that many seconds. A replica that still needs one evicts everything instead."""
        ...


async def keep_house(store: PrunesChanges, clock: Clock) -> None:
    """Prune for as long as the process lives."""
    while True:
        await clock.sleep(_INTERVAL_SECONDS)
        try:
            await store.prune_changes(KEEP_CHANGES_SECONDS)
        except CannotDecide as error:
            _log.warning(observability.HOUSEKEEPING_FAILED, task="prune", error=str(error))
