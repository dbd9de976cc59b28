"""When a call that waited is still served."""

from __future__ import annotations

from latchgate_server.transport.admission import INTERVAL_SECONDS, LONGEST_SECONDS, TARGET_SECONDS, Admission


def test_who_waited_briefly_is_always_served() -> None:
    admission = Admission()

    assert all(admission.admits(TARGET_SECONDS * 0.9, now=float(now)) for now in range(10))


def test_a_short_burst_may_wait_longer() -> None:
    admission = Admission()
    admission.admits(0.0, now=100.0)

    assert admission.admits(LONGEST_SECONDS * 0.9, now=100.0 + INTERVAL_SECONDS * 0.9)


def test_nobody_is_served_after_the_longest_wait() -> None:
    admission = Admission()
    admission.admits(0.0, now=100.0)

    assert not admission.admits(LONGEST_SECONDS, now=100.0)


def test_in_a_standing_queue_whoever_waited_longer_than_the_target_is_refused_until_it_is_gone() -> None:
    admission = Admission()
    admission.admits(0.0, now=100.0)
    later = 100.0 + INTERVAL_SECONDS * 1.1

    assert not admission.admits(TARGET_SECONDS, now=later)
    assert admission.admits(TARGET_SECONDS * 0.9, now=later)
    assert admission.admits(TARGET_SECONDS, now=later), "a new burst has its own interval"
