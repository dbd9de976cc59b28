"""What is in memory of the use of keys until it is written: counters, addresses, single uses; all of it bounded."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from latchgate_server import observability
from latchgate_server.core import bounds
from latchgate_server.core.addresses import canonical_address
from latchgate_server.core.model import DenialReason, Identity, Question, RequestInfo
from latchgate_server.core.record import Record
from latchgate_server.core.redaction import kept, kept_request
from latchgate_server.core.usage import ALLOWED, HOUR
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.core.verification import Verification

KEYS: Final = 100_000
COUNTERS: Final = 500_000
SOURCES: Final = 50_000
USES: Final = 2_000
"""Single uses that wait to be written. Beyond them a key's next one replaces its oldest, and a key without one gets
none: where more than that are made in a second, those that are kept are a sample, and the database is spared."""

DESCRIPTIONS: Final = 8_000_000
"""Characters of descriptions of requests that wait to be written."""

_WRONG_SECRET: Final = int(DenialReason.INVALID_SECRET)
"""The one outcome among those that are counted for a key which is no use of it."""

_UseEvent = tuple[float, int, str, str, RequestInfo | None]
"""Time, outcome, client address, user, description of the request: no more of a question, so as to hold little."""

_NEVER: Final[_UseEvent] = (0.0, ALLOWED, "", "", None)

_Counter = tuple[int, int]
"""Number of the hour since 1970, outcome."""


class Source:
    """The uses from one address. Times in Unix seconds."""

    __slots__ = ("count", "first_time", "last_time")

    def __init__(self, first_time: float, last_time: float, count: int) -> None:
        self.first_time = first_time
        self.last_time = last_time
        self.count = count


class Slot:
    """What was collected about one key, as it came; see UsageBatch for the same, fit to be written.

    Most keys have one outcome in an hour and one address, so these are kept without a dictionary around them.

    hour, outcome, count: of the latest decisions, and how many there were in a row; counts: of those before.
    client_ip, source: the address that was used last; sources: all of them, where there are several.
    loose: characters of the latest use's description, where that use is not among the single ones.
    """

    __slots__ = (
        "client_ip",
        "count",
        "counts",
        "first_time",
        "hour",
        "key_id",
        "last",
        "loose",
        "outcome",
        "source",
        "sources",
        "tenant_id",
        "uses",
    )

    def __init__(self, identity: Identity) -> None:
        self.key_id = identity.key_id
        self.tenant_id = identity.tenant_id
        self.hour = 0
        self.outcome = ALLOWED
        self.count = 0
        self.counts: dict[_Counter, int] | None = None
        self.first_time = 0.0
        self.last = _NEVER
        self.client_ip = ""
        self.source: Source | None = None
        self.sources: dict[str, Source] | None = None
        self.uses: list[_UseEvent] | None = None
        self.loose = 0

    def all_counts(self) -> dict[_Counter, int]:
        """Decisions by hour and outcome."""
        counts = dict(self.counts or {})
        if self.count:
            at = self.hour, self.outcome
            counts[at] = counts.get(at, 0) + self.count
        return counts


class Tallies:
    """The slots of all keys."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}
        self._sealed: dict[str, Slot] = {}
        self._counters = 0
        self._sources = 0
        self._uses = 0
        self._characters = 0
        self._dropped_uses = 0

    def __len__(self) -> int:
        return len(self._slots) + len(self._sealed)

    @property
    def has_sealed(self) -> bool:
        """Whether something waits for `take`."""
        return bool(self._sealed)

    def slot(self, identity: Identity) -> Slot | None:
        """The slot of a key; None where there is no room for another."""
        slot = self._slots.get(identity.key_id)
        if slot is None:
            if len(self) >= KEYS:
                observability.USAGE_DROPPED.labels("counter").inc()
                return None
            slot = self._slots[identity.key_id] = Slot(identity)
        return slot

    def note(self, now: float, verification: Verification, question: Question, record: Record) -> None:
        """Count a decision about a key, and note it where it is a use. now: Unix seconds."""
        slot = self.slot(record.identity)
        if slot is None:
            return
        reason = verification.denial_reason
        outcome = ALLOWED if reason is None else int(reason)
        self.count(slot, int(now // HOUR), outcome, 1)
        if verification.record is not None:
            self.use(slot, now, outcome, verification.user, question)

    def count(self, slot: Slot, hour: int, outcome: int, count: int) -> None:
        """Count decisions, one or more. hour: since 1970."""
        if hour != slot.hour or outcome != slot.outcome:
            counts = slot.counts
            if counts is None or (hour, outcome) not in counts:
                if self._counters >= COUNTERS:
                    observability.USAGE_DROPPED.labels("counter").inc(count)
                    return
                self._counters += 1
            if slot.count:
                slot.counts = slot.all_counts()
            slot.hour, slot.outcome, slot.count = hour, outcome, 0
        slot.count += count

    def use(self, slot: Slot, now: float, outcome: int, user: str, question: Question) -> None:
        """Note a use. now: Unix seconds."""
        client_ip, request = question.client_ip, question.request
        if request is not None:
            request = self._with_room(request)
        last = slot.last = (now, outcome, client_ip, user, request)
        if not slot.first_time:
            slot.first_time = now
        if client_ip:
            self._note_source(slot, client_ip, now, 1)
        uses = slot.uses
        if self._uses >= USES:
            self._dropped_uses += 1
            if uses is None:
                self._characters -= slot.loose
                slot.loose = 0 if request is None else _characters(request)
                return
            self._forget(uses, 1)
        if uses is None:
            uses = slot.uses = []
        uses.append(last)
        self._uses += 1
        if len(uses) >= 2 * bounds.USES_PER_KEY:
            self._forget(uses, bounds.USES_PER_KEY)

    def use_cached(self, slot: Slot, time: float, client_ip: str, user: str, count: int) -> None:
        """Note uses of which only the latest is known. time: Unix seconds."""
        slot.last = (time, ALLOWED, client_ip, user, None)
        if not slot.first_time:
            slot.first_time = time
        if client_ip:
            self._note_source(slot, client_ip, time, count)

    def seal(self) -> None:
        """Let `take` give what was collected up to now, unless something waits for it already.

        So what is taken until nothing waits has no key twice.
        """
        observability.USAGE_DROPPED.labels("use").inc(self._dropped_uses)
        self._dropped_uses = 0
        if not self._sealed:
            self._sealed, self._slots = self._slots, {}

    def take(self, batch: UsageBatch) -> None:
        """Move what was sealed about a key into a batch, fit to be written."""
        _, slot = self._sealed.popitem()
        batch.keys += 1
        self._take_counts(slot, batch)
        self._take_sources(slot, batch)
        self._take_last_use(slot, batch)
        self._characters -= slot.loose
        if slot.uses is not None:
            self._take_uses(slot, slot.uses, batch)

    def _take_counts(self, slot: Slot, batch: UsageBatch) -> None:
        if slot.counts is None:
            if slot.count:
                self._counters -= 1
                batch.count(slot.key_id, slot.tenant_id, slot.hour, slot.outcome, slot.count)
            return
        counts = slot.all_counts()
        self._counters -= len(counts)
        for (hour, outcome), count in counts.items():
            batch.count(slot.key_id, slot.tenant_id, hour, outcome, count)

    def _take_sources(self, slot: Slot, batch: UsageBatch) -> None:
        if slot.sources is not None:
            self._sources -= len(slot.sources)
            for address, each in _kept_sources(slot.sources).items():
                batch.sources.add(slot.key_id, address, each.first_time, each.last_time, each.count)
            return
        source = slot.source
        if source is not None:
            self._sources -= 1
            known = _canonical(slot.client_ip)
            if known is not None:
                batch.sources.add(slot.key_id, known, source.first_time, source.last_time, source.count)

    def _take_last_use(self, slot: Slot, batch: UsageBatch) -> None:
        if not slot.first_time:
            return
        time, _, client_ip, user, request = slot.last
        batch.last_uses.add(
            slot.key_id,
            first_time=slot.first_time,
            last_time=time,
            client_ip=_told_address(client_ip),
            user=user,
            user_agent="" if request is None else kept_request(request).user_agent,
            busy=_busy_hours(slot, int(time // HOUR)),
        )

    def _take_uses(self, slot: Slot, uses: list[_UseEvent], batch: UsageBatch) -> None:
        self._forget(uses, max(0, len(uses) - bounds.USES_PER_KEY))
        for time, outcome, client_ip, user, request in uses:
            batch.uses.add(
                slot.key_id,
                time=time,
                outcome=outcome,
                client_ip=_told_address(client_ip),
                user=user,
                request=kept_request(request),
            )
        self._forget(uses, len(uses))

    def _with_room(self, request: RequestInfo) -> RequestInfo | None:
        if self._characters > DESCRIPTIONS:
            observability.USAGE_DROPPED.labels("description").inc()
            return None
        self._characters += _characters(request)
        return request

    def _forget(self, uses: list[_UseEvent], count: int) -> None:
        """Forget the oldest single uses of a key."""
        if not count:
            return
        for _, _, _, _, request in uses[:count]:
            if request is not None:
                self._characters -= _characters(request)
        del uses[:count]
        self._uses -= count

    def _note_source(self, slot: Slot, client_ip: str, now: float, count: int) -> None:
        source = slot.source
        if source is None or client_ip != slot.client_ip:
            source = self._source(slot, client_ip, now)
            if source is None:
                return
            slot.client_ip, slot.source = client_ip, source
        source.last_time = now
        source.count += count

    def _source(self, slot: Slot, client_ip: str, now: float) -> Source | None:
        """The uses of a key from another address than its latest one; None where there is no room for it."""
        if slot.sources is None and slot.source is not None:
            slot.sources = {slot.client_ip: slot.source}
        sources = slot.sources
        if sources is not None:
            if client_ip in sources:
                return sources[client_ip]
            if len(sources) >= bounds.SOURCES_PER_KEY:
                # The one used longest ago: no more than these are kept in the database either.
                del sources[min(sources, key=lambda address: sources[address].last_time)]
                self._sources -= 1
        if self._sources >= SOURCES:
            observability.USAGE_DROPPED.labels("source").inc()
            return None
        self._sources += 1
        source = Source(now, now, 0)
        if sources is not None:
            sources[client_ip] = source
        return source


def _characters(request: RequestInfo) -> int:
    return len(request.method) + len(request.host) + len(request.path) + len(request.user_agent)


def _busy_hours(slot: Slot, last_hour: int) -> tuple[int, int, int]:
    """The latest hour with a use, and how many uses there were in it and in the one before.

    last_hour: that of the latest use, which may not have been counted for want of room.
    """
    if slot.counts is None and slot.count and slot.outcome != _WRONG_SECRET:
        return slot.hour, slot.count, 0
    uses = {last_hour: 0}
    for (hour, outcome), count in slot.all_counts().items():
        if outcome != _WRONG_SECRET:
            uses[hour] = uses.get(hour, 0) + count
    latest = max(uses)
    return latest, max(1, uses[latest]), uses.get(latest - 1, 0)


def _kept_sources(sources: dict[str, Source]) -> dict[str, Source]:
    """By the address in its one form; what is no address is nowhere that a key was used from."""
    known: dict[str, Source] = {}
    for text, source in sources.items():
        address = _canonical(text)
        if address is None:
            continue
        same = known.setdefault(address, source)
        if same is not source:
            same.first_time = min(same.first_time, source.first_time)
            same.last_time = max(same.last_time, source.last_time)
            same.count += source.count
    return known


@lru_cache(maxsize=8_192)
def _canonical(text: str) -> str | None:
    return canonical_address(text)


def _told_address(text: str) -> str:
    return _canonical(text) or (text and kept(text, bounds.CLIENT_ADDRESS_LENGTH))
