"""What is in memory of the use of keys until it is written: counters, addresses, single uses; all of it bounded."""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

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
"""Of keys with several: each has room for one counter and one address anyway."""

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


class _Source(NamedTuple):
    """The uses from one address. Times in Unix seconds."""

    first_time: float
    last_time: float
    uses: int


class Slot:
    """What was collected about one key, as it came; see UsageBatch for the same, fit to be written.

    Most keys have one outcome in an hour and one address: of what is the same as the time before, only the number
    grows. What was different before goes into dictionaries, and comes back from there.

    hour, outcome, count: of the latest decisions; counts: of the others.
    first_time: of the first use, 0.0 where there is none. last: the latest one.
    client_ip, since, uses_there: the address of the latest use, when it was used first, and how often; sources: the
    others. No address is in both.
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
        "since",
        "sources",
        "tenant_id",
        "uses",
        "uses_there",
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
        self.since = 0.0
        self.uses_there = 0
        self.sources: dict[str, _Source] | None = None
        self.uses: list[_UseEvent] | None = None
        self.loose = 0

    def all_counts(self) -> dict[_Counter, int]:
        """Decisions by hour and outcome."""
        latest = {(self.hour, self.outcome): self.count} if self.count else {}
        return {**(self.counts or {}), **latest}

    def all_sources(self) -> dict[str, _Source]:
        """Uses by address, in its one form; what is no address is nowhere that a key was used from."""
        told = dict(self.sources or {})
        if self.client_ip:
            told[self.client_ip] = self.latest_source()
        known: dict[str, _Source] = {}
        for text, source in told.items():
            address = _canonical(text)
            if address is not None:
                same = known.get(address)
                known[address] = source if same is None else _together(source, same)
        return known

    def latest_source(self) -> _Source:
        """The uses from the address of the latest one."""
        return _Source(self.since, self.last[0], self.uses_there)


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
        if (hour != slot.hour or outcome != slot.outcome) and not self._turn_to(slot, hour, outcome):
            observability.USAGE_DROPPED.labels("counter").inc(count)
            return
        slot.count += count

    def _turn_to(self, slot: Slot, hour: int, outcome: int) -> bool:
        """Count others than the latest decisions. False where there is no room to keep those apart."""
        counts = slot.counts
        known = 0 if counts is None else counts.pop((hour, outcome), 0)
        if known:
            self._counters -= 1
        if slot.count:
            if self._counters >= COUNTERS:
                return False
            self._counters += 1
            if counts is None:
                counts = slot.counts = {}
            counts[slot.hour, slot.outcome] = slot.count
        slot.hour, slot.outcome, slot.count = hour, outcome, known
        return True

    def use(self, slot: Slot, now: float, outcome: int, user: str, question: Question) -> None:
        """Note a use. now: Unix seconds."""
        client_ip, request = question.client_ip, question.request
        if request is not None:
            request = self._with_room(request)
        self._note_source(slot, client_ip, now, 1)
        last = slot.last = (now, outcome, client_ip, user, request)
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
        self._note_source(slot, client_ip, time, count)
        slot.last = (time, ALLOWED, client_ip, user, None)

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
        if not _take_plain(slot, batch):
            for (hour, outcome), count in slot.all_counts().items():
                batch.count(slot.key_id, slot.tenant_id, hour, outcome, count)
            if slot.first_time:
                _take_uses(slot, batch)
        self._counters -= len(slot.counts or ())
        self._sources -= len(slot.sources or ())
        self._characters -= slot.loose
        if slot.uses is not None:
            self._take_single_uses(slot, slot.uses, batch)

    def _take_single_uses(self, slot: Slot, uses: list[_UseEvent], batch: UsageBatch) -> None:
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
        """Note where uses came from, before they are the latest ones."""
        if not slot.first_time:
            slot.first_time = slot.since = now
            slot.client_ip = client_ip
        elif client_ip != slot.client_ip:
            self._move_to(slot, client_ip, now)
        slot.uses_there += count

    def _move_to(self, slot: Slot, client_ip: str, now: float) -> None:
        """Note that uses come from another address than the latest one."""
        before = slot.client_ip
        latest = slot.latest_source()
        known = None if slot.sources is None else slot.sources.pop(client_ip, None)
        if known is None:
            known = _Source(now, now, 0)
        else:
            self._sources -= 1
        if before:
            self._keep_source(slot, before, latest)
        slot.client_ip, slot.since, slot.uses_there = client_ip, known.first_time, known.uses

    def _keep_source(self, slot: Slot, client_ip: str, source: _Source) -> None:
        """Keep the uses from an address beside those from the latest one, as long as there is room."""
        sources = slot.sources
        if sources is None:
            sources = slot.sources = {}
        elif len(sources) >= bounds.SOURCES_PER_KEY - 1:
            # The one used longest ago: no more than these are kept in the database either.
            del sources[min(sources, key=lambda address: sources[address].last_time)]
            self._sources -= 1
        if self._sources >= SOURCES:
            observability.USAGE_DROPPED.labels("source").inc()
            return
        self._sources += 1
        sources[client_ip] = source


def _take_plain(slot: Slot, batch: UsageBatch) -> bool:
    """Take what is to be told of a key in one row of each table, uses one by one aside. False where that is not all."""
    if slot.counts is not None or slot.sources is not None:
        return False
    # Where a decision was no use, or uses came from elsewhere, these are not the same.
    if slot.uses_there != slot.count or slot.outcome == _WRONG_SECRET:
        return False
    time, _, client_ip, user, request = slot.last
    address = _canonical(client_ip) if client_ip else ""
    if address is None:
        return False
    agent = _user_agent(request)
    batch.plain.add(slot.key_id, slot.hour, slot.outcome, slot.count, slot.first_time, time, address, user, agent)
    batch.count_for_tenant(slot.tenant_id, slot.hour, slot.outcome, slot.count)
    return True


def _take_uses(slot: Slot, batch: UsageBatch) -> None:
    for address, source in slot.all_sources().items():
        batch.sources.add(slot.key_id, address, source.first_time, source.last_time, source.uses)
    time, _, client_ip, user, request = slot.last
    batch.last_uses.add(
        slot.key_id,
        first_time=slot.first_time,
        last_time=time,
        client_ip=_told_address(client_ip),
        user=user,
        user_agent=_user_agent(request),
        busy=_busy_hours(slot, int(time // HOUR)),
    )


def _user_agent(request: RequestInfo | None) -> str:
    return "" if request is None else kept_request(request).user_agent


def _characters(request: RequestInfo) -> int:
    return len(request.method) + len(request.host) + len(request.path) + len(request.user_agent)


def _busy_hours(slot: Slot, last_hour: int) -> tuple[int, int, int]:
    """The latest hour with a use, and how many uses there were in it and in the one before.

    last_hour: that of the latest use, which may not have been counted for want of room.
    """
    uses = {last_hour: 0}
    for (hour, outcome), count in slot.all_counts().items():
        if outcome != _WRONG_SECRET:
            uses[hour] = uses.get(hour, 0) + count
    latest = max(uses)
    return latest, max(1, uses[latest]), uses.get(latest - 1, 0)


def _together(one: _Source, other: _Source) -> _Source:
    return _Source(min(one.first_time, other.first_time), max(one.last_time, other.last_time), one.uses + other.uses)


@lru_cache(maxsize=8_192)
def _canonical(text: str) -> str | None:
    return canonical_address(text)


def _told_address(text: str) -> str:
    return _canonical(text) or (text and kept(text, bounds.CLIENT_ADDRESS_LENGTH))
