"""Collecting usage: whatever the database does, what is written is what was decided, once; and memory is bounded."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from latchgate_server.core import bounds
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.model import DenialReason, Question, RequestInfo
from latchgate_server.core.record import Record
from latchgate_server.core.usage import HOUR, Written
from latchgate_server.core.usage_batch import UsageBatch
from latchgate_server.core.verification import Verification
from latchgate_server.storage.usage_columns import Columns, UsageColumns
from latchgate_server.verify import tally as tallying
from latchgate_server.verify.noticing import LINES, PERIOD_SECONDS, Noticing
from latchgate_server.verify.tally import Tallies
from latchgate_server.verify.usage import UsageCollector
from tests.support.still_clock import StillClock
from tests.support.tallies import counts_of, last_uses_of, record_of, sources_of, taken


@dataclass
class Ledger:
    """A writer that fails as it is told, before or after it has written, and takes each sequence once."""

    failures: list[str] = field(default_factory=list)
    counts: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    last: dict[str, float] = field(default_factory=dict)
    sequence: int = 0
    seen: dict[int, list[Columns]] = field(default_factory=dict)
    left: bool = False

    async def write(self, sequence: int, batch: UsageBatch) -> Written:
        failure = self.failures.pop(0) if self.failures else ""
        await asyncio.sleep(0)
        told = UsageColumns(batch)
        rows = [told.key_counts(), told.last_uses(), told.sources(), told.uses(), told.tenant_counts()]
        assert self.seen.setdefault(sequence, rows) == rows, "a batch is repeated as it was"
        if failure == "before":
            raise StoreUnavailable("away")
        for of_rows in (
            [row[:3] for row in counts_of(batch)],
            [row[:2] for row in sources_of(batch)],
            [row.key_id for row in last_uses_of(batch)],
        ):
            assert len(set(of_rows)) == len(of_rows), "no row may be written twice in one statement"
        assert batch.keys == len({key_id for key_id, _, _, _ in counts_of(batch)})
        if sequence > self.sequence:
            self.sequence = sequence
            self._apply(batch)
        if failure == "after":
            raise StoreUnavailable("away")
        return Written()

    def _apply(self, batch: UsageBatch) -> None:
        rows = counts_of(batch)
        self.counts.update({(key_id, hour, outcome): count for key_id, hour, outcome, count in rows})
        self.sources.update({(key_id, address): count for key_id, address, count in sources_of(batch)})
        assert sum(batch.tenant_counts.counts) == sum(count for _, _, _, count in rows)
        for last in last_uses_of(batch):
            assert last.first_time <= last.last_time
            self.last[last.key_id] = last.last_time

    async def trim(self, sources_of: Sequence[str], uses_of: Sequence[str]) -> None:
        pass

    async def leave(self) -> None:
        self.left = True


RECORDS = [record_of(f"key_{number}") for number in range(4)]
OUTCOMES = [None, DenialReason.INVALID_SECRET, DenialReason.API_KEY_DISABLED, DenialReason.INSUFFICIENT_PERMISSIONS]

decisions = st.tuples(
    st.just("decide"),
    st.sampled_from(RECORDS),
    st.sampled_from(OUTCOMES),
    st.sampled_from(["", "198.51.100.1", "::ffff:198.51.100.1", "2001:db8::1", "nowhere"]),
    st.integers(1, 300),
)
steps = st.one_of(
    decisions,
    st.tuples(st.just("flush")),
    st.tuples(st.just("pass"), st.floats(0.1, 4_000)),
    st.tuples(st.just("fail"), st.sampled_from(["before", "after"])),
)


def decide(collector: UsageCollector, record: Record, reason: DenialReason | None, client_ip: str) -> None:
    proven = reason is not DenialReason.INVALID_SECRET
    verification = Verification(reason, record if proven else None, "ann" if proven else "")
    collector.record(verification, Question(client_ip=client_ip), record)


@given(st.lists(steps, max_size=30))
def test_what_is_written_is_what_was_decided_however_often_the_database_fails(script: list[tuple[object, ...]]) -> None:
    asyncio.run(_run(script))


async def _run(script: list[tuple[object, ...]]) -> None:
    clock, ledger = StillClock(), Ledger()
    collector = UsageCollector(ledger, clock, Noticing(clock))
    counts: Counter[tuple[str, int, int]] = Counter()
    sources: Counter[tuple[str, str]] = Counter()
    for step in script:
        match step:
            case ("decide", Record() as record, reason, str(client_ip), int(times)):
                assert reason is None or isinstance(reason, DenialReason)
                key_id = record.identity.key_id
                for _ in range(times):
                    decide(collector, record, reason, client_ip)
                counts[key_id, int(clock.time // HOUR), int(reason or 0)] += times
                if reason is not DenialReason.INVALID_SECRET and client_ip not in {"", "nowhere"}:
                    sources[key_id, client_ip.removeprefix("::ffff:")] += times
            case ("flush",):
                await collector.flush()
            case ("pass", float(seconds)):
                clock.time += seconds
            case ("fail", str(how)):
                ledger.failures.append(how)
    await collector.close()
    assert ledger.left
    assert ledger.counts == counts
    assert ledger.sources == sources


async def test_decisions_while_a_batch_is_being_written_are_neither_lost_nor_counted_twice() -> None:
    clock, ledger = StillClock(), Ledger()
    collector = UsageCollector(ledger, clock, Noticing(clock))
    decide(collector, RECORDS[0], None, "")
    flushing = asyncio.create_task(collector.flush())
    await asyncio.sleep(0)
    decide(collector, RECORDS[0], None, "")
    assert await flushing
    assert await collector.flush()
    assert sum(ledger.counts.values()) == 2


async def test_a_batch_that_can_never_be_written_does_not_hold_up_the_next() -> None:
    class Picky(Ledger):
        async def write(self, sequence: int, batch: UsageBatch) -> Written:
            if sequence == 1:
                raise ValueError("no such column")
            return await super().write(sequence, batch)

    clock, ledger = StillClock(), Picky()
    collector = UsageCollector(ledger, clock, Noticing(clock))
    decide(collector, RECORDS[0], None, "")
    await collector.flush()
    decide(collector, RECORDS[1], None, "")
    assert await collector.flush()
    assert {key_id for key_id, _, _ in ledger.counts} == {"key_1"}


def test_a_hot_key_keeps_its_latest_uses_alone() -> None:
    tallies = Tallies()
    slot = tallies.slot(RECORDS[0].identity)
    assert slot is not None
    for number in range(5_000):
        tallies.use(slot, number, 0, "ann", Question(request=RequestInfo("GET", "h", f"/{number}", "agent")))
    assert slot.uses is not None
    assert len(slot.uses) < 2 * bounds.USES_PER_KEY
    paths = [request.path for request in taken(tallies).uses.requests]
    assert paths == [f"/{number}" for number in range(4_900, 5_000)]


def test_addresses_of_a_key_in_memory_are_the_most_recent_ones() -> None:
    tallies = Tallies()
    slot = tallies.slot(RECORDS[0].identity)
    assert slot is not None
    for number in range(200):
        tallies.use(slot, number, 0, "", Question(client_ip=f"10.0.0.{number}"))
    assert set(taken(tallies).sources.client_ips) == {f"10.0.0.{number}" for number in range(150, 200)}


def test_memory_is_bounded_and_counters_are_given_up_last() -> None:
    tallies = Tallies()
    info = RequestInfo("GET", "host", "p" * bounds.REQUEST_INFO_LENGTH, "a" * bounds.REQUEST_INFO_LENGTH)
    for number in range(20_000):
        slot = tallies.slot(RECORDS[number % 4].identity if number % 2 else record_of(f"key_{number}").identity)
        assert slot is not None
        tallies.count(slot, 1, 0, 1)
        tallies.use(slot, number, 0, "ann", Question(client_ip=f"10.{number % 250}.{number // 250}.1", request=info))
    assert tallies._characters <= tallying.DESCRIPTIONS + 5_000
    assert tallies._uses <= tallying.USES
    assert sum(count for _, _, _, count in counts_of(taken(tallies))) == 20_000
    assert (tallies._uses, tallies._characters, tallies._sources, tallies._counters) == (0, 0, 0, 0)


def test_a_use_that_there_was_no_room_to_count_is_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tallying, "COUNTERS", 0)
    tallies = Tallies()
    for hour in (7, 8):
        tallies.note(hour * HOUR, Verification(None, RECORDS[0], "ann"), Question(), RECORDS[0])
    batch = taken(tallies)
    assert counts_of(batch) == [("key_0", 7, 0, 1)]
    assert last_uses_of(batch) == [("key_0", 7 * HOUR, 8 * HOUR, (8, 1, 1))]


def test_failed_authentications_are_told_by_kind_once_in_a_while_and_by_no_more_lines_than_a_person_reads() -> None:
    clock = StillClock()
    noticing = Noticing(clock)

    def fail(client_ip: str, times: int) -> None:
        refused = Verification(DenialReason.INVALID_SECRET, None, "")
        noticing.note([(0.0, refused, Question(client_ip=client_ip), RECORDS[0])] * times)

    with capture_logs() as log:
        fail("203.0.113.9", 5)
        for number in range(2 * LINES):
            fail(f"198.51.100.{number}", 1)
        clock.time += PERIOD_SECONDS
        fail("203.0.113.9", 1)
    failed = [line for line in log if line["event"] == "authentication_failed"]
    assert (failed[0]["denial_reason"], failed[0]["key_id"]) == ("INVALID_SECRET", RECORDS[0].identity.key_id)
    assert (failed[0]["client_ip"], failed[0]["count"]) == ("203.0.113.9", 6)
    assert len(failed) == LINES
    (rest,) = [line for line in log if line["event"] == "events_suppressed"]
    assert (rest["of"], rest["count"]) == ("authentication_failed", LINES + 1)
