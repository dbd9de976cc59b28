"""What is in memory of the use of keys until it is written: counters, addresses, single uses; all of it bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from latchgate_server import observability
from latchgate_server.core import bounds
from latchgate_server.core.addresses import canonical_address
from latchgate_server.core.model import Identity, Question, RequestInfo
from latchgate_server.core.redaction import kept, kept_request
from latchgate_server.core.usage import ALLOWED, KeyTally, Source, Use

KEYS = 100_000
COUNTERS = 500_000
SOURCES = 50_000
USES = 2_000
"""Single uses that wait to be written. Beyond them a key's next one replaces its oldest, and a key without one gets
none: where more than that are made in a second, those that are kept are a sample, and the database is spared."""

DESCRIPTIONS = 8_000_000
"""Characters of descriptions of requests that wait to be written."""

_UseEvent = tuple[float, int, str, str, RequestInfo | None]
"""Time, outcome, client address, user, description of the request: no more of a question, so as to hold little."""


@dataclass(slots=True)
class Slot:
    """What was collected about one key, as it came; see KeyTally for the same, fit to be written."""

    key_id: str
    tenant_id: str
    counts: dict[tuple[int, int], int] = field(default_factory=dict)
    first_time: float = 0.0
    last: _UseEvent | None = None
    sources: dict[str, Source] = field(default_factory=dict)
    uses: list[_UseEvent] = field(default_factory=list)
    loose: int = 0
    """Characters of the latest use's description, where that use is not among the single ones."""


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
            slot = self._slots[identity.key_id] = Slot(identity.key_id, identity.tenant_id)
        return slot

    def count(self, slot: Slot, hour: int, outcome: int, count: int) -> None:
        """Count decisions."""
        at = (hour, outcome)
        before = slot.counts.get(at)
        if before is not None:
            slot.counts[at] = before + count
        elif self._counters < COUNTERS:
            self._counters += 1
            slot.counts[at] = count
        else:
            observability.USAGE_DROPPED.labels("counter").inc(count)

    def use(self, slot: Slot, now: float, outcome: int, user: str, question: Question) -> None:
        """Note a use. now: Unix seconds."""
        client_ip, request = question.client_ip, question.request
        if request is not None:
            request = self._with_room(request)
        slot.last = (now, outcome, client_ip, user, request)
        if not slot.first_time:
            slot.first_time = now
        if client_ip:
            self._note_source(slot, client_ip, now, 1)
        uses = slot.uses
        if self._uses >= USES:
            self._dropped_uses += 1
            if not uses:
                self._characters -= slot.loose
                slot.loose = sum(map(len, request or ()))
                return
            self._forget(slot, 1)
        uses.append(slot.last)
        self._uses += 1
        if len(uses) >= 2 * bounds.USES_PER_KEY:
            self._forget(slot, bounds.USES_PER_KEY)

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

    def take(self) -> KeyTally:
        """Remove a slot that was sealed, and return it fit to be written."""
        _, slot = self._sealed.popitem()
        self._counters -= len(slot.counts)
        self._sources -= len(slot.sources)
        self._characters -= slot.loose
        self._forget(slot, max(0, len(slot.uses) - bounds.USES_PER_KEY))
        uses = [_kept_use(event) for event in slot.uses]
        last = None if slot.last is None else _kept_use(slot.last)
        self._forget(slot, len(slot.uses))
        return KeyTally(
            slot.key_id, slot.tenant_id, slot.counts, slot.first_time, last, _kept_sources(slot.sources), uses
        )

    def _with_room(self, request: RequestInfo) -> RequestInfo | None:
        if self._characters > DESCRIPTIONS:
            observability.USAGE_DROPPED.labels("description").inc()
            return None
        self._characters += sum(map(len, request))
        return request

    def _forget(self, slot: Slot, count: int) -> None:
        """Forget the oldest single uses."""
        if not count:
            return
        for _, _, _, _, request in slot.uses[:count]:
            if request is not None:
                self._characters -= sum(map(len, request))
        del slot.uses[:count]
        self._uses -= count

    def _note_source(self, slot: Slot, client_ip: str, now: float, count: int) -> None:
        source = slot.sources.get(client_ip)
        if source is not None:
            source.last_time = now
            source.count += count
            return
        if len(slot.sources) >= bounds.SOURCES_PER_KEY:
            # The one used longest ago: no more than these are kept in the database either.
            del slot.sources[min(slot.sources, key=lambda address: slot.sources[address].last_time)]
            self._sources -= 1
        if self._sources >= SOURCES:
            observability.USAGE_DROPPED.labels("source").inc()
            return
        self._sources += 1
        slot.sources[client_ip] = Source(now, now, count)


def _kept_use(event: _UseEvent) -> Use:
    now, outcome, client_ip, user, request = event
    return Use(now, outcome, _told_address(client_ip), user, *kept_request(request))


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
    return _canonical(text) or kept(text, bounds.CLIENT_ADDRESS_LENGTH)
