"""What clients answered from their own caches, on its way into the account of usage.

A client names keys by their ids, so each is looked up, in memory or else in the database, behind a bounded queue: where
that is full, reports are given up, and a metric counts them. A report counts only for a key that exists and that the
client may know of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from latchgate_server import log_events, observability
from latchgate_server.core import bounds
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.model import DenialReason, Identity
from latchgate_server.core.ports import Clock
from latchgate_server.verify.cache import Entry
from latchgate_server.verify.loader import LoadedEntry

_OLDEST_SECONDS = 3_600.0
"""How far back a client's clock may say that a use was: reports come within a second or two."""
_AT_ONCE = 100
CLOSE_SECONDS = 2.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CachedUse:
    """Uses of one key. time: of the latest, Unix seconds, on the client's clock. client_ip: of the same, or empty."""

    key_id: str
    allowed: int
    denied: Mapping[DenialReason, int]
    time: float
    client_ip: str


class Remembers(Protocol):
    """Where records are in memory."""

    def get(self, key_id: str) -> Entry | None:
        """What is known of the key, or None where it must be loaded."""
        ...


class Loads(Protocol):
    """Where records are read from."""

    async def load(self, key_id: str) -> LoadedEntry:
        """What the database holds for the key id. Raises CannotDecide."""
        ...


class RecordsCachedUsage(Protocol):
    """Whoever keeps account of uses."""

    def record_cached(
        self, identity: Identity, time: float, client_ip: str, allowed: int, denied: Mapping[DenialReason, int]
    ) -> None:
        """Note uses of a key. time: Unix seconds."""
        ...


class CachedUses:
    """Takes reports, and has them counted."""

    def __init__(self, cache: Remembers, loader: Loads, usage: RecordsCachedUsage, clock: Clock) -> None:
        self._cache = cache
        self._loader = loader
        self._usage = usage
        self._clock = clock
        self._waiting: deque[tuple[CachedUse, str | None]] = deque()
        self._came = asyncio.Event()

    def report(self, uses: Sequence[CachedUse], only_tenant: str | None) -> None:
        """Take what a client reports. only_tenant: the one whose keys it may know of; None: all."""
        room = bounds.CACHED_USES_WAITING - len(self._waiting)
        if len(uses) > room:
            observability.USAGE_DROPPED.labels("cached").inc(len(uses) - room)
        self._waiting.extend((use, only_tenant) for use in uses[:room])
        if self._waiting:
            self._came.set()

    async def run(self) -> None:
        """Count for as long as the process lives."""
        while True:
            await self._came.wait()
            self._came.clear()
            await self._count_all()

    async def close(self) -> None:
        """Count what is left, for as long as that takes but no longer than CLOSE_SECONDS."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._count_all()
        except TimeoutError:
            _log.error(log_events.USAGE_LOST, keys=len(self._waiting))

    async def _count_all(self) -> None:
        while self._waiting:
            some = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
            # All of them ask the loader before it sends its next query, so that one query answers for all.
            await asyncio.gather(*(self._count(use, only_tenant) for use, only_tenant in some))

    async def _count(self, use: CachedUse, only_tenant: str | None) -> None:
        entry = self._cache.get(use.key_id)
        if entry is None:
            try:
                entry = (await self._loader.load(use.key_id)).entry
            except CannotDecide:
                observability.USAGE_DROPPED.labels("cached").inc()
                return
        if entry.record is None:
            return
        identity = entry.record.identity
        if identity.key_id != use.key_id or only_tenant not in (None, identity.tenant_id):
            return
        now = self._clock.now()
        time = min(max(use.time, now - _OLDEST_SECONDS), now)
        self._usage.record_cached(identity, time, use.client_ip, use.allowed, use.denied)
        observability.count_client_decisions(use.allowed, use.denied)
