"""Collects what keys are used for, and has it written once a second.

A verification is counted where it is decided, by a few additions; whoever else wants to know of it is told later, a
stretch of them at a time. What was counted is written in batches; one that the database does not take is tried again as
it is, so that nothing is lost and nothing counted twice. Memory is bounded: where the database stays away, single
uses and addresses are given up first, counters last, and a metric counts both.

Only who has proven a key's secret leaves more than a count behind. Keys that do not exist leave nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

import structlog

from latchgate_server import log_events, observability
from latchgate_server.core import bounds
from latchgate_server.core.errors import CannotDecide
from latchgate_server.core.model import DenialReason, Identity, Question
from latchgate_server.core.ports import Clock
from latchgate_server.core.record import Record
from latchgate_server.core.usage import ALLOWED, HOUR, Event, UsageWriter, Written
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.core.verification import Verification
from latchgate_server.verify.tally import Tallies

STRETCH: Final = 64
"""How many verifications others are told of, and about how many uses are made fit to be written, in one go: so few that
it takes less than a millisecond."""

FLUSH_SECONDS: Final = 1.0
CLOSE_SECONDS: Final = 5.0
BATCH_KEYS: Final = 2_000
BATCH_USES: Final = 2_000
_TRIMS_NOTED: Final = 100_000

_log = structlog.get_logger()


class Observer(Protocol):
    """Whoever else wants to know of every decision."""

    def note(self, events: Sequence[Event]) -> None:
        """Take a stretch of events; must be quick."""
        ...


class Notices(Observer, Protocol):
    """Whoever tells of what stands out. Of allowed decisions it may hear or not."""

    def note_written(self, written: Written) -> None:
        """Take what writing brought to light."""
        ...


class UsageCollector:
    """Collects and flushes."""

    def __init__(self, writer: UsageWriter, clock: Clock, notices: Notices, observers: Sequence[Observer] = ()) -> None:
        self._writer = writer
        self._clock = clock
        self._now = clock.now
        self._notices = notices
        self._observers = (notices, *observers)
        self._tells_all = bool(observers)
        self._events: list[Event] = []
        self._tallies = Tallies()
        self._sequence = 0
        self._batch: UsageBatch | None = None
        self._written_until = clock.now()
        self._is_delayed = False
        self._uses_written: dict[str, int] = {}
        self._flushing = asyncio.Lock()

    def record(self, verification: Verification, question: Question, record: Record | None) -> None:
        """Note a decision. record: of the key that was asked for, None where there is none."""
        now = self._now()
        if record is not None:
            self._tallies.note(now, verification, question, record)
        if self._tells_all or verification.denial_reason is not None:
            self._events.append((now, verification, question, record))
            if len(self._events) >= STRETCH:
                self._tell()

    def record_cached(
        self, identity: Identity, time: float, client_ip: str, allowed: int, denied: Mapping[DenialReason, int]
    ) -> None:
        """Note what a client decided from its own cache about a key whose secret it knows to be proven.

        time: of the latest of these uses, Unix seconds; client_ip: of the same, empty where it is not known.
        """
        slot = self._tallies.slot(identity)
        if slot is None:
            return
        total = 0
        for outcome, count in [(ALLOWED, allowed), *((int(reason), count) for reason, count in denied.items())]:
            if count > 0:
                self._tallies.count(slot, int(time // HOUR), outcome, count)
                total += count
        if total:
            self._tallies.use_cached(slot, time, client_ip, identity.user, total)

    def _tell(self) -> None:
        events, self._events = self._events, []
        for observer in self._observers:
            observer.note(events)

    # Writing --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush for as long as the process lives."""
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            await self.flush()

    async def close(self) -> None:
        """Write what is left, for as long as that takes but no longer than CLOSE_SECONDS; then leave."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                while not await self.flush():
                    await self._clock.sleep(0.1)
                await self._writer.leave()
        except (TimeoutError, CannotDecide):
            untold = 0 if self._batch is None else self._batch.keys
            _log.error(log_events.USAGE_LOST, keys=untold + len(self._tallies))

    async def flush(self) -> bool:
        """Write what was collected before this call. False where the database did not take all of it."""
        async with self._flushing:
            began = self._clock.now()
            self._tell()
            # First what an earlier flush has left, if any, and only then what came since.
            rounds = 2 if self._batch or self._tallies.has_sealed else 1
            for _ in range(rounds):
                self._tallies.seal()
                if not await self._write_sealed():
                    observability.USAGE_LAG.set(self._clock.now() - self._written_until)
                    return False
            self._written_until = began
            observability.USAGE_LAG.set(0)
            return True

    async def _write_sealed(self) -> bool:
        while self._batch is not None or self._tallies.has_sealed:
            if self._batch is None:
                self._sequence += 1
                self._batch = await self._next_batch()
            if not await self._write(self._batch):
                return False
            self._batch = None
        return True

    async def _next_batch(self) -> UsageBatch:
        batch = UsageBatch()
        before = 0
        while self._tallies.has_sealed and batch.keys < BATCH_KEYS and len(batch.uses.key_ids) < BATCH_USES:
            self._tallies.take(batch)
            done = batch.keys + len(batch.uses.key_ids)
            if done - before > STRETCH:
                before = done
                await asyncio.sleep(0)  # verifications want their turn
        return batch

    async def _write(self, batch: UsageBatch) -> bool:
        """Write a batch, or give it up where it can never be written. False where it has to be tried again."""
        try:
            written = await self._writer.write(self._sequence, batch)
        except CannotDecide as error:
            if not self._is_delayed:
                self._is_delayed = True
                _log.warning(log_events.USAGE_DELAYED, error=str(error))
            return False
        except Exception as error:  # noqa: BLE001 - a batch that can never be written must not hold up all others
            _log.error(log_events.INTERNAL_ERROR, task="usage", exc_info=error)
            observability.USAGE_DROPPED.labels("batch").inc(batch.keys)
            return True
        if self._is_delayed:
            self._is_delayed = False
            _log.info(log_events.USAGE_CAUGHT_UP)
        self._notices.note_written(written)
        await self._trim(batch, written)
        return True

    async def _trim(self, batch: UsageBatch, written: Written) -> None:
        """Have what is beyond the latest removed, of those keys of which there may be something."""
        noted = self._uses_written
        for key_id in batch.uses.key_ids:
            noted[key_id] = noted.get(key_id, 0) + 1
        full = [key_id for key_id in dict.fromkeys(batch.uses.key_ids) if noted[key_id] >= bounds.USES_PER_KEY]
        sources_of = sorted({source.key_id for source in written.new_sources})
        if not full and not sources_of:
            return
        try:
            await self._writer.trim(sources_of, full)
        except CannotDecide:
            return  # the next time, then
        for key_id in full:
            noted.pop(key_id, None)
        for key_id in list(islice(noted, max(0, len(noted) - _TRIMS_NOTED))):
            del noted[key_id]
