"""Notices what an operator should hear of: failed authentications, bursts of wrong secrets, new addresses, sleepers.

Counts everything in metrics; logs some of it, never faster than a person could read, since whoever floods us decides
how much there is to tell. No credential is ever in it, only the ids of keys that exist.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

import structlog

from latchgate_server import log_events, observability
from latchgate_server.core import bounds
from latchgate_server.core.model import DenialReason
from latchgate_server.core.ports import Clock
from latchgate_server.core.redaction import kept
from latchgate_server.core.usage import Event, Written

LINES: Final = 10
"""Of each kind of event, this many are logged one by one in PERIOD_SECONDS; the rest is only counted."""

PERIOD_SECONDS: Final = 10.0
BURST: Final = 20
"""So many wrong secrets against one key in BURST_SECONDS are a burst."""

BURST_SECONDS: Final = 60.0
_KEYS_WATCHED: Final = 10_000
_FAILURES_TOLD_APART: Final = 1_000
_LAST_AUTHENTICATION_FAILURE: Final = int(DenialReason.API_KEY_EXPIRED)
"""Denials up to this number authenticated nobody."""

_log = structlog.get_logger()

_Failure = tuple[int, str, str]
"""Number of the DenialReason, key id, client address."""


class _Tries:
    """Wrong secrets against one key. began: when the first of them was noted, in monotonic seconds."""

    __slots__ = ("began", "count")

    def __init__(self, began: float) -> None:
        self.began = began
        self.count = 0


class Noticing:
    """Watches decisions, and what writing their traces brings to light."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[_Failure, int] = {}
        self._wrong_secrets: OrderedDict[str, _Tries] = OrderedDict()
        self._lines: Counter[str] = Counter()
        self._period_began = clock.monotonic()

    def note(self, events: Sequence[Event]) -> None:
        """Take a stretch of decisions."""
        now, failures = self._clock.monotonic(), [0] * (_LAST_AUTHENTICATION_FAILURE + 1)
        for _, verification, question, record in events:
            reason = verification.denial_reason
            if reason is None or int(reason) > _LAST_AUTHENTICATION_FAILURE:
                continue
            failures[int(reason)] += 1
            key_id = "" if record is None else record.identity.key_id
            self._count_failure(int(reason), key_id, question.client_ip)
            if reason is DenialReason.INVALID_SECRET and key_id:
                self._watch(key_id, question.client_ip, now)
        for number, count in enumerate(failures):
            if count:
                observability.count_authentication_failures(DenialReason(number), count)
        if now - self._period_began >= PERIOD_SECONDS:
            self._end_period()

    def note_written(self, written: Written) -> None:
        """Take what writing brought to light."""
        for source in written.new_sources:
            observability.NEW_SOURCES.inc()
            self._tell(log_events.NEW_SOURCE, key_id=source.key_id, client_ip=source.client_ip)
        for awakening in written.awakenings:
            observability.DORMANT_KEYS_USED.inc()
            slept_since = awakening.slept_since.isoformat()
            self._tell(log_events.DORMANT_KEY_USED, key_id=awakening.key_id, slept_since=slept_since)

    def _count_failure(self, reason: int, key_id: str, client_ip: str) -> None:
        which = (reason, key_id, client_ip[: bounds.CLIENT_ADDRESS_LENGTH])
        count = self._failures.get(which, 0)
        if not count and len(self._failures) >= _FAILURES_TOLD_APART:
            which = (reason, "", "")
            count = self._failures.get(which, 0)
        self._failures[which] = count + 1

    def _watch(self, key_id: str, client_ip: str, now: float) -> None:
        """Count the wrong secrets against one key, and tell once in each window in which they are too many."""
        tries = self._wrong_secrets.get(key_id)
        if tries is None or now - tries.began > BURST_SECONDS:
            tries = self._wrong_secrets[key_id] = _Tries(now)
            self._wrong_secrets.move_to_end(key_id)
            if len(self._wrong_secrets) > _KEYS_WATCHED:
                self._wrong_secrets.popitem(last=False)  # the one whose window began longest ago
        tries.count += 1
        if tries.count == BURST:
            observability.WRONG_SECRET_BURSTS.inc()
            self._tell(
                log_events.WRONG_SECRET_BURST,
                key_id=key_id,
                client_ip=kept(client_ip, bounds.CLIENT_ADDRESS_LENGTH),
                wrong_secrets=BURST,
                seconds=round(now - tries.began, 1),
            )

    def _tell(self, event: str, **fields: object) -> None:
        """Log an event, unless there were too many of its kind."""
        self._lines[event] += 1
        if self._lines[event] <= LINES:
            _log.warning(event, **fields)

    def _end_period(self) -> None:
        self._tell_failures(self._failures)
        for event, count in self._lines.items():
            if count > LINES:
                _log.warning(log_events.EVENTS_SUPPRESSED, of=event, count=count - LINES)
        self._failures = {}
        self._lines = Counter()
        self._period_began = self._clock.monotonic()

    def _tell_failures(self, failures: Mapping[_Failure, int]) -> None:
        ranked = Counter(failures).most_common()
        for (reason, key_id, client_ip), count in ranked[:LINES]:
            _log.warning(
                log_events.AUTHENTICATION_FAILED,
                denial_reason=DenialReason(reason).name,
                key_id=key_id,
                client_ip=kept(client_ip, bounds.CLIENT_ADDRESS_LENGTH),
                count=count,
            )
        if rest := sum(count for _, count in ranked[LINES:]):
            _log.warning(log_events.EVENTS_SUPPRESSED, of=log_events.AUTHENTICATION_FAILED, count=rest)
