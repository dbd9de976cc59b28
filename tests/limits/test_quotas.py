"""Quotas across processes: portions borrowed from the real ledger, in any order, with crashes and changes between."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latchgate_server.core.charging import HeldQuota, Holder, Limits, Reset
from latchgate_server.core.errors import StoreUnavailable
from latchgate_server.core.limit_stores import Portion, PortionWanted, Unspent
from latchgate_server.core.model import DenialReason, Quota, QuotaPeriod
from latchgate_server.storage.pool import create_pool
from latchgate_server.storage.quota_ledger import PostgresQuotaLedger
from latchgate_server.verify.limits import LimitCharger
from latchgate_server.verify.quotas import Borrowed, Quotas
from latchgate_server.verify.rates import LocalRates
from tests.support.still_clock import StillClock

_names = itertools.count(1)


class Process:
    """What one process holds of quotas."""

    def __init__(self, ledger: PostgresQuotaLedger, clock: StillClock) -> None:
        self._clock = clock
        self.quotas = Quotas(ledger, clock)
        self._charger = LimitCharger(LocalRates(clock), None, self.quotas, clock, processes=lambda: 1)

    def take(self, quota: HeldQuota, cost: int) -> Sequence[Borrowed]:
        """Take from what is held, as a decision does that asks further limits after it."""
        now = self._clock.time
        held = self.quotas.known([quota], cost, now)
        assert held is not None, "it was used a moment ago"
        self.quotas.take(held, cost, now)
        return held

    async def call(self, quota: HeldQuota, cost: int = 1) -> bool:
        """Whether a call of that cost is let through."""
        charge = await self._charger.charge(Limits(quotas=(quota,)), cost)
        assert charge.denial_reason in (None, DenialReason.QUOTA_EXCEEDED)
        return charge.denial_reason is None


def quota_of(
    limit: int, name: str = "", reset: Reset | None = None, period: QuotaPeriod = QuotaPeriod.LIFETIME
) -> HeldQuota:
    quota = Quota(name or f"quota-{next(_names)}", limit, period)
    return HeldQuota(Holder.KEY, "lg_lineage", "acme", quota, reset or Reset(0, 0, 0.0))


@pytest.fixture(scope="module")
async def pool(module_database: str) -> AsyncIterator[asyncpg.Pool]:
    opened = await create_pool(module_database, 30.0, 4)
    yield opened
    await opened.close()


@pytest.fixture
def ledger(pool: asyncpg.Pool) -> PostgresQuotaLedger:
    return PostgresQuotaLedger(pool)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


async def granted(pool: asyncpg.Pool, quota: HeldQuota) -> int:
    """What the ledger counts as spent or lent."""
    return int(
        await pool.fetchval("SELECT coalesce(sum(granted), 0) FROM quota_grants WHERE bucket = $1", quota.bucket)
    )


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.integers(0, 2), st.integers(1, 9)),
        st.tuples(st.just("burst"), st.integers(0, 2), st.integers(2, 12)),
        st.tuples(st.just("wait"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("idle"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("limit"), st.just(0), st.integers(0, 60)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(limit=st.integers(0, 60), steps=STEPS)
async def test_the_sum_that_is_granted_never_exceeds_the_quota_and_what_is_lost_was_lent(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger, limit: int, steps: list[tuple[str, int, int]]
) -> None:
    clock = StillClock()
    processes = [Process(ledger, clock) for _ in range(3)]
    quota, used, crashed = quota_of(limit), 0, False
    for step, which, number in steps:
        match step:
            case "call":
                allowed = await processes[which].call(quota, number)
                used += number if allowed else 0
                assert not allowed or used <= quota.quota.limit
            case "burst":
                outcomes = await asyncio.gather(*(processes[which].call(quota) for _ in range(number)))
                used += sum(outcomes)
                assert not any(outcomes) or used <= quota.quota.limit
            case "wait":
                clock.time += which
            case "idle":
                clock.time += 1.0
                await processes[which].quotas.give_back_idle()
            case "crash":
                processes[which], crashed = Process(ledger, clock), True
            case _:
                quota = quota_of(number, quota.limit.name)
    for process in processes:
        await process.quotas.close()
    spent = await granted(pool, quota)
    assert spent >= used, "what was let through is counted"
    assert crashed or spent == used, "without a crash nothing is lost"


async def test_several_processes_use_a_quota_up_to_the_last_unit(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    processes, quota, random_ = [Process(ledger, clock) for _ in range(3)], quota_of(500), random.Random(7)
    allowed = 0
    for _ in range(800):
        allowed += await random_.choice(processes).call(quota)
        clock.time += 0.01
        if random_.random() < 0.05:
            await random_.choice(processes).quotas.give_back_idle()
    assert allowed == 500
    assert await granted(pool, quota) == 500


async def test_calls_that_hold_a_limit_as_it_was_and_as_it_is_are_all_answered(
    ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    before, after = quota_of(1_000, "changed"), quota_of(10, "changed")
    process = Process(ledger, clock)
    async with asyncio.timeout(20):
        outcomes = await asyncio.gather(*(process.call(quota) for quota in (before, after, before, after)))
    assert outcomes == [True] * 4


async def test_a_portion_is_spent_without_the_database(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    process, quota = Process(ledger, clock), quota_of(1_000_000)
    asked = _Counting(ledger)
    process.quotas._ledger = asked
    for _ in range(20_000):
        assert await process.call(quota)
        clock.time += 0.0001
    assert asked.lent < 30, "portions grow with use"


async def test_a_portion_that_others_may_miss_is_given_back_at_once_and_a_small_part_of_plenty_after_a_minute(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    process, scarce, plentiful = Process(ledger, clock), quota_of(1_000), quota_of(1_000_000)
    for quota in (scarce, plentiful):
        assert await process.call(quota)
    for seconds, lent in ((0.9, (16, 64)), (0.1, (1, 64)), (58.9, (1, 64)), (0.1, (1, 1))):
        clock.time += seconds
        await process.quotas.give_back_idle()
        assert (await granted(pool, scarce), await granted(pool, plentiful)) == lent, clock.time


async def test_a_portion_in_use_is_kept_and_not_given_back_in_place_of_the_one_before(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    process = Process(ledger, clock)
    assert await process.call(quota_of(600, "replaced"))
    clock.time += 0.5
    quota = quota_of(500, "replaced")
    for spent in range(2, 12):
        assert await process.call(quota)
        clock.time += 0.4
        await process.quotas.give_back_idle()
        assert await granted(pool, quota) > spent, "the rest of the portion is still lent"
    assert len(process.quotas._looks) == 1, "what was replaced is not looked at any more"
    clock.time += 2.0
    await process.quotas.give_back_idle()
    assert await granted(pool, quota) == 11


async def test_no_portion_grows_to_more_than_a_small_part_of_what_is_left(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    process, quota, used = Process(ledger, clock), quota_of(20_000), 0
    while used < 10_000:
        used += await process.call(quota)
        assert await granted(pool, quota) - used <= 200 + 200 // 4, "a crash now would waste this"
        clock.time += 0.001


async def test_a_quota_that_is_used_up_is_asked_about_twice_a_second_at_most(
    ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    process, quota = Process(ledger, clock), quota_of(0)
    asked = _Counting(ledger)
    process.quotas._ledger = asked
    for _ in range(1_000):
        assert not await process.call(quota)
        clock.time += 0.001
    assert asked.lent <= 3


async def test_what_a_denied_decision_took_is_put_back(ledger: PostgresQuotaLedger, clock: StillClock) -> None:
    process, quota = Process(ledger, clock), quota_of(10)
    assert await process.call(quota, 4)
    await process.quotas.borrow([quota], 6)
    held = process.take(quota, 6)
    assert not await process.call(quota, 6)
    process.quotas.put_back(held, 6)
    assert await process.call(quota, 6)


async def test_nothing_is_put_back_into_another_portion_than_it_was_taken_from(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    process, quota = Process(ledger, clock), quota_of(10)
    assert await process.call(quota, 1)
    await process.call(quota, 0)
    held = process.take(quota, 1)
    clock.time += 1.0
    await process.quotas.give_back_idle()
    assert await process.call(quota, 1)
    process.quotas.put_back(held, 1)
    await process.quotas.close()
    assert await granted(pool, quota) == 3


async def test_a_ledger_that_fails_lends_nothing_and_denies_nothing(
    ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    process, quota = Process(ledger, clock), quota_of(10)
    process.quotas._ledger = _Broken()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await process.call(quota)
    process.quotas._ledger = ledger
    assert await process.call(quota)


async def test_a_period_that_ends_takes_its_portions_with_it(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger, clock: StillClock
) -> None:
    process, quota = Process(ledger, clock), quota_of(10, period=QuotaPeriod.DAY)
    assert await process.call(quota)
    clock.time += 86_400.0
    assert process.quotas.known([quota], 1, clock.time) is None


async def test_what_was_lent_in_a_lost_history_is_not_taken_back(
    pool: asyncpg.Pool, ledger: PostgresQuotaLedger
) -> None:
    quota = quota_of(10)
    [portion] = await ledger.lend([PortionWanted(quota, 4, 4, 4)])
    elsewhere = Unspent(quota.bucket, portion.units, portion.period_start, "another timeline")
    await ledger.take_back([elsewhere])
    assert await granted(pool, quota) == 4
    await ledger.take_back([elsewhere._replace(timeline=portion.timeline)])
    assert await granted(pool, quota) == 0


async def test_what_a_reset_left_counts_within_its_period_alone(ledger: PostgresQuotaLedger) -> None:
    lately = quota_of(10, reset=Reset(5, 8, 4e9), period=QuotaPeriod.DAY)
    long_ago = quota_of(10, reset=Reset(5, 8, 1e9), period=QuotaPeriod.DAY)
    portions = await ledger.lend([PortionWanted(quota, 10, 10, 10) for quota in (lately, long_ago)])
    assert [portion.units for portion in portions] == [0, 10]
    assert portions[0].left == 2


class _Counting:
    """A ledger that counts how often it is asked."""

    def __init__(self, ledger: PostgresQuotaLedger) -> None:
        self._ledger, self.lent = ledger, 0

    async def lend(self, wanted: Sequence[PortionWanted]) -> Sequence[Portion]:
        self.lent += 1
        return await self._ledger.lend(wanted)

    async def take_back(self, unspent: Sequence[Unspent]) -> None:
        await self._ledger.take_back(unspent)


class _Broken:
    """A ledger out of reach."""

    async def lend(self, wanted: Sequence[PortionWanted]) -> Sequence[Portion]:
        raise StoreUnavailable("gone")

    async def take_back(self, unspent: Sequence[Unspent]) -> None:
        raise StoreUnavailable("gone")
