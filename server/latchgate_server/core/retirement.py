"""Whether a key that was replaced by rotation can be revoked unnoticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from latchgate_server.core.model import Key, KeyState
from latchgate_server.core.usage import Traffic

WINDOW = timedelta(days=30)
"""How far back pauses are looked for."""

_HOUR = timedelta(hours=1)
_UNITS = (("d", timedelta(days=1)), ("h", _HOUR), ("m", timedelta(minutes=1)), ("s", timedelta(seconds=1)))


@dataclass(frozen=True, slots=True)
class Retirement:
    """Whether it is safe, and why or why not, for people."""

    safe_to_revoke: bool
    explanation: str


def judge(old: Key, of_old: Traffic, of_new: Traffic, now: datetime) -> Retirement:
    """Safe is a key whose successor is in use, and that itself has not been for longer than it ever paused."""
    if old.state is KeyState.REVOKED:
        return Retirement(True, "The old key is revoked already.")
    if not of_new.allowed_day:
        return Retirement(False, "The new key was not used with success within the last day.")
    if old.last_use is None:
        return Retirement(True, "The old key was never used, and the new one is in use.")
    quiet = now - old.last_use.time
    pause = longest_pause(of_old.used_hours, now - WINDOW if of_old.used_before else None)
    if quiet > pause:
        return Retirement(
            True,
            f"The old key has not been used for {told(quiet)}, which is longer than its longest pause of the last "
            f"30 days ({told(pause)}), and the new one is in use.",
        )
    return Retirement(
        False,
        f"The old key was used {told(quiet)} ago; in the last 30 days it paused for up to {told(pause)}.",
    )


def longest_pause(used_hours: Sequence[datetime], used_before: datetime | None) -> timedelta:
    """The longest time that may have passed between two uses.

    used_hours: the hours with a use, in order; that is all that is known of when it was, so a pause counts from the
    start of the one hour to the end of the other. used_before: a moment before them, where a use lies before it.
    """
    starts = [*([used_before] if used_before else []), *used_hours]
    pauses = [after + _HOUR - before for before, after in pairwise(starts)]
    return max(pauses, default=_HOUR)


def told(time: timedelta) -> str:
    """A duration in its two largest units: `3d 4h`, `12m 5s`."""
    rest = max(time, timedelta())
    parts: list[str] = []
    for name, unit in _UNITS:
        count, rest = divmod(rest, unit)
        if count or parts:
            parts.append(f"{count}{name}")
    return " ".join(part for part in parts[:2] if not part.startswith("0")) or "0s"
