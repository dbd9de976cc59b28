"""GCRA: what a bucket admits, and what it tells."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from latchgate_server.core.rate import Rate, admits, remaining, retry_after

RATES = st.builds(Rate.of, interval=st.floats(1e-6, 86_400.0, allow_nan=False), burst=st.integers(1, 10_000))
TIMES = st.lists(st.tuples(st.floats(0.0, 100.0), st.integers(1, 20)), max_size=60)


def test_a_full_bucket_admits_its_burst_and_not_one_more() -> None:
    rate = Rate.of(interval=0.1, burst=7)
    assert admits(0.0, rate, 7)
    assert not admits(0.0, rate, 8)
    assert not admits(7 * 0.1, rate, 1)


@given(RATES, TIMES, st.integers(1, 5))
def test_what_is_admitted_in_any_time_never_exceeds_the_burst_and_what_drained(
    rate: Rate, calls: list[tuple[float, int]], share: int
) -> None:
    """Of a share: the debt of what costs more than the share holds is paid back before anything else is admitted."""
    backlog, now, taken = 0.0, 0.0, 0
    for pause, cost in calls:
        now += pause
        backlog = max(0.0, backlog - pause)
        if admits(backlog, rate, cost, share):
            backlog += cost * rate.interval * share
            taken += cost
    most = rate.burst + now / (rate.interval * share) + (20 if share > 1 else 0)
    assert taken <= most * (1 + 1e-6) + 1e-6


@given(RATES, st.floats(0.0, 1e6), st.integers(1, 20_000), st.integers(1, 5))
def test_who_waits_as_long_as_told_is_admitted(rate: Rate, backlog: float, cost: int, share: int) -> None:
    backlog = min(backlog, rate.capacity)
    wait = retry_after(backlog, rate, cost, share)
    if cost > rate.burst:
        assert wait is None
    else:
        assert wait is not None
        assert admits(max(0.0, backlog - wait), rate, cost, share)


@given(RATES, st.floats(0.0, 1e6))
def test_what_remains_is_admitted_and_one_more_is_not(rate: Rate, backlog: float) -> None:
    backlog = min(backlog, rate.capacity)
    left = remaining(backlog, rate)
    assert 0 <= left <= rate.burst
    assert left == 0 or admits(backlog, rate, left)
    if backlog > 0 and not math.isclose(backlog % rate.interval, 0, abs_tol=rate.interval * 1e-3):
        assert not admits(backlog, rate, left + 1) or left + 1 <= remaining(backlog * (1 - 1e-6), rate)


def test_the_shares_of_several_processes_make_up_the_rate() -> None:
    rate, processes = Rate.of(interval=1.0, burst=12), 3
    taken = 0
    for _ in range(processes):
        backlog = 0.0
        while admits(backlog, rate, 1, processes):
            backlog += rate.interval * processes
            taken += 1
    assert taken == 12


def test_a_full_share_lends_what_costs_more_than_it_holds_and_is_paid_back_first() -> None:
    rate = Rate.of(interval=1.0, burst=10)
    assert admits(0.0, rate, 10, 5), "a call that the whole limit admits is not refused for ever"
    assert not admits(50.0, rate, 1, 5)
    assert retry_after(50.0, rate, 1, 5) == 45.0
