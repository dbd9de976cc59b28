"""What happens while the database is gone: nothing is decided, or memory goes on deciding, as the operator chose."""

from __future__ import annotations

import structlog

from latchgate_server import log_events, observability
from latchgate_server.core.ports import Clock
from latchgate_server.verify.feed import Feed

_log = structlog.get_logger()


class Outage:
    """Whether cached records may be used without a lease.

    They may only where the operator chose `serve_cached`, only while the database does not answer, and no longer than
    `max_staleness` after the last beat. A lease that merely ran out, as after a pause of this process, is no outage.
    """

    def __init__(self, feed: Feed, clock: Clock, serve_cached: bool, max_staleness: float) -> None:
        """max_staleness: seconds."""
        self._feed = feed
        self._clock = clock
        self._serve_cached = serve_cached
        self._max_staleness = max_staleness
        self._announced = False

    def allows_stale(self) -> bool:
        """Whether a cached record may be used now, and the response be marked `stale`."""
        last_beat_at = self._feed.last_beat_at
        allowed = (
            self._serve_cached
            and self._feed.is_lost
            and last_beat_at is not None
            and self._clock.monotonic() < last_beat_at + self._max_staleness
        )
        if not allowed:
            self._note_end()
        return allowed

    def note_stale(self) -> None:
        """Count a decision on stale state; the first of an outage is logged."""
        observability.STALE_DECISIONS.inc()
        if not self._announced:
            self._announced = True
            _log.warning(log_events.SERVING_STALE, for_at_most_seconds=self._max_staleness)

    def _note_end(self) -> None:
        if self._announced:
            self._announced = False
            _log.info(log_events.SERVING_FRESH)
