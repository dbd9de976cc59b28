"""When a call is tried again: where the server could not tell, not too often, and not at the same moment as others.

A call whose answer was lost may have been charged, and is not sent again, unless it takes nothing. What the server
answered itself (it could not decide), it took nothing for.
"""

from __future__ import annotations

import random

import grpc

from latchgate.errors import CallFailed

ATTEMPTS = 3
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_BUDGET = 100
_COST = 10
_EARNED = 1


class Retries:
    """The budget of one client: while much fails, nothing is sent twice.

    Each success earns a tenth of a retry, so that a broken server sees a tenth more calls, not three times as many
    (gRFC A6, "Retry Throttling").
    """

    def __init__(self) -> None:
        self._left = _BUDGET

    def note_success(self) -> None:
        """Earn."""
        self._left = min(_BUDGET, self._left + _EARNED)

    def pause(self, error: CallFailed, attempt: int, cost: int) -> float | None:
        """The seconds to wait before trying again; None where the error stands.

        attempt: how many there were. cost: what the call takes from limits.
        """
        if error.code is not grpc.StatusCode.UNAVAILABLE or attempt >= ATTEMPTS:
            return None
        if cost and not error.is_from_server:
            return None
        if self._left < _COST:
            return None
        self._left -= _COST
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt)
        return random.uniform(0, longest)  # noqa: S311 - it spreads callers, and keeps no secret
