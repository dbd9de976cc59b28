"""What replicas and mutators tell each other through the database. docs/consistency.md explains the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

SHORTEST_LEASE = 0.3
"""Seconds. Below this, beats would be most of what the database does."""

SHORTEST_CLIENT_LEASE = 0.1
"""Seconds. A client says something several times in each, and needs an answer in time."""

LONGEST_LEASE = 30.0
"""Seconds. How long a mutation waits after a promotion, when nobody knows which leases there are."""

_MARGIN = 0.1


def margin(lease: float) -> float:
    """What allows for clocks that run at different rates, in seconds: a tenth of the lease."""
    return lease * _MARGIN


@dataclass(frozen=True, slots=True)
class Change:
    """Something that records in memory may depend on. entity: key, tenant, plan, role, or all."""

    entity: str
    id: str


@dataclass(frozen=True, slots=True)
class ChangesRead:
    """What changed up to a revision; None where that is not known any more, or is too much to tell one by one.

    replicas: how many processes have a row.
    """

    revision: int
    changes: Sequence[Change] | None
    replicas: int = 1


class FeedLink(Protocol):
    """A replica's own connection. Every method raises CannotDecide where the connection is no good any more."""

    async def current_revision(self) -> int:
        """The newest committed revision."""
        ...

    async def beat(self, replica_id: str, applied_revision: int, lease: float) -> None:
        """Renew the replica's row, committed when this returns. lease: seconds."""
        ...

    async def read_changes(self, after: int) -> ChangesRead:
        """What changed after a revision, read in one snapshot."""
        ...

    async def acknowledge(self, replica_id: str, applied_revision: int) -> None:
        """Tell waiting mutators what the replica has applied."""
        ...

    async def deregister(self, replica_id: str) -> None:
        """Remove the replica's row."""
        ...

    async def changed(self, seconds: float) -> bool:
        """Return True at the next hint that something changed, or False after `seconds`."""
        ...

    def hint(self) -> None:
        """Let the running or next `changed` return at once."""
        ...


class FeedLinks(Protocol):
    """Where a replica gets its connection from."""

    def open(self) -> AbstractAsyncContextManager[FeedLink]:
        """A new connection, closed when the context ends. Raises CannotDecide."""
        ...


@dataclass(frozen=True, slots=True)
class Replica:
    """A running process, as its row tells. lease: seconds."""

    replica_id: str
    applied_revision: int
    lease: float
    beat: int


@dataclass(frozen=True, slots=True)
class Replicas:
    """All rows of one snapshot.

    timeline: which history of the database they belong to; each promotion begins another. is_complete: whether that is
    the one that is trusted. Otherwise rows may have been lost.
    """

    rows: Sequence[Replica]
    timeline: str
    is_complete: bool


class ReplicaTable(Protocol):
    """The replicas, as a mutator sees them. Every method raises CannotDecide where the database gives no answer."""

    async def read(self) -> Replicas:
        """All rows, in a new snapshot."""
        ...

    async def expire(self, replica: Replica, timeline: str) -> None:
        """Remove the row, unless the replica has beaten since. timeline: where the row was read."""
        ...

    async def trust(self, timeline: str) -> None:
        """Note that every lease which may be missing on that timeline has run out."""
        ...

    def acknowledgements(self) -> AbstractAsyncContextManager[Acknowledgements]:
        """Listen for acknowledgements while the context lasts."""
        ...


class Acknowledgements(Protocol):
    """Hints that replicas acknowledged something."""

    async def wait(self, revision: int, seconds: float) -> None:
        """Return once all replicas are said to have reached the revision, or after `seconds`.

        Or sooner, where some replica left.
        """
        ...
