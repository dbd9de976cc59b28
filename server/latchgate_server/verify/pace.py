"""How fast a client that watches is read: never so slowly that one notices which only says what it must.

It must renew its lease, several times in each, and acknowledge what it is told. What it says beyond that waits in its
own memory: a stream that is not read on takes no more, by the flow control of HTTP/2.
"""

from __future__ import annotations

from latchgate_server.core import bounds
from latchgate_server.core.throttle import Throttle


class Pace:
    """Of one stream."""

    def __init__(self, revision: int) -> None:
        """revision: the one that the stream begins at."""
        self._acknowledged = revision
        self._turns = Throttle(1 / bounds.WATCHER_MESSAGES_PER_SECOND, bounds.WATCHER_MESSAGES_AT_ONCE)

    def delay(self, now: float) -> float:
        """Seconds until the next message is to be read; 0 where it is now. now: on the monotonic clock."""
        return self._turns.delay(now)

    def note_message(self, now: float, acknowledged: int, uses: int) -> None:
        """One was read.

        now: on the monotonic clock. acknowledged: a revision that the client was told, or one before it. Where it is a
        new one, the message is due, and takes no turn. uses: how many it reports, which take turns of their own.
        """
        turns = uses // bounds.WATCHER_USES_PER_MESSAGE
        if acknowledged > self._acknowledged:
            self._acknowledged = acknowledged
        else:
            turns += 1
        for _ in range(turns):
            self._turns.take(now)
