"""Follows the changes in the database and holds the lease under which records in memory may be used.

A beat is a few steps whose order carries the whole promise; see docs/consistency.md. A notification only makes the
replica glance at the changes before the next beat is due. What the replica's row names, its watching clients have
followed as well (watchers.py); nothing here waits for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from latchgate_server import log_events
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.ports import Clock
from latchgate_server.core.replication import ChangesRead, FeedLink, FeedLinks, margin
from latchgate_server.verify.cache import RecordCache
from latchgate_server.verify.watchers import Watchers

_BEATS_PER_LEASE: Final = 3
_PATIENCE: Final = 0.5
"""Of a lease: a connection that stalls for longer is given up; with the pause before, within the lease."""

_RETRY_SECONDS: Final = 0.1

_log = structlog.get_logger()


class Feed:
    """One replica's place in the protocol.

    is_lost: whether the database did not answer when it was last asked.
    last_beat_at: when the last beat that succeeded began, on the monotonic clock; None before the first.
    has_beaten: set from the first beat that succeeded.
    replicas: how many processes serve this database, this one among them, as of the last beat.
    """

    def __init__(
        self,
        links: FeedLinks,
        cache: RecordCache,
        watchers: Watchers,
        clock: Clock,
        *,
        replica_id: str,
        lease: float,
    ) -> None:
        """replica_id: random, made anew at each start of the process. lease: seconds."""
        self._links = links
        self._cache = cache
        self._watchers = watchers
        self._clock = clock
        self._replica_id = replica_id
        self._lease = lease
        self._valid_until = 0.0
        self._told = 0  # the revision that this replica's row names
        self._link: FeedLink | None = None
        self._stopping = False
        self._waiting_for_look: list[asyncio.Future[None]] = []
        self.is_lost = True
        self.last_beat_at: float | None = None
        self.has_beaten = asyncio.Event()
        self.replicas = 1
        watchers.on_progress = self._hint

    def has_lease(self) -> bool:
        """Whether a record taken from the cache in this very step may be decided on."""
        return self._clock.monotonic() < self._valid_until

    def lease_left(self) -> float:
        """What is left of the lease, in seconds; 0 without one."""
        return max(0.0, self._valid_until - self._clock.monotonic())

    async def run(self) -> None:
        """Beat until `stop`, over as many connections as it takes."""
        while not self._stopping:
            try:
                async with self._links.open() as link:
                    await self._follow(link)
            except (CannotDecide, TimeoutError) as error:
                self._note_loss(error)
                await self._clock.sleep(_RETRY_SECONDS)

    async def _follow(self, link: FeedLink) -> None:
        # Nothing that was learned over another connection is kept: this one may lead to another server, on which
        # revisions run again from a lower number.
        self._valid_until = 0.0
        async with asyncio.timeout(self._lease * _PATIENCE):
            revision = await link.current_revision()
        self._cache.restart(revision)
        self._watchers.restart(revision)
        self._link = link
        try:
            while not self._stopping:
                due = self._clock.monotonic() + self._lease / _BEATS_PER_LEASE
                async with asyncio.timeout(self._lease * _PATIENCE):
                    await self.beat(link)
                await self._glance_until(due, link)
            await self._leave(link)
        finally:
            self._link = None

    async def _glance_until(self, due: float, link: FeedLink) -> None:
        """Follow each hint, until the next beat is due."""
        while not self._stopping and (left := due - self._clock.monotonic()) > 0:
            progress = self._watchers.progress_in()
            hinted = await link.changed(min(left, progress))
            if not hinted and progress >= left:
                return
            if not self._stopping:
                async with asyncio.timeout(self._lease * _PATIENCE):
                    # First what clients have followed by now: a mutation waits for it.
                    await self._acknowledge(link)
                    if hinted:
                        await self.glance(link)

    async def beat(self, link: FeedLink) -> None:
        """Renew the lease. The order of the steps is what makes a revocation hold."""
        with self._looking():
            began = self._clock.monotonic()
            self._told = self._watchers.followed(self._cache.applied_revision)
            await link.beat(self._replica_id, self._told, self._lease)
            read = await link.read_changes(self._cache.applied_revision)
            self._evict(read)
            self._valid_until = began + self._lease - margin(self._lease)
            await self._acknowledge(link)
        self.replicas = read.replicas
        self._note_beat(began)

    async def glance(self, link: FeedLink) -> None:
        """Evict what changed, and say so. The lease stays as it is: mutators know of no longer one."""
        with self._looking():
            read = await link.read_changes(self._cache.applied_revision)
            self._evict(read)
            await self._acknowledge(link)

    def _evict(self, read: ChangesRead) -> None:
        """Drop what changed, and tell clients to, in one step."""
        self._cache.apply(read.revision, read.changes)
        self._watchers.apply(read.revision, read.changes)

    async def _acknowledge(self, link: FeedLink) -> None:
        """Let the row name what this replica and its clients have followed, where that is more than it names."""
        followed = self._watchers.followed(self._cache.applied_revision)
        if followed > self._told:
            await link.acknowledge(self._replica_id, followed)
            self._told = followed

    @contextmanager
    def _looking(self) -> Iterator[None]:
        waiting, self._waiting_for_look = self._waiting_for_look, []
        try:
            yield
        finally:
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)

    async def next_look(self) -> None:
        """Return when a look at the changes that began after this call has ended, well or not, or cannot be had."""
        if self._link is None:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting_for_look.append(waiter)
        self._link.hint()
        try:
            async with asyncio.timeout(self._lease):
                await waiter
        except TimeoutError:
            return

    def stop(self) -> None:
        """Let `run` give the lease back and end."""
        self._stopping = True
        self._hint()

    def _hint(self) -> None:
        if self._link is not None:
            self._link.hint()

    async def _leave(self, link: FeedLink) -> None:
        self._valid_until = 0.0
        self._watchers.close()
        while (left := self._watchers.leases_end_in()) > 0:
            await self._clock.sleep(left)
        async with asyncio.timeout(self._lease * _PATIENCE):
            await link.deregister(self._replica_id)

    def _note_beat(self, began: float) -> None:
        self.last_beat_at = began
        if self.is_lost:
            self.is_lost = False
            _log.info(log_events.LEASE_GAINED, replica_id=self._replica_id)
        self.has_beaten.set()

    def _note_loss(self, error: Exception) -> None:
        if not self.is_lost:
            self.is_lost = True
            _log.warning(log_events.FEED_LOST, replica_id=self._replica_id, error=str(error) or "no answer in time")
