"""Clients that watch this replica and have a cache of their own: what they must drop, and how far each has followed.

The lease protocol one level down; docs/consistency.md explains it, and tests/model/watch.pml is a model of it. A client
uses its cache while it holds a lease of ours, and what it must drop comes over the same stream as its leases. So a
lease that is granted after an invalidation was sent is used only by a client that has read the invalidation; and the
replica may acknowledge a revision once each lease that was granted before it has run out or been answered for.

Nothing here waits for a client. What it has not read yet is kept merged, and becomes "drop all" where it grows long.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from latchgate_server.core import bounds
from latchgate_server.core.errors import CannotDecide, Overloaded
from latchgate_server.core.ports import Clock
from latchgate_server.core.replication import Change, margin
from latchgate_server.verify.pace import Pace


@dataclass(frozen=True, slots=True)
class News:
    """One message to a client.

    revision: the one to be acknowledged once all that is named here is dropped. sequence: that of the client's message
    which this answers; 0: none. lease: seconds from when the client sent that message; 0: none.
    """

    revision: int
    key_ids: Sequence[str]
    tenant_ids: Sequence[str]
    drop_all: bool
    sequence: int
    lease: float


class _Leases:
    """The leases that one client was granted over one stream, by the revision that their user has certainly applied."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: dict[int, float] = {}

    def grant(self, applied: int, ends_at: float) -> None:
        self._ends[applied] = max(ends_at, self._ends.get(applied, 0.0))

    def acknowledge(self, revision: int) -> int | None:
        """Note that the client has applied it. Returns where it was furthest behind, None where it was not."""
        behind = [applied for applied in self._ends if applied < revision]
        if not behind:
            return None
        self.grant(revision, max(self._ends.pop(applied) for applied in behind))
        return min(behind)

    def distrust(self) -> None:
        """Take the client for one that has applied nothing."""
        self.grant(0, max(self._ends.values(), default=0.0))

    def lowest(self, now: float) -> float:
        """The lowest revision that a lease which still counts belongs to; infinite where none counts."""
        for applied in [applied for applied, ends_at in self._ends.items() if ends_at <= now]:
            del self._ends[applied]
        return min(self._ends, default=math.inf)

    def behind_until(self, revision: int) -> float:
        """When the last of those ends that belong to lower revisions, on the monotonic clock; 0 where none does."""
        return max((ends_at for applied, ends_at in self._ends.items() if applied < revision), default=0.0)

    def end_at(self) -> float:
        """When the last of them ends."""
        return max(self._ends.values(), default=0.0)


class Watcher:
    """One client's stream, as the replica sees it.

    sees_all: whether ids of every tenant's keys are its business; otherwise it is told to drop all at each change.
    pace: when its next message is to be read.
    """

    def __init__(self, sees_all: bool, revision: int) -> None:
        self._sees_all = sees_all
        self._woken = asyncio.Event()
        self._ended = asyncio.Event()
        self._end: Exception | None = None
        self._key_ids: set[str] = set()
        self._tenant_ids: set[str] = set()
        self._drop_all = False
        self._answer = (0, 0.0)
        self.told = revision
        self.leases = _Leases()
        self.pace = Pace(revision)

    @property
    def is_ended(self) -> bool:
        """Whether nothing may be told over this stream any more."""
        return self._end is not None

    async def ended(self) -> None:
        """Raise what the stream is to end with, as soon as it is."""
        await self._ended.wait()
        assert self._end is not None
        raise self._end

    async def news(self) -> News:
        """The next message to send, as soon as there is one."""
        await self._woken.wait()
        self._woken.clear()
        (sequence, lease), self._answer = self._answer, (0, 0.0)
        key_ids, self._key_ids = self._key_ids, set()
        tenant_ids, self._tenant_ids = self._tenant_ids, set()
        drop_all, self._drop_all = self._drop_all, False
        return News(self.told, sorted(key_ids), sorted(tenant_ids), drop_all, sequence, lease)

    def tell(self, revision: int, key_ids: Iterable[str], tenant_ids: Iterable[str], drop_all: bool) -> None:
        """Have it drop these."""
        self.told = revision
        self._key_ids.update(key_ids)
        self._tenant_ids.update(tenant_ids)
        named = len(self._key_ids) + len(self._tenant_ids)
        if drop_all or (named and not self._sees_all) or named > bounds.WATCHER_BACKLOG:
            self._drop_all = True
        if self._drop_all:
            self._key_ids.clear()
            self._tenant_ids.clear()
        self._woken.set()

    def answer(self, sequence: int, lease: float) -> None:
        """Answer a message. One that still waits to be sent is answered with this one."""
        self._answer = (sequence, lease)
        self._woken.set()

    def end(self, error: Exception) -> None:
        """Have the stream end with an error."""
        self._end = error
        self._ended.set()


class Watchers:
    """All of one replica.

    on_progress: called when a client's acknowledgement may let the replica acknowledge more.
    """

    def __init__(self, clock: Clock, client_lease: float) -> None:
        """client_lease: how long a silent client can hold up a change, in seconds."""
        self._clock = clock
        self._margin = margin(client_lease)
        self._longest = client_lease - self._margin
        self._watchers: set[Watcher] = set()
        self._broken: list[_Leases] = []
        self._revision = 0
        self._followed = 0
        self._is_closed = False
        self.on_progress: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._watchers)

    # Streams --------------------------------------------------------------------------------------------------------

    def open(self, *, sees_all: bool) -> Watcher:
        """A stream begins; its client has dropped everything. Raises Overloaded, or CannotDecide once it is closed."""
        if self._is_closed:
            raise _closed()
        self._forget_ended()
        if len(self._watchers) >= bounds.WATCHERS or len(self._broken) >= bounds.WATCHERS:
            raise Overloaded("too many clients watch this server already; ask another one")
        watcher = Watcher(sees_all, self._revision)
        self._watchers.add(watcher)
        return watcher

    def hear(self, watcher: Watcher, sequence: int, applied_revision: int, lease_left: float) -> None:
        """Take a client's message, and answer it.

        lease_left: what is left of the replica's own lease, in seconds; a client's never outlasts it.
        """
        if watcher.is_ended:
            return
        was = watcher.leases.acknowledge(min(applied_revision, watcher.told))
        now = self._clock.monotonic()
        if was is not None and all(leases.lowest(now) > was for leases in self._all_leases()):
            self.on_progress()
        granted = max(0.0, min(self._longest, lease_left))
        if granted:
            # What was told comes first over the stream: whoever uses this lease has applied it.
            watcher.leases.grant(watcher.told, now + granted + self._margin)
        watcher.answer(sequence, granted)

    def leave(self, watcher: Watcher) -> None:
        """A stream has ended, in whatever way: its client may go on until its last lease ends."""
        if watcher in self._watchers:
            self._watchers.remove(watcher)
            self._broken.append(watcher.leases)

    # Changes --------------------------------------------------------------------------------------------------------

    def apply(self, revision: int, changes: Sequence[Change] | None) -> None:
        """Have clients drop what changed up to the revision; everything where `changes` is None."""
        if changes is None and revision < self._revision:
            self.restart(revision)
            return
        if revision == self._revision and not changes:
            return
        self._revision = revision
        key_ids, tenant_ids, drop_all = _named(changes)
        for watcher in self._watchers:
            watcher.tell(revision, key_ids, tenant_ids, drop_all)

    def restart(self, revision: int) -> None:
        """End every stream: revisions may run again from a lower number, so an acknowledgement would say nothing."""
        self._end_all(CannotDecide("this server starts anew; drop everything and open another stream", retry_after=0.1))
        for leases in self._broken:
            leases.distrust()
        self._revision = revision
        self._followed = 0

    def followed(self, applied_revision: int) -> int:
        """The revision that the replica may acknowledge, of those up to the one that it has applied itself."""
        self._forget_ended()
        now = self._clock.monotonic()
        lowest = min((leases.lowest(now) for leases in self._all_leases()), default=math.inf)
        # Who was at a revision once is so for good: a lease that is granted later is used after what was told before.
        self._followed = max(self._followed, int(min(lowest, applied_revision)))
        return self._followed

    def progress_in(self) -> float:
        """The seconds until leases that ran out may let the replica acknowledge more; infinite where none can."""
        if self._followed >= self._revision:
            return math.inf
        ends = (leases.behind_until(self._revision) for leases in self._all_leases())
        soonest = min((ends_at for ends_at in ends if ends_at), default=math.inf)
        return max(0.0, soonest - self._clock.monotonic())

    # The end --------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End every stream, and take no more."""
        self._is_closed = True
        self._end_all(_closed())

    def leases_end_in(self) -> float:
        """The seconds until no client has a lease any more."""
        ends_at = max((leases.end_at() for leases in self._all_leases()), default=0.0)
        return max(0.0, ends_at - self._clock.monotonic())

    def _end_all(self, error: Exception) -> None:
        for watcher in list(self._watchers):
            watcher.end(error)
            self.leave(watcher)

    def _all_leases(self) -> Iterable[_Leases]:
        yield from (watcher.leases for watcher in self._watchers)
        yield from self._broken

    def _forget_ended(self) -> None:
        now = self._clock.monotonic()
        self._broken = [leases for leases in self._broken if leases.end_at() > now]


def _named(changes: Sequence[Change] | None) -> tuple[list[str], list[str], bool]:
    """The key ids and tenant ids that changes name, and whether everything must go.

    A client does not know which roles and which plan its entries depend on, nor which of its keys another system's new
    credential would be found before.
    """
    key_ids, tenant_ids, drop_all = [], [], changes is None
    for change in changes or ():
        if change.entity == "key":
            key_ids.append(change.id)
        elif change.entity == "tenant":
            tenant_ids.append(change.id)
        else:
            drop_all = True
    return key_ids, tenant_ids, drop_all


def _closed() -> CannotDecide:
    return CannotDecide("this server is shutting down; watch another one, or this one when it is back")
