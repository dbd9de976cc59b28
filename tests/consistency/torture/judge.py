"""Knows from when to when each key had to be denied, and had to be allowed, and judges decisions by that.

What makes a key work or not is a set of switches: its own, its expiry, its tenant, its role. An administrator's call
that turns a switch leaves it unsure from the moment before the call until it returns; from then on the switch is off,
or on, until the next call begins. So a decision that began after a revocation returned, and ended before anything was
called that undoes it, is wrong where it says ALLOW; whatever overlaps a call may go either way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

REMEMBERED_SECONDS = 90.0
"""How far back switches remember; longer than any call takes."""

VIOLATIONS_TOLD = 20

ALLOW = 0
"""An outcome. A denial is 1 to 99, its DenialReason; an error is ERROR and its gRPC code more."""
ERROR = 100


ASKED = 100
"""In place of a replica: the client with a cache that watches it, where that asked. CACHED: where it did not."""
CACHED = 200


class Phase(Enum):
    """What is known of a switch."""

    ON = "on"
    OFF = "off"
    UNSURE = "unsure"


class Switch:
    """Something that every use of some keys depends on."""

    def __init__(self, name: str, now: float, phase: Phase = Phase.ON) -> None:
        self.name = name
        self._times = [now]
        self._phases = [phase]

    @property
    def phase(self) -> Phase:
        """What is known now."""
        return self._phases[-1]

    def begin(self, now: float, towards: Phase) -> None:
        """A call that turns it is about to be made."""
        if self.phase is not towards:
            self._set(now, Phase.UNSURE)

    def end(self, now: float, phase: Phase) -> None:
        """The call has returned OK. One that failed has no end: who knows what it did, or will do yet."""
        if self.phase is not phase:
            self._set(now, phase)

    def during(self, start: float, end: float) -> Phase:
        """Its phase at every moment from start to end, or UNSURE where that changed."""
        place = bisect_right(self._times, start)
        if place == 0 or (place < len(self._times) and self._times[place] <= end):
            return Phase.UNSURE
        return self._phases[place - 1]

    def history(self, around: float) -> str:
        """What happened lately, for people."""
        entries = zip(self._times, self._phases, strict=True)
        return ", ".join(f"{phase.value} {time - around:+.4f}" for time, phase in list(entries)[-6:])

    def _set(self, now: float, phase: Phase) -> None:
        while len(self._times) > 1 and self._times[1] < now - REMEMBERED_SECONDS:
            del self._times[0], self._phases[0]
        self._times.append(now)
        self._phases.append(phase)


@dataclass(frozen=True, slots=True)
class Decision:
    """What a client was told. key: its number. replica: see ASKED. start, end: of the call. outcome: see ALLOW."""

    key: int
    replica: int
    start: float
    end: float
    outcome: int


@dataclass(slots=True)
class Judge:
    """Judges decisions as they come in.

    cached: how many came from caches of clients. decisive: how many of the decisions had only one right answer. wrong:
    how many did not have it. violations: the first of those, in words.
    """

    allowed: int = 0
    denied: int = 0
    cached: int = 0
    decisive: int = 0
    wrong: int = 0
    errors: Counter[int] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)
    _keys: dict[int, tuple[str, Sequence[Switch]]] = field(default_factory=dict)

    @property
    def judged(self) -> int:
        """How many decisions there were."""
        return self.allowed + self.denied

    def add_key(self, number: int, key_id: str, switches: Sequence[Switch]) -> None:
        """Tell of a key before clients get it."""
        self._keys[number] = key_id, switches

    def remove_key(self, number: int) -> None:
        """Forget a key that no client uses any more."""
        del self._keys[number]

    def judge(self, decision: Decision) -> None:
        """Count a decision, and note it where it is wrong."""
        if decision.outcome >= ERROR:
            self.errors[decision.outcome - ERROR] += 1
            return
        is_allow = decision.outcome == ALLOW
        self.cached += decision.replica >= CACHED
        if is_allow:
            self.allowed += 1
        else:
            self.denied += 1
        known = self._keys.get(decision.key)
        if known is None:
            return
        phases = [switch.during(decision.start, decision.end) for switch in known[1]]
        must_deny = Phase.OFF in phases
        must_allow = all(phase is Phase.ON for phase in phases)
        self.decisive += must_deny or must_allow
        if must_deny if is_allow else must_allow:
            self.wrong += 1
            if len(self.violations) < VIOLATIONS_TOLD:
                self.violations.append(self._describe(decision, *known))

    def _describe(self, decision: Decision, key_id: str, switches: Sequence[Switch]) -> str:
        said = "ALLOW" if decision.outcome == ALLOW else f"DENY for reason {decision.outcome}"
        lasted = decision.end - decision.start
        histories = "; ".join(f"{switch.name}: {switch.history(decision.start)}" for switch in switches)
        return (
            f"replica {decision.replica} said {said} to {key_id} in a call that began at {decision.start:.4f} and took "
            f"{lasted:.4f}; seconds before and after its beginning: {histories}"
        )
