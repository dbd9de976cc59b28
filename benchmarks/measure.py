"""CPU time of a server process for each call, of several subjects in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load import Load, Outcome, Shape
from benchmarks.machine import cpu_seconds

VERIFY_PATH = "/latchgate.v1.VerifyService/Verify"
BATCH_PATH = "/latchgate.v1.VerifyService/BatchVerify"
_AFTERMATH_SECONDS = 1.3
"""What calls leave to be done later, such as the writing of uses once a second, is to be counted as theirs."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Something that answers calls.

    pids: its processes. bodies: framed messages to send, of one length. check: begun before each slice; what it
    returns is told how many calls were answered, and raises where the answers are not what they should be.
    """

    name: str
    address: str
    pids: Sequence[int]
    bodies: Sequence[bytes]
    path: str = VERIFY_PATH
    shape: Shape = field(default_factory=Shape)
    check: Callable[[], Callable[[int], None]] = lambda: lambda _: None


class WrongAnswers(Exception):
    """A server decided otherwise than it should: the figures would be worth nothing."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over the slices. cpu: seconds for each call. rate: calls a second, as they came."""

    cpu: float
    rate: float

    @property
    def microseconds(self) -> float:
        """CPU time of the server for each call."""
        return self.cpu * 1e6


def in_turn(
    subjects: Sequence[Subject], rounds: int, seconds: float, progress: Callable[[str], None]
) -> Mapping[str, Cost]:
    """Load each subject for a slice of `seconds`, one after the other, `rounds` times; the costs by name."""
    slices: dict[str, list[Cost]] = {subject.name: [] for subject in subjects}
    for number in range(rounds):
        for subject in subjects:
            progress(f"{subject.name}, {number + 1} of {rounds}")
            slices[subject.name].append(_slice(subject, seconds))
    return {
        name: Cost(statistics.median(cost.cpu for cost in costs), statistics.median(cost.rate for cost in costs))
        for name, costs in slices.items()
    }


def _slice(subject: Subject, seconds: float) -> Cost:
    check = subject.check()
    before = cpu_seconds(subject.pids)
    with Load(subject.address, subject.path, subject.bodies, seconds, subject.shape) as load:
        outcome = load.outcome()
    time.sleep(_AFTERMATH_SECONDS)
    spent = cpu_seconds(subject.pids) - before
    require_answers(subject.name, outcome)
    check(outcome.done)
    return Cost(spent / outcome.done, outcome.rate)


def require_answers(name: str, outcome: Outcome) -> None:
    """Raise WrongAnswers where calls were not answered at all."""
    if not outcome.done or outcome.failed > outcome.done / 1_000:
        raise WrongAnswers(f"{name}: {outcome.failed} of {outcome.failed + outcome.done} calls were not answered")
