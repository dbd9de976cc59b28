"""Whether a call that waited for its turn is still worth serving: what keeps latency short under overload.

Controlled delay (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012), in the form for servers
(Maurer, "Fail at Scale", ACM Queue 13(8), 2015): a short burst may wait for a while, but once every call has had to
wait for longer than the target through a whole interval, there is a standing queue, and whatever waited longer than the
target is refused. What is refused costs little, so the rest is served about as fast as ever.
"""

from __future__ import annotations

from typing import Final

TARGET_SECONDS: Final = 0.05
INTERVAL_SECONDS: Final = 0.1
LONGEST_SECONDS: Final = 0.2


class Admission:
    """For one server. Fed in the order in which calls arrived."""

    def __init__(self) -> None:
        self._short_at = 0.0

    def admits(self, waited: float, now: float) -> bool:
        """Whether to serve what waited so long.

        waited: seconds. now: monotonic seconds.
        """
        if waited < TARGET_SECONDS:
            self._short_at = now
            return True
        return waited < LONGEST_SECONDS and now - self._short_at < INTERVAL_SECONDS
