"""The access log: one line of JSON for each decision, or for a share of them. Off unless an operator asks for it.

Lines are made and written by a thread of their own, so that a slow disk or terminal slows no verification down; where
it falls behind, lines are dropped and counted. What is logged of a request has been through core/redaction.py.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import TextIO

from latchgate_server import log_events, observability
from latchgate_server.core import bounds
from latchgate_server.core.model import Question
from latchgate_server.core.redaction import kept, kept_request
from latchgate_server.core.usage import Event

WAITING_LINES = 20_000
_LINES_AT_ONCE = 16


class AccessLog:
    """Writes a share of all decisions to a stream."""

    def __init__(self, share: float, stream: TextIO) -> None:
        """share: of decisions to log, above 0 and up to 1."""
        self._share = share
        self._stream = stream
        self._due = 0.0
        self._given = 0
        self._taken = 0
        self._waiting: SimpleQueue[Sequence[Event] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="access-log", daemon=True)
        self._thread.start()

    def note(self, events: Sequence[Event]) -> None:
        """Take a stretch of decisions."""
        chosen = events if self._share >= 1 else list(self._sample(events))
        if self._given - self._taken + len(chosen) > WAITING_LINES:
            observability.ACCESS_LOG_DROPPED.inc(len(chosen))
        elif chosen:
            self._given += len(chosen)
            self._waiting.put(chosen)

    def close(self) -> None:
        """Write what is left."""
        self._waiting.put(None)
        self._thread.join(timeout=5)

    def _sample(self, events: Sequence[Event]) -> Iterator[Event]:
        """Every n-th: it takes no randomness, and an hour's lines tell an hour's traffic."""
        for event in events:
            self._due += self._share
            if self._due >= 1:
                self._due -= 1
                yield event

    def _write_all(self) -> None:
        while (events := self._waiting.get()) is not None:
            for start in range(0, len(events), _LINES_AT_ONCE):
                # Few at a time: whoever writes lets the other threads run.
                text = "".join(map(_line, events[start : start + _LINES_AT_ONCE]))
                try:
                    self._stream.write(text)
                    self._stream.flush()
                except (OSError, ValueError):
                    observability.ACCESS_LOG_DROPPED.inc(len(events) - start)
                    break
            self._taken += len(events)


def _line(event: Event) -> str:
    time, verification, question, record = event
    reason = verification.denial_reason
    told: dict[str, object] = {
        "event": log_events.DECISION,
        "level": "info",
        "timestamp": datetime.fromtimestamp(time, UTC).isoformat().replace("+00:00", "Z"),
        "decision": verification.decision.name,
        "denial_reason": reason.name if reason else "",
        "key_id": record.identity.key_id if record else "",
        "tenant_id": record.identity.tenant_id if record else "",
        "user": verification.user,
        "client_ip": kept(question.client_ip, bounds.CLIENT_ADDRESS_LENGTH),
        **_asked(question),
        **kept_request(question.request)._asdict(),
        "revision": verification.revision,
        "stale": verification.stale,
    }
    return json.dumps(told, ensure_ascii=False) + "\n"


def _asked(question: Question) -> dict[str, object]:
    """What was asked for, beside the key; only what was."""
    asked = {"resource": question.resource, "capability": question.capability, "act_as": question.act_as}
    return {name: kept(value) for name, value in asked.items() if value}
