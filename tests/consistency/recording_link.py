"""A feed connection in memory that notes what the feed does with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from latchgate_server.core.replication import ChangesRead, FeedLink
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.feed import Feed
from latchgate_server.verify.watchers import Watchers
from tests.consistency.stage import CLIENT_LEASE, LEASE, MachineClock, Stage


class RecordingLink:
    """A FeedLink and the only one of its FeedLinks: notes each call, and what was true of the replica at its time.

    changes: what each read of changes finds. on_call: done at each call, before its answer.
    """

    def __init__(self) -> None:
        self.stage = Stage()
        self.cache = RecordCache(100)
        self.clock = MachineClock(self.stage)
        self.watchers = Watchers(self.clock, CLIENT_LEASE)
        self.feed = Feed(self, self.cache, self.watchers, self.clock, replica_id="replica", lease=LEASE)
        self.changes = ChangesRead(1, [])
        self.calls: list[str] = []
        self.is_hinted = False
        self.on_call: Callable[[str], None] = lambda _: None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[FeedLink]:
        yield self

    def note(self, call: str) -> None:
        lease = "leased" if self.feed.has_lease() else "no lease"
        known = "in memory" if self.cache.get("key") else "evicted"
        self.calls.append(f"{call}: {lease}, {known}")
        self.on_call(call)

    async def current_revision(self) -> int:
        self.note("current revision")
        return 1

    async def beat(self, replica_id: str, applied_revision: int, lease: float) -> None:
        self.note(f"upsert {replica_id} at {applied_revision} for {lease:.0f} s")

    async def read_changes(self, after: int) -> ChangesRead:
        self.note(f"read after {after}")
        return self.changes

    async def acknowledge(self, replica_id: str, applied_revision: int) -> None:
        self.note(f"acknowledge {applied_revision}")

    async def deregister(self, replica_id: str) -> None:
        self.note("deregister")

    async def changed(self, seconds: float) -> bool:
        self.note(f"idle for {seconds:.0f} s")
        await self.stage.halt("idle")
        return self.is_hinted

    def hint(self) -> None:
        self.note("hint")
