"""How fast a client that watches is read."""

from __future__ import annotations

from latchgate_server.core import bounds
from latchgate_server.core.replication import SHORTEST_CLIENT_LEASE
from latchgate_server.verify.pace import Pace

BEGINNING = 17
"""The revision that a stream begins at."""

MOST_OFTEN = SHORTEST_CLIENT_LEASE * 0.9 / 3 / 2
"""Seconds between messages of the Python client, which renews a lease three times in each, and whenever it is woken."""


def read(pace: Pace, seconds: float, *, acknowledged: int = 0, uses: int = 0) -> int:
    """How many messages of a client that always has one are read in so many seconds from 0 on."""
    now, count = 0.0, 0
    while (now := now + pace.delay(now)) <= seconds + 1e-6:
        pace.note_message(now, acknowledged, uses)
        count += 1
    return count


def test_a_client_that_never_stops_is_read_at_a_rate() -> None:
    most = bounds.WATCHER_MESSAGES_AT_ONCE + 60 * bounds.WATCHER_MESSAGES_PER_SECOND
    for acknowledged in (0, BEGINNING, BEGINNING + 1):
        assert most - 1 <= read(Pace(BEGINNING), 60.0, acknowledged=acknowledged) <= most + 1


def test_a_report_counts_the_more_the_longer_it_is() -> None:
    turns = 1 + bounds.CACHED_USES // bounds.WATCHER_USES_PER_MESSAGE
    alone = read(Pace(BEGINNING), 600.0)
    assert read(Pace(BEGINNING), 600.0, uses=bounds.CACHED_USES) * turns <= alone + turns


def test_what_acknowledges_what_came_before_the_stream_counts_like_any_other() -> None:
    pace = Pace(BEGINNING)
    for revision in range(bounds.WATCHER_MESSAGES_AT_ONCE):
        pace.note_message(0.0, revision - bounds.WATCHER_MESSAGES_AT_ONCE + BEGINNING, 0)
    assert pace.delay(0.0) > 0


def test_a_client_that_renews_as_often_as_one_can_and_acknowledges_what_it_is_told_never_waits() -> None:
    """Not even where it hears of hundreds of changes late, and acknowledges them one by one."""
    pace, told = Pace(BEGINNING), BEGINNING
    for number in range(10_000):
        now = number * MOST_OFTEN
        assert not pace.delay(now)
        pace.note_message(now, told, 0)
        for _ in range(500 if number % 50 == 0 else 0):
            told += 1
            pace.note_message(now, told, 0)
            assert not pace.delay(now)


def test_reports_of_as_many_keys_as_fit_never_wait_at_the_default_lease() -> None:
    pace = Pace(BEGINNING)
    for number in range(1_000):
        now = number * 0.3
        assert not pace.delay(now)
        pace.note_message(now, 0, bounds.CACHED_USES)
