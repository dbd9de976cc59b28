"""Counts of the hot path: nothing is lost and nothing counted twice on their way into the metrics."""

from __future__ import annotations

import threading

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import generate_latest

from latchgate_server import observability
from latchgate_server.core.model import DenialReason
from latchgate_server.counting import HandsOn, PlainCounter, PlainHistogram, SummedHistogram

BOUNDS = (0.001, 0.01, 0.1)


def lines_of(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_a_plain_histogram_shows_what_the_librarys_own_would() -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    hands_on = HandsOn(ours)
    plain = PlainHistogram(SummedHistogram("seconds", "s", buckets=BOUNDS, registry=ours), BOUNDS)
    hands_on.also(plain.hand_on)
    library = Histogram("seconds", "s", buckets=BOUNDS, registry=theirs)
    for value in (0.0, 0.001, 0.0010001, 0.05, 0.1, 7.0, 0.01):
        plain.observe(value)
        library.observe(value)
        assert lines_of(ours) == lines_of(theirs)


def test_many_observations_of_one_value_count_as_many() -> None:
    registry = CollectorRegistry()
    hands_on = HandsOn(registry)
    plain = PlainHistogram(SummedHistogram("seconds", "s", buckets=BOUNDS, registry=registry), BOUNDS)
    hands_on.also(plain.hand_on)
    plain.observe(0.5, 128)
    assert registry.get_sample_value("seconds_count") == 128
    assert registry.get_sample_value("seconds_sum") == 64
    assert registry.get_sample_value("seconds_bucket", {"le": "0.1"}) == 0


def test_scrapes_at_the_same_time_hand_on_once() -> None:
    registry = CollectorRegistry()
    hands_on = HandsOn(registry)
    plain = PlainCounter(Counter("things", "t", registry=registry))
    hands_on.also(plain.hand_on)

    def scrape() -> None:
        for _ in range(200):
            hands_on.hand_on()

    scrapers = [threading.Thread(target=scrape) for _ in range(4)]
    for scraper in scrapers:
        scraper.start()
    for _ in range(20_000):
        plain.count += 1
    for scraper in scrapers:
        scraper.join()
    assert registry.get_sample_value("things_total") == 20_000


def test_each_decision_is_counted_under_its_own_reason() -> None:
    def shown(reason: DenialReason | None) -> float:
        labels = {"decision": "DENY" if reason else "ALLOW", "denial_reason": reason.name if reason else ""}
        value = observability.REGISTRY.get_sample_value("latchgate_decisions_total", labels)
        assert value is not None
        return value

    for reason in (None, *(reason for reason in DenialReason if reason)):
        before = {each: shown(each) for each in (None, *(each for each in DenialReason if each))}
        observability.count_decision(reason)
        assert {each: shown(each) - was for each, was in before.items()} == {
            each: int(each is reason) for each in before
        }
