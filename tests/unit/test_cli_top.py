"""What `latchgate top` makes of what metrics endpoints show."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from latchgate_server.cli.top_frame import HotKeys, frame
from latchgate_server.cli.top_metrics import Growth, Look, NoMetrics, longest, look, quantile, read
from latchgate_server.cli.top_view import rate, seconds

DECISIONS = 'latchgate_decisions_total{{decision="ALLOW",denial_reason=""}} {allowed}\n'
DENIED = 'latchgate_decisions_total{{decision="DENY",denial_reason="{reason}"}} {count}\n'


def at(moment: float, text: str, address: str = "a:1") -> Look:
    return Look(address, moment, read(text))


def test_rates_are_growth_by_time_of_all_replicas_together() -> None:
    before = [at(10, DECISIONS.format(allowed=100)), at(10, DECISIONS.format(allowed=7), "b:1")]
    now = [at(12, DECISIONS.format(allowed=140)), at(14, DECISIONS.format(allowed=27), "b:1")]
    picture = frame(before, now, HotKeys())
    assert picture.allowed_per_second == 20 + 5
    assert [replica.decisions_per_second for replica in picture.replicas] == [20, 5]


def test_a_process_that_started_anew_counts_from_zero() -> None:
    growth = Growth.between([at(0, DECISIONS.format(allowed=1_000))], [at(1, DECISIONS.format(allowed=3))])
    assert growth.rate("decisions_total") == 3


def test_what_did_not_answer_both_times_has_no_rate_and_says_why() -> None:
    before = [Look("a:1", 0, problem="nothing answers there"), at(0, DECISIONS.format(allowed=1), "b:1")]
    now = [at(1, DECISIONS.format(allowed=500)), Look("b:1", 1, problem="it did not answer within 3s")]
    picture = frame(before, now, HotKeys())
    assert picture.allowed_per_second == 0
    assert [replica.problem for replica in picture.replicas] == ["", "it did not answer within 3s"]


def test_reasons_are_told_from_the_most_frequent_on() -> None:
    first = "".join(DENIED.format(reason=reason, count=1) for reason in ("API_KEY_EXPIRED", "RATE_LIMITED", "NOT_SEEN"))
    counts = {"API_KEY_EXPIRED": 3, "RATE_LIMITED": 9, "NOT_SEEN": 1}
    then = "".join(DENIED.format(reason=reason, count=count) for reason, count in counts.items())
    picture = frame([at(0, first)], [at(2, then)], HotKeys())
    assert list(picture.denials_per_second.items()) == [("RATE_LIMITED", 4), ("API_KEY_EXPIRED", 1)]
    assert picture.denied_per_second == 5


@given(st.lists(st.floats(0.0001, 90), min_size=1, max_size=40), st.floats(0.01, 1))
def test_a_quantile_is_within_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    bounds = (0.001, 0.01, 0.1, 1.0, 10.0, 100.0)
    registry = CollectorRegistry()
    histogram = Histogram("latchgate_x_seconds", "x", buckets=bounds, registry=registry)
    for value in values:
        histogram.observe(value)
    shown = at(1, generate_latest(registry).decode())
    found = Growth([(Look("a:1", 0), shown)]).quantile(share, "x_seconds")
    true = sorted(values)[math.ceil(share * len(values)) - 1]
    upper = next(bound for bound in bounds if true <= bound)
    lower = max((bound for bound in bounds if bound < true), default=0.0)
    assert found is not None
    assert lower <= found <= upper * (1 + 1e-9)
    assert longest([shown], "x_seconds") == next(bound for bound in bounds if max(values) <= bound)


def test_without_observations_there_is_no_quantile() -> None:
    assert quantile(0.5, {}) is None
    assert quantile(0.5, {"1.0": 0.0, "+Inf": 0.0}) is None
    assert longest([Look("a:1", 0)], "x_seconds") is None


@pytest.mark.parametrize("text", ["", "<html>", "node_load1 0.5\n", "latchgate_x{ 1\n"])
def test_what_shows_no_metrics_of_ours_is_refused(text: str) -> None:
    with pytest.raises(NoMetrics):
        read(text)


def test_nothing_that_listens_is_a_problem_and_no_crash() -> None:
    (found,) = look(["127.0.0.1:1"], lambda: 0.0)
    assert found.problem == "nothing answers there"


def test_numbers_have_the_digits_that_say_something() -> None:
    assert [rate(value) for value in (0, 0.013, 0.44, 9.96, 163.2, 12_345)] == [
        "0",
        "0.01",
        "0.4",
        "10.0",
        "163",
        "12,345",
    ]
    times = (None, 0, 0.000_294, 0.004_95, 1.5, 35)
    assert [seconds(value) for value in times] == ["-", "0 s", "294 µs", "4.95 ms", "1.5 s", "35 s"]
